// SPDX-License-Identifier: MIT
/* The work behind the methods of str: finding, splitting, stripping, padding. Every result keeps
 * the taint of the bytes it is made of. See filters.h, tmpl_int.h. */
#include "text/template/filters.h"
#include "text/utf8.h"

struct str *str_replace(struct rt *r, struct str *s, struct str *old, struct str *new,
			int64_t count)
{
	size_t at = 0, i = 0;
	struct sbuf b;

	if (!count || (!s->len && old->len))
		return s;
	charge_bytes(r, s->len);
	if (old->len && !bytes_find(s->p, s->len, old))
		return s;
	sb_init(r, &b, s->len);
	if (!old->len) {
		/* before each character, and at the end */
		for (; i < s->len && count; count--) {
			size_t n = (size_t)utf8_skip(s->p + i);

			sb_str(r, &b, new);
			sb_range(r, &b, s, i, i + n);
			i += n;
		}
		sb_range(r, &b, s, i, s->len);
		if (count)
			sb_str(r, &b, new);
		return str_markup(r, sb_take(r, &b), s->markup);
	}
	while (count--) {
		const char *k = bytes_find(s->p + at, s->len - at, old);

		if (!k)
			break;
		charge(r, 1);
		sb_range(r, &b, s, at, (size_t)(k - s->p));
		sb_str(r, &b, new);
		at = (size_t)(k - s->p) + old->len;
	}
	sb_range(r, &b, s, at, s->len);
	return str_markup(r, sb_take(r, &b), s->markup);
}

static bool in_set(const struct str *set, const char *p, size_t n)
{
	return n == 1 ? memchr(set->p, *p, set->len) != NULL
		      : memmem(set->p, set->len, p, n) != NULL;
}

struct str *str_strip(struct rt *r, struct str *s, struct str *chars, bool left, bool right)
{
	size_t from = 0, to = s->len;

	if (!chars) {
		from = left ? u_strip_left(s, 0, to) : 0;
		to = right ? u_strip_right(s, from, to) : to;
		charge_bytes(r, from + s->len - to);
		return str_sub(r, s, from, to);
	}
	while (left && from < to) {
		size_t n = (size_t)utf8_skip(s->p + from);

		if (!in_set(chars, s->p + from, n))
			break;
		from += n;
	}
	while (right && to > from) {
		size_t at = to - 1;

		while (at > from && ((uint8_t)s->p[at] & 0xc0) == 0x80)
			at--;
		if (!in_set(chars, s->p + at, to - at))
			break;
		to = at;
	}
	charge(r, (from + s->len - to) * (1 + chars->len / 16));
	return str_sub(r, s, from, to);
}

struct str *str_pad(struct rt *r, struct str *s, int64_t width, struct str *fill, char where)
{
	int64_t n = (int64_t)str_chars(r, s), pad = width - n, left;
	struct sbuf b;

	if (pad <= 0)
		return s;
	if (fill && str_chars(r, fill) != 1)
		fail(r, "the fill character must be exactly one character long");
	if (width > (int64_t)r->arena.limit)
		fail_limit(r, "memory");
	left = where == '<' ? 0 : where == '>' ? pad : pad / 2 + (pad & width & 1);
	sb_init(r, &b, s->len + (size_t)pad * (fill ? fill->len : 1));
	for (int64_t i = 0; i < pad; i++) {
		if (i == left)
			sb_str(r, &b, s);
		if (fill)
			sb_str(r, &b, fill);
		else
			sb_put(r, &b, " ", 1, false);
	}
	if (left == pad)
		sb_str(r, &b, s);
	return str_markup(r, sb_take(r, &b), s->markup);
}

struct list *str_lines(struct rt *r, struct str *s, bool keep_ends)
{
	struct list *l = list_new(r, 4);
	size_t from = 0;
	int n;

	charge_bytes(r, s->len);
	for (size_t i = 0; i < s->len; i += (size_t)n) {
		uint32_t c = u_get(s, i, &n);
		size_t end = i + (size_t)n;

		if (!u_line_break(c))
			continue;
		if (c == '\r' && end < s->len && s->p[end] == '\n')
			end++;
		list_push(r, l, v_str(str_sub(r, s, from, keep_ends ? end : i)));
		from = end;
		n = (int)(end - i);
	}
	if (from < s->len)
		list_push(r, l, v_str(str_sub(r, s, from, s->len)));
	return l;
}

struct list *str_split_space(struct rt *r, struct str *s, int64_t max)
{
	struct list *l = list_new(r, 4);
	size_t at = u_strip_left(s, 0, s->len);
	int n;

	charge_bytes(r, s->len);
	while (at < s->len) {
		size_t end = at;

		if (max >= 0 && (int64_t)l->n >= max) {
			list_push(r, l, v_str(str_sub(r, s, at, s->len)));
			break;
		}
		while (end < s->len && !u_space(u_get(s, end, &n)))
			end += (size_t)n;
		list_push(r, l, v_str(str_sub(r, s, at, end)));
		at = u_strip_left(s, end, s->len);
	}
	return l;
}

struct list *str_split(struct rt *r, struct str *s, struct str *sep, int64_t max)
{
	struct list *l = list_new(r, 4);
	size_t at = 0;

	if (!sep->len)
		fail(r, "empty separator");
	charge_bytes(r, s->len);
	while (max < 0 || (int64_t)l->n < max) {
		const char *k = bytes_find(s->p + at, s->len - at, sep);

		if (!k)
			break;
		list_push(r, l, v_str(str_sub(r, s, at, (size_t)(k - s->p))));
		at = (size_t)(k - s->p) + sep->len;
	}
	list_push(r, l, v_str(str_sub(r, s, at, s->len)));
	return l;
}

static void reverse(struct list *l)
{
	for (size_t i = 0; i < l->n / 2; i++) {
		struct val v = l->v[i];

		l->v[i] = l->v[l->n - 1 - i];
		l->v[l->n - 1 - i] = v;
	}
}

static struct list *rsplit_space(struct rt *r, struct str *s, int64_t max)
{
	struct list *l = list_new(r, 4);
	size_t end = u_strip_right(s, 0, s->len), at;
	int n;

	charge_bytes(r, s->len);
	while (end) {
		if (max >= 0 && (int64_t)l->n >= max) {
			list_push(r, l, v_str(str_sub(r, s, 0, end)));
			break;
		}
		for (at = end; at;) {
			size_t k = at - 1;

			while (k && ((uint8_t)s->p[k] & 0xc0) == 0x80)
				k--;
			if (u_space(u_get(s, k, &n)))
				break;
			at = k;
		}
		list_push(r, l, v_str(str_sub(r, s, at, end)));
		end = u_strip_right(s, 0, at);
	}
	reverse(l);
	return l;
}

/* Where the last `what` within [from, to) begins, or SIZE_MAX. */
static size_t find_last(struct rt *r, const struct str *s, const struct str *what, size_t from,
			size_t to)
{
	if (to < from || to - from < what->len)
		return SIZE_MAX;
	for (size_t i = to - what->len + 1; i-- > from;) {
		if (s->p[i] != *what->p)
			continue;
		charge_bytes(r, what->len);
		if (!memcmp(s->p + i, what->p, what->len)) {
			charge_bytes(r, to - i);
			return i;
		}
	}
	charge_bytes(r, to - from);
	return SIZE_MAX;
}

struct list *str_rsplit(struct rt *r, struct str *s, struct str *sep, int64_t max)
{
	struct list *l;
	size_t end = s->len, at;

	if (!sep)
		return rsplit_space(r, s, max);
	if (!sep->len)
		fail(r, "empty separator");
	l = list_new(r, 4);
	while (max < 0 || (int64_t)l->n < max) {
		at = find_last(r, s, sep, 0, end);
		if (at == SIZE_MAX)
			break;
		list_push(r, l, v_str(str_sub(r, s, at + sep->len, end)));
		end = at;
	}
	list_push(r, l, v_str(str_sub(r, s, 0, end)));
	reverse(l);
	return l;
}

/* The byte range that start and end (characters; negative from the end) name. False: start lies
 * beyond the end of s. */
static bool bounds(struct rt *r, struct str *s, struct val start, struct val end, size_t *from,
		   size_t *to)
{
	int64_t n, a = 0, z;

	*from = 0;
	*to = s->len;
	if ((start.type == V_ABSENT || start.type == V_NONE) &&
	    (end.type == V_ABSENT || end.type == V_NONE))
		return true;
	n = (int64_t)str_chars(r, s);
	z = n;
	if (start.type != V_ABSENT && start.type != V_NONE)
		a = arg_int(r, start, 0, "slice index");
	if (end.type != V_ABSENT && end.type != V_NONE)
		z = arg_int(r, end, 0, "slice index");
	a = a < 0 ? (a < -n ? 0 : a + n) : a;
	z = z < 0 ? (z < -n ? 0 : z + n) : z > n ? n : z;
	if (a > n)
		return false;
	*from = str_offset(s, (size_t)a);
	*to = str_offset(s, (size_t)z);
	return a <= z;
}

static int64_t chars_before(struct rt *r, struct str *s, size_t at)
{
	struct str head = {.p = s->p, .len = at, .ascii = s->ascii == 1 ? 1 : -1};

	return (int64_t)str_chars(r, &head);
}

/* The index of the first or last occurrence in characters, or -1. */
static int64_t find_in(struct rt *r, struct str *s, struct args *a, bool last)
{
	struct str *what = arg_str(r, a->pos[0], "find()");
	size_t from, to, at;
	const char *k;

	if (!bounds(r, s, a->pos[1], a->pos[2], &from, &to))
		return -1;
	charge_bytes(r, to - from);
	if (!what->len)
		return chars_before(r, s, last ? to : from);
	if (last) {
		at = find_last(r, s, what, from, to);
		return at == SIZE_MAX ? -1 : chars_before(r, s, at);
	}
	k = bytes_find(s->p + from, to - from, what);
	return k ? chars_before(r, s, (size_t)(k - s->p)) : -1;
}

/* ---- methods ----------------------------------------------------------------------------------- */

#define METHOD(name) static struct val str_##name##_m(struct rt *r, struct val self, struct args *a)

static struct str *chars_arg(struct rt *r, struct val v)
{
	return v.type == V_ABSENT || v.type == V_NONE ? NULL : arg_str(r, v, "strip()");
}

METHOD(strip)
{
	return v_str(str_strip(r, self.s, chars_arg(r, a->pos[0]), true, true));
}

METHOD(lstrip)
{
	return v_str(str_strip(r, self.s, chars_arg(r, a->pos[0]), true, false));
}

METHOD(rstrip)
{
	return v_str(str_strip(r, self.s, chars_arg(r, a->pos[0]), false, true));
}

METHOD(split)
{
	int64_t max = arg_int(r, a->pos[1], -1, "split()");

	if (a->pos[0].type == V_ABSENT || a->pos[0].type == V_NONE)
		return v_list(str_split_space(r, self.s, max));
	return v_list(str_split(r, self.s, arg_str(r, a->pos[0], "split()"), max));
}

METHOD(rsplit)
{
	int64_t max = arg_int(r, a->pos[1], -1, "rsplit()");
	bool space = a->pos[0].type == V_ABSENT || a->pos[0].type == V_NONE;

	return v_list(str_rsplit(r, self.s, space ? NULL : arg_str(r, a->pos[0], "rsplit()"), max));
}

METHOD(splitlines)
{
	return v_list(str_lines(r, self.s, arg_bool(a->pos[0], false)));
}

static struct val partition(struct rt *r, struct str *s, struct str *sep, bool last)
{
	struct list *l = list_new(r, 3);
	const char *k;
	size_t at;

	if (!sep->len)
		fail(r, "empty separator");
	charge_bytes(r, s->len);
	k = bytes_find(s->p, s->len, sep);
	at = last ? find_last(r, s, sep, 0, s->len) : k ? (size_t)(k - s->p) : SIZE_MAX;
	if (at == SIZE_MAX) {
		list_push(r, l, v_str(last ? r->empty : s));
		list_push(r, l, v_str(r->empty));
		list_push(r, l, v_str(last ? s : r->empty));
	} else {
		list_push(r, l, v_str(str_sub(r, s, 0, at)));
		list_push(r, l, v_str(str_sub(r, s, at, at + sep->len)));
		list_push(r, l, v_str(str_sub(r, s, at + sep->len, s->len)));
	}
	return v_tuple(l);
}

METHOD(partition)
{
	return partition(r, self.s, arg_str(r, a->pos[0], "partition()"), false);
}

METHOD(rpartition)
{
	return partition(r, self.s, arg_str(r, a->pos[0], "rpartition()"), true);
}

/* One affix or a tuple of them. */
static bool has_affix(struct rt *r, struct str *s, struct args *a, bool suffix)
{
	struct val one = a->pos[0];
	struct list single = {.v = &one, .n = 1}, *l = &single;
	size_t from, to;

	if (one.type == V_TUPLE)
		l = one.l;
	else if (one.type != V_STR)
		fail(r, "%s first arg must be str or a tuple of str, not %s",
		     suffix ? "endswith" : "startswith", type_name(one));
	if (!bounds(r, s, a->pos[1], a->pos[2], &from, &to))
		return false;
	for (size_t i = 0; i < l->n; i++) {
		struct str *x = arg_str(r, l->v[i], "tuple of affixes");

		if (x->len <= to - from &&
		    !memcmp(suffix ? s->p + to - x->len : s->p + from, x->p, x->len))
			return true;
	}
	return false;
}

METHOD(startswith)
{
	return v_bool(has_affix(r, self.s, a, false));
}

METHOD(endswith)
{
	return v_bool(has_affix(r, self.s, a, true));
}

METHOD(removeprefix)
{
	struct str *x = arg_str(r, a->pos[0], "removeprefix()"), *s = self.s;
	bool has = s->len >= x->len && !memcmp(s->p, x->p, x->len);

	return v_str(str_sub(r, s, has ? x->len : 0, s->len));
}

METHOD(removesuffix)
{
	struct str *x = arg_str(r, a->pos[0], "removesuffix()"), *s = self.s;
	bool has = s->len >= x->len && !memcmp(s->p + s->len - x->len, x->p, x->len);

	return v_str(str_sub(r, s, 0, s->len - (has ? x->len : 0)));
}

METHOD(find)
{
	return v_int(find_in(r, self.s, a, false));
}

METHOD(rfind)
{
	return v_int(find_in(r, self.s, a, true));
}

METHOD(index)
{
	int64_t i = find_in(r, self.s, a, false);

	if (i < 0)
		fail(r, "substring not found");
	return v_int(i);
}

METHOD(rindex)
{
	int64_t i = find_in(r, self.s, a, true);

	if (i < 0)
		fail(r, "substring not found");
	return v_int(i);
}

METHOD(count)
{
	struct str *what = arg_str(r, a->pos[0], "count()");
	size_t from, to;
	int64_t n = 0;

	if (!bounds(r, self.s, a->pos[1], a->pos[2], &from, &to))
		return v_int(0);
	charge_bytes(r, to - from);
	if (!what->len)
		return v_int(chars_before(r, self.s, to) - chars_before(r, self.s, from) + 1);
	for (;; n++) {
		const char *k = bytes_find(self.s->p + from, to - from, what);

		if (!k)
			return v_int(n);
		from = (size_t)(k - self.s->p) + what->len;
	}
}

METHOD(replace)
{
	struct str *new = arg_str(r, a->pos[1], "replace()");

	if (self.s->markup)
		new = escape_html(r, v_str(new)).s;
	return v_str(str_replace(r, self.s, arg_str(r, a->pos[0], "replace()"), new,
				 arg_int(r, a->pos[2], -1, "replace()")));
}

METHOD(join)
{
	bool first = true;
	struct iter it;
	struct sbuf b;
	struct val v;

	iter_open(r, &it, a->pos[0]);
	sb_init(r, &b, 0);
	for (; iter_next(r, &it, &v); first = false) {
		if (v.type != V_STR && !self.s->markup)
			fail(r, "sequence item: expected str instance, %s found", type_name(v));
		if (!first)
			sb_str(r, &b, self.s);
		sb_str(r, &b, self.s->markup ? escape_html(r, v).s : v.s);
	}
	return v_str(str_markup(r, sb_take(r, &b), self.s->markup));
}

METHOD(upper)
{
	return v_str(u_upper(r, self.s));
}

METHOD(lower)
{
	return v_str(u_lower(r, self.s));
}

METHOD(casefold)
{
	return v_str(str_replace(r, u_lower(r, self.s), str_static(r, "\xc3\x9f"),
				 str_static(r, "ss"), -1));
}

METHOD(title)
{
	return v_str(u_title(r, self.s));
}

METHOD(capitalize)
{
	return v_str(u_capitalize(r, self.s));
}

METHOD(swapcase)
{
	return v_str(u_swapcase(r, self.s));
}

static struct val padded(struct rt *r, struct val self, struct args *a, char where)
{
	struct str *fill = a->pos[1].type == V_ABSENT ? NULL : arg_str(r, a->pos[1], "fill");

	/* Python looks at it even where nothing is filled */
	if (fill && str_chars(r, fill) != 1)
		fail(r, "the fill character must be exactly one character long");
	return v_str(str_pad(r, self.s, arg_int(r, a->pos[0], 0, "width"), fill, where));
}

METHOD(center)
{
	return padded(r, self, a, '^');
}

METHOD(ljust)
{
	return padded(r, self, a, '<');
}

METHOD(rjust)
{
	return padded(r, self, a, '>');
}

METHOD(zfill)
{
	struct str *s = self.s, *zero = str_static(r, "0");
	int64_t width = arg_int(r, a->pos[0], 0, "zfill()");
	bool sign = s->len && (*s->p == '+' || *s->p == '-');
	struct str *digits = str_sub(r, s, sign, s->len);

	digits = str_pad(r, digits, width - sign, zero, '>');
	return v_str(sign ? str_concat(r, str_sub(r, s, 0, 1), digits) : digits);
}

METHOD(expandtabs)
{
	int64_t size = arg_int(r, a->pos[0], 8, "expandtabs()"), column = 0;
	struct str *s = self.s;
	struct sbuf b;
	int n;

	sb_init(r, &b, s->len);
	if (size > (int64_t)r->arena.limit)
		fail_limit(r, "memory");
	for (size_t i = 0; i < s->len; i += (size_t)n) {
		uint32_t c = u_get(s, i, &n);

		if (c == '\t') {
			int64_t fill = size > 0 ? size - column % size : 0;

			sb_fill(r, &b, ' ', (size_t)fill, str_user_at(s, i));
			column += fill;
			continue;
		}
		column = c == '\n' || c == '\r' ? 0 : column + 1;
		sb_range(r, &b, s, i, i + (size_t)n);
	}
	return v_str(sb_take(r, &b));
}

METHOD(format)
{
	return format_braces(r, self.s, a);
}

/* Is there a character, and are all as `is` says? */
static struct val all(struct rt *r, const struct str *s, bool (*is)(const struct rt *r, uint32_t c))
{
	int n;

	charge_bytes(r, s->len);
	for (size_t i = 0; i < s->len; i += (size_t)n)
		if (!is(r, u_get(s, i, &n)))
			return v_bool(false);
	return v_bool(s->len);
}

static bool is_alnum(const struct rt *r, uint32_t c)
{
	return c != '_' && u_is_word(r, c);
}

static bool is_space(const struct rt *r, uint32_t c)
{
	return u_space(c);
}

static bool is_digit(const struct rt *r, uint32_t c)
{
	return u_is_digit(r, c) || c == 0xb2 || c == 0xb3 || c == 0xb9 || c == 0x2070 ||
	       (c >= 0x2074 && c <= 0x2079) || (c >= 0x2080 && c <= 0x2089) ||
	       (c >= 0x2460 && c <= 0x2468);
}

static bool is_numeric(const struct rt *r, uint32_t c)
{
	return is_digit(r, c) || (c >= 0xbc && c <= 0xbe) || (c >= 0x2150 && c <= 0x2189) ||
	       (c >= 0x2460 && c <= 0x249b) || c == 0x3007 || c == 0x4e00 || c == 0x4e8c ||
	       c == 0x4e09 || c == 0x56db || c == 0x4e94 || c == 0x516d || c == 0x4e03 ||
	       c == 0x516b || c == 0x4e5d || c == 0x5341 || c == 0x767e || c == 0x5343 ||
	       c == 0x4e07;
}

METHOD(isalpha)
{
	return all(r, self.s, u_is_alpha);
}

METHOD(isalnum)
{
	return all(r, self.s, is_alnum);
}

METHOD(isspace)
{
	return all(r, self.s, is_space);
}

METHOD(isdecimal)
{
	return all(r, self.s, u_is_digit);
}

METHOD(isdigit)
{
	return all(r, self.s, is_digit);
}

METHOD(isnumeric)
{
	return all(r, self.s, is_numeric);
}

METHOD(isprintable)
{
	return v_bool(!self.s->len || all(r, self.s, u_printable).b);
}

METHOD(isascii)
{
	return v_bool(str_is_ascii(self.s));
}

METHOD(isidentifier)
{
	struct str *s = self.s;
	int n;

	for (size_t i = 0; i < s->len; i += (size_t)n) {
		uint32_t c = u_get(s, i, &n);

		if (!u_is_word(r, c) || (!i && u_is_digit(r, c)))
			return v_bool(false);
	}
	return v_bool(s->len);
}

METHOD(isupper)
{
	return find_test("upper", 5)->fn(r, self, a);
}

METHOD(islower)
{
	return find_test("lower", 5)->fn(r, self, a);
}

METHOD(istitle)
{
	bool in_word = false, some = false;
	struct str *s = self.s;
	int n;

	for (size_t i = 0; i < s->len; i += (size_t)n) {
		uint32_t c = u_get(s, i, &n);
		bool upper = u_is_upper(r, c), lower = u_is_lower(r, c);

		if ((upper && in_word) || (lower && !in_word))
			return v_bool(false);
		in_word = upper || lower;
		some |= in_word;
	}
	return v_bool(some);
}

static const struct func str_methods[] = {
	{"capitalize", str_capitalize_m, 0, "", VM(V_STR)},
	{"casefold", str_casefold_m, 0, "", VM(V_STR)},
	{"center", str_center_m, 1, "/width,fillchar", VM(V_STR)},
	{"count", str_count_m, 1, "/sub,start,end", VM(V_STR)},
	{"endswith", str_endswith_m, 1, "/suffix,start,end", VM(V_STR)},
	{"expandtabs", str_expandtabs_m, 0, "tabsize", VM(V_STR)},
	{"find", str_find_m, 1, "/sub,start,end", VM(V_STR)},
	{"format", str_format_m, 0, NULL, VM(V_STR)},
	{"index", str_index_m, 1, "/sub,start,end", VM(V_STR)},
	{"isalnum", str_isalnum_m, 0, "", VM(V_STR)},
	{"isalpha", str_isalpha_m, 0, "", VM(V_STR)},
	{"isascii", str_isascii_m, 0, "", VM(V_STR)},
	{"isdecimal", str_isdecimal_m, 0, "", VM(V_STR)},
	{"isdigit", str_isdigit_m, 0, "", VM(V_STR)},
	{"isidentifier", str_isidentifier_m, 0, "", VM(V_STR)},
	{"islower", str_islower_m, 0, "", VM(V_STR)},
	{"isnumeric", str_isnumeric_m, 0, "", VM(V_STR)},
	{"isprintable", str_isprintable_m, 0, "", VM(V_STR)},
	{"isspace", str_isspace_m, 0, "", VM(V_STR)},
	{"istitle", str_istitle_m, 0, "", VM(V_STR)},
	{"isupper", str_isupper_m, 0, "", VM(V_STR)},
	{"join", str_join_m, 1, "/iterable", VM(V_STR)},
	{"ljust", str_ljust_m, 1, "/width,fillchar", VM(V_STR)},
	{"lower", str_lower_m, 0, "", VM(V_STR)},
	{"lstrip", str_lstrip_m, 0, "/chars", VM(V_STR)},
	{"partition", str_partition_m, 1, "/sep", VM(V_STR)},
	{"removeprefix", str_removeprefix_m, 1, "/prefix", VM(V_STR)},
	{"removesuffix", str_removesuffix_m, 1, "/suffix", VM(V_STR)},
	{"replace", str_replace_m, 2, "/old,new,count", VM(V_STR)},
	{"rfind", str_rfind_m, 1, "/sub,start,end", VM(V_STR)},
	{"rindex", str_rindex_m, 1, "/sub,start,end", VM(V_STR)},
	{"rjust", str_rjust_m, 1, "/width,fillchar", VM(V_STR)},
	{"rpartition", str_rpartition_m, 1, "/sep", VM(V_STR)},
	{"rsplit", str_rsplit_m, 0, "sep,maxsplit", VM(V_STR)},
	{"rstrip", str_rstrip_m, 0, "/chars", VM(V_STR)},
	{"split", str_split_m, 0, "sep,maxsplit", VM(V_STR)},
	{"splitlines", str_splitlines_m, 0, "keepends", VM(V_STR)},
	{"startswith", str_startswith_m, 1, "/prefix,start,end", VM(V_STR)},
	{"strip", str_strip_m, 0, "/chars", VM(V_STR)},
	{"swapcase", str_swapcase_m, 0, "", VM(V_STR)},
	{"title", str_title_m, 0, "", VM(V_STR)},
	{"upper", str_upper_m, 0, "", VM(V_STR)},
	{"zfill", str_zfill_m, 1, "/width", VM(V_STR)},
	{0},
};

const struct func *find_str_method(const char *name, size_t len)
{
	for (size_t i = 0; str_methods[i].name; i++)
		if (strlen(str_methods[i].name) == len && !memcmp(str_methods[i].name, name, len))
			return &str_methods[i];
	return NULL;
}
