// What a customer calls themselves: beside who they are, never in its place.

import { attr, show, text } from './dom.js';

/** Shows the name that a customer has given, which says nothing of who it is. */
export function showPerson(node, name) {
  text(node, name ?? '');
  attr(node, 'title', name ? `Calls themselves: ${name}` : null);
  show(node, Boolean(name));
}
