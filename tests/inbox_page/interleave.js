// Random interleavings of a gateway and a page: answers are made and arrive at any time, events are
// late, told twice, or lost until a reset. At rest the page must show what the gateway has.
//
// `interleave(store, seed)` is null, or says what is wrong; `store` is the page's store.js.

const copy = (value) => JSON.parse(JSON.stringify(value));
const hex = (number) => number.toString(16).padStart(32, '0');
/** As the gateway makes `cursor`: also times before 1970 sort as texts. */
const place = (at, id) => (at < 0 ? 2n ** 64n + BigInt(at) : BigInt(at)).toString(16).padStart(16, '0') + id;

class Dice {
  constructor(seed) {
    this.x = (seed * 2654435761) >>> 0 || 1;
  }
  roll() {
    this.x = (this.x ^ (this.x << 13)) >>> 0;
    this.x = (this.x ^ (this.x >>> 17)) >>> 0;
    this.x = (this.x ^ (this.x << 5)) >>> 0;
    return this.x / 2 ** 32;
  }
  below(limit) { return Math.floor(this.roll() * limit); }
  pick(list) { return list[this.below(list.length)]; }
  chance(share) { return this.roll() < share; }
}

/** The rows of a gateway, and which were changed since it last told. */
class Gateway {
  constructor(dice, compare) {
    Object.assign(this, { dice, compare, time: 1000, ids: 0 });
    this.conversations = new Map();
    this.messages = new Map();
    this.changed = { conversations: new Set(), messages: new Set() };
    this.created = new Set();
  }

  newId() {
    this.ids += 1;
    return hex(this.dice.below(2 ** 31) * 1000 + this.ids);
  }

  conversation() {
    const [id, { dice }] = [this.newId(), this];
    const at = dice.chance(0.1) ? -dice.below(5000) - 1 : this.time;
    const row = {
      id, at, channel: dice.pick(['whatsapp', 'instagram']), participantId: dice.pick(['+41', '+49', 'ab']) + this.ids,
      status: 'open', archivedAt: null, lastMessagePreview: '', lastMessageAt: '', lastReadAt: null, createdAt: '',
      unreadCount: 0, inboundCount: 0, cursor: place(at, id), revision: 0,
    };
    this.conversations.set(id, row);
    this.message(row, 'INBOUND');
    return row;
  }

  message(conversation, direction, clientMessageId = null) {
    const { dice } = this;
    this.time += dice.below(3);
    const at = dice.chance(0.15) ? this.time - dice.below(400) : this.time;
    const id = this.newId();
    const { channel, participantId } = conversation;
    const message = {
      id, conversationId: conversation.id, channel, participantId, direction, clientMessageId, type: 'text',
      text: `text ${this.ids}`, status: direction === 'INBOUND' ? 'RECEIVED' : 'PENDING', nextAttemptAt: null,
      lastError: null, cursor: place(at, id), revision: 1,
    };
    this.messages.set(id, message);
    this.changed.messages.add(id);
    if (at >= conversation.at || conversation.revision === 0) {
      conversation.at = Math.max(at, conversation.at);
      conversation.cursor = place(conversation.at, conversation.id);
      conversation.lastMessagePreview = message.text;
    }
    if (direction === 'INBOUND') {
      conversation.unreadCount += 1;
      conversation.inboundCount += 1;
      Object.assign(conversation, { status: 'open', archivedAt: null });
    }
    this.touch(conversation);
    return message;
  }

  touch(row) {
    row.revision += 1;
    this.changed.conversations.add(row.id);
  }

  turn(row) {
    if (this.dice.chance(0.5)) row.status = row.status === 'open' ? 'closed' : 'open';
    else row.archivedAt = row.archivedAt ? null : 'then';
    this.touch(row);
  }

  read(row) {
    const seen = this.dice.below(row.inboundCount + 1);
    row.unreadCount = Math.min(row.unreadCount, Math.max(0, row.inboundCount - seen));
    this.touch(row);
  }

  settle(message) {
    if (message.direction === 'INBOUND') return;
    message.status = this.dice.pick(['SENT', 'FAILED']);
    message.revision += 1;
    this.changed.messages.add(message.id);
  }

  /** Something that others do. */
  step() {
    const { dice } = this;
    const row = this.conversations.size > 0 ? dice.pick([...this.conversations.values()]) : this.conversation();
    const what = dice.below(10);
    if (what === 0) this.conversation();
    else if (what <= 3) this.message(row, 'INBOUND');
    else if (what === 4) this.message(row, 'OUTBOUND', dice.chance(0.5) ? `other ${this.ids}` : null);
    else if (what <= 6) this.turn(row);
    else if (what === 7) this.read(row);
    else this.settle(dice.pick([...this.messages.values()]));
  }

  /** The events of what was changed. */
  tell() {
    const { conversations, messages } = this.changed;
    this.changed = { conversations: new Set(), messages: new Set() };
    const updated = [...conversations].map((id) =>
      ({ type: 'conversation.updated', data: { conversation: copy(this.conversations.get(id)) } }));
    const told = [...messages].map((id) => {
      const type = this.created.has(id) ? 'message.updated' : 'message.created';
      this.created.add(id);
      return { type, data: { message: copy(this.messages.get(id)) } };
    });
    return [...updated, ...told];
  }

  sorted(rows) { return rows.sort((a, b) => this.compare(b.cursor, a.cursor)); }

  listed(filter) {
    return this.sorted([...this.conversations.values()].filter((row) =>
      (!filter.channel || row.channel === filter.channel) && (!filter.status || row.status === filter.status) &&
      (row.archivedAt !== null) === filter.archived && (!filter.unread || row.unreadCount > 0) &&
      row.participantId.startsWith(filter.participant)));
  }

  thread(id) { return this.sorted([...this.messages.values()].filter((row) => row.conversationId === id)); }

  page(rows, from, limit) {
    const left = rows.filter((row) => from === null || this.compare(row.cursor, from) < 0);
    const page = left.slice(0, limit);
    return { rows: copy(page), next: left.length > limit ? page[limit - 1].cursor : null };
  }
}

/** A page: the state, the questions that are on their way, and what was wrong. */
class Page {
  constructor(S, gateway, dice) {
    Object.assign(this, { S, gateway, dice, state: S.EMPTY, wrong: null, isQuiet: false });
    this.asked = [];
    this.outbox = [];
    this.revisions = new Map();
    this.limit = 2 + dice.below(6);
    const { ALL } = S;
    this.filters = [ALL, { ...ALL, unread: true }, { ...ALL, channel: 'whatsapp' }, { ...ALL, status: 'open' },
      { ...ALL, archived: true }, { ...ALL, participant: '+4' }];
  }

  fail(text) { this.wrong ??= text; }

  dispatch(input) {
    const before = this.state;
    this.state = this.S.reduce(before, input);
    const isNew = this.state !== before;
    if ((this.S.reduce(before, input) !== before) !== isNew) this.fail(`${input.type} is not pure`);
    const isPlain = ['conversation', 'message', 'outbox'].includes(input.type);
    if (isPlain && this.S.reduce(this.state, input) !== this.state) this.fail(`${input.type} twice is not once`);
    this.look();
  }

  /** What is true at every moment. */
  look() {
    const { S, state } = this;
    const thread = state.threads.get(state.open);
    for (const row of [...state.conversations.values(), ...thread?.messages.values() ?? []]) {
      if ((this.revisions.get(row.id) ?? 0) > row.revision) this.fail('a row went back');
      this.revisions.set(row.id, row.revision);
    }
    const rows = S.visible(state);
    if (rows.some((row, index) => index > 0 && S.comparePlaces(rows[index - 1].cursor, row.cursor) <= 0)) {
      this.fail('the list is not sorted');
    }
    if (!thread) return;
    const keys = S.items(state, state.open).map((item) => item.key);
    if (new Set(keys).size !== keys.length) this.fail('an item is there twice');
    const seen = S.seenCount(state, state.open);
    if (seen === null) return;
    const isLoaded = (row) => thread.end === null || S.comparePlaces(row.cursor, thread.end) >= 0;
    const inbound = this.gateway.thread(state.open).filter((row) => row.direction === 'INBOUND');
    const hidden = inbound.filter((row) => isLoaded(row) && !thread.messages.has(row.id));
    if (seen > inbound.length - hidden.length) this.fail('what was never shown would be read');
  }

  /** An answer is made at some moment after it was asked for, and arrives at another. */
  ask(make, done) { this.asked.push({ make, done, answer: null }); }

  arrive(index) {
    const [job] = this.asked.splice(index, 1);
    job.answer ??= job.make();
    job.done(job.answer);
  }

  askList(from, chain) {
    const { filter, tick: since } = this.state;
    this.ask(() => this.gateway.page(this.gateway.listed(filter), from, this.limit), ({ rows, next }) => {
      const link = chain === undefined ? {} : { chain };
      this.dispatch({ type: 'list.page', list: 'list', filter, from, next, rows, since, ...link });
      const { list, filter: now, fence } = this.state;
      const goesOn = chain !== undefined && next !== null && list.stale && now === filter && chain >= fence;
      if (goesOn) this.askList(next, chain);
    });
  }

  askUnread() {
    const filter = { ...this.S.ALL, unread: true };
    const since = this.state.tick;
    this.ask(() => this.gateway.page(this.gateway.listed(filter), null, 6), ({ rows, next }) =>
      this.dispatch({ type: 'list.page', list: 'unread', filter, from: null, next, rows, since, chain: since, cut: true }));
  }

  askThread(id, from, chain, count, isWhole = false) {
    const since = this.state.tick;
    const make = () => {
      const conversation = copy(this.gateway.conversations.get(id));
      // The gateway reads the two one after the other.
      if (!this.isQuiet) for (let more = this.dice.below(3); more > 0; more -= 1) this.gateway.step();
      return { conversation, ...this.gateway.page(this.gateway.thread(id), from, 4) };
    };
    this.ask(make, ({ conversation, rows: messages, next }) => {
      const first = count ?? conversation.inboundCount;
      const link = chain === undefined ? {} : { chain, count: first };
      this.dispatch({ type: 'thread.page', conversation, messages, from, next, since, ...link });
      const thread = this.state.threads.get(id);
      const isShort = isWhole && next !== null && this.S.comparePlaces(next, thread?.end ?? 'ff') > 0;
      const goesOn = chain !== undefined && next !== null && chain >= this.state.fence && (thread?.stale || isShort);
      if (goesOn) this.askThread(id, next, chain, first, isWhole);
    });
  }

  send() {
    const row = this.gateway.conversations.get(this.state.open);
    if (!row) return;
    const { id: conversationId, channel, participantId } = row;
    const clientMessageId = `ours ${this.gateway.newId()}`;
    const item = {
      clientMessageId, conversationId, channel, participantId, text: 'ours', createdAt: '', state: 'waiting',
      error: null, nextTryAt: 0,
    };
    const tell = () => this.dispatch({ type: 'outbox', items: copy(this.outbox) });
    this.outbox.push(item);
    tell();
    const since = this.state.tick;
    this.ask(() => copy(this.gateway.message(row, 'OUTBOUND', clientMessageId)), (message) => {
      if (this.dice.chance(0.5)) {
        Object.assign(item, { state: 'stored', text: '' });
        tell();
      }
      this.dispatch({ type: 'message', message, since });
      this.outbox.splice(this.outbox.indexOf(item), 1);
      tell();
    });
  }

  turn() {
    const row = this.dice.pick([...this.gateway.conversations.values()]);
    const since = this.state.tick;
    this.ask(() => {
      this.gateway.turn(row);
      return copy(row);
    }, (conversation) => this.dispatch({ type: 'conversation', conversation, since }));
  }

  /** Something that the reader, or the page by itself, does. */
  step() {
    const { S, state, dice } = this;
    const { open } = state;
    dice.pick([
      () => this.askList(null, state.tick),
      () => S.hasMore(state) && this.askList(state.list.end),
      () => this.askUnread(),
      () => this.dispatch({ type: 'open', id: dice.pick([...this.gateway.conversations.keys()]) }),
      () => open && this.askThread(open, null, state.tick),
      () => S.hasOlder(state, open) && this.askThread(open, state.threads.get(open).end),
      () => this.send(),
      () => this.turn(),
      () => dice.chance(0.4) && this.dispatch({ type: 'filter', filter: dice.pick(this.filters) }),
    ])();
  }
}
