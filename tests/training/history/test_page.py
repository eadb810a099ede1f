"""The page of a run: complete, self-contained, and drawn by a real browser."""

import io
import re

import pytest
from matplotlib.image import imread

from browser import Browser
from kovar.training.folder import RunFolder
from kovar.training.history import read_history
from kovar.training.history.page import keeping_page, run_page
from story import CRASHED, UNDISTURBED, step, told, write_story

SCORES = [
    told(96 + n / 2, "evaluated", rank=0, step=n * 10, seconds=0.1,
         metrics={"accuracy": 0.5 + n / 20, "macro_f1": 0.4 + n / 20, "loss": 1 / n})
    for n in (2, 3, 4)
]  # fmt: skip
FAILED = told(99, "failed", error="RunError", message="rank 1: <b>out of memory</b>")
FIGURES = ["Loss (nats)", "Evaluation", "Learning rate", "Gradient norm, before clipping",
           "Speed (tokens/s)", "Padding"]  # fmt: skip


def history_of(folder, events, **options):
    spec = {"kind": "finetune", "name": "tiny", "training": {"epochs": 2}}
    return read_history(write_story(folder, events, spec=spec), lives=False, **options)


@pytest.fixture(scope="module")
def browser():
    with Browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def shown(browser, tmp_path_factory):
    """Open the page of a run that crashed, was resumed and failed."""
    folder = tmp_path_factory.mktemp("page")
    history = history_of(folder / "tiny-0123456789", [*CRASHED, *SCORES, FAILED])
    history.folder.page.write_text(run_page(history))
    browser.open(history.folder.page)
    return browser


def test_every_curve_is_drawn_inside_its_frame(shown):
    titles = "[...document.querySelectorAll('.chart svg')].map(s => s.getAttribute('aria-label'))"
    assert shown.value(titles) == FIGURES
    lengths = "[...document.querySelectorAll('.line')].map(line => line.getTotalLength())"
    assert len(shown.value(lengths)) == 8
    assert min(shown.value(lengths)) > 30
    outside = """[...document.querySelectorAll('.line, circle')].filter(one => {
        const a = one.getBoundingClientRect();
        const b = one.closest('svg').getBoundingClientRect();
        return a.left < b.left - 1 || a.right > b.right + 4 || a.top < b.top - 1
          || a.bottom > b.bottom + 1; }).length"""
    assert shown.value(outside) == 0


def test_the_picture_has_the_colors_of_the_curves(shown):
    pixels = imread(io.BytesIO(shown.picture()))[:, :, :3]
    for color in ((0x25, 0x63, 0xBE), (0xC2, 0x41, 0x0C), (0xDC, 0x26, 0x26)):
        near = abs(pixels - [part / 255 for part in color]).max(axis=2) < 0.02
        assert near.sum() > 100


def test_the_console_stays_empty_and_nothing_is_fetched(shown):
    assert shown.errors == []
    assert {url.partition(":")[0] for url in shown.requests} == {"file"}


def test_the_values_under_the_pointer_are_shown(shown):
    box = "(b => [b.left, b.top, b.width, b.height])"
    rect = f"{box}(document.querySelector('.chart svg').getBoundingClientRect())"
    left, top, width, height = shown.value(rect)
    shown.point_at(left + width - 20, top + height / 2)
    legend = "[...document.querySelectorAll('.chart .legend')[0].children].map(c => c.textContent)"
    assert shown.value(legend) == ["training0.025", "evaluation0.25", "step 40"]
    shown.point_at(1, 1)
    assert shown.value(legend) == ["training", "evaluation", ""]


def test_a_narrow_window_has_no_sideways_scrolling(browser, tmp_path):
    history = history_of(tmp_path / "tiny-0123456789", [*CRASHED, *SCORES, FAILED])
    history.folder.page.write_text(run_page(history))
    browser.open(history.folder.page, width=420)
    assert browser.value("document.documentElement.scrollWidth") <= 420


def test_resumptions_attempts_causes_and_advice_are_on_the_page(tmp_path):
    page = run_page(history_of(tmp_path / "r", [*CRASHED, *SCORES, FAILED]))
    assert page.count(">attempt 2</text>") == 6
    assert "&lt;b&gt;out of memory&lt;/b&gt;" in page
    assert "lower training.max_tokens" in page
    assert "step-20: torn" in page
    assert "<td>52 s</td>" in page


def test_the_page_loads_nothing_and_runs_only_its_own_script(tmp_path):
    page = run_page(history_of(tmp_path / "r", UNDISTURBED))
    assert not re.search(r"<(link|img|iframe|object)\b|url\(|https?://", page)
    assert page.count("<script>") == 1
    assert "script-src &#x27;sha256-" in page


def test_equal_histories_give_equal_pages(tmp_path):
    folder = tmp_path / "r"
    assert run_page(history_of(folder, UNDISTURBED)) == run_page(history_of(folder, UNDISTURBED))


def test_a_long_run_has_a_small_page(tmp_path):
    events = [step(n, n, took=1) for n in range(1, 30_000)]
    assert len(run_page(history_of(tmp_path / "r", events))) < 400_000


@pytest.mark.parametrize("number", range(len(UNDISTURBED) + 1))
def test_a_run_has_a_page_however_far_it_came(tmp_path, number):
    assert "</html>" in run_page(history_of(tmp_path / "r", UNDISTURBED[:number]))


def test_a_run_keeps_its_page_when_it_fails_and_does_not_fail_for_its_page(tmp_path, caplog):
    folder = write_story(tmp_path / "r", [*UNDISTURBED[:8], FAILED])
    with pytest.raises(KeyError), keeping_page(folder):
        raise KeyError
    assert '<span class="pill failed">' in folder.page.read_text()
    with keeping_page(RunFolder(tmp_path / "absent")):
        pass
    assert "cannot be written" in caplog.text
