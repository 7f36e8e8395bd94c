"""PII: what is redacted, what stays, and that redaction is idempotent."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.helpers.examples import examples

from groundup.artifacts.arrays import text_buffers
from groundup.recipe import Personal
from groundup.refine.clean.pii import MASKS, find_numbers, redact
from groundup.refine.clean.pipeline import clean_texts, clean_turns

MASK = dict.fromkeys(MASKS, "mask")
REMOVE = dict.fromkeys(MASKS, "remove")

PHONES = """+49 30 1234567|+1 (555) 234-5678|(555) 234-5678|(555) 123-4567|555-234-5678
555.234.5678|1-800-234-5678|555-234-5678 x12
0171-1234567|(030) 123 4567|020 7946 0958|0800 0282 878|03-1234-5678|01.42.34.56.78
+442071234567|0049 30 1234567|+1.5552345678
+32 (0)2 720 53 51|010-63553377""".replace("\n", "|").split("|")
LABELLED = {
    "Tel.: ": "030 / 12 34 56 78",
    "fax no. ": "2345-6780",
    "Tél : ": "01 42 34 56 78",
    "тел. ": "8 (495) 123-45-67",
}
LABELLED |= {
    "电话是": "67080561",
    "電話：": "03-1234-5678",
    "Phone: ": "86-23-6771-6666",
    "Telefon ": "1234567",
}
ADDRESSES = [
    "93.184.216.34",
    "93.184.216.34:8080",
    "93.184.216.0/24",
    "2001:4860:4860::8888",
    "2a00:1450:4001:81b::200e",
    "66.75.232.175",
]
STAY = """ISBN 978-3-16-148410-0|ISBN 0-306-40615-2|the war of 1914-1918
on 01-02-2003, 2003-02-01 12:34:56 and 01/02/2003|pp. 1234-5678
at +48.8566 2.3522|12.345678, 98.765432|$555-234-5678|1 234 567 890 123|version 93.184.216.34
v93.184.216.34|see section 93.184.216.34
lib-93.184.216.34.tar.gz|1.2.3.4 Introduction|Firefox 3.6.28.1
127.0.0.1, 10.0.0.1, 192.168.1.1, 172.16.0.1, 203.0.113.7|8.8.8.8
999.93.44.55|93.184.216.34.5|SSN 123-45-6789|GMT+0200, 10:20:30 +0200|4111 1111 1111 1111
05 12 18 33 41|+1234567890123456|2001:db8::1
std::vector<int>|00:1b:44:11:3a:b7|2024:12:31:23:59:59:00:11|DE89 3704 0044 0532 0130 00
doi 10.1016/0020-0190(88)90066-X|phone 1998-2002
555-234-5678-9012|A555-234-5678|1.555-234-5678-1|+12 345 678 people|10,000,000 - 20,000,000
tel 12345|telnet 1234567""".replace("\n", "|").split("|")
PIECES = st.sampled_from(
    [
        *PHONES,
        *ADDRESSES,
        *LABELLED,
        "jo@x.org",
        "http://x.y/z",
        "(030)",
        "1234567",
        "+49 30",
        "030",
        "00",
        "+",
        "(",
        ")",
        "[",
    ]
)
TEXTS = st.lists(
    PIECES
    | st.sampled_from(" - . / , 7 12 555 a é 中 \n [1] ".split(" "))
    | st.text("0123456789 +-()./:af\n", max_size=8),
    max_size=20,
)


def hidden(text: str, actions: dict[str, str] = MASK, code: bool = False) -> str:
    return str(redact(pa.array([text]), actions, code)[0][0].as_py())


@pytest.mark.parametrize("number", [*PHONES, *ADDRESSES])
def test_masked_and_removed(number: str) -> None:
    """A number in a sentence, in brackets, at its end, and on its own line."""
    mask = MASKS["phone" if number in PHONES else "ip"]
    text = f"Ask Jo, at {number}, or {number}. In 1999 it was\n{number}\n“{number}” · {number}"
    assert hidden(text) == text.replace(number, mask)
    assert hidden(f"Ask {number} now, or ({number}). Or {number}.", REMOVE) == "Ask now, or. Or."
    assert hidden(text, {"url": "mask"}) == text


@pytest.mark.parametrize("label", LABELLED)
def test_labeled(label: str) -> None:
    """After a label, a number needs less; the label stays."""
    assert hidden(f"x\n{label}{LABELLED[label]}\ny") == f"x\n{label}[phone]\ny"


@pytest.mark.parametrize("text", STAY)
def test_what_stays(text: str) -> None:
    """Years, dates, pages, versions, money, card and book numbers, private addresses."""
    assert hidden(f"So {text} it is.") == f"So {text} it is."
    assert hidden(text) == text


def test_addresses() -> None:
    """Each kind has its own action; brackets stay around a mask, and go with a removal."""
    text = "See http://a.b/c_(d), (www.x.org/y) or <jo.doe+x@mail.x.org>."
    assert hidden(text) == "See [url], ([url]) or <[email]>."
    assert hidden(text, {"email": "mask"}) == "See http://a.b/c_(d), (www.x.org/y) or <[email]>."
    assert hidden(text, {"url": "remove", "email": "mask"}) == "See, or <[email]>."
    assert hidden(text, {}) == text


def test_settings_and_code() -> None:
    """By default, only e-mail is redacted in code; the manifest counts texts by kind."""
    texts = pa.array(["call 555-234-5678 at jo@x.org, 93.184.216.34, http://x.y"] * 2)
    code = np.array([False, True])
    done = clean_texts(texts, code)
    assert done.texts.to_pylist() == [
        "call at,,",
        "call 555-234-5678 at  , 93.184.216.34, http://x.y",
    ]
    assert done.changed == {
        "web addresses": 1,
        "e-mail addresses": 2,
        "IP addresses": 1,
        "phone numbers": 1,
        "white space and controls": 0,
    }
    wanted = Personal(email="keep", url="keep", ip="mask", phone="mask", in_code=("phone",))
    assert clean_texts(texts, code, wanted).texts.to_pylist() == [
        "call [phone] at jo@x.org, [ip], http://x.y",
        "call [phone] at jo@x.org, 93.184.216.34, http://x.y",
    ]


def test_turns() -> None:
    """Turns are redacted like texts."""
    column = pa.array(
        [[{"role": "user", "content": "I am at 555-234-5678"}]],
        pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
    )
    assert (
        clean_turns(column, Personal(phone="mask")).to_pylist()[0][0]["content"]
        == "I am at [phone]"
    )


@examples(150)
@given(st.lists(TEXTS.map("".join) | TEXTS.map(" ".join), min_size=1, max_size=3), st.booleans())
@example(
    ["(030) (030) (030) (030) (030) (030) 1234567 1234567 1234567 1234567 1234567 1234567"], False
)
@example(["+49 30 1234567890123 030-1234567 030-1234567"], True)
@example(["+49 30 1234567" * 6], True)
@example(["+49 30 1234567" * 6], False)
@example(["Tel.: 0 +49 30 1234567 93.184.216.0/24  / 12 (555) 234-5678 0800 0282 878"], False)
@example(
    [
        "fax no. 03-1234-5678+32 (0)2 720 53 5193.184.216.34020 7946 09581-800-234-5678(030) 123"
        " 4567"
    ],
    False,
)
@example(["030-1234567 93.184.216.34", "93.184.216.34/+49 30 1234567/93.184.216.34"], True)
def test_nothing_else_changes(texts: list[str], mask: bool) -> None:
    """Only masks differ; redaction is idempotent; texts are independent."""
    actions = MASK if mask else REMOVE
    once = redact(pa.array(texts), actions)[0].to_pylist()
    if mask:
        words = re.compile("|".join(map(re.escape, MASKS.values())))
        for before, after in zip(texts, once, strict=True):
            assert words.search(before) or re.fullmatch(
                ".*?".join(map(re.escape, words.split(after))), before, re.DOTALL
            )
    assert once == [redact(pa.array([text]), actions)[0][0].as_py() for text in texts]
    personal = Personal(**dict.fromkeys(MASKS, "mask" if mask else "remove"))  # type: ignore[arg-type]
    clean = clean_texts(pa.array(texts), np.zeros(len(texts), np.bool_), personal).texts
    assert (
        clean_texts(clean, np.zeros(len(texts), np.bool_), personal).texts.to_pylist()
        == clean.to_pylist()
    )


@examples(100)
@given(st.lists(TEXTS.map(" ".join), min_size=1, max_size=3))
def test_spans(texts: list[str]) -> None:
    """Spans are inside their text, ordered, disjoint, and hold the ASCII of a number."""
    column = pa.array(["x", *texts]).slice(1)
    found = find_numbers(text_buffers(column), ("ip", "phone"))
    assert found == sorted(found)
    for one, next_one in pairwise(found):
        assert one.row < next_one.row or one.end <= next_one.begin
    for one in found:
        number = texts[one.row].encode()[one.begin : one.end].decode("ascii")
        assert re.fullmatch(r"[+(]?[0-9a-f].*[0-9a-f:)]", number, re.DOTALL)
        assert "\n" not in number
