"""Memory and time of preparing data sets of different sizes, and of planning their steps.

usage: python benchmarks/data.py [--rows N ...]

Prints a table and writes benchmarks/results/data.json. Rows of 6 to 19 words lie in Parquet files
of one million each, all with the same content. Each size is prepared and planned in a process
of its own, to which its peak of the resident memory (VmHWM) belongs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results" / "data.json"
ROWS_PER_FILE = 1_000_000
WORDS = [
    *("a", "very", "good", "movie", "and", "bad", "story", "plot", "the", "of", "acting", "is"),
    *("was", "terrible", "great", "film", "i", "think"),
]
COLUMNS = ("rows", "tokens", "start MiB", "prepared MiB", "CPU s", "steps", "planned MiB", "plan s")


def write_rows(folder: Path, num_rows: int) -> None:
    """Write the source and a tokenizer."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet
    from tokenizers import Tokenizer, models, pre_tokenizers

    draws = np.random.default_rng(0)
    rows = min(num_rows, ROWS_PER_FILE)
    sizes = draws.integers(6, 20, rows)
    words = np.array(WORDS)[draws.integers(0, len(WORDS), int(sizes.sum()))]
    ends = np.cumsum(sizes)
    texts = [" ".join(words[end - size : end]) for end, size in zip(ends, sizes, strict=True)]
    table = pa.table({"text": texts, "label": draws.integers(0, 2, rows)})
    (folder / "rows").mkdir()
    for number in range(-(-num_rows // rows)):
        parquet.write_table(table, folder / "rows" / f"{number:03}.parquet", row_group_size=100_000)
    known = {word: index for index, word in enumerate(["[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


def measure(folder: Path) -> dict[str, Any]:
    """Prepare and plan in this process."""
    from kovar.data import DataSpec, prepare_dataset
    from kovar.training import TrainingSettings
    from kovar.training.schedule import plan_steps

    start = peak_mib()
    dataset = prepare_dataset(
        DataSpec(source="rows", evaluation=0.01),
        tokenizer_dir=folder,
        cache_dir=folder / "cache",
        base_dir=folder,
        memory_bytes=32 << 20,
    )
    prepared, seconds = peak_mib(), time.process_time()
    steps = plan_steps(
        dataset.open("train").lengths,
        fingerprint=dataset.fingerprint,
        max_length=dataset.max_length,
        settings=TrainingSettings(epochs=3),
    )
    _ = steps[0]
    planned = time.process_time() - seconds
    tokens = dataset.facts["train"]["tokens"]
    values = (dataset.num_train, tokens, start, prepared, seconds, len(steps), peak_mib(), planned)
    return dict(zip(COLUMNS, values, strict=True))


def peak_mib() -> float:
    """Return the peak of this process's resident memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main() -> None:
    """Measure each size in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measure(options.measure)))
        return
    results = []
    for num_rows in options.rows:
        with tempfile.TemporaryDirectory() as name:
            write_rows(Path(name), num_rows)
            command = [sys.executable, __file__, "--measure", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        results.append(json.loads(done.stdout))
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    table = Table(*COLUMNS)
    for result in results:
        table.add_row(*(f"{value:,.1f}".removesuffix(".0") for value in result.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
