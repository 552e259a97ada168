// SPDX-License-Identifier: MIT
/* Model names -> paths; see resolve.h. Reads directories and two kinds of small files. */
#include "model/resolve.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Manifests are a few KB; whatever is larger is none. */
#define MANIFEST_MAX (1 << 20)

struct list {
	struct model_entry *v;
	size_t n, cap;
};

/* snprintf that reports truncation: a cut path must never be opened. */
__attribute__((format(printf, 3, 4))) static bool format_path(char *out, size_t size,
							      const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(out, size, fmt, ap);
	va_end(ap);
	return n >= 0 && (size_t)n < size;
}

static bool is_dir(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISDIR(st.st_mode);
}

static bool is_file(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISREG(st.st_mode);
}

static const char *env(const char *name)
{
	const char *v = getenv(name);

	return v && *v ? v : NULL;
}

/* A name from a file or the user that is to become one path component. */
static bool plain_component(const char *s)
{
	return *s && strcmp(s, ".") && strcmp(s, "..") && !strchr(s, '/');
}

static bool has_suffix(const char *s, const char *suffix)
{
	size_t n = strlen(s), m = strlen(suffix);

	return n >= m && !strcmp(s + n - m, suffix);
}

/* ---- Hugging Face --------------------------------------------------------------------------- */

static bool hf_root(char *out, size_t size)
{
	const char *home = env("HOME");

	if (env("HF_HUB_CACHE"))
		return format_path(out, size, "%s", env("HF_HUB_CACHE"));
	if (env("HF_HOME"))
		return format_path(out, size, "%s/hub", env("HF_HOME"));
	if (env("XDG_CACHE_HOME"))
		return format_path(out, size, "%s/huggingface/hub", env("XDG_CACHE_HOME"));
	return home && format_path(out, size, "%s/.cache/huggingface/hub", home);
}

/* refs/REVISION holds a commit; without it, a snapshot of that name or the only one there is. */
static bool hf_snapshot(char *out, size_t size, const char *repo, const char *revision)
{
	char path[MODEL_PATH_MAX], commit[128] = "";
	struct dirent *d;
	int found = 0;
	DIR *dir;
	FILE *f;

	if (!plain_component(revision))
		return false;
	if (format_path(path, sizeof(path), "%s/refs/%s", repo, revision) &&
	    (f = fopen(path, "re"))) {
		if (fgets(commit, sizeof(commit), f))
			commit[strcspn(commit, "\r\n \t")] = 0;
		fclose(f);
		return plain_component(commit) &&
		       format_path(out, size, "%s/snapshots/%s", repo, commit) && is_dir(out);
	}
	if (format_path(out, size, "%s/snapshots/%s", repo, revision) && is_dir(out))
		return true;
	if (strcmp(revision, "main") || !format_path(path, sizeof(path), "%s/snapshots", repo) ||
	    !(dir = opendir(path)))
		return false;
	while ((d = readdir(dir)))
		if (d->d_name[0] != '.' && format_path(out, size, "%s/%s", path, d->d_name) &&
		    is_dir(out))
			found++;
	closedir(dir);
	return found == 1;
}

static bool contains_ignoring_case(const char *s, const char *part)
{
	for (; *s; s++) {
		size_t i = 0;

		while (part[i] && tolower((unsigned char)s[i]) == tolower((unsigned char)part[i]))
			i++;
		if (!part[i])
			return true;
	}
	return false;
}

/* Of a split set only the first part counts. */
static bool later_part(const char *name)
{
	const char *of = strstr(name, "-of-");

	return of && of - name >= 6 && of[-6] == '-' && strncmp(of - 5, "00001", 5);
}

/*
 * What of a snapshot is the checkpoint: the directory if it has safetensors, else its GGUF file, or
 * the one whose name holds `filter`. Returns how many candidates there are; 1 fills `out`.
 */
static int hf_weights(char *out, size_t size, const char *snapshot, const char *filter)
{
	bool config = false, safetensors = false;
	char gguf[256] = "";
	struct dirent *d;
	int n = 0;
	DIR *dir = opendir(snapshot);

	while (dir && (d = readdir(dir))) {
		config |= !strcmp(d->d_name, "config.json");
		safetensors |= has_suffix(d->d_name, ".safetensors");
		if (!has_suffix(d->d_name, ".gguf") || later_part(d->d_name) ||
		    (filter && !contains_ignoring_case(d->d_name, filter)) ||
		    (!filter && contains_ignoring_case(d->d_name, "mmproj")))
			continue;
		snprintf(gguf, sizeof(gguf), "%s", d->d_name);
		n++;
	}
	if (dir)
		closedir(dir);
	if (!filter && config && safetensors)
		return format_path(out, size, "%s", snapshot) ? 1 : 0;
	if (n == 1 && !format_path(out, size, "%s/%s", snapshot, gguf))
		return 0;
	return n;
}

/* ORG/NAME[@REVISION][:FILTER]. Returns candidates as hf_weights(), 0 if it is not there. */
static int hf_find(char *out, size_t size, const char *root, const char *model)
{
	char name[256], repo[MODEL_PATH_MAX], snapshot[MODEL_PATH_MAX], *filter, *revision, *slash;

	if (!format_path(name, sizeof(name), "%s", model))
		return 0;
	filter = strchr(name, ':');
	if (filter)
		*filter++ = 0;
	revision = strchr(name, '@');
	if (revision)
		*revision++ = 0;
	slash = strchr(name, '/');
	if (!slash)
		return 0;
	*slash = 0;
	if (!plain_component(name) || !plain_component(slash + 1) ||
	    !format_path(repo, sizeof(repo), "%s/models--%s--%s", root, name, slash + 1) ||
	    !hf_snapshot(snapshot, sizeof(snapshot), repo, revision ? revision : "main"))
		return 0;
	return hf_weights(out, size, snapshot, filter);
}

/* ---- Ollama --------------------------------------------------------------------------------- */

/* The store's i-th place, in order of precedence; false after the last. */
static bool ollama_root(char *out, size_t size, int i)
{
	const char *set = env("OLLAMA_MODELS"), *home = env("HOME");

	if (set)
		return i == 0 && format_path(out, size, "%s", set);
	if (i == 0)
		return format_path(out, size, "%s/.ollama/models", home ? home : "/root");
	if (i == 1)
		return format_path(out, size, "/usr/share/ollama/.ollama/models");
	return i == 2 && format_path(out, size, "/var/lib/ollama/models");
}

/* The manifest's model layer: a GGUF file among the blobs. */
static bool ollama_blob(char *out, size_t size, const char *root, const char *manifest)
{
	struct stat st;
	json_t *m, *layers, *layer;
	bool found = false;
	size_t i;

	if (stat(manifest, &st) || !S_ISREG(st.st_mode) || st.st_size > MANIFEST_MAX)
		return false;
	m = json_load_file(manifest, 0, NULL);
	layers = json_object_get(m, "layers");
	json_array_foreach (layers, i, layer) {
		const char *type = json_string_value(json_object_get(layer, "mediaType"));
		const char *digest = json_string_value(json_object_get(layer, "digest"));

		if (!type || !digest || strcmp(type, "application/vnd.ollama.image.model") ||
		    strncmp(digest, "sha256:", 7) || strspn(digest + 7, "0123456789abcdef") != 64 ||
		    digest[7 + 64])
			continue;
		found = format_path(out, size, "%s/blobs/sha256-%s", root, digest + 7) &&
			is_file(out);
		break;
	}
	json_decref(m);
	return found;
}

/* [[HOST/]NAMESPACE/]NAME[:TAG] */
static bool ollama_find(char *out, size_t size, const char *root, const char *model)
{
	const char *host = "registry.ollama.ai", *space = "library", *tag = "latest", *name;
	char buf[256], path[MODEL_PATH_MAX], *part[3], *colon, *p;
	int n = 0;

	if (!format_path(buf, sizeof(buf), "%s", model))
		return false;
	for (p = buf; p && n < 3; n++) {
		part[n] = p;
		p = strchr(p, '/');
		if (p)
			*p++ = 0;
	}
	if (p)
		return false;
	name = part[n - 1];
	if (n > 1)
		space = part[n - 2];
	if (n > 2)
		host = part[0];
	colon = strchr(part[n - 1], ':');
	if (colon) {
		*colon = 0;
		tag = colon + 1;
	}
	return plain_component(name) && plain_component(space) && plain_component(host) &&
	       plain_component(tag) &&
	       format_path(path, sizeof(path), "%s/manifests/%s/%s/%s/%s", root, host, space, name,
			   tag) &&
	       ollama_blob(out, size, root, path);
}

/* ---- resolving ------------------------------------------------------------------------------ */

static bool looks_like_path(const char *m)
{
	return m[0] == '/' || m[0] == '.' || m[0] == '~' || has_suffix(m, "/") ||
	       (!strchr(m, ':') && (has_suffix(m, ".gguf") || has_suffix(m, ".safetensors")));
}

int model_resolve(const char *model, char *path, struct err *e)
{
	char root[MODEL_PATH_MAX] = "";
	struct stat st;
	int n = 0;

	if (!*model)
		return err_set(e, -EINVAL,
			       "model: no name given: give a directory, a .gguf file or "
			       "a cached name");
	if (!format_path(path, MODEL_PATH_MAX, "%s", model))
		return err_set(e, -ENAMETOOLONG, "%.64s...: the name is too long", model);
	if (!stat(model, &st))
		return 0;
	if (errno != ENOENT && errno != ENOTDIR)
		return err_set(e, -errno, "%s: %s", model, strerror(errno));
	if (looks_like_path(model))
		return err_set(e, -ENOENT,
			       "%s: no such file or directory: give a model directory, "
			       "a .gguf file or a cached name",
			       model);
	if (hf_root(root, sizeof(root)))
		n = hf_find(path, MODEL_PATH_MAX, root, model);
	if (n == 1)
		return 0;
	if (n > 1)
		return err_set(e, -EINVAL, "%s: %d GGUF files fit: choose one, as in %s:Q4_K_M",
			       model, n, model);
	for (int i = 0; ollama_root(root, sizeof(root), i); i++)
		if (ollama_find(path, MODEL_PATH_MAX, root, model))
			return 0;
	hf_root(root, sizeof(root));
	return err_set(
		e, -ENOENT,
		"%s: no such file, and neither in %.160s nor in Ollama's store: give a path, "
		"or download it first (`llmctl models` lists what is there)",
		model, root);
}

/* ---- listing -------------------------------------------------------------------------------- */

static int list_add(struct list *l, const char *source, const char *name, const char *path)
{
	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 16;
		struct model_entry *v = realloc(l->v, cap * sizeof(*v));

		if (!v)
			return -ENOMEM;
		l->v = v;
		l->cap = cap;
	}
	l->v[l->n].source = source;
	snprintf(l->v[l->n].name, sizeof(l->v[0].name), "%s", name);
	snprintf(l->v[l->n].path, sizeof(l->v[0].path), "%s", path);
	l->n++;
	return 0;
}

/* models--ORG--NAME; several GGUF files of one repository are listed one by one. */
static int list_hf_repo(struct list *l, const char *root, const char *dir_name)
{
	char repo[MODEL_PATH_MAX], snapshot[MODEL_PATH_MAX], path[MODEL_PATH_MAX];
	char name[256], entry[600];
	struct dirent *d;
	int rc = 0, n;
	char *sep;
	DIR *dir;

	if (!format_path(name, sizeof(name), "%s", dir_name + strlen("models--")))
		return 0;
	sep = strstr(name, "--");
	if (!sep)
		return 0;
	*sep = '/';
	memmove(sep + 1, sep + 2, strlen(sep + 2) + 1);
	if (!format_path(repo, sizeof(repo), "%s/%s", root, dir_name) ||
	    !hf_snapshot(snapshot, sizeof(snapshot), repo, "main"))
		return 0;
	n = hf_weights(path, sizeof(path), snapshot, NULL);
	if (n == 1)
		return list_add(l, "huggingface", name, path);
	dir = n > 1 ? opendir(snapshot) : NULL;
	while (dir && !rc && (d = readdir(dir))) {
		if (!has_suffix(d->d_name, ".gguf") || later_part(d->d_name))
			continue;
		if (format_path(entry, sizeof(l->v[0].name), "%s:%s", name, d->d_name) &&
		    format_path(path, sizeof(path), "%s/%s", snapshot, d->d_name))
			rc = list_add(l, "huggingface", entry, path);
	}
	if (dir)
		closedir(dir);
	return rc;
}

/* manifests/HOST/NAMESPACE/NAME/TAG, `depth` counting down to the tag. */
static int list_ollama(struct list *l, const char *root, const char *dir_path, const char *name,
		       int depth)
{
	char path[MODEL_PATH_MAX], blob[MODEL_PATH_MAX], full[256];
	DIR *dir = opendir(dir_path);
	struct dirent *d;
	int rc = 0;

	while (dir && !rc && (d = readdir(dir))) {
		bool hidden = (depth == 3 && !strcmp(d->d_name, "registry.ollama.ai")) ||
			      (depth == 2 && !*name && !strcmp(d->d_name, "library"));
		const char *sep = !*name ? "" : depth == 0 ? ":" : "/";

		if (d->d_name[0] == '.' ||
		    !format_path(path, sizeof(path), "%s/%s", dir_path, d->d_name) ||
		    !format_path(full, sizeof(full), "%s%s%s", name, hidden ? "" : sep,
				 hidden ? "" : d->d_name))
			continue;
		if (depth > 0)
			rc = list_ollama(l, root, path, full, depth - 1);
		else if (ollama_blob(blob, sizeof(blob), root, path))
			rc = list_add(l, "ollama", full, blob);
	}
	if (dir)
		closedir(dir);
	return rc;
}

static int by_name(const void *a, const void *b)
{
	const struct model_entry *x = a, *y = b;
	int c = strcmp(x->source, y->source);

	return c ? c : strcmp(x->name, y->name);
}

int model_list(struct model_entry **out, size_t *n, struct err *e)
{
	char root[MODEL_PATH_MAX], path[MODEL_PATH_MAX];
	struct list l = {0};
	struct dirent *d;
	int rc = 0;
	DIR *dir;

	dir = hf_root(root, sizeof(root)) ? opendir(root) : NULL;
	while (dir && !rc && (d = readdir(dir)))
		if (!strncmp(d->d_name, "models--", 8))
			rc = list_hf_repo(&l, root, d->d_name);
	if (dir)
		closedir(dir);
	for (int i = 0; !rc && ollama_root(root, sizeof(root), i); i++)
		if (format_path(path, sizeof(path), "%s/manifests", root))
			rc = list_ollama(&l, root, path, "", 3);
	if (rc) {
		free(l.v);
		return err_set(e, rc, "models: out of memory: the list does not fit");
	}
	if (l.n)
		qsort(l.v, l.n, sizeof(*l.v), by_name);
	*out = l.v;
	*n = l.n;
	return 0;
}
