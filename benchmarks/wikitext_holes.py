"""Holes in the sentences that a reader of wikitext gives, seen without the help of our own code.

A template that a tool does not know may stand for words of a sentence, and without them the
sentence says something else, or nothing: "Berlin hat Einwohner." Two measures find such sentences,
the same for every tool, in lines of prose:

- Traces: two spaces between words, a space in front of a comma or a full stop, brackets without
  words, a preposition or article where none can stand ("born on in Berlin", "the length of."). What
  the page itself has in this way, its notes left out, is no trace. Two spaces may also be left of a
  template that shows nothing, so this measure is the wider of the two.
- Figures: a template within a line of prose whose arguments hold a digit, notes and file names set
  aside. The words around it find its place in the text. Without a digit in that place, and without
  a word of the template, the sentence has a hole. Where these words are not found, the sentence was
  left out as a whole ("dropped"): text is lost, but nothing false is said.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from unicodedata import normalize

# Notes stand below a page, and comments nowhere.
UNSEEN = re.compile(
    r"<!--.*?-->|<ref\b[^<>]*/>|<ref\b[^<>]*>.*?</ref\s*>|^\{\|.*?^\|\}",
    re.IGNORECASE | re.DOTALL | re.MULTILINE,
)
MARKUP = re.compile(r"\[\[(?:[^\[\]|]*\|)?|\]\]|''+|<[^<>\n]*>")
PROSE = re.compile(r"^[^|\n]{80,}[.!?。։।؟\")”»]+\s*$", re.MULTILINE)
SENTENCE_END = re.compile(r"[.!?։।؟۔][\"”»’)]*\s+(?=[^\W_a-z])|[。！？]")
BRACKETS = re.compile(r"\{\{|\}\}")
CJK = r"\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff"
IS_CJK = re.compile(f"[{CJK}]")
TOKEN = re.compile(rf"[{CJK}]|(?:(?![{CJK}])[^\W_])+")
TRACES = {
    "two spaces": re.compile(r"\w[ \xa0]{2,}\w"),
    "a space before a comma or full stop": re.compile(r"\w[ \xa0]+[,.](?=\s|$)"),
    "brackets without words": re.compile(r"[(（]\s*[,;:،、，；]?\s*[)）]|[(（]\s*[,;،、，；]"),
}
# Words that cannot stand before these, or at the end of a sentence.
LEFT_ALONE = {
    "en": ("the|an|of|from|between|at", "of|in|and|is|was|were|to"),
    "de": ("am|im|vom|zum|zur|beim|der|dem|des", "in|von|und|bis|geboren"),
    "fr": ("du|au|aux", "de|en|à|et"),
    "es": ("del|al", "de|en|y"),
    "it": ("del|al|nel|dal", "di|in|e"),
    "nl": ("het|van|de", "van|en|tot|werd"),
}
WORDS_ALONE = {
    code: re.compile(rf"\b(?:{words})(?:[ \xa0]+(?:{others})\b(?!-)|[ \xa0]*\.$)")
    for code, (words, others) in LEFT_ALONE.items()
}
LAST_TRACE = "a preposition or article alone"
# Templates that show a note, a number of a catalog, a sound or a place on the globe.
NOTE = re.compile(
    r"\s*(?:harv|sfn|cit|cyt|isbn|issn|oclc|doi|dnb|ref|note|efn|audio|lausunta|way|web|ipa|youtube"
    r"|coord|koord|google|year missing|clarify|bibleref|official)",
    re.IGNORECASE,
)
FILE = re.compile(r"\.\w{3,4}\s*$|https?:", re.IGNORECASE)
NAMED, NUMBERED = re.compile(r"\s*[^\W\d][^=]*="), re.compile(r"\s*\d+\s*=")
BEFORE, AFTER = re.compile(rf"(?:^|[\s('\[{CJK}])$"), re.compile(rf"$|[\s,.;:)'’%°–{CJK}-]")
# Words around a template that find its place, and the characters that it may show there.
WORDS, WORDS_CJK, GAP = 4, 8, 80
LETTERS = re.compile(r"[^\W\d_]{3,}")
# Letters of one side that find it without the other, and of an argument that is a figure.
FEWEST_LETTERS, LONGEST_FIGURE = 4, 40


@dataclass
class Counts:
    """What was counted in the texts of one tool."""

    sentences: int = 0
    with_hole: int = 0
    traces: Counter[str] = field(default_factory=Counter)
    figures: int = 0
    figure_lost: int = 0
    dropped: int = 0

    def add(self, other: Counts) -> None:
        self.sentences += other.sentences
        self.with_hole += other.with_hole
        self.traces += other.traces
        self.figures += other.figures
        self.figure_lost += other.figure_lost
        self.dropped += other.dropped


@dataclass(frozen=True)
class Place:
    """A template with a figure: the words before and behind it, up to the sentence's ends."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    markup: str


def figures(
    pages: Sequence[tuple[str, str, str]], texts: Mapping[str, Sequence[str]], worst: int = 10
) -> Iterator[tuple[str, object]]:
    """Yield the holes of each tool in all pages, and in the languages with most of ours.

    Pages are title, wikitext and language; `texts` has what a tool made of them.
    """
    counts = {tool: by_language(pages, found) for tool, found in texts.items()}
    for tool, languages in counts.items():
        total = Counts()
        for part in languages.values():
            total.add(part)
        yield f"holes, all: sentences, {tool}", total.sentences
        yield f"holes, all: sentences of 1,000 with a hole, {tool}", rate(total)
        for trace in (*TRACES, LAST_TRACE):
            share = 1000 * total.traces[trace] / max(1, total.sentences)
            yield f"holes, all: sentences of 1,000 with {trace}, {tool}", share
        templates = max(1, total.figures)
        yield f"holes, all: templates with figures in prose, {tool}", total.figures
        yield f"holes, all: of these, figure lost, {tool}", total.figure_lost / templates
        yield f"holes, all: of these, sentence dropped, {tool}", total.dropped / templates
        with_holes = sum(part.with_hole > 0 for part in languages.values())
        yield f"holes, all: languages with a hole, {tool}", with_holes
    ours = counts.get("ours", {})
    order = sorted(ours, key=lambda code: (-rate(ours[code]), code))
    for code in [code for code in order if ours[code].with_hole][:worst]:
        label = f"holes, {code or 'single pages'}: sentences of 1,000 with a hole"
        yield from ((f"{label}, {tool}", rate(part[code])) for tool, part in counts.items())


def rate(counts: Counts) -> float:
    return 1000 * counts.with_hole / max(1, counts.sentences)


def by_language(pages: Sequence[tuple[str, str, str]], texts: Sequence[str]) -> dict[str, Counts]:
    counts: dict[str, Counts] = defaultdict(Counts)
    for (_, wikitext, language), text in zip(pages, texts, strict=True):
        counts[language].add(count(wikitext, text, language))
    return dict(counts)


def count(wikitext: str, text: str, language: str) -> Counts:
    """Count the holes in the text of one page; a page without a language is taken for English."""
    # Tools write x² or x2, and a no-break space or another.
    text = normalize("NFKC", text)
    source = normalize("NFKC", html.unescape(UNSEEN.sub("", wikitext)))
    spans = list(sentences(text))
    found, holes = Counts(sentences=len(spans)), set()
    shown = plain(source)
    for number, (start, end) in enumerate(spans):
        for trace in traces(text[start:end], shown, language or "en"):
            found.traces[trace] += 1
            holes.add(number)
    starts = [start for start, _ in spans]
    for place in places(source):
        position = lacks_figure(place, text)
        found.figures += 1
        found.dropped += position is None
        if position is not None and position >= 0:
            found.figure_lost += 1
            holes.add(bisect_right(starts, position) - 1)
    found.with_hole = len(holes - {-1})
    return found


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Yield where the sentences of lines of prose start and end."""
    for line in PROSE.finditer(text):
        start = line.start()
        for match in SENTENCE_END.finditer(text, line.start(), line.end()):
            yield start, match.end()
            start = match.end()
        if start < line.end():
            yield start, line.end()


def plain(wikitext: str) -> str:
    """Return wikitext with its links, quotes and tags as they read, and its templates."""
    return MARKUP.sub("", wikitext)


def traces(sentence: str, source: str, language: str) -> Iterator[str]:
    """Yield the traces of lost words in a sentence that are not in the source of its page."""
    sentence = sentence.strip()
    alone = WORDS_ALONE.get(language)
    for name, pattern in (*TRACES.items(), *([(LAST_TRACE, alone)] if alone else [])):
        for match in pattern.finditer(sentence):
            if sentence[max(0, match.start() - 4) : match.end() + 4] not in source:
                yield name
                break


def places(source: str) -> Iterator[Place]:
    """Yield the templates within lines of prose that show a figure."""
    spans = outermost(source)
    for number, (start, end) in enumerate(spans):
        line = source.rfind("\n", 0, start) + 1
        line_end = source.find("\n", end)
        line_end = len(source) if line_end < 0 else line_end
        is_prose = line_end - line >= 80 and not re.match(
            r"[|!{}*#:;=< ]|\[\[[^\[\]|]*:", source[line:line_end]
        )
        if not is_prose or not has_figure(source[start + 2 : end - 2]):
            continue
        if not BEFORE.search(source[line:start]) or not AFTER.match(source[end:line_end]):
            continue
        left = max(line, spans[number - 1][1] if number else 0)
        right = min(line_end, spans[number + 1][0] if number + 1 < len(spans) else line_end)
        before = SENTENCE_END.split(plain(source[left:start]))[-1]
        after = SENTENCE_END.split(plain(source[end:right]))[0]
        place = Place(words(before, -1), words(after, 1), source[start:end])
        if is_enough(place.before) or is_enough(place.after):
            yield place


def outermost(source: str) -> list[tuple[int, int]]:
    """Return where the templates of one line that are in no other template start and end."""
    spans, opened = [], []
    for match in BRACKETS.finditer(source):
        if match[0] == "{{":
            opened.append(match.start())
        elif opened:
            start = opened.pop()
            while spans and spans[-1][0] > start:
                spans.pop()
            spans.append((start, match.end()))
    return [(start, end) for start, end in spans if "\n" not in source[start:end]]


def has_figure(inside: str) -> bool:
    """Return whether a template has a digit in an argument without a name."""
    name, bar, rest = inside.partition("|")
    if not bar:
        name, _, rest = inside.partition(":")
    values = (NUMBERED.sub("", part) for part in rest.split("|") if not NAMED.match(part))
    return not NOTE.match(name) and any(
        any(map(str.isdigit, value)) and len(value) <= LONGEST_FIGURE and not FILE.search(value)
        for value in values
    )


def words(text: str, side: int) -> tuple[str, ...]:
    """Return the last (side -1) or first words of a text."""
    found = TOKEN.findall(text)[:: -1 if side < 0 else 1]
    most = WORDS_CJK if found and IS_CJK.match(found[0]) else WORDS
    return tuple(found[:most][:: -1 if side < 0 else 1])


def is_enough(side: tuple[str, ...]) -> bool:
    """Return whether these words alone find a place in a text."""
    return len(side) > 1 and sum(map(len, side)) >= FEWEST_LETTERS


def lacks_figure(place: Place, text: str) -> int | None:
    """Return where in a text the place is, if nothing of the template is there; -1 if something is;
    None if the text does not have the words around it.
    """
    before, after = (
        r"[\W_]{0,6}".join(map(re.escape, side)) for side in (place.before, place.after)
    )
    # Words end where the template starts; scripts without spaces have no such ends.
    before += r"(?!\w)" if place.before and not IS_CJK.match(place.before[-1]) else ""
    after = (r"(?<!\w)" if place.after and not IS_CJK.match(place.after[0]) else "") + after
    rest = rf"(?P<gap>[^\w\n]{{0,6}}(?:(?![.!?]\s)[^\n]){{0,{GAP // 2}}})"
    if place.before and place.after:
        pattern = rf"{before}(?P<gap>[^\n]{{0,{GAP}}}?){after}"
    else:
        pattern = before + rest if place.before else rest + after
    gaps = {match.start("gap"): match["gap"] for match in re.finditer(pattern, text)}
    shown = set(LETTERS.findall(place.markup.partition("|")[2]))
    if any(
        any(map(str.isdigit, gap)) or shown.intersection(LETTERS.findall(gap))
        for gap in gaps.values()
    ):
        return -1
    return min(gaps, default=None)
