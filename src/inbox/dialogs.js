// Questions and short notes: one dialog that asks, one line that says what went wrong.

import { byId, show, text } from './dom.js';

/** A note stays so long, in milliseconds. */
const NOTE_MS = 8000;

/** Asks before something that cannot be undone; true when the reader says yes. */
export function ask(title, question, yes) {
  const dialog = byId('ask');
  text(byId('ask-title'), title);
  text(byId('ask-text'), question);
  text(byId('ask-yes'), yes);
  return new Promise((resolve) => {
    dialog.returnValue = 'no';
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true });
    dialog.showModal();
  });
}

let timer = 0;

/** Says something for a moment. */
export function note(words) {
  const line = byId('note');
  clearTimeout(timer);
  show(line, true);
  text(line, words);
  timer = setTimeout(() => {
    text(line, '');
    show(line, false);
  }, NOTE_MS);
}
