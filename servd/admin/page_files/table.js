// The services: one row each, made once and updated in place.

const WORKER_COLUMNS = [
  ["Worker", (p) => p.worker], ["State", (p) => p.state], ["PID", (p) => p.pid], ["Generation", (p) => p.generation],
  ["Running for", (p) => span((Date.now() - Date.parse(p.started_at)) / 1000)],
  ["Requests", (p) => figure(p.requests)], ["In flight", (p) => figure(p.in_flight)], ["Req/s", (p) => figure(p.rps)],
  ["4xx/s", (p) => figure(p.rps_4xx)], ["5xx/s", (p) => figure(p.rps_5xx)],
  ["p50 ms", (p) => figure(p.p50_ms)], ["p99 ms", (p) => figure(p.p99_ms)], ["CPU %", (p) => figure(p.cpu_percent)], ["Memory", (p) => bytes(p.rss_bytes)],
  ["GPU", (p) => gpusOf([p])],
];

const DETAILS = ["Address", "Depends on", "GPU", "p50", "4xx", "5xx", "Restarts", "Generation", "Last exit", "Certificate"];

const cell = (name, label, ...children) => make("div", { role: "cell", class: name, "data-label": label }, ...children);

/** What a row shows beside its state, as texts. */
function figuresOf(service) {
  const sum = (key) => service.processes.reduce((total, process) => total + (process[key] || 0), 0);
  const app = service.kind === "app";
  return {
    ready: ["task", "external"].includes(service.kind) ? service.kind : `${service.workers.ready}/${service.workers.desired}`,
    rps: app ? figure(service.rps) : "",
    errors: app ? percent(service.rps_5xx, service.rps) : "",
    p99: app && service.p99_ms !== null ? `${figure(service.p99_ms)} ms` : app ? "–" : "",
    cpu: service.processes.length ? `${figure(sum("cpu_percent"))} %` : "",
    memory: service.processes.length ? bytes(sum("rss_bytes")) : "",
  };
}

/** What the details show, as texts; an empty one is left out. */
function detailsOf(service) {
  const app = service.kind === "app";
  const rate = (value) => (app ? `${percent(value, service.rps)} (${figure(value)}/s)` : "");
  const end = expiry(service);
  return {
    Address: service.kind === "task" ? "" : service.public_url || [...service.listen, ...service.binds_itself].join(", ") || "internal",
    "Depends on": service.depends_on.join(", "),
    GPU: gpusOf(service.processes),
    p50: app && service.p50_ms !== null ? `${figure(service.p50_ms)} ms` : "",
    "4xx": rate(service.rps_4xx), "5xx": rate(service.rps_5xx),
    Restarts: figure(service.restarts), Generation: figure(service.generation),
    "Last exit": service.last_exit ? `worker ${service.last_exit.worker} ${service.last_exit.reason}` : "",
    Certificate: end ? end.text : "",
  };
}

class Row {
  constructor(service, acts) {
    this.service = service;
    this.level = 0;
    this.seen = false;
    this.open = false;
    const button = (text, act) => make("button", { type: "button", "aria-label": `${text} ${service.name}`, onclick: () => act(this.service) }, text);
    [this.restart, this.scale, this.stop, this.start] = ["restart", "scale", "stop", "start"].map((verb) => button(verb[0].toUpperCase() + verb.slice(1), acts[verb]));
    this.toggle = make("button", { type: "button", class: "toggle", "aria-expanded": "false", "aria-label": `Details of ${service.name}`, onclick: () => this.expand(!this.open) }, make("span", { class: "name" }, service.name));
    this.state = make("span", { class: "badge" });
    this.texts = Object.fromEntries(["ready", "rps", "errors", "p99", "cpu", "memory"].map((name) => [name, make("span")]));
    this.requests = new Sparkline(requestLines, "/s", "Requests per second");
    this.latency = new Sparkline(latencyLines, " ms", "p99 latency in milliseconds");
    const { ready, rps, errors, p99, cpu, memory } = this.texts;
    const row = make("div", { role: "row", class: "row" },
      make("div", { role: "rowheader", class: "service-name" }, this.toggle), cell("state", "State", this.state), cell("number ready-count", "Ready", ready),
      cell("number rps", "Req/s", rps), cell("rps-chart", "", this.requests.element), cell("number errors", "5xx", errors),
      cell("number p99", "p99", p99), cell("p99-chart", "", this.latency.element), cell("number cpu", "CPU", cpu), cell("number memory", "Memory", memory),
      cell("actions", "", this.restart, this.scale, this.stop, this.start));
    this.notes = make("ul", { class: "notes", hidden: true });
    this.details = make("div", { class: "details", hidden: true });
    this.element = make("div", { role: "rowgroup", class: "service", "data-service": service.name, tabindex: -1, "aria-label": service.name },
      row, make("div", { role: "row" }, make("div", { role: "cell" }, this.notes)), make("div", { role: "row" }, make("div", { role: "cell" }, this.details)));
  }

  update(service, history) {
    this.service = service;
    this.level = severity(service, history);
    this.history = history;
    if (this.seen) this.show();
  }

  show() {
    const { service, level } = this;
    say(this.state, badgeWord(service, this.history));
    this.state.className = `badge ${look(service, level)}`;
    this.requests.element.hidden = this.latency.element.hidden = service.kind !== "app";
    this.element.classList.toggle("problem", level >= 2);
    for (const [name, text] of Object.entries(figuresOf(service))) say(this.texts[name], text);
    this.texts.errors.className = service.rps_5xx ? "failed" : "dim";
    this.showNotes();
    const stopped = service.workers.desired === 0;
    this.stop.hidden = stopped;
    this.restart.hidden = stopped || FAILED.includes(service.state);
    this.start.hidden = !stopped && !["failed", "backoff", "degraded"].includes(service.state);
    this.scale.hidden = service.kind === "task" || service.kind === "external";
    if (this.open) this.showDetails();
  }

  showNotes() {
    const notes = [...problemsOf(this.service, this.history).map((text) => ["failed", text]), ...notesOf(this.service).map((text) => ["dim", text])];
    const said = JSON.stringify(notes);
    if (said === this.said) return;
    this.said = said;
    this.notes.hidden = !notes.length;
    this.notes.replaceChildren(...notes.map(([look, text]) => make("li", { class: look }, text)));
  }

  draw() {
    if (!this.seen || this.service.kind !== "app") return;
    this.requests.show(this.history);
    this.latency.show(this.history);
    if (this.open && this.charts) for (const chart of this.charts) chart.show(this.history);
  }

  expand(open) {
    this.open = open;
    this.toggle.setAttribute("aria-expanded", String(open));
    this.element.classList.toggle("open", open);
    this.details.hidden = !open;
    if (!open) return;
    if (!this.values) this.makeDetails();
    this.showDetails();
    this.draw();
  }

  makeDetails() {
    this.values = Object.fromEntries(DETAILS.map((name) => [name, make("dd")]));
    const list = make("dl", { class: "figures" }, ...DETAILS.map((name) => make("div", {}, make("dt", {}, name), this.values[name])));
    this.charts = this.service.kind === "app"
      ? [new Chart(requestLines, "requests/s", "Requests per second; red: answered with 5xx"), new Chart(latencyLines, "ms", "p99 latency, milliseconds")]
      : [];
    this.rows = make("tbody");
    this.head = make("tr", {});
    this.table = make("div", { class: "scroll" }, make("table", {}, make("thead", {}, this.head), this.rows));
    this.details.append(list, make("div", { class: "charts" }, ...this.charts.map((chart) => chart.element)), this.table);
  }

  showDetails() {
    for (const [name, text] of Object.entries(detailsOf(this.service))) {
      say(this.values[name], text);
      this.values[name].parentElement.hidden = !text;
    }
    this.table.hidden = !this.service.processes.length;
    const columns = WORKER_COLUMNS.filter(([name]) => name !== "GPU" || gpusOf(this.service.processes));
    this.head.replaceChildren(...columns.map(([name]) => make("th", { scope: "col" }, name)));
    this.rows.replaceChildren(...this.service.processes.map((process) =>
      make("tr", {}, ...columns.map(([name, of]) => make("td", name === "State" ? { class: process.state } : {}, String(of(process)))))));
  }
}

/** All rows, those with problems first; only those on the screen are updated. */
class Table {
  constructor(place, acts) {
    this.place = place;
    this.acts = acts;
    this.rows = new Map();
    this.find = "";
    this.watch = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const row = this.rows.get(entry.target.dataset.service);
        if (!row) continue;
        row.seen = entry.isIntersecting;
        if (!row.seen) continue;
        row.show();
        row.draw();
      }
    }, { rootMargin: "200px" });
  }

  show(services, history) {
    const names = new Set(services.map((service) => service.name));
    for (const [name, row] of this.rows) {
      if (names.has(name)) continue;
      row.element.remove();
      this.rows.delete(name);
    }
    let added = false;
    for (const service of services) {
      let row = this.rows.get(service.name);
      if (!row) {
        row = new Row(service, this.acts);
        this.rows.set(service.name, row);
        this.place.append(row.element);
        this.watch.observe(row.element);
        added = true;
      }
      row.update(service, history.of(service.name));
    }
    // rows must not move under a pointer or away from the focus
    if (added || !this.place.matches(":hover, :focus-within")) this.sort();
    this.filter(this.find);
  }

  draw() {
    for (const row of this.rows.values()) row.draw();
  }

  sort() {
    const sorted = [...this.rows.values()].sort((a, b) => b.level - a.level || a.service.name.localeCompare(b.service.name, "en", { numeric: true }));
    const focus = document.activeElement;
    sorted.forEach(({ element }, at) => {
      if (this.place.children[at] !== element) this.place.insertBefore(element, this.place.children[at] || null);
    });
    if (this.place.contains(focus) && focus !== document.activeElement) focus.focus({ preventScroll: true });
  }

  /** The rows with problems, the worst first. */
  get problems() {
    return [...this.rows.values()].filter((row) => row.level >= 2).sort((a, b) => b.level - a.level);
  }

  filter(text) {
    this.find = text.trim().toLowerCase();
    for (const { service, element } of this.rows.values()) {
      element.hidden = Boolean(this.find) && !service.name.includes(this.find) && !stateWord(service).startsWith(this.find) && !service.state.startsWith(this.find);
    }
  }

  choose(name) {
    const row = this.rows.get(name);
    if (!row) return;
    row.element.hidden = false;
    row.expand(true);
    row.element.scrollIntoView({ block: "center" });
    row.element.focus({ preventScroll: true });
    for (const other of this.rows.values()) other.element.classList.toggle("target", other === row);
  }
}
