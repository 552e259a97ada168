#!/bin/bash
# SPDX-License-Identifier: MIT
# Memory of a run: its peak RSS against file + KV + 64 MB, and how much of the file the page cache
# holds afterwards against 1 % of it.
# usage: tests/bench/rss.sh MODEL... [-- OPTION of llmctl run ...]    environment: LLMDEV_BUILD (build)
# Prints one JSON object a model on stdout, a readable line on stderr. Exit status 1 if a bound is
# not reached.
set -u
llmctl=${LLMDEV_BUILD:-build}/llmctl
prompt=$(seq -s, 1 128) new=32
models=()
while [ $# -gt 0 ]; do
	[ "$1" = -- ] && { shift; break; }
	models+=("$1"); shift
done
[ ${#models[@]} -gt 0 ] || { sed -n 5,6p "$0" >&2; exit 2; }
command -v python3 >/dev/null || { echo "rss.sh: python3 is needed" >&2; exit 1; }
command -v fincore >/dev/null || echo "rss.sh: no fincore (util-linux): the page cache is not measured" >&2

cached() { fincore --bytes --noheadings --output RES "$@" 2>/dev/null | awk '{ s += $1 } END { print s + 0 }'; }

status=0
for model in "${models[@]}"; do
	files=("$model")
	[ -d "$model" ] && files=("$model"/*.safetensors)
	facts=$("$llmctl" inspect "$model" --json --no-measure) || exit 1
	# Written pages cannot be dropped: to disk first, then out of the page cache.
	sync "${files[@]}"
	for f in "${files[@]}"; do dd of="$f" oflag=nocache conv=notrunc,fdatasync count=0 2>/dev/null; done
	before=$(cached "${files[@]}")
	# ru_maxrss is the kernel's VmHWM of the child.
	rss=$(python3 - "$llmctl" run "$model" --tokens "$prompt" -n $new --ignore-eos --ids --ctx 4096 "$@" <<'PY'
import resource, subprocess, sys
p = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
if p.returncode:
    sys.exit(p.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
PY
	) || exit 1
	after=$(cached "${files[@]}")
	python3 - "$model" "$rss" "$before" "$after" $((128 + new)) "$facts" "${files[@]}" <<'PY' || status=1
import json, os, sys
model, rss, before, after, tokens, facts = sys.argv[1:7]
facts, rss, grown = json.loads(facts), int(rss), max(0, int(after) - int(before))
size = sum(os.path.getsize(f) for f in sys.argv[7:])
# KV of the positions that were used, in whole pages of 64; f32 would be twice this.
kv = facts["kv_bytes_per_token"] * -(-int(tokens) // 64) * 64
bound = size + kv + (64 << 20)
ok = rss <= bound and grown <= size // 100
print(json.dumps({"bench": "rss", "model": os.path.basename(model), "file_bytes": size, "kv_bytes": kv,
                  "peak_rss": rss, "bound": bound, "over_file_and_kv": rss - size - kv,
                  "page_cache_growth": grown, "reached": ok}))
print("%s: peak RSS %.1f MB = file %.1f + KV %.1f + %.1f MB (64 MiB allowed): %s; page cache grew by "
      "%.2f %% of the file (1 %% allowed): %s" % (
          os.path.basename(model), rss / 1e6, size / 1e6, kv / 1e6, (rss - size - kv) / 1e6,
          "reached" if rss <= bound else "not reached", 100 * grown / size,
          "reached" if grown <= size // 100 else "not reached"), file=sys.stderr)
sys.exit(not ok)
PY
done
exit $status
