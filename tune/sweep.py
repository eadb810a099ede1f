"""Run a sweep on Ray Tune and print the ranked trials.

python tune/sweep.py tune/tiny-lr-precision.yaml

Exit code 0: every trial finished; 1: a trial failed; 2: an input is wrong, nothing was started.
"""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from kovar.errors import exit_code_of
from kovar.settings import load_settings


def main(argv: list[str] | None = None) -> int:
    """Read the sweep, run it, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("spec", type=Path, help="YAML file with kind: sweep")
    parser.add_argument(
        "--no-plan",
        action="store_true",
        help="start even if the cluster may have no place for it",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    arguments = parser.parse_args(argv)

    from kovar.training.progress import RunProgress
    from kovar.tuning import load_sweep, run_sweep

    report, folder = run_sweep(
        load_sweep(arguments.spec),
        settings=load_settings(),
        progress=RunProgress(),
        planned=not arguments.no_plan,
    )
    console = Console()
    if arguments.json:
        print(json.dumps(report.to_json()))
    else:
        console.print(report.table())
        console.print(f"results      {folder / 'results.json'}", soft_wrap=True)
        console.print(f"TensorBoard  tensorboard --logdir {folder}", soft_wrap=True)
    return 1 if report.num_failed else 0


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
