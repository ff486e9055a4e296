// What the records so far say of the session. No DOM, no clock: tests run it without a browser.
// The records are those of `devloop schema events`; what is not known is ignored.

const ITERATIONS = 300;
const PROBLEMS = 300;

export function newState() {
  return {
    session: {},
    services: new Map(),
    iterations: [], // the oldest first
    problems: [], // errors and warnings that stand
    unchecked: [], // of the configuration, since it was checked last
    paused: null,
    ended: null,
    requests: [],
  };
}

function service(state, name) {
  let found = state.services.get(name);
  if (!found) {
    found = {
      name, state: "idle", iter: null, step: null, stepSince: 0, progress: "", outcome: null,
      failedStep: null, ms: null, why: "", serving: null, hold: null, since: 0,
      trigger: null, pods: new Map(), ports: new Map(),
    };
    state.services.set(name, found);
  }
  return found;
}

// The head of a stream: what the session has come to. Records that follow lead to the same.
export function restate(state, head) {
  const said = head.state || {};
  state.requests = head.requests || [];
  const names = head.services || [];
  if (names.length) for (const name of state.services.keys()) if (!names.includes(name)) forget(state, name);
  for (const name of names) service(state, name);
  if (said.started) state.session = { ...state.session, ...facts(said) };
  state.paused = said.paused || null;
  for (const [name, one] of Object.entries(said.services || {})) {
    const found = service(state, name);
    Object.assign(found, {
      state: one.state, iter: one.iter, step: one.step, outcome: one.outcome,
      failedStep: one.failed_step, ms: one.ms, why: one.why, serving: one.serving,
      hold: one.hold && { until: null, since: 0, ...one.hold },
      pods: new Map(Object.entries(one.pods || {})),
    });
  }
}

function forget(state, name) {
  state.services.delete(name);
  state.problems = state.problems.filter((p) => p.service !== name);
}

function facts({ project, version, context, namespace, registry, root, mode }) {
  return { project, version, context, namespace, registry, root, mode };
}

// Takes one record in. Returns what a person should be told at once, "" for nothing.
export function take(state, record) {
  const at = Date.parse(record.ts);
  switch (record.type) {
    case "session.started":
      state.session = facts(record);
      for (const name of record.services) service(state, name);
      return "";
    case "session.paused":
      state.paused = { reason: record.reason };
      return "paused";
    case "session.resumed":
      state.paused = null;
      for (const one of state.services.values()) if (one.state === "idle") one.hold = null;
      return "resumed";
    case "session.ended":
      state.ended = { code: record.exit_code, why: record.why };
      return "the session has ended";
    case "iteration.started":
      return started(state, record, at);
    case "trigger.taken": {
      // It comes behind the iteration that it speaks of.
      const iteration = iterationOf(state, record.iter);
      if (iteration) iteration.trigger = { ...iteration.trigger, asked: true };
      const one = service(state, record.service);
      if (iteration && one.iter === record.iter) one.trigger = iteration.trigger;
      return "";
    }
    case "step.started":
    case "step.progress":
    case "step.finished":
      return step(state, record, at);
    case "iteration.finished":
      return finished(state, record, at);
    case "diagnostic":
      return diagnostic(state, record);
    case "config.checked":
      state.problems = state.problems.filter((p) => p.service || !p.code.startsWith("config/"));
      add(state.problems, PROBLEMS, ...state.unchecked);
      state.unchecked = [];
      return record.valid ? "the configuration is valid" : "the configuration is broken";
    case "config.reloaded":
      for (const name of record.services.removed) forget(state, name);
      for (const name of record.services.added) service(state, name);
      return "devloop.yaml is taken over";
    case "hold":
      return hold(state, record, at);
    case "pod.changed": {
      const { pods } = service(state, record.service);
      if (record.phase === "Gone") pods.delete(record.pod);
      else pods.set(record.pod, record);
      return "";
    }
    case "forward.changed": {
      const { ports } = service(state, record.service);
      if (record.state === "closed") ports.delete(record.local);
      else {
        const { port, state: now, reason: why, debugger: kind = "" } = record;
        ports.set(record.local, { port, state: now, why, debugger: kind });
      }
      return "";
    }
    default:
      return "";
  }
}

function add(list, most, ...more) {
  list.push(...more);
  if (list.length > most) list.splice(0, list.length - most);
}

function iterationOf(state, number) {
  for (let i = state.iterations.length - 1; i >= 0; i--)
    if (state.iterations[i].iter === number) return state.iterations[i];
  return null;
}

function started(state, record, at) {
  const one = service(state, record.service);
  Object.assign(one, { iter: record.iter, state: "working", step: null, hold: null, since: at,
    progress: "", trigger: record.trigger });
  state.problems = state.problems.filter((p) => p.service !== record.service);
  add(state.iterations, ITERATIONS, {
    iter: record.iter, service: record.service, trigger: record.trigger, since: at,
    seq: record.seq, steps: [], step: null, stepSince: 0, outcome: null, ms: null, why: "",
    failedStep: null, notes: [],
  });
  return "";
}

// As ui/text.py has it: each count once, bytes as a share.
function progress({ step: name, current, total, message }) {
  if (!current && !(total && current === 0)) return message;
  let where = `${current}${total ? `/${total}` : ""}`;
  if (name === "push" && total) where = `${Math.min(100, Math.floor((100 * current) / total))}%`;
  const said = message.startsWith(`[${where}] `) ? message.slice(where.length + 3) : message;
  return said.startsWith(where) ? said : `${where} ${said}`;
}

function step(state, record, at) {
  const one = service(state, record.service);
  const iteration = record.iter === null ? null : iterationOf(state, record.iter);
  if (record.type === "step.progress") {
    one.progress = progress(record);
    return "";
  }
  const going = record.type === "step.started" ? record.step : null;
  for (const each of [one, iteration])
    if (each) Object.assign(each, { step: going, stepSince: at });
  one.progress = "";
  if (going) Object.assign(one, { state: "working", hold: null });
  else if (iteration) {
    const { step: name, outcome, ms, detail } = record;
    iteration.steps.push({ step: name, outcome, ms, detail });
  }
  return "";
}

function finished(state, record) {
  const outcome = record.stopped ? "stopped" : record.outcome;
  const told = { outcome, ms: record.ms, why: record.why, failedStep: record.failed_step,
    step: null };
  const one = service(state, record.service);
  Object.assign(one, told, { iter: record.iter, state: "idle", hold: null, progress: "",
    serving: record.serving });
  const iteration = iterationOf(state, record.iter);
  if (iteration) Object.assign(iteration, told, { rolledBack: record.rolled_back });
  if (outcome === "ready") return `${record.service} is ready`;
  if (outcome === "failed") return `${record.service} failed at ${record.failed_step || "start"}`;
  return "";
}

function diagnostic(state, record) {
  const outside = record.code === "safety/changed-outside" && record.service && record.iter === null;
  if (outside && record.severity !== "info") service(state, record.service).serving = null;
  if (record.severity === "info") {
    // As it was before somebody else changed it.
    if (outside) state.problems = state.problems.filter((p) => p.code !== record.code || p.service !== record.service);
    const iteration = record.iter === null ? null : iterationOf(state, record.iter);
    if (iteration) iteration.notes.push(record.message);
    return "";
  }
  if (!record.service && record.code.startsWith("config/")) add(state.unchecked, PROBLEMS, record);
  else add(state.problems, PROBLEMS, record);
  return "";
}

function hold(state, record, at) {
  const one = service(state, record.service);
  const again = one.hold !== null && one.hold.code === record.code;
  one.hold = { reason: record.reason, code: record.code, until: record.until,
    attempt: record.attempt, since: at };
  if (record.iter !== null) Object.assign(one, { state: "holding", step: null });
  return again || record.attempt > 1 ? "" : `${record.service} waits: ${record.reason}`;
}

// One word for a service, the same as its sign and colour.
export function standing(one) {
  if (one.state !== "idle") return one.state;
  if (one.outcome === "failed") return "failed";
  if (one.serving) return "ready";
  return one.outcome === "stopped" || one.outcome === "cancelled" ? one.outcome : "idle";
}

export function summary(state) {
  const counts = new Map();
  for (const one of state.services.values()) {
    const word = standing(one);
    counts.set(word, (counts.get(word) || 0) + 1);
  }
  return ["failed", "holding", "working", "ready", "stopped", "cancelled", "idle"]
    .filter((word) => counts.has(word))
    .map((word) => [word, counts.get(word)]);
}
