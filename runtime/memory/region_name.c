// SPDX-License-Identifier: MIT
/* Names of regions and of their places (region.h): all that the keeper needs of regions. Pure functions. */
#include <string.h>

#include "memory/region.h"

const char *region_place_name(enum region_place place)
{
	return place == REGION_MODULE ? "kernel" : "keeper";
}

bool region_name_ok(const char *name)
{
	static const char chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789._:@+-";
	size_t n = strlen(name);

	return n && n < REGION_NAME_MAX && name[0] != '.' && strspn(name, chars) == n;
}
