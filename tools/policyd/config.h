/* SPDX-License-Identifier: MIT */
/*
 * What llmdev-policyd is told: /etc/llmdev/policy.d/ *.conf, in order of their names, or one file.
 *
 *   [policy]                 every key once a file; a later file's value counts
 *   mode = off|observe|files|fs|auto|global
 *   free = SIZE              floor of MemFree; 0: none
 *   blocks = N               floor of free 2 MiB blocks; 0: none
 *   reserve = SIZE           of the module, taken when there is plenty
 *   hysteresis = N%          below a floor, room is made until that much above it
 *   interval = SECONDS       between two looks
 *   pause = SECONDS          between two actions at least
 *   [files]        path = PATH-OR-PATTERN       may be dropped first; any number of lines
 *   [filesystems]  path = PATH                  what else may be dropped
 *   [cgroups]      reclaim = CGROUP             whose own cache goes before others'
 *   [start NAME]   cgroup = PATTERN or unit = NAME; room = SIZE; until = COND; seconds = N
 */
#ifndef LLMDEV_POLICYD_CONFIG_H
#define LLMDEV_POLICYD_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "memory/until.h"

#define CONFIG_DIR	 "/etc/llmdev/policy.d"
#define CONFIG_MAX_LINES 4096 /* of paths and triggers, together */

enum mode { MODE_OFF, MODE_OBSERVE, MODE_FILES, MODE_FS, MODE_AUTO, MODE_GLOBAL, N_MODES };
extern const char *const mode_name[N_MODES];
/* ROOM_BIT()s that a mode allows. */
unsigned int mode_allows(enum mode m);

/* Something begins to run that needs room. */
struct trigger {
	char name[64];
	char pattern[256]; /* fnmatch(), of a path below /sys/fs/cgroup without its first / */
	uint64_t room;
	double seconds;
	bool has_until;
	struct until until;
	char where[300]; /* file:line of its section */
};

struct paths {
	char **v;
	size_t n;
};

struct config {
	enum mode mode;
	uint64_t free, blocks, reserve;
	double hysteresis; /* of the floor */
	double interval, pause; /* seconds */
	struct paths files, filesystems, cgroups;
	struct trigger *trigger;
	size_t n_triggers;
	size_t n_read; /* files */
};

/*
 * `path`: a file, or a folder whose *.conf are read. A folder that is not there is an empty one.
 * -EINVAL: "FILE:LINE: reason". config_free() in any case.
 */
int config_read(struct config *c, const char *path, struct err *e);
/* Floors against the machine: -EINVAL where they could never be reached. */
int config_fits(const struct config *c, uint64_t mem_total, struct err *e);
void config_free(struct config *c);

#endif
