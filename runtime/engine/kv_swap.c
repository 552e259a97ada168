// SPDX-License-Identifier: MIT
/* The swap file of the KV pool; see kv_swap.h. */
#include "engine/kv_swap.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Not every file system has O_TMPFILE: NFS and older overlayfs, for two. */
static int open_unnamed(const char *dir)
{
	char path[4096];
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
		return fd;
	if ((size_t)snprintf(path, sizeof(path), "%s/llmdev-kv-XXXXXX", dir) >= sizeof(path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	return fd;
}

/* What the user and the process' limit on file sizes (beyond it is SIGXFSZ) leave room for. */
static uint64_t count_slots(uint64_t bytes, size_t stride)
{
	struct rlimit limit;

	if (!getrlimit(RLIMIT_FSIZE, &limit) && limit.rlim_cur < bytes)
		bytes = limit.rlim_cur;
	return bytes / stride;
}

int kv_swap_open(struct kv_swap *s, const char *dir, size_t dir_len, uint64_t bytes,
		 size_t page_bytes, bool aligned, int max_slots, struct err *e)
{
	uint64_t slots;
	char path[4096];
	int rc;

	*s = (struct kv_swap){.fd = -1};
	if (!dir_len)
		dir_len = strlen(dir);
	if (dir_len >= sizeof(path))
		return err_set(e, -ENAMETOOLONG,
			       "swap file: %.60s...: path is too long: use a shorter one", dir);
	memcpy(path, dir, dir_len);
	path[dir_len] = '\0';
	snprintf(s->dir, sizeof(s->dir), "%.*s", (int)sizeof(s->dir) - 1, path);
	s->stride = (page_bytes + KV_SWAP_ALIGN - 1) / KV_SWAP_ALIGN * KV_SWAP_ALIGN;
	slots = count_slots(bytes, s->stride);
	if (!slots || max_slots < 1)
		return err_set(e, -EINVAL,
			       "swap file in %s: %" PRIu64 " bytes: a page of the KV cache takes "
			       "%zu: give more, or raise ulimit -f",
			       s->dir, bytes, s->stride);
	s->fd = open_unnamed(path);
	if (s->fd < 0) {
		rc = -errno;
		return err_set(e, rc, "swap file in %s: %s: name a directory that can be written",
			       s->dir, strerror(-rc));
	}
	s->n_slots = slots < (uint64_t)max_slots ? (int)slots : max_slots;
	s->direct = aligned && !fcntl(s->fd, F_SETFL, O_DIRECT);
	return 0;
}

void kv_swap_close(struct kv_swap *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	s->n_slots = 0;
}

/* 0, or what errno says; a file that ends too early is EIO. */
static int transfer_part(struct kv_swap *s, char *buf, size_t len, off_t at, bool out)
{
	while (len) {
		ssize_t n = out ? pwrite(s->fd, buf, len, at) : pread(s->fd, buf, len, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EINVAL && s->direct) {
			s->direct = false; /* accepted when opened, refused when used */
			if (!fcntl(s->fd, F_SETFL, 0))
				continue;
		}
		if (n <= 0)
			return n < 0 ? errno : EIO;
		buf += n;
		len -= (size_t)n;
		at += n;
	}
	return 0;
}

static bool transfer(struct kv_swap *s, int slot, const struct iovec *part, int n, bool out)
{
	off_t at = (off_t)slot * (off_t)s->stride;
	uint64_t start = now_ns();
	int rc = 0;

	for (int i = 0; i < n && !rc; i++) {
		rc = transfer_part(s, part[i].iov_base, part[i].iov_len, at, out);
		at += (off_t)part[i].iov_len;
	}
	s->ns += now_ns() - start;
	if (rc)
		snprintf(s->error, sizeof(s->error),
			 "swap file in %s: %s: %s: KV pages are computed again from now on; "
			 "%s, then start again",
			 s->dir, out ? "write" : "read", strerror(rc),
			 rc == ENOSPC || rc == EDQUOT || rc == EFBIG ? "make room or lower its size"
								     : "check the disk");
	return !rc;
}

bool kv_swap_write(struct kv_swap *s, int slot, const struct iovec *part, int n)
{
	bool ok = transfer(s, slot, part, n, true);

	s->out += ok;
	return ok;
}

bool kv_swap_read(struct kv_swap *s, int slot, const struct iovec *part, int n)
{
	bool ok = transfer(s, slot, part, n, false);

	s->in += ok;
	return ok;
}
