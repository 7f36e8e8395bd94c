"""Buckets of S3 and of stores that speak its protocol. Reads the network; the recipe names bucket
and path, never a host.

Through pyarrow's own client, which is installed anyway: s3fs would bring aiobotocore, botocore and
aiohttp for the same. Where to and who we are comes from the usual environment (AWS_ENDPOINT_URL,
AWS_REGION, AWS_ACCESS_KEY_ID, AWS_PROFILE, ...).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from groundup.errors import SourceError
from groundup.runtime.fetch.partial import Body, Partial, fill
from groundup.runtime.fetch.remote import RemoteFile
from groundup.runtime.fetch.transfer import LostError
from groundup.runtime.progress import Progress

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem

T = TypeVar("T")
_CHUNK = 4 << 20
# Any of these, or a file of credentials, says who asks; without them a bucket is asked as anybody
# may.
_KNOWN = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
)


def parse(path: str) -> tuple[str, str]:
    """Return bucket and path of an `s3://` address.

    Raises:
        SourceError: the bucket is no name of one, which also keeps a recipe from naming a host.
    """
    match = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?", path, re.DOTALL)
    if match is None or ".." in match[1]:
        raise SourceError(
            f"{path}: expected s3://BUCKET/PATH, with the bucket in small letters, digits, dots and"
            " hyphens"
        )
    return match[1], match[2] or ""


class Bucket:
    """A bucket, read as whoever the environment says we are."""

    def __init__(self, name: str) -> None:
        self.name, self.address = name, f"s3://{name}"
        self._system: S3FileSystem | None = None

    def files(self, folder: str) -> list[RemoteFile]:
        """Return the object `folder`, or all below it; size and time of change stand for the
        content.

        Raises:
            SourceError: there is no such bucket, or it may not be read.
        """
        from pyarrow.fs import FileSelector, FileType

        def look(system: S3FileSystem) -> list[RemoteFile]:
            place = f"{self.name}/{folder}".rstrip("/")
            one = system.get_file_info(place)
            found = (
                [one]
                if one.type == FileType.File
                else system.get_file_info(FileSelector(place, recursive=True))
            )
            # An empty object whose name ends in a slash is how some tools make folders.
            return [
                RemoteFile(
                    info.path.removeprefix(f"{self.name}/"),
                    info.size,
                    f"{info.size}-{info.mtime_ns}",
                )
                for info in found
                if info.type == FileType.File
            ]

        return self._asked(look, folder)

    def bring(self, file: RemoteFile, half: Partial, bar: Progress) -> None:
        """Bring an object; what is half there goes on while its ETag is the same."""
        where = f"{self.address}/{file.path}"

        @contextmanager
        def opener(offset: int, validator: str) -> Iterator[Body]:
            stream = self._asked(
                lambda system: system.open_input_file(f"{self.name}/{file.path}"), file.path
            )
            with stream:
                etag = stream.metadata().get(b"ETag", b"").decode("ascii", "replace")
                start = offset if etag == validator else 0
                stream.seek(start)
                yield Body(start, stream.size(), etag, self._parts(stream.read, where))

        fill(half, opener, bar, where)
        # What is longer came in several parts, and may have been replaced between two of them.
        if file.size > _CHUNK and self.files(file.path) != [file]:
            raise SourceError(
                f"{where}: it changed while it was fetched; run again when it is at rest"
            )

    def _parts(self, read: Callable[[int], bytes], where: str) -> Iterator[bytes]:
        while True:
            try:
                part = read(_CHUNK)
            except OSError as error:
                raise LostError(f"{where}: cannot be read on: {_line(error)}; run again") from None
            if not part:
                return
            yield part

    def _asked(self, ask: Callable[[S3FileSystem], T], path: str) -> T:
        """Return what the bucket answers; where the environment names nobody, it is asked as
        anybody may, then as this machine.
        """
        where = f"{self.address}/{path}"
        known = _credentials()
        try:
            self._system = self._system or _connect(self.name, anonymous=not known)
            try:
                return ask(self._system)
            except OSError as error:
                if known or not _denied(error):
                    raise
                # A machine in Amazon's cloud may have a role, which only its own service knows.
                self._system = _connect(self.name, anonymous=False)
                return ask(self._system)
        except FileNotFoundError:
            raise SourceError(
                f"{where}: there is no such file or folder; correct the path in the recipe"
            ) from None
        except OSError as error:
            raise _told(where, error) from None


def _connect(bucket: str, anonymous: bool) -> S3FileSystem:
    from pyarrow.fs import S3FileSystem

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    host = urlsplit(endpoint).hostname or "amazonaws.com"
    proxy = getproxies().get(urlsplit(endpoint).scheme or "https")
    return S3FileSystem(
        anonymous=anonymous,
        endpoint_override=endpoint.rstrip("/") or None,
        region=_region(bucket, endpoint),
        proxy_options=None if proxy_bypass(host) else proxy,
        tls_ca_file_path=os.environ.get("AWS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE"),
    )


def _region(bucket: str, endpoint: str) -> str:
    """Return the region of a bucket: as the environment says, or as Amazon does."""
    from pyarrow.fs import resolve_s3_region

    named = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return named or ("us-east-1" if endpoint else str(resolve_s3_region(bucket)))


def _credentials() -> bool:
    files = {
        "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
        "AWS_CONFIG_FILE": "~/.aws/config",
    }
    return any(os.environ.get(name) for name in _KNOWN) or any(
        Path(os.environ.get(name, usual)).expanduser().is_file() for name, usual in files.items()
    )


def _denied(error: OSError) -> bool:
    return "ACCESS_DENIED" in str(error)


def _told(where: str, error: OSError) -> SourceError:
    """Return what went wrong in one line, with what to do; a connection that broke may be tried
    again.
    """
    text = _line(error)
    if _denied(error):
        return SourceError(
            f"{where}: it may not be read; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"
            " AWS_PROFILE"
        )
    if "NO_SUCH_BUCKET" in text:
        return SourceError(f"{where}: there is no such bucket; correct the path in the recipe")
    return LostError(
        f"{where}: cannot be fetched: {text}; check the network, AWS_REGION and AWS_ENDPOINT_URL,"
        " and run again"
    )


def _line(error: OSError) -> str:
    """Return the reason at the end of what the client says, without the numbers of requests."""
    return re.sub(r"\s*\(Request ID: [^)]*\)", "", " ".join(str(error).split()))[:300]
