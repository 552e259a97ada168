// SPDX-License-Identifier: MIT
/*
 * Opens a Hugging Face tokenizer.json (format of the `tokenizers` library, version 1.0), with the
 * names of BOS and EOS from a tokenizer_config.json beside it. Whatever the file asks for that
 * would not be done is refused by name: a tokenizer that is nearly right is wrong without a sign.
 * Left alone on purpose: truncation and padding, which are settings of a call, not of a vocabulary.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "text/text_int.h"
#include "text/utf8.h"

struct hf {
	struct tokenizer *t;
	const char *path;
	struct err *e;
	bool last; /* a ByteLevel pre-tokenizer has been met: nothing may follow */
};

__attribute__((format(printf, 2, 3))) static int unsupported(struct hf *h, const char *fmt, ...)
{
	char what[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return err_set(h->e, -EOPNOTSUPP,
		       "%s: %s: not supported: use token ids, or a model with another tokenizer",
		       h->path, what);
}

__attribute__((format(printf, 2, 3))) static int invalid(struct hf *h, const char *fmt, ...)
{
	char what[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return err_set(h->e, -EINVAL, "%s: %s: not a valid tokenizer.json: fetch the file again",
		       h->path, what);
}

static int no_memory(struct hf *h)
{
	return err_set(h->e, -ENOMEM, "%s: out of memory: free some", h->path);
}

static const char *type_of(const json_t *o)
{
	const char *s = json_string_value(json_object_get(o, "type"));

	return s ? s : "(no type)";
}

static bool is(const json_t *o, const char *type)
{
	return !strcmp(type_of(o), type);
}

/* A boolean member; `missing` if it is absent or null. */
static int flag(struct hf *h, const json_t *o, const char *key, bool missing, bool *v)
{
	const json_t *x = json_object_get(o, key);

	*v = missing;
	if (!x || json_is_null(x))
		return 0;
	if (!json_is_boolean(x))
		return invalid(h, "%s: %s is neither true nor false", type_of(o), key);
	*v = json_is_true(x);
	return 0;
}

/* A member that, if it is there at all, must say "nothing". */
static bool is_empty(const json_t *x)
{
	return !x || json_is_null(x) || (json_is_string(x) && !json_string_length(x)) ||
	       (json_is_number(x) && json_number_value(x) == 0);
}

/* Call `one` for the object, or for each of a Sequence's members. */
static int each(struct hf *h, const char *field, const char *list, const json_t *o, int depth,
		int (*one)(struct hf *h, const json_t *o))
{
	size_t i;
	const json_t *x;
	int rc = 0;

	if (!o || json_is_null(o))
		return 0;
	if (!json_is_object(o))
		return invalid(h, "%s: an object was expected", field);
	if (!is(o, "Sequence"))
		return one(h, o);
	if (depth > 4)
		return invalid(h, "%s: sequences nested too deep", field);
	o = json_object_get(o, list);
	if (!json_is_array(o))
		return invalid(h, "%s.%s: a list was expected", field, list);
	json_array_foreach ((json_t *)o, i, x) {
		rc = json_is_object(x) ? each(h, field, list, x, depth + 1, one)
				       : invalid(h, "%s.%s: an object was expected", field, list);
		if (rc)
			break;
	}
	return rc;
}

/* "pattern": {"String": s} or {"Regex": s}. */
static int pattern(struct hf *h, const json_t *o, const char *field, pcre2_code **re,
		   char **literal, size_t *len)
{
	const json_t *p = json_object_get(o, "pattern");
	const json_t *s = json_object_get(p, "String"), *r = json_object_get(p, "Regex");
	char where[512];

	if (json_is_string(r) && !s) {
		snprintf(where, sizeof(where), "%s: %s", h->path, field);
		return regex_compile(re, json_string_value(r), json_string_length(r), where, h->e);
	}
	if (!json_is_string(s) || r)
		return invalid(h, "%s.pattern: a String or a Regex was expected", field);
	*len = json_string_length(s);
	*literal = malloc(*len + 1);
	if (!*literal)
		return no_memory(h);
	memcpy(*literal, json_string_value(s), *len + 1);
	return 0;
}

/* ---- normalizer ---- */

static int string_member(struct hf *h, const json_t *o, const char *key, char **s, size_t *len)
{
	const json_t *x = json_object_get(o, key);

	if (!json_is_string(x))
		return invalid(h, "%s: %s: a string was expected", type_of(o), key);
	*len = json_string_length(x);
	*s = malloc(*len + 1);
	if (!*s)
		return no_memory(h);
	memcpy(*s, json_string_value(x), *len + 1);
	return 0;
}

static int normalizer(struct hf *h, const json_t *o)
{
	struct tokenizer *t = h->t;
	struct norm_step *s = &t->norm[t->n_norm];
	int rc;

	if (t->n_norm == MAX_STEPS)
		return unsupported(h, "normalizer: more than %d steps", MAX_STEPS);
	t->n_norm++;
	if (is(o, "NFC")) {
		s->kind = NORM_NFC;
		return 0;
	}
	if (is(o, "Prepend")) {
		s->kind = NORM_PREPEND;
		return string_member(h, o, "prepend", &s->content, &s->content_len);
	}
	if (!is(o, "Replace"))
		return unsupported(h, "normalizer: type %s", type_of(o));
	s->kind = NORM_REPLACE;
	rc = pattern(h, o, "normalizer: Replace", &s->re, &s->pattern, &s->pattern_len);
	if (!rc && !s->re && !s->pattern_len)
		rc = invalid(h, "normalizer: Replace: an empty pattern");
	return rc ? rc : string_member(h, o, "content", &s->content, &s->content_len);
}

/* ---- pre-tokenizer ---- */

static int add_split(struct hf *h, const char *regex, enum split_behavior b)
{
	struct tokenizer *t = h->t;
	struct pre_step *s = &t->pre[t->n_pre];

	if (t->n_pre == MAX_STEPS)
		return unsupported(h, "pre_tokenizer: more than %d steps", MAX_STEPS);
	*s = (struct pre_step){.kind = PRE_SPLIT, .behavior = b};
	t->n_pre++;
	return regex_compile(&s->re, regex, strlen(regex), "pre_tokenizer", h->e);
}

static int byte_level(struct hf *h, const json_t *o)
{
	bool prefix, regex;
	int rc = flag(h, o, "add_prefix_space", true, &prefix);

	if (!rc)
		rc = flag(h, o, "use_regex", true, &regex);
	if (rc)
		return rc;
	h->t->byte_level = h->last = true;
	if (prefix) {
		if (h->t->n_pre == MAX_STEPS)
			return unsupported(h, "pre_tokenizer: more than %d steps", MAX_STEPS);
		h->t->pre[h->t->n_pre++].kind = PRE_PREFIX_SPACE;
	}
	return regex ? add_split(h, regex_gpt2, SPLIT_ISOLATED) : 0;
}

static int behavior(struct hf *h, const json_t *o, enum split_behavior *b)
{
	static const char *const names[] = {
		[SPLIT_REMOVED] = "Removed",
		[SPLIT_ISOLATED] = "Isolated",
		[SPLIT_MERGED_PREVIOUS] = "MergedWithPrevious",
		[SPLIT_MERGED_NEXT] = "MergedWithNext",
		[SPLIT_CONTIGUOUS] = "Contiguous",
	};
	const char *s = json_string_value(json_object_get(o, "behavior"));

	for (int i = 0; i < 5; i++) {
		if (s && !strcmp(s, names[i])) {
			*b = (enum split_behavior)i;
			return 0;
		}
	}
	return invalid(h, "pre_tokenizer: Split: behavior %s", s ? s : "is missing");
}

/* "prepend_scheme" and its older spelling "add_prefix_space". */
static int scheme(struct hf *h, const json_t *o, enum prepend_scheme *v)
{
	const char *s = json_string_value(json_object_get(o, "prepend_scheme"));
	bool prefix;
	int rc = flag(h, o, "add_prefix_space", true, &prefix);

	if (rc)
		return rc;
	*v = prefix ? PREPEND_ALWAYS : PREPEND_NEVER;
	if (!s)
		return 0;
	if (!strcmp(s, "always"))
		*v = PREPEND_ALWAYS;
	else if (!strcmp(s, "first"))
		*v = PREPEND_FIRST;
	else if (!strcmp(s, "never"))
		*v = PREPEND_NEVER;
	else
		return invalid(h, "Metaspace: prepend_scheme %s", s);
	return 0;
}

static int replacement(struct hf *h, const json_t *o, char *rep, int *len)
{
	const json_t *x = json_object_get(o, "replacement");
	const char *s = json_string_value(x);

	if (!s || !*s || utf8_skip(s) != (int)json_string_length(x))
		return invalid(h, "Metaspace: replacement: one character was expected");
	*len = utf8_skip(s);
	memcpy(rep, s, (size_t)*len);
	return 0;
}

static int pre_tokenizer(struct hf *h, const json_t *o)
{
	struct tokenizer *t = h->t;
	struct pre_step *s = &t->pre[t->n_pre];
	bool each_digit;
	int rc;

	if (h->last)
		return unsupported(h, "pre_tokenizer: %s after ByteLevel", type_of(o));
	if (is(o, "ByteLevel"))
		return byte_level(h, o);
	if (is(o, "Digits")) {
		rc = flag(h, o, "individual_digits", false, &each_digit);
		return rc ? rc
			  : add_split(h, "\\p{N}", each_digit ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS);
	}
	if (t->n_pre == MAX_STEPS)
		return unsupported(h, "pre_tokenizer: more than %d steps", MAX_STEPS);
	t->n_pre++;
	if (is(o, "Split")) {
		s->kind = PRE_SPLIT;
		rc = pattern(h, o, "pre_tokenizer: Split", &s->re, &s->literal, &s->literal_len);
		if (!rc)
			rc = behavior(h, o, &s->behavior);
		return rc ? rc : flag(h, o, "invert", false, &s->invert);
	}
	if (is(o, "Metaspace")) {
		s->kind = PRE_METASPACE;
		rc = replacement(h, o, s->rep, &s->rep_len);
		if (!rc)
			rc = scheme(h, o, &s->scheme);
		return rc ? rc : flag(h, o, "split", true, &s->split);
	}
	t->n_pre--;
	return unsupported(h, "pre_tokenizer: type %s", type_of(o));
}

/* ---- model ---- */

static int model(struct hf *h, const json_t *o)
{
	static const char *const absent[] = {"dropout", "continuing_subword_prefix",
					     "end_of_word_suffix"};
	struct tokenizer *t = h->t;
	const json_t *unk = json_object_get(o, "unk_token"), *type = json_object_get(o, "type");
	int rc;

	/* very old files have no type; they have vocab and merges, so they are BPE */
	if (type && !is(o, "BPE"))
		return unsupported(h, "model.type: %s", type_of(o));
	for (int i = 0; i < 3; i++)
		if (!is_empty(json_object_get(o, absent[i])))
			return unsupported(h, "model.%s", absent[i]);
	rc = flag(h, o, "fuse_unk", false, &t->fuse_unk);
	if (!rc)
		rc = flag(h, o, "byte_fallback", false, &t->byte_fallback);
	if (!rc)
		rc = flag(h, o, "ignore_merges", false, &t->ignore_merges);
	if (rc || is_empty(unk))
		return rc;
	if (!json_is_string(unk))
		return invalid(h, "model.unk_token: a string was expected");
	t->unk = vocab_lookup(&t->v, json_string_value(unk), json_string_length(unk));
	return t->unk < 0 ? invalid(h, "model.unk_token: %.60s is not in model.vocab",
				    json_string_value(unk))
			  : 0;
}

/* ---- added tokens ---- */

static int added_token(struct hf *h, const json_t *o, size_t i, struct regex_run *rx)
{
	struct tokenizer *t = h->t;
	const json_t *content = json_object_get(o, "content"), *id = json_object_get(o, "id");
	const char *s = json_string_value(content);
	size_t len = json_string_length(content);
	struct origin_text text = {s, len, NULL};
	struct norm_scratch m = {0};
	struct added tok = {0};
	bool normalized = true;
	int32_t known;
	int64_t n;
	int rc;

	if (!s || !json_is_integer(id))
		return invalid(h, "added_tokens[%zu]: id and content are needed", i);
	rc = flag(h, o, "special", false, &tok.special);
	if (!rc)
		rc = flag(h, o, "lstrip", false, &tok.lstrip);
	if (!rc)
		rc = flag(h, o, "rstrip", false, &tok.rstrip);
	if (!rc)
		rc = flag(h, o, "single_word", false, &tok.single_word);
	if (!rc)
		rc = flag(h, o, "normalized", !tok.special, &normalized);
	if (rc || !len)
		return rc;
	/* the model's own id counts, as in Hugging Face's library */
	known = vocab_lookup(&t->v, s, len);
	n = known >= 0 ? known : json_integer_value(id);
	if (normalized)
		rc = normalize(t->norm, t->n_norm, &text, &m, rx, &text, h->e);
	if (rc || !text.n)
		goto out;
	/* and a token of its own is shown as it is matched */
	rc = vocab_set(&t->v, n, known >= 0 ? s : text.s, known >= 0 ? len : text.n,
		       tok.special ? TOK_F_SPECIAL : 0, (int64_t)t->v.n * 2 + 65536);
	if (rc == -EEXIST || rc == -ERANGE || rc == -EINVAL) {
		rc = invalid(h, "added_tokens[%zu]: \"%.40s\": %s", i, s,
			     rc == -EEXIST   ? "its id has another token already"
			     : rc == -ERANGE ? "its id is out of range"
					     : "longer than 1024 bytes");
		goto out;
	}
	tok.id = (int32_t)n;
	if (!rc)
		rc = added_put(normalized ? &t->normalized : &t->raw, text.s, text.n, &tok);
	if (rc)
		no_memory(h);
out:
	norm_scratch_free(&m);
	return rc;
}

static int added_tokens(struct hf *h, const json_t *list)
{
	struct regex_run rx;
	size_t i;
	const json_t *o;
	int rc;

	if (!list || json_is_null(list))
		return 0;
	if (!json_is_array(list))
		return invalid(h, "added_tokens: a list was expected");
	rc = regex_run_init(&rx, h->e);
	if (rc)
		return rc;
	json_array_foreach ((json_t *)list, i, o) {
		rc = added_token(h, o, i, &rx);
		if (rc)
			break;
	}
	regex_run_free(&rx);
	return rc;
}

/* ---- post-processor ---- */

/* The ids of a special token of a TemplateProcessing, appended to *out. */
static int template_ids(struct hf *h, const json_t *o, const char *name, struct ids *out)
{
	const json_t *tokens = json_object_get(o, "special_tokens");
	const json_t *ids = json_object_get(json_object_get(tokens, name), "ids"), *x;
	size_t i;

	if (!json_is_array(ids))
		return invalid(h, "post_processor: special_tokens has no ids for %.40s", name);
	json_array_foreach ((json_t *)ids, i, x) {
		json_int_t v = json_integer_value(x);

		if (!json_is_integer(x) || v < 0 || v >= h->t->v.n)
			return invalid(h, "post_processor: %.40s: an id out of range", name);
		if (ids_push(out, (int32_t)v))
			return no_memory(h);
	}
	return 0;
}

static int post_processor(struct hf *h, const json_t *o)
{
	const json_t *single, *x;
	struct tokenizer *t = h->t;
	bool seen = false;
	size_t i;

	if (is(o, "ByteLevel")) /* moves offsets only */
		return 0;
	if (!is(o, "TemplateProcessing"))
		return unsupported(h, "post_processor: type %s", type_of(o));
	single = json_object_get(o, "single");
	if (!json_is_array(single) || t->bos_seq.n || t->eos_seq.n)
		return invalid(h,
			       "post_processor: one TemplateProcessing with a list was expected");
	json_array_foreach ((json_t *)single, i, x) {
		const char *id = json_string_value(
			json_object_get(json_object_get(x, "SpecialToken"), "id"));
		int rc = 0;

		if (id)
			rc = template_ids(h, o, id, seen ? &t->eos_seq : &t->bos_seq);
		else if (json_object_get(x, "Sequence") && !seen)
			seen = true;
		else
			rc = unsupported(h, "post_processor: this form of \"single\"");
		if (rc)
			return rc;
	}
	if (!seen)
		return unsupported(h, "post_processor: a \"single\" without the text");
	return 0;
}

/* ---- decoder ---- */

static int decoder_replace(struct hf *h, const json_t *o)
{
	struct tokenizer *t = h->t;
	struct decode_replace *r = &t->replace[t->n_replace];
	pcre2_code *re = NULL;
	int rc;

	if (t->n_replace == MAX_DECODE)
		return unsupported(h, "decoder: more than %d Replace steps", MAX_DECODE);
	t->n_replace++;
	rc = pattern(h, o, "decoder: Replace", &re, &r->from, &r->from_len);
	if (re) {
		pcre2_code_free(re);
		return unsupported(h, "decoder: Replace with a Regex");
	}
	if (!rc)
		rc = string_member(h, o, "content", &r->to, &r->to_len);
	if (!rc && (!r->from_len || r->to_len > r->from_len))
		rc = unsupported(h, "decoder: Replace by something longer");
	return rc;
}

/* The members of a decoder come in one order only: Replace, ByteFallback, Fuse, Strip. */
static int decoder(struct hf *h, const json_t *o)
{
	struct tokenizer *t = h->t;
	enum prepend_scheme p = PREPEND_NEVER;
	int rc = 0;

	if (h->last)
		return unsupported(h, "decoder: %s at this place", type_of(o));
	if (is(o, "ByteLevel") && t->decoder == DECODE_JOIN) {
		t->decoder = DECODE_BYTES;
		h->last = true;
		return 0;
	}
	if (is(o, "Metaspace") && t->decoder == DECODE_JOIN) {
		t->decoder = DECODE_METASPACE;
		rc = replacement(h, o, t->meta, &t->meta_len);
		if (!rc)
			rc = scheme(h, o, &p);
		t->meta_strip = p != PREPEND_NEVER;
		h->last = true;
		return rc;
	}
	t->decoder = DECODE_CHAIN;
	if (is(o, "Replace") && !t->decode_fallback)
		return decoder_replace(h, o);
	if (is(o, "ByteFallback")) {
		t->decode_fallback = true;
		return 0;
	}
	if (is(o, "Fuse"))
		return 0;
	if (is(o, "Strip")) {
		const json_t *c = json_object_get(o, "content");
		json_int_t start = json_integer_value(json_object_get(o, "start"));
		json_int_t stop = json_integer_value(json_object_get(o, "stop"));

		if (json_string_length(c) != 1 || start < 0 || start > 1 || stop)
			return unsupported(h, "decoder: Strip of more than one leading character");
		t->strip = start ? json_string_value(c)[0] : 0;
		h->last = true;
		return 0;
	}
	return unsupported(h, "decoder: type %s at this place", type_of(o));
}

/* ---- tokenizer_config.json ---- */

/* "bos_token": "<s>" or {"content": "<s>", ...}; -1 if absent or unknown. */
static int32_t named_token(const struct tokenizer *t, const json_t *config, const char *key)
{
	const json_t *x = json_object_get(config, key);
	const char *s = json_string_value(json_is_object(x) ? json_object_get(x, "content") : x);

	return s ? tokenizer_find(t, s) : -1;
}

static int read_config(struct hf *h)
{
	const char *slash = strrchr(h->path, '/');
	int dir = slash ? (int)(slash + 1 - h->path) : 0;
	json_error_t je;
	json_t *config;
	char *path;

	if (asprintf(&path, "%.*stokenizer_config.json", dir, h->path) < 0)
		return no_memory(h);
	if (access(path, R_OK)) {
		free(path);
		return 0;
	}
	config = json_load_file(path, 0, &je);
	if (!config) {
		err_set(h->e, -EINVAL, "%s: %s: not valid JSON: fetch the file again", path,
			je.text);
		free(path);
		return -EINVAL;
	}
	free(path);
	h->t->bos = named_token(h->t, config, "bos_token");
	tokenizer_add_eos(h->t, named_token(h->t, config, "eos_token"));
	json_decref(config);
	return 0;
}

static int read_all(struct hf *h, const json_t *root)
{
	struct tokenizer *t = h->t;
	int rc = model(h, json_object_get(root, "model"));

	if (!rc)
		rc = each(h, "normalizer", "normalizers", json_object_get(root, "normalizer"), 0,
			  normalizer);
	if (!rc)
		rc = each(h, "pre_tokenizer", "pretokenizers",
			  json_object_get(root, "pre_tokenizer"), 0, pre_tokenizer);
	if (!rc)
		rc = added_tokens(h, json_object_get(root, "added_tokens"));
	if (!rc)
		rc = each(h, "post_processor", "processors",
			  json_object_get(root, "post_processor"), 0, post_processor);
	h->last = false;
	if (!rc)
		rc = each(h, "decoder", "decoders", json_object_get(root, "decoder"), 0, decoder);
	if (!rc)
		rc = tokenizer_finish(t, h->e);
	if (!rc)
		rc = read_config(h);
	if (!rc && t->bos < 0 && t->bos_seq.n)
		t->bos = t->bos_seq.v[0];
	return rc;
}

int tokenizer_open_hf(struct tokenizer **out, const char *tokenizer_json, struct err *e)
{
	struct hf h = {.t = tokenizer_new(), .path = tokenizer_json, .e = e};
	json_t *root = NULL;
	size_t merges;
	int rc;

	*out = NULL;
	if (!h.t)
		return no_memory(&h);
	rc = json_scan_tokenizer(tokenizer_json, &h.t->v, &root, &merges, e);
	if (!rc)
		rc = read_all(&h, root);
	json_decref(root);
	if (rc)
		tokenizer_close(h.t);
	else
		*out = h.t;
	return rc;
}
