// SPDX-License-Identifier: MIT
/* The safetensors reader: what it reads, and that each kind of damage is refused by name. */
#include <errno.h>
#include <string.h>

#include "tests/tap.h"
#include "tests/unit/weights_files.h"
#include "weights/header.h"
#include "weights/safetensors.h"

/* Reads a file given as bytes; returns the reader's answer. */
static int read_bytes(const struct bytes *b, struct tensor_table *tt, struct err *e)
{
	struct header h = {.path = "t.safetensors",
			   .data = malloc(b->n ? b->n : 1),
			   .have = b->n,
			   .file_size = b->n,
			   .fd = -1};
	int rc;

	if (b->n)
		memcpy(h.data, b->p, b->n);
	*tt = (struct tensor_table){0};
	e->msg[0] = 0;
	rc = safetensors_read(&h, 0, tt, e);
	free(h.data);
	return rc;
}

static void reads(void)
{
	static const char header[] =
		"{\"__metadata__\":{\"format\":\"pt\"},"
		" \"b\" : {\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[4,16]}, "
		"\"a\\u00e9\":{\"shape\":[],\"dtype\":\"F32\",\"data_offsets\":[0,4]},"
		"\"empty\":{\"dtype\":\"I64\",\"shape\":[0,7],\"data_offsets\":[4,4]},"
		"\"five\":{\"dtype\":\"U8\",\"shape\":[1,1,2,1,1],\"data_offsets\":[16,18]}}   ";
	struct bytes b = {0};
	struct tensor_table tt;
	const struct tensor_info *t;
	struct err e;
	size_t data = 8 + sizeof(header) - 1;

	add_safetensors(&b, header, 18);
	REQUIRE(read_bytes(&b, &tt, &e) == 0, "a good file is read (%s)", e.msg);
	CHECK(tt.n == 4, "four tensors");
	t = tensor_table_find(&tt, "b", 1);
	CHECK(t && t->type == DTYPE_BF16 && t->n_dims == 2 && t->dims[0] == 2 && t->dims[1] == 3 &&
		      t->bytes == 12 && t->offset == data + 4,
	      "b has type, shape and place");
	t = tensor_table_find(&tt, "a\xc3\xa9", 3);
	CHECK(t && t->n_dims == 0 && t->bytes == 4,
	      "a scalar whose name is written with an escape");
	t = tensor_table_find(&tt, "empty", 5);
	CHECK(t && t->bytes == 0, "a tensor without elements");
	t = tensor_table_find(&tt, "five", 4);
	CHECK(t && t->n_dims == 5, "five dimensions");
	CHECK(!tensor_table_find(&tt, "five", 3), "no prefix matches");
	tensor_table_free(&tt);
	free(b.p);
}

#define ENTRY(name, dtype, shape, offsets)                                                         \
	"\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void refuses(void)
{
	static const struct {
		const char *what, *header;
		size_t data;
		const char *says; /* must stand in the message */
	} bad[] = {
		{"wrong size", "{" ENTRY("x", "F32", "[2]", "[0,4]") "}", 4,
		 "tensor x: data_offsets"},
		{"unknown dtype", "{" ENTRY("x", "F31", "[1]", "[0,4]") "}", 4, "dtype \"F31\""},
		{"GGUF's dtype", "{" ENTRY("x", "Q8_0", "[32]", "[0,34]") "}", 34,
		 "dtype \"Q8_0\""},
		{"range behind the end", "{" ENTRY("x", "F32", "[2]", "[0,8]") "}", 4, "tensor x"},
		{"backward range", "{" ENTRY("x", "F32", "[1]", "[8,4]") "}", 8, "tensor x"},
		{"negative offset", "{" ENTRY("x", "F32", "[1]", "[-4,0]") "}", 4, "tensor x"},
		{"huge offset", "{" ENTRY("x", "F32", "[1]", "[0,99999999999999999999]") "}", 4,
		 "header, byte"},
		{"overlap",
		 "{" ENTRY("x", "U8", "[4]", "[0,4]") "," ENTRY("y", "U8", "[4]", "[2,6]") "}", 6,
		 "overlaps"},
		{"same range twice",
		 "{" ENTRY("x", "U8", "[4]", "[0,4]") "," ENTRY("y", "U8", "[4]", "[0,4]") "}", 4,
		 "overlaps"},
		{"hole",
		 "{" ENTRY("x", "U8", "[4]", "[0,4]") "," ENTRY("y", "U8", "[4]", "[5,9]") "}", 9,
		 "belong to no tensor"},
		{"bytes at the end", "{" ENTRY("x", "U8", "[4]", "[0,4]") "}", 5,
		 "belong to no tensor"},
		{"duplicate",
		 "{" ENTRY("x", "U8", "[4]", "[0,4]") "," ENTRY("x", "U8", "[4]", "[4,8]") "}", 8,
		 "tensor x: duplicate"},
		{"duplicate by escape",
		 "{" ENTRY("x", "U8", "[4]", "[0,4]") "," ENTRY("\\u0078", "U8", "[4]",
								"[4,8]") "}",
		 8, "tensor x: duplicate"},
		{"duplicate field",
		 "{\"x\":{\"dtype\":\"U8\",\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
		 1, "duplicate"},
		{"unknown field",
		 "{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"z\":1}}", 1,
		 "\"z\""},
		{"no dtype", "{\"x\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
		 "dtype is missing"},
		{"no shape", "{\"x\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "shape"},
		{"no offsets", "{\"x\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "data_offsets"},
		{"three offsets", "{" ENTRY("x", "U8", "[1]", "[0,1,2]") "}", 1, "data_offsets"},
		{"negative dimension", "{" ENTRY("x", "U8", "[-1]", "[0,1]") "}", 1, "shape[0]"},
		{"real dimension", "{" ENTRY("x", "U8", "[1.0]", "[0,1]") "}", 1, "shape[0]"},
		{"overflowing shape",
		 "{" ENTRY("x", "U8", "[4294967296,4294967296,4294967296]", "[0,1]") "}", 1,
		 "impossible size"},
		{"wrapping shape", "{" ENTRY("x", "F32", "[4611686018427387905]", "[0,4]") "}", 4,
		 "impossible size"},
		{"nine dimensions", "{" ENTRY("x", "U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") "}", 1,
		 "9 dimensions"},
		{"odd number of nibbles", "{" ENTRY("x", "F4", "[3]", "[0,2]") "}", 2,
		 "impossible size"},
		{"tensor is no object", "{\"x\":3}", 0, "an object was expected"},
		{"array instead of object", "{\"x\":[1]}", 0, "an object was expected"},
		{"no object at all", "[1]", 0, "'{' was expected"},
		{"leading space", " {}", 0, "'{' was expected"},
		{"no end", "{" ENTRY("x", "U8", "[1]", "[0,1]"), 1, "expected"},
		{"string without end", "{\"x", 0, "string without end"},
		{"string ending in a backslash", "{\"x\\", 0, "string without end"},
		{"brackets that do not match", "{\"x\":{]}", 0, "expected"},
		{"something behind", "{} {}", 0, "after the closing"},
		{"trailing comma", "{" ENTRY("x", "U8", "[1]", "[0,1]") ",}", 1,
		 "name was expected"},
		{"two colons", "{\"x\"::{}}", 0, "object was expected"},
		{"metadata is no map of strings", "{\"__metadata__\":{\"a\":1}}", 0,
		 "__metadata__"},
		{"metadata twice", "{\"__metadata__\":{},\"__metadata__\":{}}", 0, "twice"},
		{"bad UTF-8 in a name",
		 "{\"\xff\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0,
		 "unable to decode byte 0xff"},
		{"NUL in a name",
		 "{\"a\\u0000\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0,
		 "header"},
		{"empty name", "{\"\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0,
		 "empty tensor name"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct bytes b = {0};
		struct tensor_table tt;
		struct err e;
		int rc;

		add_safetensors(&b, bad[i].header, bad[i].data);
		rc = read_bytes(&b, &tt, &e);
		CHECK(rc < 0 && strstr(e.msg, "t.safetensors: ") == e.msg &&
			      strstr(e.msg, bad[i].says),
		      "refused: %s (%d %s)", bad[i].what, rc, e.msg);
		tensor_table_free(&tt);
		free(b.p);
	}
}

static void lengths(void)
{
	static const uint64_t lie[] = {
		0, 1, 3, 100, (uint64_t)1 << 28, (uint64_t)1 << 40, UINT64_MAX - 8, UINT64_MAX};
	struct tensor_table tt;
	struct err e;

	for (size_t i = 0; i < sizeof(lie) / sizeof(lie[0]); i++) {
		struct bytes b = {0};

		add_u64(&b, lie[i]);
		add(&b, "{}", 2);
		CHECK(read_bytes(&b, &tt, &e) < 0, "header length %llu is refused (%s)",
		      (unsigned long long)lie[i], e.msg);
		tensor_table_free(&tt);
		free(b.p);
	}
	for (size_t n = 0; n < 10; n++) {
		struct bytes b = {0};

		add_zeros(&b, n);
		CHECK(read_bytes(&b, &tt, &e) < 0, "%zu bytes are refused (%s)", n, e.msg);
		tensor_table_free(&tt);
		free(b.p);
	}
}

/* Every cut of a good file must be refused, without reading past it (ASan watches). */
static void truncated(void)
{
	struct bytes b = {0};
	struct tensor_table tt;
	struct err e;
	int refused = 0;
	size_t whole;

	add_safetensors(&b,
			"{" ENTRY("x", "U8", "[4]", "[0,4]") "," ENTRY("y", "F16", "[2]",
								       "[4,8]") "}",
			8);
	whole = b.n;
	for (b.n = 0; b.n < whole; b.n++) {
		refused += read_bytes(&b, &tt, &e) < 0;
		tensor_table_free(&tt);
	}
	CHECK(refused == (int)whole, "%d of %zu truncations are refused", refused, whole);
	free(b.p);
}

/* A description of one tensor cannot be arbitrarily long, nor deeply nested. */
static void absurd(void)
{
	struct bytes head = {0}, b = {0};
	struct tensor_table tt;
	struct err e;

	add(&head, "{\"x\":{\"dtype\":\"U8\",\"shape\":[", 28);
	for (int i = 0; i < 100000; i++)
		add(&head, "1,", 2);
	add(&head, "1],\"data_offsets\":[0,1]}}", 25);
	add_u64(&b, head.n);
	add(&b, head.p, head.n);
	add(&b, "", 1);
	CHECK(read_bytes(&b, &tt, &e) < 0 && strstr(e.msg, "absurdly long"),
	      "100,001 dimensions (%s)", e.msg);
	tensor_table_free(&tt);

	b.n = head.n = 0;
	add(&head, "{\"x\":{\"dtype\":", 14);
	for (int i = 0; i < 30000; i++)
		add(&head, "[", 1);
	for (int i = 0; i < 30000; i++)
		add(&head, "]", 1);
	add(&head, "}}", 2);
	add_u64(&b, head.n);
	add(&b, head.p, head.n);
	CHECK(read_bytes(&b, &tt, &e) < 0, "30,000 nested arrays (%s)", e.msg);
	tensor_table_free(&tt);
	free(head.p);
	free(b.p);
}

int main(void)
{
	reads();
	refuses();
	lengths();
	truncated();
	absurd();
	return tap_done();
}
