#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What an answer is made of: reasoning, tool calls, content held to a schema. Each answer is also
continued after every single event of it, as by a client whose daemon was killed there: what comes
must be exactly the rest. At last a daemon is killed for real, in the middle of a call.
usage: pieces.py BUILD MODEL; prints TAP. Called by pieces.sh."""
import json
import os
import struct
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import llmsock as ls  # noqa: E402
import daemon_lib as dl  # noqa: E402
from daemon_lib import build, check, model, path, tmp  # noqa: E402


# The built-in model's own, and a block of thinking that is open unless it is switched off.
TEMPLATE = json.load(open(os.path.join(model, "tokenizer_config.json")))["chat_template"] + (
    "{% if add_generation_prompt and (enable_thinking is not defined or enable_thinking) %}"
    "{{ '<think>\n' }}{% endif %}")
TOOLS = [{"type": "function", "function": {
    "name": name, "description": "Looks something up.", "parameters": {
        "type": "object", "properties": {
            "unit": {"enum": ["celsius", "fahrenheit"]}, "days": {"type": "integer", "minimum": 1,
                                                                  "maximum": 14},
            "where": {"type": "string", "maxLength": 20}},
        "required": ["unit", "days", "where"], "additionalProperties": False}}}
    for name in ("weather", "tides")]
SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 30},
                                           "size": {"type": "integer", "minimum": 0,
                                                    "maximum": 5000},
                                           "tags": {"type": "array", "maxItems": 3,
                                                    "items": {"enum": ["a", "b", "\u00e9"]}}},
          "required": ["name", "size", "tags"], "additionalProperties": False}
SKY = [{"role": "user", "content": "Why is the sky blue?"}]


def start(*options, model=model):
    with open(os.path.join(tmp.name, "template"), "w") as f:
        f.write(TEMPLATE)
    return dl.Daemon("--chat-template", f.name, "--reasoning-parser", "think", *options, model=model)


def ask(request, reasoning=True, **fields):
    c = ls.Client(path)
    c.send(ls.submit(1, json.dumps(request).encode(), reasoning=reasoning, **fields))
    got = c.answer(1)
    c.close()
    return [e for e in got if e.kind != ls.PROGRESS]


def what(e):
    """All of an event that does not depend on when and by whom it was posted."""
    if e.kind == ls.DONE:
        return (e.kind, e.finish, e.text, e.completion_tokens)
    if e.kind == ls.ERROR:
        return (e.kind, e.error, e.text)
    return (e.kind, getattr(e, "subtype", 0), getattr(e, "flags", 0), e.ids, e.text)


def counted(e):
    return e.kind == ls.TEXT or e.kind == ls.DATA and e.subtype < ls.ASIDE


def kind(e, subtype):
    return e.kind == ls.DATA and e.subtype == subtype


def joined(events, subtype):
    """The pieces of a subtype, those in parts put together."""
    out, part = [], b""
    for e in events:
        if kind(e, subtype):
            part += e.text
            if not e.flags & ls.MORE:
                out.append(part)
                part = b""
    return out


def continues(name, request, reasoning=True):
    """The answer, after it was continued behind each of its events."""
    whole = ask(request, reasoning)
    if whole[-1].kind != ls.DONE:
        check(False, "%s: %s" % (name, whole[-1].text.decode()))
        return whole
    bad = None
    for at in range(len(whole) - 1):
        had = whole[:at + 1]
        got = ask(request, reasoning, flags=ls.F_REPLAY, resume=whole[0].payload, ids=ls.ids(had),
                  seq=had[-1].seq + 1, posted_bytes=sum(len(e.text) for e in had if counted(e)))
        want = [what(e) for e in whole[at + 1:]]
        # What was told of the next token before its id is told once more.
        while kind(whole[at], ls.LOGPROBS) and got and kind(got[0], ls.LOGPROBS):
            got = got[1:]
        if [what(e) for e in got] != want and bad is None:
            bad = at
            print("# after event %d: %s\n# want %s" % (at, [what(e) for e in got][:4], want[:4]))
    check(bad is None, "%s: goes on after each of its %d events" % (name, len(whole) - 1))
    return whole


daemon = start()

# ---- thinking ---------------------------------------------------------------------------------------

THINKS = {"messages": SKY, "max_tokens": 60, "thinking_budget": 12, "temperature": 0}
a = continues("an answer after thinking", THINKS)
thought = b"".join(e.text for e in a if kind(e, ls.REASONING))
check(thought and b"think" not in thought + ls.text(a) and ls.text(a).strip(),
      "reasoning and content are told apart: %s %s" % (thought, ls.text(a)))
check(sum(len(e.ids) for e in a if kind(e, ls.REASONING)) < 30, "... after the budget")
b = continues("the same, thinking hidden", THINKS, reasoning=False)
check(ls.text(b) == ls.text(a) and ls.ids(b) == ls.ids(a) and
      not any(e.text for e in b if kind(e, ls.REASONING)), "... its bytes are not posted")
a = ask({**THINKS, "chat_template_kwargs": {"enable_thinking": False}})
check(ls.text(a).startswith(b"Air scatters") and not any(kind(e, ls.REASONING) for e in a),
      "thinking off: the answer at once")
check(ls.text(ask({**THINKS, "reasoning_effort": "none"})) == ls.text(a), "reasoning_effort none: too")

# ---- tools ------------------------------------------------------------------------------------------

CALLS = {"messages": SKY, "tools": TOOLS, "tool_choice": "required", "thinking_budget": 6,
         "max_tokens": 400, "temperature": 1, "seed": 5}
a = continues("calls that are required", CALLS)
calls = [json.loads(t) for t in joined(a, ls.TOOL_CALL)]
check(len(calls) >= 1 and all(c["index"] == i for i, c in enumerate(calls)) and
      all(c["function"]["name"] in ("weather", "tides") and len(c["id"]) == 9 and
          set(json.loads(c["function"]["arguments"])) == {"unit", "days", "where"}
          for c in calls), "... are calls by their schema (%d)" % len(calls))
a = continues("one call of a named function", {**CALLS, "tool_choice": {
    "type": "function", "function": {"name": "tides"}}})
check([json.loads(t)["function"]["name"] for t in joined(a, ls.TOOL_CALL)] == ["tides"],
      "... and no other")
a = ask({**CALLS, "parallel_tool_calls": False})
check(len(joined(a, ls.TOOL_CALL)) == 1 and a[-1].finish == ls.STOP, "one call where one is asked for")
check(ls.text(ask({**THINKS, "tools": TOOLS, "tool_choice": "none"})) == ls.text(ask(THINKS)),
      "tool_choice none: as without tools")
a = ask({"messages": SKY + [
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "tides", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "call_1", "content": "high"}],
    "tools": TOOLS, "max_tokens": 5, "thinking_budget": 0})
check(a[-1].kind == ls.DONE, "a loop of calls and results is taken")

NOT_JSON = {"messages": SKY, "tools": TOOLS, "max_tokens": 300, "structured_outputs": {
    "regex": r"ok <tool_call>[a-z]{20}</tool_call> on"}, "enable_thinking": False, "seed": 1,
    "temperature": 1}
a = continues("a call that is none", NOT_JSON)
check(len(joined(a, ls.MALFORMED)) == 1 and b"</tool_call> on" in ls.text(a),
      "... comes as content, with a word why")
# ---- content ----------------------------------------------------------------------------------------

a = continues("content by a schema, after thinking", {**CALLS, "tools": None, "tool_choice": None,
              "response_format": {"type": "json_schema", "json_schema": {
                  "name": "x", "schema": SCHEMA, "strict": True}}})
got = json.loads(ls.text(a))
check(set(got) == set(SCHEMA["properties"]) and 0 <= got["size"] <= 5000, "... fits it: %s" % got)
a = continues("log-probabilities", {"messages": SKY, "max_tokens": 12, "logprobs": True,
                                    "top_logprobs": 3, "thinking_budget": 3})
told = [json.loads(t) for t in joined(a, ls.LOGPROBS)]
check([t["index"] for t in told] == list(range(len(ls.ids(a)))) and
      all(len(t["top_logprobs"]) == 3 and t["logprob"] <= 0 for t in told), "... one for each id")
continues("stop strings", {**THINKS, "stop": ["light", "zz"], "enable_thinking": False})
continues("a completion", {"prompt": "The sky", "max_tokens": 30, "temperature": 1, "seed": 3})
continues("ids and their text", {"detokenize": {"tokens": list(range(300, 900)) * 30}})
big = {"tokenize": {"prompt": "one two three " * 9000}}
a = continues("ids of a long text", big)
tokens = json.loads(b"".join(joined(a, ls.JSON)))
check(tokens["count"] == len(tokens["tokens"]) > 20000 and len(joined(a, ls.JSON)) > 1,
      "... in %d parts" % len(joined(a, ls.JSON)))
back = ask({"detokenize": {"tokens": tokens["tokens"]}})
check(json.loads(b"".join(joined(back, ls.JSON)))["prompt"] == big["tokenize"]["prompt"],
      "... and back")
c = ls.Client(path)
c.send(ls.submit(1, json.dumps({"tokenize": {"prompt": "one two three " * 60000}}).encode()))
time.sleep(0.5)
a = c.answer(1)
c.close()
tokens = json.loads(b"".join(joined(a, ls.JSON)))
check(tokens["count"] == len(tokens["tokens"]) and sum(len(e.text) for e in a) > 512 << 10,
      "a result larger than what is held for a reader comes whole")
check(ask({"input": "x"})[-1].error == 95, "no vectors from this model: EOPNOTSUPP")

check(daemon.stop(), "the daemon ends in order")

# ---- vectors ----------------------------------------------------------------------------------------

daemon = start(model="tests/fixtures/embeddings/qwen3-last")
a = continues("a vector", {"input": [1, 2, 3]})
v = struct.unpack("64f", b"".join(e.text for e in a if e.kind == ls.DATA))
b = continues("a part of it", {"input": [[1, 2, 3]], "dimensions": 8})
w = struct.unpack("8f", b"".join(e.text for e in b if e.kind == ls.DATA))
norm = sum(x * x for x in v[:8]) ** 0.5
check(a[-1].prompt_tokens == 3 and abs(sum(x * x for x in v) - 1) < 1e-5 and
      all(abs(x / norm - y) < 1e-5 for x, y in zip(v, w)), "... is cut, and of length 1 again")
check(ask({"input": [1], "dimensions": 65})[-1].error == 22, "more than it has: EINVAL")
daemon.kill()

# ---- a kill in the middle of a call -----------------------------------------------------------------

LONG = {**CALLS, "seed": 11, "tools": [{"type": "function", "function": {
    "name": "write", "parameters": {"type": "object", "properties": {
        "text": {"type": "string", "minLength": 150, "maxLength": 200}}, "required": ["text"],
        "additionalProperties": False}}}]}
daemon = start()
want = subprocess.run([os.path.join(build, "llmctl"), "ask", "--quiet", "--socket", path, "--json",
                       json.dumps(LONG)], capture_output=True).stdout
daemon.kill()
daemon = start("--pace", "100")
client = subprocess.Popen([os.path.join(build, "llmctl"), "ask", "--socket", path, "--recovery",
                           "30", "--json", json.dumps(LONG)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
kills = 0
while client.poll() is None and kills < 4:
    time.sleep(0.35)
    if client.poll() is not None:
        break
    daemon.kill()
    kills += 1
    daemon = start("--pace", "100")
out, err = client.communicate(timeout=60)
check(out == want and want.startswith(b"[call write {"),
      "a call by a schema survives kill -9 (%d times)" % kills)
if out != want:
    print("# %s\n# %s\n# %s" % (want, out, err))
check(kills >= 1, "... which happened")

dl.finish()
