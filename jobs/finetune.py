"""Fine-tune a model on Ray Train and register the result.

python jobs/finetune.py jobs/movie-sentiment.yaml

ray job submit --working-dir . --runtime-env jobs/runtime-env.yaml -- \
    python jobs/finetune.py jobs/movie-sentiment.yaml

The same submission twice trains once: a finished run is returned, an interrupted one is resumed.
Exit code 0: registered; 1: the run failed; 2: an input is wrong, nothing was started.
"""

import argparse
import json
import sys
from pathlib import Path

from kovar.config import load_document
from kovar.errors import exit_code_of
from kovar.settings import load_settings
from kovar.training import FineTuneSpec


def main(argv: list[str] | None = None) -> int:
    """Read the spec, run it, print the version."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("spec", type=Path, help="YAML file with kind: finetune")
    parser.add_argument("--fresh", action="store_true", help="train again even if finished")
    parser.add_argument(
        "--no-plan",
        action="store_true",
        help="start even if the cluster may have no place for it",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args(argv)
    document = load_document(arguments.spec)
    spec = document.parse(FineTuneSpec)

    from kovar.training.progress import RunProgress
    from kovar.training.run import run

    with document.pointing():
        result = run(
            spec,
            base_dir=arguments.spec.parent,
            settings=load_settings(),
            progress=RunProgress(),
            fresh=arguments.fresh,
            planned=not arguments.no_plan,
        )
    print(json.dumps(result.to_json()) if arguments.json else result.summary())
    return 0


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
