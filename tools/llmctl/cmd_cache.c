// SPDX-License-Identifier: MIT
/*
 * llmctl cache: how much of files is in the page cache, and dropping it: of files, of a filesystem,
 * of everything. Says what there was before and after; what it may not do, and which right that
 * takes.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "ctl.h"
#include "llm.h"
#include "memory/cache.h"
#include "memory/meminfo.h"
#include "memory/reclaim.h"

#define USAGE                                                                                      \
	"cache drop|status [--file PATH]... [--fs PATH]... [--global] [--sync] [--json] [--root "  \
	"DIR]\n"                                                                                   \
	"  --file PATH  a file, or all files below a folder\n"                                     \
	"  --fs PATH    the whole filesystem that PATH is on\n"                                    \
	"  --global     everything\n"                                                              \
	"  --sync       (drop) first write what is dirty: dirty pages cannot be dropped"
#define MAX_TARGETS 256
#define PIECE	    ((off_t)1 << 30) /* of a big file: progress is shown after each */

enum { OPT_FILE = 1, OPT_FS, OPT_GLOBAL, OPT_SYNC, OPT_JSON, OPT_ROOT };
enum kind { KIND_FILE, KIND_FS, KIND_GLOBAL };

struct target {
	enum kind kind;
	const char *path;
	int error; /* -errno; `message` says it */
	struct err message;
	uint64_t files, unknown; /* visited; of them not to be seen */
	uint64_t before, after, dirty; /* bytes cached; after: of it dirty */
	bool dirty_known, known; /* `before` and `after` are */
	const char *how;
	uint64_t unreadable;
};

struct job {
	bool drop, sync;
	int control; /* of the module; -1 */
	struct target *t;
};

/* ---- doing it -------------------------------------------------------------------------------- */

static int visit(void *ctx, int fd, const char *path, const struct stat *st)
{
	struct cache_status before = {0}, after = {0};
	struct job *j = ctx;
	struct target *t = j->t;
	struct err e;
	bool known;

	if (ctl_sigint())
		return 1;
	t->files++;
	known = !cache_status(fd, path, &before, &e);
	if (!known) {
		t->unknown++;
		t->message = e;
	}
	after = before;
	for (off_t at = 0; j->drop && st->st_size > PIECE && at < st->st_size && !ctl_sigint();
	     at += PIECE) {
		posix_fadvise(fd, at, PIECE, POSIX_FADV_DONTNEED);
		ctl_progress(NULL, "dropping", (uint64_t)at, (uint64_t)st->st_size);
	}
	if (j->drop && (!known || before.cached)) {
		int rc = cache_drop(fd, path, j->sync, NULL, &after, &e);

		if (rc) {
			t->error = rc;
			t->message = e;
		}
	}
	t->before += before.cached;
	t->after += after.cached;
	t->dirty += after.dirty;
	t->dirty_known &= after.dirty_known || !after.cached;
	if (t->files % 256 == 0) {
		char what[64];

		snprintf(what, sizeof(what), "%llu files", (unsigned long long)t->files);
		ctl_progress(NULL, what, t->files % 65536, 65536);
	}
	return 0;
}

static void by_files(struct job *j, const char *path)
{
	struct cache_walk w;
	int rc;

	j->t->known = j->t->dirty_known = true;
	j->t->how = "posix_fadvise of each file";
	rc = cache_walk(path, 0, visit, j, &w, &j->t->message);
	ctl_progress_end();
	if (rc)
		j->t->error = rc;
	j->t->unreadable = w.unreadable;
	if (ctl_sigint() && !rc)
		j->t->error = err_set(&j->t->message, -EINTR, "%s: interrupted", path);
}

/* The folder that the filesystem of `path` begins with. */
static void mount_point(const char *path, char *out, size_t len)
{
	char *real = realpath(path, NULL), *slash;
	struct stat st, up;

	snprintf(out, len, "%s", real ? real : path);
	free(real);
	if (stat(out, &st))
		return;
	while ((slash = strrchr(out, '/')) && out[1]) {
		char *last = slash == out ? out + 1 : slash, kept = *last;

		*last = '\0';
		if (stat(out, &up) || up.st_dev != st.st_dev) {
			*last = kept;
			return;
		}
	}
}

/* By the module; false: it cannot, or there is none. */
static bool by_superblock(struct job *j, const char *path)
{
	struct llm_cache_drop d = {.size = sizeof(d)};
	struct target *t = j->t;
	int rc;

	if (j->control < 0 || !j->drop)
		return false;
	d.fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (d.fd < 0)
		return false;
	if (j->sync)
		syncfs(d.fd);
	/* Only what would end the program ends the walk. */
	signal(SIGINT, SIG_DFL);
	rc = ioctl(j->control, LLM_IOC_CACHE_DROP, &d) ? -errno : 0;
	ctl_catch_sigint();
	close(d.fd);
	if (rc)
		return false;
	t->files = d.inodes;
	t->before = d.bytes;
	t->how = "the module, one walk over the filesystem's inodes";
	return true;
}

static void by_filesystem(struct job *j, const char *path)
{
	char top[4096];

	if (by_superblock(j, path))
		return;
	mount_point(path, top, sizeof(top));
	by_files(j, top);
	if (!j->drop)
		j->t->how = "each file";
	else if (j->control < 0)
		j->t->how = "posix_fadvise of each file: the module llm would walk the "
			    "filesystem's inodes";
	else
		j->t->how = "posix_fadvise of each file: what the module walks are filesystems "
			    "with storage of their own: name the one below an overlay";
}

static void everything(struct job *j, const char *root)
{
	struct target *t = j->t;
	struct mem_now n;

	t->known = t->dirty_known = true;
	t->how = "drop_caches";
	t->error = mem_now_read(&n, root, (size_t)sysconf(_SC_PAGESIZE), &t->message);
	if (t->error)
		return;
	t->before = n.cached;
	if (j->drop) {
		if (j->sync)
			sync();
		t->error = cache_drop_everything(root, &t->message);
	}
	mem_now_read(&n, root, (size_t)sysconf(_SC_PAGESIZE), NULL);
	t->after = n.cached;
	t->dirty = n.dirty;
}

/* ---- saying it ------------------------------------------------------------------------------- */

static const char *const kind_name[] = {"file", "filesystem", "global"};

/* Its path, fit for a terminal and for JSON: a path may hold any byte. */
static const char *shown_path(const struct target *t, char buf[PATH_MAX])
{
	snprintf(buf, PATH_MAX, "%s", t->path ? t->path : "everything");
	return err_printable(buf);
}

static json_t *target_json(const struct target *t, bool drop)
{
	char path[PATH_MAX];
	json_t *j = json_pack("{ss ss*}", "kind", kind_name[t->kind], "path",
			      t->path ? shown_path(t, path) : NULL);

	if (t->kind != KIND_GLOBAL)
		json_object_set_new(j, "files", json_integer((json_int_t)t->files));
	if (t->error)
		json_object_set_new(j, "error", json_string(t->message.msg));
	if (t->known && drop) {
		json_object_set_new(j, "cached_before", json_integer((json_int_t)t->before));
		json_object_set_new(j, "cached_after", json_integer((json_int_t)t->after));
	} else if (t->known) {
		json_object_set_new(j, "cached", json_integer((json_int_t)t->after));
	} else if (!t->error) {
		json_object_set_new(j, "dropped", json_integer((json_int_t)t->before));
	}
	if (t->known)
		json_object_set_new(j, "dirty",
				    t->dirty_known ? json_integer((json_int_t)t->dirty)
						   : json_null());
	json_object_set_new(j, "files_unknown", json_integer((json_int_t)t->unknown));
	json_object_set_new(j, "files_unreadable", json_integer((json_int_t)t->unreadable));
	if (t->how)
		json_object_set_new(j, "how", json_string(t->how));
	return j;
}

static void print_target(const struct target *t, bool drop)
{
	char a[MEM_SIZE_TEXT], b[MEM_SIZE_TEXT], path[PATH_MAX];
	const char *what = shown_path(t, path);

	if (t->error && !t->files)
		return; /* said on stderr */
	if (!t->known)
		printf("%s: %s dropped, %llu files looked at (%s)\n", what, mem_size(a, t->before),
		       (unsigned long long)t->files, t->how);
	else if (drop)
		printf("%s: %s cached -> %s (%s)\n", what, mem_size(a, t->before),
		       mem_size(b, t->after), t->how);
	else if (t->kind == KIND_GLOBAL)
		printf("%s: %s cached\n", what, mem_size(a, t->after));
	else
		printf("%s: %s cached, %llu files\n", what, mem_size(a, t->after),
		       (unsigned long long)t->files);
	if (t->dirty)
		printf("  %s of it dirty: not to be dropped before it is written%s\n",
		       mem_size(a, t->dirty), drop ? ": --sync" : "");
	if (drop && t->known && t->after > t->dirty && t->kind != KIND_GLOBAL)
		printf("  %s stay: mapped by a process%s\n", mem_size(a, t->after - t->dirty),
		       t->dirty_known ? ", or in use at this moment"
				      : ", dirty, or in use at this moment");
	if (t->unknown)
		printf("  of %llu files it is not known what is cached: that is for their owner "
		       "and "
		       "who may write them\n",
		       (unsigned long long)t->unknown);
	if (t->unreadable)
		printf("  %llu files or folders could not be opened: one has to be able to read "
		       "them\n",
		       (unsigned long long)t->unreadable);
}

static int work(struct job *j, struct target *v, size_t n, const char *root, bool json)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct mem_now before, after;
	json_t *out = json_object(), *list = json_array();
	struct err e;
	int rc = 0;

	if (mem_now_read(&before, root, page, &e)) {
		json_decref(out);
		json_decref(list);
		return ctl_fail("cache: %s", e.msg);
	}
	for (size_t i = 0; i < n && !ctl_sigint(); i++) {
		j->t = &v[i];
		if (v[i].kind == KIND_GLOBAL)
			everything(j, root);
		else if (v[i].kind == KIND_FS)
			by_filesystem(j, v[i].path);
		else
			by_files(j, v[i].path);
		if (v[i].error)
			rc = ctl_fail("cache: %s", v[i].message.msg);
		if (json)
			json_array_append_new(list, target_json(&v[i], j->drop));
		else
			print_target(&v[i], j->drop);
	}
	mem_now_read(&after, root, page, NULL);
	if (json) {
		json_object_set(out, "targets", list);
		json_object_set_new(out, "free_before", json_integer((json_int_t)before.free));
		json_object_set_new(out, "free_after", json_integer((json_int_t)after.free));
		json_dumpf(out, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
		putchar('\n');
	} else if (j->drop) {
		char a[MEM_SIZE_TEXT], b[MEM_SIZE_TEXT];

		printf("MemFree %s -> %s\n", mem_size(a, before.free), mem_size(b, after.free));
	}
	json_decref(out);
	json_decref(list);
	return ctl_sigint() ? 130 : rc;
}

int cmd_cache(int argc, char **argv)
{
	static const struct option options[] = {
		{"file", required_argument, NULL, OPT_FILE},
		{"fs", required_argument, NULL, OPT_FS},
		{"global", no_argument, NULL, OPT_GLOBAL},
		{"sync", no_argument, NULL, OPT_SYNC},
		{"json", no_argument, NULL, OPT_JSON},
		{"root", required_argument, NULL, OPT_ROOT},
		{NULL},
	};
	const char *root = "";
	struct job j = {.control = -1};
	bool json = false;
	struct target *v;
	size_t n = 0;
	int opt, rc;

	opterr = 0;
	optind = 0;
	v = calloc(MAX_TARGETS, sizeof(*v));
	if (!v)
		return ctl_fail("cache: no memory");
	while ((opt = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (opt >= OPT_FILE && opt <= OPT_GLOBAL && n == MAX_TARGETS) {
			free(v);
			return ctl_usage(USAGE, "cache: %d targets at most", MAX_TARGETS);
		}
		if (opt == OPT_FILE || opt == OPT_FS) {
			v[n++] = (struct target){.kind = opt == OPT_FS ? KIND_FS : KIND_FILE,
						 .path = optarg};
		} else if (opt == OPT_GLOBAL) {
			v[n++] = (struct target){.kind = KIND_GLOBAL};
		} else if (opt == OPT_SYNC) {
			j.sync = true;
		} else if (opt == OPT_JSON) {
			json = true;
		} else if (opt == OPT_ROOT) {
			root = optarg;
		} else {
			free(v);
			return ctl_bad_option(USAGE, argv);
		}
	}
	j.drop = argc > optind && !strcmp(argv[optind], "drop");
	if (argc - optind != 1 || (!j.drop && strcmp(argv[optind], "status")) ||
	    (j.sync && !j.drop) || (j.drop && !n)) {
		free(v);
		return ctl_usage(USAGE,
				 "cache: say drop, with --file, --fs or --global, or status");
	}
	if (!n)
		v[n++] = (struct target){.kind = KIND_GLOBAL};
	if (j.drop && !*root)
		j.control = room_control(NULL);
	ctl_catch_sigint();
	rc = work(&j, v, n, root, json);
	if (j.control >= 0)
		close(j.control);
	free(v);
	return rc;
}
