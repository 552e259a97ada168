/* SPDX-License-Identifier: MIT */
/*
 * Whose page cache it is, where that can be known: the files that processes have open or mapped,
 * and those below given paths, by filesystem. The kernel keeps no such sums; what belongs to files
 * that nobody has open stays unknown.
 */
#ifndef LLMCTL_MEM_FILES_H
#define LLMCTL_MEM_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct mem_filesystem {
	dev_t dev;
	char where[256]; /* a mount point, or "device 8:1" */
	char type[32];	 /* "ext4"; empty: unknown */
	uint64_t cached, dirty;
	uint64_t files;
};

struct mem_files {
	struct mem_filesystem *v; /* most cached first */
	size_t n;
	uint64_t cached;     /* of all of them */
	/* What this user may not look at: processes with open, with mapped files; files below the paths. */
	uint64_t no_open, no_mapped, no_file;
};

/*
 * mem_files_free() in any case. What cannot be read is left out and counted; a path that is itself not to
 * be read is an error.
 */
int mem_files_read(struct mem_files *m, char **paths, size_t n_paths, struct err *e);
void mem_files_free(struct mem_files *m);

#endif
