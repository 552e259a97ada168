#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the kernel module costs beside a Unix socket that carries the same bytes, and its regions beside
anonymous memory, in virtual machines.

usage: tests/bench/vm_device.py [--kernel 6.1] [--only PART,...] [--json FILE]

Parts, each a boot of its own (tests/vm/run), medians:
  counted   submit-to-delivery and post-to-read between two processes on one CPU, in instructions
            (QEMU -icount: nothing else on the host disturbs them); what the first request of a file
            costs
  timed     the same in time, on one CPU and on two
  traced    a whole request, both sides, in instructions: tracepoints off, on, and a module that has
            no tracepoint calls at all (built for this in a copy)
  streams   64 files that get 100 tokens a second each from llmdevd, a model that costs next to
            nothing: CPU time of the whole machine for a token, over the device and over the socket
  regions   a file read by O_DIRECT and by io_uring into fixed buffers: speed into a region by that into
            anonymous memory in huge pages (and in small ones), in instructions of the process and in
            time, on a virtual disk

Environment: LLMDEV_BUILD (build), with llmdevd and llmctl in it; CC. Prints a table, or with --json
writes every figure. Exit status 1 if a goal is missed.
"""
import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.path.realpath(os.path.join(ROOT, os.environ.get("LLMDEV_BUILD", "build")))
WORK = os.path.join(BUILD, "bench-vm")
RATIO = 1.5  # goal of counted and timed
MORE_CPU = 1.05  # goal of streams
READ_RATIO = 0.95  # goal of regions
FILES, PACE, ROUNDS, SECONDS = 64, 100, 2, 1


def fail(why):
    sys.exit("vm_device.py: " + why)


def compile_static(name):
    out = os.path.join(WORK, name)
    subprocess.run([os.environ.get("CC", "gcc"), "-static", "-O2", "-D_GNU_SOURCE", "-pthread", "-Iuapi", "-I.",
                    "-Iruntime", "-o", out, "tests/bench/%s.c" % name], cwd=ROOT, check=True)
    return out


def boot(args, script, files, tree=ROOT, option=(), seconds=None):
    """Figures that the guest's script printed."""
    path = os.path.join(WORK, "measure.sh")
    with open(path, "w") as f:
        f.write("#!/bin/sh\nset -e\n" + script)
    command = ["tests/vm/run", "-k", args.kernel, "-s", str(seconds or args.seconds), *option]
    for source, dest in files:
        command += ["-f", "%s:%s" % (source, dest)]
    run = subprocess.run(command + [path], cwd=tree, stdout=subprocess.PIPE, text=True,
                         env={"LLMDEV_VM_CACHE": os.path.join(BUILD, "vm"), **os.environ,
                              "LLMDEV_BUILD": BUILD if tree == ROOT else os.path.join(tree, "build")})
    figures = [json.loads(m) for m in re.findall(r"^# (\{.*\})$", run.stdout, re.M)]
    if run.returncode or not figures:
        fail("the machine did not come to its end:\n" + run.stdout)
    return figures


def print_latency(title, figures):
    print(title)
    good = True
    for f in figures:
        # Where a host has other work, a quarter of the samples is that.
        noisy = any(f[side + "_p75"] > 3 * f[side + "_p25"] for side in ("device", "socket"))
        missed = f["ratio"] > RATIO
        good &= noisy or not missed
        print("  %-18s %4d bytes, %-8s %d CPU: device %9.0f, socket %9.0f: %.2f%s" % (
            f["figure"], f["payload"], f["style"], f["cpus"], f["device"], f["socket"], f["ratio"],
            "  (a busy host: counts for nothing)" if noisy else "  MISSED (%.1f)" % RATIO if missed else ""))
    return good


def untraced_tree():
    """A copy whose tracepoint calls are nothing."""
    tree = os.path.join(WORK, "untraced")
    shutil.rmtree(os.path.join(tree, "kmod"), ignore_errors=True)
    for d in ("kmod", "uapi", "tests/vm"):
        shutil.copytree(os.path.join(ROOT, d), os.path.join(tree, d), dirs_exist_ok=True)
    shutil.copy(os.path.join(ROOT, "Kbuild"), tree)
    kmod = os.path.join(tree, "kmod")
    for name in os.listdir(kmod):
        if not name.endswith(".c"):
            continue
        with open(os.path.join(kmod, name)) as f:
            text = f.read()
        # Arguments stay used, so that nothing is warned of; the call is never made.
        text = re.sub(r"\btrace_llm_request_\w+_enabled\(\)", "false", text)
        text = re.sub(r"\btrace_llm_request_\w+\(", "TRACED_AWAY(", text)
        with open(os.path.join(kmod, name), "w") as f:
            f.write(text)
    with open(os.path.join(kmod, "core.h"), "a") as f:
        f.write("\nvoid llm_traced_away(int, ...);\n"
                "#define TRACED_AWAY(...) do { if (0) llm_traced_away(0, __VA_ARGS__); } while (0)\n")
    return tree


def traced(args, program):
    cycles = "vm_device cycle 200\n"
    events = "/sys/kernel/tracing/events/llm/enable"
    with_calls = boot(args, cycles + "echo 1 >%s\nvm_device cycle 200\n>/sys/kernel/tracing/trace\n"
                      "vm_device cycle 1 >/dev/null\necho 0 >%s\n"
                      "echo \"{\\\"passed\\\":$(grep -c llm_request_ /sys/kernel/tracing/trace)}\"\n" %
                      (events, events), [(program, "/bin/vm_device")], option=["-c"])
    without = boot(args, cycles, [(program, "/bin/vm_device")], untraced_tree(), ["-c"])
    # The least of many: allocators now and then have more to do, which is not ours.
    off, on, passed, none = with_calls[0]["least"], with_calls[1]["least"], with_calls[2]["passed"], without[0]["least"]
    print("tracepoints, instructions of a request of %d tokens, both sides" % with_calls[0]["tokens"])
    print("  no calls %d, off %d: %+d for %d tracepoints passed; on %d: %+d" % (
        none, off, off - none, passed, on, on - off))
    return {"none": none, "off": off, "on": on, "passed": passed, "all": with_calls + without}


def tiny_model():
    """One layer of 32 and a vocabulary of single bytes: what is left is everything but the model."""
    demo, out = os.path.join(ROOT, "tools/demo/model"), os.path.join(WORK, "model")
    shutil.rmtree(out, ignore_errors=True)
    with open(os.path.join(demo, "tokenizer.json")) as f:
        tokenizer = json.load(f)
    bytes_only = {k: v for k, v in tokenizer["model"]["vocab"].items() if v < 256}
    tokenizer["model"].update(vocab=bytes_only, merges=[])
    for i, token in enumerate(tokenizer["added_tokens"]):
        token["id"] = 256 + i
    vocab = 256 + len(tokenizer["added_tokens"])
    with open(out + ".json", "w") as f:
        json.dump({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 32, "head_dim": 32,
                   "num_attention_heads": 1, "num_key_value_heads": 1, "intermediate_size": 32,
                   "num_hidden_layers": 1, "hidden_act": "silu", "torch_dtype": "bfloat16", "rms_norm_eps": 1e-6,
                   "rope_theta": 10000.0, "tie_word_embeddings": False, "max_position_embeddings": 32768,
                   "vocab_size": vocab, "eos_token_id": vocab - 1}, f)
    subprocess.run([os.path.join(BUILD, "llmctl"), "synth", out + ".json", out, "--format", "bf16"], check=True,
                   stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    with open(os.path.join(out, "tokenizer.json"), "w") as f:
        json.dump(tokenizer, f)
    return out


def streams(args):
    conf = os.path.join(WORK, "streams.conf")
    with open(conf, "w") as f:
        f.write("%d %d %d %d\n" % (FILES, PACE, ROUNDS, SECONDS))
    figures = boot(args, "exec sh /streams.sh\n",
                   [(os.path.join(BUILD, "llmdevd"), "/bin/llmdevd"), (compile_static("vm_streams"), "/bin/vm_streams"),
                    (tiny_model(), "/model"), (conf, "/streams.conf"),
                    (os.path.join(ROOT, "tests/bench/vm_streams.sh"), "/streams.sh")],
                   option=["-c", "-m", "1024"])
    out = {}
    for name, device in (("device", True), ("socket", False)):
        of = [f for f in figures if f["place"].startswith("/dev/") == device]
        out[name] = {k: statistics.median(f[k] / f["tokens"] for f in of) for k in ("all", "daemon", "clients")}
        out[name]["tokens_per_second"] = statistics.median(f["tokens"] * 1e9 / f["ns"] for f in of)
    out["ratio"] = out["device"]["all"] / out["socket"]["all"]
    out["all"] = figures
    print("%d streams, instructions for a token (whole machine, of that the daemon, the clients)" % FILES)
    for name in ("device", "socket"):
        o = out[name]
        print("  %s: %.0f (%.0f, %.0f) at %.0f tokens a second" % (
            name, o["all"], o["daemon"], o["clients"], o["tokens_per_second"]))
    print("  device / socket: %.3f%s" % (out["ratio"], "" if out["ratio"] < MORE_CPU else "  MISSED"))
    return out


def regions(args):
    """All figures; False: a goal is missed."""
    disk, figures, good = ": <<'RUN'\n// disk: 64\nRUN\n", [], True
    program = [(compile_static("vm_region"), "/bin/vm_region")]
    # Where instructions are the clock, hours pass while the machine waits for its disk. A machine of
    # less than 512 MiB has no huge pages for anonymous memory.
    figures += boot(args, disk + "vm_region run 12\n", program, option=["-c", "-m", "1024"],
                    seconds=1000 * args.seconds)
    figures += boot(args, disk + "vm_region time 60\n", program, option=["-m", "1024"])
    print("reading 16 MiB past the page cache into %d MiB of huge pages of a region" % (figures[0]["huge_bytes"] >> 20))
    for f in figures:
        if f["figure"] == "memory":
            continue
        # Where a host has other work, a quarter of the samples is that.
        noisy = any(f[m + "_p75"] > 1.25 * f[m + "_p25"] for m in ("region", "anonymous"))
        missed = f["ratio"] < READ_RATIO
        good &= noisy or not missed
        print("  %-10s region %9d, anonymous %9d (small pages %9d) %s: %.3f of the speed%s" % (
            f["figure"], f["region"], f["anonymous"], f["small"], f["unit"], f["ratio"],
            "  (a busy host: counts for nothing)" if noisy else "  MISSED (%.2f)" % READ_RATIO if missed else ""))
    return figures, good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", default="6.1")
    parser.add_argument("--only", default="counted,timed,traced,streams,regions", metavar="PART,...")
    parser.add_argument("--seconds", type=int, default=600, help="that a machine may take")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    parts = args.only.split(",")
    os.makedirs(WORK, exist_ok=True)
    program = compile_static("vm_device")
    files = [(program, "/bin/vm_device")]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    out, good = {"bench": "vm_device", "kernel": args.kernel, "commit": commit.stdout.strip()}, True
    if "counted" in parts:
        out["counted"] = boot(args, "vm_device latency 10\nvm_device first 40\n", files, option=["-c"])
        out["first"] = out["counted"].pop()
        good &= print_latency("instructions, one CPU", out["counted"])
        print("  from open() or connect() until the first request was read: device %.0f, socket %.0f: %.2f" % (
            out["first"]["device"], out["first"]["socket"], out["first"]["ratio"]))
    if "timed" in parts:
        out["timed"] = boot(args, "vm_device latency 15\n", files)
        good &= print_latency("ticks of the time stamp counter", out["timed"])
    if "traced" in parts:
        out["traced"] = traced(args, program)
        good &= out["traced"]["off"] - out["traced"]["none"] <= 2 * out["traced"]["passed"]
    if "streams" in parts:
        out["streams"] = streams(args)
        good &= out["streams"]["ratio"] < MORE_CPU
    if "regions" in parts:
        out["regions"], met = regions(args)
        good &= met
    if args.json:
        with open(args.json, "w") as f:
            json.dump(out, f, indent=1)
            f.write("\n")
    sys.exit(0 if good else 1)


main()
