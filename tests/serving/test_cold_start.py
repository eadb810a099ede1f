from __future__ import annotations

import logging

from kovar.serving.cold_start import ColdStart, warm_up
from kovar.serving.replica import Replica
from kovar.serving.spec import ServingSpec
from kovar.serving.versions import BoundVersion
from scripted import ScriptedRuntime
from tiny_version import build_tiny_version, register_tiny_version, settings_in


def test_the_stages_of_a_start_add_up():
    moments = iter([0.0, 2.0, 2.0, 2.5, 3.0, 4.0])
    start = ColdStart(lambda: next(moments))
    for stage in ("import", "load", "import"):
        with start.stage(stage):
            pass
    assert start.seconds == {"import": 3.0, "load": 0.5}


def test_a_short_and_a_long_text_are_run_before_the_first_request():
    runtime = ScriptedRuntime()
    warm_up(runtime)
    assert runtime.batches == [[1], [16]]


def test_files_are_fetched_once_and_then_only_verified(tmp_path, caplog):
    settings = settings_in(tmp_path)
    version = register_tiny_version(settings, build_tiny_version(tmp_path / "tiny"))
    with caplog.at_level(logging.INFO, logger="kovar.serving.cold_start"):
        for _ in range(2):
            Replica(
                ServingSpec(model="tiny", runtime="torch"),
                [BoundVersion(version)],
                artifact_root=settings.artifact_root,
                cache_dir=settings.cache_dir,
            )
    name = "kovar.serving.cold_start"
    first, second = (record.getMessage() for record in caplog.records if record.name == name)
    assert first.startswith("started tiny@1 in")
    assert "verify" not in first
    assert all(stage in second for stage in ("import", "verify", "load", "warm"))
