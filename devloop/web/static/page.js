// The page: what happens goes into the state and the log store at once, and on the screen once a
// frame, whatever has come together until then.

import { fillIteration, newIteration } from "./iterations.js";
import { LogStore } from "./logs.js";
import { LogView } from "./log_view.js";
import { clock, count, duration, el, keyed, plain, setText, SIGNS, triggerText } from "./parts.js";
import { newProblem } from "./problems.js";
import { fillService, holdText, newService } from "./services.js";
import { newState, restate, standing, summary, take } from "./state.js";
import { ask, enter, follow } from "./stream.js";

const STEPS = ["scan", "hook", "build", "push", "test", "deploy", "rollout", "sync"];
const WORDS = { connected: "live", lost: "not connected, trying again",
  token: "the address is not this session's", elsewhere: "shown in a newer tab",
  over: "the session has ended" };
const NO_TOKEN = "Open the address that devloop printed, or press o in its terminal.";
const SHOWN = 120; // iterations on the page
const BUDGET = 8; // milliseconds a frame for a new filter
// Milliseconds between two paints, at least and at most, and how many times what one takes: the
// builds want the processor as well.
const PACE = [16, 400];
const SHARE = 10;

const $ = (id) => document.getElementById(id);
const state = newState();
const store = new LogStore();
let token = "";
let changed = true; // the state, since the last frame
let moved = true; // the log lines
let catching = 0; // up to this number all has happened before: nothing is announced
let chosen = ""; // the service whose iterations and logs are shown
let connection = "lost";
let cancelFrame = null;
let free = 0; // when the next paint may be
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
  const wait = document.hidden ? 1000 : free - performance.now();
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
  const began = performance.now();
  paint();
  const ended = performance.now();
  free = ended + Math.min(PACE[1], Math.max(PACE[0], SHARE * (ended - began)));
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

// --- services -------------------------------------------------------------------------------------

function paintServices() {
  const all = [...state.services.values()];
  const find = $("find");
  find.hidden = all.length < 8;
  const words = find.hidden ? "" : find.value.trim().toLowerCase();
  const shown = words ? all.filter((s) => s.name.toLowerCase().includes(words) || standing(s) === words) : all;
  const now = {
    chosen, steerable: connection === "connected" && !state.paused,
    back: state.requests.includes("rollback"),
  };
  const does = { choose: (name) => choose(chosen === name ? "" : name), request };
  keyed($("services"), shown, (s) => s.name, (s) => newService(s, does),
    (item, s) => fillService(item, s, now));
  const names = all.map((s) => s.name).join("\n");
  const of = $("of");
  if (of.dataset.names !== names) {
    of.dataset.names = names;
    of.replaceChildren(el("option", { value: "", textContent: "all services" }),
      ...all.map((s) => el("option", { value: s.name, textContent: plain(s.name) })));
    of.value = chosen;
  }
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
  keyed($("problems"), shown, (p) => p.seq, (p) => newProblem(p, state.session.root, token), () => {});
}

// --- iterations -----------------------------------------------------------------------------------

function paintTimeline() {
  const all = chosen ? state.iterations.filter((i) => i.service === chosen) : state.iterations;
  const shown = all.slice(-SHOWN).reverse();
  const most = Math.max(1, ...shown.map((i) => i.ms || Date.now() - i.since));
  setText($("timeline-title"), chosen ? `Iterations of ${plain(chosen)}` : "Iterations");
  keyed($("timeline"), shown, (i) => i.seq, (i) => newIteration(i, jumpTo),
    (item, i) => fillIteration(item, i, most, chosen));
}

function jumpTo(seq) {
  view.jump(store.indexFrom(seq));
  $("logs").focus();
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
