#!/bin/bash
# SPDX-License-Identifier: MIT
# make install and uninstall, and a program of somebody else's built against what was installed.
set -u
n=0 failed=0
check() {
	n=$((n + 1))
	if "${@:2}"; then echo "ok $n - $1"; else echo "not ok $n - $1"; failed=1; sed 's/^/#   /' "$tmp/out"; fi
}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
# Under a running make its options would be inherited: this is a make of its own.
run_make() { env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS make O="${LLMDEV_BUILD:-build}" SAN="${SAN:-0}" "$@" >"$tmp/out" 2>&1; }
there() { local f; for f in "$@"; do [ -e "$tmp/root/opt/llm/$f" ] || { echo "$f is not there" >>"$tmp/out"; return 1; }; done; }

check "make install DESTDIR PREFIX" run_make install DESTDIR="$tmp/root" PREFIX=/opt/llm
check "programs, library, headers" there bin/llmctl sbin/llmdevd lib/libllmdev.a include/llmdev.h include/llm.h
check "pkg-config file, unit, groups, completion" there lib/pkgconfig/llmdev.pc \
	lib/systemd/system/llmdevd@.service lib/sysusers.d/llmdev.conf share/bash-completion/completions/llmctl
check "the built-in model" there share/llmdev/demo/config.json share/llmdev/demo/model.safetensors
check "no placeholder is left" bash -c "! grep -rn '@PREFIX@\|@LIBDIR@\|@VERSION@' '$tmp/root' --include=*.pc --include=*.service"
check "the unit starts the installed daemon" grep -q 'ExecStart=/opt/llm/sbin/llmdevd ' "$tmp/root/opt/llm/lib/systemd/system/llmdevd@.service"

# The library must need nothing but the C library, and its header nothing but itself.
cat >"$tmp/client.c" <<'EOS'
#include <llmdev.h>
int main(void)
{
	struct llmdev *d;
	char why[256];

	if (llmdev_open(&d, 0, why, sizeof(why)))
		return 3;
	llmdev_submit_text(d, "hi", 2, 0, 0);
	llmdev_close(d);
	return 0;
}
EOS
[ "${SAN:-0}" = 1 ] && san="-fsanitize=address,undefined"
check "a client builds against it" bash -c \
	"${CC:-gcc} -std=c99 -Wall -Wextra -Werror ${san:-} -I'$tmp/root/opt/llm/include' -o '$tmp/client' '$tmp/client.c' -L'$tmp/root/opt/llm/lib' -lllmdev >'$tmp/out' 2>&1"
LLMDEV_SOCKET=$tmp/none XDG_RUNTIME_DIR=$tmp "$tmp/client" 2>"$tmp/out"
check "and says that nobody serves" [ $? -eq 3 ]

check "make uninstall" run_make uninstall DESTDIR="$tmp/root" PREFIX=/opt/llm
check "leaves no file" [ -z "$(find "$tmp/root" -type f)" ]
check "leaves no folder of its own" [ ! -e "$tmp/root/opt/llm/share/llmdev" ]
echo "1..$n"
exit $failed
