/* max_execution_time without two system calls in every request.
 *
 * Without threads, PHP sets ITIMER_PROF when a request starts and takes it back at its end, though hardly any request
 * comes near its limit. So for a request without a body the timer is held back: PHP is told that there is no limit, and once
 * the request has taken some milliseconds (the helper thread knows), the PHP thread itself sets the timer, at an opcode where
 * it looks for interrupts anyway. The limit is counted from there. Where a script or a setting of its directory changes
 * max_execution_time, PHP sets the timer by itself, and nothing here comes in its way. */
#include <sys/time.h>

#include "internal.h"

#if !defined(ZTS) && !defined(ZEND_MAX_EXECUTION_TIMERS) && defined(HAVE_SETITIMER)

static zend_long seconds, input_seconds;
/* This request began with the timer held back. */
static bool held;
/* It has still not been set. */
static bool waiting;
/* Somebody watches requests; in a program that only embeds PHP, nobody does. */
static bool watched;

/* On the PHP thread, where it looks for interrupts. */
void fe_php_timeout_interrupt(void)
{
	if (waiting) {
		waiting = false;
		/* Else the script has set a limit of its own. */
		if (!EG(modified_ini_directives)
		    || !zend_hash_str_exists(EG(modified_ini_directives), ZEND_STRL("max_execution_time"))) {
			zend_set_timeout(seconds, 0);
		}
	}
}

/* Once, after module startup and before the first request. */
void fe_php_timeout_startup(void)
{
	watched = true;
}

/* Between the settings of the request and php_request_startup's zend_set_timeout. */
void fe_php_timeout_hold(const fe_php_request *request)
{
	if (!watched || EG(modified_ini_directives) || request->content_length != 0 || EG(timeout_seconds) <= 0) {
		return;
	}
	seconds = EG(timeout_seconds);
	input_seconds = PG(max_input_time);
	EG(timeout_seconds) = 0;
	PG(max_input_time) = -1; /* else php_execute_script would set the timer */
	held = waiting = true;
}

/* After php_request_shutdown. */
void fe_php_timeout_end(void)
{
	if (!held) {
		return;
	}
	held = waiting = false;
	if (EG(timeout_seconds) != 0) {
		/* It was set after all; and when a script has changed the limit, the engine's way back to the old one sets it
		 * once more (OnUpdateTimeout in zend_ini_deactivate). The next request may count on nobody else's. */
		struct itimerval off = {{0, 0}, {0, 0}};
		setitimer(ITIMER_PROF, &off, NULL);
	}
	EG(timeout_seconds) = seconds;
	PG(max_input_time) = input_seconds;
}

/* From another thread: what runs now has been running for long. */
void fe_php_timeout_wanted(void)
{
	zend_atomic_bool_store(&EG(vm_interrupt), true);
}

#else

void fe_php_timeout_startup(void)
{
}

void fe_php_timeout_hold(const fe_php_request *request)
{
	(void) request;
}

void fe_php_timeout_end(void)
{
}

void fe_php_timeout_interrupt(void)
{
}

void fe_php_timeout_wanted(void)
{
}

#endif
