/* What PHP was running when its process crashed. Everything here is safe in a signal handler; memory that may be damaged is
 * read as frames.c does. */
#include <signal.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

enum { MAX_FRAMES = 64, TEXT_SIZE = 4000, ALTERNATE_STACK = 64 * 1024 };

static int log_descriptor = 2;
static char pool_name[64];
static long utc_offset;

typedef struct text {
	char bytes[TEXT_SIZE];
	size_t len;
} text;

static void add_bytes(text *out, const char *bytes, size_t len)
{
	if (len > sizeof(out->bytes) - 1 - out->len) {
		len = sizeof(out->bytes) - 1 - out->len;
	}
	memcpy(out->bytes + out->len, bytes, len);
	out->len += len;
}

static void add(text *out, const char *string)
{
	add_bytes(out, string, strlen(string));
}

static void add_number(text *out, unsigned long number, int width)
{
	char digits[24];
	int at = sizeof(digits);
	do {
		digits[--at] = (char) ('0' + number % 10);
		number /= 10;
		width--;
	} while (number || width > 0);
	add_bytes(out, digits + at, sizeof(digits) - at);
}

/* "[21-Nov-2026 07:50:00] " by hand: localtime is not safe here. */
static void add_time(text *out)
{
	static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
	                                   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	long now = (long) time(NULL) + utc_offset;
	long days = now / 86400, rest = now % 86400;
	/* Civil date from days since 1970-01-01: years begin in March. */
	long shifted = days + 719468;
	long era = shifted / 146097;
	long day_of_era = shifted - era * 146097;
	long year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
	long day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	long month_index = (5 * day_of_year + 2) / 153;
	long day = day_of_year - (153 * month_index + 2) / 5 + 1;
	long month = month_index < 10 ? month_index + 3 : month_index - 9;
	long year = year_of_era + era * 400 + (month <= 2);
	add(out, "[");
	add_number(out, day, 2);
	add(out, "-");
	add(out, months[month - 1]);
	add(out, "-");
	add_number(out, year, 4);
	add(out, " ");
	add_number(out, rest / 3600, 2);
	add(out, ":");
	add_number(out, rest / 60 % 60, 2);
	add(out, ":");
	add_number(out, rest % 60, 2);
	add(out, "] ");
}

static void write_out(text *out)
{
	ssize_t ignored = write(log_descriptor, out->bytes, out->len);
	(void) ignored;
	out->len = 0;
}

static void add_prefix(text *out)
{
	add_time(out);
	add(out, "WARNING: [pool ");
	add(out, pool_name);
	add(out, "] child ");
	add_number(out, getpid(), 1);
}

static void add_frame(text *out, const fe_php_link *link)
{
	static fe_php_frame frame; /* as report's text */

	if (!fe_php_read_frame(link, &frame)) {
		add(out, "[unknown]");
		return;
	}
	if (frame.kind == FE_PHP_FRAME_FUNCTION) {
		if (frame.class_name[0]) {
			add(out, frame.class_name);
			add(out, "::");
		}
		add(out, frame.function);
		add(out, "()");
	} else if (frame.kind == FE_PHP_FRAME_FIBER) {
		add(out, "[fiber]");
	} else {
		add(out, frame.kind == FE_PHP_FRAME_UNKNOWN ? "[unknown]" : "[main]");
	}
	add(out, " ");
	if (frame.file[0]) {
		add(out, frame.file);
		add(out, ":");
		add_number(out, frame.line, 1);
	} else {
		add(out, "[internal]");
	}
}

/* What a PHP thread runs, for other threads to look at. The addresses are taken on the thread itself. */
typedef struct thread_view {
	zend_execute_data *volatile *current_execute_data;
	void *volatile *server_context;
	char *volatile *script;
} thread_view;

enum { MAX_THREADS = 1024 };
static thread_view threads[MAX_THREADS];
static unsigned int thread_count;
/* This thread's SG(server_context), once it has PHP's state. A signal that somebody sends may come to a thread that is
 * just starting, and there SG() reads through a null pointer. */
static _Thread_local void *volatile *own_context;

static void report_thread(text *out, const thread_view *thread)
{
	fe_php_link link;
	const void *at;
	char *script;
	int depth = 0;

	for (at = *thread->current_execute_data; depth < MAX_FRAMES && fe_php_read_link(at, &link);
	     at = link.previous, depth++) {
		add_prefix(out);
		add(out, "   #");
		add_number(out, depth, 1);
		add(out, " ");
		add_frame(out, &link);
		add(out, "\n");
		write_out(out);
	}
	script = *thread->script;
	if (depth == 0 && script) {
		add_prefix(out);
		add(out, "   script ");
		add(out, script);
		add(out, "\n");
		write_out(out);
	}
}

static void report(int signal_number)
{
	static text out; /* the process is dying: one report is enough, and the stack may be small */
	void *volatile *own = own_context;
	unsigned int count = __atomic_load_n(&thread_count, __ATOMIC_ACQUIRE);
	bool own_runs = own && *own;
	bool any = false;

	out.len = 0;
	add_prefix(&out);
	add(&out, " received signal ");
	add_number(&out, signal_number, 1);
	/* A signal that somebody sent may come to an idle thread: then all that run are shown. */
	for (unsigned int i = 0; i < count && i < MAX_THREADS; i++) {
		const thread_view *thread = &threads[i];
		void *volatile *server_context = thread->server_context;
		if (!server_context || !*server_context || (own_runs && server_context != own)) {
			continue;
		}
		if (any) {
			add_prefix(&out);
			add(&out, " in another thread");
		}
		any = true;
		add(&out, "; PHP was running:\n");
		write_out(&out);
		report_thread(&out, thread);
	}
	if (!any) {
		add(&out, "; PHP was running no request\n");
		write_out(&out);
	}
}

static void on_crash(int signal_number, siginfo_t *info, void *context)
{
	static volatile sig_atomic_t reporting = 0;
	(void) info;
	(void) context;
	signal(signal_number, SIG_DFL);
	if (!reporting) {
		reporting = 1;
		report(signal_number);
	}
	raise(signal_number); /* delivered when this handler returns: the default action, with a core file */
}

int fe_php_watch_this_thread(void)
{
	unsigned int place;
	for (place = 0; place < MAX_THREADS; place++) {
		void *volatile *free_place = NULL;
		if (__atomic_compare_exchange_n(&threads[place].server_context, &free_place,
		                                (void *volatile *) &SG(server_context), false, __ATOMIC_ACQ_REL,
		                                __ATOMIC_ACQUIRE)) {
			break;
		}
	}
	if (place == MAX_THREADS) {
		return -1;
	}
	threads[place].current_execute_data = (zend_execute_data *volatile *) &EG(current_execute_data);
	threads[place].script = (char *volatile *) &SG(request_info).path_translated;
	own_context = (void *volatile *) &SG(server_context);
	while (true) {
		unsigned int count = __atomic_load_n(&thread_count, __ATOMIC_ACQUIRE);
		if (count > place
		    || __atomic_compare_exchange_n(&thread_count, &count, place + 1, false, __ATOMIC_ACQ_REL,
		                                   __ATOMIC_ACQUIRE)) {
			return (int) place;
		}
	}
}

void fe_php_unwatch_thread(int place)
{
	own_context = NULL;
	if (place >= 0) {
		__atomic_store_n(&threads[place].server_context, NULL, __ATOMIC_RELEASE);
	}
}

/* A stack for the handler: endless recursion has used up the thread's own. It is never freed, for the thread lives
 * as long as its process. */
int fe_php_crash_stack_for_this_thread(void)
{
	stack_t stack = {0};
	stack.ss_sp = mmap(NULL, ALTERNATE_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (stack.ss_sp == MAP_FAILED) {
		return -1;
	}
	stack.ss_size = ALTERNATE_STACK;
	return sigaltstack(&stack, NULL);
}

void fe_php_install_crash_handler(int descriptor, const char *pool)
{
	static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
	struct sigaction action = {0};
	time_t now = time(NULL);
	struct tm local;

	log_descriptor = descriptor;
	snprintf(pool_name, sizeof(pool_name), "%s", pool);
	localtime_r(&now, &local);
	utc_offset = local.tm_gmtoff;
	action.sa_sigaction = on_crash;
	action.sa_flags = SA_SIGINFO | SA_ONSTACK;
	sigemptyset(&action.sa_mask);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		sigaction(signals[i], &action, NULL);
	}
}
