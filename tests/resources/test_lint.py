"""The linter as a library; its rules are tested by the corpus of faults."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from kovar.errors import SpecError
from kovar.resources.lint import lint_cluster, unfilled
from kovar.resources.lint.installation import pinned_ray

ROOT = Path(__file__).parents[2]
KEY = "AKIA" + "ABCDEFGHIJKLMNOP"


@pytest.fixture
def spoiled(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)

    def spoil(*pairs, file="cluster.yaml"):
        text = (ROOT / file).read_text()
        for old, new in pairs:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / Path(file).name
        path.write_text(text)
        return path

    return spoil


def test_every_mistake_of_a_file_is_found_at_once(spoiled):
    path = spoiled(
        ("--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0"),
        ('"GPU": 8', '"GPU": 9'),
        ("kovar.dev/price-per-hour", "kovar.dev/price"),
        ("v6e-8", "v6e-9"),
    )
    found = lint_cluster(path)
    assert {one.rule for one in found} == {
        "dashboard-open", "machine-accelerators", "kovar-label", "kovar",
    }  # fmt: skip
    assert len([one for one in found if one.rule == "kovar-label"]) == 7
    assert list(found) == sorted(found, key=lambda one: one.line)


def test_a_secret_is_not_repeated(spoiled):
    path = spoiled(
        ("\nsetup_commands:\n", f"\nsetup_commands:\n  - export AWS_ACCESS_KEY_ID={KEY}\n")
    )
    (finding,) = lint_cluster(path)
    assert KEY not in f"{finding.message} {finding.fix} {finding.field}"


def test_the_line_of_a_folded_command_is_that_of_the_mistake(spoiled):
    path = spoiled(("--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0"))
    (finding,) = lint_cluster(path)
    assert "--dashboard-host" in path.read_text().splitlines()[finding.line - 1]


def test_what_is_left_to_fill_in_is_told_apart(spoiled):
    path = ROOT / "cluster.yaml"
    assert lint_cluster(path) == ()
    assert {"provider.project_id", "setup_commands[1]"} <= {one.field for one in unfilled(path)}
    filled = spoiled(("project_id: null", "project_id: mine"), ("FILE-SERVER", "10.0.0.2"))
    assert not [one for one in unfilled(filled) if not one.field.startswith("file_mounts")]


def test_a_placeholder_that_yaml_repeats_is_told_once():
    images = [one for one in unfilled(ROOT / "clusters" / "aws.yaml") if "ImageId" in one.field]
    assert [one.message.rpartition("-")[2] for one in images] == ["ubuntu", "nvidia", "neuron"]


def test_a_file_that_is_not_yaml_is_one_finding(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text("cluster_name: kovar\n  provider: {")
    (finding,) = lint_cluster(path)
    assert (finding.line, finding.severity) == (2, "error")
    assert unfilled(path) == ()


@pytest.mark.parametrize(
    "text", ["- a list", "just text", "provider: 3\navailable_node_types: [1]"]
)
def test_a_file_of_another_shape_is_refused_without_a_traceback(tmp_path, text):
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    assert any(one.severity == "error" for one in lint_cluster(path))


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(SpecError, match="no such file"):
        lint_cluster(tmp_path / "cluster.yaml")


def test_nodes_of_a_simulation_install_and_expose_nothing(spoiled):
    text = (ROOT / "cluster.yaml").read_text()
    commands = text[text.index("# What every node gets") :]
    provider = re.search(r"provider:\n.*?\nauth:\n.*?\n\n", text, re.DOTALL)[0]
    simulated = "provider:\n  type: external\n  module: kovar.simulation.provider.Nodes\n\n"
    assert lint_cluster(spoiled((commands, ""), (provider, simulated))) == ()


def test_the_ray_to_run_is_that_of_the_nearest_constraints_file(tmp_path):
    (tmp_path / "constraints.txt").write_text("torch==2.9.0\nray==2.61.1\n")
    assert pinned_ray([tmp_path / "nowhere", tmp_path]) == "2.61.1"
    assert pinned_ray([ROOT]) == pinned_ray([]) == version("ray")


def test_linting_loads_nothing_heavy():
    code = (
        "import sys; from kovar.resources.lint import lint_cluster; lint_cluster('cluster.yaml');"
        "print(*sorted({'ray', 'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == []
