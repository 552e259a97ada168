// SPDX-License-Identifier: MIT
/*
 * Values: the arena that holds them, strings that know which of their bytes a user wrote, lists,
 * dicts, and going through them. JSON is wrapped when it is first looked into; its strings are
 * never copied.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "text/template/tmpl_int.h"
#include "text/utf8.h"

struct arena_chunk {
	struct arena_chunk *next;
	size_t size;
};

#define CHUNK (32u << 10)

void *arena_alloc(struct arena *a, size_t n, bool *oom)
{
	struct arena_chunk *c;
	size_t size;
	char *p;

	*oom = false;
	if (n > SIZE_MAX / 2)
		return NULL;
	n = (n + 15) & ~(size_t)15;
	if (n <= (size_t)(a->end - a->at)) {
		p = a->at;
		a->at += n;
		return p;
	}
	size = n + 16 > CHUNK / 4 ? n + 16 : CHUNK;
	if (size > a->limit || a->used > a->limit - size)
		return NULL;
	c = malloc(size);
	if (!c) {
		*oom = true;
		return NULL;
	}
	a->used += size;
	*c = (struct arena_chunk){a->chunks, size};
	a->chunks = c;
	p = (char *)c + 16;
	/* a big one has a chunk of its own; the one in use is filled up further */
	if (size == CHUNK) {
		a->at = p + n;
		a->end = (char *)c + size;
	}
	return p;
}

void arena_free(struct arena *a)
{
	struct arena_chunk *c = a->chunks, *next;

	for (; c; c = next) {
		next = c->next;
		free(c);
	}
	*a = (struct arena){0};
}

void *ralloc(struct rt *r, size_t n)
{
	bool oom;
	void *p = arena_alloc(&r->arena, n, &oom);

	if (p)
		return p;
	if (!oom)
		fail_limit(r, "memory");
	r->rc = err_set(r->e, -ENOMEM, "template: no memory for %zu bytes", n);
	longjmp(r->jmp, 1);
}

void *ralloc_array(struct rt *r, size_t n, size_t size)
{
	if (n > SIZE_MAX / 4 / size)
		fail_limit(r, "memory");
	return ralloc(r, n * size);
}

/* ---- strings ----------------------------------------------------------------------------------- */

uint32_t str_hash(struct str *s)
{
	uint32_t h = 2166136261u;

	if (s->hash)
		return s->hash;
	for (size_t i = 0; i < s->len; i++)
		h = (h ^ (uint8_t)s->p[i]) * 16777619u;
	h ^= h >> 15;
	s->hash = h ? h : 1;
	return s->hash;
}

bool str_is_ascii(struct str *s)
{
	uint64_t w, any = 0;
	size_t i = 0;

	if (s->ascii >= 0)
		return s->ascii;
	for (; i + 8 <= s->len && !(any & 0x8080808080808080u); i += 8) {
		memcpy(&w, s->p + i, 8);
		any |= w;
	}
	for (; i < s->len; i++)
		any |= (uint8_t)s->p[i];
	s->ascii = !(any & 0x8080808080808080u);
	return s->ascii;
}

bool str_equal(const struct str *a, const struct str *b)
{
	return a == b || (a->len == b->len && !memcmp(a->p, b->p, a->len));
}

/* Bytes of UTF-8 sort as code points do. */
int str_compare(const struct str *a, const struct str *b)
{
	int c = memcmp(a->p, b->p, a->len < b->len ? a->len : b->len);

	return c ? c : (a->len > b->len) - (a->len < b->len);
}

const char *bytes_find(const char *p, size_t n, const struct str *what)
{
	if (what->len == 1)
		return memchr(p, *what->p, n);
	return memmem(p, n, what->p, what->len);
}

size_t str_chars(struct rt *r, struct str *s)
{
	size_t n = 0;

	if (str_is_ascii(s))
		return s->len;
	charge_bytes(r, s->len);
	for (size_t i = 0; i < s->len; i++)
		n += ((uint8_t)s->p[i] & 0xc0) != 0x80;
	return n;
}

size_t str_offset(struct str *s, size_t chars)
{
	size_t i = 0;

	if (str_is_ascii(s))
		return chars < s->len ? chars : s->len;
	for (; chars && i < s->len; chars--)
		i += utf8_skip(s->p + i);
	return i;
}

static struct str *str_make(struct rt *r, const char *p, size_t n, bool user)
{
	struct str *s = ralloc(r, sizeof(*s));

	*s = (struct str){.p = p, .len = n, .user = user, .ascii = -1};
	return s;
}

struct str *str_static(struct rt *r, const char *text)
{
	return str_make(r, text, strlen(text), false);
}

struct str *str_copy(struct rt *r, const char *p, size_t n, bool user)
{
	char *q = ralloc(r, n + 1);

	charge_bytes(r, n);
	memcpy(q, p, n);
	q[n] = 0;
	return str_make(r, q, n, user);
}

struct str *str_sub(struct rt *r, struct str *s, size_t from, size_t to)
{
	struct str *x;

	if (from >= to)
		return s->markup ? str_markup(r, r->empty, true) : r->empty;
	if (!from && to == s->len)
		return s;
	x = str_make(r, s->p + from, to - from, s->user);
	x->mark = s->mark ? s->mark + from : NULL;
	x->ascii = s->ascii == 1 ? 1 : -1;
	x->markup = s->markup;
	return x;
}

struct str *str_char(struct rt *r, struct str *s, size_t at, int len)
{
	uint8_t c = (uint8_t)s->p[at];

	if (len > 1 || c >= 128 || s->markup || str_user_at(s, at))
		return str_sub(r, s, at, at + (size_t)len);
	if (!r->byte_str[c]) {
		char b = (char)c;

		r->byte_str[c] = str_copy(r, &b, 1, false);
		r->byte_str[c]->ascii = 1;
	}
	return r->byte_str[c];
}

struct str *str_markup(struct rt *r, struct str *s, bool markup)
{
	struct str *x;

	if (s->markup == markup)
		return s;
	x = ralloc(r, sizeof(*x));
	*x = *s;
	x->buf = NULL;
	x->markup = markup;
	return x;
}

bool str_tainted(const struct str *s)
{
	return s->len && (s->mark ? memchr(s->mark, 1, s->len) != NULL : s->user);
}

/*
 * Left-to-right concatenation must not copy what is there already each time: the result is put
 * behind the left operand where that is the last thing in its buffer.
 */
struct str *str_concat(struct rt *r, struct str *a, struct str *b)
{
	struct sbuf *buf = a->buf;
	struct str *x;

	if (!b->len)
		return a;
	if (!a->len)
		return b;
	if (!buf || a->p + a->len != buf->p + buf->len || a->p != buf->p) {
		buf = ralloc(r, sizeof(*buf));
		sb_init(r, buf, a->len + b->len + 32);
		sb_str(r, buf, a);
	}
	sb_str(r, buf, b);
	x = str_make(r, buf->p, buf->len, false);
	x->buf = buf;
	if (buf->some_user && buf->some_trusted)
		x->mark = buf->mark;
	else
		x->user = buf->some_user;
	x->ascii = a->ascii == 1 && b->ascii == 1 ? 1 : -1;
	return x;
}

/* ---- text being written ------------------------------------------------------------------------ */

void sb_init(struct rt *r, struct sbuf *b, size_t cap)
{
	*b = (struct sbuf){.cap = cap < 64 ? 64 : cap};
	b->p = ralloc(r, b->cap);
	b->mark = ralloc(r, b->cap);
}

static void sb_room(struct rt *r, struct sbuf *b, size_t n)
{
	size_t cap;
	uint8_t *mark;
	char *p;

	if (n <= b->cap - b->len)
		return;
	if (n > SIZE_MAX / 8 || b->len > SIZE_MAX / 8)
		fail_limit(r, "memory");
	cap = 2 * (b->len + n);
	p = ralloc(r, cap);
	mark = ralloc(r, cap);
	memcpy(p, b->p, b->len);
	memcpy(mark, b->mark, b->len);
	b->p = p;
	b->mark = mark;
	b->cap = cap;
}

void sb_put(struct rt *r, struct sbuf *b, const char *p, size_t n, bool user)
{
	if (!n)
		return;
	charge_bytes(r, n);
	sb_room(r, b, n);
	memcpy(b->p + b->len, p, n);
	memset(b->mark + b->len, user, n);
	b->len += n;
	b->some_user |= user;
	b->some_trusted |= !user;
}

void sb_fill(struct rt *r, struct sbuf *b, char c, size_t n, bool user)
{
	if (!n)
		return;
	sb_room(r, b, n);
	charge_bytes(r, n);
	memset(b->p + b->len, c, n);
	memset(b->mark + b->len, user, n);
	b->len += n;
	b->some_user |= user;
	b->some_trusted |= !user;
}

void sb_range(struct rt *r, struct sbuf *b, const struct str *s, size_t from, size_t to)
{
	size_t n = to - from;

	if (from >= to)
		return;
	if (!s->mark) {
		sb_put(r, b, s->p + from, n, s->user);
		return;
	}
	charge_bytes(r, n);
	sb_room(r, b, n);
	memcpy(b->p + b->len, s->p + from, n);
	memcpy(b->mark + b->len, s->mark + from, n);
	b->len += n;
	b->some_user = b->some_user || memchr(s->mark + from, 1, n);
	b->some_trusted = b->some_trusted || memchr(s->mark + from, 0, n);
}

void sb_str(struct rt *r, struct sbuf *b, const struct str *s)
{
	sb_range(r, b, s, 0, s->len);
}

void sb_char(struct rt *r, struct sbuf *b, uint32_t cp, const struct str *s, size_t at)
{
	char c[4];

	sb_put(r, b, c, (size_t)utf8_encode(cp, c), str_user_at(s, at));
}

struct str *sb_take(struct rt *r, struct sbuf *b)
{
	struct str *s;

	if (!b->len)
		return r->empty;
	s = str_make(r, b->p, b->len, b->some_user);
	if (b->some_user && b->some_trusted)
		s->mark = b->mark;
	return s;
}

/* ---- lists, dicts ------------------------------------------------------------------------------ */

struct list *list_new(struct rt *r, size_t cap)
{
	struct list *l = ralloc(r, sizeof(*l));

	if (!cap)
		cap = 1;
	*l = (struct list){.v = ralloc_array(r, cap, sizeof(*l->v)), .cap = cap};
	return l;
}

void list_push(struct rt *r, struct list *l, struct val v)
{
	if (l->n == l->cap) {
		struct val *more = ralloc_array(r, l->cap * 2, sizeof(*more));

		memcpy(more, l->v, l->n * sizeof(*more));
		l->v = more;
		l->cap *= 2;
	}
	charge(r, 1);
	l->v[l->n++] = v;
}

struct val v_json(struct rt *r, const json_t *j, bool user)
{
	struct val v = {.user = user};

	switch (json_typeof(j)) {
	case JSON_OBJECT:
		v.type = V_DICT;
		v.d = ralloc(r, sizeof(*v.d));
		*v.d = (struct dict){.json = j, .n = json_object_size(j), .user = user};
		break;
	case JSON_ARRAY:
		v.type = V_LIST;
		v.l = ralloc(r, sizeof(*v.l));
		*v.l = (struct list){.json = j, .n = json_array_size(j), .user = user};
		break;
	case JSON_STRING:
		v.type = V_STR;
		v.s = str_make(r, json_string_value(j), json_string_length(j), user);
		break;
	case JSON_INTEGER:
		v.type = V_INT;
		v.i = json_integer_value(j);
		break;
	case JSON_REAL:
		v.type = V_FLOAT;
		v.f = json_real_value(j);
		break;
	case JSON_TRUE:
	case JSON_FALSE:
		v.type = V_BOOL;
		v.b = json_typeof(j) == JSON_TRUE;
		break;
	default:
		v.type = V_NONE;
	}
	return v;
}

void list_load(struct rt *r, struct list *l)
{
	const json_t *j = l->json;

	if (!j)
		return;
	charge(r, l->n);
	l->cap = l->n ? l->n : 1;
	l->v = ralloc_array(r, l->cap, sizeof(*l->v));
	for (size_t i = 0; i < l->n; i++)
		l->v[i] = v_json(r, json_array_get(j, i), l->user);
	l->json = NULL;
}

struct dict *dict_new(struct rt *r, size_t cap)
{
	struct dict *d = ralloc(r, sizeof(*d));

	if (!cap)
		cap = 1;
	*d = (struct dict){.e = ralloc_array(r, cap, sizeof(*d->e)), .cap = cap};
	return d;
}

/* Numbers that are equal hash alike, whatever their type. */
uint32_t hash_of(struct rt *r, struct val v)
{
	uint64_t h;
	double f;

	switch (v.type) {
	case V_STR:
		return str_hash(v.s);
	case V_BOOL:
	case V_INT:
		h = (uint64_t)int_of(v);
		break;
	case V_FLOAT:
		f = v.f;
		if (f == floor(f) && f >= -0x1p62 && f <= 0x1p62)
			h = (uint64_t)(int64_t)f;
		else
			memcpy(&h, &f, sizeof(h));
		break;
	case V_TUPLE:
		h = 1;
		enter(r);
		for (size_t i = 0; i < v.l->n; i++)
			h = h * 1000003 + hash_of(r, v.l->v[i]);
		leave(r);
		break;
	case V_LIST:
	case V_DICT:
	case V_VIEW:
		fail(r, "unhashable type: '%s'", type_name(v));
	case V_UNDEF:
	case V_NONE:
		h = v.type;
		break;
	default:
		h = (uintptr_t)v.p >> 4;
	}
	h *= 0x9e3779b97f4a7c15u;
	return (uint32_t)(h >> 32);
}

static bool key_equal(struct rt *r, const struct entry *e, struct val key, uint32_t hash)
{
	if (e->hash != hash)
		return false;
	if (e->key.type == V_STR && key.type == V_STR)
		return str_equal(e->key.s, key.s);
	return equal(r, e->key, key);
}

static struct entry *dict_find(struct rt *r, struct dict *d, struct val key, uint32_t hash)
{
	if (!d->index) {
		for (size_t i = 0; i < d->n; i++)
			if (key_equal(r, &d->e[i], key, hash))
				return &d->e[i];
		return NULL;
	}
	for (size_t i = hash & (d->n_index - 1);; i = (i + 1) & (d->n_index - 1)) {
		if (!d->index[i])
			return NULL;
		charge(r, 1); /* keys may have been made to collide */
		if (key_equal(r, &d->e[d->index[i] - 1], key, hash))
			return &d->e[d->index[i] - 1];
	}
}

static void index_put(struct dict *d, size_t entry)
{
	size_t i = d->e[entry].hash & (d->n_index - 1);

	while (d->index[i])
		i = (i + 1) & (d->n_index - 1);
	d->index[i] = (uint32_t)entry + 1;
}

static void dict_reindex(struct rt *r, struct dict *d, size_t want)
{
	if (want < 12 || want * 2 < d->n_index)
		return;
	if (want > UINT32_MAX / 4)
		fail_limit(r, "memory");
	d->n_index = 32;
	while (d->n_index < want * 4)
		d->n_index *= 2;
	d->index = ralloc_array(r, d->n_index, sizeof(*d->index));
	memset(d->index, 0, d->n_index * sizeof(*d->index));
	charge(r, d->n);
	for (size_t i = 0; i < d->n; i++)
		index_put(d, i);
}

/* The key is known not to be there. */
static void dict_add(struct rt *r, struct dict *d, struct val key, uint32_t hash, struct val value)
{
	if (d->n == d->cap) {
		struct entry *more = ralloc_array(r, d->cap * 2, sizeof(*more));

		memcpy(more, d->e, d->n * sizeof(*more));
		d->e = more;
		d->cap *= 2;
	}
	charge(r, 1);
	d->e[d->n++] = (struct entry){key, value, hash};
	if (d->index && d->n * 2 < d->n_index)
		index_put(d, d->n - 1);
	else
		dict_reindex(r, d, d->n);
}

/*
 * Templates put roles into special tokens ('<|' + message.role + '|>'). The names of the protocol's
 * roles are no text that anybody typed, and spell no token by themselves.
 */
static bool is_role(const char *key, const json_t *value)
{
	static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};

	if (strcmp(key, "role") || !json_is_string(value))
		return false;
	for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
		if (!strcmp(json_string_value(value), roles[i]))
			return true;
	return false;
}

void dict_load(struct rt *r, struct dict *d)
{
	json_t *j = (json_t *)d->json; /* jansson's iterators want it so; nothing is changed */

	if (!j)
		return;
	d->json = NULL;
	d->cap = d->n ? d->n : 1;
	d->e = ralloc_array(r, d->cap, sizeof(*d->e));
	d->n = 0;
	for (void *it = json_object_iter(j); it; it = json_object_iter_next(j, it)) {
		const char *key = json_object_iter_key(it);
		struct val k = v_str(str_make(r, key, strlen(key), d->user));

		const json_t *value = json_object_iter_value(it);

		dict_add(r, d, k, str_hash(k.s), v_json(r, value, d->user && !is_role(key, value)));
	}
}

void dict_set(struct rt *r, struct dict *d, struct val key, struct val value)
{
	uint32_t hash = hash_of(r, key);
	struct entry *e;

	dict_load(r, d);
	e = dict_find(r, d, key, hash);
	if (e)
		e->value = value;
	else
		dict_add(r, d, key, hash, value);
}

struct val dict_get(struct rt *r, struct dict *d, struct val key)
{
	struct entry *e;

	dict_load(r, d);
	e = dict_find(r, d, key, hash_of(r, key));
	return e ? e->value : v_make(V_ABSENT);
}

struct val dict_get_str(struct rt *r, struct dict *d, struct str *key)
{
	return dict_get(r, d, v_str(key));
}

/* ---- other values ------------------------------------------------------------------------------ */

struct val v_undef(enum undef kind, enum vtype of, struct str *name)
{
	return (struct val){.type = V_UNDEF, .sub = (uint8_t)kind, .of = (uint8_t)of, .s = name};
}

struct val v_hint(struct rt *r, const char *hint)
{
	return v_undef(UNDEF_HINT, V_NONE, str_static(r, hint));
}

struct val v_iter(struct rt *r, struct list *l, const char *what)
{
	struct val v = v_make(V_ITER);

	v.iter = ralloc(r, sizeof(*v.iter));
	*v.iter = (struct iter){.l = l, .what = what};
	return v;
}

const char *type_name(struct val v)
{
	static const char *const name[] = {
		[V_ABSENT] = "missing", [V_UNDEF] = "Undefined",
		[V_NONE] = "NoneType",	[V_BOOL] = "bool",
		[V_INT] = "int",	[V_FLOAT] = "float",
		[V_STR] = "str",	[V_LIST] = "list",
		[V_TUPLE] = "tuple",	[V_DICT] = "dict",
		[V_RANGE] = "range",	[V_NS] = "Namespace",
		[V_FUNC] = "function",	[V_METHOD] = "builtin_function_or_method",
		[V_MACRO] = "Macro",	[V_LOOP] = "LoopContext",
		[V_CYCLER] = "Cycler",	[V_JOINER] = "Joiner",
	};
	static const char *const view[] = {"dict_keys", "dict_values", "dict_items"};

	if (v.type == V_VIEW)
		return view[v.sub];
	if (v.type == V_ITER)
		return v.iter->what;
	return v.type == V_STR && v.s->markup ? "Markup" : name[v.type];
}

bool truth(struct val v)
{
	switch (v.type) {
	case V_ABSENT:
	case V_UNDEF:
	case V_NONE:
		return false;
	case V_BOOL:
		return v.b;
	case V_INT:
		return v.i != 0;
	case V_FLOAT:
		return v.f != 0;
	case V_STR:
		return v.s->len != 0;
	case V_LIST:
	case V_TUPLE:
		return v.l->n != 0;
	case V_DICT:
	case V_VIEW:
		return v.d->n != 0;
	case V_RANGE:
		return v.range->n != 0;
	default:
		return true;
	}
}

/* ---- going through ----------------------------------------------------------------------------- */

struct val range_at(const struct range *g, int64_t i)
{
	return v_int(g->start + i * g->step);
}

bool iter_init(struct rt *r, struct iter *it, struct val v)
{
	*it = (struct iter){0};
	switch (v.type) {
	case V_UNDEF:
		it->l = NULL;
		return true;
	case V_STR:
		it->s = v.s;
		return true;
	case V_LIST:
	case V_TUPLE:
		list_load(r, v.l);
		it->l = v.l;
		return true;
	case V_DICT:
	case V_VIEW:
		dict_load(r, v.d);
		it->d = v.d;
		it->view = v.type == V_DICT ? VIEW_KEYS : (enum view)v.sub;
		return true;
	case V_RANGE:
		it->range = v.range;
		return true;
	case V_ITER:
		it->inner = v.iter;
		return true;
	default:
		return false;
	}
}

void iter_open(struct rt *r, struct iter *it, struct val v)
{
	if (!iter_init(r, it, v))
		fail(r, "'%s' object is not iterable", type_name(v));
}

static bool iter_raw(struct rt *r, struct iter *it, struct val *out)
{
	if (it->inner)
		return iter_next(r, it->inner, out);
	if (it->l) {
		if (it->at >= it->l->n)
			return false;
		*out = it->l->v[it->at++];
		return true;
	}
	if (it->d) {
		const struct entry *e = &it->d->e[it->at];

		if (it->at >= it->d->n)
			return false;
		it->at++;
		if (it->view == VIEW_ITEMS) {
			struct list *pair = list_new(r, 2);

			pair->n = 2;
			pair->v[0] = e->key;
			pair->v[1] = e->value;
			*out = v_tuple(pair);
		} else {
			*out = it->view == VIEW_KEYS ? e->key : e->value;
		}
		return true;
	}
	if (it->s) {
		int n;

		if (it->at >= it->s->len)
			return false;
		n = utf8_skip(it->s->p + it->at);
		*out = v_str(str_markup(r, str_char(r, it->s, it->at, n), false));
		it->at += (size_t)n;
		return true;
	}
	if (it->range) {
		if ((int64_t)it->at >= it->range->n)
			return false;
		*out = range_at(it->range, (int64_t)it->at++);
		return true;
	}
	return false;
}

bool iter_next(struct rt *r, struct iter *it, struct val *out)
{
	while (iter_raw(r, it, out)) {
		charge(r, 1);
		if (!it->filter)
			return true;
		it->scope->n = 0;
		assign(r, it->scope, it->target, *out);
		if (truth(eval(r, it->filter, it->scope)))
			return true;
	}
	return false;
}

struct list *list_of(struct rt *r, struct val v)
{
	int64_t n = length_of(r, v);
	struct list *l = list_new(r, n > 0 ? (size_t)n : 4);
	struct iter it;
	struct val x;

	iter_open(r, &it, v);
	while (iter_next(r, &it, &x))
		list_push(r, l, x);
	return l;
}

int64_t length_of(struct rt *r, struct val v)
{
	switch (v.type) {
	case V_UNDEF:
		return 0;
	case V_STR:
		return (int64_t)str_chars(r, v.s);
	case V_LIST:
	case V_TUPLE:
		return (int64_t)v.l->n;
	case V_DICT:
	case V_VIEW:
		return (int64_t)v.d->n;
	case V_RANGE:
		return v.range->n;
	default:
		return -1;
	}
}
