/* The SAPI module: its slots, and PHP's start and end in this process. Policy is Rust's. */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/syscall.h>

#include "internal.h"
#include "TSRM.h"

#if PHP_VERSION_ID >= 80300
# include "zend_call_stack.h"
#endif
#ifndef ZTS
/* nothing to define */
#else
ZEND_TSRMLS_CACHE_DEFINE()
#endif

fe_php_callbacks fe_php_rust;
static char directory[MAXPATHLEN] = "/";
#ifndef VIRTUAL_DIR
static int directory_descriptor = -1;
#endif
volatile bool fe_php_forked = false;
bool fe_php_to_stdout = false;

static char *kept_ini_entries;
static char *kept_ini_path;
static char *kept_executable;
static bool extended_info;

/* -e: ZEND_EXT_STMT and the like, for debuggers and profilers. Each thread compiles by its own options. */
static void compile_with_options(void)
{
	if (extended_info) {
		CG(compiler_options) |= ZEND_COMPILE_EXTENDED_INFO;
	}
}

/* Nobody can be written to any more. If that is so because the request's time is over, the script is told the reason here: else
 * its first shutdown function would be. */
static void connection_gone(void)
{
	if (fe_php_interrupt_is_wanted()) {
		PG(connection_status) = PHP_CONNECTION_ABORTED;
		php_output_set_status(PHP_OUTPUT_DISABLED);
		fe_php_interrupt_check();
	}
	php_handle_aborted_connection();
}

/* ub_write: output that has passed PHP's own buffers. php-fpm: a failed write ends the script unless
 * ignore_user_abort (php_handle_aborted_connection bails out). */
static size_t sapi_fe_ub_write(const char *data, size_t len)
{
	fe_php_request *request = fe_php_current();
	if (!request || fe_php_forked) {
		if (fe_php_to_stdout) {
			fwrite(data, 1, len, stdout);
		}
		return len;
	}
	if (fe_php_rust.write(request->context, data, len) != 0) {
		connection_gone();
		return 0;
	}
	return len;
}

/* flush: flush() of a script, and implicit_flush. */
static void sapi_fe_flush(void *server_context)
{
	fe_php_request *request = server_context;
	if (!request || fe_php_forked) {
		return;
	}
#if PHP_VERSION_ID >= 80400
	/* Since 8.4 flush() sends headers even when nothing has been printed. */
	sapi_send_headers();
#endif
	if (fe_php_rust.flush(request->context) != 0) {
		connection_gone();
	}
}

/* send_headers: everything at once; the Rust side writes the status line. Content-Type is dropped from a 304, as
 * php-fpm does (sapi_cgi_send_headers); other bytes are PHP's. */
static int sapi_fe_send_headers(sapi_headers_struct *headers)
{
	fe_php_request *request = fe_php_current();
	fe_php_bytes on_stack[64];
	fe_php_bytes *lines = on_stack;
	fe_php_bytes status_line = {NULL, 0};
	size_t count = 0;
	zend_llist_position position;
	sapi_header_struct *header;

	if (!request || fe_php_forked || SG(request_info).no_headers == 1) {
		return SAPI_HEADER_SENT_SUCCESSFULLY;
	}
	if (zend_llist_count(&headers->headers) > sizeof(on_stack) / sizeof(on_stack[0])) {
		lines = safe_emalloc(zend_llist_count(&headers->headers), sizeof(fe_php_bytes), 0);
	}
	for (header = zend_llist_get_first_ex(&headers->headers, &position); header;
	     header = zend_llist_get_next_ex(&headers->headers, &position)) {
		if (header->header_len
		    && !(request->stopped && strncasecmp(header->header, "Status:", sizeof("Status:") - 1) == 0)) {
			lines[count].ptr = header->header;
			lines[count].len = header->header_len;
			count++;
		}
	}
	if (request->stopped) {
		/* Whatever the script, or an error handler in its shutdown functions, has set. */
		headers->http_response_code = 504;
	} else if (headers->http_status_line) {
		status_line.ptr = headers->http_status_line;
		status_line.len = strlen(headers->http_status_line);
	}
	fe_php_head head = {headers->http_response_code, status_line, lines, count, FE_G(nph), FE_G(rfc2616_headers)};
	int gone = fe_php_rust.send_headers(request->context, &head);
	if (lines != on_stack) {
		efree(lines);
	}
	if (gone) {
		/* As in php-fpm, where the header block is written through the output layer's callback. */
		connection_gone();
	}
	return SAPI_HEADER_SENT_SUCCESSFULLY;
}

/* read_post: blocks until the buffer is full or the body ends. */
static size_t sapi_fe_read_post(char *buffer, size_t len)
{
	fe_php_request *request = fe_php_current();
	size_t done = 0;
	if (!request || fe_php_forked) {
		return 0;
	}
	if (request->content_length >= 0) {
		int64_t remaining = request->content_length - SG(read_post_bytes);
		if (remaining < 0) {
			remaining = 0;
		}
		if ((uint64_t) remaining < len) {
			len = (size_t) remaining;
		}
	}
	while (done < len) {
		size_t read = fe_php_rust.read_body(request->context, buffer + done, len - done);
		if (read == 0) {
			break;
		}
		done += read;
	}
	return done;
}

/* read_cookies: the Cookie header. */
static char *sapi_fe_read_cookies(void)
{
	fe_php_request *request = fe_php_current();
	return request ? (char *) request->cookies : NULL;
}

const fe_php_variables *fe_php_all_variables(fe_php_request *request)
{
	if (!request->variables.list) {
		request->variables = fe_php_rust.variables(request->context);
	}
	return &request->variables;
}

const fe_php_bytes *fe_php_find_variable(fe_php_request *request, const char *name, size_t len)
{
	const fe_php_variables *variables = fe_php_all_variables(request);
	for (size_t i = 0; i < variables->count; i++) {
		const fe_php_variable *variable = &variables->list[i];
		if (variable->name.len == len && memcmp(variable->name.ptr, name, len) == 0) {
			return &variable->value;
		}
	}
	return NULL;
}

/* getenv: request variables first; PHP itself falls back to the environment. PHP copies the answer at once. */
static char *sapi_fe_getenv(const char *name, size_t len)
{
	fe_php_request *request = fe_php_current();
	const fe_php_bytes *value;
	if (!request) {
		return NULL;
	}
	value = fe_php_find_variable(request, name, len);
	if (!value) {
		return NULL;
	}
	if (request->getenv_copy) {
		efree(request->getenv_copy);
	}
	request->getenv_copy = estrndup(value->ptr, value->len);
	return request->getenv_copy;
}

/* To the web server's log, as php-fpm's lines go: those after the first begin with "; " (sapi_cgi_log_fastcgi). With
 * fastcgi.logging=0, and outside requests, to our own. */
void fe_php_say(const char *message)
{
	fe_php_request *request = fe_php_current();

	if (request && !fe_php_forked && FE_G(fcgi_logging)) {
		if (request->logged) {
			fe_php_rust.error(request->context, "; ", 2);
		}
		request->logged = true;
		fe_php_rust.error(request->context, message, strlen(message));
		return;
	}
	fe_php_rust.log(request ? request->context : NULL, message, strlen(message), false, false);
}

/* log_message: what error_log() and log_errors say while error_log is unset. */
static void sapi_fe_log_message(const char *message, int syslog_type)
{
	fe_php_request *request = fe_php_current();
	bool to_client = request && !fe_php_forked && FE_G(fcgi_logging);
	(void) syslog_type;

	fe_php_rust.log(request ? request->context : NULL, message, strlen(message), to_client,
	                to_client && request->logged);
	if (to_client) {
		request->logged = true;
	}
}

/* activate: after zend_activate, before any extension's RINIT. */
static int sapi_fe_activate(void)
{
	fe_php_request *request = fe_php_current();
	if (!request) {
		return SUCCESS;
	}
	int result = fe_php_activate_directory_ini(request);
	fe_php_timeout_hold(request);
	return result;
}

/* deactivate: step 12 of php_request_shutdown; nothing can print any more. */
static int sapi_fe_deactivate(void)
{
	fe_php_request *request = fe_php_current();
	if (request && SG(sapi_started) && !fe_php_forked) {
		fe_php_end end = {zend_memory_peak_usage(true), SG(sapi_headers).http_response_code};
		fe_php_rust.ending(request->context, &end);
		fe_php_rust.finish(request->context);
	}
	return SUCCESS;
}

static int sapi_fe_startup(sapi_module_struct *module)
{
#if PHP_VERSION_ID < 80300
	return php_module_startup(module, &fe_php_module_entry);
#else
	return php_module_startup(module, &fe_php_module_entry) == SUCCESS ? SUCCESS : FAILURE;
#endif
}

/* The name is php-fpm's: OPcache starts only under names that it knows (accel_find_sapi), and applications ask
 * PHP_SAPI. */
sapi_module_struct fe_php_sapi = {
	.name = "fpm-fcgi",
	.pretty_name = "FPM/FastCGI",
	.startup = sapi_fe_startup,
	.shutdown = php_module_shutdown_wrapper,
	.activate = sapi_fe_activate,
	.deactivate = sapi_fe_deactivate,
	.ub_write = sapi_fe_ub_write,
	.flush = sapi_fe_flush,
	.getenv = sapi_fe_getenv,
	.sapi_error = php_error,
	.send_headers = sapi_fe_send_headers,
	.read_post = sapi_fe_read_post,
	.read_cookies = sapi_fe_read_cookies,
	.register_server_variables = fe_php_register_variables,
	.log_message = sapi_fe_log_message,
	.php_ini_ignore_cwd = 1,
};

/* A child of pcntl_fork has nothing to do with our sockets: it closes its copies, which are all descriptors from
 * first_own_descriptor on (0: none are known). */
static unsigned int first_own_descriptor;

static void fe_php_pcntl_child(void)
{
	fe_php_forked = true;
#ifdef SYS_close_range
	if (first_own_descriptor) {
		syscall(SYS_close_range, first_own_descriptor, ~0u, 0u);
	}
#endif
}

/* To the directory where requests start and end. Without threads by descriptor, which saves the way along its path. */
void fe_php_go_home(void)
{
#ifndef VIRTUAL_DIR
	if (directory_descriptor >= 0 && fchdir(directory_descriptor) == 0) {
		return;
	}
#endif
	if (VCWD_CHDIR(directory) != 0) {
		(void) VCWD_CHDIR("/");
	}
}

void fe_php_after_fork(unsigned int first_descriptor)
{
	static bool watching = false;

	first_own_descriptor = first_descriptor;
#ifndef VIRTUAL_DIR
	if (directory_descriptor < 0) {
		int low = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (low >= 0) {
			directory_descriptor = fcntl(low, F_DUPFD_CLOEXEC, (int) first_descriptor);
			close(low);
		}
	}
#endif
	/* From now on a fork is a script's. */
	if (!watching) {
		watching = true;
		pthread_atfork(NULL, NULL, fe_php_pcntl_child);
	}
}

/* Takes away what Debian's libphp has and its php-fpm has not: the extension pcntl, and chroot(). Its functions stay in the table, as
 * disabled ones; scripts that ask whether the extension is there learn that it is not. */
void fe_php_disable_process_functions(void)
{
	zend_function *function;
	char *list = NULL;
	size_t len = 0;
	FILE *text = open_memstream(&list, &len);
	zend_module_entry *module;
	dtor_func_t keep;

	if (!text) {
		return;
	}
	ZEND_HASH_FOREACH_PTR(CG(function_table), function) {
		if (function->type == ZEND_INTERNAL_FUNCTION && function->internal_function.module
		    && strcmp(function->internal_function.module->name, "pcntl") == 0) {
			fprintf(text, "%s,", ZSTR_VAL(function->common.function_name));
		}
	} ZEND_HASH_FOREACH_END();
	fprintf(text, "chroot");
	fclose(text);
	zend_disable_functions(list);
	free(list);
	/* Under another name, since PHP counts on as many entries as there are module numbers. Its entry is static, and its handlers
	 * for requests go on. */
	module = zend_hash_str_find_ptr(&module_registry, "pcntl", strlen("pcntl"));
	if (module) {
		keep = module_registry.pDestructor;
		module_registry.pDestructor = NULL;
		zend_hash_str_del(&module_registry, "pcntl", strlen("pcntl"));
		module_registry.pDestructor = keep;
		zend_hash_str_add_ptr(&module_registry, "pcntl, switched off", strlen("pcntl, switched off"), module);
	}
}

void fe_php_set_directory(const char *new_directory)
{
	snprintf(directory, sizeof(directory), "%s", new_directory);
}

int fe_php_module_startup(const fe_php_startup *startup)
{
	const char *variable = getenv("PHP_INI_SCAN_DIR");
	char *before = variable ? strdup(variable) : NULL;
	int result;

	fe_php_rust = startup->callbacks;
	snprintf(directory, sizeof(directory), "%s", startup->directory);
#ifdef ZTS
	php_tsrm_startup();
	ZEND_TSRMLS_CACHE_UPDATE();
#endif
	zend_signal_startup();
	sapi_startup(&fe_php_sapi);
	kept_ini_path = startup->ini_path ? strdup(startup->ini_path) : NULL;
	kept_executable = startup->executable ? strdup(startup->executable) : NULL;
	kept_ini_entries = startup->ini_entries ? strdup(startup->ini_entries) : NULL;
	fe_php_sapi.php_ini_path_override = kept_ini_path;
	fe_php_sapi.php_ini_ignore = startup->no_ini;
	extended_info = startup->extended_info;
	fe_php_sapi.ini_entries = kept_ini_entries;
	fe_php_sapi.executable_location = kept_executable;
	SG(server_context) = NULL;
	SG(request_info).path_translated = NULL;
	/* php_init_config reads the variable; scripts and their children must not see it. */
	if (startup->scan_path) {
		setenv("PHP_INI_SCAN_DIR", startup->scan_path, 1);
	}
	result = fe_php_sapi.startup(&fe_php_sapi);
	if (before) {
		setenv("PHP_INI_SCAN_DIR", before, 1);
		free(before);
	} else if (startup->scan_path) {
		unsetenv("PHP_INI_SCAN_DIR");
	}
	if (result == FAILURE) {
		sapi_shutdown();
		return -1;
	}
	fe_php_keep_own_import();
	php_import_environment_variables = fe_php_import_environment;
	php_load_environment_variables = fe_php_load_environment;
#ifdef ZEND_SIGNALS
	/* Handlers stay as they are between requests; seven rt_sigaction calls fewer in each. */
	SIGG(reset) = 0;
#endif
	fe_php_keep_bodies_in_memory();
	compile_with_options();
	return 0;
}

void fe_php_module_shutdown(void)
{
	php_module_shutdown();
	sapi_shutdown();
#ifdef ZTS
	tsrm_shutdown();
#endif
	free(kept_ini_entries);
	free(kept_ini_path);
	free(kept_executable);
}

void fe_php_thread_attach(void)
{
#ifdef ZTS
	(void) ts_resource(0);
	ZEND_TSRMLS_CACHE_UPDATE();
# ifdef ZEND_SIGNALS
	SIGG(reset) = 0;
# endif
	fe_php_keep_bodies_in_memory();
	compile_with_options();
#endif
}

void fe_php_thread_detach(void)
{
#ifdef ZTS
	ts_free_thread();
#endif
}

/* NTS, when PHP runs on another thread than the one that started it. */
void fe_php_foreign_thread(void)
{
#if PHP_VERSION_ID >= 80300 && defined(ZEND_CHECK_STACK_LIMIT)
	zend_call_stack_init();
#endif
}

fe_php_cgi_settings fe_php_read_cgi_settings(void)
{
	fe_php_cgi_settings settings = {FE_G(fix_pathinfo), FE_G(discard_path), FE_G(script_path_encoded)};
	return settings;
}

const char *fe_php_version(void)
{
	return PHP_VERSION;
}

bool fe_php_is_zts(void)
{
#ifdef ZTS
	return true;
#else
	return false;
#endif
}

const char *fe_php_compiled_ini_directory(void)
{
	return PHP_CONFIG_FILE_PATH;
}

bool fe_php_has_opcache(void)
{
	return zend_get_extension("Zend OPcache") != NULL;
}
