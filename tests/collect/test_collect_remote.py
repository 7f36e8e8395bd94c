"""Remote stores: files of buckets and datasets are cached once, whole, as the user."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.helpers.sites import Reply, Seen, Site, redirect, serving
from tests.helpers.stores import Bucket, Hub, ranged

from groundup.collect.sources import Listing, list_source, source_sizes
from groundup.errors import SourceError
from groundup.recipe import Source
from groundup.runtime.fetch import download as downloads
from groundup.runtime.fetch.download import ByteRange, PartialFile, download, download_ranges
from groundup.runtime.fetch.https import Access
from groundup.runtime.fetch.remote import Bucket as S3Bucket
from groundup.runtime.fetch.remote import RemoteFile, fetch_all
from groundup.runtime.progress import Progress, progress

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(downloads, "BACK_OFF_SECONDS", 0.0)
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.startswith(("AWS_", "HF_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        yield site


@pytest.fixture
def bucket(site: Site, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    names = (
        "en/a.jsonl.gz",
        "en/deep/b.jsonl.gz",
        "en/note.md",
        "en/.hidden.jsonl.gz",
        "fr/c d+é.jsonl.gz",
    )
    bucket = Bucket(site, {name: gzip.compress(name.encode()) for name in names})
    site.answer = bucket.answer
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{site.port}")
    return bucket


def _list(path: str, tmp_path: Path, pinned: str = "", **settings: object) -> Listing:
    return list_source(Source(path, "web", **settings), tmp_path, pinned)  # type: ignore[arg-type]


def _held(listing: Listing) -> dict[str, bytes]:
    return {file.origin: file.path.read_bytes() for file in listing.files}


def _reads(site: Site) -> list[str]:
    """Return the paths whose bytes were requested."""
    return [seen.path.partition("?")[0] for seen in site.seen if "range" in seen.headers]


@pytest.mark.parametrize(
    ("path", "origins"),
    [
        ("s3://books/en/**/*.jsonl.gz", ["a.jsonl.gz", "deep/b.jsonl.gz"]),
        ("s3://books/en", ["a.jsonl.gz", "deep/b.jsonl.gz", "note.md"]),
        ("s3://books", ["en/a.jsonl.gz", "en/deep/b.jsonl.gz", "en/note.md", "fr/c d+é.jsonl.gz"]),
        ("s3://books/*/a.*", ["en/a.jsonl.gz"]),
        ("s3://books/en/deep/b.jsonl.gz", ["b.jsonl.gz"]),
    ],
)
def test_a_bucket_is_listed_like_a_folder(
    bucket: Bucket, tmp_path: Path, path: str, origins: list[str]
) -> None:
    """Files, folders and globs select the same as on a disk, and every byte arrives."""
    listing = _list(path, tmp_path)
    assert [file.origin for file in listing.files] == origins
    assert {
        gzip.decompress(data).decode()
        for name, data in _held(listing).items()
        if data[:2] == b"\x1f\x8b"
    } <= set(bucket.objects)


def test_an_object_is_fetched_once_until_it_changes(
    bucket: Bucket, site: Site, tmp_path: Path
) -> None:
    """Only an object whose size or time changed is fetched again; source_sizes fetches nothing."""
    path = "s3://books/en/**/*.jsonl.gz"
    assert [name for name, _ in source_sizes(Source(path), tmp_path)] == [
        "a.jsonl.gz",
        "deep/b.jsonl.gz",
    ]
    assert _reads(site) == []
    _list(path, tmp_path)
    assert len(_reads(site)) == 2
    _list(path, tmp_path)
    assert len(_reads(site)) == 2
    old = bucket.objects["en/a.jsonl.gz"]
    bucket.objects["en/a.jsonl.gz"], bucket.changed["en/a.jsonl.gz"] = bytes(len(old)), 7
    assert _held(_list(path, tmp_path))["a.jsonl.gz"] == bytes(len(old))
    assert _reads(site)[2:] == ["/books/en/a.jsonl.gz"]


def test_credentials_come_from_the_environment_only(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without credentials requests are anonymous; secrets are in no message and no file."""
    bucket.key = "AKIDEXAMPLE"
    with pytest.raises(SourceError, match="may not be read; set AWS_ACCESS_KEY_ID") as caught:
        _list("s3://books/en", tmp_path)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    assert len(_list("s3://books/en", tmp_path).files) == 3
    written = b"".join(
        path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file()
    )
    assert b"very-secret" not in written and b"AKIDEXAMPLE" not in written


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("s3://none/x", "no such bucket"),
        ("s3://books/nothing", "no such file or folder"),
        ("s3://books/en/*.zip", "none of its 4 files matches"),
    ],
)
def test_what_a_bucket_does_not_hold(bucket: Bucket, tmp_path: Path, path: str, said: str) -> None:
    """A wrong bucket, folder or pattern is a one-line error."""
    with pytest.raises(SourceError, match=said) as caught:
        _list(path, tmp_path)
    assert "\n" not in str(caught.value) and "Request ID" not in str(caught.value)
    with pytest.raises(SourceError, match="include and exclude leave nothing of 3 files"):
        _list("s3://books/en", tmp_path, include=("*.tex",), exclude=("*.gz",))


@pytest.fixture
def hub(site: Site, monkeypatch: pytest.MonkeyPatch) -> Hub:
    files = {
        ".gitattributes": b"x",
        "README.md": b"# Texts",
        "data/a b.txt": b"first",
        "data/large.txt.gz": gzip.compress(b"large"),
    }
    hub = Hub(site, {OLD: files, NEW: files | {"data/a b.txt": b"second"}}, OLD)
    site.answer = hub.answer
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{site.port}")
    return hub


def test_a_dataset_is_pinned_to_its_commit(hub: Hub, site: Site, tmp_path: Path) -> None:
    """The listing names the commit, so that a run can pin it; a commit is listed only once."""
    path = "hf://datasets/me/texts/data/*"
    first = _list(path, tmp_path)
    assert _held(first) == {
        "a b.txt": b"first",
        "large.txt.gz": hub.commits[OLD]["data/large.txt.gz"],
    }
    assert first.pinned == f"hf://datasets/me/texts@{OLD}/data/*"
    hub.head = NEW
    count = len(site.seen)
    assert _held(_list(path, tmp_path, first.pinned)) == _held(first) and len(site.seen) == count
    assert _held(_list(path, tmp_path))["a b.txt"] == b"second"
    assert _held(_list(f"hf://datasets/me/texts@{OLD}/data", tmp_path)) == _held(first)
    assert [file.origin for file in _list("hf://datasets/me/texts", tmp_path).files] == [
        "README.md",
        "data/a b.txt",
        "data/large.txt.gz",
    ]


def test_large_files_are_verified(hub: Hub, tmp_path: Path) -> None:
    """The Hub knows the SHA-256 of large files: other bytes are not kept."""
    hub.elsewhere = lambda name: Reply(b"something else")
    with pytest.raises(SourceError, match=r"its sha256 is .* it was not kept"):
        _list("hf://datasets/me/texts/data/large.txt.gz", tmp_path)
    assert not list((tmp_path / "cache" / "files").rglob("*.gz"))


def test_tokens_are_sent_to_the_hub_only(
    hub: Hub, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A private dataset needs HF_TOKEN, which is not sent to where the Hub redirects."""
    hub.token = "hf_secret"
    path = "hf://datasets/me/texts/data/large.txt.gz"
    with pytest.raises(SourceError, match="HF_TOKEN"):
        _list(path, tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for there in (
        "http://169.254.169.254/x",
        "http://localhost:1/x",
        f"https://[::1]:{site.port}/x",
    ):
        hub.elsewhere = lambda name, there=there: redirect(there)
        with pytest.raises(SourceError, match=r"only https|not a public address") as caught:
            _list(path, tmp_path)
        assert "hf_secret" not in str(caught.value)
    hub.elsewhere = None
    listing = _list(path, tmp_path)
    assert len(listing.files) == 1 and "hf_secret" not in repr(listing)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("hf://datasets/you/none/x", "no such dataset"),
        ("hf://datasets/me/texts@v9/data", "no such revision"),
        ("hf://datasets/me/texts/none", "no such file or folder"),
    ],
)
def test_what_the_hub_does_not_hold(hub: Hub, tmp_path: Path, path: str, said: str) -> None:
    """A wrong dataset, revision or folder is a one-line error."""
    with pytest.raises(SourceError, match=said) as caught:
        _list(path, tmp_path)
    assert "\n" not in str(caught.value)


DATA = bytes(range(256)) * 4096


def _serve(
    site: Site, tags: tuple[str, ...] = ('"one"',), cut: int | None = 300_000, total: int = 0
) -> None:
    """Serve DATA over connections that break after `cut` bytes, with the ETags `tags` in turn."""

    def answer(seen: Seen) -> Reply:
        reply = ranged(DATA, seen, tags[min(len(site.seen), len(tags)) - 1], cut)
        if total and reply.status == 206:
            reply.headers["Content-Range"] = reply.headers["Content-Range"].replace(
                f"/{len(DATA)}", f"/{total}"
            )
        if not tags[0]:
            del reply.headers["ETag"], reply.headers["Last-Modified"]
        return reply

    site.answer = answer


def _download(site: Site, tmp_path: Path) -> bytes:
    with downloads.partial_file(tmp_path / "partial", "x") as half, progress("x", 0, "B") as bar:
        download(site.url("a.test", "/big.gz"), half, Access(plain=True), bar)
        return half.file.read_bytes()


def test_a_download_resumes(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that arrived are not sent again, to this process or the next one."""
    _serve(site)
    assert _download(site, tmp_path) == DATA
    assert [seen.headers.get("range") for seen in site.seen] == [
        None,
        "bytes=300000-",
        "bytes=600000-",
        "bytes=900000-",
    ]
    monkeypatch.setattr(downloads, "TRIES", 0)
    shutil.rmtree(tmp_path / "partial")
    for _ in range(3):
        with pytest.raises(SourceError, match=r"connection|cannot be fetched"):
            _download(site, tmp_path)
    assert _download(site, tmp_path) == DATA and len(site.seen) == 8


def test_a_file_that_changes_while_it_is_fetched(site: Site, tmp_path: Path) -> None:
    """If-Range sends the whole of a changed file, which replaces the partial one."""
    _serve(site, ('"one"', '"two"'))
    assert _download(site, tmp_path) == DATA
    assert [seen.headers.get("if-range") for seen in site.seen[:3]] == [None, '"one"', '"two"']


def test_a_busy_server_is_retried(site: Site, tmp_path: Path) -> None:
    """429 and 503 are retried; they are an error after a few tries."""
    site.answer = lambda seen: Reply(status=503) if len(site.seen) < 3 else Reply(DATA)
    assert _download(site, tmp_path) == DATA
    site.answer = lambda seen: Reply(status=429)
    with pytest.raises(SourceError, match="429"):
        _download(site, tmp_path)
    assert len(site.seen) == 3 + downloads.TRIES


def test_no_resuming_without_a_validator(site: Site, tmp_path: Path) -> None:
    """Without a validator a partial file is useless: one error, nothing kept."""
    _serve(site, ("",))
    with pytest.raises(SourceError, match="cannot be fetched"):
        _download(site, tmp_path)
    assert len(site.seen) == 1 and not list((tmp_path / "partial").iterdir())


@pytest.mark.parametrize("total", [len(DATA) - 200_000, len(DATA) + 200_000])
def test_a_server_that_lies_about_the_length(site: Site, tmp_path: Path, total: int) -> None:
    """A part of a file of another size is an error, and no such file is kept."""
    _serve(site, cut=300_000, total=total)
    with pytest.raises(SourceError) as caught:
        _download(site, tmp_path)
    assert "\n" not in str(caught.value) and len(site.seen) < 30


def test_a_complete_file_that_is_not_in_the_cache_yet(site: Site, tmp_path: Path) -> None:
    """After a kill before the move into the cache, the server has nothing to add."""
    _serve(site, cut=None)
    assert _download(site, tmp_path) == DATA
    assert _download(site, tmp_path) == DATA
    assert (
        hashlib.sha256(DATA).hexdigest()
        == hashlib.sha256((tmp_path / "partial/x/bytes").read_bytes()).hexdigest()
    )


def test_two_processes_want_one_file(tmp_path: Path) -> None:
    """The second waits, also where the first deleted the folder meanwhile."""
    order = []

    def work(name: str) -> None:
        with downloads.partial_file(tmp_path / "partial", "x"):
            order.append(f"{name} in")
            time.sleep(0.05)
            order.append(f"{name} out")

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(order[n][0] == order[n + 1][0] for n in (0, 2, 4))


class _SlowStore(S3Bucket):
    """A store of two files: one that is missing, and one that arrives slowly."""

    def __init__(self) -> None:
        super().__init__("slow")
        self.begun, self.sent = threading.Event(), 0

    def list_files(self, folder: str) -> list[RemoteFile]:
        return [RemoteFile("bad", 1, "1"), RemoteFile("good", 2000, "1")]

    def download(self, file: RemoteFile, partial: PartialFile, bar: Progress) -> None:
        if file.path == "bad":
            self.begun.wait(10)
            raise SourceError("it is not there")

        @contextmanager
        def open_range(offset: int, validator: str) -> Iterator[ByteRange]:
            yield ByteRange(offset, 2000, "v", self._parts())

        download_ranges(partial, open_range, bar, "slow://x/good")

    def _parts(self) -> Iterator[bytes]:
        for _ in range(2000):
            self.begun.set()
            self.sent += 1
            time.sleep(0.002)
            yield b"x"


def test_a_failed_download_stops_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error does not wait for the other downloads; their bytes stay."""
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    store = _SlowStore()
    with pytest.raises(SourceError, match="not there"):
        fetch_all(store, store.list_files(""), "slow")
    assert 0 < store.sent < 2000
    assert [path.stat().st_size for path in tmp_path.rglob("bytes")] == [store.sent - 1]
