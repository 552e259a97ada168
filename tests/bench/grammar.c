// SPDX-License-Identifier: MIT
/*
 * Constrained output over a real vocabulary: documents are accepted token by token, and every mask
 * and every accept is timed (processor time), with nothing kept from before ("first") and again.
 *   build/bench/grammar TOKENIZER.json
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "text/grammar/grammar.h"

static const char person[] =
	"{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":"
	"\"integer\",\"minimum\":0,\"maximum\":150},\"email\":{\"type\":\"string\",\"format\":"
	"\"email\"},\"role\":{\"enum\":[\"admin\",\"editor\",\"viewer\"]},\"tags\":{\"type\":"
	"\"array\",\"items\":{\"type\":\"string\",\"maxLength\":40},\"maxItems\":8},\"address\":{"
	"\"type\":\"object\",\"properties\":{\"street\":{\"type\":\"string\",\"maxLength\":200},"
	"\"zip\":{\"type\":\"string\",\"pattern\":\"^[0-9]{5}$\"},\"country\":{\"type\":\"string\","
	"\"minLength\":2,\"maxLength\":2}},\"required\":[\"street\",\"zip\"],"
	"\"additionalProperties\":false},\"biography\":{\"type\":\"string\",\"maxLength\":5000}},"
	"\"required\":[\"name\",\"age\",\"role\"],\"additionalProperties\":false}";

static const char person_doc[] =
	"{\"name\": \"Ada Lovelace\", \"age\": 36, \"email\": \"ada@analytical.org\", \"role\": "
	"\"admin\", \"tags\": [\"mathematics\", \"first programmer\"], \"address\": {\"street\": "
	"\"12 St James's Square, London\", \"zip\": \"12345\"}, \"biography\": \"Augusta Ada King, "
	"Countess of Lovelace, was an English mathematician and writer, known for her work on "
	"Charles Babbage's proposed mechanical general-purpose computer. She was the first to "
	"recognise that the machine had applications beyond pure calculation \\u2014 and published "
	"the first algorithm for it. "
	"\xe5\xa5\xb9\xe6\x98\xaf\xe8\x8b\xb1\xe5\x9b\xbd\xe4\xba\xba.\"}";

static const char nested_doc[] =
	"{\n  \"list\": [1, 2.5, -3e2, true, null],\n  \"map\": {\"a\": {\"b\": {\"c\": [\"x\", "
	"{\"deep\": \"value with several words\"}]}}},\n  \"text\": \"line one\\nline two with a "
	"\\\"quote\\\" and <b>tags</b>\"\n}";

struct times {
	double *us;
	size_t n;
};

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_value(const void *x, const void *y)
{
	const double *a = x, *b = y;

	return *a < *b ? -1 : *a > *b;
}

static void print_times(const char *what, struct times *t)
{
	double sum = 0;

	for (size_t i = 0; i < t->n; i++)
		sum += t->us[i];
	qsort(t->us, t->n, sizeof(*t->us), by_value);
	printf("    %-14s mean %8.1f  p50 %8.1f  p99 %8.1f  max %8.1f us\n", what,
	       sum / (double)t->n, t->us[t->n / 2], t->us[t->n * 99 / 100], t->us[t->n - 1]);
	t->n = 0;
}

static bool run(const struct tokenizer *t, struct grammar_vocab *v, const struct grammar *g,
		const char *doc, const char *what)
{
	struct ids ids = {0};
	struct times mask = {0}, accept = {0};
	struct matcher *m;
	struct err e;
	char name[32];
	bool ok;

	if (tokenizer_encode(t, doc, strlen(doc), 0, &ids, &e) || matcher_open(&m, g, v, &e)) {
		fprintf(stderr, "grammar: %s\n", e.msg);
		return false;
	}
	mask.us = calloc(ids.n, sizeof(double));
	accept.us = calloc(ids.n, sizeof(double));
	ok = mask.us && accept.us;
	for (size_t i = 0; i < ids.n && ok; i++) {
		double t0 = now_us(), t1;
		const uint64_t *bits = matcher_mask(m);

		t1 = now_us();
		mask.us[mask.n++] = t1 - t0;
		ok = bits && bits[ids.v[i] >> 6] >> (ids.v[i] & 63) & 1 &&
		     !matcher_accept(m, ids.v[i]);
		accept.us[accept.n++] = now_us() - t1;
		if (!ok)
			fprintf(stderr, "grammar: token %zu of the document is not allowed\n", i);
	}
	if (ok) {
		printf("  %s, %zu tokens\n", what, ids.n);
		snprintf(name, sizeof(name), "mask");
		print_times(name, &mask);
		print_times("accept", &accept);
	}
	free(mask.us);
	free(accept.us);
	matcher_close(m);
	ids_free(&ids);
	return ok;
}

static bool bench(const struct tokenizer *t, const char *name, const char *schema, const char *doc)
{
	int32_t eos[8];
	int n_eos = tokenizer_eos(t, eos, 8);
	json_t *j = schema ? json_loads(schema, 0, NULL) : NULL;
	struct grammar_vocab *v;
	struct grammar *g;
	struct err e;
	double t0 = now_us(), t1;
	bool ok;

	if (schema ? grammar_json_schema(&g, j, &e) : grammar_json_object(&g, &e)) {
		fprintf(stderr, "grammar: %s\n", e.msg);
		return false;
	}
	t1 = now_us();
	if (grammar_vocab_open(&v, t, tokenizer_n_vocab(t), eos, n_eos, 0, &e)) {
		fprintf(stderr, "grammar: %s\n", e.msg);
		return false;
	}
	printf("%s: compiled in %.1f us; vocabulary of %d opened in %.1f ms\n", name, t1 - t0,
	       tokenizer_n_vocab(t), (now_us() - t1) / 1e3);
	ok = run(t, v, g, doc, "first") && run(t, v, g, doc, "again");
	grammar_free(g);
	grammar_vocab_close(v);
	json_decref(j);
	return ok;
}

int main(int argc, char **argv)
{
	struct tokenizer *t;
	struct err e;
	bool ok;

	if (argc != 2) {
		fprintf(stderr, "usage: %s TOKENIZER.json\n", argv[0]);
		return 2;
	}
	if (tokenizer_open_hf(&t, argv[1], &e)) {
		fprintf(stderr, "grammar: %s\n", e.msg);
		return 1;
	}
	ok = bench(t, "JSON schema", person, person_doc) &&
	     bench(t, "json_object", NULL, nested_doc);
	tokenizer_close(t);
	return !ok;
}
