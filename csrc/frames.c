/* Reads what a PHP thread runs from another thread, or from a signal handler, while the script goes on. Nothing is stopped for it,
 * so memory may be freed or used anew meanwhile: it is copied through process_vm_readv, which answers EFAULT instead of
 * crashing, and what does not look like what it should be is refused. */
#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "internal.h"

/* Where seccomp forbids process_vm_readv (old Docker): the kernel copies into a pipe, and finds bad addresses too. */
static bool read_through_pipe(const void *address, void *into, size_t len)
{
	int ends[2];
	bool done = false;

	if (len > 4096 || pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
		return false;
	}
	if (write(ends[1], address, len) == (ssize_t) len) {
		done = read(ends[0], into, len) == (ssize_t) len;
	}
	close(ends[0]);
	close(ends[1]);
	return done;
}

static bool read_memory(const void *address, void *into, size_t len)
{
	static bool forbidden = false;

	if (!address) {
		return false;
	}
	if (!__atomic_load_n(&forbidden, __ATOMIC_RELAXED)) {
		struct iovec local = {into, len};
		struct iovec remote = {(void *) address, len};
		if (process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == (ssize_t) len) {
			return true;
		}
		if (errno != EPERM && errno != ENOSYS) {
			return false;
		}
		__atomic_store_n(&forbidden, true, __ATOMIC_RELAXED);
	}
	return read_through_pipe(address, into, len);
}

/* What could end or forge a line becomes a question mark. */
static void make_printable(char *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char) bytes[i] < 0x20 || bytes[i] == 0x7f) {
			bytes[i] = '?';
		}
	}
	bytes[len] = '\0';
}

/* A string of the engine's, up to `size - 1` bytes of it; false when there is none at this address. */
static bool read_string(const zend_string *string, char *into, size_t size)
{
	enum { LONGEST = 1 << 24 };
	zend_string head;
	size_t len;

	if (!read_memory(string, &head, offsetof(zend_string, val)) || (head.gc.u.type_info & 0x0f) != IS_STRING
	    || head.len > LONGEST) {
		return false;
	}
	len = head.len < size ? head.len : size - 1;
	if (len > 0 && !read_memory(string->val, into, len)) {
		return false;
	}
	make_printable(into, len);
	return true;
}

/* A C string; empty when there is none. It is read in parts, since what follows it may not be there. */
static void read_c_string(const char *string, char *into, size_t size)
{
	size_t len = 0;

	while (string && len < size - 1) {
		size_t part = 64 - ((uintptr_t) (string + len) & 63);
		if (part > size - 1 - len) {
			part = size - 1 - len;
		}
		if (!read_memory(string + len, into + len, part)) {
			break;
		}
		char *end = memchr(into + len, '\0', part);
		if (end) {
			len = (size_t) (end - into);
			break;
		}
		len += part;
	}
	make_printable(into, len);
}

static void take_link(const void *at, const zend_execute_data *frame, fe_php_link *link)
{
	link->frame = at;
	link->function = frame->func;
	link->opline = frame->opline;
	link->previous = frame->prev_execute_data;
	link->call_info = Z_TYPE_INFO(frame->This);
}

static bool is_aligned(const void *address)
{
	return ((uintptr_t) address & (sizeof(void *) - 1)) == 0;
}

bool fe_php_read_link(const void *at, fe_php_link *link)
{
	zend_execute_data frame;

	if (!is_aligned(at) || !read_memory(at, &frame, sizeof(frame))) {
		return false;
	}
	take_link(at, &frame, link);
	return true;
}

/* The innermost frames lie side by side on the engine's stack, and a busy script changes them all the time: they are copied at
 * once. */
enum { WINDOW = 8192, CHUNK = 2 * 1024 * 1024 };
typedef struct window {
	uintptr_t start, end;
	char bytes[WINDOW];
} window;

static void read_window(window *window, const void *innermost)
{
	uintptr_t chunk = (uintptr_t) innermost & ~((uintptr_t) CHUNK - 1); /* memory before it may not be there */

	window->end = (uintptr_t) innermost + sizeof(zend_execute_data);
	window->start = window->end - chunk > WINDOW ? window->end - WINDOW : chunk;
	if (!read_memory((const void *) window->start, window->bytes, window->end - window->start)) {
		window->end = window->start;
	}
}

static bool read_link_through(const window *window, const void *at, fe_php_link *link)
{
	zend_execute_data frame;
	uintptr_t address = (uintptr_t) at;

	if (!is_aligned(at) || address < window->start || address + sizeof(frame) > window->end) {
		return fe_php_read_link(at, link);
	}
	memcpy(&frame, window->bytes + (address - window->start), sizeof(frame));
	take_link(at, &frame, link);
	return true;
}

size_t fe_php_read_links(const fe_php_view *view, fe_php_link *links, size_t most)
{
	size_t count = 0;
	const void *at;
	window window;

	if (!read_memory(view->current_execute_data, &at, sizeof(at)) || !at) {
		return 0;
	}
	read_window(&window, at);
	while (count < most && at && read_link_through(&window, at, &links[count])) {
		at = links[count].previous;
		count++;
	}
	return count;
}

bool fe_php_read_frame(const fe_php_link *link, fe_php_frame *frame)
{
	zend_function function;

	memset(frame, 0, sizeof(*frame));
	if (!link->function) {
		frame->kind = FE_PHP_FRAME_UNKNOWN; /* where PHP calls a script's function and no script is running */
		return true;
	}
	if (!is_aligned(link->function)
	    || !read_memory(link->function, &function, sizeof(function.common))) {
		return false;
	}
	if (function.type != ZEND_INTERNAL_FUNCTION && !ZEND_USER_CODE(function.type)) {
		return false;
	}
	if (function.common.function_name) {
		frame->kind = FE_PHP_FRAME_FUNCTION;
		if (!read_string(function.common.function_name, frame->function, sizeof(frame->function))) {
			return false;
		}
		if (function.common.scope) {
			zend_string *name;
			if (!read_memory(&function.common.scope->name, &name, sizeof(name))
			    || !read_string(name, frame->class_name, sizeof(frame->class_name))) {
				return false;
			}
		}
	} else if (function.type == ZEND_INTERNAL_FUNCTION) {
		frame->kind = FE_PHP_FRAME_FIBER;
	} else if (ZEND_CALL_KIND_EX(link->call_info) == ZEND_CALL_TOP_CODE) {
		frame->kind = FE_PHP_FRAME_SCRIPT;
	} else {
		frame->kind = FE_PHP_FRAME_INCLUDE;
	}
	if (!ZEND_USER_CODE(function.type)) {
		return true;
	}
	if (!read_memory((const char *) link->function + offsetof(zend_op_array, filename), &function.op_array.filename,
	                 sizeof(function.op_array.filename))
	    || !read_string(function.op_array.filename, frame->file, sizeof(frame->file))) {
		return false;
	}
	/* Not set yet where the function has just been called. */
	if (!read_memory((const char *) link->opline + offsetof(zend_op, lineno), &frame->line, sizeof(frame->line))) {
		frame->line = 0;
	}
	return true;
}

bool fe_php_read_running(const fe_php_view *view, fe_php_running *running)
{
	fe_php_request request;
	const void *at;

	if (!read_memory(view->server_context, &at, sizeof(at)) || !read_memory(at, &request, sizeof(request))) {
		return false;
	}
	running->stage = request.stage;
	read_c_string(request.method, running->method, sizeof(running->method));
	read_c_string(request.request_uri, running->request_uri, sizeof(running->request_uri));
	read_c_string(request.query_string, running->query_string, sizeof(running->query_string));
	read_c_string(request.script_path, running->script, sizeof(running->script));
	return true;
}
