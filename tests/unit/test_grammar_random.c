// SPDX-License-Identifier: MIT
/*
 * Random schemas, random answers that their masks allow, and a validator of its own that knows the
 * keywords used here. With GRAMMAR_SAMPLES=FILE the pairs are written there too, a line each, for
 * tests/e2e/grammar.sh to show them to Python's jsonschema.
 */
#include <errno.h>
#include <math.h>

#include "tests/unit/grammar_check.h"

static uint64_t seed = 42;

static uint32_t rnd(uint32_t n)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)((seed >> 33) % n);
}

/* ---- schemas ------------------------------------------------------------------------------------ */

static json_t *random_schema(int depth);

static json_t *random_string(void)
{
	static const char *const patterns[] = {"^[a-z]{2,5}$", "b+c", "^(?:x|\\d\\d)[^\"a-f]",
					       "\\\\|\\n$", "^\\t?\xc3\xa9*$"};
	static const char *const formats[] = {"date",	  "time", "date-time", "uuid", "email",
					      "hostname", "ipv4", "ipv6",      "uri",  "duration"};
	json_t *s = json_pack("{s:s}", "type", "string");
	int lo = (int)rnd(12);

	switch (rnd(4)) {
	case 0:
		json_object_set_new(s, "pattern", json_string(patterns[rnd(5)]));
		break;
	case 1:
		json_object_set_new(s, "minLength", json_integer(lo));
		json_object_set_new(s, "maxLength", json_integer(lo + (int)rnd(20)));
		break;
	case 2:
		json_object_set_new(s, "format", json_string(formats[rnd(10)]));
		break;
	default:
		break;
	}
	return s;
}

static json_t *random_number(void)
{
	bool integer = rnd(2);
	json_t *s = json_pack("{s:s}", "type", integer ? "integer" : "number");
	double lo = ((double)rnd(40000) - 20000) / (rnd(2) ? 1 : 64);
	double hi = lo + (double)rnd(3000) + 1;

	if (rnd(3))
		json_object_set_new(s, rnd(2) ? "minimum" : "exclusiveMinimum",
				    integer ? json_integer((long long)lo) : json_real(lo));
	if (rnd(3))
		json_object_set_new(s, rnd(2) ? "maximum" : "exclusiveMaximum",
				    integer ? json_integer((long long)hi + 2) : json_real(hi));
	if (integer && json_object_size(s) == 1 && rnd(2))
		json_object_set_new(s, "multipleOf", json_integer(1 + rnd(30)));
	return s;
}

static json_t *random_array(int depth)
{
	json_t *s = json_pack("{s:s,s:o}", "type", "array", "items", random_schema(depth - 1));
	int lo = (int)rnd(3);

	if (rnd(2)) {
		json_object_set_new(s, "minItems", json_integer(lo));
		json_object_set_new(s, "maxItems", json_integer(lo + (int)rnd(4)));
	}
	if (!rnd(4))
		json_object_set_new(s, "prefixItems",
				    json_pack("[oo]", random_schema(depth - 1), random_schema(0)));
	return s;
}

static json_t *random_object(int depth)
{
	static const char *const names[] = {"a", "ab", "abc", "x y", "\xc3\xa9", "q\"\\", "b", ""};
	json_t *props = json_object(), *required = json_array();
	json_t *s = json_pack("{s:s,s:o,s:o}", "type", "object", "properties", props, "required",
			      required);

	for (uint32_t i = 0, n = rnd(5); i < n; i++) {
		const char *name = names[rnd(8)];

		if (json_object_get(props, name))
			continue;
		json_object_set_new(props, name, random_schema(depth - 1));
		if (rnd(2))
			json_array_append_new(required, json_string(name));
	}
	switch (rnd(3)) {
	case 0:
		json_object_set_new(s, "additionalProperties", json_false());
		break;
	case 1:
		json_object_set_new(s, "additionalProperties", random_schema(0));
		break;
	default:
		break;
	}
	return s;
}

static json_t *random_schema(int depth)
{
	json_t *s;

	switch (rnd(depth > 0 ? 9 : 5)) {
	case 0:
		return random_string();
	case 1:
		return random_number();
	case 2:
		return json_pack("{s:[s,s]}", "type", rnd(2) ? "boolean" : "integer", "null");
	case 3:
		return json_loads(
			"{\"enum\":[\"a\\\"b\",\"ab\",12,-0.5,null,true,[1,{\"k\":[]}],{}]}", 0,
			NULL);
	case 4:
		return rnd(4) ? random_string() : json_pack("{s:s}", "$ref", "#/$defs/tree");
	case 5:
		return random_array(depth);
	case 6:
		s = json_pack("{s:[oo]}", rnd(2) ? "anyOf" : "allOf", random_schema(depth - 1),
			      random_schema(depth - 1));
		if (json_object_get(s, "allOf")) /* which merges with anything */
			json_array_set_new(json_object_get(s, "allOf"), 1, json_object());
		return s;
	default:
		return random_object(depth);
	}
}

static json_t *random_root(void)
{
	json_t *s = random_schema(3);

	json_object_set_new(
		s, "$defs",
		json_loads("{\"tree\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":"
			   "\"integer\"},\"kids\":{\"type\":\"array\",\"items\":{\"$ref\":"
			   "\"#/$defs/tree\"},\"maxItems\":2}},\"required\":[\"v\"],"
			   "\"additionalProperties\":false}}",
			   0, NULL));
	return s;
}

/* ---- the validator ------------------------------------------------------------------------------ */

static bool valid(const json_t *root, const json_t *s, const json_t *v);

static bool bound(const json_t *s, const char *k, double v, bool low, bool excl)
{
	const json_t *b = json_object_get(s, k);
	double x = json_number_value(b);

	return !b || (low ? (excl ? v > x : v >= x) : (excl ? v < x : v <= x));
}

static bool valid_number(const json_t *s, const json_t *v)
{
	double x = json_number_value(v), m = json_number_value(json_object_get(s, "multipleOf"));

	return bound(s, "minimum", x, true, false) && bound(s, "exclusiveMinimum", x, true, true) &&
	       bound(s, "maximum", x, false, false) &&
	       bound(s, "exclusiveMaximum", x, false, true) && (m == 0 || fmod(x, m) == 0);
}

static bool valid_string(const json_t *s, const json_t *v)
{
	const char *p = json_string_value(v);
	double n = 0;

	for (; *p; p += utf8_skip(p))
		n++;
	return bound(s, "minLength", n, true, false) && bound(s, "maxLength", n, false, false);
}

static bool valid_array(const json_t *root, const json_t *s, const json_t *v)
{
	const json_t *prefix = json_object_get(s, "prefixItems");
	json_t *x;
	size_t i;

	json_array_foreach ((json_t *)v, i, x) {
		const json_t *is = i < json_array_size(prefix) ? json_array_get(prefix, i)
							       : json_object_get(s, "items");

		if (is && !valid(root, is, x))
			return false;
	}
	return bound(s, "minItems", (double)i, true, false) &&
	       bound(s, "maxItems", (double)i, false, false);
}

static bool valid_object(const json_t *root, const json_t *s, const json_t *v)
{
	const json_t *props = json_object_get(s, "properties");
	const json_t *more = json_object_get(s, "additionalProperties");
	const char *key;
	json_t *x;
	size_t i;

	json_array_foreach (json_object_get(s, "required"), i, x) {
		if (!json_object_get(v, json_string_value(x)))
			return false;
	}
	json_object_foreach ((json_t *)v, key, x) {
		const json_t *is = json_object_get(props, key);

		if (is ? !valid(root, is, x) : more && !valid(root, more, x))
			return false;
	}
	return true;
}

static bool has_type(const char *t, const json_t *v)
{
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		return !strcmp(t, "object");
	case JSON_ARRAY:
		return !strcmp(t, "array");
	case JSON_STRING:
		return !strcmp(t, "string");
	case JSON_INTEGER:
		return !strcmp(t, "integer") || !strcmp(t, "number");
	case JSON_REAL:
		return !strcmp(t, "number");
	case JSON_NULL:
		return !strcmp(t, "null");
	default:
		return !strcmp(t, "boolean");
	}
}

static bool valid_type(const json_t *t, const json_t *v)
{
	json_t *x;
	size_t i;

	if (!t || json_is_string(t))
		return !t || has_type(json_string_value(t), v);
	json_array_foreach ((json_t *)t, i, x) {
		if (has_type(json_string_value(x), v))
			return true;
	}
	return false;
}

static bool valid(const json_t *root, const json_t *s, const json_t *v)
{
	json_t *x, *any = json_object_get(s, "anyOf"), *list = json_object_get(s, "enum");
	bool one = !any && !list;
	size_t i;

	if (json_is_boolean(s))
		return json_is_true(s);
	if (json_object_get(s, "$ref"))
		return valid(root, json_object_get(json_object_get(root, "$defs"), "tree"), v);
	json_array_foreach (any, i, x)
		one |= valid(root, x, v);
	json_array_foreach (list, i, x)
		one |= json_equal(x, v);
	json_array_foreach (json_object_get(s, "allOf"), i, x)
		one &= valid(root, x, v);
	return one && valid_type(json_object_get(s, "type"), v) &&
	       (!json_is_number(v) || valid_number(s, v)) &&
	       (!json_is_string(v) || valid_string(s, v)) &&
	       (!json_is_array(v) || valid_array(root, s, v)) &&
	       (!json_is_object(v) || valid_object(root, s, v));
}

/* ---- answers ------------------------------------------------------------------------------------ */

/* A random answer; its length, 0: it did not come to an end. */
static size_t sample(const struct voc *o, const struct grammar *g, char *text, size_t cap)
{
	static const char closing[] = "\"\"\"\"}}}]]]::0019aabcx-@.\\nZTP";
	struct matcher *m;
	size_t n = 0;
	bool ended = false;

	if (matcher_open(&m, g, o->v, NULL))
		return 0;
	while (!ended && n + 1 < cap) {
		const uint64_t *mask = matcher_mask(m);
		int32_t id = has_bit(mask, o->eos) && (rnd(2) || n > 100) ? o->eos : -1;

		if (id < 0 && n > 30 && has_bit(mask, '"') && rnd(4))
			id = '"';
		for (int k = 0; k < 64 && id < 0 && (n > 40 || rnd(2)); k++) {
			int32_t c = closing[rnd(sizeof(closing) - 1)];

			id = has_bit(mask, c) ? c : -1;
		}
		for (int k = 0, from = (int)rnd(257); k < 257 && id < 0; k++)
			id = has_bit(mask, (from + k) % 257) ? (from + k) % 257 : -1;
		if (id < 0 || matcher_accept(m, id))
			break;
		ended = id == o->eos;
		if (!ended)
			text[n++] = (char)id;
	}
	matcher_close(m);
	text[n] = 0;
	return ended ? n : 0;
}

static int check_answers(const struct voc *o, const json_t *schema, const struct grammar *g,
			 FILE *samples, int *done)
{
	static char text[4096];
	int wrong = 0;

	for (int i = 0; i < 6; i++) {
		size_t n = sample(o, g, text, sizeof(text));
		json_error_t je;
		json_t *v;

		if (!n)
			continue;
		(*done)++;
		v = json_loadb(text, n, JSON_DECODE_ANY, &je);
		if (!v || !valid(schema, schema, v)) {
			char *s = json_dumps(schema, 0);

			printf("# %s\n# does not fit %s: %s\n", text, s, v ? "" : je.text);
			free(s);
			wrong++;
		}
		if (samples && v) {
			json_t *pair = json_pack("{s:O,s:s#}", "schema", (json_t *)schema, "text",
						 text, n);

			json_dumpf(pair, samples, JSON_COMPACT);
			fputc('\n', samples);
			json_decref(pair);
		}
		json_decref(v);
	}
	return wrong;
}

int main(void)
{
	const char *path = getenv("GRAMMAR_SAMPLES");
	FILE *samples = path ? fopen(path, "w") : NULL;
	struct voc bytes = {0};
	int wrong = 0, done = 0, compiled = 0, refused = 0;

	if (!voc_bytes(&bytes, NULL))
		return 1;
	for (int i = 0; i < 400; i++) {
		json_t *schema = random_root();
		struct grammar *g;
		struct err e;
		int rc = grammar_json_schema(&g, schema, &e);

		if (rc) {
			char *s = json_dumps(schema, 0);

			refused++;
			if (rc != -EINVAL || !strstr(e.msg, "nothing can match")) {
				printf("# %s: %s\n", s, e.msg);
				wrong++;
			}
			free(s);
		} else {
			compiled++;
			wrong += check_answers(&bytes, schema, g, samples, &done);
			grammar_free(g);
		}
		json_decref(schema);
	}
	CHECK(!wrong, "%d answers to %d schemas fit", done, compiled);
	CHECK(compiled > 300 && done > 1000, "most schemas can be met (%d not), most walks end",
	      refused);
	if (samples && fclose(samples))
		wrong++;
	voc_close(&bytes);
	return tap_done();
}
