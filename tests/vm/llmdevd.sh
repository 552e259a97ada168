# SPDX-License-Identifier: MIT
#
# What scripts share that run llmdevd on the device in the machine (daemon.sh, restart.sh): results,
# and the daemon's life. Sourced, with busybox; check-daemon and check-restart put it in as /llmdevd.sh.
n=0 bad=0
ok() { n=$((n + 1)); if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; bad=1; fi; }
note() { sed 's/^/# /' "$@"; }
sys=/sys/class/misc/llm0
log=/tmp/llmdevd.log
daemon=
# of ATTRIBUTE: of the device
of() { cat $sys/"$1" 2>/dev/null; }
# start [OPTION...]: llmdevd with $model (/model), until it serves the device
start() {
	llmdevd "${model:-/model}" --device --socket /tmp/llm0.sock --threads 1 "$@" 2>>$log &
	daemon=$!
	for _ in $(seq 1800); do
		[ "$(of state)" = served ] && [ "$(of backend_pid)" = $daemon ] && return
		[ -d /proc/$daemon ] || break
		sleep 0.1
	done
	echo "# llmdevd did not start:"; note $log; return 1
}
stop() { kill -"${1:-9}" $daemon; wait $daemon 2>/dev/null; daemon=; }
# until_tokens N: wait for so many tokens of the device in all
until_tokens() {
	for _ in $(seq 4000); do [ "$(of tokens)" -ge "$1" ] && return; sleep 0.02; done
	return 1
}
