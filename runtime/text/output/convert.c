// SPDX-License-Identifier: MIT
/*
 * A parameter's text to JSON, guided by the tool's schema: what Qwen3-Coder and its kin write
 * between tags has lost its type. A text that fits none of the allowed types stays a string, so
 * that the tool can say what is wrong with it.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "text/output/output_int.h"
#include "text/utf8.h"

enum {
	T_STRING = 1,
	T_NULL = 2,
	T_INTEGER = 4,
	T_NUMBER = 8,
	T_BOOLEAN = 16,
	T_OBJECT = 32, /* and arrays */
};

static unsigned type_by_name(const char *s)
{
	static const struct {
		const char *prefix;
		unsigned type;
	} names[] = {{"str", T_STRING},	  {"text", T_STRING},	{"enum", T_STRING},
		     {"null", T_NULL},	  {"int", T_INTEGER},	{"uint", T_INTEGER},
		     {"long", T_INTEGER}, {"short", T_INTEGER}, {"num", T_NUMBER},
		     {"float", T_NUMBER}, {"double", T_NUMBER}, {"bool", T_BOOLEAN},
		     {"obj", T_OBJECT},	  {"arr", T_OBJECT},	{"dict", T_OBJECT},
		     {"list", T_OBJECT}};

	for (size_t i = 0; s && i < sizeof(names) / sizeof(*names); i++)
		if (!strncasecmp(s, names[i].prefix, strlen(names[i].prefix)))
			return names[i].type;
	return 0;
}

static unsigned type_of_value(const json_t *v)
{
	switch (json_typeof(v)) {
	case JSON_STRING:
		return T_STRING;
	case JSON_INTEGER:
		return T_INTEGER;
	case JSON_REAL:
		return T_NUMBER;
	case JSON_TRUE:
	case JSON_FALSE:
		return T_BOOLEAN;
	case JSON_NULL:
		return T_NULL;
	default:
		return T_OBJECT;
	}
}

/* What "#/$defs/NAME" stands for in `root`; NULL: nothing. */
static const json_t *resolve(const json_t *root, const char *ref)
{
	const json_t *v = root;
	char key[256];

	if (!ref || *ref != '#')
		return NULL;
	for (ref++; *ref == '/' && v;) {
		size_t n = 0;

		for (ref++; *ref && *ref != '/' && n < sizeof(key) - 1; ref++) {
			key[n++] = *ref;
			if (*ref == '~' && (ref[1] == '0' || ref[1] == '1'))
				key[n - 1] = *++ref == '0' ? '~' : '/';
		}
		key[n] = 0;
		v = json_object_get(v, key);
	}
	return *ref ? NULL : v;
}

/* The types that a schema allows, as far as it says so; 0: it does not. */
static unsigned types_of(const json_t *root, const json_t *schema, int depth)
{
	static const char *const unions[] = {"anyOf", "oneOf", "allOf"};
	const json_t *t = json_object_get(schema, "type"), *v;
	unsigned types = 0;
	size_t i;

	if (!json_is_object(schema) || depth > 8)
		return 0;
	if (json_is_string(t))
		types |= type_by_name(json_string_value(t));
	json_array_foreach (t, i, v)
		types |= type_by_name(json_string_value(v));
	for (int k = 0; k < 3; k++)
		json_array_foreach (json_object_get(schema, unions[k]), i, v)
			types |= types_of(root, v, depth + 1);
	v = resolve(root, json_string_value(json_object_get(schema, "$ref")));
	if (v)
		types |= types_of(root, v, depth + 1);
	if (!types)
		json_array_foreach (json_object_get(schema, "enum"), i, v)
			types |= type_of_value(v);
	v = json_object_get(schema, "const");
	if (!types && v)
		types = type_of_value(v);
	if (types && json_is_true(json_object_get(schema, "nullable")))
		types |= T_NULL;
	if (!types && (json_object_get(schema, "properties") || json_object_get(schema, "items")))
		types = T_OBJECT;
	return types;
}

const json_t *function_schema(const json_t *tools, const char *name)
{
	const json_t *tool;
	size_t i;

	json_array_foreach (tools, i, tool) {
		const json_t *f = json_object_get(tool, "function");
		const char *n;

		if (!f)
			f = tool;
		n = json_string_value(json_object_get(f, "name"));
		if (n && !strcmp(n, name))
			return json_object_get(f, "parameters");
	}
	return NULL;
}

/* ---- numbers ------------------------------------------------------------------------------- */

static int put(struct buf *out, const char *s, size_t n)
{
	int rc = buf_add(out, s, n);

	return rc ? rc : 1;
}

/* 1: appended; 0: no integer. Of any length, as in Python. */
static int put_integer(struct buf *out, const char *s, size_t n)
{
	bool negative = n && *s == '-';
	int rc;

	if (n && (*s == '-' || *s == '+')) {
		s++;
		n--;
	}
	for (size_t i = 0; i < n; i++)
		if (s[i] < '0' || s[i] > '9')
			return 0;
	if (!n)
		return 0;
	while (n > 1 && *s == '0') {
		s++;
		n--;
	}
	rc = negative && *s != '0' ? buf_add(out, "-", 1) : 0;
	return rc ? rc : put(out, s, n);
}

/* As short as it can be. */
static size_t print_number(char *text, size_t size, double v)
{
	int n = 0;

	for (int digits = 15; digits <= 17; digits++) {
		n = snprintf(text, size, "%.*g", digits, v);
		if (strtod(text, NULL) == v)
			break;
	}
	return (size_t)n;
}

static int put_number(struct buf *out, const char *s, size_t n)
{
	char text[64], *end;
	double v;
	int rc = put_integer(out, s, n);

	if (rc)
		return rc;
	if (!n || n >= sizeof(text))
		return 0;
	memcpy(text, s, n);
	text[n] = 0;
	v = strtod(text, &end);
	if (strspn(text, "+-.0123456789eE") < n || *end || !isfinite(v))
		return 0;
	if (v == trunc(v) && fabs(v) < 0x1p53)
		n = (size_t)snprintf(text, sizeof(text), "%lld", (long long)v);
	else if (!json_number_ok(text, n))
		n = print_number(text, sizeof(text), v);
	return put(out, text, n);
}

/* ---- Python literals ----------------------------------------------------------------------- */

struct literal {
	const char *s, *end;
	struct buf *out, *text;
};

static void space(struct literal *l)
{
	while (l->s < l->end && is_space(*l->s))
		l->s++;
}

static int py_string(struct literal *l)
{
	static const char from[] = "\\'\"nrtbf", to[] = "\\'\"\n\r\t\b\f";
	char quote = *l->s++;
	int rc = 0;

	l->text->n = 0;
	for (; l->s < l->end && *l->s != quote && !rc; l->s++) {
		const char *e;

		if (*l->s == '\\' && l->s + 1 < l->end && l->s[1] && (e = strchr(from, l->s[1]))) {
			rc = buf_add(l->text, to + (e - from), 1);
			l->s++;
		} else {
			rc = buf_add(l->text, l->s, 1);
		}
	}
	if (rc || l->s >= l->end)
		return rc;
	l->s++;
	return json_put_string(l->out, l->text->v, l->text->n);
}

static int py_word(struct literal *l)
{
	static const char *const words[][2] = {{"True", "true"},   {"False", "false"},
					       {"None", "null"},   {"true", "true"},
					       {"false", "false"}, {"null", "null"}};
	const char *s = l->s;
	size_t n;

	while (l->s < l->end && *l->s && !strchr(",:]})", *l->s) && !is_space(*l->s))
		l->s++;
	n = (size_t)(l->s - s);
	for (int i = 0; i < 6; i++)
		if (n == strlen(words[i][0]) && !memcmp(s, words[i][0], n))
			return put(l->out, words[i][1], strlen(words[i][1]));
	return put_number(l->out, s, n);
}

static int py_value(struct literal *l, int depth);

static int py_items(struct literal *l, int depth)
{
	char open = *l->s++, close = open == '{' ? '}' : open == '(' ? ')' : ']';
	int rc = put(l->out, open == '{' ? "{" : "[", 1);

	for (bool first = true; rc == 1; first = false) {
		space(l);
		if (l->s < l->end && *l->s == close)
			break;
		if (!first)
			rc = put(l->out, ",", 1);
		if (rc == 1 && close == '}') {
			rc = l->s < l->end && (*l->s == '\'' || *l->s == '"') ? py_string(l) : 0;
			space(l);
			if (rc == 1)
				rc = l->s < l->end && *l->s++ == ':' ? put(l->out, ":", 1) : 0;
		}
		if (rc == 1)
			rc = py_value(l, depth + 1);
		space(l);
		if (rc == 1 && l->s < l->end && *l->s == ',')
			l->s++;
		else if (rc == 1 && !(l->s < l->end && *l->s == close))
			rc = 0;
	}
	if (rc != 1)
		return rc;
	l->s++;
	return put(l->out, close == '}' ? "}" : "]", 1);
}

static int py_value(struct literal *l, int depth)
{
	space(l);
	if (l->s >= l->end || depth > OUTPUT_MAX_DEPTH)
		return 0;
	if (*l->s == '\'' || *l->s == '"')
		return py_string(l);
	if (*l->s == '{' || *l->s == '[' || *l->s == '(')
		return py_items(l, depth);
	return py_word(l);
}

/* 1: appended; 0: neither JSON nor a literal; -ENOMEM. */
static int put_object(struct buf *out, const char *s, size_t n)
{
	struct buf text = {0}, value = {0};
	struct literal l = {s, s + n, &value, &text};
	int rc;

	if (!n || !strchr("{[(", *s))
		return 0;
	rc = buf_reserve(&text, 1);
	if (!rc)
		rc = json_compact(&value, s, n);
	if (!rc) {
		value.n = 0;
		rc = py_value(&l, 0);
		space(&l);
		if (rc == 1 && l.s != l.end)
			rc = 0;
	}
	if (rc == 1)
		rc = put(out, value.v, value.n);
	buf_free(&text);
	buf_free(&value);
	return rc;
}

/* ---- values -------------------------------------------------------------------------------- */

static bool is_word(const char *s, size_t n, const char *word)
{
	return n == strlen(word) && !strncasecmp(s, word, n);
}

int convert_value(const json_t *root, const json_t *schema, const char *s, size_t n,
		  struct buf *out)
{
	unsigned types = types_of(root, schema, 0);
	size_t start = out->n, m = n;
	const char *t = s;
	int rc = 0;

	if (types == T_STRING)
		return json_put_string(out, s, n);
	while (m && is_space(*t)) {
		t++;
		m--;
	}
	while (m && is_space(t[m - 1]))
		m--;
	if (is_word(t, m, "null") || ((types & T_NULL) && is_word(t, m, "none")))
		return put(out, "null", 4);
	if (types & T_BOOLEAN) {
		if (is_word(t, m, "true"))
			return put(out, "true", 4);
		if (is_word(t, m, "false"))
			return put(out, "false", 5);
	}
	if (types & T_INTEGER)
		rc = put_integer(out, t, m);
	if (!rc && (types & T_NUMBER))
		rc = put_number(out, t, m);
	if (!rc && (types & T_OBJECT))
		rc = put_object(out, t, m);
	if (rc)
		return rc;
	out->n = start;
	return json_put_string(out, s, n);
}
