// One stream for all tabs: the tab that holds a lock reads the feed and relays it to the others.

import { clock as pageClock } from './clock.js';

/** A leader that says nothing for so long (the server pings every 15 s) is asked, then replaced. */
const SILENCE_MS = 45_000;
const ANSWER_MS = 5_000;
/** Without locks a hidden tab keeps its stream for so long. */
const HIDDEN_MS = 30_000;

/**
 * What the leader says to the others. `prev` is the position before these events: who was not
 * there knows that something is missing.
 * @typedef {(
 *   {kind: 'where'} | {kind: 'poke', isNewNetwork: boolean} | {kind: 'unauthorized'}
 * | {kind: 'here', id: string|null, hello: object|null, state: string, retryAt: number|null}
 * | {kind: 'events', prev: string|null, id: string, events: object[]}
 * )} Relay
 */

/** The feed as this tab gets it: read by itself, or relayed by the tab that reads it. */
export class Tabs {
  #options;
  #label;
  #feed;
  /** @type {BroadcastChannel|null} */
  #channel = null;
  #isStopped = false;
  #isLeader = false;
  /** Whether what this tab has heard has a place in the feed. */
  #hasJoined = false;
  /** @type {string|null} */
  #lastId = null;
  #hello = null;
  #last = { state: 'connecting', retryAt: null };
  #heard = 0;
  #giveUpLock = () => undefined;
  #cancelTimer = () => undefined;
  #onOnline = () => this.#wake(true);
  #onVisible = () => {
    if (!this.#isShared) this.#follow();
    if (this.#isVisible) this.#wake(false);
  };

  /**
   * `onEvents`, `onState` and `onUnauthorized` are as in `Feed`.
   * @param {string|null} name The key's name; tabs of other names have their own stream.
   * @param {object} options
   * @param {(handlers: object) => import('./feed.js').Feed} options.createFeed
   * @param {(events: import('./types.js').FeedEvent[]) => void} options.onEvents
   * @param {(state: string, retryAt: number|null) => void} options.onState
   * @param {() => void} options.onUnauthorized
   * @param {import('./clock.js').Clock} [options.clock]
   * @param {LockManager|null} [options.locks]
   * @param {typeof BroadcastChannel|null} [options.Channel]
   * @param {Document} [options.page]
   */
  constructor(name, {
    createFeed, onEvents, onState, onUnauthorized, clock = pageClock,
    locks = globalThis.navigator?.locks, Channel = globalThis.BroadcastChannel,
    page = globalThis.document,
  }) {
    this.#options = { onEvents, onState, onUnauthorized, clock, locks, Channel, page };
    this.#label = `gateway feed ${name === null ? 'open' : `key ${name}`}`;
    this.#feed = createFeed({
      onEvents: (events, id) => this.#takeEvents(events, id),
      onState: (state, retryAt) => {
        this.#last = { state, retryAt };
        this.#postHere();
        onState(state, retryAt);
      },
      onUnauthorized: () => {
        this.#post({ kind: 'unauthorized' });
        onUnauthorized();
      },
    });
  }

  /** Begins; `onEvents` gets a `hello` once this tab has a place in the feed. */
  start() {
    const { page, clock, Channel } = this.#options;
    page.addEventListener('visibilitychange', this.#onVisible);
    globalThis.addEventListener?.('online', this.#onOnline);
    if (!this.#isShared) {
      this.#follow();
      return;
    }
    this.#channel = new Channel(this.#label);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    this.#heard = clock.steady();
    this.#queue();
    this.#post({ kind: 'where' });
    this.#cancelTimer = clock.after(SILENCE_MS / 3, () => this.#look());
  }

  /** Ends it: another tab may take over. */
  stop() {
    this.#isStopped = true;
    this.#options.page.removeEventListener('visibilitychange', this.#onVisible);
    globalThis.removeEventListener?.('online', this.#onOnline);
    this.#cancelTimer();
    this.#feed.stop();
    this.#channel?.close();
    this.#giveUpLock();
  }

  /** Connects at once instead of waiting. */
  poke() {
    this.#wake(false);
  }

  get #isShared() {
    return Boolean(this.#options.locks && this.#options.Channel);
  }

  get #isVisible() {
    return this.#options.page.visibilityState === 'visible';
  }

  get #isSilent() {
    return !this.#isLeader && this.#options.clock.steady() - this.#heard > SILENCE_MS;
  }

  /** @param {Relay} relay */
  #post(relay) {
    this.#channel?.postMessage(relay);
  }

  /** Says where the feed is; the server's time in the `hello` has gone on meanwhile. */
  #postHere() {
    const hello = this.#hello;
    const passed = hello ? this.#options.clock.steady() - hello.heard : 0;
    const told = hello && { ...hello, now: laterBy(hello.now, passed) };
    this.#post({ kind: 'here', id: this.#lastId, hello: told, ...this.#last });
  }

  /** Takes what this tab reads itself, and relays it. */
  #takeEvents(events, id) {
    const prev = this.#lastId;
    this.#lastId = id;
    this.#hasJoined = true;
    const event = events.find(({ type }) => type === 'hello');
    if (event) this.#hello = { ...event.data, heard: this.#options.clock.steady() };
    this.#post({ kind: 'events', prev, id, events });
    this.#options.onEvents(events);
  }

  /** @param {Relay} relay */
  #hear(relay) {
    if (this.#isStopped) return;
    const isQuestion = relay.kind === 'where' || relay.kind === 'poke';
    if (this.#isLeader) {
      if (relay.kind === 'where') this.#postHere();
      else if (relay.kind === 'poke') this.#feed.poke(relay);
    } else if (!isQuestion) {
      this.#heard = this.#options.clock.steady();
      if (relay.kind === 'unauthorized') this.#options.onUnauthorized();
      else if (relay.kind === 'here') this.#hearHere(relay);
      else this.#hearEvents(relay);
    }
  }

  /** The first word of a leader that is live is where this tab begins: what follows is relayed. */
  #hearHere({ id, hello, state, retryAt }) {
    const isNews = state === 'live' && id !== null && hello &&
      (!this.#hasJoined || id !== this.#lastId);
    if (isNews) {
      this.#lastId = id;
      this.#hasJoined = true;
      this.#options.onEvents([{ type: 'hello', data: hello, fresh: true }]);
    }
    this.#options.onState(state, retryAt);
  }

  #hearEvents({ prev, id, events }) {
    const begins = events.some(({ type, fresh }) => type === 'hello' && fresh);
    if (!this.#hasJoined && !begins) {
      this.#post({ kind: 'where' });
      return;
    }
    const isMissing = this.#hasJoined && prev !== this.#lastId;
    this.#lastId = id;
    this.#hasJoined = true;
    const reset = { type: 'reset', data: { reason: 'tab' } };
    this.#options.onEvents(isMissing ? [reset, ...events] : events);
  }

  /** Waits to lead, and leads until the page goes, or another takes the lock. */
  #queue(options = {}) {
    const lead = () => new Promise((resolve) => {
      if (this.#isStopped) {
        resolve();
        return;
      }
      this.#giveUpLock = resolve;
      this.#isLeader = true;
      this.#feed.start(this.#lastId);
    });
    this.#options.locks.request(this.#label, options, lead).catch(() => {
      this.#isLeader = false;
      this.#feed.stop();
      if (!this.#isStopped) this.#queue();
    });
  }

  /** Looks after a silent leader, but only while somebody looks at this tab. */
  #look() {
    if (this.#isStopped) return;
    const { clock } = this.#options;
    if (!this.#isSilent || !this.#isVisible) {
      this.#cancelTimer = clock.after(SILENCE_MS / 3, () => this.#look());
      return;
    }
    this.#post({ kind: 'where' });
    this.#cancelTimer = clock.after(ANSWER_MS, () => {
      if (this.#isSilent) {
        this.#heard = clock.steady();
        this.#queue({ steal: true });
      }
      this.#look();
    });
  }

  /** Without locks: a stream of its own, while the tab is visible and a little longer. */
  #follow() {
    this.#cancelTimer();
    if (this.#isVisible) this.#feed.start(this.#lastId);
    else this.#cancelTimer = this.#options.clock.after(HIDDEN_MS, () => this.#feed.stop());
  }

  #wake(isNewNetwork) {
    if (this.#isLeader || !this.#isShared) {
      this.#feed.poke({ isNewNetwork });
      return;
    }
    this.#post({ kind: 'poke', isNewNetwork });
    this.#cancelTimer();
    this.#look();
  }
}

/** @param {string} time @param {number} ms */
function laterBy(time, ms) {
  const at = Date.parse(time);
  return Number.isFinite(at) ? new Date(at + ms).toISOString() : time;
}
