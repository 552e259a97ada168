// SPDX-License-Identifier: MIT
/*
 * membw [THREADS [MB [PASSES]]]: how fast pinned threads stream memory, one JSON object on stdout.
 * Defaults: 2 threads, 1024 MB, 9 passes. The yardstick of the decode figures.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tools/llmctl/bandwidth.h"

int main(int argc, char **argv)
{
	int threads = argc > 1 ? atoi(argv[1]) : 2, passes = argc > 3 ? atoi(argv[3]) : 9;
	size_t mb = argc > 2 ? strtoul(argv[2], NULL, 10) : 1024;
	struct bandwidth b;
	struct err e;

	if (bandwidth_measure(&b, mb << 20, threads, passes, &e)) {
		fprintf(stderr, "membw: %s\n", e.msg);
		return 1;
	}
	printf("{\"threads\":%d,\"bytes\":%zu,\"passes\":%d,\"loads\":\"%s\",\"bytes_per_s\":%.4g,"
	       "\"best_bytes_per_s\":%.4g}\n",
	       b.threads, b.bytes, b.passes, b.loads, b.median, b.best);
	return 0;
}
