# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# For end-to-end tests that need a daemon: starting and killing it, TAP. Sourced, not run.
# The model is the built-in one; LLMDEV_BUILD is where the programs are.
set -u
build=${LLMDEV_BUILD:-build}
model=${LLMDEV_MODEL:-tools/demo/model}
tmp=$(mktemp -d) || exit 1
socket=$tmp/llm0.sock
daemon=
n=0 failed=0

cleanup() {
	stop_daemon 9
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

# check NAME COMMAND...: one TAP line
check() {
	n=$((n + 1))
	if "${@:2}"; then
		echo "ok $n - $1"
	else
		echo "not ok $n - $1"
		failed=$((failed + 1))
		[ -s "$tmp/log" ] && tail -5 "$tmp/log" | sed 's/^/# /'
	fi
}
skip() {
	n=$((n + 1))
	echo "ok $n # SKIP $1"
}
finish() {
	echo "1..$n"
	exit $((failed > 0))
}
if [ ! -f "$model/config.json" ]; then
	skip "no model at $model"
	finish
fi

# spawn_daemon [OPTION...]: does not wait for it. It must not hold the pipes of the tests open.
spawn_daemon() {
	"$build/llmdevd" "$model" --socket "$socket" --threads 1 "$@" 2>>"$tmp/log" 5>&- &
	daemon=$!
}
# start_daemon [OPTION...]: returns when it serves
start_daemon() {
	spawn_daemon "$@"
	for _ in $(seq 600); do
		grep -q "^llmdevd: serving .* at $socket" "$tmp/log" 2>/dev/null &&
			[ -S "$socket" ] && is_up && return 0
		kill -0 "$daemon" 2>/dev/null || break
		sleep 0.05
	done
	echo "# llmdevd did not start:"
	sed 's/^/# /' "$tmp/log"
	return 1
}
is_up() { "$build/llmctl" ask --quiet --socket "$socket" -n 1 hello >/dev/null 2>&1; }
# stop_daemon [SIGNAL]
stop_daemon() {
	[ -n "$daemon" ] || return 0
	{ kill -"${1:-TERM}" "$daemon" && wait "$daemon"; } 2>/dev/null
	local rc=$?
	daemon=
	return $rc
}
ask() { "$build/llmctl" ask --quiet --socket "$socket" "$@"; }
# wait_for SECONDS COMMAND...: until it succeeds
wait_for() {
	local end=$((SECONDS + $1))
	while ! "${@:2}"; do
		[ $SECONDS -ge $end ] && return 1
		sleep 0.02
	done
}
bigger_than() { [ "$(stat -c %s "$1" 2>/dev/null || echo 0)" -gt "$2" ]; }
