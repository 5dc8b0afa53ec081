// What scripts of the tests say of the page, by the hooks that the contract names.
const one = (hook) => document.querySelector(`[data-testid="${hook}"]`);
const isShown = (node) => Boolean(node) && node.checkVisibility() && node.getClientRects().length > 0;
const rows = () => [...document.querySelectorAll('[data-testid="conversations"] [data-conversation-id]')].map((node) => {
  const unread = node.querySelector('[data-testid="unread"]');
  return {
    id: node.dataset.conversationId,
    unread: isShown(unread) ? unread.textContent.trim() : '',
    text: node.innerText,
    isOpen: Boolean(node.matches('[aria-current]') || node.querySelector('[aria-current]')),
  };
});
const bubbles = () => [...document.querySelectorAll('[data-testid="messages"] [data-message-id]')];
const messages = () => bubbles().map((node) => ({
  id: node.dataset.messageId,
  status: node.dataset.status,
  text: node.innerText,
}));
const withText = (text) => bubbles().filter((node) => node.innerText.includes(text));
const isLive = () => document.body.dataset.ready !== undefined && document.body.dataset.feed === 'live';
const scroller = () => {
  let node = one('messages');
  while (node && !(node.scrollHeight > node.clientHeight + 1 && /auto|scroll/.test(getComputedStyle(node).overflowY))) node = node.parentElement;
  return node;
};
const fromBottom = () => { const box = scroller(); return box ? box.scrollHeight - box.clientHeight - box.scrollTop : 0; };
