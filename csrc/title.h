/* See title.c; needs nothing of PHP. */
#ifndef FE_PHP_TITLE_H
#define FE_PHP_TITLE_H

void fe_php_set_title(const char *title);

#endif
