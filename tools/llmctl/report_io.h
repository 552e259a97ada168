/* SPDX-License-Identifier: MIT */
/* For `llmctl report`: what reading a file does to free memory, and how fast a disk reads by io_uring. */
#ifndef LLMCTL_REPORT_IO_H
#define LLMCTL_REPORT_IO_H

#include <jansson.h>
#include <stddef.h>

#include "base/err.h"

/*
 * Writes a file of `bytes` into `dir`, reads it through the page cache, drops it from there, reads it by
 * io_uring with O_DIRECT, and removes it. New reference with the figures; what could not be measured has
 * a string "missing" in its object. NULL with *e: there could be no file.
 */
json_t *report_io(const char *dir, size_t bytes, struct err *e);

#endif
