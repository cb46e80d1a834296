/* Shared by the files of the shim; Rust never sees it. */
#ifndef FE_PHP_INTERNAL_H
#define FE_PHP_INTERNAL_H

#include "php.h"
#include "SAPI.h"
#include "php_ini.h"
#include "php_main.h"
#include "php_output.h"
#include "php_variables.h"
#include "zend_ini.h"
#include "zend_exceptions.h"
#include "zend_extensions.h"
#include "zend_signal.h"
#include "ext/standard/head.h"
#include "ext/standard/info.h"

#include "shim.h"

#if PHP_VERSION_ID < 80200
# error "fe-php needs PHP 8.2 or newer"
#endif

#ifdef ZTS
ZEND_TSRMLS_CACHE_EXTERN()
#endif

/* Values of cgi.* and fastcgi.*, the cache of .user.ini files, and more; one per thread. */
typedef struct fe_php_globals {
	bool rfc2616_headers;
	bool nph;
	bool force_redirect;
	char *redirect_status_env;
	bool fix_pathinfo;
	bool discard_path;
	bool script_path_encoded;
	bool fcgi_logging;
	char *error_header;
	char *fpm_config;
	HashTable user_config_cache;
	/* request_terminate_timeout has passed, of so many milliseconds; another thread writes it. */
	uint32_t stop_after;
} fe_php_globals;

#ifdef ZTS
extern int fe_php_globals_id;
# define FE_G(v) ZEND_TSRMG(fe_php_globals_id, fe_php_globals *, v)
#else
extern fe_php_globals fe_php_globals_static;
# define FE_G(v) (fe_php_globals_static.v)
#endif

extern fe_php_callbacks fe_php_rust;
extern zend_module_entry fe_php_module_entry;
extern sapi_module_struct fe_php_sapi;
/* In a child of pcntl_fork. */
extern volatile bool fe_php_forked;

static inline fe_php_request *fe_php_current(void)
{
	return (fe_php_request *) SG(server_context);
}

/* Where requests start and end; php-fpm's pool directory. */
void fe_php_go_home(void);
void fe_php_say(const char *message);
extern bool fe_php_to_stdout;
const fe_php_variables *fe_php_all_variables(fe_php_request *request);
const fe_php_bytes *fe_php_find_variable(fe_php_request *request, const char *name, size_t len);

void fe_php_opcache_look(fe_php_request *request);
void fe_php_register_variables(zval *track_vars_array);
void fe_php_import_environment(zval *array);
void fe_php_load_environment(zval *array);
void fe_php_keep_own_import(void);
void fe_php_activate_per_request_ini(fe_php_request *request);
int fe_php_activate_directory_ini(fe_php_request *request);
void fe_php_keep_bodies_in_memory(void);
void fe_php_timeout_hold(const fe_php_request *request);
void fe_php_timeout_end(void);
void fe_php_timeout_interrupt(void);
void fe_php_interrupt_startup(void);
void fe_php_interrupt_check(void);
bool fe_php_interrupt_is_wanted(void);
void fe_php_globals_ctor(fe_php_globals *globals);
void fe_php_globals_dtor(fe_php_globals *globals);

#endif
