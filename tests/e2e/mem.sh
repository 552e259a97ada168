#!/bin/bash
# SPDX-License-Identifier: MIT
# llmctl mem: the sum, over made-up /proc trees; pictures, lines, JSON; what it says of nonsense.
set -u
build=${LLMDEV_BUILD:-build} llmctl=${LLMDEV_BUILD:-build}/llmctl
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
n=0 failed=0
check() {
	n=$((n + 1))
	if "${@:2}"; then echo "ok $n - $1"; else
		echo "not ok $n - $1"; failed=1
		[ -s "$tmp/err" ] && head -5 "$tmp/err" | sed 's/^/# /'
	fi
}
json() { # json EXPRESSION over j, ARGUMENTS of llmctl mem
	"$llmctl" mem --json "${@:2}" >"$tmp/json" 2>"$tmp/err" &&
		python3 -c 'import json,sys; j = json.load(open(sys.argv[1])); p = j["parts"]; sys.exit(not eval("(" + sys.argv[2] + ")"))' "$tmp/json" "$1"
}
fails() { # fails STATUS PATTERN COMMAND...
	"${@:3}" >"$tmp/out" 2>"$tmp/err"
	[ $? -eq "$1" ] && grep -q "$2" "$tmp/err" && [ "$(wc -l <"$tmp/err")" -le 2 ]
}

check "this machine: the parts add up to MemTotal" json 'sum(p.values()) == j["total"] and min(p.values()) >= 0'
check "its free memory is in it" json '0 < p["free"] <= j["total"] and j["available"] > 0'
check "page cache by filesystem" json 'all(f["cached"] >= f["dirty"] >= 0 and f["files"] > 0 for f in j["filesystems"])'
big() {
	head -c 8000000 /dev/zero >"$tmp/big"
	json 'any(f["cached"] >= 7000000 for f in j["filesystems"])' --path "$tmp" ||
		[ "$(stat -f -c %T "$tmp")" = tmpfs ]
}
check "a file that nobody has open, named with --path" big

if [ "$(id -u)" = 0 ] && chmod 711 "$tmp" && cp "$llmctl" "$tmp/llmctl"; then
	python3 - "$tmp/llmctl" >/dev/null 2>"$tmp/err" <<-'PY'
	import os, sys
	os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
	os.execv(sys.argv[1], ["llmctl", "mem"])
	PY
	check "another user: whose files were not looked at, and who may" grep -q '^not looked at: open files of [0-9]* process.*: not this user.s; sudo' "$tmp/err"
	check "in JSON by kind" json 'set(j["not_looked_at"]) == {"processes_open_files", "processes_mapped_files", "files"}'
fi

# ---- a GB10 whose driver holds 80 GiB outside every counter
mkdir -p "$tmp/gb10/proc"
cat >"$tmp/gb10/proc/meminfo" <<'END'
MemTotal:       127535616 kB
MemFree:         4194304 kB
MemAvailable:   33554432 kB
Buffers:          102400 kB
Cached:         33554432 kB
SwapCached:            0 kB
Active(anon):    4194304 kB
Inactive(anon):  1048576 kB
SwapTotal:      16777216 kB
SwapFree:       16777216 kB
Dirty:            204800 kB
Writeback:             0 kB
AnonPages:       4194304 kB
Mapped:           524288 kB
Shmem:           1048576 kB
KReclaimable:     524288 kB
Slab:             786432 kB
SReclaimable:     524288 kB
SUnreclaim:       262144 kB
KernelStack:       32768 kB
PageTables:        65536 kB
VmallocUsed:       65536 kB
Percpu:            16384 kB
Hugetlb:               0 kB
END
echo "Node 0, zone   Normal  100 100 100 100 100 100 100 100 100 70 1" >"$tmp/gb10/proc/buddyinfo"
gb10=(--root "$tmp/gb10")
check "what the driver holds is the remainder" json 'sum(p.values()) == j["total"] and 80 << 30 < p["remainder"] < 82 << 30' "${gb10[@]}"
check "free blocks of 2 MiB" json "j['free_blocks_2m'] == $([ "$(getconf PAGESIZE)" = 4096 ] && echo 72 || echo 'j["free_blocks_2m"]')" "${gb10[@]}"
"$llmctl" mem "${gb10[@]}" >"$tmp/text" 2>"$tmp/err"
check "for people: a line a part" grep -Eq '^remainder +8[01]\.[0-9] GiB +6[0-9]\.[0-9] %  in no counter' "$tmp/text"
check "a pipe gets no control sequences" bash -c "! grep -q $'\\033' '$tmp/text'"
check "zero parts are listed for scripts" grep -q '^hugetlb  *0 B' "$tmp/text"

cat >"$tmp/terminal.py" <<'PY'
import fcntl, os, pty, select, signal, struct, sys, termios, time
columns, no_color, watch = int(sys.argv[2]), sys.argv[3], sys.argv[4] == "watch"
pid, fd = pty.fork()
if pid == 0:
    time.sleep(0.3)
    os.environ.update(TERM="xterm", NO_COLOR=no_color)
    os.execv(sys.argv[1], ["llmctl", "mem", "--root", sys.argv[5]] + (["--watch", "0.1"] if watch else []))
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 20, columns, 0, 0))
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
    if watch and not sent and out.count(b"\033[J") >= 3:
        os.kill(pid, signal.SIGINT)
        sent = True
status = os.waitpid(pid, 0)[1]
text = out.decode()
assert status == 0, (status, text)
import re
assert ("\033[0;" in text) == (no_color == ""), "colour"
rows = [re.sub(r"\033\[[0-9;]*[A-Za-z]", "", r).strip("\r") for r in text.split("\n")]
assert all(len(r) <= columns for r in rows), [r for r in rows if len(r) > columns]
bar = next(r for r in rows if r.startswith("["))
assert bar.endswith("]") and bar.count("?") > 0.5 * len(bar), bar
assert not watch or (sent and re.search(r"\033\[\d+A\r", text)), "not drawn over"
PY
check "a terminal: a bar, coloured" python3 "$tmp/terminal.py" "$llmctl" 80 "" once "$tmp/gb10"
check "NO_COLOR" python3 "$tmp/terminal.py" "$llmctl" 80 1 once "$tmp/gb10"
check "a narrow one" python3 "$tmp/terminal.py" "$llmctl" 30 "" once "$tmp/gb10"
check "--watch draws over it" python3 "$tmp/terminal.py" "$llmctl" 60 1 watch "$tmp/gb10"
watched() { # watched PATTERN ARGUMENTS...: until three lines are there
	: >"$tmp/lines"
	"$llmctl" mem "${gb10[@]}" --watch 0.1 "${@:2}" >"$tmp/lines" & local pid=$! i
	for i in $(seq 300); do [ "$(wc -l <"$tmp/lines")" -ge 3 ] && break; sleep 0.1; done
	kill -INT $pid; wait $pid && [ "$(grep -c "$1" "$tmp/lines")" -ge 3 ]
}
check "--watch into a pipe: a line a sample" watched '^[0-9T:+-]* free 4096 .* remainder 8[0-9]* blocks'
check "--watch --json: an object a line" watched '^{"total":130596470784,.*}$' --json
closed() { "$llmctl" mem "${gb10[@]}" --watch 0.1 | head -1 >/dev/null; [ "${PIPESTATUS[1]}" = 0 ]; }
check "--watch into a pipe that is closed ends" closed

# ---- nonsense
mkdir -p "$tmp/bad/proc"; echo "MemTotal: many" >"$tmp/bad/proc/meminfo"
check "a /proc that is none" fails 1 "no line MemTotal" "$llmctl" mem --root "$tmp/bad"
check "no /proc" fails 1 "No such file" "$llmctl" mem --root "$tmp/none"
check "a --path that is not there" fails 1 "none: No such file" "$llmctl" mem --path "$tmp/none"
check "an interval out of range" fails 2 "out of range" "$llmctl" mem --watch=0
check "control characters of an argument are not passed to the terminal" fails 1 "a?b?.31m: there is none" "$llmctl" region info $'a\nb\033[31m'
check "region list has nothing to verify" fails 2 "region: list, info NAME" "$llmctl" region list --verify
check "an argument" fails 2 "takes no arguments" "$llmctl" mem all
check "an interval that is none" fails 2 "not a number" "$llmctl" mem --watch=often
check "--help" grep -q -- --watch <("$llmctl" mem --help)
echo "1..$n"
exit $failed
