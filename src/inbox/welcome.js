// What the right pane shows without a conversation: how to begin, or what to do next.

import { el, icon, show } from './dom.js';

/** Fills `pane`. `actions.demo()` lets the built-in mock write; where there is none, no button. */
export function create(pane, actions) {
  let shown = '';

  function draw(state, isGone) {
    const kind = which(state, isGone);
    show(pane, kind !== '');
    if (kind === shown) return;
    shown = kind;
    pane.replaceChildren(...(KINDS[kind]?.(actions, state.session) ?? []));
  }

  return { draw };
}

function which(state, isGone) {
  if (isGone) return 'gone';
  if (state.open !== null) return '';
  if (document.body.hasAttribute('data-empty')) {
    if (state.session?.whatsapp) return 'number';
    return state.session?.demo ? 'demo' : 'empty';
  }
  return state.list.loaded ? 'choose' : 'wait';
}

const KINDS = {
  gone: () => [icon('chat'), el('h2', { text: 'There is no such conversation' }),
    el('p', { text: 'The address names one that this gateway does not have.' })],
  choose: () => [icon('chat'), el('h2', { text: 'No conversation is open' }),
    el('p', { text: 'Choose one from the list.' }), keysHint()],
  wait: () => [],
  number: () => [...nobody(), el('p', { text: 'To try it, write to your WhatsApp number.' })],
  empty: () => begin(),
  demo: (actions) => begin(el('button', {
    class: 'button primary', type: 'button', text: 'Let a customer write',
    on: { click: () => actions.demo() },
  })),
};

function keysHint() {
  const key = (name) => el('kbd', { text: name });
  return el('p', { class: 'welcome-keys' }, key('j'), ' ', key('k'), ' move, ', key('Enter'),
    ' opens, ', key('?'), ' shows all shortcuts');
}

function nobody() {
  return [
    icon('chat'),
    el('h2', { text: 'Nobody has written yet' }),
    el('p', { text: 'When a customer writes, the conversation is here at once.' }),
  ];
}

function begin(button) {
  const nodes = nobody();
  if (button) nodes.push(button);
  nodes.push(
    el('p', { class: 'welcome-how', text: `${button ? 'Or' : 'To try it,'} in a terminal:` }),
    el('pre', { tabindex: '0', 'aria-label': 'Command', text: command() }));
  return nodes;
}

/** One event, its id new each time the page is drawn, so that no try is a duplicate. */
function command() {
  const at = new Date();
  return [
    `curl ${location.origin}/webhooks/mock-meta \\`,
    "  -H 'content-type: application/json' \\",
    `  -d '{"eventId":"evt_${at.getTime()}","channel":"whatsapp","from":"user-123",`,
    `       "text":"Hello!","timestamp":"${at.toISOString()}"}'`,
  ].join('\n');
}
