#!/bin/sh
# SPDX-License-Identifier: MIT
# From exec of llmdevd to the first token: weights read from a disk, found in a region of the module,
# found at a keeper. Runs in the virtual machine (vm_restart), with busybox.
: <<'RUN'
// disk: 1400
RUN
n=0 bad=0
ok() { n=$((n + 1)); if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; bad=1; fi; }
now() { awk '{ print int($1 * 1000) }' /proc/uptime; }
export XDG_RUNTIME_DIR=/tmp
mkdir -p /mnt && busybox mount -t ext4 /dev/vda /mnt; ok $? "the disk"
llmctl synth /shape.json /mnt/m --pure --threads 2 2>/tmp/synth.log; ok $? "a model: $(cat /tmp/synth.log)"
cp /tokenizer/* /mnt/m/
control() {
	case $1 in
	keeper) busybox mv /dev/llm-control /dev/llm-hidden ;;
	esac
}
back() { [ -e /dev/llm-hidden ] && busybox mv /dev/llm-hidden /dev/llm-control; }
# run NAME WEIGHTS: one start, killed after its first token
run() {
	control "$1"
	: >/tmp/log
	begin=$(now)
	llmdevd /mnt/m --socket /tmp/s.sock --weights "$2" --ctx 512 2>/tmp/log & daemon=$!
	until grep -q ": serving" /tmp/log; do [ -d /proc/$daemon ] || { sed 's/^/# /' /tmp/log; break; }; sleep 0.01; done
	served=$(now)
	llmctl ask --quiet --socket /tmp/s.sock -n 1 hello >/dev/null 2>/tmp/ask.err
	ok $? "$1: first token after $(($(now) - begin)) ms, serving after $((served - begin)) ms, $(awk '/^rchar|^read_bytes/ { n += $2 } END { print n }' /proc/$daemon/io) bytes read, $(awk '{ print $10 }' /proc/$daemon/stat) faults"
	grep "weights: " /tmp/log | sed 's/^/# /'
	kill -9 $daemon; wait $daemon 2>/dev/null
	back
}
# A loader that is told to stop or killed leaves nothing.
for signal in TERM KILL; do
	: >/tmp/log
	llmdevd /mnt/m --socket /tmp/s.sock --weights region --ctx 512 2>/tmp/log & daemon=$!
	until grep -q "loading into" /tmp/log; do sleep 0.01; done
	sleep 1
	kill -$signal $daemon; wait $daemon 2>/dev/null
	! grep -q ": loaded" /tmp/log; ok $? "SIG$signal in the middle of loading"
	left=$(llmctl region list 2>/dev/null | grep -c '^weights:')
	[ "$left" = 0 ]; ok $? "it leaves $left regions"
done
run region region
llmctl region info "$(llmctl region list | sed -n 's/^\(weights:[^ ]*\) .*/\1/p')" | sed 's/^/# /'
for i in 1 2 3 4 5; do run anon anon; run region region; done
llmctl model unload --all 2>/dev/null
run keeper region
for i in 1 2 3 4 5; do run keeper region; done
control keeper; llmctl model unload --all 2>/dev/null; back
busybox umount /mnt
echo "1..$n"
exit $bad
