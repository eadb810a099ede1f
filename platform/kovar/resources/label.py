"""Ray's label selectors: what a request may say about the labels of its node.

Source: https://docs.ray.io/en/latest/ray-core/scheduling/labels.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"(?:{_NAME}(?:\.{_NAME})*/)?{_NAME}")
_SELECTOR = re.compile(rf"(!?)(?:({_NAME})|in\(\s*({_NAME}(?:\s*,\s*{_NAME})*)\s*\))")


def check_selector(key: str, selector: str) -> None:
    """Refuse what Ray would refuse.

    Raises:
        ValueError: not a label key, or not a selector.
    """
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is not a label key, such as team or ray.io/zone")
    if not _SELECTOR.fullmatch(selector):
        raise ValueError(
            f"{selector!r} is not a label selector: write value, !value, in(a, b) or !in(a, b)"
        )


def selected(selectors: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels meets all selectors; `!` also holds for an absent label."""
    return all(_meets(selector, labels.get(key)) for key, selector in selectors.items())


def _meets(selector: str, value: str | None) -> bool:
    match = _SELECTOR.fullmatch(selector)
    if match is None:
        return False
    negated, single, several = match.groups()
    wanted = {single} if single else {name.strip() for name in several.split(",")}
    return (value in wanted) != bool(negated)
