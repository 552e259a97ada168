// SPDX-License-Identifier: MIT
/*
 * Rendering: statements, scopes, loops, macros, and the API. A render owns its arena and shares
 * nothing but the compiled template, which it does not change.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/template/tmpl_int.h"

#define DEFAULT_STEPS  50000000u
#define DEFAULT_MEMORY (256u << 20)
/* About as deep as macros may call themselves in Python. */
#define DEFAULT_DEPTH 1200

void fail(struct rt *r, const char *fmt, ...)
{
	char msg[480];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	r->rc = err_set(r->e, -EINVAL, "line %u: %s", r->line, msg);
	longjmp(r->jmp, 1);
}

void fail_limit(struct rt *r, const char *what)
{
	r->rc = err_set(r->e, -E2BIG,
			"line %u: the template takes more %s than a render may: it loops, or the "
			"conversation is too long",
			r->line, what);
	longjmp(r->jmp, 1);
}

/* ---- scopes ------------------------------------------------------------------------------------ */

struct scope *scope_new(struct rt *r, struct scope *parent)
{
	struct scope *s = ralloc(r, sizeof(*s));

	*s = (struct scope){.parent = parent};
	return s;
}

void scope_set(struct rt *r, struct scope *s, int sym, struct val v)
{
	if (!s->parent) {
		r->root[sym] = v;
		r->root_state[sym] = ROOT_SET;
		return;
	}
	for (int i = 0; i < s->n; i++) {
		if (s->var[i].sym == sym) {
			s->var[i].v = v;
			return;
		}
	}
	if (s->n == s->cap) {
		struct var *more;

		s->cap = s->cap ? s->cap * 2 : 4;
		more = ralloc_array(r, (size_t)s->cap, sizeof(*more));
		if (s->n)
			memcpy(more, s->var, (size_t)s->n * sizeof(*more));
		s->var = more;
	}
	s->var[s->n++] = (struct var){sym, v};
}

static void unpack(struct rt *r, struct scope *s, const struct node *target, struct val v)
{
	struct iter it;
	struct val x;
	int i = 0;

	if (!iter_init(r, &it, v))
		fail(r, "cannot unpack non-iterable %s object", type_name(v));
	for (; iter_next(r, &it, &x); i++) {
		if (i == target->n)
			fail(r, "too many values to unpack (expected %d)", target->n);
		assign(r, s, target->list[i], x);
	}
	if (i < target->n)
		fail(r, "not enough values to unpack (expected %d, got %d)", target->n, i);
}

void assign(struct rt *r, struct scope *s, const struct node *target, struct val v)
{
	struct val ns;

	if (target->kind == N_NAME) {
		scope_set(r, s, target->sym, v);
	} else if (target->kind == N_TUPLE) {
		unpack(r, s, target, v);
	} else {
		ns = lookup(r, s, target->sym);
		r->line = target->line;
		if (ns.type != V_NS)
			fail(r, "cannot assign attribute on non-namespace object");
		if (target->k.s->p[0] == '_')
			fail(r, "underscore-prefixed attributes cannot be stored on a namespace");
		dict_set(r, ns.d, target->k, v);
	}
}

/* ---- loops ------------------------------------------------------------------------------------- */

static bool loop_next(struct rt *r, struct loop *l, struct val *out)
{
	if (l->ahead_at < l->ahead.n) {
		*out = l->ahead.v[l->ahead_at++];
		return true;
	}
	return iter_next(r, &l->it, out);
}

/* Look at the next item without taking it. */
static bool loop_peek(struct rt *r, struct loop *l, struct val *out)
{
	if (l->ahead_at == l->ahead.n) {
		if (!iter_next(r, &l->it, out))
			return false;
		if (!l->ahead.cap)
			l->ahead = *list_new(r, 4);
		l->ahead.n = l->ahead_at = 0;
		list_push(r, &l->ahead, *out);
	}
	*out = l->ahead.v[l->ahead_at];
	return true;
}

static int64_t loop_length(struct rt *r, struct loop *l)
{
	struct list *rest;
	struct val v;

	if (l->length >= 0)
		return l->length;
	rest = list_new(r, 8);
	while (loop_next(r, l, &v))
		list_push(r, rest, v);
	l->ahead = *rest;
	l->ahead_at = 0;
	l->length = l->index0 + 1 + (int64_t)rest->n;
	return l->length;
}

struct val loop_attr(struct rt *r, struct loop *l, const char *name)
{
	struct val v;

	if (!strcmp(name, "index"))
		return v_int(l->index0 + 1);
	if (!strcmp(name, "index0"))
		return v_int(l->index0);
	if (!strcmp(name, "first"))
		return v_bool(!l->index0);
	if (!strcmp(name, "last"))
		return v_bool(!loop_peek(r, l, &v));
	if (!strcmp(name, "length"))
		return v_int(loop_length(r, l));
	if (!strcmp(name, "revindex"))
		return v_int(loop_length(r, l) - l->index0);
	if (!strcmp(name, "revindex0"))
		return v_int(loop_length(r, l) - l->index0 - 1);
	if (!strcmp(name, "depth"))
		return v_int(l->depth0 + 1);
	if (!strcmp(name, "depth0"))
		return v_int(l->depth0);
	if (!strcmp(name, "previtem"))
		return l->index0 ? l->prev : v_hint(r, "there is no previous item");
	if (!strcmp(name, "nextitem"))
		return loop_peek(r, l, &v) ? v : v_hint(r, "there is no next item");
	return v_make(V_ABSENT);
}

static enum flow run_for(struct rt *r, const struct node *n, struct scope *s, struct val over,
			 int depth0)
{
	struct loop *l = ralloc(r, sizeof(*l));
	struct val self = v_make(V_LOOP), item;
	struct scope *inner = scope_new(r, s);

	*l = (struct loop){.index0 = -1, .length = -1, .node = n, .scope = s, .depth0 = depth0};
	self.loop = l;
	iter_open(r, &l->it, over);
	if (n->c) {
		l->it.filter = n->c;
		l->it.target = n->a;
		l->it.scope = scope_new(r, s);
	} else {
		l->length = length_of(r, over);
	}
	while (loop_next(r, l, &item)) {
		l->index0++;
		l->prev = l->item;
		l->item = item;
		inner->n = 0;
		scope_set(r, inner, r->t->sym_loop, self);
		assign(r, inner, n->a, item);
		if (run_list(r, n->list, n->n, inner) == FLOW_BREAK)
			break;
	}
	if (l->index0 >= 0 || !n->args)
		return FLOW_ON;
	return run_list(r, n->args->pos[0]->list, n->args->pos[0]->n, scope_new(r, s));
}

struct val call_loop(struct rt *r, struct loop *l, struct args *a)
{
	struct sbuf b, *out = r->out;

	if (!l->node->flag)
		fail(r, "the loop must have the 'recursive' marker to be called recursively");
	if (a->n != 1 || a->nkw)
		fail(r, "loop() takes one argument");
	sb_init(r, &b, 0);
	r->out = &b;
	run_for(r, l->node, l->scope, a->pos[0], l->depth0 + 1);
	r->out = out;
	return v_str(sb_take(r, &b));
}

/* ---- macros ------------------------------------------------------------------------------------ */

static struct str *capture(struct rt *r, struct node **list, int n, struct scope *s)
{
	struct sbuf b, *out = r->out;

	sb_init(r, &b, 0);
	r->out = &b;
	run_list(r, list, n, s);
	r->out = out;
	return sb_take(r, &b);
}

static struct val make_macro(struct rt *r, const struct node *n, struct scope *s)
{
	struct val v = v_make(V_MACRO);

	v.macro = ralloc(r, sizeof(*v.macro));
	*v.macro = (struct macro){.def = n->macro, .node = n, .scope = s};
	return v;
}

static int find_kw(const struct args *a, const struct str *name)
{
	for (int i = 0; i < a->nkw; i++)
		if (str_equal(a->kwname[i], name))
			return i;
	return -1;
}

/* Keyword arguments that are no parameters, and positional ones beyond them. */
static void extra_args(struct rt *r, const struct macro_def *d, const struct args *a,
		       const bool *used, struct scope *s)
{
	const struct tmpl *t = r->t;
	const char *name = d->name ? d->name->p : "caller";
	int name_len = d->name ? (int)d->name->len : 6, k;

	k = find_kw(a, t->sym[t->sym_caller]);
	if (d->caller)
		scope_set(r, s, t->sym_caller,
			  k >= 0 && !used[k] ? a->kw[k]
					     : v_undef(UNDEF_NAME, V_NONE, t->sym[t->sym_caller]));
	if (d->kwargs) {
		struct dict *kw = dict_new(r, 4);

		for (int i = 0; i < a->nkw; i++)
			if (!used[i] && !(d->caller && i == k))
				dict_set(r, kw, v_str(a->kwname[i]), a->kw[i]);
		scope_set(r, s, t->sym_kwargs, v_dict(kw));
	} else {
		for (int i = 0; i < a->nkw; i++)
			if (!used[i] && !(d->caller && i == k))
				fail(r, "macro '%.*s' takes no keyword argument '%.*s'", name_len,
				     name, (int)a->kwname[i]->len, a->kwname[i]->p);
	}
	if (d->varargs) {
		struct list *l = list_new(r, 4);

		for (int i = d->n; i < a->n; i++)
			list_push(r, l, a->pos[i]);
		scope_set(r, s, t->sym_varargs, v_tuple(l));
	} else if (a->n > d->n) {
		fail(r, "macro '%.*s' takes not more than %d argument(s)", name_len, name, d->n);
	}
}

struct val call_macro(struct rt *r, struct macro *m, struct args *a)
{
	const struct macro_def *d = m->def;
	struct scope *s = scope_new(r, m->scope);
	bool *used = ralloc(r, (size_t)a->nkw + 1);
	struct str *text;

	memset(used, 0, (size_t)a->nkw + 1);
	charge(r, ((uint64_t)d->n + 1) * ((uint64_t)a->nkw + 1));
	for (int i = 0; i < d->n && i < a->n; i++)
		scope_set(r, s, d->param[i], a->pos[i]);
	for (int i = a->n; i < d->n; i++) {
		int k = find_kw(a, r->t->sym[d->param[i]]);

		if (k < 0)
			continue;
		used[k] = true;
		scope_set(r, s, d->param[i], a->kw[k]);
	}
	extra_args(r, d, a, used, s);
	/* a default may use the parameters before it */
	for (int i = a->n; i < d->n; i++) {
		struct str *name = r->t->sym[d->param[i]];

		if (find_kw(a, name) >= 0)
			continue;
		scope_set(r, s, d->param[i],
			  d->def[i] ? eval(r, d->def[i], s) : v_undef(UNDEF_PARAM, V_NONE, name));
	}
	text = capture(r, m->node->list, m->node->n, s);
	return v_str(text);
}

/* ---- statements -------------------------------------------------------------------------------- */

static void print(struct rt *r, struct val v)
{
	if (v.type == V_STR)
		sb_str(r, r->out, v.s);
	else
		put_str(r, r->out, v);
}

static enum flow run_if(struct rt *r, const struct node *n, struct scope *s)
{
	for (int i = 0; i < n->n; i++) {
		const struct node *b = n->list[i];

		if (!b->a || truth(eval(r, b->a, s)))
			return run_list(r, b->list, b->n, s);
	}
	return FLOW_ON;
}

static enum flow run_with(struct rt *r, const struct node *n, struct scope *s)
{
	struct scope *inner = scope_new(r, s);

	for (int i = 0; i < n->args->n; i++)
		assign(r, inner, n->args->pos[i], eval(r, n->args->kw[i], s));
	return run_list(r, n->list, n->n, inner);
}

static enum flow run(struct rt *r, const struct node *n, struct scope *s)
{
	struct val v;

	switch ((enum kind)n->kind) {
	case S_DATA:
		sb_str(r, r->out, n->k.s);
		return FLOW_ON;
	case S_PRINT:
		print(r, eval(r, n->a, s));
		return FLOW_ON;
	case S_IF:
		return run_if(r, n, s);
	case S_FOR:
		return run_for(r, n, s, eval(r, n->b, s), 0);
	case S_SET:
		v = eval(r, n->b, s);
		assign(r, s, n->a, v);
		return FLOW_ON;
	case S_SET_BLOCK:
		v = v_str(capture(r, n->list, n->n, scope_new(r, s)));
		if (n->b)
			v = eval_filter(r, n->b, s, &v);
		assign(r, s, n->a, v);
		return FLOW_ON;
	case S_MACRO:
		scope_set(r, s, n->sym, make_macro(r, n, s));
		return FLOW_ON;
	case S_CALL:
		v = make_macro(r, n, s);
		print(r, eval_call(r, n->a, s, &v));
		return FLOW_ON;
	case S_FILTER:
		v = v_str(capture(r, n->list, n->n, scope_new(r, s)));
		print(r, eval_filter(r, n->b, s, &v));
		return FLOW_ON;
	case S_BREAK:
		return FLOW_BREAK;
	case S_CONTINUE:
		return FLOW_CONTINUE;
	case S_WITH:
		return run_with(r, n, s);
	default:
		return run_list(r, n->list, n->n, n->kind == S_SCOPE ? scope_new(r, s) : s);
	}
}

enum flow run_list(struct rt *r, struct node **list, int n, struct scope *s)
{
	enum flow flow = FLOW_ON;

	enter(r);
	for (int i = 0; i < n && flow == FLOW_ON; i++) {
		charge(r, 1);
		r->line = list[i]->line;
		flow = run(r, list[i], s);
	}
	leave(r);
	return flow;
}

/* ---- the API ----------------------------------------------------------------------------------- */

static int give(const struct sbuf *b, struct tmpl_output *out, struct err *e)
{
	size_t cap = 0;

	out->text = malloc(b->len + 1);
	if (!out->text)
		return err_set(e, -ENOMEM, "template: no memory for %zu bytes", b->len);
	memcpy(out->text, b->p, b->len);
	out->text[b->len] = 0;
	out->len = b->len;
	for (size_t at = 0, end; at < b->len; at = end) {
		bool user = b->mark[at];
		const uint8_t *other = memchr(b->mark + at, !user, b->len - at);

		end = other ? (size_t)(other - b->mark) : b->len;
		if (out->n_spans == cap) {
			struct tmpl_span *more;

			cap = cap ? cap * 2 : 16;
			more = realloc(out->span, cap * sizeof(*more));
			if (!more) {
				tmpl_output_free(out);
				return err_set(e, -ENOMEM, "template: no memory for its output");
			}
			out->span = more;
		}
		out->span[out->n_spans++] = (struct tmpl_span){end, user};
	}
	return 0;
}

int tmpl_render(const struct tmpl *t, const json_t *vars, const json_t *trusted, int64_t now,
		const struct tmpl_limits *limits, struct tmpl_output *out, bool *raised,
		struct err *e)
{
	struct sbuf top;
	struct rt r = {
		.e = e,
		.t = t,
		.vars = vars,
		.trusted = trusted,
		.now = now,
		.line = 1,
		.max_steps = limits && limits->steps ? limits->steps : DEFAULT_STEPS,
		.max_depth = limits && limits->depth ? limits->depth : DEFAULT_DEPTH,
	};
	static const struct str empty = {.p = "", .ascii = 1};

	*out = (struct tmpl_output){0};
	if (raised)
		*raised = false;
	r.arena.limit = limits && limits->memory ? limits->memory : DEFAULT_MEMORY;
	if (!setjmp(r.jmp)) {
		r.empty = ralloc(&r, sizeof(*r.empty));
		*r.empty = empty;
		str_hash(r.empty);
		r.root = ralloc_array(&r, (size_t)t->n_sym, sizeof(*r.root));
		r.root_state = ralloc(&r, (size_t)t->n_sym);
		memset(r.root_state, ROOT_UNKNOWN, (size_t)t->n_sym);
		sb_init(&r, &top, 8192);
		r.out = &top;
		run_list(&r, t->body->list, t->body->n, &r.root_scope);
		r.rc = give(&top, out, e);
	} else if (raised) {
		*raised = r.raised;
	}
	arena_free(&r.arena);
	return r.rc;
}

void tmpl_output_free(struct tmpl_output *o)
{
	free(o->text);
	free(o->span);
	*o = (struct tmpl_output){0};
}
