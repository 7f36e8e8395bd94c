"""One shard: rows are aligned, every document is kept or listed, and output is stable."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from groundup.artifacts.arrays import text_buffers
from groundup.refine.dedup.lsh_index import WIDTH, document_keys
from groundup.refine.out_of_core import format_ids
from groundup.refine.shard import refine_shard

Row = dict[str, object]
Write = Callable[[Path, Sequence[Row]], Path]

ENGLISH = (
    "The quick brown fox jumps over the lazy dog and runs to the river with all of its friends."
    " When night came they sat around a small fire, told each other old tales of distant mountains,"
    " and slept until morning light woke them again. "
)


def some_rows(row: Callable[..., Row]) -> list[Row]:
    texts = [
        ENGLISH + f"Story number {n} begins here.  It ends at http://x.org/{n} soon."
        for n in range(40)
    ]
    texts[3], texts[5], texts[8] = (
        " \u200b\n",
        "too short",
        "Das ist ein Satz auf Deutsch, der hier nicht gewollt ist. ",
    )
    return [row(text, number) for number, text in enumerate(texts)]


def test_rows_are_aligned(tmp_path: Path, row: Callable[..., Row], collected: Write) -> None:
    """Index, ids, hashes and sizes match documents.parquet; each input appears once."""
    rows = some_rows(row)
    (out := tmp_path / "out").mkdir()
    facts = refine_shard(
        out, collected(tmp_path / "in", rows), "text", ["en"], ["gopher"], tmp_path
    )
    documents, dropped = (
        pq.read_table(out / "documents.parquet"),
        pq.read_table(out / "dropped.parquet"),
    )
    assert sorted(documents["id"].to_pylist() + dropped["id"].to_pylist()) == sorted(
        str(r["id"]) for r in rows
    )
    assert dict(zip(dropped["record"].to_pylist(), dropped["reason"].to_pylist(), strict=True)) == {
        3: "empty",
        5: "few_words",
        8: "language",
    }
    assert facts["dropped"] == {"empty": 1, "few_words": 1, "language": 1}
    texts = documents["text"].to_pylist()
    assert np.load(out / "sizes.npy").tolist() == [len(text.encode()) for text in texts]
    assert format_ids(np.load(out / "ids.npy")).to_pylist() == documents["id"].to_pylist()
    keys = document_keys(text_buffers(documents["text"].combine_chunks()))[0].T
    assert (np.load(out / "keys.npy") == np.sort(keys)).all()
    assert (
        np.load(out / "keys.npy")
        == np.take_along_axis(keys, np.load(out / "rows.npy").astype(int), 1)
    ).all()
    folded = [" ".join(unicodedata.normalize("NFC", text).split()) for text in texts]
    assert [h.tobytes() for h in np.load(out / "hashes.npy")] == [
        hashlib.md5(text.encode()).digest() for text in folded
    ]
    assert facts["documents"] == len(texts)
    assert facts["bytes_out"] == sum(len(text.encode()) for text in texts)
    assert set(documents["language"].to_pylist()) == {"en"}
    assert sorted(path.name for path in out.iterdir()) == [
        "bins.npy",
        "documents.parquet",
        "dropped.parquet",
        "hashes.npy",
        "ids.npy",
        "keys.npy",
        "line_rows.npy",
        "lines.npy",
        "quality.json",
        "rows.npy",
        "sizes.npy",
    ]


def test_row_groups_do_not_matter(
    tmp_path: Path, row: Callable[..., Row], collected: Write
) -> None:
    """The output does not depend on the row groups of the input."""
    rows = some_rows(row)
    source = collected(tmp_path / "one", rows)
    (tmp_path / "many").mkdir()
    pq.write_table(
        pq.read_table(source / "documents.parquet"),
        tmp_path / "many" / "documents.parquet",
        row_group_size=7,
    )
    tables = []
    for name in ("one", "many"):
        (out := tmp_path / f"out-{name}").mkdir()
        refine_shard(out, tmp_path / name, "text", [], ["gopher"], tmp_path)
        tables.append(
            (
                pq.read_table(out / "documents.parquet"),
                np.load(out / "keys.npy").tobytes(),
                np.load(out / "rows.npy").tobytes(),
            )
        )
    assert tables[0] == tables[1]


def test_empty_shard(tmp_path: Path, collected: Write) -> None:
    """A shard without documents gives empty files of the right shapes."""
    (out := tmp_path / "out").mkdir()
    refine_shard(out, collected(tmp_path / "in", []), "web", ["en"], ["gopher", "c4"], tmp_path)
    assert np.load(out / "keys.npy").shape == np.load(out / "rows.npy").shape == (WIDTH, 0)
    assert np.load(out / "hashes.npy").shape == (0, 16)
    assert pq.read_table(out / "documents.parquet").num_rows == 0


def test_golden(tmp_path: Path, row: Callable[..., Row], collected: Write) -> None:
    """Changed output needs a raised version. Renew the digest only together with it."""
    hard = [
        "Ünïcode — “quotes” and 中文 混ざった text. " * 4,
        "x\r\n\r\n\r\n\r\ny  z\u00a0é e\u0301 caf&eacute; schÃ¶n a@b.org " + ENGLISH,
    ]
    rows = some_rows(row) + [row(text, 100 + n) for n, text in enumerate(hard)]
    (out := tmp_path / "out").mkdir()
    facts = refine_shard(out, collected(tmp_path / "in", rows), "text", [], ["gopher"], tmp_path)
    digest = hashlib.sha256()
    documents = pq.read_table(out / "documents.parquet", columns=["id", "text", "language"])
    digest.update(repr(documents.to_pylist()).encode())
    digest.update(repr(pq.read_table(out / "dropped.parquet").to_pylist()).encode())
    for name in ("keys", "rows", "ids", "hashes", "sizes", "bins", "lines", "line_rows"):
        digest.update(np.load(out / f"{name}.npy").tobytes())
    digest.update((out / "quality.json").read_bytes())
    assert (refine_shard.version, digest.hexdigest()[:16]) == (14, "75b9735dd11f4a74"), Counter(
        facts["dropped"]
    )


def test_conversation(tmp_path: Path, row: Callable[..., Row], collected: Write) -> None:
    """Turns are cleaned like the text rendered from them."""
    turns = [
        {"role": "user", "content": "Write to me@site.org  please, will you?"},
        {"role": "assistant", "content": "Of course I will do that."},
    ]
    text = "User: Write to me@site.org  please, will you?\nAssistant: Of course I will do that."
    (out := tmp_path / "out").mkdir()
    refine_shard(
        out,
        collected(tmp_path / "in", [row(text, 0, "conversations", turns=turns)]),
        "conversations",
        [],
        ["conversations"],
        tmp_path,
    )
    kept = pq.read_table(out / "documents.parquet").to_pylist()[0]
    assert kept["text"] == "User: Write to please, will you?\nAssistant: Of course I will do that."
    assert [turn["content"] for turn in kept["turns"]] == [
        "Write to please, will you?",
        "Of course I will do that.",
    ]
