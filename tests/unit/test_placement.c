// SPDX-License-Identifier: MIT
/* Memory for weights: aligned, zeroed, and refused with figures when it cannot be there. */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "tests/tap.h"
#include "weights/placement.h"

static void gives(size_t bytes, int node)
{
	struct placement p;
	struct err e = {""};
	const char *c;
	size_t bad = 0;

	REQUIRE(placement_alloc(&p, bytes, node, &e) == 0, "%zu bytes on node %d (%s)", bytes, node,
		e.msg);
	CHECK(((uintptr_t)p.base & ((2 << 20) - 1)) == 0 && p.bytes == bytes, "aligned to 2 MiB");
	c = p.base;
	for (size_t i = 0; i < bytes; i++)
		bad += c[i] != 0;
	memset(p.base, 0xff, bytes);
	CHECK(!bad, "zeroed and writable");
	placement_free(&p);
	CHECK(!p.base && !p.bytes, "freed");
	placement_free(&p);
}

int main(void)
{
	struct placement p;
	struct err e;

	gives(1, -1);
	gives(5 << 20, -1);
	gives((2 << 20) + 1, 0);
	CHECK(placement_alloc(&p, (size_t)1 << 50, -1, &e) == -ENOMEM &&
		      strstr(e.msg, "1048576.00 GiB needed") && strstr(e.msg, "MemAvailable") &&
		      strstr(e.msg, "missing"),
	      "a petabyte is refused with the sum (%s)", e.msg);
	CHECK(placement_alloc(&p, SIZE_MAX - 100, -1, &e) < 0, "no wrap-around (%s)", e.msg);
	CHECK(placement_alloc(&p, 0, -1, &e) == -EINVAL, "nothing is no size (%s)", e.msg);
	CHECK(placement_alloc(&p, 4096, 4000, &e) == -EINVAL && strstr(e.msg, "node 4000"),
	      "no such node (%s)", e.msg);
	return tap_done();
}
