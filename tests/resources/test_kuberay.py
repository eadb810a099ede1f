import logging
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ray.autoscaler._private.kuberay import autoscaling_config as ray

from kovar.config import Document
from kovar.errors import SpecError
from kovar.resources import Cluster, NodeType, read_cluster
from kovar.resources.kuberay import NO_LIMIT, read_kuberay

GOOD = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: notes}
---
apiVersion: ray.io/v1
kind: RayCluster
metadata: {name: demo}
spec:
  enableInTreeAutoscaling: true
  autoscalerOptions: {idleTimeoutSeconds: 120}
  headGroupSpec:
    rayStartParams: {num-cpus: "0"}
    template:
      spec:
        containers:
        - resources: {limits: {cpu: 1500m, memory: 4Gi}}
  workerGroupSpecs:
  - groupName: gpu
    minReplicas: 1
    maxReplicas: 3
    resources: {"accelerator_type:A100": "1", memory: 10Gi, FPGA: "2"}
    labels: {team: search, kovar.dev/price-per-hour: "3.5"}
    template:
      metadata: {annotations: {kovar.dev/disk: 200GB, kovar.dev/price-per-hour: "9"}}
      spec:
        nodeSelector:
          cloud.google.com/gke-accelerator: nvidia-a100-80gb
          cloud.google.com/gke-spot: "true"
        containers:
        - resources: {limits: {cpu: "11", memory: 70Gi, nvidia.com/gpu: "2"}}
        - resources: {limits: {cpu: "1", memory: 1Gi}}
  - groupName: tpu
    minReplicas: 1
    maxReplicas: 1
    numOfHosts: 4
    template:
      spec:
        nodeSelector:
          cloud.google.com/gke-tpu-accelerator: tpu-v6e-slice
          cloud.google.com/gke-tpu-topology: 4x4
        containers:
        - resources: {limits: {cpu: "24", memory: 200G, google.com/tpu: "4"}}
"""


def read(tmp_path: Path, text: str) -> Cluster:
    path = tmp_path / "raycluster.yaml"
    path.write_text(text)
    return read_cluster(path)


def group_of(text: str, name: str = "g") -> NodeType:
    """Read one group, written as YAML, of a cluster that the autoscaler grows."""
    group = {"groupName": name, "minReplicas": 0, "maxReplicas": 2, **yaml.safe_load(text)}
    head = {"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "1"}}}]}}}
    spec = {"headGroupSpec": head, "workerGroupSpecs": [group], "enableInTreeAutoscaling": True}
    manifest = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "spec": spec}
    return read_kuberay(Document.of(manifest)).node_types[1]


def pod(limits: str, selector: str = "{}") -> str:
    containers = f"[{{resources: {{limits: {limits}}}}}]"
    return f"template: {{spec: {{nodeSelector: {selector}, containers: {containers}}}}}"


def test_a_manifest_becomes_node_types(tmp_path):
    cluster = read(tmp_path, GOOD)
    head, gpu, tpu = cluster.node_types
    assert (cluster.origin, cluster.idle_timeout_s, cluster.max_workers) == (
        "raycluster.yaml", 120, None,
    )  # fmt: skip
    assert cluster.limit_name == "maxReplicas"
    assert head == NodeType("headgroup", 0, 4 << 30, min_count=1, max_count=1, is_head=True)
    assert gpu == NodeType(
        "gpu",
        11,
        memory_bytes=10 << 30,
        gpu_types=("A100",),
        num_gpus=2,
        accelerator_memory_bytes=80 * 10**9,
        min_count=1,
        max_count=3,
        disk_bytes=200 * 10**9,
        custom_resources={"FPGA": 2},
        interconnect="NVLink, 600 GB/s",
        price_per_hour=3.5,
        spot=True,
        labels={"team": "search", "kovar.dev/price-per-hour": "3.5"},
    )
    assert (tpu.tpu_type, tpu.tpu_topology, tpu.num_tpu_chips) == ("v6e", "4x4", 4)
    assert (tpu.num_hosts, tpu.min_count, tpu.max_count) == (4, 1, 1)


@pytest.mark.parametrize(
    ("old", "new", "cpus"), [('{num-cpus: "0"}', "{}", 2), ("cpu: 1500m, ", "", 0)]
)
def test_cpus_come_from_the_start_parameters_or_else_from_the_limits(tmp_path, old, new, cpus):
    assert read(tmp_path, GOOD.replace(old, new)).node_types[0].cpus == cpus


@pytest.mark.parametrize(
    ("kind", "where"), [("RayJob", "rayClusterSpec"), ("RayService", "rayClusterConfig")]
)
def test_a_job_and_a_service_hold_a_cluster_of_their_own(tmp_path, kind, where):
    manifest = yaml.safe_load(GOOD.split("---\n")[1])
    manifest |= {"kind": kind, "spec": {where: manifest["spec"]}}
    text = yaml.safe_dump(manifest)
    assert read(tmp_path, text).node_types == read(tmp_path, GOOD).node_types


def test_without_the_autoscaler_the_replicas_are_all_there_is(tmp_path):
    text = GOOD.replace("  enableInTreeAutoscaling: true\n", "")
    assert read(tmp_path, text).idle_timeout_s is None
    counts = [
        read(tmp_path, text.replace("minReplicas: 1\n", f"minReplicas: 1\n    {replicas}\n", 1))
        for replicas in ("replicas: 2", "replicas: 9", "numOfHosts: 1")
    ]
    assert [cluster.node_types[1].max_count for cluster in counts] == [2, 3, 1]
    assert all(c.node_types[1].min_count == c.node_types[1].max_count for c in counts)


def test_a_group_without_a_limit_is_as_large_as_any_request():
    assert group_of(f"maxReplicas: 2147483647\n{pod('{cpu: 1}')}").max_count == NO_LIMIT


def test_pods_of_several_hosts_without_tpus_are_nodes_of_their_own():
    assert group_of(f"numOfHosts: 3\n{pod('{cpu: 1}')}").max_count == 6


amounts = st.one_of(st.integers(1, 64), st.sampled_from(["500m", "1500m", "2Gi", "3k"])).map(str)
limits = st.fixed_dictionaries(
    {"cpu": amounts},
    optional={"memory": amounts, "nvidia.com/gpu": amounts, "amd.com/gpu": amounts},
)
start_params = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "num-cpus": st.integers(0, 9).map(str),
            "num-gpus": st.integers(0, 9).map(str),
            "memory": st.integers(1, 9).map(str),
            "resources": st.just('"{\\"FPGA\\": 2, \\"accelerator_type:L4\\": 1}"'),
        },
    ),
    st.just({}),
)
own_resources = st.dictionaries(st.sampled_from(["CPU", "GPU", "memory", "FPGA"]), amounts)


@given(limits, start_params, own_resources, st.sampled_from(["limits", "requests"]))
def test_a_group_offers_what_rays_autoscaler_makes_of_it(limits, params, own, kind):
    group = {"rayStartParams": {} if own else params, "resources": own}
    group["template"] = {"spec": {"containers": [{"resources": {kind: limits}}]}}
    expected = ray._get_ray_resources_from_group_spec({**group, "groupName": "g"}, is_head=False)
    found = group_of(yaml.safe_dump(group, sort_keys=False))
    assert (found.cpus, found.num_gpus) == (expected["CPU"], expected.get("GPU", 0))
    assert found.memory_bytes == expected.get("memory")
    assert found.custom_resources.get("FPGA") == expected.get("FPGA")


@pytest.mark.parametrize("quote", ["'", '"'])
def test_resources_in_start_parameters_are_json_in_quotes(quote):
    text = {"rayStartParams": {"resources": f'{quote}{{"FPGA": 2}}{quote}'}}
    assert group_of(f"{yaml.safe_dump(text)}\n{pod('{cpu: 1}')}").custom_resources == {"FPGA": 2}


def test_neuron_cores_are_counted_where_nodes_are_up_anyway():
    limits = "{cpu: 8, aws.amazon.com/neuroncore: 2}"
    fixed = group_of(f"minReplicas: 2\n{pod(limits)}")
    assert fixed.custom_resources == {"neuron_cores": 2}
    assert group_of(pod(limits)).custom_resources == {}


L4 = "{cloud.google.com/gke-accelerator: nvidia-l4}"
GPU = "{cpu: 8, nvidia.com/gpu: 1}"


def test_a_type_that_only_a_running_node_knows_starts_no_node(caplog):
    group = group_of(pod(GPU, L4), name="gpu-l4")
    assert (group.gpu_types, group.num_gpus) == ((), 1)
    assert group.accelerator_memory_bytes == 24 * 10**9
    assert "starts no node of gpu-l4 for work that asks for L4" in caplog.text
    assert 'resources: {"accelerator_type:L4": "1"}' in caplog.text


def test_a_node_that_is_always_up_knows_its_type(caplog):
    assert group_of(f"minReplicas: 2\n{pod(GPU, L4)}").gpu_types == ("L4",)
    assert not caplog.text


def test_the_memory_of_a_shared_card_is_not_assumed():
    selector = (
        "{cloud.google.com/gke-accelerator: nvidia-l4, "
        'cloud.google.com/gke-max-shared-clients-per-gpu: "2"}'
    )
    assert group_of(f"minReplicas: 2\n{pod(GPU, selector)}").accelerator_memory_bytes is None


TPU = "{cpu: 24, google.com/tpu: 4}"


@pytest.mark.parametrize(
    ("topology", "hosts", "resources", "most", "warning"),
    [
        ("2x2", 1, '{"accelerator_type:TPU-V6E": "1"}', 2, ""),
        ("2x2", 1, "{}", 0, '{"accelerator_type:TPU-V6E": "1"}'),
        ("4x4", 4, '{"accelerator_type:TPU-V6E": "1"}', 0, "raise minReplicas"),
    ],
)
def test_only_slices_that_the_autoscaler_can_start_count(
    caplog, topology, hosts, resources, most, warning
):
    selector = (
        "{cloud.google.com/gke-tpu-accelerator: tpu-v6e-slice, "
        f"cloud.google.com/gke-tpu-topology: {topology}}}"
    )
    text = f"numOfHosts: {hosts}\nresources: {resources}\n{pod(TPU, selector)}"
    with caplog.at_level(logging.WARNING):
        assert group_of(text).max_count == most
    assert warning in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "where", "message"),
    [
        ("kind: RayCluster", "kind: RayCulster", "6: kind", '"RayCluster"'),
        (
            "minReplicas: 1",
            "minReplicas: 4",
            "19: spec.workerGroupSpecs[0].minReplicas",
            "at most 3",
        ),
        ("minReplicas: 1", "minReplicas: one", "19: spec.workerGroupSpecs[0].minReplicas", "whole"),
        (
            "groupName: tpu",
            "groupName: gpu",
            "32: spec.workerGroupSpecs[1].groupName",
            "two groups",
        ),
        ("groupName: gpu", "groupName: headgroup", "18: spec.workerGroupSpecs[0].groupName", "own"),
        ('num-cpus: "0"', "num-cpus: 0", "12: spec.headGroupSpec.rayStartParams.num-cpus", '"0"'),
        ("cpu: 1500m", "cpu: 1.5 cores", "16: spec.headGroupSpec", "a quantity is"),
        ('FPGA: "2"', "FPGA: 2", "21: spec.workerGroupSpecs[0].resources.FPGA", "in quotes"),
        ("team: search", "team: 5", "22: spec.workerGroupSpecs[0].labels.team", "in quotes"),
        ("kovar.dev/disk", "kovar.dev/dsik", "24: spec.workerGroupSpecs[0]", "kovar.dev/disk"),
        ("tpu-v6e-slice", "tpu-v6-slice", "gke-tpu-accelerator", '"tpu-v6e-slice"'),
        ("topology: 4x4", "topology: 4x5", "gke-tpu-topology", "not a topology of v6e slices"),
        (
            "numOfHosts: 4",
            "numOfHosts: 2",
            "35: spec.workerGroupSpecs[1].numOfHosts",
            "has 4 hosts",
        ),
        ('tpu: "4"', 'tpu: "8"', "42: spec.workerGroupSpecs[1]", "has 4 chips"),
    ],
)
def test_a_mistake_is_shown_at_its_line(tmp_path, old, new, where, message):
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    with pytest.raises(SpecError) as caught:
        read(tmp_path, text)
    assert where in str(caught.value)
    assert message in str(caught.value)
    assert "raycluster.yaml:" in str(caught.value)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("rayStartParams: {labels: 'a=b'}\n" + pod("{cpu: 1}"), "refuses labels here"),
        ('rayStartParams: {num-cpus: "1"}\nresources: {FPGA: "1"}\n' + pod("{cpu: 1}"), "both"),
        ("rayStartParams: {resources: '{\"FPGA\": 1}'}\n" + pod("{cpu: 1}"), "quotes of its own"),
        ("rayStartParams: {resources: '\"[]\"'}\n" + pod("{cpu: 1}"), "JSON"),
        (pod("{memory: 1Gi}"), "how many CPUs"),
        (pod("{cpu: 1, google.com/tpu: 4}"), "says which TPU"),
        ("template: 5", "CPUs"),
        ("labels: [a]\n" + pod("{cpu: 1}"), "must be a mapping"),
    ],
)
def test_what_kuberay_or_ray_would_refuse_is_refused(group, message):
    with pytest.raises(SpecError, match=message):
        group_of(group)


def test_a_file_declares_one_cluster(tmp_path):
    twice = GOOD + "---\n" + GOOD.split("---\n")[1]
    with pytest.raises(SpecError, match=r"raycluster\.yaml:45: kind: .* more than one cluster"):
        read(tmp_path, twice)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{clusterSelector: {ray.io/cluster: demo}}", "no cluster is declared"),
        ("{rayClusterSpec: {workerGroupSpecs: []}}", "group of the head"),
        ("{rayClusterSpec: {headGroupSpec: {a: 1}, workerGroupSpecs: {}}}", "list of groups|CPUs"),
    ],
)
def test_a_manifest_without_a_cluster_is_refused(tmp_path, spec, message):
    with pytest.raises(SpecError, match=message):
        read(tmp_path, f"apiVersion: ray.io/v1\nkind: RayJob\nspec: {spec}\n")
