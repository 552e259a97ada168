#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The gateway's chat page in a real browser, driven through chromedriver (WebDriver, plain HTTP).

usage: page.py DONE URL MODEL URL-WITH-KEYS    TAP on stdout, after DONE other lines; a browser that
is not there is a skip.
The page at URL answers with the built-in model, slowed down, so that an answer can be stopped.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

count = failed = 0


def check(ok, name, detail=""):
    global count, failed
    count += 1
    print(f"{'ok' if ok else 'not ok'} {count} - page: {name}", flush=True)
    if not ok:
        failed += 1
        print("#   " + str(detail).replace("\n", "\n#   "), flush=True)


class Browser:
    """As much of a WebDriver client as this needs."""

    def __init__(self, driver, browser, home):
        self.log = open(os.path.join(home, "driver.log"), "w+")
        self.process = subprocess.Popen([driver, "--port=0"], stdout=self.log, stderr=self.log,
                                        stdin=subprocess.DEVNULL, close_fds=True)
        self.session = None
        self.base = f"http://127.0.0.1:{self.port()}"
        arguments = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                     f"--user-data-dir={home}/profile", "--window-size=900,700"]
        if os.geteuid() == 0:
            arguments.append("--no-sandbox")
        value = self.call("POST", "/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": browser, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"}}}})
        self.session = value["sessionId"]

    def port(self):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            self.log.seek(0)
            for line in self.log:
                if "successfully on port" in line:
                    return int(line.rstrip(". \n").rsplit(" ", 1)[1])
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.log.seek(0)
        raise OSError("chromedriver: " + self.log.read()[-300:])

    def call(self, method, path, body=None):
        if self.session:
            path = f"/session/{self.session}{path}"
        request = urllib.request.Request(
            self.base + path, method=method, headers={"Content-Type": "application/json"},
            data=None if body is None else json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=120) as reply:
                return json.load(reply)["value"]
        except urllib.error.HTTPError as e:
            raise OSError(e.read().decode(errors="replace")[:600]) from e

    def open(self, url):
        self.call("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def keys(self, css, text):
        found = self.call("POST", "/element", {"using": "css selector", "value": css})
        self.call("POST", f"/element/{next(iter(found.values()))}/value", {"text": text})

    def click(self, css):
        found = self.call("POST", "/element", {"using": "css selector", "value": css})
        self.call("POST", f"/element/{next(iter(found.values()))}/click", {})

    def wait(self, script, *arguments, seconds=60):
        """Until the script gives something true; what it gave last."""
        end = time.monotonic() + seconds
        while not (value := self.run(script, *arguments)) and time.monotonic() < end:
            time.sleep(0.05)
        return value

    def complaints(self):
        return [e["message"] for e in self.call("POST", "/se/log", {"type": "browser"})
                if e["level"] == "SEVERE"]

    def close(self):
        try:
            if self.session:
                self.call("DELETE", "")
        except OSError:
            pass
        self.process.terminate()
        self.process.wait()
        self.log.close()


IDLE = "return !document.body.dataset.running"
TEXT = "return [...document.querySelectorAll('.answer')].at(-1)?.querySelector('.content').textContent"
STATS = "return [...document.querySelectorAll('.answer')].at(-1)?.querySelector('.stats').textContent"
ENTER, ESCAPE = "\ue007", "\ue00c"

# Answers instead of the gateway: what a hostile (or misled) model could say, in every place.
HOSTILE = r"""
const bad = '<script>window.hacked = 1<\/script><img src=x onerror="window.hacked = 2">' +
	'[link](javascript:window.hacked=3) <a href="javascript:window.hacked=4">x</a>' +
	'<svg onload="window.hacked=5"><iframe srcdoc="<script>parent.hacked=6<\/script>">';
const deltas = [{role: "assistant"}, {reasoning_content: bad}, {content: bad + "\n\n# " + bad},
	{content: "\n\n- " + bad + "\n- **" + bad + "**\n\n```html\n" + bad + "\n```\n\n> " + bad},
	{content: "\n\n[fine](https://example.org/?q=1) `" + bad + "`"},
	{llmdev: {malformed_tool_call: bad}},
	{tool_calls: [{index: 0, id: "c1", type: "function", function: {name: bad, arguments: bad}}]}];
const chunk = (delta) => "data: " + JSON.stringify({choices: [{index: 0, delta}]}) + "\n\n";
const realFetch = window.fetch;
window.asked = [];
window.fetch = async (url, options) => {
	if (!String(url).includes("chat"))
		return realFetch(url, options);
	asked.push(JSON.parse(options.body));
	const text = asked.length === 1 ? deltas.map(chunk).join("") + "data: [DONE]\n\n" :
		chunk({content: "Thanks."});
	/* In pieces that split characters' and events' boundaries. */
	const bytes = new TextEncoder().encode(text);
	return new Response(new ReadableStream({start(c) {
		for (let i = 0; i < bytes.length; i += 7)
			c.enqueue(bytes.slice(i, i + 7));
		c.close();
	}}), {status: 200, headers: {"Content-Type": "text/event-stream"}});
};
"""


def test_answers(b, url, model):
    b.open(url)
    check(b.wait("return document.querySelectorAll('#model option').length"), "loads, and lists models")
    check(b.run("return document.getElementById('model').value") == model, "the model is chosen",
          b.run("return document.getElementById('model').value"))
    check(b.run("return document.activeElement.id") == "prompt", "the question's field has the focus")
    b.keys("#prompt", "Why is the sky blue?" + ENTER)
    grown = b.wait(TEXT)
    check(grown and b.run("return document.body.dataset.running"), "an answer streams")
    b.wait(IDLE)
    whole = b.run(TEXT)
    check(len(whole) > len(grown) and "sunlight" in whole, "it is the model's answer", whole)
    stats = b.run(STATS)
    check("tokens/s" in stats and "first after" in stats and "prompt tokens" in stats,
          "tokens, tokens/s and time to the first are shown", stats)
    b.keys("#prompt", "Why is the sky blue?")
    b.click("#send")
    b.wait("return document.querySelectorAll('.answer').length === 2")
    b.wait(TEXT)
    b.click("#stop")
    check(b.wait(IDLE) and "stopped" in b.run(STATS) and len(b.run(TEXT)) < len(whole),
          "Stop stops", b.run(STATS))
    b.keys("#prompt", "Why is the sky blue?" + ENTER)
    b.wait("return document.querySelectorAll('.answer').length === 3")
    b.wait(TEXT)
    b.keys("#prompt", ESCAPE)
    check(b.wait(IDLE) and "stopped" in b.run(STATS), "so does Esc")
    b.click("#new")
    check(b.run("return document.getElementById('log').childNodes.length") == 0, "a new chat is empty")
    wrong = b.complaints()
    check(not wrong, "nothing was blocked, nothing failed", "\n".join(wrong))


def test_hostile(b, url):
    b.open(url)
    b.wait("return document.querySelectorAll('#model option').length")
    b.run(HOSTILE)
    b.keys("#prompt", "<img src=x onerror='window.hacked=7'>" + ENTER)
    b.wait("return document.querySelector('.go-on')")
    time.sleep(0.3)
    check(b.run("return window.hacked === undefined"), "hostile text does not run",
          b.run("return window.hacked"))
    check(b.run("return document.querySelectorAll('#log script, #log img, #log svg, #log iframe').length") == 0,
          "it makes no elements")
    links = b.run("return [...document.querySelectorAll('#log a')].map((a) => a.href)")
    check(links == ["https://example.org/?q=1"], "only links to http are links", links)
    check("<script>window.hacked = 1</script>" in b.run(TEXT), "it is shown as text", b.run(TEXT))
    check(b.run("return document.querySelector('.thinking').open") is False and
          "<script>" in b.run("return document.querySelector('.thinking div').textContent"),
          "thinking is there, closed")
    check(b.run("return document.querySelectorAll('.content pre code, .content li, .content h3, "
                ".content blockquote').length") == 5, "Markdown is shown as such",
          b.run("return document.querySelector('.content').outerHTML"))
    b.keys(".call .result", "42")
    b.click(".go-on")
    check(b.wait("return document.querySelectorAll('.answer').length === 2") and b.wait(IDLE) and
          b.run("return asked[1].messages.at(-1)") ==
          {"role": "tool", "tool_call_id": "c1", "content": "42",
           "name": b.run("return asked[1].messages.at(-2).tool_calls[0].function.name")},
          "a tool call's result goes back", b.run("return asked.at(-1)"))


def test_key(b, url):
    """With a gateway that wants a key."""
    b.open(url)
    check(b.wait("return document.querySelector('.error')") and
          b.run("return !document.getElementById('settings').hidden && document.activeElement.id") == "key",
          "without a key: says so and asks for it")
    b.keys("#key", "sk-page" + ENTER)
    b.run("document.getElementById('key').dispatchEvent(new Event('change'))")
    check(b.wait("return document.querySelectorAll('#model option').length"), "with the key: goes on")
    b.open(url)
    check(b.wait("return document.querySelectorAll('#model option').length"), "the key outlives a reload")
    check(b.run("return Object.keys(localStorage).length + document.cookie.length") == 0,
          "and is stored nowhere else")


def main():
    global count
    count = int(sys.argv[1])
    url, model, keyed = sys.argv[2:5]
    driver = shutil.which("chromedriver")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not driver or not browser:
        print(f"ok {count + 1} # SKIP page: no chromium and chromedriver to open it with")
        print(f"1..{count + 1}")
        return
    with tempfile.TemporaryDirectory() as home:
        b = None
        try:
            b = Browser(driver, browser, home)
            test_answers(b, url, model)
            test_hostile(b, url)
            test_key(b, keyed)
        except OSError as e:
            check(False, "the browser does what it is told", e)
        finally:
            if b:
                b.close()
    print(f"1..{count}")
    sys.exit(failed > 0)


main()
