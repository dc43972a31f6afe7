// The dependency graph: a layered layout, whose edges run around the boxes.

const NODE = { width: 168, height: 42 };
const GAP = { across: 64, beside: 14 };
const BEND = 10;

let loading = null;

/** Loads dagre, which computes the layout, when a graph is drawn for the first time. */
function loadDagre() {
  loading ??= (async () => {
    const answer = await fetch("/page/dagre.min.js", { headers: withToken() });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    const script = document.createElement("script");
    script.textContent = await answer.text();
    document.head.append(script);
    return window.dagre;
  })();
  loading.catch(() => { loading = null; });
  return loading;
}

/** Places the services that have edges. `direction`: LR or TB. */
function layered(dagre, names, edges, direction) {
  const graph = new dagre.graphlib.Graph();
  graph.setGraph({ rankdir: direction, nodesep: GAP.beside, edgesep: GAP.beside, ranksep: GAP.across });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const name of names) graph.setNode(name, { ...NODE });
  for (const [user, need] of edges) graph.setEdge(user, need);
  dagre.layout(graph);
  const places = new Map(names.map((name) => [name, { x: graph.node(name).x - NODE.width / 2, y: graph.node(name).y - NODE.height / 2 }]));
  const paths = edges.map(([user, need]) => ({ user, need, points: cornersOf(graph, user, need, direction === "LR") }));
  const { width = 0, height = 0 } = names.length ? graph.graph() : {};
  return { places, paths, width, height };
}

/** The corners of an edge. Where it passes a layer, it runs straight through a gap between the boxes
 * of that layer; it bends only between layers, where no box is. */
function cornersOf(graph, user, need, across) {
  const [from, to] = [graph.node(user), graph.node(need)];
  const turned = (point) => (across ? point : { x: point.y, y: point.x });
  const half = (across ? NODE.width : NODE.height) / 2;
  const [begin, end] = [turned(from), turned(to)];
  const layers = new Set(graph.nodes().map((name) => Math.round(turned(graph.node(name)).x)));
  const passed = graph.edge(user, need).points.map(turned)
    .filter(({ x }) => x > begin.x + half + 1 && x < end.x - half - 1 && layers.has(Math.round(x)));
  const corners = passed.flatMap(({ x, y }) => [{ x: x - half - BEND, y }, { x: x + half + BEND, y }]);
  const ends = [{ x: begin.x + half, y: begin.y }, { x: begin.x + half + BEND, y: begin.y }];
  const last = [{ x: end.x - half - BEND - 6, y: end.y }, { x: end.x - half - 2, y: end.y }];
  return [...ends, ...corners, ...last].map(turned);
}

/** An SVG path through `points` with round corners. */
function rounded(points) {
  const towards = (from, to) => {
    const length = Math.hypot(to.x - from.x, to.y - from.y) || 1;
    const share = Math.min(BEND, length / 2) / length;
    return `${(from.x + (to.x - from.x) * share).toFixed(1)},${(from.y + (to.y - from.y) * share).toFixed(1)}`;
  };
  const inner = points.slice(1, -1).map((point, at) => `L${towards(point, points[at])} Q${point.x.toFixed(1)},${point.y.toFixed(1)} ${towards(point, points[at + 2])}`);
  const [first, last] = [points[0], points[points.length - 1]];
  return `M${first.x.toFixed(1)},${first.y.toFixed(1)} ${inner.join(" ")} L${last.x.toFixed(1)},${last.y.toFixed(1)}`;
}

/** Places all services: side by side or from top to bottom, whatever fits the width; below them, in
 * lines, those without dependencies. */
function layout(dagre, services, width) {
  const known = new Set(services.map((service) => service.name));
  const edges = services.flatMap((service) => service.depends_on.filter((need) => known.has(need)).map((need) => [service.name, need]));
  const joined = new Set(edges.flat());
  const names = services.map((service) => service.name).filter((name) => joined.has(name));
  let found = layered(dagre, names, edges, "LR");
  if (found.width > width) {
    const upright = layered(dagre, names, edges, "TB");
    if (upright.width < found.width) found = upright;
  }
  const columns = Math.max(1, Math.floor((width + GAP.beside) / (NODE.width + GAP.beside)));
  const alone = services.map((service) => service.name).filter((name) => !joined.has(name));
  const top = found.height + (names.length ? 40 : 20);
  alone.forEach((name, at) => found.places.set(name, {
    x: (at % columns) * (NODE.width + GAP.beside), y: top + Math.floor(at / columns) * (NODE.height + GAP.beside),
  }));
  const corners = [...found.places.values()];
  return {
    ...found, alone: alone.length ? top - 10 : null,
    width: Math.max(found.width, ...corners.map(({ x }) => x + NODE.width)) + 4,
    height: Math.max(0, ...corners.map(({ y }) => y + NODE.height)) + 4,
  };
}

/** Draws into `place`; calls `choose` with the name of a chosen service. */
class Graph {
  constructor(place, choose) {
    this.place = place;
    this.choose = choose;
    this.shape = "";
    this.nodes = new Map();
  }

  /** Draws anew if services, dependencies or the width have changed; updates the states. */
  async show(services, history) {
    const width = this.place.clientWidth - 26;
    if (width <= 0) return;
    const shape = JSON.stringify([width, services.map((service) => [service.name, service.depends_on])]);
    if (shape !== this.shape) {
      this.shape = shape;
      try {
        this.draw(services, layout(await loadDagre(), services, width));
      } catch (error) {
        this.shape = "";
        this.nodes.clear();
        this.place.replaceChildren(make("p", { class: "failed" }, `The graph could not be drawn: ${error.message}`));
        return;
      }
    }
    for (const service of services) this.refresh(service, history.of(service.name));
  }

  draw(services, plan) {
    const arrow = make("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" },
      make("path", { d: "M0,0 L8,4 L0,8 z" }));
    const svg = make("svg", { width: plan.width, height: plan.height, viewBox: `-2 -2 ${plan.width} ${plan.height}`, role: "group", "aria-label": "Graph of the dependencies" },
      make("defs", {}, arrow));
    this.edges = plan.paths.map(({ user, need, points }) =>
      make("path", { class: "edge", d: rounded(points), "marker-end": "url(#arrow)", "data-edge": `${user} ${need}` }));
    svg.append(...this.edges);
    if (plan.alone !== null) svg.append(make("text", { class: "caption", x: 0, y: plan.alone }, "Services without dependencies"));
    this.nodes.clear();
    for (const service of services) svg.append(this.node(service, plan.places.get(service.name)));
    this.place.replaceChildren(svg);
  }

  node(service, { x, y }) {
    const { width, height } = NODE;
    const name = service.name.length > 20 ? `${service.name.slice(0, 19)}…` : service.name;
    const sub = make("text", { class: "sub", x: 10, y: 34 });
    const go = () => this.choose(service.name);
    const key = (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); go(); }
    };
    const light = (lit) => () => {
      for (const edge of this.edges) edge.classList.toggle("lit", lit && edge.dataset.edge.split(" ").includes(service.name));
    };
    const group = make("g", {
      transform: `translate(${x},${y})`, tabindex: 0, role: "link", "data-node": service.name, onclick: go, onkeydown: key,
      onpointerenter: light(true), onpointerleave: light(false), onfocus: light(true), onblur: light(false),
    },
    make("title", {}, service.name),
    make("rect", { width, height, rx: 8 }), make("rect", { class: "fill", width, height, rx: 8 }),
    make("text", { x: 10, y: 18 }, name), sub);
    this.nodes.set(service.name, { group, sub });
    return group;
  }

  refresh(service, history) {
    const node = this.nodes.get(service.name);
    if (!node) return;
    const { ready, desired } = service.workers;
    const level = severity(service, history);
    const share = errorShare(history);
    const text = ["task", "external"].includes(service.kind) || !desired ? stateWord(service) : `${stateWord(service)} ${ready}/${desired}`;
    const errors = share >= NOTABLE_ERRORS ? ` · ${percent(share, 1)} 5xx` : "";
    const rate = !errors && service.rps ? ` · ${figure(service.rps)} req/s` : "";
    say(node.sub, text + errors + rate);
    const shown = `node ${look(service, level)}`;
    if (node.group.getAttribute("class") !== shown) node.group.setAttribute("class", shown);
    const label = `${service.name}: ${text}${errors}`;
    if (node.group.getAttribute("aria-label") !== label) node.group.setAttribute("aria-label", label);
  }
}
