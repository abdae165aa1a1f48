"""What a small model adds to the free suggestion: ``python benchmarks/stacking.py [--data FOLDER]``.

For each set, model and way of choosing examples one run is made as the page makes it: a trial on 60 approved records,
then the records that nobody approved. From its suggestions come three agreements on the same records: of the model
alone, of the free suggestion alone, and of what is shown. The table goes into docs/measured.md, between two marks.

Sets, models and records are those of ``benchmarks/agreement.py``, with the same seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from agreement import (
    DATA_SETS,
    DOCUMENT,
    WAYS,
    Model,
    Sizes,
    Study,
    Way,
    data_folder,
    half_width,
    machine,
    numbers,
    read,
    small_models,
    written,
)

from labeler.instance import Instance
from labeler.prelabel import runs, trial
from labeler.sentence import recalled
from labeler.worker import Worker

COMMAND = "python benchmarks/stacking.py"
MARKS = ("<!-- stacking: begin -->", "<!-- stacking: end -->")
COLUMNS = (
    "model", "examples", "approved", "trial: model", "free", "together", "used", "n", "model", "free", "shown",
    "shown vs free",
)  # fmt: skip
SETS = ("naver_shopping", "en_pros_cons")
SIMILAR = Way("similar", {"style": "few-shot", "retriever": "similar"})


def row(study: Study, model: Model, way: Way) -> str:
    """Return one row of the table: what a trial said, and what came of the records that it did not ask about."""
    settings = {**model.settings, **way.settings, "answering": "scored", "max_tokens": 200}
    settings = {"k": study.sizes.k, **settings}
    suggester = study.instance.suggester(study.project, study.task, settings)
    tried = trial.chosen(suggester, study.instance.ensemble(study.project, study.task))
    run_id = runs.start(study.store, study.id, study.data.task, study.test, settings, trial=tried)
    state = Worker(study.instance).move_run(run_id)
    found = trial.of_run(study.store.ledger.run(run_id))
    if found is None:
        why = recalled(study.store.ledger.run(run_id)["message"])
        raise SystemExit(f"{model.name} on {study.data.name}: {why}")
    if state == "paused":
        runs.resume(study.store, run_id)
        Worker(study.instance).move_run(run_id)
    worth: dict[str, list[float]] = {"model": [], "free": [], "shown": []}
    for id_ in study.test:
        made = study.store.suggestions.of_record(id_, study.data.task)[0]
        own = next((json.loads(s.text)[study.data.task] for s in made.steps if s.name == "model"), made.value)
        free = None if made.second is None else made.second.value
        gold = study.gold[study.store.records.get(id_).key]
        for name, value in (("model", own), ("free", free), ("shown", made.value)):
            worth[name].append(0.0 if value is None else study.task.schema.agreement(value, gold))
    gain = [shown - free for shown, free in zip(worth["shown"], worth["free"], strict=True)]
    (said, free, both), (low, high) = found.means, found.interval
    cells = [
        model.name, way.name, str(study.approved), f"{said:.2f}", f"{free:.2f}",
        f"{both:.2f} [{low:.2f}, {high:.2f}]", found.use, str(len(study.test)),
        *(f"{statistics.fmean(values):.2f} ± {half_width(values):.2f}" for values in worth.values()),
        f"{round(statistics.fmean(gain), 2) + 0.0:+.2f} ± {half_width(gain, -1.0):.2f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def table(study: Study, models: Sequence[Model], approved: Sequence[int]) -> str:
    lines = [f"| {' | '.join(COLUMNS)} |", f"|---|---|{'--:|' * 4}---|{'--:|' * 5}"]
    for count in approved:
        study.approve(count)
        for model in models:
            for way in (*WAYS[:2], SIMILAR, *WAYS[2:]) if not model.sets or study.data.name in model.sets else ():
                lines.append(row(study, model, way))
                print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a small model adds to the free suggestion.")
    parser.add_argument("--data", type=Path, default=data_folder(), help="the folder of the .jsonl.gz files")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--models", nargs="*", choices=("smollm2", "gemma3"), default=["smollm2", "gemma3"])
    parser.add_argument("--test", type=int, default=200, help="records that nobody approves")
    parser.add_argument("--approved", type=numbers, default=(200,), help="sizes of the pool: 200,1000")
    parser.add_argument("--document", type=Path, default=DOCUMENT, help="where the tables go")
    given = parser.parse_args()
    sizes, models, parts = Sizes(test=given.test), small_models(given.models), [f"Measured on {machine()}."]
    for data in (one for one in DATA_SETS if one.name in given.sets):
        rows = read(given.data, data)[: round(1.2 * (sizes.test + max(given.approved))) + 20]
        with tempfile.TemporaryDirectory() as folder, Instance(Path(folder) / "instance") as instance:
            study = Study(instance, data, rows, sizes)
            parts.append(f"### {data.task}: {data.name}\n\n{table(study, models, given.approved)}")
    document = given.document.read_text(encoding="utf-8")
    given.document.write_text(written(document, "\n\n".join(parts), MARKS), encoding="utf-8")


if __name__ == "__main__":
    main()
