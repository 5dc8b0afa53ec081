// Says how things stand: the title's number, the banner, live or not, and notices on the desktop.

import { attr, byId, el, show, text } from './dom.js';
import { duration, now } from './format.js';
import * as prefs from './prefs.js';
import { unreadTotal } from './store.js';

/** Connecting for so long is worth a banner, in milliseconds. */
const GRACE_MS = 3000;

const LIVE = { live: 'Live', connecting: 'Connecting …', offline: 'Offline' };

/** The notices. `app` has `reconnect()`; `open(id)` shows a conversation. */
export function create({ app, open }) {
  const banner = document.querySelector('[data-testid=banner]');
  const words = el('span');
  const count = el('span', { 'aria-hidden': 'true' });
  const reload = el('button', {
    class: 'button', type: 'button', text: 'Reload', on: { click: () => location.reload() },
  });
  const connect = el('button', {
    class: 'button', type: 'button', text: 'Connect now', on: { click: () => app.reconnect() },
  });
  banner.append(words, count, reload, connect);
  let since = now();
  let wasLive = null;
  let timer = 0;
  let latest = null;
  const desktop = desktopNotices(open);

  function draw(state, before) {
    latest = state;
    const { count: unread, more } = unreadTotal(state);
    const isIn = state.login === 'done';
    const title = isIn && unread > 0 ? `(${unread}${more ? '+' : ''}) Inbox` : 'Inbox';
    if (document.title !== title) document.title = title;
    attr(document.body, 'data-feed', state.feed.state);
    text(byId('live'), LIVE[state.feed.state]);
    text(byId('who'), state.session?.name ?? '');
    show(byId('logout'), Boolean(state.session?.name));
    drawBanner();
    desktop.tell(state, before);
  }

  function drawBanner() {
    clearTimeout(timer);
    const { feed, reload: isOld, login } = latest;
    const isLive = feed.state === 'live';
    if (isLive !== wasLive) since = now();
    wasLive = isLive;
    const isLate = !isLive && (feed.state === 'offline' || now() - since >= GRACE_MS);
    const isLost = isLate && login !== 'needed';
    show(reload, isOld);
    show(connect, isLost && !isOld);
    show(banner, isLost || isOld);
    if (isOld) text(words, 'The gateway has a new version. Drafts are kept.');
    else text(words, isLost ? lost(feed, login) : '');
    const wait = feed.retryAt === null ? 0 : feed.retryAt - now();
    text(count, isLost && !isOld && wait > 500 ? `Tries again in ${duration(wait)}.` : '');
    if (!isLive && login !== 'needed') timer = setTimeout(drawBanner, isLost ? 1000 : GRACE_MS);
  }

  return { draw };
}

function lost(feed, login) {
  if (login === 'unknown') return 'The gateway cannot be reached.';
  if (feed.state === 'connecting') return 'Connecting: what you see may be out of date.';
  return 'Not connected: what you see may be out of date. What you write is kept and sent later.';
}

/** Notices outside the page: on request only, when the page is hidden, one for all tabs. */
function desktopNotices(open) {
  const box = byId('notify-on');
  const note = byId('notify-note');
  const isPossible = 'Notification' in window && isSecureContext;
  show(byId('notify-row'), isPossible);
  box.checked = isPossible && prefs.get('notify') === 'on' && Notification.permission === 'granted';
  box.addEventListener('change', async () => {
    if (box.checked) box.checked = (await Notification.requestPermission()) === 'granted';
    prefs.set('notify', box.checked ? 'on' : 'off');
    text(note, !box.checked && Notification.permission === 'denied'
      ? 'The browser does not allow notices from this page; its settings can change that.' : '');
  });

  function tell(state, before) {
    if (!box.checked || !before || document.visibilityState === 'visible') return;
    if (state.conversations === before.conversations) return;
    for (const conversation of state.conversations.values()) {
      if (conversation.unreadCount > 0 && isNews(conversation, before)) notify(conversation);
    }
  }

  function notify(conversation) {
    const { participantId, participantName } = conversation;
    const who = participantName ? `${participantId} · ${participantName}` : participantId;
    const notice = new Notification(who, {
      body: conversation.lastMessagePreview, tag: conversation.id, icon: '/inbox/icon.svg',
    });
    notice.addEventListener('click', () => {
      window.focus();
      open(conversation.id);
      notice.close();
    });
  }

  return { tell };
}

/** Whether the customer has written since: more than was known, or for the first time just now. */
function isNews(conversation, before) {
  const known = before.conversations.get(conversation.id);
  if (known) return conversation.inboundCount > known.inboundCount;
  return before.list.loaded && now() - Date.parse(conversation.lastMessageAt) < 60_000;
}
