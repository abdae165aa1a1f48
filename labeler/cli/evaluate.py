"""Evaluate: lay models, adapters and free backends side by side on the test split."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from labeler.cli.base import clean, cli, task_options, with_instance
from labeler.cli.replay import check_measured, interval, named, results_of, show_estimates, watch
from labeler.cli.run_options import SETTINGS
from labeler.cli.runs import watch_run
from labeler.errors import InputError
from labeler.sentence import recalled
from labeler.settings import REPLAY_WITHIN

if TYPE_CHECKING:
    from labeler.evaluation.judging import Judged, Standing
    from labeler.evaluation.measures import Measure
    from labeler.evaluation.results import ArmResult, Report, Results
    from labeler.instance import Instance

_NUMBERS = {
    "agreement": "agreement", "macro_f1": "macro F1", "kappa": "kappa", "distance": "mean error", "rouge_l": "ROUGE-L",
    "bertscore": "BERTScore",
}  # fmt: skip


@cli.command()
@task_options
@click.option(
    "--arm", "arms", multiple=True, metavar="BACKEND[:MODEL]",
    help="What to compare, such as ensemble, openai:gpt-4o-mini or transformers:NAME; can be given several times",
)  # fmt: skip
@click.option("--frozen", metavar="NAME", help="On this frozen test set, in place of the test split")
@click.option("--budget", metavar="X", help="Stop each model at so many US dollars")
@click.option("--dry-run", is_flag=True, help="Show what it would take; call nothing")
@click.option(
    "--judge", metavar="BACKEND:MODEL",
    help="For texts: let this model judge the answers, if it agrees with people on what they decided",
)  # fmt: skip
@click.option("--bertscore", metavar="ID", help="For texts: compare them by this encoder too, a hub id or a folder")
@click.option("--show", type=click.IntRange(1), metavar="N", help="Show an earlier evaluation again, by its replay")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object")
@with_instance
def evaluate(
    instance: Instance, project: str, task_name: str, arms: tuple[str, ...], budget: str | None, dry_run: bool,
    show: int | None, as_json: bool, frozen: str | None, judge: str | None, bertscore: str | None,
) -> None:  # fmt: skip
    """Compare backends and models on the approved records of the test split.

    Examples, and what is learned, come from the train split alone. Without --arm the task as it is set is compared
    with the free backends.
    """
    from labeler.evaluation import judging, replay
    from labeler.export.splits import TEST

    found = instance.store.projects.in_use(project)
    task = instance.project_task(found, task_name)
    read = None if budget is None else SETTINGS["budget"].read(budget)
    if judge is not None:
        judging.suggester_of(instance, found, task, _settings(judge))
    if show is None:
        wanted = [_settings(arm) for arm in arms]
        made = replay.each_kind(instance, found, task, wanted) if wanted else replay.arms_of(instance, found, task, {})
        if dry_run:
            show_estimates(instance, found, task, made, None, frozen or TEST)
            if judge is not None:
                n = len(judging.pairs_of_people(instance, found, task))
                click.echo(f"Judge: {n:,} pairs that people decided on, then the answers of each arm; 2 calls a pair.")
            return
        show = replay.start(instance, found, task, made, None, read, held_out=frozen or TEST)
        # What is said on the way is not part of the table, nor of the JSON.
        with redirect_stdout(sys.stderr):
            watch(instance, show)
    results = results_of(instance, found, task, show, REPLAY_WITHIN)
    if results.replay["held_out"] is None:
        raise InputError(f"Replay {show} is no evaluation; look at it with 'labeler replay --show {show}'")
    if judge is not None:
        with redirect_stdout(sys.stderr):
            _let_judge(instance, results, found, _settings(judge), read)
    report = results.report()
    if bertscore is not None and report.n:
        report = _compared(results, report, bertscore)
    told = (
        json.dumps(_as_json(results, report, bertscore), ensure_ascii=False, indent=2)
        if as_json
        else "\n".join(_told(results, report, bertscore))
    )
    click.echo(told)
    check_measured(results)


def _compared(results: Results, report: Report, encoder: str) -> Report:
    """Return the report with the BERTScore of each arm. Raises :class:`InputError` for values without texts."""
    from labeler.evaluation.bertscore import BertScore
    from labeler.evaluation.judging import check_texts
    from labeler.evaluation.measures import weights

    check_texts(results.task)
    score, drawn = BertScore(encoder), weights(report.n)
    arms = []
    for arm in report.arms:
        found = score.measure(results.answers(arm.number), drawn)
        arms.append(arm if found is None else replace(arm, numbers={**arm.numbers, "bertscore": found}))
    return replace(report, arms=arms)


def _let_judge(
    instance: Instance, results: Results, project: Mapping[str, Any], judge: Mapping[str, Any], budget: float | None
) -> None:
    """Let a model judge what people decided, and the arms if it counts; Ctrl-C leaves the rest to a worker."""
    from labeler.evaluation import judging
    from labeler.store.judgements import PEOPLE

    pairs = judging.pairs_of_people(instance, project, results.task)
    _watch(instance, judging.begin(instance, results, project, judge, PEOPLE, pairs, budget), "people's decisions")
    found = judging.standing(results)
    if found is None or not found.counts:
        return
    for n, arm in enumerate(results.arms):
        asked = judging.pairs_of_arm(results, n)
        _watch(instance, judging.begin(instance, results, project, judge, n, asked, budget), named(arm["settings"]))


def _watch(instance: Instance, run_id: int | None, of: str) -> None:
    if run_id is not None and instance.store.ledger.run(run_id)["state"] != "finished":
        click.echo(f"Judge: {of}")
        watch_run(instance, run_id)


def _settings(arm: str) -> dict[str, Any]:
    """Return the settings of an arm as it is typed; a model may have colons in its name."""
    backend, _, model = arm.partition(":")
    given = {"backend": backend, "model_id": model} if model else {"backend": backend}
    return {name: SETTINGS[name].read(clean(name, raw)) for name, raw in given.items()}


def _told(results: Results, report: Report, encoder: str | None) -> list[str]:
    """Return an evaluation line by line: what the arms are, the table, and what it says."""
    from labeler.evaluation import apart, rouge
    from labeler.evaluation.verdict import verdict

    title = f"Evaluation {results.replay['id']}: {results.task.name}, {report.n:,} records of the test split"
    if not report.ended:
        title += f" of {report.total:,} so far"
    lines = [f"{title}; {report.known:,} approved records of the train split are known."]
    names = [named(arm.settings) for arm in report.arms]
    lines += [f"Arm {n}: {name}" for n, name in enumerate(names, 1)]
    if not report.n:
        return [*lines, recalled(results.replay["message"]) or "Nothing is measured yet."]
    said = _judgement(results, report)
    lines += ["", *_table(report, said), ""]
    lines.append(f"95 % intervals in brackets. p is by {apart.test_of(results.schema)}{_together(results)}.")
    if "rouge_l" in report.arms[0].numbers:
        lines.append(f"ROUGE-L compares {rouge.unit()}.")
    if encoder is not None:
        lines.append(f"BERTScore is by the encoder {encoder}, without weights.")
    if said.standing is not None:
        lines.append(said.told())
    return [*lines, f"{verdict(report, names, said.arms)}."] if report.ended else lines


def _together(results: Results) -> str:
    n = results.together
    return f"; it and the difference hold for all {n} comparisons together (Bonferroni)" if n > 1 else ""


@dataclass(frozen=True, slots=True)
class _Judgement:
    """What the judge of an evaluation is worth, and what it says of each arm, if it counts."""

    standing: Standing | None
    arms: Mapping[int, Judged]
    name: str = ""

    def told(self) -> str:
        from labeler.evaluation import judging

        found = self.standing
        if found is None or found.agreement is None:
            why = f"people decided on fewer than {judging.LEAST} pairs of answers"
            return f"Judge {self.name}: {why}, so it was not asked and is not counted."
        said = f"Judge {self.name}: agrees with people {interval(found.agreement)} on {found.n:,} pairs"
        said += f", {found.unread:,} unreadable" if found.unread else ""
        if found.counts:
            unread = sum(one.unread for one in self.arms.values())
            more = f"; {unread:,} unreadable verdicts on arms count as ties" if unread else ""
            return f"{said}. The column says how it finds an arm against what is approved; 0.50 is as good{more}."
        few = found.n < judging.LEAST
        why = f"fewer than {judging.LEAST} pairs" if few else f"not shown to be above {judging.BOUND}"
        return f"{said}: {why}, so it is not counted."


def _judgement(results: Results, report: Report) -> _Judgement:
    from labeler.evaluation import judging

    standing = judging.standing(results)
    if standing is None:
        return _Judgement(None, {})
    judge = results.instance.store.judgements.judge(int(results.replay["id"])) or {}
    found = {arm.number: judging.judged(results, arm.number) for arm in report.arms} if standing.counts else {}
    name = " ".join(one for one in (judge["backend"], judge["model_id"]) if one)
    return _Judgement(standing, {n: one for n, one in found.items() if one is not None}, name)


def _table(report: Report, said: _Judgement) -> list[str]:
    from labeler.evaluation.apart import shown_p

    there = [name for name in _NUMBERS if name in report.arms[report.best].numbers]
    judges = ["judge"] if said.standing is not None else []
    head = ["arm", *(_NUMBERS[name] for name in there), *judges, "behind the best", "p", "unreadable", "tokens",
            "s a record", "s in all", "$ of 1,000", "$ in all"]  # fmt: skip
    rows = [head]
    for arm in report.arms:
        numbers = [interval(arm.numbers[name]) if name in arm.numbers else "–" for name in there]
        behind = "–" if arm.behind is None else interval(arm.behind)
        tokens = _shown(arm.tokens, ",.0f") if arm.billed else "–"
        times = [_shown(arm.seconds, ".3f"), _shown(_in_all(arm.seconds, report), ".1f")]
        costs = [_shown(cost, ".4f") for cost in (arm.cost, _in_all(arm.cost, report, 1000))]
        numbers += [_found(said, arm.number) for _ in judges]
        rows.append([str(arm.number + 1), *numbers, behind, shown_p(arm.p), f"{arm.unread:,}", tokens, *times, *costs])
    widths = [max(len(row[n]) for row in rows) for n in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _found(said: _Judgement, arm: int) -> str:
    if said.standing is None or not said.standing.counts:
        return "not counted"
    return interval(said.arms[arm].share) if arm in said.arms else "–"


def _shown(number: float | None, digits: str) -> str:
    return "unknown" if number is None else format(number, digits)


def _in_all(number: float | None, report: Report, of: int = 1) -> float | None:
    """Return what all records took, from what ``of`` of them do."""
    return None if number is None else number * report.n / of


def _as_json(results: Results, report: Report, encoder: str | None) -> dict[str, Any]:
    from labeler.evaluation import apart, rouge
    from labeler.evaluation.verdict import verdict

    replay, said = results.replay, _judgement(results, report)
    names = [named(arm.settings) for arm in report.arms]
    more = {"rouge_l_of": rouge.unit()} if report.n and "rouge_l" in report.arms[0].numbers else {}
    more |= {} if encoder is None else {"bertscore_of": encoder}
    return {
        "replay": replay["id"], "task": replay["task"], "task_version": replay["task_version"],
        "test_set": replay["held_out"], "ended": report.ended, "records": report.n, "train_records": report.known,
        "test": apart.test_of(results.schema), "comparisons": results.together, **more,
        "best": report.best + 1 if report.n else None,
        "judge": _judge_as_json(said),
        "arms": [
            _arm_as_json(arm, name, report) | _judged_as_json(said, arm.number)
            for arm, name in zip(report.arms, names, strict=True)
        ],
        "sentence": verdict(report, names, said.arms) if report.n and report.ended else None,
    }  # fmt: skip


def _judge_as_json(said: _Judgement) -> dict[str, Any] | None:
    found = said.standing
    if found is None:
        return None
    return {
        "name": said.name, "pairs": found.n, "unreadable": found.unread, "agreement": _measure(found.agreement),
        "counted": found.counts,
    }  # fmt: skip


def _judged_as_json(said: _Judgement, arm: int) -> dict[str, Any]:
    one = said.arms.get(arm)
    return {} if said.standing is None else {"judged": None if one is None else _measure(one.share)}


def _arm_as_json(arm: ArmResult, name: str, report: Report) -> dict[str, Any]:
    return {
        "arm": arm.number + 1, "name": name, "settings": dict(arm.settings),
        "run": arm.run["id"] if arm.run else None, "n": report.n,
        "numbers": {of: asdict(one) for of, one in arm.numbers.items()},
        "against_first": _measure(arm.against), "behind_best": _measure(arm.behind), "p": arm.p,
        "told_apart": arm.told_apart, "parse_failures": arm.unread, "without_suggestion": arm.silent,
        "tokens_a_record": arm.tokens, "seconds_a_record": arm.seconds, "seconds": _in_all(arm.seconds, report),
        "cost_of_1000": arm.cost, "cost": _in_all(arm.cost, report, 1000),
    }  # fmt: skip


def _measure(one: Measure | None) -> dict[str, float] | None:
    return None if one is None else asdict(one)
