// SPDX-License-Identifier: MIT
/* Page cache by filesystem; see mem_files.h. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "ctl.h"
#include "mem_files.h"
#include "memory/cache.h"

#define MAX_SEEN  (1u << 18) /* distinct files; a power of two */
#define MIN_BYTES 65536 /* smaller ones are not worth a look */

struct key {
	dev_t dev;
	ino_t ino;
};

struct scan {
	struct mem_files *m;
	struct key *seen; /* a hash table; ino 0: empty */
	size_t n_seen;
};

/* Was it not seen before? A full table sees nothing new. */
static bool first_time(struct scan *s, const struct stat *st)
{
	size_t i = ((size_t)st->st_ino * 0x9e3779b97f4a7c15u ^ (size_t)st->st_dev * 31) >> 20;

	if (!st->st_ino || s->n_seen >= MAX_SEEN / 2)
		return false;
	for (i &= MAX_SEEN - 1; s->seen[i].ino; i = (i + 1) & (MAX_SEEN - 1))
		if (s->seen[i].ino == st->st_ino && s->seen[i].dev == st->st_dev)
			return false;
	s->seen[i] = (struct key){st->st_dev, st->st_ino};
	s->n_seen++;
	return true;
}

static struct mem_filesystem *filesystem(struct mem_files *m, dev_t dev)
{
	void *v;

	for (size_t i = 0; i < m->n; i++)
		if (m->v[i].dev == dev)
			return &m->v[i];
	v = realloc(m->v, (m->n + 1) * sizeof(*m->v));
	if (!v)
		return NULL;
	m->v = v;
	m->v[m->n] = (struct mem_filesystem){.dev = dev};
	snprintf(m->v[m->n].where, sizeof(m->v->where), "device %u:%u", major(dev), minor(dev));
	return &m->v[m->n++];
}

static int add(void *ctx, int fd, const char *path, const struct stat *st)
{
	struct scan *s = ctx;
	struct mem_filesystem *f;
	struct cache_status c;
	struct statfs fs;

	if (ctl_sigint())
		return 1;
	/* What is in a tmpfs is no page cache: MEM_SHMEM. */
	if (st->st_size < MIN_BYTES || !first_time(s, st) || fstatfs(fd, &fs) ||
	    fs.f_type == TMPFS_MAGIC || fs.f_type == HUGETLBFS_MAGIC)
		return 0;
	if (cache_status(fd, path, &c, NULL)) {
		s->m->no_file++;
		return 0;
	}
	f = c.cached ? filesystem(s->m, st->st_dev) : NULL;
	if (f) {
		f->cached += c.cached;
		f->dirty += c.dirty;
		f->files++;
		s->m->cached += c.cached;
	}
	return 0;
}

/* Links to open or mapped files: /proc/PID/fd, /proc/PID/map_files. 1: some are not for this user. */
static int scan_links(struct scan *s, const char *pid, const char *kind)
{
	char path[600];
	struct dirent *d;
	int refused = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%.32s/%s", pid, kind);
	dir = opendir(path);
	if (!dir)
		return errno == EACCES || errno == EPERM;
	while ((d = readdir(dir)) && !ctl_sigint()) {
		struct stat st;
		int fd;

		if (d->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%.32s/%s/%.256s", pid, kind, d->d_name);
		fd = cache_open(AT_FDCWD, path, &st);
		if (fd < 0) {
			refused |= fd == -EACCES || fd == -EPERM;
			continue;
		}
		add(s, fd, path, &st);
		close(fd);
	}
	closedir(dir);
	return refused;
}

static void scan_processes(struct scan *s)
{
	DIR *dir = opendir("/proc");
	struct dirent *d;

	while (dir && (d = readdir(dir)) && !ctl_sigint()) {
		if (!isdigit((unsigned char)d->d_name[0]))
			continue;
		s->m->no_open += (uint64_t)scan_links(s, d->d_name, "fd");
		s->m->no_mapped += (uint64_t)scan_links(s, d->d_name, "map_files");
	}
	if (dir)
		closedir(dir);
}

/* "36 35 98:0 /root /mount ... - ext4 /dev/sda1 rw": the first mount of a device is its name. */
static void name_mounts(struct mem_files *m)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t room = 0;

	while (f && getline(&line, &room, f) > 0) {
		unsigned int major_nr, minor_nr;
		char where[256], type[32], *dash = strstr(line, " - ");

		if (!dash ||
		    sscanf(line, "%*d %*d %u:%u %*s %255s", &major_nr, &minor_nr, where) != 3 ||
		    sscanf(dash, " - %31s", type) != 1)
			continue;
		for (size_t i = 0; i < m->n; i++)
			if (m->v[i].dev == makedev(major_nr, minor_nr) && !m->v[i].type[0]) {
				snprintf(m->v[i].where, sizeof(m->v[i].where), "%s",
					 err_printable(where));
				snprintf(m->v[i].type, sizeof(m->v[i].type), "%s", type);
			}
	}
	free(line);
	if (f)
		fclose(f);
}

static int by_cached(const void *a, const void *b)
{
	const struct mem_filesystem *x = a, *y = b;

	return (x->cached < y->cached) - (x->cached > y->cached);
}

int mem_files_read(struct mem_files *m, char **paths, size_t n_paths, struct err *e)
{
	struct scan s = {.m = m};
	int rc = 0;

	*m = (struct mem_files){0};
	s.seen = calloc(MAX_SEEN, sizeof(*s.seen));
	if (!s.seen)
		return err_set(e, -ENOMEM, "no memory to look at files");
	for (size_t i = 0; i < n_paths && !rc; i++) {
		struct cache_walk w;

		rc = cache_walk(paths[i], 0, add, &s, &w, e);
		m->no_file += w.unreadable;
	}
	if (!rc)
		scan_processes(&s);
	free(s.seen);
	if (rc)
		return rc;
	name_mounts(m);
	if (m->n)
		qsort(m->v, m->n, sizeof(*m->v), by_cached);
	return 0;
}

void mem_files_free(struct mem_files *m)
{
	free(m->v);
	*m = (struct mem_files){0};
}
