"""Runs the statements of the queue and of WhatsApp, as they ship, against each other: many connections,
random batches, racing repetitions, lost answers, statuses early, late and twice, killed backends, crashes
before a settlement or a release, holders slower than their leases. Then it recounts.

    python3 -m venv v && v/bin/pip install 'psycopg[binary]>=3.2'
    v/bin/python tests/stress.py postgres://… [--seconds N] [--order none|conversation] [--break NAME] …
    python3 tests/stress.py --list-breaks
    python3 tests/stress.py --check-breaks

It makes a schema `gateway_stress` in that database, and drops it unless a promise was broken. It prints
one line of JSON. Exit 0: every promise held; 1: one was broken; 2: a mistake on the command line, or in
this program. `--break` takes one rule away. The run must then end with 1 and say `"noticed": true`: a
promise that this rule keeps is broken. `--check-breaks` says whether each break still matches its
statement.

Statements come from .sqlx, by the comment on their first line; tables from migrations/; the settings
of connections from src/database/plans.rs. What the program does around its statements (it asks
what is known, releases, claims what was born due) is written here once more. That is the price of taking
rules away: `query!` fixes the program's statements when it is compiled, so that the program cannot run
without one of its rules, and this can.

The parts, in the order of reading: stress/statements.py (what ships), breaks.py (the rules), run.py (what
is shared), values.py and customers.py (what is made up), inbound.py, outbound.py and whatsapp.py (what
the program does around its statements), actors.py and cloud.py (who does it, all at once), checks.py and
told.py (the promises).
"""
import json
import random
import sys
import time

sys.dont_write_bytecode = True    # The repository stays as it is.

from stress import breaks, options, statements    # noqa: E402


def stress(asked, sql, settings):
    """Runs it all; what came out."""
    # Here: nothing else needs a database, or its driver.
    import psycopg

    from stress import actors, checks, cloud
    from stress.run import SCHEMA, Run

    random.seed(asked.seed)
    run = Run(asked, {**sql, **checks.STATEMENTS}, settings)
    admin = psycopg.connect(asked.url, autocommit=True, prepare_threshold=None, options="-cclient_min_messages=warning")
    admin.execute(f"drop schema if exists {SCHEMA} cascade; create schema {SCHEMA}; set search_path = {SCHEMA}")
    admin.execute(sql["migrations"])
    admin.execute(checks.audit(asked))

    watching = run.start(checks.watcher)
    passing, lasting = actors.start(run)
    run.noticed.wait(asked.seconds)
    run.stop.set()
    for thread in passing:
        thread.join()
    end = time.time() + asked.lease * 2 + asked.max_wait + (80 if run.per_second else 20)
    is_left = "select from deliveries where due_at is not null limit 1"
    while not run.noticed.is_set() and time.time() < end and admin.execute(is_left).fetchall():
        time.sleep(0.1)
    run.drained.set()
    for thread in lasting + watching:
        thread.join()
    if not run.noticed.is_set():
        cloud.tell_all(run)
    if not run.noticed.is_set():
        checks.check_end(run)
    if not run.violations:
        admin.execute(f"drop schema {SCHEMA} cascade")
    return {
        "seed": asked.seed, "order": asked.order, "broken": asked.broken, "noticed": run.noticed.is_set(),
        "noticed_after": run.noticed_after, "violations": run.violations, "examples": run.examples,
        "errors": run.errors, "counts": dict(sorted(run.counts.items()))}


def main():
    asked = options.parse(__doc__.split("\n\n")[0])
    if asked.list_breaks:
        print("\n".join(breaks.BREAKS))
        return 0
    try:
        sql, settings = statements.shipped(), statements.settings()
    except statements.Unreadable as error:
        print(error, file=sys.stderr)
        return 2
    faults = breaks.faults(sql, vars(asked))
    if asked.check_breaks or faults:
        said = "\n".join(faults) or f"{len(breaks.BREAKS)} breaks match their statements"
        print(said, file=sys.stderr if faults else sys.stdout)
        return 2 if faults else 0
    if asked.broken:
        sql = breaks.take_away(asked.broken, sql)
    result = stress(asked, sql, settings)
    print(json.dumps(result))
    return 1 if result["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
