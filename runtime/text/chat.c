// SPDX-License-Identifier: MIT
/*
 * Compiled-in chat formats. Recognition brings a Jinja template into a canonical spelling (blanks
 * and quotes of its expressions, comments, whitespace control) and then compares the parts that
 * plain messages go through, verbatim.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "text/chat.h"
#include "text/text_int.h"
#include "text/utf8.h"

#define MAX_TEMPLATE ((size_t)1 << 20)

struct format {
	const char *name;
	bool llama;
	const char *system; /* default system turn; Llama: what the system turn starts with */
	bool drop_think;
	const char *answer; /* what an answer starts with */
};

static const struct format formats[] = {
	[CHAT_NONE] = {"none"},
	[CHAT_CHATML] = {"chatml"},
	[CHAT_LLAMA3] = {"llama3", .llama = true},
	[CHAT_CHATML_ASSISTANT] = {"chatml-assistant", .system = "You are a helpful assistant."},
	[CHAT_QWEN25] = {"qwen2.5", .system = "You are Qwen, created by Alibaba Cloud. "
					      "You are a helpful assistant."},
	[CHAT_QWEN3] = {"qwen3", .drop_think = true},
	[CHAT_QWEN3_THINK] = {"qwen3-think", .drop_think = true, .answer = "<think>\n"},
	[CHAT_LLAMA31] = {"llama3.1", .llama = true,
			  .system = "Cutting Knowledge Date: December 2023\n"
				    "Today Date: 26 Jul 2024\n\n"},
};

#define N_FORMATS (sizeof(formats) / sizeof(formats[0]))

/* ---- recognition ---- */

struct canon {
	const char *p, *end;
	struct buf out;
	bool trim_left; /* the text that follows starts after "-%}" or the like */
	bool after_block; /* ... after "%}": its first newline goes (trim_blocks) */
};

static bool blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Literal text up to the next tag, as Jinja with trim_blocks and lstrip_blocks puts it out. */
static int canon_text(struct canon *k)
{
	const char *from = k->p, *to = from;

	while (to < k->end && !(to + 1 < k->end && *to == '{' && strchr("{%#", to[1]) && to[1]))
		to++;
	k->p = to;
	if (k->trim_left) {
		while (from < to && blank(*from))
			from++;
	} else if (k->after_block && from < to && *from == '\n') {
		from++;
	}
	if (to == k->end) {
		if (from < to && to[-1] == '\n') /* the template's last newline is never put out */
			to--;
	} else if (to + 2 < k->end && to[2] == '-') {
		while (from < to && blank(to[-1]))
			to--;
	} else if (to[1] != '{') {
		const char *line = to;

		while (line > from && (line[-1] == ' ' || line[-1] == '\t'))
			line--;
		if (line == from || line[-1] == '\n')
			to = line;
	}
	return buf_add(&k->out, from, (size_t)(to - from));
}

/* A string literal: single quotes, \n as a newline. */
static int canon_string(struct canon *k)
{
	char quote = *k->p++;
	int rc = buf_add(&k->out, "'", 1);

	while (!rc && k->p < k->end && *k->p != quote) {
		char c = *k->p++;

		if (c == '\\' && k->p < k->end) {
			c = *k->p++;
			if (c == 'n')
				c = '\n';
			else if (c != '\\' && c != '\'' && c != '"')
				rc = buf_add(&k->out, "\\", 1);
		}
		if (!rc)
			rc = buf_add(&k->out, &c, 1);
	}
	k->p++;
	return rc ? rc : buf_add(&k->out, "'", 1);
}

/* ['name'] is written as .name. Returns the length of the subscript, 0 if it is none. */
static size_t subscript(const struct canon *k, const char **name, size_t *len)
{
	const char *p = k->p + 1, *q;

	if (k->end - k->p < 5 || *k->p != '[' || (*p != '\'' && *p != '"'))
		return 0;
	for (q = p + 1; q < k->end && (isalnum((unsigned char)*q) || *q == '_'); q++)
		;
	if (k->end - q < 2 || q[0] != *p || q[1] != ']' || q == p + 1)
		return 0;
	*name = p + 1;
	*len = (size_t)(q - p - 1);
	return (size_t)(q + 2 - k->p);
}

static int canon_tag(struct canon *k)
{
	char kind = k->p[1];
	char close = kind == '{' ? '}' : kind;
	int rc = kind == '#' ? 0 : buf_add(&k->out, k->p, 2);

	k->p += 2;
	if (k->p < k->end && (*k->p == '-' || *k->p == '+'))
		k->p++;
	k->trim_left = false;
	while (!rc && k->p < k->end) {
		const char *name;
		size_t len, n;

		if (k->end - k->p >= 3 && *k->p == '-' && k->p[1] == close && k->p[2] == '}') {
			k->trim_left = true;
			k->p++;
			continue;
		}
		if (k->end - k->p >= 2 && *k->p == close && k->p[1] == '}')
			break;
		if (kind == '#' || blank(*k->p)) {
			k->p++;
		} else if (*k->p == '\'' || *k->p == '"') {
			rc = canon_string(k);
		} else if ((n = subscript(k, &name, &len))) {
			k->p += n;
			rc = buf_add(&k->out, ".", 1);
			if (!rc)
				rc = buf_add(&k->out, name, len);
		} else {
			rc = buf_add(&k->out, k->p++, 1);
		}
	}
	if (k->end - k->p < 2)
		return -EINVAL;
	if (!rc && kind != '#')
		rc = buf_add(&k->out, k->p, 2);
	k->p += 2;
	k->after_block = kind != '{';
	return rc;
}

static int canonical(const char *source, struct buf *out)
{
	struct canon k = {.p = source, .end = source + strlen(source)};
	int rc = k.end - k.p > MAX_TEMPLATE ? -EINVAL : 0;

	while (!rc && k.p < k.end) {
		rc = canon_text(&k);
		if (!rc && k.p < k.end)
			rc = canon_tag(&k);
	}
	if (!rc)
		rc = buf_add(&k.out, "", 1);
	if (rc)
		buf_free(&k.out);
	else
		*out = k.out;
	return rc;
}

/* ChatML's message and the head of an answer, canonically spelt. */
#define MESSAGE(content) "{{'<|im_start|>'+message.role+'\n'+" content "+'<|im_end|>'+'\n'}}"
#define ANSWER(head)	 "{%ifadd_generation_prompt%}{{'<|im_start|>assistant\n" head "'}}"
#define SYSTEM_GIVEN                                                                               \
	"{%else%}{%ifmessages[0].role=='system'%}"                                                 \
	"{{'<|im_start|>system\n'+messages[0].content+'<|im_end|>\n'}}"
#define LLAMA_MESSAGE                                                                              \
	"'<|start_header_id|>'+message.role+'<|end_header_id|>\n\n'+message.content|trim+'<|eot_"  \
	"id|>'"
#define LLAMA_ANSWER "{{'<|start_header_id|>assistant<|end_header_id|>\n\n'}}"

/*
 * What a template must consist of: `parts` in this order, the first at the very start, the last at
 * the very end, and nothing of `without` anywhere. Between the parts stand tools and the like.
 */
struct shape {
	enum chat_format format;
	const char *parts[8];
	const char *without;
};

static const struct shape shapes[] = {
	{CHAT_CHATML,
	 {"{%formessageinmessages%}" MESSAGE("message.content") "{%endfor%}" ANSWER(
		 "") "{%endif%}"}},
	{CHAT_CHATML,
	 {"{%ifnotadd_generation_promptisdefined%}{%setadd_generation_prompt=false%}"
	  "{%endif%}{%formessageinmessages%}" MESSAGE("message.content") "{%endfor%}" ANSWER(
		  "") "{%endif%}"}},
	{CHAT_CHATML_ASSISTANT,
	 {"{%formessageinmessages%}{%ifloop.firstandmessages[0].role!='system'%}"
	  "{{'<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n'}}{%endif%}" MESSAGE(
		  "message.content") "{%endfor%}" ANSWER("") "{%endif%}"}},
	{CHAT_QWEN25,
	 {"{%iftools%}{{'<|im_start|>system\n'}}",
	  SYSTEM_GIVEN
	  "{%else%}{{'<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You "
	  "are a helpful assistant.<|im_end|>\n'}}{%endif%}{%endif%}{%formessageinmessages%}"
	  "{%if(message.role=='user')or(message.role=='system'andnotloop.first)or"
	  "(message.role=='assistant'andnotmessage.tool_calls)%}" MESSAGE(
		  "message.content") "{%elifmessage.role=='assistant'%}",
	  "{%endfor%}" ANSWER("") "{%endif%}"}},
	/* Qwen3, first release: message.content throughout */
	{CHAT_QWEN3,
	 {"{%iftools%}{{'<|im_start|>system\n'}}", SYSTEM_GIVEN "{%endif%}{%endif%}",
	  "{%formessageinmessages%}{%if(message.role=='user')or(message.role=='system'andnot"
	  "loop.first)%}" MESSAGE("message.content") "{%elifmessage.role=='assistant'%}",
	  "content=message.content.split('</think>')[-1].lstrip('\n')",
	  "{%ifloop.index0>ns.last_query_index%}",
	  "{%else%}{{'<|im_start|>'+message.role+'\n'+content}}{%endif%}{%ifmessage.tool_calls%}",
	  "{%endfor%}" ANSWER("") "{%ifenable_thinkingisdefinedandenable_thinkingisfalse%}"
				  "{{'<think>\n\n</think>\n\n'}}{%endif%}{%endif%}"}},
	/* later: content is a variable of its own */
	{CHAT_QWEN3,
	 {"{%iftools%}{{'<|im_start|>system\n'}}", SYSTEM_GIVEN "{%endif%}{%endif%}",
	  "{%formessageinmessages%}{%ifmessage.contentisstring%}{%setcontent=message.content%}"
	  "{%else%}{%setcontent=''%}{%endif%}{%if(message.role=='user')or(message.role=='system'"
	  "andnotloop.first)%}" MESSAGE("content") "{%elifmessage.role=='assistant'%}",
	  "content=content.split('</think>')[-1].lstrip('\n')",
	  "{%ifloop.index0>ns.last_query_index%}",
	  "{%else%}{{'<|im_start|>'+message.role+'\n'+content}}{%endif%}{%ifmessage.tool_calls%}",
	  "{%endfor%}" ANSWER("") "{%ifenable_thinkingisdefinedandenable_thinkingisfalse%}"
				  "{{'<think>\n\n</think>\n\n'}}{%endif%}{%endif%}"}},
	{CHAT_QWEN3_THINK,
	 {"{%iftools%}{{'<|im_start|>system\n'}}", SYSTEM_GIVEN "{%endif%}{%endif%}",
	  "{%formessageinmessages%}{%ifmessage.contentisstring%}{%setcontent=message.content%}"
	  "{%else%}{%setcontent=''%}{%endif%}{%if(message.role=='user')or(message.role=='system'"
	  "andnotloop.first)%}" MESSAGE("content") "{%elifmessage.role=='assistant'%}",
	  "content=content.split('</think>')[-1].lstrip('\n')",
	  "{%ifloop.index0>ns.last_query_index%}",
	  "{%else%}{{'<|im_start|>'+message.role+'\n'+content}}{%endif%}{%ifmessage.tool_calls%}",
	  "{%endfor%}" ANSWER("<think>\n") "{%endif%}"}},
	/* Qwen3 2507-Instruct: no thinking at all */
	{CHAT_CHATML,
	 {"{%iftools%}{{'<|im_start|>system\n'}}",
	  SYSTEM_GIVEN "{%endif%}{%endif%}{%formessageinmessages%}{%ifmessage.contentisstring%}"
		       "{%setcontent=message.content%}{%else%}{%setcontent=''%}{%endif%}{%if("
		       "message.role=='user'"
		       ")or(message.role=='system'andnotloop.first)%}" MESSAGE(
			       "content") "{%elifmessage.role=='assistant'%}{{'<|im_start|>'+"
					  "message.role+'\n'+content}}"
					  "{%ifmessage.tool_calls%}",
	  "{%endfor%}" ANSWER("") "{%endif%}"},
	 "</think>"},
	{CHAT_LLAMA3,
	 {"{%setloop_messages=messages%}{%formessageinloop_messages%}{%setcontent=" LLAMA_MESSAGE
	  "%}{%ifloop.index0==0%}{%setcontent=bos_token+content%}{%endif%}{{content}}{%endfor%}"
	  "{%ifadd_generation_prompt%}" LLAMA_ANSWER "{%endif%}"}},
	{CHAT_LLAMA3,
	 {"{%setloop_messages=messages%}{%formessageinloop_messages%}{%setcontent=" LLAMA_MESSAGE
	  "%}{%ifloop.index0==0%}{%setcontent=bos_token+content%}{%endif%}{{content}}{%endfor%"
	  "}" LLAMA_ANSWER}},
	{CHAT_LLAMA31,
	 {"{{bos_token}}{%ifcustom_toolsisdefined%}",
	  "{%ifnotdate_stringisdefined%}{%setdate_string="
	  "'26 Jul 2024'%}{%endif%}",
	  "{%ifmessages[0].role=='system'%}{%setsystem_message=messages[0].content|trim%}"
	  "{%setmessages=messages[1:]%}{%else%}{%setsystem_message=''%}{%endif%}"
	  "{{'<|start_header_id|>system<|end_header_id|>\n\n'}}",
	  "{{'Cutting Knowledge Date: December 2023\n'}}{{'Today Date: '+date_string+'\n\n'}}",
	  "{{system_message}}{{'<|eot_id|>'}}",
	  "{%formessageinmessages%}{%ifnot(message.role=='ipython'ormessage.role=='tool'or"
	  "'tool_calls'inmessage)%}{{" LLAMA_MESSAGE "}}{%elif",
	  "{%endfor%}{%ifadd_generation_prompt%}" LLAMA_ANSWER "{%endif%}"},
	 "strftime_now"},
};

static bool has_shape(const char *text, const struct shape *s)
{
	const char *p = text;

	if (s->without && strstr(text, s->without))
		return false;
	for (int i = 0; i < 8 && s->parts[i]; i++) {
		bool last = i == 7 || !s->parts[i + 1];
		size_t len = strlen(s->parts[i]);

		if (last && strlen(p) < len)
			return false;
		p = last ? p + strlen(p) - len : strstr(p, s->parts[i]);
		if (!p || memcmp(p, s->parts[i], len) || (!i && p != text))
			return false;
		p += len;
	}
	return true;
}

enum chat_format chat_detect_template(const char *source)
{
	enum chat_format f = CHAT_NONE;
	struct buf text = {0};

	if (!source || canonical(source, &text))
		return CHAT_NONE;
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]) && f == CHAT_NONE; i++)
		if (has_shape(text.v, &shapes[i]))
			f = shapes[i].format;
	buf_free(&text);
	return f;
}

static const struct format *format_of(enum chat_format f)
{
	return (unsigned)f < N_FORMATS ? &formats[f] : &formats[CHAT_NONE];
}

bool chat_usable(enum chat_format f, const struct tokenizer *t)
{
	static const char *const chatml[] = {"<|im_start|>", "<|im_end|>", NULL};
	static const char *const llama[] = {"<|begin_of_text|>", "<|start_header_id|>",
					    "<|end_header_id|>", "<|eot_id|>", NULL};
	const char *const *need = format_of(f)->llama ? llama : chatml;

	if (f == CHAT_NONE || !t)
		return false;
	for (; *need; need++)
		if (tokenizer_find(t, *need) < 0)
			return false;
	return true;
}

enum chat_format chat_detect(const struct checkpoint *c, const struct tokenizer *t)
{
	enum chat_format f = chat_detect_template(checkpoint_chat_template(c));

	return chat_usable(f, t) ? f : CHAT_NONE;
}

const char *chat_format_name(enum chat_format f)
{
	return format_of(f)->name;
}

/* ---- rendering ---- */

struct render {
	const struct format *f;
	const struct tokenizer *t;
	struct ids *out;
	struct err *e;
	struct buf text;
};

static int mark(struct render *r, const char *token)
{
	int32_t id = tokenizer_find(r->t, token);

	if (id < 0)
		return err_set(r->e, -EINVAL,
			       "chat: %s: not in this vocabulary: its chat format "
			       "cannot be used",
			       token);
	return ids_push(r->out, id) ? err_set(r->e, -ENOMEM, "chat: out of memory: free some") : 0;
}

/* a, b and c as one text: tokens may span them, as they do where a template renders a string. */
static int text3(struct render *r, const char *a, const char *b, const char *c, size_t len)
{
	int rc;

	r->text.n = 0;
	rc = buf_add(&r->text, a, strlen(a));
	if (!rc)
		rc = buf_add(&r->text, b, strlen(b));
	if (!rc)
		rc = buf_add(&r->text, c, len);
	if (rc)
		return err_set(r->e, rc, "chat: out of memory: free some");
	return tokenizer_encode(r->t, r->text.v, r->text.n, 0, r->out, r->e);
}

/* What str.strip() of Python takes away, which is what Jinja's trim is. */
static bool strips(uint32_t c)
{
	return utf8_is_space(c) || (c >= 0x1c && c <= 0x1f);
}

static void trim(const char **s, size_t *len)
{
	const char *p = *s, *end = p + *len;
	uint32_t c = 0;
	int n;

	while (p < end && (n = utf8_decode((const uint8_t *)p, (size_t)(end - p), &c, NULL)) > 0 &&
	       strips(c))
		p += n;
	while (end > p) {
		const char *q = end - 1;

		while (q > p && ((uint8_t)*q & 0xc0) == 0x80)
			q--;
		if (utf8_decode((const uint8_t *)q, (size_t)(end - q), &c, NULL) != end - q ||
		    !strips(c))
			break;
		end = q;
	}
	*s = p;
	*len = (size_t)(end - p);
}

static void drop_think(const char **s, size_t *len)
{
	static const char close[] = "</think>";
	const char *p = *s, *end = p + *len, *hit;

	while ((hit = memmem(p, (size_t)(end - p), close, sizeof(close) - 1)))
		p = hit + sizeof(close) - 1;
	if (p == *s)
		return;
	while (p < end && *p == '\n')
		p++;
	*s = p;
	*len = (size_t)(end - p);
}

static int header(struct render *r, const char *role)
{
	int rc = mark(r, "<|start_header_id|>");

	if (!rc)
		rc = tokenizer_encode(r->t, role, strlen(role), 0, r->out, r->e);
	return rc ? rc : mark(r, "<|end_header_id|>");
}

/* `before`: text of the format that stands in front of the content. */
static int message(struct render *r, const char *role, const char *before, const char *s,
		   size_t len)
{
	int rc;

	if (r->f->llama) {
		trim(&s, &len);
		rc = header(r, role);
		if (!rc)
			rc = text3(r, "\n\n", before, s, len);
		return rc ? rc : mark(r, "<|eot_id|>");
	}
	if (r->f->drop_think && !strcmp(role, "assistant"))
		drop_think(&s, &len);
	rc = mark(r, "<|im_start|>");
	if (!rc)
		rc = text3(r, role, "\n", s, len);
	if (!rc)
		rc = mark(r, "<|im_end|>");
	return rc ? rc : tokenizer_encode(r->t, "\n", 1, 0, r->out, r->e);
}

/* BOS and the system turn that a format starts with; *used: messages that went into it. */
static int start(struct render *r, const struct chat_msg *msgs, int n, int *used)
{
	bool given = n && !strcmp(msgs[0].role, "system");
	int rc = r->f->llama ? mark(r, "<|begin_of_text|>") : 0;

	*used = 0;
	if (rc || !r->f->system)
		return rc;
	if (r->f->llama) {
		*used = given;
		return message(r, "system", r->f->system, given ? msgs[0].content : "",
			       given ? msgs[0].len : 0);
	}
	return given ? 0 : message(r, "system", "", r->f->system, strlen(r->f->system));
}

static int open_turn(struct render *r)
{
	int rc;

	if (r->f->llama) {
		rc = header(r, "assistant");
		return rc ? rc : tokenizer_encode(r->t, "\n\n", 2, 0, r->out, r->e);
	}
	rc = mark(r, "<|im_start|>");
	return rc ? rc : text3(r, "assistant\n", r->f->answer ? r->f->answer : "", "", 0);
}

int chat_render(enum chat_format f, const struct tokenizer *t, const struct chat_msg *msgs, int n,
		bool first, bool open_answer, struct ids *out, struct err *e)
{
	static const char *const roles[] = {"system", "user", "assistant"};
	struct render r = {.f = format_of(f), .t = t, .out = out, .e = e};
	size_t before = out->n;
	int i = 0, rc = 0;

	if (f == CHAT_NONE)
		return err_set(e, -EINVAL,
			       "chat: the model's template is none of ChatML, Qwen and Llama-3: "
			       "give raw text instead");
	for (int k = 0; k < n && !rc; k++)
		if (strcmp(msgs[k].role, roles[0]) && strcmp(msgs[k].role, roles[1]) &&
		    strcmp(msgs[k].role, roles[2]))
			rc = err_set(e, -EINVAL,
				     "messages[%d].role: \"%.40s\": only system, user and "
				     "assistant are supported: change it",
				     k, msgs[k].role);
	if (!rc && first)
		rc = start(&r, msgs, n, &i);
	for (; !rc && i < n; i++)
		rc = message(&r, msgs[i].role, "", msgs[i].content, msgs[i].len);
	if (!rc && open_answer)
		rc = open_turn(&r);
	if (rc)
		out->n = before;
	buf_free(&r.text);
	return rc;
}

int chat_close_turn(enum chat_format f, const struct tokenizer *t, bool ended_with_stop,
		    struct ids *out, struct err *e)
{
	struct render r = {.f = format_of(f), .t = t, .out = out, .e = e};
	int rc = 0;

	if (f == CHAT_NONE)
		return 0;
	if (!ended_with_stop)
		rc = mark(&r, r.f->llama ? "<|eot_id|>" : "<|im_end|>");
	if (!rc && !r.f->llama)
		rc = tokenizer_encode(t, "\n", 1, 0, out, e);
	return rc;
}

int32_t chat_stop_id(enum chat_format f, const struct tokenizer *t)
{
	if (f == CHAT_NONE)
		return -1;
	return tokenizer_find(t, format_of(f)->llama ? "<|eot_id|>" : "<|im_end|>");
}
