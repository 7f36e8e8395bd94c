"""A local S3 bucket, and a Hugging Face Hub, with the routes that groundup needs."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.helpers.sites import Reply, Seen, Site


def ranged(body: bytes, seen: Seen, tag: str, cut: int | None = None) -> Reply:
    """Answer with a file, or the requested range if its ETag is the same; cut after `cut` bytes."""
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", seen.headers.get("range", ""))
    same = seen.headers.get("if-range", tag) == tag
    headers = {
        "ETag": tag,
        "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT",
        "Content-Type": "application/octet-stream",
    }
    if not asked or not same:
        return Reply(body if cut is None else body[:cut], headers=headers, length=len(body))
    start, end = int(asked[1]), min(int(asked[2] or len(body) - 1), len(body) - 1)
    if start >= len(body):
        return Reply(status=416)
    part = body[start : end + 1]
    headers["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
    return Reply(part if cut is None else part[:cut], 206, headers, length=len(part))


@dataclass
class Bucket:
    """A bucket; `key` restricts it to requests signed with that key."""

    site: Site
    objects: dict[str, bytes] = field(default_factory=dict)
    key: str = ""
    changed: dict[str, int] = field(default_factory=dict)

    def answer(self, seen: Seen) -> Reply:
        """Answer a request, as far as reading needs it."""
        parts = urlsplit(seen.path)
        if self.key not in seen.headers.get("authorization", "").partition("/")[0]:
            return self._error(403, "AccessDenied")
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        if bucket != "books":
            return self._error(404, "NoSuchBucket")
        if not key:
            return self._listed(parse_qs(parts.query).get("prefix", [""])[0])
        if key not in self.objects:
            return self._error(404, "NoSuchKey")
        return ranged(self.objects[key], seen, f'"{hashlib.md5(self.objects[key]).hexdigest()}"')

    def _listed(self, prefix: str) -> Reply:
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key])}</Size>"
            f"<LastModified>2024-01-01T00:00:{self.changed.get(key, 0):02}.000Z</LastModified>"
            "</Contents>"
            for key in sorted(self.objects)
            if key.startswith(prefix)
        )
        space = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
        return self._xml(
            200,
            f"<ListBucketResult {space}><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>",
        )

    def _error(self, status: int, code: str) -> Reply:
        return self._xml(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>")

    def _xml(self, status: int, body: str) -> Reply:
        return Reply(
            f'<?xml version="1.0" encoding="UTF-8"?>{body}'.encode(),
            status,
            {"Content-Type": "application/xml"},
        )


@dataclass
class Hub:
    """A Hub with one dataset, me/texts: commit → files; `token` restricts access."""

    site: Site
    commits: dict[str, dict[str, bytes]]
    head: str
    token: str = ""
    # In place of the bytes of files in git's large storage.
    elsewhere: Callable[[str], Reply] | None = None

    def answer(self, seen: Seen) -> Reply:
        """Answer a request, as far as reading needs it."""
        if self.token and seen.headers.get("authorization") != f"Bearer {self.token}":
            return Reply(status=401, headers={"X-Error-Code": "RepoNotFound"})
        path = unquote(urlsplit(seen.path).path)
        if match := re.fullmatch(r"/api/datasets/me/texts/revision/([^/]+)", path):
            commit = self.head if match[1] == "main" else match[1]
            return (
                self._json({"id": "me/texts", "sha": commit})
                if commit in self.commits
                else self._missing("RevisionNotFound")
            )
        if match := re.fullmatch(r"/api/datasets/me/texts/tree/([^/]+)", path):
            return self._json(
                [self._entry(name, data) for name, data in self.commits[match[1]].items()]
            )
        if match := re.fullmatch(r"/datasets/me/texts/resolve/([^/]+)/(.+)", path):
            data = self.commits[match[1]][match[2]]
            return (
                self.elsewhere(match[2])
                if self.elsewhere
                else ranged(data, seen, f'"{hashlib.sha1(data).hexdigest()}"')
            )
        return self._missing("RepoNotFound")

    def _entry(self, name: str, data: bytes) -> dict[str, object]:
        entry: dict[str, object] = {
            "type": "file",
            "path": name,
            "size": len(data),
            "oid": hashlib.sha1(data).hexdigest(),
        }
        large = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry | ({"lfs": large} if name.endswith(".gz") else {})

    def _json(self, value: object, status: int = 200) -> Reply:
        return Reply(json.dumps(value).encode(), status, {"Content-Type": "application/json"})

    def _missing(self, code: str) -> Reply:
        return Reply(status=404, headers={"X-Error-Code": code, "X-Error-Message": code})


@dataclass
class WritableHub(Hub):
    """A Hub that takes the data set me/texts from whoever has `token`: by git's large storage.

    `refused` is the status of every upload from then on, such as 403.
    """

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    head: str = ""
    stored: dict[str, bytes] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    refused: int = 0

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.head]

    def answer(self, seen: Seen) -> Reply:
        """Answer a request, as far as reading and uploading need it."""
        if seen.headers.get("authorization") != f"Bearer {self.token}" and seen.method != "PUT":
            return Reply(status=401)
        path = urlsplit(seen.path).path
        if path == "/api/whoami-v2":
            return self._json({"name": "me"})
        if seen.method == "GET":
            return super().answer(
                Seen(**vars(seen) | {"path": path.replace("/main", f"/{self.head}")})
            )
        if self.refused:
            return Reply(status=self.refused)
        if seen.method == "PUT":
            self.stored[path.rpartition("/")[2]] = seen.body
            return Reply()
        return self._post(path.rpartition("/")[2], path, seen.body)

    def _post(self, last: str, path: str, body: bytes) -> Reply:
        if last == "create":
            if self.head:
                return self._json({"url": "/datasets/me/texts"}, 409)
            self.settings, self.head = json.loads(body), "0" * 40
            self.commits[self.head] = {".gitattributes": b""}
            return self._json({"url": f"http://127.0.0.1:{self.site.port}/datasets/me/texts"})
        if last == "validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if "/preupload/" in path:
            names = [entry["path"] for entry in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(".parquet") else "regular" for name in names}
            entries = [{"path": n, "uploadMode": modes[n], "shouldIgnore": False} for n in names]
            return self._json({"files": entries})
        if last == "batch":
            return self._json({"objects": [self._place(e) for e in json.loads(body)["objects"]]})
        return self._commit([json.loads(line) for line in body.splitlines()])

    def _place(self, entry: dict[str, object]) -> dict[str, object]:
        if entry["oid"] in self.stored:
            return entry
        upload = {"href": f"http://127.0.0.1:{self.site.port}/large/{entry['oid']}"}
        return entry | {"actions": {"upload": upload}}

    def _commit(self, operations: list[dict[str, Any]]) -> Reply:
        files = dict(self.files)
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.stored[value["oid"]]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
        self.head = f"{len(self.commits):040}"
        self.commits[self.head] = files
        url = f"http://127.0.0.1:{self.site.port}/datasets/me/texts/commit/{self.head}"
        return self._json({"commitUrl": url, "commitOid": self.head, "success": True})
