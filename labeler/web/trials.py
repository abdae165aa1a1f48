"""Tests of local models: loading weights takes minutes, so a thread does it, and the page asks how it stands."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from labeler.errors import Conflict, LabelerError
from labeler.sentence import Sentence

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Trial:
    """One test. ``found`` is what it came to, as ``check()`` of a backend says it; None while it goes on."""

    number: int
    model_id: str
    found: Mapping[str, Any] | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self, work: Callable[[], Mapping[str, Any]]) -> None:
        try:
            self.found = work()
        except LabelerError as error:
            self.found = {"ok": False, "message": str(error)}
        except Exception:
            log.exception("The test of the model %s failed", self.model_id)
            self.found = {"ok": False, "message": Sentence("Something went wrong inside Labeler; the log says what")}
        self.ended.set()


class Trials:
    """The test that goes on, or the last one: one at a time, since two models seldom fit into memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: Trial | None = None

    def start(self, model_id: str, work: Callable[[], Mapping[str, Any]]) -> Trial:
        """Begin a test, or return that of the same model which goes on. Raises :class:`Conflict` beside another."""
        with self._lock:
            last = self._last
            if last is not None and last.found is None:
                if last.model_id == model_id:
                    return last
                raise Conflict("The model %(model)s is being tested; wait until that has ended", model=last.model_id)
            trial = self._last = Trial(1 if last is None else last.number + 1, model_id)
        # Nothing waits for it when the process ends: what it loads is kept by nobody.
        threading.Thread(target=trial.run, args=(work,), name="labeler-test", daemon=True).start()
        return trial

    def get(self, number: int) -> Trial | None:
        """Return a test by its number; None for one that another has followed, or of an earlier process."""
        last = self._last
        return last if last is not None and last.number == number else None

    def going_on(self) -> Trial | None:
        """Return the test that goes on, None if there is none."""
        last = self._last
        return last if last is not None and last.found is None else None
