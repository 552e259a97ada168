#!/bin/bash
# SPDX-License-Identifier: MIT
# llmdev-gateway when clients and daemons come and go (gateway_life.py).
exec python3 "$(dirname "$0")/gateway_life.py"
