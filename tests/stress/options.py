"""The command line."""
import argparse

from .breaks import BREAKS

# Name, default, help. What a break needs is given by these names too.
NUMBERS = [
    ("seconds", 8.0, "how long; a break that is noticed ends the run"),
    ("seed", 1, "of what is chosen; threads and the database are not repeated by it"),
    ("lease", 0.4, "seconds"),
    ("max_wait", 6.0, "seconds that one waits behind another at the most"),
    ("sweep", 0.3, "seconds between sweeps"),
    ("fail", 0.3, "share of attempts that fail"),
    ("crash", 0.03, "share of steps that a crash keeps from being taken"),
    ("kill", 0.05, "seconds between killed backends; 0: none"),
    ("zombie", 0.02, "share of attempts slower than their lease"),
    ("no_permit", 0.2, "share of messages accepted without a lease"),
    ("pause", 0.7, "seconds between pauses of a channel; 0: none"),
    ("per_second", 0.0, "calls of a channel in a second at most; 0: no limit"),
    ("new", 0.05, "share of messages with a participant nobody knows yet"),
    ("conversations", 120, ""),
    ("accepters", 5, ""),
    ("claimers", 4, ""),
    ("ingesters", 3, ""),
    ("operators", 3, ""),
    ("arrivers", 3, "of WhatsApp's webhooks"),
    ("tellers", 3, "of what became of WhatsApp's messages"),
]


def parse(description):
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("url", nargs="?", metavar="DATABASE_URL")
    add("--order", choices=["none", "conversation"], default="conversation")
    add("--break", dest="broken", choices=BREAKS, metavar="NAME", help="take this rule away")
    add("--list-breaks", action="store_true", help="print their names, and nothing else")
    add("--check-breaks", action="store_true", help="only see that each matches its statement; needs no database")
    for name, default, text in NUMBERS:
        add(f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"{text} ({default})".strip())
    first, _ = parser.parse_known_args()
    if first.broken:
        parser.set_defaults(**BREAKS[first.broken].options)
    options = parser.parse_args()
    if not (options.url or options.list_breaks or options.check_breaks):
        parser.error("DATABASE_URL is missing")
    return options
