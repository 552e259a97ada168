// SPDX-License-Identifier: MIT
/*
 * The page pool, the prefix cache, the swap file and the snapshots, by themselves: random use is
 * compared, call by call, with a model that keeps everything in one list and searches it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/kv.h"
#include "tests/tap.h"

#define SESSIONS  4
#define MAX_CHAIN 6
#define VARIANTS  3
#define STATE	  100
#define THINGS	  128 /* more than pages and slots */

static uint64_t random_state;

static uint32_t rnd(uint32_t n)
{
	random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(random_state >> 33) % n;
}

static const char *disk(void)
{
	const char *dir = getenv("TMPDIR");

	return dir ? dir : "/tmp";
}

static const char *memory(void)
{
	return access("/dev/shm", W_OK) ? disk() : "/dev/shm";
}

/* ---- the model ------------------------------------------------------------------------------------ */

enum where { LOST, POOL, FILED };

/* Something that was published. */
struct thing {
	enum where where;
	bool copy; /* POOL: in the file too */
	uint64_t content; /* of its page: a function of everything before it */
	uint64_t serial, parent, class;
	int variant; /* of its ids */
	int refs;
	int page; /* POOL */
	uint64_t t_cached, t_file;
	uint64_t t_snapshot; /* 0: none */
	uint64_t state; /* content of the snapshot */
};

struct held {
	struct thing *thing;
	int page;
};

struct model {
	struct kv_cache kv;
	struct plan plan;
	struct thing thing[THINGS];
	struct held chain[SESSIONS][MAX_CHAIN];
	int length[SESSIONS];
	int n_free, max_cached, n_slots, n_slots_used, n_snapshots;
	bool no_write, no_read; /* the file is broken */
	uint64_t clock, last_serial;
	uint64_t out, in, evicted;
	const struct thing *reading;
	int bad; /* differences, the first is named */
	char what[160];
};

static void differ(struct model *m, const char *what, long long got, long long want)
{
	if (got == want)
		return;
	if (!m->bad++)
		snprintf(m->what, sizeof(m->what), "%s: %lld, not %lld", what, got, want);
}

static int count(const struct model *m, enum where where, bool cached)
{
	int n = 0;

	for (int i = 0; i < THINGS; i++)
		n += m->thing[i].where == where && (!cached || !m->thing[i].refs);
	return n;
}

/* The one used least recently: cached in the pool; in the pool and the file; only in the file. */
static struct thing *oldest(struct model *m, enum where where, bool copy)
{
	struct thing *best = NULL;

	for (int i = 0; i < THINGS; i++) {
		struct thing *t = &m->thing[i];
		uint64_t at = where == POOL && !copy ? t->t_cached : t->t_file;

		if (t->where != where || t == m->reading || (copy && !t->copy) ||
		    (where == POOL && !copy && t->refs))
			continue;
		if (!best || at < (where == POOL && !copy ? best->t_cached : best->t_file))
			best = t;
	}
	return best;
}

static void lose(struct model *m, struct thing *t)
{
	t->where = LOST;
	t->t_snapshot = 0;
	m->evicted += KV_PAGE_TOKENS;
}

static void give_up(struct model *m)
{
	for (int i = 0; i < THINGS; i++) {
		struct thing *t = &m->thing[i];

		t->copy = false;
		if (t->where == FILED && t != m->reading)
			lose(m, t);
	}
	m->n_slots = 0;
}

static bool write_out(struct model *m)
{
	struct thing *t;

	if (m->n_slots_used < m->n_slots) {
		m->n_slots_used++;
	} else if (!m->n_slots) {
		return false;
	} else if ((t = oldest(m, POOL, true))) {
		t->copy = false;
	} else if ((t = oldest(m, FILED, false))) {
		lose(m, t);
	} else {
		return false;
	}
	if (m->no_write) {
		give_up(m);
		return false;
	}
	m->out++;
	return true;
}

static void evict(struct model *m)
{
	struct thing *t = oldest(m, POOL, false);

	if (t->copy || write_out(m)) {
		t->where = FILED;
		t->t_file = ++m->clock;
	} else {
		lose(m, t);
	}
	t->copy = false;
}

static bool get(struct model *m)
{
	if (m->n_free) {
		m->n_free--;
		return true;
	}
	if (!count(m, POOL, true))
		return false;
	evict(m);
	return true;
}

static void put(struct model *m, struct thing *t)
{
	if (--t->refs)
		return;
	t->t_cached = ++m->clock;
	if (count(m, POOL, true) > m->max_cached) {
		evict(m);
		m->n_free++;
	}
}

/* What kv_take() does with something that is there. */
static bool take(struct model *m, struct thing *t)
{
	if (t->where == FILED) {
		m->reading = t;
		if (!get(m)) {
			m->reading = NULL;
			t->t_file = ++m->clock;
			return false;
		}
		m->reading = NULL;
		if (!m->n_slots || m->no_read) {
			lose(m, t);
			give_up(m);
			m->n_free++;
			return false;
		}
		m->in++;
		t->where = POOL;
		t->copy = true;
		t->t_file = ++m->clock;
	}
	t->refs++;
	if (t->t_snapshot)
		t->t_snapshot = ++m->clock;
	return true;
}

static struct thing *look(struct model *m, uint64_t parent, int variant, uint64_t class)
{
	for (int i = 0; i < THINGS; i++) {
		struct thing *t = &m->thing[i];

		if (t->where != LOST && t->parent == parent && t->variant == variant &&
		    t->class == class)
			return t;
	}
	return NULL;
}

static struct thing *new_thing(struct model *m)
{
	for (int i = 0; i < THINGS; i++)
		if (m->thing[i].where == LOST)
			return &m->thing[i];
	return NULL;
}

static void snapshot(struct model *m, struct thing *t)
{
	struct thing *old = NULL;
	int n = 0;

	for (int i = 0; i < THINGS; i++) {
		struct thing *o = &m->thing[i];

		if (o->where == LOST || !o->t_snapshot)
			continue;
		n++;
		if (!old || o->t_snapshot < old->t_snapshot)
			old = o;
	}
	if (!t->t_snapshot && n == m->n_snapshots)
		old->t_snapshot = 0;
	t->t_snapshot = ++m->clock;
}

/* ---- both at once --------------------------------------------------------------------------------- */

static void ids_of(int variant, int32_t ids[KV_PAGE_TOKENS])
{
	for (int i = 0; i < KV_PAGE_TOKENS; i++)
		ids[i] = i;
	ids[(variant * 63) % KV_PAGE_TOKENS] = -1 - variant;
}

static uint64_t content_of(uint64_t before, int variant, uint64_t class)
{
	return (before + 1 + variant * 7 + class * 13) * 0x9e3779b97f4a7c15ull;
}

static void pattern(void *buf, size_t bytes, uint64_t content)
{
	for (size_t i = 0; i < bytes; i++)
		((uint8_t *)buf)[i] = (uint8_t)(content >> i % 57) + (uint8_t)(i >> 8);
}

static bool same(const void *buf, size_t bytes, uint64_t content)
{
	uint8_t want[16384];

	pattern(want, bytes, content);
	return !memcmp(buf, want, bytes);
}

static void page_write(struct kv_cache *kv, int page, uint64_t content)
{
	for (int g = 0; g < kv->plan->n_groups; g++) {
		size_t bytes = kv->plan->group[g].page_bytes;

		pattern((char *)kv->pool.base[g] + page * bytes, bytes, content + g);
	}
}

static bool page_holds(struct kv_cache *kv, int page, uint64_t content)
{
	bool ok = true;

	for (int g = 0; g < kv->plan->n_groups; g++) {
		size_t bytes = kv->plan->group[g].page_bytes;

		ok &= same((char *)kv->pool.base[g] + page * bytes, bytes, content + g);
	}
	return ok;
}

static void compare_thing(struct model *m, struct thing *t)
{
	int32_t ids[KV_PAGE_TOKENS];
	int page, seen;

	ids_of(t->variant, ids);
	page = kv_find(&m->kv, t->parent, ids, t->class);
	differ(m, "found in the pool", page >= 0, t->where == POOL);
	seen = kv_look(&m->kv, t->parent, ids, t->class);
	differ(m, "seen", seen >= 0, 1);
	if (seen >= 0) {
		differ(m, "serial seen", (long long)m->kv.page[seen].serial, (long long)t->serial);
		differ(m, "snapshot seen", kv_snapshot(&m->kv, seen) != NULL, t->t_snapshot != 0);
	}
	if (page < 0 || t->where != POOL)
		return;
	differ(m, "page", page, t->page);
	differ(m, "serial", (long long)m->kv.page[page].serial, (long long)t->serial);
	differ(m, "content is what was published", page_holds(&m->kv, page, t->content), 1);
	differ(m, "has a snapshot", kv_snapshot(&m->kv, page) != NULL, t->t_snapshot != 0);
	if (kv_snapshot(&m->kv, page) && t->t_snapshot)
		differ(m, "snapshot's content", same(kv_snapshot(&m->kv, page), STATE, t->state),
		       1);
}

static void compare(struct model *m)
{
	struct kv_stats st;
	int snapshots = 0;

	for (int i = 0; i < THINGS; i++) {
		if (m->thing[i].where == LOST)
			continue;
		snapshots += m->thing[i].t_snapshot != 0;
		compare_thing(m, &m->thing[i]);
	}
	kv_stats(&m->kv, &st);
	differ(m, "all pages", st.free + st.held + st.cached, m->kv.n_pages);
	differ(m, "free pages", st.free, m->n_free);
	differ(m, "cached pages", st.cached, count(m, POOL, true));
	differ(m, "cached pages within the bound", st.cached <= m->max_cached, 1);
	differ(m, "available pages", kv_available(&m->kv), st.free + st.cached);
	differ(m, "swapped pages", st.swap_pages, count(m, FILED, false));
	differ(m, "slots", st.swap_max_pages, m->n_slots);
	differ(m, "pages written", (long long)st.swapped_out, (long long)m->out);
	differ(m, "pages read", (long long)st.swapped_in, (long long)m->in);
	differ(m, "evicted tokens", (long long)st.evicted_tokens, (long long)m->evicted);
	differ(m, "snapshots", st.snapshots, snapshots);
}

static void put_last(struct model *m, int s)
{
	struct held *h = &m->chain[s][--m->length[s]];

	kv_put_page(&m->kv, h->page);
	put(m, h->thing);
}

static void publish(struct model *m, int page, struct thing *filed, const struct thing *want)
{
	struct thing *t = filed ? filed : new_thing(m);
	int32_t ids[KV_PAGE_TOKENS];

	ids_of(want->variant, ids);
	kv_publish(&m->kv, page, want->parent, ids, want->class);
	if (filed) {
		t->copy = true;
		t->t_file = ++m->clock;
		differ(m, "serial of what was in the file", (long long)m->kv.page[page].serial,
		       (long long)t->serial);
	} else {
		*t = *want;
		t->serial = m->kv.page[page].serial;
		differ(m, "a new serial", t->serial > m->last_serial, 1);
		m->last_serial = t->serial;
	}
	t->where = POOL;
	t->refs = 1;
	t->page = page;
}

/* The next page of a session: taken, or computed. `look_first` false: computed though it is filed. */
static void extend(struct model *m, int s, bool look_first)
{
	int n = m->length[s], page = -1;
	struct held *before = n ? &m->chain[s][n - 1] : NULL;
	struct thing want = {.variant = (int)rnd(VARIANTS),
			     .class = rnd(4) ? 0 : 1ull << 63,
			     .parent = before ? before->thing->serial : kv_root(s % 2)};
	struct thing *t = look(m, want.parent, want.variant, want.class);
	int32_t ids[KV_PAGE_TOKENS];

	want.content =
		content_of(before ? before->thing->content : s % 2, want.variant, want.class);
	ids_of(want.variant, ids);
	if (look_first || (t && t->where == POOL)) {
		bool there = t && take(m, t);

		page = kv_take(&m->kv, want.parent, ids, want.class);
		differ(m, "taken", page >= 0, there);
		if (m->bad)
			return;
		if (there) {
			t->page = page;
			differ(m, "taken page's content", page_holds(&m->kv, page, want.content),
			       1);
			m->chain[s][m->length[s]++] = (struct held){t, page};
			return;
		}
	}
	page = kv_get_page(&m->kv);
	differ(m, "given a page", page >= 0, get(m));
	if (page < 0 || m->bad)
		return;
	page_write(&m->kv, page, want.content);
	/* Making room may have filed or lost what was there. */
	t = look(m, want.parent, want.variant, want.class);
	publish(m, page, t, &want);
	t = look(m, want.parent, want.variant, want.class);
	m->chain[s][m->length[s]++] = (struct held){t, page};
}

/* The last page is to be written: unpublished if nobody else holds it, else copied. */
static void rewrite_last(struct model *m, int s)
{
	struct held h = m->chain[s][m->length[s] - 1];
	int copy;

	if (h.thing->refs == 1) {
		m->length[s]--;
		kv_unpublish(&m->kv, h.page);
		page_write(&m->kv, h.page, rnd(1000));
		kv_put_page(&m->kv, h.page);
		h.thing->refs = 0;
		h.thing->where = h.thing->copy ? FILED : LOST;
		h.thing->copy = false;
		h.thing->t_file = ++m->clock;
		m->n_free++;
		return;
	}
	copy = kv_get_page(&m->kv);
	differ(m, "given a page for a copy", copy >= 0, get(m));
	if (copy < 0)
		return;
	kv_copy_page(&m->kv, copy, h.page);
	differ(m, "copied content", page_holds(&m->kv, copy, h.thing->content), 1);
	kv_put_page(&m->kv, copy);
	m->n_free++;
	put_last(m, s);
}

static void put_snapshot(struct model *m, struct held *h)
{
	uint8_t state[STATE];
	bool kept;

	h->thing->state = rnd(1u << 30);
	pattern(state, STATE, h->thing->state);
	kept = kv_snapshot_put(&m->kv, h->page, state);
	differ(m, "snapshot kept", kept, m->n_snapshots > 0);
	if (kept)
		snapshot(m, h->thing);
}

/* From now on writes, or reads, of the swap file fail. */
static void break_file(struct model *m, bool writes)
{
	char path[64];
	int fd;

	if (m->kv.swap.fd < 0 || m->no_write || m->no_read)
		return;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", m->kv.swap.fd);
	fd = open(path, (writes ? O_RDONLY : O_WRONLY) | O_CLOEXEC);
	if (fd < 0)
		return;
	dup2(fd, m->kv.swap.fd);
	close(fd);
	m->no_write = writes;
	m->no_read = !writes;
}

static void shed(struct model *m)
{
	while (count(m, POOL, true)) {
		evict(m);
		m->n_free++;
	}
	kv_shed(&m->kv);
}

static void step(struct model *m, bool breaks)
{
	int s = (int)rnd(SESSIONS);
	int n = m->length[s];

	switch (rnd(10)) {
	case 0:
		if (n)
			rewrite_last(m, s);
		break;
	case 1:
	case 2:
		if (n)
			put_last(m, s);
		break;
	case 3:
		while (m->length[s])
			put_last(m, s);
		break;
	case 4:
		if (n)
			put_snapshot(m, &m->chain[s][rnd(n)]);
		break;
	default:
		if (n < MAX_CHAIN)
			extend(m, s, rnd(8) != 0);
	}
	if (!rnd(60))
		shed(m);
	if (breaks && !rnd(150))
		break_file(m, rnd(2));
}

static void set_plan(struct plan *p, int groups, int head_dim)
{
	*p = (struct plan){.n_groups = groups, .state_bytes = STATE};
	for (int g = 0; g < groups; g++)
		p->group[g] =
			(struct kv_group){.n_layers = 1 + g, .n_heads = 1, .head_dim = head_dim};
}

/* Opens with random bounds; the file, if there is one, in `dir`. */
static bool open_random(struct model *m, const char *dir, struct err *e)
{
	struct kv_opts o = {.type = KV_F32, .n_pages = 1 + (int)rnd(24)};
	size_t page, stride;

	/* 4,096 bytes a group and more, or 2,048: with and without O_DIRECT */
	set_plan(&m->plan, 1 + (int)rnd(2), rnd(2) ? 8 : 4);
	page = kv_page_bytes(&m->plan, o.type);
	stride = (page + 4095) / 4096 * 4096;
	m->max_cached = m->n_free = o.n_pages;
	if (!rnd(3)) {
		m->max_cached = (int)rnd(o.n_pages + 1);
		o.prefix_bytes = m->max_cached ? (int64_t)(m->max_cached * page + rnd(page)) : -1;
	}
	if (rnd(4)) {
		m->n_slots = rnd(4) ? 1 + (int)rnd(20) : o.n_pages;
		o.swap_bytes = m->n_slots == o.n_pages ? 0 : m->n_slots * stride + rnd(stride);
		o.swap_dir = dir;
	}
	o.n_snapshots = m->n_snapshots = (int)rnd(5);
	return !kv_init(&m->kv, &m->plan, &o, e);
}

static void fuzz(int seeds, int steps, const char *dir, bool breaks)
{
	struct model *m = NULL;
	int bad = 0;
	uint64_t out = 0, in = 0, evicted = 0;
	int given_up = 0;

	for (int seed = 0; seed < seeds && !bad; seed++) {
		struct err e = {""};
		struct stat st;

		free(m);
		m = calloc(1, sizeof(*m));
		random_state = (uint64_t)seed * 2 + breaks;
		if (!m || !open_random(m, dir, &e)) {
			CHECK(false, "seed %d: opens (%s)", seed, e.msg);
			break;
		}
		for (int i = 0; i < steps && !m->bad; i++) {
			step(m, breaks);
			if (i % 4 == 0)
				compare(m);
		}
		if (m->kv.swap.fd >= 0 && !fstat(m->kv.swap.fd, &st))
			differ(m, "the file's size is within its bound",
			       st.st_size <= (off_t)(m->n_slots * m->kv.swap.stride), 1);
		for (int s = 0; s < SESSIONS; s++)
			while (m->length[s] && !m->bad)
				put_last(m, s);
		compare(m);
		bad = m->bad;
		if (bad)
			CHECK(false, "seed %d%s: %s", seed, breaks ? ", failing file" : "",
			      m->what);
		out += m->out;
		in += m->in;
		evicted += m->evicted;
		given_up += m->kv.swap.error[0] != 0;
		kv_free(&m->kv);
	}
	free(m);
	CHECK(!bad && out && in && evicted && (given_up > 0) == breaks,
	      "%d runs of %d steps in %s%s behave like the model (%llu pages out, %llu in, %d "
	      "files "
	      "failed)",
	      seeds, steps, dir, breaks ? " that fails" : "", (unsigned long long)out,
	      (unsigned long long)in, given_up);
}

/* ---- by hand --------------------------------------------------------------------------------------- */

/* Publishes `n` pages in a row for principal 1 and lets them go, the last one first. */
static void publish_chain(struct kv_cache *kv, int n)
{
	uint64_t parent = kv_root(1);
	int32_t ids[KV_PAGE_TOKENS], page[64];

	for (int i = 0; i < n; i++) {
		ids_of(i, ids);
		page[i] = kv_get_page(kv);
		page_write(kv, page[i], i);
		kv_publish(kv, page[i], parent, ids, 0);
		parent = kv->page[page[i]].serial;
	}
	while (n)
		kv_put_page(kv, page[--n]);
}

/* How many of them can be taken, in a row; lets them go again. */
static int take_chain(struct kv_cache *kv)
{
	uint64_t parent = kv_root(1);
	int32_t ids[KV_PAGE_TOKENS], page[64];
	int n = 0, right = 0;

	for (;; n++) {
		ids_of(n, ids);
		page[n] = kv_take(kv, parent, ids, 0);
		if (page[n] < 0)
			break;
		right += page_holds(kv, page[n], n);
		parent = kv->page[page[n]].serial;
	}
	for (int i = n; i--;)
		kv_put_page(kv, page[i]);
	return right == n ? n : -1;
}

static void keeps_within_bytes(void)
{
	struct kv_cache kv;
	struct plan p;
	struct err e = {""};
	int64_t page;

	set_plan(&p, 1, 8);
	page = (int64_t)kv_page_bytes(&p, KV_F32);
	const struct {
		int64_t bytes;
		int kept;
	} cases[] = {{0, 10}, {-1, 0}, {page - 1, 0}, {3 * page, 3}, {4 * page - 1, 3}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct kv_opts o = {.type = KV_F32, .n_pages = 16, .prefix_bytes = cases[i].bytes};

		REQUIRE(!kv_init(&kv, &p, &o, &e), "opens (%s)", e.msg);
		publish_chain(&kv, 10);
		CHECK(kv.cached.n == cases[i].kept && kv_available(&kv) == 16 &&
			      take_chain(&kv) == cases[i].kept,
		      "a bound of %lld bytes keeps the first %d pages of 10",
		      (long long)cases[i].bytes, cases[i].kept);
		kv_free(&kv);
	}
}

/* Bytes of the pool that have memory. */
static size_t resident(const struct kv_cache *kv)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), n = (kv->mem.mapped + page - 1) / page, in = 0;
	unsigned char *vec = malloc(n);

	if (!vec || mincore(kv->mem.base, kv->mem.mapped, vec))
		n = 0;
	for (size_t i = 0; i < n; i++)
		in += vec[i] & 1;
	free(vec);
	return in * page;
}

static void gives_back(void)
{
	struct kv_opts o = {.type = KV_F32, .n_pages = 64};
	struct kv_cache kv;
	struct plan p;
	struct err e = {""};
	int32_t held;

	set_plan(&p, 2, 8);
	REQUIRE(!kv_init(&kv, &p, &o, &e), "opens (%s)", e.msg);
	held = kv_get_page(&kv);
	page_write(&kv, held, 5);
	publish_chain(&kv, 40);
	CHECK(kv_shed(&kv) == 40 * kv.page_bytes && !kv.cached.n && kv.n_free == 63,
	      "what only the cache keeps is shed, and counted");
	/* Kernel pages at the edge of what is held stay. */
	CHECK(resident(&kv) <= kv.page_bytes + 4 * (size_t)sysconf(_SC_PAGESIZE),
	      "its memory is given back: %zu bytes stay", resident(&kv));
	CHECK(page_holds(&kv, held, 5), "what is held keeps its content");
	CHECK(!kv_shed(&kv), "a second time there is nothing to give");
	publish_chain(&kv, 40);
	CHECK(take_chain(&kv) == 40, "the pages are used again");
	kv_free(&kv);
}

static void swaps(void)
{
	struct kv_opts o = {.type = KV_F32, .n_pages = 4, .swap_dir = disk()};
	struct kv_cache kv;
	struct kv_stats st;
	struct plan p;
	struct err e = {""};
	int32_t held[4];

	set_plan(&p, 1, 8);
	REQUIRE(!kv_init(&kv, &p, &o, &e), "opens a swap file in %s (%s)", o.swap_dir, e.msg);
	publish_chain(&kv, 4);
	for (int i = 0; i < 4; i++)
		held[i] = kv_get_page(&kv);
	kv_stats(&kv, &st);
	CHECK(st.swapped_out == 4 && st.swap_pages == 4 && !st.cached && !st.evicted_tokens,
	      "pages that others need go to the file (%s)", kv.swap.direct ? "direct" : "buffered");
	CHECK(take_chain(&kv) == 0, "without room nothing is read back");
	for (int i = 0; i < 4; i++)
		kv_put_page(&kv, held[i]);
	CHECK(take_chain(&kv) == 4, "with room everything is");
	for (int i = 0; i < 4; i++)
		held[i] = kv_get_page(&kv);
	kv_stats(&kv, &st);
	CHECK(st.swapped_out == 4 && st.swapped_in == 4 && st.swap_pages == 4,
	      "what was read back is not written again");
	for (int i = 0; i < 4; i++)
		kv_put_page(&kv, held[i]);
	kv_free(&kv);
}

/* A published page's slot outlives its being unpublished; computing it again finds its name. */
static void keeps_the_name(void)
{
	struct kv_opts o = {.type = KV_F32, .n_pages = 4, .swap_dir = memory()};
	struct kv_cache kv;
	struct plan p;
	struct err e = {""};
	int32_t ids[KV_PAGE_TOKENS], page;
	uint64_t serial;

	set_plan(&p, 1, 8);
	REQUIRE(!kv_init(&kv, &p, &o, &e), "opens (%s)", e.msg);
	publish_chain(&kv, 3);
	for (int i = 0; i < 2; i++) { /* all to the file, back again */
		int32_t held[4];

		for (int j = 0; j < 4; j++)
			held[j] = kv_get_page(&kv);
		for (int j = 0; j < 4; j++)
			kv_put_page(&kv, held[j]);
		if (!i)
			take_chain(&kv);
	}
	ids_of(0, ids);
	page = kv_take(&kv, kv_root(1), ids, 0);
	serial = kv.page[page].serial;
	kv_unpublish(&kv, page);
	CHECK(kv_find(&kv, kv_root(1), ids, 0) < 0 && kv.swapped.n == 3,
	      "a page that is written again leaves its copy in the file");
	page_write(&kv, page, 0);
	kv_publish(&kv, page, kv_root(1), ids, 0);
	CHECK(kv.page[page].serial == serial && kv.swapped.n == 2, "and is its twin again");
	kv_put_page(&kv, page);
	CHECK(take_chain(&kv) == 3, "so that what comes after it is found");
	kv_free(&kv);
}

static void survives_a_full_disk(void)
{
	struct kv_opts o = {.type = KV_F32, .n_pages = 4, .swap_dir = memory()};
	struct kv_cache kv;
	struct kv_stats st;
	struct plan p;
	struct err e = {""};
	int32_t held[4];
	int full = open("/dev/full", O_RDWR | O_CLOEXEC);

	set_plan(&p, 1, 8);
	REQUIRE(full >= 0 && !kv_init(&kv, &p, &o, &e), "opens (%s)", e.msg);
	publish_chain(&kv, 4);
	held[0] = kv_get_page(&kv);
	dup2(full, kv.swap.fd);
	close(full);
	held[1] = kv_get_page(&kv);
	kv_stats(&kv, &st);
	CHECK(held[1] >= 0 && st.swap_error && strstr(st.swap_error, "No space left") &&
		      !st.swap_max_pages && !st.swap_pages && st.evicted_tokens == 128,
	      "a full disk ends the file, nothing else: %s", st.swap_error);
	CHECK(take_chain(&kv) == 2, "what is in memory stays");
	kv_put_page(&kv, held[0]);
	kv_put_page(&kv, held[1]);
	kv_free(&kv);
}

static void respects_ulimit(void)
{
	struct kv_opts o = {.type = KV_F32,
			    .n_pages = 8,
			    .swap_dir = memory(),
			    .swap_bytes = 1 << 20};
	struct rlimit was, few;
	struct kv_cache kv;
	struct plan p;
	struct err e = {""};
	int rc, bounded;

	set_plan(&p, 1, 8);
	getrlimit(RLIMIT_FSIZE, &was);
	few = was;
	few.rlim_cur = 3 * 4096 + 5;
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &few);
	rc = kv_init(&kv, &p, &o, &e);
	if (rc) {
		setrlimit(RLIMIT_FSIZE, &was);
		CHECK(false, "opens (%s)", e.msg);
		return;
	}
	bounded = kv.swap.n_slots;
	few.rlim_cur = 4096 + 100;
	setrlimit(RLIMIT_FSIZE, &few);
	publish_chain(&kv, 8);
	for (int i = 0; i < 3; i++)
		kv_get_page(&kv);
	setrlimit(RLIMIT_FSIZE, &was); /* stdout may be a file */
	CHECK(bounded == 3, "ulimit -f bounds the file: %d slots", bounded);
	CHECK(strstr(kv.swap.error, "File too large") && !kv.swap.n_slots,
	      "a limit that is lowered later ends it: %s", kv.swap.error);
	signal(SIGXFSZ, SIG_DFL);
	kv_free(&kv);
}

static void refuses(const char *dir, size_t len, uint64_t bytes, const char *want)
{
	struct kv_opts o = {.type = KV_F32,
			    .n_pages = 4,
			    .swap_dir = dir,
			    .swap_dir_len = len,
			    .swap_bytes = bytes};
	struct kv_cache kv = {0};
	struct plan p;
	struct err e = {""};
	int rc;

	set_plan(&p, 1, 8);
	rc = kv_init(&kv, &p, &o, &e);
	CHECK(rc < 0 && strstr(e.msg, want) && !strchr(e.msg, '\n'), "%d: %s", rc, e.msg);
	kv_free(&kv);
}

static void snapshots_give_way(void)
{
	struct kv_opts o = {.type = KV_F32, .n_pages = 8, .n_snapshots = 2};
	uint8_t state[STATE] = {1};
	int32_t ids[KV_PAGE_TOKENS], page[3];
	struct kv_cache kv;
	struct plan p;
	struct err e = {""};

	set_plan(&p, 1, 8);
	REQUIRE(!kv_init(&kv, &p, &o, &e), "opens (%s)", e.msg);
	page[0] = kv_get_page(&kv);
	CHECK(!kv_snapshot_put(&kv, page[0], state) && !kv_snapshot(&kv, page[0]),
	      "a page that is not published carries no snapshot");
	for (int i = 0; i < 3; i++) {
		ids_of(i, ids);
		if (i)
			page[i] = kv_get_page(&kv);
		kv_publish(&kv, page[i], kv_root(0), ids, 0);
	}
	kv_snapshot_put(&kv, page[0], state);
	kv_snapshot_put(&kv, page[1], state);
	ids_of(0, ids);
	kv_take(&kv, kv_root(0), ids, 0);
	kv_snapshot_put(&kv, page[2], state);
	CHECK(kv_snapshot(&kv, page[0]) && !kv_snapshot(&kv, page[1]) && kv_snapshot(&kv, page[2]),
	      "of three snapshots in two places the one used least recently is gone");
	kv_unpublish(&kv, page[2]);
	CHECK(!kv_snapshot(&kv, page[2]), "a snapshot goes when its page is unpublished");
	kv_free(&kv);
}

int main(void)
{
	fuzz(150, 400, memory(), false);
	fuzz(20, 300, disk(), false);
	fuzz(150, 300, memory(), true);
	keeps_within_bytes();
	gives_back();
	swaps();
	keeps_the_name();
	survives_a_full_disk();
	respects_ulimit();
	snapshots_give_way();
	refuses("/nonexistent/directory", 0, 0, "No such file or directory");
	refuses("/nonexistent/directory:4G", 22, 0, "/nonexistent/directory: No such");
	refuses("/proc/self/exe", 0, 0, "Not a directory");
	refuses(memory(), 0, 4095, "a page of the KV cache takes");
	return tap_done();
}
