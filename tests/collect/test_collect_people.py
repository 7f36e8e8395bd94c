"""Exports of chats whose messages carry ids only, with the names in a file beside them."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from groundup.collect import stage
from groundup.collect.readers.chat.people import nearest_people, read_people
from groundup.collect.readers.speakers import pseudonym
from groundup.recipe import Recipe, Source
from groundup.runtime.run import Run
from groundup.runtime.workers.map import Workers


def _collected(project: Path, source: Source) -> list[str]:
    pool = Workers(1)
    run = Run(project / "run", Recipe(source=(source,), root=project), pool)
    run.root.mkdir(exist_ok=True)
    try:
        stage.run(run)
    finally:
        pool.close()
    paths = sorted((run.root / "collect" / "documents").glob("*.parquet"))
    return sorted(text for path in paths for text in pq.read_table(path)["text"].to_pylist())


@pytest.mark.parametrize("packed", ["", "zip", "gz"])
def test_people_of_an_export_of_chats_have_names_in_all_its_channels(
    tmp_path: Path, packed: str
) -> None:
    """Messages carry ids only; who bears them stands in a file beside, which decides the shard."""
    export = tmp_path / "export"
    files = {
        "messages-1.json": {"zerver_message": [_zulip(7, "Ask @**Bo Other**.", stream=1)]},
        "messages-2.json": {"zerver_message": [_zulip(8, "Who asks?", stream=2)]},
        "realm.json": {"zerver_userprofile": _people("Ann Example", "Bo Other")},
    }

    def texts(**options: Any) -> list[str]:
        shutil.rmtree(export, ignore_errors=True)
        export.mkdir()
        for name, value in files.items():
            data = json.dumps(value).encode()
            if packed == "gz":
                (export / f"{name}.gz").write_bytes(gzip.compress(data))
            else:
                (export / name).write_bytes(data)
        if packed == "zip":
            shutil.make_archive(str(export / "export"), "zip", export, ".")
            for name in files:
                (export / name).unlink()
        return _collected(tmp_path, Source(path="export", kind="chat", **options))

    ann, bo = pseudonym("7"), pseudonym("8")
    assert texts() == sorted([f"{ann}: Ask @{bo}.", f"{bo}: Who asks?"])
    assert texts(speakers="names") == ["Ann Example: Ask @Bo Other.", "Bo Other: Who asks?"]
    files["realm.json"] = {"zerver_userprofile": _people("Ann New", "Bo Other")}
    assert texts(speakers="names")[0] == "Ann New: Ask @Bo Other."


def _zulip(sender: int, content: str, stream: int) -> dict[str, object]:
    message = {"sender": sender, "content": content, "date_sent": 1.6e9, "recipient": stream}
    return message | {"subject": "t", "rendered_content": None}


def _people(*names: str) -> list[dict[str, object]]:
    return [{"id": id, "full_name": name} for id, name in enumerate(names, 7)]


def test_names_are_read_as_slack_and_zulip_write_them() -> None:
    users = [
        {"id": "U1", "profile": {"real_name": "Ann", "display_name": ""}},
        {"id": "U2", "profile": {}},
        "damage",
    ]
    assert read_people(json.dumps(users).encode()) == {"U1": "Ann"}
    assert read_people(b'{"zerver_userprofile": [{"id": 7, "full_name": "Bo"}]}') == {"7": "Bo"}
    lines = b"\n".join(json.dumps({"t": 3, "u": [user]}).encode() for user in users)
    assert read_people(lines) == {"U1": "Ann"}
    assert read_people(b"[") == read_people(b"3") == {}


def test_the_nearest_folder_tells_who_is_who() -> None:
    people = {"a": {"1": "Ann"}, "a/b.zip!": {"1": "Bo"}}
    assert nearest_people("a/b.zip!/general/1.json", people) == {"1": "Bo"}
    assert nearest_people("a/general/1.json", people) == {"1": "Ann"}
    assert nearest_people("c/1.json", people) == {}
