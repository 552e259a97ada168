#!/bin/bash
# SPDX-License-Identifier: MIT
# Several models behind one llmdev-gateway, and a model that is swapped under its clients
# (swap_gateway.py).
exec python3 "$(dirname "$0")/swap_gateway.py"
