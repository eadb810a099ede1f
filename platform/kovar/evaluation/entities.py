"""Precision, recall and F1 of named entities: a span counts when its edges and its type agree.

The two schemes are those of seqeval (Nakayama 2018), which follows CoNLL-2000's conlleval:

- `bio` (seqeval's default): an `I-` tag without a `B-` of its type before it begins an entity.
- `iob2` (seqeval's strict mode): an entity begins with `B-`; other `I-` tags belong to none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from kovar.evaluation.bootstrap import Statistic, bootstrap
from kovar.evaluation.metrics import ClassMetrics

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from kovar.registry.interval import Interval

Scheme = Literal["bio", "iob2"]


@dataclass(frozen=True)
class Entity:
    """A span of tokens: type, first token, and the token after the last."""

    type: str
    start: int
    end: int


@dataclass(frozen=True)
class EntityMetrics:
    """What a tagger found; `support` of a type is its number of true entities.

    Args:
        precision: over all entities (micro average), as are `recall` and `f1`.
        recall: see `precision`.
        f1: see `precision`.
        macro_f1: mean F1 of the types.
        accuracy: share of tokens with the right tag.
        num_rows: sentences.
        num_tokens: tokens that have a tag.
        per_class: by type of entity.
    """

    precision: float
    recall: float
    f1: float
    macro_f1: float
    accuracy: float
    num_rows: int
    num_tokens: int
    per_class: dict[str, ClassMetrics]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, as stored in a version's manifest."""
        found = asdict(self)
        found["per_class"] = {name: one.to_json() for name, one in self.per_class.items()}
        return found


def entities_of(tags: Sequence[str], *, scheme: Scheme = "bio") -> list[Entity]:
    """Return the entities of one sentence, in order.

    Args:
        tags: `O`, `B-TYPE` or `I-TYPE` per token.
        scheme: what an `I-` tag that continues nothing means.

    Raises:
        ValueError: a tag is of another form.
    """
    return list(_spans(tags, scheme))


def _spans(tags: Sequence[str], scheme: Scheme) -> Iterator[Entity]:
    open_type: str | None = None
    start = 0
    for index, tag in enumerate([*tags, "O"]):
        position, _, kind = tag.partition("-")
        if tag != "O" and (position not in ("B", "I") or not kind):
            raise ValueError(f"not a tag: {tag!r}; there are O, B-TYPE and I-TYPE")
        if position == "I" and kind == open_type:
            continue
        if open_type is not None:
            yield Entity(open_type, start, index)
        begins = position == "B" or (position == "I" and scheme == "bio")
        open_type, start = (kind if begins else None), index


def entity_metrics(
    true: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    *,
    scheme: Scheme = "bio",
) -> EntityMetrics:
    """Score the tags of sentences.

    Args:
        true: tags per sentence.
        predicted: tags per sentence, as many as in `true`.
        scheme: see `entities_of`.

    A type that is never predicted has precision 0, not an undefined one.
    """
    counts = EntityCounts(true, predicted, scheme=scheme)
    right, found, there = counts.totals()
    per_class = {
        kind: _metrics(*numbers)
        for kind, *numbers in zip(counts.types, right, found, there, strict=True)
    }
    micro = _metrics(right.sum(), found.sum(), there.sum())
    tokens = [pair for a, b in zip(true, predicted, strict=True) for pair in zip(a, b, strict=True)]
    return EntityMetrics(
        precision=micro.precision,
        recall=micro.recall,
        f1=micro.f1,
        macro_f1=sum(one.f1 for one in per_class.values()) / max(1, len(per_class)),
        accuracy=sum(a == b for a, b in tokens) / max(1, len(tokens)),
        num_rows=len(true),
        num_tokens=len(tokens),
        per_class=per_class,
    )


def entity_intervals(
    true: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    *,
    scheme: Scheme = "bio",
    seed: int = 0,
) -> dict[str, Interval]:
    """Return the 95 % intervals of the metrics of all types, by bootstrap over the sentences."""
    counts = EntityCounts(true, predicted, scheme=scheme)
    statistics = [counts.micro_averages, counts.macro_average, _accuracy(true, predicted)]
    return bootstrap(statistics, num_rows=len(true), seed=seed)


def _accuracy(true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Statistic:
    import numpy as np

    pairs = [list(zip(a, b, strict=True)) for a, b in zip(true, predicted, strict=True)]
    right = np.array([sum(a == b for a, b in pair) for pair in pairs], dtype=np.float64)
    tokens = np.array([len(pair) for pair in pairs], dtype=np.float64)

    def accuracy(weights: npt.NDArray[np.float64]) -> Mapping[str, float]:
        return {"accuracy": float(right @ weights) / max(float(tokens @ weights), 1.0)}

    return accuracy


class EntityCounts:
    """Per sentence and type: entities that agree, that were predicted, and that are there.

    Args:
        true: tags per sentence.
        predicted: tags per sentence, as many as in `true`.
        scheme: see `entities_of`.
    """

    def __init__(
        self,
        true: Sequence[Sequence[str]],
        predicted: Sequence[Sequence[str]],
        *,
        scheme: Scheme = "bio",
    ) -> None:
        import numpy as np

        pairs = [
            (set(_spans(a, scheme)), set(_spans(b, scheme)))
            for a, b in zip(true, predicted, strict=True)
        ]
        kinds = {one.type for there, found in pairs for one in there | found}
        self.types = tuple(sorted(kinds))
        self._table = np.zeros((3, len(pairs), len(self.types)), dtype=np.int64)
        column = {kind: index for index, kind in enumerate(self.types)}
        for row, (there, found) in enumerate(pairs):
            for which, spans in enumerate((there & found, found, there)):
                for kind, count in Counter(span.type for span in spans).items():
                    self._table[which, row, column[kind]] = count
        self._per_sentence: npt.NDArray[np.int64] = self._table.sum(axis=2)

    @property
    def per_sentence(self) -> npt.NDArray[np.int64]:
        """The three counts of each sentence, shape [3, sentences]."""
        return self._per_sentence

    def totals(self) -> npt.NDArray[np.int64]:
        """Return the three counts of each type, shape [3, types]."""
        found: npt.NDArray[np.int64] = self._table.sum(axis=1)
        return found

    def micro_averages(self, weights: npt.NDArray[np.float64]) -> Mapping[str, float]:
        """Return precision, recall and F1 of weighted sentences; see `bootstrap.Statistic`."""
        right, found, there = (self._per_sentence @ weights).tolist()
        return {
            "precision": right / max(found, 1.0),
            "recall": right / max(there, 1.0),
            "f1": 2 * right / max(found + there, 1.0),
        }

    def macro_average(self, weights: npt.NDArray[np.float64]) -> Mapping[str, float]:
        """Return the mean F1 of the types in weighted sentences; see `bootstrap.Statistic`."""
        import numpy as np

        right, found, there = np.einsum("wst,s->wt", self._table, weights)
        scores = 2 * right / np.maximum(found + there, 1.0)
        return {"macro_f1": float(scores.sum() / max(1, len(self.types)))}


def _metrics(right: int, found: int, there: int) -> ClassMetrics:
    return ClassMetrics(
        precision=float(right / found) if found else 0.0,
        recall=float(right / there) if there else 0.0,
        f1=float(2 * right / (found + there)) if found + there else 0.0,
        support=int(there),
    )
