"""Any embedding model of sentence-transformers (Reimers and Gurevych 2019): from the Hugging Face hub or a folder."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from labeler.errors import MissingExtra, SettingError

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

# "e5" as a word of the name ("intfloat/multilingual-e5-small"), not inside one (a folder named by a hash).
_E5 = re.compile(r"(?<![a-z0-9])e5(?![a-z0-9])", re.IGNORECASE)


class TransformerEmbedder:
    """Embeds with the model of that hub name or folder, on the GPU if torch finds one.

    ``prefix`` is put before every text. E5 models are trained with one, so they get ``"query: "`` unless another is
    given. The model is loaded at the first text, or when ``dim`` is first asked for; only a hub name that is not in
    the local cache makes this use the network. Code that comes with a model is never run. Safe to share between
    threads, which take turns.

    ``id`` holds name and prefix, not the weights: whoever trains a model anew must give its folder another name.
    """

    fast = False

    def __init__(self, model: str, prefix: str = "") -> None:
        self.model = model
        self.prefix = prefix or ("query: " if _E5.search(model) else "")
        self.id = f"sentence-transformers:{model}" + (f":{self.prefix}" if self.prefix else "")
        self._encoder: Any = None
        self._lock = threading.Lock()

    @cached_property
    def dim(self) -> int:
        """Number of columns; loads the model. Raises as :meth:`embed` does."""
        return int(self._encode(["dim"]).shape[1])

    def embed(self, texts: Sequence[str]) -> Array:
        """Return float32 (len(texts), dim), rows of length 1; a blank text gives a zero row.

        What is longer than the model's window is cut off by the model. Raises :class:`MissingExtra` if
        sentence-transformers is not installed, :class:`SettingError` if the model cannot be loaded.
        """
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        filled = [i for i, text in enumerate(texts) if text.strip()]
        if filled:
            vectors[filled] = self._encode([texts[i] for i in filled])
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(lengths > 0, lengths, 1)

    def _encode(self, texts: list[str]) -> Array:
        # The tokenizers of transformers raise "Already borrowed" when two threads use one.
        with self._lock:
            # Tokenizers take no lone surrogates.
            safe = [self.prefix + text.encode("utf-8", "replace").decode("utf-8") for text in texts]
            vectors: Array = self._load().encode(safe, show_progress_bar=False, convert_to_numpy=True)
            return vectors

    def _load(self) -> Any:
        if self._encoder is None:
            try:
                from sentence_transformers import SentenceTransformer
            except ImportError as error:
                raise MissingExtra("sentence-transformers", "local") from error
            try:
                # No pickle: to load one is to run it.
                self._encoder = SentenceTransformer(
                    self.model, trust_remote_code=False, model_kwargs={"use_safetensors": True}
                )
            except Exception as error:  # hub, disk, tokenizer and torch each raise their own
                reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
                raise SettingError(
                    "The embedding model %(model)r could not be loaded: %(reason)s; give a folder or connect once",
                    model=self.model,
                    reason=reason,
                ) from error
        return self._encoder
