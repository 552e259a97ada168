// SPDX-License-Identifier: MIT
/* What several checks want to know, read once, and the list of all checks; see doctor.h. */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor.h"

const char *const doctor_state_names[DOCTOR_STATES] = {
	[DOCTOR_OK] = "ok",	[DOCTOR_NA] = "n/a",  [DOCTOR_UNKNOWN] = "unknown",
	[DOCTOR_WARN] = "warn", [DOCTOR_BAD] = "bad",
};

/* Names of devices, users and processes are somebody else's bytes. */
static void make_printable(char *s)
{
	for (; *s; s++)
		if (!isprint((unsigned char)*s))
			*s = '?';
}

/* ---- findings --------------------------------------------------------------------------------- */

void finding_set(struct finding *f, enum doctor_state state, const char *fmt, ...)
{
	va_list ap;

	f->state = state;
	va_start(ap, fmt);
	vsnprintf(f->reason, sizeof(f->reason), fmt, ap);
	va_end(ap);
	make_printable(f->reason);
}

void finding_command(struct finding *f, const char *fmt, ...)
{
	size_t n = strlen(f->command);
	va_list ap;

	if (n && n + 1 < sizeof(f->command))
		f->command[n++] = '\n';
	va_start(ap, fmt);
	vsnprintf(f->command + n, sizeof(f->command) - n, fmt, ap);
	va_end(ap);
}

void finding_change(struct finding *f, int kind, const char *path, const char *value,
		    const char *undo)
{
	for (int i = 0; i < DOCTOR_CHANGES; i++) {
		struct change *c = &f->change[i];

		if (c->kind != CHANGE_NONE)
			continue;
		c->kind = kind;
		snprintf(c->path, sizeof(c->path), "%s", path ? path : "");
		snprintf(c->value, sizeof(c->value), "%s", value);
		snprintf(c->undo, sizeof(c->undo), "%s", undo ? undo : "");
		return;
	}
}

void finding_sysctl(struct finding *f, const char *name, long long value)
{
	char path[128], text[128];

	snprintf(path, sizeof(path), "/proc/sys/%s", name);
	for (char *p = path + strlen("/proc/sys/"); *p; p++)
		if (*p == '.')
			*p = '/';
	snprintf(text, sizeof(text), "%lld", value);
	finding_change(f, CHANGE_VALUE, path, text, NULL);
	snprintf(text, sizeof(text), "%s = %lld", name, value);
	finding_change(f, CHANGE_LINE, "/etc/sysctl.d/60-llmdev-doctor.conf", text, NULL);
	finding_command(f, "sysctl -w %s=%lld", name, value);
}

/* ---- facts ------------------------------------------------------------------------------------ */

long long doctor_meminfo(const struct view *v, const char *name)
{
	char *s = view_read(v, "/proc/meminfo", NULL);
	size_t n = strlen(name);
	long long kb = -1;

	for (char *line = s; line && *line;) {
		char *next = strchr(line, '\n');

		if (!strncmp(line, name, n) && line[n] == ':') {
			kb = strtoll(line + n + 1, NULL, 10);
			/* HugePages_* are counts, everything else has kB behind it. */
			if (strncmp(name, "HugePages_", 10))
				kb = kb < 0 || kb > INT64_MAX / 1024 ? -1 : kb * 1024;
			break;
		}
		line = next ? next + 1 : NULL;
	}
	free(s);
	return kb;
}

/* The page size, from the first mapping of this process: the only file that has it as text. */
static long long page_size(const struct view *v)
{
	char *s = view_read(v, "/proc/self/smaps", NULL);
	char *p = s ? strstr(s, "KernelPageSize:") : NULL;
	long long kb = p ? strtoll(p + strlen("KernelPageSize:"), NULL, 10) : 0;

	free(s);
	return kb >= 4 && kb <= 64 ? kb * 1024 : 4096;
}

static bool is_gb10(void *ctx, const char *name)
{
	struct doctor *d = ctx;
	char path[256], vendor[16], device[16];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%.64s/vendor", name);
	if (!view_line(&d->view, path, vendor, sizeof(vendor)) || strcmp(vendor, "0x10de"))
		return true;
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%.64s/device", name);
	view_line(&d->view, path, device, sizeof(device));
	d->facts.gb10 = d->facts.gb10 || !strcmp(device, "0x2e12");
	return true;
}

static void read_machine(struct doctor *d)
{
	struct doctor_facts *f = &d->facts;

	view_line(&d->view, "/sys/class/dmi/id/product_name", f->machine, sizeof(f->machine));
	make_printable(f->machine);
	f->gb10 = strstr(f->machine, "DGX_Spark") || strstr(f->machine, "DGX Spark") ||
		  strstr(f->machine, "GB10");
	view_list(&d->view, "/sys/bus/pci/devices", is_gb10, d);
}

/* The name of a uid in /etc/passwd. */
static void user_name(const struct view *v, long long uid, char *out, size_t size)
{
	char *s = view_read(v, "/etc/passwd", NULL), *line = s, *save = NULL;

	snprintf(out, size, "uid %lld", uid);
	for (line = s ? strtok_r(s, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save)) {
		char *name_end = strchr(line, ':');
		char *id = name_end ? strchr(name_end + 1, ':') : NULL;

		if (!id || strtoll(id + 1, NULL, 10) != uid)
			continue;
		snprintf(out, size, "%.*s", (int)(name_end - line), line);
		break;
	}
	free(s);
}

static void read_user(struct doctor *d)
{
	struct doctor_facts *f = &d->facts;
	char *s = view_read(&d->view, "/proc/self/status", NULL);
	char *p = s ? strstr(s, "\nUid:") : NULL;
	const char *sudo = getenv("SUDO_UID");

	f->uid = p ? strtoll(p + 5, NULL, 10) : -1;
	if (f->uid == 0 && sudo && view_real(&d->view))
		f->uid = strtoll(sudo, NULL, 10);
	f->by_root = f->uid == 0;
	user_name(&d->view, f->uid, f->user, sizeof(f->user));
	make_printable(f->user);
	free(s);
}

/* The module as depmod found it: modules.dep has a line a module, "updates/dkms/llm.ko: ...". */
static void find_module(struct doctor *d)
{
	struct doctor_facts *f = &d->facts;
	char path[192], *s, *line, *save = NULL;

	snprintf(path, sizeof(path), "/lib/modules/%.95s/modules.dep", f->release);
	s = view_read(&d->view, path, NULL);
	for (line = s ? strtok_r(s, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save)) {
		char *end = strchr(line, ':'), *base;

		if (!end)
			continue;
		*end = '\0';
		base = strrchr(line, '/');
		base = base ? base + 1 : line;
		if (strncmp(base, "llm.ko", 6) || (base[6] && base[6] != '.'))
			continue;
		snprintf(f->module_file, sizeof(f->module_file), "/lib/modules/%s/%.128s",
			 f->release, line);
		break;
	}
	free(s);
}

int doctor_facts_read(struct doctor *d, struct err *e)
{
	struct doctor_facts *f = &d->facts;
	long long v;

	if (!view_line(&d->view, "/proc/sys/kernel/osrelease", f->release, sizeof(f->release)))
		return err_set(e, -errno, "doctor: %s/proc/sys/kernel/osrelease: %s: mount /proc",
			       d->view.root, strerror(errno));
	make_printable(f->release);
	f->page = page_size(&d->view);
	v = doctor_meminfo(&d->view, "MemTotal");
	f->mem_total = v > 0 ? v : 0;
	v = doctor_meminfo(&d->view, "MemFree");
	f->mem_free = v > 0 ? v : 0;
	v = doctor_meminfo(&d->view, "MemAvailable");
	f->mem_available = v > 0 ? v : 0;
	f->module_loaded = view_exists(&d->view, "/sys/module/llm");
	read_machine(d);
	read_user(d);
	find_module(d);
	f->log = view_kernel_log(&d->view);
	return 0;
}

/* ---- all checks ------------------------------------------------------------------------------- */

int doctor_look(struct doctor *d, const char *root, struct err *e)
{
	static const struct check *const tables[] = {doctor_module_checks, doctor_memory_checks,
						     doctor_other_checks};
	int rc, n = 0;

	memset(d, 0, sizeof(*d));
	rc = view_open(&d->view, root, e);
	if (!rc)
		rc = doctor_facts_read(d, e);
	if (rc)
		return rc;
	for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++)
		for (const struct check *c = tables[t]; c->id; c++)
			n++;
	d->finding = calloc((size_t)n, sizeof(*d->finding));
	if (!d->finding) {
		doctor_free(d);
		return err_set(e, -ENOMEM, "doctor: out of memory");
	}
	for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++)
		for (const struct check *c = tables[t]; c->id; c++) {
			struct finding *f = &d->finding[d->n++];

			f->id = c->id;
			c->look(d, f);
		}
	return 0;
}

void doctor_free(struct doctor *d)
{
	free(d->facts.log);
	free(d->finding);
	memset(d, 0, sizeof(*d));
}

enum doctor_state doctor_worst(const struct doctor *d)
{
	enum doctor_state worst = DOCTOR_OK;

	for (int i = 0; i < d->n; i++)
		if (d->finding[i].state > worst)
			worst = d->finding[i].state;
	return worst;
}

static json_t *lines_json(const char *s)
{
	json_t *a = json_array();

	while (*s) {
		size_t n = strcspn(s, "\n");

		json_array_append_new(a, json_stringn_nocheck(s, n));
		s += n + (s[n] == '\n');
	}
	return a;
}

json_t *doctor_json(const struct doctor *d)
{
	const struct doctor_facts *f = &d->facts;
	json_t *list = json_array(), *j;

	for (int i = 0; i < d->n; i++) {
		const struct finding *x = &d->finding[i];

		json_array_append_new(list, json_pack("{ss ss ss so sb}", "id", x->id, "state",
						      doctor_state_names[x->state], "reason",
						      x->reason, "commands", lines_json(x->command),
						      "fix", x->change[0].kind != CHANGE_NONE));
	}
	j = json_pack("{ss sI sI sI sI sb sb}", "release", f->release, "page_bytes",
		      (json_int_t)f->page, "mem_total", (json_int_t)f->mem_total, "mem_free",
		      (json_int_t)f->mem_free, "mem_available", (json_int_t)f->mem_available,
		      "gb10", f->gb10, "module_loaded", f->module_loaded);
	if (j && f->machine[0])
		json_object_set_new(j, "product", json_string(f->machine));
	return json_pack("{ss so so}", "worst", doctor_state_names[doctor_worst(d)], "machine", j,
			 "findings", list);
}
