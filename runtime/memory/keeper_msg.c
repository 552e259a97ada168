// SPDX-License-Identifier: MIT
/* How a message to or from the keeper is sent, by either side (keeper.h). No state. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "memory/keeper.h"

bool keeper_send(int fd, const struct keeper_msg *m, int pass, int flags)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {(void *)m, sizeof(*m)};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (pass >= 0) {
		struct cmsghdr *c;

		h.msg_control = control.buf;
		h.msg_controllen = sizeof(control.buf);
		c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &pass, sizeof(pass));
	}
	do {
		n = sendmsg(fd, &h, flags | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n == sizeof(*m);
}
