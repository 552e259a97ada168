// SPDX-License-Identifier: MIT
/* Constraints of answers (constraint.h). Owns the cache's grammars and each answer's matcher. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fnv.h"
#include "llmdevd/constraint.h"

#define CACHE_ENTRIES 64

void constraint_spec_free(struct constraint_spec *s)
{
	json_decref(s->json);
	free(s->only);
	memset(s, 0, sizeof(*s));
}

/* ---- compiled grammars ---------------------------------------------------------------------------- */

struct grammar_entry {
	char *key;
	struct grammar *grammar;
	int held;
	uint64_t used; /* when it was last asked for */
};

struct grammar_cache {
	const struct tokenizer *t;
	int n_vocab, n_eos;
	int32_t *eos;
	struct grammar_vocab *vocab; /* NULL: not wanted yet */
	struct grammar_entry *entry[CACHE_ENTRIES];
	uint64_t clock;
};

int grammar_cache_open(struct grammar_cache **out, const struct tokenizer *t, int n_vocab,
		       const int32_t *eos, int n_eos, struct err *e)
{
	struct grammar_cache *c = calloc(1, sizeof(*c));

	if (c)
		c->eos = calloc((size_t)n_eos + 1, sizeof(*c->eos));
	if (!c || !c->eos) {
		free(c);
		return err_set(e, -ENOMEM, "grammars: no memory");
	}
	if (n_eos)
		memcpy(c->eos, eos, (size_t)n_eos * sizeof(*eos));
	c->t = t;
	c->n_vocab = n_vocab;
	c->n_eos = n_eos;
	*out = c;
	return 0;
}

static void entry_free(struct grammar_entry *g)
{
	if (!g)
		return;
	grammar_free(g->grammar);
	free(g->key);
	free(g);
}

void grammar_cache_close(struct grammar_cache *c)
{
	if (!c)
		return;
	grammar_vocab_close(c->vocab);
	for (int i = 0; i < CACHE_ENTRIES; i++)
		entry_free(c->entry[i]);
	free(c->eos);
	free(c);
}

static char *key_of(const struct constraint_spec *s, enum output_tools format)
{
	char *json = s->json ? json_dumps(s->json, JSON_ENCODE_ANY | JSON_COMPACT) : strdup("");
	char *key = NULL;

	if (json && asprintf(&key, "%d %d %d %s %s", s->kind, format, s->parallel,
			     s->only ? s->only : "", json) < 0)
		key = NULL;
	free(json);
	return key;
}

static int compile(struct grammar **out, const struct constraint_spec *s, enum output_tools format,
		   struct err *e)
{
	const char *text = json_string_value(s->json);
	size_t len = json_string_length(s->json);

	switch (s->kind) {
	case CONSTRAINT_OBJECT:
		return grammar_json_object(out, e);
	case CONSTRAINT_SCHEMA:
		return grammar_json_schema(out, s->json, e);
	case CONSTRAINT_REGEX:
		return grammar_regex(out, text, len, e);
	case CONSTRAINT_GBNF:
		return grammar_gbnf(out, text, len, e);
	case CONSTRAINT_CHOICE:
		return grammar_choice(out, s->json, e);
	case CONSTRAINT_TOOLS:
	case CONSTRAINT_STRICT:
		return grammar_tools(out, format, s->json, s->only, s->parallel, e);
	case CONSTRAINT_NONE:
		break;
	}
	return err_set(e, -EINVAL, "constraint: none");
}

/* Where the member's own message begins with a place inside of it, the two are one path. */
static int name_place(const struct constraint_spec *s, int rc, struct err *e)
{
	char inner[sizeof(e->msg)];

	memcpy(inner, e->msg, sizeof(inner));
	/* grammar_tools() names the tool itself. */
	if (!strncmp(inner, s->path, strlen(s->path)))
		return rc;
	return err_set(e, rc, *inner == '#' ? "%s%s" : "%s: %s", s->path, inner);
}

/* An entry's place in the cache: free, or the longest unused one's. -1: all are held. */
static int room(struct grammar_cache *c)
{
	int best = -1;

	for (int i = 0; i < CACHE_ENTRIES; i++) {
		if (!c->entry[i])
			return i;
		if (!c->entry[i]->held && (best < 0 || c->entry[i]->used < c->entry[best]->used))
			best = i;
	}
	if (best >= 0) {
		entry_free(c->entry[best]);
		c->entry[best] = NULL;
	}
	return best;
}

static int cache_get(struct grammar_cache *c, const struct constraint_spec *s,
		     enum output_tools format, struct grammar_entry **out, struct err *e)
{
	char *key = key_of(s, format);
	struct grammar_entry *g;
	int rc, at;

	if (!key)
		return err_set(e, -ENOMEM, "%s: no memory", s->path);
	for (int i = 0; i < CACHE_ENTRIES; i++) {
		g = c->entry[i];
		if (g && !strcmp(g->key, key)) {
			free(key);
			g->held++;
			g->used = ++c->clock;
			*out = g;
			return 0;
		}
	}
	g = calloc(1, sizeof(*g));
	rc = g ? compile(&g->grammar, s, format, e) : err_set(e, -ENOMEM, "no memory");
	if (rc) {
		free(key);
		free(g);
		return name_place(s, rc, e);
	}
	g->key = key;
	g->held = 1;
	g->used = ++c->clock;
	at = room(c);
	if (at >= 0)
		c->entry[at] = g;
	else
		g->used = 0; /* not in the cache: goes with its answer */
	*out = g;
	return 0;
}

static void cache_put(struct grammar_entry *g)
{
	if (g && !--g->held && !g->used)
		entry_free(g);
}

static int need_vocab(struct grammar_cache *c, struct err *e)
{
	if (c->vocab)
		return 0;
	if (!c->t)
		return err_set(e, -EOPNOTSUPP, "the model has no tokenizer");
	return grammar_vocab_open(&c->vocab, c->t, c->n_vocab, c->eos, c->n_eos, 0, e);
}

/* ---- one answer ----------------------------------------------------------------------------------- */

/* Appends the ids of a marker; false: they do not fit. */
static bool marker_ids(const struct tokenizer *t, const char *text, int32_t *out, int max, int *n)
{
	struct ids ids = {0};
	struct err e;
	bool ok;

	*n = 0;
	if (!text)
		return false;
	ok = !tokenizer_encode(t, text, strlen(text), TOK_SPECIAL, &ids, &e) && ids.n &&
	     ids.n <= (size_t)max;
	if (ok) {
		memcpy(out, ids.v, ids.n * sizeof(*out));
		*n = (int)ids.n;
	}
	ids_free(&ids);
	return ok;
}

/* What a call begins with, where that is one constant text. */
static const char *call_marker(enum output_tools t)
{
	switch (t) {
	case OUTPUT_TOOLS_HERMES:
	case OUTPUT_TOOLS_QWEN_XML:
		return "<tool_call>";
	case OUTPUT_TOOLS_GEMMA4:
		return "<|tool_call>";
	case OUTPUT_TOOLS_MISTRAL:
		return "[TOOL_CALLS]";
	case OUTPUT_TOOLS_LLAMA3:
		return "<|python_tag|>";
	default:
		return NULL;
	}
}

static int32_t reasoning_opener(const struct tokenizer *t, enum output_reasoning r)
{
	switch (r) {
	case OUTPUT_REASONING_THINK:
		return tokenizer_find(t, "<think>");
	case OUTPUT_REASONING_GEMMA4:
		return tokenizer_find(t, "<|channel>");
	case OUTPUT_REASONING_MISTRAL:
		return tokenizer_find(t, "[THINK]");
	default:
		return -1;
	}
}

static int open_grammar(struct constraint *c, const struct constraint_opts *o, struct err *e)
{
	const struct constraint_spec *s = o->spec;
	int rc;

	if (s->kind == CONSTRAINT_NONE)
		return 0;
	rc = cache_get(c->cache, s, o->format.tools, &c->entry, e);
	if (rc)
		return rc;
	c->active = true;
	c->calls = s->kind == CONSTRAINT_TOOLS;
	if (need_vocab(c->cache, e))
		return err_prefix(e, -EOPNOTSUPP, "%s", s->path);
	if (o->thinking)
		c->opener = reasoning_opener(c->cache->t, o->format.reasoning);
	if (s->kind == CONSTRAINT_STRICT) {
		marker_ids(c->cache->t, call_marker(o->format.tools), c->marker,
			   CONSTRAINT_MARKER_MAX, &c->n_marker);
		return 0;
	}
	rc = matcher_open(&c->matcher, c->entry->grammar, c->cache->vocab, e);
	return rc ? name_place(s, rc, e) : 0;
}

int constraint_open(struct constraint *c, struct grammar_cache *cache,
		    const struct constraint_opts *o, struct err *e)
{
	int rc;

	memset(c, 0, sizeof(*c));
	c->cache = cache;
	c->format = o->format;
	c->opener = -1;
	c->one_call = o->one_call;
	c->budget = -1;
	c->n_words = (cache->n_vocab + 63) / 64;
	if (o->budget >= 0 && cache->t &&
	    marker_ids(cache->t, output_reasoning_close(o->format.reasoning), c->close,
		       CONSTRAINT_CLOSE_MAX, &c->n_close))
		c->budget = o->budget;
	rc = open_grammar(c, o, e);
	c->active |= c->one_call || c->budget >= 0;
	if (!rc && c->active) {
		c->words = calloc((size_t)c->n_words, sizeof(*c->words));
		if (!c->words)
			rc = err_set(e, -ENOMEM, "request: no memory");
	}
	if (rc)
		constraint_close(c);
	return rc;
}

void constraint_close(struct constraint *c)
{
	matcher_close(c->matcher);
	cache_put(c->entry);
	free(c->words);
	memset(c, 0, sizeof(*c));
}

/* The budget is used up: from here on the block is closed. The same asked once or twice. */
static bool closing(struct constraint *c, const struct answer *a)
{
	if (!c->closing && c->budget >= 0 && c->thought >= c->budget && answer_in_reasoning(a)) {
		c->closing = true;
		c->n_closed = 0;
	}
	return c->closing;
}

/* Nothing was written yet that tells whether the answer begins with reasoning. */
static bool undecided(const struct constraint *c, const struct answer *a)
{
	return !c->fed && !answer_past_reasoning(a) && !answer_in_reasoning(a);
}

/* The grammar has the word. */
static bool content_due(const struct constraint *c, const struct answer *a)
{
	if (c->fed || c->format.reasoning == OUTPUT_REASONING_NONE)
		return true;
	/* Harmony's headers come before everything: calls begin with one, content after one. */
	if (c->format.reasoning == OUTPUT_REASONING_HARMONY)
		return c->calls ? answer_past_reasoning(a) : answer_in_content(a);
	return answer_past_reasoning(a) || undecided(c, a);
}

static const uint64_t *only(struct constraint *c, int32_t id)
{
	memset(c->words, 0, (size_t)c->n_words * sizeof(*c->words));
	if (id >= 0)
		c->words[id / 64] |= 1ull << (id % 64);
	return c->words;
}

const uint64_t *constraint_mask(struct constraint *c, const struct answer *a)
{
	const uint64_t *m;

	if (!c->active)
		return NULL;
	if (closing(c, a))
		return only(c, c->close[c->n_closed]);
	if (c->one_call && a->n_calls)
		return only(c, -1);
	if (!c->matcher || !content_due(c, a))
		return NULL;
	m = matcher_mask(c->matcher);
	if (!m || c->opener < 0 || !undecided(c, a))
		return m;
	memcpy(c->words, m, (size_t)c->n_words * sizeof(*m));
	c->words[c->opener / 64] |= 1ull << (c->opener % 64);
	return c->words;
}

static void drop_matcher(struct constraint *c)
{
	matcher_close(c->matcher);
	c->matcher = NULL;
}

/* A call that nobody asked for has begun, or goes on, or is over. */
static void strict_id(struct constraint *c, const struct answer *a, int32_t id)
{
	struct err e;

	if (c->matcher) {
		if (matcher_accept(c->matcher, id) || matcher_may_end(c->matcher))
			drop_matcher(c);
		return;
	}
	if (!c->n_marker || answer_in_reasoning(a))
		return;
	c->at_marker = id == c->marker[c->at_marker] ? c->at_marker + 1 : id == c->marker[0];
	if (c->at_marker < c->n_marker)
		return;
	c->at_marker = 0;
	if (matcher_open(&c->matcher, c->entry->grammar, c->cache->vocab, &e)) {
		c->matcher = NULL;
		return;
	}
	for (int i = 0; i < c->n_marker && c->matcher; i++) {
		if (matcher_accept(c->matcher, c->marker[i]))
			drop_matcher(c);
	}
	/* From now on the grammar decides, whatever the parser makes of it. */
	c->fed += c->matcher != NULL;
}

void constraint_id(struct constraint *c, const struct answer *a, int32_t id)
{
	if (!c->active)
		return;
	if (closing(c, a)) {
		if (++c->n_closed == c->n_close) {
			c->closing = false;
			c->budget = -1;
		}
		return;
	}
	if (answer_in_reasoning(a))
		c->thought++;
	if (c->n_marker) {
		strict_id(c, a, id);
		return;
	}
	if (!c->matcher || !content_due(c, a) || (id == c->opener && undecided(c, a)))
		return;
	/* Refused: the id that ended the answer, or one that was drawn before the grammar began. */
	if (matcher_accept(c->matcher, id))
		drop_matcher(c);
	else
		c->fed++;
}
