"""Data sets of the Hugging Face Hub. Reads the network: the list of files through the Hub's client,
the bytes through our own.

Our own, since it resumes, checks the SHA-256 that the Hub keeps of large files, and follows no
redirect to a private address.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from groundup.errors import SourceError
from groundup.runtime.fetch.cache import cache_root
from groundup.runtime.fetch.download import download
from groundup.runtime.fetch.partial import Partial
from groundup.runtime.fetch.remote import RemoteFile
from groundup.runtime.fetch.transfer import Access
from groundup.runtime.files import read_json, write_json
from groundup.runtime.progress import Progress

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_FORM = "hf://datasets/OWNER/NAME/PATH, or OWNER/NAME@REVISION"


def parse(path: str) -> tuple[str, str, str]:
    """Return the data set, the revision ("main" where none is named) and the path in it.

    Raises:
        SourceError: it is no address of a data set.
    """
    match = re.fullmatch(
        r"hf://datasets/([\w.-]+/[\w.-]+)(?:@([\w.%~-]+))?(?:/(.*))?", path, re.DOTALL
    )
    if match is None or ".." in match[1]:
        raise SourceError(f"{path}: expected {_FORM}")
    return match[1], unquote(match[2] or "main"), match[3] or ""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set at one commit."""

    name: str
    commit: str

    @property
    def address(self) -> str:
        """What a recipe would write for exactly this."""
        return f"hf://datasets/{self.name}@{self.commit}"

    def files(self, folder: str) -> list[RemoteFile]:
        """Return the file `folder`, or all below it.

        Raises:
            SourceError: it cannot be listed.
        """
        files = [file for file in self._tree() if _below(file.path, folder)]
        if not files:
            raise SourceError(
                f"{self.address}/{folder}: there is no such file or folder; correct the path in the"
                " recipe"
            )
        return files

    def _tree(self) -> list[RemoteFile]:
        """Return all files of the commit, which never changes: asked for once, then from the cache."""
        from huggingface_hub.hf_api import RepoFile

        key = hashlib.sha256(f"{_endpoint()} {self.address}".encode()).hexdigest()[:32]
        file = cache_root() / "trees" / f"{key}.json"
        known: Any = read_json(file)
        if isinstance(known, list):
            return [RemoteFile(*entry) for entry in known]
        try:
            found = list(
                _api().list_repo_tree(
                    self.name, recursive=True, revision=self.commit, repo_type="dataset"
                )
            )
        except Exception as error:
            raise _told(self.address, error) from None
        files = [
            RemoteFile(f.path, f.size, f.blob_id, f.lfs.sha256 if f.lfs else "")
            for f in found
            if isinstance(f, RepoFile)
        ]
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, [astuple(one) for one in files])
        return files

    def bring(self, file: RemoteFile, half: Partial, bar: Progress) -> None:
        """Bring a file; the token goes to the Hub, and not to where it redirects."""
        url = f"{_endpoint()}/datasets/{self.name}/resolve/{self.commit}/{quote(file.path)}"
        download(url, half, Access(origins=frozenset([_origin()]), token=_token()), bar)


def at_revision(name: str, revision: str) -> Dataset:
    """Return a data set at the commit that a branch, a tag or the beginning of a commit names now.

    Raises:
        SourceError: there is none, or it may not be read.
    """
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return Dataset(name, revision)
    try:
        return Dataset(
            name, str(_api().repo_info(name, revision=revision, repo_type="dataset").sha)
        )
    except Exception as error:
        raise _told(f"hf://datasets/{name}@{revision}", error) from None


def _below(path: str, folder: str) -> bool:
    return not folder or path == folder or path.startswith(f"{folder}/")


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _origin() -> str:
    parts = urlsplit(_endpoint())
    return f"{parts.scheme}://{parts.netloc}"


def _token() -> str:
    from huggingface_hub import get_token

    return get_token() or ""


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=_endpoint())


def _told(where: str, error: Exception) -> SourceError:
    """Return what went wrong in one line. The client has an exception for each answer, and passes
    on those of its own clients.
    """
    what: dict[str, Any] = {
        "GatedRepoError": (
            "its owner wants to be asked; accept the terms on its page, and set HF_TOKEN"
        ),
        "RepositoryNotFoundError": (
            "there is no such data set, or it is private; correct the path, or set HF_TOKEN"
        ),
        "RevisionNotFoundError": "there is no such revision; correct what follows @ in the recipe",
        "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set, and it is not in the cache",
    }
    said = (
        what.get(type(error).__name__)
        or f"cannot be listed: {' '.join(str(error).split())[:200]}; check the network and run again"
    )
    return SourceError(f"{where}: {said}")
