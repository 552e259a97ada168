/* SPDX-License-Identifier: MIT */
/*
 * The keeper: a process that holds sealed memfds for others, so that weights outlive the daemon that
 * loaded them where there is no kernel module. One a user; it serves that user and root only.
 *
 * Messages are struct keeper_msg over a SOCK_SEQPACKET socket, one answer for each request (LIST: one
 * for each region with KEEPER_MORE set, then one without). A memfd comes along as SCM_RIGHTS.
 */
#ifndef LLMDEV_MEMORY_KEEPER_H
#define LLMDEV_MEMORY_KEEPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "memory/region.h"

/* keeper_msg.op */
#define KEEPER_CLAIM 1 /* I am filling a region of this name; ends with the connection */
#define KEEPER_KEEP  2 /* with the sealed memfd: it is filled; claimed by this connection */
#define KEEPER_OPEN  3 /* answered with the memfd */
#define KEEPER_DROP  4
#define KEEPER_LIST  5

/* keeper_msg.flags */
#define KEEPER_USE   1 /* OPEN: count me as a user until my connection ends */
#define KEEPER_MORE  2 /* answer to LIST: another one follows */
#define KEEPER_CLAIMED 4 /* answer to LIST: still being filled */

/* What a memfd must be before it is kept, and is when it is handed out. */
#define KEEPER_SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

#define KEEPER_MAX_REGIONS 256
#define KEEPER_MAX_CLIENTS 128

struct keeper_msg {
	uint32_t op;
	int32_t error; /* answers: 0 or an errno */
	uint32_t flags;
	int32_t pid; /* of who kept or claims it */
	uint32_t users;
	uint32_t reserved;
	uint64_t bytes;
	uint64_t created_ns; /* CLOCK_MONOTONIC */
	char name[REGION_NAME_MAX];
};

/*
 * One message, with a descriptor unless `pass` is -1; MSG_* beside MSG_NOSIGNAL. False with errno: it
 * was not sent.
 */
bool keeper_send(int fd, const struct keeper_msg *m, int pass, int flags);

/* Where this user's keeper listens: $XDG_RUNTIME_DIR/llmdev/keeper.sock or /run/llmdev/keeper.sock. */
void keeper_socket_path(char *path, size_t len);

/*
 * Serve on a socket at `path` until SIGTERM or SIGINT, which must be blocked, or, unless `stay`, until
 * nothing is kept and nobody is connected. -EEXIST: another keeper serves it.
 */
int keeper_serve(const char *path, bool stay, struct err *e);

#endif
