// SPDX-License-Identifier: MIT
/*
 * Regions: what is refused, one test per reason and errno. Nothing that was refused leaves anything.
 */
#include <linux/fs.h>
#include <sys/xattr.h>

#include "tests/vm/region.h"

#define BYTES (2 * MIB)

static int create_bytes(uint64_t bytes, uint32_t flags)
{
	return region_create("r", bytes, flags);
}

static int create_node(int32_t node)
{
	struct llm_region_create c = region_creation("r", BYTES, 0);

	c.node = node;
	return region_command(&c);
}

/* Any command with any structure. */
static long command(int fd, unsigned long cmd, void *arg)
{
	return ioctl(fd, cmd, arg);
}

static void names(void)
{
	static const char *const bad[] = {"",	  "a/b",   "/",	   "..",      ".hidden",
					  "a b",  "tab\t", "\x7f", "\x1b[1m", "n\xc3\xb6",
					  "a\nb", "a,b",   "a%s"};
	char longest[LLM_REGION_NAME_MAX];
	struct llm_region_create c;
	int fd;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		refused(region_create(bad[i], BYTES, 0), EINVAL,
			"CREATE: name %zu that is none: EINVAL", i);
		refused(region_open(bad[i], 0), EINVAL, "OPEN: likewise");
		refused(region_destroy(bad[i]), EINVAL, "DESTROY: likewise");
	}
	c = region_creation("x", BYTES, 0);
	memset(c.name, 'a', sizeof(c.name));
	refused(region_command(&c), EINVAL, "CREATE: a name without an end: EINVAL");
	c = region_creation("x", BYTES, 0);
	c.name[sizeof(c.name) - 1] = 'y';
	refused(region_command(&c), EINVAL, "CREATE: bytes behind the name: EINVAL");
	memset(longest, 'a', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	fd = works(region_create(longest, BYTES, 0), "the longest name");
	refused(region_create(longest, BYTES, 0), EEXIST, "CREATE: a name that is taken: EEXIST");
	close(fd);
	fd = works(region_create("aZ09._:@+-", BYTES, 0), "every kind of character");
	close(fd);
	refused(region_open("nobody", 0), ENOENT, "OPEN: no such region: ENOENT");
	refused(region_destroy("nobody"), ENOENT, "DESTROY: likewise");
}

static void sizes(void)
{
	refused(create_bytes(0, 0), EINVAL, "CREATE: 0 bytes: EINVAL");
	refused(create_bytes(4095, 0), EINVAL, "not a multiple of the page size: EINVAL");
	refused(create_bytes((uint64_t)-4096, 0), EINVAL, "negative: EINVAL");
	refused(create_bytes(((uint64_t)1 << 46) + HUGE, 0), EINVAL, "more than 2^46: EINVAL");
	refused(create_bytes((uint64_t)1 << 46, 0), ENOMEM, "2^46: ENOMEM");
	refused(create_bytes(HUGE + 4096, LLM_REGION_HUGE), EINVAL,
		"HUGE, not a multiple of 2 MiB: EINVAL");
	refused(create_node(-2), EINVAL, "node -2: EINVAL");
	refused(create_node(1000000), EINVAL, "node 1000000: EINVAL");
	refused(create_node(63), EINVAL, "a node that is not there: EINVAL");
}

static void structures(void)
{
	struct llm_region_create c = region_creation("r", BYTES, 1U << 7);
	struct llm_region_open o = {.size = sizeof(o), .name = "open"};
	struct llm_region_name d = {.size = sizeof(d), .name = "open"};
	struct llm_region_list l = {.size = sizeof(l), .count = 1};
	struct llm_region_seal s = {.size = sizeof(s)};
	struct {
		struct llm_region_info info;
		uint64_t tail;
	} i = {{.size = sizeof(i)}, 0};
	uint8_t infos[512];
	int fd = control(), r = region_create("open", BYTES, 0);

	refused(command(fd, LLM_IOC_REGION_CREATE, &c), EOPNOTSUPP,
		"CREATE: unknown flag: EOPNOTSUPP");
	c = region_creation("r", BYTES, 0);
	c.fd = 3;
	refused(command(fd, LLM_IOC_REGION_CREATE, &c), EINVAL, "CREATE: fd is not 0: EINVAL");
	c = region_creation("r", BYTES, 0);
	c.huge_bytes = 8;
	refused(command(fd, LLM_IOC_REGION_CREATE, &c), EINVAL,
		"CREATE: huge_bytes is not 0: EINVAL");
	c = region_creation("r", BYTES, 0);
	c.size = 8;
	refused(command(fd, LLM_IOC_REGION_CREATE, &c), EINVAL, "CREATE: too short: EINVAL");
	refused(command(fd, LLM_IOC_REGION_CREATE, NULL), EFAULT, "CREATE: no structure: EFAULT");
	o.flags = 1U << 9;
	refused(command(fd, LLM_IOC_REGION_OPEN, &o), EOPNOTSUPP, "OPEN: unknown flag: EOPNOTSUPP");
	o.flags = 0;
	o.__reserved = 1;
	refused(command(fd, LLM_IOC_REGION_OPEN, &o), EINVAL, "OPEN: padding is not 0: EINVAL");
	d.flags = 1;
	refused(command(fd, LLM_IOC_REGION_DESTROY, &d), EOPNOTSUPP,
		"DESTROY: unknown flag: EOPNOTSUPP");
	l.flags = 1;
	refused(command(fd, LLM_IOC_REGION_LIST, &l), EOPNOTSUPP, "LIST: unknown flag: EOPNOTSUPP");
	l.flags = 0;
	refused(command(fd, LLM_IOC_REGION_LIST, &l), EFAULT, "LIST: no room: EFAULT");
	l.count = 257;
	refused(command(fd, LLM_IOC_REGION_LIST, &l), EINVAL, "LIST: 257 of them: EINVAL");
	l.count = 1;
	l.info_size = 200;
	refused(command(fd, LLM_IOC_REGION_LIST, &l), EINVAL,
		"LIST: records that are too short: EINVAL");
	memset(infos, 0xff, sizeof(infos));
	l = (struct llm_region_list){.size = sizeof(l), .count = 1, .regions = (uintptr_t)infos};
	check(!command(fd, LLM_IOC_REGION_LIST, &l) && l.count == 1 && infos[208] == 0xff,
	      "LIST: records of the first size");
	l.info_size = 256;
	check(!command(fd, LLM_IOC_REGION_LIST, &l) && infos[208] == 0 && infos[255] == 0 &&
		      infos[256] == 0xff &&
		      ((struct llm_region_info *)infos)->size == sizeof(i.info),
	      "LIST: longer records end in zeroes");
	l.after = ~0ull;
	l.count = 5;
	check(!command(fd, LLM_IOC_REGION_LIST, &l) && !l.count, "LIST: none after the last");
	s.flags = 1;
	refused(command(r, LLM_IOC_REGION_SEAL, &s), EOPNOTSUPP, "SEAL: unknown flag: EOPNOTSUPP");
	i.info.flags = 1;
	refused(command(r, LLM_IOC_REGION_INFO, &i), EOPNOTSUPP, "INFO: unknown flag: EOPNOTSUPP");
	i.info.flags = 0;
	i.tail = 1;
	refused(command(r, LLM_IOC_REGION_INFO, &i), E2BIG, "INFO: a tail that is not 0: E2BIG");
	i.tail = 0;
	works(command(r, LLM_IOC_REGION_INFO, &i), "INFO: a longer structure");
	refused(command(r, LLM_IOC_REGION_CREATE, &c), ENOTTY, "CREATE on a region file: ENOTTY");
	refused(command(fd, LLM_IOC_REGION_SEAL, &s), ENOTTY, "SEAL on the control file: ENOTTY");
	close(r);
	close(fd);
}

/* The file numbers are handed over only to whoever can read them. */
static void unwritable(void)
{
	struct llm_region_create *c =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct llm_region_info info;
	int fd = control(), probe;

	*c = region_creation("gone", BYTES, LLM_REGION_PERSISTENT);
	mprotect(c, 4096, PROT_READ);
	refused(command(fd, LLM_IOC_REGION_CREATE, c), EFAULT,
		"CREATE: an answer that cannot be written: EFAULT");
	region_list("gone", &info);
	check(!info.size, "there is no region then");
	probe = dup(fd);
	check(probe == fd + 1, "and no file");
	close(probe);
	munmap(c, 4096);
	close(fd);
}

static void files(void)
{
	struct rlimit rl, low;
	struct stat st;
	char buf[64], path[64];
	int fd = region_create("file", BYTES, 0), other, ro;
	unsigned char *p = region_map(fd, BYTES, PROT_READ | PROT_WRITE);

	region_pattern(p, BYTES, 1);
	map_refused(mmap(NULL, BYTES, PROT_READ, MAP_PRIVATE, fd, 0), EINVAL,
		    "a private mapping: EINVAL");
	map_refused(mmap(NULL, BYTES + 4096, PROT_READ, MAP_SHARED, fd, 0), EINVAL,
		    "more than there is: EINVAL");
	map_refused(mmap(NULL, BYTES, PROT_READ, MAP_SHARED, fd, 4096), EINVAL,
		    "beyond its end: EINVAL");
	map_refused(mmap(NULL, BYTES, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0), EPERM,
		    "to execute: EPERM");
	refused(mprotect(p, BYTES, PROT_READ | PROT_EXEC), EACCES, "mprotect() to execute: EACCES");
	map_refused(mremap(p, BYTES, 2 * BYTES, MREMAP_MAYMOVE), EFAULT,
		    "mremap() to grow: EFAULT");
	refused(read(fd, buf, 1), EINVAL, "read(): EINVAL");
	refused(write(fd, buf, 1), EINVAL, "write(): EINVAL");
	refused(madvise(p, BYTES, MADV_REMOVE), EPERM, "MADV_REMOVE: EPERM");
	refused(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, BYTES), EPERM,
		"fallocate() of a hole: EPERM");
	refused(ftruncate(fd, 4096), EPERM, "ftruncate() to less: EPERM");
	refused(ftruncate(fd, 2 * BYTES), EPERM, "to more: EPERM");
	check(!fstat(fd, &st) && st.st_size == BYTES && region_has_pattern(p, BYTES, 1),
	      "it is whole");
	check(fchmod(fd, 0600) && errno == EPERM, "fchmod(): EPERM");
	check(fsetxattr(fd, "user.x", "y", 1, 0) && (errno == EPERM || errno == EOPNOTSUPP),
	      "fsetxattr(): refused");
	check(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) && errno == EPERM, "F_ADD_SEALS: EPERM");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	for (int flags = O_RDONLY; flags <= O_RDWR; flags++)
		refused(open(path, flags), flags ? EPERM : ENXIO, "open() of /proc/PID/fd, %d",
			flags);
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)p,
		 (unsigned long)(p + BYTES));
	for (int flags = O_RDONLY; flags <= O_RDWR; flags++)
		refused(open(path, flags), flags ? EPERM : ENXIO, "open() of map_files, %d", flags);
	check(truncate(path, 4096) != 0, "truncate() by that path: refused");
	munmap(p, BYTES);
	works(region_seal(fd), "SEAL");
	ro = region_open("file", 0);
	p = region_map(ro, BYTES, PROT_READ);
	refused(mprotect(p, BYTES, PROT_READ | PROT_WRITE), EACCES, "sealed: mprotect(): EACCES");
	refused(madvise(p, BYTES, MADV_REMOVE), EACCES, "MADV_REMOVE: EACCES");
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)p,
		 (unsigned long)(p + BYTES));
	refused(open(path, O_RDWR), EPERM, "map_files to write: EPERM");
	refused(open(path, O_RDONLY), ENXIO, "map_files to read: ENXIO");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", ro);
	refused(open(path, O_RDWR), EPERM, "/proc/PID/fd to write: EPERM");
	/* A debugger writes through mappings that cannot be written to. */
	other = open("/proc/self/mem", O_RDWR);
	check(pwrite(other, "!", 1, (off_t)(uintptr_t)p) == -1, "/proc/PID/mem: refused");
	close(other);
	check(region_has_pattern(p, BYTES, 1), "same bytes");
	munmap(p, BYTES);
	close(ro);
	close(fd);
	getrlimit(RLIMIT_NOFILE, &rl);
	low = rl;
	low.rlim_cur = 4;
	other = control();
	while (other >= 0 && other < 3)
		other = dup(other);
	setrlimit(RLIMIT_NOFILE, &low);
	{
		struct llm_region_create c =
			region_creation("nofile", BYTES, LLM_REGION_PERSISTENT);

		refused(command(other, LLM_IOC_REGION_CREATE, &c), EMFILE,
			"CREATE without a file number: EMFILE");
	}
	setrlimit(RLIMIT_NOFILE, &rl);
	close(other);
	check(region_list("nofile", NULL) == region_list("", NULL), "and nothing is left");
}

/* What needs to be the owner's. */
static bool stranger(void)
{
	bool ok = become(1000);
	struct llm_region_info i;
	int fd;
	unsigned char *p;

	refused(region_open("roots", LLM_REGION_OPEN_WRITE), EPERM,
		"a stranger: OPEN to write: EPERM");
	refused(region_open("roots", LLM_REGION_OPEN_REGISTER), EPERM, "OPEN to register: EPERM");
	refused(region_destroy("roots"), EPERM, "DESTROY: EPERM");
	fd = works(region_open("roots", 0), "OPEN to read");
	refused(region_seal(fd), EPERM, "SEAL: EPERM");
	p = region_map(fd, BYTES, PROT_READ);
	maps(p, "mapped to read");
	i = region_info(fd);
	check(i.uid == 0, "INFO tells the owner");
	close(fd);
	return ok && !vm_failed;
}

static bool stranger_makes(void)
{
	int fd, flags = FS_NODUMP_FL;

	if (!become(1000))
		return false;
	fd = region_create("theirs", BYTES, LLM_REGION_PERSISTENT);
	check(ioctl(fd, FS_IOC_SETFLAGS, &flags) && (errno == EPERM || errno == ENOTTY),
	      "FS_IOC_SETFLAGS by its owner: refused");
	refused(fchmod(fd, 0600), EPERM, "then fchmod(): EPERM");
	return region_open("theirs", LLM_REGION_OPEN_WRITE) >= 0 && !region_seal(fd) && !vm_failed;
}

static void rights(void)
{
	int fd = region_create("roots", BYTES, LLM_REGION_PERSISTENT), n;

	region_share();
	check(in_child(stranger()), "a stranger may do no more than that");
	works(region_destroy("roots"), "DESTROY by its owner");
	close(fd);
	check(in_child(stranger_makes()), "another user's region");
	fd = works(region_open("theirs", LLM_REGION_OPEN_REGISTER), "is open to the administrator");
	check(region_info(fd).uid == 1000 && !region_info(fd).pid, "INFO tells whose it is");
	close(fd);
	works(region_destroy("theirs"), "who can destroy it");
	/* Too many. */
	check(write_file("/sys/module/llm/parameters/max_regions", "3"), "at most three regions");
	n = region_list("", NULL);
	check(n == 0, "there is none");
	for (int i = 0; i < 3; i++) {
		char name[8];

		snprintf(name, sizeof(name), "r%d", i);
		fd = works(region_create(name, 4096, LLM_REGION_PERSISTENT), "region %d", i);
		works(region_seal(fd), "sealed");
		close(fd);
	}
	refused(region_create("r3", 4096, 0), ENOSPC, "the fourth: ENOSPC");
	for (int i = 0; i < 3; i++) {
		char name[8];

		snprintf(name, sizeof(name), "r%d", i);
		works(region_destroy(name), "DESTROY %d", i);
	}
	write_file("/sys/module/llm/parameters/max_regions", "1024");
}

int main(void)
{
	int64_t before = free_memory();

	names();
	sizes();
	structures();
	unwritable();
	files();
	rights();
	check(region_list("", NULL) == 0, "no region is left");
	check(memory_is_back(before), "all memory is back");
	return done();
}
