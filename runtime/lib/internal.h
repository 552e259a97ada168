/* SPDX-License-Identifier: MIT */
/*
 * The inside of libllmdev: a session (struct llmdev), its turns, and the two ways to a daemon.
 *
 * A turn is a request with what has arrived of its answer. Unfinished turns are always kept,
 * finished ones only where a socket makes us keep the transcript.
 */
#ifndef LLMDEV_LIB_INTERNAL_H
#define LLMDEV_LIB_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "llm.h"
#include "llmdev.h"

#define PACKET_SEND 32768 /* a longer message is sent in pieces of this */
#define PACKET_MAX  65536

struct turn {
	struct turn *next;
	uint64_t id;
	struct llm_msg_submit body;     /* with the posted parts as they stand now */
	char *payload;                  /* NULL over a device: the kernel has it */
	char principal[LLM_PRINCIPAL_MAX];
	uint8_t resume[LLM_RESUME_MAX];
	int32_t *ids;
	size_t ids_cap;
	bool finished, cancelled;
};

struct out_msg {
	struct out_msg *next;
	size_t size, sent;
	_Alignas(8) uint8_t bytes[];
};

struct llmdev {
	struct llmdev_options o;
	bool device;
	char path[LLMDEV_PATH_MAX];
	char where[LLMDEV_PATH_MAX + 16];
	char error[512];
	int fd;                         /* -1: not connected */
	int epoll_fd, timer_fd;
	int dead;                       /* errno: the session is lost for good; `death` says why */
	char death[512];

	struct turn *turns, **turns_tail;
	int n_pending;
	uint64_t next_id;
	size_t kept;                    /* bytes of finished turns */
	bool lost;                      /* some of those were forgotten */

	/* connection to a socket */
	uint64_t give_up_ns;            /* end of the recovery window; 0: none is open */
	uint64_t retry_ns, backoff_ns;
	bool told_lost;                 /* on_connection(0) was called */
	unsigned recoveries;
	struct out_msg *out, **out_tail;
	bool want_out;

	/* what has arrived */
	uint8_t *in;                    /* [PACKET_MAX] */
	size_t in_len, in_pos;
	bool split;                     /* a DONE's text was delivered, the DONE itself not yet */
	const char *rest;               /* of a TEXT that llmdev_read() has not given out whole */
	size_t rest_len;

	/* a piece of DATA that comes in several events (LLM_TEXT_F_MORE), put together */
	char *piece;
	size_t piece_len, piece_cap;
	int32_t *piece_ids;
	size_t n_piece_ids;
	uint64_t piece_of;              /* the request; 0: none is under way */
	bool piece_told;                /* whole and delivered; goes with the next call */
};

uint64_t lib_now_ns(void);
/* Puts a message into d->error and returns `code`. */
int lib_error(struct llmdev *d, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The session is lost: the first reason counts. */
void lib_die(struct llmdev *d, int error, const char *sentence);

/* transcript.c */
struct turn *turn_add(struct llmdev *d, uint64_t id, const struct llm_msg_submit *body,
		      const char *payload, const char *principal);
struct turn *turn_find(struct llmdev *d, uint64_t id);
void turn_drop(struct llmdev *d, struct turn *t);
void turns_free(struct llmdev *d);
/*
 * Take an event into the transcript. 1: it belongs to an unfinished turn (deliver it), 0: to
 * nobody, -EPROTO: it cannot follow what came before, -ENOMEM.
 */
int turn_record(struct llmdev *d, const struct llm_event *h, const void *payload);

/* connection.c: a socket */
int connection_open(struct llmdev *d, char *why, size_t why_len);
/* Connects again where that is due, sends, receives one packet into d->in. */
void connection_work(struct llmdev *d);
/* Queue a message; without a connection it is dropped (the replay will say it). */
int connection_send(struct llmdev *d, uint32_t type, uint64_t request_id, const void *body,
		    size_t len);
int connection_submit(struct llmdev *d, struct turn *t);
/* Sends what is queued, as far as the daemon takes it. */
void connection_flush(struct llmdev *d);
/* A request was made while there is no connection. */
void connection_wanted(struct llmdev *d);
void connection_drop(struct llmdev *d);

/* device.c: /dev/llmN */
int device_open(struct llmdev *d);
int device_submit(struct llmdev *d, const struct llm_submit *s, uint64_t *id);
int device_cancel(struct llmdev *d, uint64_t id);
int device_query(struct llmdev *d, struct llm_query *q);
/* Reads events into d->in. */
void device_work(struct llmdev *d);

#endif
