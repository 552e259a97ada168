/* SPDX-License-Identifier: MIT */
/*
 * FNV-1a, 64 bit (Fowler, Noll, Vo): tells things apart, resists no forgery. Start from FNV_START and
 * feed pieces one after the other.
 */
#ifndef LLMDEV_FNV_H
#define LLMDEV_FNV_H

#include <stddef.h>
#include <stdint.h>

#define FNV_START 0xcbf29ce484222325ull

static inline uint64_t fnv1a(uint64_t h, const void *data, size_t n)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * 0x100000001b3ull;
	return h;
}

#endif
