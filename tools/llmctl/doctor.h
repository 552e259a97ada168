/* SPDX-License-Identifier: MIT */
/*
 * llmctl doctor: checks over a view of the system.
 *
 *   doctor_view.c    files of the machine, or of a made-up one below a directory
 *   doctor_facts.c   what several checks want to know, read once
 *   doctor_module.c  kernel, module, signature, groups, devices, units
 *   doctor_memory.c  what unified memory needs
 *   doctor_others.c  other engines' processes, the kernel's log
 *   doctor_fix.c     changes: done, recorded, undone
 *
 * Everything is read from files, so that a test can make up any machine.
 */
#ifndef LLMCTL_DOCTOR_H
#define LLMCTL_DOCTOR_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/err.h"

#define VIEW_PATH_MAX 1024
/* modules.dep of a distribution's kernel has about 1 MB. */
#define VIEW_FILE_MAX (8u << 20)

/* ---- the view --------------------------------------------------------------------------------- */

struct view {
	char root[VIEW_PATH_MAX /
		  2]; /* "" is this machine; else a folder that holds proc/, sys/ ... */
};

/* `root` NULL or "/": this machine. -ENOENT and the like for a folder that is none. */
int view_open(struct view *v, const char *root, struct err *e);
bool view_real(const struct view *v);
/* The path below the root; false: too long. */
bool view_path(const struct view *v, const char *path, char out[VIEW_PATH_MAX]);
/* The whole file (at most VIEW_FILE_MAX, the rest is not read), malloc'ed, a NUL behind it; NULL
 * with errno. len may be NULL. */
char *view_read(const struct view *v, const char *path, size_t *len);
/* Its first line without blanks at its ends. */
bool view_line(const struct view *v, const char *path, char *out, size_t size);
bool view_number(const struct view *v, const char *path, long long *out);
bool view_exists(const struct view *v, const char *path);
bool view_stat(const struct view *v, const char *path, struct stat *st);
/* Calls fn for each name in the folder, sorted; fn returns false to stop. false: no such folder. */
bool view_list(const struct view *v, const char *path, bool (*fn)(void *ctx, const char *name),
	       void *ctx);
/* Records of the kernel's log, oldest first: its text, one line each. NULL: may not be read. */
char *view_kernel_log(const struct view *v);

/* ---- findings --------------------------------------------------------------------------------- */

enum doctor_state {
	DOCTOR_OK,
	DOCTOR_NA, /* does not matter on this machine */
	DOCTOR_UNKNOWN, /* cannot be seen by this user, or on this kernel */
	DOCTOR_WARN,
	DOCTOR_BAD,
	DOCTOR_STATES,
};
extern const char *const doctor_state_names[DOCTOR_STATES]; /* "ok", "n/a", "unknown", ... */

/* One change that is safe and can be taken back. */
struct change {
	enum {
		CHANGE_NONE,
		CHANGE_VALUE, /* a file of the kernel gets `value` */
		CHANGE_TRIGGER, /* the same where nothing is to be taken back: compact_memory */
		CHANGE_LINE, /* a configuration file gets the line `value`; made if it is not there */
		CHANGE_RUN, /* `value` is a command, `undo` the one that takes it back */
	} kind;
	char path[256];
	char value[256];
	char undo[256];
};

#define DOCTOR_CHANGES 3

struct finding {
	const char *id; /* "watermarks" */
	enum doctor_state state;
	char reason[640];
	char command[640]; /* what mends it, a line a step; "" if there is nothing to do */
	struct change change[DOCTOR_CHANGES]; /* what --fix would do */
};

struct doctor_facts {
	char release[96]; /* uname -r */
	char machine[64]; /* product, from the firmware; "" if unknown */
	long long page; /* bytes */
	long long mem_total, mem_free, mem_available; /* bytes; 0 unknown */
	bool gb10; /* unified memory of an NVIDIA GB10 */
	bool module_loaded;
	char module_file[256]; /* llm.ko of the running kernel; "" if there is none */
	/* Who is looked after: behind sudo, the user who called it. */
	long long uid; /* -1: unknown */
	bool by_root; /* root itself, nobody behind it */
	char user[64];
	char *log; /* of the kernel; NULL: may not be read */
};

struct doctor {
	struct view view;
	struct doctor_facts facts;
	struct finding *finding;
	int n;
};

/* Looks at everything. -ENOMEM, or the root is no folder. */
int doctor_look(struct doctor *d, const char *root, struct err *e);
void doctor_free(struct doctor *d);
enum doctor_state doctor_worst(const struct doctor *d);
/* New reference; NULL: no memory. */
json_t *doctor_json(const struct doctor *d);

/* ---- for the checks --------------------------------------------------------------------------- */

struct check {
	const char *id;
	void (*look)(const struct doctor *d, struct finding *f);
};
extern const struct check doctor_module_checks[], doctor_memory_checks[], doctor_other_checks[];

int doctor_facts_read(struct doctor *d, struct err *e);
/* A number of /proc/meminfo in bytes, `name` without colon; -1: not there. */
long long doctor_meminfo(const struct view *v, const char *name);
void finding_set(struct finding *f, enum doctor_state state, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Adds one line of what mends it. */
void finding_command(struct finding *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Adds a change; undo may be NULL. */
void finding_change(struct finding *f, int kind, const char *path, const char *value,
		    const char *undo);
/* Both: now, and at every boot by a line in our own file of /etc/sysctl.d. */
void finding_sysctl(struct finding *f, const char *name, long long value);
#define GIB(bytes) ((double)(bytes) / (1u << 30))

/* ---- changes ---------------------------------------------------------------------------------- */

#define DOCTOR_STATE_FILE "/var/lib/llmdev/doctor.json"

struct fixer {
	const struct view *view;
	bool yes; /* do not ask */
	/* Asks "what? "; true: do it. */
	bool (*ask)(void *ctx, const char *what);
	/* Tells what was done or why not. */
	void (*tell)(void *ctx, const char *line);
	void *ctx;
	int done, failed;
};

/* Every change of every finding that is neither ok nor n/a. A change is recorded before it is made. */
int doctor_fix(struct fixer *x, const struct doctor *d, struct err *e);
/* Takes back what is recorded, last first. What somebody else has changed since stays, and is told. */
int doctor_undo(struct fixer *x, struct err *e);

#endif
