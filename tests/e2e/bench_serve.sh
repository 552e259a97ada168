#!/bin/bash
# SPDX-License-Identifier: MIT
# llmctl bench serve: against a daemon with the built-in model, and against a made-up HTTP server.
# shellcheck source=tests/e2e/daemon.bash
. "$(dirname "$0")/daemon.bash"

bench() { timeout 120 "$build/llmctl" bench serve --socket "$socket" "$@" 2>"$tmp/err"; }
# holds FILE EXPRESSION: of the JSON `j` in FILE, in Python
holds() {
	python3 - "$1" "$2" <<-'EOF'
		import json, sys
		j = json.load(open(sys.argv[1]))
		if not eval("(" + sys.argv[2] + ")"):
		    j.pop("details", None), j.pop("samples", None), j.pop("timeline", None)
		    print("# not so: %s: %s" % (sys.argv[2], json.dumps(j)[:1500]))
		    sys.exit(1)
	EOF
}
# says FILE TEXT...: all of them are in it
says() {
	local text
	for text in "${@:2}"; do
		grep -qF -- "$text" "$1" || { echo "# no \"$text\" in:"; sed 's/^/# /' "$1"; return 1; }
	done
}
# exits STATUS COMMAND...
exits() {
	"${@:2}" >"$tmp/out"
	local rc=$?
	[ $rc -eq "$1" ] || { echo "# exit status $rc:"; sed 's/^/# /' "$tmp/out" "$tmp/err"; return 1; }
}

check "the daemon starts" start_daemon --ctx 2048

# ---- closed loop
check "closed loop, a table" exits 0 bench --pp 20-40 --tg 8 --concurrency 4 --runs 12
check "it names all figures" says "$tmp/out" "12 ended well, 0 failed" TTFT TPOT ITL E2E P99 \
	"at most 4 at once" "of one core"
check "closed loop, JSON" exits 0 bench --pp 20-40 --tg 8 --concurrency 4 --runs 40 --json --details
cp "$tmp/out" "$tmp/closed.json"
check "counts and tokens" holds "$tmp/closed.json" \
	'j["requests"] == {"ok": 40, "failed": 0, "cut": 0, "short": 0} and
	j["tokens"]["out"] == 320 and 800 <= j["tokens"]["in"] <= 1600 and j["peak_concurrency"] == 4'
check "percentiles in order" holds "$tmp/closed.json" \
	'all(0 < m["min"] <= m["p50"] <= m["p90"] <= m["p95"] <= m["p99"] <= m["max"] and m["mean"] > 0
	for m in (j[k] for k in ("ttft_ms", "tpot_ms", "e2e_ms")))'
check "every request in detail" holds "$tmp/closed.json" \
	'len(j["details"]) == 40 and all(d["state"] == "ok" and d["tokens"] == 8 and
	20 <= d["prompt_tokens"] <= 40 and 0 < d["ttft_ms"] <= d["e2e_ms"] and
	sum(d["itl_ms"]) <= d["e2e_ms"] for d in j["details"])'
check "the gaps add up to the answer" holds "$tmp/closed.json" \
	'j["itl_ms"]["n"] == sum(len(d["itl_ms"]) for d in j["details"]) > 0'

check "goodput" exits 0 bench --pp 20 --tg 8 --runs 8 --goodput ttft:100000,e2e:0.0001
check "is what keeps all bounds" says "$tmp/out" "goodput    0 requests (0 %)" "TTFT <= 100000 ms, E2E <= 0.0001 ms"
check "goodput in JSON" exits 0 bench --pp 20 --tg 8 --runs 8 --goodput tpot:100000 --json
check "all kept it" holds "$tmp/out" 'j["goodput"]["requests"] == 8 and j["goodput"]["tpot_ms"] == 100000'

# ---- baseline
python3 - "$tmp/closed.json" "$tmp/slow.json" "$tmp/fast.json" <<'EOF'
import json, sys
j = json.load(open(sys.argv[1]))
for name, factor in ((sys.argv[2], 1000), (sys.argv[3], 0.001)):
    k = json.loads(json.dumps(j))
    for key in ("ttft_ms", "tpot_ms", "e2e_ms", "request_itl_p99_ms"):
        k["samples"][key] = [v * factor for v in k["samples"][key]]
    json.dump(k, open(name, "w"))
EOF
same=(--pp 20-40 --tg 8 --concurrency 4 --runs 40)
check "a far slower baseline" exits 0 bench "${same[@]}" --baseline "$tmp/slow.json" --fail-on-regression
check "it says better" says "$tmp/out" better "99 % interval"
check "a far faster baseline fails where asked to" exits 3 bench "${same[@]}" \
	--baseline "$tmp/fast.json" --fail-on-regression
check "and only there" exits 0 bench "${same[@]}" --baseline "$tmp/fast.json" --json
check "JSON holds the comparison" holds "$tmp/out" \
	'j["baseline"]["worse"] >= 12 and j["baseline"]["same_workload"] and j["baseline"]["same_model"]'
check "another workload is noted" exits 0 bench --pp 5 --tg 2 --runs 8 --baseline "$tmp/closed.json"
check "in words" says "$tmp/out" "another workload: closed loop, 4 clients"
echo '{"bench":"decode"}' >"$tmp/wrong.json"
check "a file of something else" exits 1 bench --runs 1 --tg 1 --baseline "$tmp/wrong.json"
check "one line says so" says "$tmp/err" "not what"
check "no such baseline" exits 1 bench --runs 1 --tg 1 --baseline "$tmp/none.json"

# ---- what is sent
check "turns" exits 0 bench --turns 4 --pp 30 --tg 10 --runs 3 --concurrency 2 --json --details
check "each brings what was said, which is cached" holds "$tmp/out" \
	'len(j["details"]) == 12 and j["tokens"]["cached"] > 0 and not j["answer_ids_unknown"] and
	all(d["prompt_tokens"] == 30 + 40 * d["turn"] for d in j["details"])'
check "a prefix that all share" exits 0 bench --prefix 300 --pp 10 --tg 2 --runs 4 --json --details
check "is cached after the first" holds "$tmp/out" \
	'all(d["cached_tokens"] >= 192 for d in j["details"][1:]) and j["details"][0]["prompt_tokens"] == 310'
check "without one nothing is, however often" exits 0 bench --pp 300 --tg 2 --runs 4 --json
check "not by accident" holds "$tmp/out" 'j["tokens"]["cached"] == 0'
check "a depth" exits 0 bench --depth 200 --pp 10 --tg 4 --concurrency 3 --runs 6 --json --details
check "is loaded before and not computed again" holds "$tmp/out" \
	'len(j["details"]) == 6 and all(d["prompt_tokens"] == 211 and d["cached_tokens"] >= 128
	for d in j["details"])'
check "a shape, scaled" exits 0 bench --shape e --scale 0.02 --runs 2 --json --details
check "five turns of 21 and 6 tokens" holds "$tmp/out" \
	'len(j["details"]) == 10 and j["details"][0]["prompt_tokens"] == 21 and j["tokens"]["out"] == 60'
check "lengths from a file" exits 0 bench --lengths tests/fixtures/bench/conversations.csv \
	--scale 0.05 --runs 20 --concurrency 8 --json
check "all answered" holds "$tmp/out" 'j["requests"]["ok"] == 20'

# ---- open loop
check "open loop" exits 0 bench --rate 40 --burstiness 0.7 --pp 10-50 --tg 5 --runs 20 --json --details \
	--plot "$tmp/plot.svg"
check "sent in the order of arrival, none early" holds "$tmp/out" \
	'j["requests"]["ok"] == 20 and all(d["arrived_s"] <= d["sent_s"] for d in j["details"]) and
	[d["arrived_s"] for d in j["details"]] == sorted(d["arrived_s"] for d in j["details"])'
check "the same seed, the same arrivals and lengths" exits 0 bench --rate 40 --burstiness 0.7 --pp 10-50 \
	--tg 5 --runs 20 --json --details --save "$tmp/saved.json"
check "to the token" python3 - "$tmp/out" "$tmp/saved.json" <<'EOF'
import json, sys
a, b = (json.load(open(f)) for f in sys.argv[1:])
sys.exit(a["details"] != b["details"])
EOF
check "at most so many at once" exits 0 bench --rate 500 --max-concurrency 2 --pp 50 --tg 20 --runs 20 --json
check "the others waited here" holds "$tmp/out" \
	'j["requests"]["ok"] == 20 and j["peak_concurrency"] <= 2 and j["client"]["held"] > 0'
check "a closed loop of an open loop's shape" exits 0 bench --shape J --scale 0.01 --concurrency 2 --runs 4
check "has clients" says "$tmp/out" "shape J: closed loop, 2 clients"
check "a duration" exits 0 bench --duration 0.5 --pp 10 --tg 5 --concurrency 2 --json
check "ends it" holds "$tmp/out" 'j["requests"]["ok"] > 0 and j["duration_s"] >= 0.5'
check "the plot is XML with three panels of axes" python3 - "$tmp/plot.svg" <<'EOF'
import sys, xml.etree.ElementTree as ET
root = ET.parse(sys.argv[1]).getroot()
ns = "{http://www.w3.org/2000/svg}"
texts = [t.text for t in root.iter(ns + "text")]
assert root.tag == ns + "svg" and not list(root.iter(ns + "script"))
for name in ("TTFT, ms", "ITL, ms", "tokens a second", "requests", "seconds"):
    assert name in texts, name
assert len(list(root.iter(ns + "circle"))) == 20 + 4
EOF

# ---- what goes wrong
check "too long for the context: every request fails" exits 1 bench --pp 3000 --tg 5 --runs 3
check "counted, with the daemon's sentence" says "$tmp/out" "0 ended well, 3 failed" "failed     3 x E2BIG: "
check "and the reason on stderr" says "$tmp/err" "llmctl: bench serve: every request failed"
check "some fail: no failure of the benchmark" exits 0 bench --pp 1-4000 --tg 5 --runs 20 --json
check "they are data" holds "$tmp/out" 'j["requests"]["failed"] > 0 < j["requests"]["ok"] and
	j["failures"][0]["count"] == j["requests"]["failed"]'
for bad in "--shape D" "--shape AB" "--pp 0" "--pp 9-5" "--rate 0" "--rate x" "--turns 0" "--nonsense" "word" "--goodput itl:5" \
	"--depth 5 --rate 1" "--max-concurrency 5" "--lengths /nonexistent" "--model x" "--fail-on-regression" \
	"--concurrency 2 --rate 3" "--rate 3 --concurrency 2" "--burstiness 2" "--url http://x --socket y" "--runs 0" "--concurrency 100000" "--device $socket"; do
	# shellcheck disable=SC2086
	check "refused: $bad" exits 2 bench $bad
done
check "nobody there" exits 1 "$build/llmctl" bench serve --socket "$tmp/none.sock" 2>"$tmp/err"
check "help names the shapes" exits 0 bench --help
check "each of them" says "$tmp/out" "  A  " "  J  " --burstiness

interrupted() {
	"$build/llmctl" bench serve --socket "$socket" --pp 50 --tg 100 --concurrency 2 --runs 100000 --json \
		>"$tmp/out" 2>"$tmp/err" &
	local pid=$!
	sleep 1
	kill -INT $pid
	wait $pid
	[ $? -eq 130 ]
}
check "Ctrl-C ends it with 130" interrupted
check "and the figures so far" holds "$tmp/out" 'j["requests"]["ok"] > 0 and j["ended_early"] == "interrupted"'

dies() {
	"$build/llmctl" bench serve --socket "$socket" --pp 50 --tg 100 --concurrency 2 --runs 100000 --json \
		>"$tmp/out" 2>"$tmp/err" &
	local pid=$!
	sleep 1
	stop_daemon 9
	wait $pid
	[ $? -eq 1 ]
}
check "the daemon dies: exit 1" dies
check "what was measured before is reported, and what happened" holds "$tmp/out" \
	'j["requests"]["ok"] > 0 and j["requests"]["failed"] > 0 and j["ended_early"] != ""'
check "on stderr, too" says "$tmp/err" "ended early"

# ---- HTTP
"$build/llmctl" bench serve --url http://127.0.0.1:1 >"$tmp/out" 2>"$tmp/err"
if grep -q "built without libcurl" "$tmp/err"; then
	skip "no HTTP: built without libcurl"
	finish
fi
check "nobody at the URL" says "$tmp/err" "llmctl: http://127.0.0.1:1/v1/models: "
python3 "$(dirname "$0")/openai_stub.py" "$tmp/port" 2>"$tmp/stub.log" &
stub=$!
trap 'kill $stub 2>/dev/null; cleanup' EXIT
check "the made-up server starts" wait_for 20 test -f "$tmp/port"
url=http://127.0.0.1:$(cat "$tmp/port")
http() { timeout 120 "$build/llmctl" bench serve --url "$url/$1" "${@:2}" 2>"$tmp/err"; }
check "over HTTP" exits 0 http ok --pp 50 --tg 7 --concurrency 3 --runs 9 --json
check "tokens as the server counts them" holds "$tmp/out" \
	'j["requests"]["ok"] == 9 and j["tokens"] == {"in": 450, "out": 63, "cached": 27} and
	j["itl_ms"]["n"] == 54 and j["target"]["model"] == "stub"'
check "also with /v1 and a slash" exits 0 http ok/v1/ --pp 50 --tg 7 --runs 2
check "turns: the answer's ids are not told" exits 0 http ok --turns 2 --pp 5 --tg 3 --runs 2 --json
check "and that is said" holds "$tmp/out" 'j["answer_ids_unknown"] and j["requests"]["ok"] == 4'
check "open loop over HTTP" exits 0 http ok --rate 50 --pp 5 --tg 3 --runs 10
check "refused requests" exits 1 http refuse --pp 5 --tg 3 --runs 4
check "with the server's sentence" says "$tmp/out" "failed     4 x HTTP 503: queue full: try later"
check "a model it does not have" exits 1 http ok --model other --runs 1
check "by its status" says "$tmp/out" "HTTP 404: not here"
for how in cut garbage endless-line silent; do
	check "a stream that is $how is a failure" exits 1 http $how --pp 5 --tg 3 --runs 2
	check "and counted" says "$tmp/out" "0 ended well, 2 failed"
done
kill $stub
finish
