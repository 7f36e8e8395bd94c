"""Templates that name the columns of a record: what `text`, `title`, `group` and `language` are.

"abstract"                  the column abstract; one column, without braces
"{title}\n\n{body}"         several, with what stands between them
"{meta.author}"             a value inside another one
"{{x}} = {x}"               doubled braces are braces
"""

from __future__ import annotations

import re
from functools import lru_cache

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
MAX_TEMPLATE = 10_000

# Literal text ("", False is never one) or the name of a column, with whether it is a name.
Part = tuple[str, bool]


def is_template(setting: str) -> bool:
    """Return whether a setting is a template, rather than the name of one column."""
    return "{" in setting or "}" in setting


@lru_cache(maxsize=64)
def parse_template(setting: str) -> tuple[Part, ...]:
    """Return the parts of a template, or the one column that a setting without braces names.

    Raises ValueError with one line for a brace that does not close and for an empty name.
    """
    if len(setting) > MAX_TEMPLATE:
        raise ValueError(f"a template of more than {MAX_TEMPLATE:,} characters")
    if not is_template(setting):
        return ((setting.strip(), True),)
    parts: list[Part] = []
    for piece in _PIECE.finditer(setting):
        text, name = piece[0], piece[1]
        if text in ("{", "}"):
            problem = "is not closed" if text == "{" else "closes nothing"
            advice = f'write "{text * 2}" for a brace of the text'
            raise ValueError(f'"{text}" at character {piece.start() + 1} {problem}; {advice}')
        if name is None:
            parts.append(({"{{": "{", "}}": "}"}.get(text, text), False))
        elif not all(map(str.strip, name.split("."))):
            raise ValueError(f'"{text}" names no column')
        else:
            parts.append((name.strip(), True))
    if not any(is_name for _, is_name in parts):
        raise ValueError("it names no column; write {column}")
    return tuple(parts)


def template_columns(setting: str) -> list[str]:
    """Return the columns of a record that a setting may read: `a.b`, and `a` that holds `b`."""
    names = [name for name, is_name in parse_template(setting) if is_name] if setting else []
    return list(dict.fromkeys(part for name in names for part in (name, name.partition(".")[0])))
