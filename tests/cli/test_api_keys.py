"""`kovar keys create|list|revoke|rotate`, in this process."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from kovar.cli import app
from kovar.errors import NotFoundError, SettingsError, UserError
from kovar.serving.access.key_file import read_keys


@pytest.fixture
def kovar(tmp_path, monkeypatch):
    monkeypatch.setenv("KOVAR_API_KEYS", str(tmp_path / "keys.json"))

    def call(*arguments):
        done = CliRunner().invoke(app, ["keys", *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    return call


def created(kovar, *arguments):
    return json.loads(kovar("create", *arguments, "--json"))


def test_a_key_is_shown_once_and_then_only_its_public_facts(kovar, tmp_path):
    output = kovar("create", "billing", "--scope", "predict", "--expires", "90d")
    (token,) = [line.split()[1] for line in output.splitlines() if line.startswith("key ")]
    (key,) = read_keys(tmp_path / "keys.json")
    assert key.matches(token)
    listed = kovar("list") + kovar("list", "--json")
    assert "billing" in listed
    assert token not in listed
    assert key.sha256 not in listed


def test_limits_and_scopes_are_kept(kovar):
    made = created(kovar, "a", "--scope", "metadata", "--scope", "predict", "--requests-per-s", "5")
    assert made["scopes"] == ["predict", "metadata"]
    assert made["limits"]["requests_per_s"] == 5
    assert json.loads(kovar("list", "--json"))[0]["state"] == "active"


def test_a_revoked_key_stays_listed_as_such(kovar):
    key_id = created(kovar, "a")["id"]
    kovar("revoke", key_id)
    assert json.loads(kovar("list", "--json"))[0]["state"] == "revoked"


def test_rotating_makes_a_successor_with_the_same_rights(kovar):
    old = created(kovar, "a", "--scope", "admin", "--max-concurrent", "3")
    new = json.loads(kovar("rotate", old["id"], "--grace", "0s", "--json"))
    assert {name: new[name] for name in ("name", "scopes", "limits")} == {
        name: old[name] for name in ("name", "scopes", "limits")
    }
    assert new["key"] != old["key"]
    states = [key["state"] for key in json.loads(kovar("list", "--json"))]
    assert states == ["expired", "active"]


MISTAKES = {
    "an unknown scope": (["create", "a", "--scope", "predcit"], UserError, 'mean "predict"'),
    "a burst without a rate": (["create", "a", "--burst", "3"], UserError, "burst needs"),
    "a rate of nothing": (["create", "a", "--requests-per-s", "0"], UserError, "requests_per_s"),
    "no unit": (["create", "a", "--expires", "90"], UserError, "--expires"),
    "no name": (["create", ""], UserError, "1 to 100"),
    "an id of nobody": (["revoke", "0" * 16], NotFoundError, "no such API key"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_what_is_allowed(kovar, mistake):
    arguments, kind, told = MISTAKES[mistake]
    kovar("create", "somebody")
    with pytest.raises(kind, match=told):
        kovar(*arguments)


def test_without_a_file_the_command_says_how_to_name_one(monkeypatch, kovar):
    monkeypatch.delenv("KOVAR_API_KEYS")
    with pytest.raises(UserError, match="KOVAR_API_KEYS"):
        kovar("list")


def test_a_file_that_is_not_there_lists_nothing(kovar):
    with pytest.raises(SettingsError, match="kovar keys create"):
        kovar("list")
