"""TensorBoard's event files, read back by TensorBoard itself."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from kovar.tuning.record import Evaluation
from kovar.tuning.report import LiveBoard
from kovar.tuning.report.board import write_board
from kovar.tuning.report.live_board import LIVE_FILE
from swept import RATE, large, report, trial


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    swept = large(folder, num_rates=2, seeds=2)
    write_board(swept, folder / "tensorboard")
    return swept, folder / "tensorboard"


def hparams_in(folder):
    """Return tag → plugin data, as the HParams plugin reads them."""
    events = EventAccumulator(str(folder)).Reload()
    found = events.summary_metadata
    return {
        tag: HParamsPluginData.FromString(one.plugin_data.content)
        for tag, one in found.items()
        if one.plugin_data.plugin_name == metadata.PLUGIN_NAME
    }


def test_the_experiment_names_every_field_and_metric(board):
    swept, folder = board
    experiment = hparams_in(folder)[metadata.EXPERIMENT_TAG].experiment
    assert {info.name for info in experiment.hparam_infos} > set(swept.facts.paths)
    names = [info.name.tag for info in experiment.metric_infos]
    assert names[0] == "final/accuracy"
    assert {"final/loss", "trial/cost", "trial/energy_joules"} <= set(names)


def test_every_trial_is_a_session_with_its_values_and_its_end(board):
    swept, folder = board
    for one in swept.trials:
        found = hparams_in(folder / f"trial-{one.number:04d}")
        start = found[metadata.SESSION_START_INFO_TAG].session_start_info
        assert start.hparams[RATE].number_value == one.point[RATE]
        assert start.hparams["precision"].string_value == one.point["precision"]
        assert start.hparams["status"].string_value == one.status
        end = found[metadata.SESSION_END_INFO_TAG].session_end_info
        ok = one.status in ("finished", "stopped")
        assert end.status == (api_pb2.STATUS_SUCCESS if ok else api_pb2.STATUS_FAILURE)
        assert end.end_time_secs == pytest.approx(one.stays[-1].ended_at)


def test_the_scalars_of_a_trial_are_its_history_and_its_metrics(board):
    swept, folder = board
    one = swept.trials[0]
    events = EventAccumulator(str(folder / "trial-0001")).Reload()
    curve = events.Scalars("evaluation/accuracy")
    assert [point.step for point in curve] == [evaluation.step for evaluation in one.history]
    assert events.Scalars("final/accuracy")[0].value == pytest.approx(one.metrics["accuracy"])
    assert events.Scalars("trial/cost")[0].value == pytest.approx(one.cost)


def test_the_plugin_finds_the_sweep_through_tensorboards_own_data_provider(board):
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import backend_context, list_session_groups

    swept, folder = board
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(folder))
    context = backend_context.Context(TBContext(data_provider=provider))
    asked = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=100,
        allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE],
        aggregation_type=api_pb2.AGGREGATION_AVG,
    )
    handler = list_session_groups.Handler(RequestContext(), context, "", asked)
    groups = handler.run().session_groups
    assert {group.name for group in groups} == {f"{c.number:04d}" for c in swept.configurations}
    assert sum(len(group.sessions) for group in groups) == len(swept.trials)


def test_writing_again_replaces_what_was_there(tmp_path):
    found = report(trial(1, 0.5))
    for _ in range(2):
        write_board(found, tmp_path / "tensorboard")
    assert len(list((tmp_path / "tensorboard").glob("events.*"))) == 1


def test_a_sweep_of_which_nothing_started_has_a_board(tmp_path):
    write_board(report(trial(1, status="excluded")), tmp_path / "tensorboard")
    assert metadata.EXPERIMENT_TAG in hparams_in(tmp_path / "tensorboard")


def test_a_running_sweep_is_followed_and_then_replaced(tmp_path):
    swept = report(trial(1, 0.5), trial(2, status="unfinished"))
    board = LiveBoard(tmp_path, swept.facts)
    for _ in range(2):  # it starts again after an interruption
        board.started(1, configuration=1, point=swept.trials[0].point, at=100.0)
    for step in (5, 10):
        board.evaluated(1, Evaluation(step, 1.0, {"accuracy": step / 100}), at=100.0 + step)
    events = EventAccumulator(str(tmp_path / "trial-0001")).Reload()
    assert [(e.step, e.wall_time) for e in events.Scalars("evaluation/accuracy")] == [
        (5, 105.0), (10, 110.0),
    ]  # fmt: skip
    start = hparams_in(tmp_path / "trial-0001")[metadata.SESSION_START_INFO_TAG]
    assert start.session_start_info.group_name == "0001"
    write_board(swept, tmp_path)
    assert LIVE_FILE not in [path.name for path in tmp_path.rglob("*")]


def test_a_board_that_cannot_be_written_is_off_and_does_not_fail(tmp_path, caplog):
    (tmp_path / "trial-0001").write_text("in the way")
    board = LiveBoard(tmp_path, report().facts)
    for step in (1, 2):
        board.evaluated(1, Evaluation(step, 1.0, {"accuracy": 0.5}), at=1.0)
    assert caplog.text.count("TensorBoard is off") == 1
