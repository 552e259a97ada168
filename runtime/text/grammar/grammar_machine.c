// SPDX-License-Identifier: MIT
/*
 * A program at work: sets of threads, made when first reached. Stacks are lists of frames that
 * share their tails; equal frames are one frame, so that equal threads are equal numbers and a set
 * of threads can be looked up. A counted repetition is a frame that holds how often its body has
 * matched.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "text/grammar/grammar_int.h"

static bool room(struct machine *m, void *v, uint32_t n, uint32_t *cap, uint32_t more, size_t size)
{
	void **p = v, *q;
	uint32_t want = *cap ? *cap : 64;

	while (want < n + more)
		want *= 2;
	if (want == *cap)
		return true;
	q = realloc(*p, want * size);
	if (!q) {
		m->oom = true;
		return false;
	}
	*p = q;
	*cap = want;
	return true;
}

static uint32_t mix(uint64_t h)
{
	h *= 0x9e3779b97f4a7c15u;
	h ^= h >> 32;
	h *= 0xff51afd7ed558ccdu;
	return (uint32_t)(h >> 32);
}

/* ---- frames -------------------------------------------------------------------------------- */

static uint32_t hash_frame(const struct frame *f)
{
	return mix(((uint64_t)f->parent << 32 | f->pc) ^ (uint64_t)f->count << 17);
}

static uint32_t *frame_slot(struct machine *m, const struct frame *f)
{
	uint32_t k = hash_frame(f) & (m->fr_hash_cap - 1);

	while (m->fr_hash[k]) {
		const struct frame *o = &m->fr[m->fr_hash[k]];

		if (o->parent == f->parent && o->pc == f->pc && o->count == f->count)
			break;
		k = (k + 1) & (m->fr_hash_cap - 1);
	}
	return &m->fr_hash[k];
}

static bool rehash_frames(struct machine *m, uint32_t cap)
{
	uint32_t *h = calloc(cap, sizeof(*h));

	if (!h) {
		m->oom = true;
		return false;
	}
	free(m->fr_hash);
	m->fr_hash = h;
	m->fr_hash_cap = cap;
	for (uint32_t i = 1; i < m->n_fr; i++)
		*frame_slot(m, &m->fr[i]) = i;
	return true;
}

/* 0: no memory or too deep. */
static uint32_t push_frame(struct machine *m, uint32_t parent, uint32_t pc, uint32_t count)
{
	struct frame f = {parent, pc, count, m->fr[parent].depth + 1};
	uint32_t *slot;

	if (f.depth > MACHINE_MAX_DEPTH)
		return 0;
	if (m->n_fr * 2 >= m->fr_hash_cap && !rehash_frames(m, m->fr_hash_cap * 2))
		return 0;
	slot = frame_slot(m, &f);
	if (*slot)
		return *slot;
	if (!room(m, &m->fr, m->n_fr, &m->cap_fr, 1, sizeof(*m->fr)))
		return 0;
	m->fr[m->n_fr] = f;
	*slot = m->n_fr;
	return m->n_fr++;
}

/* ---- states -------------------------------------------------------------------------------- */

static uint32_t hash_threads(const struct thread *t, uint32_t n, bool accept)
{
	uint64_t h = n * 2 + accept;

	for (uint32_t i = 0; i < n; i++) {
		h = (h ^ ((uint64_t)t[i].pc << 32 | t[i].frame)) * 0x9e3779b97f4a7c15u;
		h ^= h >> 29;
	}
	return mix(h);
}

static uint32_t *state_slot(struct machine *m, const struct thread *t, uint32_t n, bool accept)
{
	uint32_t k = hash_threads(t, n, accept) & (m->st_hash_cap - 1);

	while (m->st_hash[k]) {
		const struct state *s = &m->st[m->st_hash[k]];

		if (s->n_thr == n && s->accept == accept &&
		    (!n || !memcmp(m->thr + s->thr, t, n * sizeof(*t))))
			break;
		k = (k + 1) & (m->st_hash_cap - 1);
	}
	return &m->st_hash[k];
}

static bool rehash_states(struct machine *m, uint32_t cap)
{
	uint32_t *h = calloc(cap, sizeof(*h));

	if (!h) {
		m->oom = true;
		return false;
	}
	free(m->st_hash);
	m->st_hash = h;
	m->st_hash_cap = cap;
	for (uint32_t i = 2; i < m->n_st; i++) {
		const struct state *s = &m->st[i];

		*state_slot(m, m->thr + s->thr, s->n_thr, s->accept) = i;
	}
	return true;
}

/* The state of these threads (sorted). ST_UNKNOWN: no memory. */
static uint32_t make_state(struct machine *m, const struct thread *t, uint32_t n, bool accept)
{
	uint32_t *slot, cap = m->cap_st, charge;

	if (!n && !accept)
		return ST_DEAD;
	if (m->n_st * 2 >= m->st_hash_cap && !rehash_states(m, m->st_hash_cap * 2))
		return ST_UNKNOWN;
	slot = state_slot(m, t, n, accept);
	if (*slot)
		return *slot;
	/* new states are charged for their memory too */
	charge = n + (uint32_t)m->n_sym / 4;
	if (m->budget < charge) {
		m->spent = true;
		return ST_UNKNOWN;
	}
	m->budget -= charge;
	if (!room(m, &m->thr, m->n_thr, &m->cap_thr, n, sizeof(*m->thr)) ||
	    !room(m, &m->st, m->n_st, &m->cap_st, 1, sizeof(*m->st)))
		return ST_UNKNOWN;
	if (m->cap_st != cap) {
		uint32_t *next = realloc(m->next, (size_t)m->cap_st * m->n_sym * sizeof(*next));

		if (!next) {
			m->cap_st = cap;
			m->oom = true;
			return ST_UNKNOWN;
		}
		m->next = next;
	}
	m->st[m->n_st] = (struct state){.thr = m->n_thr, .n_thr = n, .accept = accept};
	if (n)
		memcpy(m->thr + m->n_thr, t, n * sizeof(*t));
	m->n_thr += n;
	memset(m->next + (size_t)m->n_st * m->n_sym, 0, m->n_sym * sizeof(*m->next));
	*slot = m->n_st;
	return m->n_st++;
}

/* ---- a step -------------------------------------------------------------------------------- */

static void seen_clear(struct machine *m)
{
	m->n_seen = 0;
	if (++m->epoch == 0) {
		memset(m->seen, 0, m->cap_seen * sizeof(*m->seen));
		m->epoch = 1;
	}
}

static bool seen_grow(struct machine *m)
{
	typeof(m->seen) old = m->seen, v = calloc(m->cap_seen * 2, sizeof(*v));
	uint32_t n = m->cap_seen, k;

	if (!v) {
		m->oom = true;
		return false;
	}
	m->seen = v;
	m->cap_seen = n * 2;
	for (uint32_t i = 0; i < n; i++) {
		if (old[i].epoch != m->epoch)
			continue;
		k = mix((uint64_t)old[i].t.pc << 32 | old[i].t.frame) & (m->cap_seen - 1);
		while (v[k].epoch == m->epoch)
			k = (k + 1) & (m->cap_seen - 1);
		v[k] = old[i];
	}
	free(old);
	return true;
}

/* Put a thread on the list of those to follow, once. */
static void follow(struct machine *m, uint32_t pc, uint32_t frame)
{
	uint32_t k;

	if (m->n_seen * 2 >= m->cap_seen && !seen_grow(m))
		return;
	k = mix((uint64_t)pc << 32 | frame) & (m->cap_seen - 1);
	while (m->seen[k].epoch == m->epoch) {
		if (m->seen[k].t.pc == pc && m->seen[k].t.frame == frame)
			return;
		k = (k + 1) & (m->cap_seen - 1);
	}
	m->seen[k].t = (struct thread){pc, frame};
	m->seen[k].epoch = m->epoch;
	m->n_seen++;
	if (room(m, &m->work, m->n_work, &m->cap_work, 1, sizeof(*m->work)))
		m->work[m->n_work++] = (struct thread){pc, frame};
}

static void count_round(struct machine *m, const struct inst *loop, uint32_t frame)
{
	struct frame f = m->fr[frame];
	const struct counter *c = &m->prog->counter[loop->c];

	if (c->max == GB_INF || f.count < c->max)
		follow(m, loop->a, frame);
	if (f.count >= c->min)
		follow(m, loop->b, f.parent);
}

/* From the threads in work to those that read something, in found; *accept: one has ended. */
static void close_threads(struct machine *m, bool *accept)
{
	const struct program *p = m->prog;
	uint32_t f;

	while (m->n_work && !m->oom) {
		struct thread t = m->work[--m->n_work];
		const struct inst *i = &p->inst[t.pc];

		if (!m->budget) {
			m->spent = true;
			return;
		}
		m->budget--;
		switch (i->op) {
		case OP_MARK:
			if (m->as_text >> i->a & 1) {
				follow(m, i->c, t.frame);
				break;
			}
			/* fall through */
		case OP_BYTE:
		case OP_SET:
			if (m->n_found < MACHINE_MAX_THREADS &&
			    room(m, &m->found, m->n_found, &m->cap_found, 1, sizeof(*m->found)))
				m->found[m->n_found++] = t;
			break;
		case OP_SPLIT:
			follow(m, i->b, t.frame);
			follow(m, i->a, t.frame);
			break;
		case OP_CALL:
			f = i->b ? push_frame(m, t.frame, i->b, 0) : t.frame;
			if (f || !i->b)
				follow(m, p->entry[i->a], f);
			break;
		case OP_RET:
			if (!t.frame)
				*accept = true;
			else
				follow(m, m->fr[t.frame].pc, m->fr[t.frame].parent);
			break;
		case OP_ENTER:
			f = push_frame(m, t.frame, i->a, 0);
			if (f)
				count_round(m, &p->inst[i->a], f);
			break;
		case OP_LOOP:
			count_round(m, i, t.frame);
			break;
		case OP_INC: {
			struct frame old = m->fr[t.frame];
			const struct counter *c = &p->counter[p->inst[i->a].c];
			uint32_t n = old.count + 1;

			if (c->max == GB_INF && n > c->min)
				n = c->min;
			f = push_frame(m, old.parent, old.pc, n);
			if (f)
				count_round(m, &p->inst[i->a], f);
			break;
		}
		}
	}
}

static int by_thread(const void *x, const void *y)
{
	const struct thread *a = x, *b = y;

	if (a->pc != b->pc)
		return a->pc < b->pc ? -1 : 1;
	return a->frame < b->frame ? -1 : a->frame > b->frame;
}

/* The state of what close_threads() finds; ST_UNKNOWN: no memory or budget spent. */
static uint32_t closed_state(struct machine *m)
{
	bool accept = false;

	m->n_found = 0;
	m->spent = false;
	close_threads(m, &accept);
	m->n_work = 0;
	if (m->oom || m->spent)
		return ST_UNKNOWN;
	if (m->n_found > 1)
		qsort(m->found, m->n_found, sizeof(*m->found), by_thread);
	return make_state(m, m->found, m->n_found, accept);
}

uint32_t machine_step_slow(struct machine *m, uint32_t s, uint32_t sym)
{
	const struct program *p = m->prog;
	uint32_t to, n = m->st[s].n_thr;

	if (m->oom || m->budget < n) {
		m->spent = true;
		m->budget = 0;
		return ST_DEAD;
	}
	m->budget -= n;
	seen_clear(m);
	m->n_work = 0;
	for (uint32_t i = 0; i < n; i++) {
		struct thread t = m->thr[m->st[s].thr + i];
		const struct inst *x = &p->inst[t.pc];
		bool hit;

		if (sym >= (uint32_t)p->n_class)
			hit = x->op == OP_MARK && x->a == sym - (uint32_t)p->n_class;
		else if (x->op == OP_BYTE)
			hit = x->a == p->rep[sym];
		else
			hit = x->op == OP_SET && set_has(&p->set[x->a], p->rep[sym]);
		if (hit)
			follow(m, x->b, t.frame);
	}
	to = closed_state(m);
	if (to == ST_UNKNOWN)
		return ST_DEAD;
	m->next[(size_t)s * m->n_sym + sym] = to;
	return to;
}

/* ---- states that allow the same ------------------------------------------------------------- */

static uint32_t alike_count(const struct machine *m, const struct frame *f, uint32_t reach)
{
	const struct inst *i = &m->prog->inst[f->pc];
	const struct counter *c;

	if (i->op != OP_LOOP)
		return f->count;
	c = &m->prog->counter[i->c];
	if (f->count < c->min)
		return (uint64_t)f->count + reach < c->min ? 0 : f->count;
	/* an unbounded one stays at its minimum */
	return (uint64_t)f->count + reach < c->max ? c->min : f->count;
}

/* 0: no memory */
static uint32_t alike_frame(struct machine *m, uint32_t f, uint32_t reach)
{
	uint32_t path[MACHINE_MAX_DEPTH + 1], n = 0, to = 0;

	if (m->n_fr > m->cap_alike) {
		uint32_t *v = realloc(m->alike, m->cap_fr * sizeof(*v));

		if (!v) {
			m->oom = true;
			return 0;
		}
		memset(v + m->cap_alike, 0, (m->cap_fr - m->cap_alike) * sizeof(*v));
		m->alike = v;
		m->cap_alike = m->cap_fr;
	}
	for (; f && !m->alike[f]; f = m->fr[f].parent)
		path[n++] = f;
	to = f ? m->alike[f] : 0;
	while (n) {
		struct frame x = m->fr[path[--n]];

		to = push_frame(m, to, x.pc, alike_count(m, &x, reach));
		if (!to)
			return 0;
		m->alike[path[n]] = to;
	}
	return to;
}

uint32_t machine_alike(struct machine *m, uint32_t s, uint32_t reach)
{
	uint32_t n = m->st[s].n_thr, k = 0, to;
	bool other = false;

	if (m->st[s].alike)
		return m->st[s].alike;
	if (!m->prog->n_counter)
		return s;
	if (!room(m, &m->found, 0, &m->cap_found, n + 1, sizeof(*m->found)))
		return ST_UNKNOWN;
	for (uint32_t i = 0; i < n; i++) {
		struct thread t = m->thr[m->st[s].thr + i];
		uint32_t f = t.frame ? alike_frame(m, t.frame, reach) : 0;

		if (t.frame && !f)
			return ST_UNKNOWN;
		other |= f != t.frame;
		m->found[i] = (struct thread){t.pc, f};
	}
	if (!other) {
		m->st[s].alike = s;
		return s;
	}
	qsort(m->found, n, sizeof(*m->found), by_thread);
	for (uint32_t i = 0; i < n; i++) {
		if (!k || by_thread(&m->found[k - 1], &m->found[i]))
			m->found[k++] = m->found[i];
	}
	m->budget = MACHINE_MASK_WORK;
	to = make_state(m, m->found, k, m->st[s].accept);
	if (to != ST_UNKNOWN)
		m->st[s].alike = to;
	return to;
}

/* ---- beginning and end ---------------------------------------------------------------------- */

static bool set_up(struct machine *m)
{
	uint32_t s;

	if (!room(m, &m->st, 0, &m->cap_st, 2, sizeof(*m->st)) ||
	    !room(m, &m->fr, 0, &m->cap_fr, 1, sizeof(*m->fr)))
		return false;
	m->next = calloc((size_t)m->cap_st * m->n_sym, sizeof(*m->next));
	m->cap_seen = 256;
	m->seen = calloc(m->cap_seen, sizeof(*m->seen));
	if (!m->next || !m->seen)
		return false;
	m->n_st = 2;
	memset(m->st, 0, 2 * sizeof(*m->st));
	m->n_fr = 1;
	m->fr[0] = (struct frame){0};
	if (!rehash_frames(m, 256) || !rehash_states(m, 256))
		return false;
	/* what is dead stays so */
	for (int i = 0; i < m->n_sym; i++)
		m->next[(size_t)ST_DEAD * m->n_sym + i] = ST_DEAD;
	m->budget = MACHINE_MASK_WORK;
	seen_clear(m);
	follow(m, m->prog->entry[m->prog->root], 0);
	s = closed_state(m);
	m->start = s;
	return s != ST_UNKNOWN;
}

int machine_init(struct machine *m, struct program *p, uint32_t as_text)
{
	int rc;

	memset(m, 0, sizeof(*m));
	m->limit = MACHINE_MEMORY;
	m->prog = program_ref(p);
	m->as_text = as_text;
	m->n_sym = p->n_class + p->n_mark;
	if (set_up(m))
		return 0;
	rc = m->spent ? -E2BIG : -ENOMEM;
	machine_fini(m);
	return rc;
}

void machine_fini(struct machine *m)
{
	program_unref(m->prog);
	free(m->st);
	free(m->next);
	free(m->thr);
	free(m->fr);
	free(m->alike);
	free(m->st_hash);
	free(m->fr_hash);
	free(m->work);
	free(m->found);
	free(m->seen);
	memset(m, 0, sizeof(*m));
}

size_t machine_memory(const struct machine *m)
{
	return m->cap_st * (sizeof(*m->st) + m->n_sym * sizeof(*m->next)) +
	       m->cap_thr * sizeof(*m->thr) + m->cap_fr * sizeof(*m->fr) +
	       (m->st_hash_cap + m->fr_hash_cap + m->cap_alike) * sizeof(uint32_t) +
	       m->cap_seen * sizeof(*m->seen);
}

/* frame of `old` in the new machine, pushing what is missing of its stack */
static bool copy_frame(struct machine *m, const struct machine *old, uint32_t *map, uint32_t f)
{
	uint32_t path[MACHINE_MAX_DEPTH + 1], n = 0;

	for (; f && !map[f]; f = old->fr[f].parent)
		path[n++] = f;
	while (n) {
		const struct frame *x = &old->fr[path[--n]];

		map[path[n]] = push_frame(m, map[x->parent], x->pc, x->count);
		if (!map[path[n]])
			return false;
	}
	return true;
}

int machine_shrink(struct machine *m, uint32_t **keep, size_t n)
{
	struct machine fresh;
	uint32_t *map = calloc(m->n_fr, sizeof(*map));
	uint32_t *now = calloc(n + 1, sizeof(*now));
	int rc = map && now ? machine_init(&fresh, m->prog, m->as_text) : -ENOMEM;

	for (size_t i = 0; i < n && !rc; i++) {
		struct state s = m->st[*keep[i]];

		now[i] = *keep[i];
		if (*keep[i] <= ST_DEAD)
			continue;
		fresh.n_found = 0;
		fresh.budget = UINT32_MAX;
		if (!room(&fresh, &fresh.found, 0, &fresh.cap_found, s.n_thr + 1,
			  sizeof(*fresh.found)))
			rc = -ENOMEM;
		for (uint32_t k = 0; k < s.n_thr && !rc; k++) {
			struct thread t = m->thr[s.thr + k];

			if (!copy_frame(&fresh, m, map, t.frame))
				rc = -ENOMEM;
			fresh.found[k] = (struct thread){t.pc, map[t.frame]};
		}
		if (!rc && s.n_thr > 1)
			qsort(fresh.found, s.n_thr, sizeof(*fresh.found), by_thread);
		if (!rc) {
			now[i] = make_state(&fresh, fresh.found, s.n_thr, s.accept);
			rc = now[i] == ST_UNKNOWN ? -ENOMEM : 0;
		}
	}
	if (!rc) {
		for (size_t i = 0; i < n; i++)
			*keep[i] = now[i];
		machine_fini(m);
		*m = fresh;
		m->limit = 2 * machine_memory(m);
		m->limit = m->limit < MACHINE_MEMORY ? MACHINE_MEMORY : m->limit;
	} else if (map && now && fresh.prog) {
		machine_fini(&fresh);
	}
	free(map);
	free(now);
	return rc;
}
