#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Crowds and floods at the daemon's socket: limits that are reached from many connections, what is
left when they have gone, floods of one while others are answered, files that run out.
usage: limits.py BUILD MODEL; prints TAP. Called by limits.sh."""
import errno
import json
import os
import resource
import select
import struct
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import llmsock as ls  # noqa: E402
import daemon_lib as dl  # noqa: E402
from daemon_lib import build, check, model, path, tmp  # noqa: E402

sanitized = b"__asan_init" in open(os.path.join(build, "llmdevd"), "rb").read()


class Daemon(dl.Daemon):
    def __init__(self, *options, files=None):
        super().__init__(*options, preexec=files and (
            lambda: resource.setrlimit(resource.RLIMIT_NOFILE, files)))

    def files(self):
        """How many files it has open, and how many of them are sockets."""
        links = []
        for fd in os.listdir("/proc/%d/fd" % self.p.pid):
            try:
                links.append(os.readlink("/proc/%d/fd/%s" % (self.p.pid, fd)))
            except FileNotFoundError:
                pass
        return len(links), sum(link.startswith("socket:") for link in links)

    def peak(self):
        """The most memory it ever had. (What it has now depends on when malloc gives some back.)"""
        with open("/proc/%d/status" % self.p.pid) as f:
            return int(f.read().split("VmHWM:")[1].split()[0]) << 10


def chat(question, n=64, **more):
    return json.dumps({"messages": [{"role": "user", "content": question}], "max_tokens": n,
                       "temperature": 0, "ignore_eos": True, **more}).encode()


def status():
    """The 32-bit and 64-bit members of struct llm_status, by name."""
    c = ls.Client(path)
    c.send(ls.message(ls.STATUS))
    ev = c.next()
    c.close()
    assert ev.kind == ls.STATUS_IS, ev.kind
    narrow = ("size session_size n_sessions sessions max_sessions max_batch running parked waiting "
              "unfinished max_unfinished principals").split()
    return dict(zip(narrow, struct.unpack_from("<%dI" % len(narrow), ev.payload)))


def wait_until(what, seconds=60):
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


# ---- a crowd ----------------------------------------------------------------------------------------

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
crowd_size = min(2000, (hard if hard > 0 else 1 << 20) - 100)
tiny = chat("hi", 1)


def crowd():
    """All connect, all ask something tiny, all are answered. How many were."""
    clients = [ls.Client(path, 200) for _ in range(crowd_size)]
    for c in clients:
        c.send(ls.submit(1, tiny))
    good = sum(c.answer(1)[-1].kind == ls.DONE for c in clients)
    for c in clients:
        c.close()
    return good


def quiet():
    return daemon.files() == files and status()["sessions"] == 0


daemon = Daemon("--limits", "sessions=4000,waiting=4000,uid=4000,principal=4000")
status()  # answered: all that it opens for itself is open
check(wait_until(lambda: daemon.files()[1] == 1), "a daemon that nobody asks has one socket")
files = daemon.files()
check(crowd() == crowd_size, "%d connections ask at once: all are answered" % crowd_size)
check(wait_until(quiet), "... and leave no file behind")
for _ in range(2):
    crowd()
    wait_until(quiet)
before = daemon.peak()
for _ in range(1 if sanitized else 6):
    crowd()
    wait_until(quiet)
grown = daemon.peak() - before
if sanitized:
    print("ok %d # SKIP memory that was freed is kept by the sanitizer" % (dl.count + 1))
    dl.count += 1
else:
    # One huge page more or less is chance.
    check(grown < 3 << 20, "... nor memory: %d KB more after %d of them" % (grown >> 10,
                                                                           6 * crowd_size))
check(daemon.stop(), "the daemon ends in order")

# ---- each limit, from several connections -----------------------------------------------------------


def refusal(c, request, **how):
    c.send(ls.submit(request, chat("hello", 300), **how))
    last = c.answer(request)[-1]
    return (last.error, last.text.decode()) if last.kind == ls.ERROR else (0, "")


daemon = Daemon("--pace", "5", "--limits", "requests=2,principal=3,uid=5,waiting=6")
a, b, c = (ls.Client(path) for _ in range(3))
for client, request in (a, 1), (a, 2), (b, 1):
    client.send(ls.submit(request, chat("hello", 300), principal=b"alice"))
wait_until(lambda: status()["unfinished"] == 3)
e, text = refusal(a, 3)
check(e == errno.ENOSPC and "2 of this session" in text, "requests=2: %s" % text)
e, text = refusal(c, 1, principal=b"alice")
check(e == errno.ENOSPC and "3 of principal alice" in text and "the limit is 3" in text,
      "principal=3: %s" % text)
for request in 2, 3:
    c.send(ls.submit(request, chat("hello", 300), principal=b"bob"))
wait_until(lambda: status()["unfinished"] == 5)
d = ls.Client(path)
e, text = refusal(d, 1, principal=b"carol")
check(e == errno.ENOSPC and "5 of uid %d" % os.geteuid() in text, "uid=5: %s" % text)
a.close()
check(wait_until(lambda: status()["unfinished"] == 3), "what a client leaves is released")
d.send(ls.submit(2, chat("hello", 2), principal=b"alice"))
check(d.answer(2)[-1].kind == ls.DONE, "... and there is room again")
for client in b, c, d:
    client.close()
check(wait_until(lambda: status()["unfinished"] == 0), "nothing is unfinished when all have left")
daemon.stop()
daemon = Daemon("--pace", "5", "--limits", "waiting=2")
a, b = ls.Client(path), ls.Client(path)
a.send(ls.submit(1, chat("hello", 300)))
a.send(ls.submit(2, chat("hello", 300)))
wait_until(lambda: status()["unfinished"] == 2)
e, text = refusal(b, 1)
check(e == errno.ENOSPC and "2 of this daemon" in text, "waiting=2: %s" % text)
a.close()
b.close()
daemon.stop()

# ---- a flood ----------------------------------------------------------------------------------------

daemon = Daemon("--batch", "2")
flood = [ls.Client(path) for _ in range(8)]
next_id = [1] * len(flood)


def more_flood(n):
    """n more requests of one principal over each connection; reads what is there."""
    for i, c in enumerate(flood):
        for _ in range(n):
            c.send(ls.submit(next_id[i], chat("flood", 200), principal=b"mallory"))
            next_id[i] += 1
        while select.select([c.s], [], [], 0)[0]:
            c.next()
            c.events.clear()


more_flood(40)
calm = ls.Client(path, 200)
good = 0
for i in range(5):
    calm.send(ls.submit(i + 1, chat("Why is the sky blue?", 16), principal=b"alice"))
    more_flood(40)
    good += calm.answer(i + 1)[-1].kind == ls.DONE
s = status()
check(good == 5 and s["unfinished"] <= 64, "a flood of one principal: another is answered (%d)"
      % s["unfinished"])
check(len(daemon.said().splitlines()) < 500, "... and the log is not flooded: %d lines for %d "
      "requests" % (len(daemon.said().splitlines()), sum(next_id)))
for c in flood:
    c.close()
calm.close()
check(wait_until(lambda: status()["unfinished"] == 0), "all of it goes when they do")

# Clients that ask for the same again and again, and leave in the middle, at any time.
for i in range(300):
    c = ls.Client(path)
    c.send(ls.submit(1, chat("Tell me about memory.", 50)))
    if i % 3 == 1:
        c.next()
    elif i % 3 == 2:
        c.send(ls.message(ls.CANCEL, 1, struct.pack("<ii", errno.ECANCELED, 0)))
    c.close()
check(wait_until(lambda: status()["unfinished"] == 0), "300 that ask and leave: nothing stays")
check(daemon.stop(), "the daemon ends in order")

# ---- no file left -----------------------------------------------------------------------------------

daemon = Daemon("--limits", "sessions=500", files=(100, 120))
check("sessions=500" in daemon.said() and "may open 120 files" in daemon.said(),
      "sessions that do not fit into the limit on open files: said at the start")
clients = [ls.Client(path) for _ in range(40)]
for c in clients:
    c.send(ls.submit(1, tiny))
ends = [c.answer(1)[-1].kind if c.s.fileno() >= 0 else 0 for c in clients[:40]]
check(ends == [ls.DONE] * 40, "... the soft limit is raised: 40 sessions are served")
more = [ls.Client(path) for _ in range(60)]
told = 0
for c in more:
    try:
        c.send(ls.message(ls.QUERY))
        told += (ev := c.next()) is not None and ev.kind == ls.ERROR and ev.error == errno.ENOSPC
    except (BrokenPipeError, ConnectionResetError):
        told += 1
check(told == 60, "... more than that are told: %d" % told)
check(status()["sessions"] == 40, "... and status is answered")
for c in clients + more:
    c.close()
check(wait_until(lambda: status()["sessions"] == 0), "... and all is well when they have gone")
check(daemon.stop(), "the daemon ends in order")
dl.finish()
