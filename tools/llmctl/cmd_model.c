// SPDX-License-Identifier: MIT
/*
 * llmctl model: weights that stay in memory without a daemon. `load` puts them into a region as the
 * next daemon wants them, `unload` lets go of them, `list` says what is there.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl.h"
#include "model/resolve.h"
#include "regions.h"
#include "weights/region_load.h"

#define USAGE                                                                                      \
	"model list [--json] | unload MODEL|PATH|REGION... | unload --all |\n"                     \
	"              load MODEL " CTL_COMMON_USAGE

enum { OPT_JSON = 1, OPT_ALL };

static bool is_weights(const struct region_fact *f)
{
	return !strncmp(f->name, WEIGHTS_REGION_PREFIX, strlen(WEIGHTS_REGION_PREFIX));
}

/* ---- load ------------------------------------------------------------------------------------------- */

static void print_note(void *ctx, const char *line)
{
	ctl_progress_end();
	fprintf(stderr, "%s\n", line);
}

static int load_here(const struct engine_opts *o)
{
	struct load_stats st;
	char name[REGION_NAME_MAX], size[REGIONS_SIZE];
	struct err e;
	int rc = engine_keep_weights(o, name, sizeof(name), &st, &e);

	ctl_progress_end();
	if (rc)
		return ctl_fail("%s", e.msg);
	printf("%s\n", name);
	if (st.bytes_read)
		fprintf(stderr, "%s: %s read in %.2f s, %s\n", o->model,
			regions_size(size, st.bytes_read), st.seconds, st.method);
	return fflush(stdout) ? ctl_fail("stdout: cannot write") : 0;
}

/* Nobody is at work on them, and they will never be whole. */
static void destroy_half_written(void)
{
	struct regions r;

	regions_open(&r);
	for (size_t i = 0; i < r.n; i++)
		if (is_weights(&r.v[i]) && !r.v[i].sealed && !r.v[i].busy &&
		    r.v[i].uid == geteuid())
			region_destroy(&r.store[r.v[i].place], r.v[i].name, NULL);
	regions_close(&r);
}

/* In a child, whatever becomes of it: what it leaves half written is cleared away. */
static int load(struct engine_opts *o)
{
	int status = 0;
	pid_t pid;

	o->weights = WEIGHTS_REGION;
	o->note = print_note;
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		return ctl_fail("model: no process can be started: %s", strerror(errno));
	if (!pid)
		_exit(load_here(o));
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	destroy_half_written();
	if (WTERMSIG(status) != SIGINT)
		ctl_fail("%s: loading ended with signal %d", o->model, WTERMSIG(status));
	return 128 + WTERMSIG(status);
}

/* ---- list, unload --------------------------------------------------------------------------------------- */

/* Opens a region of weights and its index; false: it cannot be read. */
static bool open_weights(struct regions *all, const struct region_fact *f, struct region *r,
			 struct region_index *x)
{
	struct region_store *s = &all->store[f->place];

	if (!f->sealed || region_open(s, f->name, false, r, NULL))
		return false;
	if (!region_index_read(x, r->base, r->bytes, NULL))
		return true;
	region_close(s, r);
	return false;
}

static void list_one(struct regions *all, const struct region_fact *f, json_t *rows)
{
	char size[REGIONS_SIZE], age[REGIONS_AGE], layout[40] = "-";
	struct region_index x;
	struct region r;
	bool known = open_weights(all, f, &r, &x);
	json_t *j;

	if (rows) {
		j = regions_json(f);
		if (known)
			json_object_update_new(
				j, json_pack("{ss ss ss ss sI sI}", "model", x.label, "path",
					     x.path, "backend", x.head->backend, "isa", x.head->isa,
					     "weight_bytes", (json_int_t)x.head->data_bytes,
					     "loaded_at", (json_int_t)x.head->loaded_at));
		json_array_append_new(rows, j);
	} else {
		if (known)
			snprintf(layout, sizeof(layout), "%s %s", x.head->backend, x.head->isa);
		printf("%-24s  %9s  %5u  %7s  %-6s  %-16s  %s\n", known ? x.label : f->name,
		       regions_size(size, f->bytes), f->users, regions_age(age, f),
		       region_place_name(f->place), layout, known ? x.path : regions_state(f));
	}
	if (known)
		region_close(&all->store[f->place], &r);
}

static int list(bool json)
{
	json_t *rows = json ? json_array() : NULL;
	struct regions all;
	size_t n = 0;
	int rc;

	regions_open(&all);
	rc = regions_complain(&all);
	for (size_t i = 0; i < all.n; i++) {
		if (!is_weights(&all.v[i]))
			continue;
		if (!n++ && !json)
			printf("%-24s  %9s  %5s  %7s  %-6s  %-16s  %s\n", "MODEL", "SIZE", "USERS",
			       "AGE", "PLACE", "LAYOUT", "FROM");
		list_one(&all, &all.v[i], rows);
	}
	if (json) {
		json_dumpf(rows, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(rows);
	} else if (!n && !rc) {
		fprintf(stderr, "no weights are kept in memory\n");
	}
	regions_close(&all);
	return rc;
}

/* By the region's name, the model's, or the path that it came from. */
static bool is_meant(struct regions *all, const struct region_fact *f, const char *what,
		     const char *path)
{
	struct region_index x;
	struct region r;
	bool yes;

	if (!strcmp(f->name, what))
		return true;
	if (!open_weights(all, f, &r, &x))
		return false;
	yes = !strcmp(x.label, what) || (path && !strcmp(x.path, path));
	region_close(&all->store[f->place], &r);
	return yes;
}

/* what == NULL: all of this user's. */
static int unload(const char *what)
{
	char found[MODEL_PATH_MAX], size[REGIONS_SIZE], *path = NULL;
	struct regions all;
	int n = 0, rc = 0;
	struct err e;

	if (what && !model_resolve(what, found, NULL))
		path = realpath(found, NULL);
	regions_open(&all);
	for (size_t i = 0; i < all.n; i++) {
		const struct region_fact *f = &all.v[i];

		if (!is_weights(f) || f->busy ||
		    (what ? !is_meant(&all, f, what, path) : f->uid != geteuid()))
			continue;
		n++;
		if (region_destroy(&all.store[f->place], f->name, &e)) {
			rc = ctl_fail("%s", e.msg);
			continue;
		}
		fprintf(stderr, "%s: %s%s\n", f->name, regions_size(size, f->bytes),
			f->users ? ", still used: the memory goes with its last user" : " freed");
	}
	if (!n && what) {
		rc = regions_complain(&all);
		if (!rc)
			rc = ctl_fail("%s: no weights of that name are kept: llmctl model list",
				      what);
	} else if (!n) {
		rc = regions_complain(&all);
	}
	regions_close(&all);
	free(path);
	return rc;
}

int cmd_model(int argc, char **argv)
{
	static const struct option options[] = {
		CTL_COMMON_OPTIONS,
		{"json", no_argument, NULL, OPT_JSON},
		{"all", no_argument, NULL, OPT_ALL},
		{NULL},
	};
	bool json = false, all = false;
	struct engine_opts o;
	int opt, n, rc = 0;
	char **arg;

	ctl_common_defaults(&o);
	while ((opt = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (opt == OPT_JSON) {
			json = true;
		} else if (opt == OPT_ALL) {
			all = true;
		} else {
			rc = ctl_common_option(opt, optarg, &o);
			if (rc <= 0)
				return rc ? 2 : ctl_bad_option(USAGE, argv);
		}
	}
	n = argc - optind;
	arg = argv + optind;
	if (n == 1 && !strcmp(arg[0], "list"))
		return list(json);
	if (n == 2 && !strcmp(arg[0], "load")) {
		o.model = arg[1];
		return load(&o);
	}
	if (n < 1 || strcmp(arg[0], "unload") != 0 || (n == 1) != all)
		return ctl_usage(USAGE, "model: list, load MODEL, unload MODEL... or unload --all");
	rc = all ? unload(NULL) : 0;
	for (int i = 1; i < n; i++)
		rc |= unload(arg[i]);
	return rc;
}
