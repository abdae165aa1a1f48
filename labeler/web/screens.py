"""All screens of the page, one blueprint each."""

from __future__ import annotations

from flask import Blueprint

from labeler.web import (
    audit,
    company,
    compare,
    desk,
    exports,
    imports,
    keys,
    notes,
    numbers,
    projects,
    records,
    removal,
    replays,
    runs,
    settings,
    signin,
    team,
    training,
    versions,
)
from labeler.web import instance_settings as instance_settings
from labeler.web import task_settings as task_settings


def blueprints() -> list[Blueprint]:
    # They stand behind the addresses of the settings, too.
    modules = (
        signin, company, keys, projects, audit, numbers, team, records, desk, notes, compare, imports, runs, replays,
        exports, training, settings, versions, removal,
    )  # fmt: skip
    return [module.blueprint for module in modules]
