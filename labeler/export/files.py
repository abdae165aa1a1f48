"""The folder of an export: new files beside the old ones, exchanged so that a reader never meets half of them.

The steps are in the docstring of :mod:`labeler.export.service`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from labeler import strictjson
from labeler.errors import (
    Conflict,
    InputError,
    StoreError,
    StoreFull,
    StoreReadOnly,
)
from labeler.export.splits import SPLITS

if sys.platform != "win32":
    import fcntl

MANIFEST, RECORDS, SUGGESTIONS = "manifest.json", "records.jsonl", "suggestions-not-for-training"
DATASET_INFO, AXOLOTL, CARD = "dataset_info.json", "axolotl.yaml", "README.md"
"""What tells a trainer, or a reader, of the other files."""
_NEW, _OLD = ".tmp", ".old.tmp"
_BUFFER = 1 << 18
_ABOUT = "|".join(map(re.escape, (DATASET_INFO, AXOLOTL, CARD)))
FILE_NAME = re.compile(rf"(?:{'|'.join(SPLITS)}|records|{SUGGESTIONS})\.[a-z0-9]{{1,10}}|{_ABOUT}")
_TEMPORARY = re.compile(rf"(?:{FILE_NAME.pattern}|{re.escape(MANIFEST)})(?:\.old)?\.tmp")


class ExportFile:
    """One file on its way: written as ``<name>.tmp``, counted and hashed as it goes."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.rows, self.bytes = name, 0, 0
        self._hash = hashlib.sha256()
        self._head: str | None = None
        self._encoded = b""
        self._pieces: list[bytes] = []
        self._held = 0
        # "x": a link that somebody put in the way is refused, not followed.
        self._stream = (folder / (name + _NEW)).open("xb", _BUFFER)

    def write(self, text: str, rows: int = 1) -> None:
        """Write text. Rows of a training set begin with the same long message, which is encoded once."""
        if not rows:
            self._pieces.append(text.encode("utf-8"))
            return
        if self._head is None or not text.startswith(self._head):
            self._head = text if self._head is None else _beginning(self._head, text)
            self._encoded = self._head.encode("utf-8")
        self._pieces += self._encoded, text[len(self._head) :].encode("utf-8")
        self.rows += rows
        self._held += len(text)
        if self._held >= _BUFFER:
            self._flush()

    def put(self, data: bytes) -> None:
        self._stream.write(data)
        self._hash.update(data)
        self.bytes += len(data)

    def _flush(self) -> None:
        data, self._pieces, self._held = b"".join(self._pieces), [], 0
        self.put(data)

    def finish(self) -> None:
        """Close the file once it is durable; once more is nothing."""
        if self._stream.closed:
            return
        self._flush()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()

    def abandon(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.close()

    def entry(self) -> dict[str, Any]:
        return {"rows": self.rows, "bytes": self.bytes, "sha256": self._hash.hexdigest()}


def _beginning(a: str, b: str) -> str:
    """Return what two texts begin with, both of them."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
    return a[:same]


class Exchange:
    """The new files of a folder, beside the old ones until :meth:`commit`. The module's docstring has the steps."""

    def __init__(self, folder: Path, sync: Callable[[], None]) -> None:
        self.folder, self._sync = folder, sync
        self.manifest: dict[str, Any] = {}
        self._files: list[ExportFile] = []
        self._committed = False
        self._mine = {MANIFEST, *_described(folder / MANIFEST)}

    def create(self, name: str, kind: type[ExportFile] = ExportFile) -> ExportFile:
        """Begin a file. Raises :class:`InputError` if one of that name is there which no export wrote."""
        if name not in self._mine and (self.folder / name).exists():
            raise _strange(self.folder, name)
        file = kind(self.folder, name)
        self._files.append(file)
        return file

    def finish(self) -> None:
        for file in self._files:
            file.finish()

    def entries(self) -> dict[str, dict[str, Any]]:
        return {file.name: file.entry() for file in self._files}

    def commit(self, manifest: dict[str, Any]) -> None:
        """Let the new files take the place of the old ones."""
        last = self.create(MANIFEST)
        last.write(strictjson.dumps(manifest, indent=1, separators=(",", ": ")) + "\n", rows=0)
        last.finish()
        stands = self.folder / MANIFEST
        old = _described(stands)
        if stands.exists():
            stands.replace(self.folder / (MANIFEST + _OLD))
            self._sync()
        for name in old:
            if (self.folder / name).exists():
                (self.folder / name).replace(self.folder / (name + _OLD))
        for name in manifest["files"]:
            (self.folder / (name + _NEW)).replace(self.folder / name)
        self._sync()
        (self.folder / (MANIFEST + _NEW)).replace(stands)
        self._committed = True
        self._sync()
        self.manifest = manifest

    def undo(self) -> None:
        """Put the old files back, as far as the disk lets us; :func:`recover` does the rest at the next export."""
        for file in self._files:
            file.abandon()
        with contextlib.suppress(OSError):
            if self._committed:
                (self.folder / MANIFEST).replace(self.folder / (MANIFEST + _NEW))
            recover(self.folder)

    def forget(self) -> None:
        """Remove the old files, now that the new ones stand."""
        with contextlib.suppress(OSError):
            _remove_temporary(self.folder)


@contextlib.contextmanager
def writing(folder: Path, owner: Mapping[str, str]) -> Iterator[Exchange]:
    """Make the folder ready for this export alone; when the block fails, leave it as it was.

    ``owner`` names project, task and format: a folder whose files we did not write for them is refused.
    """
    with _mapped(folder):
        _make(folder)
        with _locked(folder) as sync:
            recover(folder)
            _check_owner(folder, owner)
            exchange = Exchange(folder, sync)
            try:
                yield exchange
            except BaseException:
                exchange.undo()
                raise
            exchange.forget()


def recover(folder: Path) -> None:
    """Bring a folder back to its last complete export, if a later one failed or was killed, and remove what that left.

    Without a manifest an exchange was under way: files that the new manifest describes and the old one does not are
    removed (if they are what it says), and the old files take their names again.
    """
    stands, new, old = (folder / (MANIFEST + suffix) for suffix in ("", _NEW, _OLD))
    if not stands.exists():
        kept = _described(old)
        for name, entry in _described(new).items():
            if name not in kept and _is(folder / name, entry):
                (folder / name).unlink()
        for path in sorted(folder.iterdir()):
            name = path.name.removesuffix(_OLD)
            if name != path.name and FILE_NAME.fullmatch(name):
                path.replace(folder / name)
        if old.exists():
            old.replace(stands)
    _remove_temporary(folder)


def _remove_temporary(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        if _TEMPORARY.fullmatch(path.name) and not path.is_dir():
            path.unlink()


def _described(manifest: Path) -> dict[str, dict[str, Any]]:
    """Return the files that a manifest of ours describes; nothing if it is torn, absent or not ours."""
    found = _read_manifest(manifest)
    files = found.get("files") if "labeler" in found else None
    if not isinstance(files, dict):
        return {}
    # A name is taken from a file only if we could have written it: no path leads out of the folder.
    return {name: entry for name, entry in files.items() if FILE_NAME.fullmatch(name) and isinstance(entry, dict)}


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        found = strictjson.loads(path.read_bytes())
    except (OSError, InputError):
        return {}
    return found if isinstance(found, dict) else {}


def _is(path: Path, entry: Mapping[str, Any]) -> bool:
    if not path.is_file() or path.stat().st_size != entry.get("bytes"):
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == entry.get("sha256")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, ValueError) as error:
        raise InputError(
            "%(folder)s cannot be a folder (%(reason)s); choose another one", folder=folder, reason=error
        ) from error


def _check_owner(folder: Path, owner: Mapping[str, str]) -> None:
    """Refuse a folder whose files we did not write for this project, task and format."""
    manifest = folder / MANIFEST
    if manifest.exists():
        found = _read_manifest(manifest)
        if "labeler" not in found or any(found.get(name) != value for name, value in owner.items()):
            what = ", ".join(f"{name} {found[name]!r}"[:60] for name in owner if name in found) or "something else"
            raise InputError(
                "The folder %(folder)s holds an export of %(what)s; choose another folder", folder=folder, what=what
            )
    mine = _described(manifest)
    for path in sorted(folder.iterdir()):
        # Many a folder has a README of its own, which only an export that writes one would take the place of.
        if FILE_NAME.fullmatch(path.name) and path.name not in mine and path.name != CARD:
            raise _strange(folder, path.name)


def _strange(folder: Path, name: str) -> InputError:
    return InputError(
        "The folder %(folder)s holds %(name)s, which no export wrote; choose another folder", folder=folder, name=name
    )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[Callable[[], None]]:
    """Keep other exports, of other processes too, out of the folder. Yield what makes its renames durable.

    The lock is on the folder itself and ends with the process, so that nothing is left behind. Windows has
    neither such a lock nor a way to sync a folder.
    """
    if sys.platform == "win32":
        yield lambda: None
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                "Another export is being written to %(folder)s; wait for it or choose another one", folder=folder
            ) from error
        except OSError:
            # A network file system may know no locks; there, only the renames protect the files.
            pass
        yield lambda: os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _mapped(folder: Path) -> Iterator[None]:
    """Turn the errors of the file system into ours, with a remedy."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(
                "The disk of %(folder)s is full; free some space and export again. An earlier export there is kept",
                folder=folder,
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StoreReadOnly(
                "%(folder)s cannot be written (%(reason)s); check its permissions, or choose another",
                folder=folder,
                reason=why,
            ) from error
        raise StoreError(
            "The export to %(folder)s failed (%(reason)s); an earlier export there is kept", folder=folder, reason=why
        ) from error
