// SPDX-License-Identifier: MIT
/*
 * llmctl swap: another model, or the same one anew, in the place of a running daemon. The new one is
 * loaded at NAME.next.sock; then its socket is moved to NAME.sock, so that new connections go to it,
 * and the old one, now at NAME.prev.sock, is told to hand over (SIGUSR1). Nothing is stored: the
 * three sockets and who listens at them are the state. One swap of a name runs at a time
 * (NAME.sock.lock.swap).
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "ctl.h"
#include "facts.h"
#include "llm.h"
#include "llmdevd/options.h"
#include "model/resolve.h"
#include "swap.h"
#include "transport/transport.h"

#define USAGE                                                                                      \
	"swap NAME|PATH MODEL [--stage] [-- OPTION...]\n"                                          \
	"       llmctl swap NAME|PATH --commit [--keep] | --rollback | --status"
#define OVERHEAD  (64u << 20) /* program, tokenizer, workspaces */
#define ANSWER_MS 5000

enum { VERB_ALL, VERB_STAGE = 'S', VERB_COMMIT, VERB_ROLLBACK, VERB_STATUS, OPT_KEEP };

struct place {
	char path[LLMDEV_PATH_MAX];
	char lock[LLMDEV_PATH_MAX + 8];
	struct daemon_process daemon;
	bool alive;
};

struct swap {
	struct place at[N_SOCKET_PLACES];
	int lock_fd;
};

/* ---- what stands where ---------------------------------------------------------------------------- */

static void look(struct swap *s)
{
	for (int i = 0; i < N_SOCKET_PLACES; i++)
		s->at[i].alive = !daemon_at(&s->at[i].daemon, s->at[i].path);
	/* In the midst of a move two names lead to one daemon. */
	if (s->at[SOCKET_PREV].alive && s->at[SOCKET_CURRENT].alive &&
	    s->at[SOCKET_PREV].daemon.pid == s->at[SOCKET_CURRENT].daemon.pid)
		s->at[SOCKET_PREV].alive = false;
}

static int swap_open(struct swap *s, const char *name, bool lock, struct err *e)
{
	char current[LLMDEV_PATH_MAX + 16], cwd[PATH_MAX];
	int rc = 0;

	memset(s, 0, sizeof(*s));
	s->lock_fd = -1;
	/* The new daemon runs in another directory. */
	if (strchr(name, '/') && name[0] != '/' && getcwd(cwd, sizeof(cwd)))
		rc = snprintf(current, sizeof(current), "%s/%s", cwd, name);
	else if (strchr(name, '/'))
		rc = snprintf(current, sizeof(current), "%s", name);
	else
		ctl_find_socket(current, LLMDEV_PATH_MAX, name);
	rc = rc >= (int)sizeof(current) ? -ENAMETOOLONG : 0;
	for (int i = 0; i < N_SOCKET_PLACES && !rc; i++) {
		char path[sizeof(s->at[i].path)];

		rc = socket_place(path, sizeof(path), current, (enum socket_place)i);
		if (rc)
			break;
		snprintf(s->at[i].path, sizeof(s->at[i].path), "%s", path);
		snprintf(s->at[i].lock, sizeof(s->at[i].lock), "%s.lock", path);
	}
	if (rc)
		return err_set(e, rc, "%s: too long for a socket's path", name);
	if (lock) {
		snprintf(current, sizeof(current), "%s.swap", s->at[SOCKET_CURRENT].lock);
		s->lock_fd = open(current, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
		if (s->lock_fd < 0)
			return err_set(e, -errno,
				       "%s: %s: run this as root or as the daemon's user", current,
				       strerror(errno));
		if (flock(s->lock_fd, LOCK_EX | LOCK_NB))
			return err_set(e, -EBUSY, "%s: another swap is under way: wait for it",
				       s->at[SOCKET_CURRENT].path);
	}
	look(s);
	return 0;
}

static void swap_close(struct swap *s)
{
	if (s->lock_fd >= 0)
		close(s->lock_fd);
}

/* ---- stage ---------------------------------------------------------------------------------------- */

/* The new model beside the old one: refused if that cannot fit, with the sum. */
static int check_memory(const struct daemon_options *o, struct err *e)
{
	char sum[4][FACTS_SIZE];
	struct facts f;
	uint64_t kv, need, tokens;
	int rc = facts_read(&f, o->model, e);

	if (rc)
		return rc;
	if (!f.runs)
		return err_set(e, -EOPNOTSUPP, "%s: %s", o->model, f.why);
	tokens = o->ctx ? (uint64_t)o->ctx : (uint64_t)f.config.max_pos;
	kv = o->kv_size ? o->kv_size
			: (uint64_t)((double)(tokens * f.kv_per_token) * o->kv_element / 2);
	/* A context that nobody asked for is lowered to what half of the rest holds. */
	if (!o->kv_size && !o->ctx && f.mem_available > f.bytes &&
	    kv > (f.mem_available - f.bytes) / 2)
		kv = (f.mem_available - f.bytes) / 2;
	need = f.bytes + kv + OVERHEAD;
	if (f.mem_available && need > f.mem_available)
		return err_set(e, -ENOMEM,
			       "%s: weights %s + KV cache %s + %s are more than the %s of memory "
			       "that are available beside the running model: give less --kv-size, "
			       "or stop the running daemon first",
			       o->model, facts_bytes(sum[0], f.bytes), facts_bytes(sum[1], kv),
			       facts_bytes(sum[2], OVERHEAD), facts_bytes(sum[3], f.mem_available));
	fprintf(stderr, "staging %s: weights %s, KV cache %s, %s available\n", o->model,
		facts_bytes(sum[0], f.bytes), facts_bytes(sum[1], kv),
		facts_bytes(sum[3], f.mem_available));
	return 0;
}

/* The path of the model, whoever looks and from where. */
static int find_model(char out[PATH_MAX], const char *model, struct err *e)
{
	char path[MODEL_PATH_MAX];
	int rc = model_resolve(model, path, e);

	if (rc)
		return rc;
	return realpath(path, out) ? 0 : err_set(e, -errno, "%s: %s", path, strerror(errno));
}

static int stage(struct swap *s, const char *model, int argc, char **argv, struct err *e)
{
	struct place *current = &s->at[SOCKET_CURRENT], *next = &s->at[SOCKET_NEXT];
	struct daemon_options o;
	int rc;

	if (!current->alive)
		return err_set(e, -ECONNREFUSED, "%s: nobody serves it: start llmdevd MODEL",
			       current->path);
	if (next->alive)
		return err_set(e, -EBUSY,
			       "%s: process %d is staged already: --commit or --rollback first",
			       next->path, (int)next->daemon.pid);
	if (!daemon_can_hand_over(current->daemon.pid))
		return err_set(
			e, -EOPNOTSUPP,
			"process %d, which serves %s, is no llmdevd of this version: stop it "
			"and start the new one",
			(int)current->daemon.pid, current->path);
	rc = daemon_options_read(&o, current->daemon.pid, e);
	if (rc)
		return rc;
	rc = daemon_options_add(&o, argc, argv, e);
	if (!rc)
		rc = find_model(o.model, model, e);
	if (!rc)
		rc = check_memory(&o, e);
	if (!rc)
		rc = daemon_start(&o, &current->daemon, next->path, &next->daemon, e);
	if (!rc) {
		next->alive = true;
		fprintf(stderr, "staged: process %d serves it at %s\n", (int)next->daemon.pid,
			next->path);
	}
	daemon_options_free(&o);
	return rc;
}

/* ---- commit, roll back ---------------------------------------------------------------------------- */

static void signal_hand_over(const struct daemon_process *p, bool keep)
{
	sigqueue(p->pid, SIGUSR1, (union sigval){.sival_int = keep ? SERVER_KEEP : 0});
}

/*
 * The daemon at `from` gets the name that clients know, and the one that has it goes to `to`: at no
 * moment does the name lead nowhere. On failure all is as it was.
 */
static int move(struct swap *s, enum socket_place from, enum socket_place to, struct err *e)
{
	struct place *current = &s->at[SOCKET_CURRENT], *a = &s->at[from], *b = &s->at[to];
	int rc;

	unlink(b->path);
	if (link(current->path, b->path) && current->alive)
		return err_set(e, -errno, "%s: %s: run this as root or as the daemon's user",
			       b->path, strerror(errno));
	/* Each keeps its lock: locks belong to files, not to names. */
	rename(current->lock, b->lock);
	rename(a->lock, current->lock);
	if (rename(a->path, current->path)) {
		rc = err_set(e, -errno, "%s: %s", current->path, strerror(errno));
		rename(current->lock, a->lock);
		rename(b->lock, current->lock);
		unlink(b->path);
		return rc;
	}
	return 0;
}

/* If systemd starts it again, it has to be found where its clients look. */
static int settle_unit(const struct place *p, const char *path, struct err *e)
{
	struct daemon_options o;
	int rc = daemon_options_read(&o, p->daemon.pid, e);

	if (rc)
		return rc;
	if (o.unit[0])
		rc = daemon_unit_write(&o, path, e);
	daemon_options_free(&o);
	return rc;
}

static int commit(struct swap *s, bool keep, struct err *e)
{
	struct place *current = &s->at[SOCKET_CURRENT], *next = &s->at[SOCKET_NEXT];
	struct place *prev = &s->at[SOCKET_PREV];
	struct daemon_process now;
	int rc;

	if (!next->alive && prev->alive && !keep) {
		/* The second half of --commit --keep. */
		signal_hand_over(&prev->daemon, false);
		fprintf(stderr, "process %d ends with its last answer\n", (int)prev->daemon.pid);
		return 0;
	}
	if (!next->alive)
		return err_set(e, -ENOENT, "%s: nothing is staged: give a MODEL and --stage",
			       next->path);
	rc = settle_unit(next, current->path, e);
	if (!rc)
		rc = move(s, SOCKET_NEXT, SOCKET_PREV, e);
	if (rc)
		return rc;
	/* The one before the last still has answers to end; nobody gets back to it any more. */
	if (prev->alive)
		signal_hand_over(&prev->daemon, false);
	if (current->alive)
		signal_hand_over(&current->daemon, keep);
	if (daemon_at(&now, current->path) || now.pid != next->daemon.pid)
		return err_set(e, -ECONNREFUSED,
			       "%s: the new daemon ended in that moment: --rollback goes back, if "
			       "the old one still runs",
			       current->path);
	fprintf(stderr, "committed: process %d serves %s", (int)next->daemon.pid, current->path);
	if (current->alive)
		fprintf(stderr, "; process %d %s", (int)current->daemon.pid,
			keep ? "stays, and can be taken back (--rollback); --commit ends it"
			     : "ends with its last answer");
	fputc('\n', stderr);
	return 0;
}

static int roll_back(struct swap *s, struct err *e)
{
	struct place *current = &s->at[SOCKET_CURRENT], *next = &s->at[SOCKET_NEXT];
	struct place *prev = &s->at[SOCKET_PREV];
	struct daemon_options o;
	int rc;

	if (next->alive) {
		rc = daemon_options_read(&o, next->daemon.pid, e);
		if (rc)
			return rc;
		rc = daemon_stop(&next->daemon, o.unit, e);
		daemon_options_free(&o);
		if (!rc)
			fprintf(stderr, "process %d is stopped: nothing is staged\n",
				(int)next->daemon.pid);
		return rc;
	}
	/* Awake before anybody is sent there, and before it ends by itself. */
	if (prev->alive)
		kill(prev->daemon.pid, SIGUSR2);
	if (!prev->alive || daemon_at(&prev->daemon, prev->path))
		return err_set(e, -ENOENT,
			       "nothing to roll back: nothing is staged, and no daemon from before "
			       "the last commit runs any more");
	rc = settle_unit(prev, current->path, e);
	if (!rc)
		rc = move(s, SOCKET_PREV, SOCKET_NEXT, e);
	if (rc) {
		signal_hand_over(&prev->daemon, true);
		return rc;
	}
	if (current->alive)
		signal_hand_over(&current->daemon, false);
	fprintf(stderr, "rolled back: process %d serves %s", (int)prev->daemon.pid, current->path);
	if (current->alive)
		fprintf(stderr, "; process %d ends with its last answer", (int)current->daemon.pid);
	fputc('\n', stderr);
	return 0;
}

/* ---- status --------------------------------------------------------------------------------------- */

static void print_load(const char *path)
{
	struct llmdev_options lo = {.path = path, .recovery_ms = -1};
	struct llm_status st;
	struct llmdev *d;
	char why[256];

	if (llmdev_open(&d, &lo, why, sizeof(why)))
		return;
	if (llmdev_status(d, &st, NULL, 0, ANSWER_MS) >= 0)
		printf("  %u running, %u waiting", st.running, st.waiting);
	llmdev_close(d);
}

static int status(struct swap *s)
{
	static const char *const words[] = {"serves", "staged", "leaves"};
	struct daemon_options o;
	bool any = false;
	struct err e;

	for (int i = 0; i < N_SOCKET_PLACES; i++) {
		struct place *p = &s->at[i];

		if (!p->alive)
			continue;
		any = true;
		if (daemon_options_read(&o, p->daemon.pid, &e))
			memset(&o, 0, sizeof(o));
		printf("%s  process %d  %s", words[i], (int)p->daemon.pid,
		       o.model[0] ? o.model : "?");
		/* One that leaves talks to nobody new. */
		if (i != SOCKET_PREV)
			print_load(p->path);
		putchar('\n');
		daemon_options_free(&o);
	}
	return any ? 0 : ctl_fail("%s: nobody serves it", s->at[SOCKET_CURRENT].path);
}

int cmd_swap(int argc, char **argv)
{
	static const struct option options[] = {
		{"stage", no_argument, NULL, VERB_STAGE},
		{"commit", no_argument, NULL, VERB_COMMIT},
		{"rollback", no_argument, NULL, VERB_ROLLBACK},
		{"status", no_argument, NULL, VERB_STATUS},
		{"keep", no_argument, NULL, OPT_KEEP},
		{NULL},
	};
	int opt, verb = VERB_ALL, own = 0, rc = 0, n;
	bool keep = false;
	struct swap s;
	struct err e;

	/* What stands behind `--` is the daemon's. */
	while (own < argc && strcmp(argv[own], "--"))
		own++;
	opterr = 0;
	optind = 0;
	while ((opt = getopt_long(own, argv, ":", options, NULL)) != -1) {
		if (opt == OPT_KEEP)
			keep = true;
		else if (opt < VERB_STAGE || opt > VERB_STATUS || opt == ':' || opt == '?')
			return ctl_bad_option(USAGE, argv);
		else if (verb != VERB_ALL)
			return ctl_usage(USAGE, "swap: one of --stage, --commit, --rollback, "
						"--status");
		else
			verb = opt;
	}
	n = own - optind;
	if (n != (verb == VERB_ALL || verb == VERB_STAGE ? 2 : 1))
		return ctl_usage(USAGE, verb == VERB_ALL || verb == VERB_STAGE
						? "swap: give the daemon's NAME or socket, and a "
						  "MODEL"
						: "swap: give the daemon's NAME or socket");
	if (keep && verb != VERB_COMMIT && verb != VERB_ALL)
		return ctl_usage(USAGE, "swap: --keep goes with --commit");
	rc = swap_open(&s, argv[optind], verb != VERB_STATUS, &e);
	if (!rc && verb == VERB_STATUS) {
		rc = status(&s);
		swap_close(&s);
		return rc;
	}
	if (!rc && (verb == VERB_ALL || verb == VERB_STAGE)) {
		/* getopt takes its first word for a program's name. */
		char *none[] = {"llmdevd", NULL};

		rc = stage(&s, argv[optind + 1], own < argc ? argc - own : 1,
			   own < argc ? argv + own : none, &e);
	}
	if (!rc && (verb == VERB_ALL || verb == VERB_COMMIT))
		rc = commit(&s, keep, &e);
	if (!rc && verb == VERB_ROLLBACK)
		rc = roll_back(&s, &e);
	swap_close(&s);
	return !rc ? 0 : rc == -EINTR ? (ctl_fail("%s", e.msg), 130) : ctl_fail("%s", e.msg);
}
