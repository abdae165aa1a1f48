"""How the people of a task agree with each other, and how each of them does; each by name for admins alone."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, g, render_template
from flask_babel import get_locale

from labeler import accounts
from labeler.evaluation.team import MOST, team_of
from labeler.labels import WHOLE
from labeler.settings import NUMBERS
from labeler.web.access import allowed, instance, project_task

blueprint = Blueprint("team", __name__, url_prefix="/projects/<int:project_id>/team/<task>")


@blueprint.get("")
@allowed(NUMBERS)
def page(project_id: int, task: str) -> Any:
    """Show how far people agree where several of them answered, and to admins how each of them does.

    :raise 404: the project does not have the task
    """
    found = project_task(task)
    store = instance().store
    overlap = instance().ballots(g.project, found).overlap
    return render_template(
        "team.html",
        task=found,
        tasks=instance().tasks_of(g.project),
        team=team_of(store, project_id, found),
        overlap=overlap,
        by_name=g.role == accounts.ADMIN,
        most=MOST,
        whole=WHOLE,
        titles={label.name: label.titled(str(get_locale())) for label in found.schema.past.labels},
    )
