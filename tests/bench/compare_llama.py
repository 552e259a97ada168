#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Decode and prefill speed beside llama.cpp's llama-bench, on the same files, in one run.

    tests/bench/compare_llama.py --dir DIR [--peer-root ROOT] [--build build] [--pairs 5] [--json FILE]

Writes a Qwen3-0.6B-shaped random GGUF per type into DIR (llmctl synth; kept for the next run), then
takes pairs of measurements, the two programs in turn going first; before and after each decode of
ours, pinned threads read 1 GB. Prints a Markdown table; --json keeps every single figure.

llama-bench is taken from PATH, or from a chroot: with --peer-root ROOT it runs as
`chroot ROOT llama-bench`, and DIR must lie below ROOT.

Same on both sides: the file, the number of threads, a bf16 KV cache, and activations rounded as the
type's kernels do by default (int8 blocks for Q8_0 and Q4_0, bf16 for BF16). llama-bench decodes
tokens without sampling; llmctl's figure includes it. Each run of a prompt gets other ids.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import peer  # noqa: E402

DECODE, PREFILL = 32, 128
TARGETS = {  # decode ratio, share of the read bandwidth, prefill ratio
    "q8_0": (1.2, 0.80, 1.5), "q4_0": (1.2, 0.80, 1.0), "bf16": (1.2, 0.80, 1.5)}


def run(cmd):
    p = subprocess.run(cmd, capture_output=True, text=True, timeout=900)
    if p.returncode:
        sys.exit("compare_llama: %s: exit status %d: %s" % (" ".join(cmd), p.returncode,
                                                            p.stderr.strip()[-500:]))
    return p


def ours(args, path, what):
    cmd = [args.llmctl, "bench", what, path, "--json", "--runs", str(args.runs), "--threads",
           str(args.threads), "--kv-type", "bf16"]
    return json.loads(run(cmd).stdout), " ".join(cmd)


def theirs(args, path, kv, prompt, gen):
    inside = "/" + os.path.relpath(path, args.peer_root) if args.peer_root else path
    cmd = peer.prefix(args) + [
        "llama-bench", "-m", inside, "-t", str(args.threads), "-p", str(prompt), "-n", str(gen), "-r",
        str(args.runs), "-ctk", kv, "-ctv", kv, "-o", "json"]
    p = run(cmd)
    variant = re.search(r"loaded CPU backend from \S*/(\S+)", p.stderr)
    tests = json.loads(p.stdout)
    return {("prefill" if t["n_prompt"] else "decode"): statistics.median(t["samples_ts"])
            for t in tests}, variant.group(1) if variant else "unknown", " ".join(cmd)


def machine(args):
    p = subprocess.run(peer.prefix(args) + ["dpkg-query", "-W", "-f", "${Package} ${Version}; ",
                                            "llama.cpp", "libggml0"], capture_output=True, text=True)
    return peer.machine(args, p.stdout.strip("; ") or "llama-bench of unknown version")


def bandwidth(args):
    cmd = [os.path.join(args.build, "bench", "membw"), str(args.threads), "1024", "9"]
    return json.loads(run(cmd).stdout)["bytes_per_s"]


def measure(args, kind, path):
    r = {"type": kind, "file_bytes": os.path.getsize(path), "pairs": [], "commands": {}}
    for i in range(args.pairs):
        pair = {"peer": {}}
        for what in ("decode", "prefill"):
            for who in ("ours", "peer") if i % 2 == 0 else ("peer", "ours"):
                if who == "peer":
                    size = (PREFILL, 0) if what == "prefill" else (0, DECODE)
                    t, r["variant"], r["commands"]["peer " + what] = theirs(args, path, "bf16", *size)
                    pair["peer"].update(t)
                    continue
                # Other guests of the host change the bandwidth from second to second: it is
                # taken just before and just after what it is compared with.
                before = bandwidth(args) if what == "decode" else 0
                j, r["commands"][what] = ours(args, path, what)
                pair[what] = j["tokens_per_s"]
                r["detail"] = j["detail"]
                if what == "decode":
                    pair["read_bytes_per_s"] = j["read_bytes_per_s"]
                    pair["bandwidth"] = (before + bandwidth(args)) / 2
                    r["bytes_per_token"] = j["bytes_read"] / j["tokens"]
        r["pairs"].append(pair)
        print("%s pair %d: decode %.1f / %.1f, prefill %.1f / %.1f, bandwidth %.1f GB/s" % (
            kind, i + 1, pair["decode"], pair["peer"]["decode"], pair["prefill"],
            pair["peer"]["prefill"], pair["bandwidth"] / 1e9), file=sys.stderr)
    # llama.cpp at its own default KV type, for comparison
    r["peer_f16_kv"], _, r["commands"]["peer_f16_kv"] = theirs(args, path, "f16", PREFILL, DECODE)
    med = lambda f: statistics.median(f(p) for p in r["pairs"])
    r["decode"] = med(lambda p: p["decode"])
    r["prefill"] = med(lambda p: p["prefill"])
    r["peer_decode"] = med(lambda p: p["peer"]["decode"])
    r["peer_prefill"] = med(lambda p: p["peer"]["prefill"])
    r["bandwidth"] = med(lambda p: p["bandwidth"])
    r["decode_ratio"] = med(lambda p: p["decode"] / p["peer"]["decode"])
    r["prefill_ratio"] = med(lambda p: p["prefill"] / p["peer"]["prefill"])
    r["bandwidth_share"] = med(lambda p: p["read_bytes_per_s"] / p["bandwidth"])
    return r


def verdict(value, target):
    return "reached" if value >= target else "not reached"


def markdown(m, results):
    r0 = results[0]
    print("%s, %d CPUs, %.0f GB, Linux %s; commit %s%s; %s, %s; ours: %s; KV bf16 on both sides" % (
        m["cpu"], m["cpus"], m["memory_kb"] / 1e6, m["kernel"], m["commit"],
        " with local changes" if m["modified"] else "", m["peer"], r0["variant"], r0["detail"]))
    print("load average %.2f before, %.2f after (the benchmark's own included)%s\n" % (
        m["load_average_before"][0], m["load_average_after"][0],
        "; both at nice -20" if m["priority"] else ""))
    print("| type | decode, tokens/s | llama.cpp | ratio | of read bandwidth | prefill, tokens/s | llama.cpp | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for r in results:
        t = TARGETS.get(r["type"])
        goal = lambda value, i, text: ", %s %s" % (text % t[i], verdict(value, t[i])) if t else ""
        print("| %s | %.1f | %.1f (f16 KV: %.1f) | %.2f%s | %.0f %% of %.1f GB/s%s | %.0f | %.0f (f16 KV: "
              "%.0f) | %.2f%s |" % (
                  r["type"].upper(), r["decode"], r["peer_decode"], r["peer_f16_kv"]["decode"],
                  r["decode_ratio"], goal(r["decode_ratio"], 0, "%.1f"),
                  100 * r["bandwidth_share"], r["bandwidth"] / 1e9,
                  goal(r["bandwidth_share"], 1, "%.2f"), r["prefill"], r["peer_prefill"],
                  r["peer_f16_kv"]["prefill"], r["prefill_ratio"],
                  goal(r["prefill_ratio"], 2, "%.1f")))
    print("\nMedians of %d pairs; a ratio is the median of the pairs' ratios." % len(r0["pairs"]))
    for name, cmd in r0["commands"].items():
        print("    %s" % cmd)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    peer.add_arguments(ap)
    ap.add_argument("--runs", type=int, default=3, help="timed runs within a measurement")
    ap.add_argument("--types", default="q8_0,q4_0,bf16")
    ap.add_argument("--shape", default="qwen3-0.6b", help="preset or config.json of llmctl synth")
    args = ap.parse_args()
    peer.settle(args, "compare_llama")
    run(["make", "O=" + args.build, os.path.join(args.build, "llmctl"),
         os.path.join(args.build, "bench", "membw")])
    os.makedirs(args.dir, exist_ok=True)
    m, results = machine(args), []
    for kind in args.types.split(","):
        path = os.path.join(args.dir, "%s-%s.gguf" % (os.path.basename(args.shape), kind))
        if not os.path.exists(path):
            run([args.llmctl, "synth", args.shape, path, "--format", "gguf-" + kind])
            subprocess.run(["sync", path])
        results.append(measure(args, kind, path))
    m["load_average_after"] = os.getloadavg()
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"machine": m, "results": results}, f, indent=1)
            f.write("\n")
    markdown(m, results)


main()
