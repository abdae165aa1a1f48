"""Tells plugins what people approved: in the background, in order, and again until they have heard it.

How far each plugin has heard is kept for each project beside the other upkeep, so that several workers share the work
and a restart loses nothing. What keeps failing waits longer each time, and is passed over after :data:`TRIES`.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

import pluggy

from labeler import strictjson
from labeler.instance import Instance
from labeler.store.database import Row, Tx
from labeler.text import one_line

log = logging.getLogger("labeler.plugins")
TOLD = ":told:"
TRIES = 8
# In seconds, together less than the lease of upkeep: how long one plugin is told at a stretch, and may take for one.
_STRETCH, _PATIENCE = 15.0, 40.0
_MANY = 100


def begin(instance: Instance) -> None:
    """Note where plugins that are new here begin: nobody is told what was approved before."""
    store = instance.store
    if instance.read_only:
        return
    places = [TOLD + listener.plugin_name for listener in instance.plugins.listeners()]

    def work(tx: Tx) -> None:
        for project in store.projects.all():
            for place in places:
                store.upkeep.begin(tx, project["id"], place)

    if places:
        store.write(work)


def tell(instance: Instance, over: Callable[[], bool]) -> bool:
    """Tell every plugin that listens what is new; return whether anybody was told. Ends soon after ``over`` is true."""
    busy = False
    for listener in instance.plugins.listeners():
        for project in instance.store.projects.all():
            busy = _tell(instance, listener, project, over) or busy
    return busy


def _tell(instance: Instance, listener: pluggy.HookImpl, project: Mapping[str, Any], over: Callable[[], bool]) -> bool:
    store, place, token = instance.store, (int(project["id"]), TOLD + listener.plugin_name), secrets.token_hex(8)
    newest = store.annotations.newest()
    if store.upkeep.followed(*place) >= newest or over():
        return False
    if store.write(lambda tx: store.upkeep.take(tx, *place, token)) is None:
        return False
    failed, heard = _through(instance, listener, project, newest, over)

    def settle(tx: Tx) -> None:
        if heard is not None:
            store.upkeep.done(tx, *place, token, heard)
        if failed:
            store.upkeep.failed(tx, *place, token, failed)

    store.write(settle)
    return failed is None


def _through(
    instance: Instance, listener: pluggy.HookImpl, project: Mapping[str, Any], newest: int, over: Callable[[], bool]
) -> tuple[str | None, int | None]:
    """Tell one plugin what it has not heard; return why it failed at last, and how far it has heard now, if further."""
    store, name, place = instance.store, listener.plugin_name, (int(project["id"]), TOLD + listener.plugin_name)
    until, heard, tries = time.monotonic() + _STRETCH, None, store.upkeep.tries(*place)
    rows = store.annotations.approvals(project["id"], store.upkeep.followed(*place), newest, _MANY)
    for row in rows:
        # Not before one is told: a place that is taken is given back with what was done.
        if heard is not None and (over() or time.monotonic() > until):
            return None, heard
        failed = _failure(instance, listener, project, row)
        if failed:
            log.warning("The plugin %s failed on approval %s: %s", name, row["id"], one_line(failed))
            if tries < TRIES - 1:
                return failed, heard
            log.error("The plugin %s has failed on approval %s %s times and is not told of it", name, row["id"], TRIES)
        heard, tries = row["id"], 0
    return None, heard if len(rows) == _MANY else newest


def _failure(instance: Instance, listener: pluggy.HookImpl, project: Mapping[str, Any], row: Row) -> str | None:
    """Tell one plugin of one approval; return why that failed, None if it did not."""
    record = instance.store.records.many([row["record_id"]]).get(row["record_id"])
    if record is None:
        # It was removed, and everything about it with it.
        return None
    said = {"project": project["name"], "task": row["task"], "record": record, "value": strictjson.loads(row["value"])}
    return instance.plugins.told(listener, said, _PATIENCE)
