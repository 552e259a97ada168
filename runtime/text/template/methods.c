// SPDX-License-Identifier: MIT
/* Methods of dict, list, tuple, range, numbers, cycler; and finding a method by its name. Those
 * that would change a list or dict are known, and refused as jinja2's immutable sandbox does. */
#include <math.h>

#include "text/template/filters.h"

static struct val dict_view(struct val self, enum view which)
{
	self.type = V_VIEW;
	self.sub = (uint8_t)which;
	return self;
}

static struct val dict_items(struct rt *r, struct val self, struct args *a)
{
	return dict_view(self, VIEW_ITEMS);
}

static struct val dict_keys(struct rt *r, struct val self, struct args *a)
{
	return dict_view(self, VIEW_KEYS);
}

static struct val dict_values(struct rt *r, struct val self, struct args *a)
{
	return dict_view(self, VIEW_VALUES);
}

static struct val dict_get_method(struct rt *r, struct val self, struct args *a)
{
	struct val v = dict_get(r, self.d, a->pos[0]);

	if (v.type != V_ABSENT)
		return v;
	return a->pos[1].type == V_ABSENT ? v_none() : a->pos[1];
}

static struct val dict_copy(struct rt *r, struct val self, struct args *a)
{
	struct dict *d;

	dict_load(r, self.d);
	d = dict_new(r, self.d->n);
	d->user = self.d->user;
	for (size_t i = 0; i < self.d->n; i++)
		dict_set(r, d, self.d->e[i].key, self.d->e[i].value);
	return v_dict(d);
}

static struct val list_copy(struct rt *r, struct val self, struct args *a)
{
	return v_list(list_of(r, self));
}

static struct val list_count(struct rt *r, struct val self, struct args *a)
{
	struct iter it;
	struct val v;
	int64_t n = 0;

	iter_open(r, &it, self);
	while (iter_next(r, &it, &v))
		n += same(v, a->pos[0]) || equal(r, v, a->pos[0]);
	return v_int(n);
}

static struct val list_index(struct rt *r, struct val self, struct args *a)
{
	int64_t from = arg_int(r, a->pos[1], 0, "index()"), n = length_of(r, self);
	int64_t to = arg_int(r, a->pos[2], n, "index()");
	struct list *l = list_of(r, self);

	from = from < 0 ? (from < -n ? 0 : from + n) : from;
	to = to < 0 ? to + n : to > n ? n : to;
	for (; from < to; from++)
		if (same(l->v[from], a->pos[0]) || equal(r, l->v[from], a->pos[0]))
			return v_int(from);
	fail(r, "%s.index(x): x not in %s", type_name(self), type_name(self));
}

static struct val cycler_next(struct rt *r, struct val self, struct args *a)
{
	struct cycler *c = self.cycler;
	struct val v = c->items->v[c->at];

	c->at = (c->at + 1) % c->items->n;
	return v;
}

static struct val cycler_reset(struct rt *r, struct val self, struct args *a)
{
	self.cycler->at = 0;
	return v_none();
}

static struct val loop_cycle(struct rt *r, struct val self, struct args *a)
{
	if (a->nkw || !a->n)
		fail(r, "no items for cycling given");
	return a->pos[self.loop->index0 % a->n];
}

static struct val loop_changed(struct rt *r, struct val self, struct args *a)
{
	struct list *l = list_new(r, (size_t)a->n);
	struct val now = v_tuple(l);

	for (int i = 0; i < a->n; i++)
		list_push(r, l, a->pos[i]);
	if (self.loop->changed.type == V_TUPLE && equal(r, self.loop->changed, now))
		return v_bool(false);
	self.loop->changed = now;
	return v_bool(true);
}

static struct val float_is_integer(struct rt *r, struct val self, struct args *a)
{
	return v_bool(isfinite(self.f) && self.f == floor(self.f));
}

static struct val int_bit_length(struct rt *r, struct val self, struct args *a)
{
	uint64_t u = (uint64_t)int_of(self);

	u = int_of(self) < 0 ? -u : u;
	return v_int(u ? 64 - __builtin_clzll(u) : 0);
}

#define SEQUENCES (VM(V_LIST) | VM(V_TUPLE) | VM(V_RANGE))

/* Methods of one name stand together. No function: it would change its object. */
static const struct func methods[] = {
	{"append", NULL, 0, NULL, VM(V_LIST)},
	{"bit_length", int_bit_length, 0, "", VM(V_INT) | VM(V_BOOL)},
	{"changed", loop_changed, 0, NULL, VM(V_LOOP)},
	{"clear", NULL, 0, NULL, VM(V_LIST) | VM(V_DICT)},
	{"copy", dict_copy, 0, "", VM(V_DICT)},
	{"copy", list_copy, 0, "", VM(V_LIST)},
	{"count", list_count, 1, "/value", SEQUENCES},
	{"cycle", loop_cycle, 0, NULL, VM(V_LOOP)},
	{"extend", NULL, 0, NULL, VM(V_LIST)},
	{"get", dict_get_method, 1, "/key,default", VM(V_DICT)},
	{"index", list_index, 1, "/value,start,stop", SEQUENCES},
	{"insert", NULL, 0, NULL, VM(V_LIST)},
	{"is_integer", float_is_integer, 0, "", VM(V_FLOAT)},
	{"items", dict_items, 0, "", VM(V_DICT)},
	{"keys", dict_keys, 0, "", VM(V_DICT)},
	{"next", cycler_next, 0, "", VM(V_CYCLER)},
	{"pop", NULL, 0, NULL, VM(V_LIST) | VM(V_DICT)},
	{"popitem", NULL, 0, NULL, VM(V_DICT)},
	{"remove", NULL, 0, NULL, VM(V_LIST)},
	{"reset", cycler_reset, 0, "", VM(V_CYCLER)},
	{"reverse", NULL, 0, NULL, VM(V_LIST)},
	{"setdefault", NULL, 0, NULL, VM(V_DICT)},
	{"sort", NULL, 0, NULL, VM(V_LIST)},
	{"update", NULL, 0, NULL, VM(V_DICT)},
	{"values", dict_values, 0, "", VM(V_DICT)},
	{0},
};

const struct func *find_method(const char *name, size_t len)
{
	for (const struct func *m = methods; m->name; m++)
		if (strlen(m->name) == len && !memcmp(m->name, name, len))
			return m;
	return find_str_method(name, len);
}

const struct func *method_of(const struct func *first, enum vtype type)
{
	const char *name = first->name;

	for (const struct func *m = first; m->name && !strcmp(m->name, name); m++)
		if (m->types & VM(type))
			return m;
	/* str has a table of its own, where each name stands once */
	if (type == V_STR && !(first->types & VM(V_STR)))
		return find_str_method(name, strlen(name));
	return NULL;
}

bool method_mutates(const struct func *m)
{
	return !m->fn;
}
