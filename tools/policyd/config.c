// SPDX-License-Identifier: MIT
/* Reads the configuration; see config.h. */
#include "config.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/size.h"
#include "memory/meminfo.h"
#include "memory/reclaim.h"

#define LINE_BYTES 4096

const char *const mode_name[N_MODES] = {
	[MODE_OFF] = "off", [MODE_OBSERVE] = "observe", [MODE_FILES] = "files",
	[MODE_FS] = "fs",   [MODE_AUTO] = "auto",	[MODE_GLOBAL] = "global",
};

unsigned int mode_allows(enum mode m)
{
	unsigned int bits = 0;

	if (m >= MODE_FILES)
		bits |= ROOM_BIT(ROOM_FILES);
	if (m >= MODE_FS)
		bits |= ROOM_BIT(ROOM_FILESYSTEMS);
	if (m >= MODE_AUTO)
		bits |= ROOM_BIT(ROOM_RECLAIM) | ROOM_BIT(ROOM_MODULE) | ROOM_BIT(ROOM_COMPACT);
	if (m >= MODE_GLOBAL)
		bits |= ROOM_BIT(ROOM_DROP_CACHES);
	return bits;
}

enum section { S_NONE, S_POLICY, S_FILES, S_FILESYSTEMS, S_CGROUPS, S_START };
enum { K_MODE, K_FREE, K_BLOCKS, K_RESERVE, K_HYSTERESIS, K_INTERVAL, K_PAUSE, N_KEYS };
static const char *const policy_key[N_KEYS] = {"mode",	     "free",	 "blocks", "reserve",
					       "hysteresis", "interval", "pause"};

struct reader {
	struct config *c;
	const char *file;
	int line;
	enum section section;
	unsigned int set; /* policy keys of this file */
	struct err *e;
};

__attribute__((format(printf, 2, 3))) static int bad(struct reader *r, const char *fmt, ...)
{
	char why[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	return err_set(r->e, -EINVAL, "%s:%d: %s", r->file, r->line, why);
}

/* ---- values ---------------------------------------------------------------------------------- */

static int take_size(struct reader *r, const char *key, const char *value, uint64_t *out)
{
	if (!size_parse(value, out) || *out > (uint64_t)1 << 46)
		return bad(r, "%s = %s: not a size: give one like 8G", key, value);
	return 0;
}

static int take_number(struct reader *r, const char *key, const char *value, const char *unit,
		       double lo, double hi, double *out)
{
	char *end;

	errno = 0;
	*out = strtod(value, &end);
	if (end != value && !strcmp(end, unit))
		end += strlen(unit);
	if (errno || end == value || *end || isnan(*out) || *out < lo || *out > hi)
		return bad(r, "%s = %s: give a number from %g to %g%s", key, value, lo, hi, unit);
	return 0;
}

static int take_mode(struct reader *r, const char *value)
{
	for (int i = 0; i < N_MODES; i++)
		if (!strcmp(value, mode_name[i])) {
			r->c->mode = (enum mode)i;
			return 0;
		}
	return bad(r, "mode = %s: there are off, observe, files, fs, auto and global", value);
}

static int add_path(struct reader *r, struct paths *p, const char *value, bool absolute)
{
	size_t all = r->c->files.n + r->c->filesystems.n + r->c->cgroups.n + r->c->n_triggers;
	void *v;

	if (absolute && *value != '/')
		return bad(r, "%s: not a full path: begin it with /", value);
	if (!absolute && strstr(value, ".."))
		return bad(r, "%s: .. is not allowed here", value);
	if (all >= CONFIG_MAX_LINES)
		return bad(r, "more than %d paths and triggers", CONFIG_MAX_LINES);
	v = realloc(p->v, (p->n + 1) * sizeof(*p->v));
	if (!v)
		return err_set(r->e, -ENOMEM, "%s: no memory", r->file);
	p->v = v;
	p->v[p->n] = strdup(value);
	if (!p->v[p->n])
		return err_set(r->e, -ENOMEM, "%s: no memory", r->file);
	p->n++;
	return 0;
}

static int policy_line(struct reader *r, const char *key, const char *value)
{
	struct config *c = r->c;
	double percent;
	int k = 0, rc;

	while (k < N_KEYS && strcmp(key, policy_key[k]))
		k++;
	if (k == N_KEYS)
		return bad(r,
			   "%s: unknown in [policy]: there are mode, free, blocks, reserve, "
			   "hysteresis, interval and pause",
			   key);
	if (r->set & 1u << k)
		return bad(r, "%s: set twice in this file", key);
	r->set |= 1u << k;
	switch (k) {
	case K_MODE:
		return take_mode(r, value);
	case K_FREE:
		return take_size(r, key, value, &c->free);
	case K_BLOCKS:
		if (value[strspn(value, "0123456789")])
			return bad(r, "%s = %s: not a whole number: give one like 512", key, value);
		return take_size(r, key, value, &c->blocks);
	case K_RESERVE:
		return take_size(r, key, value, &c->reserve);
	case K_HYSTERESIS:
		rc = take_number(r, key, value, "%", 0, 400, &percent);
		if (!rc)
			c->hysteresis = percent / 100;
		return rc;
	case K_INTERVAL:
		return take_number(r, key, value, "s", 0.05, 3600, &c->interval);
	default:
		return take_number(r, key, value, "s", 0, 3600, &c->pause);
	}
}

static int start_line(struct reader *r, const char *key, const char *value)
{
	struct trigger *t = &r->c->trigger[r->c->n_triggers - 1];
	struct err e;

	if (!strcmp(key, "room"))
		return take_size(r, key, value, &t->room);
	if (!strcmp(key, "seconds"))
		return take_number(r, key, value, "s", 1, 864000, &t->seconds);
	if (!strcmp(key, "until")) {
		if (until_parse(&t->until, value, &e))
			return bad(r, "until: %.300s", e.msg);
		t->has_until = true;
		return 0;
	}
	if (strcmp(key, "unit") && strcmp(key, "cgroup"))
		return bad(
			r,
			"%s: unknown in [start]: there are unit, cgroup, room, until and seconds",
			key);
	if (*t->pattern)
		return bad(r, "%s: give one of unit and cgroup, once", key);
	if (strlen(value) > sizeof(t->pattern) - 3)
		return bad(r, "%s: too long", key);
	if (!strcmp(key, "unit") && strchr(value, '/'))
		return bad(r, "unit = %s: not a unit's name: give one like vllm.service", value);
	/* A unit's cgroup is somewhere below a slice. */
	if (!strcmp(key, "unit"))
		snprintf(t->pattern, sizeof(t->pattern), "*/%s", value);
	else
		snprintf(t->pattern, sizeof(t->pattern), "%s", value + (*value == '/'));
	return 0;
}

/* ---- lines ----------------------------------------------------------------------------------- */

static char *trim(char *s)
{
	char *end;

	while (isspace((unsigned char)*s))
		s++;
	end = s + strlen(s);
	while (end > s && isspace((unsigned char)end[-1]))
		*--end = '\0';
	return s;
}

/* The section that ends here must say everything. */
static int section_done(struct reader *r)
{
	const struct trigger *t;

	if (r->section != S_START)
		return 0;
	t = &r->c->trigger[r->c->n_triggers - 1];
	if (!*t->pattern || !t->room)
		return err_set(r->e, -EINVAL, "%s: [start %s] needs unit or cgroup, and room",
			       t->where, t->name);
	return 0;
}

static int section_begin(struct reader *r, char *s)
{
	static const char *const names[] = {"", "policy", "files", "filesystems", "cgroups"};
	char *end = strchr(s, ']');
	struct trigger *v;
	int rc = section_done(r);

	if (rc)
		return rc;
	if (!end || *trim(end + 1))
		return bad(r, "[%s: a section's name ends with ]", s);
	*end = '\0';
	s = trim(s);
	for (int i = S_POLICY; i <= S_CGROUPS; i++)
		if (!strcmp(s, names[i])) {
			r->section = (enum section)i;
			return 0;
		}
	if (strncmp(s, "start ", 6) || !*trim(s + 6))
		return bad(r,
			   "[%s]: there are [policy], [files], [filesystems], [cgroups] and "
			   "[start NAME]",
			   s);
	if (r->c->n_triggers >= CONFIG_MAX_LINES)
		return bad(r, "more than %d paths and triggers", CONFIG_MAX_LINES);
	v = realloc(r->c->trigger, (r->c->n_triggers + 1) * sizeof(*v));
	if (!v)
		return err_set(r->e, -ENOMEM, "%s: no memory", r->file);
	r->c->trigger = v;
	v += r->c->n_triggers++;
	*v = (struct trigger){.seconds = 600};
	snprintf(v->name, sizeof(v->name), "%.63s", trim(s + 6));
	snprintf(v->where, sizeof(v->where), "%.280s:%d", r->file, r->line);
	r->section = S_START;
	return 0;
}

static int config_line(struct reader *r, char *s)
{
	char *value, *key;

	s = trim(s);
	if (!*s || *s == '#' || *s == ';')
		return 0;
	for (const char *p = s; *p; p++)
		if ((unsigned char)*p < 0x20 && *p != '\t')
			return bad(r, "a control character");
	if (*s == '[')
		return section_begin(r, s + 1);
	value = strchr(s, '=');
	if (!value)
		return bad(r, "`%.64s`: neither a [section] nor KEY = VALUE", s);
	*value++ = '\0';
	key = trim(s);
	value = trim(value);
	if (!*key || !*value)
		return bad(r, "%s = %s: one side is empty", key, value);
	switch (r->section) {
	case S_POLICY:
		return policy_line(r, key, value);
	case S_FILES:
	case S_FILESYSTEMS:
		if (strcmp(key, "path"))
			return bad(r, "%s: unknown here: there is path", key);
		return add_path(r, r->section == S_FILES ? &r->c->files : &r->c->filesystems, value,
				true);
	case S_CGROUPS:
		if (strcmp(key, "reclaim"))
			return bad(r, "%s: unknown here: there is reclaim", key);
		return add_path(r, &r->c->cgroups, value, false);
	case S_START:
		return start_line(r, key, value);
	default:
		return bad(r, "%s: before the first [section]", key);
	}
}

static int read_file(struct config *c, const char *path, struct err *e)
{
	struct reader r = {.c = c, .file = path, .e = e};
	char line[LINE_BYTES];
	struct stat st;
	FILE *f = fopen(path, "re");
	int rc = 0;

	if (!f)
		return err_set(e, -errno, "%s: %s", path, strerror(errno));
	if (fstat(fileno(f), &st) || !S_ISREG(st.st_mode)) {
		fclose(f);
		return err_set(e, -EINVAL, "%s: not a regular file", path);
	}
	while (!rc && fgets(line, sizeof(line), f)) {
		size_t n = strlen(line);

		r.line++;
		if (n == sizeof(line) - 1 && line[n - 1] != '\n')
			rc = bad(&r, "a line of more than %d bytes", LINE_BYTES - 2);
		else if (!n || (line[n - 1] != '\n' && !feof(f)))
			rc = bad(&r, "a zero byte: this is no text");
		else
			rc = config_line(&r, line);
	}
	if (!rc && ferror(f))
		rc = err_set(e, -EIO, "%s: cannot be read", path);
	fclose(f);
	c->n_read++;
	return rc ? rc : section_done(&r);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static int is_conf(const struct dirent *d)
{
	size_t n = strlen(d->d_name);

	return d->d_name[0] != '.' && n > 5 && !strcmp(d->d_name + n - 5, ".conf");
}

int config_read(struct config *c, const char *path, struct err *e)
{
	struct dirent **names;
	struct stat st;
	int n, rc = 0;

	*c = (struct config){.mode = MODE_OBSERVE, .hysteresis = 0.25, .interval = 1, .pause = 1};
	if (stat(path, &st))
		return errno == ENOENT && !strcmp(path, CONFIG_DIR)
			       ? 0
			       : err_set(e, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return read_file(c, path, e);
	n = scandir(path, &names, is_conf, alphasort);
	if (n < 0)
		return err_set(e, -errno, "%s: %s", path, strerror(errno));
	for (int i = 0; i < n; i++) {
		char full[4096];

		snprintf(full, sizeof(full), "%.3800s/%.256s", path, names[i]->d_name);
		if (!rc)
			rc = read_file(c, full, e);
		free(names[i]);
	}
	free(names);
	return rc;
}

int config_fits(const struct config *c, uint64_t mem_total, struct err *e)
{
	char a[MEM_SIZE_TEXT], b[MEM_SIZE_TEXT];
	double most = (double)c->free * (1 + c->hysteresis);

	if (most > (double)mem_total)
		return err_set(e, -EINVAL,
			       "free = %s with its hysteresis: this machine has %s: choose less",
			       mem_size(a, c->free), mem_size(b, mem_total));
	if (c->blocks > mem_total / MEM_BLOCK)
		return err_set(e, -EINVAL,
			       "blocks = %llu: this machine has %llu at most: choose fewer",
			       (unsigned long long)c->blocks,
			       (unsigned long long)(mem_total / MEM_BLOCK));
	if (c->reserve > mem_total)
		return err_set(e, -EINVAL, "reserve = %s: this machine has %s: choose less",
			       mem_size(a, c->reserve), mem_size(b, mem_total));
	return 0;
}

static void paths_free(struct paths *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->v[i]);
	free(p->v);
}

void config_free(struct config *c)
{
	paths_free(&c->files);
	paths_free(&c->filesystems);
	paths_free(&c->cgroups);
	free(c->trigger);
	*c = (struct config){0};
}
