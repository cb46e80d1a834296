/* Ending a request from another thread.
 *
 * The PHP thread is asked through a number of its own and the engine's interrupt flag, which it looks at in loops and after
 * calls, and by a signal, so that sleep(), select and the like return. There it raises a fatal error, as for
 * max_execution_time: shutdown functions run, and the thread serves on. The engine's own flag for that, EG(timed_out), would
 * say the wrong limit, and kills the process where the timer of max_execution_time rings before the thread has seen it. */
#include <pthread.h>
#include <signal.h>

#include "internal.h"

/* Of the signals that PHP and its extensions leave alone; PHP 8.3 and later use SIGRTMIN. */
#define STOP_SIGNAL (SIGRTMAX - 1)

static void (*next_interrupt)(zend_execute_data *);

static void stop_script(fe_php_request *request, uint32_t milliseconds)
{
	request->stopped = true;
	if (!SG(headers_sent)) {
		SG(sapi_headers).http_response_code = 504;
	}
	if (milliseconds % 1000 == 0) {
		zend_error_noreturn(E_ERROR, "request_terminate_timeout of %u second%s exceeded", milliseconds / 1000,
		                    milliseconds == 1000 ? "" : "s");
	}
	zend_error_noreturn(E_ERROR, "request_terminate_timeout of %u.%03u seconds exceeded", milliseconds / 1000,
	                    milliseconds % 1000);
}

bool fe_php_interrupt_is_wanted(void)
{
	return __atomic_load_n(&FE_G(stop_after), __ATOMIC_ACQUIRE) != 0;
}

/* Ends the script if that is asked for. Before it starts, since its body may have been cut short for it. */
void fe_php_interrupt_check(void)
{
	uint32_t milliseconds = __atomic_exchange_n(&FE_G(stop_after), 0, __ATOMIC_ACQ_REL);
	fe_php_request *request = fe_php_current();

	if (milliseconds && request && !fe_php_forked) {
		stop_script(request, milliseconds);
	}
}

static void on_interrupt(zend_execute_data *execute_data)
{
	fe_php_timeout_interrupt();
	fe_php_interrupt_check();
	if (next_interrupt) {
		next_interrupt(execute_data);
	}
}

/* During module startup: OPcache's JIT compiles the call of what is there when it starts. */
void fe_php_interrupt_startup(void)
{
	next_interrupt = zend_interrupt_function;
	zend_interrupt_function = on_interrupt;
}

static void on_stop_signal(int number)
{
	(void) number; /* it is there to interrupt a system call */
}

void fe_php_view_of_this_thread(fe_php_view *view)
{
	struct sigaction action = {0};

	view->current_execute_data = &EG(current_execute_data);
	view->server_context = &SG(server_context);
	view->vm_interrupt = &EG(vm_interrupt);
	view->stop_after = &FE_G(stop_after);
	view->thread = pthread_self();
	/* Without SA_RESTART, so that system calls end. */
	action.sa_handler = on_stop_signal;
	action.sa_flags = SA_ONSTACK;
	sigemptyset(&action.sa_mask);
	sigaction(STOP_SIGNAL, &action, NULL);
}

void fe_php_ask_to_stop(const fe_php_view *view, uint32_t milliseconds)
{
	__atomic_store_n(view->stop_after, milliseconds ? milliseconds : 1, __ATOMIC_RELEASE);
	zend_atomic_bool_store((zend_atomic_bool *) view->vm_interrupt, true);
	pthread_kill((pthread_t) view->thread, STOP_SIGNAL);
}

bool fe_php_stop_is_pending(const fe_php_view *view)
{
	return __atomic_load_n(view->stop_after, __ATOMIC_ACQUIRE) != 0;
}

void fe_php_forget_stop(const fe_php_view *view)
{
	__atomic_store_n(view->stop_after, 0, __ATOMIC_RELEASE);
}
