#!/bin/bash
# SPDX-License-Identifier: MIT
# What llmdev-gateway answers where all is well (gateway.py).
exec python3 "$(dirname "$0")/gateway.py"
