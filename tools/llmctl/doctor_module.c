// SPDX-License-Identifier: MIT
/*
 * llmctl doctor: kernel, module, signature, groups, devices, units; see doctor.h. Nothing is loaded
 * or asked of a program: what a module's signature is worth follows from the firmware's variables,
 * the kernel's settings and its log.
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "doctor.h"

#define EFIVARS	   "/sys/firmware/efi/efivars/"
#define GUID_EFI   "-8be4df61-93ca-11d2-aa0d-00e098032b8c"
#define GUID_SHIM  "-605dab50-e046-4300-abb6-3dd810dd8b23"
#define SIGNED_END "~Module signature appended~\n"

/* ---- kernel ----------------------------------------------------------------------------------- */

static void check_kernel(const struct doctor *d, struct finding *f)
{
	static const char *const flavours[] = {"nvidia-64k", "nvidia",	  "cloud-amd64", "rt-amd64",
					       "amd64",	     "arm64-16k", "arm64",	 "generic"};
	const char *r = d->facts.release, *flavour = "";
	int major = 0, minor = 0;

	if (sscanf(r, "%d.%d", &major, &minor) != 2) {
		finding_set(f, DOCTOR_UNKNOWN, "%s: not the name of a release", r);
		return;
	}
	for (size_t i = 0; i < sizeof(flavours) / sizeof(flavours[0]) && !*flavour; i++) {
		size_t n = strlen(flavours[i]), len = strlen(r);

		if (len > n && r[len - n - 1] == '-' && !strcmp(r + len - n, flavours[i]))
			flavour = flavours[i];
	}
	if (major < 6 || (major == 6 && minor < 1))
		finding_set(f, DOCTOR_BAD, "%s: the module needs Linux 6.1 or later", r);
	else
		finding_set(f, DOCTOR_OK, "%s%s%s%s", r, *flavour ? " (" : "", flavour,
			    *flavour ? " flavour)" : "");
}

/* ---- module ----------------------------------------------------------------------------------- */

struct find {
	const struct view *view;
	const char *fmt; /* a path with one %s for the name */
	const char *starts; /* or NULL */
	char name[128]; /* of the last one that has it */
	int n;
};

static bool find_name(void *ctx, const char *name)
{
	struct find *x = ctx;
	char path[512];

	if (x->starts && strncmp(name, x->starts, strlen(x->starts)))
		return true;
	snprintf(path, sizeof(path), x->fmt, name);
	if (view_exists(x->view, path)) {
		snprintf(x->name, sizeof(x->name), "%s", name);
		x->n++;
	}
	return true;
}

/* A kernel other than the running one that has llm.ko, in one of the places where installing puts it. */
static bool other_kernel(const struct doctor *d, char name[128])
{
	static const char *const places[] = {"/lib/modules/%s/updates/dkms/llm.ko",
					     "/lib/modules/%s/updates/dkms/llm.ko.xz",
					     "/lib/modules/%s/updates/dkms/llm.ko.zst",
					     "/lib/modules/%s/updates/llm.ko",
					     "/lib/modules/%s/updates/llm.ko.xz",
					     "/lib/modules/%s/updates/llm.ko.zst",
					     "/lib/modules/%s/extra/llm.ko"};

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		struct find x = {.view = &d->view, .fmt = places[i]};

		view_list(&d->view, "/lib/modules", find_name, &x);
		if (x.n) {
			memcpy(name, x.name, 128);
			return true;
		}
	}
	return false;
}

/* What the kernel's log says of the module, the last line that has both; "" if none. */
static void log_says(const struct doctor *d, const char *const *what, size_t n, char out[256])
{
	const char *line = d->facts.log;

	out[0] = '\0';
	while (line && *line) {
		size_t len = strcspn(line, "\n");

		for (size_t i = 0; i < n; i++)
			if (memmem(line, len, what[i], strlen(what[i])) &&
			    (!strncmp(line, "llm: ", 5) || memmem(line, len, " llm: ", 6) ||
			     strstr(what[i], "oading ")))
				snprintf(out, 256, "%.*s", (int)len, line);
		line += len + (line[len] == '\n');
	}
}

static void build_command(const struct doctor *d, struct finding *f)
{
	struct find x = {.view = &d->view, .fmt = "/usr/src/%s/dkms.conf", .starts = "llmdev-"};
	char path[192];

	view_list(&d->view, "/usr/src", find_name, &x);
	snprintf(path, sizeof(path), "/lib/modules/%s/build/Makefile", d->facts.release);
	if (!view_exists(&d->view, path))
		finding_command(f, "apt install linux-headers-%s", d->facts.release);
	if (x.n)
		finding_command(f, "dkms install llmdev/%s -k %s", x.name + strlen("llmdev-"),
				d->facts.release);
	else
		finding_command(f, "make modules modules_install   # in llmdev's sources");
}

static void check_signature(const struct doctor *d, struct finding *f);

static void check_module(const struct doctor *d, struct finding *f)
{
	struct finding signature = {0};
	static const char *const wrong[] = {"version magic", "disagrees about version of symbol",
					    "Unknown symbol"};
	const struct doctor_facts *x = &d->facts;
	char other[128], said[256], version[64];

	if (x->module_loaded) {
		view_line(&d->view, "/sys/module/llm/srcversion", version, sizeof(version));
		finding_set(f, DOCTOR_OK, "loaded%s%s", *version ? ", source version " : "",
			    version);
		return;
	}
	if (!view_exists(&d->view, "/proc/modules")) {
		finding_set(f, DOCTOR_NA, "this kernel loads no modules");
		return;
	}
	log_says(d, wrong, 3, said);
	if (x->module_file[0] && said[0]) {
		finding_set(f, DOCTOR_BAD, "%s does not fit this kernel: %s", x->module_file, said);
		build_command(d, f);
	} else if (x->module_file[0] &&
		   (check_signature(d, &signature), signature.state == DOCTOR_BAD)) {
		finding_set(f, DOCTOR_WARN, "%s is not loaded, and would be refused: see signature",
			    x->module_file);
	} else if (x->module_file[0]) {
		finding_set(f, DOCTOR_WARN, "%s is not loaded: clients use sockets",
			    x->module_file);
		finding_command(f, "modprobe llm");
		finding_change(f, CHANGE_RUN, NULL, "modprobe llm", "modprobe -r llm");
	} else if (other_kernel(d, other)) {
		finding_set(f, DOCTOR_BAD, "llm.ko is built for %s, not for this kernel", other);
		build_command(d, f);
	} else {
		finding_set(f, DOCTOR_WARN,
			    "llm.ko is not installed: llmdevd serves at sockets, without what only "
			    "the module gives (docs/why-kernel.md)");
		build_command(d, f);
	}
}

/* ---- signature -------------------------------------------------------------------------------- */

/* A firmware variable: four bytes of attributes, then the data. NULL: there is none. */
static char *efi_var(const struct view *v, const char *name, size_t *len)
{
	size_t n;
	char *s = view_read(v, name, &n);

	if (!s || n < 4) {
		free(s);
		return NULL;
	}
	memmove(s, s + 4, n - 4);
	*len = n - 4;
	return s;
}

static bool efi_flag(const struct view *v, const char *name)
{
	size_t n = 0;
	char *s = efi_var(v, name, &n);
	bool on = s && n && s[0] == 1;

	free(s);
	return on;
}

static bool efi_holds(const struct view *v, const char *name, const char *what, size_t len)
{
	size_t n = 0;
	char *s = efi_var(v, name, &n);
	bool yes = s && memmem(s, n, what, len);

	free(s);
	return yes;
}

enum signature { SIG_NONE, SIG_THERE, SIG_PACKED, SIG_UNREADABLE };

static enum signature signature_of(const struct doctor *d)
{
	const char *path = d->facts.module_file;
	size_t n = 0, end = strlen(SIGNED_END);
	enum signature s;
	char *file;

	if (strcmp(path + strlen(path) - 3, ".ko"))
		return SIG_PACKED;
	file = view_read(&d->view, path, &n);
	if (!file)
		return SIG_UNREADABLE;
	s = n > end && !memcmp(file + n - end, SIGNED_END, end) ? SIG_THERE : SIG_NONE;
	free(file);
	return s;
}

/* The certificate that DKMS signs with: its own, or on Ubuntu the one that shim's packages made. */
static const char *dkms_certificate(const struct view *v)
{
	static const char *const paths[] = {"/var/lib/shim-signed/mok/MOK.der",
					    "/var/lib/dkms/mok.pub"};

	for (size_t i = 0; i < 2; i++)
		if (view_exists(v, paths[i]))
			return paths[i];
	return NULL;
}

static void enrol(struct finding *f, const char *certificate)
{
	finding_command(f, "mokutil --import %s   # asks for a password, once", certificate);
	finding_command(f, "reboot   # the blue screen: Enroll MOK, Continue, that password");
}

static void check_certificate(const struct doctor *d, struct finding *f, const char *why,
			      enum signature sig)
{
	const char *path = dkms_certificate(&d->view);
	const char *is =
		sig == SIG_THERE ? "is signed" : "is packed, whether signed is not looked at";
	size_t n = 0;
	char *cert = path ? view_read(&d->view, path, &n) : NULL;

	if (!path) {
		finding_set(f, DOCTOR_UNKNOWN,
			    "%s; llm.ko %s, by a key that is not DKMS's: whether the kernel knows "
			    "it, loading shows",
			    why, is);
		finding_command(f, "modinfo -F signer llm; mokutil --list-enrolled | grep CN=");
	} else if (!cert || n < 64) {
		finding_set(f, DOCTOR_UNKNOWN, "%s; llm.ko %s; %s cannot be read", why, is, path);
		finding_command(f, "sudo mokutil --test-key %s", path);
	} else if (efi_holds(&d->view, EFIVARS "MokListRT" GUID_SHIM, cert, n)) {
		finding_set(f, DOCTOR_OK, "%s; llm.ko %s, DKMS's key (%s) is enrolled", why, is,
			    path);
	} else if (efi_holds(&d->view, EFIVARS "MokNew" GUID_SHIM, cert, n)) {
		finding_set(f, DOCTOR_WARN,
			    "%s; DKMS's key (%s) waits for you to confirm it at the next boot", why,
			    path);
		finding_command(f,
				"reboot   # the blue screen: Enroll MOK, Continue, the password");
	} else {
		finding_set(
			f, DOCTOR_BAD,
			"%s; DKMS's key (%s) is not enrolled: the kernel refuses llm.ko (Key was "
			"rejected by service)",
			why, path);
		enrol(f, path);
	}
	free(cert);
}

static void check_signature(const struct doctor *d, struct finding *f)
{
	static const char *const refused[] = {"loading of unsigned module is rejected",
					      "Loading of unsigned module is rejected",
					      "loading of module with unavailable key is rejected",
					      "Loading of module with unavailable key is rejected",
					      "unsigned module loading is restricted"};
	const struct view *v = &d->view;
	bool efi = view_exists(v, "/sys/firmware/efi");
	bool secure = efi_flag(v, EFIVARS "SecureBoot" GUID_EFI);
	bool off_in_shim = efi_flag(v, EFIVARS "MokSBStateRT" GUID_SHIM);
	char lockdown[96], enforce[8], said[256], why[192];
	bool locked, must;
	enum signature sig;

	view_line(v, "/sys/kernel/security/lockdown", lockdown, sizeof(lockdown));
	view_line(v, "/sys/module/module/parameters/sig_enforce", enforce, sizeof(enforce));
	locked = lockdown[0] && !strstr(lockdown, "[none]");
	/* Where the kernel does not say, Secure Boot is what makes distributions lock it. */
	must = enforce[0] == 'Y' || locked || (!lockdown[0] && secure && !off_in_shim);
	snprintf(why, sizeof(why), "%s, %s",
		 !efi	       ? "not booted by EFI"
		 : !secure     ? "Secure Boot is off"
		 : off_in_shim ? "Secure Boot is on, but off in shim"
			       : "Secure Boot is on",
		 !must		     ? "modules need no signature"
		 : enforce[0] == 'Y' ? "modules must be signed (module.sig_enforce)"
		 : locked	     ? "the kernel is locked down, modules must be signed"
				     : "so modules must be signed");
	if (!must || d->facts.module_loaded) {
		finding_set(f, DOCTOR_OK, "%s%s", why,
			    must ? "; the loaded llm.ko was accepted" : "");
		return;
	}
	if (!d->facts.module_file[0]) {
		finding_set(f, DOCTOR_OK, "%s; DKMS will sign llm.ko (docs/install.md)", why);
		return;
	}
	sig = signature_of(d);
	log_says(d, refused, 5, said);
	if (sig == SIG_NONE) {
		finding_set(f, DOCTOR_BAD, "%s; %s is not signed: the kernel refuses it%s%s", why,
			    d->facts.module_file, said[0] ? ": " : "", said);
		finding_command(f,
				"make dkms_install && dkms install llmdev/VERSION   # DKMS signs");
		finding_command(f, "# or sign it with your own key: docs/install.md, Secure Boot");
	} else if (sig == SIG_UNREADABLE) {
		finding_set(f, DOCTOR_UNKNOWN, "%s; %s cannot be read", why, d->facts.module_file);
	} else {
		check_certificate(d, f, why, sig);
		if (said[0] && f->state == DOCTOR_UNKNOWN) {
			finding_set(f, DOCTOR_BAD, "%s; the kernel refused it: %s", why, said);
			finding_command(
				f, "# enrol the key that signed it: docs/install.md, Secure Boot");
		}
	}
}

/* ---- groups ----------------------------------------------------------------------------------- */

struct group {
	long long gid; /* -1: there is none */
	bool listed; /* the user is in its line */
};

static bool has_word(const char *list, const char *word)
{
	size_t n = strlen(word);

	while (*list) {
		size_t len = strcspn(list, ",");

		if (len == n && !memcmp(list, word, n))
			return true;
		list += len + (list[len] == ',');
	}
	return false;
}

/* Groups of a directory service are not seen: these are the system's own. */
static struct group group_find(const struct doctor *d, const char *name)
{
	char *s = view_read(&d->view, "/etc/group", NULL), *line, *save = NULL;
	struct group g = {.gid = -1};
	size_t n = strlen(name);

	for (line = s ? strtok_r(s, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save)) {
		char *id = !strncmp(line, name, n) && line[n] == ':' ? strchr(line + n + 1, ':')
								     : NULL;
		char *members = id ? strchr(id + 1, ':') : NULL;

		if (!id)
			continue;
		g.gid = strtoll(id + 1, NULL, 10);
		g.listed = members && has_word(members + 1, d->facts.user);
	}
	free(s);
	return g;
}

/* Whether this session has the group; behind sudo it cannot be seen, then what /etc/group says. */
static bool in_session(const struct doctor *d, struct group g)
{
	char *s = view_read(&d->view, "/proc/self/status", NULL), *p, *end;
	bool self = s && (p = strstr(s, "\nUid:")) && strtoll(p + 5, NULL, 10) == d->facts.uid;
	bool yes = false;

	p = s ? strstr(s, "\nGroups:") : NULL;
	for (p = p ? p + strlen("\nGroups:") : NULL; p; p = end) {
		long long gid = strtoll(p, &end, 10);

		if (end == p || strchr("\n", *p))
			break;
		yes = yes || gid == g.gid;
		if (*end == '\n' || !*end)
			break;
	}
	p = s ? strstr(s, "\nGid:") : NULL;
	yes = yes || (p && strtoll(p + 5, NULL, 10) == g.gid);
	free(s);
	return self ? yes : g.listed;
}

static void check_groups(const struct doctor *d, struct finding *f)
{
	struct group users = group_find(d, "llmdev"), admins = group_find(d, "llmdev-admin");
	const char *user = d->facts.user;
	char value[160], undo[160];

	if (users.gid < 0 || admins.gid < 0) {
		finding_set(f, d->facts.module_loaded ? DOCTOR_BAD : DOCTOR_WARN,
			    "there is no group %s", users.gid < 0 ? "llmdev" : "llmdev-admin");
		finding_command(f, "systemd-sysusers   # after make install");
	} else if (d->facts.by_root || d->facts.uid < 0) {
		finding_set(f, DOCTOR_OK, "llmdev and llmdev-admin exist; root needs neither");
	} else if (!users.listed && !in_session(d, users)) {
		finding_set(f, DOCTOR_WARN, "%s is not in llmdev: may not open a device", user);
		finding_command(f, "usermod -aG llmdev %s   # then log in anew", user);
		/* A name that is more than letters is nothing for a command. */
		if (!user[strspn(user, "abcdefghijklmnopqrstuvwxyz0123456789_-")] &&
		    user[0] != '-') {
			snprintf(value, sizeof(value), "usermod -aG llmdev %s", user);
			snprintf(undo, sizeof(undo), "gpasswd -d %s llmdev", user);
			finding_change(f, CHANGE_RUN, NULL, value, undo);
		}
	} else if (!in_session(d, users)) {
		finding_set(f, DOCTOR_WARN, "%s is in llmdev, but this session began before that",
			    user);
		finding_command(f, "newgrp llmdev   # or log in anew");
	} else {
		finding_set(f, DOCTOR_OK, "%s is in llmdev%s", user,
			    admins.listed ? " and llmdev-admin" : "");
	}
}

/* ---- device nodes ----------------------------------------------------------------------------- */

struct nodes {
	const struct doctor *d;
	struct group users, admins;
	char wrong[512]; /* what is not as it should be */
	int n, links;
	bool bad; /* nodes are missing: udev did not do its work at all */
};

__attribute__((format(printf, 2, 3))) static void complain(struct nodes *x, const char *fmt, ...)
{
	size_t n = strlen(x->wrong);
	va_list ap;

	if (n)
		n += (size_t)snprintf(x->wrong + n, sizeof(x->wrong) - n, "; ");
	if (n >= sizeof(x->wrong))
		return;
	va_start(ap, fmt);
	vsnprintf(x->wrong + n, sizeof(x->wrong) - n, fmt, ap);
	va_end(ap);
}

static void check_node(struct nodes *x, const char *name, struct group g, const char *group)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "/dev/%.64s", name);
	if (!view_stat(&x->d->view, path, &st)) {
		complain(x, "%s is not there", path);
		x->bad = true;
		return;
	}
	if (view_real(&x->d->view) && !S_ISCHR(st.st_mode))
		complain(x, "%s is no device", path);
	else if (g.gid >= 0 && (long long)st.st_gid != g.gid)
		complain(x, "%s does not belong to the group %s", path, group);
	else if ((st.st_mode & 0060) != 0060)
		complain(x, "%s: its group %s may not read and write it", path, group);
	else if (st.st_mode & 0006)
		complain(x, "%s is open to everybody", path);
}

static bool check_device(void *ctx, const char *name)
{
	struct nodes *x = ctx;
	char path[256], label[128], link[VIEW_PATH_MAX], to[64] = "";
	ssize_t n;

	if (strncmp(name, "llm", 3) || !isdigit((unsigned char)name[3]))
		return true;
	x->n++;
	check_node(x, name, x->users, "llmdev");
	snprintf(path, sizeof(path), "/sys/class/misc/%.64s/name", name);
	if (!view_line(&x->d->view, path, label, sizeof(label)) || !label[0] || strchr(label, '/'))
		return true;
	snprintf(path, sizeof(path), "/dev/llm/by-name/%s", label);
	if (view_path(&x->d->view, path, link)) {
		n = readlink(link, to, sizeof(to) - 1);
		to[n > 0 ? n : 0] = '\0';
	}
	if (!to[0])
		complain(x, "%s has no link by-name/%s", name, label);
	else if (strcmp(strrchr(to, '/') ? strrchr(to, '/') + 1 : to, name))
		complain(x, "by-name/%s does not lead to %s", label, name);
	else
		x->links++;
	return true;
}

static bool rules_installed(const struct view *v)
{
	return view_exists(v, "/etc/udev/rules.d/60-llmdev.rules") ||
	       view_exists(v, "/usr/local/lib/udev/rules.d/60-llmdev.rules") ||
	       view_exists(v, "/usr/lib/udev/rules.d/60-llmdev.rules") ||
	       view_exists(v, "/lib/udev/rules.d/60-llmdev.rules");
}

static void check_devices(const struct doctor *d, struct finding *f)
{
	struct nodes x = {.d = d,
			  .users = group_find(d, "llmdev"),
			  .admins = group_find(d, "llmdev-admin")};

	if (!d->facts.module_loaded) {
		finding_set(f, DOCTOR_NA, "the module is not loaded");
		return;
	}
	check_node(&x, "llm-control", x.admins, "llmdev-admin");
	view_list(&d->view, "/sys/class/misc", check_device, &x);
	if (!x.wrong[0]) {
		finding_set(f, DOCTOR_OK,
			    "/dev/llm-control and %d device%s, rights as they should be", x.n,
			    x.n == 1 ? "" : "s");
		return;
	}
	finding_set(f, x.bad ? DOCTOR_BAD : DOCTOR_WARN, "%s%s", x.wrong,
		    rules_installed(&d->view) ? "" : "; the udev rules are not installed");
	if (!rules_installed(&d->view))
		finding_command(f, "make install   # puts 60-llmdev.rules where udev reads it");
	finding_command(f, "udevadm control --reload && udevadm trigger --subsystem-match=misc");
}

/* ---- units ------------------------------------------------------------------------------------ */

struct units {
	const struct doctor *d;
	char down[256]; /* enabled, and not running */
	int enabled, up;
};

static bool ours(const char *name)
{
	size_t n = strlen(name);

	return n > 8 && !strcmp(name + n - 8, ".service") &&
	       (!strncmp(name, "llmdevd@", 8) || !strncmp(name, "llmdev-", 7));
}

/* A unit that runs has a cgroup with processes. */
static bool unit_runs(const struct view *v, const char *name)
{
	char path[320], *procs;
	bool up;

	snprintf(path, sizeof(path), "/sys/fs/cgroup/system.slice/%s%.120s/cgroup.procs",
		 strncmp(name, "llmdevd@", 8) ? "" : "system-llmdevd.slice/", name);
	procs = view_read(v, path, NULL);
	up = procs && procs[0];
	free(procs);
	return up;
}

static bool check_unit(void *ctx, const char *name)
{
	struct units *x = ctx;
	size_t n = strlen(x->down);

	if (!ours(name))
		return true;
	x->enabled++;
	if (unit_runs(&x->d->view, name))
		x->up++;
	else
		snprintf(x->down + n, sizeof(x->down) - n, "%s%.100s", n ? " " : "", name);
	return true;
}

static bool check_wants(void *ctx, const char *name)
{
	struct units *x = ctx;
	char path[256];

	snprintf(path, sizeof(path), "/etc/systemd/system/%.128s", name);
	if (strlen(name) > 6 && !strcmp(name + strlen(name) - 6, ".wants"))
		view_list(&x->d->view, path, check_unit, x);
	return true;
}

static void check_units(const struct doctor *d, struct finding *f)
{
	static const char *const places[] = {"/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"};
	struct units x = {.d = d};
	bool installed = false;
	char path[128];

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		snprintf(path, sizeof(path), "%s/systemd/system/llmdevd@.service", places[i]);
		installed = installed || view_exists(&d->view, path);
	}
	view_list(&d->view, "/etc/systemd/system", check_wants, &x);
	if (x.down[0]) {
		finding_set(f, DOCTOR_BAD, "enabled, but not running: %s", x.down);
		finding_command(f, "systemctl status %s", x.down);
	} else if (x.enabled) {
		finding_set(f, DOCTOR_OK, "%d enabled, all running", x.enabled);
	} else if (installed) {
		finding_set(f, DOCTOR_OK, "llmdevd@.service is installed, no instance is enabled");
	} else {
		finding_set(f, DOCTOR_NA, "llmdevd@.service is not installed");
	}
}

const struct check doctor_module_checks[] = {
	{"kernel", check_kernel},
	{"module", check_module},
	{"signature", check_signature},
	{"groups", check_groups},
	{"devices", check_devices},
	{"units", check_units},
	{NULL},
};
