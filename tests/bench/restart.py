#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""From exec of llmdevd to the first token, with weights that are read and weights that are found.

usage: tests/bench/restart.py [MODEL...] [--dir DIR] [--pairs N] [--slow SECONDS] [--build DIR] [--json FILE]

Each pair: a daemon with --weights anon, then one with --weights region that finds what an earlier one
left, or the other way round; each is killed with -9 after its first token. In a region of the kernel
module where it is loaded, else of a keeper of the run's own.

  MODEL...        else two random mixtures of experts, of 0.92 and 4.26 GB, that are written to DIR
                  (build/bench-restart) and stay there
  --slow SECONDS  both daemons' reads are held to a rate at which reading the weights takes so long
                  (11; 0: as fast as the disk is), by a cgroup; where that may not be made, it is said
  --json FILE     every figure

The clock runs from before fork() until `llmctl ask -n 1`, which starts when the daemon says that it
serves, has ended. Bytes are those of /proc/PID/io at that moment, rchar and read_bytes together; huge is
what is mapped in 2 MiB pages then. Exit status 1: a median of the restarts is above a second, or one of
them has read more than a hundredth of the weights.
"""
import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
GOAL = 1.0  # seconds to the first token of what is found
LAYERS = (3, 14)


def fail(why):
    sys.exit("restart.py: " + why)


def weights_bytes(model):
    if os.path.isfile(model):
        return os.path.getsize(model)
    return sum(e.stat().st_size for e in os.scandir(model) if e.name.endswith(".safetensors"))


def make_model(build, folder, layers):
    """restart_shape.json with so many layers, and the tokenizer of the built-in model."""
    out = os.path.join(folder, f"moe-{layers}")
    if os.path.exists(os.path.join(out, "tokenizer.json")):
        return out
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(ROOT, "tests/bench/restart_shape.json"), encoding="utf-8") as f:
        shape = json.load(f) | {"num_hidden_layers": layers}
    with open(out + ".json", "w", encoding="utf-8") as f:
        json.dump(shape, f)
    subprocess.run([build + "/llmctl", "synth", out + ".json", out, "--pure"], check=True,
                   stderr=None if sys.stderr.isatty() else subprocess.DEVNULL)
    for name in ("generation_config.json", "tokenizer_config.json", "tokenizer.json"):
        shutil.copy(os.path.join(ROOT, "tools/demo/model", name), out)
    return out


def disk_of(path):
    """MAJOR:MINOR of the whole disk; KeyError, OSError: none."""
    dev = os.stat(path).st_dev
    at = os.path.realpath(f"/sys/dev/block/{os.major(dev)}:{os.minor(dev)}")
    if os.path.exists(at + "/partition"):
        at = os.path.dirname(at)
    with open(at + "/dev", encoding="ascii") as f:
        return f.read().strip()


@contextlib.contextmanager
def slow_disk(model, seconds):
    """The cgroup.procs of a cgroup that reads MODEL in so many seconds; None: not to be had."""
    rate = int(weights_bytes(model) / seconds) if seconds else 0
    group = None
    for top, name, line in (("/sys/fs/cgroup", "io.max", "%s rbps=%d"),
                            ("/sys/fs/cgroup/blkio", "blkio.throttle.read_bps_device", "%s %d")):
        path = f"{top}/llmdev-bench-{os.getpid()}"
        if not rate or group or not os.path.exists(top + "/cgroup.procs"):
            continue
        try:
            os.mkdir(path)
            with open(f"{path}/{name}", "w", encoding="ascii") as f:
                f.write(line % (disk_of(model), rate))
            group = path
        except OSError as e:
            print(f"restart.py: the disk is not slowed down: {e}", file=sys.stderr)
            if os.path.isdir(path):
                os.rmdir(path)
    try:
        yield group and group + "/cgroup.procs"
    finally:
        if group:
            os.rmdir(group)


def of_process(pid, name):
    with open(f"/proc/{pid}/{name}", encoding="ascii", errors="replace") as f:
        return f.read()


def start(build, model, socket, weights, procs=None):
    """One start, until its first token; the daemon is killed."""
    begin = time.monotonic()

    def enter():
        with open(procs, "w", encoding="ascii") as f:
            f.write("0")

    daemon = subprocess.Popen([build + "/llmdevd", model, "--socket", socket, "--weights", weights],
                              stderr=subprocess.PIPE, text=True, preexec_fn=enter if procs else None)
    lines, serving = [], None
    for line in daemon.stderr:
        lines.append(line.strip())
        if ": serving " in line:
            serving = time.monotonic() - begin
            break
    if serving is None:
        fail("llmdevd did not start:\n" + "\n".join(lines))
    subprocess.run([build + "/llmctl", "ask", "--quiet", "--socket", socket, "-n", "1", "hello"],
                   check=True, stdout=subprocess.DEVNULL)
    first = time.monotonic() - begin
    pid = daemon.pid
    read = sum(int(v) for v in re.findall(r"^(?:rchar|read_bytes): (\d+)", of_process(pid, "io"), re.M))
    stat = of_process(pid, "stat").rsplit(")", 1)[1].split()
    huge = sum(int(v) for v in re.findall(r"^(?:Anon|Shmem|File)\w*(?:HugePages|PmdMapped): +(\d+)",
                                          of_process(pid, "smaps"), re.M))
    daemon.kill()
    daemon.wait()
    return {"first": first, "serving": serving, "read": read, "faults": int(stat[7]), "huge": huge << 10,
            "cpu": (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK"),
            "found": any("nothing to read" in s for s in lines),
            "where": next((s.split("weights: ", 1)[1] for s in lines if "weights: " in s), "")}


def measure(a, model, socket):
    fill = start(a.build, model, socket, "region")
    runs = {"anon": [], "region": []}
    with slow_disk(model, a.slow) as procs:
        for pair in range(a.pairs):
            for weights in ("anon", "region") if pair % 2 == 0 else ("region", "anon"):
                if sys.stderr.isatty():
                    print(f"\r{pair + 1} of {a.pairs}: {weights:6} ", end="", file=sys.stderr, flush=True)
                runs[weights].append(start(a.build, model, socket, weights, procs))
        if sys.stderr.isatty():
            print("\r" + " " * 30, end="\r", file=sys.stderr)
        slow = bool(procs)
    subprocess.run([a.build + "/llmctl", "model", "unload", "--all"], check=False, stderr=subprocess.DEVNULL)
    if not all(r["found"] for r in runs["region"]):
        fail(model + ": a daemon did not find the weights that another had left")
    ratios = [x["first"] / y["first"] for x, y in zip(runs["anon"], runs["region"])]
    return {"model": os.path.basename(os.path.normpath(model)), "weights": weights_bytes(model), "slowed": slow,
            "fill": fill, "runs": runs, "ratio": statistics.median(ratios), "ratios": ratios,
            "median": {k: {f: statistics.median(r[f] for r in v)
                           for f in ("first", "serving", "read", "faults", "huge", "cpu")} for k, v in runs.items()}}


def show(m):
    """False: a goal is missed."""
    found = m["median"]["region"]
    good = found["first"] <= GOAL and all(100 * r["read"] <= m["weights"] for r in m["runs"]["region"])
    print(f"{m['model']}: {m['weights'] / 1e9:.2f} GB{', disk slowed down' if m['slowed'] else ''}")
    print(f"  loading {m['fill']['where'].removeprefix('loading ')}: first token after {m['fill']['first']:.2f} s")
    for weights, v in m["runs"].items():
        first = [r["first"] for r in v]
        d = m["median"][weights]
        print(f"  {'read' if weights == 'anon' else 'found':6} first token {d['first']:.2f} s ({min(first):.2f} to "
              f"{max(first):.2f}), serving after {d['serving']:.2f} s, {d['cpu']:.2f} s of CPU, read "
              f"{d['read'] / 1e6:.2f} MB, {d['faults']:.0f} faults, {d['huge'] / 1e6:.0f} MB in huge pages")
    print(f"  ratio {m['ratio']:.1f} ({min(m['ratios']):.1f} to {max(m['ratios']):.1f})"
          f"{'' if good else '  MISSED'}")
    return good


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", nargs="*")
    p.add_argument("--dir")
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--slow", type=float, default=11, metavar="SECONDS")
    p.add_argument("--build", default=os.environ.get("LLMDEV_BUILD", "build"))
    p.add_argument("--json", metavar="FILE")
    a = p.parse_args()
    os.environ.pop("NOTIFY_SOCKET", None)
    folder = a.dir or os.path.join(a.build, "bench-restart")
    models = a.model or [make_model(a.build, folder, n) for n in LAYERS]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, text=True,
                            check=False)
    out = {"bench": "restart", "commit": commit.stdout.strip(), "kernel": platform.release(),
           "cpus": os.cpu_count(), "load": [os.getloadavg()[0]], "models": []}
    good = True
    for model in models:
        with tempfile.TemporaryDirectory() as tmp:
            os.environ["XDG_RUNTIME_DIR"] = tmp
            out["models"].append(measure(a, model, tmp + "/s.sock"))
        out["load"].append(os.getloadavg()[0])
        good &= show(out["models"][-1])
    print("load of the machine " + ", ".join(f"{x:.1f}" for x in out["load"]))
    if a.json:
        with open(a.json, "w", encoding="utf-8") as f:
            json.dump(out, f, indent=1)
            f.write("\n")
    sys.exit(0 if good else 1)


main()
