/* SPDX-License-Identifier: MIT */
/* Anonymous mappings where huge pages can be used. Pure functions. */
#ifndef LLMDEV_BASE_MAP_H
#define LLMDEV_BASE_MAP_H

#include <stddef.h>

#define HUGE_PAGE ((size_t)2 << 20)

/* How much to map for `bytes`: whole huge pages, unless it is less than one; then whole pages. */
size_t map_size(size_t bytes);
/*
 * A private anonymous mapping that starts at a multiple of 2 MiB; `flags`: MAP_* beside these two.
 * `bytes` a multiple of the page size. NULL with errno.
 */
void *map_aligned(size_t bytes, int prot, int flags);

#endif
