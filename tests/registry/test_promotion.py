"""Promotion through gates, rollback, and where an alias pointed at a time."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from kovar.errors import ConflictError, GateError, NotFoundError, RegistryError, UserError
from kovar.registry import (
    BetterThanIncumbent,
    DatasetPredictions,
    Gates,
    GoldenResult,
    MetricBound,
    Predictions,
    Registry,
    read_predictions,
    rows_digest,
    write_predictions,
)
from kovar.registry.card import SECTIONS as CARD_SECTIONS
from kovar.registry.comparison import compare_pairs
from kovar.registry.gates import SECTIONS
from kovar.registry.reference import Reference

TRUE = tuple(index % 2 for index in range(400))
ROWS = rows_digest((f"text {index}", "good") for index in range(400))


def predictions(num_wrong: int, *, rows: str = ROWS) -> Predictions:
    """Predict the first rows wrongly."""
    predicted = tuple(1 - t if i < num_wrong else t for i, t in enumerate(TRUE))
    found = DatasetPredictions(rows=rows, labels=("bad", "good"), true=TRUE, predicted=predicted)
    return Predictions(datasets={"evaluation": found})


@pytest.fixture
def register(registry, folder, facts):
    def register(num_wrong: int, **changes):
        write_predictions(predictions(num_wrong), folder)
        return registry.register("reviews", folder, facts=facts.model_copy(update=changes))

    return register


def refusal(registry, to, *, expected=None, **more) -> str:
    with pytest.raises(GateError) as caught:
        registry.promote("reviews", to=to, expected=expected, reason="better", **more)
    return str(caught.value)


# Without and with gates


def test_without_declared_gates_nothing_blocks(registry, version):
    move = registry.promote("reviews", to=1, reason="first")
    assert (move.action, move.gates, move.reason) == ("promotion", (), "first")


def test_a_metric_out_of_bounds_refuses_with_numbers_and_moves_nothing(registry, version):
    registry.declare_gates("reviews", Gates(metrics=(MetricBound(metric="accuracy", minimum=0.9),)))
    message = refusal(registry, 1)
    assert (
        "metrics: evaluation.accuracy: evaluation.accuracy is 0.84; it must be at least 0.9"
        in message
    )
    assert registry.aliases("reviews") == {}


def test_a_metric_that_was_not_measured_refuses(registry, version):
    registry.declare_gates("reviews", Gates(metrics=(MetricBound(metric="recall", maximum=1.0),)))
    assert "evaluation.recall was not measured" in refusal(registry, 1)


def test_a_promotion_that_passes_records_what_the_gates_found(registry, version):
    registry.declare_gates("reviews", Gates(metrics=(MetricBound(metric="accuracy", minimum=0.8),)))
    move = registry.promote("reviews", to=1, reason="first")
    assert [(gate.passed, gate.numbers["value"]) for gate in move.gates] == [(True, 0.84)]
    assert registry.history("reviews", "champion") == (move,)


def test_set_alias_goes_through_the_gates_too_unless_it_is_forced(registry, version):
    registry.declare_gates("reviews", Gates(metrics=(MetricBound(metric="accuracy", minimum=0.9),)))
    with pytest.raises(GateError):
        registry.set_alias("reviews", "champion", 1)
    registry.set_alias("reviews", "candidate", 1)
    move = registry.set_alias("reviews", "champion", 1, force=True, reason="the old one is down")
    assert (move.forced, move.reason) == (True, "the old one is down")


def test_gates_can_be_taken_away_and_read(registry, version):
    gates = Gates(card_sections=("Limits",), two_people=True)
    registry.declare_gates("reviews", gates)
    assert registry.gates("reviews") == gates
    registry.declare_gates("reviews", None, reason="an experiment")
    assert registry.gates("reviews") is None
    registry.promote("reviews", to=1, reason="first")


def test_gates_may_be_declared_before_the_first_version(registry, folder, facts):
    registry.declare_gates("reviews", Gates(card_sections=("Limits",)))
    assert registry.models() == ()
    registry.register("reviews", folder, facts=facts)
    assert 'the card\'s section "Limits" is empty' in refusal(registry, 1)


def test_a_conflict_is_said_before_any_gate(registry, three):
    registry.set_alias("reviews", "champion", 1)
    registry.declare_gates("reviews", Gates(card_sections=("Limits",)))
    with pytest.raises(ConflictError, match="points at version 1"):
        registry.promote("reviews", to=3, expected=2, reason="better")


def test_gates_that_change_while_they_are_asked_are_asked_again(registry, three):
    asked = registry._aliases.look("reviews", "champion", Reference(number=1))
    registry.declare_gates("reviews", Gates(card_sections=("Limits",)))
    with pytest.raises(ConflictError, match="other gates were declared"):
        registry._aliases.move(
            "reviews",
            "champion",
            Reference(number=1),
            expected=None,
            force=False,
            reason=None,
            by="ada",
            declaration=asked.declaration,
        )


def test_the_gates_can_be_asked_without_moving_anything(registry, version):
    registry.declare_gates("reviews", Gates(card_sections=("Metrics", "Limits")))
    results = registry.check_gates("reviews", "champion", 1)
    assert [result.passed for result in results] == [True, False]
    assert registry.aliases("reviews") == {}


# Each gate


def test_a_clearly_better_version_replaces_the_incumbent(registry, register):
    register(60), register(20, seed=1)
    registry.declare_gates("reviews", Gates(better_than_incumbent=BetterThanIncumbent(by=0.05)))
    registry.promote("reviews", to=1, reason="first")
    move = registry.promote("reviews", to=2, expected=1, reason="better")
    (gate,) = move.gates
    assert gate.numbers["difference"] == pytest.approx(0.1)
    assert 0.05 < gate.numbers["lower_bound"] < 0.1


@pytest.mark.parametrize(("num_wrong", "by"), [(58, 0.0), (60, 0.0), (20, 0.1)])
def test_a_gain_that_may_be_luck_refuses(registry, register, num_wrong, by):
    register(60), register(num_wrong, seed=1)
    registry.promote("reviews", to=1, reason="first")
    registry.declare_gates("reviews", Gates(better_than_incumbent=BetterThanIncumbent(by=by)))
    assert "accuracy 0." in (message := refusal(registry, 2, expected=1))
    assert "of reviews@1 on 400 rows" in message


def test_a_small_loss_can_be_allowed(registry, register):
    register(60), register(60, seed=1)
    registry.promote("reviews", to=1, reason="first")
    registry.declare_gates("reviews", Gates(better_than_incumbent=BetterThanIncumbent(by=-0.01)))
    registry.promote("reviews", to=2, expected=1, reason="cheaper")


def test_versions_without_predictions_cannot_be_compared(registry, three):
    registry.promote("reviews", to=1, reason="first")
    registry.declare_gates("reviews", Gates(better_than_incumbent=BetterThanIncumbent()))
    assert "reviews@2 has no predictions" in refusal(registry, 2, expected=1)


def test_versions_evaluated_on_different_rows_are_not_compared(registry, register, folder, facts):
    register(60)
    write_predictions(predictions(10, rows="0" * 64), folder)
    registry.register("reviews", folder, facts=facts)
    registry.promote("reviews", to=1, reason="first")
    registry.declare_gates("reviews", Gates(better_than_incumbent=BetterThanIncumbent()))
    assert "evaluated on different rows" in refusal(registry, 2, expected=1)


def test_each_runtime_must_reproduce_the_golden_examples(registry, version):
    registry.declare_gates("reviews", Gates(golden_parity=("torch", "onnxruntime")))
    good = GoldenResult(runtime="torch", chip="cpu", passed=True, difference=1e-5, tolerance=1e-3)
    bad = GoldenResult(
        runtime="onnxruntime", chip="cpu", passed=False, difference=0.2, tolerance=1e-3
    )
    assert "torch has not been checked" in refusal(registry, 1)
    registry.note_golden(version, good)
    registry.note_golden(version, bad)
    message = refusal(registry, 1)
    assert "onnxruntime on cpu differs by up to 0.2; at most 0.001 is allowed" in message
    assert "golden_parity: torch" not in message
    registry.note_golden(version, GoldenResult(**{**vars(bad), "passed": True, "difference": 0.0}))
    registry.promote("reviews", to=1, reason="checked again")


def test_a_second_person_must_approve(registry, version):
    registry.declare_gates("reviews", Gates(two_people=True))
    registry.approve("reviews", 1, by="ada")
    assert "one other person must approve" in refusal(registry, 1, by="ada")
    registry.approve("reviews", 1, by="bob", comment="looked at the errors")
    registry.approve("reviews", 1, by="bob")
    assert registry.promote("reviews", to=1, reason="first", by="ada").moved_by == "ada"


def test_gates_name_sections_that_the_card_has():
    assert set(SECTIONS) <= set(CARD_SECTIONS)
    with pytest.raises(ValueError, match="no such section: 'Limit'"):
        Gates(card_sections=("Limit",))


# The test itself


def test_the_bootstrap_finds_the_bound_that_resampling_every_row_finds():
    rng = np.random.default_rng(7)
    candidate, incumbent = rng.random(500) < 0.85, rng.random(500) < 0.80
    compared = compare_pairs(candidate, incumbent, confidence=0.95, num_resamples=20_000, seed=0)
    gains = candidate.astype(float) - incumbent.astype(float)
    resampled = gains[rng.integers(0, 500, size=(4_000, 500))].mean(axis=1)
    assert compared.lower == pytest.approx(np.quantile(resampled, 0.05), abs=0.003)


def test_the_test_is_wrong_no_more_often_than_it_says():
    rng = np.random.default_rng(3)
    passed = 0
    for seed in range(300):
        candidate, incumbent = rng.random((2, 400)) < 0.8
        compared = compare_pairs(
            candidate, incumbent, confidence=0.95, num_resamples=2_000, seed=seed
        )
        passed += compared.lower > 0
    assert passed / 300 < 0.09


def test_predictions_are_read_back_and_damage_is_named(tmp_path):
    path = write_predictions(predictions(3), tmp_path)
    assert read_predictions(path) == predictions(3)
    path.write_text('{"format":1,"datasets":{"evaluation":{}}}')
    with pytest.raises(RegistryError, match=r"datasets\.evaluation\.rows: Field required"):
        read_predictions(path)


# Rollback and time


def test_rollback_goes_back_one_by_one(registry, three):
    for number in (1, 2, 3):
        registry.promote("reviews", to=number, expected=number - 1 or None, reason="better")
    assert registry.rollback("reviews", reason="errors").to_number == 2
    assert registry.rollback("reviews", reason="errors too").to_number == 1
    with pytest.raises(RegistryError, match="no earlier version"):
        registry.rollback("reviews", reason="again")
    registry.promote("reviews", to=3, expected=1, reason="mended")
    move = registry.rollback("reviews", reason="not mended", expected=3)
    assert (move.to_number, move.action, move.forced) == (1, "rollback", False)


def test_rollback_asks_no_gates(registry, three):
    for number in (1, 2):
        registry.promote("reviews", to=number, expected=number - 1 or None, reason="better")
    registry.declare_gates("reviews", Gates(card_sections=("Limits",)))
    assert registry.rollback("reviews", reason="errors").to_number == 1


def test_a_rollback_of_something_else_conflicts(registry, three):
    for number in (1, 2):
        registry.promote("reviews", to=number, expected=number - 1 or None, reason="better")
    with pytest.raises(ConflictError, match=r"points at version 2 .*; you expected version 3"):
        registry.rollback("reviews", reason="errors", expected=3)


def test_what_was_champion_at_a_time(settings, three):
    noon = datetime(2026, 5, 3, 12, tzinfo=UTC)
    times = iter([noon, noon + timedelta(hours=2)])
    with Registry.open(settings, clock=lambda: next(times)) as registry:
        registry.set_alias("reviews", "champion", 1)
        registry.set_alias("reviews", "champion", 3, expected=1)
        answers = [
            registry.at("reviews", "champion", noon + timedelta(minutes=minutes)).to_number
            for minutes in (0, 119, 120, 10_000)
        ]
        assert answers == [1, 1, 3, 3]
        with pytest.raises(NotFoundError, match="did not exist then"):
            registry.at("reviews", "champion", noon - timedelta(seconds=1))
        with pytest.raises(UserError, match="no zone"):
            registry.at("reviews", "champion", datetime(2026, 5, 3))


def test_clocks_an_hour_apart_keep_the_order_of_the_moves(settings, three):
    noon = datetime(2026, 5, 3, 12, tzinfo=UTC)
    with (
        Registry.open(settings, clock=lambda: noon) as here,
        Registry.open(settings, clock=lambda: noon - timedelta(hours=1)) as there,
    ):
        for number in range(8):
            registry = there if number % 2 else here
            expected = (number - 1) % 3 + 1 if number else None
            registry.promote("reviews", to=number % 3 + 1, expected=expected, reason="next")
        moves = here.history("reviews", "champion")
        assert [move.sequence for move in moves] == list(range(1, 9))
        assert [move.to_number for move in moves] == [1, 2, 3, 1, 2, 3, 1, 2]
        assert sorted(move.moved_at for move in moves) == [move.moved_at for move in moves]
        assert there.at("reviews", "champion", noon).to_number == 2
