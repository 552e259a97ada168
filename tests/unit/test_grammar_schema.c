// SPDX-License-Identifier: MIT
/*
 * JSON schemas: for each, texts that must pass and texts that must not, over a vocabulary of bytes
 * and (those that pass) over a real one; what is refused, and where.
 */
#include <errno.h>

#include "tests/unit/grammar_check.h"

static struct voc bytes, bpe;

struct schema_case {
	const char *schema;
	const char *yes[14], *no[14];
};

static const struct schema_case cases[] = {
	{"{\"type\":\"string\"}",
	 {"\"\"", "\"a\"", "\"\\n\\u00e9\\\"\"", "\"\xe4\xbd\xa0\xf0\x9f\x9a\x80\"",
	  "\"\\ud83d\\ude80\""},
	 {"a", "\"a", "\"\n\"", "\"\\x\"", "\"\\ud83d\"", "\"\\u0000\"", "\"\xff\"", "\"a\" "}},
	{"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
	 {"\"ab\"", "\"\xc3\xa9\xc3\xa9\"", "\"\\n\xf0\x9f\x9a\x80x\"", "\"\\ud83d\\ude80b\""},
	 {"\"a\"", "\"abcd\"", "\"\\ud83d\\ude80\"", "\"\""}},
	{"{\"type\":\"string\",\"maxLength\":1000000000}", {"\"abc\""}, {"abc"}},
	{"{\"type\":\"string\",\"minLength\":300}", {}, {"\"abc\""}},
	{"{\"type\":\"integer\"}",
	 {"0", "-1", "123456789012345678"},
	 {"01", "1.0", "-0", "-", "+1", "1e3", "1234567890123456789", ""}},
	{"{\"type\":\"number\"}",
	 {"0", "-0.5", "1e10", "1.5E-3", "12"},
	 {"01", ".5", "1.", "1e", "1e999", "NaN"}},
	{"{\"type\":\"boolean\"}", {"true", "false"}, {"True", "tru", "null"}},
	{"{\"type\":\"null\"}", {"null"}, {"none", "nul"}},
	{"{\"type\":[\"string\",\"null\"]}", {"null", "\"x\""}, {"1", "{}"}},
	{"{\"type\":\"string\",\"nullable\":true}", {"null", "\"x\""}, {"1"}},
	{"{\"type\":\"integer\",\"minimum\":3,\"maximum\":120}",
	 {"3", "9", "10", "99", "100", "120"},
	 {"2", "121", "0", "-5", "1000"}},
	{"{\"type\":\"integer\",\"minimum\":-20,\"exclusiveMaximum\":5}",
	 {"-20", "-19", "-9", "-1", "0", "4"},
	 {"-21", "5", "-100", "-0"}},
	{"{\"type\":\"integer\",\"exclusiveMinimum\":0}",
	 {"1", "10", "999999999999999999"},
	 {"0", "-1"}},
	{"{\"type\":\"integer\",\"minimum\":0,\"exclusiveMinimum\":true}", {"1"}, {"0"}},
	{"{\"type\":\"integer\",\"minimum\":1.5,\"maximum\":3.5}", {"2", "3"}, {"1", "4"}},
	{"{\"type\":\"number\",\"minimum\":0.5,\"maximum\":12.25}",
	 {"0.5", "0.50", "0.500001", "1", "9.99", "12", "12.25", "12.2", "12.250"},
	 {"0.49", "0", "0.4999", "12.26", "12.2501", "13", "-1", "100", "1e1"}},
	{"{\"type\":\"number\",\"exclusiveMinimum\":0.5,\"exclusiveMaximum\":0.75}",
	 {"0.6", "0.51", "0.5000001", "0.749"},
	 {"0.5", "0.50", "0.75", "0.750", "0.8", "1"}},
	{"{\"type\":\"number\",\"minimum\":-1.5}", {"-1.5", "-1", "0", "77.5"}, {"-1.6", "-2"}},
	{"{\"type\":\"number\",\"maximum\":0}", {"0", "-0.5", "-7", "0.0"}, {"0.1", "1"}},
	{"{\"type\":\"number\",\"exclusiveMaximum\":0}", {"-0.5", "-7"}, {"0", "0.0", "1", "-0"}},
	{"{\"type\":\"number\",\"multipleOf\":0.01}", {"1.25", "3", "0.5"}, {"1.255"}},
	{"{\"type\":\"integer\",\"multipleOf\":7}", {"0", "7", "-14", "7007"}, {"1", "15", "07"}},
	{"{\"type\":\"integer\",\"multipleOf\":5,\"minimum\":-12,\"maximum\":12}",
	 {"-10", "0", "10"},
	 {"-15", "12", "15"}},
	{"{\"enum\":[\"red\",\"green\",3,null,true,1.5,[1,{\"a\":2}]]}",
	 {"\"red\"", "\"green\"", "3", "null", "true", "1.5", "[1,{\"a\":2}]", "[1, {\"a\": 2}]"},
	 {"\"blue\"", "\"re\"", "\"redd\"", "false", "4"}},
	{"{\"type\":\"integer\",\"enum\":[1,2,\"x\"]}", {"1", "2"}, {"\"x\"", "3"}},
	{"{\"enum\":[1,5,9],\"minimum\":4}", {"5", "9"}, {"1"}},
	{"{\"const\":\"a\\\"b\\n\"}", {"\"a\\\"b\\n\""}, {"\"a\""}},
	{"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":"
	 "\"string\"}},\"required\":[\"a\"],\"additionalProperties\":false}",
	 {"{\"a\":1}", "{\"a\": 1, \"b\": \"x\"}", "{\n  \"a\": 1,\n  \"b\": \"x\"\n}",
	  "{ \"a\": 1 }"},
	 {"{}", "{\"b\":\"x\"}", "{\"a\":1,\"c\":2}", "{\"a\":\"1\"}", "{\"a\":1,}", "{\"a\" :1}",
	  "{\"a\":  1}", "{\n\n\"a\":1}"}},
	{"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"ab\":{\"type\":"
	 "\"integer\"}}}",
	 {"{}", "{\"a\":1}", "{\"ab\":1,\"x\":[null]}", "{\"b\":\"x\"}", "{\"abc\":{}}", "{\"\":1}",
	  "{\"a\":1,\"ab\":2,\"ac\":3,\"aa\":4}"},
	 {"{\"a\":\"x\"}", "{\"ab\":null}", "{\"x\":1,\"a\":\"s\"}", "{\"\\u0061\":\"x\"}"}},
	{"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"},"
	 "\"minProperties\":1,\"maxProperties\":2}",
	 {"{\"a\":1}", "{\"a\":1,\"b\":2}"},
	 {"{}", "{\"a\":\"x\"}", "{\"a\":1,\"b\":2,\"c\":3}"}},
	{"{\"type\":\"object\",\"required\":[\"z\"],\"properties\":{\"a\":{}}}",
	 {"{\"z\":1}", "{\"a\":1,\"z\":[]}"},
	 {"{\"a\":1}", "{}"}},
	{"{\"type\":\"object\",\"patternProperties\":{\"^x-[a-z]+$\":{\"type\":\"integer\"}},"
	 "\"additionalProperties\":false}",
	 {"{}", "{\"x-a\":1,\"x-bc\":2}"},
	 {"{\"y\":1}", "{\"x-\":1}", "{\"x-a\":\"1\"}"}},
	{"{\"type\":\"object\",\"propertyNames\":{\"enum\":[\"p\",\"q\"]}}",
	 {"{\"p\":1}", "{\"q\":[]}"},
	 {"{\"r\":1}"}},
	{"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":1,\"maxItems\":3}",
	 {"[1]", "[1,2]", "[1, 2, 3]", "[\n  1,\n  2\n]"},
	 {"[]", "[1,2,3,4]", "[\"a\"]", "[1,]", "[,1]", "[1 2]"}},
	{"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"maxItems\":0}", {"[]"}, {"[1]"}},
	{"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"string\"}],"
	 "\"items\":false,\"minItems\":1}",
	 {"[1]", "[1,\"x\"]"},
	 {"[]", "[\"x\"]", "[1,\"x\",2]"}},
	{"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"}],\"items\":{\"type\":"
	 "\"boolean\"},\"maxItems\":3}",
	 {"[]", "[1]", "[1,true]", "[1,true,false]"},
	 {"[true]", "[1,true,false,true]"}},
	{"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":1000}", {}, {"[1]"}},
	{"{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"string\",\"maxLength\":1}]}",
	 {"12", "\"x\""},
	 {"\"xy\"", "1.5"}},
	{"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":"
	 "\"integer\"}},\"additionalProperties\":false,\"anyOf\":[{\"required\":[\"a\"]},"
	 "{\"required\":[\"b\"]}]}",
	 {"{\"a\":1}", "{\"b\":1}", "{\"a\":1,\"b\":2}"},
	 {"{}"}},
	{"{\"oneOf\":[{\"const\":1},{\"const\":2}]}", {"1", "2"}, {"3"}},
	{"{\"allOf\":[{\"$ref\":\"#/$defs/"
	 "p\"},{\"type\":\"object\",\"properties\":{\"b\":{\"type\":"
	 "\"string\"}},\"required\":[\"b\"]}],\"$defs\":{\"p\":{\"type\":\"object\",\"properties\":"
	 "{\"a\":{\"type\":\"integer\",\"minimum\":3}},\"required\":[\"a\"]}}}",
	 {"{\"a\":3,\"b\":\"x\"}"},
	 {"{\"a\":3}", "{\"b\":\"x\"}", "{\"a\":2,\"b\":\"x\"}"}},
	{"{\"allOf\":[{\"type\":\"integer\",\"minimum\":3},{\"type\":\"number\",\"maximum\":5}]}",
	 {"3", "5"},
	 {"2", "6", "4.5"}},
	{"{\"$ref\":\"#/definitions/n~1ode\",\"definitions\":{\"n/ode\":{\"type\":\"object\","
	 "\"properties\":{\"v\":{\"type\":\"integer\"},\"next\":{\"anyOf\":[{\"$ref\":"
	 "\"#/definitions/n~1ode\"},{\"type\":\"null\"}]}},\"required\":[\"v\",\"next\"],"
	 "\"additionalProperties\":false}}}",
	 {"{\"v\":1,\"next\":null}", "{\"v\":1,\"next\":{\"v\":2,\"next\":null}}"},
	 {"{\"v\":1}", "{\"v\":1,\"next\":{}}"}},
	{"{\"type\":\"object\",\"properties\":{\"kids\":{\"type\":\"array\",\"items\":{\"$ref\":"
	 "\"#\"}}},\"additionalProperties\":false}",
	 {"{}", "{\"kids\":[{},{\"kids\":[]}]}"},
	 {"{\"kids\":[1]}"}},
	{"{\"type\":\"string\",\"pattern\":\"^[A-Z]{2}\\\\d+$\"}",
	 {"\"AB1\"", "\"XY123\""},
	 {"\"A1\"", "\"AB\"", "\"ab1\"", "\"AB1x\""}},
	{"{\"type\":\"string\",\"pattern\":\"b+\"}",
	 {"\"b\"", "\"abc\"", "\"\\nxbb\\\"\""},
	 {"\"\"", "\"ac\""}},
	{"{\"type\":\"string\",\"pattern\":\"^[a-z]*$\",\"maxLength\":3}",
	 {"\"\"", "\"abc\""},
	 {"\"abcd\"", "\"A\""}},
	{"{\"type\":\"string\",\"pattern\":\"^a\\\"\\\\s$\"}",
	 {"\"a\\\"\\t\"", "\"a\\\" \""},
	 {"\"a\""}},
	{"{\"type\":\"string\",\"format\":\"date\"}",
	 {"\"2024-02-29\"", "\"1999-12-31\"", "\"2000-02-29\""},
	 {"\"2023-02-29\"", "\"1900-02-29\"", "\"2024-13-01\"", "\"2024-04-31\"", "\"24-01-01\""}},
	{"{\"type\":\"string\",\"format\":\"date-time\"}",
	 {"\"2024-02-29T23:59:59Z\"", "\"2024-01-01T00:00:00.123+02:00\""},
	 {"\"2024-02-29\"", "\"2024-01-01T24:00:00Z\"", "\"2024-01-01T00:00:00\""}},
	{"{\"type\":\"string\",\"format\":\"uuid\"}",
	 {"\"123e4567-e89b-12d3-a456-426614174000\""},
	 {"\"123e4567e89b12d3a456426614174000\""}},
	{"{\"type\":\"string\",\"format\":\"ipv4\"}",
	 {"\"192.168.0.255\""},
	 {"\"256.1.1.1\"", "\"1.2.3\"", "\"01.2.3.4\""}},
	{"{\"type\":\"string\",\"format\":\"ipv6\"}",
	 {"\"::1\"", "\"2001:db8::ff00:42:8329\"", "\"1:2:3:4:5:6:7:8\"", "\"fe80::\""},
	 {"\"1:2:3\"", "\"1::2::3\"", "\"1:2:3:4:5:6:7:8:9\""}},
	{"{\"type\":\"string\",\"format\":\"email\"}",
	 {"\"a.b@ex-1.org\""},
	 {"\"a@\"", "\"@b.c\""}},
	{"{\"type\":\"string\",\"format\":\"hostname\"}",
	 {"\"a.b-c.org\""},
	 {"\"-a.org\"", "\"a..b\""}},
	{"{\"type\":\"string\",\"format\":\"uri\",\"minLength\":1,\"maxLength\":2083}",
	 {"\"https://a.org/x?y=1#z\""},
	 {"\"\""}},
	{"{\"type\":\"string\",\"format\":\"no-such\"}", {"\"x\""}, {"1"}},
	{"{\"properties\":{\"a\":{\"minLength\":1}},\"additionalProperties\":false}",
	 {"{\"a\":\"x\"}"},
	 {"{\"a\":\"\"}", "[]"}},
	{"{}", {"1", "\"x\"", "{\"a\":[1,{}]}", "[]", "[[],{}]"}, {"", "{a:1}", "[1,]"}},
	{"true", {"null"}, {"x"}},
	{"{\"title\":\"t\",\"description\":\"d\",\"default\":1,\"examples\":[2],\"type\":"
	 "\"integer\"}",
	 {"1"},
	 {"\"1\""}},
};

static void check_case(const struct schema_case *c)
{
	json_error_t je;
	json_t *schema = json_loads(c->schema, JSON_DECODE_ANY, &je);
	struct grammar *g = NULL;
	struct err e;
	size_t at;
	bool ok = true;
	int rc;

	REQUIRE(schema != NULL, "schema is JSON: %s (%s)", c->schema, schema ? "" : je.text);
	rc = grammar_json_schema(&g, schema, &e);
	json_decref(schema);
	REQUIRE(!rc, "compiles: %s%s%s", c->schema, rc ? ": " : "", rc ? e.msg : "");
	for (int i = 0; c->yes[i]; i++) {
		size_t n = strlen(c->yes[i]);

		if (!takes(&bytes, g, c->yes[i], n, &at)) {
			printf("# must pass, refused at %zu: %s\n", at, c->yes[i]);
			ok = false;
		}
		if (!takes_tokens(&bpe, g, c->yes[i], n)) {
			printf("# must pass as tokens: %s\n", c->yes[i]);
			ok = false;
		}
	}
	for (int i = 0; c->no[i]; i++) {
		if (takes(&bytes, g, c->no[i], strlen(c->no[i]), NULL)) {
			printf("# must not pass: %s\n", c->no[i]);
			ok = false;
		}
	}
	CHECK(ok, "%s", c->schema);
	grammar_free(g);
}

static const struct {
	const char *schema;
	int rc;
	const char *begins;
} refused[] = {
	{"1", -EINVAL, "#: not a schema"},
	{"false", -EINVAL, "#: nothing can match"},
	{"{\"type\":\"strin\"}", -EINVAL, "#/type: "},
	{"{\"properties\":{\"a\":{\"not\":{}}}}", -EOPNOTSUPP, "#/properties/a/not: "},
	{"{\"properties\":{\"a/b\":{\"items\":{\"if\":{}}}}}", -EOPNOTSUPP,
	 "#/properties/a~1b/items/if: "},
	{"{\"type\":\"array\",\"uniqueItems\":true}", -EOPNOTSUPP, "#/uniqueItems: "},
	{"{\"type\":\"array\",\"contains\":{}}", -EOPNOTSUPP, "#/contains: "},
	{"{\"dependentRequired\":{}}", -EOPNOTSUPP, "#/dependentRequired: "},
	{"{\"type\":\"string\",\"pattern\":\"(?=a)\"}", -EOPNOTSUPP,
	 "#/pattern: regular expression: at offset 0: "},
	{"{\"type\":\"string\",\"pattern\":\"^a.*b\",\"minLength\":5}", -EOPNOTSUPP, "#/pattern: "},
	{"{\"type\":\"string\",\"minLength\":\"x\"}", -EINVAL, "#/minLength: "},
	{"{\"type\":\"string\",\"minLength\":-1}", -EINVAL, "#/minLength: "},
	{"{\"type\":\"string\",\"minLength\":3,\"maxLength\":2}", -EINVAL, "#: nothing can match"},
	{"{\"type\":\"integer\",\"minimum\":5,\"maximum\":4}", -EINVAL, "#: nothing can match"},
	{"{\"type\":\"number\",\"multipleOf\":0.3}", -EOPNOTSUPP, "#/multipleOf: "},
	{"{\"type\":\"integer\",\"minimum\":\"a\"}", -EINVAL, "#/minimum: "},
	{"{\"$ref\":\"#/$defs/x\"}", -EINVAL, "#/$ref: "},
	{"{\"$ref\":\"http://x/y\"}", -EOPNOTSUPP, "#/$ref: "},
	{"{\"$ref\":\"#\"}", -EINVAL, "#: nothing can match"},
	{"{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}",
	 -EINVAL, "#: nothing can match"},
	{"{\"allOf\":[{\"pattern\":\"a\"},{\"pattern\":\"b\"}]}", -EOPNOTSUPP, "#/pattern: "},
	{"{\"required\":[\"a\"],\"additionalProperties\":false}", -EINVAL, "#/required: "},
	{"{\"properties\":{\"a\":{}},\"minProperties\":1}", -EOPNOTSUPP, "#/minProperties: "},
	{"{\"enum\":[]}", -EINVAL, "#: nothing can match"},
	{"{\"enum\":5}", -EINVAL, "#/enum: "},
	{"{\"anyOf\":[]}", -EINVAL, "#/anyOf: "},
	{"{\"properties\":[]}", -EINVAL, "#/properties: "},
};

static void check_refused(void)
{
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		json_t *schema = json_loads(refused[i].schema, JSON_DECODE_ANY, NULL);
		struct grammar *g = NULL;
		struct err e = {""};
		int rc = grammar_json_schema(&g, schema, &e);

		CHECK(rc == refused[i].rc &&
			      !strncmp(e.msg, refused[i].begins, strlen(refused[i].begins)),
		      "%s: %d, %s", refused[i].schema, rc, e.msg);
		grammar_free(g);
		json_decref(schema);
	}
}

static void check_object(void)
{
	struct grammar *g;
	struct err e;

	REQUIRE(!grammar_json_object(&g, &e), "any object compiles");
	CHECK(takes(&bytes, g, "{\"a\":[1,{\"b\":null}]}", 20, NULL),
	      "json_object takes an object");
	CHECK(takes(&bytes, g, "{}", 2, NULL), "and an empty one");
	CHECK(!takes(&bytes, g, "[]", 2, NULL), "and no list");
	CHECK(!takes(&bytes, g, "\"a\"", 3, NULL), "and no string");
	grammar_free(g);
}

int main(void)
{
	if (!voc_bytes(&bytes, NULL) || !voc_open(&bpe, "tools/demo/model/tokenizer.json", 0))
		return 1;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		check_case(&cases[i]);
	check_refused();
	check_object();
	voc_close(&bytes);
	voc_close(&bpe);
	return tap_done();
}
