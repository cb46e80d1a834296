/* What a pool's configuration and php-fpm's command line ask of PHP beside requests. */
#include "internal.h"
#include "ext/standard/dl.h"
#include "zend_extensions.h"

/* A setting for good, as fpm_php_zend_ini_alter_master makes it: a user's may still be changed by scripts and .user.ini. */
static bool alter_for_good(const char *name, const char *value, bool admin)
{
	zend_ini_entry *entry = zend_hash_str_find_ptr(EG(ini_directives), name, strlen(name));
	zend_string *copy;

	if (!entry) {
		return false;
	}
	copy = zend_string_init(value, strlen(value), 1);
	if (!entry->on_modify
	    || entry->on_modify(entry, copy, entry->mh_arg1, entry->mh_arg2, entry->mh_arg3, ZEND_INI_STAGE_ACTIVATE)
	           == SUCCESS) {
		entry->value = copy;
		if (admin) {
			entry->modifiable = ZEND_INI_SYSTEM;
		}
	} else {
		zend_string_release(copy);
	}
	return true;
}

bool fe_php_apply_setting(const char *name, const char *value, bool admin)
{
	volatile bool applied = true; /* written between setjmp and longjmp */

	zend_first_try {
		if (strcmp(name, "extension") == 0 && *value) {
			zval loaded;
			zend_interned_strings_switch_storage(false);
			php_dl(value, MODULE_PERSISTENT, &loaded, 1);
			zend_interned_strings_switch_storage(true);
			applied = Z_TYPE(loaded) == IS_TRUE;
			zend_collect_module_handlers();
		} else {
			applied = alter_for_good(name, value, admin);
			if (strcmp(name, "disable_functions") == 0 && *value) {
#if PHP_VERSION_ID >= 80000
				zend_disable_functions(value);
#endif
			}
#if PHP_VERSION_ID < 80500
			if (strcmp(name, "disable_classes") == 0 && *value) {
				char *list = strdup(value), *rest = list, *class;
				while (list && (class = strsep(&rest, " ,")) != NULL) {
					if (*class) {
						zend_disable_class(class, strlen(class));
					}
				}
				free(list);
			}
#endif
		}
	} zend_end_try();
	return applied;
}

bool fe_php_expose(void)
{
	return PG(expose_php);
}

void fe_php_show_version(void)
{
#if PHP_VERSION_ID >= 80400
	/* With the build's own date, NTS or ZTS, and who built it. */
	fe_php_to_stdout = true;
	php_print_version(&sapi_module);
	php_output_end_all();
	fe_php_to_stdout = false;
#else
	printf("PHP %s (%s) (built: %s %s)\nCopyright (c) The PHP Group\n%s", PHP_VERSION, sapi_module.name, __DATE__, __TIME__,
	       get_zend_version());
#endif
	fflush(stdout);
}

static int by_name(const void *left, const void *right)
{
	return strcasecmp(*(const char *const *) left, *(const char *const *) right);
}

static void show_sorted(const char **names, size_t count)
{
	qsort(names, count, sizeof(*names), by_name);
	for (size_t i = 0; i < count; i++) {
		printf("%s\n", names[i]);
	}
}

void fe_php_show_modules(void)
{
	size_t most = zend_hash_num_elements(&module_registry) + zend_llist_count(&zend_extensions), count = 0;
	const char **names = calloc(most + 1, sizeof(*names));
	zend_module_entry *module;
	zend_llist_position position;
	zend_extension *extension;

	if (!names) {
		return;
	}
	ZEND_HASH_FOREACH_PTR(&module_registry, module) {
		names[count++] = module->name;
	} ZEND_HASH_FOREACH_END();
	printf("[PHP Modules]\n");
	show_sorted(names, count);
	printf("\n[Zend Modules]\n");
	count = 0;
	for (extension = zend_llist_get_first_ex(&zend_extensions, &position); extension;
	     extension = zend_llist_get_next_ex(&zend_extensions, &position)) {
		names[count++] = extension->name;
	}
	show_sorted(names, count);
	printf("\n");
	fflush(stdout);
	free(names);
}

bool fe_php_show_information(void)
{
	volatile bool shown = false; /* written between setjmp and longjmp */

	sapi_module.phpinfo_as_text = 1;
	fe_php_to_stdout = true;
	zend_first_try {
		SG(server_context) = NULL;
		if (php_request_startup() == SUCCESS) {
			SG(headers_sent) = 1;
			SG(request_info).no_headers = 1;
			php_print_info(0xFFFFFFFF);
			shown = true;
		}
	} zend_end_try();
	zend_first_try {
		php_request_shutdown(NULL);
	} zend_end_try();
	fflush(stdout);
	fe_php_to_stdout = false;
	return shown;
}
