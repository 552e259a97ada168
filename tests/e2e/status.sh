#!/bin/bash
# SPDX-License-Identifier: MIT
# llmctl status: what it prints once, over and over, as JSON, on a terminal; who may see what.
# shellcheck source=tests/e2e/daemon.bash disable=SC2317,SC2086
. "$(dirname "$0")/daemon.bash"
llmctl=$build/llmctl
status() { "$llmctl" status --socket "$socket" "$@"; }
json() { # json EXPRESSION over j, the parsed output
	status --json >"$tmp/json" 2>"$tmp/err" || { sed 's/^/# /' "$tmp/err"; return 1; }
	python3 -c 'import json,sys; j = json.load(open(sys.argv[1])); sys.exit(not eval("(" + sys.argv[2] + ")"))' \
		"$tmp/json" "$1"
}
fails() { # fails STATUS PATTERN COMMAND...
	"${@:3}" >/dev/null 2>"$tmp/err"
	[ $? -eq "$1" ] && grep -q "$2" "$tmp/err" || { sed 's/^/# /' "$tmp/err"; return 1; }
}

check "no daemon: one line that says so" fails 1 'start llmdevd' status
check "a name that nobody serves: likewise" fails 1 'llmd.*llm77' "$llmctl" status llm77
check "wrong usage: exit status 2" fails 2 'one daemon' status llm0
start_daemon --pace 20 --batch 2 --limits sessions=3 || { check "the daemon starts" false; finish; }

# ---- what it says -----------------------------------------------------------------------------------

long='{"messages":[{"role":"user","content":"Why is the sky blue?"}],"max_tokens":400,"ignore_eos":true}'
clients=()
for _ in 1 2 3; do
	"$llmctl" ask --quiet --socket "$socket" --json "$long" >/dev/null 2>&1 &
	clients+=($!)
done
leave() { kill "${clients[@]}" 2>/dev/null; wait "${clients[@]}" 2>/dev/null; }
busy() { json 'j["unfinished"] == 3 and j["generated_tokens"] > 20'; }
check "three sessions take all places, and status is answered" wait_for 60 busy
check "requests, pages and sessions add up" json \
	'j["open_sessions"] == j["max_sessions"] == len(j["sessions"]) == 3 and j["max_batch"] == 2 and
	 j["running"] + j["parked"] + j["waiting"] == 3 and j["principals"] == 1 and
	 j["kv_held"] + j["kv_cached"] + j["kv_free"] == j["kv_pages"] and j["kv_held"] > 0'
check "a row for each of them" json \
	'sorted(r["session"] for r in j["sessions"]) == [2, 3, 4] and
	 all(r["requests"] == 1 and r["principal"] is None and r["pid"] > 1 and r["age_s"] > 0 and
	     r["state"] in ("waiting", "prefill", "decode", "parked", "preempted")
	     for r in j["sessions"])'
check "rates of an interval" json \
	'0.3 < j["interval_s"] < 60 and not j["interval_from_start"] and j["out_tokens_per_s"] > 0'
fourth() { ask -n 1 hello; }
check "a fourth session is told the limit" fails 1 'sessions: 3 are open, the limit is 3' fourth
status >"$tmp/text"
check "for people: totals and a table" grep -Eq '^ +[0-9]+ +[0-9]+ +[0-9]+ +- +(waiting|prefill|decode|parked|preempted)' "$tmp/text"
for word in 'KV cache +held [1-9]' 'tokens/s +[0-9.]+ in, [0-9.]+ out, in the last' 'sessions +3 of 3' 'up [0-9]'; do
	check "... $word" grep -Eq "$word" "$tmp/text"
done
no_text() { ! status | grep -qi 'sky' && ! status --json | grep -qi 'sky'; }
check "nothing of what was asked is told" no_text
lines() { # one line a sample, until it is told to stop
	"$llmctl" status --socket "$socket" --watch 0.1 >"$tmp/lines" &
	local pid=$!
	wait_for 30 more_lines 4 "$tmp/lines" || return 1
	kill -INT $pid
	wait $pid && ! grep -vEq '^[0-9T:+-]+ sessions 3 running [0-9]+ .* refused [0-9]+$' "$tmp/lines"
}
more_lines() { [ "$(wc -l <"$2")" -ge "$1" ]; }
check "--watch into a pipe: a line a sample, Ctrl-C ends it" lines
json_lines() {
	"$llmctl" status --socket "$socket" --json --watch=0.1 >"$tmp/lines" &
	local pid=$!
	wait_for 30 more_lines 3 "$tmp/lines" || return 1
	kill -INT $pid
	wait $pid
	python3 -c 'import json,sys; a = [json.loads(l) for l in open(sys.argv[1])]
assert a[0]["interval_from_start"] and not a[1]["interval_from_start"], a' "$tmp/lines"
}
check "--watch --json: an object a line, the first one since the start" json_lines
leave

# ---- after it ---------------------------------------------------------------------------------------

gone() { json 'j["open_sessions"] == 0 and j["unfinished"] == 0 and j["kv_held"] == 0'; }
check "when the clients have gone nothing is held" wait_for 60 gone
check "... and they are counted as cancelled" json 'j["cancelled"] == 3'
watches_on() { # over the end of one daemon and the start of the next
	"$llmctl" status --socket "$socket" --watch 0.1 >"$tmp/lines" 2>"$tmp/err" &
	local pid=$! n
	wait_for 30 more_lines 1 "$tmp/lines" || return 1
	stop_daemon
	wait_for 30 bigger_than "$tmp/err" 0 || return 1
	: >"$tmp/log"
	start_daemon --pace 20 || return 1
	n=$(wc -l <"$tmp/lines")
	wait_for 30 more_lines $((n + 2)) "$tmp/lines" || return 1
	kill -INT $pid
	wait $pid
}
check "--watch goes on when another daemon takes over" watches_on

# ---- on a terminal, and for others ------------------------------------------------------------------

check "a picture that is drawn over, no wider than the terminal, ended by q" python3 - "$llmctl" "$socket" <<'PY'
import fcntl, os, pty, select, struct, sys, termios, time
pid, fd = pty.fork()
if pid == 0:
    os.environ.update(TERM="xterm", NO_COLOR="1")
    os.execv(sys.argv[1], ["llmctl", "status", "--socket", sys.argv[2], "--watch", "0.1"])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 50, 0, 0))
out, sent, end = b"", False, time.monotonic() + 60
while time.monotonic() < end:
    if select.select([fd], [], [], 0.2)[0]:
        try:
            data = os.read(fd, 65536)
        except OSError:
            break
        if not data:
            break
        out += data
    if not sent and out.count(b"\033[J") >= 4:
        os.write(fd, b"q")
        sent = True
status = os.waitpid(pid, 0)[1]
pictures = out.decode().split("\033[J")
last = pictures[-2].split("\r", 1)[1]
rows = [l.replace("\033[K", "").strip("\r") for l in last.strip().split("\n")]
assert status == 0 and sent, (status, out[-500:])
assert any("A\r" in p for p in pictures[1:]), "not drawn over"
assert len(rows) <= 12 and all(len(r) <= 50 for r in rows), rows
assert any("[" in r and "." in r for r in rows), "no bar"
assert "\033[3" not in out.decode() and "\033[1m" not in out.decode(), "colour"
PY
as_nobody() { python3 -c 'import os,sys
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
os.execv(sys.argv[1], sys.argv[1:])' "$@"; }
if [ "$(id -u)" = 0 ]; then
	chmod 755 "$tmp"
	chmod 666 "$socket"
	mkdir -m 755 "$tmp/bin" && cp "$llmctl" "$tmp/bin/llmctl" && chmod 755 "$tmp/bin/llmctl"
	others_see() {
		"$llmctl" ask --quiet --socket "$socket" --json "$long" >/dev/null 2>&1 &
		clients=($!)
		wait_for 60 json 'len(j["sessions"]) == 1' || return 1
		as_nobody "$tmp/bin/llmctl" status --json --socket "$socket" >"$tmp/json" || return 1
		leave
		python3 -c 'import json,sys; j = json.load(open(sys.argv[1]))
assert j["open_sessions"] == 1 and j["sessions"] == [], j' "$tmp/json"
	}
	check "another user sees the sums, and no session that is not his" others_see
else
	skip "not root: what other users see"
fi
finish
