// SPDX-License-Identifier: MIT
/* Operators, comparison, attributes, subscripts, sorting: as Python has them. See tmpl_int.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/template/tmpl_int.h"
#include "text/utf8.h"

void fail_undefined(struct rt *r, struct val v)
{
	static const char *const of[] = {
		[V_NONE] = "None", [V_BOOL] = "bool", [V_INT] = "int",	   [V_FLOAT] = "float",
		[V_STR] = "str",   [V_LIST] = "list", [V_TUPLE] = "tuple", [V_DICT] = "dict",
	};
	const char *type =
		v.of < sizeof(of) / sizeof(of[0]) && of[v.of]
			? of[v.of]
			: type_name(v_make((enum vtype)v.of == V_VIEW || (enum vtype)v.of == V_ITER
						   ? V_FUNC
						   : (enum vtype)v.of));
	const char *object = v.of == V_NONE ? "" : " object";
	int n = v.s ? (int)(v.s->len < 200 ? v.s->len : 200) : 0;
	const char *name = v.s ? v.s->p : "";

	switch ((enum undef)v.sub) {
	case UNDEF_NAME:
		fail(r, "'%.*s' is undefined", n, name);
	case UNDEF_ATTR:
		fail(r, "'%s%s' has no attribute '%.*s'", type, object, n, name);
	case UNDEF_ITEM:
		fail(r, "%s%s has no element %.*s", type, object, n, name);
	case UNDEF_UNSAFE:
		fail(r,
		     "access to attribute '%.*s' of '%s' object is unsafe: templates cannot "
		     "change lists and dicts",
		     n, name, type);
	case UNDEF_PARAM:
		fail(r, "parameter '%.*s' was not provided", n, name);
	default:
		fail(r, "%.*s", n, name);
	}
}

static void need_defined(struct rt *r, struct val a, struct val b)
{
	if (a.type == V_UNDEF)
		fail_undefined(r, a);
	if (b.type == V_UNDEF)
		fail_undefined(r, b);
}

/* ---- comparison -------------------------------------------------------------------------------- */

bool same(struct val a, struct val b)
{
	if (a.type != b.type)
		return false;
	switch (a.type) {
	case V_NONE:
		return true;
	case V_BOOL:
		return a.b == b.b;
	case V_INT: /* CPython keeps one object for each small one only; nobody can mean that */
		return a.i == b.i;
	case V_FLOAT:
		return a.f == b.f;
	case V_STR:
		return str_equal(a.s, b.s);
	case V_UNDEF:
		return false;
	default:
		return a.p == b.p;
	}
}

static bool lists_equal(struct rt *r, struct list *a, struct list *b)
{
	bool is = a->n == b->n;

	list_load(r, a);
	list_load(r, b);
	enter(r);
	for (size_t i = 0; is && i < a->n; i++) {
		charge(r, 1);
		is = equal(r, a->v[i], b->v[i]);
	}
	leave(r);
	return is;
}

static bool dicts_equal(struct rt *r, struct dict *a, struct dict *b)
{
	bool is;

	dict_load(r, a);
	dict_load(r, b);
	is = a->n == b->n;
	enter(r);
	for (size_t i = 0; is && i < a->n; i++) {
		struct val v = dict_get(r, b, a->e[i].key);

		charge(r, 1);
		is = v.type != V_ABSENT && equal(r, a->e[i].value, v);
	}
	leave(r);
	return is;
}

static bool views_equal(struct rt *r, struct val a, struct val b)
{
	bool is;

	if (a.sub != b.sub || a.sub == VIEW_VALUES)
		return a.d == b.d && a.sub == b.sub && a.sub != VIEW_VALUES;
	if (a.sub == VIEW_ITEMS)
		return dicts_equal(r, a.d, b.d);
	dict_load(r, a.d);
	dict_load(r, b.d);
	is = a.d->n == b.d->n;
	for (size_t i = 0; is && i < a.d->n; i++)
		is = dict_get(r, b.d, a.d->e[i].key).type != V_ABSENT;
	return is;
}

/* Exact, unlike a conversion to double. */
static int compare_int_float(int64_t i, double f)
{
	int64_t whole;

	if (f >= 0x1p63)
		return -1;
	if (f < -0x1p63)
		return 1;
	whole = (int64_t)f;
	if (i != whole)
		return i < whole ? -1 : 1;
	return (f < (double)whole) - (f > (double)whole);
}

static bool numbers_equal(struct val a, struct val b)
{
	if (is_int(a) && is_int(b))
		return int_of(a) == int_of(b);
	if (a.type == V_FLOAT && b.type == V_FLOAT)
		return a.f == b.f;
	if (isnan(float_of(a)) || isnan(float_of(b)))
		return false;
	return a.type == V_FLOAT ? !compare_int_float(int_of(b), a.f)
				 : !compare_int_float(int_of(a), b.f);
}

bool equal(struct rt *r, struct val a, struct val b)
{
	if (a.type == V_STR && b.type == V_STR) {
		if (a.s->len == b.s->len)
			charge_bytes(r, a.s->len);
		return str_equal(a.s, b.s);
	}
	if (is_number(a) && is_number(b))
		return numbers_equal(a, b);
	if (a.type != b.type)
		return false;
	switch (a.type) {
	case V_UNDEF:
	case V_NONE:
		return true;
	case V_LIST:
	case V_TUPLE:
		return lists_equal(r, a.l, b.l);
	case V_DICT:
		return dicts_equal(r, a.d, b.d);
	case V_VIEW:
		return views_equal(r, a, b);
	case V_RANGE:
		return a.range->n == b.range->n &&
		       (!a.range->n || (a.range->start == b.range->start &&
					(a.range->n == 1 || a.range->step == b.range->step)));
	default:
		return a.p == b.p;
	}
}

/* a < b; `op` is for the message. */
bool less(struct rt *r, struct val a, struct val b, const char *op)
{
	bool is = false, decided = false;

	need_defined(r, a, b);
	if (a.type == V_STR && b.type == V_STR) {
		charge_bytes(r, a.s->len < b.s->len ? a.s->len : b.s->len);
		return str_compare(a.s, b.s) < 0;
	}
	if (is_number(a) && is_number(b)) {
		if (is_int(a) && is_int(b))
			return int_of(a) < int_of(b);
		if (a.type == V_FLOAT && b.type == V_FLOAT)
			return a.f < b.f;
		if (isnan(float_of(a)) || isnan(float_of(b)))
			return false;
		return a.type == V_FLOAT ? compare_int_float(int_of(b), a.f) > 0
					 : compare_int_float(int_of(a), b.f) < 0;
	}
	if (a.type != b.type || (a.type != V_LIST && a.type != V_TUPLE))
		fail(r, "'%s' not supported between instances of '%s' and '%s'", op, type_name(a),
		     type_name(b));
	list_load(r, a.l);
	list_load(r, b.l);
	enter(r);
	for (size_t i = 0; i < a.l->n && i < b.l->n && !decided; i++) {
		charge(r, 1);
		if (equal(r, a.l->v[i], b.l->v[i]))
			continue;
		is = less(r, a.l->v[i], b.l->v[i], op);
		decided = true;
	}
	leave(r);
	return decided ? is : a.l->n < b.l->n;
}

bool contains(struct rt *r, struct val a, struct val in)
{
	struct iter it;
	struct val x;

	switch (in.type) {
	case V_STR:
		if (a.type != V_STR)
			fail(r, "'in <string>' requires string as left operand, not %s",
			     type_name(a));
		charge_bytes(r, in.s->len);
		return !a.s->len || bytes_find(in.s->p, in.s->len, a.s);
	case V_DICT:
		return dict_get(r, in.d, a).type != V_ABSENT;
	case V_VIEW:
		if (in.sub == VIEW_KEYS)
			return dict_get(r, in.d, a).type != V_ABSENT;
		break;
	case V_RANGE:
		if (is_int(a)) {
			int64_t d = int_of(a) - in.range->start;

			return d % in.range->step == 0 && d / in.range->step >= 0 &&
			       d / in.range->step < in.range->n;
		}
		break;
	default:
		break;
	}
	if (!iter_init(r, &it, in))
		fail(r, "argument of type '%s' is not iterable", type_name(in));
	while (iter_next(r, &it, &x))
		if (same(a, x) || equal(r, a, x))
			return true;
	return false;
}

bool compare(struct rt *r, enum cmp op, struct val a, struct val b)
{
	switch (op) {
	case CMP_EQ:
		return equal(r, a, b);
	case CMP_NE:
		return !equal(r, a, b);
	case CMP_LT:
		return less(r, a, b, "<");
	case CMP_GT:
		return less(r, b, a, ">");
	/* nothing but NaN is neither less nor greater nor equal */
	case CMP_LE:
		return less(r, a, b, "<=") || equal(r, a, b);
	case CMP_GE:
		return less(r, b, a, ">=") || equal(r, a, b);
	case CMP_IN:
		return contains(r, a, b);
	default:
		return !contains(r, a, b);
	}
}

/* ---- arithmetic -------------------------------------------------------------------------------- */

static _Noreturn void too_large(struct rt *r)
{
	fail(r, "integer result does not fit 64 bits");
}

static struct val int_power(struct rt *r, int64_t base, int64_t exp)
{
	int64_t result = 1;

	if (exp < 0) {
		if (!base)
			fail(r, "0.0 cannot be raised to a negative power");
		return v_float(pow((double)base, (double)exp));
	}
	if (base == 0 || base == 1)
		return v_int(exp ? base : 1);
	if (base == -1)
		return v_int(exp % 2 ? -1 : 1);
	if (exp > 64)
		too_large(r);
	while (exp--)
		if (__builtin_mul_overflow(result, base, &result))
			too_large(r);
	return v_int(result);
}

static struct val int_binary(struct rt *r, enum op op, int64_t a, int64_t b)
{
	int64_t x;

	switch (op) {
	case OP_ADD:
		if (__builtin_add_overflow(a, b, &x))
			too_large(r);
		return v_int(x);
	case OP_SUB:
		if (__builtin_sub_overflow(a, b, &x))
			too_large(r);
		return v_int(x);
	case OP_MUL:
		if (__builtin_mul_overflow(a, b, &x))
			too_large(r);
		return v_int(x);
	case OP_POW:
		return int_power(r, a, b);
	default:
		break;
	}
	if (!b)
		fail(r, op == OP_DIV ? "division by zero" : "integer division or modulo by zero");
	if (op == OP_DIV)
		return v_float((double)a / (double)b);
	if (a == INT64_MIN && b == -1) {
		if (op == OP_MOD)
			return v_int(0);
		too_large(r);
	}
	x = a % b;
	if (op == OP_MOD)
		return v_int(x && (x < 0) != (b < 0) ? x + b : x);
	return v_int(a / b - (x && (x < 0) != (b < 0)));
}

static struct val float_binary(struct rt *r, enum op op, double a, double b)
{
	double m;

	switch (op) {
	case OP_ADD:
		return v_float(a + b);
	case OP_SUB:
		return v_float(a - b);
	case OP_MUL:
		return v_float(a * b);
	case OP_POW:
		if (!a && b < 0)
			fail(r, "0.0 cannot be raised to a negative power");
		if (a < 0 && isfinite(a) && isfinite(b) && b != floor(b))
			fail(r, "a negative number raised to a fraction: complex numbers are not "
				"supported");
		m = pow(a, b);
		if (isinf(m) && isfinite(a) && isfinite(b))
			fail(r, "numerical result out of range");
		return v_float(m);
	default:
		break;
	}
	if (!b)
		fail(r, op == OP_DIV   ? "float division by zero"
			: op == OP_MOD ? "float modulo"
				       : "float floor division by zero");
	if (op == OP_DIV)
		return v_float(a / b);
	m = fmod(a, b);
	if (m && (b < 0) != (m < 0))
		m += b;
	else if (!m)
		m = copysign(0, b);
	if (op == OP_MOD)
		return v_float(m);
	a = (a - m) / b;
	if (a) {
		m = floor(a);
		return v_float(a - m > 0.5 ? m + 1 : m);
	}
	return v_float(copysign(0, a));
}

static struct val repeat(struct rt *r, struct val v, int64_t times)
{
	size_t n = v.type == V_STR ? v.s->len : v.l->n;
	struct list *l;
	struct sbuf b;

	if (times < 0)
		times = 0;
	if (n && (uint64_t)times > (UINT64_MAX >> 8) / n)
		fail_limit(r, "memory");
	/* refuse before, not when the memory is gone */
	if (n * (uint64_t)times > r->arena.limit)
		fail_limit(r, "memory");
	if (v.type == V_STR) {
		if (times == 1)
			return v;
		sb_init(r, &b, n * (size_t)times);
		for (int64_t i = 0; n && i < times; i++)
			sb_str(r, &b, v.s);
		return v_str(str_markup(r, sb_take(r, &b), v.s->markup));
	}
	list_load(r, v.l);
	l = list_new(r, n * (size_t)times);
	for (int64_t i = 0; n && i < times; i++)
		for (size_t k = 0; k < n; k++)
			list_push(r, l, v.l->v[k]);
	return v.type == V_LIST ? v_list(l) : v_tuple(l);
}

static bool is_sequence(struct val v)
{
	return v.type == V_STR || v.type == V_LIST || v.type == V_TUPLE;
}

static struct val add_sequences(struct rt *r, struct val a, struct val b)
{
	struct list *l;

	if (a.type == V_STR) {
		if (a.s->markup || b.s->markup) {
			/* what is not marked as safe is escaped */
			if (!a.s->markup)
				a = escape_html(r, a);
			if (!b.s->markup)
				b = escape_html(r, b);
			return v_str(str_markup(r, str_concat(r, a.s, b.s), true));
		}
		return v_str(str_concat(r, a.s, b.s));
	}
	list_load(r, a.l);
	list_load(r, b.l);
	l = list_new(r, a.l->n + b.l->n);
	charge(r, a.l->n + b.l->n);
	memcpy(l->v, a.l->v, a.l->n * sizeof(*l->v));
	memcpy(l->v + a.l->n, b.l->v, b.l->n * sizeof(*l->v));
	l->n = a.l->n + b.l->n;
	return a.type == V_LIST ? v_list(l) : v_tuple(l);
}

struct val binary(struct rt *r, enum op op, struct val a, struct val b)
{
	static const char *const sign[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};

	if (op == OP_MOD && a.type == V_STR)
		return format_percent(r, a.s, b);
	need_defined(r, a, b);
	if (is_number(a) && is_number(b)) {
		if (is_int(a) && is_int(b))
			return int_binary(r, op, int_of(a), int_of(b));
		return float_binary(r, op, float_of(a), float_of(b));
	}
	if (op == OP_ADD && is_sequence(a) && a.type == b.type)
		return add_sequences(r, a, b);
	if (op == OP_MUL && is_sequence(a) && is_int(b))
		return repeat(r, a, int_of(b));
	if (op == OP_MUL && is_sequence(b) && is_int(a))
		return repeat(r, b, int_of(a));
	if (op == OP_ADD && a.type == V_STR)
		fail(r, "can only concatenate str (not \"%s\") to str", type_name(b));
	fail(r, "unsupported operand type(s) for %s: '%s' and '%s'", sign[op], type_name(a),
	     type_name(b));
}

struct val negate(struct rt *r, struct val v)
{
	if (v.type == V_UNDEF)
		fail_undefined(r, v);
	if (v.type == V_FLOAT)
		return v_float(-v.f);
	if (!is_int(v))
		fail(r, "bad operand type for unary -: '%s'", type_name(v));
	if (int_of(v) == INT64_MIN)
		too_large(r);
	return v_int(-int_of(v));
}

/* ---- subscripts -------------------------------------------------------------------------------- */

static struct val method_value(struct rt *r, struct val self, const struct func *m)
{
	struct val v = v_make(V_METHOD);

	v.bound = ralloc(r, sizeof(*v.bound));
	*v.bound = (struct bound){self, m};
	return v;
}

static struct val macro_attr(struct rt *r, const struct macro *m, const struct str *name)
{
	static const char *const flag[] = {"catch_kwargs", "catch_varargs", "caller"};
	const bool is[] = {m->def->kwargs, m->def->varargs, m->def->caller};
	struct list *l;

	for (int i = 0; i < 3; i++)
		if (name->len == strlen(flag[i]) && !memcmp(name->p, flag[i], name->len))
			return v_bool(is[i]);
	if (str_equal(name, &(struct str){"name", 4}))
		return m->def->name ? v_str(m->def->name) : v_none();
	if (!str_equal(name, &(struct str){"arguments", 9}))
		return v_make(V_ABSENT);
	l = list_new(r, (size_t)m->def->n);
	for (int i = 0; i < m->def->n; i++)
		list_push(r, l, v_str(r->t->sym[m->def->param[i]]));
	return v_tuple(l);
}

/* What Python's getattr() finds; V_ABSENT if nothing. */
static struct val python_attr(struct rt *r, struct val of, struct str *name, const struct func *m)
{
	char text[24] = "";

	m = m ? method_of(m, of.type) : NULL;
	if (m && method_mutates(m))
		return v_undef(UNDEF_UNSAFE, of.type, name);
	if (m)
		return method_value(r, of, m);
	if (name->len < sizeof(text))
		memcpy(text, name->p, name->len);
	switch (of.type) {
	case V_NS:
		if (text[0] == '_')
			return v_make(V_ABSENT);
		return dict_get_str(r, of.d, name);
	case V_LOOP:
		return loop_attr(r, of.loop, text);
	case V_MACRO:
		return macro_attr(r, of.macro, name);
	case V_CYCLER:
		if (!strcmp(text, "current"))
			return of.cycler->items->v[of.cycler->at];
		break;
	case V_TUPLE:
		if (of.sub && !strcmp(text, "grouper"))
			return of.l->v[0];
		if (of.sub && !strcmp(text, "list"))
			return of.l->v[1];
		break;
	case V_RANGE:
		if (!strcmp(text, "start"))
			return v_int(of.range->start);
		if (!strcmp(text, "stop"))
			return v_int(of.range->stop);
		if (!strcmp(text, "step"))
			return v_int(of.range->step);
		break;
	case V_BOOL:
	case V_INT:
		if (!strcmp(text, "real") || !strcmp(text, "numerator"))
			return v_int(int_of(of));
		if (!strcmp(text, "imag"))
			return v_int(0);
		if (!strcmp(text, "denominator"))
			return v_int(1);
		break;
	case V_FLOAT:
		if (!strcmp(text, "real"))
			return of;
		if (!strcmp(text, "imag"))
			return v_float(0);
		break;
	default:
		break;
	}
	return v_make(V_ABSENT);
}

/* What obj[key] finds; V_ABSENT where Python raises TypeError or LookupError. */
static struct val python_item(struct rt *r, struct val of, struct val key)
{
	int64_t i, n;
	size_t at;

	switch (of.type) {
	case V_DICT:
		if (key.type == V_LIST || key.type == V_DICT)
			return v_make(V_ABSENT);
		return dict_get(r, of.d, key);
	case V_LIST:
	case V_TUPLE:
	case V_STR:
	case V_RANGE:
		if (!is_int(key))
			return v_make(V_ABSENT);
		i = int_of(key);
		n = length_of(r, of);
		i += i < 0 ? n : 0;
		if (i < 0 || i >= n)
			return v_make(V_ABSENT);
		if (of.type == V_RANGE)
			return range_at(of.range, i);
		if (of.type != V_STR) {
			list_load(r, of.l);
			return of.l->v[i];
		}
		at = str_offset(of.s, (size_t)i);
		if (!str_is_ascii(of.s))
			charge_bytes(r, at);
		return v_str(str_char(r, of.s, at, utf8_skip(of.s->p + at)));
	default:
		return v_make(V_ABSENT);
	}
}

struct val get_attr(struct rt *r, struct val of, struct str *name, const struct func *method)
{
	struct val v;

	if (of.type == V_UNDEF)
		fail_undefined(r, of);
	v = python_attr(r, of, name, method);
	if (v.type == V_ABSENT && of.type == V_DICT)
		v = dict_get_str(r, of.d, name);
	return v.type == V_ABSENT ? v_undef(UNDEF_ATTR, of.type, name) : v;
}

struct val get_item(struct rt *r, struct val of, struct val key)
{
	struct val v;

	if (of.type == V_UNDEF)
		fail_undefined(r, of);
	v = python_item(r, of, key);
	if (v.type == V_ABSENT && key.type == V_STR) {
		v = python_attr(r, of, key.s, find_method(key.s->p, key.s->len));
		return v.type == V_ABSENT ? v_undef(UNDEF_ATTR, of.type, key.s) : v;
	}
	if (v.type == V_ABSENT) {
		struct sbuf b;

		sb_init(r, &b, 0);
		put_repr(r, &b, key);
		return v_undef(UNDEF_ITEM, of.type, sb_take(r, &b));
	}
	return v;
}

struct val get_path(struct rt *r, struct val of, struct val path, struct val def)
{
	size_t at = 0;

	if (path.type != V_STR) {
		of = get_item(r, of, path);
		return of.type == V_UNDEF && def.type != V_ABSENT ? def : of;
	}
	do {
		const char *dot = memchr(path.s->p + at, '.', path.s->len - at);
		size_t end = dot ? (size_t)(dot - path.s->p) : path.s->len, i = at;
		struct val key = v_str(str_sub(r, path.s, at, end));

		while (i < end && path.s->p[i] >= '0' && path.s->p[i] <= '9')
			i++;
		if (i == end && end > at && end - at < 18) {
			int64_t k = 0;

			for (i = at; i < end; i++)
				k = k * 10 + path.s->p[i] - '0';
			key = v_int(k);
		}
		of = get_item(r, of, key);
		if (of.type == V_UNDEF && def.type != V_ABSENT)
			of = def;
		at = end + 1;
	} while (at <= path.s->len);
	return of;
}

/* ---- slices ------------------------------------------------------------------------------------ */

static int64_t slice_bound(struct rt *r, struct val v, int64_t n, int64_t step, int64_t def)
{
	int64_t i;

	if (v.type == V_NONE)
		return def;
	if (!is_int(v)) {
		if (v.type == V_UNDEF)
			fail_undefined(r, v);
		fail(r, "slice indices must be integers or None, not %s", type_name(v));
	}
	i = int_of(v);
	if (i < 0)
		i = i < -n ? -1 : i + n;
	if (i < 0)
		return step < 0 ? -1 : 0;
	if (i >= n)
		return step < 0 ? n - 1 : n;
	return i;
}

static struct val slice_str(struct rt *r, struct str *s, int64_t from, int64_t step, int64_t n)
{
	bool ascii = str_is_ascii(s);
	uint32_t *at = NULL;
	struct sbuf b;
	size_t k = 0, chars;

	if (step == 1 || n <= 0) {
		size_t a = str_offset(s, (size_t)(n > 0 ? from : 0)), z = a;

		if (!ascii)
			charge_bytes(r, s->len);
		if (ascii)
			z = a + (size_t)(n > 0 ? n : 0);
		else
			for (int64_t i = 0; i < n; i++)
				z += (size_t)utf8_skip(s->p + z);
		return v_str(str_sub(r, s, a, z));
	}
	charge(r, s->len);
	if (!ascii) {
		if (s->len > UINT32_MAX)
			fail_limit(r, "memory");
		chars = str_chars(r, s);
		at = ralloc_array(r, chars + 1, sizeof(*at));
		for (size_t i = 0; i < s->len; i += (size_t)utf8_skip(s->p + i))
			at[k++] = (uint32_t)i;
		at[k] = (uint32_t)s->len;
	}
	sb_init(r, &b, (size_t)n);
	for (int64_t i = from; n--; i += step)
		sb_range(r, &b, s, at ? at[i] : (size_t)i, at ? at[i + 1] : (size_t)i + 1);
	return v_str(str_markup(r, sb_take(r, &b), s->markup));
}

struct val get_slice(struct rt *r, struct val of, struct val from, struct val to, struct val step)
{
	int64_t n, st = 1, a, z, count;
	struct list *l;

	if (of.type == V_UNDEF)
		fail_undefined(r, of);
	if (!is_sequence(of) && of.type != V_RANGE)
		fail(r, "'%s' object cannot be sliced", type_name(of));
	if (step.type != V_NONE) {
		if (!is_int(step))
			fail(r, "slice indices must be integers or None, not %s", type_name(step));
		st = int_of(step);
		if (!st)
			fail(r, "slice step cannot be zero");
		if (st == INT64_MIN)
			st = -INT64_MAX;
	}
	n = length_of(r, of);
	a = slice_bound(r, from, n, st, st < 0 ? n - 1 : 0);
	z = slice_bound(r, to, n, st, st < 0 ? -1 : n);
	count = st > 0 ? (z > a ? (z - a - 1) / st + 1 : 0) : (a > z ? (a - z - 1) / -st + 1 : 0);
	if (of.type == V_STR)
		return slice_str(r, of.s, a, st, count);
	if (of.type == V_RANGE) {
		struct val v = v_make(V_RANGE);

		v.range = ralloc(r, sizeof(*v.range));
		if (count <= 1)
			st = 1;
		*v.range = (struct range){
			.start = of.range->start + a * of.range->step,
			.stop = of.range->start + z * of.range->step,
			.step = st * of.range->step,
			.n = count,
		};
		return v;
	}
	list_load(r, of.l);
	l = list_new(r, (size_t)count);
	for (int64_t i = a; count--; i += st)
		list_push(r, l, of.l->v[i]);
	return of.type == V_LIST ? v_list(l) : v_tuple(l);
}

/* ---- sorting ----------------------------------------------------------------------------------- */

/* Merge sort of [0, n) by key; in `reverse` order equal ones keep their order too. */
static void merge_sort(struct rt *r, const struct val *key, size_t *at, size_t *tmp, size_t n,
		       bool reverse)
{
	size_t half = n / 2, i = 0, j = half, k = 0;

	if (n < 2)
		return;
	merge_sort(r, key, at, tmp, half, reverse);
	merge_sort(r, key, at + half, tmp, n - half, reverse);
	memcpy(tmp, at, n * sizeof(*at));
	while (i < half && j < n) {
		bool right = reverse ? less(r, key[tmp[i]], key[tmp[j]], "<")
				     : less(r, key[tmp[j]], key[tmp[i]], "<");

		charge(r, 1);
		at[k++] = right ? tmp[j++] : tmp[i++];
	}
	memcpy(at + k, tmp + i, (half - i) * sizeof(*at));
	k += half - i;
	memcpy(at + k, tmp + j, (n - j) * sizeof(*at));
}

void sort_by(struct rt *r, struct list *items, struct val *keys, bool reverse)
{
	size_t n = items->n, *at, *tmp;
	struct val *sorted;

	if (n < 2)
		return;
	at = ralloc_array(r, n, sizeof(*at));
	tmp = ralloc_array(r, n, sizeof(*tmp));
	sorted = ralloc_array(r, n, sizeof(*sorted));
	for (size_t i = 0; i < n; i++)
		at[i] = i;
	merge_sort(r, keys, at, tmp, n, reverse);
	for (size_t i = 0; i < n; i++)
		sorted[i] = items->v[at[i]];
	memcpy(items->v, sorted, n * sizeof(*sorted));
	for (size_t i = 0; i < n; i++)
		sorted[i] = keys[at[i]];
	memcpy(keys, sorted, n * sizeof(*sorted));
}
