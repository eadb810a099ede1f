"""`kovar models export` and `import`: versions to and from folders, archives and MLflow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from kovar.cli.options import JsonFlag
from kovar.errors import UserError
from kovar.settings import load_settings

if TYPE_CHECKING:
    from kovar.registry import Version
    from kovar.registry.registry import Progress


class ExportFormat(StrEnum):
    """Where a version goes."""

    hf = "hf"
    archive = "archive"
    mlflow = "mlflow"


def export_version(
    reference: Annotated[str, typer.Argument(help="name, name@alias, name@number or a digest.")],
    to: Annotated[
        str, typer.Option(help="New folder (hf), new file (archive), or MLflow's tracking URI.")
    ],
    kind: Annotated[
        ExportFormat,
        typer.Option("--format", help="Hugging Face folder, one file, or MLflow's registry."),
    ] = ExportFormat.hf,
    as_json: JsonFlag = False,
) -> None:
    """Write a version for another place, with what it needs to come back as itself."""
    from kovar.registry import Registry
    from kovar.registry.exchange import export_archive, export_folder, export_mlflow

    with Registry.open(load_settings()) as registry:
        found = registry.resolve(reference)
        if kind is ExportFormat.mlflow:
            place = export_mlflow(registry, found, to).uri
        elif kind is ExportFormat.archive:
            place = str(export_archive(registry, found, Path(to).expanduser().absolute()))
        else:
            place = str(export_folder(registry, found, Path(to).expanduser().absolute()))
    if as_json:
        typer.echo(json.dumps({**_facts(found), "format": kind.value, "exported_to": place}))
        return
    typer.echo(f"{found} (sha256 {found.digest}) → {place}")


def import_version(
    source: Annotated[
        str, typer.Argument(help="Folder, archive, or models:/name/number of MLflow.")
    ],
    model: Annotated[
        str | None, typer.Option(help="Name of the model; the exported one's if absent.")
    ] = None,
    mlflow: Annotated[str | None, typer.Option(help="MLflow's tracking URI.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Register an exported version, as itself; nothing of it is visible before it is checked."""
    from kovar.registry import Registry
    from kovar.registry.exchange import import_archive, import_folder, import_mlflow

    if source.startswith("models:/") != (mlflow is not None):
        raise UserError(
            "models:/name/number and --mlflow URI belong together",
            got=source,
            hint="for example: kovar models import models:/reviews/1 --mlflow sqlite:///mlflow.db",
        )
    path = Path(source).expanduser()
    with Registry.open(load_settings()) as registry, _progress() as progress:
        if mlflow is not None:
            found = import_mlflow(registry, source, mlflow, model=model, progress=progress)
        elif path.is_file():
            found = import_archive(registry, path, model=model, progress=progress)
        else:
            found = import_folder(registry, path, model=model, progress=progress)
    if as_json:
        typer.echo(json.dumps(_facts(found)))
        return
    typer.echo(f"{found} (sha256 {found.digest})")


@contextmanager
def _progress() -> Iterator[Progress]:
    """Draw a bar of bytes on a terminal's standard error."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    console = Console(stderr=True)
    with Bars(
        *columns, TransferSpeedColumn(), console=console, disable=not console.is_terminal
    ) as bars:
        task = bars.add_task("checking", total=None)

        def advance(what: str, done: int, total: int) -> None:
            bars.update(task, description=what, completed=done, total=total)

        yield advance


def _facts(version: Version) -> dict[str, object]:
    return {"model": version.model, "version": version.number, "digest": version.digest}
