// The login: asks for a key, hands it over once, keeps it nowhere.

import { attr, byId, show, text } from './dom.js';

const WORDS = {
  401: 'This key is not known.',
  403: 'The gateway does not take a login from this address.',
  429: 'Too many tries. Wait a moment, then try again.',
};

const ENDED = 'The session has ended. Log in again: your drafts are kept.';

/** The login form. `login(key)` is a promise that rejects with the API's error. */
export function create({ login }) {
  const pane = byId('login');
  const key = byId('key');
  const button = pane.querySelector('button');
  let before = 'unknown';

  byId('login-form').addEventListener('submit', async (event) => {
    event.preventDefault();
    if (button.disabled || key.value.trim() === '') return;
    button.disabled = true;
    say('');
    try {
      await login(key.value.trim());
      key.value = '';
    } catch (error) {
      say(WORDS[error.status] ?? error.detail ?? 'The gateway cannot be reached.');
      key.select();
    } finally {
      button.disabled = false;
    }
  });

  function say(words) {
    text(byId('login-error'), words);
    attr(key, 'aria-invalid', words === '' ? null : 'true');
  }

  /** Shows the form when the state asks for a login, and the inbox when it has one. */
  function draw(state) {
    const isNeeded = state.login === 'needed';
    show(pane, isNeeded);
    show(byId('app'), state.login === 'done');
    if (isNeeded && before !== 'needed') {
      for (const open of document.querySelectorAll('dialog[open]')) open.close();
      show(byId('note'), false);
      say(before === 'done' && !left ? ENDED : '');
      left = false;
      key.focus();
    }
    before = state.login;
  }

  let left = false;
  return { draw, leaving: () => { left = true; } };
}
