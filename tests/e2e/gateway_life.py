#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""llmdev-gateway when things come and go: clients that leave or do not read, daemons that die, are
full or come back, the gateway itself. Called by gateway_life.sh; prints TAP."""
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from gateway_lib import *  # noqa: E402,F403

begin()
long = {"max_tokens": 1500, "ignore_eos": True, "temperature": 0}


def idle(g):
    """Neither daemon nor gateway has anything left in hand (but the question itself)."""
    return wait_for(lambda: g.metric("vllm:num_requests_running") == 0 and
                    g.metric("vllm:num_requests_waiting") == 0 and
                    g.metric("llmdev_requests_parked") == 0 and
                    g.metric("llmdev_gateway_exchanges") == 1)


# ---- clients that leave
daemon = Daemon("llm0", "--batch", "1", "--pace", "40")
gw = Gateway("--model", "demo=" + daemon.path, "--keep-alive", "0.3", "--timeout", "1")
first = gw.chat_stream("Tell me about you", **long)
first.event()
check(wait_for(lambda: gw.metric("vllm:num_requests_running") +
               gw.metric("llmdev_requests_parked") == 1), "a stream runs")
body = json.dumps({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2})
s = socket.create_connection(("127.0.0.1", gw.port))
s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"
          % (len(body), body.encode()))
check(wait_for(lambda: gw.metric("vllm:num_requests_waiting") == 1), "another one waits")
gone = gw.metric("llmdev_gateway_disconnects_total")
s.close()
check(wait_for(lambda: gw.metric("vllm:num_requests_waiting") == 0),
      "a client that leaves before its first token is noticed")
check(gw.metric("llmdev_gateway_disconnects_total") == gone + 1 and
      gw.metric("vllm:request_success_total", finished_reason="abort") == 1, "and counted")
body = body[:-1] + ', "stream": true}'
s = socket.create_connection(("127.0.0.1", gw.port))
s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"
          % (len(body), body.encode()))
got = b""
while b"still there" not in got:
    got += s.recv(4096)
check(got.startswith(b"HTTP/1.1 200") and b"data:" not in got,
      "a stream that has to wait begins with a comment")
s.close()
check(wait_for(lambda: gw.metric("vllm:num_requests_waiting") == 0), "it leaves: noticed too")
# More than the time after which a silent client is hung up on: waiting is not being silent.
t, box = in_background(lambda: gw.chat("hello", max_tokens=3))
time.sleep(2.5)
first.close()
t.join(PATIENCE)
check(box and box[0][0] == 200, "who waits longer than --timeout is answered all the same", box)
check(idle(gw), "a stream that was left is cancelled")
check(gw.stop() == 0, "stops", gw.said())
daemon.stop()

# ---- a client that does not read
daemon = Daemon("llm0")
# On a slow machine the answers take longer than the 30 s after which such a client is left.
gw = Gateway("--model", "demo=" + daemon.path, "--timeout", "3600")
whole = text_of(gw.chat_stream("Tell me about you", **long).all())
check(len(whole) > 2000, "a long answer")


def rss():
    with open("/proc/%d/status" % gw.p.pid) as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))


slow = socket.socket()
slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
slow.connect(("127.0.0.1", gw.port))
before = rss()
st = Stream(gw, "/v1/chat/completions", dict(
    long, n=40, stream=True, messages=[{"role": "user", "content": "Tell me about you"}]), sock=slow)
check(wait_for(lambda: gw.metric("llmdev_daemon_generated_tokens_total") > 30000 or
               gw.metric("llmdev_requests_parked") > 0),
      "a client that does not read: its answers wait in the daemon")
sanitized = b"__asan_init" in open(os.path.join(build, "llmdev-gateway"), "rb").read()
check(sanitized or rss() - before < 8000, "the gateway does not keep 15 MB for it", rss() - before)
check(gw.chat(max_tokens=2)[0] == 200, "others are answered meanwhile")
events = st.all()
check(all(text_of(events, i) == whole for i in range(40)) and st.done, "and gets all when he reads")
check(gw.stop() == 0, "stops", gw.said())
daemon.stop()

# ---- daemons that die
daemon = Daemon("llm0", "--pace", "150")
gw = Gateway("--model", "demo=" + daemon.path, "--recovery", "60")
st = gw.chat_stream("Tell me about you", max_tokens=400, ignore_eos=True, temperature=0)
events = [st.event() for _ in range(60)]
daemon.stop(signal.SIGKILL)
daemon = Daemon("llm0")
events += st.all()
check(st.done and text_of(events) == whole[:len(text_of(events))] and
      events[-1]["choices"][0]["finish_reason"] == "length" and len(events) > 300,
      "kill -9 in a stream: it goes on with the same bytes", events[-1])
check(gw.metric("llmdev_recoveries_total") == 1, "which is counted")
daemon.stop()
r = gw.chat(max_tokens=2)
check(is_error(r, 503, "model_unavailable") and r[1]["Retry-After"], "no daemon: 503", r)
check(is_error(gw.chat(max_tokens=2, stream=True), 503), "no daemon: 503 for a stream too")
check(gw.get("/health")[0] == 503, "/health: 503")
check(gw.metric("llmdev_up") == 0, "metrics tell too")
daemon = Daemon("llm0")
check(gw.chat(max_tokens=2)[0] == 200 and wait_for(lambda: gw.get("/health")[0] == 200),
      "the daemon is back: so is the service")
quick = Gateway("--model", "demo=" + daemon.path, "--recovery", "0")
st = quick.chat_stream("Tell me about you", **long)
st.event()
daemon.stop(signal.SIGKILL)
events = st.all()
check("error" in events[-1] and events[-1]["error"]["code"] == "model_unavailable" and st.done,
      "a daemon that is not waited for: the stream ends with an error", events[-1])
quick.stop()

# ---- without --model
env_gw = Gateway("--model", "x=" + os.path.join(tmp, "never.sock"))
check(is_error(env_gw.chat(), 503) and env_gw.get("/v1/models")[2]["data"][0]["id"] == "x",
      "a daemon that was never there: 503")
env_gw.stop()
os.environ["XDG_RUNTIME_DIR"] = tmp
os.mkdir(os.path.join(tmp, "llmdev"))
if not os.path.exists("/dev/llm0") and not os.path.exists("/run/llmdev/llm0.sock"):
    late = Gateway()
    check(is_error(late.chat(model="model"), 503) and late.get("/v1/models")[2]["data"] == [],
          "no --model and no daemon: 503")
    daemon = Daemon("llmdev/llm0")
    check(wait_for(lambda: late.get("/v1/models")[2]["data"]), "when it comes its name is known")
    name = late.get("/v1/models")[2]["data"][0]["id"]
    check(late.chat(model=name, max_tokens=2)[0] == 200 and is_error(late.chat(model="y"), 404),
          "and others are not")
    late.stop()
    daemon.stop()

# ---- a daemon that is full
daemon = Daemon("llm0", "--batch", "1", "--limits", "waiting=2", "--pace", "30")
gw = Gateway("--model", "demo=" + daemon.path)
streams = [gw.chat_stream("Tell me about you", **long)]
streams[0].event()
waiting = [in_background(lambda: gw.chat(max_tokens=1)) for _ in range(8)]
check(wait_for(lambda: sum(bool(box) for _, box in waiting) >= 6), "a full queue: most are refused")
refused = [box[0] for _, box in waiting if box]
check(all(is_error(r, 429, "queue_full") and r[1]["Retry-After"] for r in refused),
      "with 429 and Retry-After", refused[:1])
r = gw.chat_stream(max_tokens=1)
check(r.status == 429, "a stream is refused as such", r.status)
streams[0].close()
for t, box in waiting:
    t.join(PATIENCE)
check(sorted(box[0][0] for _, box in waiting)[0] == 200, "who waited is answered")

# ---- a daemon that hangs
gw.stop()
daemon.stop()
daemon = Daemon("llm0", "--pace", "60")
gw = Gateway("--model", "demo=" + daemon.path, "--recovery", "600")
daemon.p.send_signal(signal.SIGSTOP)
stuck = [in_background(lambda: gw.chat(max_tokens=1)) for _ in range(200)]  # its backlog holds 128
check(wait_for(lambda: b'llmdev_gateway_answers_running{model_name="demo"} 200' in
               gw.get("/metrics")[2]), "a daemon that hangs: 200 requests wait for it")
check(gw.get("/v1/models")[0] == 200 and not any(box for _, box in stuck),
      "the gateway does not hang with it")
daemon.p.send_signal(signal.SIGCONT)
for t, box in stuck:
    t.join(PATIENCE)
check(all(box and box[0][0] in (200, 429) for _, box in stuck) and
      sum(box[0][0] == 200 for _, box in stuck) > 20, "all are answered when it goes on",
      [box[0][0] if box else None for _, box in stuck])

# ---- the gateway stops
st = gw.chat_stream("Tell me about you", max_tokens=60, ignore_eos=True)
st.event()
gw.p.send_signal(signal.SIGTERM)
check(wait_for(lambda: "stopping" in gw.said()), "SIGTERM")


def refused_now():
    try:
        socket.create_connection(("127.0.0.1", gw.port)).close()
        return False
    except ConnectionRefusedError:
        return True


check(wait_for(refused_now), "nobody new gets in")
events = st.all()
check(st.done and len(events) > 30, "a running stream ends by itself")
check(gw.p.wait(PATIENCE) == 0, "then it exits")
gw = Gateway("--model", "demo=" + daemon.path, "--drain", "0.2")
st = gw.chat_stream("Tell me about you", **long)
st.event()
check(gw.stop() == 0, "--drain: not longer than that", gw.said())
try:
    events = st.all()
except (http.client.IncompleteRead, ConnectionResetError):
    events = []
check(not st.done, "a stream that was cut does not look whole")
gw = Gateway("--model", "demo=" + daemon.path)
check(gw.chat(max_tokens=2)[0] == 200 and idle(gw),
      "another gateway takes over; the daemon noticed nothing but clients that left")

# ---- many at once
crowd = [gw.stream("/v1/completions", {"prompt": "a", "max_tokens": 400, "ignore_eos": True})
         for _ in range(2)]
for st in crowd:
    st.close()
check(idle(gw), "all are let go")
check(gw.stop() == 0, "stops", gw.said())
check(daemon.stop() == 0, "the daemon stops", daemon.said())
finish()
