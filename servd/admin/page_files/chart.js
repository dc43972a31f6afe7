// Small charts of the last minutes.

const POINTS = 150;

/** The last values of one figure, null where there was none. */
class Series {
  constructor() { this.values = []; }

  add(value) {
    this.values.push(value);
    if (this.values.length > POINTS) this.values.shift();
  }
}

/** A round number that is at least `value`. */
function roundUp(value) {
  if (value <= 1) return 1;
  const step = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * step).find((limit) => limit >= value);
}

/** Draws one series, from the left as long as it is short, with its scale. */
function drawChart(canvas, series, colour, dim) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width) return;
  if (canvas.width !== Math.round(width * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const { values } = series;
  const top = roundUp(Math.max(0, ...values.filter((value) => value !== null)));
  const x = (at) => (at + POINTS - values.length) * (width / (POINTS - 1));
  const y = (value) => height - 2 - (value / top) * (height - 6);
  context.strokeStyle = colour;
  context.lineWidth = 1.5;
  context.beginPath();
  let drawing = false;
  values.forEach((value, at) => {
    if (value === null) { drawing = false; return; }
    if (drawing) context.lineTo(x(at), y(value));
    else context.moveTo(x(at), y(value));
    drawing = true;
  });
  context.stroke();
  context.globalAlpha = 0.12;
  context.lineTo(x(values.length - 1), height);
  context.lineTo(x(values.findIndex((value) => value !== null)), height);
  context.fillStyle = colour;
  if (drawing) context.fill();
  context.globalAlpha = 1;
  context.fillStyle = dim;
  context.font = "10px system-ui, sans-serif";
  context.textBaseline = "top";
  context.fillText(String(top), 1, 1);
}
