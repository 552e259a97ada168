// SPDX-License-Identifier: MIT
/*
 * The loader: every byte arrives where it belongs, whatever the block size, the layout and the way
 * of reading; refusals of the system and damage during loading end in a fallback or a clear error.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tests/tap.h"
#include "tests/unit/weights_files.h"
#include "weights/load.h"
#include "weights/placement.h"

#define GUARD 0xA5

/* Rows of a group interleaved byte by byte; rows that are missing from the last group are 0xEE. */
static void interleave(void *dst, const void *src, int rows, int64_t cols, enum dtype type,
		       int group)
{
	size_t row = dtype_row_bytes(type, cols);
	uint8_t *d = dst;
	const uint8_t *s = src;

	for (size_t i = 0; i < row; i++)
		for (int r = 0; r < group; r++)
			*d++ = r < rows ? s[(size_t)r * row + i] : 0xEE;
}

#define INTERLEAVE(n)                                                                              \
	static void interleave##n(void *d, const void *s, int rows, int64_t cols, enum dtype t)    \
	{                                                                                          \
		interleave(d, s, rows, cols, t, n);                                                \
	}
INTERLEAVE(1)
INTERLEAVE(3)
INTERLEAVE(16)
INTERLEAVE(500)

typedef void (*pack_fn)(void *dst, const void *src, int rows, int64_t cols, enum dtype type);

/* What is made of one tensor. */
struct wish {
	const char *name;
	int64_t count, rows, cols;
	int group; /* 0: plain copy */
	pack_fn pack;
	size_t extra; /* bytes between two matrices */
};

/* A checkpoint of two shards with odd sizes; a header of odd length puts tensors at odd offsets. */
static const struct {
	const char *name, *dtype;
	int64_t rows, cols;
	int elem;
} tensors[] = {
	{"embed", "BF16", 517, 64, 2},	 {"norm", "F32", 1, 61, 4},
	{"up", "U8", 1000, 333, 1},	 {"experts", "BF16", 6 * 50, 40, 2},
	{"skipped", "U8", 1, 400001, 1}, {"down", "F32", 97, 129, 4},
	{"one", "U8", 1, 1, 1},		 {"long", "BF16", 3, 70000, 2},
	{"last", "U8", 13, 1, 1},
};
#define N_TENSORS (sizeof(tensors) / sizeof(tensors[0]))
#define SPLIT	  5 /* tensors from here on are in the second shard */

static const struct wish wishes[] = {
	{"last", 1, 13, 1, 3, interleave3, 0},	  {"up", 1, 1000, 333, 16, interleave16, 0},
	{"embed", 1, 517, 64, 0, NULL, 0},	  {"embed", 1, 517, 64, 16, interleave16, 0},
	{"norm", 1, 1, 61, 0, NULL, 0},		  {"experts", 6, 50, 40, 16, interleave16, 96},
	{"experts", 6, 50, 40, 0, NULL, 32},	  {"down", 1, 97, 129, 500, interleave500, 0},
	{"down", 1, 97, 129, 1, interleave1, 0},  {"one", 1, 1, 1, 0, NULL, 0},
	{"long", 1, 3, 70000, 3, interleave3, 0},
};
#define N_WISHES (sizeof(wishes) / sizeof(wishes[0]))

static void put_shard(const char *file, size_t from, size_t to)
{
	struct bytes header = {0}, b = {0};
	char entry[256];
	uint64_t at = 0;
	uint32_t x = (uint32_t)from + 1;

	add(&header, "{", 1);
	for (size_t i = from; i < to; i++) {
		uint64_t n = (uint64_t)(tensors[i].rows * tensors[i].cols * tensors[i].elem);

		snprintf(entry, sizeof(entry),
			 "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%lld,%lld],\"data_offsets\":[%llu,%"
			 "llu]}",
			 i == from ? "" : ",", tensors[i].name, tensors[i].dtype,
			 (long long)tensors[i].rows, (long long)tensors[i].cols,
			 (unsigned long long)at, (unsigned long long)(at + n));
		add(&header, entry, strlen(entry));
		at += n;
	}
	add(&header, "}", 1);
	while (header.n % 2 == 0)
		add(&header, " ", 1);
	add_u64(&b, header.n);
	add(&b, header.p, header.n);
	while (at--) {
		x = x * 1664525u + 1013904223u;
		add(&b, &(uint8_t){(uint8_t)(x >> 24)}, 1);
	}
	put_file(file, b.p, b.n);
	free(header.p);
	free(b.p);
}

static struct checkpoint *make_checkpoint(const char *dir)
{
	struct checkpoint *c;
	struct err e;

	put_text("config.json", "{}");
	put_shard("s-1.safetensors", 0, SPLIT);
	put_shard("s-2.safetensors", SPLIT, N_TENSORS);
	put_text("model.safetensors.index.json",
		 "{\"weight_map\":{\"up\":\"s-1.safetensors\",\"down\":\"s-2.safetensors\"}}");
	if (!CHECK(checkpoint_open(&c, dir, &e) == 0, "the test's checkpoint opens (%s)", e.msg))
		exit(tap_done());
	return c;
}

static size_t row_bytes(const struct tensor_info *t, const struct wish *w)
{
	return dtype_row_bytes(t->type, w->cols);
}

static size_t groups(const struct wish *w)
{
	return w->group ? (size_t)((w->rows + w->group - 1) / w->group) : 1;
}

/* Bytes at the destination of one matrix, without w->extra. */
static size_t matrix_out(const struct tensor_info *t, const struct wish *w)
{
	return w->group ? groups(w) * (size_t)w->group * row_bytes(t, w)
			: (size_t)w->rows * row_bytes(t, w);
}

static void fill_item(struct load_item *it, const struct tensor_info *t, const struct wish *w)
{
	*it = (struct load_item){.t = t, .count = w->count, .rows = w->rows, .cols = w->cols};
	it->stride = matrix_out(t, w) + w->extra;
	if (w->group)
		it->pack =
			(struct weight_pack){w->group, (size_t)w->group * row_bytes(t, w), w->pack};
	/* A guard of 64 bytes behind it. */
	it->dst = aligned_alloc(64, (it->stride * (size_t)w->count + 64 + 63) / 64 * 64);
	memset(it->dst, GUARD, it->stride * (size_t)w->count + 64);
}

/* What must stand at the item's place, computed row by row from the file. */
static bool arrived(const struct checkpoint *c, const struct load_item *it, const struct wish *w)
{
	const struct tensor_info *t = it->t;
	size_t row = row_bytes(t, w), out = matrix_out(t, w);
	uint8_t *file = malloc(t->bytes), *want = malloc(out), *have = it->dst;
	int fd = open(checkpoint_file(c, t->file), O_RDONLY | O_CLOEXEC);
	bool ok = pread(fd, file, t->bytes, (off_t)t->offset) == (ssize_t)t->bytes;

	close(fd);
	for (int64_t m = 0; m < w->count && ok; m++) {
		const uint8_t *src = file + (size_t)(m * w->rows) * row;

		if (!w->group)
			memcpy(want, src, out);
		for (size_t g = 0; w->group && g < groups(w); g++) {
			int64_t left = w->rows - (int64_t)g * w->group;

			interleave(want + g * it->pack.group_bytes, src + g * it->pack.group_bytes,
				   left < w->group ? (int)left : w->group, w->cols, t->type,
				   w->group);
		}
		ok = !memcmp(have + (size_t)m * it->stride, want, out);
		for (size_t i = out; i < it->stride && ok; i++)
			ok = have[(size_t)m * it->stride + i] == GUARD;
	}
	for (size_t i = 0; i < 64 && ok; i++)
		ok = have[it->stride * (size_t)w->count + i] == GUARD;
	free(file);
	free(want);
	return ok;
}

/* Loads all wishes; true if everything arrived. */
static bool load_all(const struct checkpoint *c, const struct load_opts *o, struct load_stats *st,
		     struct err *e)
{
	struct load_item items[N_WISHES];
	bool ok;

	for (size_t i = 0; i < N_WISHES; i++)
		fill_item(&items[i], checkpoint_find(c, wishes[i].name), &wishes[i]);
	ok = weights_load(c, items, N_WISHES, o, st, e) == 0;
	for (size_t i = 0; i < N_WISHES; i++) {
		ok = ok && arrived(c, &items[i], &wishes[i]);
		free(items[i].dst);
	}
	return ok;
}

static void all_ways(const struct checkpoint *c)
{
	static const int blocks[] = {4096, 8192, 65536, 1 << 20, 0};
	static const int depths[] = {1, 5, 64};

	for (size_t b = 0; b < sizeof(blocks) / sizeof(blocks[0]); b++)
		for (size_t d = 0; d < sizeof(depths) / sizeof(depths[0]); d++)
			for (int way = 0; way < 4; way++) {
				struct load_opts o = {.block_bytes = blocks[b],
						      .depth = depths[d],
						      .no_direct = way & 1,
						      .no_uring = way & 2,
						      .threads = way + 1};
				struct load_stats st;
				struct err e = {""};
				bool ok = load_all(c, &o, &st, &e);

				CHECK(ok, "blocks of %d, depth %d, %s (%s)", blocks[b], depths[d],
				      st.method, e.msg);
			}
}

static void figures(const struct checkpoint *c)
{
	struct load_stats st;
	struct err e = {""};
	uint64_t wanted = 0;

	CHECK(load_all(c, NULL, &st, &e), "defaults load (%s)", e.msg);
	for (int64_t i = 0; i < checkpoint_n_tensors(c); i++)
		if (strcmp(checkpoint_tensor(c, i)->name, "skipped"))
			wanted += checkpoint_tensor(c, i)->bytes;
	CHECK(st.bytes_tensors == wanted, "tensors count once, however often they are placed");
	CHECK(st.bytes_read >= wanted && st.bytes_read < wanted + 200000,
	      "what nobody wants is not read (%llu of %llu)", (unsigned long long)st.bytes_read,
	      (unsigned long long)wanted);
	CHECK(weights_load(c, NULL, 0, NULL, &st, &e) == 0 && st.bytes_read == 0,
	      "nothing to load");
}

static void wrong_items(const struct checkpoint *c)
{
	struct load_item it;
	struct err e;
	static const struct {
		struct wish w;
		const char *what;
	} bad[] = {
		{{"up", 1, 1000, 332, 0, NULL, 0}, "wrong columns"},
		{{"up", 1, 999, 333, 0, NULL, 0}, "wrong rows"},
		{{"experts", 5, 50, 40, 0, NULL, 0}, "wrong count"},
		{{"up", 1, 1000, -333, 0, NULL, 0}, "negative columns"},
		{{"up", (int64_t)1 << 62, 1000, 333, 0, NULL, 0}, "a count that overflows"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		const struct wish *w = &bad[i].w;

		it = (struct load_item){.t = checkpoint_find(c, w->name),
					.dst = &it,
					.count = w->count,
					.rows = w->rows,
					.cols = w->cols,
					.stride = SIZE_MAX};
		CHECK(weights_load(c, &it, 1, NULL, NULL, &e) == -EINVAL &&
			      strstr(e.msg, w->name) && strstr(e.msg, ".safetensors"),
		      "refused: %s (%s)", bad[i].what, e.msg);
	}
	it = (struct load_item){.t = checkpoint_find(c, "experts"),
				.dst = &it,
				.count = 6,
				.rows = 50,
				.cols = 40,
				.stride = 50 * 80 - 1};
	CHECK(weights_load(c, &it, 1, NULL, NULL, &e) == -EINVAL,
	      "refused: matrices that overlap (%s)", e.msg);
}

/* Runs fn in a child; its exit status 0 is a pass, 77 a skip. */
static void in_child(const char *what, int (*fn)(const struct checkpoint *),
		     const struct checkpoint *c)
{
	pid_t pid;
	int status = -1;

	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(fn(c));
	waitpid(pid, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		tap_skip("%s: this system does not let the test arrange it", what);
	else
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s (status %d)", what,
		      status);
}

static int without_io_uring(const struct checkpoint *c)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {sizeof(code) / sizeof(code[0]), code};
	struct load_stats st;
	struct err e = {""};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		return 77;
	if (!load_all(c, NULL, &st, &e)) {
		printf("# %s\n", e.msg);
		return 1;
	}
	return strncmp(st.method, "pread", 5) ? 2 : 0;
}

/* An unprivileged user may lock next to nothing: no buffer can be registered. */
static int without_locked_memory(const struct checkpoint *c)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[2];
	struct load_stats st;
	struct err e = {""};

	if (syscall(SYS_capget, &head, caps))
		return 77;
	for (int i = 0; i < 2; i++)
		caps[i].effective = 0;
	if (setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){4096, 4096}) ||
	    syscall(SYS_capset, &head, caps))
		return 77;
	if (!load_all(c, NULL, &st, &e)) {
		printf("# %s\n", e.msg);
		return 1;
	}
	return 0;
}

/* Share of a file's pages that are in the page cache. */
static double cached(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	double n = 0;

	fstat(fd, &st);
	size_t pages = ((size_t)st.st_size + 4095) / 4096;
	unsigned char *vec = malloc(pages);
	void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);

	mincore(map, (size_t)st.st_size, vec);
	for (size_t i = 0; i < pages; i++)
		n += vec[i] & 1;
	munmap(map, (size_t)st.st_size);
	free(vec);
	close(fd);
	return n / (double)pages;
}

static void uncache(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	fsync(fd);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
}

/* One tensor of `bytes` bytes in a file that is mostly a hole. */
static struct checkpoint *big_checkpoint(const char *dir, size_t bytes)
{
	char header[256];
	struct bytes b = {0};
	struct checkpoint *c;
	struct err e;
	const char *path;
	int fd;

	snprintf(header, sizeof(header),
		 "{\"big\":{\"dtype\":\"U8\",\"shape\":[%zu,4096],\"data_offsets\":[0,%zu]}}",
		 bytes / 4096, bytes);
	add_safetensors(&b, header, 64);
	unlink(scratch("model.safetensors.index.json"));
	path = put_file("model.safetensors", b.p, b.n);
	/* Written, not left as a hole: some file systems do not read holes directly. */
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (posix_fallocate(fd, 0, (off_t)(8 + strlen(header) + bytes)))
		CHECK(false, "no room for the test's file");
	close(fd);
	free(b.p);
	if (!CHECK(checkpoint_open(&c, dir, &e) == 0, "a large tensor opens (%s)", e.msg))
		exit(tap_done());
	return c;
}

static long status_kib(const char *field)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[128];
	long kib = -1;

	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, field, strlen(field)))
			kib = atol(line + strlen(field) + 1);
	fclose(f);
	return kib;
}

static void traces(const char *dir)
{
	const size_t bytes = (size_t)160 << 20;
	struct checkpoint *c = big_checkpoint(dir, bytes);
	struct load_item it = {.t = checkpoint_tensor(c, 0),
			       .count = 1,
			       .rows = (int64_t)bytes / 4096,
			       .cols = 4096};
	struct load_stats st;
	struct placement p;
	struct err e = {""};
	long before, peak;
	int fd, rc;

	REQUIRE(placement_alloc(&p, bytes, -1, &e) == 0, "memory (%s)", e.msg);
	it.dst = p.base;
	uncache(checkpoint_file(c, 0));
	/* 5: start the peak anew. */
	fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "5", 1) != 1)
		tap_skip("clear_refs cannot be written");
	close(fd);
	before = status_kib("VmRSS:");
	rc = weights_load(c, &it, 1, NULL, &st, &e);
	CHECK(rc == 0, "loads with %s (%s)", st.method, e.msg);
	peak = status_kib("VmHWM:") - before;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	tap_skip("memory is counted differently under sanitizers (%ld KiB)", peak);
#else
	CHECK(peak <= (long)(bytes >> 10) + 16384, "peak RSS %ld KiB for %zu KiB of weights", peak,
	      bytes >> 10);
#endif
	if (strstr(st.method, "O_DIRECT"))
		CHECK(cached(checkpoint_file(c, 0)) <= 0.01, "the page cache has not grown");
	else
		tap_skip("page cache: no O_DIRECT here");
	CHECK(weights_load(c, &it, 1, &(struct load_opts){.no_direct = true}, &st, &e) == 0 &&
		      cached(checkpoint_file(c, 0)) <= 0.01,
	      "nor after buffered reads");
	placement_free(&p);
	checkpoint_close(c);
}

static const char *victim;

/* Cuts the file when its first row is put in place. */
static void cut_file(void *dst, const void *src, int rows, int64_t cols, enum dtype type)
{
	if (victim && truncate(victim, 1 << 20))
		perror("truncate");
	victim = NULL;
	memcpy(dst, src, (size_t)rows * dtype_row_bytes(type, cols));
}

static void damage(const char *dir)
{
	const size_t bytes = 4 << 20;

	for (int way = 0; way < 4; way++) {
		struct checkpoint *c = big_checkpoint(dir, bytes);
		struct load_opts o = {.block_bytes = 4096,
				      .depth = 1,
				      .threads = 1,
				      .no_direct = way & 1,
				      .no_uring = way & 2};
		struct load_item it = {.t = checkpoint_tensor(c, 0),
				       .dst = malloc(bytes),
				       .count = 1,
				       .rows = (int64_t)bytes / 4096,
				       .cols = 4096,
				       .pack = {1, 4096, cut_file}};
		struct err e = {""};
		const char *path = checkpoint_file(c, 0);
		int rc;

		victim = path;
		rc = weights_load(c, &it, 1, &o, NULL, &e);
		CHECK(rc < 0 && strstr(e.msg, "model.safetensors") && strstr(e.msg, "ends at byte"),
		      "refused: a file cut while it is read, way %d (%d %s)", way, rc, e.msg);
		rc = weights_load(c, &it, 1, &o, NULL, &e);
		CHECK(rc < 0 && strstr(e.msg, "has shrunk"), "refused: a file cut before (%s)",
		      e.msg);
		unlink(path);
		rc = weights_load(c, &it, 1, &o, NULL, &e);
		CHECK(rc == -ENOENT && strstr(e.msg, "cannot be opened"),
		      "refused: a file that is gone (%s)", e.msg);
		free(it.dst);
		checkpoint_close(c);
	}
}

static void count_up(void *ctx, uint64_t done, uint64_t total)
{
	uint64_t *last = ctx;

	if (done < *last || done > total)
		*last = UINT64_MAX;
	else
		*last = done;
}

static void progress(const struct checkpoint *c)
{
	struct load_stats st;
	struct err e = {""};

	for (int way = 0; way < 4; way += 2) {
		uint64_t last = 0;
		struct load_opts o = {.block_bytes = 4096,
				      .no_uring = way,
				      .progress = count_up,
				      .ctx = &last};

		bool ok = load_all(c, &o, &st, &e);

		CHECK(ok && last > 0 && last <= st.bytes_read + 4096 * 64,
		      "progress only grows, with %s", st.method);
	}
}

int main(void)
{
	const char *dir = scratch_begin();
	struct checkpoint *c = make_checkpoint(dir);

	all_ways(c);
	figures(c);
	progress(c);
	wrong_items(c);
	in_child("io_uring forbidden", without_io_uring, c);
	in_child("no memory may be locked", without_locked_memory, c);
	checkpoint_close(c);
	traces(dir);
	damage(dir);
	scratch_end();
	return tap_done();
}
