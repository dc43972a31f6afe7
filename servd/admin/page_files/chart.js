// Charts of the last ten minutes, from the left to the right edge (now).

const highest = (values) => Math.max(0, ...values.filter((value) => value !== null));

/** A round number that is at least `value`. */
function roundUp(value) {
  if (value <= 1) return 1;
  const step = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * step).find((limit) => limit >= value);
}

/** A colour of the style sheet. */
const colours = { known: new Map() };
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => colours.known.clear());
function colour(name) {
  if (!colours.known.has(name)) colours.known.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  return colours.known.get(name);
}

/** Prepares a canvas for drawing at the resolution of the screen; null if it cannot be seen. */
function contextOf(canvas) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width) return null;
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** One line with the area below it. */
function drawLine({ context, width, height }, values, top, paint, filled) {
  const x = (at) => (at + SAMPLES - values.length) * (width / (SAMPLES - 1));
  const y = (value) => height - 1.5 - (value / top) * (height - 4);
  context.strokeStyle = paint;
  context.fillStyle = paint;
  context.lineWidth = 1.3;
  let from = null;
  const close = (to) => {
    if (from === null) return;
    context.stroke();
    context.lineTo(x(to), height);
    context.lineTo(x(from), height);
    context.globalAlpha = filled;
    context.fill();
    context.globalAlpha = 1;
    from = null;
  };
  values.forEach((value, at) => {
    if (value === null) { close(at - 1); return; }
    if (from === null) {
      from = at;
      context.beginPath();
      context.moveTo(x(at), y(value));
    }
    context.lineTo(x(at) + (from === at ? 0.6 : 0), y(value));
  });
  close(values.length - 1);
}

/** Draws `lines` of {values, paint} on one scale. Returns the top of the scale. */
function drawChart(canvas, lines) {
  const top = roundUp(highest(lines.flatMap((line) => line.values)));
  const place = contextOf(canvas);
  if (place) for (const { values, paint, filled = 0.14 } of lines) drawLine(place, values, top, colour(paint), filled);
  return top;
}

/** Requests, and those answered with 5xx where there were any. */
const requestChart = (all, errors) => [{ values: all, paint: "--chart" }, { values: errors.map((value) => value || null), paint: "--bad", filled: 0.45 }];
const requestLines = (history) => requestChart(history.rps, history.rps_5xx);
const latencyLines = (history) => [{ values: history.p99_ms, paint: "--chart-2" }];

/** A small chart with its highest value beside it. */
class Sparkline {
  constructor(lines, unit, words) {
    Object.assign(this, { lines, unit, words });
    this.canvas = make("canvas", { role: "img" });
    this.peak = make("span", { class: "peak" });
    this.element = make("span", { class: "spark" }, this.canvas, this.peak);
  }

  show(history) {
    const lines = history ? this.lines(history) : [];
    const most = highest(lines.flatMap((line) => line.values));
    this.element.classList.toggle("empty", !most);
    say(this.peak, most ? `max ${figure(most, most < 10 ? 1 : 0)}${this.unit}` : "");
    this.canvas.setAttribute("aria-label", most ? `${this.words} of the last 10 minutes, at most ${figure(most)}` : `${this.words}: none in the last 10 minutes`);
    drawChart(this.canvas, lines);
  }
}

/** A large chart with its scale. */
class Chart {
  constructor(lines, unit, title) {
    Object.assign(this, { lines, unit, title });
    this.canvas = make("canvas", { role: "img", "aria-label": title });
    this.top = make("span", { class: "top-label" });
    this.element = make("figure", {}, make("figcaption", {}, title), make("div", { class: "plot" }, this.top, this.canvas),
      make("div", { class: "axis" }, make("span", {}, "10 min ago"), make("span", {}, "now")));
  }

  show(history) {
    say(this.top, `${figure(drawChart(this.canvas, history ? this.lines(history) : []))} ${this.unit}`);
  }
}
