"""The page that documents an application, in a real browser, and what is beside the paths."""

from __future__ import annotations

import pytest

from browser import Browser
from in_process import LIMITS, SERVED, listening
from kovar.serving.api import create_api
from kovar.serving.served_model import served_model

# What the page shows once the button has been pressed and the answer is there.
PRESS = """new Promise(done => {
  const out = document.getElementById('answer');
  new MutationObserver(() => done(out.textContent)).observe(out, {childList: true});
  document.getElementById('send').click();
})"""


def test_the_page_tries_the_application_and_loads_nothing_else(runner, runtime):
    app = create_api([served_model(SERVED, runner, runtime)], limits=LIMITS)
    with listening(app) as (host, port), Browser() as browser:
        origin = f"http://{host}:{port}"
        browser.open(f"{origin}/docs")
        answer = browser.ask("Runtime.evaluate", expression=PRESS, awaitPromise=True)
        shown = answer["result"]["value"]
        paths = browser.value(
            "[...document.querySelectorAll('summary code')].map(e => e.innerText)"
        )
    assert shown.startswith("200")
    assert '"label": "negative"' in shown
    assert "/v2/models/{model}/infer" in paths
    assert {url for url in browser.requests if not url.startswith("data:")} == {
        f"{origin}/docs",
        f"{origin}/v1/predict",
    }
    assert browser.errors == []


def test_a_head_request_gets_the_headers_alone(ask):
    response = ask("HEAD", "/v2/health/live")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-length"] == "13"


@pytest.mark.parametrize("path", ["/v2/models", "/v2/models/a/b", "/v1/predict/", "//v1/predict"])
def test_only_whole_paths_lead_somewhere(ask, path):
    assert ask("GET", path).json()["code"] == "path_not_found"


def test_a_wrong_method_is_told_the_right_one(ask):
    response = ask("GET", "/v1/predict")
    assert response.status_code == 405
    assert response.json()["error"] == "wrong method, allowed: POST"
