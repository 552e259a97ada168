// SPDX-License-Identifier: MIT
/* Lists of numbers on the command line; see id_list.h. */
#include "tools/llmctl/id_list.h"

#include <errno.h>
#include <stdlib.h>

int id_list_parse(const char *text, struct ids *out, struct err *e)
{
	const char *p = text;

	for (;;) {
		char *end;
		long v;

		while (*p == ' ')
			p++;
		errno = 0;
		v = strtol(p, &end, 10);
		if (end == p || *p < '0' || *p > '9' || errno || v > INT32_MAX)
			return err_set(e, -EINVAL, "\"%.32s\" is no number: write ids like 1,2,3",
				       p);
		if (ids_push(out, (int32_t)v))
			return err_set(e, -ENOMEM, "out of memory: shorten the list");
		for (p = end; *p == ' ';)
			p++;
		if (!*p)
			return 0;
		if (*p++ != ',')
			return err_set(e, -EINVAL, "\"%.32s\": expected a comma", p - 1);
	}
}
