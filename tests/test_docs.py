"""The guides and the code agree: links, commands, YAML, reference tables."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from kovar.batch import (
    EvaluateData,
    EvaluateSpec,
    PredictInput,
    PredictOutput,
    PredictSpec,
    SliceSettings,
)
from kovar.cli import app
from kovar.config import Document, parse_size
from kovar.data import TokenizerSettings
from kovar.data.spec import DataSpec, EvaluationSource
from kovar.errors import UserError
from kovar.events import FIELDS
from kovar.inference import BatchLimits
from kovar.models import ModelSpec
from kovar.resources.request import CpuRequest, GpuRequest, Resources, TpuRequest, WorkerRange
from kovar.serving import RequestLimits, ServingSpec, read_args
from kovar.serving.access import AccessSettings
from kovar.serving.adapters.settings import AdapterSettings, ServedAdapter
from kovar.serving.observe import CaptureSettings, ObserveSettings
from kovar.serving.spec import Autoscaling, FurtherModel, ReplicaRange
from kovar.settings import Settings
from kovar.training import FineTuneSpec, RegistrationSettings, TrainingSettings
from kovar.training.judge import EarlyStopping
from kovar.training.method import Full, Lora
from kovar.training.optimizer import SGD, Adafactor, AdamW, AdamW8bit
from kovar.training.parallel import Ddp, Fsdp
from kovar.training.schedule import CosineRestarts, Plateau
from kovar.tuning import SweepSpec
from kovar.tuning.scheduler import Asha, HyperBand, MedianStopping, Pbt
from kovar.tuning.searcher import Tpe
from kovar.tuning.spec import Budget

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
USAGE_ERROR = typer.BadParameter.__mro__[1]
REFUSALS = re.compile(r'code="(\w+)"|\d{3}: \("[^"]+", "(\w+)"\)')

REFERENCES: dict[str, list[tuple[type[BaseModel], str]]] = {
    "finetuning.md": [
        (FineTuneSpec, ""),
        (ModelSpec, "model."),
        (TokenizerSettings, "model.tokenizer."),
        *((kind, "method.") for kind in (Full, Lora)),
        (DataSpec, "data."),
        (EvaluationSource, "data.evaluation."),
        (TrainingSettings, "training."),
        *((kind, "training.optimizer.") for kind in (AdamW, AdamW8bit, Adafactor, SGD)),
        *((kind, "training.schedule.") for kind in (CosineRestarts, Plateau)),
        (EarlyStopping, "training.early_stopping."),
        *((kind, "parallelism.") for kind in (Ddp, Fsdp)),
        (Resources, "resources."),
        (WorkerRange, "resources.num_workers."),
        (CpuRequest, "resources.worker."),
        (GpuRequest, "resources.worker."),
        (TpuRequest, "resources.worker."),
        (RegistrationSettings, "registration."),
    ],
    "sweeps.md": [
        (SweepSpec, ""),
        (Budget, "budget."),
        (Tpe, "searcher."),
        *((kind, "scheduler.") for kind in (Asha, MedianStopping, HyperBand, Pbt)),
    ],
    "evaluation.md": [
        (EvaluateSpec, ""),
        (EvaluateData, "data."),
        (SliceSettings, "slices."),
        (PredictSpec, ""),
        (PredictInput, "input."),
        (PredictOutput, "output."),
    ],
    "serving.md": [
        (ServingSpec, ""),
        (FurtherModel, "more_models[]."),
        (AdapterSettings, "adapters."),
        (ServedAdapter, "adapters.models[]."),
        (ReplicaRange, "num_replicas."),
        (Autoscaling, "autoscaling."),
        (RequestLimits, "limits."),
        (BatchLimits, "batching."),
        (AccessSettings, "access."),
        (ObserveSettings, "observe."),
        (CaptureSettings, "observe.capture."),
    ],
}
FIELD_CASES = [
    pytest.param(guide, prefix + name, field, id=f"{model.__name__}.{name}")
    for guide, models in REFERENCES.items()
    for model, prefix in models
    for name, field in model.model_fields.items()
]


def blocks(text: str, *languages: str) -> list[str]:
    """Return the fenced blocks in these languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [body for language, body in found if language in languages]


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of every command of the console and shell blocks."""
    for language in ("console", "sh", "bash"):
        for block in blocks(text, language):
            for line in block.replace("\\\n", " ").splitlines():
                if language == "console" and not line.startswith("$ "):
                    continue
                words = shlex.split(line.removeprefix("$ "), comments=True)
                yield [word for word in words if not re.fullmatch(r"[A-Z_]+=.*", word)]


def check_kovar(words: list[str]) -> None:
    """Parse a `kovar` command line without running it."""
    command: Any = typer.main.get_command(app)
    name = "kovar"
    while hasattr(command, "commands"):
        assert words, f"{name} needs a command"
        name, *words = words
        if name == "--help":
            return
        assert name in command.commands, f"kovar has no command {name!r}"
        command = command.commands[name]
    if words != ["--help"]:
        command.make_context(name, list(words))


def check_script(words: list[str]) -> None:
    """Check that the script of a `python` command line exists and knows the options."""
    script, *arguments = words
    if script.startswith("-"):
        return
    source = (ROOT / script).read_text()
    for option in (word for word in arguments if word.startswith("--")):
        assert f'"{option}"' in source, f"{script} has no option {option}"


def rows(text: str) -> dict[str, list[str]]:
    """Return the table rows of a page: the code in the first cell → all cells."""
    tables = re.findall(r"^\| `([^`]+)` \|(.*)\|$", text, re.MULTILINE)
    return {name: [cell.strip() for cell in rest.split(" | ")] for name, rest in tables}


def anchors(page: Path) -> set[str]:
    """Return the anchors that a page's headings get."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        found = page.parent / path if path else page
        assert found.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(found), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_of_this_repository_that_a_page_names_exist(page: Path) -> None:
    pattern = r"\b((?:jobs|tune|serve|tests|benchmarks|platform/kovar)/[\w./-]+\.(?:py|yaml|md))\b"
    for path in re.findall(pattern, page.read_text()):
        assert (ROOT / path).is_file(), f"{page.name} names {path}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_yaml_examples_are_valid_specs(page: Path) -> None:
    for block in blocks(page.read_text(), "yaml"):
        document = Document(page, block)
        fields = document.data if isinstance(document.data, dict) else {}
        if fields.get("kind") == "finetune":
            document.parse(FineTuneSpec)
        elif fields.get("kind") == "sweep":
            document.parse(SweepSpec)
        elif fields.get("kind") == "evaluate":
            document.parse(EvaluateSpec)
        elif fields.get("kind") == "predict":
            document.parse(PredictSpec)
        for application in fields.get("applications", ()):
            read_args(application["args"])


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_and_their_options_exist(page: Path) -> None:
    for program, *words in filter(None, commands(page.read_text())):
        if program == "kovar":
            check_kovar(words)
        elif "python" in (program, *words):
            check_script([program, *words][[program, *words].index("python") + 1 :])


def test_the_guides_show_commands_and_specs() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    programs = [words[0] for words in commands(text) if words]
    assert programs.count("kovar") > 5
    kinds = [yaml.safe_load(block).get("kind") for block in blocks(text, "yaml")]
    assert {"finetune", "sweep"} <= set(kinds)


@pytest.mark.parametrize("line", ["models lst", "plan --clutser x y", "predict", "models alias m"])
def test_a_wrong_command_is_noticed(line: str) -> None:
    with pytest.raises((AssertionError, USAGE_ERROR)):
        check_kovar(line.split())


@pytest.mark.parametrize(("guide", "name", "field"), FIELD_CASES)
def test_every_field_is_in_its_guide_with_its_default(guide: str, name: str, field: Any) -> None:
    table = rows((ROOT / "docs" / guide).read_text())
    assert name in table, f"{guide} lacks {name}"
    shown = table[name][0]
    if shown == "see below" or "kind" in name:
        return
    if field.default is PydanticUndefined:
        assert shown == "required" or field.default_factory is not None or "type" in name
        return
    default = yaml_value(shown)
    if isinstance(field.default, BaseModel):
        assert default == field.default.model_dump(mode="json")
    elif isinstance(field.default, int) and isinstance(default, str):
        assert parse_size(default) == field.default
    else:
        shown_as = list(field.default) if isinstance(field.default, tuple) else field.default
        assert default == shown_as


def yaml_value(cell: str) -> Any:
    """Read the value in a table's cell as Kovar reads it in a spec."""
    return Document(Path("cell"), f"value: {cell.strip('`')}").data["value"]


@pytest.mark.parametrize("guide", REFERENCES)
def test_a_guide_lists_no_field_that_is_gone(guide: str) -> None:
    known = {prefix + name for model, prefix in REFERENCES[guide] for name in model.model_fields}
    dotted = {name for name in rows((ROOT / "docs" / guide).read_text()) if "." in name}
    assert {name for name in dotted if re.fullmatch(r"[a-z_.]+", name)} <= known


@pytest.mark.parametrize("kind", FIELDS)
def test_the_event_table_is_the_schema(kind: str) -> None:
    table = rows((ROOT / "docs" / "concepts.md").read_text())
    assert table[kind] == [FIELDS[kind]]  # type: ignore[index]


def test_every_refusal_of_the_endpoint_is_listed() -> None:
    sources = [*(ROOT / "platform/kovar").glob("serving/**/*.py")]
    sources += (ROOT / "platform/kovar").glob("inference/*.py")
    found = {a or b for path in sources for a, b in REFUSALS.findall(path.read_text())}
    listed = re.findall(r"^\| \d{3} \| `(\w+)` \|", (ROOT / "docs/serving.md").read_text(), re.M)
    assert len(found) > 15
    assert found == set(listed)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_listed_with_its_variable(name: str) -> None:
    # A simulation says so in the environment alone: no file belongs to it.
    in_file = "" if name == "simulated" else f"`{name}`"
    table = rows((ROOT / "docs/operations.md").read_text())
    assert table[f"KOVAR_{name.upper()}"][0] == in_file


def test_a_wrong_example_is_noticed() -> None:
    with pytest.raises(UserError, match="learning_rat"):
        Document(Path("x"), "kind: sweep\nlearning_rat: 1\n").parse(SweepSpec)


def test_every_guide_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index
