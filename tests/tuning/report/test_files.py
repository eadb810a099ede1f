"""Everything that a sweep leaves in its folder."""

import logging

from kovar.tuning.report import write_report
from swept import large, report, trial


def test_all_files_are_written_and_replaced(tmp_path):
    swept = large(tmp_path, num_rates=2, seeds=1)
    for _ in range(2):
        write_report(swept, tmp_path)
    names = {path.name for path in tmp_path.iterdir() if not path.name.startswith("trial-")}
    assert names == {"results.json", "results.parquet", "report.html", "pictures", "tensorboard"}


def test_a_page_that_cannot_be_written_does_not_cost_the_results(tmp_path, caplog):
    (tmp_path / "report.html").mkdir()
    with caplog.at_level(logging.WARNING):
        write_report(report(trial(1, 0.5)), tmp_path)
    assert (tmp_path / "results.json").exists()
    assert (tmp_path / "tensorboard").is_dir()
    assert "page cannot be written" in caplog.text
