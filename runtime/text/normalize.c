// SPDX-License-Identifier: MIT
/*
 * Normalizers: Unicode NFC (UAX #15, tables from tools/unicode/gen_nfc.py), replacement, prefix.
 * Pure functions of their arguments; every one is linear in the text.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "text/text_int.h"
#include "text/utf8.h"

#include "text/unicode_nfc.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

/* Hangul syllables are computed (Unicode standard, section 3.12). */
enum { S_BASE = 0xac00, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11a7 };
enum { L_COUNT = 19, V_COUNT = 21, T_COUNT = 28, S_COUNT = L_COUNT * V_COUNT * T_COUNT };

struct point {
	uint32_t cp : 21, user : 1, ccc : 8;
};

static int combining_class(uint32_t c)
{
	int lo = 0, hi = COUNT(nfc_ccc) - 1;

	if (c < nfc_ccc[0].first)
		return 0;
	while (lo <= hi) {
		int mid = (lo + hi) / 2;

		if (c < nfc_ccc[mid].first)
			hi = mid - 1;
		else if (c > nfc_ccc[mid].last)
			lo = mid + 1;
		else
			return nfc_ccc[mid].ccc;
	}
	return 0;
}

/* Full canonical decomposition of c to d[], at most 4 characters long; returns their number. */
static int decompose(uint32_t c, uint32_t d[4])
{
	int n = 0;
	uint32_t tail[4];
	int n_tail = 0;

	if (c >= S_BASE && c < S_BASE + S_COUNT) {
		uint32_t s = c - S_BASE;

		d[n++] = L_BASE + s / (V_COUNT * T_COUNT);
		d[n++] = V_BASE + s % (V_COUNT * T_COUNT) / T_COUNT;
		if (s % T_COUNT)
			d[n++] = T_BASE + s % T_COUNT;
		return n;
	}
	/* only the first character of a decomposition decomposes further */
	for (;;) {
		int lo = 0, hi = COUNT(nfc_decomp) - 1, at = -1;

		while (c >= 0xc0 && lo <= hi && at < 0) {
			int mid = (lo + hi) / 2;

			if (c < nfc_decomp[mid].c)
				hi = mid - 1;
			else if (c > nfc_decomp[mid].c)
				lo = mid + 1;
			else
				at = mid;
		}
		if (at < 0 || n_tail == 3)
			break;
		if (nfc_decomp[at].b)
			tail[n_tail++] = nfc_decomp[at].b;
		c = nfc_decomp[at].a;
	}
	d[n++] = c;
	while (n_tail)
		d[n++] = tail[--n_tail];
	return n;
}

static uint32_t compose(uint32_t a, uint32_t b)
{
	int lo = 0, hi = COUNT(nfc_pairs) - 1;

	if (a >= L_BASE && a < L_BASE + L_COUNT && b >= V_BASE && b < V_BASE + V_COUNT)
		return S_BASE + ((a - L_BASE) * V_COUNT + (b - V_BASE)) * T_COUNT;
	if (a >= S_BASE && a < S_BASE + S_COUNT && (a - S_BASE) % T_COUNT == 0 && b > T_BASE &&
	    b < T_BASE + T_COUNT)
		return a + (b - T_BASE);
	while (lo <= hi) {
		int mid = (lo + hi) / 2;

		if (a < nfc_pairs[mid].a || (a == nfc_pairs[mid].a && b < nfc_pairs[mid].b))
			hi = mid - 1;
		else if (a > nfc_pairs[mid].a || b > nfc_pairs[mid].b)
			lo = mid + 1;
		else
			return nfc_pairs[mid].c;
	}
	return 0;
}

/* Stable sort of a run of marks by combining class; long runs by counting, so that it is linear. */
static int order_marks(struct point *p, size_t n)
{
	if (n <= 32) {
		for (size_t i = 1; i < n; i++) {
			struct point x = p[i];
			size_t k = i;

			for (; k && p[k - 1].ccc > x.ccc; k--)
				p[k] = p[k - 1];
			p[k] = x;
		}
		return 0;
	}
	size_t at[257] = {0};
	struct point *copy = malloc(n * sizeof(*copy));

	if (!copy)
		return -ENOMEM;
	memcpy(copy, p, n * sizeof(*copy));
	for (size_t i = 0; i < n; i++)
		at[p[i].ccc + 1]++;
	for (int c = 1; c < 257; c++)
		at[c] += at[c - 1];
	for (size_t i = 0; i < n; i++)
		p[at[copy[i].ccc]++] = copy[i];
	free(copy);
	return 0;
}

/* Canonical composition in place; returns the new length. */
static size_t compose_all(struct point *p, size_t n)
{
	size_t starter = SIZE_MAX, out = 0;
	int last = 0; /* class of the character before, 0 if it was composed away or the starter */

	for (size_t i = 0; i < n; i++) {
		struct point x = p[i];

		if (starter != SIZE_MAX && (out == starter + 1 || (last < x.ccc && last != 0))) {
			uint32_t c = compose(p[starter].cp, x.cp);

			if (c) {
				p[starter].cp = c;
				p[starter].user |= x.user;
				continue;
			}
		}
		p[out] = x;
		if (!x.ccc)
			starter = out;
		last = x.ccc;
		out++;
	}
	return out;
}

/* True if NFC cannot change the text (a quick test that may say no wrongly). */
static bool nfc_inert(const char *in, size_t n)
{
	/* below U+0300 nothing combines and nothing is decomposed for good */
	for (size_t i = 0; i < n; i++)
		if ((uint8_t)in[i] >= 0xcc)
			return false;
	return true;
}

/* The text under construction, and its origin if that is asked for. */
struct made {
	struct buf *text, *user;
	bool origin;
};

static int add(struct made *m, const char *s, size_t n, bool user)
{
	int rc = buf_add(m->text, s, n);

	if (rc || !m->origin)
		return rc;
	rc = buf_reserve(m->user, n);
	if (rc)
		return rc;
	memset(m->user->v + m->user->n, user, n);
	m->user->n += n;
	return 0;
}

/* in[from .. to) as it is. */
static int copy(struct made *m, const struct origin_text *in, size_t from, size_t to)
{
	int rc = buf_add(m->text, in->s + from, to - from);

	if (!rc && m->origin)
		rc = buf_add(m->user, (const char *)in->user + from, to - from);
	return rc;
}

static bool any_user(const struct origin_text *in, size_t from, size_t to)
{
	return in->user && memchr(in->user + from, 1, to - from);
}

static int nfc(const struct origin_text *in, struct made *out)
{
	/* at most 3 characters for 2 bytes (U+0390), 4 for 3 */
	struct point *p = malloc((in->n * 2 + 4) * sizeof(*p));
	size_t k = 0, marks = 0;
	int rc = p ? 0 : -ENOMEM;

	for (size_t i = 0; i < in->n && !rc;) {
		uint32_t c = 0, d[4];
		bool user = any_user(in, i, i + 1);
		int m;

		i += (size_t)utf8_decode((const uint8_t *)in->s + i, in->n - i, &c, NULL);
		m = decompose(c, d);
		for (int j = 0; j < m; j++) {
			p[k].cp = d[j];
			p[k].user = user;
			p[k].ccc = (unsigned)combining_class(d[j]);
			if (!p[k].ccc) {
				rc = order_marks(p + marks, k - marks);
				marks = k + 1;
			}
			k++;
		}
	}
	if (!rc)
		rc = order_marks(p + marks, k - marks);
	if (!rc) {
		k = compose_all(p, k);
		rc = buf_reserve(out->text, k * 4);
	}
	for (size_t i = 0; i < k && !rc; i++) {
		char utf8[4];

		rc = add(out, utf8, (size_t)utf8_encode(p[i].cp, utf8), p[i].user);
	}
	free(p);
	return rc;
}

static int replace(const struct norm_step *s, const struct origin_text *in, struct made *out,
		   struct regex_run *rx, struct err *e)
{
	size_t p = 0, n = in->n;
	int rc = 0;

	while (p <= n && !rc) {
		size_t a = n, b = n;

		if (s->re) {
			rc = regex_next(rx, s->re, in->s, n, p, &a, &b, e);
			if (rc < 0)
				return rc;
			if (!rc)
				break;
			if (a == b) /* an empty match replaces nothing that a tokenizer needs */
				return err_set(e, -EINVAL,
					       "normalizer: a Replace pattern matched the empty "
					       "text: this is not supported: use token ids");
		} else {
			const char *hit =
				n - p >= s->pattern_len
					? memmem(in->s + p, n - p, s->pattern, s->pattern_len)
					: NULL;

			if (!hit)
				break;
			a = (size_t)(hit - in->s);
			b = a + s->pattern_len;
		}
		rc = copy(out, in, p, a);
		if (!rc)
			rc = add(out, s->content, s->content_len, any_user(in, a, b));
		p = b;
		if (!rc && out->text->n > ENCODE_MAX_BYTES)
			return err_set(e, -E2BIG,
				       "text: grows beyond %zu MiB when normalised: "
				       "encode it in parts",
				       ENCODE_MAX_BYTES >> 20);
	}
	return rc ? rc : copy(out, in, p, n);
}

int normalize(const struct norm_step *steps, int n_steps, const struct origin_text *in,
	      struct norm_scratch *m, struct regex_run *rx, struct origin_text *out, struct err *e)
{
	int turn = 0;

	*out = *in;
	for (int i = 0; i < n_steps; i++) {
		const struct norm_step *s = &steps[i];
		struct made to = {&m->text[turn], &m->user[turn], in->user};
		int rc = 0;

		if (s->kind == NORM_NFC && nfc_inert(out->s, out->n))
			continue;
		if (s->kind == NORM_PREPEND && !out->n)
			continue;
		to.text->n = to.user->n = 0;
		if (s->kind == NORM_NFC)
			rc = nfc(out, &to);
		else if (s->kind == NORM_REPLACE)
			rc = replace(s, out, &to, rx, e);
		else if (!(rc = add(&to, s->content, s->content_len, false)))
			rc = copy(&to, out, 0, out->n);
		if (rc)
			return rc == -ENOMEM ? err_set(e, rc, "tokenizer: out of memory: free some")
					     : rc;
		out->s = to.text->v;
		out->n = to.text->n;
		out->user = in->user ? (const uint8_t *)to.user->v : NULL;
		turn = !turn;
	}
	return 0;
}

void norm_scratch_free(struct norm_scratch *m)
{
	for (int i = 0; i < 2; i++) {
		buf_free(&m->text[i]);
		buf_free(&m->user[i]);
	}
}
