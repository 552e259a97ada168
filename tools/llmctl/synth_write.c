// SPDX-License-Identifier: MIT
/*
 * The files of a synthetic checkpoint: a header built in memory, then the tensors in chunks that
 * worker threads fill. A file is written under OUT.part and renamed when it is whole.
 */
#include "synth.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_BYTES (8u << 20)
#define MAX_THREADS 8
#define GGUF_ALIGN  32

/* ---- header buffer -------------------------------------------------------------------------- */

struct buf {
	uint8_t *p;
	size_t n, cap;
	bool failed; /* out of memory; checked once, at the end */
};

static void put(struct buf *b, const void *data, size_t n)
{
	if (b->n + n > b->cap) {
		size_t cap = 2 * (b->n + n) + 4096;
		uint8_t *p = realloc(b->p, cap);

		if (!p) {
			b->failed = true;
			return;
		}
		b->p = p;
		b->cap = cap;
	}
	memcpy(b->p + b->n, data, n);
	b->n += n;
}

static void put_u32(struct buf *b, uint32_t v)
{
	put(b, &v, 4);
}

static void put_u64(struct buf *b, uint64_t v)
{
	put(b, &v, 8);
}

static void put_str(struct buf *b, const char *s)
{
	put_u64(b, strlen(s));
	put(b, s, strlen(s));
}

/* ---- GGUF metadata -------------------------------------------------------------------------- */

enum { GGUF_U32 = 4, GGUF_F32 = 6, GGUF_STR = 8 };

struct gguf {
	struct buf b;
	const char *arch;
	uint64_t n;
};

static void key(struct gguf *g, const char *prefix, const char *name, uint32_t type)
{
	char k[128];

	snprintf(k, sizeof(k), "%s%s%s", prefix, *prefix ? "." : "", name);
	put_str(&g->b, k);
	put_u32(&g->b, type);
	g->n++;
}

static void meta_u32(struct gguf *g, const char *name, int64_t v)
{
	key(g, g->arch, name, GGUF_U32);
	put_u32(&g->b, (uint32_t)v);
}

static void meta_f32(struct gguf *g, const char *name, double v)
{
	float f = (float)v;

	key(g, g->arch, name, GGUF_F32);
	put(&g->b, &f, 4);
}

static void meta_str(struct gguf *g, const char *prefix, const char *name, const char *v)
{
	key(g, prefix, name, GGUF_STR);
	put_str(&g->b, v);
}

static void gguf_metadata(struct gguf *g, const struct synth_job *job)
{
	static const char *const arch[] = {"qwen3", "qwen3moe", "llama"};
	const struct synth_shape *s = job->shape;

	g->arch = arch[s->family];
	meta_str(g, "general", "architecture", g->arch);
	meta_str(g, "general", "name", job->name);
	key(g, "general", "file_type", GGUF_U32);
	put_u32(&g->b, (uint32_t)job->format->file_type);
	key(g, "general", "quantization_version", GGUF_U32);
	put_u32(&g->b, 2);
	meta_u32(g, "block_count", s->layers);
	meta_u32(g, "context_length", s->ctx);
	meta_u32(g, "embedding_length", s->hidden);
	meta_u32(g, "feed_forward_length", s->width);
	meta_u32(g, "attention.head_count", s->heads);
	meta_u32(g, "attention.head_count_kv", s->kv_heads);
	meta_u32(g, "attention.key_length", s->head_dim);
	meta_u32(g, "attention.value_length", s->head_dim);
	meta_f32(g, "attention.layer_norm_rms_epsilon", s->eps);
	meta_u32(g, "rope.dimension_count", s->head_dim);
	meta_f32(g, "rope.freq_base", s->rope_theta);
	meta_u32(g, "vocab_size", s->vocab);
	if (s->experts) {
		meta_u32(g, "expert_count", s->experts);
		meta_u32(g, "expert_used_count", s->experts_used);
		meta_u32(g, "expert_feed_forward_length", s->expert_width);
	}
	if (s->rope_type && !strcmp(s->rope_type, "yarn")) {
		meta_str(g, g->arch, "rope.scaling.type", "yarn");
		meta_f32(g, "rope.scaling.factor", s->rope_factor);
		meta_u32(g, "rope.scaling.original_context_length", s->rope_orig_ctx);
	}
	/* No vocabulary: random weights have nothing to say. Readers work on ids. */
	meta_str(g, "tokenizer", "ggml.model", "none");
}

/* Header and, at its end, padding to the data section. Fills the tensors' offsets. */
static void gguf_header(struct buf *out, const struct synth_job *job, struct synth_tensors *t)
{
	struct gguf g = {0};
	uint64_t at = 0;

	gguf_metadata(&g, job);
	put(out, "GGUF", 4);
	put_u32(out, 3);
	put_u64(out, (uint64_t)t->n);
	put_u64(out, g.n);
	put(out, g.b.p, g.b.n);
	out->failed |= g.b.failed;
	free(g.b.p);
	for (int64_t i = 0; i < t->n; i++) {
		struct synth_tensor *v = &t->v[i];

		v->offset = at;
		at += (v->bytes + GGUF_ALIGN - 1) / GGUF_ALIGN * GGUF_ALIGN;
		put_str(out, v->name);
		put_u32(out, (uint32_t)v->n_dims);
		for (int d = v->n_dims - 1; d >= 0; d--)
			put_u64(out, (uint64_t)v->dims[d]);
		put_u32(out, (uint32_t)v->type);
		put_u64(out, v->offset);
	}
	while (out->n % GGUF_ALIGN && !out->failed)
		put(out, "", 1);
}

static void safetensors_header(struct buf *out, struct synth_tensors *t)
{
	uint64_t at = 0, len;
	char line[256];

	put_u64(out, 0);
	put(out, "{\"__metadata__\":{\"format\":\"pt\"}", 31);
	for (int64_t i = 0; i < t->n; i++) {
		struct synth_tensor *v = &t->v[i];
		int n = snprintf(line, sizeof(line), ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%lld",
				 v->name, dtype_info(v->type)->name, (long long)v->dims[0]);

		for (int d = 1; d < v->n_dims; d++)
			n += snprintf(line + n, sizeof(line) - n, ",%lld", (long long)v->dims[d]);
		v->offset = at;
		n += snprintf(line + n, sizeof(line) - n, "],\"data_offsets\":[%llu,%llu]}",
			      (unsigned long long)at, (unsigned long long)(at + v->bytes));
		at += v->bytes;
		put(out, line, (size_t)n);
	}
	put(out, "}", 1);
	while (out->n % 8 && !out->failed)
		put(out, " ", 1);
	len = out->n - 8;
	if (!out->failed)
		memcpy(out->p, &len, 8);
}

/* ---- filling -------------------------------------------------------------------------------- */

/* Rows [first, first + rows) of one tensor, split between the threads by rows. */
struct work {
	const struct synth_job *job;
	uint8_t *dst;
	const struct synth_tensor *t;
	int64_t index, first, rows, cols;
	float *scratch;
};

static void *fill(void *arg)
{
	struct work *w = arg;
	size_t row_bytes = dtype_row_bytes(w->t->type, w->cols);

	if (!w->job->row) {
		synth_fill_random(w->dst, w->t->type, w->cols, w->first, w->rows, w->job->seed,
				  w->index, w->scratch);
		return NULL;
	}
	for (int64_t r = 0; r < w->rows; r++) {
		w->job->row(w->job->row_ctx, w->t, w->first + r, w->scratch);
		synth_convert_row(w->dst + (size_t)r * row_bytes, w->t->type, w->scratch, w->cols);
	}
	return NULL;
}

static void fill_parallel(const struct work *all, int threads, float *scratch)
{
	size_t row_bytes = dtype_row_bytes(all->t->type, all->cols);
	pthread_t id[MAX_THREADS];
	bool started[MAX_THREADS] = {false};
	struct work w[MAX_THREADS];

	for (int i = 0; i < threads; i++) {
		int64_t a = all->rows * i / threads, b = all->rows * (i + 1) / threads;

		w[i] = *all;
		w[i].first = all->first + a;
		w[i].rows = b - a;
		w[i].dst = all->dst + (size_t)a * row_bytes;
		w[i].scratch = scratch + (size_t)i * all->cols;
		/* Small pieces, and the last, are done here; so is one whose thread cannot start. */
		if (i + 1 < threads && all->rows * all->cols > 65536)
			started[i] = !pthread_create(&id[i], NULL, fill, &w[i]);
		if (!started[i])
			fill(&w[i]);
	}
	for (int i = 0; i < threads; i++)
		if (started[i])
			pthread_join(id[i], NULL);
}

/* Factors by which llama3 scaling divides each frequency (GGUF stores them as a tensor). */
static void rope_factors(float *out, const struct synth_shape *s)
{
	int64_t n = s->head_dim / 2;

	for (int64_t i = 0; i < n; i++) {
		double freq = pow(s->rope_theta, -2.0 * (double)i / (double)s->head_dim);
		double wave = 2 * M_PI / freq, orig = (double)s->rope_orig_ctx, f = s->rope_factor;
		double smooth = (orig / wave - s->rope_low) / (s->rope_high - s->rope_low);

		if (wave < orig / s->rope_high)
			out[i] = 1;
		else if (wave > orig / s->rope_low)
			out[i] = (float)f;
		else
			out[i] = (float)(1 / ((1 - smooth) / f + smooth));
	}
}

static int write_all(int fd, const void *data, size_t n)
{
	const char *p = data;

	while (n > 0) {
		ssize_t w = write(fd, p, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return -errno;
		p += w;
		n -= (size_t)w;
	}
	return 0;
}

struct out {
	const struct synth_job *job;
	int fd, threads;
	uint8_t *chunk;
	float *scratch;
	uint64_t done, total;
};

static int write_tensor(struct out *o, const struct synth_tensor *t, int64_t index)
{
	int64_t cols = t->dims[t->n_dims - 1], rows = 1, step;
	size_t row_bytes = dtype_row_bytes(t->type, cols);

	for (int i = 0; i + 1 < t->n_dims; i++)
		rows *= t->dims[i];
	step = row_bytes >= CHUNK_BYTES ? 1 : (int64_t)(CHUNK_BYTES / row_bytes);
	for (int64_t r = 0; r < rows; r += step) {
		int64_t n = rows - r < step ? rows - r : step;
		int rc;

		if (o->job->stop && o->job->stop())
			return -EINTR;
		if (t->content == SYNTH_RANDOM || (o->job->row && t->content == SYNTH_ONES)) {
			struct work w = {o->job, o->chunk, t, index, r, n, cols, NULL};

			fill_parallel(&w, o->threads, o->scratch);
		} else {
			if (t->content == SYNTH_ROPE_FREQS)
				rope_factors(o->scratch, o->job->shape);
			for (int64_t i = 0; t->content == SYNTH_ONES && i < cols; i++)
				o->scratch[i] = 1;
			synth_convert_row(o->chunk, t->type, o->scratch, cols);
		}
		rc = write_all(o->fd, o->chunk, (size_t)n * row_bytes);
		if (rc)
			return rc;
		o->done += (uint64_t)n * row_bytes;
		if (o->job->progress)
			o->job->progress(NULL, "writing", o->done, o->total);
	}
	return 0;
}

static int write_file(struct out *o, const char *path, struct synth_tensors *t, struct err *e)
{
	static const uint8_t zero[GGUF_ALIGN];
	bool gguf = o->job->format->gguf;
	struct buf head = {0};
	int rc;

	if (gguf)
		gguf_header(&head, o->job, t);
	else
		safetensors_header(&head, t);
	if (head.failed) {
		free(head.p);
		return err_set(e, -ENOMEM, "%s: out of memory: the header does not fit", path);
	}
	rc = write_all(o->fd, head.p, head.n);
	o->total += head.n;
	o->done = head.n;
	free(head.p);
	for (int64_t i = 0; !rc && i < t->n; i++) {
		size_t pad = gguf ? -t->v[i].bytes % GGUF_ALIGN : 0;

		rc = write_tensor(o, &t->v[i], i);
		if (!rc)
			rc = write_all(o->fd, zero, pad);
		o->done += pad;
	}
	if (rc == -EINTR)
		return err_set(e, rc, "%s: interrupted: nothing was written", path);
	if (rc)
		return err_set(e, rc, "%s: %s: free some space or choose another place", path,
			       strerror(-rc));
	return 0;
}

static int write_config(const struct synth_job *job, const char *path, struct err *e)
{
	json_t *c = json_copy((json_t *)job->config);
	const char *type = job->format->matrix == DTYPE_F32   ? "float32"
			   : job->format->matrix == DTYPE_F16 ? "float16"
							      : "bfloat16";
	int rc = -1;

	if (c && !json_object_set_new(c, "torch_dtype", json_string(type)))
		rc = json_dump_file(c, path, JSON_INDENT(2));
	json_decref(c);
	return rc ? err_set(e, -EIO, "%s: cannot be written", path) : 0;
}

int synth_write(const struct synth_job *job, uint64_t *bytes, struct err *e)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct out o = {.job = job, .fd = -1, .threads = job->threads ? job->threads : (int)cpus};
	struct synth_tensors t = {0};
	char path[4096], part[4112];
	struct stat st;
	int64_t widest = 1;
	size_t widest_bytes = 1;
	int rc;

	o.threads = o.threads < 1 ? 1 : o.threads > MAX_THREADS ? MAX_THREADS : o.threads;
	snprintf(path, sizeof(path), job->format->gguf ? "%s" : "%s/model.safetensors", job->out);
	snprintf(part, sizeof(part), "%s.part", path);
	rc = synth_list(&t, job->shape, job->format, job->pure, e);
	if (rc)
		return rc;
	for (int64_t i = 0; i < t.n; i++) {
		int64_t cols = t.v[i].dims[t.v[i].n_dims - 1];
		size_t b = dtype_row_bytes(t.v[i].type, cols);

		o.total += t.v[i].bytes;
		widest = cols > widest ? cols : widest;
		widest_bytes = b > widest_bytes ? b : widest_bytes;
	}
	o.chunk = malloc(widest_bytes > CHUNK_BYTES ? widest_bytes : CHUNK_BYTES);
	o.scratch = malloc((size_t)o.threads * (size_t)widest * sizeof(float));
	if (!o.chunk || !o.scratch) {
		rc = err_set(e, -ENOMEM, "synth: out of memory: the chunk buffers do not fit");
		goto out;
	}
	if (!job->format->gguf && mkdir(job->out, 0777) && errno != EEXIST) {
		rc = err_set(e, -errno, "%s: %s", job->out, strerror(errno));
		goto out;
	}
	/* rename() would put a file in a device's place. */
	if (!stat(path, &st) && !S_ISREG(st.st_mode)) {
		rc = err_set(e, -EINVAL, "%s: not a regular file: choose another place", path);
		goto out;
	}
	o.fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (o.fd < 0) {
		rc = err_set(e, -errno, "%s: %s", part, strerror(errno));
		goto out;
	}
	rc = write_file(&o, path, &t, e);
	if (close(o.fd) && !rc)
		rc = err_set(e, -errno, "%s: %s", path, strerror(errno));
	if (!rc && !job->format->gguf) {
		char config[4200];

		snprintf(config, sizeof(config), "%s/config.json", job->out);
		rc = write_config(job, config, e);
	}
	if (!rc && rename(part, path))
		rc = err_set(e, -errno, "%s: %s", path, strerror(errno));
	if (rc)
		unlink(part);
	*bytes = o.done;
out:
	free(o.chunk);
	free(o.scratch);
	free(t.v);
	return rc;
}
