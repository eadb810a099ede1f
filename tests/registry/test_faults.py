"""Processes that are killed, a full disk, a database that goes away: what was promised holds."""

import json
import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

import registry_faults
from kovar.errors import RegistryError
from kovar.registry import Registry
from postgres import PostgresServer


@pytest.fixture
def run(settings, folder, facts):
    """Run one experiment in a process of its own; return what it found."""

    def run(experiment: str, *arguments: object, **places: str):
        chosen = settings.model_copy(update=places)
        given = [chosen.model_dump_json(), str(folder), facts.model_dump_json()]
        command = [sys.executable, registry_faults.__file__, experiment, *given]
        done = subprocess.run(
            [*command, *map(str, arguments)], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def check_torture(registry, found) -> None:
    """Replay the history: a chain in which every acknowledged promotion stands where it was."""
    history = registry.history("reviews", "champion")
    ends = [None, *(move.to_number for move in history)]
    assert [move.sequence for move in history] == list(range(1, len(history) + 1))
    assert [move.from_number for move in history] == ends[:-1]
    assert registry.aliases("reviews")["champion"] == ends[-1]
    reasons = {move.sequence: move.reason for move in history}
    lost = [told for told in found["acknowledged"] if reasons.get(told[0]) != told[1]]
    print(
        f"\n{registry._database.dialect}: {len(found['acknowledged'])} acknowledged promotions, "
        f"{len(history) - 1 - len(found['acknowledged'])} committed by processes that died "
        f"before they heard, {found['killed']} killed, {len(lost)} lost"
    )
    assert lost == []
    assert found["failed"] == 0
    assert len(found["acknowledged"]) > 0
    assert registry.verify() == []


def test_no_acknowledged_promotion_is_lost(registry, three, run):
    registry.promote("reviews", to=1, reason="first")
    found = run("promote", 8, 3.5)
    assert found["killed"] >= 1
    check_torture(registry, found)


@pytest.mark.cluster
def test_no_acknowledged_promotion_of_many_processes_is_lost(registry, three, run):
    registry.promote("reviews", to=1, reason="first")
    num_processes, seconds = 64, float(os.environ.get("KOVAR_TORTURE_SECONDS", "20"))
    found = run("promote", num_processes, seconds)
    assert found["killed"] >= seconds / 2
    check_torture(registry, found)


def test_a_registration_killed_at_any_step_leaves_a_whole_version_or_none(run):
    found = run("register")
    steps, outcomes = found["steps"], found["outcomes"]
    died = [number for number, (dead, _) in enumerate(outcomes) if dead]
    whole = [count for _, count in outcomes]
    commit = max(number for number, step in enumerate(steps) if step == "commit")
    print(f"\nkilled at {len(died)} of {len(steps)} steps: {dict(Counter(steps))}")
    assert len(died) == len(steps) > 30
    # Nothing before the commit of the metadata, everything after it.
    assert whole[:commit] == [0] * commit
    assert set(whole[commit + 1 :]) <= {1}


def test_fifty_identical_registrations_at_once_make_one_version(settings, run):
    assert run("identical", 50) == [0] * 50
    with Registry.open(settings) as registry:
        assert [version.number for version in registry.versions("reviews")] == [1]
        assert registry.verify() == []


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MB where one can be mounted; otherwise None."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    mounted = os.getuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    yield folder if mounted else None
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_registers_nothing_and_leaves_nothing(
    settings, folder, facts, run, small_disk, tmp_path
):
    (folder / "notes.txt").write_text("not compressible, but long\n" * 100_000)
    root = (small_disk or tmp_path) / "artifacts"
    message = run("full", 0 if small_disk else 1_000_000, artifact_root=str(root))
    print(f"\n{'tmpfs' if small_disk else 'RLIMIT_FSIZE'}: {message.splitlines()[0]}")
    assert "cannot store artifacts" in message
    assert "nothing was registered" in message
    assert list(Path(root, "incoming").iterdir()) == []
    (folder / "notes.txt").write_text("shorter")
    with Registry.open(settings.model_copy(update={"artifact_root": str(root)})) as registry:
        assert registry.models() == ()
        version = registry.register("reviews", folder, facts=facts)
        assert registry.verify(version) == []


def test_a_database_that_goes_away_within_a_promotion_loses_nothing(settings, folder, facts):
    """The clock is read inside the transaction, after the decision and before the commit."""
    server = PostgresServer()
    try:
        stops: list[bool] = []

        def clock() -> datetime:
            if stops:
                stops.clear()
                server.stop()
            return datetime.now(UTC)

        elsewhere = settings.model_copy(update={"database_url": server.create_database()})
        with Registry.open(elsewhere, clock=clock) as registry:
            for seed in range(2):
                changed = facts.model_copy(update={"seed": seed})
                registry.register("reviews", folder, facts=changed)
            first = registry.promote("reviews", to=1, reason="first")
            stops.append(True)
            with pytest.raises(RegistryError, match=r"database .* failed"):
                registry.promote("reviews", to=2, expected=1, reason="better")
            with pytest.raises(RegistryError, match="check that it is reachable"):
                registry.aliases("reviews")
            server.start()
            assert registry.history("reviews", "champion") == (first,)
            assert registry.promote("reviews", to=2, expected=1, reason="better").sequence == 2
    finally:
        server.close()
