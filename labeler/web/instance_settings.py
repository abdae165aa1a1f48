"""The settings of the instance, and the tests of its models."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flask import current_app, flash, g, render_template, request

from labeler import settings as tables
from labeler.backends.base import Backend, BackendFactory, made_by
from labeler.errors import InputError, LabelerError, MissingExtra, NotFound, SettingError
from labeler.extras import EXTRAS
from labeler.oidc import SECRET_VARIABLE
from labeler.plugins import find
from labeler.store import Store
from labeler.web import models
from labeler.web.access import admin_only, instance
from labeler.web.forms import go_on, text, texts
from labeler.web.setting_fields import (
    GROUPS,
    Form,
    Group,
    changed,
    grouped,
    named_in,
    seen,
    typed,
)
from labeler.web.settings import blueprint, embedders_there
from labeler.web.trials import Trial, Trials
from labeler.web.words import _

_TEST_SECONDS = 30.0


@blueprint.get("/settings")
@admin_only
def general() -> Any:
    return _instance_page(instance().in_force)


@blueprint.post("/settings")
@admin_only
def save_instance() -> Any:
    """Store the settings of the instance: the connection to a server, the local model, limits.

    Any http or https address is taken, private ones too: a server of one's own on this machine or in this network is
    what the setting is for. That is why only admins of the instance may set it.
    """
    given: dict[str, Any] = {}
    try:
        given = typed(tuple(instance().table.values()))
        changes = _with_secrets(changed(instance().table, given))
        instance().change_settings(changes, g.person["id"])
    except InputError as error:
        return _instance_page(instance().in_force | given, str(error)), error.status
    flash(_("Saved"))
    return go_on("settings.general")


def _with_secrets(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changes: a secret is never sent back to the page, so an empty field means that it stays."""
    secrets = _secrets()
    changes = {name: value for name, value in given.items() if name not in secrets or value}
    return changes | {name: None for name in texts("forget") if name in secrets}


def _secrets() -> list[str]:
    return [setting.name for setting in instance().table.values() if setting.secret]


@blueprint.post("/settings/test")
@admin_only
def test() -> Any:
    """Make one tiny call with the stored settings, say how it went, and keep what the model can.

    ``backend`` "transformers" loads the local model and asks it, in a thread: the page asks :func:`trial` how that
    stands. ``model_id`` names another than the instance's.
    """
    return _shown(
        lambda: _tested(text("backend", 80) or next(iter(models.with_model(instance()))), text("model_id", 500))
    )


@blueprint.get("/settings/test")
@admin_only
def trial() -> Any:
    """How the test of a local model stands, by its ``number``; the page asks every second while it goes on."""
    return _shown(lambda: _trial(request.args.get("number", 0, int)))


def _shown(look: Callable[[], Mapping[str, Any] | Trial]) -> str:
    try:
        found = look()
    except LabelerError as error:
        found = {"ok": False, "message": str(error)}
    return render_template("_test_result.html", found=found, going_on=found if isinstance(found, Trial) else None)


def _trials() -> Trials:
    return current_app.extensions.setdefault("labeler_trials", Trials())  # type: ignore[no-any-return]


def _trial(number: int) -> Mapping[str, Any] | Trial:
    """Return what the test of a local model came to, or the test itself while it goes on."""
    trial = _trials().get(number)
    if trial is None:
        raise NotFound("There is no such test any more; start it again")
    return trial if trial.found is None else trial.found


def _tested(backend: str, model_id: str) -> Mapping[str, Any] | Trial:
    factory = find(instance().plugins.backends, backend, "backend")
    if not factory.model_setting:
        return _tested_of_plugin(factory)
    settings = instance().in_force
    model_id = model_id or settings.get(factory.model_setting) or ""
    if not model_id:
        raise SettingError(_("Enter a model and save first."))
    named = [row.model_id for row in models.model_rows(instance()) if row.backend == backend]
    if model_id not in named:
        # Else the button would fetch and load whatever a form names.
        raise SettingError("No model %(name)r; the settings name: %(names)s", name=model_id, names=", ".join(named))
    place = backend, models.address_of(instance(), factory), model_id
    work = partial(_checked, instance().store, _made(factory, model_id, settings), place)
    return _trials().start(model_id, work) if factory.local else work()


def _tested_of_plugin(factory: BackendFactory) -> Trial:
    """Test a backend of a plugin with the settings of the instance, in a thread: nobody knows how long it takes."""
    if not factory.shared:
        raise SettingError("The backend %(backend)s needs no test", backend=factory.name)
    store, settings = instance().store, instance().in_force

    def work() -> Mapping[str, Any]:
        # Made only where the test begins: one that is refused beside another leaves nothing open.
        made = made_by(factory, settings)
        return _checked(store, made, (factory.name, made.base_url or "", made.model_id or ""))

    return _trials().start(factory.name, work)


def _checked(store: Store, made: Backend, place: tuple[str, str, str]) -> Mapping[str, Any]:
    """Test a backend and close it; keep what its model can under ``place`` (backend, address, model id)."""
    try:
        found = made.check()
    finally:
        made.close()
    if found is None:
        raise SettingError("The backend %(backend)s needs no test", backend=place[0])
    if found["ok"] and found.get("capabilities"):
        store.write(lambda tx: store.models.record(tx, *place, found["capabilities"]))
    return found


def _made(factory: BackendFactory, model_id: str, settings: Mapping[str, Any]) -> Backend:
    """Return a backend of its own for a test, with less patience than a run has."""
    patience = min(_TEST_SECONDS, float(settings.get("timeout_seconds") or 60.0))
    given = {**settings, "model_id": model_id, "timeout_seconds": patience}
    return made_by(factory, given)


def _instance_page(values: Mapping[str, Any], message: str = "") -> str:
    # A secret goes nowhere: not even the one that was just typed comes back.
    shown = _without_secrets(values)
    known = {name for name in _secrets() if instance().settings.get(name)}
    secret_hints = {
        name: _("Set; enter another one to replace it") if name in known else _("Not set") for name in _secrets()
    }
    hints = {
        "openai_base_url": "https://api.openai.com/v1",
        "transformers_model": "meta-llama/Llama-3.1-8B-Instruct",
        "timeout_seconds": 60,
        "lease_seconds": tables.lease(instance().settings | {"lease_seconds": None}),
        **secret_hints,
        **dict.fromkeys(("requests_per_minute", "tokens_per_minute"), _("Learned from the server")),
    }
    return render_template(
        "settings.html",
        going_on=_trials().going_on(),
        groups=grouped(tuple(instance().table.values()), (*GROUPS["instance"], _plugins())),
        form=Form(shown, hints=hints, wrong=named_in(message), seen=seen(_without_secrets(_own(instance().settings)))),
        known_secrets=known,
        overruled=[name for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL") if os.environ.get(name, "").strip()],
        company_overruled=SECRET_VARIABLE if os.environ.get(SECRET_VARIABLE, "").strip() else "",
        company_installed=not EXTRAS["oidc"].missing(),
        local_installed=all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
        rows=models.model_rows(instance()),
        plugins=instance().plugins,
        tested=[name for name, one in instance().plugins.backends.items() if one.shared and not one.model_setting],
        embedders=embedders_there(),
        remedy=MissingExtra.command,
        message=message,
    )


def _plugins() -> Group:
    return Group(_("Plugins"), tuple(instance().plugins.settings), _("What plugins need that are installed here."))


def _own(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without those of plugins that are gone: these wait in the file."""
    known = instance().table
    return {name: value for name, value in values.items() if name in known}


def _without_secrets(values: Mapping[str, Any]) -> dict[str, Any]:
    secrets = _secrets()
    return {name: value for name, value in values.items() if name not in secrets}
