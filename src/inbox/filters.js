// The search and the filters above the list, and the number of unread conversations beside them.

import { attr, byId, text, toggleClass } from './dom.js';
import { ALL, unreadTotal } from './store.js';

/** The search asks so long after the last key, in milliseconds. */
const PAUSE_MS = 200;

/** What the state menu's choices mean. */
const STATES = {
  all: { status: null, archived: false },
  open: { status: 'open', archived: false },
  closed: { status: 'closed', archived: false },
  archived: { status: null, archived: true },
};

/** Calls `filter(changes)` with what the reader chooses. */
export function connect(filter) {
  const search = byId('search');
  let timer = 0;
  const ask = () => {
    clearTimeout(timer);
    filter({ participant: search.value });
  };
  search.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(ask, PAUSE_MS);
  });
  search.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.isComposing) ask();
  });
  byId('filter-state').addEventListener('change', ({ target }) => filter(STATES[target.value]));
  byId('filter-channel').addEventListener('change', ({ target }) =>
    filter({ channel: target.value || null }));
  byId('filter-unread').addEventListener('click', ({ currentTarget }) =>
    filter({ unread: currentTarget.getAttribute('aria-pressed') !== 'true' }));
}

let before = ALL;

/** Shows the filter that holds. */
export function draw(state) {
  const { filter } = state;
  const chosen = Object.keys(STATES).find((name) =>
    STATES[name].status === filter.status && STATES[name].archived === filter.archived);
  choose(byId('filter-state'), chosen ?? 'all', 'all');
  choose(byId('filter-channel'), filter.channel ?? '', '');
  attr(byId('filter-unread'), 'aria-pressed', String(filter.unread));
  // The search box is the reader's own; after a logout all begins anew.
  if (filter === ALL && before !== ALL) byId('search').value = '';
  before = filter;
  const { count, more } = unreadTotal(state);
  text(byId('unread-total'), count > 0 ? `${count}${more ? '+' : ''} unread` : '');
}

function choose(select, value, usual) {
  if (select.value !== value) select.value = value;
  toggleClass(select, 'set', value !== usual);
}
