"""National ids of persons in a text, by their form and their check digits (python-stdnum)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Final

# Length without separators → the numbers that have it (modules of python-stdnum).
BY_LENGTH: Final[dict[int, tuple[str, ...]]] = {
    8: ("cl.rut", "es.dni"),
    9: ("us.ssn", "ca.sin", "gb.nino_form", "nl.bsn", "es.dni", "es.nie", "cl.rut", "pt.cc"),
    10: ("se.personnummer", "dk.cpr", "cz.rc", "bg.egn"),
    11: ("de.idnr", "br.cpf", "pl.pesel", "be.nn", "no.fodselsnummer", "tr.tckimlik", "fi.hetu",
         "hr.oib", "ee.ik", "lt.asmens"),
    12: ("in_.aadhaar", "se.personnummer", "jp.in_", "pt.cc"),
    13: ("ch.ssn", "za.idnr", "kr.rrn", "ro.cnp", "th.pin"),
    15: ("fr.nir",),
    16: ("it.codicefiscale",),
    18: ("cn.ric", "mx.curp"),
}  # fmt: skip
_NINO: Final = re.compile(r"(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]\d{6}[A-D]")

_TOKEN: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9./+-]{0,22}[A-Za-z0-9])?")
MAX_TOKENS: Final = 6
MIN_DIGITS: Final = 6


def national_ids_in(text: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of each national id; groups may be apart by a space, a dot or a dash."""
    tokens = [(match.start(), match.end()) for match in _TOKEN.finditer(text)]
    first = 0
    while first < len(tokens):
        found = _longest_from(text, tokens, first)
        if found:
            yield tokens[first][0], tokens[found - 1][1]
        first = found or first + 1


def _longest_from(text: str, tokens: list[tuple[int, int]], first: int) -> int:
    """Return the end of the longest id that begins at a token; 0 where none begins."""
    best = 0
    start = tokens[first][0]
    for last in range(first, min(first + MAX_TOKENS, len(tokens))):
        if last > first and text[tokens[last - 1][1] : tokens[last][0]] != " ":
            break
        words = text[tokens[last][0] : tokens[last][1]]
        if len(words) > 4 and not any(char.isdigit() for char in words):
            break
        if _is_id(text[start : tokens[last][1]]):
            best = last + 1
    return best


def _is_id(candidate: str) -> bool:
    compact = re.sub(r"[ ./-]", "", candidate).upper()
    if sum(char.isdigit() for char in compact) < MIN_DIGITS:
        return False
    return any(_checks(name, compact, candidate) for name in BY_LENGTH.get(len(compact), ()))


def _checks(name: str, compact: str, candidate: str) -> bool:
    if name == "gb.nino_form":
        return _NINO.fullmatch(compact) is not None
    module = _module(name)
    return bool(module.is_valid(compact) or module.is_valid(candidate))


@cache
def _module(name: str) -> ModuleType:
    return import_module(f"stdnum.{name}")
