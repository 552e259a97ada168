/* SPDX-License-Identifier: MIT */
/*
 * The models that are served: where each one's daemon is, under which names clients ask for it, and
 * what the daemon last said about itself.
 *
 * Asking a daemon about itself waits, so a thread of its own does that (the prober). It is told
 * which backends to ask and puts answers aside; the loop's thread takes them when the prober's
 * eventfd says so. No structure here is shared but the prober's own.
 */
#ifndef HTTP_BACKEND_H
#define HTTP_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "http/loop.h"
#include "llm.h"

#define BACKENDS_MAX 64
#define NAMES_MAX    16 /* of one backend */

struct backend {
	const char *path;        /* of a socket or a device; NULL: the default one */
	char *names[NAMES_MAX];  /* [0] is the name, the others aliases; none: as the daemon says */
	int n_names;
	/* what is known; zero until the daemon answered once */
	bool known, up;
	uint64_t asked_ns;       /* when the last answer came */
	char model[LLM_NAME_MAX];
	uint32_t context;
	uint64_t fingerprint;
	bool has_status;         /* a device tells less than a socket */
	struct llm_status status;
	bool asking;
};

/* NAME=PATH[,ALIAS...] into *b. */
int backend_parse(struct backend *b, const char *option, struct err *e);
void backend_clear(struct backend *b);
/* What clients call it; "" if the daemon was never there to say. */
const char *backend_name(const struct backend *b);
bool backend_has_name(const struct backend *b, const char *name);

struct prober;

/* `told` is called in the loop's thread, for each answer that came. */
struct prober *prober_start(struct loop *l, struct backend *list, int n,
			    void (*told)(void *ctx, struct backend *b), void *ctx, struct err *e);
/* Waits for a question that is being asked. */
void prober_stop(struct prober *p);
/* Ask it again, unless that is being done. */
void prober_ask(struct prober *p, struct backend *b);

#endif
