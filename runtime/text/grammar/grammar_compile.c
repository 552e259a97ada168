// SPDX-License-Identifier: MIT
/*
 * Nodes to a program. First what cannot match is found and left out (so that every thread of a
 * machine can get to an end), then counted repetitions are freed of empty rounds (so that following
 * empty edges always ends), then code is generated backwards, and at last rules that call
 * themselves without having read anything are refused.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fnv.h"
#include "text/grammar/grammar_int.h"

struct comp {
	struct gb *b;
	struct program *p;
	uint32_t cap_inst, cap_counter;
	uint8_t *nullable, *productive; /* by node, then by rule (see solve) */
	uint32_t n_solved; /* nodes when nullable was solved */
	gnode *ne; /* by node: the same without the empty text; 0: not made, else + 1 */
	uint32_t *ne_rule; /* by rule: + 1 */
	uint32_t n_ne, n_ne_rule;
	uint32_t *cost;
};

static int no_memory(struct gb *b)
{
	return gb_fail(b, -ENOMEM, "grammar: out of memory: free some");
}

/* ---- least fixed points over the graph ----------------------------------------------------- */

static bool leaf_true(const struct gn *n, bool nullable)
{
	if (n->kind == GN_EMPTY || (n->kind == GN_REP && !n->b))
		return true;
	return !nullable && (n->kind == GN_BYTES || n->kind == GN_SET || n->kind == GN_MARK);
}

static void edges_of(const struct gb *b, uint32_t x, const uint32_t **kids, uint32_t *n)
{
	const struct gn *g = &b->node[x];

	*n = 0;
	if (g->kind == GN_SEQ || g->kind == GN_ALT) {
		*kids = b->kid + g->a;
		*n = g->b;
	} else if (g->kind == GN_REP || g->kind == GN_CHAR) {
		*kids = &g->a;
		*n = 1;
	}
}

/*
 * Which nodes can be empty, or can match at all: true spreads from leaves to parents. Rules stand
 * behind the nodes: index n_node + rule.
 */
static uint8_t *solve(struct gb *b, bool nullable)
{
	uint32_t n = b->n_node + b->n_rule, n_queue = 0, n_kids;
	uint32_t *first = calloc(n + 2, sizeof(*first)), *need = calloc(n + 1, sizeof(*need));
	uint32_t *queue = calloc(n + 1, sizeof(*queue)), *up = NULL;
	uint8_t *val = calloc(n + 1, 1);
	const uint32_t *kids = NULL;
	size_t total = 0;

	if (!first || !need || !queue || !val)
		goto fail;
	for (int pass = 0; pass < 2; pass++) { /* count parents, then list them */
		for (uint32_t x = 0; x < b->n_node; x++) {
			const struct gn *g = &b->node[x];
			uint32_t self = b->n_node + g->a;

			edges_of(b, x, &kids, &n_kids);
			if (g->kind == GN_RULE) {
				kids = &self;
				n_kids = 1;
			}
			need[x] = g->kind == GN_SEQ ? n_kids : 1;
			for (uint32_t i = 0; i < n_kids; i++) {
				if (pass)
					up[first[kids[i]]++] = x;
				else
					first[kids[i] + 1]++;
			}
		}
		for (uint32_t r = 0; r < b->n_rule; r++) {
			need[b->n_node + r] = 1;
			if (pass)
				up[first[b->rule[r].body]++] = b->n_node + r;
			else
				first[b->rule[r].body + 1]++;
		}
		if (pass)
			break;
		for (uint32_t x = 0; x < n; x++)
			first[x + 1] += first[x];
		total = first[n];
		up = calloc(total + 1, sizeof(*up));
		if (!up)
			goto fail;
	}
	/* first[x] is now the end of x's parents: they begin where those of x - 1 end */
	for (uint32_t x = 0; x < b->n_node; x++) {
		if (leaf_true(&b->node[x], nullable)) {
			val[x] = 1;
			queue[n_queue++] = x;
		}
	}
	for (uint32_t q = 0; q < n_queue; q++) {
		uint32_t x = queue[q];

		for (uint32_t i = x ? first[x - 1] : 0; i < first[x]; i++) {
			if (!val[up[i]] && --need[up[i]] == 0) {
				val[up[i]] = 1;
				queue[n_queue++] = up[i];
			}
		}
	}
	free(first);
	free(need);
	free(queue);
	free(up);
	return val;
fail:
	free(first);
	free(need);
	free(queue);
	free(up);
	free(val);
	no_memory(b);
	return NULL;
}

/* ---- repetitions without empty rounds ------------------------------------------------------- */

static bool is_nullable(const struct comp *c, gnode x)
{
	return x < c->n_solved && c->nullable[x];
}

static gnode nonempty(struct comp *c, gnode x)
{
	struct gb *b = c->b;
	struct gn n = b->node[x];
	gnode r = 0, rest;

	if (!is_nullable(c, x))
		return x;
	if (c->ne[x])
		return c->ne[x] - 1;
	if (n.kind == GN_ALT) {
		gnode *v = calloc(n.b, sizeof(*v));

		for (uint32_t i = 0; v && i < n.b; i++)
			v[i] = nonempty(c, b->kid[n.a + i]);
		if (v)
			r = gb_list(b, GN_ALT, v, n.b);
		else
			no_memory(b);
		free(v);
	} else if (n.kind == GN_SEQ) {
		rest = gb_empty(b);
		for (uint32_t i = n.b; i-- && !b->rc;) {
			gnode k = b->kid[n.a + i];

			r = gb_alt(b, gb_seq(b, nonempty(c, k), rest), r);
			rest = gb_seq(b, k, rest);
		}
	} else if (n.kind == GN_REP) {
		gnode k = nonempty(c, n.a);

		r = gb_seq(b, k, gb_rep(b, k, 0, n.max == GB_INF ? GB_INF : n.max - 1));
	} else if (n.kind == GN_RULE) {
		if (!c->ne_rule[n.a])
			c->ne_rule[n.a] = gb_rule(b) + 1;
		r = gb_call(b, c->ne_rule[n.a] - 1);
	}
	c->ne[x] = r + 1;
	return r;
}

static int free_of_empty_rounds(struct comp *c)
{
	struct gb *b = c->b;
	uint32_t n_node = b->n_node, n_rule = b->n_rule;
	bool more = true;

	c->n_solved = n_node;
	c->ne = calloc(n_node, sizeof(*c->ne));
	c->ne_rule = calloc(n_rule + 1, sizeof(*c->ne_rule));
	if (!c->ne || !c->ne_rule)
		return no_memory(b);
	for (gnode x = 0; x < n_node && !b->rc; x++) {
		gnode k;

		if (b->node[x].kind != GN_REP || !c->nullable[b->node[x].a])
			continue;
		b->node[x].b = 0;
		if (b->node[x].max == GB_INF || b->node[x].max == 1)
			continue;
		k = nonempty(c, b->node[x].a);
		if (k)
			b->node[x].a = k;
		else
			b->node[x].kind = GN_EMPTY;
	}
	while (more && !b->rc) {
		more = false;
		for (uint32_t r = 0; r < n_rule && !b->rc; r++) {
			uint32_t to = c->ne_rule[r];

			if (to && !b->rule[to - 1].defined) {
				gb_define(b, to - 1, nonempty(c, b->rule[r].body));
				more = true;
			}
		}
	}
	return b->rc;
}

/* ---- code ---------------------------------------------------------------------------------- */

static uint32_t emit(struct comp *c, enum gop op, uint32_t x, uint32_t y, uint32_t z)
{
	struct program *p = c->p;

	if (c->b->rc)
		return 0;
	if (p->n_inst >= GB_MAX_INST) {
		gb_fail(c->b, -E2BIG, "grammar: more than %u instructions: make it smaller",
			GB_MAX_INST);
		return 0;
	}
	if (p->n_inst == c->cap_inst) {
		uint32_t cap = c->cap_inst ? c->cap_inst * 2 : 256;
		struct inst *v = realloc(p->inst, cap * sizeof(*v));

		if (!v) {
			no_memory(c->b);
			return 0;
		}
		p->inst = v;
		c->cap_inst = cap;
	}
	p->inst[p->n_inst] = (struct inst){op, x, y, z};
	return p->n_inst++;
}

static uint32_t sat_add(uint32_t a, uint32_t b)
{
	return a > GB_MAX_INST || b > GB_MAX_INST ? GB_MAX_INST + 1 : a + b;
}

static uint32_t sat_mul(uint32_t a, uint32_t b)
{
	uint64_t r = (uint64_t)a * b;

	return r > GB_MAX_INST ? GB_MAX_INST + 1 : (uint32_t)r;
}

/* Instructions that a node takes, about. */
static uint32_t cost(struct comp *c, gnode x)
{
	const struct gn *n = &c->b->node[x];
	const uint32_t *kids = NULL;
	uint32_t n_kids, r = 1, k;

	if (c->cost[x])
		return c->cost[x];
	edges_of(c->b, x, &kids, &n_kids);
	for (uint32_t i = 0; i < n_kids; i++)
		r = sat_add(r, cost(c, kids[i]));
	if (n->kind == GN_BYTES)
		r = n->b;
	else if (n->kind == GN_MARK)
		r = 1 + c->b->node[n->b].b;
	else if (n->kind == GN_REP) {
		k = sat_mul(r, n->max == GB_INF ? n->b : n->max);
		if (k <= GB_INLINE_COST)
			r = sat_add(r, k);
	}
	return c->cost[x] = r;
}

static uint32_t gen(struct comp *c, gnode x, uint32_t next);

static uint32_t gen_star(struct comp *c, gnode x, uint32_t min, uint32_t next)
{
	uint32_t loop = emit(c, OP_SPLIT, 0, next, 0), body = gen(c, x, loop), at;

	if (c->b->rc)
		return 0;
	c->p->inst[loop].a = body;
	at = min ? body : loop;
	for (uint32_t i = 1; i < min; i++)
		at = gen(c, x, at);
	return at;
}

static uint32_t gen_count(struct comp *c, gnode x, uint32_t min, uint32_t max, uint32_t next)
{
	struct program *p = c->p;
	uint32_t loop, body, k = p->n_counter;

	if (k == c->cap_counter) {
		uint32_t cap = k ? k * 2 : 16;
		struct counter *v = realloc(p->counter, cap * sizeof(*v));

		if (!v) {
			no_memory(c->b);
			return 0;
		}
		p->counter = v;
		c->cap_counter = cap;
	}
	p->counter[p->n_counter++] = (struct counter){min, max};
	loop = emit(c, OP_LOOP, 0, next, k);
	body = gen(c, x, emit(c, OP_INC, loop, 0, 0));
	if (c->b->rc)
		return 0;
	p->inst[loop].a = body;
	return emit(c, OP_ENTER, loop, 0, 0);
}

static uint32_t gen_rep(struct comp *c, const struct gn *n, uint32_t next)
{
	uint32_t at = next;

	if (!c->productive[n->a])
		return next; /* min is 0, or the node could not match */
	if (sat_mul(cost(c, n->a) + 1, n->max == GB_INF ? n->b : n->max) > GB_INLINE_COST &&
	    n->max != 1 && !(n->max == GB_INF && n->b <= 1))
		return gen_count(c, n->a, n->b, n->max, next);
	if (n->max == GB_INF)
		return gen_star(c, n->a, n->b, next);
	for (uint32_t i = n->max; i > n->b; i--)
		at = emit(c, OP_SPLIT, gen(c, n->a, at), next, 0);
	for (uint32_t i = n->b; i; i--)
		at = gen(c, n->a, at);
	return at;
}

/* Code that matches x and goes on at `next`; 0 is RET. */
static uint32_t gen(struct comp *c, gnode x, uint32_t next)
{
	struct gb *b = c->b;
	struct gn n = b->node[x];
	uint32_t at = next;
	bool some = false;

	if (b->rc)
		return 0;
	switch (n.kind) {
	case GN_BYTES:
		for (uint32_t i = n.b; i--;)
			at = emit(c, OP_BYTE, (uint8_t)b->text[n.a + i], at, 0);
		return at;
	case GN_SET:
		return emit(c, OP_SET, n.a, next, 0);
	case GN_SEQ:
		for (uint32_t i = n.b; i-- && !b->rc;)
			at = gen(c, b->kid[n.a + i], at);
		return at;
	case GN_ALT:
		for (uint32_t i = n.b; i-- && !b->rc;) {
			uint32_t one;

			if (!c->productive[b->kid[n.a + i]])
				continue;
			one = gen(c, b->kid[n.a + i], next);
			at = some ? emit(c, OP_SPLIT, one, at, 0) : one;
			some = true;
		}
		return at;
	case GN_REP:
		return gen_rep(c, &n, next);
	case GN_RULE:
		return emit(c, OP_CALL, n.a, next, 0);
	case GN_MARK:
		at = gen(c, n.b, next);
		return emit(c, OP_MARK, n.a, next, at);
	case GN_CHAR:
		return gen(c, n.a, next);
	default:
		return next;
	}
}

/* ---- left recursion ------------------------------------------------------------------------ */

struct left_edge {
	uint32_t to;
	bool tail;
};

struct left {
	struct comp *c;
	struct left_edge *edge;
	size_t n_edge, cap_edge;
	size_t *first; /* edges of a rule, n_rule + 1 */
	uint32_t *stamp, *stack;
};

static bool rule_nullable(const struct comp *c, uint32_t r)
{
	uint32_t x = c->n_solved + r;

	return c->ne_rule && r < c->n_ne_rule && c->nullable[x];
}

/* Rules that rule r may call before it has read anything. */
static int left_edges(struct left *l, uint32_t r)
{
	const struct program *p = l->c->p;
	uint32_t n = 0;

	l->stack[n++] = p->entry[r];
	while (n) {
		uint32_t pc = l->stack[--n];
		const struct inst *i = &p->inst[pc];

		if (l->stamp[pc] == r + 1)
			continue;
		l->stamp[pc] = r + 1;
		if (i->op == OP_SPLIT) {
			l->stack[n++] = i->a;
			l->stack[n++] = i->b;
		} else if (i->op == OP_ENTER) {
			l->stack[n++] = i->a;
		} else if (i->op == OP_LOOP) {
			l->stack[n++] = i->a;
			if (!p->counter[i->c].min)
				l->stack[n++] = i->b;
		} else if (i->op == OP_CALL) {
			if (l->n_edge == l->cap_edge) {
				size_t cap = l->cap_edge ? l->cap_edge * 2 : 256;
				struct left_edge *v = realloc(l->edge, cap * sizeof(*v));

				if (!v)
					return no_memory(l->c->b);
				l->edge = v;
				l->cap_edge = cap;
			}
			l->edge[l->n_edge++] = (struct left_edge){i->a, i->b == 0};
			if (rule_nullable(l->c, i->a))
				l->stack[n++] = i->b;
		}
		if (l->n_edge > 20u * GB_MAX_INST)
			return gb_fail(l->c->b, -E2BIG,
				       "grammar: too many rules that begin with rules: simplify");
	}
	return 0;
}

/*
 * Tarjan's strongly connected components, without recursion: a call that is not the last thing its
 * rule does, back into its own component, would pile up stack without end.
 */
static int components(struct left *l, uint32_t *comp_of)
{
	uint32_t n = l->c->p->n_rule, n_comp = 0, order = 1, n_open = 0, depth;
	uint32_t *low = calloc(n + 1, sizeof(*low)), *num = calloc(n + 1, sizeof(*num));
	uint32_t *open = calloc(n + 1, sizeof(*open)), *path = calloc(n + 1, sizeof(*path));
	size_t *at = calloc(n + 1, sizeof(*at));
	int rc = 0;

	if (!low || !num || !open || !path || !at)
		rc = no_memory(l->c->b);
	for (uint32_t root = 0; root < n && !rc; root++) {
		if (num[root])
			continue;
		depth = 0;
		path[depth++] = root;
		while (depth) {
			uint32_t u = path[depth - 1], v;

			if (!num[u]) {
				num[u] = low[u] = order++;
				open[n_open++] = u;
				at[u] = l->first[u];
			}
			if (at[u] < l->first[u + 1]) {
				v = l->edge[at[u]++].to;
				if (!num[v])
					path[depth++] = v;
				else if (!comp_of[v] && num[v] < low[u])
					low[u] = num[v];
				continue;
			}
			if (low[u] == num[u]) {
				n_comp++;
				do {
					v = open[--n_open];
					comp_of[v] = n_comp;
				} while (v != u);
			}
			depth--;
			if (depth && low[u] < low[path[depth - 1]])
				low[path[depth - 1]] = low[u];
		}
	}
	free(low);
	free(num);
	free(open);
	free(path);
	free(at);
	return rc;
}

static int check_left_recursion(struct comp *c)
{
	struct program *p = c->p;
	struct left l = {.c = c};
	uint32_t *comp_of = calloc(p->n_rule + 1, sizeof(*comp_of));
	int rc = 0;

	l.first = calloc(p->n_rule + 1, sizeof(*l.first));
	l.stamp = calloc(p->n_inst, sizeof(*l.stamp));
	l.stack = calloc((size_t)p->n_inst * 2 + 2, sizeof(*l.stack));
	if (!comp_of || !l.first || !l.stamp || !l.stack)
		rc = no_memory(c->b);
	for (uint32_t r = 0; r < p->n_rule && !rc; r++) {
		rc = left_edges(&l, r);
		l.first[r + 1] = l.n_edge;
	}
	if (!rc)
		rc = components(&l, comp_of);
	for (uint32_t r = 0; r < p->n_rule && !rc; r++) {
		for (size_t i = l.first[r]; i < l.first[r + 1] && !rc; i++) {
			if (!l.edge[i].tail && comp_of[l.edge[i].to] == comp_of[r])
				rc = gb_fail(c->b, -EINVAL,
					     "grammar: left recursion: a rule begins with itself: "
					     "write it as a repetition");
		}
	}
	free(comp_of);
	free(l.first);
	free(l.stamp);
	free(l.stack);
	free(l.edge);
	return rc;
}

/* ---- the whole ----------------------------------------------------------------------------- */

/* Bytes that no set and no literal tells apart share a class. */
static void classes(struct program *p)
{
	struct byteset used = {0};
	uint16_t of[256] = {0};
	int n = 1;

	for (uint32_t i = 0; i < p->n_inst; i++) {
		if (p->inst[i].op == OP_BYTE)
			set_add(&used, p->inst[i].a, p->inst[i].a);
	}
	for (int x = 0; x < 256; x++) {
		if (set_has(&used, (unsigned)x))
			of[x] = (uint16_t)n++;
	}
	for (uint32_t k = 0; k < p->n_set && n < 256; k++) {
		int16_t to[257], size[257] = {0}, in[257] = {0};

		for (int x = 0; x < 256; x++) {
			size[of[x]]++;
			in[of[x]] += set_has(&p->set[k], (unsigned)x);
		}
		memset(to, 0, sizeof(to));
		for (int x = 0; x < 256; x++) {
			int o = of[x];

			if (!set_has(&p->set[k], (unsigned)x) || in[o] == size[o])
				continue;
			if (!to[o])
				to[o] = (int16_t)n++;
			of[x] = (uint16_t)to[o];
		}
	}
	/* class 0 may have become empty: number anew */
	p->n_class = 0;
	memset(p->class_of, 0, sizeof(p->class_of));
	for (int x = 0; x < 256; x++) {
		int y;

		for (y = 0; y < x && of[y] != of[x]; y++)
			;
		if (y == x)
			p->rep[p->n_class++] = (uint8_t)x;
		p->class_of[x] = y == x ? (uint8_t)(p->n_class - 1) : p->class_of[y];
	}
}

struct program *program_ref(struct program *p)
{
	atomic_fetch_add(&p->refs, 1);
	return p;
}

void program_unref(struct program *p)
{
	if (!p || atomic_fetch_sub(&p->refs, 1) > 1)
		return;
	free(p->inst);
	free(p->set);
	free(p->counter);
	free(p->entry);
	for (int i = 0; i < p->n_mark; i++)
		free(p->mark[i]);
	free(p);
}

bool program_equal(const struct program *a, const struct program *b)
{
	if (a == b)
		return true;
	if (a->hash != b->hash || a->n_inst != b->n_inst || a->n_set != b->n_set ||
	    a->n_counter != b->n_counter || a->n_mark != b->n_mark || a->n_rule != b->n_rule ||
	    a->root != b->root)
		return false;
	for (int i = 0; i < a->n_mark; i++) {
		if (strcmp(a->mark[i], b->mark[i]))
			return false;
	}
	return !memcmp(a->inst, b->inst, a->n_inst * sizeof(*a->inst)) &&
	       (!a->n_set || !memcmp(a->set, b->set, a->n_set * sizeof(*a->set))) &&
	       (!a->n_counter ||
		!memcmp(a->counter, b->counter, a->n_counter * sizeof(*a->counter))) &&
	       !memcmp(a->entry, b->entry, a->n_rule * sizeof(*a->entry));
}

static int generate(struct comp *c, uint32_t root)
{
	struct gb *b = c->b;
	struct program *p = c->p;

	c->cost = calloc(b->n_node, sizeof(*c->cost));
	p->entry = calloc(b->n_rule + 1, sizeof(*p->entry));
	if (!c->cost || !p->entry)
		return no_memory(b);
	p->n_rule = b->n_rule;
	p->root = root;
	emit(c, OP_RET, 0, 0, 0);
	for (uint32_t r = 0; r < b->n_rule && !b->rc; r++) {
		if (c->productive[b->n_node + r])
			p->entry[r] = gen(c, b->rule[r].body, 0);
	}
	return b->rc;
}

static void hash_program(struct program *p)
{
	p->hash = fnv1a(FNV_START, p->inst, p->n_inst * sizeof(*p->inst));
	if (p->n_set)
		p->hash = fnv1a(p->hash, p->set, p->n_set * sizeof(*p->set));
	if (p->n_counter)
		p->hash = fnv1a(p->hash, p->counter, p->n_counter * sizeof(*p->counter));
}

/* What begins in too many ways is found out now and not when the first answer is due. */
static int try_start(struct gb *b, struct program *p)
{
	struct machine m;
	int rc = machine_init(&m, p, 0);

	if (rc == -E2BIG)
		return gb_fail(b, rc, "grammar: begins in too many ways: simplify it");
	if (rc)
		return no_memory(b);
	machine_fini(&m);
	return 0;
}

int gb_finish(struct gb *b, uint32_t root, struct grammar **out)
{
	struct comp c = {.b = b};
	int rc;

	*out = NULL;
	if (!b->rc) {
		c.p = calloc(1, sizeof(*c.p));
		if (c.p)
			atomic_init(&c.p->refs, 1);
		c.nullable = c.p ? solve(b, true) : NULL;
		c.n_ne_rule = b->n_rule;
		if (!c.nullable)
			no_memory(b);
	}
	if (!b->rc)
		free_of_empty_rounds(&c);
	if (!b->rc)
		c.productive = solve(b, false);
	if (!b->rc && !c.productive[b->n_node + root])
		gb_fail(b, -EINVAL, "grammar: nothing can match it: loosen it");
	if (!b->rc)
		generate(&c, root);
	if (!b->rc)
		check_left_recursion(&c);
	if (!b->rc) {
		*out = calloc(1, sizeof(**out));
		if (!*out)
			no_memory(b);
	}
	if (!b->rc) {
		c.p->set = b->set;
		c.p->n_set = b->n_set;
		b->set = NULL;
		memcpy(c.p->mark, b->mark, sizeof(b->mark));
		c.p->n_mark = b->n_mark;
		b->n_mark = 0;
		classes(c.p);
		hash_program(c.p);
		if (try_start(b, c.p)) {
			free(*out);
			*out = NULL;
		} else {
			(*out)->prog = c.p;
			c.p = NULL;
		}
	}
	program_unref(c.p);
	free(c.nullable);
	free(c.productive);
	free(c.ne);
	free(c.ne_rule);
	free(c.cost);
	rc = b->rc;
	gb_free(b);
	return rc;
}

void grammar_free(struct grammar *g)
{
	if (!g)
		return;
	program_unref(g->prog);
	free(g);
}
