#!/bin/bash
# SPDX-License-Identifier: MIT
# llmctl bench memory and report, without a GPU and with a made-up driver's library
# (tests/fixtures/fake_cuda.c).
set -u
n=0 failed=0
build=${LLMDEV_BUILD:-build}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
check() {
	n=$((n + 1))
	if "${@:2}"; then echo "ok $n - $1"; else echo "not ok $n - $1"; failed=1; sed 's/^/#   /' "$tmp/out" "$tmp/err" | head -60; fi
}
run() { "$build/llmctl" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null; rc=$?; }
says() { grep -qF -- "$1" "$tmp/out"; }
complains() { grep -qF -- "$1" "$tmp/err"; }
# json EXPRESSION: over j, the last run's output
json() { python3 -c "
import json, sys
j = json.load(open(sys.argv[1]))
sys.exit(0 if ($1) else 1)" "${2:-$tmp/out}" 2>>"$tmp/err"; }
row() { echo "[r for r in j['rows'] if r['memory'] == '$1'][0]"; }

# ---- bench memory on the machine that this is
run bench memory --size 8M --runs 2 --threads 2 --control "$tmp/none"
check "bench memory: exit 0" [ $rc -eq 0 ]
check "a row for small pages" bash -c "grep -qE '^anonymous, small pages +[0-9]+ % +[0-9.]+ ' '$tmp/out'"
check "without the module it says so" says "$tmp/none: not there: the module is not loaded"
run bench memory --size 8M --runs 3 --json --control "$tmp/none"
check "JSON: bytes, rounds, threads" json "j['bytes'] == 8 << 20 and j['rounds'] == 3 and j['threads'] >= 1"
check "JSON: a rate for each kind that there is" json \
	"all('cpu_bytes_per_s' in r or 'gpu_bytes_per_s' in r or r['missing'] for r in j['rows'])"
check "JSON: low, median and high are in order" json \
	"(lambda c: 0 < c['low'] <= c['median'] <= c['high'])($(row 'anonymous, small pages')['cpu_bytes_per_s'])"
check "small pages are small" json "$(row 'anonymous, small pages')['huge_bytes'] == 0"
if grep -q '\[never\]' /sys/kernel/mm/transparent_hugepage/enabled 2>/dev/null || [ ! -e /sys/kernel/mm/transparent_hugepage ]; then
	n=$((n + 1)); echo "ok $n # SKIP no transparent huge pages here"
else
	check "huge pages are counted" json "0 <= $(row 'anonymous, huge pages')['huge_bytes'] <= j['bytes']"
fi
mkdir "$tmp/dir"
run bench memory --size 4M --runs 1 --control "$tmp/dir"
check "a control file that is none" says "not measured: region: "
for bad in "--size 0" "--size x" "--size 1K" "--threads 0" "--runs 33" "--none" "extra"; do
	# shellcheck disable=SC2086
	run bench memory $bad
	check "bench memory $bad: usage" [ $rc -eq 2 ]
done
run bench memory --size 16T
check "more than there is: refused, with what is available" bash -c "[ $rc -eq 1 ] && grep -q 'are available' '$tmp/err'"

# ---- a GPU
if ! ${CC:-gcc} -shared -fPIC -O1 -o "$tmp/libcuda.so.1" tests/fixtures/fake_cuda.c 2>"$tmp/err"; then
	n=$((n + 1)); echo "not ok $n - the made-up driver builds"; failed=1; sed 's/^/#   /' "$tmp/err"
fi
gpu() { FAKE_CUDA=$1 LD_LIBRARY_PATH=$tmp run bench memory --size 4M --runs 2 --control "$tmp/none" "${@:2}"; }
gpu "" --json
check "a GPU that reads registered memory only" json \
	"'gpu_bytes_per_s' in $(row 'anonymous, small pages') and not j['gpu']['pageable_memory_access']"
check "device memory" json "abs($(row 'device memory')['gpu_bytes_per_s']['median'] * 0.5e-3 / (4 << 20) - 1) < 1e-4"
check "registered memory" json "'gpu_bytes_per_s' in $(row 'registered with the GPU')"
check "GPU facts" json "j['gpu']['name'] == 'Fake GPU 7' and j['gpu']['sm'] == 121 and j['gpu']['free_bytes'] == 2 << 30"
# 5 kinds that are there, 2 rounds, 1 + 3 passes of 4 MiB; hugetlb only where there are free pages.
check "every byte was read, in every pass" bash -c "grep -qE 'fake_cuda: 0 left, (167772160|201326592) bytes' '$tmp/err'"
gpu pageable
check "one that reads all memory" says 'which reads this process'
check "nothing is left behind" complains 'fake_cuda: 0 left'
gpu noregister --json
check "registering fails: the CPU's figure stays, the reason is told" json \
	"(lambda r: 'cpu_bytes_per_s' in r and 'CUDA_ERROR_NOT_SUPPORTED' in r['gpu_missing'])($(row memfd))"
gpu noalloc
check "no device memory" says 'not measured: device memory: gpu: device memory: CUDA_ERROR_OUT_OF_MEMORY'
check "no device memory: nothing is left behind" complains 'fake_cuda: 0 left'
gpu nogpu
check "a driver without a GPU" says 'no rows of a GPU: gpu: the driver knows no GPU'
${CC:-gcc} -shared -fPIC -x c -o "$tmp/libcuda.so.1" /dev/null
gpu ""
check "a driver that lacks functions" says 'has no cuInit: update the driver'

# ---- report
mkdir -p "$tmp/home/alice"
rm "$tmp/libcuda.so.1"
${CC:-gcc} -shared -fPIC -O1 -o "$tmp/libcuda.so.1" tests/fixtures/fake_cuda.c
FAKE_CUDA= LD_LIBRARY_PATH=$tmp HOME=$tmp/home/alice run report --quick --limit 600 -o "$tmp/report.json" --dir "$tmp/home/alice/none"
check "report --quick: exit 0" [ $rc -eq 0 ]
check "nothing goes to stdout" [ ! -s "$tmp/out" ]
check "it says where the report is, and that it was not sent" bash -c "grep -qF '$tmp/report.json' '$tmp/err' && grep -q 'Nothing was sent' '$tmp/err'"
check "all parts are there" json "set(j) >= {'machine', 'doctor', 'memory', 'decode', 'prefill', 'disk', 'seconds'}" "$tmp/report.json"
check "what an allocation of the GPU's does to free memory" json \
	"j['gpu']['facts']['name'] == 'Fake GPU 7' and all(j['gpu'][k]['MemFree'] > 0 and j['gpu'][k]['gpu_free'] == 2 << 30 for k in ('before', 'allocated', 'freed'))" "$tmp/report.json"
check "what doctor finds" json "len(j['doctor']['findings']) >= 19" "$tmp/report.json"
check "the built-in model's speed" json "j['decode'].get('tokens_per_s', 0) > 0" "$tmp/report.json"
check "a folder that is not there: told, the rest is there" json "'No such file' in j['disk']['missing']" "$tmp/report.json"
check "the home's path is taken out" bash -c "grep -q HOME/none '$tmp/report.json' && ! grep -q alice '$tmp/report.json'"
host=$(hostname 2>/dev/null || cat /proc/sys/kernel/hostname)
if [ "${#host}" -ge 6 ] && [ "$host" != localhost ]; then
	check "no host name" bash -c "! grep -qwF -- '$host' '$tmp/report.json'"
fi
run report --quick --limit 600 -o - --dir "$tmp"
check "-o -: the report on stdout" json "j['llmdev_report'] == 1"
check "without a GPU: told" json "'missing' in j['gpu']"
check "the disk is measured" json \
	"'missing' in j['disk'] or (j['disk']['page_cache']['bytes_per_s'] > 0 and ('missing' in j['disk']['io_uring'] or j['disk']['io_uring']['bytes_per_s'] > 0))"
check "no file is left behind" bash -c "[ \"\$(ls '$tmp' | grep -vcE '^(out|err|home|dir|report.json|libcuda.*)\$')\" = 0 ]"
run report --quick --limit 600 -o "$tmp/none/x" --model "$tmp/none"
check "a file that cannot be written: exit 1" bash -c "[ $rc -eq 1 ] && grep -q 'none/x: No such file' '$tmp/err'"
run report --limit 0
check "no time at all: usage" [ $rc -eq 2 ]
run report extra
check "an argument: usage" [ $rc -eq 2 ]
echo "1..$n"
exit $failed
