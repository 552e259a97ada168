/* SPDX-License-Identifier: MIT */
/*
 * llmctl swap's view of daemons: the process that serves a socket, the options that it was started
 * with, and starting another one like it (swap_start.c). cmd_swap.c moves their sockets.
 */
#ifndef LLMCTL_SWAP_H
#define LLMCTL_SWAP_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "lib/llmdev.h"

#define SWAP_MAX_OPTIONS 64
#define SWAP_UNIT_MAX	 80 /* an instance of llmdevd@.service */

/* The process that listens at a socket. */
struct daemon_process {
	pid_t pid;
	uid_t uid;
	gid_t gid;
};

/* 0; -ENOENT, -ECONNREFUSED: nobody serves it; other -errno. */
int daemon_at(struct daemon_process *p, const char *socket);
/* It is an llmdevd that knows SIGUSR1. */
bool daemon_can_hand_over(pid_t pid);

/* What a daemon was, or is to be, started with. Strings are malloc'ed. */
struct daemon_options {
	char exe[PATH_MAX];
	char model[PATH_MAX];
	char cwd[PATH_MAX];
	char *option[SWAP_MAX_OPTIONS]; /* "--name=value", without --socket */
	int n;
	uint64_t kv_size; /* of those; 0: not given */
	long long ctx; /* 0: the model's own */
	double kv_element; /* bytes */
	char unit[SWAP_UNIT_MAX]; /* the systemd instance that it runs as; "" if none */
};

/* Reads them from /proc. */
int daemon_options_read(struct daemon_options *o, pid_t pid, struct err *e);
/* Adds options as they stand on a command line; what comes later wins. `name` is who is told. */
int daemon_options_add(struct daemon_options *o, int argc, char **argv, struct err *e);
void daemon_options_free(struct daemon_options *o);

/*
 * Starts a daemon like `o` at `socket`, as the user of `like`, and waits until it serves there.
 * Shows progress. -EINTR: Ctrl-C. On failure nothing of it is left running.
 */
int daemon_start(const struct daemon_options *o, const struct daemon_process *like,
		 const char *socket, struct daemon_process *started, struct err *e);
/*
 * Where systemd runs it: the socket at which it is to be found if it is started again. `o` is
 * what daemon_start() took.
 */
int daemon_unit_write(const struct daemon_options *o, const char *socket, struct err *e);
/* Ends it and waits for that; what runs there may end within its --drain. */
int daemon_stop(const struct daemon_process *p, const char *unit, struct err *e);

#endif
