// SPDX-License-Identifier: MIT
/* Opening and closing an engine, its facts, and the single forward pass; see engine.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fnv.h"
#include "engine/engine_internal.h"
#include "model/resolve.h"

#define DEFAULT_CHUNK	256
#define DEFAULT_SEQS	32
#define DEFAULT_WAITING 1024
#define DEFAULT_STEP_MS 100

static int open_backend(struct engine *en, const struct engine_opts *o, struct err *e)
{
	const char *name = o->backend ? o->backend : "auto";
	struct backend_opts b = {.threads = o->threads, .exact = o->exact};

	b.kv_type = o->kv_type >= 0		       ? (enum kv_type)o->kv_type
		    : o->exact || !strcmp(name, "ref") ? KV_F32
						       : KV_BF16;
	if (en->backend)
		;
	else if (!strcmp(name, "ref"))
		en->backend = backend_ref_create(&b, e);
	else if (!strcmp(name, "cpu") || !strcmp(name, "auto"))
		en->backend = backend_cpu_create(&b, e);
	else
		return err_set(e, -EINVAL, "backend: \"%s\" is unknown: use auto, cpu or ref",
			       name);
	en->kv.pool.type = b.kv_type;
	return en->backend ? 0 : -EINVAL;
}

/* GGUF's own name, else the name it was looked up by, else the last part of the path. */
static void set_name(struct engine *en, const char *asked)
{
	const json_t *config = checkpoint_config(en->checkpoint);
	const char *given = json_string_value(json_object_get(config, "general.name"));
	const char *path = checkpoint_path(en->checkpoint);
	const char *name = given ? given : asked, *slash;
	size_t len = strlen(name);

	if (!given && !strcmp(asked, path)) {
		while (len > 1 && name[len - 1] == '/')
			len--;
		slash = memrchr(name, '/', len);
		if (slash && len > 1) {
			len -= slash + 1 - name;
			name = slash + 1;
		}
	}
	snprintf(en->name, sizeof(en->name), "%.*s", (int)len, name);
}

static void model_progress(void *ctx, uint64_t done, uint64_t total)
{
	const struct engine_opts *o = ctx;

	if (o->progress)
		o->progress(o->progress_ctx, "loading weights", done, total);
}

struct admission {
	struct engine *en;
	const struct engine_opts *o;
};

/* The least that size_kv() will be content with. */
static int admit(void *ctx, struct plan *p, uint64_t bytes, struct err *e)
{
	const struct admission *a = ctx;
	uint64_t kv = a->o->kv_bytes;

	if (!kv)
		kv = kv_page_bytes(p, a->en->kv.pool.type) *
		     (uint64_t)(a->o->ctx ? kv_pages_for(p->max_pos) : 1);
	return a->o->admit ? a->o->admit(a->o->admit_ctx, bytes, kv, e) : 0;
}

static int load_model(struct engine *en, const struct engine_opts *o, struct err *e)
{
	struct admission admission = {en, o};
	struct model_load_opts lo = {.ctx = o->ctx,
				     .admit = admit,
				     .admit_ctx = &admission,
				     .weights = {.mode = o->weights,
						 .verify = o->verify_weights,
						 .node = -1,
						 .label = en->name,
						 .note = o->note,
						 .note_ctx = o->note_ctx,
						 .progress = model_progress,
						 .progress_ctx = (void *)o}};

	set_name(en, o->model);
	return model_load(&en->model, en->checkpoint, en->backend, &lo, e);
}

static int open_text(struct engine *en, const struct engine_opts *o, struct err *e)
{
	const struct model_config *c = &en->model->config;
	int rc = tokenizer_open(&en->tokenizer, en->checkpoint, e);

	if (rc == -ENOENT)
		en->tokenizer = NULL; /* ids only */
	else if (rc)
		return rc;
	memcpy(en->eos, c->eos, c->n_eos * sizeof(*c->eos));
	en->n_eos = c->n_eos;
	if (!en->tokenizer)
		return 0;
	en->n_eos += tokenizer_eos(en->tokenizer, en->eos + en->n_eos, 7);
	rc = chat_open(&en->chat, en->checkpoint, en->tokenizer, o->chat, e);
	if (rc)
		return rc;
	en->n_eos += chat_stops(en->chat, en->eos + en->n_eos, ENGINE_CHAT_STOPS);
	return 0;
}

/*
 * How many pages: what was asked for, else one full context for every request that may run, within
 * a quarter of the memory that is left, but at least one context. The context itself is lowered
 * (where the user gave none) to what half of the memory holds.
 */
static int size_kv(struct engine *en, const struct engine_opts *o, struct err *e)
{
	struct plan *p = &en->model->plan;
	size_t page = kv_page_bytes(p, en->kv.pool.type);
	uint64_t left = placement_available();
	uint64_t pages, per_ctx = kv_pages_for(p->max_pos);

	if (!o->ctx && left && per_ctx * page > left / 2) {
		per_ctx = left / 2 / page;
		if (!per_ctx)
			return err_set(e, -ENOMEM,
				       "KV cache: %zu bytes for %d tokens, %llu bytes are "
				       "available: free memory",
				       page, KV_PAGE_TOKENS, (unsigned long long)left);
		p->max_pos = (int)per_ctx * KV_PAGE_TOKENS;
	}
	en->ctx = p->max_pos;
	pages = o->kv_bytes / page;
	if (!o->kv_bytes) {
		pages = per_ctx * en->max_seqs;
		if (pages * page > left / 4)
			pages = left / 4 / page;
		if (pages < per_ctx)
			pages = per_ctx;
	}
	if (!o->ctx && pages && pages < per_ctx)
		en->ctx = p->max_pos = (int)pages * KV_PAGE_TOKENS;
	if (pages < 1)
		return err_set(e, -EINVAL,
			       "KV cache: %zu bytes: a page of %d tokens takes %zu: give more",
			       o->kv_bytes, KV_PAGE_TOKENS, page);
	if (pages > INT32_MAX / KV_PAGE_TOKENS)
		return err_set(e, -EINVAL,
			       "KV cache: %zu bytes: at most %zu can be used: give less",
			       o->kv_bytes, INT32_MAX / KV_PAGE_TOKENS * page);
	return kv_init(&en->kv, p,
		       &(struct kv_opts){.type = en->kv.pool.type,
					 .n_pages = (int)pages,
					 .prefix_bytes = o->prefix_bytes,
					 .swap_dir = o->swap_dir,
					 .swap_dir_len = o->swap_dir_len,
					 .swap_bytes = o->swap_bytes,
					 .n_snapshots = p->state_bytes ? 4 * en->max_seqs : 0},
		       e);
}

static int alloc_batch(struct engine *en, struct err *e)
{
	int vocab = en->model->plan.vocab;

	en->max_rows = en->chunk + en->max_seqs;
	en->max_out = en->max_seqs;
	en->running = calloc(en->max_seqs, sizeof(*en->running));
	en->batch_ids = calloc(en->max_rows, sizeof(*en->batch_ids));
	en->batch_seq = calloc(en->max_seqs, sizeof(*en->batch_seq));
	en->batch_req = calloc(en->max_seqs, sizeof(*en->batch_req));
	en->by_due = calloc(en->max_seqs, sizeof(*en->by_due));
	en->batch_out = calloc(en->max_out, sizeof(*en->batch_out));
	en->batch_out_seq = calloc(en->max_out, sizeof(*en->batch_out_seq));
	if (en->backend->split_classes)
		en->batch_generated = calloc(en->max_rows, 1);
	en->logits = calloc((size_t)en->max_out * vocab, sizeof(*en->logits));
	if (!en->running || !en->batch_ids || !en->batch_seq || !en->batch_req || !en->by_due ||
	    !en->batch_out || !en->batch_out_seq || !en->logits ||
	    (en->backend->split_classes && !en->batch_generated))
		return err_set(e, -ENOMEM, "batch: out of memory: lower --chunk");
	return sampler_init(&en->sampler, vocab, e);
}

static uint64_t mix(uint64_t h, const char *s)
{
	return fnv1a(h, s, strlen(s));
}

static void fill_info(struct engine *en, const struct engine_opts *o)
{
	const struct model *m = en->model;
	struct engine_info *i = &en->info;

	i->model = en->name;
	i->family = m->family->name;
	i->backend = en->backend->name;
	i->detail = en->backend->detail;
	if (m->weights.in_region)
		snprintf(en->placement, sizeof(en->placement), "region %s (%s)",
			 m->weights.region.name, region_place_name(m->weights.store.place));
	i->placement = m->weights.in_region ? en->placement : "anonymous memory";
	i->vocab = m->plan.vocab;
	i->ctx = en->ctx;
	i->layers = m->config.layers;
	i->hidden = m->config.hidden;
	i->params = m->params;
	i->weight_bytes = m->weights.bytes;
	i->bytes_per_token = m->bytes_per_token;
	i->kv_bytes_per_token = en->kv.page_bytes / KV_PAGE_TOKENS;
	i->kv_bytes = (uint64_t)en->kv.page_bytes * en->kv.n_pages;
	i->row_invariant = en->backend->row_invariant;
	i->load = m->load;
	/* Threads do not matter to a row-invariant backend; ISA, mode and KV type do. */
	i->fingerprint = mix(mix(m->fingerprint, en->backend->name), en->backend->isa);
	i->fingerprint = mix(i->fingerprint, o->exact ? "exact" : "default");
	i->fingerprint = mix(i->fingerprint, kv_type_name(en->kv.pool.type));
	i->fingerprint ^= en->tokenizer ? (uint64_t)tokenizer_n_vocab(en->tokenizer) << 32 : 0;
	i->temperature = m->config.temperature;
	i->top_p = m->config.top_p;
	i->min_p = m->config.min_p;
	i->top_k = m->config.top_k;
	embed_detect(en->checkpoint, i);
}

/* The checkpoint, the backend unless there is one, and the model. */
static int open_model(struct engine *en, const struct engine_opts *o, struct err *e)
{
	char path[MODEL_PATH_MAX];
	int rc = model_resolve(o->model, path, e);

	if (!rc)
		rc = checkpoint_open(&en->checkpoint, path, e);
	if (!rc)
		rc = open_backend(en, o, e);
	if (!rc)
		rc = load_model(en, o, e);
	return rc;
}

int engine_open_on(struct engine **out, const struct engine_opts *o, struct backend *backend,
		   struct err *e)
{
	struct engine *en = calloc(1, sizeof(*en));
	int rc;

	if (!en) {
		if (backend)
			backend->destroy(backend);
		return err_set(e, -ENOMEM, "engine: out of memory: free some");
	}
	en->backend = backend;
	en->chunk = o->chunk > 0 ? o->chunk : DEFAULT_CHUNK;
	en->max_seqs = o->max_seqs > 0 ? o->max_seqs : DEFAULT_SEQS;
	en->max_waiting = o->max_waiting > 0 ? o->max_waiting : DEFAULT_WAITING;
	en->step_ns = (o->step_ms > 0 ? o->step_ms : DEFAULT_STEP_MS) * 1e6;
	fair_init(&en->fair);
	en->n_freed = 1;
	rc = open_model(en, o, e);
	if (!rc)
		rc = size_kv(en, o, e);
	if (!rc)
		rc = open_text(en, o, e);
	if (!rc)
		rc = alloc_batch(en, e);
	if (!rc)
		rc = en->backend->prepare(en->backend, &en->model->plan, en->max_rows, en->max_out,
					  e);
	if (rc) {
		engine_close(en);
		return rc;
	}
	fill_info(en, o);
	rc = embed_alloc(en, e);
	if (rc) {
		engine_close(en);
		return rc;
	}
	*out = en;
	return 0;
}

int engine_keep_weights(const struct engine_opts *o, char *placement, size_t len,
			struct load_stats *load, struct err *e)
{
	struct engine *en = calloc(1, sizeof(*en));
	int rc;

	if (!en)
		return err_set(e, -ENOMEM, "engine: out of memory: free some");
	rc = open_model(en, o, e);
	if (!rc) {
		snprintf(placement, len, "%s", en->model->weights.region.name);
		*load = en->model->load;
	}
	fair_init(&en->fair);
	engine_close(en);
	return rc;
}

int engine_open(struct engine **out, const struct engine_opts *o, struct err *e)
{
	return engine_open_on(out, o, NULL, e);
}

void engine_close(struct engine *en)
{
	if (!en)
		return;
	while (en->requests)
		request_finish(en->requests, FINISH_CANCELLED, false);
	while (en->sessions)
		engine_session_close(en->sessions);
	fair_free(&en->fair);
	free(en->running);
	free(en->batch_ids);
	free(en->batch_seq);
	free(en->batch_generated);
	free(en->batch_req);
	free(en->by_due);
	free(en->batch_out);
	free(en->batch_out_seq);
	free(en->logits);
	embed_free(en);
	sampler_free(&en->sampler);
	kv_free(&en->kv);
	chat_close(en->chat);
	if (en->tokenizer)
		tokenizer_close(en->tokenizer);
	if (en->model)
		model_free(en->model);
	if (en->backend)
		en->backend->destroy(en->backend);
	if (en->checkpoint)
		checkpoint_close(en->checkpoint);
	free(en);
}

void engine_forget_weights(struct engine *en)
{
	struct placement *p = &en->model->weights;
	struct region_fact f;

	if (p->in_region && !region_find(&p->store, p->region.name, &f, NULL) && f.users <= 1)
		region_destroy(&p->store, p->region.name, NULL);
}

const struct engine_info *engine_info(const struct engine *en)
{
	return &en->info;
}

void engine_stats(const struct engine *en, struct engine_stats *st)
{
	struct kv_stats kv;

	*st = en->stats;
	st->sessions = en->n_sessions;
	st->waiting = en->fair.n_waiting;
	st->principals = en->fair.active.n;
	for (const struct request *r = en->requests; r; r = r->next) {
		st->parked += r->parked;
		st->running += r->state == REQ_RUNNING && !r->parked;
		st->waiting += r->state == REQ_BEHIND;
	}
	kv_stats(&en->kv, &kv);
	st->kv_pages = kv.pages;
	st->kv_held = kv.held;
	st->kv_cached = kv.cached;
	st->kv_free = kv.free;
	st->kv_page_bytes = en->kv.page_bytes;
	st->swap_pages = kv.swap_pages;
	st->swap_max_pages = kv.swap_max_pages;
	st->swap_error = kv.swap_error;
	st->swapped_out = kv.swapped_out;
	st->swapped_in = kv.swapped_in;
	st->ns_swap = kv.ns_swap;
	st->evicted_tokens = kv.evicted_tokens;
}

const struct tokenizer *engine_tokenizer(const struct engine *en)
{
	return en->tokenizer;
}

const struct chat *engine_chat(const struct engine *en)
{
	return en->chat;
}

int engine_eos(const struct engine *en, const int32_t **ids)
{
	*ids = en->eos;
	return en->n_eos;
}

const struct checkpoint *engine_checkpoint(const struct engine *en)
{
	return en->checkpoint;
}

void sampling_default(struct sampling *s, const struct engine *en)
{
	*s = (struct sampling){
		.temperature = (float)en->info.temperature,
		.top_k = en->info.top_k,
		.top_p = (float)en->info.top_p,
		.min_p = (float)en->info.min_p,
		.repeat_penalty = 1,
	};
}

static int check_logits_args(struct engine *en, const int32_t *ids, size_t n_ids,
			     const int32_t *positions, size_t n, struct err *e)
{
	if (!n_ids || n_ids > (size_t)en->ctx)
		return err_set(e, -E2BIG, "tokens: %zu: 1 to %d fit the context", n_ids, en->ctx);
	for (size_t i = 0; i < n_ids; i++)
		if (ids[i] < 0 || ids[i] >= en->info.vocab)
			return err_set(e, -EINVAL, "tokens: id %d: the vocabulary has 0..%d",
				       ids[i], en->info.vocab - 1);
	for (size_t i = 0; i < n; i++)
		if (positions[i] < 0 || (size_t)positions[i] >= n_ids ||
		    (i && positions[i] <= positions[i - 1]))
			return err_set(e, -EINVAL, "positions: %d: ascending, 0 to %zu",
				       positions[i], n_ids - 1);
	return 0;
}

int engine_logits(struct engine *en, const int32_t *ids, size_t n_ids, const int32_t *positions,
		  size_t n, float *out, struct err *e)
{
	int rc = check_logits_args(en, ids, n_ids, positions, n, e);
	struct session *s = NULL;
	size_t done = 0;

	if (!rc)
		rc = engine_session_open(en, &s, e);
	if (rc)
		return rc;
	/* Those that run keep their pages. */
	session_make_room(en, kv_pages_for((int)n_ids), s);
	if (!session_reserve(s, (int)n_ids))
		rc = err_set(e, -ENOSPC, "KV cache: no room for %zu tokens: raise its size", n_ids);
	model_rope_extend(en->model, (int)n_ids);
	for (size_t pos = 0; !rc && pos < n_ids;) {
		int len = n_ids - pos < (size_t)en->chunk ? (int)(n_ids - pos) : en->chunk;
		struct batch_seq q = {.n_tok = len, .pos0 = (int)pos};
		struct batch b = {.ids = ids + pos,
				  .n_seq = 1,
				  .seq = &q,
				  .out_row = en->batch_out};

		for (int g = 0; g < en->model->plan.n_groups; g++)
			q.pages[g] = s->pages;
		for (; done + b.n_out < n && positions[done + b.n_out] < (int)pos + q.n_tok;
		     b.n_out++) {
			if (b.n_out == en->max_out) { /* no more outputs: a shorter chunk */
				q.n_tok = positions[done + b.n_out] - (int)pos;
				break;
			}
			en->batch_out[b.n_out] = positions[done + b.n_out] - (int)pos;
		}
		b.n_tok = q.n_tok;
		en->backend->forward(en->backend, &en->model->plan, &en->kv.pool, &b,
				     out + done * en->info.vocab);
		done += b.n_out;
		pos += q.n_tok;
	}
	engine_session_close(s);
	return rc;
}
