// Says what the page's state, its inputs and its rows look like. Only types: nothing runs here.

/**
 * A conversation as the API tells it, and when this page heard it.
 * @typedef {object} Conversation
 * @property {string} id
 * @property {'whatsapp'|'instagram'} channel
 * @property {string} participantId
 * @property {string|null} [participantName] What the customer calls themselves, no more.
 * @property {string|null} [windowExpiresAt] Until then WhatsApp takes texts; null: see `window.js`.
 * @property {'open'|'closed'} status
 * @property {string} lastMessagePreview
 * @property {string} lastMessageAt
 * @property {'INBOUND'|'OUTBOUND'} lastMessageDirection
 * @property {number} unreadCount
 * @property {number} inboundCount How many the customer wrote, ever.
 * @property {string|null} lastReadAt
 * @property {string|null} archivedAt
 * @property {string} createdAt
 * @property {string} cursor Its place in the list; compare with `comparePlaces`.
 * @property {number} revision The copy with the higher one is the newer.
 * @property {number} heard The `tick` of the state that took this copy; not from the API.
 */

/**
 * A message as the API tells it, and when this page heard it.
 * @typedef {object} Message
 * @property {string} id
 * @property {string} conversationId
 * @property {string} channel
 * @property {string} participantId
 * @property {'INBOUND'|'OUTBOUND'} direction
 * @property {string} type What it is; never read that from `text`.
 * @property {string} text
 * @property {any} [content] The object of its type, as it came or was sent.
 * @property {{messageId: string|null, providerMessageId: string}|null} [replyTo]
 * @property {string|null} [participantName]
 * @property {'api'|'app'|'agent'|null} [origin] Who wrote an outbound one.
 * @property {Array<{from: string, emoji: string, at: string}>} [reactions]
 * @property {string|null} [editedAt]
 * @property {string|null} [deletedAt]
 * @property {'RECEIVED'|'PENDING'|'SENT'|'FAILED'} status
 * @property {string|null} clientMessageId
 * @property {string|null} providerMessageId
 * @property {number} retryCount
 * @property {string|null} nextAttemptAt When a failed one is tried again by itself.
 * @property {LastError|null} lastError
 * @property {'sent'|'delivered'|'read'|'played'|'failed'|null} [deliveryStatus]
 * @property {string|null} [deliveredAt]
 * @property {string|null} [readAt]
 * @property {{code: number|null, title: string|null, detail: string|null}|null} [deliveryError]
 * @property {string} timestamp
 * @property {string} createdAt
 * @property {string} updatedAt
 * @property {string|null} sentAt
 * @property {string} cursor
 * @property {number} revision
 * @property {number} heard
 */

/**
 * @typedef {object} LastError
 * @property {string} kind
 * @property {number|null} httpStatus
 * @property {string} detail
 * @property {boolean} retryable
 * @property {boolean} [ambiguous] The provider may have accepted it all the same.
 * @property {number|null} [code] The provider's own number for it.
 */

/**
 * What a message holds: a `label` that says what it is, its own words as `body`, further `facts`,
 * each a line, and a file. `isGone`: it was deleted.
 * @typedef {object} Contents
 * @property {string} label
 * @property {string} body
 * @property {readonly string[]} facts
 * @property {HeldFile|null} file
 * @property {boolean} isGone
 */

/**
 * A file that the gateway hands out.
 * @typedef {object} HeldFile
 * @property {'picture'|'sticker'|'film'|'sound'|'document'} kind
 * @property {string} name As the sender has named it, or ''.
 * @property {string} path
 */

/**
 * What this browser wants to send and the server has not confirmed.
 * @typedef {object} Unsent
 * @property {string} clientMessageId
 * @property {string} conversationId
 * @property {string} channel
 * @property {string} participantId
 * @property {string} text
 * @property {string} createdAt By the page's clock.
 * @property {'waiting'|'sending'|'refused'|'stored'} state `waiting` is sent by itself, as soon as
 *   it can; `refused` was not stored and waits for the agent; `stored` is known to the server, and
 *   shown only until its message arrives.
 * @property {ApiError|null} error Why it waits or was refused.
 * @property {number} nextTryAt When a waiting one is tried again, by the page's clock; 0 is now.
 */

/**
 * How a request failed.
 * @typedef {object} ApiError
 * @property {number} status 0 when there was no answer.
 * @property {string} code The problem's `code`, or `offline`, `timeout`, `unreadable`.
 * @property {string} detail
 * @property {Array<{field: string, message: string}>} errors
 * @property {number|null} retryAfter Seconds.
 */

/**
 * Which conversations the list shows.
 * @typedef {object} Filter
 * @property {'whatsapp'|'instagram'|null} channel
 * @property {'open'|'closed'|null} status
 * @property {boolean} archived
 * @property {boolean} unread
 * @property {string} participant What the participant begins with, by bytes.
 */

/**
 * The part of a list that is known without a hole: from its top down to `end`.
 * @typedef {object} Part
 * @property {boolean} loaded A first page is there.
 * @property {string|null} end The place of the last known row; null: the list ends there.
 * @property {boolean} stale Something may have been missed: fetch it again.
 * @property {number} kept How many rows were fetched; much more than that is let go again.
 * @property {ApiError|null} error Why the last fetch failed.
 */

/**
 * @typedef {object} Thread
 * @property {string} id
 * @property {ReadonlyMap<string, Message>} messages By id; only those in the part are shown.
 * @property {boolean} loaded
 * @property {string|null} end As in `Part`.
 * @property {boolean} stale
 * @property {number} opened The tick at which it was opened; answers to older questions are void.
 * @property {number} below At least so many inbound messages are older than the part.
 * @property {number} counted The tick at which that was last counted.
 * @property {number} kept How many messages were there after the last page.
 * @property {ApiError|null} error `status` 404: there is no such conversation.
 */

/**
 * @typedef {object} Session
 * @property {string|null} name The key's name; null without keys.
 * @property {string[]} scopes
 * @property {string|null} [expiresAt]
 * @property {boolean} [demo] The mock is built in: the page may ask it to write.
 * @property {boolean} [whatsapp] The channel `whatsapp` is a number of WhatsApp's own.
 */

/**
 * Everything the page shows. Never changed in place: compare with `===`.
 * @typedef {object} State
 * @property {number} tick Grows with each change. A request notes it (`since`) when it asks.
 * @property {number} fence The tick of the last reset: answers to what was asked before are void.
 * @property {number} forgotten The tick of the last time that rows were let go.
 * @property {Session|null} session
 * @property {'unknown'|'needed'|'done'} login `needed`: show the login.
 * @property {Filter} filter
 * @property {ReadonlyMap<string, Conversation>} conversations All known ones; see `visible`.
 * @property {ReadonlySet<string>} absent Known ones that the server no longer lists.
 * @property {Part} list The list under `filter`.
 * @property {Part} unread The list of all unread ones, for their number.
 * @property {string|null} open The conversation that is shown.
 * @property {ReadonlyMap<string, Thread>} threads The open one and some that were.
 * @property {ReadonlyArray<Unsent>} outbox In the order of typing.
 * @property {ReadonlySet<string>} drafts The conversations that have a draft.
 * @property {{state: 'live'|'connecting'|'offline', retryAt: number|null}} feed
 * @property {string|null} version The server's when the page began.
 * @property {boolean} reload The server has another version now: offer to load the page again.
 */

/**
 * A feed event: its name and its parsed data. `hello` also says whether the stream is `fresh`, that
 * is, resumes nothing.
 * @typedef {{type: string, data: object, fresh?: boolean}} FeedEvent
 */

/**
 * What the reducer takes. `since` is `state.tick` when the question was asked; `chain` the tick at
 * which a refetch page by page, from the top, began (absent when older rows are added);
 * `cut` ends the part with this page, whatever was below it.
 * @typedef {(
 *   {type: 'batch', inputs: Input[]}
 * | {type: 'events', events: FeedEvent[]}
 * | {type: 'feed', state: 'live'|'connecting'|'offline', retryAt?: number|null}
 * | {type: 'session', session: Session|null, login: 'unknown'|'needed'|'done'}
 * | {type: 'logout'}
 * | {type: 'filter', filter: Partial<Filter>}
 * | {type: 'list.page', list: 'list'|'unread', filter: Filter, from: string|null,
 *    next: string|null, rows: object[], since: number, chain?: number, cut?: boolean}
 * | {type: 'list.failed', list: 'list'|'unread', error: ApiError}
 * | {type: 'open', id: string|null}
 * | {type: 'thread.page', conversation: object, from: string|null, next: string|null,
 *    messages: object[], since: number, chain?: number, count?: number, cut?: boolean}
 * | {type: 'thread.failed', id: string, error: ApiError}
 * | {type: 'conversation', conversation: object, since: number}
 * | {type: 'message', message: object, since: number}
 * | {type: 'outbox', items: Unsent[]}
 * | {type: 'drafts', ids: Iterable<string>}
 * )} Input
 * `conversation` and `message` are the answers to close, reopen, archive, unarchive, read, and to
 * send, retry, cancel. `count` is the `inboundCount` that the chain's first page said.
 */

/**
 * What a thread shows: a message, or one that is not stored yet. `key` stays the same when the
 * second becomes the first, so it is one bubble.
 * @typedef {{key: string, message: Message|null, unsent: Unsent|null}} Item
 */

export {};
