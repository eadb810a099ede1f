"""The placement plan of clusters and demands of several shapes, on node types alone.

usage: python benchmarks/planner.py [--repeat 50]

Prints a table and writes benchmarks/results/planner.json. Each round plans every shape once, and
each round begins with another one. "cold" is a process of its own that imports the library and
plans one shape, as `kovar plan` does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kovar.errors import PlacementError
from kovar.resources import Cluster, CpuRequest, Demand, GpuRequest, NodeType, plan_placement
from kovar.resources.arrangement import arrange

RESULTS = Path(__file__).parent / "results" / "planner.json"
GIB = 1 << 30
TARGET_MS = 10.0


@dataclass(frozen=True)
class Shape:
    """A plan to be made; the demands have 100 workers together."""

    name: str
    demands: list[Demand]
    cluster: Cluster

    def plan(self) -> bool:
        """Make the plan; whether it fits."""
        try:
            plan_placement(self.demands, self.cluster)
        except PlacementError:
            return False
        return True


def demand(name: str, request: Any, least: int, most: int | None = None, **more: Any) -> Demand:
    """Return a demand with `least` to `most` workers."""
    return Demand(name, f"{name}.worker", request, least, most or least, f"{name}.num", **more)


def declared(nodes: int) -> Cluster:
    """Return a cluster of CPU, L4, A100 and H100 nodes that may have so many nodes."""
    kinds = [
        NodeType("cpu", 32, 120 * GIB, price_per_hour=1.6),
        NodeType("l4", 8, 22 * GIB, ("L4",), 1, 24 * GIB, price_per_hour=0.85),
        NodeType("a100", 96, 680 * GIB, ("A100",), 8, 40 * GIB, price_per_hour=29.4),
        NodeType("h100", 208, 1310 * GIB, ("H100",), 8, 80 * GIB, price_per_hour=88.5),
    ]
    each = nodes // len(kinds)
    return Cluster(tuple(replace(kind, max_count=each) for kind in kinds))


def live(nodes: int) -> Cluster:
    """Return a cluster that is up, in which no two nodes have the same memory."""
    numbers = random.Random(3)
    return Cluster(
        tuple(
            NodeType(
                f"node-{number}",
                16,
                60 * GIB - numbers.randrange(1 << 28),
                ("A100",) if number % 2 else (),
                4 if number % 2 else 0,
                40 * GIB if number % 2 else None,
                min_count=1,
            )
            for number in range(nodes)
        )
    )


def mixed() -> list[Demand]:
    """Return a training run, a service and a sweep."""
    return [
        demand("training", GpuRequest(type="A100", count=8, cpus=64), 40),
        demand("serving", GpuRequest(type=["L4", "A100"], gpu_memory=6 * GIB, cpus=2), 40),
        demand("sweep", CpuRequest(cpus=7, memory=20 * GIB), 20),
    ]


def filled(seed: int) -> Shape:
    """Return demands on the smallest cluster that holds them, or on the largest that does not.

    Five odd sizes on three node types that are nearly full: what greed does not find, and sums do
    not rule out.
    """
    numbers = random.Random(seed)
    demands = [
        demand(
            f"d{number}",
            CpuRequest(
                cpus=numbers.choice([1, 2, 3, 5, 7, 11]),
                memory=numbers.choice([1, 3, 7, 20]) * GIB,
            )
            if number % 2
            else GpuRequest(
                type="A100",
                count=numbers.choice([0.1, 0.3, 0.4, 0.7, 1.0, 3.0]),
                cpus=numbers.choice([1, 3, 5, 7]),
                memory=numbers.choice([5, 11]) * GIB,
            ),
            20,
        )
        for number in range(5)
    ]
    kinds = [
        NodeType("small", 32, 64 * GIB),
        NodeType("large", 96, 256 * GIB),
        NodeType("gpu", 60, 200 * GIB, ("A100",), 4),
    ]

    def of(nodes: int) -> Cluster:
        return Cluster(tuple(replace(kind, max_count=nodes) for kind in kinds))

    enough = next(nodes for nodes in range(1, 100) if arrange(demands, of(nodes)))
    return Shape(f"nearly full {seed}", demands, of(enough - seed % 2))


def shapes() -> list[Shape]:
    """Return what is planned: 1,000 nodes and 100 workers each."""
    return [
        Shape("one gang of 100 GPUs", [demand("t", GpuRequest(type="A100"), 100)], declared(1000)),
        Shape("training, serving and a sweep", mixed(), declared(1000)),
        Shape("the same on 1,000 live nodes that all differ", mixed()[1:], live(1000)),
        Shape(
            "elastic from 10 to 100 beside others",
            [
                demand("t", GpuRequest(type=["H100", "A100"], count=4, cpus=8), 10, 100),
                *mixed()[1:],
            ],
            declared(1000),
        ),
        Shape(
            "any GPU by memory, apart, with labels",
            [
                demand(
                    "t",
                    GpuRequest(gpu_memory=20 * GIB, labels={"zone": "!b"}),
                    100,
                    placement="strict_spread",
                )
            ],
            declared(1000),
        ),
    ]


def measure(work: Sequence[Shape], repeat: int) -> dict[str, list[float]]:
    """Return the seconds of each shape, interleaved."""
    seconds: dict[str, list[float]] = {shape.name: [] for shape in work}
    for number in range(repeat):
        first = number % len(work)
        for shape in [*work[first:], *work[:first]]:
            seconds[shape.name].append(timed(shape.plan))
    return seconds


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_cold(repeat: int) -> list[float]:
    """Return the seconds of processes that import the library and plan one shape."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import planner; planner.shapes()[1].plan()"
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    return [timed(lambda: subprocess.run(command, check=True)) for _ in range(repeat)]


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that so large a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def cpu_name() -> str:
    """Return the name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=50, help="rounds")
    options = parser.parse_args()
    load_before = os.getloadavg()
    work = shapes()
    hard = [filled(seed) for seed in range(20)]
    fits = {shape.name: shape.plan() for shape in [*work, *hard]}
    seconds = measure(work, options.repeat)
    # A refusal tries many plans for its hints, so what is measured of these is the decision.
    decisions = {shape.name: [] for shape in hard}
    for _ in range(max(3, options.repeat // 10)):
        for shape in hard:
            decisions[shape.name].append(timed(lambda s=shape: arrange(s.demands, s.cluster)))
    refusals = [timed(shape.plan) for shape in hard if not fits[shape.name]]
    cold = measure_cold(max(3, options.repeat // 10))
    every = [statistics.median(values) for values in decisions.values()]
    groups = {
        **seconds,
        "20 nearly full clusters: fits or not": every,
        "refusals among them, with hints": refusals,
        "cold process: import and plan": cold,
    }
    targets = dict.fromkeys([*seconds, "20 nearly full clusters: fits or not"], TARGET_MS)
    targets["cold process: import and plan"] = 2000.0
    rows = [
        {
            "name": name,
            "median_ms": 1000 * statistics.median(values),
            "minimum_ms": 1000 * min(values),
            "p95_ms": 1000 * quantile(values, 0.95),
            "maximum_ms": 1000 * max(values),
            "num": len(values),
            "target_ms": targets.get(name),
            "met": 1000 * statistics.median(values) <= targets[name] if name in targets else None,
        }
        for name, values in groups.items()
    ]
    show(rows)
    content = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": cpu_name(),
            "num_cpus": os.cpu_count(),
            "load_average_before": load_before,
            "load_average_after": os.getloadavg(),
            "platform": platform.platform(),
        },
        "python": platform.python_version(),
        "fits": fits,
        "figures": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table."""
    table = Table("plan", "median ms", "min ms", "p95 ms", "max ms", "n", "target", "met")
    for row in rows:
        times = [f"{row[key]:.2f}" for key in ("median_ms", "minimum_ms", "p95_ms", "maximum_ms")]
        target = f"≤ {row['target_ms']:g}" if row["target_ms"] else "none"
        met = {True: "yes", False: "no", None: "–"}[row["met"]]
        table.add_row(row["name"], *times, str(row["num"]), target, met)
    Console().print(table)


if __name__ == "__main__":
    main()
