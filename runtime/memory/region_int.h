/* SPDX-License-Identifier: MIT */
/*
 * Private to region*.c: what each place of regions does. `fd` is the store's. Those that return a
 * descriptor return it or -errno with *e.
 */
#ifndef LLMDEV_MEMORY_REGION_INT_H
#define LLMDEV_MEMORY_REGION_INT_H

#include "memory/region.h"

int region_module_connect(struct err *e);
/* r->name and r->mapped say what is wanted; sets huge_bytes. */
int region_module_create(int fd, struct region *r, int node, struct err *e);
int region_module_seal(int region, const char *name, struct err *e);
/* Sets bytes and huge_bytes. */
int region_module_open(int fd, struct region *r, struct err *e);
int region_module_list(int fd, struct region_fact **out, size_t *n, struct err *e);
int region_module_destroy(int fd, const char *name, struct err *e);

int region_keeper_connect(bool start, struct err *e);
int region_keeper_create(int fd, struct region *r, struct err *e);
int region_keeper_seal(int fd, struct region *r, struct err *e);
int region_keeper_open(int fd, bool use, struct region *r, struct err *e);
int region_keeper_list(int fd, struct region_fact **out, size_t *n, struct err *e);
int region_keeper_destroy(int fd, const char *name, struct err *e);
/* A claim ends with its connection: take a new one. */
void region_keeper_reconnect(struct region_store *s);

#endif
