// SPDX-License-Identifier: MIT
/* listen.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/listen.h"

#define BACKLOG 1024

/* Cuts `address` into host ("" for all) and port. */
static bool split(const char *address, char host[256], char port[16])
{
	const char *colon = strrchr(address, ':'), *end = colon;
	const char *p = colon ? colon + 1 : address;

	if (!*p || strspn(p, "0123456789") != strlen(p) || strlen(p) > 5 || atoi(p) > 65535)
		return false;
	strcpy(port, p);
	if (!colon) {
		strcpy(host, "127.0.0.1");
		return true;
	}
	if (*address == '[') {
		if (end[-1] != ']')
			return false;
		address++;
		end--;
	} else if (memchr(address, ':', (size_t)(end - address))) {
		return false; /* an IPv6 address without brackets */
	}
	if (end - address >= 256)
		return false;
	snprintf(host, 256, "%.*s", (int)(end - address), address);
	return true;
}

static struct addrinfo *resolve(const char *address, int *rc)
{
	struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV,
				 .ai_socktype = SOCK_STREAM},
			*list = NULL;
	char host[256], port[16];

	if (!split(address, host, port)) {
		*rc = EAI_NONAME;
		return NULL;
	}
	*rc = getaddrinfo(*host ? host : NULL, port, &hints, &list);
	return *rc ? NULL : list;
}

static bool is_loopback(const struct sockaddr *a)
{
	if (a->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)a;

		return ntohl(in->sin_addr.s_addr) >> 24 == 127;
	}
	if (a->sa_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(
			&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr);
	return false;
}

bool listen_is_loopback(const char *address)
{
	struct addrinfo *list;
	bool all = true;
	int rc;

	list = resolve(address, &rc);
	if (!list)
		return false;
	for (struct addrinfo *a = list; a; a = a->ai_next)
		all = all && is_loopback(a->ai_addr);
	freeaddrinfo(list);
	return all;
}

static int no_address(const char *address, int rc, struct err *e)
{
	return err_set(e, -EINVAL, "--listen: `%s`: %s: give ADDR:PORT", address, gai_strerror(rc));
}

int listen_check(const char *address, struct err *e)
{
	int rc;
	struct addrinfo *list = resolve(address, &rc);

	if (!list)
		return no_address(address, rc, e);
	freeaddrinfo(list);
	return 0;
}

int listen_open(const char *address, struct err *e)
{
	struct addrinfo *list;
	int rc, fd = -1, yes = 1;

	list = resolve(address, &rc);
	if (!list)
		return no_address(address, rc, e);
	rc = -EINVAL;
	/* The first that works: with "localhost" one family may be missing. */
	for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
		fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) &&
		    !bind(fd, a->ai_addr, a->ai_addrlen) && !listen(fd, BACKLOG))
			break;
		rc = -errno;
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	freeaddrinfo(list);
	if (fd < 0)
		return err_set(e, rc, "%s: %s: choose another with --listen", address,
			       strerror(-rc));
	return fd;
}

void listen_url(int fd, char *url, size_t len)
{
	struct sockaddr_storage a;
	socklen_t n = sizeof(a);
	char host[64] = "?", port[16] = "?";

	if (!getsockname(fd, (struct sockaddr *)&a, &n))
		getnameinfo((struct sockaddr *)&a, n, host, sizeof(host), port, sizeof(port),
			    NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(url, len, strchr(host, ':') ? "http://[%s]:%s" : "http://%s:%s", host, port);
}
