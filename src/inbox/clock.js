// The page's clock: the time of day by the server, and timers; a test can move both.

let moved = 0;
let isSet = false;
let ahead = 0;
/** @type {Set<{due: number, run: () => void}>} */
const timers = new Set();

/**
 * What the other modules are given as `clock`.
 * @typedef {object} Clock
 * @property {() => number} now The time of day in milliseconds, as the server has it.
 * @property {() => number} steady Milliseconds for measuring; does not follow the server.
 * @property {(ms: number, run: () => void) => () => void} after Runs something later, once;
 *   the answer calls it off.
 */

/** @type {Clock} */
export const clock = {
  now: () => Date.now() + moved + ahead,
  steady: () => Date.now() + moved,
  after(ms, run) {
    const timer = { due: clock.steady() + ms, run: () => undefined };
    const handle = setTimeout(() => timer.run(), Math.min(ms, 0x7fffffff));
    const cancel = () => {
      clearTimeout(handle);
      timers.delete(timer);
    };
    timer.run = () => {
      cancel();
      run();
    };
    timers.add(timer);
    return cancel;
  },
};

/** The time of day in milliseconds, as the server has it. */
export const now = () => clock.now();

/**
 * Notes the server's time, so that a wrong clock here does not make wrong times.
 * @param {string} time As `hello` says it.
 */
export function setServerTime(time) {
  const told = Date.parse(time);
  if (Number.isFinite(told) && !isSet) ahead = told - clock.steady();
}

/**
 * For tests: makes it this time, from which it goes on, and runs the timers that are due by then;
 * null goes back to the real time.
 * @param {number|null} time
 */
export function setClock(time) {
  isSet = time !== null;
  moved = time === null ? 0 : time - Date.now() - ahead;
  const due = [...timers].filter((timer) => timer.due <= clock.steady());
  for (const timer of due.sort((a, b) => a.due - b.due)) timer.run();
}
