// SPDX-License-Identifier: MIT
/* The engine's options as command-line text. Pure functions; see engine_options.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
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

static int prefix_cache(struct engine_opts *o, const char *arg, struct err *e)
{
	uint64_t bytes;

	if (!strcmp(arg, "off") || !strcmp(arg, "0")) {
		o->prefix_bytes = -1;
		return 1;
	}
	if (!size_parse(arg, &bytes) || !bytes || bytes > INT64_MAX)
		return err_set(e, -EINVAL,
			       "--prefix-cache: `%s`: give a size, such as 512M, or off", arg);
	o->prefix_bytes = (int64_t)bytes;
	return 1;
}

/* DIR[:SIZE]. A colon that no size follows is the directory's. */
static int swap(struct engine_opts *o, const char *arg, struct err *e)
{
	const char *colon = strrchr(arg, ':');
	uint64_t bytes = 0;

	if (colon && !size_parse(colon + 1, &bytes))
		colon = NULL;
	if (!*arg || colon == arg || (colon && !bytes))
		return err_set(e, -EINVAL,
			       "--swap: `%s`: give DIRECTORY or DIRECTORY:SIZE, such as "
			       "/var/tmp:16G",
			       arg);
	o->swap_dir = arg;
	o->swap_dir_len = colon ? (size_t)(colon - arg) : 0;
	o->swap_bytes = bytes;
	return 1;
}

static int weights(struct engine_opts *o, const char *arg, struct err *e)
{
	static const char *const names[] = {
		[WEIGHTS_ANON] = "anon", [WEIGHTS_AUTO] = "auto", [WEIGHTS_REGION] = "region"};

	for (int i = WEIGHTS_ANON; i <= WEIGHTS_REGION; i++) {
		if (!strcmp(arg, names[i])) {
			o->weights = (enum weights_mode)i;
			return 1;
		}
	}
	return err_set(e, -EINVAL, "--weights: `%s`: use auto, region or anon", arg);
}

int engine_option(struct engine_opts *o, int opt, const char *arg, struct err *e)
{
	uint64_t bytes;

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
	case ENGINE_OPT_STEP_MS:
		return whole(&o->step_ms, "--step-ms", arg, 60000, e);
	case ENGINE_OPT_CTX:
		return whole(&o->ctx, "--ctx", arg, 1 << 30, e);
	case ENGINE_OPT_KV_SIZE:
		if (!size_parse(arg, &bytes) || !bytes || bytes > SIZE_MAX / 2)
			return err_set(e, -EINVAL, "--kv-size: `%s`: give a size, such as 4G", arg);
		o->kv_bytes = bytes;
		return 1;
	case ENGINE_OPT_PREFIX_CACHE:
		return prefix_cache(o, arg, e);
	case ENGINE_OPT_SWAP:
		return swap(o, arg, e);
	case ENGINE_OPT_WEIGHTS:
		return weights(o, arg, e);
	case ENGINE_OPT_VERIFY_WEIGHTS:
		o->verify_weights = true;
		return 1;
	}
	return 0;
}
