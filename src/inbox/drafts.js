// Keeps one draft for each conversation, across reloads and in step with the other tabs.

import { createStorage, prefixFor } from './storage.js';

/**
 * The drafts of a key's name.
 * @param {string|null} name
 * @param {object} [options]
 * @param {ReturnType<typeof createStorage>} [options.storage]
 * @param {(ids: string[]) => void} [options.onIds] Told which conversations have one.
 */
export function createDrafts(name, {
  storage = createStorage(prefixFor('draft', name)), onIds = () => undefined,
} = {}) {
  const listeners = new Set();
  const tellIds = () => onIds(storage.names());
  const stopWatching = storage.watch((id) => {
    tellIds();
    for (const listener of [...listeners]) listener(id);
  });
  const drafts = {
    /** @param {string} id A conversation's. @returns {string} */
    get: (id) => storage.get(id) ?? '',
    /** Keeps what is typed; an empty text ends the draft. */
    set(id, text) {
      const hadOne = storage.get(id) !== null;
      if (text === '') storage.remove(id);
      else storage.set(id, text);
      if (hadOne !== (text !== '')) tellIds();
    },
    /** Puts a text back that could not be sent, before what was typed since. */
    putBack(id, text) {
      const typed = drafts.get(id);
      drafts.set(id, typed === '' ? text : `${text}\n${typed}`);
      for (const listener of [...listeners]) listener(id);
    },
    /** Calls `listener(id)` when a draft changed otherwise than by `set` here; null: all.
     * @param {(id: string|null) => void} listener
     * @returns {() => void} Ends it. */
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    /** Forgets all of them: after logging out. */
    clear() {
      for (const id of storage.names()) storage.remove(id);
      tellIds();
      for (const listener of [...listeners]) listener(null);
    },
    /** Ends the watching of other tabs. */
    stop: stopWatching,
  };
  tellIds();
  return drafts;
}
