// SPDX-License-Identifier: MIT
/*
 * llmctl report: one file about this machine, for whoever works on llmdev and does not have it: what it
 * is, what doctor finds, how fast its memory, its disk and the built-in model are. Names of the machine,
 * its users and their folders are taken out. Nothing is sent anywhere.
 *
 * At most ten minutes, --quick twenty seconds: what would begin after that is left out, and said.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/size.h"
#include "bench_memory.h"
#include "ctl.h"
#include "doctor.h"
#include "report_io.h"

#define USAGE	  "report [-o FILE] [--quick] [--limit SECONDS] [--model MODEL] [--dir DIR]"
#define OUT_MAX	  (1 << 20)
#define LIMIT_S	  600
#define QUICK_S	  20
#define NAMES_MAX 8

enum { OPT_QUICK = 1, OPT_LIMIT, OPT_MODEL, OPT_DIR };

struct report {
	const char *out, *model, *dir;
	bool quick;
	int limit_s;
	uint64_t start_ns;
	json_t *j;
};

static double left_s(const struct report *r)
{
	return r->limit_s - (double)(ctl_now_ns() - r->start_ns) * 1e-9;
}

/* ---- the machine ------------------------------------------------------------------------------ */

static void put_line(json_t *j, const char *key, const char *path)
{
	struct view here = {""};
	char line[160];

	if (view_line(&here, path, line, sizeof(line)) && line[0])
		json_object_set_new(j, key, json_string(line));
}

/* The value of the first line "key<blanks>: value" in a file; counts how many lines have the key. */
static int find_key(const char *path, const char *key, char *out, size_t size)
{
	struct view here = {""};
	char *s = view_read(&here, path, NULL), *line, *save = NULL, *p;
	size_t n = strlen(key);
	int count = 0;

	out[0] = '\0';
	for (line = s ? strtok_r(s, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save)) {
		p = line + n;
		if (strncmp(line, key, n) || !(p += strspn(p, " \t"), *p == ':' || *p == '='))
			continue;
		if (!count++)
			snprintf(out, size, "%s", p + 1 + strspn(p + 1, " \t\""));
	}
	out[strcspn(out, "\"")] = '\0';
	free(s);
	return count;
}

/* Model and size, nothing that tells one disk from another. */
static bool put_disk(void *ctx, const char *name)
{
	struct view here = {""};
	char path[320], model[80];
	long long sectors = 0, rotates = 0;
	json_t *j;

	snprintf(path, sizeof(path), "/sys/block/%.200s/device/model", name);
	if (!strncmp(name, "loop", 4) || !strncmp(name, "ram", 3))
		return true;
	view_line(&here, path, model, sizeof(model));
	snprintf(path, sizeof(path), "/sys/block/%.200s/size", name);
	if (!view_number(&here, path, &sectors) || !sectors)
		return true;
	snprintf(path, sizeof(path), "/sys/block/%.200s/queue/rotational", name);
	view_number(&here, path, &rotates);
	j = json_pack("{sI sb}", "bytes", (json_int_t)sectors * 512, "rotates", (int)rotates);
	if (model[0])
		json_object_set_new(j, "model", json_string(model));
	json_array_append_new(ctx, j);
	return true;
}

static bool count_node(void *ctx, const char *name)
{
	*(int *)ctx += !strncmp(name, "node", 4) && isdigit((unsigned char)name[4]);
	return true;
}

static json_t *machine(void)
{
	static const char *const memory[] = {"MemTotal",    "MemFree",	 "MemAvailable",
					     "Cached",	    "Slab",	 "AnonPages",
					     "Shmem",	    "SwapTotal", "SwapFree",
					     "CmaTotal",    "CmaFree",	 "HugePages_Total",
					     "Hugepagesize"};
	json_t *j = json_object(), *m = json_object(), *disks = json_array();
	struct view here = {""};
	char text[160];
	int nodes = 0, cpus;

	cpus = find_key("/proc/cpuinfo", "model name", text, sizeof(text));
	if (!cpus)
		cpus = find_key("/proc/cpuinfo", "CPU part", text, sizeof(text));
	json_object_set_new(j, "cpu", json_string(text));
	json_object_set_new(j, "cpus", json_integer(cpus));
	if (find_key("/etc/os-release", "PRETTY_NAME", text, sizeof(text)))
		json_object_set_new(j, "system", json_string(text));
	put_line(j, "product", "/sys/class/dmi/id/product_name");
	put_line(j, "vendor", "/sys/class/dmi/id/sys_vendor");
	put_line(j, "firmware", "/sys/class/dmi/id/bios_version");
	put_line(j, "kernel", "/proc/sys/kernel/osrelease");
	put_line(j, "kernel_build", "/proc/sys/kernel/version");
	put_line(j, "nvidia_driver", "/sys/module/nvidia/version");
	put_line(j, "huge_pages", "/sys/kernel/mm/transparent_hugepage/enabled");
	put_line(j, "huge_pages_defrag", "/sys/kernel/mm/transparent_hugepage/defrag");
	put_line(j, "lru_gen", "/sys/kernel/mm/lru_gen/enabled");
	put_line(j, "swappiness", "/proc/sys/vm/swappiness");
	put_line(j, "min_free_kbytes", "/proc/sys/vm/min_free_kbytes");
	put_line(j, "watermark_scale_factor", "/proc/sys/vm/watermark_scale_factor");
	view_list(&here, "/sys/devices/system/node", count_node, &nodes);
	json_object_set_new(j, "numa_nodes", json_integer(nodes));
	for (size_t i = 0; i < sizeof(memory) / sizeof(memory[0]); i++) {
		long long v = doctor_meminfo(&here, memory[i]);

		if (v >= 0)
			json_object_set_new(m, memory[i], json_integer(v));
	}
	json_object_set_new(j, "meminfo", m);
	view_list(&here, "/sys/block", put_disk, disks);
	json_object_set_new(j, "disks", disks);
	return j;
}

/* ---- measurements ----------------------------------------------------------------------------- */

static json_t *missing(const char *why)
{
	return json_pack("{ss}", "missing", why);
}

static bool go_on(int done, int total)
{
	ctl_progress(NULL, "memory", (uint64_t)done, (uint64_t)total);
	return !ctl_sigint();
}

static json_t *memory_section(const struct report *r)
{
	struct memory_bench *b = calloc(1, sizeof(*b));
	json_t *j;
	struct err e;

	if (!b)
		return missing("out of memory");
	b->rounds = r->quick ? 2 : 5;
	b->control = "/dev/llm-control";
	b->progress = go_on;
	b->bytes = r->quick ? (size_t)128 << 20 : 0;
	j = memory_bench(b, &e) ? missing(e.msg) : memory_bench_json(b);
	ctl_progress_end();
	free(b);
	return j;
}

/* Runs this program with argv, for at most `limit` seconds; its stdout is JSON. */
static json_t *run_self(char *const argv[], double limit)
{
	uint64_t end = ctl_now_ns() + (uint64_t)(limit * 1e9);
	char *out = malloc(OUT_MAX);
	posix_spawn_file_actions_t fa;
	int fd[2], status = -1, rc;
	struct pollfd p;
	size_t n = 0;
	ssize_t got = 1;
	pid_t pid;
	json_t *j;

	if (!out || pipe2(fd, O_CLOEXEC)) {
		free(out);
		return missing("out of memory");
	}
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, fd[1], 1);
	posix_spawn_file_actions_addopen(&fa, 2, "/dev/null", O_WRONLY, 0);
	rc = posix_spawn(&pid, "/proc/self/exe", &fa, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	close(fd[1]);
	p = (struct pollfd){.fd = fd[0], .events = POLLIN};
	while (!rc && got > 0 && n + 1 < OUT_MAX) {
		uint64_t now = ctl_now_ns();

		if (now >= end || ctl_sigint() ||
		    poll(&p, 1, (int)((end - now) / 1000000) + 1) <= 0) {
			kill(pid, SIGKILL);
			break;
		}
		got = read(fd[0], out + n, OUT_MAX - 1 - n);
		n += got > 0 ? (size_t)got : 0;
	}
	close(fd[0]);
	while (!rc && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	out[n] = '\0';
	j = rc || status ? NULL : json_loads(out, JSON_DISABLE_EOF_CHECK, NULL);
	free(out);
	return j ? j : missing(rc || !WIFSIGNALED(status) ? "it failed" : "it took too long");
}

/* The built-in model: beside the installed program, or in the source tree. */
static const char *builtin_model(char *buf, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", buf, size - 64);
	char *slash;

	if (n > 0) {
		buf[n] = '\0';
		slash = strrchr(buf, '/');
		strcpy(slash, "/../share/llmdev/demo");
		if (!access(buf, R_OK))
			return buf;
		strcpy(slash, "/../tools/demo/model");
		if (!access(buf, R_OK))
			return buf;
	}
	return access("tools/demo/model", R_OK) ? NULL : "tools/demo/model";
}

static json_t *model_section(const struct report *r, const char *what)
{
	char path[4096];
	const char *model = r->model ? r->model : builtin_model(path, sizeof(path));
	char *argv[] = {"llmctl", "bench",  (char *)what,	  (char *)model,
			"--json", "--runs", r->quick ? "2" : "7", NULL};

	if (!model)
		return missing("the built-in model is not installed: --model");
	if (left_s(r) < 1)
		return missing("no time was left");
	return run_self(argv, left_s(r));
}

static json_t *io_section(const struct report *r)
{
	struct view here = {""};
	long long available = doctor_meminfo(&here, "MemAvailable");
	size_t bytes = r->quick ? (size_t)64 << 20 : (size_t)1 << 30;
	struct err e;
	json_t *j;

	if (available > 0 && bytes > (size_t)available / 4)
		bytes = (size_t)available / 4;
	j = report_io(r->dir, bytes, &e);
	return j ? j : missing(e.msg);
}

/* Where the GPU's driver takes memory from, and whether it gives it back. */
static json_t *gpu_section(const struct report *r)
{
	static const char *const when[] = {"before", "allocated", "freed"};
	size_t bytes = (size_t)(r->quick ? 128 : 1024) << 20;
	struct view here = {""};
	struct gpu *g = NULL;
	uint64_t p = 0;
	struct err e;
	json_t *j;

	if (gpu_open(&g, &e))
		return missing(e.msg);
	j = json_pack("{so sI}", "facts", gpu_json(gpu_facts(g)), "allocation_bytes",
		      (json_int_t)bytes);
	for (int i = 0; i < 3; i++) {
		if (i == 1 && !(p = gpu_alloc(g, bytes, &e))) {
			json_object_set_new(j, "missing", json_string(e.msg));
			break;
		}
		if (i == 2)
			gpu_free(g, p);
		json_object_set_new(j, when[i],
				    json_pack("{sI sI sI sI}", "gpu_free",
					      (json_int_t)gpu_free_bytes(g), "MemFree",
					      (json_int_t)doctor_meminfo(&here, "MemFree"),
					      "MemAvailable",
					      (json_int_t)doctor_meminfo(&here, "MemAvailable"),
					      "Slab", (json_int_t)doctor_meminfo(&here, "Slab")));
	}
	gpu_close(g);
	return j;
}

static json_t *doctor_section(void)
{
	struct doctor d;
	struct err e;
	json_t *j;

	if (doctor_look(&d, NULL, &e))
		return missing(e.msg);
	j = doctor_json(&d);
	doctor_free(&d);
	return j;
}

/* ---- names ------------------------------------------------------------------------------------ */

struct names {
	struct {
		char is[256];
		const char *becomes;
	} name[NAMES_MAX];
	int n;
};

static void add_name(struct names *x, const char *is, const char *becomes)
{
	/* Shorter ones would hit anything; "root" and the like tell nobody who it was. */
	if (!is || strlen(is) < 3 || strlen(is) >= sizeof(x->name[0].is) || !strcmp(is, "root") ||
	    !strcmp(is, "/root") || !strcmp(is, "localhost") || x->n == NAMES_MAX)
		return;
	snprintf(x->name[x->n].is, sizeof(x->name[0].is), "%s", is);
	x->name[x->n++].becomes = becomes;
}

static void collect_names(struct names *x)
{
	const char *sudo = getenv("SUDO_USER");
	struct passwd *pw = getpwuid(getuid());
	char host[256] = "";

	*x = (struct names){.n = 0};
	add_name(x, getenv("HOME"), "HOME");
	if (pw)
		add_name(x, pw->pw_dir, "HOME");
	add_name(x, pw ? pw->pw_name : NULL, "USER");
	if (sudo && (pw = getpwnam(sudo)))
		add_name(x, pw->pw_dir, "HOME");
	add_name(x, sudo, "USER");
	gethostname(host, sizeof(host) - 1);
	add_name(x, host, "HOST");
	host[strcspn(host, ".")] = '\0';
	add_name(x, host, "HOST");
}

static bool in_word(char c)
{
	return isalnum((unsigned char)c) || c == '_';
}

/* Whole words only: a user `linux` must not change every other line. malloc'ed. */
static char *replace(const char *s, const char *is, const char *becomes)
{
	size_t n = strlen(is), len = 0;
	char *out = malloc(strlen(s) / n * strlen(becomes) + strlen(s) + 1);
	const char *start = s;

	while (out && *s) {
		bool hit = !strncmp(s, is, n) && !in_word(s[n]) && (s == start || !in_word(s[-1]));

		if (hit) {
			len += (size_t)sprintf(out + len, "%s", becomes);
			s += n;
		} else {
			out[len++] = *s++;
		}
	}
	if (out)
		out[len] = '\0';
	return out;
}

static void redact(json_t *j, const struct names *x)
{
	const char *key;
	size_t i;
	json_t *v;

	if (json_is_string(j)) {
		for (int k = 0; k < x->n; k++) {
			char *s = replace(json_string_value(j), x->name[k].is, x->name[k].becomes);

			if (s)
				json_string_set(j, s);
			free(s);
		}
	} else if (json_is_array(j)) {
		json_array_foreach (j, i, v)
			redact(v, x);
	} else {
		json_object_foreach (j, key, v)
			redact(v, x);
	}
}

/* ---- the file --------------------------------------------------------------------------------- */

static int write_report(const struct report *r)
{
	char *s = json_dumps(r->j, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
	bool to_stdout = !strcmp(r->out, "-");
	FILE *f = to_stdout ? stdout : fopen(r->out, "we");
	int rc = 0;

	if (!f || !s)
		rc = ctl_fail("report: %s: %s", r->out, strerror(f ? ENOMEM : errno));
	else if (fprintf(f, "%s\n", s) < 0 || fflush(f))
		rc = ctl_fail("report: %s: %s", r->out, strerror(errno));
	if (f && !to_stdout && fclose(f) && !rc)
		rc = ctl_fail("report: %s: %s", r->out, strerror(errno));
	if (!rc)
		fprintf(stderr,
			"wrote %s: %zu bytes. Nothing was sent anywhere: read it through, and "
			"attach "
			"it where it is to be seen.\n",
			to_stdout ? "the report" : r->out, strlen(s));
	free(s);
	return rc;
}

static void section(const struct report *r, const char *name, json_t *(*fn)(const struct report *))
{
	fprintf(stderr, "%s ...\n", name);
	json_object_set_new(r->j, name,
			    ctl_sigint()    ? missing("interrupted")
			    : left_s(r) < 1 ? missing("no time was left")
					    : fn(r));
}

static json_t *decode_section(const struct report *r)
{
	return model_section(r, "decode");
}

static json_t *prefill_section(const struct report *r)
{
	return model_section(r, "prefill");
}

static int parse(struct report *r, int argc, char **argv)
{
	static const struct option options[] = {
		{"quick", no_argument, NULL, OPT_QUICK},
		{"limit", required_argument, NULL, OPT_LIMIT},
		{"model", required_argument, NULL, OPT_MODEL},
		{"dir", required_argument, NULL, OPT_DIR},
		{NULL},
	};
	long long v;
	int opt;

	opterr = 0;
	optind = 0;
	while ((opt = getopt_long(argc, argv, ":o:", options, NULL)) != -1) {
		switch (opt) {
		case 'o':
			r->out = optarg;
			break;
		case OPT_QUICK:
			r->quick = true;
			break;
		case OPT_LIMIT:
			if (!ctl_int("--limit", optarg, 1, 86400, &v))
				return 2;
			r->limit_s = (int)v;
			break;
		case OPT_MODEL:
			r->model = optarg;
			break;
		case OPT_DIR:
			r->dir = optarg;
			break;
		default:
			return ctl_bad_option(USAGE, argv);
		}
	}
	if (!r->limit_s)
		r->limit_s = r->quick ? QUICK_S : LIMIT_S;
	return argc == optind ? 0 : ctl_usage(USAGE, "report: takes no arguments");
}

int cmd_report(int argc, char **argv)
{
	struct report r = {.out = "llmdev-report.json", .dir = "/var/tmp"};
	struct names names;
	time_t now = time(NULL);
	char day[16];
	int rc = parse(&r, argc, argv);

	if (rc)
		return rc;
	/* Better now than after ten minutes. */
	if (strcmp(r.out, "-")) {
		FILE *f = fopen(r.out, "ae");

		if (!f)
			return ctl_fail("report: %s: %s", r.out, strerror(errno));
		fclose(f);
	}
	r.start_ns = ctl_now_ns();
	ctl_catch_sigint();
	strftime(day, sizeof(day), "%Y-%m-%d", gmtime(&now));
	r.j = json_pack("{si ss sb so so}", "llmdev_report", 1, "date", day, "quick", r.quick,
			"machine", machine(), "doctor", doctor_section());
	if (!r.j)
		return ctl_fail("report: out of memory");
	section(&r, "memory", memory_section);
	section(&r, "gpu", gpu_section);
	section(&r, "decode", decode_section);
	section(&r, "prefill", prefill_section);
	section(&r, "disk", io_section);
	json_object_set_new(r.j, "seconds", json_real((double)(ctl_now_ns() - r.start_ns) * 1e-9));
	collect_names(&names);
	redact(r.j, &names);
	rc = write_report(&r);
	json_decref(r.j);
	return ctl_sigint() ? 130 : rc;
}
