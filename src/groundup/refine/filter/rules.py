"""The rule sets of quality filters: published heuristics over statistics of a text.

A rule computes one score per document and keeps the documents whose score lies within its bounds:

    Rule("few_words", lambda s: s["words"], low=50)

    text                         s["words"]    result
    "Home | About | Contact"              5    dropped, reason few_words, score 5, "at least 50"
    an article                          812    kept

A rule set is a list of rules from one paper, and the kinds of documents that they were made for:

    gopher, gopher_quality, gopher_repetition    Rae et al. 2021, arXiv 2112.11446
    c4, c4_lines                                 Raffel et al. 2020, arXiv 1910.10683
    fineweb                                      Penedo et al. 2024, arXiv 2406.17557
    code                                         Chen et al. 2021, arXiv 2107.03374
                                                 Li et al. 2023, arXiv 2305.06161
    conversations                                ours

The recipe names rule sets (`filters = ["gopher", "c4"]`), and may replace a bound
(`[refine.thresholds] gopher.few_words = 30`). All rules look at the same text, and the first rule
that rejects a document is its reason.

To add a rule set, define a RuleSet in this file and list it in RULE_SETS. A missing count may be an
expression over the texts, or a line in a kernel of statistics.py (CONTRIBUTING.md shows both). A
filter of a user is a function "package.module:function"; apply.py calls it.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.arrays import Array, lengths, mask
from groundup.artifacts.kinds import KINDS
from groundup.refine.filter.statistics import Statistics

PROSE = tuple(name for name, kind in KINDS.items() if kind.is_prose)
PAGES = tuple(name for name in PROSE if name != "books")
ENCYCLOPEDIA = ("wikipedia",)
# A team's own files and the rows of its tables. A memo, a ticket or a row is short because it is
# meant to be, and a manual or an answer with code repeats itself: Gopher's bounds on length and
# repetition, which were set on pages of the web, would drop 93 % of the rows of a data set of one
# clause each (the table TOS), and a third of short office files.
OWN = ("documents", "text")
NOT_OWN = tuple(name for name in PROSE if name not in OWN)
PUBLISHED = tuple(name for name in NOT_OWN if name not in ENCYCLOPEDIA)
# Words that an own text has at least, as a conversation; the share of it that may be repeated; and
# the words from which it is long enough to hold two stop words.
OWN_WORDS, OWN_REPETITION, OWN_STOP_WORDS = 4, 0.5, 50
# Gopher's bounds on repetition were set on web pages. In a short article of an encyclopedia they
# measure its form: a title that the first sentence repeats, a list of subspecies that all begin
# with the name of the species, the refrain of an anthem. FineWeb2, whose bounds come from each
# language's own text, allows 0.53 for the most frequent 2-gram in Latvian where Gopher allows 0.2.
# Below these words, repetition is damage only where it is more than this share. From these words
# on, Gopher's bounds hold: a 4-gram then occurs ten times before it reaches its bound.
SHORT_ARTICLE, SHORT_ARTICLE_HIGH = 250, 0.5
# Documentation files among source code have no programming language.
DOCUMENTATION = ("", "markdown", "rst", "docs")

# Bounds in languages other than English by ISO 639 code; UNKNOWN stands for those not listed.
ByLanguage = Mapping[str, tuple[float, float]]
UNKNOWN = ""
_BOUNDS = tomllib.loads(
    Path(__file__).with_name("language_bounds.toml").read_text(encoding="utf-8")
)
WORD_LENGTH: ByLanguage = {code: (low, high) for code, (low, high, _, _) in _BOUNDS.items()}
WORDS_WITH_LETTERS: ByLanguage = {code: (low, math.inf) for code, (_, _, low, _) in _BOUNDS.items()}
ENDED_LINES: ByLanguage = {code: (low, math.inf) for code, (*_, low) in _BOUNDS.items()}
# FineWeb2 has one value for all languages but English: 0.1 of the text in repeated lines. It does
# not count short lines; a page of little else is no prose in any language.
REPEATED_LINES: ByLanguage = {UNKNOWN: (-math.inf, 0.1)}
SHORT_LINES: ByLanguage = {UNKNOWN: (-math.inf, 0.9)}


@dataclass(frozen=True)
class Rule:
    """Keeps the documents whose score lies between `low` and `high`; a NaN score passes."""

    reason: str  # code in the list of dropped documents
    score: Callable[[Statistics], Array]  # one number per document (float64)
    low: float = -math.inf
    high: float = math.inf
    kinds: tuple[str, ...] = ()  # of documents, where narrower than those of the set
    languages: tuple[str, ...] = ()  # the only languages that the rule applies to; empty for all
    # Languages of a code document that the rule does not apply to.
    not_languages: tuple[str, ...] = ()
    # Bounds in languages other than English; those of UNKNOWN where one is not listed. Empty if
    # `low` and `high` apply to every language.
    by_language: ByLanguage = field(default_factory=dict)
    # Replaces `high` in texts of fewer words than SHORT_ARTICLE; None if `high` applies to all.
    short_high: float | None = None

    def passes(self, statistics: Statistics) -> tuple[Array, Array]:
        """Return the keep mask and the score of every document of the batch."""
        score = self.score(statistics)
        low, high = np.full(len(score), self.low), np.full(len(score), self.high)
        applies = np.ones(len(score), np.bool_)
        if self.languages or self.not_languages or self.by_language:
            for code, rows in statistics.languages.items():
                low[rows], high[rows] = self.limits(code)
                applies[rows] = (not self.languages or code in self.languages) and (
                    code not in self.not_languages
                )
        if self.short_high is not None:
            high[statistics.estimated_words() < SHORT_ARTICLE] = self.short_high
        # Written as "not outside", so NaN passes.
        return ~(applies & ((score < low) | (score > high))), score

    def limits(self, language: str) -> tuple[float, float]:
        """Return the bounds for a document in a language."""
        if language == "en" or not self.by_language:
            return self.low, self.high
        return self.by_language.get(language, self.by_language[UNKNOWN])

    def bounds(self, language: str = "en") -> str:
        """Return what the score must be in a language, in words."""
        low, high = self.limits(language)
        parts = [f"at least {low:g}"] if low > -math.inf else []
        if high < math.inf:
            parts.append(f"at most {high:g}")
        if self.short_high is not None:
            parts[-1] += f", or {self.short_high:g} below {SHORT_ARTICLE} words"
        return " and ".join(parts)


@dataclass(frozen=True)
class RuleSet:
    """Rules from one paper."""

    name: str  # in the recipe
    paper: str  # where the rules and their bounds come from
    kinds: tuple[str, ...]  # of documents that the rules were made for
    rules: tuple[Rule, ...]  # in the order in which they are applied
    # Takes lines out of English texts before any rule of any set looks at them.
    cut_lines: Callable[[pa.StringArray], pa.StringArray] | None = None

    def rules_for(self, kind: str) -> list[Rule]:
        """Return the rules that apply to a kind, in order."""
        return [rule for rule in self.rules if kind in (rule.kinds or self.kinds)]


# Gopher


def _share(part: str, whole: str) -> Callable[[Statistics], Array]:
    return lambda s: s.share(part, whole)


def _stop_words_of_long_texts(s: Statistics) -> Array:
    return np.where(s["words"] < OWN_STOP_WORDS, np.nan, s["stop_words"])


GOPHER_QUALITY = RuleSet(
    "gopher_quality",
    "Rae et al. 2021 (Gopher, arXiv 2112.11446), appendix A.1.1",
    PROSE,
    (
        # Menus, captions and error pages have fewer words than an article.
        Rule("few_words", lambda s: s["words"], low=OWN_WORDS, kinds=OWN),
        Rule("few_words", lambda s: s["words"], low=50, kinds=NOT_OWN),
        # Made for web pages; a book may be longer.
        Rule("many_words", Statistics.estimated_words, high=100_000, kinds=("web",)),
        # Lists of codes and addresses have short "words" or endless ones.
        Rule("word_length", Statistics.word_length, low=3, high=10, by_language=WORD_LENGTH),
        Rule("hash_signs", _share("hashes", "words"), high=0.1),
        Rule("ellipses", _share("ellipses", "words"), high=0.1),
        Rule("bullet_lines", _share("bullet_lines", "lines"), high=0.9),
        Rule("ellipsis_lines", _share("ellipsis_lines", "lines"), high=0.3),
        # On a web page, a sign between spaces parts the entries of a menu. In an encyclopedia or
        # document it is the mark of a list item, a dash, or what parts the cells of a table.
        *(
            Rule(
                "words_without_letters",
                _share("letter_words", words),
                low=0.8,
                kinds=kinds,
                by_language=WORDS_WITH_LETTERS,
            )
            for words, kinds in (
                ("alphanumeric_words", (*ENCYCLOPEDIA, *OWN)),
                ("words", PUBLISHED),
            )
        ),
        *(
            Rule("few_stop_words", stop_words, low=2, kinds=kinds, languages=("en",))
            for stop_words, kinds in (
                (lambda s: s["stop_words"], NOT_OWN),
                (_stop_words_of_long_texts, OWN),
            )
        ),
    ),
)

# In books, lines are not counted: the speakers of a play and the refrain of a song repeat.
_REPETITION = (
    Rule("repeated_lines", _share("duplicate_lines", "lines_compared"), high=0.3, kinds=PAGES),
    Rule("repeated_line_bytes", _share("duplicate_line_bytes", "bytes"), high=0.2),
    Rule(
        "repeated_paragraphs",
        _share("duplicate_paragraphs", "paragraphs"),
        high=0.3,
        kinds=PAGES,
    ),
    Rule("repeated_paragraph_bytes", _share("duplicate_paragraph_bytes", "bytes"), high=0.2),
    # Shares of bytes, so a long phrase weighs more than a short one. Long n-grams repeat less
    # often in good text, hence the falling bounds.
    *(
        Rule(f"frequent_{n}gram", _share(f"top_{n}gram_bytes", "bytes"), high=high)
        for n, high in ((2, 0.20), (3, 0.18), (4, 0.16))
    ),
    *(
        Rule(f"repeated_{n}grams", _share(f"duplicate_{n}gram_bytes", "bytes"), high=high)
        for n, high in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
    ),
)

# Manuals and reference works repeat themselves legitimately; leave this set out for them.
GOPHER_REPETITION = RuleSet(
    "gopher_repetition",
    "Rae et al. 2021 (Gopher, arXiv 2112.11446), table A1",
    PROSE,
    (
        *(replace(r, kinds=ENCYCLOPEDIA, short_high=SHORT_ARTICLE_HIGH) for r in _REPETITION),
        *(replace(r, kinds=OWN, high=OWN_REPETITION) for r in _REPETITION),
        *(
            replace(r, kinds=tuple(kind for kind in PUBLISHED if kind in (r.kinds or PROSE)))
            for r in _REPETITION
        ),
    ),
)

GOPHER = RuleSet(
    "gopher",
    "Rae et al. 2021 (Gopher, arXiv 2112.11446), both sets",
    PROSE,
    GOPHER_QUALITY.rules + GOPHER_REPETITION.rules,
)

# FineWeb

# The paper gives 0.1 for repeated lines. This bound and the fourth rule are those of the code that
# made the data set. A line ends, and the bound itself passes, as in datatrove since December 2024.
FINEWEB = RuleSet(
    "fineweb",
    "Penedo et al. 2024 (FineWeb, arXiv 2406.17557), section 3.6",
    ("web",),
    (
        # Menus and lists: lines that do not end as sentences, and short ones.
        Rule("unended_lines", _share("ended_lines", "lines"), low=0.12, by_language=ENDED_LINES),
        Rule("short_lines", _share("short_lines", "lines"), high=0.67, by_language=SHORT_LINES),
        Rule(
            # Unlike Gopher's, without the bytes of line breaks.
            "repeated_line_share",
            lambda s: s["duplicate_line_bytes"] / np.maximum(s["bytes"] - s["line_breaks"], 1),
            high=0.01,
            by_language=REPEATED_LINES,
        ),
        Rule("many_line_breaks", _share("line_breaks", "words"), high=0.3),
    ),
)

# C4

C4 = RuleSet(
    "c4",
    "Raffel et al. 2020 (T5, arXiv 1910.10683), section 2.2: rules for a page",
    ("web",),
    (
        # Placeholder pages, and pages with code in place of text.
        Rule("lorem_ipsum", lambda s: s.matches(r"(?i)lorem ipsum"), high=0),
        Rule("curly_brackets", lambda s: s["brackets"], high=0),
        # Sentences are counted by English punctuation.
        Rule("few_sentences", lambda s: s["sentences"], low=3, languages=("en",)),
    ),
)

_MIN_WORDS, _MAX_WORD_LENGTH = 5, 1_000
_CITATION = r"\[\d*\]|\[edit\]|\[citation needed\]"
_NOTICE = r"(?i)javascript|terms of use|privacy policy|cookie policy|uses? cookies|use of cookies"


def prose_lines(texts: pa.StringArray) -> pa.StringArray:
    """Return texts with only their lines of prose, and those without citation marks.

    A line of prose ends as a sentence does, has at least five words, none of them endless, and
    mentions neither Javascript nor terms and cookies. Bounds and phrases are those of the code that
    made C4, in the package tfds. Typographic quotes may end a line, too.
    """
    split = pc.split_pattern(texts, "\n")
    lines = pc.utf8_trim_whitespace(split.flatten())
    if mask(pc.match_substring(lines, "[")).any():
        lines = pc.replace_substring_regex(lines, _CITATION, "")
    lines = pc.utf8_trim_whitespace(lines)
    keep = mask(pc.match_substring_regex(lines, r"[.?!\"”]$")) & ~mask(pc.ends_with(lines, "..."))
    # Each test looks only at the lines that passed the one before it.
    for pattern, expected in ((rf"(?:\S+\s+){{{_MIN_WORDS - 1}}}\S", True), (_NOTICE, False)):
        matches = mask(pc.match_substring_regex(lines.filter(pa.array(keep)), pattern))
        keep[keep] = matches == expected
    # An endless word needs a line with more bytes. A regex for it would take seconds per MB.
    long = keep & (lengths(lines) > _MAX_WORD_LENGTH)
    if long.any():
        words = pc.ascii_split_whitespace(lines.filter(pa.array(long)))
        characters = pc.utf8_length(words.flatten()).to_numpy()
        longest = np.maximum.reduceat(characters, words.offsets.to_numpy()[:-1])
        keep[long] = longest <= _MAX_WORD_LENGTH
    bounds = split.offsets.to_numpy() - split.offsets[0].as_py()
    ends = np.concatenate([[0], np.cumsum(keep)])[bounds]
    kept = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), lines.filter(pa.array(keep)))
    return pc.binary_join(kept, "\n")


# The only rule drops pages of which no line is left.
C4_LINES = RuleSet(
    "c4_lines",
    "Raffel et al. 2020 (T5, arXiv 1910.10683), section 2.2: rules for a line",
    ("web",),
    (Rule("no_prose_lines", lambda s: s["lines"], low=1),),
    cut_lines=prose_lines,
)

# Code

CODE = RuleSet(
    "code",
    "Chen et al. 2021 (Codex, arXiv 2107.03374), section 3.1, and Li et al. 2023 (StarCoder, arXiv"
    " 2305.06161), section 3.2: generated and minified files",
    ("code",),
    (
        # In documentation, a paragraph may be one line.
        Rule("long_lines", _share("chars", "lines"), high=100, not_languages=DOCUMENTATION),
        Rule("longest_line", lambda s: s["longest_line"], high=1_000, not_languages=DOCUMENTATION),
        # Data tables and encoded files.
        Rule("few_alphanumeric", _share("alphanumeric", "chars"), low=0.25),
    ),
)

# Conversations


def _speakers(s: Statistics) -> Array:
    """Roles that say something; NaN for a conversation with one role, which may be a speech."""
    turns = s.batch.column("turns")
    flat = turns.flatten()
    if len(flat) == 0:
        return np.full(len(turns), np.nan)
    counts = pc.fill_null(pc.list_value_length(turns), 0).to_numpy(zero_copy_only=False)
    rows = np.repeat(np.arange(len(turns)), counts)
    length = pc.fill_null(pc.utf8_length(flat.field("content")), 0)
    table = pa.table({"row": rows, "role": flat.field("role"), "length": length})
    roles = table.group_by(["row", "role"]).aggregate([("length", "max")])
    row, speaks = roles.column("row").to_numpy(), roles.column("length_max").to_numpy() > 0
    present = np.bincount(row, minlength=len(turns))
    speaking = np.bincount(row[speaks], minlength=len(turns))
    return np.where(present > 1, speaking, np.nan).astype(np.float64)


CONVERSATIONS = RuleSet(
    "conversations",
    "Ours: no rule set for conversations is in common use",
    tuple(kind for kind, entry in KINDS.items() if entry.has_turns),
    (
        # "User: Hi" and "Assistant: Hello" are four words.
        Rule("few_words", lambda s: s["words"], low=4),
        Rule("one_sided", _speakers, low=2),
        Rule("words_without_letters", _share("letter_words", "words"), low=0.5),
        Rule("repeated_line_bytes", _share("duplicate_line_bytes", "bytes"), high=0.5),
    ),
)

RULE_SETS = {
    rule_set.name: rule_set
    for rule_set in (
        *(GOPHER, GOPHER_QUALITY, GOPHER_REPETITION),
        *(C4, C4_LINES, FINEWEB, CODE, CONVERSATIONS),
    )
}
