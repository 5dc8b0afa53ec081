// Says times and texts as people read them: the reader's calendar, and whole characters.

import { clock, now, setClock } from './clock.js';

export { now, setClock };

/** How many characters a message may have, counted as the server does. */
export const TEXT_LIMIT = 4096;

const TICK_MS = 30_000;
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

const formatter = (options) => new Intl.DateTimeFormat(undefined, options);
const CLOCK = formatter({ hour: 'numeric', minute: '2-digit' });
const WEEKDAY = formatter({ weekday: 'short' });
const LONG_DAY = formatter({ weekday: 'long', day: 'numeric', month: 'long' });
const LONG_DATE = formatter({ weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' });
const SHORT_DAY = formatter({ day: 'numeric', month: 'short' });
const SHORT_DATE = formatter({ day: 'numeric', month: 'short', year: 'numeric' });
const ABSOLUTE = formatter({ dateStyle: 'full', timeStyle: 'medium' });

/** How many calendar days `date` lies before `today`, by the reader's calendar. */
function daysBetween(date, today) {
  const dayOf = (time) => Date.UTC(time.getFullYear(), time.getMonth(), time.getDate());
  return Math.round((dayOf(today) - dayOf(date)) / (24 * HOUR_MS));
}

const isSameYear = (a, b) => a.getFullYear() === b.getFullYear();

/** The time of day: '14:05'. @param {string} iso */
export const clockTime = (iso) => CLOCK.format(new Date(iso));

/** All of a time, for a title. @param {string} iso */
export const absoluteTime = (iso) => ABSOLUTE.format(new Date(iso));

/** What is equal for two times on one day of the reader's calendar. @param {string} iso */
export function dayKey(iso) {
  const date = new Date(iso);
  return `${date.getFullYear()}-${date.getMonth() + 1}-${date.getDate()}`;
}

/**
 * A day's name: 'Today', 'Yesterday', 'Monday, 3 March'.
 * @param {string} iso
 * @param {number} at
 */
export function dayTitle(iso, at = now()) {
  const [date, today] = [new Date(iso), new Date(at)];
  const days = daysBetween(date, today);
  if (days === 0) return 'Today';
  if (days === 1) return 'Yesterday';
  return (isSameYear(date, today) ? LONG_DAY : LONG_DATE).format(date);
}

/**
 * How long ago, as short as a list needs it: 'now', '5 min', '14:05', 'Yesterday', 'Mon', '3 Mar'.
 * @param {string} iso
 * @param {number} at
 */
export function relativeTime(iso, at = now()) {
  const [date, today] = [new Date(iso), new Date(at)];
  const passed = at - date.getTime();
  const days = daysBetween(date, today);
  if (passed >= -MINUTE_MS && passed < MINUTE_MS) return 'now';
  if (passed > 0 && passed < HOUR_MS) return `${Math.floor(passed / MINUTE_MS)} min`;
  if (days === 0) return CLOCK.format(date);
  if (days === 1) return 'Yesterday';
  if (days > 1 && days < 7) return WEEKDAY.format(date);
  return (isSameYear(date, today) ? SHORT_DAY : SHORT_DATE).format(date);
}

/**
 * A span of time in the largest unit that fits: '12 s', '3 min', '2 h', '4 days'.
 * @param {number} ms
 */
export function duration(ms) {
  const seconds = Math.max(1, Math.ceil(ms / 1000));
  if (seconds < 90) return `${seconds} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 36 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/**
 * Calls `tick` each half minute and when a day begins: one timer for all times of the page.
 * @param {(now: number) => void} tick
 * @returns {() => void} Ends it.
 */
export function ticker(tick) {
  let cancel = () => undefined;
  const wait = () => {
    const date = new Date(now());
    const midnight = new Date(date.getFullYear(), date.getMonth(), date.getDate() + 1).getTime();
    cancel = clock.after(Math.min(TICK_MS, Math.max(1, midnight - now())), () => {
      wait();
      tick(now());
    });
  };
  wait();
  return () => cancel();
}

/** How many characters a text has, as the server counts: Unicode scalar values. */
export function textLength(text) {
  let length = 0;
  for (const _ of text) length += 1;
  return length;
}

/**
 * Why the server would not take a text, or null.
 * @param {string} text
 * @returns {'blank'|'nul'|'long'|null}
 */
export function checkText(text) {
  if (text.trim() === '') return 'blank';
  if (text.includes('\0') || !isWellFormed(text)) return 'nul';
  return textLength(text) > TEXT_LIMIT ? 'long' : null;
}

/** Whether a text has no half of a surrogate pair alone. */
function isWellFormed(text) {
  return !/\p{Surrogate}/u.test(text);
}

const segmenter = new Intl.Segmenter(undefined, { granularity: 'grapheme' });

/**
 * The beginning of a text, cut between characters as people see them, never inside of one.
 * @param {string} text
 * @param {number} most How many of them.
 */
export function cut(text, most) {
  if (text.length <= most) return text;
  let count = 0;
  // A character of many code units is followed no further than this.
  for (const { index } of segmenter.segment(text.slice(0, most * 32))) {
    if (count === most) return `${text.slice(0, index)}…`;
    count += 1;
  }
  return text.length > most * 32 ? `${text.slice(0, most * 32)}…` : text;
}
