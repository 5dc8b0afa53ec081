// The messages of the open thread: days, groups, the line of the unread, and a scroll place that holds.

import * as bubbles from './bubble.js';
import { arrange, byId, el, icon, keepPlace, show, text, toggleClass } from './dom.js';
import { dayKey, dayTitle } from './format.js';
import { firstUnread, hasOlder, items, may } from './store.js';

/** Within so many pixels of the end the reader is at the newest. */
const AT_END = 48;
/** How close to the top older messages are asked for. */
const AHEAD = 500;
/** Messages of one sender that are closer than this make a group, in milliseconds. */
const GROUP_MS = 5 * 60_000;
/** So many inbound messages at most are loaded to find the first unread. */
const HUNT_LIMIT = 400;

/**
 * The log. `actions` has `older(id)`, `retry(item, ask)`, `cancel(item)`, `newest(element, id)`;
 * `now()` is the time in milliseconds. `open(state, id)` begins with another thread.
 */
export function create({ actions, now }) {
  const scroller = byId('log');
  const list = byId('messages');
  const note = byId('log-note');
  const button = byId('to-newest');
  const line = el('li', { class: 'unread-line', text: 'New messages' });
  const label = el('span');
  button.append(label, icon('down'));

  let view = fresh(null, 0);
  let latest = null;

  scroller.addEventListener('scroll', scrolled, { passive: true });
  button.addEventListener('click', () => {
    toEnd();
    focus();
  });
  new ResizeObserver(resized).observe(scroller);

  function open(state, id) {
    const unread = state.conversations.get(id)?.unreadCount ?? null;
    view = fresh(id, unread);
    list.replaceChildren();
    actions.newest(null, id);
    draw(state);
  }

  function draw(state) {
    const thread = state.threads.get(view.id);
    const given = [thread, state.outbox, state.session, now()];
    const isSame = view.given?.every((value, index) => value === given[index]);
    latest = state;
    view.given = given;
    if (thread && !(isSame && view.isPlaced)) redraw(state, thread);
  }

  function redraw(state, thread) {
    if (view.unread === null && state.conversations.has(view.id)) {
      view.unread = state.conversations.get(view.id).unreadCount;
    }
    const shown = items(state, view.id);
    if (thread.loaded && !view.isPlaced && hunts(state, thread, shown)) return;
    if (thread.loaded && !view.isPlaced) view.divider = firstUnread(state, view.id, view.unread ?? 0);
    const grew = count(shown);
    const change = () => {
      arrange(list, render(state, shown));
      drawNote(thread, shown.length);
    };
    if (!view.isPlaced || view.isAtEnd) change();
    else keepPlace(scroller, list, change, isMessage);
    if (thread.loaded && !view.isPlaced) place();
    else if (grew.isOurs || view.isAtEnd) toEnd();
    after(shown);
  }

  /** Loads more until the first unread message is there; true while it is on its way. */
  function hunts(state, thread, shown) {
    const inbound = shown.filter(({ message }) => message?.direction === 'INBOUND').length;
    const lacks = (view.unread ?? 0) > inbound && inbound < HUNT_LIMIT;
    if (!lacks || !hasOlder(state, view.id) || thread.error) return false;
    actions.older(view.id);
    return true;
  }

  /** What has come at the end since the last look; ours or the customer's. */
  function count(shown) {
    const before = view.last;
    const from = before === null ? shown.length : shown.findIndex(({ key }) => key === before) + 1;
    const added = shown.slice(from);
    view.last = shown.length > 0 ? shown[shown.length - 1].key : null;
    const theirs = added.filter(({ message }) => message?.direction === 'INBOUND');
    const isOurs = added.some(({ unsent }) => unsent !== null);
    if (view.isPlaced && !view.isAtEnd && !isOurs) view.news += theirs.length;
    if (view.isPlaced && view.news > 0 && view.news === theirs.length) view.divider = theirs[0].message.id;
    if (view.isPlaced && theirs.length > 0) actions.heard(theirs[theirs.length - 1].message);
    return { isOurs };
  }

  function render(state, shown) {
    const nodes = [];
    const mayAct = may(state, 'admin') || may(state, 'send');
    const kept = new Map();
    const time = now();
    let before = null;
    shown.forEach((item, index) => {
      const day = dayKey(at(item));
      const isNewDay = before === null || dayKey(at(before)) !== day;
      if (isNewDay) nodes.push(dayNode(day, at(item), time));
      const isDivided = item.message !== null && item.message.id === view.divider;
      if (isDivided) nodes.push(line);
      const next = shown[index + 1];
      const bubble = view.bubbles.get(item.key) ?? bubbles.make(actions);
      kept.set(item.key, bubble);
      const first = isNewDay || isDivided || !isGroup(before, item);
      const last = !next || !isGroup(item, next) || dayKey(at(next)) !== day;
      const isNew = bubbles.update(bubble, item, { first, last, now: time, mayAct });
      if (isNew) view.unfolded.add(bubble);
      nodes.push(bubble.node);
      before = item;
    });
    view.bubbles = kept;
    return nodes;
  }

  function dayNode(day, iso, time) {
    let node = view.days.get(day);
    if (!node) {
      node = el('li', { class: 'day' }, el('span'));
      view.days.set(day, node);
    }
    text(node.firstElementChild, dayTitle(iso, time));
    return node;
  }

  /** Puts the first unread message near the top, or the newest at the bottom. */
  function place() {
    foldNew();
    view.isPlaced = true;
    if (scroller.clientHeight === 0) view.isPlaced = false;
    else if (!line.isConnected) toEnd();
    else {
      const top = line.getBoundingClientRect().top - scroller.getBoundingClientRect().top;
      scroller.scrollTop += top - 48;
      look();
      if (!view.isAtEnd) view.news = 0;
    }
  }

  function toEnd() {
    foldNew();
    scroller.scrollTop = scroller.scrollHeight;
    look();
  }

  function foldNew() {
    for (const bubble of view.unfolded) bubbles.fold(bubble);
    view.unfolded.clear();
  }

  function after(shown) {
    if (view.unfolded.size > 0) {
      if (view.isAtEnd) toEnd();
      else keepPlace(scroller, list, foldNew, isMessage);
    }
    const newest = shown.findLast(({ message }) => message?.direction === 'INBOUND');
    const element = view.isPlaced && newest ? view.bubbles.get(newest.key).node : null;
    if (element !== view.newest) {
      view.newest = element;
      actions.newest(element, view.id);
    }
    scrolled();
  }

  /** Remembers whether the reader is at the end, and says what is below. */
  function look() {
    const left = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
    view.isAtEnd = left < AT_END;
    if (view.isAtEnd) view.news = 0;
    const isFar = view.isPlaced && left > Math.min(300, scroller.clientHeight / 2);
    show(button, isFar || view.news > 0);
    const words = view.news === 1 ? '1 new message' : `${view.news} new messages`;
    text(label, view.news > 0 ? words : 'Newest');
    toggleClass(button, 'new', view.news > 0);
  }

  function scrolled() {
    if (!view.isPlaced || scroller.clientHeight === 0) return;
    look();
    if (scroller.scrollTop < AHEAD && latest && hasOlder(latest, view.id)) actions.older(view.id);
  }

  /** The keyboard of a telephone, a growing composer, another width: the newest stays in sight. */
  function resized() {
    if (scroller.clientHeight === 0) return;
    if (scroller.clientWidth !== view.width) {
      view.width = scroller.clientWidth;
      for (const bubble of view.bubbles.values()) bubbles.fold(bubble);
    }
    if (!view.isPlaced && latest) draw(latest);
    else if (view.isAtEnd) toEnd();
    else look();
  }

  function drawNote(thread, length) {
    const { error } = thread;
    let words = '';
    if (error && !thread.loaded) words = `The messages could not be loaded: ${error.detail}`;
    else if (error) words = `Older messages could not be loaded: ${error.detail}`;
    else if (!thread.loaded) words = 'Loading …';
    else if (latest && hasOlder(latest, view.id)) words = 'Loading older messages …';
    else if (length === 0) words = 'No messages yet.';
    text(note, words);
  }

  /** Gives the log the focus, so that its keys scroll. */
  function focus() {
    scroller.focus({ preventScroll: true });
    return true;
  }

  return { open, draw, focus };
}

function fresh(id, unread) {
  return {
    id, unread, given: null, divider: null, isPlaced: false, isAtEnd: true, news: 0, last: null,
    newest: undefined, width: 0, bubbles: new Map(), days: new Map(), unfolded: new Set(),
  };
}

/** Days and the line of the unread move among the messages: no place to hold on to. */
const isMessage = (node) => node.dataset.messageId !== undefined;

function at({ message, unsent }) {
  return message?.timestamp ?? unsent.createdAt;
}

function isGroup(a, b) {
  if (!a) return false;
  const isSameSide = (a.message?.direction === 'INBOUND') === (b.message?.direction === 'INBOUND');
  return isSameSide && Math.abs(Date.parse(at(b)) - Date.parse(at(a))) < GROUP_MS;
}
