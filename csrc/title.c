/* What ps shows of a process, in the place of its arguments, as php-fpm writes it (fpm_env_setproctitle). */
#include <stdlib.h>
#include <string.h>

#include "title.h"

extern char **environ;

static char *first; /* the kernel shows what lies here */
static size_t room; /* as far as arguments and environment lie behind each other */

__attribute__((constructor)) static void remember(int argc, char **argv, char **envp)
{
	char *end;

	if (argc < 1 || !argv[0]) {
		return;
	}
	first = argv[0];
	end = first;
	for (int i = 0; i < argc && argv[i] == end; i++) {
		end += strlen(argv[i]) + 1;
	}
	for (int i = 0; envp && envp[i] && envp[i] == end; i++) {
		end += strlen(envp[i]) + 1;
	}
	room = (size_t) (end - first);
}

/* The environment moves out of the way first. For a process that has one thread. */
void fe_php_set_title(const char *title)
{
	static int moved = 0;
	size_t length;

	if (!first || room == 0) {
		return;
	}
	if (!moved) {
		size_t count = 0;
		char **copy;
		while (environ && environ[count]) {
			count++;
		}
		copy = calloc(count + 1, sizeof(*copy));
		if (!copy) {
			return;
		}
		for (size_t i = 0; i < count; i++) {
			copy[i] = strdup(environ[i]);
			if (!copy[i]) {
				return; /* some are copied for nothing */
			}
		}
		environ = copy;
		moved = 1;
	}
	length = strlen(title);
	if (length > room - 1) {
		length = room - 1;
	}
	memcpy(first, title, length);
	memset(first + length, 0, room - length);
}
