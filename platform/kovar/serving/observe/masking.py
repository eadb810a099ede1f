"""Personal data in a text, found and replaced before the text is written anywhere.

What has a form that can be checked is found: e-mail addresses, telephone numbers, payment cards,
IBANs, IP addresses, national ids, keys. Names and addresses of people have none and stay.
When in doubt a number is masked: a long order number may look like a card.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from kovar.serving.observe.national_ids import national_ids_in

Kind = Literal["SECRET", "EMAIL", "IBAN", "CARD", "IP", "PHONE", "ID"]
_SUREST: Final[tuple[Kind, ...]] = get_args(Kind)

# Every repetition is bounded, so that no text takes more than linear time.
_DOMAIN = re.compile(r"@(?:[\w-]{1,63}\.){1,8}[\w-]{2,63}")
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.){1,64}"@')
_SECRET = re.compile(
    r"kovar_[0-9a-f]{16}_[A-Za-z0-9_-]{43}|\beyJ[\w-]{8,4096}\.[\w-]{8,8192}\.[\w-]{8,4096}"
)
_IBAN = re.compile(r"(?=([A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,40}))")
_DIGITS = re.compile(r"(?<!\d)\d(?:[ .-]?\d){12,40}(?!\d)")
_IPV4 = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\w])")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f:]{0,30}:[0-9A-Fa-f:]{1,30}(?:(?:\d{1,3}\.){3}\d{1,3})?")
_LOCAL: Final = "_.%+'-"
_DOTS: Final = "\u3002\uff61"
_MINUS: Final = "\u2212"
_CARD_LENGTHS = range(19, 12, -1)
_IBAN_LENGTHS = range(34, 14, -1)


@dataclass(frozen=True, slots=True)
class Finding:
    """Where something personal stands in a text: `text[start:end]`."""

    start: int
    end: int
    kind: Kind


@dataclass(frozen=True)
class Masked:
    """A text that may be written, and how often what was replaced in it."""

    text: str
    counts: Counter[str]


def mask(text: str, *, phone_regions: Sequence[str] = ("US",)) -> Masked:
    """Replace personal data by its kind: `write to a@b.org` → `write to [EMAIL]`.

    Args:
        text: any text.
        phone_regions: countries (ISO 3166) whose numbers are found without their `+` and code.
    """
    parts, counts, end = [], Counter[str](), 0
    for finding in find(text, phone_regions=phone_regions):
        parts += [text[end : finding.start], f"[{finding.kind}]"]
        counts[finding.kind] += 1
        end = finding.end
    return Masked("".join([*parts, text[end:]]), counts)


def find(text: str, *, phone_regions: Sequence[str] = ("US",)) -> list[Finding]:
    """Return what is personal, in order and without overlaps; of two that overlap, both go as one.

    Digits, dashes and dots of another script or width, and invisible characters inside of a number,
    hide nothing.

    Args:
        text: any text.
        phone_regions: as for `mask`.
    """
    folded, places = _folded(text)
    found = [
        *_matches(_SECRET, folded, "SECRET"),
        *_emails(folded),
        *_ibans(folded),
        *_cards(folded),
        *_addresses(folded),
        *(Finding(start, end, "ID") for start, end in national_ids_in(folded)),
        *_phones(folded, phone_regions),
    ]
    return [
        Finding(places[one.start], places[one.end - 1] + 1, one.kind)
        for one in _without_overlaps(found)
    ]


def _folded(text: str) -> tuple[str, list[int]]:
    """Return the text as it is searched, and the place of each of its characters in the text."""
    if text.isascii():
        return text, list(range(len(text)))
    visible = [(i, c) for i, c in enumerate(text) if unicodedata.category(c) != "Cf"]
    return "".join(_fold(char) for _, char in visible), [i for i, _ in visible]


def _fold(char: str) -> str:
    if char in _DOTS:
        return "."
    if char == _MINUS or unicodedata.category(char) == "Pd":
        return "-"
    digit = unicodedata.digit(char, None)
    normal = unicodedata.normalize("NFKC", char)
    return str(digit) if digit is not None else normal if len(normal) == 1 else char


def _matches(pattern: re.Pattern[str], text: str, kind: Kind) -> Iterator[Finding]:
    for match in pattern.finditer(text):
        yield Finding(match.start(), match.end(), kind)


def _emails(text: str) -> Iterator[Finding]:
    """Find domains behind an @, and all of the name before it, however long."""
    quoted = {match.end() - 1: match.start() for match in _QUOTED.finditer(text)}
    end = 0
    for match in _DOMAIN.finditer(text):
        begin = match.start()
        while begin > end and (text[begin - 1].isalnum() or text[begin - 1] in _LOCAL):
            begin -= 1
        begin = min(begin, quoted.get(match.start(), begin))
        if begin < match.start():
            yield Finding(begin, match.end(), "EMAIL")
        end = match.end()


def _ibans(text: str) -> Iterator[Finding]:
    from stdnum import iban

    for match in _IBAN.finditer(text):
        ends = [i for i, char in enumerate(match[1], 1) if char.isalnum()]
        compact = re.sub(r"[ -]", "", match[1]).upper()
        for length in sorted(_right_checks(compact) & {*_IBAN_LENGTHS}, reverse=True):
            if iban.is_valid(compact[:length]):
                yield Finding(match.start(), match.start() + ends[length - 1], "IBAN")
                break


def _right_checks(compact: str) -> set[int]:
    """Return the lengths at which the first characters have the check digits of an IBAN."""
    head = int("".join(str(int(char, 36)) for char in compact[:4]))
    found, rest = set(), 0
    for length, char in enumerate(compact[4:], 5):
        value = int(char, 36)
        rest = (rest * (100 if value > 9 else 10) + value) % 97
        if (rest * 1_000_000 + head) % 97 == 1:
            found.add(length)
    return found


def _cards(text: str) -> Iterator[Finding]:
    """Find runs of 13 to 19 digits with a right check digit, also amid other groups of digits."""
    from stdnum import luhn

    for match in _DIGITS.finditer(text):
        places = [i for i, char in enumerate(match[0]) if char.isdigit()]
        digits = "".join(match[0][i] for i in places)
        first = 0
        while first < len(digits):
            length = next(
                (
                    n
                    for n in _CARD_LENGTHS
                    if first + n <= len(digits)
                    and digits[first] in "23456"
                    and _is_group(places, first, first + n)
                    and luhn.is_valid(digits[first : first + n])
                ),
                0,
            )
            if length:
                start, end = places[first], places[first + length - 1] + 1
                yield Finding(match.start() + start, match.start() + end, "CARD")
            first += length or 1


def _is_group(places: list[int], first: int, last: int) -> bool:
    """Whether digits first to last neither begin nor end amid digits without a separator."""
    begins = first == 0 or places[first] - places[first - 1] > 1
    return begins and (last == len(places) or places[last] - places[last - 1] > 1)


def _addresses(text: str) -> Iterator[Finding]:
    for pattern in (_IPV4, _IPV6):
        for match in pattern.finditer(text):
            candidate = match[0].rstrip(":") if not match[0].endswith("::") else match[0]
            if any(char.isalnum() for char in candidate) and _is_address(candidate):
                yield Finding(match.start(), match.start() + len(candidate), "IP")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _phones(text: str, regions: Sequence[str]) -> Iterator[Finding]:
    from phonenumbers import Leniency, PhoneNumberMatcher

    if sum(char.isdigit() for char in text) < 7:
        return
    for region in regions or (None,):
        for match in PhoneNumberMatcher(text, region, leniency=Leniency.POSSIBLE, max_tries=100):
            yield Finding(match.start, match.end, "PHONE")


def _without_overlaps(found: list[Finding]) -> list[Finding]:
    """Join what overlaps under the kind that is surer: those stand first in `Kind`."""
    kept: list[Finding] = []
    for finding in sorted(found, key=lambda one: (one.start, -one.end)):
        if kept and finding.start < kept[-1].end:
            last = kept.pop()
            kind = min(last.kind, finding.kind, key=_SUREST.index)
            kept.append(Finding(last.start, max(last.end, finding.end), kind))
        else:
            kept.append(finding)
    return kept
