"""Run a sweep on Ray Tune, print the ranked trials and register the best one.

python tune/sweep.py tune/tiny-lr-precision.yaml

The same submission twice runs once: a finished sweep is returned, an interrupted one goes on, and
no trial that has ended runs again.
Exit code 0: no trial failed; 1: a trial failed, or none finished; 2: an input is wrong, nothing was
started.
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
    earlier = parser.add_mutually_exclusive_group()
    earlier.add_argument(
        "--resume",
        action="store_true",
        help="go on with an earlier submission; trials that failed get another go",
    )
    earlier.add_argument("--fresh", action="store_true", help="start anew, whatever was done")
    parser.add_argument(
        "--promote",
        metavar="ALIAS",
        help="point an alias at the best trial's version, through the alias's gates",
    )
    parser.add_argument(
        "--no-plan",
        action="store_true",
        help="start even if the cluster may have no place for it",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    arguments = parser.parse_args(argv)

    from kovar.training.progress import RunProgress
    from kovar.tuning import load_sweep, run_sweep

    result = run_sweep(
        load_sweep(arguments.spec),
        settings=load_settings(),
        progress=RunProgress(),
        planned=not arguments.no_plan,
        fresh=arguments.fresh,
        resume=arguments.resume,
        promote=arguments.promote,
    )
    if arguments.json:
        print(json.dumps(result.to_json()))
    else:
        console = Console()
        console.print(result.report.table())
        for line in result.summary():
            console.print(line, soft_wrap=True, markup=False, highlight=False)
    return result.exit_code


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
