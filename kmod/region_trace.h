/* SPDX-License-Identifier: GPL-2.0 */
/**
 * DOC: Tracepoints of regions
 *
 * Stable, as those of trace.h. create (CREATE came to its end, with @error), seal (SEAL likewise),
 * destroy (DESTROY took the name away), free (the memory was given back: the last file, mapping and
 * name are gone). @id is that of struct llm_region_info, @uid, @pid and @cgroup are those of whoever
 * did it, @created is when CREATE began, times are CLOCK_MONOTONIC nanoseconds.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM llm

#if !defined(LLM_REGION_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define LLM_REGION_TRACE_H

#include <linux/cgroup.h>
#include <linux/cred.h>
#include <linux/sched.h>
#include <linux/tracepoint.h>

#include "region.h"

#ifndef LLM_CURRENT_CGROUP
#ifdef CONFIG_CGROUPS
#define LLM_CURRENT_CGROUP() cgroup_id(task_dfl_cgroup(current))
#else
#define LLM_CURRENT_CGROUP() 0
#endif
#endif

DECLARE_EVENT_CLASS(llm_region,
	TP_PROTO(const struct llm_region *r, int error),
	TP_ARGS(r, error),
	TP_STRUCT__entry(__field(u64, id) __field(u64, bytes) __field(u64, huge_bytes)
		__field(u64, cgroup) __field(u64, created) __field(u64, ns) __field(u32, uid)
		__field(s32, pid) __field(s32, node) __field(s32, error) __field(u32, flags)),
	TP_fast_assign(__entry->id = r->id;
		__entry->bytes = r->bytes;
		__entry->huge_bytes = READ_ONCE(r->huge_bytes);
		__entry->cgroup = LLM_CURRENT_CGROUP();
		__entry->created = r->created_ns;
		__entry->ns = ktime_get_ns();
		__entry->uid = from_kuid_munged(&init_user_ns, current_euid());
		__entry->pid = task_tgid_nr(current);
		__entry->node = r->node;
		__entry->error = error;
		__entry->flags = r->flags;),
	TP_printk("id=%llu bytes=%llu huge_bytes=%llu node=%d flags=%#x error=%d pid=%d uid=%u ns=%llu created=%llu",
		  __entry->id, __entry->bytes, __entry->huge_bytes, __entry->node, __entry->flags,
		  __entry->error, __entry->pid, __entry->uid, __entry->ns, __entry->created)
);
#define LLM_REGION_EVENT(name)                                                                     \
	DEFINE_EVENT(llm_region, name, TP_PROTO(const struct llm_region *r, int error),            \
		     TP_ARGS(r, error))
LLM_REGION_EVENT(llm_region_create);
LLM_REGION_EVENT(llm_region_seal);
LLM_REGION_EVENT(llm_region_destroy);
LLM_REGION_EVENT(llm_region_free);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE region_trace
#include <trace/define_trace.h>
