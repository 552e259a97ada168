#!/bin/sh
# SPDX-License-Identifier: MIT
# 64 streams over the device and over the socket in turns; runs in the virtual machine (vm_device.sh),
# with busybox. Two daemons: one that has only a socket, one that has the device as well.
# /streams.conf: FILES PACE ROUNDS SECONDS
read -r files pace rounds seconds </streams.conf
tokens=$((pace * (seconds + 60)))
start() {
	llmdevd /model "$@" --threads 1 --pace "$pace" --ctx 16384 --batch "$files" --limits sessions=1024,principal=1024,uid=1024 2>>/tmp/log &
}
start --socket /tmp/plain.sock; plain=$!
start --socket /tmp/beside.sock --device; device=$!
for _ in $(seq 600); do
	[ -S /tmp/plain.sock ] && [ -c /dev/llm0 ] && break
	sleep 0.1
done
sleep 1
for _ in $(seq "$rounds"); do
	vm_streams /dev/llm0 $device "$files" "$tokens" "$seconds" || bad=1
	vm_streams /tmp/plain.sock $plain "$files" "$tokens" "$seconds" || bad=1
	sleep 1
done
kill $plain $device
wait
[ -z "${bad-}" ] || sed 's/^/# /' /tmp/log
exit "${bad:-0}"
