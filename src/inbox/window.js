// The 24 hours in which a customer of WhatsApp may be answered freely, in words.

import { duration } from './format.js';

/** What the composer says outside of them: it is Meta's word that counts, not ours. */
const OVER = 'The 24 hours since the customer last wrote are over: WhatsApp takes only templates ' +
  'now. A message can be tried all the same.';
const NEVER = 'The customer has not written to this number yet: WhatsApp takes only templates. ' +
  'A message can be tried all the same.';

/** Whether a channel is a number of WhatsApp's own, and not of a provider that plays it. */
export const isOnWhatsapp = (session, channel) =>
  channel === 'whatsapp' && session?.whatsapp === true;

/**
 * Whether the window of a conversation is open, that in a few words, and `why` not; null where it
 * has none. WhatsApp has one for every customer, also for one who has never written.
 * @param {import('./types.js').Conversation} conversation
 * @param {number} now
 * @param {import('./types.js').Session|null} session
 */
export function windowOf({ channel, windowExpiresAt = null }, now, session) {
  if (windowExpiresAt === null && isOnWhatsapp(session, channel)) {
    return { isOpen: false, words: 'Window not open', why: NEVER };
  }
  const end = Date.parse(windowExpiresAt ?? '');
  if (!Number.isFinite(end)) return null;
  if (end <= now) return { isOpen: false, words: 'Window closed', why: OVER };
  return { isOpen: true, words: `Window closes in ${duration(end - now)}`, why: '' };
}
