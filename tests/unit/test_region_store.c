// SPDX-License-Identifier: MIT
/*
 * Regions that a keeper holds, from the client's side and from a hostile one's: what is kept is whole,
 * sealed and found again; what is half done leaves nothing behind.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "memory/keeper.h"
#include "memory/region.h"
#include "tests/tap.h"
#include "tests/unit/weights_files.h"
#include "tests/unit/with_keeper.h"

#define BYTES (5u << 20)

static struct region_store open_store(void)
{
	struct region_store s;
	struct err e = {""};

	for (int i = 0; i < 2000; i++, nap())
		if (!region_store_open(&s, REGION_KEEPER, false, &e))
			return s;
	CHECK(false, "the keeper answers: %s", e.msg);
	return s;
}

static void fill(struct region *r, int seed)
{
	for (size_t i = 0; i < r->bytes; i += 509)
		((uint8_t *)r->base)[i] = (uint8_t)(i * 31 + (size_t)seed);
}

static bool filled(const struct region *r, int seed)
{
	for (size_t i = 0; i < BYTES; i += 509)
		if (((uint8_t *)r->base)[i] != (uint8_t)(i * 31 + (size_t)seed))
			return false;
	return true;
}

static size_t count(struct region_store *s)
{
	struct region_fact *v;
	size_t n = 999;

	if (!region_list(s, &v, &n, NULL))
		free(v);
	return n;
}

static void life(void)
{
	struct region_store s = open_store(), other = open_store();
	struct region r, again, second;
	struct region_fact f;
	struct err e = {""};
	char file[64];
	void *base;
	int fd;

	REQUIRE(!region_create(&s, "one", BYTES, -1, &r, &e), "created %s", e.msg);
	CHECK(!((uintptr_t)r.base & ((2u << 20) - 1)), "at a multiple of 2 MiB");
	CHECK(region_create(&other, "one", BYTES, -1, &again, &e) == -EEXIST, "taken: %s", e.msg);
	CHECK(region_open(&other, "one", true, &again, &e) == -EAGAIN, "not sealed: %s", e.msg);
	CHECK(!region_find(&other, "one", &f, &e) && f.busy && !f.sealed && f.pid == getpid(),
	      "listed as being filled, by this process");
	fill(&r, 7);
	base = r.base;
	REQUIRE(!region_seal(&s, &r, &e), "sealed %s", e.msg);
	CHECK(r.base == base && filled(&r, 7), "the same bytes at the same address");
	CHECK(mprotect(r.base, 4096, PROT_READ | PROT_WRITE) && errno == EACCES,
	      "cannot be made writable");
	CHECK(!region_open(&other, "one", true, &again, &e) && filled(&again, 7), "opened again %s",
	      e.msg);
	CHECK(!region_find(&s, "one", &f, &e) && f.sealed && f.users == 2 && f.bytes >= BYTES,
	      "two users");
	snprintf(file, sizeof(file), "/proc/self/map_files/%lx-%lx", (unsigned long)again.base,
		 (unsigned long)again.base + again.mapped);
	fd = open(file, O_RDWR);
	CHECK(fd < 0 || mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED,
	      "nor by way of /proc");
	if (fd >= 0)
		close(fd);
	region_close(&other, &again);
	CHECK(region_create(&other, "one", BYTES, -1, &second, &e) == -EEXIST, "still taken");
	CHECK(!region_destroy(&other, "one", &e) && !count(&other), "destroyed while it is mapped");
	CHECK(filled(&r, 7), "who has it keeps it");
	CHECK(region_destroy(&other, "one", &e) == -ENOENT, "once: %s", e.msg);
	CHECK(!region_create(&other, "one", BYTES, -1, &second, &e), "the name is free");
	region_close(&other, &second);
	CHECK(!count(&s), "what was never sealed is nowhere");
	region_close(&s, &r);
	region_store_close(&s);
	region_store_close(&other);
}

/* A loader that dies leaves nothing; one that finished leaves everything. */
static void deaths(void)
{
	struct region_store s = open_store();
	struct region r;
	struct err e = {""};
	int status;

	for (int sealed = 0; sealed < 2; sealed++) {
		pid_t pid = fork();

		if (!pid) {
			struct region_store mine = open_store();

			if (region_create(&mine, "dead", BYTES, -1, &r, &e))
				_exit(1);
			fill(&r, 3);
			if (sealed && region_seal(&mine, &r, &e))
				_exit(1);
			kill(getpid(), SIGKILL);
		}
		waitpid(pid, &status, 0);
		for (int i = 0; i < 2000 && !sealed && count(&s); i++)
			nap();
		CHECK(count(&s) == (size_t)sealed, "killed %s sealing: %zu regions",
		      sealed ? "after" : "before", count(&s));
	}
	CHECK(!region_open(&s, "dead", true, &r, &e) && filled(&r, 3), "it is whole");
	region_close(&s, &r);
	region_destroy(&s, "dead", NULL);
	region_store_close(&s);
}

static void bad_names(void)
{
	static const char *const names[] = {"",	    ".x",     "a/b",  "a b", "../x",
					    "a\nb", "a\x01b", "\xff", "a\"b"};
	struct region_store s = open_store();
	struct region r;
	struct err e = {""};
	char lengthy[200];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		CHECK(region_create(&s, names[i], BYTES, -1, &r, &e) == -EINVAL &&
			      !strchr(e.msg, '\n'),
		      "%s", e.msg);
	memset(lengthy, 'x', sizeof(lengthy));
	lengthy[128] = '\0';
	CHECK(region_open(&s, lengthy, true, &r, &e) == -EINVAL, "128 bytes are too many");
	lengthy[127] = '\0';
	CHECK(region_open(&s, lengthy, true, &r, &e) == -ENOENT, "127 are not: %s", e.msg);
	CHECK(region_create(&s, "x", 0, -1, &r, &e) == -EINVAL, "%s", e.msg);
	CHECK(region_create(&s, "x", SIZE_MAX, -1, &r, &e) == -EINVAL, "%s", e.msg);
	CHECK(region_create(&s, "x", (size_t)1 << 45, -1, &r, &e) == -ENOMEM, "%s", e.msg);
	CHECK(!count(&s), "nothing is there");
	region_store_close(&s);
}

/* ---- a client that does not play by the rules ----------------------------------------------------- */

static int raw_connect(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct timeval limit = {.tv_sec = 20};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(addr.sun_path, keeper_path);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return connect(fd, (struct sockaddr *)&addr, sizeof(addr)) ? -1 : fd;
}

/* The answer's error; -1: disconnected. */
static int raw_ask(int fd, const void *msg, size_t len, const int *fds, int n_fds)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(8 * sizeof(int))];
	} control = {0};
	struct iovec iov = {(void *)msg, len};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
	struct keeper_msg a;
	struct cmsghdr *c;

	if (n_fds) {
		h.msg_control = control.buf;
		h.msg_controllen = CMSG_SPACE((size_t)n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN((size_t)n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, (size_t)n_fds * sizeof(int));
	}
	if (sendmsg(fd, &h, MSG_NOSIGNAL) < 0)
		return -1;
	return recv(fd, &a, sizeof(a), 0) == sizeof(a) ? a.error : -1;
}

static int sealed_memfd(int seals)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (ftruncate(fd, 4096) || (seals && fcntl(fd, F_ADD_SEALS, seals)))
		perror("memfd");
	return fd;
}

static int open_files(pid_t pid)
{
	char dir[64];
	int n = 0;

	snprintf(dir, sizeof(dir), "/proc/%d/fd", pid);
	for (int fd = 0; fd < 1024; fd++) {
		char name[80];

		snprintf(name, sizeof(name), "%s/%d", dir, fd);
		n += !faccessat(AT_FDCWD, name, F_OK, AT_SYMLINK_NOFOLLOW);
	}
	return n;
}

static void hostile(void)
{
	struct keeper_msg m = {.op = KEEPER_CLAIM, .name = "h"};
	struct region_store s = open_store();
	int before = open_files(keeper), fd = raw_connect(), other = raw_connect();
	int unsealed = sealed_memfd(0), half = sealed_memfd(F_SEAL_WRITE),
	    good = sealed_memfd(KEEPER_SEALS), null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int many[3] = {good, good, good};

	CHECK(!raw_ask(fd, &m, sizeof(m), NULL, 0), "a name is claimed");
	CHECK(raw_ask(other, &m, sizeof(m), NULL, 0) == EBUSY, "and is busy for others");
	m.op = KEEPER_DROP;
	CHECK(raw_ask(other, &m, sizeof(m), NULL, 0) == EAGAIN, "who cannot drop it");
	m.op = KEEPER_KEEP;
	CHECK(raw_ask(other, &m, sizeof(m), &good, 1) == EPERM, "nor fill it");
	CHECK(raw_ask(fd, &m, sizeof(m), NULL, 0) == EINVAL, "keep: no file");
	CHECK(raw_ask(fd, &m, sizeof(m), &null, 1) == EINVAL, "keep: /dev/null");
	CHECK(raw_ask(fd, &m, sizeof(m), &unsealed, 1) == EINVAL, "keep: an unsealed memfd");
	CHECK(raw_ask(fd, &m, sizeof(m), &half, 1) == EINVAL, "keep: one with a seal missing");
	CHECK(!raw_ask(fd, &m, sizeof(m), many, 3), "keep: three files, of which one counts");
	CHECK(raw_ask(fd, &m, sizeof(m), &good, 1) == EPERM, "keep: once only");
	m.op = 77;
	CHECK(raw_ask(fd, &m, sizeof(m), &good, 1) == EOPNOTSUPP, "an unknown operation");
	memset(m.name, 'x', sizeof(m.name));
	for (m.op = 0; m.op < 5; m.op++)
		CHECK(raw_ask(fd, &m, sizeof(m), NULL, 0) == EINVAL, "a name without an end");
	CHECK(raw_ask(fd, &m, 10, &good, 1) == -1, "a short message: disconnected");
	CHECK(raw_ask(other, &m, 0, NULL, 0) == -1, "an empty one, too");
	close(fd);
	close(other);
	CHECK(count(&s) == 1, "what was kept stays");
	region_destroy(&s, "h", NULL);
	for (int i = 0; i < 2000 && open_files(keeper) > before; i++)
		nap();
	CHECK(open_files(keeper) == before, "no file is left open in the keeper: %d of %d",
	      open_files(keeper), before);
	close(unsealed);
	close(half);
	close(good);
	close(null);
	region_store_close(&s);
}

/* More clients and names than there is room for. */
static void bounds(void)
{
	struct region_store s = open_store();
	int client[KEEPER_MAX_CLIENTS + 8], n = 0, refused = 0, claimed = 0;
	struct keeper_msg m = {.op = KEEPER_CLAIM};

	for (int i = 0; i < KEEPER_MAX_REGIONS + 3; i++) {
		int rc;

		snprintf(m.name, sizeof(m.name), "n%d", i);
		rc = raw_ask(s.fd, &m, sizeof(m), NULL, 0);
		claimed += !rc;
		if (rc)
			CHECK(rc == ENOSPC, "no more names: %s", strerror(rc));
	}
	CHECK(claimed == KEEPER_MAX_REGIONS, "%d names", claimed);
	CHECK(count(&s) == KEEPER_MAX_REGIONS, "all are listed");
	while (n < KEEPER_MAX_CLIENTS + 8 && (client[n] = raw_connect()) >= 0)
		n++;
	m.op = KEEPER_OPEN;
	for (int i = 0; i < n; i++)
		refused += raw_ask(client[i], &m, sizeof(m), NULL, 0) == -1;
	CHECK(refused == 9, "clients over %d are disconnected: %d", KEEPER_MAX_CLIENTS, refused);
	while (n)
		close(client[--n]);
	region_store_close(&s);
	s = open_store();
	for (int i = 0; i < 2000 && count(&s); i++)
		nap();
	CHECK(!count(&s), "claims end with their connection");
	region_store_close(&s);
}

static void lives(void)
{
	struct err e = {""};
	struct region_store s;
	struct region r;

	CHECK(keeper_serve(keeper_path, false, &e) == -EEXIST, "a second keeper: %s", e.msg);
	CHECK(keeper_end(SIGTERM) == 0 && access(keeper_path, F_OK),
	      "SIGTERM: it ends and tidies up");
	CHECK(region_store_open(&s, REGION_KEEPER, false, &e) == -ENOENT, "none: %s", e.msg);
	keeper_begin(false);
	CHECK(keeper_end(0) == 0 && access(keeper_path, F_OK), "nobody comes: it ends");
	keeper_begin(false);
	kill(keeper, SIGKILL);
	keeper_end(0);
	CHECK(!access(keeper_path, F_OK), "killed, its socket stays");
	keeper_begin(false);
	s = open_store();
	REQUIRE(!region_create(&s, "last", BYTES, -1, &r, &e) && !region_seal(&s, &r, &e),
		"the next one replaces it %s", e.msg);
	keeper_end(SIGKILL);
	CHECK(((volatile uint8_t *)r.base)[0] == 0, "a keeper that dies takes nothing away");
	CHECK(region_list(&s, &(struct region_fact *){NULL}, &(size_t){0}, &e) == -EPIPE, "%s",
	      e.msg);
	region_close(&s, &r);
	region_store_close(&s);
}

int main(void)
{
	scratch_begin();
	if (!keeper_place(scratch_dir))
		return 1;
	keeper_begin(true);
	life();
	deaths();
	bad_names();
	hostile();
	bounds();
	lives();
	scratch_end();
	return tap_done();
}
