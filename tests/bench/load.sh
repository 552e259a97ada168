#!/bin/bash
# SPDX-License-Identifier: MIT
# Loading against fio: reads the same file in turn with `fio --ioengine=io_uring --direct=1` and with
# the loader, at the same block size and depth, and prints the ratio of the medians.
# usage: tests/bench/load.sh MODEL [PAIRS] [-- options of build/bench/load]
#   MODEL: a .gguf file or a directory with one model.safetensors (1 GB or more says something)
#   LOADER: the program to measure (default: $O/bench/load, built by `make bench-programs`); anything
#   that prints "bytes_per_s" for MODEL, such as LOADER="build/llmctl bench load --json --runs 1"
# Prints progress to stderr and one JSON object to stdout. Also watched: how many bytes of the file
# the page cache holds afterwards, and the loader's peak RSS over the weights' size.
set -eu
[ $# -ge 1 ] || { sed -n 5,9p "$0" >&2; exit 2; }
model=$1; pairs=5; shift
case ${1:-} in ''|--) ;; *) pairs=$1; shift;; esac
[ "${1:-}" = -- ] && shift
own=${O:-build}/bench/load
loader=${LOADER:-$own}
block=1M depth=64
file=$model; [ -d "$model" ] && file=$model/model.safetensors
command -v fio >/dev/null || { echo "load.sh: fio is not installed" >&2; exit 1; }
[ -x "$own" ] || { echo "load.sh: $own is missing: make bench-programs" >&2; exit 1; }

size=$(stat -Lc %s "$file")
# The loader touches its memory first (see load.c): fio gets the same pause, disks save up bursts.
touch_memory() { "$own" --touch "$size"; }
load() { $loader "$model" "$@"; }
fio_rate() { # bytes per second, from terse output: KiB read (6) and milliseconds (9)
	touch_memory
	fio --name=r --filename="$file" --readonly --ioengine=io_uring --direct=1 --bs=$block \
		--iodepth=$depth --rw=read --terse-version=3 --output-format=terse |
		awk -F';' '{ printf "%.0f\n", $6 * 1024 / ($9 / 1000) }'
}
median() { sort -n | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
field() { sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1/p"; }
cached() { fincore --bytes --noheadings --output RES "$file" 2>/dev/null | tr -d ' ' || echo 0; }

before=$(cached)
fios=() ours=() ratios=()
for i in $(seq "$pairs"); do
	# Who goes first alternates, so that a disk's mood does not favour one side.
	if [ $((i % 2)) = 1 ]; then f=$(fio_rate); out=$(load "$@"); else out=$(load "$@"); f=$(fio_rate); fi
	o=$(echo "$out" | field bytes_per_s)
	fios+=("$f"); ours+=("$o"); r=$(awk "BEGIN { printf \"%.4f\", $o / $f }"); ratios+=("$r")
	echo "pair $i: fio $f, loader $o bytes/s, ratio $r" >&2
done
after=$(cached)
mf=$(printf '%s\n' "${fios[@]}" | median); mo=$(printf '%s\n' "${ours[@]}" | median)
list() { local IFS=,; echo "[$*]"; }
printf '{"file_bytes":%s,"block":"%s","depth":%s,"pairs":%s,"fio_bytes_per_s":%s,"loader_bytes_per_s":%s,"ratio_of_medians":%s,"median_ratio":%s,"ratios":%s,"fio":%s,"loader":%s,"method":"%s","weights_bytes":%s,"peak_rss_kib":%s,"cached_bytes_before":%s,"cached_bytes_after":%s,"cpu":"%s","kernel":"%s","commit":"%s"}\n' \
	"$size" $block $depth "$pairs" "$mf" "$mo" \
	"$(awk "BEGIN { printf \"%.3f\", $mo / $mf }")" "$(printf '%s\n' "${ratios[@]}" | median)" \
	"$(list "${ratios[@]}")" "$(list "${fios[@]}")" "$(list "${ours[@]}")" \
	"$(echo "$out" | field method)" "$(echo "$out" | field weights)" "$(echo "$out" | field peak_rss_kib)" \
	"${before:-0}" "${after:-0}" \
	"$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)" "$(uname -r)" \
	"$(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
