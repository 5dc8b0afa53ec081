"""What the program does around the statements of events."""
from .values import MOST_AHEAD, PREVIEW_LENGTH, columns

PROVIDER = "mock-meta"


def ingest(run, link, batch, answered=True):
    fresh = dict(link.run("webhook::ingest", PROVIDER, *columns(batch), MOST_AHEAD, PREVIEW_LENGTH))
    asked = [event.event_id for event in batch if event.message_id not in fresh]
    known = {row[0]: row[1:] for row in link.run("webhook::find_known", PROVIDER, asked)} if asked else {}
    if not answered:
        return
    for event in batch:
        new, ids = True, (event.message_id, fresh.get(event.message_id))
        if event.message_id not in fresh:
            ids = known.get(event.event_id)
            if ids is None:
                run.bad("known_event_not_found", event.event_id)
                continue
            # Its own id: the answer was lost, and this is the batch sent again.
            new = ids[0] == event.message_id and run.options.broken != "no_known_own"
        run.count("events_new" if new else "events_known")
        with run.lock:
            first = run.receipt_of_event.setdefault(event.event_id, ids)
            run.new_events[event.event_id] += new
        if first != ids or new and ids[0] != event.message_id:
            run.bad("event_has_two_receipts", event.event_id)
