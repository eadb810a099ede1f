"""Export the versions that applications serve, ahead of their deployment, and judge the exports.

python jobs/export.py serve/movie-sentiment.yaml

ray job submit --working-dir . --runtime-env jobs/runtime-env.yaml -- \
    python jobs/export.py serve/movie-sentiment.yaml

Exit code 0: in the registry; 1: every export was refused; 2: an input is wrong.
"""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kovar.config import format_size
from kovar.errors import exit_code_of
from kovar.planning.entry import read_entries
from kovar.serving import ServingSpec
from kovar.settings import load_settings


def main(argv: list[str] | None = None) -> int:
    """Read the applications, export what each serves, print what was made and what is fastest."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="a Ray Serve file with applications of Kovar")
    parser.add_argument(
        "--data-folder",
        type=Path,
        default=Path(),
        help="folder that relative paths of the version's training data start from",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    arguments = parser.parse_args(argv)
    entries = read_entries([arguments.file])

    from kovar.registry import Registry
    from kovar.serving.export_job import export_version

    settings, results = load_settings(), []
    with Registry.open(settings) as registry:
        for entry in entries:
            if isinstance(entry.work, ServingSpec):
                with entry.pointing():
                    results.append(
                        export_version(
                            entry.work,
                            registry=registry,
                            settings=settings,
                            base_dir=arguments.data_folder,
                        )
                    )
    for result in results:
        if arguments.json:
            print(json.dumps(result.to_json()))
        else:
            show(result)
    return 0 if all(any(one.export for one in result.attempts) for result in results) else 1


def show(result) -> None:
    """Print what was made of one version."""
    table = Table("export", "size", "golden examples", "evaluation", title=str(result.version))
    for attempt in result.attempts:
        if attempt.export is None:
            table.add_row(str(attempt.form), "", "", f"refused: {attempt.refusal.message}")
            continue
        facts = attempt.to_json()
        table.add_row(
            str(attempt.form),
            format_size(facts["size_bytes"]),
            f"differ by {facts['golden_difference']:.2g}",
            str(attempt.export.accuracy or ""),
        )
    console = Console()
    console.print(table)
    console.print(f"runtime  {result.reason}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
