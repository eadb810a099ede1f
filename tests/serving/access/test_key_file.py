"""API keys and their file: what is kept, who may write it, and that changes are whole."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from kovar.errors import NotFoundError, SettingsError
from kovar.serving.access.key import issue, parse_duration, public_id
from kovar.serving.access.key_file import add_key, read_keys, replace_by, replace_key

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "api-keys.json"


def test_a_key_has_256_random_bits_and_the_file_holds_only_its_digest(path):
    key, token = issue("billing", ("predict",))
    add_key(path, key)
    assert public_id(token) == key.id
    assert len(token.removeprefix(f"kovar_{key.id}_")) == 43
    assert token.removeprefix(f"kovar_{key.id}_") not in path.read_text()
    assert read_keys(path) == (key,)
    assert read_keys(path)[0].matches(token)


def test_the_file_is_its_owners_alone(path):
    add_key(path, issue("a", ("predict",))[0])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_others_may_write_lets_nobody_in(path):
    add_key(path, issue("a", ("predict",))[0])
    path.chmod(0o666)
    with pytest.raises(SettingsError, match="others than the owner may write"):
        read_keys(path)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"keys": [{}]}', '{"format": "other", "keys": []}', '{"kyes": []}'],
)
def test_a_damaged_file_is_refused_by_name(path, content):
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(SettingsError, match=r"api-keys\.json.*not a file of API keys"):
        read_keys(path)


def test_a_file_in_which_two_keys_share_an_id_is_refused(path):
    add_key(path, issue("a", ("predict",))[0])
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"keys": document["keys"] * 2}))
    with pytest.raises(SettingsError, match="same id"):
        read_keys(path)


def test_keys_that_are_made_at_the_same_moment_are_all_kept(path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: add_key(path, issue(f"k{n}", ("predict",))[0]), range(16)))
    assert sorted(key.name for key in read_keys(path)) == sorted(f"k{n}" for n in range(16))
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(f".{path.name}.")] in (
        [],
        [f".{path.name}.lock"],
    )


def test_a_rotated_key_holds_until_its_grace_ends(path):
    old, _ = issue("a", ("predict",), now=NOW)
    new, _ = issue("a", ("predict",), now=NOW)
    add_key(path, old)
    replace_by(path, old.id, new, until=NOW + timedelta(hours=1))
    kept = read_keys(path)
    assert [key.id for key in kept] == [old.id, new.id]
    assert [key.state(NOW) for key in kept] == ["active", "active"]
    assert [key.state(NOW + timedelta(hours=1)) for key in kept] == ["expired", "active"]


def test_a_grace_never_makes_a_key_live_longer(path):
    old, _ = issue("a", ("predict",), expires_at=NOW, now=NOW)
    add_key(path, old)
    ending = replace_by(path, old.id, issue("a", ("predict",))[0], until=NOW + timedelta(days=9))
    assert ending.expires_at == NOW


def test_an_id_that_nobody_has_is_told_with_the_nearest(path):
    key, _ = issue("a", ("predict",))
    add_key(path, key)
    wrong = key.id[:-1] + ("0" if key.id[-1] != "0" else "1")
    with pytest.raises(NotFoundError, match=f'did you mean "{key.id}"'):
        replace_key(path, wrong, lambda key: key)


def test_durations_are_read_with_their_unit():
    assert parse_duration("90d") == timedelta(days=90)
    assert parse_duration("30 min") == timedelta(minutes=30)
    for wrong in ("", "90", "-1d", "1w", "999999999d"):
        with pytest.raises(ValueError, match=r"time such as|hundred years"):
            parse_duration(wrong)
