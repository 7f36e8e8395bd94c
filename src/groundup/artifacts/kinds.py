"""The kinds of sources: everything that stages ask of a kind, one entry each.

A kind is what `kind = "books"` in a recipe says. Collect reads it by the readers in
`collect/readers/registry.py`; what later stages do differently for a kind is asked here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Kind:
    """What stages ask of a kind of source."""

    # Bytes of clean text out of a byte of raw file, as `groundup plan` estimates: measured on the
    # starter sources and on samples of each kind.
    clean_share: float
    # Training text, files that training text is checked against, or files to tune on.
    role: Literal["training", "evaluation", "tuning"] = "training"
    is_code: bool = False  # white space is kept, and language and prose rules do not apply
    is_prose: bool = False  # rule sets that were published for prose apply
    has_turns: bool = False  # documents are conversations, with their turns beside the text
    # A line that many documents repeat is boilerplate. In code `return None` is none, nor "Yes,
    # please." in a conversation, nor "CHAPTER I" in a book.
    has_boilerplate_lines: bool = False


KINDS: Mapping[str, Kind] = {
    "books": Kind(0.95, is_prose=True),
    "wikipedia": Kind(0.4, is_prose=True, has_boilerplate_lines=True),
    "web": Kind(0.08, is_prose=True, has_boilerplate_lines=True),
    "code": Kind(0.7, is_code=True),
    "conversations": Kind(0.5, has_turns=True),
    "mail": Kind(0.3, has_turns=True),
    "chat": Kind(0.5, has_turns=True),
    "forum": Kind(0.5, has_turns=True),
    "documents": Kind(0.3, is_prose=True),
    "text": Kind(0.9, is_prose=True, has_boilerplate_lines=True),
    "evaluation": Kind(0.0, role="evaluation"),
    "tuning": Kind(0.5, role="tuning", has_turns=True),
}


def is_training(kind: str) -> bool:
    """Whether a model is trained on sources of this kind."""
    return kind not in KINDS or KINDS[kind].role == "training"
