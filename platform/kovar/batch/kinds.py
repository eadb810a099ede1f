"""How versions of each task are evaluated: what a row holds, what is asked, how it is judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from kovar.batch.worker import Answers, answer
from kovar.data import LAYOUTS, LayoutName
from kovar.errors import DataError, SpecError
from kovar.evaluation import Assessment, assess, assess_labels, assess_tags
from kovar.training.tasks import TASKS

if TYPE_CHECKING:
    import pyarrow as pa

    from kovar.registry import DatasetPredictions, Version

Groups = Mapping[str, Sequence[str]]
"""What divides the rows into slices → name of each row's slice."""


class Kind(ABC):
    """How the versions of one task are evaluated.

    Attributes:
        layout: what the rows are made of.
        field: the field that errors about labels name.
    """

    layout: LayoutName
    field: str = "data.label"

    def contents(self, table: pa.Table) -> list[Any]:
        """Return what the runtime reads of each row: a text, or two."""
        texts: list[Any] = table.column("text").to_pylist()
        if "text_pair" not in table.column_names:
            return texts
        return list(zip(texts, table.column("text_pair").to_pylist(), strict=True))

    @abstractmethod
    def names(self, table: pa.Table) -> list[Any]:
        """Return what is true of each row: the name of a label, or a list of names."""

    def ask(self, runtime: Any, contents: Sequence[Any], *, max_tokens: int) -> Answers:
        """Ask a runtime; the answers are probabilities of all labels."""
        texts = [one if isinstance(one, str) else tuple(one) for one in contents]
        return answer(runtime, texts, max_tokens=max_tokens)

    @abstractmethod
    def judge(
        self, names: list[Any], answers: Answers, version: Version, groups: Groups
    ) -> Assessment:
        """Score the answers to all rows."""

    def predictions(
        self, names: list[Any], answers: Answers, version: Version, rows: str
    ) -> DatasetPredictions | None:
        """Return the label of every row, for paired comparisons; None without single labels."""
        return None


class OneLabel(Kind):
    """Texts with one label each."""

    layout = "text-label"

    def names(self, table: pa.Table) -> list[Any]:
        """Return the label of each row."""
        labels: list[str] = table.column("label").to_pylist()
        return labels

    def judge(
        self, names: list[Any], answers: Answers, version: Version, groups: Groups
    ) -> Assessment:
        """Compare the likeliest label with the true one."""
        import numpy as np

        labels = version.manifest.signature.labels
        true = np.array([labels.index(name) for name in names], dtype=np.int64)
        return assess(true, answers.table(len(labels)), labels=labels, groups=groups)

    def predictions(
        self, names: list[Any], answers: Answers, version: Version, rows: str
    ) -> DatasetPredictions | None:
        """Return the likeliest label of every row."""
        from kovar.registry import DatasetPredictions

        labels = version.manifest.signature.labels
        return DatasetPredictions(
            rows=rows,
            labels=labels,
            true=tuple(labels.index(name) for name in names),
            predicted=tuple(answers.table(len(labels)).argmax(axis=1).tolist()),
        )


class AnyLabels(Kind):
    """Texts with any number of labels."""

    layout = "text-labels"

    def names(self, table: pa.Table) -> list[Any]:
        """Return the labels of each row."""
        labels: list[list[str]] = table.column("label").to_pylist()
        return labels

    def judge(
        self, names: list[Any], answers: Answers, version: Version, groups: Groups
    ) -> Assessment:
        """Compare the labels of at least even probability with the true ones."""
        import numpy as np

        labels = version.manifest.signature.labels
        true = np.array([[label in row for label in labels] for row in names], dtype=np.bool_)
        return assess_labels(true, answers.table(len(labels)), labels=labels, groups=groups)


class Tags(Kind):
    """Words with a tag each; answers are indexes of tags, −1 for words that were not read."""

    layout = "tagged-words"
    field = "data.tags"

    def contents(self, table: pa.Table) -> list[Any]:
        """Return the words of each row."""
        words: list[list[str]] = table.column("tokens").to_pylist()
        return words

    def names(self, table: pa.Table) -> list[Any]:
        """Return the tags of each row."""
        tags: list[list[str]] = table.column("tags").to_pylist()
        return tags

    def ask(self, runtime: Any, contents: Sequence[Any], *, max_tokens: int) -> Answers:
        """Tag the words."""
        import numpy as np

        index = {tag: float(number) for number, tag in enumerate(runtime.labels)} | {None: -1.0}
        found = runtime.tag(contents, max_tokens=max_tokens)
        lengths = np.array([one.num_tokens for one in found], dtype=np.int64)
        return Answers([[index[tag] for tag in one.tags] for one in found], lengths)

    def judge(
        self, names: list[Any], answers: Answers, version: Version, groups: Groups
    ) -> Assessment:
        """Compare entities; words that were not read belong to none."""
        labels = version.manifest.signature.labels
        predicted = [
            ["O" if number < 0 else labels[int(number)] for number in row] for row in answers.rows
        ]
        return assess_tags(names, predicted, groups=groups)


KINDS: Final[Mapping[str, Kind]] = {
    "text-classification": OneLabel(),
    "multilabel-classification": AnyLabels(),
    "token-classification": Tags(),
}
"""Task of a version's signature → how it is evaluated."""


def kind_of(version: Version, *, field: str = "model") -> Kind:
    """Return how a version is evaluated.

    Raises:
        SpecError: its task has no answers that could be compared with labels.
    """
    task = version.manifest.signature.task
    kind = KINDS.get(task)
    if kind is None:
        raise SpecError(
            "versions of this task cannot be evaluated here",
            field=field,
            got=f"{version}: {task}",
            allowed=", ".join(KINDS),
        )
    return kind


def check_pair(version: Version, column: str | None, *, field: str) -> None:
    """Refuse second texts where a version would not read them as such.

    Args:
        version: what is asked.
        column: the column of second texts; None without one.
        field: the field that names it.

    Raises:
        SpecError: the version's task reads one text, or words.
    """
    task = version.manifest.signature.task
    pairs = [name for name, one in TASKS.items() if "text_pair" in LAYOUTS[one.layout].settings]
    if column is None or task in pairs:
        return
    raise SpecError(
        "versions of this task read no second texts",
        field=field,
        got=f"{column} for {version}: {task}",
        allowed=f"second texts for {', '.join(pairs)}",
        hint=f"leave {field} out, or join the texts in one column",
    )


def check_labels(kind: Kind, names: list[Any], version: Version, *, source: str) -> None:
    """Refuse labels that a version does not know.

    Raises:
        DataError: naming the first one.
    """
    labels = version.manifest.signature.labels
    each = {name for row in names for name in ([row] if isinstance(row, str) else row)}
    unknown = sorted(each - set(labels))
    if unknown and not isinstance(kind, Tags):
        raise DataError(
            f"the version does not know the label {unknown[0]!r}",
            field=kind.field,
            got=", ".join(unknown[:5]),
            allowed=", ".join(labels),
            hint=f"map the labels of {source} to those that the version was trained on",
        )
