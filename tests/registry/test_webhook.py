"""Moves of aliases reach a real HTTP server: signed, retried, never in the way."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kovar.errors import SettingsError
from kovar.registry import Registry
from kovar.registry.webhook import AliasWebhook, RetryPolicy, signature_of, verify_signature

SECRET = "a long random text"
FAST = RetryPolicy(first_delay_s=0.01, timeout_s=2, drain_s=5, max_attempts=4)


class Receiver(ThreadingHTTPServer):
    """Answers with the statuses in turn, then with 200; `release` lets slow answers go."""

    daemon_threads = True

    def __init__(self, *statuses: int, slow: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses = list(statuses)
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.release = threading.Event()
        if not slow:
            self.release.set()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hooks"

    def end(self) -> None:
        self.release.set()
        self.shutdown()
        self.thread.join()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((dict(self.headers), body))
        self.server.release.wait(10)
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        self.send_response(status)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Keep the output of the tests clean."""


@pytest.fixture
def receiver():
    started = []

    def start(*statuses: int, slow: bool = False) -> Receiver:
        started.append(Receiver(*statuses, slow=slow))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture
def move(registry, three):
    return registry.set_alias("reviews", "champion", 2, reason="better")


def told(url: str, move, retry: RetryPolicy = FAST):
    webhook = AliasWebhook((url,), secret=SECRET, retry=retry)
    webhook(move)
    (outcome,) = webhook.close()
    return outcome


def test_a_move_arrives_with_its_facts(receiver, move, three):
    server = receiver()
    outcome = told(server.url, move)
    ((headers, content),) = server.requests
    body = json.loads(content)
    assert (outcome.status, outcome.attempts, outcome.error) == (200, 1, None)
    assert headers["Kovar-Event"] == body["event"] == "alias.moved"
    assert headers["Kovar-Delivery"] == "reviews/champion/1"
    assert body["to"] == {"number": 2, "digest": three[1].digest}
    assert (body["from"], body["reason"], body["forced"]) == (None, "better", False)


def test_the_signature_covers_body_and_time(receiver, move):
    server = receiver()
    told(server.url, move)
    ((headers, body),) = server.requests
    signature = headers["Kovar-Signature"]
    assert verify_signature(signature, body, secret=SECRET)
    assert not verify_signature(signature, body + b" ", secret=SECRET)
    assert not verify_signature(signature, body, secret="another")
    later = time.time() + 301
    assert not verify_signature(signature, body, secret=SECRET, clock=lambda: later)
    assert not verify_signature("nonsense", body, secret=SECRET)


def test_the_signature_is_hmac_sha256_over_time_and_body():
    # printf '12.{}' | openssl dgst -sha256 -hmac key
    expected = "043e30e1e15664dc97494d18e4110984bcbd2c4e6f3e19de9569dc1ea6d9b03e"
    assert signature_of(b"key", b"{}", at=12) == f"t=12,v1={expected}"


def test_failures_that_may_pass_are_retried_with_the_same_delivery(receiver, move):
    server = receiver(500, 429, 503)
    outcome = told(server.url, move)
    assert (outcome.status, outcome.attempts, outcome.error) == (200, 4, None)
    assert {headers["Kovar-Delivery"] for headers, _ in server.requests} == {"reviews/champion/1"}


@pytest.mark.parametrize("status", [400, 401, 404, 410])
def test_a_refusal_is_not_retried(receiver, move, status, caplog):
    outcome = told(receiver(status).url, move)
    assert (outcome.status, outcome.attempts, outcome.error) == (status, 1, f"HTTP {status}")
    assert "not told after 1 attempts" in caplog.text


def test_a_redirect_is_not_followed(receiver, move):
    server = receiver(302, 302, 302, 302)
    assert told(server.url, move).status == 302
    assert len(server.requests) == 4


def test_a_receiver_that_is_away_is_given_up_after_the_last_attempt(receiver, move):
    server = receiver()
    url = server.url
    server.end()
    outcome = told(url, move)
    assert (outcome.attempts, outcome.status) == (4, None)
    assert "refused" in outcome.error


def test_a_promotion_waits_for_no_receiver_and_closing_waits_a_bounded_time(
    settings, three, receiver, caplog
):
    server = receiver(slow=True)
    with Registry.open(settings) as registry:
        hook = AliasWebhook((server.url,), secret=SECRET, retry=RetryPolicy(drain_s=0.2))
        registry.on_alias_move = hook
        assert registry.set_alias("reviews", "champion", 1).to_number == 1
        assert registry.aliases("reviews") == {"champion": 1}
        started = time.monotonic()
        assert hook.close() == []
    assert time.monotonic() - started < 2
    assert "1 webhook deliveries were given up" in caplog.text


def test_a_hook_that_raises_does_not_fail_the_promotion(registry, three, caplog):
    def broken(move) -> None:
        raise RuntimeError("broken hook")

    registry.on_alias_move = broken
    assert registry.set_alias("reviews", "champion", 1).to_number == 1
    assert "the move of reviews@champion stands" in caplog.text


def test_a_move_that_lost_tells_no_one(registry, three):
    told = []
    registry.on_alias_move = told.append
    registry.set_alias("reviews", "champion", 1)
    with pytest.raises(Exception, match="you expected"):
        registry.set_alias("reviews", "champion", 3, expected=2)
    assert [move.to_number for move in told] == [1]


def test_the_settings_are_enough(settings, three, receiver):
    server = receiver()
    changes = {"webhook_urls": (server.url,), "webhook_secret": SECRET}
    with Registry.open(settings.model_copy(update=changes)) as registry:
        registry.set_alias("reviews", "champion", 3)
    ((headers, body),) = server.requests
    assert verify_signature(headers["Kovar-Signature"], body, secret=SECRET)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"webhook_urls": ("ftp://a",), "webhook_secret": "s"}, "webhook_urls"),
        ({"webhook_urls": ("https:///x",), "webhook_secret": "s"}, "webhook_urls"),
        ({"webhook_urls": ("https://a",)}, "webhook_secret"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, changes, field):
    with pytest.raises(SettingsError) as caught:
        Registry.open(settings.model_copy(update=changes))
    assert caught.value.field == field
