"""Speed, accuracy and memory of every runtime that can serve a version, without HTTP, interleaved.

usage: python benchmarks/serving_runtimes.py [--version movie-sentiment@champion] [--threads 2]
           [--rounds 5] [--rows 640] [--judged 2000] [--data-folder jobs]
           [--only "onnx int8 (dynamic)" …]

Prints a table and writes benchmarks/results/serving_runtimes.json. The version is one of the
registry (`kovar quickstart` trains movie-sentiment); exports that are absent are made first. Every
runtime is a process of its own, started once and asked in turn; the first round is not counted.

- texts/s: the version's own evaluation texts in batches of 32 rows of like length, already
  tokenized; the median of the rounds.
- one text: milliseconds of a batch of one text, the median over texts and rounds.
- accuracy on the first of the evaluation texts (`--judged`); golden: the largest difference from
  the golden examples.
- ratios: what each other precision of the same runtime is to fp32, in speed and in accuracy.
- load: seconds from the start of the process to the first answer; peak: its resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from serving_ratios import machine

from kovar.errors import GoldenError
from kovar.inference import (
    ClassifierRuntime,
    Export,
    ExportBuilder,
    Wish,
    adapter_base,
    possible_exports,
)
from kovar.inference.choice import Candidate, candidates, installed_runtimes
from kovar.inference.exports import LabeledTexts, labeled_texts
from kovar.inference.golden import verify_golden
from kovar.inference.loader import Place, load_candidate
from kovar.precision import detect_device, supported_precisions
from kovar.registry import Registry, Version
from kovar.settings import load_settings

RESULTS = Path(__file__).parent / "results" / "serving_runtimes.json"
ROWS_PER_BATCH = 32
NUM_SINGLES = 100
WISH = Wish(max_accuracy_loss=1.0)
PASSED = ("version", "threads", "rows", "judged", "data_folder")
"""Options that the contenders are given."""


class Contender:
    """A process that has loaded one runtime and answers when it is asked to.

    Args:
        name: of the candidate, for example `onnx int8 (dynamic)`.
        options: of the command line.
    """

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name = name
        given = {key: str(getattr(options, key)) for key in PASSED}
        threads = {"OMP_NUM_THREADS": given["threads"], "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--contend", name]
            + [f"--{key.replace('_', '-')}={given[key]}" for key in PASSED],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | threads,
        )
        self.facts = self._read()
        self.rounds: list[dict[str, float]] = []

    def run(self, *, counts: bool) -> None:
        """Let it answer all texts once."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        found = self._read()
        if counts:
            self.rounds.append(found)

    def result(self) -> dict[str, Any]:
        """End the process; return what was found."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        middle = {
            name: statistics.median(one[name] for one in self.rounds) for name in self.rounds[0]
        }
        return {"runtime": self.name, **middle, **self.facts, "rounds": self.rounds}

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found


def contend(name: str, options: argparse.Namespace) -> None:
    """Load one runtime, then answer all texts at each line of standard input."""
    began = time.perf_counter()
    chosen = next(one for one in find_subjects(options)[1] if str(one.candidate) == name)
    runtime, texts = chosen.load(options.threads), chosen.texts
    runtime.predict(texts.texts[:1])
    seconds = time.perf_counter() - began
    print(json.dumps(chosen.judged(runtime) | {"load_s": seconds}), flush=True)
    encoded = runtime.tokenize(texts.texts[: options.rows])
    order = sorted(range(len(encoded)), key=lambda row: encoded[row].length)
    batches = [
        [encoded[row] for row in order[start : start + ROWS_PER_BATCH]]
        for start in range(0, len(order), ROWS_PER_BATCH)
    ]
    for _ in sys.stdin:
        began = time.perf_counter()
        for batch in batches:
            runtime.scores(batch)
        rate = len(encoded) / (time.perf_counter() - began)
        times = []
        for item in encoded[:NUM_SINGLES]:
            began = time.perf_counter()
            runtime.scores([item])
            times.append(time.perf_counter() - began)
        single = 1e3 * statistics.median(times)
        print(
            json.dumps({"texts_per_s": rate, "one_text_ms": single, "peak_mib": peak()}), flush=True
        )


def peak() -> float:
    """Return the peak of this process's resident memory in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


@dataclass(frozen=True)
class Subject:
    """One runtime, and what it is judged by.

    Args:
        candidate: the runtime.
        place: the files of the version.
        texts: labeled ones, which the version was not trained on.
    """

    candidate: Candidate
    place: Place
    texts: LabeledTexts

    def load(self, threads: int) -> ClassifierRuntime:
        """Load it on this many threads."""
        return load_candidate(self.candidate, replace(self.place, num_threads=threads), Wish())

    def judged(self, runtime: ClassifierRuntime) -> dict[str, float]:
        """Return its accuracy and how far it is from the golden examples."""
        accuracy = self.texts.compare(runtime, runtime).export
        return {"accuracy": accuracy, "golden": verify_golden(runtime, self.place.folder)}


def find_subjects(options: argparse.Namespace) -> tuple[Version, list[Subject]]:
    """Return the version and all its runtimes on this machine; make the exports that are absent."""
    settings = load_settings()
    with Registry.open(settings) as registry:
        version = registry.resolve(options.version)
        base = adapter_base(registry, version)
        builder = ExportBuilder(
            registry,
            version,
            cache_dir=settings.cache_dir,
            base_dir=options.data_folder,
            max_accuracy_loss=1.0,
        )
        exports = []
        for form in possible_exports(WISH, device="cpu"):
            try:
                made = builder.ensure(form)
            except GoldenError as refusal:
                print(f"{form} is left out: {refusal.message}", file=sys.stderr)
                continue
            exports.append(Export(made.manifest, registry.materialize_derived(made)))
        place = Place(
            registry.materialize(version),
            base_folder=None if base is None else registry.materialize(base),
        )
    chip = detect_device("cpu")
    found = candidates(WISH, exports, chip, installed=installed_runtimes())
    torch = [Candidate("torch", precision) for precision in supported_precisions(chip)]
    texts = labeled_texts(version, cache_dir=settings.cache_dir, base_dir=options.data_folder)
    judged = slice(options.judged)
    texts = replace(texts, texts=texts.texts[judged], truth=texts.truth[judged])
    rest = [one for one in found if one.export is not None]
    return version, [Subject(one, place, texts) for one in (*torch, *rest)]


def against_fp32(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return speed and accuracy of the other precisions beside fp32 of the same runtime."""
    by_name = {one["runtime"]: one for one in results}
    found = []
    for name, one in by_name.items():
        runtime, precision, *_ = name.split()
        fp32 = by_name.get(f"{runtime} fp32")
        if precision != "fp32" and fp32 is not None:
            rates = zip(one["rounds"], fp32["rounds"], strict=True)
            times = statistics.median(a["texts_per_s"] / b["texts_per_s"] for a, b in rates)
            points = 100 * (one["accuracy"] - fp32["accuracy"])
            found.append({"name": name, "times_as_fast": times, "accuracy_points": points})
    return found


def main() -> None:
    """Start all runtimes, ask them in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--version", default="movie-sentiment@champion")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--judged", type=int, default=2000)
    parser.add_argument("--data-folder", type=Path, default=Path("jobs"))
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--contend", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contend:
        contend(options.contend, options)
        return
    version, subjects = find_subjects(options)
    names = [str(one.candidate) for one in subjects]
    contenders = [Contender(name, options) for name in names if name in (options.only or names)]
    for round_ in range(options.rounds + 1):
        turn = round_ % len(contenders)
        for contender in contenders[turn:] + contenders[:turn]:
            contender.run(counts=round_ > 0)
    results = [contender.result() for contender in contenders]
    content = {
        "machine": machine(),
        "version": str(version),
        "digest": version.digest,
        "threads": options.threads,
        "judged": len(subjects[0].texts.texts),
        "ratios": against_fp32(results),
        "results": results,
    }
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")
    table = Table("runtime", "texts/s", "one text", "accuracy", "golden", "load", "peak")
    for one in sorted(results, key=lambda one: -one["texts_per_s"]):
        table.add_row(
            one["runtime"],
            f"{one['texts_per_s']:,.0f}",
            f"{one['one_text_ms']:.2f} ms",
            f"{one['accuracy']:.4f}",
            f"{one['golden']:.2g}",
            f"{one['load_s']:.1f} s",
            f"{one['peak_mib']:,.0f} MiB",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
