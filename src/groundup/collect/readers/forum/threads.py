"""Posts of a forum, in any order, joined to threads in bounded memory.

Answers come long after their questions, and a dump may hold a hundred gigabytes of them. Posts that
do not fit into memory are written to temporary files by a hash of their thread, and each file is
joined as the whole was. So all posts of a thread are in one file.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any

import orjson

# Bytes of posts in memory. Beyond it they are divided into PARTS files, and these again; the last
# level holds threads that are too long by themselves.
MAX_HELD = 128 << 20
PARTS, MAX_LEVEL = 64, 3
_POST_BYTES = 400  # what an object of Python takes beside its texts


@dataclass(frozen=True, slots=True)
class Post:
    """One post of a thread, or a record that is none, with the reason."""

    thread: str
    record: int  # its number in the file
    body: str = ""
    author: str = ""
    title: str = ""  # of the post that opens the thread
    place: int = 0  # number in its thread, 0 for the one that opens it
    score: int = 0
    key: str = ""
    accepted: str = ""  # of a question, the key of its best answer
    license: str = ""
    reason: str = ""  # why it is no post
    detail: str = ""

    @property
    def size(self) -> int:
        """About how many bytes of memory it takes."""
        return _POST_BYTES + 2 * len(self.body) + 2 * len(self.title)


# Its values in order. `dataclasses.astuple` copies each of them.
post_row = attrgetter(*(field.name for field in fields(Post)))


def join_threads(posts: Iterator[Post], level: int = 0) -> Iterator[list[Post]]:
    """Yield the posts of each thread, in the order of their records.

    A post of a thread longer than MAX_HELD comes alone, without its body, as `too-large`.
    """
    threads: dict[str, list[Post]] = {}
    size = 0
    for post in posts:
        size += post.size
        if size <= MAX_HELD:
            threads.setdefault(post.thread, []).append(post)
        elif level < MAX_LEVEL:
            yield from _join_divided(itertools.chain(_drain(threads), [post], posts), level)
            return
        else:
            detail = f"the posts of its thread take more than {MAX_HELD >> 20} MB of memory"
            yield [replace(post, body="", reason="too-large", detail=detail)]
    yield from threads.values()


def _drain(threads: dict[str, list[Post]]) -> Iterator[Post]:
    for name in list(threads):
        yield from threads.pop(name)


def _join_divided(posts: Iterator[Post], level: int) -> Iterator[list[Post]]:
    """Write posts to PARTS files by their thread, then join each file."""
    with ExitStack() as stack:
        files = [stack.enter_context(PackedRows()) for _ in range(PARTS)]
        for post in posts:
            # Each level divides by another hash.
            key = f"{level} {post.thread}".encode("utf-8", "surrogatepass")
            part = int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "big") % PARTS
            files[part].add(post_row(post))
        for file in files:
            yield from join_threads((Post(*row) for row in file.rows()), level + 1)


class PackedRows:
    """A temporary file of rows of plain values, packed."""

    def __init__(self) -> None:
        # `__exit__` closes it.
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._packed = gzip.GzipFile(fileobj=self._file, mode="wb", compresslevel=1)

    def __enter__(self) -> PackedRows:
        return self

    def __exit__(self, *_: object) -> None:
        self._packed.close()
        self._file.close()

    def add(self, row: Sequence[Any]) -> None:
        """Append a row."""
        self._packed.write(orjson.dumps(row) + b"\n")

    def rows(self) -> Iterator[list[Any]]:
        """Yield the rows in the order in which they were added; none can be added after."""
        self._packed.close()
        self._file.seek(0)
        with gzip.GzipFile(fileobj=self._file) as lines:
            yield from map(orjson.loads, lines)
