// SPDX-License-Identifier: MIT
/* Vocabularies inside GGUF files made here: what their keys mean, and bad ones refused by key. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/tap.h"
#include "text/tokenizer.h"
#include "weights/checkpoint.h"

static char tmp[] = "/tmp/test_gguf_XXXXXX";

/* ---- a GGUF file of keys only ---- */

struct writer {
	uint8_t v[1 << 14];
	size_t n;
	uint64_t keys;
};

static void put(struct writer *w, const void *p, size_t n)
{
	if (w->n + n <= sizeof(w->v)) {
		memcpy(w->v + w->n, p, n);
		w->n += n;
	}
}

static void put_u32(struct writer *w, uint32_t v)
{
	put(w, &v, 4);
}

static void put_u64(struct writer *w, uint64_t v)
{
	put(w, &v, 8);
}

static void put_str(struct writer *w, const char *s)
{
	put_u64(w, strlen(s));
	put(w, s, strlen(s));
}

static void key(struct writer *w, const char *name, uint32_t type)
{
	char full[64];

	snprintf(full, sizeof(full), "tokenizer.ggml.%s", name);
	put_str(w, full);
	put_u32(w, type);
	w->keys++;
}

static void begin(struct writer *w)
{
	memset(w, 0, sizeof(*w));
	put(w, "GGUF", 4);
	put_u32(w, 3);
	put_u64(w, 0);
	put_u64(w, 0); /* patched */
	put_str(w, "general.architecture");
	put_u32(w, 8);
	put_str(w, "llama");
	w->keys++;
}

static void text_key(struct writer *w, const char *name, const char *s)
{
	key(w, name, 8);
	put_str(w, s);
}

static void id_key(struct writer *w, const char *name, uint32_t v)
{
	key(w, name, 4);
	put_u32(w, v);
}

static void flag_key(struct writer *w, const char *name, bool v)
{
	uint8_t b = v;

	key(w, name, 7);
	put(w, &b, 1);
}

static void strings(struct writer *w, const char *name, const char *const *s, uint64_t n)
{
	key(w, name, 9);
	put_u32(w, 8);
	put_u64(w, n);
	for (uint64_t i = 0; i < n; i++)
		put_str(w, s[i]);
}

static void numbers(struct writer *w, const char *name, uint32_t type, const void *v, uint64_t n)
{
	key(w, name, 9);
	put_u32(w, type);
	put_u64(w, n);
	put(w, v, n * 4);
}

/* Writes the file and opens its tokenizer. */
static struct tokenizer *open_file(struct writer *w, struct err *e)
{
	struct tokenizer *t = NULL;
	struct checkpoint *c;
	char path[256];
	size_t n;
	FILE *f;

	*e->msg = 0;
	memcpy(w->v + 16, &w->keys, 8);
	snprintf(path, sizeof(path), "%s/vocab.gguf", tmp);
	f = fopen(path, "w");
	/* the data section starts aligned; what is behind w->n is zero */
	n = (w->n + 31) / 32 * 32;
	if (!f || fwrite(w->v, 1, n, f) != n || fclose(f))
		return NULL;
	if (checkpoint_open(&c, path, e))
		return NULL;
	if (tokenizer_open(&t, c, e))
		t = NULL;
	checkpoint_close(c);
	return t;
}

/* The ids of text are want[0..n). */
static bool gives(const struct tokenizer *t, const char *text, unsigned flags, int n,
		  const int32_t *want)
{
	struct ids ids = {0};
	struct err e = {""};
	bool ok = !tokenizer_encode(t, text, strlen(text), flags, &ids, &e) && ids.n == (size_t)n &&
		  !memcmp(ids.v, want, (size_t)n * sizeof(*want));

	if (!ok) {
		printf("#   \"%s\" gave", text);
		for (size_t i = 0; i < ids.n; i++)
			printf(" %d", ids.v[i]);
		printf(" %s\n", e.msg);
	}
	ids_free(&ids);
	return ok;
}

#define IDS(...)                                                                                   \
	(int)(sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t)), (const int32_t[])               \
	{                                                                                          \
		__VA_ARGS__                                                                        \
	}

/* ---- SentencePiece ---- */

#define M "\xe2\x96\x81"
static const char *const spm_tokens[] = {"<unk>",
					 "<s>",
					 "</s>",
					 "<0x41>",
					 M,
					 "a",
					 "b",
					 "ab",
					 M "a",
					 "<",
					 "/",
					 "s",
					 ">",
					 "</",
					 "</"
					 "s",
					 M M,
					 "[X]",
					 "<0xC3>",
					 "<0xA9>"};
static const float spm_scores[] = {0,  0,  0,  0,   -1,	 -2,  -3, -4, -5, -6,
				   -7, -8, -9, -10, -11, -12, 0,  0,  0};
static const int32_t spm_types[] = {2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4, 6, 6};
#define N_SPM (sizeof(spm_tokens) / sizeof(spm_tokens[0]))

static void spm(struct writer *w)
{
	begin(w);
	text_key(w, "model", "llama");
	strings(w, "tokens", spm_tokens, N_SPM);
	numbers(w, "scores", 6, spm_scores, N_SPM);
	numbers(w, "token_type", 5, spm_types, N_SPM);
	id_key(w, "bos_token_id", 1);
	id_key(w, "eos_token_id", 2);
	id_key(w, "unknown_token_id", 0);
}

static void test_spm(void)
{
	static struct writer w;
	struct tokenizer *t;
	struct err e;
	int32_t eos[4];
	char *text;
	size_t len;

	spm(&w);
	t = open_file(&w, &e);
	REQUIRE(t, "an SPM vocabulary opens %s", e.msg);
	CHECK(gives(t, "ab", 0, IDS(4, 7)), "the better score is merged first, a space in front");
	CHECK(gives(t, "ab", TOK_BOS, IDS(1, 4, 7)) && tokenizer_adds_bos(t) &&
		      tokenizer_bos(t) == 1,
	      "BOS is added unless the file says no");
	CHECK(gives(t, "", TOK_BOS, IDS(1)), "no text is BOS alone");
	CHECK(gives(t, "a\xc3\xa9", 0, IDS(8, 17, 18)), "a character without a token is its bytes");
	CHECK(gives(t, "a\xc3\xaa", 0, IDS(8, 0)), "or unknown, if they are not all there");
	CHECK(gives(t, "</s>", 0, IDS(4, 14, 12)), "merges never make a control token");
	CHECK(gives(t, "</s>a", TOK_SPECIAL, IDS(2, 8)), "its text does where that is asked for");
	CHECK(gives(t, "b[X]b", 0, IDS(4, 6, 16, 4, 6)), "user-defined tokens are always found");
	CHECK(tokenizer_eos(t, eos, 4) == 1 && eos[0] == 2, "the end of text is known");
	CHECK(!tokenizer_decode(t, (const int32_t[]){1, 8, 3, 16}, 4, true, &text, &len, &e) &&
		      !strcmp(text, "aA[X]"),
	      "decoding drops the first space");
	free(text);
	tokenizer_close(t);

	spm(&w);
	flag_key(&w, "add_bos_token", false);
	flag_key(&w, "add_eos_token", true);
	flag_key(&w, "add_space_prefix", false);
	t = open_file(&w, &e);
	REQUIRE(t, "with other flags too %s", e.msg);
	CHECK(gives(t, "ab", TOK_BOS, IDS(7, 2)), "no BOS, an EOS, no space in front");
	tokenizer_close(t);
}

/* ---- byte-level ---- */

static const char *const bpe_tokens[] = {"a", "b",  "ab",    "\xc4\xa0", "1",
					 "2", "12", "<end>", "<x>"};
static const char *const bpe_merges[] = {"a b", "1 2"};
static const int32_t bpe_types[] = {1, 1, 1, 1, 1, 1, 1, 3, 4};
#define N_BPE (sizeof(bpe_tokens) / sizeof(bpe_tokens[0]))

static void bpe(struct writer *w, const char *pre)
{
	begin(w);
	text_key(w, "model", "gpt2");
	if (pre)
		text_key(w, "pre", pre);
	strings(w, "tokens", bpe_tokens, N_BPE);
	numbers(w, "token_type", 5, bpe_types, N_BPE);
	strings(w, "merges", bpe_merges, 2);
	id_key(w, "bos_token_id", 7);
}

static void test_bpe(void)
{
	static const char *const names[] = {"default", "gpt-2",	 "qwen2",  "qwen35", "llama-bpe",
					    "pixtral", "tekken", "gpt-4o", "smollm"};
	static struct writer w;
	struct tokenizer *t;
	struct err e;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		/* \p{N} alone keeps digits apart; {1,3} and + do not */
		bool apart = strchr("qt", *names[i]) || !strcmp(names[i], "smollm");
		bool bos = strchr("lpt", *names[i]);

		bpe(&w, names[i]);
		t = open_file(&w, &e);
		if (!CHECK(t, "pre %s opens %s", names[i], e.msg))
			continue;
		CHECK(apart ? gives(t, "ab 12", 0, IDS(2, 3, 4, 5))
			    : gives(t, "ab 12", 0, IDS(2, 3, 6)),
		      "%s splits digits as it should", names[i]);
		CHECK(tokenizer_adds_bos(t) == bos, "%s: BOS by default: %d", names[i], bos);
		CHECK(gives(t, "a<x>b<end>", TOK_SPECIAL, IDS(0, 8, 1, 7)) &&
			      gives(t, "a<x>b", 0, IDS(0, 8, 1)),
		      "%s: special and user-defined tokens", names[i]);
		tokenizer_close(t);
	}
}

/* ---- bad files ---- */

static void refused(const char *what, struct writer *w, const char *field)
{
	struct err e;
	struct tokenizer *t = open_file(w, &e);

	CHECK(!t && strstr(e.msg, field) && strstr(e.msg, "vocab.gguf"), "%s: %s", what, e.msg);
	tokenizer_close(t);
}

static void test_bad(void)
{
	static const char *const unknown[] = {"a c"}, *const one[] = {"ab"},
				 *const empty[] = {"", ""};
	static const char *const damaged[] = {"a", "\xff\xfe"};
	static const float scores[] = {0, 1};
	static const uint32_t nan[] = {0, 0x7fc00000};
	static char huge[2000];
	const char *const list[] = {"a", huge};
	static struct writer w;

	memset(huge, 'x', sizeof(huge) - 1);
	begin(&w);
	refused("no tokenizer", &w, "tokenizer.ggml.model");
	begin(&w);
	text_key(&w, "model", "bert");
	refused("another model", &w, "bert");
	begin(&w);
	id_key(&w, "model", 5);
	refused("a model that is a number", &w, "tokenizer.ggml.model");
	begin(&w);
	text_key(&w, "model", "llama");
	refused("no tokens", &w, "tokenizer.ggml.tokens");
	bpe(&w, "brand-new");
	refused("an unknown pre-tokenizer", &w, "brand-new");
	begin(&w);
	text_key(&w, "model", "gpt2");
	strings(&w, "tokens", bpe_tokens, N_BPE);
	refused("no merges", &w, "tokenizer.ggml.merges");
	strings(&w, "merges", unknown, 1);
	refused("a merge of unknown tokens", &w, "merges[0]");
	begin(&w);
	text_key(&w, "model", "gpt2");
	strings(&w, "tokens", bpe_tokens, N_BPE);
	strings(&w, "merges", one, 1);
	refused("a merge of one", &w, "merges[0]");
	begin(&w);
	text_key(&w, "model", "llama");
	strings(&w, "tokens", spm_tokens, N_SPM);
	refused("no scores", &w, "tokenizer.ggml.scores");
	numbers(&w, "scores", 6, scores, 2);
	refused("too few scores", &w, "tokenizer.ggml.scores");
	begin(&w);
	text_key(&w, "model", "llama");
	strings(&w, "tokens", spm_tokens, 2);
	numbers(&w, "scores", 6, nan, 2);
	refused("a score that is no number", &w, "tokenizer.ggml.scores");
	begin(&w);
	text_key(&w, "model", "llama");
	strings(&w, "tokens", spm_tokens, 2);
	numbers(&w, "scores", 5, scores, 2);
	refused("scores of another type", &w, "tokenizer.ggml.scores");
	begin(&w);
	text_key(&w, "model", "llama");
	strings(&w, "tokens", empty, 2);
	refused("empty tokens", &w, "tokenizer.ggml.tokens");
	begin(&w);
	text_key(&w, "model", "llama");
	strings(&w, "tokens", damaged, 2);
	refused("a token that is no UTF-8", &w, "tokens[1]");
	begin(&w);
	text_key(&w, "model", "llama");
	strings(&w, "tokens", list, 2);
	refused("an endless token", &w, "tokens[1]");
	spm(&w);
	id_key(&w, "eot_token_id", 1000);
	refused("an id out of range", &w, "eot_token_id");
	spm(&w);
	flag_key(&w, "remove_extra_whitespaces", true);
	refused("what is not supported", &w, "remove_extra_whitespaces");
}

int main(void)
{
	char path[300];

	if (!mkdtemp(tmp))
		return 1;
	test_spm();
	test_bpe();
	test_bad();
	snprintf(path, sizeof(path), "%s/vocab.gguf", tmp);
	unlink(path);
	rmdir(tmp);
	return tap_done();
}
