/* SPDX-License-Identifier: MIT */
/*
 * For the tests of runtime/weights: a scratch directory, and byte buffers from which checkpoint
 * files, good and bad, are built.
 */
#ifndef LLMDEV_TESTS_WEIGHTS_FILES_H
#define LLMDEV_TESTS_WEIGHTS_FILES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char scratch_dir[64];

/* Files go here; removed by scratch_end(). */
__attribute__((unused)) static const char *scratch_begin(void)
{
	snprintf(scratch_dir, sizeof(scratch_dir), "%s/llmdev-test-XXXXXX",
		 access("build", W_OK) ? "/tmp" : "build");
	if (!mkdtemp(scratch_dir)) {
		perror("mkdtemp");
		exit(1);
	}
	return scratch_dir;
}

__attribute__((unused)) static void scratch_end(void)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", scratch_dir);
	if (system(cmd))
		perror(cmd);
}

/* A path in the scratch directory; good until the eighth call after. */
__attribute__((unused)) static const char *scratch(const char *name)
{
	static char ring[8][256];
	static int i;

	i = (i + 1) % 8;
	snprintf(ring[i], sizeof(ring[i]), "%s/%s", scratch_dir, name);
	return ring[i];
}

__attribute__((unused)) static const char *put_file(const char *name, const void *data, size_t n)
{
	const char *path = scratch(name);
	FILE *f = fopen(path, "wb");

	if (!f || fwrite(data, 1, n, f) != n || fclose(f)) {
		perror(path);
		exit(1);
	}
	return path;
}

__attribute__((unused)) static const char *put_text(const char *name, const char *text)
{
	return put_file(name, text, strlen(text));
}

struct bytes {
	uint8_t *p;
	size_t n, cap;
};

__attribute__((unused)) static void add(struct bytes *b, const void *data, size_t n)
{
	if (b->n + n > b->cap) {
		b->cap = (b->n + n) * 2;
		b->p = realloc(b->p, b->cap);
		if (!b->p)
			exit(1);
	}
	memcpy(b->p + b->n, data, n);
	b->n += n;
}

__attribute__((unused)) static void add_zeros(struct bytes *b, size_t n)
{
	while (n--)
		add(b, "", 1);
}

__attribute__((unused)) static void add_u32(struct bytes *b, uint32_t v)
{
	uint8_t le[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};

	add(b, le, 4);
}

__attribute__((unused)) static void add_u64(struct bytes *b, uint64_t v)
{
	add_u32(b, (uint32_t)v);
	add_u32(b, (uint32_t)(v >> 32));
}

/* GGUF string. */
__attribute__((unused)) static void add_str(struct bytes *b, const char *s)
{
	add_u64(b, strlen(s));
	add(b, s, strlen(s));
}

/* GGUF head: magic, version, counts. */
__attribute__((unused)) static void add_gguf(struct bytes *b, uint32_t version, uint64_t tensors,
					     uint64_t keys)
{
	add(b, "GGUF", 4);
	add_u32(b, version);
	add_u64(b, tensors);
	add_u64(b, keys);
}

/* GGUF tensor entry of up to two dimensions, ne0 fastest; ne1 = 0: one dimension. */
__attribute__((unused)) static void add_tensor(struct bytes *b, const char *name, uint64_t ne0,
					       uint64_t ne1, uint32_t type, uint64_t offset)
{
	add_str(b, name);
	add_u32(b, ne1 ? 2 : 1);
	add_u64(b, ne0);
	if (ne1)
		add_u64(b, ne1);
	add_u32(b, type);
	add_u64(b, offset);
}

__attribute__((unused)) static void pad_to(struct bytes *b, size_t align)
{
	while (b->n % align)
		add_zeros(b, 1);
}

/* A safetensors file: this header and `data` bytes after it. */
__attribute__((unused)) static void add_safetensors(struct bytes *b, const char *header, size_t data)
{
	add_u64(b, strlen(header));
	add(b, header, strlen(header));
	for (size_t i = 0; i < data; i++)
		add(b, &(uint8_t){(uint8_t)(i * 7 + i / 256)}, 1);
}

#endif
