#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""llmctl chat on a terminal: editing, history, Ctrl-C, Ctrl-D.
usage: terminal.py LLMCTL SOCKET [more arguments of chat]; prints one line a step, exits 1 at the
first that does not come. Called by chat.sh with a daemon that is paced."""
import os
import pty
import select
import sys
import time



def start():
    pid, fd = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execv(sys.argv[1], [sys.argv[1], "chat", *sys.argv[2:]])
    return pid, fd


def finish(step):
    """Reads until the terminal is closed; the program must have ended well."""
    end = time.monotonic() + 20
    try:
        while select.select([fd], [], [], max(0, end - time.monotonic()))[0] and os.read(fd, 4096):
            pass
    except OSError:
        end = 0
    if end:
        os.kill(pid, 9)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print("%s: exit status %d" % (step, status))
    if status:
        sys.exit(1)


pid, fd = start()
seen = b""


def expect(what, step, seconds=20):
    """Reads until `what` shows up after what was seen before."""
    global seen
    end = time.monotonic() + seconds
    while what not in seen:
        if time.monotonic() > end or not select.select([fd], [], [], end - time.monotonic())[0]:
            print("no %r: %s; the terminal shows %r" % (what, step, seen[-300:]))
            os.kill(pid, 9)
            sys.exit(1)
        try:
            seen += os.read(fd, 4096)
        except OSError:
            if what not in seen:
                print("ended before %r: %s: %r" % (what, step, seen[-300:]))
                sys.exit(1)
    seen = seen[seen.index(what) + len(what):]
    print(step)


def type_(b):
    os.write(fd, b)


expect(b"> ", "a prompt")
type_(b"Why is the sky blue?\n")
expect(b"blue?\r\n", "the question is echoed")
# A word of the answer, not of the question: that may be echoed twice.
expect(b"scatters", "an answer begins")
type_(b"\x03")
expect(b"cancelled", "Ctrl-C cancels it")
expect(b"> ", "and there is a prompt again")
type_(b"nonsense\x03")
expect(b"> ", "Ctrl-C while typing: a new line")
type_(b"hellp\x7fo\n")
expect(b"generated", "a line that was corrected is answered")
expect(b"> ", "a prompt")
type_(b"\x1b[A")
expect(b"hello", "the history gives it back")
type_(b"\n")
expect(b"generated", "and it is answered")
expect(b"> ", "a prompt")
type_(b"\x04")
finish("Ctrl-D ends it")
pid, fd = start()
type_(b"\x04")
finish("also one typed before the prompt")
