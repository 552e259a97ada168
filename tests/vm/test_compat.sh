#!/bin/sh
# SPDX-License-Identifier: MIT
# The other programs as 32-bit ones, where the kernel runs such and the compiler made them.
bad=0
/tests32/test_first >/dev/null 2>&1
case $? in 126 | 127) # cannot be executed; everything else is for the loop to show
	echo "ok 1 # SKIP no 32-bit programs"
	exit 0
esac
for t in first refusals deaths bounds limits share trace region region_refusals; do
	[ -x /tests32/test_$t ] || continue
	echo "# test_$t"
	/tests32/test_$t || bad=1
done
exit $bad
