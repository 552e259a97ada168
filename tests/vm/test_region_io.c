// SPDX-License-Identifier: MIT
// disk: 64
/*
 * Regions as buffers: O_DIRECT and io_uring's fixed buffers give the same bytes as into anonymous
 * memory; what is pinned is told, and is not sealed. Without a disk only the second.
 */
#include <linux/io_uring.h>
#include <sys/mount.h>
#include <sys/uio.h>

#include "tests/vm/region.h"

#define BYTES	     (8 * MIB)
#define PIECE	     (512u << 10)
#define FILE_ON_DISK "/tmp/disk/file"

/* ---- io_uring, as much of it as is needed -------------------------------------------------------------------- */

struct ring {
	int fd;
	unsigned *tail, *mask, *array, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
};

static int ring_open(struct ring *r)
{
	struct io_uring_params p = {0};
	unsigned char *sq, *cq;

	r->fd = (int)syscall(SYS_io_uring_setup, 32, &p);
	if (r->fd < 0)
		return -1;
	sq = mmap(NULL, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED,
		  r->fd, IORING_OFF_SQ_RING);
	cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe),
		  PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_CQ_RING);
	r->sqes = mmap(NULL, p.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
		       MAP_SHARED, r->fd, IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || r->sqes == MAP_FAILED)
		return -1;
	r->tail = (unsigned *)(sq + p.sq_off.tail);
	r->mask = (unsigned *)(sq + p.sq_off.ring_mask);
	r->array = (unsigned *)(sq + p.sq_off.array);
	r->cq_head = (unsigned *)(cq + p.cq_off.head);
	r->cq_tail = (unsigned *)(cq + p.cq_off.tail);
	r->cq_mask = (unsigned *)(cq + p.cq_off.ring_mask);
	r->cqes = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
	return 0;
}

static int ring_register(struct ring *r, void *p, size_t bytes)
{
	struct iovec v = {p, bytes};

	return (int)syscall(SYS_io_uring_register, r->fd, IORING_REGISTER_BUFFERS, &v, 1);
}

static int ring_unregister(struct ring *r)
{
	return (int)syscall(SYS_io_uring_register, r->fd, IORING_UNREGISTER_BUFFERS, NULL, 0);
}

/* The whole file into buffer 0 by READ_FIXED, all pieces at once; false: one of them went wrong. */
static bool ring_read(struct ring *r, int fd, unsigned char *p)
{
	unsigned n = (unsigned)(BYTES / PIECE), tail = *r->tail, done = 0;
	bool ok = true;

	for (unsigned i = 0; i < n; i++) {
		unsigned at = (tail + i) & *r->mask;

		r->sqes[at] = (struct io_uring_sqe){.opcode = IORING_OP_READ_FIXED,
						    .fd = fd,
						    .off = (uint64_t)i * PIECE,
						    .len = PIECE,
						    .addr = (uintptr_t)(p + (size_t)i * PIECE)};
		r->array[at] = at;
	}
	__atomic_store_n(r->tail, tail + n, __ATOMIC_RELEASE);
	for (unsigned in = n; done < n; in = 0) {
		long rc =
			syscall(SYS_io_uring_enter, r->fd, in, 1, IORING_ENTER_GETEVENTS, NULL, 0);

		if (rc < 0 && errno != EINTR)
			return false;
		for (unsigned head = *r->cq_head;
		     head != __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE); done++) {
			ok &= r->cqes[head & *r->cq_mask].res == (int)PIECE;
			__atomic_store_n(r->cq_head, ++head, __ATOMIC_RELEASE);
		}
	}
	return ok;
}

/* ---- reading ------------------------------------------------------------------------------------------------- */

static bool read_direct(int fd, unsigned char *p)
{
	for (size_t i = 0; i < BYTES; i += PIECE)
		if (pread(fd, p + i, PIECE, (off_t)i) != (ssize_t)PIECE)
			return false;
	return true;
}

/* The fastest of some, in microseconds, of both kinds in turn. */
static void times_of(struct ring *r, int fd, unsigned char *p, unsigned char *q, uint64_t t[2])
{
	t[0] = t[1] = UINT64_MAX;
	for (int i = 0; i < 24; i++) {
		uint64_t start = now_ns(), *best = &t[i & 1];
		bool ok;

		if (i & 1 ? !q : !p)
			continue;
		ok = r ? ring_read(r, fd, i & 1 ? q : p) : read_direct(fd, i & 1 ? q : p);
		start = (now_ns() - start) / 1000;
		if (ok && start < *best)
			*best = start;
	}
}

static void reading(struct ring *r)
{
	unsigned char *anon = mmap(NULL, BYTES + HUGE, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
		      *p;
	int fd, region = region_create("io", BYTES, 0);
	uint64_t t[4];

	mkdir("/tmp/disk", 0755);
	if (mount("/dev/vda", "/tmp/disk", "ext4", 0, NULL)) {
		printf("ok - # SKIP no disk: %s\n", strerror(errno));
		close(region);
		return;
	}
	region_pattern(anon, BYTES, 7);
	fd = open(FILE_ON_DISK, O_CREAT | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);
	check(fd >= 0 && pwrite(fd, anon, BYTES, 0) == (ssize_t)BYTES && !fsync(fd), "a file");
	p = region_map(region, BYTES, PROT_READ | PROT_WRITE);
	check(read_direct(fd, p) && region_has_pattern(p, BYTES, 7),
	      "O_DIRECT into a region: same bytes");
	memset(p, 0, BYTES);
	check(!ring_register(r, p, BYTES), "a region as fixed buffer");
	check(ring_read(r, fd, p) && region_has_pattern(p, BYTES, 7), "READ_FIXED: same bytes");
	ring_unregister(r);
	madvise(anon, BYTES + HUGE, MADV_HUGEPAGE);
	anon = (unsigned char *)(((uintptr_t)anon + HUGE - 1) & ~(uintptr_t)(HUGE - 1));
	read_direct(fd, anon);
	times_of(NULL, fd, p, anon, t);
	printf("# O_DIRECT: region %llu us, anonymous %llu us\n", (unsigned long long)t[0],
	       (unsigned long long)t[1]);
	for (int i = 0; i < 2; i++) {
		ring_register(r, i ? anon : p, BYTES);
		times_of(r, fd, i ? NULL : p, i ? anon : NULL, t + 2 * i);
		ring_unregister(r);
	}
	printf("# READ_FIXED: region %llu us, anonymous %llu us\n", (unsigned long long)t[0],
	       (unsigned long long)t[3]);
	/* It goes out as well. */
	region_pattern(p, BYTES, 8);
	check(pwrite(fd, p, BYTES, 0) == (ssize_t)BYTES && read_direct(fd, anon) &&
		      region_has_pattern(anon, BYTES, 8),
	      "written from a region by O_DIRECT: same bytes");
	munmap(p, BYTES);
	close(fd);
	close(region);
	umount("/tmp/disk");
}

/* ---- pins ------------------------------------------------------------------------------------------------------ */

static void pins(struct ring *r, uint64_t bytes, uint32_t flags, const char *what)
{
	int fd = region_create("pins", bytes, flags), other, pipes[2];
	unsigned char *p = region_map(fd, bytes, PROT_READ | PROT_WRITE);
	struct iovec v = {p, 8192};
	struct llm_region_info i;
	char buf[8192];
	int64_t before;

	check(region_info(fd).pinned_bytes == 0, "%s: nothing is pinned", what);
	check(!ring_register(r, p, bytes), "%s: registered", what);
	i = region_info(fd);
	check(i.pinned_bytes == bytes, "%s: INFO tells what is pinned (%llu)", what,
	      (unsigned long long)i.pinned_bytes);
	munmap(p, bytes);
	refused(region_seal(fd), EBUSY, "%s: SEAL while it is pinned: EBUSY", what);
	check(!ring_unregister(r), "%s: not registered any more", what);
	p = region_map(fd, bytes, PROT_READ | PROT_WRITE);
	/* A reference that is no pin, as direct reads take it on older kernels. */
	check(!pipe(pipes) && vmsplice(pipes[1], &v, 1, 0) == 8192, "%s: pages in a pipe", what);
	munmap(p, bytes);
	refused(region_seal(fd), EBUSY, "%s: SEAL while somebody holds a page: EBUSY", what);
	check(read(pipes[0], buf, sizeof(buf)) == 8192, "%s: the pipe is read", what);
	works(region_seal(fd), "%s: SEAL", what);
	close(pipes[0]);
	close(pipes[1]);
	p = region_map(fd, bytes, PROT_READ);
	check(ring_register(r, p, bytes) && errno == EFAULT,
	      "%s: sealed, it is no fixed buffer: EFAULT", what);
	munmap(p, bytes);
	other = region_open("pins", LLM_REGION_OPEN_REGISTER);
	p = region_map(other, bytes, PROT_READ | PROT_WRITE);
	check(!ring_register(r, p, bytes), "%s: opened to register it is", what);
	/* Memory with a pin outlives its region. */
	before = meminfo("MemFree:");
	munmap(p, bytes);
	close(other);
	close(fd);
	check(region_list("", NULL) == 0, "%s: the region goes while it is pinned", what);
	check(!ring_unregister(r), "%s: its memory with the pin", what);
	check(memory_is_back(before + (int64_t)bytes), "%s: all memory is back", what);
}

int main(void)
{
	static const char deny[] = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
	struct ring r;

	if (ring_open(&r)) {
		printf("ok - # SKIP no io_uring: %s\n1..1\n", strerror(errno));
		return 0;
	}
	reading(&r);
	pins(&r, BYTES, LLM_REGION_HUGE, "huge pages");
	write_file(deny, "deny");
	pins(&r, BYTES, 0, "small pages");
	write_file(deny, "never");
	close(r.fd);
	return done();
}
