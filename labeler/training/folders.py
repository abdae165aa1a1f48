"""The folder of a training: what was planned, what it came to so far, and whether it goes on.

``adapters/NAME`` of the instance, ``models/NAME`` where all weights are trained or a classifier is::

    plan.json        what is trained, from what and how; written first, so that it can go on after a kill
    log.jsonl        one line a report: step, seconds, loss or eval_loss and what else the trainer said
    samples.jsonl    what the model answered to rows it does not learn from, beside the answer that people gave
    checkpoints/     from which it goes on; gone at the end
    lock             held by the process that trains, so that nobody has to guess whether it lives
    stop             somebody wants it to stop
    failed.json      why it ended early
    labeler.json     the card: written last, so that where it stands the training is whole

A page reads these files and nothing else: a training belongs to no server, and goes on when that starts again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labeler import strictjson
from labeler.backends.local.cards import ADAPTERS, CARD, MODELS, NAME
from labeler.errors import Conflict, JsonError, NotFound, SettingError
from labeler.files import write_private
from labeler.sentence import Sentence, recalled
from labeler.training.methods import ALL_WEIGHTS

if sys.platform != "win32":
    import fcntl

PLAN, LOG, SAMPLES, LOCK, STOP, FAILED, SAID = (
    "plan.json", "log.jsonl", "samples.jsonl", "lock", "stop", "failed.json", "output.log",
)  # fmt: skip
CHECKPOINTS = "checkpoints"
RUNNING, FINISHED, FAILED_STATE, PAUSED, QUEUED = "running", "finished", "failed", "paused", "queued"
# A process that has been asked for needs so many seconds until it holds the lock.
_BEGINS = 60.0
# How often, and how many seconds apart, a lock is tried for that somebody may only look at.
_LOOKS, _LOOK = 20, 0.05


@dataclass(frozen=True)
class Training:
    """A training by its folder. What it says of itself is read from the disk each time it is asked."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def plan(self) -> dict[str, Any]:
        return _json(self.folder / PLAN)

    @property
    def card(self) -> dict[str, Any]:
        return _json(self.folder / CARD)

    @property
    def state(self) -> str:
        """Return "running", "finished", "failed", "paused" (stopped or killed), or "queued" (about to begin)."""
        if self.locked():
            return RUNNING
        if (self.folder / CARD).is_file():
            return FINISHED
        if (self.folder / FAILED).is_file():
            return FAILED_STATE
        said = self.folder / SAID
        begun = said.is_file() and time.time() - said.stat().st_mtime < _BEGINS
        return QUEUED if begun and not (self.folder / STOP).exists() else PAUSED

    @property
    def message(self) -> str:
        """Return why it failed; empty if it did not."""
        found = _json(self.folder / FAILED).get("message")
        return recalled(found) if isinstance(found, (str, list)) else ""

    def log(self) -> list[dict[str, Any]]:
        return _lines(self.folder / LOG)

    def samples(self) -> list[dict[str, Any]]:
        return _lines(self.folder / SAMPLES)

    def change(self, plan: Mapping[str, Any]) -> None:
        write_private(self.folder / PLAN, json.dumps(plan, ensure_ascii=False, indent=1) + "\n")

    def report(self, name: str, line: Mapping[str, Any]) -> None:
        """Append a line to a file of lines. A kill leaves at most the last one torn, and who reads leaves that out."""
        descriptor = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as stream:
            stream.write((strictjson.dumps(line) + "\n").encode("utf-8"))

    def rewind(self, step: int) -> None:
        """Forget what was reported of later steps: they are made again."""
        for name in (LOG, SAMPLES):
            kept = [line for line in _lines(self.folder / name) if line.get("step", 0) <= step]
            if (self.folder / name).exists():
                write_private(self.folder / name, "".join(strictjson.dumps(line) + "\n" for line in kept))

    def fail(self, message: str) -> None:
        said = message.parts() if isinstance(message, Sentence) else message
        write_private(self.folder / FAILED, json.dumps({"message": said}, ensure_ascii=False) + "\n")

    def ask_to_stop(self) -> None:
        """Let it end after the step it is at, with a checkpoint. Raises :class:`Conflict` where it does not run."""
        if self.state not in (RUNNING, QUEUED):
            raise Conflict("The training %(name)s does not run", name=self.name)
        (self.folder / STOP).touch(mode=0o600)

    @property
    def stopping(self) -> bool:
        return (self.folder / STOP).exists()

    def locked(self) -> bool:
        """Whether a process trains it now."""
        if not (self.folder / LOCK).exists():
            return False
        try:
            with self._lock():
                return False
        except Conflict:
            return True
        except OSError:  # a folder that cannot be written: nobody trains there
            return False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Train it alone. Raises :class:`Conflict` where another process does."""
        with self._lock(_LOOKS):
            for name in (STOP, FAILED):
                (self.folder / name).unlink(missing_ok=True)
            yield

    @contextlib.contextmanager
    def _lock(self, tries: int = 1) -> Iterator[None]:
        # A lock ends with its process, however that ends.
        handle = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # Who only looks whether it is held holds it for a moment.
            while not _taken(handle):
                tries -= 1
                if not tries:
                    raise Conflict("The training %(name)s runs already", name=self.name)
                time.sleep(_LOOK)
            yield
        finally:
            os.close(handle)

    def checkpoint(self) -> tuple[Path, int] | None:
        """Return the last whole checkpoint and its step; a kill may have left one that is not, which is removed."""
        found: list[tuple[int, Path]] = []
        for path in (self.folder / CHECKPOINTS).glob("checkpoint-*"):
            if (path / WHOLE).exists():
                found.append((int(path.name.rpartition("-")[2]), path))
            else:
                shutil.rmtree(path, ignore_errors=True)
        step, last = max(found, default=(0, self.folder))
        return (last, step) if found else None


WHOLE = "whole"
"""A file that says of a checkpoint that all of it was written."""


class Reports:
    """Writes down what a training says on its way; ``tell`` gets each report as a line."""

    def __init__(self, training: Training, tell: Callable[[str], None]) -> None:
        self._training, self._tell = training, tell
        before = training.log()
        self._since = time.monotonic() - (float(before[-1]["seconds"]) if before else 0.0)

    def say(self, step: int, total: int, said: Mapping[str, float]) -> None:
        """Report what is ``said`` at a step: ``loss`` or ``eval_loss``, and what else there is."""
        seconds = round(time.monotonic() - self._since, 2)
        self._training.report(LOG, {"step": step, "seconds": seconds, **said})
        losses = ", ".join(f"{name} {said[name]:.4f}" for name in ("loss", "eval_loss") if name in said)
        self._tell(f"Step {step} of {total}: {losses}; {seconds:.0f} s")


def folder_of(instance: Path, method: str, name: str) -> Path:
    return instance / (MODELS if method in ALL_WEIGHTS else ADAPTERS) / name


def begin(instance: Path, name: str, plan: Mapping[str, Any]) -> Training:
    """Make the folder of a new training. Raises :class:`SettingError` for a name that cannot be one, or is taken."""
    if not NAME.fullmatch(name):
        raise SettingError(
            "The name %(name)r cannot be that of a training: give letters, digits, dots, dashes and underscores, at"
            " most 63",
            name=name,
        )
    if any((instance / room / name).exists() for room in (ADAPTERS, MODELS)):
        raise SettingError("There is already a training called %(name)s; choose another name", name=name)
    folder = folder_of(instance, plan["method"], name)
    folder.mkdir(mode=0o700, parents=True)
    made = Training(folder)
    made.change({**plan, "begun": time.time()})
    return made


def free_name(instance: Path, stem: str) -> str:
    """Return ``stem``, with a number where that name is taken."""
    n = 1
    while any((instance / room / (stem if n == 1 else f"{stem}-{n}")).exists() for room in (ADAPTERS, MODELS)):
        n += 1
    return stem if n == 1 else f"{stem}-{n}"


def named(instance: Path, name: str) -> Training:
    """Return a training by name. Raises :class:`NotFound`."""
    folders = [instance / room / name for room in (ADAPTERS, MODELS)] if NAME.fullmatch(name) else []
    for folder in folders:
        if (folder / PLAN).is_file():
            return Training(folder)
    raise NotFound("There is no training called %(name)r", name=name)


def trainings(instance: Path, project_id: int | None = None) -> list[Training]:
    """Return all trainings, or those of a project; the newest first."""
    plans = [path for room in (ADAPTERS, MODELS) for path in (instance / room).glob(f"*/{PLAN}")]
    found = [(training.plan, training) for training in (Training(path.parent) for path in plans)]
    found.sort(key=lambda one: -float(one[0].get("begun") or 0))
    return [training for plan, training in found if project_id in (None, plan.get("project_id"))]


def start(instance: Path, training: Training) -> None:
    """Train in a process of its own, which goes on when this one ends. Also goes on with one that was stopped."""
    command = [sys.executable, "-m", "labeler", "train", "--resume", training.name, "--instance", str(instance)]
    (training.folder / STOP).unlink(missing_ok=True)
    (training.folder / FAILED).unlink(missing_ok=True)
    descriptor = os.open(training.folder / SAID, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.utime(training.folder / SAID)
    with os.fdopen(descriptor, "ab") as said:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True, close_fds=True
        )
    # Else the system keeps the dead child until this process ends.
    _waited_for(child)


def _waited_for(child: subprocess.Popen[bytes]) -> None:
    import threading

    threading.Thread(target=child.wait, name="labeler-training", daemon=True).start()


def _taken(handle: int) -> bool:
    """Whether the lock of an open file could be taken now."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _json(path: Path) -> dict[str, Any]:
    try:
        found = strictjson.loads(path.read_bytes())
    except (OSError, JsonError):
        return {}
    return found if isinstance(found, dict) else {}


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file, without one that is torn."""
    try:
        raw = path.read_bytes().splitlines()
    except OSError:
        return []
    found = []
    for line in raw:
        with contextlib.suppress(JsonError):
            found.append(strictjson.loads(line))
    return found
