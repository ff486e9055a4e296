// The list of services: what each serves and why, what it is at, and its buttons.

import { count, duration, el, plain, servingName, setText, SIGNS, triggerText } from "./parts.js";
import { standing } from "./state.js";

// `does` has what the buttons do: `choose(name)` and `request(what, done)`.
export function newService({ name }, does) {
  const only = el("button", { type: "button", className: "name", aria: { pressed: "false" } });
  only.title = "Its iterations and logs alone";
  only.addEventListener("click", () => does.choose(name));
  const again = el("button", { type: "button", className: "small", textContent: "Rebuild",
    aria: { label: `Rebuild ${name}` } });
  again.addEventListener("click", () => does.request({ op: "trigger", service: name }, `${name} is built again`));
  const back = el("button", { type: "button", className: "small", textContent: "Back", hidden: true,
    aria: { label: `${name} back to its last good image` } });
  back.title = "To the last image that was ready, until the next save";
  back.addEventListener("click", () => does.request({ op: "rollback", service: name }, `${name} goes back`));
  const item = el("li", { className: "service" }, el("span", { className: "sign", aria: { hidden: true } }),
    only, el("span", { className: "serving" }), el("span", { className: "does" }, again, back),
    el("p", { className: "why" }), el("p", { className: "more" }));
  [item.sign, item.only, item.serving, , item.why, item.more] = item.children;
  Object.assign(item, { again, back });
  return item;
}

// `now` is the moment that all are painted for: `chosen`, `steerable`, `back`.
export function fillService(item, s, now) {
  const word = standing(s);
  item.dataset.is = word;
  setText(item.sign, SIGNS[word]);
  setText(item.only, plain(s.name));
  item.only.setAttribute("aria-pressed", now.chosen === s.name);
  setText(item.serving, s.serving ? servingName(s.serving) : "");
  item.serving.title = s.serving ? `serves ${s.serving.image}` : "";
  item.again.disabled = item.back.disabled = !now.steerable;
  item.back.hidden = !now.back;
  setText(item.why, whyOf(s, word));
  const ports = [...s.ports].map(([local]) => local).join(" ");
  const pods = podsOf(s);
  if (item.more.dataset.says !== `${ports}|${pods}`) {
    item.more.dataset.says = `${ports}|${pods}`;
    item.more.replaceChildren(...[...s.ports].flatMap(([local, { debugger: kind }]) => {
      if (kind) return [`localhost:${local} (${kind} debugger) `];
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

export function holdText({ reason, until, since, attempt }) {
  if (until === null) return reason;
  const left = Math.round(until - (Date.now() - since) / 1000);
  return `${reason}; next try ${left > 0 ? `in ${left} s` : "now"}${attempt > 1 ? `, try ${attempt}` : ""}`;
}
