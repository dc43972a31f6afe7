// The services: a card each, made once and brought up to date.

const DAY = 86400000;

function expiry(service) {
  if (!service.certificate_expires_at) return null;
  const left = (Date.parse(service.certificate_expires_at) - Date.now()) / DAY;
  return { left, text: left < 0 ? "expired" : left < 1 ? `${Math.floor(left * 24)} h` : many(Math.floor(left), "day") };
}

/** What there is to know beside the figures. */
function notesOf(service) {
  const notes = [];
  if (service.error) notes.push(["bad", (service.crash_loop ? "Crash loop: " : "") + service.error]);
  if (service.by_hand) notes.push(["", `${many(service.by_hand.workers, "worker")} by hand, the file says ${service.by_hand.file}`]);
  if (service.coming) notes.push(["", `Generation ${service.coming.generation} is on its way: ${service.coming.ready} of ${service.coming.desired} ready`]);
  for (const drain of service.draining) notes.push(["", `Generation ${drain.generation} drains ${many(drain.pids.length, "worker")}: ${drain.waiting_for}`]);
  if (service.last_exit) notes.push(["", `Last exit: worker ${service.last_exit.worker} ${service.last_exit.reason}`]);
  return notes;
}

const WORKER_COLUMNS = [
  ["Worker", (p) => p.worker], ["State", (p) => p.state], ["Pid", (p) => p.pid], ["Generation", (p) => p.generation],
  ["Requests", (p) => figure(p.requests)], ["In flight", (p) => figure(p.in_flight)], ["Req/s", (p) => figure(p.rps)],
  ["4xx/s", (p) => figure(p.rps_4xx)], ["5xx/s", (p) => figure(p.rps_5xx)],
  ["p50 ms", (p) => figure(p.p50_ms)], ["p99 ms", (p) => figure(p.p99_ms)], ["CPU %", (p) => figure(p.cpu_percent)], ["Memory", (p) => bytes(p.rss_bytes)],
];

class Card {
  constructor(service, acts) {
    this.service = service;
    this.seen = false;
    this.rps = new Series();
    this.p99 = new Series();
    const button = (text, act) => make("button", { type: "button", "aria-label": `${text} ${service.name}`, onclick: () => act(this.service) }, `${text}…`);
    this.restart = button("Restart", acts.restart);
    this.scale = button("Scale", acts.scale);
    this.stop = button("Stop", acts.stop);
    this.start = button("Start", acts.start);
    this.state = make("span", { class: "badge" });
    this.where = make("span", { class: "dim" });
    this.figures = {};
    const list = make("dl", { class: "figures" });
    for (const name of ["Workers", "Req/s", "p50 ms", "p99 ms", "4xx/s", "5xx/s", "CPU %", "Memory", "Restarts", "Generation", "Certificate"]) {
      this.figures[name] = make("dd");
      list.append(make("div", {}, make("dt", {}, name), this.figures[name]));
    }
    this.canvases = [make("canvas", { role: "img" }), make("canvas", { role: "img" })];
    const chart = (canvas, text) => make("figure", {}, canvas, make("figcaption", {}, text));
    this.charts = make("div", { class: "charts" }, chart(this.canvases[0], "requests per second"), chart(this.canvases[1], "p99, milliseconds"));
    this.notes = make("ul", { class: "notes" });
    this.rows = make("tbody");
    const head = make("tr", {}, ...WORKER_COLUMNS.map(([name]) => make("th", { scope: "col" }, name)));
    this.workers = make("details", { ontoggle: () => this.showWorkers() }, make("summary", {}, "Workers"),
      make("div", { class: "scroll" }, make("table", {}, make("thead", {}, head), this.rows)));
    this.element = make("article", { class: "card", "data-service": service.name, tabindex: -1, "aria-label": service.name },
      make("div", { class: "top" }, make("h3", {}, service.name), this.state, this.where, make("span", { class: "spacer" }),
        make("div", { class: "actions" }, this.restart, this.scale, this.stop, this.start)),
      make("div", { class: "middle" }, list, this.charts), this.notes, this.workers);
  }

  add(service) {
    this.service = service;
    this.rps.add(service.rps);
    this.p99.add(service.p99_ms);
    if (this.seen) this.show();
  }

  show() {
    const { service } = this;
    const processes = service.processes;
    const sum = (key) => processes.reduce((total, process) => total + (process[key] || 0), 0);
    say(this.state, service.crash_loop ? `${service.state}: crash loop` : service.state);
    this.state.className = `badge ${service.crash_loop ? "failed" : service.state}`;
    say(this.where, service.kind === "task" ? "task" : service.public_url || [...service.listen, ...service.binds_itself].join(", ") || "internal");
    const end = expiry(service);
    const figures = {
      Workers: `${service.workers.ready}/${service.workers.desired}`, "Req/s": figure(service.rps), "p50 ms": figure(service.p50_ms),
      "p99 ms": figure(service.p99_ms), "4xx/s": figure(service.rps_4xx), "5xx/s": figure(service.rps_5xx), "CPU %": figure(sum("cpu_percent")), Memory: bytes(sum("rss_bytes")),
      Restarts: figure(service.restarts), Generation: figure(service.generation), Certificate: end ? end.text : "–",
    };
    for (const [name, text] of Object.entries(figures)) say(this.figures[name], text);
    this.figures.Certificate.className = end && end.left < 14 ? "backoff" : "";
    this.figures.Certificate.parentElement.hidden = !end;
    this.charts.hidden = service.kind !== "app";
    const notes = JSON.stringify(notesOf(service));
    if (notes !== this.said) {
      this.notes.replaceChildren(...notesOf(service).map(([kind, text]) => make("li", { class: kind ? "failed" : "dim" }, text)));
      this.said = notes;
    }
    const stopped = service.workers.desired === 0;
    this.stop.hidden = stopped;
    this.start.hidden = !stopped && !["failed", "backoff", "degraded"].includes(service.state);
    this.restart.hidden = stopped;
    this.scale.hidden = service.kind === "task";
    this.showWorkers();
    this.draw();
  }

  showWorkers() {
    if (!this.workers.open) return;
    this.rows.replaceChildren(...this.service.processes.map((process) =>
      make("tr", {}, ...WORKER_COLUMNS.map(([name, of]) => make("td", name === "State" ? { class: process.state } : {}, String(of(process)))))));
  }

  draw() {
    if (this.charts.hidden) return;
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    drawChart(this.canvases[0], this.rps, colour("--chart"), colour("--dim"));
    drawChart(this.canvases[1], this.p99, colour("--chart-2"), colour("--dim"));
    this.canvases[0].setAttribute("aria-label", `${figure(this.service.rps)} requests per second`);
    this.canvases[1].setAttribute("aria-label", `p99 ${figure(this.service.p99_ms)} milliseconds`);
  }
}

/** All cards; only those that can be seen are brought up to date. */
class Cards {
  constructor(place, acts) {
    this.place = place;
    this.acts = acts;
    this.cards = new Map();
    this.find = "";
    this.watch = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const card = this.cards.get(entry.target.dataset.service);
        if (!card) continue;
        card.seen = entry.isIntersecting;
        if (card.seen) card.show();
      }
    }, { rootMargin: "200px" });
  }

  show(services) {
    const names = new Set(services.map((service) => service.name));
    for (const [name, card] of this.cards) {
      if (names.has(name)) continue;
      card.element.remove();
      this.cards.delete(name);
    }
    services.forEach((service, at) => {
      let card = this.cards.get(service.name);
      if (!card) {
        card = new Card(service, this.acts);
        this.cards.set(service.name, card);
        this.watch.observe(card.element);
      }
      if (this.place.children[at] !== card.element) this.place.insertBefore(card.element, this.place.children[at] || null);
      card.add(service);
    });
    this.filter(this.find);
  }

  filter(text) {
    this.find = text.trim().toLowerCase();
    for (const card of this.cards.values()) {
      const { name, state } = card.service;
      card.element.hidden = Boolean(this.find) && !name.includes(this.find) && !state.startsWith(this.find);
    }
  }

  choose(name) {
    const card = this.cards.get(name);
    if (!card) return;
    card.element.hidden = false;
    card.element.scrollIntoView({ block: "center" });
    card.element.focus({ preventScroll: true });
    for (const other of this.cards.values()) other.element.classList.toggle("target", other === card);
  }
}
