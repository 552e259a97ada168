// SPDX-License-Identifier: MIT
/*
 * The loader's plan and threads; see load.h and load_internal.h.
 *
 * The plan: wanted tensors sorted by file and offset, gaps that are cheaper to read than to skip
 * joined, and the ranges cut into aligned blocks. The calling thread reads (load_ring.c), worker
 * threads copy; without io_uring the workers read as well.
 */
#include "weights/load.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "weights/load_internal.h"

#define DEFAULT_BLOCK (1 << 20)
#define DEFAULT_DEPTH 64
#define MAX_THREADS   4
/* Bytes that nobody wants are read along if skipping them would cost another short read. */
#define GAP_READ_ALONG (128u << 10)
#define HUGE_PAGE      ((size_t)2 << 20)

static uint64_t align_down(uint64_t x)
{
	return x & ~(uint64_t)(READ_ALIGN - 1);
}

static uint64_t align_up(uint64_t x)
{
	return align_down(x + READ_ALIGN - 1);
}

void loader_fail(struct loader *l, int code, const struct err *why)
{
	pthread_mutex_lock(&l->lock);
	if (!l->failed) {
		l->failed = code;
		if (l->e && why && why != l->e)
			*l->e = *why;
	}
	pthread_cond_broadcast(&l->filled);
	pthread_cond_broadcast(&l->freed);
	pthread_mutex_unlock(&l->lock);
}

void loader_retire_slot(struct loader *l, int slot)
{
	l->slots[slot].retired = true;
	pthread_mutex_unlock(&l->lock);
	/* Where pages are larger than blocks, a page belongs to several slots. */
	if (l->block_bytes % sysconf(_SC_PAGESIZE) == 0)
		madvise(l->slots[slot].buf, (size_t)l->block_bytes, MADV_DONTNEED);
	pthread_mutex_lock(&l->lock);
	l->n_retired++;
}

/* ---- plan --------------------------------------------------------------------------------------- */

static int check_item(const struct checkpoint *c, const struct load_item *it, struct err *e)
{
	const struct tensor_info *t = it->t;
	size_t row = dtype_row_bytes(t->type, it->cols), matrix, placed;
	uint64_t bytes;
	int64_t groups;
	bool packed = it->pack.pack;

	if (it->count < 1 || it->rows < 1 || it->cols < 1 || !row ||
	    __builtin_mul_overflow(row, (uint64_t)it->rows, &matrix) ||
	    __builtin_mul_overflow(matrix, (uint64_t)it->count, &bytes) || bytes != t->bytes)
		return err_set(
			e, -EINVAL,
			"%s: tensor %s: %" PRId64 " x [%" PRId64 ",%" PRId64
			"] does not match the file: wrong shape in the model's configuration?",
			checkpoint_file(c, t->file), t->name, it->count, it->rows, it->cols);
	if (packed && (it->pack.group_rows < 1 || !it->pack.group_bytes))
		return err_set(e, -EINVAL, "tensor %s: a layout without rows or bytes", t->name);
	groups = packed ? (it->rows - 1) / it->pack.group_rows + 1 : 1;
	if (__builtin_mul_overflow((size_t)groups, packed ? it->pack.group_bytes : matrix,
				   &placed) ||
	    (it->count > 1 && it->stride < placed) || !it->dst)
		return err_set(e, -EINVAL, "tensor %s: its place is too small for its layout",
			       t->name);
	return 0;
}

static int by_place_in_file(const void *pa, const void *pb)
{
	const struct tensor_info *a = (*(const struct load_item *const *)pa)->t;
	const struct tensor_info *b = (*(const struct load_item *const *)pb)->t;

	if (a->file != b->file)
		return a->file < b->file ? -1 : 1;
	if (a->offset != b->offset)
		return a->offset < b->offset ? -1 : 1;
	return a->bytes < b->bytes ? -1 : a->bytes > b->bytes;
}

static int sort_items(struct loader *l, const struct checkpoint *c, const struct load_item *items,
		      int n, struct err *e)
{
	l->items = malloc((size_t)(n ? n : 1) * sizeof(*l->items));
	l->sources = malloc((size_t)(n ? n : 1) * sizeof(*l->sources));
	if (!l->items || !l->sources)
		return err_set(e, -ENOMEM, "%s: no memory for the plan of loading",
			       checkpoint_path(c));
	for (int i = 0; i < n; i++) {
		int rc;

		if (!items[i].t->bytes)
			continue;
		rc = check_item(c, &items[i], e);
		if (rc)
			return rc;
		l->items[l->n_items++] = &items[i];
	}
	qsort(l->items, (size_t)l->n_items, sizeof(*l->items), by_place_in_file);
	for (int i = 0; i < l->n_items; i++) {
		const struct tensor_info *t = l->items[i]->t;
		struct load_source *last = l->n_sources ? &l->sources[l->n_sources - 1] : NULL;

		if (last && last->t->file == t->file && last->t->offset == t->offset &&
		    last->t->bytes == t->bytes)
			last->n_items++;
		else
			l->sources[l->n_sources++] = (struct load_source){t, i, 1};
	}
	return 0;
}

static int add_block(struct loader *l, int *cap, const struct load_block *b)
{
	if (l->n_blocks == *cap) {
		int new_cap = *cap ? *cap * 2 : 1024;
		void *v = realloc(l->blocks, (size_t)new_cap * sizeof(*l->blocks));

		if (!v)
			return -ENOMEM;
		l->blocks = v;
		*cap = new_cap;
	}
	l->blocks[l->n_blocks++] = *b;
	l->total += b->len;
	return 0;
}

/* Cuts [begin, end) of a file at multiples of the block size. */
static int cut_run(struct loader *l, int *cap, int file, int first_source, uint64_t begin,
		   uint64_t end)
{
	uint64_t block = (uint64_t)l->block_bytes;

	for (uint64_t at = align_down(begin); at < end;) {
		uint64_t stop = (at / block + 1) * block;
		const struct load_source *s = &l->sources[first_source];

		if (stop > end)
			stop = end;
		while (s->t->offset + s->t->bytes <= at) {
			s++;
			first_source++;
		}
		if (add_block(l, cap,
			      &(struct load_block){.offset = at,
						   .len = (uint32_t)(align_up(stop) - at),
						   .need = (uint32_t)(stop - at),
						   .file = file,
						   .first_source = first_source}))
			return -ENOMEM;
		at = stop;
	}
	return 0;
}

static int cut_blocks(struct loader *l)
{
	int cap = 0;

	for (int i = 0; i < l->n_sources;) {
		const struct tensor_info *t = l->sources[i].t;
		uint64_t begin = t->offset, end = t->offset + t->bytes;
		int first = i, file = t->file;

		for (i++; i < l->n_sources; i++) {
			t = l->sources[i].t;
			if (t->file != file || t->offset > end + GAP_READ_ALONG)
				break;
			if (t->offset + t->bytes > end)
				end = t->offset + t->bytes;
		}
		if (cut_run(l, &cap, file, first, begin, end))
			return -ENOMEM;
	}
	return 0;
}

/* ---- files --------------------------------------------------------------------------------------- */

/*
 * Some file systems accept O_DIRECT and refuse the reads. A direct read of the first page answers.
 */
static bool direct_read_works(int fd)
{
	void *page = NULL;
	ssize_t n = -1;

	if (!posix_memalign(&page, READ_ALIGN, READ_ALIGN)) {
		n = pread(fd, page, READ_ALIGN, 0);
		free(page);
	}
	return n >= 0;
}

static int open_file(struct load_file *f, bool direct, uint64_t end, struct err *e)
{
	struct stat st;

	f->fd = direct ? open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT) : -1;
	if (f->fd >= 0 && !direct_read_works(f->fd)) {
		close(f->fd);
		f->fd = -1;
	}
	f->direct = f->fd >= 0;
	if (f->fd < 0)
		f->fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (f->fd < 0)
		return err_set(e, -errno, "%s: cannot be opened: %s", f->path, strerror(errno));
	if (fstat(f->fd, &st))
		return err_set(e, -errno, "%s: cannot be examined: %s", f->path, strerror(errno));
	f->size = (uint64_t)st.st_size;
	if (f->size < end)
		return err_set(e, -EINVAL,
			       "%s: has shrunk to %" PRIu64
			       " bytes since its header was read: fetch it again",
			       f->path, f->size);
	return 0;
}

static int open_files(struct loader *l, const struct checkpoint *c, struct err *e)
{
	l->files = calloc((size_t)checkpoint_n_files(c), sizeof(*l->files));
	if (!l->files)
		return err_set(e, -ENOMEM, "%s: no memory", checkpoint_path(c));
	l->n_files = checkpoint_n_files(c);
	for (int i = 0; i < l->n_files; i++)
		l->files[i] = (struct load_file){.path = checkpoint_file(c, i), .fd = -1};
	for (int i = 0; i < l->n_blocks; i++) {
		const struct load_block *b = &l->blocks[i];
		bool last = i + 1 == l->n_blocks || l->blocks[i + 1].file != b->file;
		int rc;

		if (!last)
			continue;
		rc = open_file(&l->files[b->file], !l->o->no_direct, b->offset + b->need, e);
		if (rc)
			return rc;
	}
	return 0;
}

int load_read_block(struct loader *l, int block, uint8_t *buf, size_t have, struct err *e)
{
	const struct load_block *b = &l->blocks[block];
	struct load_file *f = &l->files[b->file];

	while (have < b->need) {
		/* Direct reads must start on a boundary: a few bytes may come twice. */
		size_t at = have & ~(size_t)(READ_ALIGN - 1);
		ssize_t n = pread(f->fd, buf + at, b->len - at, (off_t)(b->offset + at));

		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0 && errno == EINVAL) {
			int flags = fcntl(f->fd, F_GETFL);

			if (flags >= 0 && (flags & O_DIRECT) &&
			    !fcntl(f->fd, F_SETFL, flags & ~O_DIRECT)) {
				pthread_mutex_lock(&l->lock);
				f->direct = false;
				pthread_mutex_unlock(&l->lock);
				continue;
			}
			errno = EINVAL;
		}
		if (n < 0)
			return err_set(e, -errno,
				       "%s: read error at byte %" PRIu64 ": %s: check the disk",
				       f->path, b->offset + at, strerror(errno));
		if (at + (size_t)n <= have)
			return err_set(e, -EIO,
				       "%s: ends at byte %" PRIu64
				       " while it is being loaded: another program truncated it",
				       f->path, b->offset + have);
		pthread_mutex_lock(&l->lock);
		l->bytes_read += at + (size_t)n - have;
		pthread_mutex_unlock(&l->lock);
		have = at + (size_t)n;
	}
	return 0;
}

void load_forget_block(struct loader *l, int block)
{
	const struct load_block *b = &l->blocks[block];
	const struct load_file *f = &l->files[b->file];
	bool direct;

	pthread_mutex_lock(&l->lock);
	direct = f->direct;
	pthread_mutex_unlock(&l->lock);
	if (!direct)
		posix_fadvise(f->fd, (off_t)b->offset, b->len, POSIX_FADV_DONTNEED);
}

/* ---- slots and threads ----------------------------------------------------------------------------- */

static int alloc_slots(struct loader *l, int n)
{
	size_t stride = (size_t)l->block_bytes;
	uint8_t *first;

	l->pool_bytes = (size_t)n * stride + HUGE_PAGE;
	l->pool = mmap(NULL, l->pool_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);
	if (l->pool == MAP_FAILED) {
		l->pool = NULL;
		return -ENOMEM;
	}
	/*
	 * In huge pages a block is one segment for the disk, not 256: many controllers take fewer
	 * than that in one command and would split each read.
	 */
	first = l->pool + (-(uintptr_t)l->pool & (HUGE_PAGE - 1));
	madvise(l->pool, l->pool_bytes, MADV_HUGEPAGE);
	l->slots = calloc((size_t)n, sizeof(*l->slots));
	l->queue = malloc((size_t)n * sizeof(*l->queue));
	l->free_slots = malloc((size_t)n * sizeof(*l->free_slots));
	if (!l->slots || !l->queue || !l->free_slots)
		return -ENOMEM;
	l->n_slots = n;
	for (int i = 0; i < n; i++) {
		l->slots[i] = (struct load_slot){.buf = first + (size_t)i * stride, .block = -1};
		l->free_slots[n - 1 - i] = i;
	}
	l->n_free = n;
	return 0;
}

/* Copies filled slots until there will be none. */
static void *copy_worker(void *arg)
{
	struct loader *l = arg;
	uint8_t *scratch = NULL;

	pthread_mutex_lock(&l->lock);
	for (;;) {
		struct err why;
		int slot, rc;

		while (!l->queue_len && !l->finished && !l->failed)
			pthread_cond_wait(&l->filled, &l->lock);
		if (!l->queue_len || l->failed)
			break;
		slot = l->queue[l->queue_head];
		l->queue_head = (l->queue_head + 1) % l->n_slots;
		l->queue_len--;
		pthread_mutex_unlock(&l->lock);
		rc = load_copy_block(l, l->slots[slot].block, l->slots[slot].buf, &scratch, &why);
		if (rc)
			loader_fail(l, rc, &why);
		pthread_mutex_lock(&l->lock);
		l->n_copied++;
		l->slots[slot].block = -1;
		if (l->n_free >= l->n_blocks - l->next_block)
			loader_retire_slot(l, slot);
		else
			l->free_slots[l->n_free++] = slot;
		pthread_cond_signal(&l->freed);
	}
	pthread_mutex_unlock(&l->lock);
	free(scratch);
	return NULL;
}

/* Without io_uring: reads and copies, one slot a thread. */
static void *read_worker(void *arg)
{
	struct loader *l = arg;
	uint8_t *scratch = NULL;
	int slot;

	pthread_mutex_lock(&l->lock);
	slot = l->free_slots[--l->n_free];
	while (l->next_block < l->n_blocks && !l->failed) {
		int block = l->next_block++, rc;
		uint8_t *buf = l->slots[slot].buf;
		struct err why;

		pthread_mutex_unlock(&l->lock);
		rc = load_read_block(l, block, buf, 0, &why);
		if (!rc) {
			load_forget_block(l, block);
			rc = load_copy_block(l, block, buf, &scratch, &why);
		}
		if (rc)
			loader_fail(l, rc, &why);
		pthread_mutex_lock(&l->lock);
		l->n_copied++;
		pthread_cond_signal(&l->freed);
	}
	pthread_mutex_unlock(&l->lock);
	free(scratch);
	return NULL;
}

/* Threads that take no signals: those belong to the program. Returns how many were started. */
static int start_threads(struct loader *l, void *(*fn)(void *), pthread_t *threads)
{
	sigset_t all, old;
	int n = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (n < l->n_threads && !pthread_create(&threads[n], NULL, fn, l))
		n++;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return n;
}

static void wait_for_readers(struct loader *l)
{
	pthread_mutex_lock(&l->lock);
	while (l->n_copied < l->n_blocks && !l->failed) {
		uint64_t done;

		pthread_cond_wait(&l->freed, &l->lock);
		done = l->bytes_read < l->total ? l->bytes_read : l->total;
		if (!l->o->progress)
			continue;
		pthread_mutex_unlock(&l->lock);
		l->o->progress(l->o->ctx, done, l->total);
		pthread_mutex_lock(&l->lock);
	}
	pthread_mutex_unlock(&l->lock);
}

static int no_threads(struct err *e)
{
	return err_set(e, -EAGAIN, "loading: no thread can be started: raise ulimit -u");
}

static int run_with_ring(struct loader *l, struct err *e)
{
	pthread_t threads[64];
	int n = start_threads(l, copy_worker, threads), rc;

	rc = n ? load_ring_run(l, e) : no_threads(e);
	pthread_mutex_lock(&l->lock);
	l->finished = true;
	pthread_cond_broadcast(&l->filled);
	pthread_mutex_unlock(&l->lock);
	if (rc && rc != -ENOSYS)
		loader_fail(l, rc, e);
	while (n)
		pthread_join(threads[--n], NULL);
	l->finished = false;
	return rc;
}

static int run_without_ring(struct loader *l, struct err *e)
{
	pthread_t threads[64];
	int n = start_threads(l, read_worker, threads);

	if (!n)
		return no_threads(e);
	wait_for_readers(l);
	while (n)
		pthread_join(threads[--n], NULL);
	return 0;
}

/* ---- interface --------------------------------------------------------------------------------------- */

static int default_threads(void)
{
	cpu_set_t set;
	int n = sched_getaffinity(0, sizeof(set), &set) ? 1 : CPU_COUNT(&set);

	return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n;
}

static int prepare(struct loader *l, const struct checkpoint *c, const struct load_item *items,
		   int n_items, struct err *e)
{
	const struct load_opts *o = l->o;
	int n_slots, rc;

	l->block_bytes = o->block_bytes > 0 ? o->block_bytes : DEFAULT_BLOCK;
	l->depth = o->depth > 0 ? o->depth : DEFAULT_DEPTH;
	l->n_threads = o->threads > 0 ? o->threads : default_threads();
	if (l->n_threads > 64)
		l->n_threads = 64;
	if (l->block_bytes % READ_ALIGN || l->block_bytes > 1 << 30 || l->depth > 4096)
		return err_set(e, -EINVAL,
			       "loading: block size %d, depth %d: not a multiple of %u, or absurd",
			       l->block_bytes, l->depth, READ_ALIGN);
	rc = sort_items(l, c, items, n_items, e);
	if (rc)
		return rc;
	if (cut_blocks(l))
		return err_set(e, -ENOMEM, "%s: no memory for the plan of loading",
			       checkpoint_path(c));
	rc = open_files(l, c, e);
	if (rc)
		return rc;
	/* Beyond the depth: those that workers are copying from. */
	n_slots = l->depth + 2 * l->n_threads;
	if (n_slots > l->n_blocks)
		n_slots = l->n_blocks > l->n_threads ? l->n_blocks : l->n_threads;
	if (alloc_slots(l, n_slots))
		return err_set(e, -ENOMEM, "%s: no memory for %d read buffers of %d KiB",
			       checkpoint_path(c), n_slots, l->block_bytes >> 10);
	return 0;
}

static void cleanup(struct loader *l)
{
	while (l->carries) {
		struct load_carry *next = l->carries->next;

		free(l->carries);
		l->carries = next;
	}
	for (int i = 0; i < l->n_files; i++) {
		if (l->files[i].fd < 0)
			continue;
		/* Read-ahead, and large folios that no single block covered. */
		if (!l->files[i].direct)
			posix_fadvise(l->files[i].fd, 0, 0, POSIX_FADV_DONTNEED);
		close(l->files[i].fd);
	}
	if (l->pool)
		munmap(l->pool, l->pool_bytes);
	free(l->files);
	free(l->items);
	free(l->sources);
	free(l->blocks);
	free(l->slots);
	free(l->queue);
	free(l->free_slots);
	pthread_cond_destroy(&l->filled);
	pthread_cond_destroy(&l->freed);
	pthread_mutex_destroy(&l->lock);
}

static bool all_direct(const struct loader *l)
{
	for (int i = 0; i < l->n_files; i++)
		if (l->files[i].fd >= 0 && !l->files[i].direct)
			return false;
	return true;
}

static const char *method_name(const struct loader *l, bool ring)
{
	if (ring)
		return all_direct(l) ? "io_uring O_DIRECT" : "io_uring";
	return all_direct(l) ? "pread O_DIRECT" : "pread";
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int weights_load(const struct checkpoint *c, const struct load_item *items, int n_items,
		 const struct load_opts *o, struct load_stats *st, struct err *e)
{
	static const struct load_opts defaults;
	struct loader l = {.o = o ? o : &defaults, .e = e};
	double start = now();
	bool ring = false;
	int rc;

	pthread_mutex_init(&l.lock, NULL);
	pthread_cond_init(&l.filled, NULL);
	pthread_cond_init(&l.freed, NULL);
	rc = prepare(&l, c, items, n_items, e);
	if (!rc && l.n_blocks) {
		/* Buffered reads at depth defeat read-ahead: one after the other is six times faster. */
		ring = !l.o->no_uring && all_direct(&l);
		if (ring)
			rc = run_with_ring(&l, e);
		if (!ring || rc == -ENOSYS) {
			ring = false;
			rc = run_without_ring(&l, e);
		}
		if (!rc)
			rc = l.failed;
	}
	if (st) {
		*st = (struct load_stats){.bytes_read = l.bytes_read,
					  .seconds = now() - start,
					  .method = l.n_files ? method_name(&l, ring) : "none"};
		for (int i = 0; i < l.n_sources; i++)
			st->bytes_tensors += l.sources[i].t->bytes;
	}
	cleanup(&l);
	return rc;
}
