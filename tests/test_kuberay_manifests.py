"""The manifests under clusters/kuberay: against cluster.yaml, against Ray, and hardened."""

from pathlib import Path

import pytest
import yaml

from kovar.resources import Demand, Resources, TpuRequest, plan_placement, read_cluster

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "clusters" / "kuberay"
PATHS = sorted(FOLDER.glob("ray*.yaml"))
SPEC_OF = {"RayCluster": [], "RayJob": ["rayClusterSpec"], "RayService": ["rayClusterConfig"]}
DECLARED = {kind.name: kind for kind in read_cluster(ROOT / "cluster.yaml").node_types}

every_manifest = pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])


def manifest(path: Path) -> dict:
    return next(yaml.safe_load_all(path.read_text()))


def cluster_spec(path: Path) -> dict:
    found = manifest(path)
    spec = found["spec"]
    for key in SPEC_OF[found["kind"]]:
        spec = spec[key]
    return spec


def groups(path: Path) -> list[dict]:
    spec = cluster_spec(path)
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def test_there_is_one_of_each_kind():
    assert sorted(manifest(path)["kind"] for path in PATHS) == sorted(SPEC_OF)


@every_manifest
def test_node_types_of_the_same_name_are_those_of_cluster_yaml(path):
    for kind in read_cluster(path).node_types:
        if kind.name in DECLARED:
            twin = DECLARED[kind.name]
            assert (kind.accelerator, kind.gpu_types) == (twin.accelerator, twin.gpu_types)
            assert kind.accelerator_memory_bytes == twin.accelerator_memory_bytes
            assert (kind.price_per_hour, kind.spot) == (twin.price_per_hour, twin.spot)
            assert kind.max_count == twin.max_count
            # Kubernetes itself takes some of the machine.
            assert 0.85 * twin.cpus <= kind.cpus <= twin.cpus
            assert 0.75 * twin.memory_bytes <= kind.memory_bytes <= twin.memory_bytes


def test_the_cluster_has_cpu_gpu_and_tpu_groups():
    kinds = {
        kind.name: kind.accelerator for kind in read_cluster(FOLDER / "raycluster.yaml").node_types
    }
    assert kinds == {
        "headgroup": None,
        "cpu": None,
        "gpu-l4": "L4:1",
        "gpu-a100": "A100:1",
        "gpu-h100": "H100:8",
        "tpu-v5e": "v5e 2x4",
        "tpu-v5e-16": "v5e 4x4",
    }


@every_manifest
def test_nothing_that_the_autoscaler_cannot_start_is_promised(path, caplog):
    assert read_cluster(path).node_types[0].cpus == 0
    assert not caplog.text


def test_a_slice_of_several_hosts_is_planned_whole_while_it_is_up(tmp_path):
    text = (FOLDER / "raycluster.yaml").read_text()
    switched_on = text.replace(
        "minReplicas: 0\n      maxReplicas: 0", "minReplicas: 1\n      maxReplicas: 1"
    )
    (tmp_path / "up.yaml").write_text(switched_on)
    worker = TpuRequest(type="v5e", topology="4x4")
    demand = Demand.of(Resources(worker=worker, num_workers=4), name="job")
    placement = plan_placement([demand], read_cluster(tmp_path / "up.yaml"))
    assert placement.assignments == {"job": {"tpu-v5e-16": 4}}


@every_manifest
def test_rays_autoscaler_reads_the_same_from_it(path):
    from ray.autoscaler._private.kuberay import autoscaling_config as ray

    config = ray._derive_autoscaling_config_from_ray_cr(
        {"metadata": manifest(path)["metadata"], "spec": cluster_spec(path)}
    )
    cluster = read_cluster(path)
    assert config["idle_timeout_minutes"] * 60 == cluster.idle_timeout_s
    assert list(config["available_node_types"]) == [kind.name for kind in cluster.node_types]
    for kind in cluster.node_types:
        declared = config["available_node_types"][kind.name]
        resources = declared["resources"]
        assert (resources["CPU"], resources.get("GPU", 0)) == (kind.cpus, kind.num_gpus)
        assert resources["memory"] == kind.memory_bytes
        assert resources.get("TPU", 0) == kind.num_tpu_chips
        assert {f"accelerator_type:{name}" for name in kind.gpu_types} <= set(resources)
        assert declared["labels"] == kind.labels
        if not kind.is_head:
            assert declared["max_workers"] == kind.max_count * kind.num_hosts


class NoEvents:
    def log_cluster_scheduling_update(self, **_event):
        pass


def started_for(path: Path, bundle: dict[str, float]) -> list[str]:
    """Ask the scheduler of Ray's autoscaler which groups it starts for one worker."""
    from ray.autoscaler._private.kuberay import autoscaling_config as ray
    from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.autoscaler_pb2 import ResourceRequest
    from ray.core.generated.common_pb2 import LabelSelectorOperator

    types = ray._generate_available_node_types_from_ray_cr_spec(cluster_spec(path))
    request = ResourceRequest(resources_bundle=bundle)
    # Work that must not be interrupted keeps away from Spot nodes.
    constraint = request.label_selectors.add().label_constraints.add()
    constraint.label_key, constraint.operator = (
        "kovar.dev/spot", LabelSelectorOperator.LABEL_OPERATOR_NOT_IN,
    )  # fmt: skip
    constraint.label_values.append("true")
    reply = ResourceDemandScheduler(NoEvents()).schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs={
                name: NodeTypeConfig(
                    name=name,
                    min_worker_nodes=kind["min_workers"],
                    max_worker_nodes=kind["max_workers"],
                    resources=kind["resources"],
                    labels=kind["labels"],
                    launch_config_hash="",
                )
                for name, kind in types.items()
            },
            resource_requests=ResourceRequestUtil.group_by_count([request]),
        )
    )
    return [launch.instance_type for launch in reply.to_launch]


@pytest.mark.parametrize(
    ("group", "bundle"),
    [
        ("cpu", {"CPU": 7, "memory": 16 << 30}),
        ("gpu-l4", {"CPU": 1, "GPU": 0.5, "accelerator_type:L4": 0.001}),
        ("gpu-a100", {"CPU": 1, "GPU": 1, "accelerator_type:A100-40G": 0.001}),
        ("gpu-h100", {"CPU": 8, "GPU": 8, "accelerator_type:H100": 0.001}),
        ("tpu-v5e", {"CPU": 1, "TPU": 8, "accelerator_type:TPU-V5LITEPOD": 0.001}),
    ],
)
def test_rays_autoscaler_starts_each_group_for_work_that_names_its_chip(group, bundle):
    assert started_for(FOLDER / "raycluster.yaml", bundle) == [group]
    assert started_for(FOLDER / "raycluster.yaml", {**bundle, "accelerator_type:B200": 1}) == []


@every_manifest
def test_memory_leaves_room_for_rays_object_store(path):
    for kind, group in zip(read_cluster(path).node_types, groups(path), strict=True):
        resources = group["template"]["spec"]["containers"][0]["resources"]
        assert resources["requests"] == resources["limits"]
        if not kind.is_head:
            container = int(resources["limits"]["memory"].removesuffix("Gi")) << 30
            assert 10 * kind.memory_bytes <= 7 * container


@every_manifest
def test_pods_run_without_root_and_without_what_they_do_not_need(path):
    for group in groups(path):
        spec = group["template"]["spec"]
        security = spec["securityContext"]
        assert security["runAsNonRoot"]
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
        assert spec["restartPolicy"] == "Never"
    assert all(
        group["template"]["spec"]["automountServiceAccountToken"] is False
        for group in groups(path)[1:]
    )


@every_manifest
def test_requests_need_the_token_and_nothing_is_exposed(path):
    spec = cluster_spec(path)
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert "enableIngress" not in spec["headGroupSpec"]
    # A job's submitter and a service's operator reach the dashboard through the pod's address.
    host = spec["headGroupSpec"]["rayStartParams"]["dashboard-host"]
    assert host == ("127.0.0.1" if manifest(path)["kind"] == "RayCluster" else "0.0.0.0")


@pytest.mark.parametrize("name", ["raycluster", "rayservice"])
def test_a_policy_of_the_network_covers_the_pods(name):
    first, policy = yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text())
    (selected,) = policy["spec"]["podSelector"]["matchLabels"].items()
    labels = [
        group["template"].get("metadata", {}).get("labels", {})
        for group in groups(FOLDER / f"{name}.yaml")
    ]
    # KubeRay gives each pod the label with the name of its RayCluster.
    known = {"ray.io/cluster": first["metadata"]["name"]} if name == "raycluster" else {}
    assert all(selected in ({**known, **own}).items() for own in labels)
    assert policy["spec"]["policyTypes"] == ["Ingress"]


@every_manifest
def test_the_image_has_the_pinned_ray(path):
    pinned = next(
        line.removeprefix("ray==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line.startswith("ray==")
    )
    images = {c["image"] for g in groups(path) for c in g["template"]["spec"]["containers"]}
    assert images == {f"rayproject/ray:{pinned}-py311-gpu"}
    assert cluster_spec(path)["rayVersion"] == pinned


def test_all_share_one_storage_claim():
    claim = manifest(FOLDER / "storage.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for path in PATHS:
        assert manifest(path)["metadata"]["namespace"] == claim["metadata"]["namespace"]
        for group in groups(path):
            (volume,) = group["template"]["spec"]["volumes"]
            assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_the_service_has_the_settings_of_the_serve_file():
    served = yaml.safe_load(manifest(FOLDER / "rayservice.yaml")["spec"]["serveConfigV2"])
    written = yaml.safe_load((ROOT / "serve" / "movie-sentiment.yaml").read_text())
    # In a pod loopback reaches nobody.
    assert served["http_options"].pop("host") == "0.0.0.0"
    assert written["http_options"].pop("host") == "127.0.0.1"
    assert served == written


def test_the_service_is_a_config_that_ray_serve_takes():
    from ray.serve.schema import ServeDeploySchema

    served = manifest(FOLDER / "rayservice.yaml")["spec"]["serveConfigV2"]
    ServeDeploySchema.model_validate(yaml.safe_load(served))


def test_the_job_runs_an_entry_point_and_a_spec_of_this_repository():
    entry = manifest(FOLDER / "rayjob.yaml")["spec"]["entrypoint"]
    words = entry.split()
    assert all((ROOT / word).exists() for word in words if word.startswith("jobs/"))
    assert "cd /home/ray/kovar && python jobs/finetune.py" in entry
