// The list of conversations: rows move, the selected one and the scroll place stay.

import { attr, arrange, byId, keepPlace, text } from './dom.js';
import * as filters from './filters.js';
import * as row from './row.js';
import { ALL, comparePlaces, hasMore, previewIsOurs, visible } from './store.js';

/** How close to its end the list asks for more, in pixels. */
const AHEAD = 600;

/**
 * The list. `actions` has `more()` and `filter(changes)`; `draftOf(id)` gives a draft's text,
 * `now()` the time in milliseconds.
 */
export class List {
  #actions;
  #draftOf;
  #now;
  #scroller = byId('list-scroll');
  #list = byId('rows');
  #rows = new Map();
  #shown = [];
  #filter = null;
  #state = null;
  #stop = null;

  constructor({ actions, draftOf, now }) {
    this.#actions = actions;
    this.#draftOf = draftOf;
    this.#now = now;
    this.#scroller.addEventListener('scroll', () => this.#askForMore(), { passive: true });
    this.#list.addEventListener('focusin', ({ target }) => {
      this.#stop = target.closest('.row')?.dataset.conversationId ?? null;
      this.#drawTabStop();
    });
    filters.connect(actions.filter);
  }

  /** Shows the state. */
  draw(state) {
    const isSameFilter = state.filter === this.#filter;
    if (!isSameFilter) this.#scroller.scrollTop = 0;
    const known = withOpen(state, isSameFilter ? this.#shown : []);
    this.#filter = state.filter;
    this.#state = state;
    this.#shown = known.map(({ id }) => id);
    const moved = known.filter(({ id, cursor }) => this.#rows.get(id)?.cursor !== cursor);
    this.#arrange(known.map((each) => this.#drawRow(each)), new Set(moved.map(({ id }) => id)));
    this.#drawTabStop();
    this.#drawNote(known.length);
    filters.draw(state);
    this.#askForMore();
  }

  /** Moves the focus to the next (1) or the previous (-1) row; false when there is none. */
  move(step) {
    const focused = document.activeElement?.closest('.row')?.dataset.conversationId;
    const index = this.#shown.indexOf(focused ?? this.#state?.open);
    return this.focus(index === -1 ? this.#shown[0] : this.#shown[index + step]);
  }

  /** Gives a row the focus; false when it is not there, or the list is hidden. */
  focus(id) {
    const found = this.#rows.get(id);
    if (!found || this.#scroller.clientHeight === 0) return false;
    found.parts.link.focus({ preventScroll: true });
    found.node.scrollIntoView({ block: 'nearest' });
    return true;
  }

  /** What the reader looks at stays, unless he looks at the top: there the newest comes in. */
  #arrange(nodes, moved) {
    const change = () => arrange(this.#list, nodes);
    const isSteady = (node) => !moved.has(node.dataset.conversationId);
    if (this.#scroller.scrollTop < 2) change();
    else keepPlace(this.#scroller, this.#list, change, isSteady);
    const shown = new Set(this.#shown);
    for (const id of this.#rows.keys()) {
      if (!shown.has(id)) this.#rows.delete(id);
    }
  }

  /** One row is a stop of the Tab key, else the thread would be behind all of an endless list. */
  #drawTabStop() {
    const usual = this.#rows.has(this.#state.open) ? this.#state.open : this.#shown[0];
    const stop = this.#rows.has(this.#stop) ? this.#stop : usual;
    for (const [id, { parts }] of this.#rows) {
      attr(parts.link, 'tabindex', id === stop ? null : '-1');
    }
  }

  #drawRow(conversation) {
    const { id } = conversation;
    const state = this.#state;
    if (!this.#rows.has(id)) this.#rows.set(id, row.make(id));
    const each = this.#rows.get(id);
    const isCurrent = state.open === id;
    row.update(each, conversation, {
      isCurrent,
      draft: state.drafts.has(id) && !isCurrent ? this.#draftOf(id) : '',
      isOurs: previewIsOurs(conversation),
      isStuck: state.outbox.some((unsent) =>
        unsent.state === 'refused' && unsent.conversationId === id),
      now: this.#now(),
    });
    return each.node;
  }

  #drawNote(count) {
    const { list: part, filter } = this.#state;
    const isPlain = Object.keys(ALL).every((key) => filter[key] === ALL[key]);
    let words = '';
    if (part.error && !part.loaded) words = `The list could not be loaded: ${part.error.detail}`;
    else if (!part.loaded) words = count > 0 ? '' : 'Loading …';
    else if (hasMore(this.#state)) words = filter.participant ? 'Searching …' : 'Loading more …';
    else if (count === 0) words = isPlain ? 'No conversations yet.' : 'No conversation matches.';
    text(byId('list-note'), words);
    attr(document.body, 'data-empty', part.loaded && count === 0 && isPlain);
  }

  #askForMore() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    if (!this.#state || !hasMore(this.#state) || clientHeight === 0) return;
    if (scrollHeight - scrollTop - clientHeight < AHEAD) this.#actions.more();
  }
}

/**
 * The rows, with the open one kept if it was there `before`: reading or closing it takes it out of
 * what the filter lists, but not away from the reader.
 */
function withOpen(state, before) {
  const rows = visible(state);
  const open = state.conversations.get(state.open);
  if (!open || !before.includes(open.id) || rows.includes(open)) return rows;
  if (open.archivedAt !== null && !state.filter.archived) return rows;
  const at = rows.findIndex((each) => comparePlaces(each.cursor, open.cursor) < 0);
  return at === -1 ? [...rows, open] : [...rows.slice(0, at), open, ...rows.slice(at)];
}
