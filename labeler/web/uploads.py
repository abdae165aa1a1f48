"""Uploaded files on their way in: where they lie, under which names, and for how long.

A file is stored under a random name of ours, in a folder of its project; of its own name only the suffix is used,
and only if it is one that the import reads. Its name stands beside it, for people to see.
"""

from __future__ import annotations

import re
import secrets
import time
from pathlib import Path

from flask import request
from werkzeug.datastructures import FileStorage

from labeler.errors import InputError, NotFound, StoreError, not_written
from labeler.sentence import Sentence
from labeler.text import clean_text, one_line
from labeler.web.access import instance

_KINDS = ("csv", "tsv", "tab", "txt", "jsonl", "ndjson", "json", "xlsx", "xlsm", "parquet", "pq")
_SUFFIX = re.compile(rf"\.(?:{'|'.join(_KINDS)})(?:\.gz)?\Z")
_NAME = re.compile(r"[0-9a-f]{32}(\.[\w-]+)+")
_KEEP_SECONDS = 24 * 3600.0
_GONE = Sentence("There is no such upload any more; send the file again")


def chosen_file() -> FileStorage | None:
    """Return the file of the form, or None if none was chosen. Raises :class:`InputError` for a kind we do not read."""
    file = request.files.get("file")
    if file is None or not file.filename:
        return None
    _suffix(file.filename)
    return file


def keep(project_id: int, file: FileStorage) -> str:
    """Store an uploaded file and return the name by which it is found again."""
    name = one_line(clean_text(Path(file.filename or "").name, "file name"))
    folder = _folder(project_id)
    upload = secrets.token_hex(16) + _suffix(name)
    path = folder / upload
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _forget_old(folder)
        file.save(path, buffer_size=1024 * 1024)
        _beside(path).write_text(name, encoding="utf-8")
    except OSError as error:
        path.unlink(missing_ok=True)
        raise not_written(folder, error) from error
    return upload


def find(project_id: int, upload: str) -> tuple[Path, str]:
    """Return the path of an upload of this project and the name it came with. Raises :class:`NotFound`."""
    path = _folder(project_id) / upload
    if not _NAME.fullmatch(upload) or path.is_symlink() or not path.is_file() or not _beside(path).is_file():
        raise NotFound(_GONE)
    return path, _beside(path).read_text(encoding="utf-8")


def take(path: Path) -> None:
    """Hand an upload over to an import, once: a second click finds it gone. The import removes the file itself."""
    try:
        _beside(path).unlink()
    except FileNotFoundError:
        raise NotFound(_GONE) from None


def kinds() -> list[str]:
    """Return the suffixes of what can be uploaded, those of plugins too, as a form's file input takes them."""
    return [*(f".{kind}" for kind in _KINDS), ".gz", *sorted(instance().plugins.importers)]


def _suffix(name: str) -> str:
    own = [suffix for suffix in instance().plugins.importers if name.lower().endswith(suffix)]
    if own:
        return max(own, key=len)
    found = _SUFFIX.search(name.lower())
    if found is None:
        raise InputError(
            "This kind of file is not read; send CSV, TSV, JSON Lines, JSON, Excel (.xlsx) or Parquet, or one of them "
            "with .gz behind its name"
        )
    return found.group()


def _folder(project_id: int) -> Path:
    """Return where the uploads of a project lie. A link in its place, to elsewhere, is refused."""
    folder = instance().folder / "uploads" / str(int(project_id))
    if folder.is_symlink() or folder.parent.is_symlink():
        raise StoreError("%(path)s is a link to another place and is not used; replace it by a folder", path=folder)
    return folder


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".name")


def _forget_old(folder: Path) -> None:
    """Remove what was uploaded and never imported; a queued import (its name is gone) is left alone."""
    for beside in folder.glob("*.name"):
        if beside.stat().st_mtime < time.time() - _KEEP_SECONDS:
            beside.with_suffix("").unlink(missing_ok=True)
            beside.unlink(missing_ok=True)
