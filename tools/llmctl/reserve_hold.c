// SPDX-License-Identifier: MIT
/* Room that is made and held; see reserve.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ctl.h"
#include "memory/policy.h"
#include "reserve.h"

/* What the steps say, kept for a refusal. */
struct told {
	char text[900];
	size_t n;
	bool quiet;
};

static void tell(void *ctx, const struct room_done *d)
{
	struct told *t = ctx;
	char a[MEM_SIZE_TEXT];

	if (t->n < sizeof(t->text) && d->error)
		t->n += (size_t)snprintf(t->text + t->n, sizeof(t->text) - t->n, "%s%s: %s",
					 t->n ? "; " : "", room_step_name[d->step], d->note);
	if (!t->quiet && !d->error)
		fprintf(stderr, "[%s: %s: MemFree grew by %s in %.1f s]\n", room_step_name[d->step],
			d->note, mem_size(a, d->freed), (double)d->ns / 1e9);
}

static int ask_policyd(struct hold *h, const char *until, struct err *e)
{
	json_t *q = json_pack("{ss sI sf ss*}", "op", "hold", "bytes", (json_int_t)h->room.bytes,
			      "seconds", h->o->seconds, "until", until);
	json_t *answer;
	int rc;

	h->policyd = policyd_connect(NULL, e);
	if (h->policyd < 0) {
		json_decref(q);
		return h->policyd;
	}
	rc = policyd_ask(h->policyd, q, 300, &answer, e);
	if (rc) {
		close(h->policyd);
		h->policyd = -1;
		return rc;
	}
	if (!h->o->quiet)
		fprintf(stderr, "[llmdev-policyd holds it]\n");
	json_decref(answer);
	return 0;
}

static int refuse(const struct hold *h, const struct mem_now *n, const char *why)
{
	char a[MEM_SIZE_TEXT], b[MEM_SIZE_TEXT], c[MEM_SIZE_TEXT], d[MEM_SIZE_TEXT];

	return ctl_fail(
		"reserve: %s asked, MemFree is %s: %s missing (%s of clean page cache is "
		"there)%s%s: --files, --fs or --drop-caches name more that may go; --anyway "
		"goes on with what there is",
		mem_size(a, h->room.bytes), mem_size(b, n->free),
		mem_size(c, h->room.bytes - n->free),
		mem_size(d, n->cached > n->dirty ? n->cached - n->dirty : 0), *why ? ": " : "",
		why);
}

static int make(struct hold *h, struct told *t, struct mem_now *n, struct err *e)
{
	struct room_goal goal = {.free = h->room.bytes};

	if (room_reached(&goal, n))
		return 0;
	goal.free += room_margin(goal.free);
	return room_make(&h->o->means, &goal, tell, t, n, e);
}

int hold_begin(struct hold *h, const struct reserve_opts *o, const char *until)
{
	struct told t = {.quiet = o->quiet};
	struct mem_now n;
	struct err e;
	int rc;

	*h = (struct hold){.policyd = -1, .room = {.bytes = o->bytes}, .o = o};
	rc = mem_now_read(&n, o->means.root, o->means.page, &e);
	if (rc)
		return ctl_fail("reserve: %s", e.msg);
	if (o->bytes > n.total) {
		char a[MEM_SIZE_TEXT], b[MEM_SIZE_TEXT];

		return ctl_fail("reserve: %s: this machine has %s: ask for less",
				mem_size(a, o->bytes), mem_size(b, n.total));
	}
	if (n.free < o->bytes && !o->quiet) {
		char a[MEM_SIZE_TEXT], b[MEM_SIZE_TEXT];

		fprintf(stderr, "[MemFree is %s: making room for %s]\n", mem_size(a, n.free),
			mem_size(b, o->bytes));
	}
	if (!*o->means.root) {
		rc = ask_policyd(h, until, &e);
		if (rc && until)
			return ctl_fail("reserve: %s", e.msg);
		/* Its policy may forbid what an administrator's command does all the same. */
		if (rc && rc != -ENOENT && rc != -ECONNREFUSED && !o->quiet)
			fprintf(stderr, "[%s]\n", e.msg);
	}
	/* Whatever policyd's policy left undone is done here, as far as this user may. */
	rc = make(h, &t, &n, &e);
	if (rc) {
		hold_end(h);
		return ctl_fail("reserve: %s", e.msg);
	}
	if (n.free < o->bytes && !o->anyway) {
		hold_end(h);
		return refuse(h, &n, t.text);
	}
	h->room.used = room_used(&n);
	h->end_ns = ctl_now_ns() + (uint64_t)(o->seconds * 1e9);
	return 0;
}

void hold_tick(struct hold *h)
{
	struct room_goal goal;
	struct mem_now n;

	if (!h->end_ns)
		return;
	if (ctl_now_ns() > h->end_ns) {
		if (!h->o->quiet)
			fprintf(stderr, "[room is held no longer: %g s have passed]\n",
				h->o->seconds);
		hold_end(h);
		return;
	}
	if (h->policyd >= 0 || mem_now_read(&n, h->o->means.root, h->o->means.page, NULL))
		return;
	goal.blocks = 0;
	goal.free = room_hold_left(&h->room, &n);
	goal.free += room_margin(goal.free) / 2;
	if (!room_reached(&goal, &n)) {
		struct room_means m = h->o->means;

		goal.free += room_margin(goal.free) / 2;
		/* One tick must not keep signals and output waiting. */
		m.deadline_ns = ctl_now_ns() + 2ull * RESERVE_TICK_MS * 1000000;
		room_make(&m, &goal, NULL, NULL, &n, NULL);
	}
}

void hold_end(struct hold *h)
{
	if (h->policyd >= 0)
		close(h->policyd);
	h->policyd = -1;
	h->end_ns = 0;
}
