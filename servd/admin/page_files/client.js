// Requests to servd, with the session token of the address that `servd dashboard` prints.

const SESSION = "servd-session";

class Problem extends Error {
  constructor(status, body) {
    super(body.title || `HTTP ${status}`);
    this.status = status;
    this.body = body;
  }

  /** The message, with all details and the last output. */
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

/** Exchanges the one-time token after the # of the address for the session token. */
async function signIn() {
  if (location.hash.length < 20) return;
  const once = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  const answer = await fetch("/session", { method: "POST", body: once });
  if (answer.ok) sessionStorage.setItem(SESSION, (await answer.json()).token);
}

/** Sends a request. Returns the JSON of the answer and its ETag. Throws a Problem. */
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

/** Follows server-sent events until `signal` aborts. After a broken connection it continues with
 * the next event. `take` gets batches of {id, type, data}. */
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
