"""The Hugging Face Hub: its client, its errors in one line, and the upload of a folder.

    repo = hub_repo("hf://me/texts")
    repo.check_token()                     # before the work, not after it
    repo.upload(folder, public=False)      # large files first, then one commit with all of them

So a repository is as before until the commit, and an upload that was interrupted goes on: the Hub
is asked for each large file whether it has its bytes already.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.errors import GroundupError, SourceError, one_line
from groundup.runtime.progress import progress

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOKENS = "https://huggingface.co/settings/tokens"
# The Hub writes this file into every new repository.
HUB_FILES = {".gitattributes"}
_ERRORS = {
    "GatedRepoError": "its owner wants to be asked; accept the terms on its page, and set HF_TOKEN",
    "RepositoryNotFoundError": "there is no such dataset, or it is private; correct the path, or"
    " set HF_TOKEN",
    "RevisionNotFoundError": "there is no such revision; correct what follows @ in the recipe",
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set, and it is not in the cache",
}
_UPLOAD_ERRORS = {
    "LocalTokenNotFoundError": f"it needs a token; set HF_TOKEN to one that may write ({TOKENS}),"
    " or log in with `hf auth login`",
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set; unset it to upload",
}
_UPLOAD_STATUS = {
    401: f"the token was refused; set HF_TOKEN to a valid one that may write ({TOKENS})",
    403: f"the token may not write there; set HF_TOKEN to one that may ({TOKENS})",
}


def hub_endpoint() -> str:
    """Return the address of the Hub, which the environment may replace."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def hub_api() -> HfApi:
    """Return a client of the Hub; GroundupError if its library is not installed."""
    try:
        from huggingface_hub import HfApi
    except ImportError:
        advice = "install it with `pip install huggingface-hub`"
        raise GroundupError(f"the Hub needs huggingface_hub; {advice}") from None
    return HfApi(endpoint=hub_endpoint())


def hub_error(where: str, error: Exception) -> GroundupError:
    """Return an error of reading in one line; errors that are one already stay as they are."""
    if isinstance(error, GroundupError):
        return error
    why = f"cannot be listed: {one_line(error, 200)}; check the network and run again"
    return SourceError(f"{where}: {_ERRORS.get(type(error).__name__, why)}")


def _upload_error(where: str, error: Exception) -> GroundupError:
    if isinstance(error, GroundupError):
        return error
    status = getattr(getattr(error, "response", None), "status_code", 0)
    why = _UPLOAD_ERRORS.get(type(error).__name__) or _UPLOAD_STATUS.get(status)
    resume = "check the network; run the same command to resume"
    return GroundupError(
        f"{where}: {why or f'cannot be uploaded: {one_line(error, 200)}; {resume}'}"
    )


def hub_repo(address: str) -> HubRepo:
    """Return the data set that `hf://[datasets/]OWNER/NAME` names; GroundupError if none."""
    match = re.fullmatch(r"hf://(?:datasets/)?([\w-][\w.-]*/[\w-][\w.-]*)/?", address, re.ASCII)
    if match is None or ".." in match[1] or "--" in match[1] or len(match[1]) > 96:
        raise GroundupError(f"{address}: expected hf://OWNER/NAME")
    return HubRepo(match[1])


@dataclass(frozen=True)
class HubRepo:
    """A repository of a data set that this user writes to."""

    name: str  # OWNER/NAME

    @property
    def address(self) -> str:
        """What a recipe would write to read it."""
        return f"hf://datasets/{self.name}"

    @property
    def url(self) -> str:
        """Address of its page."""
        return f"{hub_endpoint()}/datasets/{self.name}"

    def check_token(self) -> None:
        """Raise GroundupError unless the user has a token that the Hub accepts."""
        try:
            hub_api().whoami()
        except Exception as error:
            raise _upload_error(self.address, error) from None

    def files(self) -> set[str]:
        """Return the paths of its files; none if there is no such repository."""
        from huggingface_hub.errors import RepositoryNotFoundError
        from huggingface_hub.hf_api import RepoFile

        try:
            tree = hub_api().list_repo_tree(self.name, recursive=True, repo_type="dataset")
            return {entry.path for entry in tree if isinstance(entry, RepoFile)} - HUB_FILES
        except RepositoryNotFoundError:
            return set()
        except Exception as error:
            raise _upload_error(self.address, error) from None

    def upload(self, folder: Path, public: bool, message: str) -> None:
        """Make the repository hold the files of a folder, and nothing else.

        It is created if there is none, private unless `public`; the visibility of one that is there
        stays. Raises GroundupError if the Hub refuses, or cannot be reached.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        names = {path: path.relative_to(folder).as_posix() for path in paths}
        api, old = hub_api(), self.files()
        try:
            api.create_repo(self.name, private=not public, repo_type="dataset", exist_ok=True)
            operations: list[Any] = []
            with progress("uploading", sum(path.stat().st_size for path in paths), "B") as bar:
                for path, name in names.items():
                    addition = CommitOperationAdd(name, path)
                    api.preupload_lfs_files(
                        self.name, [addition], repo_type="dataset", free_memory=False
                    )
                    operations.append(addition)
                    bar.add(path.stat().st_size)
            gone = sorted(old - set(names.values()))
            operations += [CommitOperationDelete(name) for name in gone]
            api.create_commit(self.name, operations, commit_message=message, repo_type="dataset")
        except Exception as error:
            raise _upload_error(self.address, error) from None
