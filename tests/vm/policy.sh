#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Memory that no counter holds, cold and hot files, floors, room for engines: llmdev-policyd and llmctl
# with the module, in the machine (see check-policy), with busybox.
: <<'DISK'
// disk: 1800
DISK
n=0 bad=0
ok() { n=$((n + 1)); if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; bad=1; fi; }
note() { sed 's/^/# /' "$@"; }
kb() { awk -v k="$1:" '$1 == k { print $2 }' /proc/meminfo; }
mb() { echo $(($(kb "$1") / 1024)); }
# field NAME FILE: the first number of that name in JSON
field() { sed -n "s/^ *\"$1\": \\([0-9][0-9]*\\),*\$/\\1/p" "$2" | head -1; }
seconds() { cut -d. -f1 /proc/uptime; }
wait_for() { end=$(($(seconds) + 90)); while ! "$@"; do [ "$(seconds)" -gt $end ] && return 1; sleep 0.3; done; }
mkdir -p /run
busybox ip link set lo up

# ---- llmctl mem: what a driver takes outside every counter
cp /bin/busybox /tmp/busybox; llmctl mem >/dev/null # whatever comes only once
llmctl mem --json >/tmp/m1
busybox insmod /hog.ko mb=256; ok $? "256 MiB taken outside every counter"
llmctl mem --json >/tmp/m2
grew=$((($(field remainder /tmp/m2) - $(field remainder /tmp/m1)) / 1024))
[ $grew -ge $((253 * 1024)) ] && [ $grew -le $((259 * 1024)) ]; ok $? "the remainder grew by $grew KiB of 262144: within 1 %"
sum() { sed -n '/"parts"/,/}/p' "$1" | awk -F'[:,]' '/: [0-9]/ { s += $2 } END { printf "%.0f\n", s }'; }
[ "$(sum /tmp/m2)" = "$(field total /tmp/m2)" ]; ok $? "the parts add up to MemTotal: $(sum /tmp/m2)"
busybox rmmod hog
llmctl mem --json >/tmp/m3
[ $((($(field remainder /tmp/m3) - $(field remainder /tmp/m1)) / 1048576)) -le 3 ]; ok $? "and it is gone with it"

# ---- loaded, but /dev has no node (a container, no udev)
mv /dev/llm-control /dev/away
llmctl reserve 2M --keep 2>/tmp/err; [ $? = 1 ] && grep -q "is loaded, but this /dev has no such node" /tmp/err; ok $? "no node: reserve says so"
llmctl region list 2>/tmp/err; [ $? = 1 ] && grep -q "is loaded, but this /dev has no such node" /tmp/err; ok $? "so does region list"
llmctl mem >/dev/null 2>/tmp/err; grep -q "^regions are in shared memory here, the reserve in the remainder: .*no such node" /tmp/err; ok $? "mem says where they are counted"
mv /dev/away /dev/llm-control

# ---- two folders on a real filesystem
mkdir -p /mnt && mount -t ext4 /dev/vda /mnt; ok $? "a filesystem"
mkdir /mnt/models /mnt/other
dd if=/dev/zero of=/mnt/models/cold bs=1M count=400 2>/dev/null
dd if=/dev/zero of=/mnt/other/hot bs=1M count=100 2>/dev/null
cp /bin/llmctl /mnt/models/program && sync
drop() { llmctl cache drop --sync --global >/dev/null; }
fill() { cat /mnt/models/cold >/dev/null; for _ in 1 2 3; do cat /mnt/other/hot >/dev/null; done; }
cached() { llmctl cache status --json --file "$1" >/tmp/c && echo $(($(field cached /tmp/c) / 1048576)); }
drop; ok $? "llmctl cache drop --global"
[ "$(cached /mnt/models/cold)" = 0 ]; ok $? "nothing of the file is cached"
fill
[ "$(cached /mnt/models/cold)" = 400 ] && [ "$(cached /mnt/other/hot)" = 100 ]; ok $? "read: all of it is"
llmctl cache drop --file /mnt/models | note
[ "$(cached /mnt/models/cold)" = 0 ] && [ "$(cached /mnt/other/hot)" = 100 ]; ok $? "cache drop --file: that one, no other"
fill
llmctl cache drop --fs /mnt/models/cold >/tmp/out; ok $? "cache drop --fs"
note /tmp/out
grep -q "the module" /tmp/out; ok $? "by the module"
[ "$(cached /mnt/models/cold)" = 0 ] && [ "$(cached /mnt/other/hot)" = 0 ]; ok $? "all of the filesystem"

# ---- a floor: registered files first, the hot file and what is mapped stay
fill
/mnt/models/program mem --watch 1000 >/dev/null & user=$!
rss() { awk '/\/program/ { p = 1 } /^Rss:/ && p { s += $2; p = 0 } END { print s + 0 }' /proc/$user/smaps; }
mapped() { [ "$(rss)" -gt 300 ]; }
wait_for mapped; sleep 1; had=$(rss)
cat >/tmp/policy.conf <<END
[policy]
mode = files
free = 16M
hysteresis = 5%
interval = 0.2
[files]
path = /mnt/mod*
END
llmdev-policyd --config /tmp/policy.conf 2>/tmp/policyd.log & policyd=$!
up() { llmdev-policyd --status >/tmp/status 2>/dev/null; }
wait_for up; ok $? "llmdev-policyd runs"
grep -q '"module_floors": true' /tmp/status; ok $? "the module tells when a floor is missed"
# Pages that are freed go to the lists of single CPUs first, where neither MemFree nor MemAvailable sees them.
there() { llmctl mem --json >/tmp/m && echo $((($(field available /tmp/m) + $(field free_cpu_lists /tmp/m)) / 1048576)); }
free=$(mb MemFree) available=$(there) floor=$(($(mb MemFree) + 200))
sed -i "s/^free = .*/free = ${floor}M/" /tmp/policy.conf; kill -HUP $policyd
above() { [ "$(mb MemFree)" -ge $floor ]; }
wait_for above; ok $? "floor raised by 200 MB: MemFree $free -> $(mb MemFree) MB, floor $floor"
sleep 0.5
[ "$(cached /mnt/other/hot)" = 100 ]; ok $? "the hot file stays: $(cached /mnt/other/hot) of 100 MB"
rest=$(cached /mnt/models/cold)
[ "$rest" -lt 210 ]; ok $? "the registered file went: $rest of 400 MB are left"
[ "$rest" -gt 0 ]; ok $? "and no more than needed: $rest MB"
now=$(there)
[ "$now" -ge $((available - 8)) ]; ok $? "MemAvailable does not fall: $available -> $now MB"
[ "$(rss)" -ge "$had" ]; ok $? "what a process maps is not dropped: $had kB"
llmctl cache drop --file /mnt/models/program | note
[ "$(rss)" -ge "$had" ]; ok $? "nor by hand"
kill $user
up; [ "$(field actions /tmp/status)" -ge 1 ] && [ "$(field freed /tmp/status)" -gt 100000000 ]; ok $? "it counts: $(field actions /tmp/status) actions"

# ---- the floor is missed by reading on: the module tells
dd if=/dev/zero of=/mnt/other/big bs=1M count=600 2>/dev/null; sync
events=$(field module_events /tmp/status)
cat /mnt/other/big >/dev/null; cat /mnt/models/cold >/dev/null
told() { up; [ "$(field module_events /tmp/status)" -gt "$events" ]; }
wait_for told; ok $? "a pressure event of the module: $(field module_events /tmp/status)"

# ---- from mode fs on
sed -i "s/^mode = .*/mode = fs/; s/^\[files\]/[filesystems]\npath = \/mnt\n[files]/" /tmp/policy.conf; kill -HUP $policyd
wait_for above; ok $? "mode fs: MemFree $(mb MemFree) MB, floor $floor"
sed -n 's/.*llmdev-policyd: //p' /tmp/policyd.log | tail -5 | note

# ---- a cgroup that starts
sed -i "s/^free = .*/free = 16M/; s/^mode = .*/mode = auto/" /tmp/policy.conf
cat >>/tmp/policy.conf <<END
[start fake]
unit = engine.service
room = 600M
seconds = 60
END
kill -HUP $policyd
cat /mnt/other/big /mnt/other/hot /mnt/models/cold >/dev/null
echo "# MemFree $(mb MemFree) MB"
mkdir -p /sys/fs/cgroup/system.slice/engine.service
triggered() { up; [ "$(field triggers /tmp/status)" = 1 ] && [ "$(mb MemFree)" -ge 590 ]; }
wait_for triggered; ok $? "its unit starts: room is made: MemFree $(mb MemFree) MB of 600"
cat /mnt/other/big /mnt/models/cold >/dev/null
kept() { [ "$(mb MemFree)" -ge 590 ]; }
wait_for kept; ok $? "and held while somebody reads: MemFree $(mb MemFree) MB"
llmctl reserve status | note
llmctl reserve release; ok $? "llmctl reserve release"
up; grep -q '"who": "start' /tmp/status; [ $? = 1 ]; ok $? "holds nothing any more"

# ---- engines that look at MemFree before they start
cat >/tmp/engine <<'END'
#!/bin/sh
free=$(awk '/^MemFree:/ { print int($2 / 1024) }' /proc/meminfo)
[ "$free" -ge 512 ] || { echo "engine: $free MB free, 512 needed" >&2; exit 3; }
echo "engine: $free MB free: ready"
[ -z "$1" ] || busybox nc -l -p "$1" >/dev/null
exit 5
END
chmod +x /tmp/engine
flood() { cat /mnt/other/big /mnt/other/hot /mnt/models/cold /mnt/other/big >/dev/null; }
flood; /tmp/engine 2>/dev/null; [ $? = 3 ]; ok $? "a full page cache: the engine does not start (MemFree $(mb MemFree) MB)"
llmctl reserve 512M --ready 'regex:free: ready' -- /tmp/engine 2>/tmp/err; rc=$?
[ $rc = 5 ] && grep -q "ready after" /tmp/err; ok $? "llmctl reserve 512M -- it does, and its status is passed on ($rc)"
note /tmp/err
flood
llmctl reserve 512M --hold --detach --until 8000 2>/tmp/err; ok $? "--hold --detach: llmdev-policyd holds it"
up; grep -q '"until": "8000"' /tmp/status; ok $? "until a port is open"
cat /mnt/other/big >/dev/null
wait_for sh -c '/tmp/engine >/dev/null 2>&1; [ $? = 5 ]'; ok $? "an engine that comes later finds room"
/tmp/engine 8000 >/dev/null & engine=$!
let_go() { up; ! grep -q '"until": "8000"' /tmp/status; }
wait_for let_go; ok $? "its port is open: let go"
kill $engine 2>/dev/null; wait $engine 2>/dev/null
kill $policyd; wait $policyd; ok $? "llmdev-policyd ends when asked"

# ---- without llmdev-policyd
flood
llmctl reserve 512M -- /tmp/engine 2>/tmp/err; rc=$?
[ $rc = 5 ]; ok $? "without llmdev-policyd, by root and the module: $rc"
note /tmp/err
flood
llmctl reserve 512M --hold --until 8001 2>/tmp/err & hold=$!
holding() { grep -q holding /tmp/err; }
wait_for holding; ok $? "--hold in the foreground"
cat /mnt/other/big >/dev/null
wait_for sh -c '/tmp/engine >/dev/null 2>&1; [ $? = 5 ]'; ok $? "room is kept"
/tmp/engine 8001 >/dev/null & engine=$!
wait $hold; ok $? "and let go when the port is open"
kill $engine 2>/dev/null

# ---- the elastic reserve
llmctl reserve 64M --keep; ok $? "the module holds 64 MB"
llmctl mem --json >/tmp/m1
[ "$(field reserve /tmp/m1)" = 67108864 ]; ok $? "llmctl mem shows it"
llmctl reserve release; llmctl mem --json >/tmp/m1; [ "$(field reserve /tmp/m1)" = 0 ]; ok $? "and that it is given back"

# ---- kept by llmdev-policyd
drop
printf '[policy]\nmode = auto\nfree = 16M\nreserve = 64M\ninterval = 0.2\n[files]\npath = /mnt\n' >/tmp/policy.conf
llmdev-policyd --config /tmp/policy.conf 2>>/tmp/policyd.log & policyd=$!
held() { up; [ "$(field reserve_held /tmp/status)" = "$1" ]; }
wait_for held 67108864; ok $? "llmdev-policyd has the module hold 64 MB while there is plenty"
sed -i 's/^reserve = .*/reserve = 32M/' /tmp/policy.conf; kill -HUP $policyd
wait_for held 33554432; ok $? "a smaller reserve by reload: the rest is given back"
flood
llmctl reserve 512M --quiet -- /tmp/engine >/dev/null; [ $? = 5 ]; ok $? "an engine finds room"
held 0; ok $? "the reserve was given back for it, before anything else"
up; grep -A1 '"reserve": {' /tmp/status | grep -q '"calls": 1,'; ok $? "which is counted"
kill $policyd; wait $policyd
busybox umount /mnt
note /tmp/policyd.log | tail -30
echo "1..$n"
exit $bad
