"""Every mistake of a user: exit code 2, one clear message, no traceback, nothing left behind."""

from __future__ import annotations

import importlib.util
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from kovar.errors import exit_code_of
from kovar.registry import Registry
from kovar.settings import Settings, load_settings
from tiny_run import write_spec

REPOSITORY = Path(__file__).parents[2]


def load_script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FINETUNE = load_script(REPOSITORY / "jobs" / "finetune.py")


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Settings:
    monkeypatch.setenv("KOVAR_HOME", str(tmp_path / "home"))
    for name in ("DATABASE_URL", "ARTIFACT_ROOT", "RUNS_DIR", "CACHE_DIR", "SETTINGS"):
        monkeypatch.delenv(f"KOVAR_{name}", raising=False)
    return load_settings()


def edit(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "spec.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


def reviews(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "reviews.csv").write_text(text) and None


def truncate_weights(folder: Path) -> None:
    path = folder / "encoder" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def only_one_class(folder: Path) -> None:
    reviews("text,label\n" + "fine,positive\n" * 40)(folder)


def rare_class(folder: Path) -> None:
    rows = [f"film {n},{'positive' if n % 2 else 'negative'}" for n in range(80)]
    reviews("\n".join(["text,label", *rows, "so so,neutral"]) + "\n")(folder)


MISTAKES = {
    "unknown key": (edit('"name"', '"nmae"'), "spec.yaml:3: nmae: unknown key", '"name"'),
    "wrong type": (edit('"epochs": 8', '"epochs": "8"'), "training.epochs: ", "got: '8'"),
    "value out of range": (edit("0.005", "-1"), "training.learning_rate: ", "greater than 0"),
    "missing file": (edit("reviews.csv", "reveiws.csv"), "data.source", '"reviews.csv"'),
    "empty data set": (reviews("text,label\n"), "data.source", "empty"),
    "one class only": (only_one_class, "data.label", "at least two different labels"),
    "label column absent": (reviews("text,lable\na,b\n"), "data.label", '"lable"'),
    "text column with nulls": (
        reviews("text,label\n" + "a,x\n,y\nb,x\n" * 20),
        "data.text",
        "rows 2, 5, 8",
    ),
    "text column of numbers": (reviews("text,label\n1,x\n2,y\n3,x\n"), "data.text", "int64"),
    "label missing in a split": (rare_class, "data.evaluation", "'neutral' is missing"),
    "sequences beyond the positions": (
        edit('"max_length": 32', '"max_length": 100'),
        "spec.yaml:10: data.max_length",
        "at most 64",
    ),
    "unknown model": (edit('"encoder"', '"encodre"'), "model.base: unknown model", '"encoder"'),
    "unknown package": (
        edit('"encoder"', '"package:minilm"'),
        "model.base",
        "package:minilm-l6-v2",
    ),
    "damaged weights": (truncate_weights, "model.safetensors", "damaged"),
    "budget below the longest row": (
        edit('"max_tokens": 128', '"max_tokens": 8'),
        "training.max_tokens",
        "at least",
    ),
    "precision that the chip lacks": (
        edit('"precision": "fp32"', '"precision": "fp16"'),
        "precision: fp16 does not run",
        "bf16",
    ),
    "name that the registry refuses": (edit('"tiny"', '"123"'), "spec.yaml:3: name", "number"),
    "request that nothing can hold": (
        edit('"precision"', '"resources": {"num_workers": 9999}, "precision"'),
        "resources.num_workers",
        "9999",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_and_nothing_is_left_behind(mistake, tmp_path, settings, capsys):
    spoil, where, detail = MISTAKES[mistake]
    spec = write_spec(tmp_path)
    spoil(tmp_path)
    code = exit_code_of(lambda: FINETUNE.main([str(spec)]))
    message = capsys.readouterr().err
    assert code == 2
    assert where in message
    assert detail in message
    assert "Traceback" not in message
    assert not list(settings.runs_dir.glob("*"))
    with Registry.open(settings) as registry:
        assert registry.models() == ()


def test_a_spec_that_is_missing_is_told(tmp_path, settings, capsys):
    code = exit_code_of(lambda: FINETUNE.main([str(tmp_path / "spec.yaml")]))
    assert code == 2
    assert "spec.yaml: no such file" in capsys.readouterr().err


def test_a_runs_folder_that_cannot_be_written_is_told(tmp_path, settings, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KOVAR_RUNS_DIR", str(tmp_path / "file" / "runs"))
    code = exit_code_of(lambda: FINETUNE.main([str(write_spec(tmp_path))]))
    message = capsys.readouterr().err
    assert code == 2
    assert "runs_dir: cannot write here" in message
    assert "KOVAR_RUNS_DIR" in message


def test_a_registry_of_a_newer_kovar_is_refused_and_left_alone(tmp_path, settings, capsys):
    Registry.open(settings).close()
    database = settings.database_url.removeprefix("sqlite:///")
    with sqlite3.connect(database) as connection:
        (table,) = (
            name
            for (name,) in connection.execute("select name from sqlite_master where type='table'")
            if name == "kovar_schema"
        )
        connection.execute(f"update {table} set version_num = '9999'")  # noqa: S608
    connection.close()
    before = Path(database).read_bytes()
    code = exit_code_of(lambda: FINETUNE.main([str(write_spec(tmp_path))]))
    assert code != 0
    assert "newer" in capsys.readouterr().err
    assert Path(database).read_bytes() == before
