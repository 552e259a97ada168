// SPDX-License-Identifier: MIT
/*
 * Finding, creating and keeping regions of weights; see region_load.h. Owns nothing after
 * weights_free_job(): the region belongs to the placement.
 *
 * Two processes that want the same weights at once: whoever creates the region loads them, the other
 * one waits until it is sealed. If the loader dies, its region goes with it (for a moment it may be
 * there half written, and nobody has it open), and the one that waits loads.
 */
#include "weights/region_load.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fnv.h"
#include "base/map.h"

#define LABEL_MAX 48
#define WAIT_NS	  50000000
/* Longer than a file system's clock stands still. */
#define CLOCK_NS 20000000
/* Memory that is made in one call, which no signal ends. */
#define HUGE_STEP ((size_t)64 << 20)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static void note(const struct weights_opts *o, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void note(const struct weights_opts *o, const char *fmt, ...)
{
	struct err line;
	va_list ap;
	int n;

	if (!o->note)
		return;
	n = snprintf(line.msg, sizeof(line.msg), "weights: ");
	va_start(ap, fmt);
	vsnprintf(line.msg + n, sizeof(line.msg) - (size_t)n, fmt, ap);
	va_end(ap);
	o->note(o->note_ctx, line.msg);
}

static void nap(long ns)
{
	nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

/* ---- what they are -------------------------------------------------------------------------------- */

/* What packing makes of a pattern: equal exactly if it does the same, whoever compiled it. */
static int pattern_layout(const struct load_item *it, uint64_t *out)
{
	int rows = it->rows < it->pack.group_rows ? (int)it->rows : it->pack.group_rows;
	size_t n = dtype_row_bytes(it->t->type, it->cols) * (size_t)rows;
	size_t space = (it->pack.group_bytes + 255) & ~(size_t)255;
	uint8_t *src = aligned_alloc(256, (n + 255) & ~(size_t)255);
	uint8_t *dst = aligned_alloc(256, space);
	uint32_t x = 2463534242u;

	if (!src || !dst) {
		free(src);
		free(dst);
		return -ENOMEM;
	}
	for (size_t i = 0; i < n; i++) { /* Marsaglia's xorshift */
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		src[i] = (uint8_t)(x >> 11);
	}
	memset(dst, 0, space);
	it->pack.pack(dst, src, rows, it->cols, it->t->type);
	*out = region_data_sum(dst, it->pack.group_bytes, 1, NULL, NULL);
	free(src);
	free(dst);
	return 0;
}

static bool packed_alike(const struct load_item *a, const struct load_item *b)
{
	return a->pack.pack == b->pack.pack && a->t->type == b->t->type && a->cols == b->cols &&
	       a->pack.group_rows == b->pack.group_rows &&
	       (a->rows == b->rows ||
		(a->rows >= a->pack.group_rows && b->rows >= b->pack.group_rows));
}

static int find_layouts(struct weights_job *j, uint64_t *layout)
{
	int known[64], n_known = 0;

	for (int i = 0; i < j->n_items; i++) {
		int k = 0, rc;

		layout[i] = 0;
		if (!j->items[i].pack.pack)
			continue;
		while (k < n_known && !packed_alike(&j->items[known[k]], &j->items[i]))
			k++;
		if (k < n_known) {
			layout[i] = layout[known[k]];
			continue;
		}
		rc = pattern_layout(&j->items[i], &layout[i]);
		if (rc)
			return rc;
		if (n_known < 64)
			known[n_known++] = i;
	}
	return 0;
}

static uint64_t mix_string(uint64_t h, const char *s)
{
	return fnv1a(h, s, strlen(s) + 1);
}

static uint64_t mix_number(uint64_t h, uint64_t x)
{
	return fnv1a(h, &x, sizeof(x));
}

static uint64_t find_identity(const struct weights_job *j, const uint64_t *layout)
{
	uint64_t h = mix_number(FNV_START, REGION_INDEX_VERSION);

	h = mix_string(mix_string(h, j->backend), j->isa);
	for (int64_t i = 0; i < checkpoint_n_tensors(j->c); i++) {
		const struct tensor_info *t = checkpoint_tensor(j->c, i);

		h = mix_string(h, t->name);
		h = fnv1a(h, t->dims, (size_t)t->n_dims * sizeof(t->dims[0]));
		h = mix_number(mix_number(h, t->type), (uint64_t)t->file);
		h = mix_number(mix_number(h, t->offset), t->bytes);
	}
	for (int i = 0; i < j->n_items; i++) {
		const struct load_item *it = &j->items[i];

		h = mix_string(h, it->t->name);
		h = mix_number(mix_number(h, j->offsets[i]), it->stride);
		h = mix_number(mix_number(h, (uint64_t)it->count), (uint64_t)it->rows);
		h = mix_number(mix_number(h, (uint64_t)it->cols), it->pack.group_bytes);
		h = mix_number(mix_number(h, (uint64_t)it->pack.group_rows), layout[i]);
	}
	return h;
}

/*
 * A file that has just been written to could be written to again within the same tick of the file
 * system's clock, and its ctime would not tell: *fresh.
 */
static int find_stamp(const struct checkpoint *c, uint64_t *out, bool *fresh, struct err *e)
{
	uint64_t h = FNV_START;
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	*fresh = false;
	for (int i = 0; i < checkpoint_n_files(c); i++) {
		const char *path = checkpoint_file(c, i);
		struct stat s;
		int64_t age;

		if (stat(path, &s))
			return err_set(e, -errno, "%s: cannot be examined: %s", path,
				       strerror(errno));
		h = mix_number(mix_number(h, s.st_dev), s.st_ino);
		h = mix_number(h, (uint64_t)s.st_size);
		h = mix_number(mix_number(h, (uint64_t)s.st_mtim.tv_sec),
			       (uint64_t)s.st_mtim.tv_nsec);
		h = mix_number(mix_number(h, (uint64_t)s.st_ctim.tv_sec),
			       (uint64_t)s.st_ctim.tv_nsec);
		age = (now.tv_sec - s.st_ctim.tv_sec) * 1000000000 + now.tv_nsec -
		      s.st_ctim.tv_nsec;
		*fresh |= age > -CLOCK_NS && age < CLOCK_NS;
	}
	*out = h;
	return 0;
}

/* A model's name as a part of a region's. */
static void make_label(char out[LABEL_MAX], const char *from)
{
	static const char chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789._@+-";
	size_t n = 0;

	for (; from && *from && n < LABEL_MAX - 1; from++)
		out[n++] = strchr(chars, *from) ? *from : '-';
	if (!n)
		out[n++] = '-';
	out[n] = '\0';
}

/* Everything of the plan that does not depend on the stamp. */
static int make_plan(struct weights_job *j, struct err *e)
{
	uint64_t *layout = calloc((size_t)j->n_items + 1, sizeof(*layout));
	const char *path = checkpoint_path(j->c);

	j->path = realpath(path, NULL);
	if (!j->path)
		j->path = strdup(path);
	j->plan = (struct region_index_plan){
		.label = j->o->label ? j->o->label : "",
		.path = j->path,
		.backend = j->backend,
		.isa = j->isa,
		.items = j->items,
		.offsets = j->offsets,
		.layouts = layout,
		.n_items = j->n_items,
		.data_bytes = j->bytes,
	};
	if (!layout || !j->path || find_layouts(j, layout))
		return err_set(e, -ENOMEM, "%s: no memory for an index of its tensors", path);
	j->plan.identity = find_identity(j, layout);
	return 0;
}

static int make_name(struct weights_job *j, struct err *e)
{
	char label[LABEL_MAX];
	bool fresh;
	int rc = find_stamp(j->c, &j->plan.stamp, &fresh, e);

	if (!rc && fresh) {
		nap(CLOCK_NS);
		rc = find_stamp(j->c, &j->plan.stamp, &fresh, e);
	}
	make_label(label, j->o->label);
	snprintf(j->name, sizeof(j->name), WEIGHTS_REGION_PREFIX "%s:%016" PRIx64 ":%016" PRIx64,
		 label, j->plan.identity, j->plan.stamp);
	return rc;
}

static bool is_weights_name(const char *name)
{
	return !strncmp(name, WEIGHTS_REGION_PREFIX, strlen(WEIGHTS_REGION_PREFIX));
}

/* ---- finding ------------------------------------------------------------------------------------------ */

static bool trusted(const struct region_fact *f)
{
	return f->uid == geteuid() || !f->uid;
}

static void tell(const struct weights_job *j, uint64_t done, uint64_t total)
{
	if (j->o->progress)
		j->o->progress(j->o->progress_ctx, done, total);
}

static void set_base(struct placement *p, const struct weights_job *j)
{
	p->in_region = true;
	p->base = (char *)p->region.base + region_index_space(&j->plan);
	p->bytes = j->bytes;
}

/* Opens the region of this job's name and believes it, or says why not. */
static int take_region(struct placement *p, struct weights_job *j, struct err *e)
{
	struct region_index x;
	int rc = region_open(&p->store, j->name, true, &p->region, e);

	if (rc)
		return rc;
	rc = region_index_read(&x, p->region.base, p->region.bytes, e);
	if (!rc)
		rc = region_index_match(&x, &j->plan, e);
	set_base(p, j);
	if (!rc && j->o->verify &&
	    region_data_sum(p->base, p->bytes, 0, j->o->progress, j->o->progress_ctx) !=
		    x.head->data_sum)
		rc = err_set(e, -EINVAL, "the sum of the data is wrong");
	if (!rc)
		j->sample = x.head->sample;
	if (rc) {
		region_close(&p->store, &p->region);
		p->in_region = false;
		p->base = NULL;
	}
	return rc;
}

/*
 * True if nothing will want this region any more: half written and nobody is at it, or of a checkpoint
 * at the same path that has changed since, or laid out by another build.
 */
static bool is_stale(struct region_store *s, const struct region_fact *f,
		     const struct weights_job *j)
{
	struct region_index x;
	struct region r;
	bool stale = false;

	if (!is_weights_name(f->name) || f->uid != geteuid() || f->busy)
		return false;
	if (!f->sealed)
		return true;
	if (!strcmp(f->name, j->name) || region_open(s, f->name, false, &r, NULL))
		return false;
	if (!region_index_read(&x, r.base, r.bytes, NULL) && !strcmp(x.path, j->path))
		stale = x.head->stamp != j->plan.stamp ||
			(!strncmp(x.head->backend, j->backend, 15) &&
			 !strncmp(x.head->isa, j->isa, 15));
	region_close(s, &r);
	return stale;
}

static void destroy_stale(struct region_store *s, const struct weights_job *j)
{
	struct region_fact *v;
	size_t n;

	if (region_list(s, &v, &n, NULL))
		return;
	for (size_t i = 0; i < n; i++)
		if (is_stale(s, &v[i], j) && !region_destroy(s, v[i].name, NULL))
			note(j->o, "region %s is out of date: destroyed", v[i].name);
	free(v);
}

/* Destroys the oldest weights of this user that nobody uses; false if there are none. */
static bool destroy_unused(struct region_store *s, const struct weights_job *j)
{
	struct region_fact *v, *oldest = NULL;
	bool done = false;
	size_t n;

	if (region_list(s, &v, &n, NULL))
		return false;
	for (size_t i = 0; i < n; i++)
		if (is_weights_name(v[i].name) && v[i].uid == geteuid() && v[i].sealed &&
		    !v[i].users && (!oldest || v[i].created_ns < oldest->created_ns))
			oldest = &v[i];
	if (oldest && !region_destroy(s, oldest->name, NULL)) {
		note(j->o, "region %s, which nobody used, made room: %.2f GiB", oldest->name,
		     (double)oldest->bytes / (1 << 30));
		done = true;
	}
	free(v);
	return done;
}

static int admit(const struct weights_job *j, uint64_t bytes, struct err *e)
{
	return j->o->admit ? j->o->admit(j->o->admit_ctx, bytes, e) : 0;
}

static int create_region(struct placement *p, struct weights_job *j, struct err *e)
{
	size_t bytes = region_index_space(&j->plan) + j->bytes;
	int rc;

	destroy_stale(&p->store, j);
	do {
		rc = admit(j, bytes, e);
		if (!rc)
			rc = region_create(&p->store, j->name, bytes, j->o->node, &p->region, e);
	} while (rc == -ENOMEM && destroy_unused(&p->store, j));
	if (!rc)
		set_base(p, j);
	return rc;
}

/*
 * A memfd is of small pages, whatever is advised, where shmem_enabled says so, as most systems' does.
 * Asked for in so many words huge ones are to be had all the same (since Linux 6.1), before the
 * weights come: whoever maps them has a five-hundredth of the page faults. What cannot be had stays
 * small.
 */
static void ask_for_huge_pages(const struct placement *p, const struct weights_job *j)
{
	char *base = p->region.base;

	for (size_t at = 0; at < p->region.mapped; at += HUGE_STEP) {
		size_t n = p->region.mapped - at;

		n = n < HUGE_STEP ? n : HUGE_STEP;
		/* Where there is no page at all it is refused. */
		for (size_t i = 0; i < n; i += HUGE_PAGE)
			base[at + i] = 0;
		if (madvise(base + at, n, MADV_COLLAPSE))
			return;
		tell(j, 0, j->bytes);
	}
}

/* 1: found, 0: created, or an error. */
static int find_or_create(struct placement *p, struct weights_job *j, struct err *e)
{
	struct region_fact f;
	bool waiting = false;
	int tries = 0, rc;

	while (tries < 8) {
		rc = region_find(&p->store, j->name, &f, e);
		if (rc == -ENOENT) {
			tries++;
			rc = create_region(p, j, e);
			if (!rc && p->store.place == REGION_KEEPER)
				ask_for_huge_pages(p, j);
			if (rc != -EEXIST)
				return rc;
			continue;
		}
		if (rc)
			return rc;
		if (!trusted(&f))
			return err_set(e, -EPERM,
				       "region %s: belongs to uid %u, whose weights this user does "
				       "not trust: have it destroyed",
				       j->name, f.uid);
		if (f.busy) {
			if (!waiting)
				note(j->o, "process %d is loading the same: waiting for it", f.pid);
			waiting = true;
			tell(j, 0, j->bytes);
			nap(WAIT_NS);
			continue;
		}
		tries++;
		if (f.sealed) {
			struct err why;

			rc = take_region(p, j, &why);
			if (!rc)
				return 1;
			if (rc != -ENOENT)
				note(j->o, "region %s is not used: %s", j->name, why.msg);
		} else {
			note(j->o, "region %s was left half written", j->name);
		}
		rc = region_destroy(&p->store, j->name, e);
		if (rc && rc != -ENOENT)
			return rc;
	}
	return err_set(e, -EBUSY, "region %s: others create and destroy it all the time", j->name);
}

static int try_place(struct placement *p, struct weights_job *j, enum region_place place,
		     struct err *e)
{
	int rc = region_store_open(&p->store, place, place == REGION_KEEPER, e);

	if (rc)
		return rc;
	rc = find_or_create(p, j, e);
	if (rc < 0)
		region_store_close(&p->store);
	else if (rc)
		note(j->o, "found in region %s (%s): nothing to read", j->name,
		     region_place_name(place));
	else
		note(j->o, "loading into region %s (%s)", j->name, region_place_name(place));
	return rc;
}

static int place_in_region(struct placement *p, struct weights_job *j, struct err *e)
{
	struct err module, keeper;
	int rc = make_plan(j, e);

	if (!rc)
		rc = make_name(j, e);
	if (rc)
		return rc;
	rc = try_place(p, j, REGION_MODULE, &module);
	if (rc >= 0)
		return rc;
	rc = try_place(p, j, REGION_KEEPER, &keeper);
	if (rc >= 0)
		return rc;
	return err_set(e, rc, "no region for the weights: %.200s; %.200s", module.msg, keeper.msg);
}

int weights_place(struct placement *p, struct weights_job *j, struct err *e)
{
	enum weights_mode mode = j->o->mode;
	struct err why;
	int rc;

	*p = (struct placement){.store.fd = -1, .region.fd = -1};
	if (mode == WEIGHTS_AUTO && j->bytes < WEIGHTS_AUTO_MIN) {
		note(j->o, "in anonymous memory: under %zu MiB", WEIGHTS_AUTO_MIN >> 20);
		mode = WEIGHTS_ANON;
	}
	if (mode != WEIGHTS_ANON) {
		rc = place_in_region(p, j, &why);
		if (rc >= 0)
			return rc;
		if (mode == WEIGHTS_REGION)
			return err_set(e, rc, "%s", why.msg);
		note(j->o, "in anonymous memory: %s", why.msg);
	}
	rc = admit(j, j->bytes, e);
	return rc ? rc : placement_alloc(p, j->bytes, j->o->node, e);
}

/* ---- keeping ---------------------------------------------------------------------------------------- */

int weights_keep(struct placement *p, struct weights_job *j, struct err *e)
{
	uint64_t stamp;
	struct err why;
	bool fresh;
	int rc;

	j->sample = region_data_sample(p->base, p->bytes);
	if (!p->in_region)
		return 0;
	rc = find_stamp(j->c, &stamp, &fresh, e);
	if (rc)
		return rc;
	if (stamp != j->plan.stamp)
		return err_set(e, -EAGAIN,
			       "%s: its files have changed while they were loaded: start again",
			       checkpoint_path(j->c));
	region_index_write(p->region.base, &j->plan,
			   region_data_sum(p->base, p->bytes, 0, j->o->progress,
					   j->o->progress_ctx),
			   j->sample);
	rc = region_seal(&p->store, &p->region, &why);
	if (rc && j->o->mode == WEIGHTS_REGION)
		return err_set(e, rc, "%s", why.msg);
	if (rc)
		note(j->o, "kept by nobody: %s", why.msg);
	return 0;
}

void weights_free_job(struct weights_job *j)
{
	free((void *)j->plan.layouts);
	free(j->path);
}

void weights_abandon(void)
{
	struct region_store s;
	struct region_fact *v;
	size_t n;

	if (region_store_open(&s, REGION_MODULE, false, NULL))
		return;
	if (!region_list(&s, &v, &n, NULL)) {
		for (size_t i = 0; i < n; i++)
			if (is_weights_name(v[i].name) && !v[i].sealed && v[i].pid == getpid())
				region_destroy(&s, v[i].name, NULL);
		free(v);
	}
	region_store_close(&s);
}
