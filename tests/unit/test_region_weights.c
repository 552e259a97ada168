// SPDX-License-Identifier: MIT
/*
 * Weights in regions: the same logits as from anonymous memory, nothing read when they are found, and
 * never those of another checkpoint, whatever a region claims to hold.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/engine.h"
#include "engine/engine_options.h"
#include "memory/region.h"
#include "tests/tap.h"
#include "tests/unit/tiny_model.h"
#include "tests/unit/with_keeper.h"
#include "weights/region_index.h"
#include "weights/region_load.h"

#define VOCAB 300

static char notes[4096];

static void take_note(void *ctx, const char *line)
{
	size_t n = strlen(notes);

	snprintf(notes + n, sizeof(notes) - n, "%s\n", line);
}

struct outcome {
	float logits[3 * VOCAB];
	uint64_t bytes_read, fingerprint;
	char placement[160];
	int rc;
	struct err e;
};

static struct engine *start(const char *model, enum weights_mode mode, const char *backend,
			    bool verify, struct err *e)
{
	struct engine *en = NULL;
	struct engine_opts o;

	engine_options_default(&o);
	o.model = model;
	o.backend = backend;
	o.threads = 1;
	o.ctx = 128;
	o.weights = mode;
	o.verify_weights = verify;
	o.note = take_note;
	notes[0] = '\0';
	return engine_open(&en, &o, e) ? NULL : en;
}

static void run(struct outcome *out, const char *model, enum weights_mode mode, const char *backend,
		bool verify)
{
	static const int32_t ids[] = {5, 17, 200, 3, 99, 250, 1, 8}, at[] = {0, 4, 7};
	struct engine *en;

	memset(out, 0, sizeof(*out));
	en = start(model, mode, backend, verify, &out->e);
	if (!en) {
		out->rc = -1;
		return;
	}
	out->rc = engine_logits(en, ids, 8, at, 3, out->logits, &out->e);
	out->bytes_read = engine_info(en)->load.bytes_read;
	out->fingerprint = engine_info(en)->fingerprint;
	snprintf(out->placement, sizeof(out->placement), "%s", engine_info(en)->placement);
	engine_close(en);
}

static bool same(const struct outcome *a, const struct outcome *b)
{
	return !a->rc && !b->rc && !memcmp(a->logits, b->logits, sizeof(a->logits)) &&
	       a->fingerprint == b->fingerprint;
}

/* The first line of them. */
static const char *noted(void)
{
	static char line[120];

	snprintf(line, sizeof(line), "%.*s", (int)strcspn(notes, "\n"), notes);
	return line;
}

static struct region_store store(void)
{
	struct region_store s;

	if (region_store_open(&s, REGION_KEEPER, false, NULL))
		exit(1);
	return s;
}

/* How many regions there are; *only: the last one's facts. */
static size_t regions(struct region_fact *only)
{
	struct region_store s = store();
	struct region_fact *v;
	size_t n = 999;

	if (!region_list(&s, &v, &n, NULL)) {
		if (n && only)
			*only = v[n - 1];
		free(v);
	}
	region_store_close(&s);
	return n;
}

static void forget_all(void)
{
	struct region_store s = store();
	struct region_fact *v;
	size_t n;

	if (!region_list(&s, &v, &n, NULL)) {
		for (size_t i = 0; i < n; i++)
			region_destroy(&s, v[i].name, NULL);
		free(v);
	}
	region_store_close(&s);
}

static void found_again(const char *model, const char *backend)
{
	struct outcome anon, first, second, third;
	struct region_fact f;

	forget_all();
	run(&anon, model, WEIGHTS_ANON, backend, false);
	run(&first, model, WEIGHTS_REGION, backend, false);
	run(&second, model, WEIGHTS_REGION, backend, false);
	run(&third, model, WEIGHTS_REGION, backend, true);
	CHECK(same(&anon, &first), "%s: loaded into a region: the same logits, bit for bit",
	      backend);
	CHECK(same(&anon, &second), "%s: found in it, too", backend);
	CHECK(same(&anon, &third), "%s: and when it is summed up", backend);
	CHECK(first.bytes_read > 0 && !second.bytes_read && !third.bytes_read,
	      "read once: %llu bytes, then %llu", (unsigned long long)first.bytes_read,
	      (unsigned long long)second.bytes_read);
	CHECK(regions(&f) == 1 && f.sealed && !f.users, "one region, that nobody uses now");
	CHECK(strstr(second.placement, f.name) && !strcmp(anon.placement, "anonymous memory"),
	      "says where: %s", second.placement);
}

/* Writes one byte into the weights' file, or what stood there before. */
static uint8_t poke(const char *model, off_t at, uint8_t byte)
{
	char name[192];
	uint8_t old = 0;
	int fd;

	snprintf(name, sizeof(name), "%s/model.safetensors", model);
	fd = open(name, O_RDWR);
	if (fd < 0 || pread(fd, &old, 1, at) != 1 || pwrite(fd, &byte, 1, at) != 1)
		perror(name);
	close(fd);
	return old;
}

static void changed(const char *model)
{
	struct outcome before, after, anon, back;
	char name[192];
	struct stat st;
	uint8_t old;
	off_t at;

	forget_all();
	snprintf(name, sizeof(name), "%s/model.safetensors", model);
	stat(name, &st);
	at = st.st_size - 4 * 32 - 1;
	run(&before, model, WEIGHTS_REGION, "ref", false);
	old = poke(model, at, 0x3f);
	run(&after, model, WEIGHTS_REGION, "ref", false);
	run(&anon, model, WEIGHTS_ANON, "ref", false);
	CHECK(after.bytes_read && same(&after, &anon), "one byte changed: loaded again");
	CHECK(!same(&before, &after), "which makes a difference");
	CHECK(regions(NULL) == 1, "the old one is gone");
	poke(model, at, old);
	run(&back, model, WEIGHTS_REGION, "ref", false);
	CHECK(back.bytes_read && same(&back, &before), "changed back: loaded again");
	utimensat(AT_FDCWD, name, (struct timespec[2]){st.st_atim, st.st_mtim}, 0);
	run(&back, model, WEIGHTS_REGION, "ref", false);
	CHECK(back.bytes_read > 0, "a time that was set back does not deceive it");
}

/* Two models with equal headers, as fine-tunes have. */
static void siblings(const char *model)
{
	char other[128], command[400];
	struct outcome a, b, a2, b2;

	forget_all();
	snprintf(other, sizeof(other), "%s-b", model);
	snprintf(command, sizeof(command), "cp -r '%s' '%s'", model, other);
	if (system(command))
		return;
	poke(other, 4000, 0x3f);
	run(&a, model, WEIGHTS_REGION, "ref", false);
	run(&b, other, WEIGHTS_REGION, "ref", false);
	CHECK(regions(NULL) == 2 && !same(&a, &b), "equal headers, two regions");
	run(&a2, model, WEIGHTS_REGION, "ref", false);
	run(&b2, other, WEIGHTS_REGION, "ref", false);
	CHECK(same(&a, &a2) && same(&b, &b2) && !a2.bytes_read && !b2.bytes_read,
	      "each finds its own");
	run(&a, model, WEIGHTS_REGION, "cpu", false);
	CHECK(!a.rc && a.bytes_read && regions(NULL) == 3, "another layout: a region of its own");
	snprintf(command, sizeof(command), "rm -r '%s'", other);
	if (system(command))
		perror(command);
}

static void shared(const char *model)
{
	struct engine *a, *b;
	struct region_fact f;
	struct err e;
	int loaded = 0, good = 0, status;
	pid_t pid[4];

	forget_all();
	a = start(model, WEIGHTS_REGION, "ref", false, &e);
	b = start(model, WEIGHTS_REGION, "ref", false, &e);
	CHECK(a && b && regions(&f) == 1 && f.users == 2, "two engines share one region");
	engine_close(a);
	engine_close(b);
	forget_all();
	for (int i = 0; i < 4; i++) {
		pid[i] = fork();
		if (!pid[i]) {
			struct outcome o;

			run(&o, model, WEIGHTS_REGION, "ref", false);
			_exit(o.rc ? 9 : o.bytes_read ? 1 : 0);
		}
	}
	for (int i = 0; i < 4 && waitpid(pid[i], &status, 0) > 0; i++) {
		loaded += WEXITSTATUS(status) == 1;
		good += WIFEXITED(status) && WEXITSTATUS(status) < 2;
	}
	CHECK(good == 4 && loaded == 1, "four at once: %d are there, %d has loaded", good, loaded);
}

/* Destroys the only region and puts another one of its name there. */
static void replace(const void *data, size_t bytes)
{
	struct region_fact f;
	struct region_store s = store();
	struct region r;
	struct err e = {""};

	regions(&f);
	if (region_destroy(&s, f.name, &e) || region_create(&s, f.name, bytes, -1, &r, &e))
		exit(CHECK(false, "%s", e.msg));
	memcpy(r.base, data, bytes);
	if (region_seal(&s, &r, &e))
		exit(CHECK(false, "%s", e.msg));
	region_close(&s, &r);
	region_store_close(&s);
}

/* A copy of the only region, malloc'ed. */
static uint8_t *copy_region(size_t *bytes)
{
	struct region_store s = store();
	struct region_fact f;
	struct region r;
	uint8_t *copy;

	regions(&f);
	if (region_open(&s, f.name, false, &r, NULL))
		exit(1);
	copy = malloc(r.bytes);
	if (!copy)
		exit(1);
	memcpy(copy, r.base, r.bytes);
	*bytes = r.bytes;
	region_close(&s, &r);
	region_store_close(&s);
	return copy;
}

static void reseal(uint8_t *region)
{
	struct region_head *h = (struct region_head *)region;

	h->head_sum = region_index_sum(region, h->index_bytes);
}

/* What stands in the region of the right name is not what it should be. */
static void impostors(const char *model)
{
	struct outcome good, o;
	struct region_head *h;
	struct region_tensor *t;
	uint8_t *copy, *bad;
	size_t bytes;

	forget_all();
	run(&good, model, WEIGHTS_REGION, "ref", false);
	copy = copy_region(&bytes);
	bad = malloc(bytes);
	h = (struct region_head *)bad;
	t = (struct region_tensor *)(bad + sizeof(*h));
#define IMPOSTOR(what, change)                                                                     \
	do {                                                                                       \
		memcpy(bad, copy, bytes);                                                          \
		change;                                                                            \
		replace(bad, bytes);                                                               \
		run(&o, model, WEIGHTS_REGION, "ref", false);                                      \
		CHECK(same(&good, &o) && o.bytes_read && strstr(notes, "not used"), "%s: %s",      \
		      what, noted());                                                              \
	} while (0)
	IMPOSTOR("zeroes", memset(bad, 0, bytes));
	IMPOSTOR("a bit of the index", bad[700] ^= 1);
	IMPOSTOR("another stamp", (h->stamp ^= 1, reseal(bad)));
	IMPOSTOR("another identity", (h->identity ^= 1, reseal(bad)));
	IMPOSTOR("another backend", (h->backend[0] ^= 1, reseal(bad)));
	IMPOSTOR("a tensor elsewhere", (t[3].offset += 256, reseal(bad)));
	IMPOSTOR("another layout", (t[2].layout ^= 1, reseal(bad)));
	IMPOSTOR("data elsewhere", (h->data_at += 4096, h->data_bytes -= 4096, reseal(bad)));
	memcpy(bad, copy, bytes);
	replace(bad, 4096);
	run(&o, model, WEIGHTS_REGION, "ref", false);
	CHECK(same(&good, &o) && o.bytes_read, "cut short: %s", noted());
	memcpy(bad, copy, bytes);
	bad[h->data_at + 4000] ^= 0x40;
	replace(bad, bytes);
	run(&o, model, WEIGHTS_REGION, "ref", true);
	CHECK(same(&good, &o) && o.bytes_read && strstr(notes, "sum"), "damaged data: %s", noted());
	memcpy(bad, copy, bytes);
	replace(bad, bytes);
	run(&o, model, WEIGHTS_REGION, "ref", true);
	CHECK(same(&good, &o) && !o.bytes_read, "an honest copy is as good");
	free(copy);
	free(bad);
}

/* The reader of indexes against whatever may stand there: nothing outside is touched. */
static void fuzz(const char *model)
{
	uint8_t *copy, *bad;
	size_t bytes, head;
	struct region_index x;
	int taken = 0, rounds = 40000;
	volatile size_t sink = 0;
	unsigned rnd = 12345;
	struct err e;

	forget_all();
	run(&(struct outcome){0}, model, WEIGHTS_REGION, "ref", false);
	copy = copy_region(&bytes);
	head = ((struct region_head *)copy)->index_bytes;
	CHECK(!region_index_read(&x, copy, bytes, &e) && x.head->n_tensors > 10, "a good one");
	for (size_t n = 0; n < head + 64; n += n < 300 ? 1 : 37) {
		bad = malloc(n ? n : 1);
		memcpy(bad, copy, n);
		taken += !region_index_read(&x, bad, n, &e);
		free(bad);
	}
	CHECK(!taken, "any beginning of it: refused");
	bad = malloc(bytes);
	for (int i = 0; i < rounds; i++) {
		int changes = 1 + (int)(rand_r(&rnd) % 4);

		memcpy(bad, copy, head);
		while (changes--) {
			/* Mostly in the head, where everything depends on it; often extreme values. */
			size_t at = rand_r(&rnd) % (rand_r(&rnd) % 3 ? 136 : head);
			int kind = rand_r(&rnd) % 4;
			uint64_t v = kind == 0 ? ~0ull : kind == 1 ? bytes - at : rand_r(&rnd);

			memcpy(bad + at, &v, kind == 3 ? 1 : at + 8 <= head ? 8 : 1);
		}
		if (((struct region_head *)bad)->index_bytes <= bytes &&
		    ((struct region_head *)bad)->index_bytes >= sizeof(struct region_head))
			reseal(bad);
		if (region_index_read(&x, bad, bytes, &e))
			continue;
		taken++;
		/* Everything that a caller touches. */
		for (int t = 0; t < (int)x.head->n_tensors; t++) {
			const struct region_tensor *r = &x.tensor[t];

			sink += strlen(region_index_name(&x, t));
			if (r->bytes)
				sink += ((uint8_t *)bad +
					 x.head->data_at)[r->offset + r->bytes - 1];
		}
		sink += strlen(x.label) + strlen(x.path);
	}
	CHECK(taken < rounds && sink + 1, "%d changed ones: %d harmless", rounds, taken);
	free(bad);
	free(copy);
}

static void without(const char *model)
{
	struct outcome o;

	run(&o, model, WEIGHTS_AUTO, "ref", false);
	CHECK(!o.rc && !strcmp(o.placement, "anonymous memory") && strstr(notes, "under 256 MiB"),
	      "auto: %s", noted());
	keeper_end(SIGTERM);
	setenv("NOTIFY_SOCKET", "@nobody", 1);
	run(&o, model, WEIGHTS_REGION, "ref", false);
	CHECK(o.rc && strstr(o.e.msg, "llmdev-keeper"), "no keeper: %s", o.e.msg);
	unsetenv("NOTIFY_SOCKET");
}

int main(void)
{
	struct tiny_model t;
	char lock[160];

	if (!tiny_model_make(&t, VOCAB, NULL))
		return 1;
	if (!access(REGION_CONTROL, F_OK)) {
		tap_skip("a kernel module would be used here: see tests/vm");
		return tap_done();
	}
	keeper_place(t.dir);
	keeper_begin(true);
	found_again(t.path, "ref");
	found_again(t.path, "cpu");
	changed(t.path);
	siblings(t.path);
	shared(t.path);
	impostors(t.path);
	fuzz(t.path);
	without(t.path);
	unlink(keeper_path);
	snprintf(lock, sizeof(lock), "%s.lock", keeper_path);
	unlink(lock);
	*strrchr(lock, '/') = '\0';
	rmdir(lock);
	tiny_model_remove(&t);
	return tap_done();
}
