// SPDX-License-Identifier: MIT
/* What Python's str(), repr() and json.dumps() make of values. See tmpl_int.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/template/tmpl_int.h"
#include "text/utf8.h"

/* The shortest digits that read back as f, laid out as Python's repr() does. */
int float_repr(double f, char *buf)
{
	char digits[32], *e;
	int exp, n, k = 0;

	if (isnan(f))
		return sprintf(buf, "nan");
	if (isinf(f))
		return sprintf(buf, f < 0 ? "-inf" : "inf");
	for (int prec = 0; prec < 17; prec++) {
		snprintf(digits, sizeof(digits), "%.*e", prec, f);
		if (strtod(digits, NULL) == f)
			break;
	}
	e = strchr(digits, 'e');
	exp = atoi(e + 1);
	*e = 0;
	if (digits[0] == '-') {
		buf[k++] = '-';
		memmove(digits, digits + 1, strlen(digits));
	}
	/* digits: "d" or "d.ddd" */
	n = (int)strlen(digits);
	if (n > 1) {
		memmove(digits + 1, digits + 2, (size_t)n - 1);
		n--;
	}
	if (exp < -4 || exp >= 16) {
		k += sprintf(buf + k, "%c%s%s", digits[0], n > 1 ? "." : "", digits + 1);
		return k + sprintf(buf + k, "e%c%02d", exp < 0 ? '-' : '+', abs(exp));
	}
	if (exp < 0) {
		k += sprintf(buf + k, "0.%.*s%s", -exp - 1, "0000", digits);
	} else {
		for (int i = 0; i <= exp || i < n; i++) {
			buf[k++] = i < n ? digits[i] : '0';
			if (i == exp)
				buf[k++] = '.';
		}
		if (n <= exp + 1)
			buf[k++] = '0';
	}
	buf[k] = 0;
	return k;
}

static bool is_user(struct val v)
{
	if (v.user)
		return true;
	if (v.type == V_LIST || v.type == V_TUPLE)
		return v.l->user;
	return (v.type == V_DICT || v.type == V_VIEW) && v.d->user;
}

/* ---- str() and repr() -------------------------------------------------------------------------- */

static void repr_str(struct rt *r, struct sbuf *b, const struct str *s)
{
	char quote = memchr(s->p, '\'', s->len) && !memchr(s->p, '"', s->len) ? '"' : '\'';
	bool outer = str_user_at(s, 0) && s->len;
	size_t from = 0;

	if (s->markup)
		sb_puts(r, b, "Markup(", outer);
	sb_put(r, b, &quote, 1, outer);
	for (size_t i = 0; i < s->len;) {
		char esc[12] = "";
		uint32_t c;
		int n;

		c = u_get(s, i, &n);
		if (c == (uint8_t)quote || c == '\\')
			snprintf(esc, sizeof(esc), "\\%c", (char)c);
		else if (c == '\n' || c == '\r' || c == '\t')
			snprintf(esc, sizeof(esc), "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
		else if (c < 0x20 || c >= 0x7f)
			if (!u_printable(r, c))
				snprintf(esc, sizeof(esc),
					 c < 0x100     ? "\\x%02x"
					 : c < 0x10000 ? "\\u%04x"
						       : "\\U%08x",
					 c);
		if (*esc) {
			sb_range(r, b, s, from, i);
			sb_puts(r, b, esc, str_user_at(s, i));
			from = i + (size_t)n;
		}
		i += (size_t)n;
	}
	sb_range(r, b, s, from, s->len);
	sb_put(r, b, &quote, 1, outer);
	if (s->markup)
		sb_puts(r, b, ")", outer);
}

static void repr_items(struct rt *r, struct sbuf *b, struct val v, const char *open,
		       const char *close)
{
	bool user = is_user(v), first = true;
	struct iter it;
	struct val x;

	sb_puts(r, b, open, user);
	iter_open(r, &it, v);
	for (; iter_next(r, &it, &x); first = false) {
		if (!first)
			sb_puts(r, b, ", ", user);
		put_repr(r, b, x);
	}
	sb_puts(r, b, close, user);
}

static void repr_dict(struct rt *r, struct sbuf *b, struct val v)
{
	bool user = is_user(v);

	dict_load(r, v.d);
	sb_puts(r, b, "{", user);
	for (size_t i = 0; i < v.d->n; i++) {
		if (i)
			sb_puts(r, b, ", ", user);
		put_repr(r, b, v.d->e[i].key);
		sb_puts(r, b, ": ", user);
		put_repr(r, b, v.d->e[i].value);
	}
	sb_puts(r, b, "}", user);
}

static void repr_object(struct rt *r, struct sbuf *b, struct val v)
{
	char buf[100];

	switch (v.type) {
	case V_RANGE:
		if (v.range->step == 1)
			snprintf(buf, sizeof(buf), "range(%lld, %lld)", (long long)v.range->start,
				 (long long)v.range->stop);
		else
			snprintf(buf, sizeof(buf), "range(%lld, %lld, %lld)",
				 (long long)v.range->start, (long long)v.range->stop,
				 (long long)v.range->step);
		break;
	case V_NS:
		sb_puts(r, b, "<Namespace ", false);
		repr_dict(r, b, v_dict(v.d));
		sb_puts(r, b, ">", false);
		return;
	case V_MACRO:
		if (v.macro->def->name) {
			sb_puts(r, b, "<Macro ", false);
			repr_str(r, b, v.macro->def->name);
			sb_puts(r, b, ">", false);
			return;
		}
		snprintf(buf, sizeof(buf), "<Macro anonymous>");
		break;
	case V_LOOP:
		snprintf(buf, sizeof(buf), "<LoopContext %lld/%lld>", (long long)v.loop->index0 + 1,
			 (long long)loop_attr(r, v.loop, "length").i);
		break;
	case V_FUNC:
		snprintf(buf, sizeof(buf), "<function %s>", v.func->name);
		break;
	case V_METHOD:
		snprintf(buf, sizeof(buf), "<built-in method %s of %s object>",
			 v.bound->method->name, type_name(v.bound->self));
		break;
	default:
		snprintf(buf, sizeof(buf), "<%s object>", type_name(v));
	}
	sb_puts(r, b, buf, v.user);
}

void put_repr(struct rt *r, struct sbuf *b, struct val v)
{
	char buf[64];
	bool user = is_user(v);

	enter(r);
	switch (v.type) {
	case V_UNDEF:
		sb_puts(r, b, "Undefined", false);
		break;
	case V_NONE:
		sb_puts(r, b, "None", user);
		break;
	case V_BOOL:
		sb_puts(r, b, v.b ? "True" : "False", user);
		break;
	case V_INT:
		snprintf(buf, sizeof(buf), "%lld", (long long)v.i);
		sb_puts(r, b, buf, user);
		break;
	case V_FLOAT:
		float_repr(v.f, buf);
		sb_puts(r, b, buf, user);
		break;
	case V_STR:
		repr_str(r, b, v.s);
		break;
	case V_LIST:
		repr_items(r, b, v, "[", "]");
		break;
	case V_TUPLE:
		repr_items(r, b, v, "(", v.l->n == 1 ? ",)" : ")");
		break;
	case V_DICT:
		repr_dict(r, b, v);
		break;
	case V_VIEW:
		sb_puts(r, b, type_name(v), false);
		repr_items(r, b, v, "([", "])");
		break;
	default:
		repr_object(r, b, v);
	}
	leave(r);
}

void put_str(struct rt *r, struct sbuf *b, struct val v)
{
	if (v.type == V_STR)
		sb_str(r, b, v.s);
	else if (v.type != V_UNDEF)
		put_repr(r, b, v);
}

struct str *to_str(struct rt *r, struct val v)
{
	struct sbuf b;

	if (v.type == V_STR)
		return v.s;
	if (v.type == V_UNDEF)
		return r->empty;
	sb_init(r, &b, 0);
	put_repr(r, &b, v);
	return sb_take(r, &b);
}

/* ---- JSON -------------------------------------------------------------------------------------- */

struct json {
	struct rt *r;
	struct sbuf b;
	struct str *item, *key, *indent; /* separators; indent NULL: one line */
	bool ascii, sort;
	int level;
};

static void put_json_string(struct json *j, const struct str *s)
{
	bool outer = s->len && str_user_at(s, 0);
	struct rt *r = j->r;
	size_t from = 0;

	sb_puts(r, &j->b, "\"", outer);
	for (size_t i = 0; i < s->len;) {
		uint8_t c = (uint8_t)s->p[i];
		static const char from_char[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
		const char *k;
		char esc[16] = "";
		uint32_t cp = c;
		int n = 1;

		if (c >= 0x20 && c != '"' && c != '\\' && (c < 0x7f || !j->ascii)) {
			i++;
			continue;
		}
		k = c ? strchr(from_char, c) : NULL;
		if (k) {
			snprintf(esc, sizeof(esc), "\\%c", to[k - from_char]);
		} else {
			cp = u_get(s, i, &n);
			if (cp >= 0x10000)
				snprintf(esc, sizeof(esc), "\\u%04x\\u%04x",
					 0xd800 + ((cp - 0x10000) >> 10),
					 0xdc00 + ((cp - 0x10000) & 0x3ff));
			else
				snprintf(esc, sizeof(esc), "\\u%04x", cp);
		}
		sb_range(r, &j->b, s, from, i);
		sb_puts(r, &j->b, esc, str_user_at(s, i));
		i += (size_t)n;
		from = i;
	}
	charge_bytes(r, s->len);
	sb_range(r, &j->b, s, from, s->len);
	sb_puts(r, &j->b, "\"", outer);
}

static void json_newline(struct json *j, bool user)
{
	if (!j->indent)
		return;
	sb_puts(j->r, &j->b, "\n", user);
	for (int i = 0; i < j->level; i++)
		sb_put(j->r, &j->b, j->indent->p, j->indent->len, user || j->indent->user);
}

static void json_value(struct json *j, struct val v);

static void json_separator(struct json *j, const struct str *s, bool user)
{
	if (user)
		sb_put(j->r, &j->b, s->p, s->len, true);
	else
		sb_str(j->r, &j->b, s);
}

static void json_list(struct json *j, struct val v)
{
	bool user = is_user(v);

	list_load(j->r, v.l);
	if (!v.l->n) {
		sb_puts(j->r, &j->b, "[]", user);
		return;
	}
	sb_puts(j->r, &j->b, "[", user);
	j->level++;
	for (size_t i = 0; i < v.l->n; i++) {
		if (i)
			json_separator(j, j->item, user);
		json_newline(j, user);
		json_value(j, v.l->v[i]);
	}
	j->level--;
	json_newline(j, user);
	sb_puts(j->r, &j->b, "]", user);
}

static void json_key(struct json *j, struct val k)
{
	char buf[64];

	switch (k.type) {
	case V_STR:
		put_json_string(j, k.s);
		return;
	case V_BOOL:
		snprintf(buf, sizeof(buf), "\"%s\"", k.b ? "true" : "false");
		break;
	case V_NONE:
		snprintf(buf, sizeof(buf), "\"null\"");
		break;
	case V_INT:
		snprintf(buf, sizeof(buf), "\"%lld\"", (long long)k.i);
		break;
	case V_FLOAT:
		buf[0] = '"';
		strcpy(buf + 1 + float_repr(k.f, buf + 1), "\"");
		break;
	default:
		fail(j->r, "keys must be str, int, float, bool or None, not %s", type_name(k));
	}
	sb_puts(j->r, &j->b, buf, k.user);
}

static void json_dict(struct json *j, struct val v)
{
	struct list *order = NULL, *keys = NULL;
	bool user = is_user(v);
	struct rt *r = j->r;

	dict_load(r, v.d);
	if (!v.d->n) {
		sb_puts(r, &j->b, "{}", user);
		return;
	}
	if (j->sort) {
		order = list_new(r, v.d->n);
		keys = list_new(r, v.d->n);
		for (size_t i = 0; i < v.d->n; i++) {
			list_push(r, order, v_int((int64_t)i));
			list_push(r, keys, v.d->e[i].key);
		}
		sort_by(r, order, keys->v, false);
	}
	sb_puts(r, &j->b, "{", user);
	j->level++;
	for (size_t i = 0; i < v.d->n; i++) {
		const struct entry *e = &v.d->e[order ? (size_t)order->v[i].i : i];

		if (i)
			json_separator(j, j->item, user);
		json_newline(j, user);
		json_key(j, e->key);
		json_separator(j, j->key, user);
		json_value(j, e->value);
	}
	j->level--;
	json_newline(j, user);
	sb_puts(r, &j->b, "}", user);
}

static void json_value(struct json *j, struct val v)
{
	struct rt *r = j->r;
	char buf[64];

	enter(r);
	charge(r, 1);
	switch (v.type) {
	case V_NONE:
		sb_puts(r, &j->b, "null", v.user);
		break;
	case V_BOOL:
		sb_puts(r, &j->b, v.b ? "true" : "false", v.user);
		break;
	case V_FLOAT:
		if (isfinite(v.f))
			float_repr(v.f, buf);
		else
			snprintf(buf, sizeof(buf), "%s",
				 isnan(v.f) ? "NaN"
				 : v.f < 0  ? "-Infinity"
					    : "Infinity");
		sb_puts(r, &j->b, buf, v.user);
		break;
	case V_INT:
		snprintf(buf, sizeof(buf), "%lld", (long long)v.i);
		sb_puts(r, &j->b, buf, v.user);
		break;
	case V_STR:
		put_json_string(j, v.s);
		break;
	case V_LIST:
	case V_TUPLE:
		json_list(j, v);
		break;
	case V_DICT:
		json_dict(j, v);
		break;
	default:
		fail(r, "Object of type %s is not JSON serializable", type_name(v));
	}
	leave(r);
}

struct val to_json(struct rt *r, struct val v, struct val ensure_ascii, struct val indent,
		   struct val separators, struct val sort_keys)
{
	struct json j = {.r = r, .ascii = truth(ensure_ascii), .sort = truth(sort_keys)};
	struct sbuf spaces;

	if (indent.type == V_STR) {
		j.indent = indent.s;
	} else if (is_int(indent)) {
		int64_t n = int_of(indent);

		if (n > 1000)
			fail(r, "indent of more than 1000");
		sb_init(r, &spaces, 0);
		sb_fill(r, &spaces, ' ', n > 0 ? (size_t)n : 0, false);
		j.indent = sb_take(r, &spaces);
	} else if (indent.type != V_NONE && indent.type != V_ABSENT) {
		fail(r, "indent must be a string, an integer or none, not %s", type_name(indent));
	}
	j.item = str_static(r, j.indent ? "," : ", ");
	j.key = str_static(r, ": ");
	if (separators.type != V_NONE && separators.type != V_ABSENT) {
		struct list *l = list_of(r, separators);

		if (l->n != 2 || l->v[0].type != V_STR || l->v[1].type != V_STR)
			fail(r, "separators must be two strings");
		j.item = l->v[0].s;
		j.key = l->v[1].s;
	}
	sb_init(r, &j.b, 0);
	json_value(&j, v);
	return v_str(sb_take(r, &j.b));
}
