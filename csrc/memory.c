/* What memory a process keeps between requests. */
#include <malloc.h>
#include <sys/mman.h>

#include "internal.h"
#include "zend_alloc.h"

/* Keeps up to a megabyte of freed memory: else a body of 100 KB is memory that the kernel clears and hands out anew for
 * each request. */
void fe_php_keep_memory(void)
{
	mallopt(M_MMAP_THRESHOLD, 2 * 1024 * 1024);
	mallopt(M_TRIM_THRESHOLD, 1024 * 1024);
}

/* Gives back what PHP's allocator keeps for this thread's next request. Between requests it has its first chunk, of which
 * only the first page is in use, and as many free chunks as requests have needed on the average (zend_mm_shutdown). */
void fe_php_release_memory(void)
{
	size_t chunk = 2 * 1024 * 1024, page = 4096; /* ZEND_MM_CHUNK_SIZE, ZEND_MM_PAGE_SIZE: the same since PHP 7.0 */
	char *first;
	int i;

	if (!is_zend_mm()) {
		return; /* USE_ZEND_ALLOC=0 */
	}
	/* Each of them halves the average, as a request that needs nothing does. */
	for (i = 0; i < 12; i++) {
		shutdown_memory_manager(true, false);
	}
	/* The heap itself lies in the page that its first chunk begins with. */
	first = (char *) ((uintptr_t) zend_mm_get_heap() & ~(uintptr_t) (chunk - 1));
	madvise(first + page, chunk - page, MADV_DONTNEED);
	malloc_trim(0);
}
