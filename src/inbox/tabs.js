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

/**
 * The feed as this tab gets it. `onEvents`, `onState` and `onUnauthorized` are as in `createFeed`.
 * @param {string|null} name The key's name; tabs of other names have their own stream.
 * @param {object} options
 * @param {(handlers: object) => ReturnType<typeof import('./feed.js').createFeed>}
 *   options.createFeed
 * @param {(events: import('./types.js').FeedEvent[]) => void} options.onEvents
 * @param {(state: string, retryAt: number|null) => void} options.onState
 * @param {() => void} options.onUnauthorized
 * @param {import('./clock.js').Clock} [options.clock]
 * @param {LockManager|undefined} [options.locks]
 * @param {typeof BroadcastChannel|undefined} [options.Channel]
 * @param {Document} [options.page]
 */
export function createTabs(name, {
  createFeed, onEvents, onState, onUnauthorized, clock = pageClock,
  locks = globalThis.navigator?.locks, Channel = globalThis.BroadcastChannel,
  page = globalThis.document,
}) {
  const label = `gateway feed ${name === null ? 'open' : `key ${name}`}`;
  const isShared = Boolean(locks && Channel);
  /** @type {BroadcastChannel|null} */
  let channel = null;
  let isStopped = false;
  let isLeader = false;
  /** Whether what this tab has heard has a place in the feed. */
  let hasJoined = false;
  /** @type {string|null} */
  let lastId = null;
  let hello = null;
  let last = { state: 'connecting', retryAt: null };
  let heard = clock.steady();
  let giveUpLock = () => undefined;
  let cancelTimer = () => undefined;

  const feed = createFeed({
    onEvents(events, id) {
      const prev = lastId;
      lastId = id;
      hasJoined = true;
      hello = events.find(({ type }) => type === 'hello')?.data ?? hello;
      post({ kind: 'events', prev, id, events });
      onEvents(events);
    },
    onState(state, retryAt) {
      last = { state, retryAt };
      postHere();
      onState(state, retryAt);
    },
    onUnauthorized() {
      post({ kind: 'unauthorized' });
      onUnauthorized();
    },
  });

  function post(relay) {
    channel?.postMessage(relay);
  }

  const postHere = () => post({ kind: 'here', id: lastId, hello, ...last });

  /** @param {{data: Relay}} message */
  function hear({ data: relay }) {
    if (isStopped) return;
    if (isLeader) {
      if (relay.kind === 'where') postHere();
      else if (relay.kind === 'poke') feed.poke(relay);
      return;
    }
    if (relay.kind === 'where' || relay.kind === 'poke') return;
    heard = clock.steady();
    if (relay.kind === 'unauthorized') onUnauthorized();
    else if (relay.kind === 'here') hearHere(relay);
    else hearEvents(relay);
  }

  /** The first word of a leader that is live is where this tab begins: what follows is relayed. */
  function hearHere({ id, hello: told, state, retryAt }) {
    if (state === 'live' && id !== null && told) {
      const isMissing = hasJoined && id !== lastId;
      const event = { type: 'hello', data: told, fresh: !hasJoined || isMissing };
      const isNews = !hasJoined || isMissing;
      lastId = id;
      hasJoined = true;
      if (isNews) onEvents([event]);
    }
    onState(state, retryAt);
  }

  function hearEvents({ prev, id, events }) {
    if (!hasJoined) {
      const begins = events.some(({ type, fresh }) => type === 'hello' && fresh);
      if (!begins) {
        post({ kind: 'where' });
        return;
      }
    }
    const isMissing = hasJoined && prev !== lastId;
    lastId = id;
    hasJoined = true;
    const reset = { type: 'reset', data: { reason: 'tab' } };
    onEvents(isMissing ? [reset, ...events] : events);
  }

  /** Waits to lead, and leads until the page goes, or another takes the lock. */
  function queue(options = {}) {
    locks.request(label, options, () => new Promise((resolve) => {
      if (isStopped) {
        resolve();
        return;
      }
      giveUpLock = resolve;
      isLeader = true;
      feed.start(lastId);
    })).catch(() => {
      isLeader = false;
      feed.stop();
      if (!isStopped) queue();
    });
  }

  /** Looks after a silent leader, but only while somebody looks at this tab. */
  function look() {
    if (isStopped) return;
    cancelTimer = clock.after(SILENCE_MS / 3, look);
    const isSilent = clock.steady() - heard > SILENCE_MS;
    if (isLeader || !isSilent || page.visibilityState !== 'visible') return;
    cancelTimer();
    post({ kind: 'where' });
    cancelTimer = clock.after(ANSWER_MS, () => {
      if (!isLeader && clock.steady() - heard > SILENCE_MS) {
        heard = clock.steady();
        queue({ steal: true });
      }
      look();
    });
  }

  /** Without locks: a stream of its own, while the tab is visible and a little longer. */
  function follow() {
    cancelTimer();
    if (page.visibilityState === 'visible') feed.start(lastId);
    else cancelTimer = clock.after(HIDDEN_MS, () => feed.stop());
  }

  function onVisible() {
    if (!isShared) follow();
    if (page.visibilityState === 'visible') wake(false);
  }

  function wake(isNewNetwork) {
    if (isLeader || !isShared) feed.poke({ isNewNetwork });
    else post({ kind: 'poke', isNewNetwork });
    if (isShared && !isLeader) {
      cancelTimer();
      look();
    }
  }

  const onOnline = () => wake(true);

  return {
    /** Begins; `onEvents` gets a `hello` once this tab has a place in the feed. */
    start() {
      page.addEventListener('visibilitychange', onVisible);
      globalThis.addEventListener?.('online', onOnline);
      if (!isShared) {
        follow();
        return;
      }
      channel = new Channel(label);
      channel.onmessage = hear;
      heard = clock.steady();
      queue();
      post({ kind: 'where' });
      cancelTimer = clock.after(SILENCE_MS / 3, look);
    },
    /** Ends it: another tab may take over. */
    stop() {
      isStopped = true;
      page.removeEventListener('visibilitychange', onVisible);
      globalThis.removeEventListener?.('online', onOnline);
      cancelTimer();
      feed.stop();
      channel?.close();
      giveUpLock();
    },
    /** Connects at once instead of waiting. */
    poke: () => wake(false),
    /** Whether this tab reads the stream itself. */
    isLeader: () => isLeader || !isShared,
  };
}
