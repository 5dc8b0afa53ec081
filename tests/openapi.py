"""Holds a real gateway to its OpenAPI document: schemathesis with all of its checks, first on a gateway
without secrets, then on one with them, then on one whose channel whatsapp is connected.

    python3 -m venv v && v/bin/pip install 'schemathesis>=4.32,<5'
    .ci/postgres v/bin/python tests/openapi.py target/debug/gateway target/debug/mock-meta-provider [--examples N] [--seed N]

Each gateway has a few messages that have failed, and a mock provider that answers at once and sometimes
fails. The first two have a private PostgreSQL of their own; the third has the one of DATABASE_URL, the mock
as Meta, messages with files, some that may have arrived, and no other channel. Exit 0 when nothing was
found, else 1 with schemathesis' report, whose curl commands start a search.
schemathesis loads this file too, for what its options cannot say.
"""
import argparse
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time

import requests
import schemathesis

SECRETS = {"API_KEYS": "a-key", "WEBHOOK_SECRET": "a-secret"}
# What connects the channel, on both sides.
ACCOUNT = {
    "WHATSAPP_PHONE_NUMBER_ID": "106540352242922", "WHATSAPP_ACCESS_TOKEN": "an-access-token-of-20",
    "META_APP_SECRET": "an-app-secret-of-32-hex-digits-0", "META_VERIFY_TOKEN": "a-verify-token-of-20",
}
MOCK = {"FAILURE_RATE": "0", "DELAY_MAX_MS": "0", "REJECT_RATE": "1", "SEED": "1"}
LATER = {"rejectRate": 0.2, "serverErrorRate": 0.2}
LOSING = {"rejectRate": 0, "lostAnswerRate": 1}
LATER_META = {**LATER, "lostAnswerRate": 0.1}
WEBHOOKS = {"/webhooks/mock-meta": SECRETS["WEBHOOK_SECRET"], "/webhooks/whatsapp": ACCOUNT["META_APP_SECRET"]}
# A valid content of each type, beside which a case may have other fields.
LINK = {"link": "https://example.com/a"}
CONTENTS = {
    "template": {"name": "hello_world", "language": "en_US"}, "image": {**LINK, "caption": "A cat"}, "video": LINK,
    "audio": LINK, "document": {**LINK, "filename": "a.pdf"}, "sticker": {"id": "1234567890"},
}
# Bodies as Meta posts them.
BODIES = [
    json.loads(text) for path in sorted(pathlib.Path(__file__).parent.glob("fuzz/seeds/bodies/*.json"))
    if (text := path.read_bytes()).startswith(b'{"object"') and path.stem not in ("cut_off", "escapes", "latin1")
]
CHANCE = random.Random(1)
NO_WHATSAPP = "^/webhooks/whatsapp$|/media$"
# A warning says that something could not be tested: that some operation never succeeded, for example. So
# half of the ids exist.
CONFIG = """
[warnings]
fail-on = true
[dictionaries]
messages.values = {messages}
conversations.values = {conversations}
files.values = {files}
# Ten log-ins a second are tried.
[[operations]]
include-operation-id = "log_in"
rate-limit = "5/s"
{log_in}
# Whatever Meta has signed is taken, also what nobody can read.
[[operations]]
include-operation-id = "receive_whatsapp_webhook"
checks.negative_data_rejection.expected-statuses = ["200", "4xx", "5xx"]
# What is not connected is not there; without WhatsApp no message has a file.
[[operations]]
include-path-regex = "{unconnected}"
warnings = false
[[operations]]
include-path-regex = "^/messages/.id.(?!/media)"
parameters."path.id" = {{ dictionary = "messages", probability = 0.5 }}
[[operations]]
include-path-regex = "^/messages/.id./media"
parameters."path.id" = {{ dictionary = "files", probability = 0.5 }}
[[operations]]
include-path-regex = "^/conversations/.id."
parameters."path.id" = {{ dictionary = "conversations", probability = 0.5 }}
"""


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    ap.add_argument("gateway", type=pathlib.Path, help="the program")
    ap.add_argument("mock", type=pathlib.Path, help="the program of the mock provider")
    ap.add_argument("--examples", type=int, default=20, help="the most random cases of one operation (default: 20)")
    ap.add_argument("--seed", type=int, default=1, help="repeats the random choices, ids aside (default: 1)")
    options = ap.parse_args()
    stages = {"without secrets": without_secrets, "with secrets": with_secrets, "connected to WhatsApp": connected}
    for name, stage in stages.items():
        with tempfile.TemporaryDirectory() as directory:
            os.chmod(directory, 0o711)  # PostgreSQL, under a user of its own, has to get through
            with stage(options, directory) as (url, mode, config):
                report = compare(url, config, mode, directory, options)
        if report.returncode:
            why = "the gateway and its document differ, or something could not be tested"
            sys.exit(f"{report.stdout}\nopenapi: {name}, {why}")
        counts = (line.strip() for line in report.stdout.splitlines() if " passed" in line and "generated" in line)
        cases = next(counts, "")
        print(f"openapi: {name} nothing found ({cases})", flush=True)


@contextlib.contextmanager
def without_secrets(options, directory):
    private = ["--mock-port", "0", "--data-dir", f"{directory}/data"]
    with running([options.gateway, "serve", *private], MOCK, directory) as said:
        ids = failed_messages(said["address"], said["provider"], "user-", LATER)
        # Without keys nothing is one, and no log-in succeeds.
        config = CONFIG.format(unconnected=NO_WHATSAPP, log_in="warnings = false", files=ids["messages"], **ids)
        yield said["address"], "open", config


@contextlib.contextmanager
def with_secrets(options, directory):
    private = ["--mock-port", "0", "--data-dir", f"{directory}/data"]
    with running([options.gateway, "serve", *private], {**MOCK, **SECRETS}, directory) as said:
        ids = failed_messages(said["address"], said["provider"], "user-", LATER)
        yield said["address"], "keys", CONFIG.format(unconnected=NO_WHATSAPP, log_in="", files=ids["messages"], **ids)


@contextlib.contextmanager
def connected(options, directory):
    """Its mock is a process of its own, and tells nothing of what has become of a message: what may have
    arrived waits for an operator."""
    mock = {**MOCK, **ACCOUNT, "DUPLICATE_RATE": "0", "OUT_OF_ORDER_RATE": "0", "STATUS_NEVER_RATE": "1"}
    with running([options.mock], mock, directory) as meta:
        provider = meta["address"]
        # The other one of that server is empty, so the gateway migrates it.
        database = os.environ["DATABASE_URL"].replace("/gateway?", "/postgres?")
        environment = {**SECRETS, **ACCOUNT, "DATABASE_URL": database, "GRAPH_URL": provider, "AMBIGUOUS_POLICY": "hold"}
        with running([options.gateway, "serve"], environment, directory) as said:
            url = said["address"]
            post(f"{provider}/config/whatsapp", {"webhookUrl": f"{url}/webhooks/whatsapp"})
            refused = failed_messages(url, provider, "4915100000", LOSING)
            lost = failed_messages(url, provider, "4915200000", LATER_META)
            files = messages_with_files(url, provider)
            config = CONFIG.format(
                unconnected="^/webhooks/mock-meta$", log_in="", messages=refused["messages"] + lost["messages"],
                conversations=refused["conversations"] + lost["conversations"], files=list(files.values()))
            os.environ["ANSWERABLE"] = json.dumps(list(files.items()))
            yield url, "connected", config


@contextlib.contextmanager
def running(command, environment, directory):
    """A program on a port of its own: what it says of itself once it is ready."""
    ours = {*SECRETS, *ACCOUNT, "DATABASE_URL", "PROVIDER_URL", "GRAPH_URL"}
    theirs = {name: value for name, value in os.environ.items() if name not in ours}
    environment = {"PORT": "0", "HOST": "127.0.0.1", "RUST_LOG": "info", "LOG_FORMAT": "json", **environment}
    log = pathlib.Path(directory, f"{pathlib.Path(command[0]).name}.log")
    with log.open("w") as stderr:
        program = subprocess.Popen([command[0].resolve(), *command[1:]], env={**theirs, **environment}, stderr=stderr)
    try:
        end = time.monotonic() + 60
        while (said := ready(log)) is None:
            if program.poll() is not None or time.monotonic() > end:
                sys.exit(f"{log.read_text()}\nopenapi: {command[0].name} did not start")
            time.sleep(0.05)
        yield said
    finally:
        program.terminate()
        program.wait(60)


def ready(log):
    """What the program that logs here has said of itself, once it is ready."""
    text = log.read_text()
    # The mock's only line.
    if found := re.search(r"listening on (http://\S+)", text):
        return {"address": found[1]}
    lines = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
    if not any(line["message"] == "ready" for line in lines):
        return None
    return {name: value for line in lines for name, value in line.items()}


def post(url, body, **options):
    answer = requests.post(url, json=body, timeout=60, **options)
    answer.raise_for_status()
    return answer.json()


def failed_messages(url, provider, prefix, then):
    """Ids of messages that have failed for good, and of their conversations; from then on the provider is another."""
    bodies = ({"channel": "whatsapp", "to": f"{prefix}{number}", "text": "Merhaba!"} for number in range(10, 40))
    messages = [post(f"{url}/messages/send", body, auth=Key()) for body in bodies]
    assert all(message["status"] == "FAILED" for message in messages), messages
    post(f"{provider}/config", then)
    ids = {"messages": "id", "conversations": "conversationId"}
    return {name: [message[field] for message in messages] for name, field in ids.items()}


def messages_with_files(url, provider):
    """The ids of messages with files of Meta's, by who has sent them."""
    for number, kind in enumerate(["image", "document", "audio", "video", "sticker"] * 4):
        item = {"from": f"49153000{number:04}", "type": kind, "wait": True}
        assert post(f"{provider}/simulate/whatsapp", item)["status"] == 200
    options = {"auth": Key(), "timeout": 60}
    rows = requests.get(f"{url}/conversations?participant=49153&limit=100", **options).json()["data"]
    threads = (requests.get(f"{url}/conversations/{row['id']}", **options).json() for row in rows)
    return {thread["messages"][0]["participantId"]: thread["messages"][0]["id"] for thread in threads}


def compare(url, config, mode, directory, options):
    """Runs schemathesis in a directory in which it finds nothing of earlier runs."""
    pathlib.Path(directory, "schemathesis.toml").write_text(config)
    here = pathlib.Path(__file__)
    hooks = {"SCHEMATHESIS_HOOKS": here.stem, "PYTHONPATH": str(here.resolve().parent)}
    environment = {**os.environ, **hooks, "MODE": mode}
    # Timings decide nothing, so no health check; shrinking finds nothing more.
    # A stream does not end within any of them; tests/feed has what it says.
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/api/openapi.json", "--url", url, "--checks", "all",
               "--seed", str(options.seed), "--max-examples", str(options.examples), "--generation-database", "none",
               "--continue-on-failure", "--suppress-health-check", "all", "--no-shrink", "--no-color",
               "--exclude-path", "/events"]
    return subprocess.run(
        command, env=environment, cwd=directory, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@schemathesis.hook
def before_call(context, case, kwargs):
    """What a document cannot say of two parameters: a page and a cursor together are refused, so a valid case
    has one of them; so are a page and a limit whose product is beyond 100,000; and so are two different keys,
    so a valid case has one in its body or in its header; and only a key logs in, and only a token of ours is
    Meta's. What Meta posts is at times what it may post."""
    if not case.meta.generation.mode.is_positive:
        return
    if isinstance(case.body, dict) and case.headers and "Idempotency-Key" in case.headers:
        case.body.pop("clientMessageId", None)
    if case.operation.label == "POST /messages/send" and isinstance(case.body, dict):
        make_sendable(case.body)
    if case.operation.label == "POST /session" and isinstance(case.body, dict):
        case.body["key"] = SECRETS["API_KEYS"]
    if case.operation.label == "POST /webhooks/whatsapp" and CHANCE.random() < 0.7:
        case.body = CHANCE.choice(BODIES)
    query = dict(case.query or {})
    if case.operation.label == "GET /webhooks/whatsapp":
        query |= {"hub.mode": "subscribe", "hub.verify_token": ACCOUNT["META_VERIFY_TOKEN"]}
    if "page" in query and "cursor" in query:
        about = getattr(case.meta.phase.data, "parameter", None)
        del query["page" if about == "cursor" else "cursor"]
    if str(query.get("page", "")).isdigit():
        limit = str(query.get("limit", 50))
        query["page"] = min(int(query["page"]), 100_000 // int(limit if limit.isdigit() else 200))
    case.query = query


def make_sendable(body):
    """The mock's channels have texts only, and a text needs one. WhatsApp sends to numbers and user ids, of each
    type something else, and answers only what the same customer has written."""
    is_whatsapp = os.environ["MODE"] == "connected" and body.get("channel") == "whatsapp"
    kind = body.get("type") if is_whatsapp else body.pop("type", None)
    if kind in CONTENTS and is_whatsapp:
        body["content"] = CONTENTS[kind]
    else:
        body.setdefault("text", "Merhaba!")
    if not is_whatsapp:
        return
    if kind not in CONTENTS:
        body.pop("content", None)
    body["to"] = CHANCE.choice(["+491540000001", "491540000002", "US.13491208655302741918"])
    if body.get("replyTo"):
        body["to"], body["replyTo"] = CHANCE.choice(json.loads(os.environ["ANSWERABLE"]))


class Key(requests.auth.AuthBase):
    def __call__(self, request):
        request.headers["Authorization"] = f"Bearer {SECRETS['API_KEYS']}"
        return request


class Signature(requests.auth.AuthBase):
    def __init__(self, secret):
        self.secret = secret

    def __call__(self, request):
        body = request.body or b""
        body = body.encode() if isinstance(body, str) else body
        tag = hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()
        request.headers["X-Hub-Signature-256"] = f"sha256={tag}"
        return request


if __name__ == "__main__":
    main()
elif os.environ["MODE"] != "open":
    schemathesis.auth.set_from_requests(Key()).skip_for(path=list(WEBHOOKS))
    for path, secret in WEBHOOKS.items():
        schemathesis.auth.set_from_requests(Signature(secret)).apply_to(path=path)
