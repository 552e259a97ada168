// SPDX-License-Identifier: MIT
/* Shapes, lengths and ids of `llmctl bench serve` (bench_workload.h). Owns the table of lengths. */
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_workload.h"

#define FILE_MAX      (64u << 20)
#define DEFAULT_VOCAB 1000

/* clang-format off */
const char *const bench_shape_lines[] = {
	"A  prompts of 4096 to 25000 tokens, 256 generated",
	"B  prompts of 25000 tokens, 256 generated",
	"C  1024 and 1024",
	"E  five turns of 1024 and 256 on one conversation",
	"F  8192 and 512",
	"G  256 and 4096",
	"H  open loop, 0.3 a second, burstiness 0.7: 4096 and 256",
	"I  open loop, 0.3 a second: lengths of conversations with people",
	"J  open loop, 1.5 a second, at most 25 at once: 4096 and 256",
	NULL,
};
/* clang-format on */

int bench_workload_init(struct bench_workload *w, char shape, struct err *e)
{
	*w = (struct bench_workload){
		.shape = shape,
		.pp = {512, 512},
		.tg = {128, 128},
		.scale = 1,
		.turns = 1,
		.runs = -1,
		.warmup = 1,
		.concurrency = 1,
		.burstiness = 1,
		.vocab = DEFAULT_VOCAB,
	};
	switch (shape) {
	case 0:
		return 0;
	case 'A':
		w->pp = (struct bench_range){4096, 25000};
		w->tg = (struct bench_range){256, 256};
		return 0;
	case 'B':
		w->pp = (struct bench_range){25000, 25000};
		w->tg = (struct bench_range){256, 256};
		return 0;
	case 'C':
		w->pp = w->tg = (struct bench_range){1024, 1024};
		return 0;
	case 'E':
		w->pp = (struct bench_range){1024, 1024};
		w->tg = (struct bench_range){256, 256};
		w->turns = 5;
		return 0;
	case 'F':
		w->pp = (struct bench_range){8192, 8192};
		w->tg = (struct bench_range){512, 512};
		return 0;
	case 'G':
		w->pp = (struct bench_range){256, 256};
		w->tg = (struct bench_range){4096, 4096};
		return 0;
	case 'H':
	case 'J':
		w->pp = (struct bench_range){4096, 4096};
		w->tg = (struct bench_range){256, 256};
		w->rate = shape == 'H' ? 0.3 : 1.5;
		w->burstiness = shape == 'H' ? 0.7 : 1;
		w->max_concurrency = shape == 'J' ? 25 : 0;
		return 0;
	case 'I':
		w->conversations = true;
		w->rate = 0.3;
		return 0;
	}
	return err_set(e, -EINVAL, "--shape: `%c`: A, B, C, E, F, G, H, I or J", shape);
}

int bench_workload_finish(struct bench_workload *w, struct err *e)
{
	bool open = w->rate > 0;
	double longest =
		w->scale * (w->prefix + w->depth + w->turns * ((double)w->pp.hi + w->tg.hi));

	if (open && w->depth)
		return err_set(e, -EINVAL,
			       "--depth: works with a fixed --concurrency, not with --rate");
	if (!open && w->max_concurrency)
		return err_set(e, -EINVAL,
			       "--max-concurrency: belongs to --rate; without it the "
			       "number of clients is --concurrency");
	if (w->vocab <= BENCH_FIRST_ID)
		return err_set(e, -EINVAL, "--vocab: %d: at least %d", w->vocab,
			       BENCH_FIRST_ID + 1);
	/* The bound that keeps every sum of lengths inside an int. */
	if (longest > BENCH_CONVERSATION_MAX)
		return err_set(e, -EINVAL, "a conversation of up to %.0f tokens: more than %d",
			       longest, BENCH_CONVERSATION_MAX);
	if (w->runs < 0) /* not said */
		w->runs = w->duration > 0 ? 0 : open ? 100 : 4 * w->concurrency;
	if (!w->runs && w->duration <= 0)
		return err_set(e, -EINVAL, "--runs: 0 needs a --duration");
	return 0;
}

void bench_workload_free(struct bench_workload *w)
{
	free(w->lengths);
	w->lengths = NULL;
	w->n_lengths = 0;
}

int bench_range_parse(struct bench_range *r, const char *text, struct err *e)
{
	char *end;
	long lo, hi;

	errno = 0;
	lo = hi = strtol(text, &end, 10);
	if (end != text && *end == '-' && end[1] >= '0' && end[1] <= '9')
		hi = strtol(end + 1, &end, 10);
	if (errno || end == text || *end || lo < 1 || hi < lo || hi > BENCH_TOKENS_MAX)
		return err_set(e, -EINVAL, "`%s`: a number of tokens, N or LO-HI, from 1 to %d",
			       text, BENCH_TOKENS_MAX);
	*r = (struct bench_range){(int)lo, (int)hi};
	return 0;
}

/* ---- files of lengths --------------------------------------------------------------------------- */

static bool csv_row(const char *line, double *prompt, double *output)
{
	char *end;

	*prompt = strtod(line, &end);
	if (end == line)
		return false;
	end += strspn(end, " \t");
	if (*end != ',' && *end != '\t' && *end != ';')
		return false;
	line = end + 1;
	*output = strtod(line, &end);
	return end != line && !end[strspn(end, " \t")];
}

static bool json_row(const char *line, double *prompt, double *output)
{
	json_t *o = json_loads(line, 0, NULL), *p, *q;
	bool ok;

	p = json_object_get(o, "prompt");
	q = json_object_get(o, "output");
	p = p ? p : json_object_get(o, "prompt_tokens");
	q = q ? q : json_object_get(o, "output_tokens");
	ok = json_is_number(p) && json_is_number(q);
	*prompt = json_number_value(p);
	*output = json_number_value(q);
	json_decref(o);
	return ok;
}

static bool is_length(double x)
{
	return x >= 1 && x <= BENCH_TOKENS_MAX && x == floor(x);
}

/* One line, NUL-terminated, to *l. 1: filled, 0: nothing in it, -EINVAL. */
static int parse_row(struct bench_lengths *l, char *line, bool first, const char *name, long number,
		     struct err *e)
{
	size_t len = strlen(line);
	double prompt, output;

	while (len && strchr(" \t\r", line[len - 1]))
		line[--len] = '\0';
	line += strspn(line, " \t");
	if (!*line || *line == '#')
		return 0;
	if (!(*line == '{' ? json_row : csv_row)(line, &prompt, &output)) {
		if (first && *line != '{' && strchr(line, ',') && !(*line >= '0' && *line <= '9'))
			return 0; /* a heading */
		return err_set(
			e, -EINVAL,
			"%s: line %ld: neither `PROMPT,OUTPUT` nor an object with \"prompt\" "
			"and \"output\", in tokens",
			name, number);
	}
	if (!is_length(prompt) || !is_length(output))
		return err_set(e, -EINVAL,
			       "%s: line %ld: %g and %g: whole numbers of tokens from 1 to %d",
			       name, number, prompt, output, BENCH_TOKENS_MAX);
	*l = (struct bench_lengths){(int)prompt, (int)output};
	return 1;
}

static void shuffle(struct bench_workload *w)
{
	struct bench_rng r;

	bench_rng_seed(&r, w->seed, UINT64_C(1) << 62);
	for (size_t i = w->n_lengths; i > 1; i--) {
		size_t j = (size_t)bench_rng_range(&r, 0, (int)i - 1);
		struct bench_lengths t = w->lengths[i - 1];

		w->lengths[i - 1] = w->lengths[j];
		w->lengths[j] = t;
	}
}

int bench_lengths_parse(struct bench_workload *w, const char *name, const char *text, size_t len,
			struct err *e)
{
	size_t pos = 0, cap = 0;
	bool first = true;
	long number = 0;
	int rc = 0;

	bench_workload_free(w);
	while (pos < len && rc >= 0) {
		const char *nl = memchr(text + pos, '\n', len - pos);
		size_t n = nl ? (size_t)(nl - text) - pos : len - pos;
		char line[512];

		number++;
		if (n >= sizeof(line) || memchr(text + pos, '\0', n)) {
			rc = err_set(e, -EINVAL, "%s: line %ld: too long, or not text", name,
				     number);
			break;
		}
		memcpy(line, text + pos, n);
		line[n] = '\0';
		pos += n + 1;
		if (w->n_lengths == cap) {
			size_t want = cap ? 2 * cap : 256;
			void *p = want <= BENCH_LENGTHS_MAX
					  ? realloc(w->lengths, want * sizeof(*w->lengths))
					  : NULL;

			if (!p) {
				rc = err_set(e, -ENOMEM, "%s: more than %zu lines", name, cap);
				break;
			}
			w->lengths = p;
			cap = want;
		}
		rc = parse_row(&w->lengths[w->n_lengths], line, first, name, number, e);
		w->n_lengths += rc == 1;
		first = first && strchr("#", line[strspn(line, " \t\r")]);
	}
	if (rc >= 0 && !w->n_lengths)
		rc = err_set(e, -EINVAL, "%s: no lengths in it", name);
	if (rc < 0) {
		bench_workload_free(w);
		return rc;
	}
	shuffle(w);
	return 0;
}

int bench_lengths_read(struct bench_workload *w, const char *path, struct err *e)
{
	FILE *f = fopen(path, "re");
	size_t len = 0, cap = 0, n = 0;
	char *text = NULL;
	int rc = 0;

	if (!f)
		return err_set(e, -errno, "%s: %s", path, strerror(errno));
	do {
		if (len + 65536 > cap) {
			char *p = cap < FILE_MAX ? realloc(text, cap = 2 * cap + 65536) : NULL;

			if (!p) {
				rc = err_set(e, -EFBIG, "%s: larger than %u MiB", path,
					     FILE_MAX >> 20);
				break;
			}
			text = p;
		}
		n = fread(text + len, 1, 65536, f);
		len += n;
	} while (n);
	if (!rc && ferror(f))
		rc = err_set(e, -EIO, "%s: cannot read", path);
	fclose(f);
	if (!rc)
		rc = bench_lengths_parse(w, path, text, len, e);
	free(text);
	return rc;
}

/* ---- what is asked ------------------------------------------------------------------------------ */

int bench_scaled(const struct bench_workload *w, int tokens)
{
	double x = ceil(tokens * w->scale);

	return tokens <= 0		    ? 0
	       : x < 1			    ? 1
	       : x > BENCH_CONVERSATION_MAX ? BENCH_CONVERSATION_MAX
					    : (int)x;
}

void bench_conversation_seed(const struct bench_workload *w, int64_t number,
			     struct bench_rng *lengths, struct bench_rng *ids)
{
	bench_rng_seed(lengths, w->seed, (uint64_t)number);
	bench_rng_seed(ids, w->id_seed, (uint64_t)number);
}

/* Log-normal of this median, within [1, max]. */
static int lognormal(struct bench_rng *r, double median, double sigma, int max)
{
	double x = median * exp(sigma * bench_rng_normal(r));

	return x < 1 ? 1 : x > max ? max : (int)x;
}

struct bench_lengths bench_turn_lengths(const struct bench_workload *w, int64_t number,
					struct bench_rng *r)
{
	struct bench_lengths l;

	if (w->n_lengths) {
		l = w->lengths[(uint64_t)number % w->n_lengths];
	} else if (w->conversations) {
		/* Roughly what collections of chats with assistants show: most questions short, a
		 * long tail of pasted text; answers of a few paragraphs. */
		l.prompt = lognormal(r, 130, 1.2, 4096);
		l.output = lognormal(r, 160, 0.9, 2048);
	} else {
		l.prompt = bench_rng_range(r, w->pp.lo, w->pp.hi);
		l.output = bench_rng_range(r, w->tg.lo, w->tg.hi);
	}
	l.prompt = bench_scaled(w, l.prompt);
	l.output = bench_scaled(w, l.output);
	return l;
}

void bench_random_ids(const struct bench_workload *w, struct bench_rng *r, int32_t *ids, int n)
{
	for (int i = 0; i < n; i++)
		ids[i] = bench_rng_range(r, BENCH_FIRST_ID, w->vocab - 1);
}

void bench_prefix_ids(const struct bench_workload *w, int32_t *ids, int n)
{
	struct bench_rng r;

	bench_rng_seed(&r, w->id_seed, UINT64_C(3) << 61);
	bench_random_ids(w, &r, ids, n);
}

static void describe_range(const struct bench_workload *w, const struct bench_range *r, char *buf,
			   size_t len)
{
	if (r->lo == r->hi)
		snprintf(buf, len, "%d", bench_scaled(w, r->lo));
	else
		snprintf(buf, len, "%d to %d", bench_scaled(w, r->lo), bench_scaled(w, r->hi));
}

void bench_workload_describe(const struct bench_workload *w, char *buf, size_t len)
{
	char pp[40], tg[40], *p = buf, *end = buf + len;

#define ADD(...) (p += p < end ? snprintf(p, (size_t)(end - p), __VA_ARGS__) : 0)
	describe_range(w, &w->pp, pp, sizeof(pp));
	describe_range(w, &w->tg, tg, sizeof(tg));
	if (w->shape)
		ADD("shape %c: ", w->shape);
	if (w->rate > 0) {
		ADD("open loop, %g a second, burstiness %g", w->rate, w->burstiness);
		if (w->max_concurrency)
			ADD(", at most %d at once", w->max_concurrency);
	} else {
		ADD("closed loop, %d client%s", w->concurrency, w->concurrency == 1 ? "" : "s");
	}
	if (w->turns > 1)
		ADD("; %d turns each", w->turns);
	if (w->n_lengths)
		ADD("; %zu pairs of lengths from a file", w->n_lengths);
	else if (w->conversations)
		ADD("; lengths of conversations");
	else
		ADD("; prompt %s, answer %s tokens", pp, tg);
	if (w->prefix)
		ADD(", after %d that all prompts share", bench_scaled(w, w->prefix));
	if (w->depth)
		ADD(", at depth %d", bench_scaled(w, w->depth));
	if (w->scale != 1)
		ADD(" (lengths scaled by %g)", w->scale);
#undef ADD
}
