// SPDX-License-Identifier: MIT
/* Loading a model: choose the family, bind, place, stream, finish; see model.h. */
#include "model/model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/fnv.h"
#include "model/bind_internal.h"

static const struct model_family *const families[] = {&family_llama, &family_qwen3,
						      &family_qwen3_moe};

static int max_int(int a, int b)
{
	return a > b ? a : b;
}

/* The maxima that backends size workspaces by, and the KV geometry. */
static void plan_finish(struct model *m, int ctx)
{
	const struct model_config *c = &m->config;
	struct plan *p = &m->plan;

	p->hidden = c->hidden;
	p->vocab = c->vocab;
	p->max_pos = ctx;
	for (int i = 0; i < p->n_ops; i++) {
		const struct op *op = &p->ops[i];

		switch (op->kind) {
		case OP_ATTN_IN:
			p->max_q = max_int(p->max_q, op->attn_in.n_q * op->attn_in.head_dim);
			p->max_kv = max_int(p->max_kv, op->attn_in.n_kv * op->attn_in.head_dim);
			p->max_heads = max_int(p->max_heads, op->attn_in.n_q);
			break;
		case OP_GLU:
			p->max_width = max_int(p->max_width, (int)op->glu.gate->rows);
			break;
		case OP_MOE:
			p->max_width = max_int(p->max_width, (int)op->moe.gate->rows);
			p->max_experts = max_int(p->max_experts, op->moe.n_experts);
			p->max_topk = max_int(p->max_topk, op->moe.top_k);
			break;
		default:
			break;
		}
	}
	p->n_groups = 1;
	p->group[0] = (struct kv_group){.n_layers = c->layers,
					.n_heads = c->n_kv,
					.head_dim = c->head_dim,
					.window = c->window};
}

/* Weight bytes that one decoded token reads: every matrix once, top-k of experts, one embedding row. */
static uint64_t decode_bytes(const struct plan *p)
{
	uint64_t sum = 0;

	for (int i = 0; i < p->n_ops; i++) {
		const struct op *op = &p->ops[i];

		switch (op->kind) {
		case OP_EMBED:
			sum += dtype_row_bytes(op->embed.w->type, op->embed.w->cols);
			break;
		case OP_ATTN_IN:
			sum += op->attn_in.q->stride + op->attn_in.k->stride +
			       op->attn_in.v->stride;
			break;
		case OP_PROJ:
			sum += op->proj.w->stride;
			break;
		case OP_GLU:
			sum += op->glu.gate->stride + op->glu.up->stride + op->glu.down->stride;
			break;
		case OP_MOE:
			sum += op->moe.router->stride +
			       op->moe.top_k * (op->moe.gate->stride + op->moe.up->stride +
						op->moe.down->stride);
			break;
		case OP_HEAD:
			sum += op->head.w->stride;
			break;
		case OP_ATTN:
			break;
		}
	}
	return sum;
}

/* Configuration, names, shapes, and a sample of the weights as placed. */
static uint64_t model_hash(const struct checkpoint *c, uint64_t sample)
{
	char *config = json_dumps(checkpoint_config(c), JSON_COMPACT | JSON_SORT_KEYS);
	uint64_t h = FNV_START;

	if (config)
		h = fnv1a(h, config, strlen(config));
	free(config);
	for (int64_t i = 0; i < checkpoint_n_tensors(c); i++) {
		const struct tensor_info *t = checkpoint_tensor(c, i);

		h = fnv1a(h, t->name, strlen(t->name));
		h = fnv1a(h, t->dims, sizeof(t->dims));
		h = fnv1a(h, &t->type, sizeof(t->type));
	}
	return fnv1a(h, &sample, sizeof(sample));
}

static void *lazy_floats(size_t n)
{
	void *p = mmap(NULL, n * sizeof(float), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* Tables are virtual memory until positions are used. */
static int rope_prepare(struct model *m, struct err *e)
{
	const struct rope_config *c = &m->config.rope;
	size_t n = (size_t)m->plan.max_pos * (c->dims / 2);
	struct rope *r = &m->rope;

	r->dims = c->dims;
	r->interleaved = c->interleaved;
	r->inv_freq = calloc(c->dims / 2, sizeof(float));
	r->cos = lazy_floats(n);
	r->sin = lazy_floats(n);
	if (!r->inv_freq || !r->cos || !r->sin)
		return err_set(e, -ENOMEM, "rope tables: out of memory: lower --ctx");
	rope_frequencies(c, r->inv_freq, &r->attn_factor);
	for (int i = 0; m->rope_freqs && i < c->dims / 2; i++)
		r->inv_freq[i] /= m->rope_freqs[i];
	return 0;
}

static const struct model_family *family_find(const char *name)
{
	for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++)
		if (!strcmp(families[i]->name, name))
			return families[i];
	return NULL;
}

struct admission {
	struct model *m;
	const struct model_load_opts *o;
};

static int admit(void *ctx, uint64_t bytes, struct err *e)
{
	const struct admission *a = ctx;

	return a->o->admit ? a->o->admit(a->o->admit_ctx, &a->m->plan, bytes, e) : 0;
}

/* From where they are kept, or from the checkpoint. */
static int get_weights(struct model *m, struct binder *b, const struct model_load_opts *o)
{
	struct load_opts lo = {.progress = o->weights.progress, .ctx = o->weights.progress_ctx};
	struct admission a = {m, o};
	struct weights_opts wo = o->weights;
	struct weights_job job = {.c = b->c,
				  .o = &wo,
				  .backend = b->backend->name,
				  .isa = b->backend->isa ? b->backend->isa : "",
				  .items = b->item,
				  .offsets = b->item_offset,
				  .n_items = b->n_items,
				  .bytes = b->bytes};
	int rc;

	wo.admit = admit;
	wo.admit_ctx = &a;
	rc = weights_place(&m->weights, &job, b->e);
	if (rc > 0 && admit(&a, 0, b->e))
		rc = -ENOMEM;

	if (rc >= 0)
		binder_place(b, m->weights.base);
	if (rc > 0)
		m->load = (struct load_stats){.method = "region"};
	if (!rc)
		rc = weights_load(b->c, b->item, b->n_items, &lo, &m->load, b->e);
	if (!rc)
		rc = weights_keep(&m->weights, &job, b->e);
	if (rc >= 0)
		m->fingerprint = model_hash(b->c, job.sample);
	weights_free_job(&job);
	return rc < 0 ? rc : 0;
}

static int bind_and_load(struct model *m, struct binder *b, const struct model_load_opts *o,
			 int ctx)
{
	static const struct tensor_name freqs = {"", "rope_freqs.weight"};

	m->family->build(b, &m->config);
	if (m->config.gguf && bind_has(b, freqs, 0))
		bind_vector(b, (const float **)&m->rope_freqs, freqs, 0, m->config.rope.dims / 2);
	m->weight = b->weight;
	m->n_weights = b->n_weights;
	m->params = b->params;
	if (b->rc)
		return b->rc;
	plan_finish(m, ctx);
	b->rc = get_weights(m, b, o);
	return b->rc;
}

int model_load(struct model **out, const struct checkpoint *c, struct backend *backend,
	       const struct model_load_opts *o, struct err *e)
{
	struct model *m = calloc(1, sizeof(*m));
	struct binder b = {.c = c, .backend = backend, .model = m, .e = e};
	int ctx, rc;

	if (!m)
		return err_set(e, -ENOMEM, "model: out of memory: free some");
	m->plan.ops = calloc(PLAN_MAX_OPS, sizeof(*m->plan.ops));
	rc = m->plan.ops ? model_config_read(&m->config, c, e)
			 : err_set(e, -ENOMEM, "model: out of memory: free some");
	if (rc)
		goto fail;
	ctx = o->ctx ? o->ctx : m->config.max_pos;
	if (ctx > m->config.max_pos) {
		rc = err_set(e, -EINVAL, "%s: context %d: the model was made for %d: lower --ctx",
			     checkpoint_path(c), ctx, m->config.max_pos);
		goto fail;
	}
	m->family = family_find(m->config.family);
	rc = bind_and_load(m, &b, o, ctx);
	binder_free(&b);
	if (rc)
		goto fail;
	m->bytes_per_token = decode_bytes(&m->plan);
	rc = rope_prepare(m, e);
	if (rc)
		goto fail;
	*out = m;
	return 0;
fail:
	model_free(m);
	return rc;
}

void model_free(struct model *m)
{
	size_t table = (size_t)m->plan.max_pos * (m->rope.dims / 2) * sizeof(float);

	if (m->rope.cos)
		munmap(m->rope.cos, table);
	if (m->rope.sin)
		munmap(m->rope.sin, table);
	free(m->rope.inv_freq);
	for (int i = 0; i < m->n_weights; i++)
		free(m->weight[i]);
	free(m->weight);
	if (m->weights.base)
		placement_free(&m->weights);
	free(m->plan.ops);
	free(m);
}
