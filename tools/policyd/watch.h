/* SPDX-License-Identifier: MIT */
/*
 * New cgroups: units, containers, scopes that start. The upper levels of the hierarchy are watched
 * with inotify(7), which tells of folders that userspace makes there.
 */
#ifndef LLMDEV_POLICYD_WATCH_H
#define LLMDEV_POLICYD_WATCH_H

#include <stdbool.h>

#include "base/err.h"

#define WATCH_DEPTH 3	/* system.slice/NAME.slice/NAME.service */
#define WATCH_MAX   1024 /* folders */

struct watch;

/* `path` has no slash in front. May be called with the same one twice. */
typedef void (*watch_new)(void *ctx, const char *path);

/* `root`: "" or a folder (tests). -ENOENT: there is no cgroup hierarchy. */
int watch_open(struct watch **w, const char *root, struct err *e);
void watch_close(struct watch *w);
int watch_fd(const struct watch *w);
/* Reads what there is, without waiting. */
void watch_read(struct watch *w, watch_new told, void *ctx);
/* Folders that could not be watched, because of WATCH_MAX or the user's limit. */
bool watch_is_full(const struct watch *w);

#endif
