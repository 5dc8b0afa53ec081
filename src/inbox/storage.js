// Keeps small texts in the browser across reloads; goes on in memory where the browser refuses.

/**
 * What drafts and the outbox are kept in: the browser's storage under a prefix.
 * @param {string} prefix Which of the keys are ours.
 * @param {object} [options]
 * @param {Storage|null} [options.local]
 * @param {EventTarget} [options.events] Where other tabs' changes are told.
 */
export function createStorage(prefix, { local = openLocal(), events = globalThis } = {}) {
  /** What could not be written. @type {Map<string, string>} */
  const memory = new Map();
  return {
    /** @param {string} name @returns {string|null} */
    get: (name) => memory.get(name) ?? local?.getItem(prefix + name) ?? null,
    /** @param {string} name @param {string} value */
    set(name, value) {
      memory.delete(name);
      try {
        if (!local) throw new Error('no storage');
        local.setItem(prefix + name, value);
      } catch {
        memory.set(name, value);
      }
    },
    /** @param {string} name */
    remove(name) {
      memory.delete(name);
      local?.removeItem(prefix + name);
    },
    /** The names of all that is kept. @returns {string[]} */
    names() {
      const names = new Set(memory.keys());
      for (let index = 0; index < (local?.length ?? 0); index += 1) {
        const key = local.key(index);
        if (key?.startsWith(prefix)) names.add(key.slice(prefix.length));
      }
      return [...names];
    },
    /**
     * Calls `changed(name)` when another tab changes one of them, `changed(null)` when it clears
     * all.
     * @param {(name: string|null) => void} changed
     * @returns {() => void} Ends it.
     */
    watch(changed) {
      const hear = ({ key }) => {
        if (key === null) changed(null);
        else if (key.startsWith(prefix)) changed(key.slice(prefix.length));
      };
      events.addEventListener('storage', hear);
      return () => events.removeEventListener('storage', hear);
    },
  };
}

/** The prefix of what belongs to a key's name (null: no keys), for one purpose. */
export const prefixFor = (purpose, name) =>
  `gateway ${purpose} ${name === null ? 'open' : `key ${encodeURIComponent(name)}`} `;

function openLocal() {
  try {
    return globalThis.localStorage ?? null;
  } catch {
    return null;
  }
}
