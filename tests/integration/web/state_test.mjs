// Run by test_page_scripts.py, in node: what the page makes of a stream, without a browser.

import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";

const at = (name) => import(pathToFileURL(`${process.argv[2]}/${name}.js`).href);
const { newState, restate, standing, summary, take } = await at("state");
const { LogStore, levelOf } = await at("logs");
const { Parser, follow } = await at("stream");
const { coloured, duration, plain, triggerText } = await at("parts");

let seq = 0;
const record = (type, more) => ({ v: 1, seq: ++seq, ts: "2026-11-23T14:31:07.112Z", type, ...more });
const SERVING = { iter: 1, image: "x:1", digest: "sha256:9f2c41aa", fingerprint: "" };
const begun = () => record("session.started", { project: "shop", root: "/shop", services: ["web", "api"] });
const start = (iter, service) => record("iteration.started", { iter, service,
  trigger: { kind: "files", paths: ["a.py"], count: 2 } });
const end = (iter, service, outcome, more) => record("iteration.finished", { iter, service, outcome,
  ms: 1900, digest: null, serving: SERVING, why: "", failed_step: null, rolled_back: false,
  stopped: false, ...more });
const problem = (service, code, more) => record("diagnostic", { code, severity: "error", message: "m",
  location: null, cause: null, suggestions: [], detail: [], iter: null, service, step: null, ...more });

const tests = {
  "an iteration goes from its start to its end"() {
    const s = newState();
    take(s, begun());
    take(s, start(1, "web"));
    assert.equal(standing(s.services.get("web")), "working");
    take(s, record("step.started", { iter: 1, service: "web", step: "build" }));
    take(s, record("step.progress", { iter: 1, service: "web", step: "build", message: "RUN x", current: 4, total: 12 }));
    assert.equal(s.services.get("web").progress, "4/12 RUN x");
    take(s, record("step.progress", { iter: 1, service: "web", step: "build", message: "[4/12] RUN x", current: 4, total: 12 }));
    assert.equal(s.services.get("web").progress, "4/12 RUN x");
    take(s, record("step.progress", { iter: 1, service: "web", step: "push", message: "layer", current: 512, total: 9573 }));
    assert.equal(s.services.get("web").progress, "5% layer");
    take(s, record("step.finished", { iter: 1, service: "web", step: "build", outcome: "done", ms: 900, detail: "d" }));
    assert.equal(take(s, end(1, "web", "ready")), "web is ready");
    assert.equal(standing(s.services.get("web")), "ready");
    assert.deepEqual(s.iterations[0].steps, [{ step: "build", outcome: "done", ms: 900, detail: "d" }]);
    assert.deepEqual(summary(s), [["ready", 1], ["idle", 1]]);
    assert.equal(triggerText(s.iterations[0].trigger), "a.py and 1 more");
  },
  "what somebody else changed is a problem until it is as before"() {
    const s = newState();
    take(s, begun());
    take(s, end(1, "web", "ready"));
    take(s, problem("web", "safety/changed-outside", { severity: "warning" }));
    assert.equal(s.services.get("web").serving, null);
    take(s, problem("web", "safety/changed-outside", { severity: "info" }));
    assert.equal(s.problems.length, 0);
  },
  "problems of a service go when its next iteration begins, those of others stay"() {
    const s = newState();
    take(s, begun());
    take(s, problem("web", "build/failed"));
    take(s, problem("api", "build/failed"));
    take(s, problem("api", "build/cache-mounts", { severity: "info" }));
    take(s, start(2, "web"));
    assert.deepEqual(s.problems.map((p) => p.service), ["api"]);
  },
  "what is wrong with the configuration is what the last check found"() {
    const s = newState();
    take(s, problem(null, "config/type"));
    assert.equal(s.problems.length, 0);
    take(s, record("config.checked", { valid: false }));
    assert.equal(s.problems.length, 1);
    take(s, problem(null, "env/control"));
    take(s, record("config.checked", { valid: true }));
    assert.deepEqual(s.problems.map((p) => p.code), ["env/control"]);
  },
  "a pause, a hold in it, and the end of both"() {
    const s = newState();
    take(s, begun());
    take(s, record("session.paused", { reason: "paused" }));
    take(s, record("hold", { service: "web", iter: null, reason: "a change waits", code: "", until: null, attempt: 1 }));
    assert.equal(standing(s.services.get("web")), "idle");
    assert.equal(s.services.get("web").hold.reason, "a change waits");
    take(s, record("session.resumed", {}));
    assert.equal(s.paused, null);
    assert.equal(s.services.get("web").hold, null);
    take(s, start(3, "web"));
    take(s, record("hold", { service: "web", iter: 3, reason: "r", code: "registry/unreachable", until: 4, attempt: 1 }));
    assert.equal(standing(s.services.get("web")), "holding");
  },
  "the state so far and the records behind it lead to the same, whichever are kept"() {
    const all = [begun(), start(1, "web"), end(1, "web", "ready"),
      record("pod.changed", { service: "web", pod: "a", phase: "Running", ready: true, deleting: false, reason: "", restarts: 0 }),
      record("pod.changed", { service: "web", pod: "a", phase: "Gone", ready: false, deleting: true, reason: "", restarts: 0 }),
      record("pod.changed", { service: "web", pod: "b", phase: "Running", ready: true, deleting: false, reason: "", restarts: 0 }),
      start(2, "web"), end(2, "web", "failed", { failed_step: "build", why: "w" })];
    const head = { services: ["web", "api"], requests: ["trigger"], state: { started: "t", project: "shop",
      services: { web: { iter: 2, state: "idle", step: null, outcome: "failed", failed_step: "build", ms: 1900,
        why: "w", digest: null, serving: SERVING, hold: null, pods: { b: { phase: "Running", ready: true } } } } } };
    const pick = ({ iter, outcome, failedStep, why, serving, pods }) => ({ iter, outcome, failedStep, why, serving, pods: [...pods.keys()] });
    const whole = newState();
    for (const each of all) take(whole, each);
    for (let from = 0; from <= all.length; from++) {
      const s = newState();
      restate(s, head);
      for (const each of all.slice(from)) take(s, each);
      assert.deepEqual(pick(s.services.get("web")), pick(whole.services.get("web")), `from ${from}`);
      assert.deepEqual([...s.services.keys()], ["web", "api"]);
    }
  },
  "what is kept is bounded"() {
    const s = newState();
    for (let i = 0; i < 1000; i++) {
      take(s, start(i, "web"));
      take(s, problem("api", "build/failed"));
    }
    assert.equal(s.iterations.length, 300);
    assert.equal(s.problems.length, 300);
    assert.equal(s.iterations.at(-1).iter, 999);
  },
  "an iteration that somebody asked for says so"() {
    const s = newState();
    take(s, record("iteration.started", { iter: 1, service: "web", trigger: { kind: "retry", paths: [], count: 0 } }));
    assert.equal(triggerText(s.iterations[0].trigger), "retry");
    take(s, record("trigger.taken", { iter: 1, service: "web", ids: [1] }));
    assert.equal(triggerText(s.iterations[0].trigger), "asked for");
    assert.equal(triggerText(s.services.get("web").trigger), "asked for");
  },
  "services come and go with the configuration"() {
    const s = newState();
    take(s, begun());
    take(s, problem("api", "build/failed"));
    take(s, record("config.reloaded", { changed: [], services: { added: ["new"], removed: ["api"], changed: [] }, restart: [] }));
    assert.deepEqual([...s.services.keys()], ["web", "new"]);
    assert.equal(s.problems.length, 0);
    restate(s, { services: ["new"], state: {} });
    assert.deepEqual([...s.services.keys()], ["new"]);
    assert.equal(triggerText({ kind: "config", paths: ["services.web.build.args.X"], count: 1 }), "services.web.build.args.X");
    assert.equal(triggerText({ kind: "rollback", paths: [], count: 0, to: 4 }), "back to #4");
  },
  "unknown records are ignored"() {
    assert.equal(take(newState(), record("something.new", { x: 1 })), "");
  },
  "a stream that comes in any pieces is the same stream"() {
    const text = 'event: state\ndata: {"a":1}\n\n: still here\n\nid: 2\ndata: {"seq":1}\ndata: {"seq":2}\n\nid: 9\ndata: {"s';
    const whole = [{ event: "state", id: null, data: ['{"a":1}'] },
      { event: "message", id: 2, data: ['{"seq":1}', '{"seq":2}'] }];
    for (let size = 1; size <= text.length; size++) {
      const parser = new Parser();
      const found = [];
      for (let i = 0; i < text.length; i += size) found.push(...parser.push(text.slice(i, i + size)));
      assert.deepEqual(found, whole);
    }
  },
  async "after a lost connection it goes on behind the last whole piece, and stops at the end"() {
    const answers = [
      'event: state\ndata: {}\n\nid: 2\ndata: {"seq":1,"type":"a"}\ndata: {"seq":2,"type":"a"}\n\nid: 3\ndata: {"seq":3,',
      'event: state\ndata: {}\n\nid: 4\ndata: {"seq":3,"type":"a"}\ndata: {"seq":4,"type":"session.ended"}\n\n'];
    const asked = [];
    const real = globalThis.fetch;
    globalThis.fetch = async (url, { headers }) => {
      asked.push([url, headers.Authorization]);
      return new Response(answers.shift());
    };
    const got = [];
    const words = [];
    await follow("t", { head: () => {}, records: (list) => got.push(...list.map((r) => r.seq)), status: (w) => words.push(w) });
    assert.deepEqual(got, [1, 2, 3, 4]);
    assert.deepEqual(asked, [["/events?after=0", "Bearer t"], ["/events?after=2", "Bearer t"]]);
    assert.deepEqual(words, ["connected", "lost", "connected", "over"]);
    globalThis.fetch = async () => new Response("", { status: 401 });
    words.length = 0;
    await follow("old", { head: () => {}, records: () => {}, status: (w) => words.push(w) });
    assert.deepEqual(words, ["token"]);
    globalThis.fetch = real;
  },
  "log lines are kept up to a number and a size, and what is shown goes along"() {
    const store = new LogStore(10_000, 1e9);
    const line = (n, more) => ({ seq: n, ts: "2026-11-23T14:31:07.1Z", service: n % 2 ? "web" : "api", pod: "p", container: "c", text: `INFO line ${n}`, ...more });
    for (let n = 1; n <= 25_500; n++) store.add(line(n));
    assert.ok(store.size <= 10_000 && store.size > 8_900, String(store.size));
    assert.equal(store.shown, store.size);
    assert.equal(store.takeGone(), 25_500 - store.size);
    assert.equal(store.line(store.shown - 1).seq, 25_500);
    store.setFilter("web", 0, "");
    while (store.work(() => true)) store.add(line(seq = (seq > 25_500 ? seq : 25_500) + 1));
    const seqs = store.slice(0, store.shown).map((l) => l.seq);
    assert.ok(seqs.every((n, i) => n % 2 === 1 && (i === 0 || n > seqs[i - 1])));
    assert.equal(store.line(store.indexFrom(20_000)).seq, 20_001);
    assert.equal(store.indexFrom(1e9), store.shown);
    store.setFilter("", 0, "LINE 25499");
    while (store.work(() => false));
    assert.deepEqual(store.slice(0, 5).map((l) => l.seq), [25_499]);
    const small = new LogStore(100_000, 50_000);
    for (let n = 1; n <= 5_000; n++) small.add(line(n));
    assert.ok(small.text <= 50_000 + 20_000, String(small.text));
  },
  "a filter that is worked through while lines come has each once"() {
    const store = new LogStore();
    const add = (n) => store.add({ seq: n, ts: "", service: "s", pod: "p", container: "c", text: `x${n % 3}` });
    for (let n = 1; n <= 4_500; n++) add(n);
    store.setFilter("", 0, "x1");
    let n = 4_500;
    for (let more = true; more; ) {
      for (let i = 0; i < 700; i++) add(++n);
      more = store.work(() => true);
    }
    const seqs = store.slice(0, 1e6).map((l) => l.seq);
    assert.deepEqual(seqs, Array.from({ length: n }, (_, i) => i + 1).filter((i) => i % 3 === 1));
    assert.equal(store.shown, seqs.length);
  },
  "levels are found where loggers put them, and what belongs to a line has its level"() {
    const levels = [["2026-01-01 ERROR x", 4], ["[warn] x", 3], ['{"level":"info"}', 2], ['{"level":50}', 4],
      ["level=debug msg=error-free", 1], ["E1130 12:00:00.1 x.go:1] y", 4], ["GET / 200", 0], ["terror", 0],
      ["Traceback (most recent call last):", 4], ["FATAL", 4]];
    for (const [text, level] of levels) assert.equal(levelOf(text), level, text);
    const store = new LogStore();
    const add = (text) => store.add({ seq: ++seq, ts: "", service: "s", pod: "p", container: "c", text });
    for (const text of ["INFO a", "Traceback (most recent call last):", '  File "x"', "NameError: y", "plain", "DEBUG b"]) add(text);
    const shown = (level) => {
      store.setFilter("", level, "");
      while (store.work(() => false));
      return store.slice(0, 99).map((l) => l.text);
    };
    assert.deepEqual(shown(4), ["Traceback (most recent call last):", '  File "x"', "NameError: y"]);
    assert.deepEqual(shown(2).length, 5);
  },
  "text from elsewhere is harmless and keeps its colours"() {
    assert.equal(plain("a\x1b]52;c;x\x07b\x1b[2Jc\x00\u202ed"), "abc\\x00\\u202ed");
    assert.deepEqual(coloured("plain"), [["plain", ""]]);
    assert.deepEqual(coloured("\x1b[1;31mred\x1b[0m \x1b[38;5;2mgreen\x1b[39m\x1b[48;2;1;2;3mx"),
      [["red", "c1 bold"], [" ", ""], ["green", "c2"], ["x", ""]]);
    assert.equal(coloured("a\rb").map(([t]) => t).join(""), "a\\x0db");
  },
  "times are worded as in the terminal"() {
    assert.deepEqual([20, 940, 59_949, 125_000, 8_040_000].map(duration), ["0.02 s", "0.9 s", "59.9 s", "2 m 05 s", "2 h 14 m"]);
  },
};

for (const [name, test] of Object.entries(tests)) {
  try {
    await test();
  } catch (error) {
    console.error(`${name}: ${error.stack}`);
    process.exitCode = 1;
  }
}
console.log(`${Object.keys(tests).length} tests`);
