// SPDX-License-Identifier: MIT
/* Expressions: precedence climbing as jinja2's parser has it. See tmpl_int.h. */
#include <stdio.h>

#include "text/template/tmpl_int.h"

/* Brackets within brackets; the tree that results is bounded further when it is rendered. */
#define MAX_DEPTH 100
#define MAX_NAMES 2000 /* different ones; and keyword arguments of a call */

static struct node *unary(struct parser *p, bool with_filter);

struct node *parse_node(struct parser *p, enum kind kind)
{
	struct node *n = parse_alloc(p, sizeof(*n));

	n->kind = (uint8_t)kind;
	n->line = p->tok[p->at].line;
	return n;
}

void parse_push(struct parser *p, struct node ***list, int *n, struct node *x)
{
	/* full at every power of two */
	if (!(*n & (*n - 1))) {
		struct node **more = parse_alloc(p, (size_t)(*n ? 2 * *n : 1) * sizeof(*more));

		if (*n)
			memcpy(more, *list, (size_t)*n * sizeof(*more));
		*list = more;
	}
	(*list)[(*n)++] = x;
}

struct str *parse_str(struct parser *p, const char *text, size_t len)
{
	struct str *s = parse_alloc(p, sizeof(*s));

	*s = (struct str){.p = text, .len = len, .ascii = -1};
	str_is_ascii(s);
	str_hash(s);
	return s;
}

int parse_symbol(struct parser *p, const char *name, size_t len)
{
	struct tmpl *t = p->t;

	for (int i = 0; i < t->n_sym; i++)
		if (t->sym[i]->len == len && !memcmp(t->sym[i]->p, name, len))
			return i;
	if (t->n_sym == MAX_NAMES)
		parse_fail(p, p->tok[p->at].line, "more than %d variables", MAX_NAMES);
	if (t->n_sym == p->cap_sym) {
		struct str **more;

		p->cap_sym = p->cap_sym ? 2 * p->cap_sym : 64;
		more = parse_alloc(p, (size_t)p->cap_sym * sizeof(*more));
		if (t->n_sym)
			memcpy(more, t->sym, (size_t)t->n_sym * sizeof(*more));
		t->sym = more;
	}
	t->sym[t->n_sym] = parse_str(p, name, len);
	return t->n_sym++;
}

static void mention(struct parser *p, const struct node *n)
{
	struct tmpl *t = p->t;

	if (!n || n->k.type != V_STR)
		return;
	for (int i = 0; i < t->n_mention; i++)
		if (str_equal(t->mention[i], n->k.s))
			return;
	if (t->n_mention == MAX_NAMES)
		parse_fail(p, n->line, "more than %d names", MAX_NAMES);
	if (t->n_mention == p->cap_mention) {
		struct str **more;

		p->cap_mention = p->cap_mention ? 2 * p->cap_mention : 64;
		more = parse_alloc(p, (size_t)p->cap_mention * sizeof(*more));
		if (t->n_mention)
			memcpy(more, t->mention, (size_t)t->n_mention * sizeof(*more));
		t->mention = more;
	}
	t->mention[t->n_mention++] = n->k.s;
}

/* ---- tokens ------------------------------------------------------------------------------------ */

static const struct token *now(const struct parser *p)
{
	return &p->tok[p->at];
}

static const struct token *next(struct parser *p)
{
	const struct token *t = now(p);

	if (t->type != T_EOF)
		p->at++;
	return t;
}

bool tok_is_op(const struct parser *p, const char *op)
{
	return now(p)->type == T_OP && !strcmp(now(p)->op, op);
}

static bool token_is_name(const struct token *t, const char *name)
{
	return t->type == T_NAME && t->len == strlen(name) && !memcmp(t->p, name, t->len);
}

bool tok_is_name(const struct parser *p, const char *name)
{
	return token_is_name(now(p), name);
}

bool tok_skip_op(struct parser *p, const char *op)
{
	bool is = tok_is_op(p, op);

	if (is)
		next(p);
	return is;
}

bool tok_skip_name(struct parser *p, const char *name)
{
	bool is = tok_is_name(p, name);

	if (is)
		next(p);
	return is;
}

const char *tok_describe(const struct token *t, char *buf, size_t size)
{
	static const char *const name[] = {
		[T_EOF] = "end of template", [T_DATA] = "text",
		[T_VAR_BEGIN] = "{{",	     [T_VAR_END] = "end of print statement",
		[T_BLOCK_BEGIN] = "{%",	     [T_BLOCK_END] = "end of statement block",
		[T_STRING] = "string",	     [T_INT] = "integer",
		[T_FLOAT] = "float",
	};

	if (t->type == T_OP)
		snprintf(buf, size, "%s", t->op);
	else if (t->type == T_NAME)
		snprintf(buf, size, "%.*s", (int)(t->len < 60 ? t->len : 60), t->p);
	else
		snprintf(buf, size, "%s", name[t->type]);
	return buf;
}

void tok_expect_op(struct parser *p, const char *op)
{
	char buf[80];

	if (!tok_skip_op(p, op))
		parse_fail(p, now(p)->line, "expected token '%s', got '%s'", op,
			   tok_describe(now(p), buf, sizeof(buf)));
}

const struct token *tok_expect(struct parser *p, enum tok type, const char *what)
{
	char buf[80];

	if (now(p)->type != type)
		parse_fail(p, now(p)->line, "expected token '%s', got '%s'", what,
			   tok_describe(now(p), buf, sizeof(buf)));
	return next(p);
}

static void deeper(struct parser *p)
{
	if (++p->depth > MAX_DEPTH)
		parse_fail(p, now(p)->line, "nested more than %d deep", MAX_DEPTH);
}

void parse_check_names(struct parser *p)
{
	const struct node *n = p->unknown;

	if (n)
		parse_fail(p, n->line, "no %s named '%.*s'", n->kind == N_TEST ? "test" : "filter",
			   (int)n->k.s->len, n->k.s->p);
}

/* ---- calls, filters, tests --------------------------------------------------------------------- */

static struct call_args *call_args(struct parser *p)
{
	struct call_args *c = parse_alloc(p, sizeof(*c));
	uint32_t line = now(p)->line;
	struct node **names = NULL;
	int n_names = 0;
	bool comma = false, ok = true;

	tok_expect_op(p, "(");
	while (!tok_is_op(p, ")")) {
		if (comma) {
			tok_expect_op(p, ",");
			if (tok_is_op(p, ")"))
				break;
		}
		comma = true;
		if (tok_skip_op(p, "*")) {
			ok = ok && !c->star && !c->star2;
			c->star = parse_expression(p, true);
		} else if (tok_skip_op(p, "**")) {
			ok = ok && !c->star2;
			c->star2 = parse_expression(p, true);
		} else if (now(p)->type == T_NAME && now(p)[1].type == T_OP &&
			   !strcmp(now(p)[1].op, "=")) {
			struct node *name = parse_node(p, N_CONST);

			name->k = v_str(parse_str(p, now(p)->p, now(p)->len));
			for (int i = 0; i < n_names; i++)
				if (str_equal(names[i]->k.s, name->k.s))
					parse_fail(p, line, "keyword argument repeated: %.*s",
						   (int)now(p)->len, now(p)->p);
			ok = ok && !c->star2 && n_names < MAX_NAMES;
			p->at += 2;
			parse_push(p, &names, &n_names, name);
			parse_push(p, &c->kw, &c->nkw, parse_expression(p, true));
		} else {
			ok = ok && !c->star && !c->star2 && !c->nkw;
			parse_push(p, &c->pos, &c->n, parse_expression(p, true));
		}
		if (!ok)
			parse_fail(p, line, "invalid syntax for function call expression");
	}
	tok_expect_op(p, ")");
	c->kwname = parse_alloc(p, (size_t)c->nkw * sizeof(*c->kwname) + 1);
	for (int i = 0; i < c->nkw; i++)
		c->kwname[i] = names[i]->k.s;
	return c;
}

struct node *parse_call(struct parser *p, struct node *of)
{
	struct node *n = parse_node(p, N_CALL);

	n->a = of;
	n->args = call_args(p);
	if (of->kind == N_ATTR && of->k.s->len == 3 && !memcmp(of->k.s->p, "get", 3) && n->args->n)
		mention(p, n->args->pos[0]);
	if (of->kind == N_NAME && str_equal(p->t->sym[of->sym], &(struct str){"strftime_now", 12}))
		p->t->date = true;
	return n;
}

/* A dotted name; none of ours has dots. */
static const struct token *dotted(struct parser *p)
{
	const struct token *t = tok_expect(p, T_NAME, "name");

	while (tok_skip_op(p, "."))
		tok_expect(p, T_NAME, "name");
	return t;
}

struct node *parse_filters(struct parser *p, struct node *of)
{
	while (tok_skip_op(p, "|")) {
		struct node *n = parse_node(p, N_FILTER);
		const struct token *t = dotted(p);

		n->a = of;
		n->k = v_str(parse_str(p, t->p, t->len));
		n->fn = find_filter(t->p, t->len);
		if (!n->fn && !p->soft && !p->unknown)
			p->unknown = n;
		if (tok_is_op(p, "(")) {
			n->args = call_args(p);
			for (int i = 0; i < n->args->n; i++)
				mention(p, n->args->pos[i]);
			for (int i = 0; i < n->args->nkw; i++)
				mention(p, n->args->kw[i]);
		}
		of = n;
	}
	return of;
}

static struct node *postfix(struct parser *p, struct node *n);
static struct node *primary(struct parser *p, bool with_namespace);

static struct node *test(struct parser *p, struct node *of)
{
	bool negated = tok_skip_name(p, "not");
	struct node *n = parse_node(p, N_TEST);
	const struct token *t = dotted(p), *a;

	n->a = of;
	n->flag = negated;
	n->k = v_str(parse_str(p, t->p, t->len));
	n->fn = find_test(t->p, t->len);
	if (!n->fn && !p->soft && !p->unknown)
		p->unknown = n;
	a = now(p);
	if (tok_is_op(p, "(")) {
		n->args = call_args(p);
	} else if ((a->type == T_NAME || a->type == T_STRING || a->type == T_INT ||
		    a->type == T_FLOAT || tok_is_op(p, "[") || tok_is_op(p, "{")) &&
		   !tok_is_name(p, "else") && !tok_is_name(p, "or") && !tok_is_name(p, "and")) {
		if (tok_is_name(p, "is"))
			parse_fail(p, a->line, "you cannot chain multiple tests with is");
		n->args = parse_alloc(p, sizeof(*n->args));
		parse_push(p, &n->args->pos, &n->args->n, postfix(p, primary(p, false)));
	}
	return n;
}

/* ---- what binds tightest ----------------------------------------------------------------------- */

static struct node *subscribed(struct parser *p)
{
	struct node *n, *first = NULL;

	if (!tok_is_op(p, ":")) {
		first = parse_expression(p, true);
		if (!tok_is_op(p, ":"))
			return first;
	}
	n = parse_node(p, N_SLICE);
	next(p);
	n->a = first;
	if (!tok_is_op(p, ":") && !tok_is_op(p, "]") && !tok_is_op(p, ","))
		n->b = parse_expression(p, true);
	if (tok_skip_op(p, ":") && !tok_is_op(p, "]") && !tok_is_op(p, ","))
		n->c = parse_expression(p, true);
	return n;
}

static struct node *subscript(struct parser *p, struct node *of)
{
	struct node *n, *k;
	const struct token *t;

	if (tok_skip_op(p, ".")) {
		t = next(p);
		if (t->type == T_NAME) {
			n = parse_node(p, N_ATTR);
			n->k = v_str(parse_str(p, t->p, t->len));
			n->fn = find_method(t->p, t->len);
			mention(p, n);
		} else if (t->type == T_INT) {
			n = parse_node(p, N_ITEM);
			n->b = parse_node(p, N_CONST);
			n->b->k = v_int(t->i);
		} else {
			parse_fail(p, t->line, "expected name or number");
		}
		n->a = of;
		return n;
	}
	n = parse_node(p, N_ITEM);
	n->a = of;
	next(p);
	k = parse_node(p, N_TUPLE);
	while (!tok_is_op(p, "]")) {
		if (k->n)
			tok_expect_op(p, ",");
		parse_push(p, &k->list, &k->n, subscribed(p));
	}
	tok_expect_op(p, "]");
	n->b = k->n == 1 ? k->list[0] : k;
	mention(p, n->b);
	return n;
}

static struct node *postfix(struct parser *p, struct node *n)
{
	for (;;) {
		if (tok_is_op(p, ".") || tok_is_op(p, "["))
			n = subscript(p, n);
		else if (tok_is_op(p, "("))
			n = parse_call(p, n);
		else
			return n;
	}
}

static struct node *list_or_dict(struct parser *p, bool dict)
{
	struct node *n = parse_node(p, dict ? N_DICT : N_LIST);
	const char *end = dict ? "}" : "]";

	next(p);
	while (!tok_is_op(p, end)) {
		if (n->n)
			tok_expect_op(p, ",");
		if (tok_is_op(p, end))
			break;
		parse_push(p, &n->list, &n->n, parse_expression(p, true));
		if (dict) {
			tok_expect_op(p, ":");
			parse_push(p, &n->list, &n->n, parse_expression(p, true));
		}
	}
	tok_expect_op(p, end);
	return n;
}

static struct node *name(struct parser *p, bool with_namespace)
{
	struct node *n = parse_node(p, N_CONST);
	const struct token *t = next(p), *attr;

	if (token_is_name(t, "true") || token_is_name(t, "True")) {
		n->k = v_bool(true);
	} else if (token_is_name(t, "false") || token_is_name(t, "False")) {
		n->k = v_bool(false);
	} else if (token_is_name(t, "none") || token_is_name(t, "None")) {
		n->k = v_none();
	} else if (with_namespace && tok_skip_op(p, ".")) {
		n->kind = N_NSREF;
		n->sym = parse_symbol(p, t->p, t->len);
		attr = tok_expect(p, T_NAME, "name");
		n->k = v_str(parse_str(p, attr->p, attr->len));
	} else {
		n->kind = N_NAME;
		n->sym = parse_symbol(p, t->p, t->len);
		n->k = v_str(p->t->sym[n->sym]);
		if (p->macro) {
			p->macro->varargs |= n->sym == p->t->sym_varargs;
			p->macro->kwargs |= n->sym == p->t->sym_kwargs;
			p->macro->caller |= n->sym == p->t->sym_caller;
		}
		if ((t->p[0] >= '0' && t->p[0] <= '9'))
			parse_fail(p, t->line, "invalid character in identifier");
	}
	return n;
}

static struct node *primary(struct parser *p, bool with_namespace)
{
	const struct token *t = now(p);
	struct node *n;
	char buf[80];
	size_t len = 0;
	char *text;

	deeper(p);
	if (t->type == T_NAME) {
		n = name(p, with_namespace);
	} else if (t->type == T_STRING) {
		n = parse_node(p, N_CONST);
		for (size_t i = 0; t[i].type == T_STRING; i++)
			len += t[i].len;
		text = parse_alloc(p, len + 1);
		for (len = 0; now(p)->type == T_STRING; next(p)) {
			memcpy(text + len, now(p)->p, now(p)->len);
			len += now(p)->len;
		}
		n->k = v_str(parse_str(p, text, len));
	} else if (t->type == T_INT || t->type == T_FLOAT) {
		n = parse_node(p, N_CONST);
		n->k = t->type == T_INT ? v_int(t->i) : v_float(t->f);
		next(p);
	} else if (tok_skip_op(p, "(")) {
		n = parse_tuple(p, true, NULL);
		tok_expect_op(p, ")");
	} else if (tok_is_op(p, "[") || tok_is_op(p, "{")) {
		n = list_or_dict(p, tok_is_op(p, "{"));
	} else {
		parse_fail(p, t->line, "unexpected '%s'", tok_describe(t, buf, sizeof(buf)));
	}
	p->depth--;
	return n;
}

static struct node *unary(struct parser *p, bool with_filter)
{
	struct node *n;

	deeper(p);
	if (tok_is_op(p, "-") || tok_is_op(p, "+")) {
		n = parse_node(p, tok_is_op(p, "-") ? N_NEG : N_POS);
		next(p);
		n->a = unary(p, false);
	} else {
		n = primary(p, false);
	}
	n = postfix(p, n);
	while (with_filter) {
		if (tok_is_op(p, "|"))
			n = parse_filters(p, n);
		else if (tok_skip_name(p, "is"))
			n = test(p, n);
		else if (tok_is_op(p, "("))
			n = parse_call(p, n);
		else
			break;
	}
	p->depth--;
	return n;
}

/* ---- operators --------------------------------------------------------------------------------- */

static struct node *binary_node(struct parser *p, enum op op, struct node *a,
				struct node *(*sub)(struct parser *))
{
	struct node *n = parse_node(p, N_BINARY);

	next(p);
	n->op = (uint8_t)op;
	n->a = a;
	n->b = sub(p);
	return n;
}

static struct node *plain_unary(struct parser *p)
{
	return unary(p, true);
}

static struct node *power(struct parser *p)
{
	struct node *n = plain_unary(p);

	while (tok_is_op(p, "**"))
		n = binary_node(p, OP_POW, n, plain_unary);
	return n;
}

static struct node *product(struct parser *p)
{
	static const struct {
		const char *text;
		enum op op;
	} ops[] = {{"*", OP_MUL}, {"/", OP_DIV}, {"//", OP_FLOORDIV}, {"%", OP_MOD}};
	struct node *n = power(p);
	bool more = true;

	while (more) {
		more = false;
		for (size_t i = 0; i < 4; i++) {
			if (tok_is_op(p, ops[i].text)) {
				n = binary_node(p, ops[i].op, n, power);
				more = true;
			}
		}
	}
	return n;
}

static struct node *concat(struct parser *p)
{
	struct node *first = product(p), *n;

	if (!tok_is_op(p, "~"))
		return first;
	n = parse_node(p, N_CONCAT);
	parse_push(p, &n->list, &n->n, first);
	while (tok_skip_op(p, "~"))
		parse_push(p, &n->list, &n->n, product(p));
	return n;
}

static struct node *sum(struct parser *p)
{
	struct node *n = concat(p);

	for (;;) {
		if (tok_is_op(p, "+"))
			n = binary_node(p, OP_ADD, n, concat);
		else if (tok_is_op(p, "-"))
			n = binary_node(p, OP_SUB, n, concat);
		else
			return n;
	}
}

static int comparison(struct parser *p)
{
	static const char *const ops[] = {"==", "!=", "<", "<=", ">", ">="};

	for (int i = 0; i < 6; i++)
		if (tok_skip_op(p, ops[i]))
			return CMP_EQ + i;
	if (tok_skip_name(p, "in"))
		return CMP_IN;
	if (tok_is_name(p, "not") && token_is_name(now(p) + 1, "in")) {
		p->at += 2;
		return CMP_NOT_IN;
	}
	return -1;
}

static struct node *compared(struct parser *p)
{
	struct node *first = sum(p), *n = NULL;
	int op;

	while ((op = comparison(p)) >= 0) {
		uint8_t *cmp;

		if (!n) {
			n = parse_node(p, N_COMPARE);
			parse_push(p, &n->list, &n->n, first);
		}
		if (op >= CMP_IN)
			mention(p, n->list[n->n - 1]);
		parse_push(p, &n->list, &n->n, sum(p));
		cmp = parse_alloc(p, (size_t)n->n);
		if (n->n > 2)
			memcpy(cmp, n->cmp, (size_t)n->n - 1);
		cmp[n->n - 1] = (uint8_t)op;
		n->cmp = cmp;
	}
	return n ? n : first;
}

static struct node *negation(struct parser *p)
{
	struct node *n;

	if (!tok_is_name(p, "not"))
		return compared(p);
	deeper(p);
	n = parse_node(p, N_NOT);
	next(p);
	n->a = negation(p);
	p->depth--;
	return n;
}

static struct node *conjunction(struct parser *p)
{
	struct node *left = negation(p), *n;

	while (tok_skip_name(p, "and")) {
		n = parse_node(p, N_AND);
		n->a = left;
		n->b = negation(p);
		left = n;
	}
	return left;
}

static struct node *disjunction(struct parser *p)
{
	struct node *left = conjunction(p), *n;

	while (tok_skip_name(p, "or")) {
		n = parse_node(p, N_OR);
		n->a = left;
		n->b = conjunction(p);
		left = n;
	}
	return left;
}

struct node *parse_expression(struct parser *p, bool with_cond)
{
	const struct node *unknown = p->unknown;
	struct node *n, *c;

	deeper(p);
	n = disjunction(p);
	if (with_cond && tok_is_name(p, "if"))
		p->unknown = unknown;
	while (with_cond && tok_is_name(p, "if")) {
		bool soft = p->soft;

		c = parse_node(p, N_COND);
		next(p);
		p->soft = true;
		c->b = n;
		c->a = disjunction(p);
		if (tok_skip_name(p, "else"))
			c->c = parse_expression(p, true);
		p->soft = soft;
		n = c;
	}
	p->depth--;
	return n;
}

static bool tuple_ends(const struct parser *p, const char *end)
{
	return now(p)->type == T_VAR_END || now(p)->type == T_BLOCK_END || tok_is_op(p, ")") ||
	       (end && tok_is_name(p, end));
}

static struct node *tuple(struct parser *p, bool targets, bool with_cond, bool with_namespace,
			  const char *end)
{
	struct node *t = parse_node(p, N_TUPLE);
	bool is_tuple = false, in_brackets = p->at && p->tok[p->at - 1].type == T_OP &&
					     !strcmp(p->tok[p->at - 1].op, "(");
	char buf[80];

	for (;;) {
		if (t->n)
			tok_expect_op(p, ",");
		if (tuple_ends(p, end))
			break;
		parse_push(p, &t->list, &t->n,
			   targets ? primary(p, with_namespace) : parse_expression(p, with_cond));
		if (!tok_is_op(p, ","))
			break;
		is_tuple = true;
	}
	if (is_tuple)
		return t;
	if (t->n)
		return t->list[0];
	if (!in_brackets)
		parse_fail(p, now(p)->line, "expected an expression, got '%s'",
			   tok_describe(now(p), buf, sizeof(buf)));
	return t;
}

struct node *parse_tuple(struct parser *p, bool with_cond, const char *end)
{
	return tuple(p, false, with_cond, false, end);
}

static void check_target(struct parser *p, const struct node *n)
{
	if (n->kind == N_TUPLE) {
		for (int i = 0; i < n->n; i++)
			check_target(p, n->list[i]);
	} else if (n->kind != N_NAME && n->kind != N_NSREF) {
		parse_fail(p, n->line, "can't assign to an expression");
	}
}

struct node *parse_target(struct parser *p, const char *end, bool with_namespace)
{
	struct node *n = tuple(p, true, false, with_namespace, end);

	check_target(p, n);
	return n;
}
