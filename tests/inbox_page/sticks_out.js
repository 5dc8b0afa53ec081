// What a reader sees beyond the box that it belongs to.
const found = [];
const say = (node, why) => found.push(`${why}: ${node.outerHTML.slice(0, 200)}`);
const isFree = (node) => !isShown(node) || node.closest('svg') || getComputedStyle(node).position === 'absolute';

/** The part of a box that is not cut off below `end`. */
function partOf(node, end) {
  let { left, right, top, bottom } = node.getBoundingClientRect();
  for (let at = node.parentElement; at && at !== end; at = at.parentElement) {
    const { overflowX, overflowY } = getComputedStyle(at);
    const box = at.getBoundingClientRect();
    if (overflowX !== 'visible') [left, right] = [Math.max(left, box.left), Math.min(right, box.right)];
    if (overflowY !== 'visible') [top, bottom] = [Math.max(top, box.top), Math.min(bottom, box.bottom)];
  }
  return { left, right, top, bottom };
}

if (document.documentElement.scrollWidth > innerWidth) say(document.body, 'the page scrolls sideways');
for (const node of document.querySelectorAll('body *')) {
  if (isFree(node)) continue;
  const { left, right } = partOf(node, document.body);
  if (right > innerWidth + 1 || left < -1) say(node, 'beyond the window');
  const scrolls = /auto|scroll/.test(getComputedStyle(node).overflowX) && node.scrollWidth > node.clientWidth + 1;
  if (scrolls && node.localName !== 'pre') say(node, 'scrolls sideways');
}
for (const row of [...bubbles(), ...document.querySelectorAll('[data-conversation-id]')]) {
  const box = row.getBoundingClientRect();
  for (const node of row.querySelectorAll('*')) {
    if (isFree(node)) continue;
    const { left, right, top, bottom } = partOf(node, row);
    if (left < box.left - 1 || right > box.right + 1) say(node, 'beside its row');
    if (top < box.top - 1 || bottom > box.bottom + 1) say(node, 'above or below its row');
  }
}
for (const node of bubbles().flatMap((bubble) => [...bubble.querySelectorAll('*')])) {
  if (!isFree(node) && node.scrollWidth > node.clientWidth + 1 && node.clientWidth > 0) say(node, 'cut off');
}
const boxes = bubbles().map((node) => node.getBoundingClientRect());
boxes.forEach((box, index) => {
  if (index > 0 && box.top < boxes[index - 1].bottom - 1) say(bubbles()[index], 'over the one before');
});
return found;
