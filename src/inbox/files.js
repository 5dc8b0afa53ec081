// The files of messages: pictures when they are seen, sound and film when asked for, all else as a
// download. They come through the gateway alone, and what goes wrong is said in words.

import { readProblem } from './api.js';
import { attr, el, show, text } from './dom.js';
import { cut, now } from './format.js';

/** @typedef {import('./types.js').HeldFile} HeldFile */

/** So many pictures are loaded at a time: a browser has few connections, a key has four files. */
const MOST_AT_ONCE = 2;
/** How often a picture is asked for again when the gateway has too much to do. */
const MOST_TRIES = 4;
const AGAIN_MS = 1500;
/** A picture is asked for this far before it comes into sight. */
const AHEAD = '300px';
/** So long the gateway may think about what is wrong. */
const PATIENCE_MS = 20_000;
/** So long a downloaded file stays in the browser's memory, for the browser to store it. */
const KEEP_MS = 60_000;

/** So much of what a message says names its picture. */
const NAME_LENGTH = 120;

const NAMES = {
  picture: 'image', sticker: 'sticker', sound: 'audio', film: 'video', document: 'file',
};
const NOT_SHOWN = 'The browser cannot show this file.';

/** Makes the element of a file; `words` names it for a screen reader. @param {HeldFile} file */
export function make(file, words) {
  const note = el('p', { class: 'file-note', role: 'status', hidden: true });
  const link = download(file, note);
  const node = el('div', { class: `file ${file.kind}`, data: { testid: 'file' } });
  const failed = (why) => {
    text(note, why);
    show(note, true);
    show(link, true);
    node.classList.add('failed');
    // Its height is another now.
    node.dispatchEvent(new Event('resized', { bubbles: true }));
  };
  show(link, file.kind === 'document');
  const player = PLAYERS[file.kind]?.({ file, words, failed });
  node.append(...(player ? [player, note, link] : [link, note]));
  return node;
}

const PLAYERS = { picture, sticker: picture, sound: playerOf('audio'), film: playerOf('video') };

/** A picture in a box of its own size, so that nothing jumps when it comes. */
function picture({ file, words, failed }) {
  const image = el('img', { alt: cut(words, NAME_LENGTH), decoding: 'async' });
  const frame = el('a', {
    class: 'frame', href: file.path, target: '_blank', rel: 'noopener', title: 'Open it alone',
  }, image);
  pictures.set(frame, { image, path: file.path, failed, tries: 0, state: 'far' });
  sight.observe(frame);
  return frame;
}

function playerOf(tag) {
  return ({ file, words, failed }) => {
    const node = el(tag, { controls: true, preload: 'none', src: file.path });
    attr(node, 'aria-label', cut(words, NAME_LENGTH));
    node.addEventListener('error', async () => {
      const { why } = await whyNot(file.path);
      node.remove();
      failed(why);
    }, { once: true });
    return node;
  };
}

/** All pictures on the page, by their frames. */
const pictures = new WeakMap();
/** Those that are in sight and not there yet. */
const wanted = new Set();
let loading = 0;

const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const { state } = pictures.get(target);
    if (isIntersecting && state === 'far') wanted.add(target);
    else if (!isIntersecting) wanted.delete(target);
  }
  pump();
}, { rootMargin: AHEAD });

/** Loads what is wanted, some at a time. */
function pump() {
  for (const frame of wanted) {
    if (loading >= MOST_AT_ONCE) return;
    wanted.delete(frame);
    if (frame.isConnected) load(frame, pictures.get(frame));
    else sight.unobserve(frame);
  }
}

async function load(frame, told) {
  loading += 1;
  told.state = 'loading';
  told.tries += 1;
  const isThere = await new Promise((resolve) => {
    told.image.onload = () => resolve(true);
    told.image.onerror = () => resolve(false);
    attr(told.image, 'src', told.path);
  });
  const { why, isBusy, wait } = isThere ? {} : await whyNot(told.path);
  loading -= 1;
  if (isThere) {
    told.state = 'there';
    attr(frame, 'data-loaded', true);
  } else if (isBusy && told.tries < MOST_TRIES) again(frame, told, wait);
  else {
    frame.remove();
    told.failed(why);
  }
  if (isThere || !told.image.isConnected) sight.unobserve(frame);
  pump();
}

/** Asks again after a while: others had all places. */
function again(frame, told, wait) {
  told.image.removeAttribute('src');
  setTimeout(() => {
    told.state = 'far';
    // Observed anew, it says again whether it is in sight.
    sight.unobserve(frame);
    if (frame.isConnected) sight.observe(frame);
  }, wait);
}

/** A link that stores a file; a plain click says when that fails. @param {HeldFile} file */
function download(file, note) {
  const kind = NAMES[file.kind];
  const name = file.name === '' ? [] : [' ', el('bdi', { text: file.name })];
  const link = el('a', {
    class: 'download', href: file.path, download: safeName(file.name), data: { testid: 'download' },
  }, `Download ${file.name === '' ? `the ${kind}` : ''}`.trim(), ...name);
  let isUnderWay = false;
  const say = (words) => {
    text(note, words);
    show(note, words !== '');
  };
  link.addEventListener('click', async (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    if (isUnderWay) return;
    isUnderWay = true;
    say('Loading …');
    say(await store(file).then(() => '', (error) => error.message));
    isUnderWay = false;
  });
  return link;
}

/** Fetches a file whole and hands it to the browser; a broken one never arrives. */
async function store({ path, name }) {
  const response = await fetch(path, { cache: 'no-store' }).catch(() => null);
  if (!response?.ok) throw new Error(await reason(response));
  const blob = await response.blob().catch(() => null);
  if (!blob) throw new Error('The file broke off before its end.');
  const address = URL.createObjectURL(blob);
  el('a', { href: address, download: safeName(name) }).click();
  setTimeout(() => URL.revokeObjectURL(address), KEEP_MS);
}

/** Why a file is not there, which an element does not tell: asks for it once more. */
async function whyNot(path) {
  const control = new AbortController();
  const { signal } = control;
  const patience = setTimeout(() => control.abort(), PATIENCE_MS);
  const response = await fetch(path, { cache: 'no-store', signal }).catch(() => null);
  clearTimeout(patience);
  if (response?.ok) {
    control.abort();
    return { why: NOT_SHOWN, isBusy: false, wait: 0 };
  }
  const isBusy = response?.status === 503;
  const asked = Number(response?.headers.get('Retry-After') ?? 0) * 1000;
  const wait = Math.max(AGAIN_MS, Number.isFinite(asked) ? asked : 0);
  return { why: await reason(response), isBusy, wait };
}

async function reason(response) {
  if (!response) return 'The gateway cannot be reached.';
  const { status, detail } = await readProblem(response, now());
  const lead = status === 404 ? 'The file is not there' : 'The file could not be loaded';
  return detail === '' ? `${lead}.` : `${lead}: ${detail}`;
}

/** A name without what could lead elsewhere, or pretend to be another kind of file. */
function safeName(name) {
  const plain = name.replace(/[^\p{L}\p{N}.\-_]+/gu, '_').replace(/^[._]+/u, '');
  return plain.slice(-100);
}
