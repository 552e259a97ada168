/* SPDX-License-Identifier: MIT */
/* A keeper of the test's own, in a child. */
#ifndef LLMDEV_TESTS_WITH_KEEPER_H
#define LLMDEV_TESTS_WITH_KEEPER_H

#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "memory/keeper.h"

static char keeper_path[128];
static pid_t keeper;

static void nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

/* From here on keepers are looked for below `dir`. */
static bool keeper_place(const char *dir)
{
	char *whole = realpath(dir, NULL);

	if (!whole)
		return false;
	setenv("XDG_RUNTIME_DIR", whole, 1);
	free(whole);
	keeper_socket_path(keeper_path, sizeof(keeper_path));
	return true;
}

static void keeper_begin(bool stay)
{
	sigset_t set;

	keeper = fork();
	if (!keeper) {
		struct err e = {""};

		sigemptyset(&set);
		sigaddset(&set, SIGTERM);
		sigaddset(&set, SIGINT);
		sigprocmask(SIG_SETMASK, &set, NULL);
		_exit(keeper_serve(keeper_path, stay, &e) ? 1 : 0);
	}
	for (int i = 0; i < 2000 && access(keeper_path, F_OK); i++)
		nap();
}

/* Its exit status, or -signal. */
static int keeper_end(int sig)
{
	int status;

	if (sig)
		kill(keeper, sig);
	waitpid(keeper, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

#endif
