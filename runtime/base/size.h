/* SPDX-License-Identifier: MIT */
/* Sizes as people write them. */
#ifndef LLMDEV_SIZE_H
#define LLMDEV_SIZE_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes, or with K, M, G or T (either case) that many powers of 1024. False: not a size. */
bool size_parse(const char *text, uint64_t *out);

#endif
