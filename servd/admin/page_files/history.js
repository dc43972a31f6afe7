// The last ten minutes of all services, as the daemon keeps them.

const SAMPLES = 120;

class RateHistory {
  constructor() {
    this.pid = 0;
    this.newest = 0;
    this.services = new Map();
  }

  /** Fetches the samples that are missing here; all of them from a new daemon. */
  async refresh(pid) {
    const fresh = pid !== this.pid;
    const { body } = await ask("GET", `/v1/history?after=${fresh ? 0 : this.newest}`);
    if (fresh || body.newest < this.newest) this.services.clear();
    const before = this.services;
    this.services = new Map(Object.entries(body.services).map(([name, added]) => {
      const known = before.get(name) || {};
      const joined = ([figure, values]) => [figure, [...(known[figure] || []), ...values].slice(-SAMPLES)];
      return [name, Object.fromEntries(Object.entries(added).map(joined))];
    }));
    [this.pid, this.newest] = [pid, body.newest];
  }

  of(name) { return this.services.get(name); }

  /** One figure of all services together. */
  total(figure) {
    const all = [...this.services.values()].map((service) => service[figure]);
    const length = Math.max(0, ...all.map((values) => values.length));
    return Array.from({ length }, (_, at) => all.reduce((sum, values) => sum + (values[at - length + values.length] || 0), 0));
  }
}
