// Takes fetched pages: keeps lists free of holes, heals what the feed could not tell, lets go.

import {
  comparePlaces, DOUBTFUL, filterOf, isWithin, matches, takeConversation, takeMessage,
} from './merge.js';

/** @typedef {import('./merge.js').Draft} Draft */
/** @typedef {import('./types.js').State} State */

/** How many rows beyond what was fetched may gather before some are let go. */
const SPARE_ROWS = 1500;
const SPARE_SHOWN = 500;

const sameFilter = (a, b) =>
  ['channel', 'status', 'archived', 'unread', 'participant'].every((key) => a[key] === b[key]);

/**
 * A page of a list.
 * @param {Draft} draft
 * @param {object} page The input `list.page`.
 */
export function takeListPage(draft, page) {
  const areJudged = page.rows.map((row) => takeConversation(draft, row, page.since));
  const filter = filterOf(draft.state, page.list);
  const part = draft.state[page.list];
  if (!sameFilter(filter, page.filter) || !joins(part, page.from)) return;
  if (areJudged.includes(false)) {
    // A row could not be judged: whatever refetch this page belongs to has a hole.
    draft.set('fence', draft.tick);
    draft.patch(page.list, { stale: true, error: null });
    return;
  }
  heal(draft, filter, page);
  const joined = join(draft, part, page);
  draft.patch(page.list, joined);
  const kept = shownRows(draft.state, page.list).length;
  draft.patch(page.list, { kept });
}

/** Whether a page that begins at `from` overlaps the part or begins right behind it. */
function joins(part, from) {
  if (from === null) return true;
  return part.loaded && (part.end === null || comparePlaces(from, part.end) >= 0);
}

/** Whether the part ends where the page does. */
function reachesEnd(part, page) {
  return !part.loaded || page.cut || page.next === null ||
    (part.end !== null && comparePlaces(page.next, part.end) <= 0);
}

/** The part with the page. */
function join(draft, part, page) {
  const reaches = reachesEnd(part, page);
  const isFresh = !part.loaded || (reaches && page.chain >= draft.state.fence);
  const stale = part.stale && !isFresh;
  return { loaded: true, error: null, stale, end: reaches ? page.next : part.end };
}

/** Hides what should be on this page and is not: changed by hand, or erased. */
function heal(draft, filter, page) {
  const told = new Set(page.rows.map((row) => row.id));
  for (const row of [...draft.state.conversations.values()]) {
    const isMissing = matches(filter, row) && isWithin(row.cursor, page.from, page.next) &&
      row.heard <= page.since && !told.has(row.id) && !draft.state.absent.has(row.id);
    if (!isMissing) continue;
    draft.own('conversations').set(row.id, { ...row, heard: draft.tick });
    draft.mark('absent', row.id, true);
  }
}

/**
 * The rows of a list's part, unsorted.
 * @param {State} state
 * @param {'list'|'unread'} name
 */
export function shownRows(state, name) {
  const filter = filterOf(state, name);
  const { end } = state[name];
  return [...state.conversations.values()].filter((row) =>
    matches(filter, row) && isWithin(row.cursor, null, end) && !state.absent.has(row.id));
}

/**
 * Lets rows go that are in no list and no thread, once they are many, and the lower ends of lists
 * that have grown by events alone.
 * @param {Draft} draft
 */
export function letGo(draft) {
  for (const thread of [...draft.state.threads.values()]) shorten(draft, thread);
  const { state } = draft;
  const most = SPARE_ROWS + state.list.kept + state.unread.kept;
  if (state.conversations.size <= most) return;
  const keep = new Set(state.threads.keys());
  for (const name of /** @type {const} */ (['list', 'unread'])) {
    const rows = shownRows(state, name).sort((a, b) => comparePlaces(b.cursor, a.cursor));
    const { kept } = state[name];
    if (rows.length > kept + SPARE_SHOWN) {
      rows.length = Math.max(kept, SPARE_SHOWN);
      draft.patch(name, { end: rows[rows.length - 1].cursor });
    }
    for (const row of rows) keep.add(row.id);
  }
  const rows = [...state.conversations].filter(([id]) => keep.has(id));
  draft.set('conversations', new Map(rows));
  draft.set('absent', new Set([...state.absent].filter((id) => keep.has(id))));
  draft.set('forgotten', draft.tick);
}

/** Lets the oldest messages go of a thread that has grown by events alone. */
function shorten(draft, thread) {
  if (!thread.loaded || thread.messages.size <= thread.kept + SPARE_SHOWN) return;
  const newest = [...thread.messages.values()].sort((a, b) => comparePlaces(b.cursor, a.cursor))
    .slice(0, Math.max(thread.kept, SPARE_SHOWN / 2));
  const { cursor: end } = newest[newest.length - 1];
  const below = thread.below + inboundShown(thread) - inboundShown({ ...thread, end });
  const messages = new Map(newest.map((message) => [message.id, message]));
  draft.patchThread(thread.id, { messages, end, below });
}

/**
 * A page of a thread, with its conversation.
 * @param {Draft} draft
 * @param {object} page The input `thread.page`.
 */
export function takeThreadPage(draft, page) {
  const isJudged = takeConversation(draft, page.conversation, page.since);
  const { id } = page.conversation;
  const before = draft.state.threads.get(id);
  if (!before || page.since < before.opened) return;
  const newest = newestPlace(before);
  for (const message of page.messages) takeMessage(draft, message, page.since);
  dropDoubtful(draft, id, page);
  if (!joins(before, page.from)) return;
  const joined = join(draft, before, page);
  // More new ones than a page holds: between this page and what was known may be others.
  const isAbove = before.loaded && page.from === null && page.next !== null &&
    newest !== null && comparePlaces(page.next, newest) > 0 && !page.cut;
  if (isAbove || !isJudged) joined.stale = true;
  draft.patchThread(id, joined);
  countBelow(draft, id, page, before);
  draft.patchThread(id, { kept: draft.state.threads.get(id).messages.size });
}

/** Takes out what another history had, and this page of the thread has not. */
function dropDoubtful(draft, id, page) {
  for (const { id: message, revision, cursor } of draft.state.threads.get(id).messages.values()) {
    const isDoubtful = revision === DOUBTFUL && isWithin(cursor, page.from, page.next);
    if (isDoubtful) draft.ownMessages(id).delete(message);
  }
}

function newestPlace(thread) {
  let newest = null;
  for (const { cursor } of thread.messages.values()) {
    const isInPart = thread.loaded && isWithin(cursor, null, thread.end);
    if (isInPart && (newest === null || comparePlaces(cursor, newest) > 0)) newest = cursor;
  }
  return newest;
}

/**
 * How many inbound messages in a thread's part the reader has before him.
 * @param {import('./types.js').Thread} thread
 */
export function inboundShown(thread) {
  let count = 0;
  for (const message of thread.messages.values()) {
    const isShown = message.direction === 'INBOUND' && isWithin(message.cursor, null, thread.end);
    if (isShown) count += 1;
  }
  return count;
}

/**
 * Keeps a lower bound of the inbound messages below the part. The server reads the conversation's
 * count before the messages, so what the count has and pages of the whole part have not is older.
 * Events do not serve: their conversation may be ahead of their messages, and what was not seen
 * would be read. Nor does a page of a longer part: what it does not cover may have news.
 */
function countBelow(draft, id, page, before) {
  const thread = draft.state.threads.get(id);
  const moved = before.loaded ? inboundShown(thread) - inboundShown({ ...thread, end: before.end })
    : 0;
  const count = page.from === null ? page.conversation.inboundCount : page.count;
  const isWhole = count !== undefined && !thread.stale && reachesEnd(before, page);
  const counted = isWhole ? count - inboundShown(thread) : 0;
  // A page of an older state than the count's may lack what the count has.
  const isOld = before.loaded && thread.end !== before.end && page.since < thread.counted;
  const left = isOld ? 0 : thread.below - moved;
  const below = Math.max(0, left, counted);
  draft.patchThread(id, { below, counted: counted > left ? draft.tick : thread.counted });
}
