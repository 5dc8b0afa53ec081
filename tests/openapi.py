"""Holds a real gateway to its OpenAPI document: schemathesis with all of its checks, first on a gateway
without secrets, then on one with them.

    python3 -m venv v && v/bin/pip install 'schemathesis>=4.32,<5'
    v/bin/python tests/openapi.py target/debug/gateway [--examples N] [--seed N]

Each gateway has a private PostgreSQL of its own with a few messages that have failed, and a mock provider
that answers at once and sometimes fails. Exit 0 when nothing was found, else 1 with schemathesis' report,
whose curl commands start a search.
schemathesis loads this file too, for what its options cannot say.
"""
import argparse
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import requests
import schemathesis

SECRETS = {"API_KEYS": "a-key", "WEBHOOK_SECRET": "a-secret"}
MOCK = {"FAILURE_RATE": "0", "DELAY_MAX_MS": "0", "REJECT_RATE": "1", "SEED": "1"}
LATER = {"rejectRate": 0.2, "serverErrorRate": 0.2}
WEBHOOKS = "/webhooks/mock-meta"
# A warning says that something could not be tested: that some operation never succeeded, for example. So
# half of the ids exist.
CONFIG = """
[warnings]
fail-on = true
[dictionaries]
messages.values = {messages}
conversations.values = {conversations}
# Ten log-ins a second are tried.
[[operations]]
include-operation-id = "log_in"
rate-limit = "5/s"
{log_in}
# It is not connected to WhatsApp: there is no such webhook, and no message has a file.
[[operations]]
include-path-regex = "^/webhooks/whatsapp$|/media$"
warnings = false
[[operations]]
include-path-regex = "^/messages/.id."
parameters."path.id" = {{ dictionary = "messages", probability = 0.5 }}
[[operations]]
include-path-regex = "^/conversations/.id."
parameters."path.id" = {{ dictionary = "conversations", probability = 0.5 }}
"""


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    ap.add_argument("gateway", type=pathlib.Path, help="the program")
    ap.add_argument("--examples", type=int, default=20, help="the most random cases of one operation (default: 20)")
    ap.add_argument("--seed", type=int, default=1, help="repeats the random choices, ids aside (default: 1)")
    options = ap.parse_args()
    for name, secrets in (("without secrets", {}), ("with secrets", SECRETS)):
        with tempfile.TemporaryDirectory() as directory:
            os.chmod(directory, 0o711)  # PostgreSQL, under a user of its own, has to get through
            with serving(options.gateway.resolve(), secrets, directory) as (url, provider):
                # Without keys nothing is one, and no log-in succeeds.
                log_in = "" if secrets else "warnings = false"
                config = CONFIG.format(log_in=log_in, **failed_messages(url, provider))
                report = compare(url, config, secrets, directory, options)
        if report.returncode:
            why = "the gateway and its document differ, or something could not be tested"
            sys.exit(f"{report.stdout}\nopenapi: {name}, {why}")
        counts = (line.strip() for line in report.stdout.splitlines() if " passed" in line and "generated" in line)
        cases = next(counts, "")
        print(f"openapi: {name} nothing found ({cases})", flush=True)


@contextlib.contextmanager
def serving(program, secrets, directory):
    """A gateway that is ready: its URL, and its provider's."""
    ours = {*SECRETS, "DATABASE_URL", "PROVIDER_URL"}
    theirs = {name: value for name, value in os.environ.items() if name not in ours}
    environment = {**theirs, **MOCK, **secrets, "HOST": "127.0.0.1", "RUST_LOG": "info", "LOG_FORMAT": "json"}
    command = [program, "serve", "--port", "0", "--mock-port", "0", "--data-dir", f"{directory}/data"]
    log = pathlib.Path(directory, "log")
    with log.open("w") as stderr:
        gateway = subprocess.Popen(command, env=environment, stderr=stderr)
    try:
        end = time.monotonic() + 60
        while (urls := ready(log)) is None:
            if gateway.poll() is not None or time.monotonic() > end:
                sys.exit(f"{log.read_text()}\nopenapi: the gateway did not start")
            time.sleep(0.05)
        yield urls
    finally:
        gateway.terminate()
        gateway.wait(60)


def ready(log):
    """The URLs of the gateway that logs here and of its provider, once it is ready."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    if not any(line["message"] == "ready" for line in lines):
        return None
    said = {name: value for line in lines for name, value in line.items()}
    return said["address"], said["provider"]


def failed_messages(url, provider):
    """Ids of messages that have failed for good, and of their conversations; from then on the provider is better."""
    messages = []
    for number in range(30):
        body = {"channel": "whatsapp", "to": f"user-{number}", "text": "Merhaba!"}
        answer = requests.post(f"{url}/messages/send", json=body, auth=Key())
        answer.raise_for_status()
        messages.append(answer.json())
    requests.post(f"{provider}/config", json=LATER).raise_for_status()
    ids = {"messages": "id", "conversations": "conversationId"}
    return {name: [message[field] for message in messages] for name, field in ids.items()}


def compare(url, config, secrets, directory, options):
    """Runs schemathesis in a directory in which it finds nothing of earlier runs."""
    pathlib.Path(directory, "schemathesis.toml").write_text(config)
    here = pathlib.Path(__file__)
    hooks = {"SCHEMATHESIS_HOOKS": here.stem, "PYTHONPATH": str(here.resolve().parent)}
    environment = {**os.environ, **hooks, "SECRETS": str(bool(secrets))}
    # Timings decide nothing, so no health check; shrinking finds nothing more.
    # A stream does not end within any of them; tests/feed has what it says.
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/api/openapi.json", "--url", url, "--checks", "all",
               "--seed", str(options.seed), "--max-examples", str(options.examples), "--generation-database", "none",
               "--continue-on-failure", "--suppress-health-check", "all", "--no-shrink", "--no-color",
               "--exclude-path", "/events"]
    return subprocess.run(
        command, env=environment, cwd=directory, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@schemathesis.hook
def map_case(context, case):
    """What a document cannot say of two parameters: a page and a cursor together are refused, so a valid case
    has one of them; so are a page and a limit whose product is beyond 100,000; and so are two different keys,
    so a valid case has one in its body or in its header; the mock's channels have texts only, and a text needs
    one; and only a key logs in."""
    if not case.meta.generation.mode.is_positive:
        return case
    if isinstance(case.body, dict) and case.headers and "Idempotency-Key" in case.headers:
        case.body.pop("clientMessageId", None)
    if case.operation.label == "POST /messages/send" and isinstance(case.body, dict):
        case.body.pop("type", None)
        case.body.setdefault("text", "Merhaba!")
    if case.operation.label == "POST /session" and isinstance(case.body, dict):
        case.body["key"] = SECRETS["API_KEYS"]
    query = dict(case.query or {})
    if "page" in query and "cursor" in query:
        about = getattr(case.meta.phase.data, "parameter", None)
        del query["page" if about == "cursor" else "cursor"]
    if str(query.get("page", "")).isdigit():
        limit = str(query.get("limit", 50))
        query["page"] = min(int(query["page"]), 100_000 // int(limit if limit.isdigit() else 200))
    case.query = query
    return case


class Key(requests.auth.AuthBase):
    def __call__(self, request):
        request.headers["Authorization"] = f"Bearer {SECRETS['API_KEYS']}"
        return request


class Signature(requests.auth.AuthBase):
    def __call__(self, request):
        body = request.body or b""
        body = body.encode() if isinstance(body, str) else body
        tag = hmac.new(SECRETS["WEBHOOK_SECRET"].encode(), body, hashlib.sha256).hexdigest()
        request.headers["X-Hub-Signature-256"] = f"sha256={tag}"
        return request


if __name__ == "__main__":
    main()
elif os.environ["SECRETS"] == "True":
    schemathesis.auth.set_from_requests(Key()).skip_for(path=WEBHOOKS)
    schemathesis.auth.set_from_requests(Signature()).apply_to(path=WEBHOOKS)
