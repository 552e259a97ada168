// SPDX-License-Identifier: MIT
/* Schemas that must hold together made one, references, and places in schemas. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/grammar/grammar_int.h"

#define MERGES_MAX  2000
#define MERGE_DEPTH 64
#define PRODUCT_MAX 64

void schema_init(struct schema *s, struct gb *b, const json_t *root, const char *where)
{
	memset(s, 0, sizeof(*s));
	s->b = b;
	s->root = root;
	s->where = where;
	s->owned = json_pack("[{s:s}]", "type", "string");
	if (!s->owned)
		gb_fail(b, -ENOMEM, "grammar: out of memory: free some");
}

void schema_fini(struct schema *s)
{
	for (int i = 0; i < 256; i++) {
		while (s->rule[i]) {
			struct schema_rule *r = s->rule[i];

			s->rule[i] = r->next;
			free(r);
		}
	}
	json_decref(s->owned);
}

/* ---- places ---------------------------------------------------------------------------------- */

static size_t add_name(char *path, size_t n, size_t cap, const char *name)
{
	if (n + 1 < cap)
		path[n++] = '/';
	for (; *name && n + 2 < cap; name++) {
		if (*name == '~' || *name == '/') {
			path[n++] = '~';
			path[n++] = *name == '~' ? '0' : '1';
		} else {
			path[n++] = *name;
		}
	}
	path[n] = 0;
	return n;
}

size_t schema_enter(struct schema *s, const char *a, const char *b)
{
	size_t mark = strlen(s->path), n = add_name(s->path, mark, sizeof(s->path), a);

	if (b)
		add_name(s->path, n, sizeof(s->path), b);
	return mark;
}

void schema_leave(struct schema *s, size_t mark)
{
	s->path[mark] = 0;
}

gnode schema_bad(struct schema *s, const char *keyword, int rc, const char *fmt, ...)
{
	char why[256], name[128] = "";
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	if (keyword)
		add_name(name, 0, sizeof(name), keyword);
	gb_fail(s->b, rc, "%s%.200s%s: %s", s->where, s->path, name, why);
	return 0;
}

/* ---- references ------------------------------------------------------------------------------ */

static int hex_value(int c)
{
	return c >= '0' && c <= '9'		    ? c - '0'
	       : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
						    : -1;
}

/* The next member name of a JSON pointer in a URI fragment. */
static const char *pointer_name(const char *p, char *name, size_t cap)
{
	size_t n = 0;

	for (; *p && *p != '/' && n + 1 < cap; p++) {
		char c = *p;

		if (c == '%' && hex_value(p[1]) >= 0 && hex_value(p[2]) >= 0) {
			c = (char)(hex_value(p[1]) * 16 + hex_value(p[2]));
			p += 2;
		}
		if (c == '~' && (p[1] == '0' || p[1] == '1'))
			c = *++p == '0' ? '~' : '/';
		name[n++] = c;
	}
	name[n] = 0;
	return p;
}

const json_t *schema_target(struct schema *s, const char *ref)
{
	const json_t *at = s->root;
	const char *p = ref;
	char name[512];

	if (*p != '#' || (p[1] && p[1] != '/')) {
		schema_bad(s, "$ref", -EOPNOTSUPP,
			   "only places in the same schema, \"#/...\", are supported");
		return NULL;
	}
	for (p++; at && *p == '/';) {
		p = pointer_name(p + 1, name, sizeof(name));
		if (json_is_array(at)) {
			char *end;
			unsigned long i = strtoul(name, &end, 10);

			at = *name && !*end ? json_array_get(at, i) : NULL;
		} else {
			at = json_object_get(at, name);
		}
	}
	if (!at || *p) {
		schema_bad(s, "$ref", -EINVAL, "there is no \"%.100s\": correct the reference",
			   ref);
		return NULL;
	}
	return at;
}

/* ---- keywords -------------------------------------------------------------------------------- */

bool schema_restricts(const char *k)
{
	static const char *const no[] = {
		"$schema",
		"$id",
		"id",
		"$comment",
		"$defs",
		"definitions",
		"$anchor",
		"$vocabulary",
		"title",
		"description",
		"default",
		"examples",
		"example",
		"deprecated",
		"readOnly",
		"writeOnly",
		"discriminator",
		"xml",
		"externalDocs",
		"contentEncoding",
		"contentMediaType",
		"contentSchema",
		"strict",
	};

	for (size_t i = 0; i < sizeof(no) / sizeof(*no); i++) {
		if (!strcmp(k, no[i]))
			return false;
	}
	return strncmp(k, "x-", 2) != 0;
}

int schema_types(const json_t *type)
{
	static const char *const names[] = {"null",   "boolean", "integer", "number",
					    "string", "array",	 "object"};
	int bits = 0, one;
	size_t i;
	json_t *x;

	if (json_is_string(type)) {
		for (i = 0; i < 7; i++) {
			if (!strcmp(json_string_value(type), names[i]))
				return 1 << i;
		}
		return -1;
	}
	if (!json_is_array(type) || !json_array_size(type))
		return -1;
	json_array_foreach ((json_t *)type, i, x) {
		one = json_is_string(x) ? schema_types(x) : -1;
		if (one < 0)
			return -1;
		bits |= one;
	}
	return bits;
}

/* ---- merging --------------------------------------------------------------------------------- */

static json_t *no_memory(struct schema *s)
{
	gb_fail(s->b, -ENOMEM, "grammar: out of memory: free some");
	return NULL;
}

/* {"allOf": [x, y]}, unless one says nothing. */
static json_t *both(const json_t *x, const json_t *y)
{
	if (!x || json_is_true(x) || json_equal(x, y))
		return json_incref((json_t *)y);
	if (!y || json_is_true(y))
		return json_incref((json_t *)x);
	if (json_is_false(x) || json_is_false(y))
		return json_false();
	return json_pack("{s:[OO]}", "allOf", (json_t *)x, (json_t *)y);
}

static json_t *type_list(int bits)
{
	static const char *const names[] = {"null",   "boolean", "integer", "number",
					    "string", "array",	 "object"};
	json_t *l = json_array();

	for (int i = 0; i < 7 && l; i++) {
		if (bits >> i & 1)
			json_array_append_new(l, json_string(names[i]));
	}
	return l;
}

static json_t *merge_types(const json_t *x, const json_t *y)
{
	int a = schema_types(x), b = schema_types(y), both_bits;

	if (a < 0 || b < 0)
		return NULL;
	a |= a & TY_NUMBER ? TY_INTEGER : 0;
	b |= b & TY_NUMBER ? TY_INTEGER : 0;
	both_bits = a & b;
	if (both_bits & TY_NUMBER)
		both_bits &= ~TY_INTEGER;
	return both_bits ? type_list(both_bits) : json_false();
}

static json_t *merge_values(const json_t *x, const json_t *y)
{
	json_t *l = json_array(), *v, *w;
	size_t i, k;

	json_array_foreach ((json_t *)x, i, v) {
		json_array_foreach ((json_t *)y, k, w) {
			if (json_equal(v, w)) {
				json_array_append(l, v);
				break;
			}
		}
	}
	return l;
}

static json_t *merge_required(const json_t *x, const json_t *y)
{
	json_t *l = json_copy((json_t *)x), *v, *w;
	size_t i, k;
	bool known;

	json_array_foreach ((json_t *)y, i, v) {
		known = false;
		json_array_foreach ((json_t *)x, k, w)
			known |= json_equal(v, w);
		if (!known)
			json_array_append(l, v);
	}
	return l;
}

/* Alternatives of both: each of the one with each of the other. */
static json_t *merge_alternatives(const json_t *x, const json_t *y)
{
	json_t *l, *v, *w;
	size_t i, k;

	if (!json_is_array(x) || !json_is_array(y) ||
	    json_array_size(x) * json_array_size(y) > PRODUCT_MAX)
		return NULL;
	l = json_array();
	json_array_foreach ((json_t *)x, i, v) {
		json_array_foreach ((json_t *)y, k, w)
			json_array_append_new(l, both(v, w));
	}
	return l;
}

/* A property that one schema names and the other leaves to its additionalProperties. */
static json_t *merge_properties(const json_t *x, const json_t *y, const json_t *more_x,
				const json_t *more_y)
{
	json_t *r = json_object(), *v;
	const char *key;

	json_object_foreach ((json_t *)x, key, v) {
		const json_t *w = json_object_get(y, key);

		json_object_set_new(r, key, both(v, w ? w : more_y));
	}
	json_object_foreach ((json_t *)y, key, v) {
		if (!json_object_get(x, key))
			json_object_set_new(r, key, both(v, more_x));
	}
	return r;
}

static bool is_one_of(const char *k, const char *const *list)
{
	for (; *list; list++) {
		if (!strcmp(k, *list))
			return true;
	}
	return false;
}

/* NULL: cannot be told as one keyword. */
static json_t *merge_keyword(const char *k, const json_t *x, const json_t *y)
{
	static const char *const larger[] = {"minimum",	 "exclusiveMinimum", "minLength",
					     "minItems", "minProperties",    NULL};
	static const char *const smaller[] = {"maximum",  "exclusiveMaximum", "maxLength",
					      "maxItems", "maxProperties",    NULL};

	if (json_equal(x, y) || !schema_restricts(k) || !strcmp(k, "format"))
		return json_incref((json_t *)y);
	if (json_is_number(x) && json_is_number(y)) {
		bool more = json_number_value(x) > json_number_value(y);

		if (is_one_of(k, larger))
			return json_incref((json_t *)(more ? x : y));
		if (is_one_of(k, smaller))
			return json_incref((json_t *)(more ? y : x));
	}
	if (!strcmp(k, "type"))
		return merge_types(x, y);
	if (!strcmp(k, "enum") && json_is_array(x) && json_is_array(y))
		return merge_values(x, y);
	if (!strcmp(k, "const"))
		return json_false();
	if (!strcmp(k, "required") && json_is_array(x) && json_is_array(y))
		return merge_required(x, y);
	if (!strcmp(k, "items") || !strcmp(k, "additionalProperties") ||
	    !strcmp(k, "propertyNames"))
		return json_is_array(x) || json_is_array(y) ? NULL : both(x, y);
	if (!strcmp(k, "anyOf"))
		return merge_alternatives(x, y);
	return NULL;
}

/* oneOf is read as anyOf, nullable as a type: then they merge as these do. */
static int normalise(struct schema *s, json_t *o)
{
	json_t *one = json_object_get(o, "oneOf"), *any = json_object_get(o, "anyOf"), *l;
	int bits;

	if (one) {
		l = any ? merge_alternatives(any, one) : json_incref(one);
		if (!l) {
			schema_bad(s, "oneOf", -EOPNOTSUPP, "beside anyOf it is not supported");
			return -1;
		}
		json_object_set_new(o, "anyOf", l);
		json_object_del(o, "oneOf");
	}
	if (json_is_true(json_object_get(o, "nullable"))) {
		bits = schema_types(json_object_get(o, "type"));
		if (bits > 0)
			json_object_set_new(o, "type", type_list(bits | TY_NULL));
		json_object_del(o, "nullable");
	}
	return 0;
}

static json_t *merged(struct schema *s, const json_t *x, const json_t *y, int depth);

/* x without $ref and allOf: what they say is merged into it. A new reference. */
static json_t *flat(struct schema *s, const json_t *x, int depth)
{
	const json_t *ref = json_object_get(x, "$ref"), *target;
	json_t *all = json_object_get(x, "allOf"), *r, *v, *m;
	size_t i;

	if (!json_is_object(x)) {
		if (!json_is_boolean(x)) {
			schema_bad(s, NULL, -EINVAL, "neither an object nor true nor false");
			return NULL;
		}
		return json_incref((json_t *)x);
	}
	if (depth > MERGE_DEPTH || ++s->n_merged > MERGES_MAX) {
		schema_bad(s, NULL, -E2BIG, "too many schemas to be merged: make it simpler");
		return NULL;
	}
	r = json_copy((json_t *)x);
	if (!r)
		return no_memory(s);
	json_object_del(r, "$ref");
	json_object_del(r, "allOf");
	if (normalise(s, r))
		goto fail;
	if (ref) {
		target = json_is_string(ref) ? schema_target(s, json_string_value(ref)) : NULL;
		if (!target) {
			schema_bad(s, "$ref", -EINVAL, "not a string");
			goto fail;
		}
		m = merged(s, target, r, depth + 1);
		json_decref(r);
		r = m;
	}
	if (all && !json_is_array(all)) {
		schema_bad(s, "allOf", -EINVAL, "not a list");
		goto fail;
	}
	json_array_foreach (all, i, v) {
		if (!r)
			return NULL;
		m = merged(s, r, v, depth + 1);
		json_decref(r);
		r = m;
	}
	return r;
fail:
	json_decref(r);
	return NULL;
}

static json_t *merge_flat(struct schema *s, const json_t *x, const json_t *y)
{
	const json_t *more_x = json_object_get(x, "additionalProperties");
	const json_t *more_y = json_object_get(y, "additionalProperties");
	json_t *r = json_copy((json_t *)x), *v, *m, *w;
	const char *key;

	if (!r)
		return no_memory(s);
	if (json_object_get(x, "properties") || json_object_get(y, "properties")) {
		if ((json_object_get(x, "patternProperties") ||
		     json_object_get(y, "patternProperties")) &&
		    (more_x || more_y)) {
			schema_bad(s, "patternProperties", -EOPNOTSUPP,
				   "merged with other properties it is not supported");
			json_decref(r);
			return NULL;
		}
		json_object_set_new(r, "properties",
				    merge_properties(json_object_get(x, "properties"),
						     json_object_get(y, "properties"), more_x,
						     more_y));
	}
	json_object_foreach ((json_t *)y, key, v) {
		if (!strcmp(key, "properties"))
			continue;
		w = json_object_get(x, key);
		m = w ? merge_keyword(key, w, v) : json_incref(v);
		if (!m) {
			schema_bad(s, key, -EOPNOTSUPP,
				   "two schemas that must both hold say different things here, "
				   "which is not supported");
			json_decref(r);
			return NULL;
		}
		if (json_is_false(m) && (!strcmp(key, "type") || !strcmp(key, "const"))) {
			json_decref(m);
			json_decref(r);
			return json_false();
		}
		json_object_set_new(r, key, m);
	}
	return r;
}

static json_t *merged(struct schema *s, const json_t *x, const json_t *y, int depth)
{
	json_t *a = flat(s, x, depth), *b = a ? flat(s, y, depth) : NULL, *r;

	if (!a || !b)
		r = NULL;
	else if (json_is_false(a) || json_is_true(b))
		r = json_incref(a);
	else if (json_is_false(b) || json_is_true(a))
		r = json_incref(b);
	else
		r = merge_flat(s, a, b);
	json_decref(a);
	json_decref(b);
	return r;
}

static const json_t *own(struct schema *s, json_t *r)
{
	if (r && json_array_append_new(s->owned, r))
		return no_memory(s);
	return r;
}

const json_t *schema_merge(struct schema *s, const json_t *x, const json_t *y)
{
	return s->b->rc ? NULL : own(s, merged(s, x, y, 0));
}

const json_t *schema_flat(struct schema *s, const json_t *x)
{
	return s->b->rc ? NULL : own(s, flat(s, x, 0));
}
