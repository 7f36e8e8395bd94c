"""Finds IP addresses and phone numbers in texts. Reads and writes nothing on disk.

A kernel looks for runs of digits and what may stand between them; only those that are long enough
become Python objects. Precision
comes first: a year, a date, a version, an ISBN or a row of a table is worth more than the last
phone number.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import numpy as np

from groundup.artifacts.arrays import Array, Texts
from groundup.refine.kernels import kernel

IP, PHONE = "ip", "phone"


class Found(NamedTuple):
    """One number: its text, first byte in it, the byte after the last, and what it is."""

    row: int
    begin: int
    end: int
    kind: str


def _bytes(members: bytes) -> Array:
    table = np.zeros(256, np.bool_)
    table[list(members)] = True
    return table


_DIGITS, _COLON = _bytes(b"0123456789"), _bytes(b":")
_NUMBER, _HEXADECIMAL = _bytes(b"0123456789 +()./-"), _bytes(b"0123456789abcdefABCDEF:")
# The shortest IPv4 address that is looked for has six digits, the shortest phone number seven.
_FEWEST_DIGITS, _FEWEST_COLONS = 6, 2
# Bytes beside a run that tell what it is: a label before, a port, an extension or a letter after.
_BEFORE, _AFTER = 32, 12

# The registry of special addresses (RFC 6890 and later), so that the answer is the same with every
# version of Python.
_SPECIAL = (
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24"
    " 192.0.2.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3"
    " 2001:db8::/32 3fff::/20"
)
_NOT_PUBLIC = [
    (int(net.network_address), int(net.netmask), net.version)
    for net in map(ipaddress.ip_network, _SPECIAL.split())
]
# A random address has two numbers of 32 or more in 99.3 % of all cases; versions and sections
# hardly ever.
_LARGE = 32
_VERSION = re.compile(
    r"(?i)(?:version|release|build|firmware|driver|rev|revision|ver|section|chapter|figure|table|clause|oid|\bv|§)["
    r" .:#=]*$"
)

# Letters and digits of scripts with spaces: a number begins and ends beside none. In Chinese text
# it stands between letters.
_LETTER = r"0-9A-Za-z_\u00c0-\u1fff"
_IP = rf"(?<![{_LETTER}.\-])(?:\d{{1,3}}\.){{3}}\d{{1,3}}(?![{_LETTER}]|[.\-][{_LETTER}])(?:/\d{{1,2}}\b|:\d{{1,5}}\b)?"
_IP_6 = re.compile(
    rf"(?<![{_LETTER}:.])[23][0-9A-Fa-f]{{3}}(?::[0-9A-Fa-f]{{0,4}}){{2,7}}(?![{_LETTER}:])(?:/\d{{1,3}}\b)?"
)

# Country codes that are in use (ITU-T E.164).
_COUNTRY = r"(?:1|7|2[07]|2[1-69]\d|3[0-4679]|3[578]\d|4[013-9]|42[013]|5[1-8]|5[09]\d|6[0-6]|6[789]\d|8[1246]|8[058]\d|9[0-58]|9[679]\d)"
# Beside a mask as beside the number that it hides: what was no number before is none after, and a
# second time changes nothing.
_BEHIND = rf"(?<!\[{IP}\])(?<!\[{PHONE}\])"
_LEFT = rf"{_BEHIND}(?<![{_LETTER}$€£#=/.+\-])(?<![\d\]][ )])"
_RIGHT = rf"(?![{_LETTER}]|[\-./ ]\d|[\-./ ]?\[(?:{IP}|{PHONE})\])"
_PREFIX = rf"(?:{_BEHIND}(?<![{_LETTER}+])\+|{_LEFT}00(?=[1-9]\d{{1,2}}[ \-/(]))"
_INTERNATIONAL = rf"{_PREFIX}{_COUNTRY}(?:(?: ?[.\-/] ?| )?\(?\d{{1,8}}\)?){{1,6}}(?![{_LETTER}])"
# North America: area and exchange begin with 2 to 9.
_AMERICAN = (
    r"(?:1[ .\-])?(?:\([2-9]\d\d\)[ \-]?\d|[2-9][0-8]\d[.\-][2-9])\d\d[.\-]\d{4}(?:,? ?(?:x|ext\.?)"
    r" ?\d{1,5})?"
)
# Elsewhere a trunk 0 leads.
_TRUNK = "|".join(
    [
        r"\(0[1-9]\d{0,4}\)[ /\-]{0,2}\d{3,8}(?:[ \-]\d{2,4}){0,2}",  # (030) 123 4567
        r"0[1-9]\d{1,3} ?[/\-] ?\d{5,8}(?:-\d{1,3})?",  # 0171-1234567
        (  # 020 7946 0958
            r"0[1-9]\d{2,4} \d{3} \d{3,4}|0[1-9]\d{2} \d{4} \d{3}|0[1-9]\d{1,3} \d{6,8}|02\d \d{4}"
            r" \d{4}"
        ),
        r"0[1-9]-\d{4}-\d{4}|0[1-9]\d-\d{3,4}-\d{4}",  # 03-1234-5678
        r"0[1-9](?:\.\d\d){4}",  # 01.42.34.56.78
    ]
)
# Only ASCII letters are compared without their case.
_NAMES = (
    "tel|telephone|t[éÉ]l[éÉ]phone|t[éÉ]l|telefono|tel[éÉ]fono|telefon|telefone|phone|ph|"
    "fax|telefax|mobile|mob|handy|hotline|whatsapp|[Тт]ел|[Тт]елефон|[Фф]акс"
)
_CHINESE = "(?:電話|电话|传真|傳真)(?:号码|號碼)?[是为為]?"
_LABEL = (
    rf"(?i:(?<![{_LETTER}])(?:{_NAMES})(?:[ \-]?(?:no|number|nr|num)\b)?|{_CHINESE}|전화|☎|☏|📞)["
    r" .:：#=)]{0,4}"
)
_LABELLED = rf"{_LABEL}(?P<number>[+(]?\d(?:[ ().\-/]{{0,3}}\d){{6,14}})(?![{_LETTER}])"
_PHONE = rf"{_LABELLED}|{_INTERNATIONAL}|{_LEFT}(?:{_AMERICAN}|{_TRUNK}){_RIGHT}"
_ANY = re.compile(rf"(?P<ip>{_IP})|(?P<phone>{_PHONE})", re.ASCII)
_OTHER = re.compile(
    "|".join(
        [
            r"(?:1[5-9]|20)\d\d[ /\-]{1,3}(?:1[5-9]|20)\d\d(?!\d)",  # 1914-1918
            r"(?:1[5-9]|20)\d\d([\-./])\d\d?\1\d\d?(?!\d)|[0-3]?\d([\-./])[0-3]?\d\2\d{4}(?!\d)",  # 2003-02-01, 01/02/2003
            r"\+?\d{1,3}\.\d{3,7}[ /+\-]",  # +48.8566 2.3522
        ]
    )
)
Recognise = Callable[[str, int, int], Iterator[tuple[int, int, str]]]


def find_numbers(texts: Texts, kinds: Collection[str]) -> list[Found]:
    """Return public IP addresses (kind "ip") and phone numbers (kind "phone") of texts, in order,
    apart from each other.
    """
    found = list(_find(texts, (_NUMBER, _DIGITS, _FEWEST_DIGITS), _plain)) if kinds else []
    if IP in kinds:
        found += _find(texts, (_HEXADECIMAL, _COLON, _FEWEST_COLONS), _sixth)
    apart: list[Found] = []
    for one in sorted(one for one in found if one.kind in kinds):
        if not apart or one.row != apart[-1].row or one.begin >= apart[-1].end:
            apart.append(one)
    return apart


def _find(texts: Texts, wanted: tuple[Array, Array, int], recognize: Recognise) -> Iterator[Found]:
    """Show every run of `_runs` to `recognize`, with what stands around it, where in that it begins
    and ends.
    """
    offsets, data = texts
    whole = data.data
    for row, begin, end in zip(
        *(column.tolist() for column in _runs(offsets, data, *wanted)), strict=True
    ):
        start, stop = int(offsets[row]), int(offsets[row + 1])
        before = bytes(whole[max(start, begin - _BEFORE) : begin]).decode(errors="ignore")
        window = before + bytes(whole[begin : min(stop, end + _AFTER)]).decode(errors="ignore")
        # Inside a run, characters are bytes.
        shift = begin - start - len(before)
        for first, last, kind in recognize(window, len(before), len(before) + end - begin):
            yield Found(row, shift + first, shift + last, kind)


@kernel
def _runs(
    offsets: Array, data: Array, members: Array, counted: Array, least: int
) -> tuple[Array, Array, Array]:
    """Return text, first byte and byte after the last of every run of `members` that holds `least`
    bytes of `counted`.
    """
    most = len(data) // (least + 1) + len(offsets)
    rows, begins, ends = (
        np.empty(most, np.int32),
        np.empty(most, np.int64),
        np.empty(most, np.int64),
    )
    found = 0
    for text in range(len(offsets) - 1):
        i = last = offsets[text]
        while i < offsets[text + 1]:
            # Most bytes are none of `counted`, and this is all that is done with them.
            if not counted[data[i]]:
                i += 1
                continue
            begin, count = i, 0
            while begin > last and members[data[begin - 1]]:
                begin -= 1
            while i < offsets[text + 1] and members[data[i]]:
                count += counted[data[i]]
                i += 1
            last = i
            if count >= least:
                rows[found], begins[found], ends[found] = text, begin, i
                found += 1
    return rows[:found], begins[:found], ends[:found]


def _plain(window: str, begin: int, end: int) -> Iterator[tuple[int, int, str]]:
    """Yield phone numbers and IPv4 addresses that begin in the run."""
    at = 0
    while hit := _ANY.search(window, at):
        at = hit.start() + 1
        kind = IP if hit["ip"] else PHONE
        first, last = hit.span("number" if hit["number"] else kind)
        if kind == PHONE:
            last = first + _phone_length(window[first:last], hit["number"] is not None)
        if (
            begin <= first < end
            and last > first
            and (kind == PHONE or _is_public(hit["ip"], window[max(0, first - _BEFORE) : first]))
        ):
            yield first, last, kind
            at = last


def _phone_length(number: str, labeled: bool) -> int:
    """Return how many characters from the first on are a phone number; 0 if it is something else."""
    if _OTHER.match(number):
        return 0
    prefix = re.match(r"\+|00", number)
    if labeled or prefix is None:
        return len(number)
    fewest, most = (11, 11) if number[prefix.end()] in "17" else (9, 13)
    while _digits(number[prefix.end() :]) > most and " " in number:
        number = number[: number.rindex(" ")].rstrip(" -./(")
    # The bracket that closes around a number is not its own.
    number = number[:-1] if number[-1] == ")" and number.count(")") > number.count("(") else number
    return len(number) if fewest <= _digits(number[prefix.end() :]) <= most else 0


def _digits(text: str) -> int:
    return sum(map(str.isdigit, text))


def _is_public(text: str, before: str) -> bool:
    """Whether dotted numbers are an address that someone may own (FineWeb's choice), and no
    version, section or the like.
    """
    numbers = re.split(r"[./:]", text)[:4]
    if any(int(number) > 255 or (number[0] == "0" and number != "0") for number in numbers):
        return False
    large = sum(int(number) >= _LARGE for number in numbers) >= 2
    return large and not _is_special(".".join(numbers)) and not _VERSION.search(before)


def _is_special(address: str) -> bool:
    own = ipaddress.ip_address(address)
    return any(
        int(own) & bits == net for net, bits, version in _NOT_PUBLIC if version == own.version
    )


def _sixth(window: str, begin: int, end: int) -> Iterator[tuple[int, int, str]]:
    """Yield IPv6 addresses of the one range that is given out (2000::/3)."""
    for hit in _IP_6.finditer(window, begin, end + len("/128")):
        address = hit[0].partition("/")[0]
        # Dates and times are made of digits alone.
        if (
            ("::" in address or re.search(r"[A-Fa-f]", address))
            and _is_sixth(address)
            and not _is_special(address)
        ):
            yield *hit.span(), IP


def _is_sixth(address: str) -> bool:
    try:
        return bool(ipaddress.IPv6Address(address))
    except ValueError:
        return False
