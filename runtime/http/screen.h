/* SPDX-License-Identifier: MIT */
/*
 * A look at JSON before it is parsed: a parsed value takes up to a hundred times the bytes of its
 * text, so their number is bounded, and their depth.
 */
#ifndef HTTP_SCREEN_H
#define HTTP_SCREEN_H

#include <stddef.h>

#define SCREEN_VALUES_MAX 524288
#define SCREEN_DEPTH_MAX  512

/* NULL: may be parsed (whether it is JSON is for the parser to say); else why not, and *at where. */
const char *json_screen(const char *text, size_t n, size_t *at);

#endif
