#!/bin/sh
# SPDX-License-Identifier: MIT
# The scripted demonstration inside the virtual machine (tools/demo-vm): says each command as a shell
# would, and does it.
sys=/sys/class/misc/llm0
say() { printf '\n%s\n' "$*"; }
run() { printf '# %s\n' "$*"; eval "$*"; }
daemon() {
	printf '# llmdevd /model --device %s &\n' "$*"
	llmdevd /model --device --socket /tmp/llm0.sock --threads 1 "$@" 2>>/tmp/log & pid=$!
	until [ "$(cat $sys/backend_pid 2>/dev/null)" = $pid ] && grep -q "served" $sys/state; do sleep 0.1; done
}
q1="Why is the sky blue?" q2="What happens if the daemon is killed?"

# What nobody disturbs, to compare with.
llmdevd /model --device --socket /tmp/llm0.sock --threads 1 2>/tmp/log & pid=$!
until grep -q "served" $sys/state 2>/dev/null; do sleep 0.1; done
exec 3<>/dev/llm0; echo "$q1" >&3; cat <&3 >/dev/null; echo "$q2" >&3; cat <&3 >/tmp/undisturbed; exec 3>&-
kill $pid; wait $pid

run uname -rm
daemon --pace 20
run ls -l /dev/llm-control /dev/llm0
say "An open file is a conversation. The shell is all that is needed:"
run 'exec 3<>/dev/llm0'
run 'echo "Why is the sky blue?" >&3; cat <&3'
echo
say "The next question, on the same descriptor; in the middle of its answer the daemon is killed:"
had=$(cat $sys/tokens)
printf '# echo "%s" >&3; cat <&3\n' "$q2"
echo "$q2" >&3
mkfifo /tmp/out
tee /tmp/disturbed </tmp/out & tee=$!
cat <&3 >/tmp/out & reader=$!
until [ "$(cat $sys/tokens)" -ge $((had + 20)) ]; do sleep 0.02; done
printf '\n                                        # kill -9 %s\n' $pid
kill -9 $pid; wait $pid 2>/dev/null
sleep 1
printf '                                        # cat /sys/class/misc/llm0/state\n'
printf '                                        %s\n' "$(cat $sys/state)"
printf '                                        # llmdevd /model --device &\n'
llmdevd /model --device --socket /tmp/llm0.sock --threads 1 --pace 20 2>>/tmp/log & pid=$!
wait $reader $tee
echo
cmp /tmp/disturbed /tmp/undisturbed && say "The same bytes as of an answer that nobody disturbed."
run 'grep . /sys/class/misc/llm0/generation /sys/class/misc/llm0/backend_pid'
exec 3>&-
kill $pid; wait $pid
