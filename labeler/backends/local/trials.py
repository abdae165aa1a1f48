"""Quicker ways of reading and writing, which not every model allows and not every version of transformers.

Each is tried once for each model, on a few tokens and against a plain forward. Where it fails, the model answers
without it: the same answers, slower. What the trial found is logged, and the test of a model says it.
"""

from __future__ import annotations

import importlib.metadata
import logging
import weakref
from collections.abc import Callable
from typing import Any

from labeler.backends.local.memory import is_out_of_memory
from labeler.sentence import N_, Sentence

log = logging.getLogger(__name__)


class Unsuited(Exception):
    """A model that by its making does not allow a quicker way; says why."""


class Quicker:
    """A quicker way; ``without`` is the template that says how a model answers where its trial fails, and ``why``."""

    def __init__(self, without: str) -> None:
        self._without = without
        self._found: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()

    def works(self, model: Any, trial: Callable[[], bool]) -> bool:
        """Return what the trial of this model came to; ``trial`` compares, and may raise whatever it runs into.

        Only a lack of memory goes through, as it says nothing of the model.
        """
        if model not in self._found:
            self._found[model] = _reason(trial)
            if self._found[model]:
                log.warning("%s: %s", type(model).__name__, self.said(model))
        return not self._found[model]

    def said(self, model: Any) -> str:
        """Return one sentence for people if the model has to do without; empty if it does not, or is not tried yet."""
        reason = self._found.get(model)
        return Sentence(self._without, why=reason) if reason else ""


HEADS = Quicker(N_("Every prompt is read as a whole before its answer is written, which is slower: %(why)s."))
TREES = Quicker(N_("Labels are scored one by one, which is slower: %(why)s."))


def slower(model: Any) -> list[str]:
    """Return the sentences of the quicker ways that were tried and that the model has to do without."""
    return [said for way in (HEADS, TREES) if (said := way.said(model))]


def _reason(trial: Callable[[], bool]) -> str:
    try:
        return "" if trial() else Sentence("in a trial the quicker way changed the answer")
    except Exception as error:
        if is_out_of_memory(error):
            raise
        if isinstance(error, Unsuited):
            return Sentence("this model does not allow it (%(why)s)", why=error)
        version = importlib.metadata.version("transformers")
        what = f"{type(error).__name__}: {str(error).strip().split(chr(10))[0][:200].rstrip('.')}"
        return Sentence(
            "a trial with transformers %(version)s failed (%(reason)s); if this model was quicker "
            "before, install the versions of constraints.txt",
            version=version,
            reason=what,
        )
