/* SPDX-License-Identifier: MIT */
/*
 * llmdev-policyd's state, and what its parts do with it. One thread; everything is in struct
 * policyd.
 *
 *   main.c    process: options, signals, the loop
 *   act.c     floors, holds, the reserve: when to act, doing it, counting it
 *   server.c  clients (memory/policy.h has the protocol) and the status
 */
#ifndef LLMDEV_POLICYD_H
#define LLMDEV_POLICYD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "config.h"
#include "judge.h"
#include "memory/reclaim.h"
#include "watch.h"

#define MAX_CLIENTS 64
#define MAX_HOLDS   32
#define MAX_RECENT  16
#define ACT_NS	    UINT64_C(10000000000) /* the longest that one action may take */

/* Room promised to somebody. */
struct holding {
	uint64_t id; /* 0: none */
	struct room_hold room;
	int client; /* index; -1: does not end with a connection */
	bool has_until;
	struct until until;
	uint64_t begin_ns;
	uint64_t end_ns, asked_ns; /* when it ends at the latest; when `until` was last looked at */
	char who[128];
};

struct client {
	int fd; /* -1: free */
	uid_t uid;
	pid_t pid;
	bool admin;
};

/* Of one kind of step. */
struct counter {
	uint64_t calls, failed, asked, freed, ns;
	char last_error[256];
};

/* The reserve is given back before any other step. */
#define COUNTER_RESERVE N_ROOM_STEPS
#define N_COUNTERS	(N_ROOM_STEPS + 1)
const char *counter_name(int i);

struct recent {
	uint64_t wall_s; /* seconds since 1970 */
	char why[64];
	int counter;
	struct room_done done;
};

struct policyd {
	struct config config;
	const char *config_path, *root, *socket_path;
	size_t page;
	struct judge judge;
	struct mem_now now;

	int listen_fd, signal_fd, psi_fd, control;
	bool floors_are_module; /* the module tells when a floor is missed */
	char floors_note[160];
	uint64_t control_ns; /* when the module was last looked for */
	struct watch *watch;
	char watch_note[160];

	struct client client[MAX_CLIENTS];
	struct holding hold[MAX_HOLDS];
	uint64_t next_hold;
	gid_t admin_gid;
	bool has_admin_gid;

	struct counter counter[N_COUNTERS];
	struct recent recent[MAX_RECENT];
	uint64_t n_recent;
	const char *why; /* of the action at work */
	uint64_t actions, observed, triggers, reloads, module_events, psi_events;
	uint64_t reserve_retry_ns;
	uint64_t start_ns;
	bool stop;
};

uint64_t policyd_clock(void);
__attribute__((format(printf, 1, 2))) void policyd_log(const char *fmt, ...);

/* act.c */
/* The module was (un)loaded, or the configuration changed: floors are told to it. */
void act_module(struct policyd *p);
/* Everything that has to be looked at each interval. */
void act_tick(struct policyd *p);
/* What the module should hold by this configuration; what it holds beyond it is given back. */
uint64_t act_reserve_wanted(const struct config *c);
void act_reserve_lower(struct policyd *p);
/* Room for `bytes`, now, as far as is allowed. -errno: none is made in this mode. */
int act_room(struct policyd *p, uint64_t bytes, const char *why, struct err *e);
/*
 * Makes room and holds it. `until` NULL: none; `client` -1: none. Negative: refused. *reached: all
 * of it is free.
 */
int act_hold(struct policyd *p, uint64_t bytes, const struct until *until, double seconds,
	     int client, const char *who, bool *reached, struct err *e);
/* Ends the holds of a client; of all (-2). */
void act_release(struct policyd *p, int client);
/* All holds, and the module's reserve. */
void act_release_all(struct policyd *p);
/* A cgroup began. */
void act_started(void *ctx, const char *cgroup);
uint64_t act_held(const struct policyd *p);

/* server.c */
int server_open(struct policyd *p, struct err *e);
void server_close(struct policyd *p);
void server_accept(struct policyd *p);
void server_client(struct policyd *p, int i);

#endif
