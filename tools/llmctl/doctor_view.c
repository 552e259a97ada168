// SPDX-License-Identifier: MIT
/* The machine's files, or a made-up machine's below a folder; see doctor.h. Keeps nothing open. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "doctor.h"

#define LOG_RECORD_MAX 8192

int view_open(struct view *v, const char *root, struct err *e)
{
	struct stat st;
	size_t n;

	v->root[0] = '\0';
	if (!root || !strcmp(root, "/"))
		return 0;
	n = strlen(root);
	while (n > 1 && root[n - 1] == '/')
		n--;
	if (!n || n >= sizeof(v->root))
		return err_set(e, -EINVAL, "--root: the path is empty or too long: give a folder");
	memcpy(v->root, root, n);
	v->root[n] = '\0';
	if (stat(v->root, &st))
		return err_set(e, -errno, "--root: %s: %s: give a folder with proc, sys, etc in it",
			       root, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return err_set(e, -ENOTDIR,
			       "--root: %s: not a folder: give one with proc, sys, etc in it",
			       root);
	return 0;
}

bool view_real(const struct view *v)
{
	return !v->root[0];
}

bool view_path(const struct view *v, const char *path, char out[VIEW_PATH_MAX])
{
	int n = snprintf(out, VIEW_PATH_MAX, "%s%s", v->root, path);

	if (n < VIEW_PATH_MAX)
		return true;
	errno = ENAMETOOLONG;
	return false;
}

char *view_read(const struct view *v, const char *path, size_t *len)
{
	size_t n = 0, cap = 16384;
	char full[VIEW_PATH_MAX], *buf, *more;
	ssize_t got = 0;
	int fd, saved;

	if (!view_path(v, path, full))
		return NULL;
	/* Not blocking: whatever stands there, a FIFO too, must not hold us up. */
	fd = open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return NULL;
	buf = malloc(cap);
	while (buf && n < VIEW_FILE_MAX && (got = read(fd, buf + n, cap - 1 - n)) > 0) {
		n += (size_t)got;
		if (cap - n > 4096)
			continue;
		cap *= 2;
		more = realloc(buf, cap);
		if (!more)
			free(buf);
		buf = more;
	}
	saved = errno;
	close(fd);
	if (!buf || (got < 0 && !n)) {
		errno = buf ? saved : ENOMEM;
		free(buf);
		return NULL;
	}
	buf[n] = '\0';
	if (len)
		*len = n;
	return buf;
}

bool view_line(const struct view *v, const char *path, char *out, size_t size)
{
	char *s = view_read(v, path, NULL), *p = s;
	size_t n;

	out[0] = '\0';
	if (!s)
		return false;
	p += strspn(p, " \t");
	n = strcspn(p, "\n");
	while (n && (p[n - 1] == ' ' || p[n - 1] == '\t' || p[n - 1] == '\r'))
		n--;
	snprintf(out, size, "%.*s", (int)(n < size ? n : size - 1), p);
	free(s);
	return true;
}

bool view_number(const struct view *v, const char *path, long long *out)
{
	char line[64], *end;

	if (!view_line(v, path, line, sizeof(line)))
		return false;
	errno = 0;
	*out = strtoll(line, &end, 0);
	return !errno && end != line && !*end;
}

bool view_stat(const struct view *v, const char *path, struct stat *st)
{
	char full[VIEW_PATH_MAX];

	return view_path(v, path, full) && !stat(full, st);
}

bool view_exists(const struct view *v, const char *path)
{
	struct stat st;

	return view_stat(v, path, &st);
}

bool view_list(const struct view *v, const char *path, bool (*fn)(void *ctx, const char *name),
	       void *ctx)
{
	struct dirent **names;
	char full[VIEW_PATH_MAX];
	bool go = true;
	int n;

	if (!view_path(v, path, full))
		return false;
	n = scandir(full, &names, NULL, alphasort);
	if (n < 0)
		return false;
	for (int i = 0; i < n; i++) {
		if (go && strcmp(names[i]->d_name, ".") && strcmp(names[i]->d_name, ".."))
			go = fn(ctx, names[i]->d_name);
		free(names[i]);
	}
	free(names);
	return true;
}

/* /dev/kmsg gives a record a read: "6,339,5140900,-;text\n KEY=value\n". */
static char *read_records(int fd)
{
	char record[LOG_RECORD_MAX], *buf = malloc(VIEW_FILE_MAX), *text;
	size_t n = 0, len;
	ssize_t got;

	while (buf) {
		got = read(fd, record, sizeof(record) - 1);
		/* EPIPE: the record was overwritten before it was read; the next one can be read. */
		if (got < 0 && (errno == EPIPE || errno == EINTR))
			continue;
		if (got <= 0)
			break;
		record[got] = '\0';
		text = strchr(record, ';');
		text = text ? text + 1 : record;
		len = strcspn(text, "\n");
		if (n + len + 2 > VIEW_FILE_MAX)
			break;
		memcpy(buf + n, text, len);
		n += len;
		buf[n++] = '\n';
	}
	if (buf)
		buf[n] = '\0';
	return buf;
}

char *view_kernel_log(const struct view *v)
{
	char *log;
	int fd;

	if (!view_real(v))
		return view_read(v, "/dev/kmsg", NULL);
	fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	log = read_records(fd);
	close(fd);
	return log;
}
