/* SPDX-License-Identifier: MIT */
/*
 * Conditions that somebody waits for: an engine that was started elsewhere is ready, or has ended.
 *
 *   PORT, port:[ADDR:]PORT   it accepts connections (127.0.0.1, then ::1, unless ADDR says)
 *   http:PORT/PATH           GET there answers 200: some engines listen long before they are ready
 *   unit:NAME, NAME.service  systemd says that it is active (systemctl)
 *   container:NAME           it runs, and is healthy where it has a health check (docker or podman)
 *   pid:N                    the process has ended
 */
#ifndef LLMDEV_MEMORY_UNTIL_H
#define LLMDEV_MEMORY_UNTIL_H

#include "base/err.h"

enum until_kind { UNTIL_PORT, UNTIL_HTTP, UNTIL_UNIT, UNTIL_CONTAINER, UNTIL_PID };

struct until {
	enum until_kind kind;
	char text[256]; /* as it was given */
	char name[256]; /* address, unit, container */
	char path[256]; /* HTTP */
	int number;	/* port, process */
};

/* -EINVAL: not one of them; for a process that does not exist -ESRCH. */
int until_parse(struct until *u, const char *text, struct err *e);
/* 1 it holds; 0 not yet; -errno: it can never be found out. Takes up to a few seconds. */
int until_holds(const struct until *u, struct err *e);

#endif
