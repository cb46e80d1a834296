/* What Rust sees of PHP: no type of PHP's own appears here, so bindgen reads only this file (through wrapper.h). */
#ifndef FE_PHP_SHIM_H
#define FE_PHP_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that someone else owns; not NUL-terminated. */
typedef struct fe_php_bytes {
	const char *ptr;
	size_t len;
} fe_php_bytes;

/* A CGI variable. */
typedef struct fe_php_variable {
	fe_php_bytes name;
	fe_php_bytes value;
} fe_php_variable;

/* All of a request, in the order of $_SERVER, each name once. */
typedef struct fe_php_variables {
	const fe_php_variable *list; /* NULL: not asked for yet */
	size_t count;
} fe_php_variables;

/* What to run; enum fe_php_script. */
typedef enum fe_php_script {
	FE_PHP_SCRIPT_FILE,
	FE_PHP_SCRIPT_NOT_FOUND,
	FE_PHP_SCRIPT_DENIED
} fe_php_script;

/* php-fpm's request stages, as far as they are PHP's; enum fe_php_stage. */
enum {
	FE_PHP_STAGE_INFO,
	FE_PHP_STAGE_EXECUTING,
	FE_PHP_STAGE_FINISHED /* after fastcgi_finish_request(), and when the script has ended */
};

/* What opcache_get_status(false) says, as far as it is worth a graph; bytes and counts. */
typedef struct fe_php_opcache_figures {
	uint64_t used_memory;
	uint64_t free_memory;
	uint64_t wasted_memory;
	uint64_t interned_strings_used_memory;
	uint64_t interned_strings_free_memory;
	uint64_t cached_scripts;
	uint64_t cached_keys;
	uint64_t max_cached_keys;
	uint64_t hits;
	uint64_t misses;
	uint64_t oom_restarts;
	uint64_t hash_restarts;
	uint64_t manual_restarts;
} fe_php_opcache_figures;

/* What has been seen of OPcache at the end of a request. */
typedef enum fe_php_opcache {
	FE_PHP_OPCACHE_UNSEEN, /* nobody has looked */
	FE_PHP_OPCACHE_ABSENT, /* it is not loaded, or cannot be switched on */
	FE_PHP_OPCACHE_RUNS,
	FE_PHP_OPCACHE_RESTARTS /* it waits to restart */
} fe_php_opcache;

/* One request. All pointers stay valid until fe_php_execute returns; strings are NUL-terminated, and NULL where the
 * client sent none. */
typedef struct fe_php_request {
	void *context; /* handed back to every callback */
	fe_php_script script;
	const char *script_path; /* NULL for FE_PHP_SCRIPT_NOT_FOUND */
	const char *method;
	const char *query_string;
	const char *content_type;
	const char *request_uri; /* SCRIPT_NAME, as php-fpm has it */
	const char *cookies;
	const char *authorization;
	const char *path_info;
	const char *server_name;
	const char *document_root;
	fe_php_bytes user_ini;  /* PHP_VALUE */
	fe_php_bytes admin_ini; /* PHP_ADMIN_VALUE */
	int64_t content_length; /* -1: the body says where it ends */
	fe_php_opcache_figures *opcache_figures; /* where to put them at the end; NULL: they are not wanted */
	/* Set by the shim. */
	fe_php_variables variables; /* once somebody has asked for them */
	char *getenv_copy;
	bool logged;
	bool refused_ini;
	bool finished;
	bool stopped;           /* it took too long: the answer is a 504 */
	fe_php_opcache opcache; /* the figures are there unless it is UNSEEN or ABSENT */
	volatile uint8_t stage; /* for other threads; FE_PHP_STAGE_* */
} fe_php_request;

/* How a request ended. */
typedef struct fe_php_outcome {
	int exit_status;
	bool startup_failed;
	bool forked; /* this is a pcntl_fork child: it must exit now */
	bool stopped; /* fe_php_ask_to_stop ended it */
} fe_php_outcome;

/* Status and headers. */
typedef struct fe_php_head {
	int status;
	fe_php_bytes status_line; /* of header("HTTP/1.1 404 Nope"); empty when there was none */
	const fe_php_bytes *lines;
	size_t count;
	bool nph;             /* cgi.nph: a status even when it is 200 */
	bool rfc2616_headers; /* cgi.rfc2616_headers: the status line as the script gave it */
} fe_php_head;

/* Rust's side. A callback never bails out: it answers, and the C side bails out where PHP wants that. */
/* What is known of a request at its end. */
typedef struct fe_php_end {
	size_t memory_peak;
	int status; /* SG(sapi_headers).http_response_code, which may have been set too late */
} fe_php_end;

/* One element of fpm_get_status(). */
typedef struct fe_php_status_value {
	fe_php_bytes name; /* len 0: an array for the next process begins */
	int kind;          /* 0: integer, 1: number, 2: text */
	int64_t integer;
	double number;
	fe_php_bytes text;
} fe_php_status_value;

typedef struct fe_php_status {
	const fe_php_status_value *values;
	size_t count;
} fe_php_status;

typedef struct fe_php_callbacks {
	/* 0, or -1: the client is gone */
	int (*send_headers)(void *context, const fe_php_head *head);
	int (*write)(void *context, const char *data, size_t len);
	int (*flush)(void *context);
	int (*finish)(void *context);
	/* number of bytes, 0 at the end */
	size_t (*read_body)(void *context, char *buffer, size_t len);
	/* the request's variables, valid until fe_php_execute returns; many scripts never need them */
	fe_php_variables (*variables)(void *context);
	/* a message for the web server's log, through the connection */
	void (*error)(void *context, const char *message, size_t len);
	/* what PHP says: for the web server's log too if to_client (with "; " before it if another), and for our own; context is
	 * NULL outside a request */
	void (*log)(void *context, const char *message, size_t len, bool to_client, bool another);
	/* all of the request has run; what comes next is the end of its answer */
	void (*ending)(void *context, const fe_php_end *end);
	/* for fpm_get_status(): elements in order; NULL name: the next process begins. count 0: there is nothing to tell */
	fe_php_status (*status)(void *context);
} fe_php_callbacks;

/* Settings of cgi.* after module startup, for what Rust does itself. */
typedef struct fe_php_cgi_settings {
	bool fix_pathinfo;
	bool discard_path;
	bool script_path_encoded;
} fe_php_cgi_settings;

/* ---- life of the engine: sapi.c ---- */
typedef struct fe_php_startup {
	fe_php_callbacks callbacks;
	const char *ini_path;    /* -c, or NULL */
	const char *scan_path;   /* conf.d, where it is not the compiled one, or NULL */
	const char *ini_entries; /* text of -d settings, or NULL */
	const char *executable;  /* PHP_BINARY */
	const char *directory;   /* where requests start and end */
	bool no_ini;             /* -n */
	bool extended_info;      /* -e */
} fe_php_startup;
int fe_php_module_startup(const fe_php_startup *startup);
void fe_php_module_shutdown(void);
void fe_php_thread_attach(void);
void fe_php_thread_detach(void);
void fe_php_after_fork(unsigned int first_descriptor);
/* The directory where requests start and end, in place of that of the start. Before fe_php_after_fork. */
void fe_php_set_directory(const char *directory);
/* A php_value or php_admin_value of the pool, for this process and its threads; false if PHP has no such setting. Before the
 * first request. */
bool fe_php_apply_setting(const char *name, const char *value, bool admin);
bool fe_php_expose(void);
/* Prints to standard output, with PHP started. */
void fe_php_show_version(void);
void fe_php_show_modules(void);
bool fe_php_show_information(void);
void fe_php_keep_memory(void);
void fe_php_release_memory(void);
void fe_php_disable_process_functions(void);
void fe_php_foreign_thread(void);
fe_php_cgi_settings fe_php_read_cgi_settings(void);
const char *fe_php_version(void);
bool fe_php_is_zts(void);
const char *fe_php_compiled_ini_directory(void);
bool fe_php_has_opcache(void);

/* ---- one request: request.c ---- */
fe_php_outcome fe_php_execute(fe_php_request *request);
/* From now on the time limit of a request waits for fe_php_timeout_wanted, which the caller promises to call in time. */
void fe_php_timeout_startup(void);
/* From any thread, on NTS: the request that runs now takes long, so it is to get its time limit. */
void fe_php_timeout_wanted(void);

/* ---- a PHP thread as others see it: interrupt.c ---- */
/* Addresses of its state; good for as long as the thread is PHP's. */
typedef struct fe_php_view {
	const void *current_execute_data;
	const void *server_context;
	void *vm_interrupt;
	uint32_t *stop_after;
	unsigned long thread; /* a pthread_t */
} fe_php_view;
void fe_php_view_of_this_thread(fe_php_view *view);
/* From any thread: what runs ends with a fatal error that names this limit, at the next place where PHP looks for
 * interrupts. Further calls interrupt further system calls. */
void fe_php_ask_to_stop(const fe_php_view *view, uint32_t milliseconds);
/* Whether PHP has not seen it yet. */
bool fe_php_stop_is_pending(const fe_php_view *view);
/* On the PHP thread, after a request. */
void fe_php_forget_stop(const fe_php_view *view);

/* ---- what it runs: frames.c ---- */
/* A frame of the call stack, as it lies in memory. */
typedef struct fe_php_link {
	const void *frame;
	const void *function;
	const void *opline;
	const void *previous;
	uint32_t call_info;
} fe_php_link;
enum {
	FE_PHP_FRAME_UNKNOWN,
	FE_PHP_FRAME_FUNCTION,
	FE_PHP_FRAME_INCLUDE,
	FE_PHP_FRAME_SCRIPT,
	FE_PHP_FRAME_FIBER /* where a fiber begins; what comes next has resumed it */
};
/* What it means. Strings are NUL-terminated, cut where they are too long, and printable. */
typedef struct fe_php_frame {
	uint8_t kind;
	uint32_t line;        /* where it is now; 0 for internal functions */
	char class_name[256]; /* empty outside classes */
	char function[256];
	char file[1024]; /* empty for internal functions */
} fe_php_frame;
/* The request, in php-fpm's words. */
typedef struct fe_php_running {
	uint8_t stage;
	char method[16];
	char request_uri[512];
	char query_string[512];
	char script[1024];
} fe_php_running;
/* False at the end, and for what is no frame. */
bool fe_php_read_link(const void *at, fe_php_link *link);
/* The innermost first; returns their number. */
size_t fe_php_read_links(const fe_php_view *view, fe_php_link *links, size_t most);
bool fe_php_read_frame(const fe_php_link *link, fe_php_frame *frame);
bool fe_php_read_running(const fe_php_view *view, fe_php_running *running);

/* ---- what runs when the process crashes: backtrace.c ---- */
void fe_php_install_crash_handler(int log_descriptor, const char *pool);
int fe_php_crash_stack_for_this_thread(void);
/* The calling PHP thread is shown in crash reports until it is unwatched; -1: too many threads. */
int fe_php_watch_this_thread(void);
void fe_php_unwatch_thread(int place);

#endif
