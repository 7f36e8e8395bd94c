"""Published rules over a batch's statistics, with their sources. Reads and writes nothing on disk."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.arrays import Array
from groundup.artifacts.kinds import KINDS
from groundup.refine.filter.statistics import Statistics

PROSE = tuple(name for name, kind in KINDS.items() if kind.is_prose)
# The rule set that takes lines out of a page.
CUTTING = "c4_lines"


@dataclass(frozen=True)
class Rule:
    """Keeps the documents whose score lies between `low` and `high`; a score that is not a number
    does not count.

    Attributes:
        reason: code in the list of dropped documents.
        kinds: of documents, where narrower than those of the set.
        languages: the rule asks for these only; empty asks for all.
        not_languages: of a code document, which the rule leaves alone.
    """

    reason: str
    score: Callable[[Statistics], Array]
    low: float = -math.inf
    high: float = math.inf
    kinds: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    not_languages: tuple[str, ...] = ()

    def passes(self, statistics: Statistics) -> tuple[Array, Array]:
        """Return the keep mask and the score of every document of the batch."""
        score = self.score(statistics)
        keep = ~((score < self.low) | (score > self.high))
        if self.languages or self.not_languages:
            language = np.asarray(statistics.batch.column("language").to_pylist(), object)
            asked = (
                np.isin(language, self.languages)
                if self.languages
                else ~np.isin(language, self.not_languages)
            )
            keep |= ~asked
        return keep, score

    @property
    def bounds(self) -> str:
        """What the score must be, in words."""
        low = f"at least {self.low:g}" if self.low > -math.inf else ""
        return " and ".join(
            part for part in (low, f"at most {self.high:g}" if self.high < math.inf else "") if part
        )


@dataclass(frozen=True)
class RuleSet:
    """A named table of rules, and the kinds of documents that it was made for."""

    kinds: tuple[str, ...]
    rules: tuple[Rule, ...]

    def rules_for(self, kind: str) -> list[Rule]:
        """Return the rules that apply to a kind, in order."""
        return [rule for rule in self.rules if kind in (rule.kinds or self.kinds)]


def _word_length(s: Statistics) -> Array:
    """Mean length of words; not a number where most letters belong to a script without spaces."""
    spaced = s["words"] - s["unspaced"]
    return np.where(
        spaced > s["unspaced"], (s["word_chars"] - s["unspaced"]) / np.maximum(spaced, 1), np.nan
    )


def _gram(name: str) -> Callable[[Statistics], Array]:
    return lambda s: s.share(f"{name}_bytes", "bytes")


# Rae et al. 2021 ("Gopher"), appendix A.1.1. Both sets were made for web pages.
GOPHER_QUALITY = RuleSet(
    PROSE,
    (
        Rule("few_words", lambda s: s["words"], low=50),
        # A book may be longer than any page should be.
        Rule("many_words", lambda s: s["words"], high=100_000, kinds=("web",)),
        Rule("word_length", _word_length, low=3, high=10),
        Rule("hash_signs", lambda s: s.share("hashes", "words"), high=0.1),
        Rule("ellipses", lambda s: s.share("ellipses", "words"), high=0.1),
        Rule("bullet_lines", lambda s: s.share("bullet_lines", "lines"), high=0.9),
        Rule("ellipsis_lines", lambda s: s.share("ellipsis_lines", "lines"), high=0.3),
        Rule("words_without_letters", lambda s: s.share("letter_words", "words"), low=0.8),
        Rule("few_stop_words", lambda s: s["stop_words"], low=2, languages=("en",)),
    ),
)

# The same, table A1. Manuals and reference works repeat themselves by right: leave this set out for
# them.
GOPHER_REPETITION = RuleSet(
    PROSE,
    (
        # The names of a play's speakers and a song's refrain are no boilerplate: lines are not
        # counted in books.
        Rule(
            "repeated_lines",
            lambda s: s.share("duplicate_lines", "lines_compared"),
            high=0.3,
            kinds=PROSE[1:],
        ),
        Rule("repeated_line_bytes", lambda s: s.share("duplicate_line_bytes", "bytes"), high=0.2),
        Rule(
            "repeated_paragraphs",
            lambda s: s.share("duplicate_paragraphs", "paragraphs"),
            high=0.3,
            kinds=PROSE[1:],
        ),
        Rule(
            "repeated_paragraph_bytes",
            lambda s: s.share("duplicate_paragraph_bytes", "bytes"),
            high=0.2,
        ),
        *(
            Rule(f"frequent_{n}gram", _gram(f"top_{n}gram"), high=high)
            for n, high in ((2, 0.20), (3, 0.18), (4, 0.16))
        ),
        *(
            Rule(f"repeated_{n}grams", _gram(f"duplicate_{n}gram"), high=round(0.20 - n / 100, 2))
            for n in range(5, 11)
        ),
    ),
)

GOPHER = RuleSet(PROSE, GOPHER_QUALITY.rules + GOPHER_REPETITION.rules)

# Penedo et al. 2024, section 3.6. The paper gives a tenth for repeated lines; the bound of the code
# that made the data set, and its fourth rule, are these. What ends a line, and that the bound
# itself passes, are as in datatrove since December 2024: before, a quotation mark ended one, too.
FINEWEB = RuleSet(
    ("web",),
    (
        Rule("unended_lines", lambda s: s.share("ended_lines", "lines"), low=0.12),
        Rule("short_lines", lambda s: s.share("short_lines", "lines"), high=0.67),
        Rule(
            "repeated_line_share",
            lambda s: s["duplicate_line_bytes"] / np.maximum(s["bytes"] - s["line_breaks"], 1),
            high=0.01,
        ),
        Rule("many_line_breaks", lambda s: s.share("line_breaks", "words"), high=0.3),
    ),
)

# Raffel et al. 2020 ("T5"), section 2.2: what it asks of a whole page.
C4 = RuleSet(
    ("web",),
    (
        Rule("lorem_ipsum", lambda s: s.holds(r"(?i)lorem ipsum"), high=0),
        Rule("curly_brackets", lambda s: s["brackets"], high=0),
        # Counted by English stops.
        Rule("few_sentences", lambda s: s["sentences"], low=3, languages=("en",)),
    ),
)

# What it asks of single lines is done in prose_lines.py, before any rule looks; here is what
# becomes of a page without one.
C4_LINES = RuleSet(("web",), (Rule("no_prose_lines", lambda s: s["lines"], low=1),))

# Chen et al. 2021 ("Codex"), section 3.1, and Li et al. 2023 ("StarCoder"), section 3.2: generated
# and minified files.
CODE = RuleSet(
    ("code",),
    (
        # Paragraphs of documentation (in no programming language) are single lines by right.
        Rule(
            "long_lines",
            lambda s: s.share("chars", "lines"),
            high=100,
            not_languages=(DOCS := ("", "markdown", "rst", "docs")),
        ),
        Rule("longest_line", lambda s: s["longest_line"], high=1_000, not_languages=DOCS),
        Rule("few_alphanumeric", lambda s: s.share("alphanumeric", "chars"), low=0.25),
    ),
)


def _speakers(s: Statistics) -> Array:
    """Speakers who say something; not a number for a talk with one role, which may be a speech."""
    turns = s.batch.column("turns")
    flat = turns.flatten()
    if len(flat) == 0:
        return np.full(len(turns), np.nan)
    rows = np.repeat(
        np.arange(len(turns)),
        pc.fill_null(pc.list_value_length(turns), 0).to_numpy(zero_copy_only=False),
    )
    said = pc.fill_null(pc.utf8_length(flat.field("content")), 0)
    roles = (
        pa.table({"row": rows, "role": flat.field("role"), "said": said})
        .group_by(["row", "role"])
        .aggregate([("said", "max")])
    )
    row, speaks = roles.column("row").to_numpy(), roles.column("said_max").to_numpy() > 0
    every, loud = (
        np.bincount(row, minlength=len(turns)),
        np.bincount(row[speaks], minlength=len(turns)),
    )
    return np.where(every > 1, loud, np.nan).astype(np.float64)


# Ours: no set of rules for talk is in common use.
CONVERSATIONS = RuleSet(
    ("conversations",),
    (
        # "User: Hi" and "Assistant: Hello" are four.
        Rule("few_words", lambda s: s["words"], low=4),
        Rule("one_sided", _speakers, low=2),
        Rule("words_without_letters", lambda s: s.share("letter_words", "words"), low=0.5),
        Rule("repeated_line_bytes", lambda s: s.share("duplicate_line_bytes", "bytes"), high=0.5),
    ),
)

RULE_SETS = {
    "gopher": GOPHER,
    "gopher_quality": GOPHER_QUALITY,
    "gopher_repetition": GOPHER_REPETITION,
    "c4": C4,
    CUTTING: C4_LINES,
    "fineweb": FINEWEB,
    "code": CODE,
    "conversations": CONVERSATIONS,
}
