/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * llm: language-model inference as a device. The contract between the kernel module, the backend
 * (llmdevd), clients and tools; over a Unix socket the same structures travel without the module.
 *
 * Three kinds of file:
 *
 *   /dev/llm-control   creates and attaches devices; attaching returns a *backend* file
 *   /dev/llmN          an open file is a *session*: one conversation, ended by its last close
 *   backend file       read() gives struct llm_msg, LLM_IOC_POST takes struct llm_event
 *
 * Rules, for every structure here:
 *   - ioctl arguments begin with @size (set by the caller to sizeof) and @flags. A longer structure
 *     whose tail is zero is accepted, a shorter one reads as if filled with zeroes.
 *   - Unknown flags, and padding that is not zero, are refused.
 *   - A command that answers in its structure is not begun where that cannot be written (EFAULT).
 *   - Pointers are __u64. Times are absolute CLOCK_MONOTONIC nanoseconds; 0 means none.
 *   - Sizes are multiples of 8 and members naturally aligned: 32-bit and 64-bit layouts agree.
 *
 * Errors: ENOTTY unknown command, E2BIG non-zero tail or payload over the limit, EOPNOTSUPP unknown
 * value or flag, EINVAL bad field, ENOENT no such id, EPERM/EACCES not allowed, EAGAIN would block,
 * ENOSPC a queue or limit is full, EPIPE no backend and none expected, ECANCELED cancelled, ESTALE
 * old backend generation or lost conversation, ETIMEDOUT deadline passed, EBUSY in use.
 *
 * A fourth kind of file, the *region*, is memory that the kernel keeps: see the end of this file.
 */
#ifndef _UAPI_LINUX_LLM_H
#define _UAPI_LINUX_LLM_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define LLM_IOC_MAGIC 0xBB

/* Any file */
#define LLM_IOC_QUERY _IO(LLM_IOC_MAGIC, 0x00)
/* Session file */
#define LLM_IOC_SET_MODE _IO(LLM_IOC_MAGIC, 0x01)
#define LLM_IOC_SUBMIT   _IO(LLM_IOC_MAGIC, 0x02)
#define LLM_IOC_CANCEL   _IO(LLM_IOC_MAGIC, 0x03)
/* Control file */
#define LLM_IOC_DEVICE_CREATE  _IO(LLM_IOC_MAGIC, 0x10)
#define LLM_IOC_DEVICE_ATTACH  _IO(LLM_IOC_MAGIC, 0x11)
#define LLM_IOC_DEVICE_DESTROY _IO(LLM_IOC_MAGIC, 0x12)
#define LLM_IOC_DEVICE_QUIESCE _IO(LLM_IOC_MAGIC, 0x13)
/* Backend file */
#define LLM_IOC_POST _IO(LLM_IOC_MAGIC, 0x20)
/* Control file: memory */
#define LLM_IOC_REGION_CREATE  _IO(LLM_IOC_MAGIC, 0x30)
#define LLM_IOC_REGION_OPEN    _IO(LLM_IOC_MAGIC, 0x31)
#define LLM_IOC_REGION_LIST    _IO(LLM_IOC_MAGIC, 0x32)
#define LLM_IOC_REGION_DESTROY _IO(LLM_IOC_MAGIC, 0x33)
#define LLM_IOC_MEM_STATUS     _IO(LLM_IOC_MAGIC, 0x38)
#define LLM_IOC_MEM_FLOORS     _IO(LLM_IOC_MAGIC, 0x39)
#define LLM_IOC_MEM_RESERVE    _IO(LLM_IOC_MAGIC, 0x3a)
#define LLM_IOC_MEM_MAKE_ROOM  _IO(LLM_IOC_MAGIC, 0x3b)
#define LLM_IOC_CACHE_DROP     _IO(LLM_IOC_MAGIC, 0x3c)
/* Region file */
#define LLM_IOC_REGION_SEAL _IO(LLM_IOC_MAGIC, 0x34)
#define LLM_IOC_REGION_INFO _IO(LLM_IOC_MAGIC, 0x35)

/* Lengths that are part of the contract. Limits that an administrator may change are in QUERY. */
#define LLM_NAME_MAX      64    /* device and model names, NUL included */
#define LLM_PRINCIPAL_MAX 64    /* bytes of a principal label, no NUL */
#define LLM_RESUME_MAX    256   /* bytes of a STARTED event's resume blob */
#define LLM_EVENT_MAX     32768 /* bytes of one event record */
#define LLM_POST_MAX      256   /* records of one LLM_IOC_POST */
#define LLM_REGION_NAME_MAX 128 /* a region's name, NUL included */

/* ---- QUERY --------------------------------------------------------------------------------------- */

/* llm_query.file */
#define LLM_FILE_CONTROL 1
#define LLM_FILE_SESSION 2
#define LLM_FILE_BACKEND 3
#define LLM_FILE_REGION  4

/* llm_query.features */
#define LLM_FEATURE_TEXT_MODE  (1ULL << 0) /* read() and write() of plain text */
#define LLM_FEATURE_EVENT_MODE (1ULL << 1) /* struct llm_event records */
#define LLM_FEATURE_JSON       (1ULL << 2) /* the backend takes LLM_FMT_JSON */
#define LLM_FEATURE_REPLAY     (1ULL << 3) /* live requests survive the backend's death */
#define LLM_FEATURE_TRANSCRIPT (1ULL << 4) /* so does the conversation between two requests */
#define LLM_FEATURE_PRINCIPAL  (1ULL << 5) /* llm_submit.principal */
#define LLM_FEATURE_DEADLINE   (1ULL << 6) /* llm_submit.deadline_ns */
#define LLM_FEATURE_CHAT       (1ULL << 7) /* LLM_FMT_TEXT is a chat turn, else raw text */
#define LLM_FEATURE_EXACT      (1ULL << 8) /* a continued answer is byte-identical */
#define LLM_FEATURE_REGION     (1ULL << 9) /* control file: regions */
#define LLM_FEATURE_RECLAIM    (1ULL << 10) /* control file: floors, reserve, room, cache */

/**
 * struct llm_query - what a file is, can do, and is limited to (LLM_IOC_QUERY)
 * @size: sizeof(struct llm_query)
 * @flags: must be 0
 * @features: LLM_FEATURE_*
 * @file: LLM_FILE_*
 * @generation: of the attached backend; 0 where none is attached. Over a socket: 1.
 * @max_payload: bytes of one request's payload
 * @max_event_bytes: event bytes held for a reader before its requests are parked
 * @max_transcript: bytes of payloads and ids kept of one session
 * @max_message: the longest struct llm_msg a backend must be ready to read
 * @max_requests: unfinished requests of one session
 * @max_sessions: open sessions of one device; one uid may have fewer
 * @context: tokens that a conversation may reach
 * @__reserved: 0
 * @fingerprint: of the model and everything that an answer's bytes depend on
 * @device: the device's name, NUL-terminated
 * @model: the model's name, NUL-terminated
 */
struct llm_query {
	__u32 size;
	__u32 flags;
	__u64 features;
	__u32 file;
	__u32 generation;
	__u64 max_payload;
	__u64 max_event_bytes;
	__u64 max_transcript;
	__u64 max_message;
	__u32 max_requests;
	__u32 max_sessions;
	__u32 context;
	__u32 __reserved;
	__u64 fingerprint;
	__u8 device[LLM_NAME_MAX];
	__u8 model[LLM_NAME_MAX];
};

/* ---- session files -------------------------------------------------------------------------------- */

#define LLM_MODE_TEXT  0
#define LLM_MODE_EVENT 1

/**
 * struct llm_set_mode - choose how a session file is read and written, before its first use
 * @size: sizeof(struct llm_set_mode)
 * @flags: must be 0
 * @mode: LLM_MODE_*
 * @__reserved: must be 0
 */
struct llm_set_mode {
	__u32 size;
	__u32 flags;
	__u32 mode;
	__u32 __reserved;
};

/* llm_submit.format: how the backend reads the payload. The kernel does not look inside. */
#define LLM_FMT_TEXT 1 /* UTF-8: the next turn of the conversation */
#define LLM_FMT_JSON 2 /* one OpenAI chat-completion or completion request object */

/* llm_submit.flags */
#define LLM_SUBMIT_F_REASONING (1U << 0) /* post reasoning as DATA events instead of hiding it */
#define LLM_SUBMIT_F_ALL       LLM_SUBMIT_F_REASONING

/**
 * struct llm_submit - ask for one answer (LLM_IOC_SUBMIT)
 * @size: sizeof(struct llm_submit)
 * @flags: LLM_SUBMIT_F_*
 * @request_id: out: names the request in events and in CANCEL; unique for the device's life
 * @payload: address of the payload
 * @payload_len: its bytes, at least 1
 * @deadline_ns: the request ends with ETIMEDOUT when this passes; 0: none
 * @format: LLM_FMT_*
 * @max_tokens: most tokens of the answer; 0: as many as the context holds
 * @priority: -20 (first) to 19 (last), 0 by default; below 0 needs the right to it
 * @principal_len: bytes of the label; 0: none
 * @principal: address of the end user's label; only administrators may set one
 * @trace_id: W3C trace id, all zero: none
 * @span_id: W3C span id of the caller, all zero: none
 */
struct llm_submit {
	__u32 size;
	__u32 flags;
	__u64 request_id;
	__u64 payload;
	__u64 payload_len;
	__u64 deadline_ns;
	__u32 format;
	__u32 max_tokens;
	__s32 priority;
	__u32 principal_len;
	__u64 principal;
	__u8 trace_id[16];
	__u8 span_id[8];
};

/**
 * struct llm_cancel - end a request early (LLM_IOC_CANCEL)
 * @size: sizeof(struct llm_cancel)
 * @flags: must be 0
 * @request_id: ENOENT if it is not an unfinished request of this file
 *
 * The request still gets its terminal event: DONE with LLM_FINISH_CANCELLED, or whatever was
 * faster.
 */
struct llm_cancel {
	__u32 size;
	__u32 flags;
	__u64 request_id;
};

/* ---- events: what read() gives in event mode, and what LLM_IOC_POST takes ------------------------- */

/* llm_event.type; the payload that follows the header */
#define LLM_EVENT_STARTED  1 /* struct llm_resume */
#define LLM_EVENT_PROGRESS 2 /* struct llm_progress */
#define LLM_EVENT_TEXT     3 /* struct llm_text, ids, bytes */
#define LLM_EVENT_DATA     4 /* struct llm_text, ids, bytes */
#define LLM_EVENT_DONE     5 /* struct llm_done, bytes; terminal */
#define LLM_EVENT_ERROR    6 /* struct llm_error, bytes; terminal */
#define LLM_EVENT_INFO     7 /* struct llm_query: the socket's answer to LLM_MSG_QUERY */
#define LLM_EVENT_STATUS   8 /* struct llm_status, sessions: its answer to LLM_MSG_STATUS */

/**
 * struct llm_event - header of an event record
 * @size: of the record: header, payload and zero padding to a multiple of 8
 * @flags: 0
 * @type: LLM_EVENT_*
 * @length: bytes of the payload, without padding
 * @request_id: the request; 0: the session as a whole (ERROR, INFO, STATUS; on a socket only)
 * @seq: 0, 1, 2 ... within the request, across backends: a gap or a repeat never reaches a reader
 *
 * A payload structure may grow at its end only where nothing follows it.
 */
struct llm_event {
	__u32 size;
	__u32 flags;
	__u32 type;
	__u32 length;
	__u64 request_id;
	__u64 seq;
};

/* llm_resume.flags: what the request has to do with the rest of its session's transcript */
#define LLM_RESUME_F_FRESH (1U << 0) /* earlier requests no longer matter: they may be forgotten */
#define LLM_RESUME_F_ALONE (1U << 1) /* no later request builds on this one */

/**
 * struct llm_resume - payload of STARTED: all that another backend needs besides payload and ids
 * @size: sizeof(struct llm_resume), at most LLM_RESUME_MAX
 * @flags: LLM_RESUME_F_*
 * @fingerprint: model, tokenizer, weight layout, backend and its arithmetic
 * @chat_template: fingerprint of the conversation's rendering; 0: raw text
 * @prompt_hash: FNV-1a (64 bit) over the prompt's ids as little-endian __s32
 * @seed: of sampling, also where the client gave none
 * @date: day that the prompt was rendered with, seconds since 1970 UTC; 0: none used
 * @prompt_tokens: length of the prompt
 * @grid: prompt tokens are computed in absolute blocks of so many positions; 0: in any blocks,
 *	with the same result
 *
 * Opaque to the kernel and to clients, except @flags. A backend whose values differ must end the
 * request with ESTALE.
 */
struct llm_resume {
	__u32 size;
	__u32 flags;
	__u64 fingerprint;
	__u64 chat_template;
	__u64 prompt_hash;
	__u64 seed;
	__u64 date;
	__u32 prompt_tokens;
	__u32 grid;
};

/**
 * struct llm_progress - payload of PROGRESS
 * @done: prompt tokens computed so far, cached ones included
 * @total: prompt tokens
 */
struct llm_progress {
	__u32 done;
	__u32 total;
};

/* llm_text.flags */
#define LLM_TEXT_F_MORE (1U << 0) /* DATA: the piece goes on in the next event of this request */

/* llm_text.subtype; 0 in TEXT events */
#define LLM_DATA_REASONING 1 /* UTF-8 */
#define LLM_DATA_TOOL_CALL 2 /* a whole call: one object of OpenAI's tool_calls, with index */
#define LLM_DATA_MALFORMED 3 /* the text that follows looked like a tool call: why it is none */
/* From here on bytes that do not follow from the ids: no part of posted_bytes. */
#define LLM_DATA_ASIDE     0x100
#define LLM_DATA_LOGPROBS  0x101 /* JSON, of the next token; comes before its event */
#define LLM_DATA_JSON      0x102 /* a part of the result of a request that is no generation */
#define LLM_DATA_EMBEDDING 0x103 /* a part of a vector: floats (f32, the machine's order) */

/**
 * struct llm_text - payload of TEXT and DATA: ids and the bytes that became whole with them
 * @n_ids: token ids (__s32 each) that follow this structure
 * @n_bytes: bytes that follow the ids. TEXT: UTF-8, never a part of a character.
 * @subtype: LLM_DATA_*
 * @flags: LLM_TEXT_F_*
 *
 * Every generated id is posted exactly once and in order, also while its text is held back (an
 * unfinished character, a possible stop string or tool call). The pieces that one id completes are
 * posted one after the other, the id with the first. A backend that takes over computes the same
 * pieces again and goes on after the bytes that were posted.
 */
struct llm_text {
	__u32 n_ids;
	__u32 n_bytes;
	__u32 subtype;
	__u32 flags;
};

/* llm_done.finish */
#define LLM_FINISH_STOP      1 /* the model ended its answer, or a stop string was met */
#define LLM_FINISH_LENGTH    2 /* max_tokens or the context was reached */
#define LLM_FINISH_CANCELLED 3

/**
 * struct llm_done - payload of DONE
 * @finish: LLM_FINISH_*
 * @n_bytes: bytes that follow: text that had been held back until the end
 * @prompt_tokens: tokens of the prompt
 * @cached_tokens: those of them that needed no computing
 * @completion_tokens: tokens generated, the one that ended the answer included
 * @__reserved: 0
 * @submit_ns: when the backend took the request. These four are the last backend's, if several.
 * @start_ns: first step began
 * @first_ns: first token
 * @end_ns: last token
 */
struct llm_done {
	__u32 finish;
	__u32 n_bytes;
	__u32 prompt_tokens;
	__u32 cached_tokens;
	__u32 completion_tokens;
	__u32 __reserved;
	__u64 submit_ns;
	__u64 start_ns;
	__u64 first_ns;
	__u64 end_ns;
};

/**
 * struct llm_error - payload of ERROR
 * @error: errno, positive
 * @n_bytes: bytes of the sentence that follows, for people: "what: why: what to do"
 *
 * A request that ended in ERROR is no part of its conversation.
 */
struct llm_error {
	__s32 error;
	__u32 n_bytes;
};

/**
 * struct llm_status - payload of STATUS: what the backend does, for people and for monitoring
 * @size: sizeof(struct llm_status): where the sessions begin, so that it may grow
 * @session_size: sizeof(struct llm_status_session)
 * @n_sessions: how many of those follow: the asker's own (root and the backend's user: anybody's),
 *	those with unfinished requests first, as many as an event holds
 * @sessions: open ones, anybody's
 * @max_sessions: how many there may be
 * @max_batch: requests that run at once, at most
 * @running: requests that run
 * @parked: requests that do not, because nobody reads their events
 * @waiting: other unfinished requests, those that had to give up their place included
 * @unfinished: all of these, and those that ended but still have something to let go of
 * @max_unfinished: how many there may be
 * @principals: that have unfinished requests
 * @batch_decode: of the last step: tokens that continue an answer
 * @batch_prefill: of the last step: tokens of prompts
 * @kv_page_tokens: tokens of a page of the KV cache
 * @kv_pages: its pages; the sum of the next three
 * @kv_held: pages that belong to sessions
 * @kv_cached: pages that are only kept because their prefix may be asked for again
 * @kv_free: pages with nothing in them
 * @context: tokens that a conversation may reach
 * @kv_page_bytes: bytes of a page
 * @swap_pages: pages in the swap file
 * @swap_max_pages: how many it may have; 0: there is none
 * @now_ns: when this was true
 * @start_ns: when the backend began to serve
 * @fingerprint: as in struct llm_query
 * @weight_bytes: of the model, in memory
 * @submitted: requests that were begun. This and what follows counts from @start_ns on.
 * @refused: requests that were not taken: a limit, no right, malformed
 * @done: requests that ended by themselves
 * @cancelled: requests that were cancelled
 * @failed: requests that ended in an error after they were begun
 * @preempted: how often a request had to give up its place
 * @prompt_tokens: tokens of prompts that were begun
 * @cached_tokens: those of them that needed no computing
 * @computed_tokens: tokens of prompts that were computed, repeated ones included
 * @recomputed_tokens: those of them that had been computed before and were lost
 * @generated_tokens: tokens of answers
 * @evicted_tokens: tokens that the prefix cache let go of
 * @swapped_out: pages written to the swap file
 * @swapped_in: pages read back
 * @steps: batches computed
 * @step_ns: time that they took, from end to end
 * @forward_ns: of that, the model
 * @sample_ns: of that, choosing tokens
 * @swap_ns: of that, the swap file
 * @device: the device's name, NUL-terminated
 * @model: the model's name, NUL-terminated
 * @backend: what computes, NUL-terminated
 *
 * Nothing of any prompt or answer is told.
 */
struct llm_status {
	__u32 size;
	__u32 session_size;
	__u32 n_sessions;
	__u32 sessions;
	__u32 max_sessions;
	__u32 max_batch;
	__u32 running;
	__u32 parked;
	__u32 waiting;
	__u32 unfinished;
	__u32 max_unfinished;
	__u32 principals;
	__u32 batch_decode;
	__u32 batch_prefill;
	__u32 kv_page_tokens;
	__u32 kv_pages;
	__u32 kv_held;
	__u32 kv_cached;
	__u32 kv_free;
	__u32 context;
	__u64 kv_page_bytes;
	__u64 swap_pages;
	__u64 swap_max_pages;
	__u64 now_ns;
	__u64 start_ns;
	__u64 fingerprint;
	__u64 weight_bytes;
	__u64 submitted;
	__u64 refused;
	__u64 done;
	__u64 cancelled;
	__u64 failed;
	__u64 preempted;
	__u64 prompt_tokens;
	__u64 cached_tokens;
	__u64 computed_tokens;
	__u64 recomputed_tokens;
	__u64 generated_tokens;
	__u64 evicted_tokens;
	__u64 swapped_out;
	__u64 swapped_in;
	__u64 steps;
	__u64 step_ns;
	__u64 forward_ns;
	__u64 sample_ns;
	__u64 swap_ns;
	__u8 device[LLM_NAME_MAX];
	__u8 model[LLM_NAME_MAX];
	__u8 backend[LLM_NAME_MAX];
};

/* llm_status_session.state: of its first unfinished request */
#define LLM_SESSION_IDLE      0 /* has none */
#define LLM_SESSION_WAITING   1 /* has not begun */
#define LLM_SESSION_PREFILL   2 /* its prompt is computed */
#define LLM_SESSION_DECODE    3 /* its answer is generated */
#define LLM_SESSION_PARKED    4 /* nobody reads its events, or it may not go faster */
#define LLM_SESSION_PREEMPTED 5 /* has begun, had to give up its place */

/**
 * struct llm_status_session - one session, behind struct llm_status
 * @number: in the backend's log; 0: it has asked nothing yet
 * @opened_ns: when it was opened
 * @request_ns: when its first unfinished request was taken; 0: it has none
 * @uid: of the opener
 * @pid: likewise
 * @state: LLM_SESSION_*
 * @requests: unfinished ones
 * @tokens: of the conversation that are computed and kept
 * @pages: of the KV cache that they are kept in
 * @generated: tokens of the running answer so far
 * @priority: of the first unfinished request
 * @principal: label of the last request, padded with zeroes; all zero: none was given
 */
struct llm_status_session {
	__u64 number;
	__u64 opened_ns;
	__u64 request_ns;
	__u32 uid;
	__s32 pid;
	__u32 state;
	__u32 requests;
	__u32 tokens;
	__u32 pages;
	__u32 generated;
	__s32 priority;
	__u8 principal[LLM_PRINCIPAL_MAX];
};

/* ---- control file ---------------------------------------------------------------------------------- */

/**
 * struct llm_device_create - create /dev/llmN and attach to it (LLM_IOC_DEVICE_CREATE)
 * @size: sizeof(struct llm_device_create)
 * @flags: must be 0
 * @name: by-name label, NUL-terminated, [A-Za-z0-9._-]; EEXIST if taken
 * @model: the model's name, for people
 * @fingerprint: of what the backend serves; must not be 0
 * @features: LLM_FEATURE_* that the backend adds (JSON, CHAT, EXACT)
 * @context: tokens that a conversation may reach
 * @recovery_ms: how long clients wait for a new backend after one died; 0: the module's default
 * @max_request_ms: device-wide limit for one request; 0: none
 * @device_id: out: N
 * @backend_fd: out: the backend file, O_CLOEXEC
 * @generation: out: 1
 */
struct llm_device_create {
	__u32 size;
	__u32 flags;
	__u8 name[LLM_NAME_MAX];
	__u8 model[LLM_NAME_MAX];
	__u64 fingerprint;
	__u64 features;
	__u32 context;
	__u32 recovery_ms;
	__u32 max_request_ms;
	__u32 device_id;
	__s32 backend_fd;
	__u32 generation;
};

/**
 * struct llm_device_attach - become the backend of a device that has none (LLM_IOC_DEVICE_ATTACH)
 * @size: sizeof(struct llm_device_attach)
 * @flags: must be 0
 * @name: the device's by-name label
 * @fingerprint: of what this backend serves. Requests that began under another one are not
 *	delivered: they end with ESTALE.
 * @features: as in struct llm_device_create
 * @context: as in struct llm_device_create
 * @device_id: out: N
 * @backend_fd: out: the backend file, O_CLOEXEC
 * @generation: out: the number of this attachment
 *
 * EBUSY while another backend is attached. What is read first is every session and its transcript,
 * marked LLM_MSG_F_REPLAY, then REPLAY_END.
 */
struct llm_device_attach {
	__u32 size;
	__u32 flags;
	__u8 name[LLM_NAME_MAX];
	__u64 fingerprint;
	__u64 features;
	__u32 context;
	__u32 device_id;
	__s32 backend_fd;
	__u32 generation;
};

/**
 * struct llm_device_name - argument of LLM_IOC_DEVICE_DESTROY and LLM_IOC_DEVICE_QUIESCE
 * @size: sizeof(struct llm_device_name)
 * @flags: must be 0
 * @name: the device's by-name label
 * @deadline_ns: QUIESCE: the backend is asked to let go by then; DESTROY: must be 0
 *
 * A backend that was asked and still has the device at @deadline_ns (0: never; a time that has
 * passed: at once) is detached as if it had died: another one may attach, read() of the old file
 * gives 0, poll() POLLIN and POLLHUP, LLM_IOC_POST ESTALE.
 */
struct llm_device_name {
	__u32 size;
	__u32 flags;
	__u8 name[LLM_NAME_MAX];
	__u64 deadline_ns;
};

/* ---- backend file ---------------------------------------------------------------------------------- */

/* llm_msg.type; the body that follows the header */
#define LLM_MSG_SESSION_OPEN  1 /* struct llm_msg_session */
#define LLM_MSG_SESSION_CLOSE 2 /* none: nobody is left to read; drop the session and its requests */
#define LLM_MSG_SUBMIT        3 /* struct llm_msg_submit and its parts */
#define LLM_MSG_CANCEL        4 /* struct llm_msg_cancel */
#define LLM_MSG_RESUME        5 /* none: a POST that got EAGAIN may be tried again */
#define LLM_MSG_QUIESCE       6 /* struct llm_msg_quiesce: finish or not, then close the backend file */
#define LLM_MSG_REPLAY_END    7 /* none: what follows is new */
#define LLM_MSG_QUERY         8 /* none: socket only; answered by LLM_EVENT_INFO */
#define LLM_MSG_STATUS        9 /* none: socket only; answered by LLM_EVENT_STATUS */

/* llm_msg.flags */
#define LLM_MSG_F_REPLAY   (1U << 0) /* SESSION_OPEN, SUBMIT: known from an earlier backend */
#define LLM_MSG_F_FINISHED (1U << 1) /* SUBMIT: the answer is complete, it is told as history */
#define LLM_MSG_F_LOST     (1U << 2) /* SESSION_OPEN: the transcript went over its bound */
#define LLM_MSG_F_ALL      (LLM_MSG_F_REPLAY | LLM_MSG_F_FINISHED | LLM_MSG_F_LOST)

/**
 * struct llm_msg - header of a message to the backend
 * @size: of the message: header, body, parts and padding
 * @flags: LLM_MSG_F_*
 * @type: LLM_MSG_*
 * @generation: of the attachment; to be given back with LLM_IOC_POST. Over a socket: 0.
 * @session_id: the open file. Over a socket: 0, the connection says it.
 * @request_id: the request; 0 where none is meant
 *
 * read() gives one whole message; EMSGSIZE if the buffer is too small (llm_query.max_message, asked
 * for again, is enough); 0 if the device was taken away (see struct llm_device_name). Over a socket
 * the client sends these messages itself, one at a time: a message
 * begins a packet and, where @size is more than the packet holds, goes on in the next ones.
 */
struct llm_msg {
	__u32 size;
	__u32 flags;
	__u32 type;
	__u32 generation;
	__u64 session_id;
	__u64 request_id;
};

/**
 * struct llm_msg_session - body of SESSION_OPEN
 * @uid: of the opener's credentials
 * @gid: likewise
 * @pid: of the opener, for people
 * @mode: LLM_MODE_*
 * @cgroup: id of the opener's cgroup
 */
struct llm_msg_session {
	__u32 uid;
	__u32 gid;
	__s32 pid;
	__u32 mode;
	__u64 cgroup;
};

/**
 * struct llm_msg_submit - body of SUBMIT
 * @format: LLM_FMT_*
 * @flags: LLM_SUBMIT_F_*
 * @payload_len: bytes of the first part
 * @deadline_ns: as in struct llm_submit
 * @max_tokens: as in struct llm_submit
 * @priority: as in struct llm_submit
 * @trace_id: as in struct llm_submit
 * @span_id: as in struct llm_submit
 * @principal_len: bytes of the second part, at most LLM_PRINCIPAL_MAX
 * @resume_len: bytes of the third part, at most LLM_RESUME_MAX; 0: not STARTED yet
 * @n_ids: elements of the fourth part
 * @finish: LLM_FINISH_* with LLM_MSG_F_FINISHED, else 0
 * @posted_bytes: text bytes posted by TEXT and DATA events so far, LLM_DATA_ASIDE's not counted
 * @seq: of the next event to be posted
 *
 * Four parts follow, each padded with zeroes to a multiple of 8: the payload, the principal, the
 * resume blob, the ids (__s32) posted so far. The last two, @finish, @posted_bytes and @seq are 0
 * unless LLM_MSG_F_REPLAY is set.
 */
struct llm_msg_submit {
	__u32 format;
	__u32 flags;
	__u64 payload_len;
	__u64 deadline_ns;
	__u32 max_tokens;
	__s32 priority;
	__u8 trace_id[16];
	__u8 span_id[8];
	__u32 principal_len;
	__u32 resume_len;
	__u32 n_ids;
	__u32 finish;
	__u64 posted_bytes;
	__u64 seq;
};

/**
 * struct llm_msg_cancel - body of CANCEL
 * @reason: errno. ECANCELED: the client has had enough; what it was told stays in the conversation.
 *	Anything else: the request has ended for its client in an ERROR, and is no part of it: ETIMEDOUT
 *	its deadline passed, ECONNABORTED the administrator ended it, ENOSPC more ids than it may have
 * @__reserved: 0
 *
 * Overtakes other messages, never its own SUBMIT.
 */
struct llm_msg_cancel {
	__s32 reason;
	__u32 __reserved;
};

/**
 * struct llm_msg_quiesce - body of QUIESCE
 * @deadline_ns: then the device is taken away from who still has it; 0: never
 */
struct llm_msg_quiesce {
	__u64 deadline_ns;
};

/**
 * struct llm_post - hand events to readers (LLM_IOC_POST)
 * @size: sizeof(struct llm_post)
 * @flags: must be 0
 * @generation: ESTALE for the whole batch if it is not this attachment's, or if the device was taken
 *	away
 * @count: records, at most LLM_POST_MAX
 * @events: address of @count struct llm_event records, one behind the other
 * @events_len: their bytes
 * @results: address of @count __s32: 0, or -errno of the record of the same index: EAGAIN ring full
 *	(wait for RESUME) or behind such a one, EINVAL wrong seq or record, ENOENT no such unfinished
 *	request, ECANCELED nobody reads it any more: only its terminal event is still owed. So it is
 *	for an answer of more ids than max_tokens, or than the context that the device had when it
 *	was asked for: its client gets ENOSPC.
 *
 * Returns 0 if the batch was looked at; each record stands for itself. A terminal event always
 * finds room; its record has at most 8192 bytes.
 */
struct llm_post {
	__u32 size;
	__u32 flags;
	__u32 generation;
	__u32 count;
	__u64 events;
	__u64 events_len;
	__u64 results;
};

/* ---- regions ----------------------------------------------------------------------------------------
 *
 * Named memory that belongs to the kernel: zeroed, resident, never swapped, in 2 MiB pages where they
 * can be had. Mapped through its file (mmap(), MAP_SHARED); the mapping works with O_DIRECT, io_uring
 * fixed buffers and long-term pins. It is filled, then sealed: from then on nobody can change it. It
 * goes with its last file and mapping; a persistent one that was sealed stays until it is destroyed or
 * the module is unloaded, which is refused (EBUSY) while a region file or mapping exists.
 *
 * Charged to the creator: bytes count against RLIMIT_MEMLOCK of its user (CAP_IPC_LOCK: no limit) and
 * against its memory cgroup.
 */

/* llm_region_create.flags, llm_region_info.flags */
#define LLM_REGION_PERSISTENT (1U << 0) /* once sealed, outlives its last file and mapping */
#define LLM_REGION_HUGE       (1U << 1) /* all of it in 2 MiB pages, or ENOMEM; else where possible */
/* llm_region_info.flags only */
#define LLM_REGION_SEALED     (1U << 16)
#define LLM_REGION_ALLOCATING (1U << 17) /* CREATE is at work on it: @resident grows */
#define LLM_REGION_UNLINKED   (1U << 18) /* destroyed; somebody still has it */

/**
 * struct llm_region_create - allocate a region (LLM_IOC_REGION_CREATE)
 * @size: sizeof(struct llm_region_create)
 * @flags: LLM_REGION_PERSISTENT, LLM_REGION_HUGE
 * @bytes: a multiple of the page size (of 2 MiB with LLM_REGION_HUGE), at most 2^46
 * @huge_bytes: out: how much of it is in 2 MiB pages
 * @node: NUMA node that all of it must be on; -1: any
 * @fd: out: region file, O_CLOEXEC, writable
 * @name: unique, NUL-terminated, [A-Za-z0-9._:@+-], not beginning with a dot; EEXIST if taken
 *
 * Returns when all of it is there. A fatal signal stops it (EINTR). ENOMEM: more than the machine, the
 * node, RLIMIT_MEMLOCK or the memory cgroup has left; all is given back, nobody is killed.
 */
struct llm_region_create {
	__u32 size;
	__u32 flags;
	__u64 bytes;
	__u64 huge_bytes;
	__s32 node;
	__s32 fd;
	__u8 name[LLM_REGION_NAME_MAX];
};

/* llm_region_open.flags; none: readable only */
#define LLM_REGION_OPEN_WRITE    (1U << 0) /* may be mapped writable until it is sealed */
#define LLM_REGION_OPEN_REGISTER (1U << 1) /* mapped writable though sealed: only for drivers that cannot
					    * register read-only memory; whoever does must not write */

/**
 * struct llm_region_open - a region file of a region that exists (LLM_IOC_REGION_OPEN)
 * @size: sizeof(struct llm_region_open)
 * @flags: LLM_REGION_OPEN_*; both are for the owner and CAP_SYS_ADMIN only (EPERM)
 * @fd: out: region file, O_CLOEXEC
 * @__reserved: 0
 * @name: ENOENT if there is none, EAGAIN while CREATE is at work on it
 *
 * EPERM: LLM_REGION_OPEN_WRITE of a sealed region.
 */
struct llm_region_open {
	__u32 size;
	__u32 flags;
	__s32 fd;
	__u32 __reserved;
	__u8 name[LLM_REGION_NAME_MAX];
};

/**
 * struct llm_region_info - what a region is (LLM_IOC_REGION_INFO, LLM_IOC_REGION_LIST)
 * @size: sizeof(struct llm_region_info)
 * @flags: out: LLM_REGION_*
 * @id: never used twice while the module is loaded; ascending
 * @bytes: as created
 * @resident: of it allocated
 * @huge_bytes: of it in 2 MiB pages
 * @pinned_bytes: in pages that are pinned for DMA; of a large region an estimate by its pages' counts
 * @created_ns: CLOCK_MONOTONIC
 * @node: as created
 * @uid: of the creator, in the caller's user namespace
 * @pid: of the creator, 0 if it is gone
 * @mappings: of it, now
 * @files: open region files, now
 * @__reserved: 0
 * @name: NUL-terminated
 */
struct llm_region_info {
	__u32 size;
	__u32 flags;
	__u64 id;
	__u64 bytes;
	__u64 resident;
	__u64 huge_bytes;
	__u64 pinned_bytes;
	__u64 created_ns;
	__s32 node;
	__u32 uid;
	__s32 pid;
	__u32 mappings;
	__u32 files;
	__u32 __reserved;
	__u8 name[LLM_REGION_NAME_MAX];
};

/**
 * struct llm_region_list - all regions, in order of id (LLM_IOC_REGION_LIST)
 * @size: sizeof(struct llm_region_list)
 * @flags: must be 0
 * @after: only those with a greater id; 0: from the beginning
 * @regions: address of @count struct llm_region_info
 * @count: in: room, at most 256; out: how many were written
 * @info_size: sizeof(struct llm_region_info), how far they are apart; 0: 208, as it was at first
 */
struct llm_region_list {
	__u32 size;
	__u32 flags;
	__u64 after;
	__u64 regions;
	__u32 count;
	__u32 info_size;
};

/**
 * struct llm_region_name - argument of LLM_IOC_REGION_DESTROY
 * @size: sizeof(struct llm_region_name)
 * @flags: must be 0
 * @name: its name is free at once; the memory goes with the last file, mapping and pin. EPERM: only
 *	the owner and CAP_SYS_ADMIN may. A CREATE at work on it ends with ECANCELED.
 */
struct llm_region_name {
	__u32 size;
	__u32 flags;
	__u8 name[LLM_REGION_NAME_MAX];
};

/**
 * struct llm_region_seal - make it read-only for ever (LLM_IOC_REGION_SEAL)
 * @size: sizeof(struct llm_region_seal)
 * @flags: must be 0
 *
 * EBUSY: a writable mapping exists, or one of its pages is pinned. EALREADY: it is sealed. EPERM: the
 * file is not writable.
 */
struct llm_region_seal {
	__u32 size;
	__u32 flags;
};

/* ---- memory that is free ------------------------------------------------------------------------------
 *
 * On machines whose GPU uses the CPU's memory, GPU allocations fail when MemFree (not MemAvailable) or
 * free 2 MiB blocks run out. Two floors say how much there should be; the module tells when there is
 * less, and has the means to make more that userspace has not. Judgement is llmdev-policyd's.
 *
 * Everything but MEM_STATUS is for CAP_SYS_ADMIN, and for the group of the parameter admin_gid.
 */

/* llm_mem_status.pressure */
#define LLM_PRESSURE_FREE    (1U << 0) /* MemFree is below its floor */
#define LLM_PRESSURE_BLOCKS  (1U << 1) /* fewer free 2 MiB blocks than the floor */
#define LLM_PRESSURE_RELEASE (1U << 2) /* the reserve gave memory back since this file last asked */

/**
 * struct llm_mem_status - how much there is (LLM_IOC_MEM_STATUS)
 * @size: sizeof(struct llm_mem_status)
 * @flags: must be 0
 * @total: MemTotal, in bytes as all others
 * @free: MemFree
 * @available: MemAvailable
 * @free_blocks: 2 MiB blocks that drivers could have: CMA areas and movable zones left out
 * @floor_free: bytes of MemFree that there should be; 0: no floor
 * @floor_blocks: free 2 MiB blocks that there should be; 0: no floor
 * @reserve_target: bytes that the last MEM_RESERVE asked for
 * @reserve_held: bytes that the module holds
 * @released_shrinker: bytes that the reserve gave back because reclaim asked, since loading
 * @released_oom: ... because the kernel was about to kill somebody
 * @released_asked: ... because MEM_RESERVE, MEM_MAKE_ROOM or REGION_CREATE asked
 * @room_calls: MEM_MAKE_ROOM so far
 * @room_bytes: by how much MemFree had grown after them, in all
 * @drop_calls: CACHE_DROP so far
 * @drop_bytes: page cache that they dropped
 * @events: pressure events so far. Asking makes poll() forget those that it tells.
 * @pressure: LLM_PRESSURE_*
 * @__reserved: 0
 *
 * poll() of a control file: POLLPRI when there are pressure events that this file was not told.
 */
struct llm_mem_status {
	__u32 size;
	__u32 flags;
	__u64 total;
	__u64 free;
	__u64 available;
	__u64 free_blocks;
	__u64 floor_free;
	__u64 floor_blocks;
	__u64 reserve_target;
	__u64 reserve_held;
	__u64 released_shrinker;
	__u64 released_oom;
	__u64 released_asked;
	__u64 room_calls;
	__u64 room_bytes;
	__u64 drop_calls;
	__u64 drop_bytes;
	__u64 events;
	__u32 pressure;
	__u32 __reserved;
};

/**
 * struct llm_mem_floors - say how much there should be (LLM_IOC_MEM_FLOORS)
 * @size: sizeof(struct llm_mem_floors)
 * @flags: must be 0
 * @free: bytes of MemFree; 0: no floor. EINVAL: more than MemTotal
 * @blocks: free 2 MiB blocks; 0: no floor
 *
 * The floors belong to the open control file that set them and go with its last close; EBUSY while
 * another file's floors stand. Being below one when it is set or going below it is an event, staying
 * there is none. They are looked at once a second.
 */
struct llm_mem_floors {
	__u32 size;
	__u32 flags;
	__u64 free;
	__u64 blocks;
};

/**
 * struct llm_mem_reserve - hold 2 MiB blocks until somebody needs them (LLM_IOC_MEM_RESERVE)
 * @size: sizeof(struct llm_mem_reserve)
 * @flags: must be 0
 * @bytes: a multiple of 2 MiB: what is to be held; more is taken, less is given back. EINVAL: more
 *     than MemTotal
 * @held: out: what is held now: less than @bytes where no more blocks could be had (no error)
 *
 * Given back when direct reclaim or the OOM killer is at work for others, not to kswapd, drop_caches
 * or memory.reclaim. What was given back is not taken again by itself; where much is taken back at
 * once, taking stops. Belongs to nobody: it stays when the file is closed. A fatal signal stops it
 * (EINTR), what was taken stays.
 */
struct llm_mem_reserve {
	__u32 size;
	__u32 flags;
	__u64 bytes;
	__u64 held;
};

/**
 * struct llm_mem_make_room - let the kernel reclaim and compact (LLM_IOC_MEM_MAKE_ROOM)
 * @size: sizeof(struct llm_mem_make_room)
 * @flags: must be 0
 * @free: MemFree to be reached
 * @blocks: free 2 MiB blocks to be reached
 * @max_bytes: most that is allocated meanwhile, in 2 MiB blocks; 0: what the targets need. Reclaim
 *     only begins when what was free is allocated: fewer bytes than @free do little.
 * @deadline_ns: stop then; 0: after 10 s
 * @free_before: out, as the following
 * @free_after: MemFree
 * @blocks_before: free 2 MiB blocks
 * @blocks_after: the same
 *
 * EINVAL: a target above MemTotal. The reserve is given back first, as far as needed. Then blocks are
 * allocated and freed again; meanwhile they go to whoever else runs short, as the reserve does. Not
 * reaching the target is no error. Who loses its cache is the kernel's choice: drop what is known to
 * be cold first.
 */
struct llm_mem_make_room {
	__u32 size;
	__u32 flags;
	__u64 free;
	__u64 blocks;
	__u64 max_bytes;
	__u64 deadline_ns;
	__u64 free_before;
	__u64 free_after;
	__u64 blocks_before;
	__u64 blocks_after;
};

/* llm_cache_drop.flags */
#define LLM_DROP_FILE (1U << 0) /* of this file only; else of all files of its filesystem */

/**
 * struct llm_cache_drop - drop clean page cache (LLM_IOC_CACHE_DROP)
 * @size: sizeof(struct llm_cache_drop)
 * @flags: LLM_DROP_*
 * @fd: a file of that filesystem, open for reading; EOPNOTSUPP: it has no cache that can be dropped
 * @__reserved: 0
 * @max_bytes: stop after so many; 0: all
 * @deadline_ns: stop then; 0: none
 * @inodes: out: files looked at
 * @bytes: out: dropped
 * @free_before: out: MemFree
 * @free_after: out: MemFree
 *
 * What is dirty, mapped or locked stays; of a single file the writing of what is dirty begins.
 * EBADF: no file, or not open for reading. A fatal signal stops it (EINTR).
 */
struct llm_cache_drop {
	__u32 size;
	__u32 flags;
	__s32 fd;
	__u32 __reserved;
	__u64 max_bytes;
	__u64 deadline_ns;
	__u64 inodes;
	__u64 bytes;
	__u64 free_before;
	__u64 free_after;
};

#endif /* _UAPI_LINUX_LLM_H */
