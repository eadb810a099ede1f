"""The page of a sweep, opened in a real browser: plots, tables, filters, no network."""

import io
import json
import re
from dataclasses import replace

import plotly.graph_objects as go
import pytest
import yaml
from matplotlib.image import imread

from browser import Browser
from kovar.tuning.report import analyze
from kovar.tuning.report.page import sweep_page
from kovar.tuning.report.plots import draw_pictures, make_plots
from kovar.tuning.report.snippet import snippet
from swept import FACTS, RATE, answered, first, large, report, trial

PLOTS = ["pareto", "heat-map", "learning-curves", "parallel-coordinates", "importance", "timeline"]
DRAWN = "document.body.dataset.drawn"


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept")
    found = large(folder, num_rates=6)
    return found, analyze(found, folder), folder


@pytest.fixture(scope="module")
def shown(swept):
    found, analysis, folder = swept
    (folder / "report.html").write_text(sweep_page(found, analysis))
    with Browser() as browser:
        browser.open(folder / "report.html", height=4000)
        wait_for(browser, DRAWN)
        yield browser


def test_a_field_within_a_block_that_is_named_alone_is_written_into_the_block():
    point = {"training.optimizer.momentum": 0.9, "training.optimizer": "sgd"}
    assert yaml.safe_load(snippet(point)) == {
        "training": {"optimizer": {"kind": "sgd", "momentum": 0.9}}
    }
    assert yaml.safe_load(snippet(dict(reversed(point.items())))) == yaml.safe_load(snippet(point))


def wait_for(browser, expression):
    """Let the page go on until an expression is worth something."""
    script = f"new Promise(done => {{ const look = () => ({expression}) ? done(true) : " \
             "requestAnimationFrame(look); look(); })"  # fmt: skip
    browser.ask("Runtime.evaluate", expression=script, awaitPromise=True)


def count(browser, selector):
    return browser.value(f"document.querySelectorAll({json.dumps(selector)}).length")


def test_every_plot_draws_its_marks(shown, swept):
    found, _, _ = swept
    assert shown.value("[...document.querySelectorAll('section.plot')].map(s => s.id)") == PLOTS
    assert shown.value(DRAWN) == "6"
    num_ranked = len(found.ranked_configurations)
    assert count(shown, "#pareto .scatterlayer .trace") >= 5
    assert count(shown, "#pareto .scatterlayer path.point") == num_ranked + 1
    assert count(shown, "#heat-map .heatmaplayer image") == 1
    assert count(shown, "#learning-curves .scatterlayer path.js-line") == len(found.trials)
    assert count(shown, "#parallel-coordinates .scatterlayer path.js-line") == num_ranked
    assert count(shown, "#importance .bars path") >= 3
    assert count(shown, "#timeline .bars path") == sum(len(t.stays) for t in found.trials)


def test_nothing_is_fetched_and_the_console_stays_empty(shown):
    assert shown.errors == []
    assert {url.partition(":")[0] for url in shown.requests} <= {"file", "data"}


def test_the_picture_has_the_colors_of_the_plots(shown):
    pixels = imread(io.BytesIO(shown.picture()))[:, :, :3]
    for color in ((0x25, 0x63, 0xBE), (0xFD, 0xE7, 0x25), (0xB7, 0x79, 0x1F)):
        near = abs(pixels - [part / 255 for part in color]).max(axis=2) < 0.03
        assert near.sum() > 100


def test_another_pair_of_fields_is_drawn_when_it_is_chosen(shown):
    shown.value("""(choice => {
        choice.selectedIndex = 1;
        choice.dispatchEvent(new Event("change"));
        })(document.querySelector("#heat-map select"))""")
    wait_for(shown, "document.querySelector('#heat-map .ytitle').textContent === 'warmup'")
    assert shown.errors == []


def test_filters_hide_rows_and_count_the_others(shown, swept):
    found, _, _ = swept
    shown.value("""(choice => { choice.value = "diverged";
        choice.dispatchEvent(new Event("input", {bubbles: true}));
        })(document.querySelector("select[data-column=status]"))""")
    num = found.counts["diverged"]
    assert count(shown, "#trials tbody tr:not([hidden])") == num
    output = "document.querySelector('.filters output').value"
    assert shown.value(output) == f"{num} of {len(found.trials)}"


def test_a_click_on_a_heading_sorts_and_empty_cells_stay_last(shown):
    heads = "[...document.querySelectorAll('#trials th')]"
    place = shown.value(f"{heads}.findIndex(h => h.textContent === 'accuracy')")
    rows = "[...document.querySelectorAll('#trials tbody tr')]"
    cells = f"{rows}.map(r => r.cells[{place}].textContent)"
    for sign in (1, -1):
        shown.value(f"{heads}[{place}].click()")
        texts = shown.value(cells)
        numbers = [float(text) for text in texts if text]
        assert numbers == sorted(numbers, reverse=sign < 0)
        assert all(texts[: len(numbers)])


def test_a_narrow_window_has_no_sideways_scrolling(shown, swept):
    _, _, folder = swept
    shown.open(folder / "report.html", width=420)
    wait_for(shown, DRAWN)
    assert shown.value("document.documentElement.scrollWidth") <= 420
    assert shown.errors == []


def test_plotly_knows_every_property_of_the_plots(swept):
    found, analysis, _ = swept
    for plot in make_plots(found, analysis):
        for variant in plot.variants():
            go.Figure(data=variant.data, layout=variant.layout)


def test_every_plot_has_its_picture(swept, tmp_path):
    found, analysis, _ = swept
    paths = draw_pictures(make_plots(found, analysis), tmp_path / "pictures")
    assert [path.stem for path in paths] == PLOTS
    for path in paths:
        pixels = imread(path)
        assert pixels.shape[1] > 700
        assert pixels[:, :, :3].std() > 0.03


def test_equal_sweeps_give_equal_pages(swept):
    found, analysis, _ = swept
    assert sweep_page(found, analysis) == sweep_page(found, analysis)


def test_text_of_a_spec_cannot_become_markup(tmp_path):
    evil = "</script><img src=x onerror=alert(1)>"
    trials = [trial(n, 0.5 + n / 100, point={RATE: 1e-4, "data.path": evil * n}, reason=evil,
                    incidents=(evil,)) for n in range(1, 3)]  # fmt: skip
    facts = replace(FACTS, name="<b>", paths=(RATE, "data.path"))
    found = report(*trials, facts=facts)
    page = sweep_page(found, analyze(found, tmp_path))
    assert "<img" not in page
    assert page.count("</script>") == 2
    assert not re.search(r"<(link|iframe|object)\b", page[: page.index("<script")])


SMALL = [
    [],
    [trial(1)],
    [trial(1, 0.5)],
    [trial(1, 0.5), trial(2, 0.5)],
    [trial(n, 0.5, point={"precision": p}) for n, p in ((1, "fp32"), (2, "bf16"))],
    [trial(1, 0.5), trial(2, 0.6, point={}), trial(3, status="excluded", reason="no room")],
]


@pytest.mark.parametrize("trials", SMALL, ids=len)
def test_a_small_sweep_has_its_page_and_pictures(tmp_path, trials):
    found = report(*trials)
    analysis = analyze(found, tmp_path)
    assert "</html>" in sweep_page(found, analysis)
    draw_pictures(make_plots(found, analysis), tmp_path)


def test_the_page_says_when_the_kept_weights_are_not_the_recommended_ones(tmp_path):
    trials = [answered(tmp_path, 1, first(320), hours=4.0), answered(tmp_path, 2, first(319))]
    for chosen, said in ((trials, True), (trials[:1], False)):
        found = report(*chosen)
        page = sweep_page(found, analyze(found, tmp_path))
        assert ("those of the best trial, 1:" in page) == said


def test_the_recommended_values_are_lines_of_a_spec():
    point = {RATE: 2e-5, "training.warmup": 0.1, "precision": "bf16"}
    assert snippet(point) == ("training:\n  learning_rate: 2.0e-05\n  warmup: 0.1\nprecision: bf16")
