// One row of the list: a link to its conversation, changed in place.

import { badge, showChannel } from './channels.js';
import { attr, el, show, text, toggleClass } from './dom.js';
import { absoluteTime, relativeTime } from './format.js';
import { showPerson } from './person.js';

/** A row without content; `parts` keeps its elements for `update`. */
export function make(id) {
  const parts = {
    channel: badge(),
    name: el('bdi'),
    person: el('bdi', { class: 'person', hidden: true }),
    time: el('time', { class: 'row-time' }),
    lead: el('span'),
    preview: el('span', { dir: 'auto' }),
    tag: el('span', { class: 'tag' }),
    unread: el('span', { class: 'unread', data: { testid: 'unread' } }),
    unreadWord: el('span', { class: 'hidden', text: ' unread' }),
  };
  parts.link = el('a', { href: `#${id}` },
    parts.channel,
    el('span', { class: 'row-line' },
      el('span', { class: 'row-name' }, parts.name, ' ', parts.person), parts.time),
    el('span', { class: 'row-line' },
      el('span', { class: 'row-preview' }, parts.lead, parts.preview),
      el('span', { class: 'row-marks' }, parts.tag, parts.unread, parts.unreadWord)));
  const node = el('li', { class: 'row', data: { conversationId: id } }, parts.link);
  // Nobody can point at the row beside its link, but a program can click it.
  node.addEventListener('click', ({ target }) => target === node && parts.link.click());
  return { node, parts, cursor: '', given: null };
}

/**
 * Shows a conversation in its row. `draft` is a text that waits in its composer, or ''; `isOurs`
 * says that the last message is an agent's, `isStuck` that one of his was refused and waits for
 * him.
 */
export function update(row, conversation, { isCurrent, draft, isOurs, isStuck, now }) {
  const { parts, node } = row;
  const given = [conversation, isCurrent, draft, isOurs, isStuck, now];
  if (row.given?.every((value, index) => value === given[index])) return;
  row.given = given;
  row.cursor = conversation.cursor;
  showChannel(parts.channel, conversation.channel);
  text(parts.name, conversation.participantId);
  showPerson(parts.person, conversation.participantName);
  when(parts.time, conversation.lastMessageAt ?? conversation.createdAt, now);
  lead(parts, conversation, draft, isOurs);
  tag(parts.tag, conversation, isStuck);
  unread(parts, node, conversation.unreadCount);
  attr(parts.link, 'aria-current', isCurrent ? 'true' : null);
}

function when(node, at, now) {
  text(node, relativeTime(at, now));
  attr(node, 'datetime', at);
  attr(node, 'title', absoluteTime(at));
}

function lead(parts, conversation, draft, isOurs) {
  text(parts.lead, draft ? 'Draft: ' : isOurs ? 'You: ' : '');
  attr(parts.lead, 'class', draft ? 'row-draft' : null);
  text(parts.preview, oneLine(draft || conversation.lastMessagePreview || 'No messages yet'));
}

function oneLine(value) {
  return value.replace(/\s+/gu, ' ').trim();
}

function tag(node, conversation, isStuck) {
  let words = '';
  if (isStuck) words = 'Not sent';
  else if (conversation.archivedAt) words = 'Archived';
  else if (conversation.status === 'closed') words = 'Closed';
  text(node, words);
  show(node, words !== '');
  toggleClass(node, 'bad', isStuck);
}

function unread(parts, node, count) {
  text(parts.unread, count > 0 ? String(count) : '');
  show(parts.unread, count > 0);
  show(parts.unreadWord, count > 0);
  attr(node, 'data-unread', count > 0);
}
