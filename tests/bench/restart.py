#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""From exec of llmdevd to the first token, with weights that are read and weights that are found.

usage: tests/bench/restart.py MODEL [--pairs N] [--build DIR] [--json]

Each pair: a daemon with --weights anon, then one with --weights region that finds what an earlier one
left; both are killed with -9. In a region of the kernel module where it is loaded, else of a keeper of
the run's own. The bytes read are those of /proc/PID/io (rchar and read_bytes).
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time


def start(build, model, socket, weights):
    """Seconds to the first token, to serving, bytes read, minor faults; the daemon is killed."""
    begin = time.monotonic()
    daemon = subprocess.Popen([build + "/llmdevd", model, "--socket", socket, "--weights", weights],
                              stderr=subprocess.PIPE, text=True)
    lines, serving = [], None
    for line in daemon.stderr:
        lines.append(line.strip())
        if ": serving " in line:
            serving = time.monotonic() - begin
            break
    if serving is None:
        sys.exit("\n".join(lines))
    subprocess.run([build + "/llmctl", "ask", "--quiet", "--socket", socket, "-n", "1", "hello"],
                   check=True, stdout=subprocess.DEVNULL)
    first = time.monotonic() - begin
    with open(f"/proc/{daemon.pid}/io", encoding="ascii") as f:
        read = sum(int(v.split()[1]) for v in f if v.startswith(("rchar", "read_bytes")))
    with open(f"/proc/{daemon.pid}/stat", encoding="ascii") as f:
        faults = int(f.read().rsplit(")", 1)[1].split()[7])
    daemon.kill()
    daemon.wait()
    return {"first": first, "serving": serving, "read": read, "faults": faults,
            "where": next((s for s in lines if "weights: " in s), "")}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("model")
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--build", default="build")
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        os.environ["XDG_RUNTIME_DIR"] = tmp
        os.environ.pop("NOTIFY_SOCKET", None)
        socket = tmp + "/s.sock"
        fill = start(a.build, a.model, socket, "region")
        runs = []
        for _ in range(a.pairs):
            runs.append((start(a.build, a.model, socket, "anon"),
                         start(a.build, a.model, socket, "region")))
        subprocess.run([a.build + "/llmctl", "model", "unload", "--all"], check=False,
                       stderr=subprocess.DEVNULL)
    if a.json:
        json.dump({"fill": fill, "pairs": runs}, sys.stdout, indent=1)
        return
    print(fill["where"])
    print(f"loading into the region: first token after {fill['first']:.2f} s")
    for i, name in enumerate(("anon", "region")):
        v = [r[i] for r in runs]
        first = [x["first"] for x in v]
        print(f"{name:7} first token {statistics.median(first):.2f} s "
              f"({min(first):.2f} to {max(first):.2f}), serving after "
              f"{statistics.median(x['serving'] for x in v):.2f} s, read {v[-1]['read'] / 1e6:.2f} MB, "
              f"{v[-1]['faults']} faults")
    ratios = [r[0]["first"] / r[1]["first"] for r in runs]
    print(f"ratio {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})")


main()
