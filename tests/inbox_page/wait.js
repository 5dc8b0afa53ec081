const done = arguments[arguments.length - 1];
const [given] = arguments;
const moments = ['scroll', 'input', 'change', 'focusin', 'focusout', 'resize', 'online', 'offline',
  'transitionend', 'securitypolicyviolation'];
const observer = new MutationObserver(look);
function look() {
  let found;
  try {
    found = holds();
  } catch (error) {
    found = { thrown: String(error.stack) };
  }
  if (!found) return;
  observer.disconnect();
  for (const moment of moments) window.removeEventListener(moment, look, true);
  document.removeEventListener('visibilitychange', look);
  done(found);
}
observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
for (const moment of moments) window.addEventListener(moment, look, true);
document.addEventListener('visibilitychange', look);
look();
