// SPDX-License-Identifier: MIT
/* Regions of the kernel module: the ioctls of /dev/llm-control and their refusals. No state. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "llm.h"
#include "memory/reclaim.h"
#include "memory/region_int.h"

#define LIST_STEP 64
#define LIST_MAX  65536

_Static_assert(REGION_NAME_MAX == LLM_REGION_NAME_MAX, "names have one length");

static int fail(struct err *e, int code, const char *name, const char *what)
{
	switch (code) {
	case EPERM:
	case EACCES:
		return err_set(e, -code,
			       "region %s: %s: not allowed: it needs its owner or root "
			       "(CAP_SYS_ADMIN)",
			       name, what);
	case ENOENT:
		return err_set(e, -code, "region %s: %s: there is none of that name", name, what);
	case ENOMEM:
		return err_set(
			e, -code,
			"region %s: %s: more than the machine, its node, this user's limit "
			"on locked memory (ulimit -l, LimitMEMLOCK=) or the memory cgroup has "
			"left",
			name, what);
	case EEXIST:
		return err_set(e, -code, "region %s: %s: the name is taken", name, what);
	case EBUSY:
		return err_set(e, -code,
			       "region %s: %s: a writable mapping or a pinned page exists", name,
			       what);
	}
	return err_set(e, -code, "region %s: %s: %s", name, what, strerror(code));
}

int region_module_connect(struct err *e)
{
	struct llm_query q = {.size = sizeof(q)};
	int fd = open(REGION_CONTROL, O_RDWR | O_CLOEXEC);

	if (fd < 0 && (errno == ENOENT || errno == ENXIO || errno == ENODEV))
		return err_set(e, access("/sys/module/llm", F_OK) ? -ENOENT : -ENXIO,
			       "%s: not there: %s", REGION_CONTROL, room_no_node());
	if (fd < 0)
		return err_set(e, -errno, "%s: %s: regions need the group llmdev-admin, or root",
			       REGION_CONTROL, strerror(errno));
	if (ioctl(fd, LLM_IOC_QUERY, &q) || !(q.features & LLM_FEATURE_REGION)) {
		close(fd);
		return err_set(e, -ENOTTY,
			       "%s: the module that is loaded has no regions: update it",
			       REGION_CONTROL);
	}
	return fd;
}

static void set_name(__u8 *to, const char *name)
{
	memset(to, 0, LLM_REGION_NAME_MAX);
	memcpy(to, name, strnlen(name, LLM_REGION_NAME_MAX - 1));
}

int region_module_create(int fd, struct region *r, int node, struct err *e)
{
	struct llm_region_create c = {.size = sizeof(c),
				      .flags = LLM_REGION_PERSISTENT,
				      .bytes = r->mapped,
				      .node = node};

	set_name(c.name, r->name);
	if (ioctl(fd, LLM_IOC_REGION_CREATE, &c))
		return fail(e, errno, r->name, "creating it");
	r->huge_bytes = c.huge_bytes;
	return c.fd;
}

int region_module_seal(int region, const char *name, struct err *e)
{
	struct llm_region_seal s = {.size = sizeof(s)};

	return ioctl(region, LLM_IOC_REGION_SEAL, &s) ? fail(e, errno, name, "sealing it") : 0;
}

int region_module_open(int fd, struct region *r, struct err *e)
{
	struct llm_region_open o = {.size = sizeof(o)};
	struct llm_region_info i = {.size = sizeof(i)};

	set_name(o.name, r->name);
	if (ioctl(fd, LLM_IOC_REGION_OPEN, &o))
		return fail(e, errno, r->name, "opening it");
	if (ioctl(o.fd, LLM_IOC_REGION_INFO, &i)) {
		int rc = fail(e, errno, r->name, "asking for its size");

		close(o.fd);
		return rc;
	}
	if (!(i.flags & LLM_REGION_SEALED)) {
		close(o.fd);
		return err_set(e, -EAGAIN, "region %s: it is not sealed", r->name);
	}
	r->bytes = i.bytes;
	r->huge_bytes = i.huge_bytes;
	return o.fd;
}

static void take_fact(struct region_fact *f, const struct llm_region_info *i)
{
	bool sealed = i->flags & LLM_REGION_SEALED;

	*f = (struct region_fact){
		.place = REGION_MODULE,
		.bytes = i->bytes,
		.resident = i->resident,
		.huge_bytes = i->huge_bytes,
		.pinned_bytes = i->pinned_bytes,
		.created_ns = i->created_ns,
		.uid = i->uid,
		.pid = i->pid,
		.users = i->mappings > i->files ? i->mappings : i->files,
		.node = i->node,
		.sealed = sealed,
		.persistent = i->flags & LLM_REGION_PERSISTENT,
		.busy = !sealed && (i->files || i->mappings || (i->flags & LLM_REGION_ALLOCATING)),
	};
	snprintf(f->name, sizeof(f->name), "%.127s", (const char *)i->name);
}

int region_module_list(int fd, struct region_fact **out, size_t *n, struct err *e)
{
	struct llm_region_info *step = calloc(LIST_STEP, sizeof(*step));
	struct llm_region_list l = {.size = sizeof(l), .regions = (uintptr_t)step};
	int rc = 0;

	do {
		void *v;

		l.count = LIST_STEP;
		if (!step)
			rc = err_set(e, -ENOMEM, "regions: no memory to list them");
		else if (ioctl(fd, LLM_IOC_REGION_LIST, &l))
			rc = err_set(e, -errno, "%s: regions cannot be listed: %s", REGION_CONTROL,
				     strerror(errno));
		if (rc || !l.count)
			break;
		v = realloc(*out, (*n + l.count) * sizeof(**out));
		if (!v) {
			rc = err_set(e, -ENOMEM, "regions: no memory to list them");
			break;
		}
		*out = v;
		for (uint32_t i = 0; i < l.count; i++)
			if (!(step[i].flags & LLM_REGION_UNLINKED))
				take_fact(&(*out)[(*n)++], &step[i]);
		l.after = step[l.count - 1].id;
	} while (l.count == LIST_STEP && *n < LIST_MAX);
	free(step);
	if (rc) {
		free(*out);
		*out = NULL;
		*n = 0;
	}
	return rc;
}

int region_module_destroy(int fd, const char *name, struct err *e)
{
	struct llm_region_name d = {.size = sizeof(d)};

	set_name(d.name, name);
	return ioctl(fd, LLM_IOC_REGION_DESTROY, &d) ? fail(e, errno, name, "destroying it") : 0;
}
