// How far a message of ours has come: a mark, and the same in words.

/** What the mark `failed` means depends on who failed; the others mean one thing each. */
const WORDS = {
  pending: 'Sending', sent: 'Sent', delivered: 'Delivered', read: 'Read', played: 'Played',
};

/** The icon of a mark. */
const ICONS = {
  pending: 'pending', sent: 'sent', delivered: 'twice', read: 'twice', played: 'twice',
  failed: 'failed',
};

/**
 * The mark of an item of the thread, its icon, and its words, with the time where that is known;
 * null for what the customer wrote. `clock` shows a time as the reader's does.
 * @param {import('./types.js').Item} item
 * @param {(iso: string) => string} clock
 * @returns {{mark: string, icon: string, words: string}|null}
 */
export function tickOf(item, clock) {
  const mark = markOf(item);
  if (mark === '') return null;
  if (mark === 'failed') return { mark, icon: ICONS.failed, words: failed(item) };
  const { deliveredAt, readAt } = item.message ?? {};
  const at = { delivered: deliveredAt, read: readAt, played: readAt }[mark];
  return { mark, icon: ICONS[mark], words: at ? `${WORDS[mark]} ${clock(at)}` : WORDS[mark] };
}

function failed({ message }) {
  if (message?.status === 'SENT') return 'Not delivered';
  return message?.lastError?.ambiguous === true ? 'Not certain that it was sent' : 'Not sent';
}

/** How far an item has come: '' for what the customer wrote. */
export function markOf({ message, unsent }) {
  if (unsent) return unsent.state === 'refused' ? 'failed' : 'pending';
  if (message.direction === 'INBOUND') return '';
  if (message.status === 'FAILED') return 'failed';
  if (message.status !== 'SENT') return 'pending';
  const { deliveryStatus } = message;
  return Object.hasOwn(ICONS, deliveryStatus) ? deliveryStatus : 'sent';
}
