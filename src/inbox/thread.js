// The right pane: which conversation is open, its head and what can be done with it; or a welcome.

import { badge, channelName, showChannel } from './channels.js';
import { attr, byId, el, icon, setIcon, show, text } from './dom.js';
import { Log } from './log.js';
import { showPerson } from './person.js';
import * as welcome from './welcome.js';
import { windowOf } from './window.js';

/**
 * The thread. `actions` are those of the log, and `setStatus(id, status)`, `setArchived(id, yes)`,
 * `back()`, `left(id)` when a thread gives way to the list, `demo()`.
 */
export function create({ actions, composer, now }) {
  const log = new Log({ actions, now });
  const parts = {
    thread: byId('thread'), name: byId('thread-name'), person: byId('thread-person'),
    kind: byId('thread-kind'), about: byId('thread-about'),
    close: action(byId('act-close')), archive: action(byId('act-archive')),
  };
  const channel = badge();
  byId('thread-channel').append(channel);
  const empty = welcome.create(byId('welcome'), actions);
  let open = null;
  let shown = null;

  byId('back').addEventListener('click', () => actions.back());
  parts.close.button.addEventListener('click', () => toggleClosed());
  parts.archive.button.addEventListener('click', () =>
    actions.setArchived(shown.id, shown.archivedAt === null));

  function draw(state) {
    const error = state.open === null ? null : state.threads.get(state.open)?.error;
    const isGone = error?.status === 404;
    const isThread = state.open !== null && !isGone;
    show(parts.thread, isThread);
    empty.draw(state, isGone);
    attr(document.body, 'data-pane', state.open === null ? 'list' : 'thread');
    shown = isThread ? state.conversations.get(state.open) ?? null : null;
    drawHead(shown, state.session);
    composer.draw(state, shown, now());
    const id = isThread ? state.open : null;
    if (id !== open) change(state, id);
    else if (id !== null) log.draw(state);
  }

  /** Another conversation. On a telephone the pane with the focus goes: it moves along. */
  function change(state, id) {
    const before = open;
    open = id;
    if (id === null) {
      log.close();
      if (state.open === null) actions.left(before);
      return;
    }
    log.open(state, id);
    const focused = document.activeElement;
    const isLost = focused === document.body || focused.closest('.list-pane') !== null;
    if (isLost && byId('back').offsetParent !== null) byId('thread-head').focus();
  }

  function drawHead(conversation, session) {
    text(parts.name, conversation?.participantId ?? '');
    attr(parts.name, 'title', conversation?.participantId);
    showPerson(parts.person, conversation?.participantName);
    text(parts.kind, conversation ? `${channelName(conversation.channel)} · ` : '');
    text(parts.about, conversation ? about(conversation, now(), session) : '');
    show(channel, conversation !== null);
    show(parts.close.button, conversation !== null);
    show(parts.archive.button, conversation !== null);
    if (!conversation) return;
    showChannel(channel, conversation.channel);
    const isClosed = conversation.status === 'closed';
    parts.close.say(isClosed ? 'Reopen' : 'Close', isClosed ? 'reopen' : 'close');
    const isArchived = conversation.archivedAt !== null;
    parts.archive.say(isArchived ? 'Unarchive' : 'Archive', isArchived ? 'unarchive' : 'archive');
  }

  /** Closes or reopens the open conversation; false when none is open. */
  function toggleClosed() {
    if (!shown) return false;
    actions.setStatus(shown.id, shown.status === 'closed' ? 'open' : 'closed');
    return true;
  }

  composer.sent(() => log.follow());
  return { draw, toggleClosed, focus: () => log.focus() };
}

function about(conversation, now, session) {
  const words = [conversation.status === 'closed' ? 'Closed' : 'Open'];
  if (conversation.archivedAt !== null) words.push('Archived');
  const free = windowOf(conversation, now, session);
  if (free) words.unshift(free.words);
  return words.join(' · ');
}

/** A button of the head: an icon, and a word that a narrow page shows as its name only. */
function action(button) {
  const picture = icon('close');
  const word = el('span');
  button.append(picture, word);
  return {
    button,
    say(name, iconName) {
      text(word, name);
      attr(button, 'aria-label', name);
      attr(button, 'title', name);
      setIcon(picture, iconName);
    },
  };
}
