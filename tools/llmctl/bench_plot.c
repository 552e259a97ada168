// SPDX-License-Identifier: MIT
/*
 * A run of `llmctl bench serve` as one SVG file of three panels (bench_report.h): TTFT of every
 * request over time, ITL by percentile, tokens and running requests over time. Series differ in
 * mark and dash as well as in colour. Owns the file while it writes it.
 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "bench_report.h"

#define WIDTH  900
#define LEFT   80
#define RIGHT  80
#define PANEL  200 /* height of a panel's axes */
#define TOP    70 /* of the first panel */
#define PITCH  290 /* from one panel to the next */
#define TICKS  5
#define INK    "#222"
#define GRID   "#ddd"
#define BLUE   "#0b62a4"
#define ORANGE "#b8480b"

struct axis {
	double max; /* they all begin at 0 */
	double step;
};

/* Ticks at 1, 2 or 5 times a power of ten; at most TICKS + 1 steps. */
static struct axis make_axis(double max)
{
	double raw = (max > 0 ? max : 1) / TICKS, power = pow(10, floor(log10(raw)));
	double step = raw <= power	 ? power
		      : raw <= 2 * power ? 2 * power
		      : raw <= 5 * power ? 5 * power
					 : 10 * power;

	return (struct axis){ceil((max > 0 ? max : 1) / step - 1e-9) * step, step};
}

static double x_at(double share)
{
	return LEFT + share * (WIDTH - LEFT - RIGHT);
}

static double y_at(double top, double share)
{
	return top + PANEL * (1 - (share > 1 ? 1 : share));
}

static void text_xml(FILE *f, const char *s)
{
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '<' || c == '>' || c == '&' || c == '"')
			fprintf(f, "&#%d;", c);
		else if (c >= 0x20 && c < 0x7f)
			fputc(c, f);
		else
			fputc('?', f);
	}
}

static void label(FILE *f, double x, double y, const char *anchor, const char *text)
{
	fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
	text_xml(f, text);
	fputs("</text>\n", f);
}

static void panel(FILE *f, double top, const char *title, const struct axis *x, const char *x_name,
		  const struct axis *y, const char *y_name)
{
	char tick[32];

	fprintf(f, "<text x=\"%d\" y=\"%.1f\" font-weight=\"bold\">", LEFT, top - 14);
	text_xml(f, title);
	fputs("</text>\n", f);
	for (int i = 0; i * y->step <= y->max * 1.0001; i++) {
		double yy = y_at(top, i * y->step / y->max);

		fprintf(f, "<path d=\"M%d %.1fH%d\" stroke=\"" GRID "\"/>\n", LEFT, yy,
			WIDTH - RIGHT);
		snprintf(tick, sizeof(tick), "%.6g", i * y->step);
		label(f, LEFT - 8, yy + 4, "end", tick);
	}
	for (int i = 0; i * x->step <= x->max * 1.0001; i++) {
		double xx = x_at(i * x->step / x->max);

		fprintf(f, "<path d=\"M%.1f %.1fv5\" stroke=\"" INK "\"/>\n", xx, top + PANEL);
		snprintf(tick, sizeof(tick), "%.6g", i * x->step);
		label(f, xx, top + PANEL + 20, "middle", tick);
	}
	fprintf(f, "<path d=\"M%d %.1fV%.1fH%d\" fill=\"none\" stroke=\"" INK "\"/>\n", LEFT, top,
		top + PANEL, WIDTH - RIGHT);
	label(f, (LEFT + WIDTH - RIGHT) / 2.0, top + PANEL + 38, "middle", x_name);
	fprintf(f, "<text transform=\"translate(20 %.1f) rotate(-90)\" text-anchor=\"middle\">",
		top + PANEL / 2.0);
	text_xml(f, y_name);
	fputs("</text>\n", f);
}

static void plot_ttft(FILE *f, const struct bench_report *p, double top, const struct axis *t)
{
	struct axis y = make_axis(p->metric[BENCH_TTFT].max);

	panel(f, top, "Time to first token of each request; a cross: it failed", t,
	      "sent after, seconds", &y, "TTFT, ms");
	for (size_t i = 0; i < p->run->n; i++) {
		const struct bench_record *r = &p->run->records[i];
		double x = x_at((double)(r->start_ns - p->run->start_ns) * 1e-9 / t->max), yy;

		if (r->state == BENCH_FAILED) {
			fprintf(f,
				"<path d=\"M%.1f %.1fl6 6m0 -6l-6 6\" stroke=\"" ORANGE
				"\" stroke-width=\"2\"/>\n",
				x - 3, top + PANEL - 10);
		} else if (r->state == BENCH_OK && r->first_ns) {
			yy = y_at(top, bench_ttft(r) * 1e3 / y.max);
			fprintf(f,
				"<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"" BLUE
				"\" fill-opacity=\"0.6\"/>\n",
				x, yy);
		}
	}
}

static void plot_itl(FILE *f, const struct bench_report *p, double top)
{
	static const double marks[] = {0.5, 0.9, 0.95, 0.99};
	const struct bench_sample *s = &p->sample[BENCH_ITL];
	struct axis x = {100, 10}, y = make_axis(p->metric[BENCH_ITL].p99 * 1.15);
	char text[64];

	panel(f, top, "Time between tokens, by percentile (above P99.5 not shown)", &x,
	      "percentile of all gaps", &y, "ITL, ms");
	if (!s->n)
		return;
	fputs("<path fill=\"none\" stroke=\"" BLUE "\" stroke-width=\"2\" d=\"", f);
	for (int i = 0; i <= 199; i++)
		fprintf(f, "%c%.1f %.1f", i ? 'L' : 'M', x_at(i / 200.0),
			y_at(top, bench_quantile(s->v, s->n, i / 200.0) / y.max));
	fputs("\"/>\n", f);
	for (int i = 0; i < 4; i++) {
		double v = bench_quantile(s->v, s->n, marks[i]);

		fprintf(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"" ORANGE "\"/>\n",
			x_at(marks[i]), y_at(top, v / y.max));
		snprintf(text, sizeof(text), "P%.0f %.4g ms", 100 * marks[i], v);
		/* In a column at the left, where the curve is low. */
		label(f, LEFT + 16, top + 18 + 16 * i, "start", text);
	}
}

static void plot_slices(FILE *f, const struct bench_report *p, double top, const double *v,
			double max, const struct axis *t, const char *style)
{
	fprintf(f, "<path fill=\"none\" %s d=\"", style);
	for (int i = 0; i < p->n_slices; i++)
		fprintf(f, "%c%.1f %.1fH%.1f", i ? 'L' : 'M', x_at(i * p->slice_s / t->max),
			y_at(top, v[i] / max), x_at((i + 1) * p->slice_s / t->max));
	fputs("\"/>\n", f);
}

static void plot_time(FILE *f, const struct bench_report *p, double top, const struct axis *t)
{
	double out = 0, running = 0;
	struct axis y, y2;
	char tick[32];

	for (int i = 0; i < p->n_slices; i++) {
		out = fmax(out, p->slice_out[i]);
		running = fmax(running, p->slice_running[i]);
	}
	y = make_axis(out);
	y2 = make_axis(running);
	panel(f, top, "Tokens generated (solid) and requests running (dashed, right)", t, "seconds",
	      &y, "tokens a second");
	for (int i = 0; i * y2.step <= y2.max * 1.0001; i++) {
		snprintf(tick, sizeof(tick), "%.6g", i * y2.step);
		label(f, WIDTH - RIGHT + 8, y_at(top, i * y2.step / y2.max) + 4, "start", tick);
	}
	fprintf(f,
		"<text transform=\"translate(%d %.1f) rotate(90)\" text-anchor=\"middle\">requests"
		"</text>\n",
		WIDTH - 20, top + PANEL / 2.0);
	plot_slices(f, p, top, p->slice_out, y.max, t, "stroke=\"" BLUE "\" stroke-width=\"2\"");
	plot_slices(f, p, top, p->slice_running, y2.max, t,
		    "stroke=\"" ORANGE "\" stroke-width=\"2\" stroke-dasharray=\"6 4\"");
}

int bench_plot(const struct bench_report *p, const char *path, struct err *e)
{
	struct axis t = make_axis((double)(p->run->end_ns - p->run->start_ns) * 1e-9);
	int height = TOP + 3 * PITCH - 20, rc = 0;
	FILE *f = fopen(path, "we");
	char line[512];

	if (!f)
		return err_set(e, -errno, "--plot: %s: %s", path, strerror(errno));
	bench_workload_describe(p->w, line, sizeof(line));
	fprintf(f,
		"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 "
		"0 "
		"%d %d\" font-family=\"sans-serif\" font-size=\"12\" fill=\"" INK "\">\n<title>",
		WIDTH, height, WIDTH, height);
	text_xml(f, line);
	fprintf(f, "</title>\n<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n", WIDTH, height);
	label(f, LEFT, 20, "start", line);
	snprintf(line, sizeof(line), "%.60s: %zu requests, %zu failed, %.1f tokens/s out",
		 *p->facts->model ? p->facts->model : p->facts->where, p->ok + p->failed, p->failed,
		 p->out_rate);
	label(f, LEFT, 36, "start", line);
	plot_ttft(f, p, TOP, &t);
	plot_itl(f, p, TOP + PITCH);
	plot_time(f, p, TOP + 2 * PITCH, &t);
	fputs("</svg>\n", f);
	if (ferror(f))
		rc = -EIO;
	if (fclose(f))
		rc = -errno;
	return rc ? err_set(e, rc, "--plot: %s: cannot write: %s", path, strerror(-rc)) : 0;
}
