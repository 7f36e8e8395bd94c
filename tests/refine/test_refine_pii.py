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
from groundup.artifacts.kinds import KINDS
from groundup.recipe import Personal
from groundup.refine.clean import contacts, pii, secrets
from groundup.refine.clean.contacts import find_signatures
from groundup.refine.clean.pii import MASKS, find_spans, redact
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
HEX, BASE = "192b9bdd22ab9ed4d12e236c78afcb9a", "aB3dE6gH9jK2mN5pQ8sT1vW4xY7z" * 4
# Made up; split so that no scanner takes this file for a leak.
SECRETS = [
    "AKIA" + "Q7RT2XYZ5MNB4KLD",
    "ghp_" + BASE[:36],
    "github_pat_" + BASE[:22] + "_" + BASE[:59],
    "glpat-" + BASE[:20],
    "xoxb-" + "123456789012-" + BASE[:24],
    "sk_live_" + BASE[:24],
    "AIza" + BASE[:35],
    "sk-" + "ant-api03-" + BASE[:93],
    "eyJ" + BASE[:30] + ".eyJ" + BASE[:60] + "." + BASE[:43],
    f"-----BEGIN RSA PRIVATE KEY-----\n{BASE[:64]}\n{BASE[:11]}=\n-----END RSA PRIVATE KEY-----",
]
LABELED_SECRETS = {
    "password: ": "tr0ub4dor&3",
    "DB_PASSWORD=": "x9Kq2mmZ",
    '"api_key": "': HEX,
    "Authorization: Bearer ": BASE[:40],
    "aws_secret_access_key = ": BASE[:40],
    "postgres://ann:": "gTG16Msi",
}
NO_SECRETS = """password = os.environ["DB_PASSWORD1"]|token = tokens2id|secret = config.key2.value
token: utf8_string_2|password: your-password-123|password=${DB_PASS1}|AKIAIOSFODNN7EXAMPLE
commit 192b9bdd22ab9ed4d12e236c78afcb9a393ec15f|sha256=192b9bdd22ab9ed4d12e236c78afcb9a393ec15f
sk-learn-contrib-project-2021-release|db://user:password@host|basic B2B-marketing-2023-plan-now
-----BEGIN PRIVATE KEY----- is how a key begins; -----END PRIVATE KEY----- is how it ends
the secret: 1914-1918 was long|withXSRFToken: defaultToConfig2""".replace("\n", "|").split("|")
SIGNATURES = [
    "12 Main Street\nSpringfield, IL 62701\nTel.: +1 555 234 5678",
    "Musterstraße 12\n10115 Berlin\nE-Mail: max@muster.de",
    "T +49 30 1234567 | M +49 171 1234567\nann@x.org",
    "12, rue de la Paix\n75002 Paris, France",
    "10 Downing Street\nLondon SW1A 2AA",
    "Phone: 555-234-5678\nFax: 555-234-5679",
]
NO_SIGNATURES = [
    "Chapter 12\n1900 Paris",
    "2003 World Cup\n2004 Euro",
    "He lived at\n12 Main Street\nand nobody knew.",
    "a@b.org\nc@d.org",
    "In 1914\nthe war began, 1918",
]
PIECES = st.sampled_from(
    [
        *PHONES,
        *ADDRESSES,
        *LABELLED,
        *SECRETS[:3],
        *LABELED_SECRETS,
        *LABELED_SECRETS.values(),
        "12 Main Street\n10115 Berlin",
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


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_in_the_formats_of_services(secret: str) -> None:
    for code in (False, True):
        assert hidden(f"Use {secret} here.", code=code) == "Use [secret] here."
        assert hidden(f"Use {secret}", {"secret": "remove"}, code).strip() == "Use"


@pytest.mark.parametrize("label", LABELED_SECRETS)
def test_secrets_behind_their_labels(label: str) -> None:
    """The label stays, and so does what follows the value."""
    after = "@db.x/shop" if "//" in label else '" now'
    text = f"{label}{LABELED_SECRETS[label]}{after}"
    assert hidden(text, {"secret": "mask"}) == f"{label}[secret]{after}"


@pytest.mark.parametrize("text", NO_SECRETS)
def test_what_is_no_secret(text: str) -> None:
    """Placeholders, names of variables, hashes, and sentences about keys."""
    assert hidden(text, {"secret": "mask"}, code=True) == text


@pytest.mark.parametrize("block", SIGNATURES)
def test_signatures_go_with_their_lines(block: str) -> None:
    text = f"Yes.\n\nAnn Example\n{block}\n\nP.S. No."
    assert hidden(text) == text.replace(block, "[signature]")
    assert hidden(text, REMOVE) == text.replace(block + "\n", "")
    assert hidden(block, {"signature": "remove"}) == ""


@pytest.mark.parametrize("text", NO_SIGNATURES)
def test_lines_that_are_no_signature(text: str) -> None:
    assert hidden(text, {"signature": "mask"}) == text


@pytest.mark.parametrize("kind", ["mail", "chat", "forum"])
def test_sources_of_people_who_write_hide_personal_data_by_default(kind: str) -> None:
    """Without a line in the recipe: addresses, numbers, signatures and secrets."""
    assert Personal().actions(KINDS[kind].is_code) == REMOVE


def test_settings_and_code() -> None:
    """By default, only e-mail and secrets are redacted in code; texts are counted by kind."""
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
    found = find_spans(text_buffers(column), ("ip", "phone"))
    assert found == sorted(found)
    for one, next_one in pairwise(found):
        assert one.row < next_one.row or one.end <= next_one.begin
    for one in found:
        number = texts[one.row].encode()[one.begin : one.end].decode("ascii")
        assert re.fullmatch(r"[+(]?[0-9a-f].*[0-9a-f:)]", number, re.DOTALL)
        assert "\n" not in number


LINES = ["12 Main Street", "Springfield, IL 62701", "Tel.: +1 555 234 5678", "drıve 5", "Ann, 1914"]
SECRETS = ["api_key = ", "Bearer ", "p a s s w o r d s : ", "a8Kd93jKd02mLpQ7", "ghp_" + "a1B2" * 9]


@examples(100)
@given(
    st.lists(
        st.lists(TEXTS.map(" ".join) | st.sampled_from([*LINES, *SECRETS, "\n"])).map("".join),
        max_size=3,
    )
)
def test_screens_miss_nothing(texts: list[str]) -> None:
    """Without the screens of RE2, the same is found."""
    buffers = text_buffers(pa.array(texts, pa.string()))
    with pytest.MonkeyPatch.context() as patch:
        for module in (pii, contacts, secrets):
            patch.setattr(module, "FEW", 0)
        found = find_spans(buffers, ("ip", "phone", "secret")), list(find_signatures(buffers))
        for module in (pii, contacts, secrets):
            patch.setattr(module, "screened", lambda texts, spans, *_, **__: spans)
        plain = find_spans(buffers, ("ip", "phone", "secret")), list(find_signatures(buffers))
    assert found == plain
