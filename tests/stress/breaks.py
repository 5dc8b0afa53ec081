"""What each rule is for: takes it away, one at a time, and names the promises that are then broken."""
import pathlib
from dataclasses import dataclass, field

from .statements import state

BLOCKED, WAITING = state("blocked"), state("waiting")
NEWEST_PAIR = "(excluded.last_message_at, excluded.last_message_id) > (c.last_message_at, c.last_message_id)"
FOREIGN_KEY = "messages_conversation_id_fkey"
# At the most: a run ends when its break is noticed.
SECONDS = {"seconds": 30.0}
CALM = {**SECONDS, "crash": 0.0, "kill": 0.0}
LIMITED = {**CALM, "per_second": 150}
# Little goes out, much comes in from WhatsApp.
ARRIVING = {**CALM, "accepters": 1, "claimers": 1, "ingesters": 1, "operators": 0, "tellers": 0, "arrivers": 6}
# What a recount at the end notices.
SHORT = {**ARRIVING, "seconds": 8.0}


@dataclass(frozen=True)
class Break:
    """A statement, a rule in its text, and what replaces that. The promises that are then broken,
    at least one of them; and the options by which that is likely to show. Without a statement it is
    a rule of the program around them: what is written here once more asks for the break by its name."""
    statement: str | None
    rule: str
    without: str
    noticed_by: tuple[str, ...]
    options: dict = field(default_factory=dict)


BREAKS = {
    "no_release": Break(
        "delivery::release", BLOCKED, "false",
        ("head_left_blocked",), CALM),
    "no_release_place": Break(
        "delivery::release", "join head using (message_id, seq)", "join head using (message_id)",
        ("order",), CALM),
    "no_sweep": Break(
        "delivery::list_unreleased", "limit $1", "limit 0 * $1",
        ("head_left_blocked",), {**SECONDS, "crash": 0.1}),
    "no_claim_lock": Break(
        "delivery::claim", " for update skip locked", "",
        ("two_leases", "leased_twice"), CALM),
    "no_claim_only_lock": Break(
        "delivery::claim_only", " for update skip locked", "",
        ("two_leases", "leased_twice"), CALM),
    "no_seq": Break(
        "message::enqueue", "or c.outbound_seq - a.n <> f.seen", "",
        ("order",), CALM),
    "no_pair": Break(
        "message::enqueue", NEWEST_PAIR, "true",
        ("preview",), CALM),
    "no_foreign_key": Break(
        "migrations", f"alter constraint {FOREIGN_KEY} deferrable initially deferred", f"drop constraint {FOREIGN_KEY}",
        ("orphan", "empty_conversation"), CALM),
    "no_requeue_guard": Break(
        "delivery::requeue", WAITING, "attempt > 0 and due_at > now()",
        ("requeued_in_flight",), CALM),
    "no_requeue_order": Break(
        "delivery::requeue", "seq = case when p.parked then p.seq else d.seq end", "seq = d.seq",
        ("order",), CALM),
    "no_cancel_guard": Break(
        "delivery::cancel", WAITING, "attempt > 0 and due_at > now()",
        ("canceled_in_flight",), CALM),
    "no_sort_events": Break(
        "webhook::ingest", "from first order by event_id", "from first order by random()",
        ("deadlock",), CALM),
    "no_fresh_body": Break(
        "webhook::ingest", "select message_id, body from fresh\n", "select message_id, body from first\n",
        ("event_without_body",), CALM),
    "no_sort_messages": Break(
        "message::enqueue", "from place order by channel, client_message_id, id", "from place order by random()",
        ("deadlock",), CALM),
    "no_fence": Break(
        "delivery::mark_failed", " and i.lease_token = d.lease_token", "",
        ("lost_lease_settled",), {**SECONDS, "zombie": 0.2, "lease": 0.3}),
    "no_share": Break(
        "delivery::claim", "where nth <= $13", "",
        ("more_than_its_share",), CALM),
    "no_pause": Break(
        "delivery::claim", " and c.paused_until <= now()", "",
        ("leased_while_paused",), CALM),
    "no_pause_of_accept": Break(
        "message::enqueue", "$12::bool or ramp_until > now() as spread", "$12::bool as spread",
        ("leased_while_paused",), CALM),
    "no_pace_lock": Break(
        "delivery::claim", " for update of c\n", "\n",
        ("pace",), LIMITED),
    "no_sort_channels": Break(
        "delivery::claim_only", "order by c.channel for update of c", "order by random() for update of c",
        ("deadlock",), LIMITED),
    "no_sent_by": Break(
        "message::enqueue", "client_message_id, sent_by, sort_at", "client_message_id, null, sort_at",
        ("sender", "sender_lost"), CALM),
    "no_trace": Break(
        "message::enqueue", "then 0 else 1 end, traceparent", "then 0 else 1 end, null",
        ("trace_lost",), CALM),
    "no_sort_items": Break(
        "whatsapp::store_messages", "from first order by event_id", "from first order by random()",
        ("deadlock",), ARRIVING),
    "no_sort_amendments": Break(
        "whatsapp::store_amendments", "from newest order by target_id, kind, sender", "from newest order by random()",
        ("deadlock",), ARRIVING),
    "no_sort_amended": Break(
        "amendment::apply", "order by m.id for update of m", "order by random() for update of m",
        ("deadlock",), ARRIVING),
    "no_amended_lock": Break(
        "amendment::apply", "order by m.id for update of m", "order by m.id",
        ("reaction_lost",), ARRIVING),
    "no_preview_lock": Break(
        "amendment::apply", "order by channel, participant_id for no key update", "order by channel, participant_id",
        ("preview",), ARRIVING),
    "no_second_look": Break(
        "amendment::apply", "order by a.target_id, a.kind, a.sender for key share of a", "order by a.target_id",
        ("not_forgotten",), SHORT),
    "no_sort_forgotten": Break(
        "forget::empty", "order by id for update", "order by random() for update",
        ("deadlock",), ARRIVING),
    "no_sort_aliases": Break(
        "alias::write", "and not is_number order by alias", "and not is_number order by random()",
        ("deadlock",), ARRIVING),
    "no_pair_of_ids": Break(
        "alias::write", "and (user_id is null\n", "and (true\n",
        ("double_conversation",), SHORT),
    "no_sort_receipts": Break(
        "receipt::record", "from inp order by provider_message_id\n", "from inp order by random()\n",
        ("deadlock",), CALM),
    "no_first_time": Break(
        "receipt::record", "delivered_at = least(r.delivered_at, excluded.delivered_at)", "delivered_at = excluded.delivered_at",
        ("receipt_backwards",), CALM),
    "no_sort_bound": Break(
        "receipt::bind", "order by provider_message_id for update", "order by random() for update",
        ("deadlock",), CALM),
    "no_receipt": Break(
        "delivery::mark_sent", "where ($3::bool[])[s.nth]", "where ($3::bool[])[s.nth] and false",
        ("sent_without_receipt",), CALM),
    "no_failed_look": Break(
        "delivery::pause_conversations", "order by id for update", "order by id",
        ("next_attempt",), {
            **CALM, "seconds": 60.0, "order": "none", "fail": 0.9, "conversations": 4, "tellers": 0, "arrivers": 0, "claimers": 8}),
    # Whoever finds its own id among the known ones made it.
    "no_known_own": Break(
        None, "", "",
        ("event_not_new_once",), {"seconds": 3.0}),    # It is counted at the end.
}


def take_away(name, sql):
    """Without this rule."""
    one = BREAKS[name]
    if one.statement is None:
        return sql
    return {**sql, one.statement: sql[one.statement].replace(one.rule, one.without)}


def faults(sql, options):
    """What is wrong with the breaks themselves, as sentences."""
    here = pathlib.Path(__file__)
    others = "".join(path.read_text() for path in here.parent.glob("*.py") if path != here)
    found = []
    for name, one in BREAKS.items():
        if one.statement is None:
            if f'"{name}"' not in others:
                found.append(f"{name}: nothing asks for it")
        elif one.statement not in sql:
            found.append(f"{name}: there is no statement {one.statement}")
        elif one.rule not in sql[one.statement]:
            found.append(f"{name}: {one.statement} has no {one.rule!r}")
        found += [f"{name}: no promise is called {promise}" for promise in one.noticed_by
                  if f'"{promise}"' not in others and f"'{promise}'" not in others]
        found += [f"{name}: no option is called {option}" for option in one.options if option not in options]
        if not one.noticed_by:
            found.append(f"{name}: nothing would notice it")
    return found
