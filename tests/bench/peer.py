# SPDX-License-Identifier: MIT
"""What the comparisons with llama.cpp share: their common arguments, and what machine it was."""
import os
import platform
import re
import subprocess
import sys


def add_arguments(ap):
    ap.add_argument("--dir", required=True)
    ap.add_argument("--peer-root", default="")
    ap.add_argument("--build", default="build")
    ap.add_argument("--pairs", type=int, default=5)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--json", default="")
    ap.add_argument("--priority", action="store_true", help="run everything at the highest nice "
                    "priority (root): for machines that are not idle")


def settle(args, program):
    """Makes paths absolute, checks them, and takes the priority that was asked for."""
    args.llmctl = os.path.join(args.build, "llmctl")
    args.peer_root = os.path.abspath(args.peer_root) if args.peer_root else ""
    args.dir = os.path.abspath(args.dir)
    if args.peer_root and not args.dir.startswith(args.peer_root + "/"):
        sys.exit("%s: --dir must lie below --peer-root" % program)
    if args.priority:
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        if os.path.exists("/proc/self/autogroup"):  # nice counts only within one
            with open("/proc/self/autogroup", "w") as f:
                f.write("-20")


def prefix(args):
    """What a command of the peer's begins with."""
    return ["chroot", args.peer_root] if args.peer_root else []


def machine(args, peer):
    def first(pattern, path):
        try:
            m = re.search(pattern, open(path).read())
        except OSError:
            m = None
        return m.group(1).strip() if m else "unknown"

    git = lambda *a: subprocess.run(["git", *a], capture_output=True, text=True).stdout.strip()
    return {
        "cpu": first(r"model name\s*:\s*(.*)", "/proc/cpuinfo"), "cpus": os.cpu_count(),
        "memory_kb": int(first(r"MemTotal:\s*(\d+)", "/proc/meminfo")),
        "kernel": platform.release(), "arch": platform.machine(),
        "commit": git("rev-parse", "--short", "HEAD"),
        "modified": bool(git("status", "--porcelain", "--untracked-files=no")),
        "peer": peer, "load_average_before": os.getloadavg(), "priority": args.priority,
    }
