"""Columns of records: filling a template, finding a title, and proposing which column is the text.

fill("{title}\n\n{meta.body}", {"title": "Rain", "meta": '{"body": "It rained."}'})
→ "Rain\n\nIt rained."
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

import orjson

from groundup.artifacts.document import Reject
from groundup.collect.charset import is_binary, repair_text
from groundup.recipe.templates import is_template, parse_template

TITLE_KEYS = ("title", "heading", "headline")
METADATA_KEYS = ("metadata", "meta")
# A title of more characters is a paragraph in the wrong place.
MAX_TITLE = 300
# What `propose_columns` looks at: records, levels of nesting, values of a record and characters.
_SAMPLE, _LEVELS, _VALUES, _CHARACTERS = 100, 3, 20_000, 10_000
# Of the values of the text's column, this share is prose; of its characters, this share letters.
_PROSE_VALUES, _LETTERS = 0.3, 0.6
# Another column is read with it where this share of its values is.
_MOSTLY_PROSE = 0.5
_MIN_WORDS, _MIN_LETTERS = 4, 12
_WORD = re.compile(r"[^\W\d_]{2,}")
# A run of this many characters without a space is base64 or an address, except in scripts that
# write without spaces.
_LONG_RUN = re.compile(r"[!-~]{60,}")
# Names of columns, tags of caches: no prose has this share of its words written so. The look ahead
# finds a mark; an underscore is a letter to `\w`, so a repeat of both would try every split.
_IDENTIFIER = re.compile(r"(?=\w+(?:[:.]|_\w))[^\W\d]\w*+(?:[:.]\w++)*+")
_IDENTIFIERS = 0.3


class MissingColumnError(LookupError):
    """A column that a record lacks, or that holds no text; the message is for a person."""


def opened(value: Any) -> Any:
    """Return the object or list that a text holds as JSON; any other value as it is."""
    if isinstance(value, str) and value[:1] in ("{", "[") and value[-1:] in ("}", "]"):
        with suppress(ValueError, RecursionError):
            return orjson.loads(value)
        with suppress(ValueError, RecursionError):
            return json.loads(value, strict=False)
    return value


def metadata_of(record: Mapping[str, Any]) -> list[Mapping[Any, Any]]:
    """Return the mappings under `metadata` and `meta`, which may be JSON in a text."""
    return [part for key in METADATA_KEYS if isinstance(part := opened(record.get(key)), Mapping)]


def value_text(value: Any) -> str | None:
    """Return a value as text: numbers as written, a list as paragraphs; None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return None if is_binary(value) else repair_text(value.decode("utf-8", "surrogateescape"))
    if isinstance(value, (int, float)) and math.isfinite(value):
        return str(value)
    if isinstance(value, (list, tuple)):
        texts = [text for part in value if (text := value_text(part)) is not None]
        return "\n\n".join(filter(str.strip, texts)) if texts else None
    return None


def fill(setting: str, record: Mapping[Any, Any]) -> str:
    """Return the text that a column, or a template of columns, gives for a record.

    Raises MissingColumnError if a column is missing, null, or holds neither text nor number.
    """
    texts = []
    for part, is_name in parse_template(setting):
        if not is_name:
            texts.append(part)
            continue
        value = _lookup(record, part)
        text = value_text(value)
        if text is None:
            is_null = value is None or isinstance(value, float)
            what = "null" if is_null else f"no text but a {type(value).__name__}"
            raise MissingColumnError(f"its {part} is {what}")
        texts.append(text.strip() if texts else text)
    return "".join(texts)


def _lookup(record: Mapping[Any, Any], name: str) -> Any:
    """Return the value of a column, in any case, or of a path `a.b` into nested values."""
    value: Any = record
    path = [name] if _key_of(record, name) is not None else name.split(".")
    for step in path:
        value = opened(value)
        if isinstance(value, (list, tuple)) and not step.isdecimal():
            # A list of objects: the value of each.
            parts = [part for part in map(opened, value) if isinstance(part, Mapping)]
            found = [part[key] for part in parts if (key := _key_of(part, step)) is not None]
            value = found or None
        elif isinstance(value, (list, tuple)):
            value = value[int(step)] if int(step) < len(value) else None
        elif isinstance(value, Mapping) and (key := _key_of(value, step)) is not None:
            value = value[key]
        else:
            keys = ", ".join(str(key) for key in islice(record, 8))
            raise MissingColumnError(f'no column "{name}" among {keys}')
    return value


def _key_of(record: Mapping[Any, Any], name: str) -> Any:
    """Return the key of a record for a name, which may be written in other case; None without."""
    if name in record:
        return name
    lower = name.lower()
    return next((key for key in record if str(key).lower() == lower), None)


def with_title(text: str, title: str) -> str:
    """Return a text that begins with its title, as a line of its own."""
    title = " ".join(title.split())
    if not title or len(title) > MAX_TITLE:
        return text
    start = " ".join(text[: 2 * len(title) + 200].lstrip("#*=_ \t\r\n").split())
    return text if start.casefold().startswith(title.casefold()) else f"{title}\n\n{text}"


def propose_columns(records: Iterable[Any]) -> str | None:
    """Return what `text` in a recipe could be: the column that holds most prose in a sample.

    Prose has words and spaces; ids, addresses, base64 and numbers are none. A value inside another
    one, or inside JSON, is a path `a.b`. None where no column is prose.
    """
    letters, _ = _count_prose(records)
    return max(letters, key=lambda name: letters[name], default=None)


def prose_columns(records: Iterable[Any]) -> list[str]:
    """Return the columns that a person reads in a table, in its order; [] where none is prose.

    They are the one that `propose_columns` finds, and those whose values are mostly prose. A title
    is none: it comes first anyway.
    """
    letters, shares = _count_prose(records)
    if not letters:
        return []
    first = max(letters, key=lambda name: letters[name])
    names = [name for name in letters if shares[name] >= _MOSTLY_PROSE or name == first]
    return [name for name in names if name.lower() not in TITLE_KEYS or len(names) == 1]


def _count_prose(records: Iterable[Any]) -> tuple[Counter[str], dict[str, float]]:
    """Return the letters of the columns of prose in a sample, and the share of values that is."""
    letters, prose = Counter[str](), Counter[str]()
    count = 0
    for record in islice(records, _SAMPLE):
        if not isinstance(record, Mapping) or isinstance(record, Reject):
            continue
        count += 1
        for name, text in islice(_texts(record, "", _LEVELS), _VALUES):
            if size := _prose_letters(text[:_CHARACTERS]):
                letters[name] += size
                prose[name] += 1
    shares = {name: prose[name] / count for name in letters if prose[name] >= _PROSE_VALUES * count}
    return Counter({name: letters[name] for name in letters if name in shares}), shares


def _texts(record: Mapping[Any, Any], prefix: str, levels: int) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of every text in a record."""
    for key, value in record.items():
        name = f"{prefix}{key}"
        if is_template(name) or (prefix and "." in str(key)):
            continue  # no setting can name it
        inner = opened(value) if levels > 1 else value
        if isinstance(inner, Mapping):
            yield from _texts(inner, f"{name}.", levels - 1)
        elif (text := value_text(inner)) and not isinstance(inner, (int, float)):
            yield name, text


def _prose_letters(text: str) -> int:
    """Return the letters of a text that reads like prose; 0 for one that does not."""
    words = _WORD.findall(text)
    letters = sum(map(len, words))
    # Chinese, Japanese and Thai write without spaces: a few words are many letters there.
    # An address has words, but no spaces.
    parts = text.split()
    is_spaced = min(len(words), len(parts)) >= _MIN_WORDS
    few = not is_spaced and not any(ord(word[0]) > 0x0E00 for word in words)
    runs = sum(map(len, _LONG_RUN.findall(text)))
    identifiers = sum(_IDENTIFIER.fullmatch(part) is not None for part in parts)
    few |= identifiers >= _IDENTIFIERS * len(parts)
    is_prose = not few and letters >= max(_MIN_LETTERS, _LETTERS * sum(map(len, parts)))
    return letters if is_prose and 4 * runs < len(text) else 0
