// Merges copies of rows into the state: newer by revision, whatever the order they arrive in.

/** @typedef {import('./types.js').State} State */
/** @typedef {import('./types.js').Conversation} Conversation */
/** @typedef {import('./types.js').Filter} Filter */
/** @typedef {import('./types.js').Thread} Thread */

/** The revision of a copy that may be of another history: whatever comes is newer. */
export const DOUBTFUL = -1;

/**
 * Which of two places comes later in its list: negative when `a` is the older. Places are the
 * API's `cursor`s.
 * @param {string} a
 * @param {string} b
 * @returns {number}
 */
export function comparePlaces(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}

/**
 * Whether a place is in the part of a list from below `from` (null: the top) down to `end` (null:
 * the list's end).
 * @param {string} place
 * @param {string|null} from
 * @param {string|null} end
 */
export function isWithin(place, from, end) {
  return (from === null || comparePlaces(place, from) < 0) &&
    (end === null || comparePlaces(place, end) >= 0);
}

/**
 * Whether the list under this filter has this conversation.
 * @param {Filter} filter
 * @param {Conversation} row
 */
export function matches(filter, row) {
  return (filter.channel === null || row.channel === filter.channel) &&
    (filter.status === null || row.status === filter.status) &&
    (row.archivedAt !== null) === filter.archived &&
    (!filter.unread || row.unreadCount > 0) &&
    row.participantId.startsWith(filter.participant);
}

/** What every unread conversation matches. */
export const UNREAD = Object.freeze({
  channel: null, status: null, archived: false, unread: true, participant: '',
});

/** The filter that the part `name` of the state is a list under. */
export const filterOf = (state, name) => name === 'unread' ? UNREAD : state.filter;

/**
 * A state under change: copies what it changes, once, and leaves the base alone.
 */
export class Draft {
  /** @param {State} base */
  constructor(base) {
    this.base = base;
    /** @type {any} */
    this.state = { ...base };
    this.tick = base.tick + 1;
    this.changed = false;
    this.owned = new Set();
  }

  /** Sets a field, and notes whether that is a change. */
  set(field, value) {
    if (this.state[field] === value) return;
    this.state[field] = value;
    this.changed = true;
  }

  /** Changes some fields of an object that is a field of the state. */
  patch(field, values) {
    const old = this.state[field];
    if (Object.keys(values).every((key) => old[key] === values[key])) return;
    this.set(field, { ...old, ...values });
  }

  /** Adds an id to a set, or takes it out. */
  mark(field, id, present) {
    if (this.state[field].has(id) === present) return;
    const copy = this.own(field, Set);
    if (present) copy.add(id);
    else copy.delete(id);
  }

  /** The map (or set) in this field, as a copy that may be changed. */
  own(field, Kind = Map) {
    if (!this.owned.has(field)) {
      this.owned.add(field);
      this.state[field] = new Kind(this.state[field]);
    }
    this.changed = true;
    return this.state[field];
  }

  /** Changes some fields of a thread. */
  patchThread(id, values) {
    const old = this.state.threads.get(id);
    if (!old || Object.keys(values).every((key) => old[key] === values[key])) return;
    this.own('threads').set(id, { ...old, ...values });
  }

  /** The messages of a thread, as a copy that may be changed. */
  ownMessages(id) {
    const owned = `messages ${id}`;
    if (!this.owned.has(owned)) {
      this.owned.add(owned);
      const thread = this.state.threads.get(id);
      this.own('threads').set(id, { ...thread, messages: new Map(thread.messages) });
    }
    this.changed = true;
    return this.state.threads.get(id).messages;
  }

  /** The new state, or the base when nothing has changed. */
  done() {
    return this.changed ? { ...this.state, tick: this.tick } : this.base;
  }
}

/**
 * Takes a copy of a conversation. `since` is null for a feed event, else the tick at which the
 * answer that carries it was asked for. False when it can't be judged, because an older copy of it
 * may have been let go since.
 * @param {Draft} draft
 * @param {object} row
 * @param {number|null} since
 */
export function takeConversation(draft, row, since) {
  const known = draft.state.conversations.get(row.id);
  if (!known && since !== null && since < draft.state.forgotten) return false;
  const taken = choose(draft, known, row, since);
  if (taken) draft.own('conversations').set(row.id, taken);
  const isNews = taken || since === null || (known && since >= known.heard);
  if (isNews && row.revision >= (known?.revision ?? 0)) draft.mark('absent', row.id, false);
  return true;
}

/**
 * Takes a copy of a message, if its thread is one that is kept.
 * @param {Draft} draft
 * @param {object} row
 * @param {number|null} since As for a conversation.
 */
export function takeMessage(draft, row, since) {
  const thread = draft.state.threads.get(row.conversationId);
  if (!thread) return;
  const taken = choose(draft, thread.messages.get(row.id), row, since);
  if (taken) draft.ownMessages(thread.id).set(row.id, taken);
}

/**
 * The copy to put in the place of `known`, or null. Of equal revisions the present one stays, but
 * an answer that was asked for later and says otherwise wins: the row was changed by hand, or by
 * a binary that knows no revisions.
 */
function choose(draft, known, row, since) {
  const isNewer = !known || row.revision > known.revision;
  const isLater = known && row.revision === known.revision && since !== null &&
    since >= known.heard && !isSame(known, row);
  return isNewer || isLater ? { ...row, heard: draft.tick } : null;
}

function isSame(known, row) {
  const { heard: _, ...content } = known;
  return JSON.stringify(content) === JSON.stringify(row);
}
