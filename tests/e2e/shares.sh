#!/bin/bash
# SPDX-License-Identifier: MIT
# Two API keys at shares 1:3 under saturation (shares.py).
exec python3 "$(dirname "$0")/shares.py"
