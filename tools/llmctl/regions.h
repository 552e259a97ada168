/* SPDX-License-Identifier: MIT */
/* What `llmctl region` and `llmctl model` share: the regions of all places, and words about them. */
#ifndef LLMCTL_REGIONS_H
#define LLMCTL_REGIONS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "memory/region.h"

/* Every region that this user can see. A place that does not exist is none; one that may not be used
 * leaves its reason in why[]. */
struct regions {
	struct region_store store[REGION_PLACES]; /* fd -1: not there */
	struct err why[REGION_PLACES]; /* "": nothing went wrong */
	struct region_fact *v;
	size_t n;
};

void regions_open(struct regions *r);
void regions_close(struct regions *r);
/* Prints why[] on stderr; returns the exit status: 1 if there was something to print. */
int regions_complain(const struct regions *r);

/* "3 min", "2 h"; returns buf */
#define REGIONS_AGE 24
const char *regions_age(char buf[REGIONS_AGE], const struct region_fact *f);
/* "sealed", "being filled", "half written" */
const char *regions_state(const struct region_fact *f);
json_t *regions_json(const struct region_fact *f);

/* A number of bytes with its unit, in decimal; 0: "0 B". */
#define REGIONS_SIZE 16
const char *regions_size(char buf[REGIONS_SIZE], uint64_t n);

#endif
