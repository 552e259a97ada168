// SPDX-License-Identifier: MIT
/* Sizes as people write them; see size.h. Pure. */
#include "base/size.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool size_parse(const char *text, uint64_t *out)
{
	static const char units[] = "KMGT";
	unsigned long long n;
	const char *unit;
	int shift = 0;
	char *end;

	if (*text < '0' || *text > '9') /* strtoull takes signs and spaces */
		return false;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno)
		return false;
	if (*end) {
		unit = strchr(units, toupper((unsigned char)*end));
		if (!unit || end[1])
			return false;
		shift = 10 * (int)(unit - units + 1);
	}
	if (n > UINT64_MAX >> shift)
		return false;
	*out = (uint64_t)n << shift;
	return true;
}
