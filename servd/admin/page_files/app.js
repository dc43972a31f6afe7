// The page: fetches the status every two seconds and shows it.

const EVERY = 2;
const HISTORY_EVERY = 3;
const VIEW = "servd-view";

const past = new RateHistory();
const table = new Table(byId("rows"), acts);
const graph = new Graph(byId("graph"), (name) => {
  openView("table");
  table.choose(name);
});
const lines = new Lines(byId("lines"), byId("dock-latest"));
const totalRequests = new Sparkline((all) => requestChart(all.total("rps"), all.total("rps_5xx")), "/s", "Requests per second");

const trigger = (why) => why.replace(/\b(a|the) (file|certificate) changed\b/g, "$1 $2 change").replace(/^(\S.*) changed$/, "a change to $1");
const outcomeBadge = (last) => make("span", { class: `badge ${last.outcome}` }, last.outcome.replace("_", " "));

/** Fills a place if `last` is another report than before. */
function ifNew(id, last, fill) {
  const place = byId(id);
  const key = last && last.at + last.outcome;
  if (!last || place.dataset.key === key) return;
  place.dataset.key = key;
  place.classList.remove("dim");
  place.replaceChildren(...fill());
}

function showReport(id, last, manual) {
  const cause = (why) => (manual ? why : `triggered by ${trigger(why)}`);
  ifNew(`${id}-summary`, last, () => [outcomeBadge(last), " ", manual ? `${cause(last.why)}, ` : "", when(last.at), manual ? "" : `, ${cause(last.why)}`]);
  const details = () => (last.details.length ? last.details : [last.error].filter(Boolean));
  ifNew(id, last, () => [
    make("p", {}, outcomeBadge(last), " ", when(last.at), `, ${cause(last.why)}, took ${last.seconds.toFixed(1)} s`),
    ...details().map((text) => make("p", { class: "failed" }, text)),
    ...last.last_lines.map((line) => make("div", { class: "line" }, `| ${line}`)),
    last.changes.length ? diffTable(last.changes) : make("p", { class: "dim" }, "No services changed."),
    ...(last.settings.length ? [settingsTable(last.settings)] : []),
    ...ended(last.by_hand_ends),
  ]);
}

function showProblems() {
  const place = byId("problems");
  const found = table.problems.map((row) => [row.service.name, badgeWord(row.service, row.history).replace("ready, ", ""), row.level]);
  const key = JSON.stringify(found);
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  const link = ([name, word, level]) => make("button", {
    type: "button", class: `chip ${level === 3 ? "failed" : "degraded"}`,
    onclick: () => { openView("table"); table.choose(name); },
  }, `${name}: ${word}`);
  const shown = found.slice(0, 5).map(link);
  if (found.length > shown.length) shown.push(make("span", { class: "dim" }, `and ${found.length - shown.length} more`));
  place.replaceChildren(...(found.length ? shown : ["None"]));
}

function showServices(services) {
  const select = byId("lines-service");
  const names = services.map((service) => service.name).sort();
  if (select.dataset.names === names.join(" ")) return;
  select.dataset.names = names.join(" ");
  const chosen = select.value;
  select.replaceChildren(make("option", { value: "" }, "all"), ...names.map((name) => make("option", { value: name }, name)));
  select.value = names.includes(chosen) ? chosen : "";
}

function showTotals(status) {
  const sum = (of) => status.services.reduce((total, service) => total + (of(service) || 0), 0);
  const summary = summaryOf(status.services);
  const state = byId("state");
  say(state, summary.text + (status.state === "running" ? "" : `, ${status.state}`));
  state.className = `badge ${summary.look}`;
  document.title = `${summary.text} · servd`;
  say(byId("about"), `${status.config.path} · config generation ${status.config.generation}`);
  byId("about").title = `servd ${status.version}, pid ${status.pid}, started ${clock(status.started_at)}`;
  say(byId("daemon"), `servd ${status.version}, pid ${status.pid}, up ${span((Date.now() - Date.parse(status.started_at)) / 1000)}`);
  const counts = [many(status.services.length, "service"), summary.stopped ? `${summary.stopped} stopped` : "", `${sum((service) => service.workers.ready)} workers ready`];
  say(byId("totals"), counts.filter(Boolean).join(", "));
  const rps = sum((service) => service.rps);
  const [client, server] = [sum((service) => service.rps_4xx), sum((service) => service.rps_5xx)];
  say(byId("total-rps"), `${figure(rps)}/s`);
  say(byId("total-5xx"), `${percent(server, rps)} 5xx`);
  byId("total-5xx").className = server ? "failed" : "";
  say(byId("total-4xx"), `${percent(client, rps)} 4xx`);
}

function show(status) {
  page.status = status;
  showTotals(status);
  table.show(status.services, past);
  showProblems();
  if (!byId("graph-view").hidden) graph.show(status.services, past);
  showReport("last-reload", status.last_reload, false);
  showReport("last-act", status.last_act, true);
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

async function update() {
  try {
    const { body, tag } = await ask("GET", "/v1/status");
    page.tag = tag;
    trouble("");
    show(body);
  } catch (error) {
    const away = error instanceof Problem && error.status === 401;
    trouble(away ? "This page needs a session. Run `servd dashboard` and open the address that it prints." : "servd is not responding. Retrying…");
    return !away;
  }
  return true;
}

async function updateHistory() {
  try {
    await past.refresh(page.status.pid);
  } catch {
    return; // the status says what is wrong
  }
  table.draw();
  totalRequests.show(past);
  refreshTimes();
}

async function run() {
  for (let turn = 0; ; turn += 1) {
    if (!document.hidden) {
      if (!(await update())) return;
      if (page.status && (turn % HISTORY_EVERY === 0 || past.pid !== page.status.pid)) await updateHistory();
    }
    await pause(EVERY);
  }
}

/** Makes tabs of some buttons: click, arrow keys, Home and End. `open` gets the chosen button. */
function makeTabs(tabs, open) {
  const choose = (tab) => {
    for (const other of tabs) {
      other.setAttribute("aria-selected", String(other === tab));
      other.tabIndex = other === tab ? 0 : -1;
    }
    open(tab);
  };
  tabs.forEach((tab, at) => {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: -1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const other = tabs.at(to % tabs.length);
      other.focus();
      choose(other);
    });
  });
  return choose;
}

const chooseView = makeTabs([byId("tab-table"), byId("tab-graph")], (tab) => {
  const drawn = tab.id === "tab-graph";
  byId("table-view").hidden = drawn;
  byId("graph-view").hidden = !drawn;
  sessionStorage.setItem(VIEW, drawn ? "graph" : "table");
  if (!page.status) return;
  if (drawn) graph.show(page.status.services, past);
  else table.draw();
});
const openView = (name) => chooseView(byId(`tab-${name}`));

/** Opens or closes the panel at the bottom. */
function openDock(open) {
  byId("dock").classList.toggle("closed", !open);
  byId("dock-toggle").setAttribute("aria-expanded", String(open));
  say(byId("dock-toggle"), open ? "Hide" : "Show activity");
  byId("dock-panels").hidden = !open;
}

const PANELS = { "tab-events": "lines", "tab-logs": "lines", "tab-reload": "last-reload", "tab-act": "last-act" };
let following = "";

const chooseDock = makeTabs(Object.keys(PANELS).map(byId), (tab) => {
  for (const id of new Set(Object.values(PANELS))) byId(id).hidden = id !== PANELS[tab.id];
  const streams = PANELS[tab.id] === "lines";
  byId("lines-controls").hidden = !streams;
  if (!byId("dock").classList.contains("closed") || following) openDock(true);
  if (!streams) return;
  byId("lines").setAttribute("aria-labelledby", tab.id);
  followLines(tab.id === "tab-events" ? "events" : "logs");
});

function followLines(kind) {
  const service = byId("lines-service").value;
  if (following === `${kind} ${service}`) return;
  following = `${kind} ${service}`;
  lines.open(kind, service);
}

function listen() {
  byId("reload").addEventListener("click", askReload);
  byId("restart-all").addEventListener("click", askRestartAll);
  byId("find").addEventListener("input", (event) => {
    openView("table");
    table.filter(event.target.value);
  });
  byId("lines-filter").addEventListener("input", (event) => lines.filter({ text: event.target.value }));
  byId("lines-level").addEventListener("change", (event) => lines.filter({ level: rank(event.target.value || "debug") }));
  byId("lines-pause").addEventListener("change", (event) => lines.pause(event.target.checked));
  byId("lines-service").addEventListener("change", () => followLines(following.split(" ", 1)[0]));
  byId("dock-toggle").addEventListener("click", () => openDock(byId("dock").classList.contains("closed")));
  for (const [button, tab] of [["show-reload", "tab-reload"], ["show-act", "tab-act"]]) byId(button).addEventListener("click", () => chooseDock(byId(tab)));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || dialog.open || /INPUT|SELECT/.test(document.activeElement.tagName)) return;
    event.preventDefault();
    byId("find").focus();
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) update(); });
  window.addEventListener("resize", () => {
    if (!page.status) return;
    if (byId("graph-view").hidden) table.draw();
    else graph.show(page.status.services, past);
  });
}

async function begin() {
  await signIn();
  byId("total-chart").append(totalRequests.element);
  listen();
  const narrow = matchMedia("(max-width: 46rem)");
  narrow.addEventListener("change", () => openDock(!narrow.matches));
  openDock(!narrow.matches);
  openView(sessionStorage.getItem(VIEW) || "table");
  chooseDock(byId("tab-events"));
  run();
}

begin();
