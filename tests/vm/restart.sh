#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Weights in regions of the real module (see run; check-restart puts the files in): a daemon that is
# killed and started again reads none of them; a loader that is killed half way leaves nothing; other
# users' regions are not believed. Runs in the machine, with busybox.
: <<'RUN'
// disk: 64
RUN
. /llmdevd.sh
# fresh [OPTION...]: start it with an empty log
fresh() { : >$log; start "$@"; }
says() { grep -q "$1" $log; }
bytes_read() { [ -e /proc/self/io ] && awk '/^rchar|^read_bytes/ { n += $2 } END { print n }' /proc/$daemon/io; }
regions() { llmctl region list 2>/dev/null | grep -c '^weights:'; }
name() { llmctl region list | sed -n 's/^\(weights:[^ ]*\) .*/\1/p' | head -1; }
users() { llmctl region list --json | sed -n 's/.*"users": \([0-9]*\).*/\1/p' | head -1; }
q1="Why is the sky blue?" q2="What happens if the daemon is killed?"
# On a disk: what io_uring reads of a tmpfs is counted nowhere.
mkdir -p /mnt && busybox mount -t ext4 /dev/vda /mnt && cp -r /model /mnt/model && busybox sync; ok $? "the model on a disk"
model=/mnt/model
weights=$(wc -c <$model/model.safetensors)
free_before=$(awk '/^MemFree/ { print $2 }' /proc/meminfo)

# ---- cold, killed, warm
fresh --weights anon; ok $? "llmdevd, weights in anonymous memory"
cold=$(bytes_read)
llmctl ask --quiet --device /dev/llm0 "$q1" >/tmp/a1
stop
fresh --weights region; ok $? "llmdevd, weights in a region"
says "loading into region weights:.*(kernel)"; ok $? "of the kernel: $(grep -o 'weights: .*' $log | head -1)"
llmctl ask --quiet --device /dev/llm0 "$q1" >/tmp/a2
cmp /tmp/a1 /tmp/a2; ok $? "the same answer"
exec 3<>/dev/llm0
echo "$q1" >&3; cat <&3 >/tmp/b1
stop
[ "$(regions)" = 1 ]; ok $? "killed: the region stays"
fresh --weights region
warm=$(bytes_read)
says "found in region .*nothing to read"; ok $? "the next one finds it"
if [ -n "$warm" ]; then
	[ $((cold - warm)) -gt $((weights * 9 / 10)) ]; ok $? "it has read $warm bytes, cold $cold: the weights are $weights"
else
	ok 0 "# SKIP this kernel does not count what a process reads"
fi
echo "$q2" >&3; cat <&3 >/tmp/b2
exec 3>&-
grep -q "continues. No token is lost or repeated" /tmp/b2; ok $? "the conversation goes on: $(head -c 60 /tmp/b2)..."
stop

# ---- in the middle of an answer
fresh --weights region --pace 50
had=$(of tokens)
llmctl ask --quiet --device /dev/llm0 "$q1" >/tmp/a2 & client=$!
until_tokens $((had + 7)); stop; fresh --weights region
wait $client; cmp /tmp/a1 /tmp/a2; ok $? "killed after 7 tokens of an answer: the same bytes"

# ---- shared, let go of while it is used
llmdevd $model --socket /tmp/second.sock --threads 1 --weights region 2>/tmp/log2 & second=$!
for _ in $(seq 600); do grep -q serving /tmp/log2 && break; sleep 0.1; done
grep -q "found in region" /tmp/log2; ok $? "a second daemon shares it"
[ "$(users)" = 2 ]; ok $? "two mappings: $(users)"
kill -9 $second; wait $second 2>/dev/null
[ "$(users)" = 1 ]; ok $? "one, when it is killed"
llmctl region info "$(name)" --verify >/tmp/info; ok $? "region info --verify"
grep -q "^sum  *right" /tmp/info; ok $? "the sum is right: $(grep 2.MiB /tmp/info)"
region=$(name)
llmctl model unload model 2>/tmp/err; ok $? "model unload while it is used"
grep -q "still used" /tmp/err; ok $? "says so"
[ "$(regions)" = 0 ]; ok $? "the name is gone"
llmctl ask --quiet --device /dev/llm0 "$q1" >/tmp/a2; cmp /tmp/a1 /tmp/a2; ok $? "the daemon goes on"
stop TERM

# ---- half written
region_tool half "$region" 8388608 0; ok $? "a loader was killed half way"
[ "$(regions)" = 0 ]; ok $? "it leaves nothing"
fresh --weights region
says "loading into region" && [ "$(regions)" = 1 ]; ok $? "the next one loads"
llmctl ask --quiet --device /dev/llm0 "$q1" >/tmp/a2; cmp /tmp/a1 /tmp/a2; ok $? "the same answer"
stop; llmctl region destroy "$region"
region_tool half "$region" 8388608 600 & holder=$!
for _ in $(seq 100); do [ "$(regions)" = 1 ] && break; sleep 0.1; done
llmdevd $model --socket /tmp/second.sock --threads 1 --weights region 2>/tmp/log2 & second=$!
for _ in $(seq 300); do grep -q "waiting for it" /tmp/log2 && break; sleep 0.1; done
grep -q "process $holder is loading the same: waiting" /tmp/log2; ok $? "another process is at it: $(grep waiting /tmp/log2)"
kill -9 $holder; wait $holder 2>/dev/null
for _ in $(seq 600); do grep -q serving /tmp/log2 && break; sleep 0.1; done
grep -q "loading into region" /tmp/log2 && grep -q serving /tmp/log2; ok $? "when that one is killed the waiting one loads"
kill $second; wait $second 2>/dev/null
llmctl model unload --all 2>/dev/null
region_tool half "$region" 8388608 600 & holder=$!
for _ in $(seq 100); do [ "$(regions)" = 1 ] && break; sleep 0.1; done
llmdevd $model --socket /tmp/second.sock --threads 1 --weights region 2>/tmp/log2 & second=$!
for _ in $(seq 300); do grep -q "waiting for it" /tmp/log2 && break; sleep 0.1; done
kill $second; wait $second 2>/dev/null
grep -q "stopped while loading" /tmp/log2 && [ "$(regions)" = 1 ]; ok $? "SIGTERM while it waits: it ends, the other one's region stays"
kill -9 $holder; wait $holder 2>/dev/null
[ "$(regions)" = 0 ]; ok $? "killed, that one leaves nothing"

# ---- without a daemon
llmctl model load $model --threads 1 >/tmp/name 2>/tmp/err; ok $? "model load"
llmctl model list | grep -q "^model .*kernel .*$model"; ok $? "model list has it"
fresh --weights region; says "nothing to read"; ok $? "a daemon finds it"
stop; llmctl model unload --all 2>/dev/null

# ---- rights
busybox chmod -R a+rX /mnt
busybox chmod 600 /dev/llm-control
region_tool as 1000 llmctl region list 2>/tmp/err; [ $? = 1 ] && grep -q "llmdev-admin" /tmp/err
ok $? "region list without the right: $(head -c 120 /tmp/err)"
XDG_RUNTIME_DIR=/none region_tool as 1000 llmdevd $model --socket /tmp/x.sock --weights region 2>/tmp/err
[ $? = 1 ] && grep -q "llmdev-admin" /tmp/err; ok $? "llmdevd --weights region names it, too"
busybox chmod 666 /dev/llm-control
(ulimit -l 1024; XDG_RUNTIME_DIR=/none region_tool as 1000 llmctl model load $model 2>/tmp/err)
[ $? = 1 ] && grep -q "ulimit -l" /tmp/err; ok $? "more than RLIMIT_MEMLOCK: $(head -c 200 /tmp/err)"
[ "$(regions)" = 0 ]; ok $? "of which nothing is left"
(ulimit -l unlimited; region_tool as 1000 llmctl model load $model --threads 1 >/tmp/name 2>/tmp/err); ok $? "another user's weights"
XDG_RUNTIME_DIR=/none llmdevd $model --socket /tmp/x.sock --threads 1 --weights region 2>/tmp/err
[ $? = 1 ] && grep -q "uid 1000" /tmp/err; ok $? "are not believed: $(grep -o 'belongs to[^;]*' /tmp/err)"
region_tool as 1001 llmctl region destroy "$(cat /tmp/name)" 2>/tmp/err; [ $? = 1 ] && grep -q "owner or root" /tmp/err
ok $? "destroyed by a third one: $(head -1 /tmp/err)"
llmctl region destroy "$(cat /tmp/name)"; ok $? "by root"

# ---- the end
[ "$(llmctl region list --json)" = "[]" ]; ok $? "no region is left"
free_after=$(awk '/^MemFree/ { print $2 }' /proc/meminfo)
echo "# MemFree $free_before kB, then $free_after kB"
! grep -q "Sanitizer\|runtime error" $log; ok $? "no sanitizer complains (where llmdevd was built with them)"
busybox umount /mnt; ok $? "the disk is free"
echo "1..$n"
exit $bad
