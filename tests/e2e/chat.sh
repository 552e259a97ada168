#!/bin/bash
# SPDX-License-Identifier: MIT
# llmctl ask and chat as people and scripts use them: terminal, pipe, in this process, stdin.
# shellcheck source=tests/e2e/daemon.bash disable=SC2317,SC2086,SC2015
. "$(dirname "$0")/daemon.bash"
ctl=$build/llmctl
q1="What are you?" q2="Why is the sky blue?"

start_daemon --pace 25 || { check "the daemon starts" false; finish; }
on_a_terminal() { python3 "$(dirname "$0")/terminal.py" "$@" >"$tmp/steps" || { sed 's/^/# /' "$tmp/steps"; return 1; }; }
check "chat on a terminal: Ctrl-C, history, Ctrl-D" on_a_terminal "$ctl" --socket "$socket" -n 40
stop_daemon
start_daemon

printf '%s\n\n%s\n' "$q1" "$q2" >"$tmp/lines"
over_socket() { "$ctl" chat --quiet --socket "$socket" <"$tmp/lines" >"$tmp/socket.out"; }
in_process() { "$ctl" chat --quiet --threads 1 "$model" <"$tmp/lines" >"$tmp/local.out"; }
check "chat on a pipe, over the socket" over_socket
check "chat on a pipe, in this process" in_process
check "... both give the same two answers" cmp "$tmp/socket.out" "$tmp/local.out"
same_first() { [ "$(head -c 40 "$tmp/local.out")" = "$(ask "$q1" | head -c 40)" ]; }
check "... and the first is the answer to the first question" same_first

from_stdin() { echo "$q1" | ask - >"$tmp/stdin.out" && ask "$q1" | cmp - "$tmp/stdin.out"; }
check "ask - reads stdin" from_stdin
last_line_has() { tail -n 1 "$tmp/err" | grep -q "$1"; }
figures() { "$ctl" ask --socket "$socket" "$q1" 2>"$tmp/err" >/dev/null && last_line_has "tokens/s, first after .*$socket"; }
check "ask prints figures on stderr" figures
bounded() { "$ctl" ask --socket "$socket" -n 3 "$q1" 2>"$tmp/err" >/dev/null && last_line_has "3 generated.*ended by length"; }
check "ask -n bounds the answer" bounded

# fails CODE PATTERN COMMAND...: the exit status, and one line on stderr (two with the usage)
fails() {
	"${@:3}" >"$tmp/out" 2>"$tmp/err" </dev/null
	local rc=$?
	[ $rc -eq "$1" ] && grep -qe "$2" "$tmp/err" && [ ! -s "$tmp/out" ] &&
		[ "$(wc -l <"$tmp/err")" -le 2 ] || { echo "# status $rc"; sed 's/^/# /' "$tmp/err"; return 1; }
}
placed() { [ "$(ask --priority 5 --deadline 600 --principal somebody "$q1")" = "$(ask "$q1")" ]; }
check "ask --priority, --deadline, --principal: the same answer" placed
late() { "$ctl" ask --socket "$socket" --deadline 0.001 "$q1" 2>"$tmp/err" >/dev/null; [ $? -eq 1 ] && grep -q deadline "$tmp/err"; }
check "ask --deadline: an answer that comes too late is an error" late
check "ask --priority out of range: usage" fails 2 priority "$ctl" ask --priority 30 hi
check "no daemon: an error" fails 1 "start llmdevd" "$ctl" ask --socket "$tmp/none" hi
check "no question: usage" fails 2 usage "$ctl" ask --socket "$socket"
check "an empty question: usage" fails 2 empty "$ctl" ask --socket "$socket" ""
check "two questions: usage" fails 2 "exactly one" "$ctl" ask --socket "$socket" a b
check "an unknown option: usage" fails 2 --frobnicate "$ctl" ask --frobnicate a
check "a device that is a socket: an error" fails 1 "use --socket" "$ctl" ask --device "$socket" hi
check "a device that is none of ours: an error" fails 1 "no device of llmdev" "$ctl" ask --device /dev/null hi
check "bad JSON: an error" fails 1 "bad JSON" "$ctl" ask --socket "$socket" --json "{"
check "a conversation longer than the context: an error" fails 1 "context" "$ctl" ask --socket "$socket" "$(yes word | head -n 9000 | tr '\n' ' ')"
check "chat with a model and a socket: usage" fails 2 "one of" "$ctl" chat --socket "$socket" "$model"
check "chat with no model there: an error" fails 1 "$tmp/none" "$ctl" chat "$tmp/none"
full_disk() { [ -w /dev/full ] || return 0; ! "$ctl" ask --quiet --socket "$socket" "$q1" >/dev/full 2>"$tmp/err" && grep -q stdout "$tmp/err"; }
check "a full disk: an error" full_disk

for bad in "--limits x=1" "--limits events=1K" "--limits requests" "--pace 0" "--pace x" "--drain -1" "--name a/b" \
	"--threads 0" "--kv-type f16" "--backend gpu" "--nothing"; do
	check "llmdevd $bad: usage" fails 2 "${bad%% *}" "$build/llmdevd" $bad "$model"
done
check "llmdevd without a model: usage" fails 2 MODEL "$build/llmdevd"
check "llmdevd with a model that is not there: an error" fails 1 "$tmp/none" "$build/llmdevd" --socket "$tmp/x" "$tmp/none"
# What systemd and a login session give: the default socket, and readiness told to $NOTIFY_SOCKET.
by_default() {
	mkdir -p "$tmp/run"
	python3 - "$build" "$model" "$tmp/run" <<'END'
import os, signal, socket, subprocess, sys
build, model, run = sys.argv[1:]
n = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
n.bind(run + "/notify")
n.settimeout(30)
env = dict(os.environ, XDG_RUNTIME_DIR=run, NOTIFY_SOCKET=run + "/notify")
d = subprocess.Popen([build + "/llmdevd", model, "--threads", "1"], env=env, stderr=subprocess.DEVNULL)
try:
    while not n.recv(999).startswith(b"READY=1"):
        pass
    out = subprocess.run([build + "/llmctl", "ask", "-n", "5", "hello"], env=env, capture_output=True)
    assert out.returncode == 0 and run.encode() + b"/llmdev/llm0.sock" in out.stderr, out
    d.send_signal(signal.SIGTERM)
    assert n.recv(99) == b"STOPPING=1"
    assert d.wait(20) == 0
finally:
    d.kill()
END
}
check "the default socket, and READY=1 and STOPPING=1 for a service manager" by_default
long=$(printf 'x%.0s' $(seq 120))
check "llmdevd that needs more memory than there is: the sum, before anything is loaded" \
	fails 1 "weights .* and KV cache 102400.00 GiB: memory: .* needed, .* missing" \
	"$build/llmdevd" --socket "$tmp/x" "$model" --kv-size 100T
check "llmdevd with a long socket path: usage" fails 2 "longer" "$build/llmdevd" --socket "/tmp/$long" "$model"
finish
