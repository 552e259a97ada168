// SPDX-License-Identifier: MIT
/* The page cache of files; see cache.h. Owns nothing beyond a call. */
#include "memory/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef __NR_cachestat
#define __NR_cachestat 451 /* on all architectures */
#endif
#define OVERLAYFS_MAGIC 0x794c7630 /* linux/magic.h's OVERLAYFS_SUPER_MAGIC */
#define WINDOW		((uint64_t)256 << 20) /* mapped at once for mincore() */
#define MAX_DEPTH	64

struct cachestat_range_ {
	uint64_t off, len;
};
struct cachestat_ {
	uint64_t cache, dirty, writeback, evicted, recently_evicted;
};

/* ---- one file -------------------------------------------------------------------------------- */

/* mincore() says "all there" of files that one may not ask about (mm/mincore.c, can_do_mincore). */
static bool may_ask(int fd, const struct stat *st)
{
	char path[32];

	if (geteuid() == 0 || geteuid() == st->st_uid)
		return true;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return !faccessat(AT_FDCWD, path, W_OK, AT_EACCESS);
}

/*
 * cachestat() looks at the overlay's own inode, which has no pages, and says that nothing is cached; what
 * is mapped is the file of the layer below.
 */
static bool is_overlay(int fd)
{
	struct statfs st;

	return !fstatfs(fd, &st) && st.f_type == OVERLAYFS_MAGIC;
}

/* 0 or the errno. */
static int ask_cachestat(int fd, struct cachestat_ *c)
{
	struct cachestat_range_ all = {0, 0};

	if (is_overlay(fd))
		return EOPNOTSUPP;
	return syscall(__NR_cachestat, fd, &all, c, 0) ? errno : 0;
}

static int ask_mincore(int fd, uint64_t size, uint64_t page, uint64_t *cached)
{
	unsigned char *in = malloc((size_t)(WINDOW / page));
	int rc = in ? 0 : -ENOMEM;

	*cached = 0;
	for (uint64_t at = 0; !rc && at < size; at += WINDOW) {
		size_t len = (size_t)(size - at < WINDOW ? size - at : WINDOW);
		size_t n = (size_t)((len + page - 1) / page);
		void *p = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, (off_t)at);

		if (p == MAP_FAILED) {
			rc = -errno;
			break;
		}
		if (mincore(p, len, in))
			rc = -errno;
		else
			for (size_t i = 0; i < n; i++)
				*cached += (in[i] & 1) * page;
		munmap(p, len);
	}
	free(in);
	return rc;
}

int cache_open(int dir, const char *path, struct stat *st)
{
	int there = openat(dir, path, O_PATH | O_CLOEXEC), fd = -EINVAL;
	char link[32];

	if (there < 0)
		return -errno;
	if (!fstat(there, st) && S_ISREG(st->st_mode)) {
		snprintf(link, sizeof(link), "/proc/self/fd/%d", there);
		fd = open(link, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			fd = -errno;
	}
	close(there);
	return fd;
}

int cache_status(int fd, const char *name, struct cache_status *s, struct err *e)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	struct cachestat_ c;
	struct stat st;
	int rc;

	*s = (struct cache_status){0};
	if (fstat(fd, &st))
		return err_set(e, -errno, "%s: %s", name, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return err_set(e, -EINVAL, "%s: not a regular file: only files have a page cache",
			       name);
	s->size = (uint64_t)st.st_size;
	rc = ask_cachestat(fd, &c);
	if (!rc) {
		s->cached = c.cache * page;
		s->dirty = (c.dirty + c.writeback) * page;
		s->dirty_known = true;
		return 0;
	}
	if (rc != ENOSYS && rc != EPERM && rc != EOPNOTSUPP)
		return err_set(e, -rc, "%s: cachestat: %s", name, strerror(rc));
	if (!may_ask(fd, &st))
		return err_set(e, -EPERM,
			       "%s: how much of it is cached is told to its owner and to who may "
			       "write it: ask as one of them",
			       name);
	rc = ask_mincore(fd, s->size, page, &s->cached);
	if (rc)
		return err_set(e, rc, "%s: mincore: %s", name, strerror(-rc));
	return 0;
}

int cache_drop(int fd, const char *name, bool sync, struct cache_status *before,
	       struct cache_status *after, struct err *e)
{
	int rc;

	if (before)
		cache_status(fd, name, before, NULL);
	if (sync && fdatasync(fd))
		return err_set(e, -errno, "%s: cannot be written to disk: %s", name,
			       strerror(errno));
	rc = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	if (rc)
		return err_set(e, -rc, "%s: its cache cannot be dropped: %s", name, strerror(rc));
	if (after)
		cache_status(fd, name, after, NULL);
	return 0;
}

/* ---- many files ------------------------------------------------------------------------------ */

struct walk {
	cache_visit visit;
	void *ctx;
	struct cache_walk *w;
	uint64_t max;
	dev_t dev;
	char path[4096];
};

static int walk_dir(struct walk *k, int dir, size_t len, int depth);

/* k->path names it; `dir` and `name` say it to the kernel. Takes no descriptor. */
static int walk_file(struct walk *k, int dir, const char *name)
{
	struct stat st;
	int fd = cache_open(dir, name, &st), rc = 0;

	if (fd < 0) {
		k->w->unreadable++;
		return 0;
	}
	if (st.st_size > 0) {
		k->w->files++;
		rc = k->visit(k->ctx, fd, k->path, &st);
		if (k->max && k->w->files >= k->max)
			rc = 1;
	}
	close(fd);
	return rc;
}

static int walk_entry(struct walk *k, int dir, const char *name, size_t len, int depth)
{
	size_t n = strlen(name);
	struct stat st;
	int sub;

	if (len + n + 2 > sizeof(k->path))
		return 0;
	k->path[len] = '/';
	memcpy(k->path + len + 1, name, n + 1);
	/* A link is followed to a file, never to a folder: no loops, no surprises. */
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
		return 0;
	if (S_ISLNK(st.st_mode) && (fstatat(dir, name, &st, 0) || !S_ISREG(st.st_mode)))
		return 0;
	if (S_ISREG(st.st_mode))
		return st.st_size > 0 && st.st_dev == k->dev ? walk_file(k, dir, name) : 0;
	if (!S_ISDIR(st.st_mode) || depth >= MAX_DEPTH)
		return 0;
	if (st.st_dev != k->dev) {
		k->w->elsewhere++;
		return 0;
	}
	sub = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (sub < 0) {
		k->w->unreadable++;
		return 0;
	}
	return walk_dir(k, sub, len + 1 + n, depth + 1);
}

/* Takes the descriptor. */
static int walk_dir(struct walk *k, int dir, size_t len, int depth)
{
	DIR *d = fdopendir(dir);
	struct dirent *entry;
	int rc = 0;

	if (!d) {
		close(dir);
		k->w->unreadable++;
		return 0;
	}
	while (!rc && (entry = readdir(d)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			rc = walk_entry(k, dirfd(d), entry->d_name, len, depth);
	closedir(d);
	return rc;
}

int cache_walk(const char *path, uint64_t max, cache_visit visit, void *ctx, struct cache_walk *w,
	       struct err *e)
{
	struct walk k = {.visit = visit, .ctx = ctx, .w = w, .max = max};
	struct stat st;
	size_t len;
	int fd = -1, rc;

	*w = (struct cache_walk){0};
	len = (size_t)snprintf(k.path, sizeof(k.path), "%s", path);
	if (len >= sizeof(k.path))
		return err_set(e, -ENAMETOOLONG, "%.64s...: too long a name", path);
	if (stat(path, &st))
		return err_set(e, -errno, "%s: %s", path, strerror(errno));
	k.dev = st.st_dev;
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		return err_set(e, -EINVAL, "%s: neither a file nor a folder", path);
	fd = S_ISREG(st.st_mode) ? cache_open(AT_FDCWD, path, &st)
				 : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && S_ISREG(st.st_mode))
		errno = -fd;
	if (fd < 0)
		return err_set(e, -errno, "%s: %s: it has to be readable", path, strerror(errno));
	if (S_ISREG(st.st_mode)) {
		close(fd);
		rc = st.st_size > 0 ? walk_file(&k, AT_FDCWD, path) : 0;
	} else {
		while (len > 1 && k.path[len - 1] == '/')
			k.path[--len] = '\0';
		if (len == 1 && k.path[0] == '/')
			len = 0;
		rc = walk_dir(&k, fd, len, 0);
	}
	w->stopped = rc != 0;
	return 0;
}

/* ---- everything ------------------------------------------------------------------------------ */

int cache_drop_everything(const char *root, struct err *e)
{
	char path[4096];
	int fd, rc = 0;

	snprintf(path, sizeof(path), "%.4000s/proc/sys/vm/drop_caches", root);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return err_set(e, -errno, "%s: %s%s", path, strerror(errno),
			       errno == EACCES || errno == EPERM
				       ? ": only root may drop the cache of everything"
			       : errno == EROFS
				       ? ": /proc/sys is read-only here (a container?): do it "
					 "on the host"
				       : "");
	if (write(fd, "1\n", 2) != 2)
		rc = err_set(e, -errno, "%s: %s", path, strerror(errno));
	close(fd);
	return rc;
}
