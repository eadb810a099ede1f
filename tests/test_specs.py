"""Every YAML file that users copy is valid, complete and placeable."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kovar.batch import EvaluateSpec, PredictSpec
from kovar.batch.parts import find_inputs
from kovar.config import load_document
from kovar.planning import plan_specs
from kovar.training import FineTuneSpec, TrainingSettings
from kovar.tuning import load_sweep

REPOSITORY = Path(__file__).parents[1]
FILES = sorted(
    path for room in ("jobs", "tune", "serve") for path in (REPOSITORY / room).rglob("*.yaml")
)
# Prometheus's own files are tested where Prometheus is.
SPECS = [
    path
    for path in FILES
    if path.name != "runtime-env.yaml" and path.parent.name != "observability"
]


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def of_kind(kind: str) -> list[Path]:
    return [path for path in SPECS if yaml.safe_load(path.read_text()).get("kind") == kind]


def test_every_file_is_of_a_known_kind():
    served = [path for path in SPECS if "applications" in yaml.safe_load(path.read_text())]
    kinds = ("finetune", "sweep", "evaluate", "predict")
    known = [*served, *(path for kind in kinds for path in of_kind(kind))]
    assert sorted(known) == SPECS
    assert {"movie-sentiment.yaml", "tiny-lr-precision.yaml"} <= {path.name for path in SPECS}


@pytest.mark.parametrize("path", of_kind("finetune"), ids=named)
def test_a_finetune_spec_is_valid(path):
    assert load_document(path).parse(FineTuneSpec).name


@pytest.mark.parametrize("path", of_kind("sweep"), ids=named)
def test_every_trial_of_a_sweep_is_valid(path):
    assert load_sweep(path).examples


@pytest.mark.parametrize("path", of_kind("evaluate"), ids=named)
def test_an_evaluation_is_valid(path):
    assert load_document(path).parse(EvaluateSpec).data.name


@pytest.mark.parametrize("path", of_kind("predict"), ids=named)
def test_a_prediction_is_valid_and_its_input_is_there(path):
    spec = load_document(path).parse(PredictSpec)
    assert find_inputs(path.parent / spec.input.source)


@pytest.mark.parametrize("path", SPECS, ids=named)
def test_a_spec_can_be_placed_on_the_cluster_that_we_ship(path):
    plan = plan_specs([path], cluster=REPOSITORY / "cluster.yaml")
    assert plan.placement.num_nodes


def test_the_main_recipe_spells_out_every_training_setting():
    recipe = yaml.safe_load((REPOSITORY / "jobs" / "movie-sentiment.yaml").read_text())
    assert set(TrainingSettings.model_fields) - set(recipe["training"]) == {"max_steps"}
    assert set(FineTuneSpec.model_fields) == set(recipe)


def test_the_runtime_environment_of_jobs_takes_the_library_from_the_submitted_folder():
    environment = yaml.safe_load((REPOSITORY / "jobs" / "runtime-env.yaml").read_text())
    assert environment["env_vars"]["PYTHONPATH"] == "platform"
    assert (REPOSITORY / "platform" / "kovar" / "__init__.py").exists()
