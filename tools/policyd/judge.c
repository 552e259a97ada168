// SPDX-License-Identifier: MIT
/* When to make room; see judge.h. */
#include "judge.h"

bool judge_look(struct judge *j, const struct config *c, uint64_t held, const struct mem_now *now,
		uint64_t now_ns, struct room_goal *goal)
{
	struct room_goal floor = {.free = c->free, .blocks = c->blocks};
	uint64_t margin = room_margin(held);
	bool below;

	if (floor.free < held + margin / 2)
		floor.free = held + margin / 2;
	/* Holders can want more than the machine has. */
	if (floor.free > now->total)
		floor.free = now->total;
	below = !room_reached(&floor, now);
	if (below && !j->below)
		j->below_count++;
	if (!below)
		j->futile = 0;
	j->below = below;
	if (!below || c->mode == MODE_OFF)
		return false;
	if (now_ns < j->next_ns) {
		j->put_off++;
		return false;
	}
	goal->free = floor.free + (uint64_t)((double)c->free * c->hysteresis) + margin / 2;
	goal->blocks = floor.blocks + (uint64_t)((double)c->blocks * c->hysteresis);
	return true;
}

void judge_acted(struct judge *j, const struct config *c, const struct room_goal *goal,
		 uint64_t missing, const struct mem_now *after, uint64_t now_ns)
{
	uint64_t left = room_missing(goal, after), pause = (uint64_t)(c->pause * 1e9);

	if (left && missing - (left < missing ? left : missing) < missing / 8) {
		if (j->futile < 16)
			j->futile++;
		if (pause < 1000000000)
			pause = 1000000000;
		pause <<= j->futile;
		if (pause > JUDGE_PAUSE_MAX_NS)
			pause = JUDGE_PAUSE_MAX_NS;
	} else {
		j->futile = 0;
	}
	j->next_ns = now_ns + pause;
}
