#!/bin/bash
# SPDX-License-Identifier: MIT
# llmdev-policyd over a made-up machine: modes and their steps, floors, rate, holds, triggers, reloads,
# clients good and bad. With real memory and the module: tests/vm/policy.sh.
set -u
build=$(realpath "${LLMDEV_BUILD:-build}") policyd=$build/llmdev-policyd llmctl=$build/llmctl
tmp=$(mktemp -d) || exit 1
export LLMDEV_POLICYD=$tmp/run/control.sock
pid=
cleanup() { [ -n "$pid" ] && kill "$pid" 2>/dev/null; rm -rf "$tmp"; }
trap cleanup EXIT
n=0 failed=0
check() {
	n=$((n + 1))
	if "${@:2}"; then echo "ok $n - $1"; else
		echo "not ok $n - $1"; failed=1
		tail -5 "$tmp/log" 2>/dev/null | sed 's/^/# /'
	fi
}
wait_for() { local end=$((SECONDS + 60)); while ! "$@"; do [ $SECONDS -ge $end ] && return 1; sleep 0.05; done; }
root=$tmp/root
meminfo() { printf 'MemTotal: 1000000 kB\nMemFree: %d kB\nMemAvailable: 900000 kB\nCached: %d kB\nDirty: 1000 kB\n' "$1" $((900000 - $1)) >"$root/proc/meminfo.new"; mv "$root/proc/meminfo.new" "$root/proc/meminfo"; }
mkdir -p "$root/proc/sys/vm" "$root/sys/fs/cgroup/system.slice" "$root/srv/models"
meminfo 500000
echo "Node 0, zone Normal 0 0 0 0 0 0 0 0 0 500 0" >"$root/proc/buddyinfo"
head -c 1000000 /dev/zero >"$root/srv/models/a.bin"
fresh() { for f in proc/sys/vm/drop_caches proc/sys/vm/compact_memory sys/fs/cgroup/memory.reclaim sys/fs/cgroup/cgroup.procs; do : >"$root/$f"; done; }
fresh
config() { # config MODE [LINE...]
	printf '[policy]\nmode = %s\nfree = 200M\ninterval = 0.05\npause = 0\n' "$1" >"$tmp/conf.new"
	shift; [ $# -eq 0 ] || printf '%s\n' "$@" >>"$tmp/conf.new"; mv "$tmp/conf.new" "$tmp/conf"
}
start() { "$policyd" --config "$tmp/conf" --root "$root" --socket "$tmp/run/control.sock" 2>>"$tmp/log" & pid=$!; wait_for up; }
up() { "$policyd" --status --socket "$tmp/run/control.sock" >"$tmp/status" 2>"$tmp/err"; }
stop() { kill "$pid" && wait "$pid"; local rc=$?; pid=; return $rc; }
status() { up && python3 -c 'import json,sys; j = json.load(open(sys.argv[1])); s = j["steps"]; sys.exit(not eval("(" + sys.argv[2] + ")"))' "$tmp/status" "$1"; }
reload() { local before; up; before=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["reloads"])' "$tmp/status"); kill -HUP "$pid"; wait_for status "j['reloads'] > $before"; }
says() { "${@:3}" >"$tmp/out" 2>"$tmp/err"; [ $? -eq "$1" ] && grep -q "$2" "$tmp/err"; }

# ---- the configuration
mkdir -p "$tmp/big/proc"; printf 'MemTotal: 125000000 kB\nMemFree: 9000000 kB\n' >"$tmp/big/proc/meminfo"
config auto "[files]" "path = $root/srv/models"
check "--check" grep -q "nothing is wrong" <("$policyd" --check --config "$tmp/conf" --root "$root")
printf '[policy]\nmode = sometimes\n' >"$tmp/bad.conf"
check "nonsense: file, line and reason" says 1 "bad.conf:2: mode = sometimes: there are off" "$policyd" --check --config "$tmp/bad.conf"
check "it does not start with it" says 1 "bad.conf:2" "$policyd" --config "$tmp/bad.conf" --socket "$tmp/x"
printf '[policy]\nfree = 2G\n' >"$tmp/bad.conf"
check "a floor that the machine cannot hold" says 1 "this machine has 977 MiB" "$policyd" --check --config "$tmp/bad.conf" --root "$root"
check "no such file" says 1 "No such file" "$policyd" --check --config "$tmp/none"
check "the example is right" grep -q "nothing is wrong" <("$policyd" --check --config tools/policyd/example.conf --root "$tmp/big")
check "wrong usage" says 2 usage "$policyd" now
check "nobody to be asked" says 1 "does not run" "$policyd" --status --socket "$tmp/none"

# ---- modes
config observe
start; check "it runs" [ $? = 0 ]
check "a second one does not" says 1 "another llmdev-policyd" "$policyd" --config "$tmp/conf" --root "$root" --socket "$tmp/run/control.sock"
check "above the floor: nothing" status 'not j["below"] and j["actions"] == 0 and j["times_below"] == 0'
meminfo 100000
check "observe: below is seen" wait_for status 'j["below"] and j["observed"] > 0 and j["actions"] == 0'
check "and nothing is done" [ ! -s "$root/sys/fs/cgroup/memory.reclaim" ]
check "room is not made either" says 1 "no room is made in mode observe" "$llmctl" reserve 300M --hold --detach --until 1
config files "[files]" "path = $root/srv/mod*" "[filesystems]" "path = $root/srv"; reload
check "files: only those" wait_for status 's["files"]["calls"] > 0 and s["filesystems"]["calls"] == s["reclaim"]["calls"] == 0'
check "what does not help is tried less often" wait_for status 'j["futile"] > 0 and j["put_off"] > 0'
config fs "[files]" "path = $root/srv/mod*" "[filesystems]" "path = $root/srv"; reload
check "fs: filesystems too" wait_for status 's["filesystems"]["calls"] > 0 and s["reclaim"]["calls"] == 0'
config auto; reload
check "auto: memory.reclaim; no drop_caches" wait_for status 's["reclaim"]["calls"] > 0 and s["reclaim"]["failed"] == 0 and s["drop_caches"]["calls"] == 0'
check "for what is missing" grep -q '^[0-9]* swappiness=0' "$root/sys/fs/cgroup/memory.reclaim"
check "what it cannot do is said" status 'any("module" in c for c in j["cannot"]) and s["module"]["failed"] > 0'
check "drop_caches was left alone" [ ! -s "$root/proc/sys/vm/drop_caches" ]
config global; reload
check "global: that as well" wait_for status 's["drop_caches"]["calls"] > 0'
check "with what the kernel wants" [ "$(cat "$root/proc/sys/vm/drop_caches")" = 1 ]
meminfo 500000
check "above the floor again: quiet" wait_for status 'not j["below"] and j["futile"] == 0'
check "recent actions, with before and after" status 'j["recent"][0]["free_before"] == 100000 << 10 and j["recent"][0]["why"] == "floor"'
echo "Node 0, zone Normal 0 0 0 0 0 0 0 0 0 5 0" >"$root/proc/buddyinfo"
sed -i '2a blocks = 50' "$tmp/conf"; reload
check "too few blocks: compacted" wait_for [ -s "$root/proc/sys/vm/compact_memory" ]
config off; reload
check "off: it does not even look" status 'j["mode"] == "off"'
echo "[" >"$tmp/conf"; kill -HUP "$pid"
check "a bad file at SIGHUP: the old one stays" wait_for grep -q "the old configuration stays" "$tmp/log"
check "... and works" status 'j["mode"] == "off"'

# ---- holds
config auto; reload; meminfo 500000
check "--hold --detach" "$llmctl" reserve 300M --quiet --hold --detach --until 1 --seconds 300
check "is held" status 'len(j["holds"]) == 1 and j["holds"][0]["until"] == "1" and j["holds"][0]["left"] == 300 << 20'
meminfo 250000
check "page cache that fills it is made to go" wait_for status 'j["actions"] > 0 and j["below"]'
printf 'MemTotal: 1000000 kB\nMemFree: 100000 kB\nCached: 400000 kB\n' >"$root/proc/meminfo"
check "what is taken is not held" wait_for status 'j["holds"][0]["left"] == 0'
check "llmctl reserve status" bash -c "'$llmctl' reserve status | grep -q 'policy: mode auto, floors 200 MiB and 0 blocks, 1 holds'"
check "release" "$llmctl" reserve release
check "ends it" status 'not j["holds"]'
meminfo 500000
connection() {
	"$llmctl" reserve 100M --quiet -- sh -c "echo \$\$ >'$tmp/engine'; exec sleep 60" & local p=$! ok
	wait_for status 'len(j["holds"]) == 1'; ok=$?
	wait_for [ -s "$tmp/engine" ]
	kill -9 $p; wait $p 2>/dev/null
	kill "$(cat "$tmp/engine")" # it does not end with who started it
	[ $ok = 0 ] && wait_for status 'not j["holds"]'
}
check "a client that is killed holds nothing" connection
many() {
	for _ in $(seq 32); do "$llmctl" reserve 1M --quiet --hold --detach --until 1 --seconds 300 || return 1; done
	says 1 "32 holds at once" "$llmctl" reserve 1M --hold --detach --until 1
}
check "32 holds, and no more" many
"$llmctl" reserve release
check "more than the machine has" says 1 "more than the machine has\|this machine has" "$llmctl" reserve 1G --root "" --hold --detach --until 1
check "a hold's time ends" "$llmctl" reserve 1M --quiet --hold --detach --until 1 --seconds 0.2
check "by itself" wait_for status 'not j["holds"]'

# ---- a unit that starts
config auto "[start engine]" "unit = engine@*.service" "room = 450M" "until = 1" "seconds = 100"; reload
mkdir "$root/sys/fs/cgroup/system.slice/other.service" "$root/sys/fs/cgroup/system.slice/engine@1.service"
check "its cgroup: room is made and held" wait_for status 'j["triggers"] == 1 and j["holds"][0]["bytes"] == 450 << 20 and "engine@1" in j["holds"][0]["who"]'

check "the same again: in place of the first" bash -c "sleep 2.2; rmdir '$root/sys/fs/cgroup/system.slice/engine@1.service'; mkdir '$root/sys/fs/cgroup/system.slice/engine@1.service'"
check "one hold" wait_for status 'j["triggers"] == 2 and len(j["holds"]) == 1'
check "a folder and a unit in it at once" mkdir -p "$root/sys/fs/cgroup/new.slice/engine@2.service"
check "count once" wait_for status 'j["triggers"] == 3 and len(j["holds"]) == 2'
"$llmctl" reserve release

# ---- clients that are not nice
cat >"$tmp/rude.py" <<'PY'
import json, os, socket, sys
def ask(data):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(30)
    s.connect(sys.argv[1])
    s.send(data)
    return json.loads(s.recv(1 << 20))
if sys.argv[2] == "nobody":
    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
    assert ask(b'{"op":"status"}')["ok"]
    for op in ("room", "hold", "release"):
        a = ask(json.dumps({"op": op, "bytes": 1}).encode())
        assert not a["ok"] and a["denied"] and "llmdev-admin" in a["error"], a
else:
    for bad in (b"x", b"[]", b"{}", b'{"op":7}', b'{"op":"dance"}', b'{"op":"room"}', b'{"op":"room","bytes":-1}',
                b'{"op":"room","bytes":1e300}', b'{"op":"hold","bytes":70368744177665}', b"\xff" * 4000, b"[" * 4096,
                b'{"op":"hold","bytes":1,"until":"soon"}', b'{"op":"status"' + b" " * 9000 + b"}"):
        a = ask(bad)
        assert a["ok"] is False and a["error"], (bad, a)
    held = []
    for _ in range(200):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            s.connect(sys.argv[1])
            held.append(s)
        except BlockingIOError:
            s.close()
    for s in held:
        s.close()
PY
check "packets that are no requests, 200 connections" python3 "$tmp/rude.py" "$LLMDEV_POLICYD" rude
check "it still answers" wait_for status 'j["ok"]'
if [ "$(id -u)" = 0 ]; then
	chmod 755 "$tmp" "$tmp/run"
	check "anybody may ask for the status, and for nothing else" python3 "$tmp/rude.py" "$LLMDEV_POLICYD" nobody
else
	n=$((n + 1)); echo "ok $n # SKIP not root: what others may ask"
fi
check "SIGTERM: it ends well" stop
check "its socket is gone" [ ! -e "$tmp/run/control.sock" ]
check "no sanitizer complains" bash -c "! grep -q 'Sanitizer\|runtime error' '$tmp/log'"
start; kill -9 "$pid"; wait "$pid" 2>/dev/null
start; check "killed: the next one takes its socket" [ $? = 0 ]
echo "1..$n"
exit $failed
