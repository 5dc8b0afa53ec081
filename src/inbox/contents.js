// Says what a message holds, read from its `type` and `content`; what neither has, nobody guesses.

import { cut } from './format.js';

/** @typedef {import('./types.js').Message} Message */
/** @typedef {import('./types.js').Contents} Contents */
/** @typedef {import('./types.js').HeldFile} HeldFile */

/** So many lines of a message beside its text, and so many characters of each. */
const MOST_FACTS = 20;
const MOST_CHARACTERS = 300;
/** A file's name is shown with so many characters of its start and its end. */
const NAME_START = 80;
const NAME_END = 20;
/** What turns the order of letters around, so that `exe` may look like an ending it is not. */
const UNSEEN = /[\p{Cc}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;
/** What an id of a file looks like at the provider; the gateway asks for no other. */
const FILE_ID = /^\d{1,64}$/u;

/** A text alone. @type {Contents} */
const PLAIN = Object.freeze({
  label: '', body: '', facts: Object.freeze([]), file: null, isGone: false,
});

/** How a file of this type is shown. @type {Record<string, HeldFile['kind']>} */
const FILES = {
  image: 'picture', sticker: 'sticker', video: 'film', audio: 'sound', voice: 'sound',
  document: 'document',
};

const LABELS = {
  image: 'Image', sticker: 'Sticker', video: 'Video', audio: 'Audio', voice: 'Voice message',
  document: 'Document', location: 'Location', contacts: 'Contact', button: 'Chosen answer',
  interactive: 'Answer', order: 'Order', template: 'Template', system: 'Notice',
  unsupported: 'Cannot be shown here', request_welcome: 'Opened the chat',
};

const ANSWERS = {
  button_reply: 'Chosen answer', list_reply: 'Chosen from a list', nfm_reply: 'Form',
  call_permission_reply: 'Answer to a call request',
};

/** What a type has beside its text: `(content, message)` to a part of the contents. */
const KINDS = {
  image: media, sticker: media, video: media, audio: media, voice: media, document: media,
  location, contacts, interactive, order, template, unsupported,
};

/**
 * What a message holds. A customer may type `[image]`: that is a text, whatever it says.
 * @param {Message} message
 * @returns {Contents}
 */
export function contentsOf(message) {
  const { type = 'text', text, content, deletedAt } = message;
  if (deletedAt) return { ...PLAIN, isGone: true };
  if (type === 'text') return { ...PLAIN, body: text };
  const label = own(LABELS, type) ?? type;
  const said = { ...PLAIN, label, body: text };
  const isKnown = isObject(content) && content.truncated !== true;
  const part = isKnown ? own(KINDS, type)?.(content, message) ?? {} : {};
  const facts = (part.facts ?? []).filter((fact) => fact !== '').slice(0, MOST_FACTS);
  return { ...said, ...part, facts: facts.map((fact) => cut(fact, MOST_CHARACTERS)) };
}

/** A message in one line: for who quotes it, and for who hears it. @param {Message} message */
export function summary(message) {
  const { label, body, facts, file, isGone } = contentsOf(message);
  if (isGone) return 'Deleted message';
  const words = body || file?.name || facts[0] || '';
  return [label, words].filter((word) => word !== '').join(': ').replace(/\s+/gu, ' ').trim();
}

function media(content, { id, channel, type, text, editedAt }) {
  const name = fileName(content.filename);
  const isHere = channel === 'whatsapp' && FILE_ID.test(word(content.id));
  const file = isHere
    ? { kind: FILES[type], name, path: `/messages/${encodeURIComponent(id)}/media` } : null;
  const link = word(content.link);
  // Without a caption the text only says that there is a file, which is seen.
  const isSaid = word(content.caption) !== '' || Boolean(editedAt) || (!file && link === '');
  const body = isSaid && text !== word(content.filename) ? text : '';
  const isVoice = type === 'audio' && content.voice === true;
  const facts = file ? [] : [name, link];
  return { body, file, facts, ...(isVoice ? { label: LABELS.voice } : {}) };
}

/** A place: numbers, and a link that is made of nothing else. */
function location(content, { text }) {
  const latitude = coordinate(content.latitude, 90);
  const longitude = coordinate(content.longitude, 180);
  const facts = [word(content.name), word(content.address)];
  if (latitude === null || longitude === null) return { body: text, facts: [word(content.url)] };
  const [north, east] = [latitude, longitude].map((number) => Number(number.toFixed(6)));
  const map = `https://www.openstreetmap.org/?mlat=${north}&mlon=${east}`;
  return { body: '', facts: [...facts, `${north}, ${east}`, map, word(content.url)] };
}

function contacts(content, { text }) {
  const people = list(content).map((person) => {
    const { formatted_name: full, first_name: first, last_name: last } = person.name ?? {};
    const name = word(full) || line([word(first), word(last)], ' ');
    const phones = list(person.phones).map(({ phone, wa_id: id }) => word(phone) || word(id));
    const emails = list(person.emails).map(({ email }) => word(email));
    return line([name, word(person.org?.company), ...phones, ...emails], ' · ');
  });
  const label = people.length > 1 ? 'Contacts' : LABELS.contacts;
  return people.some((each) => each !== '') ? { label, body: '', facts: people } : { body: text };
}

function interactive(content) {
  const kind = Object.keys(ANSWERS).find((name) => isObject(content[name]));
  if (!kind) return {};
  const reply = content[kind];
  const facts = kind === 'nfm_reply' ? filledIn(reply.response_json) : [word(reply.description)];
  return { label: ANSWERS[kind], facts };
}

/** What was filled into a form: its fields that are words, numbers, or yes and no. */
function filledIn(json) {
  let form = null;
  try {
    form = JSON.parse(word(json));
  } catch {
    return [];
  }
  if (!isObject(form) || Array.isArray(form)) return [];
  return Object.entries(form).filter(([name]) => name !== 'flow_token')
    .map(([name, value]) => (scalar(value) === '' ? '' : `${name}: ${scalar(value)}`));
}

function order(content) {
  const facts = list(content.product_items).map((item) => {
    const price = line([scalar(item.item_price), word(item.currency)], ' ');
    const what = line([word(item.product_retailer_id), price], ', ');
    return what === '' ? '' : `${scalar(item.quantity) || '?'} × ${what}`;
  });
  return { facts };
}

/** A template has its words at the provider: what is known here are its name and its values. */
function template(content, { text }) {
  const { name, language } = content;
  const code = word(language) || word(language?.code);
  const values = list(content.components).flatMap(({ parameters }) =>
    list(parameters).map((value) => word(value.text) || word(value.payload)));
  const isName = [word(name), `[template] ${word(name)}`].includes(text);
  return { body: isName ? '' : text, facts: [line([word(name), code], ' · '), ...values] };
}

function unsupported(content) {
  const [error] = list(content.errors);
  const detail = word(error?.error_data?.details) || word(error?.details) || word(error?.message);
  return { facts: [line([word(error?.title), detail], ': ')] };
}

/** A number within `most` of zero, also one that came as a text; else null. */
function coordinate(value, most) {
  const number = word(value) === '' ? value : Number(value);
  const isPlace = typeof number === 'number' && Math.abs(number) <= most;
  return isPlace ? number : null;
}

/** The name of a file as it is shown: in one order, and never so long that its ending is lost. */
function fileName(value) {
  const name = word(value).replace(UNSEEN, '');
  const characters = [...name];
  if (characters.length <= NAME_START + NAME_END) return name;
  return `${characters.slice(0, NAME_START).join('')}…${characters.slice(-NAME_END).join('')}`;
}

const isObject = (value) => typeof value === 'object' && value !== null;
const own = (table, key) => (Object.hasOwn(table, key) ? table[key] : undefined);
const word = (value) => (typeof value === 'string' ? value.trim() : '');
const list = (value) => (Array.isArray(value) ? value.filter(isObject) : []);
const line = (words, between) => words.filter((each) => each !== '').join(between);
const scalar = (value) =>
  (['number', 'boolean'].includes(typeof value) ? String(value) : word(value));
