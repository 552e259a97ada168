// SPDX-License-Identifier: MIT
/*
 * GBNF: `name ::= alternatives`, as llama.cpp documents the notation. A rule goes on over line
 * breaks until the next `name ::=`. <name> is the token of that text.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "text/grammar/grammar_int.h"
#include "text/utf8.h"

#define GROUP_DEPTH 100
#define REPEAT_MAX  1000000u

struct named {
	const char *s;
	size_t n;
	uint32_t rule;
	size_t used_at; /* of its first use, for the message if it is never defined */
	uint32_t next; /* in the hash bucket, + 1 */
};

struct gbnf {
	struct gb *b;
	const char *s;
	size_t n, p;
	struct named *name;
	uint32_t n_name, cap_name;
	uint32_t bucket[1024]; /* + 1 */
	int depth;
};

static int bad(struct gbnf *g, size_t at, int rc, const char *why)
{
	size_t line = 1, column = 1;

	for (size_t i = 0; i < at && i < g->n; i++) {
		column++;
		if (g->s[i] == '\n') {
			line++;
			column = 1;
		}
	}
	return gb_fail(g->b, rc, "grammar: line %zu, column %zu: %s", line, column, why);
}

static void no_memory(struct gbnf *g)
{
	gb_fail(g->b, -ENOMEM, "grammar: out of memory: free some");
}

static bool more(const struct gbnf *g)
{
	return g->p < g->n && !g->b->rc;
}

static bool take(struct gbnf *g, const char *what)
{
	size_t k = strlen(what);

	if (g->n - g->p < k || memcmp(g->s + g->p, what, k))
		return false;
	g->p += k;
	return true;
}

static void skip_blanks(struct gbnf *g)
{
	while (g->p < g->n) {
		if (g->s[g->p] == '#') {
			while (g->p < g->n && g->s[g->p] != '\n')
				g->p++;
		} else if (memchr(" \t\r\n", g->s[g->p], 4)) {
			g->p++;
		} else {
			break;
		}
	}
}

static bool name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '-' || c == '_' || c == '.';
}

static size_t name_len(const struct gbnf *g, size_t p)
{
	size_t n = 0;

	if (p < g->n && (g->s[p] == '.' || (g->s[p] >= '0' && g->s[p] <= '9')))
		return 0;
	while (p + n < g->n && name_char(g->s[p + n]))
		n++;
	return n;
}

/* At `name ::=`: the next rule begins. */
static bool at_rule(const struct gbnf *g)
{
	size_t p = g->p, n = name_len(g, p);

	if (!n)
		return false;
	for (p += n; p < g->n && (g->s[p] == ' ' || g->s[p] == '\t'); p++)
		;
	return g->n - p >= 3 && !memcmp(g->s + p, "::=", 3);
}

static struct named *lookup(struct gbnf *g, size_t at, size_t n)
{
	uint32_t h = 5381, *head;
	struct named *v;

	for (size_t i = 0; i < n; i++)
		h = h * 33 + (uint8_t)g->s[at + i];
	head = &g->bucket[h & 1023];
	for (uint32_t i = *head; i; i = v->next) {
		v = &g->name[i - 1];
		if (v->n == n && !memcmp(v->s, g->s + at, n))
			return v;
	}
	if (g->n_name == g->cap_name) {
		uint32_t cap = g->cap_name ? g->cap_name * 2 : 32;

		v = realloc(g->name, cap * sizeof(*v));
		if (!v) {
			no_memory(g);
			return NULL;
		}
		g->name = v;
		g->cap_name = cap;
	}
	v = &g->name[g->n_name++];
	*v = (struct named){g->s + at, n, gb_rule(g->b), at, *head};
	*head = g->n_name;
	return g->b->rc ? NULL : v;
}

static uint32_t take_hex(struct gbnf *g, size_t at, int digits)
{
	uint32_t v = 0;

	for (int i = 0; i < digits; i++) {
		int c = g->p < g->n ? (unsigned char)g->s[g->p++] : 0;

		if (c >= '0' && c <= '9') {
			v = v * 16 + (uint32_t)(c - '0');
		} else if ((c | 32) >= 'a' && (c | 32) <= 'f') {
			v = v * 16 + (uint32_t)((c | 32) - 'a' + 10);
		} else {
			bad(g, at, -EINVAL, "hexadecimal digits are missing");
			return 0;
		}
	}
	if (v > 0x10ffff || (v >= 0xd800 && v < 0xe000)) {
		bad(g, at, -EINVAL, "not a character's number");
		return 0;
	}
	return v;
}

/* One character of a literal or a class. */
static uint32_t take_char(struct gbnf *g)
{
	static const char escapes[] = "n\nr\rt\t\\\\\"\"[[]]^^--''//..";
	size_t at = g->p;
	uint32_t cp = 0;
	int len;

	if (take(g, "\\")) {
		char c = g->p < g->n ? g->s[g->p++] : 0;

		if (c == 'x')
			return take_hex(g, at, 2);
		if (c == 'u')
			return take_hex(g, at, 4);
		if (c == 'U')
			return take_hex(g, at, 8);
		for (const char *p = escapes; c && *p; p += 2) {
			if (*p == c)
				return (uint8_t)p[1];
		}
		bad(g, at, -EINVAL, "an unknown escape");
		return 0;
	}
	len = utf8_decode((const uint8_t *)g->s + g->p, g->n - g->p, &cp, NULL);
	if (len < 1) {
		bad(g, at, -EINVAL, "not UTF-8");
		len = 1;
	}
	g->p += (size_t)len;
	return cp;
}

static gnode literal(struct gbnf *g)
{
	size_t at = g->p - 1, n = 0;
	char *text = malloc(g->n - g->p + 4);
	gnode x = 0;

	if (!text) {
		no_memory(g);
		return 0;
	}
	while (more(g) && g->s[g->p] != '"' && g->s[g->p] != '\n')
		n += (size_t)utf8_encode(take_char(g), text + n);
	if (!take(g, "\""))
		bad(g, at, -EINVAL, "a literal that is not closed");
	if (!g->b->rc)
		x = gb_bytes(g->b, text, n);
	free(text);
	return x;
}

static gnode char_class(struct gbnf *g)
{
	size_t at = g->p - 1;
	bool inverted = take(g, "^");
	struct cpset s = {0};
	gnode x = 0;
	int rc = 0;

	while (more(g) && g->s[g->p] != ']' && !rc) {
		uint32_t lo = take_char(g), hi = lo;

		if (g->p + 1 < g->n && g->s[g->p] == '-' && g->s[g->p + 1] != ']') {
			g->p++;
			hi = take_char(g);
			if (hi < lo)
				bad(g, at, -EINVAL, "a range whose end comes before its beginning");
		}
		rc = cpset_add(&s, lo, hi);
	}
	if (!take(g, "]"))
		bad(g, at, -EINVAL, "a class that is not closed: ']' is missing");
	if (inverted && !rc && !g->b->rc) {
		rc = cpset_add(&s, 0xd800, 0xdfff);
		rc = rc ? rc : cpset_invert(&s);
	}
	cpset_tidy(&s);
	if (rc)
		no_memory(g);
	else if (!g->b->rc)
		x = gb_class(g->b, &s, false);
	cpset_free(&s);
	return x;
}

/* <name>: the token that is spelt so. */
static gnode token(struct gbnf *g)
{
	size_t at = g->p - 1;
	char text[128];
	size_t n;

	while (more(g) && g->s[g->p] != '>' && g->s[g->p] != '\n')
		g->p++;
	if (!take(g, ">")) {
		bad(g, at, -EINVAL, "a token that is not closed: '>' is missing");
		return 0;
	}
	n = g->p - at;
	if (n < 3 || n >= sizeof(text) || g->s[at + 1] == '[') {
		bad(g, at, -EOPNOTSUPP, "a token is named by its text, <text>, of 1 to 125 bytes");
		return 0;
	}
	memcpy(text, g->s + at, n);
	text[n] = 0;
	return gb_mark(g->b, text);
}

static uint32_t take_number(struct gbnf *g)
{
	size_t at = g->p;
	uint32_t v = 0;

	while (g->p < g->n && g->s[g->p] >= '0' && g->s[g->p] <= '9') {
		v = v * 10 + (uint32_t)(g->s[g->p++] - '0');
		if (v > REPEAT_MAX) {
			bad(g, at, -E2BIG, "a repetition of more than 1000000");
			return 0;
		}
	}
	if (g->p == at)
		bad(g, at, -EINVAL, "a number is missing");
	return v;
}

static gnode quantified(struct gbnf *g, gnode x)
{
	while (more(g)) {
		size_t at = g->p;
		uint32_t min = 0, max = GB_INF;

		if (take(g, "*")) {
		} else if (take(g, "+")) {
			min = 1;
		} else if (take(g, "?")) {
			max = 1;
		} else if (take(g, "{")) {
			skip_blanks(g);
			if (more(g) && g->s[g->p] != ',')
				min = max = take_number(g);
			skip_blanks(g);
			if (take(g, ",")) {
				skip_blanks(g);
				max = more(g) && g->s[g->p] != '}' ? take_number(g) : GB_INF;
				skip_blanks(g);
			}
			if (!take(g, "}"))
				bad(g, at, -EINVAL, "a quantifier that is not closed");
			if (min > max)
				bad(g, at, -EINVAL, "a quantifier whose minimum is the larger");
		} else {
			break;
		}
		x = gb_rep(g->b, x, min, max);
	}
	return x;
}

static gnode alternatives(struct gbnf *g);

static gnode element(struct gbnf *g)
{
	size_t at = g->p, n;
	struct named *v;
	gnode x;

	if (take(g, "\""))
		return literal(g);
	if (take(g, "["))
		return char_class(g);
	if (take(g, "<"))
		return token(g);
	if (take(g, "."))
		return gj_any(g->b);
	if (take(g, "(")) {
		if (++g->depth > GROUP_DEPTH) {
			bad(g, at, -E2BIG, "groups nested too deeply");
			return 0;
		}
		x = alternatives(g);
		g->depth--;
		if (!take(g, ")"))
			bad(g, at, -EINVAL, "a group that is not closed: ')' is missing");
		return x;
	}
	n = name_len(g, g->p);
	if (!n) {
		bad(g, at, -EINVAL, "neither a literal, a class, a rule nor a group");
		return 0;
	}
	v = lookup(g, at, n);
	g->p += n;
	return v ? gb_call(g->b, v->rule) : 0;
}

static bool push(struct gbnf *g, gnode **v, size_t *n, size_t *cap, gnode x)
{
	if (*n == *cap) {
		size_t to = *cap ? *cap * 2 : 8;
		gnode *p = realloc(*v, to * sizeof(*p));

		if (!p) {
			no_memory(g);
			return false;
		}
		*v = p;
		*cap = to;
	}
	(*v)[(*n)++] = x;
	return true;
}

static gnode alternatives(struct gbnf *g)
{
	gnode *alt = NULL, *seq = NULL, x = 0;
	size_t n_alt = 0, cap_alt = 0, n_seq, cap_seq = 0;

	do {
		n_seq = 0;
		skip_blanks(g);
		while (more(g) && g->s[g->p] != '|' && g->s[g->p] != ')' && !at_rule(g)) {
			x = element(g);
			skip_blanks(g);
			x = quantified(g, x);
			skip_blanks(g);
			if (!push(g, &seq, &n_seq, &cap_seq, x))
				break;
		}
		if (!g->b->rc)
			push(g, &alt, &n_alt, &cap_alt, gb_list(g->b, GN_SEQ, seq, n_seq));
	} while (!g->b->rc && take(g, "|"));
	x = g->b->rc ? 0 : gb_list(g->b, GN_ALT, alt, n_alt);
	free(alt);
	free(seq);
	return x;
}

static void parse(struct gbnf *g)
{
	skip_blanks(g);
	while (more(g)) {
		size_t at = g->p;
		struct named *v;
		uint32_t rule;

		if (!at_rule(g)) {
			bad(g, at, -EINVAL, "`name ::=` is missing");
			return;
		}
		v = lookup(g, at, name_len(g, at));
		if (!v)
			return;
		if (g->b->rule[v->rule].defined) {
			bad(g, at, -EINVAL, "a rule that is defined already");
			return;
		}
		rule = v->rule;
		while (!take(g, "::="))
			g->p++;
		gb_define(g->b, rule, alternatives(g));
		if (!g->b->rc && g->p < g->n && g->s[g->p] == ')')
			bad(g, g->p, -EINVAL, "a ')' without '('");
	}
}

int grammar_gbnf(struct grammar **out, const char *text, size_t len, struct err *e)
{
	struct gb b;
	struct gbnf *g = calloc(1, sizeof(*g));
	uint32_t root = UINT32_MAX;

	gb_init(&b, e);
	if (!g) {
		gb_fail(&b, -ENOMEM, "grammar: out of memory: free some");
		return gb_finish(&b, 0, out);
	}
	*g = (struct gbnf){.b = &b, .s = text, .n = len};
	if (len > SOURCE_MAX)
		gb_fail(&b, -E2BIG, "grammar: longer than %u bytes: shorten it", SOURCE_MAX);
	parse(g);
	for (uint32_t i = 0; i < g->n_name && !b.rc; i++) {
		const struct named *v = &g->name[i];

		if (!b.rule[v->rule].defined)
			bad(g, v->used_at, -EINVAL, "a rule that is not defined");
		if (v->n == 4 && !memcmp(v->s, "root", 4))
			root = v->rule;
	}
	if (!b.rc && root == UINT32_MAX)
		gb_fail(&b, -EINVAL, "grammar: there is no rule `root`: name the first one so");
	free(g->name);
	free(g);
	return gb_finish(&b, root, out);
}
