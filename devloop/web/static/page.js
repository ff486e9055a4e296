// The page: what happens goes into the state and the log store at once, and on the screen once a
// frame, whatever has come together until then.

import { LogStore } from "./logs.js";
import { LogView, hue } from "./log_view.js";
import { clock, count, duration, el, placeOf, plain, servingName, setText, triggerText }
  from "./parts.js";
import { newState, restate, standing, summary, take } from "./state.js";
import { ask, enter, follow, sourceOf } from "./stream.js";

const SIGNS = { ready: "●", failed: "✗", working: "◐", holding: "◌", stopped: "–",
  cancelled: "–", idle: "○" };
const STEPS = ["scan", "test", "build", "push", "deploy", "rollout", "sync"];
const WORDS = { connected: "live", lost: "not connected, trying again",
  token: "the address is not this session's", elsewhere: "shown in a newer tab",
  over: "the session has ended" };
const NO_TOKEN = "Open the address that devloop printed, or press o in its terminal.";
const SHOWN = 120; // iterations on the page
const BUDGET = 8; // milliseconds a frame for a new filter
const PACE = 100; // milliseconds between two paints: the builds want the processor as well

const $ = (id) => document.getElementById(id);
const state = newState();
const store = new LogStore();
const sources = new Map(); // by the number of a diagnostic
let token = "";
let changed = true; // the state, since the last frame
let moved = true; // the log lines
let catching = 0; // up to this number all has happened before: nothing is announced
let chosen = ""; // the service whose iterations and logs are shown
let connection = "lost";
let cancelFrame = null;
let painted = 0;
const told = [];

async function readToken() {
  let given = location.hash.slice(1);
  let kept = "";
  // A browser that devloop started has a ticket, which is good once.
  if (given.startsWith("once-")) given = await enter(given.slice(5));
  try {
    if (given.length > 20) sessionStorage.setItem("devloop-token", given);
    kept = sessionStorage.getItem("devloop-token") || "";
  } catch {
    kept = given; // no storage for this browser
  }
  // Out of sight, and out of what is copied from the address bar.
  if (location.hash) history.replaceState(null, "", location.pathname);
  return given.length > 20 ? given : kept;
}

// --- what comes -----------------------------------------------------------------------------------

const wired = {
  head(facts) {
    catching = Math.max(catching, (facts.state && facts.state.seq) || 0);
    restate(state, facts);
    later();
  },
  records(list) {
    for (const record of list) {
      if (record.type === "log") store.add(record);
      else one(record);
    }
    moved = true;
    later();
  },
  status(word) {
    connection = word;
    changed = true;
    if (word === "token") notice(NO_TOKEN);
    later();
  },
};

function one(record) {
  const said = take(state, record);
  if (said && record.seq > catching) tell(said);
  changed = true;
  const at = Date.parse(record.ts);
  const { seq, service } = record;
  if (record.type === "iteration.started")
    store.mark(seq, at, service, `#${record.iter} ${service}  ${triggerText(record.trigger)}`, "begin");
  else if (record.type === "iteration.finished") {
    const word = record.stopped ? "stopped" : record.outcome;
    store.mark(seq, at, service, `#${record.iter} ${service}  ${word} after ${duration(record.ms)}`, word);
  } else if (record.type === "dropped")
    store.mark(seq, at, "", `… ${count(record.count, "record")} not kept`, "dropped");
}

// Said to who hears the page; the last few, when much happens at once.
function tell(text) {
  told.push(text);
  if (told.length > 3) told.shift();
}

// A tab that nobody looks at has no frames, but its title can be seen.
function later() {
  if (cancelFrame) return;
  const wait = document.hidden ? 1000 : painted + PACE - performance.now();
  if (wait > 0) {
    const timer = setTimeout(document.hidden ? now : nextFrame, wait);
    cancelFrame = () => clearTimeout(timer);
  } else nextFrame();
}

function nextFrame() {
  const frame = requestAnimationFrame(now);
  cancelFrame = () => cancelAnimationFrame(frame);
}

function now() {
  cancelFrame = null;
  painted = performance.now();
  paint();
}

function paint() {
  const until = performance.now() + BUDGET;
  if (store.stale) {
    moved = true;
    if (store.work(() => performance.now() > until)) nextFrame();
    else tell(count(store.shown, "line"));
  }
  if (changed) {
    changed = false;
    paintHead();
    paintServices();
    paintProblems();
    paintTimeline();
  }
  if (moved) {
    moved = false;
    view.paint();
    paintCount();
  }
  if (told.length) setText($("told"), told.splice(0).join(". "));
}

// --- the head -------------------------------------------------------------------------------------

function paintHead() {
  const { project, context, namespace, registry } = state.session;
  setText($("project"), project || "devloop");
  setText($("where"), project ? `${context} · ${namespace} · ${registry}` : "asking the cluster, its registry and Docker");
  const counts = summary(state);
  keyed($("summary"), counts, ([word]) => word, () => el("li"), (item, [word, n]) => {
    item.dataset.is = word;
    setText(item, `${SIGNS[word]} ${n} ${word}`);
  });
  const is = state.ended ? "over" : connection;
  $("connection").dataset.is = is;
  const why = state.ended && state.ended.why ? `: ${state.ended.why}` : "";
  setText($("connection"), WORDS[is] + (is === "over" ? why : ""));
  setText($("pause"), state.paused ? "Resume" : "Pause");
  const dead = is !== "connected";
  for (const id of ["rebuild", "pause", "back"]) $(id).disabled = dead;
  $("rebuild").disabled = $("back").disabled = dead || Boolean(state.paused);
  $("back").hidden = !state.requests.includes("rollback");
  const worst = counts[0];
  document.title = worst ? `${SIGNS[worst[0]]} ${project} · ${worst[0]}` : project || "devloop";
  const holds = [...state.services.values()].filter((s) => s.hold && s.state === "holding");
  const shown = state.paused ? [{ name: "", text: state.paused.reason }] : [];
  for (const s of holds.slice(0, 4)) shown.push({ name: s.name, text: holdText(s.hold) });
  if (holds.length > 4) shown.push({ name: " ", text: `and ${count(holds.length - 4, "service")} more wait` });
  keyed($("holds"), shown, (h) => h.name, () => el("li"), (item, { name, text }) => {
    setText(item, `${SIGNS.holding} ${name.trim() ? `${plain(name)}: ` : ""}${plain(text)}`);
  });
}

function holdText({ reason, until, since, attempt }) {
  if (until === null) return reason;
  const left = Math.round(until - (Date.now() - since) / 1000);
  return `${reason}; next try ${left > 0 ? `in ${left} s` : "now"}${attempt > 1 ? `, try ${attempt}` : ""}`;
}

// --- services -------------------------------------------------------------------------------------

function paintServices() {
  const all = [...state.services.values()];
  const find = $("find");
  find.hidden = all.length < 8;
  const words = find.hidden ? "" : find.value.trim().toLowerCase();
  const shown = words ? all.filter((s) => s.name.toLowerCase().includes(words) || standing(s) === words) : all;
  keyed($("services"), shown, (s) => s.name, newService, fillService);
  const names = all.map((s) => s.name).join("\n");
  const of = $("of");
  if (of.dataset.names !== names) {
    of.dataset.names = names;
    of.replaceChildren(el("option", { value: "", textContent: "all services" }),
      ...all.map((s) => el("option", { value: s.name, textContent: plain(s.name) })));
    of.value = chosen;
  }
}

function newService({ name }) {
  const only = el("button", { type: "button", className: "name", aria: { pressed: "false" } });
  only.title = "Its iterations and logs alone";
  only.addEventListener("click", () => choose(chosen === name ? "" : name));
  const again = el("button", { type: "button", className: "small", textContent: "Rebuild",
    aria: { label: `Rebuild ${name}` } });
  again.addEventListener("click", () => request({ op: "trigger", service: name }, `${name} is built again`));
  const back = el("button", { type: "button", className: "small", textContent: "Back", hidden: true,
    aria: { label: `${name} back to its last good image` } });
  back.title = "To the last image that was ready, until the next save";
  back.addEventListener("click", () => request({ op: "rollback", service: name }, `${name} goes back`));
  const item = el("li", { className: "service" }, el("span", { className: "sign", aria: { hidden: true } }),
    only, el("span", { className: "serving" }), el("span", { className: "does" }, again, back),
    el("p", { className: "why" }), el("p", { className: "more" }));
  [item.sign, item.only, item.serving, , item.why, item.more] = item.children;
  Object.assign(item, { again, back });
  return item;
}

function fillService(item, s) {
  const word = standing(s);
  item.dataset.is = word;
  setText(item.sign, SIGNS[word]);
  setText(item.only, plain(s.name));
  item.only.setAttribute("aria-pressed", chosen === s.name);
  setText(item.serving, s.serving ? servingName(s.serving) : "");
  item.serving.title = s.serving ? `serves ${s.serving.image}` : "";
  item.again.disabled = item.back.disabled = connection !== "connected" || Boolean(state.paused);
  item.back.hidden = !state.requests.includes("rollback");
  setText(item.why, whyOf(s, word));
  const ports = [...s.ports].map(([local]) => local).join(" ");
  const pods = podsOf(s);
  if (item.more.dataset.says !== `${ports}|${pods}`) {
    item.more.dataset.says = `${ports}|${pods}`;
    item.more.replaceChildren(...[...s.ports].flatMap(([local]) => {
      const url = `http://localhost:${local}`;
      return [el("a", { href: url, target: "_blank", rel: "noreferrer", textContent: `localhost:${local}` }), " "];
    }), pods);
  }
  item.more.hidden = !ports && !pods;
}

function podsOf({ pods }) {
  const all = [...pods.values()].filter((p) => !p.deleting);
  if (!all.length) return "";
  const ready = all.filter((p) => p.ready).length;
  const trouble = all.find((p) => !p.ready && p.reason && !/^(ContainerCreating|PodInitializing|Completed)$/.test(p.reason));
  const restarts = all.reduce((sum, p) => sum + (p.restarts || 0), 0);
  return [`${ready}/${all.length} ready`, trouble && trouble.reason, restarts && count(restarts, "restart")]
    .filter(Boolean).join(", ");
}

function whyOf(s, word) {
  const text = said(s, word);
  return plain(text.length > 300 ? `${text.slice(0, 300)}…` : text);
}

function said(s, word) {
  if (word === "working") {
    if (!s.step) return `#${s.iter} begins`;
    const took = duration(Math.max(0, Date.now() - s.stepSince));
    return `#${s.iter} ${s.step} ${took}${s.progress ? `  ${s.progress}` : ""}`;
  }
  if (word === "holding") return `#${s.iter} ${holdText(s.hold)}`;
  const waits = s.hold ? `${s.hold.reason}. ` : "";
  if (s.outcome === null) return waits || "nothing yet";
  const took = s.ms === null ? "" : ` in ${duration(s.ms)}`;
  const what = s.trigger ? ` ${triggerText(s.trigger)}:` : "";
  if (s.outcome === "ready") return `${waits}#${s.iter}${what} ready${took}`;
  if (s.outcome === "unchanged") return `${waits}#${s.iter} nothing to do: ${s.why}`;
  const still = s.serving ? `, still serving ${servingName(s.serving)}` : "";
  const at = s.failedStep ? ` at ${s.failedStep}` : "";
  return `${waits}#${s.iter} ${s.outcome}${at}${took}${s.why ? `: ${s.why}` : ""}${still}`;
}

function choose(name) {
  chosen = name;
  $("of").value = name;
  changed = true;
  filter();
}

// --- problems -------------------------------------------------------------------------------------

function paintProblems() {
  const order = { error: 0, warning: 1 };
  const shown = [...state.problems].sort((a, b) => order[a.severity] - order[b.severity] || b.seq - a.seq).slice(0, 50);
  $("problems-part").hidden = !shown.length;
  setText($("problems-title"), shown.length ? count(state.problems.length, "problem") : "Problems");
  keyed($("problems"), shown, (p) => p.seq, newProblem, () => {});
}

function newProblem(p) {
  const place = p.location ? placeOf(state.session.root, p.location) : "";
  const source = el("pre", { className: "source", hidden: true, tabIndex: 0 });
  const item = el("li", { className: "problem", data: { is: p.severity } },
    el("p", { className: "what" },
      el("b", {}, p.severity === "error" ? "✗ " : "! ", plain(p.message)),
      el("span", { className: "code" }, p.service ? `${plain(p.service)} ` : "", `[${p.code}]`)),
    place ? el("p", { className: "place" }, plain(place)) : "",
    source,
    p.detail.length ? el("pre", {}, p.detail.map(plain).join("\n")) : "",
    p.cause ? labelled("cause", p.cause) : "",
    ...p.suggestions.map((text, i) => labelled(i ? "" : "try", text)));
  if (p.location && p.location.line) showSource(p, source);
  return item;
}

function labelled(label, text) {
  return el("p", { className: "said" }, el("span", { className: "label" }, label), el("span", {}, plain(text)));
}

async function showSource(p, to) {
  if (!sources.has(p.seq)) {
    if (sources.size > 200) sources.clear();
    sources.set(p.seq, sourceOf(token, p.seq).catch(() => ({ lines: [] })));
  }
  const { first, meant, lines } = await sources.get(p.seq);
  if (!lines.length) return;
  const width = String(first + lines.length).length;
  to.replaceChildren(...lines.map((text, i) => {
    const number = first + i;
    return el("span", { className: number === meant ? "meant" : "" },
      `${number === meant ? ">" : " "} ${String(number).padStart(width)} │ ${plain(text)}\n`);
  }));
  to.hidden = false;
}

// --- iterations -----------------------------------------------------------------------------------

function paintTimeline() {
  const all = chosen ? state.iterations.filter((i) => i.service === chosen) : state.iterations;
  const shown = all.slice(-SHOWN).reverse();
  const most = Math.max(1, ...shown.map((i) => i.ms || Date.now() - i.since));
  setText($("timeline-title"), chosen ? `Iterations of ${plain(chosen)}` : "Iterations");
  keyed($("timeline"), shown, (i) => i.seq, newIteration, (item, i) => fillIteration(item, i, most));
}

function newIteration(i) {
  const item = el("li", { className: "iteration" });
  const jump = el("button", { type: "button", className: "jump" });
  jump.title = "Its logs";
  jump.addEventListener("click", () => {
    view.jump(store.indexFrom(i.seq));
    $("logs").focus();
  });
  const [number, of, what] = ["number", "of", "what"].map((c) => el("span", { className: c }));
  jump.append(number, of, what);
  const bar = el("div", { className: "steps", aria: { hidden: true } });
  const end = el("span", { className: "end" });
  const detail = el("p", { className: "detail" });
  item.append(jump, end, bar, detail);
  setText(number, `#${i.iter}`);
  setText(of, plain(i.service));
  of.style.setProperty("--hue", hue(i.service));
  Object.assign(item, { what, bar, end, detail });
  return item;
}

// Bars are as long as the square root of the time: a first start of a minute and a save of half a
// second are both to be seen.
function fillIteration(item, i, most) {
  const now = Date.now();
  const going = i.outcome === null;
  const total = going ? Math.max(1, now - i.since) : i.ms;
  const word = going ? "working" : i.outcome;
  const says = `${word}|${Math.round(total)}|${Math.round(most)}|${i.steps.length}|${i.step}|${chosen}|${i.trigger.asked}`;
  if (item.says === says) return;
  item.says = says;
  item.dataset.is = word;
  setText(item.what, plain(triggerText(i.trigger)));
  setText(item.end, `${SIGNS[word] || "○"} ${word === "working" ? i.step || "begins" : word} ${duration(total)}  ${clock(i.since)}`);
  const steps = i.steps.filter((s) => s.ms >= 1);
  if (going && i.step) steps.push({ step: i.step, ms: now - i.stepSince, outcome: "going" });
  const sum = Math.max(total, steps.reduce((all, s) => all + s.ms, 0), 1);
  item.bar.style.width = `${Math.max(1, 100 * Math.sqrt(total / most))}%`;
  while (item.bar.childElementCount > steps.length) item.bar.lastChild.remove();
  steps.forEach((s, n) => {
    const part = item.bar.children[n] || item.bar.appendChild(el("span"));
    part.dataset.step = s.step;
    part.dataset.outcome = s.outcome;
    part.style.width = `${(100 * s.ms) / sum}%`;
    part.title = `${s.step} ${duration(s.ms)}${s.detail ? `: ${plain(s.detail)}` : ""}`;
  });
  const texts = i.steps.filter((s) => s.step !== "scan" && s.outcome !== "cancelled")
    .map((s) => `${s.step} ${s.outcome === "done" ? duration(s.ms) : s.outcome}${chosen && s.detail ? ` (${plain(s.detail)})` : ""}`);
  const why = word === "ready" ? "" : plain(i.why || "");
  setText(item.detail, [texts.join("  "), why, i.rolledBack ? "rolled back" : "", ...i.notes.map(plain)].filter(Boolean).join(" · "));
}

// --- logs -----------------------------------------------------------------------------------------

const view = new LogView($("logs"), store, {
  onMoved: () => paintCount(),
  onPicked: (line, open) => {
    if (!line) $("line").hidden = true;
    else if (open || !$("line").hidden) showLine(line);
  },
});

function showLine(line) {
  const close = el("button", { type: "button", className: "small", textContent: "Close" });
  close.addEventListener("click", () => {
    view.pick(null, false);
    $("logs").focus();
  });
  const where = [clock(line.at, true), line.service, line.pod, line.container].filter(Boolean).join("  ");
  $("line").replaceChildren(el("div", { className: "bar" }, el("span", {}, plain(where)), close),
    el("pre", {}, plain(line.text)));
  $("line").hidden = false;
}

function paintCount() {
  const of = store.shown === store.size ? count(store.size, "line")
    : `${store.shown.toLocaleString("en")} of ${count(store.size, "line")}`;
  setText($("lines"), of);
  $("follow").hidden = view.following;
}

function filter() {
  store.setFilter($("of").value, Number($("level").value), $("search").value);
  moved = true;
  view.anew();
  later();
}

// --- what a person does ---------------------------------------------------------------------------

let noticed = 0;

function notice(text, seconds = 0) {
  clearTimeout(noticed);
  $("notice").hidden = !text;
  setText($("notice"), plain(text));
  if (text && seconds) noticed = setTimeout(() => notice(""), seconds * 1000);
}

async function request(what, done) {
  try {
    await ask(token, what);
    notice("");
    tell(done);
    later();
  } catch (error) {
    notice(error.message, 12);
  }
}

$("rebuild").addEventListener("click", () => request({ op: "trigger" }, "all services are built again"));
$("back").addEventListener("click", () => request({ op: "rollback" }, "back to the last good image"));
$("pause").addEventListener("click", () => (state.paused
  ? request({ op: "resume" }, "resumed") : request({ op: "pause" }, "paused")));
$("find").addEventListener("input", () => { changed = true; later(); });
$("of").addEventListener("change", () => choose($("of").value));
$("level").addEventListener("change", filter);
$("search").addEventListener("input", filter);
$("search").addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    $("search").value = "";
    filter();
  } else if (event.key !== "Enter") return;
  event.preventDefault();
  $("logs").focus();
});
$("follow").addEventListener("click", () => { view.follow(); $("logs").focus(); });
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea")) return;
  event.preventDefault();
  $("search").focus();
  $("search").select();
});
// The address of another session, opened where this one was.
addEventListener("hashchange", () => {
  if (location.hash.length > 20) location.reload();
});
addEventListener("visibilitychange", () => {
  if (cancelFrame) cancelFrame();
  cancelFrame = null;
  if (connection === "elsewhere" && !document.hidden) start();
  later();
});

// What goes on shows how long it has; nothing is drawn for who does not look.
const still = matchMedia("(prefers-reduced-motion: reduce)");

function tick() {
  const busy = [...state.services.values()].some((s) => s.state !== "idle");
  if (busy && !document.hidden) {
    changed = true;
    later();
  }
  setTimeout(tick, still.matches ? 1000 : 200);
}

// The children of `list`, one for each of `items`, made once and moved only where the order is
// another.
function keyed(list, items, key, make, fill) {
  const known = list.known || (list.known = new Map());
  const wanted = new Set(items.map(key));
  for (const [name, node] of known) {
    if (!wanted.has(name)) {
      node.remove();
      known.delete(name);
    }
  }
  let at = list.firstChild;
  for (const item of items) {
    const name = key(item);
    let node = known.get(name);
    if (!node) known.set(name, (node = make(item)));
    fill(node, item);
    if (node === at) at = at.nextSibling;
    else list.insertBefore(node, at);
  }
}

async function start() {
  token = (await readToken()) || token;
  if (!token) {
    connection = "token";
    notice(NO_TOKEN);
    return later();
  }
  return follow(token, wired);
}

$("legend").append(...STEPS.map((step) => el("li", { data: { step } }, step)));
tick();
start();
