#!/bin/bash
# SPDX-License-Identifier: MIT
# Crowds and floods at the daemon's socket (limits.py).
set -u
model=${LLMDEV_MODEL:-tools/demo/model}
if [ ! -f "$model/config.json" ]; then
	echo "ok 1 # SKIP no model at $model"
	exit 0
fi
exec python3 "$(dirname "$0")/limits.py" "${LLMDEV_BUILD:-build}" "$model"
