// The box to write in: a draft for each conversation, never in another's; Enter sends.

import { attr, byId, show, text, toggleClass } from './dom.js';
import { TEXT_LIMIT, textLength } from './format.js';
import { may } from './store.js';
import { windowOf } from './window.js';

/** So many characters before the limit the counter appears. */
const NEAR = 200;

const REFUSED = {
  blank: 'Write something first.',
  nul: 'The text has a character (NUL) that cannot be sent.',
  long: `A message has at most ${TEXT_LIMIT.toLocaleString('en')} characters.`,
  scope: 'This key may not send.',
  unknown: 'This conversation is not loaded yet.',
};

const MAY_NOT = 'This key may read, but not send. ' +
  'To reply, log in with a key that has the scope “send”.';

/** The composer. `app` has `send(id, text)` and `drafts`; `sent(told)` says who hears of sends. */
export function create(app) {
  const form = byId('composer');
  const box = byId('composer-box');
  const field = byId('text');
  const why = byId('composer-why');
  const note = byId('composer-note');
  const free = byId('composer-window');
  let id = null;
  let follow = () => {};

  field.addEventListener('input', () => {
    if (id !== null) app.drafts.set(id, field.value);
    changed();
  });
  field.addEventListener('keydown', (event) => {
    const isComposing = event.isComposing || event.keyCode === 229;
    if (event.key !== 'Enter' || event.shiftKey || isComposing) return;
    event.preventDefault();
    if (!event.repeat) send();
  });
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    send();
    field.focus();
  });
  app.drafts.subscribe((changedId) => {
    const isMine = changedId === null || changedId === id;
    if (isMine && id !== null && app.drafts.get(id) !== field.value) load();
  });

  function send() {
    if (id === null) return;
    const refused = app.send(id, field.value);
    if (refused === null) {
      load();
      follow();
    } else say(REFUSED[refused] ?? REFUSED.unknown, refused !== 'blank');
  }

  function load() {
    field.value = id === null ? '' : app.drafts.get(id);
    changed();
  }

  /** The box is as high as its text, up to what the style allows; near the end it counts. */
  function changed() {
    field.style.height = 'auto';
    if (field.scrollHeight > 0) field.style.height = `${field.scrollHeight}px`;
    const left = TEXT_LIMIT - textLength(field.value);
    if (left > NEAR) say('', false);
    else if (left >= 0) say(`${left} characters left`, false);
    else say(left === -1 ? '1 character too many' : `${-left} characters too many`, true);
  }

  function say(words, isBad) {
    // A counter that is read out at each key would drown what is typed.
    attr(note, 'aria-live', isBad ? 'polite' : 'off');
    attr(field, 'aria-invalid', isBad ? 'true' : null);
    text(note, words);
    toggleClass(note, 'bad', isBad);
  }

  /** Shows the composer of this conversation; the text of another one is not in it for a moment. */
  function draw(state, conversation, now) {
    const mayWrite = may(state, 'send');
    const next = conversation?.id ?? null;
    show(form, next !== null);
    show(box, mayWrite);
    show(byId('composer-foot'), mayWrite);
    show(why, !mayWrite);
    text(why, mayWrite ? '' : MAY_NOT);
    const closed = mayWrite && next !== null && windowOf(conversation, now, state.session)?.why;
    text(free, closed || '');
    show(free, Boolean(closed));
    if (next === id) return;
    id = next;
    load();
  }

  /** Puts the cursor into the box; false when there is none. */
  function focus() {
    if (id === null || box.hidden) return false;
    field.focus();
    return true;
  }

  return { draw, focus, sent: (told) => { follow = told; } };
}
