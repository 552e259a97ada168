#!/bin/sh
# SPDX-License-Identifier: MIT
# The other programs as 32-bit ones, where the kernel runs such and the compiler made them.
bad=0
/tests32/test_first >/dev/null 2>&1
if [ $? -gt 1 ]; then
	echo "ok 1 # SKIP no 32-bit programs"
	exit 0
fi
for t in first refusals deaths bounds limits share trace region region_refusals; do
	[ -x /tests32/test_$t ] || continue
	echo "# test_$t"
	/tests32/test_$t || bad=1
done
exit $bad
