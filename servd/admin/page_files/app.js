// The page: asks for the status every two seconds, and does what a person asks for, once more asked.

const EVERY = 2;
const byId = (id) => document.getElementById(id);
const page = { status: null, tag: null };

const dialog = byId("dialog");

/** Asks before it acts. `run` does it; what goes wrong is said, and the question stays. */
function confirmAct({ title, body, label, danger = false, run }) {
  const go = byId("dialog-go");
  say(byId("dialog-title"), title);
  say(byId("dialog-result"), "");
  say(go, label);
  go.className = danger ? "danger" : "primary";
  go.disabled = false;
  byId("dialog-body").replaceChildren(...body);
  dialog.querySelector("form").onsubmit = async (event) => {
    if (event.submitter && event.submitter.value === "cancel") return;
    event.preventDefault();
    go.disabled = true;
    say(byId("dialog-result"), "");
    say(go, "Working…");
    try {
      const done = await run();
      dialog.close();
      toast(done);
    } catch (error) {
      say(byId("dialog-result"), error instanceof Problem ? error.text : String(error));
      say(go, label);
      go.disabled = false;
    }
    look();
  };
  dialog.showModal();
}

let hiding;

function toast(text) {
  const place = byId("toast");
  say(place, text);
  place.classList.add("shown");
  clearTimeout(hiding);
  hiding = setTimeout(() => place.classList.remove("shown"), 6000);
}

/** Does something that is about what this page shows: not where that has changed meanwhile. */
async function act(route, body = {}) {
  const { body: report } = await ask("POST", route, body, page.tag ? { "If-Match": page.tag } : {});
  return outcome(report);
}

function outcome(report) {
  const workers = (change) => change.keys.filter((key) => key.key === "workers").map((key) => ` ${key.before} → ${key.after}`).join("");
  const changes = report.changes.map((change) => `${change.sign} ${change.service} ${change.kind}${workers(change)}`);
  return report.outcome === "unchanged" ? "Nothing had to be changed" : `Applied in ${report.seconds.toFixed(1)} s: ${changes.join(", ") || "the daemon itself"}`;
}

const route = (service, verb) => `/v1/services/${encodeURIComponent(service.name)}/${verb}`;
const needing = (service) => page.status.services.filter((other) => other.depends_on.includes(service.name) && other.workers.desired > 0).map((other) => other.name);

const acts = {
  restart: (service) => confirmAct({
    title: `Restart ${service.name}?`, label: "Restart",
    body: [make("p", {}, "New workers of the same definition are started and ready, then the old ones drain. No request is lost.")],
    run: () => act(route(service, "restart")),
  }),
  start: (service) => confirmAct({
    title: `Start ${service.name}?`, label: "Start",
    body: [make("p", {}, service.depends_on.length ? `With what it needs: ${service.depends_on.join(", ")}.` : "It is ready when this is over.")],
    run: () => act(route(service, "start")),
  }),
  stop: (service) => {
    const users = needing(service);
    const cascade = make("input", { type: "checkbox", id: "cascade" });
    const body = [make("p", {}, "Its workers drain, and it stays stopped until it is started or the file changes its workers.")];
    if (users.length) body.push(make("label", {}, cascade, ` Stop what needs it too: ${users.join(", ")}`));
    confirmAct({ title: `Stop ${service.name}?`, label: "Stop", danger: true, body, run: () => act(route(service, "stop"), { cascade: cascade.checked }) });
  },
  scale: (service) => {
    const input = make("input", { type: "number", id: "scale-workers", min: 0, max: 4096, step: 1, required: true, value: service.workers.desired, autofocus: true });
    const file = service.by_hand ? service.by_hand.file : service.workers.desired;
    confirmAct({
      title: `Scale ${service.name}`, label: "Scale",
      body: [make("p", {}, `${many(service.workers.desired, "worker")} now; the file says ${file}. What is set here lasts until the file changes it.`),
        make("label", { for: "scale-workers" }, "Workers "), input],
      run: () => act(route(service, "scale"), { workers: Number(input.value) }),
    });
  },
};

function diffTable(changes) {
  const rows = changes.flatMap((change) => {
    const first = make("tr", {}, make("td", { class: "sign" }, change.sign), make("td", {}, change.service), make("td", {}, change.kind), make("td", {}, change.why));
    const keys = change.keys.map((key) => make("tr", {}, make("td"), make("td", { class: "dim" }, key.key), make("td", { class: "dim", colspan: 2 }, `${key.sign} ${[key.before, key.after].filter(Boolean).join(" → ")}`)));
    return [first, ...keys];
  });
  return make("div", { class: "scroll" }, make("table", { class: "diff" }, make("tbody", {}, ...rows)));
}

const settingsTable = (settings) => diffTable(settings.map((item) => ({ sign: item.sign, service: item.key, kind: item.kind, why: [item.before, item.after].filter(Boolean).join(" → "), keys: [] })));
const ended = (ends) => ends.map((item) => make("p", {}, `${item.service}: ${many(item.workers, "worker")} by hand end; ${item.file === null ? "it is removed" : `the file says ${item.file}`}.`));

async function askReload() {
  const body = [];
  let seen = {};
  try {
    const { body: plan, tag } = await ask("GET", "/v1/plan");
    seen = { "If-Match": tag };
    if (plan.changes.length) body.push(diffTable(plan.changes));
    if (plan.settings.length) body.push(settingsTable(plan.settings));
    if (!body.length) body.push(make("p", {}, "Nothing differs from what runs."));
    body.push(...ended(plan.by_hand_ends));
    body.push(...plan.by_hand.map((item) => make("p", { class: "dim" }, `${item.service} keeps ${many(item.workers, "worker")} by hand; the file says ${item.file}.`)));
    body.push(...plan.warnings.map((warning) => make("p", { class: "degraded" }, warning)));
  } catch (error) {
    body.push(make("pre", { class: "failed" }, error instanceof Problem ? error.text : String(error)));
  }
  confirmAct({ title: "Reload the configuration?", label: "Reload", body, run: async () => outcome((await ask("POST", "/v1/reload", {}, seen)).body) });
}

function askRestartAll() {
  confirmAct({
    title: "Restart every service?", label: "Restart all", run: () => act("/v1/restart"),
    body: [make("p", {}, "New workers of the same definitions are started and ready, then the old ones drain.")],
  });
}

const graph = new Graph(byId("graph"), (name) => cards.choose(name));
const cards = new Cards(byId("cards"), acts);
const lines = new Lines(byId("lines"));

function showReport(id, last) {
  const place = byId(id);
  const key = last && last.at + last.outcome;
  if (!last || place.dataset.key === key) return;
  place.dataset.key = key;
  place.className = "";
  const details = last.details.length ? last.details : [last.error].filter(Boolean);
  place.replaceChildren(
    make("p", {}, make("span", { class: `badge ${last.outcome}` }, last.outcome.replace("_", " ")), ` ${last.at.slice(0, 19)}Z in ${last.seconds.toFixed(1)} s, by ${last.why}`),
    ...details.map((text) => make("p", { class: "failed" }, text)),
    ...last.last_lines.map((line) => make("div", { class: "line" }, `| ${line}`)),
    last.changes.length ? diffTable(last.changes) : make("p", { class: "dim" }, "No service was changed."),
    ...(last.settings.length ? [settingsTable(last.settings)] : []),
    ...ended(last.by_hand_ends),
  );
}

function showServices(services) {
  const select = byId("lines-service");
  const names = services.map((service) => service.name).sort();
  if (select.dataset.names !== names.join(" ")) {
    select.dataset.names = names.join(" ");
    const chosen = select.value;
    select.replaceChildren(make("option", { value: "" }, "all"), ...names.map((name) => make("option", { value: name }, name)));
    select.value = names.includes(chosen) ? chosen : "";
  }
}

function show(status) {
  page.status = status;
  const state = byId("state");
  say(state, status.state);
  state.className = `badge ${status.state}`;
  say(byId("about"), `${status.version} · pid ${status.pid} · ${status.config.path} (generation ${status.config.generation})`);
  const workers = status.services.reduce((sum, service) => sum + service.workers.ready, 0);
  const rps = status.services.reduce((sum, service) => sum + (service.rps || 0), 0);
  say(byId("totals"), `${many(status.services.length, "service")}, ${many(workers, "worker")}, ${figure(rps)} req/s`);
  document.title = `servd: ${status.services.filter((service) => ["ready", "completed", "exited", "rolling", "stopped"].includes(service.state)).length}/${status.services.length} well`;
  graph.show(status.services);
  cards.show(status.services);
  showReport("last-reload", status.last_reload);
  showReport("last-act", status.last_act);
  showServices(status.services);
}

function trouble(text) {
  const notice = byId("notice");
  notice.hidden = !text;
  say(notice, text || "");
  byId("reload").disabled = byId("restart-all").disabled = Boolean(text);
  if (!text) return;
  say(byId("state"), "not connected");
  byId("state").className = "badge gone";
}

async function look() {
  try {
    const { body, tag } = await ask("GET", "/v1/status");
    page.tag = tag;
    trouble("");
    show(body);
  } catch (error) {
    const away = error instanceof Problem && error.status === 401;
    trouble(away ? "This page needs a session: run `servd dashboard` and open the address that it prints." : "servd does not answer. Trying again…");
    return !away;
  }
  return true;
}

async function goOn() {
  for (;;) {
    if (!document.hidden && !(await look())) return;
    await pause(EVERY);
  }
}

function tabs() {
  const [events, logs] = [byId("tab-events"), byId("tab-logs")];
  const open = (tab) => {
    for (const other of [events, logs]) {
      other.setAttribute("aria-selected", String(other === tab));
      other.tabIndex = other === tab ? 0 : -1;
    }
    byId("lines").setAttribute("aria-labelledby", tab.id);
    lines.open(tab === events ? "events" : "logs", byId("lines-service").value);
  };
  const chosen = () => (events.getAttribute("aria-selected") === "true" ? events : logs);
  for (const tab of [events, logs]) {
    tab.addEventListener("click", () => open(tab));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const other = tab === events ? logs : events;
      other.focus();
      open(other);
    });
  }
  byId("lines-service").addEventListener("change", () => open(chosen()));
  open(events);
}

async function begin() {
  await signIn();
  byId("reload").addEventListener("click", askReload);
  byId("restart-all").addEventListener("click", askRestartAll);
  byId("find").addEventListener("input", (event) => cards.filter(event.target.value));
  byId("lines-filter").addEventListener("input", (event) => lines.choose(event.target.value));
  byId("lines-pause").addEventListener("change", (event) => lines.pause(event.target.checked));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || dialog.open || /INPUT|SELECT/.test(document.activeElement.tagName)) return;
    event.preventDefault();
    byId("find").focus();
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
  window.addEventListener("resize", () => { if (page.status) graph.show(page.status.services); });
  tabs();
  goOn();
}

begin();
