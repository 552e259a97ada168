// SPDX-License-Identifier: MIT
// disk: 32
/*
 * Floors and events, who may do what, page cache: what is dropped, what stays, and the tracepoints of it
 * all. The files are sparse: the disk is small, their cache is not.
 *
 * COLD_MB in the environment: size of the cold file (default an eighth of memory), hot is a quarter.
 */
#include "tests/vm/memory.h"

#include <grp.h>
#include <sys/mount.h>
#include <sys/syscall.h>

#define DISK	"/tmp/disk"
#define TRACING "/sys/kernel/tracing/"
#define ADMIN	"/sys/module/llm/parameters/admin_gid"

/* ---- floors ---------------------------------------------------------------------------------------------- */

static void test_floors(void)
{
	struct llm_mem_floors f = {.size = sizeof(f), .flags = 1};
	int other = control(), ready = -1;
	struct llm_mem_status a, b;
	pid_t pid;

	a = status();
	check(!told(ctl, 0) && !told(other, 0), "no floors, no events");
	works(set_floors(ctl, a.free / 2, 1), "floors that hold");
	b = status_of(other);
	check(b.floor_free == a.free / 2 && b.floor_blocks == 1 && !b.pressure,
	      "everybody sees them");
	check(!told(ctl, 0), "no event");
	refused(set_floors(other, MB, 0), EBUSY, "another file's floors meanwhile");
	refused(set_floors(other, 0, 0), EBUSY, "not even none");

	works(set_floors(ctl, a.total, 1), "a floor that cannot hold");
	check(told(ctl, 0) && told(other, 0), "an event for both");
	b = status();
	check(b.pressure == LLM_PRESSURE_FREE && b.events == a.events + 1 && !told(ctl, 0),
	      "told once, and which");
	check(told(other, 0) && status_of(other).pressure == LLM_PRESSURE_FREE, "to each");
	usleep(2500000);
	check(!told(ctl, 0) && status().pressure == LLM_PRESSURE_FREE, "staying below is no event");
	works(set_floors(ctl, a.free / 2, a.total / BLOCK), "a floor of blocks that cannot hold");
	check(told(ctl, 0) && status().pressure == LLM_PRESSURE_BLOCKS, "is another event");

	works(set_floors(ctl, 0, 0), "no floors");
	check(!status().pressure, "nothing is missed");
	works(set_floors(other, MB, 0), "now the other's");
	refused(set_floors(ctl, MB, 0), EBUSY, "not mine");
	close(other);
	works(set_floors(ctl, status().free - 40 * MB, 0), "its last close ends them");
	status();
	pid = hog(80 * MB, &ready);
	check(told(ctl, 20000), "memory goes below while nobody asks: told");
	check(hog_done(pid, ready), "it goes again");
	for (int i = 0; i < 400 && status().pressure; i++)
		usleep(50000);
	check(!status().pressure, "then nothing is missed");

	refused(ioctl(ctl, LLM_IOC_MEM_FLOORS, &f), EOPNOTSUPP, "an unknown flag");
	refused(set_floors(ctl, a.total + 1, 0), EINVAL, "more than there is");
	refused(set_floors(ctl, 0, a.total / BLOCK + 1), EINVAL, "more blocks than there are");
	check(status().floor_free, "which leaves the floor that stands");
	works(set_floors(ctl, 0, 0), "no floors again");
}

/* ---- who may ---------------------------------------------------------------------------------------------- */

/* What errno the commands give to somebody without rights; 0: they work. */
static int as_nobody(const char *group)
{
	int state;
	pid_t pid;

	write_to(ADMIN, group);
	chmod(CONTROL, 0666);
	pid = fork();
	if (!pid) {
		struct llm_mem_make_room r = {0};
		struct llm_cache_drop d = {0};
		struct llm_query q = {.size = sizeof(q)};
		int errors[4] = {0};

		if (setgroups(0, NULL) || setgid(1234) || setuid(1234))
			_exit(100);
		ctl = control();
		if (status().total == 0 || ioctl(ctl, LLM_IOC_QUERY, &q) ||
		    !(q.features & LLM_FEATURE_RECLAIM))
			_exit(101);
		errors[0] = set_floors(ctl, 0, 0) ? errno : 0;
		errors[1] = reserve(0) < 0 ? errno : 0;
		errors[2] = make_room(&r) ? errno : 0;
		errors[3] = drop(&d, -1, 0) && errno != EBADF ? errno : 0;
		for (int i = 1; i < 4; i++)
			if (errors[i] != errors[0])
				_exit(102);
		_exit(errors[0]);
	}
	waitpid(pid, &state, 0);
	chmod(CONTROL, 0660);
	write_to(ADMIN, "-1");
	return WIFEXITED(state) ? WEXITSTATUS(state) : 200;
}

static void test_rights(void)
{
	check(as_nobody("-1") == EPERM, "without rights: the status, and EPERM for all else");
	check(as_nobody("1235") == EPERM, "in another group: the same");
	check(as_nobody("1234") == 0, "in the group of admin_gid: everything");
}

/* ---- page cache -------------------------------------------------------------------------------------------- */

static int make_file(const char *path, uint64_t bytes)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (ftruncate(fd, (off_t)bytes))
		check(false, "%s", path);
	return fd;
}

/* Per cent of its pages that are cached. */
static unsigned int cached(int fd)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), n, in = 0;
	unsigned char *there;
	struct stat st;
	void *m;

	if (fstat(fd, &st))
		return 0;
	n = (size_t)st.st_size / page;
	m = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	there = malloc(n);
	if (mincore(m, (size_t)st.st_size, there))
		check(false, "mincore");
	for (size_t i = 0; i < n; i++)
		in += there[i] & 1;
	free(there);
	munmap(m, (size_t)st.st_size);
	return (unsigned int)((in * 100 + n - 1) / n);
}

/* A few pages may be on their way to the LRU lists, where nothing is dropped. */
#define GONE 3

static void test_file(uint64_t total)
{
	const char *given = getenv("COLD_MB");
	uint64_t size = given ? (uint64_t)atoi(given) * MB : total / 8 / MB * MB;
	int cold = make_file(DISK "/cold", size), hot = make_file(DISK "/hot", size / 4);
	struct llm_cache_drop d = {0};
	struct llm_mem_status a, b;

	read_all(hot);
	read_all(hot);
	read_all(cold);
	check(cached(cold) == 100 && cached(hot) == 100, "%u MB cold, %u MB hot, all cached",
	      mb(size), mb(size / 4));
	a = status();
	works(set_floors(ctl, a.free + size / 10 * 8, 0),
	      "a floor that only the cold file can give");
	check(told(ctl, 0) && status().pressure == LLM_PRESSURE_FREE, "is missed");
	works(drop(&d, cold, LLM_DROP_FILE), "the cold file's cache is dropped");
	/* Newer kernels keep many freed pages with the processors, and let go of them by and by. */
	b = status();
	for (int i = 0; i < 400 && (b.pressure || b.available + 8 * MB <= a.available); i++) {
		usleep(50000);
		b = status();
	}
	check(cached(cold) <= GONE && cached(hot) == 100,
	      "it is gone, all of the hot one is there");
	check(d.inodes == 1 && d.bytes > size / 100 * 97 && d.bytes <= size,
	      "%u MB are said to be dropped", mb(d.bytes));
	check(b.free >= b.floor_free && !b.pressure, "MemFree is over the floor: %u -> %u MB",
	      mb(d.free_before), mb(d.free_after));
	check(b.available + 8 * MB > a.available, "MemAvailable has not fallen: %u -> %u MB",
	      mb(a.available), mb(b.available));
	check(b.drop_calls == a.drop_calls + 1 && b.drop_bytes - a.drop_bytes == d.bytes,
	      "counted");
	set_floors(ctl, 0, 0);

	read_all(cold);
	d = (struct llm_cache_drop){.max_bytes = 10 * MB};
	works(drop(&d, cold, LLM_DROP_FILE), "ten megabytes of it");
	check(d.bytes >= 10 * MB && d.bytes <= 12 * MB, "are dropped: %u", mb(d.bytes));
	d = (struct llm_cache_drop){.deadline_ns = 1};
	works(drop(&d, cold, LLM_DROP_FILE), "no time left");
	check(!d.bytes, "nothing is dropped");
	close(cold);
	close(hot);
}

static void test_mapped(void)
{
	int mapped = make_file(DISK "/mapped", 16 * MB), idle = make_file(DISK "/idle", 16 * MB);
	int dirty = make_file(DISK "/dirty", 0), root = open(DISK, O_RDONLY | O_CLOEXEC), i;
	struct llm_cache_drop d = {0};
	static char buf[4 * MB];
	volatile char *m;

	write_to("/proc/sys/vm/dirty_writeback_centisecs", "0");
	m = mmap(NULL, 16 * MB, PROT_READ, MAP_SHARED, mapped, 0);
	for (i = 0; i < (int)(16 * MB); i += 4096)
		(void)m[i];
	read_all(idle);
	memset(buf, 'd', sizeof(buf));
	check(write(dirty, buf, sizeof(buf)) == sizeof(buf),
	      "a dirty file, a mapped and an idle one");
	works(drop(&d, root, 0), "the filesystem's cache is dropped");
	check(cached(mapped) == 100, "what a process maps stays");
	/* The kernel may have written it back of its own accord just before. */
	for (i = 0; i < 10 && cached(dirty) != 100; i++) {
		struct llm_cache_drop again = {0};

		check(pwrite(dirty, buf, sizeof(buf), 0) == sizeof(buf) && !drop(&again, root, 0),
		      "again");
	}
	check(cached(dirty) == 100, "what is dirty too");
	check(cached(idle) <= GONE, "the idle file is gone");
	check(d.inodes >= 1 && d.bytes >= 15 * MB, "%u MB of %u files", mb(d.bytes),
	      (unsigned int)d.inodes);
	munmap((void *)m, 16 * MB);
	d = (struct llm_cache_drop){0};
	works(drop(&d, mapped, 0), "again, by another file of it, when nothing maps it");
	check(cached(mapped) <= GONE, "now it goes");
	fsync(dirty);
	works(drop(&d, dirty, LLM_DROP_FILE), "what was written goes as well");
	check(cached(dirty) <= GONE && pread(dirty, buf, 1, 4 * MB - 1) == 1 && buf[0] == 'd',
	      "and can be read again");
	read_all(idle);
	d = (struct llm_cache_drop){.max_bytes = 4 * MB};
	works(drop(&d, root, 0), "four megabytes of the filesystem");
	check(d.bytes >= 4 * MB && d.bytes <= 6 * MB, "are dropped: %u", mb(d.bytes));
	write_to("/proc/sys/vm/dirty_writeback_centisecs", "500");
	close(mapped);
	close(idle);
	close(dirty);
	close(root);
}

/* Many small files, some of them going away meanwhile; one who drops is killed. */
static void test_walk(void)
{
	struct llm_cache_drop d = {0};
	int root = open(DISK, O_RDONLY | O_CLOEXEC), state, n = 0;
	char path[64];
	pid_t pid;

	for (int i = 0; i < 500; i++) {
		int fd;

		snprintf(path, sizeof(path), DISK "/f%d", i);
		fd = make_file(path, 8192);
		read_all(fd);
		close(fd);
	}
	pid = fork();
	if (!pid) {
		for (int i = 0; i < 250; i++) {
			snprintf(path, sizeof(path), DISK "/f%d", i);
			unlink(path);
		}
		for (;;)
			drop(&d, root, 0);
	}
	for (int i = 0; i < 20; i++)
		n += !drop(&d, root, 0);
	check(n == 20, "walked while files go away");
	for (int i = 499; i >= 250; i--) {
		int fd;

		snprintf(path, sizeof(path), DISK "/f%d", i);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		n += cached(fd) == 0;
		close(fd);
	}
	check(n >= 20 + 240, "small files are dropped: %d of 250", n - 20);
	kill(pid, SIGKILL);
	check(waitpid(pid, &state, 0) == pid && WIFSIGNALED(state), "killed while it drops");
	refused(umount(DISK), EBUSY, "the filesystem is held by the open file only");
	close(root);
}

static void test_drop_refused(void)
{
	struct llm_cache_drop d = {.__reserved = 1};
	int p[2], file = open(DISK "/cold", O_RDONLY | O_CLOEXEC), shm = make_file("/tmp/shm", MB);
	int blind = open(DISK "/cold", O_WRONLY | O_CLOEXEC),
	    path = open(DISK "/cold", O_PATH | O_CLOEXEC);
	int root = open(DISK, O_RDONLY | O_CLOEXEC), vda = open("/dev/vda", O_RDONLY | O_CLOEXEC);
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	refused(drop(&d, file, 0), EINVAL, "padding that is not zero");
	d.__reserved = 0;
	refused(drop(&d, file, 2), EOPNOTSUPP, "an unknown flag");
	refused(drop(&d, -1, 0), EBADF, "no file");
	refused(drop(&d, 999, LLM_DROP_FILE), EBADF, "no such file");
	refused(drop(&d, blind, LLM_DROP_FILE), EBADF, "open for writing only");
	refused(drop(&d, path, LLM_DROP_FILE), EBADF, "O_PATH");
	refused(drop(&d, root, LLM_DROP_FILE), EOPNOTSUPP, "a directory as a file");
	refused(drop(&d, null, LLM_DROP_FILE), EOPNOTSUPP, "a character device");
	refused(drop(&d, shm, LLM_DROP_FILE), EOPNOTSUPP, "a file in memory");
	refused(drop(&d, shm, 0), EOPNOTSUPP, "a filesystem in memory");
	refused(drop(&d, ctl, 0), EOPNOTSUPP, "the control file itself");
	refused(drop(&d, vda, 0), EOPNOTSUPP, "a disk as a filesystem");
	works(drop(&d, vda, LLM_DROP_FILE), "a disk as a file");
	if (!pipe(p)) {
		refused(drop(&d, p[0], 0), EOPNOTSUPP, "a pipe");
		close(p[0]);
		close(p[1]);
	}
	close(file), close(shm), close(blind), close(path), close(root), close(vda), close(null);
	unlink("/tmp/shm");
}

/* ---- room, with a cache that fills memory -------------------------------------------------------------------- */

/* Most of memory is with somebody, so that little cache fills the rest. */
static void test_room(void)
{
	uint64_t rest = 128 * MB, available = status().available;
	int fd = make_file(DISK "/fill", rest), ready = -1;
	pid_t pid = hog(available > rest ? available - rest : 0, &ready);
	struct pollfd p = {.fd = ready, .events = POLLIN};
	struct llm_mem_make_room r;
	struct llm_mem_status a, b;

	check(poll(&p, 1, 60000) == 1, "somebody has nearly all memory");
	read_all(fd);
	a = status();
	r = (struct llm_mem_make_room){.free = a.free + rest / 4,
				       .deadline_ns = now_ns() + 60000000000ull};
	works(make_room(&r), "cache has the rest: room is made");
	b = status();
	check(r.free_after + 8 * MB >= r.free, "%u -> %u MB of %u", mb(r.free_before),
	      mb(r.free_after), mb(r.free));
	check(b.available + 16 * MB > a.available, "MemAvailable has not fallen: %u -> %u MB",
	      mb(a.available), mb(b.available));
	read_all(fd);
	r = (struct llm_mem_make_room){.blocks = status().free_blocks + rest / BLOCK / 4,
				       .deadline_ns = now_ns() + 60000000000ull};
	works(make_room(&r), "room in blocks");
	check(r.blocks_after + 4 >= r.blocks, "%u -> %u blocks of %u",
	      (unsigned int)r.blocks_before, (unsigned int)r.blocks_after, (unsigned int)r.blocks);
	check(hog_done(pid, ready), "that somebody is still there");
	close(fd);
	unlink(DISK "/fill");
}

/* ---- reclaim in the background alone ------------------------------------------------------------------------- */

#define SCALE "/proc/sys/vm/watermark_scale_factor"

/*
 * Cache fills memory until kswapd has scanned so much; true: it did, and others next to nothing
 * (*direct, in pages). Below the low watermark kswapd is at work, below the min watermark whoever
 * allocates is: at half the way the reader waits for kswapd, which a busy machine may keep from it.
 */
static bool kswapd_scans(int fd, uint64_t bytes, uint64_t *direct)
{
	uint64_t background = vmstat("pgscan_kswapd"), before = vmstat("pgscan_direct");
	uint64_t pages = bytes / (uint64_t)sysconf(_SC_PAGESIZE), n = 0;
	uint64_t enough = (watermark("min") + watermark("low")) / 2;
	static char buf[256 << 10];
	struct stat st;

	if (fstat(fd, &st))
		return false;
	for (off_t at = 0; at < st.st_size && n < pages; at += sizeof(buf)) {
		if (pread(fd, buf, sizeof(buf), at) != sizeof(buf))
			return false;
		for (int i = 0; i < 5000 && status().free < enough; i++)
			usleep(2000);
		n = vmstat("pgscan_kswapd") - background;
	}
	*direct = vmstat("pgscan_direct") - before;
	printf("# kswapd scanned %" PRIu64 " pages, others %" PRIu64 "\n", n, *direct);
	return n >= pages && *direct < n / 8;
}

static void test_kswapd(uint64_t total)
{
	int fd = make_file(DISK "/much", 16 * total);
	struct llm_mem_status a, b;
	bool scanned = false;
	uint64_t direct = 1;

	/* Its watermarks far apart: low at 5 % of memory, high at 10 %. */
	check(write_to(SCALE, "500"), "kswapd begins early");
	for (int i = 0; i < 3 && direct; i++) {
		check(reserve(total / 4 / BLOCK * BLOCK) == (int64_t)(total / 4 / BLOCK * BLOCK),
		      "a quarter of memory is held");
		a = status();
		scanned |= kswapd_scans(fd, total, &direct);
		b = status();
	}
	check(scanned, "cache fills the rest: kswapd scans as much as there is memory");
	/* Who reclaims for itself may be given some. */
	check(b.released_oom == a.released_oom &&
		      (direct ? b.reserve_held > a.reserve_held / 4 * 3
			      : b.reserve_held == a.reserve_held &&
					b.released_shrinker == a.released_shrinker),
	      "the reserve is %s: %u MB", direct ? "hardly touched" : "whole", mb(b.reserve_held));
	write_to(SCALE, "10");
	reserve(0);
	close(fd);
	unlink(DISK "/much");
}

/* ---- tracepoints; unloading ---------------------------------------------------------------------------------- */

static void test_trace(void)
{
	int fd = open(DISK "/cold", O_RDONLY | O_CLOEXEC);
	struct llm_cache_drop d = {0};
	static char text[65536];
	size_t n = 0;
	ssize_t got;

	check(write_to(TRACING "events/llm/llm_reclaim/enable", "1") &&
		      write_to(TRACING "events/llm/llm_pressure/enable", "1"),
	      "the tracepoints");
	reserve(BLOCK);
	reserve(0);
	drop(&d, fd, LLM_DROP_FILE);
	write_to(TRACING "events/llm/enable", "0");
	close(fd);
	fd = open(TRACING "trace", O_RDONLY | O_CLOEXEC);
	while ((got = read(fd, text + n, sizeof(text) - 1 - n)) > 0)
		n += (size_t)got;
	close(fd);
	check(strstr(text, "llm_reclaim: action=take") &&
		      strstr(text, "asked=2097152 freed=2097152"),
	      "taking");
	check(strstr(text, "llm_reclaim: action=asked") != NULL, "giving back");
	check(strstr(text, "llm_pressure: what=release") != NULL, "its event");
	check(strstr(text, "llm_reclaim: action=file") != NULL, "dropping");
}

static void test_unload(void)
{
	struct llm_mem_status a, b;
	int module = open("/llm.ko", O_RDONLY | O_CLOEXEC);

	a = status();
	check(reserve(16 * BLOCK) == 16 * BLOCK, "blocks are held");
	works(set_floors(ctl, MB, 1), "and floors");
	refused(syscall(SYS_delete_module, "llm", O_NONBLOCK), EWOULDBLOCK,
		"not unloaded while the file is open");
	close(ctl);
	works(syscall(SYS_delete_module, "llm", O_NONBLOCK), "unloaded with the reserve held");
	works(syscall(SYS_finit_module, module, "", 0), "and loaded again");
	close(module);
	ctl = control();
	b = status();
	check(!b.reserve_held && !b.floor_free && b.free + 12 * MB > a.free,
	      "all memory is back: %u, %u MB", mb(a.free), mb(b.free));
}

int main(void)
{
	uint64_t total;

	ctl = control();
	total = status().total;
	test_floors();
	test_rights();
	mkdir(DISK, 0755);
	if (access("/dev/vda", F_OK)) {
		check(true, "page cache # SKIP no scratch disk");
		return done();
	}
	works(mount("/dev/vda", DISK, "ext4", 0, "commit=1000"), "the scratch disk is mounted");
	test_file(total);
	test_mapped();
	test_drop_refused();
	test_trace();
	test_room();
	test_walk();
	test_kswapd(total);
	works(umount(DISK), "unmounted");
	test_unload();
	return done();
}
