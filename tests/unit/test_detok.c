// SPDX-License-Identifier: MIT
/* The streaming detokeniser: what comes out when, and where it may differ from whole decoding. */
#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"
#include "text/tokenizer.h"

#define FIXTURES "tests/fixtures/tokenizers/"

static struct tokenizer *open_tokenizer(const char *name)
{
	struct tokenizer *t = NULL;
	struct err e = {""};
	char path[256];

	snprintf(path, sizeof(path), FIXTURES "%s.json", name);
	CHECK(!tokenizer_open_hf(&t, path, &e), "%s opens %s", name, e.msg);
	return t;
}

/* Push the id of a token; true if exactly `want` comes out. */
static bool gives(struct detok *d, const char *token, const char *want)
{
	static char buf[DETOK_MAX];
	size_t n = detok_push(d, tokenizer_find(d->t, token), buf, sizeof(buf));

	if (n == strlen(want) && !memcmp(buf, want, n))
		return true;
	printf("#   %s gave \"%.*s\"\n", token, (int)n, buf);
	return false;
}

static bool flushes(struct detok *d, const char *want)
{
	static char buf[DETOK_MAX];
	size_t n = detok_flush(d, buf, sizeof(buf));

	return n == strlen(want) && !memcmp(buf, want, n);
}

static void test_bytes(void)
{
	struct tokenizer *t = open_tokenizer("qwen2");
	struct detok d, copy;

	if (!t)
		return;
	detok_init(&d, t, true);
	/* U+1F680 is f0 9f 9a 80; the alphabet writes these bytes so */
	CHECK(gives(&d, "\xc3\xb0", "") && gives(&d, "\xc4\x81", "\xef\xbf\xbd\x01"),
	      "a byte that cannot follow ends the character before it");
	CHECK(gives(&d, "\xc3\xb0", "") && gives(&d, "\xc5\x81", "") && gives(&d, "\xc4\xbc", ""),
	      "an unfinished character is held");
	copy = d;
	CHECK(gives(&d, "\xc4\xa2", "\xf0\x9f\x9a\x80"), "and comes out whole");
	CHECK(gives(&copy, "a",
		    "\xef\xbf\xbd"
		    "a"),
	      "a copy of the fold goes its own way");
	CHECK(gives(&d, "\xc3\xb0", "") && gives(&d, "<|im_end|>", ""),
	      "a special token is skipped");
	CHECK(flushes(&d, "\xef\xbf\xbd") && flushes(&d, ""), "the rest is one U+FFFD, once");
	detok_init(&d, t, false);
	CHECK(gives(&d, "<|im_end|>", "<|im_end|>"), "special tokens are shown if wanted");
	tokenizer_close(t);
}

static void test_fallback(void)
{
	struct tokenizer *t = open_tokenizer("llama2");
	int32_t run[3];
	struct detok d;
	struct err e;
	char *text;
	size_t len;

	if (!t)
		return;
	detok_init(&d, t, true);
	CHECK(gives(&d, "\xe2\x96\x81the", "the") && gives(&d, "\xe2\x96\x81the", " the"),
	      "the first word's space is dropped");
	detok_init(&d, t, true);
	d.started = true;
	CHECK(gives(&d, "\xe2\x96\x81the", " the"), "but not of a text that goes on");
	CHECK(gives(&d, "<0xE4>", "") && gives(&d, "<0xBD>", "") &&
		      gives(&d, "<0xA0>", "\xe4\xbd\xa0"),
	      "byte tokens become a character");
	CHECK(gives(&d, "<0xE4>", "") && gives(&d, "<0xBD>", "") &&
		      gives(&d, "e",
			    "\xef\xbf\xbd\xef\xbf\xbd"
			    "e"),
	      "each byte of an unfinished one is replaced");
	CHECK(gives(&d, "<0xE4>", "") && flushes(&d, "\xef\xbf\xbd"), "also at the end");
	/* the documented difference: a whole character, then a stray byte */
	run[0] = tokenizer_find(t, "<0x41>");
	run[1] = tokenizer_find(t, "<0x80>");
	run[2] = tokenizer_find(t, "e");
	CHECK(gives(&d, "<0x41>", "A") && gives(&d, "<0x80>", "\xef\xbf\xbd") &&
		      gives(&d, "e", "e"),
	      "the fold keeps the characters before a stray byte");
	CHECK(!tokenizer_decode(t, run, 3, false, &text, &len, &e) &&
		      !strcmp(text, "\xef\xbf\xbd\xef\xbf\xbd"
				    "e"),
	      "whole decoding replaces the run, as Hugging Face does");
	free(text);
	tokenizer_close(t);
}

int main(void)
{
	test_bytes();
	test_fallback();
	return tap_done();
}
