// SPDX-License-Identifier: MIT
/*
 * The default modes on a trained model: the perplexity of the built-in model on its answers, as it
 * is (bf16 activations) and quantised here to Q8_0 and Q4_0 (int8 activations), stays within 1 % of
 * what ref gets from the same weights; with a KV cache in fp8 as well.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/engine.h"
#include "kernels/ref/ref.h"
#include "tests/tap.h"
#include "tools/llmctl/synth.h"

#define MODEL	  "tools/demo/model"
#define TEXT	  "docs/faq.md"
#define TOLERANCE 0.01
#define MAX_IDS	  256 /* of one question with its answer */
#define QUESTIONS 24

/* ---- quantising --------------------------------------------------------------------------------- */

struct source {
	struct checkpoint *c;
	uint8_t *bytes; /* of model.safetensors, the whole file */
	bool failed;
};

/* The Hugging Face name of one matrix of a GGUF tensor. */
static void hf_name(char *out, size_t size, const char *gguf, int64_t expert)
{
	static const char *const map[][2] = {
		{"attn_norm.", "input_layernorm"},    {"attn_q.", "self_attn.q_proj"},
		{"attn_k.", "self_attn.k_proj"},      {"attn_v.", "self_attn.v_proj"},
		{"attn_output.", "self_attn.o_proj"}, {"attn_q_norm.", "self_attn.q_norm"},
		{"attn_k_norm.", "self_attn.k_norm"}, {"ffn_norm.", "post_attention_layernorm"},
		{"ffn_gate_inp.", "mlp.gate"},	      {"ffn_gate_exps.", "gate_proj"},
		{"ffn_up_exps.", "up_proj"},	      {"ffn_down_exps.", "down_proj"},
	};
	int layer = -1, used = 0;

	out[0] = 0;
	if (!strcmp(gguf, "token_embd.weight"))
		snprintf(out, size, "model.embed_tokens.weight");
	else if (!strcmp(gguf, "output_norm.weight"))
		snprintf(out, size, "model.norm.weight");
	else if (!strcmp(gguf, "output.weight"))
		snprintf(out, size, "lm_head.weight");
	else if (sscanf(gguf, "blk.%d.%n", &layer, &used) == 1)
		for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++)
			if (!strncmp(gguf + used, map[i][0], strlen(map[i][0]))) {
				if (strstr(map[i][0], "_exps"))
					snprintf(out, size,
						 "model.layers.%d.mlp.experts.%d.%s.weight", layer,
						 (int)expert, map[i][1]);
				else
					snprintf(out, size, "model.layers.%d.%s.weight", layer,
						 map[i][1]);
			}
}

static void source_row(void *ctx, const struct synth_tensor *t, int64_t row, float *x)
{
	struct source *s = ctx;
	int64_t cols = t->dims[t->n_dims - 1];
	int64_t rows = t->n_dims == 3 ? t->dims[1] : t->n_dims == 2 ? t->dims[0] : 1;
	const struct tensor_info *from;
	char name[96];

	hf_name(name, sizeof(name), t->name, row / rows);
	from = checkpoint_find(s->c, name);
	if (!from || from->bytes != dtype_row_bytes(from->type, cols) * (size_t)rows) {
		s->failed = true;
		memset(x, 0, (size_t)cols * sizeof(*x));
		return;
	}
	ref_dequant_row(x,
			s->bytes + from->offset +
				dtype_row_bytes(from->type, cols) * (size_t)(row % rows),
			cols, from->type);
}

static uint8_t *read_file(const char *path, size_t *size)
{
	FILE *f = fopen(path, "rb");
	uint8_t *p = NULL;
	long n;

	if (f && !fseek(f, 0, SEEK_END) && (n = ftell(f)) > 0 && (p = calloc(1, (size_t)n + 1))) {
		rewind(f);
		*size = fread(p, 1, (size_t)n, f);
	}
	if (f)
		fclose(f);
	return p;
}

static bool quantise(const char *out, const char *format)
{
	struct source s = {.failed = false};
	struct synth_shape shape;
	struct synth_job job = {.shape = &shape,
				.format = synth_format_find(format),
				.out = out,
				.name = "built-in model",
				.row = source_row,
				.row_ctx = &s,
				.threads = 1};
	struct err e = {""};
	json_t *config = synth_config_load(MODEL, &e);
	uint64_t bytes;
	size_t size;
	bool ok;

	s.bytes = read_file(MODEL "/model.safetensors", &size);
	ok = config && s.bytes && !checkpoint_open(&s.c, MODEL, &e) &&
	     !synth_shape_parse(&shape, config, &e) && !synth_write(&job, &bytes, &e) && !s.failed;
	CHECK(ok, "the built-in model can be written as %s %s", format, e.msg);
	if (s.c)
		checkpoint_close(s.c);
	free(s.bytes);
	json_decref(config);
	return ok;
}

/* ---- questions ---------------------------------------------------------------------------------- */

/*
 * The entry of docs/faq.md after p as a chat: "### Question", notes between *stars*, one paragraph.
 * Returns where it ends, NULL after the last.
 */
static const char *next_chat(const char *p, char *chat, size_t size)
{
	char answer[2048] = "", question[256];
	bool note = false;
	size_t n = 0;

	p = strstr(p, "\n### ");
	if (!p || sscanf(p, "\n### %255[^\n]", question) != 1)
		return NULL;
	for (p = strchr(p + 1, '\n'); p; p = strchr(p + 1, '\n')) {
		int len = (int)strcspn(p + 1, "\n");

		if (p[1] == '#' || (n && !len))
			break;
		if (p[1] == '*')
			note = true;
		if (!note && len && n + (size_t)len + 2 < sizeof(answer))
			n += (size_t)snprintf(answer + n, sizeof(answer) - n, "%s%.*s",
					      n ? " " : "", len, p + 1);
		if (len && p[len] == '*')
			note = false;
	}
	snprintf(chat, size, "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n%s<|im_end|>",
		 question, answer);
	return p;
}

struct chats {
	struct ids v[QUESTIONS];
	int answer[QUESTIONS]; /* index of the assistant's <|im_start|>: what it was trained on */
	int n;
};

static bool read_chats(struct chats *c)
{
	struct tokenizer *t = NULL;
	struct err e = {""};
	size_t size = 0;
	char *text = (char *)read_file(TEXT, &size), chat[2600];
	bool ok = text && !tokenizer_open_hf(&t, MODEL "/tokenizer.json", &e);

	for (const char *p = text; ok && p && c->n < QUESTIONS;) {
		struct ids *v = &c->v[c->n];

		p = next_chat(p, chat, sizeof(chat));
		if (!p)
			break;
		ok = !tokenizer_encode(t, chat, strlen(chat), TOK_SPECIAL, v, &e);
		for (int i = 0; ok && i < (int)v->n; i++)
			if (v->v[i] == tokenizer_find(t, "<|im_start|>"))
				c->answer[c->n] = i;
		c->n++;
	}
	CHECK(ok && c->n == QUESTIONS, "%s gives %d questions %s", TEXT, c->n, e.msg);
	tokenizer_close(t);
	free(text);
	return ok;
}

/* ---- perplexity --------------------------------------------------------------------------------- */

/* Negative log-likelihood of each id after `first`, added up; negative without logits. */
static double surprise(struct engine *en, const int32_t *ids, int first, int n, float *logits)
{
	size_t vocab = (size_t)engine_info(en)->vocab;
	int32_t positions[MAX_IDS];
	struct err e;
	double sum = 0;

	for (int i = 0; i < n; i++)
		positions[i] = i;
	if (engine_logits(en, ids, (size_t)n, positions, (size_t)n - 1, logits, &e)) {
		CHECK(false, "logits: %s", e.msg);
		return -1;
	}
	for (int i = first; i + 1 < n; i++) {
		const float *l = logits + (size_t)i * vocab;
		double top = l[0], z = 0;

		for (size_t v = 1; v < vocab; v++)
			top = fmax(top, l[v]);
		for (size_t v = 0; v < vocab; v++)
			z += exp(l[v] - top);
		sum += log(z) + top - l[ids[i + 1]];
	}
	return sum;
}

/* exp of the mean surprise; negative if something failed. */
static double perplexity(const char *model, const char *backend, int kv_type, const struct chats *c)
{
	struct engine_opts o = {.model = model,
				.backend = backend,
				.exact = !strcmp(backend, "ref"),
				.kv_type = kv_type,
				.ctx = MAX_IDS,
				.max_seqs = 1};
	struct engine *en = NULL;
	struct err e = {""};
	double sum = 0;
	float *logits;
	int count = 0;

	if (engine_open(&en, &o, &e)) {
		CHECK(false, "%s opens: %s", model, e.msg);
		return -1;
	}
	logits = calloc((size_t)MAX_IDS * (size_t)engine_info(en)->vocab, sizeof(*logits));
	for (int i = 0; logits && sum >= 0 && i < c->n; i++) {
		int n = c->v[i].n < MAX_IDS ? (int)c->v[i].n : MAX_IDS;
		double s = surprise(en, c->v[i].v, c->answer[i], n, logits);

		sum = s < 0 ? s : sum + s;
		count += n - 1 - c->answer[i];
	}
	free(logits);
	engine_close(en);
	return count && sum >= 0 ? exp(sum / count) : -1;
}

static void test_model(const char *model, const char *what, const struct chats *c)
{
	static const int types[] = {KV_BF16, KV_FP8};
	double ref = perplexity(model, "ref", KV_F32, c);

	for (int i = 0; i < 2; i++) {
		double cpu = perplexity(model, "cpu", types[i], c);

		CHECK(ref > 1 && cpu > 1 && fabs(cpu / ref - 1) <= TOLERANCE,
		      "%s: perplexity %.4f on cpu with %s KV, %.4f on ref: %+.2f %%", what, cpu,
		      kv_type_name(types[i]), ref, 100 * (cpu / ref - 1));
	}
}

int main(void)
{
	static const char *const formats[] = {"gguf-q8_0", "gguf-q4_0"};
	struct chats c = {.n = 0};
	char path[64];

	if (access(MODEL "/model.safetensors", R_OK) || access(TEXT, R_OK)) {
		tap_skip("%s or %s is not there", MODEL, TEXT);
		return tap_done();
	}
	if (!read_chats(&c))
		return tap_done();
	test_model(MODEL, "BF16", &c);
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		snprintf(path, sizeof(path), "/tmp/llmdev-perplexity-%d.gguf", (int)getpid());
		if (quantise(path, formats[i]))
			test_model(path, formats[i], &c);
		unlink(path);
	}
	for (int i = 0; i < c.n; i++)
		ids_free(&c.v[i]);
	return tap_done();
}
