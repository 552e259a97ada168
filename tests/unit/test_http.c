// SPDX-License-Identifier: MIT
/* The gateway's parts that need neither HTTP nor a daemon: text building, the look at JSON before it
 * is parsed, keys and their limits, names of models, addresses. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "http/backend.h"
#include "http/strbuf.h"
#include "http/keys.h"
#include "http/listen.h"
#include "http/screen.h"
#include "tests/tap.h"

#define SECOND UINT64_C(1000000000)

static bool is(const struct strbuf *b, const char *text)
{
	return !b->failed && b->n == strlen(text) && !memcmp(b->p, text, b->n);
}

static void test_buf(void)
{
	struct strbuf b = {0};
	char text[5000];

	strbuf_json_text(&b, "a\"\\\n\x01/\x7f\xc3\xa9", 9);
	CHECK(is(&b, "\"a\\\"\\\\\\n\\u0001/\\u007f\xc3\xa9\""), "JSON text: escapes");
	b.n = 0;
	strbuf_json_text(&b, "\xff\xe2\x82x\xed\xa0\x80", 7);
	CHECK(is(&b, "\"\xef\xbf\xbd\xef\xbf\xbdx\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""),
	      "JSON text: what is no UTF-8");
	b.n = 0;
	strbuf_json_text(&b, "", 0);
	CHECK(is(&b, "\"\""), "JSON text: nothing");
	strbuf_free(&b);
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	strbuf_printf(&b, "<%s>", text);
	CHECK(b.n == sizeof(text) + 1 && b.p[b.n - 1] == '>', "printf of much");
	strbuf_consume(&b, 4999);
	CHECK(is(&b, "x>"), "consume");
	strbuf_free(&b);
	CHECK(!b.p && !b.n, "free");
}

static const char *screen(const char *text, size_t *at)
{
	return json_screen(text, strlen(text), at);
}

static char *repeat(const char *s, int n)
{
	size_t len = strlen(s);
	char *p = malloc(len * (size_t)n + 1);

	for (int i = 0; i < n; i++)
		memcpy(p + len * (size_t)i, s, len);
	p[len * (size_t)n] = '\0';
	return p;
}

static void test_screen(void)
{
	size_t at = 0;
	char *p;

	CHECK(!screen("{\"a\":[1,2,{}]}", &at), "screen: plain");
	CHECK(!screen("\"\\\\\\\"[[[\"", &at) && !screen("\"", &at) && !screen("", &at),
	      "screen: strings, whole or not");
	p = repeat("[", SCREEN_DEPTH_MAX);
	CHECK(!screen(p, &at), "screen: as deep as allowed");
	free(p);
	p = repeat("[", SCREEN_DEPTH_MAX + 1);
	CHECK(screen(p, &at) && at == SCREEN_DEPTH_MAX, "screen: deeper");
	free(p);
	p = repeat("[]", 3 * SCREEN_DEPTH_MAX);
	CHECK(!screen(p, &at), "screen: closed again is not deep");
	free(p);
	p = repeat("1,", 2 * SCREEN_VALUES_MAX + 1);
	CHECK(screen(p, &at) != NULL, "screen: too many values");
	free(p);
	p = repeat("\\\\", 100000);
	*p = '"';
	CHECK(!screen(p, &at), "screen: backslashes in linear time");
	free(p);
}

/* ---- keys -------------------------------------------------------------------------------------- */

static char path[] = "/tmp/test_http_XXXXXX";

static int load(struct keys *k, const char *text, struct err *e)
{
	FILE *f = fopen(path, "w");

	fputs(text, f);
	fclose(f);
	return keys_load(k, path, SECOND, e);
}

static void test_keys(void)
{
	struct keys k = {0};
	struct key *a, *held;
	struct err e;

	REQUIRE(!load(&k,
		      "# people\n\nkey-a principal=anna share=3 concurrent=2\r\n"
		      "\tkey-b   principal=bert share=1 # who\n"
		      "key-c principal=carl priority=-4 requests-per-minute=60\nkey-d "
		      "principal=dora share=0.2",
		      &e),
		"keys: a file");
	a = keys_find(&k, "key-a");
	CHECK(k.n == 4 && a && !strcmp(a->principal, "anna") && a->concurrent_max == 2,
	      "keys: members");
	CHECK(a->priority == -5 && keys_find(&k, "key-b")->priority == 0 &&
		      keys_find(&k, "key-c")->priority == -4 &&
		      keys_find(&k, "key-d")->priority == 7,
	      "keys: shares are priorities");
	CHECK(!keys_find(&k, "key-") && !keys_find(&k, "key-aa") && !keys_find(&k, "") &&
		      !keys_find(&k, "key-akey-a") && !keys_find(&k, "key-e"),
	      "keys: only whole ones");
	CHECK(key_begin(a, SECOND) == KEY_FREE && key_begin(a, SECOND) == KEY_FREE &&
		      key_begin(a, SECOND) == KEY_CONCURRENT,
	      "keys: concurrent");
	held = a;
	held->references++;
	CHECK(load(&k, "key-x principal=x\nkey-y\n", &e) && strstr(e.msg, ":2: principal") &&
		      k.n == 4,
	      "keys: a bad file changes nothing");
	CHECK(!load(&k, "key-a principal=anni\n", &e) && keys_find(&k, "key-a") == held &&
		      held->concurrent == 2 && !held->concurrent_max && !held->priority &&
		      !strcmp(held->principal, "anni"),
	      "keys: read again: the same key goes on");
	CHECK(!load(&k, "", &e) && !k.n && held->references == 1,
	      "keys: who is asked for outlives the file");
	key_end(held);
	key_end(held);
	key_unref(held);
	CHECK(load(&k,
		   "key-x principal=1234567890123456789012345678901234567890123456789012345"
		   "678901234\n",
		   &e) == 0 &&
		      load(&k,
			   "key-x principal=12345678901234567890123456789012345678901234567890"
			   "123456789012345\n",
			   &e) == -EINVAL,
	      "keys: a principal has at most 64 bytes");
	keys_free(&k);
	CHECK(keys_load(&k, "/dev/zero", 0, &e) == -EINVAL, "keys: no text: %s", e.msg);
	CHECK(keys_load(&k, "/nonexistent/keys", 0, &e) == -ENOENT, "keys: no file");
}

static void test_buckets(void)
{
	struct keys k = {0};
	struct key *a;
	struct err e;

	REQUIRE(!load(&k, "k principal=p requests-per-minute=3 tokens-per-minute=600\n", &e),
		"buckets: a file");
	a = keys_find(&k, "k");
	for (int i = 0; i < 3; i++)
		CHECK(key_begin(a, SECOND) == KEY_FREE, "a minute's requests at once: %d", i);
	CHECK(key_begin(a, SECOND) == KEY_REQUESTS && key_begin(a, 20 * SECOND) == KEY_REQUESTS,
	      "then one has to wait");
	CHECK(bucket_wait(&a->requests, 1, 20 * SECOND) > 0.9 &&
		      bucket_wait(&a->requests, 1, 20 * SECOND) < 1.1,
	      "for so long");
	CHECK(key_begin(a, 22 * SECOND) == KEY_FREE, "until the next may");
	key_spend(a, 700, 62 * SECOND);
	CHECK(key_begin(a, 62 * SECOND) == KEY_TOKENS && bucket_left(&a->tokens, 62 * SECOND) == 0,
	      "tokens are spent afterwards, and may be overspent");
	CHECK(key_begin(a, 73 * SECOND) == KEY_FREE, "and come back");
	CHECK(bucket_left(&a->tokens, 10000 * SECOND) == 600, "but not more than a minute's");
	CHECK(key_begin(a, 5 * SECOND) == KEY_FREE, "a clock that went back does no harm");
	keys_free(&k);
}

/* ---- names and addresses ------------------------------------------------------------------------ */

static void test_names(void)
{
	static const char *const bad[] = {"", "x", "=path", "x=", "x=p,", "x=p,,y", "x=p,y,"};
	struct backend b = {0};
	struct err e;

	CHECK(!backend_parse(&b, "org/a=/run/x.sock,b,c:1", &e) && !strcmp(b.path, "/run/x.sock") &&
		      b.n_names == 3 && backend_has_name(&b, "org/a") &&
		      backend_has_name(&b, "c:1") && !backend_has_name(&b, "a") &&
		      !strcmp(backend_name(&b), "org/a"),
	      "a model with aliases");
	backend_clear(&b);
	for (int i = 0; i < (int)(sizeof(bad) / sizeof(*bad)); i++) {
		CHECK(backend_parse(&b, bad[i], &e) < 0 && strstr(e.msg, "--model"),
		      "`%s` is refused", bad[i]);
		backend_clear(&b);
	}
	CHECK(!backend_has_name(&b, "") && !*backend_name(&b), "nothing known, no name");
}

static void test_addresses(void)
{
	static const char *const bad[] = {
		"",	  "host",    "1.2.3.4:",   "1.2.3.4:99999999", "65536",
		"::1:80", "[::1:80", "1.2.3.4:-1", "1.2.3.4:http"};
	char url[128];
	struct err e;
	int fd, other;

	CHECK(listen_is_loopback("127.0.0.1:0") && listen_is_loopback("8000") &&
		      listen_is_loopback("127.3.2.1:80"),
	      "loopback");
	CHECK(!listen_is_loopback("0.0.0.0:0") && !listen_is_loopback(":80") &&
		      !listen_is_loopback("[::]:80") && !listen_is_loopback("10.1.2.3:80"),
	      "not loopback");
	for (int i = 0; i < (int)(sizeof(bad) / sizeof(*bad)); i++)
		CHECK(listen_open(bad[i], &e) < 0 && !listen_is_loopback(bad[i]), "`%s`", bad[i]);
	fd = listen_open("127.0.0.1:0", &e);
	REQUIRE(fd >= 0, "a free port");
	listen_url(fd, url, sizeof(url));
	CHECK(!strncmp(url, "http://127.0.0.1:", 17) && strcmp(url, "http://127.0.0.1:0"), "%s",
	      url);
	other = listen_open(url + 7, &e);
	CHECK(other == -EADDRINUSE, "taken");
	close(fd);
}

int main(void)
{
	int fd = mkstemp(path);

	if (fd >= 0)
		close(fd);
	test_buf();
	test_screen();
	test_keys();
	test_buckets();
	test_names();
	test_addresses();
	unlink(path);
	return tap_done();
}
