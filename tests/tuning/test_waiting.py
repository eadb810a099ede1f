"""Trials that cannot start: the sweep says so, and ends after a bounded wait."""

import pytest
from ray.util import placement_group_table

from kovar.errors import RunError
from kovar.resources import Cluster, NodeType
from kovar.tuning import load_sweep, run_sweep
from tiny_sweep import GRID, write_sweep
from tiny_version import settings_in

pytestmark = pytest.mark.ray

WITH_GPUS = Cluster((NodeType("gpu-l4", cpus=8, gpu_types=("L4",), num_gpus=1, min_count=1),))


def test_a_sweep_whose_trials_fit_no_node_fails_with_what_is_missing(ray_session, tmp_path):
    gpu = {"resources": {"worker": {"kind": "gpu", "type": "L4"}}}
    path = write_sweep(tmp_path, GRID, overrides=gpu)
    settings = settings_in(tmp_path).model_copy(update={"infeasible_timeout_s": 2.0})
    with pytest.raises(RunError, match=r"no trial finished.*no worker could start.*GPU: 1"):
        run_sweep(load_sweep(path), settings=settings, cluster=WITH_GPUS)
    states = {group["state"] for group in placement_group_table().values()}
    assert states <= {"REMOVED"}


def test_trials_that_wait_for_each_other_are_not_given_up(ray_session, tmp_path):
    three_cpus = {"resources": {"worker": {"kind": "cpu", "cpus": 3}}}  # one trial at a time
    path = write_sweep(tmp_path, {"precision": GRID["precision"]}, overrides=three_cpus)
    limits = {"infeasible_timeout_s": 1.0, "placement_timeout_s": 1.5}
    settings = settings_in(tmp_path).model_copy(update=limits)
    result = run_sweep(load_sweep(path), settings=settings)
    assert {trial.status for trial in result.report.trials} == {"finished"}
