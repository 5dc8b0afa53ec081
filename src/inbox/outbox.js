// Keeps unsent messages until the server has them, and sends them, in a thread one after another.

import { clock as pageClock } from './clock.js';
import { backoff } from './feed.js';
import { createSender } from './sender.js';
import { createStorage, prefixFor } from './storage.js';

/** @typedef {import('./types.js').Unsent} Unsent */

/** How long the others are told that one is stored, before it is forgotten. */
const TOMBSTONE_MS = 60_000;
const SHORTEST_WAIT_MS = 250;

/** A new id, of 128 random bits. `crypto.randomUUID` is not there on plain http. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** The outbox of a key's name. */
export class Outbox {
  #send;
  #onItems;
  #clock;
  #storage;
  #sender;
  /** What is being sent from here. @type {Set<string>} */
  #sending = new Set();
  #failures = 0;
  #isStopped = false;
  #cancelWait = () => undefined;
  #stopWatching;

  /**
   * @param {string|null} name
   * @param {object} options
   * @param {(unsent: Unsent) => Promise<object>} options.send Resolves with the stored message.
   * @param {(items: Unsent[]) => void} options.onItems Told all of it after each change.
   * @param {import('./clock.js').Clock} [options.clock]
   * @param {ReturnType<typeof createStorage>} [options.storage]
   * @param {LockManager|null} [options.locks]
   */
  constructor(name, {
    send, onItems, clock = pageClock,
    storage = createStorage(prefixFor('outbox', name)), locks = globalThis.navigator?.locks,
  }) {
    this.#send = send;
    this.#onItems = onItems;
    this.#clock = clock;
    this.#storage = storage;
    this.#sender = createSender(name, { locks, clock });
    this.#stopWatching = storage.watch(() => {
      this.#tell();
      this.#pump();
    });
  }

  /** Takes what is left from before, and sends it. */
  begin() {
    for (const { clientMessageId, state, createdAt } of this.#readAll()) {
      const isOld = this.#clock.now() - Date.parse(createdAt) > TOMBSTONE_MS;
      if (state === 'stored' && isOld) this.#storage.remove(clientMessageId);
    }
    this.#sender.begin(() => this.#pump());
    this.#tell();
    this.#pump();
  }

  /**
   * Takes a text; it is kept before this returns.
   * @param {{id: string, channel: string, participantId: string}} conversation
   * @param {string} text
   */
  add({ id: conversationId, channel, participantId }, text) {
    const last = Math.max(0, ...this.#readAll().map((item) => item.order));
    this.#write({
      clientMessageId: newId(), conversationId, channel, participantId, text,
      createdAt: new Date(this.#clock.now()).toISOString(), state: 'waiting', error: null,
      nextTryAt: 0, order: Math.max(last + 1, this.#clock.steady()), owner: this.#sender.tab,
    });
    this.#tell();
    this.#pump();
  }

  /** Tries what waits at once: the gateway is there again. */
  retryNow() {
    this.#failures = 0;
    for (const item of this.#readAll()) {
      if (item.state === 'waiting' && item.nextTryAt > 0) this.#write({ ...item, nextTryAt: 0 });
    }
    this.#pump();
  }

  /** Sends one again that was refused, or at once one that waits. @param {string} id */
  resend(id) {
    if (this.#sending.has(id)) return;
    const owner = this.#sender.tab;
    this.#change(id, { state: 'waiting', error: null, nextTryAt: 0, owner });
    this.#pump();
  }

  /** Takes one out, unless it is on its way or stored. @param {string} id @returns {Unsent|null} */
  takeBack(id) {
    const item = this.#read(id);
    if (!item || item.state === 'stored' || this.#sending.has(id)) return null;
    this.#storage.remove(id);
    this.#tell();
    return item;
  }

  /** Hears of a message: if it is one of these, it is stored. */
  settle({ clientMessageId, channel }) {
    const item = clientMessageId ? this.#read(clientMessageId) : null;
    if (!item || item.channel !== channel || item.state === 'stored') return;
    this.#bury(clientMessageId);
    this.#tell();
  }

  /** Forgets all of it: after logging out. */
  clear() {
    for (const id of this.#storage.names()) this.#storage.remove(id);
    this.#tell();
  }

  /** Sends no more. What is kept stays for the next time. */
  stop() {
    this.#isStopped = true;
    this.#cancelWait();
    this.#stopWatching();
    this.#sender.stop();
  }

  #read(id) {
    return parse(this.#storage.get(id));
  }

  #readAll() {
    return this.#storage.names().map((id) => this.#read(id)).filter((item) => item !== null)
      .sort((a, b) => a.order - b.order);
  }

  #write(item) {
    this.#storage.set(item.clientMessageId, JSON.stringify(item));
  }

  #tell() {
    this.#onItems(this.#readAll().map(({ order: _, owner: __, ...item }) =>
      this.#sending.has(item.clientMessageId) ? { ...item, state: 'sending' } : item));
  }

  #change(id, values) {
    const item = this.#read(id);
    if (item && item.state !== 'stored') this.#write({ ...item, ...values });
    this.#tell();
  }

  /** The text is gone from the browser, and the other tabs learn that it has arrived. */
  #bury(id) {
    const item = this.#read(id);
    if (!item || item.state === 'stored') return;
    this.#write({ ...item, state: 'stored', text: '', error: null });
    this.#clock.after(TOMBSTONE_MS, () => {
      this.#storage.remove(id);
      if (!this.#isStopped) this.#tell();
    });
  }

  /** Starts whatever may be sent now, and comes back for what has to wait. */
  #pump() {
    this.#cancelWait();
    if (this.#isStopped) return;
    const now = this.#clock.now();
    const waiting = this.#readAll().filter((item) => item.state === 'waiting');
    for (const id of new Set(waiting.map((item) => item.conversationId))) {
      this.#sender.run(id, () => this.#work(id)).then((isAgain) => isAgain && this.#pump());
    }
    const times = waiting.map((item) => item.nextTryAt).filter((time) => time > now);
    if (times.length === 0) return;
    const wait = Math.max(SHORTEST_WAIT_MS, Math.min(...times) - now);
    this.#cancelWait = this.#clock.after(wait, () => this.#pump());
  }

  /** Sends what waits in a conversation, the oldest first, until one has to wait. */
  async #work(conversationId) {
    for (;;) {
      const next = this.#readAll().find((item) =>
        item.conversationId === conversationId && item.state === 'waiting');
      const mayGo = next && next.nextTryAt <= this.#clock.now() && this.#sender.mayTake(next);
      if (this.#isStopped || !mayGo) return;
      this.#sending.add(next.clientMessageId);
      this.#tell();
      const goesOn = await this.#attempt(next);
      if (!goesOn) return;
    }
  }

  /** False when the thread has to wait with the rest. */
  async #attempt(item) {
    const id = item.clientMessageId;
    const error = await this.#send(item).then(() => null, (reason) => reason);
    this.#sending.delete(id);
    if (error === null) {
      this.#failures = 0;
      this.#bury(id);
      this.#tell();
      return true;
    }
    const told = error.toJSON?.() ?? { status: 0, code: 'offline', detail: String(error) };
    if (isFinal(told.status)) {
      this.#change(id, { state: 'refused', error: told });
      return true;
    }
    this.#failures += 1;
    const asked = (told.retryAfter ?? 0) * 1000;
    const wait = Math.max(backoff(this.#failures, Math.random()), asked);
    this.#change(id, { error: told, nextTryAt: this.#clock.now() + wait });
    return false;
  }
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
