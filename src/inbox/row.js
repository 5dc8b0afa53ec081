// One row of the list: a link to its conversation, changed in place.

import { attr, el, icon, setIcon, show, text } from './dom.js';
import { channelName } from './trouble.js';
import { absoluteTime, relativeTime } from './format.js';

/** A row without content; `parts` keeps its elements for `update`. */
export function make(id) {
  const parts = {
    channel: el('span', { class: 'channel', role: 'img' }, icon('chat')),
    name: el('bdi'),
    time: el('time', { class: 'row-time' }),
    lead: el('span'),
    preview: el('span', { dir: 'auto' }),
    tag: el('span', { class: 'tag' }),
    unread: el('span', { class: 'unread', data: { testid: 'unread' } }),
    unreadWord: el('span', { class: 'hidden', text: ' unread' }),
  };
  parts.link = el('a', { href: `#${id}` },
    parts.channel,
    el('span', { class: 'row-name' }, parts.name),
    parts.time,
    el('span', { class: 'row-preview' }, parts.lead, parts.preview),
    el('span', { class: 'row-marks' }, parts.tag, parts.unread, parts.unreadWord));
  const node = el('li', { class: 'row', data: { conversationId: id } }, parts.link);
  return { node, parts, cursor: '', given: null };
}

/**
 * Shows a conversation in its row. `draft` is a text that waits in its composer, or ''; `ours` says
 * that the last message is an agent's.
 */
export function update(row, conversation, { current, draft, now, ours }) {
  const { parts, node } = row;
  const given = [conversation, current, draft, ours, now];
  if (row.given?.every((value, index) => value === given[index])) return;
  row.given = given;
  row.cursor = conversation.cursor;
  setIcon(parts.channel.firstElementChild, conversation.channel in ICONS ? conversation.channel : 'chat');
  attr(parts.channel, 'data-channel', conversation.channel);
  attr(parts.channel, 'aria-label', channelName(conversation.channel));
  attr(parts.channel, 'title', channelName(conversation.channel));
  text(parts.name, conversation.participantId);
  when(parts.time, conversation.lastMessageAt ?? conversation.createdAt, now);
  lead(parts, conversation, draft, ours);
  tag(parts.tag, conversation);
  unread(parts, node, conversation.unreadCount);
  attr(parts.link, 'aria-current', current ? 'true' : null);
}

const ICONS = { whatsapp: true, instagram: true };

function when(node, at, now) {
  text(node, relativeTime(at, now));
  attr(node, 'datetime', at);
  attr(node, 'title', absoluteTime(at));
}

function lead(parts, conversation, draft, ours) {
  text(parts.lead, draft ? 'Draft: ' : ours ? 'You: ' : '');
  attr(parts.lead, 'class', draft ? 'row-draft' : null);
  text(parts.preview, oneLine(draft || conversation.lastMessagePreview || 'No messages yet'));
}

function oneLine(value) {
  return value.replace(/\s+/gu, ' ').trim();
}

function tag(node, conversation) {
  const words = conversation.archivedAt ? 'Archived' : conversation.status === 'closed' ? 'Closed' : '';
  text(node, words);
  show(node, words !== '');
}

function unread(parts, node, count) {
  text(parts.unread, count > 0 ? String(count) : '');
  show(parts.unread, count > 0);
  show(parts.unreadWord, count > 0);
  attr(node, 'data-unread', count > 0);
}
