/* SPDX-License-Identifier: GPL-2.0 */
/*
 * llm: the objects and who owns them.
 *
 *   device    /dev/llmN. Made and destroyed through /dev/llm-control; outlives its backends.
 *   session   an open file of a device: a conversation.
 *   request   one question of a session, from SUBMIT until nobody needs it: its client has read its
 *             end, the backend has let go of it, and the transcript does not want it.
 *   backend   the file that a daemon reads messages from and posts events to; one per device.
 *
 * Locking. device->lock, a spinlock, guards everything of a device, its sessions, requests and
 * backend unless a field says otherwise. Nothing sleeps under it: memory is allocated before it is
 * taken and freed by llm_unlock(), user memory is only touched with page faults off. What is done
 * for one request or event takes O(log n); what ends or hands over a backend walks over the
 * requests and sessions, which are bounded, and never over all their turns at once. The end of a
 * turn that makes all before it superfluous forgets them at once: 4,096 at most, as max_transcript
 * is unless somebody raised it (request.c, turn_bytes()).
 * llm_devices_lock, a mutex, guards the list of devices and serialises what /dev/llm-control does;
 * it is taken first.
 *
 * Lifetimes. A session holds its device, a request its session, the backend its device. A session
 * goes when its file is closed, its requests are gone and the backend was told.
 */
#ifndef LLM_CORE_H
#define LLM_CORE_H

#include <linux/atomic.h>
#include <linux/cred.h>
#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/rbtree.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "llm.h"

struct llm_backend;
struct llm_device;
struct llm_request;
struct llm_session;

/* Bytes of a terminal event's record; each request owns so many for it. */
#define LLM_TERMINAL_MAX 8192

/* ---- limits ---------------------------------------------------------------------------------------- */

/**
 * struct llm_limits - of a device; may change at any time, and then counts for what comes
 * @max_file: unfinished requests of a session
 * @max_principal: of a principal
 * @max_uid: of a uid
 * @max_device: of the device
 * @max_sessions: open files of the device
 * @max_uid_sessions: of a uid
 * @max_transcript: bytes that a session remembers
 * @recovery_ms: how long clients wait for another backend
 * @max_request_ms: the longest that a request may take; 0: for ever
 */
struct llm_limits {
	u32 max_file, max_principal, max_uid, max_device, max_sessions, max_uid_sessions;
	u32 max_transcript, recovery_ms, max_request_ms;
};

/* Parameters of the module (main.c): what devices begin with, and what is the same for all. */
extern struct llm_limits llm_limits;
extern unsigned int llm_max_payload; /* bytes of one request's payload */
extern unsigned int llm_max_events; /* bytes held for a reader; a power of two */

/* ---- account.c ------------------------------------------------------------------------------------- */

/**
 * struct llm_account - what a uid or a principal has of a device
 * @node: in device->accounts, by @key
 * @key: of whom; see request.c
 * @requests: unfinished ones
 * @sessions: open files; of uids only
 */
struct llm_account {
	struct rb_node node;
	u64 key;
	unsigned int requests, sessions;
};

/**
 * llm_account_get() - somebody's account; a new one has nothing; locked
 * @dev: the device
 * @key: of whom
 * @spare: memory for a new one; NULL afterwards if it was used
 */
struct llm_account *llm_account_get(struct llm_device *dev, u64 key, struct llm_account **spare);

/**
 * llm_account_put() - free it if it has nothing (any more); locked
 * @dev: the device
 * @acc: the account
 */
void llm_account_put(struct llm_device *dev, struct llm_account *acc);

/* ---- ring.c ---------------------------------------------------------------------------------------- */

/**
 * struct llm_ring - event records of a session that wait for its reader
 * @buf: [@size] bytes; NULL until the session is first used
 * @size: a power of two
 * @head: where the next byte goes; both only grow
 * @tail: where the next byte comes from
 */
struct llm_ring {
	u8 *buf;
	u32 size;
	u64 head, tail;
};

/**
 * llm_ring_used() - bytes in it
 * @r: the ring
 */
static inline u32 llm_ring_used(const struct llm_ring *r)
{
	return (u32)(r->head - r->tail);
}

/**
 * llm_ring_room() - bytes that it can take
 * @r: the ring
 */
static inline u32 llm_ring_room(const struct llm_ring *r)
{
	return r->buf ? r->size - llm_ring_used(r) : 0;
}

/**
 * llm_ring_put() - append; there is room
 * @r: the ring
 * @data: the bytes
 * @len: how many
 */
void llm_ring_put(struct llm_ring *r, const void *data, u32 len);

/**
 * llm_ring_peek() - copy without taking
 * @r: the ring
 * @offset: from the tail on
 * @data: the bytes
 * @len: how many
 */
void llm_ring_peek(const struct llm_ring *r, u32 offset, void *data, u32 len);

/**
 * llm_ring_to_iter() - the same to user memory, page faults off; returns the bytes copied
 * @r: the ring
 * @offset: from the tail on
 * @len: how many
 * @to: where to
 */
size_t llm_ring_to_iter(const struct llm_ring *r, u32 offset, u32 len, struct iov_iter *to);

/* ---- messages to the backend ----------------------------------------------------------------------- */

/**
 * struct llm_note - a short message that waits for the backend, embedded in what it is about
 * @node: in device->notes; empty: it is not waiting
 * @type: LLM_MSG_*
 */
struct llm_note {
	struct list_head node;
	u32 type;
};

/**
 * struct llm_who - a process, for the backend, for tracing, for people
 * @uid: its effective one
 * @gid: likewise
 * @pid: its thread group
 * @cgroup: id of its cgroup
 */
struct llm_who {
	u32 uid, gid;
	s32 pid;
	u64 cgroup;
};

/* ---- requests -------------------------------------------------------------------------------------- */

enum llm_request_state {
	LLM_RQ_QUEUED, /* no backend has it */
	LLM_RQ_DELIVERED, /* a backend has it, or an earlier one had it */
	LLM_RQ_OVER, /* its terminal event is known; a part of the transcript, or on its way out */
};

/**
 * struct llm_request - one question and its answer
 * @ref: the turn list; the id tree; the terminal list; whoever copies it out of the lock
 * @ses: its session, held
 * @id: its name, unique for the device's life
 * @by_id: in device->requests, until the backend has let go of it
 * @queue: in device->queue, while it is the first of its session that no backend has
 * @by_deadline: in device->deadlines, while @deadline counts
 * @turn: in session->turns, in order of submission
 * @waiting: in session->waiting, while no backend has it
 * @fat: in session->fat, while it holds more memory than the transcript needs
 * @terminal_node: in session->terminals, until the reader has had it
 * @cancel: tells the backend to stop
 * @state: enum llm_request_state
 * @in_tree: it is in device->requests: the backend has not let go of it
 * @told: the attached backend knows of it, or a message that tells it is being copied
 * @queued: it is in @queue
 * @timed: it is in @by_deadline
 * @cancelled: the client does not want it any more, or its time is over
 * @started: STARTED was posted
 * @kept: it belongs to the transcript
 * @refused: its next event found no room; those behind it have to wait as well
 * @reason: errno that CANCEL tells; not ECANCELED: it has ended in an error
 * @payload: [@sub.payload_len]; immutable
 * @sub: as submitted; immutable
 * @principal: label, [@sub.principal_len]
 * @resume: blob of STARTED
 * @resume_len: its bytes
 * @ids: those posted so far
 * @n_ids: how many
 * @max_ids: how many there may be
 * @cap_ids: how many @ids has memory for: in the transcript no more than there are
 * @posted_bytes: text bytes posted with them
 * @seq: of the next event
 * @finish: LLM_FINISH_* once it ended in DONE
 * @terminal: [LLM_TERMINAL_MAX] the terminal event's record; NULL in the transcript, once it was
 *	read
 * @terminal_len: its bytes
 * @terminal_pos: the ring's head when it came: it is read after what is before that
 * @charged: account of the principal; NULL: neither it nor session->account is charged (any more)
 * @submitter: whose call it was
 * @submitted_ns: CLOCK_MONOTONIC
 * @first_ns: first token
 */
struct llm_request {
	struct kref ref;
	struct llm_session *ses;
	u64 id;
	struct rb_node by_id, queue, by_deadline;
	struct list_head turn, waiting, fat, terminal_node;
	struct llm_note cancel;
	u8 state;
	bool in_tree, told, queued, timed, cancelled, started, kept, refused;
	int reason;
	void *payload;
	struct llm_submit sub;
	u8 principal[LLM_PRINCIPAL_MAX];
	u8 resume[LLM_RESUME_MAX];
	u32 resume_len;
	s32 *ids;
	u32 n_ids, max_ids, cap_ids;
	u64 posted_bytes, seq;
	u32 finish;
	void *terminal;
	u32 terminal_len;
	u64 terminal_pos;
	struct llm_account *charged;
	struct llm_who submitter;
	u64 submitted_ns, first_ns;
};

/* ---- sessions -------------------------------------------------------------------------------------- */

/**
 * struct llm_session - an open file
 * @ref: the file; its requests
 * @dev: its device, held
 * @id: unique for the device's life
 * @node: in device->sessions
 * @wait: readers
 * @opener: who opened it, with the file's credentials
 * @account: of the opener's uid
 * @admin: the opener may set principals and priorities below 0
 * @mode: LLM_MODE_*
 * @used: the mode stays as it is
 * @closed: the file is gone
 * @known: this backend was told of it, or will be before anything else of it
 * @lost: the transcript is incomplete
 * @resume_owed: a POST got EAGAIN
 * @turns: requests in order, finished ones of the transcript first
 * @waiting: those of them that no backend has, in order
 * @fat: finished ones that hold more memory than they need: few, see llm_transcript_trim()
 * @terminals: requests whose terminal event waits for the reader, in order
 * @n_requests: those that their opener is charged for
 * @n_live: those whose terminal event is not known
 * @transcript: bytes of finished turns
 * @spare_ids: memory of an earlier request for the next one's @ids, or NULL; no more than the ring's
 * @spare_cap: how many it is for
 * @spare_terminal: likewise for @terminal; there are both or none
 * @ring: events for the reader
 * @read_offset: text mode: bytes of the first record's text that were read
 * @draft: text mode: what was written and not submitted
 * @draft_len: its bytes
 * @draft_cap: bytes that it has memory for
 * @drafting: somebody works on the draft outside the lock
 * @close: note that it is gone; holds the session while it waits
 * @resume: note that its reader has made room
 * @replay: in backend->replay, while its past is to be told
 * @replay_at: the next turn to tell
 */
struct llm_session {
	struct kref ref;
	struct llm_device *dev;
	u64 id;
	struct list_head node;
	wait_queue_head_t wait;
	struct llm_who opener;
	struct llm_account *account;
	bool admin;
	u32 mode;
	bool used, closed, known, lost, resume_owed;
	struct list_head turns, waiting, fat, terminals;
	unsigned int n_requests, n_live;
	u64 transcript;
	s32 *spare_ids;
	u32 spare_cap;
	void *spare_terminal;
	struct llm_ring ring;
	u32 read_offset;
	char *draft;
	size_t draft_len, draft_cap;
	bool drafting;
	struct llm_note close, resume;
	struct list_head replay;
	struct llm_request *replay_at;
};

/* ---- the backend ----------------------------------------------------------------------------------- */

/**
 * struct llm_backend - the daemon's file; without effect once it is not device->backend any more
 * @dev: its device, held
 * @generation: number of this attachment
 * @pid: of the process that attached
 * @quiesce: it is to be told to let go
 * @quiesce_ns: by then; 0: whenever it likes. Then the device is taken away from it.
 * @read_lock: one reader at a time; taken before device->lock, may be held while user memory is
 *	copied: only the daemon itself waits for it
 * @post_lock: likewise for POST
 * @record: [LLM_EVENT_MAX] the event being posted
 * @replay: sessions whose past is to be told first
 * @replay_end: REPLAY_END is to be told after them
 * @complained: something malformed was logged already
 */
struct llm_backend {
	struct llm_device *dev;
	u32 generation;
	pid_t pid;
	bool quiesce;
	u64 quiesce_ns;
	struct mutex read_lock, post_lock;
	u8 *record;
	struct list_head replay;
	bool replay_end, complained;
};

/* ---- devices --------------------------------------------------------------------------------------- */

enum llm_device_state {
	LLM_DEV_SERVED, /* has a backend */
	LLM_DEV_WAITING, /* lost it, expects another until recovery_ms are over */
	LLM_DEV_DEAD, /* does not expect one */
	LLM_DEV_STATES
};

/**
 * struct llm_counters - what a device did since it was made
 * @submitted: requests that were taken
 * @refused: that were not: a limit, nobody there
 * @done: ended by themselves
 * @cancelled: by their client, or because it went
 * @failed: ended in an error
 * @ids: token ids posted
 * @bytes: bytes of text posted
 */
struct llm_counters {
	u64 submitted, refused, done, cancelled, failed, ids, bytes;
};

/**
 * struct llm_device - /dev/llmN
 * @ref: the list of devices; sessions; the backend
 * @misc: the character device
 * @node_name: "llmN"
 * @number: N
 * @all: in llm_devices; under llm_devices_lock
 * @name: by-name label
 * @limits: written through sysfs, read once where used
 * @lock: see the top of this file
 * @dead_requests: what lost its last reference, by @turn: llm_unlock() frees it
 * @dead_sessions: likewise, by @node
 * @state: enum llm_device_state
 * @gone: destroyed: nothing begins any more
 * @generation: of the last attachment
 * @backend: the attached one, or NULL
 * @backend_wait: its readers
 * @model: name of what is served
 * @fingerprint: of the last backend
 * @features: likewise
 * @context: likewise
 * @sessions: all, by @node
 * @n_sessions: those whose file is open
 * @requests: those that a backend must let go of, by id
 * @queue: first undelivered request of each session, in the order in which backends get them
 * @deadlines: requests that have one
 * @notes: short messages for the backend, in order; they go first
 * @accounts: of uids and principals, by key
 * @n_requests: charged requests
 * @n_queued: those that no backend has
 * @largest: bytes of the longest message that an unfinished or remembered request may need, ever
 * @last_request: id of the latest request
 * @last_session: of the latest session
 * @count: what sysfs tells
 * @recovery: ends the wait for a backend
 * @timeout: ends requests whose time is over
 * @handover: takes the device away from a backend that was to let go of it
 */
struct llm_device {
	struct kref ref;
	struct miscdevice misc;
	char node_name[16];
	u32 number;
	struct list_head all;
	u8 name[LLM_NAME_MAX];
	struct llm_limits limits;

	spinlock_t lock;
	struct list_head dead_requests, dead_sessions;
	u8 state;
	bool gone;
	u32 generation;
	struct llm_backend *backend;
	wait_queue_head_t backend_wait;
	u8 model[LLM_NAME_MAX];
	u64 fingerprint, features;
	u32 context;
	struct list_head sessions;
	unsigned int n_sessions;
	struct rb_root requests;
	struct rb_root_cached queue, deadlines;
	struct list_head notes;
	struct rb_root accounts;
	unsigned int n_requests, n_queued;
	u64 largest;
	u64 last_request, last_session;
	struct llm_counters count;
	struct delayed_work recovery, timeout, handover;
};

/* ---- main.c ---------------------------------------------------------------------------------------- */

extern struct mutex llm_devices_lock;
extern struct list_head llm_devices;

/* Devices, sessions and requests that exist: none when the module goes. */
extern atomic_t llm_live;

/**
 * llm_is_admin() - whether the opener may set principals and priorities below 0
 * @file: the file
 */
bool llm_is_admin(const struct file *file);

/**
 * llm_who() - the calling process
 * @who: filled
 * @cred: with these credentials
 */
void llm_who(struct llm_who *who, const struct cred *cred);

/* ---- device.c -------------------------------------------------------------------------------------- */

/**
 * llm_device_create() - make /dev/llmN; llm_devices_lock is held
 * @out: the new device
 * @c: what it is to be
 */
int llm_device_create(struct llm_device **out, const struct llm_device_create *c);

/**
 * llm_device_destroy() - take it out of the list and out of /dev
 * @dev: the device
 * @force: whether it is in use or not
 *
 * Drops the list's reference. -EBUSY: it is in use, which @force overrides: what is open stays so,
 * and comes to nothing.
 */
int llm_device_destroy(struct llm_device *dev, bool force);

/**
 * llm_device_find() - by its label, or NULL; llm_devices_lock is held
 * @name: by-name label
 */
struct llm_device *llm_device_find(const u8 *name);

/**
 * llm_device_get() - another reference
 * @dev: the device
 */
struct llm_device *llm_device_get(struct llm_device *dev);

/**
 * llm_device_put() - one less
 * @dev: the device
 */
void llm_device_put(struct llm_device *dev);

/**
 * llm_lock() - take the device's lock
 * @dev: the device
 */
static inline void llm_lock(struct llm_device *dev) __acquires(&dev->lock)
{
	spin_lock(&dev->lock);
}

/**
 * llm_unlock() - let go of it, then free what lost its last reference meanwhile; may sleep
 * @dev: the device; may be gone afterwards if nothing else holds it
 */
void llm_unlock(struct llm_device *dev) __releases(&dev->lock);

/**
 * llm_device_orphan() - the backend is gone: wait for another; locked
 * @dev: the device
 */
void llm_device_orphan(struct llm_device *dev);

/**
 * llm_device_adopted() - another one comes: do not give it up; may sleep
 * @dev: the device
 */
void llm_device_adopted(struct llm_device *dev);

/**
 * llm_device_end() - end the requests that there are for their clients; lets go of the lock at times
 * @dev: the device
 * @begun: only those that a backend has begun
 * @error: errno, positive
 * @why: for people
 */
void llm_device_end(struct llm_device *dev, bool begun, int error, const char *why);

/**
 * llm_device_quiesce() - have the backend let go: 0, or -EPIPE if there is none
 * @dev: the device
 * @deadline_ns: by then
 */
int llm_device_quiesce(struct llm_device *dev, u64 deadline_ns);

/**
 * llm_device_rearm() - look at the deadlines again, soon; the lock is held
 * @dev: the device
 */
void llm_device_rearm(struct llm_device *dev);

/* ---- request.c ------------------------------------------------------------------------------------- */

/**
 * llm_request_submit() - make a request, check the limits, queue it; sleeps
 * @ses: the session
 * @sub: what is asked for; @sub->request_id is set
 * @payload: of it; taken over, also on failure
 * @principal: label, of @sub->principal_len bytes
 *
 * Memory is charged to the caller. -ENOMEM; -ENOSPC: a limit; -EPIPE: no backend and none expected.
 */
int llm_request_submit(struct llm_session *ses, struct llm_submit *sub, void *payload,
		       const u8 *principal);

/* The lock is held for all that follow but llm_transcript_trim(). */

/**
 * llm_request_find() - one that the backend has not let go of, by its id, or NULL
 * @dev: the device
 * @id: its id
 * @or_later: if there is none, the next one
 */
struct llm_request *llm_request_find(struct llm_device *dev, u64 id, bool or_later);

/**
 * llm_request_get() - another reference
 * @rq: the request
 */
static inline void llm_request_get(struct llm_request *rq)
{
	kref_get(&rq->ref);
}

/**
 * llm_request_put() - one less
 * @rq: the request
 */
void llm_request_put(struct llm_request *rq);

/**
 * llm_request_delivered() - the backend has it from now on, its session's next one is queued
 * @rq: the request
 */
void llm_request_delivered(struct llm_request *rq);

/**
 * llm_request_undelivered() - it did not get it after all
 * @rq: the request
 */
void llm_request_undelivered(struct llm_request *rq);

/**
 * llm_request_cancel() - stop it: at once if no backend has it, else when the backend says so
 * @rq: the request
 * @reason: errno that CANCEL tells
 */
void llm_request_cancel(struct llm_request *rq, int reason);

/**
 * llm_request_terminal() - its terminal event: for its reader, if there is one
 * @rq: the request
 * @record: a whole event record
 * @len: its bytes
 */
void llm_request_terminal(struct llm_request *rq, const void *record, u32 len);

/**
 * llm_request_error() - the same, made here
 * @rq: the request
 * @error: errno, positive
 * @sentence: for people
 */
void llm_request_error(struct llm_request *rq, int error, const char *sentence);

/**
 * llm_request_abandon() - end it for its client, if it has not ended, and for the backend
 * @rq: the request
 * @error: errno, positive
 * @sentence: for people
 */
void llm_request_abandon(struct llm_request *rq, int error, const char *sentence);

/**
 * llm_request_released() - the backend holds it no longer; its slot is free once its end was read
 * @rq: the request
 */
void llm_request_released(struct llm_request *rq);

/**
 * llm_request_read() - its end was read, or nobody is left to read it
 * @rq: the request
 */
void llm_request_read(struct llm_request *rq);

/**
 * llm_transcript_forget() - forget finished turns; whether none is left
 * @ses: the session
 * @most: no more than so many
 */
bool llm_transcript_forget(struct llm_session *ses, unsigned int most);

/* How many are forgotten before others get the lock, where that may be. */
#define LLM_FORGET_AT_ONCE 256

/**
 * llm_transcript_trim() - give back what finished turns need no longer, in the client's context
 * @ses: the session
 */
void llm_transcript_trim(struct llm_session *ses);

/* ---- session.c ------------------------------------------------------------------------------------- */

extern const struct file_operations llm_session_fops;

/**
 * llm_session_put() - one reference less; the lock is held
 * @ses: the session
 */
void llm_session_put(struct llm_session *ses);

/**
 * llm_session_prepare() - memory for events, before the first request: 0 or -ENOMEM
 * @ses: the session
 */
int llm_session_prepare(struct llm_session *ses);

/**
 * llm_session_drained() - the reader took something: a refused POST may be tried again; locked
 * @ses: the session
 */
void llm_session_drained(struct llm_session *ses);

/**
 * llm_session_trace_read() - the reader took (some of) a record; locked
 * @ses: the session
 * @id: the request, whose end was not read yet
 * @type: LLM_EVENT_*
 * @bytes: how many
 */
void llm_session_trace_read(struct llm_session *ses, u64 id, u32 type, u32 bytes);

/**
 * llm_session_terminal() - whose end is the next thing to read; NULL: none, or records come first
 * @ses: the session
 */
struct llm_request *llm_session_terminal(struct llm_session *ses);

/* How often a reader's page may vanish between being brought in and being written. */
#define LLM_FAULTS_MAX 1000

/* ---- text.c ---------------------------------------------------------------------------------------- */

/**
 * llm_text_read() - read() in text mode
 * @iocb: of the read or write
 * @to: where to
 */
ssize_t llm_text_read(struct kiocb *iocb, struct iov_iter *to);

/**
 * llm_text_write() - write() in text mode
 * @iocb: of the read or write
 * @from: what is written
 */
ssize_t llm_text_write(struct kiocb *iocb, struct iov_iter *from);

/**
 * llm_text_poll() - poll() in text mode; the lock is held
 * @ses: the session
 */
__poll_t llm_text_poll(struct llm_session *ses);

/* ---- backend.c, post.c ----------------------------------------------------------------------------- */

/**
 * llm_backend_attach() - attach; *@fd is reserved, *@file not installed; llm_devices_lock is held
 * @dev: the device
 * @a: what it serves
 * @fd: reserved, not installed
 * @file: the new file
 */
int llm_backend_attach(struct llm_device *dev, const struct llm_device_attach *a, int *fd,
		       struct file **file);

/**
 * llm_note_send() - queue a note for the backend, if there is one; the lock is held
 * @dev: the device
 * @n: the note
 * @type: LLM_MSG_*
 */
void llm_note_send(struct llm_device *dev, struct llm_note *n, u32 type);

/**
 * llm_note_drop() - it is not to be sent
 * @n: the note
 */
static inline void llm_note_drop(struct llm_note *n)
{
	list_del_init(&n->node);
}

/**
 * llm_backend_post() - LLM_IOC_POST: 0 or -errno of the batch
 * @be: the backend
 * @p: the batch
 */
long llm_backend_post(struct llm_backend *be, const struct llm_post *p);

/**
 * llm_message_max() - bytes of a SUBMIT, at most
 * @payload: bytes of its payload
 * @ids: ids that its answer may have
 */
static inline u64 llm_message_max(u64 payload, u64 ids)
{
	return sizeof(struct llm_msg) + sizeof(struct llm_msg_submit) + payload + LLM_PRINCIPAL_MAX +
	       LLM_RESUME_MAX + ids * sizeof(s32) + 32;
}

/* ---- ioctl.c --------------------------------------------------------------------------------------- */

/**
 * struct llm_command - one ioctl
 * @cmd: LLM_IOC_*
 * @size: of its structure here
 * @min_size: of its first version
 * @run: returns 0 or -errno
 * @in_only: the structure is only read; else it is written back to @user, and where that cannot be
 *	done the command is not run
 * @hands_out: @run writes it back itself, before it hands out a file
 */
struct llm_command {
	unsigned int cmd;
	u32 size, min_size;
	long (*run)(struct file *file, void *arg, void __user *user);
	bool in_only, hands_out;
};

/**
 * llm_ioctl() - find the command, copy its structure in, run it, copy it out
 * @file: the file
 * @cmd: LLM_IOC_*
 * @arg: address of its structure
 * @table: the commands of this kind of file
 * @n: how many
 */
long llm_ioctl(struct file *file, unsigned int cmd, unsigned long arg,
	       const struct llm_command *table, size_t n);

/**
 * llm_query_fill() - what every file answers to LLM_IOC_QUERY
 * @q: filled
 * @file: LLM_FILE_*
 * @dev: the device, or NULL
 */
void llm_query_fill(struct llm_query *q, u32 file, struct llm_device *dev);

#endif
