#!/bin/bash
# SPDX-License-Identifier: MIT
# llmctl swap: a model is staged beside a running one, takes its place, and goes back; nobody's
# answer is cut, nobody's request fails, and whatever goes wrong leaves the old one serving.
# shellcheck source=tests/e2e/daemon.bash disable=SC2317,SC2086,SC2016
. "$(dirname "$0")/daemon.bash"

next=$tmp/llm0.next.sock prev=$tmp/llm0.prev.sock
request='{"messages":[{"role":"user","content":"Why is the sky blue?"}],"max_tokens":120,"temperature":0,"ignore_eos":true}'
chat=

# Staged daemons are not our children: they have to be found by their sockets.
cleanup() {
	[ -n "$chat" ] && kill "$chat" 2>/dev/null
	for s in "$socket" "$next" "$prev"; do
		local p
		p=$(pid_at "$s") && kill -9 "$p" 2>/dev/null
	done
	stop_daemon 9
	for g in "${groups:-none}/llmdevd@swap$$"*.service; do
		[ -d "$g" ] && wait_for 10 rmdir "$g" 2>/dev/null
	done
	rm -rf "$tmp"
}
pid_at() {
	python3 - "$1" <<'E2'
import socket, struct, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
try:
    s.connect(sys.argv[1])
except OSError:
    sys.exit(1)
print(struct.unpack("3i", s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])
E2
}
swap() { "$build/llmctl" swap "$socket" "$@" 2>>"$tmp/swap.err"; }
said() { grep -q -- "$1" "$tmp/swap.err"; }
refused() { # refused WORDS ARGUMENT...
	: >"$tmp/swap.err"
	! swap "${@:2}" && said "$1" && is_up
}
gone() { ! kill -0 "$1" 2>/dev/null; }
serves() { [ "$(pid_at "$socket")" = "$1" ]; }

# Another model, as far as a fingerprint tells: its config differs.
cp -r "$model" "$tmp/other"
sed -i '0,/{/s//{"_name_or_path": "other",/' "$tmp/other/config.json"

start_daemon --pace 15 --batch 7 || { check "the daemon starts" false; finish; }
first=$daemon
ask --json "$request" >"$tmp/greedy"

# ---- staging ----------------------------------------------------------------------------------------

check "an unknown model is refused, the old one serves on" refused "nothing there" "$tmp/nothing there" --stage
check "a model that cannot fit is refused with the sum" \
	refused 'weights .* + KV cache 100.0 TB .* more than the' "$model" --stage -- --kv-size 93132G
check "an option that llmdevd does not know is refused" refused -- '--frob' "$model" --stage -- --frob
check "a value that llmdevd refuses: its own words, the old one serves on" \
	refused 'did not start' "$model" --stage -- --batch 0
mkdir "$tmp/broken"
cp "$model"/* "$tmp/broken"
: >"$tmp/broken/tokenizer.json"
check "a checkpoint that does not load: its own words, the old one serves on" refused 'tokenizer' "$tmp/broken" --stage
check "... and nothing is left of it" [ ! -e "$next" ]
check "nothing staged: nothing to commit" refused 'nothing is staged' --commit
check "... nor to roll back" refused 'nothing to roll back' --rollback
nobody() { ! "$build/llmctl" swap "$tmp/nobody.sock" "$model" --stage 2>"$tmp/err" && grep -q 'nobody serves it' "$tmp/err"; }
check "where nobody serves there is nothing to swap" nobody

llmctl=$(realpath "$build/llmctl")
from_elsewhere() { (cd "$tmp" && "$llmctl" swap ./llm0.sock other --stage -- --pace 50 2>>"$tmp/swap.err"); }
check "a model is staged, paths being relative" from_elsewhere
second=$(pid_at "$next")
check "... in a process of its own, while the old one serves" serves "$first"
options() { tr '\0' ' ' <"/proc/$1/cmdline"; }
like_the_first() { options "$second" | grep -q -- '--threads=1 .*--batch=7 .*--socket .*/other' && options "$second" | grep -q -- '--pace=50'; }
check "... with the options of the running one, and those that were given" like_the_first
check "... and detached" [ "$(ps -o sid= -p "$second" | tr -d ' ')" = "$second" ]
check "a second one is refused" refused 'staged already' "$model" --stage
status() { swap --status >"$tmp/status" && grep -q "^serves  process $1 .*$2.* running" "$tmp/status" && grep -q "^$3  process $4 " "$tmp/status"; }
check "status names both" status "$first" "$model" staged "$second"
check "rolled back: the staged one ends" swap --rollback
check "... with its socket" eval 'wait_for 10 gone "$second" && [ ! -e "$next" ] && serves "$first"'

# ---- the same model: conversations go on ------------------------------------------------------------

talk() { # talk NAME: a chat of two turns over fd 5, the first one asked
	rm -f "$tmp/in"
	mkfifo "$tmp/in"
	: >"$tmp/$1.out"
	"$build/llmctl" chat --quiet --recovery 30 --socket "$socket" -n 40 <"$tmp/in" >"$tmp/$1.out" 2>"$tmp/$1.err" &
	chat=$!
	exec 5>"$tmp/in"
	echo "What happens if the daemon is killed?" >&5
	wait_for 30 ends_with_newline "$tmp/$1.out"
}
ends_with_newline() { [ -s "$1" ] && [ -z "$(tail -c 1 "$1")" ]; }
talk_on() {
	local rc
	echo "And without the module?" >&5
	exec 5>&-
	wait "$chat"
	rc=$?
	chat=
	return $rc
}
calm() { talk calm && talk_on; }
check "two turns, undisturbed" calm
upgraded() {
	talk upgraded || return 1
	"$build/llmctl" ask --quiet --socket "$socket" --json "$request" >"$tmp/stream" 2>"$tmp/err" &
	local stream=$!
	wait_for 20 bigger_than "$tmp/stream" 20
	swap "$model" --stage && second=$(pid_at "$next") && swap --commit || return 1
	serves "$second" || return 1
	# It has more than 100 tokens to go, at 15 a second.
	kill -0 "$stream" && kill -0 "$first" && wait "$stream" && cmp "$tmp/greedy" "$tmp/stream" || return 1
	wait_for 20 gone "$first"
}
check "the same model takes over in the middle of an answer, which ends where it began" upgraded
check "... the old daemon has ended with it" eval '! kill -0 $first 2>/dev/null && grep -q "handed over: running answers may end$" "$tmp/log"'
check "... only its own socket is left" eval '[ -S "$socket" ] && [ ! -e "$next" ] && [ ! -e "$prev" ]'
continued() { talk_on && cmp "$tmp/calm.out" "$tmp/upgraded.out"; }
check "... and a conversation that rested goes on with the new one, as if nothing had been" continued

# ---- another model ----------------------------------------------------------------------------------

told_stale() {
	talk stale || return 1
	swap "$tmp/other" || return 1
	third=$(pid_at "$socket")
	[ "$third" != "$second" ] || return 1
	talk_on
	grep -q 'another model' "$tmp/stale.err"
}
check "another model takes over: a conversation that rested is told, not continued" told_stale
check "... the old one had nothing to do and has ended" wait_for 20 gone "$second"
check "... whoever begins anew is served" is_up

# ---- back again -------------------------------------------------------------------------------------

back() {
	"$build/llmctl" ask --quiet --socket "$socket" --json "$request" >"$tmp/stream" 2>"$tmp/err" &
	local stream=$!
	wait_for 20 bigger_than "$tmp/stream" 5
	swap "$model" || return 1
	fourth=$(pid_at "$socket")
	swap --status >"$tmp/status"
	grep -q "^leaves  process $third " "$tmp/status" && swap --rollback && serves "$third" || return 1
	wait "$stream" && wait_for 20 gone "$fourth" && is_up && [ ! -e "$next" ] && [ ! -e "$prev" ]
}
check "rolled back while the old one still has an answer to give" back
kept() {
	swap "$model" --keep || return 1
	fourth=$(pid_at "$socket")
	sleep 0.3
	kill -0 "$third" && is_up && serves "$fourth" && swap --rollback && serves "$third" && is_up &&
		wait_for 20 gone "$fourth"
}
check "kept: the old one stays without work, and can be taken back" kept
kept_then_ended() {
	swap "$model" --keep && kill -0 "$third" && swap --commit && wait_for 20 gone "$third" && is_up
}
check "... or ended later" kept_then_ended

# ---- crowds, deaths ---------------------------------------------------------------------------------

crowd() { # requests one after the other in four loops, while models change
	local loops=() rc=0
	: >"$tmp/crowd.done"
	for _ in 1 2 3 4; do
		while [ ! -e "$tmp/enough" ]; do
			"$build/llmctl" ask --quiet --socket "$socket" -n 3 hello >/dev/null 2>>"$tmp/crowd.err" || echo failed >>"$tmp/crowd.failed"
			echo >>"$tmp/crowd.done"
		done &
		loops+=($!)
	done
	for m in "$tmp/other" "$model" "$tmp/other" "$model"; do
		swap "$m" || rc=1
		wait_for 20 bigger_than "$tmp/crowd.done" $(($(stat -c %s "$tmp/crowd.done") + 8))
	done
	: >"$tmp/enough"
	wait "${loops[@]}"
	echo "# $(wc -l <"$tmp/crowd.done") requests during four swaps"
	[ -s "$tmp/crowd.err" ] && sed 's/^/# /' "$tmp/crowd.err"
	[ $rc = 0 ] && [ ! -e "$tmp/crowd.failed" ]
}
check "a crowd of requests, four swaps: none fails" crowd
staged_dies() {
	local before
	before=$(pid_at "$socket")
	swap "$tmp/other" --stage || return 1
	kill -9 "$(pid_at "$next")"
	wait_for 10 eval '! pid_at "$next"'
	refused 'nothing is staged' --commit && serves "$before" && swap "$tmp/other" --stage && swap --rollback
}
check "a staged one that dies leaves the old one serving, and the next one can be staged" staged_dies
killed_on_the_way() {
	local before p
	before=$(pid_at "$socket")
	kill -USR1 "$before" # nobody took its place: nothing happens
	is_up && serves "$before" || return 1
	swap "$model" && p=$(pid_at "$socket") && [ "$p" != "$before" ] && kill -TERM "$p" && wait_for 10 gone "$p" && [ ! -e "$socket" ]
}
check "SIGUSR1 to a daemon that nobody replaces does nothing; one that was moved removes its socket" killed_on_the_way
check "a daemon starts where the moved one was" start_daemon
stop_daemon

# ---- systemd ----------------------------------------------------------------------------------------

groups= # a writable control group file system, where no systemd looks after it
for g in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/pids; do
	[ -n "$groups" ] || [ -d /run/systemd/system ] || ! mkdir "$g/llmdevd@swap$$.service" 2>/dev/null && continue
	[ -e "$g/llmdevd@swap$$.service/cgroup.procs" ] && groups=$g
	rmdir "$g/llmdevd@swap$$.service"
done
# A systemctl that does with llmdevd@.service what systemd would: its environment, its command, its
# control group, and starting again what failed.
cat >"$tmp/systemctl" <<E2
#!/bin/bash
echo "\$@" >>"$tmp/systemctl.log"
instance=\${2#llmdevd@}
instance=\${instance%.service}
group="$groups/llmdevd@\$instance.service"
case \$1 in
start)
	mkdir -p "\$group"
	echo \$\$ >"\$group/cgroup.procs"
	NAME=\$instance SOCKET=$tmp/\$instance.sock OPTIONS=
	[ -f "$tmp/\$instance.swap" ] && . "$tmp/\$instance.swap"
	: >"$tmp/unit.log"
	"$build/llmdevd" --name "\$NAME" --socket "\$SOCKET" \$OPTIONS "\$MODEL" 2>>"$tmp/unit.log" &
	until grep -q "^llmdevd: serving " "$tmp/unit.log"; do kill -0 \$! || exit 1; sleep 0.05; done
	;;
stop) kill \$(cat "\$group/cgroup.procs") ;;
esac
E2
chmod +x "$tmp/systemctl"
systemd_swap() {
	local a=swap$$ b=swap$$-next base=$tmp/swap$$ p
	socket=$base.sock next=$base.next.sock prev=$base.prev.sock
	printf 'MODEL="%s" OPTIONS="--threads 1 --pace 60"\n' "$PWD/$model" >"$tmp/$a.swap"
	export PATH=$tmp:$PATH
	systemctl start "llmdevd@$a.service" && is_up || return 1
	first=$(pid_at "$socket")
	swap "$model" --stage -- --batch 9 || return 1
	grep -q "^start llmdevd@$b.service" "$tmp/systemctl.log" && grep -q "^SOCKET=\"$next\"" "$tmp/$b.swap" || return 1
	swap --rollback && wait_for 10 eval '! pid_at "$next"' && serves "$first" || return 1
	swap "$tmp/other" || return 1
	# What systemd would start again is to be found where clients look.
	grep -q "^SOCKET=\"$socket\"" "$tmp/$b.swap" && grep -q "^MODEL=\"$tmp/other\"" "$tmp/$b.swap" &&
		grep -q 'OPTIONS="--threads=1 --pace=60 "' "$tmp/$b.swap" && wait_for 10 gone "$first" || return 1
	swap "$model" && grep -q "^SOCKET=\"$socket\"" "$tmp/$a.swap" && is_up || return 1
	p=$(pid_at "$socket") && options "$p" | grep -q "$model" && kill "$p" && wait_for 10 gone "$p"
}
if [ -n "$groups" ]; then
	check "under systemd two instances take turns (a systemctl of the test's)" systemd_swap
else
	skip "no control groups to play systemd with"
fi
finish
