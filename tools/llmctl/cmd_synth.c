// SPDX-License-Identifier: MIT
/* llmctl synth: a random checkpoint of any shape, for benchmarks without a download. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "synth.h"

#define USAGE "synth CONFIG OUT [--format F] [--seed S] [--pure] [--threads N] [--list]"

enum { OPT_FORMAT = 1, OPT_SEED, OPT_PURE, OPT_THREADS, OPT_LIST };

static int list(void)
{
	printf("presets:");
	for (int i = 0; synth_presets[i]; i++)
		printf(" %s", synth_presets[i]);
	printf("\nformats:");
	for (const struct synth_format *f = synth_formats; f->name; f++)
		printf(" %s", f->name);
	printf("\n");
	return 0;
}

/* The last component of CONFIG's path, for general.name. */
static const char *base_name(const char *config)
{
	const char *slash = strrchr(config, '/');

	return slash && slash[1] ? slash + 1 : config;
}

int cmd_synth(int argc, char **argv)
{
	static const struct option options[] = {
		{"format", required_argument, NULL, OPT_FORMAT},
		{"seed", required_argument, NULL, OPT_SEED},
		{"pure", no_argument, NULL, OPT_PURE},
		{"threads", required_argument, NULL, OPT_THREADS},
		{"list", no_argument, NULL, OPT_LIST},
		{NULL},
	};
	struct synth_job job = {.progress = ctl_progress, .stop = ctl_sigint};
	const char *format = "bf16";
	struct synth_shape shape;
	long long seed = 0, threads = 0;
	uint64_t bytes = 0, start;
	char name[128];
	struct err e;
	json_t *config;
	int opt, rc;

	opterr = 0;
	optind = 0;
	while ((opt = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (opt) {
		case OPT_FORMAT:
			format = optarg;
			break;
		case OPT_SEED:
			if (!ctl_int("--seed", optarg, 0, INT64_MAX, &seed))
				return 2;
			break;
		case OPT_THREADS:
			if (!ctl_int("--threads", optarg, 1, 64, &threads))
				return 2;
			break;
		case OPT_PURE:
			job.pure = true;
			break;
		case OPT_LIST:
			return list();
		default:
			return ctl_bad_option(USAGE, argv);
		}
	}
	if (argc - optind != 2)
		return ctl_usage(USAGE,
				 "synth: needs CONFIG and OUT: llmctl synth --list shows the "
				 "presets and formats");
	job.format = synth_format_find(format);
	if (!job.format)
		return ctl_usage(USAGE,
				 "--format: unknown format \"%s\": llmctl synth --list shows "
				 "them",
				 format);
	config = synth_config_load(argv[optind], &e);
	if (!config)
		return ctl_fail("%s", e.msg);
	if (synth_shape_parse(&shape, config, &e)) {
		json_decref(config);
		return ctl_fail("%s", e.msg);
	}
	snprintf(name, sizeof(name), "%.80s random %s", base_name(argv[optind]), format);
	job.name = name;
	job.shape = &shape;
	job.config = config;
	job.out = argv[optind + 1];
	job.seed = (uint64_t)seed;
	job.threads = (int)threads;
	ctl_catch_sigint();
	start = ctl_now_ns();
	rc = synth_write(&job, &bytes, &e);
	ctl_progress_end();
	json_decref(config);
	if (rc)
		return ctl_fail("%s", e.msg);
	fprintf(stderr, "%s: %.1f MB, %s, %.1f s\n", job.out, (double)bytes / 1e6, format,
		(double)(ctl_now_ns() - start) / 1e9);
	return 0;
}
