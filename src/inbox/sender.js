// Sees to it that of all tabs one at a time sends what waits in a conversation.

import { createStorage } from './storage.js';

/** A tab without a sign of life for so long is gone. Hidden ones wake once a minute. */
const DEAD_MS = 150_000;
const SIGN_MS = 20_000;

/**
 * With Web Locks whoever has the conversation's lock sends. Without them the tab that made a
 * message does, or another once that one is gone. Two at once would do no harm but to the order:
 * a message has one id, and the server takes it once.
 * @param {string|null} name
 * @param {object} options
 * @param {LockManager|undefined} options.locks
 * @param {import('./clock.js').Clock} options.clock
 * @param {ReturnType<typeof createStorage>} [options.storage]
 * @param {EventTarget} [options.page]
 */
export function createSender(name, {
  locks, clock, storage = createStorage('gateway tab '), page = globalThis,
}) {
  const tab = Math.random().toString(36).slice(2);
  /** @type {Set<string>} */
  const running = new Set();
  /** @type {Set<string>} */
  const again = new Set();
  let cancel = () => undefined;

  const sign = () => storage.set(tab, String(clock.steady()));
  const leave = () => storage.remove(tab);
  const isAlive = (owner) => clock.steady() - Number(storage.get(owner) ?? 0) < DEAD_MS;

  return {
    /** This tab's name. */
    tab,
    /** Whether this tab may send an item, inside of `run`. */
    mayTake: ({ owner }) => Boolean(locks) || owner === tab || !isAlive(owner),
    /**
     * Runs `work` for a conversation, never twice at a time. False if it was running already; then
     * it is run once more after that.
     */
    async run(id, work) {
      if (running.has(id)) {
        again.add(id);
        return false;
      }
      running.add(id);
      again.delete(id);
      try {
        if (locks) await locks.request(`gateway send ${name ?? ''} ${id}`, work);
        else await work();
      } finally {
        running.delete(id);
      }
      return again.delete(id);
    },
    /** Begins to show that this tab is alive; `onTick` may take over from those that are not. */
    begin(onTick) {
      if (locks) return;
      const tick = () => {
        sign();
        cancel = clock.after(SIGN_MS, tick);
        onTick();
      };
      sign();
      cancel = clock.after(SIGN_MS, tick);
      page.addEventListener('pagehide', leave);
      page.addEventListener('pageshow', sign);
    },
    stop() {
      cancel();
      leave();
      page.removeEventListener('pagehide', leave);
      page.removeEventListener('pageshow', sign);
    },
  };
}
