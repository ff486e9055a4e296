// How things are worded and made into elements. Text from elsewhere only ever becomes text nodes.

export const SIGNS = { ready: "●", failed: "✗", working: "◐", holding: "◌", stopped: "–",
  cancelled: "–", idle: "○" };

export function duration(ms) {
  if (ms < 95) return `${(ms / 1000).toFixed(2)} s`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  const two = (n) => String(n).padStart(2, "0");
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${two(seconds % 60)} s`;
  const minutes = Math.round(ms / 60_000);
  return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} m`;
}

export function clock(at, fine = false) {
  const d = new Date(at);
  if (Number.isNaN(d.getTime())) return "";
  const two = (n) => String(n).padStart(2, "0");
  const text = `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
  return fine ? `${text}.${String(d.getMilliseconds()).padStart(3, "0")}` : text;
}

export const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

export function servingName({ iter, image, digest }) {
  const name = (digest || "").replace("sha256:", "").slice(0, 6);
  return `#${iter} ${name || image.split(":").pop()}`;
}

export function triggerText({ kind, paths, count: all, asked, to }) {
  if (kind === "files" || kind === "config") {
    const [first] = paths;
    const more = all - 1;
    return more > 0 ? `${first} and ${more} more` : first || kind;
  }
  if (kind === "image") return `image of ${paths.join(", ")}`;
  if (kind === "rollback") return to === null ? "back" : `back to #${to}`;
  return kind === "retry" && asked ? "asked for" : kind;
}

export function pathFrom(root, path) {
  return root && path.startsWith(`${root}/`) ? path.slice(root.length + 1) : path;
}

export function placeOf(root, { path, line, column }) {
  return pathFrom(root, path) + (line ? `:${line}` : "") + (line && column ? `:${column}` : "");
}

// An element: `properties` are set on it, `data` on its dataset, children are nodes or text.
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  const { data, aria, ...rest } = properties;
  Object.assign(made, rest);
  for (const [name, value] of Object.entries(data || {})) made.dataset[name] = value;
  for (const [name, value] of Object.entries(aria || {})) made.setAttribute(`aria-${name}`, value);
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// What a terminal would obey or cannot show: sequences of ECMA-48, controls, and characters that
// reorder the text around them.
const HIDDEN =
  /\x1b\[([0-9;:]*)m|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b[P\]X^_]|[\x90\x98\x9d-\x9f])[^\x00-\x1f\x7f-\x9f]*(?:\x07|\x1b\\|\x9c)|\x1b[ -/]*[0-~]|[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]/gu;

function written(odd) {
  if (odd.length > 1) return "";
  const code = odd.charCodeAt(0);
  return `\\${code < 0x100 ? "x" : "u"}${code.toString(16).padStart(code < 0x100 ? 2 : 4, "0")}`;
}

export function plain(text) {
  return text.replace(HIDDEN, (found) => written(found));
}

// A log line as pieces of text with the class that its colours ask for; no colours are left over.
export function coloured(text) {
  if (!/[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]/u.test(text)) return [[text, ""]];
  const pieces = [];
  const style = { colour: "", bold: false, dim: false };
  let from = 0;
  let kept = "";
  const end = () => {
    if (!kept) return;
    const classes = [style.colour, style.bold && "bold", style.dim && "dim"].filter(Boolean);
    pieces.push([kept, classes.join(" ")]);
    kept = "";
  };
  for (const match of text.matchAll(HIDDEN)) {
    kept += text.slice(from, match.index);
    from = match.index + match[0].length;
    if (match[1] === undefined) kept += written(match[0]);
    else {
      end();
      colour(style, match[1]);
    }
  }
  kept += text.slice(from);
  end();
  return pieces;
}

function colour(style, codes) {
  const list = codes.split(/[;:]/).map(Number);
  for (let i = 0; i < list.length; i++) {
    const code = list[i];
    if (code === 0) Object.assign(style, { colour: "", bold: false, dim: false });
    else if (code === 1) style.bold = true;
    else if (code === 2) style.dim = true;
    else if (code === 22) style.bold = style.dim = false;
    else if (code === 39) style.colour = "";
    else if (code >= 30 && code <= 37) style.colour = `c${code - 30}`;
    else if (code >= 90 && code <= 97) style.colour = `c${code - 90}`;
    else if (code === 38 || code === 48) {
      // Of 256 or 16 million colours: as near as the sixteen get, or none.
      if (list[i + 1] === 5) {
        if (code === 38 && list[i + 2] < 16) style.colour = `c${list[i + 2] % 8}`;
        i += 2;
      } else i += 4;
    }
  }
}

// The children of `list`, one for each of `items`, made once and moved only where the order is
// another.
export function keyed(list, items, key, make, fill) {
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
