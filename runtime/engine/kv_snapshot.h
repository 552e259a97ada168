/* SPDX-License-Identifier: MIT */
/*
 * Places for snapshots of recurrent state, for kv.c: see kv.h for what they are. An index into
 * kv->page owns a place; page->snapshot and snapshots.owner[] always point at each other.
 */
#ifndef LLMDEV_ENGINE_KV_SNAPSHOT_H
#define LLMDEV_ENGINE_KV_SNAPSHOT_H

#include "engine/kv.h"

int kv_snapshots_init(struct kv_cache *kv, int n, struct err *e);
void kv_snapshots_free(struct kv_cache *kv);
/* It was used now. */
void kv_snapshot_touch(struct kv_cache *kv, int32_t page);
/* Both do nothing if there is none. `to` has none. */
void kv_snapshot_drop(struct kv_cache *kv, int32_t page);
void kv_snapshot_move(struct kv_cache *kv, int32_t to, int32_t from);
int kv_snapshots_count(const struct kv_cache *kv);

#endif
