"""Tells which far place a path names, and what a source will fetch from it. Reads the network;
writes nothing.
"""

from __future__ import annotations

from groundup.runtime.fetch import hub, s3
from groundup.runtime.fetch.remote import Place

FAR = ("s3://", "hf://")


def place_of(path: str) -> tuple[Place, str]:
    """Return the place that a path names, and the path in it.

    Raises:
        SourceError: it is misspelt, or there is no such place.
    """
    if path.startswith("s3://"):
        bucket, inside = s3.parse(path)
        return s3.Bucket(bucket), inside
    name, revision, inside = hub.parse(path)
    return hub.at_revision(name, revision), inside
