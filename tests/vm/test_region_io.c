// SPDX-License-Identifier: MIT
// disk: 64
/*
 * Regions as buffers: O_DIRECT and io_uring's fixed buffers give the same bytes as into anonymous
 * memory (how fast: tests/bench/vm_region.c); what is pinned is told, and is not sealed. Without a disk
 * only the second.
 */
#include <sys/mount.h>

#include "tests/vm/region.h"
#include "tests/vm/ring.h"

#define BYTES	     (8 * MIB)
#define FILE_ON_DISK "/tmp/disk/file"

/* ---- reading ------------------------------------------------------------------------------------------------- */

static void reading(struct ring *r)
{
	unsigned char *anon = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				   -1, 0),
		      *p;
	int fd, region = region_create("io", BYTES, 0);

	mkdir("/tmp/disk", 0755);
	if (mount("/dev/vda", "/tmp/disk", "ext4", 0, NULL)) {
		printf("ok - # SKIP no disk: %s\n", strerror(errno));
		close(region);
		return;
	}
	region_pattern(anon, BYTES, 7);
	fd = open(FILE_ON_DISK, O_CREAT | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);
	check(fd >= 0 && pwrite(fd, anon, BYTES, 0) == (ssize_t)BYTES && !fsync(fd), "a file");
	p = region_map(region, BYTES, PROT_READ | PROT_WRITE);
	check(read_direct(fd, p, BYTES) && region_has_pattern(p, BYTES, 7),
	      "O_DIRECT into a region: same bytes");
	memset(p, 0, BYTES);
	check(!ring_register(r, p, BYTES), "a region as fixed buffer");
	check(ring_read(r, fd, p, BYTES) && region_has_pattern(p, BYTES, 7),
	      "READ_FIXED: same bytes");
	ring_unregister(r);
	/* It goes out as well. */
	region_pattern(p, BYTES, 8);
	check(pwrite(fd, p, BYTES, 0) == (ssize_t)BYTES && read_direct(fd, anon, BYTES) &&
		      region_has_pattern(anon, BYTES, 8),
	      "written from a region by O_DIRECT: same bytes");
	munmap(p, BYTES);
	close(fd);
	close(region);
	umount("/tmp/disk");
}

/* ---- pins ------------------------------------------------------------------------------------------------------ */

static void pins(struct ring *r, uint64_t bytes, uint32_t flags, const char *what)
{
	int fd = region_create("pins", bytes, flags), other, pipes[2];
	unsigned char *p = region_map(fd, bytes, PROT_READ | PROT_WRITE);
	struct iovec v = {p, 8192};
	struct llm_region_info i;
	char buf[8192];
	int64_t before;

	check(region_info(fd).pinned_bytes == 0, "%s: nothing is pinned", what);
	check(!ring_register(r, p, bytes), "%s: registered", what);
	i = region_info(fd);
	check(i.pinned_bytes == bytes, "%s: INFO tells what is pinned (%llu)", what,
	      (unsigned long long)i.pinned_bytes);
	munmap(p, bytes);
	refused(region_seal(fd), EBUSY, "%s: SEAL while it is pinned: EBUSY", what);
	check(!ring_unregister(r), "%s: not registered any more", what);
	p = region_map(fd, bytes, PROT_READ | PROT_WRITE);
	/* A reference that is no pin, as direct reads take it on older kernels. */
	check(!pipe(pipes) && vmsplice(pipes[1], &v, 1, 0) == 8192, "%s: pages in a pipe", what);
	munmap(p, bytes);
	refused(region_seal(fd), EBUSY, "%s: SEAL while somebody holds a page: EBUSY", what);
	check(read(pipes[0], buf, sizeof(buf)) == 8192, "%s: the pipe is read", what);
	works(region_seal(fd), "%s: SEAL", what);
	close(pipes[0]);
	close(pipes[1]);
	p = region_map(fd, bytes, PROT_READ);
	check(ring_register(r, p, bytes) && errno == EFAULT,
	      "%s: sealed, it is no fixed buffer: EFAULT", what);
	munmap(p, bytes);
	other = region_open("pins", LLM_REGION_OPEN_REGISTER);
	p = region_map(other, bytes, PROT_READ | PROT_WRITE);
	check(!ring_register(r, p, bytes), "%s: opened to register it is", what);
	/* Memory with a pin outlives its region. */
	before = meminfo("MemFree:");
	munmap(p, bytes);
	close(other);
	close(fd);
	check(region_list("", NULL) == 0, "%s: the region goes while it is pinned", what);
	check(!ring_unregister(r), "%s: its memory with the pin", what);
	check(memory_is_back(before + (int64_t)bytes), "%s: all memory is back", what);
}

int main(void)
{
	static const char deny[] = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
	struct ring r;

	if (ring_open(&r)) {
		printf("ok - # SKIP no io_uring: %s\n1..1\n", strerror(errno));
		return 0;
	}
	reading(&r);
	pins(&r, BYTES, LLM_REGION_HUGE, "huge pages");
	write_file(deny, "deny");
	pins(&r, BYTES, 0, "small pages");
	write_file(deny, "never");
	close(r.fd);
	return done();
}
