// SPDX-License-Identifier: MIT
/* New cgroups; see watch.h. Owns the inotify descriptor and the names of what it watches. */
#include "watch.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

struct folder {
	int wd;
	int depth;
	char *path; /* below the base; "" for the base itself */
};

struct watch {
	int fd;
	char base[1024];
	struct folder v[WATCH_MAX];
	int n;
	bool full;
};

static bool exists(const char *root, const char *base, char *out, size_t len)
{
	char probe[1200];

	snprintf(out, len, "%.900s%s", root, base);
	snprintf(probe, sizeof(probe), "%.1100s/cgroup.procs", out);
	return !access(probe, F_OK);
}

/* Watches a folder and those in it. `told`: NULL for what was there before. */
static void add(struct watch *w, const char *path, int depth, watch_new told, void *ctx)
{
	char full[2048], child[1024];
	struct dirent *d;
	DIR *dir;
	int wd;

	if (depth > WATCH_DEPTH)
		return;
	snprintf(full, sizeof(full), "%.1000s/%.1000s", w->base, path);
	wd = w->n < WATCH_MAX
		     ? inotify_add_watch(w->fd, full, IN_CREATE | IN_ONLYDIR | IN_MASK_CREATE)
		     : -1;
	if (wd < 0) {
		if (w->n == WATCH_MAX || errno == ENOSPC)
			w->full = true;
		return;
	}
	w->v[w->n] = (struct folder){wd, depth, strdup(path)};
	if (!w->v[w->n].path) {
		inotify_rm_watch(w->fd, wd);
		return;
	}
	w->n++;
	/* Folders that were made before the watch was there. */
	dir = opendir(full);
	while (dir && (d = readdir(dir))) {
		if (d->d_type != DT_DIR || d->d_name[0] == '.')
			continue;
		snprintf(child, sizeof(child), "%.700s%s%.256s", path, *path ? "/" : "", d->d_name);
		if (told)
			told(ctx, child);
		add(w, child, depth + 1, told, ctx);
	}
	if (dir)
		closedir(dir);
}

int watch_open(struct watch **out, const char *root, struct err *e)
{
	struct watch *w = calloc(1, sizeof(*w));

	if (!w)
		return err_set(e, -ENOMEM, "no memory");
	w->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (w->fd < 0) {
		int rc = -errno;

		free(w);
		return err_set(e, rc, "inotify: %s: new cgroups are not seen", strerror(-rc));
	}
	if (!exists(root, "/sys/fs/cgroup", w->base, sizeof(w->base)) &&
	    !exists(root, "/sys/fs/cgroup/unified", w->base, sizeof(w->base)) &&
	    !exists(root, "/sys/fs/cgroup/systemd", w->base, sizeof(w->base))) {
		watch_close(w);
		return err_set(e, -ENOENT,
			       "%s/sys/fs/cgroup: no cgroups there: new ones are not seen", root);
	}
	add(w, "", 0, NULL, NULL);
	*out = w;
	return 0;
}

void watch_close(struct watch *w)
{
	if (!w)
		return;
	for (int i = 0; i < w->n; i++)
		free(w->v[i].path);
	close(w->fd);
	free(w);
}

int watch_fd(const struct watch *w)
{
	return w ? w->fd : -1;
}

bool watch_is_full(const struct watch *w)
{
	return w->full;
}

static void handle(struct watch *w, const struct inotify_event *ev, watch_new told, void *ctx)
{
	char path[1024];
	int i = 0;

	while (i < w->n && w->v[i].wd != ev->wd)
		i++;
	if (i == w->n)
		return;
	if (ev->mask & IN_IGNORED) {
		free(w->v[i].path);
		w->v[i] = w->v[--w->n];
		return;
	}
	if (!(ev->mask & IN_CREATE) || !(ev->mask & IN_ISDIR) || !ev->len)
		return;
	snprintf(path, sizeof(path), "%.700s%s%.256s", w->v[i].path, *w->v[i].path ? "/" : "",
		 ev->name);
	told(ctx, path);
	add(w, path, w->v[i].depth + 1, told, ctx);
}

void watch_read(struct watch *w, watch_new told, void *ctx)
{
	char buf[8192] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n;

	while ((n = read(w->fd, buf, sizeof(buf))) > 0)
		for (ssize_t at = 0; at < n;) {
			const struct inotify_event *ev = (const void *)(buf + at);

			handle(w, ev, told, ctx);
			at += (ssize_t)(sizeof(*ev) + ev->len);
		}
}
