// Asks the gateway: every request of the page but the feed; answers are JSON, failures `ApiError`s.

import { clock as pageClock } from './clock.js';

/** How long an answer may take. */
const PATIENCE_MS = 20_000;

/** How a request failed; what `types.js` calls `ApiError`. */
export class ApiError extends Error {
  /** @param {Partial<import('./types.js').ApiError>} told */
  constructor({ status = 0, code = 'unreadable', detail = '', errors = [], retryAfter = null }) {
    super(detail || code);
    this.name = 'ApiError';
    this.status = status;
    this.code = code;
    this.detail = detail;
    this.errors = errors;
    this.retryAfter = retryAfter;
  }

  /** A plain copy, for the state and for storage. @returns {import('./types.js').ApiError} */
  toJSON() {
    const { status, code, detail, errors, retryAfter } = this;
    return { status, code, detail, errors, retryAfter };
  }
}

/**
 * The seconds that `Retry-After` asks for, or null.
 * @param {string|null} header
 * @param {number} now
 */
export function parseRetryAfter(header, now) {
  if (header === null || header.trim() === '') return null;
  const seconds = Number(header);
  if (Number.isFinite(seconds)) return Math.max(0, seconds);
  const at = Date.parse(header);
  return Number.isFinite(at) ? Math.max(0, (at - now) / 1000) : null;
}

/**
 * The error that a response is.
 * @param {Response} response
 * @param {number} now
 */
export async function readProblem(response, now) {
  const { status } = response;
  const retryAfter = parseRetryAfter(response.headers.get('Retry-After'), now);
  const type = response.headers.get('Content-Type') ?? '';
  const problem = type.includes('json') ? await response.json().catch(() => null) : null;
  const isProblem = problem !== null && typeof problem === 'object';
  if (!isProblem) {
    const detail = `The answer was ${status}.`;
    return new ApiError({ status, code: 'unreadable', detail, retryAfter });
  }
  const errors = Array.isArray(problem.errors) ? problem.errors : [];
  const detail = String(problem.detail ?? problem.title ?? '');
  return new ApiError({ status, code: String(problem.code ?? ''), detail, errors, retryAfter });
}

const conversationPath = (id) => `/conversations/${encodeURIComponent(id)}`;
const messagePath = (id) => `/messages/${encodeURIComponent(id)}`;

function queryOf(values) {
  const given = Object.entries(values)
    .filter(([, value]) => ![null, undefined, false, ''].includes(value));
  const query = new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
  return given.length > 0 ? `?${query}` : '';
}

/**
 * All calls that the page makes. Each returns a promise of the answer's JSON and rejects with an
 * `ApiError`.
 * @param {object} [options]
 * @param {typeof fetch} [options.fetch]
 * @param {() => void} [options.onUnauthorized] Called when the session has ended.
 * @param {import('./clock.js').Clock} [options.clock]
 */
export function createApi({
  fetch = (...request) => globalThis.fetch(...request),
  onUnauthorized = () => undefined,
  clock = pageClock,
} = {}) {
  async function call(method, path, { body, headers = {}, isLogin = false } = {}) {
    const request = { method, headers: { Accept: 'application/json', ...headers } };
    if (body !== undefined) {
      request.body = JSON.stringify(body);
      request.headers['Content-Type'] = 'application/json';
    }
    const answer = await withPatience(clock, async (signal) => {
      const response = await fetch(path, { ...request, signal, cache: 'no-store' });
      if (!response.ok) throw await readProblem(response, clock.now());
      const text = await response.text();
      return text === '' ? null : parse(text, response.status);
    }).catch((error) => {
      if (error.status === 401 && !isLogin) onUnauthorized();
      throw error;
    });
    return answer;
  }
  return {
    /** A page of the list under a filter. */
    list: ({ channel, status, archived, unread, participant }, { cursor = null, limit }) =>
      call('GET', `/conversations${queryOf({
        channel, status, archived, unread, participant, cursor, limit,
      })}`),
    /** A conversation and a page of its messages, with what they hold. */
    thread: (id, { cursor = null, limit }) =>
      call('GET', `${conversationPath(id)}${queryOf({ cursor, limit, content: true })}`),
    /** Marks as read what had come in when so many had. */
    read: (id, inboundCount) =>
      call('POST', `${conversationPath(id)}/read`, { body: { inboundCount } }),
    /** @param {string} id @param {'open'|'closed'} status */
    setStatus: (id, status) =>
      call('POST', `${conversationPath(id)}/${status === 'closed' ? 'close' : 'reopen'}`),
    /** @param {string} id @param {boolean} isArchived */
    setArchived: (id, isArchived) =>
      call('POST', `${conversationPath(id)}/${isArchived ? 'archive' : 'unarchive'}`),
    /** Stores a message; the answer does not wait for the provider. */
    send: ({ channel, participantId, text, clientMessageId }) =>
      call('POST', '/messages/send', {
        body: { channel, to: participantId, text, clientMessageId },
        headers: { Prefer: 'respond-async' },
      }),
    /** Sends a failed message again; `ambiguous`: also if it may have arrived already. */
    retry: (id, { ambiguous = false } = {}) =>
      call('POST', `${messagePath(id)}/retry${queryOf({ ambiguous })}`),
    cancel: (id) => call('POST', `${messagePath(id)}/cancel`),
    /** Who is logged in. */
    session: () => call('GET', '/session', { isLogin: true }),
    login: (key) => call('POST', '/session', { body: { key }, isLogin: true }),
    logout: () => call('DELETE', '/session', { isLogin: true }),
    /** Makes the built-in mock write as a customer. */
    demo: () => call('POST', '/inbox/demo'),
  };
}

function parse(text, status) {
  try {
    return JSON.parse(text);
  } catch {
    throw new ApiError({ status, code: 'unreadable', detail: 'The answer was not JSON.' });
  }
}

/** Runs a request, and calls it off after a while. */
async function withPatience(clock, run) {
  const controller = new AbortController();
  let isLate = false;
  const cancel = clock.after(PATIENCE_MS, () => {
    isLate = true;
    controller.abort();
  });
  try {
    return await run(controller.signal);
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw isLate
      ? new ApiError({ code: 'timeout', detail: 'The gateway did not answer in time.' })
      : new ApiError({ code: 'offline', detail: 'The gateway can not be reached.' });
  } finally {
    cancel();
  }
}
