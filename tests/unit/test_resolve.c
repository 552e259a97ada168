// SPDX-License-Identifier: MIT
/* model/resolve: names against a Hugging Face cache and an Ollama store made in a temporary place. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/resolve.h"
#include "tests/tap.h"

#define DIGEST "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static char root[128];

/* Writes a file under the temporary place, making its directories. */
static void put(const char *path, const char *content)
{
	char full[1024];
	FILE *f;

	snprintf(full, sizeof(full), "%s/%s", root, path);
	for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')); *p++ = '/') {
		*p = 0;
		mkdir(full, 0777);
	}
	f = fopen(full, "w");
	if (f) {
		fputs(content, f);
		fclose(f);
	}
}

static void expect(const char *model, const char *want)
{
	char path[MODEL_PATH_MAX], full[1024];
	struct err e = {""};
	int rc = model_resolve(model, path, &e);

	snprintf(full, sizeof(full), "%s/%s", root, want);
	CHECK(!rc && !strcmp(path, full), "%s -> %s (%s)", model, want, rc ? e.msg : path);
}

static void refuse(const char *model, int want, const char *part)
{
	char path[MODEL_PATH_MAX];
	struct err e = {""};
	int rc = model_resolve(model, path, &e);

	CHECK(rc == want && strstr(e.msg, part), "%.64s is refused with \"%s\": %d %s", model, part,
	      rc, e.msg);
}

static void test_hf(void)
{
	put("hub/models--Org--Dense/refs/main", "abc123\n");
	put("hub/models--Org--Dense/refs/old", "fff");
	put("hub/models--Org--Dense/snapshots/abc123/config.json", "{}");
	put("hub/models--Org--Dense/snapshots/abc123/model.safetensors", "");
	put("hub/models--Org--Dense/snapshots/fff/config.json", "{}");
	put("hub/models--Org--Dense/snapshots/fff/model.safetensors", "");
	put("hub/models--Org--NoRef/snapshots/only/config.json", "{}");
	put("hub/models--Org--NoRef/snapshots/only/model-00001-of-00002.safetensors", "");
	put("hub/models--Org--Gguf/refs/main", "1");
	put("hub/models--Org--Gguf/snapshots/1/m-Q4_K_M.gguf", "");
	put("hub/models--Org--Gguf/snapshots/1/m-Q8_0-00001-of-00002.gguf", "");
	put("hub/models--Org--Gguf/snapshots/1/m-Q8_0-00002-of-00002.gguf", "");
	put("hub/models--Org--Bad/refs/main", "../../../etc");
	put("hub/models--Org--Empty/refs/main", "1");
	put("hub/models--Org--Empty/snapshots/1/README.md", "");

	expect("Org/Dense", "hub/models--Org--Dense/snapshots/abc123");
	expect("Org/Dense@old", "hub/models--Org--Dense/snapshots/fff");
	expect("Org/Dense@fff", "hub/models--Org--Dense/snapshots/fff");
	expect("Org/NoRef", "hub/models--Org--NoRef/snapshots/only");
	expect("Org/Gguf:q4_k_m", "hub/models--Org--Gguf/snapshots/1/m-Q4_K_M.gguf");
	expect("Org/Gguf:Q8_0", "hub/models--Org--Gguf/snapshots/1/m-Q8_0-00001-of-00002.gguf");
	refuse("Org/Gguf", -EINVAL, "2 GGUF files fit");
	refuse("Org/Gguf:Q5_0", -ENOENT, "no such file");
	refuse("Org/Dense@../..", -ENOENT, "no such file");
	refuse("Org/Bad", -ENOENT, "no such file");
	refuse("Org/Empty", -ENOENT, "no such file");
	refuse("Org/..", -ENOENT, "no such file");
}

static void test_ollama(void)
{
	const char *manifest =
		"{\"layers\":[{\"mediaType\":\"application/vnd.ollama.image.license\",\"digest\":"
		"\"sha256:00\"},{\"mediaType\":\"application/vnd.ollama.image.model\",\"digest\":"
		"\"sha256:" DIGEST "\"}]}";

	put("ollama/blobs/sha256-" DIGEST, "GGUF");
	put("ollama/manifests/registry.ollama.ai/library/tiny/latest", manifest);
	put("ollama/manifests/registry.ollama.ai/library/tiny/0.6b", manifest);
	put("ollama/manifests/registry.ollama.ai/someone/tiny/latest", manifest);
	put("ollama/manifests/hf.co/org/repo/q4", manifest);
	put("ollama/manifests/registry.ollama.ai/library/evil/latest",
	    "{\"layers\":[{\"mediaType\":\"application/vnd.ollama.image.model\",\"digest\":"
	    "\"sha256:../../../../../../../../../../etc/passwd\"}]}");
	put("ollama/manifests/registry.ollama.ai/library/broken/latest", "{");

	expect("tiny", "ollama/blobs/sha256-" DIGEST);
	expect("tiny:0.6b", "ollama/blobs/sha256-" DIGEST);
	expect("someone/tiny", "ollama/blobs/sha256-" DIGEST);
	expect("hf.co/org/repo:q4", "ollama/blobs/sha256-" DIGEST);
	refuse("tiny:7b", -ENOENT, "Ollama's store");
	refuse("evil", -ENOENT, "no such file");
	refuse("broken", -ENOENT, "no such file");
	refuse("a/b/c/d", -ENOENT, "no such file");
}

static void test_paths(void)
{
	char path[MODEL_PATH_MAX], full[1024], *longname = calloc(1, 5001);
	struct err e;

	snprintf(full, sizeof(full), "%s/hub", root);
	CHECK(!model_resolve(full, path, &e) && !strcmp(path, full), "a path is taken as it is");
	refuse("/no/such/thing", -ENOENT, "/no/such/thing: no such file");
	refuse("./nothing.gguf", -ENOENT, "no such file or directory");
	refuse("", -EINVAL, "no name given");
	memset(longname, 'x', 5000);
	refuse(longname, -ENAMETOOLONG, "too long");
	free(longname);
}

static void test_list(void)
{
	static const char *const want[] = {"Org/Dense",
					   "Org/Gguf:m-Q4_K_M.gguf",
					   "Org/Gguf:m-Q8_0-00001-of-00002.gguf",
					   "Org/NoRef",
					   "hf.co/org/repo:q4",
					   "someone/tiny:latest",
					   "tiny:0.6b",
					   "tiny:latest"};
	struct model_entry *v = NULL;
	char path[MODEL_PATH_MAX];
	struct err e;
	size_t n = 0;

	CHECK(!model_list(&v, &n, &e) && n == 8, "lists what is whole: %zu", n);
	for (size_t i = 0; i < n && i < 8; i++) {
		CHECK(!strcmp(v[i].name, want[i]), "entry %zu is %s", i, v[i].name);
		CHECK(!model_resolve(v[i].name, path, &e) && !strcmp(path, v[i].path),
		      "%s resolves to what the list says", v[i].name);
	}
	free(v);
}

int main(void)
{
	char clean[160], value[256];

	snprintf(root, sizeof(root), "/tmp/llmdev-resolve-XXXXXX");
	if (!mkdtemp(root))
		return 1;
	snprintf(value, sizeof(value), "%s/hub", root);
	setenv("HF_HUB_CACHE", value, 1);
	snprintf(value, sizeof(value), "%s/ollama", root);
	setenv("OLLAMA_MODELS", value, 1);
	test_hf();
	test_ollama();
	test_paths();
	test_list();
	snprintf(clean, sizeof(clean), "rm -rf '%s'", root);
	if (system(clean))
		printf("# %s stays\n", root);
	return tap_done();
}
