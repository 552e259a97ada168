// SPDX-License-Identifier: MIT
/* llmctl doctor: who else wants the memory, and what the kernel's log tells; see doctor.h. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor.h"

/* ---- other engines ---------------------------------------------------------------------------- */

/* By the name of the program, or of the module that a Python interpreter runs. */
static const struct {
	const char *program, *name;
} engines[] = {
	{"vllm", "vLLM"},
	{"llama-server", "llama.cpp"},
	{"llama-cli", "llama.cpp"},
	{"ollama", "Ollama"},
	{"sglang", "SGLang"},
	{"tritonserver", "Triton"},
	{"trtllm-serve", "TensorRT-LLM"},
	{"tensorrt_llm", "TensorRT-LLM"},
	{"lmdeploy", "LMDeploy"},
	{"text-generation-launcher", "TGI"},
	{"text-generation-server", "TGI"},
	{"koboldcpp", "KoboldCpp"},
	{"ds4-server", "ds4"},
};

struct scan {
	const struct doctor *d;
	long long resident;
	int n, orphans;
	char list[400];
};

static const char *engine_by(const char *word)
{
	const char *base = strrchr(word, '/');

	base = base ? base + 1 : word;
	for (size_t i = 0; i < sizeof(engines) / sizeof(engines[0]); i++) {
		size_t n = strlen(engines[i].program);

		/* "sglang.launch_server" is a module of sglang, "vllm::router" a process of vllm. */
		if (!strncmp(base, engines[i].program, n) &&
		    (!base[n] || base[n] == '.' || base[n] == ':'))
			return engines[i].name;
	}
	return NULL;
}

/* argv: strings with a NUL behind each. An interpreter's script or -m module counts, an editor's
 * argument does not. */
static const char *engine_of(const char *comm, const char *argv, size_t len)
{
	const char *name = engine_by(comm), *base, *end = argv + len;
	bool python;

	if (!strncmp(comm, "VLLM::", 6))
		return "vLLM";
	if (name || !len)
		return name;
	name = engine_by(argv);
	if (name)
		return name;
	base = strrchr(argv, '/');
	base = base ? base + 1 : argv;
	python = !strncmp(base, "python", 6);
	if (!python)
		return NULL;
	for (argv += strlen(argv) + 1; argv < end; argv += strlen(argv) + 1) {
		bool value = !strcmp(argv, "-X") || !strcmp(argv, "-W");

		if (argv[0] != '-')
			return engine_by(argv); /* the script, or the module after -m */
		if (value && (argv += strlen(argv) + 1) >= end)
			break;
	}
	return NULL;
}

static long long status_number(const char *status, const char *key)
{
	const char *p = status ? strstr(status, key) : NULL;

	return p ? strtoll(p + strlen(key), NULL, 10) : 0;
}

static bool look_at_process(void *ctx, const char *pid)
{
	struct scan *x = ctx;
	char path[64], comm[64], *argv, *status;
	const char *name;
	size_t len = 0, n = strlen(x->list);
	long long kb;

	if (!isdigit((unsigned char)pid[0]))
		return true;
	snprintf(path, sizeof(path), "/proc/%.20s/comm", pid);
	if (!view_line(&x->d->view, path, comm, sizeof(comm)))
		return true;
	snprintf(path, sizeof(path), "/proc/%.20s/cmdline", pid);
	argv = view_read(&x->d->view, path, &len);
	name = engine_of(comm, argv ? argv : "", argv ? len : 0);
	free(argv);
	if (!name)
		return true;
	snprintf(path, sizeof(path), "/proc/%.20s/status", pid);
	status = view_read(&x->d->view, path, NULL);
	kb = status_number(status, "\nVmRSS:") + status_number(status, "\nVmSwap:");
	x->n++;
	x->resident += kb * 1024;
	/* vLLM's engine process does not outlive its server, unless something went wrong. */
	if (strstr(comm, "EngineCor") && status_number(status, "\nPPid:") == 1)
		x->orphans++;
	free(status);
	snprintf(x->list + n, sizeof(x->list) - n, "%s%s (pid %.20s, %.1f GiB)", n ? ", " : "",
		 name, pid, (double)kb / (1 << 20));
	return true;
}

static void check_engines(const struct doctor *d, struct finding *f)
{
	struct scan x = {.d = d};

	view_list(&d->view, "/proc", look_at_process, &x);
	if (x.orphans) {
		finding_set(
			f, DOCTOR_BAD,
			"%d engine process%s of vLLM without its server: %s. It holds its memory "
			"until it is killed",
			x.orphans, x.orphans == 1 ? "" : "es", x.list);
		finding_command(f, "kill PID   # of the process named EngineCore");
	} else if (x.n) {
		finding_set(f, x.resident > d->facts.mem_total / 2 ? DOCTOR_BAD : DOCTOR_WARN,
			    "%s: they share this memory%s", x.list,
			    d->facts.gb10
				    ? "; what they hold through the GPU's driver is not counted "
				      "here"
				    : "");
		finding_command(f, "llmctl mem   # all of it; stop what is not needed");
	} else {
		finding_set(f, DOCTOR_OK, "none runs");
	}
}

/* ---- kernel log ------------------------------------------------------------------------------- */

static int count_lines(const char *log, const char *what, char last[160])
{
	int n = 0;

	while (*log) {
		size_t len = strcspn(log, "\n");

		if (memmem(log, len, what, strlen(what))) {
			snprintf(last, 160, "%.*s", (int)(len < 159 ? len : 159), log);
			n++;
		}
		log += len + (log[len] == '\n');
	}
	return n;
}

static void check_log(const struct doctor *d, struct finding *f)
{
	char last[160] = "", *cut;
	int n;

	if (!d->facts.log) {
		finding_set(f, DOCTOR_UNKNOWN, "the kernel's log may not be read");
		finding_command(f, "sudo llmctl doctor");
		return;
	}
	n = count_lines(d->facts.log, "NV_ERR_NO_MEMORY", last);
	if (n) {
		finding_set(
			f, DOCTOR_WARN,
			"%d times the GPU's driver got no memory (NV_ERR_NO_MEMORY): some of these "
			"lines are harmless, but machines were seen to hang after them",
			n);
		finding_command(f,
				"llmctl reserve SIZE -- COMMAND   # room before an engine starts");
		return;
	}
	n = count_lines(d->facts.log, "Xid", last);
	if (n) {
		finding_set(f, DOCTOR_WARN, "%d error%s of the GPU (Xid), the last: %s", n,
			    n == 1 ? "" : "s", last);
		return;
	}
	n = count_lines(d->facts.log, "Out of memory: Killed process", last);
	/* "... 123 (name) total-vm:33573232kB, anon-rss ..." */
	cut = strstr(last, " total-vm");
	if (cut)
		*cut = '\0';
	if (n)
		finding_set(f, DOCTOR_WARN, "%d %s killed for memory, the last: %s", n,
			    n == 1 ? "process was" : "processes were", last);
	else
		finding_set(f, DOCTOR_OK,
			    "no errors of the GPU's driver, nobody killed for memory");
}

const struct check doctor_other_checks[] = {
	{"engines", check_engines},
	{"kernel-log", check_log},
	{NULL},
};
