"""What the driver writes into its ledger is what TensorBoard shows meanwhile."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kovar.tuning.board_feed import BoardFeed
from kovar.tuning.folder import SweepFolder
from kovar.tuning.ledger import Ledger, read_ledger
from kovar.tuning.state import SweepState
from tiny_sweep import GRID, sweep_spec


def test_evaluations_are_shown_as_they_are_reported(tmp_path):
    with Ledger(tmp_path / "ledger.jsonl", clock=lambda: 1_790_000_000.0) as ledger:
        point = {"training.learning_rate": 1e-4, "precision": "bf16"}
        ledger.append("proposed", trial=1, configuration=1, seed=0, point=point)
        ledger.append("started", trial=1)
        ledger.append("reported", trial=1, step=0, facts={"chip": "cpu"})
        ledger.append("reported", trial=1, step=5, seconds=1.0, metrics={"accuracy": 0.75})
    entries = list(read_ledger(tmp_path / "ledger.jsonl"))
    feed = BoardFeed(SweepFolder(tmp_path), sweep_spec(GRID))
    for number, entry in enumerate(entries, start=1):
        feed.hear(entry, SweepState.of(entries[:number]))
    events = EventAccumulator(str(tmp_path / "tensorboard" / "trial-0001")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("evaluation/accuracy")] == [(5, 0.75)]
