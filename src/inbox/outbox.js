// Keeps unsent messages until the server has them, and sends them, in a thread one after another.

import { clock as pageClock } from './clock.js';
import { backoff } from './feed.js';
import { createSender } from './sender.js';
import { createStorage, prefixFor } from './storage.js';

/** @typedef {import('./types.js').Unsent} Unsent */

/** How long the others are told that one is stored, before it is forgotten. */
const TOMBSTONE_MS = 60_000;

/** A new id, of 128 random bits. `crypto.randomUUID` is not there on plain http. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/**
 * The outbox of a key's name.
 * @param {string|null} name
 * @param {object} options
 * @param {(unsent: Unsent) => Promise<object>} options.send Resolves with the stored message.
 * @param {(items: Unsent[]) => void} options.onItems Told all of it after each change.
 * @param {import('./clock.js').Clock} [options.clock]
 * @param {ReturnType<typeof createStorage>} [options.storage]
 * @param {LockManager|undefined} [options.locks]
 */
export function createOutbox(name, {
  send, onItems, clock = pageClock,
  storage = createStorage(prefixFor('outbox', name)), locks = globalThis.navigator?.locks,
}) {
  /** What is being sent from here. @type {Set<string>} */
  const sending = new Set();
  let failures = 0;
  let isStopped = false;
  let cancelWait = () => undefined;
  const sender = createSender(name, { locks, clock });

  const read = (id) => parse(storage.get(id));
  const readAll = () => storage.names().map(read).filter((item) => item !== null)
    .sort((a, b) => a.order - b.order);
  const write = (item) => storage.set(item.clientMessageId, JSON.stringify(item));

  function tell() {
    onItems(readAll().map(({ order: _, owner: __, ...item }) =>
      sending.has(item.clientMessageId) ? { ...item, state: 'sending' } : item));
  }

  function change(id, values) {
    const item = read(id);
    if (item && item.state !== 'stored') write({ ...item, ...values });
    tell();
  }

  /** The text is gone from the browser, and the other tabs learn that it has arrived. */
  function bury(id) {
    const item = read(id);
    if (!item || item.state === 'stored') return;
    write({ ...item, state: 'stored', text: '', error: null });
    clock.after(TOMBSTONE_MS, () => {
      storage.remove(id);
      if (!isStopped) tell();
    });
  }

  /** Sends what waits in a conversation, the oldest first, until one has to wait. */
  async function work(conversationId) {
    for (;;) {
      const next = readAll().find((item) =>
        item.conversationId === conversationId && item.state === 'waiting');
      if (isStopped || !next || next.nextTryAt > clock.now() || !sender.mayTake(next)) return;
      sending.add(next.clientMessageId);
      tell();
      const goesOn = await attempt(next);
      if (!goesOn) return;
    }
  }

  /** False when the thread has to wait with the rest. */
  async function attempt(item) {
    const id = item.clientMessageId;
    const answer = await send(item).then((message) => ({ message }), (error) => ({ error }));
    sending.delete(id);
    if (answer.message) {
      failures = 0;
      bury(id);
      tell();
      return true;
    }
    const { error } = answer;
    const told = error.toJSON?.() ?? { status: 0, code: 'offline', detail: String(error) };
    if (isFinal(told.status)) {
      change(id, { state: 'refused', error: told });
      return true;
    }
    failures += 1;
    const wait = Math.max(backoff(failures, Math.random()), (told.retryAfter ?? 0) * 1000);
    change(id, { error: told, nextTryAt: clock.now() + wait });
    return false;
  }

  /** Starts whatever may be sent now, and comes back for what has to wait. */
  function pump() {
    cancelWait();
    if (isStopped) return;
    const waiting = readAll().filter((item) => item.state === 'waiting');
    for (const id of new Set(waiting.map((item) => item.conversationId))) {
      sender.run(id, () => work(id)).then((wasRun) => wasRun && pump());
    }
    const times = waiting.map((item) => item.nextTryAt).filter((time) => time > clock.now());
    if (times.length > 0) {
      cancelWait = clock.after(Math.max(250, Math.min(...times) - clock.now()), pump);
    }
  }

  const stopWatching = storage.watch(() => {
    tell();
    pump();
  });
  return {
    /** Takes what is left from before, and sends it. */
    begin() {
      for (const { clientMessageId, state, createdAt } of readAll()) {
        const isOld = clock.now() - Date.parse(createdAt) > TOMBSTONE_MS;
        if (state === 'stored' && isOld) storage.remove(clientMessageId);
      }
      sender.begin(() => pump());
      tell();
      pump();
    },
    /**
     * Takes a text; it is kept before this returns.
     * @param {{id: string, channel: string, participantId: string}} conversation
     * @param {string} text
     */
    add({ id: conversationId, channel, participantId }, text) {
      const last = Math.max(0, ...readAll().map((item) => item.order));
      write({
        clientMessageId: newId(), conversationId, channel, participantId, text,
        createdAt: new Date(clock.now()).toISOString(), state: 'waiting', error: null,
        nextTryAt: 0, order: Math.max(last + 1, clock.steady()), owner: sender.tab,
      });
      tell();
      pump();
    },
    /** Tries what waits at once: the gateway is there again. */
    retryNow() {
      failures = 0;
      for (const item of readAll()) {
        if (item.state === 'waiting' && item.nextTryAt > 0) write({ ...item, nextTryAt: 0 });
      }
      pump();
    },
    /** Sends one again that was refused, or at once one that waits. */
    resend(id) {
      if (sending.has(id)) return;
      change(id, { state: 'waiting', error: null, nextTryAt: 0, owner: sender.tab });
      pump();
    },
    /** Takes one out, unless it is on its way or stored. @returns {Unsent|null} */
    takeBack(id) {
      const item = read(id);
      if (!item || item.state === 'stored' || sending.has(id)) return null;
      storage.remove(id);
      tell();
      return item;
    },
    /** Hears of a message: if it is one of these, it is stored. */
    settle({ clientMessageId, channel }) {
      const item = clientMessageId ? read(clientMessageId) : null;
      if (!item || item.channel !== channel || item.state === 'stored') return;
      bury(clientMessageId);
      tell();
    },
    /** Forgets all of it: after logging out. */
    clear() {
      for (const id of storage.names()) storage.remove(id);
      tell();
    },
    /** Sends no more. What is kept stays for the next time. */
    stop() {
      isStopped = true;
      cancelWait();
      stopWatching();
      sender.stop();
    },
  };
}

/** Whether a refusal will be the same next time. The others are tried again by themselves. */
function isFinal(status) {
  return status >= 400 && status < 500 && ![401, 408, 425, 429].includes(status);
}

function parse(text) {
  if (text === null) return null;
  try {
    const item = JSON.parse(text);
    return typeof item?.clientMessageId === 'string' ? item : null;
  } catch {
    return null;
  }
}
