// The messages of the open thread, and a scroll place that holds whatever comes or changes.

import { arrange, attr, byId, el, icon, keepPlace, show, text, toggleClass } from './dom.js';
import { firstUnread, hasOlder, items, may } from './store.js';
import { isTheirs, Timeline } from './timeline.js';
import { isOnWhatsapp } from './window.js';

/** Within so many pixels of the end the reader is at the newest. */
const AT_END = 48;
/** How close to the top older messages are asked for. */
const AHEAD = 500;
/** So many inbound messages at most are loaded to find the first unread. */
const HUNT_LIMIT = 400;
/** The line of the unread is so far from the top when a thread opens there. */
const ABOVE_LINE = 48;

/**
 * The log. `actions` has `older(id)`, `retry(item, asks)`, `cancel(item)`, `heard(message)` for
 * what is new of the customer's, and `newest(element, id)`, told the last line of the newest of
 * his; `now()` is the time in milliseconds.
 */
export class Log {
  #actions;
  #now;
  #scroller = byId('log');
  #list = byId('messages');
  #note = byId('log-note');
  #button = byId('to-newest');
  #label = el('span');
  #state = null;
  #view = null;

  constructor({ actions, now }) {
    this.#actions = { ...actions, goTo: (id) => this.#goTo(id) };
    this.#now = now;
    this.#button.append(this.#label, icon('down'));
    this.#button.addEventListener('click', () => {
      this.#toEnd();
      this.focus();
    });
    this.#scroller.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    // What is unfolded grows below the reader's eyes; he stays where he is.
    this.#list.addEventListener('click', ({ target }) => {
      if (target.classList.contains('fold')) this.#look();
    });
    this.#list.addEventListener('resized', () => this.#resized());
    new ResizeObserver(() => this.#resized()).observe(this.#scroller);
  }

  /** Begins with another thread. */
  open(state, id) {
    const unread = state.conversations.get(id)?.unreadCount ?? null;
    this.#view = freshView(id, unread, new Timeline(this.#actions));
    this.#list.replaceChildren();
    this.#actions.newest(null, id);
    this.draw(state);
  }

  /** Leaves nothing of a thread in the page. */
  close() {
    this.#actions.newest(null, this.#view?.id ?? null);
    this.#view = null;
    this.#list.replaceChildren();
  }

  /** Shows the state of the open thread. */
  draw(state) {
    this.#state = state;
    const view = this.#view;
    const thread = state.threads.get(view.id);
    const given = [thread, state.outbox, state.session, this.#now()];
    const isSame = view.isPlaced && view.given.every((value, index) => value === given[index]);
    view.given = given;
    if (thread && !isSame) this.#redraw(thread);
  }

  /** Gives the log the focus, so that its keys scroll. */
  focus() {
    this.#scroller.focus({ preventScroll: true });
    return true;
  }

  /** Goes to the end with the next message: the reader has just sent it. */
  follow() {
    if (this.#view) this.#view.isAtEnd = true;
  }

  #redraw(thread) {
    const view = this.#view;
    const state = this.#state;
    view.unread ??= state.conversations.get(view.id)?.unreadCount ?? null;
    const shown = items(state, view.id);
    const isNew = thread.loaded && !view.isPlaced;
    if (isNew && this.#hunts(thread, shown)) return;
    if (isNew) view.divider = firstUnread(state, view.id, view.unread ?? 0);
    this.#count(shown);
    const change = () => {
      arrange(this.#list, this.#nodes(shown));
      this.#drawNote(thread, shown.length);
      view.timeline.foldNew();
    };
    if (!view.isPlaced || view.isAtEnd) change();
    else keepPlace(this.#scroller, this.#list, change, isMessage);
    if (isNew) this.#place();
    else if (view.isAtEnd) this.#toEnd();
    this.#tellNewest(shown);
    this.#scrolled();
  }

  #nodes(shown) {
    const mayAct = may(this.#state, 'admin') || may(this.#state, 'send');
    const { session } = this.#state;
    const hasStatuses = (channel) => isOnWhatsapp(session, channel);
    const { timeline, divider } = this.#view;
    const now = this.#now();
    return timeline.nodes(shown, { divider, now, mayAct, hasStatuses, find: finder(shown) });
  }

  /** Brings a message into sight, and gives it the focus. */
  #goTo(id) {
    const node = [...this.#list.children].find(({ dataset }) => dataset.messageId === id);
    if (!node) return;
    attr(node, 'tabindex', '-1');
    node.scrollIntoView({ block: 'center' });
    node.focus({ preventScroll: true });
    this.#scrolled();
  }

  /** Loads more until the first unread message is there; true while it is on its way. */
  #hunts(thread, shown) {
    const { id, unread } = this.#view;
    const inbound = shown.filter(isTheirs).length;
    const isMissing = (unread ?? 0) > inbound && inbound < HUNT_LIMIT;
    if (!isMissing || !hasOlder(this.#state, id) || thread.error) return false;
    this.#actions.older(id);
    return true;
  }

  /** Counts what has come since the last look; what is older than all that was shown is no news. */
  #count(shown) {
    const view = this.#view;
    const before = view.known;
    view.known = new Set(shown.map(({ key }) => key));
    const first = shown.findIndex(({ key }) => before.has(key));
    if (!view.isPlaced || first === -1) return;
    const theirs = shown.slice(first).filter((item) => isTheirs(item) && !before.has(item.key));
    if (theirs.length === 0) return;
    if (!view.isAtEnd) {
      if (view.news === 0) view.divider = theirs[0].message.id;
      view.news += theirs.length;
    }
    this.#actions.heard(theirs[theirs.length - 1].message);
  }

  /** Puts the first unread message near the top, or the newest at the bottom. */
  #place() {
    if (this.#isHidden()) return;
    const { line } = this.#view.timeline;
    this.#view.isPlaced = true;
    if (!line.isConnected) {
      this.#toEnd();
      return;
    }
    const top = line.getBoundingClientRect().top - this.#scroller.getBoundingClientRect().top;
    this.#scroller.scrollTop += top - ABOVE_LINE;
    this.#look();
  }

  #toEnd() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#look();
  }

  #tellNewest(shown) {
    const view = this.#view;
    const newest = shown.findLast(isTheirs);
    const element = view.isPlaced && newest ? view.timeline.end(newest.key) : null;
    if (element === view.newest) return;
    view.newest = element;
    this.#actions.newest(element, view.id);
  }

  /** Remembers whether the reader is at the end, and says what is below. */
  #look() {
    const view = this.#view;
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    const left = scrollHeight - scrollTop - clientHeight;
    view.isAtEnd = left < AT_END;
    if (view.isAtEnd) view.news = 0;
    const isFar = view.isPlaced && left > Math.min(300, clientHeight / 2);
    const words = view.news === 1 ? '1 new message' : `${view.news} new messages`;
    show(this.#button, isFar || view.news > 0);
    text(this.#label, view.news > 0 ? words : 'Newest');
    toggleClass(this.#button, 'new', view.news > 0);
  }

  #scrolled() {
    if (!this.#view?.isPlaced || this.#isHidden()) return;
    this.#look();
    const { id } = this.#view;
    const isNear = this.#scroller.scrollTop < AHEAD;
    if (isNear && hasOlder(this.#state, id)) this.#actions.older(id);
  }

  /** The keyboard of a telephone, a growing composer, another width: the newest stays in sight. */
  #resized() {
    const view = this.#view;
    if (!view || this.#isHidden()) return;
    if (this.#scroller.clientWidth !== view.width) {
      view.width = this.#scroller.clientWidth;
      view.timeline.foldAll();
    }
    if (!view.isPlaced) this.draw(this.#state);
    else if (view.isAtEnd) this.#toEnd();
    else this.#look();
  }

  /** On a telephone the list may be in its place: then nothing has a size. */
  #isHidden() {
    return this.#scroller.clientHeight === 0;
  }

  #drawNote({ error, loaded }, length) {
    let words = '';
    if (error && !loaded) words = `The messages could not be loaded: ${error.detail}`;
    else if (error) words = `Older messages could not be loaded: ${error.detail}`;
    else if (!loaded) words = 'Loading …';
    else if (hasOlder(this.#state, this.#view.id)) words = 'Loading older messages …';
    else if (length === 0) words = 'No messages yet.';
    text(this.#note, words);
  }
}

/** What is known of a thread while it is open; `given` is what it was last drawn from. */
function freshView(id, unread, timeline) {
  return {
    id, unread, timeline, given: [], known: new Set(), divider: null, news: 0, newest: undefined,
    width: 0, isPlaced: false, isAtEnd: true,
  };
}

/** What gives the message that a reply answers, by our id or the provider's, or null. */
function finder(shown) {
  const known = new Map();
  for (const { message } of shown) {
    if (message?.providerMessageId) known.set(message.providerMessageId, message);
  }
  for (const { message } of shown) {
    if (message) known.set(message.id, message);
  }
  return ({ messageId, providerMessageId }) =>
    known.get(messageId) ?? known.get(providerMessageId) ?? null;
}

/** Days and the line of the unread move among the messages: no place to hold on to. */
const isMessage = (node) => node.dataset.messageId !== undefined;
