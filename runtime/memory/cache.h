/* SPDX-License-Identifier: MIT */
/*
 * The page cache of files: how much of a file is in it, and dropping it. Clean pages that no
 * process maps can be dropped; what is dirty has to be written first, what is mapped stays.
 *
 * Right needed: a descriptor open for reading is enough to drop (posix_fadvise(2)); to see how much
 * is cached one has to own the file or be allowed to write it (cachestat(2), mincore(2)).
 */
#ifndef LLMDEV_MEMORY_CACHE_H
#define LLMDEV_MEMORY_CACHE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/err.h"

struct cache_status {
	uint64_t size;	 /* of the file */
	uint64_t cached; /* bytes of pages in the cache */
	uint64_t dirty;	 /* of them: to be written or being written */
	bool dirty_known; /* cachestat(2), Linux 6.5, can tell; mincore(2) cannot */
};

/*
 * `name` is for messages. -EPERM: not to be seen by this user. Without cachestat(2) the file is
 * mapped piece by piece and mincore(2) asked.
 */
int cache_status(int fd, const char *name, struct cache_status *s, struct err *e);

/*
 * Drops what can be dropped of an open file; `sync`: writes first what is dirty. *before and *after
 * may be NULL; where this user may not see them their `cached` is 0.
 */
int cache_drop(int fd, const char *name, bool sync, struct cache_status *before,
	       struct cache_status *after, struct err *e);

/*
 * Opens a regular file for reading, and nothing else: opening a device or a pipe can have effects, and
 * a name may lead to another one by the time it is opened. *st is the file's. -EINVAL: not a regular
 * file.
 */
int cache_open(int dir, const char *path, struct stat *st);

struct cache_walk {
	uint64_t files;	     /* visited */
	uint64_t unreadable; /* files and folders that could not be opened */
	uint64_t elsewhere;  /* folders on other filesystems, not entered */
	bool stopped;	     /* by a visitor, or by the bound */
};

/* `fd`: open for reading, the walk's own. Non-zero ends the walk. */
typedef int (*cache_visit)(void *ctx, int fd, const char *path, const struct stat *st);

/*
 * Every regular file with content at or below `path`, symbolic links to files included (a model
 * cache is made of them), folders of other filesystems not. At most `max` files; 0: no bound.
 * -errno if `path` itself cannot be read; what cannot be read below it is counted.
 */
int cache_walk(const char *path, uint64_t max, cache_visit visit, void *ctx, struct cache_walk *w,
	       struct err *e);

/* Drops the clean, unmapped page cache of everything: root only. `root`: "" or a folder (tests). */
int cache_drop_everything(const char *root, struct err *e);

#endif
