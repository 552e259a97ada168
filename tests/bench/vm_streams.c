// SPDX-License-Identifier: MIT
/*
 * What many streams cost a whole machine: runs in the virtual machine (vm_device.sh).
 *
 *   vm_streams PLACE DAEMON FILES TOKENS SECONDS
 *
 * FILES processes ask at PLACE, a device or a llmdevd's socket, and read their answers in blocking
 * reads. Once each has had a few tokens, SECONDS are measured: tokens that arrived, time that all
 * tasks ran, of that the process DAEMON and the clients. One JSON object; times in nanoseconds.
 */
#include "tests/vm/vm.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#define FILES_MAX 1024
#define WARM	  4 /* tokens of each before the clock starts */

struct shared {
	volatile uint64_t tokens[FILES_MAX];
};

struct sample {
	uint64_t ns, all, daemon, clients, tokens;
};

static void fail(const char *what)
{
	printf("# vm_streams: %s: %s\n", what, strerror(errno));
	fflush(stdout);
	_exit(1);
}

/* ---- a client -------------------------------------------------------------------------------------- */

static size_t request(char *json, size_t size, int number, int tokens)
{
	/* Token ids that differ from one client to the next: nothing is shared. */
	int n = snprintf(json, size,
			 "{\"prompt\":[%d,5,6,7,8,9,10,11],\"max_tokens\":%d,\"ignore_eos\":true,"
			 "\"temperature\":0}",
			 20 + number, tokens);

	return (size_t)n;
}

static int ask_device(const char *path, const char *json, size_t len)
{
	struct llm_submit s = {.size = sizeof(s),
			       .payload = (uintptr_t)json,
			       .payload_len = len,
			       .format = LLM_FMT_JSON};
	int fd = open_events(path, 0);

	if (fd < 0)
		fail(path);
	if (ioctl(fd, LLM_IOC_SUBMIT, &s))
		fail("SUBMIT");
	return fd;
}

static int ask_socket(const char *path, const char *json, size_t len)
{
	struct {
		struct llm_msg head;
		struct llm_msg_submit body;
		char payload[512];
	} m = {.head = {.type = LLM_MSG_SUBMIT, .request_id = 1},
	       .body = {.format = LLM_FMT_JSON, .payload_len = len}};
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	memcpy(m.payload, json, len);
	m.head.size = (uint32_t)(sizeof(m.head) + sizeof(m.body) + (len + 7) / 8 * 8);
	strncpy(addr.sun_path, path, sizeof(addr.sun_path) - 1);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		fail(path);
	if (send(fd, &m, m.head.size, 0) < 0)
		fail("send");
	return fd;
}

static void client(const char *path, int number, int tokens, volatile uint64_t *count)
{
	static char buf[65536];
	char json[512];
	size_t len = request(json, sizeof(json), number, tokens);
	bool device = !strncmp(path, "/dev/", 5);
	int fd = device ? ask_device(path, json, len) : ask_socket(path, json, len);

	for (;;) {
		ssize_t n = read(fd, buf, sizeof(buf));
		struct llm_event *ev;

		if (n <= 0)
			fail("read");
		for (ssize_t at = 0; at < n; at += ev->size) {
			ev = (struct llm_event *)(buf + at);
			if (ev->type == LLM_EVENT_TEXT)
				*count += ((struct llm_text *)(ev + 1))->n_ids;
			if (ev->type == LLM_EVENT_ERROR) {
				printf("# %.*s\n", (int)ev->length - 8, (char *)(ev + 1) + 8);
				fail("the request");
			}
			if (ev->type == LLM_EVENT_DONE)
				_exit(0);
		}
	}
}

/* ---- the machine ------------------------------------------------------------------------------------ */

/* What all tasks ran on all CPUs, by the scheduler's own account. */
static uint64_t all_ns(void)
{
	FILE *f = fopen("/proc/schedstat", "re");
	unsigned long long ns, sum = 0;
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "cpu%*d %*u %*u %*u %*u %*u %*u %llu", &ns) == 1)
			sum += ns;
	}
	if (!sum)
		fail("/proc/schedstat");
	fclose(f);
	return sum;
}

static uint64_t ran_ns(pid_t pid)
{
	unsigned long long ns = 0;
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/schedstat", pid);
	f = fopen(path, "re");
	if (!f || fscanf(f, "%llu", &ns) != 1)
		fail(path);
	fclose(f);
	return ns;
}

static struct sample sample(const struct shared *sh, pid_t daemon, const pid_t *pids, int files)
{
	struct sample s = {.all = all_ns(), .ns = now_ns(), .daemon = ran_ns(daemon)};

	for (int i = 0; i < files; i++) {
		s.clients += ran_ns(pids[i]);
		s.tokens += sh->tokens[i];
	}
	return s;
}

static void wait_for_all(const struct shared *sh, int files)
{
	uint64_t end = now_ns() + 120ull * 1000000000;

	for (int i = 0; i < files; i++) {
		while (sh->tokens[i] < WARM) {
			if (now_ns() > end)
				fail("not all streams run");
			usleep(50000);
		}
	}
}

int main(int argc, char **argv)
{
	struct sample a, b;
	struct shared *sh;
	pid_t pids[FILES_MAX], daemon;
	int files, tokens, seconds;

	if (argc != 6 || (files = atoi(argv[3])) < 1 || files > FILES_MAX) {
		printf("# usage: vm_streams PLACE DAEMON FILES TOKENS SECONDS\n");
		return 2;
	}
	daemon = atoi(argv[2]);
	tokens = atoi(argv[4]);
	seconds = atoi(argv[5]);
	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (sh == MAP_FAILED)
		fail("mmap");
	for (int i = 0; i < files; i++) {
		pids[i] = fork();
		if (!pids[i])
			client(argv[1], i, tokens, &sh->tokens[i]);
		if (pids[i] < 0)
			fail("fork");
	}
	wait_for_all(sh, files);
	a = sample(sh, daemon, pids, files);
	usleep((uint64_t)seconds * 1000000);
	b = sample(sh, daemon, pids, files);
	for (int i = 0; i < files; i++)
		kill(pids[i], SIGKILL);
	while (wait(NULL) > 0)
		;
	b.ns -= a.ns;
	b.tokens -= a.tokens;
	printf("{\"figure\":\"streams\",\"place\":\"%s\",\"files\":%d,\"ns\":%llu,\"tokens\":%llu,"
	       "\"all\":%llu,\"daemon\":%llu,\"clients\":%llu}\n",
	       argv[1], files, (unsigned long long)b.ns, (unsigned long long)b.tokens,
	       (unsigned long long)(b.all - a.all), (unsigned long long)(b.daemon - a.daemon),
	       (unsigned long long)(b.clients - a.clients));
	return 0;
}
