/* SPDX-License-Identifier: MIT */
/*
 * What the grammar tests share: a vocabulary of the 256 bytes (and some special tokens), a matcher
 * run over a text's bytes or tokens.
 */
#ifndef LLMDEV_TEST_GRAMMAR_CHECK_H
#define LLMDEV_TEST_GRAMMAR_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/tap.h"
#include "text/grammar/grammar.h"
#include "text/text_int.h"
#include "text/utf8.h"

struct voc {
	struct tokenizer *t;
	struct grammar_vocab *v;
	int n;
	int32_t eos, byte[256];
};

/* `special`: texts of special tokens, NULL-terminated; they follow the bytes and the end token. */
static __attribute__((unused)) bool voc_bytes(struct voc *o, const char *const *special)
{
	json_t *vocab = json_object(), *added = json_array(), *top;
	char path[] = "/tmp/grammar-vocab-XXXXXX";
	struct err e;
	int fd = mkstemp(path), id = 257;
	bool ok;

	for (int b = 0; b < 256; b++) {
		char s[8];
		int n = utf8_encode(byte_to_char((uint8_t)b), s);

		s[n] = 0;
		json_object_set_new(vocab, s, json_integer(b));
		o->byte[b] = b;
	}
	json_array_append_new(added, json_pack("{s:i,s:s,s:b}", "id", 256, "content", "<|eos|>",
					       "special", 1));
	for (; special && *special; special++)
		json_array_append_new(added, json_pack("{s:i,s:s,s:b}", "id", id++, "content",
						       *special, "special", 1));
	top = json_pack("{s:o,s:{s:s,s:o,s:[]},s:{s:s,s:b},s:{s:s}}", "added_tokens", added,
			"model", "type", "BPE", "vocab", vocab, "merges", "pre_tokenizer", "type",
			"ByteLevel", "add_prefix_space", 0, "decoder", "type", "ByteLevel");
	ok = fd >= 0 && !json_dumpfd(top, fd, 0);
	close(fd);
	json_decref(top);
	o->eos = 256;
	o->n = id;
	if (!ok || tokenizer_open_hf(&o->t, path, &e)) {
		printf("# vocabulary: %s\n", ok ? e.msg : "no file");
		unlink(path);
		return false;
	}
	unlink(path);
	if (grammar_vocab_open(&o->v, o->t, o->n, &o->eos, 1, 0, &e)) {
		printf("# vocabulary: %s\n", e.msg);
		return false;
	}
	return true;
}

static __attribute__((unused)) bool voc_open(struct voc *o, const char *path, size_t memory)
{
	struct err e;

	if (tokenizer_open_hf(&o->t, path, &e)) {
		printf("# %s\n", e.msg);
		return false;
	}
	o->n = tokenizer_n_vocab(o->t);
	o->eos = tokenizer_find(o->t, "<|im_end|>");
	for (int b = 0; b < 256; b++)
		o->byte[b] = o->t->byte_id[b];
	if (grammar_vocab_open(&o->v, o->t, o->n, &o->eos, 1, memory, &e)) {
		printf("# %s\n", e.msg);
		return false;
	}
	return true;
}

static __attribute__((unused)) void voc_close(struct voc *o)
{
	grammar_vocab_close(o->v);
	tokenizer_close(o->t);
}

static __attribute__((unused)) bool has_bit(const uint64_t *mask, int32_t id)
{
	return mask && mask[id >> 6] >> (id & 63) & 1;
}

/* Accepts all of the text, byte by byte, and may end. *at: the first byte that was refused. */
static __attribute__((unused)) bool takes(const struct voc *o, const struct grammar *g,
					  const char *text, size_t n, size_t *at)
{
	struct matcher *m;
	struct err e;
	bool ok = true;
	size_t i;

	if (matcher_open(&m, g, o->v, &e)) {
		printf("# %s\n", e.msg);
		return false;
	}
	for (i = 0; i < n && ok; i++)
		ok = !matcher_accept(m, o->byte[(uint8_t)text[i]]);
	if (at)
		*at = ok ? n : i - 1;
	ok = ok && matcher_may_end(m);
	matcher_close(m);
	return ok;
}

/* The same over the tokens of the text, checking that each is in the mask. */
static __attribute__((unused)) bool takes_tokens(const struct voc *o, const struct grammar *g,
						 const char *text, size_t n)
{
	struct ids ids = {0};
	struct matcher *m;
	struct err e;
	bool ok = !tokenizer_encode(o->t, text, n, TOK_SPECIAL, &ids, &e);

	if (!ok || matcher_open(&m, g, o->v, &e)) {
		printf("# %s\n", e.msg);
		ids_free(&ids);
		return false;
	}
	for (size_t i = 0; i < ids.n && ok; i++) {
		ok = has_bit(matcher_mask(m), ids.v[i]) && !matcher_accept(m, ids.v[i]);
		if (!ok)
			printf("# token %zu, id %d\n", i, ids.v[i]);
	}
	ok = ok && has_bit(matcher_mask(m), o->eos) && !matcher_accept(m, o->eos);
	matcher_close(m);
	ids_free(&ids);
	return ok;
}

#endif
