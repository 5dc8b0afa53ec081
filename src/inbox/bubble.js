// One message of the thread, changed in place: its text, its tick, and what went wrong with it.

import { attr, el, icon, setIcon, show, text, toggleClass } from './dom.js';
import { absoluteTime, clockTime } from './format.js';
import { linkify } from './links.js';
import { trouble } from './trouble.js';

const TICKS = {
  PENDING: ['pending', 'Sending'],
  SENT: ['sent', 'Sent'],
  FAILED: ['failed', 'Not sent'],
};

/** More than this many characters or lines may be more than the twelve that a folded text shows. */
const MAY_FOLD = { length: 400, lines: 12 };

/** An empty bubble. `actions` has `retry(item, ask)` and `cancel(item)`. */
export function make(actions) {
  const parts = {
    who: el('span', { class: 'hidden' }),
    body: el('div', { class: 'body', dir: 'auto' }),
    fold: el('button', { class: 'fold', type: 'button', hidden: true, text: 'Show all' }),
    time: el('time'),
    tick: icon('pending'),
    tickWord: el('span', { class: 'hidden' }),
    why: el('span'),
    detail: el('bdi'),
    rest: el('span'),
    retry: el('button', { class: 'button', type: 'button' }),
    cancel: el('button', { class: 'button', type: 'button' }),
  };
  parts.meta = el('div', { class: 'meta' }, parts.time, parts.tick, parts.tickWord);
  parts.quote = el('span', {}, ' (“', parts.detail, '”)');
  parts.trouble = el('div', { class: 'trouble', hidden: true },
    el('p', {}, parts.why, parts.quote, parts.rest),
    el('span', { class: 'trouble-buttons' }, parts.retry, parts.cancel));
  parts.bubble = el('div', { class: 'bubble' }, parts.who, parts.body, parts.fold, parts.meta);
  const node = el('li', { class: 'message' }, parts.bubble, parts.trouble);
  const bubble = {
    node, parts, item: null, written: null, isLong: false, isOpen: false, asks: false,
  };
  parts.retry.addEventListener('click', () => actions.retry(bubble.item, bubble.asks));
  parts.cancel.addEventListener('click', () => actions.cancel(bubble.item));
  parts.fold.addEventListener('click', () => unfold(bubble));
  return bubble;
}

/**
 * Shows an item of the store with its place in its group; `mayAct` says whether the session may
 * retry and cancel. True when the text is new, so that some of it may be hidden.
 */
export function update(bubble, item, { first, last, now, mayAct }) {
  const { parts, node } = bubble;
  const shown = item.message ?? item.unsent;
  const status = item.message?.status ?? (item.unsent.state === 'refused' ? 'FAILED' : 'PENDING');
  const isMine = item.message?.direction !== 'INBOUND';
  bubble.item = item;
  attr(node, 'data-message-id', item.message?.id ?? item.unsent.clientMessageId);
  attr(node, 'data-status', status);
  toggleClass(node, 'mine', isMine);
  toggleClass(node, 'first', first);
  toggleClass(node, 'last', last);
  text(parts.who, isMine ? 'You: ' : 'Customer: ');
  const at = item.message?.timestamp ?? item.unsent.createdAt;
  text(parts.time, clockTime(at));
  attr(parts.time, 'datetime', at);
  attr(parts.time, 'title', absoluteTime(at));
  tick(parts, status);
  explain(bubble, trouble(item, now, clockTime), mayAct);
  if (bubble.written === shown.text) return false;
  bubble.written = shown.text;
  bubble.isLong = mayFold(shown.text);
  toggleClass(parts.body, 'folded', bubble.isLong && !bubble.isOpen);
  parts.body.replaceChildren(...linkify(shown.text));
  return true;
}

function tick(parts, status) {
  const known = TICKS[status];
  attr(parts.tick, 'hidden', !known);
  text(parts.tickWord, known ? known[1] : '');
  if (known) setIcon(parts.tick, known[0]);
}

function explain(bubble, said, mayAct) {
  const { parts } = bubble;
  bubble.asks = said.asks;
  show(parts.trouble, said.text !== '');
  attr(bubble.node, 'data-tone', said.tone || null);
  text(parts.why, said.text);
  show(parts.quote, said.detail !== '');
  text(parts.detail, said.detail);
  text(parts.rest, said.rest);
  for (const name of ['retry', 'cancel']) {
    const isOffered = mayAct && said[name] !== '';
    text(parts[name], said[name]);
    show(parts[name], isOffered);
    // Who looks for one from outside finds those that can be pressed.
    attr(parts[name], 'data-testid', isOffered ? name : null);
  }
}

/** Whether some of the text is hidden; reads the layout, so it is asked after all are written. */
export function isCut({ isLong, isOpen, parts: { body } }) {
  return isLong && !isOpen && body.scrollHeight > body.clientHeight + 1;
}

/** Offers to show all of a text of which some is hidden. */
export function offer(bubble, isHidden) {
  show(bubble.parts.fold, isHidden || (bubble.isLong && bubble.isOpen));
}

function mayFold(value) {
  const { length, lines } = MAY_FOLD;
  return value.length > length || value.split('\n', lines + 1).length > lines;
}

function unfold(bubble) {
  bubble.isOpen = !bubble.isOpen;
  text(bubble.parts.fold, bubble.isOpen ? 'Show less' : 'Show all');
  attr(bubble.parts.fold, 'aria-expanded', String(bubble.isOpen));
  toggleClass(bubble.parts.body, 'folded', !bubble.isOpen);
  if (!bubble.isOpen) bubble.node.scrollIntoView({ block: 'nearest' });
}
