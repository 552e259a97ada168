/* SPDX-License-Identifier: MIT */
/*
 * The daemon's core: sessions, their requests in order, and the engine that serves them.
 *
 * One thread: server_step() waits for clients, runs timers, takes one engine step and sends what
 * came of it. Requests of one session run one after the other, sessions side by side. Nothing
 * waits for a client: one that does not read has its request parked, and ended after a while.
 */
#ifndef LLMDEV_SERVE_H
#define LLMDEV_SERVE_H

#include <stdint.h>

#include "base/err.h"
#include "engine/engine.h"

struct server;

/* Connections beyond server_opts.max_sessions: for those that only ask for STATUS, and for those
 * that are about to be told that there is no place. */
#define SERVER_SPARE_CHANNELS 16

enum server_device { DEVICE_NONE, DEVICE_AUTO /* if the module is there */, DEVICE_SERVE };

struct server_opts {
	const char *socket; /* path */
	const char *device; /* name */
	enum server_device use_device; /* serve the kernel's device of that name, too */
	uint64_t max_payload; /* bytes of one request's payload */
	uint64_t max_events; /* event bytes held for a reader */
	uint64_t max_transcript; /* bytes of payloads and ids that a session may replay */
	uint64_t max_queue; /* bytes of unfinished requests, all sessions together */
	int max_requests; /* unfinished requests of one session */
	int max_unfinished; /* of all sessions together; also the engine's queue should hold them */
	int max_principal; /* of one principal */
	int max_uid; /* of one uid, whatever the principals */
	int max_batch; /* requests that the engine runs at once, for STATUS */
	int max_sessions;
	uint64_t park_ns; /* how long a client may leave its events unread */
	const char *pressure; /* what tells of memory pressure, see pressure.h; NULL: nothing */
	double pace; /* tokens per second and request at most; 0: no limit */
	bool verbose; /* also log sessions and requests that went well */
	/* One line without newline for every event of the daemon's life; must not be NULL. */
	void (*log)(void *ctx, const char *line);
	void *log_ctx;
};

/* Fills in the defaults that the manual names. */
void server_opts_default(struct server_opts *o);

/* The engine stays the caller's and must outlive the server. */
int server_open(struct server **out, struct engine *en, const struct server_opts *o, struct err *e);
/* Returns early when `fd` is readable (signals). */
int server_watch(struct server *sv, int fd, struct err *e);
/* Waits for something to do, does it, returns. -errno: the engine or the system failed. */
int server_step(struct server *sv, struct err *e);
/*
 * The machine is short of memory: takes the next step of pressure.h's. server_step() does so by
 * itself when what it watches says so.
 */
void server_relieve(struct server *sv);
/* What is watched for that, for people; NULL: nothing. */
const char *server_pressure(const struct server *sv);
/*
 * Start nothing new. server_step() goes on until server_idle(): running answers end, or
 * deadline_ns (CLOCK_MONOTONIC) passes. What has not run stays with the clients, which hand it to
 * the next daemon.
 */
void server_drain(struct server *sv, uint64_t deadline_ns);
/*
 * The same where another daemon took the socket's place, without a deadline: who has nothing
 * running is sent there, and what runs may be cancelled. False: nobody took it, nothing is changed.
 */
bool server_hand_over(struct server *sv);
/* Clients come here again. */
void server_take_back(struct server *sv);
bool server_idle(const struct server *sv);
/* N of the device /dev/llmN that is served beside the socket; -1: none is, or not yet. */
int server_device(const struct server *sv);
/* The kernel asks to let go by *deadline_ns (0: at leisure). Says so once. */
bool server_quiesced(struct server *sv, uint64_t *deadline_ns);
void server_close(struct server *sv);

#endif
