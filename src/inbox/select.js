// Says what to show of the state: the list, a thread's items, counts. Pure, and remembers results.

import { comparePlaces, isWithin } from './merge.js';
import { inboundShown, shownRows } from './pages.js';

/** @typedef {import('./types.js').State} State */
/** @typedef {import('./types.js').Conversation} Conversation */
/** @typedef {import('./types.js').Item} Item */

/** Remembers the last result of `make` for as long as `inputs` gives the same things. */
function remember(inputs, make) {
  let last = null;
  let result;
  return (...given) => {
    const now = inputs(...given);
    if (!last || now.some((value, index) => value !== last[index])) result = make(...given);
    last = now;
    return result;
  };
}

const newestFirst = (a, b) => comparePlaces(b.cursor, a.cursor);

/**
 * The rows of the list, newest first. While `state.list.loaded` is false they are those known of
 * the new filter, perhaps not all. The same array as long as nothing in it has changed.
 * @type {(state: State) => Conversation[]}
 */
export const visible = remember(
  (state) => [state.conversations, state.absent, state.filter, state.list.end],
  (state) => shownRows(state, 'list').sort(newestFirst),
);

/** Whether the list goes on below what is loaded. @param {State} state */
export const hasMore = (state) => state.list.loaded && state.list.end !== null;

/** Whether a thread has older messages than those loaded. @param {State} state */
export const hasOlder = (state, id) => {
  const thread = state.threads.get(id);
  return Boolean(thread?.loaded && thread.end !== null);
};

/**
 * How many conversations are unread (not those archived); `more`: at least so many.
 * @type {(state: State) => {count: number, more: boolean}}
 */
export const unreadTotal = remember(
  (state) => [state.conversations, state.absent, state.unread.end, state.unread.loaded],
  (state) => ({ count: shownRows(state, 'unread').length, more: state.unread.end !== null }),
);

/**
 * What a thread shows, oldest first: its messages, then what is not stored yet, in typed order.
 * One item for a message, however answer, event and reload interleave.
 * @type {(state: State, id: string) => Item[]}
 */
export const items = remember(
  (state, id) => [state.threads.get(id), state.outbox, id],
  (state, id) => {
    const thread = state.threads.get(id);
    const stored = new Set();
    const shown = [];
    for (const message of thread?.messages.values() ?? []) {
      const { clientMessageId: given } = message;
      if (given !== null && message.direction === 'OUTBOUND') stored.add(given);
      if (thread.loaded && isWithin(message.cursor, null, thread.end)) shown.push(message);
    }
    const messages = eachOnce(shown.sort((a, b) => -newestFirst(a, b)).map(itemOf));
    const unsent = state.outbox
      .filter((each) => each.conversationId === id && !stored.has(each.clientMessageId))
      .filter((each) => each.state !== 'stored' || each.text)
      .map((each) => ({ key: `client ${each.clientMessageId}`, message: null, unsent: each }));
    return [...messages, ...unsent];
  },
);

/** Without those of another history that were sent again in this one. */
function eachOnce(all) {
  const newest = new Map();
  for (const item of all) {
    const known = newest.get(item.key);
    if (!known || known.message.revision < item.message.revision) newest.set(item.key, item);
  }
  return newest.size === all.length ? all : all.filter((item) => newest.get(item.key) === item);
}

function itemOf(message) {
  const isOurs = message.direction === 'OUTBOUND' && message.clientMessageId;
  const key = isOurs ? `client ${message.clientMessageId}` : message.id;
  return { key, message, unsent: null };
}

/**
 * How many inbound messages the reader of this thread has before him, or has had: what `read` may
 * be told once the newest was seen. Null while that is not known.
 * @param {State} state
 * @param {string} id
 * @returns {number|null}
 */
export function seenCount(state, id) {
  const thread = state.threads.get(id);
  if (!thread?.loaded || thread.stale) return null;
  return thread.below + inboundShown(thread);
}

/**
 * The message at which the unread ones begin, when the newest `unread` inbound ones are; null when
 * there is none, or it is not loaded.
 * @param {State} state
 * @param {string} id
 * @param {number} [unread]
 * @returns {string|null}
 */
export function firstUnread(state, id, unread = state.conversations.get(id)?.unreadCount ?? 0) {
  const inbound = items(state, id).filter(({ message }) => message?.direction === 'INBOUND');
  return unread > 0 ? inbound[inbound.length - unread]?.message.id ?? null : null;
}

/** Whether the newest message of a conversation, its preview, is ours.
 * @param {Conversation} conversation */
export const previewIsOurs = (conversation) => conversation.lastMessageDirection === 'OUTBOUND';

/** What the session may do. @param {State} state @param {string} scope */
export function may(state, scope) {
  const scopes = state.session?.scopes ?? [];
  return scopes.includes(scope);
}
