"""The contracts of retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors.

    ``id`` names everything that changes a vector (name, version, prefix): vectors of two ids are never mixed.
    ``fast`` embedders (about a millisecond a text) are called while a page waits; the others only in the
    background. ``embed`` returns float32 of shape (len(texts), dim), each row L2-normalised, and takes any
    text, the empty one too (a zero row). Optional: ``rest()``, called about once a second, lets go of what takes much
    memory and was not used for a while.
    """

    @property
    def id(self) -> str: ...

    @property
    def dim(self) -> int: ...

    @property
    def fast(self) -> bool: ...

    def embed(self, texts: Sequence[str]) -> np.ndarray: ...
