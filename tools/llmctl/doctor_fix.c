// SPDX-License-Identifier: MIT
/*
 * llmctl doctor --fix and --undo: changes and their record; see doctor.h.
 *
 * The record (DOCTOR_STATE_FILE) is written before a change is made: whatever happens in between,
 * --undo finds what was there. A change is only taken back where its own value still stands.
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "doctor.h"

#define COMMENT "# Written by `llmctl doctor --fix`; `llmctl doctor --undo` takes it back.\n"
#define WORDS	8

__attribute__((format(printf, 2, 3))) static void tell(struct fixer *x, const char *fmt, ...)
{
	char line[768];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	x->tell(x->ctx, line);
}

/* ---- files ------------------------------------------------------------------------------------ */

/* In place: the file keeps its owner and mode. */
static int write_file(const struct view *v, const char *path, const char *text, int flags, int mode,
		      struct err *e)
{
	char full[VIEW_PATH_MAX];
	size_t n = strlen(text);
	ssize_t put;
	int fd, rc = 0;

	if (!view_path(v, path, full))
		return err_set(e, -ENAMETOOLONG, "%s: the path is too long", path);
	fd = open(full, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | flags, mode);
	if (fd < 0)
		return err_set(e, -errno, "%s: %s", full, strerror(errno));
	/* One write: files of the kernel take a value as a whole. */
	put = write(fd, text, n);
	if (put != (ssize_t)n)
		rc = put < 0 ? -errno : -EIO;
	if (!rc && (flags & O_TRUNC) && fsync(fd))
		rc = -errno;
	if (close(fd) && !rc)
		rc = -errno;
	return rc ? err_set(e, rc, "%s: %s", full, strerror(-rc)) : 0;
}

/* The folder of `path`; *made: it was not there. Only the last one is made. */
static int make_folder(const struct view *v, const char *path, bool *made, struct err *e)
{
	char full[VIEW_PATH_MAX];

	*made = false;
	if (!view_path(v, path, full))
		return err_set(e, -ENAMETOOLONG, "%s: the path is too long", path);
	*strrchr(full, '/') = '\0';
	if (!mkdir(full, 0755))
		*made = true;
	else if (errno != EEXIST)
		return err_set(e, -errno, "%s: %s", full, strerror(errno));
	return 0;
}

static void remove_folder(const struct view *v, const char *path)
{
	char full[VIEW_PATH_MAX];

	if (!view_path(v, path, full))
		return;
	*strrchr(full, '/') = '\0';
	rmdir(full); /* stays if somebody else put something there */
}

static void remove_file(const struct view *v, const char *path)
{
	char full[VIEW_PATH_MAX];

	if (view_path(v, path, full))
		unlink(full);
}

/* What a file of the kernel is set to: its first line, or the word in brackets. malloc'ed. */
static char *value_of(const struct view *v, const char *path)
{
	char line[256], *a, *b;

	if (!view_line(v, path, line, sizeof(line)))
		return NULL;
	a = strchr(line, '[');
	b = a ? strchr(a, ']') : NULL;
	return b ? strndup(a + 1, (size_t)(b - a - 1)) : strdup(line);
}

/* ---- the record ------------------------------------------------------------------------------- */

static int record_read(const struct view *v, json_t **out, struct err *e)
{
	char *s = view_read(v, DOCTOR_STATE_FILE, NULL);
	json_error_t je;

	*out = NULL;
	if (!s) {
		if (errno != ENOENT)
			return err_set(e, -errno, "%s%s: %s", v->root, DOCTOR_STATE_FILE,
				       strerror(errno));
		*out = json_pack("{s[] sb}", "changes", "made_folder", 0);
		return *out ? 0 : err_set(e, -ENOMEM, "doctor: out of memory");
	}
	*out = json_loads(s, 0, &je);
	free(s);
	if (!json_is_array(json_object_get(*out, "changes"))) {
		json_decref(*out);
		*out = NULL;
		return err_set(e, -EINVAL, "%s%s: no record of doctor: %s: mend it or move it away",
			       v->root, DOCTOR_STATE_FILE,
			       je.text[0] ? je.text : "`changes` is missing");
	}
	return 0;
}

/* A new file in the old one's place, so that there is always a whole one. */
static int record_write(const struct view *v, const json_t *record, struct err *e)
{
	char from[VIEW_PATH_MAX], to[VIEW_PATH_MAX];
	char *s = json_dumps(record, JSON_INDENT(1));
	int rc;

	if (!s)
		return err_set(e, -ENOMEM, "doctor: out of memory");
	rc = write_file(v, DOCTOR_STATE_FILE ".new", s, O_CREAT | O_TRUNC, 0644, e);
	free(s);
	if (rc)
		return rc;
	if (!view_path(v, DOCTOR_STATE_FILE ".new", from) || !view_path(v, DOCTOR_STATE_FILE, to) ||
	    rename(from, to))
		return err_set(e, -errno, "%s: %s", to, strerror(errno));
	return 0;
}

/* ---- commands --------------------------------------------------------------------------------- */

/* Runs `command` (words with blanks between) and says why it failed in *e, in its own words. In a
 * made-up machine only that machine's programs are run. */
static int run_command(const struct view *v, const char *command, struct err *e)
{
	char words[256], program[VIEW_PATH_MAX], said[256] = "", root[VIEW_PATH_MAX], *save = NULL;
	char *argv[WORDS + 1] = {NULL},
			   *env[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", root, NULL};
	posix_spawn_file_actions_t fa;
	int n = 0, fd[2], status = -1, rc;
	size_t got = 0;
	ssize_t r;
	pid_t pid;

	snprintf(words, sizeof(words), "%s", command);
	for (char *w = strtok_r(words, " ", &save); w && n < WORDS; w = strtok_r(NULL, " ", &save))
		argv[n++] = w;
	snprintf(root, sizeof(root), "LLMDEV_ROOT=%s", v->root);
	snprintf(program, sizeof(program), "%s/usr/sbin/%s", v->root, argv[0]);
	if (pipe(fd))
		return err_set(e, -errno, "%s: %s", command, strerror(errno));
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&fa, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_adddup2(&fa, fd[1], 2);
	posix_spawn_file_actions_addclose(&fa, fd[0]);
	posix_spawn_file_actions_addclose(&fa, fd[1]);
	rc = view_real(v) ? posix_spawnp(&pid, argv[0], &fa, NULL, argv, env)
			  : posix_spawn(&pid, program, &fa, NULL, argv, env);
	posix_spawn_file_actions_destroy(&fa);
	close(fd[1]);
	while (!rc && ((r = read(fd[0], said + got, sizeof(said) - 1 - got)) > 0 ||
		       (r < 0 && errno == EINTR)))
		got += r > 0 ? (size_t)r : 0;
	close(fd[0]);
	if (rc)
		return err_set(e, -rc, "%s: %s", command, strerror(rc));
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!status)
		return 0;
	said[strcspn(said, "\n")] = '\0';
	return err_set(e, -EIO, "%s: %s%s", command, said[0] ? said : "failed",
		       strstr(said, "Key was rejected")
			       ? ": its signature is refused: see `signature` in llmctl doctor"
			       : "");
}

/* ---- making changes --------------------------------------------------------------------------- */

static void describe(const struct view *v, const struct change *c, char *out, size_t size)
{
	char *now = c->kind == CHANGE_VALUE ? value_of(v, c->path) : NULL;

	switch (c->kind) {
	case CHANGE_VALUE:
		snprintf(out, size, "%s: %s -> %s", c->path, now ? now : "?", c->value);
		break;
	case CHANGE_TRIGGER:
		snprintf(out, size, "%s: write %s", c->path, c->value);
		break;
	case CHANGE_LINE:
		snprintf(out, size, "%s: the line `%s`", c->path, c->value);
		break;
	default:
		snprintf(out, size, "run `%s`", c->value);
	}
	free(now);
}

/* The file's text with the line behind it; NULL: it has the line. malloc'ed. */
static char *with_line(const char *before, const char *line)
{
	char *s = NULL, *at = before ? strstr(before, line) : NULL;
	size_t n = strlen(line);

	for (; at; at = strstr(at + 1, line))
		if ((at == before || at[-1] == '\n') && (at[n] == '\n' || !at[n]))
			return NULL;
	if (asprintf(&s, "%s%s%s\n", before ? before : COMMENT,
		     before && *before && before[strlen(before) - 1] != '\n' ? "\n" : "", line) < 0)
		return NULL;
	return s;
}

/* What --undo must know of the change; NULL: there is nothing to do. */
static json_t *entry_of(const struct view *v, const struct change *c)
{
	char *before, *after;
	json_t *j = NULL;

	switch (c->kind) {
	case CHANGE_VALUE:
		before = value_of(v, c->path);
		if (before && strcmp(before, c->value))
			j = json_pack("{ss ss ss ss}", "kind", "value", "path", c->path, "before",
				      before, "after", c->value);
		free(before);
		return j;
	case CHANGE_LINE:
		before = view_read(v, c->path, NULL);
		after = with_line(before, c->value);
		if (after)
			j = json_pack("{ss ss ss? ss}", "kind", "file", "path", c->path, "before",
				      before, "after", after);
		free(before);
		free(after);
		return j;
	default:
		return json_pack("{ss ss ss}", "kind", "run", "done", c->value, "undo", c->undo);
	}
}

static int make_change(const struct view *v, const struct change *c, json_t *entry, struct err *e)
{
	bool made = false;
	int rc;

	if (c->kind == CHANGE_RUN)
		return run_command(v, c->value, e);
	if (c->kind != CHANGE_LINE)
		return write_file(v, c->path, c->value, 0, 0, e);
	rc = make_folder(v, c->path, &made, e);
	if (made)
		json_object_set_new(entry, "made_folder", json_true());
	return rc ? rc
		  : write_file(v, c->path, json_string_value(json_object_get(entry, "after")),
			       O_CREAT | O_TRUNC, 0644, e);
}

static int fix_one(struct fixer *x, json_t *record, const struct change *c, struct err *e)
{
	json_t *list = json_object_get(record, "changes");
	json_t *entry = c->kind == CHANGE_TRIGGER ? NULL : entry_of(x->view, c);
	struct err why;
	char what[640];
	int rc;

	if (!entry && c->kind != CHANGE_TRIGGER)
		return 0;
	describe(x->view, c, what, sizeof(what));
	if (!x->yes && !x->ask(x->ctx, what)) {
		json_decref(entry);
		return 0;
	}
	if (entry) {
		json_array_append_new(list, entry);
		rc = record_write(x->view, record, e);
		if (rc)
			return rc;
	}
	rc = make_change(x->view, c, entry, &why);
	if (!rc) {
		x->done++;
		tell(x, "done: %s", what);
	} else {
		x->failed++;
		tell(x, "failed: %s", why.msg);
		if (entry)
			json_array_remove(list, json_array_size(list) - 1);
	}
	return entry ? record_write(x->view, record, e) : 0;
}

int doctor_fix(struct fixer *x, const struct doctor *d, struct err *e)
{
	json_t *record = NULL;
	bool made = false;
	int rc = record_read(x->view, &record, e);

	x->done = x->failed = 0;
	for (int i = 0; !rc && i < d->n; i++) {
		const struct finding *f = &d->finding[i];

		if (f->state == DOCTOR_OK || f->state == DOCTOR_NA)
			continue;
		for (int k = 0; !rc && k < DOCTOR_CHANGES && f->change[k].kind; k++) {
			rc = make_folder(x->view, DOCTOR_STATE_FILE, &made, e);
			if (made)
				json_object_set_new(record, "made_folder", json_true());
			rc = rc ? rc : fix_one(x, record, &f->change[k], e);
		}
	}
	/* Nothing to take back: no record. */
	if (record && !json_array_size(json_object_get(record, "changes"))) {
		remove_file(x->view, DOCTOR_STATE_FILE);
		if (json_is_true(json_object_get(record, "made_folder")))
			remove_folder(x->view, DOCTOR_STATE_FILE);
	}
	json_decref(record);
	return rc;
}

/* ---- taking them back ------------------------------------------------------------------------- */

static const char *str(const json_t *entry, const char *key)
{
	const char *s = json_string_value(json_object_get(entry, key));

	return s ? s : "";
}

/* 1: it is as it was, or somebody else's by now; 0: taken back; negative: failed. */
static int undo_file(struct fixer *x, const json_t *entry, struct err *e)
{
	const char *path = str(entry, "path");
	const char *before = json_string_value(json_object_get(entry, "before"));
	char *now = view_read(x->view, path, NULL);
	bool same = now && !strcmp(now, str(entry, "after"));
	/* The change may have been recorded and never made. */
	bool undone = before ? now && !strcmp(now, before) : !now;
	int rc = 0;

	free(now);
	if (undone)
		return 1;
	if (!same) {
		tell(x, "left: %s was changed by somebody else since", path);
		return 1;
	}
	if (before)
		rc = write_file(x->view, path, before, O_TRUNC, 0, e);
	else
		remove_file(x->view, path);
	if (!rc && json_is_true(json_object_get(entry, "made_folder")))
		remove_folder(x->view, path);
	return rc;
}

static int undo_value(struct fixer *x, const json_t *entry, struct err *e)
{
	const char *path = str(entry, "path"), *before = str(entry, "before");
	char *now = value_of(x->view, path);
	bool same = now && !strcmp(now, str(entry, "after"));
	bool undone = now && !strcmp(now, before);

	if (undone) {
		free(now);
		return 1;
	}
	if (!same) {
		tell(x, "left: %s is %s by now, not what doctor wrote", path, now ? now : "gone");
		free(now);
		return 1;
	}
	free(now);
	return write_file(x->view, path, before, 0, 0, e);
}

static int undo_one(struct fixer *x, const json_t *entry, struct err *e)
{
	const char *kind = str(entry, "kind");
	int rc;

	if (!strcmp(kind, "value"))
		rc = undo_value(x, entry, e);
	else if (!strcmp(kind, "file"))
		rc = undo_file(x, entry, e);
	else if (!strcmp(kind, "run"))
		rc = str(entry, "undo")[0] ? run_command(x->view, str(entry, "undo"), e) : 1;
	else
		rc = err_set(e, -EINVAL, "%s: unknown kind of change `%s`: mend it",
			     DOCTOR_STATE_FILE, kind);
	if (rc)
		return rc;
	x->done++;
	if (!strcmp(kind, "run"))
		tell(x, "undone: ran `%s`", str(entry, "undo"));
	else if (json_is_string(json_object_get(entry, "before")))
		tell(x, "undone: %s%s%s", str(entry, "path"), *kind == 'v' ? " is again " : "",
		     *kind == 'v' ? str(entry, "before") : "");
	else
		tell(x, "undone: %s is removed", str(entry, "path"));
	return 0;
}

int doctor_undo(struct fixer *x, struct err *e)
{
	json_t *record, *list, *rest;
	struct err why;
	int rc = record_read(x->view, &record, e);

	x->done = x->failed = 0;
	if (rc)
		return rc;
	list = json_object_get(record, "changes");
	rest = json_array();
	for (size_t i = json_array_size(list); i-- > 0;) {
		json_t *entry = json_array_get(list, i);

		if (undo_one(x, entry, &why) < 0) {
			x->failed++;
			tell(x, "failed: %s", why.msg);
			json_array_insert(rest, 0, entry);
		}
	}
	if (!x->failed) {
		remove_file(x->view, DOCTOR_STATE_FILE);
		if (json_is_true(json_object_get(record, "made_folder")))
			remove_folder(x->view, DOCTOR_STATE_FILE);
	} else {
		/* What could not be taken back stays recorded: it can be tried again. */
		json_object_set_new(record, "changes", json_incref(rest));
		rc = record_write(x->view, record, e);
	}
	json_decref(rest);
	json_decref(record);
	return rc;
}
