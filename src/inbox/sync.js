// Fetches what the state lacks: first pages, more of them, what may have holes, and a regular look.

import { clock as pageClock } from './clock.js';
import { backoff } from './feed.js';
import { isWithin, UNREAD } from './merge.js';
import { seenCount, visible } from './select.js';

/** What no feed can know (a row changed by hand, by an older binary) is seen after so long. */
const LOOK_MS = 60_000;
/** So long the first page waits for the stream. */
const STREAM_FIRST_MS = 2_500;
const FIRST_ROWS = 40;
const MOST_ROWS = 100;
const FIRST_MESSAGES = 50;
const MOST_MESSAGES = 200;
/** So many pages are fetched again after a reset; what was below is loaded anew when wanted. */
const MOST_PAGES = 5;
/** So many pages without a row are passed over before the list asks whether to go on. */
const MOST_EMPTY_PAGES = 20;
/** A list that shows so few rows and has more goes on by itself. */
const FEW_ROWS = 12;

/**
 * The effects: watches the store, and asks the gateway for what is missing or stale.
 * @param {object} options
 * @param {ReturnType<typeof import('./store.js').createStore>} options.store
 * @param {ReturnType<typeof import('./api.js').createApi>} options.api
 * @param {import('./clock.js').Clock} [options.clock]
 * @param {Document} [options.page]
 * @param {(messages: object[]) => void} [options.onMessages] Told each fetched message.
 */
export function createSync({
  store, api, clock = pageClock, page = globalThis.document, onMessages = () => undefined,
}) {
  /** What is being fetched, and what has to wait after a failure. @type {Map<string, object>} */
  const jobs = new Map();
  let isRunning = false;
  let filled = { filter: null, times: 0 };
  let mayBegin = false;
  let cancelLook = () => undefined;
  let cancelBegin = () => undefined;

  /** Does a job, once at a time for each name; after a failure it waits before the next. */
  function run(name, work, onError) {
    const job = jobs.get(name) ?? { promise: null, failures: 0, isWaiting: false, cancel: null };
    jobs.set(name, job);
    if (job.promise) return job.promise;
    job.cancel?.();
    job.isWaiting = false;
    job.promise = work().then(() => {
      job.failures = 0;
    }, (error) => {
      job.failures += 1;
      job.isWaiting = true;
      const wait = Math.max(backoff(job.failures, Math.random()), (error.retryAfter ?? 0) * 1000);
      job.cancel = clock.after(wait, () => {
        job.isWaiting = false;
        evaluate();
      });
      onError(error.toJSON?.() ?? { status: 0, code: 'internal', detail: String(error), errors: [],
        retryAfter: null });
    }).finally(() => {
      job.promise = null;
      evaluate();
    });
    return job.promise;
  }

  const mayRun = (name) => {
    const job = jobs.get(name);
    return !job || (!job.promise && !job.isWaiting);
  };

  /** Starts what is needed. Called after each change; the jobs in flight are not started twice. */
  function evaluate() {
    const state = store.get();
    if (!isRunning || !mayBegin || state.login !== 'done') return;
    if (needs(state.list) && mayRun(listJob(state))) loadList();
    if (needs(state.unread) && mayRun('unread')) loadUnread();
    fill(state);
    const thread = state.threads.get(state.open);
    const isGone = thread?.error?.status === 404;
    if (thread && needs(thread) && !isGone && mayRun(`thread ${thread.id}`)) loadThread(thread.id);
  }

  /** Goes on where a list shows less than a screen and has more. */
  function fill({ filter, list }) {
    const isShort = !needs(list) && list.end !== null && visible(store.get()).length < FEW_ROWS;
    if (!isShort || !mayRun(moreJob(filter))) return;
    if (filled.filter !== filter) filled = { filter, times: 0 };
    if (filled.times >= MOST_PAGES) return;
    filled.times += 1;
    more();
  }

  const moreJob = (filter) => `more ${JSON.stringify(filter)}`;

  /** The next page of the list. */
  function more() {
    const { filter, list } = store.get();
    if (!list.loaded || list.end === null) return Promise.resolve();
    return run(moreJob(filter), () => loadMore(filter),
      (error) => store.dispatch({ type: 'list.failed', list: 'list', error }));
  }

  const needs = (part) => !part.loaded || part.stale;
  const listJob = ({ filter }) => `list ${JSON.stringify(filter)}`;

  /** The list from the top, as far down as it was loaded if that is stale. */
  function loadList() {
    const { filter } = store.get();
    const isCurrent = () => store.get().filter === filter;
    return run(listJob({ filter }), () => loadChain({
      isOver: () => !isCurrent() || !store.get().list.stale,
      ask: (cursor) => api.list(filter, { cursor, limit: cursor ? MOST_ROWS : FIRST_ROWS }),
      take: ({ data, meta }, place) => ({
        type: 'list.page', list: 'list', filter, rows: data, next: meta.nextCursor, ...place,
      }),
    }), (error) => isCurrent() && store.dispatch({ type: 'list.failed', list: 'list', error }));
  }

  function loadUnread() {
    return run('unread', () => loadChain({
      isOver: () => true,
      ask: () => api.list(UNREAD, { limit: MOST_ROWS }),
      take: ({ data, meta }, place) => ({
        type: 'list.page', list: 'unread', filter: UNREAD, rows: data, next: meta.nextCursor,
        ...place, cut: true,
      }),
    }), (error) => store.dispatch({ type: 'list.failed', list: 'unread', error }));
  }

  function loadThread(id, isWhole = false) {
    let count;
    return run(`thread ${id}`, () => loadChain({
      isOver: (next) => !reachesOn(id, next) ||
        !(isWhole || store.get().threads.get(id)?.stale),
      ask: (cursor) => api.thread(id, { cursor, limit: cursor ? MOST_MESSAGES : FIRST_MESSAGES }),
      take: ({ messages, meta, ...conversation }, place) => {
        count ??= conversation.inboundCount;
        onMessages(messages);
        return {
          type: 'thread.page', conversation, messages, next: meta.nextCursor, count, ...place,
        };
      },
    }), (error) => store.dispatch({ type: 'thread.failed', id, error }));
  }

  /** Whether what is loaded of a thread goes on below a place. */
  function reachesOn(id, place) {
    const thread = store.get().threads.get(id);
    return Boolean(thread) && isWithin(place, null, thread.end) && place !== thread.end;
  }

  /** Fetches page after page from the top until there is no more hole. */
  async function loadChain({ ask, take, isOver }) {
    const chain = store.get().tick;
    let from = null;
    for (let pages = 1; ; pages += 1) {
      const since = store.get().tick;
      const answer = await ask(from);
      const cut = pages === MOST_PAGES;
      store.dispatch(take(answer, { from, since, chain, cut }));
      from = answer.meta.nextCursor;
      if (from === null || cut || chain < store.get().fence || isOver(from)) return;
    }
  }

  /** The next page with a row: a search may answer short and empty pages before the end. */
  async function loadMore(filter) {
    for (let pages = 0; pages < MOST_EMPTY_PAGES; pages += 1) {
      const { filter: current, list: { end: from, loaded }, tick: since } = store.get();
      if (current !== filter || !loaded || from === null) return;
      const { data, meta } = await api.list(filter, { cursor: from, limit: FIRST_ROWS });
      store.dispatch({
        type: 'list.page', list: 'list', filter, from, next: meta.nextCursor, rows: data, since,
      });
      if (data.length > 0) return;
    }
  }

  /** What is shown, once more from the top. */
  async function look() {
    const state = store.get();
    if (!isRunning || state.login !== 'done') return;
    const { open: id } = state;
    const isShort = id !== null && seenCount(state, id) !== state.conversations.get(id)?.inboundCount;
    const open = id === null ? [] : [loadThread(id, isShort)];
    await Promise.all([loadUnread(), ...open]);
    await loadList();
  }

  function lookAgain() {
    cancelLook();
    cancelLook = clock.after(LOOK_MS, lookAgain);
    if (page.visibilityState === 'visible' && mayBegin) look();
  }

  const onVisible = () => {
    if (page.visibilityState === 'visible') lookAgain();
  };

  store.subscribe((state, before) => {
    if (state.feed.state === 'live' && before.feed.state !== 'live') onLive();
    evaluate();
  });

  /** The gateway is there (again): nothing waits for its next try. */
  function onLive() {
    mayBegin = true;
    for (const job of jobs.values()) {
      job.cancel?.();
      job.isWaiting = false;
    }
  }

  return {
    /** Begins, with the first page after the stream has, or after a while without it. */
    start() {
      isRunning = true;
      mayBegin = store.get().feed.state === 'live';
      cancelBegin = clock.after(STREAM_FIRST_MS, () => {
        mayBegin = true;
        evaluate();
      });
      cancelLook = clock.after(LOOK_MS, lookAgain);
      page.addEventListener('visibilitychange', onVisible);
      evaluate();
    },
    stop() {
      isRunning = false;
      cancelLook();
      cancelBegin();
      for (const job of jobs.values()) job.cancel?.();
      jobs.clear();
      page.removeEventListener('visibilitychange', onVisible);
    },
    /** The list and the open thread from the top, now. */
    look,
    more,
    /** The page of a thread that is older than what is loaded. */
    older(id) {
      const thread = store.get().threads.get(id);
      if (!thread?.loaded || thread.end === null) return Promise.resolve();
      const from = thread.end;
      return run(`older ${id}`, async () => {
        const since = store.get().tick;
        const { messages, meta, ...conversation } =
          await api.thread(id, { cursor: from, limit: FIRST_MESSAGES });
        store.dispatch({
          type: 'thread.page', conversation, messages, from, next: meta.nextCursor, since,
        });
      }, (error) => store.dispatch({ type: 'thread.failed', id, error }));
    },
    /** Fetches all that is loaded of a thread again. */
    refetch: (id) => loadThread(id, true),
  };
}
