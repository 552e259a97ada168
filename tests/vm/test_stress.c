// SPDX-License-Identifier: MIT
/*
 * Eight clients with many requests each, against a daemon that is killed and replaced all the time,
 * while other clients are killed in the middle of theirs: every answer that is read to its end is
 * whole and right. Then a fuzzer of our own: random commands with random arguments on all files.
 */
#include "tests/vm/vm.h"

#define CLIENTS	 8
#define REQUESTS 125 /* of a client; 1,000 together */

static const char answer[] = "the quick brown fox jumps over the lazy dog";

static uint32_t rnd(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	return *state ^= *state << 5;
}

/* A daemon's whole life, in a process of its own: it dies after a random number of events. */
static pid_t start_daemon(uint32_t *seed, bool fresh)
{
	int limit = (int)(rnd(seed) % 400);
	pid_t pid = fork();

	if (!pid) {
		struct daemon d = {.answer = answer, .limit = limit};

		while (fresh ? create(&d.be, "stress") : attach(&d.be, "stress", FINGERPRINT))
			usleep(1000);
		daemon_run(&d);
		_exit(0);
	}
	return pid;
}

/* Its exit status: 0 if all answers were right. */
static int client(int number)
{
	char buf[128];
	int fd = open("/dev/llm0", O_RDWR), wrong = 0;

	for (int i = 0; i < REQUESTS && fd >= 0; i++) {
		if (i % 25 == 24) { /* a new conversation */
			close(fd);
			fd = open("/dev/llm0", O_RDWR);
		}
		if (write(fd, "question", 8) != 8 || read_answer(fd, buf, sizeof(buf)) < 0 ||
		    strcmp(buf, answer)) {
			wrong++;
			printf("# client %d, request %d: `%s`, errno %d\n", number, i, buf, errno);
		}
	}
	close(fd);
	return fd < 0 || wrong ? 1 : 0;
}

/* Asks and is killed, over and over. */
static void victim(void)
{
	for (;;) {
		char buf[8];
		int fd = open_events("/dev/llm0", 0);

		for (int i = 0; i < 4; i++)
			submit(fd, "never mind");
		read(fd, buf, sizeof(buf));
	}
}

static void test_kills(void)
{
	pid_t clients[CLIENTS], daemon, v = 0;
	uint32_t seed = 4711;
	int daemons = 1, victims = 0, left = CLIENTS, good = 0;

	daemon = start_daemon(&seed, true);
	while (access("/dev/llm0", F_OK))
		usleep(1000);
	fflush(stdout);
	for (int i = 0; i < CLIENTS; i++) {
		clients[i] = fork();
		if (!clients[i]) {
			int rc = client(i);

			fflush(stdout);
			_exit(rc);
		}
	}
	while (left) {
		int status;
		pid_t p = waitpid(-1, &status, WNOHANG);

		if (p == daemon) {
			daemon = start_daemon(&seed, false);
			daemons++;
		}
		for (int i = 0; i < CLIENTS; i++) {
			if (p > 0 && p == clients[i]) {
				left--;
				good += status == 0;
			}
		}
		if (p > 0)
			continue;
		if (!v) {
			v = fork();
			if (!v)
				victim();
			victims++;
		} else if (rnd(&seed) % 8 == 0) {
			kill(v, SIGKILL);
			waitpid(v, &status, 0);
			v = 0;
		}
		if (rnd(&seed) % 16 == 0)
			kill(daemon, SIGKILL);
		usleep(2000);
	}
	if (v) {
		int status;

		kill(v, SIGKILL);
		waitpid(v, &status, 0);
	}
	kill(daemon, SIGKILL);
	waitpid(daemon, NULL, 0);
	check(good == CLIENTS,
	      "%d clients with %d requests, %d daemons and %d other clients killed: %d read every answer right",
	      CLIENTS, REQUESTS, daemons, victims, good);
	works(destroy("stress"), "nothing is left");
}

/* ---- random commands ----------------------------------------------------------------------------------- */

static uint64_t value(uint32_t *seed)
{
	static const uint64_t odd[] = {0, 1, 2, 3, 7, 8, 16, 64, 255, 4096, 0x7fffffff, 0x80000000,
				       0xffffffff, 1ull << 32, 1ull << 63, ~0ull};
	uint32_t r = rnd(seed);

	return r % 4 ? odd[(r >> 8) % (sizeof(odd) / sizeof(odd[0]))] : rnd(seed);
}

static void fuzz(uint32_t seed, int seconds)
{
	static const unsigned char nr[] = {0, 1, 2, 3, 0x10, 0x11, 0x12, 0x13, 0x20, 0x30, 0x7f};
	uint64_t end = now_ns() + (uint64_t)seconds * 1000000000ull, n = 0;
	static uint64_t arg[64], data[8192];
	int fds[16], n_fds = 0;

	fds[n_fds++] = open(CONTROL, O_RDWR);
	while (now_ns() < end) {
		int fd = fds[rnd(&seed) % (uint32_t)n_fds];
		uint32_t what = rnd(&seed) % 20;

		n++;
		for (int i = 0; i < 64; i++)
			arg[i] = rnd(&seed) % 3 ? 0 : value(&seed);
		*(uint32_t *)arg = rnd(&seed) % 8 ? (uint32_t[]){16, 88, 48, 88, 120, 184, 336, 48}[rnd(&seed) % 8] :
						    (uint32_t)value(&seed);
		for (int i = 1; i < 64; i++) /* sometimes an address */
			if (rnd(&seed) % 12 == 0)
				arg[i] = (uintptr_t)data;
		for (int i = 0; i < 16; i++)
			data[rnd(&seed) % 8192] = value(&seed);
		if (rnd(&seed) % 2) { /* a name that passes, now and then */
			memset(arg + 1, 0, LLM_NAME_MAX);
			((char *)(arg + 1))[0] = (char)('a' + rnd(&seed) % 3);
			if (rnd(&seed) % 2) {
				memset(arg + 9, 0, LLM_NAME_MAX);
				arg[17] = FINGERPRINT;
				arg[18] = 0;
				arg[19] = 100 + (100ull << 32);
				arg[20] = arg[21] = 0;
				*(uint32_t *)arg = sizeof(struct llm_device_create);
			}
		}
		switch (what) {
		case 0:
			read(fd, data, value(&seed) % sizeof(data));
			break;
		case 1:
			write(fd, data, value(&seed) % sizeof(data));
			break;
		case 2: {
			struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};

			poll(&p, 1, 0);
			break;
		}
		case 3:
			if (n_fds > 1 && fd != fds[0]) {
				close(fd);
				for (int i = 1; i < n_fds; i++)
					if (fds[i] == fd)
						fds[i] = fds[--n_fds];
			}
			break;
		case 4:
		case 5: {
			char node[16];
			int f;

			snprintf(node, sizeof(node), "/dev/llm%u", rnd(&seed) % 3);
			f = open(node, O_RDWR | O_NONBLOCK);
			if (f >= 0 && n_fds < 16)
				fds[n_fds++] = f;
			else if (f >= 0)
				close(f);
			break;
		}
		default: {
			unsigned int cmd = _IO(LLM_IOC_MAGIC, nr[rnd(&seed) % sizeof(nr)]);
			int rc = ioctl(fd, cmd, arg), f = -1;

			if (!rc && cmd == LLM_IOC_DEVICE_CREATE)
				f = ((struct llm_device_create *)arg)->backend_fd;
			if (!rc && cmd == LLM_IOC_DEVICE_ATTACH)
				f = ((struct llm_device_attach *)arg)->backend_fd;
			if (f >= 0) {
				fcntl(f, F_SETFL, O_NONBLOCK);
				if (n_fds < 16)
					fds[n_fds++] = f;
				else
					close(f);
			}
		}
		}
	}
	while (n_fds)
		close(fds[--n_fds]);
	for (char c = 'a'; c < 'd'; c++)
		destroy((char[]){c, '\0'});
	printf("# %llu random commands\n", (unsigned long long)n);
}

int main(void)
{
	const char *s = getenv("FUZZ_SECONDS");

	test_kills();
	fuzz(12345, s ? atoi(s) : 20);
	check(true, "random commands for a while: the machine still stands");
	return done();
}
