// SPDX-License-Identifier: MIT
/* What llmdev-policyd does about memory; see policyd.h. */
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "llm.h"
#include "memory/policy.h"
#include "policyd.h"

#define MODULE_EVERY_NS	 UINT64_C(10000000000)
#define RESERVE_EVERY_NS UINT64_C(30000000000) /* between two attempts to take it again */
#define SAME_START_NS	 UINT64_C(2000000000)
#define UNTIL_EVERY_NS	 UINT64_C(1000000000)

const char *counter_name(int i)
{
	return i == COUNTER_RESERVE ? "reserve" : room_step_name[i];
}

/* ---- counting -------------------------------------------------------------------------------- */

static void count(struct policyd *p, int which, const struct room_done *d)
{
	struct counter *c = &p->counter[which];
	struct recent *r = &p->recent[p->n_recent++ % MAX_RECENT];
	char freed[MEM_SIZE_TEXT], asked[MEM_SIZE_TEXT], before[MEM_SIZE_TEXT],
		after[MEM_SIZE_TEXT];

	c->calls++;
	c->failed += d->error != 0;
	c->asked += d->asked;
	c->freed += d->freed;
	c->ns += d->ns;
	/* What fails each time is said once. */
	if (d->error && strcmp(c->last_error, d->note))
		policyd_log("%s: %s", counter_name(which), d->note);
	if (d->error)
		snprintf(c->last_error, sizeof(c->last_error), "%s", d->note);
	else
		policyd_log(
			"%s: %s: %s asked, %s freed, MemFree %s -> %s, blocks %llu -> %llu, %.2f s "
			"(%s)",
			p->why, counter_name(which), mem_size(asked, d->asked),
			mem_size(freed, d->freed), mem_size(before, d->free_before),
			mem_size(after, d->free_after), (unsigned long long)d->blocks_before,
			(unsigned long long)d->blocks_after, (double)d->ns / 1e9, d->note);
	*r = (struct recent){.wall_s = (uint64_t)time(NULL), .counter = which, .done = *d};
	snprintf(r->why, sizeof(r->why), "%s", p->why);
}

static void told(void *ctx, const struct room_done *d)
{
	count(ctx, (int)d->step, d);
}

/* ---- the module ------------------------------------------------------------------------------ */

static void set_floors(struct policyd *p)
{
	struct llm_mem_floors f = {.size = sizeof(f),
				   .free = p->config.free,
				   .blocks = p->config.blocks};

	if (p->config.mode == MODE_OFF)
		f.free = f.blocks = 0;
	p->floors_are_module = !ioctl(p->control, LLM_IOC_MEM_FLOORS, &f) && (f.free || f.blocks);
	p->floors_note[0] = '\0';
	if (!p->floors_are_module && (f.free || f.blocks))
		snprintf(p->floors_note, sizeof(p->floors_note), "the module's floors: %s%s",
			 strerror(errno), errno == EBUSY ? ": another program has set some" : "");
	if (*p->floors_note)
		policyd_log("%s: memory is looked at each %g s", p->floors_note,
			    p->config.interval);
}

void act_module(struct policyd *p)
{
	struct err e;

	p->control_ns = policyd_clock();
	if (*p->root)
		return;
	if (p->control < 0) {
		p->control = room_control(&e);
		if (p->control < 0) {
			if (strcmp(p->floors_note, e.msg))
				policyd_log("%s: doing what can be done without", e.msg);
			snprintf(p->floors_note, sizeof(p->floors_note), "%.159s", e.msg);
			return;
		}
		fcntl(p->control, F_SETFL, O_NONBLOCK);
		policyd_log("the module llm is there");
	}
	set_floors(p);
}

/* Gives back what is missing: it is the least that anybody loses. */
static void reserve_give_back(struct policyd *p, uint64_t missing)
{
	struct llm_mem_status st = {.size = sizeof(st)};
	struct room_done d = {.asked = missing};
	uint64_t start = policyd_clock(), held;
	struct err e;

	if (p->control < 0 || !missing || ioctl(p->control, LLM_IOC_MEM_STATUS, &st) ||
	    !st.reserve_held)
		return;
	d.free_before = p->now.free;
	d.blocks_before = p->now.blocks;
	held = st.reserve_held > missing ? (st.reserve_held - missing) / MEM_BLOCK * MEM_BLOCK : 0;
	d.error = room_reserve(p->control, held, &held, &e);
	mem_now_read(&p->now, p->root, p->page, NULL);
	d.free_after = p->now.free;
	d.blocks_after = p->now.blocks;
	d.freed = d.free_after > d.free_before ? d.free_after - d.free_before : 0;
	d.ns = policyd_clock() - start;
	snprintf(d.note, sizeof(d.note), "%.255s", d.error ? e.msg : "given back");
	count(p, COUNTER_RESERVE, &d);
	p->reserve_retry_ns = start + RESERVE_EVERY_NS;
}

/* Takes the reserve, or the rest of it, when there is plenty. */
static void reserve_take(struct policyd *p)
{
	struct llm_mem_status st = {.size = sizeof(st)};
	char a[MEM_SIZE_TEXT], b[MEM_SIZE_TEXT];
	uint64_t now = policyd_clock(), want = act_reserve_wanted(&p->config), held, spare;
	struct err e;

	if (p->control < 0 || !want || now < p->reserve_retry_ns || act_held(p))
		return;
	p->reserve_retry_ns = now + RESERVE_EVERY_NS;
	if (ioctl(p->control, LLM_IOC_MEM_STATUS, &st) || st.reserve_held >= want)
		return;
	spare = (uint64_t)((double)p->config.free * (1 + p->config.hysteresis));
	spare = p->now.free > spare ? p->now.free - spare : 0;
	if (want > st.reserve_held + spare)
		want = (st.reserve_held + spare) / MEM_BLOCK * MEM_BLOCK;
	if (want <= st.reserve_held)
		return;
	if (room_reserve(p->control, want, &held, &e))
		policyd_log("%s", e.msg);
	else
		policyd_log("reserve: %s of %s held", mem_size(a, held),
			    mem_size(b, p->config.reserve));
}

uint64_t act_reserve_wanted(const struct config *c)
{
	return c->mode >= MODE_AUTO ? c->reserve / MEM_BLOCK * MEM_BLOCK : 0;
}

void act_reserve_lower(struct policyd *p)
{
	struct llm_mem_status st = {.size = sizeof(st)};
	uint64_t want = act_reserve_wanted(&p->config), held;
	char a[MEM_SIZE_TEXT];
	struct err e;

	if (p->control < 0 || ioctl(p->control, LLM_IOC_MEM_STATUS, &st) || st.reserve_held <= want)
		return;
	if (room_reserve(p->control, want, &held, &e))
		policyd_log("%s", e.msg);
	else
		policyd_log("reserve: %s held, by the new configuration", mem_size(a, held));
}

/* ---- room ------------------------------------------------------------------------------------ */

static void act(struct policyd *p, const struct room_goal *goal, const char *why)
{
	const struct config *c = &p->config;
	struct room_means m = {
		.root = p->root,
		.page = p->page,
		.allowed = mode_allows(c->mode),
		.files = c->files.v,
		.n_files = c->files.n,
		.filesystems = c->filesystems.v,
		.n_filesystems = c->filesystems.n,
		.cgroups = c->cgroups.v,
		.n_cgroups = c->cgroups.n,
		.control = p->control,
		.deadline_ns = policyd_clock() + ACT_NS,
	};
	struct err e;

	p->why = why;
	p->actions++;
	if (c->mode >= MODE_AUTO)
		reserve_give_back(p, room_missing(goal, &p->now));
	if (room_make(&m, goal, told, p, &p->now, &e))
		policyd_log("%s", e.msg);
}

int act_room(struct policyd *p, uint64_t bytes, const char *why, struct err *e)
{
	uint64_t held = act_held(p);
	struct room_goal goal = {.free = bytes > held ? bytes : held};

	if (mem_now_read(&p->now, p->root, p->page, e))
		return -EIO;
	if (room_reached(&goal, &p->now))
		return 0;
	goal.free += room_margin(goal.free);
	if (p->config.mode < MODE_FILES)
		return err_set(e, -EPERM,
			       "no room is made in mode %s: mode = files, fs, auto or global "
			       "in " CONFIG_DIR " lets it",
			       mode_name[p->config.mode]);
	act(p, &goal, why);
	return 0;
}

/* ---- holds ----------------------------------------------------------------------------------- */

uint64_t act_held(const struct policyd *p)
{
	uint64_t sum = 0;

	for (int i = 0; i < MAX_HOLDS; i++)
		if (p->hold[i].id)
			sum += room_hold_left(&p->hold[i].room, &p->now);
	return sum;
}

int act_hold(struct policyd *p, uint64_t bytes, const struct until *until, double seconds,
	     int client, const char *who, bool *reached, struct err *e)
{
	struct holding *h = NULL;
	char size[MEM_SIZE_TEXT];
	uint64_t before, now;
	int rc;

	for (int i = 0; !h && i < MAX_HOLDS; i++)
		if (!p->hold[i].id)
			h = &p->hold[i];
	if (!h)
		return err_set(e, -ENOSPC, "%d holds at once are too many: llmctl reserve release",
			       MAX_HOLDS);
	if (mem_now_read(&p->now, p->root, p->page, e))
		return -EIO;
	before = act_held(p);
	if (bytes > p->now.total || before > p->now.total - bytes)
		return err_set(e, -EINVAL,
			       "with what others hold this is more than the machine has");
	rc = act_room(p, before + bytes, who, e);
	if (rc)
		return rc;
	*reached = p->now.free >= before + bytes;
	now = policyd_clock();
	*h = (struct holding){.id = ++p->next_hold,
			      .room = {bytes, room_used(&p->now)},
			      .client = client,
			      .begin_ns = now,
			      .has_until = until != NULL,
			      .end_ns = now + (uint64_t)(seconds * 1e9)};
	if (until)
		h->until = *until;
	snprintf(h->who, sizeof(h->who), "%s", who);
	policyd_log("%s held for %s%s%s, %.0f s at most", mem_size(size, bytes), who,
		    until ? ", until " : "", until ? until->text : "", seconds);
	return 0;
}

static void hold_over(struct holding *h, const char *why)
{
	policyd_log("room for %s is held no longer: %s", h->who, why);
	h->id = 0;
}

void act_release(struct policyd *p, int client)
{
	for (int i = 0; i < MAX_HOLDS; i++)
		if (p->hold[i].id && (client == -2 || (client >= 0 && p->hold[i].client == client)))
			hold_over(&p->hold[i], client == -2 ? "released" : "its client has gone");
}

void act_release_all(struct policyd *p)
{
	uint64_t held;
	struct err e;

	act_release(p, -2);
	if (p->control >= 0 && room_reserve(p->control, 0, &held, &e))
		policyd_log("%s", e.msg);
	p->reserve_retry_ns = policyd_clock() + 2 * RESERVE_EVERY_NS;
}

static void holds_tick(struct policyd *p)
{
	uint64_t now = policyd_clock();
	struct err e;

	for (int i = 0; i < MAX_HOLDS; i++) {
		struct holding *h = &p->hold[i];
		int rc;

		if (!h->id)
			continue;
		if (now >= h->end_ns) {
			hold_over(h, "its time is over");
			continue;
		}
		if (!h->has_until || now - h->asked_ns < UNTIL_EVERY_NS)
			continue;
		rc = until_holds(&h->until, &e);
		h->asked_ns = policyd_clock();
		if (rc)
			hold_over(h, rc > 0 ? h->until.text : e.msg);
	}
}

/* A cgroup may be told of twice; one that is made again later replaces what was held for it. */
static bool starts_anew(struct policyd *p, const char *who)
{
	for (int i = 0; i < MAX_HOLDS; i++) {
		struct holding *h = &p->hold[i];

		if (!h->id || strcmp(h->who, who))
			continue;
		if (policyd_clock() - h->begin_ns < SAME_START_NS)
			return false;
		hold_over(h, "it starts again");
	}
	return true;
}

void act_started(void *ctx, const char *cgroup)
{
	struct policyd *p = ctx;

	for (size_t i = 0; i < p->config.n_triggers; i++) {
		const struct trigger *t = &p->config.trigger[i];
		char who[128];
		bool reached = true;
		struct err e;

		if (fnmatch(t->pattern, cgroup, 0))
			continue;
		snprintf(who, sizeof(who), "start %.30s (%.80s)", t->name, cgroup);
		if (!starts_anew(p, who))
			continue;
		p->triggers++;
		if (act_hold(p, t->room, t->has_until ? &t->until : NULL, t->seconds, -1, who,
			     &reached, &e))
			policyd_log("%s: %s", who, e.msg);
		else if (!reached)
			policyd_log("%s: less room than asked", who);
	}
}

/* ---- each interval --------------------------------------------------------------------------- */

void act_tick(struct policyd *p)
{
	uint64_t now = policyd_clock(), missing;
	bool was_below = p->judge.below;
	struct room_goal goal;
	char a[MEM_SIZE_TEXT];
	struct err e;

	if (p->control < 0 && now - p->control_ns > MODULE_EVERY_NS)
		act_module(p);
	if (p->config.mode == MODE_OFF)
		return;
	if (mem_now_read(&p->now, p->root, p->page, &e)) {
		policyd_log("%s", e.msg);
		return;
	}
	holds_tick(p);
	if (!judge_look(&p->judge, &p->config, act_held(p), &p->now, now, &goal)) {
		if (was_below && !p->judge.below)
			policyd_log("above the floors again");
		reserve_take(p);
		return;
	}
	missing = room_missing(&goal, &p->now);
	if (p->config.mode == MODE_OBSERVE) {
		p->observed++;
		if (!was_below)
			policyd_log("below a floor: MemFree %s, %llu free blocks (observing only)",
				    mem_size(a, p->now.free), (unsigned long long)p->now.blocks);
		judge_acted(&p->judge, &p->config, &goal, missing, &p->now, now);
		return;
	}
	act(p, &goal, "floor");
	judge_acted(&p->judge, &p->config, &goal, missing, &p->now, policyd_clock());
}
