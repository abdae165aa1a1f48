"""What Labeler ships beside its tasks, registered through the same hooks as anybody's plugin."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import Any

from labeler.backends.base import Backend, BackendFactory
from labeler.backends.classifier import ClassifierBackend, located
from labeler.backends.ensemble.backend import ProbeBackend
from labeler.backends.local.cards import MODELS
from labeler.backends.nearest import NearestBackend
from labeler.errors import MissingExtra, SettingError
from labeler.export import built_in as export_formats
from labeler.hookspecs import hookimpl
from labeler.prelabel.batch_executor import BatchExecutor
from labeler.prelabel.executor import LocalExecutor
from labeler.retrieval import retrievers
from labeler.retrieval.e5 import E5Embedder
from labeler.retrieval.lexical import LexicalEmbedder
from labeler.retrieval.transformer import TransformerEmbedder
from labeler.settings import BATCH_EXECUTOR


class OpenAIFactory(BackendFactory):
    """Any OpenAI-compatible server. Reads base URL, key, model id and time-out."""

    name = "openai"
    shared = True
    model_setting = "openai_model"

    def configured(self, settings: Mapping[str, Any]) -> bool:
        # Without either there is nothing to read: what suggests for free loads none of this backend.
        named = ("openai_api_key", "openai_base_url")
        if not any(settings.get(name) or os.environ.get(name.upper(), "").strip() for name in named):
            return False
        from labeler.backends.openai import is_configured

        return is_configured(settings)

    def missing(self, settings: Mapping[str, Any]) -> str:
        if self.configured(settings):
            return ""
        return "set OPENAI_API_KEY or OPENAI_BASE_URL (or the settings openai_api_key, openai_base_url)"

    def address(self, settings: Mapping[str, Any]) -> str:
        from labeler.backends.openai import openai_settings

        return openai_settings(settings).base_url or ""

    def own(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        from labeler.backends.openai import openai_settings

        api_key, base_url = openai_settings(settings)
        return {"openai_api_key": api_key, "openai_base_url": base_url}

    def check(self, changes: Mapping[str, Any]) -> None:
        if changes.get("openai_base_url") or changes.get("openai_api_key"):
            from labeler.backends.openai import checked_key, openai_settings, refuse_metadata

            # A bad address would be met again by everything that is done with this instance.
            openai_settings(changes)
            checked_key(changes.get("openai_api_key"))
            if changes.get("openai_base_url"):
                refuse_metadata(changes["openai_base_url"])

    def check_change(self, before: Mapping[str, Any], after: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
        """Raise :class:`SettingError` for another server without its key: a key goes to no other than its own."""
        if before.get("openai_api_key") and "openai_api_key" not in changes:
            from labeler.backends.openai import same_server

            if not same_server(before.get("openai_base_url"), after.get("openai_base_url")):
                raise SettingError(
                    "openai_base_url is another server, and the key that is stored is not its own; "
                    "give openai_api_key with it, or remove the key first"
                )

    def create(self, settings: Mapping[str, Any]) -> Backend:
        from labeler.backends.openai import Capabilities, OpenAIBackend

        model_id = settings.get("model_id") or settings.get("openai_model")
        if not model_id:
            raise SettingError("The openai backend needs a model id; set it for the task or for the instance")
        return OpenAIBackend(
            settings.get("openai_base_url"),
            settings.get("openai_api_key"),
            model_id,
            timeout=float(settings.get("timeout_seconds") or 60.0),
            capabilities=Capabilities.from_json(settings.get("capabilities") or {}),
        )


class TransformersFactory(BackendFactory):
    """Local weights by hub id, folder or the name of a training; loaded at the first call."""

    name = "transformers"
    shared = local = True
    options = ("model_id", "quantization", "device", "gguf_file", "adapter", "batch_size")
    model_setting = "transformers_model"

    def missing(self, settings: Mapping[str, Any]) -> str:
        wanted = [name for name in ("torch", "transformers", "accelerate") if importlib.util.find_spec(name) is None]
        return f"install {', '.join(wanted)}: {MissingExtra.command('local')}" if wanted else ""

    def create(self, settings: Mapping[str, Any]) -> Backend:
        from labeler.backends.local.backend import TransformersBackend
        from labeler.backends.local.cards import chosen
        from labeler.backends.local.loading import LoadOptions

        card = chosen(settings)
        model_id = settings.get("model_id") or settings.get("transformers_model")
        if card is not None:
            model_id = card.base if card.adapter else str(card.folder)
        if not model_id:
            raise SettingError(
                "The transformers backend needs a model id (a hub id or a folder); set it for the task or the instance"
            )
        options = LoadOptions(
            model_id,
            quantization=settings.get("quantization") or "auto",
            device=settings.get("device") or "auto",
            gguf_file=settings.get("gguf_file") or "",
            adapter=str(card.folder) if card is not None and card.adapter else settings.get("adapter") or "",
        )
        backend: Backend = TransformersBackend(options, batch_size=int(settings.get("batch_size") or 16), card=card)
        return backend


class ClassifierFactory(BackendFactory):
    """An encoder that was trained for the task, by the name of the model or its folder."""

    name = "classifier"
    billed = True
    options = ("model_id", "device", "batch_size")

    def create(self, settings: Mapping[str, Any]) -> Backend:
        model_id, index = settings.get("model_id"), settings["index"]
        if not model_id:
            raise SettingError("The classifier backend needs a model id: the name of a model that was trained")
        folder = located(index.store.path.parent / MODELS, model_id)
        batch_size = int(settings.get("batch_size") or 32)
        made: Backend = ClassifierBackend(
            folder, model_id, lambda: index.task.schema, settings.get("device") or "auto", batch_size
        )
        return made


class NearestFactory(BackendFactory):
    """The vote of the nearest approved examples."""

    name = "nearest"
    about = "votes by the nearest approved records"

    def create(self, settings: Mapping[str, Any]) -> Backend:
        return NearestBackend()


class EnsembleFactory(BackendFactory):
    """What several small models learned from the approvals; an open instance has one for each task."""

    name = "ensemble"
    about = "learns from approved records: labels, keywords and texts"

    def create(self, settings: Mapping[str, Any]) -> Backend:
        made: Backend = settings["ensemble"]
        return made


class ProbeFactory(BackendFactory):
    """The ensemble's model on the stored vectors alone."""

    name = "probe"
    about = "is the ensemble's model of the vectors alone"

    def create(self, settings: Mapping[str, Any]) -> Backend:
        return ProbeBackend(settings["ensemble"])


@hookimpl
def register_backends() -> list[Any]:
    return [
        OpenAIFactory(),
        TransformersFactory(),
        ClassifierFactory(),
        NearestFactory(),
        ProbeFactory(),
        EnsembleFactory(),
    ]


def _lexical(settings: Mapping[str, Any]) -> Any:
    return LexicalEmbedder()


def _e5(settings: Mapping[str, Any]) -> Any:
    return E5Embedder()


def _sentence_transformers(settings: Mapping[str, Any]) -> Any:
    model = settings.get("embedding_model")
    if not model:
        raise SettingError("The sentence-transformers embedder needs embedding_model: a model name or a folder")
    return TransformerEmbedder(model)


@hookimpl
def register_embedders() -> list[tuple[str, Any]]:
    return [("lexical", _lexical), ("e5", _e5), ("sentence-transformers", _sentence_transformers)]


@hookimpl
def register_retrievers() -> list[tuple[str, Any]]:
    return list(retrievers.BUILT_IN.items())


@hookimpl
def register_exporters() -> list[Any]:
    return list(export_formats().values())


@hookimpl
def register_executors() -> list[tuple[str, Any]]:
    return [("local", LocalExecutor), (BATCH_EXECUTOR, BatchExecutor)]
