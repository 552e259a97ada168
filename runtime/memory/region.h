/* SPDX-License-Identifier: MIT */
/*
 * Regions: named memory that outlives the process that filled it. It is created, filled through a
 * writable mapping, sealed (from then on nobody can change it), and found again by its name.
 *
 * Two places keep them, behind one interface:
 *
 *   REGION_MODULE   the kernel module (uapi/llm.h, "regions"): resident, never swapped, accounted
 *   REGION_KEEPER   memfds held by the user's llmdev-keeper, a small process (keeper.h): no module and
 *                   no rights needed, but the memory may be swapped and goes when the keeper is killed
 *
 * A struct region_store is a connection to one of them. It is used by one thread. A keeper counts its
 * users by their connections: keep the store open for as long as a region of it is mapped.
 */
#ifndef LLMDEV_MEMORY_REGION_H
#define LLMDEV_MEMORY_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define REGION_NAME_MAX 128 /* NUL included; as LLM_REGION_NAME_MAX */
#define REGION_CONTROL	"/dev/llm-control"

enum region_place { REGION_MODULE, REGION_KEEPER };
#define REGION_PLACES 2

struct region_store {
	enum region_place place;
	int fd; /* the control file, or a connection to the keeper; -1: closed */
};

struct region {
	void *base; /* 2 MiB aligned; NULL: closed */
	size_t bytes, mapped;
	size_t huge_bytes; /* in 2 MiB pages, as far as known */
	int fd; /* while it is filled; -1 once it is sealed */
	char name[REGION_NAME_MAX];
};

/* What can be said of a region without opening it. */
struct region_fact {
	char name[REGION_NAME_MAX];
	enum region_place place;
	uint64_t bytes, resident, huge_bytes, pinned_bytes;
	uint64_t created_ns; /* CLOCK_MONOTONIC; keeper: when it was handed over */
	uid_t uid;
	pid_t pid; /* of the creator, 0: gone or unknown */
	uint32_t users; /* processes or mappings that have it */
	int node; /* -1: any */
	bool sealed, persistent;
	bool busy; /* unsealed, and somebody is at work on it */
};

/* "kernel" or "keeper" */
const char *region_place_name(enum region_place place);

/*
 * -ENOENT: there is no such place (module not loaded, no keeper running); -EACCES, -EPERM: the message
 * says which right is missing; -ENOTTY: a module without regions. With `start` a keeper is started if
 * none runs (-ESRCH: it could not be).
 */
int region_store_open(struct region_store *s, enum region_place place, bool start, struct err *e);
void region_store_close(struct region_store *s);

/*
 * A new region, zeroed and mapped writable. `node`: the module only; -1: any. -EEXIST: the name is
 * taken, or another process is filling a region of that name; -ENOMEM with the sum; -EINVAL: the name.
 */
int region_create(struct region_store *s, const char *name, size_t bytes, int node, struct region *r,
		  struct err *e);
/*
 * Makes it read-only for ever, at the same address, and hands it over: it stays when this process
 * ends. On failure it is still mapped, writable and this process's own.
 */
int region_seal(struct region_store *s, struct region *r, struct err *e);
/* A sealed region, mapped read-only. `use` counts as a user (keeper). -ENOENT, -EAGAIN: not sealed. */
int region_open(struct region_store *s, const char *name, bool use, struct region *r,
		struct err *e);
/* Unmaps. One that was not sealed is destroyed. */
void region_close(struct region_store *s, struct region *r);

/* All regions; *out is malloc'ed. */
int region_list(struct region_store *s, struct region_fact **out, size_t *n, struct err *e);
/* -ENOENT if there is none of that name. */
int region_find(struct region_store *s, const char *name, struct region_fact *f, struct err *e);
/* The name is free at once; the memory goes with the last mapping. */
int region_destroy(struct region_store *s, const char *name, struct err *e);

/* [A-Za-z0-9._:@+-], 1 to 127 of them, not beginning with a dot. */
bool region_name_ok(const char *name);

#endif
