"""Holds the mock's WhatsApp side to pywa, an independent client of Meta's API: pywa sends through the mock
and reads its answers and errors, and pywa's webhook checks and reads what the mock posts.

    python3 -m venv v && v/bin/pip install --require-hashes -r .ci/pywa.txt
    v/bin/python -I tests/pywa.py target/debug/mock-meta-provider

Without -I this file would be taken for pywa. Exit 0 when both understand each other, else 1 with what was not understood.
"""
import argparse
import base64
import contextlib
import hashlib
import http.server
import logging
import os
import pathlib
import queue
import re
import subprocess
import sys
import threading
import warnings

import httpx
import pywa
from pywa import errors, handlers, types

PHONE, NUMBER, USER = "106540352242922", "16505551234", "US.13491208655302741918"
TOKEN, APP_SECRET, VERIFY = "a-token", "an-app-secret", "a-verify-token"
TRACKER = "gw1.019be0a44c7d7f3a9d2ab8c1d2e3f405.1.0123456789ab"
CALM = {
    "PORT": "0", "HOST": "127.0.0.1", "SEED": "1", "FAILURE_RATE": "0", "DUPLICATE_RATE": "0",
    "OUT_OF_ORDER_RATE": "0", "DELAY_MAX_MS": "0", "STATUS_DELAY_MAX_MS": "0", "STATUS_EARLY_RATE": "0",
    "STATUS_DUPLICATE_RATE": "0", "STATUS_OUT_OF_ORDER_RATE": "0", "STATUS_BATCH_RATE": "0",
    "STATUS_FOREIGN_RATE": "0", "STATUS_BARE_RATE": "0", "STATUS_USER_ID_RATE": "0", "STATUS_READ_RATE": "1",
}
SECONDS = 20


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    ap.add_argument("mock", type=pathlib.Path, help="the program")
    options = ap.parse_args()
    # Whatever pywa does not know is an error here.
    warnings.simplefilter("error", errors.PywaWarning)
    webhook = Webhook()
    with webhook.serving() as url, mock(options.mock.resolve(), url) as provider:
        client = webhook.client = connect(provider)
        checks = [*sending(client, webhook, provider), *reading(client, webhook, provider)]
    print(f"pywa {pywa.__version__}: {len(checks)} requests and events understood", flush=True)


def connect(provider):
    """pywa, whose Graph API is the mock."""
    client = pywa.WhatsApp(
        phone_id=PHONE, token=TOKEN, app_secret=APP_SECRET, verify_token=VERIFY, server=None,
        session=httpx.Client(timeout=SECONDS, trust_env=False), skip_duplicate_updates=False,
    )
    client.api._session.base_url = f"{provider}/v26.0"
    return client


def sending(client, webhook, provider):
    """Each kind of message, and each kind of error."""
    done = []
    earlier = client.send_message(NUMBER, "Hello", tracker=TRACKER)
    assert earlier.id.startswith("wamid.") and earlier.chat.id == NUMBER, earlier
    statuses = [webhook.next(handlers.MessageStatusHandler) for _ in range(3)]
    assert [status.status.value for status in statuses] == ["sent", "delivered", "read"], statuses
    for status in statuses:
        assert (status.id, status.tracker, status.from_user.wa_id) == (earlier.id, TRACKER, NUMBER), status
        assert status.from_user.bsuid and status.metadata.phone_number_id == PHONE and not status.error, status
        done.append(status)
    sent = {
        "reply": lambda: client.send_message(NUMBER, "Again", reply_to_message_id=earlier.id),
        "image": lambda: client.send_image(NUMBER, "https://example.com/a.jpg", caption="Look"),
        "document": lambda: client.send_document(NUMBER, "https://example.com/a.pdf", filename="a.pdf"),
        "audio": lambda: client.send_audio(NUMBER, "https://example.com/a.ogg"),
        "template": lambda: client.send_template(NUMBER, "hello", types.templates.TemplateLanguage.ENGLISH, []),
        "reaction": lambda: client.send_reaction(NUMBER, "👍", earlier.id, tracker="mine"),
        "location": lambda: client.send_location(NUMBER, 51.5, -3.2),
        "buttons": lambda: client.send_message(NUMBER, "Yes?", buttons=[types.Button("Yes", "yes")]),
        "user": lambda: client.send_message(USER, "By user id"),
    }
    for name, send in sent.items():
        message = send()
        assert message.id.startswith("wamid."), (name, message)
        last = "played" if name == "audio" else "read"
        while (status := webhook.next(handlers.MessageStatusHandler)).status.value != last:
            assert status.id == message.id, (name, status)
        assert message.chat.id == (USER if name == "user" else NUMBER), (name, message)
        done.append(message)
    assert client.mark_message_as_read("wamid.A").success
    ledger = httpx.get(f"{provider}/ledger", trust_env=False).json()
    first = ledger["messages"][0]
    assert first["idempotencyKey"] == "019be0a4-4c7d-7f3a-9d2a-b8c1d2e3f405" and first["deliveries"] == 1, first
    sends = {send["type"]: send for send in ledger["conversations"][0]["sends"][1:]}
    assert sends["image"]["content"]["link"] == "https://example.com/a.jpg", sends
    assert sends["reaction"]["opaque"] == "mine" and ledger["conversations"][0]["sends"][1]["replyTo"] == earlier.id
    assert ledger["conversations"][1]["sends"][0]["addressedBy"] == "recipient", ledger

    for code, kind in {
        130429: errors.RateLimitHit, 131056: errors.TooManyMessages, 131047: errors.ReEngagementMessage,
        131026: errors.MessageUndeliverable, 131000: errors.UnknownError, 131016: errors.ServiceUnavailable,
        190: errors.ExpiredAccessToken, 131031: errors.AccountLocked, 368: errors.TemporarilyBlocked,
        131042: errors.BusinessPaymentIssue, 132001: errors.TemplateNotExists, 100: errors.WhatsAppError, 131009: errors.InvalidParameter,
        2: errors.WhatsAppError,
    }.items():
        post(provider, "/script", {"answers": [{"fault": "code", "code": code}]})
        done.append(refused(lambda: client.send_message(NUMBER, "Hello"), kind, code))
    done.append(refused(lambda: client.send_message(NUMBER, "x" * 4097), errors.WhatsAppError, 100))
    other = connect(provider)
    other.api._session.headers["Authorization"] = "Bearer other"
    done.append(refused(lambda: other.send_message(NUMBER, "Hello"), errors.ExpiredAccessToken, 190))
    post(provider, "/config/whatsapp", {"statusFailedRate": 1, "statusFailedCode": 131049})
    message = client.send_message(NUMBER, "Too much")
    while (status := webhook.next(handlers.MessageStatusHandler)).status.value != "failed":
        assert status.id == message.id
    assert isinstance(status.error, errors.MessageUndeliverableDueToHealthyEcosystemEngagement), status
    return [*done, status]


def refused(send, kind, code):
    try:
        answer = send()
    except errors.WhatsAppError as error:
        assert isinstance(error, kind) and error.code == code and error.fbtrace_id and error.message, error
        return error
    raise AssertionError(f"{code}: {answer}")


def reading(client, webhook, provider):
    """Each kind of event."""
    verified = post(provider, "/simulate/verify", {})
    assert verified["verified"], verified
    events = [
        ({}, handlers.MessageHandler, lambda it: it.text == "Hello"),
        ({"text": "Zoë 👋"}, handlers.MessageHandler, lambda it: it.text == "Zoë 👋"),
        ({"replyTo": "wamid.B"}, handlers.MessageHandler, lambda it: it.reply_to_message.id == "wamid.B"),
        ({"forwarded": True}, handlers.MessageHandler, lambda it: it.forwarded),
        ({"type": "image", "text": "Look"}, handlers.MessageHandler, lambda it: downloads(it.image) and it.caption == "Look"),
        ({"type": "video"}, handlers.MessageHandler, lambda it: downloads(it.video)),
        ({"type": "audio"}, handlers.MessageHandler, lambda it: downloads(it.audio) and not it.audio.voice),
        ({"type": "voice"}, handlers.MessageHandler, lambda it: downloads(it.voice)),
        ({"type": "document"}, handlers.MessageHandler, lambda it: downloads(it.document) and it.document.filename == "invoice.pdf"),
        ({"type": "sticker"}, handlers.MessageHandler, lambda it: downloads(it.sticker) and not it.sticker.animated),
        ({"type": "location", "text": "Here"}, handlers.MessageHandler, lambda it: (it.location.latitude, it.location.name) == (51.4816, "Here")),
        ({"type": "contacts"}, handlers.MessageHandler, lambda it: it.contacts[0].name.formatted_name == "Barbara Johnson"),
        ({"type": "order"}, handlers.MessageHandler, lambda it: [item.quantity for item in it.order.products] == [2, 1]),
        ({"type": "reaction", "target": "wamid.T", "emoji": "👍"}, handlers.MessageHandler, lambda it: (it.reaction.message_id, it.reaction.emoji) == ("wamid.T", "👍")),
        ({"type": "reaction", "target": "wamid.T"}, handlers.MessageHandler, lambda it: it.reaction.message_id == "wamid.T" and not it.reaction.emoji),
        ({"type": "unsupported"}, handlers.MessageHandler, lambda it: it.unsupported.type == "poll_creation" and it.error.code == 131051),
        ({"type": "button_reply"}, handlers.CallbackButtonHandler, lambda it: (it.data, it.title) == ("yes", "Yes")),
        ({"type": "button"}, handlers.CallbackButtonHandler, lambda it: it.data == "yes-payload"),
        ({"type": "list_reply"}, handlers.CallbackSelectionHandler, lambda it: (it.data, it.title) == ("express", "Express")),
        ({"type": "nfm_reply"}, handlers.FlowCompletionHandler, lambda it: it.token == "token-1" and it.response["rating"] == 5),
        ({"type": "edit", "target": "wamid.T", "text": "Better"}, handlers.EditedMessageHandler, lambda it: it.original_message_id == "wamid.T" and it.message.text == "Better"),
        ({"type": "revoke", "target": "wamid.T"}, handlers.DeletedMessageHandler, lambda it: it.original_message_id == "wamid.T"),
        ({"echo": True, "text": "From the app"}, handlers.OutgoingMessageHandler, lambda it: it.text == "From the app"),
        ({"type": "user_changed_number", "newNumber": "16505550000"}, handlers.PhoneNumberChangeHandler, lambda it: (it.old_wa_id, it.new_wa_id) == (NUMBER, "16505550000")),
        ({"type": "user_changed_user_id", "newUserId": USER}, handlers.PhoneNumberChangeHandler, lambda it: it.new_user_id == USER),
        ({"from": "", "userId": USER}, handlers.MessageHandler, lambda it: (it.from_user.bsuid, it.from_user.wa_id) == (USER, None)),
    ]
    done = []
    for asked, handler, is_right in events:
        request = {"from": NUMBER, "name": "Zoë", "wait": True, **asked}
        answer = post(provider, "/simulate/whatsapp", request)
        assert answer["status"] == 200, (asked, answer)
        event = webhook.next(handler)
        assert is_right(event), (asked, event)
        assert event.metadata.phone_number_id == PHONE, (asked, event)
        if asked.get("from") != "" and "changed" not in asked.get("type", ""):
            assert (event.from_user.wa_id, event.from_user.name) == (NUMBER, "Zoë"), (asked, event)
        assert event.id == answer["wamid"], (asked, event)
        done.append(event)
    return done


def downloads(media):
    """Whether pywa gets the bytes that the event told of, and their hash."""
    url = media.get_media_url()
    answer = httpx.get(url, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False)
    assert httpx.get(url, trust_env=False).status_code == 401
    return base64.b64encode(hashlib.sha256(answer.content).digest()).decode() == media.sha256


def post(provider, path, body):
    answer = httpx.post(f"{provider}{path}", json=body, timeout=SECONDS, trust_env=False)
    assert answer.status_code == 200, (path, answer.text)
    return answer.json()


class Webhook:
    """A web server that gives everything to pywa."""

    KINDS = (
        handlers.MessageHandler, handlers.MessageStatusHandler, handlers.CallbackButtonHandler,
        handlers.CallbackSelectionHandler, handlers.FlowCompletionHandler, handlers.EditedMessageHandler,
        handlers.DeletedMessageHandler, handlers.OutgoingMessageHandler, handlers.PhoneNumberChangeHandler,
    )

    def __init__(self):
        self._client = None
        self.read = queue.Queue()
        logging.getLogger("pywa").addHandler(Complaints(self.read))

    @property
    def client(self):
        return self._client

    @client.setter
    def client(self, client):
        for kind in self.KINDS:
            client.add_handlers(kind(lambda _, event, kind=kind: self.read.put((kind, event))))
        self._client = client

    def next(self, kind):
        """The next event, which must be of this kind."""
        try:
            came, event = self.read.get(timeout=SECONDS)
        except queue.Empty:
            raise AssertionError(f"no {kind.__name__} came") from None
        assert came is kind, f"{kind.__name__} was to come: {event}"
        return event

    @contextlib.contextmanager
    def serving(self):
        webhook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                refusal = webhook.client.webhook_update_validator(body, self.headers.get(pywa.utils.HUB_SIG))
                text, status = refusal or webhook.client.webhook_update_handler(body)
                if refusal:
                    webhook.read.put((None, f"pywa refuses the signature: {text}"))
                self.answer(status, text)

            def do_GET(self):
                query = dict(httpx.URL(self.path).params)
                text, status = webhook.client.webhook_challenge_handler(
                    query.get(pywa.utils.HUB_VT), query.get(pywa.utils.HUB_CH))
                self.answer(status, text)

            def answer(self, status, text):
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/webhook"
        finally:
            server.shutdown()


class Complaints(logging.Handler):
    """What pywa logs as wrong is what it has not understood."""

    def __init__(self, read):
        super().__init__(logging.WARNING)
        self._read = read

    def emit(self, record):
        self._read.put((None, f"pywa complains: {self.format(record)}"))


@contextlib.contextmanager
def mock(program, webhook):
    """The mock provider: its URL."""
    secrets = {"WHATSAPP_ACCESS_TOKEN": TOKEN, "META_APP_SECRET": APP_SECRET, "META_VERIFY_TOKEN": VERIFY}
    environment = {
        "PATH": os.environ["PATH"], **CALM, **secrets,
        "WHATSAPP_PHONE_NUMBER_ID": PHONE, "WHATSAPP_WEBHOOK_URL": webhook,
    }
    process = subprocess.Popen([program], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if found := re.search(r"listening on (http://\S+)", line):
                threading.Thread(target=process.stderr.read, daemon=True).start()
                yield found[1]
                return
        sys.exit("pywa: the mock did not start")
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
