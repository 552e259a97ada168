// SPDX-License-Identifier: MIT
/* All endpoints: one line for each table, and finding the one that is meant. */
#include <stdio.h>
#include <string.h>

#include "http/server.h"

static const struct route *const tables[] = {
	core_routes,	   chat_routes,	    completion_routes, responses_routes,
	embeddings_routes, tokenize_routes, page_routes,
};

static bool path_matches(const struct route *r, const char *path, const char **tail)
{
	size_t n = strlen(r->path);

	*tail = "";
	if (r->path[n - 1] != '*')
		return !strcmp(r->path, path);
	*tail = path + n - 1;
	return !strncmp(r->path, path, n - 1) && **tail;
}

const struct route *route_find(const char *method, const char *path, const char **tail, char *allow,
			       size_t allow_len)
{
	size_t n = 0;

	allow[0] = '\0';
	for (size_t i = 0; i < sizeof(tables) / sizeof(*tables); i++) {
		for (const struct route *r = tables[i]; r->method; r++) {
			bool get = !strcmp(r->method, "GET");

			if (!path_matches(r, path, tail))
				continue;
			if (!strcmp(r->method, method) || (get && !strcmp(method, "HEAD")))
				return r;
			n += (size_t)snprintf(allow + n, n < allow_len ? allow_len - n : 0, "%s%s",
					      n ? ", " : "", get ? "GET, HEAD" : r->method);
		}
	}
	*tail = "";
	return NULL;
}
