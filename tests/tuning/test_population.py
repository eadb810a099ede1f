from hypothesis import given
from hypothesis import strategies as st

from kovar.tuning.population import exploit
from kovar.tuning.scheduler import Pbt

SCORES = {1: 0.9, 2: 0.5, 3: 0.7, 4: 0.1}


def decided(number, *, scores=SCORES, donors=frozenset(SCORES), num_evaluations=2, **settings):
    return exploit(
        scores,
        number=number,
        num_evaluations=num_evaluations,
        donors=donors,
        settings=Pbt(**settings),
        seed=0,
    )


def test_the_poorest_goes_on_from_the_best():
    assert [number for number in SCORES if decided(number)] == [4]
    assert decided(4).donor == 1


def test_nothing_is_decided_between_the_intervals():
    assert decided(4, every=3, num_evaluations=4) is None
    assert decided(4, every=3, num_evaluations=6) is not None


def test_a_trial_without_a_checkpoint_gives_none():
    assert decided(4, donors={2, 3, 4}) is None


def test_a_single_trial_has_nobody_to_copy():
    assert decided(1, scores={1: 0.5}) is None


@given(
    st.dictionaries(st.integers(1, 40), st.floats(-1, 1), min_size=1, max_size=20),
    st.floats(0.05, 0.5),
    st.integers(1, 9),
)
def test_a_donor_is_never_worse_and_never_the_trial_itself(scores, quantile, num_evaluations):
    for number in scores:
        options = {"scores": scores, "donors": frozenset(scores), "quantile": quantile}
        found = decided(number, num_evaluations=num_evaluations, **options)
        assert found == decided(number, num_evaluations=num_evaluations, **options)
        if found is not None:
            assert found.donor != number
            assert scores[found.donor] >= scores[number]
