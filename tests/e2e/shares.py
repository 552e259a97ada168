#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Two keys whose shares are 1:3 keep the gateway saturated: their throughput is 1:3, however many
requests each has; and where there is place for all, who may have three times as many at once gets
three times as much. Counted in tokens, not in time: how fast the machine is does not matter. Called
by shares.sh; prints TAP.

Tolerance: shares become whole priorities, a step being worth a quarter: 3 becomes -5, which is
3.05. The engine's grants of some hundred tokens, in a window of WINDOW, and what waits in sockets at
its ends leave some percent beside that."""
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from gateway_lib import *  # noqa: E402,F403

WINDOW = 8000  # tokens of both keys together
TOKENS = 48  # of one answer

begin()
keys = os.path.join(tmp, "keys")


class Crowd:
    """Clients of one key, each with one stream after the other; counts tokens as they arrive."""

    def __init__(self, gw, key, clients):
        self.tokens = self.answers = 0
        self.wrong = []
        self.enough = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(gw, key, i), daemon=True)
                        for i in range(clients)]
        for t in self.threads:
            t.start()

    def run(self, gw, key, number):
        while not self.enough.is_set():
            # Prompts of their own: nothing of one is found computed by another.
            st = gw.chat_stream("%s %d %d" % (key, number, self.answers), max_tokens=TOKENS,
                                ignore_eos=True, headers={"Authorization": "Bearer " + key})
            if st.status == 429:  # the last answer's end has not been noticed yet
                st.close()
                continue
            if st.status != 200:
                self.wrong.append(st.r.read())
                return
            while not self.enough.is_set() and not st.done:
                e = st.event()
                if e is None:
                    break
                # A chunk is a token, nearly: some tokens have no text of their own.
                if e.get("choices") and e["choices"][0]["delta"].get("content"):
                    self.tokens += 1
            self.answers += st.done
            st.close()

    def stop(self):
        self.enough.set()
        for t in self.threads:
            t.join(PATIENCE)


def ratio(name, low_limits, high_limits, clients, daemon, lowest, highest):
    """Crowds of two keys; what each got in the same window of tokens."""
    with open(keys, "w") as f:
        f.write("sk-low principal=low %s\nsk-high principal=high %s\n" % (low_limits, high_limits))
    gw = Gateway("--model", "demo=" + daemon.path, "--api-key-file", keys)
    low, high = Crowd(gw, "sk-low", clients[0]), Crowd(gw, "sk-high", clients[1])
    # Not before both are saturated, which the first answers of each prove.
    ok = wait_for(lambda: low.answers >= clients[0] and high.answers >= clients[1])
    start = low.tokens, high.tokens
    ok = ok and wait_for(lambda: low.tokens + high.tokens - sum(start) >= WINDOW)
    got = low.tokens - start[0], high.tokens - start[1]
    low.stop()
    high.stop()
    r = got[1] / max(1, got[0])
    print("# %s: %d and %d tokens, 1:%.2f" % (name, *got, r))
    check(ok and not low.wrong and not high.wrong, name + ": all answers were given",
          (low.wrong + high.wrong)[:2])
    check(lowest <= r <= highest, "%s: throughput 1:%.2f (%g to %g)" % (name, r, lowest, highest))
    return gw


# Two places for twelve clients: who gets one is the engine's decision.
daemon = Daemon("llm0", "--batch", "2")
ratio("shares 1:3", "share=1", "share=3", (6, 6), daemon, 2.6, 3.5)
ratio("equal shares, three times as many requests", "", "", (4, 12), daemon, 0.75, 1.33)
daemon.stop()

# Places for all: who may have three times as many answers at once gets three times as much.
daemon = Daemon("llm0", "--batch", "8")
gw = ratio("concurrent 1:3", "concurrent=2", "concurrent=6", (2, 6), daemon, 2.6, 3.5)
streams = [gw.chat_stream("more", max_tokens=1500, ignore_eos=True,
                          headers={"Authorization": "Bearer sk-low"}) for _ in range(3)]
check([st.status for st in streams] == [200, 200, 429], "... and the one more is told to wait",
      [st.status for st in streams])
daemon.stop(signal.SIGKILL)
finish()
