/* One request from start to end; the only setjmp of the program. */
#include "internal.h"
#include "zend_interfaces.h"

static void begin(fe_php_request *request)
{
	SG(server_context) = request;
	SG(sapi_headers).http_response_code = 200; /* never reset by the engine */
	SG(request_info).request_method = request->method;
	SG(request_info).query_string = (char *) request->query_string;
	SG(request_info).content_type = request->content_type ? request->content_type : "";
	SG(request_info).content_length = request->content_length > 0 ? (zend_long) request->content_length : 0;
	SG(request_info).request_uri = (char *) request->request_uri;
	SG(request_info).path_translated = NULL;
	SG(request_info).proto_num = 1000;
	SG(options) |= SAPI_OPTION_NO_CHDIR; /* one chdir of ours instead of getcwd and two */
	EG(exit_status) = 0;
	/* As init_request_info: a user and a password for PHP_AUTH_*; freed by sapi_deactivate. */
	php_handle_auth_data(request->authorization);
	if (request->script_path) {
		SG(request_info).path_translated = estrdup(request->script_path);
	}
}

static void run_script(fe_php_request *request)
{
	zend_file_handle file;

	if (!SG(request_info).request_method) {
		return; /* "certainly not an HTTP over fcgi request": php-fpm answers an empty page */
	}
	switch (request->script) {
	case FE_PHP_SCRIPT_NOT_FOUND:
		SG(sapi_headers).http_response_code = 404;
		PUTS("File not found.\n");
		return;
	case FE_PHP_SCRIPT_DENIED:
		SG(sapi_headers).http_response_code = 403;
		PUTS("Access denied.\n");
		return;
	case FE_PHP_SCRIPT_FILE:
		break;
	}
	/* php_execute_script restores nothing under SAPI_OPTION_NO_CHDIR; we do, below. */
	if (VCWD_CHDIR_FILE(request->script_path) != 0 && VCWD_CHDIR(fe_php_directory) != 0) {
		(void) VCWD_CHDIR("/");
	}
	zend_stream_init_filename(&file, request->script_path);
	file.primary_script = 1;
	php_execute_script(&file);
	zend_destroy_file_handle(&file);
}

fe_php_outcome fe_php_execute(fe_php_request *request)
{
	fe_php_outcome outcome = {0, false, false};

	zend_first_try {
		begin(request);
		if (php_request_startup() == FAILURE) {
			outcome.startup_failed = true;
		} else if (request->refused_ini) {
			SG(sapi_headers).http_response_code = 500;
			PUTS("A PHP setting in PHP_VALUE or PHP_ADMIN_VALUE cannot be changed for one request; see the error log.\n");
		} else {
			run_script(request);
		}
	} zend_end_try();

	/* Shutdown functions run in the pool's directory, as under php-fpm. */
	if (VCWD_CHDIR(fe_php_directory) != 0) {
		(void) VCWD_CHDIR("/");
	}
	zend_first_try {
		if (EG(exit_status) == 255 && FE_G(error_header) && *FE_G(error_header) && !SG(headers_sent)) {
			sapi_header_line line = {0};
			line.line = FE_G(error_header);
			line.line_len = strlen(FE_G(error_header));
			sapi_header_op(SAPI_HEADER_REPLACE, &line);
		}
		outcome.exit_status = EG(exit_status);
	} zend_end_try();
	if (SG(request_info).path_translated) {
		efree(SG(request_info).path_translated);
		SG(request_info).path_translated = NULL;
	}
	zend_first_try {
		php_request_shutdown(NULL);
	} zend_end_try();
	SG(server_context) = NULL;
	outcome.forked = fe_php_forked;
	return outcome;
}

/* 1: OPcache waits to restart; 0: it does not; -1: there is no OPcache. A request of its own, so that whatever
 * opcache_get_status allocates is freed. */
int fe_php_opcache_restart_pending(void)
{
	volatile int pending = -1;

	if (zend_get_extension("Zend OPcache") == NULL) {
		return -1;
	}
	zend_first_try {
		SG(server_context) = NULL;
		SG(request_info).no_headers = 1;
		if (php_request_startup() == SUCCESS) {
			zval function, status, argument, *found;
			SG(request_info).no_headers = 1;
			SG(headers_sent) = 1;
			ZVAL_STRING(&function, "opcache_get_status");
			ZVAL_FALSE(&argument);
			ZVAL_UNDEF(&status);
			if (call_user_function(NULL, NULL, &function, &status, 1, &argument) == SUCCESS
			    && Z_TYPE(status) == IS_ARRAY) {
				found = zend_hash_str_find(Z_ARRVAL(status), "restart_pending", sizeof("restart_pending") - 1);
				pending = found && zend_is_true(found);
			}
			zval_ptr_dtor(&status);
			zval_ptr_dtor(&function);
		}
	} zend_end_try();
	zend_first_try {
		php_request_shutdown(NULL);
	} zend_end_try();
	SG(request_info).no_headers = 0;
	return pending;
}
