"""Mistakes in KubeRay manifests, which `kovar cluster lint` has to notice."""

# One fault a line reads best, however long the line is.
# ruff: noqa: E501
# fmt: off

from __future__ import annotations

from faults.fault import Edit, Fault, add, both, drop, swap


def _cluster(name: str, edit: Edit, field: str, says: str, *, elsewhere: bool = False) -> Fault:
    return Fault(f"manifest: {name}", "clusters/kuberay/raycluster.yaml", edit, field, says, elsewhere=elsewhere)


def _job(name: str, edit: Edit, field: str, says: str, *, elsewhere: bool = False) -> Fault:
    return Fault(f"RayJob: {name}", "clusters/kuberay/rayjob.yaml", edit, field, says, elsewhere=elsewhere)


def _service(name: str, edit: Edit, field: str, says: str, *, elsewhere: bool = False) -> Fault:
    return Fault(f"RayService: {name}", "clusters/kuberay/rayservice.yaml", edit, field, says, elsewhere=elsewhere)


HEAD = "spec.headGroupSpec"
CPU, L4, A100, H100, V5E, V5E_16 = (f"spec.workerGroupSpecs[{n}]" for n in range(6))
CONTAINER = "template.spec.containers[0]"
SELECTOR = "template.spec.nodeSelector"

FAULTS = (
    _cluster("newest image", swap("rayproject/ray:2.60.0-py311-gpu # FILL", "rayproject/ray:latest # FILL"), f"{HEAD}.{CONTAINER}.image", "moves"),
    _cluster("image without a tag", swap("rayproject/ray:2.60.0-py311-gpu # FILL", "team/kovar # FILL"), f"{HEAD}.{CONTAINER}.image", "has no tag"),
    _cluster("image of another Ray", swap("rayproject/ray:2.60.0-py311-gpu # FILL", "rayproject/ray:2.54.0-py311-gpu # FILL"), f"{HEAD}.{CONTAINER}.image", "Ray 2.54.0"),
    _cluster("image without CUDA", swap("rayproject/ray:2.60.0-py311-gpu # FILL", "rayproject/ray:2.60.0-py311 # FILL"), f"{HEAD}.{CONTAINER}.image", "no CUDA"),
    _cluster("Ray version of last year", swap("rayVersion: 2.60.0", "rayVersion: 2.46.0"), "spec.rayVersion", "2.60.0"),
    _cluster("dashboard for the world", swap("serviceType: ClusterIP", "serviceType: LoadBalancer"), f"{HEAD}.serviceType", "outside"),
    _cluster("dashboard on every machine", swap("serviceType: ClusterIP", "serviceType: NodePort"), f"{HEAD}.serviceType", "outside"),
    _cluster("dashboard behind an ingress", add("    enableIngress: true", below="headGroupSpec:"), f"{HEAD}.enableIngress", "outside"),
    _cluster("no tokens", swap("mode: token", "mode: disabled"), "spec.authOptions.mode", "need no token"),
    _cluster("ports of the machine", add("            ports: [{ containerPort: 8265, hostPort: 8265 }]", below="- name: ray-head"), f"{HEAD}.{CONTAINER}.ports[0].hostPort", "port 8265"),
    _cluster("network of the machine", add("        hostNetwork: true", below="restartPolicy: Never"), f"{HEAD}.template.spec.hostNetwork", "hostNetwork"),
    _cluster("head that runs work", swap('num-cpus: "0"', 'num-cpus: "3"'), f"{HEAD}.rayStartParams.num-cpus", '"0"'),
    _cluster("head's CPUs forgotten", drop('num-cpus: "0"'), f"{HEAD}.rayStartParams.num-cpus", '"0"', elsewhere=True),
    _cluster("head's CPUs without quotes", swap('num-cpus: "0"', "num-cpus: 0"), f"{HEAD}.rayStartParams.num-cpus", "quotes"),
    _cluster("head on Spot", add('        nodeSelector: { cloud.google.com/gke-spot: "true" }', below="restartPolicy: Never"), f"{HEAD}.template.spec.nodeSelector", "Spot"),
    _cluster("min above max", swap("minReplicas: 0", "minReplicas: 6", after="groupName: cpu"), f"{CPU}.minReplicas", "larger than maxReplicas 4"),
    _cluster("replicas above max", add("      replicas: 9", below="minReplicas: 0", after="groupName: gpu-l4"), f"{L4}.replicas", "not between"),
    _cluster("no maximum", drop("maxReplicas: 4", after="groupName: gpu-l4"), f"{L4}.maxReplicas", "2,147,483,647", elsewhere=True),
    _cluster("autoscaler forgotten", drop("enableInTreeAutoscaling"), "spec.enableInTreeAutoscaling", "never grows", elsewhere=True),
    _cluster("first autoscaler", swap("version: v2", "version: v1"), "spec.autoscalerOptions.version", "label selectors"),
    _cluster("idle time in milliseconds", swap("idleTimeoutSeconds: 300", "idleTimeoutSeconds: 300000"), "spec.autoscalerOptions.idleTimeoutSeconds", "minutes"),
    _cluster("GPU limit above its request", swap('nvidia.com/gpu: "1"', 'nvidia.com/gpu: "2"', after="groupName: gpu-l4"), f"{L4}.{CONTAINER}.resources.requests.nvidia.com/gpu", "equal"),
    _cluster("GPU requested without a limit", swap(', nvidia.com/gpu: "1" }', " }", after="limits: { cpu: \"11\""), f"{A100}.{CONTAINER}.resources.requests.nvidia.com/gpu", "missing", elsewhere=True),
    _cluster("memory request above its limit", swap("requests: { cpu: \"7\", memory: 26Gi", "requests: { cpu: \"7\", memory: 36Gi"), f"{CPU}.{CONTAINER}.resources.requests.memory", "above its limit"),
    _cluster("more memory offered than the pod has", swap("memory: 18Gi", "memory: 32Gi"), f"{CPU}.resources.memory", "26.0 GiB"),
    _cluster("no memory left for objects", swap("memory: 49Gi", "memory: 68Gi"), f"{A100}.resources.memory", "object store"),
    _cluster("GPU type of another pod", swap("accelerator_type:L4", "accelerator_type:A100"), f"{L4}.resources.accelerator_type:A100", "nodeSelector asks for L4"),
    _cluster("GPU type misspelled", swap("accelerator_type:H100", "accelerator_type:h100"), f"{H100}.resources.accelerator_type:h100", '"H100"'),
    _cluster("GPU type forgotten", swap(', "accelerator_type:H100": "1"', ""), f"{H100}.resources.GPU", "waits for ever", elsewhere=True),
    _cluster("GPU machine without a GPU", both(*[swap(', nvidia.com/gpu: "8"', "")] * 2), f"{H100}.{CONTAINER}.resources.limits", "takes none", elsewhere=True),
    _cluster("chips of a smaller slice", both(*[swap('google.com/tpu: "8"', 'google.com/tpu: "4"')] * 2), f"{V5E}.{CONTAINER}.resources.limits.google.com/tpu", "8 chips", elsewhere=True),
    _cluster("hosts of a smaller slice", swap("numOfHosts: 4", "numOfHosts: 2"), f"{V5E_16}.numOfHosts", "4 hosts"),
    _cluster("slices of several hosts on demand", swap("maxReplicas: 0", "maxReplicas: 2"), f"{V5E_16}.maxReplicas", "starts none"),
    _cluster("topology that is not sold", swap("gke-tpu-topology: 4x4", "gke-tpu-topology: 4x5"), f"{V5E_16}.{SELECTOR}.cloud.google.com/gke-tpu-topology", "not a topology"),
    _cluster("topology of another shape", swap("gke-tpu-topology: 2x4", "gke-tpu-topology: 2x2"), f"{V5E}.{CONTAINER}.resources.limits.google.com/tpu", "4 chips", elsewhere=True),
    _cluster("name of the TPU misspelled", swap("tpu-v5-lite-podslice", "tpu-v5e-podslice"), f"{V5E}.{SELECTOR}.cloud.google.com/gke-tpu-accelerator", "which TPU this is"),
    _cluster("TPU type of another slice", swap("accelerator_type:TPU-V5LITEPOD", "accelerator_type:TPU-V6E"), f"{V5E}.resources.accelerator_type:TPU-V6E", "TPU-V5LITEPOD"),
    _cluster("group without a name", swap("- groupName: cpu", "- group: cpu"), f"{CPU}.groupName", "name of its own", elsewhere=True),
    _cluster("group given twice", swap("groupName: gpu-l4", "groupName: cpu"), f"{L4}.groupName", "two groups"),
    _cluster("price without quotes", swap('"0.39"', "0.39"), f"{CPU}.labels.kovar.dev/price-per-hour", '"0.39"'),
    _cluster("Spot pods labelled on demand", add('            cloud.google.com/gke-spot: "true"', below="cloud.google.com/gke-accelerator: nvidia-l4"), f"{L4}.labels.kovar.dev/spot", "Spot machines", elsewhere=True),
    _cluster("label of Kovar misspelled", swap("kovar.dev/spot", "kovar.dev/spott", after="groupName: cpu"), f"{CPU}.labels.kovar.dev/spott", "kovar.dev/spot"),
    _cluster("unit that Kubernetes lacks", swap("memory: 26Gi", "memory: 26GB"), f"{CPU}.{CONTAINER}.resources.requests.memory", "quantity"),
    _cluster("kind misspelled", swap("kind: RayCluster", "kind: Raycluster"), "kind", "RayCluster"),
    _cluster("folder that is not mounted", swap("mountPath: /mnt/kovar", "mountPath: /data"), f"{HEAD}.{CONTAINER}.env[0].value", "mounts nothing", elsewhere=True),
    _cluster("database inside the pod", swap("valueFrom:\n                  secretKeyRef: { name: kovar-database, key: url }", "value: sqlite:////mnt/kovar/registry.db"), f"{HEAD}.{CONTAINER}.env[1].value", "PostgreSQL"),
    _cluster("secret as text", swap("            env: &env\n", "            env: &env\n              - name: AWS_SECRET_ACCESS_KEY\n                value: abcdefghijklmnop\n"), f"{HEAD}.{CONTAINER}.env[0].value", "valueFrom", elsewhere=True),
    _job("cluster that outlives its job", swap("shutdownAfterJobFinishes: true", "shutdownAfterJobFinishes: false"), "spec.shutdownAfterJobFinishes", "billed"),
    _job("no command", drop("entrypoint: cd"), "spec.entrypoint", "no command", elsewhere=True),
    _job("Ray version of last year", swap("rayVersion: 2.60.0", "rayVersion: 2.9.3"), "spec.rayClusterSpec.rayVersion", "2.60.0"),
    _job("min above max", swap("minReplicas: 0", "minReplicas: 9"), "spec.rayClusterSpec.workerGroupSpecs[0].minReplicas", "larger than maxReplicas"),
    _job("cluster under the key of a service", swap("rayClusterSpec:", "rayClusterConfig:"), "spec.rayClusterSpec", "no cluster", elsewhere=True),
    _service("configuration that is not YAML", swap("      - name: movie-sentiment", "     - name: movie-sentiment"), "spec.serveConfigV2", "YAML", elsewhere=True),
    _service("dashboard for the world", swap("serviceType: ClusterIP", "serviceType: LoadBalancer"), "spec.rayClusterConfig.headGroupSpec.serviceType", "outside"),
    _service("no maximum", drop("maxReplicas: 4"), "spec.rayClusterConfig.workerGroupSpecs[0].maxReplicas", "2,147,483,647", elsewhere=True),
)
