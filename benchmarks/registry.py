"""The registry against MLflow with SQLite and against copying and hashing, in one run.

usage: python benchmarks/registry.py [--mlflow-python PATH] [--versions 100000] [--repeat 7]

Prints a table and writes benchmarks/results/registry.json. The steps are interleaved: each round
runs every contender once, and each round begins with another one. Before each registration the
dirty pages of the machine are written and the source files leave the page cache, so that every
contender reads the same cold files and none waits for what another one left. MLflow runs in one
process that is asked over a pipe, so that its import and start-up are not counted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kovar.registry import (
    EnvironmentFacts,
    Manifest,
    MetricBound,
    Registry,
    Signature,
    VersionFacts,
)
from kovar.settings import Settings

RESULTS = Path(__file__).parent / "results" / "registry.json"
FLOOR = "floor: copy + SHA-256 + fsync"
LEAN = "mlflow log_artifacts + create_model_version"
SIZE_BYTES = 90 * 10**6
NUM_ADAPTERS = 50
ADAPTER_BYTES = 600_000


class MLflow:
    """One MLflow process with a SQLite store."""

    def __init__(self, python: str, folder: Path) -> None:
        folder.mkdir()
        self.process = subprocess.Popen(
            [python, str(Path(__file__).with_name("registry_mlflow.py")), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.versions = self._read()

    def ask(self, name: str, argument: object = None) -> tuple[float, str]:
        """Return the seconds that a step took in there, and its result."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps([name, argument]) + "\n")
        self.process.stdin.flush()
        answer = self._read()
        return answer["seconds"], answer["value"]

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("MLflow ended; is it installed for --mlflow-python?")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def facts(seed: int) -> VersionFacts:
    """Return facts of the usual size."""
    packages = {f"package-{number}": "1.2.3" for number in range(120)}
    return VersionFacts(
        method="full" if seed % 2 else "lora",
        precision="fp32",
        seed=seed,
        spec={"kind": "finetune", "learning_rate": 5e-5, "seed": seed},
        metrics={"evaluation": {"accuracy": 0.5 + (seed * 7919 % 5000) / 10_000}},
        environment=EnvironmentFacts(python="3.11.9", packages=packages, chip="a CPU"),
        signature=Signature(task="text-classification", labels=("negative", "positive")),
    )


def write_model(folder: Path, size_bytes: int) -> Path:
    """Write a safetensors file of random bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    payload = size_bytes - size_bytes % 4
    entry = {"dtype": "F32", "shape": [payload // 4], "data_offsets": [0, payload]}
    header = json.dumps({"weight": entry}).encode()
    header += b" " * (-len(header) % 8)
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header + os.urandom(payload))
    return folder


def copy_and_hash(folder: Path, target: Path) -> None:
    """Copy each file in one pass with SHA-256, durably: what no registry can undercut."""
    target.mkdir()
    for path in folder.rglob("*"):
        digest = hashlib.sha256()
        with path.open("rb") as source, (target / path.name).open("xb") as copy:
            while chunk := source.read(1 << 20):
                digest.update(chunk)
                copy.write(chunk)
            copy.flush()
            os.fsync(copy.fileno())
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def make_cold(folder: Path) -> None:
    """Write all dirty pages of the machine, and take these files out of the page cache."""
    os.sync()
    for path in folder.rglob("*"):
        with path.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rotated(contenders: Sequence[str], number: int) -> list[str]:
    """Return the contenders in the order of a round."""
    first = number % len(contenders)
    return [*contenders[first:], *contenders[:first]]


def timed(work: Callable[..., object], *arguments: Any, **options: Any) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    work(*arguments, **options)
    return time.perf_counter() - start


def fill(registry: Registry, template: Manifest, num_versions: int, num_models: int) -> float:
    """Add versions of the same files, 1,000 to a transaction; return the seconds."""
    from kovar.registry.index import index_version
    from kovar.registry.queries import ensure_model, model_row
    from kovar.registry.schema import models, versions

    start = time.perf_counter()
    now = datetime.now(UTC)
    per_model = num_versions // num_models
    for first in range(0, num_models, 10):
        with registry._database.writing() as connection:
            for model_number in range(first, min(first + 10, num_models)):
                name = f"model-{model_number:04d}"
                ensure_model(connection, name, now)
                model_id = model_row(connection, name).id
                for number in range(1, per_model + 1):
                    seed = model_number * per_model + number
                    manifest = Manifest.of(facts(seed), list(template.files))
                    row = versions.insert().values(
                        model_id=model_id,
                        number=number,
                        digest=manifest.digest,
                        manifest=manifest.to_bytes().decode(),
                        run_facts="{}",
                        created_at=now,
                        created_by="benchmark",
                        run=f"run-{seed}",
                    )
                    version_id = connection.execute(row.returning(versions.c.id)).scalar_one()
                    index_version(
                        connection,
                        version_id,
                        manifest.model_dump(mode="json"),
                        model=name,
                        run=f"run-{seed}",
                        sweep=None,
                        tags={},
                    )
                here = models.c.id == model_id
                connection.execute(models.update().where(here).values(last_number=per_model))
    return time.perf_counter() - start


def disk_bytes(folder: Path) -> int:
    """Return the length of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def settings_in(folder: Path) -> Settings:
    """Return the places of a new registry."""
    return Settings(
        database_url=f"sqlite:///{folder / 'registry.db'}",
        artifact_root=str(folder / "artifacts"),
        runs_dir=folder / "runs",
        cache_dir=folder / "cache",
    )


def measure_registering(
    work: Path, registry: Registry, mlflow: MLflow | None, repeat: int
) -> dict[str, list[float]]:
    """Time storing the same files, new ones in each round."""
    found: dict[str, list[float]] = {}
    real = mlflow is not None and mlflow.versions["transformers"] is not None
    for number in range(repeat):
        folder = work / "model"
        if mlflow and real:
            folder = Path(mlflow.ask("make", number)[1])
        else:
            write_model(folder, SIZE_BYTES)
        copy = work / f"copy-{number}"
        steps: dict[str, Callable[[], float]] = {
            FLOOR: lambda folder=folder, copy=copy: timed(copy_and_hash, folder, copy),
            "kovar register": lambda folder=folder, number=number: timed(
                registry.register, "bench", folder, facts=facts(number)
            ),
        }
        if mlflow:
            steps[LEAN] = lambda folder=folder: mlflow.ask("register", str(folder))[0]
        if mlflow and real:
            saved = str(work / f"saved-{number}")
            steps["save_pretrained"] = lambda saved=saved: mlflow.ask("save", saved)[0]
            steps["mlflow log_model"] = lambda: mlflow.ask("log_model")[0]
        for name in rotated(list(steps), number):
            make_cold(folder)
            found.setdefault(name, []).append(steps[name]())
            if name == LEAN:
                # MLflow leaves its copy in memory; the others have it on the disk by now.
                durable = found[name][-1] + timed(os.sync)
                found.setdefault(f"{LEAN}, then sync", []).append(durable)
    return found


def measure_moving(
    registry: Registry, mlflow: MLflow | None, repeat: int
) -> dict[str, list[float]]:
    """Time resolving an alias whose files are here, and moving it, in turns."""
    found: dict[str, list[float]] = {}
    registry.set_alias("bench", "champion", 1)
    for number in (1, 2):
        registry.materialize(registry.version("bench", number))
    if mlflow:
        mlflow.ask("promote", "1")
    for number in range(40 * repeat):
        current, to = number % 2 + 1, (number + 1) % 2 + 1
        steps: dict[str, Callable[[], float]] = {
            "kovar resolve cached": lambda: timed(
                lambda: registry.materialize(registry.resolve("bench@champion"))
            ),
            "kovar promote": lambda to=to, current=current: timed(
                registry.promote, "bench", to=to, expected=current, reason="next"
            ),
        }
        if mlflow:
            steps["mlflow resolve cached"] = lambda: mlflow.ask("resolve")[0]
            steps["mlflow promote"] = lambda to=to: mlflow.ask("promote", str(to))[0]
        for name in rotated(list(steps), number):
            found.setdefault(name, []).append(steps[name]())
    return found


def measure_steps(work: Path, mlflow: MLflow | None, repeat: int) -> dict[str, list[float]]:
    """Time register, resolve and promote of all contenders, interleaved."""
    with Registry.open(settings_in(work / "kovar")) as registry:
        registering = measure_registering(work, registry, mlflow, repeat)
        return {**registering, **measure_moving(registry, mlflow, repeat)}


def measure_pages(work: Path, num_versions: int) -> tuple[dict[str, list[float]], float]:
    """Time pages of 50 over many versions; return them and the seconds of filling."""
    found: dict[str, list[float]] = {}
    num_models = max(1, num_versions // 100)
    with Registry.open(settings_in(work / "many")) as registry:
        folder = write_model(work / "small", 1000)
        template = registry.register("seed", folder, facts=facts(0)).manifest
        seconds = fill(registry, template, num_versions, num_models)
        good = MetricBound(metric="accuracy", minimum=0.9)
        for number in range(50):
            name = f"model-{number * 7 % num_models:04d}"
            last = f"{name}@{number % 50 + 40}"
            pages: dict[str, Callable[[], object]] = {
                "page of models": lambda name=name: registry.models(limit=50, after=name),
                "page of versions": lambda name=name: registry.version_summaries(name, before=80),
                "page of a word": lambda last=last: registry.search_summaries("lora", before=last),
                "page of two words": lambda name=name: registry.search_summaries(f"{name} lora"),
                "page of best metric": lambda: registry.search_summaries(metrics=[good]),
                "page of newest": lambda last=last: registry.search_summaries(before=last),
                "page of whole versions": lambda name=name: registry.versions(
                    name, limit=50, before=80
                ),
                "page of a word, whole versions": lambda last=last: registry.search(
                    "lora", before=last
                ),
            }
            for page, ask in pages.items():
                found.setdefault(page, []).append(timed(ask))
    return found, seconds


def measure_storage(work: Path) -> dict[str, float]:
    """Register adapters of one base; return what is stored and what copies would take."""
    with Registry.open(settings_in(work / "adapters")) as registry:
        folder = write_model(work / "base", SIZE_BYTES)
        for number in range(NUM_ADAPTERS):
            write_model(folder / "adapter", ADAPTER_BYTES)
            registry.register("lora", folder, facts=facts(number))
    stored = disk_bytes(work / "adapters" / "artifacts")
    return {
        "stored_bytes": stored,
        "copies_bytes": NUM_ADAPTERS * disk_bytes(folder),
        "adapters_and_base_bytes": SIZE_BYTES + NUM_ADAPTERS * ADAPTER_BYTES,
    }


def quantile(values: list[float], share: float) -> float:
    """Return the value below which this share lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def ratios(
    steps: dict[str, list[float]], pages: dict[str, list[float]], storage: dict[str, float]
) -> list[dict[str, Any]]:
    """Return each figure that has a target: name, value, target, whether it is met."""
    middle = {name: statistics.median(values) for name, values in steps.items()}
    found = [
        (
            "register / floor",
            middle["kovar register"] / middle[FLOOR],
            "≤ 1.5",
            1.5,
        ),
        ("resolve cached, p50 ms", 1000 * middle["kovar resolve cached"], "≤ 1", 1.0),
        (
            "slowest page, p95 ms",
            1000 * max(quantile(values, 0.95) for values in pages.values()),
            "≤ 50",
            50.0,
        ),
        (
            "50 LoRA versions / (base + adapters)",
            storage["stored_bytes"] / storage["adapters_and_base_bytes"],
            "≤ 1.01",
            1.01,
        ),
    ]
    rows = [
        {"name": name, "value": value, "target": target, "met": value <= limit}
        for name, value, target, limit in found
    ]
    compared: list[tuple[str, str, str, float | None]] = [
        ("register: times faster than log_artifacts", LEAN, "kovar register", 3.0),
        ("register: the same, MLflow's copy synced", f"{LEAN}, then sync", "kovar register", None),
        ("save + register: times faster than log_model", "mlflow log_model", "saved", 3.0),
        (
            "resolve cached: times faster than MLflow",
            "mlflow resolve cached",
            "kovar resolve cached",
            20.0,
        ),
        ("promote: times faster than MLflow", "mlflow promote", "kovar promote", None),
    ]
    middle["saved"] = middle.get("save_pretrained", 0.0) + middle["kovar register"]
    for name, theirs, ours, at_least in compared:
        if theirs in middle:
            value = middle[theirs] / middle[ours]
            rows.append(
                {
                    "name": name,
                    "value": value,
                    "target": f"≥ {at_least:.0f}" if at_least else "none set",
                    "met": value >= at_least if at_least else None,
                }
            )
    return rows


def cpu_name() -> str:
    """Return the name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def find_mlflow(python: str | None) -> str | None:
    """Return the Python that can import MLflow, or None."""
    if python:
        return python
    probe = [sys.executable, "-c", "import mlflow"]
    importable = subprocess.run(probe, capture_output=True, check=False).returncode == 0
    return sys.executable if importable else None


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mlflow-python", help="Python of an environment that has MLflow")
    parser.add_argument("--versions", type=int, default=100_000, help="versions to list")
    parser.add_argument("--repeat", type=int, default=7, help="rounds")
    options = parser.parse_args()
    console = Console()
    load_before = os.getloadavg()
    python = find_mlflow(options.mlflow_python)
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        for name in ("kovar", "many", "adapters"):
            (work / name).mkdir()
        mlflow = MLflow(python, work / "mlflow") if python else None
        steps = measure_steps(work, mlflow, options.repeat)
        if mlflow:
            mlflow.close()
        storage = measure_storage(work)
        pages, fill_seconds = measure_pages(work, options.versions)
    table = Table("step", "median ms", "min ms", "p95 ms", "n", title="registry")
    for name, values in {**steps, **pages}.items():
        times = [statistics.median(values), min(values), quantile(values, 0.95)]
        table.add_row(name, *(f"{1000 * each:.2f}" for each in times), str(len(values)))
    console.print(table)
    rows = ratios(steps, pages, storage)
    summary = Table("figure", "value", "target", "met")
    for row in rows:
        met = {True: "yes", False: "no", None: "–"}[row["met"]]
        summary.add_row(row["name"], f"{row['value']:.3g}", row["target"], met)
    console.print(summary)
    if mlflow is None:
        console.print("MLflow was not measured: give --mlflow-python")
    RESULTS.parent.mkdir(exist_ok=True)
    content = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": cpu_name(),
            "num_cpus": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "load_average_before": load_before,
            "load_average_after": os.getloadavg(),
            "platform": platform.platform(),
        },
        "versions": {
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "sqlalchemy": installed("sqlalchemy"),
            **(mlflow.versions if mlflow else {"mlflow": None}),
        },
        "num_versions": options.versions,
        "fill_seconds": fill_seconds,
        "seconds": {
            name: {
                "median": statistics.median(values),
                "minimum": min(values),
                "maximum": max(values),
                "p5": quantile(values, 0.05),
                "p95": quantile(values, 0.95),
                "num": len(values),
            }
            for name, values in {**steps, **pages}.items()
        },
        "storage": storage,
        "figures": rows,
    }
    RESULTS.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    console.print(f"written: {RESULTS}")


if __name__ == "__main__":
    main()
