#!/bin/bash
# SPDX-License-Identifier: MIT
# Reasoning, tool calls and constrained answers over the socket, continued at every event (pieces.py).
set -u
model=${LLMDEV_MODEL:-tools/demo/model}
if [ ! -f "$model/config.json" ]; then
	echo "ok 1 # SKIP no model at $model"
	exit 0
fi
exec python3 "$(dirname "$0")/pieces.py" "${LLMDEV_BUILD:-build}" "$model"
