/* SPDX-License-Identifier: MIT */
/*
 * The test harness of the C tests: TAP on stdout, one line a check. A test program exits 0 iff no
 * check failed; the runner (tests/run) counts the lines.
 *
 *	int main(void) { CHECK(1 + 1 == 2, "adds"); return tap_done(); }
 */
#ifndef LLMDEV_TAP_H
#define LLMDEV_TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

static int tap_count, tap_failed;

__attribute__((format(printf, 4, 5), unused)) static bool
tap_check(bool ok, const char *file, int line, const char *fmt, ...)
{
	va_list ap;

	printf("%sok %d - ", ok ? "" : "not ", ++tap_count);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	if (!ok) {
		tap_failed++;
		printf("#   at %s:%d\n", file, line);
	}
	fflush(stdout);
	return ok;
}

__attribute__((format(printf, 1, 2), unused)) static void tap_skip(const char *fmt, ...)
{
	va_list ap;

	printf("ok %d # SKIP ", ++tap_count);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
}

__attribute__((unused)) static int tap_done(void)
{
	printf("1..%d\n", tap_count);
	return tap_failed != 0;
}

/* CHECK(condition, "what holds, with %d", x) */
#define CHECK(cond, ...) tap_check((cond), __FILE__, __LINE__, __VA_ARGS__)
/* The same, leaving the function when it fails. */
#define REQUIRE(cond, ...)                                                                         \
	do {                                                                                       \
		if (!CHECK(cond, __VA_ARGS__))                                                     \
			return;                                                                    \
	} while (0)

#endif
