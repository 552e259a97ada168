/* SPDX-License-Identifier: MIT */
/*
 * The engine's options as they are written on a command line (COMMON in the manuals), for every
 * program that opens an engine: getopt_long() table entries and their meaning.
 */
#ifndef LLMDEV_ENGINE_OPTIONS_H
#define LLMDEV_ENGINE_OPTIONS_H

#include <getopt.h>

#include "base/err.h"
#include "engine/engine.h"

enum {
	ENGINE_OPT_BACKEND = 0x1000,
	ENGINE_OPT_THREADS,
	ENGINE_OPT_EXACT,
	ENGINE_OPT_KV_TYPE,
	ENGINE_OPT_CHUNK,
	ENGINE_OPT_STEP_MS,
	ENGINE_OPT_CTX,
	ENGINE_OPT_KV_SIZE,
	ENGINE_OPT_PREFIX_CACHE,
	ENGINE_OPT_SWAP,
	ENGINE_OPT_WEIGHTS,
	ENGINE_OPT_VERIFY_WEIGHTS,
};

/* clang-format off */
#define ENGINE_OPTIONS                                                                             \
	{"backend", required_argument, NULL, ENGINE_OPT_BACKEND},                                  \
	{"threads", required_argument, NULL, ENGINE_OPT_THREADS},                                  \
	{"exact", no_argument, NULL, ENGINE_OPT_EXACT},                                            \
	{"kv-type", required_argument, NULL, ENGINE_OPT_KV_TYPE},                                  \
	{"chunk", required_argument, NULL, ENGINE_OPT_CHUNK},                                      \
	{"step-ms", required_argument, NULL, ENGINE_OPT_STEP_MS},                                  \
	{"ctx", required_argument, NULL, ENGINE_OPT_CTX},                                          \
	{"kv-size", required_argument, NULL, ENGINE_OPT_KV_SIZE},                                  \
	{"prefix-cache", required_argument, NULL, ENGINE_OPT_PREFIX_CACHE},                        \
	{"swap", required_argument, NULL, ENGINE_OPT_SWAP},                                        \
	{"weights", required_argument, NULL, ENGINE_OPT_WEIGHTS},                                  \
	{"verify-weights", no_argument, NULL, ENGINE_OPT_VERIFY_WEIGHTS}
/* clang-format on */

/* For usage lines, in two halves where one is too long. */
#define ENGINE_OPTIONS_USAGE_1                                                                     \
	"[--backend auto|cpu|ref] [--threads N] [--exact] [--kv-type f32|bf16|fp8]"
#define ENGINE_OPTIONS_USAGE_2                                                                     \
	"[--chunk N] [--step-ms N] [--ctx N] [--kv-size SIZE] [--prefix-cache SIZE|off] "          \
	"[--swap DIR[:SIZE]] [--weights auto|region|anon] [--verify-weights]"
#define ENGINE_OPTIONS_USAGE ENGINE_OPTIONS_USAGE_1 " " ENGINE_OPTIONS_USAGE_2

/* Everything unset: what engine_open() takes as its defaults. */
void engine_options_default(struct engine_opts *o);
/* 1: taken; 0: not one of ENGINE_OPTIONS; -EINVAL: bad value. Keeps `arg` where it is text. */
int engine_option(struct engine_opts *o, int opt, const char *arg, struct err *e);

#endif
