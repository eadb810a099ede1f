"""Mistakes in specs of jobs, sweeps and endpoints, which `kovar plan` has to notice."""

# One fault a line reads best, however long the line is.
# ruff: noqa: E501
# fmt: off

from __future__ import annotations

from faults.fault import Edit, Fault, add, both, drop, swap

JOB = "jobs/movie-sentiment.yaml"
SWEEP = "tune/tiny-lr-precision.yaml"
SERVE = "serve/movie-sentiment.yaml"
ADAPTERS = "serve/movie-adapters.yaml"
ARGS = "applications[0].args"


def _job(name: str, edit: Edit, field: str, says: str, *, elsewhere: bool = False) -> Fault:
    return Fault(f"job: {name}", JOB, edit, field, says, "plan", elsewhere)


def _placed(name: str, worker: str, field: str, says: str, number: str = "2") -> Fault:
    """A job that asks the cluster for hardware that it does not have."""
    edit = both(
        swap("worker: {kind: cpu, cpus: 1}", f"worker: {worker}"),
        swap("num_workers: 2", f"num_workers: {number}"),
    )
    return Fault(f"cluster: {name}", JOB, edit, field, says, "plan on the cluster", elsewhere=True)


def _sweep(name: str, edit: Edit, field: str, says: str, *, elsewhere: bool = False) -> Fault:
    return Fault(f"sweep: {name}", SWEEP, edit, field, says, "plan", elsewhere)


def _serve(name: str, edit: Edit, field: str, says: str, *, elsewhere: bool = False) -> Fault:
    return Fault(f"endpoint: {name}", SERVE, edit, field, says, "plan", elsewhere)


def _adapters(name: str, edit: Edit, field: str, says: str, *, elsewhere: bool = False) -> Fault:
    return Fault(f"adapters: {name}", ADAPTERS, edit, field, says, "plan", elsewhere)


WORKER = "worker: {kind: cpu, cpus: 1}"

FAULTS = (
    _job("learning rate misspelled", swap("learning_rate", "learning_rte"), "training.learning_rte", "learning_rate"),
    _job("kind misspelled", swap("kind: finetune", "kind: fine-tune"), "kind", "finetune"),
    _job("kind forgotten", drop("kind: finetune"), "kind", "finetune", elsewhere=True),
    _job("learning rate in quotes", swap("1.0e-4", '"1.0e-4"'), "training.learning_rate", "'1.0e-4'"),
    _job("learning rate without its minus", swap("1.0e-4", "1.0e4"), "training.learning_rate", "less than or equal to 1"),
    _job("learning rate of zero", swap("1.0e-4", "0"), "training.learning_rate", "greater than 0"),
    _job("half an epoch", swap("epochs: 1", "epochs: 0.5"), "training.epochs", "integer"),
    _job("no epochs", swap("epochs: 1", "epochs: 0"), "training.epochs", "greater than or equal to 1"),
    _job("warm-up in percent", swap("warmup: 0.06", "warmup: 6%"), "training.warmup", "valid"),
    _job("schedule of another library", swap("schedule: linear", "schedule: linear_with_warmup"), "training.schedule", "linear"),
    _job("negative weight decay", swap("weight_decay: 0.01", "weight_decay: -0.01"), "training.weight_decay", "greater than or equal to 0"),
    _job("batch size of another library", swap("max_tokens: 1664", "batch_size: 32"), "training.batch_size", "unknown key"),
    _job("precision of PyTorch", swap("precision: auto", "precision: bfloat16"), "precision", "bf16"),
    _job("precision as a number", swap("precision: auto", "precision: 16"), "precision", "bf16"),
    _job("indented one level too far", swap("  epochs: 1", "    epochs: 1"), "", "not valid YAML", elsewhere=True),
    _job("tabs for indentation", swap("  epochs: 1", "\tepochs: 1"), "", "not valid YAML"),
    _job("brace not closed", swap("{kind: cpu, cpus: 1}", "{kind: cpu, cpus: 1"), "", "not valid YAML", elsewhere=True),
    _job("key given twice", add("  epochs: 3", below="  seed: 0"), "training.epochs", "twice"),
    _job("space after a colon missing", swap("epochs: 1", "epochs:1"), "", "not valid YAML", elsewhere=True),
    _job("model block forgotten", both(drop("model:"), drop("  base: package")), "model", "required", elsewhere=True),
    _job("source forgotten", drop("source: package"), "data.source", "required", elsewhere=True),
    _job("settings one level too high", swap("  evaluation: 1605", "evaluation: 1605"), "", "", elsewhere=True),
    _job("evaluation in percent", swap("evaluation: 1605", "evaluation: 15%"), "data.evaluation", "share"),
    _job("evaluation share above one", swap("evaluation: 1605", "evaluation: 1.5"), "data.evaluation", "between 0 and 1"),
    _job("length beyond any model", swap("max_length: 64", "max_length: 100000"), "data.max_length", "8192"),
    _job("negative seed", swap("  seed: 0", "  seed: -1"), "training.seed", "greater than or equal to 0"),
    _job("name with spaces", swap("name: movie-sentiment", "name: movie sentiment"), "name", ""),
    _job("number for a name", swap("name: movie-sentiment", "name: 123"), "name", ""),
    _job("alias with a slash", swap("alias: champion", "alias: prod/champion"), "registration.alias", ""),
    _job("workers in quotes", swap("num_workers: 2", 'num_workers: "2"'), "resources.num_workers", "whole number"),
    _job("no workers", swap("num_workers: 2", "num_workers: 0"), "resources.num_workers", "from 1"),
    _job("range the wrong way round", swap("num_workers: 2", "num_workers: {min: 4, max: 2}"), "resources.num_workers.max", "at least min"),
    _job("kind of worker forgotten", swap("{kind: cpu, cpus: 1}", "{cpus: 1}"), "resources.worker", "kind"),
    _job("kind of worker in capitals", swap("{kind: cpu", "{kind: CPU"), "resources.worker", "cpu"),
    _job("CPU misspelled", swap("cpus: 1}", "cpu: 1}"), "resources.worker.cpu", "cpus"),
    _job("GPUs of a CPU worker", swap("cpus: 1}", "cpus: 1, count: 1}"), "resources.worker.count", "unknown key"),
    _job("memory without a unit letter", swap("cpus: 1}", "cpus: 1, memory: 4G}"), "resources.worker.memory", "4GiB"),
    _job("GPU name of NVIDIA", swap(WORKER, "worker: {kind: gpu, type: nvidia-l4}"), "resources.worker.type", "'L4'"),
    _job("one and a half GPUs", swap(WORKER, "worker: {kind: gpu, count: 1.5}"), "resources.worker.count", "whole"),
    _job("count and memory of a GPU", swap(WORKER, "worker: {kind: gpu, count: 2, gpu_memory: 8GiB}"), "resources.worker", "not both", elsewhere=True),
    _job("topology of another TPU", swap(WORKER, "worker: {kind: tpu, type: v5e, topology: 2x2x2}"), "resources.worker.topology", "no such topology"),
    _job("too few workers for a slice", swap(WORKER, "worker: {kind: tpu, type: v6e, topology: 4x4}"), "resources.num_workers", "hosts", elsewhere=True),
    _job("TPU without a topology", swap(WORKER, "worker: {kind: tpu, type: v5e}"), "resources.worker.topology", "required"),
    _job("label selector with a comma", swap("cpus: 1}", 'cpus: 1, labels: {team: "a,b"}}'), "resources.worker.labels", "selector"),
    _job("unknown placement", add("  placement: packed", below="num_workers: 2"), "resources.placement", "pack"),
    _job("failures below zero", swap("max_failures: 3", "max_failures: -1"), "max_failures", "greater than or equal to 0"),
    _job("GPU that this machine lacks", swap(WORKER, "worker: {kind: gpu, type: H100}"), "resources.worker.type", "H100", elsewhere=True),
    _placed("more CPUs than any node has", "{kind: cpu, cpus: 400}", "resources.worker.cpus", "400"),
    _placed("more workers than nodes", "{kind: cpu, cpus: 8}", "resources.num_workers", "at most", "100"),
    _placed("more A100 than the cluster has", "{kind: gpu, type: A100}", "resources.num_workers", "max_workers", "4"),
    _placed("four A100 in one worker", "{kind: gpu, type: A100, count: 4}", "resources.worker.count", "the node type that comes nearest, gpu-a100, has 1", "1"),
    _placed("GPU that the cluster lacks", "{kind: gpu, type: B200}", "resources.worker.type", "B200"),
    _placed("TPU of a zone elsewhere", "{kind: tpu, type: v6e, topology: 2x4}", "resources.num_workers", "raise tpu-v6e.max_workers from 0 to 1", "1"),
    _placed("more memory than any node has", "{kind: cpu, cpus: 1, memory: 4TiB}", "resources.worker.memory", "at most"),
    _placed("label that no node has", "{kind: cpu, labels: {team: vision}}", "resources.worker.labels.team", "team"),
    _placed("resource that no node has", "{kind: cpu, custom_resources: {FPGA: 1}}", "resources.worker.custom_resources.FPGA", "FPGA"),
    _placed("more disk than any node has", "{kind: cpu, disk: 10TB}", "resources.worker.disk", "disk"),
    _placed("older GPU than the cluster has", "{kind: gpu, type: T4}", "resources.worker.type", "type: L4"),
    _placed("training on a TPU", "{kind: tpu, type: v5e, topology: 2x4}", "resources.worker.kind", "does not train on TPUs", "1"),
    _sweep("base file elsewhere", swap("../jobs/tiny-sentiment.yaml", "jobs/tiny-sentiment.yaml"), "base", ""),
    _sweep("base file misspelled", swap("tiny-sentiment.yaml", "tiny-sentimnet.yaml"), "base", "no such file"),
    _sweep("field that the base lacks", swap("training.learning_rate", "training.lr"), "search.training.lr", "unknown key"),
    _sweep("field without its block", swap("training.learning_rate", "learning_rate"), "search.learning_rate", "unknown key"),
    _sweep("kind of search misspelled", swap("{kind: grid", "{kind: gird"), "search.training.learning_rate", "grid"),
    _sweep("empty grid", swap("[5.0e-5, 2.0e-4]", "[]"), "search.training.learning_rate.values", "at least 1"),
    _sweep("value that the field refuses", swap("[fp32, bf16]", "[fp32, bf61]"), "search.precision", "bf16"),
    _sweep("learning rates the wrong way round", swap("{kind: grid, values: [5.0e-5, 2.0e-4]}", "{kind: loguniform, low: 1.0e-3, high: 1.0e-5}"), "search.training.learning_rate.high", "above low"),
    _sweep("logarithm of zero", swap("{kind: grid, values: [5.0e-5, 2.0e-4]}", "{kind: loguniform, low: 0, high: 1.0e-3}"), "search.training.learning_rate.low", "greater than 0"),
    _sweep("metric that is not computed", swap("metric: accuracy", "metric: f1"), "metric", "macro_f1"),
    _sweep("smaller is better", swap("mode: max", "mode: min"), "mode", "max"),
    _sweep("no samples", swap("num_samples: 1", "num_samples: 0"), "num_samples", "greater than or equal to 1"),
    _sweep("nothing to search", both(drop("training.learning_rate"), drop("precision:")), "search", "", elsewhere=True),
    _sweep("searcher misspelled", swap("seed: 0", "searcher: random_search"), "searcher", "quasi_random"),
    _sweep("scheduler misspelled", swap("seed: 0", "scheduler: {kind: ahsa}"), "scheduler", "asha"),
    _sweep("field of another scheduler", swap("seed: 0", "scheduler: {kind: median, brackets: 2}"), "scheduler.brackets", "min_trials"),
    _sweep("samples of a grid", swap("num_samples: 1", "num_samples: 4"), "num_samples", "seeds"),
    _sweep("condition on a field that does not vary", swap("values: [fp32, bf16]}", "values: [fp32, bf16], when: {task: x}}"), "search.precision.when.task", "training.learning_rate"),
    _sweep("money without prices", swap("seed: 0", "budget: {cost: 5}"), "budget.cost", "price-per-hour"),
    _sweep("earlier sweep that is not there", swap("num_samples: 1", "num_samples: 9\nwarm_start: ../runs/earlier\nsearcher: tpe"), "num_samples", ""),
    _sweep("samples misspelled", swap("num_samples", "n_samples"), "n_samples", "num_samples"),
    _serve("model forgotten", drop("model: movie-sentiment"), f"{ARGS}.model", "required", elsewhere=True),
    _serve("replicas the wrong way round", both(swap("min: 1", "min: 3")), f"{ARGS}.num_replicas.max", "at least min", elsewhere=True),
    _serve("replicas misspelled", swap("num_replicas:", "replicas:"), f"{ARGS}.replicas", "num_replicas"),
    _serve("serving on TPU", swap("kind: cpu\n        cpus: 1", "kind: tpu\n        type: v5e\n        topology: 2x4"), f"{ARGS}.replica", "no runtime uses TPUs", elsewhere=True),
    _serve("unknown runtime", swap("runtime: auto", "runtime: tensorrt"), f"{ARGS}.runtime", "torch"),
    _serve("body without a unit letter", swap("4MiB", "4M"), f"{ARGS}.limits.max_body_bytes", "4GiB"),
    _serve("queue shorter than a request", swap("max_queued: 512", "max_queued: 100"), f"{ARGS}.limits", "never fits", elsewhere=True),
    _serve("timeout of zero", swap("request_timeout_s: 30", "request_timeout_s: 0"), f"{ARGS}.limits.request_timeout_s", "greater than 0"),
    _serve("GPU that this machine lacks", swap("kind: cpu\n        cpus: 1", "kind: gpu\n        type: L4"), f"{ARGS}.replica.type", "L4", elsewhere=True),
    _serve("applications not a list", swap("  - name: movie-sentiment", "    name: movie-sentiment"), "applications", "list", elsewhere=True),
    _adapters("none named", both(drop("- model: movie-sentiment-*"), drop("version: champion", after="models:")), f"{ARGS}.adapters.models", "array", elsewhere=True),
    _adapters("names without their key", both(swap("- model: movie-sentiment-* #", "- movie-sentiment-* #"), drop("version: champion", after="models:")), f"{ARGS}.adapters.models[0]", "movie-sentiment-*", elsewhere=True),
    _adapters("room misspelled", swap("max_loaded:", "max_loded:"), f"{ARGS}.adapters.max_loded", "max_loaded"),
    _adapters("room for none", swap("max_loaded: 32", "max_loaded: 0"), f"{ARGS}.adapters.max_loaded", "greater than or equal to 1"),
    _adapters("more preloaded than there is room", both(swap("max_loaded: 32", "max_loaded: 1"), swap("preload: []", "preload: [a, b]")), f"{ARGS}.adapters", "preload names 2 adapters", elsewhere=True),
    _adapters("base that is no version", swap("base: null", "base: []"), f"{ARGS}.adapters.base", "string"),
    _adapters("executed by ONNX Runtime", swap("runtime: torch", "runtime: onnx"), ARGS, "adapters are computed by torch", elsewhere=True),
    _adapters("in int8", both(swap("runtime: torch", "runtime: auto"), swap("precision: auto", "precision: int8")), ARGS, "no int8", elsewhere=True),
    _adapters("compiled", swap("runtime: torch", "runtime: torch\n      compile: true"), ARGS, "would compile each adapter", elsewhere=True),
    _serve("more batches at a time than threads", swap("max_rows: 64", "parallel: 2"), ARGS, "need as many threads", elsewhere=True),
    _serve("batches at a time of a compiled model", both(swap("max_rows: 64", "parallel: 2"), swap("runtime: auto", "runtime: torch\n      compile: true")), ARGS, "one batch at a time", elsewhere=True),
    _serve("batching misspelled", swap("batching:", "batch:"), f"{ARGS}.batch", "batching"),
)
