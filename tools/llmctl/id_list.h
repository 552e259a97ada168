/* SPDX-License-Identifier: MIT */
/* "1,2,3" on the command line. */
#ifndef LLMCTL_ID_LIST_H
#define LLMCTL_ID_LIST_H

#include "base/err.h"
#include "text/tokenizer.h"

/* Decimal numbers 0 .. 2^31-1, separated by commas and optional spaces. */
int id_list_parse(const char *text, struct ids *out, struct err *e);

#endif
