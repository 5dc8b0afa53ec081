// What stands at a message beside what it holds: what it answers, reactions, who wrote it, edits.

import { summary } from './contents.js';
import { attr, el, show, text } from './dom.js';
import { absoluteTime, cut } from './format.js';

/** So many characters of a message are quoted. */
const QUOTE_LENGTH = 160;
/** So many different reactions are shown, and so many characters of each. */
const MOST_REACTIONS = 12;
const REACTION_LENGTH = 4;

const NOT_HERE = 'The message that this answers is not here';

/** Who wrote an outbound message, if not somebody with a key of the gateway. */
const ORIGINS = {
  app: ['WhatsApp app', 'Written in the WhatsApp Business app'],
  agent: ['Meta’s agent', 'Written by Meta’s business agent'],
};

/** An empty quote; `goTo(id)` is called when it is pressed. */
export function makeReply(goTo) {
  const who = el('span', { class: 'reply-who' });
  const words = el('span', { class: 'reply-text', dir: 'auto' });
  const node = el('button', { class: 'reply', type: 'button', hidden: true }, who, words);
  const reply = { node, who, words, id: null };
  node.addEventListener('click', () => reply.id !== null && goTo(reply.id));
  return reply;
}

/** Shows what a message answers; `find` gives it if it is in the thread and loaded. */
export function showReply(reply, message, find) {
  const { node, who, words } = reply;
  const replyTo = message?.replyTo ?? null;
  const found = replyTo === null ? null : find(replyTo);
  show(node, replyTo !== null);
  reply.id = found?.id ?? null;
  attr(node, 'disabled', found === null);
  attr(node, 'title', found ? 'Go to this message' : null);
  show(who, found !== null);
  text(who, !found ? '' : found.direction === 'INBOUND' ? 'Customer' : 'You');
  text(words, found ? cut(summary(found), QUOTE_LENGTH) : NOT_HERE);
}

/** An empty list of reactions. */
export function makeReactions() {
  const node = el('ul', { class: 'reactions', hidden: true, 'aria-label': 'Reactions' });
  return { node, told: '[]' };
}

/** Shows the reactions to a message: each once, with how many there are and of whom. */
export function showReactions(reactions, message) {
  const given = message?.reactions ?? [];
  const told = JSON.stringify(given);
  if (reactions.told === told) return;
  reactions.told = told;
  show(reactions.node, given.length > 0);
  const byEmoji = new Map();
  for (const reaction of given) {
    byEmoji.set(reaction.emoji, [...byEmoji.get(reaction.emoji) ?? [], reaction]);
  }
  const shown = [...byEmoji].slice(0, MOST_REACTIONS);
  reactions.node.replaceChildren(...shown.map(([emoji, some]) => {
    const whose = some.map(({ from, at }) => `${whoOf(from, message)}, ${absoluteTime(at)}`);
    const count = some.length > 1 ? ` ${some.length}` : '';
    const face = el('bdi', { dir: 'auto', text: cut(emoji, REACTION_LENGTH) });
    const words = el('span', { class: 'hidden', text: ` ${whose.join('; ')}` });
    return el('li', { title: whose.join('\n') }, face, count, words);
  }));
}

function whoOf(from, { participantId }) {
  if (from === 'business') return 'You';
  return from === participantId ? 'Customer' : from;
}

/** Shows who wrote an outbound message, if that was no key of the gateway. */
export function showOrigin(node, message) {
  const known = Object.hasOwn(ORIGINS, message?.origin ?? '') ? ORIGINS[message.origin] : null;
  show(node, known !== null);
  text(node, known?.[0] ?? '');
  attr(node, 'title', known?.[1]);
}

/** Shows that a message was edited. */
export function showEdited(node, message) {
  const at = message?.deletedAt ? null : message?.editedAt;
  show(node, Boolean(at));
  attr(node, 'title', at ? `Edited ${absoluteTime(at)}` : null);
}
