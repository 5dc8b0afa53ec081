// Parses server-sent events from text that arrives in pieces, as the HTML standard says.

/**
 * @typedef {object} ServerEvent
 * @property {string} type
 * @property {string} data
 * @property {string|null} id Only if this event itself carries one.
 */

/**
 * A parser: give it each piece of text; it calls `onEvent` for each event that is complete.
 * @param {(event: ServerEvent) => void} onEvent
 * @returns {(piece: string) => void}
 */
export function createParser(onEvent) {
  let rest = '';
  let isFirst = true;
  let endedByReturn = false;
  let type = '';
  let data = [];
  let id = null;

  function takeLine(line) {
    if (line === '') {
      if (data.length > 0) onEvent({ type: type || 'message', data: data.join('\n'), id });
      type = '';
      data = [];
      id = null;
      return;
    }
    const colon = line.indexOf(':');
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'event') type = value;
    else if (field === 'data') data.push(value);
    else if (field === 'id' && !value.includes('\0')) id = value;
  }

  return (piece) => {
    if (piece === '') return;
    let text = isFirst ? piece.replace(/^\uFEFF/, '') : piece;
    isFirst = false;
    // A line that ended with a carriage return may have its line feed in this piece.
    if (endedByReturn && text.startsWith('\n')) text = text.slice(1);
    endedByReturn = text === '' ? false : text.endsWith('\r');
    const lines = (rest + text).split(/\r\n|\n|\r/);
    rest = lines.pop() ?? '';
    for (const line of lines) takeLine(line);
  };
}
