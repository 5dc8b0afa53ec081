// Boots the page: one app, its views, the address, the keys.

import { createApp } from './app.js';
import { channelName } from './channels.js';
import * as composers from './composer.js';
import { summary } from './contents.js';
import { ask, note } from './dialogs.js';
import { attr, byId, oncePerFrame, text } from './dom.js';
import { cut, now, ticker } from './format.js';
import * as keys from './keys.js';
import { List } from './list.js';
import * as logins from './login.js';
import * as notice from './notices.js';
import * as prefs from './prefs.js';
import { problemOf } from './reasons.js';
import { current, go, listen } from './route.js';
import * as threads from './thread.js';

/** So many characters of a new message are read out. */
const HEARD_LENGTH = 300;

const app = createApp();
const { store } = app;

/** One time for all that is drawn: else two rows of one age could differ. */
let time = now();
const drawnAt = () => time;

/** Runs a request of the reader's and says in words why it failed. */
async function tried(request, what, channel = '') {
  try {
    return await request;
  } catch (error) {
    const known = problemOf(error, channelName(channel));
    note(`${what}: ${known ? `${known}.` : error?.detail || 'the gateway cannot be reached.'}`);
    return null;
  }
}

/** Sends again; if the customer may have it, the reader is asked, also where the answer says so. */
async function retry({ message, unsent }, asks) {
  if (unsent) return app.resend(unsent.clientMessageId);
  const question = 'It may already have arrived. Sent again, the customer may get it twice.';
  if (asks && !(await ask('Send it again?', question, 'Send again'))) return null;
  const { id, channel } = message;
  const asked = app.retry(id, { ambiguous: asks });
  const refused = asks ? null : await asked.then(() => null, (error) => error);
  if (refused?.code === 'ambiguous') return retry({ message, unsent }, true);
  return tried(asked, 'It could not be sent again', channel);
}

function cancel({ message, unsent }) {
  if (unsent) return app.takeBack(unsent.clientMessageId);
  return tried(app.cancel(message.id), 'It could not be canceled');
}

/** Tells a screen reader of the newest message alone, not of the whole log. */
function heard(message) {
  text(byId('newest'), `${message.participantId}: ${cut(summary(message), HEARD_LENGTH)}`);
}

const composer = composers.create(app);
const thread = threads.create({
  composer,
  now: drawnAt,
  actions: {
    older: app.loadOlder,
    newest: (element, id) => app.seen.watch(element, id),
    heard,
    retry,
    cancel,
    setStatus: (id, status) => tried(app.setStatus(id, status), 'It could not be changed'),
    setArchived: (id, yes) => tried(app.setArchived(id, yes), 'It could not be changed'),
    back: () => go(null),
    left: (id) => list.focus(id),
    demo: () => tried(app.demo(), 'No customer could be made to write'),
  },
});
const list = new List({
  actions: { more: app.loadMore, filter: app.setFilter },
  draftOf: (id) => app.drafts.get(id),
  now: drawnAt,
});
const login = logins.create({ login: app.login });
const notices = notice.create({ app, open: go });

let drawn = null;
const draw = oncePerFrame(() => {
  const state = store.get();
  if (state.login === 'needed') text(byId('newest'), '');
  // The conversation that the address names is shown after a login too.
  if (state.login === 'done' && drawn?.login !== 'done') app.open(current());
  login.draw(state);
  list.draw(state);
  thread.draw(state);
  notices.draw(state, drawn);
  drawn = state;
  const isReady = state.login === 'needed' || (state.login === 'done' && state.list.loaded);
  if (isReady) attr(document.body, 'data-ready', true);
});

keys.start({
  move: (step) => list.move(step),
  reply: () => composer.focus(),
  close: () => thread.toggleClosed(),
  search() {
    if (byId('app').hidden) return false;
    if (byId('search').offsetParent === null) go(null);
    byId('search').focus();
    byId('search').select();
    return true;
  },
  escape,
}, prefs);

/** Leaves a field; from the thread of a telephone, goes back to the list. */
function escape(target) {
  const { open } = store.get();
  const search = byId('search');
  if (target === search && search.value !== '') {
    search.value = '';
    app.setFilter({ participant: '' });
    return true;
  }
  if (target === byId('text')) return thread.focus();
  if (list.focus(open ?? undefined)) return true;
  if (open === null) return false;
  go(null);
  return true;
}

byId('logout').addEventListener('click', () => {
  login.leaving();
  tried(app.logout(), 'The gateway did not hear of it');
});

/** A page out of the browser's cache shows nothing before it knows who is there. */
window.addEventListener('pageshow', async ({ persisted }) => {
  if (!persisted) return;
  byId('app').hidden = true;
  await app.begin();
  draw();
});

store.subscribe(draw);
ticker((at) => {
  time = at;
  draw();
});
listen((id) => app.open(id));
app.begin();
draw();
