// SPDX-License-Identifier: MIT
/* The tests of jinja2 ("x is odd"), and the global functions. See tmpl_int.h. */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "text/template/tmpl_int.h"

/* ---- arguments --------------------------------------------------------------------------------- */

int64_t arg_int(struct rt *r, struct val v, int64_t def, const char *what)
{
	if (v.type == V_ABSENT)
		return def;
	if (v.type == V_UNDEF)
		fail_undefined(r, v);
	if (!is_int(v))
		fail(r, "%s: '%s' object cannot be interpreted as an integer", what, type_name(v));
	return int_of(v);
}

bool arg_bool(struct val v, bool def)
{
	return v.type == V_ABSENT ? def : truth(v);
}

struct str *arg_str(struct rt *r, struct val v, const char *what)
{
	if (v.type != V_STR)
		fail(r, "%s: a string is needed, not %s", what, type_name(v));
	return v.s;
}

/* ---- tests ------------------------------------------------------------------------------------- */

#define TEST(name, expr)                                                                           \
	static struct val test_##name(struct rt *r, struct val self, struct args *a)               \
	{                                                                                          \
		return v_bool(expr);                                                               \
	}

static int64_t modulo(struct rt *r, struct val self, struct val by)
{
	struct val m = binary(r, OP_MOD, self, by);

	if (m.type == V_FLOAT)
		return m.f == 0 ? 0 : m.f == 1 ? 1 : 2;
	return is_int(m) ? int_of(m) : 2;
}

/* Does it have letters, all of them of one case? */
static bool all_cased(struct rt *r, struct val self, bool upper)
{
	struct str *s = to_str(r, self);
	bool some = false;
	int n;

	charge_bytes(r, s->len);
	for (size_t i = 0; i < s->len; i += (size_t)n) {
		uint32_t c = u_get(s, i, &n);

		if (upper ? u_is_lower(r, c) : u_is_upper(r, c))
			return false;
		some |= upper ? u_is_upper(r, c) : u_is_lower(r, c);
	}
	return some;
}

static bool is_iterable(struct rt *r, struct val v)
{
	struct iter it;

	return v.type == V_LOOP || iter_init(r, &it, v);
}

TEST(odd, modulo(r, self, v_int(2)) == 1)
TEST(even, modulo(r, self, v_int(2)) == 0)
TEST(divisibleby, modulo(r, self, a->pos[0]) == 0)
TEST(defined, self.type != V_UNDEF)
TEST(undefined, self.type == V_UNDEF)
TEST(filter, self.type == V_STR && find_filter(self.s->p, self.s->len))
TEST(test, self.type == V_STR && find_test(self.s->p, self.s->len))
TEST(none, self.type == V_NONE)
TEST(boolean, self.type == V_BOOL)
TEST(false, self.type == V_BOOL && !self.b)
TEST(true, self.type == V_BOOL && self.b)
TEST(integer, self.type == V_INT)
TEST(float, self.type == V_FLOAT)
TEST(lower, all_cased(r, self, false))
TEST(upper, all_cased(r, self, true))
TEST(string, self.type == V_STR)
TEST(mapping, self.type == V_DICT)
TEST(number, is_number(self))
TEST(sequence, self.type == V_STR || self.type == V_LIST || self.type == V_TUPLE ||
		       self.type == V_DICT || self.type == V_RANGE || self.type == V_UNDEF)
TEST(sameas, same(self, a->pos[0]))
TEST(iterable, is_iterable(r, self))
TEST(callable, self.type == V_FUNC || self.type == V_METHOD || self.type == V_MACRO ||
		       self.type == V_LOOP || self.type == V_JOINER || self.type == V_UNDEF)
TEST(escaped, self.type == V_STR && self.s->markup)
TEST(in, contains(r, self, a->pos[0]))
TEST(eq, compare(r, CMP_EQ, self, a->pos[0]))
TEST(ne, compare(r, CMP_NE, self, a->pos[0]))
TEST(gt, compare(r, CMP_GT, self, a->pos[0]))
TEST(ge, compare(r, CMP_GE, self, a->pos[0]))
TEST(lt, compare(r, CMP_LT, self, a->pos[0]))
TEST(le, compare(r, CMP_LE, self, a->pos[0]))

static const struct func tests[] = {
	{"!=", test_ne, 1, "/value"},
	{"<", test_lt, 1, "/value"},
	{"<=", test_le, 1, "/value"},
	{"==", test_eq, 1, "/value"},
	{">", test_gt, 1, "/value"},
	{">=", test_ge, 1, "/value"},
	{"boolean", test_boolean, 0, ""},
	{"callable", test_callable, 0, ""},
	{"defined", test_defined, 0, ""},
	{"divisibleby", test_divisibleby, 1, "num"},
	{"eq", test_eq, 1, "/value"},
	{"equalto", test_eq, 1, "/value"},
	{"escaped", test_escaped, 0, ""},
	{"even", test_even, 0, ""},
	{"false", test_false, 0, ""},
	{"filter", test_filter, 0, ""},
	{"float", test_float, 0, ""},
	{"ge", test_ge, 1, "/value"},
	{"greaterthan", test_gt, 1, "/value"},
	{"gt", test_gt, 1, "/value"},
	{"in", test_in, 1, "seq"},
	{"integer", test_integer, 0, ""},
	{"iterable", test_iterable, 0, ""},
	{"le", test_le, 1, "/value"},
	{"lessthan", test_lt, 1, "/value"},
	{"lower", test_lower, 0, ""},
	{"lt", test_lt, 1, "/value"},
	{"mapping", test_mapping, 0, ""},
	{"ne", test_ne, 1, "/value"},
	{"none", test_none, 0, ""},
	{"number", test_number, 0, ""},
	{"odd", test_odd, 0, ""},
	{"sameas", test_sameas, 1, "other"},
	{"sequence", test_sequence, 0, ""},
	{"string", test_string, 0, ""},
	{"test", test_test, 0, ""},
	{"true", test_true, 0, ""},
	{"undefined", test_undefined, 0, ""},
	{"upper", test_upper, 0, ""},
};

static const struct func *find(const struct func *f, size_t n, const char *name, size_t len)
{
	for (; n--; f++)
		if (strlen(f->name) == len && !memcmp(f->name, name, len))
			return f;
	return NULL;
}

const struct func *find_test(const char *name, size_t len)
{
	return find(tests, sizeof(tests) / sizeof(tests[0]), name, len);
}

/* ---- global functions -------------------------------------------------------------------------- */

#define MAX_RANGE 100000 /* jinja2's sandbox has the same */

static struct val global_range(struct rt *r, struct val self, struct args *a)
{
	struct val v = v_make(V_RANGE);
	struct range g = {.step = arg_int(r, a->pos[2], 1, "range()")};

	if (a->pos[1].type == V_ABSENT) {
		g.stop = arg_int(r, a->pos[0], 0, "range()");
	} else {
		g.start = arg_int(r, a->pos[0], 0, "range()");
		g.stop = arg_int(r, a->pos[1], 0, "range()");
	}
	if (!g.step)
		fail(r, "range() arg 3 must not be zero");
	if (g.step > 0 ? g.stop > g.start : g.stop < g.start) {
		__int128 span = (__int128)g.stop - g.start, n;

		n = (span + g.step + (g.step > 0 ? -1 : 1)) / g.step;
		if (n > MAX_RANGE)
			fail_limit(r, "items of a range");
		g.n = (int64_t)n;
	}
	v.range = ralloc(r, sizeof(g));
	*v.range = g;
	return v;
}

/* dict(mapping or pairs, **kwargs) */
static struct dict *make_dict(struct rt *r, struct args *a, const char *what)
{
	struct dict *d = dict_new(r, 8);
	struct iter it;
	struct val x;

	if (a->n > 1)
		fail(r, "%s expected at most 1 argument, got %d", what, a->n);
	if (a->n && a->pos[0].type == V_DICT) {
		dict_load(r, a->pos[0].d);
		for (size_t i = 0; i < a->pos[0].d->n; i++)
			dict_set(r, d, a->pos[0].d->e[i].key, a->pos[0].d->e[i].value);
	} else if (a->n) {
		iter_open(r, &it, a->pos[0]);
		while (iter_next(r, &it, &x)) {
			struct list *pair = list_of(r, x);

			if (pair->n != 2)
				fail(r, "%s: an element has length %zu; 2 is required", what,
				     pair->n);
			dict_set(r, d, pair->v[0], pair->v[1]);
		}
	}
	for (int i = 0; i < a->nkw; i++)
		dict_set(r, d, v_str(a->kwname[i]), a->kw[i]);
	return d;
}

static struct val global_dict(struct rt *r, struct val self, struct args *a)
{
	return v_dict(make_dict(r, a, "dict"));
}

static struct val global_namespace(struct rt *r, struct val self, struct args *a)
{
	struct val v = v_make(V_NS);

	v.d = make_dict(r, a, "namespace");
	for (size_t i = 0; i < v.d->n; i++)
		if (v.d->e[i].key.type == V_STR && v.d->e[i].key.s->p[0] == '_')
			fail(r, "underscore-prefixed attributes cannot be stored on a namespace");
	return v;
}

static struct val global_cycler(struct rt *r, struct val self, struct args *a)
{
	struct val v = v_make(V_CYCLER);

	if (!a->n || a->nkw)
		fail(r, "at least one item has to be provided");
	v.cycler = ralloc(r, sizeof(*v.cycler));
	*v.cycler = (struct cycler){.items = list_new(r, (size_t)a->n)};
	for (int i = 0; i < a->n; i++)
		list_push(r, v.cycler->items, a->pos[i]);
	return v;
}

static struct val global_joiner(struct rt *r, struct val self, struct args *a)
{
	struct val v = v_make(V_JOINER);

	v.joiner = ralloc(r, sizeof(*v.joiner));
	*v.joiner = (struct joiner){.sep = a->pos[0].type == V_ABSENT ? v_str(str_static(r, ", "))
								      : a->pos[0]};
	return v;
}

static struct val global_lipsum(struct rt *r, struct val self, struct args *a)
{
	fail(r, "lipsum() is not supported");
}

static struct val global_raise(struct rt *r, struct val self, struct args *a)
{
	struct str *s = to_str(r, a->pos[0]);

	r->raised = true;
	r->rc = err_set(r->e, -EINVAL, "%.*s", (int)(s->len < 511 ? s->len : 511), s->p);
	longjmp(r->jmp, 1);
}

static struct val global_strftime(struct rt *r, struct val self, struct args *a)
{
	struct str *f = arg_str(r, a->pos[0], "strftime_now()");
	time_t now = (time_t)r->now;
	char *format, *out;
	struct tm tm;
	size_t n;

	if (f->len > 1000 || memchr(f->p, 0, f->len))
		fail(r, "strftime_now(): the format is too long");
	if (!gmtime_r(&now, &tm))
		fail(r, "strftime_now(): the year is out of range");
	format = ralloc(r, f->len + 2);
	out = ralloc(r, 65536);
	memcpy(format, f->p, f->len);
	/* an empty result is told from a full buffer by a last character */
	strcpy(format + f->len, "x");
	n = strftime_l(out, 65536, format, &tm, r->t->locale);
	if (!n)
		fail(r, "strftime_now(): the result is too long");
	return v_str(str_copy(r, out, n - 1, str_tainted(f)));
}

static const struct func globals[] = {
	{"range", global_range, 1, "/start,stop,step"},
	{"dict", global_dict, 0, NULL},
	{"namespace", global_namespace, 0, NULL},
	{"cycler", global_cycler, 0, NULL},
	{"joiner", global_joiner, 0, "sep"},
	{"lipsum", global_lipsum, 0, NULL},
	{"raise_exception", global_raise, 1, "message"},
	{"strftime_now", global_strftime, 1, "format"},
};

const struct func *find_global(const char *name, size_t len)
{
	return find(globals, sizeof(globals) / sizeof(globals[0]), name, len);
}
