# SPDX-License-Identifier: MIT
"""llmdev-keeper under a service manager, which is played here: what it holds is stored with the manager
(FDSTORE=1), and the next keeper gets it back. TAP.

usage: keeper.py BUILD MODEL FOLDER
"""
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time

BUILD, MODEL, FOLDER = sys.argv[1:]
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
n = failed = 0


def check(good, what):
    global n, failed
    n += 1
    failed += not good
    print(("ok" if good else "not ok"), n, "-", what, flush=True)


class Manager:
    """Starts keepers, stores what they send, as systemd does: by name, until it is told to let go."""

    def __init__(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(FOLDER + "/notify")
        self.sock.settimeout(30)
        self.stored, self.pid = {}, 0

    def hear(self):
        """One message."""
        data, fds, _, _ = socket.recv_fds(self.sock, 4096, 4)
        word = dict(s.split("=", 1) for s in data.decode().split("\n"))
        if word.get("FDSTORE") == "1":
            self.stored[word["FDNAME"]] = fds[0]
        elif word.get("FDSTOREREMOVE") == "1":
            os.close(self.stored.pop(word["FDNAME"]))
        return word

    def start(self, stored, wrong_pid=False):
        self.pid = os.fork()
        if not self.pid:
            high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in stored.values()]
            for i, fd in enumerate(high):
                os.dup2(fd, 3 + i)
            env = {**os.environ, "NOTIFY_SOCKET": FOLDER + "/notify", "LISTEN_FDS": str(len(stored)),
                   "LISTEN_PID": str(os.getpid() + wrong_pid), "LISTEN_FDNAMES": ":".join(stored)}
            os.closerange(3 + len(stored), 1000)
            os.execve(BUILD + "/llmdev-keeper", ["llmdev-keeper", "--stay"], env)
        path = FOLDER + "/llmdev/keeper.sock"
        for _ in range(600):
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
                    s.connect(path)
                return
            except OSError:
                time.sleep(0.05)
        sys.exit("# llmdev-keeper does not listen")

    def end(self, how):
        os.kill(self.pid, how)
        os.waitpid(self.pid, 0)


def llmctl(*args):
    return subprocess.run([BUILD + "/llmctl", *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False)


def regions():
    out = subprocess.run([BUILD + "/llmctl", "region", "list", "--json"], stdout=subprocess.PIPE, check=True)
    return [r["name"] for r in json.loads(out.stdout)]


def main():
    manager = Manager()
    manager.start({})
    check(llmctl("model", "load", MODEL, "--threads", "1").returncode == 0, "weights are kept")
    names = regions()
    word = manager.hear()
    check(len(names) == 1 and word.get("FDNAME") == names[0].replace(":", "/"), "stored by their name: %s" % word)
    fd = next(iter(manager.stored.values()), -1)
    check(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS, "what is stored is the sealed memfd")
    for how in (signal.SIGKILL, signal.SIGTERM):
        manager.end(how)
        manager.start(manager.stored)
        check(regions() == names, "%s of the keeper: the next one has them" % how.name)
        check(llmctl("region", "info", names[0], "--verify").returncode == 0, "their sum is right")
        again = llmctl("model", "load", MODEL, "--threads", "1")
        check(again.returncode == 0 and regions() == names and "loading into" not in again.stdout, "nothing is read")
    check(llmctl("model", "unload", "--all").returncode == 0 and "FDSTOREREMOVE" in manager.hear() and
          not manager.stored, "unloaded: the manager lets go of them, too")
    manager.end(signal.SIGKILL)

    open_memfd, null = os.memfd_create("x", os.MFD_ALLOW_SEALING), os.open("/dev/null", os.O_RDONLY)
    sealed = os.memfd_create("y", os.MFD_ALLOW_SEALING)
    os.truncate(sealed, 4096)
    fcntl.fcntl(sealed, fcntl.F_ADD_SEALS, SEALS)
    manager.stored = {"open": open_memfd, "null": null, "": sealed, "x" * 200: sealed, "not allowed": sealed,
                      "good": sealed}
    manager.start(manager.stored)
    check(regions() == ["good"], "what is not sealed, or has no name, is not taken")
    fds = len(os.listdir("/proc/%d/fd" % manager.pid))
    manager.end(signal.SIGKILL)
    manager.start({})
    check(fds == len(os.listdir("/proc/%d/fd" % manager.pid)) + 1, "but closed")
    manager.end(signal.SIGKILL)
    manager.start({"good": sealed}, wrong_pid=True)
    check(regions() == [], "nor what is another process's")
    manager.end(signal.SIGTERM)
    print("1..%d" % n)
    sys.exit(failed > 0)


main()
