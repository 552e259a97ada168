// SPDX-License-Identifier: MIT
/*
 * The vocabulary as a trie, matchers, masks.
 *
 * A mask is computed by walking the trie and the machine together: where a byte is not allowed, the
 * whole subtree is skipped. Most tokens are plain text (whole characters, no quotes, backslashes,
 * control characters or '<'), and most states that take one plain character take them all and go to
 * one state, as inside a string. For these the walk is left out: the tokens of plain text by their
 * number of characters are masks made when the vocabulary is opened, and only the other tokens are
 * walked.
 *
 * Machines are kept for programs seen before (the same tools come with every turn of an agent),
 * masks for states seen before, the least recently used go first. A machine whose states take too
 * much memory forgets all that no matcher stands on.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "text/grammar/grammar_int.h"
#include "text/utf8.h"

#define MASK_MEMORY   ((size_t)32 << 20)
#define IDLE_MACHINES 8
#define TOKEN_BYTES   1024 /* longest token: bounds the walk's stack */
#define PLAIN_MAX     16 /* characters of plain tokens that are told apart by their number */
#define PLAIN_ALL     (PLAIN_MAX + 1)

struct trie_node {
	uint32_t skip; /* the first node behind the subtree */
	uint32_t tok; /* tokens that end here: ids[tok .. next node's tok) */
	uint16_t depth; /* of the byte, from 0 */
	uint8_t byte;
};

struct trie {
	struct trie_node *node; /* in depth-first order, and one more behind them */
	uint32_t n, cap;
	int32_t *ids;
	uint32_t n_ids;
	int max_depth;
};

struct mask {
	struct mask *newer, *older; /* by use */
	struct state **owner; /* &machine.st, which moves */
	uint32_t state;
	bool stuck; /* no token goes on and the text may not end: it ends all the same */
	uint64_t bits[];
};

/* A machine in the vocabulary's list. */
struct shared {
	struct machine m;
	struct shared *next;
	struct matcher *users;
	uint64_t used; /* for the choice of which idle one goes */
	int32_t mark_id[GB_MAX_MARKS]; /* -1: none in the vocabulary */
	int n_ids; /* of mark_id */
};

struct grammar_vocab {
	const struct tokenizer *t;
	int n_vocab;
	size_t n_words;
	int32_t *eos;
	int n_eos;
	uint32_t *off; /* bytes of token id: text[off[id] .. off[id + 1]) */
	uint8_t *text;
	struct trie all, rest; /* rest: without plain tokens of PLAIN_MAX characters at most */
	uint64_t *plain[PLAIN_ALL + 1]; /* tokens of at most so many plain characters */
	struct shared *machines;
	struct mask *newest, *oldest; /* by use */
	size_t n_masks, max_masks;
	uint64_t clock;
	uint64_t *scratch;
};

struct matcher {
	struct grammar_vocab *v;
	struct shared *s;
	struct matcher *next; /* other users of the machine */
	uint32_t state;
	bool ended;
};

/* ---- the vocabulary ------------------------------------------------------------------------ */

struct sort_key {
	const uint8_t *s;
	uint32_t n;
	int32_t id;
};

static int by_text(const void *x, const void *y)
{
	const struct sort_key *a = x, *b = y;
	int c = memcmp(a->s, b->s, a->n < b->n ? a->n : b->n);

	if (c || a->n != b->n)
		return c ? c : a->n < b->n ? -1 : 1;
	return a->id < b->id ? -1 : 1;
}

static bool trie_add(struct trie *t, uint8_t byte, uint16_t depth)
{
	if (t->n + 1 >= t->cap) {
		uint32_t cap = t->cap ? t->cap * 2 : 1024;
		struct trie_node *v = realloc(t->node, cap * sizeof(*v));

		if (!v)
			return false;
		t->node = v;
		t->cap = cap;
	}
	t->node[t->n++] = (struct trie_node){.tok = t->n_ids, .depth = depth, .byte = byte};
	return true;
}

/* From sorted keys. */
static bool trie_build(struct trie *t, const struct sort_key *key, size_t n)
{
	uint32_t path[TOKEN_BYTES];
	uint32_t depth = 0;

	t->ids = malloc((n + 1) * sizeof(*t->ids));
	if (!t->ids)
		return false;
	for (size_t i = 0; i < n; i++) {
		const struct sort_key *k = &key[i];
		uint32_t same = 0;

		while (same < depth && same < k->n && t->node[path[same]].byte == k->s[same])
			same++;
		while (depth > same)
			t->node[path[--depth]].skip = t->n;
		while (depth < k->n) {
			path[depth] = t->n;
			if (!trie_add(t, k->s[depth], (uint16_t)depth))
				return false;
			depth++;
		}
		t->max_depth = (int)k->n > t->max_depth ? (int)k->n : t->max_depth;
		t->ids[t->n_ids++] = k->id;
	}
	while (depth)
		t->node[path[--depth]].skip = t->n;
	if (!trie_add(t, 0, 0))
		return false;
	t->n--;
	return true;
}

static void trie_free(struct trie *t)
{
	free(t->node);
	free(t->ids);
}

static bool plain_ascii(uint8_t b)
{
	return b >= 0x20 && b < 0x7f && b != '"' && b != '\\' && b != '<';
}

/* Characters of a token that is plain text; 0: it is not. */
static int plain_chars(const uint8_t *s, uint32_t n)
{
	uint32_t cp;
	int chars = 0;

	for (uint32_t i = 0; i < n; chars++) {
		int len = utf8_decode(s + i, n - i, &cp, NULL);

		if (len < 1 || (len == 1 && !plain_ascii(s[i])))
			return 0;
		i += (uint32_t)len;
	}
	return chars;
}

/* The bytes of every token that may match text. */
static int read_tokens(struct grammar_vocab *v)
{
	int32_t n_tok = tokenizer_n_vocab(v->t);
	char buf[TOKEN_BYTES];
	uint32_t cap = 0, n = 0;

	v->off = calloc((size_t)v->n_vocab + 1, sizeof(*v->off));
	if (!v->off)
		return -ENOMEM;
	for (int32_t id = 0; id < v->n_vocab; id++) {
		int len = 0;

		if (id < n_tok && !tokenizer_is_special(v->t, id))
			len = tokenizer_bytes(v->t, id, buf, sizeof(buf));
		for (int k = 0; k < v->n_eos && len; k++)
			len = v->eos[k] == id ? 0 : len;
		if (n + (uint32_t)len > cap || !v->text) {
			uint8_t *p;

			cap = cap ? cap * 2 : 1 << 16;
			p = realloc(v->text, cap);
			if (!p)
				return -ENOMEM;
			v->text = p;
		}
		memcpy(v->text + n, buf, (size_t)len);
		v->off[id] = n;
		n += (uint32_t)len;
	}
	v->off[v->n_vocab] = n;
	return 0;
}

static void set_bit(uint64_t *w, int32_t id)
{
	w[id >> 6] |= 1ull << (id & 63);
}

static int build_tries(struct grammar_vocab *v)
{
	struct sort_key *key = calloc((size_t)v->n_vocab + 1, sizeof(*key));
	size_t n = 0, k = 0;
	bool ok;

	if (!key)
		return -ENOMEM;
	for (int32_t id = 0; id < v->n_vocab; id++) {
		uint32_t len = v->off[id + 1] - v->off[id];

		if (len)
			key[n++] = (struct sort_key){v->text + v->off[id], len, id};
	}
	qsort(key, n, sizeof(*key), by_text);
	ok = trie_build(&v->all, key, n);
	for (size_t i = 0; i < n && ok; i++) {
		int chars = plain_chars(key[i].s, key[i].n);

		if (!chars || chars > PLAIN_MAX)
			key[k++] = key[i];
		for (int c = chars; chars && c <= PLAIN_MAX; c++)
			set_bit(v->plain[c], key[i].id);
	}
	ok = ok && trie_build(&v->rest, key, k);
	free(key);
	return ok ? 0 : -ENOMEM;
}

int grammar_vocab_open(struct grammar_vocab **out, const struct tokenizer *t, int n_vocab,
		       const int32_t *eos, int n_eos, size_t memory, struct err *e)
{
	struct grammar_vocab *v = calloc(1, sizeof(*v));
	int rc = v ? 0 : -ENOMEM;

	*out = NULL;
	if (n_vocab < 1 || n_vocab > INT32_MAX / 2) {
		free(v);
		return err_set(e, -EINVAL, "grammar: a vocabulary of %d tokens: give its size",
			       n_vocab);
	}
	if (!rc) {
		v->t = t;
		v->n_vocab = n_vocab;
		v->n_words = ((size_t)n_vocab + 63) / 64;
		v->max_masks = (memory ? memory : MASK_MEMORY) / (v->n_words * 8 + 64);
		v->max_masks = v->max_masks < 4 ? 4 : v->max_masks;
		v->eos = calloc((size_t)n_eos + 1, sizeof(*v->eos));
		v->scratch = calloc(v->n_words, sizeof(*v->scratch));
		if (!v->eos || !v->scratch)
			rc = -ENOMEM;
	}
	for (int i = 1; i <= PLAIN_MAX && !rc; i++) {
		v->plain[i] = calloc(v->n_words, sizeof(**v->plain));
		rc = v->plain[i] ? 0 : -ENOMEM;
	}
	for (int i = 0; i < n_eos && !rc; i++) {
		if (eos[i] >= 0 && eos[i] < n_vocab)
			v->eos[v->n_eos++] = eos[i];
	}
	if (!rc)
		rc = read_tokens(v);
	if (!rc)
		rc = build_tries(v);
	if (!rc) {
		*out = v;
		return 0;
	}
	grammar_vocab_close(v);
	return err_set(e, rc, "grammar: out of memory: free some");
}

/* ---- kept masks ---------------------------------------------------------------------------- */

static void mask_unlink(struct grammar_vocab *v, struct mask *k)
{
	*(k->newer ? &k->newer->older : &v->newest) = k->older;
	*(k->older ? &k->older->newer : &v->oldest) = k->newer;
}

static void mask_front(struct grammar_vocab *v, struct mask *k)
{
	k->newer = NULL;
	k->older = v->newest;
	*(v->newest ? &v->newest->newer : &v->oldest) = k;
	v->newest = k;
}

static void mask_drop(struct grammar_vocab *v, struct mask *k)
{
	mask_unlink(v, k);
	(*k->owner)[k->state].mask = NULL;
	free(k);
	v->n_masks--;
}

static void drop_masks(struct grammar_vocab *v, struct machine *m)
{
	for (uint32_t i = 2; i < m->n_st; i++) {
		if (m->st[i].mask)
			mask_drop(v, m->st[i].mask);
	}
}

static void machine_drop(struct grammar_vocab *v, struct shared *s)
{
	struct shared **p = &v->machines;

	while (*p != s)
		p = &(*p)->next;
	*p = s->next;
	drop_masks(v, &s->m);
	machine_fini(&s->m);
	free(s);
}

void grammar_vocab_close(struct grammar_vocab *v)
{
	if (!v)
		return;
	while (v->machines)
		machine_drop(v, v->machines);
	trie_free(&v->all);
	trie_free(&v->rest);
	for (int i = 0; i <= PLAIN_ALL; i++)
		free(v->plain[i]);
	free(v->eos);
	free(v->off);
	free(v->text);
	free(v->scratch);
	free(v);
}

/* ---- matchers ------------------------------------------------------------------------------ */

/* Idle machines beyond those kept: the one not used for longest goes. */
static void drop_idle(struct grammar_vocab *v)
{
	for (;;) {
		struct shared *oldest = NULL;
		int idle = 0;

		for (struct shared *s = v->machines; s; s = s->next) {
			if (s->users)
				continue;
			idle++;
			if (!oldest || s->used < oldest->used)
				oldest = s;
		}
		if (idle <= IDLE_MACHINES)
			return;
		machine_drop(v, oldest);
	}
}

static struct shared *shared_get(struct grammar_vocab *v, struct program *p, int *rc)
{
	struct shared *s;
	uint32_t as_text = 0;

	for (s = v->machines; s; s = s->next) {
		if (program_equal(s->m.prog, p))
			return s;
	}
	s = calloc(1, sizeof(*s));
	*rc = -ENOMEM;
	if (!s)
		return NULL;
	for (int i = 0; i < p->n_mark; i++) {
		s->mark_id[i] = tokenizer_find(v->t, p->mark[i]);
		if (s->mark_id[i] < 0 || s->mark_id[i] >= v->n_vocab) {
			s->mark_id[i] = -1;
			as_text |= 1u << i;
		}
	}
	*rc = machine_init(&s->m, p, as_text);
	if (*rc) {
		free(s);
		return NULL;
	}
	s->next = v->machines;
	v->machines = s;
	return s;
}

int matcher_open(struct matcher **out, const struct grammar *g, struct grammar_vocab *v,
		 struct err *e)
{
	struct matcher *m = calloc(1, sizeof(*m));
	int rc = -ENOMEM;

	*out = NULL;
	if (m)
		m->s = shared_get(v, g->prog, &rc);
	if (!m || !m->s) {
		free(m);
		if (rc == -E2BIG)
			return err_set(e, rc, "grammar: begins in too many ways: simplify it");
		return err_set(e, rc, "grammar: out of memory: free some");
	}
	m->v = v;
	m->state = m->s->m.start;
	m->next = m->s->users;
	m->s->users = m;
	m->s->used = ++v->clock;
	*out = m;
	return 0;
}

void matcher_close(struct matcher *m)
{
	struct matcher **p;

	if (!m)
		return;
	for (p = &m->s->users; *p != m; p = &(*p)->next)
		;
	*p = m->next;
	drop_idle(m->v);
	free(m);
}

/* Before work that adds states: forget some if there are too many. */
static void make_room(struct grammar_vocab *v, struct shared *s)
{
	struct machine *m = &s->m;
	uint32_t **keep;
	size_t n = 0;

	if (machine_memory(m) < m->limit)
		return;
	for (struct matcher *u = s->users; u; u = u->next)
		n++;
	keep = calloc(n + 1, sizeof(*keep));
	if (!keep)
		return;
	n = 0;
	for (struct matcher *u = s->users; u; u = u->next)
		keep[n++] = &u->state;
	drop_masks(v, m);
	machine_shrink(m, keep, n);
	free(keep);
}

bool matcher_may_end(const struct matcher *m)
{
	return m->ended || m->s->m.st[m->state].accept;
}

static int marker_of(const struct shared *s, int32_t id)
{
	for (int i = 0; i < s->m.prog->n_mark; i++) {
		if (s->mark_id[i] == id)
			return i;
	}
	return -1;
}

/* The mask of this state was asked for, and allowed only the end. */
static bool is_stuck(const struct machine *k, uint32_t s)
{
	s = k->st[s].alike ? k->st[s].alike : s;
	return k->st[s].mask && k->st[s].mask->stuck;
}

int matcher_accept(struct matcher *m, int32_t id)
{
	struct grammar_vocab *v = m->v;
	struct machine *k = &m->s->m;
	uint32_t s, from, to;
	int mark;

	if (id < 0 || id >= v->n_vocab || m->ended)
		return -EINVAL;
	mark = marker_of(m->s, id);
	for (int i = 0; i < v->n_eos && mark < 0; i++) {
		if (v->eos[i] != id)
			continue;
		if (!k->st[m->state].accept && !is_stuck(k, m->state))
			return -EINVAL;
		m->ended = true;
		return 0;
	}
	make_room(v, m->s);
	k->budget = MACHINE_MASK_WORK;
	k->oom = false;
	s = m->state;
	if (mark >= 0) {
		s = machine_step(k, s, (uint32_t)(k->prog->n_class + mark));
	} else {
		from = v->off[id];
		to = v->off[id + 1];
		if (from == to)
			return -EINVAL;
		for (; from < to && s != ST_DEAD; from++) {
			k->budget = MACHINE_MASK_WORK;
			s = machine_step(k, s, k->prog->class_of[v->text[from]]);
		}
	}
	if (s == ST_DEAD)
		return -EINVAL;
	m->state = s;
	return 0;
}

/* ---- masks --------------------------------------------------------------------------------- */

static void walk(const struct trie *t, struct machine *k, uint32_t start, uint64_t *bits)
{
	uint32_t at[TOKEN_BYTES + 1];
	const uint8_t *class_of = k->prog->class_of;

	at[0] = start;
	for (uint32_t i = 0; i < t->n;) {
		const struct trie_node *x = &t->node[i];
		uint32_t to = machine_step(k, at[x->depth], class_of[x->byte]);

		if (to == ST_DEAD) {
			i = x->skip;
			continue;
		}
		at[x->depth + 1] = to;
		for (uint32_t j = x->tok; j < x[1].tok; j++)
			set_bit(bits, t->ids[j]);
		i++;
	}
}

/* All bytes lo .. hi lead from s to one state: that; else ST_UNKNOWN. */
static uint32_t same_step(struct machine *k, uint32_t s, unsigned lo, unsigned hi)
{
	uint32_t to = ST_UNKNOWN, one;
	int last = -1;

	for (unsigned x = lo; x <= hi; x++) {
		if (k->prog->class_of[x] == last)
			continue;
		last = k->prog->class_of[x];
		one = machine_step(k, s, (uint32_t)last);
		if (to != ST_UNKNOWN && one != to)
			return ST_UNKNOWN;
		to = one;
	}
	return to;
}

/* The state that every plain character leads to from s; ST_UNKNOWN: they differ. */
static uint32_t plain_step(struct machine *k, uint32_t s)
{
	/* first bytes, second bytes, bytes after these: well-formed UTF-8 */
	static const struct {
		uint8_t lo, hi, lo2, hi2, more;
	} lead[] = {
		{0xc2, 0xdf, 0x80, 0xbf, 0}, {0xe0, 0xe0, 0xa0, 0xbf, 1},
		{0xe1, 0xec, 0x80, 0xbf, 1}, {0xed, 0xed, 0x80, 0x9f, 1},
		{0xee, 0xef, 0x80, 0xbf, 1}, {0xf0, 0xf0, 0x90, 0xbf, 2},
		{0xf1, 0xf3, 0x80, 0xbf, 2}, {0xf4, 0xf4, 0x80, 0x8f, 2},
	};
	uint32_t to = same_step(k, s, 'a', 'z');

	if (to == ST_UNKNOWN || same_step(k, s, ' ', '!') != to ||
	    same_step(k, s, '#', ';') != to || same_step(k, s, '=', '[') != to ||
	    same_step(k, s, ']', '~') != to)
		return ST_UNKNOWN;
	for (size_t i = 0; i < sizeof(lead) / sizeof(*lead); i++) {
		uint32_t x = same_step(k, s, lead[i].lo, lead[i].hi);

		if (x != ST_UNKNOWN && x != ST_DEAD)
			x = same_step(k, x, lead[i].lo2, lead[i].hi2);
		for (int n = 0; n < lead[i].more && x != ST_UNKNOWN && x != ST_DEAD; n++)
			x = same_step(k, x, 0x80, 0xbf);
		if (x != to)
			return ST_UNKNOWN;
	}
	return to;
}

/*
 * How many plain characters may come, whichever they are: 0 .. PLAIN_MAX, that or more being
 * PLAIN_MAX; -1: it depends on which.
 */
static int plain_run(struct machine *k, uint32_t s)
{
	for (int n = 0; n < PLAIN_MAX; n++) {
		uint32_t to = plain_step(k, s);

		if (to == ST_UNKNOWN || k->spent)
			return -1;
		if (to == ST_DEAD)
			return n;
		if (to == s)
			return PLAIN_MAX;
		s = to;
	}
	return PLAIN_MAX;
}

/* Something must be allowed: if the budget was spent without finding it, single bytes. */
static void single_bytes(struct grammar_vocab *v, struct machine *k, uint32_t s, uint64_t *bits)
{
	const struct trie *t = &v->all;

	for (uint32_t i = 0; i < t->n; i = t->node[i].skip) {
		const struct trie_node *x = &t->node[i];

		k->budget = MACHINE_MASK_WORK / 16;
		if (machine_step(k, s, k->prog->class_of[x->byte]) == ST_DEAD)
			continue;
		for (uint32_t j = x->tok; j < x[1].tok; j++)
			set_bit(bits, t->ids[j]);
	}
}

static bool any_bit(const uint64_t *bits, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (bits[i])
			return true;
	}
	return false;
}

/* Returns that no token can go on, nor may the text end. */
static bool compute(struct grammar_vocab *v, struct shared *sh, uint32_t s, uint64_t *bits)
{
	struct machine *k = &sh->m;
	int run;

	k->budget = MACHINE_MASK_WORK;
	k->spent = false;
	run = plain_run(k, s);
	if (run > 0)
		memcpy(bits, v->plain[run], v->n_words * 8);
	else
		memset(bits, 0, v->n_words * 8);
	walk(run < 0 ? &v->all : &v->rest, k, s, bits);
	/* a marker's own token is no text in this grammar */
	for (int i = 0; i < k->prog->n_mark; i++) {
		int32_t id = sh->mark_id[i];

		if (id >= 0)
			bits[id >> 6] &= ~(1ull << (id & 63));
	}
	if (k->spent && !any_bit(bits, v->n_words))
		single_bytes(v, k, s, bits);
	for (int i = 0; i < v->n_eos && k->st[s].accept; i++)
		set_bit(bits, v->eos[i]);
	k->budget = MACHINE_MASK_WORK;
	for (int i = 0; i < k->prog->n_mark; i++) {
		int32_t id = sh->mark_id[i];

		if (id >= 0 && machine_step(k, s, (uint32_t)(k->prog->n_class + i)) != ST_DEAD)
			set_bit(bits, id);
	}
	if (any_bit(bits, v->n_words))
		return false;
	for (int i = 0; i < v->n_eos; i++)
		set_bit(bits, v->eos[i]);
	return true;
}

const uint64_t *matcher_mask(struct matcher *m)
{
	struct grammar_vocab *v = m->v;
	struct machine *k = &m->s->m;
	struct mask *x;
	uint32_t s;

	m->s->used = ++v->clock;
	if (m->ended) {
		memset(v->scratch, 0, v->n_words * 8);
		for (int i = 0; i < v->n_eos; i++)
			set_bit(v->scratch, v->eos[i]);
		return v->scratch;
	}
	make_room(v, m->s);
	k->oom = false;
	/* states that differ in counts only share a mask while no token reaches the bounds */
	s = machine_alike(k, m->state, (uint32_t)v->all.max_depth);
	if (s == ST_UNKNOWN)
		return NULL;
	x = k->st[s].mask;
	if (x) {
		mask_unlink(v, x);
		mask_front(v, x);
		return x->bits;
	}
	x = malloc(sizeof(*x) + v->n_words * 8);
	if (!x)
		return NULL;
	x->stuck = compute(v, m->s, s, x->bits);
	if (k->oom) {
		free(x);
		return NULL;
	}
	while (v->n_masks >= v->max_masks)
		mask_drop(v, v->oldest);
	x->owner = &k->st;
	x->state = s;
	k->st[s].mask = x;
	v->n_masks++;
	mask_front(v, x);
	return x->bits;
}
