// SPDX-License-Identifier: MIT
/* Calls as the formats of model families write them. */
#include <errno.h>

#include "text/grammar/grammar_int.h"

int grammar_tools(struct grammar **out, enum output_tools format, const json_t *tools,
		  const char *only, bool parallel, struct err *e)
{
	*out = NULL;
	return err_set(e, -EOPNOTSUPP, "tools: this format's calls cannot be forced");
}
