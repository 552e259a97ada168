#!/bin/bash
# SPDX-License-Identifier: MIT
# The commands that people and scripts rely on, on real files: generated text, ids, logits, facts.
# Fixtures are in the repository; stories260K comes from LLM_CONFORMANCE where that is present.
set -u
llmctl=${LLMDEV_BUILD:-build}/llmctl
models=tests/fixtures/models
conformance=${LLM_CONFORMANCE:-../shared/conformance}
n=0 failed=0
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

check() { # check NAME COMMAND...: succeeds
	local name=$1
	shift
	n=$((n + 1))
	if "$@" >"$tmp/out" 2>&1; then
		echo "ok $n - $name"
	else
		echo "not ok $n - $name"
		sed 's/^/#   /' "$tmp/out" | head -20
		failed=1
	fi
}
skip() {
	n=$((n + 1))
	echo "ok $n # SKIP $1"
}

# ---- the trained tiny model: text in, text out

stories=$conformance/stories260K
text() { "$llmctl" run "$stories/stories260K.gguf" -p "" -n 200 --temp 0 "$@" 2>"$tmp/err" >"$tmp/text" &&
	cmp "$tmp/text" "$stories/expected_greedy_200.txt"; }
if [ -e "$stories/stories260K.gguf" ]; then
	check "stories260K gives its expected text" text
	check "stories260K on ref gives its expected text" text --backend ref
	check "stories260K on cpu --exact gives its expected text" text --backend cpu --exact
else
	skip "$stories is not there: set LLM_CONFORMANCE for the trained tiny model"
fi

# ---- the fixtures through llmctl (the numbers themselves: tests/unit/test_oracle.c)

ids() { python3 -c 'import json,sys; print(",".join(map(str, json.load(open(sys.argv[1]))[sys.argv[2]])))' "$@"; }
greedy() { # greedy EXPECT MODEL OPTION...: run --ids prints transformers' ids
	local expect=$1 model=$2
	shift 2
	"$llmctl" run "$model" --tokens "$(ids "$expect" prompt)" -n 40 --temp 0 --ids --ignore-eos "$@" \
		>"$tmp/ids" 2>"$tmp/err" || { cat "$tmp/err"; return 1; }
	[ "$(tr -d '\n' <"$tmp/ids")" = "$(ids "$expect" greedy)" ] || { cat "$tmp/ids"; return 1; }
}
logits() { # logits MODEL EXPECT: one JSON object a line, every vocabulary entry, full precision
	"$llmctl" logits "$1" --tokens "$(ids "$2" prompt)" --positions "$(ids "$2" positions)" \
		--backend ref >"$tmp/logits" || return 1
	python3 - "$2" "$tmp/logits" <<'PY'
import base64, json, struct, sys
want = json.load(open(sys.argv[1]))
lines = [json.loads(l) for l in open(sys.argv[2])]
assert [l["position"] for l in lines] == want["positions"], "positions"
for l, b in zip(lines, want["logits_f32_base64"]):
    ref = struct.unpack("<%df" % want["vocab"], base64.b64decode(b))
    assert len(l["logits"]) == want["vocab"], "vocabulary"
    assert max(abs(x - y) for x, y in zip(l["logits"], ref)) <= 2e-3 * want["std"], l["position"]
PY
}
if command -v python3 >/dev/null; then
	check "run --ids on a sharded checkpoint" greedy $models/qwen3-tied-sharded/expect.json \
		$models/qwen3-tied-sharded --exact
	check "run --ids on a split GGUF" greedy $models/llama-Q8_0.expect.json \
		$models/llama-Q8_0-00001-of-00003.gguf --exact
	check "run --ids in chunks of 7" greedy $models/qwen3-moe-f16/expect.json \
		$models/qwen3-moe-f16 --exact --chunk 7
	check "logits as JSON lines" logits $models/qwen3-Q4_K.gguf $models/qwen3-Q4_K.expect.json
else
	skip "no python3 to read the expectations with"
fi

# ---- facts, synthetic checkpoints, benches

json() { # json PYTHON-EXPRESSION over j, the parsed output of the command that follows
	local expr=$1
	shift
	"$@" >"$tmp/json" || return 1
	python3 -c 'import json,sys; j = json.load(open(sys.argv[1])); assert eval("(" + sys.argv[2] + ")"), j' \
		"$tmp/json" "$expr"
}
cat >"$tmp/tiny.json" <<'EOJ'
{"model_type": "qwen3", "num_hidden_layers": 2, "hidden_size": 256, "intermediate_size": 512,
 "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 512,
 "max_position_embeddings": 1024, "rope_theta": 1000000, "tie_word_embeddings": true}
EOJ
synth() { # every format that synth writes opens and runs, and depends on the seed alone
	local out=$tmp/synth-$1
	case $1 in gguf*) out=$out.gguf ;; esac
	"$llmctl" synth "$tmp/tiny.json" "$out" --format "$1" --seed 3 &&
		"$llmctl" run "$out" --tokens 1,2,3 -n 4 --ids --ignore-eos
}
same_bytes() {
	"$llmctl" synth "$tmp/tiny.json" "$tmp/a.gguf" --format gguf-q4_k --threads 1 &&
		"$llmctl" synth "$tmp/tiny.json" "$tmp/b.gguf" --format gguf-q4_k --threads 3 &&
		cmp "$tmp/a.gguf" "$tmp/b.gguf"
}
for f in bf16 f16 f32 gguf-f32 gguf-f16 gguf-bf16 gguf-q8_0 gguf-q4_0 gguf-q4_k gguf-q6_k; do
	check "synth --format $f runs" synth $f
done
check "synth does not depend on the number of threads" same_bytes
refused() { # refused STATUS PATTERN COMMAND...: that exit status, one line that matches
	local status=$1 pattern=$2
	shift 2
	"$@" >/dev/null 2>"$tmp/err"
	[ $? -eq "$status" ] && grep -q "$pattern" "$tmp/err" || { cat "$tmp/err"; return 1; }
}
check "synth names a bad key" refused 1 'hidden_size' \
	"$llmctl" synth <(echo '{"model_type":"qwen3","hidden_size":-1}') "$tmp/x"
check "synth refuses an unknown preset" refused 1 'gpt-9' "$llmctl" synth gpt-9 "$tmp/x"
check "synth refuses an unknown format" refused 2 'gguf-q9' "$llmctl" synth qwen3-0.6b "$tmp/x" --format gguf-q9
too_large() { # a limit on the file's size stands in for a full disk; nothing is left behind
	(ulimit -f 100; trap '' XFSZ; exec "$llmctl" synth "$tmp/tiny.json" "$tmp/big.gguf" --format gguf-f32) \
		2>"$tmp/err" && return 1
	grep -q 'big.gguf: .*large' "$tmp/err" && [ -z "$(ls "$tmp"/big* 2>/dev/null)" ] || { cat "$tmp/err"; return 1; }
}
check "synth says when the file cannot be written, and removes it" too_large
check "synth does not replace what is no file" refused 1 'not a regular file' \
	"$llmctl" synth "$tmp/tiny.json" /dev/null --format gguf-f32
if command -v python3 >/dev/null; then
	check "inspect --json: shapes and bytes" json \
		'j["family"] == "qwen3" and j["shape"]["layers"] == 2 and j["runs"] and j["tied"]
		 and sum(t["bytes"] for t in j["types"].values()) == j["weight_bytes"] == sum(j["parts"].values())
		 and j["bytes_per_token"] == j["weight_bytes"] and j["kv_bytes_per_token"] == 2*2*2*2*64' \
		"$llmctl" inspect "$tmp/synth-gguf-q4_0.gguf" --json --no-measure
	check "inspect --json: only active experts are read" json \
		'j["shape"]["experts"] == 8 and j["bytes_per_token"] ==
		 j["weight_bytes"] - j["parts"]["experts"] * 6 // 8 - j["parts"]["embedding"] * 255 // 256' \
		"$llmctl" inspect $models/qwen3-moe-f16 --json --no-measure
	for what in decode prefill; do
		check "bench $what --json" json \
			'j["tokens_per_s"] > 0 and len(j["runs"]) == 2 and j["bytes_read"] > 0' \
			"$llmctl" bench $what "$tmp/synth-gguf-q8_0.gguf" --json --runs 2
	done
	check "bench load --json" json 'j["bytes_per_s"] > 0 and len(j["runs"]) == 2 and
		j["bytes_read"] >= j["weight_bytes"] * 0.9' \
		"$llmctl" bench load "$tmp/synth-bf16" --json --runs 2 --no-fio
	mkdir -p "$tmp/hub/models--Org--Tiny/snapshots/1" "$tmp/hub/models--Org--Tiny/refs"
	cp -r "$tmp/synth-bf16/." "$tmp/hub/models--Org--Tiny/snapshots/1/"
	echo 1 >"$tmp/hub/models--Org--Tiny/refs/main"
	blob=$(sha256sum "$tmp/synth-gguf-q8_0.gguf" | cut -d' ' -f1)
	mkdir -p "$tmp/ollama/blobs" "$tmp/ollama/manifests/registry.ollama.ai/library/tiny"
	cp "$tmp/synth-gguf-q8_0.gguf" "$tmp/ollama/blobs/sha256-$blob"
	echo '{"layers":[{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:'"$blob"'"}]}' \
		>"$tmp/ollama/manifests/registry.ollama.ai/library/tiny/q8"
	export HF_HUB_CACHE=$tmp/hub OLLAMA_MODELS=$tmp/ollama
	check "models --json lists both stores" json \
		'[m["name"] for m in j] == ["Org/Tiny", "tiny:q8"] and all(m["runs"] and m["fits"] for m in j)' \
		"$llmctl" models --json --no-measure
	check "run takes a name of the Hugging Face cache" \
		"$llmctl" run Org/Tiny --tokens 1,2 -n 2 --ids --ignore-eos
	check "run takes a name of Ollama's store" \
		"$llmctl" run tiny:q8 --tokens 1,2 -n 2 --ids --ignore-eos
	check "an unknown name says where it was looked for" refused 1 'Org/None.*hub' \
		"$llmctl" run Org/None --tokens 1
else
	skip "no python3 to read the JSON with"
fi
echo "1..$n"
exit $failed
