"""Find secrets in texts: keys and tokens of services, passwords, and private keys.

    aws_key = "AKIA…"                       a format that only one service uses
    Authorization: Bearer 9a8f…             a label, and a value that looks random
    postgres://ann:…@db.example.org/shop    the password in an address

The formats are those that services document for secret scanning; gitleaks, detect-secrets and
trufflehog look for the same. A kernel finds runs of bytes that can hold a secret, which prose
hardly has, and only these become Python strings. Precision comes first: a placeholder, a name of a
variable or a hash without a label stays.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

import numpy as np

from groundup.artifacts.arrays import Array, Texts
from groundup.refine.clean.spans import FEW, screened
from groundup.refine.kernels import kernel
from groundup.refine.scan import NINE, ZERO, next_between

# Formats of services, each with what every secret of it contains. They leave no doubt.
_FORMATS: list[tuple[str, str]] = [
    ("A3T AKIA ASIA ABIA ACCA", r"(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}"),  # Amazon
    ("ghp_ gho_ ghu_ ghs_ ghr_", r"gh[pousr]_[A-Za-z0-9]{36,255}"),  # GitHub
    ("github_pat_", r"github_pat_\w{36,255}"),
    (
        "glpat- glptt- glcbt- gldt- glft- glrt- glagent- gloas- glsoat- glimt-",
        r"gl(?:pat|ptt|cbt|dt|ft|rt|agent|oas|soat|imt)-[\w-]{20,300}(?:\.\w{2,20}){0,2}",  # GitLab
    ),
    ("xox", r"xox[abeoprs](?:\.xox[bp])?-[A-Za-z0-9-]{10,250}"),  # Slack
    ("xapp-", r"xapp-\d-[A-Z0-9]{5,20}-\d{5,20}-[a-z0-9]{8,80}"),
    ("hooks.slack.com", r"(?<=hooks\.slack\.com/services/)T\w{7,12}/B\w{7,12}/\w{20,30}"),
    ("k_live_ k_test_ k_prod_", r"[sr]k_(?:live|test|prod)_[A-Za-z0-9]{16,200}"),  # Stripe
    ("whsec_", r"whsec_[A-Za-z0-9+/=]{24,100}"),
    ("AIza", r"AIza[\w-]{35}"),  # Google
    ("GOCSPX-", r"GOCSPX-[\w-]{28}"),
    ("ya29.", r"ya29\.[\w-]{20,300}"),
    ("sk-", r"sk-(?=[\w-]{0,40}[A-Za-z0-9]{16})[\w-]{20,200}"),  # OpenAI, Anthropic and others
    ("hf_", r"hf_[A-Za-z0-9]{34}"),  # Hugging Face
    ("npm_", r"npm_[A-Za-z0-9]{36}"),
    ("pypi-AgE", r"pypi-AgE[\w-]{50,300}"),
    ("SG.", r"SG\.[\w-]{20,24}\.[\w-]{39,50}"),  # SendGrid
    ("SK", r"SK[0-9a-f]{32}"),  # Twilio
    ("key-", r"key-[0-9a-f]{32}"),  # Mailgun
    ("_v1_", r"do[opr]_v1_[0-9a-f]{64}"),  # DigitalOcean
    ("shp", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),  # Shopify
    (":AA", r"\d{8,10}:AA[\w-]{33}"),  # bots of Telegram
    (".eyJ", r"eyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}(?:\.[\w-]{10,1000})?"),  # JWT
]
_PATTERNS = [
    (needle, re.compile(rf"(?<![A-Za-z0-9_])(?:{pattern})(?![A-Za-z0-9_])", re.ASCII))
    for needles, pattern in _FORMATS
    for needle in needles.split()
]
_IN_URL = re.compile(r"[a-z][a-z0-9+.-]{1,20}://[^:/@?#]{0,100}:(?P<secret>[^/@?#]{3,200})@")
# A key is base64 in lines, maybe as a string in source code; a sentence about one is not.
_KEY_NEEDLE = b"PRIVATE KEY"
_PRIVATE_KEY = re.compile(
    rb"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY[A-Z ]{0,10}-----"
    rb"(?:[\s\\\"'+,>#*|]|(?:Proc-Type|DEK-Info|Version|Comment|Charset)[^\n]{1,200}|[\w+/=]{16,}"
    rb"|(?<=[\s\\\"])[\w+/=]{1,15}(?=[\s\\\"'-]))*+"
    rb"(?:-----END [A-Z0-9 ]{0,30}PRIVATE KEY[A-Z ]{0,10}-----)?+",
)
_MIN_KEY = 100  # bytes of a block
# What a secret is called, in small letters without blanks and the like, before a sign or none.
_LABELS = tuple(
    "password passwd passphrase passcode passwort kennwort motdepasse contraseña senha пароль 密码"
    " 密碼 pwd secret token credential apikey authkey accesskey accountkey privatekey clientkey"
    " appkey secretkey encryptionkey masterkey secretid tokenid tokenvalue".split()
)
_SCHEMES = ("bearer", "basic", "authorization:token")
_BESIDE_VALUE, _SIGNS = " \t\"'`", ":=：>"
_NO_LETTERS = str.maketrans("", "", "_- \t\"'`[]")
# What every run with a secret holds, or what stands before it: for RE2.
_SEPARATORS = r"[_\- \t\"'`\[\]]*"


def _spaced(word: str) -> str:
    return _SEPARATORS.join(map(re.escape, word))


_SCREEN = "|".join(
    [
        *(re.escape(needle) for needle, _ in _PATTERNS),
        # A password in an address.
        r"://[^/@?#]*:[^/@?#]+@",
        rf"(?i:(?:{'|'.join(map(_spaced, _LABELS))})(?:{_SEPARATORS}s)*{_SEPARATORS}[:=：>])",
        rf"(?i:{'|'.join(map(_spaced, _SCHEMES))})",
    ]
)
_INNER_LABEL = re.compile(r"[:=](?=[^:=])")
_PLACEHOLDER = re.compile(
    r"(?i)pass|secret|s3cr|p%40ss|example|sample|dummy|changeme|your|test|fake|redacted|token"
    r"|x{4}|\*{3}|\.{3}|1234|abcd|qwerty|lorem|null|none|true|false|\$|%[sd(]|@|^(?:0x|sha\d|md5)"
    r"|://|^[/~.]"
)
# `config.key2`, `toConfig2`: an expression.
_NAME = re.compile(r"\W?[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+|[A-Za-z_-]+\d{0,2}", re.ASCII)
_BEFORE = 48  # bytes of context where a label may stand
_LONG, _SHORT, _LONGEST = 20, 8, 8192
# Bits a character (Shannon). English words have about 2.8, hexadecimal digits at most 4.
_MIN_ENTROPY, _MIN_LONG_ENTROPY = 2.7, 3.0
_MAX_LABELS = 8  # in one run, such as the query of an address
_MIN_CHANGES = 3  # between capitals, small letters, digits and other characters
# Letters with digits, or capitals among small letters.
_MIXED = re.compile(r"(?:[A-Za-z]+\d|\d+[A-Za-z]|[a-z]+[A-Z])[A-Za-z0-9]*")
_CHANGE = re.compile(r"(?<=[a-z])[^a-z]|(?<=[A-Z])[^A-Z]|(?<=\d)\D|(?<=[^A-Za-z0-9])[A-Za-z0-9]")

_OTHER, _LETTER, _SIGN = 1, 2, 3


def _byte_classes() -> Array:
    classes = np.zeros(256, np.uint8)
    classes[list(b"0123456789!#$%&*+-./?@^_~")] = _OTHER
    classes[list(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")] = _LETTER
    classes[list(b":=")] = _SIGN
    return classes


_CLASSES = _byte_classes()


def find_secrets(texts: Texts) -> Iterator[tuple[int, int, int]]:
    """Yield the text, first byte and end of each secret, in no order."""
    offsets, data = texts
    view = data.data
    runs = screened(texts, _token_runs(offsets, data, _CLASSES), _SCREEN, _BEFORE, few=FEW)
    for row, begin, end in runs.tolist():
        start = int(offsets[row])
        before = bytes(view[max(start, begin - _BEFORE) : begin]).decode(errors="ignore")
        for left, right in _secrets(before, bytes(view[begin:end]).decode("ascii")):
            yield row, begin - start + left, begin - start + right
    yield from _private_keys(offsets, data)


def _private_keys(offsets: Array, data: Array) -> Iterator[tuple[int, int, int]]:
    """Yield the blocks of private keys (PEM, PGP), whole or cut off."""
    held = bytes(data.data[offsets[0] : offsets[-1]])
    position = held.find(_KEY_NEEDLE)
    while position >= 0:
        row = int(np.searchsorted(offsets, offsets[0] + position, "right")) - 1
        start = int(offsets[row] - offsets[0])
        first = max(start, position - _BEFORE)
        last = min(int(offsets[row + 1] - offsets[0]), position + _LONGEST)
        key = _PRIVATE_KEY.search(held, first, last)
        if key is not None and len(key[0]) >= _MIN_KEY:
            yield row, key.start() - start, key.end() - start
        position = held.find(_KEY_NEEDLE, max(position + 1, key.end() if key else 0))


@kernel
def _token_runs(offsets: Array, data: Array, classes: Array) -> Array:
    """Return the spans that may hold a secret.

    They have letters and digits, and are long, or stand behind a sign such as "=", or hold one.
    """
    out, runs = np.empty((len(data) // (_SHORT + 1) + len(offsets), 3), np.int64), 0
    for text in range(len(offsets) - 1):
        first, last = offsets[text], offsets[text + 1]
        i = first
        while True:
            i = next_between(data, i, last, ZERO, NINE)
            if i == last:
                break
            begin, letters = i, 0
            while begin > first and classes[data[begin - 1]]:
                begin -= 1
            i = sign = begin
            while i < last and classes[data[i]]:
                letters += classes[data[i]] == _LETTER
                if sign == begin and classes[data[i]] == _SIGN:
                    sign = i
                i += 1
            if not letters or i - begin < _SHORT:
                continue
            # Blanks and quotes may stand between the sign and its value.
            left = begin - 1
            while left >= first and begin - left < 5 and data[left] in (32, 34, 39, 96):
                left -= 1
            is_value = left >= first and classes[data[left]] == _SIGN
            if i - begin >= _LONG or (sign > begin and i - sign > _SHORT) or is_value:
                out[runs, 0], out[runs, 1], out[runs, 2] = text, begin, i
                runs += 1
    return out[:runs].copy()


def _secrets(before: str, run: str) -> Iterator[tuple[int, int]]:
    """Yield where the secrets of a run are; `before` is the text to its left."""
    run = run[:_LONGEST]
    hits = [hit for needle, known in _PATTERNS if needle in run for hit in known.finditer(run)]
    hits = [hit for hit in hits if not _is_example(hit[0])]
    if hits:
        yield from (hit.span() for hit in hits)
        return
    if "://" in run and (address := _IN_URL.search(run)) is not None:
        if not _is_placeholder(address["secret"]):
            yield address.span("secret")
        return
    starts = [0, *(sign.end() for sign in _INNER_LABEL.finditer(run))][:_MAX_LABELS]
    for start in starts:
        value = run[start:].rstrip(".!?:&")
        if _is_label((before + run[:start])[-_BEFORE:]) and _looks_random(value):
            yield start, start + len(value)
            return


def _is_label(context: str) -> bool:
    """Whether a text ends with what a secret is called, and a sign or quote before its value."""
    stripped = context.rstrip(_BESIDE_VALUE)
    name = stripped.rstrip(_SIGNS)
    if name == stripped:
        return context != name and name.lower().translate(_NO_LETTERS).endswith(_SCHEMES)
    return name.lower().translate(_NO_LETTERS).rstrip("s").endswith(_LABELS)


def _is_example(key: str) -> bool:
    return key.endswith("EXAMPLE") or _entropy(key) < _MIN_LONG_ENTROPY


def _entropy(value: str) -> float:
    counts = Counter(value).values()
    return -sum(count / len(value) * math.log2(count / len(value)) for count in counts)


def _is_placeholder(value: str) -> bool:
    return _PLACEHOLDER.search(value) is not None or len(set(value)) < 4


def _looks_random(value: str) -> bool:
    """Whether a value that has the label of a secret is one: no name, path or placeholder."""
    if len(value) < _SHORT or _is_placeholder(value) or _NAME.fullmatch(value):
        return False
    # In `utf8_string_2` and in titles with hyphens most pieces are words.
    mixed = sum(map(len, _MIXED.findall(value)))
    if 2 * mixed < len(value):
        return False
    if len(value) >= _LONG:
        return _entropy(value) >= _MIN_LONG_ENTROPY
    return len(_CHANGE.findall(value)) >= _MIN_CHANGES and _entropy(value) >= _MIN_ENTROPY
