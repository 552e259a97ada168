/* SPDX-License-Identifier: MIT */
/*
 * What `llmctl reserve` is made of: the holding of room (reserve_hold.c) and the running of a
 * command until it is ready (reserve_run.c).
 */
#ifndef LLMCTL_RESERVE_H
#define LLMCTL_RESERVE_H

#include <stdbool.h>
#include <stdint.h>

#include "memory/reclaim.h"

#define RESERVE_TICK_MS 500 /* between two looks at MemFree while room is held */

struct reserve_opts {
	uint64_t bytes;
	double seconds; /* the longest that room is held */
	bool anyway;	/* go on though the room was not reached */
	bool quiet;
	struct room_means means; /* where llmdev-policyd does not run */
};

/* Room held by llmdev-policyd for as long as the connection lives, or by this process. */
struct hold {
	int policyd; /* connection; -1: this process looks after it */
	struct room_hold room;
	const struct reserve_opts *o;
	uint64_t end_ns; /* 0: over */
};

/*
 * Makes room and holds it. `until`: for policyd, which then holds it beyond this process's end;
 * NULL: until hold_end(). 0, or 1 with the message printed: the room was not reached, and who
 * refused what.
 */
int hold_begin(struct hold *h, const struct reserve_opts *o, const char *until);
/* Looks whether there is still what has not been taken yet; to be called every RESERVE_TICK_MS. */
void hold_tick(struct hold *h);
void hold_end(struct hold *h);

/*
 * Runs argv with room held until `ready` (text of --ready; NULL: until it ends). Passes signals to
 * it; returns its exit status, 128 + N for a signal, 126 or 127 where it could not be run.
 */
int reserve_run(const struct reserve_opts *o, const char *ready, char **argv);

#endif
