// One iteration of the timeline: why it began, its steps as a bar, how it ended.

import { hue } from "./log_view.js";
import { clock, duration, el, plain, setText, SIGNS, triggerText } from "./parts.js";

// `jumpTo(seq)` shows the logs of that moment.
export function newIteration(i, jumpTo) {
  const item = el("li", { className: "iteration" });
  const jump = el("button", { type: "button", className: "jump" });
  jump.title = "Its logs";
  jump.addEventListener("click", () => {
    jumpTo(i.seq);
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
export function fillIteration(item, i, most, chosen) {
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
