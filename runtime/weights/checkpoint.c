// SPDX-License-Identifier: MIT
/*
 * A checkpoint: files, tensors and metadata behind one view; see checkpoint.h.
 *
 * Owns everything that it hands out. A GGUF file's header bytes stay in memory (its vocabulary is
 * read in place); a safetensors header is gone once its tensors are in the table. No descriptor
 * stays open.
 */
#include "weights/checkpoint.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "weights/gguf.h"
#include "weights/header.h"
#include "weights/safetensors.h"

#define CONFIG_MAX ((size_t)16 << 20)
#define INDEX_MAX  ((size_t)64 << 20)
#define SHARDS_MAX 4096

struct checkpoint {
	enum checkpoint_kind kind;
	char *path;
	char *dir;
	char **files;
	int n_files, cap_files;
	struct tensor_table tensors;
	json_t *config;
	json_t *generation_config;
	char *chat_template;
	/* GGUF: metadata and header bytes of the first part */
	struct gguf_meta gguf;
	struct header gguf_header;
};

static int no_memory(const struct checkpoint *c, struct err *e)
{
	return err_set(e, -ENOMEM, "%s: no memory", c->path);
}

/* Takes over `path`, which is malloc'ed (NULL: no memory). Returns the file's index. */
static int add_file(struct checkpoint *c, char *path, struct err *e)
{
	if (path && c->n_files == c->cap_files) {
		int cap = c->cap_files ? c->cap_files * 2 : 4;
		char **v = realloc(c->files, (size_t)cap * sizeof(*v));

		if (!v) {
			free(path);
			path = NULL;
		} else {
			c->files = v;
			c->cap_files = cap;
		}
	}
	if (!path)
		return no_memory(c, e);
	c->files[c->n_files] = path;
	return c->n_files++;
}

static char *join(const char *dir, const char *name)
{
	char *s;

	return asprintf(&s, "%s/%s", dir, name) < 0 ? NULL : s;
}

/* ---- JSON files ----------------------------------------------------------------------------- */

/*
 * Python writes Infinity into config.json (time_step_limit); JSON has no such word. Outside of
 * strings it becomes the largest number that fits into its eight letters.
 */
static void replace_infinity(char *s)
{
	bool in_string = false;

	for (; *s; s++) {
		if (in_string && *s == '\\' && s[1])
			s++;
		else if (*s == '"')
			in_string = !in_string;
		else if (!in_string && !strncmp(s, "Infinity", 8))
			memcpy(s, "1.0e+308", 8);
	}
}

/* -ENOENT (with a message) if it is not there. */
static int read_json(const char *path, size_t max, json_t **out, struct err *e)
{
	json_error_t je;
	char *text;
	size_t len;
	int rc = read_small_file(path, max, &text, &len, e);

	if (rc)
		return rc;
	replace_infinity(text);
	*out = json_loadb(text, len, JSON_REJECT_DUPLICATES, &je);
	free(text);
	if (!*out)
		return err_set(e, -EINVAL, "%s: line %d, column %d: %s: the file is damaged", path,
			       je.line, je.column, je.text);
	if (!json_is_object(*out)) {
		json_decref(*out);
		*out = NULL;
		return err_set(e, -EINVAL, "%s: not a JSON object: the file is damaged", path);
	}
	return 0;
}

static int read_dir_json(struct checkpoint *c, const char *name, size_t max, json_t **out,
			 struct err *e)
{
	char *path = join(c->dir, name);
	int rc = path ? read_json(path, max, out, e) : no_memory(c, e);

	free(path);
	return rc;
}

/* ---- Hugging Face directories ---------------------------------------------------------------- */

static int read_safetensors(struct checkpoint *c, const char *name, struct err *e)
{
	char *path = join(c->dir, name);
	struct header h;
	int rc, file = add_file(c, path, e);

	if (file < 0)
		return file;
	rc = header_open(&h, path, e);
	if (rc)
		return rc;
	rc = safetensors_read(&h, file, &c->tensors, e);
	header_close(&h, false);
	return rc;
}

/* A shard's name must be that of a file in the checkpoint's own directory. */
static bool shard_name_ok(const char *s)
{
	size_t n = strlen(s);

	return n > 12 && n < 256 && s[0] != '.' && !strchr(s, '/') &&
	       !strcmp(s + n - 12, ".safetensors");
}

static int shard_index(const struct checkpoint *c, const char *name)
{
	size_t dir = strlen(c->dir) + 1;

	for (int i = 0; i < c->n_files; i++)
		if (!strcmp(c->files[i] + dir, name))
			return i;
	return -1;
}

/* Opens every shard that weight_map names, then checks that each tensor is where the map says. */
static int read_shards(struct checkpoint *c, const json_t *map, const char *index, struct err *e)
{
	const char *tensor, *last = "";
	json_t *value;
	int rc;

	json_object_foreach ((json_t *)map, tensor, value) {
		const char *shard = json_string_value(value);

		if (!shard || !shard_name_ok(shard))
			return err_set(e, -EINVAL,
				       "%s/%s: weight_map[\"%s\"] is not the name of a "
				       ".safetensors file beside it",
				       c->dir, index, tensor);
		/* Tensors of a shard stand together: nearly always the same as before. */
		if (!strcmp(shard, last) || shard_index(c, shard) >= 0) {
			last = shard;
			continue;
		}
		if (c->n_files == SHARDS_MAX)
			return err_set(e, -EINVAL, "%s/%s: weight_map: over %d shards", c->dir,
				       index, SHARDS_MAX);
		rc = read_safetensors(c, shard, e);
		if (rc == -ENOENT)
			return err_set(e, rc,
				       "%s/%s: shard is missing (%s names it): fetch it again",
				       c->dir, shard, index);
		if (rc)
			return rc;
		last = shard;
	}
	json_object_foreach ((json_t *)map, tensor, value) {
		const struct tensor_info *t = checkpoint_find(c, tensor);
		const char *shard = json_string_value(value);

		if (!t || strcmp(c->files[t->file] + strlen(c->dir) + 1, shard))
			return err_set(e, -EINVAL,
				       "%s/%s: weight_map names tensor %s, which %s does not hold: "
				       "fetch both again",
				       c->dir, index, tensor, shard);
	}
	return 0;
}

static int read_index(struct checkpoint *c, struct err *e)
{
	static const char index[] = "model.safetensors.index.json";
	json_t *root, *map;
	int rc = read_dir_json(c, index, INDEX_MAX, &root, e);

	if (rc == -ENOENT)
		return err_set(e, rc,
			       "%s: holds neither model.safetensors nor %s: give a directory with "
			       "safetensors weights, or a .gguf file",
			       c->dir, index);
	if (rc)
		return rc;
	map = json_object_get(root, "weight_map");
	if (!json_is_object(map) || !json_object_size(map))
		rc = err_set(e, -EINVAL,
			     "%s/%s: weight_map is missing or empty: the file is damaged", c->dir,
			     index);
	else
		rc = read_shards(c, map, index, e);
	json_decref(root);
	return rc;
}

/* "chat_template" of tokenizer_config.json: a string, or a list of {name, template}. */
static int template_from_config(struct checkpoint *c, const json_t *config, struct err *e)
{
	const json_t *v = json_object_get(config, "chat_template"), *one;
	const char *text = json_string_value(v);
	size_t i;

	json_array_foreach ((json_t *)v, i, one) {
		const char *name = json_string_value(json_object_get(one, "name"));
		const char *t = json_string_value(json_object_get(one, "template"));

		if (!name || !t)
			return err_set(e, -EINVAL,
				       "%s/tokenizer_config.json: chat_template[%zu] is not {name, "
				       "template}",
				       c->dir, i);
		if (!text || !strcmp(name, "default"))
			text = t;
	}
	if (v && !json_is_null(v) && !json_is_string(v) && !json_is_array(v))
		return err_set(
			e, -EINVAL,
			"%s/tokenizer_config.json: chat_template is neither a string nor a list",
			c->dir);
	if (text) {
		c->chat_template = strdup(text);
		if (!c->chat_template)
			return no_memory(c, e);
	}
	return 0;
}

static int read_chat_template(struct checkpoint *c, struct err *e)
{
	char *path = join(c->dir, "chat_template.jinja");
	json_t *config;
	size_t len;
	int rc = path ? read_small_file(path, CONFIG_MAX, &c->chat_template, &len, e)
		      : no_memory(c, e);

	if (!rc && !utf8_clean(c->chat_template, len))
		rc = err_set(e, -EINVAL, "%s: no UTF-8 text: the file is damaged", path);
	free(path);
	if (rc != -ENOENT)
		return rc;
	rc = read_dir_json(c, "tokenizer_config.json", CONFIG_MAX, &config, e);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	rc = template_from_config(c, config, e);
	json_decref(config);
	return rc;
}

static int open_directory(struct checkpoint *c, struct err *e)
{
	int rc;

	c->kind = CHECKPOINT_SAFETENSORS;
	rc = read_dir_json(c, "config.json", CONFIG_MAX, &c->config, e);
	if (rc == -ENOENT)
		return err_set(e, rc,
			       "%s: holds no config.json: give a model's directory or a .gguf file",
			       c->dir);
	if (rc)
		return rc;
	rc = read_dir_json(c, "generation_config.json", CONFIG_MAX, &c->generation_config, e);
	if (rc && rc != -ENOENT)
		return rc;
	rc = read_chat_template(c, e);
	if (rc)
		return rc;
	rc = read_safetensors(c, "model.safetensors", e);
	if (rc == -ENOENT) {
		free(c->files[--c->n_files]);
		rc = read_index(c, e);
	}
	return rc;
}

/* ---- GGUF ------------------------------------------------------------------------------------- */

/* "NAME-00002-of-00005.gguf" -> 5 and the length of what stands before "-00002"; 0: no part. */
static int split_name(const char *path, size_t *stem)
{
	static const char shape[] = "-#####-of-#####.gguf";
	size_t n = strlen(path), k = sizeof(shape) - 1;
	const char *s = path + n - k;

	if (n < k)
		return 0;
	for (size_t i = 0; i < k; i++)
		if (shape[i] == '#' ? !isdigit((unsigned char)s[i]) : s[i] != shape[i])
			return 0;
	*stem = n - k;
	return atoi(s + 10);
}

/* Reads part `i` of `count`; the first one's metadata and header stay. */
static int read_part(struct checkpoint *c, char *path, int i, int count, int64_t *total,
		     struct err *e)
{
	struct gguf_meta own = {0}, *m = i ? &own : &c->gguf;
	struct header h, *hp = i ? &h : &c->gguf_header;
	int64_t split_no, split_count;
	int rc, file = add_file(c, path, e);

	if (file < 0)
		return file;
	rc = header_open(hp, path, e);
	if (rc == -ENOENT && count > 1)
		return err_set(e, rc, "%s: part %d of %d is missing: fetch it again", path, i + 1,
			       count);
	if (rc)
		return rc;
	rc = gguf_read(hp, file, &c->tensors, m, e);
	header_close(hp, !i);
	if (rc)
		goto out;
	split_no = gguf_meta_int(m, "split.no", 0);
	split_count = gguf_meta_int(m, "split.count", 1);
	/* Files that were never split may say count 0. */
	if (split_count == 0 && count == 1)
		split_count = 1;
	if (!i)
		*total = gguf_meta_int(m, "split.tensors.count", -1);
	if (split_count != count && count == 1)
		rc = err_set(e, -EINVAL,
			     "%s: key split.count: is part of %" PRId64
			     " files: its name must end in -0000N-of-%05" PRId64 ".gguf",
			     path, split_count, split_count);
	else if (split_count != count)
		rc = err_set(e, -EINVAL, "%s: key split.count: %" PRId64 ", its name says %d", path,
			     split_count, count);
	else if (split_no != i)
		rc = err_set(e, -EINVAL,
			     "%s: key split.no: %" PRId64 ", its name says part %d of %d", path,
			     split_no, i + 1, count);
out:
	if (i)
		gguf_meta_free(&own);
	return rc;
}

static int gguf_template(struct checkpoint *c, struct err *e)
{
	const json_t *v = json_object_get(c->config, "tokenizer.chat_template");

	if (!v)
		return 0;
	if (!json_is_string(v))
		return err_set(e, -EINVAL, "%s: key tokenizer.chat_template: is no string",
			       c->path);
	c->chat_template = strdup(json_string_value(v));
	return c->chat_template ? 0 : no_memory(c, e);
}

static int open_gguf(struct checkpoint *c, struct err *e)
{
	size_t stem = 0;
	int count = split_name(c->path, &stem), rc = 0;
	int64_t total = -1;

	c->kind = CHECKPOINT_GGUF;
	if (count > SHARDS_MAX)
		return err_set(e, -EINVAL, "%s: over %d parts", c->path, SHARDS_MAX);
	if (count <= 0) {
		rc = read_part(c, strdup(c->path), 0, 1, &total, e);
	} else {
		for (int i = 0; i < count && !rc; i++) {
			char *path;

			if (asprintf(&path, "%.*s-%05d-of-%05d.gguf", (int)stem, c->path, i + 1,
				     count) < 0)
				path = NULL;
			rc = read_part(c, path, i, count, &total, e);
		}
	}
	if (rc)
		return rc;
	if (total >= 0 && total != c->tensors.n)
		return err_set(e, -EINVAL,
			       "%s: key split.tensors.count: says %" PRId64
			       " tensors, the parts hold %" PRId64 ": fetch them again",
			       c->path, total, c->tensors.n);
	c->config = json_incref(c->gguf.config);
	return gguf_template(c, e);
}

/* ---- interface -------------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), k = strlen(end);

	return n >= k && !strcasecmp(s + n - k, end);
}

/* The directory of c->path, which is one or names a file in it. */
static int set_dir(struct checkpoint *c, bool is_dir, struct err *e)
{
	char *slash;

	c->dir = strdup(c->path);
	if (!c->dir)
		return no_memory(c, e);
	if (is_dir) {
		for (size_t n = strlen(c->dir); n > 1 && c->dir[n - 1] == '/'; n--)
			c->dir[n - 1] = 0;
		return 0;
	}
	slash = strrchr(c->dir, '/');
	if (!slash)
		strcpy(c->dir, ".");
	else if (slash == c->dir)
		slash[1] = 0;
	else
		*slash = 0;
	return 0;
}

int checkpoint_open(struct checkpoint **out, const char *path, struct err *e)
{
	struct checkpoint *c;
	struct stat st;
	int rc;

	if (stat(path, &st))
		return err_set(e, -errno, "%s: cannot be opened: %s", path, strerror(errno));
	c = calloc(1, sizeof(*c));
	if (!c || !(c->path = strdup(path))) {
		free(c);
		return err_set(e, -ENOMEM, "%s: no memory", path);
	}
	c->gguf_header.fd = -1;
	if (S_ISDIR(st.st_mode) || ends_with(path, ".safetensors")) {
		rc = set_dir(c, S_ISDIR(st.st_mode), e);
		if (!rc)
			rc = open_directory(c, e);
	} else {
		rc = open_gguf(c, e);
	}
	if (rc) {
		checkpoint_close(c);
		return rc;
	}
	/* Files that need not be there have left a message. */
	if (e)
		e->msg[0] = 0;
	*out = c;
	return 0;
}

void checkpoint_close(struct checkpoint *c)
{
	if (!c)
		return;
	for (int i = 0; i < c->n_files; i++)
		free(c->files[i]);
	free(c->files);
	tensor_table_free(&c->tensors);
	json_decref(c->config);
	json_decref(c->generation_config);
	free(c->chat_template);
	gguf_meta_free(&c->gguf);
	header_free(&c->gguf_header);
	free(c->path);
	free(c->dir);
	free(c);
}

enum checkpoint_kind checkpoint_kind(const struct checkpoint *c)
{
	return c->kind;
}

const char *checkpoint_path(const struct checkpoint *c)
{
	return c->path;
}

const char *checkpoint_dir(const struct checkpoint *c)
{
	return c->dir;
}

int checkpoint_n_files(const struct checkpoint *c)
{
	return c->n_files;
}

const char *checkpoint_file(const struct checkpoint *c, int i)
{
	return c->files[i];
}

int64_t checkpoint_n_tensors(const struct checkpoint *c)
{
	return c->tensors.n;
}

const struct tensor_info *checkpoint_tensor(const struct checkpoint *c, int64_t i)
{
	return &c->tensors.v[i];
}

const struct tensor_info *checkpoint_find(const struct checkpoint *c, const char *name)
{
	return tensor_table_find(&c->tensors, name, strlen(name));
}

const json_t *checkpoint_config(const struct checkpoint *c)
{
	return c->config;
}

const json_t *checkpoint_generation_config(const struct checkpoint *c)
{
	return c->generation_config;
}

const char *checkpoint_chat_template(const struct checkpoint *c)
{
	return c->chat_template;
}

int checkpoint_gguf_array(const struct checkpoint *c, const char *key, struct gguf_array *a)
{
	const struct gguf_key_array *g = gguf_meta_array(&c->gguf, key);

	if (!g)
		return json_object_get(c->gguf.config, key) ? -EINVAL : -ENOENT;
	a->type = g->type;
	a->count = g->count;
	a->data = c->gguf_header.data + g->offset;
	return 0;
}

const char *gguf_array_str(const uint8_t **p, uint64_t *len)
{
	const char *s = (const char *)*p + 8;
	uint64_t n = 0;

	for (int i = 7; i >= 0; i--)
		n = n << 8 | (*p)[i];
	*len = n;
	*p += 8 + n;
	return s;
}
