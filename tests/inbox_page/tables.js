// What the page says of messages, by tables: each is `(modules) → [[case, said, expected], …]`.

const tables = {
  /** What a message holds is read from its type and its content, whatever its text says. */
  contents({ contents: { contentsOf, summary } }) {
    const PATH = '/messages/msg_1/media';
    const of = (type, content, text = '', more = {}) =>
      ({ id: 'msg_1', channel: 'whatsapp', direction: 'INBOUND', type, text, content, ...more });
    const plain = { label: '', body: '', facts: [], file: null, isGone: false };
    const file = (kind, name = '') => ({ kind, name, path: PATH });
    const image = { id: '12', mime_type: 'image/jpeg' };
    const long = 'x'.repeat(400);
    const cases = [
      ['a text that plays an image', of('text', { body: '[image]', id: '1' }, '[image]'),
        { body: '[image]' }, '[image]'],
      ['no type', of(undefined, null, 'Hello'), { body: 'Hello' }, 'Hello'],
      ['an image', of('image', image, '[image]'), { label: 'Image', file: file('picture') }, 'Image'],
      ['its caption', of('image', { ...image, caption: 'Look' }, 'Look'),
        { label: 'Image', body: 'Look', file: file('picture') }, 'Image: Look'],
      ['an image that is edited', of('image', image, 'New', { editedAt: '2026-11-26T12:00:00Z' }),
        { label: 'Image', body: 'New', file: file('picture') }, 'Image: New'],
      ['an image that leads elsewhere', of('image', { id: '../me/accounts' }, '[image]'),
        { label: 'Image', body: '[image]' }, 'Image: [image]'],
      ['an image of another channel', of('image', image, '[image]', { channel: 'instagram' }),
        { label: 'Image', body: '[image]' }, 'Image: [image]'],
      ['an image without content', of('image', null, '[image]'),
        { label: 'Image', body: '[image]' }, 'Image: [image]'],
      ['one that is too large', of('image', { truncated: true, type: 'image', id: '12' }, 'Look'),
        { label: 'Image', body: 'Look' }, 'Image: Look'],
      ['an image by its address', of('image', { link: 'https://example.com/a.png' }, '[image]'),
        { label: 'Image', facts: ['https://example.com/a.png'] }, 'Image: https://example.com/a.png'],
      ['a voice message', of('audio', { id: '1', voice: true }, '[voice message]'),
        { label: 'Voice message', file: file('sound') }, 'Voice message'],
      ['a sound', of('audio', { id: '1' }, '[audio]'), { label: 'Audio', file: file('sound') }, 'Audio'],
      ['a film', of('video', { id: '1' }, '[video]'), { label: 'Video', file: file('film') }, 'Video'],
      ['a sticker', of('sticker', { id: '1' }, '[sticker]'),
        { label: 'Sticker', file: file('sticker') }, 'Sticker'],
      ['a document', of('document', { id: '1', filename: 'a.pdf' }, 'a.pdf'),
        { label: 'Document', file: file('document', 'a.pdf') }, 'Document: a.pdf'],
      ['a document that plays another', of('document', { id: '1', filename: '\u202Efdp.\u2066exe\u2069' }, 'x'),
        { label: 'Document', file: file('document', 'fdp.exe') }, 'Document: fdp.exe'],
      ['a document with a long name', of('document', { id: '1', filename: `${long}.pdf` }, 'x'),
        { label: 'Document', file: file('document', `${'x'.repeat(80)}…${'x'.repeat(16)}.pdf`) },
        `Document: ${'x'.repeat(80)}…${'x'.repeat(16)}.pdf`],
      ['a document with a caption', of('document', { id: '1', filename: 'a.pdf', caption: 'This' }, 'This'),
        { label: 'Document', body: 'This', file: file('document', 'a.pdf') }, 'Document: This'],
      ['a place', of('location', { latitude: 41.5, longitude: '-28.97', name: 'Home' }, 'Home'), {
        label: 'Location',
        facts: ['Home', '41.5, -28.97', 'https://www.openstreetmap.org/?mlat=41.5&mlon=-28.97'],
      }, 'Location: Home'],
      ['a place that is none', of('location', { latitude: '1"><b>', longitude: 181 }, 'There'),
        { label: 'Location', body: 'There' }, 'Location: There'],
      ['a place that is no number', of('location', { latitude: null, longitude: {} }, 'There'),
        { label: 'Location', body: 'There' }, 'Location: There'],
      ['contacts', of('contacts', [
        { name: { formatted_name: 'Max' }, phones: [{ phone: '+49 1' }, { wa_id: '492' }], emails: [{ email: 'm@x.org' }] },
        { name: { first_name: 'Ida', last_name: 'B' }, org: { company: 'X' }, phones: 'none' }, null], '[contact] Max, Ida'),
      { label: 'Contacts', facts: ['Max · +49 1 · 492 · m@x.org', 'Ida B · X'] }, 'Contacts: Max · +49 1 · 492 · m@x.org'],
      ['a chosen answer', of('interactive', { type: 'button_reply', button_reply: { id: 'y', title: 'Yes' } }, 'Yes'),
        { label: 'Chosen answer', body: 'Yes' }, 'Chosen answer: Yes'],
      ['one of a list', of('interactive', { list_reply: { id: '1', title: 'M', description: 'Medium' } }, 'M'),
        { label: 'Chosen from a list', body: 'M', facts: ['Medium'] }, 'Chosen from a list: M'],
      ['a form', of('interactive', { nfm_reply: { body: 'Sent', response_json: '{"flow_token":"t","size":"M","n":2,"deep":{}}' } }, 'Sent'),
        { label: 'Form', body: 'Sent', facts: ['size: M', 'n: 2'] }, 'Form: Sent'],
      ['a form that is broken', of('interactive', { nfm_reply: { body: 'Sent', response_json: '{' } }, 'Sent'),
        { label: 'Form', body: 'Sent' }, 'Form: Sent'],
      ['an answer without anything', of('interactive', { type: 'x' }, '[unsupported message]'),
        { label: 'Answer', body: '[unsupported message]' }, 'Answer: [unsupported message]'],
      ['a quick answer', of('button', { text: 'Stop', payload: 'p' }, 'Stop'),
        { label: 'Chosen answer', body: 'Stop' }, 'Chosen answer: Stop'],
      ['an order', of('order', { product_items: [{ product_retailer_id: 'lamp', quantity: '2', item_price: 10.5, currency: 'EUR' }, {}] }, '[order] 2'),
        { label: 'Order', body: '[order] 2', facts: ['2 × lamp, 10.5 EUR'] }, 'Order: [order] 2'],
      ['a template', of('template', { name: 'hi', language: { code: 'en' }, components: [{ parameters: [{ text: 'Max' }] }] }, '[template] hi'),
        { label: 'Template', facts: ['hi · en', 'Max'] }, 'Template: hi · en'],
      ['a template with a text', of('template', { name: 'hi', language: 'en' }, 'Hi Max'),
        { label: 'Template', body: 'Hi Max', facts: ['hi · en'] }, 'Template: Hi Max'],
      ['what WhatsApp does not tell', of('unsupported', { errors: [{ title: 'No', error_data: { details: 'Not yet' } }] }, '[unsupported message]'),
        { label: 'Cannot be shown here', body: '[unsupported message]', facts: ['No: Not yet'] },
        'Cannot be shown here: [unsupported message]'],
      ['a type of tomorrow', of('hologram', { id: '1' }, '[hologram]'),
        { label: 'hologram', body: '[hologram]' }, 'hologram: [hologram]'],
      ['a type with the name of another thing', of('constructor', {}, 'x'), { label: 'constructor', body: 'x' }, 'constructor: x'],
      ['what was deleted', of('image', image, '[deleted]', { deletedAt: '2026-11-26T12:00:00Z' }),
        { isGone: true }, 'Deleted message'],
      ['what is far too long', of('interactive', { list_reply: { description: long } }, 'M'),
        { label: 'Chosen from a list', body: 'M', facts: [`${long.slice(0, 300)}…`] }, 'Chosen from a list: M'],
      ['what is wild', of('contacts', [[[]], 7, { name: [], phones: [{ phone: {} }] }], 'x'), { label: 'Contact', body: 'x' }, 'Contact: x'],
    ];
    return cases.flatMap(([name, message, expected, line]) => [
      [name, contentsOf(message), { ...plain, ...expected }], [`${name}, in a line`, summary(message), line],
    ]);
  },

  /** How far a message has come. */
  ticks({ ticks: { tickOf } }) {
    const at = { deliveredAt: '10:31', readAt: '10:32' };
    const sent = (deliveryStatus, more = {}) =>
      ({ message: { direction: 'OUTBOUND', status: 'SENT', deliveryStatus, deliveredAt: null, readAt: null, ...more }, unsent: null });
    const other = (status) => ({ message: { direction: 'OUTBOUND', status }, unsent: null });
    const cases = [
      [{ message: { direction: 'INBOUND', status: 'RECEIVED' }, unsent: null }, null],
      [{ message: null, unsent: { state: 'waiting' } }, ['pending', 'pending', 'Sending']],
      [{ message: null, unsent: { state: 'refused' } }, ['failed', 'failed', 'Not sent']],
      [other('PENDING'), ['pending', 'pending', 'Sending']],
      [other('FAILED'), ['failed', 'failed', 'Not sent']],
      [{ message: { direction: 'OUTBOUND', status: 'FAILED', lastError: { ambiguous: true } }, unsent: null },
        ['failed', 'failed', 'Not certain that it was sent']],
      [other('SENT'), ['sent', 'sent', 'Sent']],
      [sent(null), ['sent', 'sent', 'Sent']],
      [sent('sent'), ['sent', 'sent', 'Sent']],
      [sent('delivered', at), ['delivered', 'twice', 'Delivered 10:31']],
      [sent('delivered'), ['delivered', 'twice', 'Delivered']],
      [sent('read', at), ['read', 'twice', 'Read 10:32']],
      [sent('played', at), ['played', 'twice', 'Played 10:32']],
      [sent('failed'), ['failed', 'failed', 'Not delivered']],
      [sent('in_orbit'), ['sent', 'sent', 'Sent']],
      [sent('toString'), ['sent', 'sent', 'Sent']],
    ];
    const parts = (tick) => tick && [tick.mark, tick.icon, tick.words];
    return cases.map(([item, expected]) => [item, parts(tickOf(item, (time) => time)), expected]);
  },

  /** Why a message has not gone out or has not arrived. */
  reasons({ trouble: { trouble }, reasons: { problemOf } }) {
    const message = { direction: 'OUTBOUND', channel: 'whatsapp', status: 'FAILED', nextAttemptAt: null };
    const failed = (lastError, more = {}) =>
      ({ message: { ...message, ...more, lastError: { detail: 'Why', ambiguous: false, code: null, ...lastError } }, unsent: null });
    const lost = (deliveryError) =>
      ({ message: { ...message, status: 'SENT', deliveryStatus: 'failed', deliveryError }, unsent: null });
    const refused = (code) =>
      ({ message: null, unsent: { state: 'refused', channel: 'whatsapp', error: { status: 409, code, detail: 'Why', errors: [] } } });
    const window = 'the customer has not written lately, so only templates may be sent';
    const cases = [
      [failed({ kind: 'window_closed', code: 131047 }), `Not sent: ${window} (Why), code 131047.`],
      [failed({ kind: 'unauthorized', code: 190 }), 'Not sent: WhatsApp does not accept the gateway\'s access (Why), code 190.'],
      [failed({ kind: 'rejected', code: 132001 }), 'Not sent: there is no such template in this language (Why), code 132001.'],
      [failed({ kind: 'rejected', code: 99 }), 'Not sent: WhatsApp refused it (Why), code 99.'],
      [failed({ kind: 'rejected' }), 'Not sent: WhatsApp refused it (Why).'],
      [failed({ kind: 'timeout', ambiguous: true }), 'Not certain that it was sent: WhatsApp did not answer in time (Why). The customer may have it already.'],
      [failed({ kind: 'connection', ambiguous: true }), 'Not certain that it was sent: the connection to WhatsApp broke (Why). The customer may have it already.'],
      [failed({ kind: 'connection' }), 'Not sent: WhatsApp could not be reached (Why).'],
      [failed({ kind: 'timeout', ambiguous: true }, { nextAttemptAt: '2026-11-26T12:00:00Z' }),
        'Not certain that it was sent: WhatsApp did not answer in time (Why). The customer may have it already. Tries again at 12.'],
      [failed({ kind: 'server_error', code: 131000, ambiguous: true }, { nextAttemptAt: '2026-11-26T12:00:00Z' }),
        'Not certain that it was sent: WhatsApp had an error of its own (Why), code 131000. The customer may have it already. Waits for WhatsApp to tell until 12.', true],
      [failed({ kind: 'timeout', ambiguous: true }, { nextAttemptAt: '2026-11-26T10:00:00Z' }),
        'Not certain that it was sent: WhatsApp did not answer in time (Why). The customer may have it already. Waits for WhatsApp to tell.', true],
      [failed({ kind: 'rate_limited', code: 4 }, { nextAttemptAt: '2026-11-26T12:00:00Z' }),
        'Not sent yet: WhatsApp asks to send more slowly (Why), code 4. Tries again at 12.', true],
      [failed({ kind: 'toString' }), 'Not sent: the reason is not known (Why).'],
      [failed({ kind: 'rate_limited', code: 131056 }, { nextAttemptAt: '2026-11-26T12:00:00Z' }),
        'Not sent yet: WhatsApp asks to send more slowly (Why), code 131056. Tries again at 12.'],
      [lost({ code: 131026, title: 'Message undeliverable', detail: 'Message Undeliverable.' }),
        'Not delivered: this customer cannot get it: no WhatsApp, an old one, or the number is not theirs (Message undeliverable), code 131026.'],
      [lost({ code: 7, title: 'No', detail: 'Not today' }), 'Not delivered: WhatsApp says (No: Not today), code 7.'],
      [lost({ code: null, title: null, detail: null }), 'Not delivered: the reason is not known.'],
      [lost(null), 'Not delivered: the reason is not known.'],
      [refused('participant_changed'), 'Not stored: this number belongs to somebody else now, who has a conversation of their own.'],
      [refused('channel_not_connected'), 'Not stored: WhatsApp is not connected to this gateway.'],
      [refused('validation_failed'), 'Not stored: the gateway refused it (Why).'],
    ];
    const say = (item, hasStatuses) => {
      const now = Date.parse('2026-11-26T11:00:00Z');
      const { text, detail, rest } = trouble(item, now, () => '12', hasStatuses);
      return `${text}${detail && ` (${detail})`}${rest}`;
    };
    const asks = [true, false].map((ambiguous) => {
      const item = failed({ kind: 'timeout', ambiguous });
      return [`asks: ${ambiguous}`, trouble(item, 0, () => '').asks, ambiguous];
    });
    const known = problemOf({ code: 'ambiguous' }, 'WhatsApp');
    return [...cases.map(([item, expected, hasStatuses]) => [item, say(item, hasStatuses), expected]), ...asks, ['ambiguous', known !== null, true]];
  },

  /** The 24 hours. */
  window({ window: { windowOf } }) {
    const now = Date.parse('2026-11-26T12:00:00Z');
    const open = (words) => [true, words, ''];
    const over = [false, 'Window closed', 'The 24 hours since the customer last wrote are over'];
    const never = [false, 'Window not open', 'The customer has not written to this number yet'];
    const theirs = { whatsapp: true };
    const cases = [
      [null, null], [undefined, null], ['soon', null],
      ['2026-11-26T15:00:00Z', open('Window closes in 3 h')],
      ['2026-11-26T12:20:00Z', open('Window closes in 20 min')],
      ['2026-11-26T12:00:00Z', over],
      ['2026-11-25T12:00:00Z', over],
      ['2026-11-26T15:00:00Z', open('Window closes in 3 h'), theirs],
      ['2026-11-25T12:00:00Z', over, theirs],
      [null, never, theirs], [undefined, never, theirs],
      [null, null, theirs, 'instagram'], [null, null, { whatsapp: false }], [null, null, {}],
    ];
    return cases.map(([windowExpiresAt, expected, session = null, channel = 'whatsapp']) => {
      const said = windowOf({ channel, windowExpiresAt }, now, session);
      const [why] = (said?.why ?? '').split(':');
      return [windowExpiresAt, said && [said.isOpen, said.words, why], expected];
    });
  },
};

/** The cases of a table that differ. */
function differing(name, modules) {
  const differs = ([, said, expected]) => JSON.stringify(said) !== JSON.stringify(expected);
  return tables[name](modules).filter(differs)
    .map(([about, said, expected]) => JSON.stringify({ about, said, expected }));
}
