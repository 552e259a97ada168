// SPDX-License-Identifier: MIT
/* keys.h. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/keys.h"

#define KEYS_MAX       10000
#define LINE_MAX_BYTES 4096

/* ---- buckets --------------------------------------------------------------------------------- */

static void fill(struct bucket *b, uint64_t now_ns)
{
	if (now_ns > b->when_ns) {
		b->level += b->per_minute * (double)(now_ns - b->when_ns) / 60e9;
		if (b->level > b->per_minute)
			b->level = b->per_minute;
	}
	b->when_ns = now_ns;
}

double bucket_left(struct bucket *b, uint64_t now_ns)
{
	fill(b, now_ns);
	return b->level > 0 ? floor(b->level) : 0;
}

double bucket_wait(struct bucket *b, double want, uint64_t now_ns)
{
	fill(b, now_ns);
	if (!(b->per_minute > 0) || b->level >= want)
		return 0;
	return (want - b->level) * 60 / b->per_minute;
}

enum key_limit key_begin(struct key *key, uint64_t now_ns)
{
	if (key->concurrent_max && key->concurrent >= key->concurrent_max)
		return KEY_CONCURRENT;
	if (bucket_wait(&key->requests, 1, now_ns) > 0)
		return KEY_REQUESTS;
	if (bucket_wait(&key->tokens, 1, now_ns) > 0)
		return KEY_TOKENS;
	if (key->requests.per_minute > 0)
		key->requests.level -= 1;
	key->concurrent++;
	return KEY_FREE;
}

void key_end(struct key *key)
{
	key->concurrent--;
}

void key_spend(struct key *key, uint64_t tokens, uint64_t now_ns)
{
	fill(&key->tokens, now_ns);
	if (key->tokens.per_minute > 0)
		key->tokens.level -= (double)tokens;
}

/* ---- the file -------------------------------------------------------------------------------- */

void key_unref(struct key *key)
{
	if (!key || --key->references)
		return;
	if (key->secret)
		explicit_bzero(key->secret, strlen(key->secret));
	free(key->secret);
	free(key);
}

void keys_free(struct keys *k)
{
	for (int i = 0; i < k->n; i++)
		key_unref(k->list[i]);
	free(k->list);
	*k = (struct keys){0};
}

static bool parse_number(const char *s, double lo, double hi, double *out)
{
	char *end;

	errno = 0;
	*out = strtod(s, &end);
	return *s && !*end && !errno && *out >= lo && *out <= hi;
}

/* One NAME=VALUE of a line. 0 or -EINVAL. */
static int parse_member(struct key *key, const char *word, struct err *e)
{
	const char *value = strchr(word, '=');
	size_t n = value ? (size_t)(value - word) : 0;
	double number = 0;

	if (!value)
		return err_set(e, -EINVAL, "`%s`: not NAME=VALUE", word);
	value++;
	if (n == 9 && !memcmp(word, "principal", n)) {
		if (!*value || strlen(value) >= sizeof(key->principal))
			return err_set(e, -EINVAL, "principal: give 1 to %zu bytes",
				       sizeof(key->principal) - 1);
		strcpy(key->principal, value);
		return 0;
	}
	if (n == 5 && !memcmp(word, "share", n)) {
		if (!parse_number(value, 0.015, 86, &number))
			return err_set(e, -EINVAL, "share: `%s`: give 0.015 to 86", value);
		key->priority = (int)lround(-log(number) / log(1.25));
		return 0;
	}
	if (n == 8 && !memcmp(word, "priority", n)) {
		if (!parse_number(value, -20, 19, &number) || number != floor(number))
			return err_set(e, -EINVAL, "priority: `%s`: give -20 to 19", value);
		key->priority = (int)number;
		return 0;
	}
	if (!parse_number(value, 1, 1e12, &number) || number != floor(number))
		number = 0;
	if (n == 10 && !memcmp(word, "concurrent", n) && number <= 1e6)
		key->concurrent_max = (int)number;
	else if (n == 19 && !memcmp(word, "requests-per-minute", n))
		key->requests.per_minute = number;
	else if (n == 17 && !memcmp(word, "tokens-per-minute", n))
		key->tokens.per_minute = number;
	else
		return err_set(e, -EINVAL,
			       "`%s`: unknown: principal, share, priority, concurrent, "
			       "requests-per-minute or tokens-per-minute",
			       word);
	if (!(number > 0))
		return err_set(e, -EINVAL, "%.*s: `%s`: give a whole number from 1 on", (int)n,
			       word, value);
	return 0;
}

/* A line without its newline; *out stays NULL for one that holds no key. */
static int parse_line(char *line, uint64_t now_ns, struct key **out, struct err *e)
{
	char *save, *word = strtok_r(line, " \t\r", &save);
	struct key *key;
	int rc = 0;

	if (!word || *word == '#')
		return 0;
	key = calloc(1, sizeof(*key));
	if (!key)
		return err_set(e, -ENOMEM, "no memory");
	key->references = 1;
	key->secret = strdup(word);
	if (!key->secret)
		rc = err_set(e, -ENOMEM, "no memory");
	while (!rc && (word = strtok_r(NULL, " \t\r", &save)) && *word != '#')
		rc = parse_member(key, word, e);
	if (!rc && !key->principal[0])
		rc = err_set(e, -EINVAL, "principal=NAME is missing");
	if (rc) {
		key_unref(key);
		return rc;
	}
	key->requests.level = key->requests.per_minute;
	key->tokens.level = key->tokens.per_minute;
	key->requests.when_ns = key->tokens.when_ns = now_ns;
	*out = key;
	return 0;
}

static int add(struct keys *k, struct key *key, struct err *e)
{
	struct key **list;

	if (k->n == KEYS_MAX)
		return err_set(e, -E2BIG, "more than %d keys", KEYS_MAX);
	for (int i = 0; i < k->n; i++) {
		if (!strcmp(k->list[i]->secret, key->secret))
			return err_set(e, -EINVAL, "the same key as in an earlier line");
	}
	list = realloc(k->list, (size_t)(k->n + 1) * sizeof(struct key *));
	if (!list)
		return err_set(e, -ENOMEM, "no memory");
	k->list = list;
	k->list[k->n++] = key;
	return 0;
}

/* What the old table knows of the same keys goes on: a reload is no way to a fresh allowance. */
static void take_over(struct keys *fresh, const struct keys *old)
{
	for (int i = 0; i < fresh->n; i++) {
		struct key *was = keys_find(old, fresh->list[i]->secret), *key = fresh->list[i];

		if (!was)
			continue;
		/* Requests that run point to the old one: it is changed, not replaced. */
		memcpy(was->principal, key->principal, sizeof(was->principal));
		was->priority = key->priority;
		was->concurrent_max = key->concurrent_max;
		if (was->requests.per_minute != key->requests.per_minute)
			was->requests = key->requests;
		if (was->tokens.per_minute != key->tokens.per_minute)
			was->tokens = key->tokens;
		was->references++;
		key_unref(key);
		fresh->list[i] = was;
	}
}

/* 1: a line, without its end; 0: there is no more; or -EINVAL. */
static int read_line(FILE *f, char line[LINE_MAX_BYTES], struct err *e)
{
	int n = 0, c;

	while ((c = getc(f)) != EOF && c != '\n') {
		if (!c)
			return err_set(e, -EINVAL, "a NUL byte: not a text file");
		if (n == LINE_MAX_BYTES - 1)
			return err_set(e, -EINVAL, "longer than %d bytes", LINE_MAX_BYTES - 1);
		line[n++] = (char)c;
	}
	line[n] = '\0';
	return n || c != EOF;
}

int keys_load(struct keys *k, const char *path, uint64_t now_ns, struct err *e)
{
	struct keys fresh = {0};
	char line[LINE_MAX_BYTES] = "";
	int number, rc;
	FILE *f = fopen(path, "re");

	if (!f)
		return err_set(e, -errno, "%s: %s", path, strerror(errno));
	errno = 0;
	for (number = 1; (rc = read_line(f, line, e)) > 0; number++) {
		struct key *key = NULL;

		rc = parse_line(line, now_ns, &key, e);
		if (!rc && key) {
			rc = add(&fresh, key, e);
			if (rc)
				key_unref(key);
		}
		if (rc)
			break;
	}
	if (rc)
		err_prefix(e, rc, "%s:%d", path, number);
	else if (ferror(f))
		rc = err_set(e, errno ? -errno : -EIO, "%s: cannot be read: %s", path,
			     strerror(errno));
	explicit_bzero(line, sizeof(line));
	fclose(f);
	if (rc) {
		keys_free(&fresh);
		return rc;
	}
	take_over(&fresh, k);
	keys_free(k);
	*k = fresh;
	return 0;
}

/* Every byte of `given` is looked at, whatever differs before. */
static bool same(const char *secret, const char *given, size_t n)
{
	size_t len = strlen(secret);
	size_t diff = len ^ n;

	for (size_t i = 0; i < n; i++)
		diff |= (size_t)(unsigned char)(secret[len ? i % len : 0] ^ given[i]);
	return !diff;
}

struct key *keys_find(const struct keys *k, const char *secret)
{
	size_t n = strlen(secret);
	struct key *found = NULL;

	for (int i = 0; i < k->n; i++) {
		if (same(k->list[i]->secret, secret, n))
			found = k->list[i];
	}
	return n ? found : NULL;
}
