// SPDX-License-Identifier: MIT
/* The fold over generated ids; see fold.h. */
#include "engine/fold.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int fold_init(struct fold *f, const struct tokenizer *t, bool special, const char *const *stop,
	      int n_stop, struct err *e)
{
	memset(f, 0, sizeof(*f));
	f->has_text = t;
	if (t)
		detok_init(&f->detok, t, !special);
	if (n_stop > FOLD_MAX_STOPS)
		return err_set(e, -EINVAL, "stop: %d strings: at most %d", n_stop, FOLD_MAX_STOPS);
	for (int i = 0; i < n_stop; i++) {
		size_t len = strlen(stop[i]);

		if (!len || len > FOLD_MAX_STOP)
			return err_set(e, -EINVAL, "stop: a string of %zu bytes: 1 to %d", len,
				       FOLD_MAX_STOP);
		f->stop[i] = strdup(stop[i]);
		if (!f->stop[i])
			return err_set(e, -ENOMEM, "stop: out of memory: free some");
		f->stop_len[i] = len;
		f->n_stop++;
	}
	return 0;
}

void fold_free(struct fold *f)
{
	for (int i = 0; i < f->n_stop; i++)
		free(f->stop[i]);
}

/* Offset of the earliest stop string in out[0..n_out), n_out if there is none. */
static size_t find_stop(const struct fold *f)
{
	size_t best = f->n_out;

	for (int i = 0; i < f->n_stop; i++) {
		const char *p = memmem(f->out, f->n_out, f->stop[i], f->stop_len[i]);

		if (p && (size_t)(p - f->out) < best)
			best = p - f->out;
	}
	return best;
}

/* Length of the longest end of out that begins a stop string. */
static size_t possible_stop(const struct fold *f)
{
	size_t longest = 0;

	for (int i = 0; i < f->n_stop; i++) {
		size_t max = f->stop_len[i] - 1 < f->n_out ? f->stop_len[i] - 1 : f->n_out;

		for (size_t n = max; n > longest; n--)
			if (!memcmp(f->out + f->n_out - n, f->stop[i], n))
				longest = n;
	}
	return longest;
}

bool fold_push(struct fold *f, int32_t id)
{
	size_t at;

	f->n_out = 0;
	if (!f->has_text)
		return false;
	memcpy(f->out, f->held, f->n_held);
	f->n_out = f->n_held + detok_push(&f->detok, id, f->out + f->n_held, DETOK_MAX);
	f->n_held = 0;
	if (f->n_free > 0) {
		f->n_free--;
		f->bytes += f->n_out;
		return false;
	}
	at = find_stop(f);
	if (at < f->n_out) {
		f->n_out = at;
		f->bytes += at;
		return true;
	}
	f->n_held = possible_stop(f);
	f->n_out -= f->n_held;
	memcpy(f->held, f->out + f->n_out, f->n_held);
	f->bytes += f->n_out;
	return false;
}

void fold_flush(struct fold *f)
{
	f->n_out = 0;
	if (!f->has_text)
		return;
	memcpy(f->out, f->held, f->n_held);
	f->n_out = f->n_held + detok_flush(&f->detok, f->out + f->n_held, DETOK_MAX);
	f->n_held = 0;
	f->bytes += f->n_out;
}
