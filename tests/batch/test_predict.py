from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from kovar.batch import PredictSpec
from kovar.batch.output import OutputFolder
from kovar.batch.parts import Part
from kovar.batch.predict import predict_files
from kovar.config import Document
from kovar.errors import DataError, GoldenError, PlacementError, UserError
from kovar.inference import load_runtime
from kovar.registry import Registry
from kovar.resources import Cluster, NodeType
from tiny_version import build_tiny_version, environment_of, register_tiny_version

REPOSITORY = Path(__file__).parents[2]
KILLED_AFTER_PARTS = 3


def spec_of(folder: Path, **changes) -> PredictSpec:
    fields = {
        "kind": "predict",
        "model": "tiny",
        "precision": "fp32",
        "input": {"source": "rows.jsonl", "keep": ["id"], "part_size": 2048},
        "output": {"folder": str(folder), "format": "jsonl"},
        "resources": {"num_workers": 2},
    }
    return Document.of(fields | changes).parse(PredictSpec)


def write_rows(path: Path, *, num_rows: int = 150) -> Path:
    lines = [
        json.dumps({"id": f"r{row}", "text": f"the film is {'good' if row % 2 else 'dull'} {row}"})
        for row in range(num_rows)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def read_output(folder: Path) -> list[dict]:
    parts = sorted(folder.glob("part-*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


def inodes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.glob("part-*")}


@pytest.fixture
def rows(tmp_path):
    return write_rows(tmp_path / "rows.jsonl")


@pytest.mark.ray
def test_every_row_is_predicted_once_in_order_and_a_finished_job_does_nothing(
    ray_session, rows, settings, registry
):
    folder = rows.with_name("out")
    done = predict_files(spec_of(folder), base_dir=rows.parent, settings=settings)
    found = read_output(folder)
    texts = [json.loads(line)["text"] for line in rows.read_text().splitlines()]
    runtime = load_runtime(registry.materialize(done.version), precision="fp32")
    assert [row["id"] for row in found] == [f"r{number}" for number in range(150)]
    assert [row["label"] for row in found] == [one.label for one in runtime.predict(texts)]
    assert found[0]["score"] == pytest.approx(max(found[0]["scores"].values()))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["version"] == done.version.digest
    assert len(manifest["parts"]) == done.num_computed > 2
    assert [*manifest["inputs"]] == [str(rows)]
    before = inodes(folder)
    again = predict_files(spec_of(folder), base_dir=rows.parent, settings=settings)
    assert (again.num_computed, again.parts) == (0, done.parts)
    assert inodes(folder) == before


@pytest.mark.ray
def test_a_lost_part_alone_is_computed_again(ray_session, rows, settings):
    folder = rows.with_name("out")
    spec = spec_of(folder, output={"folder": str(folder), "format": "parquet"})
    done = predict_files(spec, base_dir=rows.parent, settings=settings)
    before = inodes(folder)
    (folder / "part-000001.parquet").unlink()
    again = predict_files(spec, base_dir=rows.parent, settings=settings)
    assert again.num_computed == 1
    assert again.parts == done.parts
    after = inodes(folder)
    assert {n for n in before if before[n] != after[n]} <= {"part-000001.parquet"}
    assert parquet.read_table(folder / "part-000000.parquet").column_names[0] == "id"


@pytest.mark.ray
def test_a_row_without_text_ends_the_job_unless_the_spec_says_otherwise(
    ray_session, tmp_path, settings
):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": 1, "text": "good"}\n{"id": 2, "text": " "}\n')
    with pytest.raises(DataError, match="row 2 of this part has no text"):
        predict_files(spec_of(tmp_path / "out"), base_dir=tmp_path, settings=settings)
    lenient = {"source": "rows.jsonl", "keep": ["id"], "part_size": 2048, "bad_rows": "null"}
    done = predict_files(
        spec_of(tmp_path / "out", input=lenient), base_dir=tmp_path, settings=settings
    )
    assert (done.num_rows, done.num_bad) == (2, 1)
    assert read_output(tmp_path / "out")[1] == {
        "id": "2", "label": None, "score": None, "scores": {"negative": None, "positive": None}
    }  # fmt: skip


@pytest.mark.ray
def test_a_version_that_does_not_reproduce_its_golden_examples_predicts_nothing(
    ray_session, rows, settings, tmp_path
):
    register_tiny_version(settings, build_tiny_version(tmp_path / "bad", shift=0.2), model="bad")
    with pytest.raises(GoldenError, match=r"a score differs by 0\.2"):
        predict_files(spec_of(tmp_path / "out", model="bad"), base_dir=tmp_path, settings=settings)
    assert not list((tmp_path / "out").glob("part-*"))


def test_a_folder_with_another_jobs_output_is_refused(rows, settings):
    folder = rows.with_name("out")
    folder.mkdir()
    (folder / "job.json").write_text('{"format": 1, "model": "other"}')
    with pytest.raises(UserError, match=r"output\.folder: the folder holds .* model, .* differ"):
        predict_files(spec_of(folder), base_dir=rows.parent, settings=settings)


def test_a_folder_with_somebody_elses_files_is_refused(rows, settings):
    folder = rows.with_name("out")
    folder.mkdir()
    (folder / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="not empty") as refused:
        predict_files(spec_of(folder), base_dir=rows.parent, settings=settings)
    assert "thesis.tex" in refused.value.context["got"]


def test_workers_that_fit_nowhere_are_refused_and_nothing_is_written(rows, settings):
    node = NodeType(name="small", cpus=1, min_count=1, max_count=1, is_head=True)
    with pytest.raises(PlacementError, match=r"resources\.num_workers"):
        predict_files(
            spec_of(rows.with_name("out")),
            base_dir=rows.parent,
            settings=settings,
            cluster=Cluster((node,), origin="test"),
        )
    assert not rows.with_name("out").exists()


def test_a_copied_column_may_not_hide_a_prediction(tmp_path):
    with pytest.raises(UserError, match="'label' is a column of the predictions"):
        spec_of(tmp_path, input={"source": "x.csv", "keep": ["label"]})


def test_a_part_whose_writing_fails_leaves_nothing_behind(tmp_path):
    folder, part = OutputFolder(tmp_path, "parquet"), Part(0, Path("x.csv"), "csv", 0, 1)

    def tables():
        yield pa.table({"label": ["good"]})
        raise DataError("half way")

    with pytest.raises(DataError, match="half way"):
        folder.write(part, tables())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.cluster
def test_a_killed_driver_goes_on_where_it_ended(tmp_path, settings):
    write_rows(tmp_path / "rows.jsonl", num_rows=6000)
    fields = spec_of(tmp_path / "out", resources={"num_workers": 1}).model_dump(mode="json")
    (tmp_path / "spec.yaml").write_text(json.dumps(fields))
    out = tmp_path / "out"
    driver = start_driver(tmp_path / "spec.yaml", settings)
    try:
        wait_for_parts(driver, out)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.communicate()
    finished = inodes(out)
    assert not (out / "manifest.json").exists()
    again = start_driver(tmp_path / "spec.yaml", settings)
    output, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    result = json.loads(output.splitlines()[-1])
    assert 0 < result["num_computed"] <= result["num_parts"] - len(finished)
    assert {name: inodes(out)[name] for name in finished} == finished
    assert [row["id"] for row in read_output(out)] == [f"r{number}" for number in range(6000)]
    assert not list(out.glob("*.tmp"))
    with Registry.open(settings) as registry:
        assert result["digest"] == registry.version("tiny", "champion").digest


def start_driver(spec: Path, settings) -> subprocess.Popen[str]:
    variables = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, "jobs/predict.py", str(spec), "--json"],
        cwd=REPOSITORY,
        env=variables | environment_of(settings) | {"PYTHONPATH": str(REPOSITORY / "platform")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_parts(driver: subprocess.Popen[str], folder: Path, *, timeout_s: float = 240) -> None:
    deadline = time.monotonic() + timeout_s
    while len(list(folder.glob("part-*"))) < KILLED_AFTER_PARTS:
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline, "the driver wrote no part"
        try:
            driver.wait(timeout=0.02)
        except subprocess.TimeoutExpired:
            continue
