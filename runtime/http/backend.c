// SPDX-License-Identifier: MIT
/* backend.h. Owns the prober's thread; the lock guards its queue and its answers. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "http/backend.h"
#include "lib/llmdev.h"

#define ASK_MS	   1000
#define STACK_SIZE (256 << 10)

/* ---- names ----------------------------------------------------------------------------------- */

void backend_clear(struct backend *b)
{
	for (int i = 0; i < b->n_names; i++)
		free(b->names[i]);
	free((char *)b->path);
	*b = (struct backend){0};
}

static int add_name(struct backend *b, const char *name, size_t n, struct err *e)
{
	if (!n)
		return err_set(e, -EINVAL, "an empty name");
	if (b->n_names == NAMES_MAX)
		return err_set(e, -E2BIG, "more than %d names", NAMES_MAX);
	b->names[b->n_names] = strndup(name, n);
	if (!b->names[b->n_names])
		return err_set(e, -ENOMEM, "no memory");
	b->n_names++;
	return 0;
}

int backend_parse(struct backend *b, const char *option, struct err *e)
{
	const char *eq = strchr(option, '='), *s;
	int rc;

	if (!eq || eq == option || !eq[1])
		return err_set(e, -EINVAL, "--model: `%s`: give NAME=PATH[,ALIAS...]", option);
	rc = add_name(b, option, (size_t)(eq - option), e);
	s = eq + 1 + strcspn(eq + 1, ",");
	b->path = strndup(eq + 1, (size_t)(s - eq - 1));
	if (!b->path)
		rc = err_set(e, -ENOMEM, "no memory");
	else if (s - eq - 1 >= LLMDEV_PATH_MAX)
		rc = err_set(e, -ENAMETOOLONG, "its path is longer than %d bytes",
			     LLMDEV_PATH_MAX - 1);
	while (!rc && *s == ',') {
		size_t n = strcspn(++s, ",");

		rc = add_name(b, s, n, e);
		s += n;
	}
	return rc ? err_prefix(e, rc, "--model: `%s`", option) : 0;
}

const char *backend_name(const struct backend *b)
{
	return b->n_names ? b->names[0] : b->model;
}

bool backend_has_name(const struct backend *b, const char *name)
{
	for (int i = 0; i < b->n_names; i++) {
		if (!strcmp(b->names[i], name))
			return true;
	}
	return !b->n_names && b->known && !strcmp(b->model, name);
}

/* ---- the prober ------------------------------------------------------------------------------ */

struct answer {
	bool asked, answered; /* in the queue, in the other direction */
	bool up, has_status;
	struct llm_query query; /* a device's */
	struct llm_status status;
};

struct prober {
	struct source source; /* the eventfd that says that there are answers */
	struct loop *loop;
	struct backend *list;
	int n;
	void (*told)(void *ctx, struct backend *b);
	void *ctx;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t work;
	bool stop;
	struct answer *answers; /* [n] */
};

/* In the prober's thread, without the lock. */
static void ask(const char *path, struct answer *a)
{
	struct llmdev_options o = {.path = path, .recovery_ms = -1};
	struct llmdev *d;

	a->up = a->has_status = false;
	if (llmdev_open(&d, &o, NULL, 0))
		return;
	if (llmdev_status(d, &a->status, NULL, 0, ASK_MS) >= 0)
		a->up = a->has_status = true;
	else
		a->up = !llmdev_query(d, &a->query, ASK_MS);
	llmdev_close(d);
}

static void *prober_main(void *ctx)
{
	struct prober *p = ctx;
	uint64_t one = 1;
	struct answer a;
	int i;

	pthread_mutex_lock(&p->lock);
	while (!p->stop) {
		for (i = 0; i < p->n && !p->answers[i].asked; i++)
			;
		if (i == p->n) {
			pthread_cond_wait(&p->work, &p->lock);
			continue;
		}
		p->answers[i].asked = false;
		pthread_mutex_unlock(&p->lock);
		memset(&a, 0, sizeof(a));
		ask(p->list[i].path, &a);
		pthread_mutex_lock(&p->lock);
		a.answered = true;
		a.asked = p->answers[i].asked;
		p->answers[i] = a;
		if (write(p->source.fd, &one, sizeof(one)) < 0)
			break; /* cannot be: it is never full */
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

static void take(struct backend *b, const struct answer *a)
{
	b->asking = false;
	b->asked_ns = loop_now_ns();
	b->up = a->up;
	b->has_status = a->has_status;
	if (!a->up)
		return;
	b->known = true;
	b->status = a->status;
	b->context = a->has_status ? a->status.context : a->query.context;
	b->fingerprint = a->has_status ? a->status.fingerprint : a->query.fingerprint;
	memcpy(b->model, a->has_status ? a->status.model : a->query.model, sizeof(b->model));
	b->model[LLM_NAME_MAX - 1] = '\0';
}

static void have_answers(struct source *s, uint32_t events)
{
	struct prober *p = (struct prober *)s;
	struct answer a;
	uint64_t count;

	if (read(s->fd, &count, sizeof(count)) < 0)
		return;
	for (int i = 0; i < p->n; i++) {
		pthread_mutex_lock(&p->lock);
		a = p->answers[i];
		p->answers[i].answered = false;
		pthread_mutex_unlock(&p->lock);
		if (!a.answered)
			continue;
		take(&p->list[i], &a);
		p->told(p->ctx, &p->list[i]);
	}
}

struct prober *prober_start(struct loop *l, struct backend *list, int n,
			    void (*told)(void *ctx, struct backend *b), void *ctx, struct err *e)
{
	struct prober *p = calloc(1, sizeof(*p));
	struct answer *answers = calloc((size_t)n, sizeof(*answers));
	pthread_attr_t attr;
	int rc = -ENOMEM;

	if (!p || !answers)
		goto fail;
	*p = (struct prober){.source = {.ready = have_answers},
			     .loop = l,
			     .list = list,
			     .n = n,
			     .told = told,
			     .ctx = ctx,
			     .answers = answers};
	p->source.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->source.fd < 0) {
		rc = -errno;
		goto fail;
	}
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->work, NULL);
	rc = loop_watch(l, &p->source, EPOLLIN);
	if (!rc) {
		pthread_attr_init(&attr);
		pthread_attr_setstacksize(&attr, STACK_SIZE);
		rc = -pthread_create(&p->thread, &attr, prober_main, p);
		pthread_attr_destroy(&attr);
	}
	if (!rc)
		return p;
	loop_unwatch(l, &p->source);
	close(p->source.fd);
	pthread_cond_destroy(&p->work);
	pthread_mutex_destroy(&p->lock);
fail:
	free(answers);
	free(p);
	err_set(e, rc, "the thread that asks daemons for their state: %s", strerror(-rc));
	return NULL;
}

void prober_ask(struct prober *p, struct backend *b)
{
	if (b->asking)
		return;
	b->asking = true;
	pthread_mutex_lock(&p->lock);
	p->answers[b - p->list].asked = true;
	pthread_cond_signal(&p->work);
	pthread_mutex_unlock(&p->lock);
}

void prober_stop(struct prober *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_signal(&p->work);
	pthread_mutex_unlock(&p->lock);
	pthread_join(p->thread, NULL);
	loop_unwatch(p->loop, &p->source);
	close(p->source.fd);
	pthread_cond_destroy(&p->work);
	pthread_mutex_destroy(&p->lock);
	free(p->answers);
	free(p);
}
