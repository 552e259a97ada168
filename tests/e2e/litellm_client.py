#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""See litellm.sh. usage: litellm_client.py BASE-URL MODEL FOLDER; FOLDER takes temporary files."""
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
import urllib.request

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches a price list
os.environ["LITELLM_TELEMETRY"] = "False"
os.environ["LITELLM_LOG"] = "CRITICAL"
import litellm  # noqa: E402
import openai  # noqa: E402

base, model, folder = sys.argv[1:4]
bin_folder = os.path.dirname(sys.executable)
count = failed = 0
QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]
TOOL = {"type": "function", "function": {
    "name": "get_weather", "parameters": {"type": "object", "required": ["city"], "additionalProperties": False,
                                          "properties": {"city": {"enum": ["Paris", "Oslo"]}}}}}


def check(ok, name, detail=""):
    global count, failed
    count += 1
    print(f"{'ok' if ok else 'not ok'} {count} - {name}", flush=True)
    if not ok:
        failed += 1
        print("#   " + str(detail)[-2000:].replace("\n", "\n#   "), flush=True)


class Broken(http.server.BaseHTTPRequestHandler):
    """A server that answers every request with 500."""
    asked = 0

    def do_POST(self):
        Broken.asked += 1
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(500)
        self.end_headers()

    def do_GET(self):
        """What llama-benchy reads its prompts from."""
        with open("docs/faq.md", "rb") as f:
            text = f.read() * 4
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def targets():
    """Three places in the order in which they are tried: nobody listens, 500, the gateway."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return [("dead", f"http://127.0.0.1:{free_port()}/v1"),
            ("broken", f"http://127.0.0.1:{server.server_port}/v1"), ("llmdev", base)]


def start_proxy(places):
    config = {
        "model_list": [{"model_name": name, "litellm_params": {
            "model": "openai/" + model, "api_base": where, "api_key": "sk-alice"}} for name, where in places],
        "router_settings": {"fallbacks": [{"dead": ["broken", "llmdev"]}], "num_retries": 0, "timeout": 60},
        "litellm_settings": {"telemetry": False, "num_retries": 0},
        "general_settings": {"master_key": "sk-proxy"},
    }
    path = os.path.join(folder, "litellm.json")  # JSON is YAML
    with open(path, "w", encoding="utf-8") as f:
        json.dump(config, f)
    port = free_port()
    log = open(os.path.join(folder, "litellm.log"), "w", encoding="utf-8")
    proxy = subprocess.Popen([os.path.join(bin_folder, "litellm"), "--config", path, "--host", "127.0.0.1",
                              "--port", str(port)], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    where = f"http://127.0.0.1:{port}"
    end = time.monotonic() + 240
    while time.monotonic() < end and proxy.poll() is None:
        try:
            urllib.request.urlopen(where + "/health/liveliness", timeout=5).read()
            return proxy, where
        except OSError:
            time.sleep(0.3)
    with open(log.name, encoding="utf-8") as f:
        raise OSError("the proxy did not start: " + f.read()[-1500:])


def answers():
    """How many chat answers the gateway has given."""
    text = urllib.request.urlopen(urllib.request.Request(
        base[:-3] + "/metrics", headers={"Authorization": "Bearer sk-alice"}), timeout=30).read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
               if line.startswith("vllm:request_success_total"))


def test_proxy(places):
    proxy, where = start_proxy(places)
    try:
        client = openai.OpenAI(base_url=where + "/v1", api_key="sk-proxy", max_retries=0, timeout=120)
        before = answers()
        raw = client.chat.completions.with_raw_response.create(model="dead", messages=QUESTION, temperature=0)
        r = raw.parse()
        check("sunlight" in r.choices[0].message.content and r.choices[0].finish_reason == "stop",
              "litellm proxy: the chain of fallbacks ends here", r)
        check(raw.headers.get("x-litellm-model-group") == "llmdev" and Broken.asked >= 1 and
              answers() == before + 1, "litellm proxy: both others were tried, one answer is ours",
              f"{dict(raw.headers)} {Broken.asked} {answers() - before}")
        parts = [c for c in client.chat.completions.create(
            model="dead", messages=QUESTION, temperature=0, stream=True, stream_options={"include_usage": True})]
        text = "".join(c.choices[0].delta.content or "" for c in parts if c.choices)
        check(text == r.choices[0].message.content, "litellm proxy: a stream is the same", text)
        check(any(c.usage and c.usage.completion_tokens == r.usage.completion_tokens for c in parts),
              "litellm proxy: usage passes through", parts[-1])
        r = client.chat.completions.create(model="dead", messages=QUESTION, tools=[TOOL], tool_choice="required",
                                           temperature=0, max_tokens=100)
        call = (r.choices[0].message.tool_calls or [None])[0]
        check(call and call.function.name == "get_weather" and
              json.loads(call.function.arguments)["city"] in ("Paris", "Oslo"), "litellm proxy: tools", r)
        r = client.responses.create(model="llmdev", input="Why is the sky blue?", temperature=0)
        check("sunlight" in r.output_text, "litellm proxy: responses", r)
    finally:
        proxy.terminate()
        proxy.wait()


def test_library(places):
    litellm.suppress_debug_info = True
    ask = {"messages": QUESTION, "temperature": 0, "api_key": "sk-alice", "num_retries": 0}
    r = litellm.completion(model="openai/" + model, api_base=places[0][1],
                           fallbacks=[{"model": "openai/" + model, "api_base": where} for _, where in places[1:]],
                           **ask)
    check("sunlight" in r.choices[0].message.content, "litellm library: falls back to here", r)
    r = litellm.completion(model="hosted_vllm/" + model, api_base=base, stream=True, **ask)
    check("sunlight" in "".join(c.choices[0].delta.content or "" for c in r), "litellm library: as a vLLM server")


def test_benchy(places):
    """A short run; its figures are its own affair, that it gets any is ours."""
    out = os.path.join(folder, "benchy.json")
    run = subprocess.run(
        [os.path.join(bin_folder, "llama-benchy"), "--base-url", base, "--api-key", "sk-alice", "--model", model,
         "--tokenizer", "tools/demo/model", "--pp", "64", "--tg", "16", "--runs", "2", "--concurrency", "1", "3",
         "--book-url", places[1][1], "--skip-coherence", "--exit-on-first-fail", "--format", "json",
         "--save-result", out],
        capture_output=True, text=True, timeout=600, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"})
    try:
        with open(out, encoding="utf-8") as f:
            rows = json.load(f)["benchmarks"]
        check(run.returncode == 0 and [b["concurrency"] for b in rows] == [1, 3] and
              all(b["tg_throughput"]["mean"] > 0 and b["pp_throughput"]["mean"] > 0 for b in rows),
              "llama-benchy: a run with one and three at once", run.stdout + run.stderr)
    except (OSError, ValueError, KeyError) as e:
        check(False, "llama-benchy: a run", f"{e!r}\n{run.stdout}{run.stderr}")


def main():
    places = targets()
    for test in (test_proxy, test_library, test_benchy):
        try:
            test(places)
        except Exception:
            check(False, test.__name__ + " runs to its end", traceback.format_exc())
    print(f"1..{count}")
    sys.exit(failed > 0)


main()
