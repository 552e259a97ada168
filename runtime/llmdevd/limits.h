/* SPDX-License-Identifier: MIT */
/*
 * How many unfinished requests there may be: of the device, of one principal, of one uid.
 *
 * A request is charged when it is taken and released when the engine has let go of it, also where
 * its client left long before: what was cancelled and not acknowledged still counts. Charging and
 * releasing take constant time. Names that have nothing unfinished take no memory.
 */
#ifndef LLMDEV_LIMITS_H
#define LLMDEV_LIMITS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct tally;

struct limits {
	int max_unfinished, max_principal, max_uid;
	int unfinished;
	int principals; /* that have something unfinished */
	struct tally **bucket; /* [n_buckets] */
	size_t n_buckets; /* a power of two */
};

/* What one request is charged to; all NULL: nothing. */
struct charge {
	struct tally *principal, *uid;
};

/* -ENOMEM. The maxima are at least 1. */
int limits_init(struct limits *l, int max_unfinished, int max_principal, int max_uid);
/* Everything must have been released. */
void limits_free(struct limits *l);

/* Whose request it is. */
struct requester {
	uint64_t principal; /* a number for the label, or for the uid where there is none */
	const char *label; /* not NUL-terminated */
	size_t label_len; /* 0: the principal is the uid */
	uid_t uid;
};

/* -ENOSPC with a sentence that has the sum in it; -ENOMEM. *c is only changed on success. */
int limits_charge(struct limits *l, struct charge *c, const struct requester *who, struct err *e);
/* Leaves *c empty: a second time does nothing. */
void limits_release(struct limits *l, struct charge *c);

#endif
