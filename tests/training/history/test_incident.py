"""What a run did to go on, told from its log."""

from __future__ import annotations

from kovar.training.history.incident import incidents

BACK = {
    "event": "rolled_back",
    "step": 130,
    "to_step": 100,
    "was": "fp16",
    "precision": "bf16",
    "reason": "step 130: loss nan",
}


def written(*events):
    base = {"rank": 0, "time": "2026-01-01T00:00:00+00:00"}
    return [base | event for event in events]


def test_every_incident_is_told_with_what_to_do():
    skipped = {"event": "skipped", "steps": [7, 9]}
    shrunk = {"event": "shrunk", "step": 3, "micro_batch_tokens": 416, "rank": 2}
    told = incidents(written(skipped, BACK, shrunk, {"event": "step", "step": 4}))
    sentences = " | ".join(told)
    assert "step 7, 9" in sentences
    assert "from step 130 to step 100 and from fp16 to bf16: step 130: loss nan" in sentences
    assert "416 tokens in a pass" in sentences
    assert all(told.values())


def test_a_repeated_decision_is_told_once():
    assert len(incidents(written(BACK, BACK))) == 1


def test_a_run_without_incidents_has_none():
    assert incidents(written({"event": "step", "step": 1})) == {}
