// What is wrong with a service, in words. Pure.

const DAY = 86400000;
const MINUTE_OF_SAMPLES = 12;
const NOTABLE_ERRORS = 0.01;
const EXPIRES_SOON = 14;
const GOOD = ["ready", "completed", "exited", "rolling"];
const FAILED = ["failed", "backoff"];
const CHANGING = ["starting", "waiting", "rolling", "stopping"];

/** How much attention a service needs: 3 it fails, 2 it has a problem, 1 it is changing, 0 none. */
function severity(service, history) {
  if (service.crash_loop || FAILED.includes(service.state)) return 3;
  if (problemsOf(service, history).length) return 2;
  return CHANGING.includes(service.state) ? 1 : 0;
}

const stateWord = (service) => (service.crash_loop ? "crash loop" : service.state);

/** The state, and what is wrong although the service is ready: "ready, errors". */
function badgeWord(service, history) {
  const word = stateWord(service);
  if (service.state !== "ready" || service.crash_loop) return word;
  const end = expiry(service);
  const wrong = [service.error || errorShare(history) >= NOTABLE_ERRORS ? "errors" : "", end && end.left < EXPIRES_SOON ? "certificate" : ""];
  return [word, ...wrong.filter(Boolean)].join(", ");
}

/** The class that gives a service its colour. */
function look(service, level) {
  if (level === 3) return "failed";
  return level === 2 && service.state === "ready" ? "degraded" : service.state;
}

function expiry(service) {
  if (!service.certificate_expires_at) return null;
  const left = (Date.parse(service.certificate_expires_at) - Date.now()) / DAY;
  return { left, text: left < 0 ? "expired" : `expires in ${left < 1 ? `${Math.floor(left * 24)} h` : many(Math.floor(left), "day")}` };
}

/** The share of 5xx in the requests of the last minute, from 0 to 1. */
function errorShare(history) {
  if (!history) return 0;
  const sum = (values) => values.slice(-MINUTE_OF_SAMPLES).reduce((total, value) => total + (value || 0), 0);
  const requests = sum(history.rps);
  return requests ? sum(history.rps_5xx) / requests : 0;
}

/** Everything that needs attention, a sentence each. */
function problemsOf(service, history) {
  const problems = [];
  const { ready, desired } = service.workers;
  const share = errorShare(history);
  const end = expiry(service);
  if (service.crash_loop) problems.push(`Crash loop: ${service.error || "workers exit repeatedly"}`);
  else if (service.error) problems.push(service.error);
  else if (FAILED.includes(service.state)) problems.push(service.last_exit ? `Worker ${service.last_exit.worker} ${service.last_exit.reason}` : `The service is in state ${service.state}`);
  else if (service.state === "degraded") problems.push(`${ready} of ${many(desired, "worker")} ready`);
  if (share >= NOTABLE_ERRORS && !/5xx/.test(service.error || "")) problems.push(`${percent(share, 1)} of the requests in the last minute were answered with 5xx`);
  if (end && end.left < EXPIRES_SOON) problems.push(end.left < 0 ? "The certificate has expired" : `The certificate ${end.text}`);
  return problems;
}

/** What else is worth knowing, but needs no attention. */
function notesOf(service) {
  const notes = [];
  const scale = service.autoscale;
  if (service.by_hand) notes.push(`${many(service.by_hand.workers, "worker")} (set manually; ${scale ? "autoscale waits" : `the config says ${service.by_hand.file}`})`);
  else if (scale && scale.in_flight !== null) notes.push(`${scale.min} to ${scale.max} workers for ${figure(scale.target_in_flight)} requests in flight each, now ${figure(scale.in_flight)} in all`);
  if (service.coming && service.kind !== "external") notes.push(`Generation ${service.coming.generation} is starting: ${service.coming.ready} of ${service.coming.desired} ready`);
  for (const drain of service.draining) notes.push(`Generation ${drain.generation} is draining ${many(drain.pids.length, "worker")}, waiting for ${drain.waiting_for}`);
  return notes;
}

/** "20 of 21 ready", without those that are stopped on purpose; and the colour of that. */
function summaryOf(services) {
  const counted = services.filter((service) => service.workers.desired > 0 || !["stopped", "stopping"].includes(service.state));
  const good = counted.filter((service) => GOOD.includes(service.state));
  const bad = counted.some((service) => service.crash_loop || FAILED.includes(service.state));
  return {
    text: `${good.length} of ${counted.length} ready`,
    look: good.length === counted.length ? "ready" : bad ? "failed" : "starting",
    stopped: services.length - counted.length,
  };
}
