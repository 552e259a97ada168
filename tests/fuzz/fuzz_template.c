// SPDX-License-Identifier: MIT
/*
 * libFuzzer target: any bytes as a chat template, rendered over a fixed conversation with small
 * limits. Errors are one line; the spans of what comes out must fit it.
 */
#include <stdlib.h>
#include <string.h>

#include "text/template/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char conversation[] =
	"{\"messages\": [{\"role\": \"system\", \"content\": \"Be \\u00e9.\"}, {\"role\": "
	"\"user\", "
	"\"content\": \" <a>\\n\\ud83d\\ude00 \"}, {\"role\": \"assistant\", \"content\": null, "
	"\"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": {\"x\": [1, 2.5, "
	"true]}}}]}], "
	"\"s\": \"Hello, World\", \"u\": \"na\\u00efve \\u4f60\\u597d\", \"n\": 7, \"f\": 2.5, "
	"\"l\": [3, 1, 2], \"d\": {\"a\": 1, \"b\": {\"c\": [1, 2]}}, \"no\": null, \"t\": true}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct tmpl_limits small = {.steps = 200000, .memory = 8 << 20, .depth = 200};
	static json_t *vars;
	struct tmpl_output o;
	struct tmpl *t;
	struct err e;
	size_t at = 0;
	int rc;

	if (!vars)
		vars = json_loads(conversation, 0, NULL);
	rc = tmpl_compile(&t, (const char *)data, size, &e);
	if (!rc) {
		rc = tmpl_render(t, vars, NULL, 1721997296, &small, &o, NULL, &e);
		tmpl_mentions(t, "tools");
		tmpl_uses_date(t);
		tmpl_free(t);
	}
	if (rc) {
		if (!*e.msg || strchr(e.msg, '\n'))
			abort();
		return 0;
	}
	for (size_t i = 0; i < o.n_spans; i++) {
		if (o.span[i].end <= at || (i && o.span[i].user == o.span[i - 1].user))
			abort();
		at = o.span[i].end;
	}
	if (at != o.len || o.text[o.len])
		abort();
	tmpl_output_free(&o);
	return 0;
}
