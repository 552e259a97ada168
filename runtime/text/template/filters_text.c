// SPDX-License-Identifier: MIT
/* The filters that make text of text. See filters.h, tmpl_int.h. */
#include <ctype.h>
#include <stdio.h>

#include "text/template/filters.h"
#include "text/utf8.h"

FILTER(upper)
{
	return v_str(u_upper(r, to_str(r, self)));
}

FILTER(lower)
{
	return v_str(u_lower(r, to_str(r, self)));
}

FILTER(capitalize)
{
	return v_str(u_capitalize(r, to_str(r, self)));
}

/* A word begins behind any of "-({[<" and white space; unlike str.title(). */
FILTER(title)
{
	struct str *s = to_str(r, self);
	struct sbuf b;
	size_t from = 0;
	int n;

	sb_init(r, &b, s->len);
	while (from < s->len) {
		size_t to = from, first;

		while (to < s->len) {
			uint32_t c = u_get(s, to, &n);

			if (u_space(c) || (c < 128 && strchr("-({[<", (int)c)))
				break;
			to += (size_t)n;
		}
		if (to > from) {
			u_get(s, from, &n);
			first = from + (size_t)n;
			sb_str(r, &b, u_upper(r, str_sub(r, s, from, first)));
			sb_str(r, &b, u_lower(r, str_sub(r, s, first, to)));
		}
		if (to < s->len) {
			u_get(s, to, &n);
			sb_range(r, &b, s, to, to + (size_t)n);
			to += (size_t)n;
		}
		from = to;
	}
	return v_str(sb_take(r, &b));
}

FILTER(string)
{
	return v_str(to_str(r, self));
}

FILTER(safe)
{
	return v_str(str_markup(r, to_str(r, self), true));
}

static struct str *escaped(struct rt *r, struct str *s)
{
	size_t from = 0;
	struct sbuf b;

	sb_init(r, &b, s->len + 16);
	for (size_t i = 0; i < s->len; i++) {
		const char *k = NULL;

		switch (s->p[i]) {
		case '&':
			k = "&amp;";
			break;
		case '<':
			k = "&lt;";
			break;
		case '>':
			k = "&gt;";
			break;
		case '\'':
			k = "&#39;";
			break;
		case '"':
			k = "&#34;";
			break;
		}
		if (!k)
			continue;
		sb_range(r, &b, s, from, i);
		sb_puts(r, &b, k, str_user_at(s, i));
		from = i + 1;
	}
	sb_range(r, &b, s, from, s->len);
	return str_markup(r, sb_take(r, &b), true);
}

struct val escape_html(struct rt *r, struct val v)
{
	if (v.type == V_STR && v.s->markup)
		return v;
	return v_str(escaped(r, to_str(r, v)));
}

FILTER(escape)
{
	return escape_html(r, self);
}

FILTER(forceescape)
{
	return v_str(escaped(r, to_str(r, self)));
}

FILTER(format)
{
	struct str *s = to_str(r, self);
	struct list *l = list_new(r, (size_t)a->n);
	struct dict *d = dict_new(r, 4);

	if (a->n && a->nkw)
		fail(r, "can't handle positional and keyword arguments at the same time");
	for (int i = 0; i < a->n; i++)
		list_push(r, l, a->pos[i]);
	for (int i = 0; i < a->nkw; i++)
		dict_set(r, d, v_str(a->kwname[i]), a->kw[i]);
	return format_percent(r, s, a->nkw ? v_dict(d) : v_tuple(l));
}

FILTER(replace)
{
	int64_t count = a->pos[2].type == V_NONE ? -1 : arg_int(r, a->pos[2], -1, "replace");

	return v_str(str_replace(r, str_markup(r, to_str(r, self), false), to_str(r, a->pos[0]),
				 to_str(r, a->pos[1]), count));
}

FILTER(trim)
{
	struct str *chars = NULL;

	if (a->pos[0].type != V_ABSENT && a->pos[0].type != V_NONE)
		chars = arg_str(r, a->pos[0], "trim");
	return v_str(str_strip(r, to_str(r, self), chars, true, true));
}

FILTER(center)
{
	return v_str(str_pad(r, to_str(r, self), arg_int(r, a->pos[0], 80, "center"), NULL, '^'));
}

FILTER(indent)
{
	bool first = arg_bool(a->pos[1], false), blank = arg_bool(a->pos[2], false);
	struct str *s, *by;
	struct list *lines;
	struct sbuf b;

	sb_init(r, &b, 0);
	if (a->pos[0].type == V_STR) {
		by = a->pos[0].s;
	} else {
		int64_t n = arg_int(r, a->pos[0], 4, "indent");

		if (n > (int64_t)r->arena.limit)
			fail_limit(r, "memory");
		sb_fill(r, &b, ' ', n > 0 ? (size_t)n : 0, false);
		by = sb_take(r, &b);
	}
	if (self.type == V_UNDEF)
		fail_undefined(r, self);
	s = arg_str(r, self, "indent");
	/* with a newline more, so that an empty last line counts */
	lines = str_lines(r, str_concat(r, s, str_static(r, "\n")), false);
	sb_init(r, &b, s->len + s->len / 4);
	for (size_t i = 0; i < lines->n; i++) {
		if (i)
			sb_put(r, &b, "\n", 1, str_tainted(s));
		if ((i || first) && (blank || lines->v[i].s->len || !i))
			sb_str(r, &b, by);
		sb_str(r, &b, lines->v[i].s);
	}
	return v_str(str_markup(r, sb_take(r, &b), s->markup));
}

FILTER(truncate)
{
	int64_t length = arg_int(r, a->pos[0], 255, "truncate");
	bool kill = arg_bool(a->pos[1], false);
	struct str *end = a->pos[2].type == V_ABSENT ? str_static(r, "...")
						     : arg_str(r, a->pos[2], "truncate"),
		   *s;
	int64_t leeway = a->pos[3].type == V_NONE ? 5 : arg_int(r, a->pos[3], 5, "truncate");
	int64_t n = length_of(r, self), end_n = (int64_t)str_chars(r, end);
	size_t cut;

	if (length < end_n || leeway < 0)
		fail(r, "truncate: expected length >= %lld, got %lld", (long long)end_n,
		     (long long)length);
	if (n < 0)
		fail(r, "object of type '%s' has no len()", type_name(self));
	if (n <= length + leeway)
		return self;
	s = arg_str(r, self, "truncate");
	cut = str_offset(s, (size_t)(length - end_n));
	if (!kill)
		for (size_t i = cut; i-- > 0;) {
			if (s->p[i] == ' ') {
				cut = i;
				break;
			}
		}
	return binary(r, OP_ADD, v_str(str_sub(r, s, 0, cut)), v_str(end));
}

FILTER(wordcount)
{
	struct str *s = to_str(r, self);
	bool in_word = false;
	int64_t words = 0;
	int n;

	charge_bytes(r, s->len);
	for (size_t i = 0; i < s->len; i += (size_t)n) {
		bool word = u_is_word(r, u_get(s, i, &n));

		words += word && !in_word;
		in_word = word;
	}
	return v_int(words);
}

/* ---- wordwrap: Python's textwrap.wrap() line by line ------------------------------------------- */

static bool wrap_space(char c)
{
	return c && strchr("\t\n\v\f\r ", c);
}

static bool word_byte(const struct str *s, size_t i)
{
	uint8_t c = (uint8_t)s->p[i];

	return c >= 128 || isalnum(c) || c == '_';
}

static bool letter_byte(const struct str *s, size_t i)
{
	return i < s->len && word_byte(s, i) && !isdigit((uint8_t)s->p[i]);
}

/* The end of the piece that begins at i: white space, or a word up to a hyphen that may break. */
static size_t wrap_chunk(const struct str *s, size_t i, bool hyphens)
{
	size_t from = i;

	if (wrap_space(s->p[i])) {
		while (i < s->len && wrap_space(s->p[i]))
			i++;
		return i;
	}
	while (i < s->len && !wrap_space(s->p[i])) {
		size_t dash = i;

		if (!hyphens || s->p[i] != '-') {
			i++;
			continue;
		}
		while (i < s->len && s->p[i] == '-')
			i++;
		/* a dash of two or more between words stands alone */
		if (i - dash > 1 && i < s->len && word_byte(s, i)) {
			if (dash > from &&
			    (word_byte(s, dash - 1) || strchr("!\"'&.,?", s->p[dash - 1])))
				return dash;
			if (dash == from)
				return i;
		}
		/* "well-known": behind two letters, or a letter and a hyphen, before letters */
		if (i - dash == 1 && dash >= from + 2 && letter_byte(s, dash - 1) &&
		    (letter_byte(s, dash - 2) || s->p[dash - 2] == '-') && letter_byte(s, i) &&
		    (letter_byte(s, i + 1) || (i + 1 < s->len && s->p[i + 1] == '-')))
			return i;
	}
	return i;
}

struct wrap {
	struct rt *r;
	struct sbuf *b;
	const struct str *s, *sep;
	int64_t width, used;
	bool any; /* lines before this one */
	size_t space_from, space_to; /* white space not yet written */
};

static void wrap_newline(struct wrap *w)
{
	sb_str(w->r, w->b, w->sep);
	w->used = 0;
	w->space_from = w->space_to = 0;
}

static void wrap_word(struct wrap *w, size_t from, size_t to, bool break_long)
{
	struct str part = {.p = w->s->p + from, .len = to - from, .ascii = -1};
	int64_t n = (int64_t)str_chars(w->r, &part);
	int64_t space = (int64_t)(w->space_to - w->space_from);

	if (w->used && w->used + space + n > w->width) {
		int64_t room = w->width - w->used - space;

		/* a word longer than a line begins on this one */
		if (!(n > w->width && break_long && room > 0))
			wrap_newline(w);
	}
	space = (int64_t)(w->space_to - w->space_from);
	sb_range(w->r, w->b, w->s, w->space_from, w->space_to);
	w->used += space;
	w->space_from = w->space_to = 0;
	while (break_long && n > w->width) {
		int64_t room = w->width - w->used > 0 ? w->width - w->used : 1;
		size_t cut;

		if (n <= room)
			break;
		part = (struct str){.p = w->s->p + from, .len = to - from, .ascii = -1};
		cut = from + str_offset(&part, (size_t)room);
		sb_range(w->r, w->b, w->s, from, cut);
		n -= room;
		from = cut;
		wrap_newline(w);
	}
	sb_range(w->r, w->b, w->s, from, to);
	w->used += n;
}

FILTER(wordwrap)
{
	int64_t width = arg_int(r, a->pos[0], 79, "wordwrap");
	bool break_long = arg_bool(a->pos[1], true), hyphens = arg_bool(a->pos[3], true);
	struct str *sep = a->pos[2].type == V_ABSENT || a->pos[2].type == V_NONE
				  ? str_static(r, "\n")
				  : arg_str(r, a->pos[2], "wordwrap");
	struct list *lines;
	struct sbuf b;

	if (self.type == V_UNDEF)
		fail_undefined(r, self);
	lines = str_lines(r, arg_str(r, self, "wordwrap"), false);
	sb_init(r, &b, self.s->len + 64);
	for (size_t i = 0; i < lines->n; i++) {
		struct wrap w = {.r = r, .b = &b, .s = lines->v[i].s, .sep = sep, .width = width};

		if (i)
			sb_str(r, &b, sep);
		if (width <= 0 && w.s->len)
			fail(r, "invalid width %lld (must be > 0)", (long long)width);
		for (size_t at = 0, end; at < w.s->len; at = end) {
			end = wrap_chunk(w.s, at, hyphens);
			charge_bytes(r, end - at);
			if (!wrap_space(w.s->p[at])) {
				wrap_word(&w, at, end, break_long);
			} else if (w.used || !at) {
				/* kept at the start of the text, dropped at that of a line */
				w.space_from = at;
				w.space_to = end;
			}
		}
	}
	return v_str(sb_take(r, &b));
}

/* ---- HTML and addresses ------------------------------------------------------------------------ */

static const struct {
	const char *name, *text;
} entities[] = {
	{"amp", "&"},
	{"lt", "<"},
	{"gt", ">"},
	{"quot", "\""},
	{"apos", "'"},
	{"nbsp", "\xc2\xa0"},
	{"copy", "\xc2\xa9"},
	{"reg", "\xc2\xae"},
	{"raquo", "\xc2\xbb"},
	{"laquo", "\xc2\xab"},
	{"hellip", "\xe2\x80\xa6"},
	{"mdash", "\xe2\x80\x94"},
	{"ndash", "\xe2\x80\x93"},
	{"euro", "\xe2\x82\xac"},
};

/* Write what stands for the entity at s[i] ("&"); where it ends, 0 if it is none. */
static size_t unescape(struct rt *r, struct sbuf *b, const struct str *s, size_t i)
{
	size_t end = i + 1, digits;
	uint32_t c = 0;
	char utf8[4];

	if (end < s->len && s->p[end] == '#') {
		bool hex = ++end < s->len && (s->p[end] | 32) == 'x';

		end += hex;
		for (digits = end; end < s->len && c < 0x110000; end++) {
			int k = (uint8_t)s->p[end];

			if (!(hex ? isxdigit(k) : isdigit(k)))
				break;
			c = c * (hex ? 16 : 10) +
			    (uint32_t)(isdigit(k) ? k - '0' : (k | 32) - 'a' + 10);
		}
		if (end == digits)
			return 0;
		if (!c || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
			c = 0xfffd;
		sb_put(r, b, utf8, (size_t)utf8_encode(c, utf8), str_user_at(s, i));
		return end + (end < s->len && s->p[end] == ';');
	}
	while (end < s->len && end - i < 10 && isalnum((uint8_t)s->p[end]))
		end++;
	for (size_t k = 0; k < sizeof(entities) / sizeof(entities[0]); k++) {
		if (strlen(entities[k].name) != end - i - 1 ||
		    memcmp(entities[k].name, s->p + i + 1, end - i - 1) || end >= s->len ||
		    s->p[end] != ';')
			continue;
		sb_puts(r, b, entities[k].text, str_user_at(s, i));
		return end + 1;
	}
	return 0;
}

FILTER(striptags)
{
	struct str *s = str_markup(r, to_str(r, self), false), *text;
	size_t at = 0, end;
	struct list *words;
	struct sbuf b;

	sb_init(r, &b, s->len);
	for (;;) {
		const char *open = memchr(s->p + at, '<', s->len - at), *close;
		size_t from = open ? (size_t)(open - s->p) : s->len;

		if (!open)
			break;
		if (s->len - from >= 4 && !memcmp(open, "<!--", 4)) {
			close = memmem(open + 4, s->len - from - 4, "-->", 3);
			end = close ? (size_t)(close - s->p) + 3 : 0;
		} else {
			close = memchr(open, '>', s->len - from);
			end = close ? (size_t)(close - s->p) + 1 : 0;
		}
		if (!close)
			break;
		sb_range(r, &b, s, at, from);
		at = end;
	}
	sb_range(r, &b, s, at, s->len);
	words = str_split_space(r, sb_take(r, &b), -1);
	sb_init(r, &b, s->len);
	for (size_t i = 0; i < words->n; i++) {
		if (i)
			sb_put(r, &b, " ", 1, str_user_at(words->v[i].s, 0));
		sb_str(r, &b, words->v[i].s);
	}
	text = sb_take(r, &b);
	sb_init(r, &b, s->len);
	for (size_t i = 0; i < text->len;) {
		end = text->p[i] == '&' ? unescape(r, &b, text, i) : 0;
		if (!end) {
			end = i + (size_t)utf8_skip(text->p + i);
			sb_range(r, &b, text, i, end);
		}
		i = end;
	}
	return v_str(sb_take(r, &b));
}

static void quote_url(struct rt *r, struct sbuf *b, struct val v, bool query)
{
	struct str *s = to_str(r, v);

	for (size_t i = 0; i < s->len; i++) {
		uint8_t c = (uint8_t)s->p[i];
		char hex[4];

		if (c < 128 && (isalnum(c) || strchr("_.-~", c)) && c) {
			sb_range(r, b, s, i, i + 1);
		} else if (c == '/' && !query) {
			sb_range(r, b, s, i, i + 1);
		} else if (c == ' ' && query) {
			sb_put(r, b, "+", 1, str_user_at(s, i));
		} else {
			snprintf(hex, sizeof(hex), "%%%02X", c);
			sb_put(r, b, hex, 3, str_user_at(s, i));
		}
	}
}

FILTER(urlencode)
{
	bool first = true;
	struct iter it;
	struct sbuf b;
	struct val v = self;

	sb_init(r, &b, 0);
	if (v.type == V_DICT) {
		v.type = V_VIEW;
		v.sub = VIEW_ITEMS;
	}
	if (self.type == V_STR || !iter_init(r, &it, v)) {
		quote_url(r, &b, self, false);
		return v_str(sb_take(r, &b));
	}
	for (; iter_next(r, &it, &v); first = false) {
		struct list *pair = list_of(r, v);

		if (pair->n != 2)
			fail(r, "urlencode: pairs are needed");
		if (!first)
			sb_puts(r, &b, "&", false);
		quote_url(r, &b, pair->v[0], true);
		sb_puts(r, &b, "=", false);
		quote_url(r, &b, pair->v[1], true);
	}
	return v_str(sb_take(r, &b));
}

FILTER(xmlattr)
{
	bool space = arg_bool(a->pos[0], true), first = true;
	struct sbuf b;

	if (self.type == V_UNDEF)
		fail_undefined(r, self);
	if (self.type != V_DICT)
		fail(r, "'%s' object has no attribute 'items'", type_name(self));
	dict_load(r, self.d);
	sb_init(r, &b, 0);
	for (size_t i = 0; i < self.d->n; i++) {
		const struct entry *e = &self.d->e[i];
		struct str *key;

		if (e->value.type == V_NONE || e->value.type == V_UNDEF)
			continue;
		key = arg_str(r, e->key, "xmlattr");
		for (size_t k = 0; k < key->len; k++)
			if (key->p[k] && strchr(" \t\n\r\f\v/>=", key->p[k]))
				fail(r, "invalid character in attribute name");
		if (!first || space)
			sb_puts(r, &b, " ", false);
		first = false;
		sb_str(r, &b, escaped(r, key));
		sb_puts(r, &b, "=\"", false);
		sb_str(r, &b, escape_html(r, e->value).s);
		sb_puts(r, &b, "\"", false);
	}
	return v_str(sb_take(r, &b));
}

/* ---- pprint ------------------------------------------------------------------------------------ */

static struct str *repr(struct rt *r, struct val v)
{
	struct sbuf b;

	sb_init(r, &b, 0);
	put_repr(r, &b, v);
	return sb_take(r, &b);
}

/* The same with the keys of dicts in order, within too. */
static struct val sorted_dicts(struct rt *r, struct val v)
{
	struct list *keys, *out;
	struct dict *d;

	enter(r);
	if (v.type == V_LIST || v.type == V_TUPLE) {
		list_load(r, v.l);
		out = list_new(r, v.l->n);
		for (size_t i = 0; i < v.l->n; i++)
			list_push(r, out, sorted_dicts(r, v.l->v[i]));
		out->user = v.l->user;
		v.l = out;
	} else if (v.type == V_DICT) {
		keys = list_of(r, v);
		out = list_new(r, keys->n);
		for (size_t i = 0; i < keys->n; i++)
			list_push(r, out, keys->v[i]);
		sort_by(r, keys, out->v, false);
		d = dict_new(r, keys->n);
		for (size_t i = 0; i < keys->n; i++)
			dict_set(r, d, keys->v[i], sorted_dicts(r, dict_get(r, v.d, keys->v[i])));
		d->user = v.d->user;
		v.d = d;
	}
	leave(r);
	return v;
}

static void pretty(struct rt *r, struct sbuf *b, struct val v, int64_t indent, int64_t allowance)
{
	struct str *one = repr(r, v), *key;
	const char *open = v.type == V_LIST ? "[" : v.type == V_TUPLE ? "(" : "{";
	const char *close = v.type == V_LIST ? "]" : v.type == V_TUPLE ? ")" : "}";
	size_t n;

	if ((v.type != V_LIST && v.type != V_TUPLE && v.type != V_DICT) ||
	    (int64_t)str_chars(r, one) <= 80 - indent - allowance) {
		sb_str(r, b, one);
		return;
	}
	enter(r);
	n = v.type == V_DICT ? v.d->n : v.l->n;
	if (v.type == V_TUPLE && n == 1)
		close = ",)";
	sb_puts(r, b, open, false);
	for (size_t i = 0; i < n; i++) {
		int64_t after = i + 1 < n ? 1 : allowance + (int64_t)strlen(close);

		if (i) {
			sb_puts(r, b, ",\n", false);
			sb_fill(r, b, ' ', (size_t)indent + 1, false);
		}
		if (v.type != V_DICT) {
			pretty(r, b, v.l->v[i], indent + 1, after);
			continue;
		}
		key = repr(r, v.d->e[i].key);
		sb_str(r, b, key);
		sb_puts(r, b, ": ", false);
		pretty(r, b, v.d->e[i].value, indent + 3 + (int64_t)str_chars(r, key), after);
	}
	sb_puts(r, b, close, false);
	leave(r);
}

FILTER(pprint)
{
	struct sbuf b;

	sb_init(r, &b, 0);
	pretty(r, &b, sorted_dicts(r, self), 0, 0);
	return v_str(sb_take(r, &b));
}
