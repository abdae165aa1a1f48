"""All screens of the page, one blueprint each."""

from __future__ import annotations

from flask import Blueprint

from labeler.web import (
    company,
    compare,
    desk,
    exports,
    imports,
    numbers,
    projects,
    records,
    removal,
    replays,
    runs,
    settings,
    signin,
    training,
    versions,
)
from labeler.web import instance_settings as instance_settings
from labeler.web import task_settings as task_settings


def blueprints() -> list[Blueprint]:
    # They stand behind the addresses of the settings, too.
    modules = (
        signin, company, projects, numbers, records, desk, compare, imports, runs, replays, exports, training, settings,
        versions, removal,
    )  # fmt: skip
    return [module.blueprint for module in modules]
