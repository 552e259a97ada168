// SPDX-License-Identifier: MIT
/*
 * Opens the vocabulary inside a GGUF file: tokenizer.ggml.model "gpt2" (byte-level BPE whose
 * pre-tokenizer is known by name only) and "llama" (SentencePiece by score).
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text/text_int.h"
#include "text/utf8.h"

#define KEY "tokenizer.ggml."

/* GGUF value types of arrays. */
enum { GGUF_I32 = 5, GGUF_F32 = 6, GGUF_STRING = 8 };

/* Values of tokenizer.ggml.token_type. */
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER = 4, TYPE_BYTE = 6 };

#define CONTRACTION  "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES	     "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define UPPER	     "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER	     "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define LETTER_START "[^\\r\\n\\p{L}\\p{N}]?"

static const char qwen2[] =
	CONTRACTION "|" LETTER_START "\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES;
static const char qwen35[] = CONTRACTION
	"|" LETTER_START "[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES;
static const char llama3[] =
	CONTRACTION "|" LETTER_START "\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES;
static const char tekken[] = LETTER_START UPPER "*" LOWER "+|" LETTER_START UPPER "+" LOWER
						"*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES;
static const char gpt4o[] =
	LETTER_START UPPER "*" LOWER "+" CONTRACTION "?|" LETTER_START UPPER "+" LOWER
			   "*" CONTRACTION "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES;

struct pre_name {
	const char *name;
	const char *split[4]; /* each cuts the pieces of the one before */
	bool nfc, ignore_merges, bos;
};

/* tokenizer.ggml.pre. The names were given by llama.cpp's converter. */
static const struct pre_name pre_names[] = {
	{"default", {"[\\p{P}\\$\\+<=>\\^~\\|]+", regex_gpt2, "\\p{N}+", "[0-9][0-9][0-9]"}},
	{"gpt-2", {regex_gpt2}},
	{"phi-2", {regex_gpt2}},
	{"mpt", {regex_gpt2}},
	{"olmo", {regex_gpt2}},
	{"jais", {regex_gpt2}},
	{"starcoder", {"\\p{N}", regex_gpt2}},
	{"refact", {"\\p{N}", regex_gpt2}},
	{"command-r", {"\\p{N}", regex_gpt2}},
	{"smollm", {"\\p{N}", regex_gpt2}},
	{"codeshell", {"\\p{N}", regex_gpt2}},
	{"exaone", {"\\p{N}", regex_gpt2}},
	{"qwen2", {qwen2}, .nfc = true},
	{"deepseek-r1-qwen", {qwen2}, .nfc = true},
	{"megrez", {qwen2}},
	{"qwen35", {qwen35}, .nfc = true},
	{"llama3", {llama3}, .ignore_merges = true, .bos = true},
	{"llama-v3", {llama3}, .ignore_merges = true, .bos = true},
	{"llama-bpe", {llama3}, .ignore_merges = true, .bos = true},
	{"falcon3", {llama3}, .ignore_merges = true, .bos = true},
	{"pixtral", {llama3}, .ignore_merges = true, .bos = true},
	{"dbrx", {llama3}},
	{"smaug-bpe", {llama3}},
	{"glm4", {llama3}},
	{"chatglm-bpe", {llama3}},
	{"tekken", {tekken}, .ignore_merges = true, .bos = true},
	{"gpt-4o", {gpt4o}},
	{"llama4", {gpt4o}},
};

struct gguf {
	const struct checkpoint *c;
	const char *path;
	const json_t *config;
	struct tokenizer *t;
	struct err *e;
	struct gguf_array tokens, types;
};

static int invalid(struct gguf *g, const char *key, const char *why)
{
	return err_set(g->e, -EINVAL, "%s: " KEY "%s: %s: the file is damaged: fetch it again",
		       g->path, key, why);
}

static int no_memory(struct gguf *g)
{
	return err_set(g->e, -ENOMEM, "%s: tokenizer: out of memory: free some", g->path);
}

static const json_t *value(struct gguf *g, const char *key)
{
	char full[64];

	snprintf(full, sizeof(full), KEY "%s", key);
	return json_object_get(g->config, full);
}

/* An array of `type` and (unless 0) `count` elements; -ENOENT if there is none. */
static int array(struct gguf *g, const char *key, uint32_t type, uint64_t count,
		 struct gguf_array *a)
{
	char full[64];
	int rc;

	snprintf(full, sizeof(full), KEY "%s", key);
	rc = checkpoint_gguf_array(g->c, full, a);
	if (rc)
		return rc == -ENOENT ? rc : invalid(g, key, "an array was expected");
	if (a->type != type)
		return invalid(g, key, "its elements have the wrong type");
	if (count && a->count != count)
		return invalid(g, key, "its length is not that of tokens");
	return 0;
}

/* A token id; -1 if the key is missing, -2 (with an error) if it is bad. */
static int32_t id_of(struct gguf *g, const char *key)
{
	const json_t *x = value(g, key);

	if (!x)
		return -1;
	if (!json_is_integer(x) || json_integer_value(x) < 0 ||
	    json_integer_value(x) >= g->t->v.n) {
		invalid(g, key, "no id of a token");
		return -2;
	}
	return (int32_t)json_integer_value(x);
}

static bool flag(struct gguf *g, const char *key, bool missing)
{
	const json_t *x = value(g, key);

	return json_is_boolean(x) ? json_is_true(x) : missing;
}

static int type_at(const struct gguf *g, uint64_t i)
{
	int32_t v;

	if (!g->types.count)
		return TYPE_NORMAL;
	memcpy(&v, g->types.data + 4 * i, 4);
	return v;
}

static int read_token(struct gguf *g, int64_t i, const char *s, uint64_t len)
{
	struct tokenizer *t = g->t;
	int type = type_at(g, (uint64_t)i);
	bool special = type == TYPE_CONTROL || type == TYPE_UNKNOWN;
	struct added a = {.id = (int32_t)i, .special = special};
	unsigned flags = TOK_F_MODEL;
	int rc;

	if (!len) /* a hole: some converters pad the vocabulary so */
		return 0;
	if (len > TOKEN_MAX_BYTES || utf8_valid_prefix(s, len) != len)
		return err_set(g->e, -EINVAL,
			       "%s: " KEY "tokens[%lld]: %s: the file is damaged: fetch it again",
			       g->path, (long long)i,
			       len > TOKEN_MAX_BYTES ? "longer than 1024 bytes"
						     : "not valid UTF-8");
	if (special)
		flags |= TOK_F_SPECIAL | TOK_F_LITERAL | TOK_F_NOMERGE;
	if (type == TYPE_USER)
		flags |= TOK_F_LITERAL;
	if (type == TYPE_BYTE)
		flags |= TOK_F_NOMERGE;
	/* a byte-level model merges normal tokens only; literal text is not in its alphabet */
	if (t->byte_level && (flags & TOK_F_LITERAL))
		flags &= ~TOK_F_MODEL;
	rc = vocab_set(&t->v, i, s, len, flags, (int64_t)g->tokens.count);
	if (!rc && (special || type == TYPE_USER))
		rc = added_put(&t->raw, s, len, &a);
	return rc ? no_memory(g) : 0;
}

static int read_tokens(struct gguf *g)
{
	const uint8_t *p;
	int rc = array(g, "tokens", GGUF_STRING, 0, &g->tokens);

	if (rc == -ENOENT)
		return err_set(g->e, rc,
			       "%s: " KEY "tokens: the file has no vocabulary: use token ids",
			       g->path);
	if (rc)
		return rc;
	if (!g->tokens.count || g->tokens.count > INT32_MAX / 4)
		return invalid(g, "tokens", "an absurd number of them");
	rc = array(g, "token_type", GGUF_I32, g->tokens.count, &g->types);
	if (rc && rc != -ENOENT)
		return rc;
	p = g->tokens.data;
	for (uint64_t i = 0; i < g->tokens.count; i++) {
		uint64_t len;
		const char *s = gguf_array_str(&p, &len);

		rc = read_token(g, (int64_t)i, s, len);
		if (rc)
			return rc;
	}
	return g->t->v.n ? 0 : invalid(g, "tokens", "all are empty");
}

static int read_merges(struct gguf *g)
{
	struct vocab *v = &g->t->v;
	char both[2 * TOKEN_MAX_BYTES];
	struct gguf_array a;
	const uint8_t *p;
	int rc = array(g, "merges", GGUF_STRING, 0, &a);

	if (rc == -ENOENT)
		return invalid(g, "merges", "missing");
	if (rc)
		return rc;
	if (a.count > UINT32_MAX / 2)
		return invalid(g, "merges", "an absurd number of them");
	p = a.data;
	for (uint64_t i = 0; i < a.count; i++) {
		uint64_t len;
		const char *s = gguf_array_str(&p, &len);
		const char *space = len > 1 ? memchr(s + 1, ' ', len - 1) : NULL;
		size_t left = space ? (size_t)(space - s) : 0;
		int32_t l = -1, r = -1, m = -1;

		if (space && len <= sizeof(both)) {
			memcpy(both, s, left);
			memcpy(both + left, space + 1, len - left - 1);
			l = vocab_lookup(v, both, left);
			r = vocab_lookup(v, both + left, len - left - 1);
			m = vocab_lookup(v, both, len - 1);
		}
		if (l < 0 || r < 0 || m < 0)
			return err_set(g->e, -EINVAL,
				       "%s: " KEY
				       "merges[%llu]: \"%.*s\": not two tokens that make "
				       "a third: the file is damaged: fetch it again",
				       g->path, (unsigned long long)i, (int)(len < 60 ? len : 60),
				       s);
		rc = vocab_add_merge(v, (uint32_t)l, (uint32_t)r, (uint32_t)i, (uint32_t)m, true);
		if (rc)
			return no_memory(g);
	}
	return 0;
}

static int read_bpe(struct gguf *g)
{
	struct tokenizer *t = g->t;
	const json_t *x = value(g, "pre");
	const char *name = json_string_value(x);
	const struct pre_name *pre = NULL;
	int rc;

	if (!x)
		name = "default";
	for (size_t i = 0; name && i < sizeof(pre_names) / sizeof(pre_names[0]); i++)
		if (!strcmp(name, pre_names[i].name))
			pre = &pre_names[i];
	if (!pre)
		return err_set(g->e, -EOPNOTSUPP,
			       "%s: " KEY
			       "pre: \"%.60s\": this pre-tokenizer is not known: use the "
			       "Hugging Face checkpoint, whose tokenizer.json spells it out",
			       g->path, name ? name : "(no string)");
	t->model = MODEL_BPE;
	t->byte_level = true;
	t->decoder = DECODE_BYTES;
	t->ignore_merges = pre->ignore_merges;
	if (pre->nfc)
		t->norm[t->n_norm++].kind = NORM_NFC;
	for (int i = 0; i < 4 && pre->split[i]; i++) {
		struct pre_step *s = &t->pre[t->n_pre++];

		s->kind = PRE_SPLIT;
		s->behavior = SPLIT_ISOLATED;
		rc = regex_compile(&s->re, pre->split[i], strlen(pre->split[i]), KEY "pre", g->e);
		if (rc)
			return rc;
	}
	rc = read_tokens(g);
	if (!rc)
		rc = read_merges(g);
	return rc;
}

static int set_text(struct gguf *g, struct norm_step *s, const char *from, const char *to)
{
	s->kind = from ? NORM_REPLACE : NORM_PREPEND;
	if (from) {
		s->pattern = strdup(from);
		s->pattern_len = strlen(from);
	}
	s->content = strdup(to);
	s->content_len = strlen(to);
	return s->content && (!from || s->pattern) ? 0 : no_memory(g);
}

static int read_spm(struct gguf *g)
{
	struct tokenizer *t = g->t;
	struct gguf_array a;
	int rc;

	if (flag(g, "remove_extra_whitespaces", false))
		return err_set(g->e, -EOPNOTSUPP,
			       "%s: " KEY "remove_extra_whitespaces: not supported: use "
			       "token ids",
			       g->path);
	if (value(g, "precompiled_charsmap"))
		return err_set(g->e, -EOPNOTSUPP,
			       "%s: " KEY "precompiled_charsmap: not supported: use token "
			       "ids",
			       g->path);
	t->model = MODEL_SPM;
	t->decoder = DECODE_CHAIN;
	t->decode_fallback = true;
	t->space_prefix = flag(g, "add_space_prefix", true);
	if (t->space_prefix) {
		t->strip = ' ';
		rc = set_text(g, &t->norm[t->n_norm++], NULL, " ");
		if (rc)
			return rc;
	}
	rc = set_text(g, &t->norm[t->n_norm++], " ", "\xe2\x96\x81");
	if (rc)
		return rc;
	t->n_replace = 1;
	t->replace[0] = (struct decode_replace){strdup("\xe2\x96\x81"), strdup(" "), 3, 1};
	if (!t->replace[0].from || !t->replace[0].to)
		return no_memory(g);
	rc = read_tokens(g);
	if (rc)
		return rc;
	rc = array(g, "scores", GGUF_F32, g->tokens.count, &a);
	if (rc)
		return rc == -ENOENT ? invalid(g, "scores", "missing") : rc;
	t->v.scores = malloc(a.count * sizeof(float));
	if (!t->v.scores)
		return no_memory(g);
	memcpy(t->v.scores, a.data, a.count * sizeof(float));
	for (uint64_t i = 0; i < a.count; i++)
		if (isnan(t->v.scores[i]))
			return invalid(g, "scores", "one of them is no number");
	t->unk = id_of(g, "unknown_token_id");
	return t->unk == -2 ? -EINVAL : 0;
}

static int read_ends(struct gguf *g, bool bos_default)
{
	static const char *const ends[] = {"eos_token_id", "eot_token_id", "eom_token_id"};
	struct tokenizer *t = g->t;
	int32_t eos = -1;

	t->bos = id_of(g, "bos_token_id");
	if (t->bos == -2)
		return -EINVAL;
	for (int i = 0; i < 3; i++) {
		int32_t id = id_of(g, ends[i]);

		if (id == -2)
			return -EINVAL;
		tokenizer_add_eos(t, id);
		if (!i)
			eos = id;
	}
	if (t->bos >= 0 && flag(g, "add_bos_token", bos_default) && ids_push(&t->bos_seq, t->bos))
		return no_memory(g);
	if (eos >= 0 && flag(g, "add_eos_token", false) && ids_push(&t->eos_seq, eos))
		return no_memory(g);
	return 0;
}

static bool pre_adds_bos(struct gguf *g)
{
	const char *name = json_string_value(value(g, "pre"));

	for (size_t i = 0; name && i < sizeof(pre_names) / sizeof(pre_names[0]); i++)
		if (!strcmp(name, pre_names[i].name))
			return pre_names[i].bos;
	return false;
}

int tokenizer_open_gguf(struct tokenizer **out, const struct checkpoint *c, struct err *e)
{
	struct gguf g = {.c = c,
			 .path = checkpoint_path(c),
			 .config = checkpoint_config(c),
			 .t = tokenizer_new(),
			 .e = e};
	const char *model;
	int rc;

	*out = NULL;
	if (!g.t)
		return no_memory(&g);
	model = json_string_value(value(&g, "model"));
	if (!model || !strcmp(model, "no_vocab") || !strcmp(model, "none"))
		rc = err_set(e, -ENOENT,
			     "%s: " KEY "model: the file has no tokenizer: use token ids", g.path);
	else if (!strcmp(model, "gpt2"))
		rc = read_bpe(&g);
	else if (!strcmp(model, "llama"))
		rc = read_spm(&g);
	else
		rc = err_set(
			e, -EOPNOTSUPP,
			"%s: " KEY
			"model: \"%.60s\" is not supported: use token ids, or a file with gpt2 "
			"or llama",
			g.path, model);
	if (!rc)
		rc = read_ends(&g, !strcmp(model, "llama") || pre_adds_bos(&g));
	if (!rc)
		rc = tokenizer_finish(g.t, e);
	if (rc)
		tokenizer_close(g.t);
	else
		*out = g.t;
	return rc;
}
