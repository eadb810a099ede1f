"""The ledger of a sweep: what is in it was written, and nothing else."""

import json
import resource
from pathlib import Path
from typing import get_args

import pytest

from kovar.errors import RunError
from kovar.tuning.ledger import FIELDS, EntryKind, Ledger, read_ledger

GUIDE = Path(__file__).parents[2] / "docs" / "sweep-running.md"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, clock=lambda: 1000.0) as ledger:
        ledger.append("opened")
        ledger.append("proposed", trial=1, configuration=1, seed=0, point={"precision": "fp32"})
        ledger.append("started", trial=1)
    return path


def kinds(path):
    return [entry.kind for entry in read_ledger(path)]


def test_lines_are_read_as_they_were_written(path):
    first, second, _ = read_ledger(path)
    assert (first.number, first.at, first.kind, first.fields) == (1, 1000.0, "opened", {})
    assert second.fields["point"] == {"precision": "fp32"}


def test_a_line_that_the_disk_takes_in_part_is_taken_back(path):
    size, (_, hard) = path.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    with Ledger(path) as ledger:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
        try:
            with pytest.raises(OSError, match="too large"):
                ledger.append("alive")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert path.stat().st_size == size
        ledger.append("alive")
    assert kinds(path) == ["opened", "proposed", "started", "alive"]


def test_a_ledger_that_does_not_exist_is_empty(tmp_path):
    assert list(read_ledger(tmp_path / "ledger.jsonl")) == []


def test_every_kind_of_line_is_described():
    assert set(FIELDS) == set(get_args(EntryKind))


@pytest.mark.parametrize("kind", FIELDS)
def test_every_kind_of_line_stands_in_the_guide(kind):
    assert f"| `{kind}` | {FIELDS[kind]} |" in GUIDE.read_text()


@pytest.mark.parametrize("torn", [b'{"n": 4, "at": 10', b"\0" * 100, b"\0" * 10 + b"\n" + b"\0\n"])
def test_a_torn_tail_is_ignored_and_written_over(path, torn):
    with path.open("ab") as file:
        file.write(torn)
    assert kinds(path) == ["opened", "proposed", "started"]
    with Ledger(path) as ledger:
        ledger.append("closed", reason="finished")
    assert kinds(path) == ["opened", "proposed", "started", "closed"]


@pytest.mark.parametrize("number", [0, 1])
def test_a_changed_line_is_refused(path, number):
    lines = path.read_text().splitlines()
    changed = json.loads(lines[number])
    lines[number] = json.dumps(changed | {"at": 5.0})
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(RunError, match=rf"line {number + 1} of .* is damaged"):
        list(read_ledger(path))


@pytest.mark.parametrize("keep", [[0, 2], [1, 0, 2], [1, 2]])
def test_a_line_that_is_missing_or_moved_is_refused(path, keep):
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{lines[number]}\n" for number in keep))
    with pytest.raises(RunError, match="is damaged"):
        Ledger(path)


def test_what_cannot_be_read_back_is_not_written(path):
    with Ledger(path) as ledger:
        for wrong in ({"kind": "unknown"}, {"kind": "alive", "value": float("nan")}):
            with pytest.raises(ValueError, match=r"unknown entry|JSON compliant"):
                ledger.append(**wrong)
        ledger.append("alive")
    assert kinds(path)[-2:] == ["started", "alive"]
