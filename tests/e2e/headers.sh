#!/bin/bash
# SPDX-License-Identifier: MIT
# The public headers, as strangers compile them: uapi/llm.h with its layout on 32-bit and 64-bit
# targets, llmdev.h alone, in C99 and C++, without warnings.
set -u
n=0 failed=0
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cc=${CC:-gcc}
check() {
	n=$((n + 1))
	if "${@:2}" >"$tmp/out" 2>&1; then echo "ok $n - $1"; else
		echo "not ok $n - $1"; failed=1; sed 's/^/# /' "$tmp/out"
	fi
}
skip() { n=$((n + 1)); echo "ok $n # SKIP $1"; }
strict=(-Wall -Wextra -Wpadded -Werror -fsyntax-only)

check "llm.h includes nothing but linux/types.h and linux/ioctl.h" \
	test "$(grep -h '^#include' uapi/llm.h | sort | tr -d '\n')" = "#include <linux/ioctl.h>#include <linux/types.h>"
check "llm.h needs nothing else, has no hidden padding" "$cc" -std=c99 -pedantic "${strict[@]}" -x c uapi/llm.h -Wno-pragma-once-outside-header
check "its layout here" "$cc" -std=gnu11 "${strict[@]}" -Iuapi -x c tests/unit/layout.h

# Freestanding: a 32-bit C library is not needed for it.
asm=$(for d in /usr/include/*-linux-gnu; do [ -d "$d/asm" ] && echo "$d" && break; done)
layout32() { "$@" -std=gnu11 "${strict[@]}" -ffreestanding -Iuapi ${asm:+-isystem "$asm"} -isystem /usr/include -x c tests/unit/layout.h; }
can32() { echo 'int main(void) { return 0; }' | "$@" -fsyntax-only -x c - 2>/dev/null; }
for how in "$cc -m32" "clang -m32" "clang --target=armv7-linux-gnueabihf"; do
	if can32 $how; then
		check "its layout with $how" layout32 $how
	else
		skip "no $how"
	fi
done

echo '#include "llmdev.h"' >"$tmp/c.c"
check "llmdev.h in C99" "$cc" -std=c99 -pedantic -Wall -Wextra -Werror -fsyntax-only -Iruntime/lib "$tmp/c.c"
if command -v "${CXX:-g++}" >/dev/null; then
	cp "$tmp/c.c" "$tmp/c.cc"
	check "llmdev.h in C++" "${CXX:-g++}" -std=c++11 -pedantic -Wall -Wextra -Werror -fsyntax-only -Iruntime/lib "$tmp/c.cc"
else
	skip "no C++ compiler"
fi
lib=${LLMDEV_BUILD:-build}/libllmdev.a
# The example in llmdev.h's first comment compiles and links with nothing but the library.
{
	printf '#include <err.h>\n#include <stdio.h>\n#include "llmdev.h"\nint main(void)\n{\n'
	sed -n 's/^ \*\t//p' runtime/lib/llmdev.h
	printf '}\n'
} >"$tmp/example.c"
check "llmdev.h's example" "$cc" -std=gnu11 -Wall -Werror -Iruntime/lib -o "$tmp/example" "$tmp/example.c" \
	$(nm "$lib" 2>/dev/null | grep -q __asan_ && echo -fsanitize=address,undefined) "$lib"
echo "1..$n"
exit $failed
