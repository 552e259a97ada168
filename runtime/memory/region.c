// SPDX-License-Identifier: MIT
/*
 * What both places of regions share: names, mapping, sealing in place (region.h). The module's calls
 * are in region_module.c, the keeper's in region_keeper.c. No state of its own.
 */
#include "memory/region.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/map.h"
#include "memory/region_int.h"
#include "weights/placement.h"

static int check_name(const char *name, struct err *e)
{
	if (region_name_ok(name))
		return 0;
	return err_set(
		e, -EINVAL,
		"region \"%.127s\": a name has 1 to %d letters, digits or ._:@+- and does not "
		"begin with a dot",
		name, REGION_NAME_MAX - 1);
}

int region_store_open(struct region_store *s, enum region_place place, bool start, struct err *e)
{
	int fd =
		place == REGION_MODULE ? region_module_connect(e) : region_keeper_connect(start, e);

	*s = (struct region_store){place, fd < 0 ? -1 : fd};
	return fd < 0 ? fd : 0;
}

void region_store_close(struct region_store *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

/* ---- mapping --------------------------------------------------------------------------------------- */

/* At r->base, whatever was there, or anywhere if that is NULL; on failure r->base is what it was. */
static int map(struct region *r, int fd, int prot, struct err *e)
{
	void *base = r->base ? r->base : map_aligned(r->mapped, PROT_NONE, MAP_NORESERVE);

	if (!base || mmap(base, r->mapped, prot, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
		int rc = -errno;

		if (base && !r->base)
			munmap(base, r->mapped);
		return err_set(e, rc, "region %s: %zu bytes cannot be mapped: %s", r->name,
			       r->mapped, strerror(-rc));
	}
	r->base = base;
	/* Advice only. */
	madvise(base, r->mapped, MADV_HUGEPAGE);
	madvise(base, r->mapped, MADV_DONTDUMP);
	return 0;
}

/* ---- life ---------------------------------------------------------------------------------------------- */

int region_create(struct region_store *s, const char *name, size_t bytes, int node,
		  struct region *r, struct err *e)
{
	uint64_t available = placement_available();
	int rc = check_name(name, e);

	*r = (struct region){.fd = -1};
	if (rc)
		return rc;
	if (!bytes || bytes > (size_t)1 << 46)
		return err_set(e, -EINVAL, "region %s: a size of %zu bytes is impossible", name,
			       bytes);
	if (available && bytes > available)
		return err_set(
			e, -ENOMEM,
			"region %s: %.2f GiB needed, %.2f GiB available (MemAvailable): free "
			"memory",
			name, (double)bytes / (1 << 30), (double)available / (1 << 30));
	/* Huge pages at the end too, unless the whole is smaller than one. */
	r->bytes = bytes;
	r->mapped = map_size(bytes);
	memcpy(r->name, name, strlen(name) + 1);
	r->fd = s->place == REGION_MODULE ? region_module_create(s->fd, r, node, e)
					  : region_keeper_create(s->fd, r, e);
	if (r->fd < 0)
		return r->fd;
	rc = map(r, r->fd, PROT_READ | PROT_WRITE, e);
	if (rc)
		region_close(s, r);
	return rc;
}

int region_seal(struct region_store *s, struct region *r, struct err *e)
{
	int rc;

	/* No writable mapping may exist meanwhile; the place in the address space stays ours. */
	if (mmap(r->base, r->mapped, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
		return err_set(e, -errno, "region %s: cannot be unmapped: %s", r->name,
			       strerror(errno));
	rc = s->place == REGION_MODULE ? region_module_seal(r->fd, r->name, e)
				       : region_keeper_seal(s->fd, r, e);
	/* If it failed half way, reading is all that is left. */
	if (rc && !map(r, r->fd, PROT_READ | PROT_WRITE, NULL))
		return rc;
	if (map(r, r->fd, PROT_READ, rc ? NULL : e))
		return rc ? rc : -ENOMEM;
	if (!rc) {
		close(r->fd);
		r->fd = -1;
	}
	return rc;
}

int region_open(struct region_store *s, const char *name, bool use, struct region *r, struct err *e)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	int rc = check_name(name, e), fd;

	*r = (struct region){.fd = -1};
	if (rc)
		return rc;
	memcpy(r->name, name, strlen(name) + 1);
	fd = s->place == REGION_MODULE ? region_module_open(s->fd, r, e)
				       : region_keeper_open(s->fd, use, r, e);
	if (fd < 0)
		return fd;
	if (!r->bytes) {
		close(fd);
		return err_set(e, -EINVAL, "region %s: it is empty", name);
	}
	r->mapped = (r->bytes + page - 1) / page * page;
	rc = map(r, fd, PROT_READ, e);
	close(fd); /* the mapping holds it */
	return rc;
}

void region_close(struct region_store *s, struct region *r)
{
	if (r->base)
		munmap(r->base, r->mapped);
	if (r->fd >= 0) {
		close(r->fd);
		if (s->place == REGION_MODULE)
			region_module_destroy(s->fd, r->name, NULL);
		else
			region_keeper_reconnect(s);
	}
	*r = (struct region){.fd = -1};
}

int region_list(struct region_store *s, struct region_fact **out, size_t *n, struct err *e)
{
	*out = NULL;
	*n = 0;
	return s->place == REGION_MODULE ? region_module_list(s->fd, out, n, e)
					 : region_keeper_list(s->fd, out, n, e);
}

int region_find(struct region_store *s, const char *name, struct region_fact *f, struct err *e)
{
	struct region_fact *v;
	size_t n;
	int rc = region_list(s, &v, &n, e);

	if (rc)
		return rc;
	rc = -ENOENT;
	for (size_t i = 0; i < n && rc; i++) {
		if (!strcmp(v[i].name, name)) {
			*f = v[i];
			rc = 0;
		}
	}
	free(v);
	return rc ? err_set(e, rc, "region %s: there is none of that name", name) : 0;
}

int region_destroy(struct region_store *s, const char *name, struct err *e)
{
	int rc = check_name(name, e);

	if (rc)
		return rc;
	return s->place == REGION_MODULE ? region_module_destroy(s->fd, name, e)
					 : region_keeper_destroy(s->fd, name, e);
}
