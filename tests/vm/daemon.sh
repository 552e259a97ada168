#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The real llmdevd behind the real /dev/llm0 (see run; check-daemon puts the files in): text mode
# from a shell, kills of the daemon in the middle of answers, another model. Runs in the machine,
# with busybox.
. /llmdevd.sh
q1="Why is the sky blue?" q2="What happens if the daemon is killed?"
sampled='{"messages":[{"role":"user","content":"What is a mutex?"}],"temperature":1,"seed":7,"max_tokens":60}'

start; ok $? "llmdevd makes the device and serves it"

# ---- undisturbed: a shell is all that is needed
exec 3<>/dev/llm0
echo "$q1" >&3; cat <&3 >/tmp/a1
echo "$q2" >&3; cat <&3 >/tmp/a2
exec 3>&-
grep -q "^Air scatters short wavelengths" /tmp/a1; ok $? "echo >&3, cat <&3: $(head -c 60 /tmp/a1)..."
grep -q "continues. No token is lost or repeated" /tmp/a2; ok $? "a second question on the same descriptor: $(head -c 60 /tmp/a2)..."
llmctl ask --quiet --device /dev/llm0 "$q1" >/tmp/e1; ok $? "llmctl ask over the device"
printf '%s\n' "$(cat /tmp/a1)" | cmp - /tmp/e1; ok $? "says the same as text mode"
llmctl ask --quiet --device /dev/llm0 --json "$sampled" >/tmp/s1; ok $? "a sampled answer"
[ "$(wc -c </tmp/s1)" -gt 40 ]; ok $? "has some length: $(wc -c </tmp/s1) bytes"
llmctl status --socket /tmp/llm0.sock >/tmp/status
grep -q "sessions" /tmp/status; ok $? "llmctl status, at the socket beside it: $(head -1 /tmp/status)"

# ---- the daemon is killed between two questions
exec 3<>/dev/llm0
echo "$q1" >&3; cat <&3 >/tmp/b1
stop
start; ok $? "killed between two questions, and started again"
echo "$q2" >&3; cat <&3 >/tmp/b2
exec 3>&-
cmp /tmp/a1 /tmp/b1 && cmp /tmp/a2 /tmp/b2; ok $? "the conversation went on, byte for byte"
stop TERM

# ---- killed after the k-th token
echo 1 >/sys/kernel/tracing/events/llm/llm_request_tokens/enable
: >/sys/kernel/tracing/trace
# killed NAME K WHAT...: run WHAT into /tmp/NAME, kill -9 once K more tokens are out, start again
killed() {
	out=/tmp/$1 k=$2
	shift 2
	start --pace 50 || return 1
	had=$(of tokens)
	"$@" >"$out" & client=$!
	until_tokens $((had + k)); stop; at=$(of tokens)
	start || return 1
	wait $client; rc=$?
	all=$(of tokens)
	echo "# killed after $((at - had)) tokens of $((all - had))"
	[ "$at" -lt "$all" ] || echo "# (too late: the answer was complete)"
	stop TERM
	return $rc
}
text_turn() { exec 3<>/dev/llm0; echo "$q1" >&3; cat <&3; echo "$q2" >&3; cat <&3 >/tmp/turn2; exec 3>&-; }
# exec: in the background $! is the client, not a shell that waits for it.
greedy() { exec llmctl ask --quiet --device /dev/llm0 "$q1"; }
random() { exec llmctl ask --quiet --device /dev/llm0 --json "$sampled"; }
for k in 1 2 3 7 20 40; do
	killed g $k greedy && cmp /tmp/g /tmp/e1; ok $? "kill -9 after token $k: greedy, the same bytes"
	killed s $k random && cmp /tmp/s /tmp/s1; ok $? "kill -9 after token $k: sampled, the same bytes"
	killed t $k text_turn && cmp /tmp/t /tmp/a1 && cmp /tmp/turn2 /tmp/a2
	ok $? "kill -9 after token $k: text mode and its second question, the same bytes"
done

# ---- eight at once, killed twice
start --pace 50
had=$(of tokens)
clients=
for i in 1 2 3 4; do
	greedy >/tmp/m$i & clients="$clients $!"
	random >/tmp/n$i & clients="$clients $!"
done
until_tokens $((had + 60)); stop; start --pace 50
until_tokens $((had + 200)); stop; start
for c in $clients; do wait $c || bad=1; done
same=0
for i in 1 2 3 4; do
	cmp /tmp/m$i /tmp/e1 && same=$((same + 1))
	cmp /tmp/n$i /tmp/s1 && same=$((same + 1))
done
[ $same = 8 ]; ok $? "eight clients at once, two kills: $same of 8 have the same bytes"

# ---- no id twice: of each request the total grows by what is posted
grep llm_request_tokens: /sys/kernel/tracing/trace | sed 's/.*request=\([0-9]*\).* ids=\([0-9]*\) .*total=\([0-9]*\).*/\1 \2 \3/' >/tmp/trace
head -3 /tmp/trace | note
awk '{ if ($3 != sum[$1] + $2) wrong++; sum[$1] = $3; n++ } END { print "# " n " events, " wrong + 0 " wrong"; exit !(n > 500 && !wrong) }' /tmp/trace
ok $? "by the tracepoints no id was posted twice or left out"

# ---- clients that do not read, die, or have no time
# settles: nothing is charged to anybody any more
settles() { for _ in $(seq 100); do [ "$(of requests)" = 0 ] && return; sleep 0.1; done; return 1; }
# stalls: no token comes any more
stalls() {
	for _ in $(seq 100); do
		a=$(of tokens); sleep 1
		[ "$(of tokens)" = "$a" ] && return
	done
	return 1
}
wide='{"messages":[{"role":"user","content":"'$q1'"}],"temperature":0,"logprobs":true,"top_logprobs":20}'
wide() { exec llmctl ask --quiet --device /dev/llm0 --json "$wide"; }
stop TERM; start --pace 40
echo 65536 >/sys/module/llm/parameters/max_events
had=$(of tokens)
wide >/tmp/w & client=$!
until_tokens $((had + 2)); kill -STOP $client
stalls; [ "$(of tokens)" -lt $((had + 76)) ]; ok $? "a client that does not read is parked after $(($(of tokens) - had)) tokens"
(greedy) >/tmp/x && cmp /tmp/x /tmp/e1; ok $? "others are not"
kill -CONT $client; wait $client; cmp /tmp/w /tmp/e1; ok $? "it reads again: nothing is missing"
had=$(of tokens)
wide >/tmp/w & client=$!
until_tokens $((had + 2)); kill -STOP $client; stalls
stop; start --pace 40; ok $? "the daemon is killed while a client does not read"
sleep 1; kill -CONT $client; wait $client; cmp /tmp/w /tmp/e1; ok $? "nothing is missing either"
echo 262144 >/sys/module/llm/parameters/max_events
settles; ok $? "nobody is charged for anything any more"

stop TERM; start --pace 20
had=$(of tokens)
greedy >/tmp/x & client=$!
greedy >/tmp/y & other=$!
until_tokens $((had + 10)); kill -9 $client; wait $client 2>/dev/null
for _ in $(seq 50); do [ "$(of requests)" = 1 ] && break; sleep 0.1; done
[ "$(of requests)" = 1 ] && [ "$(of sessions)" = 1 ]; ok $? "a client dies in the middle of its answer: it is let go of"
wait $other && cmp /tmp/y /tmp/e1; ok $? "the other one is not disturbed"
clients=
for i in $(seq 24); do greedy >/dev/null 2>&1 & clients="$clients $!"; done
sleep 1
for c in $clients; do kill -9 $c; wait $c 2>/dev/null; done
settles; ok $? "of 24 clients that die nothing is left"
llmctl ask --quiet --device /dev/llm0 --deadline 1 "$q1" >/tmp/x 2>/tmp/x.err; [ $? != 0 ] && grep -q deadline /tmp/x.err
ok $? "a deadline: $(head -1 /tmp/x.err)"
kill -STOP $daemon
llmctl ask --quiet --device /dev/llm0 --deadline 1 "$q1" >/tmp/x 2>/tmp/x.err; [ $? != 0 ] && grep -q deadline /tmp/x.err
ok $? "a deadline while the daemon hangs"
kill -CONT $daemon
settles; ok $? "it wakes up and lets go"

# ---- the administrator ends an answer: it is no part of the conversation, for this daemon and the next
had=$(of tokens)
exec 3<>/dev/llm0
echo "$q2" >&3; cat <&3 >/tmp/x 2>/tmp/x.err & client=$!
until_tokens $((had + 5)); echo 1 >$sys/abort
wait $client; [ $? != 0 ] && grep -q "cancel" /tmp/x.err; ok $? "abort: $(head -1 /tmp/x.err)"
echo "$q1" >&3; cat <&3 >/tmp/x; cmp /tmp/x /tmp/a1; ok $? "the next answer knows nothing of it"
stop; start --pace 20
echo "$q2" >&3; cat <&3 >/tmp/x; cmp /tmp/x /tmp/a2; ok $? "nor does the next daemon: the conversation goes on"
exec 3>&-

# ---- planned: the backend is asked to let go
had=$(of tokens)
greedy >/tmp/x & client=$!
until_tokens $((had + 5))
old=$daemon
quiesce llm0; ok $? "QUIESCE"
for _ in $(seq 100); do [ -d /proc/$old ] || break; sleep 0.1; done
[ ! -d /proc/$old ]; ok $? "the daemon ends by itself"
start; wait $client; cmp /tmp/x /tmp/e1; ok $? "the next one goes on"

had=$(of tokens)
greedy >/tmp/x & client=$!
until_tokens $((had + 5))
old=$daemon
kill -STOP $old
quiesce llm0 100
for _ in $(seq 100); do [ "$(of state)" = waiting ] && break; sleep 0.1; done
[ "$(of state)" = waiting ]; ok $? "a daemon that hangs loses the device when its time is up"
kill -CONT $old; wait $old
[ $? = 1 ] && tail -1 $log | grep -q "/dev/llm0: "; ok $? "it wakes up and ends, saying why: $(tail -1 $log)"
start; wait $client; cmp /tmp/x /tmp/e1; ok $? "the next one goes on with its answer"

# ---- a second daemon stands by
llmdevd /model --device --socket /tmp/llm1.sock --threads 1 2>/tmp/x.err & standby=$!
for _ in $(seq 100); do grep -q "serving" /tmp/x.err && break; sleep 0.1; done
grep -q "waiting until that lets go" /tmp/x.err; ok $? "a second daemon: $(grep waiting /tmp/x.err)"
stop TERM
for _ in $(seq 50); do [ "$(of backend_pid)" = $standby ] && break; sleep 0.1; done
[ "$(of backend_pid)" = $standby ]; ok $? "it takes over when the first one ends"
kill $standby; wait $standby
start --pace 50
had=$(of tokens)
greedy >/tmp/x & client=$!
until_tokens $((had + 5))
llmdevd /model --device --socket /tmp/llm1.sock --threads 1 2>/tmp/x.err & standby=$!
until_tokens $((had + 40)); stop
wait $client; cmp /tmp/x /tmp/e1; ok $? "and when it is killed, in the middle of an answer"
kill $standby; wait $standby
start

# ---- an upgrade: the same model in a new daemon
stop TERM; start --pace 40
echo 65536 >/sys/module/llm/parameters/max_events
had=$(of tokens)
wide >/tmp/w & stalled=$!
until_tokens $((had + 2)); kill -STOP $stalled; stalls
echo 262144 >/sys/module/llm/parameters/max_events
had=$(of tokens)
greedy >/tmp/x & client=$!
until_tokens $((had + 5))
llmctl swap /tmp/llm0.sock /model >/tmp/swap.out 2>&1; ok $? "llmctl swap while an answer runs"
wait $client && cmp /tmp/x /tmp/e1; ok $? "nobody notices"
for _ in $(seq 100); do [ "$(of backend_pid)" != $daemon ] && [ "$(of state)" = served ] && break; sleep 0.1; done
(greedy) >/tmp/x && cmp /tmp/x /tmp/e1 && [ "$(of backend_pid)" != $daemon ]
ok $? "the new daemon has the device"
kill -CONT $stalled; wait $stalled; cmp /tmp/w /tmp/e1; ok $? "also where a client did not read"
kill -9 "$(of backend_pid)"; wait $daemon 2>/dev/null
start

# ---- another model takes over
mkdir /other && cp /model/* /other && sed -i 's/"rope_theta": 10000/"rope_theta": 20000/' /other/config.json
exec 3<>/dev/llm0
echo "$q1" >&3; cat <&3 >/dev/null
stop; start --pace 50
had=$(of tokens)
greedy >/tmp/x 2>/tmp/x.err & client=$!
until_tokens $((had + 5)); stop
model=/other
start; ok $? "another model attaches"
wait $client; [ $? != 0 ]; ok $? "the answer that ran ends with an error"
grep -qi "another model" /tmp/x.err; ok $? "that says so: $(head -1 /tmp/x.err)"
echo "$q2" >&3; cat <&3 >/tmp/y 2>/tmp/y.err; [ $? != 0 ] && [ ! -s /tmp/y ]
ok $? "the conversation is not continued: $(head -1 /tmp/y.err)"
exec 3>&-

# ---- tools over the real module
llmctl doctor >/tmp/doctor 2>&1; grep -q '^ok .*module .*loaded' /tmp/doctor && grep -q '^warn .*devices .*llm0 has no link' /tmp/doctor
ok $? "llmctl doctor sees the module, and that no udev made links"
llmctl bench memory --size 4M --runs 1 --threads 1 >/tmp/bench 2>&1; grep -qE '^region +100 % +[0-9.]+' /tmp/bench
ok $? "llmctl bench memory reads a region, all in 2 MiB pages"
[ -z "$(llmctl region list 2>/dev/null | grep llmctl-bench)" ]
ok $? "and leaves none behind"

# ---- the end
grep -c . $log | sed 's/^/# lines of the log: /'
stop TERM
for _ in $(seq 100); do [ "$(of state)" = waiting ] && break; sleep 0.1; done
[ "$(of state)" = waiting ]; ok $? "SIGTERM: it lets go"
[ "$(of requests)" = 0 ]; ok $? "nobody is charged for anything any more"
! grep -q "Sanitizer\|runtime error" $log; ok $? "no sanitizer complains (where llmdevd was built with them)"
note $log | tail -40
echo "1..$n"
exit $bad
