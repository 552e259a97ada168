#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The daemon's socket from the outside: replay at every token, limits, clients that misbehave.
usage: clients.py BUILD MODEL; prints TAP. Called by clients.sh."""
import errno
import json
import os
import random
import struct
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import llmsock as ls  # noqa: E402
import daemon_lib as dl  # noqa: E402
from daemon_lib import Daemon, build, check, model, path, tmp  # noqa: E402


def chat(question, n=64, **more):
    return json.dumps({"messages": [{"role": "user", "content": question}], "max_tokens": n,
                       "temperature": 0, "ignore_eos": True, **more}).encode()


SKY = chat("Why is the sky blue?")


def ask(payload, client=None, request=1, **how):
    c = client or ls.Client(path)
    c.send(ls.submit(request, payload, **how))
    events = c.answer(request)
    if not client:
        c.close()
    return events


def alive():
    return ls.text(ask(SKY)) == sky


def error_of(payload, **how):
    last = ask(payload, **how)[-1]
    return last.error if last.kind == ls.ERROR else 0


# ---- answers ----------------------------------------------------------------------------------------

daemon = Daemon()
reference = ask(SKY)
sky = ls.text(reference)
check(reference[0].kind == ls.STARTED and reference[-1].kind == ls.DONE and len(sky) > 20,
      "an answer begins with STARTED and ends with DONE")
check([e.seq for e in reference] == list(range(len(reference))), "seq counts the events")
check(len(ls.ids(reference)) == 64 and reference[-1].finish == ls.LENGTH,
      "every id is posted once")


def sweep(payload, name):
    """Replays the answer after each of its tokens; all must end the same."""
    whole = ask(payload)
    resume = whole[0].payload
    bad = []
    posted = [e for e in whole if e.kind == ls.TEXT]
    for k in range(len(posted) + 1):
        before = b"".join(e.text for e in posted[:k])
        seq = posted[k].seq if k < len(posted) else whole[-1].seq
        c = ls.Client(path)
        c.send(ls.submit(1, payload, flags=ls.F_REPLAY, resume=resume, seq=seq,
                         ids=ls.ids(posted[:k]), posted_bytes=len(before)))
        c.send(ls.message(ls.REPLAY_END))
        rest = c.answer(1)
        c.close()
        if (before + ls.text(rest) != ls.text(whole) or rest[0].seq != seq or
                ls.ids(posted[:k]) + ls.ids(rest) != ls.ids(whole) or
                rest[-1].kind != ls.DONE or rest[-1].finish != whole[-1].finish or
                rest[-1].completion_tokens != whole[-1].completion_tokens):
            bad.append(k)
    check(not bad, "%s: continued after each of %d tokens%s" % (name, len(posted), bad or ""))


sweep(SKY, "greedy, ended by length")
sweep(chat("Why is the sky blue?", 200, ignore_eos=False), "greedy, ended by the model")
sweep(chat("What is a region?", 60, temperature=1.5, seed=3, presence_penalty=1.0), "sampled")
stop_at = sky.decode(errors="replace").split()[6]
sweep(chat("Why is the sky blue?", 64, stop=[stop_at, "no such text"]), "ended by a stop string")
# Multi-byte characters and broken ones: ids of single bytes may be held back for long.
sweep(json.dumps({"prompt": list(range(40, 80)), "max_tokens": 80, "temperature": 3,
                  "seed": 11, "ignore_eos": True}).encode(), "noise from a raw prompt")

clients = [ls.Client(path) for _ in range(12)]
for c in clients:
    c.send(ls.submit(1, SKY))
check(all(ls.text(c.answer(1)) == sky for c in clients), "12 sessions at once: each as if alone")
for i, c in enumerate(clients):
    c.send(ls.submit(2, SKY if i % 2 else chat("Tell me more about number %d." % i)))
check(all(ls.text(c.answer(2)) == sky for c in clients[1::2]), "... also among different ones")
for c in clients:
    c.close()

c = ls.Client(path)
turns = []
for i, q in enumerate([b"What happens if the daemon is killed?", b"And without the module?",
                       b"thanks"]):
    turns.append(ask(q, c, i + 1, fmt=ls.FORMAT_TEXT, max_tokens=40))
c.close()
check(turns[1][-1].cached_tokens > 0, "a second turn finds the first one's tokens computed")
for known in (1, 2):
    c = ls.Client(path)
    for i, q in enumerate([b"What happens if the daemon is killed?", b"And without the module?"]):
        t = turns[i]
        if i < known:
            c.send(ls.submit(i + 1, q, fmt=ls.FORMAT_TEXT, max_tokens=40, ids=ls.ids(t),
                             flags=ls.F_REPLAY | ls.F_FINISHED, resume=t[0].payload,
                             finish=t[-1].finish, seq=t[-1].seq + 1,
                             posted_bytes=len(ls.text(t[:-1]))))
    c.send(ls.message(ls.REPLAY_END))
    for i in range(known, 3):
        q = [b"", b"And without the module?", b"thanks"][i]
        got = ask(q, c, i + 1, fmt=ls.FORMAT_TEXT, max_tokens=40)
        check(ls.ids(got) == ls.ids(turns[i]), "turn %d after %d replayed turns" % (i + 1, known))
    c.close()

# ---- what must not be continued ---------------------------------------------------------------------

resume = reference[0].payload
replay = dict(flags=ls.F_REPLAY, resume=resume, ids=ls.ids(reference[:9]), seq=reference[9].seq,
              posted_bytes=len(ls.text(reference[:9])))


def changed(**fields):
    return error_of(SKY, **{**replay, **fields})


def flip(at):
    return resume[:at] + bytes([resume[at] ^ 1]) + resume[at + 1:]


check(changed() == 0, "(the untouched replay is continued)")
check(changed(resume=flip(8)) == errno.ESTALE, "another fingerprint: ESTALE")
check(changed(resume=flip(16)) == errno.ESTALE, "another chat template: ESTALE")
check(changed(resume=flip(24)) == errno.ESTALE, "another prompt: ESTALE")
check(changed(resume=resume + b"\0" * 8) == errno.ESTALE, "another version's resume blob: ESTALE")
check(changed(posted_bytes=3) > 0, "posted bytes that the ids do not give: an error")
check(changed(ids=[10 ** 6] * 5) == errno.EINVAL, "posted ids out of range: EINVAL")
c = ls.Client(path)
c.send(ls.message(ls.SESSION_OPEN, body=b"\0" * 24, flags=ls.F_REPLAY | ls.F_LOST))
c.send(ls.message(ls.REPLAY_END))
check(ask(b"And then?", c, 1, fmt=ls.FORMAT_TEXT)[-1].error == errno.ESTALE,
      "the next turn of a lost conversation: ESTALE")
check(ask(SKY, c, 2)[-1].kind == ls.DONE, "... but a new conversation in it works")
c.close()

# ---- requests that cannot be ------------------------------------------------------------------------

for payload, code, name in [
    (b"{", errno.EINVAL, "bad JSON"),
    (b"[]", errno.EINVAL, "no object"),
    (b"{}", errno.EINVAL, "neither messages nor prompt"),
    (b'{"prompt":"x","messages":[]}', errno.EINVAL, "both"),
    (b'{"messages":[]}', errno.EINVAL, "no message"),
    (b'{"messages":[{"role":"robot","content":"x"}]}', errno.EINVAL, "an unknown role"),
    (b'{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}', errno.EOPNOTSUPP,
     "a picture"),
    (b'{"prompt":[99999999]}', errno.EINVAL, "an id out of range"),
    (b'{"prompt":[1.5]}', errno.EINVAL, "an id that is no whole number"),
    (b'{"prompt":""}', 0, None),
    (b'{"prompt":"x","temperature":-1}', errno.EINVAL, "a negative temperature"),
    (b'{"prompt":"x","top_p":"high"}', errno.EINVAL, "a top_p that is no number"),
    (b'{"prompt":"x","max_tokens":0}', errno.EINVAL, "no tokens"),
    (b'{"prompt":"x","stop":[""]}', errno.EINVAL, "an empty stop string"),
    (b'{"prompt":"x","stop":"%s"}' % (b"s" * 300), errno.EINVAL, "a long stop string"),
    (b'{"prompt":"x","tools":[{"type":"function"}]}', errno.EOPNOTSUPP, "tools"),
    (b'{"prompt":"x","response_format":{"type":"xml"}}', errno.EOPNOTSUPP, "response_format"),
    (b'{"prompt":"x","n":2}', errno.EOPNOTSUPP, "two choices"),
    (b'{"prompt":"x","logprobs":21}', errno.EINVAL, "too many logprobs"),
    (b'{"prompt":"\xff\xfe"}', errno.EINVAL, "bad UTF-8"),
    (b'{"prompt":' + b"[" * 5000 + b"]" * 5000 + b"}", errno.EINVAL, "deep nesting"),
]:
    if name:
        check(error_of(payload) == code, "refused: %s" % name)
check(error_of(b"word " * 20000, fmt=ls.FORMAT_TEXT) == errno.E2BIG,
      "refused: a prompt longer than the context")
check(error_of(b"\xff\xfe\x00 bytes", fmt=ls.FORMAT_TEXT, max_tokens=4) == 0,
      "any bytes are a turn")
check(error_of(SKY, deadline=1) == errno.ETIMEDOUT, "a deadline that has passed: ETIMEDOUT")
check(error_of(SKY, fmt=7) == errno.EOPNOTSUPP, "an unknown format: EOPNOTSUPP")
check(alive(), "others are served after all that")

# ---- packets that make no sense ---------------------------------------------------------------------


def rejected(*packets):
    """The packets make the daemon close this connection, with an ERROR for the session as a whole."""
    c = ls.Client(path)
    try:
        for p in packets:
            c.s.send(p)
    except (BrokenPipeError, ConnectionResetError):
        pass
    last = None
    try:
        while (ev := c.next()) is not None:
            last = ev
    except TimeoutError:
        return False
    finally:
        c.close()
    return last is not None and last.kind == ls.ERROR and last.request == 0


good = ls.submit(1, SKY)
for packets, name in [
    ([b"x"], "one byte"),
    ([b"\xff" * 32], "all ones"),
    ([b"\0" * 32], "all zeroes"),
    ([good[:31]], "half a header"),
    ([ls.message(ls.QUERY, size=24)], "a size smaller than the header"),
    ([ls.message(ls.QUERY, size=33)], "a size that is no multiple of 8"),
    ([ls.message(ls.QUERY, size=0xfffffff8)], "a size of 4 GB"),
    ([ls.message(99)], "an unknown type"),
    ([ls.message(ls.QUERY, flags=128)], "an unknown flag"),
    ([ls.message(ls.QUERY, body=b"\0" * 8)], "a body where there is none"),
    ([ls.message(ls.CANCEL, 1)], "no body where there is one"),
    ([ls.message(ls.CANCEL, 0, b"\0" * 8)], "CANCEL of nothing"),
    ([ls.message(ls.SESSION_CLOSE)], "a message that is the kernel's"),
    ([ls.message(ls.QUIESCE, body=b"\0" * 8)], "QUIESCE from a client"),
    ([good + good], "two messages in a packet"),
    ([good[:200], good[200:] + b"\0" * 8], "a last packet that is too long"),
    ([good, good], "the same request id twice"),
    ([ls.submit(0, SKY)], "request id 0"),
    ([ls.submit(1, b"")], "an empty payload"),
    ([ls.submit(1, SKY, seq=4)], "a new request with a seq"),
    ([ls.submit(1, SKY, ids=[1, 2])], "a new request with posted ids"),
    ([ls.submit(1, SKY, flags=ls.F_FINISHED, resume=resume, finish=1)], "FINISHED, not REPLAY"),
    ([ls.submit(1, SKY, flags=ls.F_REPLAY | ls.F_FINISHED, resume=resume, finish=9, seq=2)],
     "an unknown finish"),
    ([ls.submit(1, SKY, flags=ls.F_REPLAY, ids=[1], seq=2)], "posted ids without a resume blob"),
    ([ls.message(ls.REPLAY_END), ls.submit(1, SKY, **replay)], "a replay after its end"),
    ([good[:32 + 8] + struct.pack("<Q", 1 << 60) + good[48:]], "a payload length that overflows"),
    ([good[:32 + 64] + struct.pack("<I", 0xffffffff) + good[100:]], "an id count that overflows"),
    ([b"\1" * 70000], "a packet that is too long"),
]:
    check(rejected(*packets), "closed with an error: %s" % name)

rng = random.Random(5)
for _ in range(400):
    c = ls.Client(path)
    try:
        for _ in range(rng.randrange(1, 4)):
            b = bytearray(good if rng.random() < 0.8 else rng.randbytes(rng.randrange(1, 300)))
            for _ in range(rng.randrange(0, 6)):
                b[rng.randrange(min(len(b), 140))] = rng.randrange(256)
            c.s.send(bytes(b)[:rng.randrange(1, len(b) + 1)] if rng.random() < 0.3 else bytes(b))
    except (BrokenPipeError, ConnectionResetError):
        pass
    c.close()
check(alive(), "400 clients that talk nonsense and leave: others are served")
half = ls.Client(path)
half.s.send(good[:100])
check(alive(), "a client that stops in the middle of a message: others are served")
half.close()
check(daemon.stop(), "the daemon lived through it, and ends in order")

# ---- limits -----------------------------------------------------------------------------------------

daemon = Daemon("--limits", "prompt=20K,requests=3,sessions=5,events=64K,park=1,transcript=32K")
check(error_of(b" " * 20481, fmt=ls.FORMAT_TEXT) == errno.E2BIG, "a payload over the limit: E2BIG")
check(rejected(ls.submit(1, b" " * 60000, fmt=ls.FORMAT_TEXT)[:32768]),
      "a message over the limit: refused before it has come")
c = ls.Client(path)
for i in range(5):
    c.send(ls.submit(i + 1, chat("hello", 400)))
errors = []
for _ in range(2):
    while (ev := c.next()).kind != ls.ERROR:
        pass
    errors.append((ev.request, ev.error))
check(errors == [(4, errno.ENOSPC), (5, errno.ENOSPC)], "more requests than may wait: ENOSPC")
c.send(ls.message(ls.CANCEL, 3, struct.pack("<ii", errno.ECANCELED, 0)))
c.send(ls.message(ls.CANCEL, 1, struct.pack("<ii", errno.ECANCELED, 0)))
ends = {}
while len(ends) < 3:
    ev = c.next()
    if ev.kind == ls.DONE:
        ends[ev.request] = ev.finish
check(ends.get(3) == ls.CANCELLED and list(ends).index(3) < list(ends).index(2),
      "a waiting request is cancelled at once")
check(ends.get(1) in (ls.CANCELLED, ls.LENGTH), "a running one ends")
check(ends.get(2) == ls.LENGTH, "the one between them is answered")
c.close()
time.sleep(0.1)
others = [ls.Client(path) for _ in range(5)]
for o in others:
    o.send(ls.message(ls.QUERY))
    o.next()
extra = ls.Client(path)
extra.send(ls.message(ls.QUERY))
ev = extra.next()
check(ev is not None and ev.kind == ls.ERROR and ev.error == errno.ENOSPC and extra.next() is None,
      "more sessions than may be: ENOSPC, closed")
for o in others:
    o.close()
time.sleep(0.1)
c = ls.Client(path)
c.send(ls.submit(1, b"x" * 18000, fmt=ls.FORMAT_TEXT, flags=ls.F_REPLAY))
c.send(ls.submit(2, b"x" * 18000, fmt=ls.FORMAT_TEXT, flags=ls.F_REPLAY))
while (ev := c.next()) is not None and ev.request:
    pass
check(ev is not None and ev.error == errno.ENOSPC, "a transcript over the limit: ENOSPC")
c.close()

# A client that never reads: its answers fill the channel, then it is parked, then ended.
deaf = ls.Client(path)
deaf.s.setsockopt(ls.socket.SOL_SOCKET, ls.socket.SO_RCVBUF, 2048)
for i in range(3):
    deaf.send(ls.submit(i + 1, chat("hello", 1900)))
end = time.monotonic() + 100
served = 0
while time.monotonic() < end and (served < 2 or "nobody read them" not in daemon.said()):
    served += alive()
check(served >= 2, "a client that never reads: others are served meanwhile")
got = {1: [], 2: [], 3: []}
while True:
    ev = deaf.next()
    if ev is None or ev.request not in got:
        break
    got[ev.request].append(ev)
    if ev.kind in (ls.DONE, ls.ERROR) and all(
            g and g[-1].kind in (ls.DONE, ls.ERROR) for g in got.values()):
        break
ends = [g[-1].error if g and g[-1].kind == ls.ERROR else 0 for g in got.values()]
check(errno.ENOSPC in ends, "... its request is ended with ENOSPC (%s)" % ends)
check(all([e.seq for e in g] == list(range(len(g))) for g in got.values()),
      "... and what it finds when it does read has no gap")
deaf.close()

daemon.stop()
daemon = Daemon("--limits", "queue=100K,prompt=60K,transcript=200K")
crowd = [ls.Client(path) for _ in range(4)]
first = []
for d in crowd:
    d.send(ls.submit(1, chat("hello", 1900, user=" " * 40000)))
    first.append(d.next())
check([e.kind for e in first] == [ls.STARTED] * 2 + [ls.ERROR] * 2 and
      first[3].error == errno.ENOSPC,
      "more bytes of requests than may wait in the daemon: ENOSPC")
for d in crowd:
    d.close()
crowd = [ls.Client(path) for _ in range(4)]
for d in crowd:
    d.s.send(ls.submit(1, b" " * 60000, fmt=ls.FORMAT_TEXT)[:32768])
time.sleep(0.3)
gone = [d.next() for d in crowd if ls.select.select([d.s], [], [], 0)[0]]
check(gone and all(e.error == errno.ENOSPC and e.request == 0 for e in gone),
      "more bytes of half messages than that: ENOSPC (%d of 4)" % len(gone))
check(len(gone) < 4, "... but not for all")
for d in crowd:
    d.close()

# More of them than the engine runs at once: they must not hold its places.
daemon.stop()
daemon = Daemon("--batch", "4", "--limits", "events=64K,park=1000")
deaf = [ls.Client(path) for _ in range(18)]
for d in deaf:
    d.send(ls.submit(1, chat("hello", 1900)))
check(ls.text(ask(SKY, ls.Client(path, 150))) == sky,
      "18 clients that never read: others are served")
time.sleep(1.5)
whole = ls.text(ask(chat("hello", 1900)))
check(all(ls.text(d.answer(1)) == whole for d in deaf[:3]),
      "... and those that read in the end lose nothing")
for d in deaf:
    d.close()
check(alive(), "... and all is well when they have gone")
daemon.stop()
daemon = Daemon("--limits", "prompt=20K")

# One that reads late, but in time: parked and resumed, nothing lost.
late = ls.Client(path)
long = chat("hello", 1900)
late.send(ls.submit(1, long))
time.sleep(0.5)
check(ls.text(late.answer(1)) == ls.text(ask(long)), "a client that reads late loses nothing")
late.close()

c = ls.Client(path)
c.send(ls.message(ls.QUERY))
ev = c.next()
check(ev.kind == ls.INFO and struct.unpack_from("<Q", ev.payload, 24)[0] == 20480 and
      ev.payload[80:84] == b"llm0", "QUERY tells the limits and the name")
c.close()

# ---- rights -----------------------------------------------------------------------------------------


def as_nobody(action):
    """Runs action() in a child without rights; its exit status."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            code = action()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def try_connect():
    try:
        ls.Client(path).close()
    except OSError as e:
        return e.errno
    return 0


check(os.stat(path).st_mode & 0o777 == 0o660, "the socket's mode is 0660")
if os.geteuid() == 0:
    os.chmod(tmp.name, 0o755)
    check(as_nobody(try_connect) == errno.EACCES, "others may not connect")
    os.chmod(path, 0o666)
    check(as_nobody(lambda: error_of(SKY)) == 0, "(where they may, they are served)")
    check(as_nobody(lambda: error_of(SKY, principal=b"alice")) == errno.EPERM,
          "a principal from somebody else: EPERM")
    check(as_nobody(lambda: error_of(SKY, priority=-1)) == errno.EPERM,
          "a high priority from somebody else: EPERM")
else:
    print("ok %d # SKIP not root: the rights of other users" % (dl.count + 1))
    dl.count += 1
check(error_of(SKY, principal=b"alice", priority=-1) == 0, "both from the daemon's own user")

check(alive(), "others are served after all that")
check(daemon.stop(), "the daemon ends in order")
dl.finish()
