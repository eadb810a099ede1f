"""What a run will do, decided before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from kovar.errors import PlacementError, SpecError
from kovar.resources import Cluster, NodeType, read_cluster
from kovar.training import FineTuneSpec
from kovar.training.plan import plan_run

CLUSTER = read_cluster(Path(__file__).parents[2] / "cluster.yaml")


H100 = {"kind": "gpu", "type": "H100", "count": 8}


def spec(worker, *, precision="auto", num_workers=1, training=None):
    return FineTuneSpec.model_validate(
        {
            "kind": "finetune",
            "name": "planned",
            "model": {"base": "encoder"},
            "data": {"source": "reviews.csv"},
            "training": training or {},
            "precision": precision,
            "resources": {"num_workers": num_workers, "worker": worker},
        }
    )


def test_gpu_workers_are_placed_on_their_node_type_at_the_precision_of_its_chip():
    plan = plan_run(spec({"kind": "gpu", "type": "L4"}, num_workers=2), CLUSTER)
    assert plan.placement.assignments == {"planned": {"gpu-l4": 2}}
    assert plan.placement.num_added == {"gpu-l4": 2}
    assert (plan.precision.precision, plan.device) == ("bf16", "L4")


def test_a_plan_has_a_json_form():
    plan = plan_run(spec({"kind": "cpu"}), CLUSTER).to_json()
    assert plan["placement"]["assignments"] == {"planned": {"cpu": 1}}
    assert plan["reason"]


def test_more_workers_than_the_cluster_can_have_are_refused_with_the_nearest_change():
    with pytest.raises(PlacementError) as refusal:
        plan_run(spec({"kind": "gpu", "type": "A100"}, num_workers=3), CLUSTER)
    assert "gpu-a100" in str(refusal.value)


def test_what_can_be_placed_but_not_trained_is_refused():
    worker = {"kind": "tpu", "type": "v5e", "topology": "2x4"}
    with pytest.raises(SpecError, match="the engine does not train") as refusal:
        plan_run(spec(worker), CLUSTER)
    assert refusal.value.field == "resources.worker.kind"


def test_fp8_is_planned_where_the_card_has_it_and_refused_elsewhere():
    assert plan_run(spec(H100, precision="fp8"), CLUSTER).precision.precision == "fp8"
    with pytest.raises(SpecError, match="fp8 does not run on"):
        plan_run(spec({"kind": "cpu"}, precision="fp8"), CLUSTER)


def test_weights_in_bf16_are_planned_where_passes_compute_in_it():
    training = {"weights": "bf16"}
    assert plan_run(spec(H100, training=training), CLUSTER).precision.precision == "bf16"
    with pytest.raises(SpecError, match="in fp32") as refusal:
        plan_run(spec(H100, training=training, precision="fp32"), CLUSTER)
    assert refusal.value.field == "training.weights"


def test_a_gpu_that_the_request_leaves_open_is_that_of_its_node_type():
    plan = plan_run(spec({"kind": "gpu"}), CLUSTER)
    (where,) = plan.placement.assignments["planned"]
    assert where.startswith("gpu-")
    assert plan.precision.precision == "bf16"


def test_a_gpu_of_a_type_that_nobody_knows_is_left_to_the_worker():
    unknown = [NodeType(name="new", cpus=8, num_gpus=1, gpu_types=("X9000",), max_count=1)]
    plan = plan_run(spec({"kind": "gpu"}), Cluster(tuple(unknown)))
    assert plan.precision.precision == "auto"
    assert "the worker" in plan.precision.reason
