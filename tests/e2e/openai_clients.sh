#!/bin/bash
# SPDX-License-Identifier: MIT
# The official openai package against the gateway: see openai_clients.py.
. tests/e2e/daemon.bash
. tests/e2e/http.bash
need_packages openai_clients

cat >"$tmp/keys" <<-EOF
	sk-alice principal=alice
	sk-slow principal=bob requests-per-minute=1
EOF
# A tiny model that gives vectors; it has no tokenizer.
"$build/llmdevd" tests/fixtures/embeddings/qwen3-last --socket "$tmp/embed.sock" --threads 1 --exact \
	2>>"$tmp/embed.log" 5>&- &
embed=$!
trap 'kill $embed 2>/dev/null; stop_gateways; cleanup' EXIT
start_daemon && wait_for 60 grep -q "^llmdevd: serving" "$tmp/embed.log" &&
	start_gateway --model "demo=$socket" --model "embed=$tmp/embed.sock" --api-key-file "$tmp/keys" || {
	check "daemon and gateway start" false
	finish
}
"$venv/bin/python" tests/e2e/openai_clients.py "$url/v1" demo embed >"$tmp/out" 2>&1
rc=$?
cat "$tmp/out"
exit $rc
