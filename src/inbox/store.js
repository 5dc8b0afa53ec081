// Holds the page's state: one pure reducer for answers and feed events alike, and one store.

import { DOUBTFUL, Draft, takeConversation, takeMessage } from './merge.js';
import { letGo, takeListPage, takeThreadPage } from './pages.js';

export { comparePlaces } from './merge.js';
export * from './select.js';

/** @typedef {import('./types.js').State} State */
/** @typedef {import('./types.js').Input} Input */
/** @typedef {import('./types.js').Filter} Filter */

/** How many threads are kept up to date, beside those that were opened before them. */
const KEPT_THREADS = 8;

/** Resets after which the server's rows may be older than ours; `tab`: this tab has missed some. */
const OTHER_HISTORY = ['epoch', 'tab'];

/** The list that the page begins with: all that is not archived. @type {Filter} */
export const ALL = Object.freeze({
  channel: null, status: null, archived: false, unread: false, participant: '',
});

const NO_PART = Object.freeze({ loaded: false, end: null, stale: false, kept: 0, error: null });

/** Nothing is known yet. @type {State} */
export const EMPTY = Object.freeze({
  tick: 0,
  fence: 0,
  forgotten: 0,
  session: null,
  login: 'unknown',
  filter: ALL,
  conversations: new Map(),
  absent: new Set(),
  list: NO_PART,
  unread: NO_PART,
  open: null,
  threads: new Map(),
  outbox: [],
  drafts: new Set(),
  feed: { state: 'connecting', retryAt: null },
  version: null,
  reload: false,
});

/**
 * The state after an input. Never changes the state it is given; returns that very object when the
 * input says nothing new.
 * @param {State} state
 * @param {Input} input
 * @returns {State}
 */
export function reduce(state, input) {
  const draft = new Draft(state);
  apply(draft, input);
  letGo(draft);
  return draft.done();
}

const INPUTS = {
  batch: (draft, { inputs }) => inputs.forEach((input) => apply(draft, input)),
  events: (draft, { events }) => events.forEach((event) => applyEvent(draft, event)),
  feed: (draft, { state, retryAt = null }) => draft.patch('feed', { state, retryAt }),
  session: (draft, { session, login }) => {
    if (JSON.stringify(session) !== JSON.stringify(draft.state.session)) {
      draft.set('session', session);
    }
    draft.set('login', login);
  },
  logout: forget,
  filter: (draft, { filter }) => {
    const next = { ...draft.state.filter, ...filter };
    draft.patch('filter', next);
    if (draft.state.filter === draft.base.filter) return;
    draft.set('list', { ...draft.state.list, loaded: false, stale: false, error: null });
  },
  'list.page': takeListPage,
  'list.failed': (draft, { list, error }) => draft.patch(list, { error }),
  open,
  'thread.page': takeThreadPage,
  'thread.failed': (draft, { id, error }) => draft.patchThread(id, { error }),
  conversation: (draft, { conversation, since }) => takeConversation(draft, conversation, since),
  message: (draft, { message, since }) => takeMessage(draft, message, since),
  outbox: takeOutbox,
  drafts: (draft, { ids }) => {
    const drafts = new Set(ids);
    const isSame = drafts.size === draft.state.drafts.size &&
      [...drafts].every((id) => draft.state.drafts.has(id));
    if (!isSame) draft.set('drafts', drafts);
  },
};

/** An answer that was asked for before the last reset is void: what it shows is asked for again. */
function apply(draft, input) {
  const isVoid = input.since < draft.state.fence;
  if (!isVoid) INPUTS[input.type]?.(draft, input);
}

function applyEvent(draft, { type, data, fresh }) {
  if (type === 'conversation.updated') takeConversation(draft, data.conversation, null);
  else if (type === 'message.created' || type === 'message.updated') {
    takeMessage(draft, data.message, null);
  } else if (type === 'reset') distrust(draft, OTHER_HISTORY.includes(data.reason));
  else if (type === 'hello') {
    if (fresh) distrust(draft, true);
    if (draft.state.version === null) draft.set('version', data.version);
    draft.set('reload', data.version !== draft.state.version);
  }
}

/**
 * What is shown may have holes: it stays, and is fetched again. After a reset that may come from
 * another history (a restored dump) revisions say nothing any more.
 */
function distrust(draft, isOtherHistory) {
  draft.set('fence', draft.tick);
  for (const name of ['list', 'unread']) {
    if (draft.state[name].loaded) draft.patch(name, { stale: true });
  }
  for (const [id, thread] of [...draft.state.threads]) {
    if (thread.loaded) draft.patchThread(id, { stale: true });
    if (isOtherHistory) draft.patchThread(id, { messages: doubt(thread.messages), below: 0 });
  }
  if (isOtherHistory) draft.set('conversations', doubt(draft.state.conversations));
}

const doubt = (rows) =>
  new Map([...rows].map(([id, row]) => [id, { ...row, revision: DOUBTFUL }]));

/** After logging out nothing of what was shown is left. */
function forget(draft) {
  const { tick, version } = draft.state;
  const left = { ...EMPTY, tick, version, fence: draft.tick, forgotten: draft.tick };
  draft.state = { ...left, login: 'needed' };
  draft.owned.clear();
  draft.changed = true;
}

function open(draft, { id }) {
  draft.set('open', id);
  if (id === null) return;
  const { threads } = draft.state;
  const known = threads.get(id);
  const isLast = known && [...threads.keys()].pop() === id;
  if (isLast && known.error === null) return;
  const thread = known ? { ...known, error: null } : {
    id, messages: new Map(), loaded: false, end: null, stale: false, opened: draft.base.tick,
    below: 0, counted: 0, kept: 0, error: null,
  };
  const copy = draft.own('threads');
  copy.delete(id);
  copy.set(id, thread);
  for (const old of [...copy.keys()].slice(0, -KEPT_THREADS)) copy.delete(old);
}

/** A stored item's text is no longer in the browser's storage: what the page knew goes on. */
function takeOutbox(draft, { items }) {
  const known = new Map(draft.state.outbox.map((item) => [item.clientMessageId, item]));
  const outbox = items.map((item) => {
    const old = known.get(item.clientMessageId);
    const next = item.state === 'stored' && old ? { ...item, text: old.text } : item;
    return old && JSON.stringify(old) === JSON.stringify(next) ? old : next;
  });
  const isSame = outbox.length === draft.state.outbox.length &&
    outbox.every((item, index) => item === draft.state.outbox[index]);
  if (!isSame) draft.set('outbox', outbox);
}

/**
 * A store: the present state, and who wants to hear of the next. A listener is given each state
 * that is the present one when its turn comes, and the one that it was given before; it may
 * dispatch. One that throws keeps nobody else from hearing.
 * @param {(state: State, input: Input) => State} [reducer]
 * @param {State} [state]
 */
export function createStore(reducer = reduce, state = EMPTY) {
  /** What each listener was given last. @type {Map<Function, State>} */
  const heard = new Map();

  function tell(listener) {
    const before = heard.get(listener);
    if (before === undefined || before === state) return;
    heard.set(listener, state);
    try {
      listener(state, before);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  return {
    /** The present state. @returns {State} */
    get: () => state,
    /** Gives the reducer an input, and tells the listeners when that changed something.
     * @param {Input} input */
    dispatch(input) {
      const before = state;
      state = reducer(before, input);
      if (state !== before) [...heard.keys()].forEach(tell);
    },
    /** Calls `listener(state, before)` after each change.
     * @param {(state: State, before: State) => void} listener
     * @returns {() => void} Ends it. */
    subscribe(listener) {
      heard.set(listener, state);
      return () => heard.delete(listener);
    },
  };
}
