// SPDX-License-Identifier: MIT
/* The GGUF reader: what it reads, and that each kind of damage is refused by name. */
#include <errno.h>
#include <string.h>

#include "tests/tap.h"
#include "tests/unit/weights_files.h"
#include "weights/gguf.h"

enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 };

/* Reads a file given as bytes; returns the reader's answer. The header stays in *h. */
static int read_bytes(const struct bytes *b, struct header *h, struct tensor_table *tt,
		      struct gguf_meta *m, struct err *e)
{
	*h = (struct header){.path = "t.gguf",
			     .data = malloc(b->n ? b->n : 1),
			     .have = b->n,
			     .file_size = b->n,
			     .fd = -1};
	if (b->n)
		memcpy(h->data, b->p, b->n);
	*tt = (struct tensor_table){0};
	*m = (struct gguf_meta){0};
	e->msg[0] = 0;
	return gguf_read(h, 0, tt, m, e);
}

static void drop(struct header *h, struct tensor_table *tt, struct gguf_meta *m)
{
	free(h->data);
	tensor_table_free(tt);
	gguf_meta_free(m);
}

static void key(struct bytes *b, const char *name, uint32_t type)
{
	add_str(b, name);
	add_u32(b, type);
}

static const json_t *get(const struct gguf_meta *m, const char *name)
{
	return json_object_get(m->config, name);
}

static void values(void)
{
	struct bytes b = {0};
	struct header h;
	struct tensor_table tt;
	struct gguf_meta m;
	struct err e;
	float f = 1.5f;
	double d = 1e-6;
	const struct gguf_key_array *a;

	add_gguf(&b, 3, 0, 18);
	key(&b, "u8", U8), add(&b, "\xff", 1);
	key(&b, "i8", I8), add(&b, "\xff", 1);
	key(&b, "u16", U16), add(&b, "\xfe\xff", 2);
	key(&b, "i16", I16), add(&b, "\xfe\xff", 2);
	key(&b, "u32", U32), add_u32(&b, 0xfffffffd);
	key(&b, "i32", I32), add_u32(&b, 0xfffffffd);
	key(&b, "f32", F32), add(&b, &f, 4);
	key(&b, "yes", BOOL), add(&b, "\1", 1);
	key(&b, "text", STRING), add_str(&b, "caf\xc3\xa9");
	key(&b, "u64", U64), add_u64(&b, UINT64_MAX);
	key(&b, "i64", I64), add_u64(&b, (uint64_t)-5);
	key(&b, "f64", F64), add(&b, &d, 8);
	f = 1.0f / 0.0f;
	key(&b, "inf", F32), add(&b, &f, 4);
	key(&b, "list", ARRAY), add_u32(&b, I32), add_u64(&b, 3);
	add_u32(&b, 1), add_u32(&b, 2), add_u32(&b, (uint32_t)-3);
	key(&b, "words", ARRAY), add_u32(&b, STRING), add_u64(&b, 2);
	add_str(&b, "a"), add_str(&b, "");
	key(&b, "none", ARRAY), add_u32(&b, U8), add_u64(&b, 0);
	key(&b, "tokenizer.ggml.tokens", ARRAY), add_u32(&b, STRING), add_u64(&b, 2);
	add_str(&b, "\xff\xfe"), add_str(&b, "b");
	key(&b, "big", ARRAY), add_u32(&b, U8), add_u64(&b, GGUF_JSON_ARRAY_MAX + 1);
	add_zeros(&b, GGUF_JSON_ARRAY_MAX + 1);

	CHECK(read_bytes(&b, &h, &tt, &m, &e) == 0, "all value types are read (%s)", e.msg);
	CHECK(json_integer_value(get(&m, "u8")) == 255 && json_integer_value(get(&m, "i8")) == -1,
	      "u8 and i8");
	CHECK(json_integer_value(get(&m, "u16")) == 65534 &&
		      json_integer_value(get(&m, "i16")) == -2,
	      "u16 and i16");
	CHECK(json_integer_value(get(&m, "u32")) == 4294967293 &&
		      json_integer_value(get(&m, "i32")) == -3,
	      "u32 and i32");
	CHECK(json_real_value(get(&m, "f32")) == 1.5 && json_real_value(get(&m, "f64")) == 1e-6,
	      "f32 and f64");
	CHECK(json_is_true(get(&m, "yes")), "bool");
	CHECK(!strcmp(json_string_value(get(&m, "text")), "caf\xc3\xa9"), "string");
	CHECK(json_is_real(get(&m, "u64")) && json_integer_value(get(&m, "i64")) == -5,
	      "u64 and i64");
	CHECK(json_is_null(get(&m, "inf")), "infinity is null");
	CHECK(json_array_size(get(&m, "list")) == 3 &&
		      json_integer_value(json_array_get(get(&m, "list"), 2)) == -3,
	      "array of integers");
	CHECK(json_array_size(get(&m, "words")) == 2 && json_array_size(get(&m, "none")) == 0 &&
		      json_is_array(get(&m, "none")),
	      "array of strings, empty array");
	CHECK(!get(&m, "tokenizer.ggml.tokens") && !get(&m, "big"), "big arrays are not copied");
	a = gguf_meta_array(&m, "tokenizer.ggml.tokens");
	REQUIRE(a && a->count == 2 && a->type == STRING, "the vocabulary is found");
	CHECK(!memcmp(h.data + a->offset, "\2\0\0\0\0\0\0\0\xff\xfe\1", 11), "in its place");
	a = gguf_meta_array(&m, "list");
	CHECK(a && a->count == 3, "small arrays are found as well");
	drop(&h, &tt, &m);
	free(b.p);
}

static void tensors(void)
{
	struct bytes b = {0};
	struct header h;
	struct tensor_table tt;
	struct gguf_meta m;
	struct err e;
	const struct tensor_info *t;
	size_t data;

	add_gguf(&b, 3, 3, 1);
	key(&b, "general.alignment", U32), add_u32(&b, 64);
	add_tensor(&b, "w", 64, 3, DTYPE_Q8_0, 0);
	add_tensor(&b, "v", 5, 0, DTYPE_F32, 256);
	add_tensor(&b, "odd", 256, 2, 13, 320);
	pad_to(&b, 64);
	data = b.n;
	add_zeros(&b, 320 + 2 * 176);
	CHECK(read_bytes(&b, &h, &tt, &m, &e) == 0, "tensors are read (%s)", e.msg);
	t = tensor_table_find(&tt, "w", 1);
	CHECK(t && t->type == DTYPE_Q8_0 && t->n_dims == 2 && t->dims[0] == 3 && t->dims[1] == 64 &&
		      t->bytes == 3 * 68 && t->offset == data,
	      "dimensions slowest first, offset absolute");
	t = tensor_table_find(&tt, "v", 1);
	CHECK(t && t->n_dims == 1 && t->bytes == 20 && t->offset == data + 256, "a vector");
	t = tensor_table_find(&tt, "odd", 3);
	CHECK(t && !dtype_info(t->type)->weight && !strcmp(dtype_info(t->type)->name, "Q5_K"),
	      "a type without kernels keeps its name");
	drop(&h, &tt, &m);
	free(b.p);
}

/* One tensor "w" with these fields in a file with `data` bytes of data. */
static int one_tensor(struct err *e, uint32_t n_dims, uint64_t ne0, uint64_t ne1, uint32_t type,
		      uint64_t offset, size_t data)
{
	struct bytes b = {0};
	struct header h;
	struct tensor_table tt;
	struct gguf_meta m;
	int rc;

	add_gguf(&b, 3, 1, 0);
	add_str(&b, "w");
	add_u32(&b, n_dims);
	for (uint32_t i = 0; i < n_dims && i < 5; i++)
		add_u64(&b, i == 0 ? ne0 : i == 1 ? ne1 : 1);
	add_u32(&b, type);
	add_u64(&b, offset);
	pad_to(&b, 32);
	add_zeros(&b, data);
	rc = read_bytes(&b, &h, &tt, &m, e);
	drop(&h, &tt, &m);
	free(b.p);
	return rc;
}

static void bad_tensors(void)
{
	struct err e;

	CHECK(one_tensor(&e, 2, 32, 2, DTYPE_F32, 0, 256) == 0, "the good one (%s)", e.msg);
#define REFUSED(what, says, ...)                                                                   \
	CHECK(one_tensor(&e, __VA_ARGS__) < 0 && strstr(e.msg, "t.gguf: tensor w: ") &&            \
		      strstr(e.msg, says),                                                         \
	      "refused: %s (%s)", what, e.msg)
	REFUSED("one byte short", "outside", 2, 32, 2, DTYPE_F32, 0, 255);
	REFUSED("offset behind the end", "outside", 2, 32, 2, DTYPE_F32, 1u << 20, 256);
	REFUSED("offset that wraps", "outside", 2, 32, 2, DTYPE_F32, UINT64_MAX - 31, 256);
	REFUSED("unaligned offset", "alignment", 2, 32, 2, DTYPE_F32, 4, 300);
	REFUSED("unknown type", "type 99", 2, 32, 2, 99, 0, 256);
	REFUSED("a type of ours, not ggml's", "type 100", 2, 32, 2, 100, 0, 256);
	REFUSED("half a block", "impossible size", 2, 48, 2, DTYPE_Q8_0, 0, 256);
	REFUSED("dimension over 63 bits", "absurd", 2, UINT64_MAX, 1, DTYPE_F32, 0, 256);
	REFUSED("product that wraps", "impossible size", 2, (uint64_t)1 << 62, 16, DTYPE_F32, 0,
		256);
	REFUSED("five dimensions", "5 dimensions", 5, 32, 2, DTYPE_F32, 0, 256);
	REFUSED("4 G dimensions", "dimensions", UINT32_MAX, 32, 2, DTYPE_F32, 0, 256);
#undef REFUSED
}

/* A metadata section given by `fill` must be refused with `says`. */
static void refused(const char *what, const char *says, uint64_t tensor_count, uint64_t key_count,
		    const struct bytes *rest)
{
	struct bytes b = {0};
	struct header h;
	struct tensor_table tt;
	struct gguf_meta m;
	struct err e;
	int rc;

	add_gguf(&b, 3, tensor_count, key_count);
	if (rest->n)
		add(&b, rest->p, rest->n);
	rc = read_bytes(&b, &h, &tt, &m, &e);
	CHECK(rc < 0 && strstr(e.msg, "t.gguf: ") && strstr(e.msg, says), "refused: %s (%s)", what,
	      e.msg);
	drop(&h, &tt, &m);
	free(b.p);
}

static void bad_metadata(void)
{
	struct bytes r = {0};

	refused("more keys than bytes", "metadata keys are absurd", 0, 1000, &r);
	refused("2^64-1 keys", "metadata keys are absurd", 0, UINT64_MAX, &r);
	refused("2^64-1 tensors", "tensors are absurd", UINT64_MAX, 0, &r);
	add_zeros(&r, 100);
	refused("empty key", "empty", 0, 1, &r);
	r.n = 0, add_u64(&r, UINT64_MAX), add_zeros(&r, 100);
	refused("key of 2^64-1 bytes", "truncated", 0, 1, &r);
	r.n = 0, add_u64(&r, 2000), add_zeros(&r, 3000);
	refused("key of 2,000 bytes", "absurdly long", 0, 1, &r);
	r.n = 0, add_u64(&r, 2), add(&r, "\xc3(", 2), add_zeros(&r, 20);
	refused("key that is no UTF-8", "UTF-8", 0, 1, &r);
	r.n = 0, add_u64(&r, 2), add(&r, "a\0", 2), add_zeros(&r, 20);
	refused("key with a NUL", "UTF-8", 0, 1, &r);
	r.n = 0, key(&r, "k", 13), add_zeros(&r, 20);
	refused("unknown value type", "key k: unknown value type", 0, 1, &r);
	r.n = 0, key(&r, "k", ARRAY), add_u32(&r, ARRAY), add_u64(&r, 1), add_zeros(&r, 20);
	refused("nested array", "key k: nested", 0, 1, &r);
	r.n = 0, key(&r, "k", ARRAY), add_u32(&r, 13), add_u64(&r, 1), add_zeros(&r, 20);
	refused("array of unknown type", "key k", 0, 1, &r);
	r.n = 0, key(&r, "k", ARRAY), add_u32(&r, U64), add_u64(&r, (uint64_t)1 << 61),
	add_zeros(&r, 20);
	refused("array whose bytes wrap", "key k: ", 0, 1, &r);
	r.n = 0, key(&r, "k", ARRAY), add_u32(&r, STRING), add_u64(&r, 3), add_str(&r, "a"),
	add_zeros(&r, 16);
	add_u64(&r, 1u << 30);
	refused("key k[2] of 1 GiB", "truncated", 0, 2, &r);
	r.n = 0, key(&r, "k", BOOL), add(&r, "\2", 1), add_zeros(&r, 20);
	refused("bool of 2", "key k: a bool", 0, 1, &r);
	r.n = 0, key(&r, "k", STRING), add_str(&r, "\xff"), add_zeros(&r, 20);
	refused("string that is no UTF-8", "key k: the string", 0, 1, &r);
	r.n = 0, key(&r, "k", U8), add(&r, "\1", 1), key(&r, "k", U8), add(&r, "\1", 1),
	add_zeros(&r, 20);
	refused("key twice", "key k: stands there twice", 0, 2, &r);
	r.n = 0, key(&r, "k", ARRAY), add_u32(&r, U8), add_u64(&r, 0), key(&r, "k", U8),
	add_zeros(&r, 20);
	refused("array and value of one name", "key k: stands there twice", 0, 2, &r);
	r.n = 0, key(&r, "general.alignment", U32), add_u32(&r, 0), add_zeros(&r, 20);
	refused("alignment 0", "general.alignment", 0, 1, &r);
	r.n = 0, key(&r, "general.alignment", U32), add_u32(&r, 48), add_zeros(&r, 20);
	refused("alignment 48", "general.alignment", 0, 1, &r);
	r.n = 0, key(&r, "general.alignment", STRING), add_str(&r, "32"), add_zeros(&r, 20);
	refused("alignment as text", "general.alignment", 0, 1, &r);
	r.n = 0, add_tensor(&r, "w", 4, 0, 0, 0), add_tensor(&r, "w", 4, 0, 0, 32),
	add_zeros(&r, 100);
	refused("tensor twice", "tensor w: duplicate", 2, 0, &r);
	r.n = 0, add_tensor(&r, "a", 16, 0, 0, 0), add_tensor(&r, "b", 16, 0, 0, 32),
	add_zeros(&r, 200);
	refused("overlapping tensors", "tensor b: overlaps a", 2, 0, &r);
	free(r.p);
}

static void versions(void)
{
	static const struct {
		uint32_t version;
		int rc;
		const char *says;
	} v[] = {{1, -EOPNOTSUPP, "version 1"},
		 {2, 0, ""},
		 {3, 0, ""},
		 {4, -EOPNOTSUPP, "unknown"},
		 {0x03000000, -EOPNOTSUPP, "big endian"}};
	struct header h;
	struct tensor_table tt;
	struct gguf_meta m;
	struct err e;

	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		struct bytes b = {0};

		add_gguf(&b, v[i].version, 0, 0);
		CHECK(read_bytes(&b, &h, &tt, &m, &e) == v[i].rc && strstr(e.msg, v[i].says),
		      "version 0x%x gives %d (%s)", v[i].version, v[i].rc, e.msg);
		drop(&h, &tt, &m);
		b.p[0] = 'X';
		CHECK(read_bytes(&b, &h, &tt, &m, &e) < 0 && strstr(e.msg, "magic"), "wrong magic");
		drop(&h, &tt, &m);
		free(b.p);
	}
}

static void truncated(void)
{
	struct bytes b = {0};
	struct header h;
	struct tensor_table tt;
	struct gguf_meta m;
	struct err e;
	size_t whole;
	int n = 0;

	add_gguf(&b, 3, 2, 2);
	key(&b, "a", STRING), add_str(&b, "text");
	key(&b, "tokenizer.ggml.merges", ARRAY), add_u32(&b, STRING), add_u64(&b, 2);
	add_str(&b, "x y"), add_str(&b, "z");
	add_tensor(&b, "w", 32, 2, DTYPE_Q4_0, 0);
	add_tensor(&b, "v", 4, 0, DTYPE_F32, 64);
	pad_to(&b, 32);
	add_zeros(&b, 64 + 16);
	whole = b.n;
	CHECK(read_bytes(&b, &h, &tt, &m, &e) == 0, "whole (%s)", e.msg);
	drop(&h, &tt, &m);
	for (b.n = 0; b.n < whole; b.n++) {
		n += read_bytes(&b, &h, &tt, &m, &e) < 0;
		drop(&h, &tt, &m);
	}
	CHECK(n == (int)whole, "%d of %zu truncations are refused", n, whole);
	free(b.p);
}

/* A file that ends with its header, without padding, may still hold a tensor of no bytes. */
static void no_data(void)
{
	struct bytes b = {0};
	struct header h;
	struct tensor_table tt;
	struct gguf_meta m;
	struct err e;

	add_gguf(&b, 3, 1, 0);
	add_tensor(&b, "none", 0, 0, DTYPE_F32, 0);
	REQUIRE(b.n % 32 != 0, "the header needs padding");
	CHECK(read_bytes(&b, &h, &tt, &m, &e) == 0 && tt.n == 1 && tt.v[0].offset <= b.n &&
		      !tt.v[0].bytes,
	      "an empty tensor lies inside the file (%s)", e.msg);
	drop(&h, &tt, &m);
	free(b.p);
}

/* Many mid-sized arrays would take 30 times their bytes as JSON: the total is bounded. */
static void json_budget(void)
{
	struct bytes b = {0};
	struct header h;
	struct tensor_table tt;
	struct gguf_meta m;
	struct err e;
	const int keys = 40;

	add_gguf(&b, 3, 0, (uint64_t)keys);
	for (int i = 0; i < keys; i++) {
		char name[16];

		snprintf(name, sizeof(name), "k%d", i);
		key(&b, name, ARRAY), add_u32(&b, U8), add_u64(&b, GGUF_JSON_ARRAY_MAX);
		add_zeros(&b, GGUF_JSON_ARRAY_MAX);
	}
	CHECK(read_bytes(&b, &h, &tt, &m, &e) == 0, "40 arrays of 65,536 (%s)", e.msg);
	CHECK(json_object_size(m.config) == 16 && m.n_arrays == (size_t)keys,
	      "a million elements are copied, all are found");
	drop(&h, &tt, &m);
	free(b.p);
}

int main(void)
{
	values();
	tensors();
	bad_tensors();
	bad_metadata();
	versions();
	truncated();
	json_budget();
	no_data();
	return tap_done();
}
