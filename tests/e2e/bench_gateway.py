#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""llmctl bench serve at a daemon's socket and through llmdev-gateway: the same requests, the same
counts, every figure that the one has the other has too. Called by bench_gateway.sh; prints TAP."""
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from gateway_lib import *  # noqa: E402,F403

begin()
llmctl = os.path.join(build, "llmctl")
if "without libcurl" in subprocess.run([llmctl, "bench", "serve", "--url", "http://127.0.0.1:9"],
                                       stderr=subprocess.PIPE, text=True).stderr:
    skip_all("llmctl is built without libcurl")
daemon = Daemon("llm0")
gw = Gateway("--model", "demo=" + daemon.path)


def bench(*target):
    p = subprocess.run([llmctl, "bench", "serve", *target, "--turns", "3", "--pp", "70", "--tg", "40",
                        "--concurrency", "4", "--runs", "8", "--json"], capture_output=True,
                       text=True, timeout=PATIENCE)
    check(p.returncode == 0, "it runs: " + target[0], p.stderr)
    return json.loads(p.stdout) if p.returncode == 0 else {}


a = bench("--socket", daemon.path)
b = bench("--url", "http://127.0.0.1:%d" % gw.port)
check(b["requests"] == a["requests"] and a["requests"]["ok"] == 24, "all answers, whole", b["requests"])
check(b["tokens"]["in"] == a["tokens"]["in"] and b["tokens"]["out"] == a["tokens"]["out"] == 24 * 40,
      "the same tokens", b["tokens"])
# The answer's ids are told, so the next turn is the conversation, and is found computed.
check(not b["answer_ids_unknown"] and b["tokens"]["cached"] == a["tokens"]["cached"] > 0,
      "the cached ones too", (a["tokens"], b["tokens"]))
check(b["target"]["fingerprint"] == a["target"]["fingerprint"] != "0" * 16 and
      b["target"]["context"] == a["target"]["context"] > 0, "the model and its context", b["target"])
figures = [k for k in a if k.endswith("_ms")]
check(len(figures) >= 4 and all(b[k]["n"] > 0 and b[k]["p50"] > 0 for k in figures), "every figure",
      {k: b.get(k) for k in figures})
finish()
