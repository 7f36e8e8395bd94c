"""Redact personal data (PII): addresses, phone numbers, signatures and secrets.

A removed address goes with the space around it and leaves one space, so its neighbors cannot join
into a new address. A masked address leaves one word, and the rest of the text does not change.

Patterns find addresses. For numbers, a kernel finds runs of digits, and only long ones become
Python strings; `secrets.py` and `contacts.py` work alike. Precision comes first: a year, date,
version, ISBN or table row is worth more than the last phone number.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.arrays import Array, Texts, mask, replace_rows, text_buffers
from groundup.refine.clean.contacts import find_signatures
from groundup.refine.clean.secrets import find_secrets
from groundup.refine.clean.spans import FEW, address_lines, put_spans, screened, take_spans
from groundup.refine.kernels import kernel
from groundup.refine.scan import NINE, ZERO, next_between

IP, PHONE, SECRET, SIGNATURE = "ip", "phone", "secret", "signature"
# What replaces a masked item, by kind.
MASKS = {"email": "[email]", "url": "[url]", IP: "[ip]", PHONE: "[phone]"}
MASKS |= {SECRET: "[secret]", SIGNATURE: "[signature]"}
# How the manifest names the kinds.
PII_LABELS = {
    "email": "e-mail addresses",
    "url": "web addresses",
    IP: "IP addresses",
    PHONE: "phone numbers",
    SECRET: "secrets",
    SIGNATURE: "signatures",
}
# "mask" or "remove" for each kind to redact.
Actions = Mapping[str, str]

# Addresses

# ASCII only, as in RFC 3986: in Chinese text the sentence continues right after the address.
# Brackets belong to it in pairs only, and it does not end with punctuation.
_URL_CHARACTER = r"[A-Za-z0-9._~:/?#@!$&'*+,;=%\-]"
_URL_TAIL = (
    rf"(?:{_URL_CHARACTER}|\({_URL_CHARACTER}*\))*"
    rf"(?:[A-Za-z0-9_~/#@$&*+=%\-]|\({_URL_CHARACTER}*\))"
)
_URL = rf"(?i:https?|ftp)://{_URL_TAIL}|\bwww\.[A-Za-z0-9-]+\.{_URL_TAIL}"
_LOCAL, _HOST = r"[A-Za-z0-9._%+-]+", r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*"
_MAIL = rf"(?:mailto:)?{_LOCAL}@{_HOST}\.[A-Za-z]{{2,}}"
# In code, `matrix@weights.to` is an expression, so only known domains count.
_DOMAINS = (
    "com|org|net|edu|gov|mil|info|dev|au|be|br|ca|ch|cn|cz|de|dk|es|eu|fi|fr|jp|kr|nl|no|pl|ru|se"
    "|uk|us"
)
_CODE_MAIL = rf"{_LOCAL}@{_HOST}\.(?:{_DOMAINS})\b"
# The neighbors of a removed number may join into a new one. After these rounds, the rest is masked.
_MAX_ROUNDS = 4
_STOP = re.compile(rb"[.,;:!?]+(?:\s|$)")


def redact(
    texts: pa.StringArray, actions: Actions, code: bool = False
) -> tuple[pa.StringArray, dict[str, Array]]:
    """Redact the kinds of PII that `actions` names, which are the keys of MASKS.

    The white space of `texts` is normalized; `code` says whether they are source code. Returns
    them, and for each kind the mask of the texts in which something was redacted.
    """
    touched: dict[str, Array] = {}
    everything = np.ones(len(texts), np.bool_)
    if SIGNATURE in actions:
        # Before the addresses in their lines.
        texts, touched[SIGNATURE] = _redact_signatures(texts, actions, everything)
    texts, in_addresses = _redact_addresses(texts, actions, code)
    texts, in_spans = _redact_spans(texts, actions)
    touched |= in_addresses | in_spans
    if SIGNATURE in actions:
        # Without those, more lines may be a signature.
        rows = np.logical_or.reduce(list(touched.values()))
        texts, signed = _redact_signatures(texts, actions, rows)
        touched[SIGNATURE] |= signed
    return texts, touched


def _redact_addresses(
    texts: pa.StringArray, actions: Actions, code: bool
) -> tuple[pa.StringArray, dict[str, Array]]:
    """Redact e-mail and web addresses; return what `redact` returns."""
    kinds = {"url": _URL, "email": _CODE_MAIL if code else _MAIL}
    touched = {kind: np.zeros(len(texts), np.bool_) for kind in kinds if kind in actions}
    buffers = text_buffers(texts)
    spans = address_lines(buffers)
    lines = before = take_spans(buffers, spans)
    for kind in touched if len(spans) else ():
        pattern, earlier = kinds[kind], lines
        steps = [(pattern, MASKS[kind])]
        if actions[kind] == "remove" and code:
            steps = [(pattern, " ")]
        elif actions[kind] == "remove":
            # With the brackets around it: "at (x@y.org)." → "at.".
            whole = rf"(?:\((?:{pattern})\)|<(?:{pattern})>|\[(?:{pattern})\]|{pattern})"
            before_stop = rf"(?m)(?:[ \t]*{whole})+([.,;:!?]+(?:\s|$))"
            steps = [(before_stop, r"\1"), (rf"(?:[ \t]*{whole})+[ \t]*", " ")]
        for found, replacement in steps:
            lines = pc.replace_substring_regex(lines, found, replacement)
        touched[kind][spans[mask(pc.not_equal(earlier, lines)), 0]] = True
    changed = mask(pc.not_equal(before, lines))
    if changed.any():
        texts = put_spans(buffers, spans[changed], lines.filter(pa.array(changed)))
    return texts, touched


def _redact_signatures(
    texts: pa.StringArray, actions: Actions, rows: Array
) -> tuple[pa.StringArray, Array]:
    """Redact the signatures of some rows; return the texts, and the mask of those that changed."""
    part, numbers = texts.filter(pa.array(rows)), np.flatnonzero(rows)
    changed, after = np.zeros(len(texts), np.bool_), []
    is_removed = actions[SIGNATURE] == "remove"
    for row, group in groupby(find_signatures(text_buffers(part)), itemgetter(0)):
        text, pieces, pos = part[row].as_py().encode(), [], 0
        for _, begin, end in group:
            pieces += [text[pos:begin], b"" if is_removed else MASKS[SIGNATURE].encode()]
            pos = end + is_removed  # with its line feed
        after.append(b"".join([*pieces, text[pos:]]).decode())
        changed[numbers[row]] = True
    return replace_rows(texts, changed, after), changed


class PiiSpan(NamedTuple):
    """A number or secret: its text, its first byte, the byte after its last, and its kind."""

    row: int
    begin: int
    end: int
    kind: str


def _redact_spans(
    texts: pa.StringArray, actions: Actions
) -> tuple[pa.StringArray, dict[str, Array]]:
    """Redact secrets, IP addresses and phone numbers; return what `redact` returns."""
    kinds = [kind for kind in (IP, PHONE, SECRET) if kind in actions]
    touched = {kind: np.zeros(len(texts), np.bool_) for kind in kinds}
    rows = np.arange(len(texts))
    for rounds_left in reversed(range(_MAX_ROUNDS)):
        part = texts.take(pa.array(rows))
        spans = find_spans(text_buffers(part), touched)
        if not spans:
            break
        ways = actions if rounds_left else dict.fromkeys(actions, "mask")
        changed, after = np.zeros(len(texts), np.bool_), []
        for span in spans:
            touched[span.kind][rows[span.row]] = changed[rows[span.row]] = True
        for row, group in groupby(spans, lambda span: span.row):
            after.append(_replace_spans(part[row].as_py().encode(), group, ways).decode())
        texts, rows = replace_rows(texts, changed, after), np.flatnonzero(changed)
    return texts, touched


def _replace_spans(text: bytes, spans: Iterable[PiiSpan], actions: Actions) -> bytes:
    """Return a text with its spans masked or removed."""
    pieces, pos = [], 0
    for span in spans:
        begin, end, replacement = span.begin, span.end, MASKS[span.kind].encode()
        if actions[span.kind] == "remove":
            # Extend the span over brackets and blanks around it.
            if text[begin - 1 : begin] + text[end : end + 1] in (b"()", b"<>", b"[]"):
                begin, end = begin - 1, end + 1
            while begin and text[begin - 1] in b" \t":
                begin -= 1
            replacement = b""
            if not _STOP.match(text, end):
                while end < len(text) and text[end] in b" \t":
                    end += 1
                # Neighbors leave one space together, as white space normalization would.
                if not pos or pos < begin:
                    replacement = b" "
        pieces += [text[pos : max(pos, begin)], replacement]
        pos = end
    return b"".join([*pieces, text[pos:]])


# Numbers


def _byte_table(members: bytes) -> Array:
    table = np.zeros(256, np.bool_)
    table[list(members)] = True
    return table


# The bytes of a run, the first and the last of those that are counted in it, and the minimum count.
# The shortest IPv4 address of interest has six digits, the shortest phone number seven.
_NUMBER_RUN = (_byte_table(b"0123456789 +()./-"), ZERO, NINE, 6)
_IPV6_RUN = (_byte_table(b"0123456789abcdefABCDEF:"), ord(":"), ord(":"), 2)
# Context of a run in bytes: a label before it; a port, an extension or a letter after it.
_BEFORE, _AFTER = 32, 12

# The registry of special addresses (RFC 6890 and later). A literal, so the result does not depend
# on the version of Python.
_SPECIAL = [
    ipaddress.ip_network(net)
    for net in (
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24"
        " 192.0.2.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3"
        " 2001:db8::/32 3fff::/20"
    ).split()
]
# 99.3 % of random addresses have two numbers of 32 or more; versions and sections hardly ever do.
_LARGE = 32
_VERSION = re.compile(
    r"(?i)(?:version|release|build|firmware|driver|rev|revision|ver|section|chapter|figure|table"
    r"|clause|oid|\bv|§)[ .:#=]*$"
)

# Letters and digits of scripts with spaces: a number begins and ends beside none of them. In
# Chinese text it stands between letters.
_LETTER = r"0-9A-Za-z_\u00c0-\u1fff"
_IP = (
    rf"(?<![{_LETTER}.\-])(?:\d{{1,3}}\.){{3}}\d{{1,3}}(?![{_LETTER}]|[.\-][{_LETTER}])"
    r"(?:/\d{1,2}\b|:\d{1,5}\b)?"
)
_IPV6_SCREEN = r"[23][0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){2}"
_IPV6 = re.compile(
    rf"(?<![{_LETTER}:.])[23][0-9A-Fa-f]{{3}}(?::[0-9A-Fa-f]{{0,4}}){{2,7}}(?![{_LETTER}:])"
    r"(?:/\d{1,3}\b)?"
)

# Country codes in use (ITU-T E.164).
_COUNTRY = (
    r"(?:1|7|2[07]|2[1-69]\d|3[0-4679]|3[578]\d|4[013-9]|42[013]|5[1-8]|5[09]\d|6[0-6]|6[789]\d"
    r"|8[1246]|8[058]\d|9[0-58]|9[679]\d)"
)
# A mask counts like the number that it replaced, so a second pass changes nothing.
_BEHIND = rf"(?<!\[{IP}\])(?<!\[{PHONE}\])"
_LEFT = rf"{_BEHIND}(?<![{_LETTER}$€£#=/.+\-])(?<![\d\]][ )])"
_RIGHT = rf"(?![{_LETTER}]|[\-./ ]\d|[\-./ ]?\[(?:{IP}|{PHONE})\])"
_PREFIX = rf"(?:{_BEHIND}(?<![{_LETTER}+])\+|{_LEFT}00(?=[1-9]\d{{1,2}}[ \-/(]))"
_INTERNATIONAL = rf"{_PREFIX}{_COUNTRY}(?:(?: ?[.\-/] ?| )?\(?\d{{1,8}}\)?){{1,6}}(?![{_LETTER}])"
# North America: area and exchange begin with 2 to 9.
_AMERICAN = (
    r"(?:1[ .\-])?(?:\([2-9]\d\d\)[ \-]?\d|[2-9][0-8]\d[.\-][2-9])\d\d[.\-]\d{4}"
    r"(?:,? ?(?:x|ext\.?) ?\d{1,5})?"
)
# Elsewhere, numbers begin with a trunk 0.
_TRUNK = "|".join(
    [
        r"\(0[1-9]\d{0,4}\)[ /\-]{0,2}\d{3,8}(?:[ \-]\d{2,4}){0,2}",  # (030) 123 4567
        r"0[1-9]\d{1,3} ?[/\-] ?\d{5,8}(?:-\d{1,3})?",  # 0171-1234567
        r"0[1-9]\d{2,4} \d{3} \d{3,4}|0[1-9]\d{2} \d{4} \d{3}",  # 0800 0282 878
        r"0[1-9]\d{1,3} \d{6,8}|02\d \d{4} \d{4}",  # 020 7946 0958
        r"0[1-9]-\d{4}-\d{4}|0[1-9]\d-\d{3,4}-\d{4}",  # 03-1234-5678
        r"0[1-9](?:\.\d\d){4}",  # 01.42.34.56.78
    ]
)
# Case is ignored for ASCII letters only.
_NAMES = (
    "tel|telephone|t[éÉ]l[éÉ]phone|t[éÉ]l|telefono|tel[éÉ]fono|telefon|telefone|phone|ph|"
    "fax|telefax|mobile|mob|handy|hotline|whatsapp|[Тт]ел|[Тт]елефон|[Фф]акс"
)
_CHINESE = "(?:電話|电话|传真|傳真)(?:号码|號碼)?[是为為]?"
_LABEL = (
    rf"(?i:(?<![{_LETTER}])(?:{_NAMES})(?:[ \-]?(?:no|number|nr|num)\b)?|{_CHINESE}|전화|☎|☏|📞)"
    r"[ .:：#=)]{0,4}"
)
_LABELED = rf"{_LABEL}(?P<number>[+(]?\d(?:[ ().\-/]{{0,3}}\d){{6,14}})(?![{_LETTER}])"
_PHONE = rf"{_LABELED}|{_INTERNATIONAL}|{_LEFT}(?:{_AMERICAN}|{_TRUNK}){_RIGHT}"
_ANY = re.compile(rf"(?P<ip>{_IP})|(?P<phone>{_PHONE})", re.ASCII)
# What every match of _ANY holds, without what must not stand beside it: for RE2, in which the few
# windows are found that are worth a Python string.
_NUMBER_SCREEN = "|".join(
    [
        r"(?:[0-9]{1,3}\.){3}[0-9]",
        rf"(?:(?i:{_NAMES})(?i:[ \-]?(?:no|number|nr|num))?|{_CHINESE}|전화|☎|☏|📞)"
        r"[ .:：#=)]{0,4}[+(]?[0-9]",
        rf"(?:\+|00){_COUNTRY}(?:(?: ?[.\-/] ?| )?\(?[0-9]{{1,8}}\)?){{1,6}}",
        _AMERICAN,
        _TRUNK,
    ]
)
# Years, dates and coordinates, which are no phone numbers.
_OTHER = re.compile(
    "|".join(
        [
            r"(?:1[5-9]|20)\d\d[ /\-]{1,3}(?:1[5-9]|20)\d\d(?!\d)",  # 1914-1918
            r"(?:1[5-9]|20)\d\d([\-./])\d\d?\1\d\d?(?!\d)",  # 2003-02-01
            r"[0-3]?\d([\-./])[0-3]?\d\2\d{4}(?!\d)",  # 01/02/2003
            r"\+?\d{1,3}\.\d{3,7}[ /+\-]",  # +48.8566 2.3522
        ]
    )
)


def find_spans(texts: Texts, kinds: Collection[str]) -> list[PiiSpan]:
    """Return secrets, public IP addresses and phone numbers of texts, ordered and disjoint."""
    spans = _find_numbers(texts, kinds)
    if SECRET in kinds:
        spans += (PiiSpan(*secret, SECRET) for secret in find_secrets(texts))
    disjoint: list[PiiSpan] = []
    # Of two that overlap the first counts, the longer one where both begin alike.
    for span in sorted(spans, key=lambda span: (span.row, span.begin, -span.end)):
        if not disjoint or span.row != disjoint[-1].row or span.begin >= disjoint[-1].end:
            disjoint.append(span)
    return disjoint


def _find_numbers(texts: Texts, kinds: Collection[str]) -> list[PiiSpan]:
    """Return public IP addresses and phone numbers of texts.

    Each run of number bytes that the screen passes is decoded with its context, and a recognizer
    looks at it.
    """
    searches = []
    if {IP, PHONE} & set(kinds):
        searches.append((_NUMBER_RUN, _NUMBER_SCREEN, _phones_and_ipv4))
    if IP in kinds:
        searches.append((_IPV6_RUN, _IPV6_SCREEN, _ipv6))
    (offsets, data), spans = texts, []
    for members, screen, recognize in searches:
        runs = screened(texts, _runs(offsets, data, *members), screen, _BEFORE, _AFTER, FEW)
        for row, begin, end in runs.tolist():
            start, stop = int(offsets[row]), int(offsets[row + 1])
            before = bytes(data.data[max(start, begin - _BEFORE) : begin]).decode(errors="ignore")
            after = bytes(data.data[begin : min(stop, end + _AFTER)]).decode(errors="ignore")
            first = len(before)
            # A run is ASCII, so its characters are its bytes.
            shift = begin - start - first
            for left, right, kind in recognize(before + after, first, first + end - begin):
                spans.append(PiiSpan(row, shift + left, shift + right, kind))
    return [span for span in spans if span.kind in kinds]


@kernel
def _runs(offsets: Array, data: Array, members: Array, low: int, high: int, least: int) -> Array:
    """Return the spans of `members` with at least so many bytes from `low` to `high`."""
    out, runs = np.empty((len(data) // (least + 1) + len(offsets), 3), np.int64), 0
    for text in range(len(offsets) - 1):
        i = last = offsets[text]
        stop = offsets[text + 1]
        while True:
            i = next_between(data, i, stop, low, high)
            if i == stop:
                break
            begin, count = i, 0
            while begin > last and members[data[begin - 1]]:
                begin -= 1
            while i < stop and members[data[i]]:
                count += low <= data[i] <= high
                i += 1
            last = i
            if count >= least:
                out[runs, 0], out[runs, 1], out[runs, 2] = text, begin, i
                runs += 1
    return out[:runs].copy()


def _phones_and_ipv4(window: str, begin: int, end: int) -> Iterator[tuple[int, int, str]]:
    """Yield the phone numbers and public IPv4 addresses that begin in the run."""
    pos = 0
    while hit := _ANY.search(window, pos):
        pos = hit.start() + 1
        kind = IP if hit["ip"] else PHONE
        first, last = hit.span("number" if hit["number"] else kind)
        if kind == PHONE:
            last = first + _phone_length(window[first:last], hit["number"] is not None)
        else:
            numbers = re.split(r"[./:]", hit["ip"])[:4]
            if any(int(part) > 255 or (part[0] == "0" and part != "0") for part in numbers):
                continue
            # Dotted numbers may also be a version. Only public addresses count (FineWeb's choice).
            version = _VERSION.search(window[max(0, first - _BEFORE) : first])
            few_large = sum(int(part) >= _LARGE for part in numbers) < 2
            if few_large or _is_special(".".join(numbers)) or version:
                continue
        if begin <= first < end and last > first:
            yield first, last, kind
            pos = last


def _phone_length(number: str, labeled: bool) -> int:
    """Return the length of the phone number at the beginning; 0 if it is something else."""
    if _OTHER.match(number):
        return 0
    prefix = re.match(r"\+|00", number)
    if labeled or prefix is None:
        return len(number)
    fewest, most = (11, 11) if number[prefix.end()] in "17" else (9, 13)
    while len(digits := re.sub(r"\D", "", number[prefix.end() :])) > most and " " in number:
        number = number[: number.rindex(" ")].rstrip(" -./(")
    # A bracket that was opened before the number is not part of it.
    if number[-1] == ")" and number.count(")") > number.count("("):
        number = number[:-1]
    return len(number) if fewest <= len(digits) <= most else 0


def _is_special(address: str) -> bool:
    """Whether an address is in the registry; a ValueError if it is none."""
    ip = ipaddress.ip_address(address)
    return any(ip in network for network in _SPECIAL)


def _ipv6(window: str, begin: int, end: int) -> Iterator[tuple[int, int, str]]:
    """Yield IPv6 addresses of the range that is assigned (2000::/3)."""
    for hit in _IPV6.finditer(window, begin, end + len("/128")):
        address = hit[0].partition("/")[0]
        # Dates and times consist of digits only.
        if "::" not in address and not re.search(r"[A-Fa-f]", address):
            continue
        try:
            special = _is_special(address)
        except ValueError:  # not an address
            continue
        if not special:
            yield *hit.span(), IP
