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
 * @param {object} options
 * @param {(events: import('./types.js').FeedEvent[], id: string) => void} options.onEvents
 * @param {(state: 'live'|'connecting'|'offline', retryAt: number|null) => void} options.onState
 * @param {() => void} options.onUnauthorized
 * @param {string} [options.url]
 * @param {typeof fetch} [options.fetch]
 * @param {import('./clock.js').Clock} [options.clock]
 * @param {() => number} [options.random]
 */
export function createFeed({
  onEvents, onState, onUnauthorized, url = '/events',
  fetch = (...request) => globalThis.fetch(...request), clock = pageClock, random = Math.random,
}) {
  /** @type {string|null} */
  let lastId = null;
  let failures = 0;
  let isRunning = false;
  /** The try under way. @type {{abort: AbortController, heard: number, begun: number,
   *   isLive: boolean}|null} */
  let current = null;
  let cancelWait = () => undefined;
  let state = { name: '', retryAt: null };

  function tell(name, retryAt = null) {
    if (state.name === name && state.retryAt === retryAt) return;
    state = { name, retryAt };
    onState(name, retryAt);
  }

  async function connect() {
    drop();
    const mine = {
      abort: new AbortController(), heard: clock.steady(), begun: clock.steady(), isLive: false,
    };
    current = mine;
    tell(failures > 0 ? 'offline' : 'connecting');
    const cancelWatch = watch(mine);
    let problem = null;
    try {
      await read(mine);
    } catch (error) {
      problem = error;
    }
    cancelWatch();
    if (current !== mine) return;
    current = null;
    resume(mine, problem);
  }

  /** Decides what follows a stream's end. */
  function resume(ended, problem) {
    if (problem?.status === 401) {
      stop();
      onUnauthorized();
      return;
    }
    const wasHealthy = ended.isLive && clock.steady() - ended.begun >= HEALTHY_MS;
    if (wasHealthy) {
      failures = 0;
      if (problem === null || problem.isSilence) {
        connect();
        return;
      }
    }
    failures += 1;
    const asked = Math.min(LONGEST_ASKED_MS, (problem?.retryAfter ?? 0) * 1000);
    const wait = Math.max(backoff(failures, random()), asked);
    tell('offline', clock.now() + wait);
    cancelWait = clock.after(wait, connect);
  }

  async function read(mine) {
    const headers = { Accept: 'text/event-stream' };
    const isFresh = lastId === null;
    if (!isFresh) headers['Last-Event-ID'] = lastId;
    const response = await fetch(url, { headers, signal: mine.abort.signal, cache: 'no-store' });
    if (!response.ok) throw await readProblem(response, clock.now());
    const type = response.headers.get('Content-Type') ?? '';
    if (!type.startsWith('text/event-stream') || !response.body) throw new Error('no stream');
    const group = [];
    const take = createParser((event) => {
      group.push(toFeedEvent(event, isFresh));
      if (event.id === null || current !== mine) return;
      const whole = group.splice(0);
      lastId = event.id;
      onEvents(whole, event.id);
      if (!whole.some(({ type: name }) => name === 'hello')) return;
      mine.isLive = true;
      tell('live');
    });
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      mine.heard = clock.steady();
      take(decoder.decode(value, { stream: true }));
    }
  }

  /** Ends a stream that has been silent for too long. */
  function watch(mine) {
    let cancel = () => undefined;
    const look = () => {
      const left = mine.heard + SILENCE_MS - clock.steady();
      if (left > 0) cancel = clock.after(left, look);
      else lose(mine);
    };
    look();
    return () => cancel();
  }

  function lose(mine) {
    if (current !== mine) return;
    current = null;
    mine.abort.abort();
    const silence = Object.assign(new Error('silence'), { isSilence: true });
    resume(mine, silence);
  }

  function drop() {
    cancelWait();
    cancelWait = () => undefined;
    const old = current;
    current = null;
    old?.abort.abort();
  }

  function stop() {
    isRunning = false;
    drop();
    failures = 0;
    state = { name: '', retryAt: null };
  }

  return {
    /** Begins, behind this position, or where the feed is now. @param {string|null} [id] */
    start(id = lastId) {
      if (isRunning) return;
      isRunning = true;
      lastId = id;
      connect();
    },
    stop,
    /** Connects at once, if it waits to, or if the stream may be dead without anybody knowing. */
    poke({ isNewNetwork = false } = {}) {
      if (!isRunning) return;
      const isSilent = current && clock.steady() - current.heard > SILENCE_MS / 2;
      const isWaiting = current === null;
      if (isWaiting || isSilent || isNewNetwork) connect();
    },
    /** Up to where the feed has been read. */
    position: () => lastId,
  };
}

function toFeedEvent({ type, data }, isFresh) {
  const event = { type, data: JSON.parse(data) };
  return type === 'hello' ? { ...event, fresh: isFresh } : event;
}
