#!/bin/bash
# SPDX-License-Identifier: MIT
# Random answers to random schemas (tests/unit/test_grammar_random.c) in the judgement of Python's
# jsonschema, an implementation that is not ours.
set -u
build=${LLMDEV_BUILD:-build}
if ! python3 -c 'import jsonschema' 2>/dev/null; then
	echo "1..0 # SKIP python3 has no jsonschema"
	exit 0
fi
samples=$(mktemp)
trap 'rm -f "$samples"' EXIT
if ! GRAMMAR_SAMPLES=$samples "$build/tests/test_grammar_random" >/dev/null; then
	echo "not ok 1 - $build/tests/test_grammar_random writes samples"
	echo "1..1"
	exit 1
fi
python3 - "$samples" <<'PY'
import json
import sys

import jsonschema

n = wrong = 0
check = jsonschema.Draft202012Validator.FORMAT_CHECKER
for line in open(sys.argv[1], encoding="utf-8"):
    pair = json.loads(line)
    n += 1
    try:
        jsonschema.Draft202012Validator(pair["schema"], format_checker=check).validate(json.loads(pair["text"]))
    except jsonschema.ValidationError as e:
        wrong += 1
        print("#", ascii(pair["text"])[:300], ascii(e.message)[:200])
print(("not ok" if wrong or n < 100 else "ok"), "1 -", n, "answers,", wrong, "refused by jsonschema")
print("1..1")
sys.exit(wrong != 0 or n < 100)
PY
