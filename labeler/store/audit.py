"""What must hold for the books of every database at every time: read by ``labeler doctor`` and by the tests.

Each check is one query for rows that contradict each other; :func:`audit` changes nothing. Amounts may differ by less
than a hundredth of a cent, since they are added up in another order.
"""

from __future__ import annotations

from labeler.store import Store, Tx
from labeler.store.ballots import OPEN

_HAIR = 1e-4

# A sentence for each row that a query finds; the names in braces are its columns.
_CHECKS = (
    (
        "Run {id} counts ${a:.6f} as spent, its calls cost ${b:.6f}",
        f"""SELECT r.id, r.spent AS a, r.unlisted + COALESCE(c.cost, 0) AS b FROM runs r
            LEFT JOIN (SELECT run_id, SUM(cost) AS cost FROM calls GROUP BY run_id) c ON c.run_id = r.id
            WHERE ABS(r.spent - r.unlisted - COALESCE(c.cost, 0)) > {_HAIR}""",
    ),
    (
        "Project {id} counts ${a:.6f} as spent, its runs ${b:.6f}",
        f"""SELECT p.id, COALESCE(s.spent, 0) AS a, COALESCE(r.spent, 0) AS b FROM projects p
            LEFT JOIN (SELECT project_id, SUM(spent) AS spent FROM spending GROUP BY project_id) s
              ON s.project_id = p.id
            LEFT JOIN (SELECT project_id, SUM(spent) AS spent FROM runs GROUP BY project_id) r ON r.project_id = p.id
            WHERE ABS(COALESCE(s.spent, 0) - COALESCE(r.spent, 0)) > {_HAIR}""",
    ),
    (
        "Run {id} counts {total} records, {done} done and {failed} failed; its items are {items}, {a} and {b}",
        """SELECT r.id, r.total, r.done, r.failed, COALESCE(i.items, 0) AS items, COALESCE(i.done, 0) AS a,
             COALESCE(i.failed, 0) AS b FROM runs r LEFT JOIN (
             SELECT run_id, COUNT(*) AS items, SUM(state = 'done') AS done, SUM(state = 'failed') AS failed
             FROM run_items GROUP BY run_id) i ON i.run_id = r.id
           WHERE r.total <> COALESCE(i.items, 0) OR r.done <> COALESCE(i.done, 0)
             OR r.failed <> COALESCE(i.failed, 0)""",
    ),
    (
        "Run {id} is {state}, and nothing of it is left to do",
        """SELECT r.id, r.state FROM runs r WHERE r.state = 'running' AND NOT EXISTS (
             SELECT 1 FROM run_items i WHERE i.run_id = r.id AND i.state IN ('waiting', 'leased', 'batched'))""",
    ),
    (
        "Record {record_id} of run {id} is in a batch, and no batch of that run is on its way",
        """SELECT i.record_id, i.run_id AS id FROM run_items i WHERE i.state = 'batched' AND NOT EXISTS (
             SELECT 1 FROM batches b WHERE b.run_id = i.run_id AND b.tag = i.token AND b.state <> 'ended')""",
    ),
    (
        "Call {id} is in a batch, and no batch that holds it is on its way",
        """SELECT c.id FROM calls c WHERE c.state = 'batched' AND NOT EXISTS (
             SELECT 1 FROM batch_calls bc JOIN batches b ON b.id = bc.batch_id
             WHERE bc.call_id = c.id AND b.state <> 'ended')""",
    ),
    (
        "Record {record_id} of run {id} was answered and paid, and has neither a suggestion nor a parse failure of it",
        """SELECT i.record_id, i.run_id AS id FROM run_items i JOIN runs r ON r.id = i.run_id
           WHERE i.state = 'done' AND COALESCE(i.error_kind, '') <> 'decided' AND NOT EXISTS (
             SELECT 1 FROM trial_items t WHERE t.run_id = i.run_id AND t.record_id = i.record_id AND t.said IS NOT NULL)
           AND NOT EXISTS (
             SELECT 1 FROM suggestions s WHERE s.record_id = i.record_id AND s.task = r.task AND s.run_id = i.run_id)
           AND EXISTS (SELECT 1 FROM calls c WHERE c.run_id = i.run_id AND c.record_id = i.record_id
                       AND c.task = r.task AND c.state = 'answered')""",
    ),
    (
        "Record {record_id} of run {id} is leased, and nobody holds it",
        """SELECT i.record_id, i.run_id AS id FROM run_items i
           WHERE i.state IN ('leased', 'batched') AND i.token IS NULL""",
    ),
    (
        "What person {reviewer_id} said of record {record_id}, {task}, waits for others, and the record is {state}",
        f"""SELECT b.reviewer_id, b.record_id, b.task, COALESCE(w.state, 'not in the queue') AS state FROM ballots b
            LEFT JOIN work w ON w.record_id = b.record_id AND w.task = b.task
            WHERE {OPEN} AND COALESCE(w.state, '') NOT IN ('pending', 'disputed')""",
    ),
    (
        "Run {id} stands {state} with {n} records whose answers are paid and not looked at; a worker finishes them",
        """SELECT r.id, r.state, COUNT(*) AS n FROM run_items i JOIN runs r ON r.id = i.run_id
           WHERE i.answers > 0 AND i.answers = 1 AND r.state IN ('paused', 'cancelled') AND i.state = 'waiting'
           GROUP BY r.id, r.state""",
    ),
    (
        "Note {id} is open, and a newer one of its thread stands after it",
        """SELECT n.id FROM notes n WHERE n.open = 1
           AND EXISTS (SELECT 1 FROM notes o WHERE o.thread = n.thread AND o.id > n.id)""",
    ),
)


def mend_counts(tx: Tx) -> None:
    """Count the records of each run again: how many there are, are done, failed, or were left as people decided."""
    tx.run(
        """UPDATE runs SET total = i.items, done = i.done, failed = i.failed FROM (
             SELECT r.id, COUNT(x.record_id) AS items, COALESCE(SUM(x.state = 'done'), 0) AS done,
             COALESCE(SUM(x.state = 'failed'), 0) AS failed
             FROM runs r LEFT JOIN run_items x ON x.run_id = r.id GROUP BY r.id) AS i
           WHERE i.id = runs.id AND (runs.total, runs.done, runs.failed) <> (i.items, i.done, i.failed)"""
    )


def audit(store: Store, most: int = 20) -> list[str]:
    """Return a sentence for each row that contradicts another, at most ``most`` of a kind; empty when all is well."""
    return [
        sentence.format(**dict(row)) for sentence, sql in _CHECKS for row in store.db.all(f"{sql} LIMIT {int(most)}")
    ]
