// Why a message has not gone out, in words for the person who wrote it, and what can be done.

import { channelName } from './channels.js';
import { problemOf, reasonOf, undelivered } from './reasons.js';

/** A pending message that is older than this waits for something, in milliseconds. */
const LONG_PENDING_MS = 10_000;

/** How it begins where the other side may have it: that it was not sent is not known. */
const DOUBTFUL = 'Not certain that it was sent';

/** What is said when all is well. */
const NONE = Object.freeze({
  text: '', detail: '', rest: '', retry: '', cancel: '', asks: false, tone: '',
});

/**
 * What to say below an item of the thread: `text`, the other side's own words as `detail`, the
 * `rest` of the sentence, the words on the buttons `retry` and `cancel` (empty: no button), whether
 * it `asks` before sending again, and the `tone`: `bad` where nothing happens without the reader,
 * `warn` where it is tried again by itself, else none. `clock` shows a time as the reader's does.
 * `hasStatuses`: the other side may yet tell by itself what became of a message.
 */
export function trouble({ message, unsent }, now, clock, hasStatuses = false) {
  if (unsent) return ofUnsent(unsent, now, clock);
  if (message.status === 'PENDING') return ofPending(message, now);
  if (message.status === 'FAILED') return ofFailed(message, now, clock, hasStatuses);
  return message.deliveryStatus === 'failed' ? ofUndelivered(message) : NONE;
}

/** The server does not have it: sending it again is harmless. */
function ofUnsent({ state, error, nextTryAt, channel }, now, clock) {
  if (state === 'refused') {
    const known = problemOf(error ?? {}, channelName(channel));
    const detail = known ? '' : error?.errors?.[0]?.message ?? error?.detail ?? '';
    const text = `Not stored: ${known ?? 'the gateway refused it'}`;
    const buttons = { retry: 'Try again', cancel: 'Take back' };
    return { ...NONE, text, detail, rest: '.', ...buttons, tone: 'bad' };
  }
  if (state !== 'waiting' || !error) return NONE;
  const reason = error.status === 0 ? 'the gateway cannot be reached' : 'the gateway is busy';
  const rest = again(nextTryAt, now, clock);
  return { ...NONE, text: `Not stored yet: ${reason}`, rest, cancel: 'Take back' };
}

function ofPending(message, now) {
  if (now - Date.parse(message.createdAt) < LONG_PENDING_MS) return NONE;
  return { ...NONE, text: 'Stored, not sent yet', rest: '.', cancel: 'Cancel' };
}

function ofFailed(message, now, clock, hasStatuses) {
  const { lastError, nextAttemptAt } = message;
  if (lastError?.kind === 'canceled') {
    return { ...NONE, text: 'Canceled, not sent', rest: '.', retry: 'Send after all' };
  }
  const name = channelName(message.channel);
  const reason = reasonOf(lastError, name);
  const asks = lastError?.ambiguous === true;
  const maybe = codeOf(lastError) + (asks ? '. The customer may have it already' : '');
  const said = { ...NONE, detail: lastError?.detail ?? '', asks, tone: 'bad' };
  if (!nextAttemptAt) {
    const lead = asks ? DOUBTFUL : 'Not sent';
    return { ...said, text: `${lead}: ${reason}`, rest: `${maybe}.`, retry: 'Retry' };
  }
  const at = Date.parse(nextAttemptAt);
  const isTold = asks && hasStatuses;
  const rest = maybe + (isTold ? until(at, now, clock, name) : again(at, now, clock));
  const buttons = { retry: 'Retry now', cancel: 'Cancel' };
  const lead = asks ? DOUBTFUL : 'Not sent yet';
  return { ...said, text: `${lead}: ${reason}`, rest, ...buttons, tone: 'warn' };
}

/** It has left us, and has not arrived: to send it once more is for its writer to decide. */
function ofUndelivered({ deliveryError, channel }) {
  const { title = null, detail = null } = deliveryError ?? {};
  const reason = undelivered(deliveryError, channelName(channel));
  const bare = (each) => each?.toLowerCase().replace(/[.!\s]+$/u, '');
  const words = [title, bare(title) === bare(detail) ? null : detail].filter(Boolean);
  const rest = `${codeOf(deliveryError)}.`;
  return { ...NONE, text: `Not delivered: ${reason}`, detail: words.join(': '), rest, tone: 'bad' };
}

const codeOf = (error) => (Number.isFinite(error?.code) ? `, code ${error.code}` : '');

function again(at, now, clock) {
  if (at <= now) return '. Tries again now.';
  return `. Tries again at ${clock(new Date(at).toISOString())}.`;
}

/** What may have arrived is not sent at its time as a matter of course: first it is looked at. */
function until(at, now, clock, name) {
  const end = at <= now ? '' : ` until ${clock(new Date(at).toISOString())}`;
  return `. Waits for ${name} to tell${end}.`;
}
