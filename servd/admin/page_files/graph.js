// The dependency graph: those that are needed stand behind (or below) those that need them.

const NODE = { width: 150, height: 46, across: 56, down: 18 };

/** The level of each service: 0 for those that nobody needs. */
function levelsOf(services) {
  const known = new Map(services.map((service) => [service.name, service]));
  const level = new Map(services.map((service) => [service.name, 0]));
  for (let turn = 0; turn < services.length; turn += 1) {
    let moved = false;
    for (const service of services) {
      for (const need of service.depends_on) {
        if (known.has(need) && level.get(need) <= level.get(service.name)) {
          level.set(need, level.get(service.name) + 1);
          moved = true;
        }
      }
    }
    if (!moved) break;
  }
  return level;
}

/** Where each service stands: levels side by side where there is room for them, else one below the
 * other. Pure: names and needs in, places out. */
function layout(services, width) {
  const level = levelsOf(services);
  const edges = services.flatMap((service) => service.depends_on.filter((need) => level.has(need)).map((need) => [service.name, need]));
  const joined = new Set(edges.flat());
  const groups = [];
  for (const service of services) {
    if (joined.has(service.name)) (groups[level.get(service.name)] ??= []).push(service.name);
  }
  for (let at = 1; at < groups.length; at += 1) {
    const mean = (name) => {
      const users = edges.filter(([, need]) => need === name).map(([user]) => groups[at - 1].indexOf(user));
      return users.reduce((sum, place) => sum + place, 0) / Math.max(1, users.length);
    };
    groups[at].sort((a, b) => mean(a) - mean(b));
  }
  const places = new Map();
  const beside = NODE.width + NODE.across;
  const below = NODE.height + NODE.down;
  const columns = Math.max(1, Math.floor((width + 16) / (NODE.width + 16)));
  const upright = groups.length * beside - NODE.across > width;
  let bottom = 0;
  if (!upright) {
    const most = Math.max(0, ...groups.map((group) => group.length));
    groups.forEach((group, at) => group.forEach((name, row) => {
      places.set(name, { x: at * beside, y: (row + (most - group.length) / 2) * below });
    }));
    bottom = most * below;
  } else {
    for (const group of groups) {
      group.forEach((name, at) => {
        places.set(name, { x: (at % columns) * (NODE.width + 16), y: bottom + Math.floor(at / columns) * below });
      });
      bottom += Math.ceil(group.length / columns) * below + 22;
    }
  }
  const alone = services.filter((service) => !joined.has(service.name));
  alone.forEach((service, at) => {
    places.set(service.name, { x: (at % columns) * (NODE.width + 16), y: bottom + Math.floor(at / columns) * below });
  });
  bottom += Math.ceil(alone.length / columns) * below;
  const right = Math.max(0, ...[...places.values()].map((place) => place.x)) + NODE.width;
  return { places, edges, upright, width: right + 4, height: Math.max(0, bottom - NODE.down) + 6 };
}

function edgePath(from, to, upright) {
  const { width, height } = NODE;
  if (upright) {
    const [x1, y1, x2, y2] = [from.x + width / 2, from.y + height, to.x + width / 2, to.y - 4];
    return `M${x1},${y1} C${x1},${(y1 + y2) / 2} ${x2},${(y1 + y2) / 2} ${x2},${y2}`;
  }
  const [x1, y1, x2, y2] = [from.x + width, from.y + height / 2, to.x - 4, to.y + height / 2];
  return `M${x1},${y1} C${(x1 + x2) / 2},${y1} ${(x1 + x2) / 2},${y2} ${x2},${y2}`;
}

/** Draws into `place`; calls `choose` with the name of a service that was chosen. */
class Graph {
  constructor(place, choose) {
    this.place = place;
    this.choose = choose;
    this.shape = "";
    this.nodes = new Map();
  }

  show(services) {
    const width = this.place.clientWidth - 26;
    const shape = JSON.stringify([width, services.map((service) => [service.name, service.depends_on])]);
    if (shape !== this.shape) this.draw(services, width);
    this.shape = shape;
    for (const service of services) this.refresh(service);
  }

  draw(services, width) {
    const plan = layout(services, width);
    const arrow = make("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" },
      make("path", { d: "M0,0 L8,4 L0,8 z" }));
    const svg = make("svg", { width: plan.width, height: plan.height, viewBox: `-2 -2 ${plan.width} ${plan.height}`, role: "group", "aria-label": "Graph of the dependencies" },
      make("defs", {}, arrow));
    for (const [user, need] of plan.edges) {
      const d = edgePath(plan.places.get(user), plan.places.get(need), plan.upright);
      svg.append(make("path", { class: "edge", d, "marker-end": "url(#arrow)", "data-edge": `${user} ${need}` }));
    }
    this.nodes.clear();
    for (const service of services) svg.append(this.node(service, plan.places.get(service.name)));
    this.place.replaceChildren(svg);
  }

  node(service, { x, y }) {
    const { width, height } = NODE;
    const name = service.name.length > 18 ? `${service.name.slice(0, 17)}…` : service.name;
    const sub = make("text", { class: "sub", x: 10, y: 36 });
    const go = () => this.choose(service.name);
    const key = (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); go(); }
    };
    const group = make("g", { transform: `translate(${x},${y})`, tabindex: 0, role: "link", "data-node": service.name, onclick: go, onkeydown: key },
      make("title", {}, service.name),
      make("rect", { width, height, rx: 8 }), make("rect", { class: "fill", width, height, rx: 8 }),
      make("text", { x: 10, y: 19 }, name), sub);
    this.nodes.set(service.name, { group, sub });
    return group;
  }

  refresh(service) {
    const { group, sub } = this.nodes.get(service.name);
    const { ready, desired } = service.workers;
    const state = service.crash_loop ? "crash loop" : service.state;
    const text = service.kind === "task" ? state : `${state} ${ready}/${desired}`;
    const rate = service.rps ? ` · ${figure(service.rps)} req/s` : "";
    say(sub, text + rate);
    const look = `node ${service.crash_loop ? "failed" : service.state}`;
    if (group.getAttribute("class") !== look) group.setAttribute("class", look);
    const label = `${service.name}: ${text}`;
    if (group.getAttribute("aria-label") !== label) group.setAttribute("aria-label", label);
  }
}
