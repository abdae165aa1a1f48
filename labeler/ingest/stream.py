"""The bytes of a file: unpacked, counted, and cut off when they become too many."""

from __future__ import annotations

import gzip
import tempfile
import zlib
from pathlib import Path
from typing import IO

from labeler.errors import FileRefused, TooLarge
from labeler.ingest.rows import Limits
from labeler.sentence import N_, Sentence

CHUNK = 256 * 1024
GZIP = b"\x1f\x8b"
# A gzip header and one block of repeated text may unpack a thousandfold without being a bomb.
_RATIO_COUNTS_FROM = 16 * 1024**2


def size_name(size: int) -> str:
    """Write a number of bytes for a person: ``2 GiB``, ``10 MiB``, ``900 bytes``."""
    for unit, name in ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
        if size >= unit:
            return f"{size / unit:.4g} {name}"
    return f"{size} bytes"


class Stream:
    """A file read once from start to end; a name that ends in .gz is unpacked on the way.

    ``read`` raises :class:`TooLarge` as soon as more was unpacked than ``limits`` allow, so a bomb costs no
    more memory than one chunk.
    """

    def __init__(self, path: Path, limits: Limits, name: str) -> None:
        self.name = name
        self.limits = limits
        self.unpacked = 0
        self._head = b""
        self._copy: IO[bytes] | None = None
        try:
            if not path.is_file():
                raise FileRefused(
                    Sentence("%(name)s is not a file", name=name)
                    if path.exists()
                    else Sentence("There is no file %(name)s", name=name)
                )
            self.size = path.stat().st_size
            if self.size > limits.max_bytes:
                raise TooLarge(
                    "%(name)s is larger than %(size)s; split it into smaller files",
                    name=name,
                    size=size_name(limits.max_bytes),
                )
            self._raw = path.open("rb")
        except OSError as error:
            raise FileRefused("%(name)s cannot be opened: %(reason)s", name=name, reason=error.strerror) from error
        self.packed = path.suffix.lower() == ".gz"
        self._file: IO[bytes] | gzip.GzipFile = self._raw
        if self.packed:
            self._file = gzip.GzipFile(fileobj=self._raw, mode="rb")

    def head(self, size: int) -> bytes:
        """Return up to ``size`` first bytes without consuming them."""
        while len(self._head) < size:
            data = self._take(size - len(self._head))
            if not data:
                break
            self._head += data
        return self._head[:size]

    def read(self, size: int = CHUNK) -> bytes:
        """Return the next bytes, or ``b""`` at the end."""
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._take(size)

    def position(self) -> int:
        """Return how many bytes of the file on disk were consumed; for a closed file all of them."""
        if self._raw.closed:
            return self.size
        return max(0, self._raw.tell() - (0 if self.packed else len(self._head)))

    def close(self) -> None:
        """Close the file, what unpacks it, and its copy."""
        if self._copy is not None:
            self._copy.close()
        self._file.close()
        self._raw.close()

    def seekable(self) -> IO[bytes]:
        """Return the file itself, or an unpacked temporary copy, at its start: some formats are read from the end."""
        if not self.packed:
            self._raw.seek(0)
            return self._raw
        if self._copy is None:
            self._copy = tempfile.TemporaryFile()  # noqa: SIM115
            while data := self.read():
                self._copy.write(data)
        self._copy.seek(0)
        return self._copy

    def _take(self, size: int) -> bytes:
        try:
            data = self._file.read(size)
        except EOFError as error:
            raise FileRefused(
                "%(name)s is cut off: the packed data has no end; copy the file again", name=self.name
            ) from error
        except (gzip.BadGzipFile, zlib.error) as error:
            if self._raw.tell() and not self.unpacked and not self._is_gzip():
                raise FileRefused(
                    "The name %(name)s ends in .gz but the content is not packed; remove .gz from the name",
                    name=self.name,
                ) from error
            raise FileRefused(
                "%(name)s is damaged: its packed data cannot be read; copy the file again", name=self.name
            ) from error
        except OSError as error:
            raise FileRefused("%(name)s cannot be read: %(reason)s", name=self.name, reason=error.strerror) from error
        self.unpacked += len(data)
        self._check_size()
        return data

    def _is_gzip(self) -> bool:
        self._raw.seek(0)
        return self._raw.read(2) == GZIP

    def _check_size(self) -> None:
        if self.unpacked > self.limits.max_bytes:
            raise TooLarge(
                N_("%(name)s is larger than %(size)s after unpacking; split it into smaller files")
                if self.packed
                else N_("%(name)s is larger than %(size)s; split it into smaller files"),
                name=self.name,
                size=size_name(self.limits.max_bytes),
            )
        if self.packed and self.unpacked > max(_RATIO_COUNTS_FROM, self.limits.max_ratio * self._raw.tell()):
            raise TooLarge(
                "%(name)s unpacks to more than %(n)s times its size; reviews do not look like that, so it "
                "was not read. If you trust it, unpack it yourself",
                name=self.name,
                n=self.limits.max_ratio,
            )
