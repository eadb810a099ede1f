"""Changes of good files that are no mistakes: nothing may be reported."""

# One change a line reads best, however long the line is.
# ruff: noqa: E501
# fmt: off

from __future__ import annotations

from dataclasses import dataclass

from faults.fault import Check, Edit, add, both, drop, swap

JOB = "jobs/movie-sentiment.yaml"
WORKER = "worker: {kind: cpu, cpus: 1}"


@dataclass(frozen=True)
class Change:
    """A change that is fine."""

    name: str
    file: str
    edit: Edit
    check: Check = "lint"


def _gcp(name: str, *edits: Edit) -> Change:
    return Change(f"GCP: {name}", "cluster.yaml", both(*edits))


def _aws(name: str, *edits: Edit) -> Change:
    return Change(f"AWS: {name}", "clusters/aws.yaml", both(*edits))


def _manifest(name: str, *edits: Edit) -> Change:
    return Change(f"manifest: {name}", "clusters/kuberay/raycluster.yaml", both(*edits))


def _job(name: str, *edits: Edit) -> Change:
    return Change(f"job: {name}", JOB, both(*edits), "plan on the cluster")


def _move_up(line: str) -> Edit:
    def edit(text: str) -> str:
        lines = text.splitlines(keepends=True)
        number = next(n for n, one in enumerate(lines) if line in one)
        lines[number - 1 : number + 1] = [lines[number], lines[number - 1]]
        return "".join(lines)

    return edit


CHANGES = (
    _gcp("cluster renamed", swap("cluster_name: kovar", "cluster_name: team-nlp")),
    _gcp("head renamed", swap("head_node_type: head", "head_node_type: brain"), swap("\n  head:", "\n  brain:")),
    _gcp("type renamed", swap("  gpu-l4:", "  inference:")),
    _gcp("comment added", add("# Ask the platform team first.", below="cluster_name")),
    _gcp("comment removed", drop("# A Ray cluster")),
    _gcp("keys the other way round", _move_up("    max_workers: 4")),
    _gcp("larger CPU machine that agrees", swap('"CPU": 8, "memory": 23622320128', '"CPU": 16, "memory": 47244640256'), swap("n2-standard-8", "n2-standard-16")),
    _gcp("machine of another family", swap("n2-standard-8", "e2-standard-8")),
    _gcp("machine newer than the table", swap("n2-standard-8", "n4-standard-8")),
    _gcp("machine of a custom size", swap("n2-standard-8", "n2-custom-8-32768")),
    _gcp("machine given by its URL", swap("machineType: n2-standard-8", "machineType: zones/us-central1-a/machineTypes/n2-standard-8")),
    _gcp("T4 attached to an n1", swap("machineType: g2-standard-8", "machineType: n1-standard-8\n      guestAccelerators: [{ acceleratorType: nvidia-tesla-t4, acceleratorCount: 1 }]"), swap("accelerator_type:L4", "accelerator_type:T4"), swap('"memory": 23622320128', '"memory": 21474836480', after="gpu-l4:")),
    _gcp("four A100", swap('"CPU": 12\n      "GPU": 1', '"CPU": 48\n      "GPU": 4'), swap("63350767616", "253403070464"), swap("a2-highgpu-1g", "a2-highgpu-4g")),
    _gcp("A100 with 80 GB", swap("A100-40G", "A100-80G"), swap("a2-highgpu-1g", "a2-ultragpu-1g")),
    _gcp("H200 in place of H100", swap("accelerator_type:H100", "accelerator_type:H200"), swap('"CPU": 208', '"CPU": 224'), swap("a3-highgpu-8g", "a3-ultragpu-8g")),
    _gcp("one CPU kept for the system", swap('"CPU": 8', '"CPU": 7')),
    _gcp("less memory on offer", swap("23622320128", "17179869184")),
    _gcp("no memory declared", swap(', "memory": 23622320128 } # 22 GiB', " }")),
    _gcp("custom resource", swap('"CPU": 8, "memory"', '"CPU": 8, "FPGA": 2, "memory"')),
    _gcp("label of one's own", add("      team: vision", below='price-per-hour: "0.85"')),
    _gcp("labels of Kovar", add('      kovar.dev/gpu-memory: "24GB"\n      kovar.dev/disk: 200GiB\n      kovar.dev/interconnect: PCIe', below='price-per-hour: "0.85"')),
    _gcp("label of Ray that all nodes share", add("      ray.io/accelerator-type: L4", below='price-per-hour: "0.85"')),
    _gcp("Spot machine, labelled", swap("{ onHostMaintenance: TERMINATE }", "{ provisioningModel: SPOT, onHostMaintenance: TERMINATE }"), swap('spot: "false"', 'spot: "true"', after="gpu-l4:")),
    _gcp("Spot slice, labelled", add("      schedulingConfig: { spot: true }", below="runtimeVersion: v2-alpha-tpuv5-lite"), swap('spot: "false"', 'spot: "true"', after="tpu-v5e:")),
    _gcp("topology written out", swap("acceleratorType: v5litepod-8", "acceleratorConfig: { type: V5LITE_POD, topology: 2x4 }")),
    _gcp("smaller slice that agrees", swap('"CPU": 224, "TPU": 8', '"CPU": 112, "TPU": 4'), swap("287762808832", "143881404416"), swap("v5litepod-8", "v5litepod-4")),
    _gcp("another zone everywhere", swap("availability_zone: us-central1-a", "availability_zone: us-central1-c"), *[swap("zones/us-central1-a", "zones/us-central1-c")] * 3),
    _gcp("idle nodes stay longer", swap("idle_timeout_minutes: 5", "idle_timeout_minutes: 15")),
    _gcp("nodes that stay up", swap("min_workers: 0", "min_workers: 1", after="gpu-l4:")),
    _gcp("larger cluster", swap("max_workers: 8", "max_workers: 20"), swap("max_workers: 4", "max_workers: 12", after="gpu-l4:")),
    _gcp("other ports that agree", swap("--port=6379", "--port=6380"), swap(":6379", ":6380", after="worker_start_ray_commands")),
    _gcp("dashboard on localhost", swap("--dashboard-host=127.0.0.1", "--dashboard-host=localhost")),
    _gcp("PostgreSQL without a password", *[swap("sqlite:///$HOME/kovar-registry.db", "postgresql+psycopg://kovar@10.0.0.5/kovar")] * 2),
    _gcp("installed from a package index", swap('==2.60.0" ~/kovar', '==2.60.0" kovar-platform[postgres]==0.1.0')),
    _gcp("image at a pinned version", swap("auth:", "docker:\n  image: rayproject/ray:2.60.0-py311-gpu\n  container_name: ray\n\nauth:")),
    _gcp("image by its digest", swap("auth:", f"docker:\n  image: team/trainer@sha256:{'0a' * 32}\n  container_name: ray\n\nauth:")),
    _gcp("settings as a list, as in Ray's examples", swap("scheduling: { onHostMaintenance: TERMINATE }", "scheduling: [{ onHostMaintenance: TERMINATE }]")),
    _gcp("driver installed by a command", swap("projects/deeplearning-platform-release/global/images/family/common-cu128-ubuntu-2204-nvidia-570", "projects/ubuntu-os-cloud/global/images/family/ubuntu-2204-lts"), add("  - sudo apt-get install -qy nvidia-driver-570-server", below="\nsetup_commands:")),
    _gcp("whole repository copied", drop('"~/kovar/platform"'), swap('"~/kovar/LICENSE": "LICENSE"', '"~/kovar": "."')),
    _gcp("runs in a folder of the share", *[swap("KOVAR_HOME=/mnt/kovar ", "KOVAR_HOME=/mnt/kovar/team-nlp ")] * 2),
    _gcp("filled in", swap("project_id: null", "project_id: my-project"), swap("FILE-SERVER", "10.0.0.2")),
    _aws("filled in", *[swap(f"ami-FILL-IN-{kind}", f"ami-0123456789abcdef{n}") for n, kind in enumerate(("ubuntu", "nvidia", "neuron"))], swap("FILE-SERVER", "fs-0123456789abcdef0.efs.us-west-2.amazonaws.com")),
    _aws("machine of another family", swap("m7i.2xlarge", "m6a.2xlarge")),
    _aws("machine newer than the table", swap("m7i.2xlarge", "m9x.2xlarge")),
    _aws("A10G in place of L4", swap("accelerator_type:L4", "accelerator_type:A10G"), swap("g6.2xlarge", "g5.2xlarge")),
    _aws("four L4", swap('"CPU": 8, "GPU": 1, "accelerator_type:L4": 1, "memory": 23622320128', '"CPU": 48, "GPU": 4, "accelerator_type:L4": 1, "memory": 144115188224'), swap("g6.2xlarge", "g6.12xlarge")),
    _aws("Inferentia in place of Trainium", swap('"CPU": 8, "neuron_cores"', '"CPU": 4, "neuron_cores"'), swap("23622320128", "11811160064", after="trainium:"), swap("trn1.2xlarge", "inf2.xlarge")),
    _aws("Spot machine, labelled", add("      InstanceMarketOptions: { MarketType: spot }", below="InstanceType: g6.2xlarge"), swap('spot: "false"', 'spot: "true"', after="gpu-l4:")),
    _aws("SSH from the office only", add("    IpPermissions:\n      - { IpProtocol: tcp, FromPort: 22, ToPort: 22, IpRanges: [{ CidrIp: 192.0.2.0/24 }] }", below="GroupName: kovar")),
    _aws("dashboard from the office only", add("    IpPermissions:\n      - { IpProtocol: tcp, FromPort: 8265, ToPort: 8265, IpRanges: [{ CidrIp: 192.0.2.0/24 }] }", below="GroupName: kovar")),
    _aws("web server for the world", add("    IpPermissions:\n      - { IpProtocol: tcp, FromPort: 443, ToPort: 443, IpRanges: [{ CidrIp: 0.0.0.0/0 }] }", below="GroupName: kovar")),
    _aws("credentials from the environment", add("  - export AWS_SECRET_ACCESS_KEY=$MY_SECRET_FROM_THE_VAULT", below="setup_commands:")),
    _manifest("group renamed", swap("groupName: gpu-l4", "groupName: inference")),
    _manifest("image of the team at a pinned version", swap("rayproject/ray:2.60.0-py311-gpu # FILL", "registry.example.com/team/kovar:1.4.2 # FILL")),
    _manifest("larger limits", swap("maxReplicas: 4", "maxReplicas: 12", after="groupName: gpu-l4")),
    _manifest("Spot pods, labelled", swap('kovar.dev/spot: "false"', 'kovar.dev/spot: "true"', after="groupName: gpu-l4"), add('            cloud.google.com/gke-spot: "true"', below="cloud.google.com/gke-accelerator: nvidia-l4")),
    _manifest("four A100", *[swap('nvidia.com/gpu: "1"', 'nvidia.com/gpu: "4"', after="groupName: gpu-a100")] * 2),
    _manifest("smaller slice that agrees", *[swap('google.com/tpu: "8"', 'google.com/tpu: "4"')] * 2, swap("gke-tpu-topology: 2x4", "gke-tpu-topology: 2x2")),
    _manifest("slice that stays up", swap("minReplicas: 0\n      maxReplicas: 0", "minReplicas: 1\n      maxReplicas: 1")),
    _job("renamed", swap("name: movie-sentiment", "name: reviews-v2")),
    _job("comment added", add("# Agreed with the product team.", below="kind: finetune")),
    _job("range of workers", swap("num_workers: 2", "num_workers: {min: 1, max: 4}")),
    _job("L4", swap(WORKER, "worker: {kind: gpu, type: L4}")),
    _job("L4 or A100", swap(WORKER, "worker: {kind: gpu, type: [L4, A100]}")),
    _job("memory and disk", swap(WORKER, "worker: {kind: cpu, cpus: 2, memory: 8GiB, disk: 50GB}")),
    _job("blocks in another order", drop("max_failures: 3"), swap("kind: finetune\n", "max_failures: 3\nkind: finetune\n")),
    Change("sweep: other values", "tune/tiny-lr-precision.yaml", swap("[5.0e-5, 2.0e-4]", "[1.0e-5, 3.0e-5, 1.0e-4]"), "plan on the cluster"),
    Change("sweep: random draws", "tune/tiny-lr-precision.yaml", swap("{kind: grid, values: [5.0e-5, 2.0e-4]}", "{kind: loguniform, low: 1.0e-5, high: 1.0e-3}"), "plan on the cluster"),
    Change("endpoint: fixed number of replicas", "serve/movie-sentiment.yaml", swap("num_replicas: # a number, or a range that follows the traffic\n        min: 1\n        max: 2", "num_replicas: 2"), "plan on the cluster"),
    Change("endpoint: on half an L4", "serve/movie-sentiment.yaml", swap("kind: cpu\n        cpus: 1", "kind: gpu\n        type: L4\n        count: 0.5"), "plan on the cluster"),
)
