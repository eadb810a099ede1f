"""What the plan of an endpoint says about who can reach it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kovar.serving.access.exposure import exposure_notes

FILES = sorted((Path(__file__).parents[3] / "serve").glob("*.yaml"))
TLS = {"ssl_certfile": "a", "ssl_keyfile": "b"}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_an_endpoint_on_loopback_needs_neither_keys_nor_tls(host):
    assert exposure_notes({"http_options": {"host": host}}, has_keys=False) == ()


@pytest.mark.parametrize(
    "fields",
    [
        {"http_options": {"host": "::"}},
        {"http_options": {"host": "10.0.0.7"}},
        {"http_options": {"host": "films.example"}},
        {"http_options": {"port": 80}},  # Serve listens everywhere when nothing is said
        {},
    ],
)
def test_an_endpoint_in_the_open_is_told_what_it_lacks(fields):
    keys, tls = exposure_notes(fields, has_keys=False)
    assert "without API keys" in keys
    assert "without TLS" in tls
    assert exposure_notes(fields, has_keys=True) == (tls,)


def test_keys_and_tls_leave_nothing_to_say():
    fields = {"http_options": {"host": "10.0.0.7"} | TLS}
    assert exposure_notes(fields, has_keys=True) == ()


def test_a_certificate_behind_haproxy_is_told_to_be_too_much():
    fields = {"http_options": {"host": "10.0.0.7"} | TLS}
    (note,) = exposure_notes(fields, has_keys=True, behind_haproxy=True)
    assert note.startswith("HAProxy ends no TLS")
    plain = {"http_options": {"host": "127.0.0.1"}}
    assert exposure_notes(plain, has_keys=True, behind_haproxy=True) == ()


def test_open_grpc_is_told():
    fields = {
        "http_options": {"host": "127.0.0.1"},
        "grpc_options": {"grpc_servicer_functions": ["kovar.serving.rpc.add_service"]},
    }
    (note,) = exposure_notes(fields, has_keys=True)
    assert note.startswith("gRPC has no TLS")
    _, larger = exposure_notes(fields, has_keys=True, max_body_bytes=16 << 20)
    assert larger.startswith("gRPC takes messages of 4.0 MiB: for bodies of 16.0 MiB set RAY_SERVE")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_shipped_files_serve_nobody_else(path):
    assert exposure_notes(yaml.safe_load(path.read_text()), has_keys=False) == ()
