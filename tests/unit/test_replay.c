// SPDX-License-Identifier: MIT
/*
 * Replay: a request that is cut anywhere and goes on in a second engine from its posted ids gives
 * what it would have given undisturbed: ids, logits, text, finish reason, usage. And the fold under
 * it (detokeniser, stop strings) against a naive one.
 *
 * The witness backend (witness.h) speaks with the built-in model's tokenizer; it leans to text whose
 * characters take several tokens each, and ends now and then.
 *
 *	LLM_SEEDS=N  N times as many cases as usual (may be a fraction)
 *	LLM_SEED=N   group N of cases only
 */
#include <errno.h>
#include <stdlib.h>

#include "tests/tap.h"
#include "tests/unit/requests.h"
#include "tests/unit/tiny_model.h"
#include "tests/unit/witness.h"

#define MODEL	  "tools/demo/model" /* whose tokenizer */
#define CTX	  192
#define VOCAB	  2048
#define MAX_TOK	  44
#define STOPS	  4
#define STOP_SIZE 16

static const char liked[] =
	"Gr\u00fc\u00dfe aus \u6f22\u5b57, na\u00efve caf\u00e9 \U0001f600\U0001f9ea "
	"\u03b1\u03b2\u03b3 END of it. \u00bfqu\u00e9? \U0001f469\u200d\U0001f52c\n";

static struct tiny_model tiny;

/* ---- what is asked ------------------------------------------------------------------------------- */

struct ask {
	int32_t prompt[96];
	int n_prompt, max_tokens;
	struct sampling sampling;
	char stop[STOPS][STOP_SIZE];
	const char *stops[STOPS];
	int n_stops;
};

static struct engine *open_engine(struct rng *r, bool split_classes)
{
	static const int chunks[] = {1, 7, 64, 256};
	struct engine_opts o = {.model = tiny.path,
				.kv_type = KV_F32,
				.ctx = CTX,
				.step_ms = 1000000};
	struct witness *w = witness_create(split_classes);
	struct engine *en = NULL;
	struct ids ids = {0};
	struct err e;

	w->taste.text_of_8 = 5;
	w->taste.eos = 2047;
	w->taste.eos_in = 60;
	o.chunk = chunks[rng_below(r, 4)];
	o.max_seqs = rng_range(r, 1, 16);
	o.kv_bytes = (size_t)(kv_pages_for(CTX) + rng_below(r, 12)) * TINY_PAGE_BYTES;
	if (engine_open_on(&en, &o, &w->backend, &e)) {
		printf("# %s\n", e.msg);
		return NULL;
	}
	w->kv = &en->kv;
	if (!tokenizer_encode(engine_tokenizer(en), liked, strlen(liked), 0, &ids, NULL))
		for (size_t i = 0; i < ids.n && i < WITNESS_MAX_FAVOUR; i++)
			w->taste.text[w->taste.n_text++] = ids.v[i];
	ids_free(&ids);
	return en;
}

static void on_event(void *ctx, struct request *r, const struct engine_event *ev)
{
	told_event(ctx, VOCAB, ev);
}

static struct request_params params(const struct ask *a, struct told *t)
{
	memset(t, 0, sizeof(*t));
	return (struct request_params){.prompt = a->prompt,
				       .n_prompt = a->n_prompt,
				       .max_tokens = a->max_tokens,
				       .n_logprobs = -1,
				       .sampling = a->sampling,
				       .stop = a->stops,
				       .n_stop = a->n_stops,
				       .on_event = on_event,
				       .ctx = t};
}

static bool drain(struct engine *en)
{
	int rc = 1;

	for (int i = 0; i < 100000 && rc > 0; i++)
		rc = engine_step(en, NULL);
	return !rc;
}

static void random_ask(struct rng *r, struct ask *a)
{
	struct sampling *s = &a->sampling;

	memset(a, 0, sizeof(*a));
	a->n_prompt = rng_range(r, 1, 96);
	for (int i = 0; i < a->n_prompt; i++)
		a->prompt[i] = rng_below(r, VOCAB);
	a->max_tokens = rng_range(r, 1, MAX_TOK);
	*s = (struct sampling){.repeat_penalty = 1, .top_p = 1, .seed = rng_next(r)};
	s->ignore_eos = rng_chance(r, 30);
	if (rng_chance(r, 80))
		s->temperature = 0.2f + 0.2f * rng_below(r, 15);
	if (rng_chance(r, 30))
		s->top_k = rng_range(r, 1, 300);
	if (rng_chance(r, 30))
		s->top_p = 0.3f + 0.07f * rng_below(r, 10);
	if (rng_chance(r, 30))
		s->min_p = 0.02f * rng_range(r, 1, 10);
	if (rng_chance(r, 30))
		s->repeat_penalty = 0.8f + 0.1f * rng_below(r, 20);
	if (rng_chance(r, 30))
		s->presence_penalty = 0.25f * rng_range(r, -4, 8);
	if (rng_chance(r, 30))
		s->frequency_penalty = 0.25f * rng_range(r, -4, 8);
}

/* Pieces of the text that comes without them, and some that only begin like one. */
static void random_stops(struct rng *r, struct ask *a, const char *text, int len)
{
	a->n_stops = rng_below(r, STOPS + 1);
	for (int i = 0; i < a->n_stops; i++) {
		int n = rng_range(r, 1, STOP_SIZE - 2);
		int at = len > 0 ? rng_below(r, len) : 0;

		n = n > len - at ? len - at : n;
		memcpy(a->stop[i], text + at, n);
		a->stop[i][n] = 0;
		if (!*a->stop[i]) /* nothing there, or a NUL */
			strcpy(a->stop[i], "END");
		else if (rng_chance(r, 60))
			strcat(a->stop[i], "~");
		a->stops[i] = a->stop[i];
	}
}

/* ---- the fold against a naive one ------------------------------------------------------------ */

/* Where the text of ids[0..n) ends by a stop string, or how much of it is certain. True: stopped. */
static bool naive(const struct ask *a, const char *text, size_t len, size_t *certain)
{
	size_t first = len, hold = 0;

	for (int i = 0; i < a->n_stops; i++)
		for (size_t at = 0; at + strlen(a->stops[i]) <= len && at < first; at++)
			if (!memcmp(text + at, a->stops[i], strlen(a->stops[i])))
				first = at;
	if (first < len) {
		*certain = first;
		return true;
	}
	for (int i = 0; i < a->n_stops; i++)
		for (size_t n = 1; n < strlen(a->stops[i]) && n <= len; n++)
			if (n > hold && !memcmp(text + len - n, a->stops[i], n))
				hold = n;
	*certain = len - hold;
	return false;
}

static bool fold_is_naive(struct rng *r, const struct tokenizer *t, const int32_t *like, int n_like)
{
	static char text[64 * DETOK_MAX], given[64 * DETOK_MAX];
	size_t len = 0, n_given = 0, certain = 0;
	struct detok d;
	struct fold f;
	struct ask a;
	int32_t id[48];
	bool stopped = false, ok = true;

	for (int i = 0; i < 48; i++)
		id[i] = rng_chance(r, 70) ? like[i % n_like] : rng_below(r, VOCAB);
	detok_init(&d, t, true);
	for (int i = 0; i < 48; i++)
		len += detok_push(&d, id[i], text + len, DETOK_MAX);
	random_stops(r, &a, text, (int)len);
	if (fold_init(&f, t, false, a.stops, a.n_stops, NULL))
		return false;
	detok_init(&d, t, true);
	len = 0;
	for (int i = 0; i < 48 && ok && !stopped; i++) {
		len += detok_push(&d, id[i], text + len, DETOK_MAX);
		stopped = naive(&a, text, len, &certain);
		ok = fold_push(&f, id[i]) == stopped;
		memcpy(given + n_given, f.out, f.n_out);
		n_given += f.n_out;
		ok &= n_given == certain && f.bytes == certain && !memcmp(given, text, n_given);
	}
	if (!stopped) {
		len += detok_flush(&d, text + len, DETOK_MAX);
		fold_flush(&f);
		memcpy(given + n_given, f.out, f.n_out);
		n_given += f.n_out;
		ok &= n_given == len && f.bytes == len && !memcmp(given, text, len);
	}
	fold_free(&f);
	return ok;
}

static void test_fold(struct engine *en, int cases)
{
	const struct witness *w = (struct witness *)en->backend;
	int bad = 0;

	for (int i = 0; i < cases; i++) {
		struct rng r = {.x = i};

		if (!fold_is_naive(&r, engine_tokenizer(en), w->taste.text, w->taste.n_text) &&
		    !bad++)
			printf("# the first is case %d\n", i);
	}
	CHECK(!bad, "%d random folds give what a naive search of the whole text gives (%d do not)",
	      cases, bad);
}

/* ---- cut and continued ------------------------------------------------------------------------- */

static struct cuts {
	int all, inside_stop, inside_char, at_stop, at_eos, at_length, wrong;
} cuts;

/* What stands at the cut behind the first k ids. */
static void count_cut(const struct engine *en, const struct ask *a, const struct told *whole, int k)
{
	struct fold f;

	cuts.all++;
	if (fold_init(&f, engine_tokenizer(en), false, a->stops, a->n_stops, NULL))
		return;
	for (int i = 0; i < k; i++)
		fold_push(&f, whole->id[i]);
	cuts.inside_stop += f.n_held > 0;
	cuts.inside_char += f.detok.n_held > 0;
	fold_free(&f);
	if (k < whole->n)
		return;
	if (whole->finish == FINISH_LENGTH)
		cuts.at_length++;
	else if (whole->id[k - 1] >= 2045)
		cuts.at_eos++;
	else
		cuts.at_stop++;
}

static const char *compare(const struct told *whole, const struct told *rest, int k)
{
	int before = k ? whole->bytes[k - 1] : 0;

	if (rest->disorder)
		return rest->disorder;
	if (rest->ended != 1 || rest->end != ENGINE_DONE)
		return "it did not end once, and well";
	if (rest->n != whole->n - k || memcmp(rest->id, whole->id + k, rest->n * sizeof(*rest->id)))
		return "other ids";
	if (memcmp(rest->hash, whole->hash + k, rest->n * sizeof(*rest->hash)))
		return "other logits";
	if (rest->len != whole->len - before || memcmp(rest->text, whole->text + before, rest->len))
		return "other text";
	if (rest->n_replayed != k || rest->replayed_len != before ||
	    memcmp(rest->replayed_id, whole->id, k * sizeof(*whole->id)) ||
	    memcmp(rest->replayed_text, whole->text, before))
		return "other ids or text replayed";
	if (rest->finish != whole->finish)
		return "another finish reason";
	if (rest->prompt_tokens != whole->prompt_tokens ||
	    rest->completion_tokens != whole->completion_tokens)
		return "another usage";
	return NULL;
}

/* All cuts of one request at once, in an engine that has room for few of them. */
static const char *cut_everywhere(struct rng *r, struct engine *first, struct engine *second,
				  const struct ask *a)
{
	static struct told whole, rest[MAX_TOK + 1];
	struct request_params p = params(a, &whole);
	const char *why = NULL;

	if (engine_submit(first, &p, NULL, NULL) || !drain(first) || whole.end != ENGINE_DONE)
		return "the undisturbed run does not end";
	for (int k = 0; k <= whole.n; k++) {
		p = params(a, &rest[k]);
		p.posted = whole.id;
		p.n_posted = k;
		p.posted_bytes = k ? whole.bytes[k - 1] : 0;
		if (rng_chance(r, 30))
			p.posted_bytes = UINT64_MAX; /* not checked */
		p.principal = rng_below(r, 3);
		if (engine_submit(second, &p, NULL, NULL))
			return "the second engine refuses";
		count_cut(first, a, &whole, k);
		if (rng_chance(r, 50))
			engine_step(second, NULL);
	}
	if (!drain(second))
		return "the second engine does not come to an end";
	for (int k = 0; k <= whole.n && !why; k++) {
		why = compare(&whole, &rest[k], k);
		if (why)
			printf("# cut behind %d of %d ids:\n", k, whole.n);
	}
	return why;
}

/* A transcript that does not fit must end in an error, not in a continuation. */
static const char *cut_wrongly(struct rng *r, struct engine *first, struct engine *second,
			       const struct ask *a)
{
	static struct told whole, rest;
	struct request_params p = params(a, &whole);
	int32_t id[MAX_TOK + 2];
	int k;

	if (engine_submit(first, &p, NULL, NULL) || !drain(first) || whole.end != ENGINE_DONE)
		return "the undisturbed run does not end";
	p = params(a, &rest);
	k = rng_below(r, whole.n + 1);
	p.posted = id;
	p.n_posted = k;
	p.posted_bytes = k ? whole.bytes[k - 1] : 0;
	memcpy(id, whole.id, k * sizeof(*id));
	if (k == whole.n && whole.finish == FINISH_STOP && k < a->max_tokens && rng_chance(r, 50))
		id[p.n_posted++] = 5; /* an id after the end */
	else
		p.posted_bytes += !p.posted_bytes || rng_chance(r, 50) ? rng_range(r, 1, 9) : -1ull;
	if (engine_submit(second, &p, NULL, NULL) || !drain(second))
		return "the second engine refuses, or does not end";
	cuts.wrong++;
	if (rest.ended != 1 || rest.end != ENGINE_ERROR || rest.error != EILSEQ || rest.n ||
	    rest.len)
		return "a transcript that does not fit is not refused with EILSEQ";
	return NULL;
}

static const char *run_group(int group)
{
	struct rng r = {.x = (uint64_t)group * 1000003};
	bool split = group % 2; /* both compute alike, or neither is the other's continuation */
	struct engine *first = open_engine(&r, split), *second = open_engine(&r, split);
	const char *why = NULL;
	struct told *t = malloc(sizeof(*t));

	if (!first || !second || !t)
		return "the engines do not open";
	for (int i = 0; i < 8 && !why; i++) {
		struct request_params p;
		struct ask a;

		random_ask(&r, &a);
		p = params(&a, t);
		engine_submit(first, &p, NULL, NULL);
		drain(first);
		random_stops(&r, &a, t->text, t->len);
		why = cut_everywhere(&r, first, second, &a);
		if (!why)
			why = cut_wrongly(&r, first, second, &a);
	}
	if (!why && kv_available(&second->kv) != second->kv.n_pages)
		why = "pages did not come back";
	if (!why)
		why = ((struct witness *)first->backend)->complaint;
	if (!why)
		why = ((struct witness *)second->backend)->complaint;
	engine_close(first);
	engine_close(second);
	free(t);
	return why;
}

int main(void)
{
	const char *one = getenv("LLM_SEED"), *times = getenv("LLM_SEEDS");
	int groups = (int)(40 * (times ? atof(times) : SANITIZED ? 0.2 : 1)), bad = 0;
	struct rng r = {.x = 1};
	struct engine *en = NULL;

	if (tiny_model_make(&tiny, VOCAB, MODEL))
		en = open_engine(&r, false);
	if (!CHECK(en, "opens"))
		return tap_done();
	test_fold(en, one ? 1 : groups * 250);
	engine_close(en);
	for (int i = one ? atoi(one) : 0; i < (one ? atoi(one) + 1 : groups) && bad < 5; i++) {
		const char *why = run_group(i);

		if (why && ++bad)
			printf("# group %d: %s\n# again: LLM_SEED=%d "
			       "$LLMDEV_BUILD/tests/test_replay\n",
			       i, why, i);
	}
	CHECK(!bad, "%d cuts: each continues bit for bit as if nothing had been", cuts.all);
	CHECK(bad || one || cuts.wrong >= groups, "%d wrong transcripts: EILSEQ", cuts.wrong);
	CHECK(bad || one ||
		      (cuts.inside_stop && cuts.inside_char && cuts.at_stop && cuts.at_eos &&
		       cuts.at_length),
	      "of them inside a possible stop string %d, inside a character %d; at the end by a "
	      "stop string %d, by eos %d, by length %d",
	      cuts.inside_stop, cuts.inside_char, cuts.at_stop, cuts.at_eos, cuts.at_length);
	tiny_model_remove(&tiny);
	return tap_done();
}
