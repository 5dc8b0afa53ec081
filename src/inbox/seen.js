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
 * @param {object} options
 * @param {ReturnType<typeof import('./store.js').createStore>} options.store
 * @param {(id: string, inboundCount: number) => Promise<object>} options.read
 * @param {(id: string) => void} options.onShort Told when more is unread than the page knows of.
 * @param {import('./clock.js').Clock} [options.clock]
 * @param {Document} [options.page]
 * @param {Window} [options.frame]
 */
export function createSeen({
  store, read, onShort, clock = pageClock, page = globalThis.document, frame = globalThis.window,
}) {
  let lastInput = -Infinity;
  /** The open conversation, when its newest came, and how many had come then. */
  let came = { id: null, at: Infinity, count: null };
  let shown = { id: null, isInView: false };
  /** Up to where the server knows. @type {Map<string, number>} */
  const told = new Map();
  let isAsking = false;
  let failures = 0;
  let cancelWait = () => undefined;
  /** @type {IntersectionObserver|null} */
  let observer = null;

  function noteInput() {
    lastInput = clock.steady();
    check();
  }

  /** Notes when something comes in: what was there when it was opened by hand counts as asked for. */
  function noteState(state) {
    const id = state.open;
    const count = id === null ? null : seenCount(state, id);
    if (id !== came.id) {
      const wasAskedFor = clock.steady() - lastInput < OPENING_MS;
      came = { id, at: wasAskedFor ? lastInput : clock.steady(), count };
    } else if (count !== null && came.count === null) came = { ...came, count };
    else if (count !== null && count > came.count) came = { id, at: clock.steady(), count };
    check();
  }

  function check() {
    const { id } = came;
    const isThere = id !== null && shown.id === id && shown.isInView &&
      page.visibilityState === 'visible' && page.hasFocus() && lastInput >= came.at;
    if (!isThere || isAsking) return;
    const state = store.get();
    const count = seenCount(state, id);
    const conversation = state.conversations.get(id);
    if (count === null || !conversation || conversation.unreadCount === 0) return;
    if (count > (told.get(id) ?? -1)) mark(id, count);
  }

  async function mark(id, count) {
    isAsking = true;
    cancelWait();
    const since = store.get().tick;
    try {
      const conversation = await read(id, count);
      failures = 0;
      told.set(id, count);
      isAsking = false;
      store.dispatch({ type: 'conversation', conversation, since });
      if (conversation.unreadCount > 0) onShort(id);
    } catch (error) {
      isAsking = false;
      failures += 1;
      if (error.status === 404 || error.status === 403) told.set(id, count);
      else cancelWait = clock.after(backoff(failures, Math.random()), check);
      return;
    }
    check();
  }

  const unsubscribe = store.subscribe(noteState);
  for (const name of INPUTS) frame.addEventListener(name, noteInput, { passive: true, capture: true });
  page.addEventListener('visibilitychange', check);
  frame.addEventListener('focus', check);

  const seen = {
    /** Says whether the end of a thread's newest inbound message is in view. */
    shown(id, isInView) {
      shown = { id, isInView };
      check();
    },
    /**
     * Watches an element at the end of the newest inbound message (a low one: all of it must be in
     * view). Null ends it. Call it when the thread has been put where it opens.
     * @param {Element|null} element
     * @param {string|null} [id] The conversation's.
     */
    watch(element, id = null) {
      observer?.disconnect();
      observer = null;
      seen.shown(id, false);
      if (!element) return;
      const mine = new IntersectionObserver((entries) => {
        const { isIntersecting, intersectionRatio, boundingClientRect } = entries[entries.length - 1];
        const isWhole = intersectionRatio > 0.9 || boundingClientRect.height < 1;
        if (observer === mine) seen.shown(id, isIntersecting && isWhole);
      }, { threshold: [0, 0.5, 0.95, 1] });
      observer = mine;
      mine.observe(element);
    },
    stop() {
      unsubscribe();
      observer?.disconnect();
      cancelWait();
      for (const name of INPUTS) frame.removeEventListener(name, noteInput, { capture: true });
      page.removeEventListener('visibilitychange', check);
      frame.removeEventListener('focus', check);
    },
  };
  return seen;
}
