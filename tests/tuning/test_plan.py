"""Where the trials of a sweep would run, which of them cannot, and what they take."""

from __future__ import annotations

from typing import Any

import pytest

from kovar.errors import SpecError
from kovar.resources import Cluster, NodeType
from kovar.tuning import load_sweep
from kovar.tuning.exclusion import Excluded
from kovar.tuning.plan import check_disk, plan_sweep, unplanned_sweep
from tiny_sweep import GRID, write_sweep
from tiny_version import settings_in

WORKERS = {"kind": "grid", "values": [{"kind": "cpu", "cpus": 1.0}, {"kind": "cpu", "cpus": 2.0}]}
CPUS = NodeType("cpus", 8, memory_bytes=32 << 30, min_count=1, max_count=1, price_per_hour=0.4)
GPUS = NodeType(
    "gpus", 8, memory_bytes=32 << 30, gpu_types=("L4",), num_gpus=2,
    accelerator_memory_bytes=24 << 30, max_count=1, price_per_hour=2.0,
)  # fmt: skip
BOTH = {
    "resources.worker": {"kind": "grid", "values": [{"kind": "cpu"}, {"kind": "gpu", "type": "L4"}]}
}
UNFIT = {"precision": {"kind": "grid", "values": ["fp32", "fp16"]}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all: the tiny model in it takes longer than a plan."""
    return tmp_path_factory.mktemp("planned")


def planned(folder, search: dict[str, Any], *kinds: NodeType, **fields: Any):
    path = write_sweep(folder, search, **fields)
    return plan_sweep(load_sweep(path), Cluster(kinds or (CPUS,)))


def test_trials_of_several_kinds_of_hardware_share_the_limit_of_the_sweep(folder):
    plan = planned(folder, {"resources.worker": WORKERS}, max_concurrent=1)
    assert len(plan.groups) == 2
    assert plan.num_at_once == 1


def test_a_precision_that_one_chip_lacks_is_left_out_there_alone(folder):
    plan = planned(folder, UNFIT | BOTH, CPUS, GPUS)
    (number,) = plan.excluded
    excluded = plan.sweep.trials[number - 1]
    assert (excluded.spec.precision, excluded.spec.resources.worker.kind) == ("fp16", "cpu")
    assert "fp16 does not run on" in plan.excluded[number]
    assert isinstance(plan.admit(excluded), Excluded)
    assert {run.request.kind for run in plan.runs.values()} == {"cpu", "gpu"}


def test_a_sweep_of_which_no_trial_can_run_is_refused_at_its_line(folder):
    with pytest.raises(SpecError, match=r"sweep.yaml:6: precision: fp16 does not run on"):
        planned(folder, {"precision": {"kind": "grid", "values": ["fp16"]}})


def test_a_batch_that_cannot_fit_is_left_out(folder):
    small = NodeType("small", 8, memory_bytes=1 << 30, min_count=1, max_count=1)
    tokens = {"training.max_tokens": {"kind": "grid", "values": [128, 50_000_000]}}
    plan = planned(folder, tokens, small)
    assert list(plan.excluded) == [2]
    assert "training needs about" in plan.excluded[2]
    assert "at most" in plan.excluded[2]


def test_no_more_trials_run_at_once_than_the_memory_of_a_node_holds(folder):
    roomy = planned(folder, GRID)
    (group,) = roomy.groups
    need = group.demand.request.memory
    assert need is not None
    assert roomy.num_at_once == 4
    tight = NodeType("tight", 8, memory_bytes=need * 5 // 2, min_count=1, max_count=1)
    plan = planned(folder, GRID, tight)
    assert plan.num_at_once == 2
    assert {run.request.memory for run in plan.runs.values()} == {need}


def test_trials_of_several_workers_never_wait_for_each_others_workers(folder):
    three = {"resources": {"num_workers": 3}}
    plan = planned(folder, GRID, overrides=three)
    assert plan.at_once == {"s": 2}  # six of the eight CPUs


def test_a_trial_computes_with_the_cpus_that_it_holds(folder):
    plan = planned(folder, {"resources.worker": WORKERS})
    assert [plan.threads_of(trial) for trial in plan.sweep.trials] == [1, 2]


def test_a_trial_is_charged_for_its_share_of_a_node(folder):
    plan = planned(folder, BOTH, CPUS, GPUS)
    on_cpu, on_gpu = plan.sweep.trials
    assert plan.price_of(on_cpu, "cpus") == pytest.approx(0.4 / 8)
    assert plan.price_of(on_gpu) == pytest.approx(1.0)  # one of the two cards
    assert plan.price_of(on_cpu, "gpus") == pytest.approx(2.0 / 8)
    assert plan.price_of(on_cpu, "elsewhere") is None


@pytest.mark.parametrize(
    "fields", [{"objectives": ["accuracy", "cost"]}, {"budget": {"cost": 1.0}}]
)
def test_money_is_counted_only_where_prices_are_declared(folder, fields):
    assert planned(folder, GRID, **fields).num_at_once
    free = NodeType("free", 8, memory_bytes=32 << 30, min_count=1)
    with pytest.raises(SpecError, match=r"price of a trial is not known.*\n.*\n.*label"):
        planned(folder, GRID, free, **fields)


def test_hardware_of_trials_that_are_not_known_yet_is_planned_too(folder):
    search = BOTH | {"training.learning_rate": {"kind": "loguniform", "low": 1e-5, "high": 1e-2}}
    plan = planned(folder, search, CPUS, GPUS, searcher="tpe", num_samples=5)
    assert (plan.sweep.trials, plan.runs) == ((), {})
    assert sum(group.num_trials for group in plan.groups) == plan.sweep.num_trials == 10
    worker = {"kind": "gpu", "type": "L4"}
    point = {"resources.worker": worker, "training.learning_rate": 3e-4}
    (trial,) = plan.sweep.trials_of(7, point)
    assert trial.number == 7
    assert plan.admit(trial).request.kind == "gpu"


def test_a_disk_that_is_too_small_is_told_before_anything_starts(folder, tmp_path):
    sweep = load_sweep(write_sweep(folder, GRID))
    settings = settings_in(tmp_path)
    plan = plan_sweep(sweep, Cluster((CPUS,)), settings=settings)
    (found,) = plan.forecasts(settings.cache_dir)
    assert found.disk_bytes > found.disk.total
    with pytest.raises(SpecError, match="write more than the disk"):
        check_disk(plan, settings, free=found.disk_bytes - 1)


def test_without_a_plan_trials_are_as_written_and_as_many_as_ray_places(folder):
    plan = unplanned_sweep(load_sweep(write_sweep(folder, GRID)))
    assert plan.num_at_once == 4
    assert plan.admit(plan.sweep.trials[0]).request.memory is None


def test_without_a_plan_no_money_can_be_counted(folder):
    sweep = load_sweep(write_sweep(folder, GRID, budget={"cost": 1.0}))
    with pytest.raises(SpecError, match="nodes that this plan cannot see"):
        unplanned_sweep(sweep)


def test_memory_is_estimated_once_for_trials_that_need_the_same(folder):
    search = {
        "training.learning_rate": {"kind": "loguniform", "low": 1e-5, "high": 1e-2},
        "training.dropout": {"kind": "uniform", "low": 0.1, "high": 0.5},
        "training.max_tokens": {"kind": "integer", "low": 64, "high": 512},
        "training.compile": {"kind": "grid", "values": [False, True]},
    }
    plan = planned(folder, search, num_samples=50)
    estimates = plan.configurations.fits.known.values()
    assert sum(map(len, estimates)) == 2  # the most tokens, compiled and not
    assert len(plan.runs) == 100
