/* SPDX-License-Identifier: GPL-2.0 */
/**
 * DOC: Tracepoints
 *
 * The events of system llm are declared stable: fields are not removed, renamed, moved or changed in
 * meaning; new ones are added at the end. All have a fixed width. There is never any text of a
 * prompt or an answer, and never a pointer.
 *
 * Events of a request, in the order of its life: queue (submitted), deliver (given to a backend:
 * again to each one that takes over, and where copying it failed), first_token, tokens (each post
 * that brought ids), cancel (somebody does not want it any more), end (its terminal event is
 * known), read (its reader took a record, also the terminal one).
 *
 * @dev: N of /dev/llmN
 * @request, @session: unique for the device's life
 * @uid, @pid, @cgroup: of the submitter: who called SUBMIT, in text mode the read() that submitted
 * @principal: xxh64 of the label, seed 1; 0: none
 * @trace: W3C trace id
 * @ns: CLOCK_MONOTONIC, as all times
 * @generation: of the backend
 * @ids, @total: of tokens: ids in this post, and with it; of deliver and end: posted so far
 * @seq: of the event that brought them
 * @bytes: of queue: payload; of tokens and end: text; of read: the record, in text mode the text
 * @type: of the record, LLM_EVENT_*
 * @error, @finish: the end: errno, or 0 and LLM_FINISH_*
 *
 * Of sessions (open, close) @uid, @pid and @cgroup are the opener's; of backends (attach, detach)
 * @pid is the one that attached.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM llm

#if !defined(LLM_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define LLM_TRACE_H

#include <linux/tracepoint.h>
#include <linux/xxhash.h>

#include "core.h"

#define LLM_REQUEST_FIELDS                                                                         \
	__field(u32, dev) __field(u32, uid) __field(u64, request) __field(u64, session)            \
	__field(u64, cgroup) __field(u64, principal) __field(u64, ns)                              \
	__field(s32, pid) __array(u8, trace, 16)

#define LLM_REQUEST_ASSIGN(rq)                                                                     \
	__entry->dev = (rq)->ses->dev->number;                                                     \
	__entry->uid = (rq)->submitter.uid;                                                        \
	__entry->request = (rq)->id;                                                               \
	__entry->session = (rq)->ses->id;                                                          \
	__entry->cgroup = (rq)->submitter.cgroup;                                                  \
	__entry->principal = (rq)->sub.principal_len ?                                             \
				     xxh64((rq)->principal, (rq)->sub.principal_len, 1) : 0;       \
	memcpy(__entry->trace, (rq)->sub.trace_id, 16);                                            \
	__entry->ns = ktime_get_ns();                                                              \
	__entry->pid = (rq)->submitter.pid

#define LLM_REQUEST_PRINT                                                                          \
	"dev=%u request=%llu session=%llu pid=%d uid=%u cgroup=%llu principal=%016llx trace=%s ns=%llu"
#define LLM_REQUEST_ARGS                                                                           \
	__entry->dev, __entry->request, __entry->session, __entry->pid, __entry->uid,              \
		__entry->cgroup, __entry->principal, __print_hex_str(__entry->trace, 16), __entry->ns

TRACE_EVENT(llm_request_first_token,
	TP_PROTO(const struct llm_request *rq),
	TP_ARGS(rq),
	TP_STRUCT__entry(LLM_REQUEST_FIELDS),
	TP_fast_assign(LLM_REQUEST_ASSIGN(rq);),
	TP_printk(LLM_REQUEST_PRINT, LLM_REQUEST_ARGS)
);

TRACE_EVENT(llm_request_deliver,
	TP_PROTO(const struct llm_request *rq),
	TP_ARGS(rq),
	TP_STRUCT__entry(LLM_REQUEST_FIELDS __field(u32, generation) __field(u64, ids)),
	TP_fast_assign(LLM_REQUEST_ASSIGN(rq);
		__entry->generation = rq->ses->dev->generation;
		__entry->ids = rq->n_ids;),
	TP_printk(LLM_REQUEST_PRINT " generation=%u ids=%llu", LLM_REQUEST_ARGS,
		  __entry->generation, __entry->ids)
);

TRACE_EVENT(llm_request_queue,
	TP_PROTO(const struct llm_request *rq),
	TP_ARGS(rq),
	TP_STRUCT__entry(LLM_REQUEST_FIELDS
		__field(s32, priority) __field(u64, bytes) __field(u32, format)
		__field(u32, max_tokens) __field(u64, deadline)),
	TP_fast_assign(LLM_REQUEST_ASSIGN(rq);
		__entry->priority = rq->sub.priority;
		__entry->bytes = rq->sub.payload_len;
		__entry->format = rq->sub.format;
		__entry->max_tokens = rq->sub.max_tokens;
		__entry->deadline = rq->sub.deadline_ns;),
	TP_printk(LLM_REQUEST_PRINT " priority=%d bytes=%llu format=%u max_tokens=%u deadline=%llu",
		  LLM_REQUEST_ARGS, __entry->priority, __entry->bytes, __entry->format,
		  __entry->max_tokens, __entry->deadline)
);

TRACE_EVENT(llm_request_tokens,
	TP_PROTO(const struct llm_request *rq, u32 ids, u32 bytes),
	TP_ARGS(rq, ids, bytes),
	TP_STRUCT__entry(LLM_REQUEST_FIELDS
		__field(u32, ids) __field(u32, bytes) __field(u64, total) __field(u64, seq)),
	TP_fast_assign(LLM_REQUEST_ASSIGN(rq);
		__entry->ids = ids;
		__entry->bytes = bytes;
		__entry->total = rq->n_ids;
		__entry->seq = rq->seq;),
	TP_printk(LLM_REQUEST_PRINT " ids=%u bytes=%u total=%llu seq=%llu", LLM_REQUEST_ARGS,
		  __entry->ids, __entry->bytes, __entry->total, __entry->seq)
);

TRACE_EVENT(llm_request_end,
	TP_PROTO(const struct llm_request *rq, int error),
	TP_ARGS(rq, error),
	TP_STRUCT__entry(LLM_REQUEST_FIELDS
		__field(s32, error) __field(u32, finish) __field(u64, ids) __field(u64, bytes)
		__field(u64, submitted) __field(u64, first)),
	TP_fast_assign(LLM_REQUEST_ASSIGN(rq);
		__entry->error = error;
		__entry->finish = rq->finish;
		__entry->ids = rq->n_ids;
		__entry->bytes = rq->posted_bytes;
		__entry->submitted = rq->submitted_ns;
		__entry->first = rq->first_ns;),
	TP_printk(LLM_REQUEST_PRINT " error=%d finish=%u ids=%llu bytes=%llu submitted=%llu first=%llu",
		  LLM_REQUEST_ARGS, __entry->error, __entry->finish, __entry->ids, __entry->bytes,
		  __entry->submitted, __entry->first)
);

TRACE_EVENT(llm_request_cancel,
	TP_PROTO(const struct llm_request *rq, int reason),
	TP_ARGS(rq, reason),
	TP_STRUCT__entry(LLM_REQUEST_FIELDS __field(s32, reason)),
	TP_fast_assign(LLM_REQUEST_ASSIGN(rq); __entry->reason = reason;),
	TP_printk(LLM_REQUEST_PRINT " reason=%d", LLM_REQUEST_ARGS, __entry->reason)
);

TRACE_EVENT(llm_request_read,
	TP_PROTO(const struct llm_request *rq, u32 type, u32 bytes),
	TP_ARGS(rq, type, bytes),
	TP_STRUCT__entry(LLM_REQUEST_FIELDS __field(u32, type) __field(u32, bytes)),
	TP_fast_assign(LLM_REQUEST_ASSIGN(rq);
		__entry->type = type;
		__entry->bytes = bytes;),
	TP_printk(LLM_REQUEST_PRINT " type=%u bytes=%u", LLM_REQUEST_ARGS, __entry->type,
		  __entry->bytes)
);

DECLARE_EVENT_CLASS(llm_session,
	TP_PROTO(const struct llm_session *ses),
	TP_ARGS(ses),
	TP_STRUCT__entry(__field(u32, dev) __field(u32, uid) __field(u64, session)
		__field(u64, cgroup) __field(u64, ns) __field(s32, pid)),
	TP_fast_assign(__entry->dev = ses->dev->number;
		__entry->uid = ses->opener.uid;
		__entry->session = ses->id;
		__entry->cgroup = ses->opener.cgroup;
		__entry->ns = ktime_get_ns();
		__entry->pid = ses->opener.pid;),
	TP_printk("dev=%u session=%llu pid=%d uid=%u cgroup=%llu ns=%llu", __entry->dev,
		  __entry->session, __entry->pid, __entry->uid, __entry->cgroup, __entry->ns)
);
DEFINE_EVENT(llm_session, llm_session_open, TP_PROTO(const struct llm_session *ses), TP_ARGS(ses));
DEFINE_EVENT(llm_session, llm_session_close, TP_PROTO(const struct llm_session *ses), TP_ARGS(ses));

DECLARE_EVENT_CLASS(llm_backend,
	TP_PROTO(const struct llm_backend *be),
	TP_ARGS(be),
	TP_STRUCT__entry(__field(u32, dev) __field(u32, generation) __field(u64, ns)
		__field(s32, pid)),
	TP_fast_assign(__entry->dev = be->dev->number;
		__entry->generation = be->generation;
		__entry->ns = ktime_get_ns();
		__entry->pid = be->pid;),
	TP_printk("dev=%u generation=%u pid=%d ns=%llu", __entry->dev, __entry->generation,
		  __entry->pid, __entry->ns)
);
DEFINE_EVENT(llm_backend, llm_backend_attach, TP_PROTO(const struct llm_backend *be), TP_ARGS(be));
DEFINE_EVENT(llm_backend, llm_backend_detach, TP_PROTO(const struct llm_backend *be), TP_ARGS(be));

/* Something was done about free memory: bytes asked for, freed (or taken), MemFree around it, how long. */
TRACE_EVENT(llm_reclaim,
	TP_PROTO(u32 action, u64 asked, u64 freed, u64 before, u64 after, u64 took),
	TP_ARGS(action, asked, freed, before, after, took),
	TP_STRUCT__entry(__field(u32, action) __field(s32, pid) __field(u64, asked)
		__field(u64, freed) __field(u64, before) __field(u64, after) __field(u64, took)
		__field(u64, ns)),
	TP_fast_assign(__entry->action = action;
		__entry->pid = current->tgid;
		__entry->asked = asked;
		__entry->freed = freed;
		__entry->before = before;
		__entry->after = after;
		__entry->took = took;
		__entry->ns = ktime_get_ns();),
	TP_printk("action=%s pid=%d asked=%llu freed=%llu free_before=%llu free_after=%llu took=%llu ns=%llu",
		  __print_symbolic(__entry->action, {0, "take"}, {1, "shrinker"}, {2, "oom"},
				   {3, "asked"}, {4, "room"}, {5, "file"}, {6, "fs"}),
		  __entry->pid, __entry->asked, __entry->freed, __entry->before, __entry->after,
		  __entry->took, __entry->ns)
);

/* A pressure event: LLM_PRESSURE_*, its number, MemFree. */
TRACE_EVENT(llm_pressure,
	TP_PROTO(u32 what, u64 number, u64 free),
	TP_ARGS(what, number, free),
	TP_STRUCT__entry(__field(u32, what) __field(u32, __reserved) __field(u64, number)
		__field(u64, free) __field(u64, ns)),
	TP_fast_assign(__entry->what = what;
		__entry->__reserved = 0;
		__entry->number = number;
		__entry->free = free;
		__entry->ns = ktime_get_ns();),
	TP_printk("what=%s number=%llu free=%llu ns=%llu",
		  __print_flags(__entry->what, "|", {LLM_PRESSURE_FREE, "free"},
				{LLM_PRESSURE_BLOCKS, "blocks"}, {LLM_PRESSURE_RELEASE, "release"}),
		  __entry->number, __entry->free, __entry->ns)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
