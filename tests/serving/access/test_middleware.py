"""Which paths need which scope, and what reaches the gate of a request's headers."""

from __future__ import annotations

import pytest

from kovar.serving.access.middleware import credentials_in, path_in, scope_of

SCOPES = {
    ("POST", "/v1/predict"): "predict",
    ("POST", "/v1/embeddings"): "predict",
    ("POST", "/v2/models/m/infer"): "predict",
    ("POST", "/v2/repository/models/m/load"): "admin",
    ("POST", "/v2/repository/index"): "metadata",
    ("GET", "/v2"): "metadata",
    ("GET", "/v2/models/m/ready"): "metadata",
    ("GET", "/nowhere"): "metadata",
    ("GET", "/docs"): "metadata",
    ("DELETE", "/v2/health/live"): "predict",
    ("GET", "/v2/health/live/../ready"): "metadata",
    ("GET", "/v2/health/live"): None,
    ("HEAD", "/v2/health/ready"): None,
}


@pytest.mark.parametrize(("method", "path"), SCOPES)
def test_every_path_but_the_open_ones_needs_a_scope(method, path):
    assert scope_of(method, path, {"health"}) == SCOPES[method, path]


def test_docs_and_metadata_can_be_opened_and_predictions_cannot():
    assert scope_of("GET", "/docs", {"docs"}) is None
    assert scope_of("GET", "/v2/models/m", {"metadata"}) is None
    assert scope_of("POST", "/v1/predict", {"health", "docs", "metadata"}) == "predict"
    assert scope_of("GET", "/v2/health/live", set()) == "metadata"


def test_the_prefix_of_the_application_is_no_part_of_the_path():
    assert path_in({"path": "/movies/v2", "root_path": "/movies"}) == "/v2"
    assert path_in({"path": "/moviesv2", "root_path": "/movies"}) == "/moviesv2"
    assert path_in({"path": "/v2"}) == "/v2"


def test_a_header_that_is_there_twice_is_no_key():
    headers = [(b"x-api-key", b"a"), (b"accept", b"b"), (b"x-api-key", b"c")]
    assert credentials_in({"headers": headers}) == {"x-api-key": "a,c"}
