#!/bin/bash
# SPDX-License-Identifier: MIT
# LiteLLM, as a proxy and as a library, whose first choices are dead and broken and which then comes
# here; and a load generator, llama-benchy. All unmodified, from PyPI.
. tests/e2e/daemon.bash
. tests/e2e/http.bash
need_packages litellm

echo "sk-alice principal=alice" >"$tmp/keys"
# At full speed all 16 tokens may come at once, and llama-benchy has no time to divide by.
start_daemon --pace 200 && start_gateway --model "demo=$socket" --api-key-file "$tmp/keys" || {
	check "daemon and gateway start" false
	finish
}
HOME=$tmp "$venv/bin/python" tests/e2e/litellm_client.py "$url/v1" demo "$tmp" >"$tmp/out" 2>&1
rc=$?
cat "$tmp/out"
stop_gateways
exit $rc
