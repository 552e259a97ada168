#!/bin/bash
# SPDX-License-Identifier: MIT
# llmctl cache: status and drop of files, folders, a filesystem, everything; dirty and mapped pages; what
# another user may not do. With the module: tests/vm/policy.sh.
set -u
llmctl=$(realpath "${LLMDEV_BUILD:-build}/llmctl")
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
n=0 failed=0
check() {
	n=$((n + 1))
	if "${@:2}"; then echo "ok $n - $1"; else
		echo "not ok $n - $1"; failed=1
		head -5 "$tmp/err" "$tmp/json" 2>/dev/null | sed 's/^/# /'
	fi
}
skip() { n=$((n + 1)); echo "ok $n # SKIP $1"; }
json() { # json EXPRESSION ARGUMENTS...: over j, the output, and t, its targets
	"$llmctl" cache "${@:2}" --json >"$tmp/json" 2>"$tmp/err" &&
		python3 -c 'import json,sys; j = json.load(open(sys.argv[1])); t = j["targets"]; sys.exit(not eval("(" + sys.argv[2] + ")"))' "$tmp/json" "$1"
}
fails() { "${@:3}" >"$tmp/out" 2>"$tmp/err"; [ $? -eq "$1" ] && grep -q "$2" "$tmp/err"; }
as_nobody() { python3 -c 'import os,sys
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
os.execv(sys.argv[1], sys.argv[1:])' "$@"; }

mkdir -p "$tmp/d/sub"
head -c 4194304 /dev/urandom >"$tmp/d/a"; head -c 1048576 /dev/urandom >"$tmp/d/sub/b"; : >"$tmp/d/empty"
check "what was just written is cached" json 't[0]["cached"] == 5 << 20 and t[0]["files"] == 2' status --file "$tmp/d"
check "for people" grep -q "/d: 5.00 MiB cached, 2 files" <("$llmctl" cache status --file "$tmp/d")
# Where files are memory (tmpfs) there is nothing to drop.
if [ "$(stat -f -c %T "$tmp")" = tmpfs ] || ! json 't[0]["cached_after"] == 0' drop --sync --file "$tmp/d/a"; then
	skip "files here are on a filesystem without a page cache that can be dropped"
else
	cat "$tmp/d/a" >/dev/null
	check "dropped: before and after" json 't[0]["cached_before"] == 4 << 20 and t[0]["cached_after"] == 0' drop --sync --file "$tmp/d/a"
	check "the other one stays" json 't[0]["cached"] == 1 << 20' status --file "$tmp/d/sub/b"
	cat "$tmp/d/a" >/dev/null
	check "two targets" json 'len(t) == 2 and all(x["cached_after"] == 0 for x in t)' drop --sync --file "$tmp/d/a" --file "$tmp/d/sub"
	cat "$tmp/d/a" >/dev/null
	python3 -c 'import mmap,sys,time
f = open(sys.argv[1], "rb"); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); sum(m[i] for i in range(0, len(m), 4096))
print("mapped", flush=True); time.sleep(600)' "$tmp/d/a" >"$tmp/mapped" & mapper=$!
	for _ in $(seq 300); do [ -s "$tmp/mapped" ] && break; sleep 0.1; done
	check "what a process maps stays" json 't[0]["cached_after"] == 4 << 20' drop --file "$tmp/d/a"
	check "and is said" grep -q "4.00 MiB stay: mapped" <("$llmctl" cache drop --file "$tmp/d/a")
	kill $mapper; wait $mapper 2>/dev/null
	head -c 2097152 /dev/urandom >"$tmp/d/dirty"
	dirty() { # written pages may have reached the disk by themselves already
		json 't[0]["cached_after"] == t[0]["dirty"] or t[0]["dirty"] is None' drop --file "$tmp/d/dirty"
	}
	check "what is dirty stays, and is named" dirty
	check "--sync writes it first" json 't[0]["cached_after"] == 0' drop --sync --file "$tmp/d/dirty"
fi

odd=$tmp/$'a\xff\033[31m\nb'
head -c 100000 /dev/zero >"$odd"
check "a name with bytes that are no text: JSON" json 'len(t) == 1 and t[0]["path"].endswith("a??[31m?b")' status --file "$odd"
check "and on a terminal" bash -c "'$llmctl' cache status --file \"\$1\" | head -1 | grep -q 'a??.31m?b: '" - "$odd"
rm "$odd"

# ---- everything, over a made-up /proc
mkdir -p "$tmp/root/proc/sys/vm"
printf 'MemTotal: 1000 kB\nMemFree: 500 kB\nBuffers: 10 kB\nCached: 300 kB\nShmem: 10 kB\nDirty: 8 kB\n' >"$tmp/root/proc/meminfo"
: >"$tmp/root/proc/sys/vm/drop_caches"
check "--global: what there is" json 't[0]["cached"] == 300 << 10 and t[0]["dirty"] == 8 << 10' status --root "$tmp/root"
check "drop --global" json 't[0]["how"] == "drop_caches"' drop --global --root "$tmp/root"
check "writes what the kernel wants" [ "$(cat "$tmp/root/proc/sys/vm/drop_caches")" = 1 ]

# ---- refusals
check "no such file" fails 1 "No such file" "$llmctl" cache drop --file "$tmp/none"
check "no folder, no file" fails 1 "neither a file nor a folder" "$llmctl" cache status --file /dev/null
check "drop without a target" fails 2 "say drop, with" "$llmctl" cache drop
check "neither drop nor status" fails 2 "say drop" "$llmctl" cache flush
check "status does not write" fails 2 "say drop" "$llmctl" cache status --sync
if [ "$(id -u)" = 0 ]; then
	chmod 711 "$tmp" && cp "$llmctl" "$tmp/llmctl" && chmod 755 "$tmp/llmctl" "$tmp/d" "$tmp/d/sub"
	chmod 600 "$tmp/d/a"; chmod 644 "$tmp/d/sub/b"; chmod 000 "$tmp/d/empty"
	check "another user: a file that he cannot read" fails 1 "Permission denied" as_nobody "$tmp/llmctl" cache drop --file "$tmp/d/a"
	check "how much is cached is not for him" grep -q "of 1 files it is not known" <(as_nobody "$tmp/llmctl" cache status --file "$tmp/d/sub/b")
	check "everything is for root" fails 1 "only root may drop" as_nobody "$tmp/llmctl" cache drop --global
else
	skip "not root: what other users may do"
fi
echo "1..$n"
exit $failed
