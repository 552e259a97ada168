/* SPDX-License-Identifier: MIT */
/* The inside of chat.h: a chat, and the shape of messages that its template expects. */
#ifndef LLMDEV_CHAT_INT_H
#define LLMDEV_CHAT_INT_H

#include "text/chat.h"

#define CHAT_STOPS 4

struct chat_shape {
	bool parts;             /* content as a list of parts; else text */
	bool text_arguments;    /* arguments of calls as text; else an object */
	bool empty_content;     /* an absent content as ""; else null */
	bool developer;         /* it knows the role; else it becomes system */
	bool thinking_key;      /* reasoning also under the name `thinking` */
	bool short_ids;         /* ids of calls have nine letters and digits */
};

struct chat {
	const struct tokenizer *t;
	struct tmpl *template;
	json_t *trusted;
	struct output_format format;
	struct chat_shape shape;
	bool thinks;            /* where the request does not say otherwise */
	int32_t stops[CHAT_STOPS];
	int n_stops;
	uint64_t hash;
	char unusable[600];     /* "": usable */
};

/* Renders messages that have their shape already. */
int chat_render_shaped(const struct chat *c, const struct chat_request *r, const json_t *messages,
		       struct chat_prompt *out, struct err *e);

/* chat_shape.c: a new list of messages in that shape; NULL: no memory. */
json_t *chat_shape(const struct chat_shape *s, const json_t *messages);
/* Fills c->shape in. */
void chat_probe(struct chat *c, const char *source);

#endif
