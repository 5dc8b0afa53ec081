"""What a run makes up of WhatsApp: who writes, what comes in, what is told of what went out; and by
which rules ids lead to participants (src/alias/book.rs, as far as it is asked here)."""
import random
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from .values import chance, new_id

CHANNEL = "whatsapp"
DELETED = "[deleted]"
STEPS = ("sent", "delivered", "read", "played", "failed")


class Person(NamedTuple):
    """The ids of a customer, as a webhook has them."""
    number: str | None
    user_id: str | None

    def ids(self):
        return [one for one in self if one]


class Item(NamedTuple):
    """A message, or something about another one (`target`)."""
    event_id: str
    person: Person
    at: datetime
    is_by_customer: bool
    text: str | None
    target: str | None
    change: str | None    # reaction, edit, deletion
    conversation_id: object
    message_id: object


class Status(NamedTuple):
    """What the provider tells of a message; `opaque` is the id that it was sent with, if it is told."""
    wamid: str
    step: str
    at: datetime
    code: int | None
    opaque: object


class Row(NamedTuple):
    """An alias, but for its key."""
    participant_id: str
    user_id: str | None
    since: datetime
    changed_hands: bool


def moment(run):
    """Few, so that there are ties."""
    return datetime.fromtimestamp(int(run.began) + random.randrange(-30, 30), timezone.utc)


def pair_of(run, n):
    """Of each person a number and a user id."""
    return Person(f"4915{int(run.began) % 1000:03d}{n:06d}", f"DE.{n}")


def person(run):
    """One of few, always with the same two ids, of which a webhook may have only one; a new one now and
    then, whom many meet at the same time; or one who is written to by a name that is the only one."""
    x = random.random()
    if x < 0.4:
        return Person(None, f"user-{random.randrange(run.options.conversations)}")
    n = 100_000 + int(run.age() * 8) * 4 + random.randrange(4) if x < 0.7 else random.randrange(40)
    pair = pair_of(run, n)
    return random.choice([pair, one_id_of(pair)])


def one_id_of(who):
    """Of one person always the same: else there may be two conversations before anybody knows that they are one's."""
    if not who.number or not who.user_id:
        return who
    return Person(who.number, None) if int(who.number) % 2 else Person(None, who.user_id)


def message(run, who, is_by_customer=True):
    """One that comes late, or the newest."""
    event_id = f"wamid.in-{random.getrandbits(64):x}"
    at = moment(run) if chance(0.3) else datetime.fromtimestamp(int(run.began) + 30 + int(run.age() * 5), timezone.utc)
    return Item(event_id, who, at, is_by_customer, f"said {event_id}", None, None, new_id(), new_id())


def amendment(run, target, who, change, is_by_customer):
    text = None if change == "deletion" or change == "reaction" and chance(0.2) else f"{change} {random.getrandbits(20)}"
    event_id = f"wamid.about-{random.getrandbits(64):x}"
    return Item(event_id, who, moment(run), is_by_customer, text, target, change, new_id(), new_id())


def news(run):
    """Messages of customers and of the app, what was said of others, and what was said before. What belongs
    together is side by side."""
    made = []
    for _ in range(random.choice([1, 2, 5, 15])):
        x = random.random()
        with run.lock:
            known = random.choice(run.items) if run.items else None
            named = random.sample(run.named, min(3, len(run.named)))
        if x < 0.3 and known:
            made.append(known._replace(conversation_id=new_id(), message_id=new_id()))
        elif x < 0.65 and named:
            for one in named:
                made += said_twice(run, *one)
        else:
            who = person(run)
            first = message(run, who, chance(0.8))
            made += [first, message(run, one_id_of(who))]
            with run.lock:
                run.named.append((first.event_id, who, first.is_by_customer))
    with run.lock:
        run.items.extend(made)
    late = [item for item in made if chance(0.15)]    # others bring it first
    return [item for item in made if item not in late] or made


def said_twice(run, wamid, who, is_inbound):
    """Two who say something about one message; one who changes their mind; or a change, and the next message."""
    first, x = said_of(run, wamid, who, is_inbound), random.random()
    if x < 0.4:
        return first, amendment(run, wamid, first.person, first.change, first.is_by_customer)
    if x < 0.6:
        return amendment(run, wamid, who, "edit", is_inbound), message(run, who)
    return first, said_of(run, wamid, who, is_inbound)


def said_of(run, wamid, who, is_inbound):
    if chance(0.05):    # perhaps another, whose word counts for nothing
        return amendment(run, wamid, person(run), random.choice(["reaction", "edit", "deletion"]), True)
    if chance(0.7):
        return amendment(run, wamid, who, "reaction", chance(0.6))
    own = is_inbound if chance(0.9) else not is_inbound
    return amendment(run, wamid, who, "deletion" if chance(0.1) else "edit", own)


def rival_news(items):
    """The provider delivers the same once more, in another order."""
    return [item._replace(conversation_id=new_id(), message_id=new_id()) for item in random.sample(items, len(items))]


def statuses(run):
    """Of few messages, so that many tell of the same; in no order, early, late, twice."""
    with run.lock:
        known = random.sample(run.wamids[-60:], min(len(run.wamids[-60:]), random.choice([1, 3, 8, 20])))
    told = [status(run, *one) for one in known for _ in range(random.choice([1, 1, 2]))]
    if chance(0.3):    # another app's
        told.append(status(run, f"wamid.foreign-{int(run.age() * 10)}-{random.randrange(4)}", None))
    random.shuffle(told)
    return told


def status(run, wamid, message_id):
    step = random.choice(STEPS)
    code = random.choice([None, 131_000, 131_026]) if step == "failed" else None
    return Status(wamid, step, moment(run), code, message_id if chance(0.6) else None)


def note(steps, one):
    """Adds what a status says (src/receipt/steps.rs). `steps`: the time of each step, and `code`."""
    known = steps.get(one.step)
    if one.step != "failed":
        steps[one.step] = min(known or one.at, one.at)
        return
    told = (one.code is not None, one.at, one.code or 0)
    code = steps.get("code")
    if known is None or told > (code is not None, known, code or 0):
        steps["failed"], steps["code"] = one.at, one.code


class Book:
    """What is known of some ids, and what becomes of it."""

    def __init__(self, found):
        self.read, self.rows, self.has_conversation = {}, {}, set()
        for alias, participant_id, user_id, since, changed_hands, has_conversation in found:
            if participant_id is not None:
                self.read[alias] = self.rows[alias] = Row(participant_id, user_id, since, changed_hands)
            if has_conversation:
                self.has_conversation.add(alias)

    def changes(self):
        """(alias, what it is to be, what it was) of those that differ."""
        return [(alias, row, self.read.get(alias)) for alias, row in sorted(self.rows.items())
                if self.read.get(alias) != row]

    def hear(self, who, at):
        """The participant whose message it is."""
        if who.number and who.user_id:
            participant = self.both(who.number, who.user_id)
            self.lead(who.number, participant, who.user_id, at)
            self.lead(who.user_id, participant, None, at)
        else:
            one, = who.ids()
            participant = self.rows[one].participant_id if one in self.rows else one
            self.lead(one, participant, None, at)
        self.has_conversation.add(participant)
        return participant

    def both(self, number, user_id):
        row, theirs = self.rows.get(number), self.rows.get(user_id)
        if row:    # of the same person: nobody here gets another's number
            return row.participant_id
        if number in self.has_conversation:
            return number
        if theirs:
            return theirs.participant_id
        return user_id if user_id in self.has_conversation else number

    def lead(self, one, to, user_id, at):
        row = self.rows.get(one)
        if row is None:
            self.rows[one] = Row(to, user_id, at, False)
            return
        user_id = user_id or row.user_id
        if row.participant_id != to or row.user_id is not None and row.user_id != user_id:
            if at >= row.since:
                self.rows[one] = row._replace(participant_id=to, user_id=user_id, since=at)
            return
        self.rows[one] = row._replace(user_id=user_id, since=at if at - row.since > timedelta(hours=1) else row.since)
