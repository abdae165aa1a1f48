"""The folder of an instance: its database, settings, prices, secret key and plugins."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from labeler import built_in, strictjson
from labeler.backends.base import FOLDER, Backend
from labeler.backends.prices import ModelInfo, find_model, load_prices
from labeler.errors import JsonError, LabelerError, NotFound, SettingError, StoreReadOnly, not_written
from labeler.kept import KeptFile
from labeler.plugins import Plugins, load_plugins
from labeler.settings import INSTANCE, Setting, changed_settings, check_sign_in
from labeler.store import Store, Tx, check_new

DATABASE = "labeler.db"
_NEW_KEY = "delete it, and the next start makes a new one (everybody signs in again)"


def require_instance(folder: Path) -> None:
    """Raise :class:`NotFound` if there is no instance in a folder, :class:`StoreDamaged` if its database is gone."""
    database = folder / DATABASE
    if not database.exists():
        check_new(database)
        raise NotFound(
            f"There is no instance at {folder}; go to the folder where it lies, or name it with --instance FOLDER "
            "(labeler serve, demo, import and user add make one)"
        )


class Files:
    """Open an instance folder. Raises :class:`LabelerError` with a remedy if it cannot be.

    One that is missing is made, unless ``make`` is False; nobody but its owner looks into it.
    """

    def __init__(self, folder: Path, *, read_only: bool = False, make: bool = True) -> None:
        self.folder = folder
        self.read_only = read_only
        if not make:
            require_instance(folder)
        if not read_only:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise StoreReadOnly(f"The instance folder {folder} cannot be made: {error.strerror}") from error
            if not os.access(folder, os.W_OK):
                raise StoreReadOnly(
                    f"The instance folder {folder} is not writable; change its permissions, or serve with --read-only"
                )
        self.store = Store(folder / DATABASE, read_only=read_only)
        self._settings = KeptFile(folder / "settings.json", _read_settings)
        self._prices = KeptFile(folder / "prices.json", _read_prices)

    def located(self, stored: str) -> Path:
        """Return where a path that the database keeps is now.

        Earlier versions kept whole paths: what lay in the folders of an instance that was moved since lies there still.
        """
        path = Path(stored)
        if path.parts[-3:-2] in (("uploads",), ("exports",)):
            here = self.folder.joinpath(*path.parts[-3:])
            if here.exists():
                return here
        return self.folder / path

    @cached_property
    def plugins(self) -> Plugins:
        return load_plugins(built_in, self.folder / "plugins", settings=lambda: self.in_force)

    @property
    def settings(self) -> dict[str, Any]:
        """The instance's own settings, from settings.json. Raises :class:`SettingError` that names the file."""
        return dict(self._settings.now())

    @property
    def in_force(self) -> dict[str, Any]:
        """The settings with what holds where those of plugins are not set, and the folder that holds the trainings."""
        known = {name: setting.default for name, setting in self.plugins.settings.items()}
        return {FOLDER: str(self.folder), **known, **self.settings}

    @property
    def table(self) -> Mapping[str, Setting]:
        """The settings that the instance has, by name, with those of its plugins."""
        return {setting.name: setting for setting in INSTANCE} | self.plugins.settings

    def change_settings(self, changes: Mapping[str, Any], by: int | None = None) -> None:
        """Change some instance settings; None or an empty text removes one. The file is readable by its owner only.

        ``by`` is the admin who does it, None a command. Raises :class:`SettingError`, also where a backend refuses.
        """
        checked = changed_settings(self.table, changes)
        backends = self.plugins.backends.values()
        for backend in backends:
            backend.check(checked)
        path = self.folder / "settings.json"

        def work(tx: Tx) -> None:
            # The one lock that all processes of an instance share: two that change it at once both count.
            stored = _read_settings(path if path.exists() else None)
            merged = {name: value for name, value in stored.items() if name not in changes} | checked
            named = sorted(name for name in changes if stored.get(name) != merged.get(name))
            check_sign_in(merged)
            for backend in backends:
                backend.check_change(stored, merged, changes)
            if named:
                detail = {"changed": named, "openai_base_url": merged.get("openai_base_url")}
                self.store.events.add(tx, "instance settings changed", reviewer_id=by, detail=detail)
            write_private(path, json.dumps(merged, ensure_ascii=False, indent=2) + "\n")

        self.store.write(work)

    @cached_property
    def secret_key(self) -> str:
        """The key that signs sessions, made at first use and stored with mode 0600."""
        if not self.key_file.exists():
            if self.read_only:
                # Sessions end with this process.
                return secrets.token_hex(32)
            write_private(self.key_file, secrets.token_hex(32))
        return read_secret_key(self.key_file)

    @property
    def key_file(self) -> Path:
        return self.folder / "secret_key"

    @property
    def prices(self) -> Mapping[str, ModelInfo]:
        """What is known of each model; prices.json of the instance adds to it and wins."""
        return self._prices.now()

    def price_of(self, backend: Backend) -> ModelInfo | None:
        """Return what a backend's calls cost, None where that is unknown; local weights cost no fee."""
        if backend.local:
            return ModelInfo(backend.model_id or backend.name, input=0.0, output=0.0)
        return self.model_info(backend.model_id)

    def model_info(self, model_id: str | None) -> ModelInfo | None:
        """Return what the registry knows of a model id: context, prices, the date it is shut down."""
        return find_model(self.prices, model_id)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all.

    Raises the :class:`LabelerError` of :func:`not_written`.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise not_written(path, error) from error


def _read_prices(path: Path | None) -> Mapping[str, ModelInfo]:
    try:
        return load_prices(path)
    except SettingError as error:
        # As with the settings: a fault of the server.
        raise LabelerError(str(error)) from error


def read_secret_key(path: Path) -> str:
    """Return the key in a file. Raises :class:`LabelerError` for one that is damaged or that somebody could guess."""
    try:
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise LabelerError(
            "%(path)s cannot be read as a key (%(reason)s); %(what)s", path=path, reason=error, what=_NEW_KEY
        ) from error
    if len(key) < 32:
        raise LabelerError(
            "%(path)s holds %(n)s characters, and a key has at least 32; %(what)s",
            path=path,
            n=len(key),
            what=_NEW_KEY,
        )
    return key


def _read_settings(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        found = strictjson.loads(path.read_bytes())
    except (JsonError, OSError) as error:
        # Nobody who asks for a page has given this: it is a fault of the server.
        raise LabelerError("%(name)s cannot be read: %(reason)s", name=path, reason=error) from error
    if not isinstance(found, dict):
        raise LabelerError("%(file)s must hold one JSON object", file=path)
    return found
