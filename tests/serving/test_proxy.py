"""The second try of a prediction whose replica died, without Serve."""

from __future__ import annotations

import asyncio

import pytest

from in_process import send
from kovar.serving.proxy import MAX_KEPT_BYTES, RetryBudget, SecondTry


class Dying:
    """An application that leaves the first requests without an answer, as Serve's proxy does."""

    def __init__(self, deaths: int) -> None:
        self.deaths = deaths
        self.bodies: list[bytes] = []

    async def __call__(self, scope, receive, send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        if len(self.bodies) <= self.deaths:
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


def ask(dying: Dying, path="/v1/predict", method="POST", budget=None, **request):
    app = SecondTry(dying, budget=budget or RetryBudget())
    return asyncio.run(send(app, method, path, **request))


@pytest.mark.parametrize(
    "path",
    ["/v1/predict", "/movies/v1/embeddings", "/v2/models/a/infer", "/v2/models/a/versions/3/infer"],
)
def test_a_prediction_is_sent_again_with_its_body(path):
    dying = Dying(1)
    response = ask(dying, path, content=b"text")
    assert (response.status_code, response.content) == (200, b"text")
    assert dying.bodies == [b"text", b"text"]


def test_it_is_routed_again_as_it_came():
    """Serve adds the prefix of the application to the root path of the request that it routes."""
    roots = []

    async def routed(scope, receive, send) -> None:
        roots.append(scope.get("root_path", ""))
        scope["root_path"] = roots[-1] + "/movies"
        while (await receive()).get("more_body", False):
            pass

    app = SecondTry(routed, budget=RetryBudget())
    asyncio.run(send(app, "POST", "/movies/v1/predict", content=b"text"))
    assert roots == ["", ""]


def test_it_is_sent_again_once_and_no_more():
    dying = Dying(2)
    response = ask(dying, content=b"text")
    assert (response.status_code, response.json()["code"]) == (503, "replica_lost")
    assert response.headers["retry-after"] == "1"
    assert len(dying.bodies) == 2


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/feedback"), ("DELETE", "/v1/predict")])
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
    budget, num_retried = RetryBudget(earned=0.1, reserve=5), 0
    for _ in range(100):
        dying = Dying(1)
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
