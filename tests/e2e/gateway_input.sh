#!/bin/bash
# SPDX-License-Identifier: MIT
# What llmdev-gateway says to what is wrong (gateway_input.py).
exec python3 "$(dirname "$0")/gateway_input.py"
