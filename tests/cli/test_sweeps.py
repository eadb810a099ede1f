"""`kovar sweeps`: sweeps that ended, and one whose driver is gone."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from kovar.cli import app
from kovar.errors import NotFoundError, UserError
from kovar.tuning.ledger import Ledger
from kovar.tuning.report import write_report
from swept import large
from tiny_sweep import GRID, sweep_spec

ENDED, LOST = "reviews-0123456789", "lost-9876543210"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Write a finished sweep, and one that has done a trial and a half."""
    home = tmp_path_factory.mktemp("home")
    ended, lost = home / "runs" / ENDED, home / "runs" / LOST
    for folder in (ended, lost):
        folder.mkdir(parents=True)
        resolved = {"metric": "accuracy", "mode": "max", "select": "best"}
        spec = sweep_spec(GRID, **resolved).model_dump_json()
        (folder / "spec.yaml").write_text(spec)
    write_report(large(ended, num_rates=2), ended)
    with Ledger(lost / "ledger.jsonl", clock=lambda: 1_790_000_000.0) as ledger:
        ledger.append("opened", sweep=LOST)
        for number in (1, 2):
            point = {"training.learning_rate": 1e-4 * number, "precision": "fp32"}
            ledger.append("proposed", trial=number, configuration=number, seed=0, point=point)
            ledger.append("started", trial=number)
        scores = {"accuracy": 0.75}
        ledger.append("reported", trial=1, step=5, seconds=1.0, metrics=scores)
    return home


@pytest.fixture
def kovar(home, monkeypatch):
    monkeypatch.setenv("KOVAR_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments):
        return CliRunner().invoke(app, ["sweeps", *arguments], catch_exceptions=False).stdout

    return run


def test_sweeps_are_listed_with_their_best_and_what_is_recommended(kovar):
    first, second = (kovar("list").splitlines()[n] for n in (3, 4))
    assert {ENDED, "finished"} <= set(first.split()) | set(second.split())
    assert {LOST, "interrupted"} <= set(first.split()) | set(second.split())
    rows = {row["sweep"]: row for row in json.loads(kovar("list", "--json"))}
    assert rows[ENDED]["recommended"] is not None
    assert rows[ENDED]["cost"] > 0
    assert rows[LOST]["counts"] == {"unfinished": 2}


def test_a_sweep_is_shown_with_its_recommendation_and_where_its_page_is(kovar):
    shown = kovar("show", "reviews")
    assert "reviews: 16 trials by accuracy" in shown
    assert "recommended: configuration" in shown
    assert "rule: the cheapest configuration" in shown
    assert f"{ENDED}/report.html" in shown


def test_scripts_get_the_results_as_they_are_written(kovar, home):
    written = json.loads((home / "runs" / ENDED / "results.json").read_text())
    assert json.loads(kovar("show", ENDED[:12], "--json")) == written


def test_a_sweep_without_a_driver_is_shown_as_far_as_it_came(kovar):
    shown = kovar("show", LOST)
    assert "0.7500" in shown
    assert "interrupted: this is how far it came" in shown


def test_the_page_can_be_written_anywhere_even_of_an_interrupted_sweep(kovar, tmp_path):
    page = tmp_path / "page.html"
    assert kovar("show", LOST, "--html", str(page)).strip() == f"{LOST}: {page}"
    assert "No trial finished" in page.read_text()


def test_a_damaged_sweep_does_not_hide_the_others(kovar, home):
    damaged = home / "runs" / "bad-0000000000"
    damaged.mkdir()
    (damaged / "ledger.jsonl").write_text("")
    assert ENDED in kovar("list")
    (damaged / "ledger.jsonl").unlink()
    damaged.rmdir()


def test_an_unknown_sweep_is_refused_with_what_is_spelled_like_it(kovar):
    with pytest.raises(NotFoundError, match=f'did you mean "{ENDED}"'):
        kovar("show", "reviews-012345678x")


def test_a_page_that_cannot_be_written_is_the_users_mistake(kovar, tmp_path):
    with pytest.raises(UserError, match="cannot write the page"):
        kovar("show", ENDED, "--html", str(tmp_path / "absent" / "page.html"))


def test_no_command_needs_torch_or_ray(home):
    code = (
        "import sys; from kovar.cli import app; from typer.testing import CliRunner; "
        "[CliRunner().invoke(app, ['sweeps', *words], catch_exceptions=False) for words in "
        "(['list'], ['show', 'reviews'])]; "
        "print(*sorted({'torch', 'ray', 'matplotlib', 'plotly', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"KOVAR_HOME": str(home)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == []
