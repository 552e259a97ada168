#!/bin/bash
# SPDX-License-Identifier: MIT
# The gateway against its own description (docs/openapi.json): schemathesis makes requests that fit it
# and requests that do not. None may end in a 500, all replies must be as described.
. tests/e2e/daemon.bash
. tests/e2e/http.bash
need_packages openai_clients

start_daemon && start_gateway --model "demo=$socket" || {
	check "daemon and gateway start" false
	finish
}
# The same with the name of a model that is there, and short answers.
python3 - "$url/openapi.json" >"$tmp/openapi.json" <<-'EOF'
	import json, sys, urllib.request
	text = urllib.request.urlopen(sys.argv[1], timeout=30).read()
	assert json.loads(text) == json.load(open("docs/openapi.json"))
	doc = json.loads(text)
	for name, schema in doc["components"]["schemas"].items():
	    for s in schema.get("anyOf", [schema]) if name.endswith("Request") else []:
	        members = s["properties"]
	        members["model"] = {"enum": ["demo"]}
	        for limit in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
	            if limit in members:
	                members[limit]["maximum"] = 4
	                s["required"].append(limit)
	        if "n" in members:
	            members["n"]["maximum"] = 2
	json.dump(doc, sys.stdout)
EOF
check "/openapi.json is the description in docs" [ -s "$tmp/openapi.json" ]
conforms() {
	cd "$tmp" || return

	"$venv/bin/schemathesis" run "$tmp/openapi.json" --url "$url" --phases examples,coverage,fuzzing \
		--checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
		--max-examples 25 --generation-deterministic --request-timeout 60 --warnings off \
		--suppress-health-check all --no-color >"$tmp/out" 2>&1 && return
	sed 's/^/# /' "$tmp/out" | tail -150
	return 1
}
(conforms)
rc=$?
check "no reply is a 500 or other than described" [ $rc -eq 0 ]
grep -E "generated|passed|Test cases" "$tmp/out" | sed 's/^/# /'
finish
