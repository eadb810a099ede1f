import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kovar.evaluation import Entity, entities_of, entity_intervals, entity_metrics

TRUE = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
PREDICTED = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
TAGS = st.lists(st.sampled_from(["O", "B-X", "I-X", "B-Y", "I-Y"]), max_size=12)


def test_the_documented_example_of_seqeval_gives_its_numbers():
    found = entity_metrics(TRUE, PREDICTED)
    assert (found.precision, found.recall, found.f1) == (0.5, 0.5, 0.5)
    assert {kind: (one.f1, one.support) for kind, one in found.per_class.items()} == {
        "MISC": (0.0, 1),
        "PER": (1.0, 1),
    }
    assert found.macro_f1 == 0.5
    assert found.accuracy == pytest.approx(0.8)


def test_seqevals_documented_difference_between_its_modes():
    """From its README: `B-NP I-NP O` against `I-NP I-NP O`, right by default, wrong if strict."""
    true, predicted = [["B-NP", "I-NP", "O"]], [["I-NP", "I-NP", "O"]]
    assert entity_metrics(true, predicted).f1 == 1.0
    assert entity_metrics(true, predicted, scheme="iob2").f1 == 0.0


@pytest.mark.parametrize(
    ("tags", "bio", "iob2"),
    [
        ("B-X I-X", [("X", 0, 2)], [("X", 0, 2)]),
        ("B-X B-X", [("X", 0, 1), ("X", 1, 2)], [("X", 0, 1), ("X", 1, 2)]),
        ("B-X I-Y", [("X", 0, 1), ("Y", 1, 2)], [("X", 0, 1)]),
        ("O I-X I-X O", [("X", 1, 3)], []),
        ("I-X B-X I-X", [("X", 0, 1), ("X", 1, 3)], [("X", 1, 3)]),
        ("", [], []),
    ],
)
def test_spans_are_read_by_their_scheme(tags, bio, iob2):
    assert entities_of(tags.split()) == [Entity(*span) for span in bio]
    assert entities_of(tags.split(), scheme="iob2") == [Entity(*span) for span in iob2]


def test_what_is_no_tag_is_refused():
    with pytest.raises(ValueError, match="not a tag: 'X-PER'"):
        entities_of(["O", "X-PER"])


@settings(deadline=None)
@given(st.lists(TAGS, min_size=1))
def test_tags_agree_with_themselves_and_spans_lie_in_order_inside_the_sentence(sentences):
    found = entity_metrics(sentences, sentences)
    assert found.f1 in (0.0, 1.0)
    for tags in sentences:
        ends = [edge for one in entities_of(tags) for edge in (one.start, one.end)]
        assert ends == sorted(ends)
        assert all(0 <= edge <= len(tags) for edge in ends)


def test_the_interval_of_f1_holds_it():
    low, high = entity_intervals(TRUE * 20, PREDICTED * 20)["f1"]
    assert low < 0.5 < high
