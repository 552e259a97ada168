#!/bin/bash
# SPDX-License-Identifier: MIT
# llmctl doctor on made-up machines: folders with proc, sys, etc and dev in them. Each starts as a
# sound GB10 whose user is in llmdev, and gets one thing wrong. --fix and --undo work on the same
# folders; the programs they run are fakes in there, too.
set -u
n=0 failed=0
build=${LLMDEV_BUILD:-build}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
check() {
	n=$((n + 1))
	if "${@:2}"; then echo "ok $n - $1"; else echo "not ok $n - $1"; failed=1; sed 's/^/#   /' "$tmp/out" | head -60; fi
}
rel=6.17.0-1032-nvidia
me=$(id -u) my_group=$(id -g)
put() { mkdir -p "$(dirname "$m/$1")"; printf '%b\n' "$2" >"$m/$1"; }
# A firmware variable: four bytes of attributes, then what is given.
efi() { mkdir -p "$m/sys/firmware/efi/efivars"; printf "\\006\\0\\0\\0$2" >"$m/sys/firmware/efi/efivars/$1"; }
secure=SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c
shim=605dab50-e046-4300-abb6-3dd810dd8b23
cert=$(printf 'certificate-%.0s' 1 2 3 4 5 6 7 8)

# A uid that is nobody's here: root would be let off the checks for users.
machine() {
	m=$tmp/m$((++machines))
	mkdir -p "$m"/{proc/self,sys,etc,dev,lib/modules/$rel/updates/dkms,usr/sbin,var/lib}
	put proc/sys/kernel/osrelease $rel
	put proc/modules 'llm 100 0 - Live 0x0'
	put proc/meminfo 'MemTotal: 127600000 kB\nMemFree: 90000000 kB\nMemAvailable: 100000000 kB\nSwapTotal: 16777212 kB\nSwapFree: 16777212 kB\nHugePages_Total: 0\nHugePages_Free: 0\nHugePages_Rsvd: 0\nHugepagesize: 2048 kB\nCmaTotal: 65536 kB\nCmaFree: 65536 kB'
	put proc/self/smaps '0-1 r-xp\nKernelPageSize:        4 kB'
	put proc/self/status "Name:\tllmctl\nUid:\t4711\t4711\t4711\t4711\nGid:\t4711\t4711\t4711\t4711\nGroups:\t4711 $my_group "
	put proc/self/limits 'Max locked memory         unlimited            unlimited            bytes     '
	put proc/buddyinfo 'Node 0, zone   Normal  100 100 100 100 100 100 100 100 100 1000 20000'
	put proc/zoneinfo 'Node 0, zone   Normal\n  pages free     100\n        cma      16384'
	put proc/cmdline 'quiet'
	put proc/sys/vm/min_free_kbytes 262144
	put proc/sys/vm/watermark_scale_factor 50
	put proc/sys/vm/compact_memory ''
	put proc/sys/kernel/io_uring_disabled 0
	put proc/driver/nvidia/params 'EnableSystemMemoryPools: 0'
	put sys/module/nvidia/version 580.173.02
	put sys/bus/pci/devices/000f:01:00.0/vendor 0x10de
	put sys/bus/pci/devices/000f:01:00.0/device 0x2e12
	put sys/class/dmi/id/product_name NVIDIA_DGX_Spark
	put sys/kernel/mm/transparent_hugepage/enabled 'always [madvise] never'
	put sys/kernel/security/lockdown '[none] integrity confidentiality'
	efi $secure '\0'
	put etc/passwd 'root:x:0:0::/root:/bin/sh\nalice:x:4711:4711::/home/alice:/bin/sh'
	put etc/group "root:x:0:\nllmdev:x:$my_group:alice\nllmdev-admin:x:$my_group:"
	put dev/kmsg 'Linux version'
	put lib/modules/$rel/modules.dep 'kernel/fs/ext4.ko: x\nupdates/dkms/llm.ko:'
	put lib/modules/$rel/updates/dkms/llm.ko 'code\n~Module signature appended~'
	put lib/modules/$rel/build/Makefile ''
	put etc/udev/rules.d/60-llmdev.rules ''
	load
}
load() {
	put sys/module/llm/srcversion ABC
	mkdir -p "$m/sys/class/misc/llm-control" "$m/dev/llm/by-name"
	put sys/class/misc/llm0/name qwen
	for f in llm-control llm0; do : >"$m/dev/$f"; chmod 660 "$m/dev/$f"; done
	ln -s ../../llm0 "$m/dev/llm/by-name/qwen"
}
unload() { rm -rf "$m/sys/module/llm" "$m/sys/class/misc" "$m/dev/llm"*; }
process() { # process PID COMM PPID KB ARG...
	put "proc/$1/comm" "$2"
	put "proc/$1/status" "Name:\t$2\nPPid:\t$3\nVmRSS:\t$4 kB\nVmSwap:\t0 kB"
	printf '%s\0' "${@:5}" >"$m/proc/$1/cmdline"
}
doctor() { "$build/llmctl" doctor --root "$m" "$@" >"$tmp/out" 2>&1 </dev/null; rc=$?; }
# is ID STATE [TEXT]: of the last run: the finding's state, and what stands in its reason or commands
is() {
	awk -v id="$1" -v state="$2" -v text="${3:-}" '
		$2 == id { on = 1; found = $1 == state } on && $1 != "->" && $2 != id { on = 0 }
		on && index($0, text) { has = 1 }
		END { exit !(found && (has || text == "")) }' "$tmp/out"
}
says() { grep -qF -- "$1" "$tmp/out"; }
same() { [ "$(cat "$m/$1" 2>/dev/null)" = "$2" ]; }
# wrong WHAT ID STATE TEXT: looks, and expects it
wrong() {
	doctor --all
	check "$1: $3" is "$2" "$3" "$4"
}
# What a machine holds, names and contents, to see that nothing was left behind.
sum() { (cd "$m" && find . \( -type f -printf '%p %m ' -exec cat {} \; -printf '\n' \) -o -printf '%p %y %m\n' | sort | cksum); }
machines=0

# ---- a sound machine, and this one
machine; doctor --all
check "a sound machine: exit 0" [ $rc -eq 0 ]
check "a sound machine: nothing bad, nothing to warn of" says ', 0 warn, 0 bad, 0 unknown'
check "it is known to be a GB10" says 'NVIDIA_DGX_Spark (GB10, unified memory)'
doctor --json
check "JSON" python3 -c "
import json
j = json.load(open('$tmp/out'))
assert j['worst'] in ('ok', 'n/a') and j['machine']['gb10'] and j['machine']['page_bytes'] == 4096
assert len(j['findings']) >= 19 and all(set(f) == {'id', 'state', 'reason', 'commands', 'fix'} for f in j['findings'])"
"$build/llmctl" doctor --json >"$tmp/out" 2>&1; rc=$?
check "this machine, whatever it is: 0 or 1, and JSON" bash -c "[ $rc -le 1 ] && python3 -m json.tool <'$tmp/out' >/dev/null"

# ---- kernel and module
machine; put proc/sys/kernel/osrelease 5.15.0-1032-nvidia
wrong "Linux 5.15" kernel bad '6.1 or later'
machine; unload
wrong "installed, not loaded" module warn 'modprobe llm'
put lib/modules/$rel/modules.dep 'kernel/fs/ext4.ko:'
rm "$m/lib/modules/$rel/updates/dkms/llm.ko"
wrong "not installed" module warn 'not installed'
mkdir -p "$m/usr/src/llmdev-0.1.0"; : >"$m/usr/src/llmdev-0.1.0/dkms.conf"
wrong "DKMS has the sources" module warn "dkms install llmdev/0.1.0 -k $rel"
rm -r "$m/lib/modules/$rel/build"
wrong "headers are missing" module warn "apt install linux-headers-$rel"
put lib/modules/6.17.0-1008-nvidia/updates/dkms/llm.ko.zst x
wrong "built for another kernel" module bad 'built for 6.17.0-1008-nvidia'
check "something bad: exit 1" [ $rc -eq 1 ]
machine; unload; put dev/kmsg "llm: version magic '6.1 SMP' should be '6.17 SMP'"
wrong "built against other headers" module bad 'version magic'
machine; unload; rm "$m/proc/modules"
wrong "a kernel without modules" module n/a 'loads no modules'

# ---- Secure Boot
machine; unload; rm -r "$m/sys/firmware"
wrong "no EFI" signature ok 'not booted by EFI'
machine; efi $secure '\001'; put sys/kernel/security/lockdown 'none [integrity] confidentiality'
wrong "Secure Boot, loaded" signature ok 'accepted'
unload; put lib/modules/$rel/updates/dkms/llm.ko code
wrong "Secure Boot, not signed" signature bad 'is not signed'
check "Secure Boot, not signed: loading it is not offered" is module warn 'would be refused'
put dev/kmsg 'llm: loading of unsigned module is rejected'
wrong "the kernel's own word is shown" signature bad 'loading of unsigned module is rejected'
put dev/kmsg 'Lockdown: modprobe: unsigned module loading is restricted; see man kernel_lockdown.7'
wrong "lockdown's word, too" signature bad 'is restricted'
put dev/kmsg 'x'; put lib/modules/$rel/updates/dkms/llm.ko 'code\n~Module signature appended~'
wrong "signed, and not by DKMS" signature unknown 'mokutil --list-enrolled'
put dev/kmsg 'Loading of module with unavailable key is rejected'
wrong "signed, the kernel refused it" signature bad 'unavailable key'
put dev/kmsg x; mkdir -p "$m/var/lib/dkms"; printf %s "$cert" >"$m/var/lib/dkms/mok.pub"
wrong "DKMS's key is not enrolled" signature bad 'mokutil --import /var/lib/dkms/mok.pub'
efi "MokNew-$shim" "$cert"
wrong "it waits for the next boot" signature warn 'Enroll MOK'
efi "MokListRT-$shim" "other$cert"
wrong "it is enrolled" signature ok 'is enrolled'
put lib/modules/$rel/modules.dep 'updates/dkms/llm.ko.zst:'
wrong "a packed module" signature ok 'packed'
mkdir -p "$m/var/lib/shim-signed/mok"; printf 'another %s' "${cert//c/d}" >"$m/var/lib/shim-signed/mok/MOK.der"
wrong "Ubuntu's key goes first" signature bad '/var/lib/shim-signed/mok/MOK.der'
printf x >"$m/var/lib/shim-signed/mok/MOK.der"
wrong "a certificate that is none" signature unknown 'cannot be read'
machine; unload; efi $secure '\001'; efi "MokSBStateRT-$shim" '\001'; rm "$m/sys/kernel/security/lockdown"
wrong "validation switched off in shim" signature ok 'off in shim'
machine; unload; put sys/module/module/parameters/sig_enforce Y; put lib/modules/$rel/updates/dkms/llm.ko code
wrong "module.sig_enforce without Secure Boot" signature bad 'sig_enforce'

# ---- groups, devices, units
machine; put etc/group 'root:x:0:'
wrong "no groups, module loaded" groups bad 'systemd-sysusers'
machine; put etc/group "llmdev:x:99999:bob\nllmdev-admin:x:$my_group:"
wrong "the user is in no group" groups warn 'usermod -aG llmdev alice'
put etc/group "llmdev:x:99999:bob,alice\nllmdev-admin:x:$my_group:"
wrong "the session began too early" groups warn 'began before'
machine; put proc/self/status 'Uid:\t0\t0\t0\t0\nGid:\t0\nGroups:\t0'
wrong "root" groups ok 'root needs neither'
machine; rm "$m/dev/llm0"
wrong "a device node is missing" devices bad '/dev/llm0 is not there'
machine; chmod 666 "$m/dev/llm0"
wrong "a device open to all" devices warn 'open to everybody'
chmod 600 "$m/dev/llm0"
wrong "a device closed to its group" devices warn 'may not read and write'
machine; put etc/group "llmdev:x:99999:alice\nllmdev-admin:x:$my_group:"
wrong "a device of another group" devices warn 'does not belong to the group llmdev'
machine; rm "$m/dev/llm/by-name/qwen" "$m/etc/udev/rules.d/60-llmdev.rules"
wrong "no link by-name, no rules" devices warn 'the udev rules are not installed'
ln -s ../../llm7 "$m/dev/llm/by-name/qwen"
wrong "a link that leads elsewhere" devices warn 'does not lead to llm0'
machine; put usr/lib/systemd/system/llmdevd@.service ''
wrong "a unit without instance" units ok 'no instance'
mkdir -p "$m/etc/systemd/system/multi-user.target.wants"; ln -s x "$m/etc/systemd/system/multi-user.target.wants/llmdevd@qwen.service"
wrong "an instance that does not run" units bad 'systemctl status llmdevd@qwen.service'
put sys/fs/cgroup/system.slice/system-llmdevd.slice/llmdevd@qwen.service/cgroup.procs 42
wrong "an instance that runs" units ok 'all running'

# ---- unified memory
machine; rm -r "$m/sys/module/nvidia"
wrong "no driver" driver bad 'not loaded'
machine; put proc/driver/nvidia/params 'EnableSystemMemoryPools: 529'
wrong "the driver's pool" driver warn 'NVreg_EnableSystemMemoryPools=0'
machine; put proc/self/smaps 'KernelPageSize:       64 kB'; put sys/module/nvidia/version 590.44.01
wrong "64 KiB pages, a faulty driver" page-size bad 'Xid 31'
put sys/module/nvidia/version 580.173.02
wrong "64 KiB pages, a clean driver" page-size ok 580.173.02
put sys/module/nvidia/version 700.1
wrong "64 KiB pages, an unknown driver" page-size warn 'nothing is known'
machine; put sys/kernel/mm/transparent_hugepage/enabled 'always madvise [never]'
wrong "no huge pages" huge-pages warn 'echo madvise'
rm -r "$m/sys/kernel/mm"
wrong "a kernel without them" huge-pages unknown 'no transparent'
machine; sed -i 's/HugePages_Free: 0/HugePages_Free: 20000/' "$m/proc/meminfo"
wrong "idle hugetlb pages" hugetlb warn '39.1 GiB'
machine; put proc/zoneinfo 'Node 0, zone   DMA\n        cma      1000000\nNode 0, zone Normal\n        cma      1437500'
wrong "9.3 GiB in CMA blocks" kho warn 'add kho=off'
check "9.3 GiB in CMA blocks: how much" says '9.3 GiB'
put proc/cmdline 'quiet kho=off cma=10G'
wrong "CMA with kho=off" kho warn 'cma='
machine; sed -i 's/MemFree: .*/MemFree: 8000000 kB/' "$m/proc/meminfo"
wrong "the page cache has it all" free-memory warn 'llmctl cache drop'
machine; put proc/buddyinfo 'Node 0, zone Normal 9000000 900000 90000 0 0 0 0 0 0 0 0'
wrong "no free block of 2 MiB" fragmentation bad 'compact_memory'
put proc/buddyinfo 'Node 0, zone Normal 9000000 900000 90000 0 0 0 0 0 0 10 10'
wrong "hardly any" fragmentation warn 'only 0.06'
put proc/self/smaps 'KernelPageSize:       64 kB'
put proc/buddyinfo 'Node 0, zone Normal 0 0 0 0 0 10000 10000 0'
wrong "orders with 64 KiB pages" fragmentation ok '58.6 GiB'
machine; sed -i 's/SwapFree: .*/SwapFree: 1000 kB/' "$m/proc/meminfo"
wrong "swapped out" swap warn 'swapoff'
machine; put proc/sys/vm/min_free_kbytes 4194304
wrong "min_free_kbytes of 4 GiB" watermarks warn 'min_free_kbytes=262144'
machine; put proc/sys/vm/watermark_scale_factor 10
wrong "the default watermarks" watermarks warn 'watermark_scale_factor=50'
machine; put proc/self/limits 'Max locked memory         8388608              8388608              bytes     '
wrong "8 MiB may be locked" memlock warn '@llmdev - memlock unlimited'
machine; put proc/sys/kernel/io_uring_disabled 2
wrong "io_uring is off" io_uring warn 'io_uring_disabled=0'
put proc/sys/kernel/io_uring_disabled 1
wrong "io_uring for a group" io_uring warn 'io_uring_group'

# ---- others
machine; process 100 python3 1 4000000 /usr/bin/python3 -m vllm.entrypoints.openai.api_server --model x
process 101 llama-server 1 2000000 /opt/llama-server
process 102 vim 1 1000 vim vllm
process 103 python3 1 1000 python3 edit.py --out vllm
wrong "vLLM and llama.cpp" engines warn 'vLLM (pid 100, 3.8 GiB), llama.cpp (pid 101, 1.9 GiB)'
check "an editor of vllm is none" bash -c "! grep -q 'pid 10[23]' '$tmp/out'"
process 104 ollama 1 70000000 /usr/bin/ollama serve
wrong "more than half of the memory" engines bad 'Ollama'
machine; process 105 VLLM::EngineCor 1 1000 VLLM::EngineCore
wrong "an engine process without its server" engines bad 'kill PID'
machine; process 106 python3 5 1000 python -m sglang.launch_server
wrong "SGLang" engines warn SGLang
machine; put dev/kmsg 'NVRM: NV_ERR_NO_MEMORY\nx\nNVRM: NV_ERR_NO_MEMORY'
wrong "the driver got no memory" kernel-log warn '2 times'
put dev/kmsg 'NVRM: Xid (PCI:000f:01:00): 31'
wrong "Xid" kernel-log warn 'the last: NVRM: Xid'
put dev/kmsg 'Out of memory: Killed process 5 (python3) total-vm:1kB'
wrong "killed for memory" kernel-log warn '5 (python3)'
rm "$m/dev/kmsg"
wrong "a log that may not be read" kernel-log unknown sudo

# ---- not a GB10, and machines with little in them
machine; rm -r "$m/sys/bus" "$m/sys/class/dmi" "$m/sys/module/nvidia"; put proc/sys/vm/watermark_scale_factor 10
wrong "another machine: watermarks" watermarks n/a ''
check "another machine: the driver" is driver n/a
check "another machine: KHO" is kho n/a
machine; find "$m/proc" "$m/sys" "$m/etc" -type f ! -name osrelease -delete; doctor --all
check "an empty machine: no crash" [ $rc -le 1 ]
machine
for f in proc/meminfo proc/buddyinfo proc/zoneinfo proc/self/status proc/self/limits etc/group etc/passwd dev/kmsg lib/modules/$rel/modules.dep sys/class/dmi/id/product_name; do head -c 20000 /dev/urandom >"$m/$f"; done
unload; process 7 x 1 1 x; head -c 3000 /dev/urandom >"$m/proc/7/cmdline"; head -c 50 /dev/urandom >"$m/proc/7/comm"
head -c 3 /dev/urandom >"$m/sys/firmware/efi/efivars/$secure"
doctor --all --json
check "random bytes everywhere: no crash, JSON" bash -c "[ $rc -le 1 ] && python3 -m json.tool <'$tmp/out' >/dev/null"
machine; rm "$m/proc/meminfo"; mkfifo "$m/proc/meminfo"; doctor
check "a FIFO in a file's place: no hang" [ $rc -le 1 ]

# ---- mending and taking back
fake() { printf '#!/bin/sh\n%s\n' "$2" >"$m/usr/sbin/$1"; chmod +x "$m/usr/sbin/$1"; }
sick() {
	machine; unload
	put etc/group "llmdev:x:99999:bob\nllmdev-admin:x:$my_group:"
	put proc/sys/vm/watermark_scale_factor 10
	put proc/self/limits 'Max locked memory         8388608              8388608              bytes     '
	put proc/buddyinfo 'Node 0, zone Normal 9000000 900000 90000 0 0 0 0 0 0 0 0'
	mkdir -p "$m/etc/sysctl.d" "$m/etc/security/limits.d"
	fake modprobe 'echo "modprobe $*" >>$LLMDEV_ROOT/../ran'
	fake usermod 'echo "usermod $*" >>$LLMDEV_ROOT/../ran'
	fake gpasswd 'echo "gpasswd $*" >>$LLMDEV_ROOT/../ran'
	rm -f "$tmp/ran"
}
ran() { grep -qxF -- "$1" "$tmp/ran" 2>/dev/null; }
sick; rm -f "$m/proc/sys/vm/compact_memory"; : >"$m/proc/sys/vm/compact_memory"
before=$(sum)
doctor --fix
check "--fix without anybody to ask" says 'nobody is there to ask: give --yes'
check "--fix without anybody to ask: exit 1, nothing done" [ $rc -eq 1 -a "$before" = "$(sum)" ]
doctor --fix --yes
check "--fix: the value" same proc/sys/vm/watermark_scale_factor 50
check "--fix: and for the next boot" grep -qx 'vm.watermark_scale_factor = 50' "$m/etc/sysctl.d/60-llmdev-doctor.conf"
check "--fix: the limit" grep -qx '@llmdev - memlock unlimited' "$m/etc/security/limits.d/60-llmdev-doctor.conf"
check "--fix: the group" ran 'usermod -aG llmdev alice'
check "--fix: the module" ran 'modprobe llm'
check "--fix: compaction" same proc/sys/vm/compact_memory 1
check "--fix: what is mended now is ok" is watermarks ok
check "--fix: there is a record" [ -s "$m/var/lib/llmdev/doctor.json" ]
doctor --fix --yes
check "--fix twice: no second line" [ "$(grep -c scale_factor "$m/etc/sysctl.d/60-llmdev-doctor.conf")" = 1 ]
: >"$m/proc/sys/vm/compact_memory"
doctor --undo
check "--undo: what was run is taken back" ran 'modprobe -r llm'
check "--undo: the group, too" ran 'gpasswd -d alice llmdev'
check "--undo: everything is as it was" [ "$before" = "$(sum)" ]
doctor --undo
check "--undo twice" says 'nothing to undo'
# files that were there keep their text; what somebody else changed stays
sick; put etc/sysctl.d/60-llmdev-doctor.conf 'vm.swappiness = 1'; : >"$m/proc/sys/vm/compact_memory"; before=$(sum)
doctor --fix --yes
check "--fix: a line behind others" same etc/sysctl.d/60-llmdev-doctor.conf $'vm.swappiness = 1\nvm.watermark_scale_factor = 50'
: >"$m/proc/sys/vm/compact_memory"; doctor --undo
check "--undo: the file as it was" [ "$before" = "$(sum)" ]
sick; doctor --fix --yes; put proc/sys/vm/watermark_scale_factor 200; doctor --undo
check "--undo: somebody else's value is told" says 'is 200 by now'
check "--undo: and stays" same proc/sys/vm/watermark_scale_factor 200
sick; fake modprobe 'echo "modprobe: ERROR: could not insert '"'llm'"': Key was rejected by service" >&2; exit 1'; doctor --fix --yes
check "a module refused for its signature" says 'its signature is refused'
check "what failed: exit 1" [ $rc -eq 1 ]
check "what failed is not recorded" bash -c "! grep -q modprobe '$m/var/lib/llmdev/doctor.json'"
sick; doctor --fix --yes; fake modprobe 'echo busy >&2; exit 1'; doctor --undo
check "an undo that fails: exit 1, and says why" bash -c "[ $rc -eq 1 ] && grep -q 'modprobe -r llm: busy' '$tmp/out'"
fake modprobe 'exit 0'; doctor --undo
check "an undo that fails can be repeated" bash -c "[ ! -e '$m/var/lib/llmdev' ]"
sick; mkdir "$m/var/lib/llmdev"; echo '{"changes": 5}' >"$m/var/lib/llmdev/doctor.json"; doctor --undo
check "a record that is none is refused" says 'no record of doctor'
doctor --fix --yes
check "a record that is none: --fix changes nothing" same proc/sys/vm/watermark_scale_factor 10
sick; rm -r "$m/etc/sysctl.d"; doctor --fix --yes; doctor --undo
check "a folder that --fix made is gone again" [ ! -e "$m/etc/sysctl.d" ]
if command -v script >/dev/null; then
	sick; before=$(sum)
	yes n | head -20 | script -qec "'$build/llmctl' doctor --root '$m' --fix" /dev/null >"$tmp/out" 2>&1
	check "asked, the answer n: nothing is changed" bash -c "grep -q 'watermark_scale_factor: 10 -> 50 \[y/N\]' '$tmp/out' && [ '$before' = '$(sum)' ]"
else
	n=$((n + 1)); echo "ok $n # SKIP no script(1) to play a terminal"
fi

# ---- usage
machine; doctor --fix --undo
check "--fix and --undo: usage" [ $rc -eq 2 ]
doctor --yes
check "--yes alone: usage" [ $rc -eq 2 ]
"$build/llmctl" doctor --root "$tmp/none" >"$tmp/out" 2>&1
check "a root that is not there" [ $? -eq 1 ]
if [ "$me" -eq 0 ] && command -v setpriv >/dev/null; then
	cp "$build/llmctl" "$tmp/llmctl"; chmod 755 "$tmp"
	setpriv --reuid=4711 --clear-groups "$tmp/llmctl" doctor --fix --yes >"$tmp/out" 2>&1
	check "--fix needs root, and says so" says 'run it as root'
fi
echo "1..$n"
exit $failed
