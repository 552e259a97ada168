/* SPDX-License-Identifier: MIT */
/*
 * llmdev-policyd as its clients see it: one JSON object each way, a packet each (SOCK_SEQPACKET).
 *
 *   {"op": "status"}                                   anybody
 *   {"op": "room", "bytes": N}                         make room for N bytes now
 *   {"op": "hold", "bytes": N [, "until": COND] [, "seconds": S] [, "who": TEXT]}
 *       make room, and keep it from the page cache until N bytes have been taken, COND holds
 *       (until.h), S seconds have passed or, without COND, the connection is closed
 *   {"op": "release"}                                  ends all holds, gives the reserve back
 *
 * All but status are for root and the group llmdev-admin. Answers have "ok"; false comes with
 * "error".
 */
#ifndef LLMDEV_MEMORY_POLICY_H
#define LLMDEV_MEMORY_POLICY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "memory/meminfo.h"

#define POLICYD_SOCKET	   "/run/llmdev-policyd/control.sock"
#define POLICYD_ENV	   "LLMDEV_POLICYD" /* another path, in the environment */
#define POLICYD_PACKET_MAX 131072

/* A connection; `path` NULL: the usual one. -ENOENT, -ECONNREFUSED: nobody is there. */
int policyd_connect(const char *path, struct err *e);
/*
 * Sends `request` (taken) and waits for the answer, which is the caller's to json_decref(). What
 * policyd refuses is -EPERM or -EINVAL with its words.
 */
int policyd_ask(int fd, json_t *request, double seconds, json_t **answer, struct err *e);

/* ---- for a daemon that is about to allocate -------------------------------------------------- */

struct memory_room {
	uint64_t asked;
	struct mem_now before, after;
	uint64_t reserve; /* of the module, before; MemAvailable has it in it */
	bool reached;	  /* MemFree is at least what was asked: a GPU driver can have it at once */
	bool policyd;	  /* llmdev-policyd was asked */
	char who[160];	  /* made room, or why nobody did; for the log */
};

/*
 * `bytes` are about to be allocated. Where MemFree is less, llmdev-policyd is asked to make room
 * (by its policy), else the module, if this process may. 0: it fits, by MemAvailable,
 * which is all that memory of processes needs; look at `reached` before allocating through
 * a GPU driver. -ENOMEM: it does not, and the message has the sum. Takes seconds where much has to
 * be dropped.
 */
int memory_make_room(uint64_t bytes, struct memory_room *out, struct err *e);

#endif
