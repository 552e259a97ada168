// SPDX-License-Identifier: MIT
/* Statements, and tmpl_compile(). A compiled template is one arena; nothing in it changes later. */
#include <errno.h>
#include <stdlib.h>

#include "text/template/tmpl_int.h"

#define MAX_NESTED 100 /* statements within statements */

static const struct token *now(const struct parser *p)
{
	return &p->tok[p->at];
}

/* ---- bodies ------------------------------------------------------------------------------------ */

/* Which of `ends` (names, NULL at the end) follows "{%". */
static int ends_here(const struct parser *p, const char *const *ends)
{
	for (int i = 0; ends && ends[i]; i++)
		if (tok_is_name(p, ends[i]))
			return i;
	return -1;
}

static struct node *statement(struct parser *p);

/* Statements until one of `ends`, which is left as the current token; its index. */
static int statements(struct parser *p, const char *const *ends, struct node ***list, int *n)
{
	struct node *x;
	int end;

	for (;;) {
		const struct token *t = now(p);

		switch (t->type) {
		case T_EOF:
			if (ends)
				parse_fail(p, t->line, "unexpected end of template: expected '%s'",
					   ends[0]);
			return -1;
		case T_DATA:
			x = parse_node(p, S_DATA);
			x->k = v_str(parse_str(p, t->p, t->len));
			p->at++;
			parse_push(p, list, n, x);
			break;
		case T_VAR_BEGIN:
			x = parse_node(p, S_PRINT);
			p->at++;
			x->a = parse_tuple(p, true, NULL);
			tok_expect(p, T_VAR_END, "end of print statement");
			parse_check_names(p);
			parse_push(p, list, n, x);
			break;
		case T_BLOCK_BEGIN:
			p->at++;
			end = ends_here(p, ends);
			if (end >= 0)
				return end;
			x = statement(p);
			parse_check_names(p);
			parse_push(p, list, n, x);
			tok_expect(p, T_BLOCK_END, "end of statement block");
			break;
		default:
			parse_fail(p, t->line, "unexpected token");
		}
	}
}

/* The end of the opening tag, then statements up to and without the tag of one of `ends`. */
static int body(struct parser *p, const char *const *ends, struct node ***list, int *n)
{
	int end;

	tok_skip_op(p, ":");
	tok_expect(p, T_BLOCK_END, "end of statement block");
	parse_check_names(p);
	if (++p->depth > MAX_NESTED)
		parse_fail(p, now(p)->line, "nested more than %d deep", MAX_NESTED);
	end = statements(p, ends, list, n);
	p->depth--;
	p->at++; /* its name */
	return end;
}

/* ---- statements -------------------------------------------------------------------------------- */

static struct node *parse_if(struct parser *p)
{
	static const char *const ends[] = {"elif", "else", "endif", NULL};
	static const char *const last[] = {"endif", NULL};
	struct node *n = parse_node(p, S_IF), *branch;
	bool soft = p->soft;
	int end;

	p->soft = true;
	do {
		branch = parse_node(p, S_SCOPE);
		p->at++;
		branch->a = parse_tuple(p, false, NULL);
		end = body(p, ends, &branch->list, &branch->n);
		parse_push(p, &n->list, &n->n, branch);
		if (!end)
			p->at--;
	} while (!end);
	if (end == 1) {
		branch = parse_node(p, S_SCOPE);
		body(p, last, &branch->list, &branch->n);
		parse_push(p, &n->list, &n->n, branch);
	}
	p->soft = soft;
	return n;
}

static struct node *parse_for(struct parser *p)
{
	static const char *const ends[] = {"endfor", "else", NULL};
	static const char *const last[] = {"endfor", NULL};
	struct node *n = parse_node(p, S_FOR);
	bool soft = p->soft;

	p->at++;
	n->a = parse_target(p, "in", false);
	if (n->a->kind == N_NAME && n->a->sym == p->t->sym_loop)
		parse_fail(p, n->line, "can't assign to special loop variable in for-loop target");
	if (!tok_skip_name(p, "in"))
		parse_fail(p, now(p)->line, "expected token 'in' in for loop");
	n->b = parse_tuple(p, false, "recursive");
	p->soft = false;
	if (tok_skip_name(p, "if"))
		n->c = parse_expression(p, true);
	n->flag = tok_skip_name(p, "recursive");
	p->loops++;
	if (body(p, ends, &n->list, &n->n) == 1) {
		struct node *other = parse_node(p, S_SCOPE);

		p->loops--;
		body(p, last, &other->list, &other->n);
		p->loops++;
		n->args = parse_alloc(p, sizeof(*n->args));
		parse_push(p, &n->args->pos, &n->args->n, other);
	}
	p->loops--;
	p->soft = soft;
	return n;
}

static struct node *parse_set(struct parser *p)
{
	static const char *const ends[] = {"endset", NULL};
	struct node *n = parse_node(p, S_SET), *empty;

	p->at++;
	n->a = parse_target(p, NULL, true);
	if (tok_skip_op(p, "=")) {
		n->b = parse_tuple(p, true, NULL);
		return n;
	}
	n->kind = S_SET_BLOCK;
	if (tok_is_op(p, "|")) {
		empty = parse_node(p, N_CONST);
		n->b = parse_filters(p, empty);
	}
	body(p, ends, &n->list, &n->n);
	return n;
}

static void parameters(struct parser *p, struct macro_def *m)
{
	struct node **names = NULL;
	int n_names = 0;
	bool defaults = false;

	tok_expect_op(p, "(");
	while (!tok_is_op(p, ")")) {
		struct node *x, *def = NULL;

		if (n_names)
			tok_expect_op(p, ",");
		x = parse_node(p, N_NAME);
		tok_expect(p, T_NAME, "name");
		p->at--;
		x->sym = parse_symbol(p, now(p)->p, now(p)->len);
		p->at++;
		for (int i = 0; i < n_names; i++)
			if (names[i]->sym == x->sym)
				parse_fail(p, x->line, "duplicate argument in macro definition");
		if (tok_skip_op(p, "=")) {
			def = parse_expression(p, true);
			defaults = true;
		} else if (defaults) {
			parse_fail(p, x->line, "non-default argument follows default argument");
		}
		parse_push(p, &names, &n_names, x);
		parse_push(p, &m->def, &m->n, def);
	}
	tok_expect_op(p, ")");
	m->param = parse_alloc(p, (size_t)n_names * sizeof(*m->param) + 1);
	for (int i = 0; i < n_names; i++)
		m->param[i] = names[i]->sym;
}

/* The body of a macro: loops outside cannot be left from it. */
static void macro_body(struct parser *p, struct node *n, const char *const *ends)
{
	struct macro_def *outer = p->macro;
	int loops = p->loops;
	bool soft = p->soft;

	p->macro = n->macro;
	p->loops = 0;
	p->soft = false;
	body(p, ends, &n->list, &n->n);
	p->macro = outer;
	p->loops = loops;
	p->soft = soft;
	/* what an inner macro uses counts for the outer one too */
	if (outer) {
		outer->varargs |= n->macro->varargs;
		outer->kwargs |= n->macro->kwargs;
		outer->caller |= n->macro->caller;
	}
	for (int i = 0; i < n->macro->n; i++) {
		if (n->macro->param[i] == p->t->sym_caller) {
			bool uses = n->macro->caller;

			n->macro->caller = false;
			if (uses && !n->macro->def[i])
				parse_fail(p, n->line,
					   "the \"caller\" argument must be omitted or be given a "
					   "default");
		}
		if (n->macro->param[i] == p->t->sym_varargs)
			n->macro->varargs = false;
		if (n->macro->param[i] == p->t->sym_kwargs)
			n->macro->kwargs = false;
	}
}

static struct node *parse_macro(struct parser *p)
{
	static const char *const ends[] = {"endmacro", NULL};
	struct node *n = parse_node(p, S_MACRO);
	const struct token *t;

	p->at++;
	t = tok_expect(p, T_NAME, "name");
	n->sym = parse_symbol(p, t->p, t->len);
	n->macro = parse_alloc(p, sizeof(*n->macro));
	n->macro->name = p->t->sym[n->sym];
	parameters(p, n->macro);
	macro_body(p, n, ends);
	return n;
}

static struct node *parse_call_block(struct parser *p)
{
	static const char *const ends[] = {"endcall", NULL};
	struct node *n = parse_node(p, S_CALL);

	p->at++;
	n->macro = parse_alloc(p, sizeof(*n->macro));
	if (tok_is_op(p, "("))
		parameters(p, n->macro);
	n->a = parse_expression(p, true);
	if (n->a->kind != N_CALL)
		parse_fail(p, n->line, "expected call");
	macro_body(p, n, ends);
	return n;
}

static struct node *parse_filter_block(struct parser *p)
{
	static const char *const ends[] = {"endfilter", NULL};
	struct node *n = parse_node(p, S_FILTER);
	struct token *tag = &p->tok[p->at];

	/* "filter a|b" reads as "|a|b" */
	*tag = (struct token){.type = T_OP, .line = tag->line, .op = "|"};
	n->b = parse_filters(p, parse_node(p, N_CONST));
	body(p, ends, &n->list, &n->n);
	return n;
}

static struct node *parse_with(struct parser *p)
{
	static const char *const ends[] = {"endwith", NULL};
	struct node *n = parse_node(p, S_WITH);
	struct call_args *c = parse_alloc(p, sizeof(*c));

	p->at++;
	while (now(p)->type != T_BLOCK_END && !tok_is_op(p, ":")) {
		if (c->n)
			tok_expect_op(p, ",");
		parse_push(p, &c->pos, &c->n, parse_target(p, NULL, false));
		tok_expect_op(p, "=");
		parse_push(p, &c->kw, &c->nkw, parse_expression(p, true));
	}
	n->args = c;
	body(p, ends, &n->list, &n->n);
	return n;
}

/* generation, block and autoescape: a scope of their own. */
static struct node *parse_scope(struct parser *p, const char *name)
{
	const char *ends[] = {name, NULL};
	struct node *n = parse_node(p, S_SCOPE);
	bool soft = p->soft;

	p->soft = false;
	p->at++;
	if (!strcmp(name, "endblock")) {
		const struct token *t = tok_expect(p, T_NAME, "name");

		tok_skip_name(p, "scoped");
		tok_skip_name(p, "required");
		body(p, ends, &n->list, &n->n);
		if (now(p)->type == T_NAME && now(p)->len == t->len &&
		    !memcmp(now(p)->p, t->p, t->len))
			p->at++;
	} else if (!strcmp(name, "endautoescape")) {
		struct node *x = parse_expression(p, true);

		if (x->kind != N_CONST || truth(x->k))
			parse_fail(p, n->line, "autoescape is not supported in chat templates");
		body(p, ends, &n->list, &n->n);
	} else {
		/* its body is a caller to jinja2: loops outside cannot be left from it */
		int loops = p->loops;

		p->loops = 0;
		body(p, ends, &n->list, &n->n);
		p->loops = loops;
	}
	p->soft = soft;
	return n;
}

static struct node *parse_print(struct parser *p)
{
	struct node *n = parse_node(p, S_SCOPE), *x;

	p->at++;
	while (now(p)->type != T_BLOCK_END) {
		if (n->n)
			tok_expect_op(p, ",");
		x = parse_node(p, S_PRINT);
		x->a = parse_expression(p, true);
		parse_push(p, &n->list, &n->n, x);
	}
	return n;
}

static struct node *parse_jump(struct parser *p, enum kind kind)
{
	struct node *n = parse_node(p, kind);

	if (!p->loops)
		parse_fail(p, n->line, "'%s' outside loop", kind == S_BREAK ? "break" : "continue");
	p->at++;
	return n;
}

static struct node *statement(struct parser *p)
{
	static const char *const files[] = {"include", "extends", "import", "from", NULL};
	const struct token *t = now(p);
	char buf[80];

	if (t->type != T_NAME)
		parse_fail(p, t->line, "tag name expected");
	if (tok_is_name(p, "if"))
		return parse_if(p);
	if (tok_is_name(p, "for"))
		return parse_for(p);
	if (tok_is_name(p, "set"))
		return parse_set(p);
	if (tok_is_name(p, "macro"))
		return parse_macro(p);
	if (tok_is_name(p, "call"))
		return parse_call_block(p);
	if (tok_is_name(p, "filter"))
		return parse_filter_block(p);
	if (tok_is_name(p, "with"))
		return parse_with(p);
	if (tok_is_name(p, "generation"))
		return parse_scope(p, "endgeneration");
	if (tok_is_name(p, "block"))
		return parse_scope(p, "endblock");
	if (tok_is_name(p, "autoescape"))
		return parse_scope(p, "endautoescape");
	if (tok_is_name(p, "print"))
		return parse_print(p);
	if (tok_is_name(p, "break"))
		return parse_jump(p, S_BREAK);
	if (tok_is_name(p, "continue"))
		return parse_jump(p, S_CONTINUE);
	tok_describe(t, buf, sizeof(buf));
	if (ends_here(p, files) >= 0)
		parse_fail(p, t->line, "'%s' is not supported: a chat template stands alone", buf);
	parse_fail(p, t->line, "encountered unknown tag '%s'", buf);
}

static void parse_template(struct parser *p)
{
	struct node *n = parse_node(p, S_SCOPE);

	statements(p, NULL, &n->list, &n->n);
	p->t->body = n;
}

/* ---- the API ----------------------------------------------------------------------------------- */

#define COMPILE_MEMORY (256u << 20)

int tmpl_compile(struct tmpl **out, const char *source, size_t len, struct err *e)
{
	struct parser p = {.e = e, .src = source, .n = len};
	struct tmpl *t = calloc(1, sizeof(*t));

	*out = NULL;
	if (!t)
		return err_set(e, -ENOMEM, "template: no memory");
	t->arena.limit = COMPILE_MEMORY;
	t->locale = newlocale(LC_ALL_MASK, "C.UTF-8", NULL);
	if (!t->locale)
		t->locale = newlocale(LC_ALL_MASK, "C", NULL);
	if (!t->locale) {
		tmpl_free(t);
		return err_set(e, -ENOMEM, "template: no memory");
	}
	p.t = t;
	if (setjmp(p.jmp)) {
		tmpl_free(t);
		return p.rc;
	}
	lex(&p);
	t->sym_loop = parse_symbol(&p, "loop", 4);
	t->sym_caller = parse_symbol(&p, "caller", 6);
	t->sym_varargs = parse_symbol(&p, "varargs", 7);
	t->sym_kwargs = parse_symbol(&p, "kwargs", 6);
	parse_template(&p);
	*out = t;
	return 0;
}

void tmpl_free(struct tmpl *t)
{
	if (!t)
		return;
	arena_free(&t->arena);
	if (t->locale)
		freelocale(t->locale);
	free(t);
}

bool tmpl_uses_date(const struct tmpl *t)
{
	return t->date;
}

bool tmpl_mentions(const struct tmpl *t, const char *name)
{
	const struct str s = {.p = name, .len = strlen(name)};

	for (int i = 4; i < t->n_sym; i++)
		if (str_equal(t->sym[i], &s))
			return true;
	for (int i = 0; i < t->n_mention; i++)
		if (str_equal(t->mention[i], &s))
			return true;
	return false;
}
