// SPDX-License-Identifier: MIT
/*
 * llmctl status: what a daemon does, once or over and over (LLM_MSG_STATUS of uapi/llm.h). Every
 * sample has a connection of its own, so that a daemon that comes back is found again.
 */
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "ctl.h"
#include "facts.h"
#include "lib/llmdev.h"
#include "llm.h"

#define USAGE	  "status [--socket PATH | NAME] [--watch [SECONDS]] [--json]"
#define INTERVAL  0.5 /* between the two samples that give the rates of a single status */
#define ANSWER_MS 30000 /* a step is answered after its end, and prompts make long ones */
#define MAX_ROWS  512
#define BAR_WIDTH 40

enum { OPT_SOCKET = 1, OPT_WATCH, OPT_JSON };

struct sample {
	struct llm_status s;
	struct llm_status_session row[MAX_ROWS];
	int n;
};

/* Work between two samples, or since the daemon's start (then `since_start`). */
struct rates {
	bool since_start;
	double seconds, in, out, steps;
	double hit; /* of the prompt tokens, those that were found computed; -1: there were none */
	double step_ms, overhead; /* mean step; the part of it that is neither model nor sampling */
};

static struct rates rates_of(const struct llm_status *a, const struct llm_status *b)
{
	static const struct llm_status zero;
	struct rates r = {.since_start = !a || a->start_ns != b->start_ns};
	double prompt, step;

	if (r.since_start)
		a = &zero;
	r.seconds = (double)(b->now_ns - (r.since_start ? b->start_ns : a->now_ns)) / 1e9;
	if (r.seconds <= 0)
		r.seconds = 1e-9;
	r.in = (double)(b->computed_tokens - a->computed_tokens) / r.seconds;
	r.out = (double)(b->generated_tokens - a->generated_tokens) / r.seconds;
	r.steps = (double)(b->steps - a->steps);
	prompt = (double)(b->prompt_tokens - a->prompt_tokens);
	r.hit = prompt > 0 ? (double)(b->cached_tokens - a->cached_tokens) / prompt : -1;
	step = (double)(b->step_ns - a->step_ns);
	r.step_ms = r.steps > 0 ? step / r.steps / 1e6 : 0;
	if (step > 0)
		r.overhead = 1 - (double)(b->forward_ns - a->forward_ns + b->sample_ns -
					  a->sample_ns + b->swap_ns - a->swap_ns) /
					 step;
	return r;
}

/* ---- asking --------------------------------------------------------------------------------------- */

/* 0, or -errno with *why. */
static int take_sample(struct sample *out, const char *path, char *why, size_t why_len)
{
	struct llmdev_options o = {.path = path, .recovery_ms = -1};
	struct llmdev *d;
	int rc = llmdev_open(&d, &o, why, why_len);

	if (rc)
		return rc;
	rc = llmdev_status(d, &out->s, out->row, MAX_ROWS, ANSWER_MS);
	if (rc < 0)
		snprintf(why, why_len, "%s", llmdev_error(d));
	else
		out->n = rc;
	llmdev_close(d);
	return rc < 0 ? rc : 0;
}

/* ---- words ---------------------------------------------------------------------------------------- */

static const char *const states[] = {
	[LLM_SESSION_IDLE] = "idle",	   [LLM_SESSION_WAITING] = "waiting",
	[LLM_SESSION_PREFILL] = "prefill", [LLM_SESSION_DECODE] = "decode",
	[LLM_SESSION_PARKED] = "parked",   [LLM_SESSION_PREEMPTED] = "preempted",
};

static const char *state_of(const struct llm_status_session *r)
{
	return r->state < sizeof(states) / sizeof(states[0]) ? states[r->state] : "?";
}

/* Labels are the clients': nothing in them may reach the terminal as a control sequence. */
static const char *principal_of(const struct llm_status_session *r, char out[LLM_PRINCIPAL_MAX + 1])
{
	int n = 0;

	for (; n < LLM_PRINCIPAL_MAX && r->principal[n]; n++)
		out[n] = isgraph(r->principal[n]) ? (char)r->principal[n] : '?';
	out[n] = '\0';
	return n ? out : "-";
}

#define AGE_SIZE 24
static const char *age(char out[AGE_SIZE], uint64_t now_ns, uint64_t then_ns)
{
	uint64_t s = now_ns > then_ns ? (now_ns - then_ns) / 1000000000u : 0;

	if (!then_ns)
		snprintf(out, AGE_SIZE, "-");
	else if (s < 60)
		snprintf(out, AGE_SIZE, "%u s", (unsigned)s);
	else if (s < 3600)
		snprintf(out, AGE_SIZE, "%u:%02u min", (unsigned)(s / 60), (unsigned)(s % 60));
	else
		snprintf(out, AGE_SIZE, "%llu:%02u h", (unsigned long long)(s / 3600),
			 (unsigned)(s / 60 % 60));
	return out;
}

static void print_bar(FILE *f, const struct llm_status *s)
{
	double all = s->kv_pages ? s->kv_pages : 1;
	int held = (int)(s->kv_held / all * BAR_WIDTH + 0.5);
	int used = (int)(((double)s->kv_held + s->kv_cached) / all * BAR_WIDTH + 0.5);

	fputs("             [", f);
	for (int i = 0; i < BAR_WIDTH; i++)
		fputc(i < held ? '#' : i < used ? '+' : '.', f);
	fputs("]  # held  + cached  . free\n", f);
}

static void print_kv(FILE *f, const char *what, const struct llm_status *s, uint64_t pages)
{
	char size[FACTS_SIZE];

	fprintf(f, "%s %llu tokens (%s)", what, (unsigned long long)(pages * s->kv_page_tokens),
		facts_bytes(size, (int64_t)(pages * s->kv_page_bytes)));
}

static void print_totals(FILE *f, const struct llm_status *s, const struct rates *r, bool bar)
{
	char up[AGE_SIZE];

	fprintf(f, "%s: %s on %s, up %s, context %u, fingerprint %016llx\n", s->device, s->model,
		s->backend, age(up, s->now_ns, s->start_ns), s->context,
		(unsigned long long)s->fingerprint);
	fprintf(f, "sessions     %u of %u\n", s->sessions, s->max_sessions);
	fprintf(f,
		"requests     %u running (of %u), %u parked, %u waiting; %u of %u unfinished, of "
		"%u principals\n",
		s->running, s->max_batch, s->parked, s->waiting, s->unfinished, s->max_unfinished,
		s->principals);
	fprintf(f, "last step    %u answers, %u prompt tokens\n", s->batch_decode,
		s->batch_prefill);
	print_kv(f, "KV cache     held", s, s->kv_held);
	print_kv(f, ", cached", s, s->kv_cached);
	print_kv(f, ", free", s, s->kv_free);
	fputc('\n', f);
	if (bar)
		print_bar(f, s);
	fputs("prefixes     ", f);
	if (s->prompt_tokens)
		fprintf(f, "%.1f %% of %llu prompt tokens found computed",
			100.0 * (double)s->cached_tokens / (double)s->prompt_tokens,
			(unsigned long long)s->prompt_tokens);
	else
		fputs("no prompts yet", f);
	fprintf(f, ", %llu tokens evicted\n", (unsigned long long)s->evicted_tokens);
	if (s->swap_max_pages)
		fprintf(f, "swap         %llu of %llu pages, %llu out, %llu in\n",
			(unsigned long long)s->swap_pages, (unsigned long long)s->swap_max_pages,
			(unsigned long long)s->swapped_out, (unsigned long long)s->swapped_in);
	fprintf(f, "tokens/s     %.1f in, %.1f out, ", r->in, r->out);
	if (r->since_start)
		fputs("since the start", f);
	else
		fprintf(f, "in the last %.1f s", r->seconds);
	if (r->steps > 0)
		fprintf(f, "; %.1f ms a step, %.1f %% of it scheduling", r->step_ms,
			100 * r->overhead);
	fprintf(f,
		"\nsince start  %llu tokens in, %llu out; requests: %llu done, %llu cancelled, "
		"%llu failed, %llu refused, %llu times preempted\n",
		(unsigned long long)s->computed_tokens, (unsigned long long)s->generated_tokens,
		(unsigned long long)s->done, (unsigned long long)s->cancelled,
		(unsigned long long)s->failed, (unsigned long long)s->refused,
		(unsigned long long)s->preempted);
}

static void print_rows(FILE *f, const struct sample *p)
{
	char name[LLM_PRINCIPAL_MAX + 1], opened[AGE_SIZE], asked[AGE_SIZE];

	if (!p->n)
		return;
	fprintf(f, "\n%8s %8s %8s  %-16s %-9s %4s %4s %8s %6s %10s %10s\n", "SESSION", "UID", "PID",
		"PRINCIPAL", "STATE", "PRIO", "REQS", "TOKENS", "PAGES", "REQUEST", "AGE");
	for (int i = 0; i < p->n; i++) {
		const struct llm_status_session *r = &p->row[i];

		fprintf(f, "%8llu %8u %8d  %-16.16s %-9s %4d %4u %8u %6u %10s %10s\n",
			(unsigned long long)r->number, r->uid, r->pid, principal_of(r, name),
			state_of(r), r->priority, r->requests, r->tokens, r->pages,
			age(asked, p->s.now_ns, r->request_ns),
			age(opened, p->s.now_ns, r->opened_ns));
	}
	if ((uint32_t)p->n < p->s.sessions)
		fprintf(f, "(%u of %u sessions are shown)\n", p->n, p->s.sessions);
}

/* ---- forms ---------------------------------------------------------------------------------------- */

/* What a pipe gets of a sample under --watch. */
static void print_line(const struct sample *p, const struct rates *r)
{
	const struct llm_status *s = &p->s;
	struct tm tm;
	time_t now = time(NULL);
	char when[32];

	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S%z", localtime_r(&now, &tm));
	printf("%s sessions %u running %u parked %u waiting %u in %.1f/s out %.1f/s kv-held %u "
	       "kv-cached %u kv-free %u preempted %llu refused %llu\n",
	       when, s->sessions, s->running, s->parked, s->waiting, r->in, r->out, s->kv_held,
	       s->kv_cached, s->kv_free, (unsigned long long)s->preempted,
	       (unsigned long long)s->refused);
}

static const struct field {
	const char *name;
	size_t at;
	bool wide; /* __u64, else __u32 */
} fields[] = {
#define NARROW(f)                                                                                  \
	{                                                                                          \
#f, offsetof(struct llm_status, f), false                                          \
	}
#define WIDE(f)                                                                                    \
	{                                                                                          \
#f, offsetof(struct llm_status, f), true                                           \
	}
	NARROW(max_sessions),
	NARROW(max_batch),
	NARROW(running),
	NARROW(parked),
	NARROW(waiting),
	NARROW(unfinished),
	NARROW(max_unfinished),
	NARROW(principals),
	NARROW(batch_decode),
	NARROW(batch_prefill),
	NARROW(kv_page_tokens),
	NARROW(kv_pages),
	NARROW(kv_held),
	NARROW(kv_cached),
	NARROW(kv_free),
	NARROW(context),
	WIDE(kv_page_bytes),
	WIDE(swap_pages),
	WIDE(swap_max_pages),
	WIDE(weight_bytes),
	WIDE(submitted),
	WIDE(refused),
	WIDE(done),
	WIDE(cancelled),
	WIDE(failed),
	WIDE(preempted),
	WIDE(prompt_tokens),
	WIDE(cached_tokens),
	WIDE(computed_tokens),
	WIDE(recomputed_tokens),
	WIDE(generated_tokens),
	WIDE(evicted_tokens),
	WIDE(swapped_out),
	WIDE(swapped_in),
	WIDE(steps),
	WIDE(step_ns),
	WIDE(forward_ns),
	WIDE(sample_ns),
	WIDE(swap_ns),
#undef NARROW
#undef WIDE
};

static json_t *row_json(const struct llm_status_session *r, uint64_t now_ns)
{
	char name[LLM_PRINCIPAL_MAX + 1];
	json_t *j =
		json_pack("{sI sI si ss si si si si si}", "session", (json_int_t)r->number, "uid",
			  (json_int_t)r->uid, "pid", (int)r->pid, "state", state_of(r), "requests",
			  (int)r->requests, "tokens", (int)r->tokens, "pages", (int)r->pages,
			  "generated", (int)r->generated, "priority", (int)r->priority);

	json_object_set_new(j, "principal",
			    r->principal[0] ? json_string(principal_of(r, name)) : json_null());
	json_object_set_new(j, "age_s", json_real((double)(now_ns - r->opened_ns) / 1e9));
	json_object_set_new(j, "request_s",
			    r->request_ns ? json_real((double)(now_ns - r->request_ns) / 1e9)
					  : json_null());
	return j;
}

static void print_json(const struct sample *p, const struct rates *r, size_t flags)
{
	const struct llm_status *s = &p->s;
	json_t *j = json_object(), *rows = json_array();
	char fingerprint[20];

	snprintf(fingerprint, sizeof(fingerprint), "%016llx", (unsigned long long)s->fingerprint);
	json_object_set_new(j, "device", json_string((const char *)s->device));
	json_object_set_new(j, "model", json_string((const char *)s->model));
	json_object_set_new(j, "backend", json_string((const char *)s->backend));
	json_object_set_new(j, "fingerprint", json_string(fingerprint));
	json_object_set_new(j, "uptime_s", json_real((double)(s->now_ns - s->start_ns) / 1e9));
	json_object_set_new(j, "open_sessions", json_integer(s->sessions));
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		const char *at = (const char *)s + fields[i].at;
		uint64_t wide;
		uint32_t narrow;

		memcpy(&wide, at, fields[i].wide ? sizeof(wide) : 0);
		memcpy(&narrow, at, sizeof(narrow));
		json_object_set_new(j, fields[i].name,
				    json_integer(fields[i].wide ? (json_int_t)wide : narrow));
	}
	json_object_set_new(j, "interval_s", json_real(r->seconds));
	json_object_set_new(j, "interval_from_start", json_boolean(r->since_start));
	json_object_set_new(j, "in_tokens_per_s", json_real(r->in));
	json_object_set_new(j, "out_tokens_per_s", json_real(r->out));
	json_object_set_new(j, "hit_rate", r->hit < 0 ? json_null() : json_real(r->hit));
	for (int i = 0; i < p->n; i++)
		json_array_append_new(rows, row_json(&p->row[i], s->now_ns));
	json_object_set_new(j, "sessions", rows);
	json_dumpf(j, stdout, flags | JSON_REAL_PRECISION(6));
	putchar('\n');
	json_decref(j);
}

/* Draws over the last picture; nothing is wider or longer than the terminal. Returns its lines. */
static int draw(const struct sample *p, const struct rates *r, int old_lines)
{
	struct winsize ws = {0};
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	int lines = 0, cols, rows;

	if (!f)
		return old_lines;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) || !ws.ws_col || !ws.ws_row)
		ws = (struct winsize){.ws_col = 80, .ws_row = 24};
	cols = ws.ws_col;
	rows = ws.ws_row - 1;
	print_totals(f, &p->s, r, true);
	print_rows(f, p);
	if (fclose(f)) {
		free(text);
		return old_lines;
	}
	if (old_lines)
		printf("\033[%dA\r", old_lines);
	for (char *line = text, *end; *line && lines < rows; line = end + 1, lines++) {
		end = strchr(line, '\n');
		*end = '\0';
		printf("%.*s\033[K\n", cols, line);
	}
	printf("\033[J");
	fflush(stdout);
	free(text);
	return lines;
}

/* ---- watching ------------------------------------------------------------------------------------- */

/* Waits; true: somebody has seen enough (q, Ctrl-C, a closed pipe). */
static bool wait_or_quit(double seconds, bool keys)
{
	uint64_t end = ctl_now_ns() + (uint64_t)(seconds * 1e9);

	while (!ctl_sigint()) {
		struct pollfd p[] = {{keys ? STDIN_FILENO : -1, POLLIN, 0}, {STDOUT_FILENO, 0, 0}};
		uint64_t now = ctl_now_ns();
		char c;

		if (now >= end)
			return false;
		if (poll(p, 2, (int)((end - now + 999999) / 1000000)) < 0)
			continue;
		if (p[1].revents & (POLLERR | POLLNVAL))
			return true;
		if (!p[0].revents)
			continue;
		if (read(STDIN_FILENO, &c, 1) != 1)
			keys = false;
		else if (c == 'q' || c == 'Q')
			return true;
	}
	return true;
}

/* Single keys, not lines; false: stdin gives none. */
static bool take_keys(struct termios *old)
{
	struct termios t;

	if (!isatty(STDIN_FILENO) || tcgetpgrp(STDIN_FILENO) != getpgrp() ||
	    tcgetattr(STDIN_FILENO, old))
		return false;
	t = *old;
	t.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	return !tcsetattr(STDIN_FILENO, TCSANOW, &t);
}

static int watch(const char *path, double seconds, bool json)
{
	const char *term = getenv("TERM");
	bool picture = !json && isatty(STDOUT_FILENO) && term && *term && strcmp(term, "dumb");
	struct sample *both = calloc(2, sizeof(*both)), *now = both, *before = both + 1, *swap;
	bool keys, known = false, gone = false;
	struct termios old;
	struct rates r;
	char why[512];
	int lines = 0, rc = both ? 0 : ctl_fail("status: no memory");

	keys = !rc && picture && take_keys(&old);
	if (!rc)
		ctl_catch_sigint();
	while (!rc && !ctl_sigint()) {
		if (!take_sample(now, path, why, sizeof(why))) {
			gone = false;
			r = rates_of(known ? &before->s : NULL, &now->s);
			if (json)
				print_json(now, &r, JSON_COMPACT);
			else if (picture)
				lines = draw(now, &r, lines);
			else
				print_line(now, &r);
			if (fflush(stdout))
				break;
			swap = before;
			before = now;
			now = swap;
			known = true;
		} else if (!known) {
			rc = ctl_fail("%s", why);
			break;
		} else if (!gone) {
			fprintf(stderr, "[%s]\n", why);
			gone = true;
			lines = 0;
		}
		if (wait_or_quit(seconds, keys))
			break;
	}
	if (keys)
		tcsetattr(STDIN_FILENO, TCSANOW, &old);
	free(both);
	return rc;
}

static int once(const char *path, bool json)
{
	struct sample *p = calloc(2, sizeof(*p));
	const struct timespec pause = {.tv_nsec = (long)(INTERVAL * 1e9)};
	struct rates r;
	char why[512];
	int rc = -ENOMEM;

	if (!p)
		return ctl_fail("status: no memory");
	rc = take_sample(&p[0], path, why, sizeof(why));
	if (!rc) {
		nanosleep(&pause, NULL);
		rc = take_sample(&p[1], path, why, sizeof(why));
	}
	if (rc) {
		free(p);
		return ctl_fail("%s", why);
	}
	r = rates_of(&p[0].s, &p[1].s);
	if (json) {
		print_json(&p[1], &r, JSON_INDENT(2));
	} else {
		print_totals(stdout, &p[1].s, &r, isatty(STDOUT_FILENO));
		print_rows(stdout, &p[1]);
	}
	free(p);
	return 0;
}

int cmd_status(int argc, char **argv)
{
	static const struct option options[] = {
		{"socket", required_argument, NULL, OPT_SOCKET},
		{"watch", optional_argument, NULL, OPT_WATCH},
		{"json", no_argument, NULL, OPT_JSON},
		{NULL},
	};
	char path[LLMDEV_PATH_MAX] = "";
	const char *socket = NULL;
	double seconds = 0;
	bool json = false;
	int opt;

	opterr = 0;
	optind = 0;
	while ((opt = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (opt) {
		case OPT_SOCKET:
			socket = optarg;
			break;
		case OPT_WATCH:
			if (!ctl_watch(argc, argv, &seconds))
				return 2;
			break;
		case OPT_JSON:
			json = true;
			break;
		default:
			return ctl_bad_option(USAGE, argv);
		}
	}
	if (argc - optind > 1 || (socket && argc != optind))
		return ctl_usage(USAGE, "status: one daemon at a time");
	if (!socket) {
		ctl_find_socket(path, sizeof(path), argc > optind ? argv[optind] : "llm0");
		socket = path;
	}
	return seconds > 0 ? watch(socket, seconds, json) : once(socket, json);
}
