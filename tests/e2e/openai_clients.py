#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The official openai package, unmodified, against a gateway with the built-in model; every reply and
every event is judged by OpenAI's own description (openai_spec.py).

usage: openai_clients.py BASE-URL MODEL [EMBEDDING-MODEL]
Keys that the gateway knows: sk-alice, and sk-slow with one request a minute.
"""
import base64
import json
import re
import struct
import subprocess
import sys
import traceback
import typing

import httpx2 as httpx
import openai
import pydantic

import openai_spec

count = failed = 0
base, model = sys.argv[1:3]
embedding_model = sys.argv[3] if len(sys.argv) > 3 else None
spec = openai_spec.Spec()


def connect(key="sk-alice"):
    return openai.OpenAI(base_url=base, api_key=key, max_retries=0, timeout=120,
                         http_client=httpx.Client(transport=openai_spec.JudgedTransport(spec)))


client = connect()
FIXTURE = "tests/fixtures/embeddings/qwen3-last"
QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]
RAMBLE = [{"role": "user", "content": "Tell me a story about a fox and a llama."}]
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a place.",
    "parameters": {"type": "object", "additionalProperties": False, "required": ["city", "days"],
                   "properties": {"city": {"enum": ["Paris", "Oslo"]},
                                  "days": {"type": "integer", "minimum": 1, "maximum": 9}}}}}


def check(ok, name, detail=""):
    global count, failed
    count += 1
    print(f"{'ok' if ok else 'not ok'} {count} - openai: {name}", flush=True)
    if not ok:
        failed += 1
        print("#   " + str(detail)[:2000].replace("\n", "\n#   "), flush=True)


def raises(kind, call, name, **want):
    """The call fails as `kind`, with these attributes of the error."""
    try:
        got = call()
    except openai.APIError as e:
        seen = {k: getattr(e, k, None) for k in want}
        check(type(e) is kind and seen == want, name, f"{e!r} {seen}")
        return e
    check(False, name, f"no error: {got}")


def test_models():
    names = [m.id for m in client.models.list()]
    check(model in names, "models.list", names)
    check(client.models.retrieve(model).id == model, "models.retrieve")
    raises(openai.NotFoundError, lambda: client.models.retrieve("nobody"), "models.retrieve: unknown")


def test_chat():
    r = client.chat.completions.create(model=model, messages=QUESTION, temperature=0)
    c = r.choices[0]
    check("sunlight" in c.message.content and c.finish_reason == "stop" and r.model == model,
          "chat", r)
    u = r.usage
    check(u.prompt_tokens > 5 and u.total_tokens == u.prompt_tokens + u.completion_tokens and
          u.prompt_tokens_details.cached_tokens <= u.prompt_tokens and
          u.completion_tokens_details.reasoning_tokens == 0, "chat: usage", u)
    text, finish, usage, roles = "", None, None, []
    for chunk in client.chat.completions.create(model=model, messages=QUESTION, temperature=0, stream=True,
                                                stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            roles += [choice.delta.role] if choice.delta.role else []
            finish = choice.finish_reason or finish
    check(text == c.message.content and finish == "stop" and roles == ["assistant"],
          "chat: a stream is the same answer", text)
    check(usage and usage.completion_tokens == u.completion_tokens, "chat: usage in a stream", usage)
    r = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_completion_tokens=5)
    check(r.choices[0].finish_reason == "length" and r.usage.completion_tokens == 5, "chat: length", r)
    r = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, stop=["sunlight"])
    check(r.choices[0].message.content == c.message.content.split("sunlight")[0] and
          r.choices[0].finish_reason == "stop", "chat: stop", r)
    r = client.chat.completions.create(model=model, messages=RAMBLE, n=3, seed=7, temperature=2,
                                       max_tokens=20)
    again = client.chat.completions.create(model=model, messages=RAMBLE, n=3, seed=7, temperature=2,
                                           max_tokens=20)
    texts = [c.message.content for c in r.choices]
    check([c.index for c in r.choices] == [0, 1, 2] and len(set(texts)) > 1 and
          texts == [c.message.content for c in again.choices], "chat: n and seed", texts)
    r = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, logprobs=True,
                                       top_logprobs=3, max_tokens=8)
    lp = r.choices[0].logprobs.content
    check("".join(p.token for p in lp) == r.choices[0].message.content and
          all(len(p.top_logprobs) == 3 and p.top_logprobs[0].logprob == p.logprob <= 0 for p in lp),
          "chat: logprobs", r)
    parts = [{"role": "system", "content": [{"type": "text", "text": "You are llmdev."}]},
             {"role": "user", "content": [{"type": "text", "text": "Why is the "},
                                          {"type": "text", "text": "sky blue?"}]}]
    r = client.chat.completions.create(model=model, messages=parts, temperature=0, max_tokens=4)
    check(r.choices[0].message.content is not None, "chat: content in parts", r)


def read_stream(stream):
    """The message that a stream's deltas make, and its finish reason."""
    message, calls, finish = {"role": "assistant", "content": ""}, {}, None
    for chunk in stream:
        for choice in chunk.choices:
            message["content"] += choice.delta.content or ""
            for c in choice.delta.tool_calls or []:
                at = calls.setdefault(c.index, {"id": "", "type": "function",
                                                "function": {"name": "", "arguments": ""}})
                at["id"] += c.id or ""
                at["function"]["name"] += c.function.name or ""
                at["function"]["arguments"] += c.function.arguments or ""
            finish = choice.finish_reason or finish
    if calls:
        message["tool_calls"] = [calls[i] for i in sorted(calls)]
    return message, finish


def good_call(name, arguments):
    a = json.loads(arguments)
    return name == "get_weather" and set(a) == {"city", "days"} and a["city"] in ("Paris", "Oslo") and \
        1 <= a["days"] <= 9


def test_tools():
    ask = {"model": model, "temperature": 0, "tools": [WEATHER], "max_tokens": 200}
    talk = [{"role": "user", "content": "What is the weather in Paris?"}]
    r = client.chat.completions.create(messages=talk, tool_choice="required", **ask)
    m = r.choices[0].message
    check(r.choices[0].finish_reason == "tool_calls" and m.tool_calls and
          all(good_call(c.function.name, c.function.arguments) for c in m.tool_calls),
          "tools: required: a call that fits its schema", r)
    loop = talk + [m.model_dump(exclude_none=True)] + [
        {"role": "tool", "tool_call_id": c.id, "content": "12 degrees, rain"} for c in m.tool_calls or []]
    r = client.chat.completions.create(messages=loop, **ask)
    check(r.choices[0].message.content is not None or r.choices[0].message.tool_calls,
          "tools: the results go back, and an answer comes", r)
    named = {"type": "function", "function": {"name": "get_weather"}}
    with client.chat.completions.create(messages=talk, tool_choice=named, stream=True, **ask) as stream:
        streamed, finish = read_stream(stream)
    calls = streamed.get("tool_calls", [])
    check(finish in ("tool_calls", "stop") and calls and
          all(c["id"] and good_call(c["function"]["name"], c["function"]["arguments"]) for c in calls),
          "tools: named, as a stream", streamed)
    r = client.chat.completions.create(messages=talk, tool_choice="required", parallel_tool_calls=False, **ask)
    check(len(r.choices[0].message.tool_calls or []) == 1, "tools: one at a time", r)
    r = client.chat.completions.create(messages=talk, tool_choice="none", **ask)
    check(not r.choices[0].message.tool_calls, "tools: none", r)
    # The package's own reader of streams puts the same message together.
    with client.chat.completions.stream(messages=talk, tool_choice="required", **ask) as stream:
        final = stream.get_final_completion()
    check(final.choices[0].message.tool_calls[0].function.name == "get_weather",
          "tools: the package's stream helper", final)


class Step(pydantic.BaseModel):
    number: int
    done: bool


class Plan(pydantic.BaseModel):
    kind: typing.Literal["short", "long"]
    step: Step


def test_structured():
    r = client.chat.completions.parse(model=model, messages=QUESTION, response_format=Plan, temperature=0,
                                      max_tokens=300)
    check(isinstance(r.choices[0].message.parsed, Plan), "structured output: parse()", r)
    r = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_tokens=300,
                                       response_format={"type": "json_schema", "json_schema": {
                                           "name": "word", "schema": {"enum": ["yes", "no"]}}})
    check(json.loads(r.choices[0].message.content) in ("yes", "no"), "structured output: an enum", r)
    e = raises(openai.BadRequestError, lambda: client.chat.completions.create(
        model=model, messages=QUESTION, response_format={"type": "json_schema", "json_schema": {
            "name": "x", "strict": True, "schema": {"type": "object", "properties": {"a": {"type": "nonsense"}}}}}),
        "structured output: a schema that is none")
    check("properties/a" in str(e), "structured output: the error says where", e)


def test_responses():
    r = client.responses.create(model=model, input="Why is the sky blue?", temperature=0,
                                metadata={"who": "test"})
    check("sunlight" in r.output_text and r.status == "completed" and r.metadata == {"who": "test"},
          "responses", r)
    check(r.usage.input_tokens > 5 and r.usage.total_tokens == r.usage.input_tokens + r.usage.output_tokens,
          "responses: usage", r.usage)
    text, kinds, numbers = "", [], []
    for e in client.responses.create(model=model, input=[{"role": "user", "content": "Why is the sky blue?"}],
                                     temperature=0, stream=True):
        kinds.append(e.type)
        numbers.append(e.sequence_number)
        if e.type == "response.output_text.delta":
            text += e.delta
    check(text == r.output_text and numbers == list(range(len(numbers))), "responses: a stream is the same", text)
    check([k for i, k in enumerate(kinds) if i == 0 or k != kinds[i - 1]] == ["response." + k for k in (
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed")],
        "responses: the stream's events", kinds)
    r = client.responses.create(model=model, input="Why is the sky blue?", temperature=0, max_output_tokens=5)
    check(r.status == "incomplete" and r.incomplete_details.reason == "max_output_tokens",
          "responses: incomplete", r)
    r = client.responses.parse(model=model, input="Plan.", text_format=Plan, temperature=0, max_output_tokens=300)
    check(isinstance(r.output_parsed, Plan), "responses: parse()", r)
    tool = {"type": "function", "strict": True, **WEATHER["function"]}
    items = [{"role": "user", "content": "What is the weather in Paris?"}]
    r = client.responses.create(model=model, input=items, tools=[tool], tool_choice="required", temperature=0,
                                instructions="Be brief.", max_output_tokens=200)
    calls = [i for i in r.output if i.type == "function_call"]
    check(calls and all(good_call(c.name, c.arguments) for c in calls), "responses: tools", r)
    items += [i.model_dump(exclude_none=True) for i in r.output]
    items += [{"type": "function_call_output", "call_id": c.call_id, "output": "12 degrees"} for c in calls]
    r = client.responses.create(model=model, input=items, tools=[tool], temperature=0, max_output_tokens=100)
    check(r.output, "responses: the results go back, and an answer comes", r)
    with client.responses.stream(model=model, input="What is the weather in Paris?", tools=[tool],
                                 tool_choice="required", temperature=0, max_output_tokens=200) as stream:
        kinds = [e.type for e in stream]
        final = stream.get_final_response()
    check("response.function_call_arguments.done" in kinds and
          good_call(final.output[0].name, final.output[0].arguments), "responses: tools as a stream", final)
    e = raises(openai.BadRequestError, lambda: client.responses.create(
        model=model, input="x", previous_response_id="resp_1"), "responses: previous_response_id is refused",
        param="previous_response_id")
    raises(openai.BadRequestError, lambda: client.responses.create(
        model=model, input="x", tools=[{"type": "web_search"}]), "responses: a hosted tool is refused",
        param="tools[0].type")
    raises(openai.BadRequestError, lambda: client.responses.create(
        model=model, input="x", temperature=-1), "responses: a bad number is refused", param="temperature")


def test_completions():
    r = client.completions.create(model=model, prompt="Air scatters short", temperature=0, max_tokens=6)
    text = r.choices[0].text
    check(text and r.usage.completion_tokens == 6 and r.choices[0].finish_reason == "length",
          "completions", r)
    parts = [c.choices[0].text for c in client.completions.create(
        model=model, prompt="Air scatters short", temperature=0, max_tokens=6, stream=True) if c.choices]
    check("".join(parts) == text and len(parts) > 3, "completions: a stream is the same", parts)
    ids = httpx.post(base[:-3] + "/tokenize", headers={"Authorization": "Bearer sk-alice"},
                     json={"model": model, "prompt": "Air scatters short"}).json()["tokens"]
    r = client.completions.create(model=model, prompt=[ids, ids], temperature=0, max_tokens=6)
    check([c.text for c in r.choices] == [text, text], "completions: prompts as ids", r)
    r = client.completions.create(model=model, prompt="Air scatters short", temperature=0, max_tokens=3, logprobs=2)
    lp = r.choices[0].logprobs
    check("".join(lp.tokens) == r.choices[0].text and len(lp.top_logprobs[0]) >= 2, "completions: logprobs", r)


def test_embeddings():
    raises(openai.BadRequestError, lambda: client.embeddings.create(model=model, input="x"),
           "embeddings: a chat model has none")
    raises(openai.BadRequestError, lambda: client.embeddings.create(model=model, input=[]),
           "embeddings: nothing to embed", param="input")
    if not embedding_model:
        return
    with open(FIXTURE + "/expect.json", encoding="utf-8") as f:
        expect = json.load(f)
    vectors = [struct.unpack(f"<{expect['hidden']}f", base64.b64decode(v)) for v in expect["vectors_f32_base64"]]
    r = client.embeddings.create(model=embedding_model, input=expect["prompts"])

    def near(a, b):
        return len(a) == len(b) and max(abs(x - y) for x, y in zip(a, b)) < 1e-4

    check([d.index for d in r.data] == list(range(len(r.data))) and
          all(near(d.embedding, v) for d, v in zip(r.data, vectors, strict=True)),
          "embeddings: as the reference gives them, in order", r.data[0].embedding[:4])
    check(r.usage.prompt_tokens == r.usage.total_tokens >= sum(map(len, expect["prompts"])),
          "embeddings: usage", r.usage)
    one = {"model": embedding_model, "input": expect["prompts"][1]}
    f = client.embeddings.create(encoding_format="float", **one)
    n = len(f.data[0].embedding)
    check(list(struct.unpack(f"<{n}f", struct.pack(f"<{n}f", *f.data[0].embedding))) == r.data[1].embedding,
          "embeddings: float and base64 agree to the bit",
          f.data[0].embedding[:4])
    raw = httpx.post(base + "/embeddings", headers={"Authorization": "Bearer sk-alice"}, timeout=60,
                     json={**one, "encoding_format": "base64"}).json()
    data = base64.b64decode(raw["data"][0]["embedding"], validate=True)
    check(list(struct.unpack(f"<{len(data) // 4}f", data)) == r.data[1].embedding, "embeddings: base64")
    many = client.embeddings.create(model=embedding_model, input=[expect["prompts"][i % 3] for i in range(50)])
    check(all(d.embedding == many.data[i % 3].embedding for i, d in enumerate(many.data)) and len(many.data) == 50,
          "embeddings: fifty at once")
    raises(openai.BadRequestError, lambda: client.embeddings.create(
        model=embedding_model, input=[[1], [2], [99999]]), "embeddings: an id that is none", param="input[2][0]")
    raises(openai.BadRequestError, lambda: client.chat.completions.create(model=embedding_model, messages=QUESTION),
           "embeddings: such a model does not chat")


def test_errors():
    raises(openai.AuthenticationError, lambda: connect("sk-wrong").models.list(), "a wrong key",
           code="invalid_api_key")
    raises(openai.NotFoundError, lambda: client.chat.completions.create(model="nobody", messages=QUESTION),
           "an unknown model", code="model_not_found", param="model")
    raises(openai.BadRequestError, lambda: client.chat.completions.create(
        model=model, messages=QUESTION, temperature=-1), "a bad number", param="temperature")
    raises(openai.BadRequestError, lambda: client.chat.completions.create(
        model=model, messages=[{"role": "wizard", "content": "x"}]), "an unknown role", param="messages[0].role")
    raises(openai.BadRequestError, lambda: client.chat.completions.create(model=model, messages=[]),
           "no messages", param="messages")
    slow = connect("sk-slow")
    slow.chat.completions.create(model=model, messages=QUESTION, max_tokens=1)
    e = raises(openai.RateLimitError, lambda: slow.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=1), "more requests than a key may send")
    check(e and int(e.response.headers["retry-after"]) > 0, "and when to come again")


def test_vllm():
    """What is not OpenAI's."""
    c = httpx.Client(base_url=base[:-3], headers={"Authorization": "Bearer sk-alice"}, timeout=60)
    t = c.post("/tokenize", json={"model": model, "prompt": "Why is the sky blue?"}).json()
    check(t["count"] == len(t["tokens"]) > 3 and t["max_model_len"] > 100, "tokenize: text", t)
    d = c.post("/detokenize", json={"model": model, "tokens": t["tokens"]}).json()
    check(d == {"prompt": "Why is the sky blue?"}, "detokenize", d)
    t = c.post("/tokenize", json={"model": model, "messages": QUESTION}).json()
    r = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=1)
    check(t["count"] == r.usage.prompt_tokens, "tokenize: a conversation is as long as its prompt", t)
    for path, body in (("/tokenize", {}), ("/tokenize", {"prompt": 3}), ("/detokenize", {"tokens": [-1]}),
                       ("/detokenize", {"tokens": ["x"]}), ("/detokenize", {"tokens": [2**40]}),
                       ("/tokenize", {"prompt": "x", "messages": QUESTION}),
                       ("/tokenize", {"messages": [{"role": "wizard", "content": "x"}]})):
        r = c.post(path, json={"model": model, **body})
        check(r.status_code == 400 and r.json()["error"]["message"], f"{path} {body} is refused", r.text)


def test_docs():
    """The programs of docs/clients.md print what stands there: the first word of each line, since what
    follows may depend on the machine's arithmetic."""
    with open("docs/clients.md", encoding="utf-8") as f:
        found = re.findall(r"```python\n(.*?)```\n```\n(.*?)```", f.read(), re.S)
    for program, output in found:
        program = program.replace("http://127.0.0.1:8000/v1", base).replace('"none"', '"sk-alice"', 1)
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
        # A call's id, indented, is another each time.
        want, got = ([line[2:] and re.split(r"[ (]", line)[0] for line in text.splitlines()]
                     for text in (output, run.stdout))
        check(run.returncode == 0 and got == want, f"docs/clients.md: the program that prints {want[0]} ...",
              run.stdout + run.stderr)
    check(len(found) >= 4, "docs/clients.md has programs", len(found))


for test in (test_models, test_chat, test_tools, test_structured, test_responses, test_completions,
             test_embeddings, test_errors, test_vllm, test_docs):
    try:
        test()
    except Exception:
        check(False, test.__name__ + " runs to its end", traceback.format_exc())
check(not spec.problems, f"all replies are as OpenAI describes them ({sum(spec.checked.values())}: "
      f"{', '.join(f'{n} {k}' for k, n in sorted(spec.checked.items()))})", "\n".join(sorted(set(spec.problems))[:20]))
print(f"1..{count}")
sys.exit(failed > 0)
