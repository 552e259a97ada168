#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Serving many at once beside llama.cpp's llama-server: the same file, both driven by the same
client (llmctl bench serve), in turns.

    tests/bench/compare_serve.py --dir DIR [--peer-root ROOT] [--build build] [--pairs 5] [--json FILE]

Writes a Qwen3-0.6B-shaped random GGUF into DIR (llmctl synth), and beside it a copy with an invented
vocabulary, which llama-server needs; both servers get that copy. Measured, in this order:

  streams   8 clients at once, prompts of 64 and answers of 128 tokens: tokens a second, all together
  single    one client: tokens a second, beside `llmctl bench decode` in a process of its own
  prefix    two requests that share 4096 tokens: TTFT of the second by that of the first
  overload  ours alone: shape J, scaled, at five times the rate that the machine sustains: failures,
            TTFT, and the daemon's memory over time

Same on both sides: the file, the number of threads, a bf16 KV cache, the context of a slot, random
prompts. llama-server keeps no prompts (--no-cache-prompt) except in `prefix`, where its defaults
count. Both servers stay loaded throughout; who is not measured is idle.

llama-server is taken from PATH or, with --peer-root ROOT, run as `chroot ROOT llama-server`; DIR must
lie below ROOT then. Prints Markdown; --json keeps every single figure.
"""
import argparse
import json
import os
import re
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import peer  # noqa: E402

median = statistics.median


def add_vocabulary(source, target):
    """Copies a GGUF file without a vocabulary and gives it an invented one: llama-server cannot serve
    without. Prompts are ids; the text only has to be there."""
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    with open(source, "rb") as f:
        head = f.read(64 << 20)
    pos = 24
    magic, version, n_tensors, n_kv = struct.unpack_from("<4sIQQ", head)
    if magic != b"GGUF" or version != 3:
        sys.exit("compare_serve: %s: no GGUF of version 3" % source)

    def string(at):
        length, = struct.unpack_from("<Q", head, at)
        return head[at + 8:at + 8 + length], at + 8 + length

    def skip(kind, at):
        if kind == 8:
            return string(at)[1]
        if kind != 9:
            return at + sizes[kind]
        kind, count = struct.unpack_from("<IQ", head, at)
        at += 12
        for _ in range(count):
            at = skip(kind, at)
        return at

    kvs, alignment, n = [], 32, 0
    for _ in range(n_kv):
        start = pos
        key, pos = string(pos)
        kind, = struct.unpack_from("<I", head, pos)
        value = pos + 4
        pos = skip(kind, value)
        if key == b"general.alignment":
            alignment, = struct.unpack_from("<I", head, value)
        if key.endswith(b".vocab_size"):
            n, = struct.unpack_from("<I", head, value)
        if not key.startswith(b"tokenizer."):
            kvs.append(head[start:pos])
    tensors = pos
    for _ in range(n_tensors):
        _, pos = string(pos)
        dims, = struct.unpack_from("<I", head, pos)
        pos += 4 + 8 * dims + 12
    infos, data = head[tensors:pos], -(-pos // alignment) * alignment

    s = lambda b: struct.pack("<Q", len(b)) + b
    kv = lambda key, kind, value: s(b"tokenizer.ggml." + key) + struct.pack("<I", kind) + value
    array = lambda kind, items: struct.pack("<IQ", kind, len(items)) + b"".join(items)
    # The alphabet of byte-level BPE, then words of letters that are all different.
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = [chr(b) for b in plain] + [chr(256 + i) for i in range(256 - len(plain))]
    words = ["ab"]
    i = 0
    while len(words) + 256 < n:
        word, k = "", i
        while True:
            word = chr(97 + k % 26) + word
            k //= 26
            if not k:
                break
        if len(word) > 2:
            words.append(word)
        i += 1
    tokens = [t.encode() for t in alphabet + words][:n]
    kvs += [
        kv(b"model", 8, s(b"gpt2")), kv(b"pre", 8, s(b"qwen2")),
        kv(b"tokens", 9, array(8, [s(t) for t in tokens])),
        kv(b"token_type", 9, array(5, [struct.pack("<i", 3 if i == n - 1 else 1) for i in range(n)])),
        kv(b"merges", 9, array(8, [s(b"a b")])),
        kv(b"eos_token_id", 4, struct.pack("<I", n - 1)),
        kv(b"bos_token_id", 4, struct.pack("<I", n - 1)),
        kv(b"add_bos_token", 7, b"\0"),
    ]
    with open(target + ".part", "wb") as out, open(source, "rb") as f:
        out.write(struct.pack("<4sIQQ", magic, version, n_tensors, len(kvs)) + b"".join(kvs) + infos)
        out.write(b"\0" * (-out.tell() % alignment))
        f.seek(data)
        while chunk := f.read(16 << 20):
            out.write(chunk)
    os.rename(target + ".part", target)


def say(*text):
    print(*text, file=sys.stderr, flush=True)


def run(cmd, **kw):
    p = subprocess.run(cmd, capture_output=True, text=True, timeout=3600, **kw)
    if p.returncode:
        sys.exit("compare_serve: %s: exit status %d: %s" % (
            " ".join(cmd), p.returncode, (p.stderr.strip() or p.stdout.strip())[-500:]))
    return p.stdout


class Server:
    """A running server; .target are the options that point llmctl bench serve at it."""

    def __init__(self, args, name, cmd, target):
        self.args, self.name, self.cmd, self.target = args, name, cmd, target
        self.log = tempfile.NamedTemporaryFile(mode="w+", prefix=name + "-", suffix=".log")
        say("starting:", " ".join(cmd))
        self.process = subprocess.Popen(cmd, stdout=self.log, stderr=subprocess.STDOUT)
        end = time.monotonic() + 300
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                sys.exit("compare_serve: %s does not serve: %s" % (
                    name, open(self.log.name).read()[-800:]))
            time.sleep(0.2)

    def ready(self):
        if "--url" in self.target:
            try:
                return urllib.request.urlopen(self.target[1] + "/health", timeout=5).status == 200
            except OSError:
                return False
        return os.path.exists(self.target[1])

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def bench(self, *options):
        cmd = [self.args.llmctl, "bench", "serve", *self.target, "--json", *map(str, options)]
        return json.loads(run(cmd))

    def rss(self):
        with open("/proc/%d/status" % self.process.pid) as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) * 1024


def ours(args, path, ctx, sessions, extra=()):
    sock = os.path.join(tempfile.mkdtemp(prefix="compare-serve-"), "llm0.sock")
    return Server(args, "llmdevd", [
        os.path.join(args.build, "llmdevd"), path, "--socket", sock, "--threads", str(args.threads),
        "--kv-type", args.kv, "--ctx", str(ctx), "--limits",
        "sessions=%d,principal=%d,uid=%d" % (sessions, sessions, sessions), *extra],
        ["--socket", sock])


def theirs(args, path, ctx, slots, *extra):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    inside = "/" + os.path.relpath(path, args.peer_root) if args.peer_root else path
    return Server(args, "llama-server", peer.prefix(args) + [
        "llama-server", "-m", inside, "-t", str(args.threads), "-c", str(ctx * slots), "--parallel",
        str(slots), "-ctk", args.kv, "-ctv", args.kv, "--host", "127.0.0.1", "--port", str(port),
        *extra], ["--url", "http://127.0.0.1:%d" % port])


def well(j, who):
    """A figure counts only if nothing failed."""
    if j["requests"]["failed"] or j["requests"]["short"] or not j["requests"]["ok"]:
        sys.exit("compare_serve: %s: %s %s" % (who, j["requests"], j["failures"]))
    return j


def keep(j):
    """What is worth keeping of a run: all but the samples."""
    return {k: v for k, v in j.items() if k not in ("samples", "timeline", "details")}


def turns(i, a, b):
    return (a, b) if i % 2 == 0 else (b, a)


def measure_streams(args, a, b, clients, pp, tg, runs):
    pairs = []
    for i in range(args.pairs):
        pair = {}
        for s in turns(i, a, b):
            pair[s.name] = keep(well(s.bench("--pp", pp, "--tg", tg, "--concurrency", clients,
                                             "--runs", runs), s.name))
        rates = [pair[s.name]["tokens_out_per_s"] for s in (a, b)]
        say("%d clients, pair %d: %.1f / %.1f tokens/s" % (clients, i + 1, *rates))
        pairs.append(pair)
    rate = lambda s: median(p[s.name]["tokens_out_per_s"] for p in pairs)
    ttft = lambda s: median(p[s.name]["ttft_ms"]["p50"] for p in pairs)
    itl = lambda s: median(p[s.name]["itl_ms"]["p99"] for p in pairs)
    return {"clients": clients, "pp": pp, "tg": tg, "pairs": pairs,
            "ours": rate(a), "peer": rate(b), "ours_ttft_ms": ttft(a), "peer_ttft_ms": ttft(b),
            "ours_itl_p99_ms": itl(a), "peer_itl_p99_ms": itl(b),
            "ratio": median(p[a.name]["tokens_out_per_s"] / p[b.name]["tokens_out_per_s"]
                            for p in pairs)}


def measure_single(args, a, path):
    """Through the daemon beside a process of its own: prompt of 1, then 32 tokens, start to end."""
    pairs = []
    for i in range(args.pairs):
        pair = {}
        for who in turns(i, "served", "alone"):
            if who == "served":
                j = well(a.bench("--pp", 1, "--tg", 32, "--runs", 5), "llmdevd")
                pair[who] = 32e3 / j["e2e_ms"]["p50"]
            else:
                pair[who] = json.loads(run([
                    args.llmctl, "bench", "decode", path, "--json", "--runs", "5", "-n", "32",
                    "--threads", str(args.threads), "--kv-type", args.kv]))["tokens_per_s"]
        say("single, pair %d: served %.1f, alone %.1f tokens/s" % (i + 1, pair["served"], pair["alone"]))
        pairs.append(pair)
    return {"pairs": pairs, "served": median(p["served"] for p in pairs),
            "alone": median(p["alone"] for p in pairs),
            "ratio": median(p["served"] / p["alone"] for p in pairs)}


def measure_prefix(args, a, b, tokens):
    pairs = []
    for i in range(args.pairs):
        pair = {}
        for s in turns(i, a, b):
            j = well(s.bench("--prefix", tokens, "--pp", 16, "--tg", 4, "--runs", 2, "--details"),
                     s.name)
            first, second = (d["ttft_ms"] for d in j["details"])
            pair[s.name] = {"first": first, "second": second, "share": second / first,
                            "cached": j["details"][1].get("cached_tokens")}
        say("prefix, pair %d: %s" % (i + 1, pair))
        pairs.append(pair)
    r = {"tokens": tokens, "pairs": pairs}
    for s, who in ((a, "ours"), (b, "peer")):
        for key in ("first", "second", "share"):
            r["%s_%s" % (who, key)] = median(p[s.name][key] for p in pairs)
    return r


def slope(points):
    """Least squares through (x, y)."""
    xs, ys = zip(*points)
    mx, my = statistics.fmean(xs), statistics.fmean(ys)
    below = sum((x - mx) ** 2 for x in xs)
    return sum((x - mx) * (y - my) for x, y in points) / below if below else 0.0


def measure_overload(args, a, scale, seconds, at_once):
    shape = ["--shape", "J", "--scale", scale]
    j = well(a.bench(*shape, "--concurrency", 25, "--duration", max(10, seconds / 6)), "llmdevd")
    sustained = j["requests_per_s"]
    say("overload: the machine sustains %.2f requests/s" % sustained)
    memory, over = [], threading.Event()

    def watch():
        start = time.monotonic()
        while not over.wait(0.5):
            memory.append((time.monotonic() - start, a.rss()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        j = a.bench(*shape, "--rate", 5 * sustained, "--max-concurrency", at_once, "--duration",
                    seconds)
    finally:
        over.set()
        watcher.join()
    late = [m for m in memory if m[0] >= memory[-1][0] / 2]  # pools have filled by then
    r = {"scale": scale, "at_once": at_once, "sustained_per_s": sustained, "rate": 5 * sustained,
         "run": keep(j), "rss": memory, "rss_first": memory[0][1], "rss_last": memory[-1][1],
         "rss_bytes_per_s": slope(late)}
    r["rss_bytes_per_1000_requests"] = r["rss_bytes_per_s"] / max(j["requests_per_s"], 1e-9) * 1000
    say("overload, at most %d at once: %d ok, %d failed, TTFT P99 %.0f ms, memory %+.2f MB a minute" % (
        at_once, j["requests"]["ok"], j["requests"]["failed"], j["ttft_ms"]["p99"],
        r["rss_bytes_per_s"] * 60 / 1e6))
    return r


def machine(args):
    p = subprocess.run(peer.prefix(args) + ["llama-server", "--version"], capture_output=True,
                       text=True)
    return peer.machine(args, " ".join((p.stderr + p.stdout).split())[:120])


def goal(reached, text):
    return "%s, %s" % (text, "reached" if reached else "not reached")


def markdown(args, r):
    m = r["machine"]
    print("%s, %d CPUs, Linux %s; commit %s%s; peer: %s; %d threads, KV %s on both sides; load average "
          "%.2f before, %.2f after\n" % (
              m["cpu"], m["cpus"], m["kernel"], m["commit"],
              " with local changes" if m["modified"] else "", m["peer"], args.threads, args.kv,
              m["load_average_before"][0], m["load_average_after"][0]))
    print("| | ours | llama-server | |\n|---|---|---|---|")
    for s in r.get("streams", []):
        target = goal(s["ratio"] >= 1.2, "goal 1.2") if s["clients"] > 1 else "no goal"
        print("| %d at once, %d and %d tokens: tokens/s | %.1f | %.1f | **%.2f** (%s) |" % (
            s["clients"], s["pp"], s["tg"], s["ours"], s["peer"], s["ratio"], target))
        print("| the same: TTFT P50, ITL P99 | %.0f ms, %.0f ms | %.0f ms, %.0f ms | |" % (
            s["ours_ttft_ms"], s["ours_itl_p99_ms"], s["peer_ttft_ms"], s["peer_itl_p99_ms"]))
    if "single" in r:
        s = r["single"]
        print("| one client, 32 tokens: tokens/s | %.1f | (llmctl bench decode: %.1f) | **%.2f** (%s) |" % (
            s["served"], s["alone"], s["ratio"], goal(s["ratio"] >= 0.97, "goal: not slower")))
    if "prefix" in r:
        p = r["prefix"]
        print("| %d tokens shared: TTFT of the second by the first | %.0f by %.0f ms: 1/%.1f | %.0f by %.0f "
              "ms: 1/%.1f | %s |" % (
                  p["tokens"], p["ours_second"], p["ours_first"], 1 / p["ours_share"],
                  p["peer_second"], p["peer_first"], 1 / p["peer_share"],
                  goal(p["ours_share"] <= 1 / 8, "goal 1/8")))
    for o in r.get("overload", []):
        j = o["run"]
        print("| shape J scaled by %g, %.1f a second (5 times what is sustained), at most %d at once | %d ok, "
              "%d failed; TTFT P50 %.0f, P99 %.0f ms; memory %.1f to %.1f MB, %+.3f MB per 1000 requests "
              "at the end | | %s |" % (
                  o["scale"], o["rate"], o["at_once"], j["requests"]["ok"],
                  j["requests"]["failed"], j["ttft_ms"]["p50"], j["ttft_ms"]["p99"],
                  o["rss_first"] / 1e6, o["rss_last"] / 1e6,
                  o["rss_bytes_per_1000_requests"] / 1e6,
                  goal(not j["requests"]["failed"], "goal: none fails")))
    print("\nMedians of %d pairs; a ratio is the median of the pairs' ratios." % args.pairs)


def prepare(args):
    os.makedirs(args.dir, exist_ok=True)
    plain = os.path.join(args.dir, "%s-%s.gguf" % (os.path.basename(args.shape), args.type))
    path = os.path.join(args.dir, "serve-" + os.path.basename(plain))
    if not os.path.exists(plain):
        run([args.llmctl, "synth", args.shape, plain, "--format", "gguf-" + args.type])
    if not os.path.exists(path):
        add_vocabulary(plain, path)
    return path


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    peer.add_arguments(ap)
    ap.add_argument("--kv", default="bf16", choices=["bf16", "f32"])
    ap.add_argument("--shape", default="qwen3-0.6b", help="preset or config.json of llmctl synth")
    ap.add_argument("--type", default="q8_0")
    ap.add_argument("--only", default="streams,single,prefix,overload")
    ap.add_argument("--clients", type=int, default=8)
    ap.add_argument("--pp", type=int, default=64)
    ap.add_argument("--tg", type=int, default=128)
    ap.add_argument("--runs", type=int, default=0, help="requests of a measurement (2 a client)")
    ap.add_argument("--prefix", type=int, default=4096)
    ap.add_argument("--scale", type=float, default=0.05, help="of shape J's lengths")
    ap.add_argument("--seconds", type=float, default=120, help="of overload")
    ap.add_argument("--at-once", default="25,200", help="of overload")
    ap.add_argument("--kv-size", default="512M", help="of the KV pool in overload")
    args = ap.parse_args()
    peer.settle(args, "compare_serve")
    path, only, servers = prepare(args), args.only.split(","), []
    runs = args.runs or 2 * args.clients
    ctx = -(-(args.pp + args.tg + 64) // 256) * 256
    result = {"machine": machine(args), "arguments": vars(args)}

    def start(make, *rest):
        servers.append(make(args, path, *rest))
        return servers[-1]

    try:
        if "streams" in only or "single" in only:
            a = start(ours, ctx, 256)
            if "streams" in only:
                b = start(theirs, ctx, args.clients, "--no-cache-prompt", "--cache-ram", "0")
                result["streams"] = [
                    measure_streams(args, a, b, args.clients, args.pp, args.tg, runs),
                    measure_streams(args, a, b, 1, args.pp, args.tg, 2)]
                b.stop()
            if "single" in only:
                result["single"] = measure_single(args, a, path)
            a.stop()
        if "prefix" in only:
            a, b = start(ours, args.prefix + 256, 256), start(theirs, args.prefix + 256, 2)
            result["prefix"] = measure_prefix(args, a, b, args.prefix)
            a.stop()
            b.stop()
        if "overload" in only:
            result["overload"] = []
            for at_once in map(int, args.at_once.split(",")):
                # A pool that fills within the first part of the run: what grows then is a leak.
                a = start(ours, 1024, 2 * at_once + 16, ("--kv-size", args.kv_size))
                result["overload"].append(
                    measure_overload(args, a, args.scale, args.seconds, at_once))
                a.stop()
    finally:
        for s in servers:
            s.stop()
    result["machine"]["load_average_after"] = os.getloadavg()
    result["commands"] = sorted({" ".join(s.cmd) for s in servers})
    if args.json:
        with open(args.json, "w") as f:
            json.dump(result, f, indent=1)
            f.write("\n")
    markdown(args, result)


main()
