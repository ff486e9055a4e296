// The log lines that are kept, and which of them are shown. No DOM: tests run it without a browser.
//
// Lines lie in chunks of a thousand; the oldest chunk goes when there are too many lines or too
// much text. Each chunk knows which of its lines the filter lets through, so a new filter is worked
// through chunk by chunk, the newest first, and a line that comes or goes costs the same whatever
// else there is.

const CHUNK = 1000;

export const LEVELS = ["", "debug", "info", "warn", "error"];

const WORD =
  /\b(?:(fatal|panic|critical|crit|alert|emerg|error|err|severe|exception)|(warning|warn)|(info|notice)|(debug|trace|verbose))\b/i;
const GLOG = /^([EFWI])\d{4} \d\d:\d\d:\d\d/;
const NUMBER = /"level":\s?(\d+)/;

// What a line says of its own weight, by the words that loggers put near its beginning: an index of
// LEVELS. Lines that belong to the one before say nothing.
export function levelOf(text) {
  const head = text.length > 160 ? text.slice(0, 160) : text;
  const glog = GLOG.exec(head);
  if (glog) return glog[1] === "W" ? 3 : glog[1] === "I" ? 2 : 4;
  const number = NUMBER.exec(head);
  if (number) return Number(number[1]) >= 50 ? 4 : number[1] >= 40 ? 3 : number[1] >= 30 ? 2 : 1;
  if (head.startsWith("Traceback (")) return 4;
  const word = WORD.exec(head);
  if (!word) return 0;
  return word[1] ? 4 : word[2] ? 3 : word[3] ? 2 : 1;
}

const CONTINUED = /^(?:\s|at |Caused by|\w*(?:Error|Exception)\b)/;

export class LogStore {
  constructor(lines = 100_000, text = 32 * 1024 * 1024) {
    this.most = lines;
    this.mostText = text;
    this.chunks = [];
    this.size = 0;
    this.text = 0;
    this.shown = 0;
    this.gone = 0; // shown lines that went, since somebody asked
    this.filter = { service: "", level: 0, words: null };
    this.stale = 0; // chunks at the beginning that the filter has not been through
    this.names = new Map();
    this.last = new Map(); // by container, the level of its last line
  }

  // A record of type `log`.
  add({ seq, ts, service, pod, container, text }) {
    const key = `${pod}/${container}`;
    let level = levelOf(text);
    if (level === 0 && CONTINUED.test(text)) level = this.last.get(key) || 0;
    if (this.last.size > 1000) this.last.clear();
    this.last.set(key, level);
    this.push({ seq, at: Date.parse(ts), service: this.name(service), pod: this.name(pod),
      container: this.name(container), text, level, mark: "" });
  }

  // A line of devloop's own: where an iteration begins or ends, what is missing. `service` is ""
  // for all of them.
  mark(seq, at, service, text, kind) {
    this.push({ seq, at, service, pod: "", container: "", text, level: 0, mark: kind });
  }

  name(text) {
    const known = this.names.get(text);
    if (known !== undefined) return known;
    if (this.names.size > 5000) this.names.clear();
    this.names.set(text, text);
    return text;
  }

  push(line) {
    let chunk = this.chunks[this.chunks.length - 1];
    if (!chunk || chunk.lines.length === CHUNK) {
      chunk = { lines: [], match: [], text: 0 };
      this.chunks.push(chunk);
    }
    if (this.passes(line) && this.stale < this.chunks.length) {
      chunk.match.push(chunk.lines.length);
      this.shown++;
    }
    chunk.lines.push(line);
    chunk.text += line.text.length;
    this.text += line.text.length;
    this.size++;
    while (this.chunks.length > 1 && (this.size > this.most || this.text > this.mostText)) {
      const old = this.chunks.shift();
      this.size -= old.lines.length;
      this.text -= old.text;
      this.shown -= old.match.length;
      this.gone += old.match.length;
      this.stale = Math.max(0, this.stale - 1);
    }
  }

  passes(line) {
    const { service, level, words } = this.filter;
    if (service && line.service && line.service !== service) return false;
    if (line.mark) return !words || words.test(line.text);
    if (level === 2 ? line.level === 1 : line.level < level) return false;
    return !words || words.test(line.text);
  }

  // From now on only lines of `service` ("": all), of a level from `level` on, with `words` in
  // them. Lines that say no level are there unless warnings or errors are asked for.
  setFilter(service, level, words) {
    const pattern = words.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    this.filter = { service, level, words: words ? new RegExp(pattern, "i") : null };
    for (const chunk of this.chunks) chunk.match = [];
    this.shown = 0;
    this.gone = 0;
    this.stale = this.chunks.length;
  }

  // Goes on with a new filter until `enough()`; false when all is done.
  work(enough) {
    while (this.stale > 0) {
      const chunk = this.chunks[this.stale - 1];
      chunk.match = [];
      for (let i = 0; i < chunk.lines.length; i++)
        if (this.passes(chunk.lines[i])) chunk.match.push(i);
      this.shown += chunk.match.length;
      this.stale--;
      if (enough()) return this.stale > 0;
    }
    return false;
  }

  // How many shown lines have gone at the beginning since the last call.
  takeGone() {
    const { gone } = this;
    this.gone = 0;
    return gone;
  }

  // The shown line with that index.
  line(index) {
    for (const chunk of this.chunks) {
      if (index < chunk.match.length) return chunk.lines[chunk.match[index]];
      index -= chunk.match.length;
    }
    return null;
  }

  // The shown lines from that index on.
  slice(index, count) {
    const found = [];
    for (const { lines, match } of this.chunks) {
      if (index >= match.length) {
        index -= match.length;
        continue;
      }
      for (let i = Math.max(0, index); i < match.length && found.length < count; i++)
        found.push(lines[match[i]]);
      index = 0;
      if (found.length === count) break;
    }
    return found;
  }

  // The index of the first shown line with number `seq` or later; that behind the last for none.
  indexFrom(seq) {
    let index = 0;
    for (const { lines, match } of this.chunks) {
      if (!lines.length || lines[lines.length - 1].seq < seq) {
        index += match.length;
        continue;
      }
      const at = match.findIndex((i) => lines[i].seq >= seq);
      if (at >= 0) return index + at;
      index += match.length;
    }
    return index;
  }
}
