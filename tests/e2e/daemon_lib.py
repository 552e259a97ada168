# SPDX-License-Identifier: MIT
"""For tests of llmdevd from outside: a daemon as a process, TAP. The program's arguments are BUILD and
MODEL."""
import atexit
import os
import signal
import subprocess
import sys
import tempfile
import time

import llmsock as ls

build, model = sys.argv[1:3]
tmp = tempfile.TemporaryDirectory()
path = os.path.join(tmp.name, "llm0.sock")
count = failed = 0


def check(ok, name):
    global count, failed
    count += 1
    failed += not ok
    print("%sok %d - %s" % ("" if ok else "not ", count, name), flush=True)
    return ok


def finish():
    print("1..%d" % count)
    sys.exit(failed > 0)


class Daemon:
    """llmdevd at `path`, ready when the constructor returns. preexec: run in the child first."""

    def __init__(self, *options, model=model, preexec=None):
        self.log = tempfile.TemporaryFile("a+", dir=tmp.name)
        self.p = subprocess.Popen([os.path.join(build, "llmdevd"), model, "--socket", path,
                                   "--threads", "1", *options], stderr=self.log, preexec_fn=preexec)
        atexit.register(self.p.kill)
        for _ in range(600):
            try:
                ls.Client(path).close()
                return
            except OSError:
                if self.p.poll() is not None:
                    break
                time.sleep(0.05)
        sys.exit("llmdevd did not start:\n" + self.said()[-500:])

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def kill(self):
        self.p.send_signal(signal.SIGKILL)
        self.p.wait()

    def stop(self):
        """True if it was still alive and ends as it should."""
        if self.p.poll() is not None:
            return False
        self.p.send_signal(signal.SIGTERM)
        return self.p.wait(60) == 0
