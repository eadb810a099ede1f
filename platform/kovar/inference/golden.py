"""Whether a loaded version answers as it was evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kovar.errors import GoldenError
from kovar.inference.classifier_runtime import ClassifierRuntime
from kovar.registry.golden import (
    GOLDEN_FILE,
    GoldenNumbers,
    check_golden,
    check_numbers,
    read_golden,
)

if TYPE_CHECKING:
    from kovar.inference.runtime import Text

GOLDEN_TOLERANCE: Final[dict[str, float]] = {
    "fp32": 1e-3,
    "tf32": 1e-2,
    "bf16": 3e-2,
    "fp16": 3e-2,
    "int8": 0.15,
}
"""Largest difference of a probability that counts as the same answer, by precision."""


def tolerance_of(precision: str) -> float:
    """Return the largest difference of a probability that counts as the same answer."""
    return GOLDEN_TOLERANCE[precision]


def verify_golden(loaded: Any, folder: Path) -> float:
    """Run the golden examples in `folder`.

    Args:
        loaded: a runtime, a tagger or a scorer.
        folder: the files of its version.

    Returns:
        The largest difference of a number: of a probability, mostly.

    Raises:
        GoldenError: an answer differs by more than the precision allows, or there are no examples.
    """
    golden, tolerance = read_golden(folder), tolerance_of(loaded.precision)
    if isinstance(golden, GoldenNumbers):
        return check_numbers(golden, _numbers(loaded, golden), tolerance=tolerance)
    if not isinstance(loaded, ClassifierRuntime):
        raise GoldenError(f"{GOLDEN_FILE} holds labels of texts, which this version does not give")
    return check_golden(golden, loaded.predict(golden_texts(folder)), tolerance=tolerance)


def golden_texts(folder: Path) -> list[Text]:
    """Return the texts of a classifier's golden examples; of another version none."""
    golden = read_golden(folder)
    if isinstance(golden, GoldenNumbers):
        return []
    return [
        one.text if one.text_pair is None else (one.text, one.text_pair) for one in golden.examples
    ]


def _numbers(loaded: Any, golden: GoldenNumbers) -> list[tuple[float, ...]]:
    from kovar.inference.torch_scorer import TorchScorer
    from kovar.inference.torch_tagger import TorchTagger

    if isinstance(loaded, TorchTagger):
        return [tagging.numbers for tagging in loaded.tag([one.words for one in golden.examples])]
    if isinstance(loaded, TorchScorer):
        texts, forms = [one.text for one in golden.examples], {one.form for one in golden.examples}
        if len(forms) == 1:
            return [(one.loss,) for one in loaded.score(texts, form=forms.pop() or "text")]
    raise GoldenError(f"{GOLDEN_FILE} holds {golden.meaning}, which this version does not give")
