# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# For end-to-end tests of HTTP clients: a gateway in front of the daemon of daemon.bash, and Python
# packages from PyPI, in an environment of their own. Sourced after daemon.bash.
url= # of the gateway that was started last, without a slash at the end

gateways=()
stop_gateways() {
	local pid
	for pid in "${gateways[@]}"; do
		{ kill -TERM "$pid" && wait "$pid"; } 2>/dev/null
	done
	gateways=()
}
trap 'stop_gateways; cleanup' EXIT

if [ ! -x "$build/llmdev-gateway" ]; then
	skip "llmdev-gateway is not built: libmicrohttpd is missing"
	finish
fi
if ! command -v python3 >/dev/null; then
	skip "no python3"
	finish
fi

# start_gateway [OPTION...]: on a free port, returns when it serves; sets $url
start_gateway() {
	local log
	log=$tmp/gateway.$((${#gateways[@]} + 1)).log
	"$build/llmdev-gateway" --listen 127.0.0.1:0 "$@" 2>"$log" 5>&- &
	gateways+=($!)
	for _ in $(seq 200); do
		url=$(sed -nE 's|.*(http://127\.0\.0\.1:[0-9]+).*|\1|p' "$log" | head -1)
		[ -n "$url" ] && return 0
		kill -0 "${gateways[-1]}" 2>/dev/null || break
		sleep 0.05
	done
	echo "# llmdev-gateway did not start:"
	sed 's/^/# /' "$log"
	return 1
}

# need_packages NAME: the packages of tests/e2e/NAME.txt in build/venvs/NAME; sets $venv. They are
# fetched once; where that does not work the test is skipped. What is not imported is not compiled.
need_packages() {
	local list=tests/e2e/$1.txt
	venv=${LLMDEV_VENVS:-$PWD/build/venvs}/$1
	export PYTHONPYCACHEPREFIX=$venv/pycache
	cmp -s "$list" "$venv/installed.txt" && return
	rm -rf "$venv"
	if ! python3 -m venv "$venv" >"$tmp/pip" 2>&1 ||
		! "$venv/bin/pip" install -q --disable-pip-version-check --no-compile --retries 1 --timeout 20 \
			-r "$list" >>"$tmp/pip" 2>&1; then
		sed 's/^/# /' "$tmp/pip" | tail -3
		rm -rf "$venv"
		skip "pip could not install the packages of $list"
		finish
	fi
	cp "$list" "$venv/installed.txt"
}
