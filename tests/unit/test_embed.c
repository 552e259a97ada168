// SPDX-License-Identifier: MIT
/*
 * Embeddings: vectors against transformers' in float32 (tests/fixtures/embeddings, made by
 * tests/oracle/make_embedding_fixtures.py), bitwise the same whatever runs beside them, and what of a
 * checkpoint says how they are made.
 */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/engine_internal.h"
#include "tests/tap.h"

#define FIXTURES "tests/fixtures/embeddings/"
#define PROMPTS	 5
#define HIDDEN	 64

struct expected {
	int32_t id[PROMPTS][256];
	int n[PROMPTS];
	float vector[PROMPTS][HIDDEN];
};

struct got {
	float vector[HIDDEN];
	int n_vectors, ended, n_tokens, error, cached;
	enum engine_event_kind last;
};

static void on_event(void *ctx, struct request *r, const struct engine_event *ev)
{
	struct got *g = ctx;

	if (ev->kind == ENGINE_EMBEDDING) {
		g->n_vectors++;
		if (ev->n_vector == HIDDEN)
			memcpy(g->vector, ev->vector, sizeof(g->vector));
	}
	g->n_tokens += ev->kind == ENGINE_TOKEN;
	if (ev->kind == ENGINE_DONE || ev->kind == ENGINE_ERROR) {
		g->ended++;
		g->error = ev->error;
		g->cached = ev->cached_tokens;
	}
	g->last = ev->kind;
}

static void base64(const char *s, void *out, size_t max)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint32_t acc = 0;
	size_t n = 0;

	for (int bits = 0; s && *s && *s != '='; s++) {
		acc = acc << 6 | (uint32_t)(strchr(digits, *s) - digits);
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			if (n < max)
				((uint8_t *)out)[n++] = (uint8_t)(acc >> bits);
		}
	}
}

static bool read_expected(const char *path, struct expected *x)
{
	json_t *j = json_load_file(path, 0, NULL);
	const json_t *prompts = json_object_get(j, "prompts");
	const json_t *vectors = json_object_get(j, "vectors_f32_base64");
	bool ok = json_array_size(prompts) == PROMPTS && json_array_size(vectors) == PROMPTS;

	for (size_t p = 0; ok && p < PROMPTS; p++) {
		const json_t *ids = json_array_get(prompts, p);

		x->n[p] = (int)json_array_size(ids);
		for (int i = 0; i < x->n[p]; i++)
			x->id[p][i] = (int32_t)json_integer_value(json_array_get(ids, i));
		base64(json_string_value(json_array_get(vectors, p)), x->vector[p],
		       sizeof(x->vector[p]));
	}
	json_decref(j);
	return ok;
}

static struct request_params ask(const int32_t *id, int n, bool embed, struct got *g)
{
	memset(g, 0, sizeof(*g));
	return (struct request_params){.prompt = id,
				       .n_prompt = (size_t)n,
				       .embed = embed,
				       .max_tokens = embed ? 0 : 20,
				       .n_logprobs = -1,
				       .sampling = {.top_p = 1, .ignore_eos = true},
				       .on_event = on_event,
				       .ctx = g};
}

static void drain(struct engine *en)
{
	for (int i = 0; i < 10000 && engine_step(en, NULL) > 0; i++)
		;
}

static double error_of(const float *a, const float *b)
{
	double diff = 0, norm = 0;

	for (int i = 0; i < HIDDEN; i++) {
		diff += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
		norm += (double)b[i] * b[i];
	}
	return sqrt(diff / norm);
}

static const struct fixture {
	const char *model, *expect;
	enum engine_pooling pooling;
	bool normalise;
} fixtures[] = {
	{FIXTURES "qwen3-last", FIXTURES "qwen3-last/expect.json", POOLING_LAST, true},
	{FIXTURES "llama-mean", FIXTURES "llama-mean/expect.json", POOLING_MEAN, false},
	{FIXTURES "qwen3-mean.gguf", FIXTURES "qwen3-mean.expect.json", POOLING_MEAN, true},
};
#define FIXTURE_COUNT (sizeof(fixtures) / sizeof(fixtures[0]))

static const struct mode {
	const char *name, *backend;
	bool exact;
	double tolerance;
} modes[] = {
	{"ref", "ref", true, 1e-5},
	{"cpu --exact", "cpu", true, 1e-5},
	{"cpu", "cpu", false, 0.02},
};

/* Every prompt alone in an engine of its own. */
static bool lonely(const struct fixture *f, const struct mode *m, const struct expected *x,
		   struct got *out)
{
	struct engine_opts o = {.model = f->model,
				.backend = m->backend,
				.exact = m->exact,
				.kv_type = -1,
				.threads = 1,
				.ctx = 256,
				.prefix_bytes = -1,
				.max_seqs = 1};
	struct err e = {""};
	struct engine *en;

	if (!CHECK(!engine_open(&en, &o, &e), "%s opens %s", f->model, e.msg))
		return false;
	CHECK(engine_info(en)->pooling == f->pooling && engine_info(en)->normalise == f->normalise,
	      "%s: pooling and normalising as the checkpoint says", f->model);
	for (int p = 0; p < PROMPTS; p++) {
		struct request_params q = ask(x->id[p], x->n[p], true, &out[p]);

		engine_submit(en, &q, NULL, NULL);
		drain(en);
	}
	engine_close(en);
	return true;
}

static void test_against_transformers(const struct fixture *f, const struct mode *m,
				      const struct expected *x, const struct got *g)
{
	double worst = 0;
	bool once = true;

	for (int p = 0; p < PROMPTS; p++) {
		double error = error_of(g[p].vector, x->vector[p]);

		worst = error > worst || isnan(error) ? error : worst;
		once &= g[p].n_vectors == 1 && g[p].ended == 1 && !g[p].n_tokens && !g[p].error &&
			g[p].last == ENGINE_DONE;
	}
	CHECK(once, "%s, %s: one vector, then the end, and no token", f->model, m->name);
	CHECK(worst < m->tolerance, "%s, %s: as transformers: off by %.2g of the length at most",
	      f->model, m->name, worst);
}

/* Several at once, some of them twice, in small steps beside answers in the making. */
static void test_crowd(const struct fixture *f, const struct mode *m, const struct expected *x,
		       const struct got *want)
{
	enum { COPIES = 3 };
	struct engine_opts o = {.model = f->model,
				.backend = m->backend,
				.exact = m->exact,
				.kv_type = -1,
				.threads = 2,
				.chunk = 24,
				.ctx = 256,
				.max_seqs = 4};
	static struct got got[COPIES][PROMPTS], chat[COPIES];
	int same = 0, cached = 0, answered = 0;
	struct engine *en;
	struct err e = {""};

	REQUIRE(!engine_open(&en, &o, &e), "%s opens %s", f->model, e.msg);
	for (int c = 0; c < COPIES; c++) {
		struct request_params q = ask(x->id[3], 40, false, &chat[c]);

		engine_submit(en, &q, NULL, NULL);
		for (int p = PROMPTS - 1; p >= 0; p--) {
			q = ask(x->id[p], x->n[p], true, &got[c][p]);
			engine_submit(en, &q, NULL, NULL);
			engine_step(en, NULL);
		}
	}
	drain(en);
	for (int c = 0; c < COPIES; c++) {
		answered += chat[c].ended == 1 && chat[c].n_tokens == 20 && !chat[c].n_vectors;
		for (int p = 0; p < PROMPTS; p++) {
			same += got[c][p].n_vectors == 1 &&
				!memcmp(got[c][p].vector, want[p].vector, sizeof(want[p].vector));
			cached += got[c][p].cached;
		}
	}
	CHECK(same == COPIES * PROMPTS && answered == COPIES,
	      "%s, %s: %d of %d vectors in a crowd are those of lonely prompts, bit for bit",
	      f->model, m->name, same, COPIES * PROMPTS);
	CHECK(f->pooling == POOLING_MEAN ? !cached : cached > 0,
	      "%s, %s: %d tokens from the prefix cache, which has no hidden states to add up",
	      f->model, m->name, cached);
	engine_close(en);
}

/* An embedding loses its place and its pages to answers, and goes on. */
static void test_preempted(const struct fixture *f, const struct mode *m, const struct expected *x,
			   const struct got *want)
{
	const int p = PROMPTS - 1;
	struct engine_opts o = {.model = f->model,
				.backend = m->backend,
				.exact = m->exact,
				.kv_type = -1,
				.threads = 1,
				.chunk = 20,
				.ctx = 192,
				.prefix_bytes = -1,
				.max_seqs = 1};
	static struct got got, chat[3];
	struct engine_stats st;
	struct engine *en;
	struct err e = {""};
	struct request_params q;

	REQUIRE(!engine_open(&en, &o, &e), "%s opens %s", f->model, e.msg);
	o.kv_bytes = 3 * en->kv.page_bytes;
	engine_close(en);
	REQUIRE(!engine_open(&en, &o, &e), "%s opens with three pages %s", f->model, e.msg);
	q = ask(x->id[p], x->n[p], true, &got);
	q.priority = 19;
	engine_submit(en, &q, NULL, NULL);
	for (int i = 0; i < 3; i++) {
		for (int k = 0; k < 2 + i; k++)
			engine_step(en, NULL);
		q = ask(x->id[3] + i, 60, false, &chat[i]);
		q.max_tokens = i == 1 ? 3 : 80; /* three pages, or one */
		q.priority = -20;
		engine_submit(en, &q, NULL, NULL);
		while (!chat[i].ended && engine_step(en, NULL) > 0)
			;
	}
	drain(en);
	engine_stats(en, &st);
	CHECK(st.preempted >= 2 && st.recomputed_tokens > 0,
	      "%s, %s: preempted %llu times, %llu tokens are computed again", f->model, m->name,
	      (unsigned long long)st.preempted, (unsigned long long)st.recomputed_tokens);
	CHECK(got.n_vectors == 1 && got.ended == 1 &&
		      !memcmp(got.vector, want[p].vector, sizeof(got.vector)),
	      "%s, %s: and the vector is the same", f->model, m->name);
	engine_close(en);
}

static void test_edges(void)
{
	struct engine_opts o = {.model = FIXTURES "llama-mean",
				.backend = "ref",
				.kv_type = -1,
				.ctx = 128};
	static int32_t id[129];
	struct session *s = NULL;
	struct engine *en;
	struct err e = {""};
	struct request *r;
	struct request_params q;
	struct got g;

	REQUIRE(!engine_open(&en, &o, &e), "opens %s", e.msg);
	q = ask(id, 128, true, &g);
	CHECK(!engine_submit(en, &q, NULL, &e) && (drain(en), g.n_vectors == 1),
	      "a prompt as long as the context");
	q = ask(id, 129, true, &g);
	CHECK(engine_submit(en, &q, NULL, &e) == -E2BIG, "one that is longer: %s", e.msg);
	engine_session_open(en, &s, &e);
	q = ask(id, 5, true, &g);
	q.session = s;
	CHECK(engine_submit(en, &q, NULL, &e) == -EINVAL, "in a session: %s", e.msg);
	q = ask(id, 100, true, &g);
	CHECK(!engine_submit(en, &q, &r, &e), "one that will be cancelled");
	engine_cancel(r);
	drain(en);
	CHECK(g.ended == 1 && !g.n_vectors, "cancelled: it ends, without a vector");
	engine_close(en);

	o.model = "tests/fixtures/models/qwen3-tied-sharded";
	REQUIRE(!engine_open(&en, &o, &e), "opens %s", e.msg);
	q = ask(id, 5, true, &g);
	CHECK(engine_info(en)->pooling == POOLING_NONE &&
		      engine_submit(en, &q, NULL, &e) == -EOPNOTSUPP,
	      "a model that makes none: %s", e.msg);
	engine_close(en);
}

/* ---- what the checkpoint says ---------------------------------------------------------------- */

static void write_text(const char *dir, const char *name, const char *text)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	if (f) {
		fputs(text, f);
		fclose(f);
	}
}

#define TRANSFORMER "{\"path\":\"\",\"type\":\"sentence_transformers.models.Transformer\"}"
#define POOLING(p)  "{\"path\":\"" p "\",\"type\":\"sentence_transformers.models.Pooling\"}"
#define NORMALIZE   "{\"path\":\"2_Normalize\",\"type\":\"sentence_transformers.models.Normalize\"}"
#define DENSE	    "{\"path\":\"2_Dense\",\"type\":\"sentence_transformers.models.Dense\"}"
#define LAST	    "{\"pooling_mode_mean_tokens\":false,\"pooling_mode_lasttoken\":true}"
#define MEAN	    "{\"pooling_mode_mean_tokens\":true,\"pooling_mode_lasttoken\":false}"

static void test_detect(void)
{
	static const struct {
		const char *what, *modules, *pooling;
		enum engine_pooling want;
		bool normalise;
	} cases[] = {
		{"last", "[" TRANSFORMER "," POOLING("p") "]", LAST, POOLING_LAST, false},
		{"mean, normalised", "[" TRANSFORMER "," POOLING("p") "," NORMALIZE "]", MEAN,
		 POOLING_MEAN, true},
		{"by name", "[" TRANSFORMER "," POOLING("p") "]", "{\"pooling_mode\":\"mean\"}",
		 POOLING_MEAN, false},
		{"of the first token", "[" TRANSFORMER "," POOLING("p") "]",
		 "{\"pooling_mode_cls_token\":true}", POOLING_NONE, false},
		{"two at once", "[" TRANSFORMER "," POOLING("p") "]",
		 "{\"pooling_mode_mean_tokens\":true,\"pooling_mode_lasttoken\":true}",
		 POOLING_NONE, false},
		{"two layers", "[" TRANSFORMER "," POOLING("p") "," POOLING("p") "]", LAST,
		 POOLING_NONE, false},
		{"a matrix behind it", "[" TRANSFORMER "," POOLING("p") "," DENSE "]", LAST,
		 POOLING_NONE, false},
		{"a folder elsewhere", "[" TRANSFORMER "," POOLING("../p") "]", LAST, POOLING_NONE,
		 false},
		{"no list", "{\"a\":1}", LAST, POOLING_NONE, false},
		{"damaged", "[" TRANSFORMER "," POOLING("p"), LAST, POOLING_NONE, false},
		{"strings where objects belong", "[\"x\",3,null]", "[]", POOLING_NONE, false},
		{"a pooling that is no object", "[" TRANSFORMER "," POOLING("p") "]", "[1]",
		 POOLING_NONE, false},
	};
	char dir[] = "/tmp/llm_embed_XXXXXX", path[256], here[4096], target[8192];
	struct checkpoint *c;
	struct err e = {""};

	REQUIRE(mkdtemp(dir) && getcwd(here, sizeof(here)), "a folder");
	for (int i = 0; i < 2; i++) {
		const char *name = i ? "config.json" : "model.safetensors";

		snprintf(path, sizeof(path), "%s/%s", dir, name);
		snprintf(target, sizeof(target), "%s/" FIXTURES "llama-mean/%s", here, name);
		REQUIRE(!symlink(target, path), "a link");
	}
	snprintf(path, sizeof(path), "%s/p", dir);
	mkdir(path, 0700);
	REQUIRE(!checkpoint_open(&c, dir, &e), "opens %s", e.msg);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct engine_info info;

		write_text(dir, "modules.json", cases[i].modules);
		write_text(dir, "p/config.json", cases[i].pooling);
		embed_detect(c, &info);
		CHECK(info.pooling == cases[i].want && info.normalise == cases[i].normalise,
		      "pooling in modules.json: %s", cases[i].what);
	}
	checkpoint_close(c);
	for (int i = 0; i < 5; i++) {
		static const char *const names[] = {"modules.json", "p/config.json", "p",
						    "config.json", "model.safetensors"};

		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		remove(path);
	}
	rmdir(dir);
}

int main(void)
{
	static struct expected x;
	static struct got want[PROMPTS];

	for (size_t i = 0; i < FIXTURE_COUNT; i++) {
		if (!CHECK(read_expected(fixtures[i].expect, &x), "%s", fixtures[i].expect))
			continue;
		for (size_t k = 0; k < sizeof(modes) / sizeof(modes[0]); k++) {
			if (!lonely(&fixtures[i], &modes[k], &x, want))
				continue;
			test_against_transformers(&fixtures[i], &modes[k], &x, want);
			test_crowd(&fixtures[i], &modes[k], &x, want);
			test_preempted(&fixtures[i], &modes[k], &x, want);
		}
	}
	test_edges();
	test_detect();
	return tap_done();
}
