"""What the program does around the statements of WhatsApp: of what comes in, and of what is told of
what went out."""
from .customers import CHANNEL, DELETED, STEPS, Book, note
from .values import MOST_AHEAD, PREVIEW_LENGTH, columns

TRIES = 5


def nowhere(statement):
    """Before a statement: waits for nobody."""


def resolve(run, link, heard, meet):
    """Whose conversation each (person, time) is about; what that says is kept."""
    ids = sorted({one for who, _ in heard for one in who.ids()})
    for _ in range(TRIES):
        book = Book(link.run("alias::find", CHANNEL, ids))
        participants = [book.hear(*one) for one in heard]
        changes = book.changes()
        meet("alias::write")
        if not changes or write_aliases(link, changes) == len(changes):
            return participants
        run.count("aliases_decided_anew")
    run.count("aliases_given_up")
    return participants


def write_aliases(link, changes):
    none = (None, None, None, None)
    rows = [(alias, *to, *(was or none)[:3], alias.isdecimal()) for alias, to, was in changes]
    (written,), = link.run("alias::write", *columns(rows))
    return written


def apply(run, link, wamids):
    if wamids:
        (n,), = link.run("amendment::apply", wamids, CHANNEL, DELETED, PREVIEW_LENGTH)
        run.count("amended", n)


def is_foreign(item, participant, named):
    """Whether it is about a message that its sender may not change."""
    if item.target not in named:
        return False
    _, _, channel, of, direction = named[item.target]
    is_own = item.is_by_customer == (direction == "INBOUND")
    return (channel, of) != (CHANNEL, participant) or not (item.change == "reaction" or is_own)


def arrive(run, link, batch, meet=nowhere):
    """Stores items as the program does."""
    participants = resolve(run, link, [(item.person, item.at) for item in batch], meet)
    wamids = [item.target or item.event_id for item in batch if item.target or not item.is_by_customer]
    named = {row[0]: row for row in link.run("whatsapp::find_named", CHANNEL, wamids)} if wamids else {}
    pairs = list(zip(batch, participants))
    messages = [(item, who) for item, who in pairs if item.target is None and (
        item.is_by_customer or item.event_id not in named or named[item.event_id][1] == item.message_id)]
    said = [(item, who) for item, who in pairs if item.target and not is_foreign(item, who, named)]
    new = []
    meet("whatsapp::store_messages")
    if messages:
        new += [row[0] for row in link.run("whatsapp::store_messages", *message_columns(messages))]
    meet("whatsapp::store_amendments")
    if said:
        new += [row[0] for row in link.run("whatsapp::store_amendments", *amendment_columns(said))]
    meet("amendment::apply")
    apply(run, link, [item.target or item.event_id for item, _ in messages + said])
    asked = [item.event_id for item, _ in messages + said]
    known = dict(link.run("whatsapp::find_events", CHANNEL, asked)) if len(new) < len(asked) else {}
    run.count("items_new", len(new))
    with run.lock:
        run.said.update((item.event_id, (item, who)) for item, who in pairs if item.target)
        for item, _ in messages:
            is_new = item.event_id in new or known.get(item.event_id) == item.message_id
            if item.event_id in new:
                new.remove(item.event_id)
            run.new_items[item.event_id] += is_new
            if item.event_id not in new and item.event_id not in known and not is_new:
                run.bad("known_item_not_found", item)


def message_columns(messages):
    rows = [(
        item.event_id, who, item.event_id, "text", item.text, "{}", f"name {item.event_id}" if item.is_by_customer else None,
        None if item.is_by_customer else "app", item.is_by_customer, None, None, item.at, item.conversation_id,
        item.message_id, b"{}") for item, who in messages]
    return CHANNEL, *columns(rows), MOST_AHEAD, PREVIEW_LENGTH, "RECEIVED", "SENT"


def amendment_columns(said):
    rows = []
    for item, who in said:
        edit = ("text", item.text, "{}") if item.change == "edit" else (None, None, None)
        emoji = item.text if item.change == "reaction" else None
        rows.append((item.event_id, item.target, item.change, who if item.is_by_customer else "", who, item.at, emoji, *edit))
    return CHANNEL, *columns(rows)


def bind(run, link, accepted, settled):
    """Of those (message, wamid, since) that were settled before."""
    known = [one for one in accepted if one[:2] not in settled]
    if known:
        count_doubles(run, link.run("delivery::bind", *columns(known)))


def count_doubles(run, rows):
    with run.lock:
        run.doubles.update((message_id, second) for message_id, _, second in rows)


def tell(run, link, batch, release):
    """Keeps statuses as the program does, and settles what they are witnesses of."""
    told = {}
    for one in batch:
        note(told.setdefault(one.wamid, {}), one)
    rows = [(
        wamid, *(steps.get(step) for step in STEPS), steps.get("code"), title(steps.get("code")), None)
        for wamid, steps in told.items()]
    rows = link.run("receipt::record", *columns(rows))
    bound = {row[0] for row in rows if row[2]}
    run.count("statuses", len(batch))
    with run.lock:
        for one in batch:
            note(run.told.setdefault(one.wamid, {}), one)
    signed = [one for one in batch if one.opaque and one.wamid not in bound]
    if signed:
        settle(run, link, signed, release)


def title(code):
    return code and f"title {code}"


def settle(run, link, signed, release):
    none = [None] * len(signed)
    found = link.run("receipt::find_witnessed", [one.opaque for one in signed], none, none, CHANNEL)
    witnesses = {}
    for place, message_id, conversation_id, _, _, state, was_attempted, *_ in found:
        if was_attempted:
            witnesses.setdefault(signed[place - 1].wamid, (message_id, conversation_id, state))
        elif message_id not in run.requeued_carelessly:    # else that may have made its first attempt forgotten
            run.bad("acceptance_not_believed", message_id)
    if not witnesses:
        return
    unsent = {}
    for wamid, (message_id, conversation_id, state) in witnesses.items():
        if state != "SENT":
            unsent.setdefault(message_id, (wamid, conversation_id))
    if unsent:
        rows = [(message_id, wamid, True, None) for message_id, (wamid, _) in unsent.items()]
        settled = link.run("delivery::mark_sent", *columns(rows))
        run.count("sent_as_a_status_says", len(settled))
        with run.lock:
            run.settled_as_sent.update(row[0] for row in settled)
        release(run, link, [conversation_id for _, conversation_id in unsent.values()], run.options.crash)
    wamids = list(witnesses)
    doubles = link.run("receipt::bind", wamids, [witnesses[wamid][0] for wamid in wamids])
    count_doubles(run, [(message_id, first, wamid) for wamid, message_id, first in doubles if first != wamid])
    apply(run, link, wamids)
