// Makes and changes elements, text by `textContent` alone, and touches only what differs.

/** The element with this id, which index.html must have. */
export function byId(id) {
  const node = document.getElementById(id);
  if (!node) throw new Error(`index.html lacks #${id}`);
  return node;
}

/** A new element. `props`: `class`, `text`, `on` (listeners), `data`; all else are attributes. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === 'class') node.className = value;
    else if (name === 'text') node.textContent = value;
    else if (name === 'on') listen(node, value);
    else if (name === 'data') Object.assign(node.dataset, value);
    else attr(node, name, value);
  }
  node.append(...children);
  return node;
}

function listen(node, handlers) {
  for (const [type, handler] of Object.entries(handlers)) node.addEventListener(type, handler);
}

/** One of index.html's icons; decoration, so what it means is said in words beside it. */
export function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  use.setAttribute('href', `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Shows another of index.html's icons. */
export function setIcon(svg, name) {
  attr(svg.firstElementChild, 'href', `#i-${name}`);
}

/** Sets the text if it differs: an equal text would still drop the reader's selection. */
export function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

/** Sets an attribute if it differs; `false`, `null`, `undefined` remove it, `true` empties it. */
export function attr(node, name, value) {
  if (value === false || value === null || value === undefined) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
    return;
  }
  const wanted = value === true ? '' : String(value);
  if (node.getAttribute(name) !== wanted) node.setAttribute(name, wanted);
}

export function toggleClass(node, name, on) {
  if (node.classList.contains(name) !== Boolean(on)) node.classList.toggle(name, Boolean(on));
}

/** Shows or hides. */
export function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

/**
 * Makes `nodes` the children of `parent`, in this order.
 *
 * The child that has the focus is never moved, since a moved element loses it: others move around.
 */
export function arrange(parent, nodes) {
  const wanted = new Set(nodes);
  for (const child of [...parent.children]) {
    if (!wanted.has(child)) child.remove();
  }
  const active = document.activeElement;
  const focused = nodes.find((node) => node.contains(active) && node.parentNode === parent);
  let next = parent.firstElementChild;
  for (const node of nodes) {
    if (node === next || node === focused) next = node.nextElementSibling;
    else parent.insertBefore(node, next);
  }
}

/** Runs `draw` at most once a frame, however often the answer is called; at once when hidden. */
export function oncePerFrame(draw) {
  let frame = 0;
  let timer = 0;
  const run = () => {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
    frame = timer = 0;
    draw();
  };
  return () => {
    if (frame || timer) return;
    frame = requestAnimationFrame(run);
    // A hidden page has no frames; its title and its notices go on all the same.
    timer = setTimeout(run, 250);
  };
}

/**
 * Changes a scrolled list by `change` and lets what the reader looks at stay where it is.
 *
 * The browser's own anchoring is off in these lists: it does not hold at the very top, Safari has
 * none, and it would follow a row that moves. `steady` names children that may serve as an anchor.
 */
export function keepPlace(scroller, parent, change, steady = () => true) {
  const edge = scroller.getBoundingClientRect().top;
  const anchor = [...parent.children].find((child) =>
    steady(child) && child.getBoundingClientRect().bottom > edge);
  const before = anchor?.getBoundingClientRect().top;
  change();
  if (!anchor?.isConnected) return;
  const moved = anchor.getBoundingClientRect().top - before;
  if (Math.abs(moved) >= 1) scroller.scrollTop += moved;
}
