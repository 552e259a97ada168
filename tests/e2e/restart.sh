#!/bin/bash
# SPDX-License-Identifier: MIT
# Weights that stay in memory (llmdev-keeper, no kernel module): a daemon that is killed and started
# again reads none of them and goes on with its answers; llmctl model and llmctl region.
# shellcheck source=tests/e2e/daemon.bash
. "$(dirname "$0")/daemon.bash"
if [ -e /dev/llm-control ]; then
	skip "a kernel module would be used here: see tests/vm"
	finish
fi
unset NOTIFY_SOCKET
export XDG_RUNTIME_DIR=$tmp
ctl=$build/llmctl
# A copy: it is going to be changed.
cp -rL "$model" "$tmp/model" && chmod -R u+w "$tmp/model"
model=$tmp/model
weights=$(stat -c %s "$model/model.safetensors")
q="What happens if the daemon is killed?"
forget() {
	stop_daemon 9
	"$ctl" model unload --all 2>/dev/null
	cleanup
}
trap forget EXIT
# bytes that the daemon has read, through the page cache or past it
bytes_read() { awk '/^rchar|^read_bytes/ { n += $2 } END { print n }' /proc/"$daemon"/io; }
log_has() { grep -q "$1" "$tmp/log"; }
row() { "$ctl" model list 2>/dev/null | awk -v c="$1" 'NR == 2 { print $c }'; }
users() { "$ctl" region list --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["users"])'; }

# to FILE COMMAND...: its results there, without the lines of check
to() { "${@:2}" >"$1" 2>"$tmp/err"; }
# A daemon that swap has started is not our child.
pid_at() {
	python3 -c 'import socket, struct, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(sys.argv[1])
print(struct.unpack("3i", s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])' "$1"
}

# whether this kernel makes huge pages of a memfd that is small pages, as MADV_COLLAPSE asks
collapses() {
	python3 -c 'import ctypes, os, sys
fd = os.memfd_create("probe")
os.ftruncate(fd, 2 << 20)
c = ctypes.CDLL(None)
c.mmap.restype = ctypes.c_void_p
at = c.mmap(ctypes.c_void_p(0x200000000000), ctypes.c_size_t(2 << 20), 3, 1, fd, ctypes.c_long(0))
if at != 0x200000000000: sys.exit(1)
ctypes.memset(at, 0, 1)
sys.exit(c.madvise(ctypes.c_void_p(at), ctypes.c_size_t(2 << 20), 25) != 0)'
}

# ---- nothing yet
check "region list: nothing, no error" "$ctl" region list 2>/dev/null
check "model list --json: an empty list" [ "$("$ctl" model list --json)" = "[]" ]
"$ctl" region destroy nothing 2>"$tmp/err"
check "region destroy: says that there is none" grep -q "there is none of that name" "$tmp/err"
"$ctl" model unload nothing 2>"$tmp/err"
check "model unload: says that there is none" grep -q "no weights of that name" "$tmp/err"
for wrong in "region" "region list x" "region info" "region destroy" "model" "model load" "model unload" "model unload x --all" "model drop x"; do
	# shellcheck disable=SC2086
	"$ctl" $wrong >/dev/null 2>"$tmp/err"
	check "llmctl $wrong: exit status 2" [ $? = 2 ]
done

# ---- cold, killed, warm
start_daemon --weights anon
cold=$(bytes_read)
ask "$q" >"$tmp/want"
stop_daemon 9
start_daemon --weights region
check "the first one loads into a region" log_has "weights: loading into region weights:.*keeper"
ask "$q" >"$tmp/got"
check "the same answer as from anonymous memory" cmp "$tmp/want" "$tmp/got"
stop_daemon 9
check "killed: the weights stay" [ "$("$ctl" model list --json | python3 -c 'import json, sys; print(len(json.load(sys.stdin)))')" = 1 ]
: >"$tmp/log"
start_daemon --weights region
warm=$(bytes_read)
check "the next one finds them" log_has "found in region weights:.*: nothing to read"
if [ "$cold" -gt "$weights" ]; then
	check "it has read $warm bytes, cold $cold: the weights are $weights" [ $((cold - warm)) -gt $((weights * 9 / 10)) ]
else
	skip "what is read of $tmp is counted nowhere (tmpfs, io_uring)"
fi
ask "$q" >"$tmp/got"
check "the same answer" cmp "$tmp/want" "$tmp/got"
if collapses; then
	huge=$(awk '/^ShmemPmdMapped/ { n += $2 } END { print n }' /proc/"$daemon"/smaps)
	check "mapped in huge pages: $huge kB" [ "$huge" -gt 0 ]
else
	skip "this kernel has no huge pages for a memfd"
fi
stop_daemon 9

# ---- an answer goes on across it
start_daemon --weights region --pace 50
ask "$q" >"$tmp/got" &
client=$!
wait_for 60 bigger_than "$tmp/got" 20
stop_daemon 9
at=$(stat -c %s "$tmp/got")
start_daemon --weights region
wait "$client"
check "killed after $at bytes of an answer: it goes on, byte for byte" cmp "$tmp/want" "$tmp/got"

# ---- two daemons, one copy
"$build/llmdevd" "$model" --socket "$tmp/second.sock" --threads 1 --weights region 2>"$tmp/log2" &
second=$!
wait_for 60 grep -q serving "$tmp/log2"
check "a second daemon shares the region" grep -q "found in region" "$tmp/log2"
check "which has two users" [ "$(users)" = 2 ]
kill -9 "$second"; wait "$second" 2>/dev/null
one_user() { [ "$(users)" = 1 ]; }
check "and one again when it is killed" wait_for 20 one_user

# ---- what stays can be let go of, also while it is used
name=$("$ctl" region list --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["name"])')
check "region info --verify" to "$tmp/info" "$ctl" region info "$name" --verify
check "says what it is" grep -q "^sum  *right" "$tmp/info"
check "model unload by path, while it is used" "$ctl" model unload "$model" 2>"$tmp/err"
check "says so" grep -q "still used" "$tmp/err"
ask "$q" >"$tmp/got"
check "the daemon goes on" cmp "$tmp/want" "$tmp/got"
stop_daemon TERM
check "SIGTERM: says that they stay" log_has "the weights stay in memory"
check "nothing is there" [ "$("$ctl" model list --json)" = "[]" ]

# ---- replaced by another daemon
: >"$tmp/log"
start_daemon --weights region
check "swap: the same model in a new daemon" to "$tmp/out" "$ctl" swap "$socket" "$model"
gone() { ! kill -0 "$daemon" 2>/dev/null; }
check "the old one ends" wait_for 60 gone
wait "$daemon" 2>/dev/null
check "its weights are the new one's" [ "$("$ctl" region list --json | grep -c '"name"')" = 1 ]
daemon=$(pid_at "$socket")
cp -r "$model" "$tmp/other"
check "swap: another model" to "$tmp/out" "$ctl" swap "$socket" "$tmp/other"
one() { "$ctl" region list --json | grep '"name"' >"$tmp/names"; [ "$(wc -l <"$tmp/names")" = 1 ] && grep -q weights:other "$tmp/names"; }
check "the old one's weights go with it" wait_for 60 one
daemon=$(pid_at "$socket")
kill -9 "$daemon"
daemon=
"$ctl" model unload --all 2>/dev/null

# ---- without a daemon
check "model load" to "$tmp/name" "$ctl" model load "$model" --threads 1
check "prints the region's name and nothing else" [ "$(grep -c "^weights:" "$tmp/name") $(wc -l <"$tmp/name")" = "1 1" ]
check "once more: it is there" to /dev/null "$ctl" model load "$model" --threads 1
check "and says so" grep -q "nothing to read" "$tmp/err"
check "model list has it" [ "$(row 1)" = model ]
: >"$tmp/log"
start_daemon --weights region --verify-weights
check "a daemon finds it, and sums it up" log_has "nothing to read"
stop_daemon TERM

# ---- another file under the same name
printf '\x3f' | dd of="$model/model.safetensors" bs=1 seek=$((weights - 9)) conv=notrunc 2>/dev/null
: >"$tmp/log"
start_daemon --weights region
check "a changed checkpoint is loaded again" log_has "loading into region"
check "the old region is gone" log_has "out of date: destroyed"
check "there is one" [ "$("$ctl" region list --json | grep -c '"name"')" = 1 ]
stop_daemon TERM

# ---- refusals
"$build/llmdevd" "$model" --socket "$tmp/x.sock" --weights disk 2>"$tmp/err"
check "--weights disk: exit status 2" [ $? = 2 ]
keeper=$(sed -n 's/^Pid:\t//p' /proc/[0-9]*/status 2>/dev/null | while read -r p; do
	[ "$(readlink /proc/"$p"/exe)" = "$(realpath "$build/llmdev-keeper")" ] &&
		tr '\0' '\n' </proc/"$p"/environ | grep -qx "XDG_RUNTIME_DIR=$tmp" && echo "$p"
done)
check "one keeper: process $keeper" [ "$(echo "$keeper" | wc -w)" = 1 ]
check "model unload --all" "$ctl" model unload --all 2>/dev/null
gone() { ! [ -e /proc/"$keeper" ]; }
check "the keeper ends when it holds nothing" wait_for 60 gone
: >"$tmp/log"
start_daemon --weights auto
check "auto: a small model is not worth a region" log_has "in anonymous memory: under 256 MiB"
stop_daemon TERM
NOTIFY_SOCKET=/nowhere "$build/llmdevd" "$model" --socket "$tmp/x.sock" --weights region 2>"$tmp/err"
check "a service without a keeper's: refused: $(cut -c1-100 "$tmp/err")" grep -q "llmdev-keeper" "$tmp/err"
finish
