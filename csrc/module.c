/* The module "cgi-fcgi": php-fpm's functions and ini entries, under its names. */
#include "internal.h"
#include "ext/standard/basic_functions.h"

#ifdef ZTS
int fe_php_globals_id;
#else
fe_php_globals fe_php_globals_static;
#endif

/* fastcgi_finish_request(): the client gets everything now; what comes after is discarded. */
PHP_FUNCTION(fastcgi_finish_request)
{
	fe_php_request *request = fe_php_current();
	ZEND_PARSE_PARAMETERS_NONE();

	if (!request || fe_php_forked || request->finished) {
		RETURN_FALSE;
	}
	php_output_end_all();
	php_header();
	request->finished = true;
	request->stage = FE_PHP_STAGE_FINISHED;
	fe_php_rust.finish(request->context);
	RETURN_TRUE;
}

/* getallheaders(), apache_request_headers() */
PHP_FUNCTION(apache_request_headers)
{
	fe_php_request *request = fe_php_current();
	ZEND_PARSE_PARAMETERS_NONE();

	array_init(return_value);
	if (!request) {
		return;
	}
	const fe_php_variables *variables = fe_php_all_variables(request);
	for (size_t i = 0; i < variables->count; i++) {
		const fe_php_variable *variable = &variables->list[i];
		char *name = estrndup(variable->name.ptr, variable->name.len);
		char *value = estrndup(variable->value.ptr, variable->value.len);
		sapi_add_request_header(name, variable->name.len, value, variable->value.len, return_value);
		efree(value);
		efree(name);
	}
}

/* fpm_get_status() */
PHP_FUNCTION(fpm_get_status)
{
	fe_php_request *request = fe_php_current();
	fe_php_status status;
	zval procs, proc, *target = return_value;
	ZEND_PARSE_PARAMETERS_NONE();

	status = request && !fe_php_forked ? fe_php_rust.status(request->context) : (fe_php_status) {NULL, 0};
	if (status.count == 0) {
		RETURN_FALSE;
	}
	array_init(return_value);
	array_init(&procs);
	for (size_t i = 0; i < status.count; i++) {
		const fe_php_status_value *value = &status.values[i];
		if (value->name.len == 0) {
			array_init(&proc);
			add_next_index_zval(&procs, &proc);
			target = &proc;
		} else if (value->kind == 0) {
			add_assoc_long_ex(target, value->name.ptr, value->name.len, (zend_long) value->integer);
		} else if (value->kind == 1) {
			add_assoc_double_ex(target, value->name.ptr, value->name.len, value->number);
		} else {
			add_assoc_stringl_ex(target, value->name.ptr, value->name.len, value->text.ptr, value->text.len);
		}
	}
	add_assoc_zval(return_value, "procs", &procs);
}

ZEND_BEGIN_ARG_INFO_EX(arginfo_fpm_get_status, 0, 0, 0)
ZEND_END_ARG_INFO()

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_fastcgi_finish_request, 0, 0, _IS_BOOL, 0)
ZEND_END_ARG_INFO()

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_apache_request_headers, 0, 0, IS_ARRAY, 0)
ZEND_END_ARG_INFO()

static const zend_function_entry functions[] = {
	PHP_FE(fastcgi_finish_request, arginfo_fastcgi_finish_request)
	PHP_FE(fpm_get_status, arginfo_fpm_get_status)
	PHP_FE(apache_request_headers, arginfo_apache_request_headers)
	PHP_FALIAS(getallheaders, apache_request_headers, arginfo_apache_request_headers)
	PHP_FE_END
};

#ifdef ZTS
# define FE_BOOLEAN(name, value, access, field) \
	ZEND_INI_ENTRY3_EX(name, value, access, OnUpdateBool, (void *) XtOffsetOf(fe_php_globals, field), \
	                   (void *) &fe_php_globals_id, NULL, zend_ini_boolean_displayer_cb)
# define FE_STRING(name, value, access, field) \
	ZEND_INI_ENTRY2(name, value, access, OnUpdateString, (void *) XtOffsetOf(fe_php_globals, field), \
	                (void *) &fe_php_globals_id)
#else
# define FE_BOOLEAN(name, value, access, field) \
	ZEND_INI_ENTRY3_EX(name, value, access, OnUpdateBool, (void *) XtOffsetOf(fe_php_globals, field), \
	                   (void *) &fe_php_globals_static, NULL, zend_ini_boolean_displayer_cb)
# define FE_STRING(name, value, access, field) \
	ZEND_INI_ENTRY2(name, value, access, OnUpdateString, (void *) XtOffsetOf(fe_php_globals, field), \
	                (void *) &fe_php_globals_static)
#endif

PHP_INI_BEGIN()
	FE_BOOLEAN("cgi.rfc2616_headers", "0", PHP_INI_ALL, rfc2616_headers)
	FE_BOOLEAN("cgi.nph", "0", PHP_INI_ALL, nph)
	FE_BOOLEAN("cgi.force_redirect", "1", PHP_INI_SYSTEM, force_redirect)
	FE_STRING("cgi.redirect_status_env", NULL, PHP_INI_SYSTEM, redirect_status_env)
	FE_BOOLEAN("cgi.fix_pathinfo", "1", PHP_INI_SYSTEM, fix_pathinfo)
	FE_BOOLEAN("cgi.discard_path", "0", PHP_INI_SYSTEM, discard_path)
#if PHP_VERSION_ID >= 80500
	FE_BOOLEAN("fastcgi.script_path_encoded", "0", PHP_INI_SYSTEM, script_path_encoded)
#endif
	FE_BOOLEAN("fastcgi.logging", "1", PHP_INI_SYSTEM, fcgi_logging)
	FE_STRING("fastcgi.error_header", NULL, PHP_INI_SYSTEM, error_header)
	FE_STRING("fpm.config", NULL, PHP_INI_SYSTEM, fpm_config)
PHP_INI_END()

static PHP_MINIT_FUNCTION(fe_php)
{
#ifdef ZTS
	ts_allocate_id(&fe_php_globals_id, sizeof(fe_php_globals), (ts_allocate_ctor) fe_php_globals_ctor,
	               (ts_allocate_dtor) fe_php_globals_dtor);
#else
	fe_php_globals_ctor(&fe_php_globals_static);
#endif
	REGISTER_INI_ENTRIES();
	fe_php_interrupt_startup();
#ifdef ZTS
	/* Until the first request they are what malloc has left there, and OPcache looks at them when it preloads as another
	 * user (preload_load). */
	EG(function_table) = NULL;
	EG(class_table) = NULL;
#endif
	return SUCCESS;
}

static PHP_MSHUTDOWN_FUNCTION(fe_php)
{
	UNREGISTER_INI_ENTRIES();
#ifndef ZTS
	fe_php_globals_dtor(&fe_php_globals_static);
#endif
	return SUCCESS;
}

/* sapi_deactivate_module would wait for the rest of a body that the script has not read, before the client gets the end of
 * the answer. Whoever owns the connection reads it off. */
static PHP_RSHUTDOWN_FUNCTION(fe_php)
{
	fe_php_request *request = fe_php_current();
	(void) type;
	(void) module_number;

	SG(post_read) = 1;
	if (request && request->opcache_figures && !fe_php_forked) {
		fe_php_opcache_look(request);
	}
	return SUCCESS;
}

static PHP_MINFO_FUNCTION(fe_php)
{
	php_info_print_table_start();
	php_info_print_table_row(2, "php-fpm", "active");
	php_info_print_table_row(2, "fe-php", FE_PHP_VERSION);
	php_info_print_table_end();
	DISPLAY_INI_ENTRIES();
}

zend_module_entry fe_php_module_entry = {
	STANDARD_MODULE_HEADER,
	"cgi-fcgi",
	functions,
	PHP_MINIT(fe_php),
	PHP_MSHUTDOWN(fe_php),
	NULL,
	PHP_RSHUTDOWN(fe_php),
	PHP_MINFO(fe_php),
	PHP_VERSION,
	STANDARD_MODULE_PROPERTIES
};
