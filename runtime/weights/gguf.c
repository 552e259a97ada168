// SPDX-License-Identifier: MIT
/*
 * GGUF headers; see gguf.h.
 *
 * Everything is read through a cursor that asks the header for bytes before it looks at them, so
 * that no length in the file is believed before the file is known to be that long. Counts are
 * checked against the least number of bytes that many entries would take.
 */
#include "weights/gguf.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NAME_BYTES_MAX 1024u /* of a key or a tensor's name; the longest seen have 80 */
#define KEYS_MAX       8192u
#define GGUF_DIMS_MAX  4u
#define DEFAULT_ALIGN  32
#define ALIGN_MAX      (1 << 20)
/* A JSON value takes 30 times the byte it may stem from: beyond this, arrays stay in the header. */
#define JSON_ELEMENTS_MAX ((uint64_t)1 << 20)

enum {
	V_U8,
	V_I8,
	V_U16,
	V_I16,
	V_U32,
	V_I32,
	V_F32,
	V_BOOL,
	V_STRING,
	V_ARRAY,
	V_U64,
	V_I64,
	V_F64,
	V_END
};

/* Bytes of a value; strings: the least an element takes. */
static const uint8_t value_bytes[V_END] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};

struct cursor {
	struct header *h;
	uint64_t at;
};

/* Bytes at the cursor, which moves past them; NULL with a message if the file ends before. */
static const uint8_t *take(struct cursor *c, uint64_t n, struct err *e)
{
	const uint8_t *p;

	if (n > c->h->file_size - c->at) {
		err_set(e, -EINVAL,
			"%s: truncated: byte %" PRIu64 " of the header asks for %" PRIu64
			" more, the file has %" PRIu64 ": fetch it again",
			c->h->path, c->at, n, c->h->file_size);
		return NULL;
	}
	if (header_need(c->h, c->at + n, e))
		return NULL;
	p = c->h->data + c->at;
	c->at += n;
	return p;
}

static uint64_t little_endian(const uint8_t *p, int bytes)
{
	uint64_t v = 0;

	while (bytes--)
		v = v << 8 | p[bytes];
	return v;
}

static int take_u32(struct cursor *c, uint32_t *v, struct err *e)
{
	const uint8_t *p = take(c, 4, e);

	if (!p)
		return -EINVAL;
	*v = (uint32_t)little_endian(p, 4);
	return 0;
}

static int take_u64(struct cursor *c, uint64_t *v, struct err *e)
{
	const uint8_t *p = take(c, 8, e);

	if (!p)
		return -EINVAL;
	*v = little_endian(p, 8);
	return 0;
}

/* A string; *s points into the header and is good until the next take(). */
static int take_string(struct cursor *c, const char **s, uint64_t *len, struct err *e)
{
	const uint8_t *p;

	if (take_u64(c, len, e))
		return -EINVAL;
	p = take(c, *len, e);
	if (!p)
		return -EINVAL;
	*s = (const char *)p;
	return 0;
}

/* A key or tensor name, copied to buf with a NUL. */
static int take_name(struct cursor *c, const char *what, char buf[NAME_BYTES_MAX + 1],
		     struct err *e)
{
	const char *s;
	uint64_t len, at = c->at;

	if (take_string(c, &s, &len, e))
		return -EINVAL;
	if (!len || len > NAME_BYTES_MAX || !utf8_clean(s, len))
		return err_set(e, -EINVAL, "%s: byte %" PRIu64 ": %s is %s: the file is damaged",
			       c->h->path, at, what,
			       !len		      ? "empty"
			       : len > NAME_BYTES_MAX ? "absurdly long"
						      : "no UTF-8 text");
	memcpy(buf, s, len);
	buf[len] = 0;
	return 0;
}

/* A number of the given type as JSON; NULL if the type is none. */
static json_t *number_json(uint32_t type, const uint8_t *p)
{
	uint64_t u = little_endian(p, value_bytes[type]);
	uint32_t u32 = (uint32_t)u;
	double d;
	float f;

	switch (type) {
	case V_U8:
	case V_U16:
	case V_U32:
		return json_integer((json_int_t)u);
	case V_I8:
		return json_integer((int8_t)u);
	case V_I16:
		return json_integer((int16_t)u);
	case V_I32:
		return json_integer((int32_t)u);
	case V_I64:
		return json_integer((json_int_t)u);
	case V_U64:
		return u > INT64_MAX ? json_real((double)u) : json_integer((json_int_t)u);
	case V_BOOL:
		return json_boolean(u);
	case V_F32:
		memcpy(&f, &u32, sizeof(f));
		return isfinite(f) ? json_real(f) : json_null();
	case V_F64:
		memcpy(&d, &u, sizeof(d));
		return isfinite(d) ? json_real(d) : json_null();
	}
	return NULL;
}

static int bad_value(const struct cursor *c, const char *key, const char *why, struct err *e)
{
	return err_set(e, -EINVAL, "%s: key %s: %s: the file is damaged", c->h->path, key, why);
}

/* A scalar of `type` (no array) -> *out. */
static int take_scalar(struct cursor *c, const char *key, uint32_t type, json_t **out,
		       struct err *e)
{
	const uint8_t *p;
	const char *s;
	uint64_t len;

	if (type == V_STRING) {
		if (take_string(c, &s, &len, e))
			return err_prefix(e, -EINVAL, "key %s", key);
		if (!utf8_clean(s, len))
			return bad_value(c, key, "the string is no UTF-8 text", e);
		*out = json_stringn(s, len);
	} else {
		p = take(c, value_bytes[type], e);
		if (!p)
			return err_prefix(e, -EINVAL, "key %s", key);
		if (type == V_BOOL && *p > 1)
			return bad_value(c, key, "a bool is neither 0 nor 1", e);
		*out = number_json(type, p);
	}
	return *out ? 0 : err_set(e, -ENOMEM, "%s: key %s: no memory", c->h->path, key);
}

/* Moves over the elements of an array that stays in the header. */
static int skip_elements(struct cursor *c, const char *key, uint32_t type, uint64_t count,
			 struct err *e)
{
	const char *s;
	uint64_t len;

	if (type != V_STRING) {
		const uint8_t *p = take(c, count * value_bytes[type], e);

		if (!p)
			return err_prefix(e, -EINVAL, "key %s", key);
		for (uint64_t i = 0; type == V_BOOL && i < count; i++)
			if (p[i] > 1)
				return bad_value(c, key, "a bool is neither 0 nor 1", e);
		return 0;
	}
	for (uint64_t i = 0; i < count; i++)
		if (take_string(c, &s, &len, e))
			return err_prefix(e, -EINVAL, "key %s[%" PRIu64 "]", key, i);
	return 0;
}

static bool is_vocabulary(const char *key)
{
	static const char *const big[] = {"tokens", "scores", "token_type", "merges"};
	static const char prefix[] = "tokenizer.ggml.";

	if (strncmp(key, prefix, sizeof(prefix) - 1))
		return false;
	for (size_t i = 0; i < sizeof(big) / sizeof(big[0]); i++)
		if (!strcmp(key + sizeof(prefix) - 1, big[i]))
			return true;
	return false;
}

static int note_array(struct gguf_meta *m, const struct gguf_key_array *a)
{
	if (m->n_arrays == m->cap_arrays) {
		size_t cap = m->cap_arrays ? m->cap_arrays * 2 : 16;
		void *v = realloc(m->arrays, cap * sizeof(*m->arrays));

		if (!v)
			return -ENOMEM;
		m->arrays = v;
		m->cap_arrays = cap;
	}
	m->arrays[m->n_arrays++] = *a;
	return 0;
}

/* An array: always noted; also given as JSON (else *out is NULL) unless it is big. */
static int take_array(struct cursor *c, const char *key, struct gguf_meta *m, json_t **out,
		      struct err *e)
{
	struct gguf_key_array a = {.key = key};

	*out = NULL;
	if (take_u32(c, &a.type, e) || take_u64(c, &a.count, e))
		return err_prefix(e, -EINVAL, "key %s", key);
	if (a.type == V_ARRAY)
		return err_set(e, -EOPNOTSUPP, "%s: key %s: nested arrays are not supported",
			       c->h->path, key);
	if (a.type >= V_END)
		return bad_value(c, key, "unknown element type", e);
	if (a.count > (c->h->file_size - c->at) / value_bytes[a.type])
		return err_set(e, -EINVAL,
			       "%s: key %s: %" PRIu64
			       " elements do not fit the file: truncated or damaged",
			       c->h->path, key, a.count);
	a.offset = (size_t)c->at;
	if (note_array(m, &a))
		return err_set(e, -ENOMEM, "%s: key %s: no memory", c->h->path, key);
	if (is_vocabulary(key) || a.count > GGUF_JSON_ARRAY_MAX ||
	    a.count > JSON_ELEMENTS_MAX - m->json_elements)
		return skip_elements(c, key, a.type, a.count, e);
	m->json_elements += a.count;
	*out = json_array();
	if (!*out)
		return err_set(e, -ENOMEM, "%s: key %s: no memory", c->h->path, key);
	for (uint64_t i = 0; i < a.count; i++) {
		json_t *v;
		int rc = take_scalar(c, key, a.type, &v, e);

		if (!rc && json_array_append_new(*out, v))
			rc = err_set(e, -ENOMEM, "%s: key %s: no memory", c->h->path, key);
		if (rc) {
			json_decref(*out);
			*out = NULL;
			return rc;
		}
	}
	return 0;
}

static int take_key_value(struct cursor *c, struct gguf_meta *m, struct err *e)
{
	char name[NAME_BYTES_MAX + 1];
	const char *key;
	uint32_t type;
	json_t *v;
	int rc = take_name(c, "a metadata key", name, e);

	if (rc)
		return rc;
	key = strpool_add(&m->names, name, strlen(name));
	if (!key)
		return err_set(e, -ENOMEM, "%s: key %s: no memory", c->h->path, name);
	if (json_object_get(m->config, key) || gguf_meta_array(m, key))
		return bad_value(c, key, "stands there twice", e);
	if (take_u32(c, &type, e))
		return err_prefix(e, -EINVAL, "key %s", key);
	if (type >= V_END)
		return bad_value(c, key, "unknown value type", e);
	rc = type == V_ARRAY ? take_array(c, key, m, &v, e) : take_scalar(c, key, type, &v, e);
	if (rc)
		return rc;
	if (v && json_object_set_new_nocheck(m->config, key, v))
		return err_set(e, -ENOMEM, "%s: key %s: no memory", c->h->path, key);
	return 0;
}

/* One entry of the tensor list; its offset stays relative to the data section. */
static int take_tensor(struct cursor *c, int file, struct tensor_table *tt, uint64_t align,
		       struct err *e)
{
	char name[NAME_BYTES_MAX + 1], dims[128];
	struct tensor_info t = {.name = name, .file = file};
	const struct dtype_info *d;
	uint32_t n_dims, type;
	int rc = take_name(c, "a tensor name", name, e);

	if (rc)
		return rc;
	if (take_u32(c, &n_dims, e))
		return err_prefix(e, -EINVAL, "tensor %s", name);
	if (n_dims > GGUF_DIMS_MAX)
		return err_set(e, -EINVAL, "%s: tensor %s: %u dimensions: at most %u are legal",
			       c->h->path, name, n_dims, GGUF_DIMS_MAX);
	t.n_dims = (int)n_dims;
	for (int i = t.n_dims - 1; i >= 0; i--) {
		uint64_t ne;

		if (take_u64(c, &ne, e))
			return err_prefix(e, -EINVAL, "tensor %s", name);
		if (ne > INT64_MAX)
			return err_set(e, -EINVAL,
				       "%s: tensor %s: a dimension is absurd: the file is damaged",
				       c->h->path, name);
		t.dims[i] = (int64_t)ne;
	}
	if (take_u32(c, &type, e) || take_u64(c, &t.offset, e))
		return err_prefix(e, -EINVAL, "tensor %s", name);
	/* Numbers from 100 on are dtype.h's own. */
	d = type < 100 ? dtype_info((int)type) : NULL;
	if (!d)
		return err_set(e, -EOPNOTSUPP,
			       "%s: tensor %s: type %u is unknown: use a file in Q8_0 or BF16",
			       c->h->path, name, type);
	t.type = d->type;
	if (tensor_bytes(t.type, t.n_dims, t.dims, &t.bytes))
		return err_set(e, -EINVAL,
			       "%s: tensor %s: %s %s: impossible size: the file is damaged",
			       c->h->path, name, d->name,
			       format_dims(dims, sizeof(dims), t.n_dims, t.dims));
	if (t.offset % align)
		return err_set(e, -EINVAL,
			       "%s: tensor %s: offset %" PRIu64
			       " is no multiple of the alignment %" PRIu64 ": the file is damaged",
			       c->h->path, name, t.offset, align);
	rc = tensor_table_add(tt, &t, strlen(name));
	if (!rc)
		return 0;
	return err_set(e, rc, "%s: tensor %s: %s", c->h->path, name,
		       rc == -EEXIST  ? "duplicate name: the checkpoint is damaged"
		       : rc == -E2BIG ? "too many tensors: not a model file"
				      : "no memory");
}

static int read_alignment(const struct cursor *c, const struct gguf_meta *m, uint64_t *align,
			  struct err *e)
{
	int64_t a = gguf_meta_int(m, "general.alignment", DEFAULT_ALIGN);

	if (a <= 0 || a > ALIGN_MAX || (a & (a - 1)))
		return bad_value(c, "general.alignment", "no power of two between 1 and 1 MiB", e);
	*align = (uint64_t)a;
	return 0;
}

/* Offsets become absolute; each range must lie in the file. */
static int place_tensors(struct cursor *c, struct tensor_table *tt, int64_t first, uint64_t align,
			 struct err *e)
{
	uint64_t aligned = (c->at + align - 1) & ~(align - 1);
	/* A file without data may end before the padding: empty tensors then lie at its end. */
	uint64_t data = aligned < c->h->file_size ? aligned : c->h->file_size;
	uint64_t room = c->h->file_size - data;

	for (int64_t i = first; i < tt->n; i++) {
		struct tensor_info *t = &tt->v[i];

		if (t->offset > room || t->bytes > room - t->offset)
			return err_set(e, -EINVAL,
				       "%s: tensor %s: its %" PRIu64 " bytes at %" PRIu64
				       " lie outside the file's %" PRIu64
				       " bytes of data: truncated or damaged: fetch it again",
				       c->h->path, t->name, t->bytes, t->offset, room);
		t->offset += data;
	}
	return tensor_table_check_ranges(tt, first, c->h->path, false, data, c->h->file_size, e);
}

/* magic, version, counts. */
static int read_counts(struct cursor *c, uint64_t *n_tensors, uint64_t *n_keys, struct err *e)
{
	const uint8_t *p = take(c, 24, e);
	uint32_t version;

	if (!p)
		return -EINVAL;
	if (memcmp(p, "GGUF", 4))
		return err_set(e, -EINVAL, "%s: not a GGUF file (no GGUF magic)", c->h->path);
	version = (uint32_t)little_endian(p + 4, 4);
	if (version != 2 && version != 3)
		return err_set(e, -EOPNOTSUPP,
			       "%s: GGUF version %s is not supported: convert it to version 3",
			       c->h->path,
			       version == 1 ? "1"
			       : version == __builtin_bswap32(3) || version == __builtin_bswap32(2)
				       ? "in big endian"
				       : "unknown");
	*n_tensors = little_endian(p + 8, 8);
	*n_keys = little_endian(p + 16, 8);
	/* 13: empty key, type, one byte; 25: one-letter name, n_dims, type, offset. */
	if (*n_keys > KEYS_MAX || *n_keys > c->h->file_size / 13)
		return err_set(e, -EINVAL,
			       "%s: %" PRIu64 " metadata keys are absurd: the file is damaged",
			       c->h->path, *n_keys);
	if (*n_tensors > (uint64_t)TENSORS_MAX || *n_tensors > c->h->file_size / 25)
		return err_set(e, -EINVAL,
			       "%s: %" PRIu64 " tensors are absurd: the file is damaged",
			       c->h->path, *n_tensors);
	return 0;
}

int gguf_read(struct header *h, int file, struct tensor_table *tt, struct gguf_meta *m,
	      struct err *e)
{
	struct cursor c = {.h = h};
	int64_t first = tt->n;
	uint64_t n_keys = 0, align = DEFAULT_ALIGN;
	int rc;

	*m = (struct gguf_meta){.config = json_object()};
	if (!m->config)
		return err_set(e, -ENOMEM, "%s: no memory", h->path);
	rc = read_counts(&c, &m->n_tensors, &n_keys, e);
	for (uint64_t i = 0; i < n_keys && !rc; i++)
		rc = take_key_value(&c, m, e);
	if (!rc)
		rc = read_alignment(&c, m, &align, e);
	for (uint64_t i = 0; i < m->n_tensors && !rc; i++)
		rc = take_tensor(&c, file, tt, align, e);
	if (rc)
		return rc;
	/* Reads run ahead by up to twice the header. */
	header_trim(h, (size_t)c.at);
	return place_tensors(&c, tt, first, align, e);
}

void gguf_meta_free(struct gguf_meta *m)
{
	json_decref(m->config);
	free(m->arrays);
	strpool_free(&m->names);
	*m = (struct gguf_meta){0};
}

const struct gguf_key_array *gguf_meta_array(const struct gguf_meta *m, const char *key)
{
	for (size_t i = 0; i < m->n_arrays; i++)
		if (!strcmp(m->arrays[i].key, key))
			return &m->arrays[i];
	return NULL;
}

int64_t gguf_meta_int(const struct gguf_meta *m, const char *key, int64_t missing)
{
	const json_t *v = json_object_get(m->config, key);

	if (!v)
		return missing;
	return json_is_integer(v) ? json_integer_value(v) : -1;
}
