// SPDX-License-Identifier: MIT
/* The engine's options as command-line text. Pure functions; see engine_options.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine_options.h"

void engine_options_default(struct engine_opts *o)
{
	*o = (struct engine_opts){.kv_type = -1};
}

static int whole(int *out, const char *option, const char *arg, long max, struct err *e)
{
	char *end;
	long n;

	errno = 0;
	n = strtol(arg, &end, 10);
	if (errno || end == arg || *end || n < 1 || n > max)
		return err_set(e, -EINVAL, "%s: `%s`: give a whole number from 1 to %ld", option,
			       arg, max);
	*out = (int)n;
	return 1;
}

int engine_option(struct engine_opts *o, int opt, const char *arg, struct err *e)
{
	switch (opt) {
	case ENGINE_OPT_BACKEND:
		if (strcmp(arg, "auto") && strcmp(arg, "cpu") && strcmp(arg, "ref"))
			return err_set(e, -EINVAL, "--backend: `%s`: use auto, cpu or ref", arg);
		o->backend = arg;
		return 1;
	case ENGINE_OPT_THREADS:
		return whole(&o->threads, "--threads", arg, 4096, e);
	case ENGINE_OPT_EXACT:
		o->exact = true;
		return 1;
	case ENGINE_OPT_KV_TYPE:
		for (int type = KV_F32; type <= KV_FP8; type++) {
			if (!strcmp(arg, kv_type_name(type))) {
				o->kv_type = type;
				return 1;
			}
		}
		return err_set(e, -EINVAL, "--kv-type: `%s`: use f32, bf16 or fp8", arg);
	case ENGINE_OPT_CHUNK:
		return whole(&o->chunk, "--chunk", arg, 1 << 20, e);
	case ENGINE_OPT_CTX:
		return whole(&o->ctx, "--ctx", arg, 1 << 30, e);
	}
	return 0;
}
