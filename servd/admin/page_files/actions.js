// The actions, each after a confirmation.

const byId = (id) => document.getElementById(id);
const page = { status: null, tag: null };

const dialog = byId("dialog");

/** Asks for a confirmation, then calls `run`. An error is shown in the dialog, which stays open. */
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
    update();
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

/** Sends an action. servd refuses it if its state has changed since this page was updated. */
async function act(route, body = {}) {
  const { body: report } = await ask("POST", route, body, page.tag ? { "If-Match": page.tag } : {});
  return outcome(report);
}

function outcome(report) {
  const workers = (change) => change.keys.filter((key) => key.key === "workers").map((key) => ` ${key.before} → ${key.after}`).join("");
  const changes = report.changes.map((change) => `${change.sign} ${change.service} ${change.kind}${workers(change)}`);
  return report.outcome === "unchanged" ? "No changes were necessary" : `Applied in ${report.seconds.toFixed(1)} s: ${changes.join(", ") || "settings of the daemon"}`;
}

const route = (service, verb) => `/v1/services/${encodeURIComponent(service.name)}/${verb}`;
const dependentsOf = (service) => page.status.services.filter((other) => other.depends_on.includes(service.name) && other.workers.desired > 0).map((other) => other.name);

const acts = {
  restart: (service) => confirmAct({
    title: `Restart ${service.name}?`, label: "Restart",
    body: [make("p", {}, "Starts new workers with the same configuration. When they are ready, the old workers drain. No requests are lost.")],
    run: () => act(route(service, "restart")),
  }),
  start: (service) => confirmAct({
    title: `Start ${service.name}?`, label: "Start",
    body: [make("p", {}, service.depends_on.length ? `Also starts its dependencies: ${service.depends_on.join(", ")}.` : "Starts the workers and waits until they are ready.")],
    run: () => act(route(service, "start")),
  }),
  stop: (service) => {
    const users = dependentsOf(service);
    const cascade = make("input", { type: "checkbox", id: "cascade" });
    const body = [make("p", {}, "The workers drain. The service stays stopped until you start it or the config changes its number of workers.")];
    if (users.length) body.push(make("label", {}, cascade, ` Also stop its dependents: ${users.join(", ")}`));
    confirmAct({ title: `Stop ${service.name}?`, label: "Stop", danger: true, body, run: () => act(route(service, "stop"), { cascade: cascade.checked }) });
  },
  scale: (service) => {
    const input = make("input", { type: "number", id: "scale-workers", min: 0, max: 4096, step: 1, required: true, value: service.workers.desired, autofocus: true });
    const file = service.by_hand ? service.by_hand.file : service.workers.desired;
    confirmAct({
      title: `Scale ${service.name}`, label: "Scale",
      body: [make("p", {}, `Now: ${many(service.workers.desired, "worker")}. Config: ${file}. A manual setting lasts until the config changes the number of workers.`),
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
const ended = (ends) => ends.map((item) => make("p", {}, `${item.service}: the manual setting of ${many(item.workers, "worker")} ends; ${item.file === null ? "the service is removed" : `the config says ${item.file}`}.`));

async function askReload() {
  const body = [];
  let seen = {};
  try {
    const { body: plan, tag } = await ask("GET", "/v1/plan");
    seen = { "If-Match": tag };
    if (plan.changes.length) body.push(diffTable(plan.changes));
    if (plan.settings.length) body.push(settingsTable(plan.settings));
    if (!body.length) body.push(make("p", {}, "The config has no changes."));
    body.push(...ended(plan.by_hand_ends));
    body.push(...plan.by_hand.map((item) => make("p", { class: "dim" }, `${item.service} keeps ${many(item.workers, "worker")} (set manually; the config says ${item.file}).`)));
    body.push(...plan.warnings.map((warning) => make("p", { class: "degraded" }, warning)));
  } catch (error) {
    body.push(make("pre", { class: "failed" }, error instanceof Problem ? error.text : String(error)));
  }
  confirmAct({ title: "Reload the configuration?", label: "Reload", body, run: async () => outcome((await ask("POST", "/v1/reload", {}, seen)).body) });
}

function askRestartAll() {
  confirmAct({
    title: "Restart all services?", label: "Restart all", run: () => act("/v1/restart"),
    body: [make("p", {}, "Starts new workers of every service with the same configuration. When they are ready, the old workers drain. No requests are lost.")],
  });
}
