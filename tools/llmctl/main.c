// SPDX-License-Identifier: MIT
/*
 * llmctl: finds the command and runs it. Owns nothing else; the commands are in cmd_*.c and what
 * they share in ctl.c.
 */
#include <stdio.h>
#include <string.h>

#include "ctl.h"

static const struct command {
	const char *name;
	int (*fn)(int argc, char **argv);
	const char *help;
} commands[] = {
	{"run", cmd_run, "generate from a model, in this process"},
	{"chat", cmd_chat, "talk with a model or a running daemon"},
	{"ask", cmd_ask, "one question to a running daemon"},
	{"status", cmd_status, "what a running daemon does"},
	{"swap", cmd_swap, "another model in a running daemon's place"},
	{"logits", cmd_logits, "the logits after given token ids, as JSON"},
	{"tokenize", cmd_tokenize, "text to token ids"},
	{"template", cmd_template, "what a chat template makes of a conversation"},
	{"inspect", cmd_inspect, "what a model is, needs, and can reach on this machine"},
	{"model", cmd_model, "weights that stay in memory: load, list, unload"},
	{"region", cmd_region, "memory that outlives its process: list, info, destroy"},
	{"models", cmd_models, "the models in this machine's caches"},
	{"mem", cmd_mem, "where every byte of memory is"},
	{"cache", cmd_cache, "how much of files is in the page cache; dropping it"},
	{"reserve", cmd_reserve, "room for an engine, until it is ready"},
	{"bench", cmd_bench, "measure loading, decoding, prefill"},
	{"doctor", cmd_doctor, "what on this machine stands in the way, and what mends it"},
	{"report", cmd_report, "one file of facts and figures about this machine"},
	{"synth", cmd_synth, "write a model of any shape with random weights"},
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void help(FILE *f)
{
	fprintf(f, "usage: llmctl COMMAND [ARGUMENTS]\n\n");
	for (size_t i = 0; i < N_COMMANDS; i++) {
		fprintf(f, "  %-10s %s\n", commands[i].name, commands[i].help);
	}
	fprintf(f,
		"\n`llmctl COMMAND --help` prints the usage of one; man llmctl has all of it.\n");
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		help(stderr);
		return 2;
	}
	if (!strcmp(argv[1], "help") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		help(stdout);
		return 0;
	}
	for (size_t i = 0; i < N_COMMANDS; i++) {
		if (!strcmp(commands[i].name, argv[1])) {
			int rc = commands[i].fn(argc - 1, argv + 1);

			/* A full disk or a closed pipe must not look like success. */
			if (fflush(stdout) || ferror(stdout))
				return rc ? rc : ctl_fail("stdout: cannot write");
			return rc;
		}
	}
	ctl_fail("%s: no such command: `llmctl help` lists them", argv[1]);
	return 2;
}
