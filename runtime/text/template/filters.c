// SPDX-License-Identifier: MIT
/*
 * The filters that go through sequences, and the table of all filters. What is a generator in
 * jinja2 is computed at once here, but can be gone through only once as well. See tmpl_int.h.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/template/filters.h"

static struct val absent(void)
{
	return v_make(V_ABSENT);
}

static bool given(struct val v)
{
	return v.type != V_ABSENT && v.type != V_NONE;
}

static struct val folded(struct rt *r, struct val v, bool case_sensitive)
{
	return v.type == V_STR && !case_sensitive ? v_str(u_lower(r, v.s)) : v;
}

/* An item, or its attribute; `def` in place of what is undefined. */
static struct val attribute(struct rt *r, struct val item, struct val path, struct val def)
{
	return given(path) ? get_path(r, item, path, given(def) ? def : absent()) : item;
}

/* ---- one of them, how many --------------------------------------------------------------------- */

static struct val filter_first(struct rt *r, struct val self, struct args *a)
{
	struct iter it;
	struct val v;

	iter_open(r, &it, self);
	return iter_next(r, &it, &v) ? v : v_hint(r, "No first item, sequence was empty.");
}

static struct val filter_last(struct rt *r, struct val self, struct args *a)
{
	struct list *l;

	if (self.type == V_ITER || length_of(r, self) < 0)
		fail(r, "'%s' object is not reversible", type_name(self));
	if (self.type == V_STR && self.s->len)
		return get_item(r, self, v_int(-1));
	if (self.type == V_LIST && self.l->n)
		return get_item(r, self, v_int(-1));
	l = list_of(r, self);
	return l->n ? l->v[l->n - 1] : v_hint(r, "No last item, sequence was empty.");
}

static struct val filter_length(struct rt *r, struct val self, struct args *a)
{
	int64_t n = self.type == V_LOOP ? loop_attr(r, self.loop, "length").i : length_of(r, self);

	if (n < 0)
		fail(r, "object of type '%s' has no len()", type_name(self));
	return v_int(n);
}

static struct val filter_list(struct rt *r, struct val self, struct args *a)
{
	return v_list(list_of(r, self));
}

static struct val filter_reverse(struct rt *r, struct val self, struct args *a)
{
	struct list *l;

	if (self.type == V_STR)
		return get_slice(r, self, v_none(), v_none(), v_int(-1));
	l = list_of(r, self);
	for (size_t i = 0; i < l->n / 2; i++) {
		struct val v = l->v[i];

		l->v[i] = l->v[l->n - 1 - i];
		l->v[l->n - 1 - i] = v;
	}
	return self.type == V_ITER ? v_list(l) : v_iter(r, l, "list_reverseiterator");
}

static struct val filter_random(struct rt *r, struct val self, struct args *a)
{
	fail(r, "the random filter is not supported: a render must be repeatable");
}

static struct val min_or_max(struct rt *r, struct val self, struct args *a, bool max)
{
	bool case_sensitive = arg_bool(a->pos[0], false);
	struct val best = absent(), best_key = absent(), v;
	struct iter it;

	iter_open(r, &it, self);
	while (iter_next(r, &it, &v)) {
		struct val key = folded(r, attribute(r, v, a->pos[1], absent()), case_sensitive);

		if (best.type == V_ABSENT ||
		    (max ? less(r, best_key, key, ">") : less(r, key, best_key, "<"))) {
			best = v;
			best_key = key;
		}
	}
	return best.type == V_ABSENT ? v_hint(r, "No aggregated item, sequence was empty.") : best;
}

static struct val filter_min(struct rt *r, struct val self, struct args *a)
{
	return min_or_max(r, self, a, false);
}

static struct val filter_max(struct rt *r, struct val self, struct args *a)
{
	return min_or_max(r, self, a, true);
}

static struct val filter_sum(struct rt *r, struct val self, struct args *a)
{
	struct val sum = a->pos[1].type == V_ABSENT ? v_int(0) : a->pos[1], v;
	struct iter it;

	if (sum.type == V_STR)
		fail(r, "sum() can't sum strings");
	iter_open(r, &it, self);
	while (iter_next(r, &it, &v))
		sum = binary(r, OP_ADD, sum, attribute(r, v, a->pos[0], absent()));
	return sum;
}

static struct val filter_join(struct rt *r, struct val self, struct args *a)
{
	struct str *sep = a->pos[0].type == V_ABSENT ? r->empty : to_str(r, a->pos[0]);
	bool first = true;
	struct iter it;
	struct sbuf b;
	struct val v;

	iter_open(r, &it, self);
	sb_init(r, &b, 0);
	for (; iter_next(r, &it, &v); first = false) {
		if (!first)
			sb_str(r, &b, sep);
		put_str(r, &b, attribute(r, v, a->pos[1], absent()));
	}
	return v_str(sb_take(r, &b));
}

/* ---- in another order, in groups --------------------------------------------------------------- */

/* sorted()'s key: the values of all attributes, "a,b.c" */
static struct val sort_key(struct rt *r, struct val item, struct val path, bool case_sensitive)
{
	struct list *l = list_new(r, 1);
	size_t at = 0;

	if (path.type != V_STR) {
		list_push(r, l, folded(r, attribute(r, item, path, absent()), case_sensitive));
		return v_list(l);
	}
	do {
		const char *comma = memchr(path.s->p + at, ',', path.s->len - at);
		size_t end = comma ? (size_t)(comma - path.s->p) : path.s->len;
		struct val one = v_str(str_sub(r, path.s, at, end));

		list_push(r, l, folded(r, get_path(r, item, one, absent()), case_sensitive));
		at = end + 1;
	} while (at <= path.s->len);
	return v_list(l);
}

static struct val filter_sort(struct rt *r, struct val self, struct args *a)
{
	bool reverse = arg_bool(a->pos[0], false), case_sensitive = arg_bool(a->pos[1], false);
	struct list *l = list_of(r, self);
	struct val *keys = ralloc_array(r, l->n + 1, sizeof(*keys));

	for (size_t i = 0; i < l->n; i++)
		keys[i] = sort_key(r, l->v[i], a->pos[2], case_sensitive);
	sort_by(r, l, keys, reverse);
	return v_list(l);
}

static struct val view_of(struct val dict, enum view which)
{
	struct val v = dict;

	v.type = V_VIEW;
	v.sub = (uint8_t)which;
	return v;
}

static struct val filter_dictsort(struct rt *r, struct val self, struct args *a)
{
	bool case_sensitive = arg_bool(a->pos[0], false), reverse = arg_bool(a->pos[2], false);
	int by = 0;
	struct list *l;
	struct val *keys;

	if (a->pos[1].type != V_ABSENT) {
		struct str *s = arg_str(r, a->pos[1], "dictsort");

		by = str_equal(s, &(struct str){"value", 5});
		if (!by && !str_equal(s, &(struct str){"key", 3}))
			fail(r, "you can only sort by either \"key\" or \"value\"");
	}
	if (self.type == V_UNDEF)
		fail_undefined(r, self);
	if (self.type != V_DICT)
		fail(r, "'%s' object has no attribute 'items'", type_name(self));
	l = list_of(r, view_of(self, VIEW_ITEMS));
	keys = ralloc_array(r, l->n + 1, sizeof(*keys));
	for (size_t i = 0; i < l->n; i++)
		keys[i] = folded(r, l->v[i].l->v[by], case_sensitive);
	sort_by(r, l, keys, reverse);
	return v_list(l);
}

static struct val filter_items(struct rt *r, struct val self, struct args *a)
{
	if (self.type == V_UNDEF)
		return v_iter(r, list_new(r, 0), "generator");
	if (self.type != V_DICT)
		fail(r, "can only get item pairs from a mapping");
	return v_iter(r, list_of(r, view_of(self, VIEW_ITEMS)), "generator");
}

static struct val filter_groupby(struct rt *r, struct val self, struct args *a)
{
	bool case_sensitive = arg_bool(a->pos[2], false);
	struct list *l = list_of(r, self), *out = list_new(r, 4), *group = NULL, *pair;
	struct val *keys = ralloc_array(r, l->n + 1, sizeof(*keys)), last = absent(), v;

	for (size_t i = 0; i < l->n; i++)
		keys[i] = folded(r, attribute(r, l->v[i], a->pos[0], a->pos[1]), case_sensitive);
	sort_by(r, l, keys, false);
	for (size_t i = 0; i < l->n; i++) {
		if (!group || !equal(r, last, keys[i])) {
			group = list_new(r, 4);
			pair = list_new(r, 2);
			/* the name as the first of them has it */
			list_push(r, pair, attribute(r, l->v[i], a->pos[0], a->pos[1]));
			list_push(r, pair, v_list(group));
			v = v_tuple(pair);
			v.sub = 1;
			list_push(r, out, v);
			last = keys[i];
		}
		list_push(r, group, l->v[i]);
	}
	return v_list(out);
}

static struct val filter_unique(struct rt *r, struct val self, struct args *a)
{
	bool case_sensitive = arg_bool(a->pos[0], false);
	struct list *out = list_new(r, 4);
	struct dict *seen = dict_new(r, 4);
	struct iter it;
	struct val v;

	iter_open(r, &it, self);
	while (iter_next(r, &it, &v)) {
		struct val key = folded(r, attribute(r, v, a->pos[1], absent()), case_sensitive);

		if (dict_get(r, seen, key).type != V_ABSENT)
			continue;
		dict_set(r, seen, key, v_none());
		list_push(r, out, v);
	}
	return v_iter(r, out, "generator");
}

static struct val filter_batch(struct rt *r, struct val self, struct args *a)
{
	int64_t size = arg_int(r, a->pos[0], 0, "batch");
	struct list *out = list_new(r, 4), *row = NULL;
	struct iter it;
	struct val v;

	iter_open(r, &it, self);
	row = list_new(r, 4);
	while (iter_next(r, &it, &v)) {
		if ((int64_t)row->n == size) {
			list_push(r, out, v_list(row));
			row = list_new(r, 4);
		}
		list_push(r, row, v);
	}
	if (row->n) {
		while (given(a->pos[1]) && (int64_t)row->n < size)
			list_push(r, row, a->pos[1]);
		list_push(r, out, v_list(row));
	}
	return v_iter(r, out, "generator");
}

static struct val filter_slice(struct rt *r, struct val self, struct args *a)
{
	int64_t slices = arg_int(r, a->pos[0], 0, "slice"), n, each, extra;
	struct list *l = list_of(r, self), *out = list_new(r, 4);
	size_t at = 0;

	if (!slices)
		fail(r, "integer division or modulo by zero");
	n = (int64_t)l->n;
	each = slices > 0 ? n / slices : 0;
	extra = slices > 0 ? n % slices : 0;
	for (int64_t i = 0; i < slices; i++) {
		struct list *row = list_new(r, 4);

		for (int64_t k = 0; k < each + (i < extra); k++)
			list_push(r, row, l->v[at++]);
		if (given(a->pos[1]) && i >= extra)
			list_push(r, row, a->pos[1]);
		list_push(r, out, v_list(row));
	}
	return v_iter(r, out, "generator");
}

/* ---- by filters and tests ---------------------------------------------------------------------- */

static int kw_index(const struct args *a, const char *name)
{
	for (int i = 0; i < a->nkw; i++)
		if (a->kwname[i]->len == strlen(name) &&
		    !memcmp(a->kwname[i]->p, name, a->kwname[i]->len))
			return i;
	return -1;
}

static struct val filter_map(struct rt *r, struct val self, struct args *a)
{
	int path = kw_index(a, "attribute"), def = kw_index(a, "default");
	struct list *out = list_new(r, 4);
	const struct func *f = NULL;
	struct args rest = *a;
	struct iter it;
	struct val v;

	if (!truth(self))
		return v_iter(r, out, "generator");
	if (!a->n && path >= 0) {
		if (a->nkw > 1 + (def >= 0))
			fail(r, "map: unexpected keyword argument");
	} else {
		if (!a->n)
			fail(r, "map requires a filter argument");
		if (a->pos[0].type == V_STR)
			f = find_filter(a->pos[0].s->p, a->pos[0].s->len);
		if (!f)
			fail(r, "map: no filter of that name");
		rest.pos++;
		rest.n--;
	}
	iter_open(r, &it, self);
	while (iter_next(r, &it, &v))
		list_push(r, out,
			  f ? call_func(r, f, "filter ", v, &rest)
			    : attribute(r, v, a->kw[path], def >= 0 ? a->kw[def] : absent()));
	return v_iter(r, out, "generator");
}

static struct val select_items(struct rt *r, struct val self, struct args *a, bool by_attribute,
			       bool keep)
{
	struct list *out = list_new(r, 4);
	const struct func *f = NULL;
	struct args rest = *a;
	struct iter it;
	struct val v;
	int off = by_attribute;

	if (!truth(self))
		return v_iter(r, out, "generator");
	if (by_attribute && !a->n)
		fail(r, "missing parameter for attribute name");
	if (a->n > off) {
		if (a->pos[off].type == V_STR)
			f = find_test(a->pos[off].s->p, a->pos[off].s->len);
		if (!f)
			fail(r, "select: no test of that name");
		rest.pos += off + 1;
		rest.n -= off + 1;
	}
	iter_open(r, &it, self);
	while (iter_next(r, &it, &v)) {
		struct val x = by_attribute ? attribute(r, v, a->pos[0], absent()) : v;

		if (truth(f ? call_func(r, f, "test ", x, &rest) : x) == keep)
			list_push(r, out, v);
	}
	return v_iter(r, out, "generator");
}

static struct val filter_select(struct rt *r, struct val self, struct args *a)
{
	return select_items(r, self, a, false, true);
}

static struct val filter_reject(struct rt *r, struct val self, struct args *a)
{
	return select_items(r, self, a, false, false);
}

static struct val filter_selectattr(struct rt *r, struct val self, struct args *a)
{
	return select_items(r, self, a, true, true);
}

static struct val filter_rejectattr(struct rt *r, struct val self, struct args *a)
{
	return select_items(r, self, a, true, false);
}

/* ---- single values ----------------------------------------------------------------------------- */

static struct val filter_default(struct rt *r, struct val self, struct args *a)
{
	if (self.type == V_UNDEF || (arg_bool(a->pos[1], false) && !truth(self)))
		return a->pos[0].type == V_ABSENT ? v_str(r->empty) : a->pos[0];
	return self;
}

static struct val filter_attr(struct rt *r, struct val self, struct args *a)
{
	struct str *name = arg_str(r, a->pos[0], "attr");
	const struct func *m = find_method(name->p, name->len);

	/* unlike ".", it does not look into dicts */
	if (self.type == V_DICT && !(m && method_of(m, V_DICT)))
		return v_undef(UNDEF_ATTR, V_DICT, name);
	return get_attr(r, self, name, m);
}

static struct val filter_tojson(struct rt *r, struct val self, struct args *a)
{
	return to_json(r, self, a->pos[0], a->pos[1], a->pos[2], a->pos[3]);
}

static struct val filter_abs(struct rt *r, struct val self, struct args *a)
{
	if (self.type == V_FLOAT)
		return v_float(fabs(self.f));
	if (!is_int(self))
		fail(r, "bad operand type for abs(): '%s'", type_name(self));
	return int_of(self) < 0 ? negate(r, self) : v_int(int_of(self));
}

/* int(s, base): true if it is one. */
static bool parse_int(struct rt *r, struct str *s, int64_t base, int64_t *out)
{
	size_t i = u_strip_left(s, 0, s->len), end = u_strip_right(s, i, s->len);
	bool minus = false, digit = false, under = false;
	int64_t x = 0;

	if (base && (base < 2 || base > 36))
		fail(r, "int() base must be >= 2 and <= 36, or 0");
	if (i < end && (s->p[i] == '-' || s->p[i] == '+'))
		minus = s->p[i++] == '-';
	if (i + 1 < end && s->p[i] == '0') {
		int c = s->p[i + 1] | 32, b = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 0;

		if (b && (!base || base == b)) {
			base = b;
			i += 2;
			i += i < end && s->p[i] == '_';
		}
	}
	base = base ? base : 10;
	for (; i < end; i++) {
		int c = (uint8_t)s->p[i], d;

		if (c == '_' && digit && !under) {
			under = true;
			continue;
		}
		d = c >= '0' && c <= '9'		 ? c - '0'
		    : (c | 32) >= 'a' && (c | 32) <= 'z' ? (c | 32) - 'a' + 10
							 : 99;
		if (d >= base)
			return false;
		under = false;
		digit = true;
		if (__builtin_mul_overflow(x, base, &x) ||
		    __builtin_add_overflow(x, minus ? -d : d, &x))
			fail(r, "integer does not fit 64 bits");
	}
	*out = x;
	return digit && !under;
}

/* float(s) */
static bool parse_float(struct rt *r, struct str *s, double *out)
{
	size_t from = u_strip_left(s, 0, s->len), to = u_strip_right(s, from, s->len), k = 0;
	char *text, *end;

	if (from == to)
		return false;
	text = ralloc(r, to - from + 1);
	for (size_t i = from; i < to; i++) {
		char c = s->p[i];

		if (c == '_' && i > from && i + 1 < to && s->p[i - 1] >= '0' &&
		    s->p[i - 1] <= '9' && s->p[i + 1] >= '0' && s->p[i + 1] <= '9')
			continue;
		if (c == 'x' || c == 'X' || c == 'p' || c == '(' || (uint8_t)c >= 128 || !c)
			return false;
		text[k++] = c;
	}
	text[k] = 0;
	if (u_space((uint8_t)text[0]))
		return false;
	*out = strtod_l(text, &end, r->t->locale);
	return !*end;
}

static struct val float_to_int(struct rt *r, double f)
{
	if (isinf(f))
		fail(r, "cannot convert float infinity to integer");
	f = trunc(f);
	if (f < -0x1p63 || f >= 0x1p63)
		fail(r, "integer does not fit 64 bits");
	return v_int((int64_t)f);
}

struct val int_filter(struct rt *r, struct val self, struct args *a)
{
	struct val def = a->pos[0].type == V_ABSENT ? v_int(0) : a->pos[0];
	int64_t i;
	double f;

	if (self.type == V_UNDEF)
		fail_undefined(r, self);
	if (is_int(self))
		return v_int(int_of(self));
	if (self.type == V_FLOAT)
		return isnan(self.f) ? def : float_to_int(r, self.f);
	if (self.type != V_STR)
		return def;
	if (parse_int(r, self.s, arg_int(r, a->pos[1], 10, "int"), &i))
		return v_int(i);
	if (!parse_float(r, self.s, &f) || isnan(f) || isinf(f))
		return def;
	return float_to_int(r, f);
}

static struct val filter_float(struct rt *r, struct val self, struct args *a)
{
	struct val def = a->pos[0].type == V_ABSENT ? v_float(0) : a->pos[0];
	double f;

	if (self.type == V_UNDEF)
		fail_undefined(r, self);
	if (is_number(self))
		return v_float(float_of(self));
	return self.type == V_STR && parse_float(r, self.s, &f) ? v_float(f) : def;
}

/* round(x, n): to the nearest, by its exact value; ties go to even. */
static struct val round_common(struct rt *r, struct val v, int64_t n)
{
	char buf[400];
	int64_t unit = 1, x, rest;
	double scale;

	if (v.type == V_FLOAT) {
		if (!isfinite(v.f) || n > 300)
			return v;
		if (n >= 0) {
			snprintf(buf, sizeof(buf), "%.*f", (int)n, v.f);
			return v_float(strtod(buf, NULL));
		}
		if (n < -308)
			return v_float(copysign(0, v.f));
		scale = pow(10, (double)-n);
		return v_float(nearbyint(v.f / scale) * scale);
	}
	x = int_of(v);
	if (n >= 0)
		return v_int(x);
	if (n < -18)
		return v_int(0);
	while (n++)
		unit *= 10;
	rest = x % unit;
	rest += rest < 0 ? unit : 0;
	x -= rest;
	if (rest > unit / 2 || (rest == unit / 2 && x / unit % 2))
		x += unit;
	return v_int(x);
}

static struct val filter_round(struct rt *r, struct val self, struct args *a)
{
	struct val n = a->pos[0].type == V_ABSENT ? v_int(0) : a->pos[0], scaled, power;
	struct str *method = a->pos[1].type == V_ABSENT ? str_static(r, "common")
							: arg_str(r, a->pos[1], "round");
	bool up = str_equal(method, &(struct str){"ceil", 4});
	double f;

	if (!up && !str_equal(method, &(struct str){"floor", 5})) {
		if (!str_equal(method, &(struct str){"common", 6}))
			fail(r, "method must be common, ceil or floor");
		if (!is_number(self))
			fail(r, "type %s doesn't define __round__ method", type_name(self));
		return round_common(r, self, arg_int(r, n, 0, "round"));
	}
	power = binary(r, OP_POW, v_int(10), n);
	scaled = binary(r, OP_MUL, self, power);
	if (!is_number(scaled))
		fail(r, "must be real number, not %s", type_name(scaled));
	if (scaled.type == V_FLOAT) {
		f = up ? ceil(scaled.f) : floor(scaled.f);
		if (!isfinite(f))
			fail(r, "cannot convert float to integer");
		scaled = float_to_int(r, f);
	}
	return binary(r, OP_DIV, scaled, power);
}

static struct val filter_filesizeformat(struct rt *r, struct val self, struct args *a)
{
	bool binary_units = arg_bool(a->pos[0], false);
	double base = binary_units ? 1024 : 1000, unit = base, bytes;
	struct args none = {.pos = (struct val[1]){{0}}, .n = 1};
	char buf[400];
	int i = -1;

	if (self.type == V_STR && !parse_float(r, self.s, &bytes))
		fail(r, "could not convert string to float");
	if (self.type != V_STR && !is_number(self))
		fail(r, "float() argument must be a string or a number");
	bytes = filter_float(r, self, &none).f;
	if (!isfinite(bytes))
		fail(r, "cannot convert float to integer");
	if (bytes == 1) {
		snprintf(buf, sizeof(buf), "1 Byte");
	} else if (bytes < base) {
		snprintf(buf, sizeof(buf), "%.0f Bytes", trunc(bytes));
	} else {
		do {
			unit *= base;
			i++;
		} while (bytes >= unit && i < 7);
		snprintf(buf, sizeof(buf), "%.1f %c%s", base * bytes / unit,
			 (binary_units ? "KMGTPEZY" : "kMGTPEZY")[i], binary_units ? "iB" : "B");
	}
	return v_str(str_copy(r, buf, strlen(buf), self.user));
}

static const struct func filters[] = {
	{"abs", filter_abs, 0, ""},
	{"attr", filter_attr, 1, "name"},
	{"batch", filter_batch, 1, "linecount,fill_with"},
	{"capitalize", filter_capitalize, 0, ""},
	{"center", filter_center, 0, "width"},
	{"count", filter_length, 0, ""},
	{"d", filter_default, 0, "default_value,boolean"},
	{"default", filter_default, 0, "default_value,boolean"},
	{"dictsort", filter_dictsort, 0, "case_sensitive,by,reverse"},
	{"e", filter_escape, 0, ""},
	{"escape", filter_escape, 0, ""},
	{"filesizeformat", filter_filesizeformat, 0, "binary"},
	{"first", filter_first, 0, ""},
	{"float", filter_float, 0, "default"},
	{"forceescape", filter_forceescape, 0, ""},
	{"format", filter_format, 0, NULL},
	{"groupby", filter_groupby, 1, "attribute,default,case_sensitive"},
	{"indent", filter_indent, 0, "width,first,blank"},
	{"int", int_filter, 0, "default,base"},
	{"items", filter_items, 0, ""},
	{"join", filter_join, 0, "d,attribute"},
	{"last", filter_last, 0, ""},
	{"length", filter_length, 0, ""},
	{"list", filter_list, 0, ""},
	{"lower", filter_lower, 0, ""},
	{"map", filter_map, 0, NULL},
	{"max", filter_max, 0, "case_sensitive,attribute"},
	{"min", filter_min, 0, "case_sensitive,attribute"},
	{"pprint", filter_pprint, 0, ""},
	{"random", filter_random, 0, ""},
	{"reject", filter_reject, 0, NULL},
	{"rejectattr", filter_rejectattr, 0, NULL},
	{"replace", filter_replace, 2, "old,new,count"},
	{"reverse", filter_reverse, 0, ""},
	{"round", filter_round, 0, "precision,method"},
	{"safe", filter_safe, 0, ""},
	{"select", filter_select, 0, NULL},
	{"selectattr", filter_selectattr, 0, NULL},
	{"slice", filter_slice, 1, "slices,fill_with"},
	{"sort", filter_sort, 0, "reverse,case_sensitive,attribute"},
	{"string", filter_string, 0, ""},
	{"striptags", filter_striptags, 0, ""},
	{"sum", filter_sum, 0, "attribute,start"},
	{"title", filter_title, 0, ""},
	{"tojson", filter_tojson, 0, "ensure_ascii,indent,separators,sort_keys"},
	{"trim", filter_trim, 0, "chars"},
	{"truncate", filter_truncate, 0, "length,killwords,end,leeway"},
	{"unique", filter_unique, 0, "case_sensitive,attribute"},
	{"upper", filter_upper, 0, ""},
	{"urlencode", filter_urlencode, 0, ""},
	{"wordcount", filter_wordcount, 0, ""},
	{"wordwrap", filter_wordwrap, 0, "width,break_long_words,wrapstring,break_on_hyphens"},
	{"xmlattr", filter_xmlattr, 0, "autospace"},
};

const struct func *find_filter(const char *name, size_t len)
{
	for (size_t i = 0; i < sizeof(filters) / sizeof(filters[0]); i++)
		if (strlen(filters[i].name) == len && !memcmp(filters[i].name, name, len))
			return &filters[i];
	return NULL;
}
