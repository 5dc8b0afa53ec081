// The address: `#conv_…` is the open conversation, and one step back is always the list.

const ID = /^#(conv_[0-9a-f]{32})$/u;

/** The conversation that the address names, or null. */
export function current() {
  return ID.exec(location.hash)?.[1] ?? null;
}

let hear = () => {};

/** Calls `heard(id)` now and whenever the address changes. Links in the page come here too. */
export function listen(heard) {
  hear = () => heard(current());
  window.addEventListener('popstate', hear);
  window.addEventListener('hashchange', hear);
  document.addEventListener('click', (event) => {
    const { target, button, ctrlKey, metaKey, shiftKey, altKey, defaultPrevented } = event;
    const link = target instanceof Element ? target.closest('a[href^="#conv_"]') : null;
    const isPlain = button === 0 && !ctrlKey && !metaKey && !shiftKey && !altKey;
    if (!link || !isPlain || defaultPrevented) return;
    event.preventDefault();
    go(link.getAttribute('href').slice(1));
  });
  hear();
}

/** Goes to a conversation, or with null to the list. */
export function go(id) {
  const here = current();
  if (id === here) return;
  const path = id === null ? location.pathname : `#${id}`;
  if (id === null && history.state?.overList) {
    history.back();
    return;
  }
  if (here === null) history.pushState({ overList: true }, '', path);
  else history.replaceState(id === null ? null : history.state, '', path);
  hear();
}
