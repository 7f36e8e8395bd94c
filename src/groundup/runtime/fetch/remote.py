"""Stores of many files: S3 buckets and datasets of the Hugging Face Hub.

    s3://BUCKET/PATH                          Bucket, through pyarrow's S3 client
    hf://datasets/OWNER/NAME[@REVISION]/PATH  HubDataset, listed through huggingface_hub

pyarrow is installed anyway, while s3fs would bring aiobotocore, botocore and aiohttp. Files of the
Hub are downloaded by our own code, because it resumes, checks the SHA-256 that the Hub keeps of
large files, and follows no redirect to a private address.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from groundup.errors import SourceError, one_line
from groundup.runtime.fetch.download import (
    ByteRange,
    PartialFile,
    add_to_cache,
    cache_root,
    cached,
    download,
    download_ranges,
    filename_of,
)
from groundup.runtime.fetch.https import Access, RetryableError
from groundup.runtime.fetch.hub import hub_api, hub_endpoint, hub_error
from groundup.runtime.files import read_json, write_json
from groundup.runtime.progress import Progress, progress, say
from groundup.runtime.workers.map import map_threads

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem

REMOTE_SCHEMES = ("s3://", "hf://")
# Enough to hide the latency of small files; large ones fill the line alone.
PARALLEL_DOWNLOADS = 8
_S3_CHUNK = 4 << 20
# Any of these, or a file of credentials, identifies the user to S3.
_S3_IDENTITY = (
    *("AWS_ACCESS_KEY_ID", "AWS_PROFILE"),
    *("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
)
_S3_CREDENTIALS = ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
_S3_CONFIG = ("AWS_CONFIG_FILE", "~/.aws/config")
_NO_FILE = "there is no such file or folder; correct the path in the recipe"
_S3_ERRORS = {
    "ACCESS_DENIED": "it may not be read; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"
    " AWS_PROFILE",
    "NO_SUCH_BUCKET": "there is no such bucket; correct the path in the recipe",
}


@dataclass(frozen=True, slots=True, order=True)
class RemoteFile:
    """A file in a store."""

    path: str  # in the store
    size: int  # in bytes
    stamp: str  # changes with the content
    sha256: str = ""  # "" where the store does not give it


def open_remote(path: str) -> tuple[RemoteStore, str]:
    """Return the store that a path names, and the path in it; SourceError if there is none."""
    if path.startswith("s3://"):
        match = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?", path, re.DOTALL)
        # A strict bucket name also keeps a recipe from naming a host.
        if match is None or ".." in match[1]:
            form = "s3://BUCKET/PATH, with the bucket in small letters, digits, dots and hyphens"
            raise SourceError(f"{path}: expected {form}")
        return Bucket(match[1]), match[2] or ""
    pattern = r"hf://datasets/([\w.-]+/[\w.-]+)(?:@([\w.%~-]+))?(?:/(.*))?"
    match = re.fullmatch(pattern, path, re.DOTALL)
    if match is None or ".." in match[1]:
        raise SourceError(f"{path}: expected hf://datasets/OWNER/NAME/PATH, or OWNER/NAME@REVISION")
    name, commit = match[1], unquote(match[2] or "main")
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        # The commit that a branch, tag or commit prefix names now.
        try:
            commit = str(hub_api().repo_info(name, revision=commit, repo_type="dataset").sha)
        except Exception as error:
            raise hub_error(f"hf://datasets/{name}@{commit}", error) from None
    return HubDataset(name, commit), match[3] or ""


def not_cached(store: RemoteStore, files: Iterable[RemoteFile]) -> list[RemoteFile]:
    """Return the files that are not in the cache."""
    return [file for file in files if cached(_cache_name(store, file), file.sha256) is None]


def _cache_name(store: RemoteStore, file: RemoteFile) -> str:
    return f"{store.address}/{file.path}#{file.stamp}"


def fetch_all(store: RemoteStore, files: Sequence[RemoteFile], source: str) -> list[Path]:
    """Return the paths of files in the cache, in order, after fetching those that are missing."""
    missing = not_cached(store, files)
    size, stop = sum(file.size for file in missing), threading.Event()
    if missing:
        what = f"{len(missing):,} files, {size / 1e6:,.1f} MB"
        say(f'source "{source}": fetching {what}, from {store.address}')

    def fetch_one(file: RemoteFile) -> Path:
        name, where = _cache_name(store, file), f"{store.address}/{file.path}"

        def write(partial: PartialFile) -> None:
            store.download(file, replace(partial, stop=stop), bar)

        path = cached(name, file.sha256)
        return path or add_to_cache(name, filename_of(file.path), file.sha256, write, where)

    with progress(f"fetching {source}", size, "B") as bar:
        return map_threads(fetch_one, files, PARALLEL_DOWNLOADS, stop.set)


class Bucket:
    """A bucket of S3 or a store that speaks its protocol, with the identity of the environment.

    The environment also names the endpoint: AWS_ENDPOINT_URL, AWS_REGION, AWS_PROFILE and so on.
    """

    def __init__(self, name: str) -> None:
        self.name, self.address = name, f"s3://{name}"
        self._system: S3FileSystem | None = None

    def list_files(self, folder: str) -> list[RemoteFile]:
        """Return the object `folder`, or all below it; size and modification time are the stamp."""
        from pyarrow.fs import FileSelector, FileType

        path = f"{self.name}/{folder}".rstrip("/")
        infos = [self._call("get_file_info", path, folder)]
        if infos[0].type != FileType.File:
            infos = self._call("get_file_info", FileSelector(path, recursive=True), folder)
        # Some tools make folders as empty objects whose name ends in a slash.
        infos = [info for info in infos if info.type == FileType.File]
        start = len(f"{self.name}/")
        return [RemoteFile(i.path[start:], i.size, f"{i.size}-{i.mtime_ns}") for i in infos]

    def download(self, file: RemoteFile, partial: PartialFile, bar: Progress) -> None:
        """Download an object, continuing a partial one while its ETag is the same."""
        where = f"{self.address}/{file.path}"

        def read_parts(stream: Any) -> Iterator[bytes]:
            try:
                while part := stream.read(_S3_CHUNK):
                    yield part
            except OSError as error:
                why = f"cannot be read further: {_s3_reason(error)}"
                raise RetryableError(f"{where}: {why}; run again") from None

        @contextmanager
        def open_range(offset: int, validator: str) -> Iterator[ByteRange]:
            path = f"{self.name}/{file.path}"
            with self._call("open_input_file", path, file.path) as stream:
                etag = stream.metadata().get(b"ETag", b"").decode("ascii", "replace")
                start = offset if etag == validator else 0
                stream.seek(start)
                yield ByteRange(start, stream.size(), etag, read_parts(stream))

        download_ranges(partial, open_range, bar, where)
        # A longer object came in several requests, and may have been replaced between two of them.
        if file.size > _S3_CHUNK and self.list_files(file.path) != [file]:
            raise SourceError(f"{where}: it changed while it was fetched; run again")

    def _call(self, method: str, argument: Any, path: str) -> Any:
        """Call a method of the file system for an object, with its errors in one line each.

        Without an identity in the environment it is called anonymously first, then with the
        identity that a machine in Amazon's cloud may have.
        """
        where = f"{self.address}/{path}"
        files = [os.environ.get(*variable) for variable in (_S3_CREDENTIALS, _S3_CONFIG)]
        identified = any(os.environ.get(name) for name in _S3_IDENTITY)
        identified = identified or any(Path(file).expanduser().is_file() for file in files)
        try:
            self._system = self._system or _s3_file_system(self.name, anonymous=not identified)
            try:
                return getattr(self._system, method)(argument)
            except OSError as error:
                if identified or "ACCESS_DENIED" not in str(error):
                    raise
                self._system = _s3_file_system(self.name, anonymous=False)
                return getattr(self._system, method)(argument)
        except FileNotFoundError:
            raise SourceError(f"{where}: {_NO_FILE}") from None
        except OSError as error:
            for code, why in _S3_ERRORS.items():
                if code in str(error):
                    raise SourceError(f"{where}: {why}") from None
            why = f"cannot be fetched: {_s3_reason(error)}; check the network, AWS_REGION and"
            raise RetryableError(f"{where}: {why} AWS_ENDPOINT_URL, and run again") from None


def _s3_file_system(bucket: str, anonymous: bool) -> S3FileSystem:
    from pyarrow.fs import S3FileSystem, resolve_s3_region

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region:
        region = "us-east-1" if endpoint else str(resolve_s3_region(bucket))
    host = urlsplit(endpoint).hostname or "amazonaws.com"
    proxy = getproxies().get(urlsplit(endpoint).scheme or "https")
    return S3FileSystem(
        anonymous=anonymous,
        endpoint_override=endpoint.rstrip("/") or None,
        region=region,
        proxy_options=None if proxy_bypass(host) else proxy,
        tls_ca_file_path=os.environ.get("AWS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE"),
    )


def _s3_reason(error: OSError) -> str:
    """Return the client's message without the numbers of requests."""
    return re.sub(r"\s*\(Request ID: [^)]*\)", "", one_line(error, 400))[:300]


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A dataset of the Hugging Face Hub at one commit."""

    name: str
    commit: str

    @property
    def address(self) -> str:
        """What a recipe would write for exactly this commit."""
        return f"hf://datasets/{self.name}@{self.commit}"

    def list_files(self, folder: str) -> list[RemoteFile]:
        """Return the file `folder`, or all below it; SourceError if there is none."""
        from huggingface_hub.hf_api import RepoFile

        # A commit never changes, so the list of all its files is cached.
        key = hashlib.sha256(f"{hub_endpoint()} {self.address}".encode()).hexdigest()[:32]
        cache_file = cache_root() / "trees" / f"{key}.json"
        known: Any = read_json(cache_file)
        if not isinstance(known, list):
            try:
                tree = hub_api().list_repo_tree(
                    self.name, recursive=True, revision=self.commit, repo_type="dataset"
                )
                entries = [entry for entry in tree if isinstance(entry, RepoFile)]
            except Exception as error:
                raise hub_error(self.address, error) from None
            known = [(e.path, e.size, e.blob_id, e.lfs.sha256 if e.lfs else "") for e in entries]
            cache_file.parent.mkdir(parents=True, exist_ok=True)
            write_json(cache_file, known)
        files = [RemoteFile(*entry) for entry in known]
        if folder:
            files = [f for f in files if f.path == folder or f.path.startswith(f"{folder}/")]
        if not files:
            raise SourceError(f"{self.address}/{folder}: {_NO_FILE}")
        return files

    def download(self, file: RemoteFile, partial: PartialFile, bar: Progress) -> None:
        """Download a file; the token is sent to the Hub, not to where the Hub redirects."""
        from huggingface_hub import get_token

        endpoint = urlsplit(hub_endpoint())
        origin = f"{endpoint.scheme}://{endpoint.netloc}"
        path = f"datasets/{self.name}/resolve/{self.commit}/{quote(file.path)}"
        access = Access(origins=frozenset([origin]), token=get_token() or "")
        download(f"{hub_endpoint()}/{path}", partial, access, bar)


RemoteStore = Bucket | HubDataset
