// SPDX-License-Identifier: MIT
/* A file of our own, read in two ways; see report_io.h. It has no name from the start: it cannot be left
 * behind. */
#include "report_io.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ctl.h"
#include "doctor.h"

#define CHUNK  ((size_t)1 << 20)
#define DEPTH  64
#define PASSES 3

static double seconds_since(uint64_t start)
{
	return (double)(ctl_now_ns() - start) * 1e-9;
}

static json_int_t mem(const char *name)
{
	struct view here = {""};

	return doctor_meminfo(&here, name);
}

/* Not zeroes: some filesystems and disks make nothing of those. */
static int fill(int fd, uint8_t *buf, size_t bytes, double *rate)
{
	uint64_t x = 88172645463325252ull, start = ctl_now_ns();

	for (size_t i = 0; i < CHUNK / 8; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(buf + 8 * i, &x, 8);
	}
	for (size_t at = 0; at < bytes; at += CHUNK) {
		memcpy(buf, &at, sizeof(at));
		if (pwrite(fd, buf, CHUNK, (off_t)at) != (ssize_t)CHUNK)
			return errno ? -errno : -EIO;
		if (ctl_sigint())
			return -EINTR;
	}
	if (fsync(fd))
		return -errno;
	*rate = (double)bytes / seconds_since(start);
	return 0;
}

static json_t *cached_read(int fd, uint8_t *buf, size_t bytes)
{
	json_int_t free0, free1, free2, available0, available1;
	uint64_t start;
	double rate;

	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	free0 = mem("MemFree");
	available0 = mem("MemAvailable");
	start = ctl_now_ns();
	for (size_t at = 0; at < bytes; at += CHUNK)
		if (pread(fd, buf, CHUNK, (off_t)at) != (ssize_t)CHUNK)
			return json_pack("{ss}", "missing", strerror(errno));
	rate = (double)bytes / seconds_since(start);
	free1 = mem("MemFree");
	available1 = mem("MemAvailable");
	start = ctl_now_ns();
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	free2 = mem("MemFree");
	return json_pack("{sf sI sI sI sf}", "bytes_per_s", rate, "mem_free_change",
			 (json_int_t)(free1 - free0), "mem_available_change",
			 (json_int_t)(available1 - available0), "mem_free_regained_by_fadvise",
			 (json_int_t)(free2 - free1), "fadvise_s", seconds_since(start));
}

struct reads {
	struct io_uring ring;
	uint8_t *buf;
	size_t bytes, next, left;
};

static void submit(struct reads *r, int slot)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&r->ring);

	io_uring_prep_read_fixed(sqe, 0, r->buf + (size_t)slot * CHUNK, CHUNK, r->next, 0);
	sqe->flags |= IOSQE_FIXED_FILE;
	sqe->user_data = (uint64_t)slot;
	r->next += CHUNK;
}

/* Once through the file. 0 or -errno. */
static int read_pass(struct reads *r)
{
	struct io_uring_cqe *cqe;
	int rc = 0, in_flight = 0;

	r->next = 0;
	for (int slot = 0; slot < DEPTH && r->next < r->bytes; slot++, in_flight++)
		submit(r, slot);
	while (in_flight) {
		int done = io_uring_submit_and_wait(&r->ring, 1);

		if (done < 0 && done != -EINTR)
			return done;
		while (!io_uring_peek_cqe(&r->ring, &cqe)) {
			int slot = (int)cqe->user_data, res = cqe->res;

			io_uring_cqe_seen(&r->ring, cqe);
			in_flight--;
			if (res != (int)CHUNK && !rc)
				rc = res < 0 ? res : -EIO;
			if (!rc && r->next < r->bytes) {
				submit(r, slot);
				in_flight++;
			}
		}
	}
	return rc;
}

static json_t *direct_read(int fd, size_t bytes)
{
	struct reads r = {.bytes = bytes};
	struct iovec iov;
	double best = 0, rate;
	uint64_t start;
	char path[64];
	int direct, rc;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (direct < 0)
		return json_pack("{ss}", "missing", "no O_DIRECT on this filesystem");
	r.buf = mmap(NULL, DEPTH * CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		     0);
	rc = r.buf == MAP_FAILED ? -ENOMEM : io_uring_queue_init(DEPTH, &r.ring, 0);
	if (rc) {
		close(direct);
		if (r.buf != MAP_FAILED)
			munmap(r.buf, DEPTH * CHUNK);
		return json_pack("{ss}", "missing",
				 rc == -EPERM ? "io_uring is forbidden" : strerror(-rc));
	}
	iov = (struct iovec){r.buf, DEPTH * CHUNK};
	rc = io_uring_register_buffers(&r.ring, &iov, 1);
	if (!rc)
		rc = io_uring_register_files(&r.ring, &direct, 1);
	for (int i = 0; !rc && i < PASSES && !ctl_sigint(); i++) {
		start = ctl_now_ns();
		rc = read_pass(&r);
		rate = (double)bytes / seconds_since(start);
		best = !rc && rate > best ? rate : best;
	}
	io_uring_queue_exit(&r.ring);
	munmap(r.buf, DEPTH * CHUNK);
	close(direct);
	if (rc)
		return json_pack("{ss}", "missing", strerror(-rc));
	return json_pack("{sf si sI}", "bytes_per_s", best, "depth", DEPTH, "block",
			 (json_int_t)CHUNK);
}

json_t *report_io(const char *dir, size_t bytes, struct err *e)
{
	uint8_t *buf = aligned_alloc(4096, CHUNK);
	double written = 0;
	json_t *j = NULL;
	int fd, rc;

	bytes &= ~(CHUNK - 1);
	fd = open(dir, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	if (fd < 0 || !buf) {
		err_set(e, fd < 0 ? -errno : -ENOMEM,
			"%s: %s: name a folder on the disk with --dir", dir,
			fd < 0 ? strerror(errno) : "out of memory");
		goto out;
	}
	rc = fill(fd, buf, bytes, &written);
	if (rc) {
		err_set(e, rc, "%s: writing %zu MiB: %s: make room, or --dir", dir, bytes >> 20,
			strerror(-rc));
		goto out;
	}
	j = json_pack("{sI sf so so}", "bytes", (json_int_t)bytes, "write_bytes_per_s", written,
		      "page_cache", cached_read(fd, buf, bytes), "io_uring",
		      direct_read(fd, bytes));
out:
	if (fd >= 0)
		close(fd);
	free(buf);
	return j;
}
