// SPDX-License-Identifier: MIT
/* Ids back to text: one streaming fold, and whole-sequence decoding on top of it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "text/text_int.h"
#include "text/utf8.h"

void detok_init(struct detok *d, const struct tokenizer *t, bool skip_special)
{
	*d = (struct detok){.t = t, .skip_special = skip_special};
}

/* Text that is whole: output, less what a Strip decoder takes from the very start. */
static size_t out_text(struct detok *d, const char *s, size_t n, char *buf)
{
	if (n && !d->started) {
		d->started = true;
		if (d->t->strip && d->t->strip == s[0]) {
			s++;
			n--;
		}
	}
	memcpy(buf, s, n);
	return n;
}

/* n malformed bytes: a byte-fallback vocabulary gives U+FFFD for each, a byte-level one for all. */
static size_t out_bad(struct detok *d, int n, char *buf)
{
	size_t k = 0;

	if (d->t->decoder != DECODE_CHAIN)
		n = 1;
	while (n--)
		k += out_text(d, UTF8_REPLACEMENT, 3, buf + k);
	return k;
}

/* One byte of a stream: whole characters come out, malformed parts as U+FFFD. */
static size_t out_byte(struct detok *d, uint8_t b, char *buf)
{
	size_t k = 0;

	d->held[d->n_held++] = b;
	while (d->n_held) {
		uint32_t c;
		int need, r = utf8_decode(d->held, (size_t)d->n_held, &c, &need);

		if (r < 0 && -r == d->n_held && d->n_held < need)
			break;
		if (r > 0)
			k += out_text(d, (const char *)d->held, (size_t)r, buf + k);
		else
			k += out_bad(d, -r, buf + k);
		r = r < 0 ? -r : r;
		d->n_held -= r;
		memmove(d->held, d->held + r, (size_t)d->n_held);
	}
	return k;
}

size_t detok_flush(struct detok *d, char *buf, size_t cap)
{
	size_t k = 0;

	if (d->n_held && cap >= sizeof(d->held) * 3)
		k = out_bad(d, d->n_held, buf);
	d->n_held = 0;
	return k;
}

/* What a token of a byte-level vocabulary stands for; bytes[TOKEN_MAX_BYTES]. */
static size_t from_alphabet(const char *s, size_t n, bool literal, uint8_t *bytes)
{
	size_t n_bytes = 0;

	/* a token with a character outside the alphabet stands for itself */
	for (size_t i = 0; i < n && !literal;) {
		uint32_t c = 0;
		int len = utf8_decode((const uint8_t *)s + i, n - i, &c, NULL);
		int b = len > 0 ? char_to_byte(c) : -1;

		if (b < 0)
			literal = true;
		else
			bytes[n_bytes++] = (uint8_t)b;
		i += len > 0 ? (size_t)len : 1;
	}
	if (literal) {
		memcpy(bytes, s, n);
		n_bytes = n;
	}
	return n_bytes;
}

static size_t push_alphabet(struct detok *d, const char *s, size_t n, bool literal, char *buf)
{
	uint8_t bytes[TOKEN_MAX_BYTES];
	size_t n_bytes = from_alphabet(s, n, literal, bytes), k = 0;

	for (size_t i = 0; i < n_bytes; i++)
		k += out_byte(d, bytes[i], buf + k);
	return k;
}

/* The Replace decoders, one after the other, on one token (they never make it longer). */
static size_t replaced(const struct tokenizer *t, const char *s, size_t n, char *out)
{
	memcpy(out, s, n);
	for (int r = 0; r < t->n_replace; r++) {
		const struct decode_replace *x = &t->replace[r];
		size_t k = 0;

		for (size_t i = 0; i < n;) {
			if (n - i >= x->from_len && !memcmp(out + i, x->from, x->from_len)) {
				memmove(out + k, x->to, x->to_len);
				k += x->to_len;
				i += x->from_len;
			} else {
				out[k++] = out[i++];
			}
		}
		n = k;
	}
	return n;
}

static size_t push_chain(struct detok *d, const char *s, size_t n, bool literal, char *buf,
			 size_t cap)
{
	char text[TOKEN_MAX_BYTES];
	size_t k;
	int b = -1;

	if (!literal) {
		n = replaced(d->t, s, n, text);
		s = text;
		if (d->t->decode_fallback)
			b = fallback_byte(s, n);
	}
	if (b >= 0)
		return out_byte(d, (uint8_t)b, buf);
	k = detok_flush(d, buf, cap);
	return k + out_text(d, s, n, buf + k);
}

/* In the first token the replacement is dropped (if there is a prefix), later it is a space. */
static size_t push_metaspace(struct detok *d, const char *s, size_t n, char *buf)
{
	const struct tokenizer *t = d->t;
	bool drop = !d->started && t->meta_strip;
	size_t k = 0;

	for (size_t i = 0; i < n;) {
		if (n - i >= (size_t)t->meta_len && !memcmp(s + i, t->meta, (size_t)t->meta_len)) {
			if (!drop)
				buf[k++] = ' ';
			i += (size_t)t->meta_len;
		} else {
			buf[k++] = s[i++];
		}
	}
	d->started = true;
	return k;
}

size_t detok_push(struct detok *d, int32_t id, char *buf, size_t cap)
{
	const struct tokenizer *t = d->t;
	const struct token *tok;
	const char *s;
	size_t n, k = 0;
	bool literal;

	if (id < 0 || id >= t->v.n || cap < DETOK_MAX)
		return 0;
	tok = &t->v.tok[id];
	if (!(tok->flags & TOK_F_USED) || (d->skip_special && (tok->flags & TOK_F_SPECIAL)))
		return 0;
	s = vocab_text(&t->v, id, &n);
	literal = tok->flags & TOK_F_LITERAL;
	switch (t->decoder) {
	case DECODE_BYTES:
		return push_alphabet(d, s, n, literal, buf);
	case DECODE_CHAIN:
		return push_chain(d, s, n, literal, buf, cap);
	case DECODE_METASPACE:
		return push_metaspace(d, s, n, buf);
	case DECODE_JOIN:
		break;
	}
	if (d->started)
		buf[k++] = ' ';
	d->started = true;
	memcpy(buf + k, s, n);
	return k + n;
}

int tokenizer_bytes(const struct tokenizer *t, int32_t id, char *buf, size_t cap)
{
	struct detok d = {.t = t, .started = true};
	char text[TOKEN_MAX_BYTES * 2];
	const char *s;
	size_t n;
	bool literal;
	int b = -1;

	if (id < 0 || id >= t->v.n || !(t->v.tok[id].flags & TOK_F_USED))
		return 0;
	s = vocab_text(&t->v, id, &n);
	literal = t->v.tok[id].flags & TOK_F_LITERAL;
	switch (t->decoder) {
	case DECODE_BYTES:
		n = from_alphabet(s, n, literal, (uint8_t *)text);
		break;
	case DECODE_CHAIN:
		if (literal) {
			memcpy(text, s, n);
			break;
		}
		n = replaced(t, s, n, text);
		if (t->decode_fallback)
			b = fallback_byte(text, n);
		if (b >= 0) {
			text[0] = (char)b;
			n = 1;
		}
		break;
	case DECODE_METASPACE:
		n = push_metaspace(&d, s, n, text);
		break;
	case DECODE_JOIN:
		text[0] = ' ';
		memcpy(text + 1, s, n);
		n++;
		break;
	}
	if (n > cap)
		return 0;
	memcpy(buf, text, n);
	return (int)n;
}

static int visible_byte(const struct tokenizer *t, int32_t id, bool skip_special)
{
	const struct token *tok;
	size_t len;
	const char *s;

	if (id < 0 || id >= t->v.n)
		return -2; /* as if it were not there */
	tok = &t->v.tok[id];
	if (!(tok->flags & TOK_F_USED) || (skip_special && (tok->flags & TOK_F_SPECIAL)))
		return -2;
	s = vocab_text(&t->v, id, &len);
	return tok->flags & TOK_F_LITERAL ? -1 : fallback_byte(s, len);
}

/*
 * Length in ids of the run of byte tokens at ids[0]; *bad is the number of bytes if they are not
 * valid UTF-8 as a whole (Hugging Face then replaces each of them), else 0.
 */
static size_t byte_run(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
		       struct buf *bytes, size_t *bad)
{
	size_t i;

	bytes->n = 0;
	*bad = 0;
	for (i = 0; i < n; i++) {
		int b = visible_byte(t, ids[i], skip_special);
		char c = (char)b;

		if (b == -1)
			break;
		if (b >= 0 && buf_add(bytes, &c, 1))
			return 0;
	}
	if (utf8_valid_prefix(bytes->v, bytes->n) != bytes->n)
		*bad = bytes->n;
	return i;
}

int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
		     char **out, size_t *out_len, struct err *e)
{
	struct buf text = {0}, bytes = {0};
	struct detok d;
	size_t run_end = 0;
	int rc = 0;

	*out = NULL;
	detok_init(&d, t, skip_special);
	for (size_t i = 0; i < n && !rc; i++) {
		rc = text.cap - text.n < DETOK_MAX ? buf_reserve(&text, DETOK_MAX) : 0;
		if (rc)
			break;
		if (t->decode_fallback && i >= run_end &&
		    visible_byte(t, ids[i], skip_special) >= 0) {
			size_t bad, len = byte_run(t, ids + i, n - i, skip_special, &bytes, &bad);

			if (!len) {
				rc = -ENOMEM;
				break;
			}
			run_end = i + len;
			if (bad) {
				rc = buf_reserve(&text, bad * 3 + DETOK_MAX);
				if (rc)
					break;
				text.n += detok_flush(&d, text.v + text.n, DETOK_MAX);
				while (bad--)
					text.n +=
						out_text(&d, UTF8_REPLACEMENT, 3, text.v + text.n);
				i = run_end - 1;
				continue;
			}
		}
		text.n += detok_push(&d, ids[i], text.v + text.n, text.cap - text.n);
	}
	if (!rc)
		rc = buf_reserve(&text, sizeof(d.held) * 3 + 1);
	if (!rc) {
		text.n += detok_flush(&d, text.v + text.n, text.cap - text.n);
		text.v[text.n] = 0;
		*out = text.v;
		*out_len = text.n;
	} else {
		buf_free(&text);
		err_set(e, rc, "tokenizer: out of memory: free some");
	}
	buf_free(&bytes);
	return rc;
}
