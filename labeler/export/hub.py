"""An export on the Hugging Face hub, in a repository that is private unless asked."""

from __future__ import annotations

import os
import re

from labeler.errors import BackendError, InputError, MissingExtra, SettingError
from labeler.export.files import RECORDS
from labeler.export.service import ExportResult

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def check(format_name: str, repository: str) -> None:
    """Raise before anything is written: :class:`InputError` for a format without a card or a name that is none,
    :class:`MissingExtra` without the client, :class:`SettingError` without a token."""
    if format_name != "dataset":
        raise InputError("Only the format dataset goes to the hub: it has the card that tells what is in it")
    try:
        from huggingface_hub import get_token
    except ImportError:
        raise MissingExtra("huggingface_hub", "train") from None
    if not _REPOSITORY.fullmatch(repository):
        raise InputError("The hub knows no name such as %(name)r; write OWNER/NAME", name=repository)
    if not get_token():
        raise SettingError("The hub asks for a token; set HF_TOKEN to one that may write")


def push(result: ExportResult, repository: str, public: bool = False) -> str:
    """Put an export into a repository of the hub, and return its address.

    The token is that of HF_TOKEN, or of a login on this computer. Data files there that are not of this export are
    removed; ``records.jsonl`` and the manifest, which tell more than the data set, stay here. Raises
    :class:`BackendError` if the hub refuses or cannot be reached; the export stands all the same.
    """
    from httpx2 import HTTPError
    from huggingface_hub import HfApi

    names = [name for name in result.manifest["files"] if name != RECORDS]
    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    try:
        made = hub.create_repo(repository, repo_type="dataset", private=not public, exist_ok=True)
        hub.upload_folder(
            repo_id=made.repo_id,
            repo_type="dataset",
            folder_path=result.folder,
            allow_patterns=names,
            delete_patterns=["*.parquet"],
            commit_message=f"Export {result.manifest['counts']['all']} rows",
        )
    except (HTTPError, OSError) as error:
        raise BackendError(
            "%(name)r could not be put on the hub (%(reason)s); the export itself is complete",
            name=repository,
            reason=" ".join(str(error).split())[:300],
        ) from error
    return str(made)
