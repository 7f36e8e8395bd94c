"""What kind of source a file is, and its format: real files of more than 40 sorts, labeled by hand
before they were run; ten labels that the bytes proved wrong, or a new reader made so, were
corrected. A file is shown with the name of its folder only.
"""

from __future__ import annotations

import subprocess
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from benchmarks.machine import machine, test_data
from groundup.collect.detect import detect_kind
from groundup.runtime.fetch.download import fetch

# Of a rule at most so many files, evenly spread, that no sort outweighs the others.
EACH = 30
# Path or glob | sort | formats | kinds; the first rule that fits holds. Where two answers are as
# good as each other for a user, both are right; "-" is no kind: a note, or a file nobody reads.
# Members of archives are labeled by what most of them are.
LABELS = """
books/*                                   | Gutenberg book         | text       | books
wikipedia/*.7z                            | MediaWiki dump         | mediawiki  | wikipedia
wikipedia/wikitext-pages/*                | page of wikitext       | text       | wikipedia
wikipedia/plain/*                         | plain wikitext-2       | text       | text wikipedia
wikipedia/*                               | MediaWiki dump         | mediawiki  | wikipedia
web/encodings/*.xml                       | feed                   | feed       | web
web/encodings/*.html                      | HTML page              | html       | web
web/encodings/*.srt                       | subtitles              | text       | text
web/encodings/*.txt                       | plain text             | text       | text
web/html/*/expected-metadata.json         | JSON without text      | json       | -
web/html/*.json                           | answers of a benchmark | json       | evaluation - web
web/html/*                                | HTML page              | html       | web
web/jsonl/*                               | web text as JSONL      | jsonl      | web text
web/quality/*                             | web text as JSONL      | jsonl      | web text
web/mojibake/*.json                       | JSON without text      | json       | - text
web/mojibake/*.md                         | note                   | markdown   | - documents
web/warc/*.wat                            | WAT                    | wat        | -
web/warc/*.arc                            | ARC                    | arc        | web
web/warc/*.arc.gz                         | ARC                    | arc        | web
web/warc/cc_net/*                         | WARC                   | warc text  | web text
web/warc/*                                | WARC                   | warc       | web
code/*                                    | source package         | text       | code
conversations/*.yml                       | conversations as YAML  | yaml       | conversations
conversations/*.jsonl                     | conversations as JSONL | jsonl      | conversations
conversations/*.json                      | conversations as JSON  | json       | conversations
conversations/*.json.gz                   | conversations as JSON  | json       | conversations
conversations/*.zip                       | conversations as JSON  | json       | conversations
conversations/ubuntu_irc/*                | IRC log                | text       | conversations chat
dedup/*.csv                               | table without text     | csv        | -
dedup/*                                   | plain text             | text tsv   | text
langid/*                                  | plain text             | text       | text
models/*.bin                              | binary file            | binary     | -
models/*.json                             | JSON without text      | json       | -
models/*                                  | table without text     | text       | - text
evals/hellaswag/reference-nll/*           | table without text     | csv        | - evaluation
evals/*.csv                               | evaluation as CSV      | csv        | evaluation
evals/*.xml                               | evaluation as XML      | xml        | evaluation
evals/*.lst                               | evaluation as text     | text       | evaluation -
evals/*.txt.bz2                           | evaluation as text     | text       | evaluation
evals/*                                   | evaluation as JSONL    | jsonl      | evaluation
wild/discord/*                            | chat of Discord        | json       | chat
wild/telegram/*/personal.json             | JSON without text      | json       | - chat
wild/telegram/*                           | chat of Telegram       | json       | chat
wild/whatsapp/*                           | chat of WhatsApp       | text       | chat
wild/signal/*                             | chat of Signal         | text       | chat
wild/slack/*.xml                          | chat of Slack as XML   | xml        | chat
wild/slack/*/channels.json                | lists of Slack         | json       | -
wild/slack/*/dms.json                     | lists of Slack         | json       | -
wild/slack/*/groups.json                  | lists of Slack         | json       | -
wild/slack/*/mpims.json                   | lists of Slack         | json       | -
wild/slack/*/ref-channels.json            | lists of Slack         | json       | -
wild/slack/*/users.json*                  | lists of Slack         | json       | -
wild/slack/*/workspace.json.gz            | lists of Slack         | json jsonl | -
wild/slack/*/authtestinfo.json            | lists of Slack         | json       | -
wild/slack/*/data-i455.json               | JSON without text      | json text  | - text
wild/slack/*                              | chat of Slack          | json jsonl | chat
wild/stackexchange/*                      | Stack Exchange dump    | stackexchange | forum
wild/subtitles/*                          | subtitles              | text       | text
wild/ipynb/*                              | notebook               | notebook   | code
wild/latex/*.tex                          | LaTeX                  | latex      | documents
wild/latex/*.bib                        | table without text     | text latex-data | - text
wild/*.eml                                | mail                   | eml        | mail
wild/*.p7s                                | mail                   | eml        | mail
wild/*.mbox                               | mailbox                | mbox       | mail
wild/*.mhtml                              | saved web page         | mhtml      | web
wild/*.msg                                | mail of Outlook        | msg        | -
wild/*/fake-email.txt                     | mail                   | eml        | mail
wild/*README*                             | note                   | markdown rst org | - documents
wild/*.md                                 | Markdown               | markdown   | documents
wild/*.rst                                | reStructuredText       | rst        | documents
wild/*.org                                | Org                    | org        | documents
wild/*.pdf                                | PDF                    | pdf encrypted | documents -
wild/*/testWORD_truncated.docx            | Word                   | docx       | documents -
wild/*.docx                               | Word                   | docx       | documents
wild/*/eng_spa_mult.doc                   | Word                   | docx       | documents
wild/*.doc                                | old Word               | doc        | - documents
wild/*.odt                                | OpenDocument text      | odt        | documents
wild/*.pptx                               | PowerPoint             | pptx       | documents
wild/*/password_protected.xlsx            | encrypted workbook     | encrypted  | -
wild/*.xlsx                               | Excel                  | xlsx       | documents
wild/*.xls                                | old Excel              | xls        | documents
wild/*.rtf                                | RTF                    | rtf        | documents
wild/*.ipynb                              | notebook               | notebook   | code
wild/*.html                               | HTML page              | html       | web
wild/*.png                                | image                  | image      | -
wild/*.jpeg                               | image                  | image      | -
wild/*.csv                                | table without text     | csv        | - documents
wild/*/arbitrary-records.*                | JSON without text      | json jsonl | -
wild/*/single-line-object.json            | JSON without text      | json       | -
wild/*/not-unstructured-payload.json      | JSON without text      | json       | - text
wild/*.pdf.json                           | records with a text   | json     | text documents web -
wild/*/example-docs/*.json                | records with a text    | json       | text documents web
wild/*/example-docs/*.ndjson              | records with a text    | jsonl      | text documents web
wild/*/filter_list.txt                    | plain text             | text       | text -
wild/*/currency.csv.txt                   | plain text             | text csv   | text - documents
wild/*/book-war-and-peace-1p.txt          | plain text             | text       | text books
wild/messy_folder/*.txt                   | plain text             | text       | text
wild/jsonl/*c4*                           | web text as JSONL      | jsonl      | web text
wild/jsonl/*-cc-*                         | web text as JSONL      | jsonl      | web text
wild/jsonl/*alpaca*                       | conversations as JSONL | jsonl      | conversations
wild/jsonl/*demo-dataset.jsonl            | conversations as JSONL | json       | conversations text
wild/jsonl/*                              | records with a text    | jsonl      | text
wild/parquet/fineweb*                     | web text as Parquet    | parquet    | web
wild/parquet/SmolLM2*                     | conversations as Parquet | parquet  | conversations
wild/parquet/*                            | table of other columns | parquet    | text documents -
Pygments/tests/support/empty.py           | empty file             | empty      | -
Pygments/*.py                             | code                   | text       | code
Pygments/tests/examplefiles/*.scala       | code                   | text       | code
Pygments/tests/examplefiles/*.rb          | code                   | text       | code
Pygments/tests/examplefiles/*.js          | code                   | text       | code
Pygments/tests/examplefiles/*.c           | code                   | text       | code
Pygments/tests/examplefiles/*.cpp         | code                   | text       | code
Pygments/doc/docs/authors.rst             | note                   | rst        | - documents
Pygments/doc/docs/changelog.rst           | note                   | rst        | - documents
Pygments/doc/docs/contributing.rst        | note                   | rst        | - documents
Pygments/doc/docs/index.rst               | note                   | rst        | - documents
Pygments/doc/docs/*.rst                   | reStructuredText       | rst        | documents
borgbackup/docs/man/*.1                   | manual page            | man        | documents
borgbackup/src/*.c                        | code                   | text       | code
borgbackup/src/*.pyx                      | code                   | text       | code
borgbackup/docs/usage/*.rst               | reStructuredText       | rst        | documents
python_docx/*.docx                        | Word                   | docx       | documents
python_docx/*.feature                     | code                   | text       | code text
python_pptx/*.pptx                        | PowerPoint             | pptx       | documents
python_pptx/*.png                         | image                  | image      | -
python_pptx/*.jpeg                        | image                  | image      | -
feedparser/tests/wellformed/rss/*.xml     | feed                   | feed       | web
feedparser/tests/wellformed/atom10/*.xml  | feed                   | feed       | web
nbconvert/*.ipynb                         | notebook               | notebook   | code
odfpy/*.docbook                           | DocBook                | docbook    | documents
dblatex/docs/params/syn/*                 | part of a stylesheet   | xml        | -
dblatex/docs/*.xml                        | DocBook                | docbook    | documents
dblatex/*.1                               | manual page            | man        | documents
epijats/tests/cases/ref_item/*.xml        | XML of another sort    | xml        | -
epijats/*/article.xml                     | JATS                   | jats       | documents
delb/tests/files/tei_gsa_390707.xml       | XML of another sort    | xml        | -
delb/tests/files/*empty.xml               | XML of another sort    | xml        | -
delb/tests/files/tei_*.xml                | TEI                    | tei        | documents
delb/tests/files/*TEI*.xml                | TEI                    | tei        | documents
delb/tests/files/*.xml                    | XML of another sort    | xml        | -
acdh_tei_pyutils/*.xml                    | TEI                    | tei        | documents
qutebrowser/README.asciidoc               | AsciiDoc               | asciidoc   | - documents
qutebrowser/doc/changelog.asciidoc        | AsciiDoc               | asciidoc   | - documents
qutebrowser/*.asciidoc                    | AsciiDoc               | asciidoc   | documents
qutebrowser/*.1                           | manual page            | man        | documents
qutebrowser/*.sqlite                      | SQLite                 | sqlite     | -
fido2/*.adoc                              | AsciiDoc               | asciidoc   | documents -
yubikey_manager/*.adoc                    | AsciiDoc               | asciidoc   | documents -
yubikey_manager/*.1                       | manual page            | man        | documents
yubihsm/*.adoc                            | AsciiDoc               | asciidoc   | documents -
asciidoc/doc/*.txt                        | AsciiDoc               | asciidoc   | documents
asciidoc/*/source-highlight-filter-test.txt | AsciiDoc             | asciidoc   | documents
asciidoc/asciidoc/resources/*.txt         | AsciiDoc without marks | text asciidoc | text documents
beets/man/*                               | manual page            | man        | documents
biopython/*.sql                           | code                   | text       | code
biopython/*.db                            | SQLite                 | sqlite     | - text
biopython/Doc/*.tex                       | LaTeX                  | latex      | documents
mysql-import/test/sample_dump_files/test4.sql | code               | text       | code
mysql-import/test/sample_dump_files/*.sql | SQL dump               | sql        | - text documents
odfpy/*.odt                               | OpenDocument text      | odt        | documents
odfpy/*.ods                               | OpenDocument spreadsheet | ods      | documents
odfpy/*.odp                               | OpenDocument presentation | odp     | documents
"""
PACKAGES = (
    *("Pygments==2.19.2", "borgbackup==1.4.1", "python_docx==1.1.2", "python_pptx==1.0.2"),
    *("feedparser==6.0.11", "nbconvert==7.16.4", "odfpy==1.4.1", "dblatex==0.3.10"),
    *("epijats==3.2.1", "delb==0.6.1", "acdh_tei_pyutils==2.4.0", "qutebrowser==3.7.0"),
    *("fido2==1.1.3", "yubikey_manager==5.7.0", "yubihsm==3.1.1", "asciidoc==10.2.1"),
    *("beets==2.3.1", "biopython==1.81", "npm:mysql-import==5.0.26"),
)


class Rule(NamedTuple):
    """Files and their label."""

    pattern: str
    sort: str
    formats: tuple[str, ...]
    kinds: tuple[str, ...]


class Answer(NamedTuple):
    """What was detected of a file, beside its label."""

    rule: Rule
    name: str
    format: str
    kind: str

    @property
    def is_right(self) -> tuple[bool, bool]:
        """Whether the format is right, and whether the kind is."""
        return self.format in self.rule.formats, self.kind in self.rule.kinds


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        unpack(Path(folder))
        answers = [*detected(data), *detected(Path(folder))]
    wrong = [answer for answer in answers if not all(answer.is_right)]
    for answer in wrong:
        print(f"  {answer.name}: {answer.format} {answer.kind}, label {answer.rule[1:]}")
    sorts = Counter(answer.rule.sort for answer in answers)
    right = [sum(answer.is_right[part] for answer in answers) for part in (0, 1)]
    figures: dict[str, object] = {"files": len(answers), "sorts": len(sorts)}
    figures |= {"format right": right[0] / len(answers), "kind right": right[1] / len(answers)}
    confusion = Counter(
        f"{answer.rule.sort}: taken for {answer.format}, {answer.kind}" for answer in wrong
    )
    figures |= dict(sorted(confusion.items(), key=lambda entry: (-entry[1], entry[0])))
    return {
        "what": " ".join((__doc__ or "").split()),
        "figures": figures,
        "files of each sort": dict(sorted(sorts.items())),
        "machine": machine(),
    }


def rules() -> list[Rule]:
    rows = [[cell.strip() for cell in line.split("|")] for line in LABELS.strip().split("\n")]
    return [Rule(row[0], row[1], tuple(row[2].split()), tuple(row[3].split())) for row in rows]


def detected(root: Path) -> Iterator[Answer]:
    """Yield the answer for a sample of the labeled files below a folder."""
    paths: dict[Rule, list[Path]] = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = path.relative_to(root).as_posix()
        rule = next((rule for rule in rules() if fnmatchcase(name, rule.pattern)), None)
        if rule is not None and not path.name.startswith("."):
            paths.setdefault(rule, []).append(path)
    for rule, same in paths.items():
        for path in spread(same):
            found = detect_kind(path, f"{path.parent.name}/{path.name}")
            name = path.relative_to(root).as_posix()
            yield Answer(rule, name, found.format, found.kind or "-")


def spread(paths: Sequence[Path]) -> Sequence[Path]:
    """Return at most EACH paths, evenly spread."""
    return paths[:: -(-len(paths) // EACH) or 1]


def unpack(folder: Path) -> None:
    """Unpack each package into the folder of its name."""
    for package in PACKAGES:
        name = package.removeprefix("npm:").partition("==")[0]
        with tarfile.open(fetch_archive(package, folder)) as archive:
            archive.extractall(folder / "packages", filter="data")
        (top,) = (folder / "packages").iterdir()
        top.rename(folder / name)


def fetch_archive(package: str, folder: Path) -> Path:
    """Return the archive of a package, of PyPI unless it begins with `npm:`."""
    if not package.startswith("npm:"):
        return Path(fetch(f"pypi:{package}"))
    name = package.removeprefix("npm:").replace("==", "@")
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), name]
    made = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return folder / made.split()[-1]
