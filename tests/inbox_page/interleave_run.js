// The runs of interleave.js.

/** What is on the way from the gateway's feed to the page. */
class Stream {
  constructor(gateway, page, dice) {
    Object.assign(this, { gateway, page, dice, groups: [], isLost: false });
    page.dispatch({ type: 'events', events: [{ type: 'hello', fresh: true, data: { version: '1', now: '' } }] });
  }

  look() {
    const events = this.gateway.tell();
    if (events.length === 0) return;
    this.groups.push(events);
    if (this.dice.chance(0.1)) this.groups.push(copy(events));
  }

  deliver() {
    const events = this.groups.shift();
    if (events && !this.isLost) this.page.dispatch({ type: 'events', events });
  }

  lose() {
    this.isLost = true;
    if (this.dice.chance(0.5)) this.groups = [];
  }

  reset() {
    if (!this.isLost) return;
    this.look();
    Object.assign(this, { isLost: false, groups: [] });
    this.page.dispatch({ type: 'events', events: [{ type: 'reset', data: { reason: 'expired' } }] });
  }

  step() {
    const what = this.dice.roll();
    if (what < 0.4) this.look();
    else if (what < 0.8) this.deliver();
    else if (what < 0.88) this.lose();
    else this.reset();
  }
}

/** Everything arrives, and the page fetches what it knows to be stale. */
function rest({ gateway, page, stream, dice }) {
  const drain = () => {
    while (page.asked.length > 0 && !page.wrong) page.arrive(dice.below(page.asked.length));
    stream.look();
    while (stream.groups.length > 0) stream.deliver();
  };
  drain();
  page.isQuiet = true;
  drain();
  stream.reset();
  for (let round = 0; round < 20 && !page.wrong; round += 1) {
    const { list, unread, threads, open, tick } = page.state;
    if (!list.loaded || list.stale) page.askList(null, tick);
    if (!unread.loaded || unread.stale) page.askUnread();
    const thread = threads.get(open);
    if (thread && (!thread.loaded || thread.stale)) page.askThread(open, null, tick);
    drain();
  }
  if (page.state.open) page.askThread(page.state.open, null, page.state.tick, undefined, true);
  drain();
  compare(gateway, page);
}

/** What the page shows at rest is what the gateway has. */
function compare(gateway, page) {
  const { S, state } = page;
  const plain = ({ heard: _, ...row }) => row;
  const differ = (shown, rows) => JSON.stringify(shown) !== JSON.stringify(rows);
  const downTo = (end) => (row) => end === null || S.comparePlaces(row.cursor, end) >= 0;
  if (!state.list.loaded || state.list.stale) page.fail('the list is never fresh');
  const rows = gateway.listed(state.filter).filter(downTo(state.list.end));
  if (differ(S.visible(state).map(plain), rows)) page.fail('the list differs');
  const unread = gateway.listed({ ...S.ALL, unread: true }).length;
  const { count, more } = S.unreadTotal(state);
  if (more ? count > unread : count !== unread) page.fail(`${count} are unread instead of ${unread}`);
  const thread = state.threads.get(state.open);
  if (!thread) return;
  const messages = gateway.thread(thread.id).filter(downTo(thread.end)).reverse();
  const shown = S.items(state, thread.id).map(({ message }) => message && plain(message));
  if (differ(shown, messages)) page.fail('the thread differs');
  const { inboundCount } = gateway.conversations.get(thread.id);
  if (S.seenCount(state, thread.id) !== inboundCount) page.fail('the count of what was seen differs');
}

function interleave(S, seed, steps = 120) {
  const dice = new Dice(seed);
  const gateway = new Gateway(dice, S.comparePlaces);
  for (let before = 8 + dice.below(30); before > 0; before -= 1) gateway.step();
  gateway.tell();
  const page = new Page(S, gateway, dice);
  const stream = new Stream(gateway, page, dice);
  for (let step = 0; step < steps && !page.wrong; step += 1) {
    const what = dice.roll();
    if (what < 0.35) gateway.step();
    else if (what < 0.7) stream.step();
    else if (what < 0.78) makeAnswer(page);
    else if (what < 0.88 && page.asked.length > 0) page.arrive(dice.below(page.asked.length));
    else page.step();
  }
  rest({ gateway, page, stream, dice });
  return page.wrong && `seed ${seed}: ${page.wrong}`;
}

function makeAnswer(page) {
  const job = page.asked.find(({ answer }) => answer === null);
  if (job) job.answer = job.make();
}
