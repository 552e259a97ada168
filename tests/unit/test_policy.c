// SPDX-License-Identifier: MIT
/*
 * llmdev-policyd's configuration and judgement; the steps that make room, over made-up /proc and
 * /sys; conditions that are waited for.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config.h"
#include "judge.h"
#include "memory/policy.h"
#include "memory/until.h"
#include "tests/tap.h"
#include "watch.h"

#define GB     (1ull << 30)
#define SECOND 1000000000ull

static char root[256];

static const char *at(const char *path)
{
	static char full[4][512];
	static int i;

	i = (i + 1) % 4;
	snprintf(full[i], sizeof(full[i]), "%s%s", root, path);
	return full[i];
}

static void put(const char *path, const char *text)
{
	char full[512], *slash;
	FILE *f;

	snprintf(full, sizeof(full), "%s", at(path));
	for (slash = full + strlen(root) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
		*slash = '\0';
		mkdir(full, 0755);
	}
	f = fopen(full, "w");
	if (!f || fputs(text, f) < 0 || fclose(f))
		abort();
}

static const char *get(const char *path)
{
	static char text[4096];
	FILE *f = fopen(at(path), "r");
	size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;

	text[n] = '\0';
	if (f)
		fclose(f);
	return text;
}

/* ---- configuration --------------------------------------------------------------------------- */

static void test_config(void)
{
	struct config c;
	struct err e;

	put("/good/10-a.conf",
	    "# words\n\n [policy] \nmode = auto\nfree=8G\n blocks = 512 \n"
	    "hysteresis = 50%\ninterval = 0.5s\n[files]\npath = /srv/models\n"
	    "path=/home/*/.cache/**\n[filesystems]\npath = /srv\n"
	    "[cgroups]\nreclaim = a.slice/b.service\n"
	    "[start vllm 1]\nunit = vllm.service\nroom = 96G\nuntil = http:8000/health\n"
	    "seconds=60\n[start any]\ncgroup = /docker/*\nroom = 1G\n");
	put("/good/20-b.conf", "[policy]\nfree = 9G\n[files]\npath = /more");
	put("/good/ignored.txt", "[[[[");
	put("/good/.hidden.conf", "[[[[");
	REQUIRE(!config_read(&c, at("/good"), &e), "a folder of files: %s", e.msg);
	CHECK(c.mode == MODE_AUTO && c.free == 9 * GB && c.blocks == 512 && c.n_read == 2,
	      "values; a later file's counts");
	CHECK(c.hysteresis == 0.5 && c.interval == 0.5 && c.pause == 1,
	      "fractions, seconds, defaults");
	CHECK(c.files.n == 3 && !strcmp(c.files.v[2], "/more") && c.filesystems.n == 1 &&
		      c.cgroups.n == 1,
	      "lists");
	CHECK(c.n_triggers == 2 && !strcmp(c.trigger[0].pattern, "*/vllm.service") &&
		      c.trigger[0].room == 96 * GB && c.trigger[0].until.kind == UNTIL_HTTP &&
		      c.trigger[0].seconds == 60 && !strcmp(c.trigger[1].pattern, "docker/*"),
	      "triggers");
	CHECK(config_fits(&c, 4 * GB, &e) == -EINVAL, "too much for the machine: %s", e.msg);
	CHECK(!config_fits(&c, 128 * GB, &e), "not too much for another");
	config_free(&c);
	CHECK(!config_read(&c, at("/good/20-b.conf"), &e) && c.mode == MODE_OBSERVE,
	      "one file; observing");
	config_free(&c);
	CHECK(config_read(&c, at("/nowhere"), &e) == -ENOENT, "no such file: %s", e.msg);
	config_free(&c);
}

static void test_nonsense(void)
{
	static const struct {
		const char *text, *says;
	} bad[] = {
		{"mode = auto\n", ":1: mode: before the first"},
		{"[policy]\nmode = always\n", ":2: mode = always"},
		{"[policy]\nfree = lots\n", ":2: free = lots: not a size"},
		{"[policy]\nfree = -1G\n", "not a size"},
		{"[policy]\nblocks = 1e3\n", ":2: blocks = 1e3: not a whole number"},
		{"[policy]\nblocks = 8G\n", ":2: blocks = 8G: not a whole number"},
		{"[start x]\nunit = ../y\nroom = 1G\n", ":2: unit = ../y: not a unit's name"},
		{"[policy]\nfree = 99999999999999999999\n", "not a size"},
		{"[policy]\nfree = 99999T\n", "not a size"},
		{"[policy]\nfree = 1G\n\nfree = 2G\n", ":4: free: set twice"},
		{"[policy]\nspeed = 1\n", "unknown in [policy]"},
		{"[policy]\nfree\n", "neither a [section]"},
		{"[policy]\nfree =\n", "empty"},
		{"[policy]\n= 5\n", "empty"},
		{"[policy]\nhysteresis = 1e9%\n", "from 0 to 400%"},
		{"[policy]\nhysteresis = nan\n", "from 0"},
		{"[policy]\ninterval = 0\n", "from 0.05"},
		{"[policy\n", "ends with ]"},
		{"[policy] x\n", "ends with ]"},
		{"[police]\n", "there are [policy]"},
		{"[start]\n", "there are [policy]"},
		{"[start ]\n", "there are [policy]"},
		{"[files]\npath = srv\n", ":2: srv: not a full path"},
		{"[files]\nmode = auto\n", "there is path"},
		{"[cgroups]\nreclaim = ../../etc\n", ".. is not allowed"},
		{"[cgroups]\npath = /x\n", "there is reclaim"},
		{"[start a]\nunit = a.service\n", ":1: [start a] needs"},
		{"[start a]\nroom = 1G\n[files]\n", ":1: [start a] needs"},
		{"[start a]\nunit = a.service\ncgroup = b\nroom = 1G\n", "give one of"},
		{"[start a]\nunit = a.service\nroom = 1G\nuntil = maybe\n", "no condition"},
		{"[start a]\nunit = a.service\nroom = 1G\nwhile = x\n", "unknown in [start]"},
		{"[policy]\nmode = au\001to\n", "control character"},
	};
	static char long_line[8192];
	struct config c;
	struct err e;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		put("/bad.conf", bad[i].text);
		CHECK(config_read(&c, at("/bad.conf"), &e) == -EINVAL &&
			      strstr(e.msg, bad[i].says) && strstr(e.msg, "bad.conf:"),
		      "refused: %s", e.msg + strlen(root));
		config_free(&c);
	}
	memset(long_line, 'x', sizeof(long_line) - 1);
	put("/bad.conf", long_line);
	CHECK(config_read(&c, at("/bad.conf"), &e) == -EINVAL, "refused: %s", e.msg + strlen(root));
	config_free(&c);
	CHECK(config_read(&c, "/dev/zero", &e) == -EINVAL, "a device: %s", e.msg);
	config_free(&c);
}

/* ---- judgement ------------------------------------------------------------------------------- */

static void test_judge(void)
{
	struct config c = {
		.mode = MODE_FILES, .free = 8 * GB, .blocks = 100, .hysteresis = 0.25, .pause = 2};
	struct mem_now plenty = {.total = 100 * GB, .free = 9 * GB, .blocks = 200}, low = plenty,
		       broken = plenty, better = plenty;
	struct room_goal goal;
	struct judge j = {0};

	low.free = 7 * GB;
	broken.blocks = 99;
	better.free = 10 * GB;
	CHECK(!judge_look(&j, &c, 0, &plenty, SECOND, &goal) && !j.below,
	      "above the floors: nothing");
	CHECK(judge_look(&j, &c, 0, &low, SECOND, &goal) && goal.free == 10 * GB &&
		      goal.blocks == 125,
	      "below: until the floor and its hysteresis");
	judge_acted(&j, &c, &goal, 3 * GB, &better, SECOND);
	CHECK(!judge_look(&j, &c, 0, &low, 2 * SECOND, &goal) && j.put_off == 1,
	      "not again at once");
	CHECK(judge_look(&j, &c, 0, &low, 3 * SECOND, &goal) && j.below_count == 1,
	      "but after the pause");
	CHECK(judge_look(&j, &c, 0, &broken, 3 * SECOND, &goal), "free blocks count as well");
	CHECK(judge_look(&j, &c, 20 * GB, &better, 3 * SECOND, &goal) &&
		      goal.free == 22 * GB + room_margin(20 * GB),
	      "what is held for somebody is a floor");
	CHECK(judge_look(&j, &c, 900 * GB, &better, 3 * SECOND, &goal) &&
		      goal.free == 102 * GB + room_margin(900 * GB) / 2,
	      "though never more than there is");
	for (int i = 0; i < 3; i++)
		judge_acted(&j, &c, &goal, 3 * GB, &low, 10 * SECOND);
	CHECK(j.futile == 3 && j.next_ns == 10 * SECOND + 16 * SECOND,
	      "what does not help is tried less often");
	for (int i = 0; i < 100; i++)
		judge_acted(&j, &c, &goal, 3 * GB, &low, 0);
	CHECK(j.next_ns == JUDGE_PAUSE_MAX_NS, "but at least once a minute");
	CHECK(!judge_look(&j, &c, 0, &plenty, 0, &goal) && !j.futile, "forgotten when all is well");
	c.mode = MODE_OFF;
	CHECK(!judge_look(&j, &c, 0, &low, 1000 * SECOND, &goal), "mode off");
	CHECK(!mode_allows(MODE_OBSERVE) && mode_allows(MODE_FILES) == ROOM_BIT(ROOM_FILES) &&
		      mode_allows(MODE_GLOBAL) == ROOM_ALL &&
		      !(mode_allows(MODE_AUTO) & ROOM_BIT(ROOM_DROP_CACHES)),
	      "modes");
}

static void test_hold(void)
{
	struct mem_now n = {.total = 100 * GB, .free = 60 * GB, .cached = 20 * GB};
	struct room_hold h = {.bytes = 50 * GB, .used = room_used(&n)};

	CHECK(room_hold_left(&h, &n) == 50 * GB, "nothing was taken yet");
	n.free = 10 * GB;
	n.cached = 70 * GB;
	CHECK(room_hold_left(&h, &n) == 50 * GB, "page cache is not what it was made for");
	n.cached = 40 * GB;
	CHECK(room_hold_left(&h, &n) == 20 * GB + GB / 4, "what a driver took is");
	n.cached = 0;
	CHECK(room_hold_left(&h, &n) == 0, "all was taken");
}

/* ---- the steps ------------------------------------------------------------------------------- */

static struct room_done done[16];
static int n_done;

static void told(void *ctx, const struct room_done *d)
{
	done[n_done++ % 16] = *d;
	/* The step that is named helps: MemFree rises. */
	if (ctx && (int)d->step == *(int *)ctx)
		put("/proc/meminfo",
		    "MemTotal: 1000000 kB\nMemFree: 600000 kB\nCached: 300000 kB\n");
}

static void meminfo_low(void)
{
	put("/proc/meminfo",
	    "MemTotal: 1000000 kB\nMemFree: 100000 kB\nCached: 800000 kB\nDirty: 1000 kB\n");
}

static void test_steps(void)
{
	char *files[] = {(char *)at("/srv/*.bin")}, *fs[] = {(char *)at("/srv")},
	     *groups[] = {"load.slice"};
	struct room_means m = {.root = root,
			       .page = 4096,
			       .allowed = ROOM_ALL,
			       .control = -1,
			       .files = files,
			       .n_files = 1,
			       .filesystems = fs,
			       .n_filesystems = 1,
			       .cgroups = groups,
			       .n_cgroups = 1};
	struct room_goal goal = {.free = 300000 * 1024ull};
	struct mem_now now;
	struct err e;
	int helps = ROOM_RECLAIM;

	put("/srv/a.bin", "some bytes");
	put("/proc/buddyinfo", "Node 0, zone Normal 0 0 0 0 0 0 0 0 0 1 0\n");
	put("/proc/sys/vm/drop_caches", "");
	put("/proc/sys/vm/compact_memory", "");
	put("/sys/fs/cgroup/memory.reclaim", "");
	put("/sys/fs/cgroup/load.slice/memory.reclaim", "");
	meminfo_low();
	CHECK(!room_make(&m, &goal, told, NULL, &now, &e) && now.free == 100000 * 1024ull, "steps");
	CHECK(n_done == N_ROOM_STEPS, "where nothing helps, all of them: %d", n_done);
	for (int i = 0; i < n_done; i++)
		CHECK(done[i].step == (enum room_step)i && done[i].asked == 200000 * 1024ull,
		      "%s: %s", room_step_name[i], done[i].note);
	CHECK(done[ROOM_MODULE].error == -ENOENT, "no module here");
	CHECK(!strcmp(get("/sys/fs/cgroup/load.slice/memory.reclaim"), "204800000 swappiness=0"),
	      "the named cgroup is asked: %s", get("/sys/fs/cgroup/load.slice/memory.reclaim"));
	CHECK(*get("/sys/fs/cgroup/memory.reclaim"), "then the root cgroup");
	CHECK(!strcmp(get("/proc/sys/vm/drop_caches"), "1\n") &&
		      !*get("/proc/sys/vm/compact_memory"),
	      "caches dropped; not compacted: no blocks were asked for");

	n_done = 0;
	meminfo_low();
	put("/proc/sys/vm/drop_caches", "");
	CHECK(!room_make(&m, &goal, told, &helps, &now, &e) && n_done == 3 &&
		      !*get("/proc/sys/vm/drop_caches"),
	      "no step after the one that was enough");
	n_done = 0;
	CHECK(!room_make(&m, &goal, told, NULL, &now, &e) && n_done == 0, "enough: no step at all");
	goal.blocks = 5;
	m.allowed = ROOM_BIT(ROOM_COMPACT);
	CHECK(!room_make(&m, &goal, told, NULL, &now, &e) && n_done == 1 &&
		      !strcmp(get("/proc/sys/vm/compact_memory"), "1\n"),
	      "blocks are missing: compacted");
	CHECK(done[0].asked == 4 * MEM_BLOCK, "of %llu bytes", (unsigned long long)done[0].asked);
	m.root = "/nowhere";
	CHECK(room_make(&m, &goal, told, NULL, &now, &e) == -ENOENT, "no /proc: %s", e.msg);
	n_done = 0;
	m.root = root;
	m.allowed = ROOM_ALL;
	m.deadline_ns = 1;
	room_make(&m, &goal, told, NULL, &now, &e);
	CHECK(n_done == 0, "no time left: no step");
}

/* ---- new cgroups ----------------------------------------------------------------------------- */

static char seen[1024];

static void started(void *ctx, const char *path)
{
	snprintf(seen + strlen(seen), sizeof(seen) - strlen(seen), " %s", path);
}

static void test_watch(void)
{
	struct watch *w = NULL;
	struct err e;

	CHECK(watch_open(&w, "/nowhere", &e) == -ENOENT, "no cgroups: %s", e.msg);
	put("/sys/fs/cgroup/cgroup.procs", "");
	put("/sys/fs/cgroup/system.slice/old.service/cgroup.procs", "");
	REQUIRE(!watch_open(&w, root, &e), "watched");
	watch_read(w, started, NULL);
	CHECK(!*seen, "what runs already is not new:%s", seen);
	mkdir(at("/sys/fs/cgroup/system.slice/new.service"), 0755);
	mkdir(at("/sys/fs/cgroup/user.slice"), 0755);
	mkdir(at("/sys/fs/cgroup/user.slice/deep.service"), 0755);
	watch_read(w, started, NULL);
	CHECK(strstr(seen, " system.slice/new.service") && strstr(seen, " user.slice/deep.service"),
	      "what starts is told, also below what is new itself:%s", seen);
	rmdir(at("/sys/fs/cgroup/system.slice/new.service"));
	watch_read(w, started, NULL);
	*seen = '\0';
	mkdir(at("/sys/fs/cgroup/system.slice/new.service"), 0755);
	watch_read(w, started, NULL);
	CHECK(!strcmp(seen, " system.slice/new.service"), "ended and started again:%s", seen);
	watch_close(w);
}

/* ---- conditions ------------------------------------------------------------------------------ */

static void *answer_http(void *arg)
{
	int listener = *(int *)arg;

	for (int i = 0; i < 2; i++) {
		const char *text = i ? "HTTP/1.1 200 OK\r\n\r\n" : "HTTP/1.1 503 Loading\r\n\r\n";
		int fd = accept(listener, NULL, NULL);
		char buf[512];

		if (recv(fd, buf, sizeof(buf), 0) > 0)
			send(fd, text, strlen(text), MSG_NOSIGNAL);
		close(fd);
	}
	return NULL;
}

static void test_until(void)
{
	static const char *const bad[] = {
		"",	   "0",	       "65536",		"99999999999", "-1",
		"port:",   "port:a",   "http:",		"http:x/",     "unit:",
		"unit:-x", "pid:",     "pid:0",		"pid:-1",      "container:--rm",
		"maybe",   "unit:a b", "container:a;b", "http:80/a b", "port:localhost:80"};
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	pthread_t thread;
	struct until u;
	char text[64];
	struct err e;
	pid_t child;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK(until_parse(&u, bad[i], &e) == -EINVAL, "refused: %s", e.msg);
	CHECK(!until_parse(&u, "port:[::1]:80", &e) && !strcmp(u.name, "::1") && u.number == 80,
	      "IPv6");
	CHECK(!until_parse(&u, "x@1.service", &e) && u.kind == UNTIL_UNIT, "a unit by its name");
	if (bind(fd, (struct sockaddr *)&a, len) || getsockname(fd, (struct sockaddr *)&a, &len))
		abort();
	snprintf(text, sizeof(text), "%d", ntohs(a.sin_port));
	CHECK(!until_parse(&u, text, &e) && until_holds(&u, &e) == 0, "a port that is closed");
	listen(fd, 8);
	CHECK(until_holds(&u, &e) == 1, "a port that is open");
	close(fd);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	a.sin_port = 0;
	if (bind(fd, (struct sockaddr *)&a, len) || getsockname(fd, (struct sockaddr *)&a, &len) ||
	    listen(fd, 8) || pthread_create(&thread, NULL, answer_http, &fd))
		abort();
	snprintf(text, sizeof(text), "http:%d/health", ntohs(a.sin_port));
	CHECK(!until_parse(&u, text, &e) && until_holds(&u, &e) == 0, "HTTP 503");
	CHECK(until_holds(&u, &e) == 1, "HTTP 200");
	pthread_join(thread, NULL);
	close(fd);
	child = fork();
	if (!child)
		_exit(0);
	snprintf(text, sizeof(text), "pid:%d", (int)child);
	CHECK(!until_parse(&u, text, &e), "a process");
	waitpid(child, NULL, 0);
	CHECK(until_holds(&u, &e) == 1, "that has ended");
	CHECK(until_parse(&u, text, &e) == -ESRCH, "and is not waited for then: %s", e.msg);
}

/* ---- room for a daemon ----------------------------------------------------------------------- */

static void test_room(void)
{
	struct memory_room r;
	struct err e;

	setenv(POLICYD_ENV, at("/no.sock"), 1);
	CHECK(!memory_make_room(1 << 20, &r, &e) && r.reached && !*r.who,
	      "a megabyte: nobody need be asked");
	CHECK(memory_make_room((uint64_t)1 << 60, &r, &e) == -ENOMEM && strstr(e.msg, "missing") &&
		      !r.policyd,
	      "too much: %s", e.msg);
	CHECK(policyd_connect(NULL, &e) == -ENOENT, "nobody there: %s", e.msg);
}

int main(void)
{
	char command[300];
	int rc;

	snprintf(root, sizeof(root), "%s/policy.XXXXXX",
		 getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	if (!mkdtemp(root))
		return 1;
	test_config();
	test_nonsense();
	test_judge();
	test_hold();
	test_steps();
	test_watch();
	test_until();
	test_room();
	snprintf(command, sizeof(command), "rm -rf '%s'", root);
	rc = system(command);
	return rc ? 1 : tap_done();
}
