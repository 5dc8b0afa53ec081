// Why something was refused, in words: by the gateway's kind of error, Meta's code, a problem.

const KINDS = {
  rate_limited: (name) => `${name} asks to send more slowly`,
  server_error: (name) => `${name} had an error of its own`,
  timeout: (name) => `${name} did not answer in time`,
  connection: (name) => `${name} could not be reached`,
  unreadable: (name) => `${name}'s answer could not be understood`,
  rejected: (name) => `${name} refused it`,
  interrupted: () => 'the gateway was stopped while sending it',
  internal: () => 'the gateway had an error',
  unauthorized: (name) => `${name} does not accept the gateway's access`,
  window_closed: () => 'the customer has not written lately, so only templates may be sent',
};

/** Codes of Meta's that say more than their kind. */
const CODES = {
  130403: 'this message type is not allowed to this customer',
  130472: 'Meta leaves this customer out of marketing messages',
  131021: 'it was sent to the number that sends it',
  131026: 'this customer cannot get it: no WhatsApp, an old one, or the number is not theirs',
  131047: 'the customer has not written lately, so only templates may be sent',
  131048: 'Meta limits this number, since its messages were reported as spam',
  131049: 'Meta held it back, since the customer has had many marketing messages',
  131050: 'the customer does not want marketing messages',
  131051: 'this kind of message is not known there',
  131052: 'the file could not be taken from the customer',
  131053: 'the file could not be taken by WhatsApp',
  131056: 'too many messages to this customer in a short time',
  132000: 'the template has another number of values',
  132001: 'there is no such template in this language',
  132005: 'the template is too long with these values',
  132007: 'the template breaks a rule of WhatsApp',
  132012: 'a value of the template has the wrong form',
  132015: 'the template is paused',
  132016: 'the template is disabled',
};

/** The gateway's problems that a person can do something about. */
const PROBLEMS = {
  ambiguous: () => 'the customer may have it already, and it was not said to send it all the same',
  participant_changed: () =>
    'this number belongs to somebody else now, who has a conversation of their own',
  channel_not_connected: (name) => `${name} is not connected to this gateway`,
};

const own = (table, key) => (Object.hasOwn(table, key) ? table[key] : undefined);

/** Why an attempt failed: `error` is a message's `lastError`, `name` the channel's. */
export function reasonOf(error, name) {
  const { kind, code, ambiguous } = error ?? {};
  const isPlain = kind === 'rejected' && own(CODES, code) !== undefined;
  if (isPlain) return CODES[code];
  if (kind === 'connection' && ambiguous === true) return `the connection to ${name} broke`;
  return own(KINDS, kind)?.(name) ?? 'the reason is not known';
}

/** Why it was not delivered: `error` is a message's `deliveryError`. */
export function undelivered(error, name) {
  const { code, title } = error ?? {};
  return own(CODES, code) ?? (title ? `${name} says` : 'the reason is not known');
}

/** A problem of the gateway in words, or null: then its own detail says it. */
export const problemOf = ({ code }, name) => own(PROBLEMS, code)?.(name) ?? null;
