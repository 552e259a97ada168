#!/bin/bash
# SPDX-License-Identifier: MIT
# Many answers at once survive the daemon: kill -9 while most requests wait, are preempted for want
# of pages, or lie in the swap file. The yardstick is each answer alone, byte for byte.
# shellcheck source=tests/e2e/daemon.bash disable=SC2317,SC2086
. "$(dirname "$0")/daemon.bash"

clients=9
questions=("Why is the sky blue?" "What happens if the daemon is killed?" "And without the module?")

request() { # request I: greedy and sampled, short and long, with stop strings and penalties
	local i=$1
	local q=${questions[i % 3]} more=
	[ $((i % 2)) = 1 ] && more=',"temperature":1.2,"seed":'$i',"top_p":0.95'
	[ $((i % 3)) = 1 ] && more="$more"',"stop":["never said","conver"]'
	[ $((i % 4)) = 2 ] && more="$more"',"presence_penalty":0.5,"frequency_penalty":0.3'
	echo '{"messages":[{"role":"user","content":"'"$q"'"}],"max_tokens":'$((60 + 25 * i))',"ignore_eos":true'"$more"'}'
}
alone() {
	local i
	for i in $(seq $clients); do
		ask --json "$(request $i)" >"$tmp/alone.$i" && [ -s "$tmp/alone.$i" ] || return 1
	done
}
bytes_read() { cat "$tmp"/got.* | wc -c; }
more_read() { [ "$(bytes_read)" -gt "$1" ] || ! any_alive; }
any_alive() {
	local p
	for p in "${pids[@]}"; do kill -0 "$p" 2>/dev/null && return 0; done
	return 1
}

# asks I: one whose first connection falls between two daemons has asked nobody, and tries again
asks() {
	until ask --recovery 60 --json "$(request "$1")" >"$tmp/got.$1" 2>"$tmp/err.$1"; do
		[ ! -s "$tmp/got.$1" ] && grep -q "or name another socket" "$tmp/err.$1" || return 1
		sleep 0.02
	done
}

# survives NAME OPTION...: all at once, and the daemon killed until they are through
survives() {
	local name=$1 i at kills=0 bad=0
	shift
	start_daemon --pace 500 "$@" || return 1
	pids=()
	for i in $(seq $clients); do
		: >"$tmp/got.$i"
		asks $i &
		pids+=($!)
	done
	wait_for 30 more_read 0
	while any_alive; do
		sleep 0.0$((RANDOM % 9 + 1))
		stop_daemon 9
		kills=$((kills + 1))
		spawn_daemon --pace 500 "$@"
		at=$(bytes_read) # let some through, or it would never end
		wait_for 30 more_read $((at + 400))
	done
	for i in $(seq $clients); do
		wait "${pids[i - 1]}" && cmp -s "$tmp/alone.$i" "$tmp/got.$i" && continue
		bad=$((bad + 1))
		echo "# request $i: $(head -c 300 "$tmp/err.$i")"
	done
	echo "# $name: killed $kills times, $(bytes_read) bytes, $bad of $clients differ"
	wait_for 30 is_up # the last one may not serve yet
	stop_daemon TERM
	[ $bad = 0 ] && [ $kills -ge 2 ]
}

start_daemon || { check "the daemon starts" false; finish; }
check "$clients answers, each alone" alone
stop_daemon TERM
RANDOM=7
mkdir "$tmp/swap"
check "all at once survive kill -9" survives roomy
check "... with two places for all" survives places --batch 2
check "... with fewer pages than they need" survives pages --kv-size 700K --batch 6
check "... the same with a swap file" survives swap --kv-size 700K --batch 6 --swap "$tmp/swap"
check "... and without a prefix cache, in small chunks" survives chunks --kv-size 700K --prefix-cache off --chunk 7
finish
