// SPDX-License-Identifier: MIT
/*
 * llmctl reserve: room for an engine, made before it starts and held until it is ready. By
 * llmdev-policyd where it runs, else by this process as far as its user may; the module's elastic
 * reserve. The work is in reserve_*.c.
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/size.h"
#include "ctl.h"
#include "llm.h"
#include "memory/policy.h"
#include "memory/until.h"
#include "reserve.h"

#define USAGE                                                                                      \
	"reserve SIZE [--ready COND] [OPTIONS] -- COMMAND [ARGUMENTS]\n"                           \
	"       llmctl reserve SIZE --hold --until COND [--detach] [OPTIONS]\n"                    \
	"       llmctl reserve SIZE --keep\n"                                                      \
	"       llmctl reserve status [--json]\n"                                                  \
	"       llmctl reserve release\n"                                                          \
	"  --ready COND   PORT, http:PORT/PATH, regex:TEXT (of its output), fd[:N] (it writes a "  \
	"byte\n"                                                                                   \
	"                 there), mapping:TEXT (it maps a file of that name); else until it "      \
	"ends\n"                                                                                   \
	"  --until COND   PORT, http:PORT/PATH, unit:NAME, container:NAME, pid:N\n"                \
	"  --detach       llmdev-policyd holds it; this command ends when there is room\n"         \
	"  --keep         the module holds SIZE until somebody needs it\n"                         \
	"  --seconds N    hold no longer than that (1800)\n"                                       \
	"  --files PATH, --fs PATH, --drop-caches   whose page cache may go\n"                     \
	"  --anyway       go on though there is less\n"                                            \
	"  --quiet        say nothing but errors"
#define MAX_PATHS 64
#define MAX_BYTES ((uint64_t)1 << 46)

enum {
	OPT_READY = 1,
	OPT_HOLD,
	OPT_UNTIL,
	OPT_DETACH,
	OPT_KEEP,
	OPT_SECONDS,
	OPT_FILES,
	OPT_FS,
	OPT_DROP,
	OPT_ANYWAY,
	OPT_QUIET,
	OPT_JSON,
	OPT_ROOT,
};

struct args {
	struct reserve_opts o;
	const char *ready, *until;
	bool hold, detach, keep, json, bad;
	char *files[MAX_PATHS], *filesystems[MAX_PATHS];
};

/* ---- status, release ------------------------------------------------------------------------- */

static json_t *module_status(int control)
{
	struct llm_mem_status s = {.size = sizeof(s)};

	if (control < 0 || ioctl(control, LLM_IOC_MEM_STATUS, &s))
		return NULL;
	return json_pack("{sI sI sI sI sI sI sI sI}", "reserve_target",
			 (json_int_t)s.reserve_target, "reserve_held", (json_int_t)s.reserve_held,
			 "released_shrinker", (json_int_t)s.released_shrinker, "released_oom",
			 (json_int_t)s.released_oom, "released_asked", (json_int_t)s.released_asked,
			 "floor_free", (json_int_t)s.floor_free, "floor_blocks",
			 (json_int_t)s.floor_blocks, "events", (json_int_t)s.events);
}

/* Whoever asked with --detach has ended since: what it waits for tells more than its id. */
static void print_hold(const json_t *hold)
{
	const char *until = json_string_value(json_object_get(hold, "until"));
	char a[MEM_SIZE_TEXT], b[MEM_SIZE_TEXT];

	printf("  %s held for %s%s%s, %.0f s more at most, %s not taken yet\n",
	       mem_size(a, (uint64_t)json_integer_value(json_object_get(hold, "bytes"))),
	       json_string_value(json_object_get(hold, "who")), until ? " until " : "",
	       until ? until : "", json_number_value(json_object_get(hold, "seconds")),
	       mem_size(b, (uint64_t)json_integer_value(json_object_get(hold, "left"))));
}

static void print_status(const struct mem_now *n, json_t *module, const char *no_module,
			 json_t *policy, const char *no_policy)
{
	char a[MEM_SIZE_TEXT], b[MEM_SIZE_TEXT];
	json_t *hold;
	size_t i;

	printf("MemFree %s, %llu free blocks of 2 MiB; %s available\n", mem_size(a, n->free),
	       (unsigned long long)n->blocks, mem_size(b, n->available));
	if (module)
		printf("reserve: the module holds %s of %s; %s went to others in need\n",
		       mem_size(a, (uint64_t)json_integer_value(
					   json_object_get(module, "reserve_held"))),
		       mem_size(b, (uint64_t)json_integer_value(
					   json_object_get(module, "reserve_target"))),
		       mem_size((char[MEM_SIZE_TEXT]){0},
				(uint64_t)json_integer_value(
					json_object_get(module, "released_shrinker")) +
					(uint64_t)json_integer_value(
						json_object_get(module, "released_oom"))));
	else
		printf("reserve: none: %s\n", no_module);
	if (!policy) {
		printf("policy: none: %s\n", no_policy);
		return;
	}
	printf("policy: mode %s, floors %s and %lld blocks, %zu holds\n",
	       json_string_value(json_object_get(policy, "mode")),
	       mem_size(a, (uint64_t)json_integer_value(json_object_get(policy, "floor_free"))),
	       (long long)json_integer_value(json_object_get(policy, "floor_blocks")),
	       json_array_size(json_object_get(policy, "holds")));
	json_array_foreach (json_object_get(policy, "holds"), i, hold)
		print_hold(hold);
}

static int status(bool as_json)
{
	struct err no_module = {""}, no_policy = {""}, e;
	int control = room_control(&no_module), policyd = policyd_connect(NULL, &no_policy);
	json_t *module = module_status(control), *policy = NULL, *j;
	struct mem_now n;

	if (policyd >= 0) {
		policyd_ask(policyd, json_pack("{ss}", "op", "status"), 60, &policy, &no_policy);
		close(policyd);
	}
	if (control >= 0)
		close(control);
	if (mem_now_read(&n, "", (size_t)sysconf(_SC_PAGESIZE), &e))
		return ctl_fail("reserve: %s", e.msg);
	if (!as_json) {
		print_status(&n, module, no_module.msg, policy, no_policy.msg);
		json_decref(module);
		json_decref(policy);
		return 0;
	}
	j = json_pack("{sI sI sI so* so*}", "free", (json_int_t)n.free, "free_blocks_2m",
		      (json_int_t)n.blocks, "available", (json_int_t)n.available, "module", module,
		      "policyd", policy);
	json_dumpf(j, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	putchar('\n');
	json_decref(j);
	return 0;
}

/* Through policyd, which would take the reserve again otherwise; else by the module itself. */
static int release(void)
{
	struct err e, why = {""};
	int fd = policyd_connect(NULL, &e), rc = -ENOENT;
	json_t *answer;
	uint64_t held;

	if (fd >= 0) {
		rc = policyd_ask(fd, json_pack("{ss}", "op", "release"), 60, &answer, &why);
		close(fd);
		json_decref(answer);
		return rc ? ctl_fail("reserve: %s", why.msg) : 0;
	}
	fd = room_control(&why);
	if (fd >= 0) {
		rc = room_reserve(fd, 0, &held, &why);
		close(fd);
	}
	return fd < 0 || rc ? ctl_fail("reserve: %s", why.msg) : 0;
}

/* ---- holding --------------------------------------------------------------------------------- */

static int keep(const struct reserve_opts *o)
{
	struct err e;
	int fd = room_control(&e), rc;
	char a[MEM_SIZE_TEXT], b[MEM_SIZE_TEXT];
	uint64_t held;

	if (fd < 0)
		return ctl_fail("reserve: --keep: %s", e.msg);
	rc = room_reserve(fd, o->bytes, &held, &e);
	close(fd);
	if (rc)
		return ctl_fail("%s", e.msg);
	if (!o->quiet)
		fprintf(stderr, "[the module holds %s of %s]\n", mem_size(a, held),
			mem_size(b, o->bytes));
	return held < o->bytes && !o->anyway
		       ? ctl_fail("reserve: %s asked, %s could be had: no more free blocks of 2 "
				  "MiB; "
				  "they are held: llmctl reserve release lets them go",
				  mem_size(b, o->bytes), mem_size(a, held))
		       : 0;
}

static int hold(const struct args *a)
{
	struct until u;
	struct hold h;
	struct err e;
	int rc = 0;

	if (until_parse(&u, a->until, &e)) {
		ctl_fail("reserve: --until: %s", e.msg);
		return 2;
	}
	if (hold_begin(&h, &a->o, a->detach ? a->until : NULL))
		return 1;
	if (a->detach) {
		hold_end(&h);
		return 0;
	}
	if (!a->o.quiet)
		fprintf(stderr, "[holding until %s]\n", a->until);
	ctl_catch_sigint();
	while (h.end_ns && !ctl_sigint()) {
		rc = until_holds(&u, &e);
		if (rc)
			break;
		poll(NULL, 0, RESERVE_TICK_MS);
		hold_tick(&h);
	}
	hold_end(&h);
	if (rc < 0)
		return ctl_fail("reserve: --until: %s", e.msg);
	if (ctl_sigint())
		return 130;
	return rc > 0 ? 0
		      : ctl_fail("reserve: %s did not come within %g s", a->until, a->o.seconds);
}

/* ---- options --------------------------------------------------------------------------------- */

static const struct option options[] = {
	{"ready", required_argument, NULL, OPT_READY},
	{"hold", no_argument, NULL, OPT_HOLD},
	{"until", required_argument, NULL, OPT_UNTIL},
	{"detach", no_argument, NULL, OPT_DETACH},
	{"keep", no_argument, NULL, OPT_KEEP},
	{"seconds", required_argument, NULL, OPT_SECONDS},
	{"files", required_argument, NULL, OPT_FILES},
	{"fs", required_argument, NULL, OPT_FS},
	{"drop-caches", no_argument, NULL, OPT_DROP},
	{"anyway", no_argument, NULL, OPT_ANYWAY},
	{"quiet", no_argument, NULL, OPT_QUIET},
	{"json", no_argument, NULL, OPT_JSON},
	{"root", required_argument, NULL, OPT_ROOT},
	{NULL},
};

static bool add_path(char **list, size_t *n, unsigned int *allowed, enum room_step step)
{
	if (*n == MAX_PATHS)
		return false;
	list[(*n)++] = optarg;
	*allowed |= ROOM_BIT(step);
	return true;
}

/* False: not an option, or a bad one (a->bad: the message is printed). */
static bool take(struct args *a, int opt)
{
	struct room_means *m = &a->o.means;

	switch (opt) {
	case OPT_READY:
		a->ready = optarg;
		return true;
	case OPT_HOLD:
		return a->hold = true;
	case OPT_UNTIL:
		a->until = optarg;
		return true;
	case OPT_DETACH:
		return a->detach = true;
	case OPT_KEEP:
		return a->keep = true;
	case OPT_SECONDS:
		a->bad = !ctl_double("--seconds", optarg, 0.1, 864000, &a->o.seconds);
		return !a->bad;
	case OPT_FILES:
		return add_path(a->files, &m->n_files, &m->allowed, ROOM_FILES);
	case OPT_FS:
		return add_path(a->filesystems, &m->n_filesystems, &m->allowed, ROOM_FILESYSTEMS);
	case OPT_DROP:
		return m->allowed |= ROOM_BIT(ROOM_DROP_CACHES), true;
	case OPT_ANYWAY:
		return a->o.anyway = true;
	case OPT_QUIET:
		return a->o.quiet = true;
	case OPT_JSON:
		return a->json = true;
	case OPT_ROOT:
		m->root = optarg;
		return true;
	}
	return false;
}

static int run(struct args *a, char **argv, int n)
{
	const char *what = n ? argv[0] : "";
	int rc;

	if (n == 1 && !strcmp(what, "status"))
		return status(a->json);
	if (n == 1 && !strcmp(what, "release") && !a->json)
		return release();
	if (!n || !strcmp(what, "status") || !strcmp(what, "release"))
		return ctl_usage(USAGE,
				 n ? "reserve: %s takes no arguments"
				   : "reserve: give a SIZE, status or release",
				 what);
	if (!size_parse(what, &a->o.bytes) || !a->o.bytes || a->o.bytes > MAX_BYTES)
		return ctl_usage(USAGE, "reserve: `%s` is no size: give one like 96G, 64T at most",
				 what);
	if (a->json || (a->hold ? !a->until || n > 1 || a->ready || a->keep
				: a->until || a->detach || (a->keep ? n > 1 || a->ready : n < 2)))
		return ctl_usage(USAGE,
				 "reserve: give a COMMAND, or --hold with --until, or --keep");
	if (a->keep)
		return keep(&a->o);
	a->o.means.control = *a->o.means.root ? -1 : room_control(NULL);
	rc = a->hold ? hold(a) : reserve_run(&a->o, a->ready, argv + 1);
	if (a->o.means.control >= 0)
		close(a->o.means.control);
	return rc;
}

int cmd_reserve(int argc, char **argv)
{
	struct args a = {.o = {.seconds = 1800,
			       .means = {.root = "",
					 .page = (size_t)sysconf(_SC_PAGESIZE),
					 .control = -1,
					 .allowed = ROOM_BIT(ROOM_RECLAIM) | ROOM_BIT(ROOM_MODULE) |
						    ROOM_BIT(ROOM_COMPACT)}}};
	int opt;

	a.o.means.files = a.files;
	a.o.means.filesystems = a.filesystems;
	opterr = 0;
	optind = 0;
	/* SIZE may stand before the options; what follows "--" is the command's own. */
	while ((opt = getopt_long(argc, argv, ":", options, NULL)) != -1)
		if (!take(&a, opt))
			return a.bad ? 2 : ctl_bad_option(USAGE, argv);
	return run(&a, argv + optind, argc - optind);
}
