"""Small raw files of all five kinds, made from real text that every Python carries: its language
reference and library.
"""

import bz2
import html
import json
import shutil
import sysconfig
from pathlib import Path
from pydoc_data.topics import topics
from xml.sax.saxutils import escape

# Four parts without a text in common: what stands in two kinds would be a leak, and verify would
# find it.
TEXTS = [sorted(topics.items())[part::4] for part in range(4)]


def paragraphs(text: str) -> list[str]:
    return [part for part in text.split("\n\n") if part.strip()]


def write_books(folder: Path, count: int = 10) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        chosen = TEXTS[0][number::count]
        body = "\n\n\n".join(text for _, text in chosen)
        head = (
            f"The Project Gutenberg EBook of Reference {number}\n\nTitle: Reference"
            f" {number}\n\nAuthor: Nobody {number}\n\n"
        )
        marked = (
            f"{head}*** START OF THIS PROJECT GUTENBERG EBOOK REFERENCE {number} ***\n\n{body}\n\n"
        )
        marked += f"*** END OF THIS PROJECT GUTENBERG EBOOK REFERENCE {number} ***\nlicence text\n"
        (folder / f"book{number:02}.txt").write_text(
            marked.replace("\n", "\r\n"), encoding="utf-8", newline=""
        )


def write_wikipedia(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pages = []
    for number, (title, text) in enumerate(TEXTS[1]):
        wikitext = (
            f"{{{{Infobox|name={title}}}}}\n'''{title}''' is a"
            f" [[topic|subject]].<ref>none</ref>\n\n== About ==\n{text}\n"
        )
        pages.append(page(title, number + 1, wikitext))
    pages.append(page("Old name", 9_000, "#REDIRECT [[if]]", redirect='<redirect title="if" />'))
    pages.append(page("Talk:if", 9_001, "talk", namespace=1))
    xml = (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" version="0.10"'
        f' xml:lang="en">{"".join(pages)}</mediawiki>'
    )
    path.write_bytes(bz2.compress(xml.encode()))


def page(title: str, number: int, text: str, redirect: str = "", namespace: int = 0) -> str:
    return (
        f"<page><title>{escape(title)}</title><ns>{namespace}</ns><id>{number}</id>{redirect}<revision><id>{number}</id>"
        f"<model>wikitext</model><format>text/x-wiki</format><text>{escape(text)}</text></revision></page>\n"
    )


def write_web(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number, (title, text) in enumerate(TEXTS[2]):
        body = "".join(f"<p>{html.escape(part)}</p>" for part in paragraphs(text))
        canonical = f'<link rel="canonical" href="https://host{number % 15}.example/{number}">'
        nav = "<nav><a href='/'>Home</a> <a href='/about'>About</a></nav>"
        markup = (
            "<!doctype html><html lang=en><head><meta"
            f" charset=utf-8><title>{title}</title>{canonical}</head>"
        )
        (folder / f"{number:02}.html").write_text(
            f"{markup}<body>{nav}<article><h1>{title}</h1>{body}</article></body></html>"
        )


def write_code(
    folder: Path,
    packages: tuple[str, ...] = ("json", "email", "logging", "html", "wsgiref", "tomllib"),
) -> None:
    library = Path(sysconfig.get_paths()["stdlib"])
    for name in packages:
        shutil.copytree(
            library / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
        )


def write_conversations(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for title, text in TEXTS[3]:
            for part in paragraphs(text):
                answer = " ".join(part.split())
                turns = [
                    {"role": "user", "content": f"What should I know about {title}?"},
                    {"role": "assistant", "content": answer},
                ]
                file.write(json.dumps({"messages": turns}) + "\n")
        file.write('{"messages": [{"role": "user", "con\n')


def write_raw(folder: Path) -> Path:
    """Write all five kinds below `folder` and return it."""
    write_books(folder / "books")
    write_wikipedia(folder / "wikipedia" / "enwiki-pages-articles.xml.bz2")
    write_web(folder / "web")
    write_code(folder / "code")
    write_conversations(folder / "talk" / "talk.jsonl")
    return folder


RECIPE = """
name = "tiny"
seed = 1

[[source]]
name = "books"
kind = "books"
path = "raw/books/*.txt"

[[source]]
name = "wikipedia"
kind = "wikipedia"
path = "raw/wikipedia/*.bz2"

[[source]]
name = "web"
kind = "web"
path = "raw/web"

[[source]]
name = "code"
kind = "code"
path = "raw/code"
license = "PSF-2.0"

[[source]]
name = "talk"
kind = "conversations"
path = "raw/talk/talk.jsonl"

[tokenize]
vocab_size = 512

[model]
preset = "tiny"
context = 64

[train]
steps = 6
batch_tokens = 512
warmup_steps = 2
checkpoint_every = 3
validate_every = 3
validation_tokens = 2048
micro_batch = 8
precision = "fp32"
compile = "off"
threads = 1

[evaluate]
passages = 8
sample_tokens = 12

[tune]
method = "sft"
epochs = 1
batch_tokens = 1024
answer_tokens = 4
"""


def write_project(folder: Path) -> Path:
    """Write raw files and a recipe for them; return the recipe."""
    write_raw(folder / "raw")
    (folder / "runs").mkdir()
    (folder / "tiny.toml").write_text(RECIPE)
    return folder / "tiny.toml"
