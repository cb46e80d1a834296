/* Settings of one request: PHP_VALUE, PHP_ADMIN_VALUE, [HOST=], [PATH=] and .user.ini. PHP takes them all back at
 * the end of the request, for they are made after zend_activate; php-fpm's PHP_VALUE stays until the process ends. */
#include "internal.h"
#include "zend_ini_scanner.h"

typedef struct user_config {
	time_t expires;
	HashTable *settings;
} user_config;

static void user_config_dtor(zval *element)
{
	user_config *config = Z_PTR_P(element);
	zend_hash_destroy(config->settings);
	pefree(config->settings, 1);
	pefree(config, 1);
}

void fe_php_globals_ctor(fe_php_globals *globals)
{
	memset(globals, 0, sizeof(*globals));
	globals->force_redirect = true;
	globals->fix_pathinfo = true;
	globals->fcgi_logging = true;
	zend_hash_init(&globals->user_config_cache, 0, NULL, user_config_dtor, 1);
}

void fe_php_globals_dtor(fe_php_globals *globals)
{
	zend_hash_destroy(&globals->user_config_cache);
}

/* php-fpm's words (fastcgi_ini_parser, sapi/fpm/fpm/fpm_main.c). */
static void complain(const char *format, const char *key)
{
	char text[512];
	snprintf(text, sizeof(text), format, key);
	fe_php_say(text);
}

typedef struct ini_target {
	fe_php_request *request;
	int mode;
} ini_target;

static void set_one(zval *key, zval *value, zval *index, int callback_type, void *argument)
{
	ini_target *target = argument;
	(void) index;

	if (callback_type != ZEND_INI_PARSER_ENTRY) {
		complain("Passing INI directive through FastCGI: only classic entries are allowed%s", "");
		return;
	}
	if (!key || Z_TYPE_P(key) != IS_STRING || Z_STRLEN_P(key) == 0) {
		complain("Passing INI directive through FastCGI: empty key%s", "");
		return;
	}
	if (!value || Z_TYPE_P(value) != IS_STRING) {
		complain("Passing INI directive through FastCGI: empty value for key '%s'", Z_STRVAL_P(key));
		return;
	}
	if (zend_string_equals_literal(Z_STR_P(key), "extension")
	    || zend_string_equals_literal(Z_STR_P(key), "disable_functions")
	    || zend_string_equals_literal(Z_STR_P(key), "disable_classes")) {
		/* php-fpm would change the process for good, for other sites too. Refuse rather than guess. */
		target->request->refused_ini = true;
		complain("'%s' in PHP_VALUE or PHP_ADMIN_VALUE cannot be set for one request: set it for the pool (php.ini or -d)",
		         Z_STRVAL_P(key));
		return;
	}
	if (!zend_hash_exists(EG(ini_directives), Z_STR_P(key))) {
		complain("Passing INI directive through FastCGI: unable to set '%s'", Z_STRVAL_P(key));
		return;
	}
	/* A value that the setting refuses leaves it as it is, without a word, as in php-fpm. */
	zend_alter_ini_entry_ex(Z_STR_P(key), Z_STR_P(value), target->mode, PHP_INI_STAGE_ACTIVATE, 1);
}

static void set_all(fe_php_request *request, fe_php_bytes text, int mode)
{
	ini_target target = {request, mode};
	char *copy;
	if (text.len == 0) {
		return;
	}
	/* The scanner wants a line's end after the last line, and zeroes behind it. */
	copy = emalloc(text.len + 1 + ZEND_MMAP_AHEAD);
	memcpy(copy, text.ptr, text.len);
	copy[text.len] = '\n';
	memset(copy + text.len + 1, 0, ZEND_MMAP_AHEAD);
	zend_parse_ini_string(copy, 1, ZEND_INI_SCANNER_NORMAL, set_one, &target);
	efree(copy);
}

void fe_php_activate_per_request_ini(fe_php_request *request)
{
	set_all(request, request->user_ini, ZEND_INI_USER);
	set_all(request, request->admin_ini, ZEND_INI_SYSTEM);
}

/* .user.ini from the document root down to the script's directory; only that directory when the script lies
 * elsewhere. Read again after user_ini.cache_ttl seconds. */
static void activate_user_ini(char *path, size_t length, const char *root, size_t root_length)
{
	time_t now = (time_t) sapi_get_request_time();
	/* The same directory may be part of two sites. */
	zend_string *key = zend_string_concat3(path, length, "\0", 1, root, root_length);
	user_config *config = zend_hash_find_ptr(&FE_G(user_config_cache), key);

	if (!config) {
		config = pemalloc(sizeof(*config), 1);
		config->expires = 0;
		config->settings = pemalloc(sizeof(HashTable), 1);
		zend_hash_init(config->settings, 0, NULL, config_zval_dtor, 1);
		zend_hash_str_update_ptr(&FE_G(user_config_cache), ZSTR_VAL(key), ZSTR_LEN(key), config);
	}
	zend_string_release_ex(key, 0);
	if (now > config->expires) {
		zend_hash_clean(config->settings);
		if (length > root_length && strncmp(path, root, root_length) == 0) {
			char *slash = path + root_length;
			while ((slash = strchr(slash, '/')) != NULL) {
				*slash = '\0';
				php_parse_user_ini_file(path, PG(user_ini_filename), config->settings);
				*slash = '/';
				slash++;
			}
		} else {
			php_parse_user_ini_file(path, PG(user_ini_filename), config->settings);
		}
		config->expires = now + PG(user_ini_cache_ttl);
	}
	php_ini_activate_config(config->settings, PHP_INI_PERDIR, PHP_INI_STAGE_HTACCESS);
}

int fe_php_activate_directory_ini(fe_php_request *request)
{
	bool user_ini = PG(user_ini_filename) && *PG(user_ini_filename);

	if (!SG(request_info).path_translated) {
		return FAILURE;
	}
	if (php_ini_has_per_host_config() && request->server_name) {
		size_t length = strlen(request->server_name);
		char *name = estrndup(request->server_name, length);
		zend_str_tolower(name, length);
		php_ini_activate_per_host_config(name, length);
		efree(name);
	}
	if (php_ini_has_per_dir_config() || user_ini) {
		/* The script's directory with a slash at its end. */
		size_t length = strlen(SG(request_info).path_translated);
		char *path = emalloc(length + 2);
		memcpy(path, SG(request_info).path_translated, length + 1);
		length = zend_dirname(path, length);
		path[length++] = '/';
		path[length] = '\0';
		php_ini_activate_per_dir_config(path, length);
		if (user_ini && request->document_root) {
			size_t root_length = strlen(request->document_root);
			if (root_length > 0 && request->document_root[root_length - 1] == '/') {
				root_length--;
			}
			activate_user_ini(path, length, request->document_root, root_length);
		}
		efree(path);
	}
	return SUCCESS;
}
