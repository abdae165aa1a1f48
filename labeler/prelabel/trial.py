"""The trial of a run: a few dozen approved records are asked about first, by the very prompts of the others.

What comes of it says what the model is worth beside the free suggestion before the rest is paid for, and how both are
pooled (:mod:`labeler.prelabel.stack`). Its records are items of the run like all others: in its estimate, its budgets
and the ledger. Their own labels and near-duplicates are in no prompt for them, and their answers become no suggestions.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labeler import strictjson
from labeler.backends.ensemble.backend import EnsembleBackend
from labeler.backends.ensemble.learn import COMPARED
from labeler.prelabel import stack
from labeler.prelabel.stack import FREE, MODEL, TOGETHER, Case, Stack
from labeler.sentence import Sentence
from labeler.settings import DIRECT
from labeler.store import Tx
from labeler.store.ledger import OPEN, PAUSED

if TYPE_CHECKING:
    from labeler.backends.ensemble.learner import Learner
    from labeler.prelabel.suggest import Suggester
    from labeler.retrieval.index import Entry

MOST = 60
"""So many records are asked about: half of a 95 % interval is 0.1 or less then."""
_SEED = 20
ADDS_NOTHING = Sentence(
    "The model adds nothing to the free suggestion, so the rest was not asked. Resume to ask it"
    " all the same: its answers then stand beside the free suggestions"
)


@dataclass(frozen=True, slots=True)
class Trial:
    """The ``kind`` of what answers, and the approved records that it has not answered in an earlier trial."""

    kind: str
    record_ids: Sequence[int]


def chosen(suggester: Suggester, ensemble: Learner[Any]) -> Trial | None:
    """Return the trial of a run; None where there is nothing to compare, or too little to compare it on.

    That is a free run, a task without a list of labels, one with fewer than :data:`stack.LEAST` approved records,
    near-duplicates counted once, or a backend that learned from the approved records itself. The free answers take part
    in a cascade, and a joint call is another prompt for each record: these have no trial. The records are drawn with a
    fixed seed, each label in its share.
    """
    backend, alone = suggester.backend, suggester.mode == DIRECT and not suggester.joint
    if not (
        backend.billed and not backend.learns and alone and suggester.stacks and isinstance(ensemble, EnsembleBackend)
    ):
        return None
    entries = [entry for _, entry in ensemble.examples()[-COMPARED:]]
    if len(entries) < stack.LEAST:
        return None
    known = suggester.store.ledger.said(suggester.project_id, suggester.task.name, suggester.kind)
    fresh = [entry for entry in entries if entry.record_id not in known]
    wanted = MOST - (len(entries) - len(fresh))
    return Trial(suggester.kind, sorted(entry.record_id for entry in _drawn(fresh, wanted)))


def _drawn(entries: Sequence[Entry], count: int) -> list[Entry]:
    """Return ``count`` of the entries, or all: spread evenly over their labels."""
    shuffled = random.Random(_SEED).sample(list(entries), len(entries))
    ordered = sorted(shuffled, key=lambda entry: entry.strata)
    count = max(0, min(count, len(ordered)))
    return [ordered[(2 * n + 1) * len(ordered) // (2 * count)] for n in range(count)]


def judge(suggester: Suggester, ensemble: Learner[Any], run_id: int) -> Stack | None:
    """Say what came of a run's trial and let the run go on, or pause it where its model adds nothing.

    Everything that this kind of model and prompt ever said in a trial counts, beside the labels as they are approved
    now and the free suggestion as it is now. None where too little was answered: then the run goes on without.
    """
    store = suggester.store
    found = _fitted(suggester, ensemble)

    def work(tx: Tx) -> None:
        if store.ledger.end_trial(tx, run_id, {} if found is None else found.to_json()) and found and found.use == FREE:
            store.ledger.set_run(tx, run_id, PAUSED, ADDS_NOTHING, OPEN)

    store.write(work)
    return found


def _fitted(suggester: Suggester, ensemble: Learner[Any]) -> Stack | None:
    said = suggester.store.ledger.said(suggester.project_id, suggester.task.name, suggester.kind)
    unseen = ensemble.left_out() if isinstance(ensemble, EnsembleBackend) else None
    if unseen is None:
        return None
    rows = zip(unseen.record_ids, unseen.golds, unseen.values, unseen.chances.tolist(), strict=True)
    cases = [
        Case(id_, gold, *said[id_], value, dict(zip(unseen.labels, chances, strict=True)))
        for id_, gold, value, chances in rows
        if id_ in said
    ]
    if len(cases) < stack.LEAST:
        return None
    return stack.fit(suggester.task.schema, cases, unseen.rule, unseen.learned_from)


def sentence(found: Stack) -> str:
    """Return what came of a trial as one sentence for people."""
    (model, free, both), (low, high) = found.means, found.interval
    used = {
        TOGETHER: Sentence("both together are used"),
        FREE: Sentence("the free suggestion is used"),
        MODEL: Sentence("the model is used"),
    }
    return Sentence(
        "On %(n)s approved records this model agrees %(model)s, the free suggestion %(free)s, both "
        "together %(both)s [%(low)s, %(high)s]; %(what)s",
        n=len(found.judged),
        model=f"{model:.2f}",
        free=f"{free:.2f}",
        both=f"{both:.2f}",
        low=f"{low:.2f}",
        high=f"{high:.2f}",
        what=used[found.use],
    )


def of_run(run: Mapping[str, Any]) -> Stack | None:
    """Return what came of the trial of a run, by its row; None for one without, or whose trial is under way."""
    told = strictjson.loads(run["trial"]) if run["trial"] else None
    return Stack.from_json(told) if told else None
