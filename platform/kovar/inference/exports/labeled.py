"""The texts that int8 exports are calibrated on and judged by: those of the version's own run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kovar.data import DataSpec, LayoutName
from kovar.data.spec import EvaluationSource
from kovar.errors import DataError
from kovar.inference.exports.form import Accuracy
from kovar.inference.runtime import Runtime, Text

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from kovar.data import Progress
    from kovar.registry import Version

NUM_CALIBRATION_TEXTS: Final = 256
MAX_JUDGED_TEXTS: Final = 2_000
"""A difference of one percent is above the noise of rounding long before."""

_LAYOUTS: Final[dict[str, LayoutName]] = {
    "text-classification": "text-label",
    "multilabel-classification": "text-labels",
}
_CHUNK: Final = 256


@dataclass(frozen=True)
class LabeledTexts:
    """Texts of a version's own run.

    Args:
        texts: held out of training.
        truth: whether each label is true of each of them, shape (rows, labels).
        calibration: that it was trained on.
    """

    texts: Sequence[Text]
    truth: NDArray[np.bool_]
    calibration: Sequence[Text]

    def compare(self, reference: Runtime, export: Runtime) -> Accuracy:
        """Hold an export against the version in fp32."""
        score = _f1_micro if reference.any_labels else _accuracy
        return Accuracy(
            metric="f1_micro" if reference.any_labels else "accuracy",
            reference=score(_scores(reference, self.texts), self.truth),
            export=score(_scores(export, self.texts), self.truth),
            num_rows=len(self.texts),
        )


def labeled_texts(
    version: Version, *, cache_dir: Path, base_dir: Path, progress: Progress | None = None
) -> LabeledTexts:
    """Read the data that a version was trained and evaluated on, divided as in its run.

    Args:
        version: what is exported.
        cache_dir: where packages are kept.
        base_dir: folder that relative paths start from: the one of the run's spec.
        progress: told about downloads.

    Raises:
        DataError: the data is not recorded, not there any more, or not the same.
    """
    from kovar.data import load_table
    from kovar.data.dataset import held_out_rows

    spec, layout = _data_of(version), _LAYOUTS[version.manifest.signature.task]
    options: dict[str, Any] = {"layout": layout, "cache_dir": cache_dir, "base_dir": base_dir}
    try:
        source = load_table(spec, progress=progress, **options)
        training, judged = source.table, source.table
        if isinstance(spec.evaluation, EvaluationSource):
            other = spec.model_copy(update={"source": spec.evaluation.source})
            held_out = load_table(other, progress=progress, min_labels=1, **options)
            judged = held_out.table
            _check_same(version, held_out.content_digest, field="data.evaluation.source")
        else:
            chosen = held_out_rows(spec, source, layout=layout)
            judged = judged.take(chosen)
            training = training.take(sorted(set(range(training.num_rows)) - set(chosen.tolist())))
    except DataError as problem:
        problem.hint = problem.hint or _WHERE
        raise
    _check_same(version, source.content_digest, field="data.source")
    judged = spread_rows(judged, MAX_JUDGED_TEXTS)
    return LabeledTexts(
        texts=_texts(judged),
        truth=_truth(judged, version.manifest.signature.labels),
        calibration=_texts(spread_rows(training, NUM_CALIBRATION_TEXTS)),
    )


_WHERE: Final = "int8 is judged by the texts that the version was evaluated on: say where they are"


def _data_of(version: Version) -> DataSpec:
    block = version.manifest.spec.get("data")
    if not isinstance(block, dict) or version.manifest.signature.task not in _LAYOUTS:
        raise DataError(
            f"{version} does not say which labeled texts it was evaluated on",
            field="precision",
            got="int8",
            hint="an int8 export is judged by them: serve this version in fp32 or bf16",
        )
    return DataSpec.model_validate_json(json.dumps(block))


def spread_rows(table: pa.Table, most: int) -> pa.Table:
    """Return rows at equal distances: in a file that is sorted, the first ones share a label."""
    if table.num_rows <= most:
        return table
    return table.take([row * table.num_rows // most for row in range(most)])


def _check_same(version: Version, content_digest: str, *, field: str) -> None:
    made_of = version.manifest.data
    facts: Any = made_of.details if made_of else {}
    if field == "data.evaluation.source":
        facts = facts.get("evaluation_source", {})
    recorded = facts.get("content_sha256")
    if recorded not in (None, content_digest):
        raise DataError(
            f"these are not the rows that {version} was trained and evaluated on",
            field=field,
            got=content_digest[:12],
            allowed=str(recorded)[:12],
            hint=_WHERE,
        )


def _texts(table: pa.Table) -> list[Text]:
    first: list[str] = table.column("text").to_pylist()
    if "text_pair" not in table.column_names:
        return list(first)
    return list(zip(first, table.column("text_pair").to_pylist(), strict=True))


def _truth(table: pa.Table, labels: Sequence[str]) -> NDArray[np.bool_]:
    import numpy as np

    rows = [[one] if isinstance(one, str) else one for one in table.column("label").to_pylist()]
    return np.array([[label in row for label in labels] for row in rows], dtype=np.bool_)


def _scores(runtime: Runtime, texts: Sequence[Text]) -> NDArray[np.float32]:
    import numpy as np

    parts = [
        [list(one.scores.values()) for one in runtime.predict(texts[start : start + _CHUNK])]
        for start in range(0, len(texts), _CHUNK)
    ]
    return np.array([row for part in parts for row in part], dtype=np.float32)


def _accuracy(scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    return float((scores.argmax(axis=1) == truth.argmax(axis=1)).mean())


def _f1_micro(scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    found = scores >= 0.5
    hits = float((found & truth).sum())
    return 2 * hits / max(1.0, float(found.sum() + truth.sum()))
