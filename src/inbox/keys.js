// Keyboard shortcuts, their help panel, and the switch that turns single letters off for good.

import { byId, el } from './dom.js';

const KEYS = [
  [['j', '↓'], 'Next conversation'],
  [['k', '↑'], 'Previous conversation'],
  [['Enter'], 'Open the conversation'],
  [['r'], 'Reply'],
  [['e'], 'Close or reopen the conversation'],
  [['/'], 'Search'],
  [['?'], 'This help'],
  [['Esc'], 'Leave a field, or go back to the list'],
];

/**
 * Listens for keys. `actions` has one function each: `move(step)`, `reply`, `close`, `search`,
 * `escape`; `settings` reads and keeps the reader's choice (`get(name)`, `set(name, value)`).
 */
export function start(actions, settings) {
  const help = byId('help');
  const on = byId('keys-on');
  on.checked = settings.get('keys') !== 'off';
  on.addEventListener('change', () => settings.set('keys', on.checked ? 'on' : 'off'));
  byId('help-open').addEventListener('click', () => help.showModal());
  fillHelp();

  document.addEventListener('keydown', (event) => {
    if (event.defaultPrevented || event.isComposing || event.keyCode === 229) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector('dialog[open]')) return;
    if (handle(event)) event.preventDefault();
  });

  function handle(event) {
    if (event.key === 'Escape') return actions.escape(event.target);
    if (isField(event.target)) return false;
    if (inList(event.target)) {
      if (event.key === 'ArrowDown') return actions.move(1);
      if (event.key === 'ArrowUp') return actions.move(-1);
    }
    return on.checked && letter(event);
  }

  function letter(event) {
    if (event.repeat && event.key !== 'j' && event.key !== 'k') return false;
    switch (event.key) {
      case 'j': return actions.move(1);
      case 'k': return actions.move(-1);
      case 'r': return actions.reply();
      case 'e': return actions.close();
      case '/': return actions.search();
      case '?': help.showModal(); return true;
      default: return false;
    }
  }
}

function isField(target) {
  return within(target, 'input, textarea, select, [contenteditable]');
}

/** Arrows scroll the thread where that has the focus; elsewhere they move in the list. */
function inList(target) {
  return target === document.body || within(target, '.list-pane');
}

function within(target, selector) {
  return target instanceof Element && target.closest(selector) !== null;
}

function fillHelp() {
  byId('help-keys').replaceChildren(...KEYS.flatMap(([keys, what]) => [
    el('dt', {}, ...keys.map((key) => el('kbd', { text: key }))),
    el('dd', { text: what }),
  ]));
}
