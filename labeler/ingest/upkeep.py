"""What is made from reviews and kept up to date beside them: the texts of products.

What is to be done stands in the store, so that any process can do it, at any time and as often as it likes: at the end
of an import, when settings change, and in the background. Where there is nothing to do it costs one small read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from labeler.ingest.clusters import never
from labeler.store import Store
from labeler.task import GROUP, Task

_PRODUCTS = 20


def refresh_groups(store: Store, project_id: int, tasks: Iterable[Task], stop: Callable[[], bool] = never) -> int:
    """Make or renew the records of the products whose reviews have changed, for the tasks that label products.

    Returns how many records were made. Without such a task nothing is made, and nothing forgotten.
    """
    names = [task.name for task in tasks if task.unit == GROUP]
    stale = store.products.stale(project_id) if names else []
    made = 0
    while stale and not stop():
        part, stale = stale[:_PRODUCTS], stale[_PRODUCTS:]
        made += sum(store.write(lambda tx, part=part: [store.products.renew(tx, project_id, g, names) for g in part]))  # type: ignore[misc]
    return made


def check_products(store: Store, project_id: int) -> list[str]:
    """Return one sentence for each product whose record is not what its reviews say, and for each mark without any."""
    wrong = [f"The product {group!r}: {what}" for group, what in store.products.wrong(project_id)]
    orphaned = store.products.orphaned_marks(project_id)
    return wrong + [f"The product {group!r} is to be renewed and has no reviews" for group in orphaned]


def repair_products(store: Store, project_id: int, tasks: Iterable[Task]) -> int:
    """Make wrong products again from their reviews, and drop marks without reviews; return how many were mended."""
    wrong = [group for group, _ in store.products.wrong(project_id)]
    orphaned = store.products.orphaned_marks(project_id)
    store.write(lambda tx: store.products.mark(tx, project_id, wrong))
    store.write(lambda tx: store.products.unmark(tx, project_id, orphaned))
    refresh_groups(store, project_id, tasks)
    return len(wrong) + len(orphaned)
