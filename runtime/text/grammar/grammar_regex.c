// SPDX-License-Identifier: MIT
/*
 * Regular expressions in the usual syntax, over characters. What cannot be done by a finite
 * automaton (look-around, references back) and what would need tables (\p{...}) or state of the
 * surroundings (\b) is refused. Lazy quantifiers mean the same set of texts as greedy ones.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "text/grammar/grammar_int.h"
#include "text/utf8.h"

#define GROUP_DEPTH 100
#define REPEAT_MAX  1000000000u

struct rx {
	struct gb *b;
	const char *s;
	size_t n, p;
	bool search, json;
	int depth;
};

/* Growing list of nodes. */
struct nodes {
	gnode *v;
	size_t n, cap;
};

static void nodes_add(struct gb *b, struct nodes *l, gnode x)
{
	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 8;
		gnode *v = realloc(l->v, cap * sizeof(*v));

		if (!v) {
			gb_fail(b, -ENOMEM, "grammar: out of memory: free some");
			return;
		}
		l->v = v;
		l->cap = cap;
	}
	l->v[l->n++] = x;
}

static int bad(struct rx *r, size_t at, int rc, const char *why)
{
	return gb_fail(r->b, rc, "regular expression: at offset %zu: %s", at, why);
}

static bool more(const struct rx *r)
{
	return r->p < r->n && !r->b->rc;
}

static bool take(struct rx *r, const char *what)
{
	size_t k = strlen(what);

	if (r->n - r->p < k || memcmp(r->s + r->p, what, k))
		return false;
	r->p += k;
	return true;
}

static uint32_t take_char(struct rx *r)
{
	uint32_t cp = 0;
	int len = utf8_decode((const uint8_t *)r->s + r->p, r->n - r->p, &cp, NULL);

	if (len < 1) {
		bad(r, r->p, -EINVAL, "not UTF-8");
		len = 1;
	}
	r->p += (size_t)len;
	return cp;
}

static void add(struct rx *r, struct cpset *s, uint32_t lo, uint32_t hi)
{
	if (cpset_add(s, lo, hi))
		gb_fail(r->b, -ENOMEM, "grammar: out of memory: free some");
}

static void add_all(struct rx *r, struct cpset *s, const struct cpset *x)
{
	for (uint32_t i = 0; i < x->n; i++)
		add(r, s, x->v[i].lo, x->v[i].hi);
}

/* All but what is in s; surrogates are no characters. */
static void invert(struct rx *r, struct cpset *s)
{
	add(r, s, 0xd800, 0xdfff);
	if (!r->b->rc && cpset_invert(s))
		gb_fail(r->b, -ENOMEM, "grammar: out of memory: free some");
}

/* \d \w \s as in ECMA 262 (digits and word characters of ASCII); true if c names one. */
static bool named_class(struct rx *r, char c, struct cpset *out)
{
	static const struct cprange space[] = {
		{9, 13},	  {0x20, 0x20},	    {0xa0, 0xa0},     {0x1680, 0x1680},
		{0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f},
		{0x3000, 0x3000}, {0xfeff, 0xfeff},
	};
	struct cpset s = {0};

	switch (c | 32) {
	case 'w':
		add(r, &s, 'A', 'Z');
		add(r, &s, 'a', 'z');
		add(r, &s, '_', '_');
		/* fall through */
	case 'd':
		add(r, &s, '0', '9');
		break;
	case 's':
		for (size_t i = 0; i < sizeof(space) / sizeof(*space); i++)
			add(r, &s, space[i].lo, space[i].hi);
		break;
	default:
		return false;
	}
	if (c >= 'A' && c <= 'Z')
		invert(r, &s);
	add_all(r, out, &s);
	cpset_free(&s);
	return true;
}

static uint32_t take_hex(struct rx *r, size_t at, int digits)
{
	uint32_t v = 0;

	for (int i = 0; i < digits; i++) {
		int c = r->p < r->n ? (unsigned char)r->s[r->p++] : 0;

		if (c >= '0' && c <= '9')
			v = v * 16 + (uint32_t)(c - '0');
		else if ((c | 32) >= 'a' && (c | 32) <= 'f')
			v = v * 16 + (uint32_t)((c | 32) - 'a' + 10);
		else {
			bad(r, at, -EINVAL, "hexadecimal digits are missing");
			return 0;
		}
	}
	return v;
}

/* \u{...} and \x{...}, behind the brace */
static uint32_t take_braced_hex(struct rx *r, size_t at)
{
	uint32_t v = 0;
	int n = 0;

	while (more(r) && r->s[r->p] != '}' && n++ < 6)
		v = v * 16 + take_hex(r, at, 1);
	if (!n || !take(r, "}") || v > 0x10ffff)
		bad(r, at, -EINVAL, "not a character's number in braces");
	return v;
}

/* The character of an escape, its backslash read. */
static uint32_t escaped_char(struct rx *r, size_t at)
{
	static const char names[] = "n\nr\rt\tf\fv\v";
	uint32_t c, low;

	if (!more(r)) {
		bad(r, at, -EINVAL, "a backslash at the end");
		return 0;
	}
	c = take_char(r);
	for (const char *p = names; *p; p += 2) {
		if ((uint32_t)(uint8_t)*p == c)
			return (uint8_t)p[1];
	}
	if (c == 'u' || c == 'x') {
		uint32_t v;

		if (take(r, "{"))
			return take_braced_hex(r, at);
		v = take_hex(r, at, c == 'u' ? 4 : 2);
		if (v >= 0xd800 && v < 0xdc00 && take(r, "\\u")) {
			low = take_hex(r, at, 4);
			if (low >= 0xdc00 && low < 0xe000)
				return 0x10000 + ((v - 0xd800) << 10) + (low - 0xdc00);
		}
		if (v >= 0xd800 && v < 0xe000)
			bad(r, at, -EINVAL, "half of a surrogate pair");
		return v;
	}
	if (c == '0' && !(more(r) && r->s[r->p] >= '0' && r->s[r->p] <= '9'))
		return 0;
	if (c == 'c') {
		c = more(r) ? take_char(r) : 0;
		if ((c | 32) < 'a' || (c | 32) > 'z')
			bad(r, at, -EINVAL, "\\c needs a letter");
		return c & 31;
	}
	if ((c >= '0' && c <= '9') || c == 'k')
		bad(r, at, -EOPNOTSUPP, "references back to a group are not supported");
	else if (c == 'b' || c == 'B')
		bad(r, at, -EOPNOTSUPP, "word boundaries are not supported");
	else if (c == 'p' || c == 'P')
		bad(r, at, -EOPNOTSUPP, "Unicode properties are not supported: list the ranges");
	else if (c == 'A' || c == 'Z' || c == 'z')
		bad(r, at, -EOPNOTSUPP, "use ^ and $ to anchor");
	else if ((c | 32) >= 'a' && (c | 32) <= 'z')
		bad(r, at, -EINVAL, "an unknown escape");
	return c;
}

/* One end of a range in a class, or a named class (then false). */
static bool class_atom(struct rx *r, struct cpset *s, uint32_t *c)
{
	size_t at = r->p;

	if (r->s[r->p] == '[' && r->p + 1 < r->n && r->s[r->p + 1] == ':') {
		bad(r, at, -EOPNOTSUPP, "[:name:] is not supported: list the ranges");
		return false;
	}
	if (!take(r, "\\")) {
		*c = take_char(r);
		return true;
	}
	if (r->p < r->n && named_class(r, r->s[r->p], s)) {
		r->p++;
		return false;
	}
	if (take(r, "b"))
		*c = 8;
	else
		*c = escaped_char(r, at);
	return true;
}

static gnode class_node(struct rx *r, struct cpset *s)
{
	gnode x;

	cpset_tidy(s);
	x = r->b->rc ? 0 : gb_class(r->b, s, r->json);
	cpset_free(s);
	return x;
}

static gnode char_class(struct rx *r)
{
	size_t at = r->p - 1;
	bool inverted = take(r, "^"), closed = false;
	struct cpset s = {0};

	for (bool first = true; more(r); first = false) {
		uint32_t lo, hi;

		if (!first && (closed = take(r, "]")))
			break;
		if (first && take(r, "]")) {
			/* ECMA: an empty class; elsewhere a bracket. Neither is likely meant. */
			bad(r, at, -EINVAL, "an empty class: escape a bracket that is meant");
			break;
		}
		if (!class_atom(r, &s, &lo))
			continue;
		hi = lo;
		if (r->p + 1 < r->n && r->s[r->p] == '-' && r->s[r->p + 1] != ']') {
			size_t dash = r->p++;

			if (!class_atom(r, &s, &hi)) {
				add(r, &s, '-', '-');
				hi = lo;
			} else if (hi < lo) {
				bad(r, dash, -EINVAL,
				    "a range whose end comes before its beginning");
			}
		}
		add(r, &s, lo, hi);
	}
	if (!closed)
		bad(r, at, -EINVAL, "a class that is not closed: ']' is missing");
	if (inverted && !r->b->rc)
		invert(r, &s);
	return class_node(r, &s);
}

static bool take_number(struct rx *r, uint32_t *v)
{
	size_t from = r->p;
	uint64_t n = 0;

	while (r->p < r->n && r->s[r->p] >= '0' && r->s[r->p] <= '9') {
		n = n * 10 + (uint64_t)(r->s[r->p++] - '0');
		if (n > REPEAT_MAX) {
			bad(r, from, -E2BIG, "a repetition of more than 1000000000");
			n = REPEAT_MAX;
		}
	}
	*v = (uint32_t)n;
	return r->p > from;
}

/* A quantifier behind x, if there is one. */
static gnode quantified(struct rx *r, gnode x)
{
	while (more(r)) {
		size_t at = r->p;
		uint32_t min = 0, max = GB_INF;

		if (take(r, "*")) {
		} else if (take(r, "+")) {
			min = 1;
		} else if (take(r, "?")) {
			max = 1;
		} else if (take(r, "{")) {
			if (!take_number(r, &min)) {
				if (!take(r, ",") || !take_number(r, &max) || !take(r, "}")) {
					/* not a quantifier: a brace */
					r->p = at;
					return x;
				}
			} else {
				max = min;
				if (take(r, ",") && !take_number(r, &max))
					max = GB_INF;
				if (!take(r, "}"))
					bad(r, at, -EINVAL, "a quantifier that is not closed");
			}
			if (min > max)
				bad(r, at, -EINVAL, "a quantifier whose minimum is the larger");
		} else {
			return x;
		}
		if (!take(r, "?") && take(r, "+"))
			bad(r, at, -EOPNOTSUPP, "possessive quantifiers are not supported");
		if (more(r) && (r->s[r->p] == '*' || r->s[r->p] == '+' || r->s[r->p] == '?'))
			bad(r, at, -EINVAL, "a quantifier of a quantifier: use a group");
		x = gb_rep(r->b, x, min, max);
	}
	return x;
}

static gnode alternatives(struct rx *r, bool outer);

static gnode group(struct rx *r)
{
	size_t at = r->p - 1;
	gnode x;

	if (take(r, "?")) {
		if (take(r, ":")) {
		} else if (take(r, "P<") || (r->p + 1 < r->n && r->s[r->p] == '<' &&
					     r->s[r->p + 1] != '=' && r->s[r->p + 1] != '!')) {
			while (more(r) && !take(r, ">"))
				r->p++;
		} else if (r->p < r->n && memchr("=!<", r->s[r->p], 3)) {
			bad(r, at, -EOPNOTSUPP, "looking ahead or behind is not supported");
		} else {
			bad(r, at, -EOPNOTSUPP, "this kind of group is not supported");
		}
	}
	if (++r->depth > GROUP_DEPTH)
		bad(r, at, -E2BIG, "groups nested too deeply");
	if (r->b->rc)
		return 0;
	x = alternatives(r, false);
	r->depth--;
	if (!take(r, ")"))
		bad(r, at, -EINVAL, "a group that is not closed: ')' is missing");
	return x;
}

static gnode atom(struct rx *r)
{
	size_t at = r->p;
	struct cpset s = {0};
	uint32_t c;

	if (take(r, "("))
		return group(r);
	if (take(r, "["))
		return char_class(r);
	if (take(r, ".")) {
		add(r, &s, '\n', '\n');
		add(r, &s, '\r', '\r');
		if (!r->b->rc)
			invert(r, &s);
		return class_node(r, &s);
	}
	if (take(r, "\\")) {
		if (r->p < r->n && named_class(r, r->s[r->p], &s)) {
			r->p++;
			return class_node(r, &s);
		}
		c = escaped_char(r, at);
		return r->b->rc ? 0 : gb_cp(r->b, c, r->json);
	}
	if (memchr("*+?", r->s[r->p], 3)) {
		bad(r, at, -EINVAL, "nothing to repeat");
		return 0;
	}
	c = take_char(r);
	return r->b->rc ? 0 : gb_cp(r->b, c, r->json);
}

/* Anything before or behind a match that may be anywhere. */
static gnode rest(struct rx *r)
{
	return gb_rep(r->b, r->json ? gj_char(r->b) : gj_any(r->b), 0, GB_INF);
}

static gnode branch(struct rx *r, bool outer)
{
	struct nodes l = {0};
	bool head = false, tail = false;
	gnode x;

	while (more(r) && r->s[r->p] != '|' && !(r->s[r->p] == ')' && !outer)) {
		size_t at = r->p;

		if (outer && r->s[r->p] == ')') {
			bad(r, at, -EINVAL, "a ')' without '('");
			break;
		}
		if (take(r, "^")) {
			if (!outer || l.n)
				bad(r, at, -EOPNOTSUPP,
				    "^ is supported at the beginning of an alternative only");
			head = true;
			continue;
		}
		if (take(r, "$")) {
			if (!outer || (r->p < r->n && r->s[r->p] != '|'))
				bad(r, at, -EOPNOTSUPP,
				    "$ is supported at the end of an alternative only");
			tail = true;
			continue;
		}
		x = atom(r);
		nodes_add(r->b, &l, quantified(r, x));
	}
	x = gb_list(r->b, GN_SEQ, l.v, l.n);
	free(l.v);
	if (outer && r->search) {
		x = gb_seq(r->b, head ? gb_empty(r->b) : rest(r), x,
			   tail ? gb_empty(r->b) : rest(r));
	}
	return x;
}

static gnode alternatives(struct rx *r, bool outer)
{
	struct nodes l = {0};
	gnode x;

	do {
		nodes_add(r->b, &l, branch(r, outer));
	} while (!r->b->rc && take(r, "|"));
	x = r->b->rc ? 0 : gb_list(r->b, GN_ALT, l.v, l.n);
	free(l.v);
	return x;
}

gnode gb_regex(struct gb *b, const char *pattern, size_t len, bool search, bool json)
{
	struct rx r = {.b = b, .s = pattern, .n = len, .search = search, .json = json};

	if (len > SOURCE_MAX) {
		gb_fail(b, -E2BIG, "regular expression: longer than %u bytes: shorten it",
			SOURCE_MAX);
		return 0;
	}
	return b->rc ? 0 : alternatives(&r, true);
}

int grammar_regex(struct grammar **out, const char *pattern, size_t len, struct err *e)
{
	struct gb b;
	uint32_t root;

	gb_init(&b, e);
	root = gb_rule(&b);
	gb_define(&b, root, gb_regex(&b, pattern, len, false, false));
	return gb_finish(&b, root, out);
}
