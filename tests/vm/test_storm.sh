#!/bin/sh
# SPDX-License-Identifier: MIT
# The other programs under a storm of signals: nothing may be lost, done twice, or told as EINTR.
bad=0 ran=0
for t in first refusals deaths share trace region ${STORM_TOO:+bounds limits region_refusals} $STORM_TOO; do
	[ -x /tests/test_$t ] || continue
	echo "# test_$t"
	STORM=1 /tests/test_$t || bad=1
	ran=$((ran + 1))
done
[ $ran -gt 0 ] || { echo "not ok 1 - none of the programs is here"; bad=1; }
exit $bad
