// SPDX-License-Identifier: MIT
/*
 * The engine against Hugging Face transformers in float32: every checkpoint under
 * tests/fixtures/models, and those of LLM_ORACLE (default ../shared/oracle) where it is present.
 * Formats and tolerances: tests/oracle/make_fixtures.py and below.
 */
#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/engine.h"
#include "tests/tap.h"

/* Largest difference of a logit in units of the logits' standard deviation, float activations. */
#define EXACT_TOLERANCE 2e-3
/* Greedy choices closer than this may fall either way. */
#define SAFE_MARGIN 0.02
/* |ours - theirs| / |theirs| over all given logits, for the modes that round activations. */
#define BF16_ERROR 0.02
#define INT8_ERROR 0.05

struct oracle {
	int32_t *prompt, *positions, *greedy;
	size_t n_prompt, n_positions, n_greedy, vocab;
	float *logits; /* [n_positions][vocab] */
	double std, margin;
};

static int32_t *int_list(const json_t *list, size_t *n)
{
	int32_t *v = calloc(json_array_size(list) + 1, sizeof(*v));

	*n = json_array_size(list);
	for (size_t i = 0; v && i < *n; i++)
		v[i] = (int32_t)json_integer_value(json_array_get(list, i));
	return v;
}

/* Standard base64 without line breaks; writes at most `max` bytes, returns how many there were. */
static size_t base64_decode(const char *s, uint8_t *out, size_t max)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint32_t acc = 0;
	size_t n = 0;
	int bits = 0;

	for (; *s && *s != '='; s++) {
		const char *d = strchr(digits, *s);

		if (!d)
			return 0;
		acc = acc << 6 | (uint32_t)(d - digits);
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			if (n < max)
				out[n] = (uint8_t)(acc >> bits);
			n++;
		}
	}
	return n;
}

static void oracle_free(struct oracle *o)
{
	free(o->prompt);
	free(o->positions);
	free(o->greedy);
	free(o->logits);
}

static bool oracle_read(struct oracle *o, const char *path)
{
	json_t *j = json_load_file(path, 0, NULL), *rows;
	bool ok = j != NULL;
	size_t i;

	memset(o, 0, sizeof(*o));
	o->prompt = int_list(json_object_get(j, "prompt"), &o->n_prompt);
	o->positions = int_list(json_object_get(j, "positions"), &o->n_positions);
	o->greedy = int_list(json_object_get(j, "greedy"), &o->n_greedy);
	o->vocab = (size_t)json_integer_value(json_object_get(j, "vocab"));
	o->std = json_number_value(json_object_get(j, "std"));
	o->margin = json_number_value(json_object_get(j, "margin"));
	o->logits = calloc(o->n_positions * o->vocab + 1, sizeof(float));
	rows = json_object_get(j, "logits_f32_base64");
	ok = ok && json_array_size(rows) == o->n_positions && o->n_prompt && o->vocab && o->std > 0;
	for (i = 0; ok && i < o->n_positions; i++) {
		const char *s = json_string_value(json_array_get(rows, i));
		size_t bytes = o->vocab * sizeof(float);

		ok = s && base64_decode(s, (uint8_t *)(o->logits + i * o->vocab), bytes) == bytes;
	}
	json_decref(j);
	return ok;
}

/* ---- comparing ------------------------------------------------------------------------------ */

struct mode {
	const char *name, *backend;
	bool exact;
};

static const struct mode modes[] = {
	{"ref", "ref", true},
	{"cpu --exact", "cpu", true},
	{"cpu", "cpu", false},
};

struct collected {
	int32_t ids[256];
	size_t n;
	bool failed;
};

static void collect(void *ctx, struct request *r, const struct engine_event *ev)
{
	struct collected *c = ctx;

	if (ev->kind == ENGINE_TOKEN && c->n < 256)
		c->ids[c->n++] = ev->id;
	if (ev->kind == ENGINE_ERROR)
		c->failed = true;
}

static void check_greedy(struct engine *en, const struct oracle *o, const char *what)
{
	struct collected got = {.n = 0};
	struct request_params p = {
		.prompt = o->prompt,
		.n_prompt = o->n_prompt,
		.max_tokens = (int)o->n_greedy,
		.n_logprobs = -1,
		.on_event = collect,
		.ctx = &got,
	};
	struct request *r;
	struct err e = {""};
	int rc;

	sampling_default(&p.sampling, en);
	p.sampling.temperature = 0;
	p.sampling.ignore_eos = true;
	rc = engine_submit(en, &p, &r, &e);
	if (rc) {
		CHECK(false, "%s: takes the prompt: %s", what, e.msg);
		return;
	}
	do {
		rc = engine_step(en, &e);
	} while (rc > 0);
	CHECK(!rc && !got.failed && got.n == o->n_greedy &&
		      !memcmp(got.ids, o->greedy, got.n * sizeof(*got.ids)),
	      "%s: %zu greedy ids are transformers' (margin %.3f) %s", what, o->n_greedy, o->margin,
	      rc ? e.msg : "");
}

/* The checkpoint's matrices are block-quantised, so that the default mode may use int8. */
static bool is_quantised(const struct checkpoint *c)
{
	for (int64_t i = 0; i < checkpoint_n_tensors(c); i++)
		if (dtype_info(checkpoint_tensor(c, i)->type)->block > 1)
			return true;
	return false;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/*
 * |ours - theirs| / |theirs|, over all positions together. With experts: the median of the
 * positions' errors, since rounding may tip a router's close call, and then that token (not the
 * arithmetic) is somewhere else altogether. A NaN gives infinity.
 */
static double normalised_error(const struct oracle *o, const float *out, bool experts)
{
	double error[64], diff_all = 0, norm_all = 0;
	size_t n = o->n_positions < 64 ? o->n_positions : 64;

	for (size_t p = 0; p < n; p++) {
		double diff = 0, norm = 0;

		for (size_t i = p * o->vocab; i < (p + 1) * o->vocab; i++) {
			double d = (double)out[i] - o->logits[i];

			if (!isfinite(out[i]))
				return INFINITY;
			diff += d * d;
			norm += (double)o->logits[i] * o->logits[i];
		}
		error[p] = sqrt(diff / norm);
		diff_all += diff;
		norm_all += norm;
	}
	qsort(error, n, sizeof(error[0]), by_value);
	return experts ? error[n / 2] : sqrt(diff_all / norm_all);
}

/* The largest difference of any logit; a NaN, which fmax() would drop, gives infinity. */
static double worst_difference(const struct oracle *o, const float *out)
{
	double worst = 0;

	for (size_t i = 0; i < o->n_positions * o->vocab; i++)
		worst = isfinite(out[i]) ? fmax(worst, fabs((double)out[i] - o->logits[i]))
					 : INFINITY;
	return worst;
}

static void check_logits(struct engine *en, const struct oracle *o, const struct mode *m,
			 const char *what)
{
	float *out = calloc(o->n_positions * o->vocab, sizeof(*out));
	struct err e = {""};
	int rc = out ? engine_logits(en, o->prompt, o->n_prompt, o->positions, o->n_positions, out,
				     &e)
		     : -1;

	if (rc) {
		CHECK(false, "%s: computes logits: %s", what, e.msg);
	} else if (m->exact) {
		double worst = worst_difference(o, out) / o->std;

		CHECK(worst <= EXACT_TOLERANCE,
		      "%s: logits within %.0e std of transformers' (worst %.1e)", what,
		      EXACT_TOLERANCE, worst);
	} else {
		bool experts = strstr(engine_info(en)->family, "moe") != NULL;
		double bound = is_quantised(engine_checkpoint(en)) ? INT8_ERROR : BF16_ERROR;
		double error = normalised_error(o, out, experts);

		CHECK(error <= bound, "%s: normalised error of logits %.4f <= %.2f", what, error,
		      bound);
	}
	free(out);
}

static void test_checkpoint(const char *model, const char *expect)
{
	struct oracle o;
	bool ok = oracle_read(&o, expect);

	CHECK(ok, "%s is readable", expect);
	for (size_t i = 0; ok && i < sizeof(modes) / sizeof(modes[0]); i++) {
		struct engine_opts opts = {.model = model,
					   .backend = modes[i].backend,
					   .exact = modes[i].exact,
					   .kv_type = -1,
					   .ctx = 192,
					   .max_seqs = 1};
		struct engine *en = NULL;
		struct err e = {""};
		char what[512];

		snprintf(what, sizeof(what), "%s on %s", model, modes[i].name);
		if (engine_open(&en, &opts, &e)) {
			CHECK(false, "%s: opens: %s", what, e.msg);
			continue;
		}
		check_logits(en, &o, &modes[i], what);
		if (modes[i].exact && o.margin > SAFE_MARGIN)
			check_greedy(en, &o, what);
		engine_close(en);
	}
	oracle_free(&o);
}

/* ---- finding the checkpoints ---------------------------------------------------------------- */

static bool exists(const char *path)
{
	struct stat st;

	return !stat(path, &st);
}

/*
 * Every checkpoint in `dir`: directories with an expect.json, and NAME.expect.json beside NAME.gguf
 * or its split parts. Returns how many.
 */
static int test_dir(const char *dir)
{
	struct dirent **v = NULL;
	int n = scandir(dir, &v, NULL, alphasort), found = 0;
	char model[600], expect[700];

	for (int i = 0; i < n; i++) {
		const char *name = v[i]->d_name;
		const char *dot = strstr(name, ".expect.json");

		snprintf(expect, sizeof(expect), "%s/%s/expect.json", dir, name);
		snprintf(model, sizeof(model), "%s/%s", dir, name);
		if (dot && !dot[12]) {
			snprintf(expect, sizeof(expect), "%s/%s", dir, name);
			snprintf(model, sizeof(model), "%s/%.*s.gguf", dir, (int)(dot - name),
				 name);
			for (int parts = 2; !exists(model) && parts < 10; parts++)
				snprintf(model, sizeof(model), "%s/%.*s-00001-of-%05d.gguf", dir,
					 (int)(dot - name), name, parts);
		}
		if (name[0] != '.' && exists(expect)) {
			test_checkpoint(model, expect);
			found++;
		}
		free(v[i]);
	}
	free(v);
	return found;
}

int main(void)
{
	static const char *const families[] = {"llama", "qwen3", "qwen3_moe"};
	const char *root = getenv("LLM_ORACLE");
	char dir[512], model[600], expect[700];

	CHECK(test_dir("tests/fixtures/models") >= 12, "the fixtures are there");
	test_checkpoint("tools/demo/model", "tests/fixtures/demo/expect.json");

	root = root && *root ? root : "../shared/oracle";
	if (!exists(root)) {
		tap_skip("%s is not there: set LLM_ORACLE to compare with more checkpoints", root);
		return tap_done();
	}
	for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
		snprintf(model, sizeof(model), "%s/float/%s", root, families[i]);
		snprintf(expect, sizeof(expect), "%s/expect.json", model);
		test_checkpoint(model, expect);
	}
	snprintf(dir, sizeof(dir), "%s/gguf", root);
	CHECK(test_dir(dir) > 0, "%s holds checkpoints", dir);
	return tap_done();
}
