// Puts the parts together: what the page can do, in the words of its buttons.

import { createApi } from './api.js';
import { clock, setServerTime } from './clock.js';
import { createDrafts } from './drafts.js';
import { Feed } from './feed.js';
import { checkText } from './format.js';
import { Outbox } from './outbox.js';
import { Seen } from './seen.js';
import { createStorage } from './storage.js';
import { createStore, may } from './store.js';
import { Sync } from './sync.js';
import { Tabs } from './tabs.js';

/** What tells the other tabs that somebody logged in or out. */
const LOGIN_MARK = 'at';
const BEGIN_AGAIN_MS = 3_000;

/**
 * The page's logic: its methods are what the buttons do. Nothing is asked before `begin`. They may
 * be passed on without their object.
 */
class App {
  /** The state; see `types.js`. */
  store = createStore();
  /** @type {Seen} */
  seen;
  #api = createApi({ onUnauthorized: () => this.#askForLogin() });
  #sync;
  #marks = createStorage('gateway login ');
  /** What belongs to the key's name: made after login.
   * @type {{name: string|null, drafts: object, outbox: Outbox, tabs: Tabs}|null} */
  #own = null;
  #draftListeners = new Set();
  #cancelBegin = () => undefined;

  constructor() {
    const { store } = this;
    const onMessages = (messages) => messages.forEach((each) => this.#own?.outbox.settle(each));
    this.#sync = new Sync({ store, api: this.#api, onMessages });
    this.seen = new Seen({
      store, read: this.#api.read, onShort: (id) => this.#sync.refetch(id),
    });
    this.#marks.watch(() => this.begin());
  }

  /**
   * Begins: asks for the session, then for everything; tries again where there is no answer. Also
   * when the page comes out of the back/forward cache.
   */
  begin = async () => {
    this.#cancelBegin();
    const { session, error } = await this.#api.session()
      .then((answer) => ({ session: answer }), (reason) => ({ error: reason }));
    if (error?.status === 401) this.#askForLogin();
    else if (error) this.#beginLater(error);
    else if (this.#own?.name === session.name && this.store.get().login === 'done') {
      this.store.dispatch({ type: 'session', session, login: 'done' });
    } else {
      if (this.#own) this.store.dispatch({ type: 'logout' });
      this.#leave();
      this.#enter(session);
    }
  };

  /** Logs in with a key; rejects with the reason. @param {string} key */
  login = async (key) => {
    await this.#api.login(key);
    this.#marks.set(LOGIN_MARK, String(clock.steady()));
    await this.begin();
  };

  /** Logs out, here and in all tabs; what is not sent and the drafts are forgotten. */
  logout = async () => {
    await this.#api.logout().catch((error) => {
      if (error.status !== 401) throw error;
    });
    this.#own?.drafts.clear();
    this.#own?.outbox.clear();
    this.#askForLogin();
    this.#marks.set(LOGIN_MARK, String(clock.steady()));
  };

  /** Shows a conversation, or none. @param {string|null} id */
  open = (id) => this.store.dispatch({ type: 'open', id });

  /** @param {Partial<import('./types.js').Filter>} filter */
  setFilter = (filter) => this.store.dispatch({ type: 'filter', filter });

  loadMore = () => this.#sync.more();

  /** @param {string} id */
  loadOlder = (id) => this.#sync.older(id);

  refresh = () => this.#sync.look();

  reconnect = () => (this.#own ? this.#own.tabs.poke() : this.begin());

  /**
   * Sends a text; null when it is taken, else why it is not. The draft goes with it.
   * @param {string} id @param {string} text
   * @returns {'blank'|'nul'|'long'|'scope'|'unknown'|null}
   */
  send = (id, text) => {
    const state = this.store.get();
    const conversation = state.conversations.get(id);
    if (!this.#own || !conversation) return 'unknown';
    if (!may(state, 'send')) return 'scope';
    const problem = checkText(text);
    if (problem !== null) return problem;
    this.#own.outbox.add(conversation, text);
    this.#own.drafts.set(id, '');
    return null;
  };

  /** Sends one again that was not stored. @param {string} clientMessageId */
  resend = (clientMessageId) => this.#own?.outbox.resend(clientMessageId);

  /** Takes a text that is not stored back into the draft. @param {string} clientMessageId */
  takeBack = (clientMessageId) => {
    const unsent = this.#own?.outbox.takeBack(clientMessageId);
    if (unsent) this.#own.drafts.putBack(unsent.conversationId, unsent.text);
    return Boolean(unsent);
  };

  /** @param {string} id @param {{ambiguous?: boolean}} [options] */
  retry = (id, options) => this.#take('message', this.#api.retry(id, options));

  /** @param {string} id */
  cancel = (id) => this.#take('message', this.#api.cancel(id));

  /** @param {string} id @param {'open'|'closed'} status */
  setStatus = (id, status) => this.#take('conversation', this.#api.setStatus(id, status));

  /** @param {string} id @param {boolean} isArchived */
  setArchived = (id, isArchived) =>
    this.#take('conversation', this.#api.setArchived(id, isArchived));

  /** Makes the built-in mock write as a customer. */
  demo = () => this.#api.demo();

  drafts = {
    get: (id) => this.#own?.drafts.get(id) ?? '',
    set: (id, text) => this.#own?.drafts.set(id, text),
    /** Calls `listener(id)` when another tab or a text taken back changed a draft; null: all. */
    subscribe: (listener) => {
      this.#draftListeners.add(listener);
      return () => this.#draftListeners.delete(listener);
    },
  };

  /** Takes an answer into the state, and passes it on. */
  async #take(type, asked) {
    const since = this.store.get().tick;
    const answer = await asked;
    this.store.dispatch({ type, [type]: answer, since });
    return answer;
  }

  #beginLater({ retryAfter }) {
    const wait = Math.max(BEGIN_AGAIN_MS, (retryAfter ?? 0) * 1000);
    const retryAt = clock.now() + wait;
    if (!this.#own) this.store.dispatch({ type: 'feed', state: 'offline', retryAt });
    this.#cancelBegin = clock.after(wait, this.begin);
  }

  /** The session has ended: what is not sent and the drafts stay for the next one. */
  #askForLogin() {
    this.#leave();
    if (this.store.get().login !== 'needed') this.store.dispatch({ type: 'logout' });
  }

  #leave() {
    this.#sync.stop();
    this.#own?.tabs.stop();
    this.#own?.outbox.stop();
    this.#own?.drafts.stop();
    this.#own = null;
  }

  /** Starts all that needs a session. */
  #enter(session) {
    const { name } = session;
    const { store } = this;
    const drafts = createDrafts(name, { onIds: (ids) => store.dispatch({ type: 'drafts', ids }) });
    drafts.subscribe((id) => [...this.#draftListeners].forEach((listener) => listener(id)));
    const outbox = new Outbox(name, {
      send: (unsent) => this.#take('message', this.#api.send(unsent)),
      onItems: (items) => store.dispatch({ type: 'outbox', items }),
    });
    const tabs = new Tabs(name, {
      createFeed: (handlers) => new Feed(handlers),
      onEvents: (events) => this.#takeEvents(events),
      onState: (state, retryAt) => this.#takeFeedState(state, retryAt),
      onUnauthorized: () => this.#askForLogin(),
    });
    this.#own = { name, drafts, outbox, tabs };
    store.dispatch({ type: 'session', session, login: 'done' });
    this.#sync.start();
    tabs.start();
    outbox.begin();
  }

  #takeFeedState(state, retryAt) {
    const wasLive = this.store.get().feed.state === 'live';
    this.store.dispatch({ type: 'feed', state, retryAt });
    if (state === 'live' && !wasLive) this.#own?.outbox.retryNow();
  }

  #takeEvents(events) {
    for (const { type, data } of events) {
      if (type === 'hello') setServerTime(data.now);
      if (data.message) this.#own?.outbox.settle(data.message);
    }
    this.store.dispatch({ type: 'events', events });
  }
}

/** The page's logic. @returns {App} */
export const createApp = () => new App();
