/* SPDX-License-Identifier: MIT */
/*
 * What `llmctl bench serve` asks for: lengths, arrivals, the letters that name a shape. A request's
 * lengths and token ids are a pure function of (workload, seeds, number of the conversation), not of
 * timing.
 */
#ifndef LLMCTL_BENCH_WORKLOAD_H
#define LLMCTL_BENCH_WORKLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "bench_stats.h"

#define BENCH_TOKENS_MAX       (1 << 22) /* of one prompt or answer */
#define BENCH_CONVERSATION_MAX (1 << 26)
#define BENCH_CLIENTS_MAX      4096
#define BENCH_RUNS_MAX	       1000000
#define BENCH_TURNS_MAX	       1000
#define BENCH_LENGTHS_MAX      (1 << 20) /* rows of a file of lengths */
#define BENCH_FIRST_ID	       10 /* below lie, in many vocabularies, the special ones */

struct bench_range {
	int lo, hi; /* inclusive */
};

struct bench_lengths {
	int prompt, output;
};

struct bench_workload {
	char shape; /* its letter; 0: none */
	/* tokens */
	struct bench_range pp; /* of a turn's new part of the prompt */
	struct bench_range tg; /* generated; the answer never ends before */
	bool conversations; /* lengths as in conversations with people, instead of pp and tg */
	struct bench_lengths *lengths; /* the same, from a file; malloc'ed, NULL: none */
	size_t n_lengths;
	int prefix; /* the same for all prompts, before pp */
	int depth; /* of conversation before the first request that counts; not measured */
	double scale; /* factor on all of the above */
	/* requests */
	int turns; /* of a conversation: each asks with all that was said before */
	int runs; /* conversations in total; 0: until the duration has passed */
	double duration; /* s: nothing is begun afterwards; 0: no limit */
	int warmup; /* requests before, not counted */
	/* closed loop: so many clients, each with one conversation after the other */
	int concurrency;
	/* open loop, if rate > 0: conversations arrive by themselves */
	double rate; /* per second */
	double burstiness; /* shape of the gamma distribution between arrivals; 1: Poisson */
	int max_concurrency; /* later ones wait at the client; 0: no limit */
	/* all */
	int vocab; /* ids are drawn from [BENCH_FIRST_ID, vocab) */
	uint64_t seed; /* of lengths and arrivals */
	uint64_t id_seed; /* of token ids; a run that gets those of an earlier one is answered from
			   * the server's prefix cache */
};

/* One line on each letter, for people; terminated by a NULL. */
extern const char *const bench_shape_lines[];
/* Fills *w with defaults and the shape (0: none). -EINVAL: unknown letter. */
int bench_workload_init(struct bench_workload *w, char shape, struct err *e);
/* After all is set: checks that it fits together, fills in what depends on it. */
int bench_workload_finish(struct bench_workload *w, struct err *e);
void bench_workload_free(struct bench_workload *w);

/* "N" or "LO-HI" with 1 <= LO <= HI <= BENCH_TOKENS_MAX. */
int bench_range_parse(struct bench_range *r, const char *text, struct err *e);

/*
 * Reads a file of lengths: a line is `PROMPT,OUTPUT` (numbers of tokens; a first line that is no
 * numbers is a heading) or a JSON object with "prompt" and "output" (also "prompt_tokens" and
 * "output_tokens"). Empty lines and those that begin with # are skipped. Shuffled by w->seed.
 */
int bench_lengths_read(struct bench_workload *w, const char *path, struct err *e);
/* The same from memory; `name` is for messages. */
int bench_lengths_parse(struct bench_workload *w, const char *name, const char *text, size_t len,
			struct err *e);

/* A conversation's own random numbers: for its lengths, and for its ids. */
void bench_conversation_seed(const struct bench_workload *w, int64_t number,
			     struct bench_rng *lengths, struct bench_rng *ids);
/* Lengths of the next turn, scaled. */
struct bench_lengths bench_turn_lengths(const struct bench_workload *w, int64_t number,
					struct bench_rng *r);
/* Scaled by w->scale, at least 1; 0 stays 0. */
int bench_scaled(const struct bench_workload *w, int tokens);
/* n random ids. */
void bench_random_ids(const struct bench_workload *w, struct bench_rng *r, int32_t *ids, int n);
/* The n ids that all prompts begin with. */
void bench_prefix_ids(const struct bench_workload *w, int32_t *ids, int n);

/* One line: "8 clients, 64 conversations of 1 turn; prompt 64, answer 128 tokens". */
void bench_workload_describe(const struct bench_workload *w, char *buf, size_t len);

#endif
