"""What a page of another origin can do to the session's page, in a real Chromium: nothing.

    python -m tests.bench.page_attack

Tried from another port of localhost, and from a name that leads to 127.0.0.1 as under DNS
rebinding, even by somebody who knows the token: `fetch`, forms, scripts, frames, an EventSource.
Prints what became of each try, and what the session was asked; ends with 1 if that is anything.
Without Chromium it says so and ends with 0.
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from devloop.control.history import History
from devloop.web.server import PageServer
from tests.support.browser import Browser, chromium

TRIES = """(async (page, token) => {
  const found = {};
  const attempt = async (name, call) => {
    try { found[name] = `got ${await call()}`; } catch { found[name] = 'nothing'; }
  };
  const auth = { Authorization: `Bearer ${token}` };
  const json = { ...auth, 'Content-Type': 'application/json' };
  const body = '{"op":"pause"}';
  const text = async (answer) => (answer.ok ? (await answer.text()).slice(0, 20) : answer.status);
  const load = (node, where) => new Promise((yes, no) => {
    node.onload = () => yes('loaded');
    node.onerror = no;
    where.append(node);
  });
  await attempt('read', async () => text(await fetch(`${page}/`)));
  await attempt('read with token', async () =>
    text(await fetch(`${page}/events`, { headers: auth })));
  await attempt('post', async () =>
    text(await fetch(`${page}/ask`, { method: 'POST', headers: json, body })));
  await attempt('post unseen', async () => {
    await fetch(`${page}/ask`, { method: 'POST', mode: 'no-cors', body });
    throw new Error('nobody can see what came of it: the session tells');
  });
  await attempt('event source', () => new Promise((yes, no) => {
    const source = new EventSource(`${page}/events`);
    source.onopen = () => yes('opened');
    source.onerror = () => { source.close(); no(); };
  }));
  await attempt('script', () => load(Object.assign(document.createElement('script'),
    { src: `${page}/stream.js` }), document.body));
  await attempt('frame', async () => {
    const frame = document.createElement('iframe');
    frame.src = `${page}/`;
    await load(frame, document.body);
    return frame.contentDocument.body.textContent.slice(0, 20);
  });
  const form = document.createElement('form');
  const field = document.createElement('input');
  form.action = `${page}/ask`;
  Object.assign(form, { method: 'post', enctype: 'text/plain', target: 'f' });
  Object.assign(field, { name: '{"op":"pause","x":"', value: '"}' });
  form.append(field);
  document.body.append(form, Object.assign(document.createElement('iframe'), { name: 'f' }));
  form.submit();
  await new Promise((resolve) => setTimeout(resolve, 500));
  return found;
})(%s, %s)"""


OWN = """fetch('/ask', {
  method: 'POST',
  headers: { Authorization: `Bearer ${%s}`, 'Content-Type': 'application/json' },
  body: '{"op":"pause"}',
}).then((answer) => answer.status)"""


class Evil(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><body>")

    def log_message(self, *_: object) -> None:
        """Nothing of interest."""


def main() -> None:
    program = chromium()
    if program is None:
        print("skipped: there is no Chromium here (Debian: apt-get install chromium)")
        return
    asked: list[bytes] = []

    def ask(body: bytes) -> bytes:
        asked.append(body)
        return b'{"ok":true}'

    server = PageServer(0, History(), ask)
    evil = ThreadingHTTPServer(("127.0.0.1", 0), Evil)
    threading.Thread(target=evil.serve_forever, daemon=True).start()
    address, _, token = server.url.partition("/#")
    port = address.rpartition(":")[2]
    rule = "--host-resolver-rules=MAP evil.example 127.0.0.1"
    found = {}
    with Browser(program, rule) as browser:
        browser.open(f"http://localhost:{evil.server_address[1]}/")
        found["another port"] = browser.run(TRIES % (json.dumps(address), json.dumps(token)))
        browser.open(f"http://evil.example:{evil.server_address[1]}/")
        rebound = json.dumps(f"http://evil.example:{port}")
        found["a name that leads here"] = browser.run(TRIES % (rebound, json.dumps(token)))
        browser.open(f"http://evil.example:{port}/")
        found["the page by that name"] = browser.run("document.body.textContent.trim()")
        # That the tries are worth something: the same by who may.
        browser.open(server.url)
        own = browser.run(OWN % json.dumps(token))
    own_asked, evil_asked = asked[-1:], asked[:-1]
    evil.shutdown()
    evil.server_close()
    server.close(0.1)
    print(json.dumps({**found, "the page itself": own, "asked": [each.decode() for each in asked]}))
    reached = [v for each in list(found.values())[:2] for v in each.values() if v != "nothing"]
    sys.exit(bool(evil_asked or reached or len(own_asked) != 1))


if __name__ == "__main__":
    main()
