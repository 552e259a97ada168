// SPDX-License-Identifier: MIT
/*
 * Case and classes of characters, as Python's str has them. ASCII is done here; what lies beyond is
 * asked of the C library in the C.UTF-8 locale, with the few mappings to several letters added.
 */
#include <wctype.h>

#include "text/template/tmpl_int.h"
#include "text/utf8.h"

uint32_t u_get(const struct str *s, size_t at, int *len)
{
	uint32_t c;

	if ((uint8_t)s->p[at] < 0x80) {
		*len = 1;
		return (uint8_t)s->p[at];
	}
	*len = utf8_decode((const uint8_t *)s->p + at, s->len - at, &c, NULL);
	if (*len < 1) {
		*len = 1;
		return 0xfffd;
	}
	return c;
}

bool u_space(uint32_t c)
{
	return (c >= 0x1c && c <= 0x1f) || utf8_is_space(c);
}

bool u_line_break(uint32_t c)
{
	return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
	       c == 0x2029;
}

bool u_printable(const struct rt *r, uint32_t c)
{
	static const uint32_t format[][2] = {
		/* format characters, private use, separators: the C library prints some of them */
		{0x7f, 0xa0},	    {0xad, 0xad},	{0x600, 0x605},	     {0x61c, 0x61c},
		{0x6dd, 0x6dd},	    {0x70f, 0x70f},	{0x890, 0x891},	     {0x8e2, 0x8e2},
		{0x1680, 0x1680},   {0x180e, 0x180e},	{0x2000, 0x200f},    {0x2028, 0x202f},
		{0x205f, 0x206f},   {0x3000, 0x3000},	{0xd800, 0xf8ff},    {0xfeff, 0xfeff},
		{0xfff9, 0xfffb},   {0x110bd, 0x110bd}, {0x110cd, 0x110cd},  {0x1bca0, 0x1bca3},
		{0x1d173, 0x1d17a}, {0xe0001, 0xe007f}, {0xf0000, 0x10ffff},
	};

	if (c < 0x7f)
		return c >= 0x20;
	for (size_t i = 0; i < sizeof(format) / sizeof(format[0]); i++)
		if (c >= format[i][0] && c <= format[i][1])
			return false;
	return iswprint_l((wint_t)c, r->t->locale);
}

bool u_is_alpha(const struct rt *r, uint32_t c)
{
	if (c < 128)
		return (c | 32) >= 'a' && (c | 32) <= 'z';
	/* the C library counts other scripts' digits as letters */
	return iswalpha_l((wint_t)c, r->t->locale) && !u_is_digit(r, c);
}

bool u_is_digit(const struct rt *r, uint32_t c)
{
	/* decimal digits of living scripts: blocks of ten */
	static const uint32_t zero[] = {
		0x660,	0x6f0,	0x7c0,	0x966,	0x9e6,	0xa66,	0xae6,	0xb66,	0xbe6,
		0xc66,	0xce6,	0xd66,	0xde6,	0xe50,	0xed0,	0xf20,	0x1040, 0x1090,
		0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40,
		0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
	};

	if (c < 128)
		return c >= '0' && c <= '9';
	for (size_t i = 0; i < sizeof(zero) / sizeof(zero[0]); i++)
		if (c >= zero[i] && c < zero[i] + 10)
			return true;
	return c >= 0x1d7ce && c <= 0x1d7ff;
}

bool u_is_upper(const struct rt *r, uint32_t c)
{
	if (c < 128)
		return c >= 'A' && c <= 'Z';
	return iswupper_l((wint_t)c, r->t->locale);
}

bool u_is_lower(const struct rt *r, uint32_t c)
{
	if (c < 128)
		return c >= 'a' && c <= 'z';
	return c == 0xaa || c == 0xba || iswlower_l((wint_t)c, r->t->locale);
}

bool u_is_word(const struct rt *r, uint32_t c)
{
	if (c < 128)
		return c == '_' || u_is_alpha(r, c) || u_is_digit(r, c);
	return iswalnum_l((wint_t)c, r->t->locale) || (c >= 0xb2 && c <= 0xb3) || c == 0xb9 ||
	       (c >= 0xbc && c <= 0xbe);
}

/* Mappings to more than one letter: `title` differs from `upper` in its second letter. */
static const struct {
	uint32_t from;
	const char *upper, *title;
} special[] = {
	{0xdf, "SS", "Ss"},
	{0x149, "\xca\xbcN", "\xca\xbcN"},
	{0x1f0, "J\xcc\x8c", "J\xcc\x8c"},
	{0x587, "\xd4\xb5\xd5\x92", "\xd4\xb5\xd6\x82"},
	{0xfb00, "FF", "Ff"},
	{0xfb01, "FI", "Fi"},
	{0xfb02, "FL", "Fl"},
	{0xfb03, "FFI", "Ffi"},
	{0xfb04, "FFL", "Ffl"},
	{0xfb05, "ST", "St"},
	{0xfb06, "ST", "St"},
};

static void put_upper(struct rt *r, struct sbuf *b, uint32_t c, const struct str *s, size_t at,
		      bool title)
{
	if (c < 128) {
		sb_char(r, b, c >= 'a' && c <= 'z' ? c - 32 : c, s, at);
		return;
	}
	for (size_t i = 0; i < sizeof(special) / sizeof(special[0]); i++) {
		if (c == special[i].from) {
			sb_puts(r, b, title ? special[i].title : special[i].upper,
				str_user_at(s, at));
			return;
		}
	}
	/* digraphs such as dz have a letter for titles */
	if (title && ((c >= 0x1c4 && c <= 0x1cc) || (c >= 0x1f1 && c <= 0x1f3)))
		c = c < 0x1f1 ? 0x1c5 + (c - 0x1c4) / 3 * 3 : 0x1f2;
	else
		c = (uint32_t)towupper_l((wint_t)c, r->t->locale);
	sb_char(r, b, c, s, at);
}

/* A capital sigma at the end of a word has a small letter of its own. */
static bool final_sigma(struct rt *r, const struct str *s, size_t at, size_t next)
{
	size_t before = at;
	int n;

	while (before && ((uint8_t)s->p[--before] & 0xc0) == 0x80)
		;
	if (before == at || !u_is_alpha(r, u_get(s, before, &n)))
		return false;
	return next >= s->len || !u_is_alpha(r, u_get(s, next, &n));
}

static void put_lower(struct rt *r, struct sbuf *b, uint32_t c, const struct str *s, size_t at,
		      size_t next)
{
	if (c < 128)
		sb_char(r, b, c >= 'A' && c <= 'Z' ? c + 32 : c, s, at);
	else if (c == 0x130)
		sb_puts(r, b, "i\xcc\x87", str_user_at(s, at));
	else if (c == 0x3a3 && final_sigma(r, s, at, next))
		sb_char(r, b, 0x3c2, s, at);
	else
		sb_char(r, b, (uint32_t)towlower_l((wint_t)c, r->t->locale), s, at);
}

enum casing { LOWER, UPPER, CAPITALIZE, TITLE, SWAP };

static struct str *cased(struct rt *r, struct str *s, enum casing how)
{
	bool in_word = false;
	struct sbuf b;
	int n;

	sb_init(r, &b, s->len);
	for (size_t i = 0; i < s->len; i += (size_t)n) {
		uint32_t c = u_get(s, i, &n);
		bool letter, upper = how == UPPER || (how == CAPITALIZE && !i);

		if (how == SWAP)
			upper = u_is_lower(r, c);
		if (how == TITLE) {
			letter = u_is_upper(r, c) || u_is_lower(r, c);
			upper = letter && !in_word;
			in_word = letter;
		}
		if (upper)
			put_upper(r, &b, c, s, i, how == CAPITALIZE || how == TITLE);
		else
			put_lower(r, &b, c, s, i, i + (size_t)n);
	}
	return str_markup(r, sb_take(r, &b), s->markup);
}

struct str *u_lower(struct rt *r, struct str *s)
{
	return cased(r, s, LOWER);
}

struct str *u_upper(struct rt *r, struct str *s)
{
	return cased(r, s, UPPER);
}

struct str *u_capitalize(struct rt *r, struct str *s)
{
	return cased(r, s, CAPITALIZE);
}

struct str *u_title(struct rt *r, struct str *s)
{
	return cased(r, s, TITLE);
}

struct str *u_swapcase(struct rt *r, struct str *s)
{
	return cased(r, s, SWAP);
}

size_t u_strip_left(const struct str *s, size_t from, size_t to)
{
	int n;

	while (from < to && u_space(u_get(s, from, &n)))
		from += (size_t)n;
	return from;
}

size_t u_strip_right(const struct str *s, size_t from, size_t to)
{
	int n;

	while (to > from) {
		size_t at = to - 1;

		while (at > from && ((uint8_t)s->p[at] & 0xc0) == 0x80)
			at--;
		if (!u_space(u_get(s, at, &n)))
			break;
		to = at;
	}
	return to;
}
