"""Sweeps with Kovar against Ray's documented pattern, and against Ray Tune alone, interleaved.

usage: python benchmarks/sweeps.py [--rows 1000] [--rates 8] [--blocks 2] [--part NAME …]

Prints a table and writes benchmarks/results/sweeps.json; with --part, the other parts keep what an
earlier run wrote. Each sweep is a process with a Ray of its own, one after the other; the two sides
take turns.

- sweep: learning rates × (fp32, bf16) of jobs/movie-sentiment.yaml on so many of its training rows,
  as many trials at a time as there are CPUs, one thread each. Ray's side is a TorchTrainer for each
  trial inside Tune, each of which tokenizes the rows and loads the model, with the Hugging Face
  Trainer in it. Its wall time ends with the last trial; Kovar's includes its report. Memory is the
  largest sum of the proportional set sizes (PSS) of the process and all its descendants, looked at
  every two seconds. A trial's overhead is its time without optimizer steps and evaluations.
- trivial: trials that do nothing, against the same on Ray Tune alone with reused actors.
- sharing: memory of four processes that hold the same base with all its weights frozen but the
  head's, after a pass through it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results" / "sweeps.json"
CONTENDER = Path(__file__).with_name("sweeps_contender.py")
RECIPE = Path(__file__).parents[1] / "jobs" / "movie-sentiment.yaml"
PARTS = ("sweep", "trivial", "sharing")
PRECISIONS = ("fp32", "bf16")
MiB = 1 << 20
EVERY_S = 2.0
NUM_SHARING = 4


def descendants(root: int) -> Iterator[int]:
    """Yield a process and all below it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(folder.name))
    waiting = [root]
    while waiting:
        process = waiting.pop()
        yield process
        waiting += children.get(process, [])


def pss_bytes(processes: Iterator[int]) -> int:
    """Return the sum of proportional set sizes: shared pages are divided among those that share."""
    total = 0
    for process in processes:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has just ended
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024


class Contender:
    """A process that runs one sweep."""

    def __init__(self, kind: str, folder: Path, options: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        home = {"KOVAR_HOME": str(folder / "home"), "KOVAR_CACHE_DIR": str(_cache())}
        self.process = subprocess.Popen(
            [sys.executable, str(CONTENDER), kind, str(folder), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "stderr.txt").open("w"),
            text=True,
            env={**os.environ, **home, "TOKENIZERS_PARALLELISM": "false"},
        )
        self.peak, self._errors = 0, folder / "stderr.txt"
        self._done = threading.Event()

    def run(self) -> dict[str, Any]:
        """Wait until Ray runs, then run the sweep; return what it says, with its memory."""
        assert self.process.stdin
        assert self.process.stdout
        if self.process.stdout.readline().strip() != "ready":
            raise self._ended()
        idle = pss_bytes(descendants(self.process.pid))
        watch = threading.Thread(target=self._watch)
        watch.start()
        self._tell()
        line = self.process.stdout.readline()
        self._done.set()
        watch.join()
        self.process.communicate("\n")
        if not line:
            raise self._ended()
        return {**json.loads(line), "peak_bytes": self.peak, "idle_bytes": idle}

    def _ended(self) -> SystemExit:
        tail = self._errors.read_text(errors="replace")[-2000:]
        return SystemExit(f"a contender ended: {self.process.args}\n{tail}")

    def _tell(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def _watch(self) -> None:
        while not self._done.wait(EVERY_S):
            self.peak = max(self.peak, pss_bytes(descendants(self.process.pid)))


def _cache() -> Path:
    from kovar.settings import load_settings

    return load_settings(os.environ).cache_dir


def write_rows(folder: Path, rows: int, evaluation: int) -> str:
    """Write some rows of the recipe's data for both sides; return the folder of its base model."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    from kovar.config import load_yaml
    from kovar.data.source import load_table
    from kovar.models import resolve_base
    from kovar.training.spec import FineTuneSpec

    spec = load_yaml(RECIPE, FineTuneSpec)
    places: dict[str, Any] = {"cache_dir": _cache(), "base_dir": RECIPE.parent}
    table = load_table(spec.data, **places).table
    chosen = np.random.default_rng(0).permutation(len(table))[: rows + evaluation]
    some = table.take(pa.array(chosen))
    some = some.select([spec.data.text, spec.data.label])
    folder.mkdir(parents=True, exist_ok=True)
    parquet.write_table(some.slice(0, rows), folder / "train.parquet")
    parquet.write_table(some.slice(rows), folder / "evaluation.parquet")
    return str(resolve_base(spec.model, **places).folder)


def write_sweep(folder: Path, search: dict[str, Any], **fields: Any) -> str:
    """Write a sweep over the recipe on the rows of the folder; return the file's name."""
    sweep = {
        "kind": "sweep",
        "name": "benchmark",
        "base": str(RECIPE),
        "overrides": {
            "data.source": str(folder / "train.parquet"),
            "data.evaluation": {"source": str(folder / "evaluation.parquet")},
            "training.evaluate_every": None,
            "resources.num_workers": 1,
            "resources.worker": {"kind": "cpu", "cpus": 1},
        },
        "searcher": "grid",
        "search": search,
        **fields,
    }
    (folder / "sweep.yaml").write_text(json.dumps(sweep, indent=1))
    return "sweep.yaml"


def grid(values: Sequence[Any]) -> dict[str, Any]:
    """Return a dimension of the search."""
    return {"kind": "grid", "values": list(values)}


def sweep(work: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Run both sides block by block; a block has its share of the learning rates."""
    rates = [round(1e-5 * 10 ** (index / 4), 7) for index in range(given.rates)]
    blocks = [rates[number :: given.blocks] for number in range(given.blocks)]
    found: dict[str, list[dict[str, Any]]] = {"kovar": [], "ray": []}
    for number, block in enumerate(blocks):
        for kind in sorted(found, reverse=bool(number % 2)):
            folder = work / f"{kind}-{number}"
            base = write_rows(folder, given.rows, given.rows // 4)
            search = {"training.learning_rate": grid(block), "precision": grid(PRECISIONS)}
            options = {
                "spec": write_sweep(folder, search, max_concurrent=given.concurrent),
                "base": base,
                "precisions": PRECISIONS,
                "learning_rates": block,
                "concurrent": given.concurrent,
                "threads": 1,
            }
            found[kind].append(Contender(kind, folder, options).run())
            say(f"{kind}, block {number + 1}: {found[kind][-1]['seconds']:.1f} s")
    return summary(found, len(rates) * len(PRECISIONS))


def summary(found: dict[str, list[dict[str, Any]]], num_trials: int) -> dict[str, Any]:
    """Add up the blocks and compare the sides."""
    sides = {
        kind: {
            "seconds": sum(one["seconds"] for one in blocks),
            "peak_mib": max(one["peak_bytes"] for one in blocks) / MiB,
            "idle_ray_mib": statistics.mean(one["idle_bytes"] for one in blocks) / MiB,
            "num_failed": sum(one["num_failed"] for one in blocks),
            "best_accuracy": max(one["best"] for one in blocks),
        }
        for kind, blocks in found.items()
    }
    trials = [trial for block in found["kovar"] for trial in block["trials"]]
    warm = [one["overhead_seconds"] for one in trials if not one["is_first_of_process"]]
    first = [one["overhead_seconds"] for one in trials if one["is_first_of_process"]]
    own, other = sides["kovar"], sides["ray"]
    above = [side["peak_mib"] - side["idle_ray_mib"] for side in (own, other)]
    return {
        "num_trials": num_trials,
        **sides,
        "kovar_trials_only_seconds": sum(one["trials_seconds"] for one in found["kovar"]),
        "wall_ratio": own["seconds"] / other["seconds"],
        "memory_ratio": own["peak_mib"] / other["peak_mib"],
        "memory_ratio_above_idle_ray": above[0] / above[1],
        "overhead_seconds_per_trial": statistics.median(warm) if warm else None,
        "overhead_seconds_largest": max(warm, default=None),
        "overhead_seconds_first_of_process": statistics.median(first),
        "trials": trials,
    }


def trivial(work: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Run trials that do nothing on both sides."""
    seconds: dict[str, list[float]] = {"kovar-trivial": [], "ray-trivial": []}
    alone: list[float] = []
    for number in range(given.rounds):
        for kind in sorted(seconds, reverse=bool(number % 2)):
            folder = work / f"{kind}-{number}"
            write_rows(folder, 100, 50)
            search = {"training.seed": grid(range(given.trivial))}
            options = {
                "spec": write_sweep(folder, search, max_concurrent=given.concurrent),
                "trials": given.trivial,
                "concurrent": given.concurrent,
                "threads": 1,
            }
            found = Contender(kind, folder, options).run()
            seconds[kind].append(found["seconds"])
            if kind == "kovar-trivial":
                alone.append(found["trials_seconds"])
            say(f"{kind}: {seconds[kind][-1]:.1f} s")
    medians = {kind: statistics.median(values) for kind, values in seconds.items()}
    return {
        "num_trials": given.trivial,
        "seconds": seconds,
        "trials_seconds": alone,
        "ratio": statistics.median(alone) / medians["ray-trivial"],
        "ratio_with_report": medians["kovar-trivial"] / medians["ray-trivial"],
    }


_SHARER = """
import sys, torch
from kovar.models import build_for_training, check_folder
from pathlib import Path
model = build_for_training(check_folder(Path(sys.argv[1]), source="base"), labels=("a", "b")).model
model.base_model.requires_grad_(False)
ids = torch.randint(1000, 20000, (8, 32))
model(input_ids=ids, labels=torch.zeros(8, dtype=torch.int64)).loss.backward()
print("ready", flush=True)
sys.stdin.readline()
"""


def sharing(work: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Measure what processes that freeze the same base hold of its file, each for itself."""
    base = write_rows(work / "sharing", 8, 8)
    size = (Path(base) / "model.safetensors").stat().st_size
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _SHARER, base],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(NUM_SHARING)
    ]
    for process in started:
        assert process.stdout
        process.stdout.readline()
    maps = [_mapped(process.pid, "model.safetensors") for process in started]
    for process in started:
        process.communicate("\n")
    return {
        "file_mib": size / MiB,
        "num_processes": NUM_SHARING,
        **{
            name: [one.get(name, 0) / 1024 for one in maps]
            for name in ("Rss", "Pss", "Anonymous", "Private_Dirty")
        },
    }


def _mapped(process: int, name: str) -> dict[str, int]:
    """Return the KiB of a process's mappings of a file, by kind."""
    found: dict[str, int] = {}
    inside = False
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        head = line.split()
        if not head[0].endswith(":"):
            inside = line.endswith(name)
        elif inside and len(head) == 3:
            found[head[0][:-1]] = found.get(head[0][:-1], 0) + int(head[1])
    return found


def say(text: str) -> None:
    """Tell what has just been measured."""
    Console(stderr=True).print(text)


FIGURES = (
    ("wall time, Kovar / Ray's pattern", ("sweep", "wall_ratio"), 0.5),
    ("peak memory (PSS), Kovar / Ray's pattern", ("sweep", "memory_ratio"), 0.6),
    ("the same above an idle Ray", ("sweep", "memory_ratio_above_idle_ray"), None),
    ("overhead of a trial, s", ("sweep", "overhead_seconds_per_trial"), 1.0),
    ("of the first in its process, s", ("sweep", "overhead_seconds_first_of_process"), None),
    ("trivial trials, Kovar / Ray Tune", ("trivial", "ratio"), 1.1),
    ("the same with plan, report and pictures", ("trivial", "ratio_with_report"), None),
)


def figures(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold what was measured against its targets."""
    rows = []
    for name, (part, key), target in FIGURES:
        value = found.get(part, {}).get(key)
        if value is not None:
            met = None if target is None else value <= target
            relation = None if target is None else f"<= {target}"
            rows.append({"name": name, "value": value, "target": relation, "met": met})
    return rows


def show(found: dict[str, Any]) -> None:
    """Print the figures with their targets."""
    table = Table("figure", "measured", "target", "met", title="Sweeps")
    for row in found["figures"]:
        met = {True: "yes", False: "no", None: "–"}[row["met"]]
        table.add_row(row["name"], f"{row['value']:.2f}", row["target"] or "–", met)
    Console().print(table)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1000, help="training rows of a trial")
    parser.add_argument(
        "--rates", type=int, default=8, help="learning rates; trials are twice that"
    )
    parser.add_argument("--blocks", type=int, default=2, help="turns that the two sides take")
    parser.add_argument("--trivial", type=int, default=256, help="trials that do nothing")
    parser.add_argument("--rounds", type=int, default=3, help="turns of the trivial trials")
    parser.add_argument(
        "--concurrent", type=int, default=os.cpu_count() or 1, help="trials at a time"
    )
    parser.add_argument("--part", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    parts: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
        "sweep": sweep,
        "trivial": trivial,
        "sharing": sharing,
    }
    found = json.loads(given.output.read_text()) if given.output.exists() else {}
    for part in given.part:
        with tempfile.TemporaryDirectory(prefix="kovar-sweeps-") as work:
            found[part] = parts[part](Path(work), given)
        found["figures"] = figures(found)
        found["made"] = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "cpus": os.cpu_count(),
            "platform": platform.platform(),
            "packages": {name: installed(name) for name in ("ray", "torch", "transformers")},
            "load": os.getloadavg(),
        }
        given.output.parent.mkdir(exist_ok=True)
        given.output.write_text(json.dumps(found, indent=1) + "\n")
    show(found)


if __name__ == "__main__":
    main()
