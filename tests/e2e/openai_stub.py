#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A server that speaks just enough of OpenAI's completions for bench_serve.sh, and misbehaves on
demand: the path in front of /v1 says how (/ok, /refuse, /cut, /garbage, /endless-line, /silent).
usage: openai_stub.py PORT-FILE"""
import http.server
import json
import os
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200, b'{"object":"list","data":[{"id":"stub"}]}')

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def event(self, obj):
        self.chunk(b"data: " + json.dumps(obj).encode() + b"\n\n")

    def do_POST(self):
        how = self.path.split("/")[1]
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.split("/", 2)[2] != "v1/completions" or asked["model"] != "stub":
            return self.answer(404, b"not here")
        if how == "refuse" and len(asked["prompt"]) != 16:
            return self.answer(503, b'{"error":{"message":"queue full: try later"}}')
        assert asked["stream"] and asked["ignore_eos"] and asked["temperature"] == 0
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        n = asked["max_tokens"]
        for i in range(n):
            self.event({"choices": [{"text": "x", "index": 0, "finish_reason": None}]})
            if how == "cut":
                self.close_connection = True
                return
            if how == "garbage":
                self.chunk(b"data: {\"choices\": [}\n\n")
            if how == "endless-line":
                for _ in range(40):
                    self.chunk(b"data: " + b"x" * 65536)
        if how == "silent":
            # Neither a reason nor usage: ends like an answer that was lost half-way.
            self.chunk(b": a comment\n\n")
        else:
            self.event({"choices": [{"text": "", "index": 0, "finish_reason": "length"}]})
            self.event({"choices": [], "usage": {
                "prompt_tokens": len(asked["prompt"]), "completion_tokens": n,
                "prompt_tokens_details": {"cached_tokens": 3}}})
            self.chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
with open(sys.argv[1] + ".part", "w") as f:
    f.write(str(server.server_address[1]))
os.rename(sys.argv[1] + ".part", sys.argv[1])
server.serve_forever()
