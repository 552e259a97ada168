// SPDX-License-Identifier: MIT
// disk: 32
/*
 * Every allocation and every copy that the memory commands make fails once: the command is refused with
 * ENOMEM or EFAULT or does without, and works when it is made again. The reserve is as large as was asked
 * for, no block is lost.
 */
#include "tests/vm/failnth.h"
#include "tests/vm/memory.h"

#include <sys/mount.h>

#define DISK "/tmp/disk"

static uint64_t misc; /* blocks are counted here, in pages */
static uint64_t total; /* of memory */

static int asks(void)
{
	struct llm_mem_status s = {.size = sizeof(s)};

	return ioctl(ctl, LLM_IOC_MEM_STATUS, &s);
}

static int holds(uint64_t bytes)
{
	return reserve(bytes) < 0 ? -1 : 0;
}

/* What the module says, and what the kernel counts. */
static bool holds_exactly(uint64_t bytes)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	uint64_t held = status().reserve_held,
		 counted = vmstat("nr_kernel_misc_reclaimable") - misc;

	if (held != bytes || counted * page != bytes)
		printf("# %u MB held, %" PRIu64 " pages counted, instead of %u MB\n", mb(held),
		       counted, mb(bytes));
	return held == bytes && counted * page == bytes;
}

/* Opens the control file for what follows, as status() and the like use it. */
static bool begin(struct sweep *s)
{
	ctl = (int)STEP(s, "open", control());
	return ctl >= 0;
}

static bool end(struct sweep *s, bool ok)
{
	int error = errno;

	ok = holds(0) == 0 && ok;
	ok = !STEP(s, "close", close(ctl)) && ok;
	errno = error;
	return ok;
}

static bool reserving(struct sweep *s)
{
	struct pollfd p = {.events = POLLPRI};
	bool ok = begin(s) && !STEP(s, "MEM_STATUS", asks()) &&
		  !STEP(s, "MEM_RESERVE", holds(6 * BLOCK)) && holds_exactly(6 * BLOCK) &&
		  !STEP(s, "MEM_RESERVE of more", holds(8 * BLOCK)) && holds_exactly(8 * BLOCK) &&
		  !STEP(s, "MEM_RESERVE of less", holds(2 * BLOCK));

	p.fd = ctl;
	ok = ok && STEP(s, "poll", poll(&p, 1, 0)) == 1 && !STEP(s, "MEM_STATUS", asks()) &&
	     holds_exactly(2 * BLOCK) && !STEP(s, "MEM_RESERVE of nothing", holds(0)) &&
	     holds_exactly(0);
	return end(s, ok);
}

static bool floors(struct sweep *s)
{
	bool ok = begin(s) && !STEP(s, "MEM_FLOORS", set_floors(ctl, total, 1)) &&
		  status().pressure & LLM_PRESSURE_FREE &&
		  !STEP(s, "MEM_FLOORS, none", set_floors(ctl, 0, 0)) && !status().pressure;

	return end(s, ok);
}

/* So much cannot be had: as much is allocated as may be, and the reserve is given back. */
static int makes_room(void)
{
	struct llm_mem_make_room r = {.free = total, .max_bytes = 4 * BLOCK};

	return make_room(&r);
}

static bool room(struct sweep *s)
{
	bool ok = begin(s) && !holds(2 * BLOCK) && !STEP(s, "MEM_MAKE_ROOM", makes_room()) &&
		  holds_exactly(0);

	return end(s, ok);
}

static int drops(int fd, uint32_t flags)
{
	struct llm_cache_drop d = {0};

	return drop(&d, fd, flags);
}

static bool cache(struct sweep *s)
{
	int fd = open(DISK "/file", O_RDONLY | O_CLOEXEC);
	bool ok = fd >= 0 && begin(s);
	char buf[4096];

	if (!ok)
		return false;
	ok = pread(fd, buf, sizeof(buf), 0) == sizeof(buf) &&
	     !STEP(s, "CACHE_DROP of a file", drops(fd, LLM_DROP_FILE)) &&
	     pread(fd, buf, sizeof(buf), 0) == sizeof(buf) &&
	     !STEP(s, "CACHE_DROP of a filesystem", drops(fd, 0)) &&
	     pread(fd, buf, sizeof(buf), 0) == sizeof(buf);
	close(fd);
	return end(s, ok);
}

/* A file with a page in it. */
static bool make_disk(void)
{
	char page[4096] = "a page";
	int fd;
	bool ok;

	mkdir(DISK, 0755);
	if (mount("/dev/vda", DISK, "ext4", 0, NULL))
		return false;
	fd = open(DISK "/file", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	ok = write(fd, page, sizeof(page)) == sizeof(page) && !fsync(fd);
	close(fd);
	return ok;
}

int main(void)
{
	uint64_t before;

	if (!faults_on()) {
		printf("ok 1 - # SKIP this kernel has no fault injection\n1..1\n");
		return 0;
	}
	misc = vmstat("nr_kernel_misc_reclaimable");
	ctl = control();
	before = status().free;
	total = status().total;
	close(ctl);
	sweep("reserve", reserving);
	sweep("floors", floors);
	sweep("room", room);
	if (check(make_disk(), "a disk")) {
		sweep("cache", cache);
		works(umount(DISK), "nothing holds the disk");
	}
	ctl = control();
	/* A block of 2 MiB lost in each sweep would be several of these; slabs and KASAN keep some. */
	check(status().free + 32 * MB > before && holds_exactly(0), "all memory is back: %u, %u MB",
	      mb(before), mb(status().free));
	close(ctl);
	return done();
}
