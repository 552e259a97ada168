// SPDX-License-Identifier: MIT
/*
 * Two files that are part of the program. GET /: the chat page (page/index.html). Its only script and
 * its only style are named by a number that is new in every reply, so nothing that a model says can
 * become a script even if the page had a mistake. GET /openapi.json: what all endpoints take and give.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "http/gateway.h"

/* The build runs in the tree's root, which is where the paths begin. */
#define FILE_IN_PROGRAM(name, path)                                                                \
	__asm__(".section .rodata\n"                                                               \
		".global " #name "\n"                                                              \
		".global " #name "_end\n" #name ":\n"                                              \
		".incbin \"" path "\"\n" #name "_end:\n"                                           \
		".byte 0\n"                                                                        \
		".previous\n");                                                                    \
	extern const char name[], name##_end[]

FILE_IN_PROGRAM(llmdev_page, "runtime/http/page/index.html");
FILE_IN_PROGRAM(llmdev_openapi, "docs/openapi.json");

/* 128 random bits in hex; false: the system has none. */
static bool make_nonce(char out[static 33])
{
	uint8_t bytes[16];
	ssize_t n;

	do
		n = getrandom(bytes, sizeof(bytes), 0);
	while (n < 0 && errno == EINTR);
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(out + 2 * i, 3, "%02x", bytes[i]);
	return n == sizeof(bytes);
}

static void handle_page(struct request *rq)
{
	static const char mark[] = "\"NONCE\"";
	const char *from = llmdev_page, *at;
	struct strbuf out = {0};
	char nonce[33], policy[200];

	if (!make_nonce(nonce)) {
		reply_error(rq, 500, NULL, NULL, "getrandom: %s", strerror(errno));
		return;
	}
	while ((at = memmem(from, llmdev_page_end - from, mark, strlen(mark)))) {
		strbuf_add(&out, from, at - from);
		strbuf_printf(&out, "\"%s\"", nonce);
		from = at + strlen(mark);
	}
	strbuf_add(&out, from, llmdev_page_end - from);
	snprintf(policy, sizeof(policy),
		 "default-src 'none'; connect-src 'self'; img-src data:; script-src 'nonce-%s'; "
		 "style-src 'nonce-%s'",
		 nonce, nonce);
	reply_header(rq, "Content-Security-Policy", policy);
	/* Both hold. */
	reply_header(rq, "Content-Security-Policy",
		     "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
		     "require-trusted-types-for 'script'; trusted-types 'none'");
	reply_header(rq, "Referrer-Policy", "no-referrer");
	reply_header(rq, "Cache-Control", "no-store");
	reply_buf(rq, 200, "text/html; charset=utf-8", &out);
}

static void handle_openapi(struct request *rq)
{
	reply_bytes(rq, 200, "application/json", llmdev_openapi,
		    llmdev_openapi_end - llmdev_openapi);
}

const struct route page_routes[] = {
	{"GET", "/", ROUTE_OPEN, handle_page},
	{"GET", "/openapi.json", ROUTE_OPEN, handle_openapi},
	{0},
};
