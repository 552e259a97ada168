#!/bin/bash
# SPDX-License-Identifier: MIT
# llmdev-keeper as a service: what it holds outlives it (keeper.py).
# shellcheck source=tests/e2e/daemon.bash
. "$(dirname "$0")/daemon.bash"
if [ -e /dev/llm-control ]; then
	skip "a kernel module would be used here: see tests/vm"
	finish
fi
unset NOTIFY_SOCKET
export XDG_RUNTIME_DIR=$tmp
python3 tests/e2e/keeper.py "$build" "$model" "$tmp"
