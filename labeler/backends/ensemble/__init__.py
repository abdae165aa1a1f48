"""The ``ensemble``: what several small models learned from the approvals, pooled by what cross-validation says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labeler.backends.ensemble.backend import EnsembleBackend
from labeler.backends.ensemble.extracting import ExtractingBackend

if TYPE_CHECKING:
    from labeler.backends.ensemble.learner import Learner
    from labeler.retrieval.embedding import Embeddings
    from labeler.retrieval.index import ExampleIndex


def learner_for(index: ExampleIndex, lexical: Embeddings, language: str) -> Learner[Any]:
    """Return what learns from the approvals of the task of ``index``: its labels, or what is cut out of its texts."""
    if ExtractingBackend.supports(index.task.schema):
        return ExtractingBackend(index, lexical)
    return EnsembleBackend(index, lexical, language)
