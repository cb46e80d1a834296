/* CGI variables to $_SERVER, $_ENV and getenv(). */
#include "internal.h"

/* As cgi_php_load_env_var: for $_SERVER a value ends at its first NUL, since php-fpm hands the filter C strings; for getenv(),
 * which has no filter, it does not. */
static void register_one(const fe_php_variable *variable, zval *array, int filter)
{
	char on_stack[128];
	char *name = on_stack;
	char *value;
	size_t length, filtered;

	if (variable->name.len >= sizeof(on_stack)) {
		name = emalloc(variable->name.len + 1);
	}
	memcpy(name, variable->name.ptr, variable->name.len);
	name[variable->name.len] = '\0';
	if (filter < 0) {
		php_register_variable_safe(name, variable->value.ptr, variable->value.len, array);
	} else {
		length = strnlen(variable->value.ptr, variable->value.len);
		/* The filter may replace (and free) the value. It also keeps the raw one for filter_input(). */
		value = estrndup(variable->value.ptr, length);
		filtered = length;
		if (sapi_module.input_filter(filter, name, &value, length, &filtered)) {
			php_register_variable_safe(name, value, filtered, array);
		}
		efree(value);
	}
	if (name != on_stack) {
		efree(name);
	}
}

/* Since the name HTTP_PROXY is both a header's and a setting's, it never comes from a request (CVE-2016-5385). */
static bool is_http_proxy(const fe_php_variable *variable)
{
	return variable->name.len == sizeof("HTTP_PROXY") - 1 && memcmp(variable->name.ptr, "HTTP_PROXY", 10) == 0;
}

static void (*php_own_import)(zval *array);

static void import_own(zval *array)
{
	if (php_own_import) {
		php_own_import(array);
	}
}

static void copy_from(zval *array, zval *source)
{
	zend_array_destroy(Z_ARR_P(array));
	Z_ARR_P(array) = zend_array_dup(Z_ARR_P(source));
}

static bool is_filled(zval *candidate, zval *array)
{
	return Z_TYPE_P(candidate) == IS_ARRAY && Z_ARR_P(candidate) != Z_ARR_P(array)
	       && zend_hash_num_elements(Z_ARRVAL_P(candidate)) > 0;
}

/* For $_SERVER and $_ENV: whichever was made first is copied for the other, as in php-fpm. */
void fe_php_import_environment(zval *array)
{
	fe_php_request *request = fe_php_current();
	zval *env = &PG(http_globals)[TRACK_VARS_ENV];
	zval *server = &PG(http_globals)[TRACK_VARS_SERVER];

	if (is_filled(env, array)) {
		copy_from(array, env);
		return;
	}
	if (is_filled(server, array)) {
		copy_from(array, server);
		return;
	}
	import_own(array);
	if (request) {
		int filter = Z_TYPE_P(env) == IS_ARRAY && Z_ARR_P(array) == Z_ARR_P(env) ? PARSE_ENV : PARSE_SERVER;
		const fe_php_variables *variables = fe_php_all_variables(request);
		for (size_t i = 0; i < variables->count; i++) {
			if (!is_http_proxy(&variables->list[i])) {
				register_one(&variables->list[i], array, filter);
			}
		}
	}
}

/* For getenv() without a name. */
void fe_php_load_environment(zval *array)
{
	fe_php_request *request = fe_php_current();
	import_own(array);
	if (request) {
		const fe_php_variables *variables = fe_php_all_variables(request);
		for (size_t i = 0; i < variables->count; i++) {
			if (!is_http_proxy(&variables->list[i])) {
				register_one(&variables->list[i], array, -1);
			}
		}
	}
}

static void register_php_self(const char *text, size_t length, zval *array)
{
	char *value = estrndup(text, length);
	size_t filtered = length;
	if (sapi_module.input_filter(PARSE_SERVER, "PHP_SELF", &value, length, &filtered)) {
		php_register_variable_safe("PHP_SELF", value, filtered, array);
	}
	efree(value);
}

/* register_server_variables: the environment, then PHP_SELF = SCRIPT_NAME + PATH_INFO. */
void fe_php_register_variables(zval *array)
{
	fe_php_request *request = fe_php_current();
	const char *uri = SG(request_info).request_uri ? SG(request_info).request_uri : "";

	php_import_environment_variables(array);
	if (FE_G(fix_pathinfo) && request && request->path_info) {
		size_t uri_length = strlen(uri), info_length = strlen(request->path_info);
		char *both = emalloc(uri_length + info_length + 1);
		memcpy(both, uri, uri_length);
		memcpy(both + uri_length, request->path_info, info_length);
		register_php_self(both, uri_length + info_length, array);
		efree(both);
	} else {
		register_php_self(uri, strlen(uri), array);
	}
}

/* Remembers PHP's own import, which reads environ, before ours takes its place. */
void fe_php_keep_own_import(void)
{
	php_own_import = php_import_environment_variables;
}
