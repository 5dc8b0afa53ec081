// The list of conversations: rows move, the selected one and the scroll place stay.

import { attr, arrange, byId, el, keepPlace, show, text, toggleClass } from './dom.js';
import * as row from './row.js';
import { ALL, comparePlaces, hasMore, previewIsOurs, unreadTotal, visible } from './store.js';

/** How close to its end the list asks for more, in pixels. */
const AHEAD = 600;

/** What the state menu's choices mean. */
const STATES = {
  all: { status: null, archived: false },
  open: { status: 'open', archived: false },
  closed: { status: 'closed', archived: false },
  archived: { status: null, archived: true },
};

/**
 * The list. `actions` has `more()`, `reload()`, `filter(changes)`; `draftOf(id)` gives a draft's
 * text, `now()` the time in milliseconds. The answer has `draw(state)`, `move(step)`, `focus(id)`.
 */
export function create({ actions, draftOf, now }) {
  const rows = new Map();
  const scroller = byId('list-scroll');
  const list = byId('rows');
  const note = byId('list-note');
  let filter = null;
  let shown = [];
  let latest = null;

  scroller.addEventListener('scroll', askForMore, { passive: true });
  connectFilters(actions);

  function draw(state) {
    const known = withOpen(state, visible(state), state.filter === filter ? shown : []);
    if (state.filter !== filter) scroller.scrollTop = 0;
    filter = state.filter;
    latest = state;
    shown = known.map((each) => each.id);
    const moved = new Set();
    const nodes = known.map((each) => {
      const place = rows.get(each.id)?.cursor;
      if (place !== each.cursor) moved.add(each.id);
      return drawRow(state, each);
    });
    const change = () => arrange(list, nodes);
    if (scroller.scrollTop < 2) change();
    else keepPlace(scroller, list, change, (node) => !moved.has(node.dataset.conversationId));
    for (const id of rows.keys()) {
      if (!known.some((each) => each.id === id)) rows.delete(id);
    }
    drawNote(state, nodes.length);
    drawTools(state);
    askForMore();
  }

  function drawRow(state, conversation) {
    let each = rows.get(conversation.id);
    if (!each) {
      each = row.make(conversation.id);
      rows.set(conversation.id, each);
    }
    const current = state.open === conversation.id;
    const draft = state.drafts.has(conversation.id) && !current ? draftOf(conversation.id) : '';
    const ours = previewIsOurs(state, conversation) === true;
    row.update(each, conversation, { current, draft, now: now(), ours });
    return each.node;
  }

  function drawNote(state, count) {
    const { list: part } = state;
    const isPlain = isSame(state.filter, ALL);
    let words = '';
    if (part.error && !part.loaded) words = `The list could not be loaded: ${part.error.detail}`;
    else if (!part.loaded) words = count > 0 ? '' : 'Loading …';
    else if (hasMore(state)) words = 'Loading more …';
    else if (count === 0) words = isPlain ? 'No conversations yet.' : 'No conversation matches.';
    text(note, words);
    attr(document.body, 'data-empty', part.loaded && count === 0 && isPlain);
  }

  function askForMore() {
    if (!latest || !hasMore(latest) || scroller.clientHeight === 0) return;
    const left = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
    if (left < AHEAD) actions.more();
  }

  /** Moves the focus to the next (1) or previous (-1) row; false when there is none. */
  function move(step) {
    const here = document.activeElement?.closest('.row')?.dataset.conversationId ?? latest?.open;
    const index = shown.indexOf(here);
    const target = index === -1 ? shown[0] : shown[index + step];
    return focus(target);
  }

  function focus(id) {
    const found = rows.get(id);
    if (!found || scroller.clientHeight === 0) return false;
    found.parts.link.focus({ preventScroll: true });
    found.node.scrollIntoView({ block: 'nearest' });
    return true;
  }

  return { draw, move, focus };
}

/** The rows with the open one kept where it was, so that reading does not take it away. */
function withOpen(state, rows, before) {
  const open = state.conversations.get(state.open);
  if (!open || !before.includes(open.id) || rows.includes(open)) return rows;
  if (open.archivedAt !== null && !state.filter.archived) return rows;
  const at = rows.findIndex((each) => comparePlaces(each.cursor, open.cursor) < 0);
  return at === -1 ? [...rows, open] : [...rows.slice(0, at), open, ...rows.slice(at)];
}

function isSame(filter, other) {
  return Object.keys(other).every((key) => filter[key] === other[key]);
}

function drawTools(state) {
  const { filter } = state;
  const stateName = Object.keys(STATES).find((name) =>
    STATES[name].status === filter.status && STATES[name].archived === filter.archived);
  choose(byId('filter-state'), stateName ?? 'all', 'all');
  choose(byId('filter-channel'), filter.channel ?? '', '');
  attr(byId('filter-unread'), 'aria-pressed', String(filter.unread));
  const { count, more } = unreadTotal(state);
  text(byId('unread-total'), count > 0 ? `${count}${more ? '+' : ''} unread` : '');
}

function choose(select, value, usual) {
  if (select.value !== value) select.value = value;
  toggleClass(select, 'set', value !== usual);
}

function connectFilters(actions) {
  const search = byId('search');
  let timer = 0;
  const ask = () => {
    clearTimeout(timer);
    actions.filter({ participant: search.value });
  };
  search.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(ask, 200);
  });
  search.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.isComposing) ask();
  });
  byId('filter-state').addEventListener('change', (event) => actions.filter(STATES[event.target.value]));
  byId('filter-channel').addEventListener('change', (event) =>
    actions.filter({ channel: event.target.value || null }));
  byId('filter-unread').addEventListener('click', (event) =>
    actions.filter({ unread: event.currentTarget.getAttribute('aria-pressed') !== 'true' }));
}
