// Fetches what the state lacks: first pages, more of them, what may have holes, and a regular look.

import { clock as pageClock } from './clock.js';
import { Jobs } from './jobs.js';
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

const listJob = (filter) => `list ${JSON.stringify(filter)}`;
const moreJob = (filter) => `more ${JSON.stringify(filter)}`;
const threadJob = (id) => `thread ${id}`;
const needs = (part) => !part.loaded || part.stale;

/** The effects: watches the store, and asks the gateway for what is missing or stale. */
export class Sync {
  #store;
  #api;
  #clock;
  #page;
  #onMessages;
  #jobs;
  #isRunning = false;
  #mayBegin = false;
  #filled = { filter: null, times: 0 };
  #cancelLook = () => undefined;
  #cancelBegin = () => undefined;
  #onVisible = () => {
    if (this.#page.visibilityState === 'visible') this.#lookAgain();
  };

  /**
   * @param {object} options
   * @param {ReturnType<typeof import('./store.js').createStore>} options.store
   * @param {ReturnType<typeof import('./api.js').createApi>} options.api
   * @param {import('./clock.js').Clock} [options.clock]
   * @param {Document} [options.page]
   * @param {(messages: object[]) => void} [options.onMessages] Told each fetched message.
   */
  constructor({
    store, api, clock = pageClock, page = globalThis.document, onMessages = () => undefined,
  }) {
    this.#store = store;
    this.#api = api;
    this.#clock = clock;
    this.#page = page;
    this.#onMessages = onMessages;
    this.#jobs = new Jobs(clock, () => this.#evaluate());
    store.subscribe((state, before) => {
      if (state.feed.state === 'live' && before.feed.state !== 'live') {
        this.#mayBegin = true;
        this.#jobs.hurry();
      }
      this.#evaluate();
    });
  }

  /** Begins, with the first page after the stream has, or after a while without it. */
  start() {
    this.#isRunning = true;
    this.#mayBegin = this.#store.get().feed.state === 'live';
    this.#cancelBegin = this.#clock.after(STREAM_FIRST_MS, () => {
      this.#mayBegin = true;
      this.#evaluate();
    });
    this.#cancelLook = this.#clock.after(LOOK_MS, () => this.#lookAgain());
    this.#page.addEventListener('visibilitychange', this.#onVisible);
    this.#evaluate();
  }

  stop() {
    this.#isRunning = false;
    this.#cancelLook();
    this.#cancelBegin();
    this.#jobs.clear();
    this.#page.removeEventListener('visibilitychange', this.#onVisible);
  }

  /** The list and the open thread from the top, now. */
  async look() {
    const state = this.#store.get();
    if (!this.#isRunning || state.login !== 'done') return;
    const { open: id } = state;
    const known = state.conversations.get(id)?.inboundCount;
    const isShort = id !== null && seenCount(state, id) !== known;
    const open = id === null ? [] : [this.#loadThread(id, isShort)];
    await Promise.all([this.#loadUnread(), ...open]);
    await this.#loadList();
  }

  /** The next page of the list. @returns {Promise<void>} */
  more() {
    const { filter, list } = this.#store.get();
    if (!list.loaded || list.end === null) return Promise.resolve();
    return this.#jobs.run(moreJob(filter), () => this.#loadMore(filter),
      (error) => this.#store.dispatch({ type: 'list.failed', list: 'list', error }));
  }

  /** The page of a thread that is older than what is loaded. @param {string} id */
  older(id) {
    const thread = this.#store.get().threads.get(id);
    if (!thread?.loaded || thread.end === null) return Promise.resolve();
    const from = thread.end;
    return this.#jobs.run(`older ${id}`, async () => {
      const since = this.#store.get().tick;
      const { messages, meta, aliases: _, ...conversation } =
        await this.#api.thread(id, { cursor: from, limit: FIRST_MESSAGES });
      const next = meta.nextCursor;
      this.#store.dispatch({ type: 'thread.page', conversation, messages, from, next, since });
    }, (error) => this.#store.dispatch({ type: 'thread.failed', id, error }));
  }

  /** Fetches all that is loaded of a thread again. @param {string} id */
  refetch(id) {
    return this.#loadThread(id, true);
  }

  /** Starts what is needed. Called after each change; the jobs in flight are not started twice. */
  #evaluate() {
    const state = this.#store.get();
    if (!this.#isRunning || !this.#mayBegin || state.login !== 'done') return;
    if (needs(state.list) && this.#jobs.mayRun(listJob(state.filter))) this.#loadList();
    if (needs(state.unread) && this.#jobs.mayRun('unread')) this.#loadUnread();
    this.#fill(state);
    const thread = state.threads.get(state.open);
    const isWanted = thread && needs(thread) && thread.error?.status !== 404;
    if (isWanted && this.#jobs.mayRun(threadJob(thread.id))) this.#loadThread(thread.id);
  }

  /** Goes on where a list shows less than a screen and has more. */
  #fill({ filter, list }) {
    const isShort = !needs(list) && list.end !== null &&
      visible(this.#store.get()).length < FEW_ROWS;
    if (!isShort || !this.#jobs.mayRun(moreJob(filter))) return;
    if (this.#filled.filter !== filter) this.#filled = { filter, times: 0 };
    if (this.#filled.times >= MOST_PAGES) return;
    this.#filled.times += 1;
    this.more();
  }

  /** The list from the top, as far down as it was loaded if that is stale. */
  #loadList() {
    const { filter } = this.#store.get();
    const isCurrent = () => this.#store.get().filter === filter;
    return this.#jobs.run(listJob(filter), () => this.#loadChain({
      isOver: () => !isCurrent() || !this.#store.get().list.stale,
      ask: (cursor) => this.#api.list(filter, { cursor, limit: cursor ? MOST_ROWS : FIRST_ROWS }),
      take: ({ data, meta }, place) => ({
        type: 'list.page', list: 'list', filter, rows: data, next: meta.nextCursor, ...place,
      }),
    }), (error) => isCurrent() &&
      this.#store.dispatch({ type: 'list.failed', list: 'list', error }));
  }

  #loadUnread() {
    return this.#jobs.run('unread', () => this.#loadChain({
      isOver: () => true,
      ask: () => this.#api.list(UNREAD, { limit: MOST_ROWS }),
      take: ({ data, meta }, place) => ({
        type: 'list.page', list: 'unread', filter: UNREAD, rows: data, next: meta.nextCursor,
        ...place, cut: true,
      }),
    }), (error) => this.#store.dispatch({ type: 'list.failed', list: 'unread', error }));
  }

  /** A thread from the top, all that is loaded of it if that is stale or asked for. */
  #loadThread(id, isWhole = false) {
    const threadOf = () => this.#store.get().threads.get(id);
    let count;
    return this.#jobs.run(threadJob(id), () => this.#loadChain({
      isOver: (next) => !reachesOn(threadOf(), next) || !(isWhole || threadOf().stale),
      ask: (cursor) => this.#api.thread(id, {
        cursor, limit: cursor ? MOST_MESSAGES : FIRST_MESSAGES,
      }),
      take: ({ messages, meta, aliases: _, ...conversation }, place) => {
        count ??= conversation.inboundCount;
        this.#onMessages(messages);
        return {
          type: 'thread.page', conversation, messages, next: meta.nextCursor, count, ...place,
        };
      },
    }), (error) => this.#store.dispatch({ type: 'thread.failed', id, error }));
  }

  /** Fetches page after page from the top until there is no more hole. */
  async #loadChain({ ask, take, isOver }) {
    const store = this.#store;
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
  async #loadMore(filter) {
    for (let pages = 0; pages < MOST_EMPTY_PAGES; pages += 1) {
      const { filter: current, list: { end: from, loaded }, tick: since } = this.#store.get();
      if (current !== filter || !loaded || from === null) return;
      const { data, meta } = await this.#api.list(filter, { cursor: from, limit: FIRST_ROWS });
      const next = meta.nextCursor;
      this.#store.dispatch({
        type: 'list.page', list: 'list', filter, from, next, rows: data, since,
      });
      if (data.length > 0) return;
    }
  }

  #lookAgain() {
    this.#cancelLook();
    this.#cancelLook = this.#clock.after(LOOK_MS, () => this.#lookAgain());
    if (this.#page.visibilityState === 'visible' && this.#mayBegin) this.look();
  }
}

/** Whether what is loaded of a thread goes on below a place. */
function reachesOn(thread, place) {
  return Boolean(thread) && isWithin(place, null, thread.end) && place !== thread.end;
}
