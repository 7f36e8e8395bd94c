"""Who is who in an export of chats: a file of names, beside messages that only carry ids.

    users.json   [{"id": "U12", "profile": {"real_name": "Ann Example"}}, …]         Slack
    realm.json   {"zerver_userprofile": [{"id": 12, "full_name": "Ann Example"}]}    Zulip

It lies in the folder of the export, above or beside the files of the channels. With it, a name that
somebody types and the id of who bears it are one person, in every channel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from groundup.collect.files.streams import MAX_RECORD

PEOPLE_FILES = ("users.json", "realm.json")
People = Mapping[str, str]  # id → name
NOBODY: People = {}


def is_people_file(origin: str) -> bool:
    """Whether a file has the name of one that tells who is who."""
    return origin.rpartition("/")[2] in PEOPLE_FILES


def read_people(data: bytes) -> dict[str, str]:
    """Return id → name of the people in a file; nothing of one that cannot be read."""
    try:
        value = orjson.loads(data)
    except ValueError:
        return {}
    users = value.get("zerver_userprofile") if isinstance(value, dict) else value
    people = {}
    for user in users if isinstance(users, list) else []:
        id, name = _person(user) if isinstance(user, dict) else ("", "")
        if id and name:
            people[id] = name
    return people


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
            people[origin.rpartition("/")[0]] = read_people(path.read_bytes())
    return {folder: known for folder, known in people.items() if known}


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
