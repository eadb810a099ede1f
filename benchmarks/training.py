"""Training with Kovar against the Hugging Face Trainer and plain loops, interleaved.

usage: python benchmarks/training.py [--rounds 7] [--rows 1600] [--part NAME …]

Prints tables and writes benchmarks/results/training.json; with --part, the other parts keep what an
earlier run wrote. Every contender is a process of its own, started once and asked in turn, so that
none profits from another one's settings; each round begins with another contender, and the first
round of each is not counted. Model, data and seeds are those of jobs/movie-sentiment.yaml.

- speed: rows per second of training MiniLM, by precision: tokens per second without padding, over
  the tokens of an average row. Trainer runs with its defaults (8 rows a batch, fused AdamW), with
  32 rows a batch, and with rows grouped by length besides. Evaluation and checkpoints are left out.
- quality: accuracy on the held-out rows after one epoch, each contender with each seed.
- peak: floating-point operations of the tokens without padding, over the time of a step and the
  measured peak of matrix products on the same threads.
- ranks: two workers of one thread against one worker of two threads.
- checkpoints: what saving keeps a step waiting, and what exact resumption costs.
- start: from the call to the first step's end, two workers on a running Ray: Kovar's own worker and
  a plain TorchTrainer that loads the same model.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

RESULTS = Path(__file__).parent / "results" / "training.json"
CONTENDER = Path(__file__).with_name("training_contender.py")
PARTS = ("speed", "quality", "peak", "ranks", "checkpoints", "start")
KOVAR, LITERAL = "Kovar", "Trainer, defaults"
DEFAULT, BEST = "Trainer, 32 rows", "Trainer, 32 rows, by length"

CONTENDERS = ((KOVAR, "kovar"), (DEFAULT, "trainer"), (BEST, "trainer-best"))


class Contender:
    """A process that trains when it is asked to."""

    def __init__(self, kind: str, work: Path, *, threads: int = 2) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(CONTENDER), kind, str(work)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"},
        )

    def ask(self, what: str, **options: Any) -> dict[str, Any]:
        """Let it do one thing; return what it says."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"what": what, **options}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a contender ended: {self.process.args}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def rate(answer: dict[str, Any]) -> float:
    """Return average rows per second."""
    return float(answer["tokens"] / answer["seconds"] / answer["tokens_per_row"])


def rotated(names: Sequence[str], number: int) -> list[str]:
    """Return the names, beginning with another one each time."""
    start = number % len(names)
    return [*names[start:], *names[:start]]


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Summarize repeated measurements."""
    return {
        "median": statistics.median(values),
        "minimum": min(values),
        "maximum": max(values),
        "num": len(values),
    }


def speed(work: Path, rounds: int, rows: int) -> dict[str, Any]:
    """Rows per second of every contender and precision, and what Kovar is ahead by."""
    running = {name: Contender(kind, work) for name, kind in (*CONTENDERS, (LITERAL, "trainer-8"))}
    found: dict[str, Any] = {}
    for precision in ("fp32", "bf16"):
        rates: dict[str, list[float]] = {name: [] for name in running}
        for number in track(range(rounds + 1), f"speed in {precision}"):
            for name in rotated(list(running), number):
                # At 8 rows a batch the Trainer takes several times as long for as many.
                share = 4 if name == LITERAL else 1
                answer = running[name].ask("train", precision=precision, rows=rows // share)
                if number:
                    rates[name].append(rate(answer))
        found[precision] = {
            "rows_per_second": {name: spread(values) for name, values in rates.items()},
            **{
                key: spread([a / b for a, b in zip(rates[KOVAR], rates[other], strict=True)])
                for key, other in (
                    ("over_defaults", LITERAL),
                    ("over_32_rows", DEFAULT),
                    ("over_by_length", BEST),
                )
            },
        }
    for contender in running.values():
        contender.close()
    return found


def quality(work: Path, rounds: int, rows: int) -> dict[str, Any]:
    """Accuracy after one epoch, with as many seeds as rounds, and by how much Kovar's is higher."""
    del rows
    running = {name: Contender(kind, work) for name, kind in CONTENDERS}
    found: dict[str, list[float]] = {name: [] for name in running}
    for seed in track(range(rounds), "quality"):
        for name, contender in running.items():
            answer = contender.ask("quality", precision="fp32", seed=seed)
            found[name].append(answer["accuracy"])
    for contender in running.values():
        contender.close()
    return {
        "accuracy": found,
        "points_above": {
            name: spread(
                [100 * (one - other) for one, other in zip(found[KOVAR], values, strict=True)]
            )
            for name, values in found.items()
            if name != KOVAR
        },
        # Of a difference of two means over the seeds, in points.
        "standard_error": {
            name: 100 * standard_error(found[KOVAR], values)
            for name, values in found.items()
            if name != KOVAR and rounds > 1
        },
    }


def standard_error(ones: Sequence[float], others: Sequence[float]) -> float:
    """Return the standard error of the difference between two means."""
    between = [one - other for one, other in zip(ones, others, strict=True)]
    return statistics.stdev(between) / math.sqrt(len(between))


def peak(work: Path, rounds: int, rows: int) -> dict[str, Any]:
    """Share of the peak of fp32 and bf16 matrix products that a step reaches."""
    contender = Contender("kovar", work)
    found = {}
    for precision in ("fp32", "bf16"):
        answers = [
            contender.ask("peak", precision=precision, rows=rows)
            for _ in track(range(rounds + 1), f"peak in {precision}")
        ][1:]
        found[precision] = {
            "share": spread([answer["share"] for answer in answers]),
            "peak_flops": spread([answer["peak_flops"] for answer in answers]),
            "padding": answers[0]["padding"],
        }
    contender.close()
    return found


def ranks(work: Path, rounds: int, rows: int) -> dict[str, Any]:
    """Two workers of one thread against one of two."""
    rates: dict[str, list[float]] = {"one": [], "two": []}
    one = Contender("kovar", work)
    pair = Contender("pair", work, threads=1)
    for number in track(range(rounds + 1), "ranks"):
        for name in rotated(("one", "two"), number):
            contender = one if name == "one" else pair
            answer = contender.ask("train", precision="fp32", rows=rows)
            if number:
                rates[name].append(rate(answer))
    one.close()
    pair.close()
    return {
        "rows_per_second": {name: spread(values) for name, values in rates.items()},
        "two_over_one": spread([b / a for a, b in zip(rates["one"], rates["two"], strict=True)]),
    }


def checkpoints(work: Path, rounds: int, rows: int) -> dict[str, Any]:
    """Share of the time that a save keeps training waiting, and that exact resumption takes."""
    del rows
    contender = Contender("kovar", work)
    answers = [
        contender.ask("checkpoints", precision="fp32")
        for _ in track(range(max(2, rounds // 2) + 1), "checkpoints")
    ][1:]
    contender.close()
    return {
        key: spread([answer[key] for answer in answers])
        for key in ("stall_seconds", "stall_share", "slowdown", "bookkeeping_share")
    }


def start(work: Path, rounds: int, rows: int) -> dict[str, Any]:
    """Seconds from the call to the first step, on a Ray that runs already."""
    del rows
    contender = Contender("ray", work, threads=1)
    seconds: dict[str, list[float]] = {"Kovar": [], "plain Ray Train": []}
    for number in track(range(max(3, rounds // 2) + 1), "start"):
        for name in rotated(list(seconds), number):
            answer = contender.ask("start", contender=name)
            if number:
                seconds[name].append(answer["seconds"])
    contender.close()
    pairs = zip(seconds["Kovar"], seconds["plain Ray Train"], strict=True)
    return {
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "ours": spread([ours - plain for ours, plain in pairs]),
    }


FIGURES = (
    ("Trainer, defaults, fp32: times as fast", ("speed", "fp32", "over_defaults"), ">=", 2.2),
    ("Trainer, 32 rows, fp32: times as fast", ("speed", "fp32", "over_32_rows"), ">=", 2.2),
    ("Trainer, by length, fp32: times as fast", ("speed", "fp32", "over_by_length"), ">=", 1.3),
    ("Trainer, defaults, bf16: times as fast", ("speed", "bf16", "over_defaults"), ">=", None),
    ("Trainer, 32 rows, bf16: times as fast", ("speed", "bf16", "over_32_rows"), ">=", None),
    ("Trainer, by length, bf16: times as fast", ("speed", "bf16", "over_by_length"), ">=", None),
    (
        "Trainer, 32 rows: points of accuracy above",
        ("quality", "points_above", DEFAULT),
        ">=",
        -0.5,
    ),
    ("Trainer, by length: points of accuracy above", ("quality", "points_above", BEST), ">=", -0.5),
    ("share of the fp32 peak in a step", ("peak", "fp32", "share"), ">=", 0.7),
    ("share of the bf16 peak in a step", ("peak", "bf16", "share"), ">=", None),
    ("2 workers × 1 thread over 1 × 2", ("ranks", "two_over_one"), ">=", 0.9),
    ("start over plain Ray Train, s", ("start", "ours"), "<=", 1.0),
    ("checkpoint stall every 50 steps, share", ("checkpoints", "stall_share"), "<=", 0.02),
    ("exact resumption, share of a step", ("checkpoints", "bookkeeping_share"), "<=", 0.01),
)


def figures(parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold what was measured against its targets."""
    rows = []
    for name, path, relation, target in FIGURES:
        value: Any = parts
        for key in path:
            value = value.get(key, {}) if isinstance(value, dict) else {}
        if not value:
            continue
        middle = value["median"]
        met = None
        if target is not None:
            met = middle >= target if relation == ">=" else middle <= target
        rows.append({
            "name": name, "value": middle, "minimum": value["minimum"], "maximum": value["maximum"],
            "target": f"{relation} {target}" if target is not None else None, "met": met,
        })  # fmt: skip
    return rows


def show(content: dict[str, Any]) -> None:
    """Print the tables."""
    console = Console()
    for precision, part in content["parts"].get("speed", {}).items():
        if precision not in ("fp32", "bf16"):
            continue
        table = Table("contender", "rows/s", "minimum", "maximum", title=f"speed, {precision}")
        for name, values in part["rows_per_second"].items():
            each = (values[key] for key in ("median", "minimum", "maximum"))
            table.add_row(name, *(f"{value:.1f}" for value in each))
        console.print(table)
    if "quality" in content["parts"]:
        table = Table("contender", "accuracy", "of each seed", title="one epoch, held-out rows")
        for name, values in content["parts"]["quality"]["accuracy"].items():
            each = " ".join(f"{value:.4f}" for value in values)
            table.add_row(name, f"{statistics.mean(values):.4f}", each)
        console.print(table)
    summary = Table("figure", "median", "spread", "target", "met")
    for row in content["figures"]:
        met = {True: "yes", False: "no", None: "–"}[row["met"]]
        between = f"{row['minimum']:.3g} to {row['maximum']:.3g}"
        summary.add_row(row["name"], f"{row['value']:.3g}", between, row["target"] or "–", met)
    console.print(summary)


def cpu_name() -> str:
    """Return the name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds")
    # Trainer sorts 50 batches by length at a time: fewer steps would be those of long rows alone.
    parser.add_argument("--rows", type=int, default=1600, help="training rows of a round")
    parser.add_argument("--part", choices=PARTS, action="append", help="measure only this")
    options = parser.parse_args()
    content: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    content.setdefault("parts", {})
    content["machine"] = {
        "cpu": cpu_name(),
        "num_cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "platform": platform.platform(),
    }
    content["versions"] = {"python": platform.python_version()} | {
        name: installed(name) for name in ("torch", "transformers", "accelerate", "ray")
    }
    with tempfile.TemporaryDirectory() as place:
        for part in options.part or PARTS:
            load = os.getloadavg()
            found = globals()[part](Path(place), options.rounds, options.rows)
            found["date"] = datetime.now(UTC).isoformat(timespec="seconds")
            found["load_average_before"] = load
            content["parts"][part] = found
            content["figures"] = figures(content["parts"])
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    show(content)
    Console().print(f"written: {RESULTS}")


if __name__ == "__main__":
    main()
