"""Holes: places of a sentence where a template stood whose words are not known.

    Berlin hat {{Metadaten Einwohnerzahl|DE-BE}} Einwohner. Es liegt an der Spree.
    →
    Es liegt an der Spree.

A sentence without its number or date reads as another fact, so it is left out and counted.
Templates that stand outside of sentences, such as boxes, notices and notes, leave no hole.
"""

from __future__ import annotations

import re
from itertools import pairwise

from groundup.collect.readers.wiki.templates import is_computed, is_note

HOLE = "\x02"  # wikitext cannot hold it; it stands for one template, until `drop_sentences`
# What stands before words of a sentence: a space, "l'", a letter of a script without spaces.
_BEFORE = re.compile(r"[ \xa0](?:'{2,5}|[«„“\"(])?$|[^\W\d_]['’]$")
_ENDED = re.compile(r"[.!?:;。！？|*#=\x01>}\]]['\"”»]*[ \xa0]*$|^[\s*#:;|!]*$")
_SENTENCE_MARK = re.compile(r"[.!?]['\"”»]* +$")
_COMMA = re.compile(r",['\"”»]*[ \xa0]*$")
_SHORT_WORD = re.compile(r"(?:^|[\s(])[^\W\d_A-Z]{1,3}(?:[ \xa0]+|['’])$")
_WORD_AFTER = re.compile(r"'*[ \xa0]+'*(?:\[\[)?[\w%°(]|[-–][\w]")
_END_AFTER = re.compile(r"'*[ \xa0]*[.,;)]")
_UNSPACED = r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]"
_INSIDE_UNSPACED = re.compile(_UNSPACED + "$"), re.compile(_UNSPACED)
# Names of arguments that only citations, files and notices have.
_NOTICE = re.compile(r"\|\s*(?:url|title|titre|titel|date|file|accessdate|reason)\s*=")
_FLAG = re.compile(r"[a-z]{2,3}")
# A sentence ends at a mark behind a word, a year or a bracket, not behind "Dr." or "3.", and a new
# one starts behind it.
_NEXT = rf"[ \xa0]{{1,9}}(?=[\"“„«(']{{0,9}}[^\W_a-z]|{HOLE})"
_SENTENCE_END = re.compile(
    rf"(?:(?<=[^\W\d_]{{3}})|(?<=\d{{4}})|(?<=[)\]%°»”\"’]))"
    rf"[.!?]{{1,9}}[\"”»’)]{{0,9}}\x01{{0,9}}{_NEXT}"
    rf"|[!?]{{1,9}}[\"”»’)]{{0,9}}{_NEXT}|[。！？।۔]+[」』”)]*"
)


def is_hole(name: str, arguments: str, before: str, after: str) -> bool:
    """Return whether a template that shows nothing stands for words of a sentence.

    Its name is in lower case, and its arguments start with the first bar. It stands between
    `before`, the line up to it, and `after`.
    """
    is_flag = not arguments and _FLAG.fullmatch(name)
    if not name or is_flag or is_note(name) or _NOTICE.search(arguments):
        return False
    has_figure = any(map(str.isdecimal, arguments)) or is_computed(name)
    if _ENDED.search(before):
        # The first words: "{{...}} is a town".
        follows = after.lstrip(" '")[:1].islower() and after[:1] in (" ", "'")
        return follows and (not before or _SENTENCE_MARK.search(before) is not None)
    if _INSIDE_UNSPACED[0].search(before):
        return has_figure and _INSIDE_UNSPACED[1].match(after) is not None
    if not _BEFORE.search(before):
        return False
    if _WORD_AFTER.match(after):
        return True
    is_needed = has_figure or _SHORT_WORD.search(before) is not None
    return is_needed and not _COMMA.search(before) and _END_AFTER.match(after) is not None


def stands_inside(before: str) -> bool:
    """Return whether what follows `before`, a line up to it, stands inside a sentence."""
    return _ENDED.search(before) is None and _BEFORE.search(before) is not None


def drop_sentences(text: str) -> tuple[str, int]:
    """Return text without the sentences that hold a hole, and their number."""
    if HOLE not in text:
        return text, 0
    lines, count = [], 0
    for line in text.split("\n"):
        if HOLE not in line:
            lines.append(line)
            continue
        ends = [0, *(end.end() for end in _SENTENCE_END.finditer(line)), len(line)]
        sentences = [line[start:end] for start, end in pairwise(ends)]
        whole = [sentence for sentence in sentences if HOLE not in sentence]
        count += len(sentences) - len(whole)
        lines.append("".join(whole).rstrip())
    return "\n".join(lines), count
