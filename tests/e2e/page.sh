#!/bin/bash
# SPDX-License-Identifier: MIT
# The gateway's page in a browser: see page.py. What can be seen without one is checked first.
. tests/e2e/daemon.bash
. tests/e2e/http.bash

echo "sk-page principal=page" >"$tmp/keys"
# Slow enough that an answer can be stopped.
start_daemon --pace 40 && start_gateway --model "demo=$socket" --api-key-file "$tmp/keys" &&
	keyed=$url && start_gateway --model "demo=$socket" || {
	check "daemon and gateways start" false
	finish
}

curl_page() { python3 - "$1" <<-'EOF' >"$tmp/page"; }
	import sys, urllib.request
	reply = urllib.request.urlopen(sys.argv[1], timeout=30)
	for name, value in reply.headers.items():
	    print(f"{name}: {value}")
	print()
	sys.stdout.write(reply.read().decode())
EOF
nonce() { sed -nE "s/^Content-Security-Policy:.*script-src 'nonce-([0-9a-f]{32})'.*/\1/p" "$tmp/page"; }
curl_page "$url/"
first=$(nonce)
check "page: has a policy with a number" [ -n "$first" ]
check "page: its script and style bear it" [ "$(grep -c "nonce=\"$first\"" "$tmp/page")" = 2 ]
check "page: nothing that takes HTML from a string" bash -c \
	"! grep -nE 'innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function' '$tmp/page'"
check "page: nothing from elsewhere" bash -c "! grep -nE '(src|href)=.?https?:|@import|url\(' '$tmp/page'"
curl_page "$keyed/"
check "page: needs no key, and the number is new each time" [ -n "$(nonce)" -a "$(nonce)" != "$first" ]

PYTHONDONTWRITEBYTECODE=1 python3 tests/e2e/page.py "$n" "$url/" demo "$keyed/"
rc=$?
stop_gateways
exit $((rc > 0 || failed > 0))
