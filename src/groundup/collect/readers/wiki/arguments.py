"""Arguments of a template, by position and by name, and the table of what templates show."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from groundup.collect import read_table

_NAMED_ARGUMENT = re.compile(r"\s*([\w -]{1,24}?)\s*=(?!=)(.*)", re.DOTALL)
_LANGUAGE_CODE = re.compile(r"[a-z]{2,3}(?:-[a-z]{2,4}){0,2}|[A-Z]{2,3}\.$")


@dataclass(slots=True)
class Arguments:
    """Arguments of a template as they are shown, and the code of the wiki's language.

    The language is "" for a page without a dump.
    """

    positional: list[str]
    named: dict[str, str]
    language: str = ""

    @classmethod
    def parse(cls, inside: str, language: str = "") -> Arguments:
        """Parse what follows the name and its bar; `1=` is the first position."""
        positional: list[str] = []
        named: dict[str, str] = {}
        for part in inside.split("|"):
            match = _NAMED_ARGUMENT.match(part) if "=" in part else None
            if match is None:
                positional.append(part.strip())
            elif match[1].isdecimal():
                position = min(max(int(match[1][:3]), 1), 20)
                positional += [""] * (position - len(positional))
                positional[position - 1] = match[2].strip()
            else:
                named[match[1]] = match[2].strip()
        return cls(positional, named, language)

    def first(self, *keys: int | str) -> str:
        """Return the first of these arguments that is not empty; numbers are list indices."""
        for key in keys:
            value = ""
            if isinstance(key, str):
                value = self.named.get(key, "")
            elif -len(self.positional) <= key < len(self.positional):
                value = self.positional[key]
            if value and value != "-":
                return value
        return ""

    def words(self) -> list[str]:
        """Return the positional arguments without the language code that Wiktionary puts first."""
        has_code = len(self.positional) > 1 and _LANGUAGE_CODE.fullmatch(self.positional[0])
        return self.positional[1:] if has_code else self.positional

    def labels(self) -> str:
        """Return the words in parentheses, as remarks on a sense; an underscore joins two."""
        labels = ", ".join(filter(None, self.words())).replace(", _, ", " ")
        return f"({labels})" if labels else ""


Show = Callable[[Arguments], str]
_AnyShow = TypeVar("_AnyShow", bound=Show)
# What templates show: by name in lower case, and by how the name starts.
TEMPLATES: dict[str, Show] = {}
FAMILIES: dict[str, Show] = {}


def shows(names: str, *starts: str) -> Callable[[_AnyShow], _AnyShow]:
    """Register a function as what templates show that have one of these names, or start so."""

    def register(show: _AnyShow) -> _AnyShow:
        TEMPLATES.update(dict.fromkeys(names.split("|"), show))
        FAMILIES.update(dict.fromkeys(starts, show))
        return show

    return register


# What templates show, words of dates, and names of what shows nothing.
WIKI: Any = read_table("readers/wiki/templates.toml")
