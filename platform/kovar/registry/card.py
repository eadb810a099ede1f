"""The model card of a version, as Markdown, made of its facts alone.

Sections follow Mitchell et al., "Model Cards for Model Reporting" (2019). A fact that was not
recorded is said to be missing, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import yaml
from pydantic import JsonValue

from kovar.config import format_size
from kovar.registry.interval import Interval, macro_f1_interval, wilson
from kovar.registry.manifest import Manifest
from kovar.registry.version import Version

SECTIONS: Final = (
    "Intended use",
    "Data",
    "Metrics",
    "Training",
    "Cost and hardware",
    "Limits",
    "Lineage",
    "Files",
)
_MISSING: Final = "Not recorded."


def card(version: Version, aliases: Iterable[str] = ()) -> str:
    """Write the card; equal facts give equal text.

    Args:
        version: the version.
        aliases: names that point at it now.
    """
    manifest = version.manifest
    bodies = (
        manifest.intended_use or _MISSING,
        _data(manifest),
        _metrics(manifest),
        _training(version),
        _cost(version),
        manifest.limits or _MISSING,
        _lineage(version),
        _files(manifest),
    )
    parts = [f"# {version.model}, version {version.number}", _summary(version, sorted(aliases))]
    for title, body in zip(SECTIONS, bodies, strict=True):
        parts += [f"## {title}", body.strip()]
    return "\n\n".join(parts) + "\n"


def _summary(version: Version, aliases: Sequence[str]) -> str:
    signature = version.manifest.signature
    return _facts(
        {
            "Digest": f"`{version.digest}`",
            "Aliases": ", ".join(aliases) or "none",
            "Task": signature.task,
            "Labels": ", ".join(signature.labels),
            "Longest input": f"{signature.max_length} tokens" if signature.max_length else None,
            "Registered": f"{version.created_at:%Y-%m-%d %H:%M:%S} UTC by {version.created_by}",
            "Size": format_size(version.manifest.size_bytes),
            "Tags": ", ".join(f"{key}={value}" for key, value in sorted(version.tags.items())),
        }
    )


def _data(manifest: Manifest) -> str:
    data = manifest.data
    if data is None:
        return _MISSING
    return _facts(
        {
            "Source": data.source,
            "Fingerprint": f"`{data.fingerprint}`",
            "Training examples": f"{data.split.num_train:,}",
            "Held-out examples": f"{data.split.num_evaluation:,}",
            "Split seed": data.split.seed,
            **{_title(key): _shown(value) for key, value in data.details.items()},
        }
    )


def _metrics(manifest: Manifest) -> str:
    if not manifest.metrics:
        return _MISSING
    parts = []
    for name, metrics in sorted(manifest.metrics.items()):
        parts.append(f"### {_escaped(name)}")
        plain = {
            key: value
            for key, value in metrics.items()
            if key not in ("per_class", "confusion_matrix", "labels", "intervals")
        }
        intervals = intervals_of(metrics)
        rows = [
            [_title(key), _shown(value), _interval(intervals.get(key))]
            for key, value in sorted(plain.items())
        ]
        parts.append(_table(["Metric", "Value", "95 % interval"], rows))
        labels = metrics.get("labels") or list(manifest.signature.labels)
        if isinstance(per_class := metrics.get("per_class"), dict):
            parts += ["Per class:", _per_class(per_class)]
        if isinstance(matrix := metrics.get("confusion_matrix"), list):
            parts += ["Confusion matrix (rows: true, columns: predicted):", _matrix(matrix, labels)]
    return "\n\n".join(parts)


def intervals_of(metrics: Mapping[str, Any]) -> dict[str, Interval]:
    """Return the confidence intervals of the metrics on one data set, as far as they are known.

    Args:
        metrics: metric → value, as in a manifest.
    """
    stated = metrics.get("intervals")
    if isinstance(stated, Mapping):
        return {name: (float(low), float(high)) for name, (low, high) in stated.items()}
    found: dict[str, Interval] = {}
    accuracy, num_rows = metrics.get("accuracy"), metrics.get("num_rows")
    if isinstance(accuracy, float) and isinstance(num_rows, int) and num_rows > 0:
        found["accuracy"] = wilson(accuracy, num_rows)
    matrix = metrics.get("confusion_matrix")
    if isinstance(matrix, list) and sum(map(sum, matrix)) > 0 and "macro_f1" in metrics:
        found["macro_f1"] = macro_f1_interval(matrix)
    return found


def _interval(interval: Interval | None) -> str:
    return f"{_shown(interval[0])} to {_shown(interval[1])}" if interval else ""


def _per_class(per_class: Mapping[str, Any]) -> str:
    names = list(dict.fromkeys(key for row in per_class.values() for key in row))
    rows = [[label, *(_shown(row.get(key)) for key in names)] for label, row in per_class.items()]
    return _table(["Class", *map(_title, names)], rows)


def _matrix(matrix: Sequence[Any], labels: Any) -> str:
    names = [str(label) for label in labels]
    if len(names) != len(matrix):
        names = [str(index) for index in range(len(matrix))]
    rows = [[name, *map(_shown, row)] for name, row in zip(names, matrix, strict=True)]
    return _table(["", *names], rows)


def _training(version: Version) -> str:
    manifest = version.manifest
    environment, source = manifest.environment, manifest.source_revision
    revision = (
        f"`{source.revision}`{' with local changes' if source.dirty else ''}" if source else None
    )
    packages = ("kovar-platform", "ray", "torch", "transformers", "tokenizers", "numpy")
    facts = {
        "Method": manifest.method,
        "Precision": manifest.precision,
        "Seed": manifest.seed,
        "Platform": environment.platform,
        "Python": environment.python,
        "Packages": ", ".join(
            f"{name} {environment.packages[name]}"
            for name in packages
            if name in environment.packages
        ),
        "Code revision": revision,
        **{_title(key): _shown(value) for key, value in manifest.training.items()},
    }
    text = yaml.safe_dump(manifest.spec, sort_keys=True, allow_unicode=True)
    fence = "`" * max(3, 1 + _longest_run(text, "`"))
    return f"{_facts(facts)}\n\nSpec:\n\n{fence}yaml\n{text}{fence}"


def _cost(version: Version) -> str:
    environment = version.manifest.environment
    return _facts(
        {
            "Chip": environment.chip,
            "Driver": environment.driver,
            **{
                _title(key): _shown(value)
                for key, value in version.run_facts.items()
                if key != "rivals"
            },
        }
    )


def _lineage(version: Version) -> str:
    base = version.manifest.base_model
    size = f", {base.num_parameters:,} parameters" if base and base.num_parameters else ""
    facts: dict[str, object] = {
        "Base model": f"{base.source}{size} (`{base.digest}`)" if base else None,
        "Run": version.run,
        "Sweep": version.sweep,
    }
    for parent in version.manifest.parents:
        key = f"Parent ({parent.role})"
        facts[key] = f"{facts[key]}, `{parent.digest}`" if key in facts else f"`{parent.digest}`"
    return "\n\n".join([_facts(facts), *_rivals(version)])


def _rivals(version: Version) -> Iterator[str]:
    """Yield the other trials of the sweep, with their metrics."""
    rivals = version.run_facts.get("rivals")
    if not isinstance(rivals, list) or not rivals:
        return
    rows = [one for one in rivals if isinstance(one, dict)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    yield "Rivals in the sweep, the best first:"
    yield _table([*map(_title, names)], [[_shown(row.get(name)) for name in names] for row in rows])


def _files(manifest: Manifest) -> str:
    rows = [
        [f"`{file.path}`", format_size(file.size_bytes), f"`{file.sha256}`"]
        for file in manifest.files
    ]
    return _table(["File", "Size", "SHA-256"], rows)


def _facts(facts: Mapping[str, object]) -> str:
    rows = [[key, str(value)] for key, value in facts.items() if value not in (None, "")]
    return _table(["Fact", "Value"], rows) if rows else _MISSING


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in lines)


def _escaped(text: str) -> str:
    """Keep a fact inside its cell, and keep it text: facts hold what users wrote."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _title(key: str) -> str:
    return key.replace("_", " ").capitalize()


def _shown(value: JsonValue) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return ", ".join(f"{key}: {_shown(each)}" for key, each in value.items())


def _longest_run(text: str, char: str) -> int:
    longest = current = 0
    for each in text:
        current = current + 1 if each == char else 0
        longest = max(longest, current)
    return longest
