import json
from pathlib import Path

import pytest

from kovar.config import Config, Document, canonical_json
from kovar.errors import SpecError
from kovar.resources import GpuRequest, Resources, WorkerRange


class Spec(Config):
    resources: Resources = Resources()


def parse(text: str) -> Resources:
    return Document(Path("job.yaml"), text).parse(Spec).resources


def test_resources_default_to_one_worker_on_one_cpu():
    resources = Resources()
    assert (resources.num_workers.min, resources.num_workers.max) == (1, 1)
    assert (resources.worker.kind, resources.worker.cpus, resources.worker.memory) == (
        "cpu",
        1,
        None,
    )


def test_a_number_of_workers_is_a_range_with_one_value():
    assert Resources(num_workers=4).num_workers == WorkerRange(min=4, max=4)
    assert Resources(num_workers=4).num_workers.is_fixed


def test_resources_survive_json_as_they_were_written():
    text = '{"worker":{"kind":"gpu","type":["H100","A100"],"gpu_memory":1024},"num_workers":3}'
    resources = Resources.model_validate_json(text)
    assert Resources.model_validate_json(resources.model_dump_json()) == resources
    written = resources.model_dump(mode="json", exclude_unset=True)
    assert canonical_json(written) == canonical_json(json.loads(text))


def test_one_type_and_a_list_of_types_are_both_accepted():
    one = parse("resources: {worker: {kind: gpu, type: L4}}").worker
    two = parse("resources: {worker: {kind: tpu, type: [v6e, v5e], topology: 2x4}}").worker
    assert (one.type, two.type) == (("L4",), ("v6e", "v5e"))
    assert GpuRequest(type="L4") == one


def test_memory_is_written_with_a_unit():
    text = "resources: {worker: {kind: gpu, type: A100, count: 0.5, memory: 4GiB}}"
    assert parse(text).worker.memory == 4 << 30


@pytest.mark.parametrize(
    ("type_", "topology", "chips_per_host", "num_hosts"),
    [
        ("v5e", "1x1", 1, 1),
        ("v5e", "2x4", 8, 1),
        ("v6e", "2x4", 8, 1),
        ("v5e", "2x8", 4, 4),
        ("v6e", "4x4", 4, 4),
        ("v4", "2x2x1", 4, 1),
        ("v4", "2x2x2", 4, 2),
        ("v5p", "4x4x8", 4, 32),
    ],
)
def test_a_tpu_request_knows_its_hosts(type_, topology, chips_per_host, num_hosts):
    worker = {"kind": "tpu", "type": type_, "topology": topology}
    request = Resources(num_workers=num_hosts, worker=worker).worker
    assert (request.chips_per_host, request.num_hosts) == (chips_per_host, num_hosts)


@pytest.mark.parametrize(
    ("worker", "field", "message"),
    [
        ("{kind: gpuu}", "worker", 'did you mean "gpu"?'),
        ("{count: 2}", "worker", "cpu, gpu or tpu"),
        ("{kind: cpu, count: 2}", "worker.count", "unknown key"),
        ("{kind: cpu, cpus: 0}", "worker.cpus", "greater than 0"),
        ("{kind: cpu, memory: 0}", "worker.memory", "larger than 0"),
        ("{kind: cpu, memory: 4 gigs}", "worker.memory", "4GiB"),
        ("{kind: gpu, type: a100}", "worker.type", "'A100'"),
        ("{kind: gpu, type: nvidia-tesla-t4}", "worker.type", "'T4'"),
        ("{kind: gpu, type: A 100}", "worker.type", "not an accelerator type"),
        ("{kind: gpu, count: 1.5}", "worker.count", "share of one card"),
        ("{kind: gpu, count: 0}", "worker.count", "greater than 0"),
        ("{kind: tpu, type: v7, topology: 2x4}", "worker.type", "'v5e'"),
        ("{kind: tpu, type: v5e, topology: 2x2x2}", "worker.topology", "exists on v4 and v5p"),
        ("{kind: tpu, type: v4, topology: 2x4}", "worker.topology", "2x2x1, 2x2x2"),
        ("{kind: gpu, type: [L4, L4]}", "worker.type", "twice"),
        ("{kind: gpu, type: [L4, h100]}", "worker.type", "'H100'"),
        ("{kind: gpu, count: 0.5, gpu_memory: 4GiB}", "worker", "not both"),
        ("{kind: cpu, disk: 0}", "worker.disk", "larger than 0"),
        ("{kind: cpu, labels: {zone: 'a b'}}", "worker.labels", "in(a, b)"),
        ("{kind: cpu, labels: {-zone: a}}", "worker.labels", "label key"),
        ("{kind: cpu, custom_resources: {GPU: 1}}", "worker.custom_resources", "kind: gpu"),
        ("{kind: cpu, custom_resources: {FPGA: 1.5}}", "worker.custom_resources", "whole"),
        ("{kind: tpu, type: v5e, topology: 4x4}", "num_workers", "4, 8, 12 … workers, not 1"),
    ],
)
def test_a_wrong_worker_is_refused_at_its_field(worker, field, message):
    with pytest.raises(SpecError) as caught:
        parse(f"resources:\n  worker: {worker}")
    assert caught.value.field == f"resources.{field}"
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("number", "line", "message"),
    [
        ("two", 2, "a whole number of workers, or a range"),
        ("true", 2, "a whole number"),
        ("0", 2, "from 1 to 10,000"),
        ("\n    min: 4\n    max: 2", 4, "max must be at least min, which is 4"),
        ("\n    min: 2\n    maximum: 4", 4, "unknown key 'maximum'"),
        ("\n    min: 2", 2, "required"),
    ],
)
def test_a_wrong_number_of_workers_is_refused_at_its_line(number, line, message):
    with pytest.raises(SpecError, match=f"job.yaml:{line}: resources.num_workers") as caught:
        parse(f"resources:\n  num_workers: {number}")
    assert message in str(caught.value)


def test_tpu_workers_must_fill_whole_slices():
    worker = "worker: {kind: tpu, type: v6e, topology: 4x4}"
    assert parse(f"resources:\n  num_workers: 8\n  {worker}").num_workers.min == 8
    with pytest.raises(SpecError, match="not 6 to 8"):
        parse(f"resources:\n  num_workers: {{min: 6, max: 8}}\n  {worker}")
