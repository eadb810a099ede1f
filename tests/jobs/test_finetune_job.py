"""`ray job submit` trains on a running cluster, with Ray's token authentication on."""

import json

import httpx
import pytest

from kovar.registry import Registry
from kovar.settings import load_settings

SUBMIT = ("ray", "job", "submit", "--working-dir", ".", "--runtime-env", "jobs/runtime-env.yaml")


@pytest.fixture(scope="module")
def submitted(ray_head):
    command = ("python", "jobs/finetune.py", "jobs/tiny-sentiment.yaml", "--json")
    return ray_head.run(*SUBMIT, "--", *command)


@pytest.mark.cluster
def test_a_submitted_job_registers_a_version(ray_head, submitted):
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    line = next(line for line in submitted.stdout.splitlines() if line.startswith('{"run"'))
    result = json.loads(line)
    with Registry.open(load_settings(ray_head.environment)) as registry:
        assert registry.resolve(f"tiny-sentiment@{result['version']}").digest == result["digest"]


@pytest.mark.cluster
def test_a_job_with_a_mistake_in_its_spec_fails_with_the_message(ray_head, tmp_path):
    command = ("python", "jobs/finetune.py", "tune/tiny-lr-precision.yaml")
    failed = ray_head.run(*SUBMIT, "--", *command)
    assert failed.returncode != 0
    assert "tune/tiny-lr-precision.yaml:2: kind: not one of the allowed values" in failed.stdout


@pytest.mark.cluster
def test_the_job_server_refuses_who_has_no_token(ray_head):
    assert httpx.get(f"{ray_head.dashboard}/api/jobs/").status_code in (401, 403)
