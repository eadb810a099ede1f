"""Evaluate a registered version on a data set through Ray Data, and keep the result beside it.

python jobs/evaluate.py jobs/tiny-evaluate.yaml

ray job submit --working-dir . --runtime-env jobs/runtime-env.yaml -- \
    python jobs/evaluate.py jobs/tiny-evaluate.yaml

Exit code 0: in the registry; 1: the workers failed; 2: an input is wrong, nothing was started.
"""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from kovar.batch import EvaluateSpec
from kovar.config import load_document
from kovar.errors import exit_code_of
from kovar.settings import load_settings


def main(argv: list[str] | None = None) -> int:
    """Read the spec, run it, print the metrics with their intervals."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("spec", type=Path, help="YAML file with kind: evaluate")
    parser.add_argument(
        "--no-plan",
        action="store_true",
        help="start even if the cluster may have no place for it",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args(argv)
    document = load_document(arguments.spec)
    spec = document.parse(EvaluateSpec)

    from kovar.batch.evaluate import evaluate_version
    from kovar.batch.report import metric_table, slice_table
    from kovar.training.progress import RunProgress

    with document.pointing():
        result = evaluate_version(
            spec,
            base_dir=arguments.spec.parent,
            settings=load_settings(),
            progress=RunProgress(),
            planned=not arguments.no_plan,
        )
    if arguments.json:
        print(json.dumps(result.to_json()))
        return 0
    console = Console()
    for table in filter(None, (metric_table(result), slice_table(result))):
        console.print(table)
    console.print(result.summary(), highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
