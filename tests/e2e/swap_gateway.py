#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Several models behind one gateway: each request reaches its own; one that goes takes no other with
it. A model that is swapped (llmctl swap): a stream goes on to its end, no request fails. Called by
swap_gateway.sh; prints TAP."""
import os
import struct
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from gateway_lib import *  # noqa: E402,F403

LOOPS = 3  # clients that ask one request after the other
LONG = {"max_tokens": 160, "temperature": 0, "ignore_eos": True}

begin()
# Another model, as far as a fingerprint tells: its config differs.
other = os.path.join(tmp, "other")
shutil.copytree(model, other)
with open(os.path.join(other, "config.json"), "r+") as f:
    config = json.load(f)
    config["_name_or_path"] = "other"
    f.seek(0)
    json.dump(config, f)
    f.truncate()


def serving(path):
    """The process that listens there; None if there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        try:
            s.connect(path)
        except OSError:
            return None
        return struct.unpack("3i", s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]


def swap(*args):
    p = subprocess.run([os.path.join(build, "llmctl"), "swap", a.path, *args], timeout=PATIENCE,
                       stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, close_fds=True)
    return p.returncode == 0 or print("# " + p.stderr.decode().strip())


def end_swapped():
    # Daemons that were staged are not our children.
    for place in ("a.sock", "a.next.sock", "a.prev.sock"):
        pid = serving(os.path.join(tmp, place))
        if pid:
            os.kill(pid, signal.SIGKILL)


atexit.register(end_swapped)

# ---- several models
a = Daemon("a", "--pace", "80")
b = Daemon("b", "--exact")
gw = Gateway("--model", "alpha=%s,first" % a.path, "--model", "beta=" + b.path)
check([m["id"] for m in gw.get("/v1/models")[2]["data"]] == ["alpha", "first", "beta"],
      "two models and an alias are listed")


def answers(name):
    s, _, body = gw.chat(max_tokens=4, model=name)
    return body["system_fingerprint"] if s == 200 and body["model"] == name else (s, body)


check(isinstance(answers("alpha"), str) and answers("alpha") == answers("first") != answers("beta"),
      "each name reaches its own daemon", [answers(n) for n in ("alpha", "first", "beta")])
check(gw.metric("vllm:generation_tokens_total", model_name="beta") >= 4, "metrics tell them apart")
check(is_error(gw.chat(model="gamma"), 404, "model_not_found", "model"), "an unknown name: 404")
check(is_error(gw.chat(), 400, param="model"), "no name where there are two: 400", gw.chat())
b.stop(signal.SIGKILL)
check(isinstance(answers("alpha"), str), "one model's daemon dies: the other serves on")
check(is_error(gw.chat(model="beta"), 503), "... whose requests are told")
b = Daemon("b", "--exact")
check(isinstance(answers("beta"), str), "... until its next daemon is there", answers("beta"))

# ---- a model is swapped under its clients
undisturbed = text_of(gw.chat_stream("Why is the sky blue?", model="alpha", **LONG).all())
enough = threading.Event()
done, wrong = [], []


def loop():
    while not enough.is_set():
        try:
            if len(done) % 2:
                s, _, body = gw.chat(max_tokens=3, model="alpha")
                ok = s == 200 and body["choices"][0]["finish_reason"]
            else:
                st = gw.chat_stream(max_tokens=3, model="alpha")
                body = st.all()
                ok = st.status == 200 and st.done and not any("error" in e for e in body)
        except Exception as e:  # noqa: BLE001 whatever it is, the request failed
            ok, body = False, repr(e)
        done.append(ok)
        if not ok:
            wrong.append(body)


loops = [threading.Thread(target=loop, daemon=True) for _ in range(LOOPS)]
for t in loops:
    t.start()


def after_swap(to, name):
    """A swap in the middle of an answer: which daemon gave it, which one serves then."""
    st = gw.chat_stream("Why is the sky blue?", model="alpha", **LONG)
    events = [st.event() for _ in range(12)]
    before, ran = serving(a.path), len(done)
    ok = swap(to)
    check(ok and serving(a.path) not in (None, before), name + ": swapped while it answers")
    check(wait_for(lambda: len(done) >= ran + 4 * LOOPS), name + ": requests are answered")
    events += st.all()
    check(st.done and text_of(events) == undisturbed, name + ": the stream that ran is whole",
          text_of(events))

    def gone():
        try:
            os.kill(before, 0)
        except OSError:
            return True
        # A child of ours that nobody waited for.
        return before == a.p.pid and a.p.poll() is not None

    check(wait_for(gone), name + ": the old daemon has ended")


first = answers("alpha")
after_swap(other, "another model")
# It asks a daemon who it is only now and then.
check(wait_for(lambda: answers("alpha") != first), "the gateway tells the new one's fingerprint")
after_swap(model, "and back")
check(wait_for(lambda: answers("alpha") == first), "... and the first one's again")
after_swap(model, "the same model")

# Kept, and taken back.
before = serving(a.path)
check(swap(other, "--keep") and serving(a.path) != before and isinstance(answers("alpha"), str) and
      swap("--rollback") and serving(a.path) == before and wait_for(lambda: answers("alpha") == first),
      "kept, then rolled back")
enough.set()
for t in loops:
    t.join(PATIENCE)
print("# %d requests meanwhile" % len(done))
check(not wrong, "no request failed meanwhile", wrong[:2])
check(gw.p.poll() is None and "llmdev-gateway: stop" not in gw.said(), "the gateway ran all the time")
finish()
