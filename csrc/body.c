/* Request bodies in memory, where PHP would write them to a temporary file. */
#include "internal.h"
#include "php_content_types.h"

/* PHP keeps a body of more than 16 KB in a file while it is read (sapi_read_standard_form_data): to make, write, read and
 * remove it costs several times what the rest of a small request does. Here a body up to this size stays in memory, if that
 * is a small part of memory_limit too, since it counts as the script's. */
enum { IN_MEMORY = 1024 * 1024, PART_OF_MEMORY_LIMIT = 16 };

static bool fits_in_memory(zend_long length)
{
	return length > SAPI_POST_BLOCK_SIZE && length <= IN_MEMORY
	       && (PG(memory_limit) <= 0 || length <= PG(memory_limit) / PART_OF_MEMORY_LIMIT)
	       && (SG(post_max_size) <= 0 || length <= SG(post_max_size));
}

/* As sapi_read_standard_form_data, which has all other cases. */
static SAPI_POST_READER_FUNC(read_form_data)
{
	zend_long length = SG(request_info).content_length;
	zend_string *body;
	size_t got;

	if (!fe_php_current() || !fits_in_memory(length)) {
		sapi_read_standard_form_data();
		return;
	}
	body = zend_string_alloc((size_t) length, 0);
	got = sapi_read_post_block(ZSTR_VAL(body), (size_t) length);
	ZSTR_LEN(body) = got;
	ZSTR_VAL(body)[got] = '\0';
	/* What CONTENT_LENGTH says is there; more is never read. */
	SG(post_read) = 1;
	SG(request_info).request_body = php_stream_memory_open(TEMP_STREAM_DEFAULT, body);
	zend_string_release_ex(body, 0);
}

/* As php_default_post_reader: the body of a POST that is no form. */
static SAPI_POST_READER_FUNC(default_post_reader)
{
	if (!strcmp(SG(request_info).request_method, "POST") && SG(request_info).post_entry == NULL) {
		read_form_data();
	}
}

/* Takes the place of PHP's readers, on this thread. */
void fe_php_keep_bodies_in_memory(void)
{
	sapi_post_entry *form = zend_hash_str_find_ptr(&SG(known_post_content_types), DEFAULT_POST_CONTENT_TYPE,
	                                               sizeof(DEFAULT_POST_CONTENT_TYPE) - 1);

	/* An extension may have its own (mbstring's handler comes later, and reads what this reader has made). */
	if (form && form->post_reader == sapi_read_standard_form_data) {
		form->post_reader = read_form_data;
	}
	if (sapi_module.default_post_reader == php_default_post_reader) {
		sapi_module.default_post_reader = default_post_reader;
	}
}
