// SPDX-License-Identifier: MIT
/*
 * Random commands with nearly right arguments on files of every kind, from two processes at once
 * that know each other's devices, regions and requests. Nothing is expected of the answers: that the
 * kernel says nothing, that the machine still works afterwards, and that the module can be unloaded
 * (init.c), is the test.
 *
 * FUZZ_SECONDS: how long, 20 by default. FUZZ_SEED: begin with this seed; else the clock says.
 */
#include <sys/mman.h>

#include "tests/vm/vm.h"

#define FILES	   24
#define NAMES	   3
#define PAGE	   4096u
#define ARENA	   (64 * PAGE)
#define HUGE_BYTES (2u << 20)

/* A process: its files, and memory that pointers may go to; what follows the arena is not mapped. */
struct fuzzer {
	uint32_t state;
	int fd[FILES], n;
	unsigned char *arena;
	uint64_t asked; /* the last request that a backend file of ours told of */
	uint64_t commands, good;
};

static uint32_t rnd(struct fuzzer *f)
{
	f->state ^= f->state << 13;
	f->state ^= f->state >> 17;
	return f->state ^= f->state << 5;
}

static bool one_in(struct fuzzer *f, uint32_t n)
{
	return (rnd(f) >> 8) % n == 0;
}

/* Less than n; small ones more often. */
static uint64_t small(struct fuzzer *f, uint32_t n)
{
	return (rnd(f) >> 8) % (1 + (rnd(f) >> 8) % n);
}

static uint64_t odd_value(struct fuzzer *f)
{
	static const uint64_t odd[] = {0,	   1,	       2,	   3,	       7,
				       8,	   16,	       64,	   255,	       4095,
				       4096,	   HUGE_BYTES, 0x7fffffff, 0x80000000, 0xffffffff,
				       1ull << 32, 1ull << 46, 1ull << 63, ~0ull};

	return one_in(f, 4) ? (uint64_t)rnd(f) << 8
			    : odd[(rnd(f) >> 8) % (sizeof(odd) / sizeof(odd[0]))];
}

static void name_of(struct fuzzer *f, uint8_t *name)
{
	name[0] = (uint8_t)('a' + (rnd(f) >> 8) % NAMES);
}

static uint64_t address(struct fuzzer *f)
{
	if (one_in(f, 20))
		return odd_value(f);
	return (uintptr_t)f->arena +
	       (one_in(f, 8) ? ARENA - (rnd(f) >> 8) % 256 : (rnd(f) >> 8) % ARENA);
}

static void keep(struct fuzzer *f, int fd)
{
	if (fd < 0)
		return;
	fcntl(fd, F_SETFL, O_NONBLOCK);
	if (f->n < FILES)
		f->fd[f->n++] = fd;
	else
		close(fd);
}

/* ---- arguments that may pass --------------------------------------------------------------------------- */

/* Event records to the arena's beginning; their bytes. */
static uint32_t events(struct fuzzer *f, uint32_t count)
{
	uint64_t id = one_in(f, 2) ? f->asked : 1 + small(f, 64), seq = small(f, 3);
	uint32_t at = 0;

	for (uint32_t i = 0; i < count && at + 1024 < ARENA; i++) {
		struct llm_event *ev = (void *)(f->arena + at);
		uint32_t text = (uint32_t)small(f, 300);

		memset(ev, 0, 1024);
		ev->type = seq || one_in(f, 4) ? 1 + (rnd(f) >> 8) % 6 : LLM_EVENT_STARTED;
		ev->request_id = id;
		ev->seq = seq++;
		switch (ev->type) {
		case LLM_EVENT_STARTED: {
			struct llm_resume *r = (void *)(ev + 1);

			r->size = ev->length = sizeof(*r);
			r->flags = (uint32_t)small(f, 4);
			r->fingerprint = FINGERPRINT;
			break;
		}
		case LLM_EVENT_PROGRESS:
			ev->length = sizeof(struct llm_progress);
			break;
		case LLM_EVENT_DONE: {
			struct llm_done *d = (void *)(ev + 1);

			d->finish = 1 + (rnd(f) >> 8) % 3;
			d->n_bytes = text;
			ev->length = sizeof(*d) + text;
			break;
		}
		case LLM_EVENT_ERROR: {
			struct llm_error *e = (void *)(ev + 1);

			e->error = 1 + (int32_t)small(f, 600);
			e->n_bytes = text;
			ev->length = sizeof(*e) + text;
			break;
		}
		default: {
			struct llm_text *t = (void *)(ev + 1);

			t->n_ids = (uint32_t)small(f, 5);
			t->n_bytes = text;
			t->subtype = ev->type == LLM_EVENT_DATA ? 1 : 0;
			ev->length = sizeof(*t) + 4 * t->n_ids + text;
		}
		}
		ev->size = (uint32_t)sizeof(*ev) + (ev->length + 7) / 8 * 8;
		at += ev->size;
		if (one_in(f, 12))
			memcpy(f->arena + at - 8 * (1 + small(f, 4)), &(uint64_t){odd_value(f)}, 8);
	}
	return at;
}

static uint32_t generation(struct fuzzer *f, int fd)
{
	struct llm_query q = {.size = sizeof(q)};

	return one_in(f, 8) || ioctl(fd, LLM_IOC_QUERY, &q) ? (uint32_t)small(f, 8) : q.generation;
}

/* Fills *arg for cmd of fd as a careful caller would; its size. */
static uint32_t fill(struct fuzzer *f, int fd, unsigned int cmd, void *arg)
{
	switch (cmd) {
	case LLM_IOC_DEVICE_CREATE: {
		struct llm_device_create *c = arg;

		*c = (struct llm_device_create){.fingerprint = FINGERPRINT,
						.context = 1 + small(f, 4096),
						.recovery_ms = 50 + small(f, 400),
						.max_request_ms = small(f, 200)};
		name_of(f, c->name);
		return sizeof(*c);
	}
	case LLM_IOC_DEVICE_ATTACH: {
		struct llm_device_attach *a = arg;

		*a = (struct llm_device_attach){.fingerprint = FINGERPRINT + one_in(f, 8),
						.context = 1 + small(f, 4096)};
		name_of(f, a->name);
		return sizeof(*a);
	}
	case LLM_IOC_DEVICE_DESTROY:
	case LLM_IOC_DEVICE_QUIESCE: {
		struct llm_device_name *n = arg;

		name_of(f, n->name);
		return sizeof(*n);
	}
	case LLM_IOC_SET_MODE:
		((struct llm_set_mode *)arg)->mode = (rnd(f) >> 8) % 2;
		return sizeof(struct llm_set_mode);
	case LLM_IOC_SUBMIT: {
		struct llm_submit *s = arg;

		*s = (struct llm_submit){.payload = (uintptr_t)f->arena,
					 .payload_len = 1 + small(f, 9000),
					 .format = 1 + (rnd(f) >> 8) % 2,
					 .max_tokens = small(f, 100),
					 .priority = (int32_t)small(f, 40) - 20};
		if (one_in(f, 4))
			s->deadline_ns = now_ns() + (uint64_t)small(f, 50) * 1000000;
		if (one_in(f, 4)) {
			s->principal = (uintptr_t)f->arena;
			s->principal_len = 1 + small(f, 4);
		}
		return sizeof(*s);
	}
	case LLM_IOC_CANCEL:
		((struct llm_cancel *)arg)->request_id = 1 + small(f, 64);
		return sizeof(struct llm_cancel);
	case LLM_IOC_POST: {
		struct llm_post *p = arg;

		*p = (struct llm_post){.generation = generation(f, fd), .count = 1 + small(f, 8)};
		p->events_len = events(f, p->count);
		p->events = (uintptr_t)f->arena;
		p->results = (uintptr_t)f->arena + ARENA / 2;
		return sizeof(*p);
	}
	case LLM_IOC_REGION_CREATE: {
		struct llm_region_create *c = arg;
		bool huge = one_in(f, 2);

		*c = (struct llm_region_create){.bytes = (1 + small(f, 3)) *
							 (huge ? HUGE_BYTES : PAGE),
						.flags =
							(one_in(f, 2) ? LLM_REGION_PERSISTENT : 0) |
							(huge ? LLM_REGION_HUGE : 0),
						.node = -(int)one_in(f, 2)};
		name_of(f, c->name);
		return sizeof(*c);
	}
	case LLM_IOC_REGION_OPEN: {
		struct llm_region_open *o = arg;

		o->flags = (uint32_t)small(f, 4);
		name_of(f, o->name);
		return sizeof(*o);
	}
	case LLM_IOC_REGION_DESTROY:
		name_of(f, ((struct llm_region_name *)arg)->name);
		return sizeof(struct llm_region_name);
	case LLM_IOC_REGION_LIST: {
		struct llm_region_list *l = arg;

		l->regions = (uintptr_t)f->arena;
		l->count = (uint32_t)small(f, 257);
		l->after = small(f, 8);
		return sizeof(*l);
	}
	case LLM_IOC_REGION_SEAL:
		return sizeof(struct llm_region_seal);
	case LLM_IOC_REGION_INFO:
		return sizeof(struct llm_region_info);
	case LLM_IOC_MEM_FLOORS: {
		struct llm_mem_floors *m = arg;

		m->free = (uint64_t)small(f, 600) << 20;
		m->blocks = small(f, 300);
		return sizeof(*m);
	}
	case LLM_IOC_MEM_RESERVE:
		((struct llm_mem_reserve *)arg)->bytes = (uint64_t)small(f, 30) * HUGE_BYTES;
		return sizeof(struct llm_mem_reserve);
	case LLM_IOC_MEM_MAKE_ROOM: {
		struct llm_mem_make_room *m = arg;

		m->free = (uint64_t)small(f, 300) << 20;
		m->blocks = small(f, 100);
		m->max_bytes = (uint64_t)small(f, 16) * HUGE_BYTES;
		m->deadline_ns = now_ns() + 50000000;
		return sizeof(*m);
	}
	case LLM_IOC_CACHE_DROP: {
		struct llm_cache_drop *c = arg;

		c->fd = f->fd[(rnd(f) >> 8) % (uint32_t)f->n];
		c->flags = (uint32_t)small(f, 2);
		c->deadline_ns = now_ns() + 50000000;
		return sizeof(*c);
	}
	case LLM_IOC_MEM_STATUS:
		return sizeof(struct llm_mem_status);
	}
	return sizeof(struct llm_query);
}

/* ---- calls --------------------------------------------------------------------------------------------- */

static void command(struct fuzzer *f, int fd)
{
	static const unsigned char nr[] = {0x00, 0x01, 0x02, 0x03, 0x10, 0x11, 0x12, 0x13,
					   0x20, 0x20, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35,
					   0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x02, 0x02, 0x7f};
	unsigned int cmd = _IO(LLM_IOC_MAGIC, nr[(rnd(f) >> 8) % sizeof(nr)]);
	uint64_t arg[128] = {0};
	uint32_t size;
	int rc;

	if (_IOC_NR(cmd) >= 0x10 && cmd != LLM_IOC_POST && one_in(f, 2))
		fd = f->fd[0];
	size = fill(f, fd, cmd, arg);
	memcpy(arg, &size, sizeof(size));
	while (one_in(f, 3)) /* something wrong with it */
		arg[(rnd(f) >> 8) % (1 + size / 8)] = one_in(f, 2) ? odd_value(f) : address(f);
	rc = ioctl(fd, cmd, one_in(f, 50) ? (void *)(uintptr_t)address(f) : arg);
	f->good += !rc;
	if (rc)
		return;
	switch (cmd) {
	case LLM_IOC_DEVICE_CREATE:
		keep(f, ((struct llm_device_create *)arg)->backend_fd);
		break;
	case LLM_IOC_DEVICE_ATTACH:
		keep(f, ((struct llm_device_attach *)arg)->backend_fd);
		break;
	case LLM_IOC_REGION_CREATE:
		keep(f, ((struct llm_region_create *)arg)->fd);
		break;
	case LLM_IOC_REGION_OPEN:
		keep(f, ((struct llm_region_open *)arg)->fd);
		break;
	}
}

static void use_mapping(struct fuzzer *f, int fd)
{
	size_t len = (1 + small(f, 3)) * PAGE;
	int prot = one_in(f, 2) ? PROT_READ : PROT_READ | PROT_WRITE;
	char *p = mmap(NULL, len, prot, MAP_SHARED, fd, (off_t)small(f, 4) * PAGE);

	if (p == MAP_FAILED)
		return;
	if (one_in(f, 4))
		madvise(p, len, (int)small(f, 26));
	if (one_in(f, 4))
		mprotect(p, len, PROT_READ);
	write(f->fd[(rnd(f) >> 8) % (uint32_t)f->n], p, len); /* not by hand: a hole is SIGBUS */
	munmap(p, len);
}

static void read_some(struct fuzzer *f, int fd)
{
	const struct llm_msg *m = (void *)f->arena;
	ssize_t n;

	if (one_in(f, 2)) {
		read(fd, (void *)(uintptr_t)address(f), odd_value(f));
		return;
	}
	n = read(fd, f->arena, ARENA);
	if (n >= (ssize_t)sizeof(*m) && m->size == n && m->type == LLM_MSG_SUBMIT)
		f->asked = m->request_id;
}

/* The first file is always a control file; what belongs to it goes with its close. */
static void close_one(struct fuzzer *f)
{
	int i = (int)((rnd(f) >> 8) % (uint32_t)f->n);

	close(f->fd[i]);
	if (i)
		f->fd[i] = f->fd[--f->n];
	else
		f->fd[0] = open(CONTROL, O_RDWR | O_NONBLOCK | O_CLOEXEC);
}

static void open_one(struct fuzzer *f)
{
	char node[24];

	snprintf(node, sizeof(node), "/dev/llm%u", (rnd(f) >> 8) % (NAMES + 1));
	keep(f, open(node, O_RDWR | O_NONBLOCK | O_CLOEXEC));
}

static void one_call(struct fuzzer *f)
{
	int fd = f->fd[(rnd(f) >> 8) % (uint32_t)f->n];
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT | POLLPRI};

	f->commands++;
	switch ((rnd(f) >> 8) % 24) {
	case 0:
	case 1:
	case 2:
		read_some(f, fd);
		break;
	case 3:
		write(fd, (void *)(uintptr_t)address(f), small(f, 6000));
		break;
	case 4:
		poll(&p, 1, 0);
		break;
	case 5:
		close_one(f);
		break;
	case 6:
	case 7:
	case 8:
		open_one(f);
		break;
	case 9:
		use_mapping(f, fd);
		break;
	default:
		command(f, fd);
	}
}

static int fuzz(uint32_t seed, int seconds, int number)
{
	uint64_t end = now_ns() + (uint64_t)seconds * 1000000000ull;
	struct fuzzer f = {.state = seed ? seed : 1};

	f.arena = mmap(NULL, ARENA + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);
	munmap(f.arena + ARENA, PAGE);
	keep(&f, open(CONTROL, O_RDWR | O_NONBLOCK | O_CLOEXEC));
	while (f.n && now_ns() < end)
		one_call(&f);
	printf("# process %d: %llu calls, %llu commands that were taken\n", number,
	       (unsigned long long)f.commands, (unsigned long long)f.good);
	fflush(stdout);
	return f.good < 100;
}

/* What they left behind, until nothing is in use any more. */
static bool clean_up(void)
{
	bool clean = false;

	for (int i = 0; i < 100 && !clean; i++) {
		int ctl = control();

		for (char c = 'a'; c < 'a' + NAMES; c++) {
			struct llm_region_name r = {.size = sizeof(r), .name = {(uint8_t)c}};

			destroy((char[]){c, '\0'});
			ioctl(ctl, LLM_IOC_REGION_DESTROY, &r);
		}
		ioctl(ctl, LLM_IOC_MEM_RESERVE,
		      &(struct llm_mem_reserve){.size = sizeof(struct llm_mem_reserve)});
		close(ctl);
		clean = true;
		for (int n = 0; n < NAMES; n++) {
			char node[24];

			snprintf(node, sizeof(node), "/dev/llm%d", n);
			clean = clean && access(node, F_OK);
		}
		if (!clean)
			usleep(100000);
	}
	return clean;
}

int main(void)
{
	const char *t = getenv("FUZZ_SECONDS"), *s = getenv("FUZZ_SEED");
	uint32_t seed = s ? (uint32_t)strtoul(s, NULL, 0) : (uint32_t)(now_ns() ^ now_ns() >> 20);
	int status = 0, bad = 0;

	printf("# FUZZ_SEED=%u\n", seed);
	fflush(stdout);
	for (int i = 0; i < 2; i++)
		if (!fork())
			_exit(fuzz(seed + (uint32_t)i * 0x9e3779b9u, t ? atoi(t) : 20, i));
	while (wait(&status) > 0)
		bad |= status;
	check(!bad, "random commands from two processes, seed %u: the machine still stands", seed);
	check(clean_up(), "and nothing is left");
	return done();
}
