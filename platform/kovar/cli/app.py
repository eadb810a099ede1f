"""The `kovar` command: `kovar --help` lists what it does."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kovar import __version__
from kovar.cli.autoscale import autoscale
from kovar.cli.clusters import clusters
from kovar.cli.interchange import export_version, import_version
from kovar.cli.keys import keys
from kovar.cli.models import models
from kovar.cli.options import JsonFlag
from kovar.cli.runs import runs
from kovar.cli.sweeps import sweeps
from kovar.cli.top import top
from kovar.errors import UserError, exit_code_of
from kovar.settings import load_settings

if TYPE_CHECKING:
    from kovar.inference import Prediction, Tagging, TextLoss
    from kovar.registry import Version
    from kovar.resources import Cluster

app = typer.Typer(
    name="kovar",
    help="From a labelled data set and a base model to an audited endpoint on Ray.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
models.command("export")(export_version)
models.command("import")(import_version)
app.add_typer(models, name="models")
app.add_typer(runs, name="runs")
app.add_typer(sweeps, name="sweeps")
app.add_typer(keys, name="keys")
app.add_typer(clusters, name="cluster")
app.add_typer(autoscale, name="autoscale")
app.command("top")(top)


def main() -> None:
    """Run the command; a mistake of the user exits with 2, a failed run with 1."""
    sys.exit(exit_code_of(lambda: int(app(prog_name="kovar") or 0)))


@app.command()
def version(as_json: JsonFlag = False) -> None:
    """Print the versions of Kovar and of what it stands on."""
    import platform
    from importlib.metadata import version as installed

    names = ("ray", "torch", "transformers", "datasets", "pyarrow", "pydantic", "sqlalchemy")
    found = {"kovar": __version__, "python": platform.python_version()}
    found |= {name: installed(name) for name in names}
    if as_json:
        typer.echo(json.dumps(found))
        return
    for name, number in found.items():
        typer.echo(f"{name:<13} {number}")


@app.command()
def plan(
    specs: Annotated[list[Path], typer.Argument(help="Fine-tuning, sweep or serving YAML files.")],
    cluster: Annotated[
        Path | None,
        typer.Option(help="cluster.yaml or KubeRay manifest to place on; this machine if absent."),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Place on the cluster that RAY_ADDRESS names.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Say where specs would run, what that takes and costs, without starting anything."""
    from kovar.planning import draw, plan_specs

    if live and cluster is not None:
        raise UserError("--live and --cluster name two clusters", hint="give one of them")
    planned = plan_specs(specs, cluster=_connected() if live else cluster)
    if as_json:
        typer.echo(json.dumps(planned.to_json()))
        return
    Console().print(draw(planned))


def _connected() -> Cluster:
    from kovar.resources import live_cluster

    return live_cluster()


@app.command()
def predict(
    reference: Annotated[str, typer.Argument(help="name, name@alias, name@number or a digest.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to classify.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="Text file with one input a line; - for standard input.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Answer texts with a registered version, in this process: labels, tags or losses."""
    from kovar.inference import TorchScorer, TorchTagger, load_version
    from kovar.registry import Registry

    inputs = [text for text in texts or [] if text.strip()]
    if file is not None:
        inputs += _lines(file)
    if not inputs:
        raise UserError("nothing to classify", hint="give texts, or --file FILE with one a line")
    with Registry.open(load_settings()) as registry:
        found = registry.resolve(reference)
        runtime = load_version(registry, found, require_golden=True)
    if isinstance(runtime, TorchTagger):
        _show_tags(found, runtime.tag(inputs), as_json=as_json)
        return
    if isinstance(runtime, TorchScorer):
        _show_losses(found, inputs, runtime.score(inputs), as_json=as_json)
        return
    predictions = runtime.predict(inputs)
    if as_json:
        rows = [
            {"label": p.label, "score": p.score, "scores": p.scores}
            | ({"labels": _names(p)} if runtime.any_labels else {})
            for p in predictions
        ]
        facts = {"model": found.model, "version": found.number, "digest": found.digest}
        typer.echo(json.dumps({**facts, "predictions": rows}))
        return
    table = Table("label", "score", "text")
    for text, prediction in zip(inputs, predictions, strict=True):
        label = ", ".join(_names(prediction)) if runtime.any_labels else prediction.label
        table.add_row(Text(label), f"{prediction.score:.3f}", Text(text))
    Console().print(table)
    typer.echo(f"{found} · sha256 {found.digest}")


def _names(prediction: Prediction) -> list[str]:
    """Return the labels that a text has, where it may have any number of them."""
    from kovar.evaluation import THRESHOLD

    return [label for label, score in prediction.scores.items() if score >= THRESHOLD]


def _show_tags(version: Version, taggings: Sequence[Tagging], *, as_json: bool) -> None:
    if as_json:
        rows = [{"words": one.words, "tags": one.tags} for one in taggings]
        facts = {"model": version.model, "version": version.number, "digest": version.digest}
        typer.echo(json.dumps({**facts, "predictions": rows}))
        return
    for one in taggings:
        table = Table("word", "tag")
        for word, tag in zip(one.words, one.tags, strict=True):
            table.add_row(Text(word), Text(tag or ""))
        Console().print(table)
    typer.echo(f"{version} · sha256 {version.digest}")


def _show_losses(
    version: Version, texts: Sequence[str], losses: Sequence[TextLoss], *, as_json: bool
) -> None:
    if as_json:
        rows = [{"loss": one.loss, "num_tokens": one.num_tokens} for one in losses]
        facts = {"model": version.model, "version": version.number, "digest": version.digest}
        typer.echo(json.dumps({**facts, "predictions": rows}))
        return
    table = Table("nats a token", "tokens", "text")
    for text, one in zip(texts, losses, strict=True):
        table.add_row(f"{one.loss:.3f}", str(one.num_tokens), Text(text))
    Console().print(table)
    typer.echo(f"{version} · sha256 {version.digest}")


def _lines(file: Path) -> list[str]:
    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        lines = content.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
        return [line for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError) as problem:
        raise UserError(f"cannot read the inputs: {problem}", file=file) from None


@app.command()
def quickstart(
    spec: Annotated[
        Path | None, typer.Option(help="Fine-tuning YAML; movie-sentiment if absent.")
    ] = None,
    keep_serving: Annotated[
        bool, typer.Option("--keep-serving", help="Serve until Ctrl-C instead of ending.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Train again even if this run is finished.")
    ] = False,
    port: Annotated[
        int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.", min=0, max=65535)
    ] = 0,
) -> None:
    """Fine-tune, evaluate, register and serve a real model on this machine, end to end."""
    from kovar.quickstart import run_quickstart

    run_quickstart(spec, keep_serving=keep_serving, fresh=fresh, port=port)
