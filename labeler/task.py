"""A task: one labeling problem. What a plugin makes one of, and what everything else works with."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from labeler import prompts, strictjson
from labeler.errors import JsonError, LabelError, SettingError
from labeler.labels import Label, LabelSchema, Lineage, Moves
from labeler.labels.base import maps_texts
from labeler.labels.moves import carried
from labeler.prompts import PromptStyle, titled
from labeler.prompts.forms import NONE, SHORT
from labeler.records import Example, Generation, Message, ParseFailure, Record, Value
from labeler.sentence import Sentence

RECORD, GROUP = "record", "group"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_FENCE = "```"
_LONGEST_ANSWER = 200_000
_MOST_ANSWERS = 1000
_UNMOVED = Lineage()


@dataclass(frozen=True)
class Task:
    """A label schema with a name, guidelines and defaults.

    ``guidelines`` and ``title`` map a language to text; people and prompt read the same guidelines. ``short`` are the
    guidelines in a sentence or two, by language, for prompts of models that were trained on them. ``unit`` is
    "record" (one review) or "group" (all reviews of one product as one text). ``k`` is how many examples a
    prompt shows. A subclass may override :meth:`build_prompt` and :meth:`parse_completion`; both are pure.

    >>> from labeler import Choice, Label, PromptStyle, Record, Task
    >>> mood = Choice(Label("good"), Label("bad"))
    >>> task = Task("mood", mood, guidelines={"en": "Is the customer happy?"})
    >>> review = Record(1, 1, "r1", "Crisp and sweet", language="en")
    >>> head, question = task.build_prompt(review, [], PromptStyle(language="en"))
    >>> "Is the customer happy?" in head["content"]
    True
    >>> task.parse_completion(task.answer("good"), review)
    'good'
    >>> task.parse_completion("good, I think", review).kind
    'not_json'
    """

    name: str
    schema: LabelSchema
    title: Mapping[str, str] = field(default_factory=dict)
    guidelines: Mapping[str, str] = field(default_factory=dict)
    version: str = "1"
    unit: str = RECORD
    k: int = 8
    generation: Generation = field(default_factory=Generation)
    short: Mapping[str, str] = field(default_factory=dict)
    lineage: Lineage = field(default=_UNMOVED, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise SettingError(f"The task name {self.name!r} must be lower-case letters, digits and _, at most 40")
        if self.unit not in (RECORD, GROUP):
            raise SettingError(f"The task {self.name!r} has the unit {self.unit!r}; there are: {RECORD}, {GROUP}")
        if not isinstance(self.schema, LabelSchema):
            raise SettingError(f"The task {self.name!r} needs a label schema like Choice(...), not {self.schema!r:.50}")
        for what in ("title", "guidelines", "short"):
            if not maps_texts(getattr(self, what)):
                raise SettingError(f'The {what} of the task {self.name!r} must map languages to texts: {{"en": "..."}}')
        if not isinstance(self.version, str) or not isinstance(self.generation, Generation) or type(self.k) is not int:
            raise SettingError(f"The task {self.name!r} needs a text as version, a number as k, and a Generation")

    def titled(self, language: str) -> str:
        return titled(self.title, language, self.name)

    def guided(self, language: str) -> str:
        return titled(self.guidelines, language)

    def told(self, style: PromptStyle) -> str:
        """Return the guidelines of a prompt. Raises :class:`SettingError` where there are no short ones."""
        if style.guidelines == NONE:
            return ""
        if style.guidelines == SHORT and not any(self.short.values()):
            raise SettingError(
                "The task %(task)s has no short guidelines; write some in its settings, or use the full ones",
                task=self.name,
            )
        return titled(self.short, style.language) if style.guidelines == SHORT else self.guided(style.language)

    def guided_in(self, language: str) -> str:
        """Return the language of the guidelines that are shown in ``language``."""
        there = (name for name, text in self.guidelines.items() if text)
        return language if self.guidelines.get(language) else next(there, language)

    def edited(self, guidelines: str, language: str) -> Self:
        """Return the task with other guidelines in place of those that are shown in ``language``."""
        return replace(self, guidelines={**self.guidelines, self.guided_in(language): guidelines})

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema of a whole answer: an object whose only key is the task's name."""
        return {
            "type": "object",
            "properties": {self.name: self.schema.json_schema()},
            "required": [self.name],
            "additionalProperties": False,
        }

    def build_prompt(self, record: Record, examples: Sequence[Example], style: PromptStyle) -> list[Message]:
        """Return the messages for one record. Pure: the same arguments give the same prompt.

        The first message is the same for every record; of ``examples``, most useful first, as many are shown as the
        style shows.
        """
        answered = [(example.text, self._answered(example.value)) for example in prompts.shown(examples, style)]
        return prompts.turns(self._head(style), record, answered, style)

    def _head(self, style: PromptStyle) -> str:
        key = (style.language, style.persona, style.wording, bool(style.columns), style.guidelines)
        if key not in self._heads:
            self._heads[key] = self._made_head(style)
        return self._heads[key]

    def _made_head(self, style: PromptStyle) -> str:
        return prompts.head(self.name, self.titled(style.language), self.told(style), self.schema, style)

    def _answered(self, value: Value) -> str:
        """Return the answer of an example; labels of closed lists are the same few again and again."""
        if not isinstance(value, str):
            return self.answer(value)
        if value not in self._answers:
            if len(self._answers) >= _MOST_ANSWERS:
                self._answers.clear()
            self._answers[value] = self.answer(value)
        return self._answers[value]

    @cached_property
    def _answers(self) -> dict[str, str]:
        return {}

    @cached_property
    def _heads(self) -> dict[tuple[str, str, str, bool, str], str]:
        # A head takes longer to make than the rest of a prompt, and stays the same for a whole run.
        return {}

    def answer(self, value: Value) -> str:
        """Return the completion that says ``value``: what exports train on."""
        return prompts.answer_text(self.name, self.schema, value)

    def parse_completion(self, completion: str, record: Record) -> Value | ParseFailure:
        """Return the canonical value, or a ParseFailure with the completion as it came. Never guesses."""
        answer = read_json(completion)
        if isinstance(answer, ParseFailure):
            return answer
        if not isinstance(answer, dict) or set(answer) != {self.name}:
            shown = sorted(answer) if isinstance(answer, dict) else type(answer).__name__
            message = Sentence(
                "Expected one object with the only key %(name)r, got %(got)s", name=self.name, got=str(shown)[:100]
            )
            return ParseFailure("shape", message, completion)
        try:
            return self.schema.parse(answer[self.name], record.text)
        except LabelError as error:
            return ParseFailure(error.kind, str(error), completion)

    @property
    def usual(self) -> bool:
        """Whether prompts and answers are the usual ones, so that they can share a prompt or be put in other words."""
        kind = type(self)
        return all(getattr(kind, name) is getattr(Task, name) for name in ("build_prompt", "answer", "json_schema"))

    def read(self, value: Value, version: str, text: str | None = None) -> Value:
        """Return a stored value as it reads today: what was decided under ``version``, by the labels that there are.

        Labels that are retired are read as any other. Raises :class:`LabelError` for a value that today's labels
        cannot hold. ``text`` is the record's, as for :meth:`LabelSchema.parse`.
        """
        now = self.carried(value, version)
        if now is None:
            raise LabelError("A label of this value was removed, and its records were put back to pending", "removed")
        return self.schema.past.parse(now, text)

    def carried(self, value: Value, version: str) -> Value | None:
        """Return a value that was made under ``version`` in the labels of today; None if one of them went nowhere."""
        path = self.lineage.path(version)
        return self.schema.moved(value, lambda name: carried(name, path)) if path and value is not None else value

    def overridden(self, version: int, settings: Mapping[str, Any], moves: Mapping[int, Moves] | None = None) -> Self:
        """Return the task as version ``version`` of a project's settings has it; 0 is the plugin's own.

        ``settings`` may hold "guidelines" ({language: text}), "labels" ([label as JSON]), "k" and "unit"; ``moves``
        are those of all versions that changed labels which had been given.
        """
        changes: dict[str, Any] = {"lineage": Lineage(moves, self.version)} if moves else {}
        if settings.get("guidelines"):
            changes["guidelines"] = dict(self.guidelines) | dict(settings["guidelines"])
        if settings.get("labels"):
            labels = [Label.from_json(raw) for raw in settings["labels"]]
            changes["schema"] = self._with_labels(labels, changes.get("lineage", self.lineage))
        if settings.get("short_guidelines"):
            changes["short"] = dict(self.short) | dict(settings["short_guidelines"])
        for name in ("k", "unit"):
            if settings.get(name) is not None:
                changes[name] = settings[name]
        return replace(self, version=f"{self.version}.{version}" if version else self.version, **changes)

    def _with_labels(self, labels: Sequence[Label], lineage: Lineage) -> LabelSchema:
        return self.schema.relabelled(labels, lineage.renamed)


def read_json(completion: str) -> Any:
    """Return the JSON value that a completion is, also one in a code block, or a ParseFailure that says why not."""
    text = completion.strip()
    if not text:
        return ParseFailure("empty", Sentence("The answer is empty"), completion)
    if len(text) > _LONGEST_ANSWER:
        return ParseFailure("too_long", Sentence("The answer has %(n)s characters", n=f"{len(text):,}"), completion)
    try:
        return _composed(strictjson.loads(_unfenced(text)))
    except JsonError as error:
        return ParseFailure("not_json", str(error), completion)


def _composed(value: Any) -> Any:
    """Return an answer with its texts in NFC, as all texts in Labeler are: some models take Hangul apart."""
    if isinstance(value, str):
        return value if value.isascii() else unicodedata.normalize("NFC", value)
    if isinstance(value, list):
        return [_composed(part) for part in value]
    return {_composed(key): _composed(part) for key, part in value.items()} if isinstance(value, dict) else value


def _unfenced(text: str) -> str:
    """Return what stands between the marks of a fenced code block, or the text itself if it is none."""
    if len(text) < 2 * len(_FENCE) or not (text.startswith(_FENCE) and text.endswith(_FENCE)):
        return text
    language, line_end, inside = text.removeprefix(_FENCE).removesuffix(_FENCE).partition("\n")
    word = language.strip()
    return inside if line_end and (not word or (word.isascii() and word.isalpha())) else text


def guideline_files(plugin_file: str, name: str) -> dict[str, str]:
    """Return the guidelines in ``prompts/<name>.<language>.md`` beside a plugin's file, by language.

    Changed wording is a new file with a new version in its name, so that old suggestions can still be traced.
    Raises :class:`SettingError` where there are none.
    """
    folder = Path(plugin_file).parent / "prompts"
    found = {path.name.split(".")[-2]: path.read_text(encoding="utf-8") for path in sorted(folder.glob(f"{name}.*.md"))}
    if not found:
        raise SettingError(f"No guidelines {name}.<language>.md in {folder.name}/")
    return found
