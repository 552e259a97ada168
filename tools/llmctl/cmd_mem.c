// SPDX-License-Identifier: MIT
/*
 * llmctl mem: where every byte of MemTotal is (memory/meminfo.h), as a bar and a table, a line, or
 * JSON.
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "ctl.h"
#include "llm.h"
#include "mem_files.h"
#include "memory/meminfo.h"
#include "memory/reclaim.h"

#define USAGE	  "mem [--watch [SECONDS]] [--json] [--path PATH]... [--root DIR]"
#define MAX_PATHS 64
#define MAX_BAR	  100

enum { OPT_JSON = 1, OPT_WATCH, OPT_PATH, OPT_ROOT };

struct view {
	struct mem_info m;
	struct mem_held held;
	struct mem_files files;
	bool by_filesystem;
	struct llm_region_info *regions;
	size_t n_regions;
	struct err
		no_module; /* why the module's memory is not told apart, though it is loaded; or "" */
};

/* How a part is drawn: its character in the bar, its colour (SGR). */
static const struct {
	char glyph;
	const char *colour;
} look[N_MEM_PARTS] = {
	[MEM_FREE] = {'.', "32"},	 [MEM_FREE_CPU] = {'.', "32"},
	[MEM_CACHE_CLEAN] = {'=', "36"}, [MEM_CACHE_MAPPED] = {'m', "36"},
	[MEM_CACHE_DIRTY] = {'d', "33"}, [MEM_ANON] = {'#', "34"},
	[MEM_SWAP_CACHE] = {'#', "34"},	 [MEM_SHMEM] = {'s', "35"},
	[MEM_REGIONS] = {'W', "1;35"},	 [MEM_RESERVE] = {'R', "1;32"},
	[MEM_HUGETLB] = {'h', "35"},	 [MEM_SLAB_RECLAIMABLE] = {'k', "33"},
	[MEM_SLAB] = {'k', "33"},	 [MEM_DRIVER_RECLAIMABLE] = {'p', "33"},
	[MEM_PAGE_TABLES] = {'k', "33"}, [MEM_KERNEL_STACKS] = {'k', "33"},
	[MEM_PERCPU] = {'k', "33"},	 [MEM_VMALLOC] = {'k', "33"},
	[MEM_COMPRESSED] = {'z', "34"},	 [MEM_BALLOON] = {'b', "31"},
	[MEM_GPU] = {'g', "31"},	 [MEM_REMAINDER] = {'?', "1;31"},
};

/* ---- reading --------------------------------------------------------------------------------- */

static void view_free(struct view *v)
{
	mem_files_free(&v->files);
	free(v->regions);
	v->regions = NULL;
	v->n_regions = 0;
}

static int view_read(struct view *v, const char *root, struct err *e)
{
	struct err why = {""};
	int control = *root ? -1 : room_control(&why);

	memset(v, 0, sizeof(*v));
	if (control < 0 && control != -ENOTTY && !*root && !access("/sys/module/llm", F_OK))
		v->no_module = why;
	room_held(control, &v->held);
	if (control >= 0) {
		v->n_regions = room_regions(control, &v->regions);
		close(control);
	}
	return mem_info_read(&v->m, root, (size_t)sysconf(_SC_PAGESIZE), &v->held, e);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *number(uint64_t n)
{
	return json_integer((json_int_t)n);
}

static void print_json(const struct view *v, size_t flags)
{
	json_t *j = json_object(), *parts = json_object(), *list;

	json_object_set_new(j, "total", number(v->m.total));
	json_object_set_new(j, "available", number(v->m.available));
	json_object_set_new(j, "free_blocks_2m",
			    v->m.blocks_known ? number(v->m.free_blocks) : json_null());
	for (int i = 0; i < N_MEM_PARTS; i++)
		json_object_set_new(parts, mem_part_text[i].key, number(v->m.part[i]));
	json_object_set_new(j, "parts", parts);
	json_object_set_new(j, "overlap", number(v->m.overlap));
	json_object_set_new(j, "page_cache", number(v->m.cached));
	json_object_set_new(j, "page_cache_dirty", number(v->m.dirty));
	json_object_set_new(j, "swap_total", number(v->m.swap_total));
	json_object_set_new(j, "swap_free", number(v->m.swap_free));
	json_object_set_new(j, "module", json_boolean(v->held.module));
	if (v->no_module.msg[0])
		json_object_set_new(j, "no_module", json_string(v->no_module.msg));
	list = json_array();
	for (size_t i = 0; i < v->n_regions; i++) {
		const struct llm_region_info *r = &v->regions[i];

		json_array_append_new(list, json_pack("{ss sI sI sI sI si}", "name",
						      (const char *)r->name, "bytes",
						      (json_int_t)r->bytes, "resident",
						      (json_int_t)r->resident, "huge_bytes",
						      (json_int_t)r->huge_bytes, "uid",
						      (json_int_t)r->uid, "pid", (int)r->pid));
	}
	json_object_set_new(j, "regions", list);
	if (v->by_filesystem) {
		list = json_array();
		for (size_t i = 0; i < v->files.n; i++) {
			const struct mem_filesystem *f = &v->files.v[i];

			json_array_append_new(list, json_pack("{ss ss sI sI sI}", "path", f->where,
							      "type", f->type, "cached",
							      (json_int_t)f->cached, "dirty",
							      (json_int_t)f->dirty, "files",
							      (json_int_t)f->files));
		}
		json_object_set_new(j, "filesystems", list);
		json_object_set_new(j, "not_looked_at",
				    json_pack("{sI sI sI}", "processes_open_files",
					      (json_int_t)v->files.no_open,
					      "processes_mapped_files",
					      (json_int_t)v->files.no_mapped, "files",
					      (json_int_t)v->files.no_file));
	}
	json_dumpf(j, stdout, flags | JSON_PRESERVE_ORDER);
	putchar('\n');
	json_decref(j);
}

/* ---- a picture and a table ------------------------------------------------------------------- */

static bool picture(void)
{
	const char *term = getenv("TERM");

	return isatty(STDOUT_FILENO) && term && *term && strcmp(term, "dumb");
}

static bool colours(void)
{
	const char *no = getenv("NO_COLOR");

	return picture() && !(no && *no);
}

static int terminal(bool rows)
{
	struct winsize ws;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) || !ws.ws_col || !ws.ws_row)
		return rows ? 24 : 80;
	return rows ? ws.ws_row : ws.ws_col;
}

/* A line no wider than the terminal; on one that is drawn over, to its end. */
static void put_line(const char *text, int width, bool over)
{
	printf("%.*s%s\n", width, text, over ? "\033[K" : "");
}

static void draw_bar(const struct mem_info *m, int width)
{
	int cells = (width < MAX_BAR ? width : MAX_BAR) - 2, drawn = 0;
	const char *last = NULL;
	uint64_t sum = 0;

	if (cells < 8)
		return;
	putchar('[');
	for (int i = 0; i < N_MEM_PARTS; i++) {
		int end;

		sum += m->part[i];
		end = (int)((double)sum / (double)m->total * cells + 0.5);
		if (end > drawn && colours() && (!last || strcmp(last, look[i].colour)))
			printf("\033[0;%sm", last = look[i].colour);
		for (; drawn < end; drawn++)
			putchar(look[i].glyph);
	}
	printf("%s]%s\n", last ? "\033[0m" : "", picture() ? "\033[K" : "");
}

static void part_line(char *line, size_t len, const struct mem_info *m, int i, bool glyph)
{
	char size[MEM_SIZE_TEXT], more[80] = "", mark[4] = "";

	if (i == MEM_FREE && m->blocks_known)
		snprintf(more, sizeof(more), "%llu blocks of 2 MiB (%s)",
			 (unsigned long long)m->free_blocks,
			 mem_size((char[MEM_SIZE_TEXT]){0}, m->free_blocks * MEM_BLOCK));
	if (glyph)
		snprintf(mark, sizeof(mark), "%c ", look[i].glyph);
	snprintf(line, len, "%s%-18s %9s %5.1f %%  %s", mark, mem_part_text[i].name,
		 mem_size(size, m->part[i]), 100.0 * (double)m->part[i] / (double)m->total,
		 *more ? more : mem_part_text[i].what);
}

/* As many lines as fit, if `rows` says how many that are; returns how many there were. */
static int print_table(const struct view *v, int rows)
{
	bool draw = picture();
	int width = draw ? terminal(false) : 4096, n = 0;
	char line[512], size[MEM_SIZE_TEXT], more[MEM_SIZE_TEXT];

	if (draw) {
		draw_bar(&v->m, width);
		n++;
	}
	for (int i = 0; i < N_MEM_PARTS && n < rows - 1; i++) {
		/* On a terminal only what there is; elsewhere always the same lines. */
		if (draw && !v->m.part[i] && i != MEM_REMAINDER)
			continue;
		part_line(line, sizeof(line), &v->m, i, draw);
		put_line(line, width, draw);
		n++;
	}
	snprintf(line, sizeof(line), "%s%-18s %9s          %s available without swapping",
		 draw ? "  " : "", "MemTotal", mem_size(size, v->m.total),
		 mem_size(more, v->m.available));
	put_line(line, width, draw);
	n++;
	for (size_t i = 0; i < v->n_regions && n < rows - 1; i++, n++) {
		const struct llm_region_info *r = &v->regions[i];

		snprintf(line, sizeof(line), "region %s: %s, %s in 2 MiB pages, of uid %u",
			 (const char *)r->name, mem_size(size, r->resident),
			 mem_size(more, r->huge_bytes), r->uid);
		put_line(line, width, draw);
	}
	return n;
}

static void say_not_looked_at(const struct mem_files *f)
{
	const struct {
		uint64_t n;
		const char *of;
	} part[] = {{f->no_open, "open files of %llu process%s"},
		    {f->no_mapped, "mapped files of %llu process%s"},
		    {f->no_file, "%llu file%s"}};
	bool any = false;

	for (size_t i = 0; i < 3; i++) {
		if (!part[i].n)
			continue;
		fputs(any ? ", " : "not looked at: ", stderr);
		fprintf(stderr, part[i].of, (unsigned long long)part[i].n,
			part[i].n == 1 ? ""
			: i < 2	       ? "es"
				       : "s");
		any = true;
	}
	if (any)
		fprintf(stderr, ": %s\n",
			geteuid() ? "not this user's; sudo llmctl mem sees more"
				  : "this root may not, as in a container or sandbox (it takes "
				    "CAP_SYS_PTRACE and CAP_SYS_ADMIN)");
}

static void print_filesystems(const struct view *v)
{
	char size[MEM_SIZE_TEXT], dirty[MEM_SIZE_TEXT];
	int width = picture() ? terminal(false) : 4096;
	char line[512];

	for (size_t i = 0; i < v->files.n; i++) {
		const struct mem_filesystem *f = &v->files.v[i];

		snprintf(line, sizeof(line),
			 "cache of %.200s%s%s%s: %s, %s dirty, in %llu open or named files",
			 f->where, *f->type ? " (" : "", f->type, *f->type ? ")" : "",
			 mem_size(size, f->cached), mem_size(dirty, f->dirty),
			 (unsigned long long)f->files);
		put_line(line, width, false);
	}
	snprintf(line, sizeof(line), "cache of files that nobody has open: %s",
		 mem_size(size, v->m.cached > v->files.cached ? v->m.cached - v->files.cached : 0));
	put_line(line, width, false);
	say_not_looked_at(&v->files);
	if (v->no_module.msg[0])
		fprintf(stderr,
			"regions are in shared memory here, the reserve in the remainder: %s\n",
			v->no_module.msg);
}

/* One sample a line. */
static void print_line(const struct mem_info *m)
{
	static const enum mem_part shown[] = {MEM_FREE,	       MEM_CACHE_CLEAN, MEM_CACHE_MAPPED,
					      MEM_CACHE_DIRTY, MEM_ANON,	MEM_SHMEM,
					      MEM_REGIONS,     MEM_RESERVE,	MEM_REMAINDER};
	char when[32], size[MEM_SIZE_TEXT];
	time_t now = time(NULL);
	struct tm tm;

	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S%z", localtime_r(&now, &tm));
	printf("%s", when);
	for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++)
		printf(" %s %llu", mem_part_text[shown[i]].key,
		       (unsigned long long)(m->part[shown[i]] >> 20));
	printf(" blocks %llu total %s\n", (unsigned long long)m->free_blocks,
	       mem_size(size, m->total));
}

/* ---- watching -------------------------------------------------------------------------------- */

/* False: stop (Ctrl-C, or nobody reads). */
static bool pause_for(double seconds)
{
	uint64_t end = ctl_now_ns() + (uint64_t)(seconds * 1e9);

	while (!ctl_sigint()) {
		struct pollfd p = {STDOUT_FILENO, 0, 0};
		uint64_t now = ctl_now_ns();

		if (now >= end)
			return true;
		if (poll(&p, 1, (int)((end - now + 999999) / 1000000)) > 0)
			return false;
	}
	return false;
}

static int watch(struct view *v, const char *root, double seconds, bool json)
{
	int lines = 0, rc = 0;
	struct err e;

	ctl_catch_sigint();
	do {
		if (view_read(v, root, &e)) {
			rc = ctl_fail("mem: %s", e.msg);
			break;
		}
		if (json) {
			print_json(v, JSON_COMPACT);
		} else if (picture()) {
			if (lines)
				printf("\033[%dA\r", lines);
			lines = print_table(v, terminal(true));
			printf("\033[J");
		} else {
			print_line(&v->m);
		}
		view_free(v);
		if (fflush(stdout))
			break;
	} while (pause_for(seconds));
	return rc;
}

int cmd_mem(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, OPT_JSON},
		{"watch", optional_argument, NULL, OPT_WATCH},
		{"path", required_argument, NULL, OPT_PATH},
		{"root", required_argument, NULL, OPT_ROOT},
		{NULL},
	};
	const char *root = "";
	char *paths[MAX_PATHS];
	size_t n_paths = 0;
	double seconds = 0;
	bool json = false;
	struct view v;
	struct err e;
	int opt;

	opterr = 0;
	optind = 0;
	while ((opt = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (opt) {
		case OPT_JSON:
			json = true;
			break;
		case OPT_WATCH:
			if (!ctl_watch(argc, argv, &seconds))
				return 2;
			break;
		case OPT_PATH:
			if (n_paths == MAX_PATHS)
				return ctl_usage(USAGE, "mem: --path: %d at most", MAX_PATHS);
			paths[n_paths++] = optarg;
			break;
		case OPT_ROOT:
			root = optarg;
			break;
		default:
			return ctl_bad_option(USAGE, argv);
		}
	}
	if (argc != optind)
		return ctl_usage(USAGE, "mem: takes no arguments");
	if (seconds > 0)
		return watch(&v, root, seconds, json);
	ctl_catch_sigint();
	if (view_read(&v, root, &e))
		return ctl_fail("mem: %s", e.msg);
	v.by_filesystem = !*root;
	if (v.by_filesystem && mem_files_read(&v.files, paths, n_paths, &e)) {
		view_free(&v);
		return ctl_fail("mem: %s", e.msg);
	}
	if (json) {
		print_json(&v, JSON_INDENT(2));
	} else {
		print_table(&v, 10000);
		if (v.by_filesystem)
			print_filesystems(&v);
	}
	view_free(&v);
	return 0;
}
