"""The recipes of batch jobs run as shipped, on the version that the tiny recipe trains."""

from __future__ import annotations

import json

import pytest

from kovar.registry import Registry
from kovar.settings import load_settings

SUBMIT = ("ray", "job", "submit", "--working-dir", ".", "--runtime-env", "jobs/runtime-env.yaml")


def result_of(submitted):
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    return next(json.loads(line) for line in submitted.stdout.splitlines() if line[:2] == '{"')


@pytest.fixture(scope="module")
def trained(ray_head):
    command = ("python", "jobs/finetune.py", "jobs/tiny-sentiment.yaml", "--json")
    return result_of(ray_head.run(*SUBMIT, "--", *command))


@pytest.mark.cluster
def test_the_tiny_evaluation_lands_in_the_registry(ray_head, trained):
    command = ("python", "jobs/evaluate.py", "jobs/tiny-evaluate.yaml", "--json")
    found = result_of(ray_head.run(*SUBMIT, "--", *command))
    assert found["digest"] == trained["digest"]
    with Registry.open(load_settings(ray_head.environment)) as registry:
        version = registry.version("tiny-sentiment", trained["version"])
        stored = registry.evaluations(version)["amazon-reviews"]
    assert stored.digest == found["evaluation"]
    assert stored.record.metrics["num_rows"] == 3708


@pytest.mark.cluster
def test_the_tiny_prediction_answers_every_row(ray_head, trained):
    command = ("python", "jobs/predict.py", "jobs/tiny-predict.yaml", "--json")
    found = result_of(ray_head.run(*SUBMIT, "--", *command))
    assert (found["digest"], found["num_rows"], found["num_bad"]) == (trained["digest"], 24, 0)
    assert found["num_parts"] == 2
