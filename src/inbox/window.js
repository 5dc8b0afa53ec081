// The 24 hours in which a customer of WhatsApp may be answered freely, in words.

import { duration } from './format.js';

/** What the composer says when they are over: it is Meta's word that counts, not ours. */
export const CLOSED = 'The 24 hours since the customer last wrote are over: WhatsApp takes only ' +
  'templates now. A message can be tried all the same.';

/**
 * Whether the window of a conversation is open, and that in a few words; null where there is none.
 * @param {import('./types.js').Conversation} conversation
 * @param {number} now
 */
export function windowOf({ windowExpiresAt }, now) {
  const end = windowExpiresAt ? Date.parse(windowExpiresAt) : Number.NaN;
  if (!Number.isFinite(end)) return null;
  const isOpen = end > now;
  return { isOpen, words: isOpen ? `Window closes in ${duration(end - now)}` : 'Window closed' };
}
