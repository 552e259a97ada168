// SPDX-License-Identifier: MIT
/* The engine's options as text: what they mean, and one line for each refusal. */
#include <errno.h>
#include <string.h>

#include "base/size.h"
#include "engine/engine_options.h"
#include "tests/tap.h"

static void sizes(void)
{
	static const struct {
		const char *text;
		bool ok;
		uint64_t bytes;
	} cases[] = {
		{"0", true, 0},
		{"1", true, 1},
		{"4k", true, 4096},
		{"4K", true, 4096},
		{"3M", true, 3u << 20},
		{"2g", true, 2ull << 30},
		{"1T", true, 1ull << 40},
		{"18446744073709551615", true, UINT64_MAX},
		{"16777215T", true, 16777215ull << 40},
		{"16777216T", false, 0},
		{"18446744073709551616", false, 0},
		{"", false, 0},
		{"K", false, 0},
		{"-1", false, 0},
		{"+1", false, 0},
		{" 1", false, 0},
		{"1 K", false, 0},
		{"1KB", false, 0},
		{"1.5G", false, 0},
		{"0x10", false, 0},
		{"1X", false, 0},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		uint64_t bytes = 0;
		bool ok = size_parse(cases[i].text, &bytes);

		CHECK(ok == cases[i].ok && bytes == cases[i].bytes, "`%s` is %s", cases[i].text,
		      ok ? "a size" : "no size");
	}
}

static void refuses(int opt, const char *arg, const char *want)
{
	struct engine_opts o;
	struct err e = {""};
	int rc;

	engine_options_default(&o);
	rc = engine_option(&o, opt, arg, &e);
	CHECK(rc == -EINVAL && strstr(e.msg, want) && strstr(e.msg, arg) && !strchr(e.msg, '\n'),
	      "%s", e.msg);
}

static struct engine_opts takes(int opt, const char *arg)
{
	struct engine_opts o;
	struct err e = {""};

	engine_options_default(&o);
	CHECK(engine_option(&o, opt, arg, &e) == 1, "takes `%s` %s", arg, e.msg);
	return o;
}

static void kv_sizes(void)
{
	struct engine_opts o;

	engine_options_default(&o);
	CHECK(!o.kv_bytes && !o.prefix_bytes && !o.swap_dir && !o.swap_bytes,
	      "defaults: the engine chooses, everything is cached, no swap file");
	CHECK(takes(ENGINE_OPT_KV_SIZE, "3G").kv_bytes == 3ull << 30, "of 3 GiB");
	CHECK(takes(ENGINE_OPT_PREFIX_CACHE, "512M").prefix_bytes == 512 << 20, "of 512 MiB");
	CHECK(takes(ENGINE_OPT_PREFIX_CACHE, "off").prefix_bytes < 0, "off is nothing");
	CHECK(takes(ENGINE_OPT_PREFIX_CACHE, "0").prefix_bytes < 0, "so is 0");
	refuses(ENGINE_OPT_KV_SIZE, "0", "--kv-size: `0`: give a size");
	refuses(ENGINE_OPT_KV_SIZE, "4 GB", "--kv-size");
	refuses(ENGINE_OPT_KV_SIZE, "16777215T", "--kv-size");
	refuses(ENGINE_OPT_PREFIX_CACHE, "no", "--prefix-cache");
	refuses(ENGINE_OPT_PREFIX_CACHE, "-1", "--prefix-cache");
	refuses(ENGINE_OPT_PREFIX_CACHE, "9000000T", "--prefix-cache");
}

static void swaps(void)
{
	struct engine_opts o = takes(ENGINE_OPT_SWAP, "/var/tmp");

	CHECK(!strcmp(o.swap_dir, "/var/tmp") && !o.swap_dir_len && !o.swap_bytes, "a directory");
	o = takes(ENGINE_OPT_SWAP, "/var/tmp:16G");
	CHECK(!strncmp(o.swap_dir, "/var/tmp", o.swap_dir_len) && o.swap_dir_len == 8 &&
		      o.swap_bytes == 16ull << 30,
	      "with a size");
	o = takes(ENGINE_OPT_SWAP, "/mnt/a:b");
	CHECK(!strcmp(o.swap_dir, "/mnt/a:b") && !o.swap_dir_len && !o.swap_bytes,
	      "a colon that no size follows is the directory's");
	o = takes(ENGINE_OPT_SWAP, "/mnt/a:b:1M");
	CHECK(o.swap_dir_len == 8 && o.swap_bytes == 1 << 20, "the last colon counts");
	refuses(ENGINE_OPT_SWAP, "", "--swap");
	refuses(ENGINE_OPT_SWAP, ":4G", "--swap");
	refuses(ENGINE_OPT_SWAP, "/tmp:0", "--swap");
}

static void weights(void)
{
	struct engine_opts o;

	engine_options_default(&o);
	CHECK(o.weights == WEIGHTS_ANON && !o.verify_weights, "weights: in anonymous memory");
	CHECK(takes(ENGINE_OPT_WEIGHTS, "auto").weights == WEIGHTS_AUTO &&
		      takes(ENGINE_OPT_WEIGHTS, "region").weights == WEIGHTS_REGION &&
		      takes(ENGINE_OPT_WEIGHTS, "anon").weights == WEIGHTS_ANON,
	      "or where it is said");
	refuses(ENGINE_OPT_WEIGHTS, "disk", "--weights");
	refuses(ENGINE_OPT_WEIGHTS, "", "--weights");
}

int main(void)
{
	sizes();
	refuses(ENGINE_OPT_BACKEND, "gpu", "--backend");
	refuses(ENGINE_OPT_THREADS, "0", "--threads");
	refuses(ENGINE_OPT_KV_TYPE, "int4", "--kv-type");
	refuses(ENGINE_OPT_CHUNK, "x", "--chunk");
	refuses(ENGINE_OPT_STEP_MS, "0", "--step-ms");
	refuses(ENGINE_OPT_CTX, "-4", "--ctx");
	CHECK(engine_option(&(struct engine_opts){0}, 'h', NULL, NULL) == 0, "leaves others alone");
	kv_sizes();
	swaps();
	weights();
	return tap_done();
}
