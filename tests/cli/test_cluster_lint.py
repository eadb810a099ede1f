"""`kovar cluster lint`, as a shell runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lint(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "kovar", "cluster", "lint", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


@pytest.fixture
def faulty(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text((ROOT / "cluster.yaml").read_text().replace('"GPU": 8', '"GPU": 9'))
    return path


def test_good_files_pass_and_say_what_is_left_to_fill_in():
    done = lint("cluster.yaml", "clusters/aws.yaml")
    assert done.returncode == 0
    assert "to fill in before the cluster starts:" in done.stdout
    assert "2 files: 0 errors, 0 warnings" in done.stdout


def test_an_error_has_file_line_field_and_fix_and_exits_with_2(faulty):
    done = lint(faulty)
    assert done.returncode == 2
    field = "available_node_types.gpu-h100.resources.GPU"
    assert f"{faulty}:141 {field}: error: GPU: 9 is declared" in done.stdout
    assert '→ set "GPU": 8' in done.stdout


def test_a_warning_alone_passes(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text((ROOT / "cluster.yaml").read_text().replace('{ "CPU": 0 }', '{ "CPU": 4 }'))
    done = lint(path)
    assert done.returncode == 0
    assert "1 file: 0 errors, 1 warning" in done.stdout


def test_strict_refuses_what_is_left_to_fill_in():
    assert lint("--strict", "cluster.yaml").returncode == 2


def test_json_has_the_same_findings(faulty):
    found = json.loads(lint("--json", faulty).stdout)["findings"][str(faulty)]
    assert [(one["line"], one["rule"]) for one in found] == [(141, "machine-accelerators")]


def test_a_missing_file_is_told(tmp_path):
    done = lint(tmp_path / "cluster.yaml")
    assert done.returncode == 2
    assert "no such file" in done.stderr
    assert "Traceback" not in done.stderr
