"""`kovar quickstart`: the whole route on real input, on this machine, ending by itself."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kovar.config import load_document
from kovar.errors import RunError, SpecError, UserError
from kovar.settings import Settings, load_settings
from kovar.training import FineTuneSpec

if TYPE_CHECKING:
    from kovar.training.run import RunResult

TEXTS: Final = (
    "A gorgeous, witty, seductive movie.",
    "The plot is thin and the jokes fall flat.",
    "Moving, funny and beautifully acted from start to finish.",
    "A tedious and predictable mess.",
)
RECIPE: Final = "movie-sentiment.yaml"


def run_quickstart(spec_path: Path | None, *, keep_serving: bool, fresh: bool, port: int) -> None:
    """Plan, fine-tune, evaluate, register, deploy, ask over HTTP; then stop everything.

    Args:
        spec_path: a fine-tuning spec; the movie-sentiment recipe if None.
        keep_serving: serve until Ctrl-C instead of ending.
        fresh: train again even if this run is finished.
        port: port on 127.0.0.1; 0 takes a free one.

    Raises:
        UserError: the spec, the data, the model or this machine is at fault.
        RunError: training or serving failed.
    """
    from kovar.training.plan import plan_run
    from kovar.training.progress import RunProgress
    from kovar.training.run import run

    console = Console()
    started = time.monotonic()
    port = _usable_port(port)
    path = spec_path or find_recipe()
    settings = load_settings()
    document = load_document(path)
    spec = document.parse(FineTuneSpec)
    with document.pointing():
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        console.rule(f"[bold]1 of 4 · plan[/] {shown}", align="left")
        planned = plan_run(spec)
        num_workers = spec.resources.num_workers.min
        console.print(
            f"{num_workers} workers × {spec.resources.worker.cpus:g} CPU on {planned.device}\n"
            f"precision {planned.precision.reason}",
            highlight=False,
            soft_wrap=True,
        )
        console.rule("[bold]2 of 4 · fine-tune, evaluate, register[/]", align="left")
        with _local_ray(num_cpus=num_workers * spec.resources.worker.cpus):
            result = run(
                spec,
                base_dir=path.parent,
                settings=settings,
                progress=RunProgress(console),
                fresh=fresh,
            )
            console.print(result.summary(), highlight=False, markup=False, soft_wrap=True)
            console.rule("[bold]3 of 4 · serve and ask over HTTP[/]", align="left")
            _serve_and_ask(result, console, port=port, keep_serving=keep_serving)
    console.rule("[bold]4 of 4 · what to try next[/]", align="left")
    console.print(_next_steps(result, settings), highlight=False, soft_wrap=True)
    console.print(f"\ndone in {time.monotonic() - started:.0f} s", highlight=False)


def find_recipe() -> Path:
    """Return the movie-sentiment recipe: of the source tree, else the one in the package.

    Raises:
        SpecError: neither is there.
    """
    package = Path(__file__).parent
    for folder in (package.parents[1] / "jobs", package / "recipes"):
        if (folder / RECIPE).exists():
            return folder / RECIPE
    raise SpecError("the recipe is missing from this installation", file=RECIPE)


@contextmanager
def _local_ray(*, num_cpus: float) -> Iterator[None]:
    """Run a Ray of our own for the duration of the block."""
    import ray

    from kovar.serving.environment import prepare

    prepare(os.environ)
    ray.init(
        address="local",
        num_cpus=max(2, int(num_cpus)),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()


def _serve_and_ask(result: RunResult, console: Console, *, port: int, keep_serving: bool) -> None:
    from ray import serve

    from kovar.serving import build

    version = result.version
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    with console.status("starting Ray Serve and loading the version"):
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        application = build({"model": version.model, "version": version.digest})
        serve.run(application, name=version.model, route_prefix="/")
    url = f"http://127.0.0.1:{port}"
    try:
        answers, digest = ask(f"{url}/v1/predict", TEXTS)
        if digest != version.digest:
            raise RunError(f"the endpoint serves {digest}, not {version.digest}")
        table = Table("label", "score", "text", caption=f"x-kovar-digest: {digest}")
        for text, answer in zip(TEXTS, answers, strict=True):
            table.add_row(Text(answer["label"]), f"{answer['score']:.3f}", text)
        console.print(f"POST {url}/v1/predict", highlight=False)
        console.print(table)
        if keep_serving:
            _serve_until_interrupted(console, url)
    finally:
        with console.status("draining the endpoint"):
            serve.delete(version.model)


def ask(url: str, texts: tuple[str, ...]) -> tuple[list[dict[str, Any]], str]:
    """POST texts to a `/v1/predict` endpoint; return the predictions and the version's digest."""
    body = json.dumps({"inputs": texts}).encode()
    request = urllib.request.Request(  # noqa: S310 (the URL is ours: http on loopback)
        url, data=body, headers={"content-type": "application/json"}
    )
    # A proxy of the environment does not lead to this machine's loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as response:
            return json.load(response)["predictions"], response.headers["x-kovar-digest"]
    except OSError as problem:
        raise RunError(f"{url} does not answer: {problem}") from None


def _serve_until_interrupted(console: Console, url: str) -> None:
    console.print(
        f"serving on {url} until Ctrl-C; for example\n"
        f"  curl -s {url}/v1/predict -H 'content-type: application/json' "
        '-d \'{"inputs": ["What a film!"]}\'',
        highlight=False,
        soft_wrap=True,
    )
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        console.print("stopping")


def _usable_port(port: int) -> int:
    """Return the port if it is free, or a free one for 0, before any work is done for it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as problem:
            raise UserError(
                f"the port cannot be used: {problem.strerror}",
                field="--port",
                got=port,
                hint="choose another, or 0 for any that is free",
            ) from None
        found: int = probe.getsockname()[1]
        return found


def _next_steps(result: RunResult, settings: Settings) -> str:
    model = result.version.model
    return "\n".join(
        [
            "first      source .venv/bin/activate",
            f"look       kovar models show {model}@{result.version.number}",
            f'predict    kovar predict {model}@{result.version.number} "What a film!"',
            f"curves     tensorboard --logdir {settings.runs_dir}",
            "cluster    ray start --head",
            "submit     ray job submit --working-dir . --runtime-env jobs/runtime-env.yaml -- "
            "python jobs/finetune.py jobs/movie-sentiment.yaml",
            "sweep      python tune/sweep.py tune/tiny-lr-precision.yaml",
            "serve      serve deploy serve/movie-sentiment.yaml   (or, without a cluster: "
            "serve run serve/movie-sentiment.yaml)",
        ]
    )
