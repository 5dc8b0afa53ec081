// One message of the thread, changed in place: what it holds, its tick, what went wrong with it.

import { contentsOf, summary } from './contents.js';
import { attr, el, icon, setIcon, show, text, toggleClass } from './dom.js';
import * as files from './files.js';
import { absoluteTime, clockTime } from './format.js';
import { linkify } from './links.js';
import * as marks from './marks.js';
import { tickOf } from './ticks.js';
import { trouble } from './trouble.js';

/** More than this many characters or lines may be more than the twelve that a folded text shows. */
const MAY_FOLD = { length: 400, lines: 12 };

/** An empty bubble. `actions` has `retry(item, ask)`, `cancel(item)` and `goTo(id)`. */
export function make(actions) {
  const parts = {
    who: el('span', { class: 'hidden' }),
    label: el('p', { class: 'label', hidden: true }),
    file: el('div', { class: 'holds', hidden: true }),
    body: el('div', { class: 'body', dir: 'auto' }),
    fold: el('button', { class: 'fold', type: 'button', hidden: true, text: 'Show all' }),
    facts: el('ul', { class: 'facts', hidden: true }),
    origin: el('span', { class: 'about', hidden: true }),
    edited: el('span', { class: 'about', text: 'Edited', hidden: true }),
    time: el('time'),
    tick: icon('pending'),
    tickWord: el('span', { class: 'hidden' }),
    why: el('span'),
    detail: el('bdi'),
    rest: el('span'),
    retry: el('button', { class: 'button', type: 'button' }),
    cancel: el('button', { class: 'button', type: 'button' }),
    reply: marks.makeReply((id) => actions.goTo(id)),
    reactions: marks.makeReactions(),
  };
  parts.mark = el('span', { class: 'tick' }, parts.tick, parts.tickWord);
  parts.meta = el('div', { class: 'meta' }, parts.origin, parts.edited, parts.time, parts.mark);
  parts.quote = el('span', {}, ' (“', parts.detail, '”)');
  parts.trouble = el('div', { class: 'trouble', hidden: true },
    el('p', {}, parts.why, parts.quote, parts.rest),
    el('span', { class: 'trouble-buttons' }, parts.retry, parts.cancel));
  parts.bubble = el('div', { class: 'bubble' }, parts.who, parts.reply.node, parts.label,
    parts.file, parts.body, parts.fold, parts.facts, parts.meta);
  const node = el('li', { class: 'message' }, parts.bubble, parts.reactions.node, parts.trouble);
  const bubble = {
    node, parts, item: null, written: '', held: '', isLong: false, isOpen: false, asks: false,
  };
  parts.retry.addEventListener('click', () => actions.retry(bubble.item, bubble.asks));
  parts.cancel.addEventListener('click', () => actions.cancel(bubble.item));
  parts.fold.addEventListener('click', () => unfold(bubble));
  return bubble;
}

/**
 * Shows an item of the store with its place in its group; `mayAct` says whether the session may
 * retry and cancel, `hasStatuses(channel)` whether the other side tells what became of a message,
 * `find(reply)` gives a message of the thread that is answered. True when the text is new, so that
 * some of it may be hidden.
 */
export function update(bubble, item, { first, last, now, mayAct, hasStatuses, find }) {
  const { parts, node } = bubble;
  const { message, unsent } = item;
  const status = message?.status ?? (unsent.state === 'refused' ? 'FAILED' : 'PENDING');
  const isMine = message?.direction !== 'INBOUND';
  bubble.item = item;
  attr(node, 'data-message-id', message?.id ?? unsent.clientMessageId);
  attr(node, 'data-status', status);
  attr(node, 'data-delivery', message?.deliveryStatus);
  attr(node, 'data-type', message?.type);
  toggleClass(node, 'mine', isMine);
  toggleClass(node, 'first', first);
  toggleClass(node, 'last', last);
  text(parts.who, isMine ? 'You: ' : 'Customer: ');
  const at = message?.timestamp ?? unsent.createdAt;
  text(parts.time, clockTime(at));
  attr(parts.time, 'datetime', at);
  attr(parts.time, 'title', absoluteTime(at));
  tick(parts, node, tickOf(item, clockTime));
  marks.showOrigin(parts.origin, message);
  marks.showEdited(parts.edited, message);
  marks.showReply(parts.reply, message, find);
  marks.showReactions(parts.reactions, message);
  const told = trouble(item, now, clockTime, hasStatuses(message?.channel));
  explain(bubble, told, mayAct);
  return write(bubble, message ?? { type: 'text', text: unsent.text });
}

/** Writes what a message holds, if that is new: a tick that changes leaves a picture alone. */
function write(bubble, message) {
  const { parts } = bubble;
  const contents = contentsOf(message);
  const written = JSON.stringify(contents);
  if (bubble.written === written) return false;
  bubble.written = written;
  const { label, body, facts, file, isGone } = contents;
  toggleClass(bubble.node, 'gone', isGone);
  toggleClass(parts.bubble, 'rich', label !== '');
  text(parts.label, label);
  show(parts.label, label !== '');
  hold(bubble, file, summary(message));
  bubble.isLong = mayFold(body);
  show(parts.body, body !== '' || isGone);
  toggleClass(parts.body, 'folded', bubble.isLong && !bubble.isOpen);
  parts.body.replaceChildren(...(isGone ? ['This message was deleted.'] : linkify(body)));
  show(parts.facts, facts.length > 0);
  parts.facts.replaceChildren(...facts.map((fact) => el('li', { dir: 'auto' }, ...linkify(fact))));
  return true;
}

function hold(bubble, file, words) {
  const held = JSON.stringify(file);
  if (bubble.held === held) return;
  bubble.held = held;
  show(bubble.parts.file, file !== null);
  bubble.parts.file.replaceChildren(...(file === null ? [] : [files.make(file, words)]));
}

function tick(parts, node, known) {
  show(parts.mark, known !== null);
  attr(node, 'data-mark', known?.mark);
  attr(parts.mark, 'title', known?.words);
  text(parts.tickWord, known?.words ?? '');
  if (known) setIcon(parts.tick, known.icon);
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
