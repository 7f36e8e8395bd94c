"""TOML tables → frozen settings classes, and back.

    @dataclass(frozen=True)
    class Tokenize:
        vocab_size: int | Literal["auto"] = "auto"

    decode(Tokenize, {"vocab_size": 50_000}, "mine.toml: tokenize")
    decode(Tokenize, {"vocab": 50_000}, "mine.toml: tokenize")
    # RecipeError: mine.toml: tokenize: unknown key "vocab"; did you mean "vocab_size"?

A field with `metadata={"key": "from"}` has another key in TOML than its name; one with
`metadata={"internal": True}` has none.
"""

from __future__ import annotations

import codecs
import dataclasses
import difflib
import math
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from groundup.errors import RecipeError

_TYPE_NAMES = {
    "str": "text in quotes",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
}
# Far beyond any recipe; the parser of the standard library is quadratic in nested keys.
MAX_TOML_BYTES, MAX_KEY_DEPTH = 1 << 20, 100
# Above this a float cannot tell whole numbers apart, and no setting is that large.
MAX_INT = 1 << 53


def parse_toml(data: bytes, where: str) -> dict[str, Any]:
    """Parse a TOML file as editors save it: UTF-8, or UTF-8 or UTF-16 with a byte order mark.

    Raises RecipeError if it is not TOML, or too large or too deep for the parser.
    """
    if len(data) > MAX_TOML_BYTES:
        raise RecipeError(f"{where}: {len(data):,} bytes; a recipe has at most {MAX_TOML_BYTES:,}")
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{where}: is not UTF-8 ({error}); save it as UTF-8") from None
    try:
        keys = (line.partition("=")[0] for line in text.split("\n"))
        if any(key.count(".") > MAX_KEY_DEPTH for key in keys):
            raise RecursionError
        return tomllib.loads(text)
    except RecursionError:
        raise RecipeError(f"{where}: cannot be read as TOML: it nests too deeply") from None
    # Not only TOMLDecodeError: Python refuses numbers of more than 4,300 digits.
    except ValueError as error:
        raise RecipeError(f"{where}: cannot be read as TOML: {error}") from None


def check(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless `condition` holds; `decode` adds where it happened."""
    if not condition:
        raise ValueError(message)


def nearest(word: str, known: Sequence[str]) -> str:
    """Return '; did you mean "x"?' for the known word nearest to `word`, or all known ones."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f'; did you mean "{close[0]}"?' if close else f"; known are {', '.join(known)}"


def key_of(field: dataclasses.Field[Any]) -> str:
    """Return the key of a field in TOML."""
    return str(field.metadata.get("key", field.name))


def decode(cls: type[Any], table: Any, where: str) -> Any:
    """Build the settings class `cls` from a TOML table.

    Raises RecipeError with `where`, the key, what is wrong with it and the nearest known key.
    """
    if not isinstance(table, Mapping):
        raise RecipeError(f"{where}: expected a table, found {type(table).__name__}")
    hints = typing.get_type_hints(cls)
    fields = {key_of(f): f for f in dataclasses.fields(cls) if not f.metadata.get("internal")}
    for key in table:
        if key not in fields:
            raise RecipeError(f'{where}: unknown key "{key}"{nearest(key, sorted(fields))}')
    values = {
        fields[key].name: _decode_value(hints[fields[key].name], value, f"{where}: {key}")
        for key, value in table.items()
    }
    missing = [
        f"[[{key}]]" if key == "source" else f'"{key}"'
        for key, f in fields.items()
        if f.default is f.default_factory is dataclasses.MISSING and key not in table
    ]
    if missing:
        raise RecipeError(f"{where}: {' and '.join(missing)} is missing")
    try:
        return cls(**values)
    except ValueError as error:
        raise RecipeError(f"{where}: {error}") from None


def _decode_value(hint: Any, value: Any, where: str) -> Any:
    """Return a TOML value as the type `hint` of a field."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return decode(typing.cast(type[Any], hint), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise RecipeError(f"{where}: expected a list, found {_shown(value)}")
        items = enumerate(value)
        return tuple(_decode_value(arguments[0], item, f"{where}[{n}]") for n, item in items)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise RecipeError(f"{where}: expected a table, found {_shown(value)}")
        inner = arguments[1]
        return {key: _decode_value(inner, item, f"{where}.{key}") for key, item in value.items()}
    if origin in (Literal, types.UnionType, typing.Union):
        return _decode_choice((hint,) if origin is Literal else arguments, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) <= MAX_INT else math.inf
    # In Python a bool is an int; in TOML it is none.
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise RecipeError(f"{where}: expected {_type_name(hint)}, found {_shown(value)}")
    if isinstance(value, int) and abs(value) > MAX_INT:
        raise RecipeError(f"{where}: {_shown(value)} is too large")
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{where}: {value} is not a finite number")
    return value


def _decode_choice(options: Sequence[Any], value: Any, where: str) -> Any:
    """Return a value of one of several types; the words of literals are matched first."""
    literals = [option for option in options if typing.get_origin(option) is Literal]
    words = [word for option in literals for word in typing.get_args(option)]
    others = [option for option in options if option not in literals]
    if isinstance(value, str) and value in words:
        return value
    if isinstance(value, str) and words:
        names = [_type_name(option) for option in others if typing.get_origin(option) is None]
        known = f"{' or '.join(names)} or " if names else "one of "
        raise RecipeError(f'{where}: "{value}" is not {known}{", ".join(words)}')
    if not others:
        raise RecipeError(f"{where}: expected one of {', '.join(words)}, found {_shown(value)}")
    lists = [option for option in others if typing.get_origin(option) is tuple]
    hint = lists[0] if lists and isinstance(value, list) else others[0]
    return _decode_value(hint, value, where)


def _type_name(hint: type) -> str:
    return _TYPE_NAMES.get(hint.__name__, hint.__name__)


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {value!r}"[:80]


def override(table: dict[str, Any], text: str) -> None:
    """Apply one `--set key.path=value`; the value is TOML, or else text."""
    key, equals, value_text = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {text}: expected key.path=value, such as train.steps=100")
    try:
        value = tomllib.loads(f"value = {value_text}")["value"]
    except (ValueError, RecursionError):
        value = value_text
    *parents, last = key.strip().split(".")
    inner: Any = table
    for part in parents:
        if isinstance(inner, dict):
            inner = inner.setdefault(part, {})
        elif part.isdecimal() and int(part) < len(inner):
            inner = inner[int(part)]
        else:
            inner = None
        if not isinstance(inner, (dict, list)):
            raise RecipeError(f'--set {text}: "{part}" is not a table of the recipe')
    if not isinstance(inner, dict):
        raise RecipeError(f'--set {text}: "{last}" must be a key of a table')
    inner[last] = value


def settings(value: Any) -> dict[str, Any]:
    """Return a settings object as plain TOML values, without internal fields."""
    return {
        key_of(field): _encode(getattr(value, field.name))
        for field in dataclasses.fields(value)
        if not field.metadata.get("internal")
    }


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return settings(value)
    if isinstance(value, Mapping):
        return {key: _encode(item) for key, item in value.items()}
    return [_encode(item) for item in value] if isinstance(value, tuple) else value
