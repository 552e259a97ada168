// SPDX-License-Identifier: MIT
/* Encoding: the stages of text_int.h, one after the other; scratch memory lives for one call. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "text/text_int.h"
#include "text/utf8.h"

struct encoder {
	const struct tokenizer *t;
	unsigned flags;
	struct ids *out;
	struct err *e;
	struct regex_run rx;
	struct buf norm, norm_tmp;
	struct pre_scratch pre;
	struct merge_scratch merge;
	bool after_special; /* SPM: a space goes in front of the next text */
};

static int whole_piece(const struct tokenizer *t, const char *s, size_t n, int32_t *id)
{
	char mapped[2 * TOKEN_MAX_BYTES];

	*id = -1;
	if (n <= t->v.max_len) {
		if (t->byte_level)
			*id = vocab_lookup(&t->v, mapped, bytes_to_alphabet(s, n, mapped));
		else
			*id = vocab_lookup(&t->v, s, n);
	}
	return *id >= 0;
}

static int encode_piece(struct encoder *en, const char *s, size_t n)
{
	size_t from = 0;
	int32_t id;
	int rc = 0;

	if (en->t->ignore_merges && whole_piece(en->t, s, n, &id))
		return ids_push(en->out, id);
	/* Short heaps stay in the cache: where merges cannot cross words, take these one by one. */
	while (en->t->words_apart && !rc) {
		size_t p = from;
		const char *mark;

		while (n - p >= 3 && !memcmp(s + p, SPACE_MARK, 3))
			p += 3;
		mark = memmem(s + p, n - p, SPACE_MARK, 3);
		if (!mark)
			break;
		p = (size_t)(mark - s);
		rc = merge_piece(en->t, s + from, p - from, &en->merge, en->out);
		from = p;
	}
	return rc ? rc : merge_piece(en->t, s + from, n - from, &en->merge, en->out);
}

/* Normalised text without added tokens. */
static int encode_plain(struct encoder *en, const char *s, size_t n, bool at_start)
{
	const struct pieces *p;
	const char *text;
	int rc;

	if (!n)
		return 0;
	rc = pre_tokenize(en->t->pre, en->t->n_pre, s, n, at_start, &en->pre, &en->rx, &text, &p,
			  en->e);
	for (size_t i = 0; !rc && i < p->n; i++) {
		rc = encode_piece(en, text + p->v[i].off, p->v[i].len);
		if (rc)
			err_set(en->e, rc, "tokenizer: out of memory: free some");
	}
	return rc;
}

/* Is the character before `p` (or at it, if `after`) a word character? */
static int word_at(struct encoder *en, const char *s, size_t n, size_t p, bool after)
{
	size_t from = p, to, a, b;

	if (after) {
		if (p == n)
			return 0;
		to = p + (size_t)utf8_skip(s + p);
	} else {
		if (!p)
			return 0;
		to = p;
		do
			from--;
		while (((uint8_t)s[from] & 0xc0) == 0x80);
	}
	return regex_next(&en->rx, en->t->word_char, s + from, to - from, 0, &a, &b, en->e);
}

static size_t spaces_before(const char *s, size_t p, size_t limit)
{
	while (p > limit) {
		size_t q = p;
		uint32_t c;

		do
			q--;
		while (q > limit && ((uint8_t)s[q] & 0xc0) == 0x80);
		if (utf8_decode((const uint8_t *)s + q, p - q, &c, NULL) < 0 || !utf8_is_space(c))
			break;
		p = q;
	}
	return p;
}

static size_t spaces_after(const char *s, size_t n, size_t p)
{
	while (p < n) {
		uint32_t c;
		int k = utf8_decode((const uint8_t *)s + p, n - p, &c, NULL);

		if (k < 0 || !utf8_is_space(c))
			break;
		p += (size_t)k;
	}
	return p;
}

/*
 * Cut the added tokens of `set` out of s[0..n); what lies between goes to `text`. Leftmost-longest
 * without overlaps, and a token that does not count (single_word, or special where these are not
 * asked for) still uses up its place, as in Hugging Face's search.
 */
static int cut_added(struct encoder *en, const struct added_set *set, const char *s, size_t n,
		     bool at_start,
		     int (*text)(struct encoder *en, const char *s, size_t n, bool at_start))
{
	size_t done = 0, p = 0;
	int rc = 0;

	while (set->n && p < n) {
		const struct added *a = added_match(set, s, n, p);
		size_t from = p, to;

		if (!a) {
			p++;
			continue;
		}
		to = p = p + a->len;
		if (a->special && !(en->flags & TOK_SPECIAL))
			continue;
		if (a->single_word) {
			int before = word_at(en, s, n, from, false);
			int behind = before ? 0 : word_at(en, s, n, to, true);

			if (before < 0 || behind < 0)
				return before < 0 ? before : behind;
			if (before || behind)
				continue;
		}
		if (a->lstrip)
			from = spaces_before(s, from, done);
		if (a->rstrip)
			to = spaces_after(s, n, to);
		if (from > done) {
			rc = text(en, s + done, from - done, at_start && !done);
			if (rc)
				return rc;
		}
		rc = ids_push(en->out, a->id);
		if (rc)
			return err_set(en->e, rc, "tokenizer: out of memory: free some");
		en->after_special = true;
		/* not the larger of the two: a match inside what rstrip took gives the rest back */
		done = to;
	}
	return done < n ? text(en, s + done, n - done, at_start && !done) : 0;
}

/* Text between the added tokens that are matched as written. */
static int encode_raw(struct encoder *en, const char *s, size_t n, bool at_start)
{
	const char *norm;
	size_t len;
	int rc;

	/* SPM's space, by llama.cpp's rule: in front of the text and after each special token. It is
	 * normalizer step 0, the replacement of spaces step 1. */
	const struct norm_step *steps = en->t->norm;
	int n_steps = en->t->n_norm;

	if (en->t->space_prefix && !en->after_special) {
		steps++;
		n_steps--;
	}
	en->after_special = false;
	rc = normalize(steps, n_steps, s, n, &en->norm, &en->norm_tmp, &en->rx, &norm, &len, en->e);
	return rc ? rc : cut_added(en, &en->t->normalized, norm, len, at_start, encode_plain);
}

static int encode_valid(struct encoder *en, const char *s, size_t n, bool at_start)
{
	return cut_added(en, &en->t->raw, s, n, at_start, encode_raw);
}

/* Text with malformed UTF-8 in it. */
static int encode_invalid(struct encoder *en, const char *s, size_t n)
{
	struct buf clean = {0};
	size_t p = 0;
	int rc = 0;

	while (p < n && !rc) {
		size_t k = utf8_valid_prefix(s + p, n - p);
		uint32_t c;
		int bad;

		if (en->t->byte_level)
			rc = encode_valid(en, s + p, k, !p);
		else
			rc = buf_add(&clean, s + p, k);
		p += k;
		if (p == n || rc)
			break;
		bad = -utf8_decode((const uint8_t *)s + p, n - p, &c, NULL);
		/* byte-level: the stray bytes themselves, as a piece of their own */
		if (en->t->byte_level)
			rc = merge_piece(en->t, s + p, (size_t)bad, &en->merge, en->out);
		else
			rc = buf_add(&clean, UTF8_REPLACEMENT, 3);
		if (rc)
			err_set(en->e, rc, "tokenizer: out of memory: free some");
		p += (size_t)bad;
	}
	if (!rc && !en->t->byte_level)
		rc = encode_valid(en, clean.v, clean.n, true);
	buf_free(&clean);
	return rc;
}

static int push_all(struct encoder *en, const struct ids *add)
{
	for (size_t i = 0; i < add->n; i++)
		if (ids_push(en->out, add->v[i]))
			return err_set(en->e, -ENOMEM, "tokenizer: out of memory: free some");
	return 0;
}

int tokenizer_encode_counted(const struct tokenizer *t, const char *text, size_t len,
			     unsigned flags, struct ids *out, struct encode_stats *st,
			     struct err *e)
{
	struct encoder en = {.t = t, .flags = flags, .out = out, .e = e, .after_special = true};
	size_t before = out->n;
	int rc;

	if (len > ENCODE_MAX_BYTES)
		return err_set(e, -E2BIG,
			       "text: %zu bytes: at most %zu MiB can be encoded at once: split it",
			       len, ENCODE_MAX_BYTES >> 20);
	rc = regex_run_init(&en.rx, e);
	if (rc)
		return rc;
	if (flags & TOK_BOS)
		rc = push_all(&en, &t->bos_seq);
	if (!rc && len) {
		if (utf8_valid_prefix(text, len) == len)
			rc = encode_valid(&en, text, len, true);
		else
			rc = encode_invalid(&en, text, len);
	}
	if (!rc && (flags & TOK_BOS))
		rc = push_all(&en, &t->eos_seq);
	if (st) {
		st->heap_ops = en.merge.heap_ops;
		st->symbols = en.merge.symbols;
		st->matches = en.rx.matches;
	}
	if (rc)
		out->n = before;
	regex_run_free(&en.rx);
	buf_free(&en.norm);
	buf_free(&en.norm_tmp);
	pre_scratch_free(&en.pre);
	merge_scratch_free(&en.merge);
	return rc;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, unsigned flags,
		     struct ids *out, struct err *e)
{
	return tokenizer_encode_counted(t, text, len, flags, out, NULL, e);
}
