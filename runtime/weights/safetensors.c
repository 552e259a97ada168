// SPDX-License-Identifier: MIT
/*
 * safetensors headers; see safetensors.h.
 *
 * The header is one JSON object with a member a tensor. It is cut into its members here and each
 * member is given to the JSON parser alone: a hostile header of 256 MiB then costs no more memory
 * than its bytes and the tensors it truly describes.
 */
#include "weights/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#define TENSOR_ENTRY_MAX   ((size_t)64 << 10)
#define METADATA_ENTRY_MAX ((size_t)16 << 20)

/* One pass over the header's text. `begin` is where the JSON starts in the file's bytes. */
struct scan {
	struct header *h;
	char *text;
	size_t len, at;
	int file;
	uint64_t data_begin, data_bytes;
	struct tensor_table *tt;
};

static void skip_space(struct scan *s)
{
	while (s->at < s->len && s->text[s->at] && strchr(" \t\r\n", s->text[s->at]))
		s->at++;
}

static int bad_json(const struct scan *s, const char *why, struct err *e)
{
	return err_set(e, -EINVAL, "%s: header, byte %zu: %s: the file is damaged", s->h->path,
		       s->at + 8, why);
}

/* Moves past a string whose opening quote is at s->at. */
static bool skip_string(struct scan *s)
{
	for (s->at++; s->at < s->len; s->at++) {
		if (s->text[s->at] == '\\')
			s->at++;
		else if (s->text[s->at] == '"')
			return s->at++, true;
	}
	return false;
}

/* Moves past a value that is an object; nothing else is legal here. */
static bool skip_object(struct scan *s)
{
	int depth = 0;

	while (s->at < s->len) {
		switch (s->text[s->at]) {
		case '"':
			if (!skip_string(s))
				return false;
			continue;
		case '{':
		case '[':
			depth++;
			break;
		case '}':
		case ']':
			if (--depth == 0)
				return s->at++, true;
			break;
		}
		s->at++;
	}
	return false;
}

/* "shape" of tensor `name` -> t->dims. */
static int read_shape(const struct scan *s, const char *name, const json_t *shape,
		      struct tensor_info *t, struct err *e)
{
	if (!json_is_array(shape))
		return err_set(e, -EINVAL, "%s: tensor %s: shape is no array: the file is damaged",
			       s->h->path, name);
	if (json_array_size(shape) > TENSOR_MAX_DIMS)
		return err_set(e, -EINVAL,
			       "%s: tensor %s: shape has %zu dimensions: at most %d are supported",
			       s->h->path, name, json_array_size(shape), TENSOR_MAX_DIMS);
	t->n_dims = (int)json_array_size(shape);
	for (int i = 0; i < t->n_dims; i++) {
		const json_t *d = json_array_get(shape, (size_t)i);

		if (!json_is_integer(d) || json_integer_value(d) < 0)
			return err_set(e, -EINVAL,
				       "%s: tensor %s: shape[%d] is no non-negative integer: the "
				       "file is damaged",
				       s->h->path, name, i);
		t->dims[i] = json_integer_value(d);
	}
	return 0;
}

/* "data_offsets" -> t->offset, checked against dtype x shape and the data section. */
static int read_offsets(const struct scan *s, const char *name, const json_t *offsets,
			struct tensor_info *t, struct err *e)
{
	const json_t *jb = json_array_get(offsets, 0), *je = json_array_get(offsets, 1);
	char dims[256];
	json_int_t begin, end;

	if (json_array_size(offsets) != 2 || !json_is_integer(jb) || !json_is_integer(je))
		return err_set(
			e, -EINVAL,
			"%s: tensor %s: data_offsets is not [begin, end]: the file is damaged",
			s->h->path, name);
	begin = json_integer_value(jb);
	end = json_integer_value(je);
	if (begin < 0 || end < begin || (uint64_t)end > s->data_bytes)
		return err_set(e, -EINVAL,
			       "%s: tensor %s: data_offsets [%" JSON_INTEGER_FORMAT
			       ", %" JSON_INTEGER_FORMAT "] lie outside the file's %" PRIu64
			       " bytes of data: truncated or damaged: fetch it again",
			       s->h->path, name, begin, end, s->data_bytes);
	format_dims(dims, sizeof(dims), t->n_dims, t->dims);
	if (tensor_bytes(t->type, t->n_dims, t->dims, &t->bytes))
		return err_set(e, -EINVAL,
			       "%s: tensor %s: shape %s: impossible size: the file is damaged",
			       s->h->path, name, dims);
	if (t->bytes != (uint64_t)(end - begin))
		return err_set(e, -EINVAL,
			       "%s: tensor %s: data_offsets span %" PRIu64
			       " bytes, %s %s takes %" PRIu64 ": the file is damaged",
			       s->h->path, name, (uint64_t)(end - begin), dtype_info(t->type)->name,
			       dims, t->bytes);
	t->offset = s->data_begin + (uint64_t)begin;
	return 0;
}

static int add_tensor(struct scan *s, const char *name, const json_t *entry, struct err *e)
{
	const char *dtype = json_string_value(json_object_get(entry, "dtype")), *key;
	struct tensor_info t = {.name = name, .file = s->file};
	const struct dtype_info *d;
	json_t *value;
	int rc;

	if (!*name || !utf8_clean(name, strlen(name)))
		return bad_json(s, "empty tensor name", e);
	json_object_foreach ((json_t *)entry, key, value)
		if (strcmp(key, "dtype") && strcmp(key, "shape") && strcmp(key, "data_offsets"))
			return err_set(
				e, -EINVAL,
				"%s: tensor %s: unknown field \"%s\": written by a newer format?",
				s->h->path, name, key);
	if (!dtype)
		return err_set(e, -EINVAL, "%s: tensor %s: dtype is missing: the file is damaged",
			       s->h->path, name);
	d = dtype_by_name(dtype);
	if (!d)
		return err_set(
			e, -EOPNOTSUPP,
			"%s: tensor %s: dtype \"%s\" is unknown: convert the checkpoint to BF16",
			s->h->path, name, dtype);
	t.type = d->type;
	rc = read_shape(s, name, json_object_get(entry, "shape"), &t, e);
	if (!rc)
		rc = read_offsets(s, name, json_object_get(entry, "data_offsets"), &t, e);
	if (rc)
		return rc;
	rc = tensor_table_add(s->tt, &t, strlen(name));
	if (rc == -EEXIST) {
		const struct tensor_info *other = tensor_table_find(s->tt, name, strlen(name));

		return err_set(e, rc, "%s: tensor %s: duplicate name%s: the checkpoint is damaged",
			       s->h->path, name,
			       other->file == s->file ? "" : ", also in another shard");
	}
	if (rc == -E2BIG)
		return err_set(e, rc, "%s: over %" PRId64 " tensors: not a model file", s->h->path,
			       TENSORS_MAX);
	return rc ? err_set(e, rc, "%s: tensor %s: no memory", s->h->path, name) : 0;
}

static int check_metadata(const struct scan *s, const json_t *meta, struct err *e)
{
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)meta, key, value)
		if (!json_is_string(value))
			return err_set(e, -EINVAL,
				       "%s: __metadata__: \"%s\" is no string: the file is damaged",
				       s->h->path, key);
	return 0;
}

/*
 * The member at s->at: `"name" : { ... }`. It is parsed in place, as an object of its own: the
 * bytes before and after it are separators that have been, or are put, back.
 */
static int read_member(struct scan *s, bool *seen_metadata, struct err *e)
{
	size_t begin = s->at, max;
	char saved[2], name_head[16] = "";
	json_error_t je;
	json_t *one;
	const char *name;
	int rc;

	if (s->at >= s->len || s->text[s->at] != '"')
		return bad_json(s, "a tensor name was expected", e);
	if (!skip_string(s))
		return bad_json(s, "string without end", e);
	memcpy(name_head, s->text + begin,
	       s->at - begin < sizeof(name_head) ? s->at - begin : sizeof(name_head) - 1);
	skip_space(s);
	if (s->at >= s->len || s->text[s->at] != ':')
		return bad_json(s, "':' was expected", e);
	s->at++;
	skip_space(s);
	if (s->at >= s->len || s->text[s->at] != '{' || !skip_object(s) || s->at >= s->len)
		return bad_json(s, "an object was expected", e);
	max = !strcmp(name_head, "\"__metadata__\"") ? METADATA_ENTRY_MAX : TENSOR_ENTRY_MAX;
	if (s->at - begin > max)
		return bad_json(s, "a tensor's description is absurdly long", e);

	saved[0] = s->text[begin - 1];
	saved[1] = s->text[s->at];
	s->text[begin - 1] = '{';
	s->text[s->at] = '}';
	one = json_loadb(s->text + begin - 1, s->at - begin + 2, JSON_REJECT_DUPLICATES, &je);
	s->text[begin - 1] = saved[0];
	s->text[s->at] = saved[1];
	if (!one)
		return err_set(e, -EINVAL, "%s: header, byte %zu: %s: the file is damaged",
			       s->h->path,
			       begin - 1 + (size_t)(je.position > 0 ? je.position : 0) + 8,
			       je.text);
	name = json_object_iter_key(json_object_iter(one));
	if (json_object_size(one) != 1) {
		rc = bad_json(s, "',' was expected", e);
	} else if (strcmp(name, "__metadata__")) {
		rc = add_tensor(s, name, json_object_get(one, name), e);
	} else if (*seen_metadata) {
		rc = bad_json(s, "__metadata__ stands there twice", e);
	} else {
		*seen_metadata = true;
		rc = check_metadata(s, json_object_get(one, name), e);
	}
	json_decref(one);
	return rc;
}

static int read_members(struct scan *s, struct err *e)
{
	bool seen_metadata = false;

	/* The format wants '{' as the first byte. */
	if (s->text[0] != '{')
		return bad_json(s, "'{' was expected", e);
	s->at = 1;
	skip_space(s);
	if (s->at < s->len && s->text[s->at] == '}') {
		s->at++;
	} else {
		for (;;) {
			int rc = read_member(s, &seen_metadata, e);

			if (rc)
				return rc;
			skip_space(s);
			if (s->at >= s->len)
				return bad_json(s, "',' or '}' was expected", e);
			if (s->text[s->at] == '}')
				break;
			if (s->text[s->at] != ',')
				return bad_json(s, "',' or '}' was expected", e);
			s->at++;
			skip_space(s);
		}
		s->at++;
	}
	skip_space(s);
	return s->at == s->len ? 0 : bad_json(s, "bytes after the closing '}'", e);
}

int safetensors_read(struct header *h, int file, struct tensor_table *tt, struct err *e)
{
	struct scan s = {.h = h, .file = file, .tt = tt};
	int64_t first = tt->n;
	uint64_t n = 0;
	int rc;

	if (h->file_size < 8 + 2)
		return err_set(e, -EINVAL,
			       "%s: %" PRIu64 " bytes: too short for a safetensors file", h->path,
			       h->file_size);
	rc = header_need(h, 8, e);
	if (rc)
		return rc;
	for (int i = 7; i >= 0; i--)
		n = n << 8 | h->data[i];
	if (n > HEADER_MAX - 8)
		return err_set(e, -EINVAL,
			       "%s: header length %" PRIu64 " is absurd: not a safetensors file",
			       h->path, n);
	if (n < 2 || n > h->file_size - 8)
		return err_set(e, -EINVAL,
			       "%s: header length %" PRIu64 " does not fit the file's %" PRIu64
			       " bytes: truncated or damaged: fetch it again",
			       h->path, n, h->file_size);
	rc = header_need(h, 8 + n, e);
	if (rc)
		return rc;
	s.text = (char *)h->data + 8;
	s.len = (size_t)n;
	s.data_begin = 8 + n;
	s.data_bytes = h->file_size - s.data_begin;
	rc = read_members(&s, e);
	if (rc)
		return rc;
	return tensor_table_check_ranges(tt, first, h->path, true, s.data_begin, h->file_size, e);
}
