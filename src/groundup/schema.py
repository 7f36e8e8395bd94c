"""TOML tables → frozen settings classes, and back. Reads and writes nothing on disk.

An unknown key is an error that names the nearest known one; a value of the wrong type says what was
expected. A key that Python keeps for itself (`from`) stands in the metadata of the field that holds
it.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from groundup.errors import RecipeError


def check(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless `condition` holds; `decode` adds where it happened."""
    if not condition:
        raise ValueError(message)


def nearest(word: str, known: Sequence[str]) -> str:
    """Return '; did you mean "x"?' for the known word nearest to `word`, or all known ones."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f'; did you mean "{close[0]}"?' if close else f"; known are {', '.join(known)}"


def decode(cls: type[Any], table: Any, where: str) -> Any:
    """Build the settings class `cls` from a TOML table.

    Raises:
        RecipeError: with `where`, the key, what is wrong with it and the nearest known key.
    """
    if not isinstance(table, Mapping):
        raise RecipeError(f"{where}: expected a table, found {type(table).__name__}")
    hints = typing.get_type_hints(cls)
    known = {key_of(f): f.name for f in dataclasses.fields(cls) if not f.metadata.get("internal")}
    for key in table:
        if key not in known:
            raise RecipeError(f'{where}: unknown key "{key}"{nearest(key, sorted(known))}')
    values = {
        known[key]: _value(hints[known[key]], value, f"{where}: {key}")
        for key, value in table.items()
    }
    try:
        return cls(**values)
    except ValueError as error:
        raise RecipeError(f"{where}: {error}") from None
    except TypeError:
        raise RecipeError(f"{where}: {_missing(cls, values)} is missing") from None


def key_of(f: dataclasses.Field[Any]) -> str:
    """Return the key of a field in TOML."""
    return str(f.metadata.get("key", f.name))


def _missing(cls: type[Any], values: Mapping[str, Any]) -> str:
    need = [
        f.name
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    return " and ".join(f"[[{n}]]" if n == "source" else f'"{n}"' for n in need if n not in values)


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return decode(typing.cast(type[Any], hint), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise RecipeError(f"{where}: expected a list, found {_name(value)}")
        return tuple(_value(arguments[0], item, f"{where}[{n}]") for n, item in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise RecipeError(f"{where}: expected a table, found {_name(value)}")
        return {key: _value(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin in (types.UnionType, typing.Union, Literal):
        return _choice(arguments if origin is not Literal else (hint,), value, where)
    return _scalar(hint, value, where)


def _choice(options: Sequence[Any], value: Any, where: str) -> Any:
    words = [
        word
        for option in options
        if typing.get_origin(option) is Literal
        for word in typing.get_args(option)
    ]
    if isinstance(value, str) and words:
        if value not in words:
            raise RecipeError(f'{where}: "{value}" is not one of {", ".join(words)}')
        return value
    plain = [option for option in options if typing.get_origin(option) is not Literal]
    if not plain:
        raise RecipeError(f"{where}: expected one of {', '.join(words)}, found {_name(value)}")
    listed = [option for option in plain if typing.get_origin(option) is tuple]
    return _value(listed[0] if listed and isinstance(value, list) else plain[0], value, where)


def _scalar(hint: type, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        names = {
            "str": "text in quotes",
            "int": "a whole number",
            "float": "a number",
            "bool": "true or false",
        }
        raise RecipeError(
            f"{where}: expected {names.get(hint.__name__, hint.__name__)}, found {_name(value)}"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{where}: {value} is not a finite number")
    return value


def _name(value: Any) -> str:
    return f"{type(value).__name__} {value!r}"[:80]


def override(table: dict[str, Any], override: str) -> None:
    """Apply one `--set key.path=value`; the value is TOML, or else text."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {override}: expected key.path=value, such as train.steps=100")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.strip().split(".")
    for part in parents:
        table = _descend(table, part, override)
    if not isinstance(table, dict):
        raise RecipeError(f'--set {override}: "{last}" must be a key of a table')
    table[last] = value


def _descend(table: Any, part: str, override: str) -> Any:
    below = (
        table[int(part)]
        if isinstance(table, list) and part.isdigit() and int(part) < len(table)
        else None
    )
    if isinstance(table, dict):
        below = table.setdefault(part, {})
    if not isinstance(below, (dict, list)):
        raise RecipeError(f'--set {override}: "{part}" is not a table of the recipe')
    return below


def settings(value: Any) -> dict[str, Any]:
    """Return a settings object as plain TOML values, without what never enters a key."""
    table: dict[str, Any] = {}
    for f in dataclasses.fields(value):
        if f.metadata.get("internal"):
            continue
        table[key_of(f)] = _plain(getattr(value, f.name))
    return table


def _plain(item: Any) -> Any:
    if dataclasses.is_dataclass(item):
        return settings(item)
    if isinstance(item, Mapping):
        return {key: _plain(part) for key, part in item.items()}
    return [_plain(part) for part in item] if isinstance(item, tuple) else item
