// SPDX-License-Identifier: MIT
/*
 * libFuzzer target: any bytes as a tokenizer.json, then some texts through what opens. Seeds:
 * tests/fixtures/tokenizers/ *.json. The bytes also serve as a text of their own.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void round_trip(const struct tokenizer *t, const char *text, size_t len, unsigned flags)
{
	static char buf[DETOK_MAX];
	struct ids ids = {0};
	struct detok d;
	struct err e;
	char *back;
	size_t n;

	if (!tokenizer_encode(t, text, len, flags, &ids, &e)) {
		detok_init(&d, t, true);
		for (size_t i = 0; i < ids.n; i++) {
			if (ids.v[i] < 0 || ids.v[i] >= tokenizer_n_vocab(t))
				abort();
			if (detok_push(&d, ids.v[i], buf, sizeof(buf)) > sizeof(buf))
				abort();
		}
		if (!tokenizer_decode(t, ids.v, ids.n, false, &back, &n, &e))
			free(back);
	}
	ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char text[] =
		" It's 1234\n\n\xe4\xbd\xa0\xe5\xa5\xbd e\xcc\x81 <s>\xff  \xf0\x9f\x9a\x80x";
	static int fd = -1;
	static char path[64];
	struct tokenizer *t;
	struct err e;

	if (fd < 0) {
		fd = memfd_create("tokenizer.json", 0);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	}
	if (fd < 0 || size > 1 << 17 || ftruncate(fd, 0) ||
	    pwrite(fd, data, size, 0) != (ssize_t)size)
		return -1;
	if (!tokenizer_open_hf(&t, path, &e)) {
		round_trip(t, text, sizeof(text) - 1, TOK_SPECIAL | TOK_BOS);
		round_trip(t, (const char *)data, size < 512 ? size : 512, 0);
		tokenizer_close(t);
	} else if (!*e.msg || strchr(e.msg, '\n')) {
		abort(); /* every refusal says why, in one line */
	}
	return 0;
}
