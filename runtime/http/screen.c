// SPDX-License-Identifier: MIT
/* screen.h. */
#include "http/screen.h"

#include <stdint.h>
#include <string.h>

/* The byte after the string that begins at text[at] == '"'; n if it does not end. */
static size_t skip_string(const char *text, size_t n, size_t at)
{
	at++;
	while (at < n) {
		const char *quote = memchr(text + at, '"', n - at);
		size_t end, back;

		if (!quote)
			return n;
		end = (size_t)(quote - text);
		for (back = end; back > at && text[back - 1] == '\\'; back--)
			;
		at = end + 1;
		if (!((end - back) & 1))
			return at;
	}
	return n;
}

const char *json_screen(const char *text, size_t n, size_t *at)
{
	size_t values = 0, depth = 0;

	for (size_t i = 0; i < n;) {
		char c = text[i];

		*at = i;
		if (c == '"') {
			i = skip_string(text, n, i);
			continue;
		}
		i++;
		if (c == '[' || c == '{') {
			if (++depth > SCREEN_DEPTH_MAX)
				return "nested too deeply (more than 512 levels)";
		} else if (c == ']' || c == '}') {
			depth -= depth > 0;
		} else if (c != ',') {
			continue;
		}
		if (++values > 2 * SCREEN_VALUES_MAX)
			return "too many values (more than 500,000)";
	}
	return NULL;
}
