"""The card as a page: self-contained, its plots agree with the facts, nothing breaks out."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kovar.registry import card_html
from kovar.registry.interval import macro_f1_interval, wilson

METRICS = {
    "accuracy": 0.9,
    "macro_f1": 0.8994,
    "num_rows": 200,
    "labels": ["negative", "positive"],
    "per_class": {
        "negative": {"precision": 0.88, "recall": 0.92, "f1": 0.9, "support": 100},
        "positive": {"precision": 0.92, "recall": 0.88, "f1": 0.9, "support": 100},
    },
    "confusion_matrix": [[92, 8], [12, 88]],
}


def with_facts(version, **facts):
    return replace(version, manifest=version.manifest.model_copy(update=facts))


@pytest.fixture
def page(version) -> str:
    return card_html(with_facts(version, metrics={"evaluation": METRICS}), ["champion"])


def test_the_page_holds_the_card_and_three_plots(page, version):
    assert f"<code>{version.digest}</code>" in page
    assert re.findall(r"<figcaption>(.*?)</figcaption>", page) == [
        "Scores with 95 % intervals",
        "Recall per class with 95 % intervals",
        "Confusion matrix",
    ]


def test_every_plot_is_well_formed_and_inside_its_frame(page):
    plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    for plot in plots:
        root = ElementTree.fromstring(plot)  # noqa: S314
        width = float(root.get("width"))
        right = [float(r.get("x")) + float(r.get("width")) for r in root.iter("rect")]
        assert max(right) <= width


def test_the_page_loads_nothing_and_runs_nothing(page):
    assert not re.search(r"<(script|link|img|iframe|object)\b|url\(|https?://", page)
    assert "default-src &#x27;none&#x27;" in page


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "![x](https://example.com/x.png)",
        "[x](javascript:alert(1))",
        '"><img src=x onerror=alert(1)>',
    ],
)
def test_what_people_wrote_stays_text(version, text):
    metrics = {**METRICS, "labels": [text, "b"], "per_class": {text: {"recall": 0.5}}}
    changed = with_facts(version, intended_use=text, limits=text, metrics={text: metrics})
    page = card_html(changed)
    assert not re.search(r"<(script|img)\b|href=.javascript", page)


def test_equal_facts_give_equal_pages(version, page):
    again = card_html(with_facts(version, metrics={"evaluation": METRICS}), ["champion"])
    assert again == page


def test_a_version_without_metrics_has_a_page_without_plots(version):
    assert "<figure>" not in card_html(with_facts(version, metrics={}))


def test_wilsons_interval_is_the_published_one():
    # Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I.
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0 / 20, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1 / 29, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@given(num_rows=st.integers(1, 10**6), data=st.data())
def test_an_interval_holds_its_share_and_stays_within_0_and_1(num_rows, data):
    share = data.draw(st.integers(0, num_rows)) / num_rows
    low, high = wilson(share, num_rows)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1


def test_the_interval_of_macro_f1_is_the_bootstrap_over_rows():
    import numpy as np
    from sklearn.metrics import f1_score

    matrix = np.array([[40, 5, 5], [4, 20, 6], [3, 2, 15]])
    true, predicted = (np.repeat(index.ravel(), matrix.ravel()) for index in np.indices((3, 3)))
    rng = np.random.default_rng(1)
    scores = []
    for _ in range(400):
        rows = rng.integers(0, len(true), len(true))
        scores.append(f1_score(true[rows], predicted[rows], average="macro", labels=[0, 1, 2]))
    expected = np.quantile(scores, [0.025, 0.975])
    assert macro_f1_interval(matrix.tolist()) == pytest.approx(expected, abs=0.015)
    assert macro_f1_interval(matrix.tolist()) == macro_f1_interval(matrix.tolist())
