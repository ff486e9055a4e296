// The event stream, followed with `fetch`: an EventSource could not send the token in a header.
// After a lost connection it goes on behind the last number that came whole.

// Server-sent events out of text that comes in any pieces.
export class Parser {
  constructor() {
    this.rest = "";
    this.clear();
  }

  clear() {
    this.event = "message";
    this.id = null;
    this.data = [];
  }

  push(text) {
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop();
    const found = [];
    for (const line of lines) {
      if (line.startsWith("data: ")) this.data.push(line.slice(6));
      else if (line.startsWith("id: ")) this.id = Number(line.slice(4));
      else if (line.startsWith("event: ")) this.event = line.slice(7);
      else if (line === "") {
        if (this.data.length) found.push({ event: this.event, id: this.id, data: this.data });
        this.clear();
      }
    }
    return found;
  }
}

const DELAYS = [200, 500, 1000, 2000, 4000];
const SILENCE = 25_000; // the server gives a sign of life every ten seconds

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// `told` has `head(facts)`, `records(list)` and `status(word)` with `connected`, `lost`, `token`,
// `elsewhere` or `over`. Returns when it is of no use to try again.
export async function follow(token, told) {
  const at = { seen: 0, over: false, elsewhere: false };
  for (let tries = 0; ; tries++) {
    const before = at.seen;
    try {
      if (!(await once(token, at, told))) return told.status("token");
    } catch {
      // It went away, or was never there.
    }
    if (at.over) return told.status("over");
    if (at.elsewhere) return told.status("elsewhere");
    if (at.seen > before) tries = 0;
    told.status("lost");
    await pause(DELAYS[Math.min(tries, DELAYS.length - 1)]);
  }
}

async function once(token, at, told) {
  const abort = new AbortController();
  let alive = setTimeout(() => abort.abort(), SILENCE);
  try {
    const answer = await fetch(`/events?after=${at.seen}`, {
      headers: { Authorization: `Bearer ${token}` }, cache: "no-store", signal: abort.signal,
    });
    if (answer.status === 401 || answer.status === 403) return false;
    if (!answer.ok) return true;
    told.status("connected");
    const reader = answer.body.getReader();
    const decoder = new TextDecoder();
    const parser = new Parser();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return true;
      clearTimeout(alive);
      alive = setTimeout(() => abort.abort(), SILENCE);
      for (const piece of parser.push(decoder.decode(value, { stream: true })))
        handle(piece, at, told);
    }
  } finally {
    clearTimeout(alive);
    abort.abort();
  }
}

function handle({ event, id, data }, at, told) {
  if (event === "state") return told.head(JSON.parse(data.join("\n")));
  if (event === "elsewhere") {
    at.elsewhere = true;
    return undefined;
  }
  const records = data.map((line) => JSON.parse(line)).filter((r) => r.seq > at.seen);
  if (id !== null) at.seen = id;
  at.over = records.some((record) => record.type === "session.ended");
  return told.records(records);
}

// A request to the session, as one on its control socket; the answer's facts. Throws an Error with
// what the session says.
export async function ask(token, request) {
  let said;
  try {
    const answer = await fetch("/ask", {
      method: "POST", cache: "no-store", body: JSON.stringify({ v: 1, ...request }),
      headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
    });
    said = await answer.json();
  } catch {
    throw new Error("devloop does not answer");
  }
  if (said.ok) return said;
  const { message, suggestions } = said.error;
  throw new Error(suggestions && suggestions.length ? `${message}: ${suggestions[0]}` : message);
}

// The token for a ticket, "" where that is not good any more.
export async function enter(ticket) {
  try {
    const answer = await fetch("/enter", {
      method: "POST", cache: "no-store", body: ticket,
      headers: { "Content-Type": "application/json" },
    });
    return answer.ok ? (await answer.json()).token : "";
  } catch {
    return "";
  }
}

export async function sourceOf(token, seq) {
  const answer = await fetch(`/source?seq=${seq}`, {
    headers: { Authorization: `Bearer ${token}` }, cache: "no-store",
  });
  return answer.ok ? answer.json() : { lines: [] };
}
