// SPDX-License-Identifier: MIT
/*
 * llmdev-keeper: holds the weights of this user's models in memory while no daemon runs, where the
 * kernel module does not. Owns the process; the work is in runtime/memory/keeper.c.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "memory/keeper.h"

static const char usage[] =
	"usage: llmdev-keeper [--socket PATH] [--stay]\n"
	"\n"
	"  --socket PATH  where llmdevd and llmctl find it\n"
	"                 ($XDG_RUNTIME_DIR/llmdev/keeper.sock)\n"
	"  --stay         do not end when nothing is kept\n"
	"\n"
	"llmdevd starts it where it is needed; man llmdev-keeper has the rest.\n";

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"socket", required_argument, NULL, 's'},
		{"stay", no_argument, NULL, 'k'},
		{"help", no_argument, NULL, 'h'},
		{NULL},
	};
	char path[128];
	bool stay = false;
	sigset_t set;
	struct err e;
	int opt;

	keeper_socket_path(path, sizeof(path));
	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (opt) {
		case 's':
			if (strlen(optarg) >= sizeof(path)) {
				fprintf(stderr, "llmdev-keeper: --socket: longer than %zu bytes\n",
					sizeof(path) - 1);
				return 2;
			}
			strcpy(path, optarg);
			break;
		case 'k':
			stay = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (optind != argc) {
		fputs(usage, stderr);
		return 2;
	}
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_SETMASK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	if (keeper_serve(path, stay, &e)) {
		fprintf(stderr, "llmdev-keeper: %s\n", e.msg);
		return 1;
	}
	return 0;
}
