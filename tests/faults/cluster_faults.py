"""Mistakes in cluster.yaml files, which `kovar cluster lint` has to notice."""

# One fault a line reads best, however long the line is.
# ruff: noqa: E501
# fmt: off

from __future__ import annotations

from faults.fault import Edit, Fault, add, both, drop, swap

TYPES = "available_node_types"


def _gcp(name: str, edit: Edit, field: str, says: str, *, elsewhere: bool = False) -> Fault:
    return Fault(f"GCP: {name}", "cluster.yaml", edit, field, says, elsewhere=elsewhere)


def _aws(name: str, edit: Edit, field: str, says: str, *, elsewhere: bool = False) -> Fault:
    return Fault(f"AWS: {name}", "clusters/aws.yaml", edit, field, says, elsewhere=elsewhere)


L4, A100, H100, V5E, V6E = (f"{TYPES}.{n}" for n in ("gpu-l4", "gpu-a100", "gpu-h100", "tpu-v5e", "tpu-v6e"))
HEAD, CPU = f"{TYPES}.head", f"{TYPES}.cpu"

MACHINES = (
    _gcp("more CPUs than the machine", swap('"CPU": 8', '"CPU": 16', after="  cpu:"), f"{CPU}.resources.CPU", "n2-standard-8 has 8"),
    _gcp("machine shrunk, resources kept", swap("n2-standard-8", "n2-standard-4"), f"{CPU}.resources.CPU", "n2-standard-4 has 4", elsewhere=True),
    _gcp("fewer CPUs than half", swap('"CPU": 208', '"CPU": 20'), f"{H100}.resources.CPU", "20 of the 208"),
    _gcp("two GPUs on a machine with one", swap('"GPU": 1', '"GPU": 2', after="gpu-l4:"), f"{L4}.resources.GPU", "g2-standard-8 has 1 × L4"),
    _gcp("one GPU of eight declared", swap('"GPU": 8', '"GPU": 1'), f"{H100}.resources.GPU", "never used"),
    _gcp("GPU of another machine", swap("machineType: g2-standard-8", "machineType: n2-standard-8"), f"{L4}.resources.GPU", "has no GPU", elsewhere=True),
    _gcp("L4 declared as A100", swap("accelerator_type:L4", "accelerator_type:A100"), f"{L4}.resources.accelerator_type:A100", "has L4, not A100"),
    _gcp("A100 with 80 GB on a machine with 40", swap("A100-40G", "A100-80G"), f"{A100}.resources.accelerator_type:A100-80G", "accelerator_type:A100-40G"),
    _gcp("H100 machine replaced by H200's", swap("a3-highgpu-8g", "a3-ultragpu-8g"), f"{H100}.resources.accelerator_type:H100", "has H200, not H100", elsewhere=True),
    _gcp("all the memory of the machine", swap("23622320128", "34359738368"), f"{CPU}.resources.memory", "no room for Ray's object store"),
    _gcp("more memory than the machine", swap("63350767616", "633507676160"), f"{A100}.resources.memory", "a2-highgpu-1g has 85.0 GiB"),
    _gcp("memory in GiB", swap("23622320128", "22"), f"{CPU}.resources.memory", "write 23622320128"),
    _gcp("memory in MiB", swap("23622320128", "22528"), f"{CPU}.resources.memory", "memory is in bytes"),
    _gcp("memory with a unit", swap("23622320128", "22GiB"), f"{CPU}.resources.memory", "a whole number"),
    _gcp("machine type misspelled", swap("n2-standard-8", "n2-standart-8"), f"{CPU}.node_config.machineType", "n2-standard-8"),
    _gcp("size that is not sold", swap("n2-standard-8", "n2-standard-6"), f"{CPU}.node_config.machineType", "not a size of its family"),
    _gcp("no machine type", drop("machineType: n2-standard-8"), f"{CPU}.node_config.machineType", "node_config needs machineType", elsewhere=True),
    _gcp("AWS's key for the machine", swap("machineType: n2-standard-8", "InstanceType: n2-standard-8"), f"{CPU}.node_config.machineType", "node_config needs machineType", elsewhere=True),
    _gcp("GPU machine that may be moved", drop("scheduling: { onHostMaintenance", after="gpu-a100:"), f"{A100}.node_config.scheduling.onHostMaintenance", "TERMINATE", elsewhere=True),
    _gcp("GPU machine that is migrated", swap("TERMINATE }", "MIGRATE }", after="gpu-a100:"), f"{A100}.node_config.scheduling.onHostMaintenance", "TERMINATE"),
    _gcp("disk in another zone", swap("zones/us-central1-a", "zones/us-central1-b"), f"{L4}.node_config.disks[0].initializeParams.diskType", "zone us-central1-b"),
    _gcp("zone changed in one place", swap("availability_zone: us-central1-a", "availability_zone: us-central1-c"), f"{L4}.node_config.disks[0].initializeParams.diskType", "us-central1-c", elsewhere=True),
    _gcp("zone of another region", swap("region: us-central1", "region: europe-west4"), "provider.availability_zone", "not in region europe-west4", elsewhere=True),
    _aws("more CPUs than the machine", swap('"CPU": 8', '"CPU": 32', after="gpu-l4:"), f"{L4}.resources.CPU", "g6.2xlarge has 8"),
    _aws("A10G machine for an L4", swap("g6.2xlarge", "g5.2xlarge"), f"{L4}.resources.accelerator_type:L4", "has A10G, not L4", elsewhere=True),
    _aws("size with four GPUs", swap("g6.2xlarge", "g6.12xlarge"), f"{L4}.resources.GPU", "4 × L4", elsewhere=True),
    _aws("p4d taken for 80 GB", swap("A100-40G", "A100-80G"), f"{A100}.resources.accelerator_type:A100-80G", "A100-40G"),
    _aws("p5e for a p5", swap("p5.48xlarge", "p5e.48xlarge", after="node_config"), f"{H100}.resources.accelerator_type:H100", "has H200, not H100", elsewhere=True),
    _aws("chips counted for cores", swap('"neuron_cores": 2', '"neuron_cores": 1'), f"{TYPES}.trainium.resources.neuron_cores", "2 × aws-neuron-core"),
    _aws("size that is not sold", swap("m7i.2xlarge", "m7i.3xlarge"), f"{CPU}.node_config.InstanceType", "not a size of its family"),
    _aws("memory of the next size", swap("23622320128", "47244640256"), f"{CPU}.resources.memory", "m7i.2xlarge has 32.0 GiB"),
    _aws("Google's key for the machine", swap("InstanceType: m7i.2xlarge", "machineType: m7i.2xlarge"), f"{CPU}.node_config.InstanceType", "node_config needs InstanceType", elsewhere=True),
    _aws("image left to Ray", drop("ImageId: *ubuntu"), f"{CPU}.node_config.ImageId", "2022", elsewhere=True),
    _aws("zone of another region", swap("us-west-2a", "us-east-1a"), "provider.availability_zone", "not in region us-west-2"),
)

TPUS = (
    _gcp("head resource by hand", swap('"TPU": 8,', '"TPU": 8, "TPU-v5litepod-8-head": 1,'), f"{V5E}.resources.TPU-v5litepod-8-head", "by itself"),
    _gcp("four chips of eight", swap('"TPU": 8', '"TPU": 4'), f"{V5E}.resources.TPU", "has TPU: 8, not 4"),
    _gcp("TPU declared as GPU", swap('"TPU": 8', '"GPU": 8'), f"{V5E}.resources", "TPU: 8", elsewhere=True),
    _gcp("short name of the TPU", swap("accelerator_type:TPU-V5LITEPOD", "accelerator_type:TPU-V5E"), f"{V5E}.resources.accelerator_type:TPU-V5E", "accelerator_type:TPU-V5LITEPOD"),
    _gcp("TPU without its type", swap('"accelerator_type:TPU-V6E": 1, ', ""), f"{V6E}.resources", "accelerator_type:TPU-V6E", elsewhere=True),
    _gcp("machine type beside the slice", add("      machineType: n2-standard-8", below="acceleratorType: v5litepod-8"), f"{V5E}.node_config.machineType", "no machineType"),
    _gcp("slice of several hosts", both(swap("v5litepod-8", "v5litepod-16"), swap('"TPU": 8', '"TPU": 4'), swap('"CPU": 224', '"CPU": 112'), swap("287762808832", "143881404416")), f"{V5E}.node_config.acceleratorType", "4 hosts", elsewhere=True),
    _gcp("slice that is not sold", swap("v6e-8", "v6e-12"), f"{V6E}.node_config.acceleratorType", "not a TPU slice"),
    _gcp("generation misspelled", swap("v5litepod-8", "v5e-8"), f"{V5E}.node_config.acceleratorType", "v5litepod-8"),
    _gcp("image of another generation", swap("runtimeVersion: v2-alpha-tpuv6e", "runtimeVersion: v2-alpha-tpuv5-lite"), f"{V6E}.node_config.runtimeVersion", "TPU v5e"),
    _gcp("no image", drop("runtimeVersion: v2-alpha-tpuv6e"), f"{V6E}.node_config.runtimeVersion", "needs runtimeVersion", elsewhere=True),
    _gcp("two ways to name the slice", add("      acceleratorConfig: { type: V6E, topology: 2x4 }", below="acceleratorType: v6e-8"), f"{V6E}.node_config.acceleratorConfig", "keep one"),
    _gcp("topology of another shape", swap("acceleratorType: v6e-8", "acceleratorConfig: { type: V6E, topology: 2x2x2 }"), f"{V6E}.node_config.acceleratorConfig", "topology"),
    _gcp("CPUs of a smaller slice", swap('"CPU": 180', '"CPU": 224'), f"{V6E}.resources.CPU", "has 180"),
    _gcp("TPU as the head", both(swap("machineType: n2-standard-4", "acceleratorType: v5litepod-8\n      runtimeVersion: v2-alpha-tpuv5-lite")), f"{HEAD}.node_config.acceleratorType", "cannot be the head"),
)

NAMES = (
    _gcp("resource in lower case", swap('"GPU": 1', '"gpu": 1'), f"{L4}.resources.gpu", '"GPU"'),
    _gcp("resource of another tool", swap('"CPU": 8', '"num_cpus": 8'), f"{CPU}.resources.num_cpus", '"CPU"'),
    _gcp("accelerator type in lower case", swap("accelerator_type:L4", "accelerator_type:l4"), f"{L4}.resources.accelerator_type:l4", '"L4"'),
    _gcp("accelerator type with its maker", swap("accelerator_type:H100", "accelerator_type:NVIDIA-H100"), f"{H100}.resources.accelerator_type:NVIDIA-H100", '"H100"'),
    _gcp("hyphen for an underscore", swap("accelerator_type:H100", "accelerator-type:H100"), f"{H100}.resources.accelerator-type:H100", "accelerator_type:H100"),
    _gcp("number of GPUs in the type", swap('"accelerator_type:H100": 1', '"accelerator_type:H100": 8'), f"{H100}.resources.accelerator_type:H100", "not how many"),
    _gcp("GPU without its type", swap('"accelerator_type:L4": 1, ', ""), f"{L4}.resources.GPU", "waits for ever"),
    _gcp("type without its GPU", swap('"GPU": 1, "accelerator_type:L4"', '"accelerator_type:L4"'), f"{L4}.resources.accelerator_type:L4", 'add "GPU"'),
    _gcp("half a GPU", swap('"GPU": 1', '"GPU": 0.5'), f"{L4}.resources.GPU", "a whole number"),
    _gcp("CPUs in quotes", swap('"CPU": 8', '"CPU": "8"'), f"{CPU}.resources.CPU", "without quotes"),
    _gcp("negative CPUs", swap('"CPU": 8', '"CPU": -8'), f"{CPU}.resources.CPU", "0 or more"),
    _gcp("no CPUs declared", swap('{ "CPU": 8, "memory"', '{ "memory"'), f"{CPU}.resources", "CPU is missing"),
    _aws("accelerator type misspelled", swap("aws-neuron-core", "aws-neuron-cores"), f"{TYPES}.trainium.resources.accelerator_type:aws-neuron-cores", '"aws-neuron-core"'),
)

LIMITS = (
    _gcp("no limit of the cluster", drop("max_workers: 8"), "max_workers", "Ray's default is 2", elsewhere=True),
    _gcp("no limit of a type", drop("max_workers: 2", after="gpu-a100:"), f"{A100}.max_workers", "all 8 workers", elsewhere=True),
    _gcp("min above max", swap("min_workers: 0", "min_workers: 5", after="  cpu:"), f"{CPU}.min_workers", "larger than max_workers 4"),
    _gcp("max lowered below min", both(swap("min_workers: 0", "min_workers: 2", after="gpu-l4:"), swap("max_workers: 4", "max_workers: 1", after="gpu-l4:")), f"{L4}.min_workers", "larger than max_workers 1"),
    _gcp("type larger than the cluster", swap("max_workers: 4", "max_workers: 40", after="gpu-l4:"), f"{L4}.max_workers", "more than the 8"),
    _gcp("limit of the cluster below its types' minimum", both(swap("min_workers: 0", "min_workers: 4", after="  cpu:"), swap("max_workers: 8", "max_workers: 2")), "max_workers", "add up to 4"),
    _gcp("limit in quotes", swap("max_workers: 8", 'max_workers: "8"'), "max_workers", "a whole number"),
    _gcp("negative limit", swap("max_workers: 4", "max_workers: -1", after="  cpu:"), f"{CPU}.max_workers", "0 or more"),
    _gcp("workers of the head's type", add("    max_workers: 2", below="  head:"), f"{HEAD}.max_workers", "as workers"),
    _gcp("idle GPUs for a day", swap("idle_timeout_minutes: 5", "idle_timeout_minutes: 1440"), "idle_timeout_minutes", "US dollars"),
    _gcp("idle time in seconds", swap("idle_timeout_minutes: 5", "idle_timeout_minutes: 300"), "idle_timeout_minutes", "billed for 300 minutes"),
    _gcp("no idle time", swap("idle_timeout_minutes: 5", "idle_timeout_minutes: 0"), "idle_timeout_minutes", "between two steps"),
    _gcp("idle time of one type", add("    idle_timeout_s: 86400", below="gpu-h100:"), f"{H100}.idle_timeout_s", "gpu-h100"),
    _gcp("growth of zero", swap("upscaling_speed: 1.0", "upscaling_speed: 0"), "upscaling_speed", "use 1.0"),
    _gcp("negative growth", swap("upscaling_speed: 1.0", "upscaling_speed: -1"), "upscaling_speed", "below 0"),
    _aws("min above max", swap("min_workers: 0", "min_workers: 2", after="gpu-h100:"), f"{H100}.min_workers", "larger than max_workers 1"),
    _aws("no limit of the cluster", drop("max_workers: 8"), "max_workers", "Ray's default is 2", elsewhere=True),
)

HEADS = (
    _gcp("head that runs work", swap('{ "CPU": 0 }', '{ "CPU": 4 }'), f"{HEAD}.resources.CPU", '"CPU": 0'),
    _gcp("head without resources", swap('{ "CPU": 0 }', "{}"), f"{HEAD}.resources", "CPU is missing"),
    _gcp("head on Spot", add("      scheduling: { provisioningModel: SPOT }", below="machineType: n2-standard-4"), f"{HEAD}.node_config.scheduling.provisioningModel", "Spot"),
    _gcp("preemptible head", add("      scheduling: { preemptible: true }", below="machineType: n2-standard-4"), f"{HEAD}.node_config.scheduling.preemptible", "Spot"),
    _gcp("head with a GPU", both(swap('{ "CPU": 0 }', '{ "CPU": 0, "GPU": 1, "accelerator_type:L4": 1 }'), swap("n2-standard-4", "g2-standard-4\n      scheduling: { onHostMaintenance: TERMINATE }")), f"{HEAD}.resources.GPU", "billed for its GPU"),
    _gcp("head misspelled", swap("head_node_type: head", "head_node_type: haed"), "head_node_type", '"head"'),
    _gcp("head forgotten", drop("head_node_type: head"), "head_node_type", "", elsewhere=True),
    _aws("head on Spot", add("      InstanceMarketOptions: { MarketType: spot }", below="InstanceType: m7i.xlarge"), f"{HEAD}.node_config.InstanceMarketOptions.MarketType", "Spot"),
    _aws("head that runs work", swap('{ "CPU": 0 }', '{ "CPU": 4 }'), f"{HEAD}.resources.CPU", '"CPU": 0'),
)

LABELS = (
    _gcp("price with its currency", swap('"3.67"', '"$3.67"'), f"{A100}.labels.kovar.dev/price-per-hour", "dollars"),
    _gcp("price without quotes", swap('"3.67"', "3.67"), f"{A100}.labels.kovar.dev/price-per-hour", '"3.67"'),
    _gcp("flag without quotes", swap('spot: "false"', "spot: false"), f"{HEAD}.labels.kovar.dev/spot", '"false"'),
    _gcp("flag of another language", swap('spot: "false"', 'spot: "no"'), f"{HEAD}.labels.kovar.dev/spot", '"true", "false"'),
    _gcp("label of Kovar misspelled", swap("kovar.dev/price-per-hour", "kovar.dev/price-per-hr"), f"{HEAD}.labels.kovar.dev/price-per-hr", "kovar.dev/price-per-hour"),
    _gcp("memory of a GPU without its unit", add('      kovar.dev/gpu-memory: "24"', below='price-per-hour: "0.85"'), f"{L4}.labels.kovar.dev/gpu-memory", "GiB"),
    _gcp("disk with a space for its unit", add('      kovar.dev/disk: "200 gigs"', below='price-per-hour: "0.85"'), f"{L4}.labels.kovar.dev/disk", "size"),
    _gcp("Spot machine labelled on demand", swap("{ onHostMaintenance: TERMINATE }", "{ onHostMaintenance: TERMINATE, provisioningModel: SPOT }", after="gpu-l4:"), f"{L4}.labels.kovar.dev/spot", "a Spot machine", elsewhere=True),
    _gcp("on-demand machine labelled Spot", swap('spot: "false"', 'spot: "true"', after="gpu-l4:"), f"{L4}.labels.kovar.dev/spot", "an on-demand machine"),
    _gcp("label that Ray sets", add('      ray.io/tpu-worker-id: "0"', below='price-per-hour: "9.60"'), f"{V5E}.labels.ray.io/tpu-worker-id", "Ray's own"),
    _gcp("accelerator label of another chip", add("      ray.io/accelerator-type: A100", below='price-per-hour: "0.85"'), f"{L4}.labels.ray.io/accelerator-type", "resources say L4"),
    _gcp("label with a space", add('      team: "computer vision"', below='price-per-hour: "0.85"'), f"{L4}.labels.team", "Ray refuses"),
    _gcp("label that is a selector", add('      team: "!vision"', below='price-per-hour: "0.85"'), f"{L4}.labels.team", "operators"),
    _aws("Spot machine labelled on demand", add("      InstanceMarketOptions: { MarketType: spot }", below="InstanceType: g6.2xlarge"), f"{L4}.labels.kovar.dev/spot", "a Spot machine", elsewhere=True),
)

EXPOSURE = (
    _gcp("dashboard on every address", swap("--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0"), "head_start_ray_commands[1]", "listen on every address"),
    _gcp("dashboard on every IPv6 address", swap("--dashboard-host=127.0.0.1", "--dashboard-host ::"), "head_start_ray_commands[1]", "listen on every address"),
    _gcp("start of the head left to Ray", both(*[drop(line, after="head_start_ray_commands:") for line in ("- ray stop", "- >-", "ulimit", *["export"] * 8, "ray start", "--dashboard-host")], drop("head_start_ray_commands:")), "head_start_ray_commands", "Ray's default", elsewhere=True),
    _gcp("firewall opened by a command", add("  - gcloud compute firewall-rules create ray --allow tcp:8265 --source-ranges 0.0.0.0/0", below="head_setup_commands:"), "head_setup_commands[0]", "port 8265"),
    _gcp("tokens turned off", swap("RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled", after="initialization_commands:"), "initialization_commands[1]", "need no token"),
    _gcp("token not copied", drop('"~/.ray/auth_token"'), "file_mounts", "no node gets it", elsewhere=True),
    _aws("dashboard on every address", swap("--dashboard-host=127.0.0.1", '--dashboard-host="0.0.0.0"'), "head_start_ray_commands[1]", "listen on every address"),
    _aws("dashboard port for the world", add("    IpPermissions:\n      - { IpProtocol: tcp, FromPort: 8265, ToPort: 8265, IpRanges: [{ CidrIp: 0.0.0.0/0 }] }", below="GroupName: kovar"), "provider.security_group.IpPermissions[0]", "port 8265", elsewhere=True),
    _aws("every port for the world", add("    IpPermissions:\n      - { IpProtocol: '-1', FromPort: -1, ToPort: -1, IpRanges: [{ CidrIp: 0.0.0.0/0 }] }", below="GroupName: kovar"), "provider.security_group.IpPermissions[0]", "whole Internet", elsewhere=True),
    _aws("client port for the IPv6 world", add("    IpPermissions:\n      - { IpProtocol: tcp, FromPort: 10000, ToPort: 10999, Ipv6Ranges: [{ CidrIpv6: '::/0' }] }", below="GroupName: kovar"), "provider.security_group.IpPermissions[0]", "port 10001", elsewhere=True),
    _aws("access key in a command", add("  - export AWS_ACCESS_KEY_ID=AKIA" + "ABCDEFGHIJKLMNOP", below="setup_commands:"), "setup_commands[0]", "AWS access key"),
    _aws("secret key in a command", add("  - export AWS_SECRET_ACCESS_KEY=" + "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLE0KEY1", below="setup_commands:"), "setup_commands[0]", "a secret"),
    _gcp("Hugging Face token in a command", add("  - huggingface-cli login --token hf_" + "a1B2c3D4e5F6g7H8i9J0k1L2", below="setup_commands:"), "setup_commands[0]", "Hugging Face"),
    _gcp("database password in a URL", swap("sqlite:///$HOME/kovar-registry.db", "postgresql+psycopg://kovar:hunter2@10.0.0.5/kovar"), "head_start_ray_commands[1]", "password in a URL"),
)

STARTING = (
    _gcp("no Kovar", swap("==2.60.0\" ~/kovar\n", "==2.60.0\"\n"), "setup_commands", "installs Kovar", elsewhere=True),
    _gcp("no setup at all", swap("setup_commands:\n  - sudo", "worker_setup_commands:\n  - sudo"), "head_setup_commands", "the head does not install Kovar", elsewhere=True),
    _gcp("a type's own commands without Kovar", add("    worker_setup_commands: [echo ready]", below="gpu-l4:"), f"{L4}.worker_setup_commands", "do not install Kovar"),
    _gcp("another Ray", swap("==2.60.0", "==2.53.0"), "setup_commands[5]", "Ray 2.53.0"),
    _gcp("nightly Ray", swap('"ray[default,serve,train,tune]==2.60.0"', "https://s3-us-west-2.amazonaws.com/ray-wheels/latest/ray-3.0.0.dev0-cp311-cp311-manylinux2014_x86_64.whl"), "setup_commands[5]", "3.0.0.dev0"),
    _gcp("newest Ray", add('  - pip install -U "ray[default]"', below="head_setup_commands:"), "head_setup_commands[0]", "newest"),
    _gcp("old Python", swap("--python 3.11", "--python 3.9"), "setup_commands[4]", "Python 3.9"),
    _gcp("no client of the cloud", swap("constraints.txt google-api-python-client", "constraints.txt google-auth"), "head_setup_commands", "google-api-python-client", elsewhere=True),
    _aws("client of the cloud forgotten", swap("constraints.txt boto3", "constraints.txt awscli"), "head_setup_commands", "boto3", elsewhere=True),
    _gcp("no autoscaling", swap(" --autoscaling-config=~/ray_bootstrap_config.yaml", ""), "head_start_ray_commands[1]", "never starts a worker", elsewhere=True),
    _gcp("autoscaling from another file", swap("~/ray_bootstrap_config.yaml", "~/cluster.yaml"), "head_start_ray_commands[1]", "not to ~/cluster.yaml"),
    _gcp("head not started", swap("ray start --head", "ray start"), "head_start_ray_commands", "no command starts the head", elsewhere=True),
    _gcp("workers join another port", swap("$RAY_HEAD_IP:6379", "$RAY_HEAD_IP:6380"), "worker_start_ray_commands[1]", "listens on 6379"),
    _gcp("head moved to another port", swap("--port=6379", "--port=6380"), "worker_start_ray_commands[1]", "listens on 6380", elsewhere=True),
    _gcp("workers join an address by hand", swap("$RAY_HEAD_IP:6379", "10.128.0.2:6379"), "worker_start_ray_commands[1]", "$RAY_HEAD_IP"),
    _gcp("workers are heads", swap("ray start --address=$RAY_HEAD_IP:6379", "ray start --head"), "worker_start_ray_commands[1]", "cluster of its own"),
    _gcp("workers without the shared folder", swap("export KOVAR_HOME=/mnt/kovar KOVAR_DATABASE_URL", "export KOVAR_DATABASE_URL", after="worker_start_ray_commands:"), "worker_start_ray_commands[1]", "share no runs", elsewhere=True),
    _gcp("shared folder elsewhere", swap("KOVAR_HOME=/mnt/kovar", "KOVAR_HOME=/mnt/kovar2"), "worker_start_ray_commands[1]", "share no runs", elsewhere=True),
    _gcp("database on the shared folder", swap("sqlite:///$HOME/", "sqlite:////mnt/kovar/"), "head_start_ray_commands[1]", "loses writes"),
    _gcp("first autoscaler", swap("ray start --head", "RAY_enable_autoscaler_v2=0 ray start --head"), "head_start_ray_commands[1]", "label selectors"),
    _gcp("file that is not there", swap('"platform"', '"platfrom"'), "file_mounts.~/kovar/platform", '"platform"'),
    _aws("folder that is not there", swap('"jobs"', '"scripts"'), "file_mounts.~/kovar/jobs", "no scripts"),
    _aws("key without its name in EC2", add("  ssh_private_key: ~/.ssh/kovar.pem", below="ssh_user: ubuntu"), f"{HEAD}.node_config", "KeyName", elsewhere=True),
    _aws("private key elsewhere", add("  ssh_private_key: /nowhere/kovar.pem", below="ssh_user: ubuntu"), "auth.ssh_private_key", "no private key"),
)

IMAGE = "docker:\n  container_name: ray\n  image: {}\n\nauth:"

IMAGES = (
    _gcp("newest image", swap("auth:", IMAGE.format("rayproject/ray:latest")), "docker.image", "2.60.0", elsewhere=True),
    _gcp("nightly image", swap("auth:", IMAGE.format("rayproject/ray:nightly-py311-gpu")), "docker.image", "another day", elsewhere=True),
    _gcp("image without a tag", swap("auth:", IMAGE.format("rayproject/ray-ml")), "docker.image", "has no tag", elsewhere=True),
    _gcp("image of another Ray", swap("auth:", IMAGE.format("rayproject/ray:2.53.0-py311-gpu")), "docker.image", "Ray 2.53.0", elsewhere=True),
    _gcp("image of an old Python", swap("auth:", IMAGE.format("rayproject/ray:2.60.0-py39-gpu")), "docker.image", "Python 3.9", elsewhere=True),
    _aws("own image without a tag", swap("auth:", IMAGE.format("registry.example.com/team/trainer")), "docker.image", "has no tag", elsewhere=True),
    _aws("image without CUDA for GPUs", swap("auth:", IMAGE.format("rayproject/ray:2.60.0-py311")), "docker.image", "no CUDA", elsewhere=True),
    _aws("port of the container published", swap("auth:", IMAGE.format("rayproject/ray:2.60.0-py311-gpu").replace("  container", "  run_options: ['-p 8265:8265']\n  container")), "docker.run_options[0]", "published", elsewhere=True),
)

SCHEMA = (
    _gcp("key misspelled", swap("idle_timeout_minutes", "idle_timeout_mins"), "idle_timeout_mins", "idle_timeout_minutes"),
    _gcp("key of a node type misspelled", swap("min_workers: 0", "min_worker: 0", after="gpu-l4:"), f"{L4}.min_worker", "min_workers"),
    _gcp("commands as one text", swap("head_setup_commands:\n  - >-", "head_setup_commands: >-"), "head_setup_commands", "a list", elsewhere=True),
    _gcp("name of the cluster forgotten", drop("cluster_name: kovar"), "cluster_name", "requires this key", elsewhere=True),
    _gcp("provider forgotten", both(drop("type: gcp")), "provider.type", "requires this key", elsewhere=True),
    _gcp("settings of the machine forgotten", swap("    node_config:", "    config:", after="  cpu:"), f"{CPU}.node_config", "requires this key", elsewhere=True),
    _gcp("settings of old Ray", add("head_node: {}", below="cluster_name: kovar"), "head_node", "unknown key"),
    _gcp("node type given twice", add("  head:\n    resources: {CPU: 0}\n    node_config: {}", below="  cpu:", after="available_node_types"), f"{TYPES}.head", "twice", elsewhere=True),
    _gcp("node types under another key", swap("available_node_types:", "node_types:"), "node_types", "unknown key"),
    _aws("tabs for indentation", swap("  ssh_user", "\tssh_user"), "", "not valid YAML"),
    _aws("alias misspelled", swap("*ubuntu", "*ubunto"), "", "not valid YAML"),
    _aws("key of the provider's group misspelled", swap("GroupName: kovar", "Name: kovar"), "provider.security_group.Name", "unknown key"),
)

PROVIDER = (
    _gcp("provider misspelled", swap("type: gcp", "type: gpc"), "provider.type", '"gcp"'),
    _gcp("provider by its full name", swap("type: gcp", "type: google"), "provider.type", "no provider"),
    _gcp("no zone", drop("availability_zone:"), "provider.availability_zone", "needs the availability zone", elsewhere=True),
    _gcp("region for a zone", swap("availability_zone: us-central1-a", "availability_zone: us-central1"), "provider.availability_zone", "is a region"),
    _gcp("capitals in the name", swap("cluster_name: kovar", "cluster_name: Kovar_Prod"), "cluster_name", "lower-case"),
    _gcp("disk with a unit", swap("diskSizeGb: 100", "diskSizeGb: 100GB"), f"{HEAD}.node_config.disks[0].initializeParams.diskSizeGb", "number of GB"),
    _gcp("image without a driver", swap("projects/deeplearning-platform-release/global/images/family/common-cu128-ubuntu-2204-nvidia-570", "projects/ubuntu-os-cloud/global/images/family/ubuntu-2204-lts"), f"{L4}.node_config.disks[0].initializeParams.sourceImage", "no NVIDIA driver"),
    _aws("no region", drop("region: us-west-2\n"), "provider.region", "needs the region", elsewhere=True),
    _aws("Google's spelling of the region", swap("region: us-west-2\n", "region: us-west2\n"), "provider.availability_zone", "not in region us-west2", elsewhere=True),
    _aws("disk with a unit", swap("VolumeSize: 500", "VolumeSize: 500GiB"), f"{A100}.node_config.BlockDeviceMappings[0].Ebs.VolumeSize", "number of GB"),
    _gcp("file server never mounted", drop("mountpoint -q"), "head_start_ray_commands[1]", "mounts /mnt/kovar", elsewhere=True),
    _gcp("file server mounted elsewhere", swap("sudo mkdir -p /mnt/kovar && (mountpoint -q /mnt/kovar || sudo mount -t nfs FILE-SERVER:/kovar /mnt/kovar) && sudo chown ubuntu /mnt/kovar", "sudo mkdir -p /mnt/nfs && (mountpoint -q /mnt/nfs || sudo mount -t nfs FILE-SERVER:/kovar /mnt/nfs)"), "head_start_ray_commands[1]", "mounts /mnt/kovar", elsewhere=True),
    _gcp("start of the workers left to Ray", both(*[drop(line, after="worker_start_ray_commands:") for line in ("- ray stop", "- >-", "ulimit", "export", "ray start")], drop("worker_start_ray_commands:")), "worker_start_ray_commands", "Ray's default", elsewhere=True),
    _gcp("library not copied", drop('"~/kovar/platform"'), "setup_commands[5]", "~/kovar/platform", elsewhere=True),
    _gcp("constraints not copied", drop('"~/kovar/constraints.txt"'), "setup_commands[5]", "~/kovar/constraints.txt", elsewhere=True),
    _aws("container without a name", swap("auth:", "docker:\n  image: rayproject/ray:2.60.0-py311-gpu\n\nauth:"), "docker.container_name", "refuses an image", elsewhere=True),
)

FAULTS = (
    *MACHINES, *TPUS, *NAMES, *LIMITS, *HEADS, *LABELS, *EXPOSURE, *STARTING, *IMAGES, *SCHEMA,
    *PROVIDER,
)
