#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What llmdev-gateway costs, beside the daemon's own socket, and what a JSON schema costs a step.

    tests/bench/gateway.py [overhead] [idle] [mask] [--build build] [--model tools/demo/model]
                           [--mask-model FILE.gguf] [--pairs 9] [--threads 1] [--json FILE]

Without a name all three; `mask` only where --mask-model is given. Goals in brackets.

  overhead  llmctl bench serve at the socket and through the gateway in turns, one client, prompts of
            64 and answers of 128 tokens. The client is the same program; over HTTP it also parses
            the chunks, which counts as the gateway's cost here. The difference of the medians of
            TTFT [0.3 ms] and, per token, of (E2E - TTFT) [30 us], in the median of the pairs; and the
            gateway's CPU time for each token, since what is hidden behind the model's steps costs
            too.
            The first pairs are with the small built-in model, whose steps are shorter than the
            gateway's work on a token may be; then with a daemon paced to 500 tokens a second, as a
            bigger model would be.
  idle      256 streams that have begun and then get a token a minute: the gateway's resident memory
            before and with them [20 MB].
  mask      response_format json_schema beside none, one client, a model of a vocabulary of about
            150 thousand tokens: what a step is longer, as a share of a step [5 %]. From the daemon's
            own clocks (llmctl status): steps, the forward pass, the sampling with the mask.

Prints Markdown; exit status 1 if a goal was not reached. --json keeps every figure.
"""
import argparse
import http.client
import json
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import peer  # noqa: E402

median = statistics.median
STREAMS = 256
GOALS = {"ttft_ms": 0.3, "token_us": 30.0, "idle_mb": 20.0, "mask_share": 0.05}


class Servers:
    """A daemon and a gateway in front of it."""

    def __init__(self, args, model, *options):
        self.args = args
        self.dir = tempfile.TemporaryDirectory()
        self.socket = os.path.join(self.dir.name, "llm0.sock")
        self.log = open(os.path.join(self.dir.name, "log"), "w+")
        self.daemon = self.start("llmdevd", model, "--socket", self.socket, "--threads",
                                 str(args.threads), *options)
        self.wait(self.daemon, r"llmdevd: serving", 600)
        self.gateway = self.start("llmdev-gateway", "--listen", "127.0.0.1:0", "--model",
                                  "bench=" + self.socket)
        self.port = int(self.wait(self.gateway, r"llmdev-gateway: .*127\.0\.0\.1:(\d+)", 60).group(1))

    def start(self, program, *arguments):
        return subprocess.Popen([os.path.join(self.args.build, program), *arguments],
                                stderr=self.log, stdout=self.log)

    def wait(self, process, words, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end and process.poll() is None:
            with open(self.log.name) as f:
                found = re.search(words, f.read())
            if found:
                return found
            time.sleep(0.05)
        with open(self.log.name) as f:
            sys.exit("gateway.py: a server did not start:\n" + f.read())

    def close(self):
        for p in (self.gateway, self.daemon):
            p.kill()
            p.wait()
        self.log.close()
        self.dir.cleanup()

    def bench(self, target, pp, tg, runs):
        out = subprocess.run([os.path.join(self.args.build, "llmctl"), "bench", "serve", *target,
                              "--pp", str(pp), "--tg", str(tg), "--concurrency", "1", "--runs",
                              str(runs), "--json"], capture_output=True, text=True)
        if out.returncode:
            sys.exit("gateway.py: llmctl bench serve: " + out.stderr)
        r = json.loads(out.stdout.strip().splitlines()[-1])
        if r["requests"]["ok"] != runs or r["tokens"]["out"] != runs * tg:
            sys.exit("gateway.py: answers are missing: %s" % r["requests"])
        return r

    def status(self):
        out = subprocess.run([os.path.join(self.args.build, "llmctl"), "status", "--socket",
                              self.socket, "--json"], capture_output=True, text=True, check=True)
        return json.loads(out.stdout)

    def post(self, path, body):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        c.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        reply = c.getresponse()
        text = reply.read()
        if reply.status != 200:
            sys.exit("gateway.py: %s: %d %s" % (path, reply.status, text[:300]))
        c.close()
        return json.loads(text)


def cpu_seconds(pid):
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid):
    """Resident bytes of its own: what is shared with other programs (libraries) left out."""
    with open("/proc/%d/smaps_rollup" % pid) as f:
        text = f.read()
    kb = lambda name: int(re.search(r"^%s:\s+(\d+)" % name, text, re.M).group(1))
    return 1024 * kb("Rss"), 1024 * (kb("Private_Clean") + kb("Private_Dirty"))


def goal(name, value, unit, digits=3):
    ok = value < GOALS[name]
    factor = 100 if unit == "%" else 1
    return ok, "%.*f %s (goal %g %s), %s" % (digits, factor * value, unit, factor * GOALS[name], unit,
                                             "**reached**" if ok else "**not reached**")


def overhead(args, results):
    ok = True
    print("\n## What the gateway adds, %d pairs" % args.pairs)
    for name, options, runs, tg in (("built-in model", (), 24, 128),
                                    ("500 tokens a second", ("--pace", "500"), 4, 128)):
        s = Servers(args, args.model, *options)
        url = ["--url", "http://127.0.0.1:%d" % s.port]
        s.bench(["--socket", s.socket], 64, 32, 4)
        s.bench(url, 64, 32, 4)
        pairs = []
        for _ in range(args.pairs):
            a = s.bench(["--socket", s.socket], 64, tg, runs)
            before = cpu_seconds(s.gateway.pid)
            b = s.bench(url, 64, tg, runs)
            pairs.append({
                "socket": {k: a[k]["p50"] for k in ("ttft_ms", "tpot_ms")},
                "gateway": {k: b[k]["p50"] for k in ("ttft_ms", "tpot_ms")},
                "cpu_us": (cpu_seconds(s.gateway.pid) - before) / (runs * tg) * 1e6,
            })
        s.close()
        ttft = median(p["gateway"]["ttft_ms"] - p["socket"]["ttft_ms"] for p in pairs)
        token = median(p["gateway"]["tpot_ms"] - p["socket"]["tpot_ms"] for p in pairs) * 1000
        cpu = median(p["cpu_us"] for p in pairs)
        results.setdefault("overhead", {})[name] = {"pairs": pairs, "ttft_ms": ttft,
                                                    "token_us": token, "cpu_us": cpu}
        side = lambda which, k: median(p[which][k] for p in pairs)
        print("\n%s: socket TTFT %.3f ms, %.1f us a token; gateway %.3f ms, %.1f us" % (
            name, side("socket", "ttft_ms"), 1000 * side("socket", "tpot_ms"),
            side("gateway", "ttft_ms"), 1000 * side("gateway", "tpot_ms")))
        for key, value, unit in (("ttft_ms", ttft, "ms"), ("token_us", token, "us")):
            reached, text = goal(key, value, unit, 3 if unit == "ms" else 1)
            ok &= reached
            print("* adds to %s: %s" % ("TTFT" if unit == "ms" else "each token", text))
        print("* CPU time of the gateway: %.1f us a token" % cpu)
    return ok


def idle(args, results):
    s = Servers(args, args.model, "--batch", str(STREAMS + 1), "--pace", "0.0167", "--limits",
                "sessions=%d,uid=%d,principal=%d,waiting=%d" % (4 * STREAMS, 2 * STREAMS, 2 * STREAMS,
                                                                2 * STREAMS))
    body = json.dumps({"model": "bench", "messages": [{"role": "user", "content": "Hello."}],
                       "max_tokens": 64, "stream": True})
    head = ("POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            "Content-Length: %d\r\n\r\n%s" % (len(body), body)).encode()

    def stream():
        c = socket.create_connection(("127.0.0.1", s.port))
        c.settimeout(300)
        c.sendall(head)
        return c

    def begun(c):
        data = b""
        while b'"content":"' not in data.replace(b'"content":""', b""):
            more = c.recv(65536)
            if not more:
                sys.exit("gateway.py: a stream ended: %r" % data[:400])
            data += more

    # Code and libraries are in memory, and the heap has its first size.
    first = stream()
    begun(first)
    before = memory(s.gateway.pid)
    streams = [stream() for _ in range(STREAMS)]
    for c in streams:
        begun(c)
    after = memory(s.gateway.pid)
    for c in streams:
        c.close()
    first.close()
    end = time.monotonic() + 60
    while time.monotonic() < end and s.status()["unfinished"]:
        time.sleep(0.2)
    time.sleep(1)
    left = memory(s.gateway.pid)
    s.close()
    cost = (after[0] - before[0]) / 1e6
    ok, text = goal("idle_mb", cost, "MB", 1)
    results["idle"] = {"before": before, "with": after, "after": left, "mb": cost}
    print("\n## %d idle streams\n\n* RSS %.1f MB before, %.1f MB with them, %.1f MB when they had gone"
          "\n* they cost: %s" % (STREAMS, before[0] / 1e6, after[0] / 1e6, left[0] / 1e6, text))
    return ok


# No object that satisfies it ends early: the answer always has its full length.
SCHEMA = {"type": "object", "additionalProperties": False, "required": ["items"],
          "properties": {"items": {"type": "array", "minItems": 1000, "items": {
              "type": "object", "additionalProperties": False, "required": ["name", "count", "kind"],
              "properties": {"name": {"type": "string"}, "count": {"type": "integer"},
                             "kind": {"enum": ["alpha", "beta", "gamma"]}}}}}}


def mask(args, results):
    s = Servers(args, args.mask_model, "--ctx", "1024")
    plain = {"model": "bench", "prompt": list(range(100, 132)), "max_tokens": 64,
             "temperature": 1.0, "seed": 1, "ignore_eos": True}
    constrained = dict(plain, response_format={"type": "json_schema", "json_schema": {
        "name": "things", "schema": SCHEMA, "strict": True}})

    texts = []

    def run(body):
        a = s.status()
        texts.append(s.post("/v1/completions", body)["choices"][0]["text"])
        b = s.status()
        d = {k: b[k] - a[k] for k in ("steps", "step_ns", "forward_ns", "sample_ns",
                                      "generated_tokens")}
        # The prompt is cached after the first time: a step is a token.
        return {"step_ms": d["step_ns"] / d["steps"] / 1e6,
                "forward_ms": d["forward_ns"] / d["steps"] / 1e6,
                "sample_ms": d["sample_ns"] / d["steps"] / 1e6, "tokens": d["generated_tokens"]}

    t = time.monotonic()
    s.post("/v1/completions", dict(constrained, max_tokens=1))
    first = time.monotonic() - t
    run(plain)
    pairs = [{"plain": run(plain), "schema": run(constrained)} for _ in range(args.pairs)]
    s.close()
    if not "".join(texts[-1].split()).startswith('{"items":[{"'):
        sys.exit("gateway.py: the schema was not kept to: %r" % texts[-1])
    # The model's part is the same work in both: its noise would drown what is looked for.
    beside = lambda r: r["step_ms"] - r["forward_ms"]
    extra = median(beside(p["schema"]) - beside(p["plain"]) for p in pairs)
    step = median(p["plain"]["step_ms"] for p in pairs)
    share = extra / step
    ok, text = goal("mask_share", share, "%", 2)
    results["mask"] = {"pairs": pairs, "extra_ms": extra, "step_ms": step, "share": share,
                       "first_request_s": first, "answer": texts[-1], "model": os.path.basename(args.mask_model)}
    print("\n## A JSON schema, %d pairs\n\n* a step without: %.2f ms, sampling %.3f ms of it; with: "
          "sampling %.3f ms\n* masking takes %.3f ms of a step: %s\n* the first request with the "
          "schema, compiling included: %.0f ms" % (
              args.pairs, step, median(p["plain"]["sample_ms"] for p in pairs),
              median(p["schema"]["sample_ms"] for p in pairs), extra, text, 1000 * first))
    return ok


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("what", nargs="*", choices=["overhead", "idle", "mask", []])
    ap.add_argument("--build", default="build")
    ap.add_argument("--model", default="tools/demo/model")
    ap.add_argument("--mask-model", default="")
    ap.add_argument("--pairs", type=int, default=9)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--json", default="")
    ap.add_argument("--priority", action="store_true", help="run everything at the highest nice "
                    "priority (root): for machines that are not idle")
    args = ap.parse_args()
    if "mask" in args.what and not args.mask_model:
        ap.error("mask: give --mask-model")
    args.peer_root, args.dir = "", "."
    peer.settle(args, "gateway.py")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    results = {"machine": peer.machine(args, None), "threads": args.threads}
    ok = True
    what = args.what or ["overhead", "idle"] + (["mask"] if args.mask_model else [])
    for name, measure in (("overhead", overhead), ("idle", idle), ("mask", mask)):
        if name in what:
            ok &= measure(args, results)
    if args.json:
        with open(args.json, "w") as f:
            json.dump(results, f, indent=1)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
