/* SPDX-License-Identifier: MIT */
/* The filters on text (filters_text.c), for the table of all filters (filters.c); and what they
 * share with the methods of str. Offsets are in bytes. */
#ifndef LLMDEV_TMPL_FILTERS_H
#define LLMDEV_TMPL_FILTERS_H

#include "text/template/tmpl_int.h"

#define FILTER(name) struct val filter_##name(struct rt *r, struct val self, struct args *a)
FILTER(capitalize);
FILTER(center);
FILTER(escape);
FILTER(forceescape);
FILTER(format);
FILTER(indent);
FILTER(lower);
FILTER(pprint);
FILTER(replace);
FILTER(safe);
FILTER(string);
FILTER(striptags);
FILTER(title);
FILTER(trim);
FILTER(truncate);
FILTER(upper);
FILTER(urlencode);
FILTER(wordcount);
FILTER(wordwrap);
FILTER(xmlattr);

/* methods_str.c. count < 0: all */
struct str *str_replace(struct rt *r, struct str *s, struct str *old, struct str *new,
			int64_t count);
const struct func *find_str_method(const char *name, size_t len);
/* chars NULL: white space */
struct str *str_strip(struct rt *r, struct str *s, struct str *chars, bool left, bool right);
struct str *str_pad(struct rt *r, struct str *s, int64_t width, struct str *fill, char where);
struct list *str_lines(struct rt *r, struct str *s, bool keep_ends);
struct list *str_split_space(struct rt *r, struct str *s, int64_t max);
struct list *str_split(struct rt *r, struct str *s, struct str *sep, int64_t max);
struct list *str_rsplit(struct rt *r, struct str *s, struct str *sep, int64_t max);

#endif
