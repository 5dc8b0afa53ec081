// Puts the parts together: what the page can do, in the words of its buttons.

import { createApi } from './api.js';
import { clock, setServerTime } from './clock.js';
import { createDrafts } from './drafts.js';
import { createFeed } from './feed.js';
import { checkText } from './format.js';
import { createOutbox } from './outbox.js';
import { createSeen } from './seen.js';
import { createStorage } from './storage.js';
import { createStore, may } from './store.js';
import { createSync } from './sync.js';
import { createTabs } from './tabs.js';

/** What tells the other tabs that somebody logged in or out. */
const LOGIN_MARK = 'at';

/** The page's logic. Nothing is asked before `begin`. */
export function createApp() {
  const store = createStore();
  const api = createApi({ onUnauthorized: () => askForLogin() });
  const marks = createStorage('gateway login ');
  /** What belongs to the key's name: made after login. @type {any} */
  let own = null;
  const draftListeners = new Set();

  const sync = createSync({
    store, api, onMessages: (messages) => messages.forEach((message) => own?.outbox.settle(message)),
  });
  const seen = createSeen({ store, read: api.read, onShort: (id) => sync.refetch(id) });

  /** The session has ended: what is not sent and the drafts stay for the next one. */
  function askForLogin() {
    leave();
    if (store.get().login !== 'needed') store.dispatch({ type: 'logout' });
  }

  function leave() {
    sync.stop();
    own?.tabs.stop();
    own?.outbox.stop();
    own?.drafts.stop();
    own = null;
  }

  /** Starts all that needs a session. */
  function enter(session) {
    const { name } = session;
    const drafts = createDrafts(name, { onIds: (ids) => store.dispatch({ type: 'drafts', ids }) });
    drafts.subscribe((id) => [...draftListeners].forEach((listener) => listener(id)));
    const outbox = createOutbox(name, {
      send: (unsent) => takeMessage(api.send(unsent)),
      onItems: (items) => store.dispatch({ type: 'outbox', items }),
    });
    const tabs = createTabs(name, {
      createFeed: (handlers) => createFeed(handlers),
      onEvents: takeEvents,
      onState(state, retryAt) {
        const wasLive = store.get().feed.state === 'live';
        store.dispatch({ type: 'feed', state, retryAt });
        if (state === 'live' && !wasLive) own?.outbox.retryNow();
      },
      onUnauthorized: askForLogin,
    });
    own = { name, drafts, outbox, tabs };
    store.dispatch({ type: 'session', session, login: 'done' });
    sync.start();
    tabs.start();
    outbox.begin();
  }

  function takeEvents(events) {
    for (const { type, data } of events) {
      if (type === 'hello') setServerTime(data.now);
      if (data.message) own?.outbox.settle(data.message);
    }
    store.dispatch({ type: 'events', events });
  }

  /** Asks who is logged in, and goes on from there; tries again where there is no answer. */
  async function begin() {
    try {
      const session = await api.session();
      if (own?.name === session.name && store.get().login === 'done') {
        store.dispatch({ type: 'session', session, login: 'done' });
        return;
      }
      if (own) store.dispatch({ type: 'logout' });
      leave();
      enter(session);
    } catch (error) {
      if (error.status === 401) {
        askForLogin();
        return;
      }
      const retryAt = clock.now() + Math.max(3_000, (error.retryAfter ?? 0) * 1000);
      if (!own) store.dispatch({ type: 'feed', state: 'offline', retryAt });
      clock.after(retryAt - clock.now(), begin);
    }
  }

  marks.watch(() => begin());

  const answerOf = (type, field) => async (asked) => {
    const since = store.get().tick;
    const answer = await asked;
    store.dispatch({ type, [field]: answer, since });
    return answer;
  };
  const takeConversation = answerOf('conversation', 'conversation');
  const takeMessage = answerOf('message', 'message');

  return {
    store,
    seen,
    /** Begins: asks for the session, then for everything. Also when the page comes out of the
     * back/forward cache. */
    begin,
    /** Logs in with a key; rejects with the reason. @param {string} key */
    async login(key) {
      await api.login(key);
      marks.set(LOGIN_MARK, String(clock.steady()));
      await begin();
    },
    /** Logs out, here and in all tabs; what is not sent and the drafts are forgotten. */
    async logout() {
      await api.logout();
      own?.drafts.clear();
      own?.outbox.clear();
      askForLogin();
      marks.set(LOGIN_MARK, String(clock.steady()));
    },
    /** Shows a conversation, or none. @param {string|null} id */
    open: (id) => store.dispatch({ type: 'open', id }),
    /** @param {Partial<import('./types.js').Filter>} filter */
    setFilter: (filter) => store.dispatch({ type: 'filter', filter }),
    loadMore: () => sync.more(),
    loadOlder: (id) => sync.older(id),
    refresh: () => sync.look(),
    reconnect() {
      if (own) own.tabs.poke();
      else begin();
    },
    /**
     * Sends a text; null when it is taken, else why it is not. The draft goes with it.
     * @param {string} id @param {string} text
     * @returns {'blank'|'nul'|'long'|'scope'|'unknown'|null}
     */
    send(id, text) {
      const state = store.get();
      const conversation = state.conversations.get(id);
      if (!own || !conversation) return 'unknown';
      if (!may(state, 'send')) return 'scope';
      const problem = checkText(text);
      if (problem !== null) return problem;
      own.outbox.add(conversation, text);
      own.drafts.set(id, '');
      return null;
    },
    /** Sends one again that was not stored. @param {string} clientMessageId */
    resend: (clientMessageId) => own?.outbox.resend(clientMessageId),
    /** Takes a text that is not stored back into the draft. @param {string} clientMessageId */
    takeBack(clientMessageId) {
      const unsent = own?.outbox.takeBack(clientMessageId);
      if (unsent) own.drafts.putBack(unsent.conversationId, unsent.text);
      return Boolean(unsent);
    },
    retry: (id, options) => takeMessage(api.retry(id, options)),
    cancel: (id) => takeMessage(api.cancel(id)),
    setStatus: (id, status) => takeConversation(api.setStatus(id, status)),
    setArchived: (id, isArchived) => takeConversation(api.setArchived(id, isArchived)),
    demo: () => api.demo(),
    drafts: {
      get: (id) => own?.drafts.get(id) ?? '',
      set: (id, text) => own?.drafts.set(id, text),
      /** Calls `listener(id)` when another tab or a text taken back changed a draft; null: all. */
      subscribe(listener) {
        draftListeners.add(listener);
        return () => draftListeners.delete(listener);
      },
    },
  };
}
