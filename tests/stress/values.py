"""What a run makes up: ids, keys, participants, requests, events."""
import random
import time
import uuid
from datetime import datetime, timezone
from typing import NamedTuple

from .statements import number

# What the program gives its statements beside what they are about.
RAMP_START, RAMP_FACTOR, LONGEST_RAMP, BURSTS = (
    number("src/channel/mod.rs", name)
    for name in ("RAMP_START_PER_SECOND", "RAMP_FACTOR", "LONGEST_RAMP", "BURSTS_PER_SECOND"))
TRIAL_EVERY = number("src/channel/mod.rs", "TRIAL_EVERY")
PREVIEW_LENGTH = int(number("src/channel/mod.rs", "PREVIEW_LENGTH"))
MOST_AHEAD = number("src/webhook/mod.rs", "MOST_AHEAD")


class Request(NamedTuple):
    """A message to be accepted: the first arguments of `message::enqueue`."""
    id: uuid.UUID
    conversation_id: uuid.UUID
    channel: str
    participant_id: str
    text: str
    key: str | None
    token: uuid.UUID | None


class Event(NamedTuple):
    """An event to be stored: the arguments of `webhook::ingest`. All but the ids follow from the first."""
    event_id: str
    channel: str
    participant_id: str
    text: str
    timestamp: datetime
    conversation_id: uuid.UUID
    message_id: uuid.UUID
    body: bytes


def chance(share):
    return random.random() < share


def columns(rows):
    return [list(column) for column in zip(*rows)]


def new_id():
    """A UUIDv7."""
    low = (2 << 62) | random.getrandbits(62)
    return uuid.UUID(int=(int(time.time() * 1000) << 80) | (7 << 76) | (random.getrandbits(12) << 64) | low)


def traceparent(message_id):
    """That of a message: every other one has been accepted in a trace."""
    return f"00-{message_id.hex}-{message_id.hex[:16]}-01" if message_id.int % 2 else None


def sent_by(message_id):
    """The name of the key that sends it, where it has one."""
    return f"key-{message_id.int % 3}" if message_id.int % 3 else None


def participant(run):
    if chance(run.options.new):
        return f"new-{random.getrandbits(2)}-{int(run.age() * 20)}"
    return f"user-{int(random.paretovariate(0.4)) % run.options.conversations}"


def channel_of(key):
    """A key is one on its channel only."""
    return random.Random(key).choice(["whatsapp", "instagram"]) if key else "whatsapp"


def requests(run, recent_keys):
    made = []
    for _ in range(random.choice([1, 1, 2, 4, 8, 16])):
        x = random.random()
        if x < 0.15:
            key = None
        elif x < 0.5:    # many race on these, each with a participant of its own
            key = f"hot-{int(run.age() * 10)}-{random.randrange(8)}"
        elif x < 0.6 and recent_keys:
            key = random.choice(recent_keys)
        else:
            key = f"key-{random.getrandbits(60)}"
            recent_keys.append(key)
        token = None if chance(run.options.no_permit) else new_id()
        text = f"text {random.getrandbits(40)}"
        made.append(Request(new_id(), new_id(), channel_of(key), participant(run), text, key, token))
    return made


def rival_requests(run, batch):
    """The same keys in another order, and to others; never sent."""
    rivals = []
    for request in random.sample(batch, len(batch)):
        if request.key:
            rival = {"id": new_id(), "conversation_id": new_id(), "participant_id": participant(run), "token": new_id()}
            rivals.append(request._replace(**rival))
    return rivals


def events(run, recent):
    made = []
    for _ in range(random.choice([1, 2, 5, 20])):
        x = random.random()
        if x < 0.2 and recent:
            event_id = random.choice(recent)
        elif x < 0.5:
            event_id = f"hot-{int(run.age() * 10)}-{random.randrange(8)}"
        else:
            event_id = f"event-{random.getrandbits(60)}-{int(run.age() * 20)}"
        recent.append(event_id)
        of_event = random.Random(event_id)
        if of_event.random() < run.options.new:
            who = f"new-{of_event.getrandbits(2)}-{event_id.split('-')[-1]}"
        else:
            who = f"user-{of_event.randrange(run.options.conversations)}"
        at = datetime.fromtimestamp(int(run.began) + of_event.randrange(-500, 1500), timezone.utc)
        made.append(Event(event_id, "whatsapp", who, f"in {event_id}", at, new_id(), new_id(), b"{}"))
    return made


def rival_events(batch):
    """The provider delivers the same once more, in another order."""
    return [event._replace(conversation_id=new_id(), message_id=new_id()) for event in random.sample(batch, len(batch))]
