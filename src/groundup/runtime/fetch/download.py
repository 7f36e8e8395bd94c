"""Files over HTTP, resumed with Range and If-Range (RFC 9110, 13.1.5 and 14.2). Reads the network;
writes through `partial`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from groundup.errors import SourceError
from groundup.runtime.fetch.partial import Body, Partial, fill
from groundup.runtime.fetch.transfer import Access, fetched, shown
from groundup.runtime.progress import Progress

if TYPE_CHECKING:
    import httpx


def download(url: str, half: Partial, access: Access, bar: Progress) -> None:
    """Bring the file at `url`; `half` then holds all of it.

    Raises:
        SourceError: it cannot be fetched, is too long, or shorter than announced.
    """

    @contextmanager
    def opener(offset: int, validator: str) -> Iterator[Body]:
        headers = {"Range": f"bytes={offset}-", "If-Range": validator} if offset else {}
        with fetched(url, access, headers) as answer:
            answer.deadline.lift()
            yield _body(answer.response, url)

    fill(half, opener, bar, shown(url))


def announced(url: str) -> int:
    """Return the bytes that the file at `url` is said to have, 0 when its server does not say;
    nothing of it is read.

    Raises:
        SourceError: it cannot be fetched.
    """
    with fetched(url, Access()) as answer:
        return int(answer.response.headers.get("content-length") or 0)


def _body(response: httpx.Response, url: str) -> Body:
    # Raw bytes: a server that calls a .gz file a transfer encoding must not have it unpacked.
    length, parts = int(response.headers.get("content-length") or 0), response.iter_raw()
    if response.status_code == 200:
        return Body(0, length, _validator(response), parts)
    place = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("content-range", ""))
    if place is None:
        # Of a part without the whole length nobody could tell whether it is the last.
        raise SourceError(
            f"{shown(url)}: the server sends a part of it and does not say which of how much; run"
            " again"
        )
    return Body(int(place[1]), int(place[2]), _validator(response), parts)


def _validator(response: httpx.Response) -> str:
    """Return the strong ETag, else the time of change: what If-Range may hold; "" when there is
    neither.
    """
    tag = str(response.headers.get("etag", ""))
    return tag if tag.startswith('"') else str(response.headers.get("last-modified", ""))
