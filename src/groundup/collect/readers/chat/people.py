"""Who is who in an export of chats: a file of names, beside messages that only carry ids.

    users.json   [{"id": "U12", "profile": {"real_name": "Ann Example"}}, …]         Slack
    realm.json   {"zerver_userprofile": [{"id": 12, "full_name": "Ann Example"}]}    Zulip
    users.json   {"u": [{"id": "U12", …}]}, and more such lines                      slackdump

It lies in the folder of the export, above or beside the files of the channels, maybe compressed
(`users.json.gz`). With it, a name that
somebody types and the id of who bears it are one person, in every channel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from groundup.collect.files.archives import open_items
from groundup.collect.files.globs import COMPRESSED, Selection
from groundup.collect.files.streams import MAX_RECORD, DamagedError, Item, read_all

PEOPLE_FILES = ("users.json", "realm.json")
People = Mapping[str, str]  # id → name
NOBODY: People = {}


def is_people_file(origin: str) -> bool:
    """Whether a file has the name of one that tells who is who."""
    name = origin.rpartition("/")[2]
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return name in PEOPLE_FILES


def read_people(data: bytes) -> dict[str, str]:
    """Return id → name of the people in a file; nothing of one that cannot be read."""
    people = {}
    for value in _values(data):
        is_wrapped = isinstance(value, dict)
        users = (value.get("zerver_userprofile") or value.get("u")) if is_wrapped else value
        for user in users if isinstance(users, list) else []:
            id, name = _person(user) if isinstance(user, dict) else ("", "")
            if id and name:
                people[id] = name
    return people


def _values(data: bytes) -> Iterator[Any]:
    """Yield the value of a JSON file, or those of its lines."""
    with suppress(ValueError):
        yield orjson.loads(data)
        return
    with suppress(ValueError):
        yield from map(orjson.loads, filter(bytes.strip, data.splitlines()))


def _person(user: Mapping[str, Any]) -> tuple[str, str]:
    profile = user.get("profile")
    around = profile if isinstance(profile, dict) else {}
    names = (around.get("display_name"), around.get("real_name"), user.get("full_name"))
    name = next((it for it in names if isinstance(it, str) and it), "")
    return str(user.get("id") or ""), name


def folder_people(files: Mapping[str, Path]) -> dict[str, People]:
    """Return the people by folder, of files (path in the source → path on disk)."""
    people = {}
    for origin, path in files.items():
        if is_people_file(origin) and path.stat().st_size <= MAX_RECORD:
            people[origin.rpartition("/")[0]] = _file_people(path, origin)
    return {folder: known for folder, known in people.items() if known}


def _file_people(path: Path, origin: str) -> People:
    with path.open("rb") as file, suppress(DamagedError):
        for item in open_items(path, file, origin, path.stat().st_size, Selection()):
            if isinstance(item, Item):
                return read_people(read_all(item.stream, MAX_RECORD))
    return NOBODY


def nearest_people(origin: str, by_folder: Mapping[str, People]) -> People:
    """Return the people of the nearest folder above a file, or archive, that tells of any."""
    folder = origin
    while folder and by_folder:
        folder = folder.rpartition("/")[0]
        if folder in by_folder:
            return by_folder[folder]
    return NOBODY


def people_digest(by_folder: Mapping[str, People]) -> str:
    """Return what stands for people in the key of a shard, which holds no names."""
    data = orjson.dumps(by_folder, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(data).hexdigest()
