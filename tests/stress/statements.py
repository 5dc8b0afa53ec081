"""The statements, as they ship, the numbers that they are given, and the settings of the connections
that they run on, read from the sources."""
import json
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


class Unreadable(Exception):
    """The sources do not look as they did: what reads them here must be brought up to date."""


def shipped():
    """Each statement by its name, as it was prepared for the program, and all migrations as one."""
    queries = [json.loads(path.read_text())["query"] for path in sorted(ROOT.glob(".sqlx/*.json"))]
    found = {}
    for query in queries:
        header, sql = query.split("\n", 1)
        found[header.removeprefix("-- ")] = sql
    if "delivery::claim" not in found:
        raise Unreadable(".sqlx has no statement delivery::claim")
    found["migrations"] = "\n".join(path.read_text() for path in sorted(ROOT.glob("migrations/*.sql")))
    return found


def state(name):
    """The condition of a state of deliveries."""
    text = (ROOT / "src/delivery/states.rs").read_text()
    found = re.findall(rf'\[{name} \$.*?@add "(.*?)"', text, re.S)
    if len(found) != 1:
        raise Unreadable(f"src/delivery/states.rs: the state {name} is not found")
    return found[0]


def number(path, name):
    """A number that the program gives its statements; of a duration its seconds."""
    found = re.findall(rf"const {name}: \w+ = (?:Duration::from_(secs|mins)\()?([0-9.]+)", (ROOT / path).read_text())
    if len(found) != 1:
        raise Unreadable(f"{path}: there is no number {name}")
    unit, value = found[0]
    return float(value) * (60 if unit == "mins" else 1)


def settings():
    """What the program gives its connections by default: of each batch by its name, and of all others as `reads`."""
    by_work = settings_by_work((ROOT / "src/database/plans.rs").read_text())
    found = {"reads": of_work(by_work, "Reads")}
    for batch, work in works().items():
        found[batch] = of_work(by_work, work)
    for batch in ("ingest", "accept", "settle", "receipts"):
        if batch not in found:
            raise Unreadable(f"no `impl Batch` in src has the name {batch!r}")
    return found


def of_work(by_work, work):
    if work not in by_work:
        raise Unreadable(f"src/database/plans.rs gives Work::{work} no settings")
    return by_work[work]


def settings_by_work(text):
    """The arms of `Plans::of` for generic plans, with the tables that they name."""
    tables = {}
    for name, table in re.findall(r"const (\w+): Settings = &\[(.*?)\];", text, re.S):
        pair = r'\("(\w+)", "(\w+)"\),?'
        tables[name] = re.findall(pair, table)
        if not tables[name] or re.sub(pair, "", table).strip():
            raise Unreadable(f"src/database/plans.rs: {name} is not a table of settings")
    by_work = {}
    for pattern, name in re.findall(r"^ *(\(.*?) => (\w+),$", text, re.M):
        for alternatives in re.findall(r"\((?:Self::Generic|_), ([^)]*)\)", pattern):
            for work in re.findall(r"Work::(\w+)", alternatives):
                if name not in tables:
                    raise Unreadable(f"src/database/plans.rs: there is no table {name}")
                by_work[work] = tables[name]
    return by_work


def works():
    """What kind of work each batch is."""
    kind = r"const WORK: Work = Work::(\w+);"
    usual = re.findall(kind, (ROOT / "src/database/batch.rs").read_text())
    if len(usual) != 1:
        raise Unreadable("src/database/batch.rs: no default of `const WORK` is found")
    found = {}
    for path in sorted(ROOT.glob("src/**/*.rs")):
        for batch in re.findall(r"^impl Batch for \w+ \{\n(.*?)^\}", path.read_text(), re.S | re.M):
            name = re.findall(r'const NAME: &\'static str = "(\w+)";', batch)
            own = re.findall(kind, batch)
            if len(name) != 1 or "const WORK" in batch and len(own) != 1:
                raise Unreadable(f"{path.relative_to(ROOT)}: the name of a batch, or its work, is not understood")
            found[name[0]] = (own or usual)[0]
    return found
