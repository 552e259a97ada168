#!/bin/bash
# SPDX-License-Identifier: MIT
# llmctl bench serve through llmdev-gateway tells all that it tells at the daemon's socket
# (bench_gateway.py).
exec python3 "$(dirname "$0")/bench_gateway.py"
