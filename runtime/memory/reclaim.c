// SPDX-License-Identifier: MIT
/*
 * The steps that make room; see reclaim.h. Owns what it opens during a call, and nothing after it:
 * a registered file is a path, looked up anew each time, so no mount is kept busy.
 */
#include "memory/reclaim.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "llm.h"
#include "memory/cache.h"

#define PIECE		((uint64_t)64 << 20) /* dropped before MemFree is looked at again */
#define WINDOW		((uint64_t)256 << 20) /* asked of the kernel at once */
#define NOISE		((uint64_t)256 << 20)
#define MAX_FILES	65536
#define REGIONS_AT_ONCE 64
#define MAX_REGIONS	65536
#define MODULE_NS	UINT64_C(5000000000)
#define CONTROL		"/dev/llm-control"

const char *const room_step_name[N_ROOM_STEPS] = {
	[ROOM_FILES] = "files",	    [ROOM_FILESYSTEMS] = "filesystems",
	[ROOM_RECLAIM] = "reclaim", [ROOM_MODULE] = "module",
	[ROOM_COMPACT] = "compact", [ROOM_DROP_CACHES] = "drop_caches",
};

/* One call of room_make(). */
struct room {
	const struct room_means *m;
	const struct room_goal *goal;
	struct mem_now now;
	struct room_done *done; /* of the step at work */
};

static uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

bool room_reached(const struct room_goal *goal, const struct mem_now *now)
{
	return now->free >= goal->free && now->blocks >= goal->blocks;
}

uint64_t room_missing(const struct room_goal *goal, const struct mem_now *now)
{
	uint64_t bytes = goal->free > now->free ? goal->free - now->free : 0;
	uint64_t blocks = goal->blocks > now->blocks ? goal->blocks - now->blocks : 0;

	return blocks * MEM_BLOCK > bytes ? blocks * MEM_BLOCK : bytes;
}

/* Is there enough now, or no time left? */
static bool enough(struct room *r)
{
	mem_now_read(&r->now, r->m->root, r->m->page, NULL);
	return room_reached(r->goal, &r->now) ||
	       (r->m->deadline_ns && clock_ns() > r->m->deadline_ns);
}

__attribute__((format(printf, 3, 4))) static void failed(struct room *r, int error, const char *fmt,
							 ...)
{
	va_list ap;

	if (r->done->error)
		return;
	r->done->error = error;
	va_start(ap, fmt);
	vsnprintf(r->done->note, sizeof(r->done->note), fmt, ap);
	va_end(ap);
}

uint64_t room_used(const struct mem_now *now)
{
	uint64_t idle = now->free + now->cached;

	return now->total > idle ? now->total - idle : 0;
}

uint64_t room_hold_left(const struct room_hold *h, const struct mem_now *now)
{
	uint64_t slack = h->bytes / 8 < NOISE ? h->bytes / 8 : NOISE, used = room_used(now), taken;

	taken = used > h->used + slack ? used - h->used - slack : 0;
	return h->bytes > taken ? h->bytes - taken : 0;
}

uint64_t room_margin(uint64_t bytes)
{
	return bytes ? bytes / 64 + ((uint64_t)16 << 20) : 0;
}

/* ---- (1) registered files -------------------------------------------------------------------- */

struct candidate {
	char *path;
	struct timespec read; /* last */
	uint64_t cached;
};

struct candidates {
	struct candidate *v;
	size_t n, room;
};

static int collect(void *ctx, int fd, const char *path, const struct stat *st)
{
	struct candidates *c = ctx;
	struct cache_status s;

	if (!cache_status(fd, path, &s, NULL)) {
		if (!s.cached)
			return 0;
	} else {
		s.cached = (uint64_t)st->st_size;
	}
	if (c->n == c->room) {
		size_t room = c->room ? 2 * c->room : 64;
		void *v = room <= MAX_FILES ? realloc(c->v, room * sizeof(*c->v)) : NULL;

		if (!v)
			return 1;
		c->v = v;
		c->room = room;
	}
	c->v[c->n] = (struct candidate){strdup(path), st->st_atim, s.cached};
	if (!c->v[c->n].path)
		return 1;
	c->n++;
	return 0;
}

static int older_first(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if (x->read.tv_sec != y->read.tv_sec)
		return x->read.tv_sec < y->read.tv_sec ? -1 : 1;
	return (x->read.tv_nsec > y->read.tv_nsec) - (x->read.tv_nsec < y->read.tv_nsec);
}

/* From the end: what is read from its beginning again finds the rest still there. */
static bool drop_until_enough(struct room *r, int fd, uint64_t size)
{
	while (size) {
		uint64_t at = (size - 1) / PIECE * PIECE;

		posix_fadvise(fd, (off_t)at, (off_t)(size - at), POSIX_FADV_DONTNEED);
		size = at;
		if (enough(r))
			return true;
	}
	return false;
}

static void step_files(struct room *r)
{
	struct candidates c = {0};
	size_t dropped = 0;

	for (size_t i = 0; i < r->m->n_files; i++) {
		struct cache_walk w;
		glob_t g;
		int rc = glob(r->m->files[i], 0, NULL, &g);

		for (size_t k = 0; !rc && k < g.gl_pathc && c.n < MAX_FILES; k++)
			cache_walk(g.gl_pathv[k], MAX_FILES, collect, &c, &w, NULL);
		if (!rc)
			globfree(&g);
	}
	if (c.n)
		qsort(c.v, c.n, sizeof(*c.v), older_first);
	for (size_t i = 0; i < c.n; i++) {
		struct stat st;
		int fd = cache_open(AT_FDCWD, c.v[i].path, &st);
		bool end;

		if (fd < 0)
			continue;
		end = drop_until_enough(r, fd, (uint64_t)st.st_size);
		dropped++;
		close(fd);
		if (end)
			break;
	}
	snprintf(r->done->note, sizeof(r->done->note),
		 "%zu of %zu registered files that are cached", dropped, c.n);
	for (size_t i = 0; i < c.n; i++)
		free(c.v[i].path);
	free(c.v);
}

/* ---- (2) filesystems ------------------------------------------------------------------------- */

static int drop_visited(void *ctx, int fd, const char *path, const struct stat *st)
{
	const struct room *r = ctx;
	struct cache_status s;

	if (r->m->deadline_ns && clock_ns() > r->m->deadline_ns)
		return 1;
	if (!cache_status(fd, path, &s, NULL) && !s.cached)
		return 0;
	return drop_until_enough(ctx, fd, (uint64_t)st->st_size);
}

/* By the module; false: it cannot. */
static bool drop_superblock(struct room *r, const char *path)
{
	struct llm_cache_drop d = {.size = sizeof(d), .deadline_ns = clock_ns() + MODULE_NS};
	int rc;

	if (r->m->control < 0)
		return false;
	d.fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	d.max_bytes = room_missing(r->goal, &r->now);
	if (d.fd < 0) {
		failed(r, -errno, "%.128s: %s", path, strerror(errno));
		return true;
	}
	rc = ioctl(r->m->control, LLM_IOC_CACHE_DROP, &d) ? -errno : 0;
	close(d.fd);
	if (rc == -ENOTTY || rc == -EPERM || rc == -EOPNOTSUPP)
		return false;
	if (rc && rc != -EINTR)
		failed(r, rc, "%.128s: the module: %s", path, strerror(-rc));
	return true;
}

static void step_filesystems(struct room *r)
{
	uint64_t files = 0;
	size_t i;

	for (i = 0; i < r->m->n_filesystems; i++) {
		struct cache_walk w;
		struct err e;

		if (enough(r))
			break;
		if (drop_superblock(r, r->m->filesystems[i]))
			continue;
		if (cache_walk(r->m->filesystems[i], 0, drop_visited, r, &w, &e))
			failed(r, -ENOENT, "%.200s", e.msg);
		files += w.files;
	}
	if (!r->done->error)
		snprintf(r->done->note, sizeof(r->done->note),
			 "%zu filesystems, %llu files one by one", i, (unsigned long long)files);
}

/* ---- (3) cgroups and nodes ------------------------------------------------------------------- */

/* Page cache that can go without touching anybody's mapping. */
static uint64_t clean_cache(const struct mem_now *n)
{
	uint64_t busy = n->dirty + (n->mapped > n->shmem ? n->mapped - n->shmem : 0);

	return n->cached > busy ? n->cached - busy : 0;
}

/* "N swappiness=0" where that is known, else "N"; -EAGAIN: there was less. */
static int write_reclaim(const char *path, uint64_t bytes)
{
	char text[64];
	int fd = open(path, O_WRONLY | O_CLOEXEC), n, rc;

	if (fd < 0)
		return -errno;
	n = snprintf(text, sizeof(text), "%llu swappiness=0", (unsigned long long)bytes);
	rc = write(fd, text, (size_t)n) == n ? 0 : -errno;
	if (rc == -EINVAL) {
		n = snprintf(text, sizeof(text), "%llu", (unsigned long long)bytes);
		rc = write(fd, text, (size_t)n) == n ? 0 : -errno;
	}
	close(fd);
	return rc;
}

/* One file until there is enough, or it has no more. */
static int reclaim_by(struct room *r, const char *path)
{
	int rc = 0;

	while (!rc && !enough(r)) {
		uint64_t bytes = room_missing(r->goal, &r->now), most = clean_cache(&r->now);

		if (bytes > most)
			bytes = most;
		if (bytes > WINDOW)
			bytes = WINDOW;
		if (bytes < r->m->page)
			break;
		rc = write_reclaim(path, bytes);
		if (*r->m->root) /* a test: nothing is reclaimed, however often it is asked for */
			break;
	}
	return rc;
}

static void step_reclaim(struct room *r)
{
	size_t done = 0, nodes = 0;
	char path[4096];
	glob_t g;
	int rc = 0;

	for (size_t i = 0; i < r->m->n_cgroups; i++) {
		const char *name = r->m->cgroups[i];

		snprintf(path, sizeof(path), "%.1000s/sys/fs/cgroup/%.2000s/memory.reclaim",
			 r->m->root, name + (*name == '/'));
		rc = reclaim_by(r, path);
		done += !rc || rc == -EAGAIN;
	}
	snprintf(path, sizeof(path), "%.1000s/sys/devices/system/node/node[0-9]*/reclaim",
		 r->m->root);
	if (!glob(path, 0, NULL, &g)) {
		for (nodes = 0; nodes < g.gl_pathc; nodes++) {
			rc = reclaim_by(r, g.gl_pathv[nodes]);
			done += !rc || rc == -EAGAIN;
		}
		globfree(&g);
	}
	if (!nodes) {
		snprintf(path, sizeof(path), "%.1000s/sys/fs/cgroup/memory.reclaim", r->m->root);
		rc = reclaim_by(r, path);
		if (rc == -ENOENT) { /* both hierarchies are mounted */
			snprintf(path, sizeof(path), "%.1000s/sys/fs/cgroup/unified/memory.reclaim",
				 r->m->root);
			rc = reclaim_by(r, path);
		}
		done += !rc || rc == -EAGAIN;
	}
	if (done)
		snprintf(r->done->note, sizeof(r->done->note), "%zu cgroups, %zu nodes",
			 r->m->n_cgroups, nodes);
	else
		failed(r, rc,
		       rc == -ENOENT ? "no memory.reclaim: needs cgroup v2 with the memory "
				       "controller (Linux 5.19)"
		       : rc == -EACCES || rc == -EPERM ? "memory.reclaim: only root may write it"
						       : "memory.reclaim: could not be written");
}

/* ---- (4) the module, (5) compaction, (6) everything ------------------------------------------ */

static void step_module(struct room *r)
{
	struct llm_mem_make_room a = {.size = sizeof(a),
				      .free = r->goal->free,
				      .blocks = r->goal->blocks,
				      .deadline_ns = clock_ns() + MODULE_NS};

	if (r->m->control < 0) {
		failed(r, -ENOENT, "the module llm is not loaded, or not for this user");
		return;
	}
	if (ioctl(r->m->control, LLM_IOC_MEM_MAKE_ROOM, &a))
		failed(r, -errno, "the module: %s%s", strerror(errno),
		       errno == EPERM ? ": needs CAP_SYS_ADMIN, or the group of its admin_gid"
				      : "");
	else
		snprintf(r->done->note, sizeof(r->done->note), "blocks %llu -> %llu",
			 (unsigned long long)a.blocks_before, (unsigned long long)a.blocks_after);
}

static void step_compact(struct room *r)
{
	char path[4096];
	int fd;

	if (r->now.blocks >= r->goal->blocks) {
		snprintf(r->done->note, sizeof(r->done->note), "no blocks are missing");
		return;
	}
	snprintf(path, sizeof(path), "%.4000s/proc/sys/vm/compact_memory", r->m->root);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "1\n", 2) != 2)
		failed(r, -errno, "/proc/sys/vm/compact_memory: %s: only root may",
		       strerror(errno));
	else
		snprintf(r->done->note, sizeof(r->done->note), "all zones");
	if (fd >= 0)
		close(fd);
}

static void step_drop_caches(struct room *r)
{
	struct err e;
	int rc = cache_drop_everything(r->m->root, &e);

	if (rc)
		failed(r, rc, "%.250s", e.msg);
	else
		snprintf(r->done->note, sizeof(r->done->note), "everything that is clean");
}

/* ---- all of them ----------------------------------------------------------------------------- */

int room_make(const struct room_means *means, const struct room_goal *goal, room_told told,
	      void *ctx, struct mem_now *now, struct err *e)
{
	static void (*const step[N_ROOM_STEPS])(struct room *) = {
		[ROOM_FILES] = step_files,     [ROOM_FILESYSTEMS] = step_filesystems,
		[ROOM_RECLAIM] = step_reclaim, [ROOM_MODULE] = step_module,
		[ROOM_COMPACT] = step_compact, [ROOM_DROP_CACHES] = step_drop_caches,
	};
	struct room r = {.m = means, .goal = goal};
	int rc = mem_now_read(&r.now, means->root, means->page, e);

	for (int s = 0; !rc && s < N_ROOM_STEPS; s++) {
		struct room_done d = {.step = (enum room_step)s};
		uint64_t start = clock_ns();

		if (enough(&r))
			break;
		if (!(means->allowed & ROOM_BIT(s)) || (s == ROOM_FILES && !means->n_files) ||
		    (s == ROOM_FILESYSTEMS && !means->n_filesystems))
			continue;
		r.done = &d;
		d.asked = room_missing(goal, &r.now);
		d.free_before = r.now.free;
		d.blocks_before = r.now.blocks;
		step[s](&r);
		rc = mem_now_read(&r.now, means->root, means->page, e);
		d.free_after = r.now.free;
		d.blocks_after = r.now.blocks;
		d.freed = d.free_after > d.free_before ? d.free_after - d.free_before : 0;
		d.ns = clock_ns() - start;
		if (told)
			told(ctx, &d);
	}
	*now = r.now;
	return rc;
}

/* ---- the module ------------------------------------------------------------------------------ */

const char *room_no_node(void)
{
	return access("/sys/module/llm", F_OK) ? "the module llm is not loaded: modprobe llm"
					       : "the module llm is loaded, but this /dev has no "
						 "such node: udevadm trigger, or "
						 "give the container the device";
}

int room_control(struct err *e)
{
	struct llm_query q = {.size = sizeof(q)};
	int fd = open(CONTROL, O_RDWR | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT)
		return err_set(e, -ENOENT, CONTROL ": not there: %s", room_no_node());
	if (fd < 0)
		return err_set(e, -errno, CONTROL ": %s: it is for the group llmdev-admin and root",
			       strerror(errno));
	if (ioctl(fd, LLM_IOC_QUERY, &q) || !(q.features & LLM_FEATURE_RECLAIM)) {
		close(fd);
		return err_set(e, -ENOTTY,
			       CONTROL ": this module cannot make room: install the one "
				       "that came with this program");
	}
	return fd;
}

size_t room_regions(int control, struct llm_region_info **out)
{
	struct llm_region_list l = {.size = sizeof(l)};
	struct llm_region_info *v = NULL, *more;
	size_t n = 0;

	do {
		more = realloc(v, (n + REGIONS_AT_ONCE) * sizeof(*v));
		if (!more)
			break;
		v = more;
		memset(v + n, 0, REGIONS_AT_ONCE * sizeof(*v));
		for (size_t i = 0; i < REGIONS_AT_ONCE; i++)
			v[n + i].size = sizeof(*v);
		l.regions = (uintptr_t)(v + n);
		l.count = REGIONS_AT_ONCE;
		if (ioctl(control, LLM_IOC_REGION_LIST, &l) || l.count > REGIONS_AT_ONCE)
			break;
		n += l.count;
		if (l.count)
			l.after = v[n - 1].id;
	} while (l.count == REGIONS_AT_ONCE && n < MAX_REGIONS);
	*out = v;
	return n;
}

void room_held(int control, struct mem_held *held)
{
	struct llm_mem_status st = {.size = sizeof(st)};
	struct llm_region_info *v;
	size_t n;

	*held = (struct mem_held){0};
	if (control < 0)
		return;
	held->module = true;
	if (!ioctl(control, LLM_IOC_MEM_STATUS, &st)) {
		held->reserve = st.reserve_held;
		held->free_blocks = st.free_blocks;
	}
	n = room_regions(control, &v);
	for (size_t i = 0; i < n; i++)
		held->regions += v[i].resident;
	free(v);
}

int room_reserve(int control, uint64_t bytes, uint64_t *held, struct err *e)
{
	struct llm_mem_reserve a = {.size = sizeof(a)};
	int rc;

	if (bytes > UINT64_MAX - MEM_BLOCK)
		return err_set(e, -EINVAL, "reserve: more than any machine has");
	a.bytes = (bytes + MEM_BLOCK - 1) / MEM_BLOCK * MEM_BLOCK;
	rc = ioctl(control, LLM_IOC_MEM_RESERVE, &a) ? -errno : 0;
	if (rc == -EPERM)
		return err_set(e, rc,
			       "reserve: not allowed: needs CAP_SYS_ADMIN, or the group of the "
			       "module's parameter admin_gid");
	if (rc)
		return err_set(e, rc, "reserve: the module: %s", strerror(-rc));
	*held = a.held;
	return 0;
}
