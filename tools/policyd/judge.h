/* SPDX-License-Identifier: MIT */
/*
 * When to make room, and for how much: floors with hysteresis, not too often, and less often where
 * it does not help. Pure: no clock and no files of its own.
 */
#ifndef LLMDEV_POLICYD_JUDGE_H
#define LLMDEV_POLICYD_JUDGE_H

#include <stdbool.h>
#include <stdint.h>

#include "config.h"
#include "memory/reclaim.h"

#define JUDGE_PAUSE_MAX_NS UINT64_C(60000000000)

struct judge {
	bool below;	     /* a floor is not held now */
	uint64_t below_count; /* times that it came to that */
	uint64_t next_ns;    /* no action before */
	unsigned int futile; /* actions in a row that hardly helped */
	uint64_t put_off;    /* looks at which nothing was done though below, because of next_ns */
};

/*
 * `held`: bytes that are promised to holders on top of what the configuration wants free. True:
 * make room now, until *goal.
 */
bool judge_look(struct judge *j, const struct config *c, uint64_t held, const struct mem_now *now,
		uint64_t now_ns, struct room_goal *goal);
/* An action for `goal` ended with `after`, `missing` bytes before. */
void judge_acted(struct judge *j, const struct config *c, const struct room_goal *goal,
		 uint64_t missing, const struct mem_now *after, uint64_t now_ns);

#endif
