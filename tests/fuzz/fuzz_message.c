// SPDX-License-Identifier: MIT
/*
 * Fuzz target: what a client sends to the daemon (msg_parse) and what a daemon sends to a client
 * (event_parse). The first byte chooses. Every byte that a parsed message points to is read.
 */
#include <stdlib.h>
#include <string.h>

#include "transport/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t touch(const void *p, size_t n)
{
	const uint8_t *b = p;
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum = sum * 31 + b[i];
	return sum;
}

static void as_message(const uint8_t *buf, size_t size)
{
	volatile uint64_t sum = 0;
	struct err e;
	struct msg m;

	/* A header that agrees with the length lets the fuzzer get further. */
	if (msg_parse(&m, buf, size, &e)) {
		if (!e.msg[0])
			abort();
		return;
	}
	if (m.type != LLM_MSG_SUBMIT)
		return;
	sum += touch(m.payload, m.submit.payload_len);
	sum += touch(m.principal, m.submit.principal_len);
	sum += touch(m.ids, m.submit.n_ids * sizeof(int32_t));
	/* What was read can be written again, byte for byte. */
	struct msg_submit_parts parts = {&m.submit, m.payload, m.principal, &m.resume, m.ids};
	uint8_t *again = malloc(size);

	if (msg_submit_size(&m.submit) != size)
		abort();
	msg_submit_write(again, m.flags, m.request_id, &parts);
	if (memcmp(again + 32, buf + 32, size - 32))
		abort();
	free(again);
}

static void as_events(const uint8_t *buf, size_t size)
{
	volatile uint64_t sum = 0;
	const void *payload;
	struct llm_event h;
	int64_t n;

	while ((n = event_parse(buf, size, &h, &payload)) > 0) {
		sum += touch(payload, h.length);
		buf += n;
		size -= (size_t)n;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy;

	if (!size)
		return 0;
	copy = malloc(size);
	memcpy(copy, data + 1, size - 1);
	if (data[0] & 1) {
		as_events(copy, size - 1);
	} else {
		uint32_t said = (uint32_t)(size - 1);

		if ((data[0] & 2) && size > 4)
			memcpy(copy, &said, sizeof(said));
		as_message(copy, size - 1);
	}
	free(copy);
	return 0;
}
