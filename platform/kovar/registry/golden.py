"""Golden examples: texts and what a version answered to them when it was registered.

A classifier of texts has a label and scores for each; every other version has numbers: of a tagger
the probabilities of each word's tags, of a language model the losses of the text.

They travel inside the version as `golden.json`. A runtime that does not reproduce them does not
serve.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, Protocol

from pydantic import Field, ValidationError, model_validator

from kovar.config import Config, canonical_json
from kovar.errors import GoldenError

GOLDEN_FILE: Final = "golden.json"
_ANOTHER: Final = (
    "this runtime does not compute what was evaluated: serve the version with another runtime or "
    "precision"
)


class GoldenExample(Config):
    """One text and what the version answered."""

    text: str = Field(description="the input")
    text_pair: str | None = Field(default=None, description="its second text, if it has one")
    label: str = Field(description="the predicted label")
    scores: dict[str, float] = Field(description="label → probability")


class GoldenExamples(Config):
    """The golden examples of one version."""

    labels: tuple[str, ...] = Field(min_length=2, description="all labels of the version")
    examples: tuple[GoldenExample, ...] = Field(min_length=1, description="the examples")

    @model_validator(mode="after")
    def _scores_cover_labels(self) -> GoldenExamples:
        for index, example in enumerate(self.examples):
            if set(example.scores) != set(self.labels) or example.label not in self.labels:
                raise ValueError(f"example {index} does not score exactly the labels")
        return self


class NumberedExample(Config):
    """One input and the numbers that the version answered with."""

    text: str = Field(default="", description="the input; empty where it is given as words")
    words: tuple[str, ...] = Field(default=(), description="the input of a tagger")
    form: Literal["text", "prompt", "messages"] | None = Field(
        default=None, description="what the text is, in JSON but for text: of a language model"
    )
    numbers: tuple[float, ...] = Field(description="what the version answered, in order")


class GoldenNumbers(Config):
    """The golden examples of a version that answers with something else than a label."""

    meaning: str = Field(description="what the numbers are, for messages")
    examples: tuple[NumberedExample, ...] = Field(min_length=1, description="the examples")


Golden = GoldenExamples | GoldenNumbers


class Scored(Protocol):
    """What `check_golden` reads of a prediction."""

    @property
    def label(self) -> str:
        """The predicted label."""

    @property
    def scores(self) -> Mapping[str, float]:
        """Label → probability."""


def write_golden(golden: Golden, folder: Path) -> Path:
    """Write `golden.json` into a folder that is about to be registered."""
    path = folder / GOLDEN_FILE
    path.write_bytes(canonical_json(golden.model_dump(mode="json", exclude_none=True)) + b"\n")
    return path


def read_golden(folder: Path) -> Golden:
    """Read `golden.json` of a materialized version.

    Raises:
        GoldenError: the file is missing or not what `write_golden` writes.
    """
    path = folder / GOLDEN_FILE
    try:
        content = path.read_bytes()
        kind = GoldenNumbers if _has_numbers(content) else GoldenExamples
        return kind.model_validate_json(content)
    except FileNotFoundError:
        raise GoldenError(
            f"the version has no {GOLDEN_FILE}", hint="register it again with golden examples"
        ) from None
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise GoldenError(f"{path}: {where}: {first['msg']}") from None


def _has_numbers(content: bytes) -> bool:
    try:
        found = json.loads(content)
    except ValueError:
        return False  # Pydantic says where it is broken.
    return isinstance(found, dict) and "meaning" in found


def check_golden(
    golden: GoldenExamples, predictions: Sequence[Scored], *, tolerance: float
) -> float:
    """Compare a runtime's predictions with the golden ones; the texts never enter a message.

    A label may differ only where the golden scores of both labels are a tie within the tolerance.

    Args:
        golden: what the version answered when it was registered.
        predictions: what the runtime answers to the same texts, in the same order.
        tolerance: largest allowed difference of a probability.

    Returns:
        The largest difference found.

    Raises:
        GoldenError: the number or the labels differ, or a score does, by more than the tolerance;
            it names the index of the worst example and the difference.
    """
    if len(predictions) != len(golden.examples):
        raise GoldenError(
            f"{len(predictions)} predictions for {len(golden.examples)} golden examples"
        )
    pairs = list(zip(golden.examples, predictions, strict=True))
    for index, (_, prediction) in enumerate(pairs):
        if set(prediction.scores) != set(golden.labels):
            raise GoldenError(
                f"golden example {index}: the runtime scores other labels",
                got=sorted(prediction.scores),
                allowed=sorted(golden.labels),
            )
    differences = [_difference(example, prediction) for example, prediction in pairs]
    worst = max(differences)
    if worst > tolerance:
        raise GoldenError(
            f"golden example {differences.index(worst)}: a score differs by {worst:.3g} "
            f"(at most {tolerance:.3g} is allowed)",
            hint=_ANOTHER,
        )
    for index, (example, prediction) in enumerate(pairs):
        got = example.scores.get(prediction.label, -math.inf)
        if example.scores[example.label] - got > 2 * tolerance:
            raise GoldenError(f"golden example {index}: the runtime's label contradicts its scores")
    return worst


def check_numbers(
    golden: GoldenNumbers, found: Sequence[Sequence[float]], *, tolerance: float
) -> float:
    """Compare a runtime's numbers with the golden ones; the inputs never enter a message.

    Args:
        golden: what the version answered when it was registered.
        found: what the runtime answers to the same inputs, in the same order.
        tolerance: largest allowed difference of a number.

    Returns:
        The largest difference found.

    Raises:
        GoldenError: a number is absent, or differs by more than the tolerance.
    """
    worst = 0.0
    for index, (example, numbers) in enumerate(zip(golden.examples, found, strict=True)):
        if len(numbers) != len(example.numbers):
            raise GoldenError(
                f"golden example {index}: {len(numbers)} {golden.meaning} in place of "
                f"{len(example.numbers)}"
            )
        pairs = zip(example.numbers, numbers, strict=True)
        difference = _largest([abs(there - here) for there, here in pairs])
        if difference > tolerance:
            raise GoldenError(
                f"golden example {index}: one of the {golden.meaning} differs by "
                f"{difference:.3g} (at most {tolerance:.3g} is allowed)",
                hint=_ANOTHER,
            )
        worst = max(worst, difference)
    return worst


def _difference(example: GoldenExample, prediction: Scored) -> float:
    return _largest(
        [abs(prediction.scores[label] - score) for label, score in example.scores.items()]
    )


def _largest(differences: Sequence[float]) -> float:
    # NaN compares false with everything, so that max() could miss it.
    return math.inf if any(map(math.isnan, differences)) else max(differences, default=0.0)
