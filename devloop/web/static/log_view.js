// The list of log lines: however many there are, only those in sight are elements.

import { clock, coloured, el, plain } from "./parts.js";
import { LEVELS } from "./logs.js";

const SPARE = 8; // rows above and below what is in sight

export class LogView {
  constructor(list, store, { onMoved, onPicked }) {
    this.list = list;
    this.store = store;
    this.onMoved = onMoved;
    this.onPicked = onPicked;
    this.following = true;
    this.picked = null; // a line
    this.rows = [];
    this.space = el("div", { className: "space" });
    this.block = el("div", { className: "block" });
    this.space.append(this.block);
    list.append(this.space);
    this.row = 20;
    this.height = 0;
    this.size = -1;
    this.top = 0;
    list.addEventListener("scroll", () => this.scrolled(), { passive: true });
    list.addEventListener("keydown", (event) => this.key(event));
    list.addEventListener("click", (event) => {
      const row = event.target.closest(".line");
      // Whoever selects text does not pick.
      if (row && row.shows && String(getSelection()) === "") this.pick(row.shows, true);
    });
    new ResizeObserver(() => this.measure()).observe(list);
    this.measure();
  }

  measure() {
    this.row = parseFloat(getComputedStyle(this.list).getPropertyValue("--row")) || 20;
    this.resized = this.height !== this.list.clientHeight;
    this.height = this.list.clientHeight;
    // What was picked stays in sight when the list gets smaller: its own text takes the room.
    if (!this.following) this.reveal(this.indexOfPicked());
    this.paint();
  }

  get end() {
    return Math.max(0, this.store.shown * this.row - this.height);
  }

  // `top` is where the list is to be from the next `paint` on.
  reveal(index) {
    if (index < 0) return;
    const high = index * this.row;
    this.top = Math.min(high, Math.max(this.top, high + this.row - this.height));
  }

  scrolled() {
    const top = this.list.scrollTop;
    // The list has another height, and the browser moved it.
    if (this.list.clientHeight !== this.height) {
      this.measure();
      return;
    }
    if (Math.abs(top - this.top) <= 1) return;
    // Where it stands is not where it was put: a person moved it.
    const was = this.following;
    this.following = top >= this.end - this.row;
    this.top = this.placed = top;
    if (was !== this.following) this.onMoved();
    this.paint();
  }

  follow() {
    this.following = true;
    this.paint();
    this.onMoved();
  }

  // Show the line with that index at the top.
  jump(index) {
    this.top = Math.min(this.end, Math.max(0, index * this.row - this.row));
    this.following = this.top >= this.end - this.row;
    this.paint();
    this.onMoved();
  }

  // After a new filter nothing is where it was.
  anew() {
    this.following = true;
    this.paint();
  }

  paint() {
    const { store, list } = this;
    const gone = store.takeGone();
    const moved = store.shown !== this.size;
    if (moved) {
      this.size = store.shown;
      this.space.style.height = `${this.size * this.row}px`;
    }
    const top = this.following ? this.end : this.top - gone * this.row;
    this.top = Math.max(0, Math.min(this.end, top));
    const first = Math.max(0, Math.floor(this.top / this.row) - SPARE);
    const wanted = Math.ceil(this.height / this.row) + 2 * SPARE;
    const lines = store.slice(first, wanted);
    this.block.style.transform = `translateY(${first * this.row}px)`;
    while (this.rows.length < lines.length) {
      const row = el("div", { className: "line", role: "option" });
      this.rows.push(row);
      this.block.append(row);
    }
    let active = "";
    this.rows.forEach((row, i) => {
      const line = lines[i];
      row.hidden = !line;
      if (!line) {
        row.shows = null;
        return;
      }
      const picked = line === this.picked;
      if (picked) active = row.id = `line-${i}`;
      if (row.shows !== line || row.words !== store.filter.words) fill(row, line, store.filter.words);
      row.setAttribute("aria-selected", picked);
      row.setAttribute("aria-posinset", first + i + 1);
      row.setAttribute("aria-setsize", this.size);
    });
    if (active) list.setAttribute("aria-activedescendant", active);
    else list.removeAttribute("aria-activedescendant");
    // Last, as the browser has to lay out everything for it.
    if (this.placed !== this.top || moved || this.resized) {
      this.resized = false;
      this.placed = this.top;
      list.scrollTop = this.top;
    }
  }

  indexOfPicked() {
    if (!this.picked) return -1;
    const index = this.store.indexFrom(this.picked.seq);
    const near = this.store.slice(index, 4).indexOf(this.picked);
    return near < 0 ? -1 : index + near;
  }

  pick(line, open) {
    this.picked = line;
    this.paint();
    this.onPicked(line, open);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.height / this.row) - 1);
    const moves = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page,
      Home: -Infinity, End: Infinity };
    if (event.key in moves) {
      event.preventDefault();
      const move = moves[event.key];
      const from = this.indexOfPicked();
      const last = this.store.shown - 1;
      const start = from < 0 ? Math.floor((this.top + this.height) / this.row) - 1 : from;
      const to = Math.min(last, Math.max(0, from < 0 && Math.abs(move) === 1 ? start : start + move));
      const line = this.store.line(to);
      if (!line) return;
      this.following = to === last;
      this.reveal(to);
      this.pick(line, false);
      this.onMoved();
    } else if (event.key === "Enter" && this.picked) {
      event.preventDefault();
      this.onPicked(this.picked, true);
    } else if (event.key === "Escape" && this.picked) {
      event.preventDefault();
      this.pick(null, false);
    }
  }
}

function fill(row, line, words) {
  row.shows = line;
  row.words = words;
  row.dataset.mark = line.mark;
  row.dataset.level = LEVELS[line.level];
  const text = el("span", { className: "text" });
  for (const [piece, classes] of coloured(line.text)) append(text, piece, classes, words);
  if (line.mark) return row.replaceChildren(text);
  const service = el("span", { className: "of" }, plain(line.service));
  service.style.setProperty("--hue", hue(line.service));
  return row.replaceChildren(
    el("span", { className: "at" }, clock(line.at, true)),
    service,
    el("span", { className: "pod" }, plain(line.pod.split("-").pop())),
    text,
  );
}

function append(to, text, classes, words) {
  const into = classes ? el("span", { className: classes }) : to;
  let rest = text;
  for (let found; words && (found = words.exec(rest)) && found[0]; ) {
    into.append(rest.slice(0, found.index), el("mark", {}, found[0]));
    rest = rest.slice(found.index + found[0].length);
  }
  into.append(rest);
  if (into !== to) to.append(into);
}

// The same for a service each time, and far apart for names that differ little.
export function hue(name) {
  let hash = 2166136261;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 16777619);
  return ((hash >>> 0) * 137) % 360;
}
