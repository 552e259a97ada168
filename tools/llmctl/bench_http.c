// SPDX-License-Identifier: MIT
/*
 * An OpenAI-compatible server as the target of `llmctl bench serve`: POST /v1/completions with
 * token ids, streamed as server-sent events. Owns libcurl's multi handle and the transfers.
 * Without libcurl at build time there is only the sentence that says so.
 */
#include <errno.h>

#include "bench_target.h"

#ifndef HAVE_LIBCURL

int bench_http_target(struct bench_target **out, const struct bench_http_opts *o, struct err *e)
{
	return err_set(e, -EOPNOTSUPP,
		       "--url: this llmctl was built without libcurl: install "
		       "libcurl4-openssl-dev and build again");
}

#else

#include <curl/curl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"

#define LINE_MAX_BYTES (1u << 20) /* of one event */
#define OTHER_MAX      4096 /* of an answer that is no stream */
#define LIST_MAX       (1u << 20) /* of /v1/models */
#define BODY_EXTRA     768

struct http_stream {
	struct bench_stream base;
	const struct bench_stream_handler *h;
	void *ctx;
	CURL *easy;
	bool busy;
	/* of the running request */
	char *line;
	size_t line_len, line_cap;
	bool skip; /* the rest of a line that is too long */
	char other[OTHER_MAX]; /* what is not an event: an error's body */
	size_t other_len;
	char complaint[256]; /* an error inside the stream; "" none */
	bool finished; /* a finish_reason or [DONE] has come */
	struct bench_end end;
};

struct http_target {
	struct bench_target base;
	struct bench_http_opts o;
	char *endpoint;
	struct curl_slist *headers;
	CURLM *multi;
};

static int body(struct bench_target *bt, struct bench_body *b, const int32_t *ids, size_t n,
		int max_tokens, struct err *e)
{
	const struct http_target *t = (const struct http_target *)bt;
	json_t *name = json_string(bt->facts.model);
	char *model = name ? json_dumps(name, JSON_ENCODE_ANY) : NULL, *p;

	json_decref(name);
	p = b->bytes = model ? malloc(12 * n + strlen(model) + BODY_EXTRA) : NULL;
	if (!p) {
		free(model);
		return err_set(e, -ENOMEM, "request: no memory for %zu tokens", n);
	}
	p += sprintf(p, "{\"model\":%s,\"prompt\":", model);
	free(model);
	p = bench_print_ids(p, ids, n);
	/* Two servers, two names for the same wish. */
	p += sprintf(p,
		     ",\"max_tokens\":%d,\"ignore_eos\":true,\"temperature\":0,\"stream\":true,"
		     "\"stream_options\":{\"include_usage\":true}%s}",
		     max_tokens,
		     t->o.want_ids ? ",\"return_token_ids\":true,\"return_tokens\":true" : "");
	b->len = (size_t)(p - b->bytes);
	return 0;
}

/* ---- the stream --------------------------------------------------------------------------------- */

static int integer_or(const json_t *o, const char *key, int other)
{
	const json_t *v = json_object_get(o, key);

	return json_is_integer(v) ? (int)json_integer_value(v) : other;
}

static void take_usage(struct http_stream *s, const json_t *o)
{
	const json_t *u = json_object_get(o, "usage"), *timings = json_object_get(o, "timings");
	const json_t *details = json_object_get(u, "prompt_tokens_details");

	s->end.prompt_tokens = integer_or(u, "prompt_tokens", s->end.prompt_tokens);
	s->end.tokens = integer_or(u, "completion_tokens", s->end.tokens);
	s->end.cached_tokens = integer_or(timings, "cache_n", s->end.cached_tokens);
	s->end.cached_tokens = integer_or(details, "cached_tokens", s->end.cached_tokens);
}

/* Token ids of a chunk, malloc'ed; NULL: none, or not well-formed. */
static int32_t *take_ids(const json_t *o, const json_t *choice, int *n)
{
	const json_t *a = json_object_get(choice, "token_ids"), *v;
	int32_t *ids;
	size_t i;

	if (!json_is_array(a))
		a = json_object_get(choice, "tokens");
	if (!json_is_array(a))
		a = json_object_get(o, "tokens");
	*n = json_is_array(a) && json_array_size(a) < LINE_MAX_BYTES ? (int)json_array_size(a) : 0;
	ids = *n ? calloc((size_t)*n, sizeof(*ids)) : NULL;
	for (i = 0; ids && i < (size_t)*n; i++) {
		v = json_array_get(a, i);
		if (!json_is_integer(v) || json_integer_value(v) < 0 ||
		    json_integer_value(v) > INT32_MAX) {
			free(ids);
			return NULL;
		}
		ids[i] = (int32_t)json_integer_value(v);
	}
	return ids;
}

static const char *message_of(const json_t *o)
{
	const json_t *err = json_object_get(o, "error");
	const char *m = json_string_value(json_object_get(err, "message"));

	m = m ? m : json_string_value(err);
	return m ? m : json_string_value(json_object_get(o, "message"));
}

/* llmdev-gateway's is that of the daemon behind it. */
static void take_fingerprint(struct bench_target *bt, const json_t *o)
{
	const char *text = json_string_value(json_object_get(o, "system_fingerprint"));

	if (text && !bt->facts.fingerprint && !strncmp(text, "llmdev_", 7))
		bt->facts.fingerprint = strtoull(text + 7, NULL, 16);
}

static void take_event(struct http_stream *s, const char *data, size_t len)
{
	uint64_t now = ctl_now_ns();
	const json_t *choice;
	const char *text;
	int32_t *ids;
	json_t *o;
	int n = 0;

	while (len && *data == ' ') {
		data++;
		len--;
	}
	if (len >= 6 && !memcmp(data, "[DONE]", 6)) {
		s->finished = true;
		return;
	}
	o = json_loadb(data, len, 0, NULL);
	if (json_object_get(o, "error") || !json_is_object(o)) {
		const char *m = message_of(o);

		snprintf(s->complaint, sizeof(s->complaint), "%s",
			 m ? m : "the stream holds an event that is no JSON object");
		json_decref(o);
		return;
	}
	choice = json_array_get(json_object_get(o, "choices"), 0);
	text = json_string_value(json_object_get(choice, "text"));
	ids = take_ids(o, choice, &n);
	/* The last chunk has a reason and, with most servers, no token. */
	if (choice && (n || (text && *text)))
		s->h->tokens(s->ctx, ids, n ? n : 1, now);
	if (json_is_string(json_object_get(choice, "finish_reason")))
		s->finished = true;
	free(ids);
	take_usage(s, o);
	take_fingerprint(s->base.target, o);
	json_decref(o);
}

static void take_line(struct http_stream *s)
{
	size_t n = s->line_len;

	while (n && (s->line[n - 1] == '\r' || s->line[n - 1] == '\n'))
		n--;
	if (n >= 5 && !memcmp(s->line, "data:", 5)) {
		take_event(s, s->line + 5, n - 5);
	} else if (n >= 6 && !memcmp(s->line, "error:", 6)) {
		take_event(s, s->line + 6, n - 6);
	} else if (n && s->line[0] != ':' && s->other_len + n + 1 < OTHER_MAX) {
		memcpy(s->other + s->other_len, s->line, n);
		s->other_len += n;
		s->other[s->other_len++] = '\n';
	}
	s->line_len = 0;
}

static size_t on_data(char *bytes, size_t one, size_t n, void *ctx)
{
	struct http_stream *s = ctx;

	for (size_t i = 0; i < n;) {
		const char *nl = memchr(bytes + i, '\n', n - i);
		size_t part = nl ? (size_t)(nl - bytes) - i + 1 : n - i;

		if (s->line_len + part > LINE_MAX_BYTES) {
			snprintf(s->complaint, sizeof(s->complaint),
				 "the stream holds a line of more than %u bytes", LINE_MAX_BYTES);
			return 0; /* ends the transfer */
		}
		if (s->line_len + part > s->line_cap) {
			size_t cap = 2 * (s->line_len + part);
			char *p = realloc(s->line, cap);

			if (!p)
				return 0;
			s->line = p;
			s->line_cap = cap;
		}
		memcpy(s->line + s->line_len, bytes + i, part);
		s->line_len += part;
		i += part;
		if (nl)
			take_line(s);
	}
	return n;
}

/* ---- requests ----------------------------------------------------------------------------------- */

static int open_stream(struct bench_target *bt, struct bench_stream **out, int64_t number,
		       const struct bench_stream_handler *h, void *ctx, struct err *e)
{
	const struct http_target *t = (const struct http_target *)bt;
	struct http_stream *s = calloc(1, sizeof(*s));

	if (s)
		s->easy = curl_easy_init();
	if (!s || !s->easy) {
		free(s);
		return err_set(e, -ENOMEM, "stream: no memory");
	}
	s->base.target = bt;
	s->h = h;
	s->ctx = ctx;
	curl_easy_setopt(s->easy, CURLOPT_URL, t->endpoint);
	curl_easy_setopt(s->easy, CURLOPT_HTTPHEADER, t->headers);
	curl_easy_setopt(s->easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(s->easy, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(s->easy, CURLOPT_TCP_NODELAY, 1L);
	curl_easy_setopt(s->easy, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(s->easy, CURLOPT_WRITEDATA, s);
	curl_easy_setopt(s->easy, CURLOPT_PRIVATE, s);
	*out = &s->base;
	return 0;
}

static int submit(struct bench_stream *bs, const struct bench_body *b, struct err *e)
{
	struct http_stream *s = (struct http_stream *)bs;
	struct http_target *t = (struct http_target *)bs->target;

	s->line_len = s->other_len = 0;
	s->complaint[0] = '\0';
	s->finished = false;
	s->end = (struct bench_end){.prompt_tokens = -1, .cached_tokens = -1, .tokens = -1};
	curl_easy_setopt(s->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)b->len);
	curl_easy_setopt(s->easy, CURLOPT_POSTFIELDS, b->bytes);
	if (curl_multi_add_handle(t->multi, s->easy))
		return err_set(e, -ENOMEM, "stream: libcurl does not take it");
	s->busy = true;
	return 0;
}

static void close_stream(struct bench_stream *bs)
{
	struct http_stream *s = (struct http_stream *)bs;

	if (!s)
		return;
	if (s->busy)
		curl_multi_remove_handle(((struct http_target *)bs->target)->multi, s->easy);
	curl_easy_cleanup(s->easy);
	free(s->line);
	free(s);
}

static void finish(struct http_stream *s, CURLcode code)
{
	const char *m = NULL;
	char sentence[400];
	json_t *o = NULL;
	long status = 0;

	curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status != 200 && s->line_len)
		take_line(s); /* an error's body need not end its line */
	s->other[s->other_len] = '\0';
	if (code != CURLE_OK && !s->complaint[0]) {
		bool refused = code == CURLE_COULDNT_CONNECT;

		snprintf(s->end.kind, sizeof(s->end.kind), "%s",
			 refused			    ? "ECONNREFUSED"
			 : code == CURLE_OPERATION_TIMEDOUT ? "timeout"
							    : "connection");
		snprintf(sentence, sizeof(sentence), "%s", curl_easy_strerror(code));
	} else if (status != 200) {
		o = json_loads(s->other, 0, NULL);
		m = message_of(o);
		snprintf(s->end.kind, sizeof(s->end.kind), "HTTP %ld", status);
		snprintf(sentence, sizeof(sentence), "%.300s", m ? m : s->other);
	} else if (s->complaint[0]) {
		snprintf(s->end.kind, sizeof(s->end.kind), "stream");
		snprintf(sentence, sizeof(sentence), "%s", s->complaint);
	} else if (!s->finished) {
		snprintf(s->end.kind, sizeof(s->end.kind), "stream");
		snprintf(sentence, sizeof(sentence), "the stream ended without a finish_reason");
	} else {
		s->end.ok = true;
	}
	for (char *p = sentence; !s->end.ok && *p; p++)
		*p = *p == '\n' || *p == '\r' || *p == '\t' ? ' ' : *p;
	s->end.sentence = s->end.ok ? NULL : sentence;
	s->busy = false;
	s->h->end(s->ctx, &s->end, ctl_now_ns());
	json_decref(o);
}

static int wait_target(struct bench_target *bt, int64_t timeout_ns, struct err *e)
{
	struct http_target *t = (struct http_target *)bt;
	CURLMsg *m;
	int running, left;

	/* Whole milliseconds, and not late: an arrival is waited for in a last spin of under 1 ms. */
	if (curl_multi_perform(t->multi, &running) ||
	    curl_multi_poll(t->multi, NULL, 0, (int)(timeout_ns / 1000000), NULL) ||
	    curl_multi_perform(t->multi, &running))
		return err_set(e, -EIO, "libcurl: waiting failed");
	while ((m = curl_multi_info_read(t->multi, &left))) {
		struct http_stream *s;
		CURLcode code = m->data.result;

		if (m->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&s);
		curl_multi_remove_handle(t->multi, s->easy);
		finish(s, code);
	}
	return 0;
}

static void destroy(struct bench_target *bt)
{
	struct http_target *t = (struct http_target *)bt;

	curl_multi_cleanup(t->multi);
	curl_slist_free_all(t->headers);
	free(t->endpoint);
	free(t);
	curl_global_cleanup();
}

static const struct bench_target_ops ops = {
	.body = body,
	.open = open_stream,
	.submit = submit,
	.close = close_stream,
	.wait = wait_target,
	.destroy = destroy,
};

/* ---- the server --------------------------------------------------------------------------------- */

struct answer {
	char *bytes;
	size_t len;
};

static size_t on_answer(char *bytes, size_t one, size_t n, void *ctx)
{
	struct answer *a = ctx;
	char *p = a->len + n <= LIST_MAX ? realloc(a->bytes, a->len + n + 1) : NULL;

	if (!p)
		return 0;
	memcpy(p + a->len, bytes, n);
	a->bytes = p;
	a->len += n;
	p[a->len] = '\0';
	return n;
}

/* What the list says of the model that is measured: the context as vLLM and we tell it. */
static int context_of(const json_t *models, const char *name)
{
	const json_t *model;
	size_t i;

	json_array_foreach (models, i, model) {
		const char *id = json_string_value(json_object_get(model, "id"));

		if (id && !strcmp(id, name))
			return integer_or(model, "max_model_len", 0);
	}
	return 0;
}

/* Asks for the list of models: tells whether anybody is there, and the first one's name. */
static int look(struct http_target *t, const char *base, struct err *e)
{
	struct answer a = {0};
	CURL *c = curl_easy_init();
	const char *id = NULL;
	CURLcode code;
	char *url;
	json_t *o;
	int rc = 0;

	if (!c || asprintf(&url, "%s/v1/models", base) < 0) {
		curl_easy_cleanup(c);
		return err_set(e, -ENOMEM, "target: no memory");
	}
	curl_easy_setopt(c, CURLOPT_URL, url);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, t->headers);
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, 10000L);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_answer);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, &a);
	code = curl_easy_perform(c);
	o = a.bytes ? json_loadb(a.bytes, a.len, 0, NULL) : NULL;
	id = json_string_value(
		json_object_get(json_array_get(json_object_get(o, "data"), 0), "id"));
	if (code != CURLE_OK)
		rc = err_set(e, code == CURLE_COULDNT_CONNECT ? -ECONNREFUSED : -EIO, "%s: %s", url,
			     curl_easy_strerror(code));
	else if (!t->o.model && !id)
		rc = err_set(e, -EINVAL, "%s: lists no model: name one with --model", url);
	else
		snprintf(t->base.facts.model, sizeof(t->base.facts.model), "%s",
			 t->o.model ? t->o.model : id);
	if (!rc)
		t->base.facts.context = context_of(json_object_get(o, "data"), t->base.facts.model);
	json_decref(o);
	free(a.bytes);
	free(url);
	curl_easy_cleanup(c);
	return rc;
}

static bool add_header(struct http_target *t, const char *line)
{
	struct curl_slist *l = curl_slist_append(t->headers, line);

	if (l)
		t->headers = l;
	return l != NULL;
}

int bench_http_target(struct bench_target **out, const struct bench_http_opts *o, struct err *e)
{
	struct http_target *t = calloc(1, sizeof(*t));
	char *base = strdup(o->url), *auth = NULL;
	size_t n = base ? strlen(base) : 0;
	bool ok;
	int rc;

	if (curl_global_init(CURL_GLOBAL_DEFAULT) || !t || !base) {
		free(t);
		free(base);
		return err_set(e, -ENOMEM, "target: no memory");
	}
	while (n && base[n - 1] == '/')
		base[--n] = '\0';
	if (n > 3 && !strcmp(base + n - 3, "/v1"))
		base[n -= 3] = '\0';
	t->base.ops = &ops;
	t->o = *o;
	snprintf(t->base.facts.where, sizeof(t->base.facts.where), "%s", base);
	/* No waiting for "100 Continue" before a long prompt is sent. */
	ok = add_header(t, "Content-Type: application/json") && add_header(t, "Expect:") &&
	     asprintf(&t->endpoint, "%s/v1/completions", base) > 0;
	if (ok && o->key)
		ok = asprintf(&auth, "Authorization: Bearer %s", o->key) > 0 && add_header(t, auth);
	t->multi = ok ? curl_multi_init() : NULL;
	if (t->multi)
		curl_multi_setopt(t->multi, CURLMOPT_MAXCONNECTS, 1024L);
	rc = t->multi ? look(t, base, e) : err_set(e, -ENOMEM, "target: no memory");
	free(auth);
	free(base);
	if (rc)
		destroy(&t->base);
	else
		*out = &t->base;
	return rc;
}

#endif
