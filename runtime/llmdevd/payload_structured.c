// SPDX-License-Identifier: MIT
/* What the content is held to: response_format, structured_outputs, guided_* (payload_int.h). */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "llmdevd/payload_int.h"

static int set(struct payload *p, enum constraint_kind kind, const json_t *json, const char *path,
	       struct err *e)
{
	struct constraint_spec *s = &p->constraint;

	if (s->kind != CONSTRAINT_NONE)
		return err_set(e, -EINVAL, "%s: the answer is held to %s already: give one", path,
			       s->path);
	s->kind = kind;
	s->json = json_incref((json_t *)json);
	snprintf(s->path, sizeof(s->path), "%s", path);
	return 0;
}

/* A schema as vLLM takes it: an object, or text that holds one. */
static int set_schema(struct payload *p, const json_t *v, const char *path, struct err *e)
{
	json_t *parsed = NULL;
	int rc;

	if (json_is_string(v)) {
		parsed = json_loads(json_string_value(v), JSON_DECODE_ANY, NULL);
		if (!parsed)
			return err_set(e, -EINVAL, "%s: text that is no JSON", path);
		v = parsed;
	}
	if (!json_is_object(v) && !json_is_boolean(v))
		rc = err_set(e, -EINVAL, "%s: not a JSON schema", path);
	else
		rc = set(p, CONSTRAINT_SCHEMA, v, path, e);
	json_decref(parsed);
	return rc;
}

static int set_text(struct payload *p, enum constraint_kind kind, const json_t *v, const char *path,
		    struct err *e)
{
	if (!json_is_string(v) || !json_string_length(v))
		return err_set(e, -EINVAL, "%s: not a string, or empty", path);
	return set(p, kind, v, path, e);
}

static int set_choice(struct payload *p, const json_t *v, const char *path, struct err *e)
{
	const json_t *x;
	size_t i;

	if (!json_is_array(v) || !json_array_size(v))
		return err_set(e, -EINVAL, "%s: not a list of strings", path);
	json_array_foreach ((json_t *)v, i, x) {
		if (!json_is_string(x) || !json_string_length(x))
			return err_set(e, -EINVAL, "%s[%zu]: not a string, or empty", path, i);
	}
	return set(p, CONSTRAINT_CHOICE, v, path, e);
}

static int read_response_format(struct payload *p, const json_t *v, struct err *e)
{
	const char *type = json_string_value(json_object_get(v, "type"));
	const json_t *schema;

	if (!v)
		return 0;
	if (!json_is_object(v) || !type)
		return err_set(e, -EINVAL, "response_format.type: missing, or not a string");
	if (!strcmp(type, "text"))
		return 0;
	if (!strcmp(type, "json_object"))
		return set(p, CONSTRAINT_OBJECT, NULL, "response_format", e);
	if (strcmp(type, "json_schema"))
		return err_set(e, -EOPNOTSUPP,
			       "response_format.type: `%.40s`: text, json_object or json_schema",
			       type);
	schema = payload_member(v, "json_schema");
	if (!json_is_object(schema))
		return err_set(e, -EINVAL, "response_format.json_schema: missing, or no object");
	schema = payload_member(schema, "schema");
	if (!schema)
		return err_set(e, -EINVAL, "response_format.json_schema.schema: missing");
	return set_schema(p, schema, "response_format.json_schema.schema", e);
}

/* The members of structured_outputs, and the older names of the same things. */
static int read_outputs(struct payload *p, const json_t *o, const char *prefix, struct err *e)
{
	static const char *const names[] = {"json", "regex", "choice", "grammar", "json_object"};
	char key[64];
	int rc = 0;

	for (int i = 0; i < 5 && !rc; i++) {
		const json_t *v;

		snprintf(key, sizeof(key), "%s%s", prefix, names[i]);
		v = payload_member(o, strchr(prefix, '.') ? names[i] : key);
		if (!v)
			continue;
		if (i == 0)
			rc = set_schema(p, v, key, e);
		else if (i == 1)
			rc = set_text(p, CONSTRAINT_REGEX, v, key, e);
		else if (i == 2)
			rc = set_choice(p, v, key, e);
		else if (i == 3)
			rc = set_text(p, CONSTRAINT_GBNF, v, key, e);
		else if (json_is_true(v))
			rc = set(p, CONSTRAINT_OBJECT, NULL, key, e);
	}
	return rc;
}

int payload_structured(struct payload *p, const json_t *o, struct err *e)
{
	const json_t *v = payload_member(o, "structured_outputs");
	int rc = read_response_format(p, payload_member(o, "response_format"), e);

	if (!rc && v && !json_is_object(v))
		rc = err_set(e, -EINVAL, "structured_outputs: not an object");
	if (!rc && payload_member(v, "structural_tag"))
		rc = err_set(e, -EOPNOTSUPP,
			     "structured_outputs.structural_tag: not supported: leave it out");
	if (!rc && v)
		rc = read_outputs(p, v, "structured_outputs.", e);
	return rc ? rc : read_outputs(p, o, "guided_", e);
}
