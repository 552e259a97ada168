// SPDX-License-Identifier: MIT
/* llmctl region: what is kept in the kernel's and the keeper's memory, whoever put it there. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "regions.h"
#include "weights/region_index.h"

#define USAGE "region list [--json] | info NAME [--verify] [--json] | destroy NAME..."

enum { OPT_JSON = 1, OPT_VERIFY };

struct options {
	bool json, verify;
};

static int list(const struct options *o)
{
	struct regions r;
	json_t *all = o->json ? json_array() : NULL;
	int width = 4, rc;

	regions_open(&r);
	rc = regions_complain(&r);
	for (size_t i = 0; i < r.n; i++) {
		if ((int)strlen(r.v[i].name) > width)
			width = (int)strlen(r.v[i].name);
		if (o->json)
			json_array_append_new(all, regions_json(&r.v[i]));
	}
	if (!o->json && r.n)
		printf("%-*s  %9s  %9s  %5s  %7s  %-6s  %5s  %s\n", width, "NAME", "SIZE", "HUGE",
		       "USERS", "AGE", "PLACE", "UID", "STATE");
	for (size_t i = 0; i < r.n && !o->json; i++) {
		const struct region_fact *f = &r.v[i];
		char size[REGIONS_SIZE], huge[REGIONS_SIZE], age[REGIONS_AGE];

		printf("%-*s  %9s  %9s  %5u  %7s  %-6s  %5u  %s\n", width, f->name,
		       regions_size(size, f->bytes),
		       f->place == REGION_MODULE ? regions_size(huge, f->huge_bytes) : "-",
		       f->users, regions_age(age, f), region_place_name(f->place), f->uid,
		       regions_state(f));
	}
	if (o->json) {
		json_dumpf(all, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(all);
	} else if (!r.n && !rc) {
		fprintf(stderr, "no regions: neither the kernel module nor a keeper of yours holds "
				"any\n");
	}
	regions_close(&r);
	return rc;
}

/* The region of this name, or NULL with the reason printed. */
static const struct region_fact *find(const struct regions *r, const char *name)
{
	for (size_t i = 0; i < r->n; i++)
		if (!strcmp(r->v[i].name, name))
			return &r->v[i];
	if (!regions_complain(r)) /* else it may be where we must not look */
		ctl_fail("region %s: there is none of that name: llmctl region list", name);
	return NULL;
}

/* What stands in it, if it is weights. Returns false if --verify finds it damaged. */
static bool describe_weights(struct region_store *s, const struct region_fact *f,
			     const struct options *o, json_t *j)
{
	struct region_index x;
	struct region r;
	bool good = true;
	uint64_t sum;
	char size[REGIONS_SIZE];
	struct err e;

	if (!f->sealed || region_open(s, f->name, false, &r, &e))
		return true;
	if (region_index_read(&x, r.base, r.bytes, &e)) {
		if (o->verify)
			good = !ctl_fail("region %s: %s", f->name, e.msg);
		region_close(s, &r);
		return good;
	}
	if (o->verify) {
		sum = region_data_sum((const char *)r.base + x.head->data_at, x.head->data_bytes, 0,
				      NULL, NULL);
		good = sum == x.head->data_sum;
		if (!good)
			ctl_fail("region %s: the sum of the data is wrong: destroy it", f->name);
	}
	if (j) {
		json_object_set_new(j, "weights",
				    json_pack("{ss ss ss ss sI sI sI}", "model", x.label, "path",
					      x.path, "backend", x.head->backend, "isa",
					      x.head->isa, "tensors", (json_int_t)x.head->n_tensors,
					      "bytes", (json_int_t)x.head->data_bytes, "loaded_at",
					      (json_int_t)x.head->loaded_at));
		if (o->verify)
			json_object_set_new(j, "sum_is_right", json_boolean(good));
	} else {
		printf("model      %s\nfrom       %s\nlayout     %s %s\ntensors    %u, %s\n",
		       x.label, x.path, x.head->backend, x.head->isa, x.head->n_tensors,
		       regions_size(size, x.head->data_bytes));
		if (o->verify)
			printf("sum        %s\n", good ? "right" : "wrong");
	}
	region_close(s, &r);
	return good;
}

static int info(const char *name, const struct options *o)
{
	const struct region_fact *f;
	struct regions r;
	char a[REGIONS_SIZE], b[REGIONS_SIZE], c[REGIONS_AGE], creator[40] = "";
	json_t *j = NULL;
	bool good;

	regions_open(&r);
	f = find(&r, name);
	if (!f) {
		regions_close(&r);
		return 1;
	}
	if (f->pid)
		snprintf(creator, sizeof(creator), ", process %d", (int)f->pid);
	if (o->json)
		j = regions_json(f);
	else
		printf("region     %s\nplace      %s\nsize       %s, %s in 2 MiB pages\n"
		       "state      %s, %s old\nowner      uid %u%s\nusers      %u\n",
		       f->name, region_place_name(f->place), regions_size(a, f->bytes),
		       f->place == REGION_MODULE ? regions_size(b, f->huge_bytes) : "unknown part",
		       regions_state(f), regions_age(c, f), f->uid, creator, f->users);
	good = describe_weights(&r.store[f->place], f, o, j);
	if (j) {
		json_dumpf(j, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(j);
	}
	regions_close(&r);
	return !good;
}

static int destroy(const char *name)
{
	const struct region_fact *f;
	struct regions r;
	struct err e;
	int rc = 1;

	regions_open(&r);
	f = find(&r, name);
	if (f && !region_destroy(&r.store[f->place], name, &e)) {
		if (f->users)
			fprintf(stderr, "%s: still used: its memory goes with its last user\n",
				name);
		rc = 0;
	} else if (f) {
		ctl_fail("%s", e.msg);
	}
	regions_close(&r);
	return rc;
}

int cmd_region(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, OPT_JSON},
		{"verify", no_argument, NULL, OPT_VERIFY},
		{NULL},
	};
	struct options o = {0};
	int opt, n, rc = 0;
	char **arg;

	opterr = 0;
	optind = 0;
	while ((opt = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (opt == OPT_JSON)
			o.json = true;
		else if (opt == OPT_VERIFY)
			o.verify = true;
		else
			return ctl_bad_option(USAGE, argv);
	}
	n = argc - optind;
	arg = argv + optind;
	if (n == 1 && !strcmp(arg[0], "list") && !o.verify)
		return list(&o);
	if (n == 2 && !strcmp(arg[0], "info"))
		return info(arg[1], &o);
	if (n < 2 || strcmp(arg[0], "destroy") != 0 || o.json || o.verify)
		return ctl_usage(USAGE, "region: list, info NAME or destroy NAME...");
	for (int i = 1; i < n; i++)
		rc |= destroy(arg[i]);
	return rc;
}
