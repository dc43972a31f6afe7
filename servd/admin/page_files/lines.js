// Activity and logs as they arrive, filtered by service, level and text.

const MOST_LINES = 500;
const HIDDEN = ["last_lines", "pid", "state", "stream", "generation"];
const LEADING = ["timestamp", "level", "event", "service", "worker"];
const LEVELS = ["debug", "info", "warning", "error", "critical"];

/** The rank of a level; text without a level counts as info. */
const rank = (level) => (LEVELS.includes(level) ? LEVELS.indexOf(level) : 1);

/** A line without its time. */
function lineText(event) {
  const who = event.service ? `[${event.service}${event.worker === undefined ? "" : ` ${event.worker}`}] ` : "";
  const level = rank(event.level) > 1 ? `${event.level}: ` : "";
  const rest = Object.entries(event).filter(([key]) => !LEADING.includes(key) && !HIDDEN.includes(key))
    .map(([key, value]) => `${key}=${typeof value === "object" ? JSON.stringify(value) : value}`);
  const last = (event.last_lines || []).map((line) => `\n    | ${line}`).join("");
  return `${level}${who}${event.event} ${rest.join(" ")}${last}`;
}

class Lines {
  /** `latest` is an element that always shows the newest line. */
  constructor(place, latest) {
    Object.assign(this, { place, latest });
    this.lines = [];
    this.waiting = [];
    this.paused = false;
    this.text = "";
    this.level = 0;
    this.stop = new AbortController();
    this.atEnd = true;
    let before = 0;
    place.addEventListener("scroll", () => {
      const gap = place.scrollHeight - place.scrollTop - place.clientHeight;
      if (gap < 40) this.atEnd = true;
      else if (place.scrollTop < before) this.atEnd = false; // not where the panel has become smaller
      before = place.scrollTop;
    });
    new ResizeObserver(() => this.scroll()).observe(place);
  }

  /** Stays at the end, unless somebody has scrolled up. */
  scroll() {
    if (this.atEnd) this.place.scrollTop = this.place.scrollHeight;
  }

  /** Shows a stream from its beginning. `kind`: events or logs. */
  open(kind, service) {
    this.stop.abort();
    this.stop = new AbortController();
    this.kind = kind;
    this.lines = [];
    this.waiting = [];
    this.atEnd = true;
    this.place.replaceChildren();
    const only = service ? `&service=${encodeURIComponent(service)}` : "";
    follow(`/v1/${kind}?lines=${MOST_LINES}${only}`, (events) => this.take(events), this.stop.signal);
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
    for (const line of fresh) {
      const { event } = line;
      line.rank = rank(event.level);
      line.text = lineText(event);
      line.element = make("div", { class: `line ${event.level || ""}` });
      if (event.timestamp) line.element.append(...this.times(event.timestamp));
      line.element.append(line.text);
      line.element.hidden = !this.passes(line);
      this.place.append(line.element);
      this.lines.push(line);
    }
    this.drop((line) => line.rank > 1);
    this.drop((line) => line.rank <= 1);
    this.scroll();
    const newest = this.lines[this.lines.length - 1];
    if (newest) say(this.latest, `${newest.event.timestamp ? `${clock(newest.event.timestamp)} ` : ""}${newest.text.split("\n", 1)[0]}`);
  }

  times(timestamp) {
    if (this.kind === "logs") return [timeElement(timestamp, clock(timestamp, 3)), " "];
    return [timeElement(timestamp, clock(timestamp)), make("span", { class: "ago", "data-ago": timestamp }, ago(timestamp))];
  }

  /** Removes the oldest lines of one kind. Warnings have a quota of their own, so that many other
   * lines do not push them out. */
  drop(kind) {
    let surplus = this.lines.filter(kind).length - MOST_LINES;
    if (surplus <= 0) return;
    this.lines = this.lines.filter((line) => {
      if (surplus <= 0 || !kind(line)) return true;
      surplus -= 1;
      line.element.remove();
      return false;
    });
  }

  passes(line) {
    return line.rank >= this.level && (!this.text || line.text.toLowerCase().includes(this.text));
  }

  filter({ text = this.text, level = this.level }) {
    this.text = text.trim().toLowerCase();
    this.level = level;
    for (const line of this.lines) line.element.hidden = !this.passes(line);
    this.atEnd = true;
    this.scroll();
  }

  pause(paused) {
    this.paused = paused;
    if (!paused) this.add(this.waiting.splice(0));
  }
}
