// SPDX-License-Identifier: MIT
/*
 * The two big members of a tokenizer.json, model.vocab and model.merges, read straight into a
 * struct vocab. Everything else goes to jansson, with these two emptied.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "text/text_int.h"
#include "text/utf8.h"

#define MAX_FILE  ((size_t)512 << 20)
#define MAX_DEPTH 64

struct scan {
	const char *s;
	size_t n, p;
	const char *path;
	struct buf str; /* the string read last */
	struct err *e;
};

static int bad(struct scan *j, const char *what)
{
	return err_set(j->e, -EINVAL, "%s: %s at byte %zu: fetch the file again", j->path, what,
		       j->p);
}

static bool blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* The next character that is not blank, 0 at the end. */
static char peek(struct scan *j)
{
	while (j->p < j->n && blank(j->s[j->p]))
		j->p++;
	return j->p < j->n ? j->s[j->p] : 0;
}

static bool take(struct scan *j, char c)
{
	if (peek(j) != c || j->p >= j->n)
		return false;
	j->p++;
	return true;
}

static int hex4(struct scan *j, uint32_t *v)
{
	*v = 0;
	for (int i = 0; i < 4; i++, j->p++) {
		int c = j->p < j->n ? (unsigned char)j->s[j->p] : 0;

		if (c >= '0' && c <= '9')
			*v = *v * 16 + (uint32_t)(c - '0');
		else if ((c | 32) >= 'a' && (c | 32) <= 'f')
			*v = *v * 16 + (uint32_t)((c | 32) - 'a' + 10);
		else
			return bad(j, "a bad \\u escape");
	}
	return 0;
}

/* After a backslash. */
static int unescape(struct scan *j)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	char out[4], c = j->p < j->n ? j->s[j->p++] : 0;
	const char *at = c ? strchr(from, c) : NULL;
	uint32_t hi, lo;
	int rc;

	if (at)
		return buf_add(&j->str, &to[at - from], 1);
	if (c != 'u')
		return bad(j, "an unknown escape");
	rc = hex4(j, &hi);
	if (rc)
		return rc;
	if (hi >= 0xd800 && hi < 0xdc00) {
		if (j->n - j->p < 6 || j->s[j->p] != '\\' || j->s[j->p + 1] != 'u')
			return bad(j, "a lone surrogate");
		j->p += 2;
		rc = hex4(j, &lo);
		if (rc)
			return rc;
		if (lo < 0xdc00 || lo > 0xdfff)
			return bad(j, "a lone surrogate");
		hi = 0x10000 + ((hi - 0xd800) << 10) + (lo - 0xdc00);
	} else if (hi >= 0xdc00 && hi < 0xe000) {
		return bad(j, "a lone surrogate");
	}
	return buf_add(&j->str, out, (size_t)utf8_encode(hi, out));
}

/* A string, into j->str. */
static int string(struct scan *j)
{
	int rc = 0;

	j->str.n = 0;
	if (!take(j, '"'))
		return bad(j, "a string was expected");
	while (!rc) {
		size_t from = j->p;

		while (j->p < j->n && j->s[j->p] != '"' && j->s[j->p] != '\\' &&
		       (uint8_t)j->s[j->p] >= 0x20)
			j->p++;
		if (j->p == j->n || (uint8_t)j->s[j->p] < 0x20)
			return bad(j, "an unfinished string");
		rc = buf_add(&j->str, j->s + from, j->p - from);
		if (rc)
			break;
		if (j->s[j->p++] == '"') {
			if (utf8_valid_prefix(j->str.v, j->str.n) != j->str.n)
				return bad(j, "invalid UTF-8");
			return 0;
		}
		rc = unescape(j);
	}
	return rc == -ENOMEM ? err_set(j->e, rc, "%s: out of memory: free some", j->path) : rc;
}

/* Step over a value. jansson sees it later, so its inside is not judged here. */
static int skip(struct scan *j)
{
	int depth = 0;

	do {
		char c = peek(j);

		if (!c)
			return bad(j, "an unexpected end");
		if (c == '"') {
			j->p++;
			while (j->p < j->n && j->s[j->p] != '"')
				j->p += j->s[j->p] == '\\' ? 2 : 1;
			if (j->p >= j->n)
				return bad(j, "an unfinished string");
			j->p++;
		} else if (c == '{' || c == '[') {
			if (++depth > MAX_DEPTH)
				return bad(j, "nesting too deep");
			j->p++;
		} else if (c == '}' || c == ']') {
			if (!depth--)
				return bad(j, "a stray bracket");
			j->p++;
		} else {
			j->p++;
			if (depth || c == ',' || c == ':')
				continue;
			while (j->p < j->n && !strchr(",:]}\" \t\r\n", j->s[j->p]))
				j->p++;
		}
	} while (depth);
	return 0;
}

static int integer(struct scan *j, int64_t *v)
{
	size_t from;

	peek(j);
	from = j->p;
	*v = 0;
	while (j->p < j->n && j->s[j->p] >= '0' && j->s[j->p] <= '9' && *v < INT32_MAX)
		*v = *v * 10 + (j->s[j->p++] - '0');
	if (j->p == from || *v > INT32_MAX / 2)
		return bad(j, "model.vocab: an id that is no small whole number");
	return 0;
}

static int read_vocab(struct scan *j, struct vocab *v)
{
	/* the shortest entry is "a":0, : an id far beyond the number of entries is a lie */
	int64_t limit = (int64_t)(j->n / 6) * 2 + 65536;
	int rc;

	take(j, '{');
	if (take(j, '}'))
		return 0;
	do {
		int64_t id;
		int32_t had;

		rc = string(j);
		if (rc)
			return rc;
		if (!take(j, ':'))
			return bad(j, "model.vocab: ':' was expected");
		rc = integer(j, &id);
		if (rc)
			return rc;
		if (!j->str.n) /* never matches anything; Hugging Face keeps it as a name only */
			continue;
		had = vocab_lookup(v, j->str.v, j->str.n);
		if (had >= 0 && had != id)
			return bad(j, "model.vocab: a token that has two ids");
		rc = vocab_set(v, id, j->str.v, j->str.n, TOK_F_MODEL, limit);
		if (rc == -ENOMEM)
			return err_set(j->e, rc, "%s: out of memory: free some", j->path);
		if (rc)
			return err_set(j->e, -EINVAL,
				       "%s: model.vocab: token \"%.*s\": %s: fetch the file again",
				       j->path, (int)(j->str.n < 40 ? j->str.n : 40), j->str.v,
				       rc == -EEXIST   ? "its id has another token already"
				       : rc == -ERANGE ? "its id is far too large"
						       : "it is longer than 1024 bytes");
	} while (take(j, ','));
	return take(j, '}') ? 0 : bad(j, "model.vocab: ',' or '}' was expected");
}

/* The two sides of a merge: j->str holds both, *left bytes of the first. */
static int read_pair(struct scan *j, struct buf *first, size_t *left)
{
	const char *space;
	int rc;

	if (peek(j) == '[') {
		j->p++;
		rc = string(j);
		if (rc)
			return rc;
		first->n = 0;
		rc = buf_add(first, j->str.v, j->str.n);
		if (rc)
			return rc;
		*left = first->n;
		if (!take(j, ','))
			return bad(j, "model.merges: a pair was expected");
		rc = string(j);
		if (!rc)
			rc = buf_add(first, j->str.v, j->str.n);
		if (rc)
			return rc;
		return take(j, ']') ? 0 : bad(j, "model.merges: a pair was expected");
	}
	rc = string(j);
	if (rc)
		return rc;
	space = memchr(j->str.v, ' ', j->str.n);
	if (!space || memchr(space + 1, ' ', j->str.n - (size_t)(space + 1 - j->str.v)))
		return bad(j, "model.merges: two parts with one space between were expected");
	first->n = 0;
	*left = (size_t)(space - j->str.v);
	rc = buf_add(first, j->str.v, *left);
	return rc ? rc : buf_add(first, space + 1, j->str.n - *left - 1);
}

static int read_merges(struct scan *j, struct vocab *v, size_t *n)
{
	struct buf both = {0};
	int rc = 0;

	*n = 0;
	take(j, '[');
	if (take(j, ']'))
		return 0;
	do {
		size_t left = 0;
		int32_t a, b, c;

		rc = read_pair(j, &both, &left);
		if (rc)
			break;
		a = vocab_lookup(v, both.v, left);
		b = vocab_lookup(v, both.v + left, both.n - left);
		c = vocab_lookup(v, both.v, both.n);
		if (a < 0 || b < 0 || c < 0) {
			rc = err_set(j->e, -EINVAL,
				     "%s: model.merges[%zu]: \"%.*s\" + \"%.*s\": a part or the "
				     "whole is not in model.vocab: fetch the file again",
				     j->path, *n, (int)left, both.v, (int)(both.n - left),
				     both.v + left);
			break;
		}
		rc = vocab_add_merge(v, (uint32_t)a, (uint32_t)b, (uint32_t)*n, (uint32_t)c, false);
		++*n;
	} while (!rc && take(j, ','));
	buf_free(&both);
	if (rc == -ENOMEM)
		return err_set(j->e, rc, "%s: out of memory: free some", j->path);
	if (rc)
		return rc;
	return take(j, ']') ? 0 : bad(j, "model.merges: ',' or ']' was expected");
}

struct range {
	size_t from, to; /* none: from == to */
};

/* Find `key` in the object at j->p (which is left behind it); its value's bytes in *r. */
static int find_members(struct scan *j, const char *const *keys, int n_keys, struct range *r)
{
	int rc;

	if (!take(j, '{'))
		return bad(j, "an object was expected");
	if (take(j, '}'))
		return 0;
	do {
		size_t from;

		rc = string(j);
		if (rc)
			return rc;
		if (!take(j, ':'))
			return bad(j, "':' was expected");
		peek(j);
		from = j->p;
		rc = skip(j);
		if (rc)
			return rc;
		for (int i = 0; i < n_keys; i++) {
			if (j->str.n != strlen(keys[i]) || memcmp(j->str.v, keys[i], j->str.n))
				continue;
			if (r[i].to)
				return bad(j, "a member given twice");
			r[i] = (struct range){from, j->p};
		}
	} while (take(j, ','));
	return take(j, '}') ? 0 : bad(j, "',' or '}' was expected");
}

static int scan(struct scan *j, struct vocab *v, json_t **rest, size_t *merges)
{
	static const char *const top[] = {"model"}, *const inner[] = {"vocab", "merges"};
	struct range model = {0, 0}, r[2] = {{0, 0}, {0, 0}}, *a = &r[0], *b = &r[1];
	bool vocab, list;
	struct buf left = {0};
	json_error_t je;
	int rc = find_members(j, top, 1, &model);

	if (!rc && peek(j))
		rc = bad(j, "something after the object");
	if (rc)
		return rc;
	if (!model.to || j->s[model.from] != '{')
		return err_set(j->e, -EINVAL,
			       "%s: model: there is no such object: is this a tokenizer.json?",
			       j->path);
	j->p = model.from;
	rc = find_members(j, inner, 2, r);
	if (rc)
		return rc;
	vocab = a->to && j->s[a->from] == '{';
	list = b->to && j->s[b->from] == '[';
	/* jansson's part first: a file of another kind is refused by its type, not by its merges */
	if (!vocab || !list)
		return err_set(j->e, -EINVAL,
			       "%s: model.%s: there is none, and only BPE models are supported: "
			       "use token ids",
			       j->path, vocab ? "merges" : "vocab");
	j->p = a->from;
	rc = read_vocab(j, v);
	if (rc)
		return rc;
	j->p = b->from;
	rc = read_merges(j, v, merges);
	if (rc)
		return rc;
	if (a->from > b->from) {
		a = &r[1];
		b = &r[0];
	}
	/* what is left of the file, each of the two as an empty one of its kind */
	rc = buf_add(&left, j->s, a->from + 1);
	if (!rc)
		rc = buf_add(&left, j->s + a->to - 1, b->from + 1 - (a->to - 1));
	if (!rc)
		rc = buf_add(&left, j->s + b->to - 1, j->n - (b->to - 1));
	if (rc) {
		buf_free(&left);
		return err_set(j->e, rc, "%s: out of memory: free some", j->path);
	}
	*rest = json_loadb(left.v, left.n, JSON_REJECT_DUPLICATES, &je);
	buf_free(&left);
	return *rest ? 0
		     : err_set(j->e, -EINVAL, "%s: %s: not valid JSON: fetch the file again",
			       j->path, je.text);
}

static int read_file(struct scan *j, char **data)
{
	struct stat st;
	int fd = open(j->path, O_RDONLY | O_CLOEXEC);
	int rc = 0;

	if (fd < 0)
		return err_set(j->e, -errno, "%s: cannot be opened: %s: check the path", j->path,
			       strerror(errno));
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		rc = err_set(j->e, -EINVAL, "%s: not a regular file: name a tokenizer.json",
			     j->path);
	} else if ((uint64_t)st.st_size > MAX_FILE) {
		rc = err_set(j->e, -EFBIG,
			     "%s: %lld MiB: no tokenizer.json is that large: check the path",
			     j->path, (long long)(st.st_size >> 20));
	} else if (!(*data = malloc((size_t)st.st_size + 1))) {
		rc = err_set(j->e, -ENOMEM, "%s: out of memory: free some", j->path);
	}
	while (!rc && j->n < (size_t)st.st_size) {
		ssize_t k = read(fd, *data + j->n, (size_t)st.st_size - j->n);

		if (k < 0 && errno != EINTR)
			rc = err_set(j->e, -errno, "%s: cannot be read: %s: check the disk",
				     j->path, strerror(errno));
		if (!k)
			break;
		if (k > 0)
			j->n += (size_t)k;
	}
	close(fd);
	j->s = *data;
	return rc;
}

int json_scan_tokenizer(const char *path, struct vocab *v, json_t **rest, size_t *merges_seen,
			struct err *e)
{
	struct scan j = {.path = path, .e = e};
	char *data = NULL;
	int rc = read_file(&j, &data);

	*rest = NULL;
	if (!rc)
		rc = scan(&j, v, rest, merges_seen);
	buf_free(&j.str);
	free(data);
	return rc;
}
