/* Preloaded by scripts/asan.sh: PHP loads extensions with RTLD_DEEPBIND, which AddressSanitizer cannot have, since they
 * would then bypass its malloc. */
#define _GNU_SOURCE
#include <dlfcn.h>

void *dlopen(const char *file, int mode)
{
	void *(*next)(const char *, int) = (void *(*)(const char *, int)) dlsym(RTLD_NEXT, "dlopen");
	return next(file, mode & ~RTLD_DEEPBIND);
}
