// What the reader has chosen for this browser: shortcuts and notices.

const PREFIX = 'gateway.inbox.pref.';

/** The choice called `name`, or null; also where the browser keeps nothing. */
export function get(name) {
  try {
    return localStorage.getItem(PREFIX + name);
  } catch {
    return null;
  }
}

/** Remembers a choice, where the browser lets it. */
export function set(name, value) {
  try {
    localStorage.setItem(PREFIX + name, value);
  } catch {
    // A full or forbidden storage: the choice holds until the page is left.
  }
}
