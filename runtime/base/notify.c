// SPDX-License-Identifier: MIT
/* One datagram to the service manager; see notify.h. Owns nothing. */
#include "base/notify.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void notify_manager(const char *state)
{
	notify_manager_fd(state, -1);
}

void notify_manager_fd(const char *state, int pass)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	size_t len = path ? strlen(path) : 0;
	union {
		struct cmsghdr head;
		char buf[CMSG_SPACE(sizeof(int))];
	} control = {.head = {.cmsg_level = SOL_SOCKET,
			      .cmsg_type = SCM_RIGHTS,
			      .cmsg_len = CMSG_LEN(sizeof(int))}};
	struct iovec iov = {(void *)state, strlen(state)};
	struct msghdr h = {.msg_name = &addr, .msg_iov = &iov, .msg_iovlen = 1};
	int fd;

	if (!len || len >= sizeof(addr.sun_path) || (path[0] != '/' && path[0] != '@'))
		return;
	memcpy(addr.sun_path, path, len);
	if (path[0] == '@')
		addr.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	h.msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	if (pass >= 0) {
		memcpy(CMSG_DATA(&control.head), &pass, sizeof(pass));
		h.msg_control = control.buf;
		h.msg_controllen = sizeof(control.buf);
	}
	sendmsg(fd, &h, MSG_NOSIGNAL);
	close(fd);
}
