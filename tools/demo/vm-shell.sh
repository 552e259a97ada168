#!/bin/sh
# SPDX-License-Identifier: MIT
# The interactive demonstration inside the virtual machine (tools/demo-vm): a daemon, and a shell on
# the console.
llmdevd /model --device --socket /tmp/llm0.sock --pace 40 2>/tmp/llmdevd.log &
until grep -q served /sys/class/misc/llm0/state 2>/dev/null; do sleep 0.1; done
cat <<END

This is Linux $(uname -r) in a virtual machine, with llm.ko and llmdevd behind /dev/llm0. Try:

  exec 3<>/dev/llm0
  echo "Why is the sky blue?" >&3; cat <&3
  echo "What happens if the daemon is killed?" >&3; cat <&3
  llmctl chat
  kill -9 \$(cat /sys/class/misc/llm0/backend_pid)      # also in the middle of an answer
  llmdevd /model --device --socket /tmp/llm0.sock --pace 40 2>>/tmp/llmdevd.log &

It ends with exit, or with Ctrl-A x.

END
tty=/dev/$(sed 's/.*console=\([^ ]*\).*/\1/' /proc/cmdline)
PS1='# ' TERM=${TERM:-vt100} setsid sh -c "exec sh -i <$tty >$tty 2>&1"
