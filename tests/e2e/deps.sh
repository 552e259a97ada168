#!/bin/bash
# SPDX-License-Identifier: MIT
# tools/deps on made-up machines: a copy of it with a PATH of fakes and an empty SYSROOT, so that
# nothing real is looked at or installed. The fake apt-get writes down what it was told.
set -u
n=0 failed=0
check() {
	n=$((n + 1))
	if "${@:2}"; then echo "ok $n - $1"; else echo "not ok $n - $1"; failed=1; sed 's/^/#   /' "$m/out" "$m/apt" 2>/dev/null; fi
}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

# machine UID: a bare one, with apt-get that works and no sudo.
machine() {
	m=$root/$((++machines))
	mkdir -p "$m/bin" "$m/tree/tools" "$m/sys/usr/include"
	cp tools/deps "$m/tree/tools/"
	for tool in bash env dirname mktemp grep sed rm tail mkdir cat; do ln -s "$(command -v $tool)" "$m/bin/"; done
	fake id "echo $1"
	fake uname 'echo x86_64'
	fake apt-get "echo \"\$*\" >>$m/apt"
}
fake() { printf '#!/bin/bash\n%s\n' "$2" >"$m/bin/$1"; chmod +x "$m/bin/$1"; }
deps() { env -i PATH="$m/bin" SYSROOT="$m/sys" TMPDIR="$root" "$m/tree/tools/deps" "$@" >"$m/out" 2>&1 </dev/null; }
# provide: everything that `tools/deps check` looks for
provide() {
	local c h
	for c in gcc g++ make python3 clang aarch64-linux-gnu-gcc qemu-aarch64 chromium chromedriver qemu-system-x86_64 qemu-system-aarch64 cpio pahole; do fake $c :; done
	mkdir -p "$m/sys/usr/include/editline" "$m/sys/usr/include/curl" "$m/sys/usr/aarch64-linux-gnu/include" \
		"$m/sys/usr/lib/llvm-14/lib/clang/14/lib/linux"
	mkdir -p "$m/sys/usr/sbin" && : >"$m/sys/usr/sbin/mkfs.ext4"
	for h in stdio.h liburing.h numa.h jansson.h pcre2.h editline/readline.h curl/curl.h microhttpd.h; do
		: >"$m/sys/usr/include/$h"
	done
	: >"$m/sys/usr/aarch64-linux-gnu/include/stdio.h"
	mkdir -p "$m/sys/usr/lib32" "$m/sys/usr/lib/gcc/x86_64-linux-gnu/12/32"
	: >"$m/sys/usr/lib32/libc.a"
	: >"$m/sys/usr/lib/gcc/x86_64-linux-gnu/12/32/libgcc.a"
	: >"$m/sys/usr/lib/llvm-14/lib/clang/14/lib/linux/libclang_rt.fuzzer-x86_64.a"
}
says() { grep -qF -- "$1" "$m/out"; }
told_apt() { grep -qE -- "$1" "$m/apt" 2>/dev/null; }
machines=0

machine 0; provide
deps check; rc=$?
check "nothing missing: exit 0" [ $rc -eq 0 ]
check "nothing missing: says nothing" [ ! -s "$m/out" ]
check "nothing missing: apt-get is left alone" [ ! -e "$m/apt" ]
rm "$m/sys/usr/include/jansson.h"
deps --print
check "a header that vanished is noticed" [ "$(cat "$m/out")" = libjansson-dev ]

machine 0
# The fake install provides what it was asked for, as the real one would.
fake apt-get "echo \"\$*\" >>$m/apt; case \"\$*\" in *install*) [ -e $m/given ] || { touch $m/given; . $m/provide; };; esac"
{ echo "m=$m"; declare -f fake provide; echo provide; } >"$m/provide"
cp "$(command -v chmod)" "$m/bin/"
deps run; rc=$?
check "root without a terminal: installs and goes on" [ $rc -eq 0 ]
check "root: package lists are brought up to date first" told_apt 'update'
check "root: asks for the compiler and liburing" told_apt 'install .*gcc .*liburing-dev'
check "run does not ask for what only tests need" bash -c "! grep -q clang '$m/apt'"
check "every missing package is listed with its purpose" says 'libpcre2-dev             patterns of the tokenizers'

machine 0
fake apt-get "case \"\$*\" in *install*) echo 'E: Unable to locate package'; exit 100;; esac"
deps run; rc=$?
check "apt-get fails: exit 1" [ $rc -eq 1 ]
check "apt-get fails: its own words are shown" says 'apt-get: E: Unable to locate package'

machine 0; provide; rm "$m/bin/clang"
fake apt-get "echo \"\$*\" >>$m/apt; case \"\$*\" in *install*) exit 100;; esac"
deps check; rc=$?
check "an optional package that cannot be had: goes on" [ $rc -eq 0 ]
check "an optional package that cannot be had: says so" says 'going on without clang'
: >"$m/apt"
deps check
check "it is not asked for again" [ ! -s "$m/apt" ]

machine 1000
deps run; rc=$?
check "no root, no sudo: exit 1" [ $rc -eq 1 ]
check "no root, no sudo: the exact command" says 'as root: apt-get install -y --no-install-recommends gcc libc6-dev make'

machine 1000; fake sudo 'exit 1'
deps run; rc=$?
check "sudo wants a password, no terminal: exit 1" [ $rc -eq 1 ]
check "sudo wants a password, no terminal: the exact command" says 'run: sudo apt-get install -y'

machine 1000; provide; rm "$m/sys/usr/include/numa.h"
fake sudo "[ \"\$1\" = -n ] && shift; [ \"\$1\" = true ] || { touch $m/sys/usr/include/numa.h; \"\$@\"; }"
ln -s "$(command -v touch)" "$m/bin/"
deps run; rc=$?
check "sudo without a password: installs" [ $rc -eq 0 ]
check "sudo without a password: through sudo, only what is missing" told_apt 'install .* libnuma-dev$'

# On a terminal, which script(1) plays.
answer() { # answer TEXT: as deps, with a terminal where TEXT is typed
	printf '%s\n' "$1" | script -qec "env -i PATH='$m/bin' SYSROOT='$m/sys' TMPDIR='$root' TERM=dumb '$m/tree/tools/deps' run" /dev/null >"$m/out" 2>&1
}
if command -v script >/dev/null; then
	machine 0; provide; rm "$m/sys/usr/include/numa.h"
	answer n; rc=$?
	check "a terminal: asks first" says 'Install them now with "apt-get install -y --no-install-recommends libnuma-dev"? [Y/n]'
	check "the answer n: exit 1" [ $rc -eq 1 ]
	check "the answer n: nothing is installed" [ ! -e "$m/apt" ]
	fake apt-get "echo \"\$*\" >>$m/apt; : >$m/sys/usr/include/numa.h"
	answer ''; rc=$?
	check "just Enter: installs" told_apt 'install .* libnuma-dev$'
	check "just Enter: goes on" [ $rc -eq 0 ]
else
	n=$((n + 1)); echo "ok $n # SKIP no script(1) to play a terminal"
fi

machine 0; rm "$m/bin/apt-get"
deps run; rc=$?
check "no apt-get: exit 1 and says why" [ $rc -eq 1 ]
check "no apt-get: says what to do" says 'this is no Debian or Ubuntu system: install what provides them'

machine 0
deps bogus; rc=$?
check "an unknown argument is refused" [ $rc -eq 2 ]

echo "1..$n"
exit $failed
