// SPDX-License-Identifier: MIT
/*
 * JSON schema (draft 2020-12, with the older spellings that are still written) to nodes.
 *
 * What a schema would restrict and we cannot is refused with its place. The other way round, texts
 * may be left out that the schema allows: properties come in the order of their declaration, white
 * space is bounded, keywords of one type without `type` mean that type.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/grammar/grammar_int.h"

#define READS_MAX 100000
#define DEPTH_MAX 128

static const char gemma_quote[] = "<|\"|>";
static const char *const no_quote[] = {gemma_quote, NULL};
/* What ends a value between tags, as readers see it. */
static const char *const no_tag[] = {"</parameter>", "\n<parameter=", "\n</function>", NULL};

static gnode read_schema(struct schema *s, const json_t *x);

static gnode no_memory(struct schema *s)
{
	gb_fail(s->b, -ENOMEM, "grammar: out of memory: free some");
	return 0;
}

/* A growing list of nodes. */
struct list {
	gnode *v;
	size_t n, cap;
};

static void list_add(struct schema *s, struct list *l, gnode x)
{
	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 8;
		gnode *v = realloc(l->v, cap * sizeof(*v));

		if (!v) {
			no_memory(s);
			return;
		}
		l->v = v;
		l->cap = cap;
	}
	l->v[l->n++] = x;
}

static gnode list_node(struct schema *s, struct list *l, enum gnode_kind kind)
{
	gnode x = s->b->rc ? 0 : gb_list(s->b, kind, l->v, l->n);

	free(l->v);
	*l = (struct list){0};
	return x;
}

/* ---- how things are written ------------------------------------------------------------------- */

static bool gemma(const struct schema *s)
{
	return s->style == STYLE_GEMMA;
}

static gnode ws(struct schema *s)
{
	return gemma(s) ? gb_empty(s->b) : gj_ws(s->b);
}

static gnode colon(struct schema *s)
{
	gnode c = gb_lit(s->b, ":");

	return gemma(s) ? c : gb_seq(s->b, c, gb_opt(s->b, gb_lit(s->b, " ")));
}

static gnode comma(struct schema *s)
{
	return gb_seq(s->b, gb_lit(s->b, ","), ws(s));
}

static gnode quote(struct schema *s)
{
	if (s->style == STYLE_RAW)
		return gb_empty(s->b);
	return gemma(s) ? gb_mark(s->b, gemma_quote) : gb_lit(s->b, "\"");
}

static gnode quoted(struct schema *s, gnode text)
{
	return gb_seq(s->b, quote(s), text, quote(s));
}

static gnode any_string(struct schema *s)
{
	if (s->style == STYLE_JSON)
		return gj_string(s->b);
	return quoted(s, gj_text_without(s->b, gemma(s) ? no_quote : no_tag));
}

/* A character of a string whose length counts. */
static gnode string_char(struct schema *s)
{
	struct cprange r[] = {{1, ';'}, {'=', 0xd7ff}, {0xe000, 0x10ffff}};
	struct cpset no_less = {.v = r, .n = 3};

	return s->style == STYLE_JSON ? gj_char(s->b) : gb_class(s->b, &no_less, false);
}

/* The name of a property, as it stands before the colon. */
static gnode key_text(struct schema *s, const char *name)
{
	json_t *x;
	gnode r;

	if (gemma(s))
		return gb_lit(s->b, name);
	x = json_string(name);
	r = x ? gj_literal(s->b, x, 0) : no_memory(s);
	json_decref(x);
	return r;
}

static gnode free_key(struct schema *s)
{
	struct byteset word = {0}, first;

	if (!gemma(s))
		return gj_string(s->b);
	set_add(&word, 'a', 'z');
	set_add(&word, 'A', 'Z');
	set_add(&word, '_', '_');
	first = word;
	set_add(&word, '0', '9');
	set_add(&word, '-', '.');
	return gb_seq(s->b, gb_set(s->b, &first), gb_rep(s->b, gb_set(s->b, &word), 0, 63));
}

/* open (item (comma item)*)? close */
static gnode bracketed(struct schema *s, const char *open, gnode item, uint32_t min, uint32_t max,
		       const char *close)
{
	struct gb *b = s->b;
	gnode some;

	if (min > max || (min && !item))
		return 0;
	if (!max || !item)
		return gb_seq(b, gb_lit(b, open), ws(s), gb_lit(b, close));
	some = gb_seq(b, item,
		      gb_rep(b, gb_seq(b, comma(s), item), min ? min - 1 : 0,
			     max == GB_INF ? GB_INF : max - 1),
		      ws(s));
	return gb_seq(b, gb_lit(b, open), ws(s), min ? some : gb_opt(b, some), gb_lit(b, close));
}

static gnode any_value(struct schema *s)
{
	struct gb *b = s->b;
	uint32_t r;
	gnode self;

	if (s->style == STYLE_RAW)
		return any_string(s);
	if (!gemma(s))
		return gj_value(b);
	if (!s->any) {
		r = gb_rule(b);
		s->any = r + 1;
		self = gb_call(b, r);
		gb_define(b, r,
			  gb_alt(b, any_string(s),
				 bracketed(s, "{", gb_seq(b, free_key(s), colon(s), self), 0,
					   GB_INF, "}"),
				 bracketed(s, "[", self, 0, GB_INF, "]"), gj_number(b),
				 gb_lit(b, "true"), gb_lit(b, "false"), gb_lit(b, "null")));
	}
	return gb_call(b, s->any - 1);
}

/* A given value. */
static gnode literal(struct schema *s, const json_t *v, int depth)
{
	struct list l = {0};
	const char *key;
	json_t *x;
	size_t i;
	gnode r;

	if (s->style == STYLE_JSON || (s->style == STYLE_RAW && !json_is_string(v)))
		return gj_literal(s->b, v, 0);
	if (depth > DEPTH_MAX / 2)
		return schema_bad(s, NULL, -E2BIG, "a value nested too deeply: make it flatter");
	if (json_is_string(v))
		return quoted(s, gb_bytes(s->b, json_string_value(v), json_string_length(v)));
	if (!json_is_object(v) && !json_is_array(v))
		return gj_literal(s->b, v, 0);
	json_object_foreach ((json_t *)v, key, x) {
		if (l.n)
			list_add(s, &l, comma(s));
		list_add(s, &l, key_text(s, key));
		list_add(s, &l, colon(s));
		list_add(s, &l, literal(s, x, depth + 1));
	}
	json_array_foreach ((json_t *)v, i, x) {
		if (l.n)
			list_add(s, &l, comma(s));
		list_add(s, &l, literal(s, x, depth + 1));
	}
	r = list_node(s, &l, GN_SEQ);
	return gb_seq(s->b, gb_lit(s->b, json_is_object(v) ? "{" : "["), r,
		      gb_lit(s->b, json_is_object(v) ? "}" : "]"));
}

/* ---- keywords --------------------------------------------------------------------------------- */

/* A count; absent: `none`. */
static uint32_t count_of(struct schema *s, const json_t *x, const char *k, uint32_t none)
{
	const json_t *v = json_object_get(x, k);
	double d = json_number_value(v);

	if (!v)
		return none;
	if (!json_is_number(v) || d < 0 || d != (double)(long long)(d < 9e18 ? d : 0)) {
		schema_bad(s, k, -EINVAL, "not a count");
		return none;
	}
	return d > 4e9 ? 4000000000u : (uint32_t)d;
}

static int check_keywords(struct schema *s, const json_t *x)
{
	static const char *const refused[] = {
		"not",
		"if",
		"then",
		"else",
		"dependentRequired",
		"dependentSchemas",
		"dependencies",
		"unevaluatedItems",
		"unevaluatedProperties",
		"contains",
		"minContains",
		"maxContains",
		"$dynamicRef",
		"$recursiveRef",
	};

	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		const json_t *v = json_object_get(x, refused[i]);

		if (v && !(json_is_true(v) && !strncmp(refused[i], "uneval", 6))) {
			schema_bad(s, refused[i], -EOPNOTSUPP, "this keyword is not supported");
			return -1;
		}
	}
	if (json_object_get(x, "uniqueItems") &&
	    !json_is_false(json_object_get(x, "uniqueItems"))) {
		schema_bad(s, "uniqueItems", -EOPNOTSUPP, "this keyword is not supported");
		return -1;
	}
	return 0;
}

/* Is there anything in x, but `skip`, that restricts? */
static bool restricts(const json_t *x, const char *skip, const char *skip2)
{
	const char *k;
	json_t *v;

	json_object_foreach ((json_t *)x, k, v) {
		if (schema_restricts(k) && strcmp(k, skip) && (!skip2 || strcmp(k, skip2)))
			return true;
	}
	return false;
}

static json_t *without(const json_t *x, const char *k, const char *k2)
{
	json_t *r = json_copy((json_t *)x);

	json_object_del(r, k);
	if (k2)
		json_object_del(r, k2);
	return r;
}

/* ---- strings ---------------------------------------------------------------------------------- */

#define OCTET "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define H16   "[0-9a-fA-F]{1,4}"
#define LABEL "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#define TIME                                                                                       \
	"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?"                             \
	"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
/* Leap days in leap years only; no year 0000. */
#define DATE                                                                                       \
	"(?:(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-"                               \
	"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|"                                        \
	"(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|"                      \
	"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|"                                            \
	"(?:0[48]|[2468][048]|[13579][26])00)-02-29)"

static const char *format_pattern(const char *name)
{
	static const struct {
		const char *name, *pattern;
	} known[] = {
		{"date", DATE},
		{"time", TIME},
		{"date-time", DATE "T" TIME},
		{"uuid",
		 "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"},
		{"email", "[A-Za-z0-9_+-]{1,32}(?:\\.[A-Za-z0-9_+-]{1,32}){0,3}"
			  "@" LABEL "(?:\\." LABEL "){1,4}"},
		{"hostname", LABEL "(?:\\." LABEL "){0,7}"},
		{"ipv4", OCTET "(?:\\." OCTET "){3}"},
		{"ipv6", "(?:(?:" H16 ":){7}" H16 "|(?:" H16 ":){1,7}:|(?:" H16 ":){1,6}:" H16
			 "|(?:" H16 ":){1,5}(?::" H16 "){1,2}|(?:" H16 ":){1,4}(?::" H16 "){1,3}"
			 "|(?:" H16 ":){1,3}(?::" H16 "){1,4}|(?:" H16 ":){1,2}(?::" H16 "){1,5}"
			 "|" H16 ":(?::" H16 "){1,6}|:(?:(?::" H16 "){1,7}|:))"},
		{"uri",
		 "[a-z][a-z0-9+.-]{1,20}:(?:[A-Za-z0-9._~:/?#@!$&'()*+,;=-]|%[0-9A-F]{2}){1,2000}"},
		{"duration", "P(?:[0-9]{1,9}W|(?:[0-9]{1,9}Y)?(?:[0-9]{1,9}M)?[0-9]{1,9}D"
			     "|[0-9]{1,9}Y(?:[0-9]{1,9}M)?|[0-9]{1,9}M"
			     "|(?:[0-9]{1,9}D)?T(?:[0-9]{1,9}H(?:[0-9]{1,9}M(?:[0-9]{1,9}S)?)?"
			     "|[0-9]{1,9}M(?:[0-9]{1,9}S)?|[0-9]{1,9}S))"},
	};

	for (size_t i = 0; name && i < sizeof(known) / sizeof(*known); i++) {
		if (!strcmp(name, known[i].name))
			return known[i].pattern;
	}
	return NULL;
}

/* x of that many characters; 0 if it is not known how. */
static gnode with_length(struct schema *s, gnode x, uint32_t min, uint32_t max)
{
	uint64_t lo, hi;

	if (gb_lengths(s->b, x, &lo, &hi)) {
		if (lo >= min && (hi <= max || max == GB_INF))
			return x;
		if (lo > max || hi < min)
			return 0;
	}
	return gb_narrow(s->b, x, min, max);
}

static gnode string_text(struct schema *s, const json_t *x)
{
	const json_t *pattern = json_object_get(x, "pattern");
	const char *format = format_pattern(json_string_value(json_object_get(x, "format")));
	uint32_t min = count_of(s, x, "minLength", 0), max = count_of(s, x, "maxLength", GB_INF);
	struct err why, *outer = s->b->e;
	gnode r;

	if (pattern && !json_is_string(pattern))
		return schema_bad(s, "pattern", -EINVAL, "not a string");
	if (pattern) {
		s->b->e = &why;
		r = gb_regex(s->b, json_string_value(pattern), json_string_length(pattern), true,
			     s->style == STYLE_JSON);
		s->b->e = outer;
		if (s->b->rc) {
			int rc = s->b->rc;

			s->b->rc = 0;
			return schema_bad(s, "pattern", rc, "%s", why.msg);
		}
		if (min || max != GB_INF) {
			r = with_length(s, r, min, max);
			if (!r)
				return schema_bad(s, "pattern", -EOPNOTSUPP,
						  "together with minLength or maxLength it is not "
						  "supported: say the length in the pattern");
		}
		return r;
	}
	if (format) {
		r = gb_regex(s->b, format, strlen(format), false, s->style == STYLE_JSON);
		/* formats may be ignored, lengths must not */
		if (r && (min || max != GB_INF))
			r = with_length(s, r, min, max);
		if (r)
			return r;
	}
	if (min > max)
		return 0;
	return gb_rep(s->b, string_char(s), min, max);
}

static gnode read_string(struct schema *s, const json_t *x)
{
	static const char *const limits[] = {"pattern", "minLength", "maxLength"};
	bool limited = format_pattern(json_string_value(json_object_get(x, "format")));

	for (int i = 0; i < 3; i++)
		limited |= json_object_get(x, limits[i]) != NULL;
	return limited ? quoted(s, string_text(s, x)) : any_string(s);
}

/* ---- numbers ---------------------------------------------------------------------------------- */

/* minimum and exclusiveMinimum (a number, or draft 4's flag), the larger. */
static bool one_bound(struct schema *s, const json_t *x, const char *k, const char *k_excl,
		      bool low, const json_t **v, bool *excl)
{
	const json_t *in = json_object_get(x, k), *ex = json_object_get(x, k_excl);

	if ((in && !json_is_number(in)) || (ex && !json_is_number(ex) && !json_is_boolean(ex))) {
		schema_bad(s, in && !json_is_number(in) ? k : k_excl, -EINVAL, "not a number");
		return false;
	}
	*v = in;
	*excl = in && json_is_true(ex);
	if (json_is_number(ex) && (!in || (low ? json_number_value(ex) >= json_number_value(in)
					       : json_number_value(ex) <= json_number_value(in)))) {
		*v = ex;
		*excl = true;
	}
	return true;
}

static gnode read_number(struct schema *s, const json_t *x, bool integer)
{
	const json_t *m = json_object_get(x, "multipleOf");
	double multiple = json_number_value(m);
	const char *why = NULL, *at = "minimum";
	struct bounds r;
	gnode n;
	int frac = integer ? 0 : 20;

	if (!one_bound(s, x, "minimum", "exclusiveMinimum", true, &r.min, &r.min_excl) ||
	    !one_bound(s, x, "maximum", "exclusiveMaximum", false, &r.max, &r.max_excl))
		return 0;
	if (m && (!json_is_number(m) || multiple <= 0))
		return schema_bad(s, "multipleOf", -EINVAL, "not a number above 0");
	if (m && frac_digits(multiple) > 0) {
		if (!integer)
			frac = frac_digits(multiple);
	} else if (m) {
		if (multiple != (double)(long long)(multiple < 1e15 ? multiple : 0))
			return schema_bad(s, "multipleOf", -EOPNOTSUPP,
					  "only integers, 0.1, 0.01 and so on are supported");
		n = gb_multiples(s->b, (long long)multiple, &r, &why);
		at = "multipleOf";
		return why ? schema_bad(s, at, -EOPNOTSUPP, "%s", why) : n;
	}
	if (!m && !r.min && !r.max)
		return integer ? gj_integer(s->b) : gj_number(s->b);
	n = gb_number_range(s->b, &r, frac, &why);
	return why ? schema_bad(s, r.min ? at : "maximum", -EOPNOTSUPP, "%s", why) : n;
}

/* ---- arrays ----------------------------------------------------------------------------------- */

static gnode read_at(struct schema *s, const json_t *x, const char *a, const char *b)
{
	size_t mark = schema_enter(s, a, b);
	gnode r = read_schema(s, x);

	schema_leave(s, mark);
	return r;
}

/* The elements from i on, the comma before them included. */
static gnode elements(struct schema *s, const gnode *first, size_t n, gnode rest, uint32_t min,
		      uint32_t max)
{
	struct gb *b = s->b;
	gnode tail;
	uint32_t left = max == GB_INF ? GB_INF : max > n ? max - (uint32_t)n : 0;

	tail = rest || min > n
		       ? gb_rep(b, gb_seq(b, comma(s), rest), min > n ? min - (uint32_t)n : 0, left)
		       : gb_empty(b);
	for (size_t i = n; i-- && !b->rc;) {
		gnode with = i >= max ? 0 : gb_seq(b, i ? comma(s) : gb_empty(b), first[i], tail);
		uint32_t r = gb_rule(b);

		gb_define(b, r, gb_alt(b, with, i >= min ? gb_empty(b) : 0));
		tail = gb_call(b, r);
	}
	return tail;
}

static gnode read_array(struct schema *s, const json_t *x)
{
	const json_t *items = json_object_get(x, "items");
	json_t *prefix = json_object_get(x, "prefixItems"), *v;
	const char *prefix_name = "prefixItems", *items_name = "items";
	uint32_t min = count_of(s, x, "minItems", 0), max = count_of(s, x, "maxItems", GB_INF);
	struct list first = {0};
	gnode rest, r;
	size_t i;

	if (json_is_array(items)) { /* as before 2020-12 */
		prefix = (json_t *)items;
		prefix_name = items_name;
		items_name = "additionalItems";
		items = json_object_get(x, items_name);
	}
	if (prefix && !json_is_array(prefix))
		return schema_bad(s, prefix_name, -EINVAL, "not a list");
	rest = items ? read_at(s, items, items_name, NULL) : any_value(s);
	if (!json_array_size(prefix))
		return bracketed(s, "[", rest, min, max, "]");
	json_array_foreach (prefix, i, v) {
		char number[24];

		snprintf(number, sizeof(number), "%zu", i);
		list_add(s, &first, read_at(s, v, prefix_name, number));
	}
	r = s->b->rc ? 0 : elements(s, first.v, first.n, rest, min, max);
	free(first.v);
	return gb_seq(s->b, gb_lit(s->b, "["), ws(s), r, ws(s), gb_lit(s->b, "]"));
}

/* ---- objects ---------------------------------------------------------------------------------- */

struct prop {
	const char *name;
	gnode pair;
	bool required;
};

struct object {
	struct prop *prop;
	size_t n, n_required;
	gnode more; /* a pair that is none of these; 0: not allowed */
};

static bool is_required(const json_t *required, const char *name)
{
	json_t *v;
	size_t i;

	json_array_foreach ((json_t *)required, i, v) {
		if (json_is_string(v) && !strcmp(json_string_value(v), name))
			return true;
	}
	return false;
}

static void add_prop(struct schema *s, struct object *o, const char *name, gnode value,
		     bool required)
{
	uint32_t r = gb_rule(s->b);

	gb_define(s->b, r, gb_seq(s->b, key_text(s, name), colon(s), value));
	o->prop[o->n++] = (struct prop){name, gb_call(s->b, r), required};
	o->n_required += required;
}

/* A pair beyond those declared. */
static gnode other_pair(struct schema *s, const json_t *x, const struct object *o, gnode value)
{
	const json_t *names = json_object_get(x, "propertyNames");
	struct gstr *v;
	gnode key;

	if (!value)
		return 0;
	if (names && !json_is_true(names) && !gemma(s)) {
		if (o->n)
			return schema_bad(s, "propertyNames", -EOPNOTSUPP,
					  "together with properties it is not supported");
		names = schema_merge(s, json_object_get(x, "propertyNames"),
				     json_array_get(s->owned, 0));
		key = names ? read_at(s, names, "propertyNames", NULL) : 0;
	} else if (!o->n || gemma(s)) {
		key = free_key(s);
	} else {
		v = calloc(o->n, sizeof(*v));
		if (!v)
			return no_memory(s);
		for (size_t i = 0; i < o->n; i++)
			v[i] = (struct gstr){o->prop[i].name, strlen(o->prop[i].name)};
		key = gj_key_except(s->b, v, o->n);
		free(v);
	}
	return gb_seq(s->b, key, colon(s), value);
}

/*
 * Declared properties in their order, then others. A rule for each place where one may go on: what
 * comes first has no comma before it.
 */
static gnode members(struct schema *s, const struct object *o)
{
	struct gb *b = s->b;
	gnode after =
		gb_seq(b,
		       o->more ? gb_rep(b, gb_seq(b, comma(s), o->more), 0, GB_INF) : gb_empty(b),
		       ws(s));
	gnode first = gb_alt(b, gb_empty(b), o->more ? gb_seq(b, o->more, after) : 0);

	for (size_t i = o->n; i-- && !b->rc;) {
		const struct prop *p = &o->prop[i];
		uint32_t ra = gb_rule(b), rf = gb_rule(b);

		gb_define(b, rf, gb_alt(b, gb_seq(b, p->pair, after), p->required ? 0 : first));
		gb_define(b, ra,
			  gb_alt(b, gb_seq(b, comma(s), p->pair, after), p->required ? 0 : after));
		after = gb_call(b, ra);
		first = gb_call(b, rf);
	}
	return first;
}

/* patternProperties: one pattern and nothing else is simple enough. */
static gnode read_patterns(struct schema *s, const json_t *x, const json_t *patterns)
{
	const json_t *more = json_object_get(x, "additionalProperties"), *string;
	const char *pattern = json_object_iter_key(json_object_iter((json_t *)patterns));
	gnode value, key;

	if (json_object_size(patterns) != 1 || json_object_size(json_object_get(x, "properties")) ||
	    json_is_object(more) || json_array_size(json_object_get(x, "required")))
		return schema_bad(s, "patternProperties", -EOPNOTSUPP,
				  "supported is one pattern, without other properties");
	value = read_at(s, json_object_get(patterns, pattern), "patternProperties", pattern);
	string = json_pack("{s:s,s:s}", "type", "string", "pattern", pattern);
	if (!string || json_array_append_new(s->owned, (json_t *)string))
		return no_memory(s);
	key = gemma(s) ? gb_regex(s->b, pattern, strlen(pattern), true, false)
		       : read_at(s, string, "patternProperties", pattern);
	return gb_seq(s->b, key, colon(s), value);
}

static gnode read_object(struct schema *s, const json_t *x)
{
	json_t *props = json_object_get(x, "properties"), *v;
	const json_t *required = json_object_get(x, "required");
	const json_t *patterns = json_object_get(x, "patternProperties");
	const json_t *more = json_object_get(x, "additionalProperties");
	uint32_t min = count_of(s, x, "minProperties", 0);
	uint32_t max = count_of(s, x, "maxProperties", GB_INF);
	struct object o = {0};
	gnode r, value;
	const char *key;
	size_t i;

	if (props && !json_is_object(props))
		return schema_bad(s, "properties", -EINVAL, "not an object");
	if (required && !json_is_array(required) && !json_is_boolean(required))
		return schema_bad(s, "required", -EINVAL, "not a list");
	o.prop = calloc(json_object_size(props) + json_array_size(required) + 1, sizeof(*o.prop));
	if (!o.prop)
		return no_memory(s);
	json_object_foreach (props, key, v) {
		bool needed = is_required(required, key);

		value = read_at(s, v, "properties", key);
		if (value || needed)
			add_prop(s, &o, key, value, needed);
	}
	if (json_object_size(patterns)) {
		o.more = read_patterns(s, x, patterns);
	} else if (!json_is_false(more) && (more || !((s->closed || gemma(s)) && props))) {
		value = !more || json_is_true(more)
				? any_value(s)
				: read_at(s, more, "additionalProperties", NULL);
		json_array_foreach ((json_t *)required, i, v) {
			if (json_is_string(v) && !json_object_get(props, json_string_value(v)))
				add_prop(s, &o, json_string_value(v), value, true);
		}
		o.more = other_pair(s, x, &o, value);
	}
	json_array_foreach ((json_t *)required, i, v) {
		bool known = false;

		for (size_t k = 0; k < o.n && json_is_string(v); k++)
			known |= !strcmp(o.prop[k].name, json_string_value(v));
		if (!known && !s->b->rc)
			schema_bad(s, "required", -EINVAL,
				   "%.60s is required but no such property is allowed",
				   json_is_string(v) ? json_string_value(v) : "what is no string");
	}
	if (s->b->rc) {
		r = 0;
	} else if (!o.n) {
		/* two keys may be the same, so only 0 and 1 are safe to count up to */
		if (min > 1)
			schema_bad(s, "minProperties", -EOPNOTSUPP, "more than 1 is not supported");
		r = bracketed(s, "{", o.more, min, max, "}");
	} else if (min > o.n_required || (max != GB_INF && (o.more || max < o.n))) {
		r = schema_bad(s, min > o.n_required ? "minProperties" : "maxProperties",
			       -EOPNOTSUPP, "together with properties it is not supported");
	} else {
		r = gb_seq(s->b, gb_lit(s->b, "{"), ws(s), members(s, &o), gb_lit(s->b, "}"));
	}
	free(o.prop);
	return r;
}

/* ---- values that are listed -------------------------------------------------------------------- */

static bool has_type(const json_t *v, int types)
{
	double d = json_number_value(v);

	switch (json_typeof(v)) {
	case JSON_NULL:
		return types & TY_NULL;
	case JSON_TRUE:
	case JSON_FALSE:
		return types & TY_BOOL;
	case JSON_INTEGER:
		return types & (TY_INTEGER | TY_NUMBER);
	case JSON_REAL:
		return types & TY_NUMBER || (types & TY_INTEGER && d == trunc(d));
	case JSON_STRING:
		return types & TY_STRING;
	case JSON_ARRAY:
		return types & TY_ARRAY;
	default:
		return types & TY_OBJECT;
	}
}

/* Does the machine accept the value's text? */
static bool machine_takes(struct machine *m, const json_t *v)
{
	char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
	uint32_t at = m->start;

	m->budget = MACHINE_MASK_WORK;
	for (const char *p = text; p && *p && at != ST_DEAD; p++)
		at = machine_step(m, at, m->prog->class_of[(uint8_t)*p]);
	free(text);
	return text && at != ST_DEAD && m->st[at].accept;
}

/* Those of `values` that the other keywords of x allow too; a new list. */
static json_t *fitting(struct schema *s, const json_t *x, const json_t *values)
{
	json_t *others = without(x, "enum", "const"), *l = json_array(), *v;
	struct schema inner;
	struct gb b;
	struct grammar *g = NULL;
	struct machine m;
	uint32_t root;
	size_t i;
	int rc;

	json_object_del(others, "type");
	if (!restricts(others, "nullable", NULL)) {
		json_decref(others);
		json_decref(l);
		return json_incref((json_t *)values);
	}
	gb_init(&b, s->b->e);
	schema_init(&inner, &b, s->root, s->where);
	snprintf(inner.path, sizeof(inner.path), "%s", s->path);
	inner.depth = s->depth;
	root = gb_rule(&b);
	gb_define(&b, root, read_schema(&inner, others));
	schema_fini(&inner);
	rc = gb_finish(&b, root, &g);
	if (!rc)
		rc = machine_init(&m, g->prog, UINT32_MAX);
	if (rc)
		s->b->rc = rc;
	json_array_foreach ((json_t *)values, i, v) {
		if (!rc && machine_takes(&m, v))
			json_array_append(l, v);
	}
	if (!rc)
		machine_fini(&m);
	grammar_free(g);
	json_decref(others);
	return l;
}

static gnode one_of_values(struct schema *s, const json_t *values, int types)
{
	size_t n = json_array_size(values), k = 0, i;
	struct gstr *text = calloc(n + 1, sizeof(*text));
	struct list l = {0};
	json_t *v;

	if (!text)
		return no_memory(s);
	json_array_foreach ((json_t *)values, i, v) {
		if (!has_type(v, types))
			continue;
		if (json_is_string(v) && s->style == STYLE_JSON) {
			text[k].s = json_dumps(v, JSON_ENCODE_ANY);
			if (!text[k].s) {
				no_memory(s);
				break;
			}
			text[k].n = strlen(text[k].s);
			k++;
		} else {
			list_add(s, &l, literal(s, v, 0));
		}
	}
	list_add(s, &l, gb_strings(s->b, text, k));
	for (i = 0; i < k; i++)
		free((char *)text[i].s);
	free(text);
	return list_node(s, &l, GN_ALT);
}

static gnode read_values(struct schema *s, const json_t *x, int types)
{
	const json_t *list = json_object_get(x, "enum"), *one = json_object_get(x, "const");
	json_t *l = NULL, *fit, *v;
	gnode r;
	size_t i;

	if (list && !json_is_array(list))
		return schema_bad(s, "enum", -EINVAL, "not a list");
	if (one) {
		l = json_array();
		if (!list)
			json_array_append(l, (json_t *)one);
		json_array_foreach ((json_t *)list, i, v) {
			if (json_equal(v, one))
				json_array_append(l, v);
		}
	} else {
		l = json_incref((json_t *)list);
	}
	fit = fitting(s, x, l);
	r = s->b->rc ? 0 : one_of_values(s, fit, types);
	json_decref(fit);
	json_decref(l);
	return r;
}

/* ---- a schema --------------------------------------------------------------------------------- */

/* Types that x's keywords speak of, where it has no `type`. */
static int implied_types(const json_t *x)
{
	static const struct {
		const char *keyword;
		int type;
	} speaks[] = {
		{"properties", TY_OBJECT},
		{"required", TY_OBJECT},
		{"additionalProperties", TY_OBJECT},
		{"patternProperties", TY_OBJECT},
		{"propertyNames", TY_OBJECT},
		{"minProperties", TY_OBJECT},
		{"maxProperties", TY_OBJECT},
		{"items", TY_ARRAY},
		{"prefixItems", TY_ARRAY},
		{"minItems", TY_ARRAY},
		{"maxItems", TY_ARRAY},
		{"pattern", TY_STRING},
		{"format", TY_STRING},
		{"minLength", TY_STRING},
		{"maxLength", TY_STRING},
		{"minimum", TY_NUMBER},
		{"maximum", TY_NUMBER},
		{"exclusiveMinimum", TY_NUMBER},
		{"exclusiveMaximum", TY_NUMBER},
		{"multipleOf", TY_NUMBER},
	};
	int types = 0;

	for (size_t i = 0; i < sizeof(speaks) / sizeof(*speaks); i++) {
		if (json_object_get(x, speaks[i].keyword))
			types |= speaks[i].type;
	}
	return types ? types : TY_ALL;
}

static gnode by_types(struct schema *s, const json_t *x, int types)
{
	enum schema_style outer = s->style;
	struct gb *b = s->b;
	struct list l = {0};

	if (types == TY_ALL && !restricts(x, "type", "nullable"))
		return any_value(s);
	if (types & TY_NUMBER)
		types &= ~TY_INTEGER;
	if (types & TY_STRING)
		list_add(s, &l, read_string(s, x));
	s->style = outer == STYLE_RAW ? STYLE_JSON : outer;
	if (types & TY_OBJECT)
		list_add(s, &l, read_object(s, x));
	if (types & TY_ARRAY)
		list_add(s, &l, read_array(s, x));
	s->style = outer;
	if (types & (TY_NUMBER | TY_INTEGER))
		list_add(s, &l, read_number(s, x, !(types & TY_NUMBER)));
	if (types & TY_BOOL)
		list_add(s, &l, gb_alt(b, gb_lit(b, "true"), gb_lit(b, "false")));
	if (types & TY_NULL)
		list_add(s, &l, gb_lit(b, "null"));
	return list_node(s, &l, GN_ALT);
}

/* The rule of a reference's target, read when first met. */
static gnode read_reference(struct schema *s, const char *ref)
{
	const json_t *target = schema_target(s, ref);
	struct schema_rule **head, *r;
	char path[sizeof(s->path)];

	if (!target)
		return 0;
	head = &s->rule[((uintptr_t)target >> 4) & 255];
	for (r = *head; r; r = r->next) {
		if (r->at == target && r->style == s->style)
			return gb_call(s->b, r->rule);
	}
	r = malloc(sizeof(*r));
	if (!r)
		return no_memory(s);
	*r = (struct schema_rule){target, s->style, gb_rule(s->b), *head};
	*head = r;
	memcpy(path, s->path, sizeof(path));
	snprintf(s->path, sizeof(s->path), "%s", ref + 1);
	gb_define(s->b, r->rule, read_schema(s, target));
	memcpy(s->path, path, sizeof(path));
	return gb_call(s->b, r->rule);
}

static gnode read_alternatives(struct schema *s, const json_t *x, const char *k)
{
	json_t *any = json_object_get(x, k), *base, *v;
	bool plain = !restricts(x, k, NULL);
	struct list l = {0};
	size_t i;

	if (!json_is_array(any) || !json_array_size(any))
		return schema_bad(s, k, -EINVAL, "not a list of schemas");
	base = without(x, k, NULL);
	if (!base || json_array_append_new(s->owned, base))
		return no_memory(s);
	json_array_foreach (any, i, v) {
		char number[24];
		const json_t *one = v;
		size_t mark;

		snprintf(number, sizeof(number), "%zu", i);
		mark = schema_enter(s, k, number);
		if (!plain)
			one = schema_merge(s, base, v);
		list_add(s, &l, one ? read_schema(s, one) : 0);
		schema_leave(s, mark);
		if (s->b->rc)
			break;
	}
	return list_node(s, &l, GN_ALT);
}

static gnode read_keywords(struct schema *s, const json_t *x)
{
	const json_t *ref = json_object_get(x, "$ref"), *type = json_object_get(x, "type"), *m;
	int types = type ? schema_types(type) : TY_ALL;

	if (check_keywords(s, x))
		return 0;
	if (ref && !json_is_string(ref))
		return schema_bad(s, "$ref", -EINVAL, "not a string");
	if (ref && !restricts(x, "$ref", NULL))
		return read_reference(s, json_string_value(ref));
	if (ref || json_object_get(x, "allOf")) {
		m = schema_flat(s, x);
		return m ? read_schema(s, m) : 0;
	}
	if (json_object_get(x, "anyOf") && json_object_get(x, "oneOf"))
		return schema_bad(s, "oneOf", -EOPNOTSUPP, "beside anyOf it is not supported");
	if (json_object_get(x, "anyOf"))
		return read_alternatives(s, x, "anyOf");
	if (json_object_get(x, "oneOf"))
		return read_alternatives(s, x, "oneOf");
	if (types < 0)
		return schema_bad(s, "type", -EINVAL, "not a type's name or a list of them");
	if (json_is_true(json_object_get(x, "nullable")) && type)
		types |= TY_NULL;
	if (json_object_get(x, "enum") || json_object_get(x, "const"))
		return read_values(s, x, types);
	return by_types(s, x, type ? types : implied_types(x));
}

static gnode read_schema(struct schema *s, const json_t *x)
{
	gnode r;
	uint32_t rule;

	if (s->b->rc)
		return 0;
	if (json_is_true(x))
		return any_value(s);
	if (json_is_false(x))
		return 0;
	if (!json_is_object(x))
		return schema_bad(s, NULL, -EINVAL,
				  "not a schema: neither an object nor true nor false");
	if (s->depth >= DEPTH_MAX)
		return schema_bad(s, NULL, -E2BIG, "schemas nested deeper than %d: make it flatter",
				  DEPTH_MAX);
	if (++s->n_read > READS_MAX)
		return schema_bad(s, NULL, -E2BIG, "more than %d schemas: make it smaller",
				  READS_MAX);
	s->depth++;
	r = read_keywords(s, x);
	s->depth--;
	/* nodes in each other are bounded within a rule: what is deep becomes one */
	if (r && s->b->node[r].depth > 16) {
		rule = gb_rule(s->b);
		gb_define(s->b, rule, r);
		r = gb_call(s->b, rule);
	}
	return r;
}

gnode schema_tagged(struct schema *s, const json_t *x, const char *const before[2],
		    const char *after)
{
	json_t *props = json_object_get(x, "properties"), *v;
	const json_t *required = json_object_get(x, "required");
	gnode all = gb_empty(s->b), *one = calloc(json_object_size(props) + 1, sizeof(*one));
	bool *needed = calloc(json_object_size(props) + 1, sizeof(*needed));
	const char *name;
	size_t n = 0, i;

	if (!one || !needed)
		no_memory(s);
	s->style = STYLE_RAW;
	json_object_foreach (props, name, v) {
		if (s->b->rc)
			break;
		needed[n] = is_required(required, name);
		one[n++] = gb_seq(s->b, gb_lit(s->b, before[0]), gb_lit(s->b, name),
				  gb_lit(s->b, before[1]), read_at(s, v, "properties", name),
				  gb_lit(s->b, after));
	}
	while (n-- && !s->b->rc) {
		uint32_t r = gb_rule(s->b);

		gb_define(s->b, r, gb_alt(s->b, gb_seq(s->b, one[n], all), needed[n] ? 0 : all));
		all = gb_call(s->b, r);
	}
	json_array_foreach ((json_t *)required, i, v) {
		if (json_is_string(v) && !json_object_get(props, json_string_value(v)))
			schema_bad(s, "required", -EINVAL,
				   "%.60s is required but there is no such property",
				   json_string_value(v));
	}
	free(one);
	free(needed);
	return s->b->rc ? 0 : all;
}

gnode schema_node(struct schema *s, const json_t *x)
{
	return read_schema(s, x);
}

int grammar_json_schema(struct grammar **out, const json_t *schema, struct err *e)
{
	static const char ours[] = "grammar: ";
	struct schema s;
	struct gb b;
	struct err local;
	uint32_t root;
	int rc;

	gb_init(&b, &local);
	schema_init(&s, &b, schema, "#");
	root = gb_rule(&b);
	gb_define(&b, root, read_schema(&s, schema));
	schema_fini(&s);
	rc = gb_finish(&b, root, out);
	if (!rc)
		return 0;
	if (!strncmp(local.msg, ours, sizeof(ours) - 1))
		return err_set(e, rc, "#: %s", local.msg + sizeof(ours) - 1);
	return err_set(e, rc, "%s", local.msg);
}

int grammar_json_object(struct grammar **out, struct err *e)
{
	struct gb b;
	uint32_t root;

	gb_init(&b, e);
	root = gb_rule(&b);
	gb_define(&b, root, gj_object_of(&b, gj_string(&b), gj_value(&b), 0, GB_INF));
	return gb_finish(&b, root, out);
}

int grammar_choice(struct grammar **out, const json_t *strings, struct err *e)
{
	size_t n = json_array_size(strings), i;
	struct gstr *v = calloc(n + 1, sizeof(*v));
	struct gb b;
	uint32_t root;
	json_t *x;

	gb_init(&b, e);
	root = gb_rule(&b);
	if (!v)
		gb_fail(&b, -ENOMEM, "grammar: out of memory: free some");
	if (!n)
		gb_fail(&b, -EINVAL, "choice: not a list of strings, or an empty one");
	json_array_foreach ((json_t *)strings, i, x) {
		if (!json_is_string(x) || !json_string_length(x)) {
			gb_fail(&b, -EINVAL, "choice: item %zu: not a string, or an empty one", i);
			break;
		}
		v[i] = (struct gstr){json_string_value(x), json_string_length(x)};
	}
	gb_define(&b, root, gb_strings(&b, v, n));
	free(v);
	return gb_finish(&b, root, out);
}
