// Talking to servd: with the session's token, which the address that `servd dashboard` prints gives.

const SESSION = "servd-session";

class Problem extends Error {
  constructor(status, body) {
    super(body.title || `HTTP ${status}`);
    this.status = status;
    this.body = body;
  }

  /** Everything that a person needs to act. */
  get text() {
    const { title, detail, details = [], last_lines = [] } = this.body;
    const lines = [title, ...(details.length ? details : [detail])];
    return [...lines, ...last_lines.map((line) => `| ${line}`)].filter(Boolean).join("\n");
  }
}

function withToken(headers = {}) {
  const token = sessionStorage.getItem(SESSION);
  return token ? { ...headers, Authorization: `Bearer ${token}` } : headers;
}

/** Exchanges the one-time token behind the # of the address for the session's. */
async function signIn() {
  if (location.hash.length < 20) return;
  const once = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  const answer = await fetch("/session", { method: "POST", body: once });
  if (answer.ok) sessionStorage.setItem(SESSION, (await answer.json()).token);
}

/** Asks for something; the answer's JSON and its ETag. Throws a Problem. */
async function ask(method, route, body, headers = {}) {
  const options = { method, headers: withToken(headers), cache: "no-store" };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  const answer = await fetch(route, options);
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Problem(answer.status, found);
  return { body: found, tag: answer.headers.get("etag") };
}

const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

/** Follows server-sent events for as long as `signal` lets it; where the connection breaks, it goes
 * on after the last event that came. `take` gets batches of {id, type, data}. */
async function follow(route, take, signal) {
  let last = "";
  while (!signal.aborted) {
    try {
      const headers = withToken(last ? { "Last-Event-ID": last } : {});
      const answer = await fetch(route, { headers, signal, cache: "no-store" });
      if (!answer.ok) throw new Problem(answer.status, await answer.json().catch(() => ({})));
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        const events = blocks.map(parseEvent).filter((event) => event.data);
        for (const event of events) last = event.id || last;
        if (events.length) take(events);
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && error.status === 401) return;
    }
    await pause(2);
  }
}

function parseEvent(block) {
  const event = { id: "", type: "message", data: "" };
  for (const line of block.split("\n")) {
    const [, field, value] = /^([a-z]*): ?(.*)$/.exec(line) || [];
    if (field === "event") event.type = value;
    else if (field === "data") event.data += value;
    else if (field === "id") event.id = value;
  }
  return event;
}

// Making elements, and words for figures.

/** An element: `make("p", {class: "dim"}, "text", other)`. */
function make(name, attributes = {}, ...children) {
  const svg = ["svg", "g", "rect", "path", "text", "marker", "defs", "title"].includes(name);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets a text only where it is another: what has not changed is not laid out anew. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function figure(value, digits = 1) {
  if (value === null || value === undefined) return "–";
  return value >= 100 || Number.isInteger(value) ? Math.round(value).toLocaleString("en") : value.toFixed(digits);
}

function bytes(value) {
  if (!value) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const step = Math.min(units.length - 1, Math.floor(Math.log2(value) / 10));
  const scaled = value / 2 ** (10 * step);
  return `${scaled < 10 && step ? scaled.toFixed(1) : Math.round(scaled)} ${units[step]}`;
}

const many = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
