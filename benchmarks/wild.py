"""Files as small teams have them, by sort: which share of the words of a file we recover, and which
share of ours is rubbish, beside markitdown and unstructured (its fast strategy).

Measured against an independent extraction of the same file: pandoc (Word, RTF, Markdown,
reStructuredText, Org, LaTeX, notebooks, web pages), pdftotext, openpyxl, Python's email without
quoted lines and signatures, and for OpenDocument, slides, chats, forums, records and subtitles a
few lines of the benchmark. Words are runs of letters and digits in lower case (a letter of Chinese,
Japanese or Korean is one); the order does not count. Addresses, names of speakers, numbers of
lists, formulas and quoted lines of mails are removed on both sides. A file is read as the kind that
`init` would give it, with names of speakers; of records with unknown columns, the column is named.
Files that the reference does not read (encrypted, damaged on purpose, bounces) and files without a
word on both sides are left out and counted. Sheets that are hidden, or have no word of two letters
(one of 1,040 times "x"), are no text to the reference. A sort has a dash where a tool reads none of
its files; a file that it fails on counts as nothing recovered, and not for its speed.

What is text follows this project: signatures, messages of bots and servers, raw
cells and long outputs of notebooks, headers of PEPs, names of what Sphinx documents from code, tags
and states of tasks are none, and the references were mended while ours were looked at. A peer that
keeps them, as markitdown does with files that it copies, has them as rubbish: the comparison says
whose output can be trained on, not who reads better. The files are tests of other projects, many of
a few words; counts of words are beside them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from benchmarks import wild_peers
from benchmarks import wild_references as references
from benchmarks.dedup_peers import interpreter
from benchmarks.machine import test_data
from benchmarks.peers import result
from benchmarks.wild_references import Reference, UnreadableError
from groundup.artifacts.document import Document
from groundup.collect.detect import detect_kind
from groundup.collect.files.archives import open_items
from groundup.collect.files.globs import Selection
from groundup.collect.files.streams import Item
from groundup.collect.readers.registry import read_item
from groundup.recipe import Source

ADDRESS = re.compile(
    r"\b(?:[a-z][a-z0-9+.-]{1,20}://|mailto:|www\.)[^\s<>\"'()\[\]|]+"
    r"|[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
)
# "1.", "a)", "iv." before an item, and the hyphen at the end of a line.
LIST_NUMBER = re.compile(r"^[ \t]*\(?(?:\d{1,3}|[a-z]|[ivx]{1,5})[.)](?=\s)", re.MULTILINE)
LINE_HYPHEN = re.compile(r"(?<=\w)[-\u2010][ \t]*\n\s*(?=[^\W\d_])")
FORMULA = re.compile(
    r"\$\$.*?\$\$|(?<!\\)\$[^$\n]+\$|\\\[.*?\\\]|\\\(.*?\\\)"
    r"|\\begin\{(equation|align|gather|narrowed|multline)(\*?)\}.*?\\end\{\1\2\}",
    re.DOTALL,
)
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+")
# Files whose text has no name that is known, by a part of their path.
TEXT_COLUMNS = {"/TOS/": "sentence"}
MANY_RECOVERED, LITTLE_RUBBISH = 0.9, 0.05
WORST = 5
PEERS = ("markitdown", "unstructured")


class Sort(NamedTuple):
    """A sort of files: their patterns below the folder, and the tool and function that read them
    for reference.
    """

    patterns: tuple[str, ...]
    tool: str
    read: Callable[[Path], Reference] | None


SORTS = {
    "chats of Slack": Sort(("slack/*",), "", references.slack),
    "chats of Discord": Sort(("discord/*",), "", references.discord),
    "chats of Telegram": Sort(("telegram/*",), "", references.telegram),
    "chats of WhatsApp": Sort(("whatsapp/*",), "", references.typed_log),
    "chats of Signal": Sort(("signal/*",), "", references.typed_log),
    "forum": Sort(("stackexchange/*.xml",), "", references.forum),
    "records": Sort(("parquet/*.parquet", "jsonl/*.jsonl"), "", references.records),
    "subtitles": Sort(
        tuple(f"subtitles/*.{s}" for s in ("srt", "vtt", "ass")), "", references.subtitles
    ),
    "mails": Sort(("*.eml", "*/fake-email.txt", "*/signed-doc.p7s"), "pandoc", references.mail),
    "mailboxes": Sort(("*.mbox",), "pandoc", references.mails_of_box),
    "Word": Sort(("*.docx", "*/eng_spa_mult.doc"), "pandoc", references.pandoc("docx")),
    "OpenDocument": Sort(("*.odt",), "", references.open_document),
    "PowerPoint": Sort(("*.pptx",), "", references.slides),
    "Excel": Sort(("*.xlsx",), "openpyxl", None),
    "RTF": Sort(("*.rtf",), "pandoc", references.pandoc("rtf")),
    "PDF": Sort(("*.pdf",), "pdftotext", references.pdf),
    "web pages": Sort(("*.html",), "pandoc", references.web_page),
    "saved pages": Sort(("*.mhtml",), "pandoc", references.saved_page),
    "notebooks": Sort(("*.ipynb",), "pandoc", references.notebook),
    "Markdown": Sort(("*.md",), "pandoc", references.markdown),
    "reStructuredText": Sort(("*.rst",), "pandoc", references.structured),
    "Org": Sort(("*.org",), "pandoc", references.outline),
    "LaTeX": Sort(("*.tex",), "pandoc", references.pandoc("latex")),
    "old Word": Sort(("*.doc",), "antiword", None),
    "mails of Outlook": Sort(("*.msg",), "a reader of MSG", None),
    "old Excel": Sort(("*.xls",), "a reader of XLS", None),
}
# What is no text of the files of a sort: formulas, and what a mail quotes.
REMOVED = {
    **dict.fromkeys(("notebooks", "Markdown", "reStructuredText", "Org", "LaTeX"), FORMULA),
    **dict.fromkeys(("mails", "mailboxes"), re.compile(r"^[ \t]*>.*$", re.MULTILINE)),
}


@dataclass
class Tally:
    """Words of the references and of a tool, and those that both have, over the files of a sort."""

    files: int = 0
    wanted: int = 0
    given: int = 0
    common: int = 0
    bytes: int = 0
    seconds: float = 0.0
    # By file: share recovered, share of rubbish, words of the reference.
    shares: dict[str, tuple[float, float, int]] = field(default_factory=dict)

    def add(self, name: str, wanted: Counter[str], given: Counter[str]) -> None:
        """Count a file."""
        common = (wanted & given).total()
        self.files += 1
        self.wanted += wanted.total()
        self.given += given.total()
        self.common += common
        shares = (share(common, wanted.total(), 1.0), 1 - share(common, given.total(), 1.0))
        self.shares[name] = (*shares, wanted.total())

    @property
    def recovered(self) -> float:
        """Share of the words of the references that the tool gives."""
        return share(self.common, self.wanted, 1.0)

    @property
    def rubbish(self) -> float:
        """Share of the words of the tool that the references do not have."""
        return 1 - share(self.common, self.given, 1.0)

    @property
    def speed(self) -> float:
        """MB of files in a processor second."""
        return self.bytes / 1e6 / max(self.seconds, 1e-6)

    def worst(self) -> list[dict[str, object]]:
        """Return the files that lose most and have most rubbish, the worst first."""
        order = sorted(self.shares.items(), key=lambda item: (item[1][0] - item[1][1], item[0]))
        return [
            {"file": name, "recovered": round(kept, 3), "rubbish": round(rubbish, 3), "words": size}
            for name, (kept, rubbish, size) in order[:WORST]
            if kept < 1 or rubbish > 0
        ]


def share(part: int, whole: int, empty: float) -> float:
    return part / whole if whole else empty


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None or not (data / "wild").is_dir():
        return None
    return compare(sorted_files(data / "wild"), data / "wild", __doc__)


def compare(
    files: Mapping[str, Sequence[Path]], root: Path, what: str | None, fewest: int = 0
) -> dict[str, object]:
    """Return the result of reading files by sort, all below `root`, with each tool.

    Files of which the reference has fewer words than `fewest` are left out.
    """
    paths = [path for each in files.values() for path in each]
    with tempfile.TemporaryDirectory() as folder:
        peers = {tool: run_peer(Path(folder), tool, paths) for tool in wild_peers.TOOLS}
    figures: dict[str, object] = {}
    worst: dict[str, object] = {}
    for sort, each in files.items():
        wanted = {path: reference_of(sort, path, peers["openpyxl"]) for path in each}
        if not any(wanted.values()):
            figures[f"{sort}: no reference, {SORTS[sort].tool} is not there"] = len(each)
            continue
        print(f"  {sort}", flush=True)
        tools = {"ours": {path: read_ours(path, root) for path in warmed(each)}}
        tools |= {
            tool: {path: peers[tool].get(path, (None, 0.0)) for path in each} for tool in PEERS
        }
        tallies = {
            tool: tally(sort, found, wanted, root, fewest)
            for tool, found in tools.items()
            if tool == "ours" or any(text is not None for text, _ in found.values())
        }
        unread = sum(reference is None for reference in wanted.values())
        figures |= described(sort, unread, len(each), tallies, fewest)
        worst[sort] = tallies["ours"].worst()
    return {**result(what, figures), "worst files of ours": worst}


def sorted_files(root: Path) -> dict[str, list[Path]]:
    """Return the files below a folder by sort; each is of the first sort whose pattern it fits."""
    files: dict[str, list[Path]] = {sort: [] for sort in SORTS}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = f"./{path.relative_to(root).as_posix()}"
        for sort, of in SORTS.items():
            if any(fnmatchcase(name, f"./{pattern}") for pattern in of.patterns):
                files[sort].append(path)
                break
    return {sort: each for sort, each in files.items() if each}


def reference_of(
    sort: str, path: Path, cells: Mapping[Path, tuple[str | None, float]]
) -> Reference | None:
    """Return what a file says; None where its tool is missing or does not read it."""
    of = SORTS[sort]
    if of.tool == "openpyxl":
        text = cells.get(path, (None, 0.0))[0]
        return None if text is None else Reference(text)
    if of.read is None or (of.tool and shutil.which(of.tool) is None):
        return None
    try:
        return of.read(path)
    except UnreadableError:
        return None


def warmed(paths: Sequence[Path]) -> Sequence[Path]:
    """Return paths after one file of each suffix was read, so that no import is timed."""
    for path in {path.suffix: path for path in paths}.values():
        read_ours(path, path.parent)
    return paths


def read_ours(path: Path, root: Path) -> tuple[str | None, float]:
    """Return the text of all documents of a file, and processor seconds."""
    name = path.relative_to(root).as_posix()
    column = next((c for part, c in TEXT_COLUMNS.items() if part in path.as_posix()), "")
    kind = detect_kind(path, name).kind or "text"
    source = Source(str(path), kind, "one", speakers="names", text=column)
    start = wild_peers.processor_seconds()
    with path.open("rb") as file:
        items = open_items(path, file, name, path.stat().st_size, Selection())
        texts = [
            document.text
            for item in items
            for document in (read_item(item, source) if isinstance(item, Item) else ())
            if isinstance(document, Document)
        ]
    return "\n\n".join(texts) if texts else None, wild_peers.processor_seconds() - start


def run_peer(
    folder: Path, tool: str, paths: Sequence[Path]
) -> dict[Path, tuple[str | None, float]]:
    """Return what another tool makes of the files; empty where it cannot be had."""
    python = interpreter(folder / tool, [tool], wild_peers.PACKAGES)
    if python is None:
        return {}
    (folder / "files.json").write_text(json.dumps(list(map(str, paths))), encoding="utf-8")
    if subprocess.run(
        [python, "-P", wild_peers.__file__, tool, str(folder)], check=False
    ).returncode:
        print(f"wild: {tool} does not run, so it has no figures")
        return {}
    found = json.loads((folder / f"{tool}.json").read_text(encoding="utf-8"))
    return {Path(path): (text, spent) for path, (text, spent) in found.items()}


def tally(
    sort: str,
    found: Mapping[Path, tuple[str | None, float]],
    wanted: Mapping[Path, Reference | None],
    root: Path,
    fewest: int = 0,
) -> Tally:
    """Compare the texts of a tool with the references of at least `fewest` words."""
    counts = Tally()
    removed = REMOVED.get(sort)
    for path, (text, spent) in found.items():
        reference = wanted[path]
        if reference is None:
            continue
        right = words(reference.text, reference.names, removed)
        given = words(text or "", reference.names, removed)
        if right.total() < fewest or not (right or given):
            continue
        counts.add(path.relative_to(root).as_posix(), right, given)
        if text is not None:
            counts.bytes += path.stat().st_size
            counts.seconds += spent
    return counts


def words(
    text: str, names: Iterable[str] = (), removed: re.Pattern[str] | None = None
) -> Counter[str]:
    """Return how often a text has each word, without addresses, numbers of lists, the words of
    names, and what `removed` finds in small letters.
    """
    text = unicodedata.normalize("NFKC", text).lower().replace("\u00ad", "")
    text = removed.sub(" ", text) if removed else text
    text = LINE_HYPHEN.sub("", LIST_NUMBER.sub(" ", ADDRESS.sub(" ", text)))
    hidden = {word for name in names for word in WORD.findall(name.lower())}
    return Counter(word for word in WORD.findall(text) if word not in hidden)


def described(
    sort: str, unread: int, files: int, tallies: Mapping[str, Tally], fewest: int
) -> dict[str, object]:
    """Return the figures of a sort: the material, then each measure by tool."""
    ours = tallies["ours"]
    kept, rubbish = ([shares[part] for shares in ours.shares.values()] for part in (0, 1))
    few = f"under {fewest} words" if fewest else "without a word"
    figures: dict[str, object] = {
        f"material: {sort}: files": ours.files,
        f"material: {sort}: without reference": unread,
        f"material: {sort}: {few}": files - unread - ours.files,
        f"material: {sort}: MB": ours.bytes / 1e6,
        f"material: {sort}: words": ours.wanted,
        f"material: {sort}: files below 90 % recovered": sum(s < MANY_RECOVERED for s in kept),
        f"material: {sort}: files over 5 % rubbish": sum(s > LITTLE_RUBBISH for s in rubbish),
    }
    for tool in ("ours", *PEERS):
        counts = tallies[tool] if tool in tallies and tallies[tool].files else None
        figures[f"recovered: {sort}: {tool}"] = counts.recovered if counts else "–"
        figures[f"rubbish: {sort}: {tool}"] = counts.rubbish if counts else "–"
        figures[f"MB a processor second: {sort}: {tool}"] = counts.speed if counts else "–"
    return figures
