// SPDX-License-Identifier: MIT
/* What every tokenizer has, whatever file it came from: life and death, look-ups, end tokens. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "text/text_int.h"
#include "text/utf8.h"

struct tokenizer *tokenizer_new(void)
{
	struct tokenizer *t = calloc(1, sizeof(*t));

	if (t) {
		t->unk = -1;
		t->bos = -1;
	}
	return t;
}

void tokenizer_close(struct tokenizer *t)
{
	if (!t)
		return;
	vocab_free(&t->v);
	added_free(&t->raw);
	added_free(&t->normalized);
	for (int i = 0; i < t->n_norm; i++) {
		pcre2_code_free(t->norm[i].re);
		free(t->norm[i].pattern);
		free(t->norm[i].content);
	}
	for (int i = 0; i < t->n_pre; i++) {
		pcre2_code_free(t->pre[i].re);
		free(t->pre[i].literal);
	}
	for (int i = 0; i < t->n_replace; i++) {
		free(t->replace[i].from);
		free(t->replace[i].to);
	}
	pcre2_code_free(t->word_char);
	ids_free(&t->bos_seq);
	ids_free(&t->eos_seq);
	free(t);
}

void tokenizer_add_eos(struct tokenizer *t, int32_t id)
{
	if (id < 0 || id >= t->v.n || t->n_eos == MAX_EOS)
		return;
	for (int i = 0; i < t->n_eos; i++)
		if (t->eos[i] == id)
			return;
	t->eos[t->n_eos++] = id;
}

/*
 * See struct tokenizer: words_apart. Where a character without a token is dropped, words that it
 * stood between may come together.
 */
static bool words_apart(const struct tokenizer *t)
{
	const struct vocab *v = &t->v;

	if (t->byte_level || vocab_lookup(v, SPACE_MARK, 3) < 0)
		return false;
	if (t->model == MODEL_BPE && t->unk < 0)
		return false;
	for (int32_t id = 0; id < v->n; id++) {
		size_t len, p = 0;
		const char *s;

		if (!(v->tok[id].flags & TOK_F_MODEL) || (v->tok[id].flags & TOK_F_NOMERGE))
			continue;
		s = vocab_text(v, id, &len);
		while (len - p >= 3 && !memcmp(s + p, SPACE_MARK, 3))
			p += 3;
		if (memmem(s + p, len - p, SPACE_MARK, 3))
			return false;
	}
	return true;
}

int tokenizer_finish(struct tokenizer *t, struct err *e)
{
	/* What ends a generation wherever it is a special token of the vocabulary. */
	static const char *const ends[] = {"<|im_end|>",      "<|endoftext|>", "<|eot_id|>",
					   "<|end_of_text|>", "<|eom_id|>",    "<|end|>",
					   "<end_of_turn>",   "<|return|>"};
	bool word = false;

	for (int b = 0; b < 256; b++) {
		char s[8];
		int n;

		if (t->byte_level) {
			n = utf8_encode(byte_to_char((uint8_t)b), s);
		} else {
			static const char hex[] = "0123456789ABCDEF";

			memcpy(s, "<0x00>", 7);
			s[3] = hex[b >> 4];
			s[4] = hex[b & 15];
			n = 6;
		}
		t->byte_id[b] = vocab_lookup(&t->v, s, (size_t)n);
		if (t->byte_level && t->byte_fallback && t->byte_id[b] < 0)
			return err_set(e, -EOPNOTSUPP,
				       "model.byte_fallback: with a ByteLevel pre-tokenizer and an "
				       "incomplete alphabet: not supported: use token ids");
	}
	t->words_apart = words_apart(t);
	added_finish(&t->raw);
	added_finish(&t->normalized);
	for (uint32_t i = 0; i < t->raw.n; i++)
		word |= t->raw.v[i].single_word;
	for (uint32_t i = 0; i < t->normalized.n; i++)
		word |= t->normalized.v[i].single_word;
	if (word) {
		int rc = regex_compile(&t->word_char, "\\w", 2, "added_tokens: single_word", e);

		if (rc)
			return rc;
	}
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		int32_t id = tokenizer_find(t, ends[i]);

		if (id >= 0 && tokenizer_is_special(t, id))
			tokenizer_add_eos(t, id);
	}
	return 0;
}

int tokenizer_open(struct tokenizer **out, const struct checkpoint *c, struct err *e)
{
	char *path;
	struct stat st;
	int rc;

	*out = NULL;
	if (checkpoint_kind(c) == CHECKPOINT_GGUF)
		return tokenizer_open_gguf(out, c, e);
	if (asprintf(&path, "%s/tokenizer.json", checkpoint_dir(c)) < 0)
		return err_set(e, -ENOMEM, "tokenizer: out of memory: free some");
	if (stat(path, &st))
		rc = err_set(e, -errno, "%s: cannot be opened: %s: text needs it, token ids do not",
			     path, strerror(errno));
	else
		rc = tokenizer_open_hf(out, path, e);
	free(path);
	return rc;
}

int32_t tokenizer_n_vocab(const struct tokenizer *t)
{
	return t->v.n;
}

/* Tokens that are matched in normalised text are stored so. */
static int32_t find_normalized(const struct tokenizer *t, const char *token, size_t len)
{
	struct origin_text text = {token, len, NULL};
	struct norm_scratch m = {0};
	struct regex_run rx;
	int32_t id = -1;

	if (!t->normalized.n || regex_run_init(&rx, NULL))
		return -1;
	if (!normalize(t->norm, t->n_norm, &text, &m, &rx, &text, NULL))
		id = added_find(&t->normalized, text.s, text.n);
	regex_run_free(&rx);
	norm_scratch_free(&m);
	return id;
}

int32_t tokenizer_find(const struct tokenizer *t, const char *token)
{
	size_t len = strlen(token);
	int32_t id = added_find(&t->raw, token, len);

	if (id < 0 && utf8_valid_prefix(token, len) == len)
		id = find_normalized(t, token, len);
	return id < 0 ? vocab_lookup(&t->v, token, len) : id;
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
	return t->bos;
}

bool tokenizer_adds_bos(const struct tokenizer *t)
{
	return t->bos_seq.n > 0;
}

int tokenizer_eos(const struct tokenizer *t, int32_t *ids, int max)
{
	int n = t->n_eos < max ? t->n_eos : max;

	memcpy(ids, t->eos, (size_t)n * sizeof(*ids));
	return n;
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
	return id >= 0 && id < t->v.n && (t->v.tok[id].flags & TOK_F_SPECIAL);
}

const char *tokenizer_token(const struct tokenizer *t, int32_t id, size_t *len)
{
	if (id < 0 || id >= t->v.n || !(t->v.tok[id].flags & TOK_F_USED))
		return NULL;
	return vocab_text(&t->v, id, len);
}
