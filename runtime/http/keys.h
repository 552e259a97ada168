/* SPDX-License-Identifier: MIT */
/*
 * API keys: who a client is, and how much it may ask. Read from a file of lines
 *
 *	KEY principal=alice [share=3] [priority=N] [concurrent=N] [requests-per-minute=N]
 *	    [tokens-per-minute=N]
 *
 * A share of S becomes the priority round(-log1.25 S), since a daemon gives a request of priority P
 * the weight 1.25^-P. What a minute allows is a bucket that fills evenly: a key that was quiet may
 * use a whole minute's worth at once. Tokens are known only when an answer ends: a bucket may go
 * below zero, and then is waited for.
 *
 * Reading the file again keeps the buckets of keys that are still in it. Requests hold references,
 * so a key that vanished is freed with its last one.
 */
#ifndef HTTP_KEYS_H
#define HTTP_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct bucket {
	double per_minute; /* 0: no limit */
	double level;      /* may be negative */
	uint64_t when_ns;
};

struct key {
	char *secret;
	char principal[65];
	int priority;
	int concurrent_max; /* 0: no limit */
	int concurrent;
	struct bucket requests, tokens;
	int references;
};

struct keys {
	struct key **list;
	int n;
};

/* On failure *k is unchanged. `why` names file and line, never a key. */
int keys_load(struct keys *k, const char *path, uint64_t now_ns, struct err *e);
void keys_free(struct keys *k);
/* The key of this secret, or NULL. Takes the same time wherever and whether it is found. */
struct key *keys_find(const struct keys *k, const char *secret);
void key_unref(struct key *key);

/* Which limit stands in the way of one more request. */
enum key_limit { KEY_FREE, KEY_CONCURRENT, KEY_REQUESTS, KEY_TOKENS };
/* Takes one request of the allowance, if it may: then key_end() is to follow. */
enum key_limit key_begin(struct key *key, uint64_t now_ns);
void key_end(struct key *key);
void key_spend(struct key *key, uint64_t tokens, uint64_t now_ns);
/* What is left (whole, not below 0), and the seconds until `want` are there again. */
double bucket_left(struct bucket *b, uint64_t now_ns);
double bucket_wait(struct bucket *b, double want, uint64_t now_ns);

#endif
