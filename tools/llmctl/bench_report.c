// SPDX-License-Identifier: MIT
/* Records of `llmctl bench serve` to figures, table and JSON (bench_report.h). Owns the samples. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench_report.h"

const char *const bench_metric_names[BENCH_N_METRICS] = {
	[BENCH_TTFT] = "TTFT",
	[BENCH_TPOT] = "TPOT",
	[BENCH_ITL] = "ITL",
	[BENCH_E2E] = "E2E",
	[BENCH_ITL_P99] = "ITL P99 of a request",
};
const char *const bench_metric_keys[BENCH_N_METRICS] = {
	[BENCH_TTFT] = "ttft_ms",
	[BENCH_TPOT] = "tpot_ms",
	[BENCH_ITL] = "itl_ms",
	[BENCH_E2E] = "e2e_ms",
	[BENCH_ITL_P99] = "request_itl_p99_ms",
};

int bench_goals_parse(struct bench_goals *g, const char *text, struct err *e)
{
	static const int with_goal[] = {BENCH_TTFT, BENCH_TPOT, BENCH_E2E};
	const char *p = text;

	*g = (struct bench_goals){0};
	do {
		char *end = NULL;
		double ms = 0;

		for (int i = 0; i < 3; i++) {
			const char *name = bench_metric_names[with_goal[i]];
			size_t n = strlen(name);

			if (strncasecmp(p, name, n) || p[n] != ':')
				continue;
			ms = strtod(p + n + 1, &end);
			g->ms[with_goal[i]] = ms;
		}
		if (!end || !(ms > 0 && ms < 1e12) || (*end && *end != ','))
			return err_set(e, -EINVAL,
				       "`%s`: bounds in ms, such as ttft:500,tpot:50,e2e:9000",
				       text);
		p = *end ? end + 1 : NULL;
	} while (p);
	return 0;
}

static bool kept(const struct bench_goals *g, enum bench_metric m, double seconds)
{
	return g->ms[m] <= 0 || seconds * 1e3 <= g->ms[m];
}

/* ---- figures ------------------------------------------------------------------------------------- */

static double itl_p99(const struct bench_record *r, double *scratch)
{
	for (size_t i = 0; i < r->n_gaps; i++)
		scratch[i] = (double)r->gaps[i];
	bench_sort(scratch, r->n_gaps);
	return bench_quantile(scratch, r->n_gaps, 0.99);
}

static void count_failure(struct bench_report *p, const struct bench_record *r)
{
	int i = 0;

	while (i < p->n_kinds && strcmp(p->kind[i].kind, r->kind))
		i++;
	if (i == BENCH_KINDS_MAX) {
		p->kind[--i].kind = "others";
	} else if (i == p->n_kinds) {
		p->kind[p->n_kinds++] =
			(struct bench_failures){.kind = r->kind,
						.sentence = r->sentence ? r->sentence : ""};
	}
	p->kind[i].count++;
	p->failed++;
}

static void add(struct bench_report *p, enum bench_metric m, double seconds)
{
	p->sample[m].v[p->sample[m].n++] = seconds * 1e3;
}

static void take_record(struct bench_report *p, const struct bench_record *r, double *scratch)
{
	if (r->state == BENCH_FAILED)
		count_failure(p, r);
	if (r->state != BENCH_OK) {
		p->cut += r->state != BENCH_FAILED;
		return;
	}
	p->ok++;
	p->short_answers += r->tokens < r->wanted;
	p->tokens_in += (uint64_t)r->prompt;
	p->tokens_out += (uint64_t)r->tokens;
	if (r->cached >= 0) {
		p->cached += (uint64_t)r->cached;
		p->cached_known = true;
	}
	p->good += kept(&p->goals, BENCH_TTFT, bench_ttft(r)) &&
		   kept(&p->goals, BENCH_TPOT, bench_tpot(r)) &&
		   kept(&p->goals, BENCH_E2E, bench_e2e(r));
	if (r->first_ns)
		add(p, BENCH_TTFT, bench_ttft(r));
	if (r->tokens > 1)
		add(p, BENCH_TPOT, bench_tpot(r));
	add(p, BENCH_E2E, bench_e2e(r));
	for (size_t i = 0; i < r->n_gaps; i++)
		add(p, BENCH_ITL, (double)r->gaps[i]);
	if (r->n_gaps)
		add(p, BENCH_ITL_P99, itl_p99(r, scratch));
}

static int slice_of(const struct bench_report *p, double at_s)
{
	int i = (int)(at_s / p->slice_s);

	return i < 0 ? 0 : i < p->n_slices ? i : p->n_slices - 1;
}

/* Tokens where they arrived; requests by the share of the slice that they ran. */
static void take_slices(struct bench_report *p, const struct bench_record *r)
{
	double start = (double)(int64_t)(r->start_ns - p->run->start_ns) * 1e-9, at;
	double end = (double)(int64_t)(r->end_ns - p->run->start_ns) * 1e-9;

	if (r->first_ns) {
		/* Events may have had several tokens: each counts for its share. */
		double weight = r->tokens > 0 ? r->tokens / (double)(r->n_gaps + 1) : 1;

		at = start + bench_ttft(r);
		p->slice_out[slice_of(p, at)] += weight;
		for (size_t i = 0; i < r->n_gaps; i++) {
			at += (double)r->gaps[i];
			p->slice_out[slice_of(p, at)] += weight;
		}
	}
	for (int i = slice_of(p, start); r->end_ns && i <= slice_of(p, end); i++) {
		double a = fmax(start, i * p->slice_s), b = fmin(end, (i + 1) * p->slice_s);

		if (b > a)
			p->slice_running[i] += (b - a) / p->slice_s;
	}
}

static void make_slices(struct bench_report *p)
{
	double total = (double)(p->run->end_ns - p->run->start_ns) * 1e-9;

	p->n_slices = (int)fmin(fmax(total / 0.25, 1), BENCH_SLICES_MAX);
	p->slice_s = fmax(total, 1e-6) / p->n_slices;
	for (size_t i = 0; i < p->run->n; i++)
		take_slices(p, &p->run->records[i]);
	for (int i = 0; i < p->n_slices; i++)
		p->slice_out[i] /= p->slice_s;
}

int bench_report_make(struct bench_report *p, const struct bench_run *r,
		      const struct bench_workload *w, const struct bench_facts *facts,
		      const struct bench_goals *goals, struct err *e)
{
	size_t n_gaps = 0, longest = 0;
	double *scratch, seconds = r->measured_s;

	*p = (struct bench_report){.run = r, .w = w, .facts = facts};
	for (int m = 0; goals && m < BENCH_N_METRICS; m++) {
		p->goals.ms[m] = goals->ms[m];
		p->has_goals = p->has_goals || goals->ms[m] > 0;
	}
	for (size_t i = 0; i < r->n; i++) {
		n_gaps += r->records[i].n_gaps;
		longest = r->records[i].n_gaps > longest ? r->records[i].n_gaps : longest;
	}
	scratch = calloc(longest + 1, sizeof(double));
	for (int m = 0; m < BENCH_N_METRICS; m++)
		p->sample[m].v = calloc((m == BENCH_ITL ? n_gaps : r->n) + 1, sizeof(double));
	for (int m = 0; m < BENCH_N_METRICS; m++) {
		if (scratch && p->sample[m].v)
			continue;
		free(scratch);
		bench_report_free(p);
		return err_set(e, -ENOMEM, "bench: no memory for the figures");
	}
	for (size_t i = 0; i < r->n; i++)
		take_record(p, &r->records[i], scratch);
	free(scratch);
	for (int m = 0; m < BENCH_N_METRICS; m++)
		bench_summarise(&p->metric[m], p->sample[m].v, p->sample[m].n);
	if (seconds > 0) {
		p->request_rate = (double)p->ok / seconds;
		p->in_rate = (double)p->tokens_in / seconds;
		p->out_rate = (double)p->tokens_out / seconds;
	}
	make_slices(p);
	return 0;
}

void bench_report_free(struct bench_report *p)
{
	for (int m = 0; m < BENCH_N_METRICS; m++)
		free(p->sample[m].v);
	*p = (struct bench_report){0};
}

/* ---- table --------------------------------------------------------------------------------------- */

/* Three digits or all before the point. */
static void print_ms(FILE *f, double v)
{
	fprintf(f, " %10.*f", v < 1 ? 3 : v < 10 ? 2 : v < 1000 ? 1 : 0, v);
}

static void print_metrics(const struct bench_report *p, FILE *f)
{
	fprintf(f, "\n%-10s %10s %10s %10s %10s %10s %10s\n", "ms", "mean", "P50", "P90", "P95",
		"P99", "max");
	for (int m = 0; m < BENCH_ITL_P99; m++) {
		const struct bench_summary *s = &p->metric[m];

		fprintf(f, "%-10s", bench_metric_names[m]);
		if (s->n) {
			print_ms(f, s->mean);
			print_ms(f, s->p50);
			print_ms(f, s->p90);
			print_ms(f, s->p95);
			print_ms(f, s->p99);
			print_ms(f, s->max);
		} else {
			fprintf(f, " %10s", "-");
		}
		fputc('\n', f);
	}
}

static double cpu_share(const struct bench_run *r)
{
	double wall = (double)(r->end_ns - r->start_ns) * 1e-9;

	return wall > 0 ? r->cpu_s / wall : 0;
}

/* Those that failed have not kept their goals either. */
static double good_share(const struct bench_report *p)
{
	return p->ok + p->failed ? (double)p->good / (double)(p->ok + p->failed) : 0;
}

static double good_rate(const struct bench_report *p)
{
	return p->run->measured_s > 0 ? (double)p->good / p->run->measured_s : 0;
}

static void print_goodput(const struct bench_report *p, FILE *f)
{
	fprintf(f, "goodput    %zu requests (%.0f %%), %.3g a second, kept", p->good,
		100 * good_share(p), good_rate(p));
	for (int m = 0, n = 0; m < BENCH_N_METRICS; m++)
		if (p->goals.ms[m] > 0)
			fprintf(f, "%s %s <= %g ms", n++ ? "," : "", bench_metric_names[m],
				p->goals.ms[m]);
	fputc('\n', f);
}

void bench_report_table(const struct bench_report *p, FILE *f)
{
	const struct bench_run *r = p->run;
	char line[512];

	bench_workload_describe(p->w, line, sizeof(line));
	fprintf(f, "%s%s%s\n%s\n\n", p->facts->where, *p->facts->model ? ": " : "", p->facts->model,
		line);
	fprintf(f, "requests   %zu ended well, %zu failed", p->ok, p->failed);
	if (p->cut)
		fprintf(f, ", %zu cut short", p->cut);
	fprintf(f, " in %.2f s; %.3g a second, at most %d at once\n", r->measured_s,
		p->request_rate, r->peak);
	fprintf(f, "tokens     in %llu (%.1f/s", (unsigned long long)p->tokens_in, p->in_rate);
	if (p->cached_known)
		fprintf(f, "; %llu cached", (unsigned long long)p->cached);
	fprintf(f, "), out %llu (%.1f/s)\n", (unsigned long long)p->tokens_out, p->out_rate);
	if (p->has_goals)
		print_goodput(p, f);
	print_metrics(p, f);
	fprintf(f, "\nclient     %.2f s of CPU, %.0f %% of one core", r->cpu_s, 100 * cpu_share(r));
	if (p->w->rate > 0)
		fprintf(f, "; sent at most %.1f ms late", r->late_s * 1e3);
	if (r->held)
		fprintf(f, "; %lld held back by the limit of requests at once", (long long)r->held);
	fputc('\n', f);
	if (p->short_answers)
		fprintf(f, "note       %zu answers were shorter than asked for\n",
			p->short_answers);
	if (r->ids_unknown)
		fprintf(f,
			"note       the server does not tell its answers' ids: random ones stood "
			"for them in later turns, which it then could not have cached\n");
	for (int i = 0; i < p->n_kinds; i++)
		fprintf(f, "failed     %zu x %s: %s\n", p->kind[i].count, p->kind[i].kind,
			p->kind[i].sentence);
	if (*r->ended_early)
		fprintf(f, "ended early: %s\n", r->ended_early);
}

/* ---- JSON ---------------------------------------------------------------------------------------- */

static json_t *summary_json(const struct bench_summary *s)
{
	return json_pack("{sI sf sf sf sf sf sf sf}", "n", (json_int_t)s->n, "mean", s->mean, "min",
			 s->min, "p50", s->p50, "p90", s->p90, "p95", s->p95, "p99", s->p99, "max",
			 s->max);
}

static json_t *numbers(const double *v, size_t n)
{
	json_t *a = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(a, json_real(v[i]));
	return a;
}

static json_t *workload_json(const struct bench_workload *w)
{
	char line[512], shape[2] = {w->shape, '\0'};
	json_t *j;

	bench_workload_describe(w, line, sizeof(line));
	j = json_pack("{ss ss s[ii] s[ii] si si sf}", "description", line, "shape", shape, "pp",
		      w->pp.lo, w->pp.hi, "tg", w->tg.lo, w->tg.hi, "prefix", w->prefix, "depth",
		      w->depth, "scale", w->scale);
	json_object_update_new(j, json_pack("{si si sf si sf sf si si sI}", "turns", w->turns,
					    "runs", w->runs, "duration_s", w->duration,
					    "concurrency", w->rate > 0 ? 0 : w->concurrency, "rate",
					    w->rate, "burstiness", w->burstiness, "max_concurrency",
					    w->max_concurrency, "vocab", w->vocab, "seed",
					    (json_int_t)w->seed));
	return j;
}

static const char *state_name(enum bench_state s)
{
	return s == BENCH_OK ? "ok" : s == BENCH_FAILED ? "failed" : "cut";
}

static json_t *details_json(const struct bench_report *p)
{
	json_t *all = json_array();

	for (size_t i = 0; i < p->run->n; i++) {
		const struct bench_record *r = &p->run->records[i];
		json_t *gaps = json_array(), *j;

		for (size_t k = 0; k < r->n_gaps; k++)
			json_array_append_new(gaps, json_real((double)r->gaps[k] * 1e3));
		j = json_pack("{sI si ss si si si sf sf sf sf so}", "conversation",
			      (json_int_t)r->conversation, "turn", r->turn, "state",
			      state_name(r->state), "prompt_tokens", r->prompt, "tokens_asked",
			      r->wanted, "tokens", r->tokens, "arrived_s",
			      (double)(r->due_ns - p->run->start_ns) * 1e-9, "sent_s",
			      (double)(r->start_ns - p->run->start_ns) * 1e-9, "ttft_ms",
			      bench_ttft(r) * 1e3, "e2e_ms", bench_e2e(r) * 1e3, "itl_ms", gaps);
		if (r->cached >= 0)
			json_object_set_new(j, "cached_tokens", json_integer(r->cached));
		if (r->state == BENCH_FAILED) {
			json_object_set_new(j, "kind", json_string(r->kind));
			json_object_set_new(j, "sentence",
					    json_string(r->sentence ? r->sentence : ""));
		}
		json_array_append_new(all, j);
	}
	return all;
}

/* What a later --baseline needs: one number a request, sorted; ITL only per request. */
static json_t *samples_json(const struct bench_report *p)
{
	json_t *j = json_object();

	for (int m = 0; m < BENCH_N_METRICS; m++)
		if (m != BENCH_ITL)
			json_object_set_new(j, bench_metric_keys[m],
					    numbers(p->sample[m].v, p->sample[m].n));
	json_object_set_new(j, "tokens_out_per_s",
			    numbers(p->slice_out, p->w->depth ? 0 : (size_t)p->n_slices));
	return j;
}

static json_t *failures_json(const struct bench_report *p)
{
	json_t *a = json_array();

	for (int i = 0; i < p->n_kinds; i++)
		json_array_append_new(a, json_pack("{ss sI ss}", "kind", p->kind[i].kind, "count",
						   (json_int_t)p->kind[i].count, "sentence",
						   p->kind[i].sentence));
	return a;
}

static json_t *goodput_json(const struct bench_report *p)
{
	json_t *j = json_pack("{sI sf sf}", "requests", (json_int_t)p->good, "share", good_share(p),
			      "requests_per_s", good_rate(p));

	for (int m = 0; m < BENCH_N_METRICS; m++)
		if (p->goals.ms[m] > 0)
			json_object_set_new(j, bench_metric_keys[m], json_real(p->goals.ms[m]));
	return j;
}

json_t *bench_report_json(const struct bench_report *p, bool details)
{
	const struct bench_run *r = p->run;
	char date[32], fingerprint[20];
	time_t now = time(NULL);
	struct tm tm;
	json_t *j;

	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
	snprintf(fingerprint, sizeof(fingerprint), "%016llx",
		 (unsigned long long)p->facts->fingerprint);
	j = json_pack("{ss ss s{ss ss ss si} so}", "bench", "serve", "date", date, "target",
		      "where", p->facts->where, "model", p->facts->model, "fingerprint",
		      fingerprint, "context", p->facts->context, "workload", workload_json(p->w));
	if (!j)
		return NULL;
	json_object_update_new(j, json_pack("{s{sI sI sI sI} sf sf sf sf si}", "requests", "ok",
					    (json_int_t)p->ok, "failed", (json_int_t)p->failed,
					    "cut", (json_int_t)p->cut, "short",
					    (json_int_t)p->short_answers, "duration_s",
					    r->measured_s, "requests_per_s", p->request_rate,
					    "tokens_in_per_s", p->in_rate, "tokens_out_per_s",
					    p->out_rate, "peak_concurrency", r->peak));
	json_object_update_new(j,
			       json_pack("{s{sI sI} so s{sf sf sf sI} sb ss}", "tokens", "in",
					 (json_int_t)p->tokens_in, "out", (json_int_t)p->tokens_out,
					 "failures", failures_json(p), "client", "cpu_s", r->cpu_s,
					 "cpu_share", cpu_share(r), "late_ms", r->late_s * 1e3,
					 "held", (json_int_t)r->held, "answer_ids_unknown",
					 r->ids_unknown, "ended_early", r->ended_early));
	if (p->cached_known)
		json_object_set_new(json_object_get(j, "tokens"), "cached",
				    json_integer((json_int_t)p->cached));
	if (p->has_goals)
		json_object_set_new(j, "goodput", goodput_json(p));
	for (int m = 0; m < BENCH_N_METRICS; m++)
		json_object_set_new(j, bench_metric_keys[m], summary_json(&p->metric[m]));
	json_object_set_new(j, "samples", samples_json(p));
	json_object_set_new(j, "timeline",
			    json_pack("{sf so so}", "slice_s", p->slice_s, "tokens_out_per_s",
				      numbers(p->slice_out, (size_t)p->n_slices), "running",
				      numbers(p->slice_running, (size_t)p->n_slices)));
	if (details)
		json_object_set_new(j, "details", details_json(p));
	return j;
}
