#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""llmdev-gateway: what it answers where all is well: models, chat, completions, streams, keys and
their limits, metrics. Called by gateway.sh; prints TAP."""
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from gateway_lib import *  # noqa: E402,F403

begin()
daemon = Daemon()
gw = Gateway("--model", "demo=%s,small,tiny" % daemon.path)

# ---- what is served
s, h, b = gw.get("/health")
check(s == 200 and b == {"status": "ok", "models": {"demo": "ok"}}, "/health", b)
s, h, b = gw.get("/v1/models")
check(s == 200 and [m["id"] for m in b["data"]] == ["demo", "small", "tiny"], "/v1/models", b)
check(b["data"][0]["object"] == "model" and b["data"][0]["max_model_len"] > 0, "a model's members")
check(gw.get("/v1/models/tiny")[2]["id"] == "tiny", "/v1/models/ID")
check(is_error(gw.get("/v1/models/nope"), 404, "model_not_found", "model"), "an unknown one: 404")
s, h, b = gw.call("HEAD", "/v1/models")
check(s == 200 and b == b"", "HEAD")

# ---- chat
s, h, whole = gw.chat(max_tokens=24, temperature=0)
c = whole["choices"][0]
check(s == 200 and whole["object"] == "chat.completion" and whole["id"].startswith("chatcmpl-") and
      whole["model"] == "demo", "chat: the reply's members", whole)
check(c["message"]["role"] == "assistant" and c["message"]["content"] and
      c["finish_reason"] == "length" and c["logprobs"] is None, "chat: its choice", c)
u = whole["usage"]
check(u["completion_tokens"] == 24 and u["total_tokens"] == u["prompt_tokens"] + 24 and
      "cached_tokens" in u["prompt_tokens_details"] and
      u["completion_tokens_details"] == {"reasoning_tokens": 0}, "chat: usage", u)
check(whole["system_fingerprint"].startswith("llmdev_"), "chat: system_fingerprint")
check(h["X-Request-Id"], "a request id")

st = gw.chat_stream(max_tokens=24, temperature=0)
events = st.all()
check(st.status == 200 and st.r.getheader("Content-Type").startswith("text/event-stream") and st.done,
      "stream: ends with [DONE]")
check(events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}, "stream: the role first")
check(text_of(events) == c["message"]["content"], "stream: the same text as without")
check([e["choices"][0]["finish_reason"] for e in events if e["choices"][0]["finish_reason"]] ==
      ["length"] and "usage" not in events[-1], "stream: one finish_reason, no usage unless asked")
check(len({e["id"] for e in events}) == 1 and {e["object"] for e in events} ==
      {"chat.completion.chunk"}, "stream: one id")
st = gw.chat_stream(max_tokens=5, stream_options={"include_usage": True})
events = st.all()
check(events[-1]["choices"] == [] and events[-1]["usage"]["completion_tokens"] == 5 and
      all(e["usage"] is None for e in events[:-1]), "stream: usage where asked for", events[-1])
s, _, b = gw.chat(max_tokens=400, temperature=0)
check(b["choices"][0]["finish_reason"] == "stop", "finish_reason stop")
_, _, b = gw.chat(max_tokens=24, temperature=0, model="tiny")
check(b["model"] == "tiny" and b["choices"][0]["message"]["content"] == c["message"]["content"],
      "an alias is another name of the same")
_, _, b = gw.chat(max_tokens=40, temperature=0, stop=["small"])
check(b["choices"][0]["message"]["content"].endswith("the ") and
      b["choices"][0]["finish_reason"] == "stop", "stop", b)

_, _, b = gw.chat(max_tokens=12, n=3, seed=7, temperature=1.5)
texts = [x["message"]["content"] for x in b["choices"]]
check([x["index"] for x in b["choices"]] == [0, 1, 2] and b["usage"]["completion_tokens"] <= 36 and
      b["usage"]["completion_tokens"] > 12, "n: choices and their sum", b)
again = gw.chat(max_tokens=12, n=3, seed=7, temperature=1.5)[2]
check([x["message"]["content"] for x in again["choices"]] == texts, "n, seed: the same again")
one = gw.chat(max_tokens=12, seed=8, temperature=1.5)[2]
check(one["choices"][0]["message"]["content"] == texts[1], "n, seed: choice i is seed + i")
st = gw.chat_stream(max_tokens=12, n=3, seed=7, temperature=1.5)
events = st.all()
check([text_of(events, i) for i in range(3)] == texts, "n: streamed")

# ---- log-probabilities
_, _, b = gw.chat(max_tokens=4, temperature=0, logprobs=True, top_logprobs=2)
content = b["choices"][0]["logprobs"]["content"]
check(len(content) == 4 and all(set(t) == {"token", "bytes", "logprob", "top_logprobs"} and
      len(t["top_logprobs"]) == 2 and t["logprob"] <= 0 for t in content) and
      "".join(t["token"] for t in content) == b["choices"][0]["message"]["content"],
      "chat: logprobs", content)
events = gw.chat_stream(max_tokens=4, temperature=0, logprobs=True, top_logprobs=2).all()
streamed = [t for e in events for t in (e["choices"][0]["logprobs"] or {"content": []})["content"]]
check(streamed == content, "chat: logprobs streamed", streamed)
_, _, b = gw.post("/v1/completions", {"prompt": "Hello", "max_tokens": 4, "logprobs": 3,
                                      "temperature": 0})
lp = b["choices"][0]["logprobs"]
check("".join(lp["tokens"]) == b["choices"][0]["text"] and len(lp["token_logprobs"]) == 4 and
      all(len(t) == 3 for t in lp["top_logprobs"]) and
      [b["choices"][0]["text"][o:].startswith(t) for o, t in zip(lp["text_offset"], lp["tokens"])] ==
      [True] * 4, "completion: logprobs", lp)

# ---- tools, schemas
tool = {"type": "function", "function": {"name": "get", "parameters": {
    "type": "object", "properties": {"b": {"enum": ["x", "y"]}}, "required": ["b"],
    "additionalProperties": False}}}
must = {"tools": [tool], "tool_choice": "required", "max_tokens": 200, "temperature": 0}
_, _, b = gw.chat(**must)
m = b["choices"][0]["message"]
check(b["choices"][0]["finish_reason"] == "tool_calls" and m["content"] is None and
      len(m["tool_calls"]) >= 1 and set(m["tool_calls"][0]) == {"id", "type", "function"} and
      json.loads(m["tool_calls"][0]["function"]["arguments"])["b"] in ("x", "y"), "tool calls", b)
events = gw.chat_stream(**must).all()
calls = [c for e in events for c in e["choices"][0]["delta"].get("tool_calls", [])]
check([c["index"] for c in calls] == list(range(len(calls))) and
      [c["function"] for c in calls] == [c["function"] for c in m["tool_calls"]] and
      events[-1]["choices"][0]["finish_reason"] == "tool_calls", "tool calls streamed", events[-3:])
schema = {"type": "json_schema", "json_schema": {"name": "s", "schema": {
    "type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"],
    "additionalProperties": False}}}
_, _, b = gw.chat(max_tokens=100, response_format=schema)
check(b["choices"][0]["finish_reason"] == "length" or
      list(json.loads(b["choices"][0]["message"]["content"])) == ["n"], "a JSON schema is kept to", b)
schema["json_schema"]["schema"]["properties"]["n"]["minimum"] = "x"
r = gw.chat(response_format=schema)
check(is_error(r, 400) and "properties/n/minimum" in r[2]["error"]["param"],
      "a schema that cannot be compiled: 400 with the place", r)

# ---- completions
s, _, b = gw.post("/v1/completions", {"prompt": "Hello", "max_tokens": 9, "temperature": 0})
check(s == 200 and b["object"] == "text_completion" and b["id"].startswith("cmpl-") and
      b["choices"][0]["text"] and b["usage"]["completion_tokens"] == 9, "completion", b)
text = b["choices"][0]["text"]
st = gw.stream("/v1/completions", {"prompt": "Hello", "max_tokens": 9, "temperature": 0})
check(text_of(st.all()) == text and st.done, "completion: streamed")
_, _, b = gw.post("/v1/completions", {"prompt": "Hello", "max_tokens": 9, "temperature": 0,
                                      "echo": True})
check(b["choices"][0]["text"] == "Hello" + text, "completion: echo", b)
_, _, b = gw.post("/v1/completions", {"prompt": ["Hello", "What"], "n": 2, "max_tokens": 9,
                                      "temperature": 0})
check(len(b["choices"]) == 4 and b["choices"][0]["text"] == b["choices"][1]["text"] == text and
      b["choices"][2]["text"] == b["choices"][3]["text"] != text, "completion: a list of prompts", b)
_, _, b = gw.post("/v1/completions", {"prompt": [[1, 2, 3], [4, 5]], "max_tokens": 2})
check(b["usage"]["prompt_tokens"] == 5, "completion: lists of ids", b)
check(gw.post("/v1/completions", {"prompt": [1, 2, 3], "max_tokens": 2})[0] == 200,
      "completion: one list of ids")

# ---- headers
_, h, _ = gw.chat(max_tokens=1, headers={"X-Request-Id": "abc-1", "traceparent":
                  "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
check(h["X-Request-Id"] == "abc-1" and h["traceparent"].startswith("00-0af7"), "ids come back")
_, h, _ = gw.chat(max_tokens=1, headers={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-zz-01"})
check(h["traceparent"] is None, "a bad traceparent is ignored")
c = gw.connect()
for i in range(3):
    c.request("POST", "/v1/completions", json.dumps({"prompt": "a", "max_tokens": 1}))
    r = c.getresponse()
    r.read()
check(r.status == 200, "one connection, several requests")
c.close()

# ---- metrics
check(wait_for(lambda: gw.metric("vllm:num_requests_running") == 0), "metrics: nothing runs")
before = gw.metric("vllm:generation_tokens_total", model_name="demo")
gw.chat(max_tokens=10)
check(gw.metric("vllm:generation_tokens_total", model_name="demo") == before + 10,
      "metrics: tokens are counted")
text = gw.get("/metrics")[2].decode()
names = set(re.findall(r"^# TYPE (\S+)", text, re.M))
check(all("vllm:" + n in names for n in (
    "num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "prompt_tokens_total",
    "generation_tokens_total", "time_to_first_token_seconds", "inter_token_latency_seconds",
    "e2e_request_latency_seconds", "request_success_total", "prefix_cache_hits_total",
    "prefix_cache_queries_total")), "metrics: vLLM's names", names)
lines = [x for x in text.splitlines() if not x.startswith("#")]
check(all(re.match(r'[a-zA-Z_:][\w:]*(\{([a-z_]+="([^"\\\n]|\\.)*",?)*\})? [0-9.e+-]+$', x)
          for x in lines), "metrics: every line is of the format")
buckets = [float(x.split()[-1]) for x in lines
           if x.startswith("vllm:time_to_first_token_seconds_bucket")]
check(buckets == sorted(buckets) and
      buckets[-1] == gw.metric("vllm:time_to_first_token_seconds_count"), "metrics: histograms add up")

# ---- keys
keys = os.path.join(tmp, "keys")
with open(keys, "w") as f:
    f.write("# people\nsk-alice principal=alice share=3\n"
            "sk-bob principal=bob concurrent=1\n\n"
            "sk-carl principal=carl requests-per-minute=2 # few\n"
            "sk-dora principal=dora tokens-per-minute=30\n")
kg = Gateway("--model", "demo=" + daemon.path, "--api-key-file", keys)


def bearer(key):
    return {"Authorization": "Bearer " + key}


check(is_error(kg.chat(), 401, "invalid_api_key"), "keys: none given: 401")
check(is_error(kg.chat(headers=bearer("sk-alic")), 401, "invalid_api_key"), "keys: a wrong one: 401")
check(is_error(kg.chat(headers=bearer("sk-alicee")), 401), "keys: a longer one: 401")
check(is_error(kg.chat(headers={"Authorization": "Basic sk-alice"}), 401), "keys: not as Bearer: 401")
check(kg.get("/health")[0] == 200 and kg.get("/v1/models")[0] == 401,
      "keys: /health needs none, /v1/models does")
check(kg.chat(max_tokens=1, headers=bearer("sk-alice"))[0] == 200, "keys: the right one")
st = kg.chat_stream("Tell me about you", headers=bearer("sk-bob"), max_tokens=1500, ignore_eos=True)
st.event()
r = kg.chat(max_tokens=1, headers=bearer("sk-bob"))
check(is_error(r, 429, "rate_limit_exceeded") and int(r[1]["Retry-After"]) >= 1,
      "keys: concurrent", r)
st.close()
check(wait_for(lambda: kg.chat(max_tokens=1, headers=bearer("sk-bob"))[0] == 200),
      "keys: concurrent: the next may when the first has gone")
r = [kg.chat(max_tokens=1, headers=bearer("sk-carl")) for _ in range(3)]
check([x[0] for x in r] == [200, 200, 429] and 1 <= int(r[2][1]["Retry-After"]) <= 60,
      "keys: requests per minute")
check(r[0][1]["x-ratelimit-limit-requests"] == "2" and
      r[0][1]["x-ratelimit-remaining-requests"] == "1" and
      r[0][1]["x-ratelimit-reset-requests"].endswith("s"), "keys: OpenAI's headers", r[0][1])
r = [kg.chat(max_tokens=40, headers=bearer("sk-dora")) for _ in range(2)]
check([x[0] for x in r] == [200, 429], "keys: tokens per minute", r)
with open(keys, "w") as f:
    f.write("sk-alice principal=alice\nsk-carl principal=carl requests-per-minute=2\n"
            "sk-erin principal=erin\n")
kg.p.send_signal(signal.SIGHUP)
check(wait_for(lambda: "3 keys read again" in kg.said()), "keys: read again on SIGHUP")
check(kg.chat(max_tokens=1, headers=bearer("sk-erin"))[0] == 200 and
      kg.chat(max_tokens=1, headers=bearer("sk-bob"))[0] == 401, "keys: new ones work, old ones do not")
check(kg.chat(max_tokens=1, headers=bearer("sk-carl"))[0] == 429, "keys: what was used stays used")
with open(keys, "w") as f:
    f.write("sk-alice\n")
kg.p.send_signal(signal.SIGHUP)
check(wait_for(lambda: "keeping the keys" in kg.said()) and "sk-alice" not in kg.said() and
      kg.chat(max_tokens=1, headers=bearer("sk-erin"))[0] == 200, "keys: a bad file changes nothing",
      kg.said())


def says(*args):
    p = subprocess.run([os.path.join(build, "llmdev-gateway"), *args], stderr=subprocess.PIPE,
                       stdout=subprocess.DEVNULL, timeout=PATIENCE)
    return p.returncode, p.stderr.decode()


for name, line in (("no principal", "sk-x"), ("an unknown member", "sk-x principal=a b=1"),
                   ("a bad number", "sk-x principal=a concurrent=no"),
                   ("a bad share", "sk-x principal=a share=0"),
                   ("the same key twice", "sk-x principal=a\nsk-x principal=b")):
    with open(keys, "w") as f:
        f.write("sk-good principal=z\n" + line + "\n")
    rc, text = says("--listen", "127.0.0.1:0", "--api-key-file", keys)
    check(rc == 1 and "keys:%d" % (3 if "\n" in line else 2) in text and "sk-x" not in text,
          "key file: %s: refused with its line" % name, text)
check(says("--listen", "0.0.0.0:0")[0] == 2, "all addresses without keys: refused")
check(says("--listen", "[::]:0")[0] == 2, "all addresses of IPv6 without keys: refused")
check(says("--bogus")[0] == 2 and says("--model", "x")[0] == 2 and says("--drain", "x")[0] == 2,
      "wrong options: exit 2")
check(says("--listen", "127.0.0.1:%d" % gw.port)[0] == 1, "a port in use: exit 1")

# ---- CORS
cg = Gateway("--model", "demo=" + daemon.path, "--cors", "https://page.example")
ok = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST",
      "Access-Control-Request-Headers": "authorization, content-type"}
s, h, _ = cg.call("OPTIONS", "/v1/chat/completions", headers=ok)
check(s == 204 and h["Access-Control-Allow-Origin"] == "https://page.example" and
      "POST" in h["Access-Control-Allow-Methods"] and
      "authorization" in h["Access-Control-Allow-Headers"], "CORS: preflight")
s, h, _ = cg.chat(max_tokens=1, headers={"Origin": "https://page.example"})
check(s == 200 and h["Access-Control-Allow-Origin"] == "https://page.example", "CORS: a call")
check(cg.chat(max_tokens=1, headers={"Origin": "https://evil.example"})[0] == 403 and
      gw.chat(max_tokens=1, headers={"Origin": "https://evil.example"})[0] == 403,
      "CORS: other pages may not")
check(gw.chat(max_tokens=1, headers={"Origin": "http://127.0.0.1:%d" % gw.port})[0] == 200,
      "its own pages may")
check(gw.chat(max_tokens=1, headers={"Origin": "http://localhost:5", "Host": "localhost:5"})[0] == 200 and
      gw.chat(max_tokens=1, headers={"Origin": "http://[::1]:5", "Host": "[::1]:5"})[0] == 200,
      "under another local name too")
check(gw.chat(max_tokens=1, headers={"Origin": "http://evil.example", "Host": "evil.example"})[0] == 403
      and gw.chat(max_tokens=1, headers={"Origin": "http://127.0.0.1.evil.example",
                                         "Host": "127.0.0.1.evil.example"})[0] == 403,
      "but not under a name that somebody made point here")

# ---- several models
second = Daemon("second")
two = Gateway("--model", "a=" + daemon.path, "--model", "b=%s,c" % second.path)
check([m["id"] for m in two.get("/v1/models")[2]["data"]] == ["a", "b", "c"], "two models: listed")
check(two.chat(max_tokens=3, model="a")[0] == 200 and two.chat(max_tokens=7, model="c")[0] == 200 and
      two.metric("vllm:generation_tokens_total", model_name="a") == 3 and
      two.metric("vllm:generation_tokens_total", model_name="b") == 7, "two models: each has its own")
check(is_error(two.chat(), 400, "missing_required_parameter", "model"),
      "two models: the request has to say which")
second.stop()
check(wait_for(lambda: two.get("/health")[0] == 503) and two.chat(max_tokens=1, model="a")[0] == 200,
      "two models: one gone, the other serves")
check(is_error(two.chat(max_tokens=1, model="b"), 503, "model_unavailable"), "the one that is gone: 503")

for g in (gw, kg, cg, two):
    check(g.stop() == 0, "stops cleanly", g.said())
check(daemon.stop() == 0, "the daemon too")
finish()
