// SPDX-License-Identifier: MIT
// disk: 32
// sources: runtime/memory/cache.c runtime/base/err.c
/*
 * Files of an overlay, as containers have them: their page cache is the layers'. Of a file it is seen and
 * dropped, by the module and by llmctl's means; an overlay as a filesystem has none.
 */
#include "tests/vm/memory.h"

#include "memory/cache.h"

#include <sys/mount.h>

#define DISK "/tmp/disk"
#define OVER "/tmp/over"
#define SIZE (8 * MB)
/* A few pages may be on their way to the LRU lists, where nothing is dropped. */
#define GONE (SIZE / 32)

static void make(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

	check(fd >= 0 && !ftruncate(fd, SIZE), "%s", path);
	close(fd);
}

static uint64_t cached(int fd)
{
	struct cache_status s;
	struct err e;

	check(!cache_status(fd, "the file", &s, &e), "its cache is seen");
	return s.cached;
}

/* `name` is on the overlay, `below` the file that holds the data. */
static void test_file(const char *name, const char *below)
{
	int fd = open(name, O_RDONLY | O_CLOEXEC), real = open(below, O_RDONLY | O_CLOEXEC);
	struct llm_cache_drop d = {0};
	struct err e;

	read_all(fd);
	check(cached(fd) == SIZE && cached(real) == SIZE, "%s is cached", name);
	works(drop(&d, fd, LLM_DROP_FILE), "%s: dropped by the module", name);
	check(cached(real) <= GONE && d.bytes >= SIZE - GONE, "which says how much: %u MB",
	      mb(d.bytes));
	read_all(fd);
	check(!cache_drop(fd, name, false, NULL, NULL, &e) && cached(real) <= GONE,
	      "by posix_fadvise: the same");
	close(fd);
	close(real);
}

static void test_copied_up(void)
{
	int before = open(OVER "/lower", O_RDONLY | O_CLOEXEC);
	int fd = open(OVER "/lower", O_RDWR | O_CLOEXEC);
	struct llm_cache_drop d = {0};

	check(pwrite(fd, "up", 2, 0) == 2 && !fsync(fd), "a file is copied up");
	close(fd);
	test_file(OVER "/lower", DISK "/up/lower");
	read_all(before);
	works(drop(&d, before, LLM_DROP_FILE), "by a descriptor from before");
	check(d.bytes >= SIZE - GONE, "what it reads is dropped: %u MB", mb(d.bytes));
	close(before);
}

static void test_refused(void)
{
	int file = open(OVER "/upper", O_RDONLY | O_CLOEXEC),
	    root = open(OVER, O_RDONLY | O_CLOEXEC);
	struct llm_cache_drop d = {0};

	refused(drop(&d, file, 0), EOPNOTSUPP, "an overlay as a filesystem");
	refused(drop(&d, root, 0), EOPNOTSUPP, "by its folder");
	refused(drop(&d, root, LLM_DROP_FILE), EOPNOTSUPP, "a folder as a file");
	close(file);
	close(root);
}

/* The data is in memory only. */
static void test_of_memory(void)
{
	struct llm_cache_drop d = {0};
	int fd;

	mkdir("/tmp/low", 0755);
	make("/tmp/low/file");
	works(mount("overlay", OVER, "overlay", 0, "lowerdir=/tmp/low:" DISK "/low"),
	      "an overlay of a filesystem in memory");
	fd = open(OVER "/file", O_RDONLY | O_CLOEXEC);
	refused(drop(&d, fd, LLM_DROP_FILE), EOPNOTSUPP, "a file of it has nothing to be dropped");
	close(fd);
	works(umount(OVER), "unmounted");
}

int main(void)
{
	ctl = control();
	mkdir(DISK, 0755);
	mkdir(OVER, 0755);
	works(mount("/dev/vda", DISK, "ext4", 0, NULL), "the scratch disk");
	mkdir(DISK "/low", 0755);
	mkdir(DISK "/up", 0755);
	mkdir(DISK "/work", 0755);
	make(DISK "/low/lower");
	make(DISK "/up/upper");
	if (mount("overlay", OVER, "overlay", 0,
		  "lowerdir=" DISK "/low,upperdir=" DISK "/up,workdir=" DISK "/work")) {
		check(true, "overlay # SKIP this kernel has no overlayfs: %s", strerror(errno));
		umount(DISK);
		return done();
	}
	test_file(OVER "/lower", DISK "/low/lower");
	test_file(OVER "/upper", DISK "/up/upper");
	test_copied_up();
	test_refused();
	works(umount(OVER), "nothing holds the overlay");
	test_of_memory();
	works(umount(DISK), "nor the disk");
	return done();
}
