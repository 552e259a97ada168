// SPDX-License-Identifier: MIT
/*
 * The GPU through its driver's library; see gpu.h. Only what is needed here is declared: types and
 * numbers are those of the CUDA driver API, which keeps them for ever.
 */
#include "gpu.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PASSES_MAX  16
#define THREADS	    256 /* of a block */
#define BLOCKS_EACH 8 /* blocks for each processor: enough reads in flight everywhere */

typedef int cu_result;
typedef int cu_device;

enum cu_attribute {
	CU_MULTIPROCESSORS = 16,
	CU_INTEGRATED = 18,
	CU_L2_SIZE = 38,
	CU_MAJOR = 75,
	CU_MINOR = 76,
	CU_PAGEABLE = 88,
	CU_HOST_REGISTER = 99,
	CU_HOST_TABLES = 100,
	CU_READ_ONLY_REGISTER = 113,
	CU_RDMA = 116,
	CU_DMA_BUF = 124,
};

struct driver {
	cu_result (*init)(unsigned int);
	cu_result (*driver_version)(int *);
	cu_result (*device_count)(int *);
	cu_result (*device_get)(cu_device *, int);
	cu_result (*device_name)(char *, int, cu_device);
	cu_result (*device_memory)(size_t *, cu_device);
	cu_result (*device_attribute)(int *, int, cu_device);
	cu_result (*context_retain)(void **, cu_device);
	cu_result (*context_release)(cu_device);
	cu_result (*context_set)(void *);
	cu_result (*synchronize)(void);
	cu_result (*memory_info)(size_t *, size_t *);
	cu_result (*alloc)(uint64_t *, size_t);
	cu_result (*free)(uint64_t);
	cu_result (*fill)(uint64_t, unsigned char, size_t);
	cu_result (*host_register)(void *, size_t, unsigned int);
	cu_result (*host_unregister)(void *);
	cu_result (*host_address)(uint64_t *, void *, unsigned int);
	cu_result (*module_load)(void **, const void *);
	cu_result (*module_function)(void **, void *, const char *);
	cu_result (*module_unload)(void *);
	cu_result (*launch)(void *, unsigned int, unsigned int, unsigned int, unsigned int,
			    unsigned int, unsigned int, unsigned int, void *, void **, void **);
	cu_result (*event_create)(void **, unsigned int);
	cu_result (*event_destroy)(void *);
	cu_result (*event_record)(void *, void *);
	cu_result (*event_synchronize)(void *);
	cu_result (*event_elapsed)(float *, void *, void *);
	cu_result (*error_name)(cu_result, const char **);
};

struct gpu {
	void *library;
	struct driver cu;
	cu_device device;
	void *context, *module, *function, *start, *end;
	uint64_t sink;
	struct gpu_facts facts;
};

/*
 * Each thread reads 16 bytes at a time, four at once, a whole grid's width apart, and keeps their
 * exclusive or; it is stored only where it equals a value that cannot be told beforehand, so that the
 * reads stay. Parameters: address, 16-byte units, where to store.
 */
static const char read_ptx[] =
	".version 7.0\n.target sm_70\n.address_size 64\n"
	".visible .entry read_all(.param .u64 p, .param .u64 n, .param .u64 out)\n{\n"
	"	.reg .pred %more, %four, %same;\n"
	"	.reg .b32 %x<4>, %a<4>, %b<4>, %c<4>, %d<4>, %thread, %cta, %width, %grid, %acc;\n"
	"	.reg .b64 %p, %n, %out, %i, %step, %step3, %last, %q0, %q1, %q2, %q3, %bytes;\n"
	"	ld.param.u64 %p, [p];\n	ld.param.u64 %n, [n];\n	ld.param.u64 %out, [out];\n"
	"	mov.u32 %thread, %tid.x;\n	mov.u32 %cta, %ctaid.x;\n"
	"	mov.u32 %width, %ntid.x;\n	mov.u32 %grid, %nctaid.x;\n"
	"	mad.wide.u32 %i, %cta, %width, 0;\n	cvt.u64.u32 %step, %thread;\n"
	"	add.u64 %i, %i, %step;\n"
	"	mul.wide.u32 %step, %grid, %width;\n	mul.lo.u64 %step3, %step, 3;\n"
	"	shl.b64 %bytes, %step, 4;\n	mov.u32 %acc, 0;\n"
	"FOUR:\n"
	"	add.u64 %last, %i, %step3;\n	setp.lt.u64 %four, %last, %n;\n"
	"	@!%four bra ONE;\n"
	"	shl.b64 %q0, %i, 4;\n	add.u64 %q0, %q0, %p;\n	add.u64 %q1, %q0, %bytes;\n"
	"	add.u64 %q2, %q1, %bytes;\n	add.u64 %q3, %q2, %bytes;\n"
	"	ld.global.v4.u32 {%a0, %a1, %a2, %a3}, [%q0];\n"
	"	ld.global.v4.u32 {%b0, %b1, %b2, %b3}, [%q1];\n"
	"	ld.global.v4.u32 {%c0, %c1, %c2, %c3}, [%q2];\n"
	"	ld.global.v4.u32 {%d0, %d1, %d2, %d3}, [%q3];\n"
	"	xor.b32 %x0, %a0, %a1;\n	xor.b32 %x1, %a2, %a3;\n	xor.b32 %x0, %x0, "
	"%x1;\n"
	"	xor.b32 %x1, %b0, %b1;\n	xor.b32 %x2, %b2, %b3;\n	xor.b32 %x1, %x1, "
	"%x2;\n"
	"	xor.b32 %x2, %c0, %c1;\n	xor.b32 %x3, %c2, %c3;\n	xor.b32 %x2, %x2, "
	"%x3;\n"
	"	xor.b32 %x3, %d0, %d1;\n	xor.b32 %acc, %acc, %x3;\n	xor.b32 %x3, %d2, "
	"%d3;\n"
	"	xor.b32 %acc, %acc, %x0;\n	xor.b32 %acc, %acc, %x1;\n"
	"	xor.b32 %acc, %acc, %x2;\n	xor.b32 %acc, %acc, %x3;\n"
	"	add.u64 %i, %last, %step;\n	bra FOUR;\n"
	"ONE:\n"
	"	setp.lt.u64 %more, %i, %n;\n	@!%more bra END;\n"
	"	shl.b64 %q0, %i, 4;\n	add.u64 %q0, %q0, %p;\n"
	"	ld.global.v4.u32 {%a0, %a1, %a2, %a3}, [%q0];\n"
	"	xor.b32 %x0, %a0, %a1;\n	xor.b32 %x1, %a2, %a3;\n"
	"	xor.b32 %acc, %acc, %x0;\n	xor.b32 %acc, %acc, %x1;\n"
	"	add.u64 %i, %i, %step;\n	bra ONE;\n"
	"END:\n"
	"	setp.eq.u32 %same, %acc, 0x5bd1e995;\n	@%same st.global.u32 [%out], %acc;\n"
	"	ret;\n}\n";

static int load_symbols(struct gpu *g, struct err *e)
{
	struct driver *d = &g->cu;
	const struct {
		void **to;
		const char *name;
	} symbols[] = {
		{(void **)&d->init, "cuInit"},
		{(void **)&d->driver_version, "cuDriverGetVersion"},
		{(void **)&d->device_count, "cuDeviceGetCount"},
		{(void **)&d->device_get, "cuDeviceGet"},
		{(void **)&d->device_name, "cuDeviceGetName"},
		{(void **)&d->device_memory, "cuDeviceTotalMem_v2"},
		{(void **)&d->device_attribute, "cuDeviceGetAttribute"},
		{(void **)&d->context_retain, "cuDevicePrimaryCtxRetain"},
		{(void **)&d->context_release, "cuDevicePrimaryCtxRelease_v2"},
		{(void **)&d->context_set, "cuCtxSetCurrent"},
		{(void **)&d->synchronize, "cuCtxSynchronize"},
		{(void **)&d->memory_info, "cuMemGetInfo_v2"},
		{(void **)&d->alloc, "cuMemAlloc_v2"},
		{(void **)&d->free, "cuMemFree_v2"},
		{(void **)&d->fill, "cuMemsetD8_v2"},
		{(void **)&d->host_register, "cuMemHostRegister_v2"},
		{(void **)&d->host_unregister, "cuMemHostUnregister"},
		{(void **)&d->host_address, "cuMemHostGetDevicePointer_v2"},
		{(void **)&d->module_load, "cuModuleLoadData"},
		{(void **)&d->module_function, "cuModuleGetFunction"},
		{(void **)&d->module_unload, "cuModuleUnload"},
		{(void **)&d->launch, "cuLaunchKernel"},
		{(void **)&d->event_create, "cuEventCreate"},
		{(void **)&d->event_destroy, "cuEventDestroy_v2"},
		{(void **)&d->event_record, "cuEventRecord"},
		{(void **)&d->event_synchronize, "cuEventSynchronize"},
		{(void **)&d->event_elapsed, "cuEventElapsedTime"},
		{(void **)&d->error_name, "cuGetErrorName"},
	};

	for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
		*symbols[i].to = dlsym(g->library, symbols[i].name);
		if (!*symbols[i].to)
			return err_set(e, -ENOENT, "gpu: libcuda.so.1 has no %s: update the driver",
				       symbols[i].name);
	}
	return 0;
}

static int failed(const struct gpu *g, cu_result r, const char *what, struct err *e)
{
	const char *name = NULL;

	if (g->cu.error_name(r, &name) || !name)
		name = "unknown error";
	return err_set(e, r == 2 ? -ENOMEM : -EIO, "gpu: %s: %s (%d)", what, name, r);
}

static int attribute(const struct gpu *g, enum cu_attribute a)
{
	int v = 0;

	return g->cu.device_attribute(&v, a, g->device) ? 0 : v;
}

uint64_t gpu_free_bytes(const struct gpu *g)
{
	size_t unused = 0, total = 0;

	return g->cu.memory_info(&unused, &total) ? 0 : unused;
}

static void read_facts(struct gpu *g)
{
	struct gpu_facts *f = &g->facts;
	size_t total = 0;

	g->cu.driver_version(&f->driver);
	g->cu.device_name(f->name, sizeof(f->name), g->device);
	g->cu.device_memory(&total, g->device);
	f->total = total;
	f->free = gpu_free_bytes(g);
	f->sm = 10 * attribute(g, CU_MAJOR) + attribute(g, CU_MINOR);
	f->processors = attribute(g, CU_MULTIPROCESSORS);
	f->l2 = attribute(g, CU_L2_SIZE);
	f->integrated = attribute(g, CU_INTEGRATED);
	f->pageable = attribute(g, CU_PAGEABLE);
	f->host_tables = attribute(g, CU_HOST_TABLES);
	f->host_register = attribute(g, CU_HOST_REGISTER);
	f->read_only_register = attribute(g, CU_READ_ONLY_REGISTER);
	f->rdma = attribute(g, CU_RDMA);
	f->dma_buf = attribute(g, CU_DMA_BUF);
}

static int prepare(struct gpu *g, struct err *e)
{
	int count = 0;
	cu_result r = g->cu.init(0);

	if (r)
		return failed(g, r, "the driver does not start", e);
	if (g->cu.device_count(&count) || !count)
		return err_set(e, -ENOENT, "gpu: the driver knows no GPU");
	r = g->cu.device_get(&g->device, 0);
	if (!r)
		r = g->cu.context_retain(&g->context, g->device);
	if (!r)
		r = g->cu.context_set(g->context);
	return r ? failed(g, r, "no context", e) : 0;
}

int gpu_open(struct gpu **out, struct err *e)
{
	struct gpu *g = calloc(1, sizeof(*g));
	int rc;

	*out = NULL;
	if (!g)
		return err_set(e, -ENOMEM, "gpu: out of memory");
	g->library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!g->library) {
		free(g);
		return err_set(e, -ENOENT, "gpu: there is no libcuda.so.1: no NVIDIA driver");
	}
	rc = load_symbols(g, e);
	if (!rc)
		rc = prepare(g, e);
	if (rc) {
		gpu_close(g);
		return rc;
	}
	read_facts(g);
	*out = g;
	return 0;
}

void gpu_close(struct gpu *g)
{
	if (!g)
		return;
	if (g->sink)
		g->cu.free(g->sink);
	if (g->start)
		g->cu.event_destroy(g->start);
	if (g->end)
		g->cu.event_destroy(g->end);
	if (g->module)
		g->cu.module_unload(g->module);
	if (g->context)
		g->cu.context_release(g->device);
	if (g->library)
		dlclose(g->library);
	free(g);
}

const struct gpu_facts *gpu_facts(const struct gpu *g)
{
	return &g->facts;
}

json_t *gpu_json(const struct gpu_facts *f)
{
	return json_pack("{ss si si si sI sI si sb sb sb sb sb sb sb}", "name", f->name, "cuda",
			 f->driver, "sm", f->sm, "processors", f->processors, "total_bytes",
			 (json_int_t)f->total, "free_bytes", (json_int_t)f->free, "l2_bytes", f->l2,
			 "integrated", f->integrated, "pageable_memory_access", f->pageable,
			 "uses_host_page_tables", f->host_tables, "host_register", f->host_register,
			 "read_only_host_register", f->read_only_register, "gpu_direct_rdma",
			 f->rdma, "dma_buf", f->dma_buf);
}

uint64_t gpu_alloc(struct gpu *g, size_t bytes, struct err *e)
{
	uint64_t p = 0;
	cu_result r = g->cu.alloc(&p, bytes);

	if (!r)
		r = g->cu.fill(p, 1, bytes);
	if (!r)
		return p;
	failed(g, r, "device memory", e);
	gpu_free(g, p);
	return 0;
}

void gpu_free(struct gpu *g, uint64_t p)
{
	if (p)
		g->cu.free(p);
}

uint64_t gpu_register(struct gpu *g, void *p, size_t bytes, struct err *e)
{
	/* 2: mapped for the device. Not read-only: the driver refuses that on most machines. */
	cu_result r = g->cu.host_register(p, bytes, 2);
	uint64_t at = 0;

	if (r) {
		failed(g, r, "registering memory", e);
		return 0;
	}
	r = g->cu.host_address(&at, p, 0);
	if (!r && at)
		return at;
	failed(g, r, "the address of registered memory", e);
	g->cu.host_unregister(p);
	return 0;
}

void gpu_unregister(struct gpu *g, void *p)
{
	g->cu.host_unregister(p);
}

/* Kernel, events and a place to write to: made once. */
static cu_result prepare_read(struct gpu *g)
{
	cu_result r = 0;

	if (!g->module)
		r = g->cu.module_load(&g->module, read_ptx);
	if (!r && !g->function)
		r = g->cu.module_function(&g->function, g->module, "read_all");
	if (!r && !g->start)
		r = g->cu.event_create(&g->start, 0);
	if (!r && !g->end)
		r = g->cu.event_create(&g->end, 0);
	if (!r && !g->sink)
		r = g->cu.alloc(&g->sink, 256);
	return r;
}

static int by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

double gpu_read(struct gpu *g, uint64_t p, size_t bytes, int passes, struct err *e)
{
	uint64_t n = bytes / 16;
	void *params[] = {&p, &n, &g->sink};
	unsigned int blocks =
		(unsigned int)(g->facts.processors > 0 ? g->facts.processors : 1) * BLOCKS_EACH;
	float ms[PASSES_MAX + 1];
	cu_result r = prepare_read(g);

	passes = passes < 1 ? 1 : passes > PASSES_MAX ? PASSES_MAX : passes;
	for (int i = 0; !r && i <= passes; i++) {
		r = g->cu.event_record(g->start, NULL);
		if (!r)
			r = g->cu.launch(g->function, blocks, 1, 1, THREADS, 1, 1, 0, NULL, params,
					 NULL);
		if (!r)
			r = g->cu.event_record(g->end, NULL);
		if (!r)
			r = g->cu.event_synchronize(g->end);
		/* The first one warms up; its time is overwritten. */
		if (!r)
			r = g->cu.event_elapsed(&ms[i ? i - 1 : 0], g->start, g->end);
	}
	if (r) {
		failed(g, r, "reading", e);
		return 0;
	}
	qsort(ms, (size_t)passes, sizeof(ms[0]), by_value);
	return ms[passes / 2] > 0 ? (double)(n * 16) / (ms[passes / 2] * 1e-3) : 0;
}
