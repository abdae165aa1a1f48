"""Every error that Labeler raises on purpose, under one base class.

::

    LabelerError                 status 500
    ├── InputError               400  something a person or a file gave cannot be used
    │   ├── LabelError                a value that the label schema does not allow
    │   ├── TextError                 a text that cannot be stored (NUL, lone surrogate)
    │   ├── JsonError                 JSON that is not strict; carries line and column
    │   ├── FileRefused               a file that cannot be read at all; nothing of it is stored
    │   │   └── Doubt                 ... that can be read in several ways; carries the options that say which
    │   ├── SettingError              a setting that does not exist or has a bad value
    │   │   └── Unanswered            ... labels of approvals that would be gone; carries what is asked
    │   └── PromptRefused             messages that a chat template does not take (backends/local/chat.py)
    ├── NotSignedIn              401
    ├── Forbidden                403
    ├── NotFound                 404
    ├── Conflict                 409  somebody else decided or holds the record; carries what stands now
    ├── TooLarge                 413
    ├── Throttled                429
    ├── StoreError               500
    │   ├── StoreFull            507
    │   ├── StoreReadOnly        503
    │   ├── StoreDamaged              the database file is torn or is not a database
    │   └── StoreNewer                the schema is newer than this program
    ├── BackendError             502  a backend that cannot be used as it is set up
    │   ├── OutOfMemory               not even one prompt fits into memory (backends/local/memory.py)
    │   └── CallFailed                a file or batch that a provider did not take (backends/batches.py)
    ├── ProviderError            502  the company's sign-in does not answer, or is not set up as it says itself
    ├── MissingExtra             501  an optional package is not installed; names the extra
    └── PluginError              500
        └── DuplicateName             two plugins registered one name

A message says what is wrong, which item, and what to do next. It is a template and its values, so that a page says it
in the language of its reader: ``NotFound("There is no run number %(number)s", number=7)``. The catalogue is made of the
templates that calls of these classes begin with. ``status`` is the HTTP status that the page and the JSON API answer
with. The command line exits with ``exit_status``: 2 where nothing of a file went in, else 1.
"""

from __future__ import annotations

import errno
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from labeler.sentence import Sentence

DISTRIBUTION = "labeler-rag"
"""What pip knows this program as: on the package index the name of its package belongs to another project."""


class LabelerError(Exception):
    """Base class. ``str(error)`` is one clear :class:`~labeler.sentence.Sentence` for the person who meets it."""

    status = 500
    exit_status = 1
    remedy = ""
    """What the command line adds: which option helps. A page has its own ways, so a message names no option."""

    def __init__(self, template: str = "", /, **values: object) -> None:
        super().__init__(Sentence(template, **values))

    @property
    def sentence(self) -> Sentence:
        return Sentence(self.args[0])

    @property
    def setting(self) -> str:
        """The setting that it is about, or several with commas; an empty text where it is about none."""
        return str(self.sentence.values.get("setting", ""))


class InputError(LabelerError):
    status = 400


class LabelError(InputError):
    """A value that the label schema does not allow. ``kind`` is one word for statistics."""

    def __init__(self, template: str, kind: str = "schema", /, **values: object) -> None:
        super().__init__(template, **values)
        self.kind = kind

    @property
    def item(self) -> str:
        """What of the value it is about: the name of a part, else the label or keyword; empty for the whole value."""
        values = self.sentence.values
        return str(values.get("name", values.get("item", "")))


class TextError(InputError):
    pass


class JsonError(InputError):
    def __init__(self, template: str, line: int = 1, column: int = 1, /, **values: object) -> None:
        super().__init__(template, **values)
        self.line = line
        self.column = column


class FileRefused(InputError):
    exit_status = 2

    def __init__(self, template: str, remedy: str = "", /, **values: object) -> None:
        super().__init__(template, **values)
        self.remedy = remedy


class Doubt(FileRefused):
    """A question about a file: each of ``choices`` is one way to read it, as import options; the likeliest first."""

    def __init__(self, template: str, choices: Sequence[Mapping[str, Any]], /, **values: object) -> None:
        self.choices = choices
        remedy = f"Say which: {' or '.join(_as_option(choice) for choice in choices[:6])}"
        super().__init__(template, remedy, **values)


def _as_option(choice: Mapping[str, Any]) -> str:
    name, value = next(iter(choice.items()))
    return "--no-header" if name == "header" else f"--{name.replace('_', '-')} {shlex.quote(str(value))}"


class SettingError(InputError):
    pass


class Unanswered(SettingError):
    """Approvals have labels that would be gone. ``preview`` says what a change of labels does."""

    remedy = "Say it with --rename OLD=NEW, --merge OLD=INTO, --retire LABEL or --reopen LABEL; nothing was stored"

    def __init__(self, preview: Any) -> None:
        self.preview = preview
        count = sum(fate.approved for fate in preview.open)
        named = ", ".join(f"{fate.name} ({fate.approved})" for fate in preview.open)
        super().__init__(
            Sentence(
                "%(n)s approvals have labels that would be gone: %(labels)s; say what becomes of each",
                n=count,
                labels=named,
            )
        )


class NotSignedIn(LabelerError):
    status = 401


class Forbidden(LabelerError):
    status = 403


class NotFound(LabelerError):
    status = 404


class Conflict(LabelerError):
    """Somebody else got there first. ``current`` is what stands now, as JSON-able values."""

    status = 409

    def __init__(self, template: str, current: dict[str, Any] | None = None, /, **values: object) -> None:
        super().__init__(template, **values)
        self.current = current or {}


class TooLarge(LabelerError):
    status = 413


class Throttled(LabelerError):
    """``retry_after`` is in seconds."""

    status = 429

    def __init__(self, template: str, retry_after: float = 1.0, /, **values: object) -> None:
        super().__init__(template, **values)
        self.retry_after = retry_after


class StoreError(LabelerError):
    pass


class StoreFull(StoreError):
    status = 507


class StoreReadOnly(StoreError):
    status = 503


class StoreDamaged(StoreError):
    pass


class StoreNewer(StoreError):
    pass


class BackendError(LabelerError):
    status = 502


class ProviderError(LabelerError):
    status = 502


class MissingExtra(LabelerError):
    status = 501

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            Sentence(
                "The package %(name)s is not installed; install it with: %(command)s",
                name=package,
                command=self.command(extra),
            )
        )

    @staticmethod
    def command(extra: str) -> str:
        """Return the command that installs an extra."""
        return f"pip install '{DISTRIBUTION}[{extra}]'"


class PluginError(LabelerError):
    line: int | None = None
    """Where in the plugin's file the mistake is, if that is known."""


class DuplicateName(PluginError):
    pass


FULL = (errno.ENOSPC, errno.EDQUOT)


def not_written(path: Path, error: OSError) -> LabelerError:
    """Return what to raise where the system does not let us write ``path``: its disk is full, or it is not ours."""
    if error.errno in FULL:
        return StoreFull("The disk of %(path)s is full; free some space and try again. Nothing was lost", path=path)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreReadOnly(
            "%(path)s cannot be written (%(reason)s); check the folder's permissions", path=path, reason=error.strerror
        )
    return LabelerError("%(file)s cannot be written: %(reason)s", file=path, reason=error.strerror)
