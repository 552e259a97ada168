// SPDX-License-Identifier: MIT
/*
 * JSON's parts as nodes. White space is bounded: models that may write it without end sometimes
 * do. After ':' one space may follow; after ',' and inside brackets nothing, one space, or a line
 * break with an indentation. Numbers are bounded to what readers take without loss or overflow.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/grammar/grammar_int.h"
#include "text/utf8.h"

#define INDENT_MAX    40
#define INT_DIGITS    18
#define FRAC_DIGITS   20
#define LITERAL_DEPTH 64

static gnode digit(struct gb *b)
{
	return gb_range(b, '0', '9');
}

static gnode hex(struct gb *b)
{
	struct byteset s = {0};

	set_add(&s, '0', '9');
	set_add(&s, 'a', 'f');
	set_add(&s, 'A', 'F');
	return gb_set(b, &s);
}

static gnode set_of(struct gb *b, const char *chars)
{
	struct byteset s = {0};

	for (; *chars; chars++)
		set_add(&s, (uint8_t)*chars, (uint8_t)*chars);
	return gb_set(b, &s);
}

gnode gj_ws(struct gb *b)
{
	if (!b->ws) {
		uint32_t r = gb_rule(b);

		gb_define(b, r,
			  gb_alt(b, gb_empty(b), gb_lit(b, " "),
				 gb_seq(b, gb_lit(b, "\n"),
					gb_rep(b, set_of(b, " \t"), 0, INDENT_MAX))));
		b->ws = r + 1;
	}
	return gb_call(b, b->ws - 1);
}

static gnode colon(struct gb *b)
{
	return gb_seq(b, gb_lit(b, ":"), gb_opt(b, gb_lit(b, " ")));
}

static gnode comma(struct gb *b)
{
	return gb_seq(b, gb_lit(b, ","), gj_ws(b));
}

gnode gj_any(struct gb *b)
{
	struct cprange r[] = {{0, 0xd7ff}, {0xe000, 0x10ffff}};
	struct cpset s = {.v = r, .n = 2};

	return gb_class(b, &s, false);
}

gnode gj_plain(struct gb *b)
{
	struct cprange r[] = {{0x20, 0x21}, {0x23, 0x5b}, {0x5d, 0xd7ff}, {0xe000, 0x10ffff}};
	struct cpset s = {.v = r, .n = 4};

	return gb_class(b, &s, false);
}

/* \uXXXX but 0000, and surrogates in pairs only: readers refuse the others. */
static gnode unicode_escape(struct gb *b)
{
	gnode h = hex(b), zero = gb_lit(b, "0"), nonzero = set_of(b, "123456789abcdefABCDEF");
	gnode not_d = set_of(b, "123456789abcefABCEF"), d = set_of(b, "dD");

	return gb_seq(b, gb_lit(b, "u"),
		      gb_alt(b, gb_seq(b, not_d, h, h, h),
			     gb_seq(b, d, gb_range(b, '0', '7'), h, h),
			     gb_seq(b, zero,
				    gb_alt(b, gb_seq(b, nonzero, h, h),
					   gb_seq(b, zero,
						  gb_alt(b, gb_seq(b, nonzero, h),
							 gb_seq(b, zero, nonzero))))),
			     gb_seq(b, d, set_of(b, "89abAB"), h, h, gb_lit(b, "\\u"), d,
				    set_of(b, "cdefCDEF"), h, h)));
}

gnode gj_char(struct gb *b)
{
	return gb_char(b, gb_alt(b, gj_plain(b),
				 gb_seq(b, gb_lit(b, "\\"),
					gb_alt(b, set_of(b, "\"\\/bfnrt"), unicode_escape(b)))));
}

gnode gj_string(struct gb *b)
{
	if (!b->string) {
		uint32_t r = gb_rule(b);

		gb_define(b, r,
			  gb_seq(b, gb_lit(b, "\""), gb_rep(b, gj_char(b), 0, GB_INF),
				 gb_lit(b, "\"")));
		b->string = r + 1;
	}
	return gb_call(b, b->string - 1);
}

gnode gj_integer(struct gb *b)
{
	if (!b->integer) {
		uint32_t r = gb_rule(b);

		gb_define(b, r,
			  gb_alt(b,
				 gb_seq(b, gb_opt(b, gb_lit(b, "-")), gb_range(b, '1', '9'),
					gb_rep(b, digit(b), 0, INT_DIGITS - 1)),
				 gb_lit(b, "0")));
		b->integer = r + 1;
	}
	return gb_call(b, b->integer - 1);
}

gnode gj_number(struct gb *b)
{
	gnode whole, frac, exponent;
	uint32_t r;

	if (b->number)
		return gb_call(b, b->number - 1);
	r = gb_rule(b);
	whole = gb_alt(b, gb_seq(b, gb_range(b, '1', '9'), gb_rep(b, digit(b), 0, INT_DIGITS - 1)),
		       gb_lit(b, "0"));
	frac = gb_seq(b, gb_lit(b, "."), gb_rep(b, digit(b), 1, FRAC_DIGITS));
	exponent =
		gb_seq(b, set_of(b, "eE"), gb_opt(b, set_of(b, "+-")), gb_rep(b, digit(b), 1, 2));
	gb_define(b, r,
		  gb_seq(b, gb_opt(b, gb_lit(b, "-")), whole, gb_opt(b, frac),
			 gb_opt(b, exponent)));
	b->number = r + 1;
	return gb_call(b, r);
}

/* "[" elements "]" */
static gnode bracketed(struct gb *b, const char *open, gnode item, uint32_t min, uint32_t max,
		       const char *close)
{
	gnode some, more;

	if (!max || !item)
		return min ? 0 : gb_seq(b, gb_lit(b, open), gj_ws(b), gb_lit(b, close));
	more = gb_rep(b, gb_seq(b, comma(b), item), min ? min - 1 : 0,
		      max == GB_INF ? GB_INF : max - 1);
	some = gb_seq(b, item, more, gj_ws(b));
	return gb_seq(b, gb_lit(b, open), gj_ws(b), min ? some : gb_opt(b, some), gb_lit(b, close));
}

gnode gj_object_of(struct gb *b, gnode key, gnode value, uint32_t min, uint32_t max)
{
	return bracketed(b, "{", gb_seq(b, key, colon(b), value), min, max, "}");
}

gnode gj_array_of(struct gb *b, gnode item, uint32_t min, uint32_t max)
{
	return bracketed(b, "[", item, min, max, "]");
}

gnode gj_value(struct gb *b)
{
	if (!b->value) {
		uint32_t r = gb_rule(b);
		gnode self = gb_call(b, r);

		b->value = r + 1;
		gb_define(b, r,
			  gb_alt(b, gj_string(b), gj_object_of(b, gj_string(b), self, 0, GB_INF),
				 gj_array_of(b, self, 0, GB_INF), gj_number(b), gb_lit(b, "true"),
				 gb_lit(b, "false"), gb_lit(b, "null")));
	}
	return gb_call(b, b->value - 1);
}

/* ---- given values -------------------------------------------------------------------------- */

static gnode scalar(struct gb *b, const json_t *v)
{
	char num[40];
	char *text;
	gnode r;

	if (json_is_real(v)) {
		for (int p = 1; p <= 17; p++) {
			snprintf(num, sizeof(num), "%.*g", p, json_real_value(v));
			if (strtod(num, NULL) == json_real_value(v))
				break;
		}
		return gb_lit(b, num);
	}
	text = json_dumps(v, JSON_ENCODE_ANY);
	if (!text) {
		gb_fail(b, -ENOMEM, "grammar: out of memory: free some");
		return 0;
	}
	r = gb_lit(b, text);
	free(text);
	return r;
}

gnode gj_literal(struct gb *b, const json_t *v, int depth)
{
	bool object = json_is_object(v);
	size_t n = object ? json_object_size(v) : json_array_size(v), i = 0, k;
	gnode *part, r;
	const char *key;
	json_t *x;

	if (!object && !json_is_array(v))
		return scalar(b, v);
	if (depth > LITERAL_DEPTH) {
		gb_fail(b, -E2BIG, "grammar: a value nested deeper than %d: make it flatter",
			LITERAL_DEPTH);
		return 0;
	}
	part = calloc(n + 1, sizeof(*part));
	if (!part) {
		gb_fail(b, -ENOMEM, "grammar: out of memory: free some");
		return 0;
	}
	if (object) {
		json_object_foreach ((json_t *)v, key, x) {
			json_t *name = json_string(key);

			part[i] = gb_seq(b, i ? comma(b) : gj_ws(b), scalar(b, name), colon(b),
					 gj_literal(b, x, depth + 1));
			json_decref(name);
			i++;
		}
	} else {
		json_array_foreach ((json_t *)v, k, x) {
			part[i] = gb_seq(b, i ? comma(b) : gj_ws(b), gj_literal(b, x, depth + 1));
			i++;
		}
	}
	part[i] = gj_ws(b);
	r = gb_seq(b, gb_lit(b, object ? "{" : "["), gb_list(b, GN_SEQ, part, n + 1),
		   gb_lit(b, object ? "}" : "]"));
	free(part);
	return r;
}

/* ---- keys that are none of some ------------------------------------------------------------ */

/* Names below this many characters deep are left out with all that begins like them. */
#define KEY_DEPTH 96

/* What the levels of a tree of names share. */
struct key_parts {
	gnode rest; /* any characters, then the closing quote */
	gnode wide; /* a character beyond ASCII, then the rest */
};

/* A character beyond ASCII that is none of those that v goes on with. */
static gnode wide_but(struct gb *b, struct cpset *taken, const struct key_parts *parts)
{
	gnode r = 0;

	if (!taken->n)
		return parts->wide;
	if (cpset_add(taken, 0, 0x7f) || cpset_add(taken, 0xd800, 0xdfff) || cpset_invert(taken))
		gb_fail(b, -ENOMEM, "grammar: out of memory: free some");
	else
		r = gb_seq(b, gb_class(b, taken, false), parts->rest);
	return r;
}

static gnode other_key(struct gb *b, const struct gstr *v, size_t n, size_t pos, int depth,
		       const struct key_parts *parts)
{
	struct byteset ascii = {0};
	struct cpset taken = {0};
	gnode *alt = calloc(n + 3, sizeof(*alt)), r;
	bool ends_here = false;
	size_t k = 0, j;
	int rc = alt ? 0 : -ENOMEM;

	set_add(&ascii, 0x20, 0x7f);
	ascii.w[0] &= ~(1ull << '"');
	ascii.w[1] &= ~(1ull << ('\\' - 64));
	for (size_t i = 0; i < n && !rc; i = j) {
		uint32_t cp = 0;
		int len;

		if (v[i].n == pos) {
			ends_here = true;
			j = i + 1;
			continue;
		}
		len = utf8_decode((const uint8_t *)v[i].s + pos, v[i].n - pos, &cp, NULL);
		for (j = i + 1; j < n && v[j].n >= pos + (size_t)len &&
				!memcmp(v[j].s + pos, v[i].s + pos, (size_t)len);
		     j++)
			;
		if (cp < 0x80)
			ascii.w[cp >> 6] &= ~(1ull << (cp & 63));
		else
			rc = cpset_add(&taken, cp, cp);
		if (depth < KEY_DEPTH && !rc)
			alt[k++] = gb_seq(b, gb_bytes(b, v[i].s + pos, (size_t)len),
					  other_key(b, v + i, j - i, pos + (size_t)len, depth + 1,
						    parts));
	}
	if (rc) {
		gb_fail(b, rc, "grammar: out of memory: free some");
	} else {
		alt[k++] = gb_seq(b, gb_set(b, &ascii), parts->rest);
		alt[k++] = wide_but(b, &taken, parts);
		alt[k++] = ends_here ? 0 : gb_lit(b, "\"");
	}
	r = alt ? gb_list(b, GN_ALT, alt, k) : 0;
	cpset_free(&taken);
	free(alt);
	return r;
}

static int by_key(const void *x, const void *y)
{
	const struct gstr *p = x, *q = y;
	int c = memcmp(p->s, q->s, p->n < q->n ? p->n : q->n);

	return c ? c : p->n < q->n ? -1 : p->n > q->n;
}

gnode gj_key_except(struct gb *b, struct gstr *v, size_t n)
{
	struct cprange wide[] = {{0x80, 0xd7ff}, {0xe000, 0x10ffff}};
	struct cpset set = {.v = wide, .n = 2};
	uint32_t rest = gb_rule(b), after = gb_rule(b);
	struct key_parts parts = {gb_call(b, rest), gb_call(b, after)};
	size_t k = 0;

	gb_define(b, rest, gb_seq(b, gb_rep(b, gj_plain(b), 0, GB_INF), gb_lit(b, "\"")));
	gb_define(b, after, gb_seq(b, gb_class(b, &set, false), parts.rest));

	for (size_t i = 0; i < n; i++) {
		bool plain = true;

		for (size_t c = 0; c < v[i].n; c++)
			plain &=
				(uint8_t)v[i].s[c] >= 0x20 && v[i].s[c] != '"' && v[i].s[c] != '\\';
		if (plain)
			v[k++] = v[i];
	}
	if (k > 1)
		qsort(v, k, sizeof(*v), by_key);
	return gb_seq(b, gb_lit(b, "\""), other_key(b, v, k, 0, 0, &parts));
}

/* ---- text without something ------------------------------------------------------------------ */

#define PREFIX_MAX 64

/* The beginnings of the texts to be avoided, the empty one first: states of Aho and Corasick. */
struct prefixes {
	const char *s[PREFIX_MAX];
	size_t len[PREFIX_MAX];
	bool whole[PREFIX_MAX];
	size_t n;
};

/* The state of s[0..n): its longest end that is a beginning. */
static size_t state_of(const struct prefixes *p, const char *s, size_t n)
{
	for (;; s++, n--) {
		for (size_t i = 0; i < p->n; i++) {
			if (p->len[i] == n && !memcmp(p->s[i], s, n))
				return i;
		}
	}
}

static gnode avoid_from(struct gb *b, const struct prefixes *p, const uint32_t *rule, size_t at)
{
	gnode alt[PREFIX_MAX + 2];
	struct cpset others = {0};
	bool seen[128] = {false};
	char text[PREFIX_MAX + 1];
	size_t k = 0, to;
	int rc = cpset_add(&others, 0xd800, 0xdfff);

	/* readers of JSON refuse U+0000 */
	if (!rc)
		rc = cpset_add(&others, 0, 0);
	alt[k++] = gb_empty(b);
	for (size_t i = 1; i < p->n && !rc; i++) {
		uint8_t c = (uint8_t)p->s[i][p->len[i] - 1];

		if (seen[c])
			continue;
		seen[c] = true;
		rc = cpset_add(&others, c, c);
		memcpy(text, p->s[at], p->len[at]);
		text[p->len[at]] = (char)c;
		to = state_of(p, text, p->len[at] + 1);
		if (!p->whole[to])
			alt[k++] = gb_seq(b, gb_range(b, c, c), gb_call(b, rule[to]));
	}
	if (!rc)
		rc = cpset_invert(&others);
	if (rc)
		gb_fail(b, rc, "grammar: out of memory: free some");
	else
		alt[k++] = gb_seq(b, gb_class(b, &others, false), gb_call(b, rule[0]));
	cpset_free(&others);
	return b->rc ? 0 : gb_list(b, GN_ALT, alt, k);
}

gnode gj_text_without(struct gb *b, const char *const *texts)
{
	const char *const *avoid = texts;
	struct prefixes p = {.s = {""}, .n = 1};
	uint32_t rule[PREFIX_MAX];
	size_t slot;

	for (slot = 0; slot < 4 && b->without[slot].avoid; slot++) {
		if (b->without[slot].avoid == texts)
			return gb_call(b, b->without[slot].rule);
	}
	for (; *avoid; avoid++) {
		for (size_t len = 1; len <= strlen(*avoid); len++) {
			size_t i = state_of(&p, *avoid, len);

			if (p.len[i] != len) {
				i = p.n++;
				p.s[i] = *avoid;
				p.len[i] = len;
			}
			p.whole[i] |= !(*avoid)[len];
		}
	}
	for (size_t i = 0; i < p.n; i++)
		rule[i] = gb_rule(b);
	for (size_t i = 0; i < p.n && !b->rc; i++)
		gb_define(b, rule[i], p.whole[i] ? 0 : avoid_from(b, &p, rule, i));
	if (b->rc)
		return 0;
	if (slot < 4) {
		b->without[slot].avoid = texts;
		b->without[slot].rule = rule[0];
	}
	return gb_call(b, rule[0]);
}
