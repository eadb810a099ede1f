"""Label selectors, as Ray reads them."""

import pytest

from kovar.resources.label import check_selector, selected


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ("a", {"zone": "a"}, True),
        ("a", {"zone": "b"}, False),
        ("a", {}, False),
        ("!a", {"zone": "b"}, True),
        ("!a", {"zone": "a"}, False),
        ("!a", {}, True),
        ("in(a, b)", {"zone": "b"}, True),
        ("in(a,b)", {"zone": "c"}, False),
        ("!in(a, b)", {"zone": "c"}, True),
        ("!in(a, b)", {"zone": "a"}, False),
    ],
)
def test_a_selector_holds_as_it_does_in_ray(selector, labels, expected):
    assert selected({"zone": selector}, labels) is expected


@pytest.mark.parametrize("selector", ["", "a b", "in()", "in(a", "in(a b)", "!!a", "-a"])
def test_what_ray_would_refuse_is_refused(selector):
    with pytest.raises(ValueError, match="label selector"):
        check_selector("zone", selector)


def test_all_selectors_must_hold():
    assert selected({"a": "1", "b": "!2"}, {"a": "1"})
    assert not selected({"a": "1", "b": "!2"}, {"a": "1", "b": "2"})
