"""Shares on cards against brute force."""

from hypothesis import given
from hypothesis import strategies as st

from kovar.resources.cards import UNITS, count_cards, num_cards

shares = st.dictionaries(
    st.sampled_from([1000, 2500, 3000, 3333, 3500, 4167, 5000, 6000, 7000, 10_000]),
    st.integers(1, 3),
    max_size=4,
)


def fit(sizes, cards):
    if not sizes:
        return True
    first, *rest = sizes
    return any(
        fit(rest, (*cards[:i], left - first, *cards[i + 1 :]))
        for i, left in enumerate(cards)
        if left >= first and left not in cards[:i]
    )


@given(shares)
def test_the_fewest_cards_are_those_of_brute_force(counts):
    sizes = sorted((size for size, count in counts.items() for _ in range(count)), reverse=True)
    fewest = num_cards(tuple(sorted(counts.items())))
    assert fit(sizes, (UNITS,) * fewest)
    assert not sizes or not fit(sizes, (UNITS,) * (fewest - 1))


def test_many_small_shares_fill_cards():
    assert num_cards(((130, 300), (210, 200), (340, 100))) == 12


def test_first_fit_is_not_the_last_word():
    # First fit opens a third card.
    assert num_cards(((2000, 2), (3000, 2), (5000, 2))) == 2


def test_a_search_that_ends_early_says_between_which_numbers_the_answer_lies():
    primes = (1009, 1103, 1201, 1301, 1409, 1511, 1601, 1709, 1801, 1901, 2003, 2111)
    cards = count_cards(tuple((size, 9) for size in primes))
    assert cards.at_least < cards.enough
    assert count_cards.__wrapped__(tuple((size, 9) for size in primes)) == cards
