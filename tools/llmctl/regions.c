// SPDX-License-Identifier: MIT
/* The regions of the kernel module and of this user's keeper, together (regions.h). */
#include "regions.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ctl.h"
#include "facts.h"

void regions_open(struct regions *r)
{
	*r = (struct regions){0};
	for (int i = 0; i < REGION_PLACES; i++) {
		struct region_fact *v, *all;
		size_t n;
		int rc = region_store_open(&r->store[i], i, false, &r->why[i]);

		/* No module, an older one, no keeper: nothing is there, and nothing is wrong. */
		if (rc == -ENOENT || rc == -ENOTTY)
			r->why[i].msg[0] = '\0';
		if (rc)
			continue;
		r->why[i].msg[0] = '\0';
		if (region_list(&r->store[i], &v, &n, &r->why[i]))
			continue;
		all = realloc(r->v, (r->n + n + 1) * sizeof(*all));
		if (all) {
			if (n)
				memcpy(all + r->n, v, n * sizeof(*v));
			r->v = all;
			r->n += n;
		} else {
			err_set(&r->why[i], -ENOMEM, "regions: no memory to list them");
		}
		free(v);
	}
}

void regions_close(struct regions *r)
{
	for (int i = 0; i < REGION_PLACES; i++)
		region_store_close(&r->store[i]);
	free(r->v);
}

int regions_complain(const struct regions *r)
{
	int rc = 0;

	for (int i = 0; i < REGION_PLACES; i++)
		if (r->why[i].msg[0])
			rc = ctl_fail("%s", r->why[i].msg);
	return rc;
}

const char *regions_age(char buf[REGIONS_AGE], const struct region_fact *f)
{
	struct timespec t;
	uint64_t now, s;

	clock_gettime(CLOCK_MONOTONIC, &t);
	now = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
	s = now > f->created_ns ? (now - f->created_ns) / 1000000000u : 0;
	if (s < 120)
		snprintf(buf, REGIONS_AGE, "%d s", (int)s);
	else if (s < 7200)
		snprintf(buf, REGIONS_AGE, "%d min", (int)(s / 60));
	else if (s < 48 * 3600)
		snprintf(buf, REGIONS_AGE, "%d h", (int)(s / 3600));
	else
		snprintf(buf, REGIONS_AGE, "%lld d", (long long)(s / 86400));
	return buf;
}

const char *regions_state(const struct region_fact *f)
{
	return f->sealed ? "sealed" : f->busy ? "being filled" : "half written";
}

const char *regions_size(char buf[REGIONS_SIZE], uint64_t n)
{
	_Static_assert(REGIONS_SIZE >= FACTS_SIZE, "facts_bytes() needs the room");
	if (n)
		return facts_bytes(buf, n);
	snprintf(buf, REGIONS_SIZE, "0 B");
	return buf;
}

json_t *regions_json(const struct region_fact *f)
{
	struct timespec t;
	double age;

	clock_gettime(CLOCK_MONOTONIC, &t);
	age = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec - 1e-9 * (double)f->created_ns;
	return json_pack("{ss ss sI sI sI sI sf sI si sI si ss sb}", "name", f->name, "place",
			 region_place_name(f->place), "bytes", (json_int_t)f->bytes, "resident",
			 (json_int_t)f->resident, "huge_bytes", (json_int_t)f->huge_bytes,
			 "pinned_bytes", (json_int_t)f->pinned_bytes, "age_s", age > 0 ? age : 0.0,
			 "uid", (json_int_t)f->uid, "pid", (int)f->pid, "users",
			 (json_int_t)f->users, "node", f->node, "state", regions_state(f),
			 "persistent", f->persistent);
}
