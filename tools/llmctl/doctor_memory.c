// SPDX-License-Identifier: MIT
/*
 * llmctl doctor: what unified memory needs; see doctor.h. A GB10 has one memory for CPU and GPU, and
 * its driver takes from it by kernel allocations that neither reclaim far nor move: what counts is
 * MemFree, and free blocks of 2 MiB, not MemAvailable. Checks that only matter there say n/a elsewhere.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor.h"

#define BLOCK (2ll << 20) /* what the driver and huge pages want in one piece */
#define VM    "/proc/sys/vm/"

static bool only_gb10(const struct doctor *d, struct finding *f)
{
	if (!d->facts.gb10)
		finding_set(f, DOCTOR_NA, "CPU and GPU share no memory here");
	return d->facts.gb10;
}

/* ---- driver ----------------------------------------------------------------------------------- */

static bool driver_version(const struct doctor *d, char *out, size_t size)
{
	return view_line(&d->view, "/sys/module/nvidia/version", out, size) && out[0];
}

static void check_driver(const struct doctor *d, struct finding *f)
{
	char version[64], *params, *p;
	long long pools;

	if (!driver_version(d, version, sizeof(version))) {
		if (d->facts.gb10) {
			finding_set(f, DOCTOR_BAD, "the GPU's driver (nvidia) is not loaded");
			finding_command(f, "modprobe nvidia; journalctl -k -g nvidia");
		} else {
			finding_set(f, DOCTOR_NA, "no NVIDIA driver is loaded");
		}
		return;
	}
	params = view_read(&d->view, "/proc/driver/nvidia/params", NULL);
	p = params ? strstr(params, "EnableSystemMemoryPools:") : NULL;
	pools = p ? strtoll(p + strlen("EnableSystemMemoryPools:"), NULL, 0) : 0;
	free(params);
	if (pools && d->facts.gb10) {
		finding_set(
			f, DOCTOR_WARN,
			"driver %s keeps memory that programs freed in pools of its own "
			"(EnableSystemMemoryPools 0x%llx): it is neither MemFree nor page cache "
			"until something shrinks slabs",
			version, pools);
		finding_command(f, "echo 2 > /proc/sys/vm/drop_caches   # gives it back once");
		finding_command(f,
				"echo 'options nvidia NVreg_EnableSystemMemoryPools=0' > "
				"/etc/modprobe.d/nvidia-pools.conf   # for good, at the next boot");
	} else {
		finding_set(f, DOCTOR_OK, "NVIDIA %s%s", version,
			    p ? ", keeps no pool of freed memory" : "");
	}
}

/* ---- pages ------------------------------------------------------------------------------------ */

static void check_page_size(const struct doctor *d, struct finding *f)
{
	static const char *const faulty[] = {"590.44", "595.", "610.43"};
	static const char *const clean[] = {"580.142", "580.159.03", "580.173.02"};
	long long kb = d->facts.page / 1024;
	char version[64] = "";

	driver_version(d, version, sizeof(version));
	if (kb != 64) {
		finding_set(f, DOCTOR_OK, "%lld KiB", kb);
		return;
	}
	for (size_t i = 0; i < 3; i++) {
		if (!strncmp(version, faulty[i], strlen(faulty[i]))) {
			finding_set(
				f, DOCTOR_BAD,
				"64 KiB, with driver %s: mappings of 4 GiB and more are reported "
				"to fault (Xid 31)",
				version);
			finding_command(f,
					"boot the flavour with 4 KiB pages (linux-nvidia), or use "
					"driver 580.142 or 580.173.02");
			return;
		}
	}
	for (size_t i = 0; i < 3; i++) {
		if (!strcmp(version, clean[i])) {
			finding_set(f, DOCTOR_OK, "64 KiB, with driver %s", version);
			return;
		}
	}
	finding_set(f, d->facts.gb10 ? DOCTOR_WARN : DOCTOR_OK,
		    "64 KiB: some drivers fault on mappings of 4 GiB and more; nothing is known of "
		    "%s",
		    *version ? version : "this one");
}

/* The word in brackets: "always [madvise] never". */
static bool chosen(const struct view *v, const char *path, char *out, size_t size)
{
	char line[128], *a, *b;

	if (!view_line(v, path, line, sizeof(line)))
		return false;
	a = strchr(line, '[');
	b = a ? strchr(a, ']') : NULL;
	if (!b)
		return false;
	snprintf(out, size, "%.*s", (int)(b - a - 1), a + 1);
	return true;
}

static void check_thp(const struct doctor *d, struct finding *f)
{
	static const char path[] = "/sys/kernel/mm/transparent_hugepage/enabled";
	char mode[32];

	if (!chosen(&d->view, path, mode, sizeof(mode))) {
		finding_set(f, DOCTOR_UNKNOWN, "this kernel has no transparent huge pages");
	} else if (!strcmp(mode, "never")) {
		finding_set(f, DOCTOR_WARN,
			    "never: anonymous memory gets no 2 MiB pages even where a program asks "
			    "for them");
		finding_command(f, "echo madvise > %s", path);
		finding_change(f, CHANGE_VALUE, path, "madvise", NULL);
		finding_change(f, CHANGE_LINE, "/etc/tmpfiles.d/60-llmdev-doctor.conf",
			       "w /sys/kernel/mm/transparent_hugepage/enabled - - - - madvise",
			       NULL);
	} else {
		finding_set(f, DOCTOR_OK, "%s", mode);
	}
}

static void check_hugetlb(const struct doctor *d, struct finding *f)
{
	long long n = doctor_meminfo(&d->view, "HugePages_Free");
	long long reserved = doctor_meminfo(&d->view, "HugePages_Rsvd");
	long long size = doctor_meminfo(&d->view, "Hugepagesize");
	long long idle;

	if (n < 0 || size < 0) {
		finding_set(f, DOCTOR_NA, "this kernel has no hugetlb pages");
		return;
	}
	idle = (n - (reserved > 0 ? reserved : 0)) * size;
	if (idle > d->facts.mem_total / 20) {
		finding_set(f, DOCTOR_WARN,
			    "%.1f GiB are set aside as hugetlb pages that nobody uses: nobody else "
			    "can have them",
			    GIB(idle));
		finding_command(f, "sysctl -w vm.nr_hugepages=0   # frees those without a user");
	} else {
		finding_set(f, DOCTOR_OK, "%.1f GiB idle", GIB(idle));
	}
}

/* ---- contiguous memory set aside -------------------------------------------------------------- */

/* Pages in blocks of type CMA, all zones: those of KHO are in no counter of meminfo. */
static long long cma_bytes(const struct doctor *d)
{
	char *s = view_read(&d->view, "/proc/zoneinfo", NULL), *p = s;
	long long pages = 0;

	while (p && (p = strstr(p, "\n        cma "))) {
		p += strlen("\n        cma ");
		pages += strtoll(p, NULL, 10);
	}
	free(s);
	return pages * d->facts.page;
}

static void check_kho(const struct doctor *d, struct finding *f)
{
	long long total = doctor_meminfo(&d->view, "CmaTotal");
	long long in_zones, bytes;
	char *cmdline;
	bool off;

	if (!only_gb10(d, f))
		return;
	in_zones = cma_bytes(d);
	bytes = in_zones > total ? in_zones : total;
	cmdline = view_read(&d->view, "/proc/cmdline", NULL);
	off = cmdline && (strstr(cmdline, "kho=off") || strstr(cmdline, "kho=0"));
	free(cmdline);
	if (bytes > (1ll << 30)) {
		finding_set(
			f, DOCTOR_WARN,
			"%.1f GiB are in blocks for contiguous allocations (CMA)%s: only movable "
			"memory goes there, not the GPU driver's, and pinning what lies there "
			"can fail",
			GIB(bytes), off ? "" : ", probably kexec handover's (KHO)");
		finding_command(f, off ? "grep -o 'cma=[^ ]*' /proc/cmdline   # and remove it there"
				       : "add kho=off to GRUB_CMDLINE_LINUX in /etc/default/grub, "
					 "then update-grub and reboot");
	} else {
		finding_set(f, DOCTOR_OK, "%.1f GiB in CMA blocks", GIB(bytes > 0 ? bytes : 0));
	}
}

/* ---- free memory ------------------------------------------------------------------------------ */

static void check_free(const struct doctor *d, struct finding *f)
{
	const struct doctor_facts *x = &d->facts;
	long long cached = x->mem_available - x->mem_free;

	if (!only_gb10(d, f))
		return;
	if (x->mem_free < x->mem_total / 4 && cached > x->mem_total / 10) {
		finding_set(
			f, DOCTOR_WARN,
			"MemFree is %.1f GiB of %.1f GiB, %.1f GiB more could be reclaimed: CUDA "
			"reports only MemFree as free, and driver allocations can fail before "
			"the cache is given up",
			GIB(x->mem_free), GIB(x->mem_total), GIB(cached));
		finding_command(f, "llmctl mem   # who has it");
		finding_command(f, "llmctl cache drop --global   # or: echo 1 > " VM "drop_caches");
		finding_command(f, "systemctl enable --now llmdev-policyd   # keeps a floor free");
	} else {
		finding_set(f, DOCTOR_OK, "MemFree %.1f GiB, MemAvailable %.1f GiB",
			    GIB(x->mem_free), GIB(x->mem_available));
	}
}

/* Free blocks of 2 MiB and more, counted in 2 MiB; -1: cannot be read. */
static long long free_blocks(const struct doctor *d)
{
	char *s = view_read(&d->view, "/proc/buddyinfo", NULL), *line, *save = NULL;
	long long blocks = 0, pages = BLOCK / d->facts.page;
	int want = 0;

	if (!s)
		return -1;
	while ((1ll << want) < pages)
		want++;
	for (line = strtok_r(s, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *p = strstr(line, "zone"), *end;

		if (!p)
			continue;
		p += strlen("zone");
		p += strspn(p, " ");
		p += strcspn(p, " "); /* the zone's name */
		for (int order = 0; order < 32; order++) {
			long long n = strtoll(p, &end, 10);

			if (end == p)
				break;
			p = end;
			if (order >= want && n > 0 && n < (1ll << 40))
				blocks += n << (order - want);
		}
	}
	free(s);
	return blocks;
}

static void check_fragmentation(const struct doctor *d, struct finding *f)
{
	long long blocks = free_blocks(d), bytes = blocks * BLOCK, share;

	if (blocks < 0 || !d->facts.mem_free) {
		finding_set(f, DOCTOR_UNKNOWN, "/proc/buddyinfo cannot be read");
		return;
	}
	share = 100 * bytes / d->facts.mem_free;
	share = share > 100 ? 100 : share; /* the two files were not read at one moment */
	/* Of little free memory little is in one piece: that is not fragmentation. */
	if (d->facts.mem_free < d->facts.mem_total / 50 || share >= 25) {
		finding_set(f, DOCTOR_OK,
			    "%.1f GiB of free memory are in blocks of 2 MiB (%lld %%)", GIB(bytes),
			    share);
		return;
	}
	finding_set(
		f, !blocks && d->facts.gb10 ? DOCTOR_BAD : DOCTOR_WARN,
		"only %.2f of %.1f GiB of free memory are in blocks of 2 MiB (%lld %%): huge pages "
		"and the GPU driver's allocations take the slow path or fail",
		GIB(bytes), GIB(d->facts.mem_free), share);
	finding_command(f, "echo 1 > " VM "compact_memory   # reboot if it does not help");
	finding_change(f, CHANGE_TRIGGER, VM "compact_memory", "1", NULL);
}

static void check_swap(const struct doctor *d, struct finding *f)
{
	long long total = doctor_meminfo(&d->view, "SwapTotal");
	long long unused = doctor_meminfo(&d->view, "SwapFree");
	long long used = total - unused;

	if (total < 0 || unused < 0) {
		finding_set(f, DOCTOR_NA, "this kernel has no swap");
	} else if (used > d->facts.mem_total / 50) {
		finding_set(
			f, DOCTOR_WARN,
			"%.1f of %.1f GiB are used: what was swapped out comes back page by page "
			"when it is needed; too much is asked of the memory",
			GIB(used), GIB(total));
		finding_command(f, "llmctl mem   # who has it");
		finding_command(f, "swapoff -a && swapon -a   # brings it back, if it fits");
	} else if (total) {
		finding_set(f, DOCTOR_OK, "%.1f GiB, %.1f GiB used", GIB(total), GIB(used));
	} else {
		finding_set(f, DOCTOR_OK, "none");
	}
}

/* ---- watermarks ------------------------------------------------------------------------------- */

#define SCALE_WANTED 50

static void check_watermarks(const struct doctor *d, struct finding *f)
{
	long long total = d->facts.mem_total, min_kb, scale;

	if (!only_gb10(d, f))
		return;
	if (!view_number(&d->view, VM "min_free_kbytes", &min_kb) ||
	    !view_number(&d->view, VM "watermark_scale_factor", &scale)) {
		finding_set(f, DOCTOR_UNKNOWN,
			    "min_free_kbytes or watermark_scale_factor cannot be "
			    "read");
	} else if (min_kb > 2 << 20) {
		finding_set(f, DOCTOR_WARN,
			    "vm.min_free_kbytes is %.1f GiB: about one and a half times as much is "
			    "taken off MemAvailable, so that engines refuse to start, and "
			    "ordinary programs cannot have it",
			    (double)min_kb / (1 << 20));
		finding_command(f, "sysctl -w vm.min_free_kbytes=262144");
	} else if (scale < SCALE_WANTED) {
		finding_set(
			f, DOCTOR_WARN,
			"vm.watermark_scale_factor is %lld: reclaim in the background begins when "
			"%.2f GiB are left, and loading a model can take 20 GiB in two seconds. "
			"%d costs %.1f GiB of MemAvailable",
			scale, (double)min_kb / (1 << 20) + GIB(total / 10000 * scale),
			SCALE_WANTED, GIB(total / 10000 * 2 * (SCALE_WANTED - scale)));
		finding_sysctl(f, "vm.watermark_scale_factor", SCALE_WANTED);
	} else {
		finding_set(f, DOCTOR_OK, "min_free_kbytes %lld, watermark_scale_factor %lld",
			    min_kb, scale);
	}
}

/* ---- limits ----------------------------------------------------------------------------------- */

static void check_memlock(const struct doctor *d, struct finding *f)
{
	char *s = view_read(&d->view, "/proc/self/limits", NULL);
	char *p = s ? strstr(s, "Max locked memory") : NULL;
	long long soft = -1;

	if (p) {
		p += strlen("Max locked memory");
		p += strspn(p, " ");
		soft = strncmp(p, "unlimited", 9) ? strtoll(p, NULL, 10) : INT64_MAX;
	}
	free(s);
	if (soft < 0) {
		finding_set(f, DOCTOR_UNKNOWN, "/proc/self/limits cannot be read");
	} else if (soft == INT64_MAX) {
		finding_set(f, DOCTOR_OK, "unlimited");
	} else if (d->facts.by_root) {
		finding_set(f, DOCTOR_OK, "%.1f MiB, which does not bind root",
			    (double)soft / (1 << 20));
	} else if (soft < d->facts.mem_total / 2) {
		finding_set(
			f, DOCTOR_WARN,
			"%.1f MiB: regions, registered buffers and locked weights beyond that are "
			"refused outside systemd's units (llmdevd@.service has no limit)",
			(double)soft / (1 << 20));
		finding_command(
			f, "echo '@llmdev - memlock unlimited' > "
			   "/etc/security/limits.d/60-llmdev-doctor.conf   # then log in anew");
		finding_change(f, CHANGE_LINE, "/etc/security/limits.d/60-llmdev-doctor.conf",
			       "@llmdev - memlock unlimited", NULL);
	} else {
		finding_set(f, DOCTOR_OK, "%.1f GiB", GIB(soft));
	}
}

static void check_io_uring(const struct doctor *d, struct finding *f)
{
	long long v;

	/* The knob came with 6.6; before, a kernel has io_uring or has it not. */
	if (!view_number(&d->view, "/proc/sys/kernel/io_uring_disabled", &v)) {
		finding_set(f, DOCTOR_OK, "not restricted");
	} else if (v == 0) {
		finding_set(f, DOCTOR_OK, "allowed");
	} else {
		finding_set(
			f, DOCTOR_WARN,
			"kernel.io_uring_disabled is %lld: %s load their weights by read(), which "
			"is slower",
			v, v == 1 ? "users outside io_uring_group" : "all");
		finding_command(
			f, v == 1 ? "sysctl -w kernel.io_uring_group=$(getent group llmdev | "
				    "cut -d: -f3)"
				  : "sysctl -w kernel.io_uring_disabled=0   # if whoever set it "
				    "agrees: it was set for safety");
	}
}

const struct check doctor_memory_checks[] = {
	{"driver", check_driver},
	{"page-size", check_page_size},
	{"huge-pages", check_thp},
	{"hugetlb", check_hugetlb},
	{"kho", check_kho},
	{"free-memory", check_free},
	{"fragmentation", check_fragmentation},
	{"swap", check_swap},
	{"watermarks", check_watermarks},
	{"memlock", check_memlock},
	{"io_uring", check_io_uring},
	{NULL},
};
