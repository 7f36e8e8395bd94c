"""Write docs/recipe.md from the classes of the recipe: every key with its type, default and
meaning.

`python -m scripts.recipe_page` writes the page; with `--check` it only says whether it is current.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from groundup.export.formats import FORMATS
from groundup.recipe import Export, Recipe, Train
from groundup.train.optimizer import OPTIMIZERS

PAGE = Path(__file__).parent.parent / "docs" / "recipe.md"
HEAD = """# Every key of a recipe

`make docs` writes this page from the code. The [starter recipe](../recipes/starter.toml) shows most
keys in use. A recipe needs one `[[source]]` with a `path`; every other key has a default.
`groundup run RECIPE --set train.steps=500` sets a key for one run. An unknown key is an error that
names the nearest known one.
"""

# Keys whose values are names in a registry; for the settings classes they are any text.
REGISTRIES: dict[tuple[type, str], Iterable[str]] = {
    (Export, "formats"): FORMATS,
    (Train, "optimizer"): OPTIMIZERS,
}


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of a recipe, as the page shows it."""

    name: str
    type: str
    default: str
    meaning: str


def comments(table: type) -> dict[str, str]:
    """Return the comment above or behind each field of a settings class."""
    source = inspect.cleandoc(inspect.getsource(table))
    lines = source.splitlines()
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.ClassDef)
    meanings = {}
    for item in node.body:
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        above, number = list[str](), item.lineno - 2
        while number >= 0 and lines[number].strip().startswith("#"):
            above.insert(0, lines[number].strip().lstrip("# "))
            number -= 1
        meanings[item.target.id] = " ".join(above)
    return meanings


def type_name(hint: Any) -> str:
    """Return a type as a person writes it into TOML."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ", ".join(f'`"{value}"`' for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(argument) for argument in arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"list of {type_name(arguments[0])}"
    if origin is tuple:
        return f"list of {len(arguments)}"
    names = {int: "integer", float: "number", str: "text", bool: "`true` or `false`"}
    return names.get(hint, "table")


def default_name(value: Any) -> str:
    """Return a default as TOML writes it."""
    if value is dataclasses.MISSING:
        return "needed"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, tuple):
        return f"`[{', '.join(default_name(item).strip('`') for item in value)}]`"
    if isinstance(value, int):
        return f"`{value:_}`"
    return f"`{value}`"


def keys_of(table: type) -> Iterator[Key]:
    """Yield the keys of one settings class, without those that are tables themselves."""
    meanings, hints = comments(table), get_type_hints(table)
    for field in dataclasses.fields(table):
        if field.metadata.get("internal") or is_table(hints[field.name]):
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if isinstance(default, dict):
            default = ()
        name = str(field.metadata.get("key", field.name))
        hint = hints[field.name]
        if names := REGISTRIES.get((table, name)):
            literal = Literal[tuple(names)]
            hint = tuple[literal, ...] if get_origin(hint) is tuple else literal
        yield Key(name, type_name(hint), default_name(default), meanings[field.name])


def is_table(hint: Any) -> bool:
    """Return whether a field is a table of the recipe, or a list of tables."""
    inner = get_args(hint)[0] if get_origin(hint) is tuple else hint
    return dataclasses.is_dataclass(inner)


def tables(table: type, name: str = "") -> Iterator[tuple[str, type]]:
    """Yield heading and class of a table and of the tables inside it."""
    yield name, table
    hints = get_type_hints(table)
    for field in dataclasses.fields(table):
        hint = hints[field.name]
        if is_table(hint):
            inner = get_args(hint)[0] if get_origin(hint) is tuple else hint
            path = f"{name}.{field.name}".lstrip(".")
            yield from tables(inner, f"[{path}]" if inner is not hint else path)


def page() -> str:
    """Return the whole page."""
    lines = [HEAD]
    for name, table in tables(Recipe):
        keys = [key for key in keys_of(table) if key.name not in ("root", "file", "overrides")]
        if not keys:
            continue
        about = re.sub(r"\s+", " ", inspect.getdoc(table) or "").strip()
        lines += [f"## {f'`[{name}]`' if name else 'Top level'}", "", about, ""]
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        lines += [
            f"| `{key.name}` | {key.type} | {key.default} | {key.meaning} |".replace("||", "|")
            for key in keys
        ]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Write the page, or exit with 1 where `--check` finds an old one."""
    text = page()
    if "--check" in sys.argv[1:]:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
            sys.exit(f"{PAGE}: not what the code says; `make docs` writes it")
        return
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
