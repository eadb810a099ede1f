"""`kovar models` from the command line."""

import json

import pytest
from typer.testing import CliRunner

from kovar.cli import app
from kovar.registry import Gates, MetricBound
from tiny_version import environment_of


@pytest.fixture
def kovar(settings, monkeypatch):
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)

    def kovar(*arguments: str):
        done = CliRunner().invoke(app, ["models", *arguments])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    return kovar


def test_promote_rollback_and_history(kovar, three):
    assert kovar("promote", "reviews", "1", "--reason", "first").exit_code == 0
    kovar("promote", "reviews", "3", "--expected", "1", "--reason", "better")
    move = json.loads(kovar("rollback", "reviews", "--reason", "worse", "--json").stdout)
    assert (move["to_number"], move["action"]) == (1, "rollback")
    moves = json.loads(kovar("history", "reviews", "--json").stdout)
    assert [each["to_number"] for each in moves] == [1, 3, 1]
    assert moves[0]["moved_at"].endswith("+00:00")
    then = moves[1]["moved_at"]
    (found,) = json.loads(kovar("history", "reviews", "--at", then, "--json").stdout)
    assert found["to_number"] == 3
    assert "rollback" in kovar("history", "reviews").stdout


def test_gates_are_declared_from_a_file_and_refuse(kovar, registry, version, tmp_path):
    file = tmp_path / "gates.yaml"
    file.write_text("metrics:\n  - {metric: accuracy, minimum: 0.9}\n")
    assert "minimum: 0.9" in kovar("gates", "reviews", "--file", str(file)).stdout
    bound = MetricBound(metric="accuracy", minimum=0.9)
    assert registry.gates("reviews") == Gates(metrics=(bound,))
    dry = kovar("promote", "reviews", "1", "--reason", "first", "--dry-run", "--json")
    assert dry.exit_code == 1
    assert json.loads(dry.stdout)[0]["numbers"] == {"value": 0.84, "minimum": 0.9}
    assert "has no gates" in kovar("gates", "reviews", "--clear").stdout
    assert kovar("promote", "reviews", "1", "--reason", "first").exit_code == 0


def test_list_and_search_page(kovar, three):
    page = json.loads(kovar("list", "reviews", "--limit", "2", "--json").stdout)
    assert [each["version"] for each in page] == [3, 2]
    rest = json.loads(kovar("list", "reviews", "--after", "2", "--json").stdout)
    assert [each["version"] for each in rest] == [1]
    found = kovar("search", "reviews", "--metric", "accuracy>=0.8", "--limit", "1", "--json")
    assert [each["version"] for each in json.loads(found.stdout)] == [3]
    assert "no version matches" in kovar("search", "nothing").stdout


def test_lineage_and_diff(kovar, three):
    assert kovar("lineage", "reviews@1").stdout.startswith("reviews@1 (")
    assert kovar("lineage", "reviews@1", "--mermaid").stdout.startswith("flowchart TD")
    changes = json.loads(kovar("diff", "reviews@1", "reviews@2", "--json").stdout)
    assert [each["path"] for each in changes["facts"]] == ["seed"]
    assert "are equal" in kovar("diff", "reviews@1", "reviews@1").stdout


def test_delete_and_gc(kovar, three):
    assert "reviews@2 is deleted" in kovar("delete", "reviews", "2", "--reason", "old").stdout
    found = json.loads(kovar("gc", "--grace-hours", "0", "--json").stdout)
    assert (found["num_swept"], found["num_blobs"]) == (0, 3)
    assert "3 blobs: 0 files" in kovar("gc", "--dry-run").stdout


def test_approve(kovar, registry, version):
    registry.declare_gates("reviews", Gates(two_people=True))
    assert "is approved for champion" in kovar("approve", "reviews", "1").stdout
    assert registry.promote("reviews", to=1, reason="first", by="ada").to_number == 1
