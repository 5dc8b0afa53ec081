// Runs before the page: what a policy forbids is noted, and the clock can be moved. A moved clock
// is what a page finds after its machine has slept: the time is another, and timers are late.
(() => {
  window.violations = [];
  addEventListener('securitypolicyviolation', (event) => {
    window.violations.push(`${event.effectiveDirective}: ${event.blockedURI} ${event.sample}`);
  });

  const RealDate = Date;
  const real = {
    set: window.setTimeout.bind(window),
    clear: window.clearTimeout.bind(window),
    elapsed: performance.now.bind(performance),
  };
  let moved = 0;
  let last = 1e9;
  const timers = new Map();
  const now = () => RealDate.now() + moved;

  window.Date = class Date extends RealDate {
    constructor(...given) {
      if (given.length > 0) super(...given);
      else super(now());
    }
    static now() { return now(); }
  };
  performance.now = () => real.elapsed() + moved;

  function arm(id, timer) {
    timer.handle = real.set(fire, Math.max(0, timer.due - now()), id);
    timers.set(id, timer);
  }
  function fire(id) {
    const timer = timers.get(id);
    if (!timer) return;
    timers.delete(id);
    if (timer.every !== null) arm(id, { ...timer, due: now() + timer.every });
    timer.run(...timer.given);
  }
  const start = (repeats) => (run, wait = 0, ...given) => {
    const id = ++last;
    arm(id, { run, given, due: now() + Number(wait), every: repeats ? Number(wait) : null });
    return id;
  };
  window.setTimeout = start(false);
  window.setInterval = start(true);
  window.clearTimeout = window.clearInterval = (id) => {
    const timer = timers.get(id);
    if (timer) real.clear(timer.handle);
    else real.clear(id);
    timers.delete(id);
  };
  window.moveClock = (milliseconds) => {
    moved += milliseconds;
    const due = [...timers].filter(([, timer]) => timer.due <= now());
    due.sort(([, a], [, b]) => a.due - b.due);
    for (const [id, timer] of due) {
      real.clear(timer.handle);
      fire(id);
    }
  };
})();
