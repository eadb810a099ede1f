"""The `kovar` command, as a shell runs it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from tiny_run import run_spec, write_spec
from tiny_version import settings_in


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    run_spec(write_spec(folder), settings_in(folder))
    return folder


@pytest.fixture
def kovar(home):
    def call(*arguments, **options):
        environment = os.environ | {"KOVAR_HOME": str(home), "COLUMNS": "200"}
        return subprocess.run(
            [sys.executable, "-m", "kovar", *map(str, arguments)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            **options,
        )

    return call


def test_help_lists_every_command(kovar):
    listed = kovar("--help").stdout
    for command in ("quickstart", "plan", "models", "predict", "version"):
        assert command in listed


def test_the_list_shows_the_model_its_versions_and_aliases(kovar):
    (row,) = json.loads(kovar("models", "list", "--json").stdout)
    assert (row["name"], row["versions"], row["aliases"]) == ("tiny", 1, {"champion": 1})
    assert "champion" in kovar("models", "list", "tiny").stdout


def test_show_prints_the_card(kovar):
    shown = kovar("models", "show", "tiny@champion")
    assert "Intended use" in shown.stdout
    facts = json.loads(kovar("models", "show", "tiny", "--json").stdout)
    assert facts["digest"] in shown.stdout
    assert facts["manifest"]["seed"] == 0


def test_an_alias_moves_only_from_where_it_is_expected(kovar):
    digest = json.loads(kovar("models", "show", "tiny", "--json").stdout)["digest"]
    move = ("models", "alias", "tiny", "candidate", "--to")
    assert kovar(*move, digest[:12]).returncode == 0
    conflict = kovar(*move, "1")
    assert conflict.returncode == 1
    assert "you expected it not to exist" in conflict.stderr
    assert kovar(*move, "1", "--expected", "1").returncode == 0
    (move,) = json.loads(kovar("models", "alias", "tiny", "candidate", "--json").stdout)
    assert move["to_digest"] == digest


def test_verify_names_a_damaged_file_and_fails(kovar, home):
    assert kovar("models", "verify", "tiny@champion").returncode == 0
    blob = max((home / "artifacts" / "sha256").rglob("*"), key=lambda p: p.stat().st_size)
    content = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        damaged = kovar("models", "verify", "--all")
        assert damaged.returncode == 1
        assert "model.safetensors" in damaged.stdout
    finally:
        blob.write_bytes(content)


def test_predict_answers_with_the_digest_from_arguments_and_standard_input(kovar):
    answer = json.loads(kovar("predict", "tiny", "the film is brilliant", "--json").stdout)
    assert answer["predictions"][0]["label"] == "positive"
    assert len(answer["digest"]) == 64
    piped = kovar("predict", "tiny", "--file", "-", "--json", input="the plot is dull\n\n")
    assert [p["label"] for p in json.loads(piped.stdout)["predictions"]] == ["negative"]


def test_texts_are_shown_as_they_are(kovar):
    shown = kovar("predict", "tiny", "[/b] the [red]film")
    assert "[/b] the [red]film" in shown.stdout


def test_a_port_that_is_in_use_is_told_before_any_work(kovar):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = kovar("quickstart", "--port", port)
    assert done.returncode == 2
    assert f"--port: the port cannot be used: Address already in use\n  got: {port}" in done.stderr


def test_plan_says_where_and_at_which_precision(kovar, home):
    planned = json.loads(kovar("plan", home / "spec.yaml", "--json").stdout)
    assert planned["specs"][0]["placed"] == {"local": 1}
    assert list(planned["specs"][0]["precisions"]) == ["fp32"]


MISTAKES = {
    "unknown command": (["modles"], "No such command"),
    "unknown model": (["models", "show", "tinny"], 'did you mean "tiny"'),
    "unknown version": (["predict", "tiny@7", "x"], "has no version"),
    "no reference": (["models", "verify"], "name a version, or say --all"),
    "nothing to classify": (["predict", "tiny"], "nothing to classify"),
    "empty Serve file": (["plan", "EMPTY"], "nothing to plan"),
    "missing spec": (["plan", "absent.yaml"], "absent.yaml: no such file"),
    "missing cluster": (["plan", "SPEC", "--cluster", "absent.yaml"], "absent.yaml: no such file"),
    "unknown version of an alias": (["models", "alias", "tiny", "a", "--to", "9"], "no version"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_exits_with_2_and_one_message(kovar, home, mistake):
    arguments, message = MISTAKES[mistake]
    (home / "empty.yaml").write_text("applications: []\n")
    files = {"SPEC": home / "spec.yaml", "EMPTY": home / "empty.yaml"}
    done = kovar(*[files.get(argument, argument) for argument in arguments])
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
