// SPDX-License-Identifier: MIT
/* "..." % args and "...".format(args), as Python has them. See tmpl_int.h. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/template/filters.h"
#include "text/utf8.h"

#define MAX_WIDTH     (1 << 20)
#define MAX_PRECISION 1000

struct spec {
	struct str fill; /* one character */
	char align; /* < > ^ =; 0: the type's own */
	char sign; /* + - space; 0 */
	bool alt, zero;
	char group; /* , or _ between thousands; 0 */
	int64_t width, precision; /* precision -1: none */
	char type; /* 0: none */
};

/* ---- laying out -------------------------------------------------------------------------------- */

static void pad(struct rt *r, struct sbuf *b, const struct spec *f, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		sb_str(r, b, &f->fill);
}

/* `body` behind `sign` (and a prefix such as 0x), filled up to the width. */
static void put_number(struct rt *r, struct sbuf *b, const struct spec *f, const char *sign,
		       const char *body, bool user)
{
	int64_t n = (int64_t)(strlen(sign) + strlen(body)), fill = f->width - n;
	char align = f->align ? f->align : '>';
	int64_t left = align == '<' || align == '=' ? 0 : align == '^' ? fill / 2 : fill;

	fill = fill > 0 ? fill : 0;
	left = left > 0 ? left : 0;
	pad(r, b, f, left);
	sb_puts(r, b, sign, user);
	if (align == '=')
		pad(r, b, f, fill);
	sb_puts(r, b, body, user);
	if (align != '=')
		pad(r, b, f, fill - left);
}

static void put_text(struct rt *r, struct sbuf *b, const struct spec *f, struct str *s)
{
	int64_t n, fill, left;

	if (f->precision >= 0)
		s = str_sub(r, s, 0, str_offset(s, (size_t)f->precision));
	n = f->width ? (int64_t)str_chars(r, s) : 0;
	fill = f->width > n ? f->width - n : 0;
	left = f->align == '>' ? fill : f->align == '^' ? fill / 2 : 0;
	pad(r, b, f, left);
	sb_str(r, b, s);
	pad(r, b, f, fill - left);
}

static const char *sign_of(const struct spec *f, bool minus)
{
	return minus ? "-" : f->sign == '+' ? "+" : f->sign == ' ' ? " " : "";
}

/* Separators between groups of the digits before the point. */
static const char *grouped(struct rt *r, const char *digits, char group, int size)
{
	size_t n = strspn(digits, "0123456789abcdefABCDEF"), k = 0;
	char *out;

	if (!group)
		return digits;
	out = ralloc(r, 2 * strlen(digits) + 1);
	for (size_t i = 0; i < n; i++) {
		if (i && (n - i) % (size_t)size == 0)
			out[k++] = group;
		out[k++] = digits[i];
	}
	strcpy(out + k, digits + n);
	return out;
}

static void put_int(struct rt *r, struct sbuf *b, const struct spec *f, struct val v)
{
	int64_t i = int_of(v);
	uint64_t u = i < 0 ? -(uint64_t)i : (uint64_t)i;
	int base = f->type == 'x' || f->type == 'X' ? 16
		   : f->type == 'o'		    ? 8
		   : f->type == 'b'		    ? 2
						    : 10;
	const char *digit = f->type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
	char buf[80], sign[8], *at = buf + sizeof(buf);
	const char *prefix = "";

	*--at = 0;
	do {
		*--at = digit[u % (unsigned)base];
		u /= (unsigned)base;
	} while (u);
	if (f->alt && base != 10)
		prefix = base == 2 ? "0b" : base == 8 ? "0o" : f->type == 'X' ? "0X" : "0x";
	snprintf(sign, sizeof(sign), "%s%s", sign_of(f, i < 0), prefix);
	put_number(r, b, f, sign, grouped(r, at, f->group, base == 10 ? 3 : 4), v.user);
}

static void put_float(struct rt *r, struct sbuf *b, const struct spec *f, double x, bool user)
{
	size_t size = (size_t)(f->precision > 0 ? f->precision : 0) + 400;
	char type = f->type ? f->type : 'g', how[16], *buf = ralloc(r, size + 2);
	bool percent = type == '%', minus = signbit(x) && !isnan(x);
	int precision = f->precision >= 0 ? (int)f->precision : 6;

	x = fabs(x);
	if (type == 'n')
		type = 'g';
	if (percent) {
		x *= 100;
		type = 'f';
	}
	if (isinf(x) || isnan(x)) {
		bool upper = type == 'E' || type == 'F' || type == 'G';

		strcpy(buf, isnan(x) ? (upper ? "NAN" : "nan") : (upper ? "INF" : "inf"));
	} else if (!f->type && f->precision < 0) {
		float_repr(x, buf);
	} else {
		snprintf(how, sizeof(how), "%%%s.*%c", f->alt ? "#" : "", type);
		snprintf(buf, size, how, precision, x);
		/* without a type there is always a digit behind the point */
		if (!f->type && !strpbrk(buf, ".e"))
			strcat(buf, ".0");
	}
	if (percent)
		strcat(buf, "%");
	put_number(r, b, f, sign_of(f, minus), grouped(r, buf, f->group, 3), user);
}

/* ---- % ----------------------------------------------------------------------------------------- */

struct percent {
	struct rt *r;
	struct str *f;
	size_t at;
	struct val args;
	struct list *tuple; /* the positional ones */
	size_t used;
};

static struct val next_arg(struct percent *p)
{
	if (p->used >= p->tuple->n)
		fail(p->r, "not enough arguments for format string");
	return p->tuple->v[p->used++];
}

static char peek(const struct percent *p)
{
	if (p->at >= p->f->len)
		fail(p->r, "incomplete format");
	return p->f->p[p->at];
}

/* "(name)": what the next conversion takes. */
static struct val keyed(struct percent *p)
{
	size_t from = ++p->at;
	struct val v;
	int depth = 1;

	for (; depth; p->at++) {
		char c;

		if (p->at >= p->f->len)
			fail(p->r, "incomplete format key");
		c = p->f->p[p->at];
		depth += c == '(' ? 1 : c == ')' ? -1 : 0;
	}
	if (p->args.type != V_DICT)
		fail(p->r, "format requires a mapping");
	v = dict_get_str(p->r, p->args.d, str_sub(p->r, p->f, from, p->at - 1));
	if (v.type == V_ABSENT)
		fail(p->r, "format: the mapping has no such key");
	return v;
}

static int64_t number(struct percent *p, int64_t limit)
{
	int64_t n = 0;

	if (peek(p) == '*') {
		p->at++;
		n = arg_int(p->r, next_arg(p), 0, "* wants int");
	} else {
		while (isdigit((uint8_t)peek(p))) {
			n = n * 10 + p->f->p[p->at++] - '0';
			if (n > limit)
				break;
		}
	}
	if (n > limit || n < -limit)
		fail_limit(p->r, "width of a format");
	return n;
}

static struct str *ascii_repr(struct rt *r, struct str *s)
{
	struct sbuf b;
	int n;

	sb_init(r, &b, s->len);
	for (size_t i = 0; i < s->len; i += (size_t)n) {
		uint32_t c = u_get(s, i, &n);
		char esc[12];

		if (c < 128) {
			sb_range(r, &b, s, i, i + 1);
			continue;
		}
		snprintf(esc, sizeof(esc),
			 c < 256     ? "\\x%02x"
			 : c < 65536 ? "\\u%04x"
				     : "\\U%08x",
			 c);
		sb_puts(r, &b, esc, str_user_at(s, i));
	}
	return sb_take(r, &b);
}

static struct str *repr(struct rt *r, struct val v)
{
	struct sbuf b;

	sb_init(r, &b, 0);
	put_repr(r, &b, v);
	return sb_take(r, &b);
}

static void convert(struct percent *p, struct sbuf *b, struct spec *f, struct val v)
{
	struct args none = {.pos = (struct val[2]){{0}}, .n = 2};
	struct rt *r = p->r;
	char utf8[4];

	switch (f->type) {
	case 's':
		put_text(r, b, f, to_str(r, v));
		return;
	case 'r':
		put_text(r, b, f, repr(r, v));
		return;
	case 'a':
		put_text(r, b, f, ascii_repr(r, repr(r, v)));
		return;
	case 'c':
		if (is_int(v) && int_of(v) >= 0 && int_of(v) < 0x110000 &&
		    (int_of(v) < 0xd800 || int_of(v) > 0xdfff)) {
			int n = utf8_encode((uint32_t)int_of(v), utf8);

			v = v_str(str_copy(r, utf8, (size_t)n, v.user));
		}
		if (v.type != V_STR || str_chars(r, v.s) != 1)
			fail(r, "%%c requires int or char");
		f->precision = -1;
		put_text(r, b, f, v.s);
		return;
	case 'd':
	case 'i':
	case 'u':
	case 'x':
	case 'X':
	case 'o':
		if (v.type == V_UNDEF)
			fail_undefined(r, v);
		if (!is_int(v) && (v.type != V_FLOAT || strchr("xXo", f->type)))
			fail(r, "%%%c format: a real number is required, not %s", f->type,
			     type_name(v));
		if (v.type == V_FLOAT && !isfinite(v.f))
			fail(r, "cannot convert float to integer");
		if (v.type == V_FLOAT)
			v = int_filter(r, v, &none);
		if (f->precision > 0) {
			/* at least so many digits: zeros before them */
			struct spec digits = {.fill = {.p = "0", .len = 1, .ascii = 1},
					      .align = '=',
					      .width = f->precision,
					      .precision = -1,
					      .type = f->type};
			struct sbuf body;

			sb_init(r, &body, 0);
			digits.width += int_of(v) < 0;
			put_int(r, &body, &digits, v);
			f->precision = -1;
			put_text(r, b, f, sb_take(r, &body));
			return;
		}
		put_int(r, b, f, v);
		return;
	case 'e':
	case 'E':
	case 'f':
	case 'F':
	case 'g':
	case 'G':
		if (v.type == V_UNDEF)
			fail_undefined(r, v);
		if (!is_number(v))
			fail(r, "must be real number, not %s", type_name(v));
		put_float(r, b, f, float_of(v), v.user);
		return;
	default:
		fail(r, "unsupported format character '%c'", f->type);
	}
}

static void conversion(struct percent *p, struct sbuf *b)
{
	struct spec f = {.fill = {.p = " ", .len = 1, .ascii = 1}, .align = '>', .precision = -1};
	struct val v = v_make(V_ABSENT);
	bool left = false;

	if (peek(p) == '(')
		v = keyed(p);
	for (; strchr("#0- +", peek(p)) && peek(p); p->at++) {
		char c = p->f->p[p->at];

		f.alt |= c == '#';
		f.zero |= c == '0';
		left |= c == '-';
		if (c == '+' || (c == ' ' && f.sign != '+'))
			f.sign = c;
	}
	f.width = number(p, MAX_WIDTH);
	if (f.width < 0) {
		left = true;
		f.width = -f.width;
	}
	if (peek(p) == '.') {
		p->at++;
		f.precision = number(p, MAX_PRECISION);
		f.precision = f.precision < 0 ? 0 : f.precision;
	}
	if (peek(p) && strchr("hlL", peek(p)))
		p->at++;
	f.type = peek(p);
	p->at++;
	if (f.type == '%') {
		sb_range(p->r, b, p->f, p->at - 1, p->at);
		return;
	}
	if (v.type == V_ABSENT)
		v = next_arg(p);
	if (left) {
		f.align = '<';
	} else if (f.zero && strchr("diuxXoeEfFgG", f.type)) {
		f.align = '=';
		f.fill.p = "0";
	}
	convert(p, b, &f, v);
}

struct val format_percent(struct rt *r, struct str *f, struct val args)
{
	struct list single = {.v = &args, .n = 1};
	struct percent p = {.r = r, .f = f, .args = args, .tuple = &single};
	struct sbuf b;

	if (args.type == V_TUPLE)
		p.tuple = args.l;
	sb_init(r, &b, f->len + 64);
	while (p.at < f->len) {
		const char *k = memchr(f->p + p.at, '%', f->len - p.at);
		size_t to = k ? (size_t)(k - f->p) : f->len;

		sb_range(r, &b, f, p.at, to);
		if (!k)
			break;
		p.at = to + 1;
		conversion(&p, &b);
	}
	/* one value that could be a mapping need not be used */
	if (p.used < p.tuple->n && args.type != V_DICT && args.type != V_LIST &&
	    args.type != V_UNDEF && args.type != V_RANGE)
		fail(r, "not all arguments converted during string formatting");
	return v_str(str_markup(r, sb_take(r, &b), f->markup));
}

/* ---- format() ---------------------------------------------------------------------------------- */

static void parse_spec(struct rt *r, struct str *s, struct spec *f)
{
	bool filled = false;
	size_t i = 0, n = 0;

	*f = (struct spec){.fill = {.p = " ", .len = 1, .ascii = 1}, .precision = -1};
	if (s->len)
		n = (size_t)utf8_skip(s->p);
	if (s->len > n && strchr("<>^=", s->p[n]) && s->p[n]) {
		f->fill = *str_sub(r, s, 0, n);
		filled = true;
		f->align = s->p[n];
		i = n + 1;
	} else if (s->len && strchr("<>^=", *s->p) && *s->p) {
		f->align = *s->p;
		i = 1;
	}
	if (i < s->len && s->p[i] && strchr("+- ", s->p[i]))
		f->sign = s->p[i++];
	if (i < s->len && s->p[i] == 'z')
		i++;
	if (i < s->len && s->p[i] == '#') {
		f->alt = true;
		i++;
	}
	if (i < s->len && s->p[i] == '0') {
		f->zero = true;
		if (!filled)
			f->fill.p = "0";
		if (!f->align)
			f->align = '=';
		i++;
	}
	for (; i < s->len && isdigit((uint8_t)s->p[i]) && f->width <= MAX_WIDTH; i++)
		f->width = f->width * 10 + s->p[i] - '0';
	if (f->width > MAX_WIDTH)
		fail_limit(r, "width of a format");
	if (i < s->len && (s->p[i] == ',' || s->p[i] == '_'))
		f->group = s->p[i++];
	if (i < s->len && s->p[i] == '.') {
		i++;
		if (i >= s->len || !isdigit((uint8_t)s->p[i]))
			fail(r, "format specifier missing precision");
		for (f->precision = 0;
		     i < s->len && isdigit((uint8_t)s->p[i]) && f->precision <= MAX_WIDTH; i++)
			f->precision = f->precision * 10 + s->p[i] - '0';
	}
	if (i < s->len)
		f->type = s->p[i++];
	if (i < s->len)
		fail(r, "invalid format specifier");
}

static void put_field(struct rt *r, struct sbuf *b, struct val v, struct str *spec)
{
	struct spec f;
	char utf8[4];

	if (!spec->len) {
		put_str(r, b, v);
		return;
	}
	parse_spec(r, spec, &f);
	if (v.type == V_STR) {
		if ((f.type && f.type != 's') || f.sign || f.alt || f.group || f.align == '=') {
			/* "05" fills a string on its right */
			if (f.align != '=' || !f.zero || (f.type && f.type != 's'))
				fail(r, "invalid format specifier for object of type 'str'");
			f.align = '<';
		}
		put_text(r, b, &f, v.s);
	} else if (is_int(v) && (!f.type || strchr("dnxXob", f.type))) {
		if (f.precision >= 0)
			fail(r, "precision not allowed in integer format specifier");
		if (f.group == ',' && f.type && strchr("xXob", f.type))
			fail(r, "cannot specify ',' with '%c'", f.type);
		put_int(r, b, &f, v);
	} else if (is_int(v) && f.type == 'c') {
		if (int_of(v) < 0 || int_of(v) > 0x10ffff ||
		    (int_of(v) >= 0xd800 && int_of(v) < 0xe000))
			fail(r, "%%c arg not in range(0x110000)");
		v = v_str(
			str_copy(r, utf8, (size_t)utf8_encode((uint32_t)int_of(v), utf8), v.user));
		put_text(r, b, &f, v.s);
	} else if (is_number(v) && (!f.type || strchr("eEfFgGn%", f.type))) {
		if (f.precision > MAX_PRECISION)
			fail_limit(r, "precision of a format");
		put_float(r, b, &f, float_of(v), v.user);
	} else if (is_number(v)) {
		fail(r, "unknown format code '%c' for object of type '%s'", f.type, type_name(v));
	} else {
		fail(r, "unsupported format string passed to %s.__format__", type_name(v));
	}
}

struct braces {
	struct rt *r;
	struct args *a;
	int64_t next; /* of automatic numbering; -1: fields are numbered by hand */
};

static void format_text(struct braces *x, struct sbuf *b, struct str *f, int depth);

static struct val field_base(struct braces *x, struct str *name)
{
	struct rt *r = x->r;
	int64_t i = 0;
	bool number = name->len > 0;

	for (size_t k = 0; k < name->len; k++) {
		number = number && isdigit((uint8_t)name->p[k]) && k < 9;
		i = number ? i * 10 + name->p[k] - '0' : 0;
	}
	if (!name->len) {
		if (x->next < 0)
			fail(r, "cannot switch from manual field specification to automatic field "
				"numbering");
		i = x->next++;
	} else if (number) {
		if (x->next > 0)
			fail(r, "cannot switch from automatic field numbering to manual field "
				"specification");
		x->next = -1;
	} else {
		for (int k = 0; k < x->a->nkw; k++)
			if (str_equal(x->a->kwname[k], name))
				return x->a->kw[k];
		fail(r, "format: no argument '%.*s'", (int)name->len, name->p);
	}
	if (i >= x->a->n)
		fail(r, "Replacement index %lld out of range for positional args tuple",
		     (long long)i);
	return x->a->pos[i];
}

/* "name.attr[key]" */
static struct val field_value(struct braces *x, struct str *f)
{
	struct rt *r = x->r;
	size_t i = 0, from;
	struct val v;

	while (i < f->len && f->p[i] != '.' && f->p[i] != '[')
		i++;
	v = field_base(x, str_sub(r, f, 0, i));
	while (i < f->len) {
		bool attr = f->p[i] == '.', number = true;
		int64_t k = 0;
		struct str *name;

		if (!attr && f->p[i] != '[')
			fail(r, "only '.' or '[' may follow ']' in format field specifier");
		from = ++i;
		while (i < f->len && (attr ? f->p[i] != '.' && f->p[i] != '[' : f->p[i] != ']'))
			i++;
		if (i == from || (!attr && i >= f->len))
			fail(r, "empty attribute in format string");
		name = str_sub(r, f, from, i);
		if (attr) {
			v = get_attr(r, v, name, find_method(name->p, name->len));
			continue;
		}
		i++;
		for (size_t c = 0; c < name->len; c++) {
			number = number && isdigit((uint8_t)name->p[c]) && c < 18;
			k = number ? k * 10 + name->p[c] - '0' : 0;
		}
		v = get_item(r, v, number ? v_int(k) : v_str(name));
	}
	return v;
}

static void field(struct braces *x, struct sbuf *b, struct str *f, int depth)
{
	size_t name = 0, brackets = 0, end;
	struct rt *r = x->r;
	struct str *spec = r->empty;
	struct sbuf inner;
	char how = 0;
	struct val v;

	while (name < f->len && (brackets || (f->p[name] != '!' && f->p[name] != ':'))) {
		brackets += f->p[name] == '[';
		brackets -= brackets && f->p[name] == ']';
		name++;
	}
	end = name;
	if (end < f->len && f->p[end] == '!') {
		how = end + 1 < f->len ? f->p[end + 1] : 0;
		end += 2;
		if (end < f->len && f->p[end] != ':')
			fail(r, "expected ':' after conversion specifier");
	}
	v = field_value(x, str_sub(r, f, 0, name));
	if (how == 's')
		v = v_str(to_str(r, v));
	else if (how == 'r')
		v = v_str(repr(r, v));
	else if (how == 'a')
		v = v_str(ascii_repr(r, repr(r, v)));
	else if (how || end > f->len)
		fail(r, "unknown conversion specifier");
	if (end < f->len) {
		sb_init(r, &inner, 0);
		format_text(x, &inner, str_sub(r, f, end + 1, f->len), depth + 1);
		spec = sb_take(r, &inner);
	}
	put_field(r, b, v, spec);
}

static void format_text(struct braces *x, struct sbuf *b, struct str *f, int depth)
{
	struct rt *r = x->r;
	size_t i = 0;

	if (depth > 1)
		fail(r, "max string recursion exceeded");
	while (i < f->len) {
		size_t from = i, level = 1;
		char c;

		while (i < f->len && f->p[i] != '{' && f->p[i] != '}')
			i++;
		sb_range(r, b, f, from, i);
		if (i >= f->len)
			break;
		c = f->p[i++];
		if (i < f->len && f->p[i] == c) {
			sb_range(r, b, f, i, i + 1);
			i++;
			continue;
		}
		if (c == '}')
			fail(r, "single '}' encountered in format string");
		for (from = i; level; i++) {
			if (i >= f->len)
				fail(r, "expected '}' before end of string");
			level += f->p[i] == '{';
			level -= f->p[i] == '}';
		}
		field(x, b, str_sub(r, f, from, i - 1), depth);
	}
}

struct val format_braces(struct rt *r, struct str *f, struct args *a)
{
	struct braces x = {.r = r, .a = a};
	struct sbuf b;

	sb_init(r, &b, f->len + 64);
	format_text(&x, &b, f, 0);
	return v_str(str_markup(r, sb_take(r, &b), f->markup));
}
