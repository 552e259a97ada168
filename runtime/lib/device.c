// SPDX-License-Identifier: MIT
/* A session over /dev/llmN: open(2), ioctl(2), read(2). The kernel keeps the transcript. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lib/internal.h"

int device_open(struct llmdev *d)
{
	struct llm_set_mode mode = {.size = sizeof(mode), .mode = LLM_MODE_EVENT};
	struct epoll_event ev = {.events = EPOLLIN};
	int rc;

	d->fd = open(d->path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (d->fd < 0)
		return -errno;
	if (ioctl(d->fd, LLM_IOC_SET_MODE, &mode) ||
	    epoll_ctl(d->epoll_fd, EPOLL_CTL_ADD, d->fd, &ev)) {
		rc = -errno;
		close(d->fd);
		d->fd = -1;
		return rc;
	}
	return 0;
}

static const char *refusal(int error)
{
	switch (error) {
	case EPIPE:
		return "no daemon serves it: start llmdevd MODEL --device";
	case ENOSPC:
		return "too many requests are unfinished: wait for one";
	case E2BIG:
		return "it is longer than the device takes: send less";
	case EPERM:
		return "principal, priority below 0: only administrators set them";
	case ETIMEDOUT:
		return "its deadline passed";
	}
	return strerror(error);
}

int device_submit(struct llmdev *d, const struct llm_submit *s, uint64_t *id)
{
	struct llm_submit copy = *s;

	if (ioctl(d->fd, LLM_IOC_SUBMIT, &copy))
		return lib_error(d, -errno, "%s: request refused: %s", d->path, refusal(errno));
	*id = copy.request_id;
	return 0;
}

int device_cancel(struct llmdev *d, uint64_t id)
{
	struct llm_cancel c = {.size = sizeof(c), .request_id = id};

	if (ioctl(d->fd, LLM_IOC_CANCEL, &c))
		return lib_error(d, -errno, "%s: request %llu: %s", d->path, (unsigned long long)id,
				 strerror(errno));
	return 0;
}

int device_query(struct llmdev *d, struct llm_query *q)
{
	*q = (struct llm_query){.size = sizeof(*q)};
	if (ioctl(d->fd, LLM_IOC_QUERY, q))
		return lib_error(d, -errno, "%s: query refused: %s", d->path, strerror(errno));
	return 0;
}

void device_work(struct llmdev *d)
{
	char why[256];
	ssize_t n;

	do
		n = read(d->fd, d->in, PACKET_MAX);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return;
	if (n <= 0) {
		snprintf(why, sizeof(why), "%s: %s", d->path,
			 n ? strerror(errno) : "the device is gone");
		lib_die(d, n ? errno : EPIPE, why);
		return;
	}
	d->in_pos = 0;
	d->in_len = (size_t)n;
}
