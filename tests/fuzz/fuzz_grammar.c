// SPDX-License-Identifier: MIT
/*
 * libFuzzer target: any bytes as a JSON schema, a regular expression, a GBNF or a list of tools, and
 * a few tokens chosen by the input's own bytes through what compiles: each that the mask allows must
 * be accepted, and no other.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "text/grammar/grammar.h"
#include "text/text_int.h"
#include "text/utf8.h"

#define EOS 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The 256 bytes, and a token that ends. */
static struct tokenizer *open_bytes(void)
{
	json_t *vocab = json_object(), *top;
	struct tokenizer *t;
	struct err e;
	char path[64];
	int fd = memfd_create("tokenizer.json", 0);

	for (int b = 0; b < 256; b++) {
		char s[8];

		s[utf8_encode(byte_to_char((uint8_t)b), s)] = 0;
		json_object_set_new(vocab, s, json_integer(b));
	}
	top = json_pack("{s:[{s:i,s:s,s:b}],s:{s:s,s:o,s:[]},s:{s:s}}", "added_tokens", "id", EOS,
			"content", "<|eos|>", "special", 1, "model", "type", "BPE", "vocab", vocab,
			"merges", "decoder", "type", "ByteLevel");
	if (fd < 0 || !top || json_dumpfd(top, fd, 0))
		abort();
	json_decref(top);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (tokenizer_open_hf(&t, path, &e))
		abort();
	close(fd);
	return t;
}

static void walk(const struct grammar *g, struct grammar_vocab *v, const uint8_t *data, size_t size)
{
	struct matcher *m;
	struct err e;

	if (matcher_open(&m, g, v, &e)) {
		if (!*e.msg)
			abort();
		return;
	}
	for (size_t i = 0; i < size && i < 10; i++) {
		const uint64_t *mask = matcher_mask(m);
		int id = data[i] % (EOS + 1), tries = 0;
		bool ok;

		if (!mask)
			abort();
		while (!(mask[id >> 6] >> (id & 63) & 1) && tries++ <= EOS)
			id = (id + 1) % (EOS + 1);
		if (tries > EOS)
			abort(); /* a mask is never empty */
		ok = !matcher_accept(m, id);
		if (!ok)
			abort();
		if (id == EOS)
			break;
	}
	matcher_close(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct tokenizer *t;
	struct grammar_vocab *v;
	struct grammar *g = NULL;
	struct err e = {""};
	const int32_t eos = EOS;
	const char *text = (const char *)data + 1;
	json_t *j;
	int rc;

	if (!t)
		t = open_bytes();
	if (size < 2 || size > 1 << 14)
		return -1;
	if (grammar_vocab_open(&v, t, EOS + 1, &eos, 1, 1 << 14, &e))
		abort();
	j = json_loadb(text, size - 1, JSON_DECODE_ANY, NULL);
	switch (data[0] % 8) {
	case 0:
		rc = grammar_regex(&g, text, size - 1, &e);
		break;
	case 1:
		rc = grammar_gbnf(&g, text, size - 1, &e);
		break;
	case 2:
		rc = j ? grammar_json_schema(&g, j, &e) : -1;
		break;
	default:
		rc = j ? grammar_tools(&g, (enum output_tools)(data[0] % 8 - 1), j, NULL,
				       data[0] & 64, &e)
		       : -1;
	}
	if (!rc)
		walk(g, v, data + size - (size < 24 ? size : 24), size < 24 ? size : 24);
	else if ((rc != -1 && !*e.msg) || strchr(e.msg, '\n') || g)
		abort();
	grammar_free(g);
	grammar_vocab_close(v);
	json_decref(j);
	return 0;
}
