// One problem: what, where in the source, the evidence, why, what to do.

import { el, placeOf, plain } from "./parts.js";
import { sourceOf } from "./stream.js";

const sources = new Map(); // by the number of a diagnostic

export function newProblem(p, root, token) {
  const place = p.location ? placeOf(root, p.location) : "";
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
  if (p.location && p.location.line) showSource(p, source, token);
  return item;
}

function labelled(label, text) {
  return el("p", { className: "said" }, el("span", { className: "label" }, label), el("span", {}, plain(text)));
}

async function showSource(p, to, token) {
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
