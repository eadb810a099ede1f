"""Predict every row of Parquet, JSON Lines or CSV files through Ray Data, each exactly once.

python jobs/predict.py jobs/tiny-predict.yaml

ray job submit --working-dir . --runtime-env jobs/runtime-env.yaml -- \
    python jobs/predict.py jobs/tiny-predict.yaml

The same submission again goes on where an interrupted one ended, and returns a finished one.
Exit code 0: complete; 1: the workers failed; 2: an input is wrong, nothing was started.
"""

import argparse
import json
import sys
from pathlib import Path

from kovar.batch import PredictSpec
from kovar.config import load_document
from kovar.errors import exit_code_of
from kovar.settings import load_settings


def main(argv: list[str] | None = None) -> int:
    """Read the spec, run it, print where the predictions are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("spec", type=Path, help="YAML file with kind: predict")
    parser.add_argument(
        "--no-plan",
        action="store_true",
        help="start even if the cluster may have no place for it",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args(argv)
    document = load_document(arguments.spec)
    spec = document.parse(PredictSpec)

    from kovar.batch.predict import predict_files
    from kovar.training.progress import RunProgress

    with document.pointing():
        result = predict_files(
            spec,
            base_dir=arguments.spec.parent,
            settings=load_settings(),
            progress=RunProgress(),
            planned=not arguments.no_plan,
        )
    print(json.dumps(result.to_json()) if arguments.json else result.summary())
    return 0


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
