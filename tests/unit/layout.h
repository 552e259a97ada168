/* SPDX-License-Identifier: MIT */
/*
 * Compile-time asserts on uapi/llm.h. Includes nothing but the header, so that it also compiles
 * for targets without a C library: `gcc -m32 -ffreestanding -fsyntax-only -xc layout.h`.
 */
#ifndef LLMDEV_TEST_LAYOUT_H
#define LLMDEV_TEST_LAYOUT_H

#include "llm.h"

#define AT(type, field, offset)                                                                    \
	_Static_assert(__builtin_offsetof(struct type, field) == (offset), #type "." #field)
#define SIZE(type, bytes)                                                                          \
	_Static_assert(sizeof(struct type) == (bytes) && (bytes) % 8 == 0, "sizeof " #type)

AT(llm_query, size, 0);
AT(llm_query, flags, 4);
AT(llm_query, features, 8);
AT(llm_query, file, 16);
AT(llm_query, generation, 20);
AT(llm_query, max_payload, 24);
AT(llm_query, max_event_bytes, 32);
AT(llm_query, max_transcript, 40);
AT(llm_query, max_message, 48);
AT(llm_query, max_requests, 56);
AT(llm_query, max_sessions, 60);
AT(llm_query, context, 64);
AT(llm_query, fingerprint, 72);
AT(llm_query, device, 80);
AT(llm_query, model, 144);
SIZE(llm_query, 208);

AT(llm_set_mode, size, 0);
AT(llm_set_mode, flags, 4);
AT(llm_set_mode, mode, 8);
SIZE(llm_set_mode, 16);

AT(llm_submit, size, 0);
AT(llm_submit, flags, 4);
AT(llm_submit, request_id, 8);
AT(llm_submit, payload, 16);
AT(llm_submit, payload_len, 24);
AT(llm_submit, deadline_ns, 32);
AT(llm_submit, format, 40);
AT(llm_submit, max_tokens, 44);
AT(llm_submit, priority, 48);
AT(llm_submit, principal_len, 52);
AT(llm_submit, principal, 56);
AT(llm_submit, trace_id, 64);
AT(llm_submit, span_id, 80);
SIZE(llm_submit, 88);

AT(llm_cancel, size, 0);
AT(llm_cancel, flags, 4);
AT(llm_cancel, request_id, 8);
SIZE(llm_cancel, 16);

AT(llm_event, size, 0);
AT(llm_event, flags, 4);
AT(llm_event, type, 8);
AT(llm_event, length, 12);
AT(llm_event, request_id, 16);
AT(llm_event, seq, 24);
SIZE(llm_event, 32);

AT(llm_resume, size, 0);
AT(llm_resume, flags, 4);
AT(llm_resume, fingerprint, 8);
AT(llm_resume, chat_template, 16);
AT(llm_resume, prompt_hash, 24);
AT(llm_resume, seed, 32);
AT(llm_resume, date, 40);
AT(llm_resume, prompt_tokens, 48);
AT(llm_resume, grid, 52);
SIZE(llm_resume, 56);

AT(llm_progress, done, 0);
AT(llm_progress, total, 4);
SIZE(llm_progress, 8);

AT(llm_text, n_ids, 0);
AT(llm_text, n_bytes, 4);
AT(llm_text, subtype, 8);
SIZE(llm_text, 16);

AT(llm_done, finish, 0);
AT(llm_done, n_bytes, 4);
AT(llm_done, prompt_tokens, 8);
AT(llm_done, cached_tokens, 12);
AT(llm_done, completion_tokens, 16);
AT(llm_done, submit_ns, 24);
AT(llm_done, start_ns, 32);
AT(llm_done, first_ns, 40);
AT(llm_done, end_ns, 48);
SIZE(llm_done, 56);

AT(llm_error, error, 0);
AT(llm_error, n_bytes, 4);
SIZE(llm_error, 8);

AT(llm_status, size, 0);
AT(llm_status, session_size, 4);
AT(llm_status, n_sessions, 8);
AT(llm_status, sessions, 12);
AT(llm_status, max_sessions, 16);
AT(llm_status, max_batch, 20);
AT(llm_status, running, 24);
AT(llm_status, parked, 28);
AT(llm_status, waiting, 32);
AT(llm_status, unfinished, 36);
AT(llm_status, max_unfinished, 40);
AT(llm_status, principals, 44);
AT(llm_status, batch_decode, 48);
AT(llm_status, batch_prefill, 52);
AT(llm_status, kv_page_tokens, 56);
AT(llm_status, kv_pages, 60);
AT(llm_status, kv_held, 64);
AT(llm_status, kv_cached, 68);
AT(llm_status, kv_free, 72);
AT(llm_status, context, 76);
AT(llm_status, kv_page_bytes, 80);
AT(llm_status, swap_pages, 88);
AT(llm_status, swap_max_pages, 96);
AT(llm_status, now_ns, 104);
AT(llm_status, start_ns, 112);
AT(llm_status, fingerprint, 120);
AT(llm_status, weight_bytes, 128);
AT(llm_status, submitted, 136);
AT(llm_status, refused, 144);
AT(llm_status, done, 152);
AT(llm_status, cancelled, 160);
AT(llm_status, failed, 168);
AT(llm_status, preempted, 176);
AT(llm_status, prompt_tokens, 184);
AT(llm_status, cached_tokens, 192);
AT(llm_status, computed_tokens, 200);
AT(llm_status, recomputed_tokens, 208);
AT(llm_status, generated_tokens, 216);
AT(llm_status, evicted_tokens, 224);
AT(llm_status, swapped_out, 232);
AT(llm_status, swapped_in, 240);
AT(llm_status, steps, 248);
AT(llm_status, step_ns, 256);
AT(llm_status, forward_ns, 264);
AT(llm_status, sample_ns, 272);
AT(llm_status, swap_ns, 280);
AT(llm_status, device, 288);
AT(llm_status, model, 352);
AT(llm_status, backend, 416);
SIZE(llm_status, 480);

AT(llm_status_session, number, 0);
AT(llm_status_session, opened_ns, 8);
AT(llm_status_session, request_ns, 16);
AT(llm_status_session, uid, 24);
AT(llm_status_session, pid, 28);
AT(llm_status_session, state, 32);
AT(llm_status_session, requests, 36);
AT(llm_status_session, tokens, 40);
AT(llm_status_session, pages, 44);
AT(llm_status_session, generated, 48);
AT(llm_status_session, priority, 52);
AT(llm_status_session, principal, 56);
SIZE(llm_status_session, 120);

AT(llm_device_create, size, 0);
AT(llm_device_create, flags, 4);
AT(llm_device_create, name, 8);
AT(llm_device_create, model, 72);
AT(llm_device_create, fingerprint, 136);
AT(llm_device_create, features, 144);
AT(llm_device_create, context, 152);
AT(llm_device_create, recovery_ms, 156);
AT(llm_device_create, max_request_ms, 160);
AT(llm_device_create, device_id, 164);
AT(llm_device_create, backend_fd, 168);
AT(llm_device_create, generation, 172);
SIZE(llm_device_create, 176);

AT(llm_device_attach, size, 0);
AT(llm_device_attach, flags, 4);
AT(llm_device_attach, name, 8);
AT(llm_device_attach, fingerprint, 72);
AT(llm_device_attach, features, 80);
AT(llm_device_attach, context, 88);
AT(llm_device_attach, device_id, 92);
AT(llm_device_attach, backend_fd, 96);
AT(llm_device_attach, generation, 100);
SIZE(llm_device_attach, 104);

AT(llm_device_name, size, 0);
AT(llm_device_name, flags, 4);
AT(llm_device_name, name, 8);
AT(llm_device_name, deadline_ns, 72);
SIZE(llm_device_name, 80);

AT(llm_msg, size, 0);
AT(llm_msg, flags, 4);
AT(llm_msg, type, 8);
AT(llm_msg, generation, 12);
AT(llm_msg, session_id, 16);
AT(llm_msg, request_id, 24);
SIZE(llm_msg, 32);

AT(llm_msg_session, uid, 0);
AT(llm_msg_session, gid, 4);
AT(llm_msg_session, pid, 8);
AT(llm_msg_session, mode, 12);
AT(llm_msg_session, cgroup, 16);
SIZE(llm_msg_session, 24);

AT(llm_msg_submit, format, 0);
AT(llm_msg_submit, flags, 4);
AT(llm_msg_submit, payload_len, 8);
AT(llm_msg_submit, deadline_ns, 16);
AT(llm_msg_submit, max_tokens, 24);
AT(llm_msg_submit, priority, 28);
AT(llm_msg_submit, trace_id, 32);
AT(llm_msg_submit, span_id, 48);
AT(llm_msg_submit, principal_len, 56);
AT(llm_msg_submit, resume_len, 60);
AT(llm_msg_submit, n_ids, 64);
AT(llm_msg_submit, finish, 68);
AT(llm_msg_submit, posted_bytes, 72);
AT(llm_msg_submit, seq, 80);
SIZE(llm_msg_submit, 88);

AT(llm_msg_cancel, reason, 0);
SIZE(llm_msg_cancel, 8);

AT(llm_msg_quiesce, deadline_ns, 0);
SIZE(llm_msg_quiesce, 8);

AT(llm_post, size, 0);
AT(llm_post, flags, 4);
AT(llm_post, generation, 8);
AT(llm_post, count, 12);
AT(llm_post, events, 16);
AT(llm_post, events_len, 24);
AT(llm_post, results, 32);
SIZE(llm_post, 40);

AT(llm_region_create, size, 0);
AT(llm_region_create, flags, 4);
AT(llm_region_create, bytes, 8);
AT(llm_region_create, huge_bytes, 16);
AT(llm_region_create, node, 24);
AT(llm_region_create, fd, 28);
AT(llm_region_create, name, 32);
SIZE(llm_region_create, 160);

AT(llm_region_open, size, 0);
AT(llm_region_open, flags, 4);
AT(llm_region_open, fd, 8);
AT(llm_region_open, __reserved, 12);
AT(llm_region_open, name, 16);
SIZE(llm_region_open, 144);

AT(llm_region_info, size, 0);
AT(llm_region_info, flags, 4);
AT(llm_region_info, id, 8);
AT(llm_region_info, bytes, 16);
AT(llm_region_info, resident, 24);
AT(llm_region_info, huge_bytes, 32);
AT(llm_region_info, pinned_bytes, 40);
AT(llm_region_info, created_ns, 48);
AT(llm_region_info, node, 56);
AT(llm_region_info, uid, 60);
AT(llm_region_info, pid, 64);
AT(llm_region_info, mappings, 68);
AT(llm_region_info, files, 72);
AT(llm_region_info, __reserved, 76);
AT(llm_region_info, name, 80);
SIZE(llm_region_info, 208);

AT(llm_region_list, size, 0);
AT(llm_region_list, flags, 4);
AT(llm_region_list, after, 8);
AT(llm_region_list, regions, 16);
AT(llm_region_list, count, 24);
AT(llm_region_list, info_size, 28);
SIZE(llm_region_list, 32);

AT(llm_region_name, size, 0);
AT(llm_region_name, flags, 4);
AT(llm_region_name, name, 8);
SIZE(llm_region_name, 136);

AT(llm_region_seal, size, 0);
AT(llm_region_seal, flags, 4);
SIZE(llm_region_seal, 8);

AT(llm_mem_status, size, 0);
AT(llm_mem_status, flags, 4);
AT(llm_mem_status, total, 8);
AT(llm_mem_status, free, 16);
AT(llm_mem_status, available, 24);
AT(llm_mem_status, free_blocks, 32);
AT(llm_mem_status, floor_free, 40);
AT(llm_mem_status, floor_blocks, 48);
AT(llm_mem_status, reserve_target, 56);
AT(llm_mem_status, reserve_held, 64);
AT(llm_mem_status, released_shrinker, 72);
AT(llm_mem_status, released_oom, 80);
AT(llm_mem_status, released_asked, 88);
AT(llm_mem_status, room_calls, 96);
AT(llm_mem_status, room_bytes, 104);
AT(llm_mem_status, drop_calls, 112);
AT(llm_mem_status, drop_bytes, 120);
AT(llm_mem_status, events, 128);
AT(llm_mem_status, pressure, 136);
AT(llm_mem_status, __reserved, 140);
SIZE(llm_mem_status, 144);

AT(llm_mem_floors, size, 0);
AT(llm_mem_floors, flags, 4);
AT(llm_mem_floors, free, 8);
AT(llm_mem_floors, blocks, 16);
SIZE(llm_mem_floors, 24);

AT(llm_mem_reserve, size, 0);
AT(llm_mem_reserve, flags, 4);
AT(llm_mem_reserve, bytes, 8);
AT(llm_mem_reserve, held, 16);
SIZE(llm_mem_reserve, 24);

AT(llm_mem_make_room, size, 0);
AT(llm_mem_make_room, flags, 4);
AT(llm_mem_make_room, free, 8);
AT(llm_mem_make_room, blocks, 16);
AT(llm_mem_make_room, max_bytes, 24);
AT(llm_mem_make_room, deadline_ns, 32);
AT(llm_mem_make_room, free_before, 40);
AT(llm_mem_make_room, free_after, 48);
AT(llm_mem_make_room, blocks_before, 56);
AT(llm_mem_make_room, blocks_after, 64);
SIZE(llm_mem_make_room, 72);

AT(llm_cache_drop, size, 0);
AT(llm_cache_drop, flags, 4);
AT(llm_cache_drop, fd, 8);
AT(llm_cache_drop, __reserved, 12);
AT(llm_cache_drop, max_bytes, 16);
AT(llm_cache_drop, deadline_ns, 24);
AT(llm_cache_drop, inodes, 32);
AT(llm_cache_drop, bytes, 40);
AT(llm_cache_drop, free_before, 48);
AT(llm_cache_drop, free_after, 56);
SIZE(llm_cache_drop, 64);

#undef AT
#undef SIZE

#endif
