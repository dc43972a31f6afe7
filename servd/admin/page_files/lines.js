// Events and logs as they come, with a filter.

const MOST_LINES = 500;
const HIDDEN = ["last_lines", "pid", "state", "stream", "generation"];
const LEADING = ["timestamp", "level", "event", "service", "worker"];

/** A line as a person reads it. */
function lineText(event) {
  const who = event.service ? ` [${event.service}${event.worker === undefined ? "" : ` ${event.worker}`}]` : "";
  const rest = Object.entries(event).filter(([key]) => !LEADING.includes(key) && !HIDDEN.includes(key))
    .map(([key, value]) => `${key}=${typeof value === "object" ? JSON.stringify(value) : value}`);
  const last = (event.last_lines || []).map((line) => `\n    | ${line}`).join("");
  return `${who} ${event.event} ${rest.join(" ")}${last}`;
}

class Lines {
  constructor(place) {
    this.place = place;
    this.lines = [];
    this.waiting = [];
    this.paused = false;
    this.filter = "";
    this.stop = new AbortController();
  }

  /** Shows another stream from its beginning. */
  open(kind, service) {
    this.stop.abort();
    this.stop = new AbortController();
    this.lines = [];
    this.place.replaceChildren();
    const only = service ? `&service=${encodeURIComponent(service)}` : "";
    follow(`/v1/${kind}?lines=200${only}`, (events) => this.take(events), this.stop.signal);
  }

  take(events) {
    const fresh = events.map(({ type, data }) => {
      let event;
      try { event = JSON.parse(data); } catch { event = { event: data }; }
      return { event: type === "gap" ? { level: "warning", event: event.reason } : event };
    });
    if (this.paused) {
      this.waiting = [...this.waiting, ...fresh].slice(-MOST_LINES);
      return;
    }
    this.add(fresh);
  }

  add(fresh) {
    const atEnd = this.place.scrollHeight - this.place.scrollTop - this.place.clientHeight < 40;
    for (const line of fresh.slice(-MOST_LINES)) {
      const { event } = line;
      const time = make("time", {}, String(event.timestamp || "").slice(11, 23));
      line.text = lineText(event);
      line.element = make("div", { class: `line ${event.level || ""}` }, time, line.text);
      line.element.hidden = !this.passes(line);
      this.place.append(line.element);
      this.lines.push(line);
    }
    for (const line of this.lines.splice(0, Math.max(0, this.lines.length - MOST_LINES))) line.element.remove();
    if (atEnd) this.place.scrollTop = this.place.scrollHeight;
  }

  passes(line) {
    return !this.filter || line.text.toLowerCase().includes(this.filter);
  }

  choose(filter) {
    this.filter = filter.trim().toLowerCase();
    for (const line of this.lines) line.element.hidden = !this.passes(line);
  }

  pause(paused) {
    this.paused = paused;
    if (!paused) this.add(this.waiting.splice(0));
  }
}
