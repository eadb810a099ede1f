"""What is personal in a text is replaced before the text is written; what is not stays."""

from __future__ import annotations

import itertools
from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kovar.serving.access.key import issue
from kovar.serving.observe.masking import find, mask
from kovar.serving.observe.national_ids import BY_LENGTH

FOUND = {
    "write to jane.doe+films@mail.example.co.uk!": "write to [EMAIL]!",
    "käthe@müller.example": "[EMAIL]",
    "<a@b.org>, c_d@e-f.com": "<[EMAIL]>, [EMAIL]",
    "call +44 20 7946 0958 today": "call [PHONE] today",
    "call (650) 253-0000 today": "call [PHONE] today",
    "card 4111 1111 1111 1111 until 12/27": "card [CARD] until 12/27",
    "card 4111-1111-1111-1111, thanks": "card [CARD], thanks",
    "378282246310005": "[CARD]",
    "no. 2027 4111 1111 1111 1111 is mine": "no. [CARD] is mine",
    "pay DE89 3704 0044 0532 0130 00 thanks a lot": "pay [IBAN] thanks a lot",
    "GB29NWBK60161331926819.": "[IBAN].",
    "from 203.0.113.7, twice": "from [IP], twice",
    "from 2001:db8::8a2e:370:7334 twice": "from [IP] twice",
    "ssn 536-90-4399.": "ssn [ID].",
    "nino AB 12 34 56 C here": "nino [ID] here",
    "codice RCCMNL83S18D969H qui": "codice [ID] qui",
    "cpf 390.533.447-05": "cpf [ID]",
    "bsn 111222333": "bsn [ID]",
    "4111‑1111‑1111–1111": "[CARD]",
    "IBANDE89370400440532013000": "IBAN[IBAN]",
    "ref_DE89370400440532013000 paid": "ref_[IBAN] paid",
    "ip10.0.0.1": "ip[IP]",
    "10。0。0。1": "[IP]",
    '"jane doe"@example.org': "[EMAIL]",
    "a" * 400 + "@example.org": "[EMAIL]",
    r'from "jane \"j\" doe"@example.org': "from [EMAIL]",
    "４111 1111 1111 11\u200b11": "[CARD]",
}  # fmt: skip


@pytest.mark.parametrize("text", FOUND)
def test_personal_data_is_replaced_by_its_kind(text):
    assert mask(text).text == FOUND[text]


STAYS = [
    "A gripping film.",
    "It lasted 142 minutes, 12:30:45 to be exact, and cost $12.50.",
    "Part 3 of 7, from 1999, chapter 10.2: 5/5 stars!!!",
    "the std::string of C++, v2.1, and 10:30",
    "great @ home, love it",
    "a\n@example.org",
    "四星，推荐给朋友",
    "👩‍👩‍👧 می‌خواهم",
    "",
]


@pytest.mark.parametrize("text", STAYS)
def test_what_is_not_personal_stays(text):
    assert mask(text).text == text


def test_how_often_each_kind_was_found_is_counted():
    masked = mask("a@b.org and c@d.org from 10.0.0.1")
    assert masked.counts == {"EMAIL": 2, "IP": 1}


def test_an_api_key_that_a_text_quotes_is_masked():
    _, token = issue("a", ("predict",))
    assert mask(f"my key is {token}").text == "my key is [SECRET]"


@pytest.mark.parametrize("name", sorted({name for names in BY_LENGTH.values() for name in names}))
def test_every_national_id_can_be_checked(name):
    if name != "gb.nino_form":
        assert callable(import_module(f"stdnum.{name}").is_valid)


SECRETS = ["jane@example.org", "4111 1111 1111 1111", "DE89370400440532013000", "203.0.113.77"]
AROUND = st.text(st.sampled_from("ab ,.!?\n:;()é"), max_size=20)


@given(before=AROUND, secret=st.sampled_from(SECRETS), after=AROUND)
def test_no_words_around_it_save_personal_data(before, secret, after):
    assert secret not in mask(f"{before} {secret} {after}").text


@given(st.text(max_size=300))
def test_any_text_is_masked_and_findings_do_not_overlap(text):
    masked = mask(text)
    assert isinstance(masked.text, str)
    found = find(text)
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))


@pytest.mark.parametrize("hostile", ["a" * 20_000, "1 " * 10_000, "1" * 20_000, ":" * 20_000,
                                     "a@" * 10_000, "A1" * 10_000, "AB12 " * 4_000])  # fmt: skip
def test_a_hostile_text_is_masked_in_time(hostile):
    assert mask(hostile[:20_000]) is not None
