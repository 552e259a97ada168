// SPDX-License-Identifier: MIT
/*
 * The lexer. White space around tags follows jinja2 with trim_blocks and lstrip_blocks: a newline
 * right behind a block or comment tag goes, and so does white space from the start of the line to
 * such a tag; "-" strips all white space on its side, "+" keeps it. Line ends become "\n"; one at
 * the very end is dropped.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/template/tmpl_int.h"
#include "text/utf8.h"

#define MAX_SOURCE (1u << 20)

void parse_fail(struct parser *p, uint32_t line, const char *fmt, ...)
{
	char msg[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	p->rc = err_set(p->e, -EINVAL, "line %u: %s", line, msg);
	longjmp(p->jmp, 1);
}

void *parse_alloc(struct parser *p, size_t n)
{
	bool oom;
	void *x = arena_alloc(&p->t->arena, n, &oom);

	if (!x) {
		p->rc = oom ? err_set(p->e, -ENOMEM, "template: no memory for %zu bytes", n)
			    : err_set(p->e, -E2BIG, "template: too big: %zu bytes of source", p->n);
		longjmp(p->jmp, 1);
	}
	memset(x, 0, n);
	return x;
}

struct lexer {
	struct parser *p;
	const char *s;
	size_t n, at;
	uint32_t line;
	bool line_starting;
	char *open; /* brackets that are open */
	size_t n_open, cap_open;
};

static void advance(struct lexer *x, size_t to)
{
	for (; x->at < to; x->at++)
		x->line += x->s[x->at] == '\n';
}

static struct token *add(struct lexer *x, enum tok type)
{
	struct parser *p = x->p;
	struct token *t;

	if (p->n_tok == p->cap_tok) {
		size_t cap = p->cap_tok ? p->cap_tok * 2 : 256;
		struct token *more = parse_alloc(p, cap * sizeof(*more));

		if (p->n_tok)
			memcpy(more, p->tok, p->n_tok * sizeof(*more));
		p->tok = more;
		p->cap_tok = cap;
	}
	t = &p->tok[p->n_tok++];
	*t = (struct token){.type = type, .line = x->line};
	return t;
}

static bool has(const struct lexer *x, size_t at, const char *what)
{
	size_t n = strlen(what);

	return x->n - at >= n && !memcmp(x->s + at, what, n);
}

static size_t skip_space(const struct lexer *x, size_t at)
{
	while (at < x->n) {
		uint32_t c;
		int n = utf8_decode((const uint8_t *)x->s + at, x->n - at, &c, NULL);

		if (n <= 0 || !u_space(c))
			break;
		at += (size_t)n;
	}
	return at;
}

/* Where the white space that ends at `to` begins. */
static size_t space_before(const struct lexer *x, size_t from, size_t to)
{
	while (to > from) {
		size_t at = to - 1;
		uint32_t c;

		while (at > from && ((uint8_t)x->s[at] & 0xc0) == 0x80)
			at--;
		if (utf8_decode((const uint8_t *)x->s + at, to - at, &c, NULL) <= 0 || !u_space(c))
			break;
		to = at;
	}
	return to;
}

/* Text from x->at to `to`, where a tag with `sign` begins. */
static void data(struct lexer *x, size_t to, char sign, bool variable)
{
	size_t from = x->at, end = to, line_start;
	struct token *t;

	if (sign == '-') {
		end = space_before(x, from, to);
	} else if (sign != '+' && !variable) {
		line_start = to;
		while (line_start > from && x->s[line_start - 1] != '\n')
			line_start--;
		if ((line_start > from || x->line_starting) &&
		    space_before(x, line_start, to) == line_start)
			end = line_start;
	}
	if (end > from) {
		t = add(x, T_DATA);
		t->p = x->s + from;
		t->len = end - from;
	}
	advance(x, to);
}

static void skipped(struct lexer *x, size_t to)
{
	advance(x, to);
	x->line_starting = to && x->s[to - 1] == '\n';
}

/* After the end of a block or comment whose sign stands before it. */
static size_t after_end(const struct lexer *x, size_t at, char sign)
{
	if (sign == '-')
		return skip_space(x, at);
	return sign != '+' && at < x->n && x->s[at] == '\n' ? at + 1 : at;
}

static void comment(struct lexer *x)
{
	for (size_t i = x->at; i + 1 < x->n; i++) {
		char sign = x->s[i] == '-' || x->s[i] == '+' ? x->s[i] : 0;
		size_t end = i + (sign != 0);

		if (!has(x, end, "#}"))
			continue;
		skipped(x, after_end(x, end + 2, sign));
		return;
	}
	parse_fail(x->p, x->line, "missing end of comment tag");
}

/* Is there a raw tag at `at` ("{%")? Returns where its content begins, else 0. */
static size_t raw_begin(const struct lexer *x, size_t at)
{
	at += 2;
	if (at < x->n && (x->s[at] == '-' || x->s[at] == '+'))
		at++;
	at = skip_space(x, at);
	if (!has(x, at, "raw"))
		return 0;
	at = skip_space(x, at + 3);
	if (has(x, at, "-%}"))
		return skip_space(x, at + 3);
	return has(x, at, "%}") ? at + 2 : 0;
}

static void raw(struct lexer *x)
{
	for (size_t i = x->at; i + 1 < x->n; i++) {
		size_t at = i + 2;
		char sign = 0, end = 0;

		if (!has(x, i, "{%"))
			continue;
		if (at < x->n && (x->s[at] == '-' || x->s[at] == '+'))
			sign = x->s[at++];
		at = skip_space(x, at);
		if (!has(x, at, "endraw"))
			continue;
		at = skip_space(x, at + 6);
		if (at < x->n && (x->s[at] == '-' || x->s[at] == '+'))
			end = x->s[at++];
		if (!has(x, at, "%}"))
			continue;
		data(x, i, sign, false);
		skipped(x, after_end(x, at + 2, end));
		return;
	}
	parse_fail(x->p, x->line, "missing end of raw directive");
}

/* ---- inside of tags ---------------------------------------------------------------------------- */

static bool is_digit(int c)
{
	return c >= '0' && c <= '9';
}

static int digit_of(int c)
{
	return is_digit(c)			    ? c - '0'
	       : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
						    : 99;
}

/* [digits_]*digits at `at`: its end, or `at`. */
static size_t digits(const struct lexer *x, size_t at, int base)
{
	size_t i = at;

	while (i < x->n &&
	       (digit_of(x->s[i]) < base || (x->s[i] == '_' && i > at && i + 1 < x->n &&
					     digit_of(x->s[i + 1]) < base && x->s[i - 1] != '_')))
		i++;
	return i;
}

static bool number(struct lexer *x)
{
	size_t at = x->at, end = digits(x, at, 10), frac = end, k = 0;
	int base = 10;
	struct token *t;
	char buf[400];

	if (end == at)
		return false;
	if (end + 1 < x->n && x->s[end] == '.' && is_digit(x->s[end + 1]))
		frac = digits(x, end + 1, 10);
	if (frac < x->n && (x->s[frac] | 32) == 'e') {
		size_t e = frac + 1;

		if (e < x->n && (x->s[e] == '+' || x->s[e] == '-'))
			e++;
		if (digits(x, e, 10) > e)
			frac = digits(x, e, 10);
	}
	if (frac > end && (!at || x->s[at - 1] != '.')) {
		for (size_t i = at; i < frac && k < sizeof(buf) - 1; i++)
			if (x->s[i] != '_')
				buf[k++] = x->s[i];
		buf[k] = 0;
		t = add(x, T_FLOAT);
		t->f = strtod(buf, NULL);
		advance(x, frac);
		return true;
	}
	if (x->s[at] == '0' && at + 2 < x->n) {
		int c = x->s[at + 1] | 32, b = c == 'b' ? 2 : c == 'o' ? 8 : c == 'x' ? 16 : 0;
		size_t first = at + 2 + (x->s[at + 2] == '_');

		if (b && digits(x, first, b) > first) {
			base = b;
			at = first;
			end = digits(x, first, b);
		}
	}
	if (base == 10 && x->s[at] == '0')
		for (end = at + 1;
		     end < x->n && (x->s[end] == '0' ||
				    (x->s[end] == '_' && end + 1 < x->n && x->s[end + 1] == '0'));)
			end++;
	t = add(x, T_INT);
	for (; at < end; at++) {
		if (x->s[at] == '_')
			continue;
		if (__builtin_mul_overflow(t->i, base, &t->i) ||
		    __builtin_add_overflow(t->i, digit_of(x->s[at]), &t->i))
			parse_fail(x->p, x->line, "integer does not fit 64 bits");
	}
	advance(x, end);
	return true;
}

/* n hexadecimal digits */
static uint32_t hex(struct lexer *x, size_t at, int n, size_t end)
{
	uint32_t c = 0;

	for (int i = 0; i < n; i++) {
		if (at + (size_t)i >= end || digit_of(x->s[at + (size_t)i]) > 15)
			parse_fail(x->p, x->line, "truncated escape in a string");
		c = c << 4 | (uint32_t)digit_of(x->s[at + (size_t)i]);
	}
	return c;
}

/* One escape of Python's string literals at s[*at] (behind the backslash). */
static size_t escape(struct lexer *x, size_t *at, size_t end, char *out)
{
	static const char simple[] = "abfnrtv\\'\"", means[] = "\a\b\f\n\r\t\v\\'\"";
	char c = x->s[*at];
	const char *k = strchr(simple, c);
	uint32_t cp = 0;
	int n;

	if (c == '\n') {
		++*at;
		return 0;
	}
	if (c && k) {
		++*at;
		*out = means[k - simple];
		return 1;
	}
	if (c >= '0' && c <= '7') {
		for (n = 0; n < 3 && *at < end && x->s[*at] >= '0' && x->s[*at] <= '7'; n++)
			cp = cp * 8 + (uint32_t)(x->s[(*at)++] - '0');
		return (size_t)utf8_encode(cp, out);
	}
	n = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
	if (c == 'N')
		parse_fail(x->p, x->line, "\\N escapes are not supported");
	if (!n) {
		*out = '\\';
		return 1;
	}
	cp = hex(x, *at + 1, n, end);
	*at += (size_t)n + 1;
	if (cp >= 0xd800 && cp < 0xdc00 && *at + 5 < end && has(x, *at, "\\u")) {
		uint32_t low = hex(x, *at + 2, 4, end);

		if (low >= 0xdc00 && low < 0xe000) {
			cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
			*at += 6;
		}
	}
	if (cp > 0x10ffff)
		parse_fail(x->p, x->line, "illegal Unicode character in a string");
	return (size_t)utf8_encode(cp >= 0xd800 && cp < 0xe000 ? 0xfffd : cp, out);
}

static void string(struct lexer *x)
{
	char quote = x->s[x->at], *out;
	size_t end = x->at + 1, at, k = 0;
	struct token *t;

	while (end < x->n && x->s[end] != quote)
		end += x->s[end] == '\\' ? 2 : 1;
	if (end >= x->n)
		parse_fail(x->p, x->line, "string without an end");
	out = parse_alloc(x->p, end - x->at + 4);
	for (at = x->at + 1; at < end;) {
		if (x->s[at] == '\\') {
			at++;
			k += escape(x, &at, end, out + k);
		} else {
			out[k++] = x->s[at++];
		}
	}
	t = add(x, T_STRING);
	t->p = out;
	t->len = k;
	advance(x, end + 1);
}

static bool name_char(uint8_t c)
{
	return c == '_' || c >= 128 || is_digit(c) || ((c | 32) >= 'a' && (c | 32) <= 'z');
}

static void operator(struct lexer *x)
{
	static const char *const two[] = {"//", "**", "==", "!=", ">=", "<="};
	static const char one[] = "+-/*%~[](){}><=.:|,;";
	char c = x->s[x->at];
	struct token *t;
	size_t n = 0;

	for (size_t i = 0; i < sizeof(two) / sizeof(two[0]); i++)
		if (has(x, x->at, two[i]))
			n = 2;
	if (!n && !strchr(one, c))
		parse_fail(x->p, x->line, "unexpected char '%c'", c);
	n = n ? n : 1;
	if (strchr("([{", c)) {
		if (x->n_open == x->cap_open) {
			size_t cap = x->cap_open ? 2 * x->cap_open : 64;
			char *more = parse_alloc(x->p, cap);

			if (x->n_open)
				memcpy(more, x->open, x->n_open);
			x->open = more;
			x->cap_open = cap;
		}
		x->open[x->n_open++] = c == '(' ? ')' : c == '[' ? ']' : '}';
	} else if (strchr(")]}", c)) {
		if (!x->n_open)
			parse_fail(x->p, x->line, "unexpected '%c'", c);
		if (x->open[--x->n_open] != c)
			parse_fail(x->p, x->line, "unexpected '%c', expected '%c'", c,
				   x->open[x->n_open]);
	}
	t = add(x, T_OP);
	memcpy(t->op, x->s + x->at, n);
	advance(x, x->at + n);
}

/* The end of the tag at x->at, if it is there. */
static bool tag_end(struct lexer *x, bool block)
{
	const char *mark = block ? "%}" : "}}";
	char sign = x->s[x->at];

	if (x->n_open)
		return false;
	if (sign != '-' && !(block && sign == '+'))
		sign = 0;
	if (!has(x, x->at + (sign != 0), mark))
		return false;
	add(x, block ? T_BLOCK_END : T_VAR_END);
	if (block)
		skipped(x, after_end(x, x->at + (sign != 0) + 2, sign));
	else
		skipped(x, sign ? skip_space(x, x->at + 3) : x->at + 2);
	return true;
}

static void tag(struct lexer *x, bool block)
{
	for (;;) {
		size_t at = skip_space(x, x->at);

		/* a tag's end is looked for before white space is skipped, and after it */
		advance(x, at);
		if (at >= x->n)
			parse_fail(x->p, x->line, "unexpected end of template inside a tag");
		if (tag_end(x, block))
			return;
		if (is_digit(x->s[at]) && number(x))
			continue;
		if (name_char((uint8_t)x->s[at])) {
			struct token *t = add(x, T_NAME);
			size_t end = at;

			while (end < x->n && name_char((uint8_t)x->s[end]))
				end++;
			t->p = x->s + at;
			t->len = end - at;
			advance(x, end);
		} else if (x->s[at] == '\'' || x->s[at] == '"') {
			string(x);
		} else {
			operator(x);
		}
	}
}

/* Line ends are made one kind; the last one goes. */
static void normalise(struct parser *p, struct lexer *x)
{
	char *s = parse_alloc(p, p->n + 1);
	size_t k = 0;

	for (size_t i = 0; i < p->n; i++) {
		s[k++] = p->src[i] == '\r' ? '\n' : p->src[i];
		if (p->src[i] == '\r' && i + 1 < p->n && p->src[i + 1] == '\n')
			i++;
	}
	if (k && s[k - 1] == '\n')
		k--;
	x->s = s;
	x->n = k;
}

void lex(struct parser *p)
{
	struct lexer x = {.p = p, .line = 1, .line_starting = true};
	size_t i, bad;

	if (p->n > MAX_SOURCE) {
		p->rc = err_set(p->e, -E2BIG, "template: %zu bytes: at most %u are read", p->n,
				MAX_SOURCE);
		longjmp(p->jmp, 1);
	}
	normalise(p, &x);
	bad = utf8_valid_prefix(x.s, x.n);
	if (bad != x.n)
		parse_fail(p, 1, "not UTF-8: byte %zu", bad);
	for (i = 0; i < x.n; i++) {
		char c = i + 1 < x.n ? x.s[i + 1] : 0, sign;
		size_t begin;

		if (x.s[i] != '{' || (c != '%' && c != '{' && c != '#'))
			continue;
		sign = i + 2 < x.n ? x.s[i + 2] : 0;
		sign = sign == '-' || sign == '+' ? sign : 0;
		begin = c == '%' ? raw_begin(&x, i) : 0;
		data(&x, i, sign, c == '{');
		if (begin) {
			skipped(&x, begin);
			raw(&x);
		} else {
			skipped(&x, i + 2 + (sign != 0));
			if (c == '#') {
				comment(&x);
			} else {
				add(&x, c == '{' ? T_VAR_BEGIN : T_BLOCK_BEGIN);
				tag(&x, c == '%');
			}
		}
		i = x.at - 1;
	}
	if (x.at < x.n)
		data(&x, x.n, '+', true);
	add(&x, T_EOF);
}
