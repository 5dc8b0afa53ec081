// What a thread's items look like in a row: days, the line of the unread, groups of one sender.

import * as bubbles from './bubble.js';
import { el, text } from './dom.js';
import { dayKey, dayTitle } from './format.js';
import { markOf } from './ticks.js';

/** Messages of one sender that are closer than this make a group, in milliseconds. */
const GROUP_MS = 5 * 60_000;

/** The elements of one thread; an item keeps its element for as long as it is shown. */
export class Timeline {
  #actions;
  #bubbles = new Map();
  #days = new Map();
  #new = new Set();

  /** The line above the first unread message. */
  line = el('li', { class: 'unread-line', text: 'New messages' });

  /** @param actions What a bubble's buttons do. */
  constructor(actions) {
    this.#actions = actions;
  }

  /**
   * The elements for `items`, oldest first. `divider` is the id of the first unread message;
   * `mayAct` says whether messages may be retried and canceled, `hasStatuses` whether a channel
   * tells what became of them, `find` gives one that is answered.
   */
  nodes(items, { divider, now, mayAct, hasStatuses, find }) {
    const nodes = [];
    const kept = new Map();
    items.forEach((item, index) => {
      const before = items[index - 1];
      const isNewDay = !before || dayOf(before) !== dayOf(item);
      const isDivided = item.message !== null && item.message.id === divider;
      if (isNewDay) nodes.push(this.#day(item, now));
      if (isDivided) nodes.push(this.line);
      const first = isNewDay || isDivided || !isGroup(before, item);
      const last = !isGroup(item, items[index + 1]) || aboutOf(item) !== aboutOf(items[index + 1]);
      const bubble = this.#bubbles.get(item.key) ?? bubbles.make(this.#actions);
      const place = { first, last, now, mayAct, hasStatuses, find };
      const isNew = bubbles.update(bubble, item, place);
      if (isNew) this.#new.add(bubble);
      kept.set(item.key, bubble);
      nodes.push(bubble.node);
    });
    this.#bubbles = kept;
    return nodes;
  }

  #day(item, now) {
    const key = dayOf(item);
    if (!this.#days.has(key)) this.#days.set(key, el('li', { class: 'day' }, el('span')));
    const node = this.#days.get(key);
    text(node.firstElementChild, dayTitle(timeOf(item), now));
    return node;
  }

  /** The last line of an item: who sees it has the whole before him. */
  end(key) {
    return this.#bubbles.get(key)?.parts.meta ?? null;
  }

  /** Looks which new texts are folded after their twelfth line, once they have a layout. */
  foldNew() {
    offer([...this.#new]);
    this.#new.clear();
  }

  /** Looks at all again: the width has changed. */
  foldAll() {
    offer([...this.#bubbles.values()]);
  }
}

/** Reads of all, then writes: a read after each write would make the layout anew each time. */
function offer(some) {
  const areCut = some.map(bubbles.isCut);
  some.forEach((bubble, index) => bubbles.offer(bubble, areCut[index]));
}

const timeOf = ({ message, unsent }) => message?.timestamp ?? unsent.createdAt;
const dayOf = (item) => dayKey(timeOf(item));

function isGroup(a, b) {
  if (!a || !b || dayOf(a) !== dayOf(b)) return false;
  const isSameSide = isTheirs(a) === isTheirs(b);
  return isSameSide && Math.abs(Date.parse(timeOf(b)) - Date.parse(timeOf(a))) < GROUP_MS;
}

/** What is said in the last line of an item, but for the time: a group has it once. */
const aboutOf = (item) =>
  [markOf(item), item.message?.origin ?? 'api', Boolean(item.message?.editedAt)].join(' ');

/** Whether the customer wrote it. */
export const isTheirs = ({ message }) => message?.direction === 'INBOUND';
