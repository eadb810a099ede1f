"""The second try of a prediction whose replica died, without Serve."""

from __future__ import annotations

import asyncio

import pytest

from in_process import send
from kovar.serving.proxy import MAX_KEPT_BYTES, RetryBudget, SecondTry

KOVAR = [(b"x-kovar-digest", b"ab")]


class Dying:
    """A proxy of Serve's whose replicas leave some requests without an answer.

    Args:
        deaths: how many requests end without an answer; probes are always answered.
        prefix: of the application, which Serve writes into what it routes.
        headers: of its answers.
    """

    def __init__(self, deaths: int, prefix: str = "", headers=KOVAR) -> None:
        self.deaths = deaths
        self.prefix = prefix
        self.headers = headers
        self.bodies: list[bytes] = []

    async def __call__(self, scope, receive, send) -> None:
        assert scope.get("root_path", "") == ""
        scope["root_path"] = self.prefix
        if scope["path"] == f"{self.prefix}/probe" or scope["path"].startswith("/-/"):
            status = 404 if scope["path"].endswith("/probe") else 200
            await send({"type": "http.response.start", "status": status, "headers": self.headers})
            await send({"type": "http.response.body", "body": b""})
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        if len(self.bodies) <= self.deaths:
            return
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        await send({"type": "http.response.body", "body": body})


def ask(dying: Dying, path="/v1/predict", method="POST", budget=None, **request):
    app = SecondTry(dying, budget=budget or RetryBudget())
    asyncio.run(send(app, "GET", f"{dying.prefix}/probe"))
    return asyncio.run(send(app, method, path, **request))


@pytest.mark.parametrize("prefix", ["", "/movies", "/v1/predict"])
@pytest.mark.parametrize(
    "path",
    ["/v1/predict", "/v1/embeddings", "/v2/models/a/infer", "/v2/models/a/versions/3/infer"],
)
def test_a_prediction_is_sent_again_with_its_body(prefix, path):
    dying = Dying(1, prefix)
    response = ask(dying, prefix + path, content=b"text")
    assert (response.status_code, response.content) == (200, b"text")
    assert dying.bodies == [b"text", b"text"]


@pytest.mark.parametrize(
    "path",
    [
        "/shop/v1/predict",
        "/v1/predict/",
        "/v1/predictor",
        "/v2/models/a/b/infer",
        "/x/v2/models/a/infer",
    ],
)
def test_a_path_that_only_looks_like_a_prediction_is_not_sent_again(path):
    dying = Dying(1)
    assert ask(dying, path).status_code == 503
    assert len(dying.bodies) == 1


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/predict"), ("GET", "/v2")])
def test_an_application_that_is_not_known_to_be_kovars_is_never_asked_again(method, path):
    dying = Dying(1, headers=[])
    assert ask(dying, path, method).status_code == 503
    assert len(dying.bodies) == 1


def test_a_path_that_another_application_has_taken_over_is_not_asked_again():
    dying = Dying(0)
    app = SecondTry(dying, budget=RetryBudget())
    for headers in (KOVAR, []):
        dying.headers = headers
        asyncio.run(send(app, "POST", "/v1/predict"))
    dying.deaths = 100
    assert asyncio.run(send(app, "POST", "/v1/predict")).status_code == 503
    assert len(dying.bodies) == 3


@pytest.mark.parametrize("path", ["/probe", "/-/healthz", "/-/routes"])
def test_answers_of_serve_itself_say_nothing_of_the_application(path):
    dying = Dying(1)
    app = SecondTry(dying, budget=RetryBudget())
    asyncio.run(send(app, "GET", "/probe"))
    dying.headers = []
    asyncio.run(send(app, "GET", path))
    assert asyncio.run(send(app, "POST", "/v1/predict")).status_code == 200


def test_it_is_sent_again_once_and_no_more():
    dying = Dying(2)
    response = ask(dying, content=b"text")
    assert (response.status_code, response.json()["code"]) == (503, "replica_lost")
    assert response.headers["retry-after"] == "1"
    assert len(dying.bodies) == 2


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/feedback"),
        ("DELETE", "/v1/predict"),
        ("POST", "/v2/repository/models/a/load"),
        ("GET", "/v1/predict"),
    ],
)
def test_what_may_have_a_side_effect_is_not_sent_again(method, path):
    dying = Dying(1)
    assert ask(dying, path, method).status_code == 503
    assert len(dying.bodies) == 1


def test_metadata_is_asked_for_again():
    assert ask(Dying(1), "/v2", "GET").status_code == 200


def test_a_body_too_large_to_keep_is_not_sent_again():
    dying = Dying(1)
    assert ask(dying, content=b"x" * (MAX_KEPT_BYTES + 1)).status_code == 503
    assert len(dying.bodies) == 1


def test_the_budget_bounds_second_tries_to_a_share_of_the_requests():
    budget, num_retried = RetryBudget(earned=0.05, reserve=5), 0
    for _ in range(100):
        dying = Dying(1)  # which is asked twice: to see that it is Kovar's, and to predict
        ask(dying, budget=budget)
        num_retried += len(dying.bodies) - 1
    assert num_retried == 14


def test_a_client_that_went_away_is_not_answered():
    sent = []

    async def talk():
        messages = [{"type": "http.request", "body": b"text"}, {"type": "http.disconnect"}]

        async def receive():
            return messages.pop(0)

        async def leave(scope, receive, send):
            while (await receive())["type"] != "http.disconnect":
                pass

        scope = {"type": "http", "method": "POST", "path": "/v1/predict"}
        app = SecondTry(leave, budget=RetryBudget())
        await app(scope, receive, sent.append)

    asyncio.run(talk())
    assert sent == []
