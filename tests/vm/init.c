// SPDX-License-Identifier: MIT
/*
 * PID 1 of the test machine (see run): mounts what the tests need, loads the module, runs every
 * program below /tests in order of its name, unloads the module, shows the kernel's log, powers off.
 *
 * On the console: "== NAME" before a program's output, "-- NAME STATUS" after it, "-- all STATUS" at
 * the very end; whoever reads it misses that line if the machine died. /tests/NAME.args may hold
 * the module's parameters for this program: it is then loaded anew. A program gets SECONDS (kernel
 * command line: seconds=N), then it is killed.
 *
 * A debug kernel's own tools are asked at the end, when the module has gone: kmemleak for memory that
 * nobody has any more, lockdep whether it was at work until then.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <dirent.h>
#include <time.h>
#include <unistd.h>

#define MODULE "/llm.ko"

static int failures;
static int seconds = 300;
static int demo; /* kernel command line: somebody watches */

static void complain(const char *what)
{
	printf("not ok - vm: %s: %s\n", what, strerror(errno));
	failures++;
}

static void mount_all(void)
{
	static const struct {
		const char *type, *where;
	} m[] = {
		{"proc", "/proc"},
		{"sysfs", "/sys"},
		{"devtmpfs", "/dev"},
		{"tmpfs", "/tmp"},
		{"debugfs", "/sys/kernel/debug"},
		{"tracefs", "/sys/kernel/tracing"},
		{"cgroup2", "/sys/fs/cgroup"},
	};

	for (size_t i = 0; i < sizeof(m) / sizeof(m[0]); i++) {
		mkdir(m[i].where, 0755);
		if (mount(m[i].type, m[i].where, m[i].type, 0, NULL) && errno != EBUSY)
			printf("# vm: mount %s: %s\n", m[i].where, strerror(errno));
	}
}

static int load_file(const char *path, const char *args)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int rc;

	if (fd < 0)
		return errno == ENOENT ? 0 : -1;
	rc = (int)syscall(SYS_finit_module, fd, args, 0);
	close(fd);
	return rc;
}

static int load(const char *args)
{
	return load_file(MODULE, args);
}

static int is_file(const struct dirent *d)
{
	return d->d_name[0] != '.';
}

/* The kernel's own, where a test wants a disk (tests/vm/disk), in the order of their names. */
static void load_others(void)
{
	struct dirent **names;
	int n = scandir("/modules", &names, is_file, alphasort);

	for (int i = 0; i < n; i++) {
		char path[512];

		snprintf(path, sizeof(path), "/modules/%s", names[i]->d_name);
		if (load_file(path, "") && errno != EEXIST)
			printf("# vm: %s: %s\n", path, strerror(errno));
	}
}

static int unload(void)
{
	if (access(MODULE, F_OK))
		return 0;
	return (int)syscall(SYS_delete_module, "llm", O_NONBLOCK);
}

/* A line of a small file, "" if there is none. */
static const char *line_of(const char *path)
{
	static char line[512];
	FILE *f = fopen(path, "re");

	line[0] = '\0';
	if (f) {
		if (!fgets(line, sizeof(line), f))
			line[0] = '\0';
		line[strcspn(line, "\n")] = '\0';
		fclose(f);
	}
	return line;
}

static int wait_for(pid_t pid, int *status)
{
	for (int i = 0; i < seconds * 20; i++) {
		pid_t p = waitpid(-1, status, WNOHANG); /* orphans are ours as well */

		if (p == pid)
			return 0;
		if (p < 0 && errno == ECHILD)
			return -1;
		if (p <= 0)
			usleep(50000);
	}
	kill(-pid, SIGKILL);
	waitpid(pid, status, 0);
	return -1;
}

static int put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int rc = fd >= 0 && write(fd, text, strlen(text)) > 0 ? 0 : -1;

	close(fd);
	return rc;
}

static void run(const char *name)
{
	char path[512];
	int status = 0;
	pid_t pid;

	snprintf(path, sizeof(path), "/tests/%s.args", name);
	if (!access(path, F_OK) && (unload() || load(line_of(path))))
		complain(path);
	chmod("/dev/llm-control", 0660); /* whatever the one before did to them */
	put("/sys/kernel/tracing/tracing_on", "1");
	close(open("/sys/kernel/tracing/trace", O_WRONLY | O_TRUNC | O_CLOEXEC));
	if (!demo)
		printf("== %s\n", name);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		setsid();
		snprintf(path, sizeof(path), "/tests/%s", name);
		execl(path, path, (char *)NULL);
		printf("# vm: exec %s: %s\n", path, strerror(errno));
		_exit(127);
	}
	if (pid < 0 || wait_for(pid, &status)) {
		printf("not ok - %s: still running after %d seconds\n", name, seconds);
		failures++;
	} else if (WIFSIGNALED(status)) {
		printf("not ok - %s: killed by signal %d\n", name, WTERMSIG(status));
		failures++;
	} else if (WEXITSTATUS(status)) {
		failures++;
	}
	kill(-pid, SIGKILL); /* what it left behind */
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	if (!demo)
		printf("-- %s %d\n", name, status);
	fflush(stdout);
}

static int is_test(const struct dirent *d)
{
	return d->d_name[0] != '.' && !strchr(d->d_name, '.');
}

#define KMEMLEAK "/sys/kernel/debug/kmemleak"

/* It finds by and by: what a register or a stack still points to is found by a later scan. */
static void look_for_leaks(void)
{
	char line[256];
	int found = 0;
	FILE *f;

	if (access(KMEMLEAK, F_OK))
		return;
	printf("== kmemleak\n");
	for (int i = 0; i < 2; i++) {
		sleep(6); /* younger objects are not reported */
		if (put(KMEMLEAK, "scan"))
			complain("kmemleak: scan");
	}
	f = fopen(KMEMLEAK, "re");
	while (f && fgets(line, sizeof(line), f)) {
		found += !strncmp(line, "unreferenced object", 19);
		printf("# %s", line);
	}
	if (f)
		fclose(f);
	else
		complain("kmemleak");
	printf("%s - unloaded: %d pieces of memory leaked\n", found ? "not ok" : "ok", found);
	failures += found > 0;
	printf("-- kmemleak %d\n", found);
}

/* After its first report, or when its tables are full, lockdep looks at nothing any more. */
static void look_at_lockdep(void)
{
	char line[256];
	int on = -1;
	FILE *f = fopen("/proc/lockdep_stats", "re");

	if (!f)
		return;
	while (fgets(line, sizeof(line), f))
		sscanf(line, " debug_locks: %d", &on);
	fclose(f);
	printf("== lockdep\n%s - it was at work to the end\n-- lockdep %d\n",
	       on == 1 ? "ok" : "not ok", on);
	failures += on != 1;
}

static void show_log(void)
{
	int size = klogctl(10, NULL, 0);
	char *log = malloc((size_t)(size > 0 ? size : 0) + 1);
	int n = log ? klogctl(3, log, size) : -1;

	printf("== dmesg\n");
	if (n > 0)
		fwrite(log, 1, (size_t)n, stdout);
	fflush(stdout);
	free(log);
}

int main(void)
{
	struct dirent **tests;
	const char *arg;
	int n;

	mount_all();
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("\n"); /* whatever the firmware left on the line */
	setenv("PATH", "/bin:/sbin", 1);
	setenv("HOME", "/tmp", 1);
	arg = strstr(line_of("/proc/cmdline"), "seconds=");
	if (arg)
		seconds = atoi(arg + 8);
	demo = strstr(line_of("/proc/cmdline"), " demo") != NULL;
	if (!demo)
		printf("-- init\n");
	load_others();
	if (load(""))
		complain("loading the module");
	n = scandir("/tests", &tests, is_test, alphasort);
	for (int i = 0; i < n; i++)
		run(tests[i]->d_name);
	if (n <= 0)
		complain("/tests");
	if (!demo) {
		if (unload())
			complain("unloading the module");
		look_for_leaks();
		look_at_lockdep();
		show_log();
		printf("-- all %d\n", failures);
	}
	fflush(stdout);
	sync();
	reboot(RB_POWER_OFF);
	return 1;
}
