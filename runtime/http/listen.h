/* SPDX-License-Identifier: MIT */
/* The socket that clients connect to. */
#ifndef HTTP_LISTEN_H
#define HTTP_LISTEN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/*
 * Listen at "ADDR:PORT", "[ADDR6]:PORT", ":PORT" (all addresses) or "PORT" (loopback); port 0 takes
 * a free one. The descriptor, or -errno.
 */
int listen_open(const char *address, struct err *e);
/* Is it an address? 0 or -EINVAL. */
int listen_check(const char *address, struct err *e);
/* Nobody else's machine can reach it. False also for what is no address. */
bool listen_is_loopback(const char *address);
/* "http://127.0.0.1:8000" */
void listen_url(int fd, char *url, size_t len);

#endif
