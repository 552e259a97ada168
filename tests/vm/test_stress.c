// SPDX-License-Identifier: MIT
/*
 * Eight clients with many requests each, against a daemon that is killed and replaced all the time,
 * while other clients are killed in the middle of theirs: every answer that is read to its end is
 * whole and right.
 */
#include "tests/vm/vm.h"

#define CLIENTS	 8

/* Of a client: STRESS_REQUESTS, or 125: 1,000 together. */
static int requests = 125;

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

	for (int i = 0; i < requests && fd >= 0; i++) {
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
	      CLIENTS, requests, daemons, victims, good);
	works(destroy("stress"), "nothing is left");
}

int main(void)
{
	const char *n = getenv("STRESS_REQUESTS");

	if (n)
		requests = atoi(n);
	test_kills();
	return done();
}
