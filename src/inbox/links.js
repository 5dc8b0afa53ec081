// Splits a text into text nodes and links; only whole http and https addresses become links.

import { el } from './dom.js';

/** Ends at spaces, quotes, control characters, and marks that change the direction of a text. */
const ADDRESS =
  /\bhttps?:\/\/[^\s<>"'`\u0000-\u001f\u007f\u200e\u200f\u202a-\u202e\u2066-\u2069]+/giu;
const MAX_LINKS = 100;

/** Nodes for a text; the address that is shown is the address that is opened. */
export function linkify(value) {
  const nodes = [];
  let done = 0;
  let count = 0;
  for (const match of value.matchAll(ADDRESS)) {
    const address = trimmed(match[0]);
    if (!isWeb(address)) continue;
    nodes.push(value.slice(done, match.index), link(address));
    done = match.index + address.length;
    count += 1;
    if (count === MAX_LINKS) break;
  }
  nodes.push(value.slice(done));
  return nodes.filter((node) => node !== '');
}

function link(address) {
  return el('a', {
    href: address, target: '_blank', rel: 'noopener noreferrer nofollow', dir: 'ltr', text: address,
  });
}

/** Without the full stop, comma or bracket that belongs to the sentence around it. */
function trimmed(address) {
  const opened = address.indexOf('(');
  let end = address.length;
  while (end > 0 && /[.,;:!?)\]}»”’]/u.test(address[end - 1])) {
    if (address[end - 1] === ')' && opened !== -1 && opened < end - 1) break;
    end -= 1;
  }
  return address.slice(0, end);
}

/** A name before the host (`https://bank.example@evil.example`) is there to mislead: no link. */
function isWeb(address) {
  try {
    const { protocol, username, password } = new URL(address);
    return (protocol === 'http:' || protocol === 'https:') && username === '' && password === '';
  } catch {
    return false;
  }
}
