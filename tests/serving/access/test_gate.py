"""The gate: keys, scopes, ends, rates, concurrency, and keys that change while it stands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kovar.errors import RequestError, SettingsError
from kovar.serving.access import Gate, KeyLimits, Keyring
from kovar.serving.access.key import issue
from kovar.serving.access.key_file import add_key, replace_key
from kovar.serving.access.rates import TokenBucket

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class World:
    """A file of keys, a clock, and the gate between them."""

    def __init__(self, folder) -> None:
        self.path = folder / "keys.json"
        self.clock = Clock()
        self.key, self.token = self.issue("first", ("predict",))
        self.gate = Gate(Keyring(self.path, clock=self.clock), clock=self.clock, now=lambda: NOW)

    def issue(self, name, scopes, **options):
        key, token = issue(name, scopes, now=NOW, **options)
        add_key(self.path, key)
        return key, token

    def code(self, token, scope="predict", header="x-api-key"):
        """Ask once; return how it was refused, or None."""
        headers = {} if token is None else {header: token}
        try:
            with self.gate.admit(headers, scope):
                return None
        except RequestError as refusal:
            self.told = str(refusal)
            return refusal.status, refusal.code


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_without_a_file_of_keys_everybody_may_ask():
    with Gate(None).admit({}, "predict") as key:
        assert key is None


def test_a_key_opens_in_either_header(world):
    assert world.code(world.token) is None
    assert world.code(f"Bearer {world.token}", header="authorization") is None
    assert world.code(f"bearer  {world.token} ", header="authorization") is None


def test_what_is_not_a_known_key_is_refused(world):
    assert world.code(None) == (401, "key_missing")
    forged = world.token[:-1] + ("A" if world.token[-1] != "A" else "B")
    for wrong in ("", "x", forged, f"{world.token},{world.token}", issue("n", ("admin",))[1], "é"):
        assert world.code(wrong) == (401, "key_unknown")
    assert world.code(f"Basic {world.token}", header="authorization") == (401, "key_unknown")
    assert world.token not in world.told


def test_a_scope_that_the_key_lacks_is_refused_and_admin_holds_all(world):
    assert world.code(world.token, "metadata") == (403, "scope_missing")
    assert world.code(world.token, "admin") == (403, "scope_missing")
    world.clock.now += 1
    _, admin = world.issue("root", ("admin",))
    assert [world.code(admin, scope) for scope in ("predict", "metadata", "admin")] == [None] * 3


def test_what_is_open_needs_no_key(world):
    assert world.code(None, scope=None) is None


def test_a_key_that_ended_says_so(world):
    _, token = world.issue("old", ("predict",), expires_at=NOW)
    world.clock.now += 1
    assert world.code(token) == (401, "key_expired")


def test_new_and_revoked_keys_hold_within_a_second_without_a_restart(world):
    _, late = world.issue("late", ("predict",))
    replace_key(world.path, world.key.id, lambda key: key.model_copy(update={"revoked_at": NOW}))
    assert (world.code(world.token), world.code(late)) == (None, (401, "key_unknown"))
    world.clock.now += 1
    assert (world.code(world.token), world.code(late)) == ((401, "key_revoked"), None)


def test_a_damaged_file_keeps_the_known_keys_for_a_minute_and_then_refuses(world, caplog):
    world.path.write_text("{")
    world.clock.now += 500
    assert world.code(world.token) is None
    assert caplog.text.count("cannot be read again") == 1
    world.clock.now += 61
    assert world.code(world.token) == (503, "keys_unreadable")
    assert world.code("kovar_0000000000000000_" + "A" * 43) == (503, "keys_unreadable")


def test_a_file_that_comes_back_opens_again(world):
    content = world.path.read_text()
    world.path.unlink()
    world.clock.now += 500
    world.code(world.token)
    world.clock.now += 61
    assert world.code(world.token) == (503, "keys_unreadable")
    world.path.write_text(content)
    world.path.chmod(0o600)
    world.clock.now += 1
    assert world.code(world.token) is None


def test_a_gate_without_readable_keys_does_not_start(tmp_path):
    with pytest.raises(SettingsError, match="cannot read the API keys"):
        Keyring(tmp_path / "absent.json")


def test_a_file_without_a_key_lets_nobody_in(tmp_path):
    path = tmp_path / "keys.json"
    path.write_text('{"keys": []}')
    path.chmod(0o600)
    headers = {"x-api-key": issue("a", ("admin",))[1]}
    with (
        pytest.raises(RequestError, match="not known"),
        Gate(Keyring(path)).admit(headers, "predict"),
    ):
        pass


def test_a_key_above_its_rate_is_told_when_to_come_back(world):
    limits = KeyLimits(requests_per_s=2.0, burst=3)
    _, token = world.issue("slow", ("predict",), limits=limits)
    world.clock.now += 1
    assert [world.code(token) for _ in range(4)] == [None, None, None, (429, "key_rate")]
    with pytest.raises(RequestError) as refusal, world.gate.admit({"x-api-key": token}, "predict"):
        pass
    assert refusal.value.retry_after_s == pytest.approx(0.5)
    world.clock.now += 0.5
    assert [world.code(token), world.code(token)] == [None, (429, "key_rate")]
    assert world.code(world.token) is None  # a rate is one key's own


def test_a_key_runs_at_most_so_many_requests_at_one_time(world):
    _, token = world.issue("narrow", ("predict",), limits=KeyLimits(max_concurrent=1))
    world.clock.now += 1
    with world.gate.admit({"x-api-key": token}, "predict"):
        assert world.code(token) == (429, "key_busy")
    assert world.code(token) is None
    with pytest.raises(ZeroDivisionError), world.gate.admit({"x-api-key": token}, "predict"):
        raise ZeroDivisionError
    assert world.code(token) is None


def test_limits_that_change_hold_for_requests_that_run(world):
    key, token = world.issue("k", ("predict",), limits=KeyLimits(max_concurrent=2))
    world.clock.now += 1
    with world.gate.admit({"x-api-key": token}, "predict"):
        narrow = KeyLimits(max_concurrent=1)
        replace_key(world.path, key.id, lambda key: key.model_copy(update={"limits": narrow}))
        world.clock.now += 1
        assert world.code(token) == (429, "key_busy")
    assert world.code(token) is None


@given(
    rate=st.floats(0.1, 100),
    capacity=st.integers(1, 50),
    pauses=st.lists(st.floats(0, 2), max_size=60),
)
def test_a_bucket_never_gives_more_than_its_burst_and_its_rate(rate, capacity, pauses):
    bucket, now, taken = TokenBucket(rate, capacity, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        wait_s = bucket.take(now)
        taken += wait_s == 0.0
        assert wait_s <= 1 / rate + 1e-6
        assert taken <= capacity + now * rate + 1e-6


def test_a_clock_that_goes_back_fills_no_bucket():
    bucket = TokenBucket(1.0, 1.0, 10.0)
    assert bucket.take(10.0) == 0.0
    assert bucket.take(5.0) == pytest.approx(1.0)
    assert bucket.take(10.5) == pytest.approx(0.5)


def test_a_key_in_its_last_second_still_opens(world):
    _, token = world.issue("last", ("predict",), expires_at=NOW + timedelta(seconds=1))
    world.clock.now += 1
    assert world.code(token) is None
