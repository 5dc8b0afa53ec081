// Marks as read what a person has really seen, up to that and no further.

import { clock as pageClock } from './clock.js';
import { backoff } from './feed.js';
import { seenCount } from './select.js';

/** What only a person does. */
const INPUTS = ['keydown', 'pointerdown', 'pointermove', 'wheel', 'touchstart'];
/** A conversation that opens so soon after an input was opened by it. */
const OPENING_MS = 2_000;

/**
 * Something is read when the end of the newest inbound message is in view, the page is visible and
 * has the focus, and somebody did something since it came.
 */
export class Seen {
  #options;
  #lastInput = -Infinity;
  /** The open conversation, when its newest came, and how many had come then. */
  #came = { id: null, at: Infinity, count: null };
  #shown = { id: null, isInView: false };
  /** Up to where the server knows. @type {Map<string, number>} */
  #told = new Map();
  #fence = 0;
  #isAsking = false;
  #failures = 0;
  #cancelWait = () => undefined;
  /** @type {IntersectionObserver|null} */
  #observer = null;

  /**
   * @param {object} options
   * @param {ReturnType<typeof import('./store.js').createStore>} options.store
   * @param {(id: string, inboundCount: number) => Promise<object>} options.read
   * @param {(id: string) => void} options.onShort Told when more is unread than the page knows of.
   * @param {import('./clock.js').Clock} [options.clock]
   * @param {Document} [options.page]
   * @param {Window} [options.frame]
   */
  constructor({
    store, read, onShort, clock = pageClock, page = globalThis.document, frame = globalThis.window,
  }) {
    this.#options = { store, read, onShort, clock, page };
    store.subscribe((state) => this.#noteState(state));
    const check = () => this.#check();
    const noteInput = () => {
      this.#lastInput = clock.steady();
      check();
    };
    for (const name of INPUTS) {
      frame.addEventListener(name, noteInput, { passive: true, capture: true });
    }
    page.addEventListener('visibilitychange', check);
    frame.addEventListener('focus', check);
  }

  /** Says whether the end of a thread's newest inbound message is in view. */
  shown(id, isInView) {
    this.#shown = { id, isInView };
    this.#check();
  }

  /**
   * Watches an element at the end of the newest inbound message (a low one: all of it must be in
   * view). Null ends it. Call it when the thread has been put where it opens.
   * @param {Element|null} element
   * @param {string|null} [id] The conversation's.
   */
  watch(element, id = null) {
    this.#observer?.disconnect();
    this.#observer = null;
    this.shown(id, false);
    if (!element) return;
    const mine = new IntersectionObserver((entries) => {
      const { isIntersecting, intersectionRatio, boundingClientRect } = entries[entries.length - 1];
      const isWhole = intersectionRatio > 0.9 || boundingClientRect.height < 1;
      if (this.#observer === mine) this.shown(id, isIntersecting && isWhole);
    }, { threshold: [0, 0.5, 0.95, 1] });
    this.#observer = mine;
    mine.observe(element);
  }

  /** Notes when something comes in; what was there when a hand opened it counts as asked for. */
  #noteState(state) {
    const id = state.open;
    const count = id === null ? null : seenCount(state, id);
    // After a reset the counts may be those of another history.
    if (state.fence !== this.#fence) this.#told.clear();
    this.#fence = state.fence;
    const now = this.#options.clock.steady();
    if (id !== this.#came.id) {
      const wasAskedFor = now - this.#lastInput < OPENING_MS;
      this.#came = { id, at: wasAskedFor ? this.#lastInput : now, count };
    } else if (count !== null && this.#came.count === null) this.#came.count = count;
    else if (count !== null && count > this.#came.count) this.#came = { id, at: now, count };
    this.#check();
  }

  #check() {
    const { id, at } = this.#came;
    const { page, store } = this.#options;
    const isThere = id !== null && this.#shown.id === id && this.#shown.isInView &&
      page.visibilityState === 'visible' && page.hasFocus() && this.#lastInput >= at;
    if (!isThere || this.#isAsking) return;
    const state = store.get();
    const count = seenCount(state, id);
    const conversation = state.conversations.get(id);
    if (count === null || !conversation || conversation.unreadCount === 0) return;
    if (count > (this.#told.get(id) ?? -1)) this.#mark(id, count);
  }

  async #mark(id, count) {
    const { store, read, onShort, clock } = this.#options;
    this.#isAsking = true;
    this.#cancelWait();
    const since = store.get().tick;
    const answer = await read(id, count)
      .then((conversation) => ({ conversation }), (error) => ({ error }));
    this.#isAsking = false;
    const { conversation, error } = answer;
    if (conversation) {
      this.#failures = 0;
      this.#told.set(id, count);
      store.dispatch({ type: 'conversation', conversation, since });
      if (conversation.unreadCount > 0) onShort(id);
      this.#check();
    } else if (error.status === 404 || error.status === 403) this.#told.set(id, count);
    else {
      this.#failures += 1;
      const wait = backoff(this.#failures, Math.random());
      this.#cancelWait = clock.after(wait, () => this.#check());
    }
  }
}
