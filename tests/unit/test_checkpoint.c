// SPDX-License-Identifier: MIT
/* Checkpoints: directories, shards, split GGUF, templates; and what is refused. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/tap.h"
#include "tests/unit/weights_files.h"
#include "weights/checkpoint.h"

static void put_tensors(const char *name, const char *header, size_t data)
{
	struct bytes b = {0};

	add_safetensors(&b, header, data);
	put_file(name, b.p, b.n);
	free(b.p);
}

/* A file in the way of the next test goes. */
static void gone(const char *name)
{
	unlink(scratch(name));
}

#define ONE(name) "{\"" name "\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}"

static void good_directory(const char *dir)
{
	struct checkpoint *c;
	struct err e;
	struct gguf_array a;

	put_text("config.json", "{\"model_type\":\"x\",\"limit\":[0.0, Infinity, -Infinity],"
				"\"s\":\"Infinity \\\" Infinity\"}");
	put_tensors("model.safetensors", ONE("a"), 4);
	REQUIRE(checkpoint_open(&c, dir, &e) == 0, "a directory opens (%s)", e.msg);
	CHECK(checkpoint_kind(c) == CHECKPOINT_SAFETENSORS && checkpoint_n_files(c) == 1 &&
		      checkpoint_n_tensors(c) == 1 && !strcmp(checkpoint_dir(c), dir) &&
		      !strcmp(checkpoint_path(c), dir),
	      "one file, one tensor");
	CHECK(checkpoint_find(c, "a") == checkpoint_tensor(c, 0) && !checkpoint_find(c, "b"),
	      "by name");
	CHECK(!checkpoint_generation_config(c) && !checkpoint_chat_template(c), "nothing optional");
	CHECK(json_real_value(json_array_get(json_object_get(checkpoint_config(c), "limit"), 1)) >
		      1e300,
	      "Infinity is a large number");
	CHECK(!strcmp(json_string_value(json_object_get(checkpoint_config(c), "s")),
		      "Infinity \" Infinity"),
	      "but not in strings");
	CHECK(checkpoint_gguf_array(c, "tokenizer.ggml.tokens", &a) == -ENOENT, "no GGUF arrays");
	checkpoint_close(c);

	put_text("generation_config.json", "{\"eos_token_id\":[1,2]}");
	put_text("tokenizer_config.json", "{\"chat_template\":\"{{ x }}\"}");
	REQUIRE(checkpoint_open(&c, scratch("model.safetensors"), &e) == 0, "by its file (%s)",
		e.msg);
	CHECK(!strcmp(checkpoint_dir(c), dir), "the directory is meant");
	CHECK(json_object_get(checkpoint_generation_config(c), "eos_token_id"),
	      "generation_config");
	CHECK(!strcmp(checkpoint_chat_template(c), "{{ x }}"), "template as a string");
	checkpoint_close(c);

	put_text("tokenizer_config.json",
		 "{\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"T\"},"
		 "{\"name\":\"default\",\"template\":\"D\"}]}");
	REQUIRE(checkpoint_open(&c, dir, &e) == 0, "opens (%s)", e.msg);
	CHECK(!strcmp(checkpoint_chat_template(c), "D"), "the default of a list of templates");
	checkpoint_close(c);

	put_text("chat_template.jinja", "J\n");
	REQUIRE(checkpoint_open(&c, dir, &e) == 0, "opens (%s)", e.msg);
	CHECK(!strcmp(checkpoint_chat_template(c), "J\n"), "chat_template.jinja comes first");
	checkpoint_close(c);
	gone("chat_template.jinja");
	gone("tokenizer_config.json");
	gone("generation_config.json");
}

static void refuse(const char *path, const char *says, const char *what)
{
	struct checkpoint *c = NULL;
	struct err e = {"(none)"};
	int rc = checkpoint_open(&c, path, &e);

	CHECK(rc < 0 && strstr(e.msg, says), "refused: %s (%d %s)", what, rc, e.msg);
	if (!rc)
		checkpoint_close(c);
}

static void bad_directory(const char *dir)
{
	put_text("config.json", "{\"a\":1,}");
	refuse(dir, "config.json: line 1", "broken config.json");
	put_text("config.json", "[]");
	refuse(dir, "config.json: not a JSON object", "config.json that is a list");
	put_text("config.json", "{\"a\":1,\"a\":2}");
	refuse(dir, "config.json: line", "config.json with a key twice");
	put_text("config.json", "{}");
	put_text("generation_config.json", "{");
	refuse(dir, "generation_config.json", "broken generation_config.json");
	gone("generation_config.json");
	put_text("tokenizer_config.json", "{\"chat_template\":7}");
	refuse(dir, "tokenizer_config.json: chat_template", "template that is a number");
	put_text("tokenizer_config.json", "{\"chat_template\":[{\"name\":\"x\"}]}");
	refuse(dir, "tokenizer_config.json: chat_template[0]", "template list without templates");
	gone("tokenizer_config.json");
	put_file("chat_template.jinja", "\xff", 1);
	refuse(dir, "chat_template.jinja: no UTF-8", "template that is no text");
	gone("chat_template.jinja");
	gone("model.safetensors");
	refuse(dir, "neither model.safetensors nor", "no weights");
	mkfifo(scratch("model.safetensors"), 0600);
	refuse(dir, "model.safetensors: not a regular file", "a pipe for weights");
	gone("model.safetensors");
	gone("config.json");
	refuse(dir, "no config.json", "no config.json");
	refuse(scratch("nothing"), "cannot be opened", "nothing there");
	refuse("/dev/null", "not a regular file", "a device");
	put_text("config.json", "{}");
	if (geteuid()) {
		chmod(scratch("config.json"), 0);
		refuse(dir, "config.json: cannot be opened: Permission", "unreadable file");
		chmod(scratch("config.json"), 0600);
	} else {
		tap_skip("root can read every file");
	}
}

static void shards(const char *dir)
{
	static const char index[] = "model.safetensors.index.json";
	struct checkpoint *c;
	struct err e;
	char long_map[600];

	put_text("config.json", "{}");
	put_tensors("m-1.safetensors", ONE("a"), 4);
	put_tensors("m-2.safetensors", ONE("b"), 4);
	put_text(index, "{\"metadata\":{},\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2."
			"safetensors\"}}");
	REQUIRE(checkpoint_open(&c, dir, &e) == 0, "two shards open (%s)", e.msg);
	CHECK(checkpoint_n_files(c) == 2 && checkpoint_n_tensors(c) == 2, "with two tensors");
	CHECK(checkpoint_find(c, "a")->file != checkpoint_find(c, "b")->file, "in two files");
	checkpoint_close(c);

	put_text(index, "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"z\":\"m-2.safetensors\"}}");
	refuse(dir, "names tensor z", "weight_map with a tensor that no shard has");
	put_text(index, "{\"weight_map\":{\"b\":\"m-1.safetensors\",\"a\":\"m-2.safetensors\"}}");
	refuse(dir, "which m-1.safetensors does not hold", "weight_map with tensors swapped");
	put_text(index, "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"c\":\"m-3.safetensors\"}}");
	refuse(dir, "m-3.safetensors: shard is missing", "missing shard");
	put_tensors("m-2.safetensors", ONE("a"), 4);
	put_text(index, "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}");
	refuse(dir, "tensor a: duplicate name, also in another shard", "one tensor in two shards");
	put_text(index, "{\"weight_map\":{\"a\":\"../x.safetensors\"}}");
	refuse(dir, "weight_map[\"a\"]", "shard outside the directory");
	put_text(index, "{\"weight_map\":{\"a\":\"/etc/x.safetensors\"}}");
	refuse(dir, "weight_map[\"a\"]", "absolute shard");
	put_text(index, "{\"weight_map\":{\"a\":\"config.json\"}}");
	refuse(dir, "weight_map[\"a\"]", "shard that is no safetensors file");
	put_text(index, "{\"weight_map\":{\"a\":3}}");
	refuse(dir, "weight_map[\"a\"]", "shard that is a number");
	snprintf(long_map, sizeof(long_map), "{\"weight_map\":{\"a\":\"%0400d.safetensors\"}}", 7);
	put_text(index, long_map);
	refuse(dir, "weight_map[\"a\"]", "shard of 400 letters");
	put_text(index, "{\"weight_map\":{}}");
	refuse(dir, "weight_map is missing or empty", "empty weight_map");
	put_text(index, "{\"weight_map\":[]}");
	refuse(dir, "weight_map is missing or empty", "weight_map that is a list");
	put_text(index, "{");
	refuse(dir, index, "broken index");
	gone(index);
}

/* A part of a split GGUF file with one tensor. */
static void put_part(const char *file, const char *tensor, int no, int count, int total)
{
	struct bytes b = {0};

	add_gguf(&b, 3, 1, 4);
	add_str(&b, "split.no"), add_u32(&b, 4), add_u32(&b, (uint32_t)no);
	add_str(&b, "split.count"), add_u32(&b, 4), add_u32(&b, (uint32_t)count);
	add_str(&b, "split.tensors.count"), add_u32(&b, 5), add_u32(&b, (uint32_t)total);
	add_str(&b, "tokenizer.chat_template"), add_u32(&b, 8), add_str(&b, no ? "other" : "first");
	add_tensor(&b, tensor, 8, 0, 0, 0);
	pad_to(&b, 32);
	add_zeros(&b, 32);
	put_file(file, b.p, b.n);
	free(b.p);
}

static void split_gguf(void)
{
	struct checkpoint *c;
	struct err e;

	put_part("g-00001-of-00003.gguf", "a", 0, 3, 3);
	put_part("g-00002-of-00003.gguf", "b", 1, 3, 3);
	put_part("g-00003-of-00003.gguf", "c", 2, 3, 3);
	for (int i = 1; i <= 3; i++) {
		char name[32];

		snprintf(name, sizeof(name), "g-%05d-of-00003.gguf", i);
		REQUIRE(checkpoint_open(&c, scratch(name), &e) == 0, "opens from part %d (%s)", i,
			e.msg);
		CHECK(checkpoint_kind(c) == CHECKPOINT_GGUF && checkpoint_n_files(c) == 3 &&
			      checkpoint_n_tensors(c) == 3 && !checkpoint_dir(c),
		      "three files, three tensors");
		CHECK(checkpoint_find(c, "c")->file == 2, "c is in the third file");
		CHECK(!strcmp(checkpoint_chat_template(c), "first"),
		      "the first part's metadata count");
		checkpoint_close(c);
	}
	put_part("g-00003-of-00003.gguf", "b", 2, 3, 3);
	refuse(scratch("g-00001-of-00003.gguf"), "tensor b: duplicate", "one tensor in two parts");
	put_part("g-00003-of-00003.gguf", "c", 1, 3, 3);
	refuse(scratch("g-00001-of-00003.gguf"), "split.no", "a part under another's name");
	put_part("g-00003-of-00003.gguf", "c", 2, 4, 3);
	refuse(scratch("g-00001-of-00003.gguf"), "split.count", "a part of another set");
	gone("g-00003-of-00003.gguf");
	refuse(scratch("g-00001-of-00003.gguf"), "part 3 of 3 is missing", "a missing part");
	put_part("g-00003-of-00003.gguf", "c", 2, 3, 3);
	put_part("g-00001-of-00003.gguf", "a", 0, 3, 5);
	refuse(scratch("g-00002-of-00003.gguf"), "split.tensors.count", "a wrong sum of tensors");
	put_part("lone.gguf", "a", 1, 3, 3);
	refuse(scratch("lone.gguf"), "split.count", "a renamed part");
	put_part("lone.gguf", "a", 0, 1, 1);
	CHECK(checkpoint_open(&c, scratch("lone.gguf"), &e) == 0, "a set of one (%s)", e.msg);
	if (!e.msg[0])
		checkpoint_close(c);
	put_text("text.gguf", "hello");
	refuse(scratch("text.gguf"), "truncated", "a short text file");
	put_text("empty.gguf", "");
	refuse(scratch("empty.gguf"), "truncated", "an empty file");
}

/* The published tiny checkpoints, where they are at hand. */
static void oracle(void)
{
	const char *root = getenv("LLM_ORACLE");
	struct checkpoint *c;
	struct err e;
	char path[512];

	if (!root)
		root = "../shared/oracle";
	if (access(root, R_OK)) {
		tap_skip("oracle data: %s is not there", root);
		return;
	}
	snprintf(path, sizeof(path), "%s/float/gpt_oss", root);
	CHECK(checkpoint_open(&c, path, &e) == 0 && checkpoint_n_tensors(c) == 71, "gpt_oss opens");
	checkpoint_close(c);
	snprintf(path, sizeof(path), "%s/gguf/qwen3-Q4_K_M.gguf", root);
	CHECK(checkpoint_open(&c, path, &e) == 0 && checkpoint_n_tensors(c) == 25,
	      "qwen3-Q4_K_M opens");
	checkpoint_close(c);
}

static void arrays(void)
{
	struct bytes b = {0};
	struct checkpoint *c;
	struct gguf_array a;
	struct err e;
	const uint8_t *p;
	const char *s;
	uint64_t n;

	add_gguf(&b, 3, 0, 2);
	add_str(&b, "tokenizer.ggml.tokens"), add_u32(&b, 9), add_u32(&b, 8), add_u64(&b, 2);
	add_str(&b, "one"), add_str(&b, "\xc3");
	add_str(&b, "n"), add_u32(&b, 4), add_u32(&b, 1);
	put_file("a.gguf", b.p, b.n);
	free(b.p);
	REQUIRE(checkpoint_open(&c, scratch("a.gguf"), &e) == 0, "a vocabulary opens (%s)", e.msg);
	REQUIRE(checkpoint_gguf_array(c, "tokenizer.ggml.tokens", &a) == 0 && a.type == 8 &&
			a.count == 2,
		"its tokens are found");
	p = a.data;
	s = gguf_array_str(&p, &n);
	CHECK(n == 3 && !memcmp(s, "one", 3), "first string");
	s = gguf_array_str(&p, &n);
	CHECK(n == 1 && *s == '\xc3', "second string, half a character");
	CHECK(checkpoint_gguf_array(c, "n", &a) == -EINVAL, "a number is no array");
	CHECK(checkpoint_gguf_array(c, "m", &a) == -ENOENT, "no such key");
	checkpoint_close(c);
}

/* Headers of megabytes arrive in several reads, and stay whole. */
static void long_headers(const char *dir)
{
	const int n = 50000;
	struct bytes b = {0}, text = {0};
	struct checkpoint *c;
	struct gguf_array a;
	struct err e;
	const uint8_t *p;
	uint64_t len;
	char word[96];
	int good = 0;

	add_gguf(&b, 3, 1, 1);
	add_str(&b, "tokenizer.ggml.tokens"), add_u32(&b, 9), add_u32(&b, 8),
		add_u64(&b, (uint64_t)n);
	for (int i = 0; i < n; i++) {
		snprintf(word, sizeof(word), "token-%d", i * 7);
		add_str(&b, word);
	}
	add_tensor(&b, "w", 8, 0, 0, 0);
	pad_to(&b, 32);
	add_zeros(&b, 3 << 20);
	put_file("long.gguf", b.p, b.n);
	REQUIRE(checkpoint_open(&c, scratch("long.gguf"), &e) == 0, "1 MB of vocabulary opens (%s)",
		e.msg);
	REQUIRE(checkpoint_gguf_array(c, "tokenizer.ggml.tokens", &a) == 0 &&
			a.count == (uint64_t)n,
		"with all tokens");
	p = a.data;
	for (int i = 0; i < n; i++) {
		const char *s = gguf_array_str(&p, &len);

		snprintf(word, sizeof(word), "token-%d", i * 7);
		good += len == strlen(word) && !memcmp(s, word, len);
	}
	CHECK(good == n, "each as it was written");
	checkpoint_close(c);

	for (int i = 0; i < n / 5; i++) {
		snprintf(word, sizeof(word),
			 "%c\"t%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
			 i ? ',' : '{', i, i, i + 1);
		add(&text, word, strlen(word));
	}
	add(&text, "}", 2);
	put_tensors("model.safetensors", (const char *)text.p, (size_t)n / 5);
	put_text("config.json", "{}");
	REQUIRE(checkpoint_open(&c, dir, &e) == 0, "10,000 tensors open (%s)", e.msg);
	good = 0;
	for (int i = 0; i < n / 5; i++) {
		snprintf(word, sizeof(word), "t%d", i);
		good += checkpoint_find(c, word) == checkpoint_tensor(c, i);
	}
	CHECK(good == n / 5 && !checkpoint_find(c, "t10000"), "each is found by name");
	checkpoint_close(c);
	free(b.p);
	free(text.p);
}

int main(void)
{
	const char *dir = scratch_begin();

	good_directory(dir);
	bad_directory(dir);
	shards(dir);
	split_gguf();
	arrays();
	long_headers(dir);
	oracle();
	scratch_end();
	return tap_done();
}
