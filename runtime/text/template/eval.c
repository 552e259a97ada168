// SPDX-License-Identifier: MIT
/* Expressions: evaluated by walking the tree. Calls, arguments, variables. See tmpl_int.h. */
#include "text/template/tmpl_int.h"

#include <stdio.h>

/* ---- variables --------------------------------------------------------------------------------- */

static struct val root_lookup(struct rt *r, int sym)
{
	const struct str *name = r->t->sym[sym];
	struct val v = v_undef(UNDEF_NAME, V_NONE, r->t->sym[sym]);
	const json_t *j;

	if (r->root_state[sym] == ROOT_SET)
		return r->root[sym];
	if (r->root_state[sym] == ROOT_ABSENT)
		return v;
	j = json_object_getn(r->trusted, name->p, name->len);
	if (j) {
		v = v_json(r, j, false);
	} else if ((j = json_object_getn(r->vars, name->p, name->len))) {
		v = v_json(r, j, true);
	} else {
		const struct func *f = find_global(name->p, name->len);

		if (f) {
			v = v_make(V_FUNC);
			v.func = f;
		}
	}
	r->root_state[sym] = v.type == V_UNDEF ? ROOT_ABSENT : ROOT_SET;
	r->root[sym] = v;
	return v;
}

struct val lookup(struct rt *r, struct scope *s, int sym)
{
	for (; s->parent; s = s->parent)
		for (int i = 0; i < s->n; i++)
			if (s->var[i].sym == sym)
				return s->var[i].v;
	return root_lookup(r, sym);
}

/* ---- calls ------------------------------------------------------------------------------------- */

static void add_kw(struct rt *r, struct args *a, int *cap, struct str *name, struct val v)
{
	for (int i = 0; i < a->nkw; i++)
		if (str_equal(a->kwname[i], name))
			fail(r, "got multiple values for keyword argument '%.*s'", (int)name->len,
			     name->p);
	if (a->nkw == *cap) {
		struct str **names;
		struct val *kw;

		*cap = *cap ? *cap * 2 : 8;
		names = ralloc_array(r, (size_t)*cap, sizeof(*names));
		kw = ralloc_array(r, (size_t)*cap, sizeof(*kw));
		if (a->nkw) {
			memcpy(names, a->kwname, (size_t)a->nkw * sizeof(*names));
			memcpy(kw, a->kw, (size_t)a->nkw * sizeof(*kw));
		}
		a->kwname = names;
		a->kw = kw;
	}
	charge(r, 1);
	a->kwname[a->nkw] = name;
	a->kw[a->nkw++] = v;
}

void eval_args(struct rt *r, const struct call_args *c, struct scope *s, struct args *a)
{
	*a = (struct args){0};
	if (!c)
		return;
	if (c->n)
		a->pos = ralloc_array(r, (size_t)c->n, sizeof(*a->pos));
	for (int i = 0; i < c->n; i++)
		a->pos[i] = eval(r, c->pos[i], s);
	a->n = c->n;
	if (c->nkw) {
		a->kw = ralloc_array(r, (size_t)c->nkw, sizeof(*a->kw));
		a->kwname = c->kwname;
		for (int i = 0; i < c->nkw; i++)
			a->kw[i] = eval(r, c->kw[i], s);
		a->nkw = c->nkw;
	}
	if (c->star) {
		struct list *l = list_new(r, (size_t)a->n + 8), *more;

		for (int i = 0; i < a->n; i++)
			list_push(r, l, a->pos[i]);
		more = list_of(r, eval(r, c->star, s));
		for (size_t i = 0; i < more->n; i++)
			list_push(r, l, more->v[i]);
		a->pos = l->v;
		a->n = (int)l->n;
	}
	if (c->star2) {
		struct val d = eval(r, c->star2, s);
		int cap = a->nkw;

		if (d.type != V_DICT)
			fail(r, "argument after ** must be a mapping, not %s", type_name(d));
		dict_load(r, d.d);
		for (size_t i = 0; i < d.d->n; i++) {
			if (d.d->e[i].key.type != V_STR)
				fail(r, "keywords must be strings");
			add_kw(r, a, &cap, d.d->e[i].key.s, d.d->e[i].value);
		}
	}
}

/* The index of parameter `name` in spec, or -1; *n is set to how many there are. */
static int parameter(const char *spec, const struct str *name, int *n)
{
	int found = -1, i = 0;

	if (*spec == '/')
		name = NULL;
	spec += *spec == '/';
	for (; *spec; i++) {
		size_t k = strcspn(spec, ",");

		if (name && k == name->len && !memcmp(spec, name->p, k))
			found = i;
		spec += k + (spec[k] == ',');
	}
	*n = i;
	return found;
}

#define MAX_PARAMS 8

struct val call_func(struct rt *r, const struct func *f, const char *what, struct val self,
		     struct args *a)
{
	struct val bound[MAX_PARAMS] = {0};
	struct args full = {.pos = bound};
	int n;

	if (!f->spec)
		return f->fn(r, self, a);
	parameter(f->spec, NULL, &n);
	if (a->n > n)
		fail(r, "%s%s() takes at most %d argument(s) (%d given)", what, f->name, n, a->n);
	for (int i = 0; i < a->n; i++)
		bound[i] = a->pos[i];
	for (int i = 0; i < a->nkw; i++) {
		int k = parameter(f->spec, a->kwname[i], &n);

		if (k < 0)
			fail(r, "%s%s() got an unexpected keyword argument '%.*s'", what, f->name,
			     (int)a->kwname[i]->len, a->kwname[i]->p);
		if (bound[k].type != V_ABSENT)
			fail(r, "%s%s() got multiple values for argument '%.*s'", what, f->name,
			     (int)a->kwname[i]->len, a->kwname[i]->p);
		bound[k] = a->kw[i];
	}
	for (int i = 0; i < f->min; i++)
		if (bound[i].type == V_ABSENT)
			fail(r, "%s%s() is missing a required argument", what, f->name);
	full.n = n;
	return f->fn(r, self, &full);
}

struct val call(struct rt *r, struct val f, struct args *a)
{
	struct val v;

	charge(r, 1);
	enter(r);
	switch (f.type) {
	case V_UNDEF:
		fail_undefined(r, f);
	case V_FUNC:
		v = call_func(r, f.func, "", v_none(), a);
		break;
	case V_METHOD:
		v = call_func(r, f.bound->method, "", f.bound->self, a);
		break;
	case V_MACRO:
		v = call_macro(r, f.macro, a);
		break;
	case V_LOOP:
		v = call_loop(r, f.loop, a);
		break;
	case V_JOINER:
		if (a->n || a->nkw)
			fail(r, "a joiner takes no arguments");
		v = f.joiner->used ? f.joiner->sep : v_str(r->empty);
		f.joiner->used = true;
		break;
	default:
		fail(r, "'%s' object is not callable", type_name(f));
	}
	leave(r);
	return v;
}

struct val eval_call(struct rt *r, const struct node *n, struct scope *s, const struct val *caller)
{
	const struct node *f = n->a;
	struct val self, callee;
	struct args a;
	int cap;

	if (f->kind == N_ATTR) {
		const struct func *m;

		self = eval(r, f->a, s);
		m = f->fn ? method_of(f->fn, self.type) : NULL;
		if (m && !caller && !method_mutates(m)) {
			struct val v;

			eval_args(r, n->args, s, &a);
			r->line = n->line;
			enter(r);
			v = call_func(r, m, "", self, &a);
			leave(r);
			return v;
		}
		r->line = f->line;
		callee = get_attr(r, self, f->k.s, f->fn);
	} else {
		callee = eval(r, f, s);
	}
	eval_args(r, n->args, s, &a);
	cap = a.nkw;
	if (caller)
		add_kw(r, &a, &cap, r->t->sym[r->t->sym_caller], *caller);
	r->line = n->line;
	return call(r, callee, &a);
}

/* ---- filters and tests ------------------------------------------------------------------------- */

struct val eval_filter(struct rt *r, const struct node *n, struct scope *s, const struct val *base)
{
	struct val self = n->a->kind == N_FILTER ? eval_filter(r, n->a, s, base)
			  : base		 ? *base
						 : eval(r, n->a, s);
	struct args a;

	eval_args(r, n->args, s, &a);
	r->line = n->line;
	if (!n->fn)
		fail(r, "no filter named '%.*s'", (int)n->k.s->len, n->k.s->p);
	return call_func(r, n->fn, "filter ", self, &a);
}

static struct val eval_test(struct rt *r, const struct node *n, struct scope *s)
{
	struct val self = eval(r, n->a, s);
	struct args a;

	eval_args(r, n->args, s, &a);
	r->line = n->line;
	if (!n->fn)
		fail(r, "no test named '%.*s'", (int)n->k.s->len, n->k.s->p);
	return v_bool(truth(call_func(r, n->fn, "test ", self, &a)) != n->flag);
}

/* ---- the rest ---------------------------------------------------------------------------------- */

static struct val eval_list(struct rt *r, const struct node *n, struct scope *s)
{
	struct list *l = list_new(r, (size_t)n->n);

	for (int i = 0; i < n->n; i++)
		list_push(r, l, eval(r, n->list[i], s));
	return n->kind == N_LIST ? v_list(l) : v_tuple(l);
}

static struct val eval_dict(struct rt *r, const struct node *n, struct scope *s)
{
	struct dict *d = dict_new(r, (size_t)n->n / 2);

	for (int i = 0; i + 1 < n->n; i += 2) {
		struct val k = eval(r, n->list[i], s);

		dict_set(r, d, k, eval(r, n->list[i + 1], s));
	}
	return v_dict(d);
}

static struct val eval_item(struct rt *r, const struct node *n, struct scope *s)
{
	struct val of = eval(r, n->a, s), key, from, to, step;

	if (n->b->kind == N_SLICE) {
		from = n->b->a ? eval(r, n->b->a, s) : v_none();
		to = n->b->b ? eval(r, n->b->b, s) : v_none();
		step = n->b->c ? eval(r, n->b->c, s) : v_none();
		r->line = n->line;
		return get_slice(r, of, from, to, step);
	}
	key = eval(r, n->b, s);
	r->line = n->line;
	return get_item(r, of, key);
}

static struct val eval_compare(struct rt *r, const struct node *n, struct scope *s)
{
	struct val left = eval(r, n->list[0], s);
	bool is = true;

	for (int i = 1; is && i < n->n; i++) {
		struct val right = eval(r, n->list[i], s);

		is = compare(r, (enum cmp)n->cmp[i], left, right);
		left = right;
	}
	return v_bool(is);
}

static struct val eval_concat(struct rt *r, const struct node *n, struct scope *s)
{
	struct str *x = to_str(r, eval(r, n->list[0], s));

	for (int i = 1; i < n->n; i++)
		x = str_concat(r, x, to_str(r, eval(r, n->list[i], s)));
	return v_str(str_markup(r, x, false));
}

static struct val eval_cond(struct rt *r, const struct node *n, struct scope *s)
{
	if (truth(eval(r, n->a, s)))
		return eval(r, n->b, s);
	if (n->c)
		return eval(r, n->c, s);
	return v_hint(r, "the inline if-expression evaluated to false and no else section was "
			 "defined.");
}

static struct val eval_node(struct rt *r, const struct node *n, struct scope *s)
{
	struct val a, b;

	switch ((enum kind)n->kind) {
	case N_ATTR:
		a = eval(r, n->a, s);
		r->line = n->line;
		return get_attr(r, a, n->k.s, n->fn);
	case N_ITEM:
		return eval_item(r, n, s);
	case N_CALL:
		return eval_call(r, n, s, NULL);
	case N_FILTER:
		return eval_filter(r, n, s, NULL);
	case N_TEST:
		return eval_test(r, n, s);
	case N_TUPLE:
	case N_LIST:
		return eval_list(r, n, s);
	case N_DICT:
		return eval_dict(r, n, s);
	case N_NOT:
		return v_bool(!truth(eval(r, n->a, s)));
	case N_NEG:
		return negate(r, eval(r, n->a, s));
	case N_POS:
		a = eval(r, n->a, s);
		if (a.type == V_UNDEF)
			fail_undefined(r, a);
		if (!is_number(a))
			fail(r, "bad operand type for unary +: '%s'", type_name(a));
		return a.type == V_BOOL ? v_int(a.b) : a;
	case N_BINARY:
		a = eval(r, n->a, s);
		b = eval(r, n->b, s);
		r->line = n->line;
		return binary(r, (enum op)n->op, a, b);
	case N_AND:
		a = eval(r, n->a, s);
		return truth(a) ? eval(r, n->b, s) : a;
	case N_OR:
		a = eval(r, n->a, s);
		return truth(a) ? a : eval(r, n->b, s);
	case N_COMPARE:
		return eval_compare(r, n, s);
	case N_CONCAT:
		return eval_concat(r, n, s);
	case N_COND:
		return eval_cond(r, n, s);
	default:
		fail(r, "slices are only possible inside of subscripts");
	}
}

struct val eval(struct rt *r, const struct node *n, struct scope *s)
{
	struct val v;

	charge(r, 1);
	if (n->kind == N_CONST)
		return n->k;
	r->line = n->line;
	if (n->kind == N_NAME)
		return lookup(r, s, n->sym);
	enter(r);
	v = eval_node(r, n, s);
	leave(r);
	return v;
}
