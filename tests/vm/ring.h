/* SPDX-License-Identifier: MIT */
/*
 * Reading a file past the page cache, in pieces: by pread(), and by io_uring with a fixed buffer, as much
 * of that as is needed.
 */
#ifndef LLMDEV_TESTS_VM_RING_H
#define LLMDEV_TESTS_VM_RING_H

#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "tests/vm/vm.h"

#define PIECE (512u << 10)

struct ring {
	int fd;
	unsigned *tail, *mask, *array, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
};

__attribute__((unused)) static int ring_open(struct ring *r)
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

__attribute__((unused)) static int ring_register(struct ring *r, void *p, size_t bytes)
{
	struct iovec v = {p, bytes};

	return (int)syscall(SYS_io_uring_register, r->fd, IORING_REGISTER_BUFFERS, &v, 1);
}

__attribute__((unused)) static int ring_unregister(struct ring *r)
{
	return (int)syscall(SYS_io_uring_register, r->fd, IORING_UNREGISTER_BUFFERS, NULL, 0);
}

/* The first bytes of a file into buffer 0, all pieces (at most 32) at once; false: it went wrong. */
__attribute__((unused)) static bool ring_read(struct ring *r, int fd, unsigned char *p,
					      size_t bytes)
{
	unsigned n = (unsigned)(bytes / PIECE), tail = *r->tail, done = 0;
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

/* The first bytes of a file that is open with O_DIRECT. */
__attribute__((unused)) static bool read_direct(int fd, unsigned char *p, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += PIECE)
		if (pread(fd, p + i, PIECE, (off_t)i) != (ssize_t)PIECE)
			return false;
	return true;
}

#endif
