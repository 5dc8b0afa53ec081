// Reads the live feed: resumes by itself after every kind of end, and says whether it is live.

import { readProblem } from './api.js';
import { clock as pageClock } from './clock.js';
import { createParser } from './sse.js';

/** So long without a byte means a dead connection: the server pings every 15 s. */
const SILENCE_MS = 35_000;
/** A stream that ends sooner is no success: the next waits. */
const HEALTHY_MS = 5_000;
const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 30_000;
const LONGEST_ASKED_MS = 120_000;

/**
 * How long to wait before the try after so many failures.
 * @param {number} failures From 1.
 * @param {number} random From 0 to 1.
 */
export function backoff(failures, random) {
  const wait = FIRST_WAIT_MS * 2 ** Math.min(failures - 1, 10) * (1 + random / 2);
  return Math.min(LONGEST_WAIT_MS, wait);
}

/**
 * A reader of the feed.
 *
 * `onEvents(events, id)` is given whole groups: the events up to one that has an id, and that id.
 * `onState(state, retryAt)`: `connecting` at first and after a loss, `offline` after a failure.
 */
export class Feed {
  #options;
  /** @type {string|null} */
  #lastId = null;
  #failures = 0;
  #isRunning = false;
  /** The try under way. @type {{abort: AbortController, heard: number, begun: number,
   *   isLive: boolean}|null} */
  #current = null;
  #cancelWait = () => undefined;
  #state = { name: '', retryAt: null };

  /**
   * @param {object} options
   * @param {(events: import('./types.js').FeedEvent[], id: string) => void} options.onEvents
   * @param {(state: 'live'|'connecting'|'offline', retryAt: number|null) => void} options.onState
   * @param {() => void} options.onUnauthorized
   * @param {string} [options.url]
   * @param {typeof fetch} [options.fetch]
   * @param {import('./clock.js').Clock} [options.clock]
   * @param {() => number} [options.random]
   */
  constructor({
    onEvents, onState, onUnauthorized, url = '/events',
    fetch = (...request) => globalThis.fetch(...request), clock = pageClock, random = Math.random,
  }) {
    this.#options = { onEvents, onState, onUnauthorized, url, fetch, clock, random };
  }

  /** Begins, behind this position, or where the feed is now. @param {string|null} [id] */
  start(id = this.#lastId) {
    if (this.#isRunning) return;
    this.#isRunning = true;
    this.#lastId = id;
    this.#connect();
  }

  /** Ends it; the position stays. */
  stop() {
    this.#isRunning = false;
    this.#drop();
    this.#failures = 0;
    this.#state = { name: '', retryAt: null };
  }

  /** Connects at once, if it waits to, or if the stream may be dead without anybody knowing. */
  poke({ isNewNetwork = false } = {}) {
    if (!this.#isRunning) return;
    const current = this.#current;
    const isSilent = current && this.#now() - current.heard > SILENCE_MS / 2;
    if (!current || isSilent || isNewNetwork) this.#connect();
  }

  #now() {
    return this.#options.clock.steady();
  }

  #tell(name, retryAt = null) {
    if (this.#state.name === name && this.#state.retryAt === retryAt) return;
    this.#state = { name, retryAt };
    this.#options.onState(name, retryAt);
  }

  async #connect() {
    this.#drop();
    const [heard, begun] = [this.#now(), this.#now()];
    const mine = { abort: new AbortController(), heard, begun, isLive: false };
    this.#current = mine;
    this.#tell(this.#failures > 0 ? 'offline' : 'connecting');
    const cancelWatch = this.#watch(mine);
    const problem = await this.#read(mine).then(() => null, (error) => error);
    cancelWatch();
    if (this.#current === mine) this.#resume(mine, problem);
  }

  /** Decides what follows a stream's end. */
  #resume(ended, problem) {
    this.#current = null;
    const { clock, random, onUnauthorized } = this.#options;
    if (problem?.status === 401) {
      this.stop();
      onUnauthorized();
      return;
    }
    const wasHealthy = ended.isLive && this.#now() - ended.begun >= HEALTHY_MS;
    if (wasHealthy) this.#failures = 0;
    if (wasHealthy && (problem === null || problem.isSilence)) {
      this.#connect();
      return;
    }
    this.#failures += 1;
    const asked = Math.min(LONGEST_ASKED_MS, (problem?.retryAfter ?? 0) * 1000);
    const wait = Math.max(backoff(this.#failures, random()), asked);
    this.#tell('offline', clock.now() + wait);
    this.#cancelWait = clock.after(wait, () => this.#connect());
  }

  async #read(mine) {
    const { fetch, url, clock } = this.#options;
    const headers = { Accept: 'text/event-stream' };
    const isFresh = this.#lastId === null;
    if (!isFresh) headers['Last-Event-ID'] = this.#lastId;
    const response = await fetch(url, { headers, signal: mine.abort.signal, cache: 'no-store' });
    if (!response.ok) throw await readProblem(response, clock.now());
    const type = response.headers.get('Content-Type') ?? '';
    if (!type.startsWith('text/event-stream') || !response.body) throw new Error('no stream');
    const take = this.#taker(mine, isFresh);
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      mine.heard = this.#now();
      take(decoder.decode(value, { stream: true }));
    }
  }

  /** Takes the text of a stream, and tells its events, a group at a time. */
  #taker(mine, isFresh) {
    const group = [];
    return createParser((event) => {
      group.push(toFeedEvent(event, isFresh));
      if (event.id === null || this.#current !== mine) return;
      const whole = group.splice(0);
      this.#lastId = event.id;
      this.#options.onEvents(whole, event.id);
      if (!whole.some(({ type }) => type === 'hello')) return;
      mine.isLive = true;
      this.#tell('live');
    });
  }

  /** Ends a stream that has been silent for too long. */
  #watch(mine) {
    let cancel = () => undefined;
    const look = () => {
      const left = mine.heard + SILENCE_MS - this.#now();
      if (left > 0) cancel = this.#options.clock.after(left, look);
      else this.#lose(mine);
    };
    look();
    return () => cancel();
  }

  #lose(mine) {
    if (this.#current !== mine) return;
    this.#current = null;
    mine.abort.abort();
    this.#resume(mine, Object.assign(new Error('silence'), { isSilence: true }));
  }

  #drop() {
    this.#cancelWait();
    this.#cancelWait = () => undefined;
    const old = this.#current;
    this.#current = null;
    old?.abort.abort();
  }
}

function toFeedEvent({ type, data }, isFresh) {
  const event = { type, data: JSON.parse(data) };
  return type === 'hello' ? { ...event, fresh: isFresh } : event;
}
