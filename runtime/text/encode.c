// SPDX-License-Identifier: MIT
/* Encoding: the stages of text_int.h, one after the other; scratch memory lives for one call. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "text/template/template.h"
#include "text/text_int.h"
#include "text/utf8.h"

struct encoder {
	const struct tokenizer *t;
	unsigned flags;
	struct ids *out;
	struct err *e;
	struct regex_run rx;
	struct norm_scratch norm;
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
static int encode_plain(struct encoder *en, struct origin_text in, bool at_start)
{
	const struct pieces *p;
	const char *text;
	int rc;

	if (!in.n)
		return 0;
	rc = pre_tokenize(en->t->pre, en->t->n_pre, in.s, in.n, at_start, &en->pre, &en->rx, &text,
			  &p, en->e);
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

static struct origin_text part_of(const struct origin_text *in, size_t from, size_t to)
{
	return (struct origin_text){in->s + from, to - from, in->user ? in->user + from : NULL};
}

/* How many of in[from .. from + n) are the user's. */
static size_t count_user(const struct origin_text *in, size_t from, size_t n)
{
	size_t sum = 0;

	for (size_t i = 0; in->user && i < n; i++)
		sum += in->user[from + i];
	return sum;
}

/*
 * The added token that is to be cut out at p. A special one that a user spells together with what
 * stands beside his text is no match, and hides none: else he could spoil the template's own.
 */
static const struct added *match_at(const struct added_set *set, const struct origin_text *in,
				    size_t p)
{
	const struct added *a = added_match(set, in->s, in->n, p);

	while (a && a->special) {
		size_t user = count_user(in, p, a->len);

		if (!user || user == a->len)
			break;
		a = added_match(set, in->s, p + a->len - 1, p); /* the next shorter */
	}
	return a;
}

/*
 * Cut the added tokens of `set` out of a text; what lies between goes to `text`. Leftmost-longest
 * without overlaps, and a token that does not count (single_word, or special where these are not
 * asked for or wholly the user's) still uses up its place, as in Hugging Face's search.
 */
static int cut_added(struct encoder *en, const struct added_set *set, struct origin_text in,
		     bool at_start,
		     int (*text)(struct encoder *en, struct origin_text in, bool at_start))
{
	const char *s = in.s;
	size_t n = in.n, done = 0, p = 0;
	int rc = 0;

	while (set->n && p < n) {
		const struct added *a = match_at(set, &in, p);
		size_t from = p, to;

		if (!a) {
			p++;
			continue;
		}
		to = p = p + a->len;
		if (a->special && (!(en->flags & TOK_SPECIAL) || count_user(&in, from, a->len)))
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
			rc = text(en, part_of(&in, done, from), at_start && !done);
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
	return done < n ? text(en, part_of(&in, done, n), at_start && !done) : 0;
}

/* Text between the added tokens that are matched as written. */
static int encode_raw(struct encoder *en, struct origin_text in, bool at_start)
{
	struct origin_text norm;
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
	rc = normalize(steps, n_steps, &in, &en->norm, &en->rx, &norm, en->e);
	return rc ? rc : cut_added(en, &en->t->normalized, norm, at_start, encode_plain);
}

static int encode_valid(struct encoder *en, struct origin_text in, bool at_start)
{
	return cut_added(en, &en->t->raw, in, at_start, encode_raw);
}

/* Text with malformed UTF-8 in it. */
static int encode_invalid(struct encoder *en, struct origin_text in)
{
	struct buf clean = {0}, user = {0};
	size_t p = 0, n = in.n;
	int rc = 0;

	while (p < n && !rc) {
		size_t k = utf8_valid_prefix(in.s + p, n - p);
		uint32_t c;
		int bad;

		if (en->t->byte_level)
			rc = encode_valid(en, part_of(&in, p, p + k), !p);
		else
			rc = buf_add(&clean, in.s + p, k);
		if (!rc && in.user)
			rc = buf_add(&user, (const char *)in.user + p, k);
		p += k;
		if (p == n || rc)
			break;
		bad = -utf8_decode((const uint8_t *)in.s + p, n - p, &c, NULL);
		/* byte-level: the stray bytes themselves, as a piece of their own */
		if (en->t->byte_level)
			rc = merge_piece(en->t, in.s + p, (size_t)bad, &en->merge, en->out);
		else
			rc = buf_add(&clean, UTF8_REPLACEMENT, 3);
		if (!rc && in.user)
			rc = buf_add(&user, count_user(&in, p, (size_t)bad) ? "\1\1\1" : "\0\0\0",
				     3);
		if (rc)
			err_set(en->e, rc, "tokenizer: out of memory: free some");
		p += (size_t)bad;
	}
	if (!rc && !en->t->byte_level)
		rc = encode_valid(en,
				  (struct origin_text){clean.v, clean.n,
						       in.user ? (const uint8_t *)user.v : NULL},
				  true);
	buf_free(&clean);
	buf_free(&user);
	return rc;
}

static int push_all(struct encoder *en, const struct ids *add)
{
	for (size_t i = 0; i < add->n; i++)
		if (ids_push(en->out, add->v[i]))
			return err_set(en->e, -ENOMEM, "tokenizer: out of memory: free some");
	return 0;
}

static int encode(const struct tokenizer *t, const struct origin_text *in, unsigned flags,
		  struct ids *out, struct encode_stats *st, struct err *e)
{
	struct encoder en = {.t = t, .flags = flags, .out = out, .e = e, .after_special = true};
	size_t before = out->n;
	int rc;

	if (in->n > ENCODE_MAX_BYTES)
		return err_set(e, -E2BIG,
			       "text: %zu bytes: at most %zu MiB can be encoded at once: split it",
			       in->n, ENCODE_MAX_BYTES >> 20);
	rc = regex_run_init(&en.rx, e);
	if (rc)
		return rc;
	if (flags & TOK_BOS)
		rc = push_all(&en, &t->bos_seq);
	if (!rc && in->n) {
		if (utf8_valid_prefix(in->s, in->n) == in->n)
			rc = encode_valid(&en, *in, true);
		else
			rc = encode_invalid(&en, *in);
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
	norm_scratch_free(&en.norm);
	pre_scratch_free(&en.pre);
	merge_scratch_free(&en.merge);
	return rc;
}

int tokenizer_encode_counted(const struct tokenizer *t, const char *text, size_t len,
			     unsigned flags, struct ids *out, struct encode_stats *st,
			     struct err *e)
{
	return encode(t, &(struct origin_text){text, len, NULL}, flags, out, st, e);
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, unsigned flags,
		     struct ids *out, struct err *e)
{
	return tokenizer_encode_counted(t, text, len, flags, out, NULL, e);
}

int tokenizer_encode_spans(const struct tokenizer *t, const char *text, size_t len,
			   const struct tmpl_span *span, size_t n_spans, unsigned flags,
			   struct ids *out, struct err *e)
{
	struct origin_text in = {.s = text, .n = len};
	uint8_t *user;
	size_t at = 0;
	int rc;

	for (size_t i = 0; i < n_spans; at = span[i++].end)
		if (span[i].end < at || span[i].end > len)
			return err_set(e, -EINVAL,
				       "spans: the end of %zu is %zu: ascending, to %zu", i,
				       span[i].end, len);
	user = malloc(len + 1);
	if (!user)
		return err_set(e, -ENOMEM, "tokenizer: out of memory: free some");
	memset(user, 1, len); /* what no span covers */
	at = 0;
	for (size_t i = 0; i < n_spans; at = span[i++].end)
		memset(user + at, span[i].user, span[i].end - at);
	in.user = user;
	rc = encode(t, &in, flags | TOK_SPECIAL, out, NULL, e);
	free(user);
	return rc;
}
