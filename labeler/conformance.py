"""What a plugin has to keep, tried on the plugin itself: for ``labeler plugin check`` and :mod:`labeler.testing`.

Each check uses what the plugin registered as the rest of Labeler does: with texts as people write them, with answers as
models give them, on a real page and in a real export, in an instance of its own that is gone afterwards.
"""

from __future__ import annotations

import re
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from labeler import accounts, built_in, strictjson
from labeler.annotation.decisions import Decision
from labeler.backends.base import BackendFactory, BackendRequest, made_by
from labeler.errors import InputError, LabelerError, MissingExtra, PluginError, SettingError
from labeler.export import Options, PreferenceFormat, Shares, export_task
from labeler.ingest.options import ImportOptions
from labeler.instance import Instance
from labeler.labels import Choice, Label
from labeler.plugins import Plugins, load_plugins
from labeler.prompts import LANGUAGES, PromptStyle
from labeler.records import BackendFailure, Completion, Example, ParseFailure, Record, Value
from labeler.retrieval.index import Query
from labeler.store.table import NEWEST, Table
from labeler.task import GROUP, Task

HOSTILE = (
    "달콤하고 아삭해요", "배송이 늦고 포장도 터졌어요 ㅠㅠ", "Sweet & <b>crisp</b>", "``` {\"a\": 1} ```", "=1+1",
    "{{ 7 * 7 }}", "<script>alert(1)</script>", "무지개🌈 \U0001f468\u200d\U0001f469\u200d\U0001f467", "줄\n바꿈\t탭",
    "\u202etext that runs backwards", "'; DROP TABLE records; --", "가" * 3000,
)  # fmt: skip
"""Texts as they come in real files, and as attackers write them."""
_ANSWERS = (
    "", "null", "[]", "{}", "0", "좋아요", "```json\n{}\n```", '{"a": {"a": {"a": []}}}', "[" * 2000, '{"a": NaN}',
    "\ufeff{}",
)  # fmt: skip
_RECORDED = "answers.jsonl"


class Broken(AssertionError):
    """What a plugin has to keep is not kept; the sentence says what."""


def _keep(kept: object, sentence: str) -> None:
    if not kept:
        raise Broken(sentence)


@dataclass(frozen=True)
class Check:
    """One thing to keep. Calling it returns a note, mostly empty. Raises :class:`Broken` where it is not kept."""

    name: str
    run: Callable[[], str | None]

    def __call__(self) -> str:
        return self.run() or ""

    def __str__(self) -> str:
        return self.name


def checks_of(path: str | Path) -> list[Check]:
    """Return the checks of the plugin at ``path``: its file, or a folder whose pyproject.toml names it.

    Raises :class:`InputError` where there is no plugin, and :class:`PluginError` for one that cannot be loaded.

    >>> from labeler.testing import checks_of
    >>> first, *others = checks_of("examples/plugins/delivery.py")
    >>> print(first)
    loads
    >>> first()
    ''
    """
    file = plugin_file(Path(path))
    plugins = _loaded(file)
    own = next(iter(plugins.loaded[-1:]), "")
    if plugins.disabled:
        raise PluginError(f"{plugins.disabled[0].said}\n\n{plugins.disabled[0].trace}".rstrip())
    found = [Check("loads", lambda: None)]
    for (kind, name), owner in plugins.owners.items():
        if owner == own:
            made = getattr(plugins, kind)[name]
            found += [Check(f"{kind[:-1]} {name}: {title}", run) for title, run in _of(kind, made, file)]
    if plugins.manager.hook.prepare_record.get_hookimpls():
        found.append(Check("prepare_record: takes any text", partial(_prepares, plugins)))
    return found


def plugin_file(path: Path) -> Path:
    """Return the file of a plugin. Raises :class:`InputError` that says what was looked for."""
    if path.is_file():
        return path
    pyproject = path / "pyproject.toml"
    if pyproject.is_file():
        for module in _entry_points(pyproject):
            place = module.replace(".", "/")
            tried = [path / lies / end for lies in ("", "src") for end in (f"{place}.py", f"{place}/__init__.py")]
            found = next((file for file in tried if file.is_file()), None)
            if found:
                return found
            raise InputError(f"{pyproject} names the plugin {module}, and there is no {tried[0]}")
    raise InputError(
        f"{path} is no plugin: give its .py file, or a folder whose pyproject.toml has an entry point 'labeler'"
    )


def _entry_points(pyproject: Path) -> list[str]:
    try:
        project = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("project", {})
    except ValueError as error:
        raise InputError("%(name)s cannot be read: %(reason)s", name=pyproject, reason=error) from error
    modules = [str(module) for module in project.get("entry-points", {}).get("labeler", {}).values()]
    inside = next((module for module in modules if ":" in module), None)
    if inside is not None:
        raise InputError(f"{pyproject} names {inside}; only a plugin that is a module can be checked, not one in it")
    return modules


def _loaded(file: Path) -> Plugins:
    return load_plugins(built_in, files=[file], entry_points=False)


def _of(kind: str, made: Any, file: Path) -> Iterator[tuple[str, Callable[[], str | None]]]:
    if kind == "tasks":
        yield "speaks Korean and English", partial(_languages, made)
        yield "reads back what it writes", partial(_round_trip, made)
        yield "builds a prompt of any text", partial(_prompts, made)
        yield "survives any answer", partial(_answers, made)
        yield "is labelled on the desk and exported", partial(_desk, made, file)
        if (file.parent / _RECORDED).is_file():
            yield f"reads the answers of {_RECORDED}", partial(_recorded, made, file.parent / _RECORDED)
    elif kind == "backends":
        yield "answers every request, in order", partial(_backend, made)
    elif kind == "embedders":
        yield "makes vectors of any text", partial(_embedder, made)
    elif kind == "retrievers":
        yield "finds at most k", partial(_retriever, made)
    elif kind == "exporters":
        yield "writes any text, one row at a time", partial(_exporter, made, file)


# Tasks


def _languages(task: Task) -> str | None:
    missing = [
        f"no {what} in {language}"
        for what, texts in (("title", task.title), ("guidelines", task.guidelines))
        for language in LANGUAGES
        if not texts.get(language)
    ]
    return f"it has {', '.join(missing)}; what is there is shown instead" if missing else None


def values_of(task: Task, text: str) -> list[Value]:
    """Return some values that the label schema allows for ``text``: its closed list, the empty one, one of its form."""
    schema = task.schema
    found = [*schema.candidates().values(), schema.empty(), _sample(schema.json_schema(), text)]
    return [schema.parse(value, text) for n, value in enumerate(found) if value is not None and value not in found[:n]]


def _sample(form: Mapping[str, Any], text: str) -> Any:
    """Return a value of a JSON schema; a text in it is the first word of ``text``."""
    if "const" in form or "enum" in form:
        return form.get("const", next(iter(form.get("enum", [])), None))
    for some in ("anyOf", "oneOf"):
        if some in form:
            return _sample(form[some][0], text)
    kind = form.get("type")
    kind = kind if isinstance(kind, str) else next(iter(kind or ["string"]))
    if kind == "object":
        return {name: _sample(part, text) for name, part in form.get("properties", {}).items()}
    if kind == "array":
        return [_sample(form.get("items", {}), text)]
    if kind in ("integer", "number"):
        return form.get("minimum", 0)
    return {"boolean": True, "null": None}.get(kind, text.split()[0] if text.split() else "x")


def _round_trip(task: Task) -> None:
    schema, text = task.schema, HOSTILE[0]
    values = values_of(task, text)
    _keep(values, "its label schema allows no value that could be tried")
    for value in values:
        _keep(strictjson.loads(strictjson.dumps(value)) == value, f"the value {value!r} is not plain JSON")
        _keep(schema.parse(value, text) == value, f"parse({value!r}) is not itself again")
        completion = task.answer(value)
        read = task.parse_completion(completion, _record(text))
        _keep(read == value, f"the answer {completion!r} is read as {read!r}, not as {value!r}")
        strata = schema.strata(value)
        _keep(strata and all(isinstance(name, str) for name in strata), f"strata({value!r}) must be names")
        _keep(schema.agreement(value, value) == 1.0, f"agreement({value!r}, itself) is not 1.0")
        _keep(schema.disagreement(value, value) == 0.0, f"disagreement({value!r}, itself) is not 0.0")
        for other in values:
            there, back = schema.agreement(value, other), schema.agreement(other, value)
            said = f"agreement({value!r}, {other!r}) is {there}, and {back} turned round"
            _keep(0 <= there <= 1 and there == back, said)
            there, back = schema.disagreement(value, other), schema.disagreement(other, value)
            said = f"disagreement({value!r}, {other!r}) is {there}, and {back} turned round"
            _keep(there >= 0 and there == back, said)
            said = f"majority({[value, value, other]!r}) is not what two of three say"
            _keep(schema.majority([value, value, other]) == value, said)
        for language in LANGUAGES:
            rendered = schema.render(value, language)
            _keep(isinstance(rendered, str), f"render({value!r}, {language!r}) must return a text, not {rendered!r}")


def _prompts(task: Task) -> None:
    examples = [
        Example(n, n, text, value, 0.5) for n, text in enumerate(HOSTILE[:2]) for value in values_of(task, text)[:1]
    ]
    for language in LANGUAGES:
        for text in HOSTILE:
            style = PromptStyle(language=language)
            messages = task.build_prompt(_record(text), examples, style)
            good = isinstance(messages, list) and all(set(m) == {"role", "content"} for m in messages)
            _keep(messages and good, "build_prompt must return a list of messages with role and content")
            same = messages == task.build_prompt(_record(text), examples, style)
            _keep(same, "build_prompt must give the same prompt for the same record: it is a key of the ledger")


def _answers(task: Task) -> None:
    right = [task.answer(value) for value in values_of(task, HOSTILE[0])]
    for answer in (*_ANSWERS, *HOSTILE, *(f"{one} {one}" for one in right), *(one[:-1] for one in right)):
        read = task.parse_completion(answer, _record(HOSTILE[0]))
        if not isinstance(read, ParseFailure):
            again = task.schema.parse(read, HOSTILE[0])
            _keep(again == read, f"the answer {answer[:60]!r} is read as {read!r}, which the label schema refuses")


def _recorded(task: Task, file: Path) -> str:
    """Read answers that models gave: JSON Lines with task, text, completion and value (null: cannot be read)."""
    rows = [strictjson.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    own = [row for row in rows if row.get("task") == task.name]
    for row in own:
        read = task.parse_completion(row["completion"], _record(row["text"]))
        value = None if isinstance(read, ParseFailure) else read
        said = f"the answer {row['completion'][:60]!r} is read as {value!r}, not as {row['value']!r}"
        _keep(value == row["value"], said)
    return f"{len(own)} answers"


@contextmanager
def _instance(file: Path | None = None) -> Iterator[Any]:
    with tempfile.TemporaryDirectory() as folder, Instance(Path(folder) / "instance") as instance:
        if file is not None:
            instance.plugins = _loaded(file)
        yield instance


def _desk(task: Task, file: Path) -> str | None:
    if task.unit == GROUP:
        return "not tried: it labels products"
    from labeler.app import create_app

    with _instance(file) as instance:
        person = instance.store.people.get(accounts.add_reviewer(instance.store, "kim", None, "admin"))
        project_id = instance.create_project("check", "ko", {"tasks": [task.name], "blind_share": 0.0}, person["id"])
        added = _import(instance, project_id)
        client = create_app(instance).test_client()
        desk = f"/projects/{project_id}/label/{task.name}"
        for language in LANGUAGES:
            with client.session_transaction() as session:
                session["reviewer"], session["epoch"], session["language"] = person["id"], person["epoch"], language
            page = client.get(desk)
            said = page.get_data(as_text=True)
            _keep(page.status_code == 200, f"the desk answers {page.status_code} in {language}: {_sentence(said)}")
        token = re.search(r'name="csrf-token" content="([^"]+)"', said)
        headers = {"X-CSRFToken": token[1] if token else ""}
        for n in range(added):
            opened = client.post(f"{desk}/api/next", json={}, headers=headers)
            _keep(opened.status_code == 200, f"no record can be opened: {_sentence(opened.get_data(as_text=True))}")
            record: Any = opened.json
            value = values_of(task, instance.store.records.get(record["record_id"]).text)[0]
            body = {name: record[name] for name in ("record_id", "version", "suggestion_id", "blind")}
            body |= {"action": "approve", "value": value, "request_key": f"check-{n:06d}"}
            decided = client.post(f"{desk}/api/decide", json=body, headers=headers)
            _keep(decided.status_code == 200, f"{value!r} cannot be approved: {decided.get_data(as_text=True)[:200]}")
        _exported(instance, project_id, task, list(instance.plugins.exporters))
    return None


def _import(instance: Any, project_id: int) -> int:
    """Import the hostile texts; return how many came in."""
    project = instance.store.projects.get(project_id)
    file = instance.folder / "check.jsonl"
    rows = [{"id": str(n), "text": text} for n, text in enumerate(HOSTILE)]
    file.write_text("".join(strictjson.dumps(row) + "\n" for row in rows), encoding="utf-8")
    added: int = instance.importer(project).run(file, ImportOptions(text="text", id="id")).added
    _keep(added, "no record came in")
    return added


def _exported(instance: Any, project_id: int, task: Task, formats: Sequence[str]) -> None:
    project = instance.store.projects.get(project_id)
    for name in formats:
        folder = instance.folder / f"out-{name}"
        options = Options(longest=1_000_000)
        common = {"formats": instance.plugins.exporters, "shares": Shares(1.0, 0.0, 0.0), "options": options}
        try:
            export_task(instance.store, project, task, name, folder, **common)
        except (SettingError, MissingExtra):
            # The format is for other labels, or needs an option or an extra.
            continue
        except InputError as error:
            # Records that were labelled by hand have no suggestion to export, or to be better than.
            suggested = name == "suggestions" or isinstance(instance.plugins.exporters[name], PreferenceFormat)
            _keep(suggested, f"the format {name} refuses its labels: {error}")


def _sentence(page: str) -> str:
    text = re.sub(r"<[^>]+>", " ", page.partition("<main")[2] or page)
    return " ".join(text.split())[:200]


# What else a plugin may register


def _backend(factory: BackendFactory) -> str | None:
    try:
        backend = made_by(factory, {})
    except LabelerError as error:
        return f"not made without settings: {error}"
    except KeyError as error:
        return f"not made without what only a task has: {error}"
    if backend.billed:
        return "made, and not called: it would cost"
    schema = Choice(Label("good"), Label("bad"))
    requests = [BackendRequest(_record(text), "check", schema) for text in HOSTILE]
    answers = list(backend.complete(requests))
    _keep(len(answers) == len(requests), f"{len(requests)} requests, and {len(answers)} answers")
    for answer in answers:
        known = isinstance(answer, Completion | BackendFailure)
        _keep(known, f"an answer is {type(answer).__name__}, neither Completion nor BackendFailure")
    return None


def _embedder(make: Callable[[Mapping[str, Any]], Any]) -> str | None:
    try:
        embedder = make({})
    except LabelerError as error:
        return f"not made without settings: {error}"
    texts = [*HOSTILE, ""]
    vectors = embedder.embed(texts)
    shape = getattr(vectors, "shape", None)
    _keep(shape == (len(texts), embedder.dim), f"embed must return ({len(texts)}, {embedder.dim}) numbers, not {shape}")
    _keep(vectors.dtype == np.float32, f"embed must return float32, not {vectors.dtype}")
    lengths = np.linalg.norm(vectors[:-1], axis=1)
    _keep(np.allclose(lengths, 1, atol=1e-3), "each vector must have length 1")
    _keep(np.array_equal(vectors, embedder.embed(texts)), "embed must give the same vectors for the same texts")
    _keep(isinstance(embedder.id, str) and embedder.id, "an embedder needs an id that names all that changes a vector")
    return None


def _retriever(make: Callable[[Mapping[str, Any]], Any]) -> str | None:
    with _instance() as instance:
        project_id = instance.create_project("check", "ko", {"tasks": ["sentiment"], "embedder": "lexical"})
        _import(instance, project_id)
        person = accounts.add_reviewer(instance.store, "kim", None)
        project = instance.store.projects.get(project_id)
        task = instance.task_of(project, "sentiment")
        ids = _records(instance, project_id)
        for n, id_ in enumerate(ids[:-1]):
            value = ("positive", "negative")[n % 2]
            instance.decisions(project, task).decide(person, Decision(id_, "approve", f"check-{n:06d}", 0, value))
        index = instance.index(project, task)
        record = instance.store.records.get(ids[-1])
        query = Query.of(record, index.embeddings.embedder.embed([record.text])[0])
        for k in (0, 1, 4, 100):
            hits = make({**instance.project_settings(project), "pinned_ids": []}).retrieve(index, query, k)
            _keep(len(hits) <= k, f"retrieve was asked for {k} and returned {len(hits)}")
            _keep(all(hit.entry.record_id != ids[-1] for hit in hits), "a record must not be its own example")
    return None


def _records(instance: Instance, project_id: int) -> list[int]:
    return [
        place.record_id for place in Table(instance.store.db, project_id, None).walk(NEWEST, (), None, len(HOSTILE))
    ]


def _exporter(made: Any, file: Path) -> None:
    with _instance(file) as instance:
        project_id = instance.create_project("check", "ko", {"tasks": ["sentiment"]})
        _import(instance, project_id)
        person, project = accounts.add_reviewer(instance.store, "kim", None), instance.store.projects.get(project_id)
        task = instance.task_of(project, "sentiment")
        for id_ in _records(instance, project_id):
            instance.decisions(project, task).decide(
                person, Decision(id_, "approve", f"check-{id_:06d}", 0, "positive")
            )
        _exported(instance, project_id, task, [made.name])
        first = _written(instance, made)
        _keep(first, f"it wrote no file *{made.suffix}")
        _exported(instance, project_id, task, [made.name])
        _keep(first == _written(instance, made), "two exports of the same labels must be the same, byte for byte")


def _written(instance: Any, made: Any) -> dict[str, bytes]:
    folder = instance.folder / f"out-{made.name}"
    return {path.name: path.read_bytes() for path in folder.glob(f"*{made.suffix}")}


def _prepares(plugins: Plugins) -> None:
    for text, prepared in zip(HOSTILE, plugins.prepare("check", [_record(text) for text in HOSTILE]), strict=True):
        failed = isinstance(prepared, str) and prepared.startswith("the plugin ")
        _keep(not failed, f"{prepared} ({text[:20]!r})")


def _record(text: str) -> Record:
    return Record(1, 1, "check", text)
