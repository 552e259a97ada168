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

# ---- the module's sources for DKMS, and everything away again
check "make dkms_install" run_make dkms_install DESTDIR="$tmp/root" PREFIX=/opt/llm
dkms=$(echo "$tmp"/root/usr/src/llmdev-*)
check "dkms.conf" [ -s "$dkms/dkms.conf" ]
(. "$dkms/dkms.conf" && echo "$PACKAGE_NAME-$PACKAGE_VERSION ${BUILT_MODULE_NAME[0]} ${DEST_MODULE_LOCATION[0]} $AUTOINSTALL") >"$tmp/out" 2>&1
check "it names package, version, module and place as DKMS wants them" \
	[ "$(cat "$tmp/out")" = "${dkms##*/} llm /updates/dkms yes" ]
diff <(find kmod Kbuild uapi -type f ! -name rules.mk | sort) \
	<(cd "$dkms" && find . -type f ! -name dkms.conf | sed 's|^\./||' | sort) >"$tmp/out" 2>&1
check "all of the module's sources are there" [ ! -s "$tmp/out" ]
check "udev rules and units" there lib/udev/rules.d/60-llmdev.rules lib/systemd/system/llmdevd@.service

# What modules_install would have put there; beside it somebody else's module.
mkdir -p "$tmp/root/lib/modules/6.1.0/updates" "$tmp/root/lib/modules/6.2.0/updates"
: >"$tmp/root/lib/modules/6.1.0/updates/llm.ko" >"$tmp/root/lib/modules/6.2.0/updates/llm.ko.xz"
: >"$tmp/root/lib/modules/6.1.0/updates/other.ko"
check "make uninstall" run_make uninstall DESTDIR="$tmp/root" PREFIX=/opt/llm
check "leaves what is somebody else's" [ -e "$tmp/root/lib/modules/6.1.0/updates/other.ko" ]
rm -f "$tmp/root/lib/modules/6.1.0/updates/other.ko"
find "$tmp/root" ! -type d >"$tmp/out"
check "leaves no file" [ ! -s "$tmp/out" ]
find "$tmp/root" -mindepth 1 ! -path "$tmp/root/lib*" >"$tmp/out"
check "leaves no folder" [ ! -s "$tmp/out" ]
check "make uninstall where nothing is" run_make uninstall DESTDIR="$tmp/root" PREFIX=/opt/llm
echo "1..$n"
exit $failed
