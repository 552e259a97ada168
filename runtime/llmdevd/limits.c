// SPDX-License-Identifier: MIT
/* Counts of unfinished requests by principal and by uid (limits.h). Owns the tallies. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llmdevd/limits.h"

/* One name's unfinished requests. It lives as long as there are some. */
struct tally {
	struct tally *next; /* in its bucket */
	uint64_t key;
	bool is_uid;
	int n;
};

int limits_init(struct limits *l, int max_unfinished, int max_principal, int max_uid)
{
	*l = (struct limits){
		.max_unfinished = max_unfinished,
		.max_principal = max_principal,
		.max_uid = max_uid,
		.n_buckets = 64,
	};
	/* At most two tallies a request: chains stay short. */
	while (l->n_buckets < (size_t)max_unfinished && l->n_buckets < 65536)
		l->n_buckets *= 2;
	l->bucket = calloc(l->n_buckets, sizeof(struct tally *));
	return l->bucket ? 0 : -ENOMEM;
}

void limits_free(struct limits *l)
{
	free(l->bucket);
	*l = (struct limits){0};
}

static struct tally **bucket_of(const struct limits *l, uint64_t key, bool is_uid)
{
	/* Multiplicative hashing (Knuth, TAOCP 6.4): uids are small numbers side by side. */
	uint64_t h = (key + is_uid) * UINT64_C(0x9e3779b97f4a7c15);

	return &l->bucket[(h >> 32) & (l->n_buckets - 1)];
}

static struct tally *find(const struct limits *l, uint64_t key, bool is_uid)
{
	struct tally *t = *bucket_of(l, key, is_uid);

	while (t && (t->key != key || t->is_uid != is_uid))
		t = t->next;
	return t;
}

static struct tally *get(struct limits *l, uint64_t key, bool is_uid)
{
	struct tally *t = find(l, key, is_uid), **b;

	if (t) {
		t->n++;
		return t;
	}
	t = malloc(sizeof(*t));
	if (!t)
		return NULL;
	b = bucket_of(l, key, is_uid);
	*t = (struct tally){.next = *b, .key = key, .is_uid = is_uid, .n = 1};
	*b = t;
	l->principals += !is_uid;
	return t;
}

static void put(struct limits *l, struct tally *t)
{
	struct tally **p;

	if (!t || --t->n)
		return;
	for (p = bucket_of(l, t->key, t->is_uid); *p != t; p = &(*p)->next)
		;
	*p = t->next;
	l->principals -= !t->is_uid;
	free(t);
}

/* The principal for a sentence. Labels come from outside: nothing that a terminal obeys. */
static void name_of(char *out, size_t len, const struct requester *who)
{
	size_t n = who->label_len < len - 1 ? who->label_len : len - 1;

	if (!who->label_len) {
		snprintf(out, len, "uid %u", (unsigned)who->uid);
		return;
	}
	for (size_t i = 0; i < n; i++)
		out[i] = who->label[i] > ' ' && who->label[i] < 127 ? who->label[i] : '?';
	out[n] = '\0';
}

int limits_charge(struct limits *l, struct charge *c, const struct requester *who, struct err *e)
{
	const struct tally *of_principal = find(l, who->principal, false);
	const struct tally *of_uid = find(l, who->uid, true);
	struct charge taken;
	char name[80];

	name_of(name, sizeof(name), who);
	if (l->unfinished >= l->max_unfinished)
		return err_set(e, -ENOSPC,
			       "requests: %d of this daemon are unfinished, the limit is %d: try "
			       "again later or ask the administrator for `--limits waiting=`",
			       l->unfinished, l->max_unfinished);
	if (of_uid && of_uid->n >= l->max_uid)
		return err_set(e, -ENOSPC,
			       "requests: %d of uid %u are unfinished, the limit is %d: wait for "
			       "one or ask the administrator for `--limits uid=`",
			       of_uid->n, (unsigned)who->uid, l->max_uid);
	if (of_principal && of_principal->n >= l->max_principal)
		return err_set(e, -ENOSPC,
			       "requests: %d of principal %s are unfinished, the limit is %d: wait "
			       "for one or ask the administrator for `--limits principal=`",
			       of_principal->n, name, l->max_principal);
	taken.principal = get(l, who->principal, false);
	taken.uid = get(l, who->uid, true);
	if (!taken.principal || !taken.uid) {
		put(l, taken.principal);
		put(l, taken.uid);
		return err_set(e, -ENOMEM, "request: no memory: try again later");
	}
	l->unfinished++;
	*c = taken;
	return 0;
}

void limits_release(struct limits *l, struct charge *c)
{
	if (!c->principal)
		return;
	put(l, c->principal);
	put(l, c->uid);
	l->unfinished--;
	*c = (struct charge){0};
}
