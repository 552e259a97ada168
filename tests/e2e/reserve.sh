#!/bin/bash
# SPDX-License-Identifier: MIT
# llmctl reserve: commands that run while room is held, what tells that they are ready, signals and exit
# statuses, conditions, refusals. Real room, and the module: tests/vm/policy.sh.
set -u
build=$(realpath "${LLMDEV_BUILD:-build}") llmctl=$build/llmctl
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
export LLMDEV_POLICYD=$tmp/none # not this machine's own
n=0 failed=0
check() {
	n=$((n + 1))
	if "${@:2}"; then echo "ok $n - $1"; else
		echo "not ok $n - $1"; failed=1
		head -5 "$tmp/err" 2>/dev/null | sed 's/^/# /'
	fi
}
# exits STATUS ARGUMENTS...: of llmctl reserve
exits() { "$llmctl" reserve "${@:2}" >"$tmp/out" 2>"$tmp/err"; local rc=$?; [ $rc -eq "$1" ] || { echo "# exit status $rc"; return 1; }; }
says() { exits "$1" "${@:3}"; grep -q -- "$2" "$tmp/err"; }
wait_for() { local end=$((SECONDS + 60)); while ! "$@"; do [ $SECONDS -ge $end ] && return 1; sleep 0.05; done; }

# ---- a command
check "its exit status is passed on" exits 7 1M -- sh -c 'exit 7'
check "so is the signal that ended it" exits 143 1M -- sh -c 'kill -TERM $$'
check "its arguments are its own" exits 0 1M --quiet -- sh -c '[ "$1" = --ready ]' sh --ready
check "its output too" [ "$("$llmctl" reserve 1M -- echo hello 2>/dev/null)" = hello ]
check "a program that is not there: 127" exits 127 1M -- /nowhere/program
check "one that cannot be run: 126" exits 126 1M -- /etc/passwd
check "--ready regex: of a line" says 0 "ready after" 1M --ready 'regex:^Listening on .*8000$' -- sh -c 'echo Loading; echo Listening on port 8000'
check "output is passed on" grep -qx Loading "$tmp/out"
check "of stderr as well" says 0 "ready after" 1M --ready 'startup complete' -- sh -c 'echo startup complete >&2'
check "a line that never ends" says 0 "ready after" 1M --ready 'regex:^> $' -- sh -c 'printf "> "; sleep 0.3'
check "nothing like it: it is never ready" bash -c "! '$llmctl' reserve 1M --ready regex:never -- echo hello 2>&1 | grep -q ready"
check "--ready fd: 3" says 0 "ready after" 1M --ready fd -- sh -c 'echo >&3'
check "another one" says 0 "ready after" 1M --ready fd:7 -- sh -c 'echo >&7'
check "closed without a word: not ready" bash -c "! '$llmctl' reserve 1M --ready fd -- sh -c 'exec 3>&-; sleep 0.1' 2>&1 | grep -q ready"
head -c 65536 /dev/zero >"$tmp/weights.bin"
cat >"$tmp/maps.py" <<'PY'
import mmap, sys, time
f = open(sys.argv[1], "rb")
m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
time.sleep(float(sys.argv[2]))
PY
check "--ready mapping: of a child of its" says 0 "ready after" 1M --ready mapping:weights.bin -- sh -c "python3 '$tmp/maps.py' '$tmp/weights.bin' 3; true"
cat >"$tmp/serve.py" <<'PY'
import http.server, os, sys, threading, time
ready = time.monotonic() + float(sys.argv[2])
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" and time.monotonic() > ready else 503)
        self.end_headers()
    def log_message(self, *a):
        pass
s = http.server.HTTPServer(("127.0.0.1", 0), H)
open(sys.argv[1] + ".new", "w").write(str(s.server_port))
os.rename(sys.argv[1] + ".new", sys.argv[1])
threading.Timer(60, lambda: os._exit(0)).start()
s.serve_forever()
PY
python3 "$tmp/serve.py" "$tmp/port" 1 & server=$!
wait_for [ -s "$tmp/port" ]; port=$(cat "$tmp/port")
check "--ready PORT" says 0 "ready after" 1M --ready "$port" -- sleep 2
check "--ready http:PORT/PATH: 200, not 503" says 0 "ready after" 1M --ready "http:$port/health" -- sleep 4
check "another path: not" bash -c "! '$llmctl' reserve 1M --ready http:$port/ -- sleep 1.5 2>&1 | grep -q ready"

forwards() { # forwards SIGNAL: to the command, and its status back
	local up=$tmp/up.$1 pid
	# What a shell starts in the background ignores SIGINT, and so would the command.
	env --default-signal=INT "$llmctl" reserve 1M -- sh -c "trap 'exit 9' $1; : >'$up'; while :; do sleep 0.1; done" 2>"$tmp/err" & pid=$!
	wait_for [ -e "$up" ] || { kill -9 $pid; return 1; }
	kill -"$1" $pid; wait $pid; [ $? = 9 ]
}
for s in TERM HUP USR1 INT; do check "SIG$s is passed on" forwards $s; done
closed() { "$llmctl" reserve 1M --ready regex:x -- sh -c 'while echo y; do :; done' 2>/dev/null | head -1 >/dev/null; [ "${PIPESTATUS[0]}" -ne 0 ] || true; }
check "nobody reads: the command ends" closed

# ---- holding
check "--hold until a port is open" exits 0 1M --hold --until "$port"
check "until HTTP says so" exits 0 1M --hold --until "http:$port/health"
kill $server; wait $server 2>/dev/null
check "the port is closed: its time passes" says 1 "did not come within 1 s" 1M --hold --until "$port" --seconds 1
sleep 1 & sleeper=$!
check "until a process ends" exits 0 1M --hold --until pid:$sleeper
check "one that is not there" says 2 "no such process" 1M --hold --until pid:$((1 << 29))
mkdir "$tmp/bin"
cat >"$tmp/bin/systemctl" <<'END'
#!/bin/sh
[ "$*" = "show -p ActiveState --value -- engine.service" ] || exit 1
[ -e "$(dirname "$0")/started" ] && echo active || { echo activating; : >"$(dirname "$0")/started"; }
END
cat >"$tmp/bin/docker" <<'END'
#!/bin/sh
for last; do :; done
case $last in plain) echo "running ";; sick) echo "running unhealthy";; well) echo "running healthy";; *) exit 1;; esac
END
chmod +x "$tmp/bin/systemctl" "$tmp/bin/docker"
with() { PATH=$tmp/bin:$PATH "$@"; }
check "until a unit is active" with exits 0 1M --hold --until engine.service
check "until a container runs" with exits 0 1M --hold --until container:plain
check "and is healthy, where it says" with exits 0 1M --hold --until container:well
check "one that is not" with says 1 "did not come" 1M --hold --until container:sick --seconds 1
check "Ctrl-C ends it" bash -c "'$llmctl' reserve 1M --hold --until 1 2>/dev/null & p=\$!; sleep 1; kill -INT \$p; wait \$p; [ \$? = 130 ]"
without() {
	PATH=$tmp/empty "$llmctl" reserve 1M --hold --until engine.service >"$tmp/out" 2>"$tmp/err"
	[ $? = 1 ] && grep -q "systemctl" "$tmp/err"
}
check "no systemctl: it says so" without

# ---- a made-up machine that is full
mkdir -p "$tmp/root/proc/sys/vm" "$tmp/root/sys/fs/cgroup"
printf 'MemTotal: 1000000 kB\nMemFree: 100000 kB\nCached: 800000 kB\nDirty: 1000 kB\n' >"$tmp/root/proc/meminfo"
: >"$tmp/root/proc/sys/vm/drop_caches"; : >"$tmp/root/sys/fs/cgroup/memory.reclaim"
check "no room: the command does not run, and the sum says why" says 1 "512 MiB asked, MemFree is 97.7 MiB: 414 MiB missing" 512M --root "$tmp/root" -- touch "$tmp/ran"
check "nothing ran" [ ! -e "$tmp/ran" ]
check "memory.reclaim was asked" grep -q swappiness=0 "$tmp/root/sys/fs/cgroup/memory.reclaim"
check "drop_caches was not" [ ! -s "$tmp/root/proc/sys/vm/drop_caches" ]
check "--anyway" exits 0 512M --root "$tmp/root" --anyway -- touch "$tmp/ran"
check "--drop-caches" exits 1 512M --root "$tmp/root" --drop-caches -- true
check "is what writes there" [ "$(cat "$tmp/root/proc/sys/vm/drop_caches")" = 1 ]
if [ "$(id -u)" = 0 ]; then
	chmod 755 "$tmp" && cp "$llmctl" "$tmp/llmctl" && chmod 755 "$tmp/llmctl"
	chmod -R go+rX,go-w "$tmp/root"
	nobody() {
		python3 -c 'import os,sys
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
os.execv(sys.argv[1], sys.argv[1:])' "$tmp/llmctl" reserve 512M --root "$tmp/root" --drop-caches -- true 2>"$tmp/err"
		[ $? = 1 ] && grep -q "memory.reclaim: only root may" "$tmp/err" && grep -q "only root may drop" "$tmp/err"
	}
	check "another user: which rights are missing" nobody
fi
check "more than the machine has" says 1 "this machine has 977 MiB" 2G --root "$tmp/root" -- true

# ---- the rest
check "status" exits 0 status
check "says how much is free" grep -q '^MemFree [0-9.]* [GM]iB, [0-9]* free blocks' "$tmp/out"
check "and who does not run" grep -q 'policy: none: .*llmdev-policyd does not run' "$tmp/out"
check "status --json" python3 -c 'import json,sys; j = json.loads(sys.argv[1]); assert j["free"] > 0' "$("$llmctl" reserve status --json)"
if [ ! -e /dev/llm-control ]; then
	check "release without the module" says 1 "not loaded" release
	check "--keep without the module" says 1 "not loaded" 1M --keep
fi
check "--detach without llmdev-policyd" says 1 "does not run" 1M --hold --detach --until 80
for a in "" 0 -5 12Q 1.5G 99999999999999999999 99999T; do
	check "a size that is none: '$a'" says 2 "is no size" -- "$a" true
done
check "no size" says 2 "give a SIZE, status or release"
check "status of something" says 2 "status takes no arguments" status llama
check "release has nothing to say in JSON" says 2 "release takes no arguments" release --json
check "ready by a text that is in every line" says 2 "empty text" 1M --ready "" -- true
check "a time out of range" says 2 "out of range" 1M --seconds 0 -- true
check "nothing came in time: how long it was" says 1 "did not come within 0.3 s" 1M --hold --seconds 0.3 --until pid:$$
check "no command" says 2 "give a COMMAND" 1M
check "--hold without --until" says 2 "give a COMMAND" 1M --hold
check "--until without --hold" says 2 "give a COMMAND" 1M --until 80 -- true
check "a condition that is none" says 2 "is no condition" 1M --hold --until soon
check "a regex that is none" says 2 "regex" 1M --ready 'regex:(' -- true
check "a descriptor that is none" says 2 "fd" 1M --ready fd:1 -- true
check "a mapping of nothing" says 2 "of what" 1M --ready mapping: -- true
check "a time that is none" says 2 "not a number" 1M --seconds soon -- true
echo "1..$n"
exit $failed
