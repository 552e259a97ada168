#!/bin/bash
# SPDX-License-Identifier: MIT
# What a service manager hears from llmdevd (sd_notify(3)): READY once it serves, STOPPING when it
# was told to end.
# shellcheck source=tests/e2e/daemon.bash disable=SC2317
. "$(dirname "$0")/daemon.bash"

python3 - "$tmp/notify" "$tmp/heard" <<'EOS' &
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
s.settimeout(60)
for _ in range(2):
    with open(sys.argv[2], "a") as f:
        f.write(s.recv(4096).decode() + "\n")
EOS
listener=$!
wait_for 20 test -S "$tmp/notify"
heard() { grep -qx "$1" "$tmp/heard" 2>/dev/null; }

export NOTIFY_SOCKET=$tmp/notify
start_daemon || { check "the daemon starts" false; finish; }
check "READY=1 once it serves" wait_for 20 heard READY=1
check "and nothing else yet" test "$(wc -l <"$tmp/heard")" -eq 1
stop_daemon
check "STOPPING=1 on SIGTERM" wait_for 20 heard STOPPING=1
kill "$listener" 2>/dev/null
finish
