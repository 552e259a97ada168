// SPDX-License-Identifier: MIT
/*
 * Configurations that do not fit, from a good checkpoint with one member of config.json changed:
 * each is refused with a message that names the file and the key or tensor.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/engine.h"
#include "tests/tap.h"

#define GOOD "tests/fixtures/models/qwen3-moe-f16"

/* key = value (JSON; NULL: the key is removed) -> part of the message */
static const struct {
	const char *key, *value, *want;
} cases[] = {
	{"model_type", "\"mamba9\"", "model_type: \"mamba9\" is not supported"},
	{"model_type", NULL, "model_type: missing"},
	{"hidden_size", NULL, "hidden_size: missing"},
	{"hidden_size", "0", "hidden_size: 0 is outside"},
	{"hidden_size", "-64", "hidden_size: -64 is outside"},
	{"hidden_size", "9223372036854775807", "hidden_size: 9223372036854775807 is outside"},
	{"hidden_size", "\"64\"", "hidden_size: not an integer"},
	{"hidden_size", "96", "tensor model.embed_tokens.weight: shape"},
	{"num_hidden_layers", "200", "tensor model.layers.2.input_layernorm.weight: missing"},
	{"num_attention_heads", "5", "num_key_value_heads: does not divide"},
	{"num_key_value_heads", "4", "self_attn.k_proj.weight: shape"},
	{"head_dim", "31", "head_dim: odd"},
	{"num_experts_per_tok", "4000", "num_experts_per_tok: 4000 is outside"},
	{"num_experts_per_tok", "64", "num_experts_per_tok: more than there are experts"},
	{"moe_intermediate_size", "48", "experts.0.gate_proj.weight: shape"},
	{"vocab_size", "300000", "tensor model.embed_tokens.weight: shape"},
	{"rms_norm_eps", "\"small\"", "rms_norm_eps: not a number"},
	{"hidden_act", "\"gelu\"", "hidden_act: only \"silu\""},
	{"rope_scaling", "[]", "rope_scaling: not an object"},
	{"rope_scaling", "{\"rope_type\":\"longrope\"}", "rope_type: unknown kind"},
	{"rope_scaling", "{\"rope_type\":\"yarn\"}", "factor: missing"},
	{"mlp_only_layers", "7", "mlp_only_layers: not a list"},
	{"norm_topk_prob", "1", "norm_topk_prob: neither true nor false"},
	{"eos_token_id", "\"end\"", "eos_token_id: neither an id nor a list"},
	{"quantization_config", "{}", "quantization_config: quantised safetensors"},
};

/* A folder with the good checkpoint's weights and a changed configuration. */
static bool make_bad(const char *dir, const json_t *good, const char *key, const char *value)
{
	json_t *config = json_deep_copy(good);
	char path[256];
	bool ok;

	/* one spelling of the RoPE settings at a time */
	if (!strcmp(key, "rope_scaling"))
		json_object_del(config, "rope_parameters");
	ok = value ? !json_object_set_new(config, key, json_loads(value, JSON_DECODE_ANY, NULL))
		   : !json_object_del(config, key);
	snprintf(path, sizeof(path), "%s/config.json", dir);
	ok = ok && !json_dump_file(config, path, 0);
	json_decref(config);
	return ok;
}

int main(void)
{
	char dir[] = "/tmp/llmdev-test-model-XXXXXX", path[256], target[4096];
	json_t *good = json_load_file(GOOD "/config.json", 0, NULL);

	if (!CHECK(good && mkdtemp(dir) && realpath(GOOD "/model.safetensors", target),
		   "a good checkpoint to start from"))
		return tap_done();
	snprintf(path, sizeof(path), "%s/model.safetensors", dir);
	CHECK(!symlink(target, path), "its weights are reused");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct engine_opts o = {.model = dir,
					.backend = "cpu",
					.kv_type = -1,
					.threads = 1};
		struct engine *en = NULL;
		struct err e = {""};
		int rc = -1;

		if (make_bad(dir, good, cases[i].key, cases[i].value))
			rc = engine_open(&en, &o, &e);
		CHECK(rc < 0 && !en && strstr(e.msg, cases[i].want) && strstr(e.msg, dir),
		      "%s = %s: %s", cases[i].key, cases[i].value ? cases[i].value : "(absent)",
		      e.msg);
		engine_close(en);
	}
	unlink(path);
	snprintf(path, sizeof(path), "%s/config.json", dir);
	unlink(path);
	rmdir(dir);
	json_decref(good);
	return tap_done();
}
