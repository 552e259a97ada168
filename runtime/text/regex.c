// SPDX-License-Identifier: MIT
/*
 * Patterns of tokenizer files, run by PCRE2.
 *
 * They are written for Oniguruma in its Ruby syntax, which differs from PCRE2's in places. What
 * means the same is passed on, what can be said in PCRE2 is rewritten (\s, \w, \v, \u), everything
 * else is refused with the construct's name: a wrong split would be silent.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "text/text_int.h"
#include "text/utf8.h"

/* Unicode White_Space; PCRE2's own \s has U+180E besides. */
#define SPACE_SET                                                                                  \
	"\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}"                     \
	"\\x{202f}\\x{205f}\\x{3000}"
#define WORD_SET    "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define MAX_PATTERN 65536
#define JIT_STACK   (1u << 20)

const char regex_gpt2[] =
	"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

struct rewriter {
	const char *p, *end;
	const char *start;
	const char *where;
	struct buf out;
	bool in_class;
	struct err *e;
};

static int refuse(struct rewriter *w, const char *what, int len)
{
	return err_set(w->e, -EOPNOTSUPP,
		       "%s: the pattern uses '%.*s', whose meaning differs between regular "
		       "expression engines: not supported: use token ids",
		       w->where, len, what);
}

static int add(struct rewriter *w, const char *s)
{
	return buf_add(&w->out, s, strlen(s));
}

static int copy(struct rewriter *w, size_t n)
{
	int rc = buf_add(&w->out, w->p, n);

	w->p += n;
	return rc;
}

static int hex_digits(const char *p, const char *end)
{
	int n = 0;

	while (p + n < end && isxdigit((unsigned char)p[n]))
		n++;
	return n;
}

/* \p{...}, \x.., \uXXXX: after the backslash. */
static int escape_with_argument(struct rewriter *w)
{
	char c = w->p[1];
	size_t left = (size_t)(w->end - w->p);
	const char *close;

	if (left > 2 && w->p[2] == '{' && c != 'u') {
		close = memchr(w->p, '}', left);
		if (!close)
			return refuse(w, w->p, 3);
		return copy(w, (size_t)(close - w->p) + 1);
	}
	if (c == 'x' && hex_digits(w->p + 2, w->end) >= 2)
		return copy(w, 4);
	if (c == 'u' && hex_digits(w->p + 2, w->end) >= 4) {
		int rc = add(w, "\\x{");

		w->p += 2;
		if (!rc)
			rc = copy(w, 4);
		return rc ? rc : add(w, "}");
	}
	return refuse(w, w->p, left < 3 ? (int)left : 3);
}

static int escape(struct rewriter *w)
{
	char c;
	const char *put = NULL;

	if (w->end - w->p < 2)
		return refuse(w, "\\", 1);
	c = w->p[1];
	switch (c) {
	case 's':
		put = w->in_class ? SPACE_SET : "[" SPACE_SET "]";
		break;
	case 'S':
		put = w->in_class ? "\\P{White_Space}" : "[^" SPACE_SET "]";
		break;
	case 'w':
		put = w->in_class ? WORD_SET : "[" WORD_SET "]";
		break;
	case 'W':
		if (w->in_class)
			return refuse(w, "\\W in a class", 13);
		put = "[^" WORD_SET "]";
		break;
	case 'v':
		put = "\\x0b";
		break;
	case 'p':
	case 'P':
	case 'x':
	case 'u':
		return escape_with_argument(w);
	case 'r':
	case 'n':
	case 't':
	case 'f':
	case 'd':
	case 'D':
		return copy(w, 2);
	default:
		if ((unsigned char)c < 128 && ispunct((unsigned char)c))
			return copy(w, 2);
		return refuse(w, w->p, 2);
	}
	w->p += 2;
	return add(w, put);
}

/* "(?...": the kinds of group that mean the same in both engines. */
static int group(struct rewriter *w)
{
	static const char *const same[] = {"(?:",  "(?=", "(?!",  "(?<=",
					   "(?<!", "(?>", "(?i:", "(?-i:"};
	size_t left = (size_t)(w->end - w->p);

	if (left < 2 || w->p[1] != '?')
		return copy(w, 1);
	for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++)
		if (left >= strlen(same[i]) && !memcmp(w->p, same[i], strlen(same[i])))
			return copy(w, strlen(same[i]));
	/* for the whole pattern only: further in, alternatives bind differently */
	if (w->p == w->start && left >= 4 && !memcmp(w->p, "(?i)", 4))
		return copy(w, 4);
	return refuse(w, w->p, left < 4 ? (int)left : 4);
}

/* {n}, {n,}, {n,m}: as written; "{,m}" and a possessive "}+" mean other things. */
static int interval(struct rewriter *w)
{
	const char *q = w->p + 1;

	while (q < w->end && (isdigit((unsigned char)*q) || *q == ','))
		q++;
	if (q == w->p + 1 || w->p[1] == ',' || q == w->end || *q != '}')
		return refuse(w, w->p, (int)(q - w->p));
	if (q + 1 < w->end && q[1] == '+')
		return refuse(w, w->p, (int)(q - w->p) + 2);
	return copy(w, (size_t)(q - w->p) + 1);
}

static int rewrite(struct rewriter *w)
{
	int rc = 0;

	while (w->p < w->end && !rc) {
		char c = *w->p;

		if (c == '\\') {
			rc = escape(w);
		} else if (!c) {
			rc = refuse(w, "a NUL", 5);
		} else if (w->in_class) {
			if (c == '[')
				rc = refuse(w, w->p, 1);
			else if (c == '&' && w->p + 1 < w->end && w->p[1] == '&')
				rc = refuse(w, w->p, 2);
			else {
				w->in_class = c != ']';
				rc = copy(w, 1);
			}
		} else if (c == '[') {
			w->in_class = true;
			rc = copy(w, w->p + 1 < w->end && w->p[1] == '^' ? 2 : 1);
			if (!rc && w->p < w->end && *w->p == ']')
				rc = refuse(w, "[]", 2);
		} else if (c == '(') {
			rc = group(w);
		} else if (c == '{') {
			rc = interval(w);
		} else {
			rc = copy(w, 1);
		}
	}
	return rc;
}

int regex_compile(pcre2_code **out, const char *pattern, size_t len, const char *where,
		  struct err *e)
{
	struct rewriter w = {
		.p = pattern, .end = pattern + len, .start = pattern, .where = where, .e = e};
	pcre2_compile_context *cc;
	PCRE2_SIZE at = 0;
	int code = 0;
	int rc;

	*out = NULL;
	if (len > MAX_PATTERN)
		return err_set(
			e, -EINVAL,
			"%s: the pattern is %zu bytes long: at most %d can be: use token ids",
			where, len, MAX_PATTERN);
	if (utf8_valid_prefix(pattern, len) != len)
		return err_set(e, -EINVAL,
			       "%s: the pattern is not valid UTF-8: fetch the file again", where);
	rc = rewrite(&w);
	cc = rc ? NULL : pcre2_compile_context_create(NULL);
	if (!rc && !cc)
		rc = -ENOMEM;
	if (!rc) {
		/* Ruby: ^ and $ are always those of lines, and a line ends with \n */
		pcre2_set_newline(cc, PCRE2_NEWLINE_LF);
		pcre2_set_parens_nest_limit(cc, 100);
		*out = pcre2_compile((PCRE2_SPTR)w.out.v, w.out.n,
				     PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE |
					     PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_UTF_CHECK,
				     &code, &at, cc);
		if (!*out) {
			char why[128] = "";

			pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof(why));
			rc = err_set(e, -EINVAL,
				     "%s: the pattern does not compile: %s: fetch the file again",
				     where, why);
		}
	}
	/* Without JIT (a hardened system may forbid it) the interpreter is slower, not different. */
	if (!rc)
		pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE);
	pcre2_compile_context_free(cc);
	buf_free(&w.out);
	return rc == -ENOMEM ? err_set(e, rc, "%s: out of memory: free some", where) : rc;
}

int regex_run_init(struct regex_run *rx, struct err *e)
{
	memset(rx, 0, sizeof(*rx));
	rx->md = pcre2_match_data_create(1, NULL);
	rx->mctx = pcre2_match_context_create(NULL);
	if (!rx->md || !rx->mctx) {
		regex_run_free(rx);
		return err_set(e, -ENOMEM, "tokenizer: out of memory: free some");
	}
	/* NULL (no memory, or no JIT): PCRE2 then uses 32 KiB of the machine stack */
	rx->stack = pcre2_jit_stack_create(32768, JIT_STACK, NULL);
	if (rx->stack)
		pcre2_jit_stack_assign(rx->mctx, NULL, rx->stack);
	return 0;
}

void regex_run_free(struct regex_run *rx)
{
	pcre2_match_data_free(rx->md);
	pcre2_match_context_free(rx->mctx);
	pcre2_jit_stack_free(rx->stack);
	memset(rx, 0, sizeof(*rx));
}

int regex_next(struct regex_run *rx, const pcre2_code *re, const char *text, size_t n, size_t from,
	       size_t *s, size_t *t, struct err *e)
{
	const PCRE2_SIZE *ov;
	int rc = pcre2_match(re, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK, rx->md, rx->mctx);

	rx->matches++;
	if (rc == PCRE2_ERROR_NOMATCH)
		return 0;
	if (rc < 0) {
		char why[128] = "";

		pcre2_get_error_message(rc, (PCRE2_UCHAR *)why, sizeof(why));
		return err_set(e, rc == PCRE2_ERROR_NOMEMORY ? -ENOMEM : -EOVERFLOW,
			       "pre-tokenizer: its pattern gave up %zu bytes into a text of %zu: "
			       "%s: split the text",
			       from, n, why);
	}
	ov = pcre2_get_ovector_pointer(rx->md);
	*s = ov[0];
	*t = ov[1];
	return 1;
}
