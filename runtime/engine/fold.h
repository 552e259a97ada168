/* SPDX-License-Identifier: MIT */
/*
 * The fold over generated ids that gives a request's text: detokeniser and stop strings.
 *
 * A pure function of the ids, so that a runtime that takes over folds the posted ids again and
 * arrives at the same bytes. Text that may be the beginning of a stop string is held back.
 */
#ifndef LLMDEV_ENGINE_FOLD_H
#define LLMDEV_ENGINE_FOLD_H

#include "text/tokenizer.h"

#define FOLD_MAX_STOPS  16
#define FOLD_MAX_STOP   256

struct fold {
	struct detok detok;
	bool has_text;                  /* false: no tokenizer, ids only */
	int n_stop;
	char *stop[FOLD_MAX_STOPS];
	size_t stop_len[FOLD_MAX_STOPS];
	int n_free;                     /* ids yet to come whose text no stop string looks at; set by
					 * the caller after fold_init() */
	char held[FOLD_MAX_STOP];       /* may begin a stop string; shorter than the longest */
	size_t n_held;
	uint64_t bytes;                 /* text given out so far */
	char out[DETOK_MAX + FOLD_MAX_STOP];    /* what the last call gave */
	size_t n_out;
};

/* Copies the stop strings. `special`: special tokens are spelt out. -EINVAL: too many, too long, or
 * empty. */
int fold_init(struct fold *f, const struct tokenizer *t, bool special, const char *const *stop,
	      int n_stop, struct err *e);
void fold_free(struct fold *f);

/* Text that became certain with this id in f->out. True: a stop string was completed. */
bool fold_push(struct fold *f, int32_t id);
/* The end of the sequence: what was held back in f->out. */
void fold_flush(struct fold *f);

#endif
