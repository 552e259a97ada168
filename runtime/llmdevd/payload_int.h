/* SPDX-License-Identifier: MIT */
/* The inside of payload.h: reading members of JSON objects, and the parts of a payload. */
#ifndef LLMDEV_PAYLOAD_INT_H
#define LLMDEV_PAYLOAD_INT_H

#include "llmdevd/payload.h"

/* NULL for a member that is absent or null. */
const json_t *payload_member(const json_t *o, const char *key);
/* Absent members leave *out as it is. -EINVAL with the key in front. */
int payload_number(const json_t *o, const char *key, double lo, double hi, float *out,
		   struct err *e);
int payload_int(const json_t *o, const char *key, json_int_t lo, json_int_t hi, json_int_t *out,
		bool *found, struct err *e);
int payload_bool(const json_t *o, const char *key, bool *out, struct err *e);

/* Text that the caller may add to: "messages[3]". */
#define PAYLOAD_PATH_MAX 96

/* payload_sampling.c: how tokens are chosen, when it ends, what is told of it. */
int payload_settings(struct payload *p, const json_t *o, const struct payload_env *env, bool chat,
		     struct err *e);
/* payload_structured.c: constraints of the content. */
int payload_structured(struct payload *p, const json_t *o, struct err *e);
/* payload_tools.c: `tools` and what belongs to them; *shown: what the template is told. */
int payload_tools(struct payload *p, const json_t *o, const struct payload_env *env,
		  json_t **shown, struct err *e);
/* payload_chat.c: messages to a prompt. `path` stands before the members' names ("" or "tokenize."). */
int payload_messages(struct payload *p, const json_t *o, const struct payload_env *env,
		     const char *path, struct err *e);
/* payload_other.c */
int payload_prompt(struct payload *p, const json_t *v, const char *path,
		   const struct payload_env *env, struct err *e);
int payload_embed(struct payload *p, const json_t *o, const struct payload_env *env,
		  struct err *e);
int payload_tokenize(struct payload *p, const json_t *o, const struct payload_env *env,
		     struct err *e);
int payload_detokenize(struct payload *p, const json_t *o, const struct payload_env *env,
		       struct err *e);

#endif
