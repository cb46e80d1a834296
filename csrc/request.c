/* One request from start to end; the only setjmp of the program. */
#include "internal.h"
#include "ext/standard/php_standard.h"
#include "fopen_wrappers.h"

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
#ifdef EG_FLAGS_IN_SHUTDOWN
	/* Left by the last request; a warning about PHP_VALUE would blame its shutdown. */
	EG(flags) &= ~EG_FLAGS_IN_SHUTDOWN;
#endif
	/* As init_request_info: a user and a password for PHP_AUTH_*; freed by sapi_deactivate. */
	php_handle_auth_data(request->authorization);
	if (request->script_path) {
		SG(request_info).path_translated = estrdup(request->script_path);
	}
}

/* Prints php-fpm's page for a request that runs no script. */
static void answer(int status, const char *page)
{
	SG(sapi_headers).http_response_code = status;
	php_output_write(page, strlen(page));
}

static void run_script(fe_php_request *request)
{
	zend_file_handle file;
	char text[MAXPATHLEN + 128];

	if (!SG(request_info).request_method) {
		return; /* "certainly not an HTTP over fcgi request": php-fpm answers an empty page */
	}
	switch (request->script) {
	case FE_PHP_SCRIPT_NOT_FOUND:
		fe_php_say("Primary script unknown");
		answer(404, "File not found.\n");
		return;
	case FE_PHP_SCRIPT_DENIED:
		snprintf(text, sizeof(text), "Access to the script '%s' has been denied (see security.limit_extensions)",
		         request->script_path);
		fe_php_say(text);
		answer(403, "Access denied.\n");
		return;
	case FE_PHP_SCRIPT_FILE:
		break;
	}
	fe_php_interrupt_check();
	/* With OPcache this opens nothing when the script is cached. It comes before the change of directory and before
	 * auto_prepend_file, as in php-fpm; on failure it frees path_translated. */
	errno = 0;
	if (php_fopen_primary_script(&file) == FAILURE) {
		int error = errno;
		snprintf(text, sizeof(text), "Unable to open primary script: %s (%s)", request->script_path, strerror(error));
		fe_php_say(text);
		if (error == EACCES) {
			answer(403, "Access denied.\n");
		} else {
			answer(404, "No input file specified.\n");
		}
	} else {
		/* php_execute_script changes no directory under SAPI_OPTION_NO_CHDIR; we do, and go back below. */
		if (VCWD_CHDIR_FILE(request->script_path) != 0) {
			fe_php_go_home();
		}
		EG(exit_status) = 0;
		request->stage = FE_PHP_STAGE_EXECUTING;
		php_execute_script(&file);
	}
	if (!file.in_list) {
		zend_destroy_file_handle(&file);
	}
}

fe_php_outcome fe_php_execute(fe_php_request *request)
{
	volatile fe_php_outcome outcome = {0, false, false, false}; /* written between setjmp and longjmp */

	zend_first_try {
		begin(request);
		/* Before startup, so that post_max_size, output_buffering and the like see them. */
		fe_php_activate_per_request_ini(request);
		if (php_request_startup() == FAILURE) {
			outcome.startup_failed = true;
		} else if (request->refused_ini) {
			SG(sapi_headers).http_response_code = 500;
			PUTS("A PHP setting in PHP_VALUE or PHP_ADMIN_VALUE cannot be changed for one request; see the error log.\n");
		} else {
			run_script(request);
		}
	} zend_end_try();

	request->stage = FE_PHP_STAGE_FINISHED;
	/* Shutdown functions run in the pool's directory, as under php-fpm. */
	fe_php_go_home();
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
	fe_php_timeout_end();
	SG(server_context) = NULL;
	outcome.forked = fe_php_forked;
	outcome.stopped = request->stopped;
	if (outcome.forked) {
		/* The child's own end, which its shutdown functions may still have changed. */
		outcome.exit_status = EG(exit_status);
	}
	return (fe_php_outcome) {outcome.exit_status, outcome.startup_failed, outcome.forked, outcome.stopped};
}

/* opcache_get_status(false), even where disable_functions or opcache.restrict_api keep scripts from it. */
static void opcache_status(const zend_function_entry *entry, zval *status)
{
	zend_function callee; /* whole, since the engine looks at parts that an internal function has not */
	zend_internal_function *function = &callee.internal_function;
	zend_execute_data *call;

	memset(&callee, 0, sizeof(callee));
	function->type = ZEND_INTERNAL_FUNCTION;
	function->function_name = ZSTR_EMPTY_ALLOC();
	function->handler = entry->handler;
	function->num_args = 1;
	/* By hand, since it is in no function table; observers do not see it. */
	call = zend_vm_stack_push_call_frame(ZEND_CALL_TOP_FUNCTION, &callee, 1, NULL);
	ZVAL_FALSE(ZEND_CALL_ARG(call, 1));
	call->prev_execute_data = EG(current_execute_data);
	EG(current_execute_data) = call;
	/* The path of a script that may. */
	SG(request_info).path_translated = INI_STR("opcache.restrict_api");
	function->handler(call, status);
	EG(current_execute_data) = call->prev_execute_data;
	zend_vm_stack_free_args(call);
	zend_vm_stack_free_call_frame(call);
}

/* status[group][name], 0 if it is not there. */
static uint64_t opcache_figure(zval *status, const char *group, const char *name)
{
	zval *array = zend_hash_str_find(Z_ARRVAL_P(status), group, strlen(group));
	zval *figure = array && Z_TYPE_P(array) == IS_ARRAY ? zend_hash_str_find(Z_ARRVAL_P(array), name, strlen(name)) : NULL;

	return figure && Z_TYPE_P(figure) == IS_LONG && Z_LVAL_P(figure) > 0 ? (uint64_t) Z_LVAL_P(figure) : 0;
}

static void opcache_figures(zval *status, fe_php_opcache_figures *figures)
{
	figures->used_memory = opcache_figure(status, "memory_usage", "used_memory");
	figures->free_memory = opcache_figure(status, "memory_usage", "free_memory");
	figures->wasted_memory = opcache_figure(status, "memory_usage", "wasted_memory");
	figures->interned_strings_used_memory = opcache_figure(status, "interned_strings_usage", "used_memory");
	figures->interned_strings_free_memory = opcache_figure(status, "interned_strings_usage", "free_memory");
	figures->cached_scripts = opcache_figure(status, "opcache_statistics", "num_cached_scripts");
	figures->cached_keys = opcache_figure(status, "opcache_statistics", "num_cached_keys");
	figures->max_cached_keys = opcache_figure(status, "opcache_statistics", "max_cached_keys");
	figures->hits = opcache_figure(status, "opcache_statistics", "hits");
	figures->misses = opcache_figure(status, "opcache_statistics", "misses");
	figures->oom_restarts = opcache_figure(status, "opcache_statistics", "oom_restarts");
	figures->hash_restarts = opcache_figure(status, "opcache_statistics", "hash_restarts");
	figures->manual_restarts = opcache_figure(status, "opcache_statistics", "manual_restarts");
}

/* What OPcache is like, for whoever has asked for it. In RSHUTDOWN, where scripts and time limits are over but for the handlers of
 * sessions; memory comes on top of the script's limit, which may be used up, so that no error gets into the answer. */
void fe_php_opcache_look(fe_php_request *request)
{
	zend_module_entry *module = zend_hash_str_find_ptr(&module_registry, ZEND_STRL("zend opcache"));
	const zend_function_entry *entry = module ? module->functions : NULL;
	zend_execute_data *caller = EG(current_execute_data);
	char *path = SG(request_info).path_translated;

	while (entry && entry->fname && strcmp(entry->fname, "opcache_get_status") != 0) {
		entry++;
	}
	if (!entry || !entry->fname) {
		request->opcache = FE_PHP_OPCACHE_ABSENT;
		return;
	}
	(void) zend_set_memory_limit((size_t) -1);
	zend_try {
		zval status, *found;
		ZVAL_NULL(&status);
		opcache_status(entry, &status);
		if (Z_TYPE(status) == IS_ARRAY) {
			found = zend_hash_str_find(Z_ARRVAL(status), "restart_pending", sizeof("restart_pending") - 1);
			opcache_figures(&status, request->opcache_figures);
			request->opcache = found && zend_is_true(found) ? FE_PHP_OPCACHE_RESTARTS : FE_PHP_OPCACHE_RUNS;
		} else {
			request->opcache = FE_PHP_OPCACHE_ABSENT;
		}
		zval_ptr_dtor(&status);
	} zend_end_try();
	EG(current_execute_data) = caller;
	SG(request_info).path_translated = path;
	/* If it fails, php_request_shutdown does it once more. */
	(void) zend_set_memory_limit(PG(memory_limit));
}
