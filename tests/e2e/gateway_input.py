#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What llmdev-gateway says to what is wrong: never a 500, never silence, and it serves on.
Called by gateway_input.sh; prints TAP."""
import os
import random
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from gateway_lib import *  # noqa: E402,F403

begin()
daemon = Daemon()
gw = Gateway("--model", "demo=" + daemon.path, "--max-body", "1M", "--timeout", "5")
chat = "/v1/chat/completions"
hello = [{"role": "user", "content": "hello"}]


def refused(name, body, code=None, param=None, status=400, path=chat):
    r = gw.post(path, body)
    return check(is_error(r, status, code, param), name, r)


# ---- the body as such
refused("no body", b"", "invalid_json")
r = gw.post(chat, b'{"model": "demo",\n "messages": [}')
check(is_error(r, 400, "invalid_json") and "line 2" in r[2]["error"]["message"],
      "malformed JSON: 400 with the place", r)
refused("cut JSON", b'{"messages": [{"role": "us', "invalid_json")
refused("no object", b"[1, 2]", "invalid_json")
refused("rubbish after it", b'{"messages": []} x', "invalid_json")
refused("NaN", b'{"messages": [], "temperature": NaN}', "invalid_json")
refused("invalid UTF-8", b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}', "invalid_json")
refused("a lone surrogate", b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "invalid_json")
refused("a NUL", b'{"messages": [{"role": "user", "content": "a\\u0000"}]}')
refused("deep nesting of lists", b'{"messages": ' + b"[" * 100000, "invalid_json")
refused("deep nesting of objects", b'{"a":' * 100000 + b"1" + b"}" * 100000, "invalid_json")
refused("nesting that is closed", b'{"messages": ' + b"[" * 600 + b"]" * 600 + b"}", "invalid_json")
refused("more values than text", b'{"messages": [' + b"[]," * 340000 + b"[]]}")
refused("a huge number", b'{"messages": [], "seed": 1e999}', "invalid_json")
refused("an integer beyond 64 bits", b'{"messages": [], "seed": 99999999999999999999}', "invalid_json")
r = gw.post(chat, {"messages": hello, "max_tokens": 2}, {"Content-Type": "text/plain"})
check(r[0] == 200, "another Content-Type is taken")
r = gw.post(chat, {"messages": hello}, {"Content-Encoding": "gzip"})
check(is_error(r, 415), "Content-Encoding: 415", r)

# ---- too long
r = gw.post(chat, b'{"messages": "' + b"x" * (2 << 20) + b'"}')
check(is_error(r, 413, "request_too_large"), "a body over the limit: 413", r)


def rss(p):
    with open("/proc/%d/status" % p) as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))


before = rss(gw.p.pid)
big = b"x" * (1 << 20)
head = b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (chat.encode(), 100 << 20)
got = raw(gw.port, head, pieces=(big for _ in range(100)))
check(got.startswith(b"HTTP/1.1 413") or not got, "100 MB announced: 413 or hung up on", got[:200])
chunk = b"100000\r\n" + big + b"\r\n"
head = b"POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" % chat.encode()
got = raw(gw.port, head, pieces=[chunk] * 100)
check(got.startswith(b"HTTP/1.1 413") or not got, "100 MB in chunks: 413 or hung up on", got[:200])
got = raw(gw.port, head + b"Connection: close\r\n\r\n"[:0], pieces=[chunk] * 3 + [b"0\r\n\r\n"])
check(got.startswith(b"HTTP/1.1 413"), "3 MB in chunks: 413", got[:200])
sanitized = b"__asan_init" in open(os.path.join(build, "llmdev-gateway"), "rb").read()
check(sanitized or rss(gw.p.pid) - before < 16384, "none of it is kept in memory",
      (before, rss(gw.p.pid)))
got = raw(gw.port, b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n"
          b"Expect: 100-continue\r\n\r\n" % chat.encode())
check(got.startswith(b"HTTP/1.1 413"), "Expect: 100-continue: 413 before the body is sent", got[:200])

# ---- HTTP
check(is_error(gw.get("/v1/nothing"), 404), "unknown path: 404")
r = gw.get(chat)
check(is_error(r, 405) and r[1]["Allow"] == "POST", "wrong method: 405 with Allow", r)
r = gw.post("/v1/models", {})
check(is_error(r, 405) and "GET" in r[1]["Allow"], "POST to what is only read: 405", r)
check(is_error(gw.call("DELETE", "/v1/models/demo"), 405), "DELETE: 405")
check(is_error(gw.call("OPTIONS", chat), 405), "OPTIONS without CORS: 405")
check(is_error(gw.call("BREW", chat), 405), "a method nobody knows: 405")
got = raw(gw.port, b"GET /health HTTP/1.1\r\nHost: a\r\nX-Big: " + b"y" * 100000 + b"\r\n\r\n")
check(b" 431 " in got[:20] or b" 413 " in got[:20], "headers over the limit: 431", got[:200])
got = raw(gw.port, b"GET /" + b"z" * 100000 + b" HTTP/1.1\r\nHost: a\r\n\r\n")
check(got.startswith(b"HTTP/1.1 4"), "a URL over the limit: 4xx", got[:200])
got = raw(gw.port, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200))
check(not got or got.startswith(b"HTTP/1.1 4"), "TLS where there is none", got[:100])
got = raw(gw.port, b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n" % chat.encode())
check(not got or got.startswith(b"HTTP/1.1 4"), "a negative Content-Length", got[:100])
got = raw(gw.port, b"POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
          % chat.encode())
check(not got or got.startswith(b"HTTP/1.1 4"), "a bad chunk", got[:100])
got = raw(gw.port, b"GET /health HTTP/1.0\r\n\r\n")
check(b"200 OK" in got[:20], "HTTP/1.0", got[:100])
body = json.dumps({"messages": hello, "stream": True, "max_tokens": 3}).encode()
got = raw(gw.port, b"POST %s HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s"
          % (chat.encode(), len(body), body))
check(got.endswith(b"data: [DONE]\n\n") and b"chunked" not in got.split(b"\r\n\r\n")[0],
      "HTTP/1.0: a stream without chunks", got[-200:])
rng = random.Random(4)
for i in range(200):
    raw(gw.port, bytes(rng.randrange(256) for _ in range(rng.randrange(1, 60))) + b"\r\n\r\n", 20)
check(gw.get("/health")[0] == 200, "200 requests of random bytes: still there")

# ---- members
refused("model: not a string", {"model": 5, "messages": hello}, param="model")
refused("unknown model: 404", {"model": "gpt-9", "messages": hello}, "model_not_found", "model", 404)
check(gw.chat(max_tokens=1, model=None)[0] == 200, "model: null is the only one there is")
refused("no messages", {"model": "demo"}, "missing_required_parameter", "messages")
refused("messages: not a list", {"messages": "hello"}, param="messages")
refused("messages: empty", {"messages": []}, param="messages")
refused("an unknown role", {"messages": [{"role": "wizard", "content": "x"}]},
        param="messages[0].role")
refused("content: a number", {"messages": [{"role": "user", "content": 5}]},
        param="messages[0].content")
refused("stream: a string", {"messages": hello, "stream": "yes"}, param="stream")
refused("stream_options without stream", {"messages": hello, "stream_options": {}},
        param="stream_options")
refused("stream_options: a list", {"messages": hello, "stream": True, "stream_options": [1]},
        param="stream_options")
for n in (0, -1, 129, 1.5, "2", True):
    refused("n: %r" % n, {"messages": hello, "n": n}, param="n")
r = gw.chat(n=128, max_tokens=3, seed=7, temperature=5)
check(r[0] == 200 and [c["index"] for c in r[2]["choices"]] == list(range(128)) and
      len({c["message"]["content"] for c in r[2]["choices"]}) > 9,
      "n: 128 is not more than one may ask for at once", r)
r = gw.post("/v1/completions", {"prompt": ["a", "b c"] * 32, "n": 2, "max_tokens": 1, "echo": True})
check(r[0] == 200 and [c["text"][:3] == "b c" for c in r[2]["choices"]] ==
      [False, False, True, True] * 32, "64 prompts, two answers each, in order", r)
refused("best_of", {"prompt": "x", "best_of": 3}, "unsupported_parameter", "best_of",
        path="/v1/completions")
refused("temperature: a string", {"messages": hello, "temperature": "hot"}, param="temperature")
refused("temperature: below 0", {"messages": hello, "temperature": -1}, param="temperature")
refused("top_p: over 1", {"messages": hello, "top_p": 2}, param="top_p")
refused("max_tokens: negative", {"messages": hello, "max_tokens": -3}, param="max_tokens")
refused("refused before a stream begins", {"messages": hello, "stream": True, "top_p": 2},
        param="top_p")
refused("no prompt", {}, "missing_required_parameter", "prompt", path="/v1/completions")
refused("an empty list of prompts", {"prompt": []}, path="/v1/completions")
refused("prompts of mixed kinds", {"prompt": ["a", 5]}, path="/v1/completions")
refused("200 prompts", {"prompt": ["a"] * 200}, param="prompt", path="/v1/completions")
refused("echo with logprobs", {"prompt": "a", "echo": True, "logprobs": 1},
        "unsupported_parameter", "echo", path="/v1/completions")
refused("an id beyond the vocabulary", {"prompt": [99999999]}, path="/v1/completions")
refused("a prompt longer than the context", {"prompt": [1] * 9000}, "context_length_exceeded",
        "prompt", path="/v1/completions")
long = "x y " * 9000
refused("a conversation that is", {"messages": [{"role": "user", "content": long}]},
        "context_length_exceeded", "messages")
refused("an input that is", {"input": long}, "context_length_exceeded", "input",
        path="/v1/responses")
refused("an id to detokenize", {"tokens": [1, -1]}, "invalid_value", "tokens[1]", path="/detokenize")
refused("a conversation to tokenize", {"messages": [{"role": "wizard"}]}, "invalid_value",
        "messages[0].role", path="/tokenize")
refused("an unsupported parameter", {"messages": hello, "functions": [{"name": "f"}]})
check(gw.chat(max_tokens=1, something_new=True, user="me", metadata={"a": "b"}, store=False,
              service_tier="auto")[0] == 200, "unknown members are ignored")

# ---- slow loris
gl = Gateway("--model", "demo=" + daemon.path, "--timeout", "1")
socks = []
for i in range(20):
    s = socket.create_connection(("127.0.0.1", gl.port))
    s.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n")
    socks.append(s)


def drip():
    left = []
    for s in socks:
        try:
            s.sendall(b"X-A: b\r\n")
            s.setblocking(False)
            try:
                if s.recv(100) == b"":
                    continue
            except BlockingIOError:
                pass
            s.setblocking(True)
            left.append(s)
        except OSError:
            pass
    socks[:] = left
    time.sleep(0.2)
    return not socks


check(wait_for(drip), "who sends a header now and then for ever is hung up on")
s = socket.create_connection(("127.0.0.1", gl.port))
check(wait_for(lambda: s.recv(10) == b""), "who sends nothing too")
s = socket.create_connection(("127.0.0.1", gl.port))
s.sendall(b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" % chat.encode())


def drip_body():
    try:
        s.sendall(b" ")
        s.setblocking(False)
        return s.recv(10) == b""
    except BlockingIOError:
        time.sleep(0.2)
        return False
    except OSError:
        return True


check(wait_for(drip_body), "who sends a byte of the body now and then too")
few = Gateway("--model", "demo=" + daemon.path, "--max-connections", "4", "--timeout", "2")
socks = [socket.create_connection(("127.0.0.1", few.port)) for _ in range(12)]
check(few.get("/health")[0] == 200, "more connections than there may be: others come in when they go")

check(gw.get("/health")[0] == 200 and gw.chat(max_tokens=2)[0] == 200, "after all this it serves")
check(gw.metric("llmdev_gateway_replies_total", status="5xx") == 0, "and none of it was a 5xx")
for g in (gw, gl, few):
    check(g.stop() == 0, "stops cleanly", g.said())
check(daemon.stop() == 0, "the daemon too")
finish()
