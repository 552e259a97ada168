// SPDX-License-Identifier: MIT
/*
 * POST /v1/embeddings: one text, one list of ids, or a list of either. The daemon embeds one input a
 * request; up to IN_FLIGHT of them are asked for at once, so that a long list takes neither all of
 * the daemon's places nor a connection for each. Answers are kept as bytes until all are there.
 */
#include <stdlib.h>
#include <string.h>

#include "http/gateway.h"

#define INPUTS_MAX 2048 /* OpenAI's bound */
#define IN_FLIGHT  8

struct embeddings {
	const json_t *list; /* of the inputs; NULL: there is one, which is `input` itself */
	const json_t *input;
	size_t n, next, done;
	bool base64;
	uint64_t prompt_tokens;
	struct strbuf vectors[];
};

static void free_state(void *state)
{
	struct embeddings *s = state;

	for (size_t i = 0; i < s->n; i++)
		strbuf_free(&s->vectors[i]);
	free(s);
}

static void add_base64(struct strbuf *out, const uint8_t *p, size_t n)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char quad[4];

	for (size_t i = 0; i < n; i += 3) {
		uint32_t v =
			p[i] << 16 | (i + 1 < n ? p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);

		quad[0] = digits[v >> 18];
		quad[1] = digits[v >> 12 & 63];
		quad[2] = i + 1 < n ? digits[v >> 6 & 63] : '=';
		quad[3] = i + 2 < n ? digits[v & 63] : '=';
		strbuf_add(out, quad, 4);
	}
}

/* The daemon's floats are in the machine's order, which is the little-endian one of the format. */
static void add_vector(struct strbuf *out, const struct strbuf *vector, bool base64)
{
	float x;

	if (base64) {
		strbuf_add(out, "\"", 1);
		add_base64(out, (const uint8_t *)vector->p, vector->n);
		strbuf_add(out, "\"", 1);
		return;
	}
	strbuf_add(out, "[", 1);
	for (size_t i = 0; i + sizeof(x) <= vector->n; i += sizeof(x)) {
		memcpy(&x, vector->p + i, sizeof(x));
		strbuf_printf(out, i ? ",%.9g" : "%.9g", x);
	}
	strbuf_add(out, "]", 1);
}

static void reply(struct request *rq)
{
	struct embeddings *s = rq->state;
	struct strbuf out = {0};

	strbuf_str(&out, "{\"object\":\"list\",\"data\":[");
	for (size_t i = 0; i < s->n; i++) {
		strbuf_printf(&out, "%s{\"object\":\"embedding\",\"index\":%zu,\"embedding\":",
			      i ? "," : "", i);
		add_vector(&out, &s->vectors[i], s->base64);
		strbuf_add(&out, "}", 1);
	}
	strbuf_str(&out, "],\"model\":");
	strbuf_json_text(&out, rq->model, strlen(rq->model));
	strbuf_printf(&out, ",\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu}}",
		      (unsigned long long)s->prompt_tokens, (unsigned long long)s->prompt_tokens);
	reply_buf(rq, 200, "application/json", &out);
}

/* Says which input it was. */
static void failed(struct request *rq, const struct llmdev_event *ev, size_t index)
{
	const struct embeddings *s = rq->state;
	struct llmdev_event named = *ev;
	struct strbuf text = {0};

	if (s->list && ev->text_len > 6 && !memcmp(ev->text, "input", 5) &&
	    (ev->text[5] == ':' || ev->text[5] == '[')) {
		strbuf_printf(&text, "input[%zu]", index);
		strbuf_add(&text, ev->text + 5, ev->text_len - 5);
		if (!text.failed) {
			named.text = text.p;
			named.text_len = text.n;
		}
	}
	reply_upstream_error(rq, &named);
	strbuf_free(&text);
}

static void submit_next(struct request *rq);

static void on_event(struct request *rq, struct upstream *u, const struct llmdev_event *ev,
		     void *ctx)
{
	struct embeddings *s = rq->state;
	struct strbuf *vector = ctx;

	switch (ev->kind) {
	case LLMDEV_DATA:
		if (ev->subtype == LLM_DATA_EMBEDDING)
			strbuf_add(vector, ev->text, ev->text_len);
		break;
	case LLMDEV_DONE:
		s->prompt_tokens += ev->usage.prompt_tokens;
		if (!vector->n || vector->failed)
			reply_error(rq, 500, NULL, NULL, "the daemon gave no vector");
		else if (++s->done == s->n)
			reply(rq);
		else
			submit_next(rq);
		break;
	case LLMDEV_ERROR:
		failed(rq, ev, vector - s->vectors);
		break;
	default:
		break;
	}
}

/* Ask for the next input that has not been asked for, if there is one. */
static void submit_next(struct request *rq)
{
	struct embeddings *s = rq->state;
	const json_t *dimensions = json_member(rq->body, "dimensions");
	size_t i = s->next;
	json_t *ask;

	if (i == s->n)
		return;
	s->next++;
	ask = json_pack("{s:O}", "input", s->list ? json_array_get(s->list, i) : s->input);
	if (ask && dimensions)
		json_object_set(ask, "dimensions", (json_t *)dimensions);
	if (ask)
		upstream_submit(rq, ask, on_event, &s->vectors[i]);
	else
		reply_json(rq, 500, NULL);
	json_decref(ask);
}

/* False once an error was replied. */
static bool check_input(struct request *rq, const json_t *input)
{
	const json_t *first = json_array_get(input, 0), *v;
	size_t i;

	if (json_is_string(input))
		return true;
	if (!json_is_array(input) || !first ||
	    !(json_is_string(first) || json_is_array(first) || json_is_integer(first))) {
		reply_error(rq, 400, NULL, "input",
			    "input: a string, a list of strings, a list of token ids, or a list of "
			    "such lists; not empty");
		return false;
	}
	json_array_foreach (input, i, v) {
		if (json_typeof(v) != json_typeof(first)) {
			reply_error(rq, 400, NULL, "input",
				    "input[%zu]: of another kind than input[0]", i);
			return false;
		}
	}
	if (!json_is_integer(first) && json_array_size(input) > INPUTS_MAX) {
		reply_error(rq, 400, NULL, "input", "input: %zu inputs: at most %d at once",
			    json_array_size(input), INPUTS_MAX);
		return false;
	}
	return true;
}

static void handle_embeddings(struct request *rq)
{
	const json_t *input = json_member(rq->body, "input");
	const json_t *format = json_member(rq->body, "encoding_format");
	const char *name = format ? json_string_value(format) : "float";
	bool many = json_is_array(input) && !json_is_integer(json_array_get(input, 0));
	size_t n = many ? json_array_size(input) : 1;
	struct embeddings *s;

	if (!name || (strcmp(name, "float") && strcmp(name, "base64"))) {
		reply_error(rq, 400, NULL, "encoding_format",
			    "encoding_format: either \"float\" or \"base64\"");
		return;
	}
	if (!check_input(rq, input))
		return;
	s = calloc(1, sizeof(*s) + n * sizeof(s->vectors[0]));
	if (!s) {
		reply_json(rq, 500, NULL);
		return;
	}
	s->list = many ? input : NULL;
	s->input = input;
	s->n = n;
	s->base64 = !strcmp(name, "base64");
	rq->state = s;
	rq->free_state = free_state;
	for (int i = 0; i < IN_FLIGHT; i++)
		submit_next(rq);
}

const struct route embeddings_routes[] = {
	{"POST", "/v1/embeddings", ROUTE_MODEL | ROUTE_JSON | ROUTE_COUNTED, handle_embeddings},
	{0},
};
