// SPDX-License-Identifier: MIT
/*
 * The io_uring reader; see load_internal.h. Owns the ring, which exists only inside
 * load_ring_run(). All ring calls are made by one thread.
 *
 * What the system may refuse, and what follows: a ring at all (seccomp, io_uring_disabled): the
 * caller reads without; registered buffers (RLIMIT_MEMLOCK of an unprivileged user) or files:
 * ordinary ones are used.
 */
#include "weights/load_internal.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>

struct reader {
	struct io_uring ring;
	struct loader *l;
	bool fixed_files, fixed_buffers;
	int in_flight;
};

static int setup(struct reader *r)
{
	unsigned entries = (unsigned)r->l->depth;
	int rc, *fds;

	/* The kernel then completes reads when this thread waits, not by interrupting workers. */
	rc = io_uring_queue_init(entries, &r->ring,
				 IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	if (rc == -EINVAL) /* before Linux 6.1 */
		rc = io_uring_queue_init(entries, &r->ring, 0);
	if (rc)
		return -ENOSYS;
	/*
	 * Buffers are registered one by one when first used: pinning (and zeroing) all of them here
	 * would keep the disk waiting.
	 */
	r->fixed_buffers = !io_uring_register_buffers_sparse(&r->ring, (unsigned)r->l->n_slots);

	fds = malloc((size_t)r->l->n_files * sizeof(*fds));
	if (fds) {
		for (int i = 0; i < r->l->n_files; i++)
			fds[i] = r->l->files[i].fd;
		r->fixed_files = !io_uring_register_files(&r->ring, fds, (unsigned)r->l->n_files);
		free(fds);
	}
	return 0;
}

static void register_slot(struct reader *r, int slot)
{
	struct load_slot *s = &r->l->slots[slot];
	struct iovec iov = {s->buf, (size_t)r->l->block_bytes};
	__u64 tag = 0;

	if (s->fixed || !r->fixed_buffers)
		return;
	if (io_uring_register_buffers_update_tag(&r->ring, (unsigned)slot, &iov, &tag, 1) == 1)
		s->fixed = true;
	else
		r->fixed_buffers = false;
}

/* Retired slots hold pinned pages until the ring forgets them. */
static void unregister_retired(struct reader *r)
{
	struct loader *l = r->l;
	struct iovec none = {NULL, 0};
	__u64 tag = 0;

	for (int i = 0; i < l->n_slots; i++) {
		bool retired;

		if (!l->slots[i].fixed)
			continue;
		pthread_mutex_lock(&l->lock);
		retired = l->slots[i].retired;
		pthread_mutex_unlock(&l->lock);
		if (!retired)
			continue;
		io_uring_register_buffers_update_tag(&r->ring, (unsigned)i, &none, &tag, 1);
		l->slots[i].fixed = false;
	}
}

static void queue_read(struct reader *r, int slot)
{
	struct load_slot *s = &r->l->slots[slot];
	const struct load_block *b = &r->l->blocks[s->block];
	struct io_uring_sqe *sqe = io_uring_get_sqe(&r->ring);
	int fd = r->fixed_files ? b->file : r->l->files[b->file].fd;

	register_slot(r, slot);
	if (s->fixed)
		io_uring_prep_read_fixed(sqe, fd, s->buf, b->len, b->offset, slot);
	else
		io_uring_prep_read(sqe, fd, s->buf, b->len, b->offset);
	if (r->fixed_files)
		sqe->flags |= IOSQE_FIXED_FILE;
	sqe->user_data = (__u64)slot;
	r->in_flight++;
}

/* Gives free slots their next block, or retires them. */
static void feed(struct reader *r)
{
	struct loader *l = r->l;
	bool more = true;

	pthread_mutex_lock(&l->lock);
	while (l->n_free && (r->in_flight < l->depth || !more)) {
		int slot = l->free_slots[--l->n_free];

		more = l->next_block < l->n_blocks && !l->failed;
		if (!more) {
			loader_retire_slot(l, slot);
			continue;
		}
		l->slots[slot].block = l->next_block++;
		pthread_mutex_unlock(&l->lock);
		queue_read(r, slot);
		pthread_mutex_lock(&l->lock);
	}
	more = l->n_retired > 0;
	pthread_mutex_unlock(&l->lock);
	if (more)
		unregister_retired(r);
}

/* A read has ended with `res` bytes or -errno: the slot goes to the workers. */
static int complete(struct reader *r, int slot, int res, struct err *e)
{
	struct loader *l = r->l;
	struct load_slot *s = &l->slots[slot];
	size_t have = res > 0 ? (size_t)res : 0;
	int rc = 0;

	/* Short or refused reads are rare: the rest is read here and now, which also names errors. */
	if (have < l->blocks[s->block].need && !l->failed)
		rc = load_read_block(l, s->block, s->buf, have, e);
	load_forget_block(l, s->block);
	pthread_mutex_lock(&l->lock);
	l->bytes_read += have;
	if (rc || l->failed) {
		l->free_slots[l->n_free++] = slot;
	} else {
		l->queue[(l->queue_head + l->queue_len++) % l->n_slots] = slot;
		pthread_cond_signal(&l->filled);
	}
	pthread_mutex_unlock(&l->lock);
	return rc;
}

static int reap(struct reader *r, struct err *e)
{
	struct io_uring_cqe *cqe;
	unsigned head, n = 0;
	int first = 0;

	io_uring_for_each_cqe(&r->ring, head, cqe)
	{
		struct err why;
		int rc = complete(r, (int)cqe->user_data, cqe->res, &why);

		if (rc && !first) {
			first = rc;
			if (e)
				*e = why;
		}
		r->in_flight--;
		n++;
	}
	io_uring_cq_advance(&r->ring, n);
	return first;
}

/* Waits until a worker gives a slot back; false if none will. */
static bool wait_for_slot(struct reader *r)
{
	struct loader *l = r->l;
	bool more;

	pthread_mutex_lock(&l->lock);
	while (!l->n_free && l->n_retired < l->n_slots && !l->failed)
		pthread_cond_wait(&l->freed, &l->lock);
	more = l->n_free && !l->failed;
	pthread_mutex_unlock(&l->lock);
	return more;
}

int load_ring_run(struct loader *l, struct err *e)
{
	struct reader r = {.l = l};
	int rc = setup(&r), first = 0;

	if (rc)
		return rc;
	for (;;) {
		feed(&r);
		if (!r.in_flight) {
			if (first || !wait_for_slot(&r))
				break;
			continue;
		}
		rc = io_uring_submit_and_wait(&r.ring, 1);
		if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY) {
			/* Nothing the loop could do; closing the ring ends what is in flight. */
			first = err_set(e, rc, "%s: io_uring: %s", l->files[0].path, strerror(-rc));
			break;
		}
		rc = reap(&r, first ? NULL : e);
		if (rc && !first) {
			first = rc;
			loader_fail(l, rc, e);
		}
		if (l->o->progress) {
			pthread_mutex_lock(&l->lock);
			uint64_t done = l->bytes_read;

			pthread_mutex_unlock(&l->lock);
			l->o->progress(l->o->ctx, done < l->total ? done : l->total, l->total);
		}
	}
	io_uring_queue_exit(&r.ring);
	return first;
}
