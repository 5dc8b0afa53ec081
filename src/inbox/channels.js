// The channels as people know them: their names, and a round picture with its name for ears.

import { attr, el, icon, setIcon } from './dom.js';

const NAMES = { whatsapp: 'WhatsApp', instagram: 'Instagram' };

/** A channel's name as people write it. */
export function channelName(channel) {
  return NAMES[channel] ?? channel;
}

/** A picture without a channel yet. */
export function badge() {
  return el('span', { class: 'channel', role: 'img' }, icon('chat'));
}

/** Shows this channel in a picture; one that the page does not know is a plain bubble. */
export function showChannel(node, channel) {
  setIcon(node.firstElementChild, Object.hasOwn(NAMES, channel) ? channel : 'chat');
  attr(node, 'data-channel', channel);
  attr(node, 'aria-label', channelName(channel));
  attr(node, 'title', channelName(channel));
}
