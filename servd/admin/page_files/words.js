// Elements, and words for numbers and times.

/** An element: `make("p", {class: "dim"}, "text", other)`. */
function make(name, attributes = {}, ...children) {
  const svg = ["svg", "g", "rect", "path", "text", "marker", "defs", "title", "line"].includes(name);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets a text if it has changed: an unchanged one costs no layout. */
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

/** The GPUs of workers, and the memory that they hold there: `0, 1: 38 GiB`. */
function gpusOf(processes) {
  const uses = processes.flatMap((process) => process.gpus || []);
  if (!uses.length) return "";
  const names = [...new Set(uses.map((use) => use.number || use.id))].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
  const unknown = uses.some((use) => use.memory_bytes === null);
  return `${names.join(", ")}: ${unknown ? "–" : bytes(uses.reduce((sum, use) => sum + use.memory_bytes, 0))}`;
}

const many = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

/** A share in percent: "0 %", "0.4 %", "18 %"; "–" without requests. */
function percent(part, whole) {
  if (!whole) return "–";
  const value = (100 * part) / whole;
  return `${value === 0 || value >= 10 ? Math.round(value) : value.toFixed(1)} %`;
}

const SPANS = [[86400, "day"], [3600, "h"], [60, "min"], [1, "s"]];

/** A span of time in its largest unit: "3 min", "2 days". */
function span(seconds) {
  const [unit, word] = SPANS.find(([size]) => seconds >= size) || [1, "s"];
  const count = Math.max(0, Math.floor(seconds / unit));
  return word === "day" ? many(count, word) : `${count} ${word}`;
}

function ago(time) {
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  return seconds < 5 ? "just now" : `${span(seconds)} ago`;
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DATE = new Intl.DateTimeFormat("en-CA", { year: "numeric", month: "2-digit", day: "2-digit" });

/** Local time of day, with the date if it is not today. `digits`: of the second. */
function clock(time, digits = 0) {
  const at = new Date(time);
  const part = digits ? `.${String(at.getMilliseconds()).padStart(3, "0").slice(0, digits)}` : "";
  const date = DATE.format(at);
  return `${date === DATE.format(Date.now()) ? "" : `${date} `}${CLOCK.format(at)}${part}`;
}

/** A time element; its tooltip has the full local time and UTC. */
function timeElement(time, text) {
  const title = `${DATE.format(new Date(time))} ${CLOCK.format(new Date(time))} local time, ${time.slice(0, 19).replace("T", " ")} UTC`;
  return make("time", { datetime: time, title }, text);
}

/** "3 min ago (14:02:11)"; `refreshTimes` updates it. */
const when = (time) => make("span", {}, make("span", { "data-ago": time }, ago(time)), " (", timeElement(time, clock(time)), ")");

function refreshTimes() {
  for (const element of document.querySelectorAll("[data-ago]")) say(element, ago(element.dataset.ago));
}
