// SPDX-License-Identifier: MIT
/* Pre-tokenizers: cutting a text into the pieces within which merges happen. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "text/text_int.h"
#include "text/utf8.h"

static int put(struct pieces *p, size_t off, size_t len, bool at_start)
{
	if (!len)
		return 0;
	if (p->n == p->cap) {
		size_t cap = p->cap ? p->cap * 2 : 64;
		struct piece *v = realloc(p->v, cap * sizeof(*v));

		if (!v)
			return -ENOMEM;
		p->v = v;
		p->cap = cap;
	}
	p->v[p->n++] = (struct piece){(uint32_t)off, (uint32_t)len, at_start};
	return 0;
}

/*
 * One piece being split. Segments come in order, alternately matches and the gaps between them;
 * `held` is the last piece, which a later segment may still join.
 */
struct splitter {
	const struct pre_step *s;
	struct pieces *out;
	size_t base; /* of the piece in the text */
	bool at_start;
	size_t from, to; /* held piece; none if from == to */
	bool was_match;
};

static int flush(struct splitter *w)
{
	int rc = put(w->out, w->base + w->from, w->to - w->from, w->at_start && !w->from);

	w->from = w->to;
	return rc;
}

static int segment(struct splitter *w, size_t a, size_t b, bool match)
{
	bool join = false;
	bool was = w->was_match;

	if (w->s->invert)
		match = !match;
	switch (w->s->behavior) {
	case SPLIT_REMOVED:
		if (match) {
			int rc = flush(w);

			w->from = w->to = b;
			return rc;
		}
		break;
	case SPLIT_ISOLATED:
		break;
	case SPLIT_MERGED_PREVIOUS:
		join = match && !was;
		break;
	case SPLIT_MERGED_NEXT:
		/* the last of a run of matches goes to the text after it */
		join = !match && was;
		break;
	case SPLIT_CONTIGUOUS:
		join = match == was;
		break;
	}
	w->was_match = match;
	if (!join || w->from == w->to) {
		int rc = flush(w);

		if (rc)
			return rc;
		w->from = a;
	}
	w->to = b;
	return 0;
}

/* Next match of the step's pattern at or after p: 1, 0 or -errno. */
static int next_match(const struct pre_step *s, struct regex_run *rx, const char *text, size_t n,
		      size_t p, size_t *a, size_t *b, struct err *e)
{
	const char *hit;

	if (s->re)
		return regex_next(rx, s->re, text, n, p, a, b, e);
	if (!s->literal_len || n - p < s->literal_len)
		return 0;
	hit = memmem(text + p, n - p, s->literal, s->literal_len);
	if (!hit)
		return 0;
	*a = (size_t)(hit - text);
	*b = *a + s->literal_len;
	return 1;
}

static int split(const struct pre_step *s, struct regex_run *rx, const char *text, struct piece in,
		 struct pieces *out, struct err *e)
{
	struct splitter w = {.s = s, .out = out, .base = in.off, .at_start = in.at_start};
	size_t n = in.len, p = 0, done = 0;
	int rc = 0;

	text += in.off;
	while (p <= n) {
		size_t a, b;

		rc = next_match(s, rx, text, n, p, &a, &b, e);
		if (rc <= 0)
			break;
		if (a > done)
			rc = segment(&w, done, a, false);
		else
			rc = 0;
		if (a == b) { /* an empty match only cuts */
			if (!rc && b > done)
				done = b;
			p = b < n ? b + (size_t)utf8_skip(text + b) : n + 1;
		} else {
			if (rc >= 0)
				rc = segment(&w, a, b, true);
			p = done = b;
		}
		if (rc)
			break;
	}
	if (!rc && done < n)
		rc = segment(&w, done, n, false);
	return rc ? rc : flush(&w);
}

/* Steps that change the text write it anew: src pieces of `text` to dst pieces of `out`. */
static int prefix_space(const char *text, struct piece in, struct buf *out, struct pieces *dst)
{
	size_t off = out->n;
	int rc = text[in.off] == ' ' ? 0 : buf_add(out, " ", 1);

	if (!rc)
		rc = buf_add(out, text + in.off, in.len);
	return rc ? rc : put(dst, off, out->n - off, in.at_start);
}

static int metaspace(const struct pre_step *s, const char *text, struct piece in, struct buf *out,
		     struct pieces *dst)
{
	const char *p = text + in.off, *end = p + in.len;
	size_t off = out->n, from = off;
	int rc = 0;
	bool starts = *p == ' ' || (in.len >= s->rep_len && !memcmp(p, s->rep, s->rep_len));

	if (!starts && (s->scheme == PREPEND_ALWAYS || (s->scheme == PREPEND_FIRST && in.at_start)))
		rc = buf_add(out, s->rep, s->rep_len);
	while (p < end && !rc) {
		bool rep = *p == ' ' || (end - p >= s->rep_len && !memcmp(p, s->rep, s->rep_len));

		/* split: every replacement starts a piece */
		if (rep && s->split && out->n > from) {
			rc = put(dst, from, out->n - from, in.at_start && from == off);
			from = out->n;
		}
		if (rep && *p == ' ') {
			if (!rc)
				rc = buf_add(out, s->rep, s->rep_len);
			p++;
		} else {
			int k = utf8_skip(p);

			if (!rc)
				rc = buf_add(out, p, (size_t)k);
			p += k;
		}
	}
	return rc ? rc : put(dst, from, out->n - from, in.at_start && from == off);
}

int pre_tokenize(const struct pre_step *steps, int n_steps, const char *text, size_t n,
		 bool at_start, struct pre_scratch *s, struct regex_run *rx, const char **cur,
		 const struct pieces **out, struct err *e)
{
	struct pieces *src = &s->p[0], *dst = &s->p[1];
	int which = 0;
	int rc;

	*cur = text;
	src->n = 0;
	rc = put(src, 0, n, at_start);
	for (int i = 0; i < n_steps && !rc; i++) {
		struct buf *b = &s->b[which];
		struct pieces *swap;

		dst->n = 0;
		b->n = steps[i].kind == PRE_SPLIT ? b->n : 0;
		for (size_t k = 0; k < src->n && !rc; k++) {
			if (steps[i].kind == PRE_SPLIT)
				rc = split(&steps[i], rx, *cur, src->v[k], dst, e);
			else if (steps[i].kind == PRE_PREFIX_SPACE)
				rc = prefix_space(*cur, src->v[k], b, dst);
			else
				rc = metaspace(&steps[i], *cur, src->v[k], b, dst);
		}
		if (steps[i].kind != PRE_SPLIT) {
			*cur = b->v;
			which = !which;
		}
		swap = src;
		src = dst;
		dst = swap;
	}
	*out = src;
	return rc == -ENOMEM ? err_set(e, rc, "tokenizer: out of memory: free some") : rc;
}

void pre_scratch_free(struct pre_scratch *s)
{
	for (int i = 0; i < 2; i++) {
		buf_free(&s->b[i]);
		free(s->p[i].v);
	}
	memset(s, 0, sizeof(*s));
}
