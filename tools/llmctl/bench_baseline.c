// SPDX-License-Identifier: MIT
/* An earlier run of `llmctl bench serve` beside this one (bench_report.h). Owns nothing. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench_report.h"

#define SAMPLES_MAX 4000000
#define SEED	    UINT64_C(20260101) /* the verdict is a function of the two runs alone */

/* Numbers of a JSON array, sorted; an array that is not there is an empty sample. */
static int read_sample(struct bench_sample *s, const char *name, const json_t *a, const char *key,
		       struct err *e)
{
	size_t n = json_is_array(a) ? json_array_size(a) : 0;

	*s = (struct bench_sample){0};
	if (a && (!json_is_array(a) || n > SAMPLES_MAX))
		return err_set(e, -EINVAL, "%s: samples.%s: not a list of numbers", name, key);
	s->v = calloc(n + 1, sizeof(double));
	if (!s->v)
		return err_set(e, -ENOMEM, "%s: no memory", name);
	for (; s->n < n; s->n++) {
		const json_t *v = json_array_get(a, s->n);

		if (!json_is_number(v)) {
			free(s->v);
			return err_set(e, -EINVAL, "%s: samples.%s[%zu]: not a number", name, key,
				       s->n);
		}
		s->v[s->n] = json_number_value(v);
	}
	bench_sort(s->v, n);
	return 0;
}

static void add_row(struct bench_baseline *b, const char *metric, const char *statistic, double q,
		    const struct bench_sample *before, const struct bench_sample *after,
		    bool more_is_better)
{
	struct bench_row *r = &b->row[b->n_rows];

	if (b->n_rows == BENCH_ROWS_MAX || (!before->n && !after->n))
		return;
	snprintf(r->name, sizeof(r->name), "%s %s", metric, statistic);
	r->more_is_better = more_is_better;
	bench_compare(&r->change, before->v, before->n, after->v, after->n, q,
		      SEED + (uint64_t)b->n_rows);
	if (r->change.moved) {
		if ((r->change.after > r->change.before) == more_is_better)
			b->better++;
		else
			b->worse++;
	}
	b->n_rows++;
}

/* Failed and not: a request is a 1 or a 0. */
static int failed_shares(struct bench_sample *s, double ok, double failed, const char *name,
			 struct err *e)
{
	size_t n_ok, n_failed;

	*s = (struct bench_sample){0};
	if (!(ok >= 0 && failed >= 0 && ok + failed <= SAMPLES_MAX))
		return err_set(e, -EINVAL, "%s: requests: no counts", name);
	n_ok = (size_t)ok;
	n_failed = (size_t)failed;
	s->v = calloc(n_ok + n_failed + 1, sizeof(double));
	if (!s->v)
		return err_set(e, -ENOMEM, "%s: no memory", name);
	s->n = n_ok + n_failed;
	for (size_t i = n_ok; i < s->n; i++)
		s->v[i] = 1;
	return 0;
}

static int compare_failures(struct bench_baseline *b, const char *name, const json_t *before,
			    const struct bench_report *p, struct err *e)
{
	const json_t *r = json_object_get(before, "requests");
	struct bench_sample old = {0}, new = {0};
	int rc;

	rc = failed_shares(&old, json_number_value(json_object_get(r, "ok")),
			   json_number_value(json_object_get(r, "failed")), name, e);
	if (!rc)
		rc = failed_shares(&new, (double)p->ok, (double)p->failed, name, e);
	if (!rc)
		add_row(b, "failed", "share", BENCH_MEAN, &old, &new, false);
	free(old.v);
	free(new.v);
	return rc;
}

static int compare_metric(struct bench_baseline *b, const char *name, const json_t *samples,
			  const struct bench_report *p, int m, struct err *e)
{
	static const struct {
		const char *name;
		double q;
	} statistics[] = {{"mean", BENCH_MEAN}, {"P50", 0.5}, {"P90", 0.9}, {"P99", 0.99}};
	const char *label = m == BENCH_ITL_P99 ? "request ITL P99," : bench_metric_names[m];
	struct bench_sample old;
	int rc;

	rc = read_sample(&old, name, json_object_get(samples, bench_metric_keys[m]),
			 bench_metric_keys[m], e);
	if (rc)
		return rc;
	for (size_t i = 0; i < sizeof(statistics) / sizeof(statistics[0]); i++)
		add_row(b, label, statistics[i].name, statistics[i].q, &old, &p->sample[m], false);
	free(old.v);
	return 0;
}

static void copy_string(char *to, size_t len, const json_t *s)
{
	snprintf(to, len, "%s", json_is_string(s) ? json_string_value(s) : "");
}

int bench_baseline_compare(struct bench_baseline *b, const char *name, const json_t *before,
			   const struct bench_report *p, struct err *e)
{
	static const int metrics[] = {BENCH_TTFT, BENCH_TPOT, BENCH_ITL_P99, BENCH_E2E};
	const json_t *samples = json_object_get(before, "samples");
	const char *kind = json_string_value(json_object_get(before, "bench"));
	double sorted[BENCH_SLICES_MAX];
	struct bench_sample old, new = {.v = sorted};
	char line[512];
	int rc = 0;

	*b = (struct bench_baseline){0};
	if (!kind || strcmp(kind, "serve") || !json_is_object(samples))
		return err_set(e, -EINVAL, "%s: not what `llmctl bench serve --json` writes", name);
	copy_string(b->workload, sizeof(b->workload),
		    json_object_get(json_object_get(before, "workload"), "description"));
	copy_string(b->model, sizeof(b->model),
		    json_object_get(json_object_get(before, "target"), "model"));
	copy_string(b->date, sizeof(b->date), json_object_get(before, "date"));
	bench_workload_describe(p->w, line, sizeof(line));
	b->same_workload = !strcmp(line, b->workload);
	b->same_model = !strcmp(p->facts->model, b->model);
	for (size_t i = 0; !rc && i < sizeof(metrics) / sizeof(metrics[0]); i++)
		rc = compare_metric(b, name, samples, p, metrics[i], e);
	if (rc)
		return rc;
	rc = read_sample(&old, name, json_object_get(samples, "tokens_out_per_s"),
			 "tokens_out_per_s", e);
	if (rc)
		return rc;
	new.n = p->w->depth ? 0 : (size_t)p->n_slices;
	memcpy(sorted, p->slice_out, new.n * sizeof(*sorted));
	bench_sort(sorted, new.n);
	add_row(b, "tokens/s out,", "mean", BENCH_MEAN, &old, &new, true);
	free(old.v);
	return compare_failures(b, name, before, p, e);
}

int bench_baseline_read(struct bench_baseline *b, const char *path, const struct bench_report *p,
			struct err *e)
{
	json_error_t je;
	json_t *before = json_load_file(path, 0, &je);
	int rc;

	if (!before)
		return err_set(e, -EINVAL, "--baseline: %s: %s", path, je.text);
	rc = bench_baseline_compare(b, path, before, p, e);
	json_decref(before);
	return rc;
}

static double per_cent(const struct bench_change *c)
{
	return c->before != 0 ? 100 * (c->after - c->before) / fabs(c->before) : 0;
}

static const char *verdict(const struct bench_row *r)
{
	if (!r->change.judged)
		return "too few";
	if (!r->change.moved)
		return "-";
	return (r->change.after > r->change.before) == r->more_is_better ? "better" : "worse";
}

void bench_baseline_table(const struct bench_baseline *b, const char *path, FILE *f)
{
	fprintf(f, "\nagainst %s (%s)\n", path, *b->date ? b->date : "no date");
	if (!b->same_workload)
		fprintf(f, "note       another workload: %s\n", b->workload);
	if (!b->same_model)
		fprintf(f, "note       another model: %s\n", b->model);
	fprintf(f, "%-24s %10s %10s %9s   %-22s %s\n", "", "before", "now", "change",
		"99 % interval of it", "moved");
	for (int i = 0; i < b->n_rows; i++) {
		const struct bench_row *r = &b->row[i];
		const struct bench_change *c = &r->change;
		char interval[64] = "";

		if (c->judged && c->before != 0)
			snprintf(interval, sizeof(interval), "%+.1f to %+.1f %%",
				 100 * c->lo / fabs(c->before), 100 * c->hi / fabs(c->before));
		fprintf(f, "%-24s %10.4g %10.4g %+8.1f%%   %-22s %s\n", r->name, c->before,
			c->after, per_cent(c), interval, verdict(r));
	}
	if (b->better || b->worse)
		fprintf(f, "%d better, %d worse, beyond noise\n", b->better, b->worse);
	else
		fputs("nothing moved beyond noise\n", f);
}

json_t *bench_baseline_json(const struct bench_baseline *b, const char *path)
{
	json_t *rows = json_array();

	for (int i = 0; i < b->n_rows; i++) {
		const struct bench_row *r = &b->row[i];

		json_array_append_new(rows, json_pack("{ss sf sf sf sf sf ss}", "name", r->name,
						      "before", r->change.before, "after",
						      r->change.after, "change_percent",
						      per_cent(&r->change), "lo", r->change.lo,
						      "hi", r->change.hi, "moved", verdict(r)));
	}
	return json_pack("{ss ss sb sb si si so}", "file", path, "date", b->date, "same_workload",
			 b->same_workload, "same_model", b->same_model, "better", b->better,
			 "worse", b->worse, "rows", rows);
}
