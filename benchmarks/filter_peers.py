"""Verdicts of datatrove's filters, in a process of its own. Reads FOLDER/documents.jsonl; writes
FOLDER/verdicts.json.

    python filter_peers.py FOLDER FILTER...

Nothing but the standard library and datatrove is imported, so that it runs in the virtual
environment that the benchmark makes for the peers. Its words come from spaCy's rules for English,
and its sentences from spaCy's sentencizer: both are code inside the package and need no model, so
nothing is downloaded.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Replacements = Mapping[str, Callable[..., Any]]
# Of the reference code of C4, as ours: datatrove's own defaults are 3 words and 5 sentences.
C4 = {"min_words_per_line": 5, "min_num_sentences": 3}
SAME = ", our words"
# Asked about articles of many languages.
ARTICLES = ("gopher_quality as it is", "gopher_quality without stop words")


def spaced(text: str, language: str) -> list[str]:
    """Return what stands between white space, which is a word to our rules of quality."""
    return text.split()


def letters(text: str, language: str) -> list[str]:
    """Return runs of letters and digits in small letters, which are the words of our n-grams."""
    return re.findall(r"[^\W_]+", text.lower())


def repeated(grams: list[str]) -> int:
    """Return the characters of the most frequent n-gram; its own function also counts one that
    occurs once.
    """
    gram, count = Counter(grams).most_common(1)[0]
    return len(gram) * count if count > 1 else 0


def filters() -> dict[str, tuple[Any, Replacements]]:
    """Return each filter, and what to put in the place of its own functions to count words and
    repetition as we do.
    """
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    return {
        "gopher_quality": (GopherQualityFilter(), {"split_into_words": spaced}),
        ARTICLES[0]: (GopherQualityFilter(), {}),
        ARTICLES[1]: (GopherQualityFilter(min_stop_words=None), {}),
        "gopher_repetition": (
            GopherRepetitionFilter(),
            {"split_into_words": letters, "find_top_duplicate": repeated},
        ),
        "c4": (C4QualityFilter(**C4), {}),
        "fineweb": (FineWebQualityFilter(), {"split_into_words": spaced}),
    }


def verdicts(one: Any, texts: Sequence[str]) -> dict[str, Any]:
    """Return the reason for which each text is dropped, "" where it is kept, and processor
    seconds.
    """
    from datatrove.data import Document

    documents = [Document(text=text, id="") for text in texts]
    start = time.process_time()
    found = [one.filter(document) for document in documents]
    return {
        "seconds": time.process_time() - start,
        "reasons": ["" if answer is True else answer[1] for answer in found],
    }


def main(folder: Path, names: Sequence[str]) -> None:
    """Ask these filters, first about a few texts so that imports are not counted."""
    with (folder / "documents.jsonl").open(encoding="utf-8") as lines:
        texts = [json.loads(line) for line in lines]
    found = {}
    known = filters()
    for name in names:
        one, replacements = known[name]
        verdicts(one, texts[:5])
        found[name] = verdicts(one, texts)
        for function, ours in replacements.items():
            setattr(sys.modules[type(one).__module__], function, ours)
        if replacements:
            found[name + SAME] = verdicts(one, texts)
    (folder / "verdicts.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
