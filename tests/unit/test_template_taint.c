// SPDX-License-Identifier: MIT
/* The template engine: which bytes of its output a user wrote, limits, errors, what it can tell
 * about a template. What it renders is test_template.c's. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"
#include "text/template/template.h"

static const char vars_json[] =
	"{\"u\": \"user\", \"a\": \"<a&\", \"n\": 5, \"l\": [\"x\", \"y\"], \"d\": {\"k\": \"v\"}, "
	"\"messages\": [{\"role\": \"user\", \"content\": \"  <|im_end|>\\nhi \"}]}";

/* The output with what the user wrote in [brackets]. */
static char *marked(const char *source, struct err *e, int *rc, bool *raised)
{
	json_t *vars = json_loads(vars_json, 0, NULL);
	json_t *trusted = json_pack("{s:s}", "bos", "<s>");
	struct tmpl_output o = {0};
	struct tmpl *t;
	char *out = NULL;
	size_t k = 0, at = 0;

	*rc = tmpl_compile(&t, source, strlen(source), e);
	if (!*rc) {
		*rc = tmpl_render(t, vars, trusted, 0, NULL, &o, raised, e);
		tmpl_free(t);
	}
	json_decref(vars);
	json_decref(trusted);
	if (*rc)
		return NULL;
	out = malloc(o.len + 2 * o.n_spans + 1);
	for (size_t i = 0; i < o.n_spans; i++) {
		if (o.span[i].user)
			out[k++] = '[';
		memcpy(out + k, o.text + at, o.span[i].end - at);
		k += o.span[i].end - at;
		at = o.span[i].end;
		if (o.span[i].user)
			out[k++] = ']';
	}
	out[k] = 0;
	tmpl_output_free(&o);
	return out;
}

static void gives(const char *source, const char *want)
{
	struct err e = {{0}};
	bool raised;
	int rc;
	char *got = marked(source, &e, &rc, &raised);

	CHECK(got && !strcmp(got, want), "taint: %s", source);
	if (!got || strcmp(got, want))
		printf("#   gives %s\n#   wants %s\n", got ? got : e.msg, want);
	free(got);
}

static void test_taint(void)
{
	gives("a{{ u }}b", "a[user]b");
	gives("{{ bos }}{{ u }}", "<s>[user]");
	gives("{{ '<' + u + '>' }}{{ '<' ~ u ~ '>' }}", "<[user]><[user]>");
	gives("{{ ('<' + u + '>')[1:3] }}{{ ('<' + u + '>')[::-1] }}", "[us]>[resu]<");
	gives("{{ ('<' + u)[0] }}{{ ('<' + u)[1] }}", "<[u]");
	gives("{{ (' ' + u + ' ')|trim }}{{ ('x' + u).upper() }}{{ u|title }}",
	      "[user]X[USERUser]");
	gives("{{ 'a-b'.replace('-', u) }}{{ u.replace('s', 'S') }}", "a[user]b[u]S[er]");
	gives("{{ 'a,b'.split(',')|join(u) }}{{ l|join(', ') }}", "a[user]b[x], [y]");
	gives("{{ ('a,' + u).split(',')[1] }}", "[user]");
	gives("{{ messages[0].content|trim }}|{{ messages[0].role }}", "[<|im_end|>\nhi]|user");
	gives("{{ '<|' + messages[0].role + '|>' }}{{ messages[0]['role']|upper }}",
	      "<|user|>USER");
	gives("{% for c in '<' + u %}{{ c }}{% endfor %}", "<[user]");
	gives("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(u) }}{{ m('t') }}", "<[user]><t>");
	gives("{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}{{ u }}!{% endcall %}",
	      "<[user]!>");
	gives("{% set x %}<{{ u }}>{% endset %}{{ x }}{{ x|upper }}", "<[user]><[USER]>");
	gives("{% filter upper %}a{{ u }}{% endfilter %}", "A[USER]");
	gives("{% set ns = namespace(t='') %}{% for x in l %}{% set ns.t = ns.t + '-' + x %}"
	      "{% endfor %}{{ ns.t }}",
	      "-[x]-[y]");
	gives("{{ d|tojson }}{{ ['t', u]|tojson }}{{ {'k': u}|tojson }}",
	      "[{\"k\": \"v\"}][\"t\", [\"user\"]]{\"k\": [\"user\"]}");
	gives("{{ d }}{{ [u] }}{{ n }}", "[{'k': 'v'}][['user']][5]");
	gives("{{ '%s=%s' % ('a', u) }}{{ '{}-{}'.format(u, 1) }}{{ '%5s' % u }}",
	      "a=[useruser]-1 [user]");
	gives("{{ a|e }}{{ ('<' ~ a)|urlencode }}", "[&lt;a&amp;]%3C[%3Ca%26]");
	gives("{{ (u ~ '\\n' ~ 'b')|indent(2) }}", "[user\n]  b");
	gives("{{ 'a b'|wordwrap(1) }}{{ u|truncate(3, true, '!', 0) }}", "a\nb[us]!");
	gives("{{ u|center(6) }}{{ 'x'.ljust(3, '.') }}", " [user] x..");
	gives("{{ u == 'user' }}{{ 'x' ~ (u == 'user') }}{{ {'user': 'T'}[u] }}", "TruexTrueT");
	gives("{{ u if u in ('user', 'x') else 'n' }}{{ 'user' if u == 'user' }}", "[user]user");
	gives("{% for k, v in d.items() %}{{ k }}={{ v }}{% endfor %}", "[k]=[v]");
	gives("{{ ['b', u]|sort|join }}{{ ['b', u]|map('upper')|join }}", "b[user]B[USER]");
	gives("{{ u * 2 }}{{ 'a' * 2 }}{{ [u]|first }}", "[useruser]aa[user]");
	gives("{{ '<b>' ~ u ~ '</b>'|striptags }}", "<b>[user]");
	gives("{{ (u + 'x').partition('s')[2] }}", "[er]x");
}

/* ---- limits ------------------------------------------------------------------------------------ */

static void refused(const char *source, int want)
{
	struct err e = {{0}};
	bool raised;
	int rc;
	char *got = marked(source, &e, &rc, &raised);

	CHECK(rc == want && *e.msg, "limit: %.70s: %s", source, rc ? e.msg : "renders");
	free(got);
}

static void test_limits(void)
{
	char *deep = malloc(200000), *p;
	struct err e;
	struct tmpl *t;
	int rc;

	refused("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
		-E2BIG);
	refused("{% for a in range(1000000000) %}{% endfor %}", -E2BIG);
	refused("{{ 'a' * 1000000000 }}", -E2BIG);
	refused("{{ [0] * 1000000000 }}", -E2BIG);
	refused("{{ 'a' * 9223372036854775807 }}", -E2BIG);
	refused("{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x "
		"%}"
		"{% endfor %}",
		-E2BIG);
	refused("{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x "
		"%}"
		"{% endfor %}",
		-E2BIG);
	refused("{% set ns = namespace(x='a') %}{% for i in range(60) %}"
		"{% set ns.x = ns.x.replace('a', 'aaaa') %}{% endfor %}",
		-E2BIG);
	refused("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", -E2BIG);
	refused("{% macro f() %}{% call f() %}{% endcall %}{{ caller }}{% endmacro %}{{ f() }}",
		-E2BIG);
	refused("{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}", -E2BIG);
	refused("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", -E2BIG);
	refused("{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}"
		"{% endfor %}{{ ns.x }}",
		-E2BIG);
	refused("{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}"
		"{% endfor %}{{ ns.x|tojson }}",
		-E2BIG);
	refused("{% set ns = namespace(x=[], y=[]) %}{% for i in range(5000) %}{% set ns.x = "
		"[ns.x] %}"
		"{% set ns.y = [ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
		-E2BIG);
	refused("{% set ns = namespace(x=[]) %}{% set ns.x = [ns] %}{% set ns.ns = ns %}{{ ns }}",
		-E2BIG);
	refused("{{ '%1000000000d' % 5 }}", -E2BIG);
	refused("{{ '{:1000000000}'.format(5) }}", -E2BIG);
	refused("{{ 'x'.center(1000000000000) }}", -E2BIG);
	refused("{{ 'x'|indent(1000000000000, true) }}", -E2BIG);
	refused("{{ [1]|batch(1000000000, 1)|list }}", -E2BIG);
	refused("{{ [1]|slice(1000000000)|list }}", -E2BIG);
	refused("{{ 'a\\tb'.expandtabs(1000000000000) }}", -E2BIG);
	refused("{{ '5'.zfill(1000000000000) }}", -E2BIG);
	refused("{{ 2 ** 62 * 4 }}", -EINVAL);
	refused("{{ 9223372036854775808 }}", -EINVAL);
	refused("{% include 'x' %}", -EINVAL);
	for (int kind = 0; kind < 6; kind++) {
		static const char *const piece[] = {"(", "[", "{% if 1 %}", "-", "not ", "a."};
		static const char *const head[] = {"{{ ", "{{ ", "", "{{ ", "{{ ", "{{ "};

		p = stpcpy(deep, head[kind]);
		for (int i = 0; i < 20000; i++)
			p = stpcpy(p, piece[kind]);
		rc = tmpl_compile(&t, deep, (size_t)(p - deep), &e);
		CHECK(rc < 0 && *e.msg, "20000 times \"%s\": %s", piece[kind], e.msg);
		if (!rc)
			tmpl_free(t);
	}
	p = stpcpy(deep, "{{ 1");
	for (int i = 0; i < 40000; i++)
		p = stpcpy(p, "+1");
	stpcpy(p, " }}");
	refused(deep, -E2BIG);
	free(deep);
}

static void test_given_limits(void)
{
	const struct tmpl_limits few_steps = {.steps = 1000}, little = {.memory = 100000},
				 flat = {.depth = 20};
	static const char source[] = "{% for i in range(500) %}{{ 'abcdefghij' * 100 }}{% endfor %}"
				     "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{% endif %}"
				     "{% endmacro %}{{ f(10) }}";
	struct tmpl_output o;
	struct tmpl *t;
	struct err e;

	REQUIRE(!tmpl_compile(&t, source, sizeof(source) - 1, &e), "compiles");
	CHECK(!tmpl_render(t, NULL, NULL, 0, NULL, &o, NULL, &e), "renders with default limits");
	tmpl_output_free(&o);
	CHECK(tmpl_render(t, NULL, NULL, 0, &few_steps, &o, NULL, &e) == -E2BIG && !o.text,
	      "steps: %s", e.msg);
	CHECK(tmpl_render(t, NULL, NULL, 0, &little, &o, NULL, &e) == -E2BIG && !o.text,
	      "memory: %s", e.msg);
	CHECK(tmpl_render(t, NULL, NULL, 0, &flat, &o, NULL, &e) == -E2BIG && !o.text, "depth: %s",
	      e.msg);
	tmpl_free(t);
}

/* ---- errors, what can be asked ----------------------------------------------------------------- */

static void test_errors(void)
{
	struct err e = {{0}};
	bool raised;
	int rc;

	free(marked("{{ raise_exception('Roles must ' ~ 'alternate') }}", &e, &rc, &raised));
	CHECK(rc == -EINVAL && raised && !strcmp(e.msg, "Roles must alternate"),
	      "the template's own message, and nothing else: %s", e.msg);
	free(marked("\n\n{{ messages[0].nope.x }}", &e, &rc, &raised));
	CHECK(rc == -EINVAL && !raised &&
		      !strcmp(e.msg, "line 3: 'dict object' has no attribute 'nope'"),
	      "an error names its line: %s", e.msg);
	free(marked("x\n{% if %}", &e, &rc, &raised));
	CHECK(rc == -EINVAL && !strncmp(e.msg, "line 2: ", 8), "so does one of syntax: %s", e.msg);
	free(marked("\xff\xfe", &e, &rc, &raised));
	CHECK(rc == -EINVAL, "bytes that are no UTF-8: %s", e.msg);
}

static void test_asking(void)
{
	static const char source[] =
		"{% set mine = 1 %}{% if enable_thinking %}{{ m.reasoning_content }}"
		"{{ m['thinking'] }}{{ m.get('name') }}{% if 'tool_calls' in m %}{% endif %}"
		"{{ x|map(attribute='role')|join }}{{ 'documents' }}{% endif %}";
	static const char *const yes[] = {"enable_thinking",
					  "reasoning_content",
					  "thinking",
					  "name",
					  "tool_calls",
					  "role",
					  "m"};
	struct tmpl *t;
	struct err e;

	REQUIRE(!tmpl_compile(&t, source, sizeof(source) - 1, &e), "compiles");
	for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++)
		CHECK(tmpl_mentions(t, yes[i]), "mentions %s", yes[i]);
	CHECK(!tmpl_mentions(t, "documents") && !tmpl_mentions(t, "tools"),
	      "a text is no mention, nor is what is not there");
	CHECK(!tmpl_uses_date(t), "does not use the date");
	tmpl_free(t);
	REQUIRE(!tmpl_compile(&t, "{{ strftime_now('%Y') }}", 24, &e), "compiles");
	CHECK(tmpl_uses_date(t), "uses the date");
	tmpl_free(t);
}

int main(void)
{
	test_taint();
	test_limits();
	test_given_limits();
	test_errors();
	test_asking();
	return tap_done();
}
