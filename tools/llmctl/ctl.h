/* SPDX-License-Identifier: MIT */
/*
 * What the commands of llmctl share: dispatch, COMMON options, messages, progress, Ctrl-C.
 *
 * A command is `int cmd_NAME(int argc, char **argv)` in cmd_NAME.c with argv[0] its name; what it
 * returns is the exit status: 0, 1 (it failed, one line on stderr says why), 2 (wrong usage).
 * stdout carries the result and nothing else.
 */
#ifndef LLMCTL_H
#define LLMCTL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/engine.h"
#include "engine/engine_options.h"

int cmd_ask(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_bench_memory(int argc, char **argv);
int cmd_bench_serve(int argc, char **argv);
int cmd_cache(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_logits(int argc, char **argv);
int cmd_mem(int argc, char **argv);
int cmd_model(int argc, char **argv);
int cmd_models(int argc, char **argv);
int cmd_region(int argc, char **argv);
int cmd_reserve(int argc, char **argv);
int cmd_report(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_swap(int argc, char **argv);
int cmd_synth(int argc, char **argv);
int cmd_template(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);

/* "llmctl: " and the message on one line of stderr. Returns 1, the exit status of a failure. */
int ctl_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same for wrong usage: also prints the command's usage line. Returns 2. */
int ctl_usage(const char *usage, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* After getopt_long() returned '?' or ':' (with opterr = 0): names the option and returns 2. For
 * --help and -h, which no table has, it prints the usage on stdout and ends the program. */
int ctl_bad_option(const char *usage, char **argv);

/*
 * COMMON options. Put CTL_COMMON_OPTIONS into the command's struct option table, call
 * ctl_common_defaults() first, and hand every option that is not the command's own to
 * ctl_common_option(): 1 taken, 0 not a common option, -1 bad value (message printed, exit 2).
 * ctl_common_defaults() also hooks the progress display to the engine's loading.
 */
#define CTL_COMMON_OPTIONS ENGINE_OPTIONS
#define CTL_COMMON_USAGE   ENGINE_OPTIONS_USAGE

void ctl_common_defaults(struct engine_opts *o);
int ctl_common_option(int opt, const char *arg, struct engine_opts *o);

/* Numbers of options: whole text, in [lo, hi]; false prints the message (exit 2 is the caller's). */
bool ctl_int(const char *option, const char *text, long long lo, long long hi, long long *out);
bool ctl_double(const char *option, const char *text, double lo, double hi, double *out);
/*
 * `--watch` was read, with or without a value: seconds between two looks, 1 without; the value may also
 * stand behind it. False after a message.
 */
bool ctl_watch(int argc, char **argv, double *seconds);

/* A bar on stderr for work that takes more than 2 s; silent unless stderr is a capable terminal.
 * ctl_progress() has the type of engine_opts.progress; ctx unused. ctl_progress_end() wipes it. */
void ctl_progress(void *ctx, const char *what, uint64_t done, uint64_t total);
void ctl_progress_end(void);
/* stderr is a terminal that understands control sequences, and NO_COLOR does not forbid colour. */
bool ctl_tty(void);
bool ctl_colour(void);

/*
 * Ctrl-C: after ctl_catch_sigint() it sets a flag and interrupts blocking calls. A second one
 * before ctl_sigint_clear() ends the program, so nothing can make llmctl deaf.
 */
void ctl_catch_sigint(void);
bool ctl_sigint(void);
void ctl_sigint_clear(void);

/* The socket of the daemon `name`; one of the system serves users with a runtime directory of their
 * own, too. */
void ctl_find_socket(char *path, size_t len, const char *name);

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t ctl_now_ns(void);

#endif
