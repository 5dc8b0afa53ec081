"""What the program does around the statements of messages and deliveries."""
import collections
import random
import time
import uuid
from typing import NamedTuple

from . import whatsapp
from .customers import CHANNEL, Person
from .values import (
    BURSTS, LONGEST_RAMP, PREVIEW_LENGTH, RAMP_FACTOR, RAMP_START, chance, columns, new_id, sent_by, traceparent)

# Of a held channel, much shorter than in life: seconds between the calls that try it, and of the ramp after it.
TRIAL_EVERY, HELD_RAMP = 0.05, 0.2
# Too many messages to one participant.
PAIR_LIMIT = 131_056


def release(run, link, conversation_ids, crash):
    if not run.ordered or not conversation_ids:
        return
    if chance(crash):
        return run.count("crash_before_release")
    run.count("released", len(link.run("delivery::release", list(conversation_ids))))


def conversations_of(run, message_ids):
    with run.lock:
        return [run.conversation_of[message_id] for message_id in message_ids]


class Held(NamedTuple):
    """A lease."""
    message_id: uuid.UUID
    token: uuid.UUID
    channel: str
    participant_id: str
    claims: int = 1
    failed_attempts: int = 0
    has_evidence: bool | None = None

    def is_keyless(self):
        """Whether the provider knows no idempotency key, but tells what becomes of a message."""
        return self.channel == CHANNEL


def accept_at_provider(run, held):
    """The provider takes it: what `mark_sent` takes. Where it knows no keys, it has a new id each time, and
    tells of it, whatever becomes of the answer."""
    if not held.is_keyless():
        return held.message_id, f"provider-{held.message_id}", False, None
    with run.lock:
        run.accepted_by_provider.add(held.message_id)
        wamid = f"wamid.out-{random.getrandbits(64):x}"
        run.wamids.append((wamid, held.message_id))
        if not held.participant_id.startswith("gone-"):
            run.named.append((wamid, Person(None, held.participant_id), False))
    return held.message_id, wamid, True, random.random() / 50


def mark_sent(run, link, accepted, crash):
    with run.lock:
        run.accepted_by_provider.update(one[0] for one in accepted)
    rows = link.run("delivery::mark_sent", *columns(accepted))
    run.count("sent", len(rows))
    run.count("sent_before", len(accepted) - len(rows))
    with run.lock:
        run.settled_as_sent.update(row[0] for row in rows)
    release(run, link, conversations_of(run, [one[0] for one in accepted]), crash)
    keyless = [(message_id, wamid, since) for message_id, wamid, is_keyless, since in accepted if is_keyless]
    if keyless:
        whatsapp.bind(run, link, keyless, {(row[0], row[2]) for row in rows})
        whatsapp.apply(run, link, [wamid for _, wamid, _ in keyless])
        if link.run("channel::lift", [CHANNEL], HELD_RAMP):
            run.count("lifted")
            link.run("delivery::wake_refused", [CHANNEL], "unauthorized")


def mark_failed(run, link, failed, lost):
    rows = link.run("delivery::mark_failed", *columns(failed))
    run.count("failed", len(rows))
    run.count("failure_refused", len(failed) - len(rows))
    parked = []
    for message_id, _, _, _, next_attempt_at, *_ in rows:
        if message_id in lost:
            run.bad("lost_lease_settled", message_id)
        if next_attempt_at is None:
            parked.append(message_id)
    run.count("parked", len(parked))
    with run.lock:
        run.parked.extend(parked)
    release(run, link, conversations_of(run, parked), run.options.crash)


def leave(run, link, left, lost):
    """Nobody has told of them, and nobody can: they wait for an operator."""
    rows = link.run("delivery::leave", *columns(left))
    run.count("left", len(rows))
    for message_id, *_ in rows:
        if message_id in lost:
            run.bad("lost_lease_settled", message_id)
    with run.lock:
        run.parked.extend(row[0] for row in rows)
    release(run, link, conversations_of(run, [message_id for message_id, _ in left]), run.options.crash)


def outcome(run, held):
    """How an attempt ends: what `mark_sent` takes, what `mark_failed` takes, or what `leave` takes."""
    wait, failure = random.randint(0, 80) / 1000, (held.message_id, held.token)
    is_lost = held.is_keyless() and held.claims - held.failed_attempts > 1
    if not is_lost and held.has_evidence is False:
        return None, None, failure
    if is_lost:
        return None, (*failure, False, wait, "interrupted", None, "detail", True, True, None, False, True), None
    if chance(1 - run.options.fail):
        accepted = accept_at_provider(run, held)
        if not held.is_keyless() or chance(0.9):
            return accepted, None, None
        return None, (*failure, False, wait, "timeout", None, "detail", True, True, None, False, True), None
    final = chance(0.15) or held.failed_attempts >= 4
    if not held.is_keyless():
        return None, (*failure, final, wait, "rate_limited", 429, "detail", not final, False, None, False, False), None
    kind, code = random.choice([("rate_limited", PAIR_LIMIT), ("unauthorized", 190), ("timeout", None)])
    is_final = final and kind == "rate_limited"
    return None, (
        *failure, is_final, wait, kind, None, "detail", not is_final, kind == "timeout", code, kind == "unauthorized", True), None


def begin_settling(run, held):
    """Those whose lease somebody else has by now: a failure of theirs must be refused."""
    lost = set()
    with run.lock:
        for one in held:
            if run.leases[one.message_id][0] != one.token:
                lost.add(one.message_id)
            else:
                run.leases[one.message_id][2] = True
    return lost


def attempt(run, connections, held):
    """Attempts at what is held, all leased at one time, and their settlement."""
    options, link = run.options, connections.settle
    if run.ordered:
        overtakers = ("test::overtakers", [one.message_id for one in held], [one.token for one in held])
        for message_id, in connections.reads.run(*overtakers):
            run.bad("order", message_id)
    if chance(0.5):
        time.sleep(random.random() * 0.01)
    outcomes = [outcome(run, one) for one in held]
    if chance(options.zombie):
        run.count("slower_than_lease")
        time.sleep(options.lease * random.uniform(1.1, 2.1))
    if chance(options.crash):
        return run.count("crash_before_settle")
    accepted, failed, left = ([one for one in ended if one] for ended in zip(*outcomes))
    accepted += [accept_at_provider(run, one) for one in held if one.is_keyless() and chance(0.01)]    # a slower holder's
    for ended in (accepted, failed, left):
        random.shuffle(ended)
    lost = begin_settling(run, held)
    if accepted:
        joined = lambda: None
        if len(accepted) > 1 and chance(0.15):    # the connection was lost, the backend is still at it: sent again
            again = random.sample(accepted, len(accepted))
            joined = run.beside(lambda others: mark_sent(run, others.settle, again, options.crash))
        mark_sent(run, link, accepted, options.crash)
        joined()
        if chance(0.1):
            mark_sent(run, link, accepted, options.crash)
    if failed:
        mark_failed(run, link, failed, lost)
    if left:
        leave(run, link, left, lost)
    pause_pairs(run, link, [one[0] for one in failed if one[9] == PAIR_LIMIT])


def pause_pairs(run, link, message_ids):
    conversation_ids = list(dict.fromkeys(conversations_of(run, message_ids)))
    if conversation_ids:
        waits = [random.random() / 5 for _ in conversation_ids]
        run.count("pairs_paused", len(link.run("delivery::pause_conversations", conversation_ids, waits)))


def take(run, message_id, token, before, after):
    """Notes a lease, and that nobody else may have a valid one."""
    with run.lock:
        other = run.leases.get(message_id)
        if other and not other[2] and after < other[1]:
            run.bad("two_leases", message_id)
        run.leases[message_id] = [token, before + run.options.lease, False]


def lease_of(run, limit, token):
    """The first arguments of `claim` and `claim_only`."""
    return limit, token, run.options.lease, run.per_second, RAMP_START, RAMP_FACTOR, LONGEST_RAMP, BURSTS, \
        ["instagram", "whatsapp"], 1 / TRIAL_EVERY


def claim(run, connections, ids=None):
    link = connections.reads
    token, before = new_id(), time.time()
    limit = random.choice([1, 3, 10, 30])
    lease = lease_of(run, limit, token)
    if ids is None:
        share = random.choice([1, 2, 1000])
        with run.lock:    # of this claimer nothing is in flight: a claim ends with the settlement
            full = random.sample(run.recent_conversations, min(3, len(run.recent_conversations)))
        full = list(dict.fromkeys(full))
        held = [random.randint(0, 2) for _ in full]
        rows = link.run("delivery::claim", *lease, full, held, share, repeat=False)
        had = dict(zip(full, held))
        for conversation_id, n in collections.Counter(row[14] for row in rows).items():
            if n + had.get(conversation_id, 0) > share:
                run.bad("more_than_its_share", (conversation_id, n, had.get(conversation_id, 0), share))
    else:
        rows = link.run("delivery::claim_only", *lease, ids, repeat=False)
    after = time.time()
    for row in rows:
        take(run, row[0], token, before, after)
        if row[15] != traceparent(row[0]):
            run.bad("trace_lost", row)
    with run.lock:
        run.conversation_of.update((row[0], row[14]) for row in rows)
    if rows:
        run.count("claimed" if ids is None else "claimed_only", len(rows))
        attempt(run, connections, [Held(row[0], token, row[1], row[2], row[9], row[10], row[13]) for row in rows])
    return len(rows)


def claim_at_once(run, link, rows):
    """Claims what was born due only because calls are spread: the token, and of which messages."""
    token, claimable = new_id(), [message_id for message_id, row in rows.items() if row[4]]
    if not claimable:
        return token, set()
    lease = lease_of(run, len(claimable), token)
    claimed = {row[0] for row in link.run("delivery::claim_only", *lease, claimable)}
    run.count("claimed_when_accepted", len(claimed))
    return token, claimed


def known(run, link, asked):
    """Of those that `enqueue` did not store: (request, its message, the conversation where it is this
    request that made it, whether it is leased)."""
    ids, _, channels, _, _, keys, tokens = columns(asked)
    found = link.run("message::find_replayed", ids, channels, keys, tokens)
    records = {row[0]: row for row in link.run("message::list_by_id", [row[1] for row in found])}
    if len(found) != len(asked):
        run.bad("record_missing", (len(asked), found))
    answers = []
    for place, message_id, is_leased in found:
        request, record = asked[place - 1], records[message_id]
        if record[31] != sent_by(message_id):
            run.bad("sender_lost", message_id)
        if message_id != request.id:
            run.count("replayed")
            if record[16] is None or record[16] != request.key:
                run.bad("replay_of_another_key", message_id)
            answers.append((request, message_id, None, False))
            continue
        run.count("answer_was_lost")
        if (record[3], record[6]) != (request.participant_id, request.text):
            run.bad("own_record_differs", message_id)
        answers.append((request, message_id, record[1], is_leased))
    return answers


def stored(run, rows, batch, token, claimed):
    """The same of those that `enqueue` stored."""
    answers = []
    for request in batch:
        if request.id not in rows:
            continue
        _, conversation_id, _, is_leased, _ = rows[request.id]
        if request.id in claimed:
            request, is_leased = request._replace(token=token), True
        answers.append((request, request.id, conversation_id, is_leased))
        is_paced = run.options.pause or run.per_second
        if is_leased and request.token is None or not (run.ordered or is_paced) and is_leased != bool(request.token):
            run.bad("leased_wrongly", request.id)
    return answers


def enqueue(run, link, batch, asked_at, answered=True):
    """Accepts a batch as the program does; the leases that it got. Not answered: nobody learns of the answer."""
    rows = {row[0]: row for row in link.run(
        "message::enqueue", *columns(batch), run.options.lease, run.options.max_wait, run.ordered,
        [traceparent(request.id) for request in batch], run.per_second is not None,
        [sent_by(request.id) for request in batch], PREVIEW_LENGTH, [None] * len(batch))}
    token, claimed = claim_at_once(run, link, rows)
    answers = stored(run, rows, batch, token, claimed)
    asked = [request for request in batch if request.id not in rows]
    if asked:
        answers += known(run, link, asked)
    leased = [request for request, _, conversation_id, is_leased in answers if conversation_id and is_leased]
    waiting = [conversation_id for _, _, conversation_id, is_leased in answers if conversation_id and not is_leased]
    release(run, link, waiting, run.options.crash)
    if not answered:
        return []
    with run.lock:
        run.recent.extend(message_id for _, message_id, _, _ in answers)
        run.recent_conversations.extend(waiting)
        run.conversation_of.update(
            (message_id, conversation_id) for _, message_id, conversation_id, _ in answers if conversation_id)
        for request, message_id, _, _ in answers:
            run.new_messages[message_id] += message_id == request.id
            if request.key and run.message_of_key.setdefault(request.key, message_id) != message_id:
                run.bad("key_has_two_messages", request.key)
        for request in leased:
            # Whoever is there already has claimed it after the end of this lease.
            run.leases.setdefault(request.id, [request.token, asked_at + run.options.lease, False])
    run.count("accepted_waiting", len(waiting))
    return [Held(request.id, request.token, request.channel, request.participant_id) for request in leased]
