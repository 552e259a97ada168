# SPDX-License-Identifier: MIT
"""For tests of llmdev-gateway: daemons and gateways as processes, plain HTTP, TAP."""
import atexit
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

build = os.environ.get("LLMDEV_BUILD", "build")
model = os.environ.get("LLMDEV_MODEL", "tools/demo/model")
tmp = tempfile.mkdtemp()
atexit.register(shutil.rmtree, tmp, ignore_errors=True)
count = failed = 0
PATIENCE = 120  # seconds until something counts as hung


def check(ok, name, note=None):
    global count, failed
    count += 1
    failed += not ok
    print("%sok %d - %s" % ("" if ok else "not ", count, name), flush=True)
    if not ok and note is not None:
        print("# " + str(note)[:600].replace("\n", "\n# "), flush=True)
    return ok


def skip_all(why):
    print("1..0 # SKIP " + why)
    sys.exit(0)


def finish():
    print("1..%d" % count)
    sys.stdout.flush()
    sys.exit(failed > 0)


def begin():
    if not os.path.exists(os.path.join(build, "llmdev-gateway")):
        skip_all("llmdev-gateway is not built: no libmicrohttpd")
    if not os.path.exists(os.path.join(model, "config.json")):
        skip_all("no model at " + model)


def wait_for(what, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class Process:
    def __init__(self, args, ready):
        self.log = open(os.path.join(tmp, "log%d" % time.monotonic_ns()), "w+")
        self.p = subprocess.Popen(args, stderr=self.log, stdin=subprocess.DEVNULL)
        atexit.register(self.stop, signal.SIGKILL)
        if not wait_for(lambda: re.search(ready, self.said()) or self.p.poll() is not None) or \
                self.p.poll() is not None:
            sys.exit(args[0] + " did not start:\n" + self.said()[-800:])

    def said(self):
        with open(self.log.name) as f:
            return f.read()

    def stop(self, sig=signal.SIGTERM):
        """Its exit status; None if it had gone before."""
        if self.p.poll() is not None:
            return None
        self.p.send_signal(sig)
        try:
            return self.p.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.p.kill()
            return "hung"


class Daemon(Process):
    def __init__(self, name="llm0", *options):
        self.path = os.path.join(tmp, name + ".sock")
        super().__init__([os.path.join(build, "llmdevd"), model, "--socket", self.path,
                          "--threads", "1", *options], r"serving .* at ")


class Gateway(Process):
    def __init__(self, *options, listen="127.0.0.1:0"):
        super().__init__([os.path.join(build, "llmdev-gateway"), "--listen", listen, *options],
                         r"serving at http://")
        self.port = int(re.search(r"serving at http://[^ ,]*:(\d+)", self.said()).group(1))

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def call(self, method, path, body=None, headers=None):
        """status, headers, body (parsed where it is JSON)"""
        c = self.connect()
        try:
            if body is not None and not isinstance(body, (bytes, str)):
                body = json.dumps(body)
            c.request(method, path, body, headers or {})
            r = c.getresponse()
            data = r.read()
        finally:
            c.close()
        if (r.getheader("Content-Type") or "").startswith("application/json") and data:
            data = json.loads(data)
        return r.status, r.headers, data

    def get(self, path, **headers):
        return self.call("GET", path, headers=headers)

    def post(self, path, body, headers=None):
        return self.call("POST", path, body, headers)

    def chat(self, text="hello", headers=None, **more):
        return self.post("/v1/chat/completions", dict(
            {"messages": [{"role": "user", "content": text}]}, **more), headers)

    def stream(self, path, body, headers=None):
        return Stream(self, path, dict(body, stream=True), headers)

    def chat_stream(self, text="hello", headers=None, **more):
        return self.stream("/v1/chat/completions", dict(
            {"messages": [{"role": "user", "content": text}]}, **more), headers)

    def metric(self, name, **labels):
        """The sum over all series that have these labels."""
        text = self.get("/metrics")[2].decode()
        total, found = 0.0, False
        for line in text.splitlines():
            m = re.match(r"([a-z_:A-Z0-9]+)(\{.*\})? (\S+)$", line)
            if not m or m.group(1) != name:
                continue
            if all('%s="%s"' % (k, v) in (m.group(2) or "") for k, v in labels.items()):
                total += float(m.group(3))
                found = True
        return total if found else None


class Stream:
    """Server-sent events of one request, read when asked for."""

    def __init__(self, gateway, path, body, headers=None, sock=None):
        self.c = gateway.connect()
        self.c.sock = sock
        self.c.request("POST", path, json.dumps(body), headers or {})
        self.r = self.c.getresponse()
        self.status = self.r.status
        self.comments = 0
        self.done = False  # [DONE] was the last

    def event(self):
        """The next data (parsed), None at the end; comments are counted."""
        while True:
            line = self.r.readline()
            if not line:
                return None
            if line.startswith(b":"):
                self.comments += 1
            elif line.startswith(b"data: [DONE]"):
                self.done = True
            elif line.startswith(b"data: "):
                assert not self.done, "data after [DONE]"
                return json.loads(line[6:])

    def all(self):
        return list(iter(self.event, None))

    def close(self):
        self.c.close()


def text_of(events, index=0):
    out = ""
    for e in events:
        for c in e.get("choices", []):
            if c["index"] == index:
                out += c.get("text", "") or c.get("delta", {}).get("content") or ""
    return out


def is_error(reply, status, code=None, param=None):
    """An error of OpenAI's form, and of this kind?"""
    got, _, body = reply
    if got != status or not isinstance(body, dict) or set(body) != {"error"}:
        return False
    e = body["error"]
    return set(e) == {"message", "type", "param", "code"} and bool(e["message"]) and \
        (code is None or e["code"] == code) and (param is None or e["param"] == param)


def raw(port, data, timeout=PATIENCE, pieces=None):
    """Sends bytes as they are; all that comes back until the server hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout) as s:
        try:
            s.sendall(data)
            for p in pieces or []:
                s.sendall(p)
        except (BrokenPipeError, ConnectionResetError):
            pass
        out = b""
        try:
            while True:
                got = s.recv(65536)
                if not got:
                    return out
                out += got
        except ConnectionResetError:
            return out


def in_background(f):
    box = []
    t = threading.Thread(target=lambda: box.append(f()), daemon=True)
    t.start()
    return t, box
