#!/bin/bash
# SPDX-License-Identifier: MIT
# An answer survives the daemon: kill -9 at many points, in and between turns, and what must not be
# continued is not. The yardstick is the answer that nobody disturbed, byte for byte.
# shellcheck source=tests/e2e/daemon.bash disable=SC2317,SC2086
. "$(dirname "$0")/daemon.bash"

# Greedy and sampled; long enough to be killed often.
greedy='{"messages":[{"role":"user","content":"Why is the sky blue?"}],"max_tokens":160,"temperature":0,"ignore_eos":true}'
sampled='{"messages":[{"role":"user","content":"Tell me about memory."}],"max_tokens":160,"temperature":1.3,"seed":7,"ignore_eos":true,"presence_penalty":0.5,"stop":["never said"]}'

# kill_often FILE: until the answer in FILE is complete (client $client is gone)
kill_often() {
	kills=0
	wait_for 20 progressed "$1" 0 # a client that has not connected yet is refused, not continued
	while kill -0 "$client" 2>/dev/null; do
		sleep 0.0$((RANDOM % 9 + 1))
		stop_daemon 9
		kills=$((kills + 1))
		spawn_daemon --pace 250 --threads $((RANDOM % 2 + 1)) # their number must not matter
		# Let some of the answer through, or the test would never end.
		local at
		at=$(stat -c %s "$1")
		wait_for 20 progressed "$1" "$at"
	done
	wait_for 20 is_up
}
progressed() { ! kill -0 "$client" 2>/dev/null || bigger_than "$1" "$2"; }

survives() { # survives NAME REQUEST
	ask --json "$2" >"$tmp/undisturbed" || return 1
	: >"$tmp/disturbed"
	ask --recovery 30 --json "$2" >"$tmp/disturbed" 2>"$tmp/err" &
	client=$!
	kill_often "$tmp/disturbed"
	wait "$client" || { sed 's/^/# /' "$tmp/err"; return 1; }
	echo "# $1: killed $kills times, $(wc -c <"$tmp/disturbed") bytes"
	all_kills=$((all_kills + kills))
	cmp "$tmp/undisturbed" "$tmp/disturbed" && [ -s "$tmp/disturbed" ]
}

start_daemon --pace 400 || { check "the daemon starts" false; finish; }
RANDOM=1
all_kills=0
for round in 1 2 3; do
	check "a greedy answer survives kill -9 at many points ($round)" survives greedy "$greedy"
	check "a sampled answer survives kill -9 at many points ($round)" survives sampled "$sampled"
done

check "that were many kills" [ $all_kills -ge 12 ]

# ---- turns ------------------------------------------------------------------------------------------

# chat NAME HOOK1 HOOK2: two turns; HOOK1 runs between them, HOOK2 in the middle of the second
chat() {
	local in=$tmp/$1.in out=$tmp/$1.out first
	rm -f "$in"
	mkfifo "$in"
	: >"$out"
	"$build/llmctl" chat --quiet --recovery 30 --socket "$socket" <"$in" >"$out" 2>"$tmp/$1.err" &
	client=$!
	exec 5>"$in"
	echo "What happens if the daemon is killed?" >&5
	wait_for 30 ends_with_newline "$out" || return 1
	first=$(stat -c %s "$out")
	$2
	echo "And without the module?" >&5
	wait_for 30 bigger_than "$out" $((first + 10)) || return 1
	$3
	exec 5>&-
	wait "$client"
}
ends_with_newline() { [ -s "$1" ] && [ -z "$(tail -c 1 "$1")" ]; }
restart() {
	stop_daemon 9
	start_daemon --pace 400
}
restart_gently() {
	stop_daemon TERM
	start_daemon --pace 400
}
same_chat() { chat "$@" && cmp "$tmp/calm.out" "$tmp/$1.out"; }

check "two turns, undisturbed" chat calm : :
check "the daemon is killed between two turns" same_chat between restart :
check "... and in the middle of the second" same_chat within : restart
check "... and both" same_chat both restart restart
check "the daemon is stopped and started between two turns" same_chat gently restart_gently :
check "... and both in the second" same_chat gently2 restart restart_gently

# ---- what must not be continued ---------------------------------------------------------------------

# The same question to a daemon whose numbers differ (another KV type) in the middle of an answer.
other_build() {
	ask --recovery 30 --json "$greedy" >"$tmp/other.out" 2>"$tmp/other.err" &
	client=$!
	wait_for 20 bigger_than "$tmp/other.out" 20
	stop_daemon 9
	start_daemon --pace 400 --exact
	! wait "$client" && grep -q "another model or another build" "$tmp/other.err"
}
check "another build is an error, not a continuation" other_build
stop_daemon 9
start_daemon --pace 100

nobody_comes() {
	ask --recovery 0.5 --json "$greedy" >"$tmp/alone.out" 2>"$tmp/alone.err" &
	client=$!
	wait_for 20 bigger_than "$tmp/alone.out" 20
	stop_daemon 9
	! wait "$client" && grep -q "no other took its place" "$tmp/alone.err"
}
check "nobody takes the place of a dead daemon: an error after the recovery window" nobody_comes

# ---- the daemon's life ------------------------------------------------------------------------------

start_daemon --pace 100
second_daemon() {
	! "$build/llmdevd" "$model" --socket "$socket" --threads 1 2>"$tmp/second.err" &&
		grep -q "another llmdevd serves it" "$tmp/second.err"
}
check "a second daemon at the same socket is refused" second_daemon
check "... and the first one still serves" is_up

drains() {
	ask --json "$greedy" >"$tmp/drain.out" 2>"$tmp/err" &
	client=$!
	wait_for 20 bigger_than "$tmp/drain.out" 20
	stop_daemon TERM || return 1
	[ ! -e "$socket" ] && wait "$client" && cmp "$tmp/drain.out" "$tmp/greedy"
}
ask --json "$greedy" >"$tmp/greedy"
check "SIGTERM lets a running answer end, removes the socket, exits 0" drains

start_daemon --pace 50 --verbose
client_dies() {
	"$build/llmctl" ask --quiet --socket "$socket" --json "$greedy" >"$tmp/dying.out" 2>/dev/null &
	client=$!
	wait_for 20 bigger_than "$tmp/dying.out" 20
	local closed
	closed=$(grep -c ': closed' "$tmp/log")
	{ kill -9 $client && wait $client; } 2>/dev/null
	wait_for 5 more_closed "$closed" && is_up
}
more_closed() { [ "$(grep -c ': closed' "$tmp/log")" -gt "$1" ]; }
check "a killed client's session is closed, others are served" client_dies

interrupted() {
	"$build/llmctl" ask --socket "$socket" --json "$greedy" >"$tmp/int.out" 2>"$tmp/int.err" &
	client=$!
	wait_for 20 bigger_than "$tmp/int.out" 20
	kill -INT $client
	wait $client
	[ $? -eq 130 ] && grep -q cancelled "$tmp/int.err" && is_up
}
# A background job of a script without job control ignores SIGINT: give it one that does not.
set -m
check "Ctrl-C cancels the answer" interrupted
set +m

stop_daemon 9
check "a stale socket is replaced" start_daemon
finish
